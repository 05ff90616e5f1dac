"""Ways to reach Keywright that the tests of its surfaces share: an ASGI client, a served port, a host, raw bytes."""

import asyncio
import importlib.util
import json
import logging
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import unquote

from keywright import Issued, Keywright
from keywright.model import Binding
from keywright.profiles import MANAGEMENT_SCOPES
from keywright.server import app as server_app
from keywright.server.hot import Hot
from keywright.server.problems import App
from keywright.settings import Settings, load

Pairs = list[tuple[bytes, bytes]]
Given = Iterable[tuple[str | bytes, str | bytes]] | dict[str, str]


class Reply(NamedTuple):
    """An HTTP answer, as it was sent."""

    status: int
    headers: Pairs
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [
            value.decode("latin-1") for key, value in self.headers if key.lower() == name.lower().encode()
        ]

    def get(self, name: str) -> str | None:
        """The value of a header that stands at most once."""
        found = self.all(name)
        assert len(found) < 2, (name, found)
        return found[0] if found else None

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error in either shape; ``ok`` for an answer that is none."""
        if self.status < 400:
            return "ok"
        said = self.json
        return str(said["code"] if "code" in said else said["data"]["code"])


class Door:
    """Sends requests to an ASGI application, byte for byte as they are given. Close it when done."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._runner = asyncio.Runner()

    def send(
        self,
        method: str,
        target: str | bytes,
        headers: Given = (),
        body: bytes = b"",
        *,
        peer: str = "127.0.0.1",
        scheme: str = "http",
        cut: bool = False,
        raw_path: bool = True,
    ) -> Reply:
        """Send one request. ``cut`` breaks the connection where the body should come."""
        raw = target.encode() if isinstance(target, str) else target
        path, _, query = raw.partition(b"?")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": scheme,
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": pairs(headers),
            "client": (peer, 50_000),
            "server": ("127.0.0.1", 8700),
        }
        if not raw_path:
            del scope["raw_path"]
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": cut}]
        sent: list[dict[str, Any]] = []
        over = asyncio.Event()
        if cut:
            over.set()

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                over.set()

        self._runner.run(self._app(scope, receive, send))
        if not sent:
            return Reply(0, [], b"")
        return Reply(
            sent[0]["status"], list(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:])
        )

    def get(self, target: str | bytes, headers: Given = (), **more: Any) -> Reply:
        """Send a GET."""
        return self.send("GET", target, headers, **more)

    def json(self, method: str, target: str, document: Any, headers: Given = (), **more: Any) -> Reply:
        """Send JSON; ``bytes`` go as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.send(
            method, target, [*pairs(headers), (b"content-type", b"application/json")], body, **more
        )

    def close(self) -> None:
        """Stop the event loop."""
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pairs(headers: Given) -> Pairs:
    """Headers as ASGI has them."""
    given = headers.items() if isinstance(headers, dict) else headers
    return [(_bytes(name).lower(), _bytes(value)) for name, value in given]


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def configured(**flags: Any) -> Settings:
    """Settings that come from nowhere but here."""
    return load(flags, {})


def server(kw: Keywright, **flags: Any) -> Hot:
    """The server's application over an open installation."""
    return server_app.build(kw.installation, configured(**flags))


def manager(kw: Keywright, *scopes: str, **bound: str) -> dict[str, str]:
    """The header of a new management key with these scopes, all of them if none is named, bound as said."""
    issued = kw.keys.create_management(
        name="Tests", scopes=list(scopes or MANAGEMENT_SCOPES), binding=Binding(**bound) if bound else None
    )
    return {"Authorization": f"Bearer {issued.credential.token.reveal()}"}


def token(issued: Issued) -> str:
    """The one value of a key."""
    return issued.credential.token.reveal()


# ------------------------------------------------------------------------------------------------------------- hosts


def example() -> ModuleType:
    """``examples/host.py``."""
    file = Path(__file__).parents[1] / "examples" / "host.py"
    spec = importlib.util.spec_from_file_location("example_host", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def host(kw: Keywright, routes: dict[tuple[str, str], tuple[str, tuple[str, ...]]]) -> App:
    """A host without a framework: ``routes`` says for each method and path the keyspace and the scopes asked."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                moment = (await receive())["type"]
                await send({"type": f"{moment}.complete"})
                if moment == "lifespan.shutdown":
                    return
        keyspace, scopes = routes[scope["method"], scope["path"]]
        verdict = await kw.averify(
            scope["headers"],
            keyspace=keyspace,
            environment="production",
            scopes=scopes,
            method=scope["method"],
            ip=scope["client"][0],
            url=scope["raw_path"] + b"?" + scope["query_string"],
        )
        status, headers, body = kw.answer(verdict)
        sent = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": body})

    return app


# ------------------------------------------------------------------------------------------------------- forward-auth

FAMILIES = ("forward", "nginx", "accel", "envoy")


def held_back(
    family: str, gate: str, method: str, target: str, headers: Given = ()
) -> tuple[str, str, Pairs]:
    """How a proxy of a family asks about a request that it holds back: by which method, where, with which headers."""
    if family == "envoy":
        return method, f"/authz/envoy/{gate}{target}", pairs(headers)
    prefix = "x-forwarded" if family == "forward" else "x-original"
    said = [(f"{prefix}-method", method), (f"{prefix}-uri", target)]
    return "GET", f"/authz/{family}/{gate}", [*pairs(said), *pairs(headers)]


def as_shown(reply: Reply) -> Reply:
    """What the client is shown of an answer: nginx's ``auth_request`` has the whole of a refusal in two headers."""
    status, body = reply.get("x-authz-status"), reply.get("x-authz-body")
    if status is None or body is None:
        return reply
    return Reply(int(status), reply.headers, body.encode("latin-1"))


# --------------------------------------------------------------------------------------------------------- real ports


@contextmanager
def served(app: App) -> Iterator[int]:
    """Serve an application on a free port of this machine with the product's own uvicorn, until the block ends."""
    taken = socket.create_server(("127.0.0.1", 0))
    running = server_app.server(app)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[taken])))
    thread.start()
    try:
        yield taken.getsockname()[1]
    finally:
        running.should_exit = True
        thread.join(30)
        taken.close()
        assert not thread.is_alive()


def exchange(port: int, request: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes to a port and read all that comes back until the server closes; ``half_close`` says that no more comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server has answered and closed already
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except ConnectionResetError:
            pass
        return found


def statuses(answer: bytes) -> list[int]:
    """The status of each response in what a server sent."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer)]


def request(
    method: str, target: bytes | str, headers: Given = (), body: bytes = b"", *, close: bool = True
) -> bytes:
    """A request's bytes. ``Host`` and, with a body, ``Content-Length`` are added; nothing given is altered."""
    raw = target.encode() if isinstance(target, str) else target
    given = headers.items() if isinstance(headers, dict) else headers
    lines = [method.encode() + b" " + raw + b" HTTP/1.1", b"Host: localhost"]
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in given]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", body])


@contextmanager
def records(*names: str) -> Iterator[list[logging.LogRecord]]:
    """Everything that loggers say within the block."""
    found: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    keeper = Keep()
    loggers = [logging.getLogger(name) for name in names or ("keywright", "uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(keeper)
    try:
        yield found
    finally:
        for logger in loggers:
            logger.removeHandler(keeper)


@contextmanager
def lost(kw: Keywright) -> Iterator[None]:
    """Take the keys' file away for a while: what was open is closed, and nothing can be opened."""
    file = kw.installation.database.file("keys")
    kw.installation.lookup.close()
    away = file.rename(file.with_suffix(".away"))
    yield
    away.rename(file)
