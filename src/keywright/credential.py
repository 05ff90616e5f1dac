"""What a key looks like: make it, spell it, parse it, and prove it. Pure, but for the system's randomness.

A key is a public id and a secret of 32 base62 characters. A standard key is spelled in two ways, and the two end
differently, so that neither is accepted in the other's place:

    token    acme_live_k00000000000000A_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA0NoKey
    pair     acme_live_k00000000000000A      and    acmesec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA0NoKey

A dotted key (``djangorestframework-api-key``'s shape) is spelled in one: ``n58lzybi.`` and 32 characters.

A credential that was imported from an earlier system has that system's shape, and is known by its digest alone: what is
stored is a MAC of the digest, never the digest, which anybody could test a guess against.

The six characters at a spelling's end are CRC-32 (IEEE 802.3, as in zlib) in base62 over the ASCII bytes before them.
They are public and no security check: they turn typing errors away before a look-up and make secret scanners certain.
What proves a key is ``mac``: HMAC-SHA-256 under a pepper that is never in the database, so that whoever reads the
database cannot test a guess, and whoever writes it cannot plant a key of their own making.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from typing import Final, Literal

import msgspec

ALPHABET: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_CHARACTERS: Final = 15  # 89.3 bits, after the type letter
DOTTED_ID_CHARACTERS: Final = 8
SECRET_CHARACTERS: Final = 32  # 190.5 bits
MAC_BYTES: Final = 32
LONGEST: Final = 512  # bytes of a presented value that are looked at; longer ones are malformed

PREFIX: Final = re.compile(r"\A[a-z][a-z0-9]{1,11}\Z")
CODE: Final = re.compile(r"\A[a-z]{2,8}\Z")

#: Prefixes under which other vendors' keys are known: a leak of ours must never be reported to somebody else.
OTHERS_PREFIXES: Final = frozenset(
    [
        "sk",
        "pk",
        "rk",
        "ghp",
        "gho",
        "ghs",
        "ghr",
        "ghu",
        "npm",
        "pypi",
        "xoxb",
        "xoxp",
        "xoxa",
        "xoxe",
        "xapp",
        "glpat",
        "akia",
        "asia",
        "whsec",
        "whsk",
        "whpk",
        "cfk",
        "cfut",
        "cfat",
        "zpka",
        "hf",
        "dop",
        "shpat",
        "shpss",
        "sq0atp",
        "lin",
        "ya29",
        "aiza",
        "rubygems",
        "dckr",
        "figd",
        "pat",
        "ops",
        "atlasv1",
        "hvs",
    ]
)
#: The prefix of Keywright's own management keys.
MANAGEMENT_PREFIX: Final = "kw"

_ID: Final = rb"([a-z][a-z0-9]{1,11}_[a-z]{2,8}_[km][0-9A-Za-z]{15})"
_TOKEN: Final = re.compile(rb"\A" + _ID + rb"_([0-9A-Za-z]{32})([0-4][0-9A-Za-z]{5})\Z")
_PAIR_ID: Final = re.compile(rb"\A" + _ID + rb"\Z")
_PAIR_SECRET: Final = re.compile(rb"\A([a-z][a-z0-9]{1,11})sec_([0-9A-Za-z]{32})([0-4][0-9A-Za-z]{5})\Z")
_DOTTED: Final = re.compile(rb"\A([0-9A-Za-z]{8})\.([0-9A-Za-z]{32})\Z")

#: A standard token behind a scheme's word, as an ``Authorization`` header carries it: one match instead of many steps.
CARRIED: Final = re.compile(
    rb"[ \t]*([A-Za-z-]{1,16}) +" + _ID + rb"_([0-9A-Za-z]{32})([0-4][0-9A-Za-z]{5})[ \t]*\Z"
)

#: Where something in the shape of a standard credential stands inside a longer text.
INSIDE: Final = re.compile(
    rb"(?<![0-9A-Za-z])(?:[a-z][a-z0-9]{1,11}_[a-z]{2,8}_[km][0-9A-Za-z]{15}_|[a-z][a-z0-9]{1,11}sec_)"
    rb"[0-9A-Za-z]{32}[0-4][0-9A-Za-z]{5}(?![0-9A-Za-z])"
)
#: The same for a dotted one.
INSIDE_DOTTED: Final = re.compile(rb"(?<![0-9A-Za-z])[0-9A-Za-z]{8}\.[0-9A-Za-z]{32}(?![0-9A-Za-z])")

#: Where an id stands inside a longer text: a standard one, or a dotted one before its secret.
ID_INSIDE: Final = re.compile(
    rb"(?<![0-9A-Za-z])(?:([a-z][a-z0-9]{1,11}_[a-z]{2,8}_[km][0-9A-Za-z]{15})(?![0-9A-Za-z])"
    rb"|([0-9A-Za-z]{8})\.[0-9A-Za-z]{32}(?![0-9A-Za-z]))"
)
#: Ids of samples in published documentation: atfinity's own, and the end of those of ours.
SAMPLES: Final = (b"n58lzybi", b"_k00000000000000A")

#: How other systems keep a credential that is not theirs to show again, and the bytes of each digest.
DIGESTS: Final = {"sha256": 32, "sha512": 64}
#: What an imported credential is made of: what a header carries without quoting, and none of what separates there.
IMPORTABLE: Final = re.compile(rb"\A[!#-&(-+\--:<-~]+\Z")

Type = Literal["k", "m"]
Spelling = Literal["token", "pair", "dotted", "imported"]
Digest = Literal["sha256", "sha512"]


class Spelled(msgspec.Struct, frozen=True, gc=False):
    """A well-formed credential, taken apart. Nothing about it is proven, and ``check`` has not been computed."""

    spelling: Spelling
    id: bytes  # of an imported one, which names no key, the digest's name
    secret: bytes  # of an imported one, the digest
    check: bytes  # six base62 characters; empty in a dotted key and in an imported one

    def __repr__(self) -> str:
        return f"Spelled({self.spelling!r}, {self.id!r}, secret=…)"


class Secret:
    """A confidential text that does not show itself by accident: ``reveal`` is the only way to read it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one answer that shows it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('…')"


def random_base62(count: int) -> str:
    """Draw ``count`` unbiased base62 characters from the operating system's generator.

    A byte above the largest multiple of 62 is thrown away, so that each character is equally likely.
    """
    drawn = bytearray()
    while len(drawn) < count:
        drawn += bytes(ALPHABET[byte % 62] for byte in secrets.token_bytes(count) if byte < 248)
    return drawn[:count].decode()


def new_id(prefix: str, code: str, type_: Type = "k") -> str:
    """Draw the public id of a standard key: ``acme_live_k`` and 15 characters."""
    return f"{prefix}_{code}_{type_}{random_base62(ID_CHARACTERS)}"


def new_dotted_id() -> str:
    """Draw the public id of a dotted key: 8 characters."""
    return random_base62(DOTTED_ID_CHARACTERS)


def new_secret() -> str:
    """Draw the confidential part: 32 characters, 190 bits."""
    return random_base62(SECRET_CHARACTERS)


def checksum(text: bytes) -> bytes:
    """CRC-32 of ``text`` as six base62 digits, most significant first (``security.md`` 1.6)."""
    value, digits = zlib.crc32(text), bytearray(6)
    for place in range(5, -1, -1):
        value, digit = divmod(value, 62)
        digits[place] = ALPHABET[digit]
    return bytes(digits)


def prefix_of(key_id: bytes) -> bytes:
    """The product's prefix at the head of a standard id."""
    return key_id[: key_id.index(b"_")]


def expected_check(spelled: Spelled) -> bytes:
    """The checksum that this id and secret have in this spelling; empty for a dotted key."""
    if spelled.spelling == "token":
        return checksum(spelled.id + b"_" + spelled.secret)
    if spelled.spelling == "pair":
        return checksum(prefix_of(spelled.id) + b"sec_" + spelled.secret)
    return b""


def spell_token(key_id: str, secret: str) -> str:
    """Write id and secret as the one value that a token scheme carries, in the format that the id shows."""
    if "_" not in key_id:
        return f"{key_id}.{secret}"
    body = f"{key_id}_{secret}"
    return body + checksum(body.encode()).decode()


def spell_pair_secret(key_id: str, secret: str) -> str:
    """Write the secret of a standard key as the second half of a pair: ``acmesec_…``."""
    body = f"{key_id[: key_id.index('_')]}sec_{secret}"
    return body + checksum(body.encode()).decode()


def parse_token(value: bytes) -> Spelled | None:
    """Take a single-value credential apart; ``None`` where it has neither format's shape."""
    found = _TOKEN.match(value)
    if found is not None:
        return Spelled("token", *found.groups())
    found = _DOTTED.match(value)
    return None if found is None else Spelled("dotted", found[1], found[2], b"")


def parse_pair(key_id: bytes, secret: bytes) -> Spelled | None:
    """Take the two halves of a pair together; ``None`` where either is malformed or their prefixes disagree."""
    left, right = _PAIR_ID.match(key_id), _PAIR_SECRET.match(secret)
    if left is None or right is None or prefix_of(key_id) != right[1]:
        return None
    return Spelled("pair", key_id, right[2], right[3])


def mac(pepper: bytes, key_id: bytes, secret: bytes) -> bytes:
    """HMAC-SHA-256 over ``"v1" 00 id 00 secret``: what is stored of a secret, 32 bytes.

    The id is part of the input, so that a MAC moved to another row proves nothing.
    """
    return hmac.digest(pepper, b"v1\0" + key_id + b"\0" + secret, "sha256")


def imported(digest: Digest, token: bytes) -> Spelled:
    """A credential of an earlier system, as that system kept it: its digest."""
    return Spelled("imported", digest.encode(), hashlib.new(digest, token).digest(), b"")


def dotted_as_imported(spelled: Spelled) -> Spelled:
    """A dotted credential as ``djangorestframework-api-key`` 3 keeps it: SHA-512 over the whole of it."""
    return imported("sha512", spelled.id + b"." + spelled.secret)


class Pepper:
    """``mac`` under one pepper, with both of HMAC's key blocks hashed beforehand (RFC 2104 section 4).

    A MAC then costs 0.5 µs instead of the 1.4 µs of ``hmac.digest``, which hashes the key anew and looks its hash function
    up each time. A test holds the two to the same answers.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, pepper: bytes) -> None:
        block = pepper.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block)).copy
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block)).copy

    def mac(self, key_id: bytes, secret: bytes) -> bytes:
        """HMAC-SHA-256 over ``"v1" 00 id 00 secret``."""
        inner, outer = self._inner(), self._outer()
        inner.update(b"v1\0" + key_id + b"\0" + secret)
        outer.update(inner.digest())
        return outer.digest()

    def mac_of_imported(self, key_id: bytes, spelled: Spelled) -> bytes:
        """HMAC-SHA-256 over ``"v1i" 00 id 00 digest's name 00 digest``: what is stored of an imported credential."""
        return self._over(b"v1i\0" + key_id + b"\0" + spelled.id + b"\0" + spelled.secret)

    def tag(self, spelled: Spelled) -> bytes:
        """HMAC-SHA-256 over ``"v1t" 00 digest's name 00 digest``: by what an imported credential, naming no key, is found.

        As with ``proof``, whoever does not have the credential cannot choose it, so it may be looked up.
        """
        return self._over(b"v1t\0" + spelled.id + b"\0" + spelled.secret)

    def _over(self, text: bytes) -> bytes:
        inner, outer = self._inner(), self._outer()
        inner.update(text)
        outer.update(inner.digest())
        return outer.digest()


def proof(spelled: Spelled, mac: bytes) -> bytes:
    """What was presented, spelling and check characters included, as a value that only the right credential can have.

    It may be looked up: whoever does not have the secret cannot choose its MAC, so how long that takes tells nothing. The
    two spellings differ by where the check characters stand.
    """
    return spelled.check + mac if spelled.spelling == "pair" else mac + spelled.check


#: What an absent key's MAC is compared with, so that an unknown id costs what a known one costs.
DUMMY_MAC: Final = bytes(MAC_BYTES)
