"""Responses of the raw doors: problem+json and plain JSON, as ASGI messages."""

from collections.abc import Awaitable, Callable, Generator, Iterable, MutableMapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from keywright.answers import problem
from keywright.errors import CODES, Invalid, KeywrightError, Unavailable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Pairs = list[tuple[bytes, bytes]]
#: A whole response: status, headers with their length as the lines that they are on the wire, body.
Reply = tuple[int, bytes, bytes]
#: The steps towards a response, each to be taken for all requests at hand before the next (``wire.Turn``). Without a
#: response in the end nothing was done: the request must be awaited, or refused with care.
Steps = Generator[None, None, Reply | None]
#: Answers a whole request from memory.
AtOnce = Callable[[Scope, bytes], Steps]


class Prompt(Protocol):
    """An application that may answer some requests on the spot."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        ...

    def at_once(self, path: bytes) -> AtOnce | None:
        """What may answer a request for a path without a wait."""
        ...


NO_STORE: Final = (b"cache-control", b"no-store")
JSON: Final = (b"content-type", b"application/json")
PROBLEM: Final = (b"content-type", b"application/problem+json")
NOSNIFF: Final = (b"x-content-type-options", b"nosniff")


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they stand on the wire."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


async def respond(scope: Scope, send: Send, status: int, headers: Pairs, body: bytes) -> None:
    """Send a whole response; to HEAD, without its body."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def respond_json(
    scope: Scope, send: Send, status: int, value: Any, *, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send a JSON document that nobody may keep."""
    await respond(scope, send, status, [JSON, NO_STORE, NOSNIFF, *headers], msgspec.json.encode(value))


async def respond_problem(
    scope: Scope, send: Send, code: str, detail: str, *, headers: Pairs | None = None, **more: Any
) -> None:
    """Send an error under its code, in the shape of the keyspace that was called, where one was."""
    request_id = scope["keywright.request_id"]
    if scope.get("keywright.errors") == "message":
        kind = JSON
        said = {"message": detail, "data": {"code": code, "request_id": request_id, **more}}
    else:
        kind, said = PROBLEM, problem(code, detail, request_id, **more)
    sent = [kind, NO_STORE, NOSNIFF, *(headers or ())]
    await respond(scope, send, CODES[code].status, sent, msgspec.json.encode(said))


async def respond_error(scope: Scope, send: Send, error: KeywrightError) -> None:
    """Send an error of ours; the path of the field at fault goes with it."""
    headers: Pairs = [(b"retry-after", b"1")] if isinstance(error, Unavailable) else []
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="Keywright"'))
    more = {"errors": [{"path": error.path, "reason": error.reason}]} if isinstance(error, Invalid) else {}
    detail = (
        "The store does not answer right now; try again." if isinstance(error, Unavailable) else str(error)
    )
    await respond_problem(scope, send, error.code, detail, headers=headers, **more)


async def refuse_body(scope: Scope, send: Send, wrong: Exception) -> None:
    """Refuse a body that could not be decoded, naming the field at fault where there is one."""
    if isinstance(wrong, msgspec.ValidationError):
        reason, _, path = str(wrong).partition(" - at `$")
        errors = [{"path": path.strip("`").lstrip("."), "reason": reason}]
        await respond_problem(scope, send, "invalid_request", str(wrong), errors=errors)
        return
    detail = (
        "The body is nested too deeply." if isinstance(wrong, RecursionError) else "The body is not JSON."
    )
    await respond_problem(scope, send, "bad_json", detail)
