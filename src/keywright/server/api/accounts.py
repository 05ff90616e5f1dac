"""``/v1/accounts``: the verbs on accounts."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from keywright import shown
from keywright.desk.once import Replay
from keywright.server.api.caller import Opened, needs
from keywright.server.api.keys import Body, Creating, LimitBody, plain_limits
from keywright.server.callers import Caller

router = APIRouter(prefix="/v1/accounts", tags=["accounts"])
Reads = Annotated[Caller, needs("accounts:read")]
Writes = Annotated[Caller, needs("accounts:write")]


class NewAccount(Body):
    """What an account is made from."""

    username: str
    name: str | None = None
    pending: bool = False
    limits: list[LimitBody | str] | None = None


class EditedAccount(Body):
    """What an edit of an account sets: the limits that all its keys share, all anew."""

    limits: list[LimitBody | str]


@router.post("", status_code=201)
def create(
    body: NewAccount, caller: Writes, opened: Opened, call: Creating, response: Response
) -> dict[str, Any]:
    """Make an account; active at once unless ``pending``. A bound key makes none."""
    response.headers["Cache-Control"] = "no-store"
    caller.reach.needs("account", body.username)
    once = call.once(caller, body)
    try:
        made = opened.accounts.create(
            body.username,
            name=body.name,
            pending=body.pending,
            limits_=plain_limits(body.limits or []),
            actor=caller.actor,
            once=once,
        )
    except Replay as earlier:
        response.headers["Idempotency-Replayed"] = "true"
        made = opened.accounts.get(earlier.made, reach=caller.reach)
    return shown.account(made)


@router.get("")
def list_accounts(
    caller: Reads,
    opened: Opened,
    response: Response,
    state: Literal["pending", "active", "suspended"] | None = None,
    q: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Some accounts, by username."""
    response.headers["Cache-Control"] = "no-store"
    page = opened.accounts.list(state=state, q=q, cursor=cursor, limit=limit, reach=caller.reach)
    return {"items": [shown.account(account) for account in page.items], "next_cursor": page.next_cursor}


@router.get("/{username}")
def get(username: str, caller: Reads, opened: Opened, response: Response) -> dict[str, Any]:
    """Read one."""
    response.headers["Cache-Control"] = "no-store"
    return shown.account(opened.accounts.get(username, reach=caller.reach))


@router.patch("/{username}")
def edit(
    username: str, body: EditedAccount, caller: Writes, opened: Opened, response: Response
) -> dict[str, Any]:
    """Set the limits that all keys of an account share. A key that is bound to the account sets none."""
    response.headers["Cache-Control"] = "no-store"
    limits = plain_limits(body.limits)
    return shown.account(opened.accounts.limit(username, limits, actor=caller.actor, reach=caller.reach))


@router.post("/{username}/suspend")
def suspend(username: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Stop every key of an account until it is activated."""
    response.headers["Cache-Control"] = "no-store"
    return shown.account(opened.accounts.suspend(username, actor=caller.actor, reach=caller.reach))


@router.post("/{username}/activate")
def activate(username: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Let a pending or suspended account's keys work."""
    response.headers["Cache-Control"] = "no-store"
    return shown.account(opened.accounts.activate(username, actor=caller.actor, reach=caller.reach))
