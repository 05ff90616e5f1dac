"""What became of keys' requests of late: drawn as sparklines, told of in their badges, and by outcome and resource."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from keywright.errors import KeywrightError
from keywright.model import Key
from keywright.server.console import drawing
from keywright.server.console.visits import Visit
from keywright.times import DAY, SECOND

_HOUR: Final = 3600 * SECOND
_HOURS: Final = 36
_DAY: Final = 24


class Recent(NamedTuple):
    """A key's last hours: verdicts by code, the oldest hour first."""

    hours: tuple[Mapping[str, int], ...] = ()

    @property
    def bars(self) -> list[drawing.Bar]:
        """The sparkline; nothing where nothing happened."""
        counts = [(codes.get("ok", 0), sum(codes.values()) - codes.get("ok", 0)) for codes in self.hours]
        return drawing.bars(counts) if any(let_in or refused for let_in, refused in counts) else []

    @property
    def day(self) -> Counter[str]:
        """The last 24 hours in one."""
        return sum((Counter(codes) for codes in self.hours[-_DAY:]), Counter())

    @property
    def hour(self) -> Counter[str]:
        """The last two hours, of which the later is still going on."""
        return sum((Counter(codes) for codes in self.hours[-2:]), Counter())


NOTHING: Final = Recent()


def of(visit: Visit, keys: Sequence[Key]) -> dict[str, Recent]:
    """The last 36 hours of some keys; nothing of any where counting is down."""
    assert visit.space is not None
    now = visit.opened.clock()
    first = now - _HOURS * _HOUR
    first -= first % _HOUR
    try:
        report = visit.opened.usage.report(
            account=visit.account,
            keyspace=visit.space.name,
            keys=[key.id for key in keys],
            since=now - _HOURS * _HOUR,
            by="hour",
            group="key",
            reach=visit.caller.within("usage:read", list(visit.spaces)).reach,
        )
    except KeywrightError:
        return {}
    hours: dict[str, list[dict[str, int]]] = {key.id: [{} for _ in range(_HOURS + 1)] for key in keys}
    for row in report.rows:
        if row.value in hours and row.at is not None:
            hours[row.value][min((row.at - first) // _HOUR, _HOURS)] = row.codes
    return {key_id: Recent(tuple(each)) for key_id, each in hours.items()}


def days(visit: Visit, key: Key) -> list[tuple[int, dict[str, int]]]:
    """Counts of a key's last thirty days by code, oldest first."""
    rows = _report(visit, key, by="day").rows
    return drawing.days({row.at: dict(row.codes) for row in rows if row.at is not None}, visit.opened.clock())


def outcomes(counted: Sequence[tuple[int, Mapping[str, int]]]) -> list[tuple[str, int]]:
    """How often each verdict was given in some days, the most frequent first."""
    return sum((Counter(codes) for _, codes in counted), Counter[str]()).most_common()


def resources(visit: Visit, key: Key) -> list[tuple[str, Mapping[str, int]]]:
    """What a key asked for in the last thirty days, and what it was told: the ten most frequent that were named."""
    rows = _report(visit, key, by="total", group="resource").rows
    return [(row.value, row.codes) for row in rows if row.value is not None][:10]


def _report(visit: Visit, key: Key, **cut: Any) -> Any:
    return visit.opened.usage.report(
        account=visit.account,
        keyspace=key.keyspace,
        key=key.id,
        since=visit.opened.clock() - 30 * DAY * SECOND,
        reach=visit.reach,
        **cut,
    )
