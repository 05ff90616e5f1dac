"""The desk: the verbs of the product, one file a noun. Every surface is a translation of these.

A verb checks what it is given, then changes the store in one transaction, with the announcement that makes caches forget
and the audit entry that tells of it. It returns when the change is durable and no verification that begins afterwards
can succeed on the old state.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from keywright import propagation
from keywright.desk import messages
from keywright.desk.once import RETENTION, Once, Replay, Running
from keywright.errors import Invalid
from keywright.keyring import Keyring
from keywright.model import Actor, Propagation
from keywright.store import audit, changes, creations
from keywright.store.db import Database
from keywright.times import SECOND

#: Who acts where nobody else is named: the program that holds the library.
LIBRARY = Actor("library", "library")


class Desk:
    """What every noun's desk stands on: the database, the keyring, and a clock that tells microseconds."""

    def __init__(self, database: Database, keyring: Keyring, clock: Callable[[], int]) -> None:
        self.database = database
        self.keyring = keyring
        self.clock = clock
        self.running = Running()

    @contextmanager
    def change(self, once: Once | None = None) -> Iterator["Change"]:
        """A transaction on the keys file, with what every change needs at hand.

        With ``once`` it is entered once only. Raises ``Replay`` where it was carried out before, ``Invalid`` where
        something else was, ``Conflict`` while it still is.
        """
        with self.running.holding(once):
            with self.database.write() as tx:
                change = Change(tx, self.keyring, self.clock(), once)
                change.claim()
                yield change
                newest = changes.newest(tx)
            # What changed nothing waits too: the caller may ask again because an earlier answer never came.
            propagation.follow(self.database, newest, self.clock(), change.travelled)


class Change:
    """An open transaction: its connection, its instant, and the two things that every change must do."""

    def __init__(self, tx: Connection, keyring: Keyring, now: int, once: Once | None = None) -> None:
        self.tx = tx
        self.now = now
        #: How far it has travelled: filled in when it is committed, before it is answered.
        self.travelled = Propagation()
        self._keyring = keyring
        self._once = once

    def claim(self) -> None:
        """Find out whether this creation has happened already, if it may happen only once."""
        once = self._once
        if once is None:
            return
        creations.purge(self.tx, self.now - RETENTION * SECOND)
        earlier = creations.claim(self.tx, once.caller, once.route, once.digest, once.fingerprint, self.now)
        if earlier is not None:
            if earlier.fingerprint != once.fingerprint:
                raise Invalid("was used for another body", path="Idempotency-Key")
            raise Replay(earlier.made)

    def made(self, ref: str) -> None:
        """Say what a creation made."""
        if self._once is not None:
            creations.complete(self.tx, self._once.caller, self._once.route, self._once.digest, ref)

    def announce(self, kind: changes.Kind, ref: str) -> None:
        """Make every cache forget."""
        changes.note(self.tx, kind, ref, self.now)

    def tell(
        self, actor: Actor, action: str, target: tuple[str, str], *, account: str | None = None, **detail: Any
    ) -> None:
        """Write the audit entry, and the webhooks of what it tells. The last thing in a transaction: it locks the trail's head."""
        messages.post_change(self.tx, actor, action, target, account, detail, self.now)
        audit.append(self.tx, self._keyring, actor, action, target, self.now, account=account, detail=detail)
