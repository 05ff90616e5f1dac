"""The refusal log: one row a refused request, the newest of them. Never a secret."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select

from keywright.store.schema import refusals

#: How many are kept; older ones make room.
KEPT: Final = 100_000


class Refusal(NamedTuple):
    """One refused request: what was said, and what was really wrong."""

    request_id: str
    at: int
    code: str
    reason: str
    keyspace: str
    environment: str
    account_id: str
    key_id: str
    scheme: str | None
    ip: str | None
    method: str | None
    resource: str | None
    dropped: int = 0
    fingerprint: str = ""


class Narrow(msgspec.Struct, frozen=True, kw_only=True):
    """What the log is narrowed to. ``known`` leaves out what no key of ours was named in."""

    keyspace: str | None = None
    environment: str | None = None
    account_id: str | None = None
    key_id: str | None = None
    code: str | None = None
    request_id: str | None = None
    known: bool = False


def add(tx: Connection, rows: Iterable[Refusal]) -> None:
    """Write some, and let the oldest go where there are too many."""
    values = [row._asdict() for row in rows]
    if values:
        tx.execute(insert(refusals), values)
        newest = select(func.max(refusals.c.seq)).scalar_subquery()
        tx.execute(delete(refusals).where(refusals.c.seq <= newest - KEPT))


def page(
    connection: Connection, narrow: Narrow, *, before: int | None, limit: int
) -> list[tuple[int, Refusal]]:
    """The newest, newest first, with their numbers."""
    query = select(refusals).where(*_conditions(narrow))
    if before is not None:
        query = query.where(refusals.c.seq < before)
    return [_refusal(row) for row in connection.execute(query.order_by(refusals.c.seq.desc()).limit(limit))]


def after(connection: Connection, seq: int, limit: int) -> list[tuple[int, Refusal]]:
    """The oldest of those behind a number, oldest first, with their numbers."""
    query = select(refusals).where(refusals.c.seq > seq).order_by(refusals.c.seq).limit(limit)
    return [_refusal(row) for row in connection.execute(query)]


def before(connection: Connection, since: int) -> int:
    """The number of the newest that happened before an instant, of the log's newest; 0 where there is none."""
    return int(
        connection.execute(select(func.max(refusals.c.seq)).where(refusals.c.at < since)).scalar() or 0
    )


def purge(tx: Connection, before: int) -> int:
    """Remove what is older than an instant; how many there were."""
    return int(tx.execute(delete(refusals).where(refusals.c.at < before)).rowcount)


def _conditions(narrow: Narrow) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [
        refusals.c[name] == value
        for name, value in msgspec.structs.asdict(narrow).items()
        if name != "known" and value is not None
    ]
    return [*found, refusals.c.key_id != ""] if narrow.known else found


def _refusal(row: Row[Any]) -> tuple[int, Refusal]:
    return row.seq, Refusal(*(getattr(row, name) for name in Refusal._fields))
