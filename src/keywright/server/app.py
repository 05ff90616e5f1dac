"""The whole server: the hot doors in front, the management API behind, on one port."""

import asyncio
import errno
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import uvicorn

from keywright.errors import CannotStart, KeywrightError
from keywright.installation import Installation
from keywright.server.board import Place
from keywright.server.deep_links import leads
from keywright.server.hot import Hot
from keywright.server.problems import App, Receive, Scope, Send
from keywright.server.strict import Strict
from keywright.server.watch import Measured, Watch, counted
from keywright.server.wire import Wire
from keywright.settings import Settings, is_loopback

#: How often clients are looked at that owe the rest of a request, in tenths of a second.
LOOK_EVERY: Final = 50
#: How long a connection may be idle, in seconds: longer than proxies keep theirs, so that they are who closes them.
IDLE_FOR: Final = 75
#: How long a thread that flushes or looks out may go on before the loop has the interpreter, in seconds. A look-up lets go
#: of it each time, and with Python's 5 ms a hundred requests would stand in line behind one flush.
SWITCH_AFTER: Final = 0.0005
#: Where the console and the portal begin; the rest of them lies beneath.
_PAGES: Final = frozenset({"/", "/console", "/portal"})
#: Where no keyspace's deep link leads.
_APIS: Final = ("/v1/", "/k/", "/docs", "/openapi.json", "/llms", "/.well-known/")


def build(installation: Installation, settings: Settings, place: Place | None = None) -> Hot:
    """The ASGI application over an open installation, which it closes when it is shut down.

    ``place`` is where this process tells its figures to the others, where there are several.
    The management API is made when it is first asked for: FastAPI's import must not delay the first verification.
    """
    watch = Watch(installation, place)
    return Hot(installation, settings, _Behind(installation, settings, watch), watch)


class _Behind:
    """What is behind the hot doors: the management API, and the console."""

    def __init__(self, installation: Installation, settings: Settings, watch: Watch) -> None:
        self._api = _Later(lambda: _api(installation, settings), watch)
        self._console = _Later(lambda: _console(installation, settings, watch), watch)
        self._installation = installation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        ours = path in _PAGES or path.startswith(("/console/", "/portal/")) or await self._is_linked(scope)
        await (self._console if ours else self._api)(scope, receive, send)

    async def _is_linked(self, scope: Scope) -> bool:
        """Whether somebody follows a keyspace's deep link; the API's own paths are none."""
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        if scope["method"] != "GET" or path.startswith(_APIS):
            return False
        try:
            spaces = await asyncio.to_thread(self._installation.keyspaces.list)
        except KeywrightError:
            return False
        return any(leads(one.keyspace, path, query) for one in spaces)


class _Later:
    """An application, made at its first request; in a thread, since verifications do not wait for an import of seconds."""

    def __init__(self, make: Callable[[], App], watch: Watch) -> None:
        self._watch = watch
        self._made: App | None = None
        self._make = make
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        made = self._made or await self._prepared()
        await made(scope, receive, counted(self._watch, send))

    async def _prepared(self) -> App:
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
                if gc.get_freeze_count():  # a server, that has settled in
                    settle_in()
            return self._made


def _api(installation: Installation, settings: Settings) -> App:
    from keywright.server.api import build as build_api  # noqa: PLC0415  # 300 ms that a verifier never needs

    return build_api(installation, settings)


def _console(installation: Installation, settings: Settings, watch: Watch) -> App:
    from keywright.server.console import build as build_console  # noqa: PLC0415  # Jinja2, which a verifier never needs

    return build_console(installation, settings, watch.add)


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

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_EVERY == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Strict):
                    connection.look()
        return await super().on_tick(counter)

    def leave(self) -> None:
        """Close every connection behind its next answer, so that clients go elsewhere for what they ask then."""
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn would leave the application in the middle, and log that it was
            await self.lifespan.shutdown()


def server(app: App) -> _Server:
    """A uvicorn with the settings that this product needs: no access log (it would hold whole targets), no WebSockets."""
    if logging.getLogger().level > logging.DEBUG:
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_trouble)
    config = uvicorn.Config(
        Measured(app, app.watch) if isinstance(app, Hot) else app,
        interface="asgi3",
        loop="uvloop",
        http=Wire,
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_config=None,
        timeout_keep_alive=IDLE_FOR,
        timeout_graceful_shutdown=10,
    )
    return _Server(config)


def _is_trouble(record: logging.LogRecord) -> bool:
    # A request that was cut off because the server was told twice to stop is nobody's fault.
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


def run(
    app: Hot,
    taken: socket.socket,
    ready: Callable[[], None] = lambda: None,
    *,
    notice: float = 0,
    looked_after: bool = False,
) -> None:
    """Serve until a signal says to stop; what was begun by then is answered.

    ``ready`` is called when signals are heeded and the port has been heard from ``hear`` on. After SIGTERM ``/readyz`` says
    no for ``notice`` seconds before the port is closed. A second signal does not wait; where the process is
    ``looked_after``, which makes every signal come twice or more, only SIGQUIT is a second one.
    """
    import uvloop  # noqa: PLC0415  # of the server extra

    def leave() -> None:
        app.leaving = True

    sys.setswitchinterval(SWITCH_AFTER)
    settle_in()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            serve([(server(app), taken)], ready, leave=leave, notice=notice, looked_after=looked_after)
        )


def settle_in() -> None:
    """Have the garbage collector leave alone what is there: it will stay, and to look through it stops the loop for 60 ms."""
    gc.collect()
    gc.freeze()


async def serve(
    servers: Sequence[tuple[_Server, socket.socket]],
    ready: Callable[[], None] = lambda: None,
    *,
    leave: Callable[[], None] = lambda: None,
    notice: float = 0,
    looked_after: bool = False,
) -> None:
    """``run``, for several ports and in an event loop that runs already."""
    ending = _Ending([one for one, _ in servers], leave, again=not looked_after)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, ending.asked, 0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ending.asked, notice)
    if looked_after:
        loop.add_signal_handler(signal.SIGQUIT, ending.now)
    ready()
    await asyncio.gather(*(one.serve(sockets=[taken]) for one, taken in servers))


class _Ending:
    """How servers stop: they say that they will, close their ports, and answer what was begun."""

    def __init__(self, servers: Sequence[_Server], leave: Callable[[], None], *, again: bool) -> None:
        self._servers = servers
        self._leave = leave
        self._again = again
        self._begun = False

    def asked(self, notice: float) -> None:
        """Begin to stop; asked once more, where that can be meant, do not wait."""
        if self._begun:
            if self._again:
                self.now()
            return
        self._begun = True
        self._leave()
        for one in self._servers:
            one.leave()
        if notice:
            asyncio.get_running_loop().call_later(notice, self._close)
        else:
            self._close()

    def now(self) -> None:
        """Stop without waiting for anything."""
        self._begun = True
        self._close(force=True)

    def _close(self, *, force: bool = False) -> None:
        for one in self._servers:
            one.force_exit = one.force_exit or force
            one.should_exit = True
