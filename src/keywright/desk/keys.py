"""Keys: create, import, edit, rotate (finish, cancel), invalidate, disable, enable, delete, purge."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_network
from typing import Any, Final

import msgspec
from sqlalchemy.exc import IntegrityError

from keywright import credential, limits
from keywright.desk import LIBRARY, Change, fields, grants, imports
from keywright.desk.grants import EVERYTHING, Reach
from keywright.desk.imports import Coming
from keywright.desk.listing import LONGEST_PAGE, Listing, with_children, with_flags
from keywright.desk.once import Once
from keywright.errors import CallerError, Conflict, Exceeds, Invalid, NotFound, Unavailable
from keywright.hygiene import idle_since
from keywright.keyring import Keyring
from keywright.model import (
    MANAGEMENT,
    Account,
    Actor,
    Binding,
    Changed,
    Credential,
    Imported,
    ImportedItem,
    Issued,
    Key,
    KeyRecord,
    Keyspace,
    Propagation,
    Several,
    StoredSecret,
)
from keywright.store import accounts, audit, keys, keyspaces
from keywright.store.db import Database
from keywright.times import DAY, SECOND, rfc3339

LONGEST_GRACE: Final = 30 * DAY  # seconds
LONGEST_PAUSE: Final = 365 * DAY  # seconds
#: What may still be edited of a key that was invalidated: what it is called, not what it could do.
_NAMES: Final = frozenset({"name", "description", "team", "application", "metadata"})

_AT_THE_SAME_TIME: Final = "somebody imports the same at this moment; nothing was made: do it again"


class _Unset:
    """Stands for a field that an edit does not mention, which is not the same as one that it empties."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final[Any] = _Unset()


class Keys(Listing):
    """The keys of an installation. ``keyspace`` and ``environment`` are taken where a creation names none."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        clock: Callable[[], int],
        *,
        keyspace: str | None = None,
        environment: str | None = None,
    ) -> None:
        super().__init__(database, keyring, clock)
        self._default_keyspace = keyspace
        self._default_environment = environment

    def create(
        self,
        *,
        name: str,
        account: str | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        description: str | None = None,
        access: str | None = None,
        scopes: Sequence[str] | None = None,
        team: str | None = None,
        application: str | None = None,
        limits: Sequence[Any] | None = None,
        plan: str | None = None,
        expires_at: int | None = UNSET,
        allowed_ips: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        by: KeyRecord | None = None,
        replaces: str | None = None,
        once: Once | None = None,
    ) -> Issued:
        """Make a key and its first secret, which is shown in the answer and never again.

        ``expires_at`` is an instant in microseconds, ``None`` for never, left out for the keyspace's default. ``by`` is
        the customer's key that makes this one: it can give at most what it holds, and becomes the parent. What it is
        held to and the new key does not name, limits, plan, networks and expiry, the new key inherits.

        ``replaces`` is the id of a key of the same account, keyspace and environment that is deleted in the same
        transaction: both happen or neither. With ``once`` the key is made once only, and ``Replay`` is raised where it
        was.

        Raises ``NotFound``, ``Invalid``, ``Conflict`` or ``Exceeds``; then nothing was made.
        """
        with self.change(once) as change:
            space = self._keyspace(change, reach.needs("keyspace", keyspace or self._default_keyspace))
            if environment is None and space.name == self._default_keyspace:
                environment = self._default_environment
            owner = self._owner(change, reach.needs("account", account))
            given = {
                "environment": reach.needs("environment", environment),
                "name": name,
                "description": description,
                "access": access,
                "scopes": scopes,
                "team": team,
                "application": application,
                "limits": limits,
                "plan": plan,
                "expires_at": expires_at,
                "allowed_ips": allowed_ips,
                "metadata": metadata,
            }
            values = _values(given, space, owner, change.now, actor)
            reach.give(space, values["access"], values["scopes"])
            if by is not None:
                self._still(change, by)
                values["plan"] = values["plan"] or by.plan
                values["limits"] = grants.inherited(by) if limits is None else values["limits"]
                if allowed_ips is None:
                    values["allowed_ips"] = tuple(str(network) for network in by.networks)
                if expires_at is UNSET:
                    values["expires_at"] = grants.sooner(values["expires_at"], by.expires_at)
                grants.check(by, space, values | {"account": owner.username})
                values["parent"] = by.id
            if replaces is not None:
                there = Reach(account=owner.username, keyspace=space.name, environment=values["environment"])
                self._remove(change, self._in_reach(change, replaces, there), actor)
            issued = self._issue(change, space, owner, values, actor)
            change.made(issued.key.id)
            return issued

    def import_(
        self,
        items: Sequence[object],
        *,
        account: str | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        dry_run: bool = False,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
    ) -> Imported:
        """Make keys of credentials that an earlier system made, 200 at most: they go on working, with their limits and all.

        Each item has its credential, as ``token`` or as ``hash`` (``desk.imports``), and what a creation takes;
        ``account`` and ``environment`` are for those that name none. An item that cannot be is refused by itself, one
        that was imported before is told so: an import that was cut off is simply begun again. With ``dry_run`` nothing
        is made. Raises ``NotFound`` or ``Invalid`` where the whole cannot be, and ``Conflict`` where somebody else
        imports the same at this moment.
        """
        if len(items) > LONGEST_PAGE:
            raise Invalid(f"are more than {LONGEST_PAGE}", path="items")
        found: list[ImportedItem] = []
        travelled = Propagation()
        with suppress(_DryRun), self.change() as change:
            travelled = change.travelled
            space = self._keyspace(change, reach.needs("keyspace", keyspace or self._default_keyspace))
            if environment is None and space.name == self._default_keyspace:
                environment = self._default_environment
            place = {"account": account, "environment": environment}
            for item in items:
                found.append(self._import(change, space, place, item, actor, reach))
            if dry_run:
                found = [
                    msgspec.structs.replace(one, id=None) if one.status == "made" else one for one in found
                ]
                raise _DryRun
        return Imported(tuple(found), travelled)

    def _import(
        self,
        change: Change,
        space: Keyspace,
        place: dict[str, Any],
        item: object,
        actor: Actor,
        reach: Reach,
    ) -> ImportedItem:
        try:
            given = place | imports.said(item)
            owner = self._owner(change, reach.needs("account", given["account"]))
            given["environment"] = reach.needs("environment", given["environment"])
            values = _values(given, space, owner, change.now, actor)
            reach.give(space, values["access"], values["scopes"])
            coming = imports.read(given, space, values["environment"])
            there = self._known(change, coming)
            if there is not None:
                own = Reach(account=owner.username, keyspace=space.name, environment=values["environment"])
                if there.state == "deleted" or not own.covers(there):
                    raise Conflict("this credential, or its id, belongs to another key already")
                return ImportedItem("exists", there.id)
        except CallerError as refused:
            return ImportedItem("refused", None, refused.code, getattr(refused, "path", None), str(refused))
        return ImportedItem("made", self._issue(change, space, owner, values, actor, coming).key.id)

    def _known(self, change: Change, coming: Coming) -> Key | None:
        """The key that a credential names or leads to, whichever pepper it was stored with."""
        key_id = coming.key_id
        for pepper in self.keyring.peppers.values() if key_id is None else ():
            tag = coming.tag(credential.Pepper(pepper))
            key_id = key_id or (None if tag is None else keys.led_to(change.tx, tag))
        return None if key_id is None else keys.get(change.tx, key_id, change.now)

    def create_management(
        self,
        *,
        name: str,
        scopes: Sequence[str],
        binding: Binding | None = None,
        expires_at: int | None = None,
        parent: str | None = None,
        actor: Actor = LIBRARY,
    ) -> Issued:
        """Make a management key: one that opens the management API as far as its scopes and its binding go.

        Raises ``NotFound`` or ``Invalid``.
        """
        bound = binding or Binding()
        with self.change() as change:
            space = self._keyspace(change, MANAGEMENT, management=True)
            if bound.account is not None:
                self._owner(change, bound.account)
            if bound.environment is not None and bound.keyspace is None:
                raise Invalid("needs a keyspace beside it", path="environment")
            if bound.keyspace is not None:
                inside = self._keyspace(change, bound.keyspace)
                if bound.environment is not None:
                    _environment(bound.environment, inside)
            owner = accounts.get(change.tx, MANAGEMENT)
            assert owner is not None
            values: dict[str, Any] = {
                "keyspace": MANAGEMENT,
                "account_id": owner.id,
                "environment": "production",
                "type": "m",
                "name": fields.name(name),
                "description": "",
                "team": None,
                "application": None,
                "limits": (),
                "plan": None,
                "expires_at": fields.expires_at(expires_at, space, change.now, given_at_all=True),
                "allowed_ips": (),
                "metadata": {},
                "parent": parent,
                "binding": bound,
                "created_by": f"{actor.kind}:{actor.id}",
            }
            values["access"], values["scopes"] = fields.access("restricted", scopes, space)
            return self._issue(change, space, owner, values, actor)

    def edit(
        self,
        key_id: str,
        *,
        name: str = UNSET,
        description: str | None = UNSET,
        team: str | None = UNSET,
        application: str | None = UNSET,
        access: str = UNSET,
        scopes: Sequence[str] | None = UNSET,
        limits: Sequence[Any] | None = UNSET,
        plan: str | None = UNSET,
        expires_at: int | None = UNSET,
        allowed_ips: Sequence[str] | None = UNSET,
        metadata: dict[str, Any] | None = UNSET,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        by: KeyRecord | None = None,
    ) -> Changed:
        """Change what is mentioned, and nothing else: never the secret, never the environment.

        Raises ``NotFound``, ``Invalid``, ``Conflict`` (an invalidated key keeps what it could do) or ``Exceeds``.
        """
        given = {
            field: value
            for field, value in {
                "name": name,
                "description": description,
                "team": team,
                "application": application,
                "access": access,
                "scopes": scopes,
                "limits": limits,
                "plan": plan,
                "expires_at": expires_at,
                "allowed_ips": allowed_ips,
                "metadata": metadata,
            }.items()
            if value is not UNSET
        }
        with self.change() as change:
            before = self._in_reach(change, key_id, reach)
            if before.state == "invalidated" and not set(given) <= _NAMES:
                raise Conflict("an invalidated key keeps what it could do; only its names can be edited")
            space = self._keyspace(change, before.keyspace, management=reach.management)
            values = _edited(given, before, space, change.now)
            held = _held(before) | values
            reach.give(space, held["access"], held["scopes"])
            if by is not None:
                grants.check(by, space, held)
            values = {field: value for field, value in values.items() if value != getattr(before, field)}
            changed = self._edit(change, before, values, actor) if values else self._after(change, before)
        return self._with_use(changed)

    def rotate(
        self,
        key_id: str,
        *,
        grace_seconds: int = 0,
        start: str = "now",
        force: bool = False,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        by: KeyRecord | None = None,
    ) -> Issued:
        """Give a key a second secret, shown in the answer and never again.

        The earlier one ends after ``grace_seconds``, counted from ``now`` or from the ``first_use`` of the new one (at the
        latest 30 days after the rotation, and never after the key). A rotation that is under way is a ``Conflict`` unless
        ``force``, which ends every earlier secret at once: a leak. ``by`` is the customer's key that asks: it learns
        the new secret, so it must hold all that the key holds.

        Raises ``NotFound``, ``Invalid``, ``Conflict`` or ``Exceeds``.
        """
        if isinstance(grace_seconds, bool) or not 0 <= grace_seconds <= LONGEST_GRACE:
            raise Invalid(f"is from 0 to {LONGEST_GRACE}", path="grace_seconds")
        if start not in ("now", "first_use"):
            raise Invalid("is now or first_use", path="start")
        with self.change() as change:
            before = self._in_reach(change, key_id, reach)
            _usable(before, "rotated")
            if len(_live(before, change.now)) > 1 and not force:
                raise Conflict("a rotation is under way: finish or cancel it, or force a new one")
            space = self._keyspace(change, before.keyspace, management=reach.management)
            reach.give(space, before.access, before.scopes)
            if by is not None and by.id != before.id:
                grants.check(by, space, _held(before))
            n = before.secrets[0].n + 1
            grace = grace_seconds * SECOND
            waits = start == "first_use" and not force
            ends = change.now + (LONGEST_GRACE * SECOND if waits else 0 if force else grace)
            keys.end_secrets(change.tx, key_id, n, min(ends, before.expires_at or ends))
            shown = self._new_secret(change, space, key_id, n, grace=grace if waits else None)
            changed = self._changed(
                change,
                before,
                actor,
                "key.rotate",
                secret=n,
                start=start,
                grace_seconds=grace_seconds,
                force=force,
            )
        return Issued(self._with_use(changed).key, shown, changed.propagation)

    def finish(self, key_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Changed:
        """End the old secret of a rotation now. Raises ``NotFound``, or ``Conflict`` where none is under way."""
        with self.change() as change:
            before = self._in_reach(change, key_id, reach)
            new = _rotating(before, change.now)[0]
            keys.end_secrets(change.tx, key_id, new.n, change.now)
            keys.set_secret(change.tx, key_id, new.n, starts_rotation=0)
            changed = self._changed(change, before, actor, "key.rotate_finish", secret=new.n)
        return self._with_use(changed)

    def cancel(self, key_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Changed:
        """End the new secret of a rotation now; the old one goes on. Raises ``NotFound`` or ``Conflict``."""
        with self.change() as change:
            before = self._in_reach(change, key_id, reach)
            new, old = _rotating(before, change.now)
            keys.set_secret(change.tx, key_id, new.n, ends_at=change.now, starts_rotation=0)
            keys.set_secret(change.tx, key_id, old.n, ends_at=None)
            changed = self._changed(change, before, actor, "key.rotate_cancel", secret=new.n)
        return self._with_use(changed)

    def invalidate(
        self, key_id: str, *, reason: str | None = None, actor: Actor = LIBRARY, reach: Reach = EVERYTHING
    ) -> Changed:
        """Stop a key for ever; it stays in the list. Doing it again changes nothing. Raises ``NotFound``.

        The answer names the live keys that it made: who stops a parent may want to stop them too.
        """
        why = None if reason is None else fields.name(reason, path="reason")
        with self.change() as change:
            before = self._in_reach(change, key_id, reach)
            self._invalidate(change, before, why, actor)
            changed = self._after(change, before)
        return self._with_use(changed)

    def disable(
        self,
        key_id: str,
        *,
        for_seconds: int | None = None,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
    ) -> Changed:
        """Stop a key until it is enabled, or for so many seconds, after which it works again by itself, at the instant.

        Raises ``NotFound``, ``Invalid``, or ``Conflict``: for a key that was invalidated, or for one that is disabled without
        an end, which a time would enable.
        """
        if for_seconds is not None and (
            isinstance(for_seconds, bool) or not 1 <= for_seconds <= LONGEST_PAUSE
        ):
            raise Invalid(f"is from 1 to {LONGEST_PAUSE}", path="for_seconds")
        with self.change() as change:
            before = self._in_reach(change, key_id, reach)
            until = None if for_seconds is None else change.now + for_seconds * SECOND
            self._switch(change, before, "disabled", actor, reach, until)
            changed = self._after(change, before)
        return self._with_use(changed)

    def enable(self, key_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Changed:
        """Let a disabled key work again. Raises ``NotFound``, or ``Conflict`` for one that was invalidated."""
        with self.change() as change:
            before = self._in_reach(change, key_id, reach)
            self._switch(change, before, "active", actor, reach)
            changed = self._after(change, before)
        return self._with_use(changed)

    def delete(self, key_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Changed:
        """Remove a key for good. A tombstone keeps id, name and MAC, so that a later use can be told from a guess.

        The answer names the live keys that it made. Raises ``NotFound``, for one that is deleted already too.
        """
        with self.change() as change:
            before = self._in_reach(change, key_id, reach)
            self._remove(change, before, actor)
            changed = self._after(change, before)
        return self._with_use(changed)

    def several(
        self, doing: str, key_ids: Sequence[str], *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING
    ) -> Several:
        """Disable, enable, invalidate or delete several, 200 at most, in one transaction.

        One that is not there, not in reach, or cannot be changed so is passed over. Raises ``Invalid``, ``Forbidden``
        or ``Exceeds``; then nothing was changed.
        """
        if len(key_ids) > LONGEST_PAGE:
            raise Invalid(f"names more than {LONGEST_PAGE}", path="keys")
        verbs: dict[str, Callable[[Change, Key], None]] = {
            "disable": lambda change, key: self._switch(change, key, "disabled", actor, reach),
            "enable": lambda change, key: self._switch(change, key, "active", actor, reach),
            "invalidate": lambda change, key: self._invalidate(change, key, None, actor),
            "delete": lambda change, key: self._remove(change, key, actor),
        }
        if doing not in verbs:
            raise Invalid(f"is one of {', '.join(verbs)}", path="act")
        done: tuple[str, ...] = ()
        with self.change() as change:
            for before in keys.several(change.tx, key_ids, change.now):
                with suppress(NotFound, Conflict):
                    verbs[doing](change, self._covered(before, before.id, reach))
                    done += (before.id,)
            changed = frozenset(done)
            others = tuple(key_id for key_id in dict.fromkeys(key_ids) if key_id not in changed)
            return Several(done, others, change.travelled)

    def leaked(
        self, key_id: str, found: Sequence[int], *, since: int, url: str | None, actor: Actor
    ) -> tuple[Key, str, Sequence[int]] | None:
        """Do with a key, some of whose secrets were reported as leaked, what its keyspace says, once for all of them.

        The key, the policy, and the secrets that matter; ``None`` where nothing is at stake: it is gone or invalidated, or
        those secrets have ended. What was done for one of them since the report at ``since`` is not done again.
        """
        with self.change() as change:
            before = keys.get(change.tx, key_id, change.now)
            if before is None or before.state == "deleted":
                return None
            applied = keyspaces.get(change.tx, before.keyspace)
            assert applied is not None
            policy, about = applied.keyspace.leaks, ("key", key_id)
            entries = audit.told_since(change.tx, actor, "key.leaked", about, since)
            told = {n for entry in entries for n in entry["secrets"]}.intersection(found)
            living = {one.n for one in _live(before, change.now)} if before.state != "invalidated" else set()
            new = living.intersection(found) - told
            if new:
                self._leaked(change, before, policy, sorted(new), url, actor)
            return (before, policy, sorted(new | told)) if new | told else None

    def _leaked(
        self, change: Change, before: Key, policy: str, new: Sequence[int], url: str | None, actor: Actor
    ) -> None:
        key_id, about = before.id, ("key", before.id)
        acts = {"disable": ("disabled", "key.disable"), "invalidate": ("invalidated", "key.invalidate")}
        state, action = acts.get(policy, (before.state, ""))
        if state == "invalidated":
            keys.end_secrets(change.tx, key_id, before.secrets[0].n + 1, change.now)
            self._set_state(change, key_id, state, "leaked", ended_at=change.now)
        elif state != before.state or (policy == "disable" and before.disabled_until is not None):
            self._set_state(change, key_id, state, "leaked")
        change.announce("key", key_id)
        said = {"secret": new[-1], "secrets": new, "policy": policy, "url": url}
        change.tell(actor, "key.leaked", about, account=before.account, **said)
        if state != before.state:
            change.tell(actor, action, about, account=before.account, reason="leaked")

    def end_unused(self, change: Change, before: Key, act: str, actor: Actor) -> None:
        """Stop a key that nobody uses, as its keyspace says, in the transaction of whoever has made sure of it."""
        told = {"reason": "unused", "unused_since": rfc3339(idle_since(before))}
        for secret in _live(before, change.now):
            keys.set_secret(change.tx, before.id, secret.n, starts_rotation=0)
        if act == "invalidate":
            keys.end_secrets(change.tx, before.id, before.secrets[0].n + 1, change.now)
            self._set_state(change, before.id, "invalidated", "unused", ended_at=change.now)
        else:
            self._set_state(change, before.id, "disabled", "unused")
        self._tell(change, before, actor, f"key.{act}", **told)

    def purge(self, *, older_than: int = 30 * DAY, actor: Actor = LIBRARY) -> int:
        """Remove the tombstones of keys deleted more than ``older_than`` seconds ago, for good; how many there were."""
        with self.change() as change:
            gone = keys.tombstones(change.tx, change.now - older_than * SECOND)
            if gone:
                keys.purge(change.tx, gone)
                for key_id in gone:
                    change.announce("key", key_id)
                change.tell(actor, "key.purge", ("keys", "deleted"), count=len(gone))
            return len(gone)

    # ------------------------------------------------------------------------------------------------------- inside

    def _issue(
        self,
        change: Change,
        space: Keyspace,
        owner: Account,
        values: dict[str, Any],
        actor: Actor,
        coming: Coming | None = None,
    ) -> Issued:
        """Write a key with a secret that is drawn, or with the credential that is coming from an earlier system."""
        values |= {"state": "active", "created_at": change.now, "updated_at": change.now}
        for _ in range(5):
            values["id"] = (coming and coming.key_id) or _draw_id(space, values)
            values["search"] = fields.search_text(values)
            secret = credential.new_secret()
            mac, hint = self._kept(space, values["id"], secret, coming)
            try:
                with change.tx.begin_nested():
                    keys.add(change.tx, values, mac, self.keyring.current, hint)
            except IntegrityError:
                if coming is not None and coming.key_id is not None:
                    raise Conflict(_AT_THE_SAME_TIME) from None
                continue  # the id is taken, once in a very long while for a dotted one
            break
        else:
            raise Unavailable("no free id was found")
        change.announce("key", values["id"])
        if coming is not None:
            self._lead(change, coming, values["id"])
        told = {
            field: _plain(values[field])
            for field in ("name", "environment", "access", "scopes", "expires_at")
        } | ({} if coming is None else {"imported": True})
        change.tell(
            actor, "key.create", ("key", values["id"]), account=owner.username, keyspace=space.name, **told
        )
        made = keys.get(change.tx, values["id"], change.now)
        assert made is not None
        shown = _shown(space, values["id"], secret)
        return Issued(msgspec.structs.replace(made, children=()), shown, change.travelled)

    def _kept(
        self, space: Keyspace, key_id: str, secret: str, coming: Coming | None
    ) -> tuple[bytes, dict[str, str]]:
        """What is stored of a secret, and by what it is recognised."""
        pepper = self.keyring.peppers[self.keyring.current]
        if coming is not None:
            return coming.mac(credential.Pepper(pepper), key_id), coming.hint
        return credential.mac(pepper, key_id.encode(), secret.encode()), _hint(space, key_id, secret)

    def _lead(self, change: Change, coming: Coming, key_id: str) -> None:
        tag = coming.tag(credential.Pepper(self.keyring.peppers[self.keyring.current]))
        if tag is None:
            return
        try:
            keys.add_tag(change.tx, tag, key_id)
        except IntegrityError:
            raise Conflict(_AT_THE_SAME_TIME) from None
        change.announce("imported", tag.hex())

    def _remove(self, change: Change, before: Key, actor: Actor) -> None:
        self._set_state(
            change, before.id, "deleted", before.state_reason, deleted_at=change.now, search="",
            ended_at=before.ended_at or change.now,
        )  # fmt: skip
        self._tell(change, before, actor, "key.delete", name=before.name)

    def _still(self, change: Change, by: KeyRecord) -> None:
        """Hold a grantor to what it is now: it may have been stopped or narrowed since it was verified."""
        now = keys.get(change.tx, by.id, change.now)
        if now is None or now.state != "active":
            raise Exceeds("the grantor does not work any more")
        held = (by.access, by.scopes, by.expires_at, by.plan, grants.inherited(by), by.networks)
        networks = tuple(ip_network(text) for text in now.allowed_ips)
        if held != (now.access, frozenset(now.scopes), now.expires_at, now.plan, now.limits, networks):
            raise Conflict("the grantor was changed meanwhile; try again")

    def _new_secret(
        self, change: Change, space: Keyspace, key_id: str, n: int, *, grace: int | None
    ) -> Credential:
        secret = credential.new_secret()
        mac = credential.mac(self.keyring.peppers[self.keyring.current], key_id.encode(), secret.encode())
        hint = _hint(space, key_id, secret)
        keys.add_secret(change.tx, key_id, n, mac, self.keyring.current, hint, change.now, grace=grace)
        return _shown(space, key_id, secret)

    def _switch(
        self,
        change: Change,
        before: Key,
        state: str,
        actor: Actor,
        reach: Reach,
        until: int | None = None,
    ) -> None:
        if before.state == "invalidated":
            raise Conflict("an invalidated key cannot be disabled or enabled again")
        if before.state == "disabled" == state and until is not None and before.disabled_until is None:
            raise Conflict("the key is disabled without an end: enable it first")
        same = before.state == state and before.disabled_until == until
        if same or (before.state == "expired" and state == "active"):
            return
        if state == "active":
            space = self._keyspace(change, before.keyspace, management=reach.management)
            reach.give(space, before.access, before.scopes)
        self._set_state(change, before.id, state, None, disabled_until=until)
        told = {} if until is None else {"until": rfc3339(until)}
        self._tell(change, before, actor, "key.enable" if state == "active" else "key.disable", **told)

    def _invalidate(self, change: Change, before: Key, reason: str | None, actor: Actor) -> None:
        if before.state == "invalidated":
            return
        keys.end_secrets(change.tx, before.id, before.secrets[0].n + 1, change.now)
        self._set_state(change, before.id, "invalidated", reason, ended_at=change.now)
        self._tell(change, before, actor, "key.invalidate", reason=reason)

    def _set_state(self, change: Change, key_id: str, state: str, reason: str | None, **more: Any) -> None:
        values = {"state": state, "state_reason": reason, "disabled_until": None, "updated_at": change.now}
        keys.change(change.tx, key_id, **(values | more))

    def _edit(self, change: Change, before: Key, values: dict[str, Any], actor: Actor) -> Changed:
        searched = {
            field: getattr(before, field) for field in ("id", "name", "team", "application", "description")
        }
        search = fields.search_text(searched | values)
        keys.change(change.tx, before.id, **values, search=search, updated_at=change.now)
        told = {field: [_plain(getattr(before, field)), _plain(value)] for field, value in values.items()}
        return self._changed(change, before, actor, "key.edit", changed=told)

    def _changed(self, change: Change, before: Key, actor: Actor, action: str, **detail: Any) -> Changed:
        self._tell(change, before, actor, action, **detail)
        return self._after(change, before)

    def _tell(self, change: Change, before: Key, actor: Actor, action: str, **detail: Any) -> None:
        change.announce("key", before.id)
        change.tell(actor, action, ("key", before.id), account=before.account, **detail)

    def _after(self, change: Change, before: Key) -> Changed:
        after = keys.get(change.tx, before.id, change.now)
        assert after is not None
        flagged = with_flags(change.tx, [msgspec.structs.replace(after, children=before.children)])
        return Changed(flagged[0], change.travelled)

    def _with_use(self, changed: Changed) -> Changed:
        """A change told with the key's last use, which is read after the change: no writer waits for it."""
        return msgspec.structs.replace(changed, key=self._with_last_use([changed.key])[0])

    def _in_reach(self, change: Change, key_id: str, reach: Reach) -> Key:
        found = self._covered(keys.get(change.tx, key_id, change.now), key_id, reach)
        return with_children(change.tx, found, change.now)

    def _keyspace(self, change: Change, name: str | None, *, management: bool = False) -> Keyspace:
        if name is None:
            raise Invalid("is needed", path="keyspace")
        applied = keyspaces.get(change.tx, name)
        if applied is None or (name == MANAGEMENT and not management):
            raise NotFound(f"there is no keyspace {name[:60]!r}")
        return applied.keyspace

    def _owner(self, change: Change, username: str | None) -> Account:
        if username is None:
            raise Invalid("is needed", path="account")
        owner = accounts.get(change.tx, username)
        if owner is None or username == MANAGEMENT:
            raise NotFound(f"there is no account {username[:60]!r}")
        if owner.state != "active":
            raise Conflict(f"the account is {owner.state}; keys are made for active accounts only")
        return owner


class _DryRun(Exception):
    """Nothing of what was done is to be kept."""


def _values(
    given: Mapping[str, Any], space: Keyspace, owner: Account, now: int, actor: Actor
) -> dict[str, Any]:
    """The columns of a new key, but for what is drawn. Raises ``Invalid``."""
    expires_at = given.get("expires_at", UNSET)
    values: dict[str, Any] = {
        "keyspace": space.name,
        "account_id": owner.id,
        "environment": _environment(given["environment"], space),
        "type": "k",
        "name": fields.name(given.get("name")),
        "description": fields.description(given.get("description")),
        "team": fields.label(given.get("team"), path="team"),
        "application": fields.label(given.get("application"), path="application"),
        "limits": _limits(given.get("limits"), space),
        "plan": _plan(given.get("plan"), space),
        "expires_at": fields.expires_at(
            None if expires_at is UNSET else expires_at, space, now, given_at_all=expires_at is not UNSET
        ),
        "allowed_ips": fields.networks(given.get("allowed_ips")),
        "metadata": fields.metadata(given.get("metadata")),
        "parent": None,
        "binding": None,
        "created_by": f"{actor.kind}:{actor.id}",
    }
    values["access"], values["scopes"] = fields.access(given.get("access"), given.get("scopes"), space)
    fields.required(values, space)
    return values


def _held(key: Key) -> dict[str, Any]:
    """What a key holds, as it is compared with a grantor."""
    compared = (
        "keyspace", "account", "environment", "access", "scopes", "expires_at", "allowed_ips", "limits", "plan",
    )  # fmt: skip
    return {field: getattr(key, field) for field in compared}


def _environment(given: str | None, space: Keyspace) -> str:
    names = list(space.environments)
    if given is None and len(names) == 1:
        return names[0]
    if given is None:
        raise Invalid(f"is needed: {', '.join(names)}", path="environment")
    if given not in space.environments:
        raise Invalid(f"{given[:40]!r} is none of {', '.join(names)}", path="environment")
    return given


def _limits(given: Sequence[Any] | None, space: Keyspace) -> Any:
    return space.limits if given is None else limits.read(given)


def _plan(given: str | None, space: Keyspace) -> str | None:
    if given is not None and given not in space.plans:
        raise Invalid(f"{given[:40]!r} is none of {', '.join(space.plans) or 'no plans at all'}", path="plan")
    return given


def _edited(given: dict[str, Any], before: Key, space: Keyspace, now: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field, value in given.items():
        match field:
            case "name":
                values[field] = fields.name(value)
            case "description":
                values[field] = fields.description(value)
            case "team" | "application":
                values[field] = fields.label(value, path=field)
            case "limits":
                values[field] = limits.read(value or ())
            case "plan":
                values[field] = _plan(value, space)
            case "expires_at":
                values[field] = fields.expires_at(value, space, now, given_at_all=True)
            case "allowed_ips":
                values[field] = fields.networks(value)
            case "metadata":
                values[field] = fields.metadata(value)
    if "access" in given or "scopes" in given:
        access = given.get("access") or ("restricted" if given.get("scopes") else before.access)
        kept = before.scopes if before.access == access == "restricted" else None
        values["access"], values["scopes"] = fields.access(access, given.get("scopes", kept), space)
    return values


def _draw_id(space: Keyspace, values: dict[str, Any]) -> str:
    if space.format == "dotted":
        return credential.new_dotted_id()
    return credential.new_id(space.prefix, space.environments[values["environment"]], values["type"])


def _shown(space: Keyspace, key_id: str, secret: str) -> Credential:
    pair = (
        None if space.format == "dotted" else credential.Secret(credential.spell_pair_secret(key_id, secret))
    )
    return Credential(key_id, pair, credential.Secret(credential.spell_token(key_id, secret)))


def _hint(space: Keyspace, key_id: str, secret: str) -> dict[str, str]:
    hint = {"token": credential.spell_token(key_id, secret)[-4:]}
    if space.format != "dotted":
        hint["secret"] = credential.spell_pair_secret(key_id, secret)[-4:]
    return hint


def _usable(key: Key, verb: str) -> None:
    if key.state in ("invalidated", "expired"):
        raise Conflict(f"the key is {key.state} and cannot be {verb}")


def _live(key: Key, now: int) -> list[StoredSecret]:
    return [secret for secret in key.secrets if secret.ends_at is None or secret.ends_at > now]


def _rotating(key: Key, now: int) -> tuple[StoredSecret, StoredSecret]:
    live = _live(key, now)
    if key.state == "invalidated" or len(live) < 2:
        raise Conflict("no rotation is under way")
    return live[0], live[1]


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)
