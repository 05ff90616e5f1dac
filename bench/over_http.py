"""Servers against an empty ASGI answer to the same request: CPU time of their processes, by process accounting.

The load, wrk, runs on the other core, and on the server's own as a second opinion: a core that sleeps between two answers
is woken by the server, which is charged for it. Rounds of the compared servers alternate.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from figure import Figure

KEYWRIGHT = str(Path(sys.executable).with_name("keywright"))
ROUNDS = 7
CONNECTIONS = 16
ENOUGH = 500  # requests of one round
CORES = sorted(os.sched_getaffinity(0))
OWN, OTHER = 0, -1  # of these

EMPTY = """
import socket, uvicorn

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

taken = socket.socket()
taken.bind(("127.0.0.1", 0))
taken.listen(2048)
print("listening", taken.getsockname()[1], flush=True)
config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", access_log=False, server_header=False, log_config=None)
uvicorn.Server(config).run(sockets=[taken])
"""


class Server:
    """A server process, and those that it starts. ``core`` pins it."""

    def __init__(self, *command: str, core: int | None = OWN) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = self._port()
        self._first = psutil.Process(self.process.pid)
        pin(self.process.pid, core)

    def _port(self) -> int:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = re.match(r"listening (?:\d+$|.*?:(\d+)\b)", line)
            if found is not None:
                return int(found[1] or line.split()[1])
        self.stop()
        raise SystemExit("a server did not start")

    def cpu(self) -> float:
        """Seconds of CPU used so far, by all of its processes."""
        processes = [self._first, *self._first.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in processes)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def pin(process: int, core: int | None) -> None:
    """Keep a process on a core and, where we may, before everybody else who uses the machine."""
    if core is not None:
        os.sched_setaffinity(process, {CORES[core]})
        with suppress(PermissionError):
            os.sched_setscheduler(process, os.SCHED_FIFO, os.sched_param(10))


def wrk() -> str:
    """The load generator, installed where it is missing and may be."""
    found = shutil.which("wrk")
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], stdout=subprocess.DEVNULL, check=False)
        found = shutil.which("wrk")
    if found is None:
        raise SystemExit("`make bench` needs wrk (Debian: apt install wrk; macOS: brew install wrk)")
    return found


class Asked(NamedTuple):
    """A request, as wrk sends it again and again."""

    method: str
    path: str
    headers: dict[str, str]
    body: str = ""

    def script(self) -> str:
        """wrk's own way to be told."""
        lines = [f"wrk.method = {json.dumps(self.method)}"]
        lines += [
            f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in self.headers.items()
        ]
        lines += [f"wrk.body = {json.dumps(self.body)}"] if self.body else []
        return "\n".join(lines)


def per_request(
    server: Server, asked: Asked, *, core: int | None = OTHER, connections: int = CONNECTIONS
) -> float:
    """Microseconds of the server's CPU per request of one second, with wrk on one of the cores, or on any."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(asked.script())
        script.flush()
        load = [wrk(), "-t1", f"-c{connections}", "-d1s", "-s", script.name]
        began, count = server.cpu(), 0
        while count < ENOUGH:  # on a machine that is very busy one second may not suffice
            said = subprocess.run(
                [*load, f"http://127.0.0.1:{server.port}{asked.path}"],
                capture_output=True,
                text=True,
                check=True,
                preexec_fn=lambda: pin(0, core),
            ).stdout
            found = re.search(r"(\d+) requests in", said)
            if found is None or "Non-2xx" in said:
                raise SystemExit(f"{asked.path} was not answered as it should be:\n{said}")
            count += int(found[1])
        spent = server.cpu() - began
    return spent / count * 1e6


def requests_of(key: str, caller: str) -> dict[str, Asked]:
    """The two questions of the table: a gate that asks one scope, and ``/v1/verify`` with the same."""
    plain = {"Accept": "*/*", "User-Agent": "bench"}
    proxied = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/contacts?page=2"}
    question = {
        "keyspace": "default", "environment": "production", "token": key, "scopes": ["contacts:read"], "method": "GET",
    }  # fmt: skip
    asking = {**plain, "Content-Type": "application/json", "Authorization": f"Bearer {caller}"}
    return {
        "forward-auth": Asked(
            "GET", "/authz/forward/bench", {**plain, **proxied, "Authorization": f"Bearer {key}"}
        ),
        "POST /v1/verify": Asked("POST", "/v1/verify", asking, json.dumps(question)),
    }


BOUNDS = {"forward-auth": (1.7, 1.45), "POST /v1/verify": (2.1, 1.7)}


def figures(database: Path, key: str, caller: str) -> list[Figure]:
    """Forward-auth and ``/v1/verify`` against an empty answer; then two workers against one."""
    url = f"sqlite:///{database}"
    return [*against(url, key, caller), *_workers(url, requests_of(key, caller)["forward-auth"])]


def against(url: str, key: str, caller: str, *, where: str = "") -> list[Figure]:
    """Forward-auth and ``/v1/verify`` of a server on a database against an empty answer to the same requests."""
    kinds = requests_of(key, caller)
    with serving(KEYWRIGHT, *_serve(url)) as ours, serving(sys.executable, "-c", EMPTY) as empty:
        for asked in kinds.values():
            per_request(ours, asked)
        return [
            figure for name, asked in kinds.items() for figure in _against(empty, ours, name, asked, where)
        ]


def _against(empty: Server, ours: Server, name: str, asked: Asked, where: str) -> list[Figure]:
    rounds = [(per_request(empty, asked), per_request(ours, asked)) for _ in range(ROUNDS)]
    here = [per_request(ours, asked, core=OWN) / per_request(empty, asked, core=OWN) for _ in range(3)]
    ratios = sorted(own / floor for floor, own in rounds)
    median = statistics.median
    if where:
        return [Figure(f"{where}: CPU per {name} ÷ an empty ASGI answer", median(ratios), "×", *BOUNDS[name])]
    return [
        Figure(f"CPU per {name} ÷ an empty ASGI answer", median(ratios), "×", *BOUNDS[name]),
        Figure(f"… the lowest of {ROUNDS} rounds", ratios[0], "×", None, None),
        Figure(f"… the highest of {ROUNDS} rounds", ratios[-1], "×", None, None),
        Figure(f"… the load on the server's own core: {name}", median(here), "×", None, None),
        Figure(f"CPU per {name}", median(own for _, own in rounds), "µs", None, None),
        Figure(
            f"CPU per empty ASGI answer to the request of {name}",
            median(floor for floor, _ in rounds),
            "µs",
            None,
            None,
        ),
    ]


def _workers(url: str, asked: Asked) -> list[Figure]:
    """What two workers would answer on two free cores, against one: the load needs a core too, so CPU is counted."""
    ratios = []
    command = [KEYWRIGHT, *_serve(url)]
    with serving(*command, core=None) as one, serving(*command, "--workers", "2", core=None) as two:
        for server in (one, two):
            per_request(server, asked, core=None, connections=32)
        for _ in range(5):
            costs = [per_request(server, asked, core=None, connections=32) for server in (one, two)]
            ratios.append(2 * costs[0] / costs[1])
    return [
        Figure(
            "two workers ÷ one worker, throughput on two free cores",
            statistics.median(ratios),
            "×",
            1.7,
            1.95,
        )
    ]


def _serve(url: str) -> list[str]:
    return ["serve", "--port", "0", "--database", url]


@contextmanager
def serving(*command: str, core: int | None = OWN) -> Iterator[Server]:
    """A server for as long as it is needed."""
    server = Server(*command, core=core)
    try:
        yield server
    finally:
        server.stop()
