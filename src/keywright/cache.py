"""What this process remembers of keys and keyspaces, and how it forgets.

A reading enters the cache only if no change has been applied since the snapshot that it was read in: otherwise a slow
reader could put back what a change has just evicted. Nothing is ever kept longer for having been used.

Ids that do not exist are remembered apart, few and for seconds, so that a flood of them cannot push good keys out. Where
one lasts, the roll of all ids says of most of them that they do not exist, and the store is not asked.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from keywright.answers import Answers
from keywright.credential import Spelled
from keywright.model import KeyRecord, Keyspace
from keywright.roll import Roll
from keywright.schemes import Reader
from keywright.times import SECOND

ABSENT_AT_MOST: Final = 10_000
GATES_AT_MOST: Final = 10_000
ABSENT_FOR: Final = 5 * SECOND


class Entry(msgspec.Struct, gc=False):
    """A key's record, and what was worked out about it once."""

    record: KeyRecord
    #: under what ``Cache.proven`` knows the key: its secret, spelled as a token and as a pair
    as_token: bytes | None = None
    as_pair: bytes | None = None
    #: the tag of an imported credential that led to it
    tag: bytes | None = None
    #: what ``/v1/verify`` says of the key and its account, as JSON
    said: bytes | None = None
    #: the identity headers of a forward-auth answer, as they stand on the wire
    lines: bytes | None = None


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
        "_proofs",
        "_roll",
        "_tags",
        "_whole",
        "applied",
        "found",
        "get",
        "keyspace",
        "missed",
        "proven",
        "tagged",
    )

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: dict[str, Entry] = {}  # by the record's own text of the id: once in memory
        self._proofs: dict[bytes, KeyRecord] = {}
        self._tags: dict[bytes, str] = {}
        self._keyspaces: dict[str, Compiled] = {}
        self._absent: dict[bytes, int] = {}
        self._gates: dict[str, str | None] = {}
        self._roll: Roll | None = None
        self._whole: Roll | None = None  # the roll, once it has every id
        self._lock = threading.Lock()
        #: the entry of a key, the record of one whose only secret was presented and proven before in the same spelling
        #: (``credential.proof``), and a keyspace, if they are remembered: the dictionaries' own look-ups, for the hot path
        self.get: Callable[[str], Entry | None] = self._entries.get
        self.proven: Callable[[bytes], KeyRecord | None] = self._proofs.get
        self.keyspace: Callable[[str], Compiled | None] = self._keyspaces.get
        #: the id of the key that a tag leads to, if it is remembered
        self.tagged: Callable[[bytes], str | None] = self._tags.get
        self.applied = 0  # the newest change that has been acted upon
        #: how often the store was asked for a key, and had it or not
        self.found, self.missed = 0, 0

    def gate(self, name: str) -> tuple[bool, str | None]:
        """Whether a gate's name is remembered, and the keyspace that defines it."""
        return name in self._gates, self._gates.get(name)

    def put_gate(self, name: str, keyspace: str | None, applied: int) -> None:
        """Remember which keyspace defines a gate, or that none does, unless something was applied since."""
        with self._lock:
            if applied != self.applied:
                return
            if len(self._gates) >= GATES_AT_MOST:
                unknown = next((known for known, of in self._gates.items() if of is None), None)
                if keyspace is None or unknown is None:
                    return
                del self._gates[unknown]  # strangers may ask for any name; those that there are come first
            self._gates[name] = keyspace

    def is_absent(self, key_id: bytes, now: int) -> bool:
        """Whether the id was looked up a moment ago and did not exist."""
        until = self._absent.get(key_id)
        return until is not None and now < until

    def is_nobody(self, key_id: bytes) -> bool:
        """Whether the roll, where there is one, says that there is no such id."""
        whole = self._whole
        return whole is not None and key_id not in whole

    @property
    def has_roll(self) -> bool:
        """Whether there is a roll, or one is being made."""
        return self._roll is not None

    def begin_roll(self, expected: int) -> Roll:
        """Begin a roll: from here on, ids that changes name are entered. Those that there are, read after this, follow."""
        with self._lock:
            self._roll, self._whole = Roll(expected), None
            return self._roll

    def enter(self, roll: Roll, ids: Iterable[bytes]) -> bool:
        """Enter some; ``False`` where the roll was given up meanwhile."""
        with self._lock:
            for key_id in ids:
                roll.add(key_id)
            return self._roll is roll

    def close_roll(self, roll: Roll, *, whole: bool) -> None:
        """Say that a roll has every id, or give it up."""
        with self._lock:
            if self._roll is roll:
                self._roll, self._whole = (roll, roll) if whole else (None, None)

    def forget_roll(self) -> None:
        """Do without one until the next is begun."""
        with self._lock:
            self._roll = self._whole = None

    def put(self, record: KeyRecord, applied: int) -> None:
        """Remember a key, unless a change was applied since ``applied`` was read, which is before all that it rests on.

        The record's own number would not do: its plan's limits come from a keyspace that was read at another time.
        """
        with self._lock:
            self.found += 1
            if applied != self.applied:
                return
            self._drop(record.id)  # another thread may have read it as well
            while len(self._entries) >= self._capacity:
                self._drop(next(iter(self._entries)))
            self._entries[record.id] = Entry(record)

    def put_proven(self, spelled: Spelled, proof: bytes, record: KeyRecord) -> None:
        """Remember what proves a key, for as long as its record is remembered."""
        with self._lock:
            entry = self._entries.get(record.id)
            if entry is None or entry.record is not record:
                return
            if spelled.spelling == "pair":
                entry.as_pair = proof
            else:
                entry.as_token = proof
            self._proofs[proof] = record

    def put_tag(self, tag: bytes, record: KeyRecord) -> None:
        """Remember which key a tag leads to, for as long as its record is remembered."""
        with self._lock:
            entry = self._entries.get(record.id)
            if entry is not None and entry.record is record and entry.tag != tag:
                self._tags.pop(entry.tag or b"", None)
                entry.tag, self._tags[tag] = tag, record.id

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
        """Forget what changes name: ``(seq, kind, ref)``, oldest first; everything, where one is of kind ``all``."""
        with self._lock:
            for seq, kind, ref in changes:
                if kind == "key":
                    self._drop(ref)
                    self._appears(ref.encode())
                elif kind == "imported":
                    self._appears(bytes.fromhex(ref))
                elif kind == "account":
                    self._forget_where("account_id", ref)
                elif kind == "all":
                    self._forget_all()
                else:
                    self._keyspaces.pop(ref, None)
                    self._gates.clear()
                    self._forget_where("keyspace", ref)
                self.applied = max(self.applied, seq)

    def forget(self, newest: int) -> None:
        """Forget everything, and begin from a change that is older than the newest acted upon: the store was put back."""
        with self._lock:
            self._forget_all()
            self.applied = newest

    def _forget_all(self) -> None:
        for known in (
            self._entries, self._proofs, self._tags, self._absent, self._keyspaces, self._gates,
        ):  # fmt: skip
            known.clear()
        self._roll = self._whole = None

    def before_fork(self) -> None:
        """Let no child inherit the lock in the hands of a thread that it does not have."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """Go on, in the parent and in the child."""
        self._lock.release()

    def _appears(self, key_id: bytes) -> None:
        self._absent.pop(key_id, None)
        if self._roll is not None:
            self._roll.add(key_id)
            if self._roll.room <= 0:  # the next flood makes a larger one
                self._roll = self._whole = None

    def _forget_where(self, attribute: str, value: str) -> None:
        gone = [
            key_id for key_id, entry in self._entries.items() if getattr(entry.record, attribute) == value
        ]
        for key_id in gone:
            self._drop(key_id)

    def _drop(self, key_id: str) -> None:
        entry = self._entries.pop(key_id, None)
        if entry is not None:
            for proof in (entry.as_token, entry.as_pair):
                if proof is not None:
                    del self._proofs[proof]
            if entry.tag is not None:
                del self._tags[entry.tag]

    def __len__(self) -> int:
        return len(self._entries)
