"""The installation's secret, and the keys that are derived from it. Pure, but for the drawing of a new one.

The secret is 32 random bytes, written as 64 hex digits; while it is being rotated, several entries ``<n>:<64 hex>``, of
which the highest ``n`` is current. For each entry a pepper, an audit key and a cursor key derive from it by
HKDF-SHA-256 (RFC 5869), each under its own label, so that none tells anything of another. So do the secrets that webhooks
are signed with: each from an entry and a salt of its own, so that neither the database nor the secret alone tells it;
the key that second factors are sealed under, and the one of what browsers carry to an identity provider and back.
"""

import hashlib
import hmac
import re
import secrets
from typing import Final

from keywright.errors import SecretTrouble

_ENTRY: Final = re.compile(r"\A(?:([0-9]{1,6}):)?([0-9a-f]{64})\Z")
#: Secrets that stand in documentation, or that nobody drew.
_KNOWN: Final = frozenset({"0" * 64, "f" * 64, "0123456789abcdef" * 4, "deadbeef" * 8})


class Keyring:
    """The derived keys of every entry. ``current`` is the version that new MACs are made under."""

    __slots__ = ("_roots", "audit", "current", "cursor", "errands", "peppers")

    def __init__(self, roots: dict[int, bytes]) -> None:
        self._roots = roots
        self.current = max(roots)
        self.peppers = {n: _derive(root, b"pepper") for n, root in roots.items()}
        self.audit = {n: _derive(root, b"audit") for n, root in roots.items()}
        self.cursor = _derive(roots[self.current], b"cursor")
        self.errands = _derive(roots[self.current], b"errand")

    def signing(self, n: int, endpoint: str, salt: bytes) -> bytes | None:
        """The 32 bytes that an endpoint's webhooks are signed with; ``None`` where entry ``n`` is not configured."""
        root = self._roots.get(n)
        if root is None:
            return None
        return hkdf(root, salt=salt, info=b"v1 webhook " + endpoint.encode(), length=32)

    def sealing(self, n: int) -> bytes | None:
        """What second factors are sealed under; ``None`` where entry ``n`` is not configured."""
        root = self._roots.get(n)
        return None if root is None else _derive(root, b"factor")

    def canaries(self) -> dict[int, bytes]:
        """What proves that a database belongs to these secrets: a MAC of a fixed text per version."""
        return {
            n: hmac.digest(_derive(root, b"canary"), b"keywright", "sha256")
            for n, root in self._roots.items()
        }

    def __repr__(self) -> str:
        return f"Keyring(versions={sorted(self._roots)})"


def draw() -> str:
    """Draw a new secret, as it is written to a file."""
    return secrets.token_hex(32)


def parse(text: str) -> Keyring:
    """Read a secret: one entry, or several separated by white space or commas. Raises ``SecretTrouble``."""
    roots: dict[int, bytes] = {}
    for entry in text.replace(",", " ").split():
        found = _ENTRY.match(entry)
        if found is None:
            raise SecretTrouble(
                "the installation's secret is not 64 hex digits, or entries of the form <n>:<64 hex>"
            )
        n = int(found[1] or 1)
        if found[2] in _KNOWN:
            raise SecretTrouble(
                "the installation's secret is an example that everybody knows; draw one of your own"
            )
        if n in roots:
            raise SecretTrouble(f"the installation's secret has two entries numbered {n}")
        roots[n] = bytes.fromhex(found[2])
    if not roots:
        raise SecretTrouble("the installation's secret is empty")
    return Keyring(roots)


def _derive(root: bytes, label: bytes) -> bytes:
    return hkdf(root, salt=b"keywright", info=b"v1 " + label, length=32)


def hkdf(key: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA-256 (RFC 5869): extract, then expand to ``length`` bytes, at most 8,160."""
    pseudorandom = hmac.digest(salt or bytes(hashlib.sha256().digest_size), key, "sha256")
    block, output = b"", b""
    while len(output) < length:
        block = hmac.digest(pseudorandom, block + info + bytes([len(output) // 32 + 1]), "sha256")
        output += block
    return output[:length]
