"""The throttle: which sources have failed to prove a key too often.

It is told of failures, and asked where one has just happened: a request that proves its key never meets it. So it can
refuse nobody. What a source over its limit loses is what its failures cost us: look-ups, and lines in the log.
"""

from functools import lru_cache
from ipaddress import ip_address, ip_network
from threading import Lock
from typing import Final, NamedTuple

from keywright.times import SECOND

#: Sources that are counted at the same time, at most: of more than half as many, those that have been quiet are forgotten.
MOST: Final = 20_000


class Allowance(NamedTuple):
    """How often a source may fail within how many seconds; no failures are any number."""

    failures: int = 100
    seconds: int = 600


USUAL: Final = Allowance()


class _Source:
    __slots__ = ("at", "level", "told")

    def __init__(self, now: int) -> None:
        self.level, self.at, self.told = 0.0, now, 0


class Throttle:
    """The sources of this process that fail, each with a level that drains. Safe to use from any thread."""

    def __init__(self, allowance: Allowance) -> None:
        self._most = allowance.failures
        self._drain = allowance.failures / (allowance.seconds * SECOND)
        #: those that failed lately, and those that have not failed since there were too many of them
        self._sources: dict[str, _Source] = {}
        self._quiet: dict[str, _Source] = {}
        self._lock = Lock()
        #: failures of sources that were over their limit
        self.throttled = 0

    def failed(self, address: str, now: int) -> tuple[bool, bool]:
        """Count a failure: whether its source is over its limit, and whether this one is worth a line all the same.

        Over its limit, a source gets a line a second.
        """
        most = self._most
        if not most:
            return False, True
        name = source_of(address)
        with self._lock:
            source = self._sources.get(name) or self._recall(name, now)
            source.level = level = min(self._left(source, now) + 1, 2 * most)
            source.at = max(now, source.at)
            if level <= most:
                return False, True
            self.throttled += 1
            if now - source.told < SECOND:
                return True, False
            source.told = now
            return True, True

    def over(self, now: int) -> int:
        """How many sources are over their limit."""
        with self._lock:
            known = [*self._sources.values(), *self._quiet.values()]
            return sum(self._left(source, now) > self._most for source in known)

    def after_fork(self) -> None:
        """Take a lock of one's own in a child: the parent's may be held by a thread that did not come along."""
        self._lock = Lock()

    def _left(self, source: _Source, now: int) -> float:
        return max(0.0, source.level - max(0, now - source.at) * self._drain)

    def _recall(self, name: str, now: int) -> _Source:
        """Take a source up that is not among the latest; where they are too many, the quiet ones before them are forgotten."""
        source = self._quiet.pop(name, None) or _Source(now)
        if len(self._sources) >= MOST // 2:
            self._sources, self._quiet = {}, self._sources
        self._sources[name] = source
        return source

    def __len__(self) -> int:
        return len(self._sources) + len(self._quiet)


@lru_cache(maxsize=1_000)
def source_of(address: str) -> str:
    """Whom the doings of an address are laid to: IPv4 as it is, IPv6 by its network of 64 bits, as one subscriber has."""
    try:
        read = ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    read = getattr(read, "ipv4_mapped", None) or read
    return str(read) if read.version == 4 else str(ip_network((read, 64), strict=False))


__all__ = ["USUAL", "Allowance", "Throttle", "source_of"]
