"""Blocks and slots: a warm request asks nobody, and whatever is killed, what is left comes back, once."""

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import EVERY as EVERY_SOURCE
from conftest import again, bearer, make, sql
from keywright import Conflict, Issued, Keywright, Verdict, slots
from keywright.blocks import IDLE_FOR, Blocks
from keywright.errors import Unavailable
from keywright.meter import Meter
from keywright.model import KeyRecord
from keywright.slots import Slots
from keywright.store import changes
from keywright.store.db import Database
from keywright.testing import Clock
from keywright.upkeep import Upkeep
from processes import PATIENCE

pytestmark = pytest.mark.stores

EVERY = {"keyspace": "every", "environment": "production"}


def call(kw: Keywright, key: Issued, *, times: int = 1, cost: int = 1) -> list[Verdict]:
    """Call so many times."""
    return [kw.verify(bearer(key), **EVERY, cost=cost) for _ in range(times)]


def left(verdict: Verdict, name: str = "quota-day") -> int:
    """What is left of a limit."""
    return next(state.remaining for state in verdict.limits if state.name == name)


def used(database: Database) -> int:
    """All that the store has down as used of quotas and credits."""
    with database.read("spend") as connection:
        return int(connection.exec_driver_sql("SELECT coalesce(sum(used), 0) FROM spent").scalar_one())


def rows(database: Database, table: str, which: str = "spend") -> int:
    """How many rows a table has."""
    with database.read(which) as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


@contextmanager
def watched(kw: Keywright, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every transaction that is opened until the block ends."""
    database, opened = kw.installation.database, []
    write = database.write

    def noting(which: str = "keys", *, lasting: bool = False) -> Any:
        opened.append(which)
        return write(which, lasting=lasting)

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", noting)
        yield opened


# ------------------------------------------------------------------------------------------------------ warm and exact


def test_a_warm_call_asks_nobody(kw: Keywright, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the third call on, a thousand calls on a large quota, beside an account's and a rate, open no spend transaction."""
    kw.accounts.limit("globex", ["10000000/month"])
    key = make(kw, limits=["1000000/day", "rate:1000000/1h"])
    call(kw, key, times=2)
    with watched(kw, monkeypatch) as opened:
        verdicts = call(kw, key, times=1000)

    assert "spend" not in opened
    assert {verdict.code for verdict in verdicts} == {"ok"}
    assert [left(verdict) for verdict in verdicts] == list(range(999_997, 998_997, -1))
    assert left(verdicts[-1], "account-quota-month") == 10_000_000 - 1002
    assert verdicts[-1].limits[0].reset_seconds == 11 * 3600 + 59 * 60 + 30


@pytest.mark.requirement("X-17")
def test_every_unit_is_granted_and_no_more(kw: Keywright) -> None:
    """One process is granted a quota to the last unit, in blocks and without, and the count of what is left never errs."""
    key = make(kw, limits=["1000/day"])
    verdicts = call(kw, key, times=1010)

    assert Counter(verdict.code for verdict in verdicts) == {"ok": 1000, "quota_exhausted": 10}
    assert [left(verdict) for verdict in verdicts] == [*range(999, -1, -1), *[0] * 10]


def test_an_exhausted_limit_is_remembered(
    kw: Keywright, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusals after the first cost the store nothing, say the same, and end with the period or a raised limit."""
    key = make(kw, limits=["5/day", "rate:1000/1h"])
    call(kw, key, times=5)
    first = call(kw, key)[0]
    with watched(kw, monkeypatch) as opened:
        clock.advance(seconds=10)
        later = call(kw, key, times=50)[-1]
    assert "spend" not in opened
    assert (first.code, first.retry_after) == ("quota_exhausted", 11 * 3600 + 59 * 60 + 30)
    assert (later.code, later.retry_after) == ("quota_exhausted", 11 * 3600 + 59 * 60 + 20)
    assert kw.answer(later).status == 429

    kw.keys.edit(key.key.id, limits=["6/day", "rate:1000/1h"])
    assert [verdict.code for verdict in call(kw, key, times=2)] == ["ok", "quota_exhausted"]
    clock.advance(hours=12)
    assert call(kw, key)[0].code == "ok"


def test_an_exhausted_rate_is_remembered_as_long_as_it_lasts(
    kw: Keywright, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused rate is not asked again before it gives, and the wait that is told suffices."""
    key = make(kw, limits=["rate:5/10s"])
    call(kw, key, times=5)
    wait = call(kw, key)[0].retry_after
    assert wait is not None
    with watched(kw, monkeypatch) as opened:
        clock.advance(seconds=wait - 1)
        refused = call(kw, key, times=20)[-1]
    assert "spend" not in opened
    assert (refused.code, refused.retry_after) == ("rate_limited", 1)
    clock.advance(seconds=1)
    assert call(kw, key)[0].code == "ok"


@pytest.mark.requirement("B-16")
def test_a_lowered_limit_holds_at_once_though_a_block_is_held(kw: Keywright) -> None:
    """Lowered below what was used, nothing of what was taken ahead is spent, here or in another opening; raised, it is."""
    key = make(kw, limits=["100000/day"])
    with again(kw) as other:
        for opened in (kw, other):
            assert {verdict.code for verdict in call(opened, key, times=20)} == {"ok"}
        kw.keys.edit(key.key.id, limits=["40/day"])
        for opened in (kw, other):
            assert call(opened, key)[0].code == "quota_exhausted"
        kw.keys.edit(key.key.id, limits=["50000/day"])
        verdicts = [verdict for opened in (kw, other) for verdict in call(opened, key, times=5)]
        assert {verdict.code for verdict in verdicts} == {"ok"}
    kw.close()
    assert used(kw.installation.database) == 50


@pytest.mark.security("T-32")
def test_a_refusal_charges_no_block(kw: Keywright) -> None:
    """Where one limit refuses, what a call would have taken from another's block is still there."""
    kw.accounts.limit("globex", ["30/month"])
    key = make(kw, limits=["100000/day"])
    assert Counter(verdict.code for verdict in call(kw, key, times=50)) == {"ok": 30, "quota_exhausted": 20}
    kw.accounts.limit("globex", [])
    assert left(call(kw, key)[0]) == 100_000 - 31
    kw.close()
    assert used(kw.installation.database) == 31 + 30


@pytest.mark.requirement("B-16")
def test_two_openings_share_a_quota_to_the_last_hundredth(kw: Keywright) -> None:
    """Two workers that take turns are never granted more than the quota, and at least ninety-nine hundredths of it."""
    key = make(kw, limits=["1000/day"])
    with again(kw) as other:
        codes = [verdict.code for _ in range(600) for opened in (kw, other) for verdict in call(opened, key)]
    assert 990 <= codes.count("ok") <= 1000


@pytest.mark.security("R-10")
def test_a_rate_with_blocks_is_over_by_a_hundredth_at_most(kw: Keywright, clock: Clock) -> None:
    """No stretch of a window's length holds more than a rate and its hundredth, however calls fall and whoever takes them."""
    key = make(kw, limits=["rate:2000/10s"])
    draw, passed = random.Random(4), []
    with again(kw, clock=clock) as other:
        for _ in range(60):
            many = draw.choice([0, 0, 30, 300, 900])
            opened = draw.choice([kw, other])
            passed.append((clock(), sum(verdict.code == "ok" for verdict in call(opened, key, times=many))))
            clock.advance(seconds=draw.choice([0, 0.2, 1, 3, 9]))
    window = [sum(times for at, times in passed if begin <= at < begin + 10_000_000) for begin, _ in passed]
    assert max(window) <= 2020
    assert max(window) > 1500


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_jumps_grants_no_period_twice(kw: Keywright, clock: Clock, hours: int) -> None:
    """An hour forth or back and home again: each hour is granted its quota once, blocks or not."""
    large, small = make(kw, limits=["1000/hour"]), make(kw, limits=["10/hour"])
    granted: Counter[tuple[str, int]] = Counter()
    here = clock.at
    for jump in (0, hours, 0, hours, 0):
        clock.at = here
        clock.advance(hours=jump)
        for name, key, times in (("large", large, 400), ("small", small, 8)):
            granted[name, jump] += sum(verdict.code == "ok" for verdict in call(kw, key, times=times))

    assert granted["small", 0] == granted["small", hours] == 10
    assert 990 <= granted["large", 0] <= 1000
    assert granted["large", hours] == 800


def test_what_nobody_spends_from_goes_back(kw: Keywright) -> None:
    """A block that was left alone for ten seconds is given back, and taken anew when it is wanted."""
    key = make(kw, limits=["100000/day"])
    call(kw, key, times=5)
    database, blocks = kw.installation.database, kw.installation.blocks
    assert used(database) > 5
    for _ in range(IDLE_FOR + 2):
        blocks._tidy()
    assert (used(database), rows(database, "blocks")) == (5, 0)
    assert left(call(kw, key)[0]) == 100_000 - 6


def test_closing_leaves_nothing_behind(kw: Keywright) -> None:
    """After ``close`` exactly what was granted is used, nobody holds anything, and no slot file is left."""
    key = make(kw, limits=["100000/day"])
    call(kw, key, times=37)
    directory = kw.installation.slots.directory
    assert len(list(directory.iterdir())) == 1
    kw.close()
    assert not directory.exists()
    assert (used(kw.installation.database), rows(kw.installation.database, "blocks")) == (37, 0)


def test_what_is_asked_of_limits_after_the_end_is_answered(kw: Keywright) -> None:
    """Whoever verifies while an installation is closed is told so; nobody waits for ever, and nothing is held anew."""
    key = make(kw, limits=["10/day"])
    call(kw, key)
    writer = kw.installation.blocks._thread
    kw.close()
    late = call(kw, key)[0]

    assert (late.code, kw.installation.blocks._thread, writer.is_alive()) == ("unavailable", None, False)  # type: ignore[union-attr]
    assert (used(kw.installation.database), rows(kw.installation.database, "blocks")) == (1, 0)


def test_nobody_is_forgotten_while_the_installation_is_closed(kw: Keywright) -> None:
    """Of many threads that ask while another closes each has an answer: it was asked before, or is told."""
    for _ in range(15):
        with again(kw) as other:
            key = make(other, limits=["10/day"])
            threads = [
                threading.Thread(target=call, args=(other, key), kwargs={"times": 20, "cost": 0})
                for _ in range(4)
            ]
            for thread in threads:
                thread.daemon = True
                thread.start()
            other.installation.blocks.close()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()


def test_without_a_slot_file_every_call_asks_the_store(kw: Keywright, tmp_path: Path) -> None:
    """Where no slot file can be made limits are as exact, and counts arrive: only nothing is taken ahead."""
    (tmp_path / "taken").touch()
    key = make(kw, limits=["10000/day"])
    with again(kw, slots=tmp_path / "taken") as bare:
        assert {verdict.code for verdict in call(bare, key, times=20)} == {"ok"}
        assert used(bare.installation.database) == 20
        assert bare.installation.usage.report(by="total").total == 20


def test_a_plan_that_disappears_makes_its_keys_unavailable(kw: Keywright) -> None:
    """A key whose plan is not defined any more is ``unavailable``, whatever is held of it, and works when it is back."""
    kw.keyspaces.apply(EVERY_SOURCE.replace("5/day", "50000/day"))
    key = make(kw, plan="small")
    assert {verdict.code for verdict in call(kw, key, times=10)} == {"ok"}
    with pytest.raises(Conflict, match="there are keys on it"):
        kw.keyspaces.apply(EVERY_SOURCE.replace("[plans.small]", "[plans.other]"))
    with kw.installation.database.write() as tx:  # by somebody's own hand, or an older copy
        definition = json.loads(sql(tx, "SELECT definition FROM keyspaces WHERE name = 'every'").scalar_one())
        del definition["plans"]["small"]
        sql(tx, "UPDATE keyspaces SET definition = ? WHERE name = 'every'", json.dumps(definition))
        changes.note(tx, "keyspace", "every", kw.installation.clock())
    deadline = time.monotonic() + PATIENCE
    while (refused := call(kw, key, cost=0)[0]).code == "ok":  # on PostgreSQL the change is on its way
        assert time.monotonic() < deadline
    assert (refused.code, kw.answer(refused).status) == ("unavailable", 503)
    assert call(kw, key)[0].code == "unavailable"
    kw.keyspaces.apply(EVERY_SOURCE.replace("5/day", "50000/day"))
    assert left(call(kw, key)[0], "plan-quota-day") == 50_000 - 11


def test_a_block_grows_beyond_what_two_bytes_hold(kw: Keywright) -> None:
    """What is taken in portions is added up exactly, however far: 30,000 and 5,000 are 35,000."""
    key = make(kw, limits=["100000/day"])

    codes = [verdict.code for verdict in call(kw, key, times=101, cost=1_000)]

    assert codes == ["ok"] * 100 + ["quota_exhausted"]


# -------------------------------------------------------------------------------------------------- killed, by the seed


class Killed(BaseException):
    """The process ends here."""


class Dying:
    """A database whose user may be killed before or after any commit."""

    def __init__(self, database: Database, draw: random.Random) -> None:
        self._database = database
        self._draw = draw
        self.deadly = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @contextmanager
    def write(self, which: str = "keys", *, lasting: bool = False) -> Iterator[Any]:
        """A transaction that may be the last thing that is done, and may not be done."""
        fate = self._draw.random()
        with self._database.write(which, lasting=lasting) as tx:
            yield tx
            if fate < self.deadly / 2:
                raise Killed
        if fate < self.deadly:
            raise Killed


class Worker:
    """One worker of the simulation: it does what the threads of a process do, when it is told to."""

    def __init__(self, kw: Keywright, draw: random.Random, deadly: float) -> None:
        database = Dying(kw.installation.database, draw)
        self.database = database
        self.slots = Slots(kw.installation.slots.directory, kw.installation.clock)
        self.upkeep = Upkeep(database, self.slots, kw.installation.clock, minutes_kept=7, hours_kept=90)  # type: ignore[arg-type]
        self.meter = Meter(database, self.slots)  # type: ignore[arg-type]
        self.blocks = Blocks(database, self.slots)  # type: ignore[arg-type]
        self.meter._start = self.blocks._start = lambda: None  # type: ignore[method-assign]
        database.deadly = deadly

    def run(self, record: KeyRecord, cost: int, now: int) -> bool:
        """One request, from charge to count; whether it was granted. Raises ``Killed``."""
        spent = self.blocks.at_once(record, cost, now)
        if spent is None:
            future = self.blocks.ask(record, cost, now)
            self.work()
            spent = future.result(0)
        self.meter.count(
            record, "every", "production", "ok" if spent.granted else "quota_exhausted", None, now, (1, None)
        )
        return spent.granted

    def work(self) -> None:
        """What the writer thread does with what is waiting."""
        while not self.blocks._waiting.empty():
            batch = self.blocks._gather()
            asks = [job for job in batch if hasattr(job, "future")]
            for job in asks:
                job.future.set_running_or_notify_cancel()  # type: ignore[union-attr]
            self.blocks._transact(asks, [job for job in batch if hasattr(job, "purse")])  # type: ignore[arg-type]

    def die(self) -> None:
        """The kernel lets go of what the process had."""
        self.slots.close(empty=False)


@pytest.mark.security("R-09", "R-32", "T-30", "T-32")
@pytest.mark.full("fifty seeds")
@pytest.mark.parametrize("seed", range(50 if os.environ.get("KEYWRIGHT_PROOF") else 3))
def test_kills_at_every_commit_lose_and_double_nothing(kw: Keywright, clock: Clock, seed: int) -> None:
    """Workers that are killed before and after commits, successors too, grant a quota once and count each call once."""
    draw = random.Random(seed)
    kw.installation.meter._aside = lambda: None  # nobody interferes who does not draw
    key = make(kw, limits=["2000/day", "credits:100000"])
    kw.accounts.limit("globex", ["3000/month"])
    record = call(kw, key)[0].key
    assert record is not None
    workers = [Worker(kw, draw, 0.15) for _ in range(3)]
    granted, counted, unsure, kills = 1, 1, 0, 0
    for _ in range(1500):
        place = draw.randrange(len(workers))
        worker, cost = workers[place], draw.choice([1, 1, 1, 2, 7])
        doing = draw.random()
        try:
            if doing < 0.93:
                unsure += cost
                passed = worker.run(record, cost, clock())
                unsure -= cost
                granted, counted = granted + cost * passed, counted + 1
            elif doing < 0.96:
                worker.meter.flush()
            elif doing < 0.98:
                worker.upkeep.inherit()
            else:
                worker.blocks._tidy()
        except Killed:
            kills += 1
            worker.die()
            workers[place] = Worker(kw, draw, 0.15)
    for worker in workers:
        worker.die()
    kw.installation.upkeep.inherit()

    assert kills > 30
    kw.close()
    with kw.installation.database.read("spend") as connection:
        spent = dict(connection.exec_driver_sql("SELECT name, sum(used) FROM spent GROUP BY name").all())
    # Of a call that was under way when its worker was killed, all, some or none of the limits may have been charged.
    assert all(granted <= taken <= granted + unsure for taken in spent.values()), (granted, unsure, spent)
    assert 1980 - 7 <= spent["quota-day"] <= 2000
    with kw.installation.database.read("usage") as connection:
        total = connection.exec_driver_sql("SELECT sum(count) FROM usage_minutes").scalar_one()
    assert total == counted
    assert rows(kw.installation.database, "blocks") == 0
    assert not kw.installation.slots.directory.exists()


def test_a_living_worker_is_left_alone(kw: Keywright) -> None:
    """What a worker holds is nobody else's for as long as its lock is held, however long it does nothing."""
    key = make(kw, limits=["100000/day"])
    call(kw, key, times=10)
    with again(kw) as other:
        call(other, key, times=10)
        assert other.installation.upkeep.inherit() == kw.installation.upkeep.inherit() == 0
        assert kw.installation.upkeep.forget() == 0
        assert rows(kw.installation.database, "blocks") == 2


def test_a_machine_that_stopped_forfeits_what_was_held(
    kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots of another run of the machine are not believed: nothing is given back, and counts arrive all the same."""
    key = make(kw, limits=["100000/day"])
    call(kw, key, times=10)
    before = used(kw.installation.database)
    with again(kw) as other:
        kw.installation.slots.close(empty=False)
        monkeypatch.setattr(slots, "boot", lambda: "another")
        assert other.installation.upkeep.inherit() == 1
        assert used(kw.installation.database) == before > 10
        assert rows(kw.installation.database, "blocks") == 0
        assert other.installation.usage.report(by="total").total == 10
    kw.installation.slots.after_fork()
    kw.installation.blocks.after_fork()
    kw.installation.meter.after_fork()


@pytest.mark.sqlite_only("on PostgreSQL they may be on another machine")
def test_whose_slots_are_gone_holds_nothing(kw: Keywright) -> None:
    """A worker whose slot file was removed is forgotten, and what it held stays spent."""
    key = make(kw, limits=["100000/day"])
    call(kw, key, times=10)
    kw.installation.slots.path.unlink()
    with again(kw) as other:
        before = used(other.installation.database)
        other.installation.upkeep.forget()
        assert (rows(other.installation.database, "blocks"), used(other.installation.database)) == (0, before)
        assert left(call(kw, key)[0]) == 100_000 - 11


# ---------------------------------------------------------------------------------------------------- without the store


@contextmanager
def no_spending(kw: Keywright, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that is spent can be written, until the block ends."""
    database = kw.installation.database
    write = database.write

    def refusing(which: str = "keys", *, lasting: bool = False) -> Any:
        if which == "spend":
            raise Unavailable("the disk is full")
        return write(which, lasting=lasting)

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", refusing)
        yield
    kw.installation.blocks._down_until = 0.0


@pytest.mark.security("R-10", "R-17")
def test_without_the_store_rates_go_on_and_quotas_do_not(
    kw: Keywright, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota is ``unavailable`` once what is held is spent; a rate is kept here, to its limit; nothing is charged twice."""
    rate, quota = make(kw, limits=["rate:10/10s"]), make(kw, limits=["50/day"])
    both = make(kw, limits=["rate:10/10s", "50000/day"])
    for key in (rate, quota, both):
        call(kw, key, times=4)
    with no_spending(kw, monkeypatch):
        assert Counter(v.code for v in call(kw, rate, times=20)) == {"ok": 6, "rate_limited": 14}
        assert Counter(v.code for v in call(kw, both, times=20)) == {"ok": 6, "rate_limited": 14}
        refused = call(kw, quota)[0]
        assert (refused.code, kw.answer(refused).status) == ("unavailable", 503)
        assert kw.installation.blocks.failed_open > 0
        wait = call(kw, rate)[0].retry_after
        assert wait is not None
        clock.advance(seconds=wait)
        assert call(kw, rate)[0].code == "ok"
    assert left(call(kw, quota)[0]) == 45
    assert left(call(kw, both)[0]) == 50_000 - 11


@pytest.mark.security("R-10")
def test_without_the_store_a_rate_is_shared_among_the_workers(
    kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four workers that cannot ask keep to a quarter of a rate each."""
    key = make(kw, limits=["rate:100/10s"])
    directory = kw.installation.slots.directory
    call(kw, key, times=1)
    with no_spending(kw, monkeypatch):
        for n in range(3):
            (directory / f"{n}.slots").touch()
        assert sum(verdict.code == "ok" for verdict in call(kw, key, times=100)) == 24
    for n in range(3):
        (directory / f"{n}.slots").unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------------------------- growth


def test_what_is_over_is_forgotten(kw: Keywright, clock: Clock) -> None:
    """Figures of periods and windows a month over go, and marks of workers long gone; what still counts stays."""
    kw.installation.meter._stop.set()  # a flush, which comes every second, would leave a mark of its own
    key = make(kw, limits=["5/day", "5/month", "credits:50", "rate:5/1h"])
    call(kw, key, times=2)
    database = kw.installation.database
    with database.write("usage") as tx:
        tx.exec_driver_sql("INSERT INTO flushed (worker, batch, at) VALUES ('gone', 3, 5)")
    clock.advance(days=20)
    assert call(kw, key)[0].code == "ok"
    assert (rows(database, "spent"), rows(database, "rated")) == (5, 1)
    assert kw.installation.upkeep.forget() == 2  # January, and the mark
    clock.advance(days=40)
    assert kw.installation.upkeep.forget() == 3 + 1
    assert (rows(database, "spent"), rows(database, "rated")) == (1, 0)
    assert left(call(kw, key)[0], "credits") == 46
