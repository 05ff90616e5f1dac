"""Counts of verdicts, and when each secret was last used. A batch arrives once, whatever is retried."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Row,
    Subquery,
    Table,
    delete,
    func,
    literal,
    select,
    text,
    union_all,
)

from keywright.layout import Counts
from keywright.store import refusals, signals
from keywright.store.refusals import Refusal
from keywright.store.schema import flushed, last_used, usage_days, usage_hours, usage_minutes
from keywright.store.signals import Sign
from keywright.times import DAY, SECOND

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

_MINUTE: Final = 60 * SECOND
_HOUR: Final = 60 * _MINUTE
#: Counts of one span of a finer table, summed into the coarser one, and removed. On PostgreSQL, where others write
#: meanwhile, what is removed is what is summed; on SQLite nobody does.
_SUM: Final = """
INSERT INTO {coarse}s (key_id, keyspace, environment, account_id, {coarse_begin}, code, resource, count)
SELECT key_id, keyspace, environment, max(account_id), {begin} - {begin} % {step}, code, resource, sum(count)
FROM {source} {where} GROUP BY key_id, keyspace, environment, {begin} - {begin} % {step}, code, resource
ON CONFLICT (key_id, keyspace, environment, {coarse_begin}, code, resource)
DO UPDATE SET count = {coarse}s.count + excluded.count
"""


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


def batch(found: Iterable[Counts]) -> tuple[list[Count], list[Seen]]:
    """What a generation of counts comes to: how often each verdict was given, and the last use of each secret."""
    times: dict[tuple[str, str, str, str, int, str, str], int] = {}
    seen: dict[tuple[str, int], Seen] = {}
    for of, many, last, address in found:
        times[of[:7]] = times.get(of[:7], 0) + many
        if of.secret and ((of.key_id, of.secret) not in seen or last >= seen[of.key_id, of.secret].at):
            seen[of.key_id, of.secret] = Seen(of.key_id, of.secret, last, address)
    return [Count(*of, many) for of, many in times.items()], list(seen.values())


def add(
    tx: Connection,
    worker: str,
    batch: int,
    counts: Iterable[Count],
    seen: Iterable[Seen],
    refused: Iterable[Refusal],
    now: int,
    signs: Iterable[Sign] = (),
) -> bool:
    """Carry a worker's batch over; ``False`` where it had arrived before."""
    if tx.execute(_BATCH, {"worker": worker, "batch": batch, "at": now}).first() is None:
        return False
    signals.add(tx, signs)  # before what is known of the last use changes
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


def last(connection: Connection, key_ids: Iterable[str]) -> dict[tuple[str, int], Seen]:
    """When and from where each secret of these keys was last used."""
    query = select(last_used).where(last_used.c.key_id.in_(list(key_ids)))
    return {(row.key_id, row.n): Seen(row.key_id, row.n, row.at, row.ip) for row in connection.execute(query)}


def used_since(connection: Connection, key_ids: Sequence[str], instant: int) -> set[str]:
    """Those of some keys that were used after an instant."""
    query = select(last_used.c.key_id).where(last_used.c.key_id.in_(key_ids), last_used.c.at > instant)
    return set(connection.execute(query).scalars())


def busiest(connection: Connection, since: int, least: int) -> list[tuple[str, str, str, str, int]]:
    """Keys that were let in at least so often in the minutes since an instant: id, keyspace, environment, account, times."""
    minutes, times = usage_minutes.c, func.sum(usage_minutes.c.count)
    whose = minutes.key_id, minutes.keyspace, minutes.environment, minutes.account_id
    counted = minutes.minute >= since, minutes.code == "ok", minutes.key_id != ""
    found = connection.execute(select(*whose, times).where(*counted).group_by(*whose).having(times >= least))
    return [(row[0], row[1], row[2], row[3], int(row[4])) for row in found]


def highest(connection: Connection, key_id: str, since: int, until: int, span: int) -> int:
    """The most that a key was let in within one of the spans of ``span`` microseconds from ``since`` to ``until``."""
    minutes, times = usage_minutes.c, func.sum(usage_minutes.c.count)
    place = (
        (minutes.minute - since) / span
        if connection.dialect.name == "sqlite"
        else func.div(minutes.minute - since, span)
    )
    counted = minutes.key_id == key_id, minutes.code == "ok", minutes.minute >= since, minutes.minute < until
    found = connection.execute(select(times).where(*counted).group_by(place))
    return max((int(row[0]) for row in found), default=0)


_TABLES: Final = ((usage_minutes, "minute"), (usage_hours, "hour"), (usage_days, "day"))
_LENGTH: Final = {"minute": _MINUTE, "hour": _HOUR, "day": DAY * SECOND}


class Narrow(msgspec.Struct, frozen=True, kw_only=True):
    """What a sum is narrowed to. ``known`` leaves out what was counted under no key."""

    keyspace: str | None = None
    not_keyspace: str | None = None
    environment: str | None = None
    account_id: str | None = None
    key_id: str | None = None
    key_ids: tuple[str, ...] | None = None
    code: str | None = None
    resource: str | None = None
    since: int | None = None  # the span that it falls in is in: a minute, of old counts an hour or a day
    until: int | None = None  # the span that begins then is not
    known: bool = False


def sums(
    connection: Connection, narrow: Narrow, columns: Sequence[str], step: int | None
) -> Iterator[Row[Any]]:
    """Counts summed by some columns and by ``bucket``, spans of ``step`` microseconds; by all of time without."""
    counted = _counted(narrow, columns)
    bucket = literal(0) if step is None else counted.c.begin - counted.c.begin % step
    groups = [counted.c[name] for name in columns]
    query = select(bucket.label("bucket"), *groups, func.sum(counted.c.count).label("times"))
    query = query.group_by(*([] if step is None else [bucket]), *groups)
    found: CursorResult[Any] = connection.execute(query)
    return iter(found.yield_per(1000))


def busiest_keys(connection: Connection, narrow: Narrow, many: int) -> list[str]:
    """The ids under which most verdicts were counted, an empty one for what nobody proved, the busiest first."""
    counted = _counted(narrow, ("key_id",))
    times = func.sum(counted.c.count)
    query = select(counted.c.key_id).group_by(counted.c.key_id).order_by(times.desc(), counted.c.key_id)
    return list(connection.execute(query.limit(many)).scalars())


def _counted(narrow: Narrow, columns: Sequence[str]) -> Subquery:
    parts = [
        select(table.c[begin].label("begin"), *(table.c[name] for name in columns), table.c.count).where(
            *_conditions(narrow, table, begin)
        )
        for table, begin in _TABLES
    ]
    return union_all(*parts).subquery()


def roll_up(tx: Connection, now: int, *, minutes_kept: int, hours_kept: int) -> bool:
    """Sum the oldest minute's counts into its hour, or the oldest hour's into its day, where they are past keeping.

    ``minutes_kept`` and ``hours_kept`` are microseconds. ``False`` where there is nothing to sum.
    """
    for (table, begin), (coarse, coarse_begin), step, kept in (
        (*_TABLES[:2], _HOUR, minutes_kept),
        (*_TABLES[1:], DAY * SECOND, hours_kept),
    ):
        before = (now - kept) - (now - kept) % step  # whole spans of the coarser table only
        oldest = tx.execute(select(func.min(table.c[begin])).where(table.c[begin] < before)).scalar()
        if oldest is not None:
            _sum(tx, table.name, begin, coarse.name[:-1], coarse_begin, step, int(oldest))
            return True
    return False


def _sum(tx: Connection, table: str, begin: str, coarse: str, coarse_begin: str, step: int, at: int) -> None:
    own, fill = f"WHERE {begin} = :at", {"coarse": coarse, "coarse_begin": coarse_begin, "begin": begin}
    if tx.dialect.name == "sqlite":
        tx.execute(text(_SUM.format(**fill, step=step, source=table, where=own)), {"at": at})
        tx.execute(text(f"DELETE FROM {table} {own}"), {"at": at})  # noqa: S608  # names from the schema
        return
    gone = f"WITH gone AS (DELETE FROM {table} {own} RETURNING *) "  # noqa: S608  # same
    tx.execute(text(gone + _SUM.format(**fill, step=step, source="gone", where="")), {"at": at})


def purge(tx: Connection, before: int) -> int:
    """Remove the counts of spans that began before an instant; how many rows there were."""
    return sum(
        int(tx.execute(delete(table).where(table.c[begin] < before)).rowcount) for table, begin in _TABLES
    )


def _conditions(narrow: Narrow, counted: Table, begin: str) -> list[ColumnElement[bool]]:
    table = counted.c
    equal = ("keyspace", "environment", "account_id", "key_id", "code", "resource")
    found: list[ColumnElement[bool]] = [
        table[name] == getattr(narrow, name) for name in equal if getattr(narrow, name) is not None
    ]
    if narrow.key_ids is not None:
        found.append(table.key_id.in_(narrow.key_ids))
    if narrow.not_keyspace is not None:
        found.append(table.keyspace != narrow.not_keyspace)
    if narrow.since is not None:
        found.append(table[begin] > narrow.since - _LENGTH[begin])
    if narrow.until is not None:
        found.append(table[begin] < narrow.until)
    if narrow.known:
        found.append(table.key_id != "")
    return found


def totals(connection: Connection, key_id: str) -> dict[str, int]:
    """How often each verdict was given to a key, ever."""
    return {row.code: int(row.times) for row in sums(connection, Narrow(key_id=key_id), ("code",), None)}


def forget_worker(tx: Connection, worker: str) -> None:
    """Remove the mark of a worker that has ended and flushed all."""
    tx.execute(flushed.delete().where(flushed.c.worker == worker))


def forget_marks(tx: Connection, before: int) -> int:
    """Remove the marks of workers that have flushed nothing since an instant; how many there were."""
    return int(tx.execute(flushed.delete().where(flushed.c.at < before)).rowcount)
