"""Instants and spans: reading them, writing them, and refusing what is not one."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keywright.errors import Invalid
from keywright.times import (
    LATEST,
    SECOND,
    instant_of,
    parse_instant,
    parse_span,
    rfc3339,
    say_span,
    to_datetime,
)

EARLIEST = -62_135_596_800 * SECOND  # the year 1
NOON = 1_800_014_400 * SECOND


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2027-01-15T12:00:00Z", NOON),
        ("2027-01-15T12:00:00+00:00", NOON),
        ("2027-01-15T12:00:00-00:00", NOON),
        ("2027-01-15T13:30:00+01:30", NOON),
        ("2027-01-15T00:00:00-12:00", NOON),
        ("2027-01-15 12:00:00Z", NOON),
        ("2027-01-15t12:00:00z", NOON),
        ("2027-01-15T12:00:00.000001Z", NOON + 1),
        ("2027-01-15T12:00:00.5Z", NOON + SECOND // 2),
        ("2027-01-15T12:00:00.123456789Z", NOON + 123_456),
        ("2028-02-29T00:00:00Z", 1_835_395_200 * SECOND),
        ("9999-12-31T23:59:59Z", LATEST),
        ("0001-01-01T00:00:00Z", EARLIEST),
    ],
)
def test_rfc3339_is_read(text: str, instant: int) -> None:
    """A time as RFC 3339 writes it is read to the microsecond, whatever its offset."""
    assert parse_instant(text) == instant


@pytest.mark.security("T-45")
@pytest.mark.parametrize(
    "text", ["2027-01-31T00:00:00", "2027-01-31 00:00:00", "2027-01-31T00:00:00.5", "2027-01-31"]
)
def test_a_time_without_an_offset_is_refused(text: str) -> None:
    """A naive time is nobody knows when, and the refusal says what to add."""
    with pytest.raises(Invalid, match=r"^expires_at: .*(Z|offset)") as refused:
        parse_instant(text, path="expires_at")

    assert refused.value.path == "expires_at"


@pytest.mark.security("T-45")
@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "1800014400", "2027-01-31T23:59:60Z", "2027-01-31T24:00:00Z", "2027-02-29T00:00:00Z",
     "2027-13-01T00:00:00Z", "27-01-31T00:00:00Z", "2027-W04-7T00:00:00Z", "20270131T000000Z", "2027-01-31T00:00Z",
     "2027-01-31T00:00:00,5Z", "2027-01-31T00:00:00+01", "2027-01-31T00:00:00+0100", "2027-01-31T00:00:00+24:00",
     "2027-01-31T00:00:00+01:00:30", " 2027-01-31T00:00:00Z", "2027-01-31T00:00:00Z\n", "2027-01-31T00:00:00ZZ",
     "\uff12027-01-31T00:00:00Z", "2027-01-31T00:00:00Z\0"],
)  # fmt: skip
def test_what_is_no_rfc3339_is_refused(text: str) -> None:
    """Other ISO 8601 forms, leap seconds, days that do not exist and trailing characters are no time."""
    with pytest.raises(Invalid, match="is not an RFC 3339 time"):
        parse_instant(text)


@pytest.mark.security("T-45")
@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-00:01", "0001-01-01T00:00:00+00:01"])
def test_a_time_that_cannot_be_written_in_utc_is_refused(text: str) -> None:
    """A time whose UTC falls before the year 1 or after 9999 is out of range: it could never be shown again."""
    with pytest.raises(Invalid, match="is out of range"):
        parse_instant(text)


@given(st.integers(EARLIEST, LATEST))
@settings(max_examples=300, deadline=None)
def test_instants_are_written_and_read_back(instant: int) -> None:
    """Every instant that has a four-digit year is written so that it reads back the same."""
    written = rfc3339(instant)

    assert written.endswith("Z")
    assert parse_instant(written) == instant
    assert instant_of(to_datetime(instant)) == instant


@given(st.integers(EARLIEST + 90_000 * SECOND, LATEST - 90_000 * SECOND), st.integers(-1439, 1439))
@settings(max_examples=200, deadline=None)
def test_the_offset_makes_no_difference(instant: int, minutes: int) -> None:
    """The same moment written in any zone is the same instant."""
    zone = timezone(timedelta(minutes=minutes))

    assert parse_instant(to_datetime(instant).astimezone(zone).isoformat()) == instant


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_reading_a_time_or_a_span_gives_a_number_or_a_refusal(text: str) -> None:
    """Whatever the text, the answer is a whole number or ``Invalid``."""
    for parse in (parse_instant, parse_span):
        with suppress(Invalid):
            assert isinstance(parse(text), int)


def test_a_naive_datetime_is_refused() -> None:
    """A ``datetime`` without a zone is refused as a text without one is."""
    with pytest.raises(Invalid, match="offset"):
        instant_of(datetime(2027, 1, 15, 12))

    assert instant_of(datetime(2027, 1, 15, 12, tzinfo=UTC)) == NOON


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("30d", 2_592_000), ("2w", 1_209_600), ("1y", 31_536_000)],
)  # fmt: skip
def test_spans_are_read(text: str, seconds: int) -> None:
    """A span is a whole number and one unit."""
    assert parse_span(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "15",
        "1.5h",
        "-1h",
        "+1h",
        "1 h",
        "1h30m",
        "1H",
        "1mo",
        "1e3s",
        "1_000s",
        "1234567890s",
        "٣d",
        "1h\n",
        " 1h",
    ],
)
def test_what_is_no_span_is_refused(text: str) -> None:
    """Fractions, signs, blanks, several units and other digits are no span, and the refusal names the field."""
    with pytest.raises(Invalid, match=r"^expiry: is not a span such as"):
        parse_span(text, path="expiry")


@given(st.integers(0, 999_999_999))
@settings(max_examples=200, deadline=None)
def test_spans_are_said_as_they_are_read(seconds: int) -> None:
    """A span that is written reads back as the same number of seconds."""
    assert parse_span(say_span(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (59, "59s"), (60, "1m"), (90, "90s"), (5400, "90m"), (86_400, "1d")]
)
def test_the_largest_unit_that_fits_is_said(seconds: int, said: str) -> None:
    """A span is said in days, hours or minutes where it is a whole number of them."""
    assert say_span(seconds) == said
