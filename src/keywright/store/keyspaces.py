"""Keyspaces: their definitions, as applied and as checked."""

from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, insert, select, update

from keywright.errors import Unavailable
from keywright.model import MANAGEMENT, Keyspace
from keywright.store.schema import keys, keyspaces

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Keyspace).decode


class Applied(NamedTuple):
    """A keyspace with the TOML it came from."""

    keyspace: Keyspace
    source: str
    created_at: int
    updated_at: int


def put(tx: Connection, keyspace: Keyspace, source: str, now: int, *, new: bool) -> None:
    """Write a definition."""
    values = {
        "prefix": keyspace.prefix,
        "definition": _encode(keyspace).decode(),
        "source": source,
        "updated_at": now,
    }
    if new:
        tx.execute(insert(keyspaces).values(name=keyspace.name, created_at=now, **values))
    else:
        tx.execute(update(keyspaces).where(keyspaces.c.name == keyspace.name).values(**values))


def get(connection: Connection, name: str) -> Applied | None:
    """Read one."""
    row = connection.execute(select(keyspaces).where(keyspaces.c.name == name)).first()
    return None if row is None else Applied(read(row.definition), row.source, row.created_at, row.updated_at)


def every(connection: Connection) -> list[Applied]:
    """Read all but our own, by name."""
    rows = connection.execute(
        select(keyspaces).where(keyspaces.c.name != MANAGEMENT).order_by(keyspaces.c.name)
    )
    return [Applied(read(row.definition), row.source, row.created_at, row.updated_at) for row in rows]


def with_prefix(connection: Connection, prefix: str) -> str | None:
    """The name of the keyspace that has a prefix."""
    return connection.execute(select(keyspaces.c.name).where(keyspaces.c.prefix == prefix)).scalar()


def environments_in_use(connection: Connection, name: str) -> set[str]:
    """The environments that have keys, ended and deleted ones too."""
    rows = connection.execute(select(keys.c.environment).where(keys.c.keyspace == name).distinct())
    return {row.environment for row in rows}


def plans_in_use(connection: Connection, name: str) -> set[str]:
    """The plans that keys which are not deleted are on."""
    query = select(keys.c.plan).where(
        keys.c.keyspace == name, keys.c.plan.is_not(None), keys.c.state != "deleted"
    )
    return {row.plan for row in connection.execute(query.distinct())}


def read(definition: str) -> Keyspace:
    """Read a stored definition. Raises ``Unavailable`` for one that was damaged."""
    try:
        return _decode(definition)
    except msgspec.DecodeError as damaged:
        raise Unavailable(f"a keyspace's stored definition cannot be read: {damaged}") from None
