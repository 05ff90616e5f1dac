"""Several worker processes behind one listening socket, and the process that looks after them.

Workers are forked before any of them opens the database; each opens it for itself. What they must agree on, they agree on
through the store. A worker that dies is replaced; one that cannot start ends the whole server. Where the looking-after
process itself is killed, its workers notice by a pipe that ends, and finish: nobody keeps the port who is not looked after.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Final

#: A worker that lived shorter than this is replaced only after a pause, in seconds.
TOO_SHORT: Final = 1.0
CANNOT_START: Final = 3  # the exit code of the command

log = logging.getLogger("keywright")


class Workers:
    """``count`` processes that each run ``work``, which gets a function to call once inside its event loop."""

    def __init__(self, count: int, work: Callable[[Callable[[], None]], None]) -> None:
        self._count = count
        self._work = work
        self._running: dict[int, float] = {}
        self._stopping = False
        self._read_end, self._write_end = os.pipe()

    def run(self, ready: Callable[[], None]) -> int:
        """Start the workers and look after them until SIGINT or SIGTERM; the exit code.

        ``ready`` is called when all were started. What was begun is answered; a second signal does not wait for it.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        for _ in range(self._count):
            self._start()
        ready()
        code = 0
        while self._running:
            pid, status = os.waitpid(-1, 0)
            began = self._running.pop(pid, None)
            if began is None or self._stopping:
                continue
            if os.waitstatus_to_exitcode(status) == CANNOT_START:
                code = CANNOT_START
                self._stop()
                continue
            log.warning("worker %s ended (%s) and is replaced", pid, os.waitstatus_to_exitcode(status))
            if time.monotonic() - began < TOO_SHORT:
                time.sleep(TOO_SHORT)
            if not self._stopping:
                self._start()
        return code

    def _start(self) -> None:
        # Signals wait until the child's own handling stands: one that came in between would be the parent's to heed.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            pid = os.fork()
            if pid == 0:
                self._be_a_worker()
            self._running[pid] = time.monotonic()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))

    def _be_a_worker(self) -> None:
        code = 1
        try:
            os.close(self._write_end)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
            self._work(self._end_with_the_parent)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            log.exception("a worker failed")
        finally:
            # Never back into the parent's code: its finally blocks are not the child's.
            os._exit(code)

    def _end_with_the_parent(self) -> None:
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self._read_end)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(self._read_end, gone)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for pid in list(self._running):
            os.kill(pid, signal.SIGTERM)
