"""The refusal log, as it is read: what was really wrong with a request that was refused."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from keywright.desk import LIBRARY, Desk, cursors
from keywright.desk.accounts import account_id
from keywright.desk.grants import EVERYTHING, Reach
from keywright.desk.keyspaces import keyspace_name
from keywright.errors import Invalid, NotFound
from keywright.keyring import Keyring
from keywright.meter import Meter
from keywright.model import Actor, Page
from keywright.store import keys, refusals
from keywright.store.db import Database
from keywright.store.keys import Named
from keywright.store.refusals import Narrow, Refusal
from keywright.times import SECOND

LONGEST_PAGE = 200


class Refused(NamedTuple):
    """A refusal, and the key that was named in it, where it exists and whoever asks may know of it."""

    refusal: Refusal
    key: Named | None


class Refusals(Desk):
    """The refusal log of an installation: the newest 100,000."""

    def __init__(self, database: Database, keyring: Keyring, clock: Callable[[], int], meter: Meter) -> None:
        super().__init__(database, keyring, clock)
        self._meter = meter

    def list(  # the verb of every surface
        self,
        *,
        keyspace: str | None = None,
        account: str | None = None,
        environment: str | None = None,
        key: str | None = None,
        code: str | None = None,
        request_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        reach: Reach = EVERYTHING,
    ) -> Page:
        """Refusals, newest first. A confined caller sees those in which a key of its own was named, and no other.

        Raises ``Invalid``, or ``NotFound`` for an account or a keyspace that is not there or what is not in reach.
        """
        if not 1 <= limit <= LONGEST_PAGE:
            raise Invalid(f"is from 1 to {LONGEST_PAGE}", path="limit")
        self._meter.settle()
        with self.database.read() as connection:
            narrow = Narrow(
                keyspace=keyspace_name(connection, reach.one_keyspace(keyspace), own=True),
                environment=reach.needs("environment", environment),
                account_id=account_id(connection, reach.needs("account", account)),
                key_id=key,
                code=code,
                request_id=request_id,
                known=reach != EVERYTHING,
            )
        bound = ["refusals", narrow]
        before = None if cursor is None else cursors.read(cursor, bound, self.keyring.cursor)[0]
        with self.database.read("usage") as connection:
            found = refusals.page(connection, narrow, before=before, limit=limit + 1)
        following = (
            cursors.write([found[limit - 1][0]], bound, self.keyring.cursor) if len(found) > limit else None
        )
        return Page(tuple(self._named([refusal for _, refusal in found[:limit]], reach)), following)

    def get(self, request_id: str, *, reach: Reach = EVERYTHING) -> Refused:
        """The newest refusal of a request. Raises ``NotFound``."""
        found = self.list(request_id=request_id, limit=1, reach=reach).items
        if not found:
            raise NotFound(f"no refused request {request_id[:60]!r} is in the log")
        refused: Refused = found[0]
        return refused

    def purge(self, *, older_than: int, actor: Actor = LIBRARY) -> int:
        """Remove refusals more than ``older_than`` seconds ago, for good; how many there were."""
        with self.database.write("usage", lasting=True) as tx:
            gone = refusals.purge(tx, self.clock() - older_than * SECOND)
        if gone:
            with self.change() as change:
                change.tell(actor, "refusal.purge", ("refusals", "old"), count=gone, older_than=older_than)
        return gone

    def _named(self, found: Sequence[Refusal], reach: Reach) -> Sequence[Refused]:
        with self.database.read() as connection:
            named = keys.names(connection, {one.key_id for one in found if one.key_id}, self.clock())
        shown = []
        for one in found:
            key = named.get(one.key_id)
            hidden = reach != EVERYTHING and (key is None or not reach.covers(key))
            shown.append(
                Refused(one._replace(key_id="", account_id=""), None) if hidden else Refused(one, key)
            )
        return shown


__all__ = ["Refusals", "Refused"]
