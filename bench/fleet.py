"""What a fleet costs its PostgreSQL, in CPU time of the server's processes, and how long a change takes to be answered.

``make bench`` runs it after the others, with the tests' PostgreSQL in its path; it keeps the figures that are there already.
"""

import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil

import scaling
from keywright import Keywright, profiles
from keywright.feed import boottime
from keywright.installation import open_installation
from keywright.model import Ask
from keywright.store.postgres_feed import Line
from postgres import SECRET, OwnServer, own
from run import Figure, write

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 4
RENEWALS = 3_000
LOOKUPS = 600
CHANGES = 100
RENEWAL = "PostgreSQL: its CPU per renewal of a lease"
LOOKUP = "PostgreSQL: its CPU per verification of a key not in memory"
CHANGE = "PostgreSQL: its CPU per change"
OWN = "PostgreSQL: a worker's CPU per verification of a key not in memory, one after the other"
ANSWERED = f"PostgreSQL: a change until it is answered, {WORKERS} workers, loopback, median"


def figures() -> list[Figure]:
    """All of them."""
    with own() as server:
        url = server.make()
        open_installation(url, secret=SECRET, may_migrate=True).close()
        with Keywright(url, secret=SECRET, keyspace="default", environment="production") as kw:
            kw.keyspaces.apply(profiles.source("default"))
            kw.accounts.create("globex")
            return [renewal(server, kw), *lookups(server, kw), *changes(server, kw)]


def per(server: OwnServer, many: int, work: Callable[[], None]) -> tuple[float, float]:
    """Microseconds of the server's CPU, and of our own, for each of ``many``: by connections that are open throughout."""
    backends = psutil.Process(server.process.pid).children()
    theirs = sum(sum(one.cpu_times()[:2]) for one in backends)
    ours = time.process_time()
    work()
    ours = time.process_time() - ours
    theirs = sum(sum(one.cpu_times()[:2]) for one in backends if one.is_running()) - theirs
    return theirs / many * 1e6, ours / many * 1e6


def renewal(server: OwnServer, kw: Keywright) -> Figure:
    """One statement of a feed that finds nothing."""
    database = kw.installation.database
    line = Line(database.conninfo, 5, 5)
    newest = line.newest
    line.register("bench", 0, newest, boottime(), 0)
    line.renew("bench", newest, boottime())

    def work() -> None:
        for _ in range(RENEWALS):
            line.renew("bench", newest, boottime())

    theirs, _ = per(server, RENEWALS, work)
    line.leave("bench")
    line.close()
    return Figure(RENEWAL, theirs, "µs", None, None)


def lookups(server: OwnServer, kw: Keywright) -> list[Figure]:
    """The first verification of keys, on one thread."""
    made = [kw.keys.create(account="globex", name=f"Cold {n}", access="all") for n in range(LOOKUPS)]
    requests = [[(b"authorization", f"Bearer {key.credential.token.reveal()}".encode())] for key in made]
    ask, engine = Ask("default", "production", ("contacts:read",), "GET"), kw.installation.engine
    kw.verify({})
    _until_leased(kw)

    def work() -> None:
        for request in requests:
            assert engine.verify(ask, request, kw.installation.clock()).valid

    theirs, ours = per(server, LOOKUPS, work)
    return [Figure(LOOKUP, theirs, "µs", None, None), Figure(OWN, ours, "µs", None, None)]


def changes(server: OwnServer, kw: Keywright) -> list[Figure]:
    """Invalidations, while workers hold leases and confirm."""
    made = [kw.keys.create(account="globex", name=f"Ended {n}", access="all") for n in range(CHANGES)]
    spent = []
    with ExitStack() as workers:
        for _ in range(WORKERS - 1):  # and ``kw``
            other = workers.enter_context(
                Keywright(
                    kw.installation.database.url, secret=SECRET, keyspace="default", environment="production"
                )
            )
            other.verify({})
            _until_leased(other)

        def work() -> None:
            for key in made:
                began = time.perf_counter()
                assert kw.keys.invalidate(key.key.id).propagation.exact
                spent.append(time.perf_counter() - began)

        theirs, _ = per(server, CHANGES, work)
    return [
        Figure(CHANGE, theirs, "µs", None, None),
        Figure(ANSWERED, statistics.median(spent) * 1e3, "ms", None, None),
    ]


def _until_leased(kw: Keywright) -> None:
    feed = kw.installation.freshness._feed
    while feed.lease.basis(boottime()) != "memory":
        time.sleep(0.01)


if __name__ == "__main__":
    page = ROOT / "docs" / "benchmarks.json"
    ours = figures()
    names = {figure.name for figure in ours}
    before = [Figure(**one) for one in json.loads(page.read_text())["figures"] if one["name"] not in names]
    try:
        write(before + ours)
    finally:  # it ends the program where a must is missed
        scaling.write()
