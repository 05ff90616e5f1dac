"""The records that everything is said in. Frozen, and free of behaviour that needs a clock or a store.

Instants are microseconds since 1970 in UTC. A key is met in two shapes: ``Key`` is what management reads and writes,
``KeyRecord`` is what a verification needs, resolved and small, as the cache holds it.
"""

from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, Literal

import msgspec

from keywright.credential import Secret, Type

Access = Literal["all", "read_only", "restricted"]
AccountState = Literal["pending", "active", "suspended"]
KeyState = Literal["active", "disabled", "invalidated", "expired", "deleted"]
LimitKind = Literal["quota", "rate", "credits"]
Role = Literal["owner", "admin", "developer", "analyst", "auditor"]
PersonState = Literal["invited", "active", "disabled"]
PortalState = Literal["waiting", "open", "ended"]
Network = IPv4Network | IPv6Network

#: Our own keyspace, whose keys open the management API.
MANAGEMENT: Final = "keywright"
#: Methods that change nothing (RFC 9110 9.2.1), of those that an API serves.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: Scopes over a customer's own keys, held only where the keyspace's ``self_service`` grants them.
RESERVED_SCOPES: Final = frozenset({"keys:read", "keys:write"})


class Limit(msgspec.Struct, frozen=True):
    """One bound on use. ``per`` is a calendar unit of a quota, seconds of a rate, nothing for credits."""

    name: str
    kind: LimitKind
    limit: int
    per: Literal["minute", "hour", "day", "month"] | int | None = None


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A permission that the host product names; ``reads`` says that it changes nothing."""

    title: str
    reads: bool = False
    withdrawal: bool = False  # it takes something out, and a letter can leave it out


class Letter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One letter for what a key may do, as clients of Partna's endpoints say it."""

    title: str
    gives: Literal["all", "reads", "withdrawals", "no_withdrawals"]


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scopes that are often given together, under a name. It fills them in, and is kept nowhere."""

    title: str
    scopes: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named set of limits."""

    title: str
    limits: tuple[Limit, ...] = ()


class GateRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a gate asks of requests whose method and path it matches. ``*`` in a path stands for one segment."""

    path: str
    methods: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    cost: int = 1
    resource: str = ""
    reads: bool = False
    authenticate_only: bool = False


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For a proxy that asks before it forwards: an environment and, by method and path, what is needed."""

    environment: str
    rules: tuple[GateRule, ...] = ()


class AccessPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which kinds of access a keyspace offers, and which a key gets that names none (none: it must)."""

    classes: tuple[Access, ...] = ("all", "read_only", "restricted")
    default: Access | None = None


class ExpiryPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long keys live that do not say, at most, and while nobody uses them; seconds, ``None`` for ever."""

    default: int | None = None
    longest: int | None = None
    unused: int | None = None
    unused_act: Literal["disable", "invalidate"] = "disable"


class ImportPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What credentials of an earlier system look like, and how that system kept them."""

    digest: Literal["sha256", "sha512"] = "sha256"
    prefixes: tuple[str, ...] = ()  # none: they may begin with anything
    shortest: int = 20  # characters


class RolePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which roles of an account may see a keyspace's keys, and which may manage them."""

    see: tuple[Role, ...] = ("owner", "admin", "developer", "analyst", "auditor")
    manage: tuple[Role, ...] = ("owner", "admin", "developer")


class PortalLook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the portal looks to visitors who see a keyspace: whose it is, its colour, and the words that lead back."""

    title: str = ""
    accent: str = ""  # #rrggbb
    back: str = ""


class Fields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which fields the creation form asks for, and which must be filled."""

    ask: tuple[str, ...] = ("name", "description", "access")
    required: tuple[str, ...] = ("name",)


class Threshold(msgspec.Struct, frozen=True):
    """From where on a rule of misuse holds: so many times within so many seconds, told again after a quiet time at most.

    ``factor`` is how many times the most before, ``after`` how long a rest or an acquaintance, where a rule asks for it.
    """

    times: int
    within: int
    quiet: int
    factor: int | None = None
    after: int | None = None
    off: bool = False


class Keyspace(msgspec.Struct, frozen=True):
    """The keys of one protected API, and all that makes them what they are."""

    name: str
    title: str
    prefix: str
    format: Literal["standard", "dotted"]
    schemes: tuple[str, ...]
    environments: dict[str, str]  # name -> the code that stands in the key
    header: str = ""
    scopes: dict[str, Scope] = {}
    letters: dict[str, Letter] = {}
    presets: dict[str, Preset] = {}
    access: AccessPolicy = AccessPolicy()
    expiry: ExpiryPolicy = ExpiryPolicy()
    roles: RolePolicy = RolePolicy()
    fields: Fields = Fields()
    limits: tuple[Limit, ...] = ()
    plans: dict[str, Plan] = {}
    gates: dict[str, Gate] = {}
    self_service: Literal["off", "read", "full"] = "off"
    error_shape: Literal["problem", "message"] = "problem"
    rate_headers: bool = False
    url: str = ""
    labels: dict[str, str] = {}
    navigation: tuple[str, ...] = ()
    deep_link: str = ""
    portal: PortalLook = PortalLook()
    misuse: dict[str, Threshold] = {}
    leaks: Literal["notify", "disable", "invalidate"] = "notify"
    imported: ImportPolicy | None = None


class SecretRecord(msgspec.Struct, frozen=True, gc=False):
    """One secret of a key, as a verification needs it: whose pepper made its MAC, and when it ends.

    Most keys have one that is like everybody's, and then it is one object in memory for all of them.
    """

    n: int
    pepper: int
    ends_at: int | None = None
    starts_rotation: bool = False  # its next use is written down first, and ends the secrets before it


class Binding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a management key is confined to; ``None`` is not confined."""

    account: str | None = None
    keyspace: str | None = None
    environment: str | None = None


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What many keys have in common, and ``policy`` goes by: one object in memory for all of them."""

    state: Literal["active", "disabled", "invalidated", "deleted"]
    keyspace: str
    environment: str
    account_state: AccountState
    access: Access
    scopes: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()


class KeyRecord(msgspec.Struct, frozen=True, gc=False):
    """What a verification knows of a key: one read of the store, kept by the cache until a change names it.

    What every verification reads stands first, and close together in memory: of ten thousand keys that are used in turn,
    each costs what it takes to fetch them.
    """

    terms: Terms
    expires_at: int | None
    limits: tuple[tuple[str, Limit], ...]  # (subject whose counter it is, limit)
    secrets: tuple[SecretRecord, ...]  # the newest first
    id: str
    account_id: str
    account: str
    name: str
    macs: bytes = b""  # of each secret in turn, 32 bytes
    team: str | None = None
    application: str | None = None
    plan: str | None = None
    metadata: str = "{}"  # JSON text
    binding: Binding | None = None
    disabled_until: int | None = None  # from then on a disabled key works again

    def mac_of(self, secret: SecretRecord) -> bytes:
        """What is stored of one of its secrets, 32 bytes."""
        place = self.secrets.index(secret) * 32
        return self.macs[place : place + 32]

    def __repr__(self) -> str:
        """Whose it is, without its MACs: a host logs verdicts."""
        return f"KeyRecord({self.id!r}, account={self.account!r}, keyspace={self.keyspace!r}, state={self.state!r}, …)"

    @property
    def state(self) -> str:
        """``active``, ``disabled``, ``invalidated`` or ``deleted``, as it is stored: neither expiry nor coming back is."""
        return self.terms.state

    @property
    def keyspace(self) -> str:
        """The name of its keyspace."""
        return self.terms.keyspace

    @property
    def environment(self) -> str:
        """The one environment that it is for."""
        return self.terms.environment

    @property
    def account_state(self) -> AccountState:
        """The state of the account whose it is."""
        return self.terms.account_state

    @property
    def access(self) -> Access:
        """How much it may do."""
        return self.terms.access

    @property
    def scopes(self) -> frozenset[str]:
        """What it may do, where its access is ``restricted``."""
        return self.terms.scopes

    @property
    def networks(self) -> tuple[Network, ...]:
        """From where it may be used; none: from anywhere."""
        return self.terms.networks


class Propagation(msgspec.Struct):
    """How far a change has travelled when it is answered, which is when this is filled in. On SQLite always exact.

    On PostgreSQL ``workers`` are registered, ``confirmed`` of them know the change, and from ``complete_by``, an instant,
    on nobody answers from the state before it. Where it is not ``exact``, that is yet to come: a worker that does not
    confirm is cut off, and may be serving what it remembers, marked ``stale``.
    """

    exact: bool = True
    workers: int | None = None
    confirmed: int | None = None
    complete_by: int | None = None


class Account(msgspec.Struct, frozen=True):
    """A customer, whose keys they are."""

    id: str
    username: str
    name: str
    state: AccountState
    limits: tuple[Limit, ...]
    created_at: int
    updated_at: int
    propagation: Propagation | None = None  # in the answer to a change


class Membership(msgspec.Struct, frozen=True):
    """A person's place in an account. ``access`` and ``scopes`` bound what keys they can give."""

    account_id: str
    account: str
    role: Role
    access: Access
    scopes: tuple[str, ...]
    since: int
    accepted_at: int | None  # None: invited, and has not come yet
    by_groups: bool = False  # the provider's groups gave it, and may take it away


class Identity(msgspec.Struct, frozen=True):
    """By which identity provider somebody comes, since when, and when last. What it calls them is nobody else's business."""

    issuer: str
    since: int
    seen_at: int


class GroupRole(msgspec.Struct, frozen=True):
    """What a group of the identity provider gives: a role in an account, or, where no account is named, the installation."""

    group: str
    account: str | None = None
    role: Role | None = None

    def __str__(self) -> str:
        return f"{self.group}={'operator' if self.account is None else f'{self.account}:{self.role}'}"


class Person(msgspec.Struct, frozen=True):
    """A human who signs in."""

    id: str
    email: str
    name: str
    state: PersonState
    operator: bool
    created_at: int
    updated_at: int
    memberships: tuple[Membership, ...] = ()
    factor_since: int | None = None  # since when signing in takes a second factor
    has_password: bool = False
    identities: tuple[Identity, ...] = ()
    operator_by_groups: bool = False  # the provider's groups made them one, and may take it away


class PortalSession(msgspec.Struct, frozen=True, kw_only=True):
    """A visit of somebody whom the host vouches for: by a link that it asked for, in one account, for some hours."""

    id: str
    account_id: str
    account: str
    keyspace: str | None  # the only one they see; None: whichever their role may
    environment: str | None
    subject: str  # what the host calls them
    name: str
    role: Role
    access: Access
    scopes: tuple[str, ...]
    return_url: str  # where they go from here; nothing where the host named none
    preview: bool  # somebody of the host looks on, and changes nothing
    created_at: int
    created_by: str
    link_ends_at: int
    began_at: int | None  # when the link was followed
    ends_at: int
    ended_at: int | None  # when somebody ended it
    seen_at: int | None = None
    state: PortalState = "waiting"


class PortalLink(msgspec.Struct, frozen=True):
    """A visit that was just allowed, and the address that begins it, which is told this once and works once.

    Of a call that was repeated under its ``Idempotency-Key`` there is no address: whoever lost it asks for another.
    """

    session: PortalSession
    url: str | None

    def __repr__(self) -> str:
        return f"PortalLink(session={self.session.id!r})"


class Session(msgspec.Struct, frozen=True):
    """A person signed in. ``id`` names it; what opens it is known to the browser alone.

    Of a visitor of the portal ``visit`` says what the host has let them do, and ``rights`` is what is left of it now.
    """

    id: str
    person: Person
    began_at: int
    #: when the password was given last, here or at the provider; 0 where the provider did not say, and of a visitor, who has none
    proven_at: int
    ends_at: int
    source: str
    seen_at: int
    issuer: str | None = None  # the provider that began it
    factor_at: int | None = None  # when that provider saw a second factor, where its word on it is taken
    visit: PortalSession | None = None
    rights: frozenset[str] = frozenset()


class StoredSecret(msgspec.Struct, frozen=True):
    """One secret of a key as management sees it: never its MAC."""

    n: int
    hint: dict[str, str]
    created_at: int
    ends_at: int | None
    starts_rotation: bool
    grace: int | None
    last_used_at: int | None = None


class Key(msgspec.Struct, frozen=True):
    """The record of a credential, as management reads it. ``state`` is as of the reading."""

    id: str
    keyspace: str
    account: str
    environment: str
    type: Type
    name: str
    description: str
    team: str | None
    application: str | None
    access: Access
    scopes: tuple[str, ...]
    limits: tuple[Limit, ...]
    plan: str | None
    expires_at: int | None
    allowed_ips: tuple[str, ...]
    metadata: dict[str, Any]
    state: KeyState
    state_reason: str | None
    parent: str | None
    binding: Binding | None
    created_at: int
    created_by: str
    updated_at: int
    ended_at: int | None
    secrets: tuple[StoredSecret, ...] = ()
    last_used_at: int | None = None
    disabled_until: int | None = None  # of a disabled one: when it comes back by itself
    last_used_ip: str | None = None  # None where nobody said from where
    children: tuple[str, ...] | None = None  # the live keys that it made; None where nobody looked
    flags: tuple[str, ...] = ()  # what somebody should look at; ``maker_lost_rights``
    touched_at: int = 0  # when it was made or changed last, got its newest secret, or came back by itself
    ends_unused_at: int | None = (
        None  # when it ends if nobody uses it; None where nobody looked, or it does not
    )


class Credential(msgspec.Struct, frozen=True):
    """What is shown once: the id, and the secret in each spelling that the keyspace's schemes use."""

    id: str
    secret: Secret | None
    token: Secret


class EndpointSecret(msgspec.Struct, frozen=True):
    """One signing secret of an endpoint: what it derives from, and when it ends."""

    n: int
    root: int  # the entry of the installation's secret
    salt: bytes
    created_at: int
    ends_at: int | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """Where webhooks go: an address, what it is told of, and what it is bound to."""

    id: str
    url: str
    description: str
    events: tuple[str, ...]  # none: all of them
    binding: Binding
    state: Literal["pending", "active", "disabled"]
    state_reason: str | None
    challenge: str | None
    created_at: int
    created_by: str
    updated_at: int
    secrets: tuple[EndpointSecret, ...] = ()


class IssuedEndpoint(msgspec.Struct, frozen=True):
    """An endpoint and the signing secret that was made with it, which is shown once."""

    endpoint: Endpoint
    secret: Secret


class Alert(msgspec.Struct, frozen=True):
    """A sign of misuse: which rule holds of what, since when, how often, and what shows it."""

    seq: int
    id: str
    rule: str
    about: str  # the key's id, or the network that it came from
    severity: Literal["low", "medium", "high"]
    act: Literal["disable", "rotate", "look"]
    state: Literal["open", "acknowledged", "resolved"]
    account: str | None
    keyspace: str
    environment: str
    key_id: str
    first_at: int
    last_at: int
    raised_at: int
    count: int
    evidence: dict[str, Any]
    acted_at: int | None = None
    acted_by: str | None = None


class Issued(msgspec.Struct, frozen=True):
    """A key and the credential that was made with it."""

    key: Key
    credential: Credential
    propagation: Propagation = msgspec.field(default_factory=Propagation)


class Changed(msgspec.Struct, frozen=True):
    """A key after a change, and how far the change has travelled."""

    key: Key
    propagation: Propagation = msgspec.field(default_factory=Propagation)


class Several(msgspec.Struct, frozen=True):
    """What a change of several keys came to: the ids of those that were changed, and of those that were passed over."""

    done: tuple[str, ...]
    passed_over: tuple[str, ...]
    propagation: Propagation = msgspec.field(default_factory=Propagation)


class ImportedItem(msgspec.Struct, frozen=True):
    """What became of one key of an import: it was made, was there before, or was refused, and why."""

    status: Literal["made", "exists", "refused"]
    id: str | None = None
    code: str | None = None
    path: str | None = None
    detail: str | None = None


class Imported(msgspec.Struct, frozen=True):
    """What an import came to, item by item in its order."""

    items: tuple[ImportedItem, ...]
    propagation: Propagation = msgspec.field(default_factory=Propagation)


class Page(msgspec.Struct, frozen=True):
    """Some of a list, and the cursor of what follows; ``None`` at its end."""

    items: tuple[Any, ...]
    next_cursor: str | None = None


class Ask(msgspec.Struct, frozen=True, gc=False):
    """What a verification is asked. Scopes are all needed; ``reads`` is a gate's word that its rule changes nothing."""

    keyspace: str
    environment: str | None = None
    scopes: tuple[str, ...] = ()
    method: str | None = None
    resource: str | None = None
    ip: str | None = None
    cost: int = 1
    authenticate_only: bool = False
    reads: bool = False
    metered: bool = True
    account: str | None = None  # only this account's keys exist for whoever asks
    recorded: bool = True  # a refusal goes to the refusal log


class LimitState(msgspec.Struct, frozen=True, gc=False):
    """How one limit stands after a verification."""

    name: str
    kind: LimitKind
    limit: int
    per: str | int | None
    remaining: int
    reset_seconds: int | None  # None: never by itself


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The answer of a verification. A refusal is a value like any other.

    ``reason`` says what exactly was wrong: it is for the authorised caller, the refusal log and ``explain``, never for
    the client. ``key`` is there only where its secret was proven and the asker may know it; ``named`` is a key of which
    no more is known than that its id was presented, for the refusal log alone.
    """

    code: str
    reason: str
    keyspace: str
    at: int
    request_id: str = ""
    key: KeyRecord | None = None
    scheme: str | None = None
    limits: tuple[LimitState, ...] = ()
    retry_after: int | None = None  # seconds
    stale: bool = False
    asked: tuple[str, ...] = ()
    secret: int | None = None  # the number of the secret that was proven
    named: KeyRecord | None = None
    fingerprint: str = ""  # keyed: tells credentials that were not proven apart

    @property
    def valid(self) -> bool:
        """Whether the request may proceed."""
        return self.code == "ok"

    def __bool__(self) -> bool:
        return self.code == "ok"


class Actor(msgspec.Struct, frozen=True):
    """Who does something, for the audit trail and for what they may grant."""

    kind: Literal["command", "library", "management_key", "key", "person", "visitor", "system"]
    id: str
    source: str = ""  # an address, or nothing
    request_id: str = ""


def is_back(stored: str, disabled_until: int | None, now: int) -> bool:
    """Whether a key was disabled for a time that is over."""
    return stored == "disabled" and disabled_until is not None and now >= disabled_until


def key_state(stored: str, expires_at: int | None, now: int, disabled_until: int | None) -> KeyState:
    """The state of a key as it is seen at ``now``: expiry is not stored, nor is coming back; both happen."""
    if is_back(stored, disabled_until, now):
        stored = "active"
    if stored == "active" and expires_at is not None and now >= expires_at:
        return "expired"
    return stored  # type: ignore[return-value]  # the store holds the four others
