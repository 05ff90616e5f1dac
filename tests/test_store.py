"""The store: what the statements cost, what the audit trail notices, and what a damaged row does."""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError

from conftest import bearer, make, sql
from keywright import Keywright, Unavailable
from keywright.credential import mac
from keywright.keyring import Keyring
from keywright.model import Actor
from keywright.store import audit, lookup
from keywright.store import db as databases
from keywright.store.db import Database
from keywright.testing import Clock
from people import member

pytestmark = pytest.mark.stores

EDITS = 1000
EVERY = {"keyspace": "every", "environment": "production"}


def plan(connection: Any, statement: str, *parameters: object) -> list[str]:
    """How SQLite would carry a statement out."""
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]


# ---------------------------------------------------------------------------------------------------- connections


def began(raw: Any) -> bool:
    """Whether a driver's connection is in a transaction."""
    if isinstance(raw, sqlite3.Connection):
        return raw.in_transaction
    return bool(raw.info.transaction_status != TransactionStatus.IDLE)


def test_a_read_leaves_nothing_open(kw: Keywright) -> None:
    """A connection goes back to the pool without a transaction, so that its next user sees what was written since."""
    database = kw.installation.database
    for _ in range(3):
        with database.read() as connection:
            seen = connection.exec_driver_sql("SELECT count(*) FROM keys").scalar_one()
            raw: Any = connection.connection.driver_connection
            assert began(raw)
        assert not began(raw)
        make(kw)
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM keys").scalar_one() == seen + 1


def test_a_block_that_raises_leaves_nothing_behind(kw: Keywright) -> None:
    """What a transaction wrote before it raised is gone, its lock too, and the next writer goes ahead."""

    def half() -> None:
        with kw.installation.database.write() as tx:
            tx.exec_driver_sql("DELETE FROM accounts")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert kw.accounts.get("globex").state == "active"
    make(kw)


@pytest.mark.sqlite_only("the write-ahead log")
def test_the_log_is_folded_and_cut(kw: Keywright, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write-ahead log is folded back once it is large, is cut by a later commit, and is not folded at each commit."""
    database = kw.installation.database
    log = database.path.with_name("test.db-wal")
    folded: list[int] = []
    fold = Database._checkpoint

    def noted(self: Database, which: str, connection: Any) -> None:
        before = log.stat().st_size
        fold(self, which, connection)
        if before > databases.CHECKPOINT_AT:
            folded.append(before)

    monkeypatch.setattr(Database, "_checkpoint", noted)
    with database.write() as tx:
        tx.exec_driver_sql("CREATE TABLE ballast (content BLOB)")
        tx.exec_driver_sql("INSERT INTO ballast VALUES (zeroblob(6000000))")
    for _ in range(10):
        make(kw)

    assert len(folded) <= 2
    assert log.stat().st_size < databases.CHECKPOINT_AT


@pytest.mark.sqlite_only("the file itself is damaged")
@pytest.mark.security("R-14")
def test_a_damaged_file_is_a_trouble_of_ours(kw: Keywright) -> None:
    """Where the file itself is damaged every verb says ``Unavailable``, and a verification ``unavailable``."""
    key = make(kw)
    kw.installation.database.checkpoint()
    kw.installation.database.close()
    kw.installation.lookup.close()
    with kw.installation.database.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (file.seek(0, os.SEEK_END) - 4096))
        file.seek(4096)
        file.write(b"\xa5" * 400_000)

    for verb in (lambda: kw.keys.get(key.key.id), kw.keys.list, lambda: make(kw)):
        with pytest.raises(Unavailable):
            verb()
    assert kw.verify(bearer(key), **EVERY).code == "unavailable"


# ------------------------------------------------------------------------------------------------ indexes are used


@pytest.mark.sqlite_only("as SQLite would carry it out")
def test_a_key_is_found_by_its_index(kw: Keywright) -> None:
    """The one statement of a cold verification searches by primary keys and scans no table."""
    reader = kw.installation.database.reader("keys")
    steps = plan(reader.connection, lookup.FIND, "acme_live_k000000000000000")
    imported = plan(reader.connection, lookup.FIND_IMPORTED, bytes(32))
    changed = plan(reader.connection, lookup.CHANGES, 0, 0)

    assert not [
        step
        for step in steps + imported
        if step.startswith("SCAN") and "(subquery" not in step and "changes" not in step
    ]
    assert len([step for step in steps if step.startswith("SEARCH")]) >= 3
    assert [step for step in changed if step.startswith("SCAN") and "CONSTANT ROW" not in step] == []


@pytest.mark.sqlite_only("as SQLite would carry it out")
@pytest.mark.parametrize("backwards", ["", "-"])
@pytest.mark.parametrize("order", ["created_at", "name"])
@pytest.mark.parametrize(
    "narrow",
    [
        {},
        {"account": "globex"},
        {"account": "globex", "keyspace": "every"},
        {"account": "globex", "q": "crm"},
        {"account": "globex", "keyspace": "every", "state": "active", "q": "crm"},
        {"parent": "acme_live_k000000000000000"},
    ],
)
def test_a_list_is_read_in_the_order_of_an_index(
    kw: Keywright, narrow: dict[str, str], order: str, backwards: str
) -> None:
    """No list reads the whole table to sort it: pages come in the order of an index, or of the few that match."""
    asked: list[tuple[str, Any]] = []
    with kw.installation.database.read() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
    raw.set_trace_callback(lambda text: asked.append((text, None)))
    make(kw)
    kw.keys.list(**narrow, sort=backwards + order, limit=10)  # type: ignore[arg-type]
    raw.set_trace_callback(None)

    statements = [text for text, _ in asked if text.startswith("SELECT keys.id") and "LIMIT" in text]
    assert statements
    for statement in statements:
        steps = plan(raw, statement)
        assert not [step for step in steps if step == "SCAN keys"], steps
        if "parent" not in narrow:
            assert not [step for step in steps if "TEMP B-TREE" in step], steps


@pytest.mark.sqlite_only("as SQLite would carry it out")
def test_what_is_forgotten_and_what_descends_is_found_by_an_index(kw: Keywright) -> None:
    """Creations past their day are searched by time and not scanned for, and so are a key's children by their parent."""
    reader = kw.installation.database.reader("keys")
    raw = reader.connection

    assert plan(raw, "DELETE FROM creations WHERE at <= ?", 0) == [
        "SEARCH creations USING INDEX creations_by_time (at<?)"
    ]
    found = plan(raw, "SELECT id FROM keys WHERE parent = ? AND state IN ('active', 'disabled')", "x")
    assert found[0] == "SEARCH keys USING INDEX keys_by_parent (parent=?)"
    reader.close()


# -------------------------------------------------------------------------------------------------------- key ids


@pytest.mark.security("K-09")
def test_ids_that_differ_in_case_are_different(kw: Keywright) -> None:
    """Two keys whose ids differ in the case of one letter each verify with their own secret, and only with it."""
    first = make(kw, name="upper")
    key_id = first.key.id
    twin_id = key_id[:-15] + key_id[-15:].swapcase()
    token = first.credential.token.reveal()
    secret = token[-38:-6].swapcase()
    keyring = kw.installation.keyring
    with kw.installation.database.write() as tx:
        for table, key in (("keys", "id"), ("secrets", "key_id")):
            columns = [column["name"] for column in inspect(tx).get_columns(table)]
            taken = ", ".join("?" if c in (key, "mac") else c for c in columns)
            values = (twin_id, mac(keyring.peppers[1], twin_id.encode(), secret.encode()))[: taken.count("?")]
            sql(tx, f"INSERT INTO {table} SELECT {taken} FROM {table} WHERE {key} = ?", *values, key_id)
    kw.keys.edit(twin_id, name="lower")

    from keywright.credential import spell_token

    for key, its_secret, name in ((key_id, token[-38:-6], "upper"), (twin_id, secret, "lower")):
        verdict = kw.verify({"Authorization": f"Bearer {spell_token(key, its_secret)}"}, **EVERY)
        assert verdict.key is not None
        assert (verdict.code, verdict.key.name) == ("ok", name)
    crossed = kw.verify({"Authorization": f"Bearer {spell_token(twin_id, token[-38:-6])}"}, **EVERY)
    assert crossed.code == "invalid"


# ------------------------------------------------------------------------------------------------ the audit trail


@pytest.fixture
def trail(kw: Keywright) -> Path:
    """A closed copy of a database with some sixty audit entries, its triggers dropped."""
    for n in range(12):
        key = make(kw, name=f"key {n}")
        kw.keys.edit(key.key.id, name=f"edited {n}")
        kw.keys.rotate(key.key.id)
        kw.keys.invalidate(key.key.id)
    kw.installation.database.checkpoint()
    kw.close()
    with sqlite3.connect(kw.installation.database.path) as connection:
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute("DROP TRIGGER audit_no_delete")
    connection.close()
    return kw.installation.database.path


@pytest.mark.parametrize(
    "verb", ["UPDATE audit SET action = 'nothing'", "DELETE FROM audit", "UPDATE audit SET at = at"]
)
def test_the_trail_is_append_only(kw: Keywright, verb: str) -> None:
    """The database itself refuses to change or remove an audit entry."""
    from sqlalchemy.exc import DBAPIError

    with pytest.raises(DBAPIError, match="append-only"), kw.installation.database.write() as tx:
        tx.exec_driver_sql(verb)

    assert kw.installation.trail.verify() is None


@pytest.mark.requirement("X-13")
def test_every_act_is_told_with_who_and_what(kw: Keywright) -> None:
    """Each verb leaves one entry with actor, source, action, target, account and request, and a refusal leaves none."""
    from keywright import Actor, Invalid

    actor = Actor("person", "person_1", "192.0.2.7", "req_1")
    key = make(kw, actor=actor).key.id
    for act in ("disable", "enable", "rotate", "invalidate", "delete"):
        getattr(kw.keys, act)(key, actor=actor)
    with pytest.raises(Invalid):
        make(kw, name="", actor=actor)

    told = kw.installation.trail.list(limit=6).items
    acts = ["create", "disable", "enable", "rotate", "invalidate", "delete"]
    assert [entry["action"] for entry in reversed(told)] == [f"key.{act}" for act in acts]
    for entry in told:
        assert (entry["actor_kind"], entry["actor_id"], entry["source"]) == (
            "person",
            "person_1",
            "192.0.2.7",
        )
        assert (entry["target_id"], entry["account"], entry["request_id"]) == (key, "globex", "req_1")
        assert entry["at"] == kw.installation.clock()


def test_a_whole_trail_verifies(kw: Keywright) -> None:
    """A trail that nobody touched holds, alone and against a head that was kept at any earlier time."""
    heads = []
    for _ in range(5):
        make(kw)
        heads.append(kw.installation.trail.head())

    assert kw.installation.trail.verify() is None
    assert [kw.installation.trail.verify(kept) for kept in heads] == [None] * 5


Edit = Callable[[sqlite3.Connection, random.Random, int], int]


def _change(connection: sqlite3.Connection, draw: random.Random, entries: int) -> int:
    seq = draw.randint(1, entries)
    column = draw.choice(
        [
            "at",
            "actor_kind",
            "actor_id",
            "source",
            "action",
            "target_id",
            "account",
            "detail",
            "request_id",
            "key_n",
            "mac",
        ]
    )
    value: object = draw.choice(["forged", b"\x00\xff", 17, "", "\u00e4", '{"a":1}'])
    if column == "key_n":
        value = draw.choice([2, 77])
    connection.execute(
        f"UPDATE audit SET {column} = ? WHERE seq = ? AND {column} IS NOT ?", (value, seq, value)
    )
    return seq if connection.execute("SELECT changes()").fetchone()[0] else _change(connection, draw, entries)


def _remove(connection: sqlite3.Connection, draw: random.Random, entries: int) -> int:
    seq = draw.randint(1, entries)
    connection.execute("DELETE FROM audit WHERE seq = ?", (seq,))
    return seq


def _remove_and_close_up(connection: sqlite3.Connection, draw: random.Random, entries: int) -> int:
    seq = draw.randint(1, entries - 1)
    connection.execute("DELETE FROM audit WHERE seq = ?", (seq,))
    connection.execute("UPDATE audit SET seq = -seq WHERE seq > ?", (seq,))
    connection.execute("UPDATE audit SET seq = -seq - 1 WHERE seq < 0")
    return seq


def _swap(connection: sqlite3.Connection, draw: random.Random, entries: int) -> int:
    one, two = sorted(draw.sample(range(1, entries + 1), 2))
    connection.execute("UPDATE audit SET seq = -1 WHERE seq = ?", (one,))
    connection.execute("UPDATE audit SET seq = ? WHERE seq = ?", (one, two))
    connection.execute("UPDATE audit SET seq = ? WHERE seq = -1", (two,))
    return one


def _cut_off(connection: sqlite3.Connection, draw: random.Random, entries: int) -> int:
    seq = draw.randint(1, entries)
    connection.execute("DELETE FROM audit WHERE seq >= ?", (seq,))
    if draw.random() < 0.5:  # the head is made to fit: only a head that was kept outside can tell
        mac = connection.execute("SELECT mac FROM audit WHERE seq = ?", (seq - 1,)).fetchone()
        connection.execute("UPDATE audit_head SET seq = ?, mac = ?", (seq - 1, mac[0] if mac else bytes(32)))
    return seq


def _lose_the_head(connection: sqlite3.Connection, draw: random.Random, entries: int) -> int:
    connection.execute(draw.choice(["DELETE FROM audit_head", "UPDATE audit_head SET mac = zeroblob(32)"]))
    return entries + 1


def _insert(connection: sqlite3.Connection, draw: random.Random, entries: int) -> int:
    like = draw.randint(1, entries)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(audit)")]
    taken = ", ".join(str(entries + 1) if column == "seq" else column for column in columns)
    connection.execute(f"INSERT INTO audit SELECT {taken} FROM audit WHERE seq = ?", (like,))
    connection.execute(
        "UPDATE audit_head SET seq = ?, mac = (SELECT mac FROM audit WHERE seq = ?)",
        (entries + 1, entries + 1),
    )
    return entries + 1


@pytest.mark.sqlite_only("edits in SQLite's own words")
@pytest.mark.security("A-13")
def test_every_edit_of_the_trail_is_found(trail: Path, tmp_path: Path) -> None:
    """Seeded random edits, removals, swaps, cuts and additions are each found, with the number of the first bad entry."""
    draw = random.Random(20270115)
    database = Database(f"sqlite:///{trail}")
    keyring = _keyring(database)
    with database.read() as connection:
        kept = audit.head(connection)
        assert audit.verify(connection, keyring, kept) is None
    edits: list[Edit] = [
        _change,
        _change,
        _remove,
        _remove_and_close_up,
        _swap,
        _cut_off,
        _lose_the_head,
        _insert,
    ]

    missed = []
    with database.write() as tx:
        raw = tx.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        for n in range(EDITS):
            edit = edits[n % len(edits)]
            tx.exec_driver_sql("SAVEPOINT untouched")
            expected = edit(raw, draw, kept.seq)
            broken = audit.verify(tx, keyring, kept)
            tx.exec_driver_sql("ROLLBACK TO untouched")
            if broken is None or broken.seq != expected:
                missed.append((n, edit.__name__, expected, broken))
        assert audit.verify(tx, keyring, kept) is None
    database.close()

    assert missed == []


@pytest.mark.sqlite_only("edits in SQLite's own words")
@pytest.mark.security("A-13")
def test_a_chain_made_without_the_key_is_found(trail: Path, kw: Keywright) -> None:
    """Somebody who writes a whole new trail, well chained under a key of their own, is found at its first entry."""
    database = Database(f"sqlite:///{trail}")
    keyring, theirs = _keyring(database), Keyring({1: bytes(range(32))})
    from keywright import Actor

    with database.write() as tx:
        tx.exec_driver_sql("DELETE FROM audit")
        tx.exec_driver_sql("UPDATE audit_head SET seq = 0, mac = zeroblob(32)")
        for _ in range(5):
            audit.append(tx, theirs, Actor("system", "x"), "key.create", ("key", "k"), 1)
        assert audit.verify(tx, theirs) is None
        broken = audit.verify(tx, keyring)
    database.close()

    assert broken is not None
    assert broken.seq == 1


def _keyring(database: Database) -> Keyring:
    from keywright.keyring import parse

    return parse(database.secret_file.read_text())


# ---------------------------------------------------------------------------------------------------- damaged rows

GARBAGE: tuple[object, ...] = (
    "", "[", "{}", "[1]", '["x"]', "null", "\x00", "all-of-it", '{"a":', "ä" * 50, b"\xff\xfe", b"\x00" * 32, -1, 2**62,
    1.5, '[{"name":"q","kind":"quota","limit":-1,"per":"day"}]', '[{"name":"q","kind":"rate","limit":5,"per":"day"}]',
    '[{"name":"q","kind":"quota","limit":5,"per":60}]', '["10.0.0.0/99"]', '{"account":7}',
)  # fmt: skip
#: What may not be told from a value that somebody meant.
MEANT = {
    "name",
    "description",
    "team",
    "application",
    "state_reason",
    "parent",
    "created_by",
    "search",
    "type",
}


@pytest.mark.sqlite_only("columns of PostgreSQL hold their own type only")
@pytest.mark.security("T-47", "R-36")
def test_a_damaged_row_stops_its_own_key_only(kw: Keywright, tmp_path: Path) -> None:
    """Garbage in any column of a key never raises and never says that the key is not valid; another key goes on."""
    good, bad = make(kw, limits=["1000000/month"]), make(kw, limits=["1000000/month"])
    columns = {}
    for table, key in (("keys", "id"), ("secrets", "key_id")):
        with kw.installation.database.read() as connection:
            rows = connection.exec_driver_sql(f"PRAGMA table_info({table})").all()
        columns |= {
            (table, row[1], key): row[2] for row in rows if row[1] not in (key, "account_id", "keyspace")
        }
    wrong = []
    for table, column, key in columns:
        where = f"WHERE {key} = '{bad.key.id}'"
        with kw.installation.database.read() as connection:
            kept = connection.exec_driver_sql(f"SELECT {column} FROM {table} {where}").scalar_one()
        for value in GARBAGE:
            _put(kw, f"UPDATE {table} SET {column} = ? {where}", value, bad.key.id)
            verdict = kw.verify(bearer(bad), **EVERY, scopes=["things:read"])
            fine = {"ok", "unavailable"} | _plausible(column, value)
            if verdict.code not in fine or not kw.verify(bearer(good), **EVERY):
                wrong.append((table, column, value, verdict.code, verdict.reason))
            kw.answer(verdict)
        _put(kw, f"UPDATE {table} SET {column} = ? {where}", kept, bad.key.id)
        assert kw.verify(bearer(bad), **EVERY).code == "ok", column

    assert wrong == []


def _plausible(column: str, value: object) -> set[str]:
    """What a value that could have been meant may lead to."""
    if column in ("expires_at", "ends_at") and isinstance(value, int):
        return {"expired", "rotated"}
    return {
        "environment": {"wrong_environment"},
        "access": {"insufficient_scope"} if value == "restricted" else set(),
        "allowed_ips": {"ip_not_allowed"},
        "mac": {"invalid"} if value == b"\x00" * 32 else set(),
        "plan": {"unavailable"},
    }.get(column, set())


def _put(kw: Keywright, statement: str, value: object, key_id: str) -> None:
    with kw.installation.database.write() as tx:
        tx.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        try:
            tx.exec_driver_sql(statement, (value,))
        except DBAPIError:  # the database itself would not have such a value
            return
        tx.exec_driver_sql("INSERT INTO changes (kind, ref, at) VALUES ('key', ?, 0)", (key_id,))


@pytest.mark.sqlite_only("PostgreSQL keeps foreign keys whoever writes")
@pytest.mark.security("T-47")
def test_a_row_without_its_account_or_its_secrets_is_unavailable(kw: Keywright) -> None:
    """A key whose account or secrets are gone from the tables is a trouble of ours, not an unknown key."""
    keys = make(kw), make(kw)
    with kw.installation.database.write() as tx:
        sql(tx, "DELETE FROM secrets WHERE key_id = ?", keys[0].key.id)
    raw = sqlite3.connect(kw.installation.database.path)  # foreign keys are off here
    raw.execute("UPDATE keys SET account_id = 'gone' WHERE id = ?", (keys[1].key.id,))
    raw.commit()
    raw.close()

    assert [kw.verify(bearer(key), **EVERY).code for key in keys] == ["unavailable"] * 2


@pytest.mark.security("T-47")
def test_a_damaged_row_in_a_list_is_said_with_its_id(kw: Keywright) -> None:
    """A list that meets a row it cannot read names it, as a trouble of ours; other accounts' lists go on."""
    bad = make(kw)
    make(kw, account="initech")
    with kw.installation.database.write() as tx:
        sql(tx, "UPDATE keys SET limits = '[' WHERE id = ?", bad.key.id)

    with pytest.raises(Unavailable, match=bad.key.id):
        kw.keys.list(account="globex")
    with pytest.raises(Unavailable, match=bad.key.id):
        kw.keys.get(bad.key.id)
    assert len(kw.keys.list(account="initech").items) == 1


@pytest.mark.security("T-47", "R-36")
@pytest.mark.parametrize("finding", ["maker_lost_rights", "unused", "all_access"])
@pytest.mark.parametrize("column", ["scopes", "binding"])
def test_a_damaged_row_hides_no_other_from_hygiene(
    kw: Keywright, clock: Clock, finding: str, column: str
) -> None:
    """What is found among the keys is found beside one that cannot be read, wherever that one is no finding itself."""
    owner = member(kw, "owner")
    actor = Actor("person", owner.id)
    found = make(kw, access="all", actor=actor).key.id
    clock.advance(seconds=1)
    bad = make(kw, access="restricted", scopes=["things:read"], actor=actor)
    clock.advance(days=31)
    kw.verify(bearer(bad), **EVERY, scopes=["things:read"])
    kw.installation.meter.settle()
    kw.installation.people.change_role(owner.id, account="globex", role="analyst")
    with kw.installation.database.write() as tx:
        sql(tx, f"UPDATE keys SET {column} = '[' WHERE id = ?", bad.key.id)

    assert [key.id for key in kw.keys.list(hygiene=finding).items] == [found]


def test_a_damaged_keyspace_stops_its_own_keys_only(kw: Keywright) -> None:
    """Where a keyspace's definition cannot be read, its keys are ``unavailable`` and those of another go on."""
    mine, other = make(kw), make(kw, keyspace="partna")
    with kw.installation.database.write() as tx:
        tx.exec_driver_sql("UPDATE keyspaces SET definition = '{' WHERE name = 'every'")
        tx.exec_driver_sql("INSERT INTO changes (kind, ref, at) VALUES ('keyspace', 'every', 0)")

    verdict = kw.verify(bearer(mine), **EVERY)
    assert verdict.code == "unavailable"
    assert kw.answer(verdict).status == 503
    headers = {"x-api-key": other.credential.token.reveal(), "x-api-user": "globex"}
    assert kw.verify(headers, keyspace="partna", environment="production").code == "ok"


def test_a_copy_of_the_template_is_whole(template: Path, tmp_path: Path) -> None:
    """A copy of a closed installation's files opens and verifies: nothing of it lives anywhere else."""
    for file in template.glob("test.*"):
        shutil.copy2(file, tmp_path / file.name)
    with Keywright(f"sqlite:///{tmp_path / 'test.db'}") as kw:
        assert kw.installation.trail.verify() is None
