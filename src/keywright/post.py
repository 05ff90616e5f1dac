"""Sending a webhook, and asking an identity provider: one request to an address that somebody else wrote, and as little of the answer as is needed.

The name is resolved once, every number it has is checked, and the connection is made to a checked number with the name
kept for TLS and for the ``Host`` header. No redirect is followed, no proxy of the environment is used, the whole exchange
has one deadline, and of the answer so many bytes are read and no more.
"""

import io
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, cast

from keywright.addresses import Number, Target, may_be_reached
from keywright.model import Network

PATIENCE: Final = 20.0  # seconds, for all of it; Standard Webhooks advises 15 to 30
MOST_READ: Final = 64 * 1024  # bytes of an answer, its head included
MOST_NUMBERS: Final = 16
MOST_TRIED: Final = 3

Resolve = Callable[[str, int], Sequence[str]]
Dial = Callable[[str, int, float], socket.socket]


class Outcome(NamedTuple):
    """What came of it: a status, or a sentence that says why there is none."""

    status: int | None
    error: str = ""
    retry_after: int | None = None  # seconds
    body: bytes = b""

    @property
    def taken(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300


class Closed(Exception):
    """The address may not be reached; nothing was sent."""


def resolve(host: str, port: int) -> Sequence[str]:
    """Every number of a name. Raises ``OSError``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def dial(number: str, port: int, patience: float) -> socket.socket:
    """Connect to a number. Raises ``OSError``."""
    return socket.create_connection((number, port), patience)


class Post:
    """Sends requests. ``allowed`` are networks of one's own that may be reached all the same."""

    def __init__(
        self,
        allowed: Iterable[Network] = (),
        *,
        resolve: Resolve = resolve,
        dial: Dial = dial,
        context: ssl.SSLContext | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._allowed = tuple(allowed)
        self._resolve = resolve
        self._dial = dial
        self._context = context or ssl.create_default_context()
        self._patience = patience

    def numbers(self, target: Target) -> list[str]:
        """The numbers of a target, all of which may be reached. Raises ``Closed``, also where one of several may not."""
        if target.number is not None:
            found: Sequence[str] = [target.number]
        else:
            try:
                found = self._resolve(target.host, target.port)
            except (OSError, UnicodeError):
                raise Closed("the name of the host was not found") from None
        if not 0 < len(found) <= MOST_NUMBERS:
            raise Closed("the name of the host has no number, or too many")
        for text in found:
            closed = may_be_reached(target, _number(text), self._allowed)
            if closed is not None:
                raise Closed(f"the address leads inside: it is {closed}")
        return list(found)

    def send(
        self,
        target: Target,
        numbers: Sequence[str],
        headers: Mapping[str, str],
        body: bytes,
        *,
        method: str = "POST",
    ) -> Outcome:
        """Send one request to a target at its checked numbers, tried in turn. Never raises for what a receiver does."""
        deadline = time.monotonic() + self._patience
        try:
            with self._connected(target, numbers, deadline) as connection:
                connection.sendall(_request(method, target, headers) + body)
                return _answer(connection, deadline)
        except TimeoutError:
            return Outcome(None, f"no answer within {self._patience:g} seconds")
        except ssl.SSLCertVerificationError:
            return Outcome(None, "the host's certificate is not good for its name")
        except ssl.SSLError:
            return Outcome(None, "the host does not speak TLS as it should")
        except (HTTPException, ValueError):
            return Outcome(None, "the answer is not HTTP")
        except OSError:
            return Outcome(None, "no connection could be made, or it broke")

    def _connected(self, target: Target, numbers: Sequence[str], deadline: float) -> socket.socket:
        failed: OSError | None = None
        for number in numbers[:MOST_TRIED]:
            try:
                connection = self._dial(number, target.port, _left(deadline))
            except OSError as trouble:
                failed = trouble
                continue
            connection.settimeout(_left(deadline))
            if target.scheme == "http":
                return connection
            try:
                return self._context.wrap_socket(connection, server_hostname=target.host)
            except BaseException:
                connection.close()
                raise
        raise failed or OSError("no number")


class _Bounded(io.RawIOBase):
    """What a connection brings, up to a deadline and up to a number of bytes, behind which it seems to end."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._rest = MOST_READ

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._rest <= 0:
            return 0
        self._connection.settimeout(_left(self._deadline))
        room = memoryview(buffer)[: self._rest]
        got = self._connection.recv_into(room)
        self._rest -= got
        return got


class _Socket:
    """As much of a socket as ``HTTPResponse`` asks for."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._file)


def _answer(connection: socket.socket, deadline: float) -> Outcome:
    # The body is read for the sake of a challenge alone; one that breaks off is no reason to send again.
    with HTTPResponse(
        cast("socket.socket", _Socket(_Bounded(connection, deadline))), method="POST"
    ) as answer:
        answer.begin()
        try:
            body = answer.read(MOST_READ)
        except (OSError, HTTPException, ValueError):
            body = b""
        return Outcome(answer.status, "", _seconds(answer.getheader("Retry-After")), body)


def _request(method: str, target: Target, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("ascii")


def _seconds(retry_after: str | None) -> int | None:
    text = (retry_after or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _number(text: str) -> Number:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        raise Closed("the name of the host has no number") from None
