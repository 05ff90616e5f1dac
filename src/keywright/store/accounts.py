"""Accounts."""

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, insert, select, update

from keywright.model import MANAGEMENT, Account, Limit
from keywright.store.schema import accounts

_limits = msgspec.json.Decoder(tuple[Limit, ...]).decode


def add(tx: Connection, account: Account) -> None:
    """Write a new one. A username that is taken breaks a constraint."""
    values = msgspec.structs.asdict(account) | {"limits": msgspec.json.encode(account.limits).decode()}
    del values["propagation"]  # of an answer, not of the account
    tx.execute(insert(accounts).values(values))


def change(tx: Connection, account_id: str, **values: Any) -> None:
    """Change columns of one."""
    if "limits" in values:
        values["limits"] = msgspec.json.encode(values["limits"]).decode()
    tx.execute(update(accounts).where(accounts.c.id == account_id).values(**values))


def get(connection: Connection, username: str) -> Account | None:
    """Read one by its username."""
    row = connection.execute(select(accounts).where(accounts.c.username == username)).first()
    return None if row is None else _account(row)


def usernames(connection: Connection) -> dict[str, str]:
    """Every account's username by its id."""
    rows = connection.execute(select(accounts.c.id, accounts.c.username))
    return {row.id: row.username for row in rows}


def page(
    connection: Connection, *, state: str | None, q: str | None, after: str | None, limit: int
) -> list[Account]:
    """Read some, by username; our own is not among them."""
    query = select(accounts).where(accounts.c.username != MANAGEMENT)
    if state is not None:
        query = query.where(accounts.c.state == state)
    if q:
        query = query.where(
            func.lower(accounts.c.username + "\n" + accounts.c.name).contains(q.lower(), autoescape=True)
        )
    if after is not None:
        query = query.where(accounts.c.username > after)
    rows = connection.execute(query.order_by(accounts.c.username).limit(limit))
    return [_account(row) for row in rows]


def _account(row: Row[Any]) -> Account:
    return Account(
        row.id, row.username, row.name, row.state, _limits(row.limits), row.created_at, row.updated_at
    )
