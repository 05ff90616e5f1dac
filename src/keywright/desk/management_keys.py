"""Management keys, as one of them may make and manage others: none larger than itself (promise 7)."""

from collections.abc import Callable, Sequence

import msgspec

from keywright.desk import LIBRARY, Desk
from keywright.desk.grants import EVERYTHING, Holder, Reach
from keywright.desk.keys import UNSET, Keys
from keywright.errors import Exceeds
from keywright.keyring import Keyring
from keywright.model import Actor, Binding, Changed, Issued, Key, Page
from keywright.profiles import MANAGEMENT_SCOPES
from keywright.store.db import Database


class ManagementKeys(Desk):
    """The keys that open the management API. ``by`` is the one that acts; without it, whoever runs the installation."""

    def __init__(self, database: Database, keyring: Keyring, clock: Callable[[], int], keys: Keys) -> None:
        super().__init__(database, keyring, clock)
        self._keys = keys

    def create(
        self,
        *,
        name: str,
        scopes: Sequence[str],
        account: str | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        expires_at: int | None = UNSET,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        by: Holder | None = None,
    ) -> Issued:
        """Make one: with scopes that ``by`` holds, bound to what it is bound to or less, and ending no later.

        Raises ``NotFound``, ``Invalid`` or ``Exceeds``; then nothing was made.
        """
        binding = Binding(
            reach.needs("account", account),
            reach.needs("keyspace", keyspace),
            reach.needs("environment", environment),
        )
        if expires_at is UNSET:
            expires_at = None if by is None else by.expires_at
        _check(by, scopes, expires_at)
        if reach.closed and binding.keyspace is None and not {"keys:read", "keys:write"}.isdisjoint(scopes):
            raise Exceeds("name a keyspace: your role does not reach the keys of every one")
        return self._keys.create_management(
            name=name,
            scopes=scopes,
            binding=binding,
            expires_at=expires_at,
            parent=None if by is None else by.id,
            actor=actor,
        )

    def list(  # the verb of every surface
        self, *, q: str | None = None, cursor: str | None = None, limit: int = 50, reach: Reach = EVERYTHING
    ) -> Page:
        """Some of those in reach, newest first. Raises ``Invalid``."""
        return self._keys.list(q=q, cursor=cursor, limit=limit, reach=_within(reach))

    def get(self, key_id: str, *, reach: Reach = EVERYTHING) -> Key:
        """Read one. Raises ``NotFound``."""
        return self._keys.get(key_id, reach=_within(reach))

    def rotate(
        self,
        key_id: str,
        *,
        grace_seconds: int = 0,
        force: bool = False,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        by: Holder | None = None,
    ) -> Issued:
        """Give one a new secret, which whoever asks then holds. Raises ``NotFound``, ``Invalid``, ``Conflict``, ``Exceeds``."""
        self._grant(key_id, reach, by)
        return self._keys.rotate(
            key_id, grace_seconds=grace_seconds, force=force, actor=actor, reach=_within(reach)
        )

    def invalidate(
        self, key_id: str, *, reason: str | None = None, actor: Actor = LIBRARY, reach: Reach = EVERYTHING
    ) -> Changed:
        """Stop one for ever. Raises ``NotFound``."""
        return self._keys.invalidate(key_id, reason=reason, actor=actor, reach=_within(reach))

    def disable(self, key_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Changed:
        """Stop one until it is enabled. Raises ``NotFound`` or ``Conflict``."""
        return self._keys.disable(key_id, actor=actor, reach=_within(reach))

    def enable(
        self,
        key_id: str,
        *,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        by: Holder | None = None,
    ) -> Changed:
        """Let a disabled one work again. Raises ``NotFound``, ``Conflict`` or ``Exceeds``."""
        self._grant(key_id, reach, by)
        return self._keys.enable(key_id, actor=actor, reach=_within(reach))

    def delete(self, key_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Changed:
        """Remove one for good. Raises ``NotFound``."""
        return self._keys.delete(key_id, actor=actor, reach=_within(reach))

    def _grant(self, key_id: str, reach: Reach, by: Holder | None) -> None:
        """What would be handed out by rotating or enabling; scopes, binding and expiry of a management key never change."""
        target = self._keys.get(key_id, reach=_within(reach))
        _check(by, target.scopes, target.expires_at)


def _within(reach: Reach) -> Reach:
    return msgspec.structs.replace(reach, management=True)


def _check(by: Holder | None, scopes: Sequence[str], expires_at: int | None) -> None:
    if by is None:
        return
    for scope in scopes:
        if scope in MANAGEMENT_SCOPES and scope not in by.scopes:
            raise Exceeds(f"the grantor lacks {scope}")
    if by.expires_at is not None and (expires_at is None or expires_at > by.expires_at):
        raise Exceeds("the grantor expires sooner")


__all__ = ["ManagementKeys"]
