"""Second factors and recovery codes of people. A factor's secret arrives here sealed; of a code only the SHA-256 is kept."""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from keywright.store.schema import factors, recovery_codes


class Factor(NamedTuple):
    """A person's second factor: the sealed secret in use since when, its newest accepted step, and one on offer."""

    sealed: bytes | None
    since: int | None
    step: int
    offered: bytes | None
    offered_at: int | None


def get(connection: Connection, person_id: str) -> Factor | None:
    """Read a person's."""
    row = connection.execute(select(factors).where(factors.c.person_id == person_id)).first()
    return None if row is None else Factor(row.sealed, row.since, row.step, row.offered, row.offered_at)


def offer(tx: Connection, person_id: str, sealed: bytes, now: int) -> None:
    """Write a secret that is to be confirmed; one in use stays so until then."""
    offered = {"offered": sealed, "offered_at": now}
    if tx.execute(update(factors).where(factors.c.person_id == person_id).values(**offered)).rowcount == 0:
        tx.execute(insert(factors).values(person_id=person_id, step=0, **offered))


def begin(tx: Connection, person_id: str, offered: bytes, step: int, now: int) -> bool:
    """Put the secret on offer to use; whether it still was on offer."""
    here = (factors.c.person_id == person_id) & (factors.c.offered == offered)
    values = {"sealed": offered, "since": now, "step": step, "offered": None, "offered_at": None}
    return tx.execute(update(factors).where(here).values(**values)).rowcount == 1


def accept(tx: Connection, person_id: str, sealed: bytes, step: int) -> bool:
    """Note a step as accepted: once, whichever process is fastest. Whether it had not been."""
    unused = (factors.c.person_id == person_id) & (factors.c.sealed == sealed) & (factors.c.step < step)
    return tx.execute(update(factors).where(unused).values(step=step)).rowcount == 1


def seal_again(tx: Connection, person_id: str, was: bytes, sealed: bytes) -> None:
    """Keep the same secret under another seal."""
    here = (factors.c.person_id == person_id) & (factors.c.sealed == was)
    tx.execute(update(factors).where(here).values(sealed=sealed))


def remove(tx: Connection, person_id: str) -> bool:
    """Remove a person's factor with its codes; whether one was in use."""
    tx.execute(delete(recovery_codes).where(recovery_codes.c.person_id == person_id))
    used = tx.execute(
        select(factors.c.since).where(factors.c.person_id == person_id, factors.c.since.is_not(None))
    ).first()
    tx.execute(delete(factors).where(factors.c.person_id == person_id))
    return used is not None


def set_codes(tx: Connection, person_id: str, digests: Iterable[bytes]) -> None:
    """Write recovery codes in place of all that were."""
    tx.execute(delete(recovery_codes).where(recovery_codes.c.person_id == person_id))
    rows = [{"person_id": person_id, "digest": one} for one in digests]
    tx.execute(insert(recovery_codes), rows)


def use_code(tx: Connection, person_id: str, digest: bytes) -> bool:
    """Remove a recovery code; whether it was there."""
    here = (recovery_codes.c.person_id == person_id) & (recovery_codes.c.digest == digest)
    return tx.execute(delete(recovery_codes).where(here)).rowcount == 1


def codes_left(connection: Connection, person_id: str) -> int:
    """How many recovery codes a person has not used."""
    query = select(func.count()).select_from(recovery_codes).where(recovery_codes.c.person_id == person_id)
    return int(connection.execute(query).scalar_one())
