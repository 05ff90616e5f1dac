"""What may stand in the fields of a key or an account. Pure; every refusal names the field."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final

import msgspec

from keywright.errors import Invalid
from keywright.model import Keyspace, Network
from keywright.policy import granted
from keywright.times import LATEST

NAME_LENGTH: Final = 200
LABEL_LENGTH: Final = 100
DESCRIPTION_LENGTH: Final = 2_000
METADATA_ENTRIES: Final = 50
METADATA_BYTES: Final = 16 * 1024
METADATA_DEPTH: Final = 20
SEARCH_LENGTH: Final = 200
NETWORKS: Final = 100
SCOPES: Final = 200
RETURN_LENGTH: Final = 2_000

_USERNAME: Final = re.compile(r"\A[a-z0-9][a-z0-9._@+-]{0,63}\Z")
#: Good enough to write to: what is before the @ is the receiver's business (RFC 5321 2.3.11).
_EMAIL: Final = re.compile(r"\A[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\Z")
#: An address without name and password, in characters that need no escape where it is written: a header, a policy.
_RETURN: Final = re.compile(
    r"\A(https://(?P<secure>[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*)|http://(?P<near>127\.0\.0\.1|localhost))(:[0-9]{1,5})?"
    r"([/?][A-Za-z0-9/?&=%~._:@!$'()*+,;-]*)?\Z"
)
#: Control characters, and those that turn the direction of the text that follows a name.
_HIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_HIDDEN_BUT_LINES: Final = re.compile(
    "[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def name(text: object, *, path: str = "name", longest: int = NAME_LENGTH) -> str:
    """A line of text that people read. Raises ``Invalid``."""
    if not isinstance(text, str) or not text.strip():
        raise Invalid("is needed", path=path)
    text = text.strip()
    if len(text) > longest:
        raise Invalid(f"is longer than {longest} characters", path=path)
    if _HIDDEN.search(text):
        raise Invalid("has control characters", path=path)
    return text


def label(text: Any, *, path: str) -> str | None:
    """A team or an application: a short name, or nothing. Raises ``Invalid``."""
    return None if text is None or text == "" else name(text, path=path, longest=LABEL_LENGTH)


def description(text: Any) -> str:
    """Text of several lines, or nothing. Raises ``Invalid``."""
    if text is None:
        return ""
    if not isinstance(text, str):
        raise Invalid("is a text", path="description")
    if len(text) > DESCRIPTION_LENGTH:
        raise Invalid(f"is longer than {DESCRIPTION_LENGTH} characters", path="description")
    if _HIDDEN_BUT_LINES.search(text):
        raise Invalid("has control characters", path="description")
    return text.strip()


def username(text: Any) -> str:
    """An account's username. Raises ``Invalid``."""
    if not isinstance(text, str) or not _USERNAME.match(text):
        raise Invalid(
            "is 1 to 64 of a-z, 0-9 and . _ @ + -, and begins with a letter or digit", path="username"
        )
    return text


def email(text: Any) -> str:
    """An address of mail, in lower case. Raises ``Invalid``."""
    if not isinstance(text, str) or len(text) > 254 or not _EMAIL.match(text.strip()):
        raise Invalid("is an address such as ana@example.com", path="email")
    return text.strip().lower()


def return_url(text: Any, hosts: Sequence[str]) -> str:
    """Where a visitor of the portal goes from here, or nothing; with ``hosts`` to one of them. Raises ``Invalid``."""
    if text is None or text == "":
        return ""
    found = _RETURN.match(text) if isinstance(text, str) and len(text) <= RETURN_LENGTH else None
    if found is None:
        raise Invalid(
            "is https://…, or http:// on 127.0.0.1 or localhost, in plain characters and without #",
            path="return_url",
        )
    host = found["secure"] or found["near"]
    if hosts and host.lower() not in hosts:
        raise Invalid(
            f"leads to {host[:60]}, which the setting portal_hosts does not name", path="return_url"
        )
    return found[0]


def access(
    given: str | None, scopes: Sequence[str] | None, keyspace: Keyspace
) -> tuple[str, tuple[str, ...]]:
    """Access and scopes that go together in a keyspace. Raises ``Invalid``."""
    chosen = given or ("restricted" if scopes else keyspace.access.default)
    if chosen is None:
        raise Invalid(f"must be chosen: {', '.join(keyspace.access.classes)}", path="access")
    if chosen not in keyspace.access.classes:
        raise Invalid(f"{str(chosen)[:40]!r} is none of {', '.join(keyspace.access.classes)}", path="access")
    if chosen != "restricted":
        if scopes:
            raise Invalid("are for restricted access only", path="scopes")
        return chosen, ()
    if not scopes:
        raise Invalid("restricted access needs at least one", path="scopes")
    if len(scopes) > SCOPES:
        raise Invalid(f"are more than {SCOPES}", path="scopes")
    for place, scope in enumerate(scopes):
        if not isinstance(scope, str) or not _known(scope, keyspace):
            known = ", ".join(keyspace.scopes) or "none at all"
            raise Invalid(
                f"{str(scope)[:60]!r} is not a scope of this keyspace: {known}", path=f"scopes[{place}]"
            )
    return chosen, tuple(dict.fromkeys(scopes))


def _known(scope: str, keyspace: Keyspace) -> bool:
    return scope in keyspace.scopes or scope in granted(keyspace)


def networks(given: Any) -> tuple[str, ...]:
    """Addresses and networks, in canonical form. Raises ``Invalid``."""
    if given is None:
        return ()
    if not isinstance(given, list | tuple) or len(given) > NETWORKS:
        raise Invalid(f"is a list of at most {NETWORKS} addresses and networks", path="allowed_ips")
    found = []
    for place, text in enumerate(given):
        try:
            network = ip_network(text if isinstance(text, str) and "%" not in text else "")
        except ValueError:
            shown = f"{str(text)[:60]!r} is not an address or a network such as 203.0.113.0/24"
            raise Invalid(f"{shown} (host bits must be zero)", path=f"allowed_ips[{place}]") from None
        found.append(str(_unmapped(network)))
    return tuple(dict.fromkeys(found))


def _unmapped(network: Network) -> Network:
    """IPv4 inside IPv6 is IPv4, as it is where a request's address is compared: as IPv6 it would match nobody."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        address = network.network_address.ipv4_mapped
        if address is not None:
            return IPv4Network((address, network.prefixlen - 96))
    return network


def metadata(given: Any) -> dict[str, Any]:
    """A small JSON object of the host's own. Raises ``Invalid``."""
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > METADATA_ENTRIES:
        raise Invalid(f"is an object of at most {METADATA_ENTRIES} entries", path="metadata")
    try:
        written = msgspec.json.encode(given)
    except (TypeError, ValueError, RecursionError):
        raise Invalid("is not JSON", path="metadata") from None
    if len(written) > METADATA_BYTES:
        raise Invalid(f"is larger than {METADATA_BYTES} bytes", path="metadata")
    if _deeper(given, METADATA_DEPTH):
        raise Invalid(f"is nested more than {METADATA_DEPTH} deep", path="metadata")
    return given


def _deeper(value: Any, levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    return inside is not None and (levels == 0 or any(_deeper(item, levels - 1) for item in inside))


def search(text: str | None) -> str | None:
    """What is looked for in a list, or nothing. Raises ``Invalid``."""
    text = (text or "").strip()
    if len(text) > SEARCH_LENGTH:
        raise Invalid(f"is longer than {SEARCH_LENGTH} characters", path="q")
    if _HIDDEN.search(text):
        raise Invalid("has control characters", path="q")
    return text or None


def expires_at(given: int | None, keyspace: Keyspace, now: int, *, given_at_all: bool) -> int | None:
    """The instant at which a key expires, or ``None`` for never; the keyspace's default where none is given.

    Raises ``Invalid``.
    """
    second = 1_000_000
    if given is None:
        if not given_at_all and keyspace.expiry.default is not None:
            return now + keyspace.expiry.default * second
        if keyspace.expiry.longest is not None:
            raise Invalid(f"keys live {keyspace.expiry.longest} seconds at most here", path="expires_at")
        return None
    if given <= now:
        raise Invalid("is not in the future", path="expires_at")
    if given > LATEST:
        raise Invalid("is out of range", path="expires_at")
    if keyspace.expiry.longest is not None and given > now + keyspace.expiry.longest * second:
        raise Invalid(f"keys live {keyspace.expiry.longest} seconds at most here", path="expires_at")
    return given


def search_text(values: dict[str, Any]) -> str:
    """What a search looks through, in lower case."""
    parts = (values["id"], values["name"], values["team"], values["application"], values["description"])
    return "\n".join(part for part in parts if part).lower()


def required(values: dict[str, Any], keyspace: Keyspace) -> None:
    """Hold a creation to what the profile wants filled. Raises ``Invalid``."""
    for field in keyspace.fields.required:
        if field in ("name", "access", "environment"):
            continue  # these have rules of their own
        if values.get(field) in (None, "", (), {}):
            raise Invalid(f"must be given in keyspace {keyspace.name!r}", path=field)
