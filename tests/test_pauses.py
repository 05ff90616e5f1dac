"""A key that is disabled for a time: it comes back by itself, at the instant, in every process, and not before."""

import re

import pytest

from conftest import again, bearer, make
from keywright import Issued, Keywright
from keywright.desk.keys import LONGEST_PAUSE
from keywright.errors import Conflict, Invalid
from keywright.model import Actor
from keywright.testing import Clock
from people import begin
from surfaces import Door, manager, server
from test_console import KEYS, post, signed_in, text

pytestmark = pytest.mark.stores
EVERY = {"keyspace": "every", "environment": "production", "authenticate_only": True}
HOUR = 3600 * 1_000_000


def code(kw: Keywright, key: Issued) -> str:
    """What a request with a key is told."""
    return kw.verify(bearer(key), **EVERY).code


def states(kw: Keywright) -> dict[str, int]:
    """How many keys of globex are listed in each state."""
    return {
        state: len(kw.keys.list(account="globex", state=state).items)
        for state in ("active", "disabled", "expired")
    }


def test_it_comes_back_at_the_instant_in_every_process(kw: Keywright, key: Issued, clock: Clock) -> None:
    """To the microsecond, and without anything being written or read: those that remember it disabled let it in."""
    with again(kw, clock=clock) as other:
        assert (code(kw, key), code(other, key)) == ("ok", "ok")
        until = clock() + HOUR
        changed = kw.keys.disable(key.key.id, for_seconds=3600)
        assert (changed.key.state, changed.key.disabled_until) == ("disabled", until)
        for instant, told, seen in ((until - 1, "disabled", "disabled"), (until, "ok", "active")):
            clock.advance(microseconds=instant - clock())
            assert (code(kw, key), code(other, key)) == (told, told)
            assert kw.keys.get(key.key.id).state == seen
            assert states(kw) == {"active": 0, "disabled": 0, "expired": 0} | {seen: 1}
        assert kw.keys.get(key.key.id).disabled_until is None


@pytest.mark.parametrize("how", ["enable", "disable", "invalidate", "leaked"])
def test_an_act_before_the_end_counts(kw: Keywright, key: Issued, clock: Clock, how: str) -> None:
    """Enabled, it works at once; disabled without an end, invalidated or leaked, it does not come back."""
    kw.keyspaces.apply(
        kw.keyspaces.get("every").source.replace('title = "Every"', 'title = "Every"\nleaks = "disable"', 1)
    )
    kw.keys.disable(key.key.id, for_seconds=3600)
    if how == "leaked":
        kw.keys.leaked(key.key.id, [1], since=clock(), url=None, actor=Actor("system", "leaks"))
    else:
        getattr(kw.keys, how)(key.key.id)
    told = {"enable": "ok", "invalidate": "invalidated"}.get(how, "disabled")

    assert code(kw, key) == told
    clock.advance(hours=2)
    assert code(kw, key) == told


def test_a_time_does_not_enable_what_has_no_end(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Disabled without an end, a key is not given one; another time replaces the one that it has; one that is over is over."""
    kw.keys.disable(key.key.id)
    with pytest.raises(Conflict, match="without an end"):
        kw.keys.disable(key.key.id, for_seconds=60)
    clock.advance(hours=1)
    assert code(kw, key) == "disabled"

    kw.keys.enable(key.key.id)
    kw.keys.disable(key.key.id, for_seconds=3600)
    longer = kw.keys.disable(key.key.id, for_seconds=7200).key
    assert longer.disabled_until == clock() + 2 * HOUR
    clock.advance(hours=2)
    assert kw.keys.disable(key.key.id).key.disabled_until is None
    assert code(kw, key) == "disabled"


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_PAUSE + 1, True])
def test_no_time_is_refused(kw: Keywright, key: Issued, seconds: int) -> None:
    """A time that is none, or is too long, is refused, and the key works."""
    with pytest.raises(Invalid, match="for_seconds: is from 1 to 31536000"):
        kw.keys.disable(key.key.id, for_seconds=seconds)
    assert code(kw, key) == "ok"


def test_an_expired_key_does_not_come_back(kw: Keywright, clock: Clock) -> None:
    """A key that expires while it is disabled is expired when its time is over."""
    key = make(kw, expires_at=clock() + HOUR // 2)
    kw.keys.disable(key.key.id, for_seconds=3600)
    clock.advance(hours=1)

    assert code(kw, key) == "expired"
    assert states(kw) == {"active": 0, "disabled": 0, "expired": 1}


def test_rotation_and_trail(kw: Keywright, key: Issued, clock: Clock) -> None:
    """While it is disabled a key is rotated and stays so until its end; the trail says until when."""
    kw.keys.disable(key.key.id, for_seconds=3600)
    new = kw.keys.rotate(key.key.id, grace_seconds=7200)
    entry = kw.installation.trail.list(target=key.key.id, action="key.disable").items[0]

    assert entry["detail"] == {"until": "2027-01-15T13:00:30Z"}
    assert (code(kw, key), code(kw, new)) == ("disabled", "disabled")
    clock.advance(hours=1)
    assert (code(kw, key), code(kw, new)) == ("ok", "ok")


def test_every_surface_pauses(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Over HTTP and on the console a key is disabled for a time; what is no number is refused and changes nothing."""
    with Door(server(kw)) as door:
        at = f"/v1/keys/{key.key.id}/disable"
        paused = door.json("POST", at, {"for_seconds": 3600}, manager(kw))
        assert (paused.status, paused.json["disabled_until"]) == (200, "2027-01-15T13:00:30Z")
        for wrong in (0, "1h", 1.5, -3600):
            assert door.json("POST", at, {"for_seconds": wrong}, manager(kw)).status == 422
        kw.keys.enable(key.key.id)

        begun, page = begin(kw, "admin"), f"{KEYS}/{key.key.id}"
        for act in ("delete", "invalidate"):
            dialog = text(door.get(f"{page}/{act}", signed_in(begun)))
            assert re.search(r'name="for" value="3600"><button[^>]*>Disable it for an hour', dialog)
        for wrong in ("0", "x", "9" * 9, "-1"):
            assert post(door, kw, f"{page}/disable", begun, {"for": wrong}).status == 422
        assert code(kw, key) == "ok"
        done = post(door, kw, f"{page}/disable", begun, {"for": "3600"})
        assert done.get("location") == f"{page}?said=disable_for"
        assert re.search("in 1 hour</time>, by itself", text(door.get(page, signed_in(begun))))
        assert code(kw, key) == "disabled"
        clock.advance(hours=1)
        assert code(kw, key) == "ok"
