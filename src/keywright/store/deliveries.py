"""Messages and what has become of them, how each endpoint takes them, and who delivers."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from keywright.store.schema import deliveries, leases, receivers, told
from keywright.store.webhooks import Message
from keywright.times import DAY, SECOND

#: Messages of an endpoint that are kept when they have arrived or were given up; older ones make room.
KEPT: Final = 1_000

_CARRY: Final = text("""
INSERT INTO deliveries (message_id, endpoint_id, type, body, at, state, attempts, next_at, error)
VALUES (:message_id, :endpoint_id, :type, :body, :at, 'waiting', 0, :next_at, '')
ON CONFLICT (message_id, endpoint_id) DO NOTHING
""")
_LEASE: Final = text("""
INSERT INTO leases (name, holder, until) VALUES (:name, :holder, :until)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE leases.holder = excluded.holder OR leases.until <= :now
RETURNING holder
""")
_RECEIVER: Final = text("""
INSERT INTO receivers (endpoint_id, failing_since, failures, rests_until)
VALUES (:endpoint_id, :failing_since, :failures, :rests_until)
ON CONFLICT (endpoint_id) DO UPDATE SET failing_since = excluded.failing_since, failures = excluded.failures,
rests_until = excluded.rests_until
""")


class Delivery(NamedTuple):
    """One message to one endpoint, and what has become of it."""

    seq: int
    message_id: str
    endpoint_id: str
    type: str
    body: str
    at: int
    state: str
    attempts: int
    next_at: int | None
    last_at: int | None
    status: int | None
    error: str


class Receiver(NamedTuple):
    """How an endpoint takes its messages: since when it has failed, how often, and until when it is left alone."""

    failing_since: int | None = None
    failures: int = 0
    rests_until: int = 0


def carry(tx: Connection, messages: Iterable[Message], now: int) -> None:
    """Take messages in; one that is known already is left as it is."""
    rows = [
        {
            "message_id": one.message_id,
            "endpoint_id": one.endpoint_id,
            "type": one.type,
            "body": one.body,
            "at": one.at,
            "next_at": now,
        }
        for one in messages
    ]
    if rows:
        tx.execute(_CARRY, rows)


def busy(connection: Connection, now: int) -> list[str]:
    """The endpoints that have something due and do not rest."""
    rests = select(receivers.c.endpoint_id).where(receivers.c.rests_until > now)
    query = (
        select(deliveries.c.endpoint_id)
        .where(deliveries.c.next_at <= now, deliveries.c.endpoint_id.not_in(rests))
        .distinct()
    )
    return [row.endpoint_id for row in connection.execute(query)]


def unsent(connection: Connection) -> int:
    """How many were tried, not taken, and wait for another attempt."""
    mine = deliveries.c.state == "waiting", deliveries.c.attempts > 0
    return int(connection.execute(select(func.count()).select_from(deliveries).where(*mine)).scalar_one())


def due(connection: Connection, endpoint_id: str, now: int, limit: int) -> list[Delivery]:
    """What is due for an endpoint, in the order in which it happened."""
    query = select(deliveries).where(deliveries.c.endpoint_id == endpoint_id, deliveries.c.next_at <= now)
    return [_delivery(row) for row in connection.execute(query.order_by(deliveries.c.seq).limit(limit))]


def note(
    tx: Connection,
    seq: int,
    state: str,
    *,
    attempts: int,
    next_at: int | None,
    at: int,
    status: int | None,
    error: str,
) -> None:
    """Write down what came of an attempt."""
    values = {
        "state": state, "attempts": attempts, "next_at": next_at, "last_at": at, "status": status, "error": error,
    }  # fmt: skip
    tx.execute(update(deliveries).where(deliveries.c.seq == seq).values(values))


def give_up(tx: Connection, endpoint_id: str, why: str) -> None:
    """Give up everything that waits for an endpoint."""
    mine = (deliveries.c.endpoint_id == endpoint_id, deliveries.c.state == "waiting")
    tx.execute(update(deliveries).where(*mine).values(state="failed", next_at=None, error=why))


def again(tx: Connection, endpoint_id: str, since: int, now: int) -> int:
    """Let what was given up since an instant be tried anew; how many there are."""
    mine = (
        deliveries.c.endpoint_id == endpoint_id,
        deliveries.c.state == "failed",
        deliveries.c.at >= since,
        deliveries.c.type != "webhook.verify",
    )
    changed = tx.execute(
        update(deliveries).where(*mine).values(state="waiting", attempts=0, next_at=now, error="")
    )
    return int(changed.rowcount)


def newest(connection: Connection, endpoint_id: str, type_: str) -> int | None:
    """When a message of this type was last written for an endpoint."""
    query = select(func.max(deliveries.c.at)).where(
        deliveries.c.endpoint_id == endpoint_id, deliveries.c.type == type_
    )
    return connection.execute(query).scalar()


def page(
    connection: Connection, endpoint_id: str, *, state: str | None, before: int | None, limit: int
) -> list[Delivery]:
    """The newest deliveries of an endpoint, newest first."""
    query = select(deliveries).where(deliveries.c.endpoint_id == endpoint_id)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    if before is not None:
        query = query.where(deliveries.c.seq < before)
    return [
        _delivery(row) for row in connection.execute(query.order_by(deliveries.c.seq.desc()).limit(limit))
    ]


def remove(tx: Connection, endpoint_id: str) -> None:
    """Remove all of an endpoint that is gone."""
    tx.execute(delete(deliveries).where(deliveries.c.endpoint_id == endpoint_id))
    tx.execute(delete(receivers).where(receivers.c.endpoint_id == endpoint_id))


def trim(tx: Connection, known: Sequence[str], before: int) -> None:
    """Keep of each endpoint the newest that are done, none that is older, and nothing of endpoints that are gone."""
    gone = deliveries.c.endpoint_id.not_in(list(known))
    tx.execute(delete(deliveries).where(gone))
    tx.execute(delete(receivers).where(receivers.c.endpoint_id.not_in(list(known))))
    done = deliveries.c.state != "waiting"
    tx.execute(delete(deliveries).where(done, deliveries.c.at < before))
    for endpoint_id in known:
        mine = deliveries.c.endpoint_id == endpoint_id
        edge = (
            select(deliveries.c.seq).where(mine, done).order_by(deliveries.c.seq.desc()).offset(KEPT).limit(1)
        ).scalar_subquery()
        tx.execute(delete(deliveries).where(mine, done, deliveries.c.seq <= edge))
    tx.execute(delete(told).where(told.c.period != 0, told.c.period < before - 40 * DAY * SECOND))


def receiver(connection: Connection, endpoint_id: str) -> Receiver:
    """How an endpoint takes its messages."""
    row = connection.execute(select(receivers).where(receivers.c.endpoint_id == endpoint_id)).first()
    return Receiver() if row is None else Receiver(row.failing_since, row.failures, row.rests_until)


def set_receiver(tx: Connection, endpoint_id: str, how: Receiver) -> None:
    """Write down how an endpoint takes its messages."""
    tx.execute(_RECEIVER, {"endpoint_id": endpoint_id, **how._asdict()})


def tell_once(tx: Connection, subject: str, name: str, period: int, event: str) -> bool:
    """Note that an event of a quota is told of; ``False`` where it was already in this period."""
    try:
        with tx.begin_nested():
            tx.execute(insert(told).values(subject=subject, name=name, period=period, event=event))
    except IntegrityError:
        return False
    return True


def announced(connection: Connection, event: str, subjects: Sequence[str]) -> dict[tuple[str, str], int]:
    """What was told of, by subject and name, and its latest period."""
    latest = func.max(told.c.period)
    query = select(told.c.subject, told.c.name, latest).where(
        told.c.event == event, told.c.subject.in_(subjects)
    )
    found = connection.execute(query.group_by(told.c.subject, told.c.name))
    return {(row[0], row[1]): int(row[2]) for row in found}


def lease(tx: Connection, name: str, holder: str, now: int, until: int) -> bool:
    """Become, or stay, the one who does something; ``False`` while somebody else is."""
    given = {"name": name, "holder": holder, "now": now, "until": until}
    return tx.execute(_LEASE, given).first() is not None


def release(tx: Connection, name: str, holder: str) -> None:
    """Let somebody else do it."""
    tx.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(*(getattr(row, name) for name in Delivery._fields))
