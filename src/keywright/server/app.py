"""The whole server: the hot doors in front, the management API behind, on one port."""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from keywright.errors import CannotStart
from keywright.installation import Installation
from keywright.server.hot import App, Hot
from keywright.server.problems import Receive, Scope, Send
from keywright.server.wire import Wire
from keywright.settings import Settings, is_loopback


def build(installation: Installation, settings: Settings) -> Hot:
    """The ASGI application over an open installation, which it closes when it is shut down.

    The management API is made when it is first asked for: FastAPI's import must not delay the first verification.
    """
    return Hot(installation, settings, _Later(installation, settings))


class _Later:
    """The management API, made at its first request."""

    def __init__(self, installation: Installation, settings: Settings) -> None:
        self._made: App | None = None
        self._make: Callable[[], App] = lambda: _api(installation, settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._made is None:
            self._made = self._make()
        await self._made(scope, receive, send)


def _api(installation: Installation, settings: Settings) -> App:
    from keywright.server.api import build as build_api  # noqa: PLC0415  # 300 ms that a verifier never needs

    return build_api(installation, settings)


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
        http=Wire,
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
