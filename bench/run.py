"""``make bench``: what a verification costs, as ratios within one run, written to docs/benchmarks.md and .json.

Servers are real uvicorn processes; what is measured is the CPU time that they use per request (process accounting), so
that the load generator does not count. Rounds of the compared servers alternate,
and the median of the rounds' ratios is told: these machines are shared.
"""

import gc
import hmac
import json
import os
import platform
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from keywright import Keywright, profiles
from keywright.credential import mac, spell_token
from keywright.model import Ask

ROOT = Path(__file__).resolve().parent.parent
KEYWRIGHT = str(Path(sys.executable).with_name("keywright"))
ROUNDS = 5
CONNECTIONS = 16
#: What the measured key has to spend: one quota, unless ``--plain`` says none.
LIMITS = [] if "--plain" in sys.argv else ["1000000000/day"]
PLACE = {"keyspace": "default", "environment": "production"}
GATE = """
[gates.bench]
environment = "production"
rules = [{path = "/contacts", methods = ["GET"], scopes = ["contacts:read"]}]
"""


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


def statements(kw: Keywright, token: str) -> list[Figure]:
    """What the store is asked in a thousand verifications, besides the version check."""

    def asked(value: str) -> float:
        before = kw.installation.lookup.statements
        for _ in range(1000):
            kw.verify({"Authorization": f"Bearer {value}"}, scopes=["contacts:read"], **PLACE)
        return kw.installation.lookup.statements - before

    kw.verify({"Authorization": f"Bearer {token}"}, scopes=["contacts:read"], **PLACE)
    names = {"cached": token, "malformed": token[:-1] + "!"}
    return [
        Figure(f"store statements in 1,000 {name} verifications", asked(value), "", 0, 0)
        for name, value in names.items()
    ]


# ---------------------------------------------------------------------------------------------------- many stored keys


def crowds(directory: Path) -> list[Figure]:
    """Verifications with a million stored keys against a thousand, ten thousand of them in use; memory for each."""
    rounds, kept = [], 0.0
    with crowd(directory / "few.db", 1_000) as few, crowd(directory / "many.db", 1_000_000) as many:
        for kw, requests in (few, many):
            kept = memory(kw, requests)
        for _ in range(ROUNDS):
            rounds.append(spin(*few) / spin(*many))
    return [
        # Throughput is the inverse of the time; told the way round in which less is better.
        Figure(
            "cost with 1,000,000 stored keys ÷ with 1,000; 10,000 active",
            1 / statistics.median(rounds),
            "×",
            1.05,
            1,
        ),
        Figure("memory per cached key", kept, "B", 1000, 400),
    ]


Requests = list[list[tuple[bytes, bytes]]]


def memory(kw: Keywright, requests: Requests) -> float:
    """Bytes that the cache takes for each key, as Python counts what it has allocated."""
    ask, engine = (
        Ask("default", "production", ("contacts:read",), "GET", metered=False),
        kw.installation.engine,
    )
    engine.verify(ask, requests[0], kw.installation.clock())
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for request in requests:
        engine.verify(ask, request, kw.installation.clock())
    gc.collect()
    kept = (tracemalloc.get_traced_memory()[0] - before) / len(requests)
    tracemalloc.stop()
    return kept


def spin(kw: Keywright, requests: Requests) -> float:
    """Microseconds of CPU per verification, in turn over all keys."""
    ask, engine, clock = (
        Ask("default", "production", ("contacts:read",), "GET"),
        kw.installation.engine,
        kw.installation.clock,
    )
    began, count = time.process_time(), max(1, 40_000 // len(requests))
    for _ in range(count):
        for request in requests:
            engine.verify(ask, request, clock())
    return (time.process_time() - began) / (count * len(requests)) * 1e6


@contextmanager
def crowd(path: Path, stored: int) -> Iterator[tuple[Keywright, Requests]]:
    """An installation with many keys, put straight into the tables, and requests with ten thousand of them."""
    with Keywright(f"sqlite:///{path}") as kw:
        kw.keyspaces.apply(profiles.source("default"))
        kw.accounts.create("globex")
        first = kw.keys.create(account="globex", name="Bench", access="all", **PLACE)
        pepper = kw.installation.keyring.peppers[kw.installation.keyring.current]
    ids, secret = [f"default_live_k{n:015}" for n in range(stored)], "S" * 32
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, name in (("keys", "id"), ("secrets", "key_id")):
            cursor = connection.execute(f"SELECT * FROM {table} WHERE {name} = ?", (first.key.id,))
            columns, row = [column[0] for column in cursor.description], cursor.fetchone()
            at, mac_at = columns.index(name), columns.index("mac") if table == "secrets" else None

            def rows(
                row: tuple[Any, ...] = row, at: int = at, mac_at: int | None = mac_at
            ) -> Iterator[list[Any]]:
                for key_id in ids:
                    own = list(row)
                    own[at] = key_id
                    if mac_at is not None:
                        own[mac_at] = mac(pepper, key_id.encode(), secret.encode())
                    yield own

            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows())
    step = max(1, stored // 10_000)
    requests = [
        [(b"authorization", f"Bearer {spell_token(key_id, secret)}".encode())] for key_id in ids[::step]
    ]
    with Keywright(f"sqlite:///{path}") as kw:
        yield kw, requests


# --------------------------------------------------------------------------------------------------------- over HTTP

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
    """A server process, pinned to the first core."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = self._port()
        self.accounting = psutil.Process(self.process.pid)
        cores = sorted(os.sched_getaffinity(0))
        pin(self.process.pid, cores[0])

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


def per_request(server: Server, asked: Asked, *, core: int = 0, seconds: int = 1) -> float:
    """Microseconds of the server's CPU per request, with wrk on one of the cores."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(asked.script())
        script.flush()
        url = f"http://127.0.0.1:{server.port}{asked.path}"
        load = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script.name, url]
        cores = sorted(os.sched_getaffinity(0))
        began = server.cpu()
        said = subprocess.run(
            [wrk(), *load],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda: pin(0, cores[core]),
        ).stdout
    count = re.search(r"(\d+) requests in", said)
    if count is None or "Non-2xx" in said:
        raise SystemExit(f"{asked.path} was not answered as it should be:\n{said}")
    return (server.cpu() - began) / int(count[1]) * 1e6


def pin(process: int, core: int) -> None:
    """Keep a process on a core and, where we may, undisturbed by whoever else uses the machine."""
    os.sched_setaffinity(process, {core})
    with suppress(PermissionError):
        os.sched_setscheduler(process, os.SCHED_FIFO, os.sched_param(10))


def over_http(directory: Path, key: str, caller: str) -> list[Figure]:
    """Forward-auth and ``/v1/verify`` against an empty ASGI answer to the same request."""
    plain = {"Accept": "*/*", "User-Agent": "bench"}
    proxied = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/contacts?page=2"}
    forward = Asked("GET", "/authz/forward/bench", {**plain, **proxied, "Authorization": f"Bearer {key}"})
    question = {
        "keyspace": "default", "environment": "production", "token": key, "scopes": ["contacts:read"], "method": "GET",
    }  # fmt: skip
    asking = {**plain, "Content-Type": "application/json", "Authorization": f"Bearer {caller}"}
    verify = Asked("POST", "/v1/verify", asking, json.dumps(question))
    ours = Server(KEYWRIGHT, "serve", "--port", "0", "--database", f"sqlite:///{directory / 'bench.db'}")
    empty = Server(sys.executable, "-c", EMPTY)
    kinds = {"forward-auth": forward, "POST /v1/verify": verify}
    costs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    try:
        for asked in kinds.values():
            per_request(ours, asked)
        for _ in range(ROUNDS):
            for name, asked in kinds.items():
                for core in (0, -1):
                    pair = per_request(empty, asked, core=core), per_request(ours, asked, core=core)
                    costs.setdefault((name, core), []).append(pair)
    finally:
        ours.stop()
        empty.stop()
    bounds = {"forward-auth": (1.7, 1.45), "POST /v1/verify": (2.1, 1.7)}
    figures = []
    for name in kinds:
        here, there = ([ours / floor for floor, ours in costs[name, core]] for core in (0, -1))
        figures += [
            Figure(f"CPU per {name} ÷ an empty ASGI answer", statistics.median(here), "×", *bounds[name]),
            Figure(
                f"the same, the load on the other core: {name}", statistics.median(there), "×", None, None
            ),
            Figure(f"CPU per {name}", min(ours for _, ours in costs[name, 0]), "µs", None, None),
        ]
    floor = min(floor for floor, _ in costs["forward-auth", 0])
    return [*figures, Figure("CPU per empty ASGI answer", floor, "µs", None, None)]


# ----------------------------------------------------------------------------------------------------------- the command


def command(directory: Path) -> list[Figure]:
    """How long the command takes to say its help, and the server to be ready on a migrated database."""

    def help_seconds() -> float:
        began = time.perf_counter()
        subprocess.run([KEYWRIGHT, "--help"], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    def ready_seconds() -> float:
        began = time.perf_counter()
        server = Server(
            KEYWRIGHT, "serve", "--port", "0", "--database", f"sqlite:///{directory / 'bench.db'}"
        )
        with closing(HTTPConnection("127.0.0.1", server.port)) as connection:
            connection.request("GET", "/livez")
            assert connection.getresponse().status == 200
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
            kw.keyspaces.apply(profiles.source("default") + GATE)
            kw.accounts.create("globex")
            key = kw.keys.create(
                account="globex",
                keyspace="default",
                environment="production",
                name="Bench",
                access="all",
                limits=LIMITS,
            )
            token = key.credential.token.reveal()
            caller = kw.keys.create_management(name="Bench", scopes=["verify"]).credential.token.reveal()
            figures = in_process(kw, {"Authorization": f"Bearer {token}"})
            figures += statements(kw, token)
        figures += over_http(directory, token, caller)
        figures += command(directory)
        figures += crowds(directory)
    write(figures)


def said(value: float, unit: str) -> str:
    """A figure as people read it."""
    return f"{value:.0f} {unit}".strip() if value >= 100 or value == int(value) else f"{value:.3g} {unit}"


def write(figures: list[Figure]) -> None:
    """Write docs/benchmarks.md and .json, and print the table."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    parts = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "httptools", "msgspec"))
    rows = [
        f"| {f.name} | {said(f.value, f.unit)} | {'' if f.must is None else f'≤ {said(f.must, f.unit)}'} | "
        f"{'' if f.aim is None else f'≤ {said(f.aim, f.unit)}'} |"
        for f in figures
    ]
    page = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Ratios are medians of rounds that alternate within one run; absolute figures are of a",
        "small shared machine and mean little by themselves. HTTP figures are CPU time of the server process per request.",
        "The load, wrk, is on the server's own core: on another, the server is charged for waking it, which has nothing to do",
        "with what it answers ([what the profile taught](speed.md))."
        + ("The key has one quota." if LIMITS else "The key has no limits (`bench/run.py --plain`)."),
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
