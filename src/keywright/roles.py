"""What a member of an account may do, by role. Pure.

A person holds scopes as a management key does, so that every route asks one question of whoever calls. Over keys the
keyspace has a say as well: its profile names the roles that may see its keys, and those that may manage them.

    owner      all of the account, and the only role that makes owners
    admin      the same, and members up to admin
    developer  keys, within what the membership allows; reads alerts; their own acts in the audit trail
    analyst    reads keys and usage
    auditor    reads keys, usage, alerts, members and the audit trail
"""

from collections.abc import Collection
from typing import Final, get_args

from keywright.model import MANAGEMENT, Keyspace, Person, Role, RolePolicy

ROLES: Final[tuple[Role, ...]] = get_args(Role)

_READS: Final = frozenset({"keyspaces:read", "keys:read", "usage:read"})
_ALL: Final = _READS | {
    "verify",
    "keys:write",
    "accounts:read",
    "people:read",
    "people:write",
    "management-keys:read",
    "management-keys:write",
    "audit:read",
    "webhooks:read",
    "webhooks:write",
    "alerts:read",
    "alerts:write",
}
#: The scopes that each role holds in its account.
RIGHTS: Final[dict[Role, frozenset[str]]] = {
    "owner": _ALL,
    "admin": _ALL,
    "developer": _READS | {"keys:write", "audit:read", "alerts:read"},
    "analyst": _READS,
    "auditor": _READS | {"accounts:read", "people:read", "audit:read", "alerts:read"},
}
#: What a visitor of the portal holds at most, whatever the role: keys, and what became of requests with them. Nothing of
#: people, management keys, webhooks or the audit trail.
_VISITS: Final = _READS | {"keys:write", "alerts:read"}
#: The roles that each may give and take; whoever is not named may give none.
_GIVES: Final[dict[Role, frozenset[Role]]] = {
    "owner": frozenset(ROLES),
    "admin": frozenset(ROLES) - {"owner"},
}
#: Roles that see only their own acts in the audit trail.
OWN_ACTS: Final[frozenset[Role]] = frozenset({"developer"})


#: Scopes over which a keyspace has a say. Usage, refusals and alerts name keys: whoever may not see those, does not see these.
OVER_KEYS: Final = frozenset({"keys:read", "keys:write", "usage:read", "alerts:read", "alerts:write"})


def of_visit(role: Role, *, preview: bool) -> frozenset[str]:
    """The scopes of a visitor of the portal: those of the role that are about keys and, of a preview, that change nothing."""
    return (RIGHTS[role] & _VISITS) - ({"keys:write"} if preview else set())


def may_give(giver: Role, role: Role) -> bool:
    """Whether a member may make somebody ``role``, or change or remove somebody who is."""
    return role in _GIVES.get(giver, ())


def needs_factor(asked_of: str, person: Person) -> bool:
    """Whether the setting ``second_factor`` asks one of a person: with ``admins`` of operators, owners and admins."""
    places = (held.role for held in person.memberships if held.accepted_at is not None)
    return asked_of == "admins" and (person.operator or any(role in ("owner", "admin") for role in places))


def closed(role: Role, scope: str, keyspaces: Collection[Keyspace]) -> frozenset[str]:
    """The keyspaces in which a role may not do what ``scope`` allows elsewhere."""
    if scope not in OVER_KEYS:
        return frozenset()
    return frozenset(
        keyspace.name
        for keyspace in keyspaces
        if keyspace.name != MANAGEMENT and role not in _named(keyspace.roles, scope)
    )


def _named(policy: RolePolicy, scope: str) -> tuple[Role, ...]:
    return policy.manage if scope.endswith(":write") else policy.see
