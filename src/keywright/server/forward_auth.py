"""Forward-auth: a proxy asks before it forwards. Which headers are believed stands in the path, never in what is there.

The input and the canonical path follow ``peers/gateways.md`` 5.3 and 5.4: each header of the family exactly once, and a
path that can be read in two ways is refused rather than guessed at.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from keywright.cache import Compiled, Entry
from keywright.engine import AtHand, Engine
from keywright.model import Ask, GateRule, KeyRecord

PREFIX: Final = b"/authz/forward/"
_METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
#: The headers that a family's proxies send: method, then target.
FORWARD: Final = (b"x-forwarded-method", b"x-forwarded-uri")

#: What a method can look like: ``VERSION-CONTROL`` and ``M-SEARCH`` are some.
_METHOD: Final = re.compile(rb"\A[A-Za-z-]{1,20}\Z")
#: What a gate can be called. Other names are not looked for: they would be remembered as absent, however long.
_NAME: Final = re.compile(r"\A[a-z][a-z0-9-]{0,39}\Z")


class Asked(NamedTuple):
    """What a proxy says of the request that it holds back."""

    method: str
    target: bytes


class Gate(NamedTuple):
    """A gate, found: its keyspace, its environment, and its rules; ``None`` where it asks by method alone."""

    compiled: Compiled
    environment: str
    rules: tuple[GateRule, ...] | None


def read(headers: list[tuple[bytes, bytes]]) -> Asked | None:
    """Read the family's headers; ``None`` where one is missing or doubled."""
    fields = dict(headers)
    method, target = fields.get(b"x-forwarded-method"), fields.get(b"x-forwarded-uri")
    if not method or not target or (len(fields) != len(headers) and _is_doubled(headers)):
        return None
    known = _METHODS.get(method)
    if known is None and _METHOD.match(method):
        known = method.decode("ascii").upper()
    return None if known is None else Asked(known, target)


def _is_doubled(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(sum(name == wanted for name, _ in headers) > 1 for wanted in FORWARD)


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


def ask_of(gate: Gate, asked: Asked, ip: str | None) -> Ask | None:
    """What a gate asks of a request; ``None`` where its path can be read in more than one way."""
    keyspace = gate.compiled.keyspace.name
    if gate.rules is None:
        return Ask(keyspace, gate.environment, method=asked.method, ip=ip)
    path = canonical_path(asked.target)
    if path is None:
        return None
    rule = match(gate.rules, asked.method, path)
    if rule is None:
        # No rule says what this needs, so nothing is asked that a narrower key could hold: only `all` passes.
        return Ask(keyspace, gate.environment, ip=ip, resource="other")
    return Ask(
        keyspace,
        gate.environment,
        scopes=rule.scopes,
        method=asked.method,
        resource=rule.resource or rule.path,
        ip=ip,
        cost=rule.cost,
        authenticate_only=rule.authenticate_only,
        reads=rule.reads,
    )


def match(rules: tuple[GateRule, ...], method: str, path: str) -> GateRule | None:
    """The first rule whose path and method fit. Whole segments, in the case they are written in; ``*`` is any one."""
    segments = path.split("/")
    for rule in rules:
        pattern = rule.path.split("/")
        if pattern[-1] == "**":
            fits = len(segments) >= len(pattern) and _same(pattern[:-1], segments[: len(pattern) - 1])
        else:
            fits = len(segments) == len(pattern) and _same(pattern, segments)
        if fits and (
            not rule.methods or method in rule.methods or (method == "HEAD" and "GET" in rule.methods)
        ):
            return rule
    return None


def canonical_path(target: bytes) -> str | None:
    """The one reading of a target's path, or ``None`` where there are several."""
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


def identity(entry: Entry | None, record: KeyRecord) -> list[tuple[bytes, bytes]]:
    """The identity headers of an allowed request: always all of them, so that none of a client's own survives."""
    if entry is not None and entry.headers is not None:
        return entry.headers
    headers = [
        (b"x-keywright-key", record.id.encode()),
        (b"x-keywright-account", record.account.encode()),
        (b"x-keywright-environment", record.environment.encode()),
        (b"x-keywright-access", record.access.encode()),
        (b"x-keywright-scopes", ",".join(sorted(record.scopes)).encode()),
        (b"cache-control", b"no-store"),
        (b"content-length", b"0"),
    ]
    if entry is not None:
        entry.headers = headers
    return headers


def _same(pattern: list[str], segments: list[str]) -> bool:
    return all(wanted in ("*", segment) for wanted, segment in zip(pattern, segments, strict=True))
