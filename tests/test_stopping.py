"""How servers stop and are kept alive: notice, what was begun, signals to many, workers that die at their start."""

import os
import re
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest

from processes import PATIENCE, Door, Folder, Running, Served, until_refused
from test_cli_serve import KEY, Begun

WHOAMI = "/k/every.production/whoami"
GATE = "/authz/forward/every.production"
FAMILY = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/x"}


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Folder:
    """A folder with every keyspace and the cast."""
    return Folder(tmp_path, copy_of=template)


def ask(port: int, path: str, headers: dict[str, str] | None = None) -> Any:
    """Ask over a connection of its own."""
    with closing(Door(port)) as door:
        return door("GET", path, headers or {})


def until(holds: Callable[[], Any]) -> None:
    """Ask again and again until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came about"


def right(folder: Folder) -> dict[str, str]:
    """The header of a new key."""
    token = folder("keys", "create", "CRM", "--keyspace", "every", *KEY, "--quiet").out.strip()
    return {"Authorization": f"Bearer {token}"}


# ------------------------------------------------------------------------------------------------------------- notice


@pytest.mark.security("R-13", "R-38")
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_it_says_so_before_it_stops(folder: Folder, how: signal.Signals, workers: str) -> None:
    """After the signal ``/readyz`` is 503 while all else is answered, each answer closing its connection."""
    headers = right(folder)
    around = {"KEYWRIGHT_DRAIN_SECONDS": "600", "KEYWRIGHT_WORKERS": workers}
    with Served(folder.database, folder.path, **around) as served:
        assert ask(served.port, "/readyz").status == 200
        assert "connection" not in ask(served.port, WHOAMI, headers).headers

        served.process.send_signal(how)
        until(lambda: {ask(served.port, "/readyz").status for _ in range(8)} == {503})

        for _ in range(8):
            answer = ask(served.port, WHOAMI, headers)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert ask(served.port, "/livez").status == 200
        refused = ask(served.port, "/readyz")
        assert (refused.json["code"], refused.headers["retry-after"]) == ("unavailable", "1")

        assert served.stop() == 0  # asked again, it does not wait for the ten minutes
        assert "".join(served.err) == ""


def test_the_notice_ends(folder: Folder) -> None:
    """When the notice is over the port is closed, and the code is 0, with nobody asking again."""
    with Served(folder.database, folder.path, KEYWRIGHT_DRAIN_SECONDS="1") as served:
        served.process.send_signal(signal.SIGTERM)
        until_refused(served.port)
        assert served.ended() == 0


@pytest.mark.security("R-13", "R-32")
def test_nothing_is_lost_under_load(folder: Folder) -> None:
    """Clients that go elsewhere once ``/readyz`` says no have had an answer to everything, and every one was counted."""
    headers = right(folder)
    around = {"KEYWRIGHT_DRAIN_SECONDS": "600", "KEYWRIGHT_WORKERS": "2"}
    elsewhere = threading.Event()
    found: list[int | str] = []

    def client(port: int) -> None:
        with closing(Door(port)) as door:
            while not elsewhere.is_set():
                try:
                    found.append(door("GET", GATE, headers | FAMILY).status)
                except (OSError, HTTPException) as trouble:
                    found.append(repr(trouble))

    with Served(folder.database, folder.path, **around) as served:
        clients = [threading.Thread(target=client, args=(served.port,)) for _ in range(8)]
        for each in clients:
            each.start()
        until(lambda: len(found) > 300)
        served.process.send_signal(signal.SIGTERM)
        until(lambda: ask(served.port, "/readyz").status == 503)
        elsewhere.set()
        for each in clients:
            each.join(PATIENCE)
        assert served.stop() == 0
        assert "".join(served.err) == ""

    assert set(found) == {200}
    with sqlite3.connect(folder.path / "test.usage.db") as usage:
        (counted,) = usage.execute("SELECT sum(count) FROM usage_minutes WHERE code = 'ok'").fetchone()
    usage.close()
    assert counted == len(found)


# ------------------------------------------------------------------------------------------------------------ workers


@pytest.mark.security("R-13")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_is_one_signal(folder: Folder, how: signal.Signals) -> None:
    """Where a terminal or systemd signals workers and parent alike, what was begun is still answered."""
    with (
        Served(folder.database, folder.path, KEYWRIGHT_WORKERS="2") as served,
        closing(Begun(folder, served.port)) as begun,
    ):
        for process in (*psutil.Process(served.process.pid).children(), served.process):
            process.send_signal(how)
        until_refused(served.port)
        answer = begun.finish()
        code = served.ended()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (code, "".join(served.err)) == (0, "")


def test_a_second_signal_does_not_wait_for_workers(folder: Folder) -> None:
    """Whoever stops several workers twice does not wait for a request that never ends."""
    with (
        Served(folder.database, folder.path, KEYWRIGHT_WORKERS="2") as served,
        closing(Begun(folder, served.port)),
    ):
        served.process.send_signal(signal.SIGTERM)
        until_refused(served.port)
        served.process.send_signal(signal.SIGTERM)
        code = served.ended()

    assert (code, "".join(served.err)) == (0, "")


def test_a_worker_that_cannot_start_again_is_tried_again(folder: Folder) -> None:
    """While the store is gone a dead worker cannot be replaced: the others go on, and later it is."""
    file = folder.path / "test.db.secret"
    with Served(folder.database, folder.path, KEYWRIGHT_WORKERS="2") as served:
        workers = psutil.Process(served.process.pid).children
        before = {worker.pid for worker in workers()}
        until(lambda: {ask(served.port, "/readyz").status for _ in range(8)} == {200})
        away = file.rename(file.with_suffix(".away"))
        os.kill(min(before), signal.SIGKILL)

        until(lambda: re.search(r"worker \d+ could not start .* is started in 2 s", served.said))
        assert {ask(served.port, "/livez").status for _ in range(8)} == {200}
        away.rename(file)
        until(lambda: len({worker.pid for worker in workers() if worker.status() != "zombie"}) == 2)

        assert served.stop() == 0
    lines = "".join(served.err).splitlines()
    assert "was killed by SIGKILL, by the system if memory ran out, after" in lines[0]
    assert any(line.startswith("keywright: ") and "test.db.secret is missing" in line for line in lines)
    assert "Traceback" not in served.said


class Program(Running):
    """A program that keeps workers, as Python text."""

    program = (sys.executable, "-c")


_PROGRAM = """
import logging, sys
from keywright.server import workers
logging.basicConfig(format="%(message)s")
workers.FIRST_PAUSE, workers.LONGEST_PAUSE = 0.01, 0.08
def work(number, ready):
    {work}
sys.exit(workers.Workers(2, work).run(lambda: print("ready")))
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Runs a program whose two workers do this."""
    begun: list[Program] = []

    def run(work: str) -> Program:
        begun.append(Program(_PROGRAM.format(work=work), cwd=tmp_path))
        return begun[-1]

    yield run
    for one in begun:
        one.__exit__()


def test_workers_that_die_at_their_start_do_not_spin(program: Callable[[str], Program]) -> None:
    """The pause before the next doubles up to a bound; each end is one line that says why; a signal waits for no pause."""
    running = program("raise ValueError('no\\n such thing')")
    until(lambda: running.said.count("in 0.08 s") >= 4)

    assert running.stop() == 0
    lines = "".join(running.err).splitlines()
    failed = [line for line in lines if line.startswith("a worker failed")]
    pauses = re.findall(r"^worker \d+ ended with code 1 after 0 s; the next is started in (\S+) s$", "\n".join(lines), re.MULTILINE)  # fmt: skip
    assert set(failed) == {"a worker failed: ValueError: no such thing"}
    assert sorted(set(pauses)) == ["0.01", "0.02", "0.04", "0.08"]
    assert (pauses.count("0.01"), pauses.count("0.02"), pauses.count("0.04")) == (2, 2, 2)
    assert len(lines) == len(failed) + len(pauses)


def test_where_none_can_start_all_ends(program: Callable[[str], Program]) -> None:
    """Where no worker ever began, the first that cannot start ends the whole, with its code."""
    assert program("raise SystemExit(3)").ended() == 3
