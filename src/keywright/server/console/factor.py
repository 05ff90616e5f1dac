"""The pages of one's own second factor: setting it up, its recovery codes, taking it away."""

from io import BytesIO
from typing import Any, Final

from markupsafe import Markup
from starlette.responses import Response

from keywright.desk.sessions import LONGEST
from keywright.errors import CallerError, SignInFailed
from keywright.roles import needs_factor
from keywright.server.callers import session_cookie
from keywright.server.console import words
from keywright.server.console.entry import entered
from keywright.server.console.visits import Nobody, Page, Visit


def ask(visit: Nobody) -> Response:
    """Send somebody who must have a second factor to where one is set up."""
    return visit.go("/console/me/factor", said="factor_wanted")


def show(visit: Visit) -> Response:
    """How it is with one's second factor."""
    return _page(visit)


def begin(visit: Visit) -> Response:
    """A secret for an authenticator, as text and as a picture: this once."""
    offered = visit.opened.factors.begin(visit.session, actor=visit.caller.actor)
    return _page(visit, offered=offered, qr=_picture(offered.uri))


def confirm(visit: Visit) -> Response:
    """Take the first code, and show the recovery codes: this once."""
    try:
        done = visit.opened.factors.confirm(
            visit.session, visit.form.get("code", ""), actor=visit.caller.actor
        )
    except CallerError as refused:
        problem = words.SCAN_AGAIN if isinstance(refused, SignInFailed) else str(refused)
        return _page(visit, problem=problem, status=refused.status, waiting=True)
    page = _page(visit, codes=done.codes)
    page.headers["Set-Cookie"] = session_cookie(visit.desk.settings, done.token, LONGEST)
    return page


def renew_codes(visit: Visit) -> Response:
    """Ten new recovery codes: shown this once."""
    return _page(visit, codes=visit.opened.factors.renew_codes(visit.session, actor=visit.caller.actor))


def remove(visit: Visit) -> Response:
    """Take it away."""
    try:
        begun = visit.opened.factors.remove(
            visit.session, mandatory=_mandatory(visit), actor=visit.caller.actor
        )
    except CallerError as refused:
        return _page(visit, problem=str(refused), status=refused.status)
    return entered(visit, begun, "/console/me", said="factor_removed")


def _page(visit: Visit, *, status: int = 200, **given: Any) -> Response:
    shown = {"problem": "", "offered": None, "qr": "", "codes": (), "waiting": False} | given
    return visit.page(
        "factor.html",
        status=status,
        standing=visit.opened.factors.standing(visit.person),
        mandatory=_mandatory(visit),
        **shown,
    )


def _mandatory(visit: Visit) -> bool:
    return needs_factor(visit.desk.settings.second_factor, visit.person)


def _picture(uri: str) -> Markup:
    """A QR code as SVG: shapes alone, with no style that the policy would refuse."""
    import segno  # noqa: PLC0415  # few ever set a factor up

    drawn = BytesIO()
    code = segno.make(uri, micro=False, error="m")
    code.save(drawn, kind="svg", scale=4, light="#fff", xmldecl=False, title="QR code of the secret")
    return Markup(drawn.getvalue().decode())  # noqa: S704  # shapes that segno drew; of the address no letter is in it


PAGES: Final = (
    Page("GET", "/console/me/factor", show, own=True, password=True),
    Page("POST", "/console/me/factor", begin, own=True, password=True, fresh=True),
    Page("POST", "/console/me/factor/confirm", confirm, own=True, password=True, fresh=True),
    Page("POST", "/console/me/factor/codes", renew_codes, own=True, password=True, fresh=True),
    Page("POST", "/console/me/factor/remove", remove, own=True, password=True, fresh=True),
)
