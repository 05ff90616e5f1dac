"""Connections to a Keywright server, on which a management key is never sent anywhere but where it was told.

``http.client`` of the standard library, not one more dependency: what is needed is a request, an answer and a time-out,
and importing it takes a tenth of what a larger client's import takes. No redirect is followed, no proxy of the environment
is used, nothing is asked twice unless it is a GET, and every trouble is one line.
"""

import http.client
import json
import os
import select
import ssl
import threading
import time
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from keywright.errors import (
    CODES,
    CallerError,
    Conflict,
    Denied,
    Exceeds,
    Invalid,
    KeywrightError,
    NotFound,
    Unavailable,
)
from keywright.settings import is_loopback

#: The largest answer that is read, in bytes.
LONGEST: Final = 64 * 1024 * 1024
_PART: Final = 64 * 1024
#: The server closes a connection that rests for longer than 75 s; before that it is closed here.
_REST: Final = 30.0  # seconds


class Connections:
    """Connections to one server, kept for the next request. Safe to use from any thread, and after a fork."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        """``None`` is for what is asked of nobody. Raises ``Invalid`` for an address that no key must be sent to, or no key."""
        parts = _checked(url)
        if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
            raise Invalid("is not a management key's token", path="key")
        self.url = url.rstrip("/")
        self._host = parts.netloc
        self._prefix = parts.path.rstrip("/")
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {"Accept": "application/json", "User-Agent": "keywright"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout = timeout
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"Connections({self.url!r})"

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Send a request and read its JSON answer. ``None`` in a query is left out, a list is said once for each.

        Raises what the server says, as the error that the same call on a database raises; ``Denied`` where it refuses the
        management key; ``Unavailable`` where it does not answer.
        """
        said = {name: value for name, value in query.items() if value is not None}
        target = self._prefix + path + (f"?{urlencode(said, doseq=True)}" if said else "")
        sent = None if body is None else json.dumps(body).encode()
        status, kind, content = self._exchange(method, target, sent)
        if 300 <= status < 400:
            raise Unavailable(
                f"{self.url} answers with a redirect, which a key does not follow: name the address it leads to"
            )
        try:
            document = json.loads(content) if "json" in kind else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise Unavailable(
                f"{self.url} does not answer as Keywright does (status {status}): is it the address?"
            )
        if status >= 400:
            raise error(document, status)
        return document

    def close(self) -> None:
        """Close what rests."""
        with self._lock:
            resting, self._idle = self._idle, []
        if self._pid == os.getpid():
            for connection, _ in resting:
                connection.close()

    def _exchange(self, method: str, target: str, body: bytes | None) -> tuple[int, str, bytes]:
        connection, used = self._take()
        try:
            return self._on(connection, method, target, body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as gone:
            connection.close()
            if not used or method != "GET":
                raise Unavailable(self._trouble(gone, method)) from None
        except (OSError, http.client.HTTPException) as trouble:
            connection.close()
            raise Unavailable(self._trouble(trouble, method)) from None
        return self._exchange(method, target, body)  # the server had closed what rested here

    def _on(
        self, connection: http.client.HTTPConnection, method: str, target: str, body: bytes | None
    ) -> tuple[int, str, bytes]:
        deadline = time.monotonic() + self._timeout
        typed = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, target, body, self._headers | typed)
        answer = connection.getresponse()
        content = bytearray()
        while part := answer.read(_PART):
            content += part
            if len(content) > LONGEST:
                raise http.client.HTTPException(f"more than {LONGEST} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError
        if answer.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle.append((connection, time.monotonic()))
        return answer.status, answer.headers.get("Content-Type", ""), bytes(content)

    def _take(self) -> tuple[http.client.HTTPConnection, bool]:
        """A connection that rests and is still open, or a new one; and whether it was used before."""
        with self._lock:
            if self._pid != os.getpid():  # what a fork brought along is its parent's
                self._idle, self._pid = [], os.getpid()
            while self._idle:
                connection, since = self._idle.pop()
                if time.monotonic() - since < _REST and _is_open(connection):
                    return connection, True
                connection.close()
        if self._context is None:
            return http.client.HTTPConnection(self._host, timeout=self._timeout), False
        return http.client.HTTPSConnection(self._host, timeout=self._timeout, context=self._context), False

    def _trouble(self, trouble: Exception, method: str) -> str:
        unsure = "" if method == "GET" else "; whether it was carried out is not known"
        match trouble:
            case ssl.SSLCertVerificationError():
                return f"the certificate of {self.url} is not trusted here: {trouble.verify_message}"
            case ssl.SSLError():
                return f"{self.url} cannot be reached over HTTPS: {trouble.reason or 'TLS failed'}"
            case ConnectionRefusedError():
                return f"nothing answers at {self.url}: connection refused"
            case TimeoutError():
                return f"{self.url} did not answer within {self._timeout:g} s{unsure}"
            case ConnectionError() | http.client.RemoteDisconnected():
                return f"{self.url} closed the connection without an answer{unsure}"
            case OSError():
                return f"{self.url} cannot be reached: {trouble.strerror or trouble}"
        return f"{self.url} does not answer as HTTP does: is it the address?"


def place(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="") or "%20"  # never the list's own address


def error(document: dict[str, Any], status: int) -> KeywrightError:
    """The error that a problem+json body tells of."""
    code, detail = str(document.get("code", "")), str(document.get("detail", ""))
    kinds: dict[str, type[KeywrightError]] = {
        "not_found": NotFound,
        "conflict": Conflict,
        "exceeds_grantor": Exceeds,
    }
    if code in kinds:
        return kinds[code](detail)
    if code == "invalid_request":
        first: dict[str, Any] = next(iter(document.get("errors") or ()), {})
        return Invalid(str(first.get("reason", detail)), path=str(first.get("path", "")))
    if code in CODES and status < 500:
        return Denied(detail, code=code) if status in (401, 403, 429) else CallerError(detail)
    asked = f" (request {document['request_id']})" if document.get("request_id") else ""
    return Unavailable(f"{detail or f'the server failed with status {status}'}{asked}")


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username:
        raise Invalid("is not an address such as https://keys.example.com", path="url")
    if parts.scheme == "http" and not is_loopback(host):
        raise Invalid("is reached over https:// only; http:// is for this machine itself", path="url")
    return parts


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """Whether nothing has come meanwhile, not even the end."""
    if connection.sock is None:
        return False
    looking = select.poll()
    looking.register(connection.sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return not looking.poll(0)


__all__ = ["Connections", "error", "place"]
