"""``/v1/people``: the members of accounts. Nobody makes anybody larger than themselves."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from keywright import shown
from keywright.desk.sessions import Invited
from keywright.errors import Invalid
from keywright.installation import Installation
from keywright.model import Role
from keywright.server.api.caller import Configured, Opened, Refused, needs
from keywright.server.api.keys import Access, Body, uncached
from keywright.server.callers import Caller
from keywright.settings import Settings
from keywright.times import rfc3339

router = APIRouter(prefix="/v1/people", tags=["people"])
Reads = Annotated[Caller, needs("people:read")]
Writes = Annotated[Caller, needs("people:write", fresh=True)]
#: What only a person does who runs the installation.
Operates = Annotated[Caller, needs("people:write", fresh=True, operator=True)]
Account = Annotated[str | None, Query(max_length=64)]


class Invitation(Body):
    """Whom to invite: to an account, in a role, or as an operator, who runs the installation.

    ``access`` and ``scopes`` bound what keys a developer can give.
    """

    email: str
    account: str | None = None
    role: Role | None = None
    name: str | None = None
    access: Access = "all"
    scopes: list[str] | None = None
    operator: bool = False


class Place(Body):
    """What to change of somebody's place in an account."""

    account: str | None = None
    role: Role | None = None
    access: Access | None = None
    scopes: list[str] | None = None


@router.post("", status_code=201)
def invite(
    body: Invitation, caller: Writes, opened: Opened, settings: Configured, response: Response
) -> dict[str, Any]:
    """Invite somebody to an account. The link of the answer is in no other; again, for who has not come, it is new.

    Only an operator makes an operator.
    """
    if body.operator:
        return _invited("invitation", _appointed(body, caller, opened), settings, response)
    invited = opened.people.invite(
        body.email,
        account=body.account,
        role=body.role,
        name=body.name,
        access=body.access,
        scopes=body.scopes or (),
        actor=caller.actor,
        reach=caller.reach,
        by=caller.giver,
    )
    return _invited("invitation", invited, settings, response)


@router.get("")
def list_people(
    caller: Reads,
    opened: Opened,
    response: Response,
    account: Account = None,
    operators: Annotated[Literal["true", "false"], Query()] = "false",
    q: Annotated[str | None, Query(max_length=200)] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Some people, by address."""
    uncached(response)
    page = opened.people.list(
        account=account, operators=operators == "true", q=q, cursor=cursor, limit=limit, reach=caller.reach
    )
    return {"items": [shown.person(person) for person in page.items], "next_cursor": page.next_cursor}


@router.get("/{person_id}")
def get(person_id: str, caller: Reads, opened: Opened, response: Response) -> dict[str, Any]:
    """Read one, by id or by address."""
    uncached(response)
    return shown.person(opened.people.get(person_id, reach=caller.reach))


@router.patch("/{person_id}")
def change(person_id: str, body: Place, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Change somebody's place in an account. They sign in anew."""
    uncached(response)
    changed = opened.people.change_role(
        person_id,
        **body.model_dump(exclude_unset=True) | {"account": body.account},
        actor=caller.actor,
        reach=caller.reach,
        by=caller.giver,
    )
    return shown.person(changed)


@router.delete("/{person_id}")
def remove(
    person_id: str, caller: Writes, opened: Opened, response: Response, account: Account = None
) -> dict[str, Any]:
    """Take somebody's place in an account away."""
    uncached(response)
    removed = opened.people.remove(
        person_id, account=account, actor=caller.actor, reach=caller.reach, by=caller.giver
    )
    return shown.person(removed)


@router.post("/{person_id}/disable")
def disable(person_id: str, caller: Operates, opened: Opened, response: Response) -> dict[str, Any]:
    """Shut somebody out: their sessions and the management keys they made are refused at once."""
    uncached(response)
    return shown.person(opened.people.disable(person_id, actor=caller.actor))


@router.post("/{person_id}/enable")
def enable(person_id: str, caller: Operates, opened: Opened, response: Response) -> dict[str, Any]:
    """Let somebody in again."""
    uncached(response)
    return shown.person(opened.people.enable(person_id, actor=caller.actor))


@router.post("/{person_id}/dismiss")
def dismiss(person_id: str, caller: Operates, opened: Opened, response: Response) -> dict[str, Any]:
    """Make an operator none."""
    uncached(response)
    return shown.person(opened.people.dismiss(person_id, actor=caller.actor))


@router.post("/{person_id}/unlink")
def unlink(person_id: str, caller: Operates, opened: Opened, response: Response) -> dict[str, Any]:
    """Forget by which identity provider somebody comes, and take away what its groups gave. They are signed out."""
    uncached(response)
    return shown.person(opened.people.unlink(person_id, actor=caller.actor))


@router.post("/{person_id}/reset", status_code=201)
def reset(
    person_id: str,
    caller: Operates,
    opened: Opened,
    settings: Configured,
    response: Response,
    factor: Annotated[Literal["true", "false"], Query()] = "false",
) -> dict[str, Any]:
    """Make the link by which somebody chooses a new password. With ``factor`` their second factor is taken away as well."""
    made = opened.people.reset(person_id, factor=factor == "true", actor=caller.actor)
    return _invited("reset", made, settings, response)


def _appointed(body: Invitation, caller: Caller, opened: Installation) -> Invited:
    if not caller.is_operator:
        raise Refused("people:write", operator=True)
    if (body.account, body.role) != (None, None):
        raise Invalid("goes without account and role", path="operator")
    return opened.people.appoint(body.email, name=body.name, actor=caller.actor)


def _invited(kind: str, invited: Invited, settings: Settings, response: Response) -> dict[str, Any]:
    uncached(response)
    assert invited.person is not None
    link = {"url": settings.link(invited.token), "token": invited.token, "ends_at": rfc3339(invited.ends_at)}
    return {"person": shown.person(invited.person), kind: link}
