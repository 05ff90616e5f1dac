"""Coming in by the portal: a host's link is exchanged for a cookie, once, and leads to the keys."""

from http import HTTPStatus

from starlette.responses import Response

from keywright.accents import style
from keywright.desk.tokens import Begun
from keywright.errors import NotFound
from keywright.model import PortalSession, Session
from keywright.server.callers import SignedOut, session_cookie, signed_in
from keywright.server.console import words
from keywright.server.console.entry import begins_at
from keywright.server.console.visits import Nobody, Page
from keywright.times import SECOND


def come(visit: Nobody) -> Response:
    """Follow a link of the host's. What only looks ahead, for somebody who may never click, does not use it up.

    Where somebody else is signed in in this browser they are asked first: a link that was sent by whoever wants them to
    work in an account of theirs shows its account before it takes over.
    """
    if visit.request.method == "HEAD":
        return Response(status_code=HTTPStatus.NO_CONTENT)
    if _looks_ahead(visit):
        return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE)
    code = visit.request.path_params["code"]
    try:
        meant, here = visit.opened.portal.meant(code), _here(visit)
        if here is not None and not _same(meant, here):
            return visit.page("portal_switch.html", meant=meant, here=here, code=code)
        return _enter(visit, code)
    except NotFound:
        return _gone(visit)


def switch(visit: Nobody) -> Response:
    """Follow a link of the host's instead of going on as somebody else."""
    try:
        return _enter(visit, visit.request.path_params["code"])
    except NotFound:
        return _gone(visit)


def left(visit: Nobody) -> Response:
    """Where a visit ends whose host has named no page to go back to."""
    title, says = words.LEFT.get(visit.query.get("reason", ""), words.LEFT["signed_out"])
    return visit.page("portal_left.html", title=title, says=says)


def looks(visit: Nobody) -> Response:
    """The colour of a keyspace's portal, as a style of our own. Raises ``NotFound``."""
    space = visit.opened.keyspaces.get(visit.request.path_params["keyspace"]).keyspace
    if not space.portal.accent:
        raise NotFound(words.NOT_FOUND)
    return Response(style(space.portal.accent), media_type="text/css")


def _enter(visit: Nobody, code: str) -> Response:
    begun = visit.opened.portal.enter(code, source=visit.ip, request_id=visit.request_id)
    assert begun.session.visit is not None
    gone = visit.go(begins_at(begun.session.visit))
    gone.headers["Set-Cookie"] = session_cookie(visit.desk.settings, begun.token, _seconds_left(visit, begun))
    return gone


def _seconds_left(visit: Nobody, begun: Begun) -> int:
    return max(0, begun.session.ends_at - visit.opened.clock()) // SECOND


def _gone(visit: Nobody) -> Response:
    """One page for every link that leads nowhere, and on to nobody's address."""
    title, says = words.LINK_GONE
    return visit.page("portal_left.html", status=HTTPStatus.NOT_FOUND, title=title, says=says)


def _here(visit: Nobody) -> Session | None:
    try:
        return signed_in(visit.opened, visit.desk.settings, visit.request.scope)
    except SignedOut:
        return None


def _same(meant: PortalSession, here: Session) -> bool:
    """Whether it is the same visitor who comes again."""
    visit = here.visit
    return visit is not None and (visit.account, visit.subject) == (meant.account, meant.subject)


def _looks_ahead(visit: Nobody) -> bool:
    """Whether a browser fetches a link for no page that somebody opens: in advance, or as a picture or a frame of a page."""
    if visit.request.headers.get("sec-fetch-dest", "document") != "document":
        return True
    asked = (visit.request.headers.get(name, "") for name in ("sec-purpose", "purpose", "x-moz"))
    return any("prefetch" in said.lower() or "preview" in said.lower() for said in asked)


PAGES = (
    Page("GET", "/portal", left, anybody=True),
    Page("GET", "/portal/looks/{keyspace}.css", looks, anybody=True),
    Page("GET", "/portal/{code}", come, anybody=True),
    Page("POST", "/portal/{code}", switch, anybody=True),
)
