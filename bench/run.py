"""``make bench``: what a verification costs, as ratios within one run, written to docs/benchmarks.md and .json.

Servers are real uvicorn processes; what is measured is the CPU time that they use per request (process accounting), so
that the load generator, on the other core where there is one, does not count. Rounds of the compared servers alternate,
and the median of the rounds' ratios is told: these machines are shared.
"""

import asyncio
import hmac
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil
import uvloop

from keywright import Keywright, profiles
from keywright.model import Ask

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 7
REQUESTS = 12_000
CONNECTIONS = 16


class Figure(NamedTuple):
    """One row of the table of design section 5. A smaller value is better."""

    name: str
    value: float
    unit: str
    must: float | None
    aim: float | None


# ------------------------------------------------------------------------------------------------------- in process


def each(function: Callable[[], object], count: int = 20_000) -> float:
    """Microseconds of CPU per call."""
    began = time.process_time()
    for _ in range(count):
        function()
    return (time.process_time() - began) / count * 1e6


def in_process(kw: Keywright, headers: dict[str, str]) -> list[Figure]:
    """The library: a cached verification against one HMAC, and a cold one."""
    pairs = [(b"host", b"api.example"), (b"accept", b"*/*"), (b"user-agent", b"bench")]
    pairs += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    ask, engine = Ask("default", "production", ("contacts:read",), "GET"), kw.installation.engine
    assert engine.verify(ask, pairs, kw.installation.clock()).valid
    secret, text = b"s" * 32, b"t" * 64
    ratios, absolute = [], []
    for _ in range(ROUNDS):
        ours = each(lambda: engine.verify(ask, pairs, kw.installation.clock()))
        floor = each(lambda: hmac.digest(secret, text, "sha256"))
        ratios.append(ours / floor)
        absolute.append(ours)
    return [
        Figure("in-process verify, cached, metered ÷ one HMAC-SHA-256", statistics.median(ratios), "×", 6, 3),
        Figure("in-process verify, cached, metered", statistics.median(absolute), "µs", None, None),
        cold(kw),
    ]


def cold(kw: Keywright) -> Figure:
    """A verification of a key that the process has never seen, on SQLite."""
    made = [
        kw.keys.create(
            account="globex", keyspace="default", environment="production", name=f"Cold {n}", access="all"
        )
        for n in range(400)
    ]
    ask, engine = Ask("default", "production", ("contacts:read",), "GET"), kw.installation.engine
    engine.verify(ask, [], kw.installation.clock())
    requests = [[(b"authorization", f"Bearer {key.credential.token.reveal()}".encode())] for key in made]
    began = time.process_time()
    for request in requests:
        engine.verify(ask, request, kw.installation.clock())
    spent = (time.process_time() - began) / len(made) * 1e6
    return Figure("cold verification, SQLite, in-process", spent, "µs", 60, 25)


# --------------------------------------------------------------------------------------------------------- over HTTP

EMPTY = """
import asyncio, sys, uvloop
from keywright.server.app import listen, run
from keywright.settings import load

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

taken = listen(load({"port": 0}, {}))
taken.listen(2048)
print("listening", taken.getsockname()[1], flush=True)
run(app, taken)
"""


class Server:
    """A server process, pinned to the first core."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = self._port()
        self.accounting = psutil.Process(self.process.pid)
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self.process.pid, {cores[0]})

    def _port(self) -> int:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("listening"):
                return int(line.strip().replace("/", ":").rsplit(":", 1)[-1].rsplit(" ", 1)[-1])
        raise SystemExit("a server did not start")

    def cpu(self) -> float:
        """Seconds of CPU used so far."""
        times = self.accounting.cpu_times()
        return times.user + times.system

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


class Load(asyncio.Protocol):
    """One connection that sends the same request again as soon as it was answered."""

    def __init__(self, request: bytes, budget: list[int], done: asyncio.Future[None]) -> None:
        self.request, self.budget, self.done, self.buffer = request, budget, done, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is one but in name
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, gap, rest = self.buffer.partition(b"\r\n\r\n")
        if not gap:
            return
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if len(rest) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(SystemExit(f"a request was refused: {head[:60]!r} {rest[:300]!r}"))
            return
        self.buffer = rest[length:]
        self.budget[0] -= 1
        if self.budget[0] > 0:
            self.transport.write(self.request)
            return
        self.transport.close()
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, request: bytes, count: int) -> None:
    """Send ``count`` requests over a few connections."""
    loop, budget = asyncio.get_running_loop(), [count]
    done = loop.create_future()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Load(request, budget, done), "127.0.0.1", port)
    await asyncio.wait_for(done, 120)


def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """An HTTP/1.1 request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: */*", "User-Agent: bench"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def per_request(server: Server, sent: bytes) -> float:
    """Microseconds of the server's CPU per request."""
    began = server.cpu()
    uvloop.run(load(server.port, sent, REQUESTS))
    return (server.cpu() - began) / REQUESTS * 1e6


def over_http(directory: Path, key: str, caller: str) -> list[Figure]:
    """Forward-auth and ``/v1/verify`` against an empty ASGI answer to the same request."""
    database = f"sqlite:///{directory / 'bench.db'}"
    keywright = str(Path(sys.executable).with_name("keywright"))
    forward = request(
        "GET",
        "/authz/forward/default.production",
        {
            "Authorization": f"Bearer {key}",
            "X-Forwarded-Method": "GET",
            "X-Forwarded-Uri": "/contacts?page=2",
        },
    )
    asked = json.dumps(
        {
            "keyspace": "default",
            "environment": "production",
            "token": key,
            "scopes": ["contacts:read"],
            "method": "GET",
        }
    )
    verify = request("POST", "/v1/verify", {"Authorization": f"Bearer {caller}"}, asked.encode())
    ours, empty = (
        Server(keywright, "serve", "--port", "0", "--database", database),
        Server(sys.executable, "-c", EMPTY),
    )
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    found: dict[str, list[float]] = {"forward": [], "verify": [], "forward_us": [], "empty_us": []}
    try:
        for sent in (forward, verify):
            per_request(ours, sent)
            per_request(empty, sent)
        for _ in range(ROUNDS):
            floor, cost = per_request(empty, forward), per_request(ours, forward)
            found["forward"].append(cost / floor)
            found["forward_us"].append(cost)
            found["empty_us"].append(floor)
            found["verify"].append(per_request(ours, verify) / per_request(empty, verify))
    finally:
        ours.stop()
        empty.stop()
        os.sched_setaffinity(0, set(cores))
    return [
        Figure(
            "CPU per forward-auth ÷ an empty ASGI answer", statistics.median(found["forward"]), "×", 1.7, 1.45
        ),
        Figure(
            "CPU per POST /v1/verify ÷ an empty ASGI answer",
            statistics.median(found["verify"]),
            "×",
            2.1,
            1.7,
        ),
        Figure("CPU per forward-auth", statistics.median(found["forward_us"]), "µs", None, None),
        Figure("CPU per empty ASGI answer", statistics.median(found["empty_us"]), "µs", None, None),
    ]


# ----------------------------------------------------------------------------------------------------------- the command


def command(directory: Path) -> list[Figure]:
    """How long the command takes to say its help, and the server to be ready on a migrated database."""
    keywright = str(Path(sys.executable).with_name("keywright"))

    def help_seconds() -> float:
        began = time.perf_counter()
        subprocess.run([keywright, "--help"], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    def ready_seconds() -> float:
        began = time.perf_counter()
        server = Server(
            keywright, "serve", "--port", "0", "--database", f"sqlite:///{directory / 'bench.db'}"
        )
        uvloop.run(load(server.port, request("GET", "/livez", {}), 1))
        spent = time.perf_counter() - began
        server.stop()
        return spent

    return [
        Figure("keywright --help", min(help_seconds() for _ in range(5)), "s", 0.3, 0.15),
        Figure("serve until it answers", min(ready_seconds() for _ in range(5)), "s", 1.5, 0.8),
    ]


# -------------------------------------------------------------------------------------------------------------- told


def main() -> None:
    """Measure everything and write it down."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with Keywright(f"sqlite:///{directory / 'bench.db'}") as kw:
            kw.keyspaces.apply(profiles.source("default"))
            kw.accounts.create("globex")
            key = kw.keys.create(
                account="globex", keyspace="default", environment="production", name="Bench", access="all"
            )
            token = key.credential.token.reveal()
            caller = kw.keys.create_management(name="Bench", scopes=["verify"]).credential.token.reveal()
            figures = in_process(kw, {"Authorization": f"Bearer {token}"})
        figures += over_http(directory, token, caller)
        figures += command(directory)
    write(figures)


def write(figures: list[Figure]) -> None:
    """Write docs/benchmarks.md and .json, and print the table."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    parts = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "httptools", "msgspec"))
    rows = [
        f"| {f.name} | {f.value:.3g} {f.unit} | {'' if f.must is None else f'≤ {f.must:g} {f.unit}'} | "
        f"{'' if f.aim is None else f'≤ {f.aim:g} {f.unit}'} |"
        for f in figures
    ]
    page = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Ratios are medians of rounds that alternate within one run; absolute figures are of a",
        "small shared machine and mean little by themselves. HTTP figures are CPU time of the server process per request.",
        "The keys have no limits: blocks, which will make a quota cost no more, are not there yet.",
        "",
        f"Machine: {machine}. Parts: {parts}.",
        "",
        "| what | measured | must | aim |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(page), encoding="utf-8")
    document = {"machine": machine, "parts": parts, "figures": [figure._asdict() for figure in figures]}
    (ROOT / "docs" / "benchmarks.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(page[8:]))
    late = [figure.name for figure in figures if figure.must is not None and figure.value > figure.must]
    if late:
        raise SystemExit("above what must be: " + "; ".join(late))


if __name__ == "__main__":
    main()
