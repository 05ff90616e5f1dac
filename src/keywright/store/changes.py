"""The announcements: which key, account or keyspace a transaction changed. Caches forget by them."""

from typing import Literal

from sqlalchemy import Connection, insert

from keywright.store.schema import changes

Kind = Literal["key", "account", "keyspace"]


def note(tx: Connection, kind: Kind, ref: str, now: int) -> None:
    """Announce a change, in its own transaction: whoever sees the change can see the announcement."""
    tx.execute(insert(changes).values(kind=kind, ref=ref, at=now))
