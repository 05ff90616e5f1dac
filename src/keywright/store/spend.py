"""Taking from limits: each by one conditional statement, several of them all or none.

A writer thread takes what is waiting, up to a few hundred requests, into one transaction: the disk is asked once for all
of them. A refusal undoes its own request and nobody else's.
"""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, text

from keywright import limits as arithmetic
from keywright.errors import Unavailable
from keywright.model import Limit, LimitState
from keywright.store.db import Database

MOST_AT_ONCE: Final = 256

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

#: On PostgreSQL, where each process writes at once: whoever spends from a counter holds its lock to the end of the
#: transaction, for a rate is a sum over several rows; and all take them in one order, so that nobody waits in a ring.
LOCK: Final = text("SELECT pg_advisory_xact_lock(number) FROM unnest(CAST(:numbers AS bigint[])) AS number")

Charge = tuple[str, Limit]  # whose counter, and the limit


class Spent(NamedTuple):
    """What became of a request to spend: whether all limits gave, how each stands, and which refused."""

    granted: bool
    states: tuple[LimitState, ...]
    refused: tuple[LimitState, ...] = ()


Job = tuple[Future[Spent], tuple[Charge, ...], int, int]


class Spender:
    """The one writer of the spend file in this process. ``take`` answers with a future."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def take(self, charges: tuple[Charge, ...], cost: int, now: int) -> Future[Spent]:
        """Ask for ``cost`` of every limit. The future's exception is ``Unavailable`` where the store does not answer."""
        future: Future[Spent] = Future()
        self._start()
        self._waiting.put((future, charges, cost, now))
        return future

    def close(self) -> None:
        """Finish what is waiting and stop."""
        if self._thread is not None and self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
        self._thread = None

    def after_fork(self) -> None:
        """Forget the parent's thread and queue: neither came along."""
        self._thread, self._waiting, self._starting = None, queue.SimpleQueue(), threading.Lock()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._write, name="keywright-spend", daemon=True)
                    self._thread.start()

    def _write(self) -> None:
        stopping = False
        while not stopping:
            batch = [self._waiting.get()]
            while len(batch) < MOST_AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get())
            stopping = None in batch
            # Whoever has stopped waiting is not charged, and whoever waits from here on cannot stop.
            self._transact(
                [job for job in batch if job is not None and job[0].set_running_or_notify_cancel()]
            )

    def _transact(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        try:
            with self._database.write("spend") as tx:
                if not self._database.is_sqlite:
                    tx.execute(LOCK, {"numbers": _numbers(jobs)})
                done = [_take_all(tx, charges, cost, now) for _, charges, cost, now in jobs]
        except Exception as trouble:  # whoever waits must hear of it, whatever it was
            for future, *_ in jobs:
                future.set_exception(
                    trouble if isinstance(trouble, Unavailable) else Unavailable(str(trouble))
                )
            return
        for (future, *_), spent in zip(jobs, done, strict=True):
            future.set_result(spent)


def _numbers(jobs: Sequence[Job]) -> list[int]:
    """A number for each counter that jobs spend from, in order; two that share one by chance only queue together."""
    subjects = {subject for _, charges, _, _ in jobs for subject, _ in charges}
    return sorted(
        int.from_bytes(blake2b(subject.encode(), digest_size=8).digest(), signed=True) for subject in subjects
    )


def _take_all(tx: Connection, charges: tuple[Charge, ...], cost: int, now: int) -> Spent:
    all_or_none = tx.begin_nested()
    taken = [_take(tx, subject, limit, cost, now) for subject, limit in charges]
    if all(fits for fits, _ in taken):
        all_or_none.commit()
        return Spent(True, tuple(state for _, state in taken))
    all_or_none.rollback()
    states = tuple(_stands(tx, subject, limit, cost, now) for subject, limit in charges)
    return Spent(False, states, tuple(s for s, (fits, _) in zip(states, taken, strict=True) if not fits))


def _take(tx: Connection, subject: str, limit: Limit, cost: int, now: int) -> tuple[bool, LimitState]:
    values: dict[str, Any] = {"subject": subject, "name": limit.name, "cost": cost, "limit": limit.limit}
    if limit.kind == "rate":
        oldest = arithmetic.oldest_bucket(limit, now)
        tx.execute(FORGET_BUCKETS, {"subject": subject, "name": limit.name, "oldest": oldest})
        values |= {"bucket": arithmetic.bucket_start(limit, now), "oldest": oldest}
        row = tx.execute(TAKE_RATE, values).first()
    else:
        row = tx.execute(TAKE, values | {"period": arithmetic.period_start(limit, now)}).first()
    return row is not None, _stands(tx, subject, limit, cost, now)


def _told(subject: str, limit: Limit) -> Limit:
    """The limit under the name that clients are told: two limits of one kind must not share one."""
    whose = "account-" if subject.startswith("account:") else "plan-" if subject.endswith(":plan") else ""
    return msgspec.structs.replace(limit, name=whose + limit.name) if whose else limit


def _stands(tx: Connection, subject: str, limit: Limit, cost: int, now: int) -> LimitState:
    told = _told(subject, limit)
    if limit.kind == "rate":
        oldest = arithmetic.oldest_bucket(limit, now)
        rows = tx.execute(BUCKETS, {"subject": subject, "name": limit.name, "oldest": oldest}).all()
        buckets = [(int(start), int(used)) for start, used in rows]
        return arithmetic.state(
            told, sum(used for _, used in buckets), arithmetic.rate_reset(limit, buckets, max(cost, 1), now)
        )
    start = arithmetic.period_start(limit, now)
    used = tx.execute(USED, {"subject": subject, "name": limit.name, "period": start}).scalar()
    end = arithmetic.period_end(limit, now)
    return arithmetic.state(told, int(used or 0), None if end is None else end - now)
