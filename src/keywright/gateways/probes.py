"""Requests that show whether a proxy lets through what it should, and nothing else, with ``gateways.echo`` behind it.

Each probe is a row of ``PROBES``. What it holds is its sentence; what it saw is said in a ``Finding``.
"""

import hashlib
import http.client
import json
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from keywright.errors import Invalid, Unavailable
from keywright.gateways import IDENTITY
from keywright.gateways.echo import MARK

Headers = Sequence[tuple[str, str]]
Level = Literal["ok", "note", "failed"]
_PATIENCE: Final = 15.0  # seconds
_LONGEST: Final = 1 << 20
_FORGED: Final = "forged-by-the-client"
#: What two servers read differently in a path.
_TWO_READINGS: Final = re.compile(r"/\.{1,2}(?=/|\Z)|%2e|%2f|%5c|%00|%25|\\|;", re.IGNORECASE)


class Finding(NamedTuple):
    """What a probe saw: ``ok``; ``note`` for what need not be a fault; or ``failed``."""

    check: str
    level: Level
    says: str


class Seen(NamedTuple):
    """An answer that came through the proxy. ``arrived`` is what the echo says of the request, where it was asked."""

    status: int
    headers: Headers
    body: bytes
    arrived: dict[str, Any] | None

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name]

    def came(self, name: str) -> list[str]:
        """Every value of a header that arrived at the echo; an underscore counts for a hyphen."""
        headers = self.arrived["headers"] if self.arrived else []
        return [value for key, value in headers if key.lower().replace("_", "-") == name]

    @property
    def code(self) -> str:
        """The code of a refusal; nothing where the answer is none of Keywright's."""
        try:
            said = json.loads(self.body)
            return str(said["code"] if "code" in said else said["data"]["code"])
        except (ValueError, TypeError, KeyError):
            return ""

    @property
    def shown(self) -> str:
        """In a few words."""
        where = "it reached the upstream" if self.arrived is not None else "the upstream was not asked"
        return f"{self.status}{f' {self.code}' if self.code else ''}, and {where}"


class Failed(Exception):
    """The proxy does not hold what a probe is about; the message says what was seen."""


class Note(Exception):
    """What was seen need not be a fault."""


class Through:
    """Sends requests through a proxy, byte for byte as they are given, each on a connection of its own."""

    def __init__(self, url: str, path: str, key: Headers, gate: str = "") -> None:
        """``key`` is the headers of a right key, ``path`` what it may read. Raises ``Invalid``."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in ("http", "https") or parts.path not in ("", "/") or parts.query:
            raise Invalid(f"{url[:60]!r} is not an address such as http://127.0.0.1:8080", path="url")
        if not re.fullmatch(r"/[!-~]*", path):
            raise Invalid("is not a path such as /things/1", path="--path")
        self.host, self.port = host, port or (443 if parts.scheme == "https" else 80)
        self.path, self.key, self.gate = path, key, gate
        self._named = parts.netloc
        self._context = ssl.create_default_context() if parts.scheme == "https" else None

    @property
    def has_rules(self) -> bool:
        """Whether the gate is known to refuse paths that have two readings."""
        return bool(self.gate) and "." not in self.gate

    def send(
        self,
        headers: Headers = (),
        *,
        method: str = "GET",
        target: str | None = None,
        body: bytes = b"",
    ) -> Seen:
        """Send a request and read its answer. Raises ``Unavailable`` where there is none."""
        line = f"{method} {self.path if target is None else target} HTTP/1.1"
        names = {name.lower() for name, _ in headers}
        lines = [line, f"Host: {self._named}", *(f"{name}: {value}" for name, value in headers)]
        lines += [] if "connection" in names else ["Connection: close"]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        try:
            with self._connected() as connection:
                connection.sendall(head + body)
                return self._read(connection, method)
        except (OSError, http.client.HTTPException) as trouble:
            said = getattr(trouble, "strerror", None) or str(trouble) or type(trouble).__name__
            raise Unavailable(
                f"{self._named} gave no answer to {method} {target or self.path}: {said}"
            ) from None

    def _connected(self) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout=_PATIENCE)
        return (
            self._context.wrap_socket(connection, server_hostname=self.host) if self._context else connection
        )

    @staticmethod
    def _read(connection: socket.socket, method: str) -> Seen:
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        if answer.status == 101:
            raw = answer.fp.read(_LONGEST)
            found = raw[raw.find(b"{") :]
        else:
            found = answer.read(_LONGEST)
        arrived = None
        with suppress(ValueError):
            said = json.loads(found)
            arrived = said if isinstance(said, dict) and said.get("echo") == MARK else None
        return Seen(answer.status, answer.getheaders(), found, arrived)


def probe(through: Through) -> Iterator[Finding]:
    """Send every probe, in their order. Where a right key does not get through, the first says so and is the last."""
    for name, (_, run) in PROBES.items():
        try:
            finding = Finding(name, "ok", run(through))
        except Note as noted:
            finding = Finding(name, "note", str(noted))
        except Failed as failed:
            finding = Finding(name, "failed", str(failed))
        yield finding
        if name == FIRST and finding.level == "failed":
            return


# ---------------------------------------------------------------------------------------------------------- the probes


def _refused(seen: Seen, *statuses: int) -> str:
    """What was seen, where it is a refusal, with one of these statuses if there are any. Raises ``Failed``."""
    if seen.arrived is not None or seen.status < 400 or (statuses and seen.status not in statuses):
        raise Failed(seen.shown)
    return seen.shown


def _identity(seen: Seen) -> dict[str, list[str]]:
    return {name: seen.came(f"x-keywright-{name}") for name in IDENTITY}


def _allowed(through: Through, more: Headers = (), **what: Any) -> Seen:
    """The answer to a request with the right key, which has to arrive. Raises ``Failed``."""
    seen = through.send([*through.key, *more], **what)
    if seen.arrived is None:
        raise Failed(seen.shown)
    return seen


def _right_key(through: Through) -> str:
    seen = through.send(through.key)
    if seen.arrived is None:
        raise Failed(f"a request with the key was answered {seen.shown}{_why(seen)}")
    # nginx passes on no header that is empty, and a key that may do all has no scopes
    strange = [
        name for name, values in _identity(seen).items() if len(values) != 1 and (values or name != "scopes")
    ]
    if strange:
        names = ", ".join(f"X-Keywright-{name.title()}" for name in strange)
        raise Failed(f"the upstream has {names} not at all, or twice")
    if seen.arrived["target"] != through.path:
        raise Failed(f"{through.path} arrived as {seen.arrived['target']}")
    return f"{seen.status}, as {seen.came('x-keywright-account')[0]}"


def _why(seen: Seen) -> str:
    """What to look at where a right key does not get through."""
    if seen.status >= 500:
        return "; does Keywright answer the proxy, and `keywright gateway echo`?"
    return "" if seen.status >= 400 else "; is `keywright gateway echo` behind the proxy?"


def _no_key(through: Through) -> str:
    seen = through.send()
    said = _refused(seen, 401)
    if seen.code != "missing" or len(seen.all("www-authenticate")) != 1:
        raise Failed(f"{said}; the body and the one WWW-Authenticate of Keywright did not come through")
    return said


def _wrong_key(through: Through) -> str:
    return _refused(through.send([(name, "Bearer nobody_knows_this") for name, _ in through.key]), 401)


def _hidden_key(through: Through) -> str:
    seen = _allowed(through)
    came = [name for name, _ in through.key if seen.came(name.lower())]
    if came:
        raise Failed(f"the upstream has the key: {', '.join(came)}")
    return "the upstream has nothing of the key"


def _forged_identity(through: Through) -> str:
    forged = [(f"X-Keywright-{name.title()}", _FORGED) for name in IDENTITY] * 2
    return _true_identity(through, forged)


def _underscore_twins(through: Through) -> str:
    return _true_identity(through, [(f"X_Keywright_{name.title()}", _FORGED) for name in IDENTITY])


def _connection(through: Through) -> str:
    named = ", ".join(f"X-Keywright-{name.title()}" for name in IDENTITY)
    return _true_identity(through, [("Connection", f"close, {named}")])


def _true_identity(through: Through, more: Headers) -> str:
    """Whatever a client sends, the upstream has the identity that is true, or is not asked. Raises ``Failed``."""
    seen, plain = through.send([*through.key, *more]), _allowed(through)
    if seen.arrived is None:
        return _refused(seen)
    if _identity(seen) != _identity(plain):
        raise Failed(f"the upstream has {_identity(seen)}")
    return "the upstream has the true identity, once"


def _doubled_key(through: Through) -> str:
    wrong = [(name, "Bearer nobody_knows_this") for name, _ in through.key]
    said = [_refused(through.send([*through.key, *more])) for more in (through.key, wrong)]
    _refused(through.send([*wrong, *through.key]))
    return said[0]


def _paths(through: Through) -> str:
    path = through.path
    tricks = [f"/x/..{path}", f"/.{path}", f"/x/%2e%2e{path}", f"/x/%2E%2E{path}", f"/x%2f..{path}"]
    tricks += [f"{path}%2f..", f"{path}%00", f"{path}\\..", f"{path};x", f"{path}%252e"]
    kept = [seen for seen in (through.send(through.key, target=trick) for trick in tricks) if seen.arrived]
    odd = [str(seen.arrived["target"]) for seen in kept if seen.arrived]
    odd = [target for target in odd if _TWO_READINGS.search(target)]
    if odd and through.has_rules:
        raise Failed(f"the upstream was asked for {', '.join(odd)}")
    if odd:
        raise Note(
            f"{', '.join(odd)} arrived as they were sent, which only a gate without rules may allow: say --gate"
        )
    return f"{len(tricks) - len(kept)} of {len(tricks)} refused; what arrived has one reading"


def _forged_target(through: Through) -> str:
    """A forged target holds a credential's name: whoever believed it would answer ``ambiguous``."""
    forged = f"/?{through.key[0][0]}={_FORGED}"
    names = ("X-Forwarded-Uri", "X-Original-URI", "X-Envoy-Original-Path", "X-Rewrite-URL")
    more = [(name, forged) for name in names] + [("X-Original-URL", f"http://localhost{forged}")]
    more += [("X-Forwarded-Method", "OPTIONS"), ("X-Original-Method", "OPTIONS")]
    _refused(through.send(more), 401)
    seen = through.send([*through.key, *more])
    if seen.arrived is None:
        if seen.code == "ambiguous":
            raise Failed("the proxy has Keywright decide on a target that the client made up")
        return _refused(seen)
    if seen.arrived["target"] != through.path:
        raise Failed(f"the upstream was asked for {seen.arrived['target']}")
    return "what a client says of its own target is not believed"


def _head(through: Through) -> str:
    refused, seen = through.send(method="HEAD"), through.send(through.key, method="HEAD")
    if refused.status != 401 or seen.status != 200 or refused.body or seen.body:
        raise Failed(f"{refused.status} without a key, {seen.status} with it")
    return "401 without a key, 200 with it, no body"


def _body(through: Through) -> str:
    content = bytes(range(256)) * 400
    whole = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (content[:70_000], content[70_000:]))
    more = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/octet-stream")]
    seen = through.send([*through.key, *more], method="POST", body=whole + b"0\r\n\r\n")
    if seen.arrived is None:
        raise Note(f"POST {through.path} was answered {seen.shown}: a body could not be tried")
    if seen.arrived["body"]["sha256"] != hashlib.sha256(content).hexdigest():
        raise Failed(f"of {len(content)} bytes {seen.arrived['body']['bytes']} arrived, or others")
    return f"{len(content)} bytes arrived as they were sent"


def _websocket(through: Through) -> str:
    wish = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    wish.append(("Sec-WebSocket-Key", b64encode(b"sixteen letters.").decode()))
    _refused(through.send(wish), 401)
    seen = through.send([*through.key, *wish])
    if seen.status != 101 or seen.arrived is None:
        raise Note(f"a WebSocket was answered {seen.shown}")
    return "refused without a key, opened with it"


def _limits(through: Through) -> str:
    seen = _allowed(through)
    if len(seen.all("ratelimit")) != 1:
        raise Note("no RateLimit for the client: the key has no limit, or the proxy does not pass it on")
    return f"RateLimit: {seen.all('ratelimit')[0]}"


FIRST: Final = "right key"
#: Every probe: what it holds, and how.
PROBES: Final[dict[str, tuple[str, Callable[[Through], str]]]] = {
    FIRST: ("A right key gets through, and the upstream has its identity, no header twice.", _right_key),
    "no key": ("Without a key the client has Keywright's 401, and the upstream is not asked.", _no_key),
    "wrong key": ("A wrong key is 401, and the upstream is not asked.", _wrong_key),
    "hidden key": ("The upstream never has the key.", _hidden_key),
    "doubled key": ("Two keys in one request are refused, whichever comes first.", _doubled_key),
    "forged identity": ("Identity headers that a client sends are gone.", _forged_identity),
    "underscores": ("Nor do they survive with underscores.", _underscore_twins),
    "connection": (
        "A client cannot have identity headers dropped by naming them in Connection.",
        _connection,
    ),
    "forged target": (
        "Method and target that are decided on are the proxy's word, not the client's.",
        _forged_target,
    ),
    "paths": ("A path with two readings is refused, or has one when it arrives.", _paths),
    "head": ("HEAD is decided on as GET is, and has no body.", _head),
    "body": ("A body in chunks arrives whole.", _body),
    "websocket": ("A WebSocket is refused without a key, and opened with it.", _websocket),
    "limits": ("What is left of a limit reaches the client of an allowed request.", _limits),
}
