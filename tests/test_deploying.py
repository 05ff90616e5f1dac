"""What stands in ``deploy/`` works: its command lines are run with its environment, elsewhere than where it says."""

import json
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from keywright.settings import SETTINGS, unknown
from postgres import SECRET, Server
from processes import Door, Running, run

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
STATE = "/var/lib/keywright"
#: As systemd's ``MemoryDenyWriteExecute`` has it: no memory becomes executable.
CONFINED = "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; os.execv(sys.argv[1], sys.argv[1:])"


class Confined(Running):
    """The command as the unit lets it run."""

    program = (sys.executable, "-c", CONFINED, *Running.program)


def unit() -> dict[str, list[str]]:
    """The service's directives, each as often as it stands there."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "keywright.service").read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def image() -> str:
    """The Containerfile, its continued lines joined."""
    return (DEPLOY / "Containerfile").read_text(encoding="utf-8").replace("\\\n", "")


def variables() -> dict[str, str]:
    """What the image sets."""
    (line,) = re.findall(r"^ENV (.*)$", image(), re.MULTILINE)
    return dict(one.split("=", 1) for one in line.split() if one.startswith("KEYWRIGHT_"))


def composed() -> Any:
    """The services of the composition."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def answers(running: Running) -> bool:
    """Whether a server that was started is ready."""
    port = int(running.until(r"listening\s+http://[^\s,]+:(\d+)")[1])
    return Door(port)("GET", "/readyz", {}).status == 200


def test_the_service_starts_as_it_is_confined(tmp_path: Path) -> None:
    """The unit's line and environment give a server that is ready, with no memory that becomes executable."""
    found = unit()
    program, *arguments = shlex.split(found["ExecStart"][0])
    environment = dict(one.split("=", 1) for one in found["Environment"])
    assert (Path(program).name, found["StateDirectory"], found["UMask"]) == (
        "keywright",
        ["keywright"],
        ["0077"],
    )
    assert all(STATE in value for value in environment.values())
    moved = {name: value.replace(STATE, str(tmp_path)) for name, value in environment.items()}

    with Confined(*arguments, "--port", "0", cwd=tmp_path, **moved) as running:
        assert answers(running)


def test_the_service_has_time_to_end() -> None:
    """The supervisor waits for longer than the server takes to end in order, and signals the process that passes it on."""
    found = unit()
    drain = next(int(setting.default) for setting in SETTINGS if setting.name == "drain_seconds")

    assert int(found["TimeoutStopSec"][0]) > drain + 10
    assert found["KillMode"] == ["mixed"]


def test_the_unit_is_one_that_systemd_reads() -> None:
    """It has the three sections, and no line outside of them."""
    parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.read(DEPLOY / "keywright.service")

    assert parser.sections() == ["Unit", "Service", "Install"]


@pytest.mark.security("A-02")
def test_the_image_does_not_start_without_saying_how_it_is_reached(tmp_path: Path) -> None:
    """It listens on every address, so it must be told its own; and nothing in it is anybody's secret or root's."""
    own = {name: value.replace(STATE, str(tmp_path)) for name, value in variables().items()}
    ended = run("serve", cwd=tmp_path, **own)

    assert (ended.returncode, "--public-url" in ended.stderr, "Traceback" in ended.stderr) == (3, True, False)
    assert re.findall(r"^USER (\w+)$", image(), re.MULTILINE) == ["keywright"]
    assert not unknown(variables())
    assert "SECRET" not in image()


def test_the_image_is_healthy_when_it_is_ready(tmp_path: Path) -> None:
    """The image's command starts a server, and its health check passes on it, and on no other port."""
    (line,) = re.findall(r"^CMD (\[.*\])$", image(), re.MULTILINE)
    (check,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", image(), re.MULTILINE)
    _, *arguments = json.loads(line)
    own = {name: value.replace(STATE, str(tmp_path)) for name, value in variables().items()}
    own |= {"KEYWRIGHT_HOST": "127.0.0.1", "KEYWRIGHT_PORT": "0", "KEYWRIGHT_PUBLIC_URL": "http://127.0.0.1"}

    with Running(*arguments, cwd=tmp_path, **own) as running:
        assert answers(running)
        port = re.findall(r"listening\s+http://[^\s,]+:(\d+)", running.said)[0]
        for where, healthy in ((port, True), ("1", False)):
            asked = [part.replace("8700", where) for part in json.loads(check)]
            ended = subprocess.run([sys.executable, *asked[1:]], stderr=subprocess.DEVNULL, check=False)
            assert (ended.returncode == 0) is healthy


def test_what_is_composed_runs_on_postgresql(tmp_path: Path, server: Server) -> None:
    """The composed environment, its files elsewhere, gives a server on PostgreSQL; every variable and file is one there is."""
    whole = composed()
    service = whole["services"]["keywright"]
    environment = {
        name: re.sub(r"\$\{.*:-(.*)\}", r"\1", value) for name, value in service["environment"].items()
    }
    assert unknown(environment) == []
    needed = {f"/run/secrets/{name}" for name in service["secrets"]}
    assert needed == {value for name, value in environment.items() if name.endswith("_FILE")}
    kept = [volume.partition(":")[2] for volume in service["volumes"]]
    assert [Path(environment["KEYWRIGHT_SLOTS"]).is_relative_to(place) for place in kept] == [True]
    assert set(whole["secrets"]) == {*service["secrets"], *whole["services"]["postgres"]["secrets"]}
    url = server.make()
    for name, text in (("database", url), ("secret", SECRET)):
        (tmp_path / name).write_text(f"{text}\n", encoding="utf-8")
    moved = {
        name: re.sub(r"^(/run/secrets|/var/lib/keywright)", str(tmp_path), value)
        for name, value in environment.items()
    }

    with Running(*service["command"][1:], "--port", "0", cwd=tmp_path, **moved) as running:
        assert answers(running)
    server.drop(url)
