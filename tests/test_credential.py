"""What a key looks like: making, spelling, parsing and proving it."""

import ast
import os
import random
import re
import string
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import keywright
from conftest import bearer, make
from keywright import Keywright, credential
from keywright.credential import (
    Spelled,
    checksum,
    expected_check,
    mac,
    new_dotted_id,
    new_id,
    new_secret,
    parse_pair,
    parse_token,
    random_base62,
    spell_pair_secret,
    spell_token,
)

ID, SECRET = "acme_live_k00000000000000A", "A" * 32
# The vectors are right to the last character, so none stands in one piece: no scanner is to find a key in here.
TOKEN = f"{ID}_{SECRET}2WTkVW".encode()
VARIED = f"acme_test_k{'z' * 15}_0123456789ABCDEFGHIJKLMNOPQRSTUV3zzYed".encode()
PAIR_SECRET = f"acmesec_{SECRET}0DUbpJ".encode()
DOTTED = b"n58lzybi." + b"0aZ9" * 8
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
MUTATIONS = 1_000_000 if os.environ.get("KEYWRIGHT_PROOF") else 60_000

base62 = st.text(BASE62, min_size=32, max_size=32)
ids = st.from_regex(r"[a-z][a-z0-9]{1,11}_[a-z]{2,8}_[km][0-9A-Za-z]{15}", fullmatch=True)


def chi_square(text: str) -> float:
    """Pearson's statistic of a text against the even distribution over base62, by hand; 61 degrees of freedom."""
    expected, counted = len(text) / 62, Counter(text)
    return sum((counted[character] - expected) ** 2 / expected for character in BASE62)


def well_formed(value: bytes) -> tuple[str, bytes, bytes, bytes] | None:
    """Say by hand, without a regular expression, what ``parse_token`` should make of a value."""
    lower, digits, letters = set(b"abcdefghijklmnopqrstuvwxyz"), set(b"0123456789"), set(BASE62.encode())
    if len(value) == 41 and value[8:9] == b".":
        key_id, secret = value[:8], value[9:]
        return ("dotted", key_id, secret, b"") if set(key_id) | set(secret) <= letters else None
    parts = value.split(b"_")
    if len(parts) != 4:
        return None
    prefix, code, short, tail = parts
    fits = (
        2 <= len(prefix) <= 12
        and prefix[0] in lower
        and set(prefix) <= lower | digits
        and 2 <= len(code) <= 8
        and set(code) <= lower
        and len(short) == 16
        and short[0] in b"km"
        and set(short) <= letters
        and len(tail) == 38
        and set(tail) <= letters
        and tail[32] in b"01234"
    )
    return ("token", b"_".join(parts[:3]), tail[:32], tail[32:]) if fits else None


def mutated(value: bytes, draw: random.Random) -> bytes:
    """Change a credential once, in one of the ways in which they go wrong, or are made to."""
    at = draw.randrange(len(value) + 1)
    odd = draw.choice([*b"_-. \n\r\t\0:km05zAZ9", 0x80, 0xC3, 0xFF])
    return draw.choice(
        [
            value[:at] + bytes([odd]) + value[at + 1 :],
            value[:at] + bytes([odd]) + value[at:],
            value[:at] + value[at + 1 :],
            value[:at] + value[at : at + 1].swapcase() + value[at + 1 :],
            value[:at],
            value + bytes([odd]),
            value[at:] + value[:at],
            value.replace(b"_", bytes([odd]), 1),
            value.replace(b"live", draw.choice([b"test", b"l", b"production", b"LIVE", b"li_ve", b"xx"])),
            value.replace(
                b"acme", draw.choice([b"a", b"acmeacmeacme", b"acmeacmeacmea", b"4cme", b"acmesec"])
            ),
            value.replace(b"_k", draw.choice([b"_m", b"_K", b"_x", b"_", b"__k"])),
        ]
    )


# ---------------------------------------------------------------------------------------------------------- making


@pytest.mark.security("K-01")
def test_base62_is_even() -> None:
    """A million drawn characters are spread evenly over base62; the bias of a bare modulo would stand out by far."""
    drawn = random_base62(1_000_000)
    biased = "".join(BASE62[byte % 62] for byte in os.urandom(100_000))

    assert set(drawn) == set(BASE62)
    assert chi_square(drawn) < 150  # p = 0.001 is at 100.9, and 150 at about 1e-9: it never flakes
    assert chi_square(biased) > 150


@pytest.mark.security("K-01")
def test_nothing_imports_the_random_module() -> None:
    """No file of the package imports ``random``, whose numbers can be foretold."""
    imported = set()
    for file in Path(keywright.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}

    assert "secrets" in imported
    assert {name for name in imported if "random" in name.split(".")} == set()


@pytest.mark.parametrize("count", [0, 1, 15, 32, 33, 1000])
def test_as_many_characters_as_asked(count: int) -> None:
    """``random_base62`` gives exactly the number of characters that was asked for."""
    assert len(random_base62(count)) == count


def test_every_made_key_parses() -> None:
    """Twenty thousand made keys all parse back to their parts, in both spellings, whatever they begin or end with."""
    for _ in range(20_000):
        key_id, secret = new_id("acme", "live"), new_secret()
        token, half = spell_token(key_id, secret).encode(), spell_pair_secret(key_id, secret).encode()
        found, pair = parse_token(token), parse_pair(key_id.encode(), half)

        assert found is not None
        assert (found.id, found.secret, found.check) == (key_id.encode(), secret.encode(), token[-6:])
        assert expected_check(found) == found.check
        assert pair is not None
        assert (pair.secret, pair.check, expected_check(pair)) == (secret.encode(), half[-6:], half[-6:])


@pytest.mark.requirement("A-17")
def test_every_made_dotted_key_has_atfinitys_shape() -> None:
    """A dotted key is 8 characters, a dot and 32 characters, and is split at the dot."""
    for _ in range(2_000):
        key_id, secret = new_dotted_id(), new_secret()
        token = spell_token(key_id, secret)
        found = parse_token(token.encode())

        assert re.fullmatch(r"[A-Za-z0-9]{8}\.[A-Za-z0-9]{32}", token)
        assert found is not None
        assert (found.spelling, found.id, found.secret) == ("dotted", key_id.encode(), secret.encode())


@given(ids, base62)
@settings(max_examples=200, deadline=None)
def test_spelling_and_parsing_are_inverse(key_id: str, secret: str) -> None:
    """Whatever prefix, environment and type: what is spelled parses back to the same id and secret."""
    token = parse_token(spell_token(key_id, secret).encode())
    pair = parse_pair(key_id.encode(), spell_pair_secret(key_id, secret).encode())

    assert token is not None
    assert pair is not None
    assert {(s.id.decode(), s.secret.decode()) for s in (token, pair)} == {(key_id, secret)}
    assert [expected_check(s) == s.check for s in (token, pair)] == [True, True]


# -------------------------------------------------------------------------------------------------------- checksums


@pytest.mark.parametrize(
    ("body", "crc", "sum_"),
    [
        (f"{ID}_{SECRET}", 0x89D15A32, "2WTkVW"),
        ("acme_test_kzzzzzzzzzzzzzzz_0123456789ABCDEFGHIJKLMNOPQRSTUV", 0xDA6AB4E7, "3zzYed"),
        (f"acme_live_mAbCdEfGhIjKlMnO_{'z' * 32}", 0xB6AFD668, "3LQKWu"),
    ],
)
def test_vectors(body: str, crc: int, sum_: str) -> None:
    """The published test vectors hold: CRC-32, its base62, and the whole token."""
    assert zlib.crc32(body.encode()) == crc
    assert checksum(body.encode()).decode() == sum_
    assert spell_token(*body.rsplit("_", 1)) == body + sum_


def test_the_pairs_vector() -> None:
    """The secret of a pair has a checksum of its own, over its own prefix."""
    assert spell_pair_secret(ID, SECRET).encode() == PAIR_SECRET


@given(st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_checksum_is_crc32_in_base62(text: bytes) -> None:
    """A checksum is six characters and reads back as the CRC-32 of the text."""
    value = 0
    for digit in checksum(text).decode():
        value = value * 62 + BASE62.index(digit)

    assert len(checksum(text)) == 6
    assert value == zlib.crc32(text)


def test_the_largest_checksum_fits() -> None:
    """Six digits beginning with 0 to 4 hold every CRC-32; ``4gfFC4`` and above are no checksum of anything."""
    digits, value = "", 0xFFFFFFFF
    while value:
        value, digit = divmod(value, 62)
        digits = BASE62[digit] + digits
    over = parse_token(TOKEN[:-6] + b"4zzzzz")

    assert digits == "4gfFC3"
    assert over is not None
    assert expected_check(over) != over.check


def mistyped(value: bytes) -> set[bytes]:
    """Every value that differs from one in a single character, or in two neighbours that changed places."""
    wrong = {value[:at] + bytes([c]) + value[at + 1 :] for at in range(len(value)) for c in BASE62.encode()}
    swapped = {value[:at] + value[at + 1 : at - 1 : -1] + value[at + 2 :] for at in range(1, len(value) - 1)}
    return (wrong | swapped) - {value}


def test_a_typo_anywhere_in_a_token_is_caught() -> None:
    """A wrong character, or two swapped, wherever in a token: it is malformed or fails the checksum."""
    found = [parse_token(wrong) for wrong in mistyped(VARIED)]
    passed = [
        spelled for spelled in found if spelled is not None and expected_check(spelled) == spelled.check
    ]

    assert len(found) > 4000
    assert passed == []


def test_a_typo_anywhere_in_a_pairs_secret_is_caught() -> None:
    """A wrong character, or two swapped, in a pair's secret: malformed, another product's, or a wrong checksum."""
    found = [parse_pair(ID.encode(), wrong) for wrong in mistyped(PAIR_SECRET)]
    passed = [
        spelled for spelled in found if spelled is not None and expected_check(spelled) == spelled.check
    ]

    assert len(found) > 2500
    assert passed == []


@pytest.mark.security("T-34")
@pytest.mark.parametrize("code", ["dev", "stg", "test", "prod"])
def test_a_hand_edited_environment_fails(code: str) -> None:
    """The environment is under the checksum and under the MAC: turning ``live`` into another by hand proves nothing."""
    found = parse_token(TOKEN.replace(b"live", code.encode()))

    assert found is not None
    assert expected_check(found) != found.check
    assert mac(b"pepper", found.id, found.secret) != mac(b"pepper", ID.encode(), SECRET.encode())


# ---------------------------------------------------------------------------------------------------------- parsing


@pytest.mark.security("K-02")
def test_the_parser_agrees_with_a_second_one() -> None:
    """Over many broken and a few whole tokens, exactly what a hand-written parser accepts is accepted, with its parts."""
    draw, accepted = random.Random(20270115), 0
    for _ in range(MUTATIONS):
        value = draw.choice([TOKEN, TOKEN, DOTTED])
        for _ in range(draw.choice([1, 1, 2, 3])):
            value = mutated(value, draw)
        found, expected = parse_token(value), well_formed(value)
        accepted += found is not None

        assert (found and (found.spelling, found.id, found.secret, found.check)) == expected
    assert accepted > MUTATIONS // 100


@pytest.mark.security("K-02")
@given(st.one_of(st.binary(max_size=120), st.text(BASE62 + "_.", max_size=80).map(str.encode)))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_are_parsed_alike(value: bytes) -> None:
    """Arbitrary bytes are taken by the parser exactly where the hand-written one takes them."""
    assert (parse_token(value) is not None) == (well_formed(value) is not None)


@pytest.mark.security("T-12")
@pytest.mark.parametrize("value", [TOKEN, DOTTED, PAIR_SECRET, ID.encode()])
@pytest.mark.parametrize("extra", [b"\n", b"\r", b"\r\nX: y", b"\0", b"\0x", b"\t", b" ", b"\x0b", b"\x85"])
def test_nothing_hides_before_after_or_inside(value: bytes, extra: bytes) -> None:
    """A newline, a NUL or a space before, after or inside any spelling is refused, and never stripped away."""
    spellings = [
        value + extra,
        extra + value,
        value[:20] + extra + value[20:],
        value[:20] + extra + value[21:],
    ]

    assert [parse_token(spelled) for spelled in spellings] == [None] * 4
    assert [parse_pair(spelled, PAIR_SECRET) for spelled in spellings] == [None] * 4
    assert [parse_pair(ID.encode(), spelled) for spelled in spellings] == [None] * 4


@pytest.mark.security("T-11")
@pytest.mark.parametrize(
    ("plain", "alike"),
    [
        ("a", "а"),  # Cyrillic
        ("a", "ａ"),  # full-width
        ("e", "é"),
        ("e", "e\u0301"),
        ("0", "０"),
        ("0", "٠"),  # Arabic-Indic
        ("k", "\u212a"),  # the Kelvin sign, which lower-cases to k
        ("i", "ı"),
        ("_", "＿"),
        (".", "．"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16", "utf-8-sig"])
def test_look_alikes_are_refused(plain: str, alike: str, encoding: str) -> None:
    """No character that only looks like one of ours is taken for it, in any encoding; nothing is normalised."""
    for value in (TOKEN.decode(), DOTTED.decode(), ID):
        disguised = value.replace(plain, alike)
        if disguised != value:
            assert parse_token(disguised.encode(encoding)) is None
            assert parse_pair(disguised.encode(encoding), PAIR_SECRET) is None


@pytest.mark.security("T-11")
@pytest.mark.parametrize("overlong", [b"\xc1\xa1", b"\xe0\x81\xa1", b"\xed\xa0\x80", b"\xff"])
def test_overlong_encodings_are_refused(overlong: bytes) -> None:
    """An overlong or broken UTF-8 sequence for a letter is not that letter."""
    assert parse_token(TOKEN.replace(b"a", overlong, 1)) is None
    assert parse_pair(ID.encode().replace(b"a", overlong, 1), PAIR_SECRET) is None


def test_the_two_spellings_do_not_stand_in_for_each_other() -> None:
    """A token is no secret of a pair, a pair's secret is no token, and their checksums are not interchangeable."""
    as_token = parse_token(TOKEN[:-6] + PAIR_SECRET[-6:])
    as_pair = parse_pair(ID.encode(), PAIR_SECRET[:-6] + TOKEN[-6:])

    assert parse_token(PAIR_SECRET) is None
    assert parse_pair(ID.encode(), TOKEN) is None
    assert parse_pair(ID.encode(), SECRET.encode()) is None
    assert as_token is not None
    assert as_pair is not None
    assert [expected_check(s) == s.check for s in (as_token, as_pair)] == [False, False]


@pytest.mark.parametrize("prefix", [b"globex", b"acm", b"acmes", b"Acme", b""])
def test_the_halves_of_a_pair_must_agree(prefix: bytes) -> None:
    """A secret with another product's prefix is not taken beside an id, even if it is well formed."""
    assert parse_pair(ID.encode(), PAIR_SECRET) is not None
    assert parse_pair(ID.encode(), PAIR_SECRET.replace(b"acme", prefix)) is None


# ---------------------------------------------------------------------------------------------------------- proving


@pytest.mark.security("K-09")
def test_ids_that_differ_in_case_are_two_keys(kw: Keywright, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two keys whose ids differ only in case live side by side, and each opens with its own secret alone."""
    ids = iter(["every_live_kaaaaaaaaaaaaaaa", "every_live_kAAAAAAAAAAAAAAA"])
    monkeypatch.setattr(credential, "new_id", lambda *_: next(ids))
    lower, upper = make(kw), make(kw)
    crossed = spell_token(lower.key.id, upper.credential.token.reveal()[-38:-6])
    verdicts = [
        kw.verify(headers, keyspace="every", environment="production", method="GET")
        for headers in (bearer(lower), bearer(upper), {"Authorization": f"Bearer {crossed}"})
    ]

    assert [verdict.key and verdict.key.id for verdict in verdicts] == [lower.key.id, upper.key.id, None]


@pytest.mark.security("T-15")
def test_the_mac_covers_pepper_id_and_secret() -> None:
    """Another pepper, another id or another secret gives another MAC, and a MAC is no plain hash of its input."""
    macs = {
        mac(pepper, key_id, secret)
        for pepper in (b"1" * 32, b"2" * 32)
        for key_id in (b"acme_live_ka", b"acme_live_kA", b"bcme_live_ka")
        for secret in (b"s" * 32, b"S" * 32)
    }

    assert len(macs) == 12
    assert {len(made) for made in macs} == {32}


def test_the_mac_is_what_the_design_says() -> None:
    """The MAC is HMAC-SHA-256 over ``v1``, NUL, id, NUL, secret: written down here so that it never changes by accident."""
    made = mac(bytes(32), ID.encode(), SECRET.encode())

    assert made.hex() == "afcd952e329adb38abf68e4e7424196756671adb1a844d6a8f1ff0c961f5f089"


def test_the_mac_cannot_be_split_in_another_place() -> None:
    """Moving a character from the id to the secret gives another MAC: the NUL between them is part of the input."""
    assert mac(b"p", b"ab", b"c") != mac(b"p", b"a", b"bc")


@pytest.mark.security("T-21")
def test_a_proof_stands_for_one_secret_in_one_spelling() -> None:
    """Two credentials have the same proof only where MAC, check characters and spelling are the same."""
    token, pair, dotted = (Spelled(spelling, b"id", b"s", b"") for spelling in ("token", "pair", "dotted"))
    checks = [replace(one, check=check) for one in (token, pair) for check in (b"0NoKey", b"0NoKez")]
    presented = [(one, made) for one in (*checks, dotted) for made in (b"m" * 32, b"n" * 32)]
    proofs = [credential.proof(one, made) for one, made in presented]

    assert len(set(proofs)) == len(presented)
    assert credential.proof(checks[0], b"m" * 32) == b"m" * 32 + b"0NoKey"
    assert credential.proof(checks[2], b"m" * 32) == b"0NoKey" + b"m" * 32


# ------------------------------------------------------------------------------------------------------- not showing


@pytest.mark.security("T-02")
def test_a_secret_does_not_show_itself() -> None:
    """Neither ``repr``, ``str`` nor formatting shows a secret's text; only ``reveal`` does."""
    secret = credential.Secret("acmesec_confidential")
    shown = [repr(secret), str(secret), f"{secret}", f"{[secret]}", "%s" % secret, "{!r:>40}".format(secret)]  # noqa: UP031, UP032

    assert [text for text in shown if "confidential" in text] == []
    assert secret.reveal() == "acmesec_confidential"
    assert not hasattr(secret, "__dict__")


@pytest.mark.security("T-02")
def test_a_spelled_credential_does_not_show_its_secret() -> None:
    """A credential that was taken apart shows its id, which is public, and never its secret."""
    found = parse_token(TOKEN)

    assert ID in repr(found)
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("text", "finds"),
    [
        (TOKEN.decode(), True),
        (f"curl -H 'Authorization: Bearer {TOKEN.decode()}'", True),
        (f'secret="{PAIR_SECRET.decode()}"', True),
        ("x" + TOKEN.decode(), True),  # a longer prefix is one too
        (TOKEN.decode() + "x", False),
        (ID, False),
        (TOKEN.decode()[:-1], False),
    ],
)
def test_credentials_are_found_inside_text(text: str, finds: bool) -> None:
    """A standard credential is found in a longer text, and neither a bare id nor a fragment is."""
    assert (credential.INSIDE.search(text.encode()) is not None) == finds


@given(st.binary(min_size=0, max_size=64), st.binary(max_size=80), st.binary(max_size=80))
@settings(deadline=None, max_examples=200)
def test_a_prepared_pepper_makes_the_same_macs(pepper: bytes, key_id: bytes, secret: bytes) -> None:
    """The HMAC whose key blocks are hashed beforehand is the standard library's HMAC-SHA-256, to the byte."""
    assert credential.Pepper(pepper).mac(key_id, secret) == credential.mac(pepper, key_id, secret)
