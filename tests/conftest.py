"""The fixed cast, and what every test stands on.

globex    an active account: the owner of the keys that most tests use
initech   another active account: the stranger, who must never see or open what is globex's

The keyspaces are the six that ship and ``every``, which accepts all seven schemes at once.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, CursorResult

from keywright import profiles
from keywright.installation import Keywright, open_installation
from keywright.model import Issued, KeyRecord, Terms
from keywright.store import db, postgres_lookup, sqlite_lookup
from keywright.testing import Clock, copied, fresh
from postgres import SECRET, Server, served

EVERY = """
name = "every"
title = "Every"
schemes = ["bearer", "basic", "key_secret", "camel_pair", "key_user", "api_key_auth", "header"]
header = "X-Token"

[scopes]
"things:read" = { title = "Read things", reads = true }
"things:write" = { title = "Change things" }

[access]
classes = ["all", "read_only", "restricted"]
default = "all"

[plans.small]
title = "Small"
limits = ["5/day"]

[gates.shop]
environment = "production"
[[gates.shop.rules]]
path = "/things/*"
methods = ["GET"]
scopes = ["things:read"]
[[gates.shop.rules]]
path = "/things"
methods = ["POST"]
scopes = ["things:write"]
cost = 2
"""


SOURCES = (*(profiles.source(name) for name in profiles.SHIPPED), EVERY)
STORES = ("sqlite", "postgres")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked ``stores`` on both databases, but for what is marked ``sqlite_only``; the rest on SQLite."""
    if "store" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker
        both = marked("stores") is not None and marked("sqlite_only") is None
        metafunc.parametrize("store", STORES if both else STORES[:1], indirect=True)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with the keyspaces and the cast, to copy."""
    directory = tmp_path_factory.mktemp("template")
    with fresh(directory, sources=SOURCES) as kw:
        for username in ("globex", "initech"):
            kw.accounts.create(username)
        kw.installation.database.checkpoint()
    return directory


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server, started when the first test asks for it."""
    with served() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(server: Server) -> Iterator[str]:
    """The same installation as ``template``, in a database of that server."""
    url = server.make()
    open_installation(url, secret=SECRET, may_migrate=True).close()
    with Keywright(url, secret=SECRET, clock=Clock()) as kw:
        for source in SOURCES:
            kw.keyspaces.apply(source)
        for username in ("globex", "initech"):
            kw.accounts.create(username)
    yield url
    server.drop(url)


@pytest.fixture(autouse=True)
def patient(request: pytest.FixtureRequest) -> Iterator[None]:
    """A store that is slow since the machine has much to do is waited for, but by tests marked ``impatient``."""
    with pytest.MonkeyPatch.context() as patch:  # the test's own would last until all else is taken down
        if request.node.get_closest_marker("impatient") is None:
            patch.setitem(db._PATIENCE, "spend", 30.0)
            patch.setattr(postgres_lookup, "PATIENCE", 30.0)
            patch.setattr(sqlite_lookup, "PATIENCE", 30.0)
        yield


@pytest.fixture
def clock() -> Clock:
    """A clock that stands at half past noon and 30 seconds, 15 January 2027, until a test moves it."""
    return Clock()


class Store(Protocol):
    """Where a test's installation lies."""

    def __call__(self, clock: Clock) -> Keywright:
        """Open it."""


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A fresh installation of the test's own, to be opened: on SQLite, or on PostgreSQL."""
    if request.param == "sqlite":
        template = request.getfixturevalue("template")
        yield lambda clock: copied(template, tmp_path, clock=clock)
        return
    server: Server = request.getfixturevalue("server")
    url = server.lend(request.getfixturevalue("postgres_template"))
    yield lambda clock: Keywright(url, secret=SECRET, clock=clock)


@pytest.fixture
def kw(store: Store, clock: Clock) -> Iterator[Keywright]:
    """A fresh installation of the test's own."""
    with store(clock) as opened:
        yield opened


@pytest.fixture
def postgres_kw(server: Server, postgres_template: str, clock: Clock) -> Iterator[Keywright]:
    """A fresh installation of the test's own, on PostgreSQL."""
    url = server.lend(postgres_template)
    with Keywright(url, secret=SECRET, clock=clock) as opened:
        yield opened


def again(kw: Keywright, **over: Any) -> Keywright:
    """The same installation, opened once more, as another process would."""
    database = kw.installation.database
    return Keywright(
        database.url, **({"clock": Clock(), "secret": None if database.is_sqlite else SECRET} | over)
    )


def sql(connection: Connection, statement: str, *parameters: Any) -> CursorResult[Any]:
    """Run a statement whose places are ``?``, on either database."""
    if connection.dialect.name != "sqlite":
        statement = statement.replace("?", "%s")
    return connection.exec_driver_sql(statement, parameters)


@pytest.fixture
def key(kw: Keywright) -> Issued:
    """A key of globex in ``every``, production, that may do all."""
    return make(kw)


def make(kw: Keywright, **over: object) -> Issued:
    """Make a key with good defaults: globex's, in ``every``, production, access all."""
    fields: dict[str, object] = {
        "keyspace": "every",
        "account": "globex",
        "environment": "production",
        "name": "CRM sync",
        "access": "all",
    }
    return kw.keys.create(**(fields | over))  # type: ignore[arg-type]


def altered(record: KeyRecord, **over: object) -> KeyRecord:
    """A record of a key, but for what is said, of what it has in common with others too."""
    common = {name: over.pop(name) for name in Terms.__struct_fields__ if name in over}
    return replace(record, terms=replace(record.terms, **common), **over)


def bearer(issued: Issued) -> dict[str, str]:
    """The headers of the bearer scheme for a key that was just made."""
    return {"Authorization": f"Bearer {issued.credential.token.reveal()}"}


# ------------------------------------------------------------------------------------- which rows does a test prove?


class Rows:
    """Collects, per test, the rows it is marked with and whether it passed; ``make requirements`` reads the file."""

    def __init__(self, file: Path, config: pytest.Config) -> None:
        self._file = file
        #: where several processes run the tests: what this one tells the one that waits for all
        self._told: dict[str, Any] | None = getattr(config, "workeroutput", None)
        self._rows: dict[str, list[str]] = {}
        self._failed: set[str] = set()
        self._ran: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note the marks of every test."""
        for item in items:
            marked = [
                f"{'' if mark == 'requirement' else f'{mark} '}{row}"
                for mark in ("requirement", "security", "screen")
                for found in item.iter_markers(mark)
                for row in found.args
            ]
            if marked:
                self._rows[item.nodeid] = marked

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what became of a test; a skipped one proves nothing."""
        if report.when == "call" and report.passed:
            self._ran.add(report.nodeid)
        if not report.passed:
            self._failed.add(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what another process saw."""
        rows, ran, failed = node.workeroutput["rows"]
        self._rows |= rows
        self._ran |= set(ran)
        self._failed |= set(failed)

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
        if self._told is not None:
            self._told["rows"] = self._rows, sorted(self._ran), sorted(self._failed)
            return
        found: dict[str, dict[str, object]] = {}
        for test, rows in sorted(self._rows.items()):
            passed = test in self._ran and test not in self._failed
            for row in rows:
                entry = found.setdefault(row, {"tests": [], "passed": True})
                entry["tests"].append(test)  # type: ignore[attr-defined]
                entry["passed"] = bool(entry["passed"]) and passed
        self._file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Collect rows where ``make requirements`` asks for them."""
    file = os.environ.get("KEYWRIGHT_ROWS")
    if file:
        config.pluginmanager.register(Rows(Path(file), config), "rows")
