"""Getting in and out: signing in, one-time links, the first operator, the password again, and one's own sessions."""

from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from keywright.desk.sessions import LONGEST, Begun
from keywright.errors import CallerError, Invalid, NotFound, SecondFactorNeeded, Throttled
from keywright.model import Person, PortalSession
from keywright.server import errand as errands
from keywright.server.callers import session_cookie, sign_off, token_of
from keywright.server.console import words
from keywright.server.console.visits import EVERYWHERE, Nobody, Page, Visit, field
from keywright.server.errand import Invitation


def ask(visit: Nobody, request: Request) -> Response:
    """Send somebody who is not signed in to sign in, and from there to where they wanted to go.

    Who comes with the cookie of a visit that is over is led back to the host instead.
    """
    token = token_of(visit.desk.settings, request.scope)
    over = None if token is None else visit.opened.portal.left(token)
    if over is not None and "HX-Request" in request.headers:  # a script's: it is led to no other origin
        return visit.go("/portal", reason="session_ended")
    if over is not None:
        return away(visit, over, "session_ended")
    if request.method != "GET":
        return sign_in_page(visit, words.SESSION_ENDED, 401, own(request.url.path))
    to = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return visit.go("/console/sign-in", **({"to": to} if to != "/console/" else {}))


def ask_password(visit: Nobody, request: Request) -> Response:
    """Ask somebody who is signed in for their password again, and go back to where they were."""
    to = request.url.path if request.method == "GET" else visit.form.get("back", "/console/")
    return visit.go("/console/prove", to=own(to) or "/console/")


def form(visit: Nobody) -> Response:
    """The page to sign in on."""
    return sign_in_page(visit, "", 200, own(visit.query.get("to", "")))


def sign_in_page(
    visit: Nobody, problem: str, status: int, to: str, *, email: str = "", wants_code: bool = False
) -> Response:
    """The page to sign in on, with what went wrong the last time."""
    given = {"problem": problem, "to": to, "email": email, "wants_code": wants_code}
    return visit.page("sign_in.html", status=status, provider=visit.desk.provider_name, **given)


def sign_in(visit: Nobody) -> Response:
    """Sign in."""
    email, to = visit.form.get("email", ""), own(visit.form.get("to", ""))
    try:
        begun = visit.opened.sessions.sign_in(
            email,
            visit.form.get("password", ""),
            visit.form.get("code", ""),
            instead_of=token_of(visit.desk.settings, visit.request.scope) or "",
            source=visit.ip,
            request_id=visit.request_id,
        )
    except CallerError as refused:
        wants_code = isinstance(refused, SecondFactorNeeded) or bool(visit.form.get("code"))
        problem = words.CODE_NEEDED if isinstance(refused, SecondFactorNeeded) else str(refused)
        page = sign_in_page(visit, problem, refused.status, to, email=email, wants_code=wants_code)
        if isinstance(refused, Throttled):
            page.headers["Retry-After"] = str(refused.retry_after)
        return page
    return entered(visit, begun, to or "/console/")


def sign_out(visit: Visit) -> Response:
    """Sign out."""
    sign_off(visit.opened, visit.session, visit.caller.actor)
    if visit.guest is not None:
        return away(visit, visit.guest, "signed_out")
    gone = visit.go("/console/sign-in", said="signed_out")
    gone.headers["Set-Cookie"] = session_cookie(visit.desk.settings, "", 0)
    return gone


def away(visit: Nobody, over: PortalSession, reason: str) -> Response:
    """From a visit that is over to where the host wants its people, or to a page that says so; without the cookie."""
    to = over.return_url or "/portal"
    gone = visit.go(f"{to}{'&' if '?' in to else '?'}reason={reason}")
    gone.headers["Set-Cookie"] = session_cookie(visit.desk.settings, "", 0)
    return gone


def link(visit: Nobody) -> Response:
    """The page of a one-time link: what it holds stands behind ``#`` in its address, and a script reads it from there."""
    return visit.page(
        "link.html",
        problem="",
        kind="",
        token="",
        email="",
        has_password=False,
        has_factor=False,
        name="",
        provider="",
        by_provider=None,
    )


def read_link(visit: Nobody) -> Response:
    """What a one-time link is for."""
    token = visit.form.get("token", "").strip().rpartition("#")[2]
    return _link_page(visit, token, "", 200)


def follow(visit: Nobody) -> Response:
    """Follow a one-time link."""
    token = visit.form.get("token", "")
    try:
        if visit.form.get("password", "") != visit.form.get("again", visit.form.get("password", "")):
            raise Invalid(words.NOT_THE_SAME, path="again")
        begun = visit.opened.sessions.follow(
            token,
            visit.form.get("password", ""),
            code=visit.form.get("code", ""),
            email=field(visit.form, "email"),
            name=field(visit.form, "name"),
            source=visit.ip,
            request_id=visit.request_id,
        )
    except NotFound as refused:
        return _link_page(visit, "", str(refused), 404)
    except CallerError as refused:
        return _link_page(visit, token, str(refused), refused.status)
    return entered(visit, begun, "/console/")


def _link_page(visit: Nobody, token: str, problem: str, status: int) -> Response:
    kind, person = "", None
    if token:
        try:
            kind, person = visit.opened.sessions.meant(token)
        except NotFound as refused:
            problem, status, token = str(refused), 404, ""
    return visit.page(
        "link.html",
        status=status,
        problem=problem,
        kind=kind,
        token=token,
        email=visit.form.get("email", "") if person is None else person.email,
        has_password=kind == "invitation" and person is not None and person.has_password,
        provider=visit.desk.provider_name,
        by_provider=None if not _is_theirs(visit, kind, person) else _invited_at(visit, token),
        has_factor=person is not None and person.factor_since is not None,
        name=visit.form.get("name", ""),
    )


def _is_theirs(visit: Nobody, kind: str, person: Person | None) -> bool:
    """Whether an invitation can be taken by signing in by the provider."""
    issuer = visit.desk.settings.oidc_issuer
    return kind == "invitation" and person is not None and issuer in {one.issuer for one in person.identities}


def _invited_at(visit: Nobody, token: str) -> str:
    """Where an invitation is taken by signing in: sealed, since what a link holds stands in no address that is sent."""
    sealed = errands.seal(visit.opened.keyring, Invitation(token, visit.opened.clock()))
    return f"/console/sign-in/provider?{urlencode({'invited': sealed})}"


def home(visit: Visit) -> Response:
    """To where one's work is."""
    if visit.guest is not None:
        return visit.go(begins_at(visit.guest))
    if visit.person.operator:
        return visit.go(f"/console/{EVERYWHERE}/accounts")
    if not visit.places:
        return visit.page("nowhere.html")
    return visit.go(f"/console/@{quote(visit.places[0], safe='')}")


def begins_at(guest: PortalSession) -> str:
    """The first page of a visitor of the portal: the keys, or a choice of keyspaces."""
    home = f"/console/@{quote(guest.account, safe='')}"
    return home if guest.keyspace is None else f"{home}/{quote(guest.keyspace, safe='')}/keys"


def profile(visit: Visit) -> Response:
    """One's own page: sessions, and the password."""
    return _profile(visit, "", 200)


def _profile(visit: Visit, problem: str, status: int) -> Response:
    sessions = visit.opened.sessions.list(visit.person)
    return visit.page("profile.html", status=status, sessions=sessions, problem=problem)


def end_session(visit: Visit) -> Response:
    """End one of one's sessions."""
    visit.opened.sessions.end(visit.session, visit.form.get("session", ""), actor=visit.caller.actor)
    return visit.go("/console/me", said="session_ended")


def change_password(visit: Visit) -> Response:
    """Take another password."""
    try:
        if visit.form.get("password") != visit.form.get("again"):
            raise Invalid(words.NOT_THE_SAME, path="again")
        begun = visit.opened.sessions.change_password(
            visit.session,
            visit.form.get("current", ""),
            visit.form.get("password", ""),
            actor=visit.caller.actor,
        )
    except CallerError as refused:
        return _profile(visit, str(refused), refused.status)
    return entered(visit, begun, "/console/me", said="password_changed")


def prove_form(visit: Visit) -> Response:
    """The page on which the password is given again."""
    return _prove_page(visit, "", 200, own(visit.query.get("to", "")))


def _prove_page(visit: Visit, problem: str, status: int, to: str) -> Response:
    ours = visit.desk.settings.oidc_issuer in {one.issuer for one in visit.person.identities}
    given = {"provider": visit.desk.provider_name if ours else "", "problem": problem, "to": to}
    return visit.page("prove.html", status=status, **given)


def prove(visit: Visit) -> Response:
    """Give the password again."""
    to = own(visit.form.get("to", ""))
    try:
        begun = visit.opened.sessions.prove_again(
            visit.session,
            visit.form.get("password", ""),
            visit.form.get("code", ""),
            actor=visit.caller.actor,
        )
    except CallerError as refused:
        return _prove_page(visit, str(refused), refused.status, to)
    return entered(visit, begun, to or "/console/")


def entered(visit: Nobody, begun: Begun, to: str, **query: str) -> Response:
    """On to another page, under the cookie of a session that has just begun."""
    gone = visit.go(to, **query)
    gone.headers["Set-Cookie"] = session_cookie(visit.desk.settings, begun.token, LONGEST)
    return gone


def own(to: str) -> str:
    """A page of ours to go to; of anybody else's nothing is left. A browser reads ``//`` and ``/\\`` as another site."""
    plain = to.startswith("/") and to[1:2] not in ("/", "\\") and to.isprintable() and "\\" not in to
    return to if plain else ""


PAGES = (
    Page("GET", "/console/sign-in", form, anybody=True),
    Page("POST", "/console/sign-in", sign_in, anybody=True),
    Page("POST", "/console/sign-out", sign_out, own=True),
    Page("GET", "/console/link", link, anybody=True),
    Page("POST", "/console/link", read_link, anybody=True),
    Page("POST", "/console/link/follow", follow, anybody=True),
    Page("GET", "/", home),
    Page("GET", "/console", home),
    Page("GET", "/console/", home),
    Page("GET", "/console/me", profile, own=True, password=True),
    Page("POST", "/console/me/session", end_session, own=True, password=True),
    Page("POST", "/console/me/password", change_password, own=True, password=True),
    Page("GET", "/console/prove", prove_form, own=True, password=True),
    Page("POST", "/console/prove", prove, own=True, password=True),
)
