"""Who calls the management API: a management key, a person signed in, or a visitor whom the host vouches for.

A person is known by a cookie. A cookie is sent by a browser whoever wrote the page that asks, so a change is carried out
for one only where the browser says that the page is ours (``Sec-Fetch-Site``, or ``Origin``) and the page knows a token
that no other site can read. Where a management key comes with a request, cookies are not looked at.
"""

import hmac
from http.cookies import CookieError, SimpleCookie
from typing import Final

import msgspec

from keywright import roles
from keywright.desk.grants import EVERYTHING, Ceiling, Giver, Held, Holder, Reach
from keywright.errors import CallerError, Invalid, NotFound
from keywright.installation import Installation
from keywright.model import Actor, KeyRecord, Keyspace, Membership, Role, Session, Verdict
from keywright.profiles import MANAGEMENT_SCOPES
from keywright.server.problems import Scope
from keywright.settings import Settings

#: What a page of ours sends beside the cookie with every change.
CSRF: Final = "x-csrf-token"
#: The account that a person acts in, where they have a place in several.
ACCOUNT: Final = "keywright-account"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class SignedOut(CallerError):
    """Nobody is signed in: there is no cookie, or its session has ended."""

    code = "signed_out"

    def __init__(self) -> None:
        super().__init__("Nobody is signed in, or the session has ended; sign in again.")


class CrossSite(CallerError):
    """A change that none of our own pages has asked for."""

    code = "cross_site"

    def __init__(self, lacking: str) -> None:
        super().__init__(f"Nothing was changed: {lacking}.")


class PasswordNeeded(CallerError):
    """An act for which the password must have been given a short while ago."""

    code = "password_needed"

    def __init__(self) -> None:
        super().__init__("Give your password again (POST /v1/session/prove), then repeat this.")


class SecondFactorMissing(CallerError):
    """The installation wants a second factor of this person, who can do nothing but set one up."""

    code = "second_factor_missing"

    def __init__(self) -> None:
        super().__init__("Your role needs a second factor here; set one up first (POST /v1/session/factor).")


class Caller(msgspec.Struct, frozen=True):
    """Who calls, how far they reach, what they may do, and their name in the audit trail."""

    reach: Reach
    actor: Actor
    scopes: frozenset[str]
    verdict: Verdict | None = None  # of a management key
    session: Session | None = None  # of a person, or of a visitor
    role: Role | None = None  # of either in the account they act in; an operator has none

    @property
    def key(self) -> KeyRecord | None:
        """The management key."""
        return None if self.verdict is None else self.verdict.key

    @property
    def holder(self) -> Holder:
        """What they can give a management key at most."""
        return self.key or Held(self.scopes)

    @property
    def asker(self) -> str:
        """What tells this caller's calls from others' under one ``Idempotency-Key``: of visitors, whom the host names, the
        account as well."""
        return (
            self.actor.id if self.actor.kind != "visitor" else f"visitor:{self.reach.account}:{self.actor.id}"
        )

    @property
    def giver(self) -> Giver | None:
        """Which roles they can give; an operator any."""
        return None if self.is_operator else Giver(self.role, self.scopes)

    @property
    def is_operator(self) -> bool:
        """Whether a person calls who runs the installation."""
        return self.session is not None and self.session.person.operator

    def within(self, scope: str, keyspaces: list[Keyspace]) -> "Caller":
        """The same caller, reaching only the keyspaces in which their role has a scope."""
        if self.role is None:
            return self
        shut = roles.closed(self.role, scope, keyspaces)
        return msgspec.structs.replace(self, reach=msgspec.structs.replace(self.reach, closed=shut))


def lacks_factor(settings: Settings, session: Session) -> bool:
    """Whether the installation wants a second factor of a person who has none, and whose provider has seen none.

    A visitor was signed in by the host.
    """
    proven = session.person.factor_since is not None or session.factor_at is not None
    return session.visit is None and not proven and roles.needs_factor(settings.second_factor, session.person)


def actor_of(session: Session, ip: str, request_id: str) -> Actor:
    """Who acts in a session: a person by our id, a visitor by what the host calls them."""
    if session.visit is not None:
        return Actor("visitor", session.visit.subject, ip, request_id)
    return Actor("person", session.person.id, ip, request_id)


def sign_off(installation: Installation, session: Session, actor: Actor) -> None:
    """End a session, or a visit."""
    if session.visit is None:
        installation.sessions.end(session, actor=actor)
    else:
        installation.portal.end(session.id, actor=actor)


def cookie_name(settings: Settings) -> str:
    """What the cookie is called: with ``__Host-`` a browser takes it from this host over HTTPS only."""
    return "__Host-keywright" if _is_secure(settings) else "keywright-session"


def session_cookie(settings: Settings, token: str, seconds: int) -> str:
    """The header that sets the cookie; with no seconds, that removes it."""
    return _cookie(settings, cookie_name(settings), token, seconds)


def carrying(settings: Settings, sealed: str, seconds: int) -> str:
    """The header that has a browser carry something to the identity provider and back; with no seconds, no more."""
    return _cookie(settings, _carrier_name(settings), sealed, seconds)


def _carrier_name(settings: Settings) -> str:
    return "__Host-keywright-errand" if _is_secure(settings) else "keywright-errand"


def _cookie(settings: Settings, name: str, value: str, seconds: int) -> str:
    secure = "; Secure" if _is_secure(settings) else ""
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}"


def _is_secure(settings: Settings) -> bool:
    return settings.public_url.startswith("https://")


def csrf_token(installation: Installation, session: Session) -> str:
    """What a page sends with every change: bound to the session, and to the instant its password was given last."""
    about = f"csrf {session.id} {session.proven_at}".encode()
    return hmac.digest(installation.keyring.cursor, about, "sha256").hex()


def token_of(settings: Settings, scope: Scope) -> str | None:
    """What the session's cookie holds, where there is one."""
    return _held(scope, cookie_name(settings))


def carried(settings: Settings, scope: Scope) -> str | None:
    """What a browser carries to the identity provider and back."""
    return _held(scope, _carrier_name(settings))


def _held(scope: Scope, name: str) -> str | None:
    held = [value.decode("latin-1") for given, value in scope["headers"] if given == b"cookie"]
    try:
        found = SimpleCookie("; ".join(held)).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


def signed_in(installation: Installation, settings: Settings, scope: Scope) -> Session:
    """The session whose cookie came with a request. Raises ``SignedOut``."""
    token = token_of(settings, scope)
    session = None if token is None else installation.sessions.find(token) or installation.portal.find(token)
    if session is None:
        raise SignedOut
    return session


def of_person(installation: Installation, settings: Settings, scope: Scope, ip: str | None) -> Caller:
    """The person whose cookie came with a request. Raises ``SignedOut``, ``CrossSite``, ``NotFound`` or ``Invalid``."""
    session = signed_in(installation, settings, scope)
    if scope["method"] not in _SAFE:
        refuse_other_sites(settings, scope)
        given = _header(scope, CSRF)
        if not hmac.compare_digest(given.encode(), csrf_token(installation, session).encode()):
            raise CrossSite(f"the header {CSRF} does not hold the token of this session (GET /v1/session)")
    actor = actor_of(session, ip or "", scope["keywright.request_id"])
    return standing(session, _header(scope, ACCOUNT) or None, actor)


def standing(session: Session, account: str | None, actor: Actor) -> Caller:
    """What a person may do in an account; an operator without one, anywhere. Raises ``NotFound`` or ``Invalid``."""
    person = session.person
    if person.operator:
        reach = EVERYTHING if account is None else Reach(account=account)
        return Caller(reach, actor, frozenset(MANAGEMENT_SCOPES), session=session)
    places = {held.account: held for held in person.memberships if held.accepted_at is not None}
    if account is None and len(places) > 1:
        raise Invalid(f"is needed, as a header: {', '.join(sorted(places))}", path=ACCOUNT)
    held = next(iter(places.values()), None) if account is None else places.get(account)
    if held is None:
        raise NotFound(
            "there is no account of yours" if account is None else f"there is no account {account[:60]!r}"
        )
    rights = roles.RIGHTS[held.role] if session.visit is None else session.rights
    return Caller(_reach(session, held), actor, rights, session=session, role=held.role)


def _reach(session: Session, held: Membership) -> Reach:
    visit = session.visit
    return Reach(
        account=held.account,
        keyspace=None if visit is None else visit.keyspace,
        environment=None if visit is None else visit.environment,
        ceiling=None if held.access == "all" else Ceiling(held.access, held.scopes),
        acts_of=f"person:{session.person.id}" if held.role in roles.OWN_ACTS else None,
    )


def refuse_other_sites(settings: Settings, scope: Scope) -> None:
    """Refuse what a page of another site makes a browser send. Raises ``CrossSite``."""
    site = _header(scope, "sec-fetch-site")
    if site:
        if site != "same-origin":
            raise CrossSite(f"the browser says that it came from another site (Sec-Fetch-Site: {site[:20]})")
        return
    origin = _header(scope, "origin")
    if origin and origin not in own_origins(settings, scope):
        raise CrossSite("the browser says that it came from another site (Origin)")


def own_origins(settings: Settings, scope: Scope) -> tuple[str, ...]:
    """Where our own pages are: as it is set, or, for this machine alone, as the request names it."""
    if settings.public_url:
        scheme, _, rest = settings.public_url.partition("://")
        return (f"{scheme}://{rest.partition('/')[0]}",)
    host = _header(scope, "host")
    return (f"http://{host}",)


def _header(scope: Scope, name: str) -> str:
    """A header that stands once; one that stands twice is as good as none."""
    wanted = name.encode()
    found = [value.decode("latin-1") for given, value in scope["headers"] if given == wanted]
    return found[0] if len(found) == 1 else ""
