"""Keys and their secrets, as management reads and writes them. A MAC is written here and never read."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from keywright.errors import Unavailable
from keywright.hygiene import EXPIRING, NOTICE, OLD, UNUSED
from keywright.model import Binding, Key, Limit, StoredSecret, is_back, key_state
from keywright.store.schema import accounts, imported, keys, secrets

_limits = msgspec.json.Decoder(tuple[Limit, ...]).decode
_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_binding = msgspec.json.Decoder(Binding).decode
_JSON: Final = ("scopes", "limits", "allowed_ips", "metadata", "binding")

#: How a list can be ordered: a column, and whether backwards.
SORTS: Final = {
    "created_at": (keys.c.created_at, False),
    "-created_at": (keys.c.created_at, True),
    "name": (keys.c.name, False),
    "-name": (keys.c.name, True),
}


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to. A cursor is only good for the filter that it came with."""

    keyspace: str | None = None
    not_keyspaces: tuple[str, ...] = ()
    account: str | None = None
    environment: str | None = None
    state: str | None = None
    team: str | None = None
    application: str | None = None
    q: str | None = None
    parent: str | None = None
    hygiene: str | None = None  # a finding: the keys of which it may hold, as far as this file knows
    bound: Binding | None = None  # of management keys: only those that are bound to this, or to less
    sort: str = "-created_at"


class Named(NamedTuple):
    """What a key is called and where it belongs; of a deleted one too, until it is purged."""

    id: str
    name: str
    state: str
    keyspace: str
    environment: str
    account: str
    team: str | None
    application: str | None
    binding: Binding | None


class Outline(NamedTuple):
    """As much of a key as it takes to look through many: where it stands in its list, and who made it.

    ``scopes`` are ``None`` where the row is damaged.
    """

    id: str
    place: tuple[Any, str]
    created_by: str
    account: str
    keyspace: str
    access: str
    scopes: tuple[str, ...] | None
    binding: Binding | None


def add(tx: Connection, values: dict[str, Any], mac: bytes, pepper: int, hint: dict[str, str]) -> None:
    """Write a new key with its first secret. An id that is taken breaks a constraint."""
    tx.execute(insert(keys).values(_columns(values)))
    add_secret(tx, values["id"], 1, mac, pepper, hint, values["created_at"])


def add_secret(
    tx: Connection,
    key_id: str,
    n: int,
    mac: bytes,
    pepper: int,
    hint: dict[str, str],
    now: int,
    *,
    grace: int | None = None,
) -> None:
    """Write a secret. With ``grace`` its first use starts the end of the secrets before it."""
    tx.execute(
        insert(secrets).values(
            key_id=key_id,
            n=n,
            mac=mac,
            pepper=pepper,
            hint=msgspec.json.encode(hint).decode(),
            created_at=now,
            ends_at=None,
            starts_rotation=0 if grace is None else 1,
            grace=grace,
        )
    )


def add_tag(tx: Connection, tag: bytes, key_id: str) -> None:
    """Let the tag of an imported credential lead to a key. One that leads to another breaks a constraint."""
    if led_to(tx, tag) != key_id:
        tx.execute(insert(imported).values(tag=tag, key_id=key_id))


def led_to(connection: Connection, tag: bytes) -> str | None:
    """The id of the key that the tag of an imported credential leads to, of a deleted one too until it is purged."""
    return connection.execute(select(imported.c.key_id).where(imported.c.tag == tag)).scalar_one_or_none()


def tags(connection: Connection) -> Iterator[list[bytes]]:
    """The tag of every imported credential, some at a time."""
    for some in connection.execute(select(imported.c.tag)).yield_per(1_000).scalars().partitions():
        yield [bytes(tag) for tag in some]


def change(tx: Connection, key_id: str, **values: Any) -> None:
    """Change columns of a key."""
    tx.execute(update(keys).where(keys.c.id == key_id).values(_columns(values)))


def end_secrets(tx: Connection, key_id: str, before: int, at: int) -> None:
    """Let every secret numbered below ``before`` end at ``at``, or where it ends sooner, then."""
    sooner = or_(secrets.c.ends_at.is_(None), secrets.c.ends_at > at)
    tx.execute(
        update(secrets).where(secrets.c.key_id == key_id, secrets.c.n < before, sooner).values(ends_at=at)
    )


def set_secret(tx: Connection, key_id: str, n: int, **values: Any) -> None:
    """Change columns of one secret."""
    tx.execute(update(secrets).where(secrets.c.key_id == key_id, secrets.c.n == n).values(**values))


def rewrap(tx: Connection, key_id: str, n: int, old: bytes, new: bytes, pepper: int) -> bool:
    """Replace a MAC by the same secret's under another pepper, if it is still the one that was proven."""
    same = and_(secrets.c.key_id == key_id, secrets.c.n == n, secrets.c.mac == old)
    return tx.execute(update(secrets).where(same).values(mac=new, pepper=pepper)).rowcount == 1


def get(connection: Connection, key_id: str, now: int) -> Key | None:
    """Read one that is not purged; a deleted one has the state ``deleted``."""
    row = connection.execute(_select().where(keys.c.id == key_id)).first()
    return None if row is None else _keys(connection, [row], now)[0]


def several(connection: Connection, key_ids: Sequence[str], now: int) -> list[Key]:
    """Read those of some keys that are not purged, at most as many as a list shows, in the order of their ids."""
    rows = connection.execute(_select().where(keys.c.id.in_(key_ids)).order_by(keys.c.id)).all()
    return _keys(connection, rows, now)


def children(connection: Connection, key_id: str, now: int) -> tuple[str, ...]:
    """The ids of the keys that a key made and that have not ended, oldest first."""
    lives = or_(keys.c.expires_at.is_(None), keys.c.expires_at > now)
    query = select(keys.c.id).where(keys.c.parent == key_id, keys.c.state.in_(("active", "disabled")), lives)
    return tuple(row.id for row in connection.execute(query.order_by(keys.c.created_at, keys.c.id)))


def page(
    connection: Connection,
    narrow: Filter,
    now: int,
    *,
    after: Sequence[Any] | None,
    limit: int,
    keyspaces: Sequence[str] | None = None,
) -> list[Key]:
    """Read some keys that are not deleted, in the filter's order, from behind ``after`` (the last one's place).

    ``keyspaces`` are those that any may be of, where not every one will do.
    """
    query = _ordered(_select(), narrow, now, after)
    if keyspaces is not None:
        query = query.where(keys.c.keyspace.in_(keyspaces))
    return _keys(connection, connection.execute(query.limit(limit)).all(), now)


def outlines(
    connection: Connection, narrow: Filter, now: int, *, after: Sequence[Any] | None, limit: int
) -> list[Outline]:
    """As ``page``, of each key what it takes to look through many."""
    own = keys.c
    columns = own.id, SORTS[narrow.sort][0], own.created_by, accounts.c.username, own.keyspace, own.access
    query = select(*columns, own.scopes, own.binding).join(accounts, accounts.c.id == own.account_id)
    return [
        Outline(key_id, (place, key_id), maker, account, keyspace, access, *_held(key_id, scopes, binding))
        for key_id, place, maker, account, keyspace, access, scopes, binding in connection.execute(
            _ordered(query, narrow, now, after).limit(limit)
        )
    ]


def _held(key_id: str, scopes: str, binding: str | None) -> tuple[tuple[str, ...] | None, Binding | None]:
    """What a key was given. Of a damaged row nothing is known: it is no reason not to look through the others."""
    try:
        with _readable(key_id):
            return _texts(scopes), None if binding is None else _binding(binding)
    except Unavailable:
        return None, None


def _ordered(query: Select[Any], narrow: Filter, now: int, after: Sequence[Any] | None) -> Select[Any]:
    column, backwards = SORTS[narrow.sort]
    query = query.where(*_conditions(narrow, now))
    if after is not None:
        place = tuple_(column, keys.c.id)
        query = query.where(place < tuple_(*after) if backwards else place > tuple_(*after))
    return query.order_by(*((column.desc(), keys.c.id.desc()) if backwards else (column, keys.c.id)))


def place_of(key: Key, sort: str) -> list[Any]:
    """Where a key stands in an order: what a cursor remembers."""
    return [key.name if sort.endswith("name") else key.created_at, key.id]


def management_keys_of(connection: Connection, maker: str, state: str, reason: str | None) -> list[str]:
    """The ids of the management keys that somebody made, in a state; with a reason, those that are so for it."""
    found = [keys.c.type == "m", keys.c.created_by == maker, keys.c.state == state]
    if reason is not None:
        found.append(keys.c.state_reason == reason)
    return list(connection.execute(select(keys.c.id).where(*found).order_by(keys.c.id)).scalars())


def left_alone(
    connection: Connection, spaces: Sequence[str], since: int, now: int, *, after: tuple[int, str], limit: int
) -> list[tuple[int, str]]:
    """The next keys of some keyspaces that work and were made, and changed last, no later than ``since``, oldest first.

    When each was made, and its id. Nothing is read of them that could be damaged.
    """
    place = tuple_(keys.c.created_at, keys.c.id)
    query = select(keys.c.created_at, keys.c.id).where(
        keys.c.keyspace.in_(spaces), *_active(now), _left_alone(since), place > tuple_(*after)
    )
    found = connection.execute(query.order_by(keys.c.created_at, keys.c.id).limit(limit))
    return [(row.created_at, row.id) for row in found]


def names(connection: Connection, key_ids: Iterable[str], now: int) -> dict[str, Named]:
    """What these keys are called, as far as they are not purged."""
    wanted, found = sorted(set(key_ids)), {}
    columns = (
        keys.c.id, keys.c.name, keys.c.state, keys.c.expires_at, keys.c.disabled_until, keys.c.keyspace, keys.c.environment,
        keys.c.team, keys.c.application, keys.c.binding, accounts.c.username,
    )  # fmt: skip
    query = select(*columns).join(accounts, accounts.c.id == keys.c.account_id)
    for place in range(0, len(wanted), 500):
        for row in connection.execute(query.where(keys.c.id.in_(wanted[place : place + 500]))):
            found[row.id] = Named(
                row.id,
                row.name,
                key_state(row.state, row.expires_at, now, row.disabled_until),
                row.keyspace,
                row.environment,
                row.username,
                row.team,
                row.application,
                None if row.binding is None else _binding(row.binding),
            )
    return found


def count(connection: Connection, narrow: Filter, now: int) -> int:
    """How many keys a filter leaves."""
    query = select(func.count()).select_from(keys.join(accounts, accounts.c.id == keys.c.account_id))
    return int(connection.execute(query.where(*_conditions(narrow, now))).scalar_one())


def how_many(connection: Connection) -> int:
    """How many there are, deleted ones among them."""
    return int(connection.execute(select(func.count()).select_from(keys)).scalar_one())


def ids(connection: Connection) -> Iterator[list[bytes]]:
    """The id of every key, of a deleted one too until it is purged, some at a time."""
    for some in connection.execute(select(keys.c.id)).yield_per(1_000).scalars().partitions():
        yield [key_id.encode() for key_id in some]


def expiring(connection: Connection, now: int, until: int) -> int:
    """How many active keys expire between now and then."""
    soon = and_(works(now), keys.c.expires_at > now, keys.c.expires_at <= until)
    return int(connection.execute(select(func.count()).select_from(keys).where(soon)).scalar_one())


def tombstones(connection: Connection, before: int) -> list[str]:
    """The ids of keys that were deleted before an instant."""
    query = select(keys.c.id).where(keys.c.state == "deleted", keys.c.deleted_at < before).order_by(keys.c.id)
    return [row.id for row in connection.execute(query)]


def purge(tx: Connection, key_ids: Iterable[str]) -> None:
    """Remove tombstones for good."""
    for key_id in key_ids:
        tx.execute(delete(imported).where(imported.c.key_id == key_id))
        tx.execute(delete(secrets).where(secrets.c.key_id == key_id))
        tx.execute(delete(keys).where(keys.c.id == key_id, keys.c.state == "deleted"))


def peppers(connection: Connection) -> dict[int, int]:
    """How many secrets hang on each version of the installation's secret."""
    rows = connection.execute(select(secrets.c.pepper, func.count()).group_by(secrets.c.pepper))
    return {int(n): int(many) for n, many in rows.all()}


def _select() -> Select[Any]:
    return select(keys, accounts.c.username).join(accounts, accounts.c.id == keys.c.account_id)


def _conditions(narrow: Filter, now: int) -> list[ColumnElement[bool]]:
    found = [keys.c.state != "deleted"]
    for column, value in (
        (keys.c.keyspace, narrow.keyspace),
        (accounts.c.username, narrow.account),
        (keys.c.environment, narrow.environment),
        (keys.c.team, narrow.team),
        (keys.c.application, narrow.application),
        (keys.c.parent, narrow.parent),
    ):
        if value is not None:
            found.append(column == value)
    for what, value in msgspec.structs.asdict(narrow.bound or Binding()).items():
        if value is not None:  # as canonical JSON has it; no name that a key can be bound to needs escaping
            found.append(keys.c.binding.contains(f'"{what}":"{value}"', autoescape=True))
    if narrow.not_keyspaces:
        found.append(keys.c.keyspace.not_in(narrow.not_keyspaces))
    if narrow.q:
        found.append(keys.c.search.contains(narrow.q.lower(), autoescape=True))
    if narrow.hygiene is not None:
        found += [*_active(now), _suspects(narrow.hygiene, now)]
    if narrow.state == "expired":
        found += [works(now), keys.c.expires_at <= now]
    elif narrow.state == "active":
        found += _active(now)
    elif narrow.state == "disabled":
        found += [keys.c.state == "disabled", ~works(now)]
    elif narrow.state is not None:
        found.append(keys.c.state == narrow.state)
    return found


def works(now: int) -> ColumnElement[bool]:
    """The keys that are active, or disabled for a time that is over; of which some may have expired."""
    until = keys.c.disabled_until
    back = and_(keys.c.state == "disabled", until.is_not(None), until <= now)
    return or_(keys.c.state == "active", back)


def _active(now: int) -> list[ColumnElement[bool]]:
    return [works(now), or_(keys.c.expires_at.is_(None), keys.c.expires_at > now)]


def _suspects(finding: str, now: int) -> ColumnElement[bool]:
    """The keys of which a finding can hold: never too few, and those alone where the keys file can say."""
    newer = select(secrets.c.n).where(secrets.c.key_id == keys.c.id, secrets.c.created_at > now - OLD)
    found: dict[str, ColumnElement[bool]] = {
        "ending_unused": _left_alone(now - UNUSED + NOTICE),
        "unused": keys.c.created_at <= now - UNUSED,
        "maker_lost_rights": keys.c.created_by.startswith("person:", autoescape=True),
        "no_limit": and_(keys.c.limits == "[]", keys.c.plan.is_(None)),
        "expiring": keys.c.expires_at <= now + EXPIRING,
        "all_access": keys.c.access == "all",
        "no_expiry": keys.c.expires_at.is_(None),
        "old": and_(keys.c.created_at <= now - OLD, ~newer.exists()),
    }
    return found[finding]


def _left_alone(since: int) -> ColumnElement[bool]:
    """The keys that were made, and changed last, no later than an instant."""
    return and_(keys.c.created_at <= since, keys.c.updated_at <= since)


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    written = dict(values)
    for name in _JSON:
        if written.get(name) is not None:
            written[name] = msgspec.json.encode(written[name], order="sorted").decode()
    return written


def _keys(connection: Connection, rows: Sequence[Row[Any]], now: int) -> list[Key]:
    found: dict[str, list[StoredSecret]] = {row.id: [] for row in rows}
    query = select(secrets).where(secrets.c.key_id.in_(list(found))).order_by(secrets.c.n.desc())
    for secret in connection.execute(query):
        with _readable(secret.key_id):
            found[secret.key_id].append(_secret(secret))
    return [_key(row, tuple(found[row.id]), now) for row in rows]


@contextmanager
def _readable(key_id: str) -> Iterator[None]:
    try:
        yield
    except (msgspec.DecodeError, TypeError) as damaged:
        raise Unavailable(f"the row of key {key_id} cannot be read: {damaged}") from damaged


def _secret(row: Row[Any]) -> StoredSecret:
    hint = msgspec.json.decode(row.hint, type=dict[str, str])
    return StoredSecret(row.n, hint, row.created_at, row.ends_at, bool(row.starts_rotation), row.grace)


def _key(row: Row[Any], its_secrets: tuple[StoredSecret, ...], now: int) -> Key:
    with _readable(row.id):
        return _read(row, its_secrets, now)


def _read(row: Row[Any], its_secrets: tuple[StoredSecret, ...], now: int) -> Key:
    return Key(
        id=row.id,
        keyspace=row.keyspace,
        account=row.username,
        environment=row.environment,
        type=row.type,
        name=row.name,
        description=row.description,
        team=row.team,
        application=row.application,
        access=row.access,
        scopes=_texts(row.scopes),
        limits=_limits(row.limits),
        plan=row.plan,
        expires_at=row.expires_at,
        allowed_ips=_texts(row.allowed_ips),
        metadata=msgspec.json.decode(row.metadata),
        state=(state := key_state(row.state, row.expires_at, now, row.disabled_until)),
        state_reason=row.state_reason,
        disabled_until=row.disabled_until if state == "disabled" else None,
        parent=row.parent,
        binding=None if row.binding is None else _binding(row.binding),
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        ended_at=row.ended_at,
        secrets=its_secrets,
        touched_at=max(
            row.updated_at,
            *(secret.created_at for secret in its_secrets[:1]),
            row.disabled_until if is_back(row.state, row.disabled_until, now) else row.created_at,
        ),
    )
