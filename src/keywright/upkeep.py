"""What a process does beside answering: it sees to what dead workers left, sums old counts up, forgets what is over.

A worker that was killed leaves its slot file, and its lock with nobody. Whoever finds it first is its successor: it gives
back what the worker held of limits, sends what it had counted under the worker's own batch numbers, and only then removes
the file. Killed in the middle, it leaves the rest to the next: what was given back or sent already is so no second time.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from keywright.errors import Unavailable
from keywright.layout import Found
from keywright.slots import Dead, Slots
from keywright.store import changes, spend, usage
from keywright.store.db import Database
from keywright.store.spend import Counter
from keywright.times import DAY, SECOND

LOOK_EVERY: Final = 1.0  # seconds, for slot files of the dead
TIDY_EVERY: Final = 3600.0  # seconds
TIDY_FIRST: Final = 60.0
#: How many spans of counts one round sums up, and how many rounds of old figures it removes: no writer waits for long.
_SPANS: Final = 120
_ROUNDS: Final = 50

log = logging.getLogger("keywright")


class Upkeep:
    """``tick`` is called every second, on a thread where nobody waits."""

    def __init__(
        self,
        database: Database,
        slots: Slots,
        clock: Callable[[], int],
        *,
        minutes_kept: int,
        hours_kept: int,
    ) -> None:
        """Counts are kept by the minute for so many days, then by the hour, and after so many days by the day."""
        self._database = database
        self._slots = slots
        self._clock = clock
        self._minutes_kept = minutes_kept * DAY * SECOND
        self._hours_kept = hours_kept * DAY * SECOND
        self._look_at = 0.0
        self._tidy_at = time.monotonic() + TIDY_FIRST

    def tick(self) -> None:
        """Do what is due. Trouble with the store is a reason to try again later."""
        now = time.monotonic()
        try:
            if now >= self._look_at:
                self._look_at = now + LOOK_EVERY
                self.inherit()
            if now >= self._tidy_at:
                self._tidy_at = now + TIDY_EVERY
                self.tidy()
        except Unavailable:
            return
        except Exception:
            log.exception("upkeep failed; it is tried again")

    def inherit(self) -> int:
        """See to what dead workers of this machine left; how many there were. Raises ``Unavailable``."""
        seen = 0
        for dead in self._slots.dead():
            self._see_to(dead)
            seen += 1
        return seen

    def tidy(self) -> int:
        """Sum up the counts that are past keeping, and remove what is of no more use; how many figures of limits went.

        Raises ``Unavailable``.
        """
        for _ in range(_SPANS):
            with self._database.write("usage") as tx:
                kept = {"minutes_kept": self._minutes_kept, "hours_kept": self._hours_kept}
                if not usage.roll_up(tx, self._clock(), **kept):
                    break
        return self.forget()

    def forget(self) -> int:
        """Remove what limits whose time is over have taken, and the marks of workers long gone; how many there were.

        Announcements of changes go too, but for a day's, and the newest 100,000.

        Raises ``Unavailable``.
        """
        self._give_up_for_lost()
        now, gone = self._clock(), 0
        self._trim(now)
        for _ in range(_ROUNDS):
            with self._database.write("spend") as tx:
                some = spend.forget(tx, now)
            gone += some
            if not some:
                break
        with self._database.write("usage") as tx:
            return gone + usage.forget_marks(tx, now - spend.OLD)

    def _trim(self, now: int) -> None:
        for _ in range(_ROUNDS):
            with self._database.read() as connection:
                last = changes.outlived(connection, now - DAY * SECOND)
            if last is None:
                return
            with self._database.write() as tx:
                changes.trim(tx, last)

    def _see_to(self, dead: Dead) -> None:
        found = dead.found or Found(dead.worker, "", {}, {})
        with self._database.write("spend") as tx:
            spent = {Counter(*of): amount for of, amount in found.spent.items()}
            given = spend.inherit(tx, dead.worker, spent, believed=dead.believed)
        now = self._clock()
        for generation, counts in found.counts.items():
            with self._database.write("usage", lasting=True) as tx:
                usage.add(tx, dead.worker, generation, *usage.batch(counts), (), now)
        dead.bury()  # before its mark: a batch that nobody can send again needs none
        with self._database.write("usage") as tx:
            usage.forget_worker(tx, dead.worker)
        log.warning(
            "worker %s had died; batches of its counts sent: %s; given back of what it held of limits: %s%s",
            *(dead.worker, len(found.counts), given),
            ""
            if dead.believed
            else " (its slots cannot be believed: the machine had stopped, or they are damaged)",
        )

    def _give_up_for_lost(self) -> None:
        """Forget who holds something and has no slot file, where all workers' are in one place."""
        if not self._database.is_sqlite:
            return
        with self._database.read("spend") as connection:
            holders = spend.workers(connection)
        lost = holders - self._slots.names()  # in this order: a file is there before the first block is
        if lost:
            with self._database.write("spend") as tx:
                spend.lost(tx, lost)
