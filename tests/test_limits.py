"""Limit arithmetic: what a limit's text means, its calendar periods, and windows that slide."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keywright import limits
from keywright.errors import Invalid
from keywright.limits import (
    bucket_start,
    bucket_width,
    oldest_bucket,
    parse,
    period_end,
    period_start,
    rate_reset,
    spell,
)
from keywright.model import Limit
from keywright.times import SECOND, instant_of, parse_instant, rfc3339

counts = st.integers(0, limits.LARGEST)
some_limits = st.one_of(
    st.builds(
        lambda n, per: Limit(f"quota-{per}", "quota", n, per),
        counts,
        st.sampled_from(["minute", "hour", "day", "month"]),
    ),
    st.builds(
        lambda n, seconds: parse(f"rate:{n}/{seconds}s"), counts, st.integers(1, limits.LONGEST_WINDOW)
    ),
    st.builds(lambda n: Limit("credits", "credits", n), counts),
)


class Window:
    """A rate as it is kept: buckets of which those that still touch the window count whole."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.buckets: dict[int, int] = {}

    def counting(self, now: int) -> list[tuple[int, int]]:
        """The buckets that count at an instant, oldest first."""
        return sorted(
            (start, used) for start, used in self.buckets.items() if start > oldest_bucket(self.limit, now)
        )

    def take(self, cost: int, now: int) -> bool:
        """Spend, if it fits."""
        if sum(used for _, used in self.counting(now)) + cost > self.limit.limit:
            return False
        start = bucket_start(self.limit, now)
        self.buckets[start] = self.buckets.get(start, 0) + cost
        return True


# ------------------------------------------------------------------------------------------------------ texts and objects


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("10000/day", Limit("quota-day", "quota", 10_000, "day")),
        ("1/minute", Limit("quota-minute", "quota", 1, "minute")),
        ("5/hour", Limit("quota-hour", "quota", 5, "hour")),
        ("0/month", Limit("quota-month", "quota", 0, "month")),
        ("rate:100/10s", Limit("rate-10s", "rate", 100, 10)),
        ("rate:100/60s", Limit("rate-1m", "rate", 100, 60)),
        ("rate:5/1w", Limit("rate-7d", "rate", 5, 604_800)),
        ("credits:5000", Limit("credits", "credits", 5000)),
    ],
)
def test_a_limit_is_read(text: str, limit: Limit) -> None:
    """Each of the three kinds is read from its text, and named for what it is."""
    assert parse(text) == limit


@given(some_limits)
@settings(max_examples=200, deadline=None)
def test_a_limit_reads_back(limit: Limit) -> None:
    """A limit that is written reads back the same, and so does one given as an object."""
    as_object = {"kind": limit.kind, "limit": limit.limit} | ({} if limit.per is None else {"per": limit.per})

    assert parse(spell(limit)) == limit
    assert limits.read([as_object]) == (limit,)
    assert limits.read([limit]) == (limit,)


@pytest.mark.security("T-31")
@pytest.mark.parametrize(
    "text",
    ["", "10", "/day", "10/", "-1/day", "+1/day", "1.5/day", "1e3/day", "1_000/day", "10 / day", "10/Day", "10/days",
     "10/week", "10/10s", "٣/day", "10/day\n", f"{limits.LARGEST + 1}/day", "9" * 19 + "/day", "9" * 5000 + "/day",
     "rate:10", "rate:10/0s", "rate:10/s", "rate:10/-1s", "rate:10/1.5s", "rate:10/32d", "rate:10/1y", "rate:10/day",
     "rate:-1/10s", f"rate:{limits.LARGEST + 1}/10s", "rate:10/9999999999s", "rate:10/" + "9" * 5000 + "s", "Rate:10/10s",
     "credits:", "credits:-1", "credits:1.5", "credits:10/day", f"credits:{limits.LARGEST + 1}", "credits:nan", "tokens:5"],
)  # fmt: skip
def test_an_absurd_text_is_refused(text: str) -> None:
    """Negative, fractional, endless or misspelled limits are refused, with the place and never with the whole text."""
    with pytest.raises(Invalid) as refused:
        limits.read(["1/day", text])

    assert refused.value.path.startswith("limits[1]")
    assert len(str(refused.value)) < 250


@pytest.mark.security("T-31")
@pytest.mark.parametrize(
    ("item", "path"),
    [
        ({}, "limits[0].kind"),
        ({"limit": 5}, "limits[0].kind"),
        ({"kind": "quota"}, "limits[0].limit"),
        ({"kind": "quota", "limit": 5}, "limits[0].per"),
        ({"kind": "quota", "limit": 5, "per": "week"}, "limits[0].per"),
        ({"kind": "quota", "limit": 5, "per": 60}, "limits[0].per"),
        ({"kind": "quota", "limit": -1, "per": "day"}, "limits[0].limit"),
        ({"kind": "quota", "limit": 1.5, "per": "day"}, "limits[0].limit"),
        ({"kind": "quota", "limit": True, "per": "day"}, "limits[0].limit"),
        ({"kind": "quota", "limit": "5", "per": "day"}, "limits[0].limit"),
        ({"kind": "quota", "limit": float("inf"), "per": "day"}, "limits[0].limit"),
        ({"kind": "quota", "limit": limits.LARGEST + 1, "per": "day"}, "limits[0].limit"),
        ({"kind": "rate", "limit": 5, "per": 0}, "limits[0].per"),
        ({"kind": "rate", "limit": 5, "per": -5}, "limits[0].per"),
        ({"kind": "rate", "limit": 5, "per": 1.5}, "limits[0].per"),
        ({"kind": "rate", "limit": 5, "per": True}, "limits[0].per"),
        ({"kind": "rate", "limit": 5, "per": "10s"}, "limits[0].per"),
        ({"kind": "rate", "limit": 5, "per": limits.LONGEST_WINDOW + 1}, "limits[0].per"),
        ({"kind": "credits", "limit": 5, "per": "day"}, "limits[0].per"),
        ({"kind": "tokens", "limit": 5}, "limits[0].kind"),
        ({"kind": ["quota"], "limit": 5}, "limits[0].kind"),
        ({"kind": "credits", "limit": 5, "name": "A B"}, "limits[0].name"),
        ({"kind": "credits", "limit": 5, "name": 'x";q=9'}, "limits[0].name"),
        ({"kind": "credits", "limit": 5, "name": "x" * 41}, "limits[0].name"),
        ({"kind": "credits", "limit": 5, "name": 5}, "limits[0].name"),
        ({"kind": "credits", "limit": 5, "cost": 1}, "limits[0]"),
        (5, "limits[0]"),
        (None, "limits[0]"),
    ],
)
def test_an_absurd_object_is_refused(item: object, path: str) -> None:
    """A limit that makes no sense is refused with the path of the very field at fault."""
    with pytest.raises(Invalid) as refused:
        limits.read([item])

    assert refused.value.path == path


def test_two_limits_of_one_name_are_refused() -> None:
    """Two limits on one holder have two names, since their counters are told apart by them."""
    two = [
        {"kind": "quota", "limit": 5, "per": "day"},
        {"kind": "quota", "limit": 9, "per": "day", "name": "other"},
    ]

    assert [limit.name for limit in limits.read(two)] == ["quota-day", "other"]
    with pytest.raises(Invalid, match=r"^limits\[1\]: the name 'quota-day' stands twice"):
        limits.read(["5/day", "9/day"])


def test_more_than_ten_limits_are_refused() -> None:
    """One holder has ten limits at most."""
    ten = [f"rate:5/{seconds}s" for seconds in range(1, limits.MOST + 1)]

    assert len(limits.read(ten)) == 10
    with pytest.raises(Invalid, match="more than 10 limits"):
        limits.read([*ten, "1/day"])


@pytest.mark.security("T-31")
@pytest.mark.parametrize("cost", [0, 1, 10**9])
def test_a_cost_in_bounds_is_taken(cost: int) -> None:
    """A cost is a whole number from nothing to a thousand million."""
    assert limits.check_cost(cost) == cost


@pytest.mark.security("T-31")
@pytest.mark.parametrize(
    "cost", [-1, 10**9 + 1, 2**63, 2**64, 1.0, 0.5, float("nan"), float("inf"), "1", None, True, [1]]
)
def test_an_absurd_cost_is_refused(cost: object) -> None:
    """A cost that is negative, fractional, huge or no number at all is refused."""
    with pytest.raises(Invalid, match=r"^cost: is a whole number from 0"):
        limits.check_cost(cost)


# ------------------------------------------------------------------------------------------------------------- periods


@pytest.mark.parametrize(
    ("per", "now", "start", "end"),
    [
        ("minute", "2027-01-15T12:00:30Z", "2027-01-15T12:00:00Z", "2027-01-15T12:01:00Z"),
        ("minute", "2027-01-15T12:00:59.999999Z", "2027-01-15T12:00:00Z", "2027-01-15T12:01:00Z"),
        ("hour", "2027-01-15T12:59:59Z", "2027-01-15T12:00:00Z", "2027-01-15T13:00:00Z"),
        ("day", "2027-01-15T00:00:00Z", "2027-01-15T00:00:00Z", "2027-01-16T00:00:00Z"),
        ("day", "2027-02-28T23:59:59Z", "2027-02-28T00:00:00Z", "2027-03-01T00:00:00Z"),
        ("day", "2028-02-28T23:59:59Z", "2028-02-28T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("month", "2027-01-31T23:59:59.999999Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
        ("month", "2027-02-01T00:00:00Z", "2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z"),
        ("month", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
        ("month", "2027-12-31T23:59:59Z", "2027-12-01T00:00:00Z", "2028-01-01T00:00:00Z"),
        ("month", "2027-11-30T00:00:00Z", "2027-11-01T00:00:00Z", "2027-12-01T00:00:00Z"),
        ("day", "1969-12-31T23:59:59Z", "1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z"),
    ],
)
def test_periods_are_the_calendars(per: str, now: str, start: str, end: str) -> None:
    """A quota's period is the calendar's in UTC: leap days, short months and December included."""
    limit, instant = parse(f"5/{per}"), parse_instant(now)

    assert rfc3339(period_start(limit, instant)) == start
    assert rfc3339(period_end(limit, instant) or 0) == end


@given(
    st.sampled_from(["minute", "hour", "day", "month"]),
    st.datetimes(datetime(1970, 1, 1), datetime(9998, 12, 31)),
)
@settings(max_examples=300, deadline=None)
def test_periods_follow_each_other_without_a_gap(per: str, moment: datetime) -> None:
    """Every instant is in exactly one period, and the next begins where it ends."""
    limit, now = parse(f"5/{per}"), instant_of(moment.replace(tzinfo=UTC))
    start, end = period_start(limit, now), period_end(limit, now)

    assert end is not None
    assert start <= now < end
    assert (period_start(limit, start), period_start(limit, end - 1), period_start(limit, end)) == (
        start,
        start,
        end,
    )


def test_credits_have_one_period_for_ever() -> None:
    """Credits begin once and never start anew."""
    credits_ = parse("credits:5")

    assert (period_start(credits_, 5 * SECOND), period_end(credits_, 5 * SECOND)) == (0, None)


# --------------------------------------------------------------------------------------------------------------- rates

rates = st.builds(
    lambda n, seconds: parse(f"rate:{n}/{seconds}s"), st.integers(1, 8), st.sampled_from([1, 7, 10, 60, 3600])
)
#: Pauses between requests, in sixtieths of the window: none, parts of a bucket, a few buckets, and about a window.
pauses = st.lists(st.one_of(st.just(0.0), st.floats(0, 3), st.floats(55, 65)), min_size=1, max_size=60)


@pytest.mark.security("T-33")
@given(rates, pauses, st.integers(0, 10**9), st.integers(1, 3))
@settings(max_examples=250, deadline=None)
def test_no_window_ever_holds_more_than_the_limit(
    limit: Limit, gaps: list[float], begin: int, cost: int
) -> None:
    """However requests come, no stretch of the window's length, wherever it begins, holds more than the limit."""
    window, now, granted = Window(limit), begin, []
    length = int(limit.per or 0) * SECOND
    for gap in gaps:
        now += int(gap * length / 60)
        if window.take(cost, now):
            granted.append(now)

    for first in granted:
        assert sum(cost for at in granted if first <= at < first + length) <= limit.limit


@pytest.mark.security("T-33")
@pytest.mark.parametrize("seconds", [1, 10, 3600])
def test_no_double_burst_at_an_edge(seconds: int) -> None:
    """A burst just before and one just after any edge of a bucket or of a window together get the limit, not twice it."""
    limit = parse(f"rate:100/{seconds}s")
    for edge in range(10**9 * SECOND, 10**9 * SECOND + 3 * bucket_width(limit), bucket_width(limit)):
        window = Window(limit)
        granted = sum(
            window.take(1, at) for at in (edge - 1, edge, edge + seconds * SECOND - 2) for _ in range(150)
        )

        assert granted == 100


@given(rates, pauses, st.integers(1, 8))
@settings(max_examples=250, deadline=None)
def test_a_steady_caller_is_let_through_again(limit: Limit, gaps: list[float], cost: int) -> None:
    """Once the window and a bucket have passed without a request, the whole limit can be spent at once."""
    window, now = Window(limit), 10**9 * SECOND
    for gap in gaps:
        now += int(gap * SECOND)
        window.take(cost, now)

    assert window.take(limit.limit, now + int(limit.per or 0) * SECOND + bucket_width(limit))


@pytest.mark.security("H-04")
@given(rates, pauses, st.integers(1, 8))
@settings(max_examples=250, deadline=None)
def test_waiting_exactly_as_long_as_said_suffices(limit: Limit, gaps: list[float], cost: int) -> None:
    """A refused caller who waits ``rate_reset``, and not a microsecond less, gets what was asked for."""
    window, now = Window(limit), 10**9 * SECOND
    for gap in gaps:
        now += int(gap * int(limit.per or 0) * SECOND / 60)
        window.take(1, now)
    if cost <= limit.limit and sum(used for _, used in window.counting(now)) + cost > limit.limit:
        wait = rate_reset(limit, window.counting(now), cost, now)
        early, late = Window(limit), Window(limit)
        early.buckets, late.buckets = dict(window.buckets), dict(window.buckets)

        assert late.take(cost, now + wait)
        assert not early.take(cost, now + wait - 1)


def test_a_cost_above_the_limit_waits_a_whole_window() -> None:
    """What can never fit is answered with the window's length rather than with nothing."""
    limit = parse("rate:5/10s")

    assert rate_reset(limit, [], 6, 0) == 10 * SECOND
    assert rate_reset(limit, [(0, 5)], 6, 1) == 10 * SECOND


@pytest.mark.security("H-04")
@given(st.integers(0, 10**15))
@settings(max_examples=200, deadline=None)
def test_seconds_are_rounded_up(micros: int) -> None:
    """Whole seconds are never fewer than the wait itself, and never a second more than needed."""
    assert 0 <= timedelta(seconds=limits.seconds_up(micros)) / timedelta(microseconds=1) - micros < SECOND


@pytest.mark.parametrize(
    ("used", "reset", "remaining", "seconds"),
    [(0, None, 5, None), (5, 1, 0, 1), (9, SECOND, 0, 1), (4, 0, 1, 0)],
)
def test_how_a_limit_stands(used: int, reset: int | None, remaining: int, seconds: int | None) -> None:
    """What remains is never negative, and the reset is in whole seconds, rounded up, or never."""
    stands = limits.state(parse("5/day"), used, reset)

    assert (stands.name, stands.kind, stands.limit, stands.per) == ("quota-day", "quota", 5, "day")
    assert (stands.remaining, stands.reset_seconds) == (remaining, seconds)


# ------------------------------------------------------------------------------------------------------ the numbers said


def test_the_numbers_that_are_promised() -> None:
    """The largest limit, a window's sixty buckets and where credits begin are those that are written down."""
    assert parse("999999999999999/day").limit == 999_999_999_999_999
    with pytest.raises(Invalid):
        parse("1000000000000000/day")
    assert bucket_width(parse("rate:5/1m")) == SECOND
    assert period_start(parse("credits:5"), instant_of(datetime(2027, 1, 15, tzinfo=UTC))) == 0


@pytest.mark.parametrize(
    ("limit", "rest", "workers", "size"),
    [
        (10_000, 400, 4, 0),  # a hundred calls for each are not left
        (10_000, 401, 4, 25),
        (10_000, 10_000, 1, 100),
        (800, 800, 4, 2),
        (799, 799, 4, 0),  # a block of one is none
        (10**12, 10**12, 1, 1_000_000),
    ],
)
def test_how_much_is_taken_ahead(limit: int, rest: int, workers: int, size: int) -> None:
    """A hundredth, shared among the workers, at least two and at most a million, and nothing near the end."""
    assert limits.block(limit, rest, workers=workers, others=0, own=0) == size
    assert limits.block(limit, rest, workers=workers, others=limit // 100, own=0) == 0


@pytest.mark.parametrize(
    ("workers", "others", "own", "size"),
    [(2, 30, 20, 30), (1, 30, 20, 50), (1, 0, 20, 80), (2, 90, 5, 5), (2, 0, 49, 0)],
)
def test_what_is_held_already_counts(workers: int, others: int, own: int, size: int) -> None:
    """What a worker holds is taken from its share, and what all hold from the hundredth."""
    assert limits.block(10_000, 10_000, workers=workers, others=others, own=own) == size
    assert limits.refill_below(size) == size // 4
