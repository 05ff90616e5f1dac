"""A grant never exceeds its grantor. Pure.

Three kinds of grantor. A management key is confined to what it is bound to; what lies outside does not exist for it. A
person is confined to an account, in it to the keyspaces that their role may manage, and to what their membership lets
them give. A customer's key that makes a key can give at most what it holds itself: its account and environment, its
access and scopes, its expiry, its networks.
"""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any, Protocol

import msgspec

from keywright import roles
from keywright.errors import Exceeds, Forbidden, Invalid, NotFound
from keywright.model import MANAGEMENT, Access, Binding, KeyRecord, Keyspace, Limit, Network, Role
from keywright.policy import holds


class Placed(Protocol):
    """Whatever belongs to an account, a keyspace and an environment, as a key does."""

    @property
    def account(self) -> str: ...  # noqa: D102
    @property
    def keyspace(self) -> str: ...  # noqa: D102
    @property
    def environment(self) -> str: ...  # noqa: D102
    @property
    def binding(self) -> Binding | None: ...  # noqa: D102


class Ceiling(msgspec.Struct, frozen=True):
    """What a member can give a key at most, as their membership says."""

    access: Access = "all"
    scopes: tuple[str, ...] = ()

    def check(self, keyspace: Keyspace, access: str, scopes: Sequence[str]) -> None:
        """Compare what would be given with it. Raises ``Exceeds``."""
        if self.access == "all":
            return
        if access == "all" or (access == "read_only" and self.access == "restricted"):
            raise Exceeds(f"a member whose access is {self.access} cannot give {access}")
        for scope in scopes:
            known = keyspace.scopes.get(scope)
            held = scope in self.scopes if self.access == "restricted" else known is not None and known.reads
            if not held:
                raise Exceeds(f"the member who gives it lacks {scope}")


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller can get at; ``None`` is not confined. ``management`` opens our own keyspace.

    ``closed`` are keyspaces that are the caller's account's own, but not for their role; ``ceiling`` is what they can
    give a key at most; ``acts_of`` is whose entries of the audit trail they see, as ``kind:id``.
    """

    account: str | None = None
    keyspace: str | None = None
    environment: str | None = None
    management: bool = False
    closed: frozenset[str] = frozenset()
    ceiling: Ceiling | None = None
    acts_of: str | None = None

    def covers(self, key: Placed) -> bool:
        """Whether a key exists for this caller: by where it belongs or, of a management key, by what it is bound to."""
        if self.management:
            bound = key.binding or Binding()
            return (
                key.keyspace == MANAGEMENT
                and self.account in (None, bound.account)
                and self.keyspace in (None, bound.keyspace)
                and self.environment in (None, bound.environment)
            )
        return (
            self.account in (None, key.account)
            and self.keyspace in (None, key.keyspace)
            and self.environment in (None, key.environment)
            and key.keyspace != MANAGEMENT
        )

    def needs(self, what: str, given: str | None) -> str | None:
        """The account, keyspace or environment to work in: the given one, which must be in reach, or the bound one."""
        bound = getattr(self, what)
        if what == "keyspace" and given in self.closed:
            raise Forbidden(f"your role does not allow this in the keyspace {given}")
        if bound is None or given is None or given == bound:
            return given or bound
        raise NotFound(f"there is no {what} {given[:60]!r}")

    def one_keyspace(self, given: str | None) -> str | None:
        """As ``needs``, for what is not told apart by keyspace: one must be named where not all are open."""
        if given is None and self.keyspace is None and self.closed:
            raise Invalid("is needed: your role does not reach every keyspace", path="keyspace")
        return self.needs("keyspace", given)

    def give(self, keyspace: Keyspace, access: str, scopes: Sequence[str]) -> None:
        """Hold what a key would be given to the caller's ceiling. Raises ``Exceeds``."""
        if self.ceiling is not None:
            self.ceiling.check(keyspace, access, scopes)


class Holder(Protocol):
    """Whoever makes a management key: the scopes they hold, until when, and the key they hold them by."""

    @property
    def id(self) -> str | None: ...  # noqa: D102
    @property
    def scopes(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def expires_at(self) -> int | None: ...  # noqa: D102


class Held(msgspec.Struct, frozen=True):
    """What a person holds, as ``Holder``."""

    scopes: frozenset[str]
    id: None = None
    expires_at: None = None


class Giver(msgspec.Struct, frozen=True):
    """Whoever gives somebody a role: a member by their own role, a management key by its scopes."""

    role: Role | None
    scopes: frozenset[str]

    def check(self, role: Role) -> None:
        """Compare a role with the giver's. Raises ``Exceeds``."""
        if self.role is not None:
            if not roles.may_give(self.role, role):
                raise Exceeds(f"the role {self.role} cannot make, change or remove a member who is {role}")
            return
        lacking = sorted(roles.RIGHTS[role] - self.scopes)
        if lacking:
            raise Exceeds(f"the grantor lacks {lacking[0]}, which the role {role} has")


EVERYTHING = Reach()
MANAGEMENT_KEYS = Reach(management=True)


def reach_of(binding: Binding | None) -> Reach:
    """What a management key with this binding can get at."""
    if binding is None:
        return EVERYTHING
    return Reach(account=binding.account, keyspace=binding.keyspace, environment=binding.environment)


def check(grantor: KeyRecord, keyspace: Keyspace, grant: dict[str, Any]) -> None:
    """Compare what would be given with what the grantor holds. Raises ``Exceeds``."""
    if (grantor.keyspace, grantor.account) != (grant["keyspace"], grant["account"]):
        raise Exceeds("a key makes keys of its own account and keyspace only")
    if grantor.environment != grant["environment"]:
        raise Exceeds("a key makes keys of its own environment only")
    if grant["access"] == "all" and grantor.access != "all":
        raise Exceeds(f"a key whose access is {grantor.access} cannot give all")
    if grant["access"] == "read_only" and grantor.access == "restricted":
        raise Exceeds("a restricted key cannot give read_only: it does not hold every reading scope")
    for scope in grant["scopes"]:
        if not holds(grantor, keyspace, scope):
            raise Exceeds(f"the grantor lacks {scope}")
    if grantor.expires_at is not None and (
        grant["expires_at"] is None or grant["expires_at"] > grantor.expires_at
    ):
        raise Exceeds("the grantor expires sooner")
    _check_limits(grantor, grant)
    if grantor.networks and not _inside(grant["allowed_ips"], grantor.networks):
        raise Exceeds("the grantor may only be used from fewer addresses")


def inherited(grantor: KeyRecord) -> tuple[Limit, ...]:
    """The limits of a grantor's own: what a key gets that is made by it and names none."""
    return tuple(limit for subject, limit in grantor.limits if subject == f"key:{grantor.id}")


def sooner(one: int | None, other: int | None) -> int | None:
    """The earlier of two ends, of which ``None`` is none."""
    return min((end for end in (one, other) if end is not None), default=None)


def _check_limits(grantor: KeyRecord, grant: dict[str, Any]) -> None:
    if grantor.plan is not None and grant["plan"] != grantor.plan:
        raise Exceeds(f"the grantor is on the plan {grantor.plan}")
    given = {limit.name: limit for limit in grant["limits"]}
    for held in inherited(grantor):
        new = given.get(held.name)
        if new is None or (new.kind, new.per) != (held.kind, held.per) or new.limit > held.limit:
            raise Exceeds(f"the grantor has the limit {held.name}, and the grant none that is as tight")


def _inside(given: Sequence[str], networks: tuple[Network, ...]) -> bool:
    return bool(given) and all(_within(ip_network(text), networks) for text in given)


def _within(network: Any, networks: tuple[Network, ...]) -> bool:
    return any(network.version == wide.version and network.subnet_of(wide) for wide in networks)
