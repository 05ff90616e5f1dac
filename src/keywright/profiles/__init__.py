"""Keyspace definitions: TOML files, read and checked. Six ship with Keywright; a host writes its own in minutes.

A definition that cannot be is refused with the path of the key at fault and the reason, and, where the TOML itself is
broken, with the line.
"""

import re
import tomllib
from importlib import resources
from typing import Any, Final, Literal

import msgspec

from keywright import accents, hygiene, limits, misuse
from keywright.credential import CODE, IMPORTABLE, LONGEST, MANAGEMENT_PREFIX, OTHERS_PREFIXES, PREFIX
from keywright.errors import Invalid, ProfileError
from keywright.model import (
    MANAGEMENT,
    RESERVED_SCOPES,
    Access,
    AccessPolicy,
    ExpiryPolicy,
    Fields,
    Gate,
    GateRule,
    ImportPolicy,
    Keyspace,
    Letter,
    Limit,
    Plan,
    PortalLook,
    Preset,
    Role,
    RolePolicy,
    Scope,
    Threshold,
)
from keywright.profiles.letters import grant_of
from keywright.schemes import SCHEMES
from keywright.times import DAY, SECOND, parse_span, say_span

#: The profiles that ship, in the order in which they are shown.
SHIPPED: Final = ("default", "fullwhere", "partna", "atfinity", "gallabox", "bizmagnets")
DEFAULT_ENVIRONMENTS: Final = {"development": "dev", "staging": "stg", "production": "live"}
#: What a form can ask for.
FIELDS: Final = (
    "name", "description", "access", "scopes", "team", "application", "expires_at", "limits", "plan", "allowed_ips",
    "metadata", "environment",
)  # fmt: skip
#: The words that a profile maps onto the verbs and nouns of this product.
LABELS: Final = (
    "noun", "secret_noun", "start", "submit", "continue", "edit", "rotate", "invalidate", "delete", "disable", "enable",
    "title",
)  # fmt: skip

#: Shorter credentials of an earlier system could be guessed.
SHORTEST_IMPORTED: Final = 16  # characters
#: An expiry further away could not be written with a year of four digits.
_LONGEST_LIFE: Final = 1000 * 365 * DAY  # seconds
_NAME: Final = re.compile(r"\A[a-z][a-z0-9-]{0,39}\Z")
_ENVIRONMENT: Final = re.compile(r"\A[a-z][a-z0-9-]{0,29}\Z")
_SCOPE: Final = re.compile(r"\A[a-z][a-z0-9_.-]{0,39}(:[a-z0-9*][a-z0-9_.-]{0,39})*\Z")
_HEADER: Final = re.compile(r"\A[A-Za-z][A-Za-z0-9-]{0,63}\Z")
#: How msgspec says which field of an object is at fault.
_FIELD: Final = re.compile(r"(?:unknown|required) field `(.+)`")
_SPANS: Final = ("within", "quiet", "after")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LETTER: Final = re.compile(r"\A[A-Z]\Z")
_LETTER_TITLE: Final = re.compile(r"\A[A-Za-z][A-Za-z0-9]{0,39}\Z")
_METHOD: Final = re.compile(r"\A[A-Z]{1,20}\Z")
_NOT_CREDENTIALS: Final = frozenset(
    [
        "authorization",
        "cookie",
        "host",
        "connection",
        "content-length",
        "content-type",
        "transfer-encoding",
        "accept",
        "origin",
        "user-agent",
        "date",
        "expect",
        "te",
        "upgrade",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-original-uri",
        "x-original-url",
        "x-original-method",
        "x-real-ip",
        "proxy-authorization",
        "idempotency-key",
        "x-keywright-key",
        "x-keywright-account",
        "x-keywright-environment",
        "x-keywright-access",
        "x-keywright-scopes",
        "x-forwarded-uri",
        "x-forwarded-method",
        "x-request-id",
        "x-api-secret",
        "x-api-user",
        "apikey",
        "apisecret",
    ]
)


class _Access(msgspec.Struct, forbid_unknown_fields=True):
    classes: tuple[Access, ...] = ("all", "read_only", "restricted")
    default: Access | None = None


class _Expiry(msgspec.Struct, forbid_unknown_fields=True):
    default: str = "never"
    longest: str = "never"
    unused: str = "never"
    unused_act: Literal["disable", "invalidate"] | None = None


class _Roles(msgspec.Struct, forbid_unknown_fields=True):
    see: tuple[Role, ...] = RolePolicy().see
    manage: tuple[Role, ...] = RolePolicy().manage


class _Fields(msgspec.Struct, forbid_unknown_fields=True):
    ask: tuple[str, ...] = ("name", "description", "access")
    required: tuple[str, ...] = ("name",)


class _Plan(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    limits: list[str | dict[str, Any]] = []


class _Gate(msgspec.Struct, forbid_unknown_fields=True):
    environment: str
    rules: list[GateRule] = []


class _Misuse(msgspec.Struct, forbid_unknown_fields=True):
    times: int | None = None
    within: str | None = None
    quiet: str | None = None
    factor: int | None = None
    after: str | None = None
    off: bool = False


class _Definition(msgspec.Struct, forbid_unknown_fields=True):
    """The TOML's own shape, before anything is checked against anything else."""

    name: str
    title: str = ""
    prefix: str = ""
    format: str = "standard"
    schemes: tuple[str, ...] = ("bearer", "basic", "key_secret", "camel_pair")
    header: str = ""
    environments: dict[str, str] = msgspec.field(default_factory=DEFAULT_ENVIRONMENTS.copy)
    scopes: dict[str, Scope] = {}
    letters: dict[str, Letter] = {}
    presets: dict[str, Preset] = {}
    access: _Access = msgspec.field(default_factory=_Access)
    expiry: _Expiry = msgspec.field(default_factory=_Expiry)
    roles: _Roles = msgspec.field(default_factory=_Roles)
    fields: _Fields = msgspec.field(default_factory=_Fields)
    limits: list[str | dict[str, Any]] = []
    plans: dict[str, _Plan] = {}
    gates: dict[str, _Gate] = {}
    self_service: str = "off"
    errors: str = "problem"
    rate_headers: bool = False
    url: str = ""
    labels: dict[str, str] = {}
    navigation: list[str] = []
    deep_link: str = ""
    portal: PortalLook = PortalLook()
    misuse: dict[str, _Misuse] = {}
    leaks: str = "notify"
    imported: ImportPolicy | None = None


#: Tables whose keys the definition names itself. Of those msgspec says only ``scopes[...]``, so that each entry is
#: read once by itself.
_TABLES: Final[dict[str, Any]] = {
    "environments": str,
    "scopes": Scope,
    "letters": Letter,
    "presets": Preset,
    "plans": _Plan,
    "gates": _Gate,
    "labels": str,
    "misuse": _Misuse,
}


def source(profile: str) -> str:
    """The TOML of a shipped profile. Raises ``ProfileError`` for a name that does not ship."""
    if profile not in SHIPPED:
        raise ProfileError(f"there is no profile {profile!r}; these ship: {', '.join(SHIPPED)}")
    return resources.files(__name__).joinpath(f"{profile}.toml").read_text(encoding="utf-8")


def load(text: str) -> Keyspace:
    """Read and check a definition. Raises ``ProfileError``."""
    try:
        raw = tomllib.loads(text)
    except ValueError as broken:  # a TOMLDecodeError, or a number without end
        raise ProfileError(f"the TOML is broken: {broken}") from None
    except RecursionError:
        raise ProfileError("the TOML is nested too deeply") from None
    for table, kind in _TABLES.items():
        entries = raw.get(table)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            _converted(entry, kind, f"{table}.{name}")
    return _checked(_converted(raw, _Definition, ""))


def management() -> Keyspace:
    """Our own keyspace: management keys, of type ``m``, in one environment, by Bearer only."""
    return Keyspace(
        name=MANAGEMENT,
        title="Keywright",
        prefix=MANAGEMENT_PREFIX,
        format="standard",
        schemes=("bearer",),
        environments={"production": "live"},
        scopes={name: Scope(title, reads) for name, (title, reads) in MANAGEMENT_SCOPES.items()},
        access=AccessPolicy(("restricted",), None),
    )


#: What a management key can be allowed, and whether that only reads.
MANAGEMENT_SCOPES: Final[dict[str, tuple[str, bool]]] = {
    "verify": ("Ask whether a credential is valid", True),
    "keys:read": ("List and read keys", True),
    "keys:write": ("Create, edit, rotate, stop and delete keys", False),
    "accounts:read": ("List and read accounts", True),
    "accounts:write": ("Create, suspend and activate accounts", False),
    "keyspaces:read": ("Read keyspaces, scopes, plans and gates", True),
    "management-keys:read": ("List and read management keys", True),
    "management-keys:write": (
        "Create, rotate, stop and delete management keys, none larger than one's own",
        False,
    ),
    "usage:read": ("Read usage and the refusal log", True),
    "people:read": ("List and read the members of accounts", True),
    "people:write": ("Invite, change and remove members, none larger than oneself", False),
    "audit:read": ("Read the audit trail", True),
    "metrics:read": ("Read /metrics", True),
    "webhooks:read": ("List and read webhooks and their deliveries", True),
    "webhooks:write": ("Create, edit, rotate, test, stop and delete webhooks", False),
    "alerts:read": ("List and read alerts of misuse", True),
    "alerts:write": ("Acknowledge and resolve alerts", False),
    "leaks:report": ("Report leaked keys, as a scanner of one's own", False),
    "portal:read": ("List visits of the portal", True),
    "portal:write": ("Open the portal for a customer's admin, and end visits", False),
}


def _checked(d: _Definition) -> Keyspace:
    _need(
        _NAME.match(d.name) is not None,
        "name",
        "is lower-case letters, digits and -, and begins with a letter",
    )
    _need(d.name != MANAGEMENT, "name", f"{MANAGEMENT!r} is Keywright's own keyspace")
    _need(_CONTROL.search(d.title) is None, "title", "has control characters")
    prefix = d.prefix or d.name
    _need(d.format in ("standard", "dotted"), "format", "is standard or dotted")
    _check_prefix(prefix, "prefix" if d.prefix else "name")
    _check_schemes(d)
    _check_environments(d.environments)
    for name in d.scopes:
        _need(_SCOPE.match(name) is not None, f"scopes.{name}", "is not a scope such as contacts:read")
        _need(name not in RESERVED_SCOPES, f"scopes.{name}", "is reserved; self_service grants it")
    _check_access(d)
    _check_choice(d)
    keyspace = Keyspace(
        name=d.name,
        title=d.title or d.name.capitalize(),
        prefix=prefix,
        format=d.format,  # type: ignore[arg-type]  # checked above
        schemes=d.schemes,
        header=d.header,
        environments=d.environments,
        scopes=d.scopes,
        letters=d.letters,
        presets={name: _preset(d, name, preset) for name, preset in d.presets.items()},
        access=AccessPolicy(d.access.classes, d.access.default),
        expiry=_expiry(d.expiry),
        roles=_roles(d.roles),
        fields=Fields(d.fields.ask, d.fields.required),
        limits=_limits(d.limits, "limits"),
        plans={name: _plan(name, plan) for name, plan in d.plans.items()},
        gates={name: _gate(d, name, gate) for name, gate in d.gates.items()},
        self_service=d.self_service,  # type: ignore[arg-type]
        error_shape=d.errors,  # type: ignore[arg-type]
        rate_headers=d.rate_headers,
        url=d.url,
        labels=d.labels,
        navigation=tuple(d.navigation),
        deep_link=d.deep_link,
        portal=_portal(d.portal),
        misuse={name: _misuse(name, rule) for name, rule in d.misuse.items()},
        leaks=d.leaks,  # type: ignore[arg-type]
        imported=_imported(d.imported),
    )
    _check_letters(keyspace)
    return keyspace


def _imported(given: ImportPolicy | None) -> ImportPolicy | None:
    if given is not None:
        low, high = SHORTEST_IMPORTED, LONGEST
        _need(low <= given.shortest <= high, "imported.shortest", f"is from {low} to {high}")
        _need(len(given.prefixes) <= 20, "imported.prefixes", "are more than 20")
        for prefix in given.prefixes:
            fits = len(prefix) <= 64 and IMPORTABLE.match(prefix.encode()) is not None
            _need(
                fits, "imported.prefixes", f"{prefix[:40]!r} is none that a credential in a header can have"
            )
    return given


def _check_letters(keyspace: Keyspace) -> None:
    for name, letter in keyspace.letters.items():
        path = f"letters.{name}"
        _need(_LETTER.match(name) is not None, path, "is one capital letter")
        _need(_LETTER_TITLE.match(letter.title) is not None, f"{path}.title", "is one word, such as GetOnly")
        access, scopes = grant_of(keyspace, letter)
        _need(
            access in keyspace.access.classes, f"{path}.gives", f"is {access}, which access.classes has not"
        )
        _need(
            access != "restricted" or bool(scopes),
            f"{path}.gives",
            "is nothing: no scope is marked like that",
        )
    titles = [letter.title for letter in keyspace.letters.values()]
    _need(len(set(titles)) == len(titles), "letters", "has a title twice")
    _need(
        not keyspace.letters or keyspace.self_service != "off",
        "letters",
        "are for self_service, and that is off",
    )


def _misuse(name: str, given: _Misuse) -> Threshold:
    _need(name in misuse.RULES, f"misuse.{name}", f"is no rule; these are: {', '.join(misuse.RULES)}")
    usual = misuse.RULES[name].bounds
    values: dict[str, int] = {}
    for field, (least, most) in misuse.BOUNDS.items():
        value = getattr(given, field)
        if value is None:
            continue
        path = f"misuse.{name}.{field}"
        _need(getattr(usual, field) is not None, path, "means nothing to this rule")
        if isinstance(value, str):
            value = _span(value, path)
        highest = misuse.MOST_TIMES if field == "times" and usual.factor is None else most
        _need(
            least <= value <= highest,
            path,
            f"is from {least} to {highest}{' seconds' if field in _SPANS else ''}",
        )
        values[field] = value
    return msgspec.structs.replace(usual, **values, off=given.off)


def _roles(roles: _Roles) -> RolePolicy:
    for role in roles.manage:
        _need(role in roles.see, "roles.manage", f"{role} could manage what roles.see does not let it see")
    _need("owner" in roles.manage, "roles.manage", "leaves out owner, who must be able to stop a key")
    return RolePolicy(roles.see, roles.manage)


def _check_prefix(prefix: str, path: str) -> None:
    shape = "is 2 to 12 lower-case letters and digits and begins with a letter"
    _need(PREFIX.match(prefix) is not None, path, f"{shape}; set `prefix` where the name has another shape")
    _need(
        prefix not in OTHERS_PREFIXES,
        path,
        f"{prefix!r} is known as another vendor's: a leak would be told to them",
    )
    _need(prefix != MANAGEMENT_PREFIX, path, f"{prefix!r} is the prefix of management keys")


def _check_schemes(d: _Definition) -> None:
    _need(bool(d.schemes), "schemes", "accepts none: nobody could present a key")
    for place, name in enumerate(d.schemes):
        _need(name in SCHEMES, f"schemes[{place}]", f"{name!r} is none of {', '.join(SCHEMES)}")
        _need(name not in d.schemes[:place], f"schemes[{place}]", f"{name!r} stands twice")
        pair = SCHEMES[name].carries_pair
        _need(
            not (pair and d.format == "dotted"),
            f"schemes[{place}]",
            f"{name!r} carries a pair; a dotted key has none",
        )
    if "header" not in d.schemes:
        _need(not d.header, "header", "is named, but `schemes` does not list header")
        return
    _need(_HEADER.match(d.header) is not None, "header", "is the name of a header: letters, digits and -")
    lower = d.header.lower()
    _need(lower not in _NOT_CREDENTIALS, "header", f"{d.header!r} means something else")
    _need(
        not (lower == "api-key" and "api_key_auth" in d.schemes),
        "header",
        "is a carrier of api_key_auth already",
    )


def _check_environments(environments: dict[str, str]) -> None:
    _need(bool(environments), "environments", "has none: a key belongs to exactly one")
    codes: dict[str, str] = {}
    for name, code in environments.items():
        _need(
            _ENVIRONMENT.match(name) is not None,
            f"environments.{name}",
            "is lower-case letters, digits and -",
        )
        _need(
            CODE.match(code) is not None,
            f"environments.{name}",
            f"the code {code!r} is not 2 to 8 lower-case letters",
        )
        _need(
            code not in codes,
            f"environments.{name}",
            f"the code {code!r} is already that of {codes.get(code)}",
        )
        codes[code] = name


def _check_access(d: _Definition) -> None:
    _need(bool(d.access.classes), "access.classes", "offers none")
    _need(len(set(d.access.classes)) == len(d.access.classes), "access.classes", "names one twice")
    offered = d.access.default is None or d.access.default in d.access.classes
    _need(offered, "access.default", f"{d.access.default!r} is not among access.classes")
    _need(
        d.access.default != "restricted",
        "access.default",
        "a restricted key needs its scopes named, each time",
    )


def _check_choice(d: _Definition) -> None:
    _need(d.self_service in ("off", "read", "full"), "self_service", "is off, read or full")
    _need(d.errors in ("problem", "message"), "errors", "is problem or message")
    _need(d.leaks in ("notify", "disable", "invalidate"), "leaks", "is notify, disable or invalidate")
    for key, names in (("ask", d.fields.ask), ("required", d.fields.required)):
        for place, name in enumerate(names):
            _need(name in FIELDS, f"fields.{key}[{place}]", f"{name!r} is none of {', '.join(FIELDS)}")
    for name in d.labels:
        _need(name in LABELS, f"labels.{name}", f"is none of {', '.join(LABELS)}")
    url = not d.url or d.url.startswith(("http://", "https://"))
    _need(url and d.url.isprintable() and " " not in d.url, "url", "is an address beginning with https://")


def _portal(look: PortalLook) -> PortalLook:
    for name, text in (("title", look.title), ("back", look.back)):
        _need(
            _CONTROL.search(text) is None and len(text) <= 60,
            f"portal.{name}",
            "is up to 60 characters, on a line",
        )
    _need(not look.accent or accents.is_colour(look.accent), "portal.accent", "is a colour such as #0b6e4f")
    return PortalLook(look.title.strip(), look.accent.lower(), look.back.strip())


def _expiry(expiry: _Expiry) -> ExpiryPolicy:
    default, longest, unused = (
        None if text == "never" else _span(text, f"expiry.{key}")
        for key, text in (("default", expiry.default), ("longest", expiry.longest), ("unused", expiry.unused))
    )
    if longest is not None:
        _need(
            default is not None and default <= longest,
            "expiry.default",
            f"is longer than expiry.longest, {expiry.longest}",
        )
    _check_unused(expiry, unused, longest)
    return ExpiryPolicy(default, longest, unused, expiry.unused_act or "disable")


def _check_unused(expiry: _Expiry, unused: int | None, longest: int | None) -> None:
    if unused is None:
        _need(expiry.unused_act is None, "expiry.unused_act", "means nothing without expiry.unused")
        return
    least = hygiene.UNUSED // SECOND
    _need(unused >= least, "expiry.unused", f"is less than {say_span(least)}, after which a key is unused")
    _need(
        longest is None or unused < longest,
        "expiry.unused",
        f"is not less than expiry.longest, {expiry.longest}: every key has ended by then",
    )


def _span(text: str, path: str) -> int:
    try:
        seconds = parse_span(text)
    except Invalid as wrong:
        raise ProfileError(f"{wrong.reason}, or never", path=path) from None
    _need(seconds > 0, path, "is no time at all")
    _need(seconds <= _LONGEST_LIFE, path, "is more than 1000y; say never")
    return seconds


def _limits(given: list[str | dict[str, Any]], path: str) -> tuple[Limit, ...]:
    try:
        return limits.read(given, path=path)
    except Invalid as wrong:
        raise ProfileError(wrong.reason, path=wrong.path) from None


def _plan(name: str, plan: _Plan) -> Plan:
    _need(_NAME.match(name) is not None, f"plans.{name}", "is lower-case letters, digits and -")
    return Plan(plan.title, _limits(plan.limits, f"plans.{name}.limits"))


def _preset(d: _Definition, name: str, preset: Preset) -> Preset:
    path = f"presets.{name}"
    _need(_NAME.match(name) is not None, path, "is lower-case letters, digits and -")
    _need("restricted" in d.access.classes, path, "is for restricted keys, which access.classes has not")
    title = preset.title.strip()
    _need(bool(title) and _CONTROL.search(title) is None, f"{path}.title", "is what its button says")
    _need(bool(preset.scopes), f"{path}.scopes", "names none")
    for place, scope in enumerate(preset.scopes):
        _need(scope in d.scopes, f"{path}.scopes[{place}]", f"{scope!r} is not in scopes")
        _need(scope not in preset.scopes[:place], f"{path}.scopes[{place}]", f"{scope!r} stands twice")
    return preset


def _gate(d: _Definition, name: str, gate: _Gate) -> Gate:
    path = f"gates.{name}"
    _need(_NAME.match(name) is not None, path, "is lower-case letters, digits and -")
    _need(
        gate.environment in d.environments,
        f"{path}.environment",
        f"{gate.environment!r} is not in environments",
    )
    for place, rule in enumerate(gate.rules):
        at = f"{path}.rules[{place}]"
        _need(
            rule.path.startswith("/") and ".." not in rule.path, f"{at}.path", "begins with / and has no .."
        )
        for method in rule.methods:
            _need(
                _METHOD.match(method) is not None, f"{at}.methods", f"{method!r} is not a method in capitals"
            )
        for scope in rule.scopes:
            known = scope in d.scopes or scope in RESERVED_SCOPES
            _need(known, f"{at}.scopes", f"{scope!r} is not in scopes")
        _need(0 <= rule.cost <= limits.LARGEST_COST, f"{at}.cost", f"is from 0 to {limits.LARGEST_COST}")
    return Gate(gate.environment, tuple(gate.rules))


def _converted(given: Any, kind: Any, path: str) -> Any:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as wrong:
        reason, _, inside = str(wrong).partition(" - at `$")
        path += inside.rstrip("`")
        if field := _FIELD.search(reason):
            path += f".{field[1]}"
        raise ProfileError(reason, path=path.lstrip(".")) from None


def _need(holds: bool, path: str, reason: str) -> None:
    if not holds:
        raise ProfileError(reason, path=path)
