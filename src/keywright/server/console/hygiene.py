"""The page of hygiene: the keys of an account that want looking after, each with the right act in one click."""

from typing import Any, Final

from starlette.responses import Response

from keywright.errors import Conflict, Invalid, NotFound
from keywright.hygiene import FINDINGS, findings
from keywright.model import Key, Keyspace
from keywright.server.console import words
from keywright.server.console.bulk import MOST_AT_ONCE
from keywright.server.console.visits import Page, Visit, field
from keywright.times import DAY, SECOND

#: How many keys are shown of every finding, and of one by itself.
_FEW: Final = 10
_MANY: Final = 100
_MORE: Final = 90 * DAY  # seconds


def listing(visit: Visit) -> Response:
    """What is found, the oldest keys first; of one finding, as many as there are."""
    chosen = field(visit.query, "finding")
    if chosen is not None and chosen not in FINDINGS:
        raise Invalid(f"is one of {', '.join(FINDINGS)}", path="finding")
    found = {name: _found(visit, name, chosen) for name in FINDINGS if chosen in (None, name)}
    spaces = {space.name: space for space in visit.spaces}
    return visit.page(
        "hygiene.html",
        found={name: page for name, page in found.items() if page.items},
        chosen=chosen,
        spaces=spaces,
        writes={name for name, space in spaces.items() if visit.may("keys:write", space)},
        findings=findings,
    )


def _found(visit: Visit, finding: str, chosen: str | None) -> Any:
    return visit.opened.keys.list(
        account=visit.account,
        hygiene=finding,
        sort="created_at",
        limit=_FEW if chosen is None else _MANY,
        cursor=field(visit.query, "cursor") if chosen else None,
        reach=visit.reach,
    )


def act(visit: Visit) -> Response:
    """Disable keys, or let them end in ninety days: those that can be."""
    doing, chosen = visit.form.get("act", ""), visit.every("key")
    if doing not in ("disable", "extend") or not chosen or len(chosen) > MOST_AT_ONCE:
        raise Invalid(words.NOTHING_CHOSEN)
    if doing == "disable":
        changed = visit.opened.keys.several("disable", chosen, actor=visit.caller.actor, reach=visit.reach)
        done = len(changed.done)
    else:
        done = sum(_extended(visit, key_id) for key_id in chosen)
    back = {"finding": visit.form["finding"]} if visit.form["finding"] in FINDINGS else {}
    return visit.go(visit.at("hygiene"), said=f"hygiene_{doing}" if done else "hygiene_none", **back)


def _extended(visit: Visit, key_id: str) -> bool:
    keys = visit.opened.keys
    try:
        end = _end(visit, keys.get(key_id, reach=visit.reach))
        keys.edit(key_id, expires_at=end, actor=visit.caller.actor, reach=visit.reach)
    except (Conflict, NotFound):
        return False
    return True


def _end(visit: Visit, key: Key) -> int:
    """In ninety days, or as late as the keyspace lets keys live; no sooner than it would have ended."""
    space: Keyspace = next(one for one in visit.spaces if one.name == key.keyspace)
    now = visit.opened.clock()
    end = now - now % SECOND + min(_MORE, space.expiry.longest or _MORE) * SECOND
    return max(end, key.expires_at or 0)


PAGES: Final = (
    Page("GET", "/console/@{account}/hygiene", listing, "keys:read"),
    Page("POST", "/console/@{account}/hygiene", act, "keys:write"),
)
