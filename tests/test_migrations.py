"""The schema: what the migrations make, what this version expects, and what it refuses to touch."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from child import Child
from conftest import sql
from keywright import Keywright, SchemaTrouble
from keywright.store import migrate
from keywright.store.db import Database
from keywright.store.schema import FILES, HEADS, METADATA
from people import begin


def as_first_made(database: Database) -> None:
    """Bring the keys file back to what its first migration made."""
    with database.write() as tx:
        for table in ("portal_sessions", "identities", "imported"):
            sql(tx, f"DROP TABLE {table}")
        for table, column in (
            ("people", "operator_grouped_at"),
            ("memberships", "grouped_at"),
            ("sessions", "issuer"),
            ("sessions", "factor_at"),
        ):
            sql(tx, f"ALTER TABLE {table} DROP COLUMN {column}")
        sql(tx, "UPDATE schema_keys SET version_num = '0001'")


@pytest.mark.stores
@pytest.mark.parametrize("which", FILES)
def test_the_migrations_make_what_the_schema_says(kw: Keywright, which: str) -> None:
    """A migrated file differs in nothing from the tables that the code is written against."""
    with kw.installation.database.read(which) as connection:
        here = connection.dialect.name

        def ours(thing: Any, name: str, kind: str, reflected: bool, _other: Any) -> bool:
            if kind == "table":  # PostgreSQL's one database holds those of all three
                return not reflected or name in METADATA[which].tables
            return bool(thing.info.get("only", here) == here)

        context = MigrationContext.configure(
            connection,
            opts={"version_table": f"schema_{which}", "compare_type": True, "include_object": ours},
        )
        assert compare_metadata(context, METADATA[which]) == []


@pytest.mark.parametrize("which", FILES)
def test_the_heads_are_the_newest_migrations(which: str) -> None:
    """The versions that the code knows are those of the newest migration scripts."""
    config = Config()
    config.set_main_option("script_location", "keywright.store:migrations")
    config.set_main_option("version_locations", f"keywright.store:migrations/{which}")
    config.set_main_option("path_separator", "newline")

    assert ScriptDirectory.from_config(config).get_heads() == [HEADS[which]]


@pytest.mark.security("R-30")
@pytest.mark.parametrize("which", FILES)
def test_a_newer_schema_is_refused_and_left_alone(kw: Keywright, tmp_path: Path, which: str) -> None:
    """A database that a newer version has migrated is refused in one line, and not a byte of any file changes."""
    kw.close()
    with sqlite3.connect(kw.installation.database.file(which)) as connection:
        connection.execute(f"UPDATE schema_{which} SET version_num = '9999'")
    connection.close()
    before = _bytes(tmp_path)

    with pytest.raises(SchemaTrouble, match="made by a newer Keywright") as refusal:
        Keywright(kw.installation.database.url)

    assert "\n" not in str(refusal.value)
    assert _bytes(tmp_path) == before


@pytest.mark.parametrize("content", ["tables", "noise"])
def test_something_else_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    """A file that is somebody else's database, or none, is refused in one line; it stays as it is, and nothing joins it."""
    file = tmp_path / "theirs.db"
    if content == "noise":
        file.write_bytes(b"certainly not a database " * 100)
    else:
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE films (title TEXT)")
        connection.close()
    before = _bytes(tmp_path)

    with pytest.raises(SchemaTrouble) as refusal:
        Keywright(f"sqlite:///{file}")

    assert "\n" not in str(refusal.value)
    assert _bytes(tmp_path) == before


def test_two_processes_may_migrate_at_once(tmp_path: Path) -> None:
    """Several processes that open the same new database at the same time all succeed, on one secret."""
    with Child("open", "") as one, Child("open", "") as two, Child("open", "") as three:
        for attempt in range(8):
            url = f"sqlite:///{tmp_path / f'{attempt}.db'}"
            for child in (one, two, three):
                child.send(url=url)
            assert [child.hear() for child in (one, two, three)] == [{"opened": True, "canaries": [1]}] * 3
            with Keywright(url) as kw:
                assert kw.installation.trail.verify() is None


@pytest.mark.stores
def test_people_of_an_earlier_version_go_on(kw: Keywright) -> None:
    """A database of 0.1 with people in it is brought up to date: who is in stays in, comes by no provider, and holds what
    they held by a hand."""
    token, session = begin(kw, "operator", email="op@example.com")
    begin(kw, "admin")
    database = kw.installation.database
    as_first_made(database)

    assert migrate.migrate(database)

    assert kw.installation.sessions.find(token) == session
    people = {one.email: one for one in kw.installation.people.list().items}
    assert [one.identities for one in people.values()] == [(), ()]
    assert not people["op@example.com"].operator_by_groups
    assert [held.by_groups for held in people["admin@globex.example"].memberships] == [False]
    assert not migrate.migrate(database)


def _bytes(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}
