"""aiohttp: a middleware, a typed key for the request, and a decorator for handlers.

    app = web.Application(middlewares=[api_key_middleware(kw)])
    app.on_response_prepare.append(say_limits)

    @scopes("contacts:read")
    async def contacts(request): return web.json_response({"account": request[API_KEY].account})

Every request is asked about, whatever it is for, save handlers that are marked as exempt. A websocket is refused before its
handshake is answered. ``say_limits`` puts the limits' headers on every answer, a stream's too; it may be left out.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, Unpack

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from keywright.answers import Answer
from keywright.integrations.guard import (
    Caller,
    Guard,
    Options,
    Scopes,
    Told,
    Verifier,
    View,
    asked_of,
    declared,
    each,
    exempting,
    is_exempt,
    requiring,
    serving,
)

#: Whose request it is: ``request[API_KEY]``.
API_KEY: Final = web.RequestKey("api_key", Caller)
_FOUND: Final = web.RequestKey("keywright_found", dict[str, Any])
_LIMITS: Final = web.RequestKey("keywright_limits", list[tuple[str, str]])


def api_key_middleware(
    keywright: Verifier,
    *,
    scopes: Scopes[web.Request] = (),
    client: Callable[[web.Request], str | None] = lambda request: request.remote,
    **options: Unpack[Options],
) -> Middleware:
    """Make the middleware. ``scopes`` are asked besides those of the handler; ``client`` says whose address a request has."""
    guard = Guard(keywright, **options)
    always = scopes if callable(scopes) else each(scopes)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        handlers = _handlers(request)
        if any(is_exempt(one) for one in handlers):
            return await handler(request)
        known = _told(request, client(request))
        answer = guard.preflight(known)
        if answer is not None:
            return _said(answer)
        kept = request.setdefault(_FOUND, {})
        verdict = await guard.averify(known, (*asked_of(always, request), *declared(*handlers)), kept)
        if not verdict:
            return _said(guard.refusal(verdict))
        request[API_KEY] = Caller.of(verdict)
        request[_LIMITS] = guard.limits_headers(verdict)
        return await handler(request)

    return middleware


def scopes(*needed: str) -> Callable[[View], View]:
    """Say what a handler needs: a function, or a method of a ``web.View``."""
    return requiring(needed, _caller)


def exempt(handler: View) -> View:
    """Open a handler to everybody."""
    return exempting(handler)


async def say_limits(request: web.Request, response: web.StreamResponse) -> None:
    """Put the limits' headers on an answer, save those that it has: a signal's receiver."""
    for name, value in request.get(_LIMITS, ()):
        response.headers.setdefault(name, value)


def _handlers(request: web.Request) -> Iterable[object]:
    handler = request.match_info.handler
    return handler, serving(handler, request.method)


def _caller(*args: Any, **_kwargs: Any) -> Caller | None:
    given = args[0]
    request: web.Request = given.request if isinstance(given, web.View) else given
    return request.get(API_KEY)


def _told(request: web.Request, ip: str | None) -> Told:
    resource = request.match_info.route.resource
    websocket = request.headers.get("Upgrade", "").lower() == "websocket"
    return Told(
        request.raw_headers,
        request.raw_path.encode("utf-8", "surrogateescape"),
        None if websocket else request.method,
        ip,
        None if resource is None else resource.canonical,
    )


def _said(answer: Answer) -> web.Response:
    status, headers, body = answer
    return web.Response(body=body, status=status, headers=headers)
