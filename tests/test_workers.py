"""Several workers behind one port, and the process that looks after them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from keywright import Issued, Keywright
from keywright.profiles import source
from processes import surroundings

KEYWRIGHT = str(Path(sys.executable).with_name("keywright"))


class Served:
    """A server of several workers, and what can be asked of it."""

    def __init__(self, database: str, workers: int) -> None:
        self.process = subprocess.Popen(
            [KEYWRIGHT, "serve", "--port", "0", "--workers", str(workers), "--database", database],
            stdout=subprocess.PIPE,
            env=surroundings(),
            text=True,
        )
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if line.startswith("listening"))
        self.url = line.split()[1].rstrip(",")

    def workers(self) -> list[psutil.Process]:
        """The workers that are alive."""
        return psutil.Process(self.process.pid).children()

    def status(self, headers: dict[str, str]) -> int:
        """What ``whoami`` answers, over a connection of its own."""
        request = urllib.request.Request(f"{self.url}/k/default.production/whoami", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                json.load(answer)
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Ask again and again until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came about"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Keywright, Issued, dict[str, str]]]:
    """An installation with a key, and the key's headers."""
    with Keywright(f"sqlite:///{tmp_path / 'k.db'}", keyspace="default", environment="production") as kw:
        kw.keyspaces.apply(source("default"))
        kw.accounts.create("globex")
        key = kw.keys.create(account="globex", name="CRM sync", access="all")
        yield kw, key, {"Authorization": f"Bearer {key.credential.token.reveal()}"}


@pytest.fixture
def served(made: tuple[Keywright, Issued, dict[str, str]]) -> Iterator[Served]:
    """The installation behind two workers."""
    found = Served(made[0].installation.database.url, workers=2)
    yield found
    if found.process.poll() is None:
        found.process.terminate()
        found.process.wait(30)


@pytest.mark.requirement("F-28", "X-10")
@pytest.mark.security("R-05", "T-27")
def test_a_change_is_obeyed_by_every_worker(
    made: tuple[Keywright, Issued, dict[str, str]], served: Served
) -> None:
    """Once a key was invalidated, no worker answers a request with it, whichever takes the connection."""
    kw, key, headers = made

    assert {served.status(headers) for _ in range(40)} == {200}

    kw.keys.invalidate(key.key.id)

    assert {served.status(headers) for _ in range(40)} == {401}


def test_a_dead_worker_is_replaced(made: tuple[Keywright, Issued, dict[str, str]], served: Served) -> None:
    """A worker that was killed is replaced by another, and requests go on being answered."""
    before = {worker.pid for worker in served.workers()}
    os.kill(min(before), signal.SIGKILL)

    until(lambda: len({w.pid for w in served.workers() if w.status() != "zombie"} - {min(before)}) == 2)

    assert {served.status(made[2]) for _ in range(20)} == {200}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_them(served: Served, number: int) -> None:
    """A signal to the looking-after process ends it and every worker, with exit code 0."""
    workers = served.workers()
    served.process.send_signal(number)

    assert served.process.wait(30) == 0
    assert [worker for worker in workers if worker.is_running()] == []


def test_workers_do_not_outlive_the_process_that_looks_after_them(served: Served) -> None:
    """Where the looking-after process is killed, its workers end too: nobody keeps the port."""
    workers = served.workers()
    served.process.kill()

    psutil.wait_procs(workers, timeout=30)

    assert [worker for worker in workers if worker.is_running() and worker.status() != "zombie"] == []
