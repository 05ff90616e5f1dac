"""One request to the console: who visits, where they are, what they may do here, and how they are answered."""

import hmac
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from keywright import __version__, roles
from keywright.desk.grants import Reach
from keywright.errors import Forbidden, NotFound
from keywright.installation import Installation
from keywright.model import Account, Keyspace, Person, PortalSession
from keywright.server.callers import (
    Caller,
    CrossSite,
    PasswordNeeded,
    SecondFactorMissing,
    actor_of,
    csrf_token,
    lacks_factor,
    refuse_other_sites,
    signed_in,
    standing,
)
from keywright.server.console import assets, drawing, words
from keywright.server.provider import Provider
from keywright.server.proxies import canonical
from keywright.settings import Settings

#: Stands in a path where an operator sees the whole installation.
EVERYWHERE: Final = "operator"


class Typed(dict[str, str]):
    """What was typed; a field that was not is empty."""

    def __missing__(self, _name: str) -> str:
        return ""


class Page(NamedTuple):
    """A page: how it is asked for, what it takes to open it, and what makes it."""

    method: str
    path: str
    make: Callable[[Any], Response]
    scope: str | None = None  # None: whoever is signed in
    anybody: bool = False
    operator: bool = False
    fresh: bool = False  # the password must have been given a short while before
    own: bool = False  # one's own signing in: open also to whoever must set up a second factor first
    password: bool = False  # about one's password, or what goes with it: a visitor of the portal has none


def _uncounted(_name: str, *_labels: str) -> None:
    """Count nothing: who makes pages without a server has no metrics."""


class Desk:
    """What every page is made from: the installation, the settings, the templates."""

    def __init__(
        self, opened: Installation, settings: Settings, count: Callable[..., None] = _uncounted
    ) -> None:
        self.opened = opened
        self.settings = settings
        self.count = count
        self.provider = Provider(settings) if settings.oidc_issuer else None
        self._templates = Environment(
            loader=PackageLoader("keywright.server.console"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(asset=assets.address, words=words, version=__version__)
        self._templates.filters.update(
            ago=drawing.ago, date=drawing.date, exact=drawing.exact, number=drawing.number, url=_quoted
        )

    @property
    def provider_name(self) -> str:
        """What people call the identity provider; nothing where there is none."""
        return self.settings.oidc_name if self.provider is not None else ""

    def render(self, template: str, **context: Any) -> str:
        """Fill a template."""
        return self._templates.get_template(template).render(**context)

    def error(self, visit: "Nobody", status: int, detail: str) -> Response:
        """A page that says what went wrong, and what to do."""
        return visit.page("error.html", status=status, detail=detail, title=words.error(status))


class Nobody:
    """A visit by whoever it is."""

    caller: Caller | None = None
    record: Account | None = None
    spaces: Sequence[Keyspace] = ()
    account: str | None = None
    space: Keyspace | None = None

    def __init__(self, desk: Desk, request: Request, body: bytes) -> None:
        self.desk = desk
        self.opened = desk.opened
        self.request = request
        self.path: str = request.url.path if request.scope["path"] else ""
        self.query = Typed(request.query_params)
        pairs = (
            parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=300)
            if body
            else []
        )
        self.form = Typed(pairs)
        self._pairs = pairs

    def every(self, name: str) -> list[str]:
        """Every value of a field of the form."""
        return [value for given, value in self._pairs if given == name]

    @property
    def ip(self) -> str:
        """The client's address."""
        held = self.request.scope.get("keywright.client")
        return held or canonical(self.request.client.host if self.request.client else "") or ""

    @property
    def request_id(self) -> str:
        """The request's id."""
        return str(self.request.scope["keywright.request_id"])

    def page(self, template: str, *, status: int = 200, **context: Any) -> Response:
        """An HTML page."""
        return HTMLResponse(
            self.desk.render(template, visit=self, status=status, now=self.opened.clock(), **context), status
        )

    def go(self, path: str, **query: str) -> Response:
        """On to another page."""
        return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, 303)

    @property
    def menu(self) -> list[Any]:
        """Where one can go; nobody anywhere."""
        return []

    @property
    def csrf(self) -> str:
        """What every form holds; nobody's is empty."""
        return ""

    @property
    def person(self) -> Person | None:
        """Who visits."""
        return None

    @property
    def guest(self) -> PortalSession | None:
        """What the host has let a visitor of the portal do; ``None`` for whoever is none."""
        return None

    @property
    def look(self) -> Keyspace | None:
        """The keyspace by whose profile the portal looks: the one that is open, or the first that the visitor sees."""
        return None

    @property
    def brand(self) -> str:
        """Whose pages these are, as they say it."""
        return self.look.portal.title if self.look and self.look.portal.title else words.BRAND

    @property
    def said(self) -> str:
        """What to tell of the act before."""
        return words.SAID.get(self.query.get("said", ""), "")


class Visit(Nobody):
    """A visit by a person signed in, in an account or everywhere."""

    caller: Caller

    @classmethod
    def of(cls, desk: Desk, page: Page, request: Request, body: bytes) -> Self:
        """Whoever visits a page. Raises ``SignedOut``, ``CrossSite``, ``Forbidden``, ``NotFound`` or ``PasswordNeeded``."""
        visit = cls(desk, request, body)
        session = signed_in(desk.opened, desk.settings, request.scope)
        actor = actor_of(session, visit.ip, visit.request_id)
        visit.account = request.path_params.get("account")
        if page.operator and not session.person.operator:
            raise Forbidden(words.OPERATORS_ONLY)
        if page.password and session.visit is not None:
            raise Forbidden(words.ELSEWHERE)
        if (
            visit.account is None and not session.person.operator
        ):  # one's own pages: no account, and no right in any
            visit.caller = Caller(Reach(account=""), actor, frozenset(), session=session)
        else:
            visit.caller = standing(session, visit.account, actor)
        if page.method == "POST":
            visit._check_form(desk.settings)
        visit._enter(page)
        return visit

    def _check_form(self, settings: Settings) -> None:
        refuse_other_sites(settings, self.request.scope)
        given = self.form.get("csrf", "")
        if not hmac.compare_digest(given.encode(), self.csrf.encode()):
            raise CrossSite(words.STALE_FORM)

    def _enter(self, page: Page) -> None:
        if not page.own and lacks_factor(self.desk.settings, self.session):
            raise SecondFactorMissing
        if self.account is not None:
            self.record = self.opened.accounts.get(self.account)
        name = self.request.path_params.get("keyspace")
        spaces = [one.keyspace for one in self.opened.keyspaces.list()]
        self.spaces = [near for space in spaces if (near := _within(self.reach, space)) is not None]
        if name is not None:
            self.space = next((space for space in self.spaces if space.name == name), None)
            if self.space is None:
                raise NotFound(f"there is no keyspace {name[:60]!r}")
        if page.scope is None:
            if page.fresh and not self.opened.sessions.is_fresh(self.session):
                raise PasswordNeeded
            return
        if not self.may(page.scope, self.space):
            self.opened.trail.refused(
                self.caller.actor, f"{page.method} {page.path}", page.scope, self.account
            )
            raise Forbidden(words.may_not(page.scope, self.admins))
        self.caller = self.caller.within(page.scope, spaces)
        if page.fresh and not self.opened.sessions.is_fresh(self.session):
            raise PasswordNeeded

    @property
    def session(self) -> Any:
        """The session."""
        assert self.caller.session is not None
        return self.caller.session

    @property
    def person(self) -> Person:
        """Who visits."""
        found: Person = self.session.person
        return found

    @property
    def guest(self) -> PortalSession | None:
        """What the host has let a visitor of the portal do."""
        found: PortalSession | None = self.session.visit
        return found

    @property
    def look(self) -> Keyspace | None:
        """The keyspace by whose profile the portal looks."""
        seen = [space for space in self.spaces if self.may("keys:read", space)]
        return None if self.guest is None else self.space or next(iter(seen), None)

    def page(self, template: str, *, status: int = 200, **context: Any) -> Response:
        """An HTML page; where a visitor is led back to the host from it, its policy says so."""
        answer = super().page(template, status=status, **context)
        if self.guest is not None and self.guest.return_url:
            answer.headers["Content-Security-Policy"] = policy(self.guest.return_url)
        return answer

    @property
    def reach(self) -> Reach:
        """How far they reach on this page."""
        return self.caller.reach

    @property
    def csrf(self) -> str:
        """What every form holds."""
        return csrf_token(self.opened, self.session)

    @property
    def once(self) -> str:
        """What a creating form holds, so that sending it twice makes one thing."""
        return token_hex(16)

    def may(self, scope: str, space: Keyspace | None = None) -> bool:
        """Whether a scope is theirs, here and in a keyspace."""
        if scope not in self.caller.scopes:
            return False
        if self.caller.role is None or space is None:
            return True
        return space.name not in roles.closed(self.caller.role, scope, [space])

    @property
    def home(self) -> str:
        """Where the account's pages begin."""
        return f"/console/{EVERYWHERE}" if self.account is None else f"/console/@{_quoted(self.account)}"

    def at(self, *rest: str) -> str:
        """The address of a page of the account."""
        return "/".join([self.home, *map(_quoted, rest)])

    def keys_at(self, *rest: str) -> str:
        """The address of a page of the keyspace's keys."""
        assert self.space is not None
        return self.at(self.space.name, "keys", *rest)

    @property
    def places(self) -> list[str]:
        """The accounts that one can work in."""
        return [held.account for held in self.person.memberships if held.accepted_at is not None]

    @property
    def admins(self) -> list[str]:
        """Whom of the account to ask for what one may not do; a visitor is told of nobody."""
        if self.guest is not None:
            return []
        people = self.opened.people.list(account=self.account, limit=200).items if self.account else ()
        roles_here = {
            person.email: held.role
            for person in people
            for held in person.memberships
            if held.account == self.account and person.state == "active"
        }
        return [email for email, role in roles_here.items() if role in ("owner", "admin")]

    @property
    def menu(self) -> list[Any]:
        """Where one can go from here, as far as one may."""
        if self.account is None:
            return words.operator_menu() if self.person.operator else []
        keys = [
            words.Entry(
                space.navigation[:-1] if len(space.navigation) > 1 else (space.title,),
                words.label(space, "title"),
                self.at(space.name, "keys"),
            )
            for space in self.spaces
            if self.may("keys:read", space)
        ]
        others = [
            words.Entry(("Account",), text, self.at(path))
            for scope, text, path in words.ACCOUNT_PAGES
            if self.may(scope)
        ]
        return keys + others

    @property
    def admin_at(self) -> str | None:
        """Where the shield leads: the keys, for whoever manages some."""
        managed = [space for space in self.spaces if self.account and self.may("keys:write", space)]
        if not managed:
            return None
        here = self.space if self.space in managed else managed[0]
        assert here is not None
        return self.at(here.name, "keys")


def _within(reach: Reach, space: Keyspace) -> Keyspace | None:
    """A keyspace as far as somebody reaches: with one environment, or all; ``None`` where it is not there for them."""
    if reach.keyspace not in (None, space.name):
        return None
    if reach.environment is None:
        return space
    near = {name: code for name, code in space.environments.items() if name == reach.environment}
    return msgspec.structs.replace(space, environments=near) if near else None


def policy(leads_to: str = "") -> str:
    """What a page may load and where its forms go: to us and, by way of signing out, to where a visitor came from.

    A browser holds a form to this also where its answer leads on.
    """
    host = f" {'/'.join(leads_to.partition('?')[0].split('/')[:3])}" if leads_to else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        f"font-src 'self'; form-action 'self'{host}; base-uri 'none'; object-src 'none'; frame-ancestors 'none'"
    )


def _quoted(text: object) -> str:
    return quote(str(text), safe="")


def field(form: Mapping[str, str], name: str) -> str | None:
    """A field of a form that was filled."""
    return form.get(name, "").strip() or None


__all__ = ["EVERYWHERE", "Desk", "Nobody", "Page", "Typed", "Visit", "field", "policy"]
