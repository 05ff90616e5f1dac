"""What this process holds of limits, taken ahead, so that a warm request need not ask the store.

A block is taken by the same conditional statement as a single call, on one writer thread, and more of it is fetched when a
quarter is left. Who holds how much stands in the store (``store.spend``), what was spent of it in the slot file
(``slots``): so whatever happens to this process, the rest is given back, once. ``limits.block`` says how large a block is.
Near its end a limit has none, and every call asks the store; a limit that is exhausted is remembered until it resets.

A purse is what is known of one counter. Requests spend from it under a lock that is never held for longer than some
additions; everything else happens to it on the writer thread alone. What the store was told and what memory believes meet
in one number, ``Purse.spent``: all that a worker has ever spent from its blocks of a counter, which only grows.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection

from keywright import limits as arithmetic
from keywright.errors import Unavailable
from keywright.model import KeyRecord, Limit, LimitState
from keywright.slots import Place, Slots
from keywright.store import spend
from keywright.store.db import Database
from keywright.store.spend import Counter
from keywright.times import SECOND

MOST_AT_ONCE: Final = 256
#: A purse that nothing was taken from for so many seconds is given up, and what it holds is given back.
IDLE_FOR: Final = 10
MOST_KNOWN: Final = 100_000
_NEVER: Final = 2**62
#: How long a store that did not answer is not asked for what can be decided without it, in seconds.
_BREATHER: Final = 0.25

_CLOSED: Final = "the installation was closed, and limits cannot be asked any more"

log = logging.getLogger("keywright")

Charge = tuple[str, Limit]  # whose counter, and the limit


class Spent(msgspec.Struct, frozen=True, gc=False):
    """What became of a request to spend: whether all limits gave, how each stands, and which refused."""

    granted: bool
    states: tuple[LimitState, ...]
    refused: tuple[LimitState, ...] = ()


class Purse:
    """What this process knows of a counter, and the block that it holds of it."""

    __slots__ = (
        "asks", "at", "begins", "counter", "deny_cost", "deny_from", "deny_until", "ends", "fresh", "fresh_rest", "head",
        "holds", "idle", "left", "limit", "low", "pending", "place", "rest", "spent", "touched", "window", "words",
    )  # fmt: skip

    def __init__(self, counter: Counter, limit: Limit) -> None:
        self.counter = counter
        self.left = 0  # of the block
        self.low = -1  # below this more is fetched
        self.spent = 0  # from blocks, ever
        self.pending = 0  # set aside for a request whose other limits are being asked
        self.fresh = self.fresh_rest = (
            0  # of a block that is taken in the transaction under way, and ``rest`` then
        )
        self.place: Place | None = None
        self.words: memoryview | list[int] = [0]
        self.at = 0  # of ``spent`` in ``words``
        self.holds = False  # the store has, or may have, a row that says so
        self.asks = 0  # of the store
        self.idle, self.touched = 0, -1
        self.window: dict[int, int] = {}  # of a rate: what this process took, by bucket
        self.adopt(limit)

    def adopt(self, limit: Limit) -> None:
        """Go by this limit from here on: nothing that was taken or refused under another counts."""
        self.limit = limit
        self.head = arithmetic.told(self.counter.subject, limit), limit.kind, limit.limit, limit.per
        self.rest = 0  # of the limit in the store, when it was last asked
        self.deny_cost, self.deny_from, self.deny_until = 0, 0, 0
        self.close()

    def close(self) -> None:
        """Let nothing be spent from the block any more; what is left of it is given back when the store is next asked."""
        self.left, self.low, self.begins, self.ends = 0, -1, 0, 0

    def denies(self, cost: int, now: int) -> bool:
        """Whether the store has refused as much already, and would still."""
        return cost >= self.deny_cost and self.deny_from <= now < self.deny_until

    def state(self, now: int) -> LimitState:
        """How the limit stands, by the block that is open."""
        name, kind, limit, per = self.head
        remaining = self.rest + self.left
        reset: int | None
        if kind == "rate":
            reset = per  # type: ignore[assignment]  # of a rate it is seconds
        elif self.ends == _NEVER:
            reset = None
        else:
            reset = (self.ends - now + SECOND - 1) // SECOND
        return LimitState(name, kind, limit, per, max(0, remaining), reset)


class _Ask(NamedTuple):
    """Somebody waits for this."""

    future: Future[Spent]
    key_id: str
    charges: tuple[Charge, ...]
    cost: int
    now: int


class _Refill(NamedTuple):
    """Nobody waits for this."""

    purse: Purse
    now: int


class _Outcome(NamedTuple):
    """What will have become of a request once the transaction has committed."""

    ask: _Ask
    spent: Spent
    aside: list[Purse]  # that it spends from in memory
    then: list[Callable[[], None]]


class Blocks:
    """Everything that this process holds. ``at_once`` is for the hot path, ``ask`` answers with a future."""

    def __init__(self, database: Database, slots: Slots) -> None:
        self._database = database
        self._slots = slots
        #: Requests that a rate was not asked for, because the store did not answer: it was kept to here instead.
        self.failed_open = 0
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._closed = False
        self._waiting: queue.SimpleQueue[_Ask | _Refill | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._purses: dict[Counter, Purse] = {}
        self._known: dict[str, tuple[tuple[Charge, ...], tuple[Purse, ...]]] = {}
        self._down_until = 0.0
        self._tidied = time.monotonic()

    # ------------------------------------------------------------------------------------------------- the hot path

    def at_once(self, record: KeyRecord, cost: int, now: int) -> Spent | None:
        """Spend from all of a key's limits what is held of them, or refuse what is known to be refused.

        ``None`` where the store must be asked.
        """
        known = self._known.get(record.id)
        if known is None or known[0] is not record.limits:
            return None
        purses = known[1]
        with self._lock:
            for purse in purses:
                if cost > purse.left or not purse.begins <= now < purse.ends:
                    return self._denied(purses, cost, now)
            states = []
            for purse in purses:
                purse.left = left = purse.left - cost
                purse.spent = purse.words[purse.at] = purse.spent + cost
                if left < purse.low:
                    purse.low = -1
                    self._waiting.put(_Refill(purse, now))
                states.append(purse.state(now))
        return Spent(True, tuple(states))

    def ask(self, record: KeyRecord, cost: int, now: int) -> Future[Spent]:
        """Ask the store for ``cost`` of every limit. The future's exception is ``Unavailable`` where it does not answer."""
        future: Future[Spent] = Future()
        known = self._known.get(record.id)
        if known is not None and known[0] is not record.limits and known[0] == record.limits:
            self._known[record.id] = (
                record.limits,
                known[1],
            )  # the key was read anew, and its limits are the same
            spent = self.at_once(record, cost, now)
            if spent is not None:
                future.set_result(spent)
                return future
        with self._starting:
            if self._closed:
                future.set_exception(Unavailable(_CLOSED))
                return future
            self._start()
            self._waiting.put(_Ask(future, record.id, record.limits, cost, now))
        return future

    def _denied(self, purses: Sequence[Purse], cost: int, now: int) -> Spent | None:
        if not any(purse.denies(cost, now) for purse in purses):
            return None
        states, refused = [], []
        for purse in purses:
            limit = purse.limit
            if not purse.asks or spend.counter_of(purse.counter.subject, limit, now) != purse.counter:
                return None
            denies = purse.denies(cost, now)
            end = purse.deny_until if denies and limit.kind == "rate" else _period_end(limit, now)
            state = _state(purse, limit, purse.rest + purse.left, None if end is None else end - now)
            states.append(state)
            if denies:
                refused.append(state)
        return Spent(False, tuple(states), tuple(refused))

    # -------------------------------------------------------------------------------------------------- coming, going

    def close(self) -> bool:
        """Finish what is waiting, and give back what is held; whether that could be done. The store is not asked any more."""
        with self._starting:  # whoever asks is before this, and answered, or behind it, and told
            self._closed = True
            self._waiting.put(None)
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._thread = None
        return self._leave([purse for purse in self._purses.values() if purse.holds])

    def after_fork(self) -> None:
        """Forget what the parent holds: it is the parent's."""
        self._begin()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._write, name="keywright-spend", daemon=True)
            self._thread.start()

    # ---------------------------------------------------------------------------------------------- the writer thread

    def _write(self) -> None:
        stopping = False
        while not stopping:
            batch = self._gather()
            stopping = None in batch
            # Whoever has stopped waiting is not charged, and whoever waits from here on cannot stop.
            asks = [
                job for job in batch if isinstance(job, _Ask) and job.future.set_running_or_notify_cancel()
            ]
            self._transact(asks, [job for job in batch if isinstance(job, _Refill)])
            if time.monotonic() - self._tidied >= 1:
                self._tidied = time.monotonic()
                self._tidy()

    def _gather(self) -> list[_Ask | _Refill | None]:
        try:
            batch = [self._waiting.get(timeout=1)]
        except queue.Empty:
            return []
        while len(batch) < MOST_AT_ONCE and not self._waiting.empty():
            batch.append(self._waiting.get())
        return batch

    def _transact(self, asks: list[_Ask], refills: list[_Refill]) -> None:
        if time.monotonic() < self._down_until:
            asks = [ask for ask in asks if not self._answer_locally(ask)]
            refills = []
        if not asks and not refills:
            return
        outcomes: list[_Outcome] = []
        fetched: list[Callable[[], None]] = []
        try:
            with self._database.write("spend") as tx:
                spend.lock(
                    tx,
                    {subject for ask in asks for subject, _ in ask.charges}
                    | {refill.purse.counter.subject for refill in refills},
                )
                for ask in asks:
                    outcomes.append(self._spend(tx, ask))  # those that were done count, where one fails
                for refill in refills:
                    fetched += self._refill(tx, refill)
        except Exception as trouble:  # whoever waits must hear of it, whatever it was
            self._fail(asks, outcomes, trouble)
            return
        with self._lock:
            for then in fetched:
                then()
            for outcome in outcomes:
                self._settle_up(outcome)
        for outcome in outcomes:
            outcome.ask.future.set_result(outcome.spent)

    def _settle_up(self, outcome: _Outcome) -> None:
        for purse in outcome.aside:
            purse.pending -= outcome.ask.cost
            purse.spent = purse.words[purse.at] = purse.spent + outcome.ask.cost
        for then in outcome.then:
            then()

    def _spend(self, tx: Connection, ask: _Ask) -> _Outcome:
        """One request: what is held is set aside, the rest is asked for, all or none."""
        purses = self._purses_of(ask)
        aside = [purse for purse in purses if self._set_aside(purse, ask)]
        asked = [purse for purse in purses if purse not in aside]
        for purse in asked:
            if purse.holds:
                purse.fresh = 0
                spent = purse.spent + purse.pending
                spend.settle(tx, self._slots.worker, purse.counter, spent, ask.now, leave=False)
        all_or_none = tx.begin_nested()
        fits = [spend.take(tx, p.counter.subject, p.limit, ask.cost, ask.now) for p in asked]
        if all(fits):
            all_or_none.commit()
            return self._granted(tx, ask, purses, aside, asked)
        all_or_none.rollback()
        self._put_back(aside, ask.cost)
        return self._refused(tx, ask, purses, [p for p, fit in zip(asked, fits, strict=True) if not fit])

    def _granted(
        self, tx: Connection, ask: _Ask, purses: Sequence[Purse], aside: list[Purse], asked: list[Purse]
    ) -> _Outcome:
        states: list[LimitState] = []
        then: list[Callable[[], None]] = []
        for purse in purses:
            if purse not in asked:
                states.append(_aside_state(purse, ask.now))
                continue
            used, wait = spend.stands(tx, purse.counter.subject, purse.limit, ask.cost, ask.now)
            states.append(_state(purse, purse.limit, purse.limit.limit - used, wait))
            then.append(partial(_learn, purse, purse.limit, used))
            if purse.limit.kind == "rate":
                then.append(partial(_note, purse, ask.cost, ask.now))
            if purse.asks:
                then += self._fetch(tx, purse, used, 0, ask.now)
            purse.asks += 1
        return _Outcome(ask, Spent(True, tuple(states)), aside, then)

    def _refused(
        self, tx: Connection, ask: _Ask, purses: Sequence[Purse], refusing: Sequence[Purse]
    ) -> _Outcome:
        states: list[LimitState] = []
        refused: list[LimitState] = []
        then: list[Callable[[], None]] = []
        for purse in purses:
            limit = purse.limit
            used, wait = spend.stands(tx, purse.counter.subject, limit, ask.cost, ask.now)
            state = _state(purse, limit, limit.limit - used + purse.left, wait)
            states.append(state)
            purse.asks += 1
            then.append(partial(_learn, purse, limit, used))
            if purse in refusing:
                refused.append(state)
                then.append(partial(_deny, purse, limit, used, ask, wait))
        return _Outcome(ask, Spent(False, tuple(states), tuple(refused)), [], then)

    def _refill(self, tx: Connection, refill: _Refill) -> list[Callable[[], None]]:
        purse, now = refill
        if not purse.begins <= now < purse.ends:
            return []
        used, _ = spend.stands(tx, purse.counter.subject, purse.limit, 1, now)
        return self._fetch(tx, purse, used, purse.left, now)

    def _fetch(self, tx: Connection, purse: Purse, used: int, own: int, now: int) -> list[Callable[[], None]]:
        """Take a block, or more of one, if there may be any; what is to be done once that is committed."""
        limit, counter = purse.limit, purse.counter
        held = spend.holders(tx, counter)
        workers = len(held.keys() | {self._slots.worker})
        others = sum(unspent for worker, unspent in held.items() if worker != self._slots.worker)
        rest = limit.limit - used
        size = arithmetic.block(limit.limit, rest, workers=workers, others=others, own=own)
        wanted = arithmetic.block(limit.limit, rest, workers=workers, others=0, own=0)
        if not wanted or not self._has_slot(purse):
            return []
        if size and not spend.take(tx, counter.subject, limit, size, now):
            return []
        if (
            size or self._slots.worker not in held
        ):  # those who have too much learn from the row that there is one more
            purse.holds = True
            spend.hold(tx, self._slots.worker, counter, size, purse.spent + purse.pending, now)
        purse.fresh += size
        purse.fresh_rest = rest - size
        return [partial(_open, purse, limit, size, now)] if size else []

    def _has_slot(self, purse: Purse) -> bool:
        if purse.place is None:
            place = self._slots.spent(*purse.counter)
            if place is None:
                return False
            with self._lock:
                purse.place, purse.words, purse.at = place, place.words, place.at + 1
                purse.words[purse.at] = purse.spent
        return True

    def _purses_of(self, ask: _Ask) -> tuple[Purse, ...]:
        purses = tuple(self._purse(subject, limit, ask.now) for subject, limit in ask.charges)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[ask.key_id] = (ask.charges, purses)
        return purses

    def _purse(self, subject: str, limit: Limit, now: int) -> Purse:
        counter = spend.counter_of(subject, limit, now)
        purse = self._purses.get(counter)
        if purse is None:
            purse = self._purses[counter] = Purse(counter, limit)
        elif purse.limit != limit:
            with self._lock:
                purse.adopt(limit)
        return purse

    def _set_aside(self, purse: Purse, ask: _Ask) -> bool:
        with self._lock:
            if ask.cost <= purse.left and purse.begins <= ask.now < purse.ends:
                purse.left -= ask.cost
                purse.pending += ask.cost
                return True
            purse.close()
            if (
                0 < ask.cost <= purse.fresh
            ):  # somebody before it in this transaction has taken enough for both
                purse.fresh -= ask.cost
                purse.pending += ask.cost
                return True
            return False

    def _put_back(self, purses: Sequence[Purse], cost: int) -> None:
        with self._lock:
            for purse in purses:
                purse.pending -= cost
                if purse.ends:
                    purse.left += cost
                else:
                    purse.fresh += cost

    # ---------------------------------------------------------------------------------------------- giving up, giving back

    def _tidy(self) -> None:
        """Give up the purses that nobody has used for a while."""
        idle = []
        for purse in self._purses.values():
            touched = purse.spent + purse.asks
            purse.idle = purse.idle + 1 if touched == purse.touched else 0
            purse.touched = touched
            if purse.idle >= IDLE_FOR:
                idle.append(purse)
        for purse in idle:
            if not purse.holds:
                with self._lock:
                    purse.adopt(purse.limit)
                del self._purses[purse.counter]
        self._leave([purse for purse in idle if purse.holds][:MOST_AT_ONCE])

    def _leave(self, purses: Sequence[Purse]) -> bool:
        if not purses:
            return True
        with self._lock:
            for purse in purses:
                purse.adopt(purse.limit)
        try:
            with self._database.write("spend") as tx:
                spend.lock(tx, {purse.counter.subject for purse in purses})
                for purse in purses:
                    spend.settle(tx, self._slots.worker, purse.counter, purse.spent, 0, leave=True)
        except Exception as trouble:  # what they hold is given back later, or by a successor
            log.warning("what is held of limits could not be given back: %s", trouble)
            return False
        for purse in purses:
            if purse.place is not None:
                self._slots.release(purse.place)
            del self._purses[purse.counter]
        return True

    # ----------------------------------------------------------------------------------------------- without the store

    def _fail(self, asks: Sequence[_Ask], outcomes: Sequence[_Outcome], trouble: Exception) -> None:
        """The transaction is as if it never was, or nobody knows: nothing that it took is used."""
        self._down_until = time.monotonic() + _BREATHER
        for outcome in outcomes:
            self._put_back(outcome.aside, outcome.ask.cost)
        for purse in self._purses.values():
            purse.fresh = 0  # what a purse may hold after all is given back when the store is next asked
        log.warning("limits could not be asked: %s", trouble)
        for ask in asks:
            if not self._answer_locally(ask):
                known = trouble if isinstance(trouble, Unavailable) else Unavailable(str(trouble))
                ask.future.set_exception(known)

    def _answer_locally(self, ask: _Ask) -> bool:
        """Keep rates, while the store is gone, to this worker's share: an outage of ours is not to be everybody's.

        A quota or credits are money: where they cannot be taken from what is held, nothing is granted.
        """
        purses = self._purses_of(ask)
        aside = [purse for purse in purses if self._set_aside(purse, ask)]
        asked = [purse for purse in purses if purse not in aside]
        if any(purse.limit.kind != "rate" for purse in asked):
            self._put_back(aside, ask.cost)
            return False
        workers = self._slots.living()
        stand = {id(purse): _local(purse, workers, ask) for purse in asked}
        states = [stand[id(purse)][1] if purse in asked else purse.state(ask.now) for purse in purses]
        refused = [state for fits, state in stand.values() if not fits]
        self.failed_open += 1
        if refused:
            self._put_back(aside, ask.cost)
            ask.future.set_result(Spent(False, tuple(states), tuple(refused)))
            return True
        with self._lock:
            for purse in asked:
                _note(purse, ask.cost, ask.now)
            self._settle_up(_Outcome(ask, Spent(True, ()), aside, []))
        ask.future.set_result(Spent(True, tuple(states)))
        return True


# ------------------------------------------------------------------------------ what happens to a purse under the lock


def _open(purse: Purse, limit: Limit, size: int, now: int) -> None:
    """A block was taken: from here on it may be spent, unless the limit has been changed meanwhile."""
    fresh, purse.fresh = purse.fresh, 0
    if purse.limit is not limit or not fresh:
        return
    if not purse.ends:
        if limit.kind == "rate":
            purse.begins = arithmetic.bucket_start(limit, now)
            purse.ends = purse.begins + int(limit.per or 0) * SECOND
        else:
            end = arithmetic.period_end(limit, now)
            purse.begins, purse.ends = (-_NEVER, _NEVER) if end is None else (purse.counter.period, end)
    if limit.kind == "rate":
        _note(purse, size, now)
    purse.left += fresh
    purse.low = arithmetic.refill_below(purse.left)
    purse.rest = purse.fresh_rest


def _learn(purse: Purse, limit: Limit, used: int) -> None:
    if purse.limit is limit:
        purse.rest = limit.limit - used
        purse.deny_until = 0


def _deny(purse: Purse, limit: Limit, used: int, ask: _Ask, wait: int | None) -> None:
    """Remember a refusal for as long as the store would repeat it."""
    if purse.limit is not limit:
        return
    purse.deny_until = _NEVER if wait is None else ask.now + wait
    if limit.kind == "rate":
        purse.deny_cost, purse.deny_from = ask.cost, ask.now
    else:
        purse.deny_cost, purse.deny_from = limit.limit - used + 1, purse.counter.period


def _note(purse: Purse, cost: int, now: int) -> None:
    """Note what this process has taken of a rate: it is what it goes by where the store does not answer."""
    bucket, oldest = arithmetic.bucket_start(purse.limit, now), arithmetic.oldest_bucket(purse.limit, now)
    for old in [old for old in purse.window if old <= oldest]:
        del purse.window[old]
    purse.window[bucket] = purse.window.get(bucket, 0) + cost


def _local(purse: Purse, workers: int, ask: _Ask) -> tuple[bool, LimitState]:
    """Whether a rate's share of one worker still has room, and how it stands."""
    limit = purse.limit
    share = msgspec.structs.replace(limit, limit=max(limit.limit // workers, min(limit.limit, 1)))
    oldest = arithmetic.oldest_bucket(limit, ask.now)
    buckets = sorted((start, used) for start, used in purse.window.items() if start > oldest)
    used = sum(count for _, count in buckets)
    fits = used + ask.cost <= share.limit
    left = share.limit - used - (ask.cost if fits else 0)
    return fits, _state(purse, limit, left, arithmetic.rate_reset(share, buckets, max(ask.cost, 1), ask.now))


def _period_end(limit: Limit, now: int) -> int | None:
    if limit.kind == "rate":
        return now + int(limit.per or 0) * SECOND
    return arithmetic.period_end(limit, now)


def _aside_state(purse: Purse, now: int) -> LimitState:
    """How a limit stands that a request was given its part of in memory."""
    if purse.ends:
        return purse.state(now)
    end = _period_end(purse.limit, now)
    return _state(purse, purse.limit, purse.fresh_rest + purse.fresh, None if end is None else end - now)


def _state(purse: Purse, limit: Limit, remaining: int, wait: int | None) -> LimitState:
    told = msgspec.structs.replace(limit, name=purse.head[0])
    return arithmetic.state(told, limit.limit - remaining, wait)
