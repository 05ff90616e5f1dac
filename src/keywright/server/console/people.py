"""The pages of people: the members of an account, and for operators everybody."""

from typing import Any, Final

from starlette.responses import Response

from keywright.desk.sessions import Invited
from keywright.errors import CallerError
from keywright.roles import ROLES, may_give
from keywright.server.console.visits import Page, Visit, field


def members(visit: Visit) -> Response:
    """Who is a member, and as what."""
    return _members_page(visit, "", 200)


def _members_page(visit: Visit, problem: str, status: int, invited: Invited | None = None) -> Response:
    page = visit.opened.people.list(
        account=visit.account,
        q=field(visit.query, "q"),
        cursor=field(visit.query, "cursor"),
        reach=visit.reach,
    )
    mine = visit.caller.role
    return visit.page(
        "people.html",
        status=status,
        people=page.items,
        next_cursor=page.next_cursor,
        problem=problem,
        roles=[role for role in ROLES if mine is None or may_give(mine, role)],
        may_write=visit.may("people:write"),
        link=None if invited is None else visit.desk.settings.link(invited.token),
        invited=invited,
        given=visit.form,
    )


def invite(visit: Visit) -> Response:
    """Invite somebody, and show the link: this once."""
    try:
        if visit.account is None:
            invited = visit.opened.people.appoint(visit.form.get("email", ""), actor=visit.caller.actor)
        else:
            invited = visit.opened.people.invite(
                visit.form.get("email", ""),
                account=visit.account,
                role=field(visit.form, "role"),
                actor=visit.caller.actor,
                reach=visit.reach,
                by=visit.caller.giver,
            )
    except CallerError as wrong:
        return _members_page(visit, str(wrong), wrong.status)
    return _members_page(visit, "", 200, invited)


def change(visit: Visit) -> Response:
    """Give a member another role, or none."""
    people, person = visit.opened.people, visit.request.path_params["person"]
    by: dict[str, Any] = {"actor": visit.caller.actor, "reach": visit.reach, "by": visit.caller.giver}
    try:
        if visit.form.get("role") == "none":
            people.remove(person, account=visit.account, **by)
            return visit.go(visit.at("people"), said="removed")
        people.change_role(person, account=visit.account, role=visit.form.get("role", ""), **by)
    except CallerError as wrong:
        return _members_page(visit, str(wrong), wrong.status)
    return visit.go(visit.at("people"), said="role_changed")


def switch(visit: Visit) -> Response:
    """Shut somebody out, let them in again, forget their provider, or make the link for a new password."""
    people, person = visit.opened.people, visit.request.path_params["person"]
    try:
        match visit.form.get("act"):
            case "disable":
                people.disable(person, actor=visit.caller.actor)
                return visit.go(visit.at("people"), said="person_disabled")
            case "enable":
                people.enable(person, actor=visit.caller.actor)
                return visit.go(visit.at("people"), said="person_enabled")
            case "unlink":
                people.unlink(person, actor=visit.caller.actor)
                return visit.go(visit.at("people"), said="person_unlinked")
            case _:
                factor = visit.form.get("act") == "reset_factor"
                reset = people.reset(person, factor=factor, actor=visit.caller.actor)
                return _members_page(visit, "", 200, reset)
    except CallerError as wrong:
        return _members_page(visit, str(wrong), wrong.status)


PAGES: Final = (
    Page("GET", "/console/@{account}/people", members, "people:read"),
    Page("POST", "/console/@{account}/people", invite, "people:write", fresh=True),
    Page("POST", "/console/@{account}/people/{person}", change, "people:write", fresh=True),
    Page("GET", "/console/operator/people", members, "people:read", operator=True),
    Page("POST", "/console/operator/people", invite, "people:write", operator=True, fresh=True),
    Page("POST", "/console/operator/people/{person}", switch, "people:write", operator=True, fresh=True),
)
