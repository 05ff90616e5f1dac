"""HTTP more strictly than uvicorn speaks it: what two servers could read differently is refused, and nobody is waited for."""

import re
from typing import Any, Final

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: How much of a request's head is taken before it must have ended, in bytes.
LONGEST_HEAD: Final = 128 * 1024
#: How often a client may be seen to owe the rest of a request. It is looked every 5 seconds (``server.app``): whoever has not
#: sent a request within 25 is not waited for.
MOST_LOOKS: Final = 4
#: ``#``, as a number: that is quicker to look for.
_FRAGMENT: Final = ord("#")
#: Headers that are weighed before anything else.
_TELLING: Final = frozenset((b"host", b"transfer-encoding", b"expect"))
#: What ends a line, and cannot stand in one that is written anew.
_FOLDED: Final = re.compile(rb"[\r\n]")
#: What a ``Host`` can be: a name or an address, and a port. Nothing is decided by it, so none is refused for its name.
_HOST: Final = re.compile(rb"\A(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?\Z")


class Strict(HttpToolsProtocol):
    """HTTP whose heads end, soon, name one host, and leave no doubt about where the body ends.

    uvicorn itself would collect an endless header line in memory, wait for ever for a client that sends a byte now and
    then, and hand on a request with two ``Host`` headers or with a coding that nobody here decodes. Of a request that wishes
    for another protocol, as Java's client does of each, it would leave the body out, and take it for the next request.
    """

    _wishful = b""  # a head that wishes for another protocol, without the wish
    _in_head = True
    _begun = True  # with these bytes, or before them; not somewhere inside them, behind another request
    _taken = 0
    _owing = True  # whether the client has yet to send what it has begun
    _looks = 0  # how often that was seen since
    _weighed: list[tuple[bytes, bytes]] | None = None  # what was found good already

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.parser = _Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it

    def data_received(self, data: bytes) -> None:
        """Take what came; a head that does not end is cut off."""
        self._begun = True
        super().data_received(data)
        if self._in_head and self._begun:
            self._owing = True
            self._taken += len(data)
            if self._taken > LONGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; ``Expect`` is looked at in ``weigh``, once for all of them."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Go on with a head, if there is no doubt about it."""
        if self.parser.should_upgrade():
            self.wish()
            return
        self.weigh()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for another head."""
        if self._wishful:
            return
        self.rest()
        super().on_message_complete()

    def wish(self) -> None:
        """Take a head that wishes for another protocol. None is spoken here: it is read again, as if it had not."""
        kept = [(name, value) for name, value in self.headers if name != b"upgrade"]
        closing = not self.parser.should_keep_alive()  # then the parser reads nothing behind it
        if closing or len(kept) == len(self.headers) or any(_FOLDED.search(value) for _, value in kept):
            raise Doubtful  # a CONNECT, for one
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        self._wishful = b"\r\n".join([*lines, *(b"%b: %b" % header for header in kept), b"", b""])

    def without_wish(self) -> bytes:
        """The head that ``wish`` took, to be read again."""
        head, self._wishful = self._wishful, b""
        return head

    def weigh(self) -> None:
        """Note that the head has ended, and refuse it where it is doubtful."""
        if _FRAGMENT in self.url:
            raise Doubtful  # no target has one (RFC 9112 3.2), and uvicorn would leave it out
        told = [header for header in self.headers if header[0] in _TELLING]
        if told != self._weighed:
            _weigh(told, self.parser.get_http_version())
            self._weighed = told or None
        if len(told) > 1:
            self.expect_100_continue = any(
                name == b"expect" and value.lower() == b"100-continue" for name, value in told
            )
        self._in_head, self._owing = False, True

    def rest(self) -> None:
        """Note that the request has ended, and nothing is owed."""
        self._in_head, self._begun, self._taken = True, False, 0
        self._owing, self._looks = False, 0

    def look(self) -> None:
        """Close the connection of a client that was seen to owe the same request too often."""
        self._looks = self._looks + 1 if self._owing else 0
        if self._looks > MOST_LOOKS:
            self.transport.close()


class _Parser(HttpRequestParser):
    """A parser that stays with HTTP: httptools takes what follows a head with ``Upgrade`` for another protocol, its body too."""

    def __init__(self, whose: Strict) -> None:
        super().__init__(whose)
        self._whose = whose

    def feed_data(self, data: Any) -> None:
        """Read what came."""
        while True:
            try:
                super().feed_data(data)
            except HttpParserUpgrade as other:
                data = self._whose.without_wish() + data[other.args[0] :]
            else:
                return


class Doubtful(Exception):
    """A head can be read in more than one way: the parser then answers 400 and closes."""


def _weigh(told: list[tuple[bytes, bytes]], version: str) -> None:
    """Refuse a head that does not name one host, or whose body is coded in any way but ``chunked``."""
    hosts = [value for name, value in told if name == b"host"]
    codings = [value.lower() for name, value in told if name == b"transfer-encoding"]
    named = len(hosts) == 1 and _HOST.match(hosts[0]) is not None
    if not (named or (version == "1.0" and not hosts)):
        raise Doubtful
    if codings and (codings != [b"chunked"] or version == "1.0"):
        raise Doubtful
