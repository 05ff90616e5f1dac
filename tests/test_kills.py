"""Limits and counts with real processes that are killed and stopped: never more than the limit, never twice, nothing lost."""

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from child import PATIENCE, Child
from conftest import again, bearer, make
from keywright import Issued, Keywright
from processes import Door, Running

pytestmark = pytest.mark.stores

EVERY = {"keyspace": "every", "environment": "production"}
PROOF = bool(os.environ.get("KEYWRIGHT_PROOF"))
QUOTA, PACE, KILL_EVERY, SPAN = (10_000, 0.256, 2.0, 40.0) if PROOF else (1000, 0.1, 0.3, 1.6)
COUNTED = 1_000_000 if PROOF else 20_000
STOPPED = 5.0 if PROOF else 0.5


class Farm:
    """Workers forked from one process, and what they have said so far."""

    def __init__(self, url: str) -> None:
        self._child = Child("farm", url)
        self.codes: Counter[str] = Counter()
        self.living: set[int] = set()
        self.done: set[int] = set()
        self._heard = threading.Condition()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def start(self, role: str, key: Issued, **job: Any) -> None:
        """One more worker."""
        many = len(self.living) + 1
        self._child.send(role=role, headers=bearer(key), **job)
        self.until(lambda: len(self.living) >= many)

    def kill(self, pid: int, how: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        os.kill(pid, how)
        if how == signal.SIGKILL:
            self.living.discard(pid)

    def until(self, holds: Any, seconds: float = PATIENCE * 4) -> bool:
        """Wait until something holds of what was said."""
        with self._heard:
            return bool(self._heard.wait_for(holds, seconds))

    def _listen(self) -> None:
        while said := self._child.hear():
            with self._heard:
                if "started" in said:
                    self.living.add(said["started"])
                elif "code" in said:
                    self.codes[said["code"]] += 1
                elif "closed" in said:
                    self.living.discard(said["pid"])
                elif "done" in said:
                    self.done.add(said.get("pid", 0))
                self._heard.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in list(self.living):
            self.kill(pid)
        self._child.__exit__()


def used(kw: Keywright) -> dict[str, int]:
    """What the store has down as used, by the limit's name."""
    with kw.installation.database.read("spend") as connection:
        rows = connection.exec_driver_sql("SELECT name, sum(used) FROM spent GROUP BY name").all()
    return {name: int(total) for name, total in rows}


def total(kw: Keywright) -> int:
    """All that was counted, after everybody who died was seen to."""
    return kw.installation.usage.report(by="total").total


@pytest.mark.requirement("B-16")
@pytest.mark.security("R-09", "T-30")
@pytest.mark.full("ten thousand by sixty-four clients over forty seconds, a worker killed every two")
def test_a_quota_outlives_its_workers(kw: Keywright) -> None:
    """Sixty-four clients on four workers, one killed again and again: never more than the quota, at least 99 % of it."""
    key = make(kw, limits=[f"{QUOTA}/month"])
    draw, kills = random.Random(8), 0
    with Farm(kw.installation.database.url) as farm:
        for _ in range(4):
            farm.start("calls", key, threads=16, pace=PACE)
        until = time.monotonic() + SPAN
        while time.monotonic() < until and farm.codes["ok"] < QUOTA * 0.95:
            farm.until(lambda: False, KILL_EVERY)
            farm.kill(draw.choice(sorted(farm.living)))
            farm.start("calls", key, threads=16, pace=PACE)
            kills += 1
        assert farm.until(lambda: not farm.living), farm.codes
        codes = farm.codes

    assert kills >= 3
    assert QUOTA * 0.99 <= codes["ok"] <= QUOTA
    assert set(codes) <= {"ok", "quota_exhausted", "unavailable"}
    counted = total(kw)
    assert codes["ok"] <= used(kw)["quota-month"] <= QUOTA
    assert codes.total() <= counted <= codes.total() + kills * 16


@pytest.mark.requirement("B-13")
@pytest.mark.security("R-32")
@pytest.mark.full("a million verifications")
def test_counts_outlive_their_workers(kw: Keywright) -> None:
    """Four workers that are killed as soon as they have called: usage is what the clients have counted, exactly."""
    key = make(kw)
    rounds, each = 5, COUNTED // 20
    with Farm(kw.installation.database.url) as farm:
        for n in range(rounds):
            for _ in range(4):
                farm.start("calls", key, times=each // 2, threads=2, stay=True)
            assert farm.until(lambda n=n: len(farm.done) == 4 * (n + 1))
            for pid in list(farm.living):
                farm.kill(pid)
        codes = farm.codes

    assert codes.total() == COUNTED
    assert codes["ok"] > COUNTED * 0.99  # a busy machine may keep PostgreSQL waiting
    deadline = time.monotonic() + PATIENCE
    while kw.installation.upkeep.inherit() or total(kw) < COUNTED:
        assert time.monotonic() < deadline, total(kw)
    assert total(kw) == COUNTED
    assert kw.keys.get(key.key.id).last_used_at is not None


@pytest.mark.security("R-32")
def test_a_kill_between_flush_and_acknowledgement_counts_once(kw: Keywright) -> None:
    """A worker that is killed when the store has its batch, and before it has heard so, is counted once."""
    key = make(kw, limits=["100000/day"])
    with Farm(kw.installation.database.url) as farm:
        farm.start("die_flushing", key, times=50)
        deadline = time.monotonic() + PATIENCE
        while not kw.installation.upkeep.inherit():
            assert time.monotonic() < deadline
        farm.living.clear()

    assert total(kw) == 50
    assert used(kw) == {"quota-day": 50}


@pytest.mark.security("R-09", "R-32")
@pytest.mark.full("five seconds")
def test_a_stopped_worker_loses_and_doubles_nothing(kw: Keywright) -> None:
    """A worker that is stopped for a while amid its work keeps what it holds, and goes on with it; all adds up."""
    key = make(kw, limits=["100000/month"])
    with again(kw) as other, Farm(kw.installation.database.url) as farm:
        other.installation.clock.at = kw.installation.clock.at  # type: ignore[attr-defined]
        farm.start("calls", key, times=200, threads=4, pace=0.002)
        assert farm.until(lambda: farm.codes["ok"] > 100)
        (pid,) = farm.living
        farm.kill(pid, signal.SIGSTOP)
        resumed = threading.Timer(STOPPED, lambda: os.kill(pid, signal.SIGCONT))
        resumed.start()
        while resumed.is_alive():
            assert other.installation.upkeep.inherit() == 0
            resumed.join(0.05)
        assert farm.until(lambda: not farm.living)
        codes = farm.codes

    assert codes == {"ok": 800}
    assert total(kw) == 800
    assert sum(used(kw).values()) == 800


def test_a_forked_host_shares_nothing_by_accident(kw: Keywright) -> None:
    """What a parent holds is not spent by its child, whose own comes back when it is killed."""
    key = make(kw, limits=["100000/month"])
    with Farm(kw.installation.database.url) as farm:
        farm.start("forked", key, times=30)
        assert farm.until(lambda: not farm.living)
    deadline = time.monotonic() + PATIENCE
    while total(kw) < 90:
        assert time.monotonic() < deadline
    assert (total(kw), used(kw)) == (90, {"quota-month": 90})


@pytest.mark.requirement("B-15", "B-16")
@pytest.mark.security("R-10", "T-33")
@pytest.mark.parametrize("limit", ["10/minute", "rate:10/1m"])
def test_ten_a_minute_on_four_workers_are_ten(kw: Keywright, limit: str) -> None:
    """Four workers together grant exactly ten in a minute, and ten again in the next."""
    key = make(kw, limits=[limit])
    with ExitStack() as stack:
        children = [stack.enter_context(Child("timed", kw.installation.database.url)) for _ in range(4)]
        for at in ("2027-01-15T12:00:05+00:00", "2027-01-15T12:01:30+00:00", "2027-01-15T12:03:00+00:00"):
            for child in children:
                child.send(at=at, times=20, headers=[bearer(key)])
            assert sum(child.hear()["granted"] for child in children) == 10, at


@pytest.mark.security("T-32")
def test_two_keys_of_an_account_get_its_limit_or_nothing(kw: Keywright) -> None:
    """Four workers that spend with two keys from one account's quota: each call takes from both limits or from none."""
    kw.accounts.limit("globex", ["1000/month"])
    keys = [make(kw, limits=["100000/day"]) for _ in range(2)]
    with ExitStack() as stack:
        children = [stack.enter_context(Child("timed", kw.installation.database.url)) for _ in range(4)]
        for child in children:
            child.send(at="2027-01-15T12:00:05+00:00", times=300, headers=[bearer(key) for key in keys])
        granted = sum(child.hear()["granted"] for child in children)

    assert 990 <= granted <= 1000
    assert used(kw) == {"quota-month": granted, "quota-day": granted}


@pytest.mark.sqlite_only("a server is started, which PostgreSQL adds nothing to")
@pytest.mark.security("R-32")
def test_a_server_that_is_ended_has_counted_all_that_it_answered(kw: Keywright, tmp_path: Path) -> None:
    """Two workers of a server answer on several connections until SIGTERM: usage is what was answered, to the one."""
    key = make(kw, limits=["100000/month"])
    serve = ("serve", "--port", "0", "--workers", "2", "--database", kw.installation.database.url)
    with Running(*serve, cwd=tmp_path) as served:
        port = int(served.until(r"listening\s+http://[^:]+:(\d+)")[1])
        asked = bearer(key) | {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/things"}

        def ask() -> None:
            door = Door(port)
            for _ in range(100):
                answered.append(door("GET", "/authz/forward/every.production", asked).status)

        answered: list[int] = []
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert served.stop() == 0

    assert answered == [200] * 400
    assert (total(kw), used(kw)) == (400, {"quota-month": 400})
    assert not kw.installation.slots.directory.exists()
