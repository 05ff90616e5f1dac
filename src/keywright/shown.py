"""Records as JSON: one shape for the HTTP API and for the command's ``--json``. Pure.

Times are RFC 3339 in UTC. A secret is here only in ``issued`` and ``issued_webhook``, the bodies of the answers that show one.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from keywright import events, limits, reasons
from keywright.limits import Standing
from keywright.model import (
    Account,
    Alert,
    Changed,
    Endpoint,
    Imported,
    Issued,
    IssuedEndpoint,
    Key,
    KeyRecord,
    Keyspace,
    Limit,
    Person,
    PortalLink,
    PortalSession,
    Propagation,
    Session,
    Several,
)
from keywright.presentations import Presentation, presentations
from keywright.times import rfc3339


def key(record: Key, now: int) -> dict[str, Any]:
    """A key's record."""
    live = [s for s in record.secrets if s.ends_at is None or s.ends_at > now]
    shown: dict[str, Any] = {
        "id": record.id,
        "keyspace": record.keyspace,
        "account": record.account,
        "environment": record.environment,
        "name": record.name,
        "description": record.description,
        "team": record.team,
        "application": record.application,
        "access": record.access,
        "scopes": list(record.scopes),
        "limits": [limit(item) for item in record.limits],
        "plan": record.plan,
        "expires_at": _time(record.expires_at),
        "ends_unused_at": _time(record.ends_unused_at),
        "allowed_ips": list(record.allowed_ips),
        "metadata": record.metadata,
        "state": record.state,
        "state_reason": record.state_reason,
        "disabled_until": _time(record.disabled_until),
        "hint": record.secrets[0].hint if record.secrets else {},
        "secrets": [_secret(secret) for secret in live],
        "rotation": _rotation(record, now),
        "parent": record.parent,
        "created_at": rfc3339(record.created_at),
        "created_by": record.created_by,
        "updated_at": rfc3339(record.updated_at),
        "ended_at": _time(record.ended_at),
        "last_used_at": _time(record.last_used_at),
        "last_used_ip": record.last_used_ip,
        "flags": list(record.flags),
    }
    if record.children is not None:
        shown["children"] = list(record.children)
    if record.binding is not None:
        bound = record.binding
        shown["bound_to"] = {
            "account": bound.account,
            "keyspace": bound.keyspace,
            "environment": bound.environment,
        }
    return shown


#: What stands in a line of an export of keys.
EXPORTED: Final = (
    "id", "name", "keyspace", "account", "environment", "state", "access", "scopes", "limits", "plan", "description", "team",
    "application", "allowed_ips", "metadata", "expires_at", "ends_unused_at", "state_reason", "disabled_until", "parent", "flags", "created_at",
    "created_by", "updated_at", "ended_at", "last_used_at", "last_used_ip",
)  # fmt: skip


def exported(record: Key, now: int) -> dict[str, Any]:
    """A key's record as a line of an export: limits as they are typed, and nothing of its secrets."""
    whole = key(record, now) | {"limits": [limits.spell(item) for item in record.limits]}
    return {name: whole[name] for name in EXPORTED}


def changed(change: Changed, now: int) -> dict[str, Any]:
    """A key's record after a change, with how far the change has travelled."""
    return key(change.key, now) | {"propagation": propagation(change.propagation)}


def several(change: Several) -> dict[str, Any]:
    """What a change of several keys came to, and how far it has travelled."""
    return {
        "done": list(change.done),
        "passed_over": list(change.passed_over),
        "propagation": propagation(change.propagation),
    }


def imported(done: Imported) -> dict[str, Any]:
    """What an import came to: each item in its order, how many of each kind, and how far the change has travelled."""
    statuses = [item.status for item in done.items]
    return {
        "items": [msgspec.structs.asdict(item) for item in done.items],
        **{status: statuses.count(status) for status in ("made", "exists", "refused")},
        "propagation": propagation(done.propagation),
    }


def issued(issue: Issued, keyspace: Keyspace, url: str, now: int) -> dict[str, Any]:
    """What is answered once, when a key is made or rotated: the only place of a secret."""
    return once(issue, presentations(keyspace, issue.credential, issue.key.account, url), now)


def once(issue: Issued, ways: Sequence[Presentation], now: int) -> dict[str, Any]:
    """``issued``, with the ways to send the credential that somebody else has made of it."""
    credential = issue.credential
    return {
        "key": key(issue.key, now),
        "credential": {
            "id": credential.id,
            "secret": None if credential.secret is None else credential.secret.reveal(),
            "token": credential.token.reveal(),
        },
        "presentations": [way._asdict() for way in ways],
        "propagation": propagation(issue.propagation),
    }


def reissued(record: Key, now: int) -> dict[str, Any]:
    """The answer to a creation that was carried out before: the key as it is, and nothing of its secret."""
    return {
        "key": key(record, now),
        "credential": None,
        "presentations": [],
        "propagation": propagation(Propagation()),
    }


def propagation(travelled: Propagation) -> dict[str, Any]:
    """How far a change has travelled."""
    if travelled.workers is None:
        return {"exact": travelled.exact}
    return {
        "exact": travelled.exact,
        "workers": travelled.workers,
        "confirmed": travelled.confirmed,
        "complete_by": _time(travelled.complete_by),
    }


def still_stale(travelled: Propagation) -> str | None:
    """Who may still answer from the state before a change, in a sentence; nothing where nobody may."""
    if travelled.exact or travelled.complete_by is None:
        return None
    until = rfc3339(travelled.complete_by)
    if not travelled.workers:
        return f"the store went away before the workers could be asked: some may serve the old state until {until}"
    silent = travelled.workers - (travelled.confirmed or 0)
    return (
        f"{silent} of {travelled.workers} workers {'has' if silent == 1 else 'have'} not confirmed it, and may serve what "
        f"they remember, marked stale, until {until}"
    )


def limit(item: Limit) -> dict[str, Any]:
    """One limit."""
    return {"name": item.name, "kind": item.kind, "limit": item.limit, "per": item.per}


def standing(one: Standing) -> dict[str, Any]:
    """A limit with how much of it is taken, and whose it is."""
    return limit(one.limit) | {
        "of": one.whose,
        "used": one.used,
        "remaining": one.remaining,
        "resets_at": _time(one.resets_at),
    }


def account(record: Account) -> dict[str, Any]:
    """An account; where it has just been changed, with how far that has travelled."""
    shown: dict[str, Any] = {
        "id": record.id,
        "username": record.username,
        "name": record.name,
        "state": record.state,
        "limits": [limit(item) for item in record.limits],
        "created_at": rfc3339(record.created_at),
        "updated_at": rfc3339(record.updated_at),
    }
    if record.propagation is not None:
        shown["propagation"] = propagation(record.propagation)
    return shown


def person(record: Person) -> dict[str, Any]:
    """A person, and their places in accounts as far as whoever asks may know them."""
    return {
        "id": record.id,
        "email": record.email,
        "name": record.name,
        "state": record.state,
        "operator": record.operator,
        "operator_by_groups": record.operator_by_groups,
        "has_password": record.has_password,
        "second_factor_since": _time(record.factor_since),
        "identities": [
            {"issuer": one.issuer, "since": rfc3339(one.since), "seen_at": rfc3339(one.seen_at)}
            for one in record.identities
        ],
        "memberships": [
            {
                "account": held.account,
                "role": held.role,
                "access": held.access,
                "scopes": list(held.scopes),
                "since": rfc3339(held.since),
                "accepted_at": _time(held.accepted_at),
                "by_groups": held.by_groups,
            }
            for held in record.memberships
        ],
        "created_at": rfc3339(record.created_at),
        "updated_at": rfc3339(record.updated_at),
    }


def portal_session(record: PortalSession) -> dict[str, Any]:
    """A visit of the portal, without what opens it."""
    plain = (
        "id", "account", "keyspace", "environment", "subject", "name", "role", "access", "preview", "state", "created_by",
    )  # fmt: skip
    times = ("created_at", "link_ends_at", "began_at", "seen_at", "ends_at", "ended_at")
    return {
        **{name: getattr(record, name) for name in plain},
        "scopes": list(record.scopes),
        "return_url": record.return_url or None,
        **{name: _time(getattr(record, name)) for name in times},
    }


def own_visit(record: PortalSession) -> dict[str, Any]:
    """A visit, as its visitor may know it: not whose management key let them in."""
    return {name: value for name, value in portal_session(record).items() if name != "created_by"}


def portal_link(link: PortalLink) -> dict[str, Any]:
    """A visit that was just allowed, with the address that begins it, which no other answer has."""
    return {"url": link.url, **portal_session(link.session)}


def session(record: Session, *, current: bool) -> dict[str, Any]:
    """A session, without what opens it."""
    return {
        "id": record.id,
        "current": current,
        "began_at": rfc3339(record.began_at),
        "seen_at": rfc3339(record.seen_at),
        "proven_at": _time(record.proven_at or None),
        "ends_at": rfc3339(record.ends_at),
        "source": record.source,
        "issuer": record.issuer,
    }


def keyspace(record: Keyspace, created_at: int, updated_at: int) -> dict[str, Any]:
    """A keyspace's definition, as checked."""
    return {
        "name": record.name,
        "title": record.title,
        "prefix": record.prefix,
        "format": record.format,
        "schemes": list(record.schemes),
        "header": record.header or None,
        "environments": record.environments,
        "scopes": {
            name: {"title": scope.title, "reads": scope.reads, "withdrawal": scope.withdrawal}
            for name, scope in record.scopes.items()
        },
        "letters": {
            name: {"title": letter.title, "gives": letter.gives} for name, letter in record.letters.items()
        },
        "presets": {
            name: {"title": preset.title, "scopes": list(preset.scopes)}
            for name, preset in record.presets.items()
        },
        "access": {"classes": list(record.access.classes), "default": record.access.default},
        "roles": {"see": list(record.roles.see), "manage": list(record.roles.manage)},
        "expiry": {
            "default_seconds": record.expiry.default,
            "longest_seconds": record.expiry.longest,
            "unused_seconds": record.expiry.unused,
            "unused_act": record.expiry.unused_act,
        },
        "fields": {"ask": list(record.fields.ask), "required": list(record.fields.required)},
        "limits": [limit(item) for item in record.limits],
        "plans": {
            name: {"title": plan.title, "limits": [limit(item) for item in plan.limits]}
            for name, plan in record.plans.items()
        },
        "gates": sorted(record.gates),
        "self_service": record.self_service,
        "errors": record.error_shape,
        "leaks": record.leaks,
        "imported": None if record.imported is None else msgspec.to_builtins(record.imported),
        "labels": record.labels,
        "navigation": list(record.navigation),
        "deep_link": record.deep_link or None,
        "portal": {name: value or None for name, value in msgspec.structs.asdict(record.portal).items()},
        "created_at": rfc3339(created_at),
        "updated_at": rfc3339(updated_at),
    }


class Holder(msgspec.Struct, frozen=True, gc=False):
    """A key as its own caller, or the host that verified it, may see it."""

    id: str
    name: str
    environment: str
    access: str
    scopes: list[str]
    team: str | None
    application: str | None
    expires_at: str | None
    metadata: msgspec.Raw


def holder(record: KeyRecord) -> Holder:
    """A key as its own caller, or the host that verified it, may see it."""
    return Holder(
        record.id,
        record.name,
        record.environment,
        record.access,
        sorted(record.scopes),
        record.team,
        record.application,
        _time(record.expires_at),
        msgspec.Raw(record.metadata.encode()),
    )


def usage(report: Any) -> dict[str, Any]:
    """A report of usage: its lines add up to its total."""
    return {
        "from": _time(report.since),
        "to": _time(report.until),
        "by": report.by,
        "group": report.group,
        "total": report.total,
        "items": [
            {
                "at": _time(row.at),
                "value": row.value,
                "key": None if row.key is None else _named(row.key),
                "count": row.times,
                "codes": dict(sorted(row.codes.items())),
            }
            for row in report.rows
        ],
    }


def refusal(refused: Any) -> dict[str, Any]:
    """One refused request, with the reason that its sender was not told."""
    one = refused.refusal
    key = None if refused.key is None else _named(refused.key)
    return {
        "request_id": one.request_id,
        "at": rfc3339(one.at),
        "code": one.code,
        "reason": one.reason,
        "says": reasons.say(one.code, one.reason),
        "keyspace": one.keyspace,
        "environment": one.environment or None,
        "key": {"id": one.key_id, "name": None} if key is None and one.key_id else key,
        "scheme": one.scheme,
        "ip": one.ip,
        "method": one.method,
        "resource": one.resource,
        "dropped_before": one.dropped,
    }


def alert(record: Alert) -> dict[str, Any]:
    """A sign of misuse, with its evidence: never a secret."""
    return events.alert(record)


def webhook(record: Endpoint, now: int) -> dict[str, Any]:
    """An endpoint of webhooks: never what its messages are signed with."""
    return {
        "id": record.id,
        "url": record.url,
        "description": record.description,
        "events": list(record.events),
        "account": record.binding.account,
        "keyspace": record.binding.keyspace,
        "environment": record.binding.environment,
        "state": record.state,
        "state_reason": record.state_reason,
        "secrets": [
            {"n": one.n, "created_at": rfc3339(one.created_at), "ends_at": _time(one.ends_at)}
            for one in record.secrets
            if one.ends_at is None or one.ends_at > now
        ],
        "created_at": rfc3339(record.created_at),
        "created_by": record.created_by,
        "updated_at": rfc3339(record.updated_at),
    }


def issued_webhook(issue: IssuedEndpoint, now: int) -> dict[str, Any]:
    """What is answered once, when an endpoint is made or its signing secret is rotated."""
    return {"webhook": webhook(issue.endpoint, now), "secret": issue.secret.reveal()}


def delivery(record: Any) -> dict[str, Any]:
    """One message to an endpoint, and what has become of it.

    A challenge is not shown: whoever could read it here would not have to be at the receiver to say it.
    """
    return {
        "message_id": record.message_id,
        "type": record.type,
        "at": rfc3339(record.at),
        "state": record.state,
        "attempts": record.attempts,
        "last_attempt_at": _time(record.last_at),
        "next_attempt_at": _time(record.next_at),
        "status": record.status,
        "error": record.error or None,
        "body": None if record.type == "webhook.verify" else record.body,
    }


def entry(record: dict[str, Any]) -> dict[str, Any]:
    """One entry of the audit trail."""
    return {**record, "at": rfc3339(record["at"])}


def scopes(record: Keyspace) -> list[dict[str, Any]]:
    """A keyspace's scopes."""
    return [
        {"keyspace": record.name, "name": name, "title": scope.title, "reads": scope.reads}
        for name, scope in record.scopes.items()
    ]


def plans(record: Keyspace) -> list[dict[str, Any]]:
    """A keyspace's plans."""
    return [
        {
            "keyspace": record.name,
            "name": name,
            "title": plan.title,
            "limits": [limit(x) for x in plan.limits],
        }
        for name, plan in record.plans.items()
    ]


def gates(record: Keyspace, environment: str | None = None) -> list[dict[str, Any]]:
    """A keyspace's named gates, of all environments or of one."""
    return [
        {
            "keyspace": record.name,
            "name": name,
            "environment": gate.environment,
            "rules": [
                {
                    "path": rule.path,
                    "methods": list(rule.methods),
                    "scopes": list(rule.scopes),
                    "cost": rule.cost,
                    "resource": rule.resource or rule.path,
                    "reads": rule.reads,
                    "authenticate_only": rule.authenticate_only,
                }
                for rule in gate.rules
            ],
        }
        for name, gate in record.gates.items()
        if environment in (None, gate.environment)
    ]


def _named(key: Any) -> dict[str, Any]:
    names = ("id", "name", "state", "keyspace", "environment", "account", "team", "application")
    return {name: getattr(key, name) for name in names}


def _secret(secret: Any) -> dict[str, Any]:
    return {
        "n": secret.n,
        "hint": secret.hint,
        "created_at": rfc3339(secret.created_at),
        "ends_at": _time(secret.ends_at),
        "last_used_at": _time(secret.last_used_at),
    }


def _rotation(record: Key, now: int) -> dict[str, Any] | None:
    live = [s for s in record.secrets if s.ends_at is None or s.ends_at > now]
    if len(live) < 2 or record.state in ("invalidated", "deleted"):
        return None
    new, old = live[0], live[1]
    return {
        "started_at": rfc3339(new.created_at),
        "start": "first_use" if new.starts_rotation else "now",
        "grace_seconds": None if new.grace is None else new.grace // 1_000_000,
        "old_ends_at": _time(old.ends_at),
    }


def _time(instant: int | None) -> str | None:
    return None if instant is None else rfc3339(instant)
