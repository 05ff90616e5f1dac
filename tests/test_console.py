"""The console over HTTP: every page for everybody, forged forms, hostile names, and the one sight of a secret."""

import re
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.server.console import HEADERS, ROUTES
from keywright.server.console.visits import Page
from people import PASSWORD, as_person, begin, member
from surfaces import Door, Reply, server

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def filled(path: str, key: Issued, person: str) -> str:
    """The address of a page, with the things that it shows."""
    things = {
        "account": "globex",
        "keyspace": "every",
        "key_id": key.key.id,
        "act": "rotate",
        "person": person,
    }
    return path.format(**things, username="globex")


def post(door: Door, path: str, headers: dict[str, str], **fields: str) -> Reply:
    """Send a form of one of our pages."""
    form = {"csrf": headers.get("X-CSRF-Token", ""), **fields}
    return door.send("POST", path, headers | FORM, urlencode(form).encode())


READS = [page for page in ROUTES if page.method == "GET"]
CHANGES = [page for page in ROUTES if page.method == "POST" and not page.anybody]


@pytest.mark.requirement("F-10")
@pytest.mark.security("A-11")
@pytest.mark.parametrize("role", ["owner", "admin", "developer", "analyst", "auditor", "operator", "nobody"])
def test_each_page_opens_for_whom_it_is(door: Door, kw: Keywright, key: Issued, role: str) -> None:
    """A page opens for whoever has its right, is 403 for who has not, and asks a stranger to sign in; each is guarded."""
    headers = {} if role == "nobody" else as_person(kw, begin(kw, role))
    person = member(kw, "analyst").id
    wrong = {}
    for page in READS:
        reply = door.get(filled(page.path, key, person), headers)
        if reply.status not in _expected(page, role):
            wrong[page.path] = (reply.status, reply.body[-300:])
        missing = [name for name, value in HEADERS.items() if reply.get(name) != value]
        if missing:
            wrong[f"{page.path} {missing}"] = reply.status
    assert wrong == {}


def _expected(page: Page, role: str) -> tuple[int, ...]:
    from keywright.roles import RIGHTS

    if page.anybody:
        return (200,)
    if role == "nobody":
        return (303,)
    if role == "operator":
        return (200, 303)
    if page.operator or (page.scope and page.scope not in RIGHTS[role]):  # type: ignore[index]
        return (403,)
    return (200, 303, 422) if page.path.endswith(("usage", "{key_id}")) else (200, 303)


@pytest.mark.security("A-05", "T-50")
@pytest.mark.parametrize("forged", ["no token", "another token", "another site"])
def test_a_forged_form_changes_nothing(door: Door, kw: Keywright, key: Issued, forged: str) -> None:
    """Without the session's token, or from another site's page, every form of the console is refused."""
    headers = as_person(kw, begin(kw, "operator"))
    person, head = member(kw, "analyst").id, kw.installation.trail.head()
    if forged == "another site":
        headers |= {"Sec-Fetch-Site": "cross-site"}
    token = {"no token": "", "another token": "0" * 64, "another site": headers["X-CSRF-Token"]}[forged]

    for page in CHANGES:
        reply = post(door, filled(page.path, key, person), headers, csrf=token, act="disable", name="x")
        assert reply.status == 403, page.path

    assert kw.installation.trail.head() == head


@pytest.mark.requirement("F-17", "F-18", "X-09")
def test_a_secret_is_shown_once(door: Door, kw: Keywright) -> None:
    """The answer to the form shows id and secret; sent again it makes nothing and shows nothing; no later page does."""
    headers = as_person(kw, begin(kw, "admin"))
    at = "/console/@globex/fullwhere/keys"
    form = {"name": "CRM sync", "environment": "production", "once": "a" * 32}

    made = post(door, at, headers, **form)
    again = post(door, at, headers, **form)

    secret = re.search(rb"fullwheresec_[0-9A-Za-z]{38}", made.body)
    assert (made.status, made.get("cache-control")) == (200, "no-store")
    assert secret is not None
    (key,) = kw.keys.list(keyspace="fullwhere").items
    assert key.id.encode() in made.body
    assert (again.status, again.get("location")) == (303, f"{at}/{key.id}?said=shown_once")
    for path in ("", f"/{key.id}", f"/{key.id}/edit", f"/{key.id}/delete", f"/{key.id}?said=shown_once"):
        assert secret[0] not in door.get(at + path, headers).body
    sent = {"X-API-KEY": key.id, "X-API-SECRET": secret[0].decode()}
    assert door.get("/k/fullwhere.production/whoami", sent).status == 200


@pytest.mark.requirement("F-31")
@pytest.mark.security("T-41")
@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>", "{{ 7*7 }}", "\u05d0\u05d1 مفتاح 🦊", '"><script>x</script>']
)
def test_a_hostile_name_is_text(door: Door, kw: Keywright, name: str) -> None:
    """Whatever a name holds is shown as text, on the list, the key's page and where it is typed again."""
    from html import escape

    headers = as_person(kw, begin(kw, "admin"))
    key_id = make(kw, name=name, description=name).key.id

    for path in ("", f"/{key_id}", f"/{key_id}/edit", f"/{key_id}/delete"):
        body = door.get(f"/console/@globex/every/keys{path}", headers).body.decode()
        assert escape(name).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in body
        assert "<img src=x" not in body
        assert "<script>x" not in body


def test_what_was_typed_is_kept(door: Door, kw: Keywright) -> None:
    """A form that is refused comes back with the reason and what was typed; nothing was made."""
    headers = as_person(kw, begin(kw, "admin"))

    reply = post(
        door, "/console/@globex/default/keys", headers, name="n" * 201, access="all", environment="staging"
    )

    assert (reply.status, kw.keys.list(keyspace="default").items) == (422, ())
    assert b"longer than 200" in reply.body
    assert b"n" * 201 in reply.body


def test_a_key_is_deleted_by_its_name(door: Door, kw: Keywright, key: Issued) -> None:
    """Deleting wants the name typed; then the key is gone and the next request is refused."""
    headers = as_person(kw, begin(kw, "owner"))
    at = f"/console/@globex/every/keys/{key.key.id}/delete"

    assert post(door, at, headers, name="another").status == 422
    assert door.get("/k/every.production/whoami", bearer(key)).status == 200
    assert post(door, at, headers, name=key.key.name).status == 303
    assert door.get("/k/every.production/whoami", bearer(key)).code == "invalid"


@pytest.mark.parametrize(
    "to", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "/a\nb"]
)
def test_signing_in_leads_to_our_own_pages(door: Door, kw: Keywright, to: str) -> None:
    """Whatever the address says, one ends on a page of ours."""
    begin(kw, "owner", email="ana@globex.example")

    reply = door.send(
        "POST", "/console/sign-in", FORM,
        urlencode({"email": "ana@globex.example", "password": PASSWORD, "to": to}).encode(),
    )  # fmt: skip

    assert (reply.status, reply.get("location")) == (303, "/console/")


@pytest.mark.requirement("F-24")
def test_an_edit_changes_what_is_typed_and_nothing_else(door: Door, kw: Keywright) -> None:
    """Name and description become what was typed; expiry and secret stay, and requests go on; a new key keeps none."""
    headers = as_person(kw, begin(kw, "admin"))
    key = make(kw, expires_at=kw.installation.clock() + 10**12)
    at = f"/console/@globex/every/keys/{key.key.id}/edit"
    form = {"name": "Renamed", "description": "Nightly", "access": "all", "expires": "keep"}

    assert door.get("/k/every.production/whoami", bearer(key)).status == 200
    assert post(door, at, headers, **form).status == 303
    after = kw.keys.get(key.key.id)

    assert (after.name, after.description, after.expires_at) == ("Renamed", "Nightly", key.key.expires_at)
    assert door.get("/k/every.production/whoami", bearer(key)).status == 200
    assert post(door, "/console/@globex/every/keys", headers, **form, environment="production").status == 422
