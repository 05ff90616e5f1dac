"""Fuzzing: what reads somebody else's text raises nothing but its own refusal, and agrees with a second reading of it.

Texts are made from a corpus of good ones and old attacks: bytes changed, dropped, repeated and put in, two texts joined. The
seed is fixed, so that a find is found again. Each reader has an oracle that shares no code with it.
"""

import os
import random
import socket
import string
import zlib
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_network
from urllib.parse import urlsplit

import http_sf
import httpx
import pytest
import yarl

from keywright import addresses
from keywright.answers import rate_headers
from keywright.credential import (
    checksum,
    expected_check,
    parse_pair,
    parse_token,
    spell_pair_secret,
    spell_token,
)
from keywright.desk import cursors, fields
from keywright.errors import Invalid
from keywright.model import LimitState
from keywright.policy import within
from test_answers import verdict

TIMES = 30_000_000 if os.environ.get("KEYWRIGHT_PROOF") else 100_000
BASE62 = string.digits + string.ascii_letters
ID, SECRET = "acme_live_k00000000000000A", "A" * 32
SPLICED = (
    "", " ", "\0", "\n", "\r\n", "\t", "%00", "%2e", "..", "//", "@", ":", "::", "[", "]", "\\", "#", "?", "/", "é", "\u3002",
    "\uff0e", "0x7f", "017700000001", "2130706433", "127.0.0.1", "localhost", "0", "9", "_", "-", ".", "~", "=", "\ud7ff",
    "A" * 64, "1" * 40, "/32", "/0", "/33", "%eth0", "ffff", "sec_", "_k", "_m",
)  # fmt: skip


def texts(corpus: list[str], times: int = TIMES) -> Iterator[str]:
    """The corpus, and so many that are made from it."""
    yield from corpus
    draw = random.Random(20270115)
    for _ in range(times):
        text = draw.choice(corpus)
        for _ in range(draw.randint(0, 4)):
            at, to = sorted((draw.randint(0, len(text)), draw.randint(0, len(text))))
            way = draw.randrange(6)
            if way == 0:
                text = text[:at] + text[at + 1 :]
            elif way == 1:
                text = text[:at] + chr(draw.randrange(256)) + text[at + 1 :]
            elif way == 2:
                text = text[:at] + draw.choice(SPLICED) + text[at:]
            elif way == 3:
                text = text[:at] + text[to:]
            elif way == 4:
                text = text[:to] + text[at:]
            else:
                other = draw.choice(corpus)
                text = text[:at] + other[draw.randint(0, len(other)) :]
        yield text


def refused(read: Callable[[], object]) -> object:
    """What is read, or ``None`` where it is refused; any other exception goes through."""
    with suppress(Invalid):
        return read()
    return None


# ------------------------------------------------------------------------------------------------------------ the parser


def _word(text: str, characters: str, least: int, most: int) -> bool:
    return least <= len(text) <= most and all(one in characters for one in text)


def _head(text: str) -> bool:
    return text[:1] in tuple(string.ascii_lowercase) and _word(
        text, string.ascii_lowercase + string.digits, 2, 12
    )


def _id(text: str) -> bool:
    parts = text.split("_")
    return (
        len(parts) == 3
        and _head(parts[0])
        and _word(parts[1], string.ascii_lowercase, 2, 8)
        and parts[2][:1] in ("k", "m")
        and _word(parts[2][1:], BASE62, 15, 15)
    )


def _tail(text: str) -> bool:
    return _word(text, BASE62, 38, 38) and text[32] in "01234"


def by_hand(text: str) -> tuple[str, str, str] | None:
    """Id, secret and check characters of a token, as docs/security.md describes it."""
    key_id, bar, tail = text.rpartition("_")
    if bar and _id(key_id) and _tail(tail):
        return key_id, tail[:32], tail[32:]
    key_id, dot, secret = text.partition(".")
    if dot and _word(key_id, BASE62, 8, 8) and _word(secret, BASE62, 32, 32):
        return key_id, secret, ""
    return None


def base62_of(crc: int) -> str:
    """Six digits, by powers."""
    digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
    return "".join(digits[crc // 62**place % 62] for place in range(5, -1, -1))


@pytest.mark.security("R-20")
@pytest.mark.full("thirty million texts")
def test_the_parser_agrees_with_a_second_reading() -> None:
    """What is a credential, where it is taken apart and what its checksum is, two readings say alike, of any bytes."""
    corpus = [
        spell_token(ID, SECRET), spell_token("a0_dev_m" + "z" * 15, "0aZ9" * 8), spell_token("n58lzybi", "0aZ9" * 8),
        ID, SECRET, f"{ID}_{SECRET}", spell_pair_secret(ID, SECRET), f"{ID}_{SECRET}4gfFC3", f"{ID}_{SECRET}5gfFC3",
    ]  # fmt: skip
    good = 0
    for text in texts(corpus):
        raw = text.encode("utf-8", "surrogatepass")
        read, expected = parse_token(raw), by_hand(text)
        assert (
            None if read is None else (read.id.decode(), read.secret.decode(), read.check.decode())
        ) == expected
        pair = parse_pair(ID.encode(), raw)
        head, _, tail = text.partition("sec_")
        assert (pair is not None) == (head == "acme" and _tail(tail)), text
        assert checksum(raw).decode() == base62_of(zlib.crc32(raw))
        for found in (read, pair):
            good += found is not None and expected_check(found) == found.check
    assert good > 100


# ------------------------------------------------------------------------------------------------- the structured fields


@pytest.mark.security("R-20")
@pytest.mark.full("three million answers")
def test_structured_fields_agree_with_the_reference_parser() -> None:
    """The two fields of any limits are Lists that an independent parser reads back, to the largest and the strangest number."""
    draw = random.Random(20270115)
    names = ["quota-day", "rate-10s", "credits", "account-quota-month", "plan-rate-1s"]
    numbers = [0, 1, 9, 10**6, 10**15 - 1, 10**15]
    for _ in range(TIMES // 10):
        limits = []
        for name in draw.sample(names, draw.randint(1, 5)):
            kind = "credits" if name == "credits" else "rate" if "rate" in name else "quota"
            limit = draw.choice([*numbers[1:5], draw.randrange(1, 10**15)])
            per = {"credits": None, "rate": draw.randint(1, 3600)}.get(
                kind, draw.choice(["minute", "hour", "day", "month"])
            )
            left = draw.choice([0, limit, draw.randint(0, limit)])
            reset = None if kind == "credits" else draw.randint(0, 31 * 86_400)
            limits.append(LimitState(name, kind, limit, per, left, reset))
        sent = dict(rate_headers(verdict("ok", limits=tuple(limits))))
        policies = http_sf.parse(sent["RateLimit-Policy"].encode(), tltype="list")
        state = http_sf.parse(sent["RateLimit"].encode(), tltype="list")
        assert [(name, has["q"]) for name, has in policies] == [(one.name, one.limit) for one in limits]
        assert [(name, has["r"]) for name, has in state] == [(one.name, one.remaining) for one in limits]
        assert all(one.isascii() and one.isprintable() for one in sent.values())


# --------------------------------------------------------------------------------------------------------------- cursors


@pytest.mark.security("R-20")
@pytest.mark.full("thirty million texts")
def test_no_cursor_but_our_own_is_read() -> None:
    """Of texts made from good cursors only those are read that hold, byte for byte, what we signed, and as we meant it."""
    key, bound = bytes(range(32)), ["keys", {"account": "globex"}]
    places: list[list[object]] = [[1], [1_900_000_000_000_000, "acme_live_k00000000000000A"], [None, "é"], []]
    written = {cursors.write(place, bound, key): place for place in places}
    signed = {urlsafe_b64decode(text + "=" * (-len(text) % 4)): place for text, place in written.items()}
    others = [cursors.write([1], ["keys", {"account": "initech"}], key), cursors.write([1], bound, key[::-1])]
    read = 0
    for text in texts([*written, *others]):
        found = refused(lambda: cursors.read(text, bound, key))  # noqa: B023  # called at once
        if found is not None:
            raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            assert signed[raw] == found
            read += 1
    assert read >= len(written)


# -------------------------------------------------------------------------------------------------------------- networks


def bits_of(text: str) -> tuple[int, int] | None:
    """An address as the C library reads it: its number, and how many bits it has."""
    for family, bits in ((socket.AF_INET, 32), (socket.AF_INET6, 128)):
        with suppress(OSError, ValueError):
            return int.from_bytes(socket.inet_pton(family, text), "big"), bits
    return None


@pytest.mark.security("R-20")
@pytest.mark.full("thirty million texts")
def test_networks_agree_with_the_c_library() -> None:
    """A network is taken exactly where the C library reads its address and its last bits are zero; it then holds both its ends."""
    corpus = [
        "203.0.113.0/24", "203.0.113.7", "0.0.0.0/0", "10.0.0.0/255.0.0.0", "2001:db8::/32", "::1", "::/0", "::ffff:10.0.0.0/104",
        "fe80::1%eth0", "1.2.3.4/032", "01.2.3.4", "1.2.3", "256.0.0.1/8", "2001:db8::1/129", "255.255.255.255/32",
    ]  # fmt: skip
    taken = 0
    for text in texts(corpus):
        found = refused(lambda: fields.networks([text]))  # noqa: B023  # called at once
        address, slash, length = text.partition("/")
        known = bits_of(address) if text.isascii() else None
        if found is not None:
            taken += 1
            assert known is not None, text
            network = ip_network(found[0])  # type: ignore[index]
            for end in (network.network_address, network.broadcast_address):
                assert within((network,), str(end)), text
            if int(network.broadcast_address) + 1 < 1 << network.max_prefixlen:
                assert not within((network,), str(network.broadcast_address + 1)), text
        elif known is not None and length.isascii() and (length.isdigit() or not slash):
            number, bits = known
            long = int(length) if length else bits
            assert long > bits or number % 2 ** (bits - long), text
    assert taken > 100


# -------------------------------------------------------------------------------------------------- addresses of webhooks


@pytest.mark.security("R-20", "T-38")
@pytest.mark.full("thirty million texts")
def test_what_is_taken_for_an_address_of_a_webhook_everybody_reads_alike() -> None:
    """An address that is taken leads, for three other readers too, to the same host and port, and none of them sees a user in it."""
    corpus = [
        "https://hooks.example.com/in", "https://example.com:8443/a/b?c=d&e=%20", "https://93.184.216.34/", "https://[2606:4700::1]/x",
        "https://example.com", "https://example.com?x=1", "https://EXAMPLE.com./in", "https://user:pass@example.com/", "http://example.com/",
        "https://example.com:443/", "https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://[::ffff:127.0.0.1]/",
        "https://example.com\\@127.0.0.1/", "https://example.com#@127.0.0.1/", "https://xn--bcher-kva.example/", "https://localhost/",
    ]  # fmt: skip
    taken = 0
    for text in texts(corpus):
        found = refused(lambda: addresses.read(text))  # noqa: B023  # called at once
        if not isinstance(found, addresses.Target):
            continue
        taken += 1
        parts, theirs, other = urlsplit(text), httpx.URL(text), yarl.URL(text)
        hosts = {
            (parts.hostname or "").lower(),
            theirs.raw_host.decode().lower(),
            (other.raw_host or "").lower(),
        }
        same = {str(ip_network(one).network_address) if ":" in one else one for one in hosts}
        assert same == {found.number or found.host}, text
        assert {parts.port or 443, theirs.port or 443, other.port} == {found.port} <= {443, 8443}, text
        assert {found.scheme, parts.scheme, theirs.scheme, other.scheme} == {"https"}, text
        assert [parts.username, parts.password, theirs.userinfo, other.user] == [None, None, b"", None], text
        if found.number is not None:
            assert ip_network(found.number).is_global, text
    assert taken > 100
