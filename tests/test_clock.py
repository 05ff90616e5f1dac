"""The clock of a process: whoever sets the machine's, nothing that has ended comes back, and nothing stands still."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import bearer, make
from keywright import Keywright
from keywright.clock import SteadyClock, process_clock, wall
from keywright.testing import copied
from keywright.times import SECOND

EVERY = {"keyspace": "every", "environment": "production"}
START = 1_800_000_000 * SECOND


class Machine:
    """A machine's two clocks: its count goes on, and what it takes for the time may be set."""

    def __init__(self) -> None:
        self.counted, self.set = 0, START

    def clock(self) -> SteadyClock:
        """The clock of a process on it."""
        return SteadyClock(lambda: self.counted + self.set, lambda: self.counted * 1000)

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.counted += round(seconds * SECOND)

    def step(self, seconds: float) -> None:
        """Set its clock, forward or back; and let a process see it."""
        self.set += round(seconds * SECOND)
        self.pass_by(1)


@pytest.fixture
def machine() -> Machine:
    """A machine."""
    return Machine()


@pytest.mark.security("T-44", "R-27")
@given(st.lists(st.tuples(st.floats(-90_000, 90_000), st.floats(0, 100)), max_size=60))
def test_it_never_goes_back_nor_stands_still(steps: list[tuple[float, float]]) -> None:
    """However the clock is set, time goes on by at least 99 % of what passes, and is never behind the clock at a look."""
    machine = Machine()
    clock = machine.clock()
    before = clock()
    for step, passing in steps:
        machine.set += round(step * SECOND)
        machine.pass_by(passing)
        now = clock()
        assert now - before >= round(passing * SECOND) * 99 // 100 - 1
        if passing >= 1:
            assert now >= machine.counted + machine.set
        before = now


@pytest.mark.security("R-27")
def test_a_clock_set_ten_times_a_second(machine: Machine) -> None:
    """Set forth and back by an hour ten times a second for a minute, time is never less than before, nor an hour more off."""
    clock, before = machine.clock(), 0
    for tenth in range(600):
        machine.set += (-1) ** tenth * 3600 * SECOND
        machine.pass_by(0.1)
        assert clock() >= before
        before = clock()
    assert machine.counted + machine.set <= before <= machine.counted + machine.set + 2 * 3600 * SECOND


def test_small_steps_are_followed(machine: Machine) -> None:
    """What is two seconds ahead is followed at the next look, what is behind within some minutes; neither is told."""
    clock = machine.clock()
    machine.step(2)
    assert clock() == machine.counted + machine.set
    machine.step(-2)
    assert clock() > machine.counted + machine.set
    for _ in range(250):
        machine.pass_by(1)
        clock()
    assert clock() == machine.counted + machine.set
    assert clock.steps == 0


def test_what_is_behind_is_caught_up_and_no_more(machine: Machine) -> None:
    """A wall clock that is a few microseconds behind makes nobody wait for a second: the difference is never larger than it was."""
    clock = machine.clock()
    for n in range(200):
        machine.set -= 3 if n % 20 == 0 else 0
        machine.pass_by(0.1)
        assert 0 <= clock() - machine.counted - machine.set <= 6


def test_two_clocks_are_read_in_one_instant(machine: Machine) -> None:
    """A process that is interrupted between its two looks, for once, is not ahead by that long for the rest of its life."""
    interrupted = iter([0.005])

    def wall() -> int:
        machine.pass_by(next(interrupted, 0))
        return machine.counted + machine.set

    clock = SteadyClock(wall, lambda: machine.counted * 1000)
    assert clock() == machine.counted + machine.set


def test_a_step_is_told_once(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """Each time that the clock is set the log says by how much, once, and how far the process is ahead can be asked."""
    clock = machine.clock()
    with caplog.at_level(logging.WARNING):
        for step in (-3600, 0, 0, 7200, 0):
            machine.step(step)
            clock()

    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the clock was set back by 3600 seconds",
        "the clock was set forward by 3600 seconds",
    ]
    assert clock.steps == 2
    assert clock.ahead() == 0


def test_it_is_the_wall_clock_where_nobody_sets_it() -> None:
    """The clock of this process is that of the machine, to a tenth of a second."""
    assert abs(process_clock() - wall()) < SECOND // 10


@pytest.fixture
def there(template: object, tmp_path: object, machine: Machine) -> Iterator[Keywright]:
    """An installation on the machine's time."""
    with copied(template, tmp_path, clock=machine.clock()) as kw:  # type: ignore[arg-type]
        yield kw


@pytest.mark.security("T-44")
@pytest.mark.parametrize("jump", [3600, 86_400])
def test_nothing_comes_back(there: Keywright, machine: Machine, jump: int) -> None:
    """An expired key, the old secret of a rotation and a spent quota stay so when the clock is set back; good keys work."""
    good, spent = make(there), make(there, limits=["3/hour"])
    short = make(there, expires_at=there.installation.clock() + 60 * SECOND)
    rotated = make(there)
    there.keys.rotate(rotated.key.id, grace_seconds=60)
    codes = [there.verify(bearer(spent), **EVERY).code for _ in range(4)]
    assert codes == ["ok", "ok", "ok", "quota_exhausted"]
    machine.pass_by(61)

    for step in (0, -jump, 0.5, -jump / 2):
        machine.step(step)
        assert there.verify(bearer(short), **EVERY).code == "expired"
        assert there.verify(bearer(rotated), **EVERY).code == "rotated"
        assert there.verify(bearer(spent), **EVERY).code == "quota_exhausted"
        assert there.verify(bearer(good), **EVERY).code == "ok"


@pytest.mark.security("T-44")
def test_a_grace_is_not_longer_than_given(there: Keywright, machine: Machine) -> None:
    """A clock that is set back during a grace does not lengthen it; one that is set forward ends it."""
    rotated = make(there)
    there.keys.rotate(rotated.key.id, grace_seconds=3600)
    machine.step(-3000)
    assert there.verify(bearer(rotated), **EVERY).code == "ok"
    machine.pass_by(3700)
    assert there.verify(bearer(rotated), **EVERY).code == "rotated"

    again = make(there)
    there.keys.rotate(again.key.id, grace_seconds=3600)
    machine.step(86_400 * 2)
    assert there.verify(bearer(again), **EVERY).code == "rotated"
