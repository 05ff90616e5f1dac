"""Partna's five endpoints over a customer's own keys, in the words of its reference (``docs/partna.md``).

What Partna calls ``apikey`` is the secret where one is made, and the public id everywhere else.
"""

import re
from calendar import monthrange
from typing import Annotated, Any, Final

import msgspec

from keywright.desk.keys import UNSET
from keywright.desk.listing import LONGEST_PAGE, is_secret
from keywright.desk.once import Replay
from keywright.errors import Invalid
from keywright.model import Key
from keywright.policy import holds
from keywright.profiles.letters import grant_of, letter_of
from keywright.server.self_service.calls import REPLAYED, Call, Endpoint, Reply, public_id
from keywright.times import DAY, SECOND, instant_of, rfc3339, to_datetime

#: Partna's list is not cut into pages. Ours is where it would be longer than this, or than what was asked for.
LONGEST_LIST: Final = 1000
_LONGEST_DAYS: Final = 36_500
_LONGEST_MONTHS: Final = 1_200
_ID_PARAMETER: Final = re.compile(rb"\Aapikey=([0-9A-Za-z_]{1,60})\Z")
#: Our names for the fields that a creation is refused for, as this surface calls them.
_FIELDS: Final = {"name": "keyname", "access": "scope", "scopes": "scope", "expires_at": "expirationInDays"}


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key is made from. ``apikey`` is the id of a key that the new one replaces."""

    keyname: str
    scope: str
    apikey: str | None = None
    expirationInDays: Annotated[int, msgspec.Meta(ge=0, le=_LONGEST_DAYS)] | None = None  # noqa: N815  # Partna's
    expirationInMonths: Annotated[int, msgspec.Meta(ge=0, le=_LONGEST_MONTHS)] | None = None  # noqa: N815  # Partna's
    otp: str | None = None


class OldKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which key is to end."""

    apikey: str


def create(call: Call, asked: NewKey) -> Reply:
    """``POST /user/api-key``: a new key, the old one deleted in the same breath where ``apikey`` names it."""
    letter = call.keyspace.letters.get(asked.scope)
    if letter is None:
        raise Invalid(f"is one of {', '.join(call.keyspace.letters)}", path="scope")
    access, scopes = grant_of(call.keyspace, letter)
    replaces = None if asked.apikey is None else public_id(asked.apikey, path="apikey")
    canonical = msgspec.structs.asdict(asked) | {"otp": None}  # a retry comes with another one
    try:
        issued = call.opened.keys.create(
            name=asked.keyname,
            access=access,
            scopes=scopes,
            expires_at=_end(asked, call.now),
            actor=call.actor,
            reach=call.reach,
            by=call.record,
            replaces=replaces,
            once=call.once("POST /user/api-key", canonical),
        )
    except Replay as earlier:
        made = call.opened.keys.made(earlier.made, reach=call.reach)
        return _success({"apikey": None, "id": made.id}, replayed=True)
    except Invalid as wrong:
        raise Invalid(wrong.reason, path=_FIELDS.get(wrong.path.partition("[")[0], wrong.path)) from None
    return _success({"apikey": issued.credential.token.reveal()})


def list_(call: Call, _asked: None) -> Reply:
    """``GET /user/api-keys``: every key of the account in this environment, the ended ones too, and no secret."""
    found: list[Key] = []
    cursor, most = call.parameter("cursor"), call.limit(default=LONGEST_LIST, most=LONGEST_LIST)
    while len(found) < most:
        some = min(LONGEST_PAGE, most - len(found))
        page = call.opened.keys.list(limit=some, cursor=cursor, reach=call.reach)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    data: dict[str, Any] = {"Apikeys": [_listed(key) for key in found]}
    return _success(data if cursor is None else data | {"NextCursor": cursor})


def scopes(call: Call, _asked: None) -> Reply:
    """``GET /user/api-key/scopes``: the letters that a key can be made with, and what the caller's own key holds."""
    record, keyspace = call.record, call.keyspace
    held = [
        scope for scope in (*keyspace.scopes, "keys:read", "keys:write") if holds(record, keyspace, scope)
    ]
    own = {
        "scope": letter_of(keyspace, record.access, record.scopes),
        "access": record.access,
        "scopes": held,
    }
    letters = sorted((letter.title, name) for name, letter in keyspace.letters.items())
    return Reply({"data": dict(letters), "own": own, "message": "success"})


def invalidate(call: Call, asked: OldKey) -> Reply:
    """``POST /user/api-key/invalidate``: a key stops for ever, and stays in the list."""
    key_id = public_id(asked.apikey, path="apikey")
    return _ended(call.opened.keys.invalidate(key_id, actor=call.actor, reach=call.reach).key)


def delete(call: Call, asked: OldKey | None) -> Reply:
    """``DELETE /user/api-key``: a key goes. Its id is in the body or, for clients that drop that, in the address."""
    in_body = None if asked is None else asked.apikey
    named = {given for given in (call.parameter("apikey"), in_body) if given is not None}
    if len(named) > 1:
        raise Invalid("names one key in the body and another in the address", path="apikey")
    key_id = public_id(next(iter(named), None), path="apikey")
    return _ended(call.opened.keys.delete(key_id, actor=call.actor, reach=call.reach).key)


def without_id(query: bytes) -> bytes:
    """A query without the id of the key to delete, which is no credential although a carrier may have its name.

    A secret in that place stays, and is refused like any in a URL.
    """
    kept = []
    for part in query.split(b"&"):
        found = _ID_PARAMETER.match(part)
        if found is None or is_secret(found[1].decode("ascii")):
            kept.append(part)
    return b"&".join(kept)


def find(verb: str) -> tuple[dict[str, Endpoint], str]:
    """What an address takes, by method."""
    return _ROUTES.get(verb.removeprefix("v4/"), {}), ""


def _success(data: dict[str, Any], *, replayed: bool = False) -> Reply:
    return Reply({"data": data, "message": "success"}, headers=REPLAYED if replayed else ())


def _ended(key: Key) -> Reply:
    return _success({"apikey": key.id, "children": list(key.children or ())})


def _listed(key: Key) -> dict[str, Any]:
    ended = key.expires_at if key.state == "expired" else key.ended_at
    return {
        "Apikey": key.id,
        "DeletedAt": None if ended is None else rfc3339(ended),
        "Expirable": key.expires_at is not None,
        "Expiration": None if key.expires_at is None else key.expires_at // SECOND,
        "Keyname": key.name,
        "Username": key.account,
    }


def _end(asked: NewKey, now: int) -> Any:
    """The instant at which a key ends that lives some calendar months and some days; unset for neither."""
    months, days = asked.expirationInMonths or 0, asked.expirationInDays or 0
    if not months and not days:
        return UNSET
    moment = to_datetime(now)
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, monthrange(year, month + 1)[1])
    return instant_of(moment.replace(year=year, month=month + 1, day=day)) + days * DAY * SECOND


_CREATE: Final = Endpoint("/user/api-key", "keys:write", create, NewKey)
_DELETE: Final = Endpoint("/user/api-key", "keys:write", delete, OldKey, optional=True, id_in_query=True)
_LIST: Final = Endpoint("/user/api-keys", "keys:read", list_)
_SCOPES: Final = Endpoint("/user/api-key/scopes", "keys:read", scopes)
_INVALIDATE: Final = Endpoint("/user/api-key/invalidate", "keys:write", invalidate, OldKey)

#: Every address, with and without ``/v4`` before it: the published table's, then those of the reference pages.
_ROUTES: Final[dict[str, dict[str, Endpoint]]] = {
    "user/api-key": {"POST": _CREATE, "DELETE": _DELETE},
    "user/api-keys": {"GET": _LIST},
    "user/api-key/scopes": {"GET": _SCOPES},
    "user/api-key/invalidate": {"POST": _INVALIDATE},
    "user/apikey": {"POST": _CREATE, "DELETE": _DELETE},
    "user/apikeys": {"GET": _LIST},
    "user/apikey-scope": {"GET": _SCOPES},
    "user/apikey/invalidate": {"POST": _INVALIDATE},
}
