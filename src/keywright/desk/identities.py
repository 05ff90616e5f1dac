"""Signing in by an identity provider: whom it means, who is joined or made, and what its groups give.

A person is known by issuer and subject. An address of mail joins a person to a provider once, if the provider has verified
it and its domain is the company's own; from then on it says nothing. What somebody else may have set up under the address
ends with the joining: whoever invites an address holds a link that chooses its password.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from keywright.desk import Change, Desk, fields, tokens
from keywright.desk.factors import Factors
from keywright.desk.sessions import Sessions, check_factor, new_person_id
from keywright.desk.tokens import Begun
from keywright.errors import Conflict, Invalid, NotFound, SignInFailed
from keywright.keyring import Keyring
from keywright.model import MANAGEMENT, Actor, GroupRole, Membership, Person, Role, Session
from keywright.roles import ROLES
from keywright.store import accounts, audit, factors, identities, people, sessions
from keywright.store.db import Database
from keywright.times import SECOND

#: How often the trail tells that the same somebody was refused, in seconds.
_TOLD_EVERY: Final = 60


class Vouched(msgspec.Struct, frozen=True):
    """What a provider says of somebody, once it is proven that it is its word."""

    issuer: str
    subject: str
    email: str | None  # one that the provider has verified; another is as good as none
    name: str
    groups: tuple[str, ...]
    proven_at: int | None  # when they gave the provider their password, in microseconds; where it says so
    factor: bool  # it has seen a second factor, and its word on that is taken


class Rules(msgspec.Struct, frozen=True):
    """Whom a verified address may join, and what groups give."""

    domains: tuple[str, ...]
    roles: tuple[GroupRole, ...]


class Given(msgspec.Struct, frozen=True):
    """What groups give: the installation, and roles in accounts by their ids."""

    operator: bool
    places: Mapping[str, Role]

    def __bool__(self) -> bool:
        return self.operator or bool(self.places)


class Asked(msgspec.Struct, frozen=True):
    """What comes with a sign-in: a code of the second factor here, the link of an invitation that is taken by it, what opens
    the session that it takes the place of, and from where.
    """

    code: str = ""
    link: str = ""
    instead_of: str = ""
    source: str = ""
    request_id: str = ""


class _NotLetIn(Exception):
    """Why somebody is refused: for the trail, and for nobody else."""


class Identities(Desk):
    """Who signs in to an installation by an identity provider."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        clock: Callable[[], int],
        links: Sessions,
        factors: Factors,
    ) -> None:
        super().__init__(database, keyring, clock)
        self._links = links
        self._factors = factors

    def enter(self, said: Vouched, rules: Rules, asked: Asked) -> Begun:
        """Begin a session for whom the provider means; who is new is joined or made first.

        Raises ``SignInFailed``, the same whatever the reason, ``SecondFactorNeeded`` without a code of who has a second
        factor here that the provider's does not stand for, ``Throttled``, and ``NotFound`` for a link that is not theirs.
        """
        try:
            with self.database.read() as connection:
                meant = self._meant(connection, said, rules)
            proven = said.factor
            if meant is not None and _keeps(meant, said) and not proven:
                proven = self._factors.prove(meant.id, asked.code)
            with self.change() as change:
                return self._enter(change, said, rules, asked, proven=proven)
        except _NotLetIn as refused:
            self._tell_refusal(
                said, str(refused), Actor("system", "provider", asked.source, asked.request_id)
            )
            raise SignInFailed from None
        except IntegrityError:
            raise Conflict("somebody was let in under this address in the same moment; try again") from None

    def prove_again(self, session: Session, said: Vouched, code: str = "", *, actor: Actor) -> Begun:
        """Take the provider's word that somebody has just given it their password: as ``Sessions.prove_again`` does.

        Raises ``SignInFailed`` where it means somebody else, ``SecondFactorNeeded`` or ``Throttled``.
        """
        with self.database.read() as connection:
            meant = identities.find(connection, said.issuer, said.subject)
        if meant != session.person.id:
            self._tell_refusal(said, "somebody else proved themselves at the provider", actor)
            raise SignInFailed
        if not said.factor:
            self._factors.prove(meant, code)
        token = tokens.draw()
        with self.change() as change:
            sessions.renew(change.tx, session.id, tokens.digest(token), change.now)
            told = {"session": session.id, "issuer": said.issuer}
            change.tell(actor, "session.prove", ("person", meant), **told)
            return Begun(token, msgspec.structs.replace(session, proven_at=change.now))

    # -------------------------------------------------------------------------------------------------------- inside

    def _meant(self, connection: Connection, said: Vouched, rules: Rules) -> Person | None:
        """Whom the provider means; ``None`` is somebody new whom their groups give something."""
        person_id = identities.find(connection, said.issuer, said.subject)
        if person_id is None and said.email is None:
            raise _NotLetIn("the provider has verified no address of theirs")
        known = {"email": said.email} if person_id is None else {"person_id": person_id}
        person = people.get(connection, **known)
        if person is None and not _given(connection, said, rules):
            raise _NotLetIn("nobody here has their address, and no group of theirs gives anything")
        if person is not None and person.state == "disabled":
            raise _NotLetIn("they are disabled")
        if person is not None and person_id is None:
            _check_joinable(person, said, rules)
        return person

    def _enter(self, change: Change, said: Vouched, rules: Rules, asked: Asked, *, proven: bool) -> Begun:
        meant = self._meant(change.tx, said, rules)
        if meant is not None and _keeps(meant, said):
            check_factor(meant, proven=proven)
        sessions.purge(change.tx, change.now)
        if meant is not None and asked.link:
            _accept_link(change, asked.link, meant)
        told: dict[str, dict[str, Any]] = {}
        if meant is None or identities.find(change.tx, said.issuer, said.subject) is None:
            told["person.join"] = {"subject": said.subject, "email": said.email, "made": meant is None}
            person_id = self._join(change, said, meant)
        else:
            person_id = meant.id
        identities.see(change.tx, said.issuer, said.subject, change.now)
        moved = _settle(change, _again(change, person_id), _given(change.tx, said, rules))
        if moved:
            told["person.groups"] = moved
            sessions.end(change.tx, person=person_id)
        opened = self._begin(change, _again(change, person_id), said, asked)
        told["session.begin"] = {"session": opened.session.id}
        actor = Actor("person", person_id, asked.source, asked.request_id)
        for action, detail in told.items():
            change.tell(actor, action, ("person", person_id), issuer=said.issuer, **detail)
        return opened

    def _join(self, change: Change, said: Vouched, person: Person | None) -> str:
        """Write that the provider means somebody: who is there, or who is made by this."""
        if person is not None:
            _end_what_was(change, person)
            person_id = person.id
            if person.name == person.email:  # nobody has said what to call them yet
                people.change(change.tx, person_id, name=_name(said))
        else:
            assert said.email is not None
            person_id = new_person_id()
            people.add(change.tx, person_id, said.email, _name(said), change.now, None)
        identities.add(change.tx, said.issuer, said.subject, person_id, change.now)
        return person_id

    def _begin(self, change: Change, person: Person, said: Vouched, asked: Asked) -> Begun:
        return self._links.begin(
            change,
            person,
            asked.source,
            issuer=said.issuer,
            factor_at=change.now if said.factor else None,
            proven_at=max(0, min(said.proven_at or 0, change.now)),
            instead_of=asked.instead_of,
        )

    def _tell_refusal(self, said: Vouched, why: str, actor: Actor) -> None:
        target = ("identity", said.subject)
        with self.change() as change:
            since = change.now - _TOLD_EVERY * SECOND
            if not audit.told_since(change.tx, actor, "session.refused", target, since):
                told = {"issuer": said.issuer, "email": said.email, "why": why}
                change.tell(actor, "session.refused", target, **told)


def _accept_link(change: Change, token: str, person: Person) -> None:
    """Let somebody take a place by the link of its invitation, as others do by their password."""
    found = sessions.find_link(change.tx, tokens.digest(token))
    theirs = found is not None and found.kind == "invitation" and found.person_id == person.id
    if found is None or not theirs or found.account_id is None or change.now >= found.ends_at:
        raise NotFound("the link was used, has ended, or is somebody else's")
    sessions.use_link(change.tx, tokens.digest(token))
    people.change_membership(change.tx, person.id, found.account_id, accepted_at=change.now)


def _keeps(person: Person, said: Vouched) -> bool:
    """Whether what somebody has set up here stays theirs: of who is joined only now, an operator's alone."""
    return person.operator or any(one.issuer == said.issuer for one in person.identities)


def _check_joinable(person: Person, said: Vouched, rules: Rules) -> None:
    assert said.email is not None
    if said.email.rpartition("@")[2] not in rules.domains:
        raise _NotLetIn("the domain of their address is not one that joins")
    if any(one.issuer == said.issuer for one in person.identities):
        raise _NotLetIn("whoever has their address comes by the provider under another subject")


def _end_what_was(change: Change, person: Person) -> None:
    """End what somebody else may have set up under an address before its owner came: all but an operator's password."""
    sessions.end(change.tx, person=person.id)
    sessions.end_links(change.tx, person.id)
    if not person.operator:
        people.change(change.tx, person.id, password=None, short_since=None, updated_at=change.now)
        factors.remove(change.tx, person.id)
    for held in person.memberships if person.state == "invited" else ():
        if held.accepted_at is None:
            people.change_membership(change.tx, person.id, held.account_id, accepted_at=change.now)


def _given(connection: Connection, said: Vouched, rules: Rules) -> Given:
    """What somebody's groups give, as far as the accounts exist: of several roles in one the largest."""
    ours = [rule for rule in rules.roles if rule.group in said.groups]
    places: dict[str, Role] = {}
    for rule in sorted(ours, key=lambda rule: -ROLES.index(rule.role) if rule.role else 0):
        account = None if rule.account in (None, MANAGEMENT) else accounts.get(connection, rule.account)
        if account is not None and rule.role is not None:
            places[account.id] = rule.role
    return Given(any(rule.account is None for rule in ours), places)


def _settle(change: Change, person: Person, given: Given) -> dict[str, Sequence[str]]:
    """Give what the groups give and take what they gave before; what a hand gave stays. What has changed, if anything."""
    before = _places(person)
    for held in person.memberships:
        _settle_place(change, person, held, given.places.get(held.account_id))
    for account_id in given.places.keys() - {held.account_id for held in person.memberships}:
        people.join(change.tx, person.id, account_id, given.places[account_id], "all", (), change.now)
        taken = {"accepted_at": change.now, "grouped_at": change.now}
        people.change_membership(change.tx, person.id, account_id, **taken)
    if given.operator and not person.operator:
        people.change(change.tx, person.id, operator_since=change.now, operator_grouped_at=change.now)
    elif person.operator_by_groups and not given.operator and people.operators(change.tx) > 1:
        people.change(change.tx, person.id, operator_since=None, operator_grouped_at=None)
    after = _places(_again(change, person.id))
    return {"gained": sorted(after - before), "lost": sorted(before - after)} if after != before else {}


def _settle_place(change: Change, person: Person, held: Membership, role: Role | None) -> None:
    if role is not None and held.accepted_at is None:
        people.change_membership(change.tx, person.id, held.account_id, accepted_at=change.now)
    if not held.by_groups or role == held.role:
        return
    if held.role == "owner" and people.owners(change.tx, held.account_id) <= 1:
        return  # the last one stays, whatever the provider says
    if role is None:
        people.leave(change.tx, person.id, held.account_id)
    else:
        people.change_membership(change.tx, person.id, held.account_id, role=role, grouped_at=change.now)


def _places(person: Person) -> set[str]:
    """What somebody is, in words that are compared and told."""
    held = {f"{one.role} of {one.account}" for one in person.memberships if one.accepted_at is not None}
    return held | ({"operator"} if person.operator else set())


def _again(change: Change, person_id: str) -> Person:
    found = people.get(change.tx, person_id=person_id)
    assert found is not None
    return found


def _name(said: Vouched) -> str:
    assert said.email is not None
    try:
        return fields.name(said.name or said.email)
    except Invalid:
        return said.email


__all__ = ["Asked", "Identities", "Rules", "Vouched"]
