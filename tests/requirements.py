"""Which rows of the requirements are proven, and by which tests: run by ``make requirements``.

Runs the tests, with the arguments that it is given, prints every row and every screen of ``docs/requirements.toml`` with
its tests and what became of them, and writes ``docs/requirements.json``, which has the rows. Ends as the tests ended.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "docs" / "requirements.toml"
REPORT = ROOT / "docs" / "requirements.json"
SECURITY = "security "
SCREEN = "screen "
WIDTH = 110


def main(arguments: list[str]) -> int:
    """Run, print, write; the tests' own exit code."""
    written = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    rows = [row["id"] for row in written["row"]]
    screens = [f"{SCREEN}{screen['id']}" for screen in written["screen"]]
    code, found = run(arguments)
    report = {row: found.get(row, {"tests": [], "passed": False}) for row in rows}
    print()
    for row in rows:
        print(line(row, report[row]))
    print()
    print(total(report))
    security = [row for row in found if row.startswith(SECURITY)]
    proven = sorted((row for row in security if found[row]["passed"]), key=natural)
    print(f"security: {len(proven)} proven, {len(security) - len(proven)} failed")
    for row in sorted(security, key=natural):
        print(line(row.removeprefix(SECURITY), found[row]))
    print()
    of_screens = {row: found.get(row, {"tests": [], "passed": False}) for row in screens}
    for row, entry in of_screens.items():
        print(line(row.removeprefix(SCREEN), entry))
    print(f"of screens: {total(of_screens)}")
    strangers = sorted(set(found) - set(rows) - set(security) - set(screens))
    if strangers:
        print(f"\nmarks that name no row of {ROWS.name}: {', '.join(strangers)}")
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return code


def run(arguments: list[str]) -> tuple[int, dict[str, Any]]:
    """Run the tests; their exit code, and what ``conftest.Rows`` wrote down of them."""
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory) / "rows.json"
        environment = {**os.environ, "KEYWRIGHT_ROWS": str(written)}
        tests = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment, check=False
        )
        found = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    return tests.returncode, found


def line(row: str, entry: dict[str, Any]) -> str:
    """A row with its result and its tests: each function once, with how often it ran."""
    result = "no test" if not entry["tests"] else "passed" if entry["passed"] else "FAILED"
    times = Counter(short(test) for test in entry["tests"])
    shown = ", ".join(name if many == 1 else f"{name} ×{many}" for name, many in times.items())
    text = f"{row:<7}{result:<9}{shown}".rstrip()
    return text if len(text) <= WIDTH else text[: WIDTH - 2] + " …"


def short(test: str) -> str:
    """``tests/test_library.py::test_it[case]`` as ``library::test_it``."""
    file, _, function = test.partition("::")
    return f"{Path(file).stem.removeprefix('test_')}::{function.partition('[')[0].replace('::', '.')}"


def total(report: dict[str, dict[str, Any]]) -> str:
    """How many rows are proven, failed, and without a test."""
    passed = sum(entry["passed"] for entry in report.values())
    bare = [row for row, entry in report.items() if not entry["tests"]]
    failed = len(report) - passed - len(bare)
    return f"{len(report)} rows: {passed} passed, {failed} failed, {len(bare)} without a test"


def natural(row: str) -> tuple[str, int]:
    """Order ``T-9`` before ``T-28``."""
    letter, _, number = row.rpartition("-")
    return letter, int(number) if number.isdigit() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
