"""Signing in by the company's identity provider: on to it, back from it, and a code of one's second factor in between."""

import hmac
import logging
from typing import Final

from starlette.responses import Response

from keywright.desk.identities import Asked, Rules, Vouched
from keywright.desk.tokens import Begun
from keywright.errors import CallerError, NotFound, SecondFactorNeeded, SignInFailed, Throttled, Unavailable
from keywright.model import Actor, Person
from keywright.server import errand as errands
from keywright.server.callers import carried, carrying, own_origins, signed_in, token_of
from keywright.server.console import words
from keywright.server.console.entry import entered, own, sign_in_page
from keywright.server.console.visits import Nobody, Page, Visit
from keywright.server.errand import LIFE, Errand, Invitation
from keywright.server.provider import Astray, Provider

log = logging.getLogger("keywright")
BACK: Final = "/console/sign-in/back"
#: The longest address of ours to go on to: what a browser carries has to fit a cookie.
_LONGEST: Final = 1000  # characters


def begin(visit: Nobody) -> Response:
    """On to the provider, to sign in."""
    sealed, now = visit.query.get("invited", ""), visit.opened.clock()
    invited = errands.unseal(visit.opened.keyring, sealed, Invitation, now) if sealed else None
    link = "" if invited is None else invited.link
    return _send(visit, errands.begin(_back(visit), _to(visit), now, link=link))


def prove(visit: Visit) -> Response:
    """On to the provider, to prove oneself again."""
    if not comes_by(visit, visit.person):
        raise NotFound(words.NOT_FOUND)
    now, session = visit.opened.clock(), visit.session.id
    return _send(visit, errands.begin(_back(visit), _to(visit), now, session=session))


def arrive(visit: Nobody) -> Response:
    """Back from the provider."""
    provider, carrier = _provider(visit), _carried(visit)
    visit.opened.sessions.be_patient(visit.ip)
    try:
        if carrier is None or not hmac.compare_digest(
            carrier.state.encode(), visit.query.get("state", "").encode()
        ):
            raise Astray("this browser has begun no such sign-in, or too long ago")
        if carrier.said is not None or not visit.opened.sessions.use_once(carrier.state):
            raise Astray("the answer was brought before")
        if "error" in visit.query:
            return _turned_away(visit, carrier)
        said = provider.vouch(visit.query, carrier, visit.opened.clock())
    except Astray as odd:
        return _astray(visit, odd)
    except Unavailable as trouble:
        return _down(visit, trouble)
    return _come(visit, carrier, said, "")


def code(visit: Nobody) -> Response:
    """Give the code of one's second factor here, having come back from the provider."""
    _provider(visit)
    carrier = _carried(visit)
    if carrier is None or carrier.said is None:
        return _astray(visit, Astray("nobody has come back from the provider, or too long ago"))
    return _come(visit, carrier, carrier.said, visit.form.get("code", ""))


def comes_by(visit: Nobody, person: Person | None) -> bool:
    """Whether somebody signs in by the provider that is set up."""
    issuer = visit.desk.settings.oidc_issuer
    return bool(issuer) and person is not None and any(one.issuer == issuer for one in person.identities)


def _send(visit: Nobody, carrier: Errand) -> Response:
    try:
        gone = visit.go(_provider(visit).address(carrier))
    except Unavailable as trouble:
        return _down(visit, trouble)
    visit.desk.count("provider_sign_ins", "begun")
    return _carry(visit, gone, carrier)


def _come(visit: Nobody, carrier: Errand, said: Vouched, given: str) -> Response:
    """In, for whom the provider means, or to the code that is wanted of them."""
    try:
        begun = (
            _proven(visit, carrier, said, given) if carrier.session else _let_in(visit, carrier, said, given)
        )
    except SecondFactorNeeded:
        return _code_page(visit, carrier, said, "", 200)
    except (SignInFailed, Throttled) as refused:
        visit.opened.sessions.note_failure(visit.ip)
        if given:
            return _code_page(visit, carrier, said, words.code_refused(refused), refused.status)
        visit.desk.count("provider_sign_ins", "refused")
        problem = words.SOMEBODY_ELSE if carrier.session else words.NOT_LET_IN
        return _put_down(visit, sign_in_page(visit, problem, 403, carrier.to))
    except CallerError as refused:
        return _put_down(visit, sign_in_page(visit, str(refused), refused.status, carrier.to))
    visit.desk.count("provider_sign_ins", "in")
    return _put_down(visit, entered(visit, begun, carrier.to))


def _let_in(visit: Nobody, carrier: Errand, said: Vouched, given: str) -> Begun:
    settings = visit.desk.settings
    rules = Rules(settings.oidc_domains, settings.oidc_roles)
    here = token_of(settings, visit.request.scope) or ""
    return visit.opened.identities.enter(
        said, rules, Asked(given, carrier.link, here, visit.ip, visit.request_id)
    )


def _proven(visit: Nobody, carrier: Errand, said: Vouched, given: str) -> Begun:
    session = signed_in(visit.opened, visit.desk.settings, visit.request.scope)
    actor = Actor("person", session.person.id, visit.ip, visit.request_id)
    if session.id != carrier.session:
        raise SignInFailed
    return visit.opened.identities.prove_again(session, said, given, actor=actor)


def _code_page(visit: Nobody, carrier: Errand, said: Vouched, problem: str, status: int) -> Response:
    waiting = Errand(
        *(carrier.state, carrier.nonce, "", carrier.back, carrier.to),
        *(
            visit.opened.clock() if carrier.said is None else carrier.began_at,
            carrier.session,
            carrier.link,
            said,
        ),
    )
    return _carry(visit, visit.page("code.html", status=status, problem=problem), waiting)


def _turned_away(visit: Nobody, carrier: Errand) -> Response:
    visit.desk.count("provider_sign_ins", "refused")
    log.warning("the identity provider let somebody go without signing in (request %s)", visit.request_id)
    return _put_down(visit, sign_in_page(visit, words.TURNED_AWAY, 403, carrier.to))


def _astray(visit: Nobody, odd: Astray) -> Response:
    visit.opened.sessions.note_failure(visit.ip)
    visit.desk.count("provider_sign_ins", "astray")
    log.warning("signing in by the provider failed: %s (request %s)", odd, visit.request_id)
    return _put_down(visit, sign_in_page(visit, words.ASTRAY, 400, ""))


def _down(visit: Nobody, trouble: Unavailable) -> Response:
    visit.desk.count("provider_sign_ins", "unavailable")
    log.warning("signing in by the provider failed: %s (request %s)", trouble, visit.request_id)
    return _put_down(visit, sign_in_page(visit, words.PROVIDER_DOWN, 503, ""))


def _provider(visit: Nobody) -> Provider:
    """The provider. Raises ``NotFound`` where none is set up."""
    if visit.desk.provider is None:
        raise NotFound(words.NOT_FOUND)
    return visit.desk.provider


def _to(visit: Nobody) -> str:
    to = own(visit.query.get("to", ""))
    return to if 0 < len(to) <= _LONGEST else "/console/"


def _back(visit: Nobody) -> str:
    return own_origins(visit.desk.settings, visit.request.scope)[0] + BACK


def _carried(visit: Nobody) -> Errand | None:
    text = carried(visit.desk.settings, visit.request.scope)
    return None if text is None else errands.unseal(visit.opened.keyring, text, Errand, visit.opened.clock())


def _carry(visit: Nobody, answer: Response, carrier: Errand) -> Response:
    sealed = errands.seal(visit.opened.keyring, carrier)
    answer.headers.append("Set-Cookie", carrying(visit.desk.settings, sealed, LIFE))
    return answer


def _put_down(visit: Nobody, answer: Response) -> Response:
    answer.headers.append("Set-Cookie", carrying(visit.desk.settings, "", 0))
    return answer


PAGES: Final = (
    Page("GET", "/console/sign-in/provider", begin, anybody=True),
    Page("GET", BACK, arrive, anybody=True),
    Page("POST", "/console/sign-in/code", code, anybody=True),
    Page("GET", "/console/prove/provider", prove, own=True),
)
