"""Workers: the processes that answer from memory on PostgreSQL, each with what it has confirmed.

A worker is registered before it trusts its memory, and leaves when it ends; one that was killed is swept away by others.
"""

from typing import Final

from sqlalchemy import Connection, func, select

from keywright.leases import Worker
from keywright.store import lookup
from keywright.store.schema import workers

REGISTER: Final = """
INSERT INTO workers (id, name, max_stale, confirmed, beat, registered_at) VALUES (%s, %s, %s, %s, %s, %s)
"""
#: Confirms what has been acted upon and reads what has not, in one snapshot. No row: the worker is not registered; one
#: row without a number: nothing has changed.
RENEW: Final = f"""
WITH own AS (UPDATE workers SET confirmed = %s, beat = %s WHERE id = %s RETURNING id),
     new AS ({lookup.CHANGES.replace("?", "%s")})
SELECT new.seq, new.kind, new.ref FROM own LEFT JOIN new ON true ORDER BY new.seq
"""  # noqa: S608  # both are texts of ours
REGISTERED: Final = "SELECT id, beat, max_stale FROM workers"
FORGET: Final = "DELETE FROM workers WHERE id = %s AND beat = %s"
LEAVE: Final = "DELETE FROM workers WHERE id = %s"
LISTEN: Final = "LISTEN keywright_changes"


def every(connection: Connection) -> list[Worker]:
    """What every registered worker has confirmed."""
    found = connection.execute(select(workers.c.confirmed, workers.c.max_stale))
    return [Worker(confirmed, max_stale) for confirmed, max_stale in found]


def behind(connection: Connection, seq: int) -> list[str]:
    """The host and process of each worker that has not confirmed a change."""
    found = select(workers.c.name).where(workers.c.confirmed < seq).order_by(workers.c.name)
    return list(connection.execute(found).scalars())


def count(connection: Connection) -> int:
    """How many workers are registered: those that live, and those that died in the last minutes."""
    return int(connection.execute(select(func.count()).select_from(workers)).scalar_one())
