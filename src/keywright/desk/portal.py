"""The portal: a host vouches for its customers' admins, who then need no password of ours.

The host's back end asks for a link. It holds a code of 256 random bits that works once and for a quarter of an hour; who
follows it gets a cookie, as of a session, for eight hours at most and one of silence. Of both the SHA-256 is kept. Who
visits has no more than their role has over keys, than the membership that the host describes, and than the management key
has that asked: at every request, so that a visit ends with it.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from keywright import roles
from keywright.desk import LIBRARY, Change, Desk, cursors, fields, tokens
from keywright.desk.grants import EVERYTHING, Holder, Reach, sooner
from keywright.desk.once import Once
from keywright.desk.sessions import Sessions
from keywright.desk.tokens import Begun
from keywright.errors import Exceeds, Invalid, NotFound
from keywright.keyring import Keyring
from keywright.model import (
    MANAGEMENT,
    Account,
    Actor,
    Membership,
    Page,
    Person,
    PortalLink,
    PortalSession,
    PortalState,
    Role,
    Session,
)
from keywright.store import accounts, keys, keyspaces, people, portal
from keywright.store.db import Database
from keywright.store.portal import Narrow
from keywright.times import DAY, SECOND

LIFE_OF_LINK: Final = 15 * 60  # seconds
LONGEST: Final = 8 * 3600  # seconds
IDLE: Final = 3600  # seconds
#: For how long after its end a visit is still known: who comes with its cookie is led back to the host.
KEPT: Final = DAY


class Portal(Desk):
    """Who visits an installation. ``hosts`` are those that a visit may lead to from here, or none for any."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        clock: Callable[[], int],
        sessions: Sessions,
        *,
        base_url: str = "",
        hosts: Sequence[str] = (),
    ) -> None:
        super().__init__(database, keyring, clock)
        self._sessions = sessions
        self._base_url = base_url
        self._hosts = hosts

    # ------------------------------------------------------------------------------------------------ what the host does

    def open(
        self,
        *,
        account: str,
        subject: str,
        keyspace: str | None = None,
        environment: str | None = None,
        name: str | None = None,
        role: str = "admin",
        access: str = "all",
        scopes: Sequence[str] = (),
        return_url: str | None = None,
        preview: bool = False,
        base_url: str | None = None,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        by: Holder | None = None,
        once: Once | None = None,
    ) -> PortalLink:
        """Make the link by which ``subject``, whom the host has signed in, comes to the keys of an account.

        ``role``, ``access`` and ``scopes`` are as in a membership; ``keyspace`` and ``environment`` hide all others.
        Raises ``NotFound``, ``Invalid`` or ``Exceeds``: all of it is granted, or nothing.
        """
        given = _role(role)
        if actor.kind == "person" and not preview:
            raise Invalid(
                "must be true: a person only looks on; for a customer's admin the host asks, with a management key",
                path="preview",
            )
        _check_grantor(by, given, preview=preview)
        bound = {
            "keyspace": reach.needs("keyspace", keyspace),
            "environment": reach.needs("environment", environment),
        }
        username = reach.needs("account", account)
        asked = {
            "subject": fields.name(subject, path="subject"),
            "name": fields.name(name or subject),
            "role": given,
            "return_url": fields.return_url(return_url, self._hosts),
            "preview": preview,
        }
        code = tokens.draw()
        with self.change(once) as change:
            portal.purge(change.tx, change.now - KEPT * SECOND)
            owner = _account(change, username)
            ceiling = _ceiling(change.tx, given, access, scopes, **bound)
            until = None if by is None else by.expires_at
            visit = _visit(
                owner, change.now, until, actor, **asked, **bound, access=ceiling[0], scopes=ceiling[1]
            )
            portal.add(change.tx, visit, tokens.digest(code))
            change.made(visit.id)
            told = {"subject": visit.subject, "role": given, "preview": preview, **bound}
            change.tell(actor, "portal.open", ("portal", visit.id), account=owner.username, **told)
        base = self._base_url if base_url is None else base_url
        return PortalLink(visit, f"{base.rstrip('/')}/portal/{code}")

    def get(self, visit_id: str, *, reach: Reach = EVERYTHING) -> PortalSession:
        """Read one. Raises ``NotFound``."""
        with self.database.read() as connection:
            found = _covered(portal.get(connection, visit_id), visit_id, reach)
            allowed = self._allowed(connection, [found])
        return self._told([found], allowed)[0]

    def list(  # the verb of every surface
        self,
        *,
        account: str | None = None,
        subject: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        reach: Reach = EVERYTHING,
    ) -> Page:
        """Some visits, newest first, up to a day after their end. Raises ``NotFound`` or ``Invalid``."""
        if not 1 <= limit <= 200:
            raise Invalid("is from 1 to 200", path="limit")
        narrow = _narrow(reach, account, subject)
        bound, key = ["portal", narrow], self.keyring.cursor
        after = None if cursor is None else cursors.read(cursor, bound, key)
        with self.database.read() as connection:
            _known(connection, narrow.account)
            place = None if after is None else (int(after[0]), str(after[1]))
            found = portal.page(connection, narrow, after=place, limit=limit + 1)
            shown = found[:limit]
            allowed = self._allowed(connection, shown)
        last = [shown[-1].created_at, shown[-1].id] if len(found) > limit else None
        told = self._told(shown, allowed)
        return Page(told, None if last is None else cursors.write(last, bound, key))

    def end(self, visit_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> PortalSession:
        """End one, whether its link was followed or not; one that is over stays so. Raises ``NotFound``."""
        with self.change() as change:
            found = _covered(portal.get(change.tx, visit_id), visit_id, reach)
            if found.ended_at is None and change.now < found.ends_at:
                self._end(change, [found.id], found.account, actor)
        return self.get(visit_id, reach=reach)

    def end_all(
        self,
        *,
        account: str,
        subject: str | None = None,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
    ) -> int:
        """End all of an account, or those of one subject; how many that were. Raises ``NotFound``."""
        narrow = _narrow(reach, account, subject)
        with self.change() as change:
            _known(change.tx, narrow.account)
            going_on = portal.going_on(change.tx, narrow, change.now)
            self._end(change, going_on, account, actor)
            return len(going_on)

    # --------------------------------------------------------------------------------------------- what the visitor does

    def meant(self, code: str) -> PortalSession:
        """Whose visit a link begins. Raises ``NotFound`` for one that is used, ended or invented: the same for each."""
        now = self.clock()
        with self.database.read() as connection:
            return self._waiting(connection, code, now)

    def enter(self, code: str, *, source: str = "", request_id: str = "") -> Begun:
        """Follow a link. It works once, whoever is fastest. Raises ``NotFound``."""
        self.meant(code)  # before anything is written: an invented code writes nothing
        token = tokens.draw()
        with self.change() as change:
            visit = self._waiting(change.tx, code, change.now)
            if not portal.begin(
                change.tx, tokens.digest(code), tokens.digest(token), change.now, source
            ):  # somebody else, on another node
                raise NotFound(tokens.GONE)
            visitor = Actor("visitor", visit.subject, source, request_id)
            change.tell(visitor, "portal.begin", ("portal", visit.id), account=visit.account)
            rights = self._rights(change.tx, visit, change.now) or frozenset()
        begun = msgspec.structs.replace(visit, began_at=change.now, seen_at=change.now, state="open")
        return Begun(token, _session(begun, rights, source, change.now))

    def find(self, token: str) -> Session | None:
        """Whose visit a cookie opens, if it goes on. Never from memory: one that was ended is ended."""
        now = self.clock()
        with self.database.read() as connection:
            found = portal.find(connection, tokens.digest(token))
            rights = None if found is None else self._rights(connection, found[0], now)
        if found is None or rights is None:
            return None
        visit, source = found
        seen_at = max(self._sessions.seen([visit.id]).get(visit.id, 0), visit.began_at or 0)
        if _state(visit, seen_at, now) != "open":
            return None
        self._sessions.see(visit.id, seen_at, now)
        goes_on = msgspec.structs.replace(visit, seen_at=seen_at, state="open")
        return _session(goes_on, rights, source, seen_at)

    def left(self, token: str) -> PortalSession | None:
        """The visit that a cookie has opened once, over or not; ``None`` where it is not known any more."""
        with self.database.read() as connection:
            found = portal.find(connection, tokens.digest(token))
        return None if found is None else found[0]

    # -------------------------------------------------------------------------------------------------------- inside

    def _waiting(self, connection: Connection, code: str, now: int) -> PortalSession:
        visit = portal.waiting(connection, tokens.digest(code))
        if visit is None or _state(visit, None, now) != "waiting":
            raise NotFound(tokens.GONE)
        if self._rights(connection, visit, now) is None:
            raise NotFound(tokens.GONE)
        return visit

    def _rights(self, connection: Connection, visit: PortalSession, now: int) -> frozenset[str] | None:
        """What a visitor holds of what whoever let them in holds now; ``None`` where those have no say any more."""
        rights = roles.of_visit(visit.role, preview=visit.preview)
        kind, _, maker = visit.created_by.partition(":")
        if kind == "management_key":
            key = keys.get(connection, maker, now)
            return rights & set(key.scopes) if key is not None and key.state == "active" else None
        if kind == "person":
            person = people.get(connection, person_id=maker)
            return rights if person is not None and person.operator and person.state == "active" else None
        return rights

    def _allowed(self, connection: Connection, visits: Sequence[PortalSession]) -> frozenset[str]:
        """The ids of those whose makers still have a say."""
        now = self.clock()
        return frozenset(one.id for one in visits if self._rights(connection, one, now) is not None)

    def _told(self, visits: Sequence[PortalSession], allowed: frozenset[str]) -> tuple[PortalSession, ...]:
        """Visits as they are told of: when each was seen last, and how it is with it."""
        now, seen = self.clock(), self._sessions.seen([one.id for one in visits])
        told = []
        for one in visits:
            seen_at = None if one.began_at is None else max(seen.get(one.id, 0), one.began_at)
            state: PortalState = _state(one, seen_at, now) if one.id in allowed else "ended"
            told.append(msgspec.structs.replace(one, seen_at=seen_at, state=state))
        return tuple(told)

    def _end(self, change: Change, visit_ids: Sequence[str], account: str, actor: Actor) -> None:
        portal.end(change.tx, list(visit_ids), change.now)
        for visit_id in visit_ids:
            change.tell(actor, "portal.end", ("portal", visit_id), account=account)


def _state(visit: PortalSession, seen_at: int | None, now: int) -> PortalState:
    if visit.ended_at is not None or now >= visit.ends_at:
        return "ended"
    if visit.began_at is None:
        return "waiting" if now < visit.link_ends_at else "ended"
    return "open" if now - (seen_at or visit.began_at) < IDLE * SECOND else "ended"


def _visit(owner: Account, now: int, until: int | None, actor: Actor, **asked: Any) -> PortalSession:
    """A visit that ends no later than the key that lets somebody in."""
    return PortalSession(
        id=f"ptl_{secrets.token_hex(10)}",
        account_id=owner.id,
        account=owner.username,
        created_at=now,
        created_by=f"{actor.kind}:{actor.id}",
        link_ends_at=sooner(now + LIFE_OF_LINK * SECOND, until) or now,
        began_at=None,
        ends_at=sooner(now + LONGEST * SECOND, until) or now,
        ended_at=None,
        **asked,
    )


def _session(visit: PortalSession, rights: frozenset[str], source: str, seen_at: int) -> Session:
    """A visit as a session, of a person who is made up: with one place, no address of mail, and no password."""
    began_at = visit.began_at or visit.created_at
    place = Membership(
        visit.account_id, visit.account, visit.role, visit.access, visit.scopes, visit.created_at, began_at
    )
    person = Person(visit.id, "", visit.name, "active", False, visit.created_at, visit.created_at, (place,))
    return Session(visit.id, person, began_at, 0, visit.ends_at, source, seen_at, visit=visit, rights=rights)


def _role(role: str) -> Role:
    for known in roles.ROLES:
        if known == role and known != "owner":
            return known
    raise Invalid(f"is one of {', '.join(one for one in roles.ROLES if one != 'owner')}", path="role")


def _check_grantor(by: Holder | None, role: Role, *, preview: bool) -> None:
    lacking = () if by is None else sorted(roles.of_visit(role, preview=preview) - set(by.scopes))
    if lacking:
        raise Exceeds(f"the grantor lacks {lacking[0]}, which the role {role} has in the portal")


def _ceiling(
    connection: Connection,
    role: Role,
    access: str,
    scopes: Sequence[str],
    *,
    keyspace: str | None,
    environment: str | None,
) -> tuple[str, tuple[str, ...]]:
    """What a visitor can give a key at most, as in a membership, of the keyspaces that they see."""
    if environment is not None and keyspace is None:
        raise Invalid("needs a keyspace beside it", path="environment")
    seen = [one.keyspace for one in keyspaces.every(connection) if keyspace in (None, one.keyspace.name)]
    if keyspace is not None and not seen:
        raise NotFound(f"there is no keyspace {keyspace[:60]!r}")
    if environment is not None and environment not in seen[0].environments:
        names = ", ".join(seen[0].environments)
        raise Invalid(f"{environment[:40]!r} is none of {names}", path="environment")
    if access not in ("all", "read_only", "restricted"):
        raise Invalid("is all, read_only or restricted", path="access")
    if access != "all" and "keys:write" not in roles.RIGHTS[role]:
        raise Invalid(f"bounds what keys somebody can give, and {role} gives none", path="access")
    if (access == "restricted") != bool(scopes):
        raise Invalid("are for restricted access, which needs at least one", path="scopes")
    for place, scope in enumerate(scopes):
        if not any(scope in space.scopes for space in seen):
            raise Invalid(f"{str(scope)[:60]!r} is no scope of any keyspace there", path=f"scopes[{place}]")
    return access, tuple(dict.fromkeys(scopes))


def _account(change: Change, username: str | None) -> Account:
    found = None if username in (None, MANAGEMENT) else accounts.get(change.tx, str(username))
    if found is None:
        raise NotFound(f"there is no account {str(username)[:60]!r}")
    return found


def _known(connection: Connection, username: str | None) -> None:
    if username is not None and (username == MANAGEMENT or accounts.get(connection, username) is None):
        raise NotFound(f"there is no account {username[:60]!r}")


def _narrow(reach: Reach, account: str | None, subject: str | None) -> Narrow:
    username = reach.needs("account", account)
    return Narrow(account=username, subject=subject, keyspace=reach.keyspace, environment=reach.environment)


def _covered(found: PortalSession | None, visit_id: str, reach: Reach) -> PortalSession:
    if (
        found is None
        or reach.account not in (None, found.account)
        or reach.keyspace not in (None, found.keyspace)
        or reach.environment not in (None, found.environment)
    ):
        raise NotFound(f"there is no visit {visit_id[:60]!r}")
    return found


__all__ = ["Portal"]
