"""Request bodies: read within a limit, and only of the kind that is understood."""

import json
from typing import Any, Final

import msgspec

from keywright.server.problems import Pairs, Receive

#: What a call may send, in bytes.
BODY_LIMIT: Final = 64 * 1024
_JSON: Final = b"application/json"
_BACKSLASH: Final = ord("\\")


class TooLarge(Exception):  # said in the past tense, like the others
    """A body is larger than its door allows."""


class CutOff(Exception):  # likewise
    """The client went away before the end of its body: nobody knows what it wanted."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read a whole body of at most ``limit`` bytes. Raises ``TooLarge`` as soon as it is more, or ``CutOff``."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise CutOff
    body: bytes = message.get("body", b"")
    if len(body) > limit:
        raise TooLarge
    if not message.get("more_body", False):
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CutOff
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge
        parts.append(part)
    return b"".join(parts)


def accept_json(headers: Pairs) -> bool:
    """Whether the body is said, once, to be JSON."""
    said = [value for name, value in headers if name == b"content-type"]
    if len(said) != 1:
        return False
    return said[0] == _JSON or said[0].partition(b";")[0].strip().lower() == _JSON


def refuse_twins(body: bytes) -> None:
    """Refuse a JSON text, decoded already, in which an object has a name twice: readers differ on which one counts.

    Raises ``msgspec.ValidationError``. Where no two strings of the text are the same, no two names are, and it need not
    be parsed again: without a backslash every second piece between quotes is a string.
    """
    strings = body.split(b'"')[1::2]
    if len(strings) != len(set(strings)) or _BACKSLASH in body:
        json.loads(body, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise msgspec.ValidationError("A name stands twice in an object")
    return found
