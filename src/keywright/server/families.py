"""The other families of forward-auth: each proxy is heard and answered in its own words, and decided on in those of the first.

What differs stands in ``FAMILIES``: where a proxy says what it holds back, and how its answer is worded. A question is
translated into one at ``/authz/forward/``, and nothing is decided here. Which headers are believed stands in the path: what
a client sends of another family's changes nothing.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from keywright.server import forward_auth
from keywright.server.forward_auth import METHOD, TARGET, Gate
from keywright.server.problems import AtOnce, Pairs, Scope, Send, Steps, lines_of

PREFIX: Final = b"/authz/"
#: An absolute address, as ingress-nginx sends it: whatever a client can write into the host's part, the path begins behind it.
_ADDRESS: Final = re.compile(rb"https?://[0-9A-Za-z._:\[\]-]+(/.*)", re.DOTALL)
#: What nginx's ``auth_request`` takes for trouble of its own, and answers 500.
_UNSPEAKABLE: Final = (400, 402, 429)
#: The location that ``accel`` leads to. It is named in nginx's configuration, and cannot be chosen from outside.
UPSTREAM: Final = b"@upstream"


class Family(NamedTuple):
    """How one kind of proxy asks and is answered."""

    #: the gate's name; and what is held back, in the headers of the first family
    read: Callable[[Scope], tuple[bytes, Pairs]]
    #: an answer in its words: from gate, question, status, headers and body, status and headers
    word: Callable[[Gate | None, Scope, int, Pairs, bytes], tuple[int, Pairs]]


def of(path: bytes) -> Family | None:
    """The family that a path belongs to, if it is one of these."""
    parts = path.split(b"/", 3)
    if len(parts) < 4 or not path.startswith(PREFIX):
        return None
    return FAMILIES.get(parts[2])


def told(family: Family, scope: Scope) -> Scope:
    """A question as ``/authz/forward/`` is asked it."""
    gate, said = family.read(scope)
    headers = [header for header in scope["headers"] if header[0] not in forward_auth.FORWARD]
    raw_path = forward_auth.PREFIX + gate
    return {**scope, "method": "GET", "raw_path": raw_path, "query_string": b"", "headers": [*headers, *said]}


def at_once(family: Family, forward: AtOnce, gates: Mapping[bytes, Gate]) -> AtOnce | None:
    """What answers a family's question without a wait, given what answers the first's."""

    def answer(scope: Scope, body: bytes) -> Steps:
        asked = told(family, scope)
        reply = yield from forward(asked, body)
        if reply is None:
            return None
        status, lines, said = reply
        status, headers = family.word(gates.get(asked["raw_path"]), asked, status, _headers_of(lines), said)
        return status, lines_of(headers), said

    return answer


def wording(family: Family, scope: Scope, send: Send, gates: Mapping[bytes, Gate]) -> tuple[Scope, Send]:
    """A question as the first family's door is asked it, and how its answer goes back; ``HEAD`` is answered without a body."""
    asked, begun = told(family, scope), dict[str, Any]()

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            begun.update(message)
            return
        body = message.get("body", b"")
        gate = gates.get(asked["raw_path"])
        begun["status"], begun["headers"] = family.word(gate, asked, begun["status"], begun["headers"], body)
        await send(begun)
        await send({**message, "body": b"" if scope["method"] == "HEAD" else body})

    return asked, sending


def _headers_of(lines: bytes) -> Pairs:
    pairs = [line.split(b": ", 1) for line in lines.split(b"\r\n")[:-1]]
    return [(name, value) for name, value in pairs]


# ------------------------------------------------------------------------------------------------------- what they say


def _read_original(scope: Scope) -> tuple[bytes, Pairs]:
    """nginx says it in headers of its own. Each one counts, so that two are refused; an address that says the same is none."""
    gate: bytes = scope["raw_path"].split(b"/", 3)[3]
    said: Pairs = []
    for name, value in scope["headers"]:
        if name == b"x-original-method":
            said.append((METHOD, value))
        elif name == b"x-original-uri":
            said.append((TARGET, value))
    for name, value in scope["headers"]:
        if name == b"x-original-url":
            address = _ADDRESS.fullmatch(value)
            target = (TARGET, b"" if address is None else address[1])
            if target not in said:
                said.append(target)
    return gate, said


def _read_line(scope: Scope) -> tuple[bytes, Pairs]:
    """Envoy asks as it was asked: the method, and the target behind the gate. Where only a decoded path is left, none is read."""
    gate, slash, path = scope["raw_path"].split(b"/", 3)[3].partition(b"/")
    query = scope["query_string"]
    said = [(METHOD, scope["method"].encode("latin-1"))]
    if slash and "keywright.guessed" not in scope:
        said.append((TARGET, slash + path + b"?" + query if query else slash + path))
    return gate, said


# --------------------------------------------------------------------------------------------------- what they are told


def _word_nginx(
    _gate: Gate | None, _asked: Scope, status: int, headers: Pairs, body: bytes
) -> tuple[int, Pairs]:
    """``auth_request`` carries no body and two refusals: the whole answer goes in headers, for ``return`` to say."""
    if status == 200:
        return status, headers
    whole = [(b"x-authz-status", b"%d" % status), (b"x-authz-body", body)]
    return 403 if status in _UNSPEAKABLE else status, [*headers, *whole]


def _word_accel(
    _gate: Gate | None, _asked: Scope, status: int, headers: Pairs, _body: bytes
) -> tuple[int, Pairs]:
    """nginx goes on where it is led. ``Cache-Control`` would be said of the upstream's answer; nginx's own word is not."""
    if status != 200:
        return status, headers
    kept = [header for header in headers if header[0] != b"cache-control"]
    return status, [*kept, (b"x-accel-expires", b"0"), (b"x-accel-redirect", UPSTREAM)]


def _word_envoy(
    gate: Gate | None, asked: Scope, status: int, headers: Pairs, _body: bytes
) -> tuple[int, Pairs]:
    """The headers that the key came in do not reach the upstream."""
    if status != 200 or gate is None:
        return status, headers
    carriers = b",".join(gate.compiled.reader.carriers(asked["headers"]))
    return status, [*headers, (b"x-envoy-auth-headers-to-remove", carriers)]


FAMILIES: Final = {
    b"nginx": Family(_read_original, _word_nginx),
    b"accel": Family(_read_original, _word_accel),
    b"envoy": Family(_read_line, _word_envoy),
}
