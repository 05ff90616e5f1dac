"""The same small API in every framework that has an integration, each behind its own test client.

``/things``   needs things:read; GET and POST, and what the framework makes of HEAD and OPTIONS
``/plain``    names no scope
``/stream``   needs things:read, and answers in two parts
``/open``     is open to everybody

Each handler says in ``ran`` that it ran, and answers with whose request it is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import aiohttp.test_utils
import django
import fastapi
import flask
import httpx
import litestar
import werkzeug.test
from aiohttp import web
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import JsonResponse, StreamingHttpResponse
from django.test.utils import override_settings
from django.urls import path
from django.views import View
from litestar.middleware import DefineMiddleware
from multidict import CIMultiDict
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from yarl import URL

from keywright.answers import Answer
from keywright.integrations import aiohttp as for_aiohttp
from keywright.integrations import asgi, wsgi
from keywright.integrations import django as for_django
from keywright.integrations import fastapi as for_fastapi
from keywright.integrations import flask as for_flask
from keywright.integrations import litestar as for_litestar
from keywright.integrations import starlette as for_starlette
from keywright.integrations.guard import Caller
from keywright.model import Verdict
from surfaces import Reply

settings.configure(
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"],
    REST_FRAMEWORK={"EXCEPTION_HANDLER": "keywright.integrations.drf.exception_handler"},
    SECRET_KEY="of no use",
)
django.setup()

from rest_framework.decorators import api_view, authentication_classes, permission_classes  # noqa: E402
from rest_framework.response import Response as RestResponse  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from keywright.integrations import drf  # noqa: E402

IN = {"keyspace": "every", "environment": "production"}
PEER = "203.0.113.9"
Send = Callable[[str, str, list[tuple[str, str]]], Reply]
Ran = list[str]


class Watched:
    """A Keywright that keeps the verdicts it gave, and in which colour it was asked."""

    def __init__(self, kw: Any) -> None:
        self._kw = kw
        self.verdicts: list[Verdict] = []
        self.colours: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kw, name)

    def verify(self, *given: Any, **asked: Any) -> Verdict:
        """Verify, and keep the verdict."""
        self.colours.add("sync")
        self.verdicts.append(self._kw.verify(*given, **asked))
        return self.verdicts[-1]

    async def averify(self, *given: Any, **asked: Any) -> Verdict:
        """Verify, and keep the verdict."""
        self.colours.add("async")
        self.verdicts.append(await self._kw.averify(*given, **asked))
        return self.verdicts[-1]

    def answer(self, verdict: Verdict) -> Answer:
        """What to answer with."""
        answer: Answer = self._kw.answer(verdict)
        return answer


def shown(caller: Caller | None) -> dict[str, Any]:
    """What every handler answers with."""
    if caller is None:
        return {}
    named = {"account": caller.account, "key": caller.key_id}
    return {**named, "environment": caller.environment, "access": caller.access}


# ----------------------------------------------------------------------------------------------------------- clients


@contextmanager
def asgi_client(app: Any) -> Iterator[Send]:
    """httpx on an ASGI application."""
    with asyncio.Runner() as runner:
        transport = httpx.ASGITransport(app, client=(PEER, 50_000))

        async def sending(method: str, target: str, headers: list[tuple[str, str]]) -> Reply:
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                got = await client.request(method, target, headers=headers)
            return Reply(got.status_code, got.headers.raw, got.content)

        yield lambda *given: runner.run(sending(*given))


@contextmanager
def wsgi_client(app: Any) -> Iterator[Send]:
    """Werkzeug's client on a WSGI application: it joins doubled headers by a comma, as servers do."""
    client = werkzeug.test.Client(app)

    def send(method: str, target: str, headers: list[tuple[str, str]]) -> Reply:
        got = client.open(target, method=method, headers=headers, environ_base={"REMOTE_ADDR": PEER})
        sent = [(name.lower().encode(), value.encode("latin-1")) for name, value in got.headers]
        return Reply(got.status_code, sent, got.get_data())

    yield send


@contextmanager
def aiohttp_client(app: web.Application) -> Iterator[Send]:
    """aiohttp's own client on a port of this machine."""
    with asyncio.Runner() as runner:

        async def opened() -> aiohttp.test_utils.TestClient:
            client = aiohttp.test_utils.TestClient(aiohttp.test_utils.TestServer(app))
            await client.start_server()
            return client

        client = runner.run(opened())

        async def sending(method: str, target: str, headers: list[tuple[str, str]]) -> Reply:
            url = URL(f"{client.make_url('/').origin()}{target}", encoded=True)
            async with client.session.request(method, url, headers=CIMultiDict(headers)) as got:
                return Reply(got.status, list(got.raw_headers), await got.read())

        yield lambda *given: runner.run(sending(*given))
        runner.run(client.close())


# -------------------------------------------------------------------------------------------------------- frameworks


def _bare_asgi(kw: Any, ran: Ran) -> Any:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        ran.append(scope["path"])
        body = JSONResponse(shown(asgi.caller_of(scope))).body
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})

    def needed(scope: Any) -> tuple[str, ...]:
        return () if scope["path"] == "/plain" else ("things:read",)

    return asgi.KeywrightMiddleware(app, kw, scopes=needed, exempt=["/open"], **IN)


def _bare_wsgi(kw: Any, ran: Ran) -> Any:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        ran.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        body = JSONResponse(shown(wsgi.caller_of(environ))).body
        return iter([body[:5], body[5:]])

    def needed(environ: Any) -> tuple[str, ...]:
        return () if environ["PATH_INFO"] == "/plain" else ("things:read",)

    return wsgi.KeywrightMiddleware(app, kw, scopes=needed, exempt=["/open"], **IN)


def _fastapi(kw: Any, ran: Ran) -> Any:
    app = fastapi.FastAPI(openapi_url=None)
    auth = for_fastapi.APIKeyAuth(kw, **IN)
    auth.install(app)
    reading = Annotated[Caller, fastapi.Security(auth, scopes=["things:read"])]

    @app.api_route("/things", methods=["GET", "HEAD", "POST", "OPTIONS"])
    async def things(caller: reading) -> Any:
        ran.append("/things")
        return shown(caller)

    @app.api_route("/plain", methods=["GET", "POST"])
    def plain(caller: Annotated[Caller, fastapi.Security(auth)]) -> Any:
        ran.append("/plain")
        return shown(caller)

    @app.get("/stream")
    async def stream(caller: reading) -> Any:
        ran.append("/stream")
        return StreamingResponse(_parts(shown(caller)))

    @app.get("/open")
    async def opened() -> Any:
        ran.append("/open")
        return shown(None)

    @app.websocket("/ws")
    async def ws(websocket: fastapi.WebSocket, caller: reading) -> None:
        ran.append("/ws")
        await websocket.accept()
        await websocket.send_json(shown(caller))
        await websocket.close()

    return app


def _starlette_routes(ran: Ran) -> list[Any]:
    requires = for_starlette.requires_scope

    @requires("things:read")
    async def things(request: Any) -> Any:
        ran.append("/things")
        return JSONResponse(shown(asgi.caller_of(request.scope)))

    def plain(request: Any) -> Any:
        ran.append("/plain")
        assert (request.user.display_name, request.user.identity) == ("globex", request.user.key_id)
        return JSONResponse(shown(request.user.caller))

    @requires("things:read")
    def stream(request: Any) -> Any:
        ran.append("/stream")
        return StreamingResponse(_parts(shown(asgi.caller_of(request.scope))))

    async def opened(_request: Any) -> Any:
        ran.append("/open")
        return JSONResponse(shown(None))

    @requires("things:read")
    async def ws(websocket: Any) -> None:
        ran.append("/ws")
        await websocket.accept()
        await websocket.send_json(shown(asgi.caller_of(websocket.scope)))
        await websocket.close()

    methods = ["GET", "POST", "OPTIONS"]
    return [
        Route("/things", things, methods=methods),
        Route("/open", opened),
        WebSocketRoute("/ws", ws),
        Mount("/", routes=[Route("/plain", plain, methods=methods), Route("/stream", stream)]),
    ]


def _starlette(kw: Any, ran: Ran) -> Any:
    guarding = Middleware(for_starlette.KeywrightMiddleware, keywright=kw, exempt=["/open"], **IN)
    return Starlette(routes=_starlette_routes(ran), middleware=[guarding])


def _starlette_backend(kw: Any, ran: Ran) -> Any:
    backend = for_starlette.APIKeyBackend(kw, exempt=["/open"], **IN)
    signing = Middleware(AuthenticationMiddleware, backend=backend, on_error=for_starlette.refuse)
    return Starlette(routes=_starlette_routes(ran), middleware=[signing])


def _flask(kw: Any, ran: Ran) -> Any:
    app = flask.Flask("host")
    auth = for_flask.APIKeyAuth(kw, app, **IN)

    @app.route("/things", methods=["GET", "POST"])
    @auth.require("things:read")
    def things() -> Any:
        ran.append("/things")
        return shown(flask.g.api_key)

    @app.route("/plain", methods=["GET", "POST"])
    async def plain() -> Any:
        ran.append("/plain")
        return shown(flask.g.api_key)

    @app.get("/stream")
    @auth.require("things:read")
    async def stream() -> Any:
        ran.append("/stream")
        return flask.Response(iter([*JSONResponse(shown(flask.g.api_key)).body.splitlines(keepends=True)]))

    @app.get("/open")
    @auth.exempt
    def opened() -> Any:
        ran.append("/open")
        return shown(None)

    return app


def _django_urls(ran: Ran) -> tuple[Any, ...]:
    required = for_django.api_key_required

    @required("things:read")
    def things(request: Any) -> Any:
        ran.append("/things")
        return JsonResponse(shown(request.api_key))

    async def plain(request: Any) -> Any:
        ran.append("/plain")
        return JsonResponse(shown(request.api_key))

    class Stream(View):
        @required("things:read")
        def get(self, request: Any) -> Any:
            ran.append("/stream")
            if hasattr(request, "scope"):
                return StreamingHttpResponse(_parts(shown(request.api_key)))
            return StreamingHttpResponse(iter([JsonResponse(shown(request.api_key)).content]))

    @for_django.api_key_exempt
    def opened(_request: Any) -> Any:
        ran.append("/open")
        return JsonResponse(shown(None))

    return (
        path("things", things),
        path("plain", plain),
        path("stream", Stream.as_view()),
        path("open", opened),
    )


def _drf_urls(ran: Ran) -> tuple[Any, ...]:
    class Things(APIView):
        authentication_classes = (drf.APIKeyAuthentication,)
        permission_classes = (drf.HasScopes("things:read"),)

        def get(self, request: Any) -> Any:
            ran.append(request.path)
            return RestResponse(shown(request.auth))

        post = get

    @api_view(["GET", "POST"])
    @authentication_classes([drf.APIKeyAuthentication])
    def plain(request: Any) -> Any:
        ran.append("/plain")
        return RestResponse(shown(request.auth))

    @api_view(["GET"])
    @authentication_classes([])
    @permission_classes([])
    def opened(_request: Any) -> Any:
        ran.append("/open")
        return RestResponse(shown(None))

    return (
        path("things", Things.as_view()),
        path("plain", plain),
        path("stream", Things.as_view()),
        path("open", opened),
    )


@contextmanager
def django_settings(kw: Any, urls: tuple[Any, ...], *middleware: str, **more: Any) -> Iterator[None]:
    """Django set up over a Keywright, for a while."""
    named = {name.upper(): value for name, value in (IN | more).items()}
    with override_settings(
        KEYWRIGHT={"INSTALLATION": kw, **named}, ROOT_URLCONF=urls, MIDDLEWARE=list(middleware)
    ):
        yield


DJANGO = "keywright.integrations.django.KeywrightMiddleware"


@contextmanager
def _django(kw: Any, ran: Ran) -> Iterator[Send]:
    with django_settings(kw, _django_urls(ran), DJANGO), wsgi_client(WSGIHandler()) as send:
        yield send


@contextmanager
def _django_async(kw: Any, ran: Ran) -> Iterator[Send]:
    with django_settings(kw, _django_urls(ran), DJANGO), asgi_client(ASGIHandler()) as send:
        yield send


@contextmanager
def _drf(kw: Any, ran: Ran) -> Iterator[Send]:
    with django_settings(kw, _drf_urls(ran)), wsgi_client(WSGIHandler()) as send:
        yield send


def litestar_app(kw: Any, ran: Ran) -> Any:
    """A Litestar application."""
    reading = [for_litestar.HasScopes("things:read")]

    @litestar.route("/things", http_method=["GET", "HEAD", "POST"], guards=reading, status_code=200)
    async def things(request: litestar.Request[Caller, Verdict, Any]) -> dict[str, Any]:
        ran.append("/things")
        return shown(request.user)

    @litestar.route("/plain", http_method=["GET", "POST"], status_code=200, sync_to_thread=False)
    def plain(request: litestar.Request[Caller, Verdict, Any]) -> dict[str, Any]:
        ran.append("/plain")
        return shown(request.user)

    @litestar.get("/stream", guards=reading)
    async def stream(request: litestar.Request[Caller, Verdict, Any]) -> litestar.response.Stream:
        ran.append("/stream")
        return litestar.response.Stream(_parts(shown(request.user)))

    @litestar.get("/open", exclude_from_auth=True)
    async def opened() -> dict[str, Any]:
        ran.append("/open")
        return shown(None)

    @litestar.websocket("/ws", guards=reading)
    async def ws(socket: litestar.WebSocket[Caller, Verdict, Any]) -> None:
        ran.append("/ws")
        await socket.accept()
        await socket.send_json(shown(socket.user))
        await socket.close()

    guarding = DefineMiddleware(for_litestar.KeywrightMiddleware, keywright=kw, **IN)
    return litestar.Litestar(
        [things, plain, stream, opened, ws],
        middleware=[guarding],
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


def aiohttp_app(kw: Any, ran: Ran) -> web.Application:
    """An aiohttp application."""
    reading = for_aiohttp.scopes("things:read")

    @reading
    async def things(request: web.Request) -> web.StreamResponse:
        ran.append("/things")
        return web.json_response(shown(request[for_aiohttp.API_KEY]))

    async def plain(request: web.Request) -> web.StreamResponse:
        ran.append("/plain")
        return web.json_response(shown(request[for_aiohttp.API_KEY]))

    class Stream(web.View):
        @reading
        async def get(self) -> web.StreamResponse:
            ran.append("/stream")
            response = web.StreamResponse()
            await response.prepare(self.request)
            await response.write(JSONResponse(shown(self.request[for_aiohttp.API_KEY])).body)
            return response

    @for_aiohttp.exempt
    async def opened(_request: web.Request) -> web.StreamResponse:
        ran.append("/open")
        return web.json_response(shown(None))

    @reading
    async def ws(request: web.Request) -> web.StreamResponse:
        ran.append("/ws")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json(shown(request[for_aiohttp.API_KEY]))
        await socket.close()
        return socket

    app = web.Application(middlewares=[for_aiohttp.api_key_middleware(kw, **IN)])
    app.on_response_prepare.append(for_aiohttp.say_limits)
    for method in ("GET", "POST"):
        app.router.add_route(method, "/things", things)
        app.router.add_route(method, "/plain", plain)
    app.router.add_view("/stream", Stream)
    app.router.add_get("/open", opened)
    app.router.add_get("/ws", ws)
    return app


async def _parts(document: dict[str, Any]) -> AsyncIterator[bytes]:
    body = JSONResponse(document).body
    yield body[:5]
    yield body[5:]


#: Every integration: how it is opened over a Keywright.
HOSTS: dict[str, Callable[[Any, Ran], Any]] = {
    "asgi": lambda kw, ran: asgi_client(_bare_asgi(kw, ran)),
    "wsgi": lambda kw, ran: wsgi_client(_bare_wsgi(kw, ran)),
    "fastapi": lambda kw, ran: asgi_client(_fastapi(kw, ran)),
    "starlette": lambda kw, ran: asgi_client(_starlette(kw, ran)),
    "starlette backend": lambda kw, ran: asgi_client(_starlette_backend(kw, ran)),
    "flask": lambda kw, ran: wsgi_client(_flask(kw, ran)),
    "django": _django,
    "django async": _django_async,
    "drf": _drf,
    "litestar": lambda kw, ran: asgi_client(litestar_app(kw, ran)),
    "aiohttp": lambda kw, ran: aiohttp_client(aiohttp_app(kw, ran)),
}
#: Those that can open websockets, as ASGI applications.
SOCKETS: dict[str, Callable[[Any, Ran], Any]] = {
    "asgi": lambda kw, ran: asgi.KeywrightMiddleware(_fastapi_socket(ran), kw, scopes=["things:read"], **IN),
    "fastapi": _fastapi,
    "starlette": _starlette,
    "starlette backend": _starlette_backend,
    "litestar": litestar_app,
}


def _fastapi_socket(ran: Ran) -> Any:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        ran.append(scope["path"])
        await send({"type": "websocket.accept"})
        body = JSONResponse(shown(asgi.caller_of(scope))).body.decode()
        await send({"type": "websocket.send", "text": body})
        await send({"type": "websocket.close", "code": 1000})

    return app
