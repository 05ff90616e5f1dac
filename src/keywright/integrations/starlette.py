"""Starlette: a middleware that knows what the routes need, and a backend for applications that have Starlette's own.

    @requires_scope("contacts:read")
    async def contacts(request): return JSONResponse({"account": request.user.account})

    app = Starlette(routes, middleware=[Middleware(KeywrightMiddleware, keywright=kw, exempt=["/health"])])

Starlette's own ``requires`` answers 403 to whoever sent no key. Here both kinds of refusal are the verdict's: 401 without a
key, 403 without the scope. The scopes of the endpoint that will be called are asked with the key, once; an endpoint that names
none is asked for by method alone, so that a restricted key does not open it.
"""

from collections.abc import Callable, Iterable
from typing import Any, Unpack

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from keywright.answers import Answer
from keywright.integrations import asgi
from keywright.integrations.guard import (
    Caller,
    Guard,
    Options,
    Verifier,
    View,
    declared,
    each,
    requiring,
    serving,
)
from keywright.model import Verdict


class KeyUser(BaseUser):
    """The caller as ``request.user``: signed in, under the account's name."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def __getattr__(self, name: str) -> Any:
        return getattr(self.caller, name)

    @property
    def is_authenticated(self) -> bool:
        """Always: there is none of a request that was refused."""
        return True

    @property
    def display_name(self) -> str:
        """The account's name."""
        return self.caller.account

    @property
    def identity(self) -> str:
        """The key's id."""
        return self.caller.key_id


class KeywrightMiddleware(asgi.KeywrightMiddleware):
    """The middleware for any ASGI application, which also asks for what ``requires_scope`` says of the endpoint."""

    def asked(self, scope: asgi.Scope) -> tuple[str, ...]:
        """The scopes of the endpoint, and those that are asked of every connection."""
        return (*super().asked(scope), *declared_by_endpoint(scope))

    def resource(self, scope: asgi.Scope) -> str | None:
        """The template of the route, unless the application says otherwise."""
        return super().resource(scope) or template(scope)

    def admit(self, scope: asgi.Scope, verdict: Verdict) -> None:
        """Tell the application whom it serves, as ``request.user`` and ``request.auth`` as well."""
        super().admit(scope, verdict)
        scope["auth"], scope["user"] = _signed_in(verdict)


class Refusal(AuthenticationError):
    """A request may not proceed; it is answered with ``answer``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("the API key was refused")
        self.answer = answer


def refuse(_connection: HTTPConnection, refusal: AuthenticationError) -> Response:
    """Answer a refused request verbatim: the ``on_error`` of Starlette's ``AuthenticationMiddleware``."""
    if not isinstance(refusal, Refusal):
        return Response(str(refusal), 400)
    status, headers, body = refusal.answer
    return Response(body, status, dict(headers))


class APIKeyBackend(AuthenticationBackend):
    """A backend for Starlette's ``AuthenticationMiddleware``, which wants ``on_error=refuse`` beside it.

    A connection without a key is refused too, save on the ``exempt`` paths, where nobody is signed in. The limits' headers
    are on refusals only: ``KeywrightMiddleware`` has a place for them on answers.
    """

    def __init__(
        self,
        keywright: Verifier,
        *,
        exempt: Iterable[str] = (),
        client: Callable[[asgi.Scope], str | None] = asgi.peer,
        **options: Unpack[Options],
    ) -> None:
        self._guard = Guard(keywright, **options)
        self._exempt = frozenset(each(exempt))
        self._client = client

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Who calls. Raises ``Refusal``."""
        scope = conn.scope
        if asgi.is_listed(scope, self._exempt):
            return None
        known = asgi.told(scope, self._client(scope), template(scope))
        answer = self._guard.preflight(known)
        if answer is None:
            verdict = await self._guard.averify(known, declared_by_endpoint(scope), scope)
            if verdict:
                scope["keywright"] = verdict
                return _signed_in(verdict)
            answer = self._guard.refusal(verdict)
        raise Refusal(answer)


def requires_scope(*scopes: str) -> Callable[[View], View]:
    """Say what an endpoint needs: a function, a method of an ``HTTPEndpoint``, or a websocket's."""
    return requiring(scopes, _caller)


def _caller(*args: Any, **kwargs: Any) -> Caller | None:
    given = (*args, *kwargs.values())
    connection = next(one for one in given if isinstance(one, HTTPConnection))
    return asgi.caller_of(connection.scope)


def _signed_in(verdict: Verdict) -> tuple[AuthCredentials, BaseUser]:
    return AuthCredentials(["authenticated", *verdict.asked]), KeyUser(Caller.of(verdict))


# ------------------------------------------------------------------------------------------ where a request will be routed


def declared_by_endpoint(scope: asgi.Scope) -> tuple[str, ...]:
    """The scopes that the endpoint of a connection was marked with."""
    endpoint, _ = _routed(scope["app"].routes, scope)
    return declared(endpoint, serving(endpoint, scope.get("method", "on_connect")))


def template(scope: asgi.Scope) -> str | None:
    """The template of the route that a connection will take."""
    return _routed(scope["app"].routes, scope)[1] or None


def _routed(routes: Iterable[BaseRoute], scope: asgi.Scope) -> tuple[object, str]:
    for route in routes:
        match, child = route.matches(scope)
        if match is Match.FULL:
            path: str = getattr(route, "path", "")
            inner: Iterable[BaseRoute] | None = getattr(route, "routes", None)
            if inner is None:
                return child.get("endpoint"), path
            endpoint, rest = _routed(inner, {**scope, **child})
            return endpoint, path + rest
    return None, ""
