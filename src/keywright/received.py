"""What a server says in JSON, as the records that it was made from: ``shown`` backwards. Pure."""

from typing import Any

import msgspec

from keywright.answers import Answer
from keywright.credential import Secret
from keywright.limits import Standing
from keywright.model import (
    MANAGEMENT,
    AccessPolicy,
    Account,
    Alert,
    Binding,
    Changed,
    Credential,
    Endpoint,
    EndpointSecret,
    ExpiryPolicy,
    Fields,
    Gate,
    Identity,
    Imported,
    ImportedItem,
    ImportPolicy,
    Issued,
    IssuedEndpoint,
    Key,
    KeyRecord,
    Keyspace,
    Letter,
    Limit,
    LimitState,
    Membership,
    Person,
    Plan,
    PortalLink,
    PortalLook,
    PortalSession,
    Preset,
    Propagation,
    RolePolicy,
    Scope,
    Several,
    StoredSecret,
    Terms,
    Verdict,
)
from keywright.presentations import Presentation
from keywright.times import SECOND, parse_instant


class Received(Issued, frozen=True):
    """A key with its credential, and how the server says to send it."""

    presentations: tuple[Presentation, ...] = ()


class Verified(Verdict, frozen=True):
    """A verdict, and what the server says to answer with."""

    answered: Answer | None = None


def alert(said: dict[str, Any]) -> Alert:
    """A sign of misuse."""
    same = ("id", "rule", "about", "severity", "act", "state", "account", "keyspace", "count", "acted_by")
    named = {} if said["key_name"] is None else {"key_name": said["key_name"]}
    return Alert(
        seq=0,
        **{name: said[name] for name in same},
        environment=said["environment"] or "",
        key_id=said["key"] or "",
        first_at=parse_instant(said["first_at"]),
        last_at=parse_instant(said["last_at"]),
        raised_at=parse_instant(said["raised_at"]),
        acted_at=instant(said["acted_at"]),
        evidence=said["evidence"] | named,
    )


def webhook(said: dict[str, Any]) -> Endpoint:
    """An endpoint. What its secrets derive from is not told."""
    same = ("id", "url", "description", "state", "state_reason", "created_by")
    secrets = tuple(
        EndpointSecret(one["n"], 0, b"", parse_instant(one["created_at"]), instant(one["ends_at"]))
        for one in said["secrets"]
    )
    return Endpoint(
        **{name: said[name] for name in same},
        events=tuple(said["events"]),
        binding=Binding(said["account"], said["keyspace"], said["environment"]),
        challenge=None,
        created_at=parse_instant(said["created_at"]),
        updated_at=parse_instant(said["updated_at"]),
        secrets=secrets,
    )


def issued_webhook(said: dict[str, Any]) -> IssuedEndpoint:
    """An endpoint, and the signing secret that was made with it."""
    return IssuedEndpoint(webhook(said["webhook"]), Secret(said["secret"]))


def key(said: dict[str, Any]) -> Key:
    """A key."""
    bound = said.get("bound_to")
    children = said.get("children")
    return Key(
        **{name: said[name] for name in _SAME_OF_KEY},
        type="m" if said["keyspace"] == MANAGEMENT else "k",
        scopes=tuple(said["scopes"]),
        limits=limits(said["limits"]),
        allowed_ips=tuple(said["allowed_ips"]),
        binding=None if bound is None else Binding(**bound),
        expires_at=instant(said["expires_at"]),
        ends_unused_at=instant(said["ends_unused_at"]),
        ended_at=instant(said["ended_at"]),
        last_used_at=instant(said["last_used_at"]),
        last_used_ip=said["last_used_ip"],
        disabled_until=instant(said["disabled_until"]),
        created_at=parse_instant(said["created_at"]),
        updated_at=parse_instant(said["updated_at"]),
        secrets=_secrets(said),
        children=None if children is None else tuple(children),
        flags=tuple(said["flags"]),
    )


_SAME_OF_KEY = (
    "id", "keyspace", "account", "environment", "name", "description", "team", "application", "access", "plan",
    "metadata", "state", "state_reason", "parent", "created_by",
)  # fmt: skip


def _secrets(said: dict[str, Any]) -> tuple[StoredSecret, ...]:
    """The secrets that live, the newest first; where none does, one that has ended, for its hint."""
    if not said["secrets"]:
        return (StoredSecret(0, said["hint"], 0, 0, False, None),) if said["hint"] else ()
    rotation = said["rotation"]
    found: list[StoredSecret] = []
    for one in said["secrets"]:
        newest = rotation is not None and not found
        grace = rotation["grace_seconds"] if newest else None
        found.append(
            StoredSecret(
                one["n"],
                one["hint"],
                parse_instant(one["created_at"]),
                instant(one["ends_at"]),
                newest and rotation["start"] == "first_use",
                None if grace is None else grace * SECOND,
                instant(one["last_used_at"]),
            )
        )
    return tuple(found)


def changed(said: dict[str, Any]) -> Changed:
    """A key after a change."""
    return Changed(key(said), _propagation(said))


def several(said: dict[str, Any]) -> Several:
    """What a change of several keys came to."""
    return Several(tuple(said["done"]), tuple(said["passed_over"]), _propagation(said))


def imported(said: dict[str, Any]) -> Imported:
    """What an import came to."""
    return Imported(tuple(ImportedItem(**item) for item in said["items"]), _propagation(said))


def issued(said: dict[str, Any]) -> Received:
    """A key with its credential."""
    credential = said["credential"]
    secret = credential["secret"]
    return Received(
        key=key(said["key"]),
        credential=Credential(
            credential["id"], None if secret is None else Secret(secret), Secret(credential["token"])
        ),
        propagation=_propagation(said),
        presentations=tuple(Presentation(**one) for one in said["presentations"]),
    )


def _propagation(said: dict[str, Any]) -> Propagation:
    told = said["propagation"]
    return Propagation(
        **{**told, "complete_by": instant(told["complete_by"])} if "complete_by" in told else told
    )


def limits(said: list[dict[str, Any]]) -> tuple[Limit, ...]:
    """Limits."""
    return tuple(Limit(**one) for one in said)


def standing(said: dict[str, Any]) -> Standing:
    """A limit with how much of it is taken."""
    limit = Limit(said["name"], said["kind"], said["limit"], said["per"])
    return Standing(limit, said["of"], said["used"], instant(said["resets_at"]))


def account(said: dict[str, Any]) -> Account:
    """An account."""
    times = {name: parse_instant(said[name]) for name in ("created_at", "updated_at")}
    travelled = {"propagation": _propagation(said)} if "propagation" in said else {}
    return Account(**{**said, "limits": limits(said["limits"]), **times, **travelled})


class InvitedThere(msgspec.Struct, frozen=True):
    """A person whom a server has invited, and the link it made, which is told this once."""

    person: Person
    token: str
    ends_at: int
    url: str

    def __repr__(self) -> str:
        return f"InvitedThere(ends_at={self.ends_at})"


def person(said: dict[str, Any]) -> Person:
    """A person. Of an account its username is known, and not its id."""
    memberships = tuple(
        Membership(
            "",
            one["account"],
            one["role"],
            one["access"],
            tuple(one["scopes"]),
            parse_instant(one["since"]),
            instant(one["accepted_at"]),
            one.get("by_groups", False),
        )
        for one in said["memberships"]
    )
    times = {name: parse_instant(said[name]) for name in ("created_at", "updated_at")}
    known = {name: value for name, value in said.items() if name != "second_factor_since"}
    since = instant(said["second_factor_since"])
    identities = tuple(
        Identity(one["issuer"], parse_instant(one["since"]), parse_instant(one["seen_at"]))
        for one in said.get("identities", ())
    )
    read = {"memberships": memberships, "factor_since": since, "identities": identities}
    return Person(**{**known, **times, **read})


def invited(said: dict[str, Any]) -> InvitedThere:
    """A person and their invitation."""
    link = said["invitation"]
    return InvitedThere(person(said["person"]), link["token"], parse_instant(link["ends_at"]), link["url"])


def portal_session(said: dict[str, Any]) -> PortalSession:
    """A visit of the portal. Of its account the username is known, and not its id."""
    times = ("created_at", "link_ends_at", "began_at", "seen_at", "ends_at", "ended_at")
    read: dict[str, Any] = {name: instant(said[name]) for name in times}
    read |= {"scopes": tuple(said["scopes"]), "return_url": said["return_url"] or "", "account_id": ""}
    return PortalSession(**{name: value for name, value in said.items() if name != "url"} | read)


def portal_link(said: dict[str, Any]) -> PortalLink:
    """A visit that was just allowed, and its address."""
    return PortalLink(portal_session(said), said["url"])


def keyspace(said: dict[str, Any]) -> Keyspace:
    """A keyspace. Of its gates the names are known, and nothing else."""
    return Keyspace(
        **{
            name: said[name]
            for name in ("name", "title", "prefix", "format", "environments", "self_service", "labels")
        },
        schemes=tuple(said["schemes"]),
        header=said["header"] or "",
        scopes={name: Scope(**one) for name, one in said["scopes"].items()},
        letters={name: Letter(**one) for name, one in said["letters"].items()},
        presets={name: Preset(one["title"], tuple(one["scopes"])) for name, one in said["presets"].items()},
        access=AccessPolicy(tuple(said["access"]["classes"]), said["access"]["default"]),
        expiry=_expiry(said["expiry"]),
        roles=RolePolicy(tuple(said["roles"]["see"]), tuple(said["roles"]["manage"])),
        fields=Fields(tuple(said["fields"]["ask"]), tuple(said["fields"]["required"])),
        limits=limits(said["limits"]),
        plans={name: Plan(one["title"], limits(one["limits"])) for name, one in said["plans"].items()},
        gates={name: Gate("") for name in said["gates"]},
        error_shape=said["errors"],
        imported=None if said["imported"] is None else msgspec.convert(said["imported"], ImportPolicy),
        navigation=tuple(said["navigation"]),
        deep_link=said["deep_link"] or "",
        portal=PortalLook(**{name: value or "" for name, value in said["portal"].items()}),
    )


def _expiry(said: dict[str, Any]) -> ExpiryPolicy:
    return ExpiryPolicy(
        said["default_seconds"], said["longest_seconds"], said["unused_seconds"], said["unused_act"]
    )


def verdict(said: dict[str, Any], at: int, keyspace: str, asked: tuple[str, ...]) -> Verified:
    """A verdict."""
    headers = list(said["headers"].items())
    waiting = said["headers"].get("Retry-After")
    return Verified(
        said["code"],
        said["reason"],
        keyspace,
        at,
        request_id=said["request_id"],
        key=None if said["key"] is None else _record(said["key"], said["account"], keyspace),
        limits=tuple(LimitState(**one) for one in said["limits"]),
        retry_after=None if waiting is None else int(waiting),
        stale=said["stale"],
        asked=asked,
        answered=Answer(said["status"], headers, said["body"].encode()),
    )


def _record(said: dict[str, Any], owner: dict[str, Any], keyspace: str) -> KeyRecord:
    return KeyRecord(
        terms=Terms(
            state="active",  # as far as is told
            keyspace=keyspace,
            environment=said["environment"],
            account_state=owner["state"],
            access=said["access"],
            scopes=frozenset(said["scopes"]),
        ),
        expires_at=instant(said["expires_at"]),
        limits=(),
        secrets=(),
        id=said["id"],
        account_id=owner["id"],
        account=owner["username"],
        name=said["name"],
        team=said["team"],
        application=said["application"],
        metadata=msgspec.json.encode(said["metadata"]).decode(),
    )


def entry(said: dict[str, Any]) -> dict[str, Any]:
    """One entry of the audit trail."""
    return {**said, "at": parse_instant(said["at"])}


def instant(said: str | None) -> int | None:
    """An instant, or none."""
    return None if said is None else parse_instant(said)


__all__ = [
    "Received",
    "Verified",
    "account",
    "changed",
    "entry",
    "instant",
    "issued",
    "key",
    "keyspace",
    "verdict",
]
