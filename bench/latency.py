"""How long one waits: requests that come whether or not the last was answered, against a server with 1,000,000 keys.

Rows R-01 to R-04 and R-33 of security.md. The load is an open loop: each request has its instant, and its time is counted from
there, so that a server that stalls is charged for all who would have come meanwhile. It shares the machine with the server.
"""

import asyncio
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import NamedTuple

import psutil
import uvloop

import crowds
from figure import Figure
from keywright import Keywright
from over_http import KEYWRIGHT, Server, serving, wrk

RATE = 2_000  # requests a second
SECONDS = 20
ROUNDS, BESIDE = 5, 10  # of a neighbour, and their seconds
PATIENCE = 30  # seconds
WARM = "R-01: 2,000 requests a second, 1,000,000 keys, 10,000 active, two workers"
COLD = "R-02: the same, each request a key not seen before"
NEIGHBOUR = "R-33: 99 of 100 of 10,000 accounts, beside one that sends 5,000 a second ÷ without it"
QUIET, NOISY = 500, 5_000  # requests a second
AT_MOST = "R-03: verifications a second, 32 connections, two workers"


class Waited(NamedTuple):
    """What an open loop saw."""

    times: list[float]  # seconds, from the instant that a request was due
    failed: int


class Line(asyncio.Protocol):
    """A connection with one request under way at a time."""

    def __init__(self, load: "Load") -> None:
        self._load, self._due, self._got = load, 0.0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at an instant."""
        self._due, self._got = due, b""
        self._transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._got += data
        if b"\r\n\r\n" in self._got:
            self._load.answered(self, self._due, good=self._got.startswith(b"HTTP/1.1 200 "))

    def close(self) -> None:
        """Close it."""
        self._transport.close()


class Load:
    """Requests at a steady pace."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self._port, self._requests = port, requests
        self._free: list[Line] = []
        self._lines: list[Line] = []
        self._times: list[float] = []
        self._answers = 0

    async def run(self, rate: int, seconds: float) -> Waited:
        """Send for so long; wait for what is still to be answered."""
        for _ in range(32):
            await self._another()
        began, sent, wanted = time.perf_counter() + 0.1, 0, int(rate * seconds)
        self._wanted, self._over = wanted, asyncio.Event()
        while sent < wanted:
            now = time.perf_counter()  # the loop's own time is counted in milliseconds
            while sent < wanted and (due := began + sent / rate) <= now:
                line = self._free.pop() if self._free else await self._another(free=False)
                line.send(next(self._requests), due)
                sent += 1
            await asyncio.sleep(max(0.0, began + sent / rate - time.perf_counter()))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), PATIENCE)
        for line in self._lines:
            line.close()
        return Waited(self._times, wanted - len(self._times))

    def answered(self, line: Line, due: float, *, good: bool) -> None:
        """Note an answer."""
        self._answers += 1
        if good:
            self._times.append(time.perf_counter() - due)
        self._free.append(line)
        if self._answers == self._wanted:
            self._over.set()

    async def _another(self, *, free: bool = True) -> Line:
        _, line = await asyncio.get_running_loop().create_connection(
            lambda: Line(self), "127.0.0.1", self._port
        )
        self._lines.append(line)
        if free:
            self._free.append(line)
        return line


def figures() -> list[Figure]:
    """All of them."""
    database = crowds.database_of(crowds.STORED[1])
    with Keywright(f"sqlite:///{database}") as kw:
        found = _in_process(kw)
    command = [KEYWRIGHT, "serve", "--port", "0", "--database", f"sqlite:///{database}", "--workers", "2"]
    step = crowds.STORED[1] // crowds.ACTIVE
    active = [_asked(number * step) for number in range(crowds.ACTIVE)]
    with serving(*command, core=None) as server:
        _load(server, active, seconds=2 * len(active) / RATE)  # both workers see each key, nearly
        found += _told(WARM, _load(server, active), (2, 10, 50))
        found += [_at_most(server), _beside_a_neighbour(server, active)]
    with serving(*command, core=None) as server:
        unseen = [_asked(number * 7 + 3) for number in range(RATE * SECONDS)]
        waited = _load(server, unseen)
        found += _told(COLD, waited, (None, 20, None))
        found.append(Figure(f"{COLD}: memory of a worker", _largest(server), "MB", 300, None))
    return found


def _in_process(kw: Keywright) -> list[Figure]:
    """R-04: the library, over all active keys, and over keys that it has not seen."""
    verify, clock, ask = kw.installation.engine.verify, kw.installation.clock, crowds.asking()

    def slow(requests: crowds.Requests) -> float:
        times = []
        for request in requests:
            began = time.perf_counter_ns()
            verify(ask, request, clock())
            times.append(time.perf_counter_ns() - began)
        return sorted(times)[len(times) * 99 // 100] / 1000

    active = crowds.requests_of(crowds.STORED[1], crowds.ACTIVE)
    for request in active:
        verify(ask, request, clock())
    unseen = [crowds.request_of(number * 7 + 3) for number in range(20_000)]
    return [
        Figure(
            "R-04: in-process, 1,000,000 keys, cached: 99 of 100 within", slow(active * 2), "µs", 60, None
        ),
        Figure("R-04: not cached: 99 of 100 within", slow(unseen), "µs", 300, None),
    ]


def _asked(number: int) -> bytes:
    ((_, value),) = crowds.request_of(number)
    lines = [
        b"GET /authz/forward/default.production HTTP/1.1", b"Host: bench", b"X-Forwarded-Method: GET",
        b"X-Forwarded-Uri: /contacts", b"Authorization: " + value, b"", b"",
    ]  # fmt: skip
    return b"\r\n".join(lines)


def _load(server: Server, requests: Sequence[bytes], seconds: float = SECONDS) -> Waited:
    return uvloop.run(Load(server.port, cycle(requests)).run(RATE, seconds))


def _told(name: str, waited: Waited, musts: tuple[float | None, ...]) -> list[Figure]:
    times = sorted(waited.times)
    found = [Figure(f"{name}: failed", waited.failed, "", 0, None)]
    for part, must in zip((0.5, 0.99, 0.999), musts, strict=True):
        value = times[int(len(times) * part)] * 1000
        found.append(Figure(f"{name}: {part * 100:g} of 100 within", value, "ms", must, None))
    return found


def _at_most(server: Server) -> Figure:
    """As many as two cores take that the load needs too, each connection of another key's turn."""
    tokens = ", ".join(f'"{_bearer(number * 100)}"' for number in range(1_000))
    script = f"""
local tokens = {{{tokens}}}
local turn = 0
request = function()
  turn = turn % #tokens + 1
  return wrk.format("GET", "/authz/forward/default.production", {{
    ["X-Forwarded-Method"] = "GET", ["X-Forwarded-Uri"] = "/contacts", ["Authorization"] = tokens[turn] }})
end
"""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        load = [wrk(), "-t1", "-c32", "-d5s", "-s", file.name, f"http://127.0.0.1:{server.port}/"]
        said = subprocess.run(load, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if found is None or "Non-2xx" in said:
        raise SystemExit(f"not answered as it should be:\n{said}")
    return Figure(AT_MOST, float(found[1]), "", 8_000, 16_000)


def _beside_a_neighbour(server: Server, requests: Sequence[bytes]) -> Figure:
    """What everybody else's requests take while one account sends ten times as many as all of them."""

    def slowest() -> float:
        times = sorted(uvloop.run(Load(server.port, cycle(requests)).run(QUIET, BESIDE)).times)
        return times[int(len(times) * 0.99)]

    ratios = []
    for _ in range(ROUNDS):
        alone = slowest()
        with _neighbour(server.port):
            ratios.append(slowest() / alone)
    return Figure(NEIGHBOUR, statistics.median(ratios), "×", 2, 1)


@contextmanager
def _neighbour(port: int) -> Iterator[None]:
    """One account that sends as much for longer than it is listened to: wrk, each connection with a pause of 3 ms."""
    script = f"""
wrk.headers["X-Forwarded-Method"] = "GET"
wrk.headers["X-Forwarded-Uri"] = "/contacts"
wrk.headers["Authorization"] = "{_bearer(0)}"
delay = function() return 3 end
"""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        url = f"http://127.0.0.1:{port}/authz/forward/default.production"
        load = [wrk(), "-t1", "-c20", f"-d{BESIDE + 2}s", "-s", file.name, url]
        with subprocess.Popen(load, stdout=subprocess.PIPE, text=True) as process:
            yield
            said = process.communicate()[0]
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if found is None or "Non-2xx" in said or float(found[1]) < NOISY:
        raise SystemExit(f"the neighbour was not answered as it should be:\n{said}")


def _bearer(number: int) -> str:
    ((_, value),) = crowds.request_of(number)
    return value.decode()


def _largest(server: Server) -> float:
    processes = psutil.Process(server.process.pid).children(recursive=True)
    return max(one.memory_info().rss for one in processes) / 1e6
