"""The announcements: which key, account or keyspace a transaction changed. Caches forget by them.

They are trimmed, from the oldest on and never the newest. Whoever has acted upon none that is left may have missed some, and
is told so where it asks for what is new (``lookup.CHANGES``); ``docs/freshness.md`` says why that is enough.
"""

from typing import Final, Literal

from sqlalchemy import Connection, delete, func, insert, select

from keywright.store.schema import changes

Kind = Literal["key", "account", "keyspace", "imported"]  # of an imported credential, its tag in hexadecimal
#: So many numbers are kept of the newest, whatever their age; and so many are removed at once.
KEPT: Final = 100_000
AT_ONCE: Final = 10_000


def note(tx: Connection, kind: Kind, ref: str, now: int) -> None:
    """Announce a change, in its own transaction: whoever sees the change can see the announcement."""
    tx.execute(insert(changes).values(kind=kind, ref=ref, at=now))
    if tx.dialect.name == "postgresql":
        tx.exec_driver_sql("NOTIFY keywright_changes")  # sent with the commit; whoever misses it asks soon


def since(tx: Connection, seq: int, key_id: str) -> bool:
    """Whether a change later than that number tells of a key, or may have: it is no longer known of all."""
    query = select(changes.c.seq).where(changes.c.seq > seq, changes.c.kind == "key", changes.c.ref == key_id)
    return tx.execute(query.limit(1)).first() is not None or (oldest(tx) or 0) - 1 > seq


def oldest(tx: Connection) -> int | None:
    """The number of the oldest announcement that is left."""
    found: int | None = tx.execute(select(func.min(changes.c.seq))).scalar_one()
    return found


def outlived(connection: Connection, before: int) -> int | None:
    """Up to which number announcements may go: of some that are older than ``before``, and not among the newest."""
    first = oldest(connection)
    if first is None:
        return None
    young = select(changes.c.seq).where(changes.c.at >= before).order_by(changes.c.seq).limit(1)
    found = connection.execute(young).scalar_one_or_none()
    bounds = [first - 1 + AT_ONCE, newest(connection) - KEPT, *([] if found is None else [found - 1])]
    return last if (last := min(bounds)) >= first else None


def trim(tx: Connection, last: int) -> None:
    """Remove the announcements up to a number that ``outlived`` gave: the oldest ones, with no gap."""
    tx.execute(delete(changes).where(changes.c.seq <= last))


def newest(tx: Connection) -> int:
    """The number of the newest change that a transaction sees, its own among them; 0 where there is none."""
    return int(tx.execute(select(func.coalesce(func.max(changes.c.seq), 0))).scalar_one())
