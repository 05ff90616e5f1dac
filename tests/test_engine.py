"""The hot path: what it may remember, and what it must not."""

from pathlib import Path

import pytest

from conftest import EVERY, again, bearer, make
from keywright import Keywright, Unavailable
from keywright.cache import GATES_AT_MOST, Cache
from keywright.engine import AtHand
from keywright.store.counter import ChangeCounter
from keywright.store.lookup import Lookup
from keywright.store.sqlite_lookup import SqliteLookup

pytestmark = pytest.mark.stores

SMALLER = EVERY.replace('limits = ["5/day"]', 'limits = ["1/day"]')


@pytest.mark.security("T-28")
@pytest.mark.requirement("X-10")
def test_a_plan_that_shrinks_during_a_look_up_is_not_remembered(
    kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key read after a plan's change, but put together with the plan from before it, does not enter the cache."""
    key, engine = make(kw, plan="small"), kw.installation.engine
    kw.verify({}, keyspace="every", environment="production")
    lookup = type(kw.installation.lookup)
    find, compiled = lookup.find, type(engine).compiled

    def find_after_the_change(self: Lookup, key_id: bytes) -> object:
        kw.keyspaces.apply(SMALLER)
        return find(self, key_id)

    def old_plan_then_the_change_is_seen(
        self: object, name: str, *, stale: bool = False, at_hand: AtHand | None = None
    ) -> object:
        old = compiled(engine, name, stale=stale)
        kw.installation.freshness.check(kw.installation.clock() + 1)
        return old

    with monkeypatch.context() as patched:
        patched.setattr(lookup, "find", find_after_the_change)
        patched.setattr(type(engine), "compiled", old_plan_then_the_change_is_seen)
        kw.verify(bearer(key), keyspace="every", environment="production", method="GET")
    verdict = kw.verify(bearer(key), keyspace="every", environment="production", method="GET")

    assert [limit.limit for limit in verdict.limits] == [1]


def test_a_writer_killed_in_its_commit_leaves_the_counter_unknown(tmp_path: Path) -> None:
    """An odd number is never taken for fresh, and the next writer makes it even again."""
    counter, other = ChangeCounter(tmp_path / "k.lock"), ChangeCounter(tmp_path / "k.lock")
    counter.begin()  # and killed here

    assert other.read() % 2 == 1

    other.begin()
    other.end()

    assert (counter.read() % 2, counter.read() > 1) == (0, True)


def test_the_counter_says_nothing_where_it_cannot_be_mapped(tmp_path: Path) -> None:
    """Without its file the number is odd: every verification asks the data version."""
    assert ChangeCounter(tmp_path / "missing" / "k.lock").read() == 1


def test_a_cached_verification_asks_the_store_nothing(kw: Keywright) -> None:
    """Once a key is known by heart, a verification runs no statement, and no malformed one ever does."""
    key = make(kw)
    for _ in range(2):
        kw.verify(bearer(key), keyspace="every", environment="production", method="GET")
    before = kw.installation.lookup.statements

    for _ in range(50):
        assert kw.verify(bearer(key), keyspace="every", environment="production", method="GET").valid
        assert not kw.verify(
            {"Authorization": "Bearer nonsense"}, keyspace="every", environment="production"
        ).valid

    assert kw.installation.lookup.statements == before


@pytest.mark.sqlite_only("on PostgreSQL nothing is served without the store")
@pytest.mark.security("R-14")
def test_a_lost_store_is_left_alone_for_a_moment(kw: Keywright, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody commits, a store that did not answer is not waited for at every request; a commit ends the pause."""
    key, asked = make(kw), []

    def silent(_lookup: Lookup) -> int:
        asked.append(1)
        raise Unavailable("locked")

    kw.verify(bearer(key), keyspace="every", environment="production", method="GET")
    kw.installation.clock.advance(seconds=1)
    monkeypatch.setattr(SqliteLookup, "moved", silent)
    for _ in range(20):
        assert kw.verify(bearer(key), keyspace="every", environment="production", method="GET").stale

    assert len(asked) == 1

    kw.keys.invalidate(key.key.id)
    kw.verify(bearer(key), keyspace="every", environment="production", method="GET")

    assert len(asked) == 2


@pytest.mark.requirement("X-22")
def test_the_library_fills_in_its_own_keyspace(template: Path, kw: Keywright) -> None:
    """A ``Keywright`` that was opened for a keyspace and environment makes keys there unless told otherwise."""
    with again(kw, keyspace="every", environment="production") as mine:
        issued = mine.keys.create(
            account="globex", name="CRM sync", access="restricted", scopes=["things:read"]
        )

        assert (issued.key.keyspace, issued.key.environment) == ("every", "production")
        assert mine.verify(bearer(issued), scopes=["things:read"], method="GET").valid


@pytest.mark.security("T-02")
def test_a_verdict_can_be_logged(kw: Keywright) -> None:
    """Nothing of what is stored of a secret, and nothing of the secret, is in a verdict as it shows itself."""
    key = make(kw)
    verdict = kw.verify(bearer(key), keyspace="every", environment="production", method="GET")
    assert verdict.key is not None
    token = key.credential.token.reveal()

    for shown in (repr(verdict), f"{verdict.key}"):
        assert key.key.id in shown
        assert not any(text in shown for text in (repr(verdict.key.macs)[2:-1], token[-38:], "macs"))


@pytest.mark.sqlite_only("no database has a part in it")
@pytest.mark.security("T-25")
def test_names_that_strangers_ask_for_keep_no_gate_from_being_remembered() -> None:
    """However many unknown gates were asked for, one that there is is remembered; of the others no more than so many."""
    cache = Cache(10)
    for n in range(GATES_AT_MOST + 5):
        cache.put_gate(f"nobody-{n}", None, 0)
    cache.put_gate("shop", "every", 0)
    assert cache.gate("shop") == (True, "every")
    assert sum(cache.gate(f"nobody-{n}")[0] for n in range(GATES_AT_MOST + 5)) == GATES_AT_MOST - 1
