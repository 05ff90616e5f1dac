"""The audit trail, as it is read and proven."""

from collections.abc import Iterator
from typing import Any

from keywright.desk import Desk, cursors
from keywright.desk.accounts import account_name
from keywright.desk.grants import EVERYTHING, Reach
from keywright.errors import Forbidden, Invalid
from keywright.model import Actor, Page
from keywright.store import audit
from keywright.store.audit import Broken, Head
from keywright.times import SECOND

LONGEST_PAGE = 1000
ACTORS = ("command", "library", "management_key", "key", "person", "visitor", "system")


class Trail(Desk):
    """The audit trail of an installation."""

    def verify(self, kept: Head | None = None) -> Broken | None:
        """Recompute the whole chain; ``None`` where it holds. ``kept`` is a head that was kept outside."""
        with self.database.read() as connection:
            return audit.verify(connection, self.keyring, kept)

    def head(self) -> Head:
        """The newest entry's number and MAC: what to keep outside."""
        with self.database.read() as connection:
            return audit.head(connection)

    def list(  # the verb of every surface
        self,
        *,
        target: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        account: str | None = None,
        before: int | None = None,
        cursor: str | None = None,
        limit: int = 100,
        reach: Reach = EVERYTHING,
    ) -> Page:
        """Entries, newest first. ``actor`` is an id, or ``kind:id``; ``before`` leaves out that number and newer ones.

        Who is bound to an account sees what was done to it and its keys; to a keyspace or an environment, to their keys.
        Raises ``Invalid``, or ``NotFound`` for an account that is not there or not in reach.
        """
        if not 1 <= limit <= LONGEST_PAGE:
            raise Invalid(f"is from 1 to {LONGEST_PAGE}", path="limit")
        if reach.acts_of is not None:
            if actor not in (None, reach.acts_of, reach.acts_of.partition(":")[2]):
                raise Forbidden("your role shows you your own acts only")
            actor = reach.acts_of
        kind, colon, name = (actor or "").partition(":")
        kinded = bool(colon) and kind in ACTORS
        narrow = audit.Narrow(
            target=target,
            actor_kind=kind if kinded else None,
            actor_id=name if kinded else actor,
            action=action,
            account=reach.needs("account", account),
            keyspace=reach.keyspace,
            environment=reach.environment,
        )
        bound, key = ["audit", narrow], self.keyring.cursor
        from_cursor = None if cursor is None else int(cursors.read(cursor, bound, key)[0])
        starts = min((place for place in (before, from_cursor) if place is not None), default=None)
        with self.database.read() as connection:
            account_name(connection, narrow.account, own=True)
            found = tuple(audit.entries(connection, narrow, before=starts, limit=limit + 1))
        more = len(found) > limit
        found = found[:limit]
        return Page(found, cursors.write([found[-1]["seq"]], bound, key) if more else None)

    def refused(self, actor: Actor, act: str, lacking: str, account: str | None) -> None:
        """Write that somebody was refused: of each caller and act at most one entry a minute."""
        target = ("route", act)
        with self.change() as change:
            since = change.now - change.now % (60 * SECOND)
            within = account if actor.kind == "visitor" else None
            if not audit.told_since(change.tx, actor, "refused", target, since, within):
                change.tell(actor, "refused", target, account=account, lacking=lacking)

    def walk(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Every entry behind a number, oldest first, with its MAC: for an export."""
        with self.database.read() as connection:
            yield from audit.walk(connection, after)

    def export(self, *, after: int = 0, limit: int = LONGEST_PAGE, reach: Reach = EVERYTHING) -> Page:
        """Some of ``walk``, what is in reach of it. Where more follows, ``next_cursor`` is what to go on ``after``."""
        narrow = audit.Narrow(account=reach.account, keyspace=reach.keyspace, environment=reach.environment)
        with self.database.read() as connection:
            found = tuple(audit.walk(connection, after, narrow, limit=limit + 1))
        return Page(found[:limit], str(found[limit - 1]["seq"]) if len(found) > limit else None)
