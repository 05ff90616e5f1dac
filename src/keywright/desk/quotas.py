"""Quotas that run out, told of by webhooks: at 80 % and when nothing is left, once a period.

What is spent is looked at every half minute, of the keys that were used since. Nothing of it is on the path of a request.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from keywright import events
from keywright import limits as arithmetic
from keywright.desk import Desk, messages
from keywright.events import QUOTA, Place
from keywright.keyring import Keyring
from keywright.model import Limit
from keywright.store import deliveries, keys, quotas, webhooks
from keywright.store.db import Database
from keywright.store.quotas import Held
from keywright.store.webhooks import Message
from keywright.times import SECOND, rfc3339

EVERY: Final = 30 * SECOND
#: How far back it is looked where nobody has looked yet: counts reach the store a second after the request.
BEHIND: Final = 3600 * SECOND
_LATE: Final = 120 * SECOND


class Spent(NamedTuple):
    """A quota of a key, of its plan, or of its account, and how much of it is used."""

    subject: str
    limit: Limit
    period: int
    used: int
    holder: Held

    @property
    def event(self) -> str | None:
        """What is to be told of it."""
        if self.limit.limit == 0:
            return None
        reached = [name for name, percent in QUOTA.items() if self.used * 100 >= self.limit.limit * percent]
        return reached[-1] if reached else None


class Quotas(Desk):
    """Whose quotas and credits run low."""

    def __init__(self, database: Database, keyring: Keyring, clock: Callable[[], int]) -> None:
        super().__init__(database, keyring, clock)
        self._read_at = 0

    def read(self) -> int:
        """Write the messages of quotas that have run low or out; how many there were."""
        now = self.clock()
        if now - self._read_at < EVERY:
            return 0
        since = self._read_at - _LATE if self._read_at else now - BEHIND
        found = [spent for spent in self._spent(since, now) if spent.event is not None]
        told = sum(self._tell(spent, now) for spent in found)
        self._read_at = now
        return told

    def _spent(self, since: int, now: int) -> Sequence[Spent]:
        with self.database.read() as connection:
            if not any(webhooks.wants(connection, name) for name in QUOTA):
                return ()
        with self.database.read("usage") as connection:
            used = quotas.active(connection, since)
        with self.database.read() as connection:
            charged = {
                (subject, limit.name, arithmetic.period_start(limit, now)): (limit, holder)
                for holder in quotas.held(connection, used)
                for subject, limit in quotas.charges(connection, holder)
                if limit.kind != "rate"
            }
        with self.database.read("spend") as connection:
            amounts = quotas.used(connection, charged)
        return [
            Spent(subject, limit, period, amounts.get((subject, name, period), 0), holder)
            for (subject, name, period), (limit, holder) in charged.items()
        ]

    def _tell(self, spent: Spent, now: int) -> bool:
        event = spent.event
        assert event is not None
        place, data = self._about(spent, now)
        with self.database.read() as connection:
            wanted = webhooks.subscribed(connection, event, place)
        body, message_id = events.message(event, now, data), messages.new_id()
        with self.database.write("usage") as tx:
            # A warning behind the end would be no news.
            earlier = [name for name in QUOTA if QUOTA[name] < QUOTA[event]]
            for name in earlier:
                deliveries.tell_once(tx, spent.subject, spent.limit.name, spent.period, name)
            if not deliveries.tell_once(tx, spent.subject, spent.limit.name, spent.period, event):
                return False
            deliveries.carry(tx, [Message(0, message_id, one, event, body, now) for one in wanted], now)
        return True

    def _about(self, spent: Spent, now: int) -> tuple[Place, dict[str, Any]]:
        limit, holder = spent.limit, spent.holder
        end = arithmetic.period_end(limit, now)
        quota = {
            "name": limit.name,
            "kind": limit.kind,
            "limit": limit.limit,
            "per": limit.per,
            "used": spent.used,
            "resets_at": None if end is None else rfc3339(end),
        }
        if spent.subject.startswith("account:"):
            return Place(holder.account), {"quota": quota, "account": {"username": holder.account}}
        with self.database.read() as connection:
            key = keys.get(connection, holder.id, now)
        about = {"quota": quota} if key is None else {"quota": quota, "key": events.key(key)}
        return Place(holder.account, holder.keyspace, holder.environment), about
