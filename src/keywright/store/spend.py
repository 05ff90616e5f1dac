"""What was taken from limits, and by whom. Each is taken by one conditional statement, so that no reader can be late.

``spent`` counts quotas and credits, ``rated`` rates. What a worker takes ahead, a block, counts as spent there like
everything else; ``blocks`` says how much each worker has ever taken so, and what it had spent of that when it last wrote.
Both move in one transaction. So whoever knows what the worker really spent, itself or its successor, gives back the
difference, and does it once: with it the row says that nothing is unspent any more.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from keywright import limits as arithmetic
from keywright.model import Limit
from keywright.times import DAY, SECOND

TAKE: Final = text("""
INSERT INTO spent (subject, name, period, used)
SELECT :subject, :name, :period, :cost WHERE :cost <= :limit
ON CONFLICT (subject, name, period) DO UPDATE SET used = spent.used + excluded.used
WHERE spent.used + excluded.used <= :limit
RETURNING used
""")
USED: Final = text("SELECT used FROM spent WHERE subject = :subject AND name = :name AND period = :period")
TAKE_RATE: Final = text("""
INSERT INTO rated (subject, name, bucket, used)
SELECT :subject, :name, :bucket, :cost
WHERE :cost + (
    SELECT coalesce(sum(used), 0) FROM rated WHERE subject = :subject AND name = :name AND bucket > :oldest
) <= :limit
ON CONFLICT (subject, name, bucket) DO UPDATE SET used = rated.used + excluded.used
RETURNING used
""")
BUCKETS: Final = text("""
SELECT bucket, used FROM rated WHERE subject = :subject AND name = :name AND bucket > :oldest ORDER BY bucket
""")
FORGET_BUCKETS: Final = text(
    "DELETE FROM rated WHERE subject = :subject AND name = :name AND bucket <= :oldest"
)
HELD: Final = text(
    "SELECT worker, taken, spent FROM blocks WHERE subject = :subject AND name = :name AND period = :period"
)
#: A worker without a row, or whose row was given up for lost, begins with what it has spent: it holds the block alone.
HOLD: Final = text("""
INSERT INTO blocks (worker, subject, name, period, taken, spent, at)
VALUES (:worker, :subject, :name, :period, :spent + :more, :spent, :now)
ON CONFLICT (worker, subject, name, period)
DO UPDATE SET taken = blocks.taken + :more, spent = excluded.spent, at = excluded.at
""")
OWN: Final = text("""
SELECT taken FROM blocks WHERE worker = :worker AND subject = :subject AND name = :name AND period = :period
""")
GIVE_BACK: Final = text("""
UPDATE spent SET used = used - :unspent
WHERE subject = :subject AND name = :name AND period = :period AND used >= :unspent
""")
SETTLED: Final = text("""
UPDATE blocks SET taken = :spent, spent = :spent, at = :now
WHERE worker = :worker AND subject = :subject AND name = :name AND period = :period
""")
LEFT: Final = text("""
DELETE FROM blocks WHERE worker = :worker AND subject = :subject AND name = :name AND period = :period
""")
LEGACY: Final = text("""
SELECT subject, name, period, taken, spent FROM blocks WHERE worker = :worker ORDER BY subject, name, period
""")
ALL_LEFT: Final = text("DELETE FROM blocks WHERE worker = :worker")
HOLDERS: Final = text("SELECT DISTINCT worker FROM blocks")

#: On PostgreSQL, where each process writes at once: whoever spends from a counter holds its lock to the end of the
#: transaction, for a rate is a sum over several rows; and all take them in one order, so that nobody waits in a ring.
LOCK: Final = text("SELECT pg_advisory_xact_lock(number) FROM unnest(CAST(:numbers AS bigint[])) AS number")

#: Figures this old are of no period or window that could still be on, in microseconds.
OLD: Final = 32 * DAY * SECOND
#: A worker that has not written for so long has lost what it held, in microseconds.
LOST: Final = DAY * SECOND
_AT_ONCE: Final = 1000  # rows that one transaction removes
_FORGET: Final = (
    """
DELETE FROM spent WHERE (subject, name, period) IN (
    SELECT subject, name, period FROM spent WHERE period > 0 AND period < :before LIMIT :most)
""",
    """
DELETE FROM rated WHERE (subject, name, bucket) IN (
    SELECT subject, name, bucket FROM rated WHERE bucket < :before LIMIT :most)
""",
)

#: The period of a rate's row in ``blocks``: it has none, and credits have 0.
NO_PERIOD: Final = -1


class Counter(NamedTuple):
    """Whose counter, under which name, in the period that began then."""

    subject: str
    name: str
    period: int


def counter_of(subject: str, limit: Limit, now: int) -> Counter:
    """The counter of a limit at an instant."""
    period = NO_PERIOD if limit.kind == "rate" else arithmetic.period_start(limit, now)
    return Counter(subject, limit.name, period)


def lock(tx: Connection, subjects: Iterable[str]) -> None:
    """Let nobody else spend from these subjects' counters until the transaction ends.

    Two that share a number by chance only queue together. On SQLite writers queue anyway.
    """
    if tx.dialect.name != "sqlite":
        numbers = {
            int.from_bytes(blake2b(subject.encode(), digest_size=8).digest(), signed=True)
            for subject in subjects
        }
        tx.execute(LOCK, {"numbers": sorted(numbers)})


def take(tx: Connection, subject: str, limit: Limit, cost: int, now: int) -> bool:
    """Take from one limit, if that much is left."""
    values: dict[str, Any] = {"subject": subject, "name": limit.name, "cost": cost, "limit": limit.limit}
    if limit.kind != "rate":
        return tx.execute(TAKE, values | {"period": arithmetic.period_start(limit, now)}).first() is not None
    oldest = arithmetic.oldest_bucket(limit, now)
    tx.execute(FORGET_BUCKETS, {"subject": subject, "name": limit.name, "oldest": oldest})
    values |= {"bucket": arithmetic.bucket_start(limit, now), "oldest": oldest}
    return tx.execute(TAKE_RATE, values).first() is not None


def stands(tx: Connection, subject: str, limit: Limit, cost: int, now: int) -> tuple[int, int | None]:
    """What is used of a limit, and in how many microseconds ``cost`` may fit again; ``None``: never by itself."""
    if limit.kind == "rate":
        oldest = arithmetic.oldest_bucket(limit, now)
        rows = tx.execute(BUCKETS, {"subject": subject, "name": limit.name, "oldest": oldest}).all()
        buckets = [(int(start), int(used)) for start, used in rows]
        wait = arithmetic.rate_reset(limit, buckets, max(cost, 1), now)
        return sum(used for _, used in buckets), wait
    used = tx.execute(USED, counter_of(subject, limit, now)._asdict()).scalar()
    end = arithmetic.period_end(limit, now)
    return int(used or 0), None if end is None else end - now


def holders(tx: Connection, counter: Counter) -> dict[str, int]:
    """Who takes blocks of a counter, and how much each may hold unspent, at most."""
    rows = tx.execute(HELD, counter._asdict()).all()
    return {worker: max(int(taken) - int(spent), 0) for worker, taken, spent in rows}


def hold(tx: Connection, worker: str, counter: Counter, more: int, spent: int, now: int) -> None:
    """Write down that a worker holds ``more`` of a counter; what it takes was taken before, in this transaction."""
    tx.execute(HOLD, {"worker": worker, **counter._asdict(), "more": more, "spent": spent, "now": now})


def settle(tx: Connection, worker: str, counter: Counter, spent: int, now: int, *, leave: bool) -> None:
    """Give back what a worker holds unspent of a counter, all but ``spent``; and, to ``leave``, be no holder any more."""
    own = {"worker": worker, **counter._asdict()}
    taken = tx.execute(OWN, own).scalar()
    if taken is None:
        return
    _give_back(tx, counter, int(taken) - spent)
    tx.execute(LEFT, own) if leave else tx.execute(SETTLED, own | {"spent": spent, "now": now})


def inherit(tx: Connection, worker: str, spent: Mapping[Counter, int], *, believed: bool) -> int:
    """Give back what a dead worker held unspent, and remove all trace of it; how much that was.

    What it had no slot for was never spent from. Where its slots are not to be ``believed``, nothing is given back.
    """
    rows = [
        (Counter(*row[:3]), int(row.taken), int(row.spent)) for row in tx.execute(LEGACY, {"worker": worker})
    ]
    lock(tx, {counter.subject for counter, _, _ in rows})
    given = 0
    for counter, taken, known in rows:
        if believed and counter.period != NO_PERIOD:
            given += _give_back(tx, counter, taken - max(known, spent.get(counter, 0)))
    tx.execute(ALL_LEFT, {"worker": worker})
    return given


def workers(connection: Connection) -> set[str]:
    """Everybody who is written down as holding something."""
    return set(connection.execute(HOLDERS).scalars())


def lost(tx: Connection, named: Iterable[str]) -> None:
    """Forget workers whose slots are gone: what they held unspent stays spent."""
    for worker in sorted(named):
        tx.execute(ALL_LEFT, {"worker": worker})


def forget(tx: Connection, now: int) -> int:
    """Remove some figures of periods and windows that are over, and blocks given up for lost; how many there were."""
    gone = sum(
        tx.execute(text(statement), {"before": now - OLD, "most": _AT_ONCE}).rowcount for statement in _FORGET
    )
    tx.execute(text("DELETE FROM blocks WHERE at < :before"), {"before": now - LOST})
    return int(gone)


def _give_back(tx: Connection, counter: Counter, unspent: int) -> int:
    if unspent <= 0 or counter.period == NO_PERIOD:
        return 0
    return unspent if tx.execute(GIVE_BACK, counter._asdict() | {"unspent": unspent}).rowcount else 0
