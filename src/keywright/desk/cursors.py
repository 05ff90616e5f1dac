"""Cursors: where a list goes on. Signed, and good only for the caller and the filter that they came with. Pure."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final

import msgspec

from keywright.errors import Invalid

_TAG: Final = 16  # bytes


def write(place: list[Any], bound_to: Any, key: bytes) -> str:
    """Write a place in a list as an opaque text."""
    body = msgspec.json.encode(place)
    return urlsafe_b64encode(_tag(body, bound_to, key) + body).decode().rstrip("=")


def read(text: str, bound_to: Any, key: bytes) -> list[Any]:
    """Read a cursor. Raises ``Invalid`` for one of another list, or none of ours."""
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        tag, body = raw[:_TAG], raw[_TAG:]
        if len(text) <= 2048 and hmac.compare_digest(tag, _tag(body, bound_to, key)):
            return msgspec.json.decode(body, type=list[Any])
    except (ValueError, UnicodeEncodeError):
        pass
    raise Invalid("is not a cursor of this list", path="cursor")


def _tag(body: bytes, bound_to: Any, key: bytes) -> bytes:
    return hmac.digest(key, msgspec.json.encode(bound_to, order="sorted") + b"\0" + body, "sha256")[:_TAG]
