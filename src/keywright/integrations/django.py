"""Django: a middleware for WSGI and ASGI alike, which asks when the view is known and before it runs.

    MIDDLEWARE = [..., "keywright.integrations.django.KeywrightMiddleware"]
    KEYWRIGHT = {"INSTALLATION": "shop.keys.kw", "EXEMPT": ["admin", "health"]}

    @api_key_required("contacts:read")
    def contacts(request): return JsonResponse({"account": request.api_key.account})

``INSTALLATION`` is a ``Keywright``, or where one stands as ``module.name``. ``EXEMPT`` are names of routes, or of namespaces, that
are open to everybody, as are views under ``api_key_exempt``. ``KEYSPACE``, ``ENVIRONMENT``, ``AUTHENTICATE_ONLY`` and ``PREFLIGHT`` mean
what they do for every framework; ``CLIENT`` names a function of the request that says whose address it has.

Views are plain or async, functions or classes. Under WSGI what `keywright.integrations.wsgi` says of doubled headers holds.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from keywright.answers import Answer
from keywright.integrations import asgi, wsgi
from keywright.integrations.guard import (
    Caller,
    Guard,
    Told,
    View,
    declared,
    each,
    exempting,
    is_exempt,
    requiring,
    serving,
)
from keywright.model import Verdict

_OPTIONS: Final = ("KEYSPACE", "ENVIRONMENT", "AUTHENTICATE_ONLY", "PREFLIGHT")
_KNOWN: Final = frozenset({*_OPTIONS, "INSTALLATION", "EXEMPT", "CLIENT"})
_VERDICT: Final = "keywright_verdict"


class APIKeyRequest(HttpRequest):  # type: ignore[misc]  # Django has no types of its own
    """A request that was let in, for annotations."""

    api_key: Caller


class Configured:
    """The setting ``KEYWRIGHT``, read. Raises ``ImproperlyConfigured``."""

    def __init__(self) -> None:
        given: Mapping[str, Any] = getattr(settings, "KEYWRIGHT", {})
        unknown = given.keys() - _KNOWN
        if unknown or "INSTALLATION" not in given:
            raise ImproperlyConfigured(
                f"KEYWRIGHT must name an INSTALLATION, and may have {', '.join(sorted(_KNOWN))}"
                + (f"; not {', '.join(sorted(unknown))}" if unknown else "")
            )
        options = {name.lower(): given[name] for name in _OPTIONS if name in given}
        self.guard = Guard(_named(given["INSTALLATION"]), **options)
        self.exempt: frozenset[str] = frozenset(each(given.get("EXEMPT", ())))
        self._client: Callable[[HttpRequest], str | None] = _named(given.get("CLIENT", peer))

    def told(self, request: HttpRequest) -> Told:
        """A request as a guard is told of it."""
        match = request.resolver_match
        resource = None if match is None else match.route
        scope = getattr(request, "scope", None)
        if scope is not None:
            return asgi.told(scope, self._client(request), resource)
        return wsgi.told(request.META, self._client(request), resource)

    def is_exempt(self, request: HttpRequest, view: object) -> bool:
        """Whether a request is for what is open to everybody."""
        match = request.resolver_match
        return is_exempt(view) or not self.exempt.isdisjoint([match.view_name, *match.namespaces])


def _named(what: Any) -> Any:
    return import_string(what) if isinstance(what, str) else what


def peer(request: HttpRequest) -> str | None:
    """The address that a request came from. A server behind a proxy is told by its own settings whom to believe."""
    return request.META.get("REMOTE_ADDR") or None


def kept(request: HttpRequest) -> dict[str, Any]:
    """Where a request keeps what guards found of it."""
    place: dict[str, Any] = request.META if getattr(request, "scope", None) is None else request.scope
    return place


class KeywrightMiddleware:
    """Lets into views only what Keywright lets in, and answers the rest with the verdict, verbatim."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._configured = Configured()
        #: what Django calls when it knows the view: in the colour of the handler, so that nothing changes threads
        self.process_view: Callable[..., Any] = self._ask
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
            self.process_view = self._aask

    def __call__(self, request: HttpRequest) -> Any:
        """Answer a request."""
        if iscoroutinefunction(self):
            return self._acall(request)
        return self._with_limits(request, self._get_response(request))

    async def _acall(self, request: HttpRequest) -> HttpResponse:
        return self._with_limits(request, await self._get_response(request))

    def _ask(self, request: HttpRequest, view: Any, _args: Any, _kwargs: Any) -> HttpResponse | None:
        if self._configured.is_exempt(request, view):
            return None
        known = self._configured.told(request)
        answer = self._configured.guard.preflight(known)
        return said(answer) if answer else self._settle(request, self._verify(known, request, view))

    async def _aask(self, request: HttpRequest, view: Any, _args: Any, _kwargs: Any) -> HttpResponse | None:
        if self._configured.is_exempt(request, view):
            return None
        known = self._configured.told(request)
        answer = self._configured.guard.preflight(known)
        if answer:
            return said(answer)
        guard, needed = self._configured.guard, _needed(request, view)
        return self._settle(request, await guard.averify(known, needed, kept(request)))

    def _verify(self, known: Told, request: HttpRequest, view: Any) -> Verdict:
        return self._configured.guard.verify(known, _needed(request, view), kept(request))

    def _settle(self, request: HttpRequest, verdict: Verdict) -> HttpResponse | None:
        if not verdict:
            return said(self._configured.guard.refusal(verdict))
        request.api_key = Caller.of(verdict)
        setattr(request, _VERDICT, verdict)
        return None

    def _with_limits(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        verdict = getattr(request, _VERDICT, None)
        if verdict is not None:
            for name, value in self._configured.guard.limits_headers(verdict):
                response.headers.setdefault(name, value)
        return response


def api_key_required(*scopes: str) -> Callable[[View], View]:
    """Say what a view needs: a function, a method of a class, or with ``method_decorator`` a class."""
    return requiring(scopes, _caller)


def api_key_exempt(view: View) -> View:
    """Open a view to everybody."""
    return exempting(view)


def said(answer: Answer) -> HttpResponse:
    """An answer, verbatim."""
    status, headers, body = answer
    return HttpResponse(body, status=status, headers=dict(headers))


def _needed(request: HttpRequest, view: Any) -> tuple[str, ...]:
    return declared(view, serving(getattr(view, "view_class", None), request.method))


def _caller(*args: Any, **_kwargs: Any) -> Caller | None:
    request = next(one for one in args if isinstance(one, HttpRequest))
    caller: Caller | None = getattr(request, "api_key", None)
    return caller
