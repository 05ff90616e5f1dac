"""The announcements: which key, account or keyspace a transaction changed. Caches forget by them."""

from typing import Literal

from sqlalchemy import Connection, func, insert, select

from keywright.store.schema import changes

Kind = Literal["key", "account", "keyspace", "imported"]  # of an imported credential, its tag in hexadecimal


def note(tx: Connection, kind: Kind, ref: str, now: int) -> None:
    """Announce a change, in its own transaction: whoever sees the change can see the announcement."""
    tx.execute(insert(changes).values(kind=kind, ref=ref, at=now))
    if tx.dialect.name == "postgresql":
        tx.exec_driver_sql("NOTIFY keywright_changes")  # sent with the commit; whoever misses it asks soon


def since(tx: Connection, seq: int, key_id: str) -> bool:
    """Whether a change later than that number tells of a key."""
    query = select(changes.c.seq).where(changes.c.seq > seq, changes.c.kind == "key", changes.c.ref == key_id)
    return tx.execute(query.limit(1)).first() is not None


def newest(tx: Connection) -> int:
    """The number of the newest change that a transaction sees, its own among them; 0 where there is none."""
    return int(tx.execute(select(func.coalesce(func.max(changes.c.seq), 0))).scalar_one())
