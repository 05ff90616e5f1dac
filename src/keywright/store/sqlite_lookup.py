"""The hot look-ups on SQLite: one read-only autocommit connection a thread, used inline.

A look-up takes about 5 µs; handing it to another thread would cost five times that (``ux.md`` 5.3).
"""

import sqlite3
import threading
from typing import Any, Final
from weakref import WeakSet

from keywright.errors import Unavailable
from keywright.model import KeyRecord
from keywright.store.db import Database, Reader
from keywright.store.lookup import (
    CHANGES,
    FIND,
    FIND_IMPORTED,
    KEYSPACE,
    KEYSPACES,
    NEWEST,
    Found,
    defining,
    imported_of,
    keyspace_of,
    record_of,
)

#: How long a look-up waits for a database that somebody has locked whole, in seconds.
PATIENCE: Final = 0.25

_VERSION: Final = "PRAGMA data_version"


class SqliteLookup:
    """Reads what a verification needs. Every method may raise ``Unavailable``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._local = threading.local()
        self._opened: WeakSet[Reader] = WeakSet()  # a thread's connection ends with the thread
        self.statements = 0  # asked so far, besides the version checks; for those who count

    def moved(self) -> int | None:
        """A data version that this thread has not acknowledged yet, or ``None`` where nobody has committed since."""
        local = self._local
        try:
            version: int = local.execute(_VERSION).fetchone()[0]
        except AttributeError:
            self._connection()
            return self.moved()
        except sqlite3.Error as trouble:
            raise self._gone(trouble) from trouble
        return None if version == local.version else version

    def acknowledge(self, version: int) -> None:
        """Say that everything up to a data version has been acted upon, on this thread."""
        self._local.version = version

    def changes(self, after: int) -> list[tuple[int, str, str]]:
        """``(seq, kind, ref)`` of every change after one; of kind ``all`` where some of them are no longer told."""
        return self._all(CHANGES, after, after)

    def newest(self) -> int:
        """The newest change's number; 0 where there is none."""
        return int(self._all(NEWEST)[0][0])

    def find(self, key_id: bytes) -> KeyRecord | None:
        """Read a key by its id. A row that cannot be read makes that key ``Unavailable``, and only that one."""
        return record_of(key_id, self._all(FIND, key_id.decode("ascii")))

    def find_imported(self, tag: bytes) -> KeyRecord | None:
        """Read the key that the tag of an imported credential leads to."""
        return imported_of(self._all(FIND_IMPORTED, tag))

    def keyspace(self, name: str) -> Found | None:
        """Read a keyspace's definition, and the newest change that the read had seen."""
        return keyspace_of(self._all(KEYSPACE, name))

    def keyspace_with_gate(self, gate: str) -> str | None:
        """The name of the keyspace that defines a gate."""
        return defining(gate, self._all(KEYSPACES))

    def close(self) -> None:
        """Close every thread's connection."""
        for reader in list(self._opened):
            reader.close()
        self._opened.clear()
        self._local = threading.local()

    def before_fork(self) -> None:
        """Close this thread's connection: no child may inherit one."""
        reader = getattr(self._local, "reader", None)
        if reader is not None:
            reader.close()
            del self._local.reader, self._local.connection, self._local.execute

    def _all(self, statement: str, *parameters: Any) -> list[Any]:
        self.statements += 1
        try:
            return self._connection().execute(statement, parameters).fetchall()
        except sqlite3.Error as trouble:
            raise self._gone(trouble) from trouble

    def _gone(self, trouble: sqlite3.Error) -> Unavailable:
        self._database.errors["keys"] += 1
        return Unavailable(f"the store does not answer: {trouble}")

    def _connection(self) -> sqlite3.Connection:
        local = self._local
        try:
            connection: sqlite3.Connection = local.connection
        except AttributeError:
            pass
        else:
            return connection
        try:
            local.reader = self._database.reader("keys", PATIENCE)
        except sqlite3.Error as trouble:
            raise self._gone(trouble) from trouble
        local.version = None  # a connection counts from its own beginning
        local.connection = connection = local.reader.connection
        local.execute = connection.execute
        self._opened.add(local.reader)
        return connection
