"""Several worker processes behind one listening socket, and the process that looks after them.

Workers are forked before any of them opens the database; each opens it for itself. What they must agree on, they agree on
through the store. A worker that dies is replaced: at once where it had lived for a while, else after a pause that doubles.
Where none can start at all, the whole server ends. Where the looking-after process itself is killed, its workers notice by
a pipe that ends, and finish: nobody keeps the port who is not looked after.
"""

import asyncio
import logging
import mmap
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Final, NamedTuple

#: A worker that lived shorter than this is replaced only after a pause, in seconds.
TOO_SHORT: Final = 10.0
#: The first such pause, and the longest, in seconds.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
CANNOT_START: Final = 3  # the exit code of the command
#: What stops the server. Nothing is read anew on SIGHUP: definitions hold at once, and settings from the start on.
STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Work = Callable[[int, Callable[[], None]], None]
log = logging.getLogger("keywright")


class _Begun(NamedTuple):
    number: int
    at: float


class Workers:
    """``count`` processes that each run ``work``, which gets its number and a function to call once inside its event loop.

    ``let_go`` is called when they are to stop, for this process to drop what only they need.
    """

    def __init__(self, count: int, work: Work, let_go: Callable[[], None] = lambda: None) -> None:
        self._count = count
        self._work = work
        self._let_go = let_go
        self._running: dict[int, _Begun] = {}
        self._due: dict[int, float] = {}  # when a worker is to be started, by its number
        self._short = [0] * count  # how often in a row each died young
        self._stopping = False
        self._code = 0
        self._some_began = mmap.mmap(-1, 1)
        self._read_end, self._write_end = os.pipe()
        self._woken, self._waking = os.pipe()

    def run(self, ready: Callable[[], None]) -> int:
        """Start the workers and look after them until a signal says to stop; the exit code.

        ``ready`` is called when all were started. What was begun is answered; a second signal does not wait for it.
        """
        os.set_blocking(self._waking, False)
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # heard, so that it wakes
        for number in STOPS:
            signal.signal(number, self._stop)
        for place in range(self._count):
            self._start(place)
        ready()
        while self._running or (self._due and not self._stopping):
            self._sleep()
            self._bury()
            self._replace()
        return self._code

    def _sleep(self) -> None:
        """Wait for a signal, the end of a worker among them, or until one is due."""
        until = min(self._due.values(), default=None)
        patience = None if until is None or self._stopping else max(0.0, until - time.monotonic())
        if select.select([self._woken], [], [], patience)[0]:
            os.read(self._woken, 4096)

    def _bury(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            begun = self._running.pop(pid, None)
            if begun is not None and not self._stopping:
                self._ended(pid, begun, os.waitstatus_to_exitcode(status))

    def _ended(self, pid: int, begun: _Begun, code: int) -> None:
        if code == CANNOT_START and not self._some_began[0]:
            self._code = CANNOT_START  # it has said why, and so would every other
            self._stop(signal.SIGTERM)
            return
        lived = time.monotonic() - begun.at
        short = self._short[begun.number] = self._short[begun.number] + 1 if lived < TOO_SHORT else 0
        pause = min(FIRST_PAUSE * 2.0 ** min(short - 1, 30), LONGEST_PAUSE) if short else 0.0
        self._due[begun.number] = time.monotonic() + pause
        log.warning(
            "worker %s %s after %.0f s; the next is started %s",
            pid,
            how_it_ended(code),
            lived,
            f"in {pause:g} s" if pause else "now",
        )

    def _replace(self) -> None:
        now = time.monotonic()
        for number in [number for number, at in self._due.items() if at <= now]:
            del self._due[number]
            if not self._stopping:
                self._start(number)

    def _start(self, number: int) -> None:
        # Signals wait until the child's own handling stands: one that came in between would be the parent's to heed.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_a_worker(number)
            self._running[pid] = _Begun(number, time.monotonic())
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def _be_a_worker(self, number: int) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for end in (self._write_end, self._woken, self._waking):
                os.close(end)
            for signal_number in (*STOPS, signal.SIGCHLD):
                signal.signal(signal_number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            self._work(number, self._begin)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException as trouble:
            # One line; where it was is told to those who ask, by KEYWRIGHT_DEBUG.
            log.error(  # noqa: TRY400
                "a worker failed: %s: %s",
                type(trouble).__name__,
                " ".join(str(trouble).split()),
                exc_info=log.isEnabledFor(logging.DEBUG),
            )
        finally:
            # Never back into the parent's code: its finally blocks are not the child's.
            os._exit(code)

    def _begin(self) -> None:
        """In a worker, inside its event loop: it has started, and is to end with its parent."""
        self._some_began[0] = 1
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self._read_end)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(self._read_end, gone)

    def _stop(self, number: int, _frame: object = None) -> None:
        again, self._stopping = self._stopping, True
        if not again:
            self._let_go()
        for pid in list(self._running):
            os.kill(pid, signal.SIGQUIT if again else number)


def how_it_ended(code: int) -> str:
    """What is to be said of an exit code, in words."""
    if code >= 0:
        return "could not start" if code == CANNOT_START else f"ended with code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (", by the system if memory ran out," if name == "SIGKILL" else "")
