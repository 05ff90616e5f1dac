"""HTTP as uvicorn speaks it, with two additions: heads end, and what memory suffices for is answered on the spot.

For each ASGI request uvicorn makes a cycle, an event, a task and a timer, and writes twice: together as much work as a
verification. A request that came whole in one read, with nothing else under way on its connection, is therefore offered
to the application's ``at_once`` first. What that answers is written in one piece; all else goes the ordinary way, as if it
had never been offered.
"""

from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from keywright.server.problems import AtOnce, lines_of
from keywright.server.strict import Strict

#: Of requests that came together, how many are answered before the other connections have their turn.
MOST_AT_ONCE: Final = 16


class Wire(Strict):
    """One connection."""

    #: what may answer the request whose head was read and whose body is not there yet, and that body
    _door: AtOnce | None = None
    _sent = b""
    _answered = 0  # with the bytes that came last
    _heard = 0.0  # when they came
    _bell: Any = None  # rings when the connection may have been idle for long enough

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._find: Callable[[bytes], AtOnce | None] | None = getattr(self.app, "at_once", None)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._answered, self._heard = 0, self.loop.time()
        super().data_received(data)
        if self._door is not None:
            self._hand_over()

    def on_headers_complete(self) -> None:
        """Keep back a request that may be answered at once: it is whole in a moment, or handed over."""
        self.weigh()
        path, _, query = self.url.partition(b"?")
        door = None if self._find is None else self._find(path)
        if door is None or not self._is_free():
            super().on_headers_complete()
            return
        scope: Any = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["raw_path"], scope["query_string"] = path, query
        self._door, self._sent = door, b""

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if self._door is None:
            super().on_body(body)
        else:
            self._sent += body

    def on_message_complete(self) -> None:
        """Answer a request that is whole."""
        self.rest()
        if self._door is not None:
            if self._answer(self._door):
                self._door = None
                return
            self._hand_over()
        super().on_message_complete()

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
            and not parser.should_upgrade()
            and parser.get_http_version() == "1.1"
        )

    def _answer(self, door: AtOnce) -> bool:
        """Answer at once; ``False`` where nothing was done, and the request is for the ordinary way."""
        scope: Any = self.scope
        try:
            reply = door(scope, self._sent)
        except Exception:  # it goes wrong there again, and is told and logged
            return False
        if reply is None:
            return False
        status, lines, body = reply
        ours = lines_of(self.server_state.default_headers)
        said = b"" if scope["method"] == "HEAD" else body
        self.transport.write(b"%b%b%b\r\n%b" % (STATUS_LINE[status], ours, lines, said))
        self.server_state.total_requests += 1
        self._answered += 1
        if self._bell is None:
            self._bell = self.loop.call_later(self.timeout_keep_alive, self._ring)
        return True

    def _hand_over(self) -> None:
        """Let a request go the ordinary way."""
        self._door = None
        if not self.transport.is_closing():
            super().on_headers_complete()
            super().on_body(self._sent)

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
