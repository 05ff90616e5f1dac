"""The console without a browser: every page for everybody, forged forms, hostile names, and what the API does as well.

The pages are those of ``console.ROUTES``: one without an entry in ``PAGES`` fails.
"""

import ast
import gzip
import os
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pyotp
import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.hygiene import FINDINGS
from keywright.model import Actor, Binding, Session
from keywright.profiles import load, source
from keywright.roles import RIGHTS, ROLES
from keywright.server import console
from keywright.server.callers import csrf_token
from keywright.server.console import HEADERS, words
from keywright.testing import Clock, copied
from people import PASSWORD, as_person, begin, member
from surfaces import Door, Reply, manager, server
from test_management_api import alerted
from test_many_keys import crowd_in

CROWD = 10_000 if os.environ.get("KEYWRIGHT_PROOF") else 450
EVERYBODY = (*ROLES, "operator", "nobody", "foreign")
KEYS = "/console/@globex/every/keys"
ONCE = "0" * 32
Begun = tuple[str, Session]


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def signed_in(begun: Begun | None) -> dict[str, str]:
    """What a browser sends with a request that a page of ours makes."""
    headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    return headers if begun is None else headers | {"Cookie": f"keywright-session={begun[0]}"}


def post(door: Door, kw: Keywright, path: str, begun: Begun | None, form: Any, **over: str) -> Reply:
    """Send a form as a page of ours does, with the token of the session; ``over`` replaces fields or headers."""
    pairs = list(form.items() if isinstance(form, dict) else form)
    if begun is not None:
        pairs.append(("csrf", csrf_token(kw.installation, begun[1])))
    headers = signed_in(begun) | {"Content-Type": "application/x-www-form-urlencoded"} | over
    return door.send("POST", path, headers, urlencode(pairs).encode())


def text(reply: Reply) -> str:
    """A page's markup."""
    return reply.body.decode()


def shown(reply: Reply, element: str) -> str:
    """The text of the element with an id."""
    found = re.search(rf'id="{element}"[^>]*>(.*?)</', text(reply), re.DOTALL)
    assert found is not None, text(reply)[:2000]
    return unescape(found[1])


# --------------------------------------------------------------------------------------------- every page, for everybody


class Things:
    """What a page is used on: made new for each visit, so that none depends on what another did."""

    def __init__(self, kw: Keywright, begun: Begun | None) -> None:
        self.kw, self.begun = kw, begun
        self.session = "" if begun is None else begun[1].id

    @property
    def key(self) -> str:
        """A key of globex."""
        return make(self.kw).key.id

    @property
    def rotating(self) -> str:
        """A key of globex with two secrets."""
        key_id = self.key
        self.kw.keys.rotate(key_id, grace_seconds=3600)
        return key_id

    @property
    def disabled(self) -> str:
        """A key of globex that is disabled."""
        key_id = self.key
        self.kw.keys.disable(key_id)
        return key_id

    @property
    def managed(self) -> str:
        """A management key of globex."""
        return self.kw.keys.create_management(
            name="CI", scopes=["verify"], binding=Binding(account="globex")
        ).key.id

    @property
    def person(self) -> str:
        """A member of globex who has not come yet."""
        return member(self.kw, "analyst").id

    @property
    def link(self) -> str:
        """What a one-time link holds."""
        invited = self.kw.installation.people.invite(
            f"{token_hex(4)}@globex.example", account="globex", role="analyst"
        )
        return invited.token

    @property
    def alert(self) -> str:
        """An alert about a key of globex."""
        return alerted(self.kw)

    @property
    def code(self) -> str:
        """What the authenticator shows that is being set up."""
        return "000000" if self.begun is None else code(self.kw, self.begun)


def code(kw: Keywright, begun: Begun) -> str:
    """The first code of a second factor that somebody sets up."""
    offered = kw.installation.factors.begin(begun[1], actor=Actor("person", "test"))
    return pyotp.TOTP(offered.secret).at(kw.installation.clock() // 1_000_000)


def armed(kw: Keywright, begun: Begun) -> Begun:
    """The same person, with a second factor."""
    done = kw.installation.factors.confirm(begun[1], code(kw, begun), actor=Actor("person", "test"))
    return done.token, done.session


class Entry(NamedTuple):
    """A page's entry: how it is answered where it opens, the form it is sent, what stands in its path, and for whom."""

    status: int = 200
    form: Callable[[Things], Any] = lambda _things: {}
    thing: Callable[[Things], str] = lambda _things: ""
    ends_session: bool = False
    armed: bool = False  # it wants somebody with a second factor


def a_key(things: Things) -> str:
    """A new key."""
    return things.key


def new_key(**over: str) -> dict[str, str]:
    """The form that makes a key in ``every``."""
    return {
        "name": "CRM sync", "description": "", "access": "all", "environment": "production", "once": ONCE
    } | over  # fmt: skip


AT = "/console/@{account}/{keyspace}/keys"
PAGES: dict[str, Entry] = {
    "GET /console/sign-in": Entry(),
    "POST /console/sign-in": Entry(
        303, lambda _: {"email": "known@globex.example", "password": PASSWORD}, ends_session=True
    ),
    "POST /console/sign-out": Entry(303, ends_session=True),
    "GET /console/sign-in/provider": Entry(404),  # none is set up: test_provider.py has one
    "GET /console/sign-in/back": Entry(404),
    "POST /console/sign-in/code": Entry(404),
    "GET /console/prove/provider": Entry(404),
    "GET /console/link": Entry(),
    "POST /console/link": Entry(200, lambda things: {"token": things.link}),
    "POST /console/link/follow": Entry(
        303, lambda things: {"token": things.link, "password": PASSWORD, "again": PASSWORD}
    ),
    "GET /": Entry(303),
    "GET /console": Entry(303),
    "GET /console/": Entry(303),
    "GET /console/me": Entry(),
    "POST /console/me/session": Entry(303, lambda things: {"session": things.session}, ends_session=True),
    "POST /console/me/password": Entry(
        303,
        lambda _: {"current": PASSWORD, "password": PASSWORD + " 2", "again": PASSWORD + " 2"},
        ends_session=True,
    ),
    "GET /console/me/factor": Entry(),
    "POST /console/me/factor": Entry(),
    "POST /console/me/factor/confirm": Entry(200, lambda things: {"code": things.code}, ends_session=True),
    "POST /console/me/factor/codes": Entry(armed=True),
    "POST /console/me/factor/remove": Entry(303, armed=True),
    "GET /console/prove": Entry(),
    "POST /console/prove": Entry(303, lambda _: {"password": PASSWORD}, ends_session=True),
    "GET /console/@{account}": Entry(),
    f"GET {AT}": Entry(),
    f"GET {AT}.csv": Entry(),
    f"GET {AT}/new": Entry(),
    f"POST {AT}": Entry(200, lambda _: new_key()),
    f"POST {AT}/bulk": Entry(303, lambda things: {"act": "disable", "key": things.key}),
    f"GET {AT}/{{key_id}}": Entry(thing=a_key),
    f"GET {AT}/{{key_id}}/edit": Entry(thing=a_key),
    f"POST {AT}/{{key_id}}/edit": Entry(
        303, lambda _: {"name": "Renamed", "access": "all", "expires": "keep"}, a_key
    ),
    f"POST {AT}/{{key_id}}/test": Entry(200, lambda _: {"header": "X-Token: none"}, a_key),
    f"POST {AT}/{{key_id}}/disable": Entry(303, thing=a_key),
    f"POST {AT}/{{key_id}}/enable": Entry(303, thing=lambda things: things.disabled),
    f"POST {AT}/{{key_id}}/finish": Entry(303, thing=lambda things: things.rotating),
    f"POST {AT}/{{key_id}}/cancel": Entry(303, thing=lambda things: things.rotating),
    f"GET {AT}/{{key_id}}/{{act}}": Entry(thing=a_key),
    f"POST {AT}/{{key_id}}/{{act}}": Entry(303, lambda _: {"name": "CRM sync"}, a_key),
    "GET /console/@{account}/people": Entry(),
    "POST /console/@{account}/people": Entry(200, lambda _: {"email": "new@x.example", "role": "analyst"}),
    "POST /console/@{account}/people/{person}": Entry(
        303, lambda _: {"role": "auditor"}, lambda things: things.person
    ),
    "GET /console/operator/people": Entry(),
    "POST /console/operator/people": Entry(200, lambda _: {"email": "op@x.example"}),
    "POST /console/operator/people/{person}": Entry(
        303, lambda _: {"act": "disable"}, lambda things: things.person
    ),
    "GET /console/@{account}/hygiene": Entry(),
    "POST /console/@{account}/hygiene": Entry(303, lambda things: {"act": "disable", "key": things.key}),
    "GET /console/@{account}/alerts": Entry(),
    "POST /console/@{account}/alerts/{alert_id}": Entry(
        303, lambda _: {"act": "acknowledge"}, lambda things: things.alert
    ),
    "GET /console/operator/alerts": Entry(),
    "POST /console/operator/alerts/{alert_id}": Entry(
        303, lambda _: {"act": "resolve"}, lambda things: things.alert
    ),
    "GET /console/@{account}/audit": Entry(),
    "GET /console/operator/audit": Entry(),
    "GET /console/@{account}/usage": Entry(),
    "GET /console/operator/usage": Entry(),
    "GET /console/operator/accounts": Entry(),
    "POST /console/operator/accounts": Entry(303, lambda _: {"username": "hooli"}),
    "POST /console/operator/accounts/{username}": Entry(303, lambda _: {"act": "activate"}),
    "GET /console/operator/keyspaces": Entry(),
    "GET /console/operator/management-keys": Entry(),
    "POST /console/operator/management-keys": Entry(200, lambda _: {"name": "CI", "scopes": "verify"}),
    "POST /console/operator/management-keys/{key_id}": Entry(303, thing=lambda things: things.managed),
    "GET /console/@{account}/management-keys": Entry(),
    "POST /console/@{account}/management-keys": Entry(200, lambda _: {"name": "CI", "scopes": "verify"}),
    "POST /console/@{account}/management-keys/{key_id}": Entry(303, thing=lambda things: things.managed),
    "GET /console/operator/health": Entry(),
    "GET /portal": Entry(),
    "GET /portal/looks/{keyspace}.css": Entry(404),  # of a profile without a colour; the others: test_portal
    "GET /portal/{code}": Entry(404),
    "POST /portal/{code}": Entry(404),
    "GET /{link:path}": Entry(303),
}
ROUTES = {f"{page.method} {page.path}": page for page in console.ROUTES}


def address(path: str, thing: str) -> str:
    """A page's path on the things of the tests."""
    if path == "/{link:path}":
        return "/settings?tab=api-webhooks"
    filled = {"account": "globex", "keyspace": "every", "act": "delete", "username": "initech"}
    filled |= dict.fromkeys(("key_id", "person", "alert_id"), thing) | {"code": "used"}
    return re.sub(r"\{(\w+)\}", lambda found: filled[found[1]], path)


def expected(name: str, who: str) -> int:
    """How somebody is answered who asks for a page."""
    page, entry = ROUTES[name], PAGES[name]
    if page.anybody:
        return entry.status
    if who == "nobody":
        return 303 if page.method == "GET" else 401
    if page.operator:
        return entry.status if who == "operator" else 403
    if who == "foreign" and "{account}" in page.path:
        return 404
    rights = RIGHTS["owner" if who == "foreign" else who] if who != "operator" else None  # type: ignore[index]
    return entry.status if page.scope is None or rights is None or page.scope in rights else 403


def person(kw: Keywright, who: str, n: int = 0) -> Begun | None:
    """Somebody signed in: with a role in globex, as an operator, or as the owner of another account."""
    if who == "nobody":
        return None
    if who == "foreign":
        return begin(kw, "owner", "initech", f"stranger{n}@initech.example")
    return begin(kw, who, email=f"{who}{n}@globex.example")


def test_every_page_has_an_entry() -> None:
    """Each page of the console has an entry in the table of the tests, and the table has no other."""
    assert set(PAGES) == set(ROUTES)


@pytest.mark.requirement("F-07", "F-08", "F-09", "F-10", "X-15")
@pytest.mark.parametrize("who", EVERYBODY)
def test_every_page_opens_or_refuses(door: Door, kw: Keywright, who: str) -> None:
    """Every page opens for whoever may and refuses others: to sign in, 403, or 404; each under the strict policy."""
    begin(kw, "owner", email="known@globex.example")
    staying, wrong = person(kw, who), {}
    for n, (name, entry) in enumerate(PAGES.items()):
        page = ROUTES[name]
        begun = person(kw, who, n + 1) if entry.ends_session or entry.armed else staying
        if entry.armed and begun is not None:
            begun = armed(kw, begun)
        things = Things(kw, begun)
        path = address(page.path, entry.thing(things))
        if page.method == "GET":
            reply = door.get(path, signed_in(begun))
        else:
            reply = post(door, kw, path, begun, entry.form(things))
        if reply.status != expected(name, who):
            wrong[name] = (reply.status, expected(name, who))
        if who == "nobody" and page.method == "GET" and not page.anybody:
            assert str(reply.get("location")).startswith("/console/sign-in"), name
        for header, value in HEADERS.items():
            assert reply.get(header) == value, (name, header)
        assert not re.search(r"<script>|<script [^>]*>[^<]|\son\w+=|\sstyle=|javascript:", _markup(reply)), (
            name
        )
    assert wrong == {}


def _markup(reply: Reply) -> str:
    # The counts of a chart are data, which no browser runs.
    return re.sub(r'<script type="application/json">[^<]*</script>', "", text(reply))


def test_no_page_is_heavy(door: Door, kw: Keywright) -> None:
    """A page with all it loads is under 60 kB as it is sent, one with charts under 80; the list is full, and its keys busy."""
    begun, key_id = begin(kw, "operator", email="op@example.com"), make(kw).key.id
    crowd_in(kw, make(kw), 100)
    heavy = {}
    for name, page in ROUTES.items():
        if page.method != "GET":
            continue
        reply = door.get(address(page.path, key_id), signed_in(begun))
        files = set(re.findall(r'(?:href|src)="(/console/assets/[^"]+)"', text(reply)))
        sent = [door.get(file, {"Accept-Encoding": "gzip"}) for file in files]
        assert all(file.status == 200 and file.get("content-encoding") == "gzip" for file in sent), name
        weight = len(gzip.compress(reply.body)) + sum(len(file.body) for file in sent)
        if weight >= (80_000 if "uplot.js" in text(reply) else 60_000):
            heavy[name] = weight
    assert heavy == {}


@pytest.mark.requirement("F-07", "F-08")
@pytest.mark.parametrize("role", ROLES)
def test_the_five_systems_show_keys_to_admins(door: Door, kw: Keywright, role: str) -> None:
    """In each of the five systems an owner or admin has the tab and the button; others neither, and are 403 by address."""
    begun = begin(kw, role)
    for keyspace in ("fullwhere", "partna", "atfinity", "gallabox", "bizmagnets"):
        _shown_to_admins(door, kw, keyspace, begun, role in ("owner", "admin"))


def _shown_to_admins(door: Door, kw: Keywright, keyspace: str, begun: Begun, admin: bool) -> None:
    key_id = make(kw, keyspace=keyspace).key.id
    at = f"/console/@globex/{keyspace}/keys"

    home = text(door.get("/console/@globex", signed_in(begun)))
    statuses = [
        door.get(at, signed_in(begun)).status,
        door.get(f"{at}/new", signed_in(begun)).status,
        post(door, kw, at, begun, new_key(once=token_hex(16))).status,
        post(door, kw, f"{at}/{key_id}/edit", begun, {"name": "x", "expires": "keep"}).status,
        post(door, kw, f"{at}/{key_id}/delete", begun, {"name": "x"}).status,
    ]

    assert statuses == ([200, 200, 200, 303, 303] if admin else [403] * 5), keyspace
    assert (f'href="{at}"' in home) is admin
    start = unescape(text(door.get(at, signed_in(begun))))
    assert (load(source(keyspace)).labels.get("start", "Create API key") in start) is admin


# -------------------------------------------------------------------------------------------------------- forged forms


TWELVE: dict[str, dict[str, str]] = {
    "of another site": {"Sec-Fetch-Site": "cross-site"},
    "of a sibling": {"Sec-Fetch-Site": "same-site"},
    "typed by nobody": {"Sec-Fetch-Site": "none"},
    "another origin": {"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
    "no origin": {"Sec-Fetch-Site": "", "Origin": "null"},
    "a subdomain": {"Sec-Fetch-Site": "", "Origin": "http://sub.127.0.0.1:8700"},
    "a longer host": {"Sec-Fetch-Site": "", "Origin": "http://127.0.0.1:8700.evil.example"},
    "no token": {"csrf": ""},
    "a made-up token": {"csrf": "0" * 64},
    "another session's token": {"csrf": "another"},
    "plain text": {"Content-Type": "text/plain", "csrf": "in json"},
    "neither header, no token": {"Sec-Fetch-Site": "", "csrf": ""},
}


@pytest.mark.requirement("X-16")
@pytest.mark.security("A-05", "T-50")
def test_a_forged_form_changes_nothing(door: Door, kw: Keywright) -> None:
    """With the cookie that a browser adds, each form of the console, forged in each of twelve ways, changes nothing."""
    begun = begin(kw, "operator", email="op@example.com")
    other = csrf_token(kw.installation, begin(kw, "owner")[1])
    things, allowed = Things(kw, begun), []
    for name, entry in PAGES.items():
        page = ROUTES[name]
        if page.method != "POST":
            continue
        path, form = address(page.path, entry.thing(things)), entry.form(things)
        before = kw.installation.trail.head().seq
        for kind, forged in TWELVE.items():
            if page.anybody and "csrf" in forged:
                continue  # nobody is signed in: only the browser's word says where it came from
            reply = _forged(
                door,
                path,
                form,
                begun,
                forged | {"right": csrf_token(kw.installation, begun[1]), "other": other},
            )
            if reply.status != 403 or reply.get("set-cookie"):
                allowed.append((name, kind, reply.status))
        assert kw.installation.trail.head().seq == before, name
    assert allowed == []


def _forged(door: Door, path: str, form: Any, begun: Begun, forged: dict[str, str]) -> Reply:
    held = {"in json": "", "another": forged["other"]}
    csrf = forged.get("csrf", forged["right"])
    body = urlencode([*form.items(), ("csrf", held.get(csrf, csrf))]).encode()
    if csrf == "in json":
        body = b'{"csrf": "%s"}' % forged["right"].encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Host": "127.0.0.1:8700"}
    headers = signed_in(begun) | kind | {name: value for name, value in forged.items() if name[0].isupper()}
    return door.send("POST", path, {name: value for name, value in headers.items() if value}, body)


ELSEWHERE = (
    "https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", "\\\\evil.example", "javascript:alert(1)",
    "console", "/x\r\nSet-Cookie: a=b", "http:evil.example", "///evil.example",
)  # fmt: skip


@pytest.mark.requirement("F-10")
def test_signing_in_leads_nowhere_else(door: Door, kw: Keywright) -> None:
    """Whatever the address says, signing in and proving lead to a page of ours."""
    begun = begin(kw, "owner", email="ana@globex.example")
    for to in ELSEWHERE:
        form = {"email": "ana@globex.example", "password": PASSWORD, "to": to}
        entered = post(door, kw, "/console/sign-in", None, form)
        for path in ("/console/sign-in", "/console/prove"):
            page = door.get(f"{path}?{urlencode({'to': to})}", signed_in(begun))
            assert 'name="to" value=""' in text(page), to
        assert entered.get("location") == "/console/", to
    proven = post(door, kw, "/console/prove", begun, {"password": PASSWORD, "to": ELSEWHERE[1]})
    assert proven.get("location") == "/console/"


@pytest.mark.requirement("P-37", "F-10")
def test_a_deep_link_leads_to_its_keys(door: Door, kw: Keywright) -> None:
    """Partna's deep link leads its account's people to the keys, by way of signing in; another query is no such page."""
    begun = begin(kw, "admin", email="ana@globex.example")
    link = "/settings?tab=api-webhooks"

    assert door.get(link, signed_in(begun)).get("location") == "/console/@globex/partna/keys"
    asked = door.get(link, signed_in(None))
    assert (asked.status, asked.get("location")) == (
        303, "/console/sign-in?to=%2Fsettings%3Ftab%3Dapi-webhooks"
    )  # fmt: skip
    form = {"email": "ana@globex.example", "password": PASSWORD, "to": link}
    assert post(door, kw, "/console/sign-in", None, form).get("location") == link
    assert door.get(f"{link}&utm=mail", signed_in(begun)).get("location") == "/console/@globex/partna/keys"
    for none in ("/settings", "/settings?tab=billing", "/settings/x?tab=api-webhooks"):
        assert (door.get(none, signed_in(begun)).status, door.get(none, signed_in(None)).status) == (404, 404)
    operator = begin(kw, "operator", email="op@example.com")
    assert door.get(link, signed_in(operator)).get("location") == "/console/operator/accounts"


# ------------------------------------------------------------------------------------------------- what somebody typed


HOSTILE = {
    "markup": "<img src=x onerror=alert(1)>",
    "quotes": "\"'><script>alert(1)</script>",
    "template": "{{7*7}} ${7*7} {% raw %}",
    "right to left": "מפתח של הלקוח",
    "emoji": "🔑 key 👩‍👩‍👧",
    "a formula": "=HYPERLINK(1)",
}


@pytest.mark.requirement("F-31")
def test_what_is_typed_is_text(door: Door, kw: Keywright) -> None:
    """A name is shown as it was typed, as text, wherever it stands: reveal, list, page, forms, dialogs, search."""
    begun = begin(kw, "owner")
    for n, name in enumerate(HOSTILE.values()):
        _is_text(door, kw, begun, name, f"{n:032}")


def _is_text(door: Door, kw: Keywright, begun: Begun, name: str, once: str) -> None:
    made = post(door, kw, KEYS, begun, new_key(name=name, description=name, once=once))
    if made.status == 422:  # a joined emoji holds what is not seen
        assert unescape(_value(made, "name")) == name
        return
    assert made.status == 200
    key = kw.keys.get(shown(made, "key-id"))
    assert (key.name, key.description) == (name, name)
    pages = [
        KEYS,
        f"{KEYS}?q={key.id}",
        *(f"{KEYS}/{key.id}{end}" for end in ("", "/edit", "/delete", "/invalidate", "/rotate")),
    ]
    replies = [made, *(door.get(page, signed_in(begun)) for page in pages)]
    replies.append(post(door, kw, f"{KEYS}/bulk", begun, {"act": "delete", "key": key.id}))
    for reply in replies:
        assert reply.status == 200
        found = text(reply)
        assert "<img src=x" not in found
        assert "<script>alert" not in found
        assert name in unescape(found)


def _value(reply: Reply, name: str) -> str:
    found = re.search(rf'id="{name}"[^>]* value="([^"]*)"', text(reply))
    assert found is not None
    return found[1]


@pytest.mark.requirement("F-31")
@pytest.mark.parametrize(
    "bad",
    ["x" * 5000, "", "a\x1b[31m", "a\u202eb", "\0"],
    ids=["5,000", "empty", "escape", "override", "nul"],
)
def test_what_is_refused_is_kept(door: Door, kw: Keywright, bad: str) -> None:
    """A name that cannot be is refused with a message on the form, where everything that was typed still stands."""
    begun = begin(kw, "owner")
    key = make(kw).key

    for path, form in (
        (KEYS, new_key(name=bad, description="keep this", access="read_only")),
        (
            f"{KEYS}/{key.id}/edit",
            {"name": bad, "description": "keep this", "access": "read_only", "expires": "keep"},
        ),
    ):
        reply = post(door, kw, path, begun, form)
        assert reply.status == 422
        assert 'id="problem"' in text(reply)
        assert unescape(_value(reply, "name")) == bad
        assert "keep this</textarea>" in text(reply)
        assert re.search(r'value="read_only" checked', text(reply))


@pytest.mark.requirement("F-17")
def test_sent_twice_it_is_made_once(door: Door, kw: Keywright) -> None:
    """The creation form sent again makes no second key and shows no secret: it leads to the key that it made."""
    begun = begin(kw, "owner")

    first = post(door, kw, KEYS, begun, new_key())
    again = post(door, kw, KEYS, begun, new_key())

    key = kw.keys.list(account="globex").items
    assert (first.status, again.status, len(key)) == (200, 303, 1)
    assert str(again.get("location")).startswith(f"{KEYS}/{key[0].id}?said=shown_once")
    assert shown(first, "key-token").encode() not in again.body
    assert first.get("cache-control") == "no-store"
    other = post(door, kw, KEYS, begun, new_key(name="Another thing"))
    assert other.status in (409, 422)
    assert len(kw.keys.list(account="globex").items) == 1


@pytest.mark.requirement("F-17", "F-18", "G-19", "A-08")
@pytest.mark.screen("U-25")
def test_no_later_page_holds_a_secret(door: Door, kw: Keywright) -> None:
    """After the one page that shows it, no page of the console holds the secret or the token; the list holds the id."""
    begun = begin(kw, "operator", email="op@example.com")
    made = post(door, kw, KEYS, begun, new_key())
    key = kw.keys.list(account="globex").items[0]
    rotated = post(door, kw, f"{KEYS}/{key.id}/rotate", begun, {"grace": "3600"})
    secrets = {shown(reply, element) for reply in (made, rotated) for element in ("key-secret", "key-token")}
    assert len(secrets) == 4

    for name, page in ROUTES.items():
        if page.method != "GET":
            continue
        reply = door.get(address(page.path, key.id), signed_in(begun))
        for secret in secrets:
            assert secret.rpartition("_")[2].encode() not in reply.body, name
    assert key.id in text(door.get(KEYS, signed_in(begun)))


def test_a_pasted_secret_is_not_kept(door: Door, kw: Keywright, key: Issued) -> None:
    """A secret in the search, sent without script, finds its key by the id, is flagged, and stands in no part of the page."""
    begun, make_another = begin(kw, "owner"), make(kw, name="Another")
    token = key.credential.token.reveal()

    reply = door.get(f"{KEYS}?q={token}", signed_in(begun))

    assert "You pasted a secret" in text(reply)
    assert token not in text(reply)
    assert key.key.id in text(reply)
    assert make_another.key.id not in text(reply)


@pytest.mark.requirement("F-24")
def test_an_edit_changes_what_is_typed_and_nothing_else(door: Door, kw: Keywright) -> None:
    """Name and description become what was typed; expiry and secret stay, and requests go on; a new key keeps none."""
    begun = begin(kw, "admin")
    key = make(kw, expires_at=kw.installation.clock() + 10**12)
    form = {"name": "Renamed", "description": "Nightly", "access": "all", "expires": "keep"}

    assert door.get("/k/every.production/whoami", bearer(key)).status == 200
    assert post(door, kw, f"{KEYS}/{key.key.id}/edit", begun, form).status == 303
    after = kw.keys.get(key.key.id)

    assert (after.name, after.description, after.expires_at) == ("Renamed", "Nightly", key.key.expires_at)
    assert door.get("/k/every.production/whoami", bearer(key)).status == 200
    assert post(door, kw, KEYS, begun, form | {"environment": "production"}).status == 422


@pytest.mark.requirement("F-26", "F-27")
def test_deleting_wants_the_name(door: Door, kw: Keywright, key: Issued) -> None:
    """The page says that it cannot be undone and what stops; another name deletes nothing; the right one, for ever."""
    begun = begin(kw, "owner")
    path = f"{KEYS}/{key.key.id}/delete"

    asked = text(door.get(path, signed_in(begun)))
    wrong = post(door, kw, path, begun, {"name": "CRM"})

    assert "This cannot be undone" in asked
    assert "every integration that uses it stops" in asked
    assert (wrong.status, kw.keys.get(key.key.id).state) == (422, "active")
    assert post(door, kw, path, begun, {"name": "CRM sync"}).status == 303
    assert door.get(f"{KEYS}/{key.key.id}", signed_in(begun)).status == 404
    assert key.key.id not in text(door.get(KEYS, signed_in(begun)))


@pytest.mark.screen("U-47")
@pytest.mark.full("ten thousand keys")
def test_a_whole_list_at_once(door: Door, kw: Keywright) -> None:
    """Every key of a list is changed, those not shown too, once the account's name was typed; of others none is."""
    begun, kept = begin(kw, "owner"), make(kw, name="Apart", account="initech").key.id
    other = make(kw, environment="staging").key.id
    crowd_in(kw, make(kw), CROWD)
    form = {"act": "disable", "every": "yes", "environment": "production"}

    shown = text(door.get(f"{KEYS}?environment=production", signed_in(begun)))
    asked = post(door, kw, f"{KEYS}/bulk", begun, form)
    wrong = post(door, kw, f"{KEYS}/bulk", begun, form | {"sure": "yes", "name": "initech"})

    assert "Every one of this list" in shown
    assert (asked.status, wrong.status) == (200, 422)
    assert "Type the name of the account" in text(asked)
    assert active(kw) == {"globex": CROWD - CROWD // 10 + 2, "initech": 1}
    done = post(door, kw, f"{KEYS}/bulk", begun, form | {"sure": "yes", "name": "globex"})
    assert done.get("location") == f"{KEYS}?said=bulk_disable"
    assert active(kw) == {"globex": 1, "initech": 1}
    assert {kw.keys.get(one).state for one in (other, kept)} == {"active"}


def active(kw: Keywright) -> dict[str, int]:
    """How many keys of each account work."""
    return {account: _count(kw, account) for account in ("globex", "initech")}


def _count(kw: Keywright, account: str) -> int:
    many, cursor = 0, None
    while True:
        page = kw.keys.list(account=account, state="active", limit=200, cursor=cursor)
        many, cursor = many + len(page.items), page.next_cursor
        if cursor is None:
            return many


@pytest.mark.screen("U-66")
def test_hygiene_finds_and_does(door: Door, kw: Keywright, clock: Clock) -> None:
    """The page has each key under what is found of it, as the API tells it; one click disables or ends it, and only of ours."""
    at, api = "/console/@globex/hygiene", "/v1/keys?account=globex&hygiene="
    idle = make(kw, name="Idle").key
    clock.advance(days=30)
    ending = make(kw, name="Ending", access="read_only", expires_at=clock() + 86_400_000_000).key
    closed = make(kw, name="Closed", keyspace="fullwhere").key
    foreign = make(kw, name="Foreign", account="initech").key
    begun = begin(kw, "admin")

    page = text(door.get(at, signed_in(begun)))
    for finding in FINDINGS:
        told = {one["name"] for one in door.get(api + finding, as_person(kw, begun)).json["items"]}
        part = page.partition(f'<section aria-labelledby="{finding}">')[2].partition("</section>")[0]
        assert {name for name in ("Idle", "Ending", "Closed", "Foreign") if f"<bdi>{name}<" in part} == told
    assert door.get(f"{at}?finding=dirty", signed_in(begun)).status == 422
    seen = text(door.get(at, signed_in(begin(kw, "developer", email="dev@globex.example"))))
    assert (idle.id in seen, closed.id in seen) == (True, False)

    for key, doing in ((idle, "disable"), (ending, "extend")):
        done = post(door, kw, at, begun, {"act": doing, "key": key.id, "finding": "unused"})
        assert done.get("location") == f"{at}?said=hygiene_{doing}&finding=unused"
    assert kw.keys.get(idle.id).state == "disabled"
    assert kw.keys.get(ending.id).expires_at == clock() - clock() % 1_000_000 + 90 * 86_400_000_000
    for doing in ("disable", "extend"):
        done = post(door, kw, at, begun, {"act": doing, "key": foreign.id})
        assert done.get("location") == f"{at}?said=hygiene_none"
    assert kw.keys.get(foreign.id) == foreign


# ---------------------------------------------------------------------------------------------------- parity with the API


PARITY = re.compile(r"^\| ([^|]+) \| `(\w+ [^`]+)` \| `(\w+) ([^`]+)` \|$", re.MULTILINE)
TABLE = {
    page: (method, path)
    for _, page, method, path in PARITY.findall(
        (Path(__file__).parents[1] / "docs" / "console.md").read_text()
    )
}
#: Pages that only ask what another page then does, or lead on to one; and the way to the identity provider and back, which is
#: a browser's alone.
ASKING = {
    "GET /console/sign-in/provider", "GET /console/sign-in/back", "POST /console/sign-in/code", "GET /console/prove/provider",
    "GET /", "GET /console", "GET /console/", "GET /{link:path}", "GET /console/sign-in", "GET /console/link", "GET /console/prove",
    "GET /portal", "GET /portal/looks/{keyspace}.css", "GET /portal/{code}", "POST /portal/{code}",
    "GET /console/@{account}", f"GET {AT}/new", f"GET {AT}/{{key_id}}/edit", f"GET {AT}/{{key_id}}/{{act}}",
}  # fmt: skip
#: What the API is sent for each page that changes something, where it wants a body.
BODIES: dict[str, Callable[[Things, str], dict[str, Any]]] = {
    "POST /console/sign-in": lambda *_: {"email": "known@globex.example", "password": PASSWORD},
    "POST /console/link": lambda things, _: {"token": things.link},
    "POST /console/link/follow": lambda things, _: {"token": things.link, "password": PASSWORD},
    "POST /console/prove": lambda *_: {"password": PASSWORD},
    "POST /console/me/password": lambda *_: {"current": PASSWORD, "password": PASSWORD + " 3"},
    "POST /console/me/factor/confirm": lambda things, _: {"code": things.code},
    f"POST {AT}": lambda *_: {
        "name": "CRM sync", "access": "all", "keyspace": "every", "environment": "production", "account": "globex"
    },
    f"POST {AT}/{{key_id}}/edit": lambda *_: {"name": "Renamed"},
    f"POST {AT}/bulk": lambda _, thing: {"act": "disable", "keys": [thing]},
    "POST /console/@{account}/hygiene": lambda _, thing: {"act": "disable", "keys": [thing]},
    f"POST {AT}/{{key_id}}/rotate": lambda *_: {"grace_seconds": 3600},
    f"POST {AT}/{{key_id}}/invalidate": lambda *_: {},
    f"POST {AT}/{{key_id}}/test": lambda *_: {
        "keyspace": "every", "environment": "production", "authenticate_only": True, "headers": {"X-Token": "none"}
    },
    "POST /console/@{account}/people": lambda *_: {"email": "too@x.example", "account": "globex", "role": "analyst"},
    "POST /console/@{account}/people/{person}": lambda *_: {"account": "globex", "role": "auditor"},
    "POST /console/operator/people": lambda *_: {"email": "op2@x.example", "operator": True},
    "POST /console/@{account}/management-keys": lambda *_: {"name": "CI", "scopes": ["verify"], "account": "globex"},
    "POST /console/@{account}/management-keys/{key_id}": lambda *_: {},
    "POST /console/operator/management-keys": lambda *_: {"name": "CI", "scopes": ["verify"]},
    "POST /console/operator/management-keys/{key_id}": lambda *_: {},
    "POST /console/operator/accounts": lambda *_: {"username": "pied-piper"},
}  # fmt: skip
#: Of pages whose path holds what is done: the path, and the form.
DONE = {
    f"POST {AT}/{{key_id}}/{act}": (f"POST {AT}/{{key_id}}/{{act}}", form)
    for act, form in (("rotate", {"grace": "3600"}), ("invalidate", {}), ("delete", {"name": "CRM sync"}))
}


def test_the_table_has_every_page() -> None:
    """Every page stands in the table of ``docs/console.md`` or only asks, and the table names no page that is not there."""
    assert {DONE.get(page, (page, {}))[0] for page in TABLE} | ASKING == set(ROUTES)
    assert set(DONE) <= set(TABLE)


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Keywright, Door]]:
    """An installation and its server for all rows: each makes what it is tried on, and leaves the others' alone."""
    with (
        copied(template, tmp_path_factory.mktemp("console"), clock=Clock()) as opened,
        Door(server(opened)) as door,
    ):
        begin(opened, "owner", email="known@globex.example")
        yield opened, door


@pytest.mark.requirement("X-21")
@pytest.mark.screen("U-70")
@pytest.mark.parametrize("page", TABLE)
def test_what_a_screen_does_the_api_does(shared: tuple[Keywright, Door], page: str) -> None:
    """Each row of the table, by the page and by the API: the trail tells the same act, or the same things are shown."""
    kw, door = shared
    marks = {
        "globex",
        make(kw, name="Shown").key.id,
        Things(kw, None).managed,
        "known@globex.example",
        "initech",
    }
    by_page = _by_page(door, kw, page)
    by_call = _by_call(door, kw, page)

    if page.startswith("GET"):
        here, there = (text(reply) for reply in (by_page, by_call))
        assert {mark for mark in marks if mark in there} >= {mark for mark in marks if mark in here} - {
            "globex",
            "known@globex.example",
        }
    else:
        assert by_page == by_call


def _by_page(door: Door, kw: Keywright, page: str) -> Any:
    name, form = DONE.get(page, (page, None))
    entry = PAGES[name]
    begun = _operator(kw, entry)
    things = Things(kw, begun)
    path = address(page.partition(" ")[2], entry.thing(things))
    if page.startswith("GET"):
        reply = door.get(path, signed_in(begun))
        assert reply.status == 200
        return reply
    filled = entry.form(things) if form is None else form
    if page.endswith("{username}"):
        filled = {"act": "suspend"}
    begun_at = kw.installation.trail.head().seq
    assert post(door, kw, path, begun, filled).status in (200, 303)
    return _acts(kw, begun_at)


def _operator(kw: Keywright, entry: Entry) -> Begun:
    begun = begin(kw, "operator", email=f"{token_hex(4)}@example.com")
    return armed(kw, begun) if entry.armed else begun


def _by_call(door: Door, kw: Keywright, page: str) -> Any:
    method, path = TABLE[page]
    entry = PAGES[DONE.get(page, (page, None))[0]]
    begun = _operator(kw, entry)
    things = Things(kw, begun)
    thing = Things.key.fget(things) if page.endswith(("/bulk", "/hygiene")) else entry.thing(things)  # type: ignore[attr-defined]
    if page.endswith("{username}"):
        thing = kw.accounts.create(f"a{token_hex(4)}").username
    names = ("key_id", "person_id", "management_key_id", "username", "alert_id")
    target = path.format(**dict.fromkeys(names, thing), session_id=things.session)
    headers = as_person(kw, begun)
    if path == "/v1/verify":
        headers = manager(kw)
    if method == "GET":
        named = "@{account}" in page and "{key_id}" not in page and "management-keys" not in page
        query = {"account": "globex"} if named else {}
        if page.endswith("hygiene"):
            query |= {"sort": "created_at", "limit": "200"}  # its first are the oldest
        if page.endswith("audit"):
            query |= {"limit": "200"}  # the page was read some entries ago
        reply = door.get(f"{target}?{urlencode(query)}", headers)
        assert reply.status == 200, reply.body
        return reply
    body = BODIES.get(page)
    document = None if body is None else body(things, thing)
    begun_at = kw.installation.trail.head().seq
    reply = (
        door.send(method, target, headers)
        if document is None
        else door.json(method, target, document, headers)
    )
    assert reply.status in (200, 201, 204), reply.body
    return _acts(kw, begun_at)


def _acts(kw: Keywright, since: int) -> list[tuple[str, str]]:
    """What the trail tells that people did since, oldest first, and to what kind of thing."""
    found = [one for one in kw.installation.trail.list(limit=50).items if one["seq"] > since]
    return [(one["action"], one["target_kind"]) for one in reversed(found)]


#: What writes an entry into the trail, and is given an act.
TELLING = {"tell", "_tell", "_tell_first", "_set", "_changed", "append"}
ACT = re.compile(
    r"(account|alert|installation|key|keyspace|link|person|portal|refusal|session|usage|webhook)\.[a-z_]+"
)


def acts() -> set[str]:
    """Every act that the code writes into the trail: the texts that whatever writes entries is called with."""
    called = [
        call
        for file in Path(words.__file__).parents[2].rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", None) in TELLING
    ]
    given = [part for call in called for argument in call.args for part in ast.walk(argument)]
    texts = {part.value for part in given if isinstance(part, ast.Constant)}
    made = {"link.setup", "link.invitation", "link.reset"}  # of kinds of links, as they are drawn
    return made | {text for text in texts if isinstance(text, str) and ACT.fullmatch(text)}


def test_every_act_has_its_words() -> None:
    """What the trail can tell of is told in words, and no words are left over for what nobody does."""
    found = acts()
    assert {"key.first_use", "key.create", "webhook.fail"} <= found
    assert {name for name in found if words.act(name) == name} == set()
    assert set(words._ACTS) - found == {"refused"}
