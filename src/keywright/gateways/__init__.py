"""Configurations of proxies that ask Keywright, filled in: ``recipes/`` holds one for each. Pure but for reading those.

A line that names a header that a key can come in, or one of the identity, stands for one line for each of them.
"""

import re
from importlib.resources import files
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from keywright.errors import Invalid
from keywright.schemes import CARRIERS

#: What a recipe is called, and its file.
RECIPES: Final = {
    "nginx": "nginx.conf",
    "nginx-accel": "nginx-accel.conf",
    "traefik": "traefik.yml",
    "caddy": "Caddyfile",
    "envoy": "envoy.yaml",
    "haproxy": "haproxy.cfg",
    "haproxy-lua": "keywright.lua",
}
#: What an allowed request is told of its key: ``X-Keywright-…``.
IDENTITY: Final = ("key", "account", "environment", "access", "scopes")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_GATE: Final = re.compile(r"[a-z][a-z0-9-]{0,39}(?:\.[a-z][a-z0-9-]{0,39})?")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


class Place(NamedTuple):
    """A host and a port, on which something listens or will."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Wanted(NamedTuple):
    """What a recipe is filled in with."""

    gate: str
    keywright: Place
    upstream: Place
    listen: Place
    #: a header that keys come in besides those of every scheme: the profile's own
    header: str | None = None


def render(recipe: str, wanted: Wanted) -> str:
    """A whole configuration, with the reason of every line that protects. ``recipe`` is one of ``RECIPES``."""
    text = files(__package__).joinpath("recipes", RECIPES[recipe]).read_text(encoding="utf-8")
    carriers = sorted(
        {name.decode() for name in CARRIERS} | ({wanted.header.lower()} if wanted.header else set())
    )
    text = _each(text, "carrier", [(name.title(), name) for name in carriers])
    text = _each(text, "identity", [(f"X-Keywright-{name.title()}", name) for name in IDENTITY])
    for name, place in (
        ("KEYWRIGHT", wanted.keywright),
        ("UPSTREAM", wanted.upstream),
        ("LISTEN", wanted.listen),
    ):
        text = text.replace(f"@{name}@", str(place))
        text = text.replace(f"@{name}_HOST@", place.host).replace(f"@{name}_PORT@", str(place.port))
    return text.replace("@GATE@", wanted.gate)


def _each(text: str, what: str, names: list[tuple[str, str]]) -> str:
    """Repeat each line that holds a place for a name, in either spelling, for every name."""
    lines = []
    for line in text.splitlines(keepends=True):
        held = f"@{what}@" in line or f"@{what.title()}@" in line
        for spelled, plain in names if held else [("", "")]:
            lines.append(line.replace(f"@{what.title()}@", spelled).replace(f"@{what}@", plain))
    return "".join(lines)


# ---------------------------------------------------------------------------------------------------- what may be filled in


def gate(text: str) -> str:
    """Read a gate's name, or a keyspace and an environment. Raises ``Invalid``."""
    if not _GATE.fullmatch(text):
        raise Invalid(f"{text[:60]!r} is neither a gate nor KEYSPACE.ENVIRONMENT", path="--gate")
    return text


def header(text: str) -> str:
    """Read a header's name. Raises ``Invalid``."""
    if not _HEADER.fullmatch(text):
        raise Invalid(f"{text[:60]!r} is no name of a header", path="--header")
    return text


def served(text: str, path: str) -> Place:
    """Read an address that a proxy asks or passes on to. Raises ``Invalid``."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        raise Invalid(f"{text[:60]!r} is no address", path=path) from None
    if parts.scheme == "https":
        reason = "the recipes speak http: name the address beside the proxy, or add TLS to what is printed"
        raise Invalid(reason, path=path)
    more = parts.path not in ("", "/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "http" or more:
        raise Invalid(f"{text[:60]!r} is not an address such as http://127.0.0.1:8700", path=path)
    return Place(_host(host, path), port)


def listening(text: str) -> Place:
    """Read where a proxy is to listen, ``HOST:PORT``. Raises ``Invalid``."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Invalid(f"{text[:60]!r} is not HOST:PORT, such as 127.0.0.1:8080", path="--listen")
    return Place(_host(host.strip("[]"), "--listen"), int(port))


def _host(text: str, path: str) -> str:
    if _HOST.fullmatch(text) or (":" in text and re.fullmatch(r"[0-9a-fA-F:]{2,45}", text)):
        return text
    raise Invalid(f"{text[:60]!r} is neither a host's name nor an address", path=path)
