"""Promise 2 on PostgreSQL: leases, confirmations, and what happens when a worker or the store is cut off, stopped or killed."""

import asyncio
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from child import Child
from conftest import again, bearer, make, sql
from keywright import Keywright
from keywright.clock import boottime, process_clock
from keywright.model import Propagation
from keywright.store import workers
from keywright.store.postgres_feed import Line
from keywright.testing import Clock
from keywright.times import SECOND
from postgres import SECRET, Proxy
from processes import PATIENCE, Door, Served, run

EVERY = {"keyspace": "every", "environment": "production"}
FULL = bool(os.environ.get("KEYWRIGHT_PROOF"))
REVOCATIONS = 500 if FULL else 12
STOPPED_FOR = 5 if FULL else 1  # changes, of a second each


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    again_in, deadline = threading.Event(), time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        again_in.wait(0.005)


def leased(kw: Keywright) -> Keywright:
    """An installation that answers from memory: it has verified something, and holds a lease."""
    kw.verify({}, **EVERY)
    eventually(lambda: feed(kw).lease.basis(boottime()) == "memory")
    return kw


def feed(kw: Keywright) -> Any:
    """What keeps an installation's lease."""
    return kw.installation.freshness._feed  # type: ignore[union-attr]


def confirmed(kw: Keywright) -> list[workers.Worker]:
    """The workers that are registered."""
    with kw.installation.database.read() as connection:
        found = workers.every(connection)
        assert workers.count(connection) == len(found)
    return found


@pytest.fixture
def proxy(postgres_kw: Keywright) -> Iterator[Proxy]:
    """A network between a worker and the installation of ``postgres_kw``."""
    with Proxy(postgres_kw.installation.database.url) as proxy:
        yield proxy


def across(proxy: Proxy, **settings: Any) -> Keywright:
    """The installation of ``postgres_kw``, across that network."""
    return Keywright(proxy.url, **({"secret": SECRET, "clock": Clock()} | settings))


def tell(what: str, seconds: list[float]) -> None:
    """Write figures of a full-size run beside the others of it."""
    told = sorted(seconds)
    figures = {"p50": told[len(told) // 2], "p99": told[int(len(told) * 0.99)], "max": told[-1]}
    line = ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in figures.items())
    sys.stderr.write(f"\n{len(told)} {what}: {line}\n")


# ----------------------------------------------------------------------------------------------------------- leases


def test_a_cached_verification_under_a_lease_asks_the_store_nothing(
    postgres_kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a lease, a known key is verified in both colours without any statement at all; without one, the store is asked."""
    key, lookup = make(postgres_kw), postgres_kw.installation.lookup
    assert leased(postgres_kw).verify(bearer(key), **EVERY).code == "ok"
    asked: list[int] = []
    statements = lookup.statements
    changes = lookup.changes

    def counted(after: int) -> list[tuple[int, str, str]]:
        asked.append(after)
        return changes(after)

    async def counted_too(after: int) -> list[tuple[int, str, str]]:
        return counted(after)

    monkeypatch.setattr(lookup, "changes", counted)
    monkeypatch.setattr(lookup, "achanges", counted_too)

    async def some() -> set[str]:
        return {(await postgres_kw.averify(bearer(key), **EVERY)).code for _ in range(50)}

    assert {postgres_kw.verify(bearer(key), **EVERY).code for _ in range(50)} == {"ok"}
    assert asyncio.run(some()) == {"ok"}
    assert (asked, lookup.statements) == ([], statements)

    feed(postgres_kw).close()
    assert postgres_kw.verify(bearer(key), **EVERY).code == "ok"
    assert asyncio.run(some()) == {"ok"}
    assert len(asked) == 51


@pytest.fixture
def crowded() -> Iterator[None]:
    """A process with as many open files as a server with a thousand clients: what it opens next has a high number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_000), hard))
    with ExitStack() as opened:
        while opened.enter_context(Path(os.devnull).open()).fileno() < 1_024:
            pass
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("crowded")
def test_a_worker_with_a_thousand_clients_keeps_its_lease(postgres_kw: Keywright) -> None:
    """However high the numbers of its descriptors are, a worker renews its lease, and not only once."""
    with again(postgres_kw) as other:
        until = feed(leased(other)).lease.until
        eventually(lambda: feed(other).lease.until > until or not feed(other)._thread.is_alive())
        assert feed(other)._thread.is_alive()
        assert feed(other)._line._connection.fileno() > 1_023


def test_the_feed_goes_on_whatever_fails(postgres_kw: Keywright, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of the feed that fails in a way that nobody thought of ends that turn alone: the lease is renewed again."""
    renew, failed = Line.renew, threading.Event()

    def once(line: Line, *confirmed: Any) -> Any:
        if failed.is_set():
            return renew(line, *confirmed)
        failed.set()
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(Line, "renew", once)
    assert feed(leased(postgres_kw))._thread.is_alive()
    assert failed.is_set()


def test_nothing_is_opened_before_the_first_verification(postgres_kw: Keywright) -> None:
    """A program that only manages keys is no worker: it starts no thread and delays nobody; one that verifies leaves when it closes."""
    make(postgres_kw)
    assert confirmed(postgres_kw) == []
    assert feed(postgres_kw)._thread is None

    with again(postgres_kw) as other:
        leased(other)
        assert len(confirmed(postgres_kw)) == 1
    assert confirmed(postgres_kw) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_no_lease_until_it_has_its_own(postgres_kw: Keywright) -> None:
    """A child of a worker trusts nothing that its parent was promised, and becomes a worker of its own name."""
    key = make(postgres_kw)
    assert leased(postgres_kw).verify(bearer(key), **EVERY).code == "ok"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = [feed(postgres_kw).lease.basis(boottime())]
            said.append(postgres_kw.verify(bearer(key), **EVERY).code)
            leased(postgres_kw)
            said.append(str(len(confirmed(postgres_kw))))
            postgres_kw.keys.invalidate(key.key.id)
            said.append(postgres_kw.verify(bearer(key), **EVERY).code)
            postgres_kw.close()
            os.write(writer, ",".join(said).encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 4096).decode()
    os.close(reader)
    os.waitpid(pid, 0)

    assert said == "ask,ok,2,invalidated"
    assert postgres_kw.verify(bearer(key), **EVERY).code == "invalidated"
    assert len(confirmed(postgres_kw)) == 1


@pytest.mark.security("R-39", "T-28")
def test_a_read_from_before_a_change_never_lands_after_it(
    postgres_kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker under a lease that has read a key, and is overtaken by its invalidation, keeps nothing of what it read."""
    key, lookup = make(postgres_kw), postgres_kw.installation.lookup
    leased(postgres_kw)
    find, once = lookup.find, iter([True])

    def overtaken(key_id: bytes) -> Any:
        found = find(key_id)
        if next(once, False):
            assert postgres_kw.keys.invalidate(key.key.id).propagation.exact
        return found

    monkeypatch.setattr(lookup, "find", overtaken)

    assert postgres_kw.verify(bearer(key), **EVERY).code == "ok"  # it began before
    assert postgres_kw.verify(bearer(key), **EVERY).code == "invalidated"


# ---------------------------------------------------------------------------------------------------------- answers


def test_a_change_is_answered_when_every_worker_has_confirmed_it(postgres_kw: Keywright) -> None:
    """The answer of each verb says how many workers there are, that all know, and that it is complete."""
    key = make(postgres_kw)
    with again(postgres_kw) as one, again(postgres_kw) as two:
        for kw in (one, two):
            assert leased(kw).verify(bearer(key), **EVERY).code == "ok"
        now = postgres_kw.installation.clock()
        keys = postgres_kw.keys
        travelled = [
            keys.edit(key.key.id, name="Other").propagation,
            keys.rotate(key.key.id, grace_seconds=60).propagation,
            keys.finish(key.key.id).propagation,
            keys.disable(key.key.id).propagation,
            keys.enable(key.key.id).propagation,
            keys.invalidate(key.key.id).propagation,
            keys.invalidate(key.key.id).propagation,  # which changes nothing, and promises as much
            make(postgres_kw).propagation,
            postgres_kw.accounts.suspend("globex").propagation,
            postgres_kw.accounts.activate("globex").propagation,
        ]

        for one_change in travelled:
            assert one_change is not None
            assert (one_change.exact, one_change.workers, one_change.confirmed) == (True, 2, 2)
            assert now <= one_change.complete_by < now + SECOND * PATIENCE


def test_without_workers_a_change_is_complete(postgres_kw: Keywright) -> None:
    """Where nobody answers from memory, a change waits for nobody."""
    travelled = make(postgres_kw).propagation

    assert (travelled.exact, travelled.workers, travelled.confirmed) == (True, 0, 0)


def never_confirms(kw: Keywright, max_stale: int) -> None:
    """Register a worker that is heard of no more."""
    with kw.installation.database.write() as tx:
        statement = workers.REGISTER.replace("%s", "?")
        sql(tx, statement, f"gone-{max_stale}", "host 1", max_stale, 0, 1, 0)


def test_a_worker_that_never_confirms_delays_a_change_for_a_second_and_is_named(
    postgres_kw: Keywright,
) -> None:
    """A change waits a lease and a margin for a silent worker; then it says until when that one may serve the old state."""
    key = make(postgres_kw)
    never_confirms(postgres_kw, 0)
    began = time.monotonic()
    travelled = postgres_kw.keys.disable(key.key.id).propagation
    assert time.monotonic() - began >= 1
    assert (travelled.exact, travelled.workers, travelled.confirmed) == (True, 1, 0)

    never_confirms(postgres_kw, 60 * SECOND)
    now = postgres_kw.installation.clock()
    travelled = postgres_kw.keys.enable(key.key.id).propagation
    assert (travelled.exact, travelled.workers, travelled.confirmed) == (False, 2, 0)
    assert travelled.complete_by is not None
    assert now + 60 * SECOND < travelled.complete_by < now + 63 * SECOND


def test_the_command_says_who_may_still_serve_the_old_state(postgres_kw: Keywright, tmp_path: Path) -> None:
    """A verb names how many workers have not confirmed and until when; ``doctor`` says which machines they are on."""
    key, url = make(postgres_kw), postgres_kw.installation.database.url
    around = {"cwd": tmp_path, "KEYWRIGHT_SECRET": SECRET, "KEYWRIGHT_DATABASE": url}
    quiet = run("keys", "edit", key.key.id, "--name", "Other", **around)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    never_confirms(postgres_kw, 60 * SECOND)

    said = run("keys", "disable", key.key.id, "--json", **around)
    account = run("accounts", "suspend", "globex", **around)
    doctor = run("doctor", **around)

    told = json.loads(said.stdout)["propagation"]
    assert (told["exact"], told["workers"], told["confirmed"]) == (False, 1, 0)
    for one in (said, account):
        assert "1 of 1 workers has not confirmed it" in one.stderr
        assert "marked stale, until 20" in one.stderr
    assert "host 1" in doctor.stdout


def test_a_dead_worker_is_removed_and_delays_nobody_for_ever(
    postgres_kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registration that does not move for longer than its worker could serve is removed by another worker."""
    monkeypatch.setattr("keywright.feed.SWEEP_EVERY", SECOND // 20)
    never_confirms(postgres_kw, 0)
    leased(postgres_kw)

    eventually(lambda: len(confirmed(postgres_kw)) == 1)

    assert make(postgres_kw).propagation == Propagation(True, 1, 1, ANY)


class _Any:
    def __eq__(self, _: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY: Any = _Any()


def test_a_worker_that_was_removed_registers_again(postgres_kw: Keywright) -> None:
    """A worker whose registration is gone, as after a long stop, holds no lease until it has another, under another name."""
    leased(postgres_kw)
    with postgres_kw.installation.database.write() as tx:
        before = tx.exec_driver_sql("DELETE FROM workers RETURNING id").scalar_one()

    eventually(lambda: len(confirmed(postgres_kw)) == 1)

    with postgres_kw.installation.database.read() as connection:
        assert connection.exec_driver_sql("SELECT id FROM workers").scalar_one() != before
    assert make(postgres_kw).propagation.exact


# ----------------------------------------------------------------------------------------------------- what is cut off


@pytest.mark.security("R-07", "R-14", "T-63")
@pytest.mark.parametrize("how", ["cut", "silence"])
def test_a_worker_that_is_cut_off_serves_stale_answers_for_a_while_and_the_change_says_so(
    postgres_kw: Keywright, proxy: Proxy, how: str
) -> None:
    """Cut off, a worker serves what it knows marked stale, and nothing else, until ``max_stale``; the change names that time."""
    key, unknown = make(postgres_kw), make(postgres_kw)
    with (
        across(proxy, max_stale=3, clock=process_clock) as far,
        again(postgres_kw, clock=process_clock) as near,
    ):
        assert leased(far).verify(bearer(key), **EVERY).code == "ok"
        getattr(proxy, how)()
        eventually(lambda: far.verify(bearer(key), **EVERY).stale)
        travelled = near.keys.invalidate(key.key.id).propagation
        assert (travelled.exact, travelled.workers, travelled.confirmed) == (False, 1, 0)
        assert travelled.complete_by is not None

        last = 0
        while (verdict := far.verify(bearer(key), **EVERY)).code == "ok":
            assert verdict.stale
            last = process_clock()
            assert far.verify(bearer(unknown), **EVERY).code == "unavailable"
        assert (verdict.code, far.answer(verdict).status) == ("unavailable", 503)
        assert last < travelled.complete_by

        proxy.mend()
        eventually(lambda: far.verify(bearer(key), **EVERY).code == "invalidated")
        eventually(lambda: far.verify(bearer(unknown), **EVERY).code == "ok")


@pytest.mark.parametrize("settings", [{"max_stale": 0}, {"on_store_loss": "refuse"}])
def test_without_max_stale_a_cut_off_worker_serves_nothing_and_changes_are_complete(
    postgres_kw: Keywright, proxy: Proxy, settings: dict[str, Any]
) -> None:
    """With ``max_stale`` 0, or ``refuse``, no stale answer is ever given, and a change is exact after a second at most."""
    key = make(postgres_kw)
    with across(proxy, **settings) as far:
        assert leased(far).verify(bearer(key), **EVERY).code == "ok"
        proxy.cut()
        travelled = postgres_kw.keys.invalidate(key.key.id).propagation
        assert (travelled.exact, travelled.workers) == (True, 1)

        verdict = far.verify(bearer(key), **EVERY)
        assert (verdict.code, verdict.stale) == ("unavailable", False)
        proxy.mend()
        eventually(lambda: far.verify(bearer(key), **EVERY).code == "invalidated")


@pytest.mark.security("R-07", "T-27")
def test_without_the_push_channel_no_success_is_late(postgres_kw: Keywright, proxy: Proxy) -> None:
    """While the line on which changes are pushed is cut again and again, verifications ask, and every change holds at once."""
    with across(proxy) as far:
        leased(far)
        proxy.cut_push()
        for n in range(3):
            key = make(postgres_kw, name=f"key {n}")
            assert far.verify(bearer(key), **EVERY).code == "ok"
            postgres_kw.keys.invalidate(key.key.id)
            assert far.verify(bearer(key), **EVERY).code == "invalidated"
        eventually(lambda: feed(far).lease.basis(boottime()) != "memory")
        assert far.verify(bearer(make(postgres_kw)), **EVERY).code == "ok"


@pytest.mark.security("R-07")
def test_without_pushes_changes_are_asked_for(
    postgres_kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is told of nothing finds changes by itself, and confirms them."""
    monkeypatch.setattr("keywright.store.workers.LISTEN", "SELECT 1")
    with again(postgres_kw) as other:
        leased(other)
        for n in range(5):
            key = make(postgres_kw, name=f"key {n}")
            assert other.verify(bearer(key), **EVERY).code == "ok"
            assert postgres_kw.keys.disable(key.key.id).propagation.confirmed == 1
            assert other.verify(bearer(key), **EVERY).code == "disabled"


@pytest.mark.parametrize("hours", [1, -1, 24, -24])
def test_a_clock_that_jumps_moves_no_lease(postgres_kw: Keywright, proxy: Proxy, hours: int) -> None:
    """Leases and stale answers go by a clock that nobody sets: an hour or a day to and fro makes none longer or shorter."""
    clock = Clock()
    key = make(postgres_kw)
    with across(proxy, clock=clock, max_stale=2) as far:
        assert leased(far).verify(bearer(key), **EVERY).code == "ok"
        until = feed(far).lease.until
        clock.advance(hours=hours)
        assert until <= feed(far).lease.until <= boottime() + SECOND
        assert far.verify(bearer(key), **EVERY).code == "ok"
        assert postgres_kw.keys.disable(key.key.id).propagation.exact
        assert far.verify(bearer(key), **EVERY).code == "disabled"
        assert postgres_kw.keys.enable(key.key.id).propagation.exact
        assert far.verify(bearer(key), **EVERY).code == "ok"

        proxy.cut()
        clock.advance(hours=-hours)
        eventually(lambda: far.verify(bearer(key), **EVERY).code == "unavailable")
        assert far.installation.clock() == clock()


# --------------------------------------------------------------------------------------------------------- processes


@pytest.mark.security("T-27", "R-06")
@pytest.mark.full("stopped for five seconds")
def test_a_worker_that_is_stopped_amid_a_revocation_has_no_late_success(postgres_kw: Keywright) -> None:
    """A worker that is stopped in its tracks, and goes on seconds after the change was answered, refuses the key at once."""
    url = postgres_kw.installation.database.url
    with again(postgres_kw, clock=process_clock) as own, Child("hammer", url) as child:
        key, others = make(own), [make(own) for _ in range(STOPPED_FOR)]
        child.send(headers=bearer(key), scopes=["things:write"])
        assert child.hear() == {"warm": True}
        eventually(lambda: len(confirmed(own)) == 1)
        child.process.send_signal(signal.SIGSTOP)
        travelled = own.keys.invalidate(key.key.id).propagation
        answered = time.monotonic_ns()
        for other in others:
            own.keys.invalidate(other.key.id)  # a second each
        child.process.send_signal(signal.SIGCONT)
        said = child.hear()

    assert (travelled.workers, travelled.confirmed) == (1, 0)
    assert said["last"] < answered
    assert (said["late"], said["code"]) == (0, "invalidated")


class Load:
    """Requests with one key to one node, hundreds a second; when each success began."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._door, self._headers = Door(port), headers
        self.began: list[int] = []
        self.refused = threading.Event()
        self.statuses: Counter[int] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        refused = 0
        while refused < 3 and not self._stop.is_set():
            began = time.monotonic_ns()
            status = self._door("GET", "/k/every.production/whoami", self._headers).status
            self.statuses[status] += 1
            if status == 200:
                self.began.append(began)
            else:
                refused += 1
            self._stop.wait(0.002)

    def ended(self) -> None:
        """Wait until it was refused."""
        self._thread.join(PATIENCE)
        self._stop.set()
        self._door.close()


@pytest.mark.requirement("X-10", "F-28")
@pytest.mark.security("R-06", "T-27")
@pytest.mark.full("five hundred revocations")
def test_a_fleet_under_load_has_no_late_success(postgres_kw: Keywright, tmp_path: Path) -> None:
    """Three nodes of two workers, all verifying: no success begins after a revocation by any node was answered."""
    url, draw = postgres_kw.installation.database.url, random.Random(6)
    manager = bearer(postgres_kw.keys.create_management(name="ops", scopes=["keys:write"]))
    late, spent, statuses = [], [], Counter[int]()
    with ExitStack() as nodes:
        served = [
            nodes.enter_context(Served(url, tmp_path, KEYWRIGHT_SECRET=SECRET, KEYWRIGHT_WORKERS="2"))
            for _ in range(3)
        ]
        doors = [Door(node.port) for node in served]
        for door in doors * 2:
            assert door("GET", "/v1/keys", manager).status == 403  # the API is made at its first request
        for n in range(REVOCATIONS):
            key = make(postgres_kw, name=f"key {n}")
            loads = [Load(node.port, bearer(key)) for node in served for _ in range(2)]
            eventually(lambda loads=loads: all(len(load.began) > 2 for load in loads))
            began = time.monotonic()
            answer = draw.choice(doors)("POST", f"/v1/keys/{key.key.id}/invalidate", manager)
            answered = time.monotonic_ns()
            spent.append(time.monotonic() - began)
            assert (answer.status, answer.json["propagation"]["exact"]) == (200, True)
            for load in loads:
                load.ended()
                late += [began - answered for began in load.began if began >= answered]
                statuses += load.statuses
    if FULL:
        tell("revocations", spent)

    assert late == []
    assert set(statuses) == {200, 401}
    assert len(confirmed(postgres_kw)) == 0  # who ends in order leaves the list
