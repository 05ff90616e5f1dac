"""How a process learns that something has changed, before it answers from memory.

On PostgreSQL every verification asks for the changes since the last known one: ``FreshnessByAsking``.

On SQLite every verification first reads the shared counter (``store.counter``): an even number that was seen before says
that nothing was committed since. Any other number has the thread's own connection asked for the data version of the keys
file; when that has moved, the changes since the last known one are read and what they name is evicted. Number and
version are read before the changes, so that a commit in between moves them again: nothing that was committed before a
verification began is missed.

Whoever writes the file without our lock (a shell, a restored copy) does not move the counter: so the data version is
asked anyway, every 50 ms. ``docs/freshness.md`` says why this is exact, and what happens when the store is gone.
"""

import threading
from typing import Final, Literal

from keywright.cache import Cache
from keywright.errors import Unavailable
from keywright.store.db import Database
from keywright.store.lookup import FarLookup
from keywright.store.sqlite_lookup import SqliteLookup
from keywright.times import SECOND

Policy = Literal["serve", "refuse"]
_NEVER: Final = -(10**18)
#: How long the counter's word alone is taken, in microseconds.
TRUSTED_FOR: Final = 50_000
#: How long a store that did not answer is left alone, in microseconds, while the counter says that nobody has committed:
#: memory is right meanwhile, and waiting for a locked file at every request would help nobody.
BREATHER: Final = 250_000


class Freshness:
    """Keeps a cache as fresh as the store, and says when it cannot."""

    def __init__(
        self,
        database: Database,
        lookup: SqliteLookup,
        cache: Cache,
        *,
        on_store_loss: Policy = "serve",
        max_stale: int = 60,
    ) -> None:
        self._lookup = lookup
        self._cache = cache
        self._serve = on_store_loss == "serve"
        self._max_stale = max_stale * SECOND
        self._confirmed = _NEVER
        self._counter = database.counter
        self._seen = -1
        self._ask_again = _NEVER
        self._catching_up = threading.Lock()
        #: how often memory was all there was
        self.stale_served = 0

    def check(self, now: int) -> bool:
        """Bring the cache up to date. ``True`` means that the store is gone and old answers are still allowed.

        Raises ``Unavailable`` where they are not.
        """
        number = self._counter.read()
        if number == self._seen:
            if 0 <= now - self._confirmed < TRUSTED_FOR:
                return False
            if 0 <= self._ask_again - now <= BREATHER:
                self.stale_served += 1
                return True
        try:
            version = self._lookup.moved()
            if version is not None:
                self._catch_up()
                self._lookup.acknowledge(version)
        except Unavailable:
            if self._serve and now - self._confirmed <= self._max_stale:
                self._ask_again = now + BREATHER
                self.stale_served += 1
                return True
            raise
        self._confirmed = now
        self._seen = -1 if number & 1 else number
        return False

    def _catch_up(self) -> None:
        with self._catching_up:
            changes = self._lookup.changes(self._cache.applied)
            if changes:
                self._cache.apply(changes)

    def after_fork(self) -> None:
        """Forget, in a child, who was catching up in the parent."""
        self._catching_up = threading.Lock()

    def begin(self) -> None:
        """Start from the newest change: nothing older can be in an empty cache."""
        self._cache.applied = self._lookup.newest()


class FreshnessByAsking:
    """Keeps a cache as fresh as a store across a network, by asking it at every verification.

    The numbers of changes are given in the order in which they become visible (``store.db``), so that none is missed.
    A process that is cut off from the store answers nothing: nobody would know that it still serves what it remembers.
    """

    def __init__(self, lookup: FarLookup, cache: Cache) -> None:
        self.lookup = lookup
        self._cache = cache
        self.stale_served = 0

    def check(self, _now: int) -> bool:
        """Bring the cache up to date; ``False``, as there is no answering without the store. Raises ``Unavailable``."""
        self._obey(self.lookup.changes(self._cache.applied))
        return False

    async def acheck(self) -> bool:
        """``check``, for an event loop."""
        self._obey(await self.lookup.achanges(self._cache.applied))
        return False

    def _obey(self, changes: list[tuple[int, str, str]]) -> None:
        if changes:
            self._cache.apply(changes)

    def after_fork(self) -> None:
        """Connections are opened anew in a child."""
        self.lookup.after_fork()

    def begin(self) -> None:
        """Start from the newest change: nothing older can be in an empty cache."""
        self._cache.applied = self.lookup.newest()
