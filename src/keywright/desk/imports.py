"""Credentials that an earlier system made: read out of what is imported. Pure.

Of a credential there is the text itself, or what that system kept of it, which is a digest. Ours, and dotted ones, name a
key and keep its id. All others name none: their key gets an id of its own, and they are found by a keyed digest.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from keywright import credential
from keywright.credential import DIGESTS, LONGEST, Digest, Pepper, Spelled
from keywright.errors import Invalid
from keywright.model import Keyspace
from keywright.schemes import read_imported
from keywright.times import parse_instant

#: How digests are written: after their name, or by themselves, when their length tells which it is.
_NAMED: Final = re.compile(r"\A(sha256|sha512)(?::|\$\$)(.+)\Z", re.DOTALL)
_UNKNOWN: Final = re.compile("unknown field `(.*?)`")
_DOTTED_ID: Final = re.compile(r"\A[0-9A-Za-z]{8}\Z")
_HINT: Final = re.compile(r"\A[!-~]{0,4}\Z")


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may be said of a key that is imported: its credential, and what a creation takes. ``null`` is left out."""

    token: str | None = None
    hash: str | None = None
    id: str | None = None  # with a hash, of a dotted key
    hint: str | None = None  # with a hash: how the credential ends
    name: str | None = None
    account: str | None = None
    environment: str | None = None
    description: str | None = None
    access: str | None = None
    scopes: tuple[str, ...] | None = None
    team: str | None = None
    application: str | None = None
    limits: tuple[str | dict[str, Any], ...] | None = None
    plan: str | None = None
    expires_at: int | str | msgspec.UnsetType | None = msgspec.UNSET  # an instant; null is never
    allowed_ips: tuple[str, ...] | None = None
    metadata: dict[str, Any] | None = None


class Coming(msgspec.Struct, frozen=True):
    """A credential that is imported: the id that it names, if it names one, and what is to be stored of it."""

    key_id: str | None
    spelled: Spelled
    hint: dict[str, str]

    def mac(self, pepper: Pepper, key_id: str) -> bytes:
        """What is stored to prove it."""
        if self.spelled.spelling == "imported":
            return pepper.mac_of_imported(key_id.encode(), self.spelled)
        return pepper.mac(self.spelled.id, self.spelled.secret)

    def tag(self, pepper: Pepper) -> bytes | None:
        """By what it is found, where it names no key."""
        return pepper.tag(self.spelled) if self.key_id is None else None


def said(item: object) -> dict[str, Any]:
    """What an item says, without what it leaves out. Raises ``Invalid`` for what no item can say."""
    try:
        typed = msgspec.convert(item, Item)
    except msgspec.ValidationError as wrong:
        raise _wrong(str(wrong)) from None
    found = {field: getattr(typed, field) for field in Item.__struct_fields__}
    found = {field: value for field, value in found.items() if value is not None or field == "expires_at"}
    if found["expires_at"] is msgspec.UNSET:
        del found["expires_at"]
    elif isinstance(found["expires_at"], str):
        found["expires_at"] = parse_instant(found["expires_at"], path="expires_at")
    return found


def _wrong(told: str) -> Invalid:
    unknown = _UNKNOWN.search(told)
    if unknown:
        return Invalid("is not known", path=unknown[1][:60])
    what, _, where = told.partition(" - at `$")
    return Invalid(what, path=re.split(r"[.\[`]", where.lstrip("."))[0] or "items")


def read(item: Mapping[str, Any], space: Keyspace, environment: str) -> Coming:
    """The credential of an item, for a key of this keyspace and environment. Raises ``Invalid``."""
    token, kept = item.get("token"), item.get("hash")
    if (token is None) == (kept is None):
        raise Invalid("is needed, or hash, and not both", path="token")
    if kept is not None:
        return _kept(kept, item, space)
    for field in ("id", "hint"):
        if item.get(field) is not None:
            raise Invalid("goes with hash; a token says it itself", path=field)
    return _whole(token, space, environment)


def _whole(token: Any, space: Keyspace, environment: str) -> Coming:
    text = _ascii(token)
    spelled = credential.parse_token(text)
    if spelled is not None and spelled.spelling == "token":
        return _ours(spelled, space, environment)
    if spelled is not None and space.format == "dotted":
        return Coming(spelled.id.decode(), spelled, {"token": text[-4:].decode()})
    foreign = None if space.imported is None else read_imported(space.imported, text)
    if foreign is None:
        raise Invalid(f"is none that the keyspace takes: {_expected(space)}", path="token")
    return Coming(None, foreign, {"imported": text[-4:].decode()})


def _ours(spelled: Spelled, space: Keyspace, environment: str) -> Coming:
    """A token of another installation of ours, which keeps its id."""
    head = f"{space.prefix}_{space.environments[environment]}_k"
    key_id = spelled.id.decode()
    if space.format != "standard" or not key_id.startswith(head):
        raise Invalid(f"is a Keywright token, and none of {space.name}, {environment}: {head}…", path="token")
    if credential.expected_check(spelled) != spelled.check:
        raise Invalid("has a wrong checksum: it was mistyped or cut", path="token")
    secret = spelled.secret.decode()
    pair = credential.spell_pair_secret(key_id, secret)
    return Coming(key_id, spelled, {"token": spelled.check[-4:].decode(), "secret": pair[-4:]})


def _kept(kept: Any, item: Mapping[str, Any], space: Keyspace) -> Coming:
    name, digest = _digest(kept)
    key_id, hint = item.get("id"), item.get("hint") or ""
    if not isinstance(hint, str) or not _HINT.match(hint):
        raise Invalid("is the last characters of the credential, four at most", path="hint")
    spelled = Spelled("imported", name.encode(), digest, b"")
    if space.format == "dotted" and key_id is not None:
        if not isinstance(key_id, str) or not _DOTTED_ID.match(key_id):
            raise Invalid("is what stands before the dot: 8 letters and digits", path="id")
        if name != "sha512":
            raise Invalid(
                "is sha512 where the id is told: what djangorestframework-api-key 3 keeps", path="hash"
            )
        return Coming(key_id, spelled, {"imported": hint})
    if key_id is not None:
        raise Invalid("is told for dotted keys only; other keys get an id of their own", path="id")
    if space.imported is None or space.imported.digest != name:
        raise Invalid(f"is none that the keyspace takes: {_expected(space)}", path="hash")
    return Coming(None, spelled, {"imported": hint})


def _digest(kept: Any) -> tuple[Digest, bytes]:
    text = _ascii(kept, path="hash").decode()
    named = _NAMED.match(text)
    name, written = (named[1], named[2]) if named else (None, text)
    for digest, size in DIGESTS.items():
        if name in (None, digest):
            found = _bytes(written, size)
            if found is not None:
                return digest, found  # type: ignore[return-value]  # the names of the table
    raise Invalid("is a SHA-256 or SHA-512 in hexadecimal or base64, such as sha256:…", path="hash")


def _bytes(written: str, size: int) -> bytes | None:
    try:
        if len(written) == 2 * size:
            return bytes.fromhex(written)
        found = b64decode(
            written + "=" * (-len(written) % 4), altchars=b"-_" if set("-_") & set(written) else None
        )
    except (ValueError, binascii.Error):
        return None
    return found if len(found) == size else None


def _ascii(text: Any, path: str = "token") -> bytes:
    if not isinstance(text, str) or not text.isascii() or not 0 < len(text) <= LONGEST:
        raise Invalid(f"is a text of ASCII, {LONGEST} characters at most", path=path)
    return text.encode()


def _expected(space: Keyspace) -> str:
    policy = space.imported
    if policy is None:
        dotted = (
            "tokens of its own, and sha512 with an id" if space.format == "dotted" else "tokens of its own"
        )
        return f"{dotted}; its definition has no [imported]"
    begins = f", beginning with {' or '.join(policy.prefixes)}" if policy.prefixes else ""
    return f"{policy.digest}, or a token of {policy.shortest} to {LONGEST} characters{begins}"


__all__ = ["Coming", "Item", "read", "said"]
