"""The pages of what happened: the audit trail and usage, of an account or of the whole installation."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from keywright.desk.usage import UsageRow
from keywright.errors import Invalid
from keywright.server.console import drawing, words
from keywright.server.console.visits import Page, Typed, Visit, field
from keywright.times import DAY, SECOND

#: The cuts of usage that are shown, and how many rows of each.
TITLES: Final = {
    "key": ("Key", "nobody: not proven"),
    "account": ("Account", "nobody: not proven"),
    "resource": ("Resource", "none named"),
    "code": ("Answer", ""),
}
MOST: Final = 100


def trail(visit: Visit) -> Response:
    """Who did what to which thing, when, and from where."""
    narrow: dict[str, Any] = {
        name: value for name in ("target", "actor", "action", "cursor") if (value := field(visit.query, name))
    }
    problem = ""
    try:
        page = visit.opened.trail.list(account=visit.account, limit=50, reach=visit.reach, **narrow)
    except Invalid as wrong:
        problem, page = (
            str(wrong),
            visit.opened.trail.list(account=visit.account, limit=50, reach=visit.reach),
        )
    ids = {entry["actor_id"] for entry in page.items if entry["actor_kind"] == "person"}
    return visit.page(
        "audit.html",
        entries=page.items,
        next_cursor=page.next_cursor,
        narrow=Typed(narrow),
        problem=problem,
        act_of=words.act,
        names=visit.opened.people.names_of(ids),
    )


def usage(visit: Visit) -> Response:
    """How often requests were let in and refused: by day, by key or account, by resource and by answer."""
    reach = visit.reach
    open_ = [space.name for space in visit.spaces if space.name not in reach.closed]
    chosen = field(visit.query, "keyspace") or (open_[0] if reach.closed and open_ else None)
    since = visit.opened.clock() - 30 * DAY * SECOND
    asked: dict[str, Any] = {"account": visit.account, "keyspace": chosen, "since": since, "reach": reach}
    days = visit.opened.usage.report(by="day", **asked)
    whose: dict[str, Any] = {"group": "key", "busiest": MOST} if visit.account else {"group": "account"}
    told = _told(days.rows)
    rows = {
        cut["group"]: visit.opened.usage.report(by="total", **cut, **asked).rows
        for cut in (whose, {"group": "resource"})
    }
    rows["code"] = tuple(UsageRow(None, code, None, {code: times}) for code, times in told.items())
    cuts = {}
    for group, found in rows.items():
        shown = sorted(found, key=lambda row: -row.times)[:MOST]
        if shown:  # with what is left of the others, they add up to the whole
            cuts[group] = shown, told - _told(shown)
    return visit.page(
        "usage.html",
        days=drawing.days(
            {row.at: dict(row.codes) for row in days.rows if row.at is not None}, visit.opened.clock()
        ),
        total=days.total,
        cuts=cuts,
        titles=TITLES,
        keyspaces=open_,
        chosen=chosen,
    )


def _told(rows: Sequence[UsageRow]) -> Counter[str]:
    """The verdicts of some rows in one, by code."""
    return sum((Counter(row.codes) for row in rows), Counter())


PAGES: Final = (
    Page("GET", "/console/@{account}/audit", trail, "audit:read"),
    Page("GET", "/console/operator/audit", trail, "audit:read", operator=True),
    Page("GET", "/console/@{account}/usage", usage, "usage:read"),
    Page("GET", "/console/operator/usage", usage, "usage:read", operator=True),
)
