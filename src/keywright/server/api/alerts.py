"""``/v1/alerts``: signs of misuse."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from keywright import shown
from keywright.server.api.caller import Opened, needs
from keywright.server.api.keys import uncached
from keywright.server.callers import Caller

router = APIRouter(prefix="/v1/alerts", tags=["alerts"])
Reads = Annotated[Caller, needs("alerts:read")]
Writes = Annotated[Caller, needs("alerts:write")]
Text = Annotated[str | None, Query(max_length=200)]


@router.get("")
def list_alerts(
    caller: Reads,
    opened: Opened,
    response: Response,
    account: Text = None,
    keyspace: Text = None,
    environment: Text = None,
    key: Text = None,
    rule: Text = None,
    severity: Literal["low", "medium", "high"] | None = None,
    state: Literal["open", "acknowledged", "resolved"] | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Alerts, newest first. A caller bound to an account sees those of its keys, and none about strangers' sources."""
    uncached(response)
    page = opened.alerts.list(
        account=account,
        keyspace=keyspace,
        environment=environment,
        key=key,
        rule=rule,
        severity=severity,
        state=state,
        cursor=cursor,
        limit=limit,
        reach=caller.reach,
    )
    return {"items": [shown.alert(one) for one in page.items], "next_cursor": page.next_cursor}


@router.get("/{alert_id}")
def get(alert_id: str, caller: Reads, opened: Opened, response: Response) -> dict[str, Any]:
    """Read one, with its evidence."""
    uncached(response)
    return shown.alert(opened.alerts.get(alert_id, reach=caller.reach))


@router.post("/{alert_id}/acknowledge")
def acknowledge(alert_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Say that it has been seen."""
    uncached(response)
    return shown.alert(opened.alerts.acknowledge(alert_id, actor=caller.actor, reach=caller.reach))


@router.post("/{alert_id}/resolve")
def resolve(alert_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Say that it is dealt with; the same raises no other for its rule's quiet time."""
    uncached(response)
    return shown.alert(opened.alerts.resolve(alert_id, actor=caller.actor, reach=caller.reach))
