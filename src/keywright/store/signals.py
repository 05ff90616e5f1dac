"""What was odd about requests that were let in, the networks of each key, and how far the watch has read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, text, update

from keywright.store.schema import last_used, networks, signals, watched

#: Signals that wait for the watch, and networks of one key that are known; older ones make room.
KEPT: Final = 20_000
KEPT_OF_KEY: Final = 50

_SEEN_IN: Final = text("""
INSERT INTO networks (key_id, network, since, at) VALUES (:key_id, :network, :at, :at)
ON CONFLICT (key_id, network) DO UPDATE SET at = excluded.at WHERE excluded.at > networks.at
""")
#: Of one key's networks those that it was seen in longest ago, where they are too many.
_LEFT_OUT: Final = text(f"""
DELETE FROM networks WHERE key_id = :key_id AND at <= (
  SELECT at FROM networks AS latest WHERE latest.key_id = :key_id ORDER BY at DESC LIMIT 1 OFFSET {KEPT_OF_KEY}
)
""")  # noqa: S608  # a number of ours


class Sign(NamedTuple):
    """One thing that was odd: ``use`` is the first of a while from an address, ``browser`` came from a web page."""

    at: int
    kind: str
    keyspace: str
    environment: str
    account_id: str
    key_id: str
    ip: str | None
    before: int | None = None


def add(tx: Connection, signs: Iterable[Sign]) -> None:
    """Write some, each use with when the key was used last before; let the oldest go where there are too many."""
    found = list(signs)
    if not found:
        return
    last = _last(tx, sorted({one.key_id for one in found if one.kind == "use"}))
    tx.execute(insert(signals), [one._replace(before=last.get(one.key_id))._asdict() for one in found])
    newest = select(func.max(signals.c.seq)).scalar_subquery()
    tx.execute(delete(signals).where(signals.c.seq <= newest - KEPT))


def _last(tx: Connection, key_ids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for place in range(0, len(key_ids), 500):
        some = last_used.c.key_id.in_(key_ids[place : place + 500])
        query = select(last_used.c.key_id, func.max(last_used.c.at)).where(some).group_by(last_used.c.key_id)
        found |= {row[0]: int(row[1]) for row in tx.execute(query)}
    return found


def waiting(connection: Connection, limit: int) -> list[tuple[int, Sign]]:
    """The oldest, with their numbers."""
    rows = connection.execute(select(signals).order_by(signals.c.seq).limit(limit))
    return [(row.seq, Sign(*(getattr(row, name) for name in Sign._fields))) for row in rows]


def done(tx: Connection, through: int) -> None:
    """Remove those up to a number: they have been read."""
    tx.execute(delete(signals).where(signals.c.seq <= through))


def known(connection: Connection, key_ids: Iterable[str]) -> dict[str, dict[str, int]]:
    """The networks of keys, and since when each is known."""
    wanted = sorted(set(key_ids))
    found: dict[str, dict[str, int]] = {key_id: {} for key_id in wanted}
    for place in range(0, len(wanted), 500):
        rows = connection.execute(select(networks).where(networks.c.key_id.in_(wanted[place : place + 500])))
        for row in rows:
            found[row.key_id][row.network] = int(row.since)
    return found


def learn(tx: Connection, seen: Mapping[tuple[str, str], int]) -> None:
    """Note when keys were seen in networks."""
    rows = [
        {"key_id": key_id, "network": network, "at": at} for (key_id, network), at in sorted(seen.items())
    ]
    if rows:
        tx.execute(_SEEN_IN, rows)
        tx.execute(_LEFT_OUT, [{"key_id": key_id} for key_id in sorted({key_id for key_id, _ in seen})])


def forget(tx: Connection, before: int) -> None:
    """Forget networks that no key was seen in since an instant."""
    tx.execute(delete(networks).where(networks.c.at < before))


def read_through(connection: Connection) -> int | None:
    """The number of the newest refusal that the watch has read; ``None`` before the first time."""
    return connection.execute(select(watched.c.refusal)).scalar()


def set_read_through(tx: Connection, seq: int) -> None:
    """Note how far the watch has read."""
    if tx.execute(update(watched).values(refusal=seq)).rowcount == 0:
        tx.execute(insert(watched).values(id=1, refusal=seq))
