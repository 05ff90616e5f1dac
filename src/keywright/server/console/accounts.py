"""The operator's pages of accounts: the list, a new one, and stopping one."""

from typing import Final

from starlette.responses import Response

from keywright.errors import CallerError
from keywright.server.console.visits import Page, Typed, Visit, field


def listing(visit: Visit) -> Response:
    """The accounts of the installation."""
    return _page(visit, "", 200)


def _page(visit: Visit, problem: str, status: int) -> Response:
    narrow = {name: value for name in ("q", "state", "cursor") if (value := field(visit.query, name))}
    page = visit.opened.accounts.list(limit=50, reach=visit.reach, **narrow)
    return visit.page(
        "accounts.html", status=status, accounts=page.items, next_cursor=page.next_cursor, narrow=Typed(narrow),
        problem=problem, given=visit.form,
    )  # fmt: skip


def create(visit: Visit) -> Response:
    """Make an account."""
    try:
        visit.opened.accounts.create(
            visit.form.get("username", "").strip(),
            name=field(visit.form, "name"),
            pending=visit.form.get("pending") == "yes",
            actor=visit.caller.actor,
        )
    except CallerError as wrong:
        return _page(visit, str(wrong), wrong.status)
    return visit.go("/console/operator/accounts", said="account_created")


def switch(visit: Visit) -> Response:
    """Suspend or activate one."""
    username = visit.request.path_params["username"]
    if visit.form.get("act") == "suspend":
        visit.opened.accounts.suspend(username, actor=visit.caller.actor)
        return visit.go("/console/operator/accounts", said="suspended")
    visit.opened.accounts.activate(username, actor=visit.caller.actor)
    return visit.go("/console/operator/accounts", said="activated")


_AT: Final = "/console/operator/accounts"
PAGES: Final = (
    Page("GET", _AT, listing, "accounts:read", operator=True),
    Page("POST", _AT, create, "accounts:write", operator=True),
    Page("POST", _AT + "/{username}", switch, "accounts:write", operator=True),
)
