"""The audit trail: append-only, in the transaction of what it tells of, and chained by a keyed hash.

    mac(n) = HMAC-SHA-256(audit key, mac(n-1) ‖ canonical JSON of entry n)

The chain is keyed because an unkeyed one can be computed anew by whoever can write the table. It cannot see that its end
was cut off: for that, keep a head (number and MAC) outside.
"""

import hmac
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, insert, select, type_coerce, update
from sqlalchemy.types import NullType

from keywright.keyring import Keyring
from keywright.model import Actor
from keywright.store.schema import audit, audit_head, keys

_FIELDS: Final = (
    "seq", "at", "actor_kind", "actor_id", "source", "action", "target_kind", "target_id", "account", "detail",
    "request_id", "key_n",
)  # fmt: skip


class Head(msgspec.Struct, frozen=True):
    """The newest entry's number and MAC, in hex: what to keep outside."""

    seq: int
    mac: str


class Broken(msgspec.Struct, frozen=True):
    """The first entry at which the chain does not hold, and how."""

    seq: int
    how: str


def append(
    tx: Connection,
    keyring: Keyring,
    actor: Actor,
    action: str,
    target: tuple[str, str],
    now: int,
    *,
    account: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Write one entry. Call it last in a transaction: it locks the head."""
    head = tx.execute(select(audit_head).where(audit_head.c.id == 1).with_for_update()).one()
    entry: dict[str, Any] = {
        "seq": head.seq + 1,
        "at": now,
        "actor_kind": actor.kind,
        "actor_id": actor.id,
        "source": actor.source,
        "action": action,
        "target_kind": target[0],
        "target_id": target[1],
        "account": account,
        "detail": msgspec.json.encode(detail or {}, order="sorted").decode(),
        "request_id": actor.request_id,
        "key_n": keyring.current,
    }
    entry["mac"] = _chain(keyring, head.mac, entry)
    tx.execute(insert(audit).values(entry))
    tx.execute(update(audit_head).where(audit_head.c.id == 1).values(seq=entry["seq"], mac=entry["mac"]))


#: The rows as they are, whatever somebody has put into them: nothing is converted on the way.
_RAW: Final[list[Any]] = [type_coerce(column, NullType()).label(column.name) for column in audit.c]


def head(connection: Connection) -> Head:
    """The newest entry's number and MAC."""
    row = connection.execute(select(audit_head).where(audit_head.c.id == 1)).one()
    return Head(row.seq, row.mac.hex())


def verify(connection: Connection, keyring: Keyring, kept: Head | None = None) -> Broken | None:
    """Recompute the chain; ``None`` where it holds. ``kept`` is a head from outside, which must lie on it."""
    mac, expected = bytes(32), 1
    for row in connection.execute(select(*_RAW).order_by(audit.c.seq)).yield_per(1000):
        if row.seq != expected:
            return Broken(expected, "is missing")
        if row.key_n not in keyring.audit:
            return Broken(row.seq, f"was made under secret {row.key_n}, which is not configured")
        mac = _chain(keyring, mac, _entry(row))
        if not (isinstance(row.mac, bytes) and hmac.compare_digest(mac, row.mac)):
            return Broken(row.seq, "was changed, or does not follow the one before it")
        if kept is not None and kept.seq == row.seq and kept.mac != mac.hex():
            return Broken(row.seq, "is not the entry whose head was kept")
        expected += 1
    newest = connection.execute(select(audit_head.c.seq, audit_head.c.mac)).all()
    if [tuple(row) for row in newest] != [(expected - 1, mac)]:
        return Broken(expected, "is missing: the head does not name the last entry")
    if kept is not None and kept.seq >= expected:
        return Broken(expected, f"is missing: a head was kept of entry {kept.seq}")
    return None


def told_since(
    connection: Connection,
    actor: Actor,
    action: str,
    target: tuple[str, str],
    since: int,
    account: str | None = None,
) -> list[dict[str, Any]]:
    """What the trail tells of somebody's acts on a thing since an instant: the detail of each, oldest first.

    With ``account`` only what was in it: hosts may call different people the same.
    """
    query = select(audit.c.detail).where(
        audit.c.target_id == target[1],
        audit.c.target_kind == target[0],
        audit.c.actor_kind == actor.kind,
        audit.c.actor_id == actor.id,
        audit.c.action == action,
        audit.c.at >= since,
    )
    if account is not None:
        query = query.where(audit.c.account == account)
    return [msgspec.json.decode(found) for found in connection.execute(query.order_by(audit.c.seq)).scalars()]


class Narrow(msgspec.Struct, frozen=True, kw_only=True):
    """What the trail is narrowed to. Of a keyspace and an environment are the entries of their keys."""

    target: str | None = None
    actor_kind: str | None = None
    actor_id: str | None = None
    action: str | None = None
    account: str | None = None
    keyspace: str | None = None
    environment: str | None = None


def entries(
    connection: Connection, narrow: Narrow | None = None, *, before: int | None = None, limit: int = 100
) -> Iterator[dict[str, Any]]:
    """The newest entries, newest first."""
    query = select(audit).where(*_conditions(narrow or Narrow())).order_by(audit.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.seq < before)
    for row in connection.execute(query):
        yield {**_entry(row), "detail": msgspec.json.decode(row.detail)}


def walk(
    connection: Connection, after: int = 0, narrow: Narrow | None = None, *, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """The entries behind a number, oldest first, each with its MAC in hex."""
    conditions = [audit.c.seq > after, *_conditions(narrow or Narrow())]
    query = select(audit).where(*conditions).order_by(audit.c.seq).limit(limit)
    for row in connection.execute(query).yield_per(1000):
        yield {**_entry(row), "detail": msgspec.json.decode(row.detail), "mac": row.mac.hex()}


def _conditions(narrow: Narrow) -> list[ColumnElement[bool]]:
    equal = (
        (audit.c.target_id, narrow.target),
        (audit.c.actor_kind, narrow.actor_kind),
        (audit.c.actor_id, narrow.actor_id),
        (audit.c.action, narrow.action),
        (audit.c.account, narrow.account),
    )
    found: list[ColumnElement[bool]] = [column == value for column, value in equal if value is not None]
    if narrow.keyspace is not None:
        of_key = select(keys.c.id).where(keys.c.keyspace == narrow.keyspace)
        if narrow.environment is not None:
            of_key = of_key.where(keys.c.environment == narrow.environment)
        found += [audit.c.target_kind == "key", audit.c.target_id.in_(of_key)]
    return found


def _entry(row: Row[Any]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _FIELDS}


def _chain(keyring: Keyring, before: bytes, entry: dict[str, Any]) -> bytes:
    canonical = msgspec.json.encode({name: entry[name] for name in _FIELDS}, order="sorted")
    return hmac.digest(keyring.audit[entry["key_n"]], before + canonical, "sha256")
