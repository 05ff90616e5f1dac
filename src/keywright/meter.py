"""Counts verdicts in memory, and carries them to the store in numbered batches.

Refused requests are noted one by one, for the refusal log, and go with them; of a flood the newest are kept.

A batch stays until the store has it; sending it twice counts once. What a worker has counted since its last flush, a
second at most, is lost when the process is killed; ``close`` loses nothing.
"""

import os
import secrets
import threading
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from keywright.errors import Unavailable
from keywright.model import KeyRecord, Verdict
from keywright.store import usage
from keywright.store.db import Database
from keywright.store.refusals import Refusal
from keywright.times import SECOND

FLUSH_EVERY: Final = 1.0  # seconds
#: Resources that are told apart for one key; further ones are counted as ``other``.
MOST_RESOURCES: Final = 50
#: Refusals that wait for a flush; of more, the oldest are dropped, and how many is written down.
MOST_REFUSALS: Final = 5_000
_LONGEST: Final = 200  # characters of a text that the log keeps
_MINUTE: Final = 60 * SECOND

_Counted = tuple[str, str, str, str, int, str, str]


class _Batch(NamedTuple):
    counts: list[usage.Count]
    seen: list[usage.Seen]
    refused: list[Refusal]


class Meter:
    """The counts of this process. ``count`` is for the hot path; a thread of its own does the flushing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._flushing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._tallying = threading.Lock()
        self._counts: dict[_Counted, int] = {}
        self._seen: dict[tuple[str, int], tuple[int, str | None]] = {}
        self._resources: dict[str, set[str]] = {}
        self._worker = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._batch = 0
        self._refused: deque[tuple[Verdict, str, str | None, str | None, str | None]] = deque(
            maxlen=MOST_REFUSALS
        )
        self._dropped = 0
        #: refusals that the log will never have, since this process began
        self.dropped = 0
        self._tally: Counter[tuple[str, str]] = Counter()
        self._unsent: _Batch | None = None
        #: whether the store has not taken a batch that it was given
        self.behind = False
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
        key_id, account_id = (key.id, key.account_id) if key is not None else ("", "")
        minute = now - now % _MINUTE
        with self._lock:
            where = self._told_apart(key_id, resource) if resource else ""
            counted = (key_id, keyspace, environment, account_id, minute, code, where)
            self._counts[counted] = self._counts.get(counted, 0) + 1
            self._at = now
            if used is not None:
                self._seen[key_id, used[0]] = (now, used[1])
        if self._thread is None:
            self._start()

    def refuse(
        self, verdict: Verdict, environment: str, ip: str | None, method: str | None, resource: str | None
    ) -> None:
        """Note one refused request, for the log."""
        with self._lock:
            if len(self._refused) == MOST_REFUSALS:
                self._dropped += 1
                self.dropped += 1
            self._refused.append((verdict, environment, ip, method, resource))
            self._at = verdict.at
        if self._thread is None:
            self._start()

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
                self._batch += 1
            try:
                with self._database.write("usage") as tx:
                    usage.add(tx, self._worker, self._batch, *self._unsent, self._at)
            except Unavailable:
                self.behind = True
                return False
            self._unsent, self.behind = None, False
            return True

    def verdicts(self) -> Counter[tuple[str, str]]:
        """How often this process has given each code in each keyspace, whether the store has it yet or not."""
        with self._tallying:
            with self._lock:
                counted = list(self._counts.items())
            return self._tally + _by_code(counted)

    def waiting(self) -> int:
        """How many verdicts the store does not have yet."""
        with self._lock:
            counted = list(self._counts.values())
        unsent = self._unsent
        return sum(counted) + (sum(count.times for count in unsent.counts) if unsent else 0)

    def close(self) -> None:
        """Stop the thread and flush what is left; where the store does not answer, that is lost."""
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._thread = None
        while self.flush():
            if not self._counts and not self._seen and not self._refused:
                self._take_leave()
                return

    def after_fork(self) -> None:
        """Start anew in a child: the parent flushes its own counts."""
        self._flushing, self._stop, self._thread = threading.Lock(), threading.Event(), None
        self._begin()

    def _take_leave(self) -> None:
        """Remove the mark of the last batch: nobody will send it again."""
        if self._batch == 0:
            return
        try:
            with self._flushing, self._database.write("usage") as tx:
                usage.forget_worker(tx, self._worker)
        except Unavailable:
            return

    def _told_apart(self, key_id: str, resource: str) -> str:
        known = self._resources.setdefault(key_id, set())
        if resource not in known:
            if len(known) >= MOST_RESOURCES:
                return "other"
            known.add(resource)
        return resource

    def _gather(self) -> _Batch | None:
        with self._tallying:
            with self._lock:
                counts, self._counts = self._counts, {}
                seen, self._seen = self._seen, {}
                refused, dropped = list(self._refused), self._dropped
                self._refused.clear()
                self._dropped = 0
            self._tally.update(_by_code(counts.items()))
        if not counts and not seen and not refused:
            return None
        return _Batch(
            [usage.Count(*counted, count) for counted, count in counts.items()],
            [usage.Seen(key_id, n, at, ip) for (key_id, n), (at, ip) in seen.items()],
            [_refusal(*one, dropped if place == 0 else 0) for place, one in enumerate(refused)],
        )

    def _start(self) -> None:
        with self._flushing:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="keywright-meter", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_EVERY):
            self.flush()


def _by_code(counted: Iterable[tuple[_Counted, int]]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for (_key, keyspace, _environment, _account, _minute, code, _resource), times in counted:
        found[keyspace, code] += times
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
    )


def _cut(text: str | None) -> str | None:
    """A text that somebody else wrote, as any database takes it."""
    return None if text is None else text[:_LONGEST].encode("utf-8", "replace").decode().replace("\0", "")
