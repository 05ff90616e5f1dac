"""``/v1/audit``: the audit trail, to read."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from keywright import shown
from keywright.desk.trail import LONGEST_PAGE
from keywright.server.api.caller import Opened, needs
from keywright.server.callers import Caller

router = APIRouter(prefix="/v1/audit", tags=["audit"])
Reads = Annotated[Caller, needs("audit:read")]
Text = Annotated[str | None, Query(max_length=200)]


@router.get("")
def list_entries(
    caller: Reads,
    opened: Opened,
    response: Response,
    target: Text = None,
    actor: Text = None,
    action: Text = None,
    account: Text = None,
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=LONGEST_PAGE)] = 50,
) -> dict[str, Any]:
    """Who did what to which thing, when, from where, newest first. A bound caller sees what it is bound to."""
    response.headers["Cache-Control"] = "no-store"
    page = opened.trail.list(
        target=target,
        actor=actor,
        action=action,
        account=account,
        before=before,
        cursor=cursor,
        limit=limit,
        reach=caller.reach,
    )
    return {"items": [shown.entry(entry) for entry in page.items], "next_cursor": page.next_cursor}


@router.get("/export")
def export(
    caller: Reads,
    opened: Opened,
    response: Response,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
    limit: Annotated[int, Query(ge=1, le=LONGEST_PAGE)] = LONGEST_PAGE,
) -> dict[str, Any]:
    """The entries behind a number, oldest first, each with its MAC; ``next_cursor`` is what to go on ``after``."""
    response.headers["Cache-Control"] = "no-store"
    page = opened.trail.export(after=after, limit=limit, reach=caller.reach)
    return {"items": [shown.entry(entry) for entry in page.items], "next_cursor": page.next_cursor}
