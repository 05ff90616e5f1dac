"""What this process remembers of keys and keyspaces, and how it forgets.

A reading enters the cache only if no change has been applied since the snapshot that it was read in: otherwise a slow
reader could put back what a change has just evicted. Nothing is ever kept longer for having been used.

Ids that do not exist are remembered apart, few and for seconds, so that a flood of them cannot push good keys out.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Final

from keywright.answers import Answers
from keywright.model import KeyRecord, Keyspace
from keywright.schemes import Reader
from keywright.times import SECOND

ABSENT_AT_MOST: Final = 10_000
GATES_AT_MOST: Final = 10_000
ABSENT_FOR: Final = 5 * SECOND


class Entry:
    """A key's record, and what was worked out about it once."""

    __slots__ = ("checks", "headers", "lines", "record", "said")

    def __init__(self, record: KeyRecord) -> None:
        self.record = record
        #: spelling -> (number of the secret, its six check characters): proven spellings are compared, not computed
        self.checks: dict[str, tuple[int, bytes]] = {}
        #: what ``/v1/verify`` says of the key and its account, as JSON
        self.said: bytes | None = None
        #: the identity headers of a forward-auth answer
        self.headers: tuple[tuple[bytes, bytes], ...] | None = None
        #: the same, as they stand on the wire
        self.lines: bytes | None = None


class Compiled:
    """A keyspace with its reader and its answers."""

    __slots__ = ("answers", "keyspace", "only_environment", "reader", "seq")

    def __init__(self, keyspace: Keyspace, seq: int) -> None:
        self.keyspace = keyspace
        self.reader = Reader(keyspace)
        self.answers = Answers(keyspace)
        self.only_environment = next(iter(keyspace.environments)) if len(keyspace.environments) == 1 else None
        self.seq = seq


class Cache:
    """Recent keys by id. Reads take no lock; fills and evictions do."""

    __slots__ = (
        "_absent",
        "_capacity",
        "_entries",
        "_gates",
        "_keyspaces",
        "_lock",
        "applied",
        "found",
        "get",
        "keyspace",
        "missed",
    )

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: dict[bytes, Entry] = {}
        self._keyspaces: dict[str, Compiled] = {}
        self._absent: dict[bytes, int] = {}
        self._gates: dict[str, str | None] = {}
        self._lock = threading.Lock()
        #: the entry of a key, and a keyspace, if they are remembered: the dictionaries' own look-ups, for the hot path
        self.get: Callable[[bytes], Entry | None] = self._entries.get
        self.keyspace: Callable[[str], Compiled | None] = self._keyspaces.get
        self.applied = 0  # the newest change that has been acted upon
        #: how often the store was asked for a key, and had it or not
        self.found, self.missed = 0, 0

    def gate(self, name: str) -> tuple[bool, str | None]:
        """Whether a gate's name is remembered, and the keyspace that defines it."""
        return name in self._gates, self._gates.get(name)

    def put_gate(self, name: str, keyspace: str | None, applied: int) -> None:
        """Remember which keyspace defines a gate, or that none does, unless something was applied since."""
        with self._lock:
            if applied == self.applied and len(self._gates) < GATES_AT_MOST:
                self._gates[name] = keyspace

    def is_absent(self, key_id: bytes, now: int) -> bool:
        """Whether the id was looked up a moment ago and did not exist."""
        until = self._absent.get(key_id)
        return until is not None and now < until

    def put(self, key_id: bytes, entry: Entry, applied: int) -> None:
        """Remember a key, unless a change was applied since ``applied`` was read, which is before all that it rests on.

        The record's own number would not do: its plan's limits come from a keyspace that was read at another time.
        """
        with self._lock:
            self.found += 1
            if applied != self.applied:
                return
            while len(self._entries) >= self._capacity:
                del self._entries[next(iter(self._entries))]
            self._entries[key_id] = entry

    def put_keyspace(self, compiled: Compiled) -> None:
        """Remember a keyspace, unless something has changed since it was read."""
        with self._lock:
            if compiled.seq >= self.applied:
                self._keyspaces[compiled.keyspace.name] = compiled

    def put_absent(self, key_id: bytes, applied: int, now: int) -> None:
        """Remember that an id does not exist, unless a change was applied since ``applied`` was read."""
        with self._lock:
            self.missed += 1
            if applied != self.applied:
                return
            while len(self._absent) >= ABSENT_AT_MOST:
                del self._absent[next(iter(self._absent))]
            self._absent[key_id] = now + ABSENT_FOR

    def apply(self, changes: Iterable[tuple[int, str, str]]) -> None:
        """Forget what changes name: ``(seq, kind, ref)``, oldest first."""
        with self._lock:
            for seq, kind, ref in changes:
                if kind == "key":
                    self._entries.pop(ref.encode(), None)
                    self._absent.pop(ref.encode(), None)
                elif kind == "account":
                    self._forget_where("account_id", ref)
                else:
                    self._keyspaces.pop(ref, None)
                    self._gates.clear()
                    self._forget_where("keyspace", ref)
                self.applied = max(self.applied, seq)

    def forget(self, newest: int) -> None:
        """Forget everything, and begin from a change that is older than the newest acted upon: the store was put back."""
        with self._lock:
            for known in (self._entries, self._absent, self._keyspaces, self._gates):
                known.clear()
            self.applied = newest

    def before_fork(self) -> None:
        """Let no child inherit the lock in the hands of a thread that it does not have."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """Go on, in the parent and in the child."""
        self._lock.release()

    def _forget_where(self, attribute: str, value: str) -> None:
        gone = [
            key_id for key_id, entry in self._entries.items() if getattr(entry.record, attribute) == value
        ]
        for key_id in gone:
            del self._entries[key_id]

    def __len__(self) -> int:
        return len(self._entries)
