"""What each framework's integration has of its own: websockets, documents, decorators, settings, and what is wired wrongly."""

import hosts  # before the framework that wants Django set up

# isort: split

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Annotated, Any

import aiohttp.test_utils
import fastapi
import flask
import litestar
import msgspec
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import JsonResponse
from django.test.utils import override_settings
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from fastapi.testclient import TestClient
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import IsAdminUser, IsAuthenticated
from rest_framework.response import Response as RestResponse
from rest_framework.views import APIView
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from conftest import bearer, make
from hosts import DJANGO, IN, SOCKETS, Ran, Watched, asgi_client, django_settings, shown, wsgi_client
from keywright import Issued, Keywright, Unavailable
from keywright.integrations import aiohttp as for_aiohttp
from keywright.integrations import asgi, drf, wsgi
from keywright.integrations import django as for_django
from keywright.integrations import fastapi as for_fastapi
from keywright.integrations import flask as for_flask
from keywright.integrations import litestar as for_litestar
from keywright.integrations import starlette as for_starlette
from keywright.integrations.guard import Caller, Guard, Told
from keywright.model import Verdict
from surfaces import Door, example
from test_integrations import PREFLIGHT, sent


def reader(kw: Keywright, **over: object) -> Issued:
    """A key that may read things and nothing else."""
    return make(kw, access="restricted", scopes=["things:read"], **over)


# --------------------------------------------------------------------------------------------------------- websockets


@pytest.mark.security("T-64")
@pytest.mark.parametrize("extension", [True, False])
@pytest.mark.parametrize("framework", SOCKETS)
def test_a_websocket_is_refused_before_it_is_accepted(framework: str, extension: bool, kw: Keywright) -> None:
    """With the verdict's whole answer where the server can send it, or else by closing with 1008."""
    ran: Ran = []
    lacking = make(kw, access="restricted", scopes=["things:write"])
    app = SOCKETS[framework](kw, ran)

    for headers, status in (([], 401), (sent(lacking), 403)):
        said = _handshake(app, headers, extension=extension)
        if extension and framework != "starlette backend":  # Starlette's own middleware only closes
            assert [message["type"] for message in said] == [
                "websocket.http.response.start",
                "websocket.http.response.body",
            ]
            assert said[0]["status"] == status == json.loads(said[1]["body"])["status"]
        else:
            assert [message["type"] for message in said] == ["websocket.close"]
            assert said[0]["code"] == (1000 if framework == "starlette backend" else 1008)
    assert ran == []


@pytest.mark.parametrize("framework", SOCKETS)
def test_a_websocket_is_opened_by_a_key_that_may(framework: str, kw: Keywright) -> None:
    """The handler knows whose connection it is."""
    ran: Ran = []
    made = reader(kw)

    said = _handshake(SOCKETS[framework](kw, ran), sent(made))

    assert said[0]["type"] == "websocket.accept"
    assert json.loads(said[1].get("text") or said[1]["bytes"])["key"] == made.key.id
    assert ran == ["/ws"]


def _handshake(app: Any, headers: list[tuple[str, str]], *, extension: bool = True) -> list[dict[str, Any]]:
    """What an application says to a client that opens a websocket at ``/ws``."""
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/ws",
        "raw_path": b"/ws",
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("203.0.113.9", 1),
        "server": ("localhost", 80),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}} if extension else {},
    }
    said: list[dict[str, Any]] = []
    coming = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

    async def receive() -> dict[str, Any]:
        return next(coming)

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(app(scope, receive, send))
    return said


@pytest.mark.security("T-64")
def test_a_websocket_of_aiohttp(kw: Keywright) -> None:
    """The handshake of a websocket is answered with the refusal, or opened."""
    ran: Ran = []
    made = reader(kw)

    async def session() -> tuple[int, Any]:
        server = aiohttp.test_utils.TestServer(hosts.aiohttp_app(kw, ran))
        async with aiohttp.test_utils.TestClient(server) as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect("/ws")
            socket = await client.ws_connect("/ws", headers=bearer(made))
            return refused.value.status, await socket.receive_json()

    status, told = asyncio.run(session())
    assert (status, told["key"]) == (401, made.key.id)
    assert ran == ["/ws"]


def test_what_a_websocket_is_for_is_not_known(kw: Keywright) -> None:
    """A key that only reads opens no websocket for which no scope is named: nothing says that it will only read."""
    headers = sent(make(kw, access="read_only"))
    app = asgi.KeywrightMiddleware(SOCKETS["asgi"](kw, []), kw, **IN)

    assert _handshake(app, headers)[0]["status"] == 403
    with hosts.HOSTS["aiohttp"](kw, []) as send:
        assert send("GET", "/plain", headers).status == 200
        assert send("GET", "/plain", [*headers, ("Upgrade", "websocket")]).status == 403


def test_starlettes_client_sees_the_refusal(kw: Keywright) -> None:
    """What its users' tests see of a websocket that is refused."""
    client = TestClient(SOCKETS["fastapi"](kw, []))

    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/ws"):
        pass
    assert isinstance(refused.value, WebSocketDisconnect)
    assert refused.value.status_code == 401


# --------------------------------------------------------------------------------------------- guards one in another


def _asgi_twice(kw: Any) -> Any:
    inner = asgi.KeywrightMiddleware(_says("inner", []), kw, scopes=["things:read"], **IN)
    return asgi_client(asgi.KeywrightMiddleware(inner, kw, scopes=["things:read"], **IN))


def _wsgi_twice(kw: Any) -> Any:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    inner = wsgi.KeywrightMiddleware(app, kw, scopes=["things:read"], **IN)
    return wsgi_client(wsgi.KeywrightMiddleware(inner, kw, scopes=["things:read"], **IN))


def _starlette_twice(kw: Any) -> Any:
    @for_starlette.requires_scope("things:read")
    async def things(_request: Any) -> Any:
        return JSONResponse({})

    guarding = Middleware(for_starlette.KeywrightMiddleware, keywright=kw, **IN)
    backend = for_starlette.APIKeyBackend(kw, **IN)
    signing = Middleware(AuthenticationMiddleware, backend=backend, on_error=for_starlette.refuse)
    part = Mount("/", routes=[Route("/things", things)], middleware=[signing, guarding])
    return asgi_client(Starlette(routes=[part], middleware=[guarding]))


def _fastapi_twice(kw: Any) -> Any:
    app, router = fastapi.FastAPI(), fastapi.APIRouter(dependencies=[_reading(kw)])
    router.get("/things", dependencies=[_reading(kw)])(lambda: {"said": True})
    app.include_router(router)
    return asgi_client(app)


def _reading(kw: Any) -> Any:
    return fastapi.Security(for_fastapi.APIKeyAuth(kw, **IN), scopes=["things:read"])


def _litestar_twice(kw: Any) -> Any:
    def guarding(app: Any) -> Any:
        return for_litestar.KeywrightMiddleware(app, kw, **IN)

    @litestar.get("/things", guards=[for_litestar.HasScopes("things:read")])
    async def things() -> None: ...

    part = litestar.Router("/", route_handlers=[things], middleware=[guarding])
    return asgi_client(
        litestar.Litestar([part], middleware=[guarding], openapi_config=None, logging_config=None)
    )


def _flask_twice(kw: Any) -> Any:
    app, part = flask.Flask("host"), flask.Blueprint("part", "part")
    auth = for_flask.APIKeyAuth(kw, app, **IN)
    part.get("/things")(auth.require("things:read")(lambda: {"said": True}))
    auth.init_app(part)
    for_flask.APIKeyAuth(kw, part, **IN)
    app.register_blueprint(part)
    return wsgi_client(app)


def _aiohttp_twice(kw: Any) -> Any:
    @for_aiohttp.scopes("things:read")
    async def things(_request: Any) -> aiohttp.web.Response:
        return aiohttp.web.json_response({})

    app = aiohttp.web.Application(middlewares=[for_aiohttp.api_key_middleware(kw, **IN)])
    part = aiohttp.web.Application(middlewares=[for_aiohttp.api_key_middleware(kw, **IN)])
    part.router.add_get("/things", things)
    app.add_subapp("/part", part)
    return hosts.aiohttp_client(app)


@contextmanager
def _django_twice(kw: Any) -> Iterator[Any]:
    @for_django.api_key_required("things:read")
    def things(_request: Any) -> Any:
        return JsonResponse({})

    with django_settings(kw, (path("things", things),), DJANGO, DJANGO), wsgi_client(WSGIHandler()) as send:
        yield send


@contextmanager
def _drf_twice(kw: Any) -> Iterator[Any]:
    """A view of Django REST framework behind Django's middleware, which does not know what its permissions need."""

    class Things(APIView):
        authentication_classes = (drf.APIKeyAuthentication,)

        def get(self, _request: Any) -> Any:
            return RestResponse({})

    with django_settings(kw, (path("things", Things.as_view()),), DJANGO), asgi_client(ASGIHandler()) as send:
        yield send


_TWICE = {
    "asgi": _asgi_twice,
    "wsgi": _wsgi_twice,
    "starlette": _starlette_twice,
    "fastapi": _fastapi_twice,
    "litestar": _litestar_twice,
    "flask": _flask_twice,
    "aiohttp": _aiohttp_twice,
    "django": _django_twice,
    "drf": _drf_twice,
}


@pytest.mark.parametrize("framework", _TWICE)
def test_a_request_is_asked_about_once_however_many_guard_it(framework: str, kw: Keywright) -> None:
    """Of an application and of a part of it: one question and one charge, and whoever may not is refused by either."""
    scopes = {} if framework == "drf" else {"access": "restricted", "scopes": ["things:read"]}
    made, lacking = (
        make(kw, limits=["1/day"], **scopes),
        make(kw, access="restricted", scopes=["things:write"]),
    )
    target = "/part/things" if framework == "aiohttp" else "/things"
    watched = Watched(kw)

    with _TWICE[framework](watched) as send:
        assert send("GET", target, sent(lacking)).status == 403
        watched.verdicts.clear()
        assert send("GET", target, sent(made)).status == 200
        assert [verdict.code for verdict in watched.verdicts] == ["ok"]
        assert send("GET", target, sent(made)).status == 429


@pytest.mark.security("T-64")
def test_what_a_guard_further_in_asks_besides_is_held_and_not_charged(kw: Keywright) -> None:
    """A scope that the outer guard did not ask for must be held all the same; the request is charged once."""
    ran: Ran = []
    watched = Watched(kw)
    inner = asgi.KeywrightMiddleware(_says("inner", ran), watched, scopes=["things:write"], **IN)
    app = asgi.KeywrightMiddleware(inner, watched, **IN)
    whole, reads = make(kw, limits=["1/day"]), make(kw, access="read_only")

    with asgi_client(app) as send:
        assert (send("GET", "/", sent(reads)).status, ran) == (403, [])
        watched.verdicts.clear()
        assert (send("GET", "/", sent(whole)).status, ran) == (200, ["inner"])
        assert [verdict.asked for verdict in watched.verdicts] == [(), ("things:write",)]
        assert send("GET", "/", sent(whole)).status == 429


@pytest.mark.security("T-64")
def test_a_part_that_asks_what_a_key_may_do_is_not_opened_by_who_it_is(kw: Keywright) -> None:
    """Where the application asks only who calls, a blueprint's guard that asks by method refuses a restricted key."""
    app, part = flask.Flask("host"), flask.Blueprint("part", "part", url_prefix="/part")
    for_flask.APIKeyAuth(kw, app, authenticate_only=True, **IN)
    for_flask.APIKeyAuth(kw, part, **IN)
    app.add_url_rule("/", view_func=lambda: "", endpoint="own")
    part.add_url_rule("/", view_func=lambda: "", endpoint="own")
    app.register_blueprint(part)
    key = reader(kw)

    with wsgi_client(app) as send:
        assert [send("GET", target, sent(key)).status for target in ("/", "/part/")] == [200, 403]


@pytest.mark.security("T-64")
@pytest.mark.parametrize(
    "changed",
    [{"method": "POST"}, {"raw_path": b"/other"}, {"client": ("192.0.2.1", 1)}, {"headers": []}],
    ids=lambda changed: next(iter(changed)),
)
def test_another_request_than_was_let_in_is_asked_about(changed: dict[str, Any], kw: Keywright) -> None:
    """Where the method, the path, the headers or the address was changed behind a guard, the next one asks anew."""
    ran: Ran = []
    inner = asgi.KeywrightMiddleware(_says("inner", ran), kw, **IN)

    async def changing(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope | changed, receive, send)

    key = make(kw, access="read_only", allowed_ips=[f"{hosts.PEER}/32"], limits=["1/day"])
    with asgi_client(asgi.KeywrightMiddleware(changing, kw, **IN)) as send:
        status = send("GET", "/", sent(key)).status
    assert (status, ran) == (
        {"method": 403, "raw_path": 429, "client": 403, "headers": 401}[next(iter(changed))],
        [],
    )


# ------------------------------------------------------------------------------------------------------ ASGI and WSGI


def _says(scope: Any, ran: Ran) -> Any:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        ran.append(scope)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"Cache-Control", b"max-age=60")]}
        )
        await send({"type": "http.response.body", "body": b""})

    return app


def test_only_a_lifespan_passes_unasked(kw: Keywright) -> None:
    """A scope of a type that nobody knows is an error, not a way in."""
    ran: Ran = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        ran.append(scope["type"])

    guarded = asgi.KeywrightMiddleware(app, kw, **IN)
    asyncio.run(guarded({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="neither HTTP nor a websocket"):
        asyncio.run(guarded({"type": "webtransport"}, None, None))  # type: ignore[arg-type]

    assert ran == ["lifespan"]


@pytest.mark.security("T-64")
def test_an_exempt_path_is_spelled_exactly_so(kw: Keywright) -> None:
    """Another spelling of an exempt path is asked about, and so is a path below it."""
    ran: Ran = []
    with Door(asgi.KeywrightMiddleware(_says("ran", ran), kw, exempt=["/a/b"], **IN)) as door:
        for target in ("/a%2Fb", "/a/%62", "/a/b/", "//a/b", "/a/b/c", "/A/b", "/a/./b", "/a/b;x"):
            assert door.get(target).status == 401, target
        assert ran == []
        assert door.get("/a/b").status == door.get("/a/b?q=%20").status == 200


def test_a_name_is_no_list_of_letters(kw: Keywright) -> None:
    """One path or one scope may be given by itself; what can be gone through only once is kept."""
    ran: Ran = []
    guarded = asgi.KeywrightMiddleware(
        _says("ran", ran), kw, exempt="/open", scopes=iter(["things:write"]), **IN
    )
    with Door(guarded) as door:
        assert [door.get(target).status for target in ("/", "/open")] == [401, 200]
        assert [door.get("/things", sent(make(kw, access="read_only"))).status for _ in range(2)] == [
            403,
            403,
        ]
        assert len(ran) == 1


@pytest.mark.security("T-08")
def test_an_exempt_path_comes_from_no_header(kw: Keywright) -> None:
    """Whatever a proxy's headers or the host say of the path, the path of the request decides."""
    ran: Ran = []
    with Door(asgi.KeywrightMiddleware(_says("ran", ran), kw, exempt=["/open"], **IN)) as door:
        for name in ("Host", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Path", "X-Forwarded-Prefix"):
            assert door.get("/things", {name: "/open"}).status == 401
    assert ran == []


def test_what_an_application_says_itself_stands(kw: Keywright) -> None:
    """A header that the answer has already is not said twice."""
    with Door(asgi.KeywrightMiddleware(_says("ran", []), kw, **IN)) as door:
        reply = door.get("/", sent(make(kw, limits=["5/day"])))

    assert reply.all("Cache-Control") == ["max-age=60"]
    assert reply.get("RateLimit") is not None


def test_a_body_is_not_sent_to_head(kw: Keywright) -> None:
    """A refusal of HEAD has the length that GET's has, and no body."""
    with Door(asgi.KeywrightMiddleware(_says("ran", []), kw, **IN)) as door:
        got, head = door.get("/"), door.send("HEAD", "/")

    assert (head.status, head.body, head.get("Content-Length")) == (401, b"", str(len(got.body)))


@pytest.mark.security("T-64")
def test_a_preflight_is_answered_before_anything_runs(kw: Keywright) -> None:
    """Where its headers are named, a preflight is answered with them by every way in; any other OPTIONS is asked about."""
    allowed = {"Access-Control-Allow-Origin": "https://app.example.com"}
    ran: Ran = []
    watched = Watched(kw)
    with override_in(preflight=allowed):
        for name, open_ in hosts.HOSTS.items():
            if name == "fastapi":
                with pytest.raises(TypeError, match="CORSMiddleware"):  # a dependency is not reached
                    open_(watched, ran)
                continue
            with open_(watched, ran) as send:
                answered = send("OPTIONS", "/things", PREFLIGHT)
                assert (answered.status, answered.body) == (204, b""), name
                assert answered.get("Access-Control-Allow-Origin") == "https://app.example.com"
                assert send("OPTIONS", "/things", PREFLIGHT[:1]).status == 401
                assert send("GET", "/things", PREFLIGHT).status == 401

    assert ran == []
    assert {verdict.code for verdict in watched.verdicts} == {"missing"}


@contextmanager
def override_in(**more: Any) -> Iterator[None]:
    """Every host is opened with something more."""
    before = dict(IN)
    IN.update(more)
    try:
        yield
    finally:
        IN.clear()
        IN.update(before)


def test_wsgi_counts_what_is_joined_as_two(kw: Keywright) -> None:
    """Two values under one name, joined by a comma as servers do, are two credentials for every carrier."""
    made = make(kw)
    token, secret = made.credential.token.reveal(), made.credential.secret
    assert secret is not None
    pair = {"HTTP_X_API_KEY": made.key.id, "HTTP_X_API_SECRET": secret.reveal()}
    app = wsgi.KeywrightMiddleware(lambda *_: [b"ran"], kw, **IN)
    for headers in (
        {"HTTP_AUTHORIZATION": f"Bearer {token},Bearer {token}"},
        {"HTTP_AUTHORIZATION": f"Bearer {token}, Bearer {token}"},
        {"HTTP_API_KEY": f"{token},{token}"},
        pair | {"HTTP_X_API_KEY": f"{made.key.id},{made.key.id}"},
    ):
        said: list[str] = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "127.0.0.1", **headers}
        body = b"".join(app(environ, lambda status, _headers: said.append(status)))  # noqa: B023
        assert (said, json.loads(body)["code"]) == (["401 Unauthorized"], "ambiguous")


# ------------------------------------------------------------------------------------------------------------- guard


def test_nobody_refused_becomes_a_caller(kw: Keywright) -> None:
    """There is no ``Caller`` of a refused verdict, and no refusal of one that lets in."""
    guard = Guard(kw, **IN)
    told = Told(
        [(b"authorization", f"Bearer {make(kw).credential.token.reveal()}".encode())], b"/", "GET", None
    )

    with pytest.raises(ValueError, match="missing"):
        Caller.of(guard.verify(told._replace(headers=[])))
    with pytest.raises(ValueError, match="no refusal"):
        guard.refusal(guard.verify(told))
    assert "secret" not in repr(Caller.of(guard.verify(told))).lower()


def test_a_success_is_never_dressed_as_trouble(kw: Keywright) -> None:
    """Where the keyspace's words are lost after a request was let in, its answer is given no header of a refusal."""
    told = Told(
        [(b"authorization", bearer(make(kw, limits=["5/day"]))["Authorization"].encode())], b"/", "GET", None
    )
    guard = Guard(kw, **IN)
    verdict = guard.verify(told)
    kw.installation.cache.forget(0)
    kw.installation.lookup.keyspace = lost  # type: ignore[method-assign]

    assert [name for name, _ in guard.limits_headers(verdict)] == [
        "RateLimit-Policy",
        "RateLimit",
        "Cache-Control",
    ]
    refused = guard.refusal(msgspec.structs.replace(verdict, code="invalid"))
    assert (refused.status, json.loads(refused.body)["title"]) == (503, "The service cannot answer right now")


def lost(_name: str) -> None:
    """A look-up of a store that is gone."""
    raise Unavailable("the store does not answer")


def test_who_calls_is_enough_only_where_no_scope_is_asked(kw: Keywright) -> None:
    """``authenticate_only`` lets in a key that may do nothing here; a scope that is asked must be held all the same."""
    guard = Guard(kw, authenticate_only=True, **IN)
    token = reader(kw).credential.token.reveal()
    told = Told([(b"authorization", f"Bearer {token}".encode())], b"/", "POST", None)

    assert guard.verify(told)
    assert guard.verify(told, ["things:write"]).code == "insufficient_scope"


# ----------------------------------------------------------------------------------------- wired wrongly: never let in


def _flask_unguarded(ran: Ran) -> Any:
    app = flask.Flask("host")
    app.add_url_rule("/", view_func=for_flask.APIKeyAuth().require("a")(lambda: ran.append("ran") or {}))
    return wsgi_client(app)


def _starlette_unguarded(ran: Ran) -> Any:
    @for_starlette.requires_scope("a")
    async def endpoint(_request: Any) -> Any:
        ran.append("ran")

    return _failing(Starlette(routes=[Route("/", endpoint)]))


def _litestar_unguarded(ran: Ran) -> Any:
    @litestar.get("/", guards=[for_litestar.HasScopes("a")])
    async def handler() -> None:
        ran.append("ran")

    return asgi_client(litestar.Litestar([handler], openapi_config=None, logging_config=None, debug=False))


def _aiohttp_unguarded(ran: Ran) -> Any:
    @for_aiohttp.scopes("a")
    async def handler(_request: Any) -> Any:
        ran.append("ran")

    app = aiohttp.web.Application()
    app.router.add_get("/", handler)
    return hosts.aiohttp_client(app)


@contextmanager
def _django_unguarded(ran: Ran) -> Iterator[Any]:
    view = for_django.api_key_required("a")(lambda _request: ran.append("ran"))
    with django_settings(None, (path("", view),)), wsgi_client(WSGIHandler()) as send:
        yield send


@contextmanager
def _drf_unguarded(ran: Ran) -> Iterator[Any]:
    class Things(APIView):
        authentication_classes = ()
        permission_classes = (drf.HasScopes("a"),)

        def get(self, _request: Any) -> Any:
            ran.append("ran")

    with django_settings(None, (path("", Things.as_view()),)), wsgi_client(WSGIHandler()) as send:
        yield send


@contextmanager
def _failing(app: Any) -> Iterator[Any]:
    client = TestClient(app, raise_server_exceptions=False)
    yield lambda method, target, _headers: client.request(method, target)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "unguarded",
    [
        _flask_unguarded,
        _starlette_unguarded,
        _litestar_unguarded,
        _aiohttp_unguarded,
        _django_unguarded,
        _drf_unguarded,
    ],
)
def test_a_handler_that_nobody_guards_does_not_run(unguarded: Callable[[Ran], Any]) -> None:
    """Where what a handler needs is written down and nothing asks for it, the request fails; it is not let in."""
    ran: Ran = []

    with unguarded(ran) as send:
        assert send("GET", "/", []).status in (403, 500) if unguarded is not _starlette_unguarded else True
        if unguarded is _starlette_unguarded:
            assert send("GET", "/", []).status_code == 500

    assert ran == []


@pytest.mark.parametrize("framework", ["starlette", "django"])
def test_what_hides_its_needs_does_not_run(framework: str, kw: Keywright) -> None:
    """Where a decorator hides what a handler needs, so that it was not asked for, it fails for a key that has it, too."""
    ran: Ran = []
    requires = {"starlette": for_starlette.requires_scope, "django": for_django.api_key_required}[framework]
    needing = requires("things:read")(lambda _request: ran.append("ran"))

    def hiding(request: Any) -> Any:
        return needing(request)

    if framework == "starlette":
        guarding = Middleware(for_starlette.KeywrightMiddleware, keywright=kw, **IN)
        client = TestClient(Starlette(routes=[Route("/", hiding)], middleware=[guarding]))
        with pytest.raises(RuntimeError, match="things:read was not asked for"):
            client.get("/", headers=bearer(make(kw)))
    else:
        with django_settings(kw, (path("", hiding),), DJANGO), wsgi_client(WSGIHandler()) as send:
            assert send("GET", "/", sent(make(kw))).status == 500
    assert ran == []


# ------------------------------------------------------------------------------------------------------------ FastAPI


def _documented(kw: Any, *, install: bool, keyspace: str = "every") -> dict[str, Any]:
    app = fastapi.FastAPI()
    auth = for_fastapi.APIKeyAuth(kw, keyspace=keyspace, environment="production")
    if install:
        auth.install(app)

    @app.get("/things")
    async def things(_caller: Annotated[Caller, fastapi.Security(auth, scopes=["things:read"])]) -> None: ...

    @app.get("/open")
    async def opened() -> None: ...

    return app.openapi()


def test_the_document_has_the_keyspaces_schemes(kw: Keywright) -> None:
    """Each scheme is an alternative with the scopes that are asked, in a header and never in the query."""
    document = _documented(kw, install=True)

    schemes = document["components"]["securitySchemes"]
    assert {
        (one["type"], one.get("scheme") or one["name"], one.get("in", "header")) for one in schemes.values()
    } == {
        ("http", "bearer", "header"),
        ("http", "basic", "header"),
        ("apiKey", "X-API-KEY", "header"),
        ("apiKey", "X-API-SECRET", "header"),
        ("apiKey", "apiKey", "header"),
        ("apiKey", "apiSecret", "header"),
        ("apiKey", "x-api-key", "header"),
        ("apiKey", "x-api-user", "header"),
        ("apiKey", "Authorization", "header"),
        ("apiKey", "Api-Key", "header"),
        ("apiKey", "X-Token", "header"),
    }
    asked = document["paths"]["/things"]["get"]["security"]
    assert {"every_bearer": ["things:read"]} in asked
    assert {"every_key_secret": ["things:read"], "every_key_secret_x-api-secret": ["things:read"]} in asked
    assert "security" not in document["paths"]["/open"]["get"]
    assert "parameters" not in document["paths"]["/things"]["get"]


def test_the_document_of_a_keyspace_with_bearer_alone(kw: Keywright) -> None:
    """Nothing is described that the keyspace does not accept, installed or not."""
    kw.keyspaces.apply('name = "plain"\ntitle = "Plain"\nschemes = ["bearer"]\n')

    for install in (True, False):
        document = _documented(kw, install=install, keyspace="plain")
        assert list(document["components"]["securitySchemes"]) == ["plain_bearer"]
        assert document["paths"]["/things"]["get"]["security"] == [{"plain_bearer": ["things:read"]}]


def test_without_the_definition_at_hand_nothing_is_asked_early(kw: Keywright) -> None:
    """With ``schemes`` an application is put together where no server answers."""
    keyspace = kw.keyspaces.get("every").keyspace
    client = Keywright.connect("http://127.0.0.1:9", key="none", **IN)

    auth = for_fastapi.APIKeyAuth(client, schemes=keyspace)

    assert "every_bearer" in str(auth.__signature__)


def _two_levels(kw: Any, ran: Ran) -> fastapi.FastAPI:
    auth = for_fastapi.APIKeyAuth(kw, **IN)
    router = fastapi.APIRouter(dependencies=[fastapi.Security(auth, scopes=["things:read"])])

    @router.post("/things")
    async def things(caller: Annotated[Caller, fastapi.Security(auth, scopes=["things:write"])]) -> Any:
        ran.append("ran")
        return sorted(caller.asked)

    app = fastapi.FastAPI(dependencies=[fastapi.Security(auth)])
    app.include_router(router, prefix="/api")
    return app


@pytest.mark.parametrize("told", [True, False])
def test_an_application_its_router_and_its_route_charge_once(
    told: bool, kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What all of them need is asked at once; and charged once too where FastAPI would not tell of its routes."""
    if not told:
        monkeypatch.setattr(for_fastapi, "_route", lambda _scope: None)
    ran: Ran = []
    client = TestClient(_two_levels(watched := Watched(kw), ran))
    scopes = {} if not told else {"access": "restricted", "scopes": ["things:read", "things:write"]}
    whole, half = make(kw, limits=["1/day"], **scopes), make(kw, access="restricted", scopes=["things:write"])

    assert client.post("/api/things", headers=bearer(half)).status_code == 403
    assert client.post("/api/things").status_code == 401
    assert ran == []
    watched.verdicts.clear()
    assert client.post("/api/things", headers=bearer(whole)).json() == ["things:read", "things:write"]
    assert len(watched.verdicts) == (1 if told else 3)
    assert client.post("/api/things", headers=bearer(whole)).status_code == 429
    if told:
        rows = kw.installation.usage.report(group="resource").rows
        assert [row.value for row in rows] == ["/api/things"]


def test_the_example_is_counted_by_its_whole_routes(kw: Keywright) -> None:
    """Where another application includes it under a prefix, the resource of a request has that prefix."""
    app = fastapi.FastAPI()
    app.include_router(example().build(kw).router, prefix="/v2")
    headers = bearer(make(kw, keyspace="atfinity", access="all"))
    headers = {"Authorization": headers["Authorization"].replace("Bearer", "Api-Key")}

    assert TestClient(app).get("/v2/cases", headers=headers).json()["account"] == "globex"
    assert [row.value for row in kw.installation.usage.report(group="resource").rows] == ["/v2/cases"]


def test_a_hosts_own_handler_of_errors_changes_no_refusal(kw: Keywright) -> None:
    """An application that words its own errors in its own way still refuses in Keywright's, nothing being installed."""
    app = _two_levels(kw, [])

    @app.exception_handler(fastapi.HTTPException)
    async def own(_request: Any, _error: Any) -> Response:
        return JSONResponse({"mine": True}, 418)

    assert TestClient(app).post("/api/things").json()["code"] == "missing"


def test_a_caller_cannot_be_overtaken_from_another_dependency(kw: Keywright) -> None:
    """What one dependency let in says nothing to another, of another environment."""
    app = fastapi.FastAPI()
    live = for_fastapi.APIKeyAuth(kw, **IN)
    staging = for_fastapi.APIKeyAuth(kw, keyspace="every", environment="staging")

    @app.get("/", dependencies=[fastapi.Security(live)])
    async def handler(_caller: Annotated[Caller, fastapi.Security(staging)]) -> None: ...

    assert TestClient(app).get("/", headers=bearer(make(kw))).json()["code"] == "wrong_environment"


# ---------------------------------------------------------------------------------------------------------- Starlette


def test_a_class_of_endpoints_names_scopes_by_method(kw: Keywright) -> None:
    """Each method of an ``HTTPEndpoint`` has its own; HEAD has GET's."""

    class Things(HTTPEndpoint):
        @for_starlette.requires_scope("things:read")
        async def get(self, request: Any) -> Any:
            return JSONResponse(shown(request.state.api_key))

        @for_starlette.requires_scope("things:write")
        def post(self, request: Any) -> Any:
            return JSONResponse(shown(request.user.caller))

    guarding = Middleware(for_starlette.KeywrightMiddleware, keywright=kw, **IN)
    client = TestClient(Starlette(routes=[Route("/", Things)], middleware=[guarding]))
    headers = bearer(reader(kw))

    assert [
        client.request(method, "/", headers=headers).status_code for method in ("GET", "HEAD", "POST")
    ] == [
        200,
        200,
        403,
    ]


def test_errors_that_are_not_ours_are_answered_too(kw: Keywright) -> None:
    """``refuse`` beside another backend's errors answers as Starlette itself does; the key's scopes are its credentials."""
    seen: list[Any] = []

    @for_starlette.requires_scope("things:read")
    async def endpoint(request: Any) -> Any:
        seen.extend([request.auth.scopes, request.user.display_name, request.user.account])
        return JSONResponse({})

    backend = for_starlette.APIKeyBackend(kw, **IN)
    signing = Middleware(AuthenticationMiddleware, backend=backend, on_error=for_starlette.refuse)
    client = TestClient(Starlette(routes=[Route("/", endpoint)], middleware=[signing]))

    assert client.get("/", headers=bearer(reader(kw))).status_code == 200
    assert seen == [["authenticated", "things:read"], "globex", "globex"]
    error = for_starlette.AuthenticationError("other")
    assert for_starlette.refuse(None, error).status_code == 400  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------------- Flask


def test_a_blueprint_is_guarded_alone(kw: Keywright) -> None:
    """The views of a guarded blueprint need a key; those beside it are the host's own."""
    app, api = flask.Flask("host"), flask.Blueprint("api", "api", url_prefix="/api")
    for_flask.APIKeyAuth(client=lambda _: "192.0.2.1", **IN).init_app(api, kw)
    api.add_url_rule("/me", view_func=lambda: shown(flask.g.api_key), endpoint="me")
    app.add_url_rule("/page", view_func=lambda: "page", endpoint="page")
    app.register_blueprint(api)
    client = app.test_client()

    assert client.get("/page").status_code == 200
    assert client.get("/api/me").status_code == 401
    near = make(kw, allowed_ips=["192.0.2.1/32"])
    assert client.get("/api/me", headers=bearer(near)).get_json()["key"] == near.key.id


def test_decorators_in_the_wrong_order_ask_all_the_same(kw: Keywright) -> None:
    """``require`` above the route's decorator is heeded: what it wraps is marked too."""
    app, ran = flask.Flask("host"), []
    auth = for_flask.APIKeyAuth(kw, app, **IN)

    @auth.require("things:write")
    @app.get("/")
    def view() -> Any:
        ran.append("ran")
        return {}

    assert app.test_client().get("/", headers=bearer(make(kw, access="read_only"))).status_code == 403
    assert ran == []
    assert view.__name__ == "view"


def test_flask_wants_a_keywright() -> None:
    """An extension that was never given one guards nothing and says so."""
    with pytest.raises(RuntimeError, match="init_app"):
        for_flask.APIKeyAuth().init_app(flask.Flask("host"))


# ------------------------------------------------------------------------------------------------------------- Django


def test_django_exempts_namespaces_and_names(kw: Keywright) -> None:
    """``EXEMPT`` names routes or namespaces; every other view needs a key."""

    def page(_request: Any) -> Any:
        return JsonResponse({})

    pages = include(([path("a", page)], "pages"))
    urls = (path("in/", pages), path("health", page, name="health"), path("other", page, name="other"))
    with (
        django_settings(kw, urls, DJANGO, exempt=["pages", "health"]),
        wsgi_client(WSGIHandler()) as send,
    ):
        found = {target: send("GET", target, []).status for target in ("/in/a", "/health", "/other", "/none")}

    assert found == {"/in/a": 200, "/health": 200, "/other": 401, "/none": 404}


def test_a_class_of_django_views_is_decorated_whole(kw: Keywright) -> None:
    """``method_decorator`` on ``dispatch`` names the scopes of every method; the address is whose ``CLIENT`` says."""

    @method_decorator(for_django.api_key_required("things:read"), name="dispatch")
    class Things(View):
        def get(self, request: Any) -> Any:
            return JsonResponse(shown(request.api_key))

    with (
        django_settings(kw, (path("", Things.as_view()),), DJANGO, client=lambda _request: "192.0.2.1"),
        wsgi_client(WSGIHandler()) as send,
    ):
        good = send("GET", "/", sent(reader(kw, allowed_ips=["192.0.2.1/32"])))
        bad = send("GET", "/", sent(make(kw, access="restricted", scopes=["things:write"])))

    assert (good.status, bad.status) == (200, 403)


@pytest.mark.parametrize("given", [{}, {"INSTALLATION": "hosts.IN", "EXEMT": []}])
def test_a_setting_that_nobody_knows_stops_django(given: dict[str, Any]) -> None:
    """The application does not start, rather than start without what was meant."""
    with override_settings(KEYWRIGHT=given), pytest.raises(ImproperlyConfigured, match="INSTALLATION"):
        for_django.KeywrightMiddleware(lambda _request: None)


# --------------------------------------------------------------------------------------------- Django REST framework


class Signed(BaseAuthentication):
    """Somebody else's way in: whoever says so."""

    def authenticate(self, request: Any) -> Any:
        """Sign in whoever says so."""
        if request.META.get("HTTP_X_STAFF"):
            return type("User", (), {"is_authenticated": True, "is_staff": True})(), None
        return None


class Optional(drf.APIKeyAuthentication):
    """A key, or whatever is tried next."""

    optional = True


def _drf_statuses(
    kw: Any,
    permissions: tuple[Any, ...],
    requests: list[list[tuple[str, str]]],
    *ways: Any,
    method: str = "GET",
) -> list[int]:
    """What a view with these permissions answers to each of some requests."""

    class Things(APIView):
        authentication_classes = ways or (drf.APIKeyAuthentication,)
        permission_classes = permissions

        def get(self, request: Any) -> Any:
            return RestResponse({"user": str(request.user)})

        post = get

    with django_settings(kw, (path("", Things.as_view()),)), wsgi_client(WSGIHandler()) as send:
        return [send(method, "/", headers).status for headers in requests]


def test_permissions_compose(kw: Keywright) -> None:
    """``|`` opens to a key that holds either, ``&`` to one that holds both, and each request is charged once."""
    read, write = drf.HasScopes("things:read"), drf.HasScopes("things:write")
    keys = [
        make(kw, access="restricted", scopes=scopes, limits=["2/day"])
        for scopes in (["things:read"], ["things:write"], ["things:read", "things:write"])
    ]
    requests = [[], *(sent(one) for one in keys)]

    assert _drf_statuses(kw, (read | write,), requests) == [401, 200, 200, 200]
    assert _drf_statuses(kw, (read & write,), requests) == [401, 403, 403, 200]
    assert _drf_statuses(kw, (read, write), requests) == [401, 403, 403, 429]
    assert _drf_statuses(kw, ((read & IsAdminUser) | write,), [sent(both := make(kw, limits=["1/day"]))]) == [
        200
    ]
    assert _drf_statuses(kw, ((read & IsAdminUser) | write,), [sent(both)]) == [429]
    assert _drf_statuses(kw, ((read & IsAdminUser) | write,), [sent(reader(kw))]) == [403]
    with pytest.raises(ImproperlyConfigured, match="negated"):
        drf.alternatives([(~read)()])


def test_a_view_that_names_no_scopes_is_asked_for_by_method(kw: Keywright) -> None:
    """With nothing but a key to be there, a restricted key opens nothing and one that only reads opens GET."""
    keys = [make(kw), make(kw, access="read_only"), reader(kw)]
    requests = [sent(one) for one in keys]

    assert _drf_statuses(kw, (), requests) == [200, 200, 403]
    assert _drf_statuses(kw, (IsAuthenticated,), requests, method="POST") == [200, 403, 403]
    assert _drf_statuses(kw, (drf.HasScopes("things:read") | IsAdminUser,), requests) == [200, 200, 200]


def test_a_key_stands_beside_other_ways_in(kw: Keywright) -> None:
    """An optional key leaves a request without one to others; a key that is wrong is refused, whoever else would let it in."""
    staff, wrong = ("X-Staff", "yes"), ("Authorization", "Bearer wrong")
    requests = [[staff], [staff, wrong], [], sent(reader(kw)), [staff, ("X-API-KEY", "half")]]
    permissions = (drf.HasScopes("things:read") | IsAdminUser,)

    assert _drf_statuses(kw, permissions, requests, Optional, Signed) == [200, 401, 401, 200, 401]
    assert _drf_statuses(kw, permissions, requests) == [401, 401, 401, 200, 401]


def test_the_frameworks_own_handler_says_the_same(kw: Keywright) -> None:
    """Without our exception handler a refusal has the same status, members, challenge and Retry-After."""
    made = make(kw, limits=["1/day"])
    urls = hosts._drf_urls([])
    with (
        override_settings(REST_FRAMEWORK={}),
        django_settings(kw, urls),
        wsgi_client(WSGIHandler()) as send,
    ):
        missing = send("GET", "/things", [])
        send("GET", "/things", sent(made))
        spent = send("GET", "/things", sent(made))

    assert (missing.status, missing.code) == (401, "missing")
    assert missing.all("WWW-Authenticate") == ['Bearer realm="Every"']
    assert (spent.status, spent.code, len(spent.all("Retry-After"))) == (429, "quota_exhausted", 1)
    assert spent.get("RateLimit") is not None


def test_a_key_has_none_of_the_permissions_of_users(kw: Keywright) -> None:
    """The user of a key is signed in under its account's name, and holds nothing of Django's own."""
    verdict = kw.verify(bearer(make(kw)), method="GET", **IN)

    user = drf.KeyUser(Caller.of(verdict))

    assert (user.is_authenticated, user.is_staff, user.is_superuser, user.is_anonymous) == (
        True,
        False,
        False,
        False,
    )
    assert (str(user), user.get_username(), user.pk) == ("globex", "globex", verdict.key and verdict.key.id)
    assert not user.has_perm("auth.add_user")
    assert not user.has_perms([])


# ----------------------------------------------------------------------------------------------------------- Litestar


def test_a_framework_that_copies_its_configuration_copies_no_installation(kw: Keywright) -> None:
    """Both the library and the client of a server are their own deep copies."""
    client = Keywright.connect("http://127.0.0.1:9", key="k")
    assert deepcopy({"kw": kw, "client": client}) == {"kw": kw, "client": client}


def test_guards_of_every_layer_are_asked_with_the_key(kw: Keywright) -> None:
    """What the application, a router and a handler need is asked at once, wherever the middleware stands; all must be held."""
    ran: Ran = []

    @litestar.get("/", guards=[for_litestar.HasScopes("things:write")])
    async def handler(request: litestar.Request[Caller, Verdict, Any]) -> list[str]:
        ran.append("ran")
        return sorted(request.user.asked)

    guarding = litestar.middleware.DefineMiddleware(for_litestar.KeywrightMiddleware, keywright=kw, **IN)
    reading = for_litestar.HasScopes("things:read")
    router = litestar.Router("/", route_handlers=[handler], guards=[reading], middleware=[guarding])
    app = litestar.Litestar(
        [router], middleware=[guarding], openapi_config=None, logging_config=None, debug=False
    )
    whole = make(kw, access="restricted", scopes=["things:read", "things:write"], limits=["1/day"])

    with asgi_client(app) as send:
        assert send("GET", "/", sent(reader(kw))).status == 403
        assert ran == []
        assert send("GET", "/", sent(whole)).json == ["things:read", "things:write"]
