"""The console in a real browser: what can go wrong on a person's way, and the operator's screens.

Every test ends by asking what the browser complained of, and whom it asked: nothing, and nobody but this server. With
``KEYWRIGHT_SCREENSHOTS=1`` the screens that are met are written into ``docs/screenshots``: ``make screenshots``.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from browser import Browser
from conftest import make
from keywright import Keywright
from keywright.profiles import load, source
from keywright.testing import Clock
from people import PASSWORD, begin
from surfaces import served, server

AXE = (Path(__file__).parent / "vendor" / "axe" / "axe.min.js").read_text(encoding="utf-8")
SCREENSHOTS = Path(__file__).resolve().parent.parent / "docs" / "screenshots"
SHOOT = os.environ.get("KEYWRIGHT_SCREENSHOTS") == "1"
ADMIN = "ana@globex.example"
NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Chromium, for all tests of this file."""
    with Browser() as opened:
        yield opened


class Site:
    """A served console, and a person's browser on it."""

    def __init__(self, kw: Keywright, browser: Browser, port: int, page: Page) -> None:
        self.kw, self.browser, self.port, self.page = kw, browser, port, page
        self.base = f"http://127.0.0.1:{port}"

    def go(self, path: str) -> None:
        """Open a page by its address."""
        self.page.goto(self.base + path)

    def at(self, path: str) -> None:
        """The browser is at an address, query aside."""
        expect(self.page).to_have_url(re.compile(re.escape(self.base + path) + r"(\?.*)?$"))

    def sign_in(self, email: str = ADMIN) -> None:
        """Sign in on the page that is open."""
        self.page.get_by_label("Address of mail").fill(email)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()

    def looked_at(self, name: str) -> None:
        """Nothing on this screen keeps anybody out, wide or narrow, nothing sticks out; and a picture, where asked for."""
        page = self.page
        page.evaluate(AXE)
        _unbarred(page, f"{name}, light", _RULES)
        page.emulate_media(color_scheme="dark")
        _unbarred(page, f"{name}, dark", "{type: 'rule', values: ['color-contrast']}")
        if SHOOT:
            page.screenshot(path=SCREENSHOTS / f"{name}-dark.png", full_page=True)
        page.emulate_media(color_scheme="light")
        if SHOOT:
            page.screenshot(path=SCREENSHOTS / f"{name}-light.png", full_page=True)
        page.set_viewport_size(NARROW)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name
        if SHOOT:
            page.screenshot(path=SCREENSHOTS / f"{name}-narrow.png", full_page=True)
        page.set_viewport_size(WIDE)


_RULES = "{type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}"


def _unbarred(page: Page, where: str, rules: str) -> None:
    found = page.evaluate(
        f"axe.run(document, {{preload: false, resultTypes: ['violations'], runOnly: {rules}}})"
    )
    grave = [
        f"{where}: {one['id']}: {[node['html'][:150] for node in one['nodes']]} {str(one['nodes'][0]['any'])[:300]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert grave == [], where


@pytest.fixture
def site(kw: Keywright, chromium: Browser) -> Iterator[Site]:
    """The console with an admin of globex, who is not signed in; no complaint and no stranger may come of it."""
    begin(kw, "admin", email=ADMIN)
    chromium.complaints.clear()
    chromium.asked.clear()
    with (
        served(server(kw)) as port,
        chromium.page(permissions=["clipboard-read", "clipboard-write"], reduced_motion="reduce") as page,
    ):
        page.set_default_timeout(10_000)
        yield Site(kw, chromium, port, page)
        shown = _complaints(page)
    assert [said for said in [*chromium.complaints, *shown] if not _expected(said)] == []
    assert {urlsplit(url).netloc for url in chromium.asked if url.startswith("http")} <= {f"127.0.0.1:{port}"}


def _complaints(page: Page) -> list[str]:
    return [f"policy: {found}" for found in page.evaluate("window.violations")]


def _expected(said: str) -> bool:
    # Chromium writes down each page that is answered with an error; tests that ask for one say so in what they assert.
    return said.startswith("error: Failed to load resource: the server responded with a status of 4") or (
        said == "error: Failed to load resource: net::ERR_CACHE_MISS"
    )


# ----------------------------------------------------------------------------------------------------- what can go wrong


def test_a_double_click_makes_one_key(site: Site) -> None:
    """Two clicks on Create make one key, and show one secret or say that it was shown."""
    page = site.page
    site.go("/console/@globex/fullwhere/keys/new")
    site.sign_in()
    page.get_by_label("Name").fill("Twice")
    page.get_by_role("button", name="Create", exact=True).dblclick()

    expect(page.get_by_role("heading", level=1)).to_contain_text("Twice")
    assert len(site.kw.keys.list(account="globex").items) == 1
    if page.get_by_label("I have saved it").count():
        page.get_by_label("I have saved it").check()


def test_two_tabs_change_one_key(site: Site) -> None:
    """A form that has stood in one tab while another deleted the key says so, and makes nothing anew."""
    page = site.page
    key_id = make(site.kw, keyspace="fullwhere").key.id
    at = f"/console/@globex/fullwhere/keys/{key_id}"
    site.go(f"{at}/edit")
    site.sign_in()
    site.at(f"{at}/edit")
    second = page.context.new_page()
    second.goto(f"{site.base}{at}/delete")
    second.get_by_label("Type its name").fill("CRM sync")
    second.get_by_role("button", name="Delete", exact=True).click()
    expect(second.get_by_role("status")).to_contain_text("Deleted")
    second.close()

    page.get_by_role("button", name="Save").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing here")
    site.looked_at("error")
    assert site.kw.keys.list(account="globex").items == ()


def test_a_session_ends_while_a_secret_is_shown(site: Site, clock: Clock) -> None:
    """The secret stays on the screen; Continue asks to sign in, leads to the key, and shows the secret no more."""
    page = site.page
    secret = _fast_key(site)
    clock.advance(hours=1)
    expect(page.locator("#key-secret")).to_have_text(secret)
    page.get_by_role("button", name="Test it").click()
    expect(page.locator("details[open] output")).to_have_text("no answer")
    page.get_by_label("I have saved it").check()
    page.get_by_role("button", name="Continue").click()
    site.at("/console/sign-in")
    assert secret not in page.url
    site.sign_in()

    expect(page.get_by_role("heading", name="Secrets")).to_be_visible()
    assert secret not in page.content()


def _fast_key(site: Site) -> str:
    """Sign in, make a key of Fullwhere's by the form, and stay where its secret is shown."""
    page = site.page
    site.go("/console/@globex/fullwhere/keys/new")
    site.sign_in()
    page.get_by_label("Name").fill("CRM sync")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("CRM sync was created")
    return page.locator("#key-secret").inner_text()


def test_a_pasted_secret_is_never_sent(site: Site) -> None:
    """A secret pasted into the search is reduced to its id before anything leaves the browser."""
    page = site.page
    issued = make(site.kw, keyspace="fullwhere")
    make(site.kw, keyspace="fullwhere", name="Another")
    token = issued.credential.token.reveal()
    site.go("/console/@globex/fullwhere/keys")
    site.sign_in()
    page.get_by_label("Search").fill(token)

    expect(page.get_by_label("Search")).to_have_value(issued.key.id)
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("alert")).to_contain_text("You pasted a secret")
    assert not any(token in url for url in site.browser.asked)


def test_by_keyboard_alone(site: Site) -> None:
    """With Tab, Space and Enter alone somebody signs in, makes a key with a scope, saves it, and comes to its page."""
    page = site.page
    site.go("/console/@globex/gallabox/keys/new")
    expect(page.get_by_label("Address of mail")).to_be_focused()
    page.keyboard.type(ADMIN)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.type("By hand")
    _tab_to(page, page.get_by_label("All: read"))
    for _ in range(2):
        page.keyboard.press("ArrowDown")
    _tab_to(page, page.get_by_label("Read the caller's profile"))
    page.keyboard.press("Space")
    _tab_to(page, page.get_by_role("button", name="Add API Key"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("By hand was created")
    _tab_to(page, page.get_by_role("button", name="Copy the secret"))
    page.keyboard.press("Enter")
    expect(page.locator("copy-button[for=key-secret]")).to_have_text("Copied")
    _tab_to(page, page.get_by_role("tab", name="curl"))
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Python")).to_be_visible()
    _tab_to(page, page.get_by_label("I have saved it"))
    page.keyboard.press("Space")
    _tab_to(page, page.get_by_role("button", name="Continue"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Secrets")).to_be_visible()
    key = site.kw.keys.list(account="globex").items[0]
    assert (key.access, key.scopes) == ("restricted", ("profile:read",))


def _tab_to(page: Page, wanted: Locator, patience: int = 60) -> None:
    for _ in range(patience):
        if wanted.evaluate(
            "e => e === document.activeElement || (e.type === 'radio' && document.activeElement.name === e.name)"
        ):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {wanted}")


# -------------------------------------------------------------------------------------------------------- every screen


def test_every_screen_of_an_operator(site: Site) -> None:
    """Accounts, people, keyspaces, management keys, usage, audit trail and health, and an account seen as an operator."""
    page, kw = site.page, site.kw
    begin(kw, "operator", email="op@example.com")
    kw.accounts.suspend("initech")
    site.go("/console/")
    site.sign_in("op@example.com")
    for name in ("accounts", "people", "keyspaces", "management-keys", "usage", "audit", "health"):
        page.get_by_label("Pages").locator(f"a[href='/console/operator/{name}']").click()
        site.at(f"/console/operator/{name}")
        site.looked_at(f"operator-{name}")
    site.go("/console/@globex")
    expect(page.get_by_text("You see this account as an operator")).to_be_visible()
    invited = kw.installation.people.invite("new@globex.example", account="globex", role="analyst")
    page.context.clear_cookies()
    site.go(f"/console/link#{invited.token}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Accept the invitation")
    assert invited.token not in page.url
    site.looked_at("invitation")


@pytest.mark.requirement("X-24")
def test_two_hosts_say_it_in_their_own_words(site: Site) -> None:
    """Words and path of a keyspace are its own: changed in its definition, they are changed on the screen."""
    page = site.page
    for navigation, start, noun in (
        (["Admin", "Access"], "Mint a token", "token"),
        (["Tools", "Robots"], "Add a robot", "robot"),
    ):
        text = re.sub(r"(?s)\[labels\].*", "", source("fullwhere"))
        text = re.sub(r"navigation = .*", f"navigation = {json.dumps(navigation)}", text)
        site.kw.keyspaces.apply(f'{text}[labels]\nnoun = "{noun}"\nstart = "{start}"\n')
        site.go("/console/@globex/fullwhere/keys")
        if page.get_by_role("button", name="Sign in").count():
            site.sign_in()
        expect(page.get_by_role("heading", level=1)).to_have_text(navigation[-1])
        expect(page.get_by_label("Breadcrumb").get_by_role("listitem")).to_have_text(navigation)
        expect(page.get_by_role("link", name=start).first).to_be_visible()
        expect(page.get_by_text(f"No {noun} yet.")).to_be_visible()
    assert load(text + "\n").name == "fullwhere"
