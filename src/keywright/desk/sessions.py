"""Signing in and out: sessions, one-time links, and the patience with those who guess.

A session is opened by a cookie of 256 random bits, of which the SHA-256 is kept. It ends after half an hour of silence,
after twelve hours, and at once when its person signs out, is disabled, changes the password or gets another role.
"""

import hmac
import secrets
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Final

import msgspec

from keywright.desk import Change, Desk, fields, passwords, tokens
from keywright.desk.factors import Factors
from keywright.desk.passwords import Passwords
from keywright.desk.tokens import Begun
from keywright.errors import Conflict, NotFound, SecondFactorNeeded, SignInFailed, Throttled, Unavailable
from keywright.keyring import Keyring
from keywright.model import Actor, Person, Session
from keywright.store import people, sessions
from keywright.store.db import Database
from keywright.store.sessions import Failures, Link, LinkKind, StoredSession
from keywright.times import DAY, SECOND

IDLE: Final = 30 * 60  # seconds
LONGEST: Final = 12 * 3600  # seconds
#: For how long after the password was given a dangerous act needs it no more.
FRESH: Final = 5 * 60  # seconds
LIFE_OF_LINK: Final[dict[LinkKind, int]] = {"setup": 30 * 60, "invitation": 7 * DAY, "reset": 3600}
#: How much later a session must be seen for it to be written down.
_SEEN_EVERY: Final = 60  # seconds

#: Failures of one address of mail after which the next must wait: a second, twice that, and so on.
PATIENT_UNTIL: Final = 5
LONGEST_WAIT: Final = 15 * 60  # seconds
#: After so many in a row only a reset helps (NIST SP 800-63B-4).
MOST_FAILURES: Final = 100
#: What one address of the network may fail in a minute.
PER_MINUTE: Final = 30


class Invited(msgspec.Struct, frozen=True):
    """A person, and what a one-time link for them holds, which is told this once."""

    person: Person | None
    token: str
    ends_at: int

    def __repr__(self) -> str:
        return f"Invited(ends_at={self.ends_at})"


class Sessions(Desk):
    """Who is signed in to an installation."""

    def __init__(
        self, database: Database, keyring: Keyring, clock: Callable[[], int], factors: Factors
    ) -> None:
        super().__init__(database, keyring, clock)
        self._factors = factors
        self._passwords = Passwords()

    # ------------------------------------------------------------------------------------------------- in and out

    def sign_in(
        self,
        email: str,
        password: str,
        code: str = "",
        *,
        instead_of: str = "",
        source: str = "",
        request_id: str = "",
    ) -> Begun:
        """Begin a session, in place of the one that ``instead_of`` opens: with ``code`` of whoever has a second factor.
        Until that is proven there is none to find.

        Raises ``SignInFailed``, the same for whoever is unknown, ``SecondFactorNeeded``, ``Throttled`` or ``Unavailable``.
        """
        email = email.strip().lower()[:320]
        person_id = self._prove(email, password, source)
        proven = self._factors.prove(person_id, code)
        with self.change() as change:
            person = people.get(change.tx, person_id=person_id)
            if person is None or person.state != "active":  # since a moment ago
                raise SignInFailed
            check_factor(person, proven=proven)
            sessions.purge(change.tx, change.now)
            opened = self.begin(change, person, source, instead_of=instead_of)
            actor = Actor("person", person.id, source, request_id)
            change.tell(actor, "session.begin", ("person", person.id), session=opened.session.id)
        return opened

    def begin(
        self,
        change: Change,
        person: Person,
        source: str,
        *,
        issuer: str | None = None,
        factor_at: int | None = None,
        proven_at: int | None = None,
        instead_of: str = "",
    ) -> Begun:
        """Begin a session in a transaction, of who has proven to be somebody; the one that ``instead_of`` opens ends."""
        earlier = sessions.find(change.tx, tokens.digest(instead_of)) if instead_of else None
        if earlier is not None:
            sessions.end(change.tx, session=earlier.id)
        token = tokens.draw()
        stored = StoredSession(
            secrets.token_hex(8),
            person.id,
            change.now,
            change.now if proven_at is None else proven_at,
            change.now + LONGEST * SECOND,
            source,
            issuer,
            factor_at,
        )
        sessions.begin(change.tx, tokens.digest(token), stored)
        return Begun(token, _session(stored, person, change.now))

    def find(self, token: str) -> Session | None:
        """Whose session a cookie opens, if it has not ended. Never from memory: a session that was ended is ended."""
        now = self.clock()
        with self.database.read() as connection:
            stored = sessions.find(connection, tokens.digest(token))
            person = None if stored is None else people.get(connection, person_id=stored.person_id)
        if stored is None or person is None or person.state != "active" or now >= stored.ends_at:
            return None
        seen_at = self.seen([stored.id]).get(stored.id, stored.began_at)
        if now - seen_at >= IDLE * SECOND:
            return None
        self.see(stored.id, seen_at, now)
        return _session(stored, person, seen_at)

    def list(self, person: Person) -> tuple[Session, ...]:  # the verb of every surface
        """A person's sessions that have not ended, oldest first."""
        now = self.clock()
        with self.database.read() as connection:
            stored = sessions.of(connection, person.id)
        seen = self.seen([one.id for one in stored])
        found = (_session(one, person, seen.get(one.id, one.began_at)) for one in stored)
        return tuple(one for one in found if now < one.ends_at and now - one.seen_at < IDLE * SECOND)

    def end(self, session: Session, session_id: str | None = None, *, actor: Actor) -> None:
        """End a session, or another one of the same person. Raises ``NotFound``."""
        ended = session_id or session.id
        with self.change() as change:
            if ended not in {one.id for one in sessions.of(change.tx, session.person.id)}:
                raise NotFound(f"there is no session {ended[:60]!r}")
            sessions.end(change.tx, session=ended)
            change.tell(actor, "session.end", ("person", session.person.id), session=ended)

    def prove_again(self, session: Session, password: str, code: str = "", *, actor: Actor) -> Begun:
        """Give the password again, and a code of whoever has a second factor: dangerous acts are open for some minutes,
        under a new cookie.

        Raises ``SignInFailed``, ``SecondFactorNeeded``, ``Throttled`` or ``Unavailable``.
        """
        self._prove(session.person.email, password, actor.source)
        self._factors.prove(session.person.id, code)
        token = tokens.draw()
        with self.change() as change:
            sessions.renew(change.tx, session.id, tokens.digest(token), change.now)
            change.tell(actor, "session.prove", ("person", session.person.id), session=session.id)
            return Begun(token, msgspec.structs.replace(session, proven_at=change.now))

    def change_password(self, session: Session, current: str, new: str, *, actor: Actor) -> Begun:
        """Take another password, and end every other session. Raises ``SignInFailed``, ``Invalid``, ``Throttled``."""
        self._prove(session.person.email, current, actor.source, path="current")
        hashed = self._hash(new, session.person)
        token = tokens.draw()
        with self.change() as change:
            self._keep_password(change, session.person.id, new, hashed)
            sessions.end(change.tx, person=session.person.id, but=session.id)
            sessions.renew(change.tx, session.id, tokens.digest(token), change.now)
            change.tell(actor, "person.password", ("person", session.person.id))
            return Begun(token, msgspec.structs.replace(session, proven_at=change.now))

    def be_patient(self, source: str) -> None:
        """Refuse an address of the network at which too much has failed within a minute. Raises ``Throttled``."""
        with self.database.read("usage") as connection:
            tried = sessions.failures(connection, self._subject(f"net {_net(source)}"))
        wait = _wait_for_net(tried, self.clock()) if source else 0
        if wait:
            raise Throttled(wait)

    def note_failure(self, source: str) -> None:
        """Count that signing in has failed at an address of the network."""
        if source:
            self._fail([None, self._subject(f"net {_net(source)}")], self.clock())

    def use_once(self, text: str) -> bool:
        """Whether something that works once is used for the first time, within the day that it is remembered."""
        with self.database.write("usage") as tx:
            return sessions.attempt(tx, self._subject(f"once {text}"), self.clock(), DAY * SECOND).failed == 1

    def is_fresh(self, session: Session) -> bool:
        """Whether the password was given so lately that a dangerous act needs it no more."""
        return self.clock() - session.proven_at < FRESH * SECOND

    def seen(self, session_ids: Sequence[str]) -> dict[str, int]:
        """When some sessions were seen last."""
        with self.database.read("usage") as connection:
            return sessions.last_seen(connection, list(session_ids))

    def see(self, session_id: str, seen_at: int, now: int) -> None:
        """Note that a session is in use, if that was not noted a moment ago. Nothing of it goes to the keys file."""
        if now - seen_at < _SEEN_EVERY * SECOND:
            return
        try:
            with self.database.write("usage") as tx:
                sessions.see(tx, session_id, now)
        except Unavailable:  # counting is down: whoever is signed in stays so
            return

    # ---------------------------------------------------------------------------------------------- one-time links

    def link(
        self, change: Change, kind: LinkKind, person: Person | None, account: str | None = None
    ) -> Invited:
        """Make a link in a transaction; earlier ones like it end."""
        token, ends_at = tokens.draw(), change.now + LIFE_OF_LINK[kind] * SECOND
        made = Link(kind, None if person is None else person.id, account, ends_at)
        sessions.add_link(change.tx, tokens.digest(token), made, change.now)
        return Invited(person, token, ends_at)

    def set_up(self) -> Invited | None:
        """Make the link by which the first operator comes in; ``None`` where there is an operator."""
        with self.change() as change:
            return None if people.operators(change.tx) else self.link(change, "setup", None)

    def meant(self, token: str) -> tuple[LinkKind, Person | None]:
        """What a link is for, and whom. Raises ``NotFound`` for one that is used, ended or nobody's."""
        with self.database.read() as connection:
            found = self._live(sessions.find_link(connection, tokens.digest(token)), self.clock())
            return found.kind, people.get(connection, person_id=found.person_id)

    def follow(
        self,
        token: str,
        password: str,
        *,
        code: str = "",
        email: str | None = None,
        name: str | None = None,
        source: str = "",
        request_id: str = "",
    ) -> Begun:
        """Follow a link: choose a password, and be signed in. It works once, whoever is fastest.

        A set-up makes the first operator, who says ``email``. An invitation of somebody who has a password is accepted
        with that one. Whoever has a second factor keeps it, and gives a ``code``. Raises ``NotFound``, ``Invalid``,
        ``SignInFailed``, ``SecondFactorNeeded``, ``Throttled``, ``Unavailable``, or ``Conflict`` for who has no password to accept with.
        """
        kind, person = self.meant(token)
        hashed, proven = None, False
        if kind == "invitation" and person is not None and person.state == "active":
            if not person.has_password:
                raise Conflict(
                    "you sign in by an identity provider; take this invitation by signing in with it"
                )
            self._prove(person.email, password, source)
        else:
            email = fields.email(email) if kind == "setup" else None
            about = (
                [text for text in (email, name) if text] if person is None else [person.email, person.name]
            )
            beside = person is not None and _has_factor(person)
            hashed = self._passwords.hash(passwords.check(password, about, beside_factor=beside))
        if person is not None:
            proven = self._factors.prove(person.id, code)
        with self.change() as change:
            found = self._live(sessions.find_link(change.tx, tokens.digest(token)), change.now)
            if not sessions.use_link(change.tx, tokens.digest(token)):
                raise NotFound(tokens.GONE)
            person_id = self._make(change, email, name) if found.person_id is None else found.person_id
            if hashed is not None:
                self._keep_password(change, person_id, password, hashed)
            opened = self._arrive(
                change, found, person_id, name, source, proven=proven, chosen=hashed is not None
            )
            actor = Actor("person", person_id, source, request_id)
            change.tell(actor, f"link.{found.kind}", ("person", person_id), session=opened.session.id)
        self._pardon(opened.session.person.email)
        return opened

    def _make(self, change: Change, email: str | None, name: str | None) -> str:
        if email is None or people.operators(change.tx):
            raise NotFound("there is an operator already")
        if people.get(change.tx, email=email) is not None:
            raise Conflict("somebody has this address already")
        person_id = new_person_id()
        people.add(change.tx, person_id, email, fields.name(name or email), change.now, change.now)
        return person_id

    def _arrive(
        self,
        change: Change,
        link: Link,
        person_id: str,
        name: str | None,
        source: str,
        *,
        proven: bool,
        chosen: bool,
    ) -> Begun:
        person = people.get(change.tx, person_id=person_id)
        if person is None or person.state == "disabled":
            raise NotFound(tokens.GONE)
        check_factor(person, proven=proven)
        if link.account_id is not None:
            people.change_membership(change.tx, person_id, link.account_id, accepted_at=change.now)
        if chosen:
            if name and link.kind == "invitation":
                people.change(change.tx, person_id, name=fields.name(name))
            sessions.end(change.tx, person=person_id)
        person = people.get(change.tx, person_id=person_id)
        assert person is not None
        return self.begin(change, person, source)

    @staticmethod
    def _live(link: Link | None, now: int) -> Link:
        if link is None or now >= link.ends_at:
            raise NotFound(tokens.GONE)
        return link

    # -------------------------------------------------------------------------------------------------------- inside

    def _hash(self, new: str, person: Person) -> str:
        return self._passwords.hash(
            passwords.check(new, [person.email, person.name], beside_factor=_has_factor(person))
        )

    def _keep_password(self, change: Change, person_id: str, password: str, hashed: str) -> None:
        short = change.now if len(password) < passwords.SHORTEST else None
        if short is not None and not people.has_factor(change.tx, person_id):  # it was removed a moment ago
            raise Conflict("the password is too short without a second factor")
        people.change(change.tx, person_id, password=hashed, short_since=short, updated_at=change.now)

    def _prove(self, email: str, password: str, source: str, *, path: str = "password") -> str:
        """The id of whose password it is. Whoever is unknown costs the same time and gets the same answer."""
        subjects = [self._subject(f"mail {email}")] + (
            [self._subject(f"net {_net(source)}")] if source else []
        )
        now = self.clock()
        with self.database.read("usage") as connection:
            tried = [sessions.failures(connection, subject) for subject in subjects]
        wait = max(_wait_for_mail(tried[0], now), _wait_for_net(tried[1], now) if source else 0)
        if wait:
            raise Throttled(wait)
        with self.database.read() as connection:
            person_id, stored, disabled_at = people.password(connection, email) or ("", None, None)
        right = self._passwords.proves(stored, password)
        if not right or disabled_at is not None:
            self._fail(subjects, now)
            raise SignInFailed
        if tried[0].failed:
            self._pardon(email)
        if stored is not None and self._passwords.is_outdated(stored):
            with self.change() as change:
                people.change(change.tx, person_id, password=self._passwords.hash(password))
        return person_id

    def _subject(self, text: str) -> str:
        """A keyed digest: whoever reads the table learns nobody's address."""
        return hmac.digest(self.keyring.cursor, b"sign-in " + text.encode("utf-8", "replace"), "sha256").hex()

    def _fail(self, subjects: Sequence[str | None], now: int) -> None:
        with self.database.write("usage") as tx:
            sessions.forget(tx, now - 30 * DAY * SECOND)
            for place, subject in enumerate(subjects):
                if subject is None:
                    continue
                last = sessions.failures(tx, subject)
                over = place == 1 and now - last.since >= 60 * SECOND
                begins = last.failed == 0 or over
                sessions.fail(
                    tx,
                    subject,
                    Failures(1 if begins else last.failed + 1, now if begins else last.since, now),
                )

    def _pardon(self, email: str) -> None:
        with self.database.write("usage") as tx:
            sessions.pardon(tx, self._subject(f"mail {email}"))


def check_factor(person: Person, *, proven: bool) -> None:
    """Refuse whoever has taken a second factor since they were asked for it."""
    if _has_factor(person) and not proven:
        raise SecondFactorNeeded


def _has_factor(person: Person) -> bool:
    return person.factor_since is not None


def new_person_id() -> str:
    """Draw an id."""
    return f"prsn_{secrets.token_hex(10)}"


def _session(stored: StoredSession, person: Person, seen_at: int) -> Session:
    return Session(
        *(stored.id, person, stored.began_at, stored.proven_at, stored.ends_at, stored.source),
        *(seen_at, stored.issuer, stored.factor_at),
    )


def _net(source: str) -> str:
    """Whom failures from an address are laid to: IPv4 as it is, IPv6 by its /64, as one subscriber has."""
    try:
        address = ip_address(source)
    except ValueError:
        return source
    if address.version == 4:
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else address.packed[:8].hex()


def _wait_for_mail(tried: Failures, now: int) -> int:
    """For how many seconds nobody may try again."""
    if tried.failed < PATIENT_UNTIL:
        return 0
    if tried.failed >= MOST_FAILURES:
        return LONGEST_WAIT
    wait = min(1 << min(tried.failed - PATIENT_UNTIL, 20), LONGEST_WAIT)
    return max(0, -(-(tried.at + wait * SECOND - now) // SECOND))


def _wait_for_net(tried: Failures, now: int) -> int:
    if tried.failed < PER_MINUTE:
        return 0
    return max(0, -(-(tried.since + 60 * SECOND - now) // SECOND))


__all__ = ["Begun", "Invited", "Sessions", "check_factor", "new_person_id"]
