"""What a worker knows of itself, told to all of them once a second, so that any of them can answer for all.

Nothing here runs in a verification but the timing of every 16th: what is told are figures that other rooms keep anyway.
"""

import logging
import os
import platform
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from keywright import __version__
from keywright.clock import process_clock
from keywright.errors import Unavailable
from keywright.installation import Installation
from keywright.server.board import Board, Place
from keywright.server.metrics import Figure, Said, bucket, grows, merged, page
from keywright.server.problems import AtOnce, Message, Prompt, Receive, Scope, Send, Steps
from keywright.times import SECOND

TELL_EVERY: Final = 1.0  # seconds
MEASURE_EVERY: Final = 16  # requests
#: Keyspaces that are told apart by one worker; further ones are counted as ``other``.
MOST_KEYSPACES: Final = 100
_UNPROVEN: Final = ("missing", "ambiguous", "invalid", "unavailable")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_DURATION: Final = "verification_duration_seconds"
_DENIED: Final = ("quota_exhausted", "rate_limited")

log = logging.getLogger("keywright")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Said).decode


class Watch:
    """The figures of this worker, and the page of all of them. ``start`` and ``stop`` the telling."""

    def __init__(self, installation: Installation, place: Place | None = None) -> None:
        self._installation = installation
        self._place = place or Board(1).place(0)
        self._counted: defaultdict[tuple[str, tuple[str, ...]], float] = defaultdict(float)
        self._named: set[str] = set()
        self._heard = time.monotonic()
        self._answers = True
        self._hits = 0
        self._telling = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        before = self._place.read()
        for name, labels, value in _decode(before).figures if before else ():
            if grows(name):
                self._counted[name, labels] += value
        self._counted["worker_starts", ()] += 1

    def start(self) -> None:
        """Tell the others once a second from now on."""
        self.tell()
        self._thread = threading.Thread(target=self._run, name="keywright-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell them for the last time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.tell()

    def add(self, name: str, *labels: str, by: float = 1) -> None:
        """Count something that nobody else does, off the hot path."""
        self._counted[name, labels] += by

    def page(self) -> tuple[bytes, bytes]:
        """The content type and the text of ``/metrics``, for all workers; others are a second behind at most."""
        self.tell()
        figures = merged((_decode(text) for text in self._place.board.all()), time.monotonic())
        figures["workers_wanted"] = {(): self._place.board.count}
        head = self._head()
        if head is not None:
            figures["audit_chain_head"] = {(): head}
        return page(figures)

    def tell(self) -> None:
        """Write this worker's figures where all can read them."""
        with self._telling:
            self._probe()
            try:
                self._place.write(_encode(Said(time.monotonic(), list(self._figures()))))
            except (
                ValueError
            ) as trouble:  # thousands of keyspaces: the rest of the server is not to suffer from it
                log.warning("the figures for /metrics are not told: %s", trouble)

    def _run(self) -> None:
        while not self._stop.wait(TELL_EVERY):
            self.tell()

    def _probe(self) -> None:
        try:
            self._installation.lookup.newest()
        except Unavailable:
            self._answers = False
        else:
            self._answers, self._heard = True, time.monotonic()

    def _head(self) -> int | None:
        try:
            return self._installation.trail.head().seq
        except Unavailable:
            return None

    def _figures(self) -> Iterator[Figure]:
        grown = self._counted.copy()
        for name, labels, value in (*self._of_verdicts(), *self._of_the_store()):
            grown[name, labels] += value
        yield from ((name, labels, value) for (name, labels), value in grown.items())
        meter, database = self._installation.meter, self._installation.database
        yield "workers", (), 1
        yield "cache_entries", (), len(self._installation.cache)
        yield "store_available", ("keys",), int(self._answers)
        yield "store_available", ("usage",), int(not meter.behind)
        yield "freshness_age_seconds", (), time.monotonic() - self._heard
        yield "usage_queue_events", (), meter.waiting()
        yield "store_writers_waiting", (), database.writers_waiting
        yield "throttled_sources", (), self._installation.throttle.over(self._installation.clock())
        yield "resident_memory_bytes", (), _resident()
        yield "clock_ahead_seconds", (), process_clock.ahead() / SECOND
        kind = "sqlite" if database.is_sqlite else "postgresql"
        yield "build_info", (__version__, platform.python_version(), kind), 1

    def _of_verdicts(self) -> Iterator[Figure]:
        proven = 0
        for (keyspace, code), times in self._installation.meter.verdicts().items():
            named = self._told_apart(keyspace)
            yield "verifications", (named, code), times
            proven += 0 if code in _UNPROVEN else times
            if code in _DENIED:
                yield "quota_denied", (named,), times
        cache = self._installation.cache
        self._hits = max(self._hits, proven - cache.found)
        yield "cache_requests", ("hit",), self._hits
        yield "cache_requests", ("miss",), cache.found + cache.missed
        yield "stale_served", (), self._installation.freshness.stale_served
        yield "refusals_dropped", (), self._installation.meter.dropped
        yield "throttled_failures", (), self._installation.throttle.throttled

    def _of_the_store(self) -> Iterator[Figure]:
        database = self._installation.database
        for which in ("keys", "spend", "usage"):
            yield "store_errors", (which,), database.errors[which]
        yield "store_writes", (), database.writes
        yield "store_write_wait_seconds", (), database.waited
        yield "cpu_seconds", (), time.process_time()
        yield "clock_steps", (), process_clock.steps

    def _told_apart(self, keyspace: str) -> str:
        if keyspace not in self._named and len(self._named) >= MOST_KEYSPACES:
            return "other"
        self._named.add(keyspace)
        return keyspace


class Measured:
    """An application, with the duration of every 16th verification measured."""

    def __init__(self, app: Prompt, watch: Watch) -> None:
        self._app = app
        self._find: Callable[[bytes], AtOnce | None] = app.at_once
        self._watch = watch
        self._left = MEASURE_EVERY

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        self._left -= 1
        return self._app(scope, receive, send) if self._left > 0 else self._measure(scope, receive, send)

    def at_once(self, path: bytes) -> AtOnce | None:
        """What the application answers at once, every 16th of it measured."""
        door = self._find(path)
        if door is None:
            return None
        self._left -= 1
        return door if self._left > 0 else partial(self._measure_at_once, door)

    def _measure_at_once(self, door: AtOnce, scope: Scope, body: bytes) -> Steps:
        self._left = MEASURE_EVERY
        began = time.perf_counter()
        reply = yield from door(scope, body)
        if reply is not None:
            self._note(scope, time.perf_counter() - began)
        return reply

    async def _measure(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._left = MEASURE_EVERY
        began = time.perf_counter()
        await self._app(scope, receive, send)
        self._note(scope, time.perf_counter() - began)

    def _note(self, scope: Scope, took: float) -> None:
        door = _door(scope)
        if door is not None:
            self._watch.add(f"{_DURATION}:count", door, bucket(took))
            self._watch.add(f"{_DURATION}:sum", door, by=took)


def _door(scope: Scope) -> str | None:
    path: bytes = scope.get("raw_path", b"")
    if path.startswith(b"/authz/"):
        return "forward_auth"
    return "verify" if path.startswith(b"/v1/verify") else None


def counted(watch: Watch, send: Send) -> Send:
    """Count a management call's answer by the class of its status."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            watch.add("management_requests", f"{message['status'] // 100}xx")
        await send(message)

    return sending


def _resident() -> int:
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


__all__ = ["Measured", "Watch", "counted"]
