"""The portal in a real browser: from a host's own page to the keys, a key made, and back; and every screen that is new."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from browser import Browser
from keywright import Keywright
from keywright.profiles import source
from keywright.server.problems import App
from people import code_of
from surfaces import served, server
from test_console_walks import Site

LOOK = '\n[portal]\ntitle = "Globex Cloud"\naccent = "#ffb703"\nback = "Back to Globex Cloud"\n'
KEYS = "/console/@globex/default/keys"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Chromium, for all tests of this file."""
    with Browser() as opened:
        yield opened


class Walk(Site):
    """A served console, a host of another site beside it, and a browser."""

    host: str = ""

    def landed(self, path: str) -> None:
        """The browser is on the host's own page."""
        expect(self.page).to_have_url(self.host + path)
        expect(self.page.locator("body")).to_have_text("The host's own page")


def host(kw: Keywright, base: str, **more: Any) -> App:
    """A product that signs its customers' admins in, and leads them from its settings page to their keys."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                moment = (await receive())["type"]
                await send({"type": f"{moment}.complete"})
                if moment == "lifespan.shutdown":
                    return
        if scope["path"] != "/keys":
            headers = [(b"content-type", b"text/html")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"<title>Host</title>The host's own page"})
            return
        origin = dict(scope["headers"])[b"host"].decode()
        back = f"http://{origin}/settings"
        link = kw.portal.open(account="globex", subject="ana@globex", name="Ana", return_url=back, **more)
        location = [(b"location", f"{base}/portal/{code_of(link)}".encode())]
        await send({"type": "http.response.start", "status": 303, "headers": location})
        await send({"type": "http.response.body", "body": b""})

    return app


@pytest.fixture
def walk(kw: Keywright, chromium: Browser) -> Iterator[Walk]:
    """A browser, a host on localhost, which is another site than 127.0.0.1, and the console; no complaint may come of it."""
    kw.keyspaces.apply(source("default") + LOOK)
    chromium.complaints.clear()
    chromium.asked.clear()
    with (
        served(server(kw)) as port,
        served(host(kw, f"http://127.0.0.1:{port}", keyspace="default")) as beside,
        chromium.page(reduced_motion="reduce") as page,
    ):
        page.set_default_timeout(10_000)
        walking = Walk(kw, chromium, port, page)
        walking.host = f"http://localhost:{beside}"
        yield walking
    assert [said for said in chromium.complaints if "status of 4" not in said] == []
    asked = {urlsplit(url).netloc for url in chromium.asked if url.startswith("http")}
    assert asked <= {f"127.0.0.1:{port}", f"localhost:{beside}"}


def test_from_the_hosts_page_to_a_key_and_back(walk: Walk) -> None:
    """A click on the host's page leads to the keys, in the host's looks; a key is made, and signing out leads back."""
    page = walk.page
    page.goto(f"{walk.host}/keys")
    walk.at(KEYS)
    expect(page.get_by_role("banner")).to_contain_text("Globex Cloud")
    expect(page.get_by_role("banner")).to_contain_text("Ana")
    assert "/portal/" not in page.url
    assert page.evaluate("document.cookie") == ""
    walk.looked_at("portal-empty")
    page.get_by_role("link", name="Create key").first.click()
    form = page.locator("main form, dialog[open] form").first
    form.get_by_label("Name").fill("CRM sync")
    form.get_by_label("Read only", exact=False).first.check()
    form.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("CRM sync was created")
    walk.looked_at("portal-reveal")
    page.get_by_label("I have saved it").check()
    page.get_by_role("button", name="Continue").click()
    key = walk.kw.keys.list(account="globex").items[0]
    walk.at(f"{KEYS}/{key.id}")
    assert (key.name, key.created_by) == ("CRM sync", "visitor:ana@globex")
    page.get_by_label("Pages").get_by_role("link", name="API keys").click()
    expect(page.get_by_text("by ana@globex")).to_be_visible()
    walk.looked_at("portal-keys")
    page.get_by_role("link", name="Back to Globex Cloud").click()
    walk.landed("/settings")
    page.go_back()
    page.get_by_role("button", name="Sign out").click()
    walk.landed("/settings?reason=signed_out")

    walk.go(KEYS)
    walk.at("/console/sign-in")
    assert walk.kw.portal.list().items[0].state == "ended"


def test_a_visit_that_was_ended_leads_back(walk: Walk) -> None:
    """When the host ends a visit the next click leads to the host, who may bring its people in again."""
    page = walk.page
    page.goto(f"{walk.host}/keys")
    walk.at(KEYS)
    walk.kw.portal.end_all(account="globex", subject="ana@globex")
    page.get_by_label("Pages").get_by_role("link", name="Usage").click()
    walk.landed("/settings?reason=session_ended")
    page.goto(f"{walk.host}/keys")
    walk.at(KEYS)
    walk.kw.portal.end_all(account="globex")
    page.get_by_role("button", name="Sign out").click()
    walk.landed("/settings?reason=session_ended")


def test_every_screen_of_the_portal(walk: Walk) -> None:
    """Usage, hygiene, a preview, the question before going on as somebody else, and both ends keep nobody out."""
    page = walk.page
    page.goto(f"{walk.host}/keys")
    for name in ("Usage", "Hygiene", "Alerts"):
        page.get_by_label("Pages").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        walk.looked_at(f"portal-{name.lower()}")
    preview = walk.kw.portal.open(account="globex", subject="bob@globex", name="Bob", preview=True)
    walk.go(f"/portal/{code_of(preview)}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Go on as Bob?")
    walk.looked_at("portal-switch")
    page.get_by_role("button", name="Go on as Bob").click()
    walk.at("/console/@globex")
    walk.go(KEYS)
    expect(page.get_by_role("note")).to_have_text(
        "You see this account with the eyes of Bob (admin), and change nothing."
    )
    expect(page.get_by_role("link", name="Create key")).to_have_count(0)
    walk.looked_at("portal-preview")
    page.get_by_role("button", name="Sign out").click()
    walk.at("/portal")
    expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")
    walk.looked_at("portal-left")
    walk.go(f"/portal/{code_of(preview)}")
    expect(page.get_by_role("heading", level=1)).to_have_text("This link does not work any more")
    walk.looked_at("portal-gone")
