"""Shifts: of all processes on a database one at a time does a job in the background, under a lease, until it ends or dies."""

import logging
import os
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from keywright.errors import Unavailable
from keywright.store import deliveries
from keywright.store.db import Database
from keywright.times import SECOND

RENEWED_EVERY: Final = 3  # seconds

log = logging.getLogger("keywright")


class Shift:
    """One process's claim to a job; ``lease`` is how long it outlives its holder, in seconds."""

    def __init__(self, database: Database, job: str, clock: Callable[[], int], *, lease: int) -> None:
        self._database, self._job, self._clock = database, job, clock
        self._lease = lease * SECOND
        self._holder = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._renewed = -self._lease

    def holds(self) -> bool:
        """Whether the job is this process's now; asked for, and renewed, when that is due. Raises ``Unavailable``."""
        now = self._clock()
        if abs(now - self._renewed) >= RENEWED_EVERY * SECOND:
            with self._database.write("usage") as tx:
                mine = deliveries.lease(tx, self._job, self._holder, now, now + self._lease)
            self._renewed = now if mine else -self._lease
        return self._renewed >= 0

    def work(self, turn: Callable[[], object], stop: threading.Event, every: float) -> None:
        """Take a turn every so many seconds until told to stop. Trouble ends one turn only."""
        while not stop.wait(every):
            try:
                turn()
            except Unavailable:
                continue  # nothing is lost by waiting
            except Exception:  # whatever it was, the next turn may go well
                log.exception("the %s failed, and goes on", self._job)

    def leave(self) -> None:
        """Let another process have the job at once."""
        if self._renewed >= 0:
            with suppress(Unavailable), self._database.write("usage") as tx:
                deliveries.release(tx, self._job, self._holder)
