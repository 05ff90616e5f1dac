"""``/v1/webhooks``: endpoints that are told what happens, and what was sent to them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from keywright import shown
from keywright.desk.once import Replay
from keywright.desk.webhooks import OVERLAP
from keywright.server.api.caller import Opened, needs
from keywright.server.api.keys import Body, Creating, uncached
from keywright.server.callers import Caller
from keywright.times import parse_instant

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
Reads = Annotated[Caller, needs("webhooks:read")]
Writes = Annotated[Caller, needs("webhooks:write")]


class NewWebhook(Body):
    """What an endpoint is made from. What it is bound to is the caller's, unless it is narrowed here."""

    url: str
    events: list[str] = Field(default_factory=list)
    description: str | None = None
    account: str | None = None
    keyspace: str | None = None
    environment: str | None = None


class EditedWebhook(Body):
    """What an edit may mention. What is left out stays as it is."""

    url: str = Field(default_factory=str)
    events: list[str] = Field(default_factory=list)
    description: str | None = None


class SecretRotation(Body):
    """For how long messages are signed with the old secret as well."""

    overlap_seconds: int = OVERLAP


class Challenge(Body):
    """What the endpoint was sent."""

    challenge: str


class Redelivery(Body):
    """From when on messages that were given up are sent again."""

    since: str


@router.post("", status_code=201)
def create(
    body: NewWebhook, caller: Writes, opened: Opened, call: Creating, response: Response
) -> dict[str, Any]:
    """Make an endpoint. Its signing secret is in this answer and in no other, the answer to a repeated call included.

    A bound caller's endpoint is ``pending`` until it has answered the challenge that it is sent.
    """
    uncached(response)
    once = call.once(caller, body)
    try:
        issued = opened.webhooks.create(
            **body.model_dump(), actor=caller.actor, reach=caller.reach, once=once
        )
    except Replay as earlier:
        response.headers["Idempotency-Replayed"] = "true"
        made = opened.webhooks.get(earlier.made, reach=caller.reach)
        return {"webhook": shown.webhook(made, opened.clock()), "secret": None}
    return shown.issued_webhook(issued, opened.clock())


@router.get("")
def list_webhooks(
    caller: Reads,
    opened: Opened,
    response: Response,
    account: str | None = None,
    state: Literal["pending", "active", "disabled"] | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Endpoints that are bound to what the caller is bound to, or to less, oldest first."""
    uncached(response)
    page = opened.webhooks.list(account=account, state=state, cursor=cursor, limit=limit, reach=caller.reach)
    now = opened.clock()
    return {"items": [shown.webhook(one, now) for one in page.items], "next_cursor": page.next_cursor}


@router.get("/{webhook_id}")
def get(webhook_id: str, caller: Reads, opened: Opened, response: Response) -> dict[str, Any]:
    """Read one."""
    uncached(response)
    return shown.webhook(opened.webhooks.get(webhook_id, reach=caller.reach), opened.clock())


@router.patch("/{webhook_id}")
def edit(
    webhook_id: str, body: EditedWebhook, caller: Writes, opened: Opened, response: Response
) -> dict[str, Any]:
    """Change its address, what it is told of, or its description. A bound caller's new address is asked first."""
    uncached(response)
    given = body.model_dump(exclude_unset=True)
    edited = opened.webhooks.edit(webhook_id, **given, actor=caller.actor, reach=caller.reach)
    return shown.webhook(edited, opened.clock())


@router.post("/{webhook_id}/rotate")
def rotate(
    webhook_id: str,
    caller: Writes,
    opened: Opened,
    response: Response,
    body: SecretRotation | None = None,
) -> dict[str, Any]:
    """Give it a new signing secret, which is in this answer and in no other."""
    uncached(response)
    overlap = OVERLAP if body is None else body.overlap_seconds
    issued = opened.webhooks.rotate(
        webhook_id, overlap_seconds=overlap, actor=caller.actor, reach=caller.reach
    )
    return shown.issued_webhook(issued, opened.clock())


@router.post("/{webhook_id}/verify")
def verify(
    webhook_id: str, body: Challenge, caller: Writes, opened: Opened, response: Response
) -> dict[str, Any]:
    """Say the challenge that it was sent, where it could not answer that by itself."""
    uncached(response)
    verified = opened.webhooks.verify(webhook_id, body.challenge, actor=caller.actor, reach=caller.reach)
    return shown.webhook(verified, opened.clock())


@router.post("/{webhook_id}/test", status_code=202)
def test(webhook_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Send it a test, or its challenge once more. What comes of it stands among its deliveries."""
    uncached(response)
    return {"message_id": opened.webhooks.test(webhook_id, actor=caller.actor, reach=caller.reach)}


@router.get("/{webhook_id}/deliveries")
def deliveries(
    webhook_id: str,
    caller: Reads,
    opened: Opened,
    response: Response,
    state: Literal["waiting", "delivered", "failed"] | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """What was sent to it and what came of it, newest first. What it answered is not kept, but for the status."""
    uncached(response)
    page = opened.webhooks.deliveries(webhook_id, state=state, cursor=cursor, limit=limit, reach=caller.reach)
    return {"items": [shown.delivery(one) for one in page.items], "next_cursor": page.next_cursor}


@router.post("/{webhook_id}/redeliver")
def redeliver(
    webhook_id: str, body: Redelivery, caller: Writes, opened: Opened, response: Response
) -> dict[str, Any]:
    """Send again what was given up since a time, as far as the log still has it."""
    uncached(response)
    since = parse_instant(body.since, path="since")
    many = opened.webhooks.redeliver(webhook_id, since=since, actor=caller.actor, reach=caller.reach)
    return {"messages": many}


@router.post("/{webhook_id}/disable")
def disable(webhook_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Tell it nothing until it is enabled; what waits for it is given up."""
    uncached(response)
    disabled = opened.webhooks.disable(webhook_id, actor=caller.actor, reach=caller.reach)
    return shown.webhook(disabled, opened.clock())


@router.post("/{webhook_id}/enable")
def enable(webhook_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Tell it again of what happens from now on."""
    uncached(response)
    enabled = opened.webhooks.enable(webhook_id, actor=caller.actor, reach=caller.reach)
    return shown.webhook(enabled, opened.clock())


@router.delete("/{webhook_id}")
def delete(webhook_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Remove one for good; what waits for it is given up."""
    uncached(response)
    deleted = opened.webhooks.delete(webhook_id, actor=caller.actor, reach=caller.reach)
    return shown.webhook(deleted, opened.clock())
