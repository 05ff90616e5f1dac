"""Endpoints of webhooks, and the outbox: messages that are written in the transaction of what they tell of."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, or_, select, update

from keywright.events import Place, concerns
from keywright.model import Binding, Endpoint, EndpointSecret
from keywright.store.schema import calendar, endpoint_secrets, endpoints, outbox

_events: Final = msgspec.json.Decoder(tuple[str, ...]).decode


class Message(NamedTuple):
    """A message on its way from the outbox to an endpoint."""

    seq: int
    message_id: str
    endpoint_id: str
    type: str
    body: str
    at: int


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of endpoints is narrowed to."""

    account: str | None = None
    keyspace: str | None = None
    environment: str | None = None
    state: str | None = None


def add(tx: Connection, endpoint: Endpoint) -> None:
    """Write a new endpoint with its secrets."""
    values = msgspec.structs.asdict(endpoint)
    bound, secrets = values.pop("binding"), values.pop("secrets")
    values["events"] = _json(endpoint.events)
    tx.execute(insert(endpoints).values(**values, **msgspec.structs.asdict(bound)))
    for secret in secrets:
        add_secret(tx, endpoint.id, secret)


def add_secret(tx: Connection, endpoint_id: str, secret: EndpointSecret) -> None:
    """Write what a signing secret derives from."""
    tx.execute(insert(endpoint_secrets).values(endpoint_id=endpoint_id, **msgspec.structs.asdict(secret)))


def end_secrets(tx: Connection, endpoint_id: str, at: int, now: int) -> None:
    """Let every live secret end at ``at``, or where it ends sooner, then; forget those that have ended."""
    mine = endpoint_secrets.c.endpoint_id == endpoint_id
    tx.execute(delete(endpoint_secrets).where(mine, endpoint_secrets.c.ends_at <= now))
    sooner = or_(endpoint_secrets.c.ends_at.is_(None), endpoint_secrets.c.ends_at > at)
    tx.execute(update(endpoint_secrets).where(mine, sooner).values(ends_at=at))


def change(tx: Connection, endpoint_id: str, **values: Any) -> None:
    """Change columns of an endpoint."""
    if "events" in values:
        values["events"] = _json(values["events"])
    tx.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(values))


def remove(tx: Connection, endpoint_id: str) -> None:
    """Remove an endpoint, its secrets, and what is in the outbox for it."""
    tx.execute(delete(outbox).where(outbox.c.endpoint_id == endpoint_id))
    tx.execute(delete(endpoint_secrets).where(endpoint_secrets.c.endpoint_id == endpoint_id))
    tx.execute(delete(endpoints).where(endpoints.c.id == endpoint_id))


def get(connection: Connection, endpoint_id: str) -> Endpoint | None:
    """Read one."""
    row = connection.execute(select(endpoints).where(endpoints.c.id == endpoint_id)).first()
    return None if row is None else _with_secrets(connection, [row])[0]


def page(
    connection: Connection, narrow: Filter, *, after: Sequence[Any] | None, limit: int
) -> list[Endpoint]:
    """Read some, oldest first, from behind ``after`` (the last one's instant and id)."""
    query = select(endpoints).where(*_conditions(narrow))
    if after is not None:
        at, last = after
        later = or_(endpoints.c.created_at > at, (endpoints.c.created_at == at) & (endpoints.c.id > last))
        query = query.where(later)
    rows = connection.execute(query.order_by(endpoints.c.created_at, endpoints.c.id).limit(limit)).all()
    return _with_secrets(connection, rows)


def count(connection: Connection, bound: Binding) -> int:
    """How many endpoints are bound to the same account."""
    query = (
        select(func.count())
        .select_from(endpoints)
        .where(endpoints.c.account.is_not_distinct_from(bound.account))
    )
    return int(connection.execute(query).scalar_one())


def roots(connection: Connection) -> dict[int, int]:
    """How many signing secrets derive from each entry of the installation's secret."""
    query = select(endpoint_secrets.c.root, func.count()).group_by(endpoint_secrets.c.root)
    return {int(n): int(many) for n, many in connection.execute(query).all()}


# ---------------------------------------------------------------------------------------------------------- the outbox


def anybody(connection: Connection) -> bool:
    """Whether there is any endpoint that wants anything."""
    return (
        connection.execute(select(endpoints.c.id).where(endpoints.c.state == "active").limit(1)).first()
        is not None
    )


def wants(connection: Connection, type_: str) -> bool:
    """Whether any active endpoint wants an event, wherever it happens."""
    rows = connection.execute(select(endpoints.c.events).where(endpoints.c.state == "active"))
    return any(not (wanted := _events(row.events)) or type_ in wanted for row in rows)


def ids(connection: Connection) -> list[str]:
    """The ids of all endpoints."""
    return [row.id for row in connection.execute(select(endpoints.c.id).order_by(endpoints.c.id))]


def states(connection: Connection) -> dict[str, int]:
    """How many there are in each state."""
    rows = connection.execute(select(endpoints.c.state, func.count()).group_by(endpoints.c.state))
    return {row[0]: int(row[1]) for row in rows}


def any_at_all(connection: Connection) -> bool:
    """Whether there is any endpoint, or anything left in the outbox."""
    return connection.execute(select(endpoints.c.id).limit(1)).first() is not None


def subscribed(connection: Connection, type_: str, place: Place) -> list[str]:
    """The ids of the active endpoints that want an event of what happened there."""
    query = select(
        endpoints.c.id, endpoints.c.events, endpoints.c.account, endpoints.c.keyspace, endpoints.c.environment
    ).where(
        endpoints.c.state == "active",
        or_(endpoints.c.account.is_(None), endpoints.c.account == place.account),
    )
    return [
        row.id
        for row in connection.execute(query.order_by(endpoints.c.id))
        if concerns(place, Binding(row.account, row.keyspace, row.environment))
        and (not (wanted := _events(row.events)) or type_ in wanted)
    ]


def post(
    tx: Connection, endpoint_ids: Sequence[str], message_id: str, type_: str, body: str, at: int
) -> None:
    """Write a message for each of these endpoints."""
    rows = [
        {"message_id": message_id, "endpoint_id": endpoint_id, "type": type_, "body": body, "at": at}
        for endpoint_id in endpoint_ids
    ]
    if rows:
        tx.execute(insert(outbox), rows)


def waiting(connection: Connection, limit: int) -> list[Message]:
    """The oldest messages of the outbox, in the order in which they were written."""
    rows = connection.execute(select(outbox).order_by(outbox.c.seq).limit(limit))
    return [Message(*(getattr(row, name) for name in Message._fields)) for row in rows]


def carried(tx: Connection, through: int) -> None:
    """Remove messages up to a number: they have been carried over."""
    tx.execute(delete(outbox).where(outbox.c.seq <= through))


def read_until(connection: Connection) -> int | None:
    """Up to when the calendar was read; ``None`` before the first time."""
    return connection.execute(select(calendar.c.until)).scalar()


def set_read_until(tx: Connection, until: int) -> None:
    """Note up to when the calendar has been read."""
    if tx.execute(update(calendar).values(until=until)).rowcount == 0:
        tx.execute(insert(calendar).values(id=1, until=until))


def _conditions(narrow: Filter) -> list[ColumnElement[bool]]:
    return [
        endpoints.c[name] == value
        for name, value in msgspec.structs.asdict(narrow).items()
        if value is not None
    ]


def _with_secrets(connection: Connection, rows: Sequence[Row[Any]]) -> list[Endpoint]:
    found: dict[str, list[EndpointSecret]] = {row.id: [] for row in rows}
    query = select(endpoint_secrets).where(endpoint_secrets.c.endpoint_id.in_(list(found)))
    for row in connection.execute(query.order_by(endpoint_secrets.c.n.desc())):
        secret = EndpointSecret(row.n, row.root, bytes(row.salt), row.created_at, row.ends_at)
        found[row.endpoint_id].append(secret)
    return [_endpoint(row, tuple(found[row.id])) for row in rows]


def _endpoint(row: Row[Any], secrets: tuple[EndpointSecret, ...]) -> Endpoint:
    return Endpoint(
        id=row.id,
        url=row.url,
        description=row.description,
        events=_events(row.events),
        binding=Binding(row.account, row.keyspace, row.environment),
        state=row.state,
        state_reason=row.state_reason,
        challenge=row.challenge,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        secrets=secrets,
    )


def _json(events: tuple[str, ...]) -> str:
    return msgspec.json.encode(events).decode()
