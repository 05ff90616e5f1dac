"""A hundred thousand keys in one account: lists, searches and verifications work as they do with ten."""

import hmac
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.credential import mac, new_id, spell_token
from keywright.testing import Clock, copied

MANY = 100_000
EVERY = {"keyspace": "every", "environment": "production"}
SECRET = "S" * 32


def crowd_in(kw: Keywright, like: Issued, many: int) -> list[str]:
    """Insert copies of a key, whole and with MACs of their own, straight into the tables."""
    ids = [new_id("every", "live") for _ in range(many)]
    pepper, start = kw.installation.keyring.peppers[1], kw.installation.clock()
    kw.installation.database.close()
    with sqlite3.connect(kw.installation.database.path) as connection:
        rows = {}
        for table, key in (("keys", "id"), ("secrets", "key_id")):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            row = connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (like.key.id,)).fetchone()
            rows[table] = dict(zip(columns, row, strict=True))

        def keys() -> Iterator[tuple[Any, ...]]:
            for n, key_id in enumerate(ids):
                name, team = f"Integration {n:06}", f"team {n % 7}"
                over = {
                    "id": key_id, "name": name, "team": team, "created_at": start + n, "updated_at": start + n,
                    "state": "disabled" if n % 10 == 0 else "active",
                    "search": f"{key_id}\n{name}\n{team}\nneedle {n % 50_000}".lower(),
                }  # fmt: skip
                yield tuple((rows["keys"] | over).values())

        def secrets() -> Iterator[tuple[Any, ...]]:
            for key_id in ids:
                own = {"key_id": key_id, "mac": mac(pepper, key_id.encode(), SECRET.encode())}
                yield tuple((rows["secrets"] | own).values())

        for table, made in (("keys", keys()), ("secrets", secrets())):
            marks = ", ".join("?" * len(rows[table]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", made)
    connection.close()
    return ids


@pytest.fixture(scope="module")
def crowd(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Keywright, list[str]]]:
    """An installation in which globex has a hundred thousand keys, oldest first."""
    with copied(template, tmp_path_factory.mktemp("crowd"), clock=Clock()) as kw:
        yield kw, crowd_in(kw, make(kw), MANY)


#: What a list is narrowed to, and how many keys its first page of fifty then has.
LISTS: list[tuple[dict[str, Any], int]] = [
    ({}, 50),
    ({"sort": "-name"}, 50),
    ({"account": "globex"}, 50),
    ({"account": "globex", "sort": "name"}, 50),
    ({"account": "globex", "keyspace": "every", "state": "active"}, 50),
    ({"account": "globex", "state": "disabled"}, 50),
    ({"account": "globex", "team": "team 3"}, 50),
    ({"account": "globex", "q": "integration"}, 50),
    ({"account": "globex", "q": "needle 49999"}, 2),
    ({"account": "globex", "keyspace": "every", "q": "needle 49999"}, 2),
    ({"account": "globex", "keyspace": "every", "q": "nothing like it"}, 0),
    ({"account": "globex", "q": "nothing like it"}, 0),
    ({"account": "globex", "q": "nothing like it", "sort": "name"}, 0),
    ({"q": "nothing like it"}, 0),
    ({"account": "globex", "state": "invalidated"}, 0),
    ({"account": "globex", "application": "none of it"}, 0),
    ({"keyspace": "partna"}, 0),
    ({"account": "initech"}, 0),
]


@pytest.mark.requirement("A-10", "B-09")
def test_lists_and_searches_of_a_hundred_thousand(crowd: tuple[Keywright, list[str]]) -> None:
    """Every kind of list answers a page of what matches; what each took is printed, and judged by ``make bench``."""
    kw, ids = crowd
    for narrow, expected in LISTS:
        began = time.perf_counter()
        page = kw.keys.list(**narrow, limit=50)
        took = (time.perf_counter() - began) * 1000
        print(f"{took:8.1f} ms  {len(page.items):3}  {narrow}")  # noqa: T201  # the report, with -s
        assert len(page.items) == expected, narrow
    newest = kw.keys.list(account="globex", limit=3).items
    assert [key.id for key in newest] == [*reversed(ids[-3:])]
    assert [key.id for key in kw.keys.list(q=ids[77].upper()).items] == [ids[77]]
    assert [key.id for key in kw.keys.list(q=spell_token(ids[78], SECRET)).items] == [ids[78]]


def test_the_last_page_costs_what_the_first_does(crowd: tuple[Keywright, list[str]]) -> None:
    """A page far down the list is searched for by its place, not counted off."""
    kw, ids = crowd
    from keywright.store import keys

    with kw.installation.database.read() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        steps = []
        for after in (None, [kw.installation.clock() + 5, ids[5]]):
            counted = [0]

            def tick(counted: list[int] = counted) -> int:
                counted[0] += 1
                return 0

            raw.set_progress_handler(tick, 100)
            found = keys.page(connection, keys.Filter(account="globex"), 0, after=after, limit=5)
            raw.set_progress_handler(None, 0)
            steps.append(counted[0])
            assert len(found) == 5

    assert steps[1] <= steps[0] * 2 + 2


@pytest.mark.requirement("A-10", "B-24")
def test_a_verification_asks_as_much_as_with_ten(crowd: tuple[Keywright, list[str]], kw: Keywright) -> None:
    """Among a hundred thousand keys a cold verification asks the statements that it asks among ten, a warm one none."""
    few = [bearer(make(kw)) for _ in range(10)]
    big, ids = crowd
    many = [{"Authorization": f"Bearer {spell_token(ids[n], SECRET)}"} for n in range(5, MANY, MANY // 10)]
    asked = []
    for each, headers in ((kw, few), (big, many)):
        each.verify({}, **EVERY)  # knows the keyspace, acts upon what was created
        for _ in ("cold", "warm"):
            before = each.installation.lookup.statements
            assert {each.verify(one, **EVERY).code for one in headers} <= {"ok", "disabled"}
            asked.append(each.installation.lookup.statements - before)

    assert asked == [10, 0, 10, 0]


def test_the_verbs_touch_one_key(crowd: tuple[Keywright, list[str]]) -> None:
    """Editing, rotating, invalidating and deleting one of a hundred thousand does a bounded number of steps."""
    kw, ids = crowd
    verbs: list[Callable[[str], object]] = [
        lambda key: kw.keys.edit(key, name="one of many"),
        kw.keys.rotate,
        kw.keys.invalidate,
        kw.keys.delete,
        kw.keys.get,
    ]
    with kw.installation.database.read() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
    ticks = [0]

    def tick() -> int:
        ticks[0] += 1
        return 0

    raw.set_progress_handler(tick, 1000)
    for verb, key in zip(verbs, [ids[1]] * 4 + [ids[2]], strict=True):
        verb(key)
    raw.set_progress_handler(None, 0)

    assert ticks[0] < 20  # a scan of the table alone would be hundreds
    assert hmac.compare_digest(kw.keys.get(ids[2]).name, "Integration 000002")
