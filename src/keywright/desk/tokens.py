"""What opens a session or follows a link: 256 random bits, told once, of which the SHA-256 is kept."""

import base64
import hashlib
import secrets
from typing import Final

import msgspec

from keywright.model import Session

#: What is said of a link that leads nowhere, whatever is the matter with it.
GONE: Final = "the link was used, has ended, or never was"


class Begun(msgspec.Struct, frozen=True):
    """A session that was just begun, and what opens it, which is told this once."""

    token: str
    session: Session

    def __repr__(self) -> str:
        return f"Begun(session={self.session.id!r})"


def draw() -> str:
    """Draw one."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()


def digest(token: str) -> bytes:
    """What is kept of one."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
