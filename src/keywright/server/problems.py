"""Responses of the raw doors: problem+json and plain JSON, as ASGI messages."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from keywright.answers import problem
from keywright.errors import CODES, Invalid, KeywrightError, Unavailable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Pairs = list[tuple[bytes, bytes]]

NO_STORE: Final = (b"cache-control", b"no-store")
JSON: Final = (b"content-type", b"application/json")
PROBLEM: Final = (b"content-type", b"application/problem+json")
NOSNIFF: Final = (b"x-content-type-options", b"nosniff")


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


async def respond_json(scope: Scope, send: Send, status: int, value: Any) -> None:
    """Send a JSON document that nobody may keep."""
    await respond(scope, send, status, [JSON, NO_STORE, NOSNIFF], msgspec.json.encode(value))


async def respond_problem(
    scope: Scope, send: Send, code: str, detail: str, *, headers: Pairs | None = None, **more: Any
) -> None:
    """Send an error under its code."""
    body = msgspec.json.encode(problem(code, detail, scope["keywright.request_id"], **more))
    sent = [PROBLEM, NO_STORE, NOSNIFF, *(headers or ())]
    await respond(scope, send, CODES[code].status, sent, body)


async def respond_error(scope: Scope, send: Send, error: KeywrightError) -> None:
    """Send an error of ours; the path of the field at fault goes with it."""
    headers: Pairs = [(b"retry-after", b"1")] if isinstance(error, Unavailable) else []
    more = {"errors": [{"path": error.path, "reason": error.reason}]} if isinstance(error, Invalid) else {}
    detail = (
        "The store does not answer right now; try again." if isinstance(error, Unavailable) else str(error)
    )
    await respond_problem(scope, send, error.code, detail, headers=headers, **more)
