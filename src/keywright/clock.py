"""What time it is: the wall clock, which somebody may set, read so that the time of a process never goes back.

A process runs on the machine's own count of microseconds, which nobody sets, and looks at the wall clock once a second. What
that is ahead is followed at once, however far: a key that has expired by then is refused. What it is behind is caught up by
going one percent slower. So no key, secret, session or period comes back because a clock was set back, and a grace is never
longer than it was given; a clock that was ahead by mistake and is put right leaves its processes ahead until they are
started again, and the log, ``/metrics`` and ``keywright doctor`` say so.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from keywright.times import SECOND

#: How far the wall clock may be from where it was expected before it counts as set, in µs.
STEP: Final = 5 * SECOND
#: How often one looks at the wall clock, in µs.
LOOK_EVERY: Final = SECOND
#: Two clocks are read within so many nanoseconds, if that can be had in so many tries.
_CLOSE: Final = 20_000
_TRIES: Final = 10
#: What is behind is caught up by going slower by so much: one part in a hundred.
CATCH_UP: Final = 100

#: Linux's; elsewhere the monotonic clock goes on while the machine sleeps.
_COUNT: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

log = logging.getLogger("keywright")


#: Nanoseconds since the machine started. Called by every verification: so it is not one call more than it must be.
_count_ns: Final = partial(time.clock_gettime_ns, _COUNT)


def boottime() -> int:
    """Microseconds since the machine started: they go on while it sleeps, and nobody sets them."""
    return _count_ns() // 1000


def wall() -> int:
    """Microseconds since 1970 in UTC, as the machine's clock is set."""
    return time.time_ns() // 1000


class Line(NamedTuple):
    """How the count becomes the time until the next look."""

    counted: int
    at: int  # what time it was then
    slow: int = 0  # for so long from then on, in µs, one goes slower: until the wall clock has caught up

    def time(self, counted: int) -> int:
        """The time at a count."""
        passed = counted - self.counted
        return self.at + passed - min(passed, self.slow) // CATCH_UP


class SteadyClock:
    """Now, in microseconds since 1970 in UTC, never less than before. For all threads of a process."""

    def __init__(self, read_wall: Callable[[], int] = wall, count_ns: Callable[[], int] = _count_ns) -> None:
        self._wall, self._count_ns = read_wall, count_ns
        self._line = Line(*self._read())
        self._behind = 0  # how far the wall clock was behind at the last look, in µs
        #: How often the wall clock was set, by more than ``STEP``.
        self.steps = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Be free to look: a thread that was looking at the fork is not in the child."""
        self._looking = threading.Lock()

    def __call__(self) -> int:
        """Now."""
        counted, at, slow = self._line
        passed = self._count_ns() // 1000 - counted
        if passed >= LOOK_EVERY:
            return self._look()
        return at + passed - min(passed, slow) // CATCH_UP if slow else at + passed

    def ahead(self) -> int:
        """How far this process is ahead of the wall clock, in µs: of one that was set back. About 0 otherwise."""
        return self() - self._wall()

    def _look(self) -> int:
        if not self._looking.acquire(blocking=False):  # another thread does
            return self._line.time(self._count_ns() // 1000)
        try:
            counted, wall = self._read()
            expected = self._line.time(counted)
            off = wall - expected
            if off > STEP or off < -self._behind - STEP:
                self._tell(off)
            self._behind = max(0, -off)
            self._line = Line(counted, max(expected, wall), max(0, -off) * CATCH_UP)
            return self._line.at
        finally:
            self._looking.release()

    def _read(self) -> tuple[int, int]:
        """The count and the wall clock, of one instant: a process that is interrupted between the two reads them again."""
        for _ in range(_TRIES):
            before = self._count_ns()
            wall = self._wall()
            after = self._count_ns()
            if after - before < _CLOSE:
                break
        return after // 1000, wall

    def _tell(self, off: int) -> None:
        self.steps += 1
        seconds = abs(off) // SECOND
        if off > 0:
            log.warning(
                "the clock was set forward by %d seconds: what has expired by then is refused", seconds
            )
        else:
            log.warning(
                "the clock was set back by %d seconds: this process goes on from where it was, so that nothing "
                "comes back that has ended, until it is started again",
                seconds,
            )


#: The time of this process.
process_clock: Final = SteadyClock()
os.register_at_fork(after_in_child=process_clock.after_fork)
