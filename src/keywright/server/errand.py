"""What a browser carries while its person is at the identity provider: sealed, for ten minutes, in a cookie of this host.

The server remembers nothing of who only begins to sign in. What comes back is held to what the same browser carries, so that
nobody can be led into somebody else's session; and it is believed once.
"""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NoBase64
from typing import Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keywright.desk import tokens
from keywright.desk.identities import Vouched
from keywright.keyring import Keyring
from keywright.times import SECOND

LIFE: Final = 10 * 60  # seconds
_NONCE: Final = 12  # bytes, as AES-GCM wants them

Carried = TypeVar("Carried", "Errand", "Invitation")


class Errand(msgspec.Struct, frozen=True):
    """On what somebody was sent to the provider, and where they go afterwards.

    ``session`` is the id of one whose password is wanted again; ``link`` an invitation that is taken by signing in. ``said``
    is there when they have come back, and a code of their second factor here is still wanted.
    """

    state: str
    nonce: str
    verifier: str
    back: str
    to: str
    began_at: int
    session: str = ""
    link: str = ""
    said: Vouched | None = None

    def __repr__(self) -> str:
        return f"Errand(began_at={self.began_at})"


class Invitation(msgspec.Struct, frozen=True):
    """The one-time link of an invitation, for an address of ours that a browser's history keeps."""

    link: str
    began_at: int

    def __repr__(self) -> str:
        return f"Invitation(began_at={self.began_at})"


def begin(back: str, to: str, now: int, *, session: str = "", link: str = "") -> Errand:
    """Draw what belongs to a new errand."""
    return Errand(tokens.draw(), tokens.draw(), tokens.draw(), back, to, now, session, link)


def seal(keyring: Keyring, carried: Errand | Invitation) -> str:
    """As a browser carries it: it can neither read nor change it."""
    nonce = secrets.token_bytes(_NONCE)
    text = AESGCM(keyring.errands).encrypt(nonce, msgspec.json.encode(carried), _about(type(carried)))
    return urlsafe_b64encode(nonce + text).decode()


def unseal(keyring: Keyring, text: str, kind: type[Carried], now: int) -> Carried | None:
    """What a browser carries, if it was sealed here and not too long ago."""
    try:
        sealed = urlsafe_b64decode(text.encode("ascii"))
        plain = AESGCM(keyring.errands).decrypt(sealed[:_NONCE], sealed[_NONCE:], _about(kind))
        found = msgspec.json.decode(plain, type=kind)
    except (InvalidTag, NoBase64, ValueError, msgspec.MsgspecError):
        return None
    return found if 0 <= now - found.began_at < LIFE * SECOND else None


def _about(kind: type) -> bytes:
    return kind.__name__.encode()


__all__ = ["LIFE", "Errand", "Invitation", "begin", "seal", "unseal"]
