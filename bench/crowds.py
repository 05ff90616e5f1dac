"""Installations with many keys, put straight into the tables: 1,000,000 stored keys against 1,000, memory, cold look-ups.

The large one takes half a minute to make and is kept between runs, in a temporary directory under a name that changes
with the schema and with what a key looks like.
"""

import gc
import hashlib
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from figure import Figure
from keywright import Keywright, profiles
from keywright.credential import mac, spell_token
from keywright.model import Ask

ROUNDS = 15
STORED = (1_000, 1_000_000)
ACTIVE = 10_000
REMEMBERED = 100_000
COLD = 4_000
COLD_ROUNDS = 5
KEYS_OF_AN_ACCOUNT = 100
SECRET = "S" * 32
PLACE = {"keyspace": "default", "environment": "production"}
_MADE_OF = ("store/schema.py", "store/migrations/keys/0001_first.py", "credential.py", "keyring.py")

Requests = list[list[tuple[bytes, bytes]]]


def figures() -> list[Figure]:
    """All of them."""
    with _opened(STORED[0]) as few, _opened(STORED[1]) as many:
        some = [requests_of(stored, ACTIVE) for stored in STORED]
        for kw, requests in ((few, some[0]), (many, some[1])):
            _spin(kw, requests)
        rounds = [_spin(few, some[0]) / _spin(many, some[1]) for _ in range(ROUNDS)]
        cold = _cold(many)  # last: what it leaves in memory would be active besides
    with _opened(STORED[1]) as kw:
        kept = _memory(kw, requests_of(STORED[1], REMEMBERED))
    return [
        Figure(
            "throughput with 1,000,000 stored keys ÷ with 1,000; 10,000 active",
            statistics.median(rounds),
            "×",
            0.95,
            1,
        ),
        Figure("cold verification, SQLite with 1,000,000 keys, in-process", cold, "µs", 60, 25),
        Figure(f"memory per cached key, {REMEMBERED:,} keys", kept, "B", 1000, 400),
    ]


def asking() -> Ask:
    return Ask("default", "production", ("contacts:read",), "GET", metered=False)


def _spin(kw: Keywright, requests: Requests) -> float:
    """Microseconds of CPU per verification, in turn over all keys."""
    ask, verify, clock = asking(), kw.installation.engine.verify, kw.installation.clock
    began, times = time.process_time(), max(1, 20_000 // len(requests))
    for _ in range(times):
        for request in requests:
            verify(ask, request, clock())
    return (time.process_time() - began) / (times * len(requests)) * 1e6


def _cold(kw: Keywright) -> float:
    """Microseconds of CPU per verification of a key that this process has never seen, from all over the file."""
    step = STORED[1] // COLD
    ask, verify, clock = asking(), kw.installation.engine.verify, kw.installation.clock
    rounds = []
    for offset in range(COLD_ROUNDS):
        requests = [request_of(n * step + 7 + offset) for n in range(COLD)]
        assert verify(ask, requests.pop(), clock()).valid
        began = time.process_time()
        for request in requests:
            verify(ask, request, clock())
        rounds.append((time.process_time() - began) / len(requests) * 1e6)
    return statistics.median(rounds)


def _memory(kw: Keywright, requests: Requests) -> float:
    """Bytes that the cache takes for each key, as Python counts what it has allocated."""
    ask, verify, clock = asking(), kw.installation.engine.verify, kw.installation.clock
    verify(ask, requests[0], clock())
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for request in requests:
        verify(ask, request, clock())
    gc.collect()
    kept = (tracemalloc.get_traced_memory()[0] - before) / len(requests)
    tracemalloc.stop()
    assert len(kw.installation.cache) >= len(requests)
    return kept


def _id(number: int) -> str:
    """Ids as random as real ones are, so that neighbours in the file are not neighbours in time."""
    spread = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=8).hexdigest()[:15]
    return f"default_live_k{spread}"


def request_of(number: int) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {spell_token(_id(number), SECRET)}".encode())]


def requests_of(stored: int, wanted: int) -> Requests:
    """As many requests whatever is stored, each with memory of its own: what differs is what the engine remembers."""
    step = max(1, stored // wanted)
    return [request_of(number * step % stored) for number in range(wanted)]


@contextmanager
def _opened(stored: int) -> Iterator[Keywright]:
    with Keywright(f"sqlite:///{database_of(stored)}") as kw:
        yield kw


def database_of(stored: int) -> Path:
    """The database with so many keys, made where it is not there yet."""
    source = Path(profiles.__file__).parent.parent
    made_of = [Path(__file__), *(source / name for name in _MADE_OF)]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in made_of)).hexdigest()[:12]
    directory = Path(tempfile.gettempdir()) / f"keywright-bench-{os.getuid()}" / f"{stored}-{digest}"
    if not directory.exists():
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=directory.parent))
        try:
            _make(made / "keys.db", stored)
            made.rename(directory)
        except BaseException:
            shutil.rmtree(made)
            raise
    path = directory / "keys.db"
    path.read_bytes()  # a key that is new to us need not be new to the machine
    return path


def _make(path: Path, stored: int) -> None:
    with Keywright(f"sqlite:///{path}") as kw:
        kw.keyspaces.apply(profiles.source("default"))
        account = kw.accounts.create("globex")
        first = kw.keys.create(account="globex", name="Bench", access="all", **PLACE)
        pepper = kw.installation.keyring.peppers[kw.installation.keyring.current]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -500000")
        connection.execute("BEGIN")
        find = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN ('keys', 'secrets')"
        indexes = connection.execute(find).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        ids = sorted(map(_id, range(stored)))
        accounts = _accounts(connection, account.id, max(1, stored // KEYS_OF_AN_ACCOUNT))
        for table, name in (("keys", "id"), ("secrets", "key_id")):
            cursor = connection.execute(f"SELECT * FROM {table} WHERE {name} = ?", (first.key.id,))
            columns = [column[0] for column in cursor.description]
            row = dict(zip(columns, cursor.fetchone(), strict=True))
            marks = ", ".join("?" * len(row))
            connection.executemany(
                f"INSERT INTO {table} VALUES ({marks})", _rows(row, name, ids, pepper, accounts)
            )
        for _, made in indexes:
            connection.execute(made)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _accounts(connection: sqlite3.Connection, like: str, many: int) -> list[str]:
    """Make so many accounts like one; their ids, its own first."""
    cursor = connection.execute("SELECT * FROM accounts WHERE id = ?", (like,))
    row = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
    marks = ", ".join("?" * len(row))
    others = [row | {"id": f"{like}{n}", "username": f"globex{n}"} for n in range(1, many)]
    connection.executemany(
        f"INSERT INTO accounts VALUES ({marks})", [tuple(other.values()) for other in others]
    )
    return [like, *(other["id"] for other in others)]


def _rows(
    row: dict[str, Any], name: str, ids: list[str], pepper: bytes, accounts: list[str]
) -> Iterator[tuple[Any, ...]]:
    for place, key_id in enumerate(ids):
        own: dict[str, Any] = {name: key_id}
        if "account_id" in row:
            own["account_id"] = accounts[place % len(accounts)]
        if "mac" in row:
            own["mac"] = mac(pepper, key_id.encode(), SECRET.encode())
        yield tuple((row | own).values())
