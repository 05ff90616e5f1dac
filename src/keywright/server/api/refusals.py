"""``/v1/refusals``: the refusal log."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from keywright import shown
from keywright.server.api.caller import Opened, needs
from keywright.server.callers import Caller

router = APIRouter(prefix="/v1/refusals", tags=["refusals"])
Reads = Annotated[Caller, needs("usage:read")]
Text = Annotated[str | None, Query(max_length=200)]


@router.get("")
def list_refusals(
    caller: Reads,
    opened: Opened,
    response: Response,
    request_id: Text = None,
    keyspace: Text = None,
    account: Text = None,
    environment: Text = None,
    key: Text = None,
    code: Text = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """The newest refused requests, with the reason that their senders were not told."""
    response.headers["Cache-Control"] = "no-store"
    page = opened.refusals.list(
        request_id=request_id,
        keyspace=keyspace,
        account=account,
        environment=environment,
        key=key,
        code=code,
        cursor=cursor,
        limit=limit,
        reach=caller.reach,
    )
    return {"items": [shown.refusal(one) for one in page.items], "next_cursor": page.next_cursor}
