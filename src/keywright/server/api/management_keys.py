"""``/v1/management-keys``: the keys that open this API. A caller makes and rotates none that is larger than itself."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from keywright import shown
from keywright.server.api.caller import Configured, Opened, needs
from keywright.server.api.keys import Body, Invalidation, changed_answer, issued_answer, uncached
from keywright.server.callers import Caller
from keywright.times import parse_instant

router = APIRouter(prefix="/v1/management-keys", tags=["management keys"])
Reads = Annotated[Caller, needs("management-keys:read")]
Writes = Annotated[Caller, needs("management-keys:write")]
#: What hands out a secret: a person gives their password a short while before.
Grants = Annotated[Caller, needs("management-keys:write", fresh=True)]


class NewManagementKey(Body):
    """What a management key is made from. What it is bound to is the caller's, unless it is narrowed here."""

    name: str
    scopes: list[str]
    account: str | None = None
    keyspace: str | None = None
    environment: str | None = None
    expires_at: str | None = None


class ManagementRotation(Body):
    """How a management key's secret is replaced."""

    grace_seconds: int = 0
    force: bool = False


@router.post("", status_code=201)
def create(
    body: NewManagementKey, caller: Grants, opened: Opened, settings: Configured, response: Response
) -> dict[str, Any]:
    """Make one, with scopes that the caller holds and bound to no more. Its secret is in this answer and in no other."""
    given = body.model_dump(exclude_unset=True)
    if given.get("expires_at") is not None:
        given["expires_at"] = parse_instant(given["expires_at"], path="expires_at")
    issued = opened.management_keys.create(**given, actor=caller.actor, reach=caller.reach, by=caller.holder)
    return issued_answer(issued, opened, settings, response)


@router.get("")
def list_management_keys(
    caller: Reads,
    opened: Opened,
    response: Response,
    q: Annotated[str | None, Query(max_length=200)] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Those that are bound to what the caller is bound to, or to less."""
    uncached(response)
    page = opened.management_keys.list(q=q, cursor=cursor, limit=limit, reach=caller.reach)
    now = opened.clock()
    return {"items": [shown.key(key, now) for key in page.items], "next_cursor": page.next_cursor}


@router.get("/{management_key_id}")
def get(management_key_id: str, caller: Reads, opened: Opened, response: Response) -> dict[str, Any]:
    """Read one."""
    uncached(response)
    return shown.key(opened.management_keys.get(management_key_id, reach=caller.reach), opened.clock())


@router.post("/{management_key_id}/rotate")
def rotate(
    management_key_id: str,
    caller: Grants,
    opened: Opened,
    settings: Configured,
    response: Response,
    body: ManagementRotation | None = None,
) -> dict[str, Any]:
    """Give one that is no larger than the caller a new secret, which is in this answer and in no other."""
    asked = body or ManagementRotation()
    issued = opened.management_keys.rotate(
        management_key_id,
        grace_seconds=asked.grace_seconds,
        force=asked.force,
        actor=caller.actor,
        reach=caller.reach,
        by=caller.holder,
    )
    return issued_answer(issued, opened, settings, response)


@router.post("/{management_key_id}/invalidate")
def invalidate(
    management_key_id: str,
    caller: Writes,
    opened: Opened,
    response: Response,
    body: Invalidation | None = None,
) -> dict[str, Any]:
    """Stop one for ever."""
    reason = None if body is None else body.reason
    changed = opened.management_keys.invalidate(
        management_key_id, reason=reason, actor=caller.actor, reach=caller.reach
    )
    return changed_answer(changed, opened, response)


@router.post("/{management_key_id}/disable")
def disable(management_key_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Stop one until it is enabled."""
    changed = opened.management_keys.disable(management_key_id, actor=caller.actor, reach=caller.reach)
    return changed_answer(changed, opened, response)


@router.post("/{management_key_id}/enable")
def enable(management_key_id: str, caller: Grants, opened: Opened, response: Response) -> dict[str, Any]:
    """Let a disabled one that is no larger than the caller work again."""
    changed = opened.management_keys.enable(
        management_key_id, actor=caller.actor, reach=caller.reach, by=caller.holder
    )
    return changed_answer(changed, opened, response)


@router.delete("/{management_key_id}")
def delete(management_key_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Remove one for good."""
    changed = opened.management_keys.delete(management_key_id, actor=caller.actor, reach=caller.reach)
    return changed_answer(changed, opened, response)
