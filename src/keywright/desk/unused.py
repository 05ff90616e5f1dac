"""Keys that nobody uses, where their keyspace wants them to end: told of two weeks before, watched, and ended.

A key that was used a moment before is never ended, and none because nobody could say whether it was. So that this holds
whatever is late, a key whose time is over is not ended but watched first: its secret is marked, and announced, so that
from then on its next use is written into the keys file before it is answered (as the first use is that starts a rotation).
Ten minutes later it is ended, if then

- nothing has changed it since it was announced, which is looked up in the transaction that ends it, behind the same lock
  that such a use would have to pass: whoever used it in these minutes is known;
- no worker has counted a use that the store may not have, read from the slot files, and then the store knows of none: so
  is whoever used it before. What a worker of another machine counted has long arrived, unless the store was lost to it;
- and every worker confirms one more announcement right before. On PostgreSQL one that is cut off, and may let requests in
  that it cannot write down, confirms nothing: then nothing is ended as long as it may.

Where the store of counts, or a slot file, cannot be read, nothing is ended; of a slot file that is said in the log, once. What overlaps with the end itself may be
answered either way, as with every other change; and what a worker let in that was cut off in that very second, or was lost
with its machine before it had told anybody, nobody can know.

What is watched is remembered by one process, and whoever takes over begins to watch anew: that is a change of the key too,
so that two who both believe themselves to be the one end nothing that the other has not watched long enough.
"""

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Final

from sqlalchemy import Connection

from keywright import events
from keywright.desk import Desk, messages
from keywright.desk.keys import Keys
from keywright.desk.listing import announced, policies
from keywright.errors import Unavailable
from keywright.events import ENDING_UNUSED, Place
from keywright.hygiene import NOTICE, UNUSED, idle_since
from keywright.keyring import Keyring
from keywright.meter import Meter
from keywright.model import Actor, Key, StoredSecret
from keywright.slots import Slots
from keywright.store import changes, deliveries, keys, keyspaces, usage, webhooks
from keywright.store.db import Database
from keywright.store.webhooks import Message
from keywright.times import SECOND, rfc3339

SWEEPS: Final = Actor("system", "unused")
#: How often all keys are looked through, and how many at once; how many are watched or ended at once.
EVERY: Final = 3600 * SECOND
_LOOKED_THROUGH: Final = 500
_AT_ONCE: Final = 50
#: How long before its end a key is told of: in time for it, though all keys are looked through once an hour only.
_AHEAD: Final = NOTICE + 2 * EVERY
#: How long a key is watched before it is ended: by then what was counted before is known.
WATCHED: Final = 600 * SECOND
_AGAIN: Final = 60 * SECOND
_MOST_WATCHED: Final = 10_000
_BEGIN: Final = (-1, "")

log = logging.getLogger("keywright")


class Unused(Desk):
    """Ends the keys that nobody uses, a portion a round. One process does it at a time: the one that looks out."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        clock: Callable[[], int],
        keys: Keys,
        meter: Meter,
        slots: Slots,
    ) -> None:
        super().__init__(database, keyring, clock)
        self._keys, self._meter, self._slots = keys, meter, slots
        self.begin()

    def begin(self) -> None:
        """Know nothing yet: at the start, and in a forked child."""
        self._looked_at = -EVERY
        self._after = _BEGIN
        self._watched: dict[str, tuple[int, int]] = {}  # since when, and the number of its announcement
        self._blind = False

    def round(self) -> int:
        """Look through some keys, tell of those that end soon, watch or end those whose time is over; how many ended.

        Raises ``Unavailable``; what was not done then is done in a later round.
        """
        now = self.clock()
        if self._after != _BEGIN or not 0 <= now - self._looked_at < EVERY:
            self._look(now)
        return self._end(now)

    # ------------------------------------------------------------------------------------------------------- looking

    def _look(self, now: int) -> None:
        if self._after == _BEGIN:
            self._looked_at = now
        with self.database.read() as connection:
            ends = policies(connection)
        if not ends:
            self._after, self._watched = _BEGIN, {}
            return
        some = self._left_alone(sorted(ends), now)
        ending = self._keys.ending(
            self._idle(some, min(one.unused or 0 for one in ends.values()), now), _AHEAD
        )
        self._tell(ending, now)
        self._watch([key for key in ending if _is_over(key, now)], now)

    def _left_alone(self, spaces: Sequence[str], now: int) -> Sequence[str]:
        with self.database.read() as connection:
            some = keys.left_alone(
                connection, spaces, now - UNUSED + _AHEAD, now, after=self._after, limit=_LOOKED_THROUGH
            )
        self._after = some[-1] if len(some) == _LOOKED_THROUGH else _BEGIN
        return [key_id for _, key_id in some]

    def _idle(self, some: Sequence[str], shortest: int, now: int) -> Sequence[Key]:
        """Those that nobody has used for nearly as long as any keyspace has it."""
        with self.database.read("usage") as connection:
            used = usage.used_since(connection, some, now - shortest * SECOND + _AHEAD)
        with self.database.read() as connection:
            found = [_readable(connection, key_id, now) for key_id in some if key_id not in used]
        return [key for key in found if key is not None]

    def _tell(self, ending: Sequence[Key], now: int) -> None:
        """Tell of those that were not told of since they were used or changed last, each once."""
        with self.database.read("usage") as connection:
            told = announced(connection, ending)
        new = [key for key in ending if key.id not in told]
        for some in _portions(new):
            with self.database.read() as connection:
                news = [(key, self._news(connection, key, now)) for key in some]
            with self.database.write("usage") as tx:
                for key, its in news:
                    end = key.ends_unused_at or 0
                    if deliveries.tell_once(tx, key.id, str(idle_since(key)), end, ENDING_UNUSED):
                        deliveries.carry(tx, its, now)

    def _news(self, connection: Connection, key: Key, now: int) -> Sequence[Message]:
        """The messages that tell of a key's end, one for every endpoint that wants it."""
        assert key.ends_unused_at is not None
        place = Place(key.account, key.keyspace, key.environment)
        unused = {"since": rfc3339(idle_since(key)), "ends_at": rfc3339(key.ends_unused_at)}
        body = events.message(ENDING_UNUSED, now, {"key": events.key(key), "unused": unused})
        wanted, message_id = webhooks.subscribed(connection, ENDING_UNUSED, place), messages.new_id()
        return [Message(0, message_id, endpoint, ENDING_UNUSED, body, now) for endpoint in wanted]

    # ------------------------------------------------------------------------------------------------------- ending

    def _watch(self, over: Sequence[Key], now: int) -> None:
        """Have the next use of each of these keys written down before it is answered."""
        new = [key for key in over if key.id not in self._watched and len(_live(key, now)) == 1]
        for some in _portions(new[: _MOST_WATCHED - len(self._watched)]):
            with self.change() as change:
                for key in some:
                    keys.set_secret(change.tx, key.id, _live(key, now)[0].n, starts_rotation=1, grace=None)
                    change.announce("key", key.id)
                seq = changes.newest(change.tx)
            self._watched |= {key.id: (change.now, seq) for key in some}

    def _end(self, now: int) -> int:
        ripe = [key_id for key_id, (since, _) in self._watched.items() if now - since >= WATCHED][:_AT_ONCE]
        if not ripe:
            return 0
        self._meter.settle()
        confirmed = self._confirmed(ripe)
        counting = self._counting()  # before the store is read: what leaves a slot is there
        return sum(self._tried(key_id, counting) for key_id in confirmed)

    def _counting(self) -> Container[str]:
        """The keys whose use the store may not know of. Raises ``Unavailable``; that nobody can say is logged once."""
        try:
            counting = self._slots.counting()
        except Unavailable as trouble:
            if not self._blind:
                log.warning("no key ends that nobody uses, until this is mended: %s", trouble)
            self._blind = True
            raise
        if self._blind:
            log.warning("the slot files can be read again: keys that nobody uses end as they should")
        self._blind = False
        return counting

    def _confirmed(self, ripe: Sequence[str]) -> Sequence[str]:
        """Those of the keys that nothing has changed, announced again; none where not every worker knows it by now.

        What is not ended then, for whatever reason, is tried again in a minute.
        """
        with self.change() as change:
            watched = {key_id: self._watched.pop(key_id)[1] for key_id in ripe}
            still = [key_id for key_id, seq in watched.items() if not changes.since(change.tx, seq, key_id)]
            for key_id in still:
                change.announce("key", key_id)
            seq = changes.newest(change.tx)
        self._watched |= dict.fromkeys(still, (change.now - WATCHED + _AGAIN, seq))
        return still if change.travelled.exact else ()

    def _tried(self, key_id: str, counting: Container[str]) -> bool:
        """End a key, if it can be; what cannot be read of one stops no other. What is still unused is found again."""
        _, seq = self._watched.pop(key_id)
        try:
            return key_id not in counting and self._ended(key_id, seq)
        except Unavailable:
            raise
        except Exception:
            log.exception("the key %s, which nobody uses, could not be ended", key_id)
            return False

    def _ended(self, key_id: str, seq: int) -> bool:
        with self.change() as change:
            if changes.since(change.tx, seq, key_id):
                return False
            key = keys.get(change.tx, key_id, change.now)
            over = [] if key is None else self._keys.ending([key], 0)
            for one in over:
                applied = keyspaces.get(change.tx, one.keyspace)
                assert applied is not None
                self._keys.end_unused(change, one, applied.keyspace.expiry.unused_act, SWEEPS)
            return bool(over)


def _portions(some: Sequence[Key]) -> Iterator[Sequence[Key]]:
    """As many at a time as one transaction takes: no writer waits for long."""
    return (some[place : place + _AT_ONCE] for place in range(0, len(some), _AT_ONCE))


def _is_over(key: Key, now: int) -> bool:
    return key.ends_unused_at is not None and key.ends_unused_at <= now


def _live(key: Key, now: int) -> list[StoredSecret]:
    return [one for one in key.secrets if one.ends_at is None or one.ends_at > now]


def _readable(connection: Connection, key_id: str, now: int) -> Key | None:
    try:
        return keys.get(connection, key_id, now)
    except Unavailable as trouble:
        log.warning("whether anybody uses the key %s cannot be said: %s", key_id, trouble)
        return None


__all__ = ["EVERY", "SWEEPS", "WATCHED", "Unused"]
