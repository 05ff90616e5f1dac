"""After the whole run: no secret that was issued in it stands in any file that it left behind.

Every secret that this process draws is remembered. When all tests are done, each file under the run's temporary directory
is searched for each of them: as it is, inside base64, and as a plain SHA-256, in hex or as a stored MAC. A find fails the
run. A test writes a credential on purpose only into an env file, or into a snippet that it then runs.
"""

import hashlib
import re
import sqlite3
from base64 import b64decode
from binascii import Error
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from keywright import credential

_RUN = re.compile(rb"[0-9A-Za-z]{32,}")
_BASE64 = re.compile(rb"[0-9A-Za-z+/]{44,}={0,2}")
_HEX = re.compile(rb"[0-9a-f]{64}")

#: The files that hold a credential on purpose.
MEANT = (".env", ".mjs", ".py")
#: The test that plants a plain SHA-256 in a database, to see that it opens nothing.
PLANTED = "test_a_row_planted"

issued: set[bytes] = set()
_found: list[str] = []
_swept = 0
_elsewhere = 0  # secrets that other processes of the run have issued


def pytest_configure() -> None:
    """Remember what is drawn."""
    draw = credential.new_secret

    def remembered() -> str:
        secret = draw()
        issued.add(secret.encode())
        return secret

    credential.new_secret = remembered


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search everything; a find fails the run."""
    global _swept  # noqa: PLW0603  # told at the very end
    if _found and not issued:  # in other processes
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    base: Path | None = getattr(getattr(session.config, "_tmp_path_factory", None), "_basetemp", None)
    if base is None or not issued:
        return
    digests = {hashlib.sha256(secret).digest() for secret in issued}
    for file in sorted(base.rglob("*")):
        if file.is_symlink() or not file.is_file() or file.name.endswith(MEANT) or PLANTED in str(file):
            continue
        _swept += 1
        _found.extend(f"{file.relative_to(base)}: {how}" for how in search(file, digests))
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:  # one of several processes (pytest-xdist): the first one tells
        output["sweep"] = (_found, _swept, len(issued))
    elif _found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take over what one of several processes has found."""
    global _swept, _elsewhere  # told at the very end
    output: dict[str, tuple[list[str], int, int]] = getattr(node, "workeroutput", {})
    found, swept, issued_there = output.get("sweep", ([], 0, 0))
    _found.extend(found)
    _swept, _elsewhere = _swept + swept, _elsewhere + issued_there


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what came of it."""
    if _found:
        terminalreporter.section("secrets that were left behind")
        for line in _found[:20]:
            terminalreporter.line(line)
    elif _swept:
        terminalreporter.line(f"{_swept} files hold none of {len(issued) + _elsewhere} secrets")


def search(file: Path, digests: set[bytes]) -> Iterator[str]:
    """How a file holds an issued secret."""
    content = file.read_bytes()
    if any(holds(run) for run in _RUN.findall(content)):
        yield "as it is"
    for run in _BASE64.findall(content):
        try:
            decoded = b64decode(run + b"=" * (-len(run) % 4))
        except Error:
            continue
        if any(holds(inner) for inner in _RUN.findall(decoded)):
            yield "inside base64"
    if any(bytes.fromhex(found.decode()) in digests for found in _HEX.findall(content)):
        yield "as a SHA-256 in hex"
    if content.startswith(b"SQLite format 3") and any(mac in digests for mac in macs(file)):
        yield "as a SHA-256 in the place of a MAC"


def holds(run: bytes) -> bool:
    """Whether a run of base62 characters holds a secret somewhere."""
    return any(run[start : start + 32] in issued for start in range(len(run) - 31))


def macs(file: Path) -> list[bytes]:
    """What a database keeps of its secrets."""
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as connection:
            return [bytes(row[0]) for row in connection.execute("SELECT mac FROM secrets")]
    except (sqlite3.DatabaseError, TypeError):
        return []
