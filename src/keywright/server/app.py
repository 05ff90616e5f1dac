"""The whole server: the hot doors in front, the management API behind, on one port."""

import asyncio
import errno
import logging
import re
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keywright.errors import CannotStart
from keywright.installation import Installation
from keywright.server.board import Place
from keywright.server.hot import Hot
from keywright.server.problems import App, Receive, Scope, Send
from keywright.server.watch import Measured, Watch, counted
from keywright.settings import Settings, is_loopback

#: How much of a request's head is taken before it must have ended, in bytes.
LONGEST_HEAD: Final = 128 * 1024
#: How often clients are looked at that owe the rest of a request, in tenths of a second, and how often one may be seen so:
#: whoever has not sent a request within 25 seconds is not waited for.
LOOK_EVERY: Final = 50
MOST_LOOKS: Final = 4


def build(installation: Installation, settings: Settings, place: Place | None = None) -> Hot:
    """The ASGI application over an open installation, which it closes when it is shut down.

    ``place`` is where this process tells its figures to the others, where there are several.
    The management API is made when it is first asked for: FastAPI's import must not delay the first verification.
    """
    watch = Watch(installation, place)
    return Hot(installation, settings, _Later(installation, settings, watch), watch)


class _Later:
    """The management API, made at its first request."""

    def __init__(self, installation: Installation, settings: Settings, watch: Watch) -> None:
        self._watch = watch
        self._made: App | None = None
        self._make: Callable[[], App] = lambda: _api(installation, settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._made is None:
            self._made = self._make()
        await self._made(scope, receive, counted(self._watch, send))


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


class _Strict(HttpToolsProtocol):
    """HTTP whose heads end, soon, name one host, and leave no doubt about where the body ends.

    uvicorn itself would collect an endless header line in memory, wait for ever for a client that sends a byte now and
    then, and hand on a request with two ``Host`` headers or with a coding that nobody here decodes.
    """

    _in_head = True
    _begun = True  # with these bytes, or before them; not somewhere inside them, behind another request
    _taken = 0
    _owing = True  # whether the client has yet to send what it has begun
    _looks = 0  # how often that was seen since
    _weighed: list[tuple[bytes, bytes]] | None = None  # what was found good already

    def data_received(self, data: bytes) -> None:
        self._begun = True
        super().data_received(data)
        if self._in_head and self._begun:
            self._owing = True
            self._taken += len(data)
            if self._taken > LONGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        told = [header for header in self.headers if header[0] in _TELLING]
        if told != self._weighed:
            _weigh(told, self.parser.get_http_version())
            self._weighed = told
        self._in_head, self._owing = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._begun, self._taken = True, False, 0
        self._owing, self._looks = False, 0
        super().on_message_complete()

    def look(self) -> None:
        """Close the connection of a client that was seen to owe the same request too often."""
        self._looks = self._looks + 1 if self._owing else 0
        if self._looks > MOST_LOOKS:
            self.transport.close()


#: Headers that are weighed before anything else.
_TELLING: Final = frozenset((b"host", b"transfer-encoding"))
#: What a ``Host`` can be: a name or an address, and a port. Nothing is decided by it, so none is refused for its name.
_HOST: Final = re.compile(rb"\A(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?\Z")


class _Doubtful(Exception):
    """A head can be read in more than one way: the parser then answers 400 and closes."""


def _weigh(told: list[tuple[bytes, bytes]], version: str) -> None:
    """Refuse a head that does not name one host, or whose body is coded in any way but ``chunked``."""
    hosts = [value for name, value in told if name == b"host"]
    codings = [value.lower() for name, value in told if name != b"host"]
    named = len(hosts) == 1 and _HOST.match(hosts[0]) is not None
    if not (named or (version == "1.0" and not hosts)):
        raise _Doubtful
    if codings and (codings != [b"chunked"] or version == "1.0"):
        raise _Doubtful


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
                if isinstance(connection, _Strict):
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
        http=_Strict,
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

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            serve([(server(app), taken)], ready, leave=leave, notice=notice, looked_after=looked_after)
        )


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
