"""Where a webhook may go: an address that somebody else wrote, read strictly and held to the public internet. Pure.

An address is checked twice. ``read`` checks what is written, ``inside`` what a name turned out to mean; the connection is
then made to the checked number and to no other, so that a name which changes its meaning in between gains nothing.

The networks follow the IANA special-purpose registries (RFC 6890 and what has joined them since): of IPv6, only what is
allotted as global unicast is outside, less what carries an IPv4 address within it.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

import msgspec

from keywright.errors import Invalid
from keywright.model import Network

LONGEST: Final = 2_000  # characters
#: Ports of the outside that a webhook may go to.
PORTS: Final = (443, 8443)

Number = IPv4Address | IPv6Address

_URL: Final = re.compile(r'\A(https?)://([^/?#@\\]+)((?:[/?][!"$-\[\]-~]*)?)\Z', re.ASCII)
_AUTHORITY: Final = re.compile(r"\A(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9.-]{1,253}))(?::([0-9]{1,5}))?\Z")
_LABEL: Final = re.compile(r"\A(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
#: What the last label of a host looks like where programs read the whole as a number: decimal, octal or hexadecimal.
_NUMERIC: Final = re.compile(r"\A(?:[0-9]+|0x[0-9a-f]*)\Z")
#: Names that mean something inside, whoever asks.
_INSIDE_NAMES: Final = (
    "localhost",
    "local",
    "internal",
    "localdomain",
    "lan",
    "home.arpa",
    "intranet",
    "corp",
)

_V4: Final = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier's customers"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's metadata"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a relay to IPv6"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_V6: Final = tuple(
    (ip_network(network), what)
    for network, what in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "an IPv4 address within"),
        ("::ffff:0:0/96", "an IPv4 address within"),
        ("64:ff9b::/96", "an IPv4 address within"),
        ("64:ff9b:1::/48", "an IPv4 address within"),
        ("2001::/23", "reserved, or an IPv4 address within"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "an IPv4 address within"),
        ("3fff::/20", "for documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL: Final = ip_network("2000::/3")
#: What stays closed whatever a setting opens: clouds hand out their credentials there, or nobody in particular listens.
_NEVER: Final = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "224.0.0.0/3", "100.100.100.200/32", "::/128", "fe80::/10",
        "ff00::/8", "fd00:ec2::254/128", "fd20:ce::254/128", "::ffff:0:0/96", "64:ff9b::/96", "2002::/16",
    )
)  # fmt: skip


_OPENED: Final = (
    " (whoever runs the installation can let networks of its own in: the setting webhook_networks)"
)


class Target(msgspec.Struct, frozen=True):
    """An address that was read: where to connect, and what to ask for there. ``number`` where the host is one."""

    scheme: str
    host: str
    port: int
    path: str
    number: str | None = None

    @property
    def authority(self) -> str:
        """What stands in the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"https": 443, "http": 80}[self.scheme] else f"{host}:{self.port}"


def read(url: str, allowed: Iterable[Network] = ()) -> Target:
    """Read an address: https, no user, a port of the list, a host that is a name or a number as numbers are written.

    ``allowed`` are networks of one's own that are let in all the same, on any port, and over plain http where they are
    loopback. Raises ``Invalid`` with what is wrong.
    """
    opened = tuple(allowed)
    found = _URL.match(url) if len(url) <= LONGEST else None
    authority = _AUTHORITY.match(found[2]) if found else None
    if found is None or authority is None:
        raise _wrong(
            "is not an address such as https://example.com/webhooks, without user, fragment and spaces"
        )
    host = (authority[1] or authority[2]).lower()
    number = _number(host, bracketed=authority[1] is not None)
    if number is None:
        _check_name(host, opened)
    elif closed := inside(number, opened):
        raise _wrong(f"leads inside: {host} is {closed}{_OPENED}")
    ours = host == "localhost" if number is None else number.is_loopback
    if found[1] == "http" and not (ours and opened):
        raise _wrong(f"is not https; plain http is for loopback alone{_OPENED}")
    port = int(authority[3]) if authority[3] else {"https": 443, "http": 80}[found[1]]
    if not 1 <= port <= 65_535 or (port not in PORTS and not opened):
        raise _wrong(f"names the port {port}; it may be {' or '.join(map(str, PORTS))}")
    path = found[3] if found[3].startswith("/") else f"/{found[3]}"
    return Target(found[1], host, port, path, None if number is None else str(number))


def inside(number: Number, allowed: Iterable[Network] = ()) -> str | None:
    """What keeps a number from being reached; ``None`` where nothing does."""
    if _among(number, allowed) and not _among(number, _NEVER):
        return None
    for network, what in _V4 if number.version == 4 else _V6:
        if number in network:
            return what
    return None if number.version == 4 or number in _GLOBAL else "reserved"


def may_be_reached(target: Target, number: Number, allowed: Iterable[Network]) -> str | None:
    """What keeps a target's name from being connected to at this number; ``None`` where nothing does.

    A port that is not of the list, and plain http, are for one's own networks only.
    """
    opened = tuple(allowed)
    closed = inside(number, opened)
    if closed is not None:
        return closed
    own = _among(number, opened)
    if target.scheme == "http" and not (own and number.is_loopback):
        return "not loopback, and http is for loopback only"
    return (
        None if target.port in PORTS or own else f"outside, where the port {target.port} is not for webhooks"
    )


def _among(number: Number, networks: Iterable[Network]) -> bool:
    return any(number.version == network.version and number in network for network in networks)


def _number(host: str, *, bracketed: bool) -> Number | None:
    if not bracketed and not _NUMERIC.match(host.rpartition(".")[2]):
        return None
    try:
        number = ip_address(host)
    except ValueError:
        number = None
    if number is None or (number.version == 6) != bracketed:
        raise _wrong("names a host by a number in a way that programs read differently")
    return number


def _check_name(host: str, opened: tuple[Network, ...]) -> None:
    labels = host.split(".")
    if not all(_LABEL.match(label) for label in labels):
        raise _wrong("names no host: letters, digits and hyphens between single dots, and no dot at the end")
    if opened:
        return
    if len(labels) == 1 or any(host == name or host.endswith(f".{name}") for name in _INSIDE_NAMES):
        raise _wrong(f"leads inside: {host} is a name of no use outside{_OPENED}")


def _wrong(reason: str) -> Invalid:
    return Invalid(reason, path="url")
