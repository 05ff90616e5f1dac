"""Settings: one typed table, read from flags, the environment and a TOML file, in that order of precedence.

Every setting may come from ``KEYWRIGHT_<NAME>``; what is or may hold a password also from the file that ``KEYWRIGHT_<NAME>_FILE``
names. The reference page is made from this table.
"""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from keywright.errors import CannotStart
from keywright.model import GroupRole, Network
from keywright.roles import ROLES


class Setting(NamedTuple):
    """One setting: its name, how its text is read, its default as text, and a sentence about it."""

    name: str
    kind: str  # text, address (of a server), database, networks, hosts, number:LEAST-MOST, choice:a,b
    default: str
    sentence: str
    confidential: bool = False

    @property
    def may_be_filed(self) -> bool:
        """Whether a file may hold it that ``KEYWRIGHT_<NAME>_FILE`` names: what is, or may hold, a password."""
        return self.confidential or self.kind == "database"


SETTINGS: Final = (
    Setting(
        "database",
        "database",
        "sqlite:///keywright.db",
        "Where the keys are: sqlite:///FILE or postgresql://…",
    ),
    Setting(
        "secret",
        "text",
        "",
        "The installation's secret; without it, the file <database>.secret.",
        confidential=True,
    ),
    Setting("host", "text", "127.0.0.1", "The address that the server listens on."),
    Setting("port", "number:0-65535", "8700", "The port that the server listens on; 0 is any that is free."),
    Setting("workers", "number:1-64", "1", "How many processes answer, behind the one port."),
    Setting(
        "public_url",
        "address",
        "",
        "How clients reach the server; with https:// plain HTTP is refused unread.",
    ),
    Setting(
        "trusted_proxies",
        "networks",
        "",
        "Networks of proxies whose word on client address and scheme is believed.",
    ),
    Setting(
        "security_contact",
        "contact",
        "",
        "Whom to tell of a weakness: what /.well-known/security.txt says; without it there is none.",
    ),
    Setting(
        "metrics",
        "choice:key,open,off",
        "key",
        "Who may read /metrics: a management key with metrics:read, or whoever reaches the server, or nobody.",
    ),
    Setting(
        "second_factor",
        "choice:optional,admins",
        "optional",
        "Who must have a second factor: nobody, or owners, admins and operators, who can do nothing without one.",
    ),
    Setting(
        "oidc_issuer",
        "published",
        "",
        "The identity provider that people may sign in with (OpenID Connect), as it names itself; without it there is none.",
    ),
    Setting("oidc_client_id", "text", "", "What that provider calls this installation."),
    Setting(
        "oidc_client_secret",
        "text",
        "",
        "By which it knows this installation; without it, by PKCE alone.",
        confidential=True,
    ),
    Setting("oidc_name", "text", "single sign-on", "What people call the provider: the words of the button."),
    Setting(
        "oidc_domains",
        "domains",
        "",
        "Domains of mail whose addresses, where the provider has verified them, join it to a person who exists.",
    ),
    Setting("oidc_groups_claim", "text", "groups", "The claim that holds somebody's groups."),
    Setting(
        "oidc_roles",
        "roles",
        "",
        "What groups give, read anew at each sign-in: `group=operator`, or `group=account:role`.",
    ),
    Setting(
        "oidc_second_factor",
        "choice:ours,amr,theirs",
        "ours",
        "Whose second factor counts for who signs in by the provider: ours; the provider's where its `amr` or `acr` tells of "
        "one; the provider's always.",
    ),
    Setting(
        "oidc_networks",
        "networks",
        "",
        "Networks of your own in which the provider may be reached; over plain http too where they are loopback.",
    ),
    Setting(
        "drain_seconds",
        "number:0-600",
        "2",
        "How long /readyz says no, and all else is answered, before SIGTERM closes the port.",
    ),
    Setting(
        "webhook_networks",
        "networks",
        "",
        "Networks of your own that webhooks may go to all the same; over plain http too where they are loopback.",
    ),
    Setting(
        "portal_hosts",
        "hosts",
        "",
        "Hosts that a visitor of the portal may be led back to; without it any, over https.",
    ),
    Setting(
        "leaks_github_keys_url",
        "published",
        "",
        "Where GitHub publishes the keys that sign its reports of leaks; without it, it reports none.",
    ),
    Setting(
        "smtp_host",
        "text",
        "",
        "The server that e-mail about alerts goes out by; without it there is none.",
    ),
    Setting("smtp_port", "number:1-65535", "587", "Its port."),
    Setting(
        "smtp_security",
        "choice:starttls,tls,none",
        "starttls",
        "How the connection to it is made secure: STARTTLS, which must be offered, or TLS from the start, or not at all.",
    ),
    Setting("smtp_user", "text", "", "Who signs in there; without it nobody does."),
    Setting("smtp_password", "text", "", "The password to that.", confidential=True),
    Setting("mail_from", "mailboxes:1", "", "Whom e-mail comes from."),
    Setting("mail_to", "mailboxes:20", "", "Who is told of every alert by e-mail."),
    Setting(
        "mail_members",
        "choice:admins,nobody",
        "admins",
        "Whom of the account that an alert is about is told as well: its owners and admins, or nobody.",
    ),
    Setting(
        "mail_severity",
        "choice:low,medium,high",
        "medium",
        "From which severity on.",
    ),
    Setting(
        "throttle_failures",
        "number:0-1000000",
        "100",
        "How often one address (of IPv6 its network of 64 bits) may fail to prove a key before its failures are made cheap; "
        "0 is any number. No right key is ever refused by it.",
    ),
    Setting("throttle_seconds", "number:1-86400", "600", "Within how many seconds."),
    Setting("cache_size", "number:1-100000000", "100000", "How many keys a process remembers."),
    Setting(
        "on_store_loss",
        "choice:serve,refuse",
        "serve",
        "What is done with remembered keys when the store is gone.",
    ),
    Setting(
        "max_stale",
        "number:0-86400",
        "60",
        "For how many seconds remembered keys are served when the store is gone; 0 is as refuse.",
    ),
    Setting(
        "slots",
        "text",
        "",
        "The directory of the workers' slot files: beside a SQLite database, else among temporary files.",
    ),
    Setting(
        "usage_minutes_kept",
        "number:1-3660",
        "7",
        "For how many days usage is kept by the minute, then by the hour.",
    ),
    Setting(
        "usage_hours_kept",
        "number:1-3660",
        "90",
        "For how many days usage is kept by the hour, then by the day.",
    ),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
#: Variables of the environment that begin with KEYWRIGHT_ and are no settings.
OTHERS: Final = {
    "KEYWRIGHT_CONFIG": "The TOML file of settings, where --config names none.",
    "KEYWRIGHT_URL": "The server that the command works on, where --url names none.",
    "KEYWRIGHT_GATEWAY_KEY": "A customer's key, for `keywright gateway check`.",
    "KEYWRIGHT_KEY": "The management key for that server, where --key gives none.",
    "KEYWRIGHT_KEY_FILE": "A file that holds it.",
    "KEYWRIGHT_DEBUG": "1 makes the command log all it does, and show where a fault of its own arose.",
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The values in force, and where each came from."""

    database: str
    secret: str
    host: str
    port: int
    workers: int
    public_url: str
    trusted_proxies: tuple[Network, ...]
    security_contact: str
    metrics: str
    second_factor: str
    oidc_issuer: str
    oidc_client_id: str
    oidc_client_secret: str
    oidc_name: str
    oidc_domains: tuple[str, ...]
    oidc_groups_claim: str
    oidc_roles: tuple[GroupRole, ...]
    oidc_second_factor: str
    oidc_networks: tuple[Network, ...]
    drain_seconds: int
    webhook_networks: tuple[Network, ...]
    portal_hosts: tuple[str, ...]
    leaks_github_keys_url: str
    smtp_host: str
    smtp_port: int
    smtp_security: str
    smtp_user: str
    smtp_password: str
    mail_from: tuple[str, ...]
    mail_to: tuple[str, ...]
    mail_members: str
    mail_severity: str
    throttle_failures: int
    throttle_seconds: int
    cache_size: int
    on_store_loss: str
    max_stale: int
    slots: str
    usage_minutes_kept: int
    usage_hours_kept: int
    origins: dict[str, str]

    def __repr__(self) -> str:
        return f"Settings(database={self.shown('database')!r}, …)"

    @property
    def base_url(self) -> str:
        """The address that examples show."""
        return self.public_url.rstrip("/") or self.address(self.port)

    def link(self, token: str, here: str = "") -> str:
        """The page where a one-time link is followed; ``here`` is where this server listens, where that is known.

        What the link holds stands behind ``#``, which no browser sends: no server logs it on the way.
        """
        return f"{self.public_url.rstrip('/') or here or self.base_url}/console/link#{token}"

    def address(self, port: int) -> str:
        """Where this machine reaches the server on a port."""
        return f"http://[{self.host}]:{port}" if ":" in self.host else f"http://{self.host}:{port}"

    def shown(self, name: str) -> str:
        """A value as it may be shown: the installation's secret never, nor a database's password."""
        value = getattr(self, name)
        if _BY_NAME[name].confidential:
            return "(set, not shown)" if value else ""
        if isinstance(value, tuple):
            return ", ".join(str(item) for item in value)
        return _PASSWORD.sub(r"\1***@", value) if name == "database" else str(value)


_PASSWORD: Final = re.compile(r"(//[^:/@]*:).*@")


def variable(setting: Setting) -> str:
    """The variable of the environment that sets it."""
    return f"KEYWRIGHT_{setting.name.upper()}"


def load(flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Read the settings. A flag that is ``None`` was not given, a variable that is empty was not set.

    Raises ``CannotStart`` with the setting's name and where its value came from.
    """
    written = _file(file)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS:
        text, origin = _text(setting, flags, environ, written, file)
        try:
            values[setting.name] = _read(setting, text)
        except ValueError as wrong:
            raise CannotStart(f"setting {setting.name} (from {origin}): {wrong}") from None
        origins[setting.name] = origin
    return Settings(**values, origins=origins)


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Variables that begin as ours do and are none: most likely a setting that is spelled wrong."""
    known = {variable(setting) for setting in SETTINGS} | set(OTHERS)
    known |= {f"{variable(setting)}_FILE" for setting in SETTINGS if setting.may_be_filed}
    return sorted(name for name in environ if name.startswith("KEYWRIGHT_") and name not in known)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def weigh(found: Settings) -> list[str]:
    """What is wrong with settings that are good one by one, a sentence each."""
    wrong = []
    if not is_loopback(found.host) and not found.public_url:
        wrong.append(
            f"host {found.host} can be reached from outside, and public_url is not set: serve refuses it"
        )
    if found.public_url.startswith("https://") and not found.trusted_proxies:
        wrong.append(
            "public_url is https, and trusted_proxies names nobody who could say that a request came by https: "
            "every request is refused"
        )
    return wrong + weigh_provider(found) + weigh_mail(found)


def weigh_provider(found: Settings) -> list[str]:
    """What is wrong with the settings of the identity provider, a sentence each: with any of it serve refuses."""
    if not found.oidc_issuer:
        return ["oidc_client_id is set, and oidc_issuer is not"] if found.oidc_client_id else []
    wrong = []
    if not found.oidc_client_id:
        wrong.append("oidc_issuer is set, and oidc_client_id is not: the provider asks who wants to know")
    if found.oidc_issuer.startswith("http://") and not found.oidc_networks:
        wrong.append("oidc_issuer is on this machine, and oidc_networks does not let it in: 127.0.0.0/8")
    return wrong


def weigh_mail(found: Settings) -> list[str]:
    """What is wrong with the settings of e-mail, a sentence each: with any of it none is sent, and serve refuses."""
    if not found.smtp_host:
        return ["mail_to is set, and smtp_host is not: no e-mail is sent"] if found.mail_to else []
    wrong = []
    if not found.mail_from:
        wrong.append("smtp_host is set, and mail_from is not: e-mail comes from somebody")
    if found.smtp_user and found.smtp_security == "none" and not is_loopback(found.smtp_host):
        wrong.append("smtp_security is none: the password would travel as it is; use starttls or tls")
    if bool(found.smtp_user) != bool(found.smtp_password):
        wrong.append("smtp_user and smtp_password go together")
    return wrong


def reference() -> str:
    """The page that explains every setting, in Markdown."""
    lines = [
        "# Settings",
        "",
        "A flag of the command wins over a variable of the environment, that over the TOML file which `--config` names, that",
        "over the default. `keywright config show` prints what is in force and where each value comes from;",
        "`keywright config check` says what is wrong.",
        "",
        "| in TOML | variable | kind | default | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for setting in SETTINGS:
        named = f"`{variable(setting)}`" + (
            f", or a file in `{variable(setting)}_FILE`" if setting.may_be_filed else ""
        )
        default = f"`{setting.default}`" if setting.default else ""
        lines.append(
            f"| `{setting.name}` | {named} | {_say_kind(setting)} | {default} | {setting.sentence} |"
        )
    lines += ["", "Some more variables are read by the command alone:", "", "| variable | |", "| --- | --- |"]
    lines += [f"| `{name}` | {sentence} |" for name, sentence in OTHERS.items()]
    return "\n".join(lines) + "\n"


def _say_kind(setting: Setting) -> str:
    kind, _, more = setting.kind.partition(":")
    match kind:
        case "number":
            return "a number from {} to {}".format(*more.split("-"))
        case "choice":
            return " or ".join(f"`{choice}`" for choice in more.split(","))
        case "networks":
            return "networks, in TOML a list, elsewhere with commas between"
        case "hosts":
            return "names of hosts, in TOML a list, elsewhere with commas between"
        case "address" | "published":
            return "an address, `https://…`"
        case "mailboxes" if more == "1":
            return "an address of mail"
        case "mailboxes":
            return f"up to {more} addresses of mail, in TOML a list, elsewhere with commas between"
        case "domains":
            return "domains, in TOML a list, elsewhere with commas between"
        case "roles":
            return "`group=operator` or `group=account:role`, in TOML a list, elsewhere with commas between"
        case "contact":
            return "`mailto:…` or `https://…`"
        case "database":
            return "an address of a database"
        case _:
            return "text"


def _text(
    setting: Setting,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    written: Mapping[str, Any],
    file: Path | None,
) -> tuple[str, str]:
    if flags.get(setting.name) is not None:
        return str(flags[setting.name]), f"--{setting.name.replace('_', '-')}"
    named = variable(setting)
    if environ.get(named):
        return environ[named], named
    if setting.may_be_filed and environ.get(f"{named}_FILE"):
        path = Path(environ[f"{named}_FILE"])
        try:
            return path.read_text(encoding="utf-8").strip(), f"{named}_FILE"
        except OSError as trouble:
            raise CannotStart(f"{named}_FILE: {path} cannot be read: {trouble.strerror}") from None
        except UnicodeDecodeError:
            raise CannotStart(f"{named}_FILE: {path} is not text") from None
    if setting.name in written:
        return _written(setting, written[setting.name]), str(file)
    return setting.default, "default"


def _written(setting: Setting, value: Any) -> str:
    if setting.kind.startswith(_LISTS) and isinstance(value, list):
        return ",".join(str(item) for item in value)
    wanted = int if setting.kind.startswith("number") else str
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise CannotStart(f"setting {setting.name} (from the settings file): is {_say_kind(setting)}")
    return str(value)


def _read(setting: Setting, text: str) -> Any:
    kind, _, more = setting.kind.partition(":")
    match kind:
        case "number":
            least, most = (int(bound) for bound in more.split("-"))
            if not text.isascii() or not text.isdigit() or len(text) > 12 or not least <= int(text) <= most:
                raise ValueError(f"{text[:40]!r} is not a number from {least} to {most}")
            return int(text)
        case "networks":
            return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
        case "hosts":
            return _names(text, _HOST, "the name of a host, such as app.example.com")
        case "mailboxes":
            found = tuple(part.strip() for part in text.split(",") if part.strip())
            wrong = [part for part in found if not _MAILBOX.match(part)]
            if wrong or len(found) > int(more):
                raise ValueError(f"{text[:80]!r} is not {_say_kind(setting)}")
            return found
        case "domains":
            return _names(text, _DOMAIN, "a domain such as example.com")
        case "roles":
            return tuple(_role(part.strip()) for part in text.split(",") if part.strip())
        case "choice" if text not in more.split(","):
            raise ValueError(f"{text[:40]!r} is none of {more.replace(',', ', ')}")
        case "address" if text and not _ADDRESS.match(text):
            raise ValueError(f"{text[:80]!r} is not an address such as https://keys.example.com")
        case "published" if text and not _PUBLISHED.match(text):
            raise ValueError(
                f"{text[:80]!r} is not an address such as https://example.com/keys, without a query"
            )
        case "contact" if text and not _CONTACT.match(text):
            raise ValueError(f"{text[:80]!r} is neither mailto:… nor https://…")
        case "database" if not text.startswith(("sqlite:///", "postgresql://")):
            raise ValueError("is not sqlite:///FILE or postgresql://…")
    return text


def _names(text: str, shape: re.Pattern[str], meant: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    wrong = next((part for part in found if not shape.match(part)), None)
    if wrong is not None:
        raise ValueError(f"{wrong[:80]!r} is not {meant}")
    return found


def _role(text: str) -> GroupRole:
    group, _, given = text.rpartition("=")
    account, _, role = given.rpartition(":")
    if group and given == "operator":
        return GroupRole(group)
    for known in ROLES:
        if group and account and known == role:
            return GroupRole(group, account, known)
    raise ValueError(f"{text[:80]!r} is not `group=operator` or `group=account:role` ({', '.join(ROLES)})")


_CONTACT: Final = re.compile(r"\A(mailto:[!-~]+@[!-~]+|https://[!-~]+)\Z")
#: Kinds that are a list in TOML.
_LISTS: Final = ("networks", "hosts", "mailboxes", "domains", "roles")
_DOMAIN: Final = re.compile(r"\A[a-z0-9-]+(\.[a-z0-9-]+)+\Z")
_MAILBOX: Final = re.compile(r"\A[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\Z")
_HOST: Final = re.compile(r"\A[a-z0-9-]+(\.[a-z0-9-]+)*\Z")
#: Where something is published that is believed: over https, or on this machine itself.
_PUBLISHED: Final = re.compile(
    r"\A(https://[^\s/?#@]+|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?)(/[^\s?#]*)?\Z"
)
_ADDRESS: Final = re.compile(r"\Ahttps?://[^\s/?#@]+(/[^\s?#]*)?\Z")


def _file(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as trouble:
        raise CannotStart(f"the settings file {file} cannot be read: {trouble.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as broken:
        raise CannotStart(f"the settings file {file} is not TOML: {broken}") from None
    for name in written:
        if name not in _BY_NAME:
            near = get_close_matches(name, _BY_NAME, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise CannotStart(f"the settings file {file} has the unknown setting {name!r}{meant}")
    return written
