"""How a process learns that something has changed, before it answers from memory.

On PostgreSQL a worker holds a lease for a second, which its ``feed`` renews; a verification without one asks for the
changes since the last known one: ``FreshnessByLease``.

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

from keywright import leases
from keywright.cache import Cache
from keywright.clock import boottime
from keywright.errors import Unavailable
from keywright.feed import Feed
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
#: How long a look-up may take across a network, in microseconds, connecting included.
_PATIENCE: Final = 3 * SECOND
_LOST: Final = "the store does not answer, and what is known by heart is too old to be served"


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

    def at_once(self, now: int) -> bool | None:
        """``check``: the store is near enough for that."""
        return self.check(now)

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

    def close(self) -> None:
        """Nothing to leave: on SQLite memory is shared."""


class FreshnessByLease:
    """Keeps a cache as fresh as a store across a network: by a lease, and where there is none by asking.

    The numbers of changes are given in the order in which they become visible (``store.db``), so that none is missed.
    """

    def __init__(self, lookup: FarLookup, cache: Cache, feed: Feed, *, on_store_loss: Policy) -> None:
        self.lookup = lookup
        self._cache = cache
        self.stale_served = 0
        self._feed = feed
        self._lease = feed.lease
        self._serve = on_store_loss == "serve"

    def check(self, _now: int) -> bool:
        """``Freshness.check``. Under a lease it costs a look at the clock."""
        began = boottime()
        if began < self._lease.until:
            return False
        if self._must_ask(began):
            try:
                self._obey(self.lookup.changes(self._cache.applied))
            except Unavailable as trouble:
                return self._without(began, trouble)
            return False
        self.stale_served += 1
        return True

    async def acheck(self) -> bool:
        """``check``, for an event loop."""
        began = boottime()
        if began < self._lease.until:
            return False
        if self._must_ask(began):
            try:
                self._obey(await self.lookup.achanges(self._cache.applied))
            except Unavailable as trouble:
                return self._without(began, trouble)
            return False
        self.stale_served += 1
        return True

    def at_once(self, _now: int) -> bool | None:
        """``check`` under a lease; ``None`` without one, where the store must be asked or is known not to answer."""
        return False if boottime() < self._lease.until else None

    def _must_ask(self, now: int) -> bool:
        """Whether the store is to be asked; if not, old answers are allowed. Raises ``Unavailable`` where they are not."""
        self._feed.start()
        basis = self._lease.basis(now)
        if basis == "nothing" or (basis == "stale" and not self._serve):
            raise Unavailable(_LOST)
        return basis != "stale"

    def _without(self, began: int, trouble: Unavailable) -> bool:
        now = boottime()
        self._lease.failed(began, now, patience=_PATIENCE, breather=leases.BREATHER)
        if self._serve and self._lease.without(now) == "stale":
            self.stale_served += 1
            return True
        raise trouble

    def _obey(self, changes: list[tuple[int, str, str]]) -> None:
        if changes:
            self._cache.apply(changes)

    def after_fork(self) -> None:
        """Connections are opened anew in a child, and a lease is its own."""
        self.lookup.after_fork()
        self._feed.after_fork()

    def begin(self) -> None:
        """Start from the newest change: nothing older can be in an empty cache."""
        self._cache.applied = self.lookup.newest()

    def close(self) -> None:
        """Trust nothing from here on, and leave the list of workers."""
        self._feed.close()
