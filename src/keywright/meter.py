"""Counts verdicts in the slot file, and carries them to the store in numbered batches.

What is counted between two flushes is a generation, and its number is its batch's: a batch stays in the slots until the
store has it, and sending it twice counts once, whoever sends it. So a killed worker loses nothing: its successor finds its
generations and sends them under their own numbers.

Refused requests are noted one by one, for the refusal log, and go with them; of a flood the newest are kept. They are in
memory alone: those of a killed worker's last second are not in the log, though they are counted.
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from keywright import layout
from keywright.errors import Unavailable
from keywright.layout import LAST, SEQ, TIMES, WORD, Counted
from keywright.model import KeyRecord, Verdict
from keywright.slots import Place, Slots
from keywright.store import usage
from keywright.store.db import Database
from keywright.store.refusals import Refusal
from keywright.store.signals import Sign
from keywright.times import SECOND

FLUSH_EVERY: Final = 1.0  # seconds
#: Resources that are told apart for one key; further ones are counted as ``other``.
MOST_RESOURCES: Final = 50
#: Refusals that wait for a flush; of more, the oldest are dropped, and how many is written down.
MOST_REFUSALS: Final = 5_000
_LONGEST: Final = 200  # characters of a text that the log keeps
_MINUTE: Final = 60 * SECOND


#: Addresses of one key in one flush, and of all keys in an hour, that are told once.
_ADDRESSES: Final = 100
_MOST_KNOWN: Final = 100_000
_MOST_NOTED: Final = 1_000
_HOUR: Final = 3600 * SECOND

log = logging.getLogger("keywright")


class _Batch(NamedTuple):
    counts: list[usage.Count]
    seen: list[usage.Seen]
    refused: list[Refusal]
    signs: list[Sign]


class _Tally:
    """How often one thing was counted in one minute: here, and in the slots where there is room."""

    __slots__ = ("_at", "_place", "_words", "address", "addresses", "last", "minute", "of", "times")

    def __init__(self, of: Counted, place: Place | None) -> None:
        self.of = of
        self.minute = of.minute
        self.times = self.last = 0
        self.address: str | None = None
        self.addresses: set[str | None] | None = None
        self._place = place
        self._words: memoryview | list[int] = [0, 0, 0] if place is None else place.words
        self._at = 0 if place is None else place.at + TIMES // WORD

    def add(self) -> None:
        """Count one."""
        self.times = self._words[self._at] = self.times + 1

    def use(self, now: int, address: str | None) -> None:
        """Count one use of the secret, and note when and from where; what is newer stays."""
        self.times = self._words[self._at] = self.times + 1
        if now < self.last:
            return
        if address != self.address or self.addresses is None:
            self._write(address)
        self.last = self._words[self._at + 1] = now

    def _write(self, address: str | None) -> None:
        address = self.address = _cut(address)
        if self.addresses is None:
            self.addresses = {address}
        elif len(self.addresses) < _ADDRESSES:
            self.addresses.add(address)
        if self._place is None:
            return
        words, content, at = self._place
        words[at + SEQ // WORD] |= 1
        encoded = layout.address(address)
        begin = at * WORD + layout.ADDRESS
        content[begin : begin + len(encoded)] = encoded
        words[at + SEQ // WORD] += 1


_Where = tuple[str, str, str, str, str | None, int]
assert LAST == TIMES + WORD  # _Tally counts on it


class Meter:
    """The counts of this process. ``count`` is for the hot path; a thread of its own does the flushing.

    ``aside`` is what the thread does besides, every second: it sees to what dead workers left, for one.
    """

    def __init__(self, database: Database, slots: Slots, aside: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._slots = slots
        self._aside = aside
        self._flushing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[_Where, _Tally] = {}
        self._full: list[_Tally] = []  # of minutes that went by since the last flush
        self._resources: dict[str, set[str]] = {}
        self._generation = 1
        #: of requests that named a key, and of strangers', whose flood must not push the others out
        self._refused: tuple[deque[_Refused], deque[_Refused]] = (
            deque(maxlen=MOST_REFUSALS),
            deque(maxlen=MOST_REFUSALS),
        )
        self._noted: dict[tuple[str, str, str | None], Sign] = {}
        self._known: set[tuple[str, str | None]] = set()
        self._known_since = 0
        self._dropped = 0
        #: refusals that the log will never have, since this process began
        self.dropped = 0
        #: whether the store has not taken a batch that it was given
        self.behind = False
        self._told: Counter[tuple[str, str]] = Counter()
        self._unsent: _Batch | None = None
        self._batch = 0
        self._at = 0

    def count(
        self,
        key: KeyRecord | None,
        keyspace: str,
        environment: str,
        code: str,
        resource: str | None,
        now: int,
        used: tuple[int, str | None] | None = None,
    ) -> None:
        """Count one verdict. ``key`` is ``None`` where nobody was proven.

        ``used`` is the number of the secret that was used, and from which address, where the request may proceed.
        """
        secret = 0 if used is None else used[0]
        where = ("" if key is None else key.id, keyspace, environment, code, resource, secret)
        with self._lock:
            tally = self._tallies.get(where)
            if tally is None or not 0 <= now - tally.minute < _MINUTE:
                tally = self._tally(where, key, now)
            if used is None:
                tally.add()
            else:
                tally.use(now, used[1])
            self._at = now
        if self._thread is None:
            self._start()

    def _tally(self, where: _Where, key: KeyRecord | None, now: int) -> _Tally:
        """What counts here and now, begun anew where the minute is."""
        key_id, keyspace, environment, code, resource, secret = where
        named = self._told_apart(key_id, _cut(resource) or "") if resource else ""
        where = (key_id, keyspace, environment, code, named or None, secret)
        minute = now - now % _MINUTE
        tally = self._tallies.get(where)
        if tally is None or tally.of.minute != minute:
            if tally is not None:
                self._full.append(tally)
            account_id = "" if key is None else key.account_id
            asked = _cut(keyspace) or "", _cut(environment) or ""  # of an outage: nobody has looked at them
            of = Counted(key_id, *asked, account_id, minute, code, named, secret)
            tally = self._tallies[where] = _Tally(of, self._slots.counts(self._generation, of))
        return tally

    def refuse(
        self, verdict: Verdict, environment: str, ip: str | None, method: str | None, resource: str | None
    ) -> None:
        """Note one refused request, for the log."""
        with self._lock:
            refused = self._refused[verdict.key is None and verdict.named is None]
            if len(refused) == MOST_REFUSALS:
                self._dropped += 1
                self.dropped += 1
            refused.append((verdict, environment, ip, method, resource))
            self._at = verdict.at
        if self._thread is None:
            self._start()

    def leave_out(self) -> None:
        """Note that a refused request is not worth a line in the log."""
        with self._lock:
            self._dropped += 1
            self.dropped += 1

    def note(self, kind: str, record: KeyRecord, ip: str | None, now: int) -> None:
        """Note something odd about a request of a proven key, for the watch."""
        with self._lock:
            if len(self._noted) < _MOST_NOTED:
                place = record.keyspace, record.environment, record.account_id, record.id
                self._noted[kind, record.id, ip] = Sign(now, kind, *place, _cut(ip))

    def settle(self) -> None:
        """Carry over all that was counted before this call, as far as the store answers: for whoever reads next."""
        if self.flush():  # which may only have sent a batch that had failed earlier
            self.flush()

    def flush(self) -> bool:
        """Carry over what was counted; ``False`` where the store does not answer and it is kept for the next time."""
        with self._flushing:
            if self._unsent is None:
                self._unsent = self._gather()
                if self._unsent is None:
                    return True
            try:
                with self._database.write("usage", lasting=True) as tx:
                    usage.add(
                        tx,
                        self._slots.worker,
                        self._batch,
                        *self._unsent[:3],
                        self._at,
                        self._unsent.signs,
                    )
            except Unavailable:
                self.behind = True
                return False
            except Exception:
                self.behind = True
                raise
            self._slots.flushed(self._batch)
            self._unsent, self.behind = None, False
            return True

    def verdicts(self) -> Counter[tuple[str, str]]:
        """How often this process has given each code in each keyspace, whether the store has it yet or not."""
        with self._lock:
            return self._told + _by_code([*self._full, *self._tallies.values()])

    def waiting(self) -> int:
        """How many verdicts the store does not have yet."""
        with self._lock:
            counted = sum(tally.times for tally in (*self._full, *self._tallies.values()))
        unsent = self._unsent
        return counted + (sum(count.times for count in unsent.counts) if unsent else 0)

    def close(self) -> bool:
        """Stop the thread and flush what is left; where the store does not answer, that is left to a successor."""
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._thread = None
        while self.flush():
            if not self._tallies and not self._full and not any(self._refused) and not self._noted:
                return True
        return False

    def take_leave(self) -> None:
        """Remove the mark of the last batch, once nobody can send it again."""
        if self._batch == 0:
            return
        with suppress(Unavailable), self._database.write("usage") as tx:
            usage.forget_worker(tx, self._slots.worker)

    def after_fork(self) -> None:
        """Start anew in a child: the parent flushes its own counts."""
        self._flushing, self._stop, self._thread = threading.Lock(), threading.Event(), None
        self._begin()

    def _told_apart(self, key_id: str, resource: str) -> str:
        known = self._resources.get(key_id)
        if known is None:
            if len(self._resources) >= _MOST_KNOWN:
                self._resources.clear()
            known = self._resources[key_id] = set()
        if resource not in known:
            if len(known) >= MOST_RESOURCES:
                return "other"
            known.add(resource)
        return resource

    def _gather(self) -> _Batch | None:
        with self._lock:
            tallies, self._tallies, self._full = [*self._full, *self._tallies.values()], {}, []
            named, strangers = self._refused
            refused = sorted([*named, *strangers], key=_instant) if named else list(strangers)
            dropped, self._dropped = self._dropped, 0
            named.clear()
            strangers.clear()
            noted, self._noted = list(self._noted.values()), {}
            if not tallies and not refused and not noted:
                return None
            self._batch, self._generation = self._generation, self._generation + 1
            self._told.update(_by_code(tallies))
        return _Batch(
            *usage.batch(
                layout.Counts(tally.of, tally.times, tally.last, tally.address) for tally in tallies
            ),
            [_refusal(*one, dropped if place == 0 else 0) for place, one in enumerate(refused)],
            [*noted, *self._uses(tallies)],
        )

    def _uses(self, tallies: Iterable[_Tally]) -> Iterable[Sign]:
        """The uses from an address that this process has not told of within the hour."""
        for tally in tallies:
            if tally.addresses is None or not tally.of.key_id:
                continue
            if tally.last - self._known_since >= _HOUR or len(self._known) >= _MOST_KNOWN:
                self._known.clear()
                self._known_since = tally.last
            for address in tally.addresses:
                if (tally.of.key_id, address) not in self._known:
                    self._known.add((tally.of.key_id, address))
                    place = tally.of.keyspace, tally.of.environment, tally.of.account_id, tally.of.key_id
                    yield Sign(tally.last, "use", *place, _cut(address))

    def _start(self) -> None:
        with self._flushing:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="keywright-meter", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        self._aside()
        while not self._stop.wait(FLUSH_EVERY):
            try:
                self.flush()
            except Exception:  # whatever it was: a thread that ends is not begun again
                log.exception("what was counted could not be carried over; it is tried again")
            self._aside()


_Refused = tuple[Verdict, str, str | None, str | None, str | None]


def _instant(one: _Refused) -> int:
    return one[0].at


def _by_code(tallies: Iterable[_Tally]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for tally in tallies:
        found[tally.of.keyspace, tally.of.code] += tally.times
    return found


def _refusal(
    verdict: Verdict,
    environment: str,
    ip: str | None,
    method: str | None,
    resource: str | None,
    dropped: int,
) -> Refusal:
    named = verdict.key or verdict.named
    return Refusal(
        _cut(verdict.request_id) or "",
        verdict.at,
        verdict.code,
        _cut(verdict.reason) or "",
        verdict.keyspace,
        environment,
        "" if named is None else named.account_id,
        "" if named is None else named.id,
        verdict.scheme,
        _cut(ip),
        _cut(method),
        _cut(resource),
        dropped,
        verdict.fingerprint,
    )


def _cut(text: str | None) -> str | None:
    """A text that somebody else wrote, as any database takes it."""
    return None if text is None else text[:_LONGEST].encode("utf-8", "replace").decode().replace("\0", "")
