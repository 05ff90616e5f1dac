"""What is done to several keys at once: those that were ticked, or all of a list."""

from collections.abc import Iterator
from typing import Any, Final

from starlette.responses import Response

from keywright.desk.listing import LONGEST_PAGE
from keywright.errors import Invalid
from keywright.server.console import words
from keywright.server.console.visits import Page, Visit, field

#: How many can be ticked, and how many of a long list are changed in one transaction.
MOST_AT_ONCE: Final = LONGEST_PAGE
_LISTED_BY: Final = ("environment", "state", "team", "application", "hygiene", "q")
_ACTS: Final = ("disable", "enable", "invalidate", "delete")


def act(visit: Visit) -> Response:
    """Disable, enable, invalidate or delete: what cannot be undone, and what meets a whole list, is asked first."""
    doing, all_of_it = visit.form.get("act", ""), visit.form.get("every") == "yes"
    chosen = visit.every("key")
    if doing not in _ACTS or not (chosen or all_of_it) or len(chosen) > MOST_AT_ONCE:
        raise Invalid(words.NOTHING_CHOSEN)
    sure = visit.form.get("sure") == "yes"
    if all_of_it:
        if visit.form.get("name", "").strip() != visit.account:
            return _ask(visit, doing, _listed(visit, 50).items, words.TYPE_THE_ACCOUNT if sure else "")
        done = sum(_each(visit, doing, some) for some in _pages(visit))
    elif doing in ("invalidate", "delete") and not sure:
        return _ask(visit, doing, [visit.opened.keys.get(key_id, reach=visit.reach) for key_id in chosen])
    else:
        done = _each(visit, doing, chosen)
    return visit.go(visit.keys_at(), said=f"bulk_{doing}" if done else "bulk_none")


def _ask(visit: Visit, doing: str, keys: Any, problem: str = "") -> Response:
    narrow = {name: value for name in _LISTED_BY if (value := field(visit.form, name))}
    return visit.page(
        "bulk.html",
        status=422 if problem else 200,
        act=doing,
        keys=keys,
        every=visit.form.get("every") == "yes",
        narrow=narrow,
        problem=problem,
    )


def _each(visit: Visit, doing: str, key_ids: list[str]) -> int:
    return len(visit.opened.keys.several(doing, key_ids, actor=visit.caller.actor, reach=visit.reach).done)


def _pages(visit: Visit) -> Iterator[list[str]]:
    """The ids of a whole list, oldest first. A key that leaves it on the way takes no other's place: a cursor is a place."""
    cursor = None
    while True:
        page = _listed(visit, MOST_AT_ONCE, cursor)
        yield [key.id for key in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return


def _listed(visit: Visit, limit: int, cursor: str | None = None) -> Any:
    assert visit.space is not None
    return visit.opened.keys.list(
        account=visit.account,
        keyspace=visit.space.name,
        sort="created_at",
        limit=limit,
        cursor=cursor,
        reach=visit.reach,
        **{name: field(visit.form, name) for name in _LISTED_BY},
    )


PAGES: Final = (Page("POST", "/console/@{account}/{keyspace}/keys/bulk", act, "keys:write"),)
