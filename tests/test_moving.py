"""Moving house: an installation on SQLite, backed up and restored into PostgreSQL, is the same installation."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, select

from conftest import bearer, make, sql
from keywright import Conflict, Keywright, SchemaTrouble, SecretTrouble
from keywright.errors import CannotStart, KeywrightError
from keywright.installation import open_installation, restore
from keywright.store.audit import Head
from keywright.store.db import Database
from keywright.store.schema import FILES, METADATA
from keywright.testing import Clock
from postgres import SECRET, Server
from processes import run

EVERY = {"keyspace": "every", "environment": "production", "method": "GET"}


@pytest.fixture
def target(server: Server) -> Iterator[str]:
    """An empty database."""
    url = server.make()
    yield url
    server.drop(url)


def lived_in(kw: Keywright, clock: Clock) -> dict[str, tuple[Any, str]]:
    """An installation with keys in every state; each with what it is told here."""
    keys = {
        state: make(
            kw, name=state, team="sales", metadata={"ü": ["\\u0000", 1]}, limits=["9/day", "rate:5/10s"]
        )
        for state in ("plain", "used", "rotating", "disabled", "invalidated", "deleted", "expired")
    }
    kw.verify(bearer(keys["used"]), **EVERY, resource="/things")
    old = keys["rotating"]
    keys["new"] = kw.keys.rotate(old.key.id, grace_seconds=3600, start="first_use")
    kw.keys.edit(keys["expired"].key.id, expires_at=clock() + 1_000_000)
    kw.keys.disable(keys["disabled"].key.id)
    kw.keys.invalidate(keys["invalidated"].key.id, reason="leaked")
    kw.keys.delete(keys["deleted"].key.id)
    kw.keys.create_management(name="Managed", scopes=["verify"])
    kw.accounts.limit("globex", ["100/day"])
    kw.verify({}, keyspace="every", environment="production", resource="\0nul", method="\0")
    clock.advance(seconds=5)
    return {state: (key, kw.verify(bearer(key), **EVERY).code) for state, key in keys.items()}


def moved(kw: Keywright, tmp_path: Path, target: str) -> dict[str, Any]:
    """Back an installation up and restore it into another database."""
    kw.installation.backup(tmp_path / "copy.tar")
    return restore(target, tmp_path / "copy.tar", secret=_secret(kw), clock=kw.installation.clock)


def _secret(kw: Keywright) -> str:
    return kw.installation.database.secret_file.read_text().strip()


def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in the order of its columns."""
    found = {}
    for which in FILES:
        with database.read(which) as connection:
            for table in METADATA[which].sorted_tables:
                rows = [tuple(map(without_nul, row)) for row in connection.execute(select(table))]
                found[table.name] = sorted(rows, key=repr)
    return found


def without_nul(value: Any) -> Any:
    """What a stranger sent, as PostgreSQL's text can hold it."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


@pytest.mark.security("R-29")
def test_a_moved_installation_is_the_same(kw: Keywright, clock: Clock, tmp_path: Path, target: str) -> None:
    """Every key is told on PostgreSQL what it was told on SQLite, every row has arrived, and the trail holds to its head."""
    keys = lived_in(kw, clock)
    remaining = kw.verify(bearer(keys["plain"][0]), **EVERY).limits
    manifest = moved(kw, tmp_path, target)
    before = everything(kw.installation.database)
    number, _, mac = manifest["audit_head"].partition(":")

    with Keywright(target, secret=_secret(kw), clock=clock) as there:
        after = everything(there.installation.database)
        assert after == before
        assert len(after["refusals"]) > 0
        assert there.installation.trail.verify(Head(int(number), mac)) is None
        for state, (key, code) in keys.items():
            assert there.verify(bearer(key), **EVERY).code == code, state
        spent = {
            limit.name: limit.remaining for limit in there.verify(bearer(keys["plain"][0]), **EVERY).limits
        }
        passed = (
            sum(code == "ok" for _, code in keys.values()) + 1
        )  # on globex's account, since they were told
        expected = {limit.name: limit.remaining - 2 for limit in remaining}
        assert spent == expected | {"account-quota-day": expected["account-quota-day"] + 2 - passed}
        made = make(there)
        assert there.verify(bearer(made), **EVERY).code == "ok"
        there.keys.invalidate(made.key.id)
        assert there.verify(bearer(made), **EVERY).code == "invalidated"
        there.verify({}, keyspace="every", environment="production")
        assert there.installation.refusals.list(limit=1).items[0].refusal.code == "missing"
        assert there.installation.trail.verify() is None


def test_the_numbers_go_on(kw: Keywright, clock: Clock, tmp_path: Path, target: str) -> None:
    """What a table numbers by itself is numbered on behind what was moved: a change after it is seen by every process."""
    lived_in(kw, clock)
    moved(kw, tmp_path, target)
    with Keywright(target, secret=_secret(kw), clock=clock) as there:
        with there.installation.database.read() as connection:
            newest = sql(connection, "SELECT max(seq) FROM changes").scalar_one()
        make(there)
        with there.installation.database.read() as connection:
            assert sql(connection, "SELECT max(seq) FROM changes").scalar_one() == newest + 1


@pytest.mark.parametrize("what", ["installation", "schema", "table"])
def test_only_an_empty_database_is_moved_into(
    kw: Keywright, tmp_path: Path, target: str, server: Server, what: str
) -> None:
    """A database that holds an installation, its tables or anybody else's is refused, and left as it is."""
    if what == "table":
        with open_and_write(target) as connection:
            sql(connection, "CREATE TABLE films (title TEXT)")
    else:
        open_installation(target, secret=SECRET, may_migrate=True).close()
    before = tables(target)

    with pytest.raises(Conflict, match="left as it is"):
        moved(kw, tmp_path, target)

    assert tables(target) == before


def open_and_write(url: str) -> Any:
    """A transaction on a database that is not ours yet."""
    return Database(url).migrating("keys")


def tables(url: str) -> dict[str, int]:
    """The tables of a database, and how many rows each has."""
    database = Database(url)
    with database.read() as connection:
        names = inspect(connection).get_table_names()
        return {name: sql(connection, f"SELECT count(*) FROM {name}").scalar_one() for name in names}


@pytest.mark.parametrize("secret", ["5e" * 32, "", None])
def test_a_wrong_secret_moves_nothing(kw: Keywright, tmp_path: Path, target: str, secret: str | None) -> None:
    """With another installation's secret, or none, nothing is moved, and one line says why."""
    make(kw)
    kw.installation.backup(tmp_path / "copy.tar")

    with pytest.raises(SecretTrouble) as refusal:
        restore(target, tmp_path / "copy.tar", secret=secret)

    assert "\n" not in str(refusal.value)
    assert tables(target) == {}


def test_a_newer_backup_is_not_moved(kw: Keywright, tmp_path: Path, target: str) -> None:
    """A backup that a newer version has made is refused, and the target stays empty."""
    with kw.installation.database.write("usage") as tx:
        sql(tx, "UPDATE schema_usage SET version_num = '9999'")

    with pytest.raises(SchemaTrouble, match="made by a newer Keywright"):
        moved(kw, tmp_path, target)

    assert tables(target) == {}


def test_a_trail_that_does_not_hold_is_not_moved(kw: Keywright, tmp_path: Path, target: str) -> None:
    """A backup whose audit trail somebody has changed is refused, and the target stays empty."""
    make(kw)
    with kw.installation.database.write() as tx:
        sql(tx, "DROP TRIGGER audit_no_update")
        sql(tx, "UPDATE audit SET actor_id = 'somebody' WHERE seq = 3")

    with pytest.raises(CannotStart, match="entry 3 was changed"):
        moved(kw, tmp_path, target)

    assert tables(target) == {}


def test_two_at_once(kw: Keywright, tmp_path: Path, target: str) -> None:
    """Of two that move into the same database at once one does, and the other is refused."""
    make(kw)
    kw.installation.backup(tmp_path / "copy.tar")
    said: list[object] = []

    def one() -> None:
        try:
            said.append(restore(target, tmp_path / "copy.tar", secret=_secret(kw)))
        except KeywrightError as refused:
            said.append(type(refused))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(map(str, said), key=len) == str(Conflict)
    assert sum(isinstance(item, dict) for item in said) == 1


def test_moving_by_command(kw: Keywright, tmp_path: Path, target: str, server: Server) -> None:
    """``restore`` names the database without its password, and one that does not answer is one line and 3."""
    kw.installation.backup(tmp_path / "copy.tar")
    around = {"KEYWRIGHT_SECRET": _secret(kw)}

    done = run("restore", "copy.tar", "--database", target, cwd=tmp_path, **around)
    assert (done.returncode, done.stderr) == (0, "")
    assert "keywright audit verify --head" in done.stdout
    again = run("restore", "copy.tar", "--database", target, cwd=tmp_path, **around)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    gone = run("restore", "copy.tar", "--database", "postgresql://x@127.0.0.1:1/x", cwd=tmp_path, **around)
    assert (gone.returncode, gone.stdout, gone.stderr.count("\n")) == (3, "", 1)
