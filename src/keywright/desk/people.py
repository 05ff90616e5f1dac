"""People: invite, get, list, change, remove, disable, enable, reset. Nobody makes anybody larger than themselves."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy.exc import IntegrityError

from keywright.desk import LIBRARY, Change, Desk, cursors, fields
from keywright.desk.accounts import account_name
from keywright.desk.grants import EVERYTHING, Giver, Reach
from keywright.desk.sessions import Invited, Sessions, new_person_id
from keywright.errors import Conflict, Invalid, NotFound
from keywright.keyring import Keyring
from keywright.model import MANAGEMENT, Account, Actor, Membership, Page, Person, Role
from keywright.roles import ROLES
from keywright.store import accounts, factors, identities, keys, keyspaces, people, sessions
from keywright.store.db import Database
from keywright.store.sessions import LinkKind

#: Why a management key is disabled that a disabled person made: enabling the person enables it again.
MAKER_DISABLED: Final = "its maker is disabled"


class People(Desk):
    """The people of an installation. ``by`` is whoever acts, as far as that bounds what they may give."""

    def __init__(
        self, database: Database, keyring: Keyring, clock: Callable[[], int], links: Sessions
    ) -> None:
        super().__init__(database, keyring, clock)
        self._links = links

    def invite(
        self,
        email: str,
        *,
        account: str | None,
        role: str | None,
        name: str | None = None,
        access: str = "all",
        scopes: Sequence[str] = (),
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        by: Giver | None = None,
    ) -> Invited:
        """Give somebody a place in an account, which they take by following the link. A second time, the link is new.

        Raises ``NotFound``, ``Invalid``, ``Exceeds``, or ``Conflict`` for who has the place already.
        """
        email = fields.email(email)
        with self.change() as change:
            owner = self._account(change, reach.needs("account", account))
            given = _role(role)
            _check_giver(by, given)
            capped = self._ceiling(change, given, access, scopes)
            person = self._person(change, email, name)
            held = _membership(person, owner.username)
            if held is not None and held.accepted_at is not None:
                raise Conflict(f"{email} is a member already")
            if held is not None:
                _check_giver(by, held.role)
                people.leave(change.tx, person.id, owner.id)
            people.join(change.tx, person.id, owner.id, given, *capped, change.now)
            known = _narrowed(self._again(change, person.id), reach)
            invited = self._links.link(change, "invitation", known, owner.id)
            change.tell(
                actor, "person.invite", ("person", person.id), account=owner.username, email=email, role=given
            )
            return invited

    def appoint(self, email: str, *, name: str | None = None, actor: Actor = LIBRARY) -> Invited:
        """Make somebody an operator, who runs the installation. Raises ``Invalid`` or ``Conflict``."""
        email = fields.email(email)
        with self.change() as change:
            person = self._person(change, email, name)
            if person.operator and not person.operator_by_groups:
                raise Conflict(f"{email} is an operator already")
            made = {"operator_since": change.now, "operator_grouped_at": None}
            people.change(change.tx, person.id, **made, updated_at=change.now)
            kind: LinkKind = "reset" if person.state == "active" else "invitation"
            invited = self._links.link(change, kind, self._again(change, person.id))
            sessions.end(change.tx, person=person.id)
            change.tell(actor, "person.appoint", ("person", person.id), email=email)
            return invited

    def dismiss(self, person_id: str, *, actor: Actor = LIBRARY) -> Person:
        """Make an operator none. Raises ``NotFound``, or ``Conflict`` for the last one."""
        with self.change() as change:
            person = self._found(change, person_id, EVERYTHING)
            if not person.operator:
                raise Conflict(f"{person.email} is no operator")
            self._keep_an_operator(change, person)
            gone = {"operator_since": None, "operator_grouped_at": None}
            people.change(change.tx, person.id, **gone, updated_at=change.now)
            sessions.end(change.tx, person=person.id)
            change.tell(actor, "person.dismiss", ("person", person.id))
            return self._again(change, person.id)

    def get(self, person_id: str, *, reach: Reach = EVERYTHING) -> Person:
        """Read one by id or by address, as far as they are in reach. Raises ``NotFound``."""
        with self.database.read() as connection:
            return _covered(_read(connection, person_id), person_id, reach)

    def names_of(self, person_ids: Iterable[str]) -> dict[str, str]:
        """What people are called in lists of what they did, also when they have left; of those that are known."""
        with self.database.read() as connection:
            return {key: one.name for key, one in people.several(connection, person_ids).items()}

    def list(  # the verb of every surface
        self,
        *,
        account: str | None = None,
        operators: bool = False,
        q: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        reach: Reach = EVERYTHING,
    ) -> Page:
        """Some people, by address. Raises ``Invalid``, or ``NotFound`` for an account that is not there or not in reach."""
        if not 1 <= limit <= 200:
            raise Invalid("is from 1 to 200", path="limit")
        account, q = reach.needs("account", account), fields.search(q)
        bound, key = ["people", account, operators, q], self.keyring.cursor
        after = None if cursor is None else cursors.read(cursor, bound, key)[0]
        with self.database.read() as connection:
            account_name(connection, account)
            found = people.page(
                connection, account=account, q=q, after=after, limit=limit + 1, operators=operators
            )
        more = len(found) > limit
        following = cursors.write([found[limit - 1].email], bound, key) if more else None
        return Page(tuple(_narrowed(person, reach) for person in found[:limit]), following)

    def change_role(
        self,
        person_id: str,
        *,
        account: str | None,
        role: str | None = None,
        access: str | None = None,
        scopes: Sequence[str] | None = None,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        by: Giver | None = None,
    ) -> Person:
        """Change somebody's place in an account. They sign in anew.

        Raises ``NotFound``, ``Invalid``, ``Exceeds``, or ``Conflict`` for the last owner.
        """
        with self.change() as change:
            person, held, owner = self._placed(change, person_id, account, reach)
            given = _role(role or held.role)
            _check_giver(by, held.role)
            _check_giver(by, given)
            kept = held.scopes if access in (None, held.access) else ()
            capped = self._ceiling(change, given, access or held.access, kept if scopes is None else scopes)
            if given != "owner":
                self._keep_an_owner(change, owner, held)
            people.change_membership(
                change.tx,
                person.id,
                owner.id,
                role=given,
                access=capped[0],
                scopes=capped[1],
                grouped_at=None,
            )
            sessions.end(change.tx, person=person.id)
            told = {"role": [held.role, given], "access": capped[0], "scopes": list(capped[1])}
            change.tell(actor, "person.change", ("person", person.id), account=owner.username, **told)
            return _narrowed(self._again(change, person.id), reach)

    def remove(
        self,
        person_id: str,
        *,
        account: str | None,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        by: Giver | None = None,
    ) -> Person:
        """Take somebody's place in an account away; who they are without it. Raises ``NotFound``, ``Exceeds``, or ``Conflict`` for the last owner."""
        with self.change() as change:
            person, held, owner = self._placed(change, person_id, account, reach)
            _check_giver(by, held.role)
            self._keep_an_owner(change, owner, held)
            people.leave(change.tx, person.id, owner.id)
            sessions.end(change.tx, person=person.id)
            sessions.end_links(change.tx, person.id)
            change.tell(actor, "person.remove", ("person", person.id), account=owner.username, role=held.role)
            return _narrowed(self._again(change, person.id), reach)

    def unlink(self, person_id: str, *, actor: Actor = LIBRARY) -> Person:
        """Forget by which identity provider somebody comes, and take away what its groups gave. They are signed out.

        Raises ``NotFound``, or ``Conflict`` for who comes by none, and where the last owner or operator would be lost.
        """
        with self.change() as change:
            person = self._found(change, person_id, EVERYTHING)
            if not identities.remove(change.tx, person.id):
                raise Conflict(f"{person.email} comes by no identity provider")
            self._take_what_groups_gave(change, person)
            people.change(change.tx, person.id, updated_at=change.now)
            sessions.end(change.tx, person=person.id)
            issuers = [one.issuer for one in person.identities]
            change.tell(actor, "person.unlink", ("person", person.id), issuers=issuers)
            return self._again(change, person.id)

    def disable(self, person_id: str, *, actor: Actor = LIBRARY) -> Person:
        """Shut somebody out: their sessions and the management keys they made are refused at once.

        Raises ``NotFound``, or ``Conflict`` for the last operator.
        """
        with self.change() as change:
            person = self._found(change, person_id, EVERYTHING)
            if person.state == "disabled":
                return person
            self._keep_an_operator(change, person)
            people.change(change.tx, person.id, disabled_at=change.now, updated_at=change.now)
            sessions.end(change.tx, person=person.id)
            sessions.end_links(change.tx, person.id)
            stopped = self._switch_keys(change, person.id, "active", "disabled", MAKER_DISABLED)
            change.tell(actor, "person.disable", ("person", person.id), management_keys=stopped)
            return self._again(change, person.id)

    def enable(self, person_id: str, *, actor: Actor = LIBRARY) -> Person:
        """Let somebody in again, and the management keys that stopped with them. Raises ``NotFound``."""
        with self.change() as change:
            person = self._found(change, person_id, EVERYTHING)
            if person.state != "disabled":
                return person
            people.change(change.tx, person.id, disabled_at=None, updated_at=change.now)
            started = self._switch_keys(change, person.id, "disabled", "active", None)
            change.tell(actor, "person.enable", ("person", person.id), management_keys=started)
            return self._again(change, person.id)

    def reset(self, person_id: str, *, factor: bool = False, actor: Actor = LIBRARY) -> Invited:
        """Make the link by which somebody chooses a new password; with ``factor`` take their second factor away as well.

        Raises ``NotFound`` or ``Conflict``.
        """
        with self.change() as change:
            person = self._found(change, person_id, EVERYTHING)
            if person.state == "disabled":
                raise Conflict(f"{person.email} is disabled")
            told = {"factor": "removed"} if factor and self._take_factor(change, person) else {}
            invited = self._links.link(change, "reset", self._again(change, person.id))
            change.tell(actor, "person.reset", ("person", person.id), **told)
            return invited

    # -------------------------------------------------------------------------------------------------------- inside

    def _take_factor(self, change: Change, person: Person) -> bool:
        """Remove somebody's second factor, their sessions, and a password that is too short to stand alone."""
        if not factors.remove(change.tx, person.id):
            return False
        if people.has_short_password(change.tx, person.id):
            people.change(change.tx, person.id, password=None, short_since=None)
        people.change(change.tx, person.id, updated_at=change.now)
        sessions.end(change.tx, person=person.id)
        return True

    def _take_what_groups_gave(self, change: Change, person: Person) -> None:
        if person.operator_by_groups:
            self._keep_an_operator(change, person)
            people.change(change.tx, person.id, operator_since=None, operator_grouped_at=None)
        for held in (one for one in person.memberships if one.by_groups):
            self._keep_an_owner(change, self._account(change, held.account), held)
            people.leave(change.tx, person.id, held.account_id)

    def _person(self, change: Change, email: str, name: str | None) -> Person:
        """Whoever has the address; made where nobody has."""
        found = people.get(change.tx, email=email)
        if found is not None:
            if found.state == "disabled":
                raise Conflict(f"{email} cannot be invited")
            return found
        person_id = new_person_id()
        try:
            people.add(change.tx, person_id, email, fields.name(name or email), change.now, None)
        except IntegrityError:
            raise Conflict(f"{email} was invited in the same moment; try again") from None
        return self._again(change, person_id)

    def _ceiling(
        self, change: Change, role: Role, access: str, scopes: Sequence[str]
    ) -> tuple[str, tuple[str, ...]]:
        if access not in ("all", "read_only", "restricted"):
            raise Invalid("is all, read_only or restricted", path="access")
        if access != "all" and role != "developer":
            raise Invalid("bounds what a developer can give; other roles have none", path="access")
        if (access == "restricted") != bool(scopes):
            raise Invalid("are for restricted access, which needs at least one", path="scopes")
        known = {scope for one in keyspaces.every(change.tx) for scope in one.keyspace.scopes}
        for place, scope in enumerate(scopes):
            if scope not in known:
                raise Invalid(f"{str(scope)[:60]!r} is no scope of any keyspace", path=f"scopes[{place}]")
        return access, tuple(dict.fromkeys(scopes))

    def _account(self, change: Change, username: str | None) -> Account:
        if username is None:
            raise Invalid("is needed", path="account")
        found = accounts.get(change.tx, username)
        if found is None or username == MANAGEMENT:
            raise NotFound(f"there is no account {username[:60]!r}")
        return found

    def _placed(
        self, change: Change, person_id: str, account: str | None, reach: Reach
    ) -> tuple[Person, Membership, Account]:
        person = self._found(change, person_id, reach)
        owner = self._account(change, reach.needs("account", account))
        held = _membership(person, owner.username)
        if held is None:
            raise NotFound(f"there is no person {person_id[:60]!r}")
        return person, held, owner

    def _found(self, change: Change, person_id: str, reach: Reach) -> Person:
        return _covered(_read(change.tx, person_id), person_id, reach)

    def _again(self, change: Change, person_id: str) -> Person:
        found = people.get(change.tx, person_id=person_id)
        assert found is not None
        return found

    def _keep_an_owner(self, change: Change, owner: Account, held: Membership) -> None:
        if held.role == "owner" and held.accepted_at is not None and people.owners(change.tx, owner.id) <= 1:
            raise Conflict("this is the last owner of the account; make somebody else one first")

    def _keep_an_operator(self, change: Change, person: Person) -> None:
        if person.operator and people.operators(change.tx) <= 1:
            raise Conflict("this is the last operator; appoint another one first")

    def _switch_keys(self, change: Change, person_id: str, was: str, state: str, reason: str | None) -> int:
        stopped = MAKER_DISABLED if was == "disabled" else None
        made = keys.management_keys_of(change.tx, f"person:{person_id}", was, stopped)
        for key_id in made:
            keys.change(change.tx, key_id, state=state, state_reason=reason, updated_at=change.now)
            change.announce("key", key_id)
        return len(made)


def _role(role: str | None) -> Role:
    for known in ROLES:
        if known == role:
            return known
    raise Invalid(f"is one of {', '.join(ROLES)}", path="role")


def _check_giver(by: Giver | None, role: Role) -> None:
    if by is not None:
        by.check(role)


def _read(connection: Any, person_id: str) -> Person | None:
    if "@" in person_id:
        return people.get(connection, email=person_id.strip().lower())
    return people.get(connection, person_id=person_id)


def _membership(person: Person, username: str) -> Membership | None:
    return next((held for held in person.memberships if held.account == username), None)


def _covered(found: Person | None, person_id: str, reach: Reach) -> Person:
    if found is None or (reach.account is not None and _membership(found, reach.account) is None):
        raise NotFound(f"there is no person {person_id[:60]!r}")
    return _narrowed(found, reach)


def _narrowed(person: Person, reach: Reach) -> Person:
    """A person as one account may know them: their other places are nobody's business.

    Of somebody who has not accepted yet it knows what it wrote itself: not whether others know them already.
    """
    if reach.account is None:
        return person
    held = _membership(person, reach.account)
    here = () if held is None else (held,)
    if held is not None and held.accepted_at is not None:
        return msgspec.structs.replace(person, memberships=here, operator=False)
    since = person.created_at if held is None else held.since
    return Person(person.id, person.email, person.email, "invited", False, since, since, here)
