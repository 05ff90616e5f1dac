"""Hygiene: what is to be said against a key that works, at its bounds, and the list of those of which it holds."""

import msgspec
import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.errors import Invalid
from keywright.hygiene import EXPIRING, FINDINGS, OLD, UNUSED, findings
from keywright.model import Actor, Key, Keyspace, Limit, Plan
from keywright.testing import Clock
from people import begin

pytestmark = pytest.mark.stores
NOW = 1_700_000_000_000_000


def told(key: Key, **changes: object) -> set[str]:
    """What is found of a key, with some of it changed."""
    return set(findings(msgspec.structs.replace(key, **changes), NOW))


@pytest.mark.sqlite_only("no database has a part in it")
def test_each_finding_at_its_bound(kw: Keywright) -> None:
    """Each begins to hold at its instant, and not a microsecond before; the last use counts, or else the making."""
    key = make(kw, access="read_only").key
    fresh = msgspec.structs.replace(key.secrets[0], created_at=NOW)
    key = msgspec.structs.replace(key, created_at=NOW, expires_at=NOW + 10 * OLD, secrets=(fresh,))

    assert told(key) == set()
    assert told(key, created_at=NOW - UNUSED + 1) == set()
    assert told(key, created_at=NOW - UNUSED) == {"unused"}
    assert told(key, created_at=NOW - UNUSED, last_used_at=NOW - UNUSED + 1) == set()
    assert told(key, created_at=NOW - 2 * UNUSED, last_used_at=NOW - UNUSED) == {"unused"}
    assert told(key, expires_at=NOW + EXPIRING + 1) == set()
    assert told(key, expires_at=NOW + EXPIRING) == {"expiring"}
    assert told(key, expires_at=None) == {"no_expiry"}
    assert told(key, access="all") == {"all_access"}
    assert told(key, flags=("maker_lost_rights",)) == {"maker_lost_rights"}
    aged = msgspec.structs.replace(fresh, n=2, created_at=NOW - OLD)
    assert told(key, secrets=(aged,)) == {"old"}
    assert told(key, secrets=(msgspec.structs.replace(aged, created_at=NOW - OLD + 1),)) == set()
    assert told(key, secrets=(fresh, aged)) == set()


@pytest.mark.sqlite_only("no database has a part in it")
def test_no_limit_means_something_where_others_have_some(kw: Keywright) -> None:
    """A key without limits and plan is told of where its keyspace has limits, or a plan that has some, and nowhere else."""
    key = make(kw, access="read_only").key
    bare = Keyspace("x", "X", "x", "standard", ("bearer",), {"production": "live"})
    limits = (Limit("day", "quota", 5, "day"),)
    held = msgspec.structs.replace(bare, limits=limits)
    planned = msgspec.structs.replace(bare, plans={"a": Plan("A", limits)})
    empty = msgspec.structs.replace(bare, plans={"a": Plan("A")})

    for space, there in ((held, True), (planned, True), (bare, False), (empty, False), (None, False)):
        assert ("no_limit" in findings(key, key.created_at, space)) is there
    for changes in ({"limits": limits}, {"plan": "a"}):
        changed = msgspec.structs.replace(key, **changes)
        assert "no_limit" not in findings(changed, key.created_at, held)


@pytest.mark.sqlite_only("no database has a part in it")
@pytest.mark.parametrize("state", ["disabled", "expired", "invalidated", "deleted"])
def test_what_does_not_work_wants_nothing(kw: Keywright, state: str) -> None:
    """Nothing is said against a key that is refused anyway."""
    key = make(kw).key

    assert told(key, created_at=NOW - 2 * OLD, expires_at=None) >= {"unused", "all_access", "no_expiry"}
    assert told(key, created_at=NOW - 2 * OLD, expires_at=None, state=state) == set()


@pytest.mark.requirement("P-33")
def test_a_list_holds_what_is_found(kw: Keywright, clock: Clock) -> None:
    """For every finding the list has exactly the keys of which it holds, in each order, page by page, with what was used."""
    made = [make(kw, name="Old", access="read_only", expires_at=clock() + 3 * OLD)]
    rotated = make(kw, name="Rotated", access="read_only", expires_at=clock() + 3 * OLD)
    made += [rotated, make(kw, name="Gone")]
    kw.keys.disable(made[-1].key.id)
    clock.advance(days=400)
    kw.keys.rotate(rotated.key.id)
    used = make(kw, name="Used", access="read_only", expires_at=clock() + 3 * OLD)
    made += [used, make(kw, name="Idle"), make(kw, name="Ending", expires_at=clock() + UNUSED + EXPIRING)]
    clock.advance(microseconds=UNUSED)
    use(kw, used)
    kw.installation.meter.flush()
    made += [make(kw, name="Fresh", access="read_only", expires_at=clock() + OLD)]

    begun = begin(kw, "developer")
    hers = Actor("person", begun[1].person.id)
    made += [
        make(kw, name="Hers", actor=hers, limits=["5/day"]),
        make(kw, name="Hers still", actor=hers, access="read_only", plan="small"),
        make(kw, name="Loose", access="read_only", expires_at=clock() + OLD, limits=[]),
    ]
    kw.installation.people.change_role(
        begun[1].person.id, account="globex", role="developer", access="read_only"
    )

    now = {one.key.id: kw.keys.get(one.key.id) for one in made}
    space = kw.keyspaces.get("every").keyspace
    for finding in FINDINGS:
        wanted = {key.name for key in now.values() if finding in findings(key, clock(), space)}
        for sort in ("created_at", "-name"):
            assert names(kw, finding, sort) == wanted, finding
    assert names(kw, "unused", "name") == {"Old", "Rotated", "Idle", "Ending"}
    assert names(kw, "old", "name") == {"Old"}
    assert names(kw, "expiring", "name") == {"Ending"}
    assert names(kw, "maker_lost_rights", "name") == {"Hers"}
    assert names(kw, "no_limit", "name") == {"Old", "Rotated", "Used", "Idle", "Ending", "Fresh", "Loose"}


def use(kw: Keywright, issued: Issued) -> None:
    """Send a request with a key."""
    assert kw.verify(bearer(issued), authenticate_only=True, keyspace="every", environment="production").valid


def names(kw: Keywright, finding: str, sort: str) -> set[str]:
    """The names of the keys of which something is found, two at a time."""
    found, cursor = [], None
    while True:
        page = kw.keys.list(account="globex", hygiene=finding, sort=sort, limit=2, cursor=cursor)
        found += [key.name for key in page.items]
        cursor = page.next_cursor
        if cursor is None:
            assert len(found) == len(set(found))
            return set(found)


def test_more_than_a_page_is_looked_through(
    kw: Keywright, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind more keys than are read at once, all of them used, the one that nobody used is found."""
    monkeypatch.setattr("keywright.desk.listing._SIFTED", 50)
    make(kw, name="Idle")
    used = [make(kw, name=f"Used {n}") for n in range(205)]
    clock.advance(microseconds=UNUSED)
    for one in used:
        use(kw, one)
    kw.installation.meter.flush()

    assert names(kw, "unused", "-created_at") == {"Idle"}


def test_another_word_is_refused(kw: Keywright) -> None:
    """What is not a finding is refused by name."""
    with pytest.raises(Invalid, match="hygiene: is one of ending_unused"):
        kw.keys.list(hygiene="dirty")
