"""Visits of the portal. Of what opens one, the link's code and the cookie, only the SHA-256 is kept."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, delete, insert, or_, select, tuple_, update

from keywright.model import PortalSession
from keywright.store.schema import accounts, portal_sessions

_every = select(portal_sessions, accounts.c.username).join(
    accounts, accounts.c.id == portal_sessions.c.account_id
)
_COMPUTED = ("account", "seen_at", "state")

_texts = msgspec.json.Decoder(tuple[str, ...]).decode


class Narrow(msgspec.Struct, frozen=True, kw_only=True):
    """Which visits are meant; ``None`` is any."""

    account: str | None = None
    subject: str | None = None
    keyspace: str | None = None
    environment: str | None = None


def add(tx: Connection, visit: PortalSession, code: bytes) -> None:
    """Write one, with the digest of what its link holds."""
    kept = {name: value for name, value in msgspec.structs.asdict(visit).items() if name not in _COMPUTED}
    kept |= {"scopes": msgspec.json.encode(visit.scopes).decode(), "preview": int(visit.preview)}
    tx.execute(insert(portal_sessions).values(code=code, source="", **kept))


def waiting(connection: Connection, code: bytes) -> PortalSession | None:
    """Read one by the digest of what its link holds, while nobody has followed it."""
    return _first(connection, portal_sessions.c.code == code)


def find(connection: Connection, digest: bytes) -> tuple[PortalSession, str] | None:
    """Read one by the digest of what its cookie holds, and where its link was followed."""
    row = connection.execute(_every.where(portal_sessions.c.digest == digest)).first()
    return None if row is None else (_visit(row), row.source)


def get(connection: Connection, visit_id: str) -> PortalSession | None:
    """Read one."""
    return _first(connection, portal_sessions.c.id == visit_id)


def begin(tx: Connection, code: bytes, digest: bytes, now: int, source: str) -> bool:
    """Take the link's code for a cookie's; whether it was still there."""
    there = portal_sessions.c.code == code
    begun = {"code": None, "digest": digest, "began_at": now, "source": source}
    return tx.execute(update(portal_sessions).where(there).values(begun)).rowcount == 1


def end(tx: Connection, visit_ids: list[str], now: int) -> None:
    """End some: the link works no more, nor does the cookie."""
    some = portal_sessions.c.id.in_(visit_ids)
    tx.execute(update(portal_sessions).where(some).values(code=None, ended_at=now))


def purge(tx: Connection, before: int) -> None:
    """Remove those that were over by then."""
    tx.execute(delete(portal_sessions).where(portal_sessions.c.ends_at < before))


def page(
    connection: Connection, narrow: Narrow, *, after: tuple[int, str] | None, limit: int
) -> list[PortalSession]:
    """Read some, newest first."""
    query = _every.where(*_conditions(narrow))
    place = portal_sessions.c.created_at, portal_sessions.c.id
    if after is not None:
        query = query.where(tuple_(*place) < after)
    query = query.order_by(place[0].desc(), place[1].desc()).limit(limit)
    return [_visit(row) for row in connection.execute(query)]


def going_on(connection: Connection, narrow: Narrow, now: int) -> list[str]:
    """The ids of those that are not over."""
    lives = portal_sessions.c.ended_at.is_(None), portal_sessions.c.ends_at > now
    begun = or_(portal_sessions.c.began_at.is_not(None), portal_sessions.c.link_ends_at > now)
    rows = connection.execute(_every.where(*_conditions(narrow), *lives, begun))
    return [row.id for row in rows]


def _conditions(narrow: Narrow) -> list[ColumnElement[bool]]:
    columns = {
        accounts.c.username: narrow.account,
        portal_sessions.c.subject: narrow.subject,
        portal_sessions.c.keyspace: narrow.keyspace,
        portal_sessions.c.environment: narrow.environment,
    }
    return [column == value for column, value in columns.items() if value is not None]


def _first(connection: Connection, condition: ColumnElement[bool]) -> PortalSession | None:
    row = connection.execute(_every.where(condition)).first()
    return None if row is None else _visit(row)


def _visit(row: Row[Any]) -> PortalSession:
    names = (name for name in PortalSession.__struct_fields__ if name not in _COMPUTED)
    kept = {name: getattr(row, name) for name in names}
    read = {"scopes": _texts(row.scopes), "preview": bool(row.preview), "account": row.username}
    return PortalSession(**kept | read)
