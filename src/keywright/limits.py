"""Limit arithmetic: what a limit's text means, which period an instant falls in, when use becomes possible again. Pure.

Three kinds. A *quota* counts in a calendar period in UTC and starts anew with the next. A *rate* counts over a window
that slides: it is kept as sixty buckets, and a bucket that the window still touches counts whole, so that no stretch of
the window's length ever holds more than the limit. *Credits* are spent once.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from keywright.errors import Invalid
from keywright.model import Limit, LimitState
from keywright.times import SECOND, parse_span, say_span, to_datetime

LARGEST: Final = 10**15 - 1  # the largest integer of a structured field (RFC 9651 3.3.1)
LARGEST_COST: Final = 10**9
LONGEST_WINDOW: Final = 31 * 86_400  # seconds
MOST: Final = 10  # limits on one holder
BUCKETS: Final = 60  # per window of a rate
HUNDREDTH: Final = 100  # of a limit may be held unspent by all workers together
BLOCKS_ABOVE: Final = 100  # calls for each worker that must be left before anybody takes ahead
LEAST_BLOCK: Final = 2
LARGEST_BLOCK: Final = 1_000_000  # a machine that is lost forfeits its blocks

#: Whose a limit is that a key's use is taken from.
Whose = Literal["key", "plan", "account"]


class Standing(NamedTuple):
    """How much of a limit is taken by now, blocks that workers hold ahead included."""

    limit: Limit
    whose: Whose
    used: int
    resets_at: int | None  # None: never by itself

    @property
    def remaining(self) -> int:
        """What is left of it."""
        return max(self.limit.limit - self.used, 0)


_PERIODS: Final = ("minute", "hour", "day", "month")
_QUOTA: Final = re.compile(r"\A([0-9]{1,18})/([a-z]+)\Z")
_RATE: Final = re.compile(r"\Arate:([0-9]{1,18})/([0-9]+[smhdw])\Z")
_CREDITS: Final = re.compile(r"\Acredits:([0-9]{1,18})\Z")
_NAME: Final = re.compile(r"\A[a-z][a-z0-9_-]{0,39}\Z")


def parse(text: str, *, path: str = "limits") -> Limit:
    """Read ``10000/day``, ``rate:100/10s`` or ``credits:5000``. Raises ``Invalid``."""
    if found := _QUOTA.match(text):
        if found[2] not in _PERIODS:
            raise Invalid(
                f"a quota is per {', '.join(_PERIODS)}; for another span use rate:{found[1]}/SPAN", path=path
            )
        return checked(Limit(f"quota-{found[2]}", "quota", int(found[1]), found[2]), path=path)  # type: ignore[arg-type]
    if found := _RATE.match(text):
        seconds = parse_span(found[2], path=path)
        return checked(Limit(f"rate-{say_span(seconds)}", "rate", int(found[1]), seconds), path=path)
    if found := _CREDITS.match(text):
        return checked(Limit("credits", "credits", int(found[1])), path=path)
    raise Invalid(f"{text[:60]!r} is not a limit such as 10000/day, rate:100/10s or credits:5000", path=path)


def read(given: Sequence[Any], *, path: str = "limits") -> tuple[Limit, ...]:
    """Read a list of limits as people and programs write them: texts, or objects of the four fields.

    Raises ``Invalid`` with the path of the item at fault.
    """
    if len(given) > MOST:
        raise Invalid(f"has more than {MOST} limits", path=path)
    found = tuple(_read_one(item, f"{path}[{place}]") for place, item in enumerate(given))
    names = [limit.name for limit in found]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise Invalid(f"the name {name!r} stands twice", path=f"{path}[{place}]")
    return found


def _read_one(item: Any, path: str) -> Limit:
    if isinstance(item, Limit):
        return checked(item, path=path)
    if isinstance(item, str):
        return parse(item, path=path)
    if not isinstance(item, dict):
        raise Invalid("is neither a text nor an object", path=path)
    unknown = sorted(set(item) - {"name", "kind", "limit", "per"})
    if unknown:
        raise Invalid(f"has the unknown field {unknown[0]!r}", path=path)
    kind, per = item.get("kind"), item.get("per")
    name = item.get("name") or ("credits" if kind == "credits" else f"{kind}-{_say_per(per)}")
    return checked(Limit(name, kind, item.get("limit"), per), path=path)  # type: ignore[arg-type]


def checked(limit: Limit, *, path: str) -> Limit:
    """The limit itself, if it makes sense. Raises ``Invalid``."""
    if limit.kind not in ("quota", "rate", "credits"):
        raise Invalid("is quota, rate or credits", path=f"{path}.kind")
    if isinstance(limit.limit, bool) or not isinstance(limit.limit, int) or not 0 <= limit.limit <= LARGEST:
        raise Invalid(f"is a whole number from 0 to {LARGEST}", path=f"{path}.limit")
    if limit.kind == "quota" and limit.per not in _PERIODS:
        raise Invalid(f"is one of {', '.join(_PERIODS)}", path=f"{path}.per")
    if limit.kind == "rate" and not _is_window(limit.per):
        raise Invalid(f"is seconds, from 1 to {LONGEST_WINDOW}", path=f"{path}.per")
    if limit.kind == "credits" and limit.per is not None:
        raise Invalid("credits are not per anything", path=f"{path}.per")
    # last, since a name that was left out is made of what comes before
    if not isinstance(limit.name, str) or not _NAME.match(limit.name):
        raise Invalid("is lower-case letters, digits, - and _, 40 at most", path=f"{path}.name")
    return limit


def spell(limit: Limit) -> str:
    """Write a limit as ``parse`` reads it."""
    if limit.kind == "quota":
        return f"{limit.limit}/{limit.per}"
    return (
        f"credits:{limit.limit}" if limit.kind == "credits" else f"rate:{limit.limit}/{_say_per(limit.per)}"
    )


def whose(subject: str) -> Whose:
    """Whose a limit is, by whose counter it is taken from: ``key:ID``, ``key:ID:plan`` or ``account:ID``."""
    return "account" if subject.startswith("account:") else "plan" if subject.endswith(":plan") else "key"


def told(subject: str, limit: Limit) -> str:
    """The name that clients are told: two limits of one kind must not share one."""
    holder = whose(subject)
    return limit.name if holder == "key" else f"{holder}-{limit.name}"


def period_start(limit: Limit, now: int) -> int:
    """The instant at which the period of a quota that ``now`` falls in began; 0 for credits."""
    if limit.kind == "credits":
        return 0
    moment = to_datetime(now).replace(second=0, microsecond=0)
    if limit.per != "minute":
        moment = moment.replace(minute=0)
    if limit.per in ("day", "month"):
        moment = moment.replace(hour=0)
    if limit.per == "month":
        moment = moment.replace(day=1)
    return int(moment.timestamp()) * SECOND


def period_end(limit: Limit, now: int) -> int | None:
    """The instant at which a quota starts anew; ``None`` for credits, which never do."""
    if limit.kind == "credits":
        return None
    start = period_start(limit, now)
    if limit.per == "month":
        moment = to_datetime(start)
        after = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
        return int(after.timestamp()) * SECOND
    return start + {"minute": 60, "hour": 3600, "day": 86_400}[str(limit.per)] * SECOND


def bucket_width(limit: Limit) -> int:
    """How long one bucket of a rate is, in microseconds."""
    return _window(limit) // BUCKETS


def bucket_start(limit: Limit, now: int) -> int:
    """The instant at which the bucket that ``now`` falls in began."""
    width = bucket_width(limit)
    return now - now % width


def oldest_bucket(limit: Limit, now: int) -> int:
    """Buckets that began after this still touch the window that ends at ``now``."""
    return now - _window(limit) - bucket_width(limit)


def rate_reset(limit: Limit, buckets: Sequence[tuple[int, int]], cost: int, now: int) -> int:
    """In how many microseconds ``cost`` fits again, given ``(start, used)`` of each counting bucket, oldest first.

    A cost above the limit itself never fits; the whole window is answered for it.
    """
    used = sum(count for _, count in buckets)
    for start, count in buckets:
        if used + cost <= limit.limit:
            break
        used -= count
        wait = start + bucket_width(limit) + _window(limit) - now
        if used + cost <= limit.limit:
            return max(wait, 1)
    return _window(limit)


def seconds_up(micros: int) -> int:
    """Whole seconds that are not earlier than ``micros``: waiting that long is always enough."""
    return -(-micros // SECOND)


def state(limit: Limit, used: int, reset: int | None) -> LimitState:
    """How a limit stands with ``used`` spent; ``reset`` is in microseconds from now."""
    remaining = max(limit.limit - used, 0)
    return LimitState(
        limit.name,
        limit.kind,
        limit.limit,
        limit.per,
        remaining,
        None if reset is None else seconds_up(reset),
    )


def block(limit: int, rest: int, *, workers: int, others: int, own: int) -> int:
    """How much a worker may take ahead of a limit of which ``rest`` is left, so that it need not ask at every call.

    All that is held unspent, by the ``others`` and by itself (``own``), stays within a hundredth of the limit, and each of
    ``workers`` has a fair share of it. Where a hundred calls for each are not left, nobody takes ahead: the end is exact.
    """
    if rest <= BLOCKS_ABOVE * workers:
        return 0
    hundredth = limit // HUNDREDTH
    size = min(hundredth // workers - own, hundredth - others - own, rest, LARGEST_BLOCK)
    return size if size >= LEAST_BLOCK else 0


def refill_below(size: int) -> int:
    """When a block has less than this left, more is fetched: early enough that nobody waits for it."""
    return size // 4


def check_cost(cost: Any, *, path: str = "cost") -> int:
    """A cost is a whole number from 0 to 10⁹. Raises ``Invalid``."""
    if isinstance(cost, bool) or not isinstance(cost, int) or not 0 <= cost <= LARGEST_COST:
        raise Invalid(f"is a whole number from 0 to {LARGEST_COST}", path=path)
    return cost


def _window(limit: Limit) -> int:
    assert isinstance(limit.per, int)
    return limit.per * SECOND


def _is_window(per: Any) -> bool:
    return isinstance(per, int) and not isinstance(per, bool) and 1 <= per <= LONGEST_WINDOW


def _say_per(per: Any) -> str:
    return say_span(per) if isinstance(per, int) and not isinstance(per, bool) else str(per)
