"""The management API: FastAPI routes, one file a noun. A handler is parse, one verb, render.

Who calls was established before (``server.hot``); what they may do is asked by each route, with ``needs``.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from keywright import __version__
from keywright.answers import problem
from keywright.errors import CODES, Invalid, KeywrightError, Throttled, Unavailable
from keywright.installation import Installation
from keywright.server.api.caller import Refused
from keywright.server.api.description import Described
from keywright.server.callers import Caller
from keywright.server.partner import Partner
from keywright.settings import Settings

log = logging.getLogger("keywright")
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 400: "bad_json", 413: "too_large"}


def build(installation: Installation, settings: Settings) -> FastAPI:
    """Make the application over an open installation."""
    from keywright.server.api import (  # noqa: PLC0415  # they import what this package offers
        accounts,
        alerts,
        audit,
        definitions,
        explorer,
        keys,
        keyspaces,
        leaks,
        management_keys,
        pages,
        people,
        portal,
        refusals,
        revocations,
        session,
        usage,
        webhooks,
    )

    nouns = (
        keys, accounts, keyspaces, definitions, management_keys, people, portal, session, usage, refusals, audit,
        alerts, leaks, revocations, webhooks, explorer, pages,
    )  # fmt: skip

    app = Described(
        title="Keywright",
        version=__version__,
        summary="Makes, checks and looks after the API keys of a product.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be built from what the client says of our own name
    )
    app.state.installation = installation
    app.state.settings = settings
    keys_url = settings.leaks_github_keys_url
    app.state.partner = installation.besides.enter_context(closing(Partner(keys_url))) if keys_url else None
    app.state.routes = [route for noun in nouns for route in noun.router.routes]
    for noun in nouns:
        app.include_router(noun.router)
    handlers: tuple[tuple[type[Exception], Callable[[Request, Any], JSONResponse]], ...] = (
        (Refused, _refused),
        (KeywrightError, _ours),
        (RequestValidationError, _unreadable),
        (HTTPException, _http),
        (Exception, _broken),
    )
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)
    return app


def _say(
    request: Request, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    body = problem(code, detail, request.scope["keywright.request_id"], **more)
    sent = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    return JSONResponse(body, CODES[code].status, sent, media_type="application/problem+json")


def _refused(request: Request, refused: Refused) -> JSONResponse:
    caller: Caller = request.scope["keywright.caller"]
    opened: Installation = request.app.state.installation
    path = request.scope["route"].path
    opened.trail.refused(caller.actor, f"{request.method} {path}", refused.scope, caller.reach.account)
    if caller.verdict is None:
        needed = "an operator" if refused.operator else f"the right {refused.scope}"
        return _say(request, "insufficient_role", f"Your role does not allow this: it takes {needed}.")
    if refused.operator:
        return _say(request, "insufficient_role", "A management key cannot do this: it takes an operator.")
    challenge = f'Bearer realm="Keywright", error="insufficient_scope", scope="{refused.scope}"'
    detail = f"This management key lacks the scope {refused.scope}."
    lacking = msgspec.structs.replace(
        caller.verdict, code="insufficient_scope", reason=f"lacks {refused.scope}"
    )
    opened.meter.refuse(lacking, "production", caller.actor.source, request.method, path)
    return _say(request, "insufficient_scope", detail, {"WWW-Authenticate": challenge})


def _ours(request: Request, error: KeywrightError) -> JSONResponse:
    if isinstance(error, Unavailable):
        return _say(
            request, error.code, "The store does not answer right now; try again.", {"Retry-After": "1"}
        )
    if isinstance(error, Throttled):
        return _say(request, error.code, str(error), {"Retry-After": str(error.retry_after)})
    if error.status == 401:
        return _say(request, error.code, str(error), {"WWW-Authenticate": 'Bearer realm="Keywright"'})
    if isinstance(error, Invalid):
        return _say(request, error.code, str(error), errors=[{"path": error.path, "reason": error.reason}])
    return _say(request, error.code, str(error))


def _unreadable(request: Request, error: RequestValidationError) -> JSONResponse:
    # What was sent is not repeated: it may hold a secret.
    found = [{"path": _path(item["loc"]), "reason": item["msg"]} for item in error.errors()]
    first = found[0] if found else {"path": "", "reason": "is not acceptable"}
    return _say(request, "invalid_request", f"{first['path']}: {first['reason']}", errors=found)


def _path(location: tuple[int | str, ...]) -> str:
    _where, *rest = location
    return ".".join(str(part) for part in rest) or str(location[0])


def _http(request: Request, error: HTTPException) -> JSONResponse:
    code = _CODE_OF_STATUS.get(error.status_code, "invalid_request")
    headers = {"Allow": _allowed(request)} if code == "method_not_allowed" else {}
    return _say(request, code, CODES[code].title + ".", headers)


def _allowed(request: Request) -> str:
    """Every method of an address: the router names those of the first route that it meets."""
    routes: list[APIRoute] = request.app.state.routes
    fitting = (route for route in routes if route.path_regex.match(request.scope["path"]))
    return ", ".join(sorted({method for route in fitting for method in route.methods or ()})) or "GET, HEAD"


def _broken(request: Request, error: Exception) -> JSONResponse:
    request_id = request.scope["keywright.request_id"]
    log.error("request %s failed: %s", request_id, type(error).__name__, exc_info=error)
    return _say(request, "internal", "Something of ours is broken; the log has more under this request's id.")


__all__ = ["build"]
