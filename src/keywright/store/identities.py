"""Whom identity providers mean: a person by issuer and subject, never by an address of mail."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from keywright.model import Identity
from keywright.store.schema import identities


def find(connection: Connection, issuer: str, subject: str) -> str | None:
    """The id of the person whom a provider means by a subject."""
    query = select(identities.c.person_id).where(*_of(issuer, subject))
    return connection.execute(query).scalar_one_or_none()


def of(connection: Connection, person_ids: Sequence[str]) -> dict[str, tuple[Identity, ...]]:
    """By which providers some people come, oldest first."""
    if not person_ids:
        return {}
    query = select(identities).where(identities.c.person_id.in_(person_ids))
    found: dict[str, tuple[Identity, ...]] = {}
    for row in connection.execute(query.order_by(identities.c.since, identities.c.issuer)):
        found[row.person_id] = (
            *found.get(row.person_id, ()),
            Identity(row.issuer, row.since, row.seen_at),
        )
    return found


def add(tx: Connection, issuer: str, subject: str, person_id: str, now: int) -> None:
    """Write that a provider means somebody. One that is known, or a second one of the provider, breaks a constraint."""
    values = {"issuer": issuer, "subject": subject, "person_id": person_id}
    tx.execute(insert(identities).values(**values, since=now, seen_at=now))


def see(tx: Connection, issuer: str, subject: str, now: int) -> None:
    """Note that somebody came by it."""
    tx.execute(update(identities).where(*_of(issuer, subject)).values(seen_at=now))


def remove(tx: Connection, person_id: str) -> int:
    """Remove all of a person's; how many that were."""
    return tx.execute(delete(identities).where(identities.c.person_id == person_id)).rowcount


def _of(issuer: str, subject: str) -> tuple[Any, Any]:
    return identities.c.issuer == issuer, identities.c.subject == subject
