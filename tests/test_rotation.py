"""Rotation keeps the id: every flow, its boundaries, and what the old secret says."""

import threading
from datetime import timedelta

import pytest

from conftest import bearer, make
from keywright import Conflict, Invalid, Issued, Keywright
from keywright.testing import Clock
from keywright.times import DAY, SECOND, instant_of

pytestmark = pytest.mark.stores

EVERY = {"keyspace": "every", "environment": "production"}
GRACE = 24 * 3600


def code(kw: Keywright, issued: Issued) -> str:
    """What a secret gets now."""
    return kw.verify(bearer(issued), **EVERY).code


def codes(kw: Keywright, *issued: Issued) -> list[str]:
    """What each secret gets now."""
    return [code(kw, each) for each in issued]


@pytest.mark.security("K-12")
def test_an_immediate_rotation_ends_the_old_secret(kw: Keywright, key: Issued) -> None:
    """Without grace the new secret works and the old one says ``rotated`` from the same instant on; the id stays."""
    new = kw.keys.rotate(key.key.id)

    assert codes(kw, key, new) == ["rotated", "ok"]
    assert new.key.id == key.key.id
    assert new.credential.token.reveal() != key.credential.token.reveal()
    assert (
        kw.verify({"X-API-KEY": key.key.id, "X-API-SECRET": key.credential.secret.reveal()}, **EVERY).code
        == "rotated"
    )  # type: ignore[union-attr]


@pytest.mark.security("K-12")
@pytest.mark.requirement("P-32")
@pytest.mark.parametrize("grace", [1, 3600, GRACE, 30 * DAY])
def test_grace_ends_to_the_second(kw: Keywright, key: Issued, clock: Clock, grace: int) -> None:
    """Both secrets work, and both are listed, until a second before the grace ends; at its end and after it only the new."""
    new = kw.keys.rotate(key.key.id, grace_seconds=grace)
    assert [s.ends_at for s in new.key.secrets] == [None, clock() + grace * SECOND]

    clock.advance(seconds=grace - 1)
    assert codes(kw, key, new) == ["ok", "ok"]
    clock.advance(microseconds=999_999)
    assert codes(kw, key, new) == ["ok", "ok"]
    clock.advance(microseconds=1)
    assert codes(kw, key, new) == ["rotated", "ok"]
    clock.advance(seconds=1)
    assert codes(kw, key, new) == ["rotated", "ok"]


@pytest.mark.parametrize("grace", [-1, 30 * DAY + 1, True])
def test_an_impossible_grace_is_refused(kw: Keywright, key: Issued, grace: int) -> None:
    """Negative graces and ones above thirty days are refused, and nothing has changed."""
    with pytest.raises(Invalid, match="grace_seconds"):
        kw.keys.rotate(key.key.id, grace_seconds=grace)
    with pytest.raises(Invalid, match="start"):
        kw.keys.rotate(key.key.id, start="later")

    assert len(kw.keys.get(key.key.id).secrets) == 1
    assert code(kw, key) == "ok"


def test_the_first_use_of_the_new_secret_ends_the_old(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Started by first use without grace: the old secret works until the new one is used, and not once after."""
    new = kw.keys.rotate(key.key.id, start="first_use")
    clock.advance(days=3)
    assert code(kw, key) == "ok"

    assert codes(kw, new, key, new) == ["ok", "rotated", "ok"]


def test_the_first_use_starts_the_grace(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Started by first use with grace: it counts from the first use, further uses do not lengthen it."""
    new = kw.keys.rotate(key.key.id, start="first_use", grace_seconds=GRACE)
    clock.advance(days=3)
    assert code(kw, new) == "ok"
    first = clock()

    clock.advance(seconds=GRACE - 1)
    assert codes(kw, new, key) == ["ok", "ok"]
    assert kw.keys.get(key.key.id).secrets[1].ends_at == first + GRACE * SECOND
    clock.advance(seconds=1)
    assert codes(kw, new, key) == ["ok", "rotated"]


def test_what_is_no_use_does_not_end_the_old_secret(kw: Keywright, key: Issued) -> None:
    """A refused call, a look that is not metered and a wrong secret are no first use."""
    from keywright.model import Ask
    from keywright.schemes import from_mapping

    new = kw.keys.rotate(key.key.id, start="first_use")

    assert kw.verify(bearer(new), keyspace="every", environment="staging").code == "wrong_environment"
    whoami = Ask("every", "production", authenticate_only=True, metered=False)
    assert (
        kw.installation.engine.verify(whoami, from_mapping(bearer(new)), kw.installation.clock()).code == "ok"
    )
    kw.verify({"Authorization": f"Bearer {new.credential.token.reveal()[:-1]}"}, **EVERY)

    assert codes(kw, key, new, key) == ["ok", "ok", "rotated"]


@pytest.mark.parametrize("used", [False, True])
def test_a_rotation_that_waits_for_its_first_use_ends_after_thirty_days(
    kw: Keywright, key: Issued, clock: Clock, *, used: bool
) -> None:
    """Whether the new secret is never used, or used on the last day with a long grace: thirty days are the end."""
    new = kw.keys.rotate(key.key.id, start="first_use", grace_seconds=30 * DAY)
    clock.advance(days=30, seconds=-1)
    if used:
        assert code(kw, new) == "ok"
    assert code(kw, key) == "ok"

    clock.advance(seconds=1)

    assert codes(kw, key, new) == ["rotated", "ok"]


@pytest.mark.parametrize("start", ["now", "first_use"])
def test_no_grace_outlives_the_key(kw: Keywright, clock: Clock, start: str) -> None:
    """A grace is cut to the key's expiry, where both secrets say ``expired``."""
    expiry = instant_of(clock.at + timedelta(hours=1))
    key = make(kw, expires_at=expiry)
    new = kw.keys.rotate(key.key.id, grace_seconds=GRACE, start=start)
    assert new.key.secrets[1].ends_at == expiry

    clock.advance(hours=1, seconds=-1)
    assert codes(kw, key, new) == ["ok", "ok"]
    clock.advance(seconds=1)
    assert codes(kw, key, new) == ["expired", "expired"]


@pytest.mark.security("K-12")
def test_finish_ends_the_old_secret_now(kw: Keywright, key: Issued) -> None:
    """``finish`` cuts the grace short; doing it again is a conflict."""
    new = kw.keys.rotate(key.key.id, grace_seconds=GRACE)
    assert code(kw, key) == "ok"

    kw.keys.finish(key.key.id)

    assert codes(kw, key, new) == ["rotated", "ok"]
    with pytest.raises(Conflict):
        kw.keys.finish(key.key.id)


@pytest.mark.parametrize("start", ["now", "first_use"])
def test_cancel_ends_the_new_secret_and_keeps_the_old(
    kw: Keywright, key: Issued, clock: Clock, start: str
) -> None:
    """``cancel`` undoes a rotation: the old secret has no end any more, the new one says ``rotated`` for ever."""
    new = kw.keys.rotate(key.key.id, grace_seconds=GRACE, start=start)

    kw.keys.cancel(key.key.id)

    assert codes(kw, key, new) == ["ok", "rotated"]
    clock.advance(days=40)
    assert codes(kw, key, new) == ["ok", "rotated"]
    with pytest.raises(Conflict):
        kw.keys.cancel(key.key.id)
    third = kw.keys.rotate(key.key.id, grace_seconds=GRACE)
    assert codes(kw, key, new, third) == ["ok", "rotated", "ok"]


@pytest.mark.parametrize("start", ["now", "first_use"])
def test_a_second_rotation_is_a_conflict_unless_forced(kw: Keywright, key: Issued, start: str) -> None:
    """While one rotation is under way another is refused and changes nothing; ``force`` ends every earlier secret at once."""
    second = kw.keys.rotate(key.key.id, grace_seconds=GRACE, start=start)
    with pytest.raises(Conflict, match="under way"):
        kw.keys.rotate(key.key.id)
    assert code(kw, key) == "ok"

    third = kw.keys.rotate(key.key.id, grace_seconds=GRACE, start=start, force=True)

    assert codes(kw, key, second, third) == ["rotated", "rotated", "ok"]
    fourth = kw.keys.rotate(key.key.id, force=True)
    assert codes(kw, key, second, third, fourth) == ["rotated", "rotated", "rotated", "ok"]


def test_the_next_rotation_is_free_once_the_grace_is_over(kw: Keywright, key: Issued, clock: Clock) -> None:
    """A rotation whose grace has run out is over: the next one is no conflict, ``finish`` and ``cancel`` are."""
    kw.keys.rotate(key.key.id, grace_seconds=60)
    clock.advance(seconds=60)

    for verb in (kw.keys.finish, kw.keys.cancel):
        with pytest.raises(Conflict, match="no rotation"):
            verb(key.key.id)
    new = kw.keys.rotate(key.key.id, grace_seconds=60)
    assert codes(kw, key, new) == ["rotated", "ok"]


def test_there_is_nothing_to_finish_or_cancel_without_a_rotation(kw: Keywright, key: Issued) -> None:
    """Without a rotation ``finish`` and ``cancel`` are conflicts that leave the key as it was."""
    for verb in (kw.keys.finish, kw.keys.cancel):
        with pytest.raises(Conflict):
            verb(key.key.id)

    assert code(kw, key) == "ok"


@pytest.mark.parametrize("start", ["now", "first_use"])
def test_an_ended_key_cannot_be_rotated(kw: Keywright, clock: Clock, start: str) -> None:
    """Invalidated and expired keys refuse to rotate, finish and cancel; a disabled one rotates and stays disabled."""
    expiry = instant_of(clock.at + timedelta(hours=1))
    dead, expired, disabled = make(kw), make(kw, expires_at=expiry), make(kw)
    kw.keys.rotate(dead.key.id, grace_seconds=GRACE, start=start)
    kw.keys.invalidate(dead.key.id)
    kw.keys.disable(disabled.key.id)
    clock.advance(hours=2)

    for key in (dead, expired):
        with pytest.raises(Conflict):
            kw.keys.rotate(key.key.id, start=start, force=True)
        for verb in (kw.keys.finish, kw.keys.cancel):
            with pytest.raises(Conflict):
                verb(key.key.id)
    new = kw.keys.rotate(disabled.key.id)
    assert codes(kw, disabled, new) == ["disabled", "disabled"]
    kw.keys.enable(disabled.key.id)
    assert codes(kw, disabled, new) == ["rotated", "ok"]


def test_invalidate_ends_both_secrets(kw: Keywright, key: Issued) -> None:
    """In the middle of a rotation ``invalidate`` ends the old secret and the new."""
    new = kw.keys.rotate(key.key.id, grace_seconds=GRACE)

    kw.keys.invalidate(key.key.id)

    assert codes(kw, key, new) == ["invalidated", "invalidated"]


def test_each_secret_tells_its_own_last_use(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Last used is kept per secret, so that one sees whether anybody still uses the old one."""
    code(kw, key)
    first = clock()
    new = kw.keys.rotate(key.key.id, grace_seconds=GRACE)
    clock.advance(hours=1)
    code(kw, new)
    kw.installation.meter.flush()

    found = kw.keys.get(key.key.id)
    assert [(s.n, s.last_used_at) for s in found.secrets] == [(2, clock()), (1, first)]
    assert found.last_used_at == clock()


def test_the_hint_is_of_the_secret_that_is_shown(kw: Keywright, key: Issued) -> None:
    """Each secret is listed with the last four characters of each of its spellings, and no more."""
    new = kw.keys.rotate(key.key.id, grace_seconds=GRACE)

    for issued, stored in ((new, new.key.secrets[0]), (key, new.key.secrets[1])):
        assert issued.credential.secret is not None
        assert stored.hint == {
            "token": issued.credential.token.reveal()[-4:],
            "secret": issued.credential.secret.reveal()[-4:],
        }


@pytest.mark.requirement("P-31", "P-32", "P-15")
@pytest.mark.parametrize("flow", ["grace", "first_use", "two keys"])
def test_no_call_fails_through_a_rotation(kw: Keywright, flow: str) -> None:
    """An integration that calls all the time, and is told of the new secret some time later, never sees a refusal."""
    old = make(kw)
    using, codes_seen, stop = [old], [], threading.Event()

    def integration() -> None:
        while not stop.is_set():
            codes_seen.append(code(kw, using[-1]))

    def some_calls() -> None:
        enough = len(codes_seen) + 50
        while len(codes_seen) < enough:
            assert caller.is_alive()

    caller = threading.Thread(target=integration)
    caller.start()
    try:
        some_calls()
        if flow == "two keys":
            new = make(kw)
        else:
            new = kw.keys.rotate(old.key.id, grace_seconds=GRACE, start="now" if flow == "grace" else flow)
        some_calls()
        using.append(new)
        some_calls()
        if flow == "two keys":
            kw.keys.invalidate(old.key.id)
        else:
            kw.keys.finish(old.key.id)
        some_calls()
    finally:
        stop.set()
        caller.join()

    assert set(codes_seen) == {"ok"}
    assert code(kw, old) == ("invalidated" if flow == "two keys" else "rotated")
