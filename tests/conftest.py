"""The fixed cast, and what every test stands on.

globex    an active account: the owner of the keys that most tests use
initech   another active account: the stranger, who must never see or open what is globex's

The keyspaces are the six that ship and ``every``, which accepts all seven schemes at once.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from keywright import profiles
from keywright.installation import Keywright
from keywright.model import Issued
from keywright.testing import Clock, copied, fresh

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


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with the keyspaces and the cast, to copy."""
    directory = tmp_path_factory.mktemp("template")
    with fresh(directory, sources=(*(profiles.source(name) for name in profiles.SHIPPED), EVERY)) as kw:
        for username in ("globex", "initech"):
            kw.accounts.create(username)
        kw.installation.database.checkpoint()
    return directory


@pytest.fixture
def clock() -> Clock:
    """A clock that stands at half past noon and 30 seconds, 15 January 2027, until a test moves it."""
    return Clock()


@pytest.fixture
def kw(template: Path, tmp_path: Path, clock: Clock) -> Iterator[Keywright]:
    """A fresh installation of the test's own."""
    with copied(template, tmp_path, clock=clock) as opened:
        yield opened


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


def bearer(issued: Issued) -> dict[str, str]:
    """The headers of the bearer scheme for a key that was just made."""
    return {"Authorization": f"Bearer {issued.credential.token.reveal()}"}


# ------------------------------------------------------------------------------------- which rows does a test prove?


class Rows:
    """Collects, per test, the rows it is marked with and whether it passed; ``make requirements`` reads the file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows: dict[str, list[str]] = {}
        self._failed: set[str] = set()
        self._ran: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note the marks of every test."""
        for item in items:
            marked = [
                f"{'' if mark == 'requirement' else 'security '}{row}"
                for mark in ("requirement", "security")
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

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
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
        config.pluginmanager.register(Rows(Path(file)), "rows")
