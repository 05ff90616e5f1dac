"""Creations that were asked under an ``Idempotency-Key``: what each made, for a day."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from keywright.store.schema import creations


class Creation(NamedTuple):
    """What was asked, as digests, and the id of what it made."""

    fingerprint: bytes
    made: str


def claim(
    tx: Connection, caller: str, route: str, digest: bytes, fingerprint: bytes, now: int
) -> Creation | None:
    """Note a creation that is about to happen in this transaction, or read the one that happened before."""
    new = insert(creations).values(
        caller=caller, route=route, idempotency_key=digest, fingerprint=fingerprint, made="", at=now
    )
    same = _same(caller, route, digest)
    query = select(creations.c.fingerprint, creations.c.made).where(same)
    try:
        with tx.begin_nested():
            tx.execute(new)
    except IntegrityError:
        row = tx.execute(query).one()
        return Creation(row.fingerprint, row.made)
    return None


def complete(tx: Connection, caller: str, route: str, digest: bytes, made: str) -> None:
    """Note what a claimed creation made."""
    tx.execute(update(creations).where(_same(caller, route, digest)).values(made=made))


def purge(tx: Connection, until: int) -> None:
    """Forget every creation up to an instant."""
    tx.execute(delete(creations).where(creations.c.at <= until))


def _same(caller: str, route: str, digest: bytes) -> ColumnElement[bool]:
    return and_(
        creations.c.caller == caller, creations.c.route == route, creations.c.idempotency_key == digest
    )
