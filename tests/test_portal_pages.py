"""The portal over HTTP: the exchange, every page and every route for a visitor, what is forged, and where it leads."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import EVERY, make
from keywright import Keywright, accents, profiles
from keywright.errors import CannotStart, ProfileError
from keywright.model import Role
from keywright.roles import ROLES, of_visit
from keywright.server.console import HEADERS
from keywright.testing import Clock
from people import as_person, begin, code_of, visit
from processes import Folder
from surfaces import Door, configured, manager, records, server
from test_console import KEYS, PAGES, Things, address, new_key, post, signed_in, text
from test_console import ROUTES as SCREENS
from test_management_api import (
    ROUTES,
    send,
)
from test_roles import _fresh_things
from test_sessions import ROUTES as SESSIONS

VISITORS = tuple(role for role in ROLES if role != "owner")
BACK = "https://app.example.com/settings?tab=keys"


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def link(kw: Keywright, account: str = "globex", **more: Any) -> str:
    """The path of a link of the host's."""
    return f"/portal/{code_of(kw.portal.open(**{'account': account, 'subject': f'ana@{account}'} | more))}"


# ---------------------------------------------------------------------------------------------------------- the exchange


@pytest.mark.security("K-10")
def test_a_click_exchanges_the_code_for_a_cookie(door: Door, kw: Keywright) -> None:
    """The answer sets a cookie of this host alone and goes on to the keys, by an address without the code; once."""
    path = link(kw, keyspace="every")
    came = door.get(path)
    cookie = str(came.get("set-cookie"))

    assert (came.status, came.get("location")) == (303, KEYS)
    assert re.fullmatch(r"keywright-session=[\w-]{43}; Path=/; HttpOnly; SameSite=Lax; Max-Age=28800", cookie)
    assert came.get("referrer-policy") == "no-referrer"
    assert came.get("cache-control") == "no-store"
    assert path.rpartition("/")[2] not in str(came.headers) + came.body.decode()
    assert door.get(KEYS, {"Cookie": cookie.partition(";")[0]}).status == 200
    assert door.get(path).status == 404
    assert door.get(link(kw)).get("location") == "/console/@globex"
    with Door(server(kw, public_url="https://keys.example.com", trusted_proxies="127.0.0.1")) as https:
        secure = https.get(link(kw), {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"})
    assert str(secure.get("set-cookie")).startswith("__Host-keywright=")
    assert str(secure.get("set-cookie")).endswith("; Secure")


@pytest.mark.parametrize(
    "ahead",
    [
        {"Sec-Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
        {"X-Moz": "prefetch"},
        {"Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Dest": "iframe"},
    ],
    ids=str,
)
def test_looking_ahead_uses_nothing_up(door: Door, kw: Keywright, ahead: dict[str, str]) -> None:
    """What is fetched in advance, as a picture or a frame, and HEAD, has no cookie, tells nothing of the link, and leaves it as it was."""
    path = link(kw)
    for reply, invented in (
        (door.get(path, ahead), door.get("/portal/invented", ahead)),
        (door.send("HEAD", path), door.send("HEAD", "/portal/invented")),
    ):
        assert (reply.status, reply.body, reply.headers) == (invented.status, b"", invented.headers)
        assert reply.get("set-cookie") is None
        assert reply.status in (204, 503)

    assert door.get(path, {"Sec-Fetch-Dest": "document"}).status == 303


def test_every_link_that_leads_nowhere_is_answered_the_same(door: Door, kw: Keywright, clock: Clock) -> None:
    """Used, ended, late, of a stopped key or invented: one page to the byte, no cookie, and on to nobody's address."""
    used, ended = link(kw, return_url=BACK), link(kw, return_url=BACK)
    door.get(used)
    kw.portal.end_all(account="globex")
    late = link(kw, return_url=BACK)
    clock.advance(seconds=900)
    paths = [used, ended, late, "/portal/invented", f"/portal/{'A' * 43}", "/portal/%00", "/portal/%ff"]
    replies = [door.get(path) for path in paths] + [
        door.send("POST", path, signed_in(None)) for path in paths
    ]

    assert {(reply.status, reply.body) for reply in replies} == {(404, replies[0].body)}
    assert {str(reply.headers) for reply in replies} == {str(replies[0].headers)}
    assert "app.example.com" not in str(replies[0])
    assert replies[0].get("set-cookie") is None
    assert replies[0].get("location") is None


@pytest.mark.security("A-05")
def test_nobody_is_moved_to_another_account_unasked(door: Door, kw: Keywright) -> None:
    """Where somebody is signed in a link asks first and changes nothing; their yes, sent by our page alone, takes over."""
    for here in (begin(kw, "admin"), visit(kw, subject="bob@globex"), visit(kw, "initech")):
        path = link(kw)
        asks = door.get(path, signed_in(here))

        assert (asks.status, asks.get("set-cookie")) == (200, None)
        assert "ana@globex" in text(asks)
        assert here[1].person.name in text(asks)
        assert door.send("POST", path, signed_in(here) | {"Sec-Fetch-Site": "cross-site"}).status == 403
        taken = door.send("POST", path, signed_in(here))
        assert (taken.status, taken.get("location")) == (303, "/console/@globex")
        assert "keywright-session=" in str(taken.get("set-cookie"))
    again = visit(kw)
    assert door.get(link(kw), signed_in(again)).status == 303


def test_a_visit_that_is_over_leads_back(door: Door, kw: Keywright, clock: Clock) -> None:
    """Signed out, or ended in whatever way, the browser is led to the host with the reason, and its cookie is removed."""
    session = visit(kw, return_url=BACK)
    out = post(door, kw, "/console/sign-out", session, {})
    assert (out.status, out.get("location")) == (303, f"{BACK}&reason=signed_out")
    assert "Max-Age=0" in str(out.get("set-cookie"))
    late = visit(kw, return_url="https://app.example.com/")
    clock.advance(seconds=3600)
    for begun, to in ((session, f"{BACK}&"), (late, "https://app.example.com/?")):
        for reply in (door.get(KEYS, signed_in(begun)), post(door, kw, KEYS, begun, new_key())):
            assert (reply.status, reply.get("location")) == (303, f"{to}reason=session_ended")
            assert "Max-Age=0" in str(reply.get("set-cookie"))
        assert door.get("/v1/keys", as_person(kw, begun)).code == "signed_out"
    search = door.get(f"{KEYS}?q=crm", signed_in(session) | {"HX-Request": "true"})
    assert (search.get("location"), search.get("set-cookie")) == ("/portal?reason=session_ended", None)
    nowhere = visit(kw)
    assert post(door, kw, "/console/sign-out", nowhere, {}).get("location") == "/portal?reason=signed_out"
    assert "You are signed out" in text(door.get("/portal?reason=signed_out"))
    assert "Your visit has ended" in text(door.get("/portal?reason=session_ended"))
    assert "evil" not in text(door.get("/portal?reason=evil"))


def test_the_way_back_stands_in_the_policy(door: Door, kw: Keywright) -> None:
    """A visitor's pages let a form lead to the host's origin and to nothing else; everybody else's policy is as it was."""
    policy = HEADERS["Content-Security-Policy"]
    for back, origin in (
        (BACK, " https://app.example.com"),
        ("https://app.example.com:8443?x=1", " https://app.example.com:8443"),
        ("http://127.0.0.1:3000/a/b", " http://127.0.0.1:3000"),
        (None, ""),
    ):
        reply = door.get(KEYS, signed_in(visit(kw, return_url=back)))
        assert reply.get("content-security-policy") == policy.replace(
            "form-action 'self'", f"form-action 'self'{origin}"
        )
        assert (f'href="{back}"' in text(reply).replace("&amp;", "&")) is (back is not None)
    assert door.get(KEYS, signed_in(begin(kw, "admin"))).get("content-security-policy") == policy


# ------------------------------------------------------------------------------------------- every page and every route


def may(role: Role, scope: str | None, *, preview: bool = False) -> bool:
    """Whether a visitor's role has what a page or a route asks."""
    return scope is None or scope in of_visit(role, preview=preview)


@pytest.mark.security("A-11", "T-17", "T-20")
@pytest.mark.parametrize("preview", [False, True], ids=["visit", "preview"])
@pytest.mark.parametrize("role", VISITORS)
def test_every_page_for_a_visitor(door: Door, kw: Keywright, role: Role, preview: bool) -> None:
    """By role: what is about keys opens, all else is 403; of passwords and of the installation nothing; elsewhere 404."""
    staying = visit(kw, role=role, preview=preview)
    begin(kw, "owner", email="known@globex.example")
    wrong = {}
    for name, entry in PAGES.items():
        page = SCREENS[name]
        if page.anybody:
            continue
        begun = visit(kw, role=role, preview=preview) if entry.ends_session else staying
        things = Things(kw, None)
        path = address(page.path, entry.thing(things))
        if page.operator or page.password or not may(role, page.scope, preview=preview):
            expected = 403
        else:
            expected = entry.status
        foreign = [(path.replace("globex", "initech"), 404)] if "{account}" in page.path else []
        for at, status in [(path, expected), *foreign]:
            form = entry.form(things)
            reply = (
                door.get(at, signed_in(begun)) if page.method == "GET" else post(door, kw, at, begun, form)
            )
            if reply.status != status:
                wrong[f"{page.method} {at}"] = (reply.status, status)
            if reply.status == 200 and 'class="frame"' in text(reply):
                assert ("with the eyes of" in text(reply)) is preview, name
                assert "known@globex.example" not in text(reply), name
                assert "/console/me" not in text(reply), name
    assert wrong == {}


@pytest.mark.security("A-11", "T-17", "T-20")
@pytest.mark.parametrize("preview", [False, True], ids=["visit", "preview"])
@pytest.mark.parametrize("role", VISITORS)
def test_every_route_for_a_visitor(door: Door, kw: Keywright, role: Role, preview: bool) -> None:
    """By role: what is about keys works, all else is 403; and of a thing of another account it is not there."""
    ours, theirs = visit(kw, role=role, preview=preview), visit(kw, "initech", role=role, preview=preview)
    wrong = {}
    for name, route in ROUTES.items():
        allowed = may(role, route.scope, preview=preview) and not route.operator
        key_id = _fresh_things(kw, door)
        route.before(kw, key_id)
        reply = send(door, name, as_person(kw, ours), key_id)
        expected = (route.status, "ok") if allowed else (403, "insufficient_role")
        if (reply.status, reply.code) != expected:
            wrong[name] = (reply.status, expected, reply.body[:200])
        if route.foreign and "/v1/keyspaces" not in name:
            foreign = send(door, name, as_person(kw, theirs), key_id).status
            if foreign != (404 if allowed else 403):
                wrong[f"{name}, foreign"] = foreign
            if send(door, name, as_person(kw, theirs, "globex"), key_id).status != 404:
                wrong[f"{name}, asking for it"] = "not 404"
    assert wrong == {}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_visitor_has_no_password_to_act_on(door: Door, kw: Keywright, name: str) -> None:
    """A visitor reads who they are and signs out; what is about passwords, factors and other sessions is 403."""
    if name in ("POST /v1/session", "POST /v1/session/link", "POST /v1/session/follow"):
        return
    body, _ = SESSIONS[name]
    method, _, path = name.partition(" ")
    begun = visit(kw)
    headers, path = as_person(kw, begun), path.format(session_id=begun[1].id)
    reply = door.send(method, path, headers) if body is None else door.json(method, path, body, headers)

    if name == "GET /v1/session":
        assert (reply.status, reply.json["visit"]["subject"]) == (200, "ana@globex")
        assert "created_by" not in reply.json["visit"]
    elif name == "DELETE /v1/session":
        assert reply.status == 204
        assert kw.portal.get(begun[1].id).state == "ended"
    else:
        assert (reply.status, reply.code) == (403, "insufficient_role")


def test_a_visitor_needs_no_second_factor(kw: Keywright) -> None:
    """Where admins must have a second factor a visitor comes in all the same: the host's sign-in answers for that."""
    with Door(server(kw, second_factor="admins")) as door:
        assert door.get(KEYS, signed_in(visit(kw))).status == 200
        assert door.get("/v1/keys", as_person(kw, visit(kw))).status == 200
        assert door.get(KEYS, signed_in(begin(kw, "admin"))).status == 303


@pytest.mark.security("T-17", "T-18")
def test_what_a_visit_is_bound_to_hides_all_else(door: Door, kw: Keywright) -> None:
    """Bound to a keyspace and an environment, a visitor finds no other: in no menu, list, form, page or call."""
    here = make(kw, name="Here").key
    other_place = make(kw, name="Staged", environment="staging").key
    other_space = make(kw, name="Elsewhere", keyspace="default", access="all").key
    begun = visit(kw, keyspace="every", environment="production")
    page = text(door.get(KEYS, signed_in(begun)))
    listed = door.get("/v1/keys", as_person(kw, begun)).json["items"]
    form = text(door.get(f"{KEYS}/new", signed_in(begun)))

    assert [one["id"] for one in listed] == [here.id]
    assert here.id in page
    for hidden in (other_place.id, other_space.id, "staging", "Staging", "/default/keys", "fullwhere"):
        assert hidden not in page + form, hidden
    for path in (
        f"{KEYS}/{other_place.id}",
        "/console/@globex/default/keys",
        f"/console/@globex/default/keys/{other_space.id}",
    ):
        assert door.get(path, signed_in(begun)).status == 404, path
    assert [one["name"] for one in door.get("/v1/keyspaces", as_person(kw, begun)).json["items"]] == ["every"]
    new = {"keyspace": "every", "name": "New", "access": "all"}
    for where in (
        {"environment": "staging"},
        {"keyspace": "default", "environment": "production"},
        {"account": "initech"},
    ):
        assert door.json("POST", "/v1/keys", new | where, as_person(kw, begun)).status == 404, where
    assert post(door, kw, KEYS, begun, new_key(environment="staging")).status == 404
    assert door.json("POST", "/v1/keys", new, as_person(kw, begun)).json["key"]["environment"] == "production"


@pytest.mark.security("T-20")
def test_a_visitor_gives_what_the_host_said(door: Door, kw: Keywright) -> None:
    """Bound to a scope, a visitor makes keys within it and nothing above it, on the page and by the API."""
    begun = visit(kw, access="restricted", scopes=["things:read"])
    within = {"access": "restricted", "scopes": "things:read", "once": "1" * 32}

    assert post(door, kw, KEYS, begun, new_key()).status == 403
    assert post(door, kw, KEYS, begun, new_key(**within)).status == 200
    new = {"keyspace": "every", "environment": "production", "name": "New"}
    for access in ("all", "read_only"):
        assert door.json("POST", "/v1/keys", new | {"access": access}, as_person(kw, begun)).status == 403
    assert [key.scopes for key in kw.keys.list().items] == [("things:read",)]


# -------------------------------------------------------------------------------------------------- forged, told, repeated


@pytest.mark.security("A-05", "T-50")
def test_another_site_changes_nothing_for_a_visitor(door: Door, kw: Keywright) -> None:
    """With a visitor's cookie, and with no token, another's, or from another site, no form and no call is carried out."""
    begun, other = visit(kw), visit(kw, subject="bob@globex")
    before = kw.installation.trail.head()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for csrf, site in (
        ("", "same-origin"),
        (None, "same-origin"),
        ("right", "cross-site"),
        ("right", "same-site"),
    ):
        right = as_person(kw, begun if csrf == "right" else other)["X-CSRF-Token"]
        token = right if csrf is None or csrf == "right" else csrf
        headers = signed_in(begun) | {"Sec-Fetch-Site": site}
        body = urlencode(new_key() | {"csrf": token}).encode()
        assert door.send("POST", KEYS, headers | form, body).status == 403
        assert door.send("POST", "/console/sign-out", headers | form, b"csrf=" + token.encode()).status == 403
        call = headers | {"X-CSRF-Token": token}
        new = {"keyspace": "every", "environment": "production", "name": "New", "access": "all"}
        assert door.json("POST", "/v1/keys", new, call).code == "cross_site"

    assert kw.installation.trail.head() == before


def test_it_is_told_who_it_was(door: Door, kw: Keywright) -> None:
    """Trail, key, list and history say what the host calls the visitor; the visitor's own pages show nobody's history."""
    begun = visit(kw, name="Ana")
    assert post(door, kw, KEYS, begun, new_key()).status == 200
    key = kw.keys.list(account="globex").items[0]
    kw.keys.disable(key.id)
    assert post(door, kw, f"{KEYS}/{key.id}/enable", begun, {}).status == 303
    operator = begin(kw, "operator")

    assert key.created_by == "visitor:ana@globex"
    told = kw.installation.trail.list(actor="visitor:ana@globex").items
    assert [one["action"] for one in told] == ["key.enable", "key.create", "portal.begin"]
    assert {(one["actor_kind"], one["account"]) for one in told} == {("visitor", "globex")}
    assert told[0]["request_id"].startswith("req_")
    for path in (KEYS, f"{KEYS}/{key.id}", "/console/operator/audit"):
        assert "ana@globex" in text(door.get(path, signed_in(operator))), path
    assert "History" not in text(door.get(f"{KEYS}/{key.id}", signed_in(begun)))
    assert kw.installation.trail.verify() is None


@pytest.mark.security("K-10")
def test_the_code_is_in_no_log(door: Door, kw: Keywright) -> None:
    """Whether a link is followed, refused or fails, neither its code nor the cookie is in a log record."""
    path = link(kw)
    with records("") as said:
        cookie = str(door.get(path).get("set-cookie")).partition("=")[2].partition(";")[0]
        door.get(path)
        door.send("PUT", path)
        kw.close()
        door.get(path)
    logged = " ".join(record.getMessage() + str(record.exc_text) for record in said)

    assert path.rpartition("/")[2] not in logged
    assert cookie not in logged


def test_a_link_is_made_once_under_a_key(door: Door, kw: Keywright) -> None:
    """Under one Idempotency-Key there is one link; repeated, it is answered without its address, whatever was lost."""
    headers = manager(kw) | {"Idempotency-Key": "sign-in-7"}
    body = {"account": "globex", "subject": "ana@globex"}
    first, second = (door.json("POST", "/v1/portal/sessions", body, headers) for _ in range(2))

    assert (first.status, second.status) == (201, 201)
    assert str(first.json["url"]).startswith("http://127.0.0.1:8700/portal/")
    assert second.json == first.json | {"url": None}
    assert second.get("idempotency-replayed") == "true"
    assert first.get("cache-control") == second.get("cache-control") == "no-store"
    assert len(kw.portal.list().items) == 1
    other = door.json("POST", "/v1/portal/sessions", body | {"subject": "bob"}, headers)
    assert (other.status, other.code) == (422, "invalid_request")


def test_two_hosts_people_of_one_name_are_two(door: Door, kw: Keywright) -> None:
    """Visitors of two accounts whom their hosts call the same share no Idempotency-Key, and each refusal is told."""
    made = []
    for account in ("globex", "initech"):
        headers = as_person(kw, visit(kw, account, subject="admin")) | {"Idempotency-Key": "one"}
        new = {"keyspace": "every", "environment": "production", "name": "New", "access": "all"}
        made.append(door.json("POST", "/v1/keys", new, headers))

    assert [reply.status for reply in made] == [201, 201]
    assert [reply.json["key"]["account"] for reply in made] == ["globex", "initech"]
    for account in ("globex", "initech", "initech"):
        door.get("/v1/people", as_person(kw, visit(kw, account, subject="admin")))
    told = kw.installation.trail.list(action="refused", actor="visitor:admin").items
    assert [one["account"] for one in told] == ["initech", "globex"]


@pytest.mark.security("T-20")
def test_what_the_minting_key_lacks_is_refused_over_http(door: Door, kw: Keywright) -> None:
    """A key with portal:write alone opens nothing; bound, it opens its own account, and another's does not exist."""
    body = {"account": "globex", "subject": "ana@globex"}
    lacking = door.json("POST", "/v1/portal/sessions", body, manager(kw, "portal:write"))
    foreign = door.json("POST", "/v1/portal/sessions", body, manager(kw, account="initech"))
    bound = door.json("POST", "/v1/portal/sessions", body, manager(kw, account="globex", keyspace="every"))

    assert (lacking.status, lacking.code) == (403, "exceeds_grantor")
    assert (foreign.status, foreign.code) == (404, "not_found")
    assert (bound.status, bound.json["keyspace"]) == (201, "every")
    theirs = manager(kw, account="initech")
    assert door.get(f"/v1/portal/sessions/{bound.json['id']}", theirs).status == 404
    assert door.get("/v1/portal/sessions?account=globex", theirs).status == 404
    assert door.get("/v1/portal/sessions", theirs).json["items"] == []


# ------------------------------------------------------------------------------------------------------------- its looks

COLOURED = f'{EVERY}\n[portal]\ntitle = "Globex Cloud"\naccent = "#FFDD00"\nback = "Back to Globex Cloud"\n'


def test_the_portal_looks_as_the_profile_says(door: Door, kw: Keywright) -> None:
    """Title, way back and colour are the profile's, the colour by a style of our own; for members all is as it was."""
    kw.keyspaces.apply(COLOURED)
    page = text(door.get(KEYS, signed_in(visit(kw, return_url=BACK))))
    style = door.get("/portal/looks/every.css")

    assert "Globex Cloud" in page
    assert "Back to Globex Cloud" in page
    assert 'href="/portal/looks/every.css"' in page
    assert (style.status, style.get("content-type")) == (200, "text/css; charset=utf-8")
    assert style.body.decode() == accents.style("#ffdd00")
    member = text(door.get(KEYS, signed_in(begin(kw, "admin"))))
    assert "Globex Cloud" not in member
    assert "/portal/looks/" not in member
    for none in ("default", "nothing", "keywright"):
        assert door.get(f"/portal/looks/{none}.css").status == 404


@pytest.mark.parametrize(
    "bad",
    [
        'accent = "red"', 'accent = "#fff"', 'accent = "#0b6e4f;}"', 'accent = "#0b6e4g"', 'accent = "url(https://x)"',
        'title = "a\\nb"', f'back = "{"x" * 61}"', 'logo = "https://x/logo.png"', "accent = 5",
    ],
)  # fmt: skip
def test_a_look_that_cannot_be_is_refused(bad: str) -> None:
    """What is no colour as #rrggbb, no line of text, or no part of a look is refused by its name."""
    with pytest.raises(ProfileError, match=rf"portal\.{bad.partition(' ')[0]}"):
        profiles.load(f"{EVERY}\n[portal]\n{bad}\n")


@settings(deadline=None)
@given(st.integers(0, 0xFFFFFF))
def test_any_colour_is_made_fit_to_be_read(number: int) -> None:
    """Of each colour the shade stands out from the ground, and what is written on it from the shade, in light and dark."""
    style = accents.style(f"#{number:06x}")
    found = re.findall(r"--primary: (#\w{6}); --primary-foreground: (#\w{6}); --ring: (#\w{6});", style)

    for (shade, ink, ring), ground in zip(found, (accents.LIGHT, accents.DARK), strict=True):
        assert accents.contrast(shade, ground) >= accents.LEAST
        assert accents.contrast(shade, ink) >= accents.LEAST
        assert ring == shade
    assert accents.contrast("#000000", "#ffffff") == 21


def test_a_colour_that_can_be_read_stays(door: Door) -> None:
    """A colour that stands out already is taken as it is; one that does not is changed only where it must be."""
    assert "--primary: #0b6e4f;" in accents.style("#0b6e4f").splitlines()[0]
    assert "--primary: #ffdd00;" in accents.style("#ffdd00").splitlines()[1]


def test_the_setting_of_hosts(kw: Keywright) -> None:
    """``portal_hosts`` is names of hosts; an address, a star or an empty label is refused."""
    assert configured(portal_hosts="App.example.com, localhost").portal_hosts == (
        "app.example.com",
        "localhost",
    )
    assert configured().portal_hosts == ()
    for wrong in ("https://app.example.com", "*.example.com", "app..example.com", "app.example.com:443"):
        with pytest.raises(CannotStart, match="portal_hosts"):
            configured(portal_hosts=wrong)


# ------------------------------------------------------------------------------------------------------------- the command


def test_the_command_opens_lists_and_ends(template: Path, tmp_path: Path) -> None:
    """``--quiet`` prints the link alone; visits are listed, and ended by id or by whose they are; half a question is refused."""
    on = Folder(tmp_path, copy_of=template)
    made = on("portal", "open", "globex", "--subject", "ana@globex", "--role", "analyst", "--quiet")
    assert re.fullmatch(r"http://127\.0\.0\.1:8700/portal/[\w-]{43}\n", made.out)
    named = on("portal", "open", "globex", "--subject", "bob@globex", "--preview", "--json").json
    listed = on("portal", "list", "--account", "globex", "--json").json["items"]

    assert (named["preview"], named["role"], named["created_by"].partition(":")[0]) == (
        True,
        "admin",
        "command",
    )
    assert sorted((one["subject"], one["state"]) for one in listed) == [
        ("ana@globex", "waiting"),
        ("bob@globex", "waiting"),
    ]
    assert on("portal", "end", "--account", "globex", "--subject", "ana@globex").out == "ended: 1\n"
    assert on("portal", "end", named["id"], "--json").json["state"] == "ended"
    for half in ((), (named["id"], "--account", "globex"), ("--subject", "ana@globex")):
        assert on("portal", "end", *half).code == 2
    for refused in (
        ("globex", "--subject", "x", "--return-url", "http://evil.example"),
        ("nobody", "--subject", "x"),
    ):
        assert on("portal", "open", *refused).code == 1
    assert on("portal", "open", "globex", "--subject", "x", "--role", "owner").code == 2
