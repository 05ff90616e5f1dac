"""Sessions and one-time links. Of what opens them only the SHA-256 is kept."""

from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, case, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from keywright.store.schema import failed_sign_ins, links, seen, sessions

LinkKind = Literal["setup", "invitation", "reset"]


class StoredSession(NamedTuple):
    """A session as it is stored."""

    id: str
    person_id: str
    began_at: int
    proven_at: int
    ends_at: int
    source: str
    issuer: str | None = None
    factor_at: int | None = None


class Link(NamedTuple):
    """What a one-time link is for."""

    kind: LinkKind
    person_id: str | None
    account_id: str | None
    ends_at: int


class Failures(NamedTuple):
    """Failed sign-ins since the last good one: how many, since when, and the last."""

    failed: int
    since: int
    at: int


def begin(tx: Connection, digest: bytes, session: StoredSession) -> None:
    """Write a new session."""
    tx.execute(insert(sessions).values(digest=digest, **session._asdict()))


def find(connection: Connection, digest: bytes) -> StoredSession | None:
    """Read one by the digest of what opens it."""
    row = connection.execute(select(sessions).where(sessions.c.digest == digest)).first()
    return None if row is None else _session(row)


def of(connection: Connection, person_id: str) -> list[StoredSession]:
    """A person's, oldest first."""
    query = select(sessions).where(sessions.c.person_id == person_id)
    return [_session(row) for row in connection.execute(query.order_by(sessions.c.began_at, sessions.c.id))]


def end(
    tx: Connection, *, session: str | None = None, person: str | None = None, but: str | None = None
) -> int:
    """Remove one, or all of a person but one; how many that were."""
    query = delete(sessions).where(
        sessions.c.id == session if person is None else sessions.c.person_id == person
    )
    return tx.execute(query if but is None else query.where(sessions.c.id != but)).rowcount


def purge(tx: Connection, now: int) -> None:
    """Remove what has ended: sessions, and links that nobody followed."""
    tx.execute(delete(sessions).where(sessions.c.ends_at <= now))
    tx.execute(delete(links).where(links.c.ends_at <= now))


def renew(tx: Connection, session: str, digest: bytes, proven_at: int) -> None:
    """Give a session another key, when the password was given again."""
    tx.execute(update(sessions).where(sessions.c.id == session).values(digest=digest, proven_at=proven_at))


def _session(row: Row[Any]) -> StoredSession:
    return StoredSession(
        *(row.id, row.person_id, row.began_at, row.proven_at, row.ends_at),
        *(row.source, row.issuer, row.factor_at),
    )


# ------------------------------------------------------------------------------------------------------- one-time links


def add_link(tx: Connection, digest: bytes, link: Link, now: int) -> None:
    """Write a link; earlier ones of the kind for the same person and account end."""
    same = (links.c.kind == link.kind, _is(links.c.person_id, link.person_id))
    tx.execute(delete(links).where(*same, _is(links.c.account_id, link.account_id)))
    tx.execute(insert(links).values(digest=digest, created_at=now, **link._asdict()))


def find_link(connection: Connection, digest: bytes) -> Link | None:
    """Read one by the digest of what it holds."""
    row = connection.execute(select(links).where(links.c.digest == digest)).first()
    return None if row is None else Link(row.kind, row.person_id, row.account_id, row.ends_at)


def use_link(tx: Connection, digest: bytes) -> bool:
    """Remove a link; whether it was there."""
    return tx.execute(delete(links).where(links.c.digest == digest)).rowcount == 1


def end_links(tx: Connection, person_id: str) -> None:
    """Remove a person's links."""
    tx.execute(delete(links).where(links.c.person_id == person_id))


def _is(column: Any, value: str | None) -> Any:
    return column.is_(None) if value is None else column == value


# ------------------------------------------------------------------------------------------------- in the usage file


def last_seen(connection: Connection, session_ids: list[str]) -> dict[str, int]:
    """When some sessions were seen last."""
    rows = connection.execute(select(seen).where(seen.c.session.in_(session_ids)))
    return {row.session: row.at for row in rows}


def see(tx: Connection, session: str, at: int) -> None:
    """Note that a session was seen."""
    _put(tx, seen, {"session": session}, {"at": at})


def forget(tx: Connection, before: int) -> None:
    """Remove what tells of sessions and failures long over."""
    tx.execute(delete(seen).where(seen.c.at < before))
    tx.execute(delete(failed_sign_ins).where(failed_sign_ins.c.at < before))


def failures(connection: Connection, subject: str) -> Failures:
    """How often signing in has failed of late."""
    row = connection.execute(select(failed_sign_ins).where(failed_sign_ins.c.subject == subject)).first()
    return Failures(0, 0, 0) if row is None else Failures(row.failed, row.since, row.at)


def fail(tx: Connection, subject: str, failed: Failures) -> None:
    """Write how often."""
    _put(tx, failed_sign_ins, {"subject": subject}, failed._asdict())


def attempt(tx: Connection, subject: str, now: int, window: int) -> Failures:
    """Count a try of a subject in one statement, from one again where the first lies a window back; what that makes."""
    dialect = sqlite if tx.dialect.name == "sqlite" else postgresql
    table = failed_sign_ins.c
    over = table.since <= now - window
    counted = {
        "failed": case((over, 1), else_=table.failed + 1),
        "since": case((over, now), else_=table.since),
        "at": now,
    }
    statement = dialect.insert(failed_sign_ins).values(subject=subject, failed=1, since=now, at=now)
    statement = statement.on_conflict_do_update(index_elements=["subject"], set_=counted)
    return Failures(*tx.execute(statement.returning(table.failed, table.since, table.at)).one())


def pardon(tx: Connection, subject: str) -> None:
    """Forget the failures of a subject."""
    tx.execute(delete(failed_sign_ins).where(failed_sign_ins.c.subject == subject))


def _put(tx: Connection, table: Any, key: dict[str, Any], values: dict[str, Any]) -> None:
    dialect = sqlite if tx.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).values(**key, **values)
    tx.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))
