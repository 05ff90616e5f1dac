"""``/v1/usage``: how often each verdict was given."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from keywright import shown
from keywright.desk.usage import MOST_KEYS
from keywright.server.api.caller import Opened, needs
from keywright.server.callers import Caller
from keywright.times import parse_instant

router = APIRouter(prefix="/v1/usage", tags=["usage"])
Reads = Annotated[Caller, needs("usage:read")]
Text = Annotated[str | None, Query(max_length=200)]


@router.get("")
def report(
    caller: Reads,
    opened: Opened,
    response: Response,
    *,
    keyspace: Text = None,
    account: Text = None,
    environment: Text = None,
    key: Text = None,
    keys: Annotated[list[str] | None, Query(max_length=MOST_KEYS)] = None,
    team: Text = None,
    application: Text = None,
    code: Text = None,
    resource: Text = None,
    from_: Annotated[str | None, Query(alias="from", max_length=40)] = None,
    to: Annotated[str | None, Query(max_length=40)] = None,
    by: Literal["minute", "hour", "day", "total"] = "day",
    group: Literal["key", "account", "keyspace", "environment", "team", "application", "code", "resource"]
    | None = None,
    busiest: int | None = None,
) -> dict[str, Any]:
    """Counts of verdicts, summed; a deleted key's too. They are complete up to a second ago, this process's up to now."""
    response.headers["Cache-Control"] = "no-store"
    found = opened.usage.report(
        keyspace=keyspace,
        account=account,
        environment=environment,
        key=key,
        keys=keys,
        team=team,
        application=application,
        code=code,
        resource=resource,
        since=None if from_ is None else parse_instant(from_, path="from"),
        until=None if to is None else parse_instant(to, path="to"),
        by=by,
        group=group,
        busiest=busiest,
        reach=caller.reach,
    )
    return shown.usage(found)
