"""Forward-auth: a proxy asks before it forwards. Which headers are believed stands in the path, never in what is there.

The input and the canonical path follow ``peers/gateways.md`` 5.3 and 5.4: each header of the family exactly once, and a
path that can be read in two ways is refused rather than guessed at.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from keywright.cache import Compiled
from keywright.engine import AtHand, Engine
from keywright.errors import Unavailable
from keywright.model import Ask, GateRule, KeyRecord

Pair = tuple[bytes, bytes]
Pairs = Iterable[Pair]

PREFIX: Final = b"/authz/forward/"
_METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
#: The headers that a family's proxies send.
METHOD: Final = b"x-forwarded-method"
TARGET: Final = b"x-forwarded-uri"
FORWARD: Final = frozenset({METHOD, TARGET})

#: What a method can look like: ``VERSION-CONTROL`` and ``M-SEARCH`` are some.
_METHOD: Final = re.compile(rb"\A[A-Za-z-]{1,20}\Z")
#: What a gate can be called. Other names are not looked for: they would be remembered as absent, however long.
_NAME: Final = re.compile(r"\A[a-z][a-z0-9-]{0,39}\Z")
#: A target whose path is plain: no escape, no segment that is empty or begins with a dot, nothing that anybody reads twice.
_PLAIN: Final = re.compile(rb"((?:/[0-9A-Za-z_~-][0-9A-Za-z._~-]*)+)(?:\?|\Z)")


class Gate:
    """A gate, found: its keyspace, its environment, and its rules; ``None`` where it asks by method alone."""

    __slots__ = ("_keyspace", "_rules", "compiled", "environment")

    def __init__(self, compiled: Compiled, environment: str, rules: tuple[GateRule, ...] | None) -> None:
        self.compiled = compiled
        self.environment = environment
        self._keyspace = compiled.keyspace.name
        self._rules = None if rules is None else [(_fitting(rule.path), rule) for rule in rules]

    def ask(self, method: str, target: bytes, ip: str | None) -> Ask | None:
        """What is asked of a request; ``None`` where its path can be read in more than one way."""
        if self._rules is None:
            return Ask(self._keyspace, self.environment, method=method, ip=ip)
        path = canonical_path(target)
        if path is None:
            return None
        rule = self._rule(method, path)
        if rule is None:
            # No rule says what this needs, so nothing is asked that a narrower key could hold: only `all` passes.
            return Ask(self._keyspace, self.environment, ip=ip, resource="other")
        return Ask(
            self._keyspace,
            self.environment,
            scopes=rule.scopes,
            method=method,
            resource=rule.resource or rule.path,
            ip=ip,
            cost=rule.cost,
            authenticate_only=rule.authenticate_only,
            reads=rule.reads,
        )

    def _rule(self, method: str, path: str) -> GateRule | None:
        """The first rule whose path and method fit; what fits GET fits HEAD."""
        for fits, rule in self._rules or ():
            methods = rule.methods
            if (not methods or method in methods or (method == "HEAD" and "GET" in methods)) and fits(path):
                return rule
        return None


def _fitting(pattern: str) -> Callable[[str], object]:
    """Whether a path fits: whole segments, in the case they are written in; ``*`` is any one, ``**`` any to the end."""
    *segments, last = pattern.split("/")
    parts = ["[^/]*" if segment == "*" else re.escape(segment) for segment in segments]
    parts.append({"*": "[^/]*", "**": ".*"}.get(last) or re.escape(last))
    return re.compile("/".join(parts), re.DOTALL).fullmatch


def read(headers: Pairs) -> tuple[str, bytes] | None:
    """Read the family's headers, method and target; ``None`` where one is missing, doubled or unreadable."""
    method = target = None
    for name, value in headers:
        if name in FORWARD:
            if name == METHOD:
                method = value if method is None else b""
            else:
                target = value if target is None else b""
    if not method or not target:
        return None
    known = _METHODS.get(method)
    if known is None and _METHOD.match(method):
        known = method.decode("ascii").upper()
    return None if known is None else (known, target)


def find(engine: Engine, name: str, *, stale: bool, at_hand: AtHand | None = None) -> Gate | None:
    """Find a gate: ``{keyspace}.{environment}`` always exists, other names are in the keyspaces' definitions."""
    keyspace, dot, environment = name.partition(".")
    if dot:
        compiled = engine.known(keyspace, stale=stale, at_hand=at_hand)
        if compiled is None or environment not in compiled.keyspace.environments:
            return None
        return Gate(compiled, environment, None)
    compiled = engine.with_gate(name, stale=stale, at_hand=at_hand) if _NAME.match(name) else None
    if compiled is None:
        return None
    gate = compiled.keyspace.gates[name]
    return Gate(compiled, gate.environment, gate.rules)


def canonical_path(target: bytes) -> str | None:
    """The one reading of a target's path, or ``None`` where there are several."""
    plain = _PLAIN.match(target)
    if plain is not None:
        return plain[1].decode("ascii")
    raw = target.partition(b"?")[0]
    if not raw.startswith(b"/") or b"\\" in raw or b"#" in raw:
        return None
    lower = raw.lower()
    if b"%2f" in lower or b"%5c" in lower or b"%00" in lower:
        return None
    decoded = unquote_to_bytes(raw)
    try:
        path = decoded.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "%" in path or ";" in path or any(ord(character) < 32 or ord(character) == 127 for character in path):
        return None
    segments = [segment for place, segment in enumerate(path.split("/")) if segment or place == 0]
    if "." in segments or ".." in segments:
        return None
    return "/".join(segments) or "/"


def identity(record: KeyRecord) -> tuple[Pair, ...]:
    """The identity headers of an allowed request: always all of them, so that none of a client's own survives."""
    return (
        (b"x-keywright-key", record.id.encode()),
        _shared(b"x-keywright-account", record.account),
        _shared(b"x-keywright-environment", record.environment),
        _shared(b"x-keywright-access", record.access),
        _shared(b"x-keywright-scopes", ",".join(sorted(record.scopes))),
        (b"cache-control", b"no-store"),
        (b"content-length", b"0"),
    )


@lru_cache(maxsize=10_000)
def _shared(name: bytes, value: str) -> Pair:
    """A header that many keys have in common, once in memory.

    What stands in a row is written into an answer as it is, and was checked when the row was made. A row that somebody
    has edited by hand must not write headers of its own: the key is unavailable then.
    """
    if not value.isprintable():
        raise Unavailable(f"the record of the key cannot be read: {name.decode()} has control characters")
    return name, value.encode()
