"""A secret-scanning partner's reports: whose signature is right, what is reported, and what is told back.

The signature is proven over the bytes as they came, before anything of them is read: ECDSA over P-256 with SHA-256, by a
key of the set that the partner publishes, and by no other algorithm, whatever a key or a header says. The set is asked for
when it is needed, at most once a minute.
"""

import hashlib
import logging
import time
from base64 import b64decode
from binascii import Error as NoBase64
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keywright.connection import Connections
from keywright.errors import Forged, Invalid, KeywrightError, Unavailable

#: How often the key set is asked for at most, and how long it is believed, in seconds.
PAUSE: Final = 60.0
BELIEVED: Final = 30 * 60.0
_PATIENCE: Final = 5.0  # seconds; the partner waits for 30
_LONGEST_SIGNATURE: Final = 200  # characters

log = logging.getLogger("keywright")
Keys = Mapping[str, EllipticCurvePublicKey]


class Match(NamedTuple):
    """One credential that was found: as it stands there, what the partner calls its kind, and where."""

    token: str
    type: str
    url: str | None


class Partner:
    """Who signs the reports. ``url`` is where the key set is published. Safe to use from any thread."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is asked yet. Raises ``Invalid`` for an address that is not reached over https."""
        self._connections = Connections(url, None, _PATIENCE)
        self._clock = clock
        self._lock = Lock()
        self._keys: Keys = {}
        self._asked_at: float | None = None
        self._known_at: float | None = None

    def prove(self, body: bytes, identifier: str, signature: str) -> None:
        """Hold a signature to the bytes. Raises ``Forged``, or ``Unavailable`` where the keys cannot be had."""
        try:
            if len(signature) > _LONGEST_SIGNATURE:
                raise InvalidSignature
            self._key(identifier).verify(b64decode(signature, validate=True), body, ECDSA(SHA256()))
        except (InvalidSignature, NoBase64, ValueError):
            raise Forged from None

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()

    def _key(self, identifier: str) -> EllipticCurvePublicKey:
        with self._lock:
            now = self._clock()
            if identifier not in self._keys or not self._within(self._known_at, BELIEVED, now):
                self._ask(now)
            if not self._within(self._known_at, BELIEVED, now):
                raise Unavailable("the partner's keys cannot be had")
            if identifier not in self._keys and self._known_at != self._asked_at:
                raise Unavailable("the partner's keys cannot be had anew")
            if identifier not in self._keys:
                raise InvalidSignature
            return self._keys[identifier]

    def _ask(self, now: float) -> None:
        if self._within(self._asked_at, PAUSE, now):
            return
        self._asked_at = now
        try:
            self._keys = read_keys(self._connections.ask("GET", ""))
            self._known_at = now
        except KeywrightError as trouble:
            log.warning("the keys of a secret-scanning partner could not be had: %s", trouble)

    def _within(self, since: float | None, span: float, now: float) -> bool:
        return since is not None and now - since < span


def read_keys(document: Mapping[str, Any]) -> dict[str, EllipticCurvePublicKey]:
    """The current keys of a key set that are of P-256, by their identifiers. Raises ``Unavailable`` where it is none."""
    try:
        listed = [
            (str(one["key_identifier"]), str(one["key"]).encode())
            for one in document["public_keys"]
            if one["is_current"] is True
        ]
    except (KeyError, TypeError):
        raise Unavailable("what was answered is no key set") from None
    found = {identifier: _public(pem) for identifier, pem in listed}
    return {identifier: key for identifier, key in found.items() if key is not None}


def _public(pem: bytes) -> EllipticCurvePublicKey | None:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) else None


def read_matches(body: bytes, place: str = "url") -> list[Match]:
    """What is reported; ``place`` is the field that says where it was found.

    A record that makes no sense is passed over, not fatal. Raises ``Invalid`` where it is no list.
    """
    try:
        listed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        raise Invalid("is not a list of matches", path="body")
    return [match for one in listed if (match := _match(one, place)) is not None]


def _match(one: Any, place: str) -> Match | None:
    if not isinstance(one, dict) or not isinstance(one.get("token"), str) or not one["token"]:
        return None
    kind, url = one.get("type"), one.get(place)
    return Match(one["token"], kind if isinstance(kind, str) else "", url if isinstance(url, str) else None)


def feedback(matches: Sequence[Match], ours: Sequence[bool]) -> list[dict[str, str]]:
    """What the partner is told: of each kind of credential what it was, by a digest, never by itself."""
    labels = ("false_positive", "true_positive")
    return [
        {
            "token_hash": hashlib.sha256(match.token.encode("utf-8", "surrogatepass")).hexdigest(),
            "token_type": match.type,
            "label": labels[proven],
        }
        for match, proven in zip(matches, ours, strict=True)
    ]


__all__ = ["Match", "Partner", "feedback", "read_keys", "read_matches"]
