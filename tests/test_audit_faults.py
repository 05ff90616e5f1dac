"""No change without its entry: where the audit trail cannot be written, nothing has changed, and the answer is 503."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, select

from conftest import bearer, sql
from keywright import Issued, Keywright, Unavailable
from keywright.store.db import Database
from keywright.store.schema import METADATA
from people import PASSWORD, as_person, begin, linked
from surfaces import Door, manager, server
from test_management_api import MANAGED, MEMBERS, ROUTES, send
from test_roles import _fresh_things

pytestmark = pytest.mark.stores

#: What goes wrong when an entry is written: on PostgreSQL by the condition that the server itself gives it.
FAULTS = {"disk full": "53100", "locked": "55P03"}
#: Tables of what is counted, and of who is there.
_COUNTED = ("usage_", "refusals", "signals", "networks", "seen", "last_used", "flushed", "workers", "leases")
#: What must have been done first, so that there is something to undo.
UNDONE: dict[str, Callable[[Keywright, int], Any]] = {
    "POST /v1/accounts/{username}/activate": lambda kw, _: kw.accounts.suspend("globex"),
    "POST /v1/management-keys/{management_key_id}/enable": lambda kw, door: (
        kw.installation.management_keys.disable(MANAGED[door])
    ),
    "POST /v1/people/{person_id}/enable": lambda kw, door: kw.installation.people.disable(MEMBERS[door]),
    "POST /v1/people/{person_id}/dismiss": lambda kw, door: kw.installation.people.appoint(
        kw.installation.people.get(MEMBERS[door]).email
    ),
    "POST /v1/people/{person_id}/unlink": lambda kw, door: linked(kw, MEMBERS[door]),
}
CHANGING = sorted(
    name for name, route in ROUTES.items() if not name.startswith("GET ") and "/verify" not in name
)


@contextmanager
def unwritable(database: Database, fault: str) -> Iterator[list[str]]:
    """Let every entry fail, until the block ends; the acts whose entries were tried."""
    tried: list[str] = []
    engine = database._engine("keys")
    if not database.is_sqlite:
        with database.write() as tx:
            sql(tx, "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{FAULTS[fault]}'; END $$")  # fmt: skip
            sql(tx, "CREATE TRIGGER fails BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION fails()")

    def before(_connection: Any, cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        if not statement.startswith("INSERT INTO audit "):
            return
        tried.append(parameters["action"] if isinstance(parameters, dict) else parameters[5])
        if not database.is_sqlite:
            return
        if fault == "disk full":  # SQLite's own: the entry finds no room for a page
            pages = cursor.execute("PRAGMA page_count").fetchone()[0]
            cursor.execute(f"PRAGMA max_page_count = {pages}")
            cursor.execute("CREATE TABLE ballast AS SELECT zeroblob(100000)")
        raise sqlite3.OperationalError("database is locked" if fault == "locked" else "disk I/O error")

    event.listen(engine, "before_cursor_execute", before)
    try:
        yield tried
    finally:
        event.remove(engine, "before_cursor_execute", before)
        with database.write() as tx:
            if database.is_sqlite:
                sql(tx, "PRAGMA max_page_count = 1073741823")
            else:
                sql(tx, "DROP TRIGGER fails ON audit")
                sql(tx, "DROP FUNCTION fails")


def everything(kw: Keywright) -> dict[str, list[Any]]:
    """All that is kept, but for what is counted and what tells of sources."""
    kept = {}
    for which in ("keys", "usage"):
        with kw.installation.database.read(which) as connection:
            for table in METADATA[which].sorted_tables:
                if not table.name.startswith(_COUNTED):
                    kept[table.name] = _rows(connection, table)
    return kept


def _rows(connection: Connection, table: Any) -> list[Any]:
    return sorted(map(repr, connection.execute(select(table))))


@pytest.mark.security("A-14")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_change_whose_entry_cannot_be_written_did_not_happen(kw: Keywright, fault: str) -> None:
    """Each route that changes something is 503, and all is as it was; once there is room the same call does its work."""
    database, wrong = kw.installation.database, {}
    people = {True: as_person(kw, begin(kw, "operator")), False: manager(kw)}
    with Door(server(kw)) as door:
        for name in CHANGING:
            key_id, headers = _fresh_things(kw, door), people[ROUTES[name].operator]
            ROUTES[name].before(kw, key_id)
            UNDONE.get(name, lambda _kw, _door: None)(kw, id(door))
            before = everything(kw)
            with unwritable(database, fault) as tried:
                reply = send(door, name, headers, key_id)
            after = everything(kw)
            changed = [table for table in before if after[table] != before[table]]
            found = bool(tried), reply.status, reply.get("retry-after"), changed
            done = send(door, name, headers, key_id).status
            if found != (True, 503, "1", []) or done >= 300:
                wrong[name] = found, done
    assert wrong == {}
    assert kw.installation.trail.verify() is None


@pytest.mark.security("A-14")
@pytest.mark.parametrize("fault", FAULTS)
def test_no_door_is_opened_and_no_key_is_stopped_without_an_entry(
    kw: Keywright, key: Issued, fault: str
) -> None:
    """Signing in, a key's first use after a rotation, and the policy of a leak leave nothing where no entry can be written."""
    installation = kw.installation
    begin(kw, "owner", email="ana@globex.example")
    renewed = kw.keys.rotate(key.key.id, start="first_use", grace_seconds=0)
    installation.leaks.report([renewed.credential.token.reveal()])
    before = everything(kw)
    asked = {"keyspace": "every", "environment": "production", "method": "GET"}

    with unwritable(installation.database, fault) as tried:
        with pytest.raises(Unavailable):
            installation.sessions.sign_in("ana@globex.example", PASSWORD)
        assert kw.verify(bearer(renewed), **asked).code == "ok"
        assert kw.verify(bearer(key), **asked).code == "ok"
        with pytest.raises(Unavailable):
            installation.lookout.round()

    assert {"key.first_use", "key.leaked"} <= set(tried)
    after = everything(kw)
    assert [
        name for name in before if name not in ("failed_sign_ins", "watched") and after[name] != before[name]
    ] == []
    installation.lookout.round()
    assert kw.verify(bearer(renewed), **asked).code == "ok"
    assert kw.verify(bearer(key), **asked).code == "rotated"
    assert installation.trail.verify() is None
