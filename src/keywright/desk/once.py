"""Creating once: the same call under the same ``Idempotency-Key`` makes one thing, however often it is sent.

What is kept, for a day and in the transaction of the creation itself, is who asked, by which route, a digest of the key,
a digest of what was asked, and the id of what was made. Never a secret: whoever lost the answer lost the secret with it.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from keywright.errors import Conflict, Invalid
from keywright.times import DAY

#: How long a creation is remembered, in seconds.
RETENTION: Final = DAY
PATH: Final = "Idempotency-Key"
_BARE: Final = re.compile(r"\A[A-Za-z0-9_-]{1,255}\Z")
#: A string of RFC 9651 3.3.3: quoted, with quotes and backslashes escaped.
_QUOTED: Final = re.compile(r'\A"((?:[\x20\x21\x23-\x5B\x5D-\x7E]|\\["\\]){1,255})"\Z')


class Replay(Exception):  # it is no error, and every surface answers it in its own way
    """The same call was carried out before; ``made`` is the id of what it made."""

    def __init__(self, made: str) -> None:
        super().__init__(made)
        self.made = made


class Once(msgspec.Struct, frozen=True):
    """A creation that must happen at most once: who asks, by which route, and digests of the key and of the body."""

    caller: str
    route: str
    digest: bytes
    fingerprint: bytes


def read(values: list[str], caller: str, route: str, asked: Any) -> Once | None:
    """Read the values of the header; ``asked`` is the body, canonical but for the order of names. Raises ``Invalid``."""
    if not values:
        return None
    if len(values) > 1:
        raise Invalid("stands more than once", path=PATH)
    text = values[0].strip(" \t")
    quoted = _QUOTED.match(text)
    if quoted is not None:
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    elif not _BARE.match(text):
        raise Invalid("is 1 to 255 of A-Z, a-z, 0-9, - and _, or a quoted string", path=PATH)
    body = msgspec.json.encode(asked, order="sorted")
    return Once(caller, route, hashlib.sha256(text.encode()).digest(), hashlib.sha256(body).digest())


class Running:
    """The creations that this process is at, so that a second one need not wait to learn that it is the second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[tuple[str, str, bytes]] = set()

    @contextmanager
    def holding(self, once: Once | None) -> Iterator[None]:
        """Be the only one at it while the block lasts. Raises ``Conflict``."""
        if once is None:
            yield
            return
        call = (once.caller, once.route, once.digest)
        with self._lock:
            if call in self._calls:
                raise Conflict("the same call is still being carried out; ask again for its outcome")
            self._calls.add(call)
        try:
            yield
        finally:
            with self._lock:
                self._calls.discard(call)
