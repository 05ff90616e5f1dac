"""Instants and spans. An instant is an ``int`` of microseconds since 1970 in UTC; a span is seconds."""

import re
from datetime import UTC, datetime, timedelta

from keywright.errors import Invalid

SECOND = 1_000_000  # microseconds
DAY = 86_400  # seconds
#: The last instant that can be written with four digits of year, to the second.
LATEST = 253_402_300_799 * SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: RFC 3339 5.6, its offset optional so that a missing one can be told of. ``fromisoformat`` alone reads far more.
_TIME = re.compile(
    r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?\Z"
)
_SPAN = re.compile(r"\A([0-9]{1,9})(s|m|h|d|w|y)\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY, "y": 365 * DAY}


def rfc3339(instant: int) -> str:
    """Write an instant as RFC 3339 in UTC, with a ``Z`` and whole seconds where it has no fraction."""
    return to_datetime(instant).isoformat().replace("+00:00", "Z")


def to_datetime(instant: int) -> datetime:
    """Turn an instant into an aware ``datetime`` in UTC."""
    return _EPOCH + timedelta(microseconds=instant)


def parse_instant(text: str, *, path: str = "") -> int:
    """Read an RFC 3339 time. A time without an offset is refused: nobody knows when it is.

    Raises ``Invalid``.
    """
    try:
        moment = datetime.fromisoformat(text.upper() if _TIME.match(text) else "")
    except ValueError:
        raise Invalid("is not an RFC 3339 time such as 2027-01-31T00:00:00Z", path=path) from None
    return instant_of(moment, path=path)


def instant_of(moment: datetime, *, path: str = "") -> int:
    """Turn an aware ``datetime`` into an instant. Raises ``Invalid`` for a naive one."""
    if moment.tzinfo is None:
        raise Invalid("needs an offset from UTC, such as a final Z", path=path)
    try:
        return (moment.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        raise Invalid("is out of range", path=path) from None


def parse_span(text: str, *, path: str = "") -> int:
    """Read a span such as ``90s``, ``15m``, ``24h``, ``30d``, ``2w``, ``1y`` as seconds.

    Raises ``Invalid``.
    """
    found = _SPAN.match(text)
    if found is None:
        raise Invalid("is not a span such as 90s, 15m, 24h, 30d, 2w or 1y", path=path)
    return int(found[1]) * _UNITS[found[2]]


def say_span(seconds: int) -> str:
    """Write a span the way ``parse_span`` reads it, in the largest unit that fits."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"
