"""How instants, numbers and counts are shown on a page. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from keywright.times import DAY, SECOND, to_datetime

_SPANS: Final = ((365 * DAY, "year"), (30 * DAY, "month"), (DAY, "day"), (3600, "hour"), (60, "minute"))


class Bar(NamedTuple):
    """One hour of a sparkline: where it stands, and how high what was let in and what was refused are."""

    x: int
    valid: float
    refused: float


def ago(instant: int | None, now: int) -> str:
    """How long ago, or how soon, in one word and a number."""
    if instant is None:
        return "never"
    seconds = (now - instant) // SECOND
    distance = abs(seconds)
    for span, word in _SPANS:
        if distance >= span:
            count = distance // span
            text = f"{count} {word}{'s' if count != 1 else ''}"
            return f"{text} ago" if seconds > 0 else f"in {text}"
    return "just now" if seconds >= 0 else "in a moment"


def date(instant: int | None) -> str:
    """The day, in UTC."""
    if instant is None:
        return "never"
    return to_datetime(instant).strftime("%-d %B %Y")


def exact(instant: int | None) -> str:
    """The second, in UTC."""
    return "never" if instant is None else to_datetime(instant).strftime("%Y-%m-%d %H:%M:%S UTC")


def number(value: int) -> str:
    """A number that people read."""
    return f"{value:,}".replace(",", "\u202f")


def days(counted: Mapping[int, dict[str, int]], now: int) -> list[tuple[int, dict[str, int]]]:
    """The last thirty days, oldest first, those without a count too; nothing where nothing was counted."""
    today = now - now % (DAY * SECOND)
    return (
        [
            (today - back * DAY * SECOND, counted.get(today - back * DAY * SECOND, {}))
            for back in range(30, -1, -1)
        ]
        if counted
        else []
    )


def bars(counts: Sequence[tuple[int, int]], *, height: int = 20, width: int = 3, gap: int = 1) -> list[Bar]:
    """A sparkline of (let in, refused), the highest as high as the drawing."""
    highest = max((valid + refused for valid, refused in counts), default=0) or 1
    return [
        Bar(place * (width + gap), round(valid * height / highest, 2), round(refused * height / highest, 2))
        for place, (valid, refused) in enumerate(counts)
    ]
