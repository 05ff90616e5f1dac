"""The hot look-ups on SQLite: one read-only autocommit connection a thread, used inline.

A look-up takes about 5 µs; handing it to another thread would cost five times that (``ux.md`` 5.3).
"""

import sqlite3
import threading
from ipaddress import ip_network
from typing import Any, Final, get_args
from weakref import WeakSet

import msgspec

from keywright import limits
from keywright.credential import DUMMY_MAC
from keywright.errors import CallerError, Unavailable
from keywright.model import (
    Access,
    AccountState,
    Binding,
    KeyRecord,
    Keyspace,
    KeyState,
    Limit,
    SecretRecord,
)
from keywright.store.db import Database, Reader
from keywright.store.keyspaces import read as read_keyspace

#: How long a look-up waits for a database that somebody has locked whole, in seconds.
PATIENCE: Final = 0.25

_VERSION: Final = "PRAGMA data_version"
#: One statement, so that the key, its account, its secrets and the newest change are of one snapshot.
FIND: Final = """
SELECT k.keyspace, k.environment, k.account_id, a.username, a.state, k.name, k.access, k.scopes, k.state, k.expires_at,
       k.allowed_ips, k.limits, a.limits, k.team, k.application, k.plan, k.metadata, k.binding,
       s.n, s.mac, s.pepper, s.ends_at, s.starts_rotation, (SELECT max(seq) FROM changes)
FROM keys AS k
LEFT JOIN accounts AS a ON a.id = k.account_id
LEFT JOIN secrets AS s ON s.key_id = k.id
WHERE k.id = ? ORDER BY s.n DESC
"""
CHANGES: Final = "SELECT seq, kind, ref FROM changes WHERE seq > ? ORDER BY seq"
NEWEST: Final = "SELECT coalesce(max(seq), 0) FROM changes"
KEYSPACE: Final = (
    "SELECT definition, (SELECT coalesce(max(seq), 0) FROM changes) FROM keyspaces WHERE name = ?"
)
KEYSPACES: Final = "SELECT name, definition FROM keyspaces ORDER BY name"

_scopes = msgspec.json.Decoder(frozenset[str]).decode
_limits = msgspec.json.Decoder(tuple[Limit, ...]).decode
_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_binding = msgspec.json.Decoder(Binding).decode
_STATES: Final = frozenset(get_args(KeyState)) - {"expired"}
_ACCESS: Final = frozenset(get_args(Access))
_ACCOUNT_STATES: Final = frozenset(get_args(AccountState))
_NO_SCOPES: Final[frozenset[str]] = frozenset()


class Lookup:
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
            raise Unavailable(f"the store does not answer: {trouble}") from trouble
        return None if version == local.version else version

    def acknowledge(self, version: int) -> None:
        """Say that everything up to a data version has been acted upon, on this thread."""
        self._local.version = version

    def changes(self, after: int) -> list[tuple[int, str, str]]:
        """``(seq, kind, ref)`` of every change after one."""
        return self._all(CHANGES, after)

    def newest(self) -> int:
        """The newest change's number; 0 where there is none."""
        return int(self._all(NEWEST)[0][0])

    def find(self, key_id: bytes) -> KeyRecord | None:
        """Read a key by its id. A row that cannot be read makes that key ``Unavailable``, and only that one."""
        rows = self._all(FIND, key_id.decode("ascii"))
        if not rows:
            return None
        try:
            return _record(key_id.decode("ascii"), rows)
        except (msgspec.DecodeError, CallerError, TypeError, ValueError) as damaged:
            raise Unavailable(f"the row of a key cannot be read: {damaged}") from damaged

    def keyspace(self, name: str) -> tuple[Keyspace, int] | None:
        """Read a keyspace's definition, and the newest change that the read had seen."""
        rows = self._all(KEYSPACE, name)
        return None if not rows else (read_keyspace(rows[0][0]), rows[0][1])

    def keyspace_with_gate(self, gate: str) -> str | None:
        """The name of the keyspace that defines a gate."""
        for name, definition in self._all(KEYSPACES):
            if gate in read_keyspace(definition).gates:
                return str(name)
        return None

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
            raise Unavailable(f"the store does not answer: {trouble}") from trouble

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
            raise Unavailable(f"the store does not answer: {trouble}") from trouble
        local.version = None  # a connection counts from its own beginning
        local.connection = connection = local.reader.connection
        local.execute = connection.execute
        self._opened.add(local.reader)
        return connection


def _record(key_id: str, rows: list[Any]) -> KeyRecord:
    row = rows[0]
    own = tuple((f"key:{key_id}", limit) for limit in _sound_limits(row[11]))
    account = tuple((f"account:{row[2]}", limit) for limit in _sound_limits(row[12]))
    record = KeyRecord(
        id=key_id,
        keyspace=row[0],
        environment=row[1],
        account_id=row[2],
        account=row[3],
        account_state=row[4],
        name=row[5],
        access=row[6],
        scopes=_scopes(row[7]) if row[7] != "[]" else _NO_SCOPES,
        state=row[8],
        expires_at=row[9],
        networks=tuple(ip_network(text) for text in _texts(row[10])) if row[10] != "[]" else (),
        limits=own + account,
        secrets=tuple(SecretRecord(r[18], r[19], r[20], r[21], r[22] != 0) for r in rows),
        team=row[13],
        application=row[14],
        plan=row[15],
        metadata=row[16],
        binding=None if row[17] is None else _binding(row[17]),
        seq=row[23] or 0,
    )
    _check(record)
    return record


def _sound_limits(text: str) -> tuple[Limit, ...]:
    return () if text == "[]" else limits.read(_limits(text))


def _check(record: KeyRecord) -> None:
    """Hold a row to what only a damaged one breaks. Raises ``ValueError``: such a key is refused for our trouble."""
    if (
        record.state not in _STATES
        or record.access not in _ACCESS
        or record.account_state not in _ACCOUNT_STATES
    ):
        raise ValueError("a state or an access is none that there is")
    if not all(
        type(text) is str for text in (record.name, record.environment, record.account, record.metadata)
    ):
        raise ValueError("a text is none")
    if not _is_instant(record.expires_at):
        raise ValueError("its end is no instant")
    for secret in record.secrets:
        if type(secret.n) is not int or type(secret.mac) is not bytes or len(secret.mac) != len(DUMMY_MAC):
            raise ValueError("a secret is missing or is no MAC")
        if type(secret.pepper) is not int or not _is_instant(secret.ends_at):
            raise ValueError("a secret's version or end is no number")


def _is_instant(value: object) -> bool:
    return value is None or type(value) is int
