"""What arrived: a server that answers every request with what came of it, credentials masked. It stands in for an application.

It is for trying a proxy, on this machine alone. A wish for a WebSocket is granted, told what arrived, and ended.
"""

import base64
import hashlib
import http.server
import json
import re
from collections.abc import Callable
from typing import Any, Final

from keywright.credential import INSIDE
from keywright.schemes import CARRIERS

#: What an answer of it begins with, so that nothing else is taken for one.
MARK: Final = "keywright gateway echo"
_MASKED: Final = frozenset(name.decode() for name in CARRIERS) | {"cookie", "proxy-authorization"}
_LONGEST: Final = 1 << 20
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")


class Echo(http.server.ThreadingHTTPServer):
    """The server. ``told`` is called with each request that arrived."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, told: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.told = told
        super().__init__((host, port), _Arrived)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""


class _Arrived(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Echo

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, format: str, *given: Any) -> None:  # noqa: A002  # as it is called there
        """Say nothing."""

    def _answer(self) -> None:
        arrived = self._arrived()
        if self.server.told is not None:
            self.server.told(arrived)
        said = json.dumps(arrived).encode()
        if (self.headers.get("Upgrade") or "").lower() == "websocket":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", _accepting(self.headers.get("Sec-WebSocket-Key") or ""))
            self.end_headers()
            self.wfile.write(said)
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "max-age=60")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    def _arrived(self) -> dict[str, Any]:
        body = self._body()
        return {
            "echo": MARK,
            "method": self.command,
            "target": self.requestline.split(" ")[1],  # ``path`` has been tidied
            "headers": [[name, _masked(name, value)] for name, value in self.headers.items()],
            "body": {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()},
        }

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or "").lower():
            length = self.headers.get("Content-Length") or "0"
            return self.rfile.read(min(int(length), _LONGEST)) if length.isdecimal() else b""
        body = b""
        while (begun := _CHUNK.fullmatch(self.rfile.readline(200))) and len(body) < _LONGEST:
            size = int(begun[1], 16)
            body += self.rfile.read(min(size, _LONGEST))
            self.rfile.readline(200)
            if not size:
                break
        return body


def _accepting(key: str) -> str:
    """What RFC 6455 has a server answer to a client's key; HAProxy looks."""
    digest = hashlib.sha1(
        f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False
    ).digest()
    return base64.b64encode(digest).decode()


def _masked(name: str, value: str) -> str:
    """A value that may be shown."""
    if name.lower() in _MASKED:
        return f"({len(value)} characters, masked)"
    return INSIDE.sub(b"(a credential, masked)", value.encode("latin-1", "replace")).decode("latin-1")
