"""The installation's secret, and the keys that derive from it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keywright.errors import SecretTrouble
from keywright.keyring import draw, hkdf, parse

ONE, TWO = "1a" * 32, "2b" * 32


@pytest.mark.parametrize(
    ("key", "salt", "info", "length", "output"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            82,
            (
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
                "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
            ),
        ),
        (
            "0b" * 22,
            "",
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_rfc_5869_vectors(key: str, salt: str, info: str, length: int, output: str) -> None:
    """The three SHA-256 test cases of RFC 5869's appendix hold."""
    raw = bytes.fromhex

    assert hkdf(raw(key), salt=raw(salt), info=raw(info), length=length).hex() == output


@given(st.integers(0, 8160), st.integers(0, 8160))
@settings(max_examples=30, deadline=None)
def test_a_shorter_output_begins_a_longer_one(one: int, two: int) -> None:
    """Asking for fewer bytes gives the beginning of what asking for more gives, and always as many as asked."""
    short, long = (hkdf(b"key", salt=b"", info=b"", length=length) for length in sorted((one, two)))

    assert (len(short), len(long)) == (min(one, two), max(one, two))
    assert long.startswith(short)


def test_a_drawn_secret_is_read() -> None:
    """A new secret is 64 hex digits, never the same twice, and is taken as entry number 1."""
    drawn = draw()

    assert len(bytes.fromhex(drawn)) == 32
    assert drawn != draw()
    assert parse(drawn).current == 1
    assert parse(f"\n {drawn}\n").peppers == parse(f"1:{drawn}").peppers


@pytest.mark.parametrize(
    "text", [f"1:{ONE} 2:{TWO}", f"2:{TWO}\n1:{ONE}\n", f"2:{TWO},1:{ONE}", f"{ONE}, 2:{TWO}"]
)
def test_the_highest_of_several_entries_is_current(text: str) -> None:
    """While a secret is being rotated the highest number makes new MACs, and the older ones still prove old keys."""
    ring = parse(text)

    assert ring.current == 2
    assert ring.peppers == {1: parse(ONE).peppers[1], 2: parse(f"2:{TWO}").peppers[2]}
    assert ring.cursor == parse(TWO).cursor


def test_every_derived_key_is_another() -> None:
    """Pepper, audit key, cursor key and canary of each entry are all different, and none is the secret itself."""
    ring = parse(f"1:{ONE} 2:{TWO}")
    derived = [*ring.peppers.values(), *ring.audit.values(), ring.cursor, *ring.canaries().values()]

    assert len({*derived, bytes.fromhex(ONE), bytes.fromhex(TWO)}) == 9
    assert {len(key) for key in derived} == {32}


def test_the_number_of_an_entry_is_no_part_of_its_keys() -> None:
    """The same 32 bytes under another number derive the same keys: renumbering loses nothing."""
    assert parse(f"7:{ONE}").peppers[7] == parse(ONE).peppers[1]
    assert parse(f"7:{ONE}").canaries()[7] == parse(ONE).canaries()[1]


def test_a_canary_tells_secrets_apart() -> None:
    """Two secrets have two canaries, so that a database can tell whose it is."""
    assert parse(ONE).canaries() == parse(ONE).canaries()
    assert parse(ONE).canaries()[1] != parse(TWO).canaries()[1]


@pytest.mark.security("A-03")
@pytest.mark.parametrize("known", ["0" * 64, "f" * 64, "0123456789abcdef" * 4, "deadbeef" * 8])
@pytest.mark.parametrize("entry", ["{}", "1:{}", "2:{}", f"1:{ONE} 2:{{}}"])
def test_a_known_example_is_refused(known: str, entry: str) -> None:
    """A secret that stands in documentation, or that nobody drew, is refused, also as one entry of several."""
    with pytest.raises(SecretTrouble, match="an example that everybody knows"):
        parse(entry.format(known))


@pytest.mark.parametrize(
    "text",
    ["", " \n", ",", "x", ONE[:-1], ONE + "a", ONE[:-2], ONE.upper(), "g" * 64, f"1:{ONE[:-1]}", f"one:{ONE}", f"-1:{ONE}",
     f"1:2:{ONE}", f":{ONE}", f"1 :{ONE}", f"1234567:{ONE}", f"1:{ONE} x", f"\u0661:{ONE}", "0x" + ONE[:-2], f'"{ONE}"',
     f"{ONE}\0", ONE[:32] + " " + ONE[32:]],
)  # fmt: skip
def test_a_malformed_secret_is_refused(text: str) -> None:
    """Whatever is not 64 hex digits, or such entries, is refused in one line that does not repeat it."""
    with pytest.raises(SecretTrouble, match="the installation's secret is") as refused:
        parse(text)

    assert "\n" not in str(refused.value)
    assert ONE[:32] not in str(refused.value)


@pytest.mark.parametrize("text", [f"{ONE} {TWO}", f"1:{ONE} 1:{TWO}", f"2:{ONE} 02:{TWO}", f"{ONE} 1:{ONE}"])
def test_two_entries_of_one_number_are_refused(text: str) -> None:
    """Two entries with the same number, however it is written, leave open which one is meant."""
    with pytest.raises(SecretTrouble, match="two entries numbered"):
        parse(text)


@pytest.mark.security("T-02")
def test_a_keyring_does_not_show_its_keys() -> None:
    """The ``repr`` of a keyring tells its versions and nothing else."""
    assert repr(parse(f"1:{ONE} 2:{TWO}")) == "Keyring(versions=[1, 2])"
