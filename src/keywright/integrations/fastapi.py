"""FastAPI: a dependency whose scopes and schemes stand in the application's OpenAPI document.

    auth = APIKeyAuth(kw)

    @app.get("/contacts")
    async def contacts(caller: Annotated[Caller, Security(auth, scopes=["contacts:read"])]): ...

    app = FastAPI(dependencies=[Security(auth)])  # or a router: every route of it

A refusal is answered verbatim with nothing to register. ``auth.install(app)`` completes two things that FastAPI has no place
for: the limits' headers on a ``Response`` that a handler makes itself, and that both headers of a pair belong together in the
OpenAPI document. It works on websocket routes as well, which are refused before they are accepted.
"""

from collections.abc import Callable, Iterable, Iterator
from inspect import Parameter, Signature
from typing import Any, Final, Protocol, Unpack

from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBase, HTTPBearer
from fastapi.openapi.models import SecurityBase as Described
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from keywright.answers import Answer
from keywright.integrations import asgi
from keywright.integrations.guard import Caller, Guard, Options, Verifier
from keywright.model import Keyspace, Verdict
from keywright.schemes import SCHEMES

_HANDLERS: Final = "starlette.exception_handlers"
_VERDICT: Final = "keywright"
_EXTENSION: Final = "x-keywright-with"


class Readable(Verifier, Protocol):
    """Whoever can verify, and tell of its keyspaces."""

    @property
    def keyspace(self) -> str | None:
        """The keyspace that it was opened with."""

    @property
    def keyspaces(self) -> Any:
        """The verbs on keyspaces."""


class Refused(HTTPException):
    """A request may not proceed. It is answered with ``answer``, verbatim, unless the application says otherwise."""

    def __init__(self, answer: Answer) -> None:
        own = {name: value for name, value in answer.headers if name != "Content-Type"}
        super().__init__(answer.status, headers=own)
        self.answer = answer


async def refuse(connection: Request | WebSocket, refused: Refused) -> Response | None:
    """Answer a refused connection: the handler of ``Refused``."""
    status, headers, body = refused.answer
    response = Response(body, status, dict(headers))
    if isinstance(connection, Request):
        return response
    if "websocket.http.response" in connection.scope.get("extensions", {}):
        await connection.send_denial_response(response)
    else:
        await connection.close(asgi.POLICY_VIOLATION)
    return None


class APIKeyAuth:
    """The dependency. It gives the handler a ``Caller``, or the client the verdict's answer.

    The OpenAPI document describes the keyspace's schemes, which are read from it now; with ``schemes``, the ``Keyspace`` of
    a definition, nothing is asked before the first request. ``client`` says whose address a connection has.
    """

    def __init__(
        self,
        keywright: Readable,
        *,
        schemes: Keyspace | None = None,
        client: Callable[[asgi.Scope], str | None] = asgi.peer,
        **options: Unpack[Options],
    ) -> None:
        if "preflight" in options:
            raise TypeError("a preflight reaches no dependency: put CORSMiddleware on the application")
        self._guard = Guard(keywright, **options)
        self._client = client
        keyspace = schemes or keywright.keyspaces.get(options.get("keyspace") or keywright.keyspace).keyspace
        self.__signature__ = _signature(_described(keyspace))

    async def __call__(
        self, needed: SecurityScopes, connection: HTTPConnection, response: Response, **_described: None
    ) -> Caller:
        """Ask about a connection. Raises ``Refused``."""
        verdict = await self._verdict(connection.scope, needed.scopes)
        if not verdict:
            handlers = connection.scope.get(_HANDLERS)
            if handlers is not None:
                handlers[0].setdefault(Refused, refuse)
            raise Refused(self._guard.refusal(verdict))
        connection.scope[_VERDICT] = verdict
        for name, value in self._guard.limits_headers(verdict):
            response.headers.setdefault(name, value)
        return Caller.of(verdict)

    def install(self, app: FastAPI) -> None:
        """Complete an application: the headers of all its responses, and the pairs in its OpenAPI document."""
        app.add_middleware(_Limits, guard=self._guard)
        original = app.openapi

        def openapi() -> dict[str, Any]:
            return _paired(original())

        app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way

    async def _verdict(self, scope: asgi.Scope, needed: list[str]) -> Verdict:
        """Ask once a connection, for all that its route needs of this dependency or one like it, wherever that is said.

        Where FastAPI does not tell of the route, what is needed besides is asked when it is, and not charged.
        """
        route = _route(scope)
        known = asgi.told(scope, self._client(scope), getattr(route, "path", None))
        return await self._guard.averify(known, dict.fromkeys([*needed, *self._needed(route)]), scope)

    def _needed(self, route: Any) -> Iterator[str]:
        """Every scope that a route needs: as the parameter that wants it, its routers and the application say."""
        waiting = [getattr(route, "dependant", None)]
        while waiting:
            wanted = waiting.pop()
            own = getattr(wanted, "call", None)
            if isinstance(own, APIKeyAuth) and own._guard.asks_as(self._guard):
                yield from getattr(wanted, "parent_oauth_scopes", None) or ()
                yield from getattr(wanted, "own_oauth_scopes", None) or ()
            waiting.extend(getattr(wanted, "dependencies", ()))


def _route(scope: asgi.Scope) -> Any:
    """The route as it stands in the application, its routers' prefixes and dependencies included."""
    return scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")


class _Limits:
    """Adds the limits' headers to what a handler answers by itself."""

    def __init__(self, app: asgi.App, guard: Guard) -> None:
        self.app = app
        self._guard = guard

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        async def sending(message: asgi.Message) -> None:
            verdict = scope.get(_VERDICT)
            if verdict is not None and message["type"] in asgi.STARTS:
                message = asgi.added(self._guard.limits_headers(verdict), message)
            await send(message)

        await self.app(scope, receive, sending)


# -------------------------------------------------------------------------------------------------- the OpenAPI document


class _Scheme(SecurityBase):
    """A scheme as the document describes it. It reads nothing: the verdict is Keywright's."""

    def __init__(self, name: str, model: Described) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self) -> None:
        return None


def _described(keyspace: Keyspace) -> Iterator[_Scheme]:
    for name in keyspace.schemes:
        for header, value in SCHEMES[name].shown[:1]:
            yield _Scheme(f"{keyspace.name}_{name}", _model(keyspace, name, header, value))
        if name == "api_key_auth":
            yield _Scheme(f"{keyspace.name}_api_key", _header("Api-Key", "<token>"))


def _model(keyspace: Keyspace, name: str, header: str, value: str) -> Described:
    if name == "bearer":
        return HTTPBearer(description=f"`{header}: {value}`")
    if name == "basic":
        return HTTPBase(scheme="basic", description=f"`{header}: {value}`")
    return _header(header.format(header=keyspace.header), value, *SCHEMES[name].shown[1:])


def _header(header: str, value: str, *others: tuple[str, str]) -> APIKey:
    """A header; of a pair the first, with the second beside it."""
    told = " and ".join(f"`{name}: {shown}`" for name, shown in [(header, value), *others])
    shown: dict[str, Any] = {"in": APIKeyIn.header, "name": header, "description": told}
    if others:
        shown[_EXTENSION] = [list(other) for other in others]
    return APIKey(**shown)


def _signature(schemes: Iterable[_Scheme]) -> Signature:
    """What FastAPI is told that the dependency takes: a connection, and each scheme, to describe it."""
    own: list[tuple[str, Any]] = [
        ("needed", SecurityScopes),
        ("connection", HTTPConnection),
        ("response", Response),
    ]
    taken = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for name, kind in own]
    shown = [
        Parameter(scheme.scheme_name.replace("-", "_"), Parameter.KEYWORD_ONLY, default=Depends(scheme))
        for scheme in schemes
    ]
    return Signature([*taken, *shown])


def _paired(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the second header of every pair asked for where the first is; the same one if there is none."""
    known: dict[str, Any] = document.get("components", {}).get("securitySchemes", {})
    for name, scheme in list(known.items()):
        for header, value in scheme.pop(_EXTENSION, ()):
            second = f"{name}_{header.lower()}"
            known[second] = {
                "type": "apiKey",
                "in": "header",
                "name": header,
                "description": f"`{header}: {value}`",
            }
            for requirement in _requirements(document):
                if name in requirement:
                    requirement[second] = requirement[name]
    return document


def _requirements(document: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
    for path in document.get("paths", {}).values():
        for operation in path.values():
            if isinstance(operation, dict):
                yield from operation.get("security", ())
