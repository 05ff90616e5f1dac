"""Flask: an extension for an application or a blueprint.

    auth = APIKeyAuth(kw)
    auth.init_app(app)

    @app.get("/contacts")
    @auth.require("contacts:read")
    def contacts(): return {"account": g.api_key.account}

    @app.get("/health")
    @auth.exempt
    def health(): return {}

Every request is asked about, whatever it is for, save views that are marked as exempt. What `keywright.integrations.wsgi` says
of doubled headers holds here.
"""

from collections.abc import Callable
from typing import Final, Unpack

from flask import Blueprint, Flask, Request, Response, current_app, g, request

from keywright.answers import Answer
from keywright.integrations import wsgi
from keywright.integrations.guard import (
    Caller,
    Guard,
    Options,
    Verifier,
    View,
    declared,
    exempting,
    is_exempt,
    requiring,
    serving,
)
from keywright.model import Verdict

_VERDICT: Final = "keywright_verdict"


class APIKeyAuth:
    """The extension. The caller is ``g.api_key``; ``client`` says whose address a request has."""

    def __init__(
        self,
        keywright: Verifier | None = None,
        app: Flask | Blueprint | None = None,
        *,
        client: Callable[[Request], str | None] = lambda request: request.remote_addr,
        **options: Unpack[Options],
    ) -> None:
        self._guard = None if keywright is None else Guard(keywright, **options)
        self._options = options
        self._client = client
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask | Blueprint, keywright: Verifier | None = None) -> None:
        """Guard all of an application, or all of a blueprint; with ``keywright``, if it was not given before.

        Raises ``RuntimeError`` where it never was.
        """
        if keywright is not None:
            self._guard = Guard(keywright, **self._options)
        if self._guard is None:
            raise RuntimeError("name the Keywright to ask: APIKeyAuth(kw), or init_app(app, kw)")
        guard = self._guard
        app.before_request(lambda: self._ask(guard))
        app.after_request(lambda response: _with_limits(guard, response))

    def require(self, *scopes: str) -> Callable[[View], View]:
        """Say what a view needs. It stands below the route's own decorator."""
        return requiring(scopes, _caller)

    def exempt(self, view: View) -> View:
        """Open a view to everybody."""
        return exempting(view)

    def _ask(self, guard: Guard) -> Response | None:
        handlers = _handlers()
        if any(is_exempt(handler) for handler in handlers):
            return None
        rule = request.url_rule
        known = wsgi.told(request.environ, self._client(request), None if rule is None else rule.rule)
        answer = guard.preflight(known)
        if answer is not None:
            return _said(answer)
        verdict = guard.verify(known, declared(*handlers), request.environ)
        if not verdict:
            return _said(guard.refusal(verdict))
        g.api_key = Caller.of(verdict)
        setattr(g, _VERDICT, verdict)
        return None


def _caller(*_args: object, **_kwargs: object) -> Caller | None:
    caller: Caller | None = g.get("api_key")
    return caller


def _handlers() -> tuple[object, ...]:
    """The view of the request, and the method of it where it is a class."""
    view = current_app.view_functions.get(request.endpoint or "")
    return view, serving(getattr(view, "view_class", None), request.method)


def _said(answer: Answer) -> Response:
    status, headers, body = answer
    return Response(body, status, headers)


def _with_limits(guard: Guard, response: Response) -> Response:
    verdict: Verdict | None = g.get(_VERDICT)
    if verdict is not None:
        for name, value in guard.limits_headers(verdict):
            response.headers.setdefault(name, value)
    return response
