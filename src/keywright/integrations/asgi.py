"""Any ASGI application: a middleware that asks before the application is called, for HTTP and for websockets alike.

    app = KeywrightMiddleware(app, kw, scopes=["contacts:read"], exempt=["/health"])

The application finds the verdict in ``scope["keywright"]`` and the caller by ``caller_of(scope)``; Starlette's requests have
the caller as ``request.state.api_key``. Put a CORS middleware outside this one, so that it answers preflights and its headers
are on refusals too; or name the headers of a preflight's answer as ``preflight``.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import quote

from keywright.answers import Answer, say_headers
from keywright.integrations.guard import Caller, Doorway, Told
from keywright.model import Verdict

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONNECTIONS: Final = ("http", "websocket")
#: The close code of a websocket whose opener may not: RFC 6455, policy violation.
POLICY_VIOLATION: Final = 1008
STARTS: Final = ("http.response.start", "websocket.accept")
_DENIAL: Final = "websocket.http.response"


def peer(scope: Scope) -> str | None:
    """The address that a connection came from. A server behind a proxy is told by its own settings whom to believe."""
    client = scope.get("client")
    return client[0] if client else None


class KeywrightMiddleware(Doorway[App, Scope]):
    """Lets into an application only what Keywright lets in, and answers the rest with the verdict, verbatim.

    It is told what every ``Doorway`` is; functions get the ASGI scope. An exempt path is spelled exactly so, without any percent
    sign. The events of a lifespan pass, and nothing else that is neither HTTP nor a websocket.
    """

    def peer(self, scope: Scope, /) -> str | None:
        """The address that a connection came from."""
        return peer(scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan" or (scope["type"] in CONNECTIONS and self.is_exempt(scope)):
            await self.app(scope, receive, send)
            return
        known = told(scope, self.client(scope), self.resource(scope))
        answer = self.guard.preflight(known)
        if answer is None:
            verdict = await self.guard.averify(known, self.asked(scope), scope)
            if verdict:
                self.admit(scope, verdict)
                await self.app(scope, receive, adding(self.guard.limits_headers(verdict), send))
                return
            answer = self.guard.refusal(verdict)
        await say(answer, scope, receive, send)

    def is_exempt(self, scope: Scope) -> bool:
        """Whether a connection is open to everybody."""
        return is_listed(scope, self.exempt)

    def admit(self, scope: Scope, verdict: Verdict) -> None:
        """Tell the application whom it serves."""
        scope["keywright"] = verdict
        scope.setdefault("state", {})["api_key"] = Caller.of(verdict)


def caller_of(scope: Mapping[str, Any]) -> Caller | None:
    """Whose connection it is; nobody's on an exempt path."""
    verdict = scope.get("keywright")
    return None if verdict is None else Caller.of(verdict)


def told(scope: Scope, ip: str | None, resource: str | None = None) -> Told:
    """A connection as a guard is told of it: its headers as they came, each as often as it was sent.

    Raises ``ValueError`` for what is neither HTTP nor a websocket.
    """
    if scope["type"] not in CONNECTIONS:
        raise ValueError(f"{scope['type']} is neither HTTP nor a websocket")
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    url = path + b"?" + scope.get("query_string", b"")
    return Told(scope["headers"], url, scope.get("method"), ip, resource)


def is_listed(scope: Scope, paths: frozenset[str]) -> bool:
    """Whether a connection's whole path is one of these, spelled exactly so: without any percent sign."""
    return scope["path"] in paths and b"%" not in (scope.get("raw_path") or b"").partition(b"?")[0]


def adding(headers: list[tuple[str, str]], send: Send) -> Send:
    """A ``send`` that adds headers to the answer, save those that it has."""

    async def sending(message: Message) -> None:
        await send(added(headers, message))

    return sending


def added(headers: list[tuple[str, str]], message: Message) -> Message:
    """What begins an answer, with headers added, save those that it has; any other message as it is."""
    if message["type"] not in STARTS:
        return message
    own = list(message.get("headers", ()))
    names = {bytes(name).lower() for name, _ in own}
    return {**message, "headers": own + [pair for pair in say_headers(headers) if pair[0] not in names]}


async def say(answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a connection. A websocket is refused before it is accepted: with the whole answer, where the server can."""
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # the handshake, which comes first
        kind = _DENIAL
    if kind == _DENIAL and _DENIAL not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
        return
    headers = say_headers(answer.headers)
    if answer.status != 204:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    body = b"" if scope.get("method") == "HEAD" else answer.body
    await send({"type": f"{kind}.start", "status": answer.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
