"""Keyspaces: apply a definition, get, list. Their source is the TOML that was applied last."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from keywright import profiles
from keywright.desk import LIBRARY, Change, Desk
from keywright.errors import Conflict, NotFound
from keywright.model import MANAGEMENT, Account, Actor, Keyspace, Propagation
from keywright.store import accounts, keyspaces
from keywright.store.keyspaces import Applied


class Outcome(NamedTuple):
    """What became of a definition: ``created``, ``updated`` or ``unchanged``; and how far the change has travelled."""

    keyspace: Keyspace
    outcome: str
    propagation: Propagation


class Keyspaces(Desk):
    """The keyspaces of an installation."""

    def apply(self, source: str, *, actor: Actor = LIBRARY) -> Outcome:
        """Check a definition and make it the keyspace's. From the next verification on it holds, in every process.

        Raises ``ProfileError``, or ``Conflict`` where keys stand in the way: prefix, format and the codes of environments
        are fixed by the first key, and a plan stays while a key is on it.
        """
        keyspace = profiles.load(source)
        with self.change() as change:
            existing = keyspaces.get(change.tx, keyspace.name)
            holder = keyspaces.with_prefix(change.tx, keyspace.prefix)
            if holder not in (None, keyspace.name):
                raise Conflict(f"prefix: {keyspace.prefix!r} is already that of keyspace {holder!r}")
            if existing is not None:
                if (existing.keyspace, existing.source) == (keyspace, source):
                    return Outcome(keyspace, "unchanged", change.travelled)
                _keep(change, existing.keyspace, keyspace)
            _unique_gates(change, keyspace)
            keyspaces.put(change.tx, keyspace, source, change.now, new=existing is None)
            change.announce("keyspace", keyspace.name)
            outcome = "created" if existing is None else "updated"
            change.tell(actor, "keyspace.apply", ("keyspace", keyspace.name), outcome=outcome, source=source)
            return Outcome(keyspace, outcome, change.travelled)

    def get(self, name: str) -> Applied:
        """Read one. Raises ``NotFound``."""
        with self.database.read() as connection:
            applied = keyspaces.get(connection, name)
        if applied is None or name == MANAGEMENT:
            raise NotFound(f"there is no keyspace {name[:60]!r}")
        return applied

    def list(self) -> Sequence[Applied]:  # the verb of every surface
        """All of them, by name."""
        with self.database.read() as connection:
            return keyspaces.every(connection)

    def prepare(self) -> None:
        """Make our own keyspace and account, in a new installation, or bring its definition up to this version."""
        own = profiles.management()
        with self.database.read() as connection:
            existing = keyspaces.get(connection, MANAGEMENT)
        if existing is not None and existing.keyspace == own:
            return
        with self.change() as change:
            existing = keyspaces.get(change.tx, MANAGEMENT)
            keyspaces.put(change.tx, own, "", change.now, new=existing is None)
            if existing is None:
                account = Account(
                    f"acct_{MANAGEMENT}", MANAGEMENT, "Keywright", "active", (), change.now, change.now
                )
                accounts.add(change.tx, account)
            change.announce("keyspace", MANAGEMENT)
            system = Actor("system", "start")
            change.tell(system, "installation.prepare", ("keyspace", MANAGEMENT))


def keyspace_name(connection: Connection, name: str | None, *, own: bool = False) -> str | None:
    """The name of a keyspace that a list is narrowed to; ours only where it has ``own``. Raises ``NotFound``."""
    if name is not None and ((name == MANAGEMENT and not own) or keyspaces.get(connection, name) is None):
        raise NotFound(f"there is no keyspace {name[:60]!r}")
    return name


def _keep(change: Change, old: Keyspace, new: Keyspace) -> None:
    used = keyspaces.environments_in_use(change.tx, old.name)
    if used and (old.prefix, old.format) != (new.prefix, new.format):
        raise Conflict("prefix: prefix and format are fixed by the first key, and there are keys")
    for environment in sorted(used):
        if new.environments.get(environment) != old.environments[environment]:
            raise Conflict(
                f"environments.{environment}: there are keys of it; its code {old.environments[environment]!r} stays"
            )
    for plan in sorted(keyspaces.plans_in_use(change.tx, old.name)):
        if plan not in new.plans:
            raise Conflict(f"plans.{plan}: there are keys on it")


def _unique_gates(change: Change, new: Keyspace) -> None:
    for other in keyspaces.every(change.tx):
        if other.keyspace.name != new.name:
            for gate in sorted(set(other.keyspace.gates) & set(new.gates)):
                raise Conflict(f"gates.{gate}: keyspace {other.keyspace.name!r} has a gate of that name")
