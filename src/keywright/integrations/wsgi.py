"""Any WSGI application: a middleware that asks before the application is called.

    app = KeywrightMiddleware(app, kw, scopes=["contacts:read"], exempt=["/health"])

The application finds the verdict in ``environ["keywright"]``, and the caller by ``caller_of(environ)``.

WSGI tells less of headers than a server has seen. A header that was sent twice arrives as one, joined by a comma: no key has a
comma, so it is refused as ``ambiguous`` all the same. ``X_API_KEY`` and ``X-API-KEY`` arrive under one name, and nobody can
tell them apart any more: have the server drop names with underscores, as gunicorn, waitress and nginx do unless told not to.
"""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from keywright.answers import Answer
from keywright.integrations.guard import Caller, Doorway, Told

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

_PREFIX: Final = "HTTP_"
_VERDICT: Final = "keywright"


class KeywrightMiddleware(Doorway[App, Environ]):
    """Lets into an application only what Keywright lets in, and answers the rest with the verdict, verbatim.

    It is told what every ``Doorway`` is; functions get the environ.
    """

    def peer(self, environ: Environ, /) -> str | None:
        """The address that a request came from. A server behind a proxy is told by its own settings whom to believe."""
        return environ.get("REMOTE_ADDR") or None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if path_of(environ) in self.exempt:
            return self.app(environ, start_response)
        known = told(environ, self.client(environ), self.resource(environ))
        answer = self.guard.preflight(known)
        if answer is not None:
            return _say(answer, environ, start_response)
        verdict = self.guard.verify(known, self.asked(environ), environ)
        if not verdict:
            return _say(self.guard.refusal(verdict), environ, start_response)
        environ[_VERDICT] = verdict
        return self.app(environ, _adding(self.guard.limits_headers(verdict), start_response))


def caller_of(environ: Mapping[str, Any]) -> Caller | None:
    """Whose request it is; nobody's on an exempt path."""
    verdict = environ.get(_VERDICT)
    return None if verdict is None else Caller.of(verdict)


def path_of(environ: Mapping[str, Any]) -> str:
    """The whole path of a request, what the application is mounted under included."""
    whole: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return whole.encode("latin-1").decode("utf-8", "surrogateescape")


def told(environ: Mapping[str, Any], ip: str | None, resource: str | None = None) -> Told:
    """A request as a guard is told of it: its headers as far as WSGI tells them."""
    headers = [
        (name[len(_PREFIX) :].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith(_PREFIX)
    ]
    path = quote(path_of(environ), errors="surrogateescape")
    url = f"{path}?{environ.get('QUERY_STRING', '')}".encode("latin-1")
    return Told(headers, url, environ["REQUEST_METHOD"], ip, resource)


def _adding(headers: list[tuple[str, str]], start_response: StartResponse) -> StartResponse:
    def starting(status: str, own: list[tuple[str, str]], *more: Any) -> Any:
        names = {name.lower() for name, _ in own}
        return start_response(status, own + [pair for pair in headers if pair[0].lower() not in names], *more)

    return starting


def _say(answer: Answer, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    headers = list(answer.headers)
    if answer.status != HTTPStatus.NO_CONTENT:
        headers.append(("Content-Length", str(len(answer.body))))
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]
