"""``/v1/session``: signing in and out, and the one-time links by which people come in. A person's own business."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from keywright import shown
from keywright.desk.sessions import LONGEST, Begun
from keywright.errors import Forbidden
from keywright.installation import Installation
from keywright.model import Session
from keywright.roles import needs_factor
from keywright.server.api.caller import Configured, Opened
from keywright.server.api.keys import Body, uncached
from keywright.server.callers import (
    Caller,
    PasswordNeeded,
    SignedOut,
    csrf_token,
    refuse_other_sites,
    session_cookie,
    sign_off,
    token_of,
)
from keywright.settings import Settings
from keywright.times import rfc3339

router = APIRouter(prefix="/v1/session", tags=["session"])


def _signed_in(request: Request) -> Caller:
    found: Caller = request.scope["keywright.caller"]
    if found.session is None:
        raise SignedOut
    return found


def _by_password(caller: Annotated[Caller, Depends(_signed_in)]) -> Caller:
    if _session(caller).visit is not None:
        raise Forbidden("a visitor of the portal was signed in by the host, and has no password here")
    return caller


def _from_our_pages(request: Request, settings: Configured) -> None:
    refuse_other_sites(settings, request.scope)


def _fresh(caller: Annotated[Caller, Depends(_by_password)], opened: Opened) -> Caller:
    if not opened.sessions.is_fresh(_session(caller)):
        raise PasswordNeeded
    return caller


#: The same, who gave their password a short while ago.
Fresh = Annotated[Caller, Depends(_fresh)]
#: A person who is signed in: what these routes ask, whatever their role.
SignedIn = Annotated[Caller, Depends(_signed_in)]
#: The same, who signed in with a password of ours.
ByPassword = Annotated[Caller, Depends(_by_password)]
FROM_OUR_PAGES = [Depends(_from_our_pages)]


class SignIn(Body):
    """Who somebody says they are."""

    email: str
    password: str
    code: str = ""


class Proof(Body):
    """The password, once more, and a code of whoever has a second factor."""

    password: str
    code: str = ""


class Code(Body):
    """What an authenticator shows."""

    code: str


class NewPassword(Body):
    """The password as it is, and as it is to be."""

    current: str
    password: str


class LinkToken(Body):
    """What a one-time link holds."""

    token: str


class Following(Body):
    """What a one-time link holds, and what is chosen by it."""

    token: str
    password: str
    code: str = ""
    email: str | None = None
    name: str | None = None


@router.post("", status_code=201, dependencies=FROM_OUR_PAGES)
def sign_in(
    body: SignIn, request: Request, opened: Opened, settings: Configured, response: Response
) -> dict[str, Any]:
    """Sign in. The cookie of the answer is the session; who it is, is said in the body."""
    here = token_of(settings, request.scope) or ""
    begun = opened.sessions.sign_in(body.email, body.password, body.code, instead_of=here, **_asking(request))
    return _entered(begun, opened, settings, response)


@router.post("/link", dependencies=FROM_OUR_PAGES)
def read_link(body: LinkToken, opened: Opened, response: Response) -> dict[str, Any]:
    """What a one-time link is for, and whom."""
    uncached(response)
    kind, person = opened.sessions.meant(body.token)
    return {
        "kind": kind,
        "email": None if person is None else person.email,
        "has_password": person is not None and person.has_password,
        "second_factor": person is not None and person.factor_since is not None,
    }


@router.post("/follow", status_code=201, dependencies=FROM_OUR_PAGES)
def follow(
    body: Following, request: Request, opened: Opened, settings: Configured, response: Response
) -> dict[str, Any]:
    """Follow a one-time link: choose a password, and be signed in. It works once."""
    begun = opened.sessions.follow(
        body.token, body.password, code=body.code, email=body.email, name=body.name, **_asking(request)
    )
    return _entered(begun, opened, settings, response)


@router.get("")
def whoami(caller: SignedIn, opened: Opened, response: Response) -> dict[str, Any]:
    """Who is signed in, and the token that every change must come with."""
    uncached(response)
    return _said(_session(caller), opened)


@router.delete("", status_code=204)
def sign_out(caller: SignedIn, opened: Opened, settings: Configured) -> Response:
    """Sign out."""
    sign_off(opened, _session(caller), caller.actor)
    gone = Response(status_code=204)
    uncached(gone)
    gone.headers["Set-Cookie"] = session_cookie(settings, "", 0)
    return gone


@router.get("/list")
def list_sessions(caller: ByPassword, opened: Opened, response: Response) -> dict[str, Any]:
    """The person's own sessions, oldest first."""
    uncached(response)
    here = _session(caller)
    return {
        "items": [shown.session(one, current=one.id == here.id) for one in opened.sessions.list(here.person)],
        "next_cursor": None,
    }


@router.get("/factor")
def factor(caller: ByPassword, opened: Opened, settings: Configured, response: Response) -> dict[str, Any]:
    """How it is with one's second factor."""
    uncached(response)
    person = _session(caller).person
    standing = opened.factors.standing(person)
    return {
        "since": None if standing.since is None else rfc3339(standing.since),
        "recovery_codes_left": standing.codes_left,
        "mandatory": needs_factor(settings.second_factor, person),
    }


@router.post("/factor", status_code=201)
def begin_factor(caller: Fresh, opened: Opened, response: Response) -> dict[str, Any]:
    """Draw a secret for an authenticator. It counts once a code of it was given; the answer is its only sight."""
    uncached(response)
    offered = opened.factors.begin(_session(caller), actor=caller.actor)
    return {"uri": offered.uri, "secret": offered.secret, "ends_at": rfc3339(offered.ends_at)}


@router.post("/factor/confirm")
def confirm_factor(
    body: Code, caller: Fresh, opened: Opened, settings: Configured, response: Response
) -> dict[str, Any]:
    """Give the first code: from now on signing in takes one. The recovery codes of the answer are in no other."""
    confirmed = opened.factors.confirm(_session(caller), body.code, actor=caller.actor)
    return _entered(confirmed, opened, settings, response) | {"recovery_codes": list(confirmed.codes)}


@router.post("/factor/codes")
def renew_codes(caller: Fresh, opened: Opened, response: Response) -> dict[str, Any]:
    """Ten new recovery codes; none of the old ones works any more."""
    uncached(response)
    codes = opened.factors.renew_codes(_session(caller), actor=caller.actor)
    return {"recovery_codes": list(codes)}


@router.delete("/factor")
def remove_factor(caller: Fresh, opened: Opened, settings: Configured, response: Response) -> dict[str, Any]:
    """Take one's second factor away. Every other session of the person ends."""
    session = _session(caller)
    mandatory = needs_factor(settings.second_factor, session.person)
    begun = opened.factors.remove(session, mandatory=mandatory, actor=caller.actor)
    return _entered(begun, opened, settings, response)


@router.delete("/{session_id}", status_code=204)
def end(session_id: str, caller: ByPassword, opened: Opened) -> Response:
    """End one of them."""
    opened.sessions.end(_session(caller), session_id, actor=caller.actor)
    gone = Response(status_code=204)
    uncached(gone)
    return gone


@router.post("/prove")
def prove(
    body: Proof, caller: ByPassword, opened: Opened, settings: Configured, response: Response
) -> dict[str, Any]:
    """Give the password again: for five minutes, acts are open that ask for it."""
    begun = opened.sessions.prove_again(_session(caller), body.password, body.code, actor=caller.actor)
    return _entered(begun, opened, settings, response)


@router.post("/password")
def change_password(
    body: NewPassword, caller: ByPassword, opened: Opened, settings: Configured, response: Response
) -> dict[str, Any]:
    """Take another password. Every other session of the person ends."""
    begun = opened.sessions.change_password(_session(caller), body.current, body.password, actor=caller.actor)
    return _entered(begun, opened, settings, response)


def _session(caller: Caller) -> Session:
    assert caller.session is not None  # held by _signed_in
    return caller.session


def _asking(request: Request) -> dict[str, str]:
    return {
        "source": request.scope["keywright.client"] or "",
        "request_id": request.scope["keywright.request_id"],
    }


def _entered(begun: Begun, opened: Installation, settings: Settings, response: Response) -> dict[str, Any]:
    uncached(response)
    response.headers["Set-Cookie"] = session_cookie(settings, begun.token, LONGEST)
    return _said(begun.session, opened)


def _said(session: Session, opened: Installation) -> dict[str, Any]:
    visit = {} if session.visit is None else {"visit": shown.own_visit(session.visit)}
    return visit | {
        "person": shown.person(session.person),
        "session": shown.session(session, current=True),
        "csrf_token": csrf_token(opened, session),
    }
