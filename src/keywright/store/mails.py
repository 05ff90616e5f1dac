"""E-mail on its way, and what has become of it: written with the alert that it tells of."""

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from keywright.store.schema import mails

#: How many are kept when they have been sent or given up.
KEPT: Final = 1_000


class Mail(NamedTuple):
    """One e-mail to one address."""

    seq: int
    message_id: str
    recipient: str
    subject: str
    body: str
    at: int
    attempts: int


def add(tx: Connection, message_id: str, recipient: str, subject: str, body: str, at: int) -> None:
    """Write one that is to be sent at once."""
    values = {"message_id": message_id, "recipient": recipient, "subject": subject, "body": body, "at": at}
    more = {"state": "waiting", "attempts": 0, "next_at": at, "error": ""}
    tx.execute(insert(mails).values(values | more))


def due(connection: Connection, now: int, limit: int) -> list[Mail]:
    """What is due, oldest first."""
    query = select(mails).where(mails.c.next_at <= now).order_by(mails.c.seq).limit(limit)
    return [Mail(*(getattr(row, name) for name in Mail._fields)) for row in connection.execute(query)]


def note(tx: Connection, seq: int, **values: Any) -> None:
    """Write down what came of an attempt."""
    tx.execute(update(mails).where(mails.c.seq == seq).values(values))


def trim(tx: Connection, before: int) -> None:
    """Keep of those that are done the newest, and none that is older."""
    done = mails.c.state != "waiting"
    tx.execute(delete(mails).where(done, mails.c.at < before))
    edge = select(mails.c.seq).where(done).order_by(mails.c.seq.desc()).offset(KEPT).limit(1)
    tx.execute(delete(mails).where(done, mails.c.seq <= edge.scalar_subquery()))


def standing(connection: Connection) -> dict[str, int]:
    """How many there are in each state."""
    rows = connection.execute(select(mails.c.state, func.count()).group_by(mails.c.state))
    return {row[0]: int(row[1]) for row in rows}


def trouble(connection: Connection) -> str:
    """What went wrong the last time; nothing where nothing did."""
    wrong = select(mails.c.error).where(mails.c.error != "").order_by(mails.c.last_at.desc()).limit(1)
    return connection.execute(wrong).scalar() or ""


__all__ = ["Mail", "add", "due", "note", "standing", "trim", "trouble"]
