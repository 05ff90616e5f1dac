"""The desk: the verbs of the product, one file a noun. Every surface is a translation of these.

A verb checks what it is given, then changes the store in one transaction, with the announcement that makes caches forget
and the audit entry that tells of it. It returns when the change is durable and no verification that begins afterwards
can succeed on the old state.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from keywright.keyring import Keyring
from keywright.model import Actor
from keywright.store import audit, changes
from keywright.store.db import Database

#: Who acts where nobody else is named: the program that holds the library.
LIBRARY = Actor("library", "library")


class Desk:
    """What every noun's desk stands on: the database, the keyring, and a clock that tells microseconds."""

    def __init__(self, database: Database, keyring: Keyring, clock: Callable[[], int]) -> None:
        self.database = database
        self.keyring = keyring
        self.clock = clock

    @contextmanager
    def change(self) -> Iterator["Change"]:
        """A transaction on the keys file, with what every change needs at hand."""
        with self.database.write() as tx:
            yield Change(tx, self.keyring, self.clock())


class Change:
    """An open transaction: its connection, its instant, and the two things that every change must do."""

    def __init__(self, tx: Connection, keyring: Keyring, now: int) -> None:
        self.tx = tx
        self.now = now
        self._keyring = keyring

    def announce(self, kind: changes.Kind, ref: str) -> None:
        """Make every cache forget."""
        changes.note(self.tx, kind, ref, self.now)

    def tell(
        self, actor: Actor, action: str, target: tuple[str, str], *, account: str | None = None, **detail: Any
    ) -> None:
        """Write the audit entry. The last thing in a transaction: it locks the trail's head."""
        audit.append(self.tx, self._keyring, actor, action, target, self.now, account=account, detail=detail)
