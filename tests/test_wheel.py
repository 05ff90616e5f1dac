"""The wheel, alone with what it says it needs: installed where nothing else is, it serves the console, and asks for no node."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from keywright.server.console import assets
from processes import Door, Served

ROOT = Path(__file__).resolve().parent.parent


def needed(name: str, extras: frozenset[str]) -> Iterator[Distribution]:
    """What a package says that it needs, and what that needs."""
    for text in distribution(name).requires or ():
        wanted = Requirement(text)
        if any(wanted.marker is None or wanted.marker.evaluate({"extra": extra}) for extra in {*extras, ""}):
            yield distribution(wanted.name)
            yield from needed(wanted.name, frozenset(wanted.extras))


def links(there: Path) -> None:
    """Lay what the server needs into an environment: no copy, and nothing that it does not say."""
    for one in {one.name: one for one in needed("keywright", frozenset({"server"}))}.values():
        for top in {file.parts[0] for file in one.files or () if not file.parts[0].startswith(".")}:
            if top != "__pycache__" and not (there / top).exists():
                (there / top).symlink_to(Path(str(one.locate_file(top))).resolve())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment into which the wheel was installed, by its own pip and from no index."""
    folder = tmp_path_factory.mktemp("wheel")
    environment = folder / "environment"
    for command in (
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        [sys.executable, "-m", "venv", str(environment)],
    ):
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    pip = [environment / "bin" / "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    links(next((environment / "lib").glob("python*")) / "site-packages")
    return environment


def test_the_wheel_serves_the_console(installed: Path, tmp_path: Path) -> None:
    """In an environment of its own, with no node to be found, the sign-in page comes with every part of every page."""
    bare = {"PATH": str(tmp_path), "PYTHONPATH": ""}
    where = subprocess.run(
        [installed / "bin" / "python", "-c", "import keywright; print(keywright.__file__)"],
        env=bare, cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(installed)
    program = type("Installed", (Served,), {"program": (str(installed / "bin" / "keywright"),)})

    with program("sqlite:///keywright.db", tmp_path, **bare) as served:
        door = Door(served.port)
        page = door("GET", "/console/sign-in", {})
        assert (page.status, b"<h1>Sign in</h1>" in page.body) == (200, True)
        assert assets.address("console.js") in page.body.decode()
        for name in assets.NAMES:  # its address has its digest: these are the files that stand here
            part = door("GET", assets.address(name), {})
            assert (part.status, part.body != b"") == (200, True), name
        assert re.search(r"/console/link#\S+", served.said), "the link of the first operator"
