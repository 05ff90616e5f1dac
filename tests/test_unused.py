"""Keys that nobody uses end by themselves, where their keyspace says so: told of before, exactly, and never one that is used."""

import fcntl
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import EVERY, bearer, make
from keywright import Issued, Keywright, ProfileError, profiles
from keywright.desk.unused import EVERY as LOOK
from keywright.desk.unused import WATCHED, Unused
from keywright.errors import Unavailable
from keywright.hygiene import NOTICE, ends_unused_at
from keywright.installation import Installation
from keywright.model import ExpiryPolicy, Key, Propagation
from keywright.slots import Slots
from keywright.store import usage, webhooks
from keywright.testing import Clock
from keywright.times import rfc3339

pytestmark = pytest.mark.stores

DAY = 86_400 * 1_000_000
HALF_A_YEAR = 180 * DAY
ENDS = {"disable": "disabled", "invalidate": "invalidated"}


def policy(kw: Keywright, expiry: str = 'unused = "180d"') -> None:
    """Give ``every`` a policy."""
    kw.keyspaces.apply(f"{EVERY}\n[expiry]\n{expiry}\n")


def use(kw: Keywright, issued: Issued) -> str:
    """What a request with a key is told."""
    return kw.verify(bearer(issued), authenticate_only=True, keyspace="every", environment="production").code


def sweep(kw: Keywright, clock: Clock, *, rounds: int = 1) -> int:
    """What one lookout does in an hour and a few minutes: looks, watches, ends; how many ended."""
    ended = 0
    for _ in range(rounds):
        clock.advance(microseconds=LOOK)
        ended += kw.installation.unused.round()
        clock.advance(microseconds=WATCHED)
        ended += kw.installation.unused.round()
    return ended


def told(kw: Keywright, issued: Issued) -> list[dict[str, Any]]:
    """What the trail tells of a key after it was made, oldest first."""
    return list(kw.installation.trail.list(target=issued.key.id).items)[-2::-1]


def over(kw: Keywright, clock: Clock) -> None:
    """Let the time of every key that there is be over, told of in time."""
    clock.advance(microseconds=HALF_A_YEAR - NOTICE)
    assert sweep(kw, clock) == 0
    clock.advance(microseconds=NOTICE)


# ---------------------------------------------------------------------------------------------------------- the policy


@pytest.mark.sqlite_only("no database has a part in it")
@pytest.mark.parametrize(
    ("expiry", "wrong"),
    [
        ('unused = "29d"', "expiry.unused: is less than 30d"),
        ('unused = "soon"', "expiry.unused: is not a span"),
        ("unused = 180", r"expiry.unused: Expected `str`"),
        ('unused_act = "disable"', "expiry.unused_act: means nothing without expiry.unused"),
        ('unused = "90d"\nunused_act = "delete"', "expiry.unused_act: Invalid enum value 'delete'"),
        (
            'default = "30d"\nlongest = "90d"\nunused = "90d"',
            "expiry.unused: is not less than expiry.longest, 90d",
        ),
    ],
)
def test_a_policy_that_cannot_be_is_refused(expiry: str, wrong: str) -> None:
    """The key's path and the reason are said."""
    with pytest.raises(ProfileError, match=wrong):
        profiles.load(f"{EVERY}\n[expiry]\n{expiry}\n")


@pytest.mark.sqlite_only("no database has a part in it")
def test_the_end_at_its_bounds(kw: Keywright) -> None:
    """Last use or change, whichever is later, and the span; never sooner than was told, nor two weeks from now untold."""
    key, ends = make(kw).key, ExpiryPolicy(unused=180 * 86_400)
    now = key.created_at + HALF_A_YEAR - NOTICE

    def end(at: int = now, said: int | None = None, **changes: Any) -> int | None:
        changed: Key = msgspec.structs.replace(key, **changes)
        return ends_unused_at(changed, ends, said, at)

    assert end() == end(now - 1) == key.created_at + HALF_A_YEAR
    assert end(now + 1) == now + 1 + NOTICE
    assert end(now + NOTICE, said=now + NOTICE) == now + NOTICE
    assert end(last_used_at=now) == end(touched_at=now) == now + HALF_A_YEAR
    assert end(said=key.created_at + 1) == key.created_at + HALF_A_YEAR
    assert end(expires_at=key.created_at + HALF_A_YEAR) is None
    assert end(expires_at=key.created_at + HALF_A_YEAR + 1) is not None
    assert [end(state=state) for state in ("disabled", "expired", "invalidated", "deleted")] == [None] * 4
    assert ends_unused_at(key, ExpiryPolicy(), None, now) is None


# ------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.screen("U-67")
@pytest.mark.parametrize("act", ENDS)
def test_a_key_that_nobody_uses_ends(kw: Keywright, key: Issued, clock: Clock, act: str) -> None:
    """It is disabled or invalidated by the system, which says why in the trail, in the key and to webhooks; once."""
    policy(kw, f'unused = "180d"\nunused_act = "{act}"')
    kw.installation.webhooks.create(url="https://hooks.example.com/in")
    over(kw, clock)
    assert kw.keys.get(key.key.id).state == "active"

    assert sweep(kw, clock) == 1

    found = kw.keys.get(key.key.id)
    assert (found.state, found.state_reason, found.ends_unused_at) == (ENDS[act], "unused", None)
    assert use(kw, key) == ENDS[act]
    entry = told(kw, key)[-1]
    assert (entry["action"], entry["actor_kind"], entry["actor_id"]) == (f"key.{act}", "system", "unused")
    assert entry["detail"]["reason"] == "unused"
    assert [one["type"] for one in sent(kw)] == [f"key.{ENDS[act]}"]
    assert sent(kw)[0]["data"]["key"]["state_reason"] == "unused"
    assert sent(kw)[0]["data"]["unused"] == {"since": rfc3339(key.key.created_at)}
    assert sweep(kw, clock, rounds=3) == 0


@pytest.mark.screen("U-67")
def test_it_is_told_of_two_weeks_before(kw: Keywright, key: Issued, clock: Clock) -> None:
    """From then on hygiene has it, webhooks were told once, and the key says when it ends; before, nothing of it."""
    policy(kw)
    endpoint = kw.installation.webhooks.create(url="https://hooks.example.com/in").endpoint
    end = key.key.created_at + HALF_A_YEAR
    clock.advance(microseconds=HALF_A_YEAR - NOTICE - 5 * LOOK)
    sweep(kw, clock)
    assert news(kw, endpoint.id) == []
    assert kw.keys.list(hygiene="ending_unused").items == ()
    assert kw.keys.get(key.key.id).ends_unused_at == end

    clock.advance(microseconds=2 * LOOK)
    sweep(kw, clock, rounds=3)

    assert [one["data"]["unused"] for one in news(kw, endpoint.id)] == [
        {"since": rfc3339(key.key.created_at), "ends_at": rfc3339(end)}
    ]
    assert [one.id for one in kw.keys.list(hygiene="ending_unused").items] == [key.key.id]
    assert kw.keys.get(key.key.id).ends_unused_at == end


def test_nothing_ends_that_was_not_told_of(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Where a policy comes late, or nobody ran for long, a key goes on for two weeks after it was told of."""
    clock.advance(days=3 * 365)
    policy(kw)
    assert kw.keys.get(key.key.id).ends_unused_at == clock() + NOTICE
    assert sweep(kw, clock) == 0
    end = kw.keys.get(key.key.id).ends_unused_at

    clock.advance(microseconds=NOTICE - 4 * LOOK)
    assert sweep(kw, clock) == 0
    assert kw.keys.get(key.key.id).ends_unused_at == end
    assert use(kw, make(kw)) == "ok"
    clock.advance(microseconds=4 * LOOK)
    assert sweep(kw, clock) == 1
    assert kw.keys.get(key.key.id).state == "disabled"


def test_whatever_shows_that_somebody_cares_puts_it_off(kw: Keywright, clock: Clock) -> None:
    """A use, an edit, a rotation, being enabled, coming back after a pause: from each the span is counted anew."""
    policy(kw)
    used, edited, rotated, enabled, paused = (make(kw, name=f"Key {n}") for n in range(5))
    kw.keys.disable(enabled.key.id)
    kw.keys.disable(paused.key.id, for_seconds=100 * 86_400)
    clock.advance(days=100)
    assert use(kw, used) == "ok"
    kw.installation.meter.settle()
    kw.keys.edit(edited.key.id, description="Still needed.")
    kw.keys.rotate(rotated.key.id)
    kw.keys.enable(enabled.key.id)
    made = (used, edited, rotated, enabled, paused)
    ends = [kw.keys.get(one.key.id).ends_unused_at for one in made]
    assert set(ends) == {clock() + HALF_A_YEAR}

    over(kw, clock)
    assert sweep(kw, clock) == 5


def test_without_a_policy_nothing_ends(kw: Keywright, key: Issued, clock: Clock) -> None:
    """However long nobody uses it; and where the policy is taken back, neither does what was about to end."""
    clock.advance(days=3 * 365)
    assert sweep(kw, clock, rounds=2) == 0
    policy(kw)
    over(kw, clock)
    clock.advance(microseconds=LOOK)
    kw.installation.unused.round()
    kw.keyspaces.apply(EVERY)
    assert sweep(kw, clock, rounds=2) == 0
    assert kw.keys.get(key.key.id).state == "active"


def test_a_key_that_was_enabled_again_ends_again(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Enabled, it works, and its use is no change of it any more; half a year later it ends as before."""
    policy(kw)
    over(kw, clock)
    assert sweep(kw, clock) == 1
    kw.keys.enable(key.key.id)
    before = len(told(kw, key))
    assert use(kw, key) == "ok"
    assert len(told(kw, key)) == before
    kw.installation.meter.settle()
    over(kw, clock)
    assert sweep(kw, clock) == 1


# ------------------------------------------------------------------------------------------------- never one that is used


def watched(kw: Keywright, clock: Clock) -> None:
    """Let the time of all keys be over, up to where they are watched."""
    policy(kw)
    over(kw, clock)
    clock.advance(microseconds=LOOK)
    assert kw.installation.unused.round() == 0


def test_who_is_used_while_watched_goes_on(kw: Keywright, key: Issued, clock: Clock) -> None:
    """A use right before the end keeps the key, though no count of it has reached the store and none ever will."""
    watched(kw, clock)
    clock.advance(microseconds=WATCHED)
    kw.installation.meter._tally = lambda *_: pytest.fail("nothing is counted")  # type: ignore[method-assign]
    with pytest.raises(pytest.fail.Exception):
        use(kw, key)

    assert kw.installation.unused.round() == 0
    assert kw.keys.get(key.key.id).state == "active"
    assert told(kw, key)[-1]["action"] == "key.first_use"


def test_whose_use_another_worker_has_not_told_yet_goes_on(
    kw: Keywright, key: Issued, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in a slot file is known, whoever's it is and whatever keeps it from the store."""
    policy(kw)
    over(kw, clock)
    with monkeypatch.context() as patched:
        patched.setattr(kw.installation.meter, "settle", lambda: None)
        patched.setattr(kw.installation.meter, "flush", lambda: False)
        assert use(kw, key) == "ok"
        assert kw.installation.slots.counting() == {key.key.id}
        assert sweep(kw, clock, rounds=2) == 0
    kw.installation.meter.settle()
    assert kw.installation.slots.counting() == set()
    assert sweep(kw, clock, rounds=2) == 0
    assert kw.keys.get(key.key.id).state == "active"


@pytest.mark.parametrize("how", ["usage", "slots", "workers"])
def test_nothing_ends_where_use_cannot_be_known(
    kw: Keywright, key: Issued, clock: Clock, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Without the store of counts, with a slot file that cannot be read, or a worker cut off: later, once it can."""
    watched(kw, clock)
    clock.advance(microseconds=WATCHED)
    with monkeypatch.context() as patched:
        if how == "workers":
            patched.setattr("keywright.propagation.follow", cut_off)
            assert kw.installation.unused.round() == 0
        else:
            broken = (usage, "last") if how == "usage" else (Slots, "counting")
            patched.setattr(*broken, unreadable)
            with pytest.raises(Unavailable):
                kw.installation.unused.round()
        assert kw.keys.get(key.key.id).state == "active"

    assert kw.installation.unused.round() == 0
    clock.advance(minutes=1)
    ended = kw.installation.unused.round()
    assert ended + sweep(kw, clock, rounds=2) == 1
    assert ended == (
        how != "usage"
    )  # what could not be read of one is no reason to try it again before the others


def unreadable(*_: Any) -> None:
    """Nobody can say."""
    raise Unavailable("the disk is broken")


def cut_off(_database: Any, _seq: int, _now: int, travelled: Propagation) -> None:
    """Somebody does not confirm."""
    travelled.exact = False


def test_a_damaged_slot_file_is_no_empty_one(kw: Keywright, key: Issued) -> None:
    """What cannot be read is not taken for nothing."""
    assert use(kw, key) == "ok"
    damaged = kw.installation.slots.directory / "1-0.slots"
    with damaged.with_suffix(".making").open("wb", buffering=0) as file:
        file.write(b"x" * 9_000)
        # Its worker lives, or else upkeep, which looks every second, would have buried it.
        fcntl.flock(file, fcntl.LOCK_EX)
        Path(file.name).rename(damaged)
        kw.installation.upkeep.inherit()
        with pytest.raises(Unavailable, match="is damaged"):
            kw.installation.slots.counting()
        damaged.unlink()


def test_that_nothing_ends_for_want_of_a_slot_file_is_said_once(
    kw: Keywright,
    key: Issued,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not each minute; and again where it was mended in between."""
    watched(kw, clock)
    clock.advance(microseconds=WATCHED)
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(Slots, "counting", unreadable)
            for _ in range(3):
                with pytest.raises(Unavailable):
                    kw.installation.unused.round()
                clock.advance(minutes=1)
        said = [record.getMessage() for record in caplog.records if "nobody uses" in record.getMessage()]
        caplog.clear()
        assert [("the disk is broken" in one, "again" in one) for one in said] == [(True, False)]
        monkeypatch.setattr(kw.installation.unused, "_tried", lambda *_: False)
        kw.installation.unused.round()
        assert [record.getMessage() for record in caplog.records if "read again" in record.getMessage()] != []
        caplog.clear()
        watched(kw, clock)
        clock.advance(microseconds=WATCHED)


def test_one_that_fails_stops_no_other(kw: Keywright, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that cannot be ended, or read, is left, and the others end."""
    policy(kw)
    made = [make(kw, name=f"Key {n}") for n in range(4)]
    over(kw, clock)
    end = kw.installation.keys.end_unused
    monkeypatch.setattr(
        kw.installation.keys,
        "end_unused",
        lambda change, key, *rest: 1 // 0 if key.name == "Key 1" else end(change, key, *rest),
    )
    with kw.installation.database.write() as tx:
        tx.exec_driver_sql(f"UPDATE keys SET scopes = 'x' WHERE id = '{made[2].key.id}'")

    assert sweep(kw, clock) == 2
    with kw.installation.database.read() as connection:
        states = dict(connection.exec_driver_sql("SELECT name, state FROM keys WHERE type = 'k'").fetchall())
    assert states == {"Key 0": "disabled", "Key 1": "active", "Key 2": "active", "Key 3": "disabled"}


def test_many_are_ended_a_portion_at_a_time(
    kw: Keywright, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More keys than are looked through, told of, watched or ended at once: every one in the end, each told of once."""
    monkeypatch.setattr("keywright.desk.unused._LOOKED_THROUGH", 3)
    monkeypatch.setattr("keywright.desk.unused._AT_ONCE", 2)
    policy(kw)
    endpoint = kw.installation.webhooks.create(url="https://hooks.example.com/in").endpoint
    made = [make(kw, name=f"Key {n}") for n in range(8)]
    clock.advance(microseconds=HALF_A_YEAR - NOTICE)
    assert use(kw, made[4]) == "ok"
    kw.installation.meter.settle()
    assert [kw.installation.unused.round() for _ in range(4)] == [0] * 4
    assert len(news(kw, endpoint.id)) == 7
    clock.advance(microseconds=NOTICE)
    assert [kw.installation.unused.round() for _ in range(3)] == [0] * 3
    clock.advance(microseconds=WATCHED)

    assert [kw.installation.unused.round() for _ in range(5)] == [2, 2, 2, 1, 0]
    assert [kw.keys.get(one.key.id).state for one in made].count("disabled") == 7
    assert kw.keys.get(made[4].key.id).state == "active"


def test_who_takes_over_watches_anew(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Two that both believe themselves to be the one who looks out end no key that either has watched too shortly."""
    watched(kw, clock)
    opened: Installation = kw.installation
    other = Unused(opened.database, opened.keyring, clock, opened.keys, opened.meter, opened.slots)
    clock.advance(microseconds=WATCHED - 1)
    assert other.round() == 0
    clock.advance(microseconds=1)
    assert opened.unused.round() == 0
    clock.advance(microseconds=WATCHED)
    assert other.round() == 1
    assert kw.keys.get(key.key.id).state == "disabled"


def sent(kw: Keywright) -> list[Any]:
    """The messages in the outbox that tell of keys."""
    with kw.installation.database.read() as connection:
        found = [msgspec.json.decode(one.body) for one in webhooks.waiting(connection, 100)]
    return [one for one in found if "key" in one["data"]]


def news(kw: Keywright, endpoint_id: str) -> list[Any]:
    """The messages that tell that nobody uses a key."""
    found = kw.installation.webhooks.deliveries(endpoint_id, limit=200).items
    return [msgspec.json.decode(one.body) for one in found if one.type == "key.ending_unused"]
