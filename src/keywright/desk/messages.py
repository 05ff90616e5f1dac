"""Messages for webhooks: what is written into the outbox, in the transaction of what it tells of."""

from typing import Any

import msgspec
from sqlalchemy import Connection

from keywright import credential, events
from keywright.events import Place
from keywright.model import Account, Actor, Endpoint, Key
from keywright.store import accounts, keys, webhooks


def new_id() -> str:
    """Draw the id of a message: what a receiver tells a repetition by."""
    return f"msg_{credential.random_base62(24)}"


def post(tx: Connection, type_: str, place: Place, data: dict[str, Any], at: int) -> None:
    """Write a message for every endpoint that wants it."""
    wanted = webhooks.subscribed(tx, type_, place)
    if wanted:
        webhooks.post(tx, wanted, new_id(), type_, events.message(type_, at, data), at)


def post_key(tx: Connection, type_: str, key: Key, at: int, **more: Any) -> None:
    """Write a message about a key."""
    place = Place(key.account, key.keyspace, key.environment)
    post(tx, type_, place, {"key": events.key(key)} | more, at)


def post_change(
    tx: Connection,
    actor: Actor,
    action: str,
    target: tuple[str, str],
    account: str | None,
    detail: dict[str, Any],
    now: int,
) -> None:
    """Write the message of an audited change, if it has one and anybody wants it."""
    type_ = events.OF_ACTION.get(action)
    if type_ is None or not webhooks.anybody(tx):
        return
    kind, ref = target
    by = {"by": {"kind": actor.kind, "id": actor.id}}
    if kind == "key":
        key = keys.get(tx, ref, now)
        assert key is not None
        post_key(tx, type_, key, now, **_more(type_, key, detail), **by)
    elif kind == "account":
        assert account is not None
        found = accounts.get(tx, account)
        assert found is not None
        post(tx, type_, Place(account), {"account": _account(found)} | by, now)
    else:
        endpoint = webhooks.get(tx, ref)
        assert endpoint is not None
        place = Place(**msgspec.structs.asdict(endpoint.binding))
        post(tx, type_, place, {"webhook": _endpoint(endpoint)} | by, now)


def _more(type_: str, key: Key, detail: dict[str, Any]) -> dict[str, Any]:
    if type_ == "key.edited":
        return {"changed": sorted(detail["changed"])}
    if type_ == "key.rotated":
        return {"rotation": events.rotation(key, forced=bool(detail["force"]))}
    if type_ == "key.leaked":
        return {"leak": {name: detail[name] for name in ("policy", "secret", "secrets", "url")}}
    return {"unused": {"since": detail["unused_since"]}} if "unused_since" in detail else {}


def _account(account: Account) -> dict[str, Any]:
    return {name: getattr(account, name) for name in ("id", "username", "name", "state")}


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {name: getattr(endpoint, name) for name in ("id", "url", "state", "state_reason")}
