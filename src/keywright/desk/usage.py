"""Usage: how often each verdict was given, by key, team, application, environment, account, code or resource."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row

from keywright.desk import LIBRARY, Desk
from keywright.desk.accounts import account_id
from keywright.desk.grants import EVERYTHING, Reach
from keywright.desk.keyspaces import keyspace_name
from keywright.errors import Invalid, NotFound, Unavailable
from keywright.keyring import Keyring
from keywright.meter import Meter
from keywright.model import MANAGEMENT, Actor
from keywright.store import accounts, keys, usage
from keywright.store.db import Database
from keywright.store.keys import Named
from keywright.times import DAY, SECOND
from keywright.upkeep import Upkeep

_MINUTE: Final = 60 * SECOND
#: Spans that a report can be cut into, and how far it goes back where nobody says; a total goes back to the beginning.
STEPS: Final = {"minute": _MINUTE, "hour": 60 * _MINUTE, "day": DAY * SECOND, "total": None}
_BACK: Final = {"minute": 60 * _MINUTE, "hour": 48 * 60 * _MINUTE, "day": 30 * DAY * SECOND}
#: What a report can be broken down by, and the stored column that it needs for that.
GROUPS: Final = {
    "key": "key_id",
    "account": "account_id",
    "keyspace": "keyspace",
    "environment": "environment",
    "team": "key_id",
    "application": "key_id",
    "code": "code",
    "resource": "resource",
}
#: A report has this many rows at most; what would have more has to be narrowed.
MOST_ROWS: Final = 10_000
#: How many keys can be named in one report.
MOST_KEYS: Final = 200
_CHUNK: Final = 5_000


class UsageRow(NamedTuple):
    """One line of a report. ``at`` is the beginning of its span, ``value`` whose it is, each ``None`` where not asked.

    A value is ``None`` too where there is none: no team, no key that was proven.
    """

    at: int | None
    value: str | None
    key: Named | None
    codes: dict[str, int]

    @property
    def times(self) -> int:
        """How many verdicts, whatever they were."""
        return sum(self.codes.values())


class Report(NamedTuple):
    """Usage over a time: its lines add up to ``total``."""

    since: int | None
    until: int
    by: str
    group: str | None
    rows: tuple[UsageRow, ...]

    @property
    def total(self) -> int:
        """How many verdicts in all."""
        return sum(row.times for row in self.rows)


class Usage(Desk):
    """What was counted."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        clock: Callable[[], int],
        meter: Meter,
        upkeep: Upkeep,
    ) -> None:
        super().__init__(database, keyring, clock)
        self._meter = meter
        self._upkeep = upkeep

    def report(
        self,
        *,
        keyspace: str | None = None,
        account: str | None = None,
        environment: str | None = None,
        key: str | None = None,
        keys: Sequence[str] | None = None,
        team: str | None = None,
        application: str | None = None,
        code: str | None = None,
        resource: str | None = None,
        since: int | None = None,
        until: int | None = None,
        by: str = "day",
        group: str | None = None,
        busiest: int | None = None,
        reach: Reach = EVERYTHING,
    ) -> Report:
        """How often each verdict was given, from ``since`` to before ``until``, in spans of ``by``.

        ``keys`` are several at once, 200 at most; one that is not there, or of somebody else, has no counts here. With
        ``busiest``, by key, there are so many keys at most, those that were told most verdicts.

        A deleted key is counted under its name until it is purged, and under its id for ever; a key counts for the team and
        application that it has now. What came without a proven key belongs to nobody, and a confined caller does not see it.

        Raises ``Invalid``, or ``NotFound`` for a key, an account or a keyspace that is not there or not in reach.
        """
        if by not in STEPS:
            raise Invalid(f"is one of {', '.join(STEPS)}", path="by")
        if group is not None and group not in GROUPS:
            raise Invalid(f"is one of {', '.join(GROUPS)}", path="group")
        if keys is not None and len(keys) > MOST_KEYS:
            raise Invalid(f"names more than {MOST_KEYS}", path="keys")
        if busiest is not None and (group != "key" or keys is not None or not 1 <= busiest <= MOST_KEYS):
            raise Invalid(f"is from 1 to {MOST_KEYS}, and for a report by key", path="busiest")
        now = self.clock()
        ends = now + 1 if until is None else until
        begins = since if since is not None or by == "total" else ends - _BACK[by]
        if begins is not None and begins >= ends:
            raise Invalid("is not after from", path="to")
        self._meter.settle()
        with suppress(Unavailable):
            self._upkeep.inherit()  # what a worker that has just died had counted
        confined = reach != EVERYTHING
        with self.database.read() as connection:
            narrow = usage.Narrow(
                keyspace=keyspace_name(connection, reach.one_keyspace(keyspace)),
                not_keyspace=MANAGEMENT,
                environment=reach.needs("environment", environment),
                account_id=account_id(connection, reach.needs("account", account)),
                key_id=self._key(connection, key, reach, now),
                key_ids=None if keys is None else tuple(keys),
                code=code,
                resource=resource,
                since=None if begins is None else begins - begins % _MINUTE,
                until=ends,
                known=confined,
            )
        if busiest is not None:
            with self.database.read("usage") as counts:
                chosen = usage.busiest_keys(counts, narrow, busiest)
            narrow = msgspec.structs.replace(narrow, key_ids=tuple(chosen))
        asked = {"team": team, "application": application}
        whose = {name: value for name, value in asked.items() if value is not None}
        return Report(begins, min(ends, now), by, group, self._rows(narrow, by, group, whose, now))

    def purge(self, *, older_than: int, actor: Actor = LIBRARY) -> int:
        """Remove the counts of minutes more than ``older_than`` seconds ago, for good; how many there were."""
        with self.database.write("usage", lasting=True) as tx:
            gone = usage.purge(tx, self.clock() - older_than * SECOND)
        if gone:
            with self.change() as change:
                change.tell(actor, "usage.purge", ("usage", "minutes"), count=gone, older_than=older_than)
        return gone

    def _rows(
        self, narrow: usage.Narrow, by: str, group: str | None, whose: dict[str, str], now: int
    ) -> tuple[UsageRow, ...]:
        keyed = bool(whose) or GROUPS.get(group or "") == "key_id"
        columns = {"code": 0, GROUPS.get(group or "", "code"): 0} | ({"key_id": 0} if keyed else {})
        found: dict[tuple[int | None, str | None], UsageRow] = {}
        with self.database.read("usage") as counts, self.database.read() as connection:
            usernames = accounts.usernames(connection) if group == "account" else {}
            for chunk in _batched(usage.sums(counts, narrow, tuple(columns), STEPS[by]), _CHUNK):
                named = keys.names(connection, {row.key_id for row in chunk}, now) if keyed else {}
                for row in chunk:
                    key = named.get(row.key_id) if keyed else None
                    if any(getattr(key, name, None) != wanted for name, wanted in whose.items()):
                        continue
                    at = None if by == "total" else row.bucket
                    value = _value(row, group, key, usernames)
                    line = found.setdefault(
                        (at, value), UsageRow(at, value, key if group == "key" else None, {})
                    )
                    line.codes[row.code] = line.codes.get(row.code, 0) + int(row.times)
                if len(found) > MOST_ROWS:
                    reason = (
                        f"makes more than {MOST_ROWS} rows: take longer spans, a shorter time or fewer keys"
                    )
                    raise Invalid(reason, path="by")
        return tuple(sorted(found.values(), key=lambda line: (line.at or 0, -line.times, line.value or "")))

    def _key(self, connection: Connection, key_id: str | None, reach: Reach, now: int) -> str | None:
        """A key to narrow to: one in reach, deleted ones too; purged ones only for who is not confined."""
        if key_id is None:
            return None
        known = keys.names(connection, [key_id], now).get(key_id)
        if known is None:
            with self.database.read("usage") as counts:
                if key_id and reach == EVERYTHING and usage.totals(counts, key_id):
                    return key_id
        elif reach.covers(known):
            return key_id
        raise NotFound(f"there is no key {key_id[:60]!r}")


def _value(row: Row[Any], group: str | None, key: Named | None, usernames: dict[str, str]) -> str | None:
    if group is None:
        return None
    if group in ("team", "application"):
        return None if key is None else getattr(key, group)
    if group == "account":
        return usernames.get(row.account_id)
    return getattr(row, GROUPS[group]) or None


def _batched(rows: Iterable[Row[Any]], many: int) -> Iterator[list[Row[Any]]]:
    waiting = iter(rows)
    while chunk := list(islice(waiting, many)):
        yield chunk


__all__ = ["GROUPS", "STEPS", "Report", "Usage", "UsageRow"]
