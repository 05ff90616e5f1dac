"""Failures to prove a key are limited by source: they become cheap, and no right key is ever refused for them."""

import os

import pytest

from conftest import again, bearer, make
from keywright import Issued, Keywright
from keywright.credential import new_secret, random_base62, spell_token
from keywright.misuse import RULES
from keywright.roll import LEAST, Roll
from keywright.testing import Clock
from keywright.throttle import MOST, Allowance, Throttle, source_of

pytestmark = pytest.mark.stores

HERE, ELSEWHERE = "192.0.2.7", "198.51.100.9"
EVERY = {"keyspace": "every", "environment": "production", "method": "GET", "ip": HERE}
MOST_FAILURES = Allowance().failures


def guess(issued: Issued) -> dict[str, str]:
    """The key's id with another secret, and a checksum that fits."""
    return {"Authorization": f"Bearer {spell_token(issued.key.id, new_secret())}"}


def unknown() -> dict[str, str]:
    """A credential of a key that does not exist, and a checksum that fits."""
    return {"Authorization": f"Bearer {spell_token(f'every_live_k{random_base62(15)}', new_secret())}"}


def flood(kw: Keywright, failures: int, ip: str = HERE) -> None:
    """Present so many credentials that do not exist, from one address, and wait for what that sets off."""
    for _ in range(failures):
        assert kw.verify(unknown(), **(EVERY | {"ip": ip})).reason == "unknown"
    if kw.installation.engine._clerk is not None:
        kw.installation.engine._clerk.submit(lambda: None).result()


@pytest.mark.requirement("X-18")
@pytest.mark.security("T-23", "T-24")
def test_a_hundred_thousand_guesses_lock_nobody_out(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Guessing at a key engages the throttle and raises an alert; the right secret works all the while, from anywhere."""
    throttle, answers = kw.installation.throttle, set()
    for n in range(100_000):
        verdict = kw.verify(guess(key), request_id="req_1", **EVERY)
        answers.add((verdict.code, kw.answer(verdict).body))
        if n % 10_000 == 0:
            clock.advance(seconds=1)
            assert kw.verify(bearer(key), **EVERY).code == "ok"
            assert kw.verify(bearer(key), **(EVERY | {"ip": ELSEWHERE})).code == "ok"

    assert len(answers) == 1
    assert throttle.over(clock()) == 1
    assert throttle.throttled >= 100_000 - 2 * MOST_FAILURES
    for ip in (HERE, ELSEWHERE):
        assert kw.verify(bearer(key), **(EVERY | {"ip": ip})).code == "ok"
    kw.installation.meter.settle()
    kw.installation.lookout.round()
    (alert,) = [one for one in kw.installation.alerts.list().items if one.rule == "guessed"]
    assert (alert.key_id, alert.evidence["addresses"]) == (key.key.id, [HERE])


@pytest.mark.security("T-23")
def test_a_source_over_its_limit_costs_no_look_up(kw: Keywright, key: Issued) -> None:
    """Unknown ids from a source over its limit are not looked up; they read the same, and right keys still work, cold too."""
    cold = make(kw)
    flood(kw, MOST_FAILURES + 1)
    before = kw.installation.lookup.statements

    flood(kw, 2_000)
    looked_up = kw.installation.lookup.statements - before
    assert looked_up <= 20
    for issued in (cold, key, make(kw)):
        assert kw.verify(bearer(issued), **EVERY).code == "ok"
        assert kw.verify(guess(issued), **EVERY).reason == "wrong_secret"


@pytest.mark.requirement("X-18")
@pytest.mark.security("T-23")
def test_two_workers_allow_twice_as_much_and_no_more(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Each worker counts for itself: of a source's failures at two of them twice the limit pass, whoever gets how many; the
    rule of guessing counts both together, and both serve the right secret."""
    times = RULES["guessed"].bounds.times
    with again(kw, clock=kw.installation.clock) as other:
        workers = kw, other
        for n in range(5 * MOST_FAILURES):
            assert workers[n % 3 == 0].verify(guess(key), **EVERY).reason == "wrong_secret"
            if n == times - 1:
                for worker in workers:
                    worker.installation.meter.settle()
                kw.installation.lookout.round()
        throttled = [worker.installation.throttle.throttled for worker in workers]

        assert 5 * MOST_FAILURES - sum(throttled) == 2 * MOST_FAILURES
        assert all(worker.installation.throttle.over(clock()) == 1 for worker in workers)
        assert all(worker.verify(bearer(key), **EVERY).code == "ok" for worker in workers)
    (alert,) = kw.installation.alerts.list().items
    assert (alert.rule, alert.count) == ("guessed", times)


@pytest.mark.security("T-26")
def test_a_key_that_another_process_makes_is_on_the_roll(kw: Keywright) -> None:
    """A key that is made elsewhere after the roll was called works at once, from the source over its limit."""
    flood(kw, MOST_FAILURES + 1)
    with again(kw, clock=kw.installation.clock) as other:
        for _ in range(5):
            assert kw.verify(bearer(make(other)), **EVERY).code == "ok"


def test_the_log_has_a_line_a_second_of_such_a_source(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Of a source over its limit, what names no key is logged once a second, and counted; what names one is logged."""
    installation = kw.installation
    installation.meter._stop.set()
    flood(kw, MOST_FAILURES + 50)
    clock.advance(seconds=1)
    flood(kw, 50)
    kw.verify(guess(key), **EVERY)
    kw.verify(unknown(), **(EVERY | {"ip": ELSEWHERE}))
    installation.meter.settle()

    with installation.database.read("usage") as connection:
        rows = connection.exec_driver_sql("SELECT ip, key_id, dropped FROM refusals").all()
    assert len([row for row in rows if row.ip == HERE and not row.key_id]) == MOST_FAILURES + 2
    assert [row.ip for row in rows if row.key_id] == [HERE]
    assert len([row for row in rows if row.ip == ELSEWHERE]) == 1
    assert sum(row.dropped for row in rows) == installation.meter.dropped == 98


def test_an_old_key_that_is_still_used_is_no_guess(kw: Keywright, key: Issued, clock: Clock) -> None:
    """A proven key that is refused for its state is laid to nobody, however often it comes."""
    kw.keys.delete(key.key.id)
    for _ in range(MOST_FAILURES + 10):
        assert kw.verify(bearer(key), **EVERY).reason == "deleted"
    for _ in range(MOST_FAILURES + 10):
        kw.verify({}, **EVERY)
    assert kw.installation.throttle.over(clock()) == 0


# ------------------------------------------------------------------------------------------------------ the pure parts


def test_a_level_drains(clock: Clock) -> None:
    """A source that stops is let go of within twice the time; one that is slow enough never gets there."""
    throttle = Throttle(Allowance(10, 60))
    for _ in range(1000):
        throttle.failed(HERE, clock())
    assert throttle.over(clock()) == 1
    clock.advance(seconds=61)
    assert throttle.over(clock()) == 0
    for _ in range(100):
        clock.advance(seconds=6)
        assert throttle.failed(ELSEWHERE, clock()) == (False, True)


def test_a_clock_that_goes_back_lets_nobody_go(clock: Clock) -> None:
    """A clock that is put back neither drains a level nor fills it."""
    throttle = Throttle(Allowance(10, 60))
    for _ in range(11):
        throttle.failed(HERE, clock())
    clock.advance(seconds=-3600)
    assert throttle.over(clock()) == 1
    assert throttle.failed(HERE, clock())[0]


@pytest.mark.security("T-36")
@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:DB8:0:0:ffff::2", "2001:db8::/64"),
        ("2001:db8::1%eth0", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("no address", "unknown"),
    ],
)
def test_one_subscriber_is_one_source(address: str, source: str) -> None:
    """However an address is written, and whichever of its network of 64 bits it is, it is the same source."""
    assert source_of(address) == source


def test_the_throttle_remembers_so_many(clock: Clock) -> None:
    """Of 30,000 sources that fail the latest 10,000 to 20,000 are remembered, and who goes on; without a limit none is."""
    throttle, never = Throttle(Allowance()), Throttle(Allowance(0))
    for _ in range(MOST_FAILURES + 1):
        throttle.failed(HERE, clock())
    for n in range(30_000):
        address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        throttle.failed(address, clock())
        assert never.failed(address, clock()) == (False, True)
        if n % 5_000 == 0:
            assert throttle.failed(HERE, clock())[0]
    assert (MOST // 2 <= len(throttle) <= MOST, len(never)) == (True, 0)


@pytest.mark.full("a million ids")
def test_a_roll_is_never_wrong_about_who_is_there() -> None:
    """Of ids that were entered each is found; of others at most one in five hundred looks as if it were."""
    many = 1_000_000 if os.environ.get("KEYWRIGHT_PROOF") else LEAST
    roll = Roll(many // 2)
    for n in range(many):
        roll.add(b"every_live_k%015d" % n)
    assert all(b"every_live_k%015d" % n in roll for n in range(many))
    # seven in ten thousand are expected; whose hashes they are differs from run to run
    assert sum(b"acme_live_k%015d" % n in roll for n in range(many)) <= many // 500
    assert roll.room == 0 if many == LEAST else roll.room >= 0


def test_a_full_roll_is_given_up(kw: Keywright) -> None:
    """Where more keys are made than a roll has room for, there is none until the next flood makes a larger one."""
    cache = kw.installation.cache
    roll = cache.begin_roll(0)
    cache.close_roll(roll, whole=True)
    assert cache.is_nobody(b"every_live_k000000000000000")
    cache.apply([(cache.applied, "key", f"every_live_k{n:015}") for n in range(roll.room)])
    assert not cache.has_roll
    assert not cache.is_nobody(b"acme_live_k000000000000000")
