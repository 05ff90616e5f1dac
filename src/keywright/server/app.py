"""The whole server: the hot doors in front, the management API behind, on one port."""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keywright.errors import CannotStart
from keywright.installation import Installation
from keywright.server.hot import App, Hot
from keywright.server.problems import Receive, Scope, Send
from keywright.settings import Settings, is_loopback

#: How much of a request's head is taken before it must have ended, in bytes.
LONGEST_HEAD: Final = 128 * 1024


def build(installation: Installation, settings: Settings) -> Hot:
    """The ASGI application over an open installation, which it closes when it is shut down.

    The management API is made when it is first asked for: FastAPI's import must not delay the first verification.
    """
    return Hot(installation, settings, _Behind(installation, settings))


class _Behind:
    """What is behind the hot doors: the management API, and the console."""

    def __init__(self, installation: Installation, settings: Settings) -> None:
        self._api = _Later(lambda: _api(installation, settings))
        self._console = _Later(lambda: _console(installation, settings))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        ours = path in {"/", "/console"} or path.startswith("/console/")
        await (self._console if ours else self._api)(scope, receive, send)


class _Later:
    """An application, made at its first request."""

    def __init__(self, make: Callable[[], App]) -> None:
        self._made: App | None = None
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._made is None:
            self._made = self._make()
        await self._made(scope, receive, send)


def _api(installation: Installation, settings: Settings) -> App:
    from keywright.server.api import build as build_api  # noqa: PLC0415  # 300 ms that a verifier never needs

    return build_api(installation, settings)


def _console(installation: Installation, settings: Settings) -> App:
    from keywright.server.console import build as build_console  # noqa: PLC0415  # Jinja2, which a verifier never needs

    return build_console(installation, settings)


def listen(settings: Settings) -> socket.socket:
    """Take the port; nobody is answered, or even heard, before ``hear``.

    Raises ``CannotStart`` where it is taken, or where strangers could reach an unnamed server.
    """
    if not is_loopback(settings.host) and not settings.public_url:
        raise CannotStart(
            f"{settings.host} can be reached from outside: say with --public-url or KEYWRIGHT_PUBLIC_URL which "
            "https:// address clients use"
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((settings.host, settings.port))
    except OSError as trouble:
        taken.close()
        raise _taken(settings, trouble) from None
    taken.set_inheritable(True)
    return taken


class _Bounded(HttpToolsProtocol):
    """HTTP whose heads end: uvicorn itself would collect an endless header line in memory."""

    _in_head = True
    _begun = True  # with these bytes, or before them; not somewhere inside them, behind another request
    _taken = 0

    def data_received(self, data: bytes) -> None:
        self._begun = True
        super().data_received(data)
        if self._in_head and self._begun:
            self._taken += len(data)
            if self._taken > LONGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._begun, self._taken = True, False, 0
        super().on_message_complete()


def hear(taken: socket.socket, settings: Settings) -> None:
    """Let requests come: from here on they wait, and are answered by ``run``. Raises ``CannotStart``."""
    try:
        taken.listen(2048)
    except OSError as trouble:  # a second server that took the port in the same moment
        taken.close()
        raise _taken(settings, trouble) from None


def _taken(settings: Settings, trouble: OSError) -> CannotStart:
    other = "; choose another with --port, or 0 for any" if trouble.errno == errno.EADDRINUSE else ""
    said = (trouble.strerror or str(trouble)).lower()
    return CannotStart(f"{settings.host} port {settings.port} cannot be listened on: {said}{other}")


class _Server(uvicorn.Server):
    """A server whose signals are the business of ``run``: uvicorn would end the process by the signal it was sent."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn would leave the application in the middle, and log that it was
            await self.lifespan.shutdown()


def server(app: App) -> uvicorn.Server:
    """A uvicorn with the settings that this product needs: no access log (it would hold whole targets), no WebSockets."""
    if logging.getLogger().level > logging.DEBUG:
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_trouble)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=_Bounded,
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_config=None,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )
    return _Server(config)


def _is_trouble(record: logging.LogRecord) -> bool:
    # A request that was cut off because the server was told twice to stop is nobody's fault.
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


def run(app: App, taken: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGINT or SIGTERM; what was begun by then is answered, and a second signal does not wait for it.

    ``ready`` is called when signals are heeded and the port has been heard from ``hear`` on.
    """
    import uvloop  # noqa: PLC0415  # of the server extra

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve([(server(app), taken)], ready))


async def serve(
    servers: Sequence[tuple[uvicorn.Server, socket.socket]], ready: Callable[[], None] = lambda: None
) -> None:
    """Serve on several ports until SIGINT or SIGTERM."""

    def stop() -> None:
        for one, _ in servers:
            one.force_exit = one.should_exit
            one.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    ready()
    await asyncio.gather(*(one.serve(sockets=[taken]) for one, taken in servers))
