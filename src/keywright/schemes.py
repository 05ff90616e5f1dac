"""How a credential rides in a request: which headers, which parts. Pure.

A scheme only extracts; it decides nothing about a key. Before a credential is proven there are three answers, chosen by
the shape of the request alone: ``missing``, ``ambiguous``, and ``invalid``, which the engine says of all else.

Only the carriers of accepted schemes are looked at. ``X-API-KEY`` means two things in the systems that we can be, the
public id beside ``X-API-SECRET`` and the whole token beside ``x-api-user``, and is read by its companion.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from keywright.credential import (
    CARRIED,
    ID_INSIDE,
    IMPORTABLE,
    INSIDE,
    INSIDE_DOTTED,
    LONGEST,
    Spelled,
    imported,
    parse_pair,
    parse_token,
)
from keywright.model import ImportPolicy, Keyspace

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case, as ASGI gives them


class Scheme(NamedTuple):
    """A scheme as people are told of it: its header set with placeholders, and whether it carries a pair."""

    carries_pair: bool
    shown: tuple[tuple[str, str], ...]


#: Every scheme that a keyspace can accept. ``{header}`` is the profile's own name.
SCHEMES: Final[dict[str, Scheme]] = {
    "bearer": Scheme(False, (("Authorization", "Bearer <token>"),)),
    "basic": Scheme(True, (("Authorization", "Basic base64(<id>:<secret>)"),)),
    "key_secret": Scheme(True, (("X-API-KEY", "<id>"), ("X-API-SECRET", "<secret>"))),
    "camel_pair": Scheme(True, (("apiKey", "<id>"), ("apiSecret", "<secret>"))),
    "key_user": Scheme(False, (("x-api-key", "<token>"), ("x-api-user", "<account username>"))),
    "api_key_auth": Scheme(False, (("Authorization", "Api-Key <token>"),)),
    "header": Scheme(False, (("{header}", "<token>"),)),
}

_CARRIERS: Final[dict[str, tuple[bytes, ...]]] = {
    "bearer": (b"authorization",),
    "basic": (b"authorization",),
    "key_secret": (b"x-api-key", b"x-api-secret"),
    "camel_pair": (b"apikey", b"apisecret"),
    "key_user": (b"x-api-key", b"x-api-user"),
    "api_key_auth": (b"authorization", b"api-key"),
}
#: Every header that a credential can come in, but for a profile's own.
CARRIERS: Final = frozenset(name for names in _CARRIERS.values() for name in names)
_WORDS: Final = {b"bearer": "bearer", b"basic": "basic", b"api-key": "api_key_auth"}
#: What a browser adds to the requests of a page, and programs do not. Node's own ``fetch`` sends ``Sec-Fetch-Mode``.
_BROWSERS: Final = frozenset([b"origin", b"sec-fetch-site"])
#: Bytes as numbers: ``b"?" in raw`` costs four times as much as ``63 in raw``.
_PERCENT: Final = ord("%")
_QUESTION: Final = ord("?")
_TOKEN_WORDS: Final = {word: scheme for word, scheme in _WORDS.items() if scheme != "basic"}
_FAMILY: Final = {
    b"authorization": "authorization",
    b"api-key": "api-key",
    b"x-api-key": "x-api",
    b"x-api-secret": "x-api",
    b"x-api-user": "x-api",
    b"apikey": "camel",
    b"apisecret": "camel",
}


class Presented(msgspec.Struct, frozen=True, gc=False):
    """A well-formed credential and the scheme that carried it. Nothing about it is proven."""

    scheme: str
    spelled: Spelled
    username: bytes | None = None
    browser: bool = False  # a web page sent it

    @staticmethod
    def of_token(token: bytes) -> "Presented | Unproven":
        """Take a token that was given by itself, as ``/v1/verify`` may get it."""
        presented = _token("token", token)
        return Unread(MALFORMED.code, MALFORMED.reason, token) if presented is MALFORMED else presented

    @staticmethod
    def of_pair(key_id: bytes, secret: bytes) -> "Presented | Unproven":
        """Take the two halves of a pair that were given by themselves."""
        return _pair("pair", key_id, secret)


class Unproven(msgspec.Struct, frozen=True, gc=False):
    """A request whose shape alone decides its answer."""

    code: str
    reason: str


class Unread(Unproven, frozen=True, gc=False):
    """A token that was given by itself and is none of ours: perhaps one that the keyspace has imported."""

    token: bytes

    def __repr__(self) -> str:
        return f"Unread({self.reason!r}, …)"


MISSING: Final = Unproven("missing", "no_carrier")
HALF: Final = Unproven("missing", "half_pair")
TWICE: Final = Unproven("ambiguous", "header_twice")
UNDERSCORE: Final = Unproven("ambiguous", "underscore_twin")
TWO: Final = Unproven("ambiguous", "two_credentials")
COMPANIONS: Final = Unproven("ambiguous", "both_companions")
IN_URL: Final = Unproven("ambiguous", "in_url")
MALFORMED: Final = Unproven("invalid", "malformed")


class Reader:
    """Reads the credentials of one keyspace out of requests. Made once per definition, used for every request."""

    __slots__ = (
        "_accepted",
        "_dotted",
        "_foreign",
        "_imported",
        "_lone",
        "_parameter",
        "_twins",
        "_watched",
        "_words",
    )

    def __init__(self, keyspace: Keyspace) -> None:
        self._accepted = frozenset(keyspace.schemes)
        self._lone = keyspace.header.lower().encode() if "header" in self._accepted else b""
        #: the words before a token in ``Authorization``
        self._words = {word: scheme for word, scheme in _TOKEN_WORDS.items() if scheme in self._accepted}
        self._dotted = keyspace.format == "dotted"
        self._imported = keyspace.imported
        self._foreign = _foreign(keyspace.imported)
        carriers = {name for scheme in keyspace.schemes for name in _CARRIERS.get(scheme, ())}
        if self._lone:
            carriers.add(self._lone)
        #: spellings with underscores, which some frontends fold into a carrier
        self._twins = frozenset(twin for name in carriers for twin in _twins(name)) - carriers
        self._watched = self._twins | carriers | _BROWSERS
        #: a carrier as the name of a parameter in a URL, with or without separators
        names = b"|".join(b"[-_]?".join(map(re.escape, name.split(b"-"))) for name in sorted(carriers))
        self._parameter = re.compile(rb"[?&;](?:" + names + rb")(?:=|&|;|\Z)", re.IGNORECASE)

    def read(self, headers: Headers, url: str | bytes | None = None) -> Presented | Unproven:
        """Find the one credential of a request, or say why there is none to prove.

        ``url`` is the target as the client sent it, where it is known: a credential in it is refused.
        """
        watched = self._watched
        found: dict[bytes, bytes] = {}
        browser = False
        for name, value in headers:
            if name in watched:
                if name in _BROWSERS:
                    browser = True
                    continue
                if name in found:
                    return TWICE
                found[name] = value
        only = found.get(b"authorization") if len(found) == 1 else None
        if only is None and not self._twins.isdisjoint(found):
            return UNDERSCORE
        if url and self._in_url(url):
            return IN_URL
        whole = None if only is None else CARRIED.match(only)
        if whole is not None:
            word, key_id, secret, check = whole.groups()
            scheme = self._words.get(word.lower())
            if scheme is not None:
                return Presented(scheme, Spelled("token", key_id, secret, check), None, browser)
        presented = self._resolve(found) if found else MISSING
        if browser and isinstance(presented, Presented):
            return msgspec.structs.replace(presented, browser=True)
        return presented

    def beside(self, given: Presented | Unproven, url: str | bytes | None) -> Presented | Unproven:
        """A credential that was given by itself, unless there is one in the URL beside it."""
        if url and self._in_url(url):
            return IN_URL
        return self._as_imported("token", given.token) if isinstance(given, Unread) else given

    def carriers(self, headers: Headers) -> list[bytes]:
        """The headers that the one credential of a request came in; none where there is no one credential."""
        presented = self.read(headers)
        if isinstance(presented, Unproven):
            return []
        names = _CARRIERS.get(presented.scheme, (self._lone,))
        there = [name for name in names if any(name == header for header, _ in headers)]
        # beside Api-Key there may be an Authorization that is the host's own
        return there[-1:] if presented.scheme == "api_key_auth" else there

    def _resolve(self, found: dict[bytes, bytes]) -> Presented | Unproven:
        scheme, value = "", b""
        if b"authorization" in found:
            word, _, value = found[b"authorization"].strip(b" \t").partition(b" ")
            scheme = _WORDS.get(word.lower(), "")
            if scheme not in self._accepted:
                del found[b"authorization"]
        if len(found) == 1:
            ((name, whole),) = found.items()
            if name == b"authorization":
                return self._authorization(scheme, value)
            if name in (b"api-key", self._lone):
                return self._token("header" if name == self._lone else "api_key_auth", whole.strip(b" \t"))
            return HALF if whole.strip(b" \t") else MISSING
        return self._resolve_several({n: v.strip(b" \t") for n, v in found.items() if v.strip(b" \t")}, value)

    def _resolve_several(self, found: dict[bytes, bytes], value: bytes) -> Presented | Unproven:
        if len(found) < 2:
            return self._resolve(found) if found else MISSING
        if len({_FAMILY.get(name, "header") for name in found}) > 1:
            return TWO
        if b"apikey" in found:
            return _pair("camel_pair", found[b"apikey"], found[b"apisecret"])
        if b"x-api-secret" in found and b"x-api-user" in found:
            return COMPANIONS
        if b"x-api-secret" in found:
            return _pair("key_secret", found[b"x-api-key"], found[b"x-api-secret"])
        return self._token("key_user", found[b"x-api-key"], found[b"x-api-user"])

    def _authorization(self, scheme: str, value: bytes) -> Presented | Unproven:
        value = value.strip(b" ")
        if not value:
            return MISSING
        return _basic(value) if scheme == "basic" else self._token(scheme, value)

    def _token(self, scheme: str, value: bytes, username: bytes | None = None) -> Presented | Unproven:
        presented = _token(scheme, value, username)
        return self._as_imported(scheme, value, username) if presented is MALFORMED else presented

    def _as_imported(self, scheme: str, value: bytes, username: bytes | None = None) -> Presented | Unproven:
        """What is none of ours, as a credential of the earlier system where it can be one."""
        spelled = None if self._imported is None else read_imported(self._imported, value)
        return MALFORMED if spelled is None else Presented(scheme, spelled, username)

    def _in_url(self, url: str | bytes) -> bool:
        raw = url.encode("utf-8", "surrogatepass") if isinstance(url, str) else url
        if _PERCENT in raw:
            raw = unquote_to_bytes(unquote_to_bytes(raw))
        if _QUESTION in raw and self._parameter.search(raw) is not None:
            return True
        if self._foreign is not None and self._foreign.search(raw) is not None:
            return True
        if len(raw) < 40:
            return False
        return INSIDE.search(raw) is not None or (self._dotted and INSIDE_DOTTED.search(raw) is not None)


def id_in(url: str | bytes) -> bytes | None:
    """The id of the key whose credential, or a part of it, stands in an address; of a pair, the id's own parameter."""
    raw = url.encode("utf-8", "surrogatepass") if isinstance(url, str) else url
    found = ID_INSIDE.search(unquote_to_bytes(unquote_to_bytes(raw)))
    return None if found is None else found[1] or found[2]


def accepted_sets(keyspace: Keyspace) -> list[str]:
    """The header sets that a keyspace accepts, each as a person reads it, in the profile's order."""
    sets = []
    for name in keyspace.schemes:
        shown = [(header.format(header=keyspace.header), value) for header, value in SCHEMES[name].shown]
        sets.append(" and ".join(f"`{header}: {value}`" for header, value in shown))
        if name == "api_key_auth":
            sets.append("`Api-Key: <token>`")
    return sets


def from_mapping(
    headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
) -> list[tuple[bytes, bytes]]:
    """Turn a framework's headers into ASGI's: byte pairs with lower-case names, repeats kept where they are shown."""
    pairs: Iterable[tuple[str | bytes, str | bytes]]
    if isinstance(headers, Mapping):
        several = getattr(headers, "multi_items", None)
        pairs = several() if several is not None else headers.items()
    else:
        pairs = headers
    return [(_bytes(name).lower(), _bytes(value)) for name, value in pairs]


def _twins(name: bytes) -> list[bytes]:
    """A header's name with underscores in the place of some or all of its hyphens, and itself."""
    twins = [b""]
    for part in name.split(b"-"):
        twins = (
            [head + joint + part for head in twins for joint in (b"-", b"_")] if twins != [b""] else [part]
        )
    return twins


def _bytes(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def read_imported(policy: ImportPolicy, value: bytes) -> Spelled | None:
    """A credential of the earlier system that a keyspace tells of; ``None`` where it cannot be one."""
    begins = not policy.prefixes or value.startswith(tuple(prefix.encode() for prefix in policy.prefixes))
    if not begins or not policy.shortest <= len(value) <= LONGEST or IMPORTABLE.match(value) is None:
        return None
    return imported(policy.digest, value)


def _foreign(policy: ImportPolicy | None) -> re.Pattern[bytes] | None:
    """Where a credential of the earlier system stands inside an address, if it can be told from other text."""
    if policy is None or not policy.prefixes:
        return None
    one_of = [
        re.escape(prefix.encode()) + rb"[!#-&(-+\--:<-~]{%d}" % max(policy.shortest - len(prefix), 0)
        for prefix in policy.prefixes
    ]
    return re.compile(rb"(?<![0-9A-Za-z])(?:" + b"|".join(one_of) + b")")


def _basic(value: bytes) -> Presented | Unproven:
    if b"," in value:
        return TWO
    if len(value) > LONGEST:
        return MALFORMED
    try:
        key_id, colon, secret = b64decode(value, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return MALFORMED
    return _pair("basic", key_id, secret) if colon else MALFORMED


def _token(scheme: str, value: bytes, username: bytes | None = None) -> Presented | Unproven:
    if username is not None and b"," in username:
        return TWO
    spelled = parse_token(value) if len(value) <= LONGEST else None
    if spelled is not None:
        return Presented(scheme, spelled, username)
    return MISSING if not value else TWO if b"," in value else MALFORMED


def _pair(scheme: str, key_id: bytes, secret: bytes) -> Presented | Unproven:
    if not key_id or not secret:
        return HALF
    if b"," in key_id or b"," in secret:
        return TWO
    if len(key_id) > LONGEST or len(secret) > LONGEST:
        return MALFORMED
    spelled = parse_pair(key_id, secret)
    return MALFORMED if spelled is None else Presented(scheme, spelled)
