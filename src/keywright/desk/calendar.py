"""The calendar: what happens by the clock alone, and is told of by webhooks. Expiry, near and come; a grace at its end;
the return of a key that was disabled for a time.

Nobody acts when a key expires, so nothing is written then. The calendar is read instead: from where it was read last up to
a moment ago, in one transaction with the messages that come of it, so that each is written once, whatever was down
meanwhile. The moment is for clocks of several machines that differ.
"""

from typing import Final

from sqlalchemy import Connection

from keywright.desk import Desk, messages
from keywright.events import EXPIRING
from keywright.store import calendar, keys, webhooks
from keywright.times import DAY, SECOND

LAG: Final = 5 * SECOND
#: How long the place may stay where it is while nothing happens: writing it down makes every cache look.
NOTED_EVERY: Final = 3600 * SECOND

_Happened = list[tuple[int, str, str, int | None]]  # when, which key, which event, days


class Calendar(Desk):
    """What the clock brings."""

    def read(self) -> int:
        """Write the messages of what has happened since it was read last; how many things there were."""
        with self.database.read() as connection:
            if not self._due(connection):
                return 0
        with self.change() as change:
            after, until = webhooks.read_until(change.tx), change.now - LAG
            if after is None or until <= after:
                return 0
            found = _between(change.tx, after, until)
            for at, key_id, event, days in found:
                key = keys.get(change.tx, key_id, max(at, change.now))
                if key is not None:
                    messages.post_key(change.tx, event, key, at, **({} if days is None else {"days": days}))
            webhooks.set_read_until(change.tx, until)
            return len(found)

    def _due(self, connection: Connection) -> bool:
        after, until = webhooks.read_until(connection), self.clock() - LAG
        if after is None or until <= after:
            return False
        return until - after > NOTED_EVERY or bool(_between(connection, after, until))


def _between(connection: Connection, after: int, until: int) -> _Happened:
    """What happens in between, in order. Of several warnings of one expiry, only the last."""
    nearest: dict[str, tuple[int, str, str, int | None]] = {}
    for days in (*EXPIRING, 0):
        for key_id, expires_at in calendar.expiring(connection, after, until, days * DAY * SECOND):
            event = "key.expiring" if days else "key.expired"
            nearest[key_id] = (expires_at - days * DAY * SECOND, key_id, event, days or None)
    ended: _Happened = [
        (at, key_id, "key.rotation_ended", None) for key_id, at in calendar.rotated(connection, after, until)
    ]
    back: _Happened = [
        (at, key_id, "key.enabled", None) for key_id, at in calendar.returned(connection, after, until)
    ]
    return sorted([*nearest.values(), *ended, *back], key=lambda one: one[:2])
