"""Counts of verdicts, and when each secret was last used. A batch arrives once, whatever is retried."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, CursorResult, Row, delete, func, literal, select, text

from keywright.store import refusals
from keywright.store.refusals import Refusal
from keywright.store.schema import flushed, last_used, usage_minutes

_ADD: Final = text("""
INSERT INTO usage_minutes (key_id, keyspace, environment, account_id, minute, code, resource, count)
VALUES (:key_id, :keyspace, :environment, :account_id, :minute, :code, :resource, :times)
ON CONFLICT (key_id, keyspace, environment, minute, code, resource)
DO UPDATE SET count = usage_minutes.count + excluded.count
""")
_SEEN: Final = text("""
INSERT INTO last_used (key_id, n, at, ip) VALUES (:key_id, :n, :at, :ip)
ON CONFLICT (key_id, n) DO UPDATE SET at = excluded.at, ip = excluded.ip WHERE excluded.at > last_used.at
""")
_BATCH: Final = text("""
INSERT INTO flushed (worker, batch, at) VALUES (:worker, :batch, :at)
ON CONFLICT (worker) DO UPDATE SET batch = excluded.batch, at = excluded.at WHERE excluded.batch > flushed.batch
RETURNING batch
""")


class Count(NamedTuple):
    """How often a verdict was given, in one minute."""

    key_id: str
    keyspace: str
    environment: str
    account_id: str
    minute: int
    code: str
    resource: str
    times: int


class Seen(NamedTuple):
    """When and from where a secret was last used."""

    key_id: str
    n: int
    at: int
    ip: str | None


def add(
    tx: Connection,
    worker: str,
    batch: int,
    counts: Iterable[Count],
    seen: Iterable[Seen],
    refused: Iterable[Refusal],
    now: int,
) -> bool:
    """Carry a worker's batch over; ``False`` where it had arrived before."""
    if tx.execute(_BATCH, {"worker": worker, "batch": batch, "at": now}).first() is None:
        return False
    for statement, rows in ((_ADD, counts), (_SEEN, seen)):
        values = [row._asdict() for row in sorted(rows, key=_place)]
        if values:
            tx.execute(statement, values)
    refusals.add(tx, refused)
    return True


def _place(row: Count | Seen) -> tuple[str | int, ...]:
    """One order for all workers, so that none waits for another in a ring."""
    if isinstance(row, Seen):
        return row.key_id, row.n
    return row.key_id, row.keyspace, row.environment, row.minute, row.code, row.resource


def last(connection: Connection, key_ids: Iterable[str]) -> dict[tuple[str, int], int]:
    """When each secret of these keys was last used."""
    query = select(last_used.c.key_id, last_used.c.n, last_used.c.at).where(
        last_used.c.key_id.in_(list(key_ids))
    )
    return {(row.key_id, row.n): row.at for row in connection.execute(query)}


class Narrow(msgspec.Struct, frozen=True, kw_only=True):
    """What a sum is narrowed to. ``known`` leaves out what was counted under no key."""

    keyspace: str | None = None
    not_keyspace: str | None = None
    environment: str | None = None
    account_id: str | None = None
    key_id: str | None = None
    code: str | None = None
    resource: str | None = None
    since: int | None = None  # the minute that begins then is in
    until: int | None = None  # the minute that begins then is not
    known: bool = False


def sums(
    connection: Connection, narrow: Narrow, columns: Sequence[str], step: int | None
) -> Iterator[Row[Any]]:
    """Counts summed by some columns and by ``bucket``, spans of ``step`` microseconds; by all of time without."""
    minute = usage_minutes.c.minute
    bucket = literal(0) if step is None else minute - minute % step
    groups = [usage_minutes.c[name] for name in columns]
    query = select(bucket.label("bucket"), *groups, func.sum(usage_minutes.c.count).label("times"))
    query = query.where(*_conditions(narrow)).group_by(*([] if step is None else [bucket]), *groups)
    found: CursorResult[Any] = connection.execute(query)
    return iter(found.yield_per(1000))


def purge(tx: Connection, before: int) -> int:
    """Remove the counts of minutes that began before an instant; how many rows there were."""
    return int(tx.execute(delete(usage_minutes).where(usage_minutes.c.minute < before)).rowcount)


def _conditions(narrow: Narrow) -> list[ColumnElement[bool]]:
    table = usage_minutes.c
    equal = ("keyspace", "environment", "account_id", "key_id", "code", "resource")
    found: list[ColumnElement[bool]] = [
        table[name] == getattr(narrow, name) for name in equal if getattr(narrow, name) is not None
    ]
    if narrow.not_keyspace is not None:
        found.append(table.keyspace != narrow.not_keyspace)
    if narrow.since is not None:
        found.append(table.minute >= narrow.since)
    if narrow.until is not None:
        found.append(table.minute < narrow.until)
    if narrow.known:
        found.append(table.key_id != "")
    return found


def totals(connection: Connection, key_id: str) -> dict[str, int]:
    """How often each verdict was given to a key, ever."""
    total = func.sum(usage_minutes.c.count)
    query = (
        select(usage_minutes.c.code, total)
        .where(usage_minutes.c.key_id == key_id)
        .group_by(usage_minutes.c.code)
    )
    return {code: int(count) for code, count in connection.execute(query).all()}


def forget_worker(tx: Connection, worker: str) -> None:
    """Remove the mark of a worker that has ended and flushed all."""
    tx.execute(flushed.delete().where(flushed.c.worker == worker))
