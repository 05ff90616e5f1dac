"""The hot look-ups: what a verification reads of the store, whichever the store is.

Two answer: ``sqlite_lookup`` inline, ``postgres_lookup`` across a network and so in both colours. What they share is
here: the statements' columns, and how rows become a record.
"""

from functools import lru_cache
from ipaddress import ip_network
from sys import intern
from typing import Any, Final, Protocol, get_args

import msgspec

from keywright import limits
from keywright.credential import MAC_BYTES
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
    Terms,
)
from keywright.store.keyspaces import read as read_keyspace

#: One statement, so that the key, its account and its secrets are of one snapshot.
_KEYS: Final = """
SELECT k.keyspace, k.environment, k.account_id, a.username, a.state, k.name, k.access, k.scopes, k.state, k.expires_at,
       k.allowed_ips, k.limits, a.limits, k.team, k.application, k.plan, k.metadata, k.binding,
       s.n, s.mac, s.pepper, s.ends_at, s.starts_rotation, k.disabled_until, k.id
FROM keys AS k
LEFT JOIN accounts AS a ON a.id = k.account_id
LEFT JOIN secrets AS s ON s.key_id = k.id
"""
FIND: Final = f"{_KEYS}WHERE k.id = ? ORDER BY s.n DESC"
#: The key that the tag of an imported credential leads to.
FIND_IMPORTED: Final = f"{_KEYS}JOIN imported AS i ON i.key_id = k.id WHERE i.tag = ? ORDER BY s.n DESC"
#: Several at once, where the store knows arrays; the last column says whose row it is.
FIND_SEVERAL: Final = f"{_KEYS}WHERE k.id = ANY(?) ORDER BY k.id, s.n DESC"
#: The changes after one, which is given twice. Announcements are trimmed from the oldest on (``store.changes``): to whoever is
#: behind what is left, the newest says besides that ``all`` may have changed. One statement, so one state of the table.
CHANGES: Final = (
    "SELECT seq, kind, ref FROM changes WHERE seq > ? UNION ALL "
    "SELECT (SELECT max(seq) FROM changes), 'all', '' WHERE (SELECT min(seq) FROM changes) - 1 > ? ORDER BY seq"
)
NEWEST: Final = "SELECT coalesce(max(seq), 0) FROM changes"
KEYSPACE: Final = (
    "SELECT definition, (SELECT coalesce(max(seq), 0) FROM changes) FROM keyspaces WHERE name = ?"
)
KEYSPACES: Final = "SELECT name, definition FROM keyspaces ORDER BY name"

Found = tuple[Keyspace, int]  # and the newest change that the read had seen

_scopes = msgspec.json.Decoder(frozenset[str]).decode
_limits = msgspec.json.Decoder(tuple[Limit, ...]).decode
_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_binding = msgspec.json.Decoder(Binding).decode
_STATES: Final = frozenset(get_args(KeyState)) - {"expired"}
_ACCESS: Final = frozenset(get_args(Access))
_ACCOUNT_STATES: Final = frozenset(get_args(AccountState))


class Lookup(Protocol):
    """Reads what a verification needs. Every method may raise ``Unavailable``."""

    statements: int  # asked so far, besides the version checks; for those who count

    def changes(self, after: int) -> list[tuple[int, str, str]]:
        """``(seq, kind, ref)`` of every change after one; of kind ``all`` where some of them are no longer told."""

    def newest(self) -> int:
        """The newest change's number; 0 where there is none."""

    def find(self, key_id: bytes) -> KeyRecord | None:
        """Read a key by its id. A row that cannot be read makes that key ``Unavailable``, and only that one."""

    def find_imported(self, tag: bytes) -> KeyRecord | None:
        """Read the key that the tag of an imported credential leads to."""

    def keyspace(self, name: str) -> Found | None:
        """Read a keyspace's definition."""

    def keyspace_with_gate(self, gate: str) -> str | None:
        """The name of the keyspace that defines a gate."""

    def close(self) -> None:
        """Close every connection."""

    def before_fork(self) -> None:
        """Close what no child may inherit."""


class FarLookup(Lookup, Protocol):
    """A look-up whose answers come across a network: an event loop awaits them.

    ``seen`` is the newest change that the caller has acted upon. An answer that was asked for by somebody who had seen
    the same may be shared: between the two nothing has changed.
    """

    async def achanges(self, after: int) -> list[tuple[int, str, str]]:
        """``changes``, for an event loop."""

    async def afind(self, key_id: bytes, seen: int) -> KeyRecord | None:
        """``find``, for an event loop."""

    async def afind_imported(self, tag: bytes, seen: int) -> KeyRecord | None:
        """``find_imported``, for an event loop."""

    async def akeyspace(self, name: str, seen: int) -> Found | None:
        """``keyspace``, for an event loop."""

    async def akeyspace_with_gate(self, gate: str, seen: int) -> str | None:
        """``keyspace_with_gate``, for an event loop."""

    def after_fork(self) -> None:
        """Begin anew in a child."""


def record_of(key_id: bytes, rows: list[Any]) -> KeyRecord | None:
    """What the rows of ``FIND`` say; ``None`` where there are none. Raises ``Unavailable`` for damaged ones."""
    if not rows:
        return None
    try:
        return _record(key_id.decode("ascii"), rows)
    except (msgspec.DecodeError, CallerError, TypeError, ValueError) as damaged:
        raise Unavailable(f"the row of a key cannot be read: {damaged}") from damaged


def imported_of(rows: list[Any]) -> KeyRecord | None:
    """What the rows of ``FIND_IMPORTED`` say. Raises ``Unavailable`` for damaged ones."""
    return record_of(rows[0][-1].encode(), rows) if rows else None


def keyspace_of(rows: list[Any]) -> Found | None:
    """What the row of ``KEYSPACE`` says."""
    return None if not rows else (read_keyspace(rows[0][0]), rows[0][1])


def defining(gate: str, rows: list[Any]) -> str | None:
    """Which of ``KEYSPACES`` defines a gate."""
    for name, definition in rows:
        if gate in read_keyspace(definition).gates:
            return str(name)
    return None


def _record(key_id: str, rows: list[Any]) -> KeyRecord:
    row = rows[0]
    own = tuple((f"key:{key_id}", limit) for limit in _sound_limits(row[11]))
    account = tuple((f"account:{row[2]}", limit) for limit in _sound_limits(row[12]))
    record = KeyRecord(
        terms=_terms(row[8], row[0], row[1], row[4], row[6], row[7], row[10]),
        expires_at=row[9],
        limits=own + account,
        id=key_id,
        account_id=_shared(row[2]),
        account=_shared(row[3]),
        name=row[5],
        secrets=_secrets([(r[18], r[20], r[21], r[22] != 0) for r in rows]),
        macs=_macs([r[19] for r in rows]),
        team=row[13],
        application=row[14],
        plan=row[15],
        metadata=_shared(row[16]) if row[16] == "{}" else row[16],
        binding=None if row[17] is None else _binding(row[17]),
        disabled_until=row[23],
    )
    _check(record)
    return record


@lru_cache(maxsize=10_000)
def _terms(
    state: Any, keyspace: Any, environment: Any, account_state: Any, access: Any, scopes: str, networks: str
) -> Terms:
    """What many keys have in common, once in memory. Raises ``ValueError`` for what only a damaged row says."""
    if state not in _STATES or access not in _ACCESS or account_state not in _ACCOUNT_STATES:
        raise ValueError("a state or an access is none that there is")
    if type(keyspace) is not str or type(environment) is not str:
        raise ValueError("a text is none")
    held = tuple(ip_network(text) for text in _texts(networks))
    return Terms(state, keyspace, environment, account_state, access, _scopes(scopes), held)


def _shared(text: Any) -> Any:
    """A text that many keys have in common, once in memory: it is most of what a remembered key would take."""
    return intern(text) if type(text) is str else text


def _sound_limits(text: str) -> tuple[Limit, ...]:
    return () if text == "[]" else limits.read(_limits(text))


def _secrets(found: list[tuple[Any, Any, Any, bool]]) -> tuple[SecretRecord, ...]:
    """The secrets of a key, by number, pepper, end, and whether the first use ends those before it."""
    for n, pepper, ends_at, _ in found:
        if type(n) is not int or type(pepper) is not int or not _is_instant(ends_at):
            raise ValueError("a secret is missing, or its version or end is no number")
    return _usual(*found[0]) if len(found) == 1 else tuple(SecretRecord(*one) for one in found)


@lru_cache(maxsize=1_000)
def _usual(n: int, pepper: int, ends_at: int | None, starts_rotation: bool) -> tuple[SecretRecord, ...]:
    """The secrets of a key that has one, which is like that of many others, once in memory."""
    return (SecretRecord(n, pepper, ends_at, starts_rotation),)


def _macs(found: list[Any]) -> bytes:
    if not all(type(mac) is bytes and len(mac) == MAC_BYTES for mac in found):
        raise ValueError("a secret is no MAC")
    return b"".join(found)


def _check(record: KeyRecord) -> None:
    """Hold a row to what only a damaged one breaks. Raises ``ValueError``: such a key is refused for our trouble."""
    if not all(type(text) is str for text in (record.name, record.account, record.metadata)):
        raise ValueError("a text is none")
    if not _is_instant(record.expires_at) or not _is_instant(record.disabled_until):
        raise ValueError("its end, or its return, is no instant")


def _is_instant(value: object) -> bool:
    return value is None or type(value) is int
