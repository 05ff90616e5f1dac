"""What happens to keys by the clock alone, between two instants."""

from sqlalchemy import Connection, or_, select

from keywright.store.keys import works
from keywright.store.schema import keys, secrets


def expiring(connection: Connection, after: int, until: int, ahead: int) -> list[tuple[str, int]]:
    """Keys that work and come within ``ahead`` microseconds of their expiry in between, and when they expire.

    A key that was made later than that was never further away from its expiry, and is left out.
    """
    query = select(keys.c.id, keys.c.expires_at).where(
        keys.c.expires_at > after + ahead,
        keys.c.expires_at <= until + ahead,
        works(until),
        keys.c.created_at <= keys.c.expires_at - ahead,
    )
    return [
        (row.id, row.expires_at) for row in connection.execute(query.order_by(keys.c.expires_at, keys.c.id))
    ]


def returned(connection: Connection, after: int, until: int) -> list[tuple[str, int]]:
    """Keys that were disabled for a time that ends in between, and when it ends."""
    at = keys.c.disabled_until
    query = select(keys.c.id, at).where(at > after, at <= until, keys.c.state == "disabled")
    return [(row.id, row.disabled_until) for row in connection.execute(query.order_by(at, keys.c.id))]


def rotated(connection: Connection, after: int, until: int) -> list[tuple[str, int]]:
    """Keys of which an earlier secret ends in between while a newer one goes on, and when it ends."""
    newer = secrets.alias("newer")
    goes_on = select(newer.c.n).where(
        newer.c.key_id == secrets.c.key_id,
        newer.c.n > secrets.c.n,
        or_(newer.c.ends_at.is_(None), newer.c.ends_at > until),
    )
    query = (
        select(secrets.c.key_id, secrets.c.ends_at)
        .join(keys, keys.c.id == secrets.c.key_id)
        .where(
            secrets.c.ends_at > after,
            secrets.c.ends_at <= until,
            keys.c.state.in_(("active", "disabled")),
            goes_on.exists(),
        )
    )
    found = connection.execute(query.order_by(secrets.c.ends_at, secrets.c.key_id, secrets.c.n))
    return [(row.key_id, row.ends_at) for row in found]
