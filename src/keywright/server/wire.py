"""HTTP as uvicorn speaks it, with two additions: heads end, and what memory suffices for is answered on the spot.

For each ASGI request uvicorn makes a cycle, an event, a task and a timer, and writes twice: together as much work as a
verification. A request that came whole in one read, with nothing else under way on its connection, is therefore offered
to the application's ``at_once`` first. What that answers is written in one piece; all else goes the ordinary way, as if it
had never been offered.

What one turn of the loop brings is read first, then answered, then written (``Turn``).
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from keywright.server.problems import AtOnce, Reply, Steps, lines_of
from keywright.server.strict import Strict

#: Of requests that came together, how many are answered before the other connections have their turn.
MOST_AT_ONCE: Final = 16


class Turn:
    """The requests of one turn of the loop that may be answered on the spot, each on a connection of its own.

    One step is taken for all of them before the next: its code and data stay in the processor's caches, and a client on
    another core is woken once, not once for each answer. That is cohort scheduling (Larus and Parkes, USENIX 2002);
    ``docs/speed.md`` has what it brings here.
    """

    def __init__(self) -> None:
        self._waiting: list[Wire] = []
        self._stamp: list[tuple[bytes, bytes]] | None = None
        self._lines = b""

    def join(self, wire: "Wire") -> None:
        """Have a request answered before anything that is begun after this turn."""
        if not self._waiting:
            wire.loop.call_soon(self._end)
        self._waiting.append(wire)

    def lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The server's own headers, a new list each second, as they stand on the wire."""
        if headers is not self._stamp:
            self._stamp, self._lines = headers, lines_of(headers)
        return self._lines

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, []
        stepping = waiting
        while stepping:
            stepping = [wire for wire in stepping if wire.step()]
        for wire in waiting:
            wire.settle()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = WeakKeyDictionary()


class _Read:
    """What the parser said of a request that is offered, once the parser has gone on."""

    def __init__(self, method: str) -> None:
        self._method = method

    def get_method(self) -> bytes:
        return self._method.encode()

    def get_http_version(self) -> str:
        return "1.1"

    def should_keep_alive(self) -> bool:
        return True

    def should_upgrade(self) -> bool:
        return False


class Wire(Strict):
    """One connection."""

    #: what may answer the request whose head was read, and the body of that request as far as it came
    _door: AtOnce | None = None
    _sent = b""
    _whole = False  # it came to its end, and waits for the end of the turn
    _steps: Steps  # towards its answer
    _reply: bytes | None = None  # its answer, once that is known; nothing where there is none on the spot
    _answered = 0  # with the bytes that came last
    _heard = 0.0  # when they came
    _bell: Any = None  # rings when the connection may have been idle for long enough

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._find: Callable[[bytes], AtOnce | None] | None = getattr(self.app, "at_once", None)
        self._turn = _turns.get(self.loop) or _turns.setdefault(self.loop, Turn())
        #: what a door is told of the request: less than an ASGI scope, and the same dictionary each time
        self._asked: dict[str, Any] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Learn who is there."""
        super().connection_made(transport)
        self._asked = {"type": "http", "client": self.client, "scheme": self.scheme}

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._answered, self._heard = 0, self.loop.time()
        super().data_received(data)
        if self._door is not None and not self._whole:
            self._hand_over()

    def on_message_begin(self) -> None:
        """Begin a request, once the one before it has its answer or is on the ordinary way."""
        if self._whole:
            self.settle()
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        """Keep back a request that may be answered at once: it is whole in a moment, or handed over."""
        if self.parser.should_upgrade():
            self.wish()
            return
        self.weigh()
        path, _, query = self.url.partition(b"?")
        door = None if self._find is None else self._find(path)
        if door is None or not self._is_free():
            self._go_on()
            return
        asked = self._asked
        asked["method"] = self.parser.get_method().decode("ascii")
        asked["headers"], asked["raw_path"], asked["query_string"] = self.headers, path, query
        self._door, self._sent = door, b""

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if self._door is None:
            super().on_body(body)
        else:
            self._sent += body

    def on_message_complete(self) -> None:
        """Have a request that is whole answered when all that came with it has been read."""
        if self._wishful:
            return
        self.rest()
        if self._door is None:
            super().on_message_complete()
        else:
            self._whole = True
            self._steps = self._door(self._asked, self._sent)
            self._turn.join(self)

    def step(self) -> bool:
        """Take the next step towards the answer of the request that waits, if one does; whether there is another."""
        if not self._whole or self._reply is not None:
            return False
        try:
            next(self._steps)
        except StopIteration as end:
            self._reply = self._spell(end.value)
            return False
        except Exception:  # it goes wrong on the ordinary way again, and is told and logged there
            self._reply = self._spell(None)
            return False
        return True

    def settle(self) -> None:
        """Answer the request that waits, if one does, or let it go the ordinary way."""
        if not self._whole:
            return
        while self.step():
            pass
        reply, self._reply = self._reply, None
        if not reply:
            self._hand_over()
            return
        self._door, self._whole = None, False
        self.server_state.total_requests += 1
        self._answered += 1
        if not self.transport.is_closing():
            self.transport.write(reply)
            if self._bell is None:
                self._bell = self.loop.call_later(self.timeout_keep_alive, self._ring)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, behind the answers to what was."""
        self.settle()
        super().send_400_response(msg)

    def shutdown(self) -> None:
        """Close the connection, behind what is under way."""
        self.settle()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave nothing behind that holds the connection."""
        if self._bell is not None:
            self._bell.cancel()
        super().connection_lost(exc)

    def _is_free(self) -> bool:
        """Whether nothing else is under way here, and the request asks for nothing out of the ordinary."""
        cycle, parser = self.cycle, self.parser
        return (
            (cycle is None or cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
            and not self.expect_100_continue
            and not self.config.encoded_headers  # the server is leaving: uvicorn closes behind its answers
            and self._answered < MOST_AT_ONCE
            and parser.should_keep_alive()
            and parser.get_http_version() == "1.1"
        )

    def _spell(self, reply: Reply | None) -> bytes:
        """A response as it stands on the wire; nothing where there is none, and the request is for the ordinary way."""
        if reply is None:
            return b""
        status, lines, body = reply
        ours = self._turn.lines(self.server_state.default_headers)
        said = b"" if self._asked["method"] == "HEAD" else body
        return b"%b%b%b\r\n%b" % (STATUS_LINE[status], ours, lines, said)

    def _hand_over(self) -> None:
        """Let a request that was offered go the ordinary way, as far as it came."""
        whole, self._door, self._whole = self._whole, None, False
        if self.transport.is_closing():
            return
        parser, read = self.parser, _Read(self._asked["method"])
        self.parser = cast("HttpRequestParser", read)
        try:
            self._go_on()
            HttpToolsProtocol.on_body(self, self._sent)
            if whole:
                HttpToolsProtocol.on_message_complete(self)
        finally:
            self.parser = parser

    def _go_on(self) -> None:
        """Go the ordinary way with a head that was read and weighed: from here on it is uvicorn's."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        HttpToolsProtocol.on_headers_complete(self)

    def _ring(self) -> None:
        """Close a connection that has been idle for too long: one timer for many requests, instead of one for each."""
        self._bell = None
        if self.timeout_keep_alive_task is not None or not (
            self.cycle is None or self.cycle.response_complete
        ):
            return  # uvicorn sees to it, now or when that is answered
        left = self._heard + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._bell = self.loop.call_later(left, self._ring)
        else:
            self.timeout_keep_alive_handler()
