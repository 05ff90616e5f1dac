"""Leases: for how long a worker may answer from memory, and how long a change must wait for workers. Pure.

A worker may trust its memory for one second after it has read the announcements of changes, counted from before it asked.
A change is answered when every registered worker has confirmed it, or when a second and a margin have passed since its
commit: then whoever has not confirmed cannot have a lease that began before it. ``docs/freshness.md`` says why that is so.

Every instant here is told by ``CLOCK_BOOTTIME`` of the process that asks, in microseconds, and is never compared with
another process's: only spans are. Clocks may run fast or slow by one part in a hundred.
"""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from keywright.times import DAY, SECOND

#: How long memory may be trusted, from before the worker asked.
LEASE: Final = SECOND
#: How often a lease is renewed where changes are pushed, and where the worker must ask for them.
RENEW_EVERY: Final = SECOND // 4
POLL_EVERY: Final = SECOND // 10
#: How long a renewal may take: that and a turn fit into a lease, so that a lost store is known before the lease ends;
#: and how long to open a connection for it.
PATIENCE: Final = SECOND // 2
CONNECTING: Final = 2 * SECOND
#: What a change waits on top of a lease, besides what clocks may differ by.
MARGIN: Final = SECOND // 20
#: For how long a question of a verification's that failed speaks for others, and for how long an attempt of the feed's,
#: which goes on trying: a little longer than its next one can take.
BREATHER: Final = SECOND // 4
FEED_BREATHER: Final = 3 * SECOND
#: The longest that a worker may serve without the store.
LONGEST_STALE: Final = DAY * SECOND

_NEVER: Final = -(10**18)

Basis = Literal["memory", "ask", "stale", "nothing"]


def stretched(span: int) -> int:
    """For how long one must wait to be sure that a span has passed on another clock, and a margin."""
    return -(-span * 101 // 99) + MARGIN


class Lease:
    """What one worker knows of its own freshness."""

    __slots__ = ("_known_at", "_lost_until", "_max_stale", "until")

    def __init__(self, max_stale: int) -> None:
        self._max_stale = max_stale
        self.give_up()

    def give_up(self) -> None:
        """Know nothing: at the start, in a forked child, and at the end."""
        self.until = self._known_at = self._lost_until = _NEVER

    def renewed(self, sent: int) -> None:
        """Everything that had been announced when it was asked, at ``sent``, has been acted upon."""
        self._known_at, self._lost_until, self.until = sent, _NEVER, sent + LEASE

    def failed(self, began: int, now: int, *, patience: int, breather: int) -> None:
        """The store has not answered within ``patience``, and for a ``breather`` nobody need ask it again.

        Where much more time has gone by, this process was stopped meanwhile: then nothing is known of the store.
        """
        if now - began <= patience + SECOND:
            self._lost_until = max(self._lost_until, now + breather)

    def basis(self, now: int) -> Basis:
        """What a verification that begins now may rest on: memory, a question to the store, or old memory."""
        if now < self.until:
            return "memory"
        return "ask" if now >= self._lost_until else self.without(now)

    def without(self, now: int) -> Literal["stale", "nothing"]:
        """What is left where the store does not answer."""
        return "stale" if now < self._known_at + self._max_stale else "nothing"


class Worker(NamedTuple):
    """A registered worker, as a change sees it: what it has confirmed, and for how long it may serve without the store."""

    confirmed: int
    max_stale: int


class Standing(NamedTuple):
    """How far a change has travelled. From ``until`` on nobody can answer from the state before it."""

    workers: int
    confirmed: int
    until: int
    exact: bool  # nobody can any more
    settled: bool  # waiting longer would only be waiting for ``until``


def standing(workers: Iterable[Worker], seq: int, committed: int, now: int) -> Standing:
    """How far the change ``seq``, which was there at ``committed`` at the latest, has travelled at ``now``."""
    known = list(workers)
    behind = [worker for worker in known if worker.confirmed < seq]
    until = committed + max((stretched(max(LEASE, worker.max_stale)) for worker in behind), default=0)
    exact = not behind or until <= now
    return Standing(
        len(known), len(known) - len(behind), until, exact, exact or now >= committed + stretched(LEASE)
    )


class Sweep:
    """Finds registrations whose workers are gone, by watching that they do not move: no clock but one's own is believed."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def look(self, registered: Iterable[tuple[str, int, int]], now: int) -> list[tuple[str, int]]:
        """Take in every registration's id, beat and ``max_stale``; those that may be removed, each with its beat."""
        before, self._seen = self._seen, {}
        gone = []
        for worker, beat, max_stale in registered:
            seen, since = before.get(worker, (beat, now))
            self._seen[worker] = (beat, since if seen == beat else now)
            if now - self._seen[worker][1] > stretched(max(LEASE, max_stale)):
                gone.append((worker, beat))
        return gone
