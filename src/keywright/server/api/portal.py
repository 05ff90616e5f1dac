"""``/v1/portal/sessions``: links by which a host brings its customers' admins to their keys, and the visits they begin."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from keywright import shown
from keywright.desk.once import Replay
from keywright.model import PortalLink, Role
from keywright.server.api.caller import Configured, Opened, needs
from keywright.server.api.keys import Access, Body, Creating, uncached
from keywright.server.callers import Caller

router = APIRouter(prefix="/v1/portal/sessions", tags=["portal"])
Reads = Annotated[Caller, needs("portal:read")]
Writes = Annotated[Caller, needs("portal:write")]
#: What lets somebody in: a person gives their password a short while before.
Grants = Annotated[Caller, needs("portal:write", fresh=True)]


class NewVisit(Body):
    """Whom the host vouches for, where they may go, and what they may do there.

    ``access`` and ``scopes`` bound what keys they can give, as in a membership.
    """

    account: str
    subject: str
    keyspace: str | None = None
    environment: str | None = None
    name: str | None = None
    role: Role = "admin"
    access: Access = "all"
    scopes: list[str] | None = None
    return_url: str | None = None
    preview: bool = False


class Ending(Body):
    """Whose visits end: all of an account, or those of one subject."""

    account: str
    subject: str | None = None


@router.post("", status_code=201)
def open_portal(
    body: NewVisit,
    caller: Grants,
    opened: Opened,
    settings: Configured,
    call: Creating,
    response: Response,
) -> dict[str, Any]:
    """Make a link to the keys of an account. It works once, for a quarter of an hour, and is in this answer and no other."""
    uncached(response)
    try:
        link = opened.portal.open(
            **body.model_dump() | {"scopes": body.scopes or ()},
            base_url=settings.base_url,
            actor=caller.actor,
            reach=caller.reach,
            by=caller.holder,
            once=call.once(caller, body),
        )
    except Replay as earlier:
        response.headers["Idempotency-Replayed"] = "true"
        link = PortalLink(opened.portal.get(earlier.made, reach=caller.reach), None)
    return shown.portal_link(link)


@router.get("")
def list_visits(
    caller: Reads,
    opened: Opened,
    response: Response,
    account: Annotated[str | None, Query(max_length=64)] = None,
    subject: Annotated[str | None, Query(max_length=200)] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Some visits, newest first: those that wait, those that go on, and what ended within a day."""
    uncached(response)
    page = opened.portal.list(
        account=account, subject=subject, cursor=cursor, limit=limit, reach=caller.reach
    )
    return {"items": [shown.portal_session(visit) for visit in page.items], "next_cursor": page.next_cursor}


@router.get("/{visit_id}")
def get(visit_id: str, caller: Reads, opened: Opened, response: Response) -> dict[str, Any]:
    """Read one."""
    uncached(response)
    return shown.portal_session(opened.portal.get(visit_id, reach=caller.reach))


@router.delete("/{visit_id}")
def end(visit_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """End one at once; a link that nobody has followed works no more."""
    uncached(response)
    return shown.portal_session(opened.portal.end(visit_id, actor=caller.actor, reach=caller.reach))


@router.post("/end")
def end_all(body: Ending, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """End all visits of an account, or those of one subject: they sign out with the host, and with that here."""
    uncached(response)
    many = opened.portal.end_all(
        account=body.account, subject=body.subject, actor=caller.actor, reach=caller.reach
    )
    return {"ended": many}
