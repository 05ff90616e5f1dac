"""Cursors: good for the list and the caller that they came with, and for nothing else."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make
from keywright import Keywright
from keywright.desk import cursors
from keywright.desk.grants import Reach
from keywright.errors import Invalid
from keywright.store.keys import Filter

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
MINE = Filter(account="globex", sort="-created_at")
PLACE = [1_800_000_000_000_000, "every_live_k00000000000000A"]
CURSOR = cursors.write(PLACE, MINE, KEY)

places = st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=40)), max_size=4)


def refused(text: str, bound_to: object = MINE, key: bytes = KEY) -> bool:
    """Whether a cursor is refused, in the one way in which cursors are."""
    with pytest.raises(Invalid, match=r"^cursor: is not a cursor of this list$"):
        cursors.read(text, bound_to, key)
    return True


@given(places)
@settings(max_examples=200, deadline=None)
def test_a_cursor_reads_back(place: list[object]) -> None:
    """What was written comes back for the same list and key, and the text is safe in an address."""
    text = cursors.write(place, MINE, KEY)

    assert cursors.read(text, MINE, KEY) == place
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.security("T-51")
@pytest.mark.parametrize("at", range(len(CURSOR)))
def test_a_tampered_cursor_leads_nowhere_else(at: int) -> None:
    """No change of one character gives another place in the list: it is refused, or is the same place still."""
    for character in "A0_-z=. %\u00e9":
        changed = CURSOR[:at] + character + CURSOR[at + 1 :]
        try:
            found = cursors.read(changed, MINE, KEY)
        except Invalid:
            found = PLACE

        assert found == PLACE


@pytest.mark.security("T-51")
@pytest.mark.parametrize(
    "other",
    [
        {"account": "initech"},
        {"account": None},
        {"keyspace": "every"},
        {"not_keyspaces": ("keywright",)},
        {"environment": "production"},
        {"state": "active"},
        {"team": "a"},
        {"application": "a"},
        {"q": "x"},
        {"parent": "every_live_k00000000000000A"},
        {"sort": "name"},
    ],
)
def test_a_cursor_of_another_list_is_refused(other: dict[str, str | None]) -> None:
    """A cursor taken to another account, keyspace, filter or order is refused."""
    assert refused(CURSOR, msgspec.structs.replace(MINE, **other))
    assert cursors.read(CURSOR, MINE, KEY) == PLACE


@pytest.mark.security("T-51")
def test_a_cursor_under_another_key_is_refused() -> None:
    """A cursor that another installation, or nobody, has signed is refused."""
    assert refused(CURSOR, key=OTHER_KEY)
    assert refused(cursors.write(PLACE, MINE, OTHER_KEY))
    assert refused(cursors.write(PLACE, MINE, b""))


@pytest.mark.security("T-51")
@pytest.mark.parametrize(
    "text",
    ["", "A", "AAAA", "=", "=" * 24, CURSOR[:-2], CURSOR[4:], CURSOR + "AAAA", CURSOR * 2, CURSOR.swapcase(), "' OR 1=1 --",
     "\u212a" * 24, "\udcff", "\0", "A" * 100_000, "null", "[]"],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """Fragments, other people's syntax, other alphabets and megabytes are refused, and never an error of ours."""
    assert refused(text)


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_nobody_guesses_a_cursor(text: str) -> None:
    """Arbitrary text is no cursor."""
    assert refused(text)


def test_a_bound_and_a_body_cannot_change_places() -> None:
    """The same characters, divided otherwise between filter and place, have another signature."""
    assert cursors.write(["a"], "b", KEY)[:16] != cursors.write([], "ba", KEY)[:16]
    assert refused(cursors.write([], ["x"], KEY), "x")


@pytest.mark.security("T-17", "T-51")
def test_a_cursor_does_not_cross_accounts(kw: Keywright) -> None:
    """The cursor of one account's list is refused by the other account's, and by the same list filtered otherwise."""
    for account in ("globex", "initech"):
        for _ in range(2):
            make(kw, account=account)
    page = kw.keys.list(limit=1, reach=Reach(account="globex"))
    following = kw.keys.list(limit=1, cursor=page.next_cursor, reach=Reach(account="globex"))

    assert [key.account for key in (*page.items, *following.items)] == ["globex", "globex"]
    assert following.next_cursor is None
    for narrow in (
        {"reach": Reach(account="initech")},
        {},
        {"reach": Reach(account="globex"), "state": "active"},
    ):
        with pytest.raises(Invalid, match="not a cursor of this list"):
            kw.keys.list(limit=1, cursor=page.next_cursor, **narrow)  # type: ignore[arg-type]
