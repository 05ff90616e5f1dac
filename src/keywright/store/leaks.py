"""Keys that were reported as found where they should not be, and how often each source reports. Never a secret."""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from keywright.store.schema import leaks, reporters


class Leak(NamedTuple):
    """One secret of a key that was reported: by its number, since when, and the first place that was named."""

    key_id: str
    secret: int
    at: int
    url: str | None


def report(tx: Connection, source: str, now: int, within: int) -> tuple[int, int]:
    """Count a report of a source, from one again where its first lies ``within`` back; how many that makes, since when."""
    tx.execute(delete(reporters).where(reporters.c.since <= now - within))
    dialect = sqlite if tx.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(reporters).values(source=source, reports=1, since=now)
    statement = statement.on_conflict_do_update(
        index_elements=["source"], set_={"reports": reporters.c.reports + 1}
    )
    many, since = tx.execute(statement.returning(reporters.c.reports, reporters.c.since)).one()
    return int(many), int(since)


def add(tx: Connection, found: Iterable[Leak]) -> None:
    """Write down what is not known yet; of what is, the first report stands."""
    rows = [one._asdict() for one in sorted(found, key=lambda leak: leak[:3])]
    if rows:
        dialect = sqlite if tx.dialect.name == "sqlite" else postgresql
        tx.execute(dialect.insert(leaks).on_conflict_do_nothing(), rows)


def waiting(connection: Connection, limit: int) -> list[Leak]:
    """The oldest that nobody has seen to."""
    query = select(leaks).where(leaks.c.handled_at.is_(None)).order_by(leaks.c.at, leaks.c.key_id)
    rows = connection.execute(query.limit(limit))
    return [Leak(row.key_id, int(row.secret), int(row.at), row.url) for row in rows]


def handled(tx: Connection, leak: Leak, now: int) -> bool:
    """Note that one was seen to; ``False`` where somebody else was faster."""
    mine = (leaks.c.key_id == leak.key_id, leaks.c.secret == leak.secret, leaks.c.handled_at.is_(None))
    return tx.execute(update(leaks).where(*mine).values(handled_at=now)).rowcount == 1


__all__ = ["Leak", "add", "handled", "report", "waiting"]
