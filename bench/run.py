"""``make bench``: what a verification costs, as ratios within one run, written to docs/benchmarks.md, .json and .svg.

What is measured is CPU time, so that whoever else uses the machine counts little; rounds of what is compared alternate, and
the median of the rounds' ratios is told. It ends with 1 while a figure misses what it must be.
"""

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
from contextlib import closing, suppress
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path

import crowds
import far
import latency
import over_http
import peers
import plot
from figure import Figure
from keywright import Keywright, profiles
from keywright.credential import new_secret, spell_token
from keywright.model import Ask
from over_http import KEYWRIGHT, Server

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 9
#: What the measured key has to spend: one quota, unless ``--plain`` says none.
LIMITS = [] if "--plain" in sys.argv else ["1000000000/day"]
PLACE = {"keyspace": "default", "environment": "production"}
GATE = """
[gates.bench]
environment = "production"
rules = [{path = "/contacts", methods = ["GET"], scopes = ["contacts:read"]}]
"""
METHOD = """\
Written by `make bench`. Ratios are medians of rounds that alternate within one run; absolute figures are of a small shared
machine and mean little by themselves. All but `--help` and `serve` are CPU time. The verified key has one quota, one scope is
asked, and what is answered is metered, but for the figures about many keys, which are of keys without limits.

- Over HTTP: process accounting of the server's process over a second of requests from wrk with 16 connections, the server
  pinned to one core and wrk to the other, both before everybody else (SCHED_FIFO, and everything at nice -15)
  where that is allowed. The empty application is uvicorn with uvloop and httptools, and gets the same
  requests. With wrk on the server's own core the server is not charged for waking it ([what the profile taught](speed.md)).
- Two workers: the load needs a core too, so what two free cores would answer is reckoned from the CPU time per request,
  summed over all processes of the server: twice that of one worker ÷ that of two.
- In process: `time.process_time`. Memory: what `tracemalloc` says is allocated for 100,000 keys that were each verified once.
- R-01 and R-02: an open loop, each request counted from the instant that it was due; server, load and whoever else uses
  the machine share its cores. R-03: wrk, as fast as it goes, on the same cores.
- PostgreSQL: our own CPU time, 32 coroutines at once, each key for the first time.
- Peers: their own call that verifies one key, in an environment of their own with the same Python. keyshield answers from
  its cache; djangorestframework-api-key has none.
"""


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
        Figure(
            "in-process verify, cached, one quota, metered ÷ one HMAC-SHA-256",
            statistics.median(ratios),
            "×",
            6,
            3,
        ),
        Figure(
            "in-process verify, cached, one quota, metered", statistics.median(absolute), "µs", None, None
        ),
    ]


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


def guesses(kw: Keywright, key_id: str) -> Figure:
    """How much sooner or later a wrong secret is refused than an unknown id, in turn (security.md, T-21)."""
    ask, verify = Ask("default", "production", method="GET"), kw.installation.engine.verify
    times: tuple[list[int], list[int]] = ([], [])
    for _ in range(20_000):
        for name, spent in zip((key_id, key_id[:-4] + "0000"), times, strict=True):
            given = [(b"authorization", b"Bearer " + spell_token(name, new_secret()).encode())]
            now = kw.installation.clock()
            began = time.perf_counter_ns()
            verify(ask, given, now)
            spent.append(time.perf_counter_ns() - began)
    known, unknown = (statistics.median(spent) / 1000 for spent in times)
    return Figure("a wrong secret − an unknown id, medians of 20,000 each", abs(known - unknown), "µs", 1, 0)


def floods() -> list[Figure]:
    """What a flood of a million unknown tokens from a thousand addresses costs, CPU of every thread: watched, against not.

    Who watches lays failures to their source, writes the log, and calls the roll of all ids once a source is over its limit.
    """
    tokens = [
        [(b"authorization", f"Bearer {spell_token(f'default_live_k{n:015}', new_secret())}".encode())]
        for n in range(100_000)
    ]

    def spent(kw: Keywright, *, watched: bool, times: int) -> float:
        verify, clock = kw.installation.engine.verify, kw.installation.clock
        asks = [
            Ask("default", "production", method="GET", ip=f"198.51.{n // 250}.{n % 250}", recorded=watched)
            for n in range(1_000)
        ]
        pairs = ((asks[n % 1_000], given) for _ in range(times) for n, given in enumerate(tokens))
        return each(lambda: verify(*next(pairs), clock()), times * len(tokens))

    with tempfile.TemporaryDirectory() as name, Keywright(f"sqlite:///{name}/watched.db") as kw:
        kw.keyspaces.apply(profiles.source("default"))
        alone = spent(kw, watched=False, times=2)
        beside = spent(kw, watched=True, times=10)
        steps = [spent(kw, watched=True, times=1) / spent(kw, watched=False, times=1) for _ in range(ROUNDS)]
    return [
        Figure("a flood of 1,000,000 unknown tokens: watched ÷ not watched", beside / alone, "×", 1.1, 1),
        Figure("… its later part alone, the roll called for both", statistics.median(steps), "×", None, None),
        Figure("CPU per unknown token, watched, the whole flood", beside, "µs", None, None),
    ]


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
            KEYWRIGHT, "serve", "--port", "0", "--database", f"sqlite:///{directory / 'bench.db'}", core=None
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
    with suppress(PermissionError):
        os.nice(-15)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package comes with its bytecode
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        database = directory / "bench.db"
        with Keywright(f"sqlite:///{database}") as kw:
            kw.keyspaces.apply(profiles.source("default") + GATE)
            kw.accounts.create("globex")
            key = kw.keys.create(account="globex", name="Bench", access="all", limits=LIMITS, **PLACE)
            token = key.credential.token.reveal()
            caller = kw.keys.create_management(name="Bench", scopes=["verify"]).credential.token.reveal()
            figures = in_process(kw, {"Authorization": f"Bearer {token}"})
            figures += [*statements(kw, token), guesses(kw, key.key.id), *floods()]
        figures = over_http.figures(database, token, caller) + figures + command(directory)
    figures += crowds.figures() + latency.figures() + far.figures(GATE, LIMITS)
    theirs, missing = peers.figures()
    write(figures + theirs, missing)


def said(value: float, unit: str) -> str:
    """A figure as people read it."""
    return f"{value:.0f} {unit}".strip() if value >= 100 or value == int(value) else f"{value:.3g} {unit}"


def _bound(figure: Figure, value: float | None) -> str:
    return "" if value is None else f"{'≥' if figure.more_is_better else '≤'} {said(value, figure.unit)}"


def write(figures: list[Figure], notes: list[str] | None = None) -> None:
    """Write docs/benchmarks.md, .json and .svg, and print the table. Ends the program where a must is missed."""
    system = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    machine = f"{system}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    parts = ", ".join(
        f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "httptools", "msgspec", "psycopg")
    )
    table = ["| what | measured | must | aim |", "| --- | --- | --- | --- |"]
    table += [
        f"| {f.name} | {said(f.value, f.unit)} | {_bound(f, f.must)} | {_bound(f, f.aim)} |" for f in figures
    ]
    table += ["", *notes] if notes else []
    page = ["# Benchmarks", "", METHOD, f"Machine: {machine}. Parts: {parts}.", ""]
    page += ["![each figure as a part of what it must be](benchmarks.svg)", "", *table, ""]
    docs = ROOT / "docs"
    (docs / "benchmarks.md").write_text("\n".join(page), encoding="utf-8")
    document = {
        "machine": machine,
        "parts": parts,
        "method": METHOD,
        "figures": [f._asdict() for f in figures],
    }
    (docs / "benchmarks.json").write_text(
        json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (docs / "benchmarks.svg").write_text(plot.svg(figures), encoding="utf-8")
    print("\n".join(table))
    late = [figure.name for figure in figures if figure.missed]
    if late:
        raise SystemExit("not what it must be: " + "; ".join(late))


if __name__ == "__main__":
    main()
