"""The verbs over a customer's own keys in our own shape, under ``…/keys``: the bodies and answers of ``/v1/keys``.

What only the host decides cannot be set here: plan and metadata.
"""

from typing import Any, Final

import msgspec

from keywright import shown
from keywright.desk.keys import UNSET
from keywright.desk.listing import LONGEST_PAGE
from keywright.desk.once import Replay
from keywright.model import Access, Issued
from keywright.presentations import example_url
from keywright.server.self_service.calls import REPLAYED, Call, Endpoint, Reply, public_id
from keywright.times import parse_instant


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a key is made from, of the caller's own account, keyspace and environment."""

    name: str
    description: str | None = None
    access: Access | None = None
    scopes: list[str] | None = None
    team: str | None = None
    application: str | None = None
    limits: list[str | dict[str, Any]] | None = None
    expires_at: str | msgspec.UnsetType | None = msgspec.UNSET
    allowed_ips: list[str] | None = None


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a secret is replaced."""

    grace_seconds: int = 0
    start: str = "now"
    force: bool = False


class Invalidation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a key is stopped for ever."""

    reason: str | None = None


def create(call: Call, asked: NewKey) -> Reply:
    """Make a key that holds at most what the caller's holds."""
    end = asked.expires_at
    given = msgspec.structs.asdict(asked) | {
        "expires_at": UNSET
        if isinstance(end, msgspec.UnsetType)
        else None
        if end is None
        else parse_instant(end, path="expires_at")
    }
    try:
        issued = call.opened.keys.create(
            **given,
            actor=call.actor,
            reach=call.reach,
            by=call.record,
            once=call.once("POST /keys", msgspec.to_builtins(asked)),
        )
    except Replay as earlier:
        made = call.opened.keys.made(earlier.made, reach=call.reach)
        return Reply(shown.reissued(made, call.now), 201, REPLAYED)
    return Reply(_issued(call, issued), 201)


def list_(call: Call, _asked: None) -> Reply:
    """Some keys of the caller's account and environment, newest first."""
    page = call.opened.keys.list(
        state=call.parameter("state"),
        cursor=call.parameter("cursor"),
        limit=call.limit(default=50, most=LONGEST_PAGE),
        reach=call.reach,
    )
    return Reply({"items": [shown.key(key, call.now) for key in page.items], "next_cursor": page.next_cursor})


def get(call: Call, _asked: None) -> Reply:
    """Read one."""
    return Reply(shown.key(call.opened.keys.get(_id(call), reach=call.reach), call.now))


def rotate(call: Call, asked: Rotation | None) -> Reply:
    """Give a key that holds at most what the caller's holds, or the caller's own, a second secret."""
    how = asked or Rotation()
    issued = call.opened.keys.rotate(
        _id(call),
        grace_seconds=how.grace_seconds,
        start=how.start,
        force=how.force,
        actor=call.actor,
        reach=call.reach,
        by=call.record,
    )
    return Reply(_issued(call, issued))


def invalidate(call: Call, asked: Invalidation | None) -> Reply:
    """Stop a key for ever; it stays in the list."""
    reason = None if asked is None else asked.reason
    changed = call.opened.keys.invalidate(_id(call), reason=reason, actor=call.actor, reach=call.reach)
    return Reply(shown.changed(changed, call.now))


def delete(call: Call, _asked: None) -> Reply:
    """Remove a key for good."""
    changed = call.opened.keys.delete(_id(call), actor=call.actor, reach=call.reach)
    return Reply(shown.changed(changed, call.now))


def find(verb: str) -> tuple[dict[str, Endpoint], str]:
    """What an address takes, by method, and the id in it."""
    match verb.split("/"):
        case ["keys"]:
            return _KEYS, ""
        case ["keys", key_id] if key_id:
            return _KEY, key_id
        case ["keys", key_id, act] if key_id:
            return _VERBS.get(act, {}), key_id
        case _:
            return {}, ""


def _id(call: Call) -> str:
    return public_id(call.key_id, path="id")


def _issued(call: Call, issued: Issued) -> dict[str, Any]:
    url = example_url(call.keyspace, issued.key, call.base_url)
    return shown.issued(issued, call.keyspace, url, call.now)


_KEYS: Final = {
    "GET": Endpoint("/keys", "keys:read", list_),
    "POST": Endpoint("/keys", "keys:write", create, NewKey),
}
_KEY: Final = {
    "GET": Endpoint("/keys/{id}", "keys:read", get),
    "DELETE": Endpoint("/keys/{id}", "keys:write", delete),
}
_VERBS: Final = {
    "rotate": {"POST": Endpoint("/keys/{id}/rotate", "keys:write", rotate, Rotation, optional=True)},
    "invalidate": {
        "POST": Endpoint("/keys/{id}/invalidate", "keys:write", invalidate, Invalidation, optional=True)
    },
}
