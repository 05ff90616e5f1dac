"""Accounts: create, get, list, suspend, activate, and the limits that all keys of one share."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from keywright import credential, limits
from keywright.desk import LIBRARY, Change, Desk, cursors, fields
from keywright.desk.grants import EVERYTHING, Reach
from keywright.desk.once import Once
from keywright.errors import Conflict, Exceeds, Invalid, NotFound
from keywright.model import MANAGEMENT, Account, AccountState, Actor, Page
from keywright.store import accounts


class Accounts(Desk):
    """The accounts of an installation."""

    def create(
        self,
        username: str,
        *,
        name: str | None = None,
        pending: bool = False,
        limits_: Sequence[Any] = (),
        actor: Actor = LIBRARY,
        once: Once | None = None,
    ) -> Account:
        """Make an account; active at once unless ``pending``. Raises ``Invalid``, or ``Conflict`` for a taken name.

        With ``once`` it is made once only, and ``Replay`` is raised where it was.
        """
        username = fields.username(username)
        with self.change(once) as change:
            account = Account(
                id=f"acct_{credential.random_base62(15)}",
                username=username,
                name=fields.name(name) if name else username,
                state="pending" if pending else "active",
                limits=limits.read(limits_),
                created_at=change.now,
                updated_at=change.now,
            )
            try:
                accounts.add(change.tx, account)
            except IntegrityError:
                raise Conflict(f"the username {username!r} is taken") from None
            change.made(username)
            change.tell(
                actor, "account.create", ("account", account.id), account=username, state=account.state
            )
            return account

    def get(self, username: str, *, reach: Reach = EVERYTHING) -> Account:
        """Read one. Raises ``NotFound``."""
        with self.database.read() as connection:
            found = accounts.get(connection, username)
        return _covered(found, username, reach)

    def list(  # the verb of every surface
        self,
        *,
        state: str | None = None,
        q: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        reach: Reach = EVERYTHING,
    ) -> Page:
        """Some accounts, by username. Raises ``Invalid``."""
        if state not in (None, "pending", "active", "suspended"):
            raise Invalid("is pending, active or suspended", path="state")
        if not 1 <= limit <= 200:
            raise Invalid("is from 1 to 200", path="limit")
        if reach.account is not None:
            return Page((self.get(reach.account, reach=reach),))
        q = fields.search(q)
        bound, key = ["accounts", state, q], self.keyring.cursor
        after = None if cursor is None else cursors.read(cursor, bound, key)[0]
        with self.database.read() as connection:
            found = accounts.page(connection, state=state, q=q, after=after, limit=limit + 1)
        more = len(found) > limit
        found = found[:limit]
        return Page(tuple(found), cursors.write([found[-1].username], bound, key) if more else None)

    def suspend(self, username: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Account:
        """Stop every key of an account until it is activated. Raises ``NotFound``."""
        return self._set(username, "suspended", "account.suspend", actor, reach)

    def activate(self, username: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Account:
        """Let a pending or suspended account's keys work. Raises ``NotFound``."""
        return self._set(username, "active", "account.activate", actor, reach)

    def limit(
        self, username: str, given: Sequence[Any], *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING
    ) -> Account:
        """Set the limits that all keys of an account share.

        Raises ``NotFound``, ``Invalid``, or ``Exceeds`` for who is bound to the account: what bounds them is not theirs.
        """
        new = limits.read(given)
        with self.change() as change:
            account = _covered(accounts.get(change.tx, username), username, reach)
            if reach.account is not None:
                raise Exceeds("the limits of an account are not set by who is bound to it")
            accounts.change(change.tx, account.id, limits=new, updated_at=change.now)
            spelled = [limits.spell(limit) for limit in new]
            return self._changed(change, account, actor, "account.limit", limits=spelled)

    def _set(self, username: str, state: AccountState, action: str, actor: Actor, reach: Reach) -> Account:
        with self.change() as change:
            account = _covered(accounts.get(change.tx, username), username, reach)
            if account.state == state:
                return msgspec.structs.replace(account, propagation=change.travelled)
            accounts.change(change.tx, account.id, state=state, updated_at=change.now)
            return self._changed(change, account, actor, action, was=account.state)

    def _changed(self, change: Change, before: Account, actor: Actor, action: str, **detail: Any) -> Account:
        change.announce("account", before.id)
        change.tell(actor, action, ("account", before.id), account=before.username, **detail)
        after = accounts.get(change.tx, before.username)
        assert after is not None
        return msgspec.structs.replace(after, propagation=change.travelled)


def account_name(connection: Connection, username: str | None, *, own: bool = False) -> str | None:
    """The username that a list is narrowed to; ours only where it has ``own``. Raises ``NotFound``."""
    if not (own and username == MANAGEMENT):
        account_id(connection, username)
    return username


def account_id(connection: Connection, username: str | None) -> str | None:
    """The id of the account of a username. Raises ``NotFound``."""
    return None if username is None else _covered(accounts.get(connection, username), username, EVERYTHING).id


def _covered(found: Account | None, username: str, reach: Reach) -> Account:
    if found is None or username == MANAGEMENT or reach.account not in (None, username):
        raise NotFound(f"there is no account {username[:60]!r}")
    return found
