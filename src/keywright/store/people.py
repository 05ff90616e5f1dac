"""People and their memberships in accounts."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from keywright.model import Identity, Membership, Person, PersonState
from keywright.store import identities
from keywright.store.schema import accounts, factors, memberships, people

_every = select(people, factors.c.since.label("factor_since")).outerjoin(
    factors, factors.c.person_id == people.c.id
)

_texts = msgspec.json.Decoder(tuple[str, ...]).decode


def add(tx: Connection, person_id: str, email: str, name: str, now: int, operator_since: int | None) -> None:
    """Write a new one. An address that is taken breaks a constraint."""
    values = {"id": person_id, "email": email, "name": name, "operator_since": operator_since}
    tx.execute(insert(people).values(**values, created_at=now, updated_at=now))


def change(tx: Connection, person_id: str, **values: Any) -> None:
    """Change columns of one."""
    tx.execute(update(people).where(people.c.id == person_id).values(**values))


def get(connection: Connection, *, person_id: str | None = None, email: str | None = None) -> Person | None:
    """Read one by id or by address, with every membership."""
    query = _every.where(people.c.id == person_id if email is None else people.c.email == email)
    row = connection.execute(query).first()
    return None if row is None else _people(connection, [row])[0]


def password(connection: Connection, email: str) -> tuple[str, str | None, int | None] | None:
    """The id of whoever has an address, their password as argon2 wrote it, and since when they are disabled."""
    columns = (people.c.id, people.c.password, people.c.disabled_at)
    row = connection.execute(select(*columns).where(people.c.email == email)).first()
    return None if row is None else (row.id, row.password, row.disabled_at)


def has_short_password(connection: Connection, person_id: str) -> bool:
    """Whether somebody's password is too short to stand without a second factor."""
    row = connection.execute(select(people.c.short_since).where(people.c.id == person_id)).first()
    return row is not None and row.short_since is not None


def has_factor(connection: Connection, person_id: str) -> bool:
    """Whether signing in takes a second factor of somebody."""
    found = get(connection, person_id=person_id)
    return found is not None and found.factor_since is not None


def page(
    connection: Connection,
    *,
    account: str | None,
    q: str | None,
    after: str | None,
    limit: int,
    operators: bool = False,
) -> list[Person]:
    """Read some, by address: of an account, of any, or the operators."""
    query = _every
    if account is not None:
        query = query.where(people.c.id.in_(_members_of(account)))
    if operators:
        query = query.where(people.c.operator_since.is_not(None))
    if q:
        query = query.where(
            func.lower(people.c.email + "\n" + people.c.name).contains(q.lower(), autoescape=True)
        )
    if after is not None:
        query = query.where(people.c.email > after)
    return _people(connection, connection.execute(query.order_by(people.c.email).limit(limit)).all())


def password_operators(connection: Connection) -> int:
    """How many operators can act and have a password: who comes in when no provider answers."""
    acting = people.c.operator_since.is_not(None) & people.c.disabled_at.is_(None)
    query = select(func.count()).select_from(people).where(acting, people.c.password.is_not(None))
    return int(connection.execute(query).scalar_one())


def several(connection: Connection, person_ids: Iterable[str]) -> dict[str, Person]:
    """Those of some ids that exist, by id."""
    rows = connection.execute(_every.where(people.c.id.in_(sorted(set(person_ids))))).all()
    return {person.id: person for person in _people(connection, rows)}


def operators(connection: Connection) -> int:
    """How many there are that can act."""
    acting = people.c.operator_since.is_not(None) & people.c.disabled_at.is_(None)
    return int(connection.execute(select(func.count()).select_from(people).where(acting)).scalar_one())


def concerned(connection: Connection, usernames: Iterable[str], roles: Sequence[str]) -> dict[str, list[str]]:
    """The addresses of those who have one of some roles in accounts, and can act, by the account's username."""
    wanted = sorted(set(usernames))
    if not wanted:
        return {}
    joined = memberships.join(people, people.c.id == memberships.c.person_id)
    joined = joined.join(accounts, accounts.c.id == memberships.c.account_id)
    acting = select(accounts.c.username, people.c.email).select_from(joined)
    acting = acting.where(
        accounts.c.username.in_(wanted),
        memberships.c.role.in_(list(roles)),
        memberships.c.accepted_at.is_not(None),
        people.c.disabled_at.is_(None),
    )
    found: dict[str, list[str]] = {}
    for username, email in connection.execute(acting.order_by(people.c.email)):
        found.setdefault(username, []).append(email)
    return found


def owners(connection: Connection, account_id: str) -> int:
    """How many of an account's owners can act."""
    acting = select(func.count()).select_from(
        memberships.join(people, people.c.id == memberships.c.person_id)
    )
    acting = acting.where(
        memberships.c.account_id == account_id,
        memberships.c.role == "owner",
        memberships.c.accepted_at.is_not(None),
        people.c.disabled_at.is_(None),
    )
    return int(connection.execute(acting).scalar_one())


def join(
    tx: Connection, person_id: str, account_id: str, role: str, access: str, scopes: Sequence[str], now: int
) -> None:
    """Write a membership that is still to be accepted. One that exists breaks a constraint."""
    tx.execute(
        insert(memberships).values(
            person_id=person_id,
            account_id=account_id,
            role=role,
            access=access,
            scopes=msgspec.json.encode(tuple(scopes)).decode(),
            since=now,
            accepted_at=None,
        )
    )


def change_membership(tx: Connection, person_id: str, account_id: str, **values: Any) -> None:
    """Change columns of one."""
    if "scopes" in values:
        values["scopes"] = msgspec.json.encode(tuple(values["scopes"])).decode()
    tx.execute(update(memberships).where(*_of(person_id, account_id)).values(**values))


def leave(tx: Connection, person_id: str, account_id: str) -> None:
    """Remove a membership."""
    tx.execute(delete(memberships).where(*_of(person_id, account_id)))


def _of(person_id: str, account_id: str) -> tuple[Any, Any]:
    return memberships.c.person_id == person_id, memberships.c.account_id == account_id


def _members_of(username: str) -> Any:
    joined = memberships.join(accounts, accounts.c.id == memberships.c.account_id)
    return select(memberships.c.person_id).select_from(joined).where(accounts.c.username == username)


def _people(connection: Connection, rows: Sequence[Row[Any]]) -> list[Person]:
    wanted = [row.id for row in rows]
    joined = memberships.join(accounts, accounts.c.id == memberships.c.account_id)
    query = select(memberships, accounts.c.username).select_from(joined)
    found: dict[str, list[Membership]] = {}
    query = query.where(memberships.c.person_id.in_(wanted)).order_by(accounts.c.username)
    for row in connection.execute(query) if wanted else ():
        found.setdefault(row.person_id, []).append(_membership(row))
    known = identities.of(connection, wanted)
    return [_person(row, tuple(found.get(row.id, ())), known.get(row.id, ())) for row in rows]


def _membership(row: Row[Any]) -> Membership:
    return Membership(
        row.account_id,
        row.username,
        row.role,
        row.access,
        _texts(row.scopes),
        row.since,
        row.accepted_at,
        row.grouped_at is not None,
    )


def _person(row: Row[Any], joined: tuple[Membership, ...], known: tuple[Identity, ...]) -> Person:
    state: PersonState = "active" if row.password is not None or known else "invited"
    return Person(
        id=row.id,
        email=row.email,
        name=row.name,
        state="disabled" if row.disabled_at is not None else state,
        operator=row.operator_since is not None,
        created_at=row.created_at,
        updated_at=row.updated_at,
        memberships=joined,
        factor_since=row.factor_since,
        has_password=row.password is not None,
        identities=known,
        operator_by_groups=row.operator_grouped_at is not None,
    )
