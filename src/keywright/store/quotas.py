"""What the keys that were used lately are held to, and how much of it is taken."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection, select, tuple_

from keywright.model import Limit
from keywright.store import keyspaces
from keywright.store.schema import accounts, keys, spent, usage_minutes
from keywright.times import SECOND

Place = tuple[str, str, int]  # whose counter, its name, the first instant of its period

_limits: Final = msgspec.json.Decoder(tuple[Limit, ...]).decode


class Held(NamedTuple):
    """What a key is held to, and whose it is."""

    id: str
    keyspace: str
    environment: str
    account_id: str
    account: str
    plan: str | None
    limits: tuple[Limit, ...]
    shared: tuple[Limit, ...]  # with the account's other keys


def active(connection: Connection, since: int) -> list[str]:
    """The keys that anything was counted of in the minutes since an instant."""
    begun = since - since % (60 * SECOND)
    counted = usage_minutes.c.minute >= begun, usage_minutes.c.key_id != ""
    return [
        row.key_id for row in connection.execute(select(usage_minutes.c.key_id).where(*counted).distinct())
    ]


def held(connection: Connection, key_ids: Iterable[str]) -> Iterator[Held]:
    """What these keys are held to, as far as they are held to anything."""
    wanted = sorted(set(key_ids))
    query = select(
        keys.c.id, keys.c.keyspace, keys.c.environment, keys.c.account_id, keys.c.plan, keys.c.limits,
        accounts.c.username, accounts.c.limits.label("shared"),
    ).join(accounts, accounts.c.id == keys.c.account_id)  # fmt: skip
    for place in range(0, len(wanted), 500):
        for row in connection.execute(query.where(keys.c.id.in_(wanted[place : place + 500]))):
            own, shared = _limits(row.limits), _limits(row.shared)
            if own or shared or row.plan is not None:
                whose = row.id, row.keyspace, row.environment, row.account_id, row.username
                yield Held(*whose, row.plan, own, shared)


def charges(connection: Connection, holder: Held) -> Iterator[tuple[str, Limit]]:
    """Whose counters a key's use is taken from, as a verification has it."""
    yield from ((f"key:{holder.id}", limit) for limit in holder.limits)
    yield from ((f"account:{holder.account_id}", limit) for limit in holder.shared)
    applied = None if holder.plan is None else keyspaces.get(connection, holder.keyspace)
    if applied is not None and holder.plan in applied.keyspace.plans:
        plan = applied.keyspace.plans[holder.plan]
        yield from ((f"key:{holder.id}:plan", limit) for limit in plan.limits)


def used(connection: Connection, places: Iterable[Place]) -> dict[Place, int]:
    """How much is taken of these counters."""
    wanted = sorted(set(places))
    found: dict[Place, int] = {}
    whole = tuple_(spent.c.subject, spent.c.name, spent.c.period)
    for place in range(0, len(wanted), 300):
        rows = connection.execute(select(spent).where(whole.in_(wanted[place : place + 300])))
        found |= {(row.subject, row.name, int(row.period)): int(row.used) for row in rows}
    return found
