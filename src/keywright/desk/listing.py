"""Keys as they are read: one, or a list by filters and findings, with what is known of their use."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from keywright import credential, roles
from keywright import limits as arithmetic
from keywright.desk import Desk, cursors, fields, grants
from keywright.desk.accounts import account_name
from keywright.desk.grants import EVERYTHING, Reach
from keywright.desk.keyspaces import keyspace_name
from keywright.errors import Conflict, Exceeds, Forbidden, Invalid, NotFound, Unavailable
from keywright.events import ENDING_UNUSED
from keywright.hygiene import FINDINGS, MAKER_LOST_RIGHTS, NOTICE, UNUSED, bounds, ends_unused_at, idle_since
from keywright.limits import Standing
from keywright.model import MANAGEMENT, Binding, ExpiryPolicy, Key, Keyspace, Limit, Page, Person
from keywright.store import deliveries, keys, keyspaces, people, quotas, spend, usage
from keywright.store.keys import SORTS, Filter, Outline
from keywright.store.keyspaces import Applied
from keywright.store.usage import Seen

LONGEST_PAGE: Final = 200
#: How many keys are looked through at once for those of which a finding holds that the store cannot say alone.
_SIFTED: Final = 2_000
STATES: Final = ("active", "disabled", "invalidated", "expired")


class Listing(Desk):
    """What is read of keys; whoever changes them reads them so first."""

    def get(self, key_id: str, *, reach: Reach = EVERYTHING) -> Key:
        """Read one. Raises ``NotFound``, for a deleted or a foreign one too."""
        with self.database.read() as connection:
            now = self.clock()
            found = self._covered(keys.get(connection, key_id, now), key_id, reach)
            found = with_flags(connection, [with_children(connection, found, now)])[0]
        return self._with_last_use([found])[0]

    def limits(self, key_id: str, *, reach: Reach = EVERYTHING) -> Sequence[Standing]:
        """What a key's use is taken from, its own limits, its account's and its plan's, and how much of each is taken.

        Raises ``NotFound``, for a deleted or a foreign key too, and ``Unavailable`` where nobody can say.
        """
        now = self.clock()
        with self.database.read() as connection:
            self._covered(keys.get(connection, key_id, now), key_id, reach)
            charged = [
                charge
                for holder in quotas.held(connection, [key_id])
                for charge in quotas.charges(connection, holder)
            ]
        with self.database.read("spend") as connection:
            return tuple(_standing(connection, subject, limit, now) for subject, limit in charged)

    def made(self, key_id: str, *, reach: Reach = EVERYTHING) -> Key:
        """Read the key that an earlier call made. Raises ``Conflict`` where it has been deleted since."""
        try:
            return self.get(key_id, reach=reach)
        except NotFound:
            raise Conflict(f"this call made the key {key_id}, which was deleted since") from None

    def list(  # the verb of every surface
        self,
        *,
        keyspace: str | None = None,
        account: str | None = None,
        environment: str | None = None,
        state: str | None = None,
        team: str | None = None,
        application: str | None = None,
        q: str | None = None,
        parent: str | None = None,
        hygiene: str | None = None,
        sort: str = "-created_at",
        cursor: str | None = None,
        limit: int = 50,
        reach: Reach = EVERYTHING,
    ) -> Page:
        """Some keys, newest first unless ``sort`` says otherwise. A secret in ``q`` is looked up by its id.

        With ``hygiene``, one of ``hygiene.FINDINGS``, those of which it holds.

        Raises ``Invalid`` for a filter that makes no sense or a cursor of another list, ``NotFound`` for an account or a
        keyspace that is not there or what is not in reach; with ``hygiene`` ``Unavailable`` where nobody can say when a
        key was last used.
        """
        if sort not in SORTS:
            raise Invalid(f"is one of {', '.join(SORTS)}", path="sort")
        if state is not None and state not in STATES:
            raise Invalid(f"is one of {', '.join(STATES)}", path="state")
        if hygiene is not None and hygiene not in FINDINGS:
            raise Invalid(f"is one of {', '.join(FINDINGS)}", path="hygiene")
        if not 1 <= limit <= LONGEST_PAGE:
            raise Invalid(f"is from 1 to {LONGEST_PAGE}", path="limit")
        narrow = Filter(
            keyspace=MANAGEMENT if reach.management else reach.needs("keyspace", keyspace),
            not_keyspaces=()
            if reach.management or reach.keyspace or keyspace
            else (MANAGEMENT, *reach.closed),
            account=None if reach.management else reach.needs("account", account),
            environment=None if reach.management else reach.needs("environment", environment),
            state=state,
            team=team,
            application=application,
            q=_without_secret(q),
            parent=parent,
            hygiene=hygiene,
            bound=Binding(reach.account, reach.keyspace, reach.environment) if reach.management else None,
            sort=sort,
        )
        key, now = self.keyring.cursor, self.clock()
        after = None if cursor is None else cursors.read(cursor, narrow, key)
        with self.database.read() as connection:
            keyspace_name(connection, narrow.keyspace, own=reach.management)
            account_name(connection, narrow.account)
            found = with_flags(connection, self._found(connection, narrow, now, after, limit + 1))
        more = len(found) > limit
        shown = self._with_last_use(found[:limit])
        following = cursors.write(keys.place_of(shown[-1], sort), narrow, key) if more else None
        return Page(tuple(shown), following)

    def walk(self, **narrow: Any) -> Iterator[Key]:
        """Every key of a list, however many there are: takes what ``list`` takes, and raises what it raises, at once.

        A key that is made or changed meanwhile may be told as it was or as it is.
        """
        return walk(partial(self.list, **narrow, limit=LONGEST_PAGE))

    def ending(self, found: Sequence[Key], within: int = NOTICE) -> Sequence[Key]:
        """Those of some keys that end in that time if nobody uses them, with their last use. Raises ``Unavailable``."""
        until = self.clock() + within
        return [
            key
            for key in self._last_used(found)
            if key.ends_unused_at is not None and key.ends_unused_at <= until
        ]

    def keyspace_of(self, key: Key) -> Keyspace:
        """The definition that a key belongs to."""
        with self.database.read() as connection:
            applied = keyspaces.get(connection, key.keyspace)
        assert applied is not None
        return applied.keyspace

    # ------------------------------------------------------------------------------------------------------- inside

    def _covered(self, found: Key | None, key_id: str, reach: Reach) -> Key:
        if found is None or found.state == "deleted" or not reach.covers(found):
            raise NotFound(f"there is no key {key_id[:60]!r}")
        if found.keyspace in reach.closed:
            raise Forbidden(f"your role does not allow this in the keyspace {found.keyspace}")
        return found

    def _found(
        self, connection: Connection, narrow: Filter, now: int, after: Sequence[Any] | None, many: int
    ) -> Sequence[Key]:
        """The next keys of a list. What the store cannot say alone is sifted from what it has, until there are enough."""
        if narrow.hygiene == "no_limit":
            spaces = [one.keyspace for one in keyspaces.every(connection)]
            held = tuple(space.name for space in spaces if bounds(space))
            return keys.page(connection, narrow, now, after=after, limit=many, keyspaces=held)
        if narrow.hygiene == "ending_unused":
            return self._sifted(connection, narrow, now, after, many, self._ending)
        if narrow.hygiene == "unused":
            return self._sifted(connection, narrow, now, after, many, self._unused)
        if narrow.hygiene == MAKER_LOST_RIGHTS:
            return self._sifted(connection, narrow, now, after, many, _out_of_rights)
        return keys.page(connection, narrow, now, after=after, limit=many)

    def _sifted(
        self,
        connection: Connection,
        narrow: Filter,
        now: int,
        after: Sequence[Any] | None,
        many: int,
        sift: Callable[[Connection, Sequence[Outline], int], Sequence[str]],
    ) -> Sequence[Key]:
        chosen: tuple[str, ...] = ()
        while len(chosen) < many:
            some = keys.outlines(connection, narrow, now, after=after, limit=_SIFTED)
            chosen += tuple(sift(connection, some, now))
            if len(some) < _SIFTED:
                break
            after = some[-1].place
        found = {key.id: key for key in keys.several(connection, chosen[:many], now)}
        return [found[key_id] for key_id in chosen[:many]]

    def _ending(self, connection: Connection, some: Sequence[Outline], now: int) -> Sequence[str]:
        ends = policies(connection, (one.keyspace for one in some))
        left = [one.id for one in some if one.keyspace in ends]
        ending = {key.id for key in self.ending(keys.several(connection, left, now))} if left else set()
        return [key_id for key_id in left if key_id in ending]

    def _unused(self, _connection: Connection, some: Sequence[Outline], now: int) -> Sequence[str]:
        with self.database.read("usage") as connection:
            used = usage.used_since(connection, [one.id for one in some], now - UNUSED)
        return [one.id for one in some if one.id not in used]

    def _with_last_use(self, found: Sequence[Key]) -> Sequence[Key]:
        try:
            return self._last_used(found)
        except Unavailable:  # counting is down: no reason to hide a key from who wants to stop it
            return found

    def _last_used(self, found: Sequence[Key]) -> Sequence[Key]:
        if not found:
            return found
        with self.database.read() as connection:
            ends = policies(connection, (key.keyspace for key in found))
        with self.database.read("usage") as connection:
            seen = usage.last(connection, [key.id for key in found])
            used = [_used(key, seen) for key in found]
            told = announced(connection, [key for key in used if key.keyspace in ends])
        return tuple(_with_end(key, ends.get(key.keyspace), told.get(key.id), self.clock()) for key in used)


def _standing(connection: Connection, subject: str, limit: Limit, now: int) -> Standing:
    used, wait = spend.stands(connection, subject, limit, limit.limit, now)  # when all of it is there again
    named = msgspec.structs.replace(limit, name=arithmetic.told(subject, limit))
    return Standing(named, arithmetic.whose(subject), used, None if wait is None else now + wait)


def walk(read: Callable[..., Page]) -> Iterator[Any]:
    """The items of a list that is read page by page. The first is read at once."""
    return _going_on(read, read())


def _going_on(read: Callable[..., Page], page: Page) -> Iterator[Any]:
    yield from page.items
    while page.next_cursor is not None:
        page = read(cursor=page.next_cursor)
        yield from page.items


def with_children(connection: Connection, key: Key, now: int) -> Key:
    """A key with those that were made with it."""
    return msgspec.structs.replace(key, children=keys.children(connection, key.id, now))


def with_flags(connection: Connection, found: Sequence[Key]) -> list[Key]:
    """Flag the keys whose maker could not make them today."""
    flagged = set(_out_of_rights(connection, found, 0))
    return [
        msgspec.structs.replace(key, flags=(MAKER_LOST_RIGHTS,)) if key.id in flagged else key
        for key in found
    ]


def _out_of_rights(connection: Connection, found: Sequence[Key | Outline], _now: int) -> list[str]:
    """Those of some keys whose maker could not make them today. Keys that are alike are looked at once.

    One whose row is damaged is passed over: whoever reads it is told.
    """
    alike: dict[tuple[Any, ...], list[str]] = {}
    for key in found:
        if key.created_by.startswith("person:") and key.scopes is not None:
            same = key.created_by, key.account, key.keyspace, key.access, key.scopes, key.binding
            alike.setdefault(same, []).append(key.id)
    if not alike:
        return []
    known = people.several(connection, {maker.removeprefix("person:") for maker, *_ in alike})
    spaces = {one.keyspace.name: one.keyspace for one in keyspaces.every(connection)}
    firsts = {ids[0] for ids in alike.values()}
    lost = {
        key.id
        for key in found
        if key.id in firsts
        and not _could_make(known.get(key.created_by.removeprefix("person:")), key, spaces.get(key.keyspace))
    }
    gone = {key_id for ids in alike.values() if ids[0] in lost for key_id in ids}
    return [key.id for key in found if key.id in gone]


def _could_make(person: Person | None, key: Key | Outline, space: Keyspace | None) -> bool:
    if person is None or person.state != "active":
        return False
    if person.operator:
        return True
    account = key.account if key.binding is None else key.binding.account
    held = next((one for one in person.memberships if one.account == account and one.accepted_at), None)
    if held is None:
        return False
    assert key.scopes is not None  # or it was passed over
    if space is None:  # a management key
        return set(key.scopes) <= roles.RIGHTS[held.role]
    if held.role not in space.roles.manage:
        return False
    try:
        grants.Ceiling(held.access, held.scopes).check(space, key.access, key.scopes)
    except Exceeds:
        return False
    return True


def _used(key: Key, seen: dict[tuple[str, int], Seen]) -> Key:
    uses = {secret.n: seen[key.id, secret.n] for secret in key.secrets if (key.id, secret.n) in seen}
    if not uses:
        return key
    own = tuple(
        msgspec.structs.replace(secret, last_used_at=uses[secret.n].at) if secret.n in uses else secret
        for secret in key.secrets
    )
    last = max(uses.values(), key=lambda use: use.at)
    return msgspec.structs.replace(key, secrets=own, last_used_at=last.at, last_used_ip=last.ip)


def policies(connection: Connection, names: Iterable[str] | None = None) -> dict[str, ExpiryPolicy]:
    """The policies of the keyspaces whose keys end when nobody uses them, of these or of all."""
    if names is None:
        found: Iterable[Applied | None] = keyspaces.every(connection)
    else:
        found = [keyspaces.get(connection, name) for name in sorted(set(names))]
    spaces = [one.keyspace for one in found if one is not None]
    return {space.name: space.expiry for space in spaces if space.expiry.unused is not None}


def _with_end(key: Key, policy: ExpiryPolicy | None, told: int | None, now: int) -> Key:
    if policy is None:
        return key
    return msgspec.structs.replace(key, ends_unused_at=ends_unused_at(key, policy, told, now))


def announced(connection: Connection, found: Sequence[Key]) -> dict[str, int]:
    """When those of some keys end of which it was told, since they were used or changed last, that nobody uses them."""
    if not found:
        return {}
    told = deliveries.announced(connection, ENDING_UNUSED, [key.id for key in found])
    since = {key.id: (key.id, str(idle_since(key))) for key in found}
    return {key_id: told[place] for key_id, place in since.items() if place in told}


def _without_secret(q: str | None) -> str | None:
    """A search text in which a pasted credential is reduced to its id."""
    q = fields.search(q)
    if q is None:
        return None
    spelled = credential.parse_token(q.encode("utf-8", "replace"))
    return q if spelled is None else spelled.id.decode()


def is_secret(q: str | None) -> bool:
    """Whether a search text holds a credential, which nobody should paste anywhere."""
    text = (q or "").strip().encode("utf-8", "replace")
    return credential.parse_token(text) is not None or credential.INSIDE.search(text) is not None


__all__ = ["LONGEST_PAGE", "Listing", "announced", "is_secret", "policies", "walk", "with_children"]
