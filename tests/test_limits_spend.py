"""Promise 3: quotas and credits are never over-granted, rates keep to their window, several limits give all or none."""

import asyncio
import os
import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest

from child import Child
from conftest import EVERY as EVERY_SOURCE
from conftest import again, bearer, make
from keywright import Invalid, Issued, Keywright, NotFound, Verdict
from keywright.desk.grants import Reach
from keywright.limits import seconds_up
from keywright.testing import Clock

pytestmark = pytest.mark.stores

EVERY = {"keyspace": "every", "environment": "production"}
SHARED = 10_000 if os.environ.get("KEYWRIGHT_PROOF") else 500


def granted(kw: Keywright, key: Issued, *, tries: int, cost: int = 1) -> int:
    """How many of so many calls pass."""
    return sum(kw.verify(bearer(key), **EVERY, cost=cost).code == "ok" for _ in range(tries))


def remaining(verdict: Verdict) -> dict[str, int]:
    """What is left of each limit."""
    return {state.name: state.remaining for state in verdict.limits}


@pytest.mark.requirement("X-21")
def test_what_is_used_is_told_between_requests(kw: Keywright, clock: Clock) -> None:
    """A key's own limits, its account's and its plan's are told as the last verdict had them; a stranger's key is not there."""
    kw.accounts.limit("globex", ["9/month"])
    key = make(kw, limits=["rate:3/1m", "credits:7"], plan="small")
    assert [one.used for one in kw.keys.limits(key.key.id)] == [0, 0, 0, 0]

    verdict = kw.verify(bearer(key), **EVERY, cost=2)
    held = kw.keys.limits(key.key.id)

    assert {one.limit.name: one.remaining for one in held} == remaining(verdict)
    assert [(one.whose, one.used) for one in held] == [("key", 2), ("key", 2), ("account", 2), ("plan", 2)]
    resets = {one.limit.name: one.resets_at and seconds_up(one.resets_at - clock()) for one in held}
    assert resets == {state.name: state.reset_seconds for state in verdict.limits}
    with pytest.raises(NotFound):
        kw.keys.limits(key.key.id, reach=Reach(account="initech"))
    clock.advance(days=31)
    assert {one.limit.name for one in kw.keys.limits(key.key.id) if one.used} == {"credits"}


# ------------------------------------------------------------------------------------------------- one at a time


@pytest.mark.requirement("B-15", "X-17")
@pytest.mark.parametrize(
    ("limit", "step", "reset"),
    [
        ("10/minute", {"minutes": 1}, 30),
        ("10/hour", {"hours": 1}, 59 * 60 + 30),
        ("10/day", {"days": 1}, 11 * 3600 + 59 * 60 + 30),
        ("10/month", {"days": 31}, 16 * 86400 + 11 * 3600 + 59 * 60 + 30),
    ],
)
def test_a_quota_is_exact_and_starts_anew(
    kw: Keywright, clock: Clock, limit: str, step: dict[str, float], reset: int
) -> None:
    """Ten calls pass, the eleventh is refused and told when to come again; with the next period ten more pass."""
    key = make(kw, limits=[limit])

    assert granted(kw, key, tries=10) == 10
    refused = kw.verify(bearer(key), **EVERY)
    assert (refused.code, refused.retry_after) == ("quota_exhausted", reset)
    assert [refused.limits[0].remaining, refused.limits[0].reset_seconds] == [0, reset]
    assert kw.answer(refused).status == 429
    assert dict(kw.answer(refused).headers)["Retry-After"] == str(reset)

    clock.advance(seconds=reset - 1)
    assert granted(kw, key, tries=3) == 0
    clock.advance(seconds=1)
    assert granted(kw, key, tries=11) == 10
    clock.advance(**step)
    assert granted(kw, key, tries=11) == 10


def test_credits_never_come_back_by_themselves(kw: Keywright, clock: Clock) -> None:
    """Credits are spent once: their refusal names no time, and a year later it is the same."""
    key = make(kw, limits=["credits:7"])

    assert granted(kw, key, tries=9) == 7
    clock.advance(days=366)
    refused = kw.verify(bearer(key), **EVERY)
    assert (refused.code, refused.retry_after) == ("quota_exhausted", None)
    assert "Retry-After" not in dict(kw.answer(refused).headers)
    kw.keys.edit(key.key.id, limits=["credits:9"])
    assert granted(kw, key, tries=9) == 2


@pytest.mark.security("T-33", "R-10")
@pytest.mark.parametrize("start", [0, 0.4, 9.9])
def test_no_window_holds_more_than_a_rates_limit(kw: Keywright, clock: Clock, start: float) -> None:
    """However calls are spread, no stretch of ten seconds holds more than ten of them, and the wait that is told suffices."""
    key = make(kw, limits=["rate:10/10s"])
    clock.advance(seconds=start)
    passed: list[float] = []
    at = 0.0
    for n in range(300):
        verdict = kw.verify(bearer(key), **EVERY)
        if verdict.code == "ok":
            passed.append(at)
        else:
            assert verdict.code == "rate_limited"
            assert verdict.retry_after is not None
            if n % 7 == 0:
                clock.advance(seconds=verdict.retry_after)
                at += verdict.retry_after
                assert kw.verify(bearer(key), **EVERY).code == "ok"
                passed.append(at)
        clock.advance(seconds=0.13)
        at += 0.13

    assert len(passed) > 30
    assert max(sum(begin <= other < begin + 10 for other in passed) for begin in passed) <= 10


# ------------------------------------------------------------------------------------------------------- several


@pytest.mark.security("T-32", "R-39")
@pytest.mark.parametrize("tight", ["key", "account", "plan"])
def test_several_limits_give_all_or_none(kw: Keywright, tight: str) -> None:
    """Where one of a key's, its account's and its plan's limits refuses, none of the others is charged."""
    kw.keyspaces.apply(EVERY_SOURCE.replace("5/day", "3/day" if tight == "plan" else "100/day"))
    kw.accounts.limit("globex", ["3/month" if tight == "account" else "100/month"])
    own = "3/hour" if tight == "key" else "100/hour"
    key = make(kw, plan="small", limits=[own, "rate:100/1h", "credits:100"])

    assert granted(kw, key, tries=50) == 3
    refused = kw.verify(bearer(key), **EVERY)
    left = remaining(refused)
    loose = {"key": "quota-hour", "account": "account-quota-month", "plan": "plan-quota-day"}
    assert left.pop(loose[tight]) == 0
    assert set(left.values()) == {97}


def test_a_cost_that_does_not_fit_takes_nothing(kw: Keywright) -> None:
    """A dear call is refused while a cheap one still fits, and what is left is what it was."""
    key = make(kw, limits=["10/day"])

    assert granted(kw, key, tries=1, cost=8) == 1
    assert granted(kw, key, tries=5, cost=3) == 0
    assert granted(kw, key, tries=5, cost=2) == 1
    assert granted(kw, key, tries=5, cost=1) == 0


def test_an_account_shares_its_limit_among_its_keys_only(kw: Keywright) -> None:
    """All keys of an account spend from its limit together; another account's are not touched."""
    kw.accounts.limit("globex", ["10/day"])
    keys = [make(kw) for _ in range(4)]
    stranger = make(kw, account="initech")

    assert sum(granted(kw, key, tries=4) for key in keys) == 10
    assert granted(kw, stranger, tries=20) == 20


def test_the_limit_that_is_last_to_reset_answers(kw: Keywright) -> None:
    """Of several exhausted limits the one that resets last is named; credits, which never do, come first of all."""
    key = make(kw, limits=["1/minute", "1/day", "1/hour"])
    granted(kw, key, tries=1)
    assert kw.verify(bearer(key), **EVERY).reason == "quota-day"

    spent = make(kw, limits=["1/day", "credits:1"])
    granted(kw, spent, tries=1)
    refused = kw.verify(bearer(spent), **EVERY)
    assert (refused.reason, refused.retry_after) == ("credits", None)


# ------------------------------------------------------------------------------------------------------- changes


@pytest.mark.requirement("B-16")
def test_a_changed_limit_holds_at_the_next_call(kw: Keywright) -> None:
    """Raised, lowered below what was used, and removed: each holds at once, in this and in another opening."""
    key = make(kw, limits=["5/day"])
    with again(kw) as other:
        assert granted(kw, key, tries=7) == 5
        for limits, more in ((["8/day"], 3), (["2/day"], 0), (["9/day"], 1), ([], 20)):
            kw.keys.edit(key.key.id, limits=limits)
            assert granted(other, key, tries=20) == more


@pytest.mark.requirement("B-16")
def test_a_changed_plan_holds_at_the_next_call(kw: Keywright) -> None:
    """A key's plan, and what a plan gives, can be changed under a key in use."""
    key = make(kw, plan="small")
    assert granted(kw, key, tries=9) == 5
    kw.keyspaces.apply(EVERY_SOURCE.replace("5/day", "6/day"))
    assert granted(kw, key, tries=9) == 1
    kw.keys.edit(key.key.id, plan=None)
    assert granted(kw, key, tries=9) == 9


# -------------------------------------------------------------------------------------------------------- costs


@pytest.mark.security("T-31")
def test_a_cost_of_nothing_takes_nothing(kw: Keywright) -> None:
    """A call that costs nothing passes while nothing is over the limit, and leaves all that there was."""
    key = make(kw, limits=["3/day", "rate:3/1m", "credits:3"])

    assert granted(kw, key, tries=10, cost=0) == 10
    assert granted(kw, key, tries=10) == 3
    assert set(remaining(kw.verify(bearer(key), **EVERY, cost=0)).values()) == {0}


@pytest.mark.security("T-31")
@pytest.mark.parametrize(
    "cost", [-1, -(10**9), 10**9 + 1, 2**63, 1.5, 0.0, float("nan"), "1", None, True, [1]]
)
def test_an_absurd_cost_is_refused(kw: Keywright, key: Issued, cost: Any) -> None:
    """Negative, huge, fractional costs and costs of another type are the caller's mistake, and take nothing."""
    limited = make(kw, limits=["3/day"])

    with pytest.raises(Invalid, match="cost"):
        kw.verify(bearer(limited), **EVERY, cost=cost)

    assert granted(kw, limited, tries=5) == 3


@pytest.mark.security("T-31")
def test_the_largest_cost_and_limit_do_not_overflow(kw: Keywright) -> None:
    """Costs of 10⁹ against a limit of 10¹⁵ are counted to the unit."""
    key = make(kw, limits=[f"credits:{10**15 - 1}"])

    assert granted(kw, key, tries=3, cost=10**9) == 3
    assert remaining(kw.verify(bearer(key), **EVERY)) == {"credits": 10**15 - 1 - 3 * 10**9 - 1}


# ----------------------------------------------------------------------------------------------------- together


@pytest.mark.requirement("B-16")
@pytest.mark.security("T-30", "R-39")
def test_many_threads_share_a_quota_exactly(kw: Keywright) -> None:
    """Sixty-four threads that race for a quota of a hundred, with an account's limit beside it, get a hundred together."""
    kw.accounts.limit("globex", ["1000/month"])
    key = make(kw, limits=["100/day"])
    start, codes = threading.Barrier(64), []

    def race() -> None:
        start.wait()
        codes.extend(kw.verify(bearer(key), **EVERY).code for _ in range(4))

    threads = [threading.Thread(target=race) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Counter(codes) == {"ok": 100, "quota_exhausted": 156}
    assert remaining(kw.verify(bearer(key), **EVERY)) == {"quota-day": 0, "account-quota-month": 900}


@pytest.mark.security("T-30", "R-09")
@pytest.mark.full("a quota of ten thousand")
def test_several_processes_share_a_quota_exactly(kw: Keywright) -> None:
    """Four processes that spend one quota until they are refused are granted exactly the quota together."""
    key = make(kw, limits=[f"{SHARED}/month"])
    url = kw.installation.database.url
    kw.close()
    with ExitStack() as stack:
        children = [stack.enter_context(Child("spend", url)) for _ in range(4)]
        for child in children:
            child.send(headers=bearer(key))
        said = [child.hear() for child in children]

    assert {child["code"] for child in said} == {"quota_exhausted"}
    assert sum(child["granted"] for child in said) == SHARED


def test_an_event_loop_spends_like_a_thread(kw: Keywright) -> None:
    """Two hundred concurrent ``averify`` calls on a quota of fifty get fifty, like ``verify``."""
    key = make(kw, limits=["50/day"])

    async def all_at_once() -> list[Verdict]:
        return await asyncio.gather(*(kw.averify(bearer(key), **EVERY) for _ in range(200)))

    assert Counter(v.code for v in asyncio.run(all_at_once())) == {"ok": 50, "quota_exhausted": 150}


def test_a_caller_that_gives_up_harms_nobody(kw: Keywright) -> None:
    """Where some cancel an ``averify`` that waits for the store, those who wait beside them are answered all the same."""
    key = make(kw, limits=["50/day"])

    async def some_give_up() -> list[Verdict]:
        with kw.installation.database.write("spend"):  # nobody can spend until this block is left
            impatient = [asyncio.create_task(kw.averify(bearer(key), **EVERY)) for _ in range(5)]
            patient = [asyncio.create_task(kw.averify(bearer(key), **EVERY)) for _ in range(5)]
            await asyncio.sleep(0)
            for task in impatient:
                task.cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            return [await task for task in patient]

    assert [verdict.code for verdict in asyncio.run(some_give_up())] == ["ok"] * 5
    assert remaining(kw.verify(bearer(key), **EVERY))["quota-day"] in range(50 - 11, 50 - 5)


@pytest.mark.sqlite_only("a file is moved away")
def test_spending_without_a_store_is_unavailable(kw: Keywright) -> None:
    """Where what was spent cannot be written, a limited key is ``unavailable`` and an unlimited one passes."""
    limited, free = make(kw, limits=["5/day"]), make(kw)
    spend_file = kw.installation.database.file("spend")
    kw.verify(bearer(limited), **EVERY)
    kw.installation.database.close()
    spend_file.rename(spend_file.with_suffix(".away"))
    for leftover in ("-wal", "-shm"):
        spend_file.with_name(spend_file.name + leftover).unlink(missing_ok=True)
    spend_file.mkdir()

    refused = kw.verify(bearer(limited), **EVERY)
    assert (refused.code, kw.answer(refused).status) == ("unavailable", 503)
    assert kw.verify(bearer(free), **EVERY).code == "ok"

    spend_file.rmdir()
    spend_file.with_suffix(".away").rename(spend_file)
    assert remaining(kw.verify(bearer(limited), **EVERY)) == {"quota-day": 3}
