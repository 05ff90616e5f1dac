"""The feed: a thread of a worker on PostgreSQL that keeps its lease. It acts upon changes, confirms them, and asks again.

It starts with the first verification of a process, never at import, and not before a fork: a child starts its own. It
holds nobody up: a verification without a lease asks by itself (``freshness``).
"""

import logging
import os
import secrets
import select
import threading
from collections.abc import Callable
from secrets import SystemRandom
from typing import TYPE_CHECKING, Final

from keywright import leases
from keywright.cache import Cache
from keywright.clock import boottime
from keywright.leases import Lease, Sweep
from keywright.times import SECOND

if TYPE_CHECKING:
    from keywright.store.postgres_feed import Line

#: How often registrations are looked at for workers that are gone, and how long an attempt waits after one that failed.
SWEEP_EVERY: Final = 5 * SECOND
PAUSE: Final = (0.05, 0.25)  # seconds
_INHERITED: Final[list[object]] = []

log = logging.getLogger("keywright")


class Feed:
    """The thread, and the lease that it keeps."""

    def __init__(self, conninfo: str, cache: Cache, max_stale: int, clock: Callable[[], int]) -> None:
        self._conninfo = conninfo
        self._cache = cache
        self._max_stale = min(max_stale, leases.LONGEST_STALE)
        self._clock = clock
        self.lease = Lease(self._max_stale)
        self._begin()

    def _begin(self) -> None:
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._line: Line | None = None
        self._worker = _name()
        self._failures = 0
        self._ended = False
        self._sweep = Sweep()
        self._sweep_at = 0
        self._waker, self._wake = os.pipe()

    def start(self) -> None:
        """Start the thread, where there is none yet."""
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._ended:
                    self._thread = threading.Thread(target=self._run, name="keywright-feed", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        """Trust nothing from here on, leave the list of workers, and end the thread."""
        with self._starting:
            ended, self._ended = self._ended, True
        self.lease.give_up()
        if ended:
            return
        os.write(self._wake, b"x")
        if self._thread is not None:
            self._thread.join()
        os.close(self._wake)
        os.close(self._waker)

    def after_fork(self) -> None:
        """Know nothing, in a child; the connection is the parent's to use and to close."""
        self.lease.give_up()
        _INHERITED.append(self._line)
        os.close(self._wake)
        os.close(self._waker)
        self._begin()

    def _run(self) -> None:
        from keywright.store.postgres_feed import Trouble  # noqa: PLC0415  # an extra

        while not self._ended:
            began = boottime()
            try:
                self._turn()
                self._failures = 0
            except (Trouble, OSError):
                self._mishap(began)
            except Exception:  # whatever it was: a thread that ends is not begun again
                log.exception("the feed of changes failed, and goes on")
                self._mishap(began)
        self.lease.give_up()
        self._leave()

    def _turn(self) -> None:
        """Renew the lease once, and wait for what there is to do next."""
        line = self._line or self._connected()
        sent = boottime()
        changes = line.renew(self._worker, self._cache.applied, sent)
        if changes is None:
            # Under a new name: whoever watches registrations must not take this one for the one that stood still.
            self._worker = _name()
            line.register(self._worker, self._max_stale, self._cache.applied, sent, self._clock())
            return
        if changes:
            self._cache.apply(changes)
        if self._ended:
            return
        self.lease.renewed(sent)
        if changes:
            return  # to confirm them at once
        self._look_round(line, sent)
        pause = leases.RENEW_EVERY if line.pushed else leases.POLL_EVERY
        line.wait(self._waker, max(0, sent + pause - boottime()) / SECOND)

    def _connected(self) -> "Line":
        from keywright.store.postgres_feed import Line  # noqa: PLC0415

        self._line = line = Line(self._conninfo, leases.PATIENCE / SECOND, leases.CONNECTING // SECOND)
        if line.newest < self._cache.applied:  # another database than before: one that was put back
            self._cache.forget(line.newest)
        return line

    def _look_round(self, line: "Line", now: int) -> None:
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_EVERY
        for worker, beat in self._sweep.look(line.registered(), now):
            line.forget(worker, beat)

    def _mishap(self, began: int) -> None:
        """Give the connection up. One that was only cut is made anew at once; what comes after that is the store's."""
        connecting = self._line is None
        self._hang_up()
        self._failures += 1
        now = boottime()
        # A line that was cut, or is refused, says nothing of others: verifications find out, and are told as quickly.
        # Where nothing is said at all they would wait.
        if now - began >= leases.PATIENCE * 3 // 4:
            patience = leases.CONNECTING if connecting else leases.PATIENCE
            self.lease.failed(began, now, patience=patience, breather=leases.FEED_BREATHER)
        if self._failures > 1:
            looking = select.poll()
            looking.register(self._waker, select.POLLIN)
            looking.poll(SystemRandom().uniform(*PAUSE) * 1000)

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _leave(self) -> None:
        from keywright.store.postgres_feed import Trouble  # noqa: PLC0415

        try:
            if self._line is not None:
                self._line.leave(self._worker)
        except Trouble:
            return  # others will find that it does not move
        finally:
            self._hang_up()


def _name() -> str:
    return f"{os.getpid()}-{secrets.token_hex(8)}"
