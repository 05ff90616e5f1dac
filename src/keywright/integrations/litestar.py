"""Litestar: a middleware that knows the handler, and a guard that says what it needs.

    @get("/contacts", guards=[HasScopes("contacts:read")])
    async def contacts(request: Request[Caller, Verdict, State]) -> dict[str, str]: ...

    app = Litestar([contacts], middleware=[DefineMiddleware(KeywrightMiddleware, keywright=kw)])

``request.user`` is the caller, ``request.auth`` the verdict. A handler with ``exclude_from_auth=True`` is open to everybody, as are
``exempt`` paths. The guards of a handler, and of the routers and controllers that it stands in, are asked with the key, once.
"""

from typing import Any, cast

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from keywright.integrations import asgi
from keywright.integrations.guard import Caller, require
from keywright.model import Verdict


class HasScopes:
    """A guard for handlers that need these scopes. The middleware asks for them; the guard holds that it did."""

    def __init__(self, *scopes: str) -> None:
        self.scopes = scopes

    async def __call__(self, connection: "ASGIConnection[Any, Any, Any, Any]", _: BaseRouteHandler) -> None:
        """Raises ``RuntimeError`` where nobody asked."""
        require(asgi.caller_of(cast("asgi.Scope", connection.scope)), self.scopes)


class KeywrightMiddleware(asgi.KeywrightMiddleware):
    """The middleware for any ASGI application, which also asks for what the handler's guards need."""

    def is_exempt(self, scope: asgi.Scope) -> bool:
        """Whether a connection is for a handler that is open to everybody."""
        return scope["route_handler"].opt.get("exclude_from_auth") is True or super().is_exempt(scope)

    def asked(self, scope: asgi.Scope) -> tuple[str, ...]:
        """The scopes of the handler, and those that are asked of every connection."""
        guards = scope["route_handler"].resolve_guards()
        return (
            *super().asked(scope),
            *(scope for guard in guards if isinstance(guard, HasScopes) for scope in guard.scopes),
        )

    def resource(self, scope: asgi.Scope) -> str | None:
        """The template of the route, unless the application says otherwise."""
        return super().resource(scope) or scope.get("path_template")

    def admit(self, scope: asgi.Scope, verdict: Verdict) -> None:
        """Tell the application whom it serves."""
        super().admit(scope, verdict)
        scope["user"], scope["auth"] = Caller.of(verdict), verdict


__all__ = ["HasScopes", "KeywrightMiddleware"]
