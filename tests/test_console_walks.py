"""The console in a real browser: for each of the five systems the walk of its documentation page, and what can go wrong on it.

Every test ends by asking what the browser complained of, and whom it asked: nothing, and nobody but this server. With
``KEYWRIGHT_SCREENSHOTS=1`` the screens that are met are written into ``docs/screenshots``: ``make screenshots``.
"""

import http.client
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import pyotp
import pytest
from playwright.sync_api import Error, Locator, Page, expect

from browser import Browser, fewer_colours
from conftest import bearer, make
from keywright import Keywright
from keywright.profiles import load, source
from keywright.testing import Clock
from people import PASSWORD, begin
from surfaces import served, server

AXE = (Path(__file__).parent / "vendor" / "axe" / "axe.min.js").read_text(encoding="utf-8")
DOCS = Path(__file__).resolve().parent.parent / "docs"
SCREENSHOTS = DOCS / "screenshots"
SHOOT = os.environ.get("KEYWRIGHT_SCREENSHOTS") == "1"
ADMIN = "ana@globex.example"
NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}


class Words(NamedTuple):
    """What a system's page says, from its documentation page, not from its profile; and the rows that its walk proves."""

    path: tuple[str, ...]
    start: str
    submit: str
    ids: tuple[str, ...]  # elements that hold what is shown once
    rows: tuple[str, ...]
    fields: tuple[str, ...] = ("Name",)
    delete: str = "Delete"
    edit_submit: str = "Save"
    dialog: bool = False


FIVE = {
    "fullwhere": Words(
        ("Settings", "Connectivity", "Developers"), "Generate an API Key", "Create", ("key-secret",),
        ("F-11", "F-12", "F-13", "F-14", "F-15", "F-16", "F-18", "F-19", "F-20", "F-21", "F-22", "F-23", "F-24", "F-25", "F-27"),
        fields=("Name", "Description"), dialog=True,
    ),
    "partna": Words(
        (), "Create API key", "Create", ("key-token",), ("P-10", "P-27", "P-29", "P-34", "P-36", "P-37"),
    ),
    "atfinity": Words(
        ("Integrations", "API Keys"), "Create API Key", "Create API-Key", ("key-token",),
        ("A-02", "A-03", "A-04", "A-05", "A-06", "A-07", "A-08", "A-11", "A-12"), delete="Revoke", dialog=True,
    ),
    "gallabox": Words(
        ("Settings", "API keys"), "+ Add new", "Add API Key", ("key-secret",), ("G-15", "G-16", "G-17", "G-18", "G-19", "G-20"),
    ),
    "bizmagnets": Words(
        ("Integration", "API Keys"), "+Add New API Key", "Submit", ("key-secret",), ("B-06", "B-07", "B-08"),
        edit_submit="Submit", dialog=True,
    ),
}  # fmt: skip
WALKS = [
    pytest.param(name, id=name, marks=pytest.mark.requirement(*said.rows)) for name, said in FIVE.items()
]


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
        with self.page.expect_navigation():
            self.page.get_by_role("button", name="Sign in").click()

    def looked_at(self, name: str) -> None:
        """Nothing on this screen keeps anybody out, wide or narrow, nothing sticks out; and a picture, where asked for."""
        page = self.page
        page.evaluate(AXE)
        _unbarred(page, f"{name}, light", _RULES)
        self._shot(name, "light")
        self._scheme("dark")
        _unbarred(page, f"{name}, dark", "{type: 'rule', values: ['color-contrast']}")
        self._shot(name, "dark")
        self._scheme("light")
        page.set_viewport_size(NARROW)
        _unbarred(page, f"{name}, narrow", _RULES)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name
        self._shot(name, "narrow")
        page.set_viewport_size(WIDE)

    def _scheme(self, scheme: Literal["light", "dark"]) -> None:
        self.page.emulate_media(color_scheme=scheme)
        has = self.page.locator("html.dark")
        expect(has).to_have_count(1 if scheme == "dark" else 0)

    def _shot(self, name: str, kind: str) -> None:
        """A picture shows no secret, not even one of a test."""
        if SHOOT:
            secret = self.page.locator(".secret:visible, reveal-guard pre:visible")
            png = self.page.screenshot(full_page=True, mask=[secret], mask_color="#808080")
            with self.browser.page() as apart:
                (SCREENSHOTS / f"{name}-{kind}.png").write_bytes(fewer_colours(apart, png))

    def run(self, curl: str) -> Any:
        """What a curl command that a page shows prints: it runs as it stands, but for the port of the test's server."""
        line = re.sub(r"http://127\.0\.0\.1:\d+", self.base, curl.replace("curl ", "curl -s ", 1))
        ran = subprocess.run(["bash", "-c", line], capture_output=True, check=True, timeout=30)
        return json.loads(ran.stdout)

    def call(self, headers: dict[str, str], path: str) -> int:
        """The status of a request of a program's."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()


_RULES = "{type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}"


def _unbarred(page: Page, where: str, rules: str) -> None:
    found = page.evaluate(
        f"axe.run(document, {{preload: false, resultTypes: ['violations'], runOnly: {rules}}})"
    )
    grave = [
        f"{one['id']}: {node['html'][:150]}: {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
    assert grave == [], f"{where}: {grave}"


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


def copied(page: Page, name: str, within: Page | Locator | None = None) -> str:
    """What the clipboard holds after the button that copies something."""
    page.evaluate("navigator.clipboard.writeText('nothing')")
    (within or page).get_by_role("button", name=f"Copy {name}").click()
    page.wait_for_function("async () => await navigator.clipboard.readText() !== 'nothing'")
    found: str = page.evaluate("navigator.clipboard.readText()")
    return found


def back(page: Page) -> None:
    """Press Back. To what a form was answered Chromium does not go: nothing was kept of it, and a page of its own says so."""
    with page.expect_event("framenavigated"), suppress(Error):
        page.go_back()
    page.wait_for_load_state()


def parsed(lines: str) -> dict[str, str]:
    """Header lines as a program sends them."""
    return {name: value for name, _, value in (line.partition(": ") for line in lines.splitlines())}


# --------------------------------------------------------------------------------------------------------- the five walks


@pytest.mark.requirement("X-02", "X-24")
@pytest.mark.security("A-06")
@pytest.mark.screen("U-12", "U-26", "U-27", "U-28", "U-29", "U-30", "U-32", "U-44", "U-52", "U-58")
@pytest.mark.parametrize("name", WALKS)
def test_the_walk(site: Site, name: str) -> None:
    """From signing in to the refused request after deletion, in a system's own words, on its own path."""
    said, page = FIVE[name], site.page
    keys = f"/console/@globex/{name}/keys"

    _enter(site, name, said)
    expect(page.get_by_text("yet.")).to_be_visible()
    if name == "fullwhere":
        site.looked_at("empty")
    headers, secrets = _create(site, name, said)
    whoami = f"/k/{name}.production/whoami"
    _save(site, said, secrets)
    key = site.kw.keys.list(account="globex").items[0]
    site.at(f"{keys}/{key.id}")
    page.get_by_label("Pages").locator(f"a[href='{keys}']").click()
    _listed(site, name, key.id, secrets)
    _edit(site, said, headers, whoami)
    _search_and_switch(site, name, key.id)
    _delete(site, said)

    site.at(keys)
    expect(page.get_by_text(key.id)).to_have_count(0)
    expect(page.get_by_role("status")).to_contain_text("Deleted")
    assert [site.call(one, whoami) for one in headers] == [401] * len(headers)
    assert site.kw.keys.list(account="globex").items == ()


def _entry(name: str, said: Words) -> str:
    return said.path[-1] if said.path else "API keys"


def _enter(site: Site, name: str, said: Words) -> None:
    """Sign in, and go where the system's page says that its keys are."""
    page = site.page
    if name == "partna":  # by its deep link, signed out and signed in
        site.go("/settings?tab=api-webhooks")
        site.sign_in()
        site.at("/console/@globex/partna/keys")
        site.go("/settings?tab=api-webhooks")
        site.at("/console/@globex/partna/keys")
        return
    site.go(f"/console/@globex/{name}/keys")
    site.at("/console/sign-in")
    site.sign_in()
    site.at(f"/console/@globex/{name}/keys")
    if name == "atfinity":
        site.go("/console/@globex/usage")
        shield = page.get_by_role("link", name="Administration")
        box = shield.bounding_box()
        assert box is not None
        assert box["x"] < 100
        assert box["y"] > WIDE["height"] * 0.75
        shield.click()
        _without_shield(site)
    menu = page.get_by_label("Pages")
    heading = " › ".join(said.path[:-1])
    group = menu.locator("li", has_text=re.compile(f"^{re.escape(heading)}$"))
    links = menu.locator(f"li:has(> a[href='/console/@globex/{name}/keys'])")
    expect(group.first).to_be_visible()
    links.get_by_role("link", name=_entry(name, said)).click()
    expect(page.get_by_label("Breadcrumb").get_by_role("listitem")).to_have_text(list(said.path))
    expect(page.get_by_role("heading", level=1)).to_have_text(_entry(name, said))


def _without_shield(site: Site) -> None:
    """A member who manages nothing has no shield."""
    begin(site.kw, "analyst", email="eve@globex.example")
    with site.browser.page() as page:
        Site(site.kw, site.browser, site.port, page).go("/console/@globex/usage")
        Site(site.kw, site.browser, site.port, page).sign_in("eve@globex.example")
        expect(page.get_by_role("heading", level=1)).to_have_text("Usage")
        expect(page.get_by_role("link", name="Administration")).to_have_count(0)
        expect(page.locator("a[href*='/atfinity/keys']")).to_have_count(0)


def _create(site: Site, name: str, said: Words) -> tuple[list[dict[str, str]], list[str]]:
    """Make a key as the page asks, copy what is shown once, and send it in every way that is shown."""
    page = site.page
    page.get_by_role("link", name=said.start, exact=True).first.click()
    form = page.get_by_role("dialog").locator("form") if said.dialog else page.locator("main form")
    expect(form).to_be_visible()
    for field in said.fields:
        form.get_by_label(field).fill("CRM sync" if field == "Name" else "Made for the walk")
    if name == "partna":
        form.get_by_label("Environment").select_option("production")
    _choose(site, name, form, said)
    site.looked_at(f"{name}-create")
    form.get_by_role("button", name=said.submit, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("CRM sync was created")
    expect(page.get_by_role("alert")).to_contain_text("cannot be retrieved afterwards, by anybody")
    expect(page.get_by_role("alert")).to_contain_text("never in code that runs in a browser")
    assert "**Keep keys out of client-side code.**" in (DOCS / "quickstart.md").read_text(encoding="utf-8")
    shown = {one: page.locator(f"#{one}").inner_text() for one in ("key-id", *said.ids)}
    for one in said.ids:  # what records sessions leaves out whatever has this mark
        marked = page.evaluate(
            "s => [...document.querySelectorAll('main *')].filter(e => !e.children.length && e.textContent.includes(s))"
            ".map(e => !!e.closest('.ph-no-capture'))",
            shown[one],
        )
        assert len(marked) > 4, one
        assert all(marked), one
    names = {"key-id": "the id", "key-secret": "the secret", "key-token": "the token"}
    assert {one: copied(page, names[one]) for one in shown} == shown
    for one in shown:
        assert int(page.locator(f"#{one}").evaluate("e => getComputedStyle(e).fontWeight")) >= 600, one
    site.looked_at(f"{name}-reveal")
    return _presented(site, name), [shown[one] for one in said.ids]


def _choose(site: Site, name: str, form: Locator, said: Words) -> None:
    """What a key may do: Gallabox asks, and so does Partna, which warns where everything is chosen."""
    if name == "gallabox":
        submit = form.get_by_role("button", name=said.submit, exact=True)
        assert form.locator("input[name=access]:checked").count() == 0
        submit.click()
        assert form.get_by_label("All: read and change everything").evaluate("e => e.validity.valueMissing")
        form.get_by_label("Restricted").check()
        expect(form.locator("#says")).to_contain_text("can do nothing yet")
        submit.click()
        expect(site.page.get_by_role("alert")).to_contain_text("scopes")
        assert site.kw.keys.list(account="globex").items == ()
        expect(form.get_by_label("Name", exact=True)).to_have_value("CRM sync")
        site.go("/console/@globex/gallabox/keys/new?name=CRM+sync&access=restricted")
        form.get_by_label("Read the caller's profile").check()
        expect(form.locator("#says")).to_have_text("This API key can read the caller's profile.")
        site.looked_at("gallabox-restricted")
        form.get_by_label("All: read and change everything").check()
    if name == "partna":
        expect(form.get_by_label("All: read and change everything")).to_be_checked()
    if name in ("gallabox", "partna"):
        expect(form.get_by_text("can also destroy everything")).to_be_visible()
        form.get_by_label("Read only").check()
        expect(form.get_by_text("can also destroy everything")).to_be_hidden()
        form.get_by_label("All: read and change everything").check()
    else:
        expect(form.get_by_text("can read and change everything")).to_be_visible()


def _presented(site: Site, name: str) -> list[dict[str, str]]:
    """Every way of sending the key that is shown: copied, it is accepted; each example is copied as it is seen."""
    page, found = site.page, []
    ways = page.locator("details.present:has(tab-set)")
    assert ways.count() == {"atfinity": 2, "bizmagnets": 2, "default": 5}.get(name, 1)
    for way in ways.all():
        if way.get_attribute("open") is None:
            way.locator("summary").click()
        headers = parsed(copied(page, "the headers", way))
        assert site.call(headers, f"/k/{name}.production/whoami") == 200, headers
        way.get_by_role("button", name="Test it").click()
        expect(way.locator("output")).to_have_text("VALID")
        for language in ("curl", "Python", "Node"):
            way.get_by_role("tab", name=language).click()
            panel = way.get_by_role("tabpanel", name=language)
            expect(way.get_by_role("tabpanel")).to_have_count(1)
            code = copied(page, f"the {language} example", panel)
            assert code == panel.locator("pre").text_content().rstrip("\n")  # type: ignore[union-attr]
            assert all(value in code for value in headers.values())
            if language == "curl":
                assert site.run(code)["account"]["username"] == "globex"
        found.append(headers)
    return found


@pytest.mark.requirement("X-02")
def test_every_scheme_is_shown(site: Site) -> None:
    """Where a keyspace takes five schemes, each is shown for the key just made, and each as it is copied is accepted."""
    page = site.page
    site.kw.keyspaces.apply(
        source("default").replace("schemes = [", 'header = "X-Shop-Key"\nschemes = ["header", ')
    )
    site.go("/console/@globex/default/keys/new?name=CRM+sync&access=all&environment=production")
    site.sign_in()
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("CRM sync was created")

    shown = {tuple(headers) for headers in _presented(site, "default")}
    assert shown == {
        ("X-Shop-Key",), ("Authorization",), ("X-API-KEY", "X-API-SECRET"), ("apiKey", "apiSecret")
    }  # fmt: skip
    page.get_by_label("I have saved it").check()


def _save(site: Site, said: Words, secrets: list[str]) -> None:
    """Continue only after *I have saved it*; Escape does nothing, going away and closing ask before."""
    page = site.page
    go = page.get_by_role("button", name="Continue")
    expect(go).to_be_disabled()
    page.keyboard.press("Escape")
    for leave in (
        lambda: page.get_by_role("link", name="Keywright").click(no_wait_after=True),
        lambda: page.close(run_before_unload=True),
    ):
        with page.expect_event("dialog") as asked:
            page.once("dialog", lambda dialog: dialog.dismiss())
            leave()
        assert asked.value.type == "beforeunload"
        expect(page.locator(f"#{said.ids[0]}")).to_have_text(secrets[0])
    page.get_by_label("I have saved it").check()
    expect(go).to_be_enabled()
    assert not any(secret in page.url for secret in secrets)
    go.click()


def _listed(site: Site, name: str, key_id: str, secrets: list[str]) -> None:
    """The list has the key with its id, and no secret; nor has any page that Back brings."""
    page = site.page
    row = page.locator(f"[id='{key_id}']")
    expect(row).to_contain_text("CRM sync")
    expect(row).to_contain_text(key_id)
    if name == "fullwhere":
        expect(row).to_contain_text("Made for the walk")
    site.looked_at(f"{name}-list")
    for _ in range(3):
        assert not any(secret in page.content() for secret in secrets)
        back(page)
    assert not any(secret in page.content() for secret in secrets)
    site.go(f"/console/@globex/{name}/keys")
    expect(page.locator(f"[id='{key_id}']")).to_be_visible()


def _edit(site: Site, said: Words, headers: list[dict[str, str]], whoami: str) -> None:
    """The pencil changes name and description; the key goes on working."""
    page = site.page
    assert [site.call(one, whoami) for one in headers] == [200] * len(headers)
    page.get_by_role("link", name="Edit CRM sync").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Name", exact=True).fill("CRM sync 2")
    page.get_by_label("Description").fill("Nightly")
    page.get_by_role("button", name=said.edit_submit, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("CRM sync 2")
    page.reload()
    expect(page.get_by_text("Nightly", exact=True)).to_be_visible()
    assert [site.call(one, whoami) for one in headers] == [200] * len(headers)


def _search_and_switch(site: Site, name: str, key_id: str) -> None:
    """A key is found among others, and each environment lists its own."""
    page = site.page
    other = make(site.kw, keyspace=name, environment="staging", name="Elsewhere").key.id
    site.go(f"/console/@globex/{name}/keys")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("Search").fill("crm")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator(f"[id='{key_id}']")).to_be_visible()
    page.get_by_label("Search").fill("nobody's")
    expect(page.get_by_text("Nothing matches.")).to_be_visible()
    site.go(f"/console/@globex/{name}/keys")
    tabs = page.get_by_role("navigation", name="Environments")
    for environment, there in (("Staging", other), ("Production", key_id)):
        tabs.get_by_role("link", name=environment).click()
        site.at(f"/console/@globex/{name}/keys")
        assert page.url.endswith(f"?environment={environment.lower()}")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator(f"[id='{there}']")).to_be_visible()
    site.kw.keys.delete(other)


def _delete(site: Site, said: Words) -> None:
    """Deleting says what it means, and wants the name."""
    page = site.page
    page.get_by_role("link", name=f"{said.delete} CRM sync 2").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("This cannot be undone.")).to_be_visible()
    expect(page.get_by_text("every integration that uses it stops")).to_be_visible()
    expect(page.get_by_role("link", name="Cancel")).to_be_focused()
    page.get_by_label("Type its name").fill("CRM")
    page.get_by_role("button", name=said.delete, exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("does not match")
    page.get_by_label("Type its name").fill("CRM sync 2")
    page.get_by_role("button", name=said.delete, exact=True).click()


# ----------------------------------------------------------------------------------------------------- what can go wrong


@pytest.mark.requirement("F-17", "X-09")
@pytest.mark.screen("U-25")
def test_a_secret_is_nowhere_afterwards(site: Site) -> None:
    """Neither Back, a reload, the same address, a second tab, the history nor what the browser keeps has the secret again."""
    page = site.page
    with page.expect_response(
        lambda answer: answer.request.method == "POST" and "/keys" in answer.url
    ) as made:
        secret = _fast_key(site)
    assert made.value.headers["cache-control"] == "no-store"
    url = page.url
    page.get_by_label("I have saved it").check()
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("Its secret was shown once")
    assert secret not in page.content()

    for _ in range(3):
        back(page)
        assert secret not in page.content()
    second = page.context.new_page()
    second.goto(url)
    expect(second.get_by_text("CRM sync")).to_be_visible()
    assert secret not in second.content()
    assert secret not in second.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, history.state, performance.getEntries()])"
    )
    assert not any(secret in asked for asked in site.browser.asked)
    second.close()
    site.go("/console/@globex/fullwhere/keys")


@pytest.mark.screen("U-08")
def test_the_day_of_expiry_is_spelled_out(site: Site) -> None:
    """While one chooses when a key expires, the day is spelled out: of a number of days, of a day, of the keyspace's default."""
    page = site.page
    site.kw.keyspaces.apply(source("default") + '[expiry]\ndefault = "30d"\n')
    site.go("/console/@globex/default/keys/new")
    site.sign_in()
    choices, says = page.get_by_label("Expires"), page.locator("#expires-says")
    for choice, days in (("default", 30), ("7d", 7), ("365d", 365)):
        choices.select_option(choice)
        day = page.evaluate(
            "days => new Date(Date.now() + days * 864e5).toLocaleDateString('en-GB', {dateStyle: 'long', timeZone: 'UTC'})",
            days,
        )
        expect(says).to_have_text(f"It stops working on {day}.")
    choices.select_option("on")
    page.get_by_label("On this day").fill("2031-02-03")
    expect(says).to_have_text("It stops working on 3 February 2031.")
    choices.select_option("never")
    expect(says).to_have_text("")


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
    """A secret pasted into the search is reduced to its id, or to nothing, before anything leaves the browser."""
    page = site.page
    for keyspace in ("fullwhere", "atfinity"):
        issued, _ = make(site.kw, keyspace=keyspace), make(site.kw, keyspace=keyspace, name="Another")
        token, pair = issued.credential.token.reveal(), issued.credential.secret
        site.go(f"/console/@globex/{keyspace}/keys")
        if keyspace == "fullwhere":
            site.sign_in()
        for pasted in (token, f" curl -H 'X-Token: {token}'"):
            page.get_by_label("Search").fill(pasted)
            expect(page.get_by_label("Search")).to_have_value(issued.key.id)
            expect(page.locator("tbody tr")).to_have_count(1)
            expect(page.get_by_role("alert")).to_contain_text("only its id was searched for")
        if pair is not None:
            page.get_by_label("Search").fill(f"X-API-SECRET: {pair.reveal()}")
            expect(page.get_by_label("Search")).to_have_value("")
            expect(page.locator("tbody tr")).to_have_count(2)
            expect(page.get_by_role("alert")).to_contain_text("nothing of it was sent")
        sent = [unquote(url) for url in site.browser.asked]
        assert not any(token[-38:] in url or (pair and pair.reveal() in url) for url in sent)


@pytest.mark.requirement("B-09")
@pytest.mark.screen("U-44")
def test_a_key_is_found(site: Site) -> None:
    """Among others a key is found by its name, id, team, application, environment and state; what is found is ticked and stays so."""
    page, kw = site.page, site.kw
    wanted = make(
        kw,
        keyspace="bizmagnets",
        environment="staging",
        name="Orders",
        team="Logistics",
        application="Warehouse",
    ).key.id
    others = [make(kw, keyspace="bizmagnets", name=name).key.id for name in ("Invoices", "Mail")]
    kw.keys.disable(wanted)
    at = "/console/@globex/bizmagnets/keys"
    site.go(at)
    site.sign_in()
    row = page.locator(f"[id='{wanted}']")
    for typed in ("orders", wanted, "logist", "warehouse"):
        expect(page.locator("tbody tr")).to_have_count(3)
        page.get_by_label("Search").fill(typed)
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(row).to_be_visible()
        page.get_by_label("Search").fill("")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_label("State").select_option("disabled")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(row).to_be_visible()
    page.get_by_label("State").select_option("")
    page.get_by_role("navigation", name="Environments").get_by_role("link", name="Staging").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(row).to_be_visible()
    site.go(at)
    page.get_by_label("Search").fill("mail")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Tick Mail").check()
    page.get_by_role("button", name="Go", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("disabled")
    assert kw.keys.get(others[1]).state == "disabled"


@pytest.mark.requirement("F-30", "X-26")
def test_by_keyboard_alone(site: Site) -> None:
    """With Tab, Space and Enter alone somebody signs in, makes a key with a scope, saves it, edits it and deletes it."""
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

    _tab_to(page, page.get_by_label("Pages").locator("a[href$='/gallabox/keys']"))
    page.keyboard.press("Enter")
    _tab_to(page, page.get_by_role("link", name="Edit By hand"))
    page.keyboard.press("Enter")
    _tab_to(page, page.get_by_label("Name", exact=True))
    page.keyboard.type("By hand 2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("By hand 2")
    _tab_to(page, page.get_by_label("Pages").locator("a[href$='/gallabox/keys']"))
    page.keyboard.press("Enter")
    _tab_to(page, page.get_by_role("link", name="Delete By hand 2"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Cancel")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("By hand 2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Deleted")
    assert site.kw.keys.list(account="globex").items == ()


def _tab_to(page: Page, wanted: Locator, patience: int = 60) -> None:
    for _ in range(patience):
        if wanted.evaluate(
            "e => e === document.activeElement || (e.type === 'radio' && document.activeElement.name === e.name)"
        ):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {wanted}")


@pytest.mark.requirement("X-26")
@pytest.mark.screen("U-48", "U-47")
def test_three_hundred_keys(site: Site) -> None:
    """With 300 keys the list is paged, each of them is found, and several are disabled at once."""
    page = site.page
    for n in range(300):
        make(site.kw, keyspace="fullwhere", name=f"Key {n:03}")
    site.go("/console/@globex/fullwhere/keys?sort=name")
    site.sign_in()
    found: list[str] = []
    for _ in range(6):
        expect(page.locator("tbody tr")).to_have_count(50)
        found += [name.strip() for name in page.locator("td.name > a").all_inner_texts()]
        more = page.get_by_role("link", name="More", exact=True)
        if more.count():
            more.click()
            expect(page.locator("td.name > a").first).not_to_have_text(found[-50])
    assert found == [f"Key {n:03}" for n in range(300)]
    page.get_by_label("Search").fill("Key 29")
    expect(page.locator("tbody tr")).to_have_count(10)
    for box in page.locator("tbody input[type=checkbox]").all()[:3]:
        box.check()
    page.get_by_role("button", name="Go", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("disabled")
    assert len(site.kw.keys.list(account="globex", state="disabled").items) == 3


# -------------------------------------------------------------------------------------------------------- every screen


@pytest.mark.requirement("F-30", "X-26")
@pytest.mark.security("A-06")
def test_every_state_of_a_key(site: Site, clock: Clock) -> None:
    """A key active, rotating, disabled, expired and invalidated, its dialogs, a suspended account, and nobody's rights."""
    page, kw = site.page, site.kw
    keys = {
        name: make(kw, keyspace="fullwhere", name=name.capitalize()).key.id
        for name in ("active", "rotating", "disabled", "invalidated")
    }
    keys["expired"] = make(
        kw, keyspace="fullwhere", name="Expired", expires_at=clock() + 3600 * 1_000_000
    ).key.id
    make(kw, keyspace="fullwhere", name="<img src=x onerror=alert(1)> " + "long " * 30)
    kw.keys.rotate(keys["rotating"], grace_seconds=86_400)
    kw.keys.disable(keys["disabled"])
    kw.keys.invalidate(keys["invalidated"], reason="It stood in a repository.")
    clock.advance(hours=2)
    at = "/console/@globex/fullwhere/keys"
    site.go(at)
    site.looked_at("sign-in")
    site.sign_in()
    expect(page.locator("tbody tr")).to_have_count(6)
    site.looked_at("keys-states")
    for state, key_id in keys.items():
        site.go(f"{at}/{key_id}")
        expect(page.locator("h1 .mark")).to_have_text(
            state.capitalize() if state != "active" else "Never used"
        )
        site.looked_at(f"key-{state}")
    for act in ("edit", "rotate", "invalidate", "delete"):
        site.go(f"{at}/{keys['active']}/{act}")
        site.looked_at(f"key-{act}")
    site.go(f"{at}?q=nobody")
    site.looked_at("nothing-matches")
    kw.accounts.suspend("globex")
    site.go(at)
    expect(page.get_by_text("This account is suspended")).to_be_visible()
    site.looked_at("suspended")


@pytest.mark.security("A-06")
def test_hygiene_in_one_click(site: Site, clock: Clock) -> None:
    """What is unused, ends soon, may do everything, never ends or is old is told, and each is one click from right."""
    page, kw = site.page, site.kw
    old = make(kw, keyspace="gallabox", name="First integration").key.id
    clock.advance(days=366)
    begin(kw, "owner", email="new@globex.example")
    make(kw, keyspace="fullwhere", name="Nightly export", access="read_only")
    soon = clock() + 3 * 86_400 * 1_000_000
    make(kw, keyspace="fullwhere", name="Trial", access="read_only", expires_at=soon)
    site.go("/console/@globex/hygiene")
    site.sign_in("new@globex.example")
    expect(page.get_by_role("heading", level=2)).to_have_text(
        ["Unused", "Expiring", "May do everything", "Without expiry", "Old"]
    )
    site.looked_at("hygiene")
    for click, said in (
        ("90 days more: Trial", "They end in ninety days"),
        ("End in 90 days: Nightly export", "They end in ninety days"),
        ("Disable: First integration", "Disabled"),
    ):
        page.get_by_role("button", name=click).click()
        expect(page.get_by_role("status")).to_contain_text(said)
    expect(page.get_by_text("Nothing wants looking after.")).to_be_visible()
    kw.keys.enable(old)
    page.reload()
    for click, heading in (
        ("Choose less: First integration", "Edit First integration"),
        ("Rotate: First integration", "Rotate First integration"),
    ):
        page.get_by_role("link", name=click).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        page.go_back()


@pytest.mark.security("T-41")
def test_two_hundred_payloads_are_text(site: Site) -> None:
    """Two hundred names and descriptions that would be markup elsewhere are read on the list as they were typed; none runs."""
    page, kw = site.page, site.kw
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    shapes = (
        "<img src=x onerror=alert({n})>", "<svg/onload=alert({n})>", "<script>alert({n})</script>", "'-alert({n})-'",
        '" autofocus onfocus=alert({n}) x="', "</code><iframe srcdoc='<script>alert({n})</script>'>", "{{{{alert({n})}}}}",
        "javascript:alert({n})", "</title><script>alert({n})</script>", "<a href='javascript:alert({n})'>x</a>",
        "<style>*{{background:url(//evil.example/{n})}}</style>", "<base href=//evil.example/{n}>", "<body onload=alert({n})>",
        "<input hx-get=/{n} hx-trigger=load>", "<b hx-on:click=alert({n})>x</b>", "<details open ontoggle=alert({n})>",
        "<math><mtext></form><form><mglyph><style></math><img src onerror=alert({n})>", "&lt;img src=x onerror=alert({n})&gt;",
        "<copy-button for=key-id><button>{n}</button></copy-button>", "]]><script>alert({n})</script>",
    )  # fmt: skip
    for n in range(200):
        name = shapes[n % len(shapes)].format(n=n)
        make(kw, keyspace="fullwhere", name=name, description=name, metadata={"note": name})
    keys = kw.keys.list(account="globex", sort="created_at", limit=200).items
    names = [key.name for key in keys]
    site.go("/console/@globex/fullwhere/keys?sort=created_at")
    site.sign_in()
    for first in range(0, 200, 50):
        expect(page.locator("td.name > a").first).to_have_text(names[first])
        assert page.locator("td.name > a").all_inner_texts() == names[first : first + 50]
        assert page.locator("td.name > .description").all_inner_texts() == [
            name[:120] for name in names[first : first + 50]
        ]
        if first < 150:
            page.get_by_role("link", name="More", exact=True).click()
    for name in (shape.format(n=n) for n, shape in enumerate(shapes)):
        for act in ("", "/edit", "/delete"):
            site.go(f"/console/@globex/fullwhere/keys/{keys[names.index(name)].id}{act}")
            expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    assert dialogs == []


@pytest.mark.security("A-06")
def test_every_other_screen_of_an_account(site: Site, clock: Clock) -> None:
    """Members, management keys, audit trail, usage and one's own page, for an admin; and what an analyst may not see."""
    page, kw = site.page, site.kw
    issued = make(kw, keyspace="fullwhere", limits=["1000/day"])
    secret = issued.credential.secret
    assert secret is not None
    pair = {"X-API-KEY": issued.key.id, "X-API-SECRET": secret.reveal()}
    site.go("/console/@globex")
    site.sign_in()
    site.looked_at("overview")
    for hours in range(30):
        for _ in range(hours % 7 + 1):
            assert kw.verify(
                pair,
                authenticate_only=True,
                keyspace="fullwhere",
                environment="production",
                resource=("guests", "rooms", "reports/daily")[hours % 3],
                ip="198.51.100.7",
            ).valid
        clock.advance(minutes=50)
    kw.keys.disable(issued.key.id)
    assert site.call(pair, "/k/fullwhere.production/whoami") == 401
    kw.installation.meter.flush()
    begin(kw, "admin", email="max@globex.example")
    site.go("/console/@globex/fullwhere/keys")
    site.sign_in("max@globex.example")
    expect(page.get_by_role("img", name="Requests of the last 36 hours")).to_be_visible()
    for name, text in (
        ("usage", "Usage"),
        ("people", "Members"),
        ("management-keys", "Management keys"),
        ("audit", "Audit trail"),
    ):
        site.go(f"/console/@globex/{name}")
        expect(page.get_by_role("heading", level=1)).to_have_text(text)
        site.looked_at(f"account-{name}")
    site.go(f"/console/@globex/fullwhere/keys/{issued.key.id}")
    site.looked_at("key-used")
    site.go("/console/me")
    site.looked_at("you")
    site.go("/console/prove?to=/console/me")
    site.looked_at("password-again")
    page.context.clear_cookies()
    begin(kw, "analyst", email="eve@globex.example")
    site.go("/console/@globex/fullwhere/keys")
    site.sign_in("eve@globex.example")
    expect(page.get_by_role("heading", level=1)).to_have_text("You may not do this")
    site.looked_at("forbidden")


@pytest.mark.security("A-06")
def test_every_screen_of_an_operator(site: Site) -> None:
    """Accounts, people, keyspaces, management keys, usage, audit trail and health, and an account seen as an operator."""
    page, kw = site.page, site.kw
    begin(kw, "operator", email="op@example.com")
    issued = make(kw, limits=["1000/day"])
    for _ in range(5):
        assert kw.verify(
            bearer(issued), authenticate_only=True, keyspace="every", environment="production"
        ).valid
    kw.installation.meter.flush()
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


@pytest.mark.security("A-06")
def test_a_second_factor_from_set_up_to_sign_in(site: Site, clock: Clock) -> None:
    """Somebody sets a second factor up, keeps the recovery codes, and signs in with a code of it."""
    page = site.page
    site.go("/console/me/factor")
    site.sign_in()
    site.looked_at("factor-none")
    page.get_by_role("button", name="Set one up").click()
    expect(page.get_by_text("Type the code that it shows now.")).to_be_visible()
    site.looked_at("factor-offered")
    authenticator = pyotp.TOTP(page.locator("#secret").inner_text())

    page.get_by_label("Code").fill(authenticator.at(clock() // 1_000_000))
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("#codes li")).to_have_count(10)
    site.looked_at("factor-codes")
    page.get_by_role("link", name="I have kept them").click()
    page.get_by_role("link", name="Look after it").click()
    expect(page.get_by_text("10 recovery codes are left")).to_be_visible()
    site.looked_at("factor-standing")
    page.get_by_role("button", name="Sign out").click()
    clock.advance(minutes=1)

    site.go("/console/me")
    site.sign_in()
    expect(page.get_by_label("Code")).to_be_visible()
    site.looked_at("sign-in-code")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Code").fill(authenticator.at(clock() // 1_000_000))
    page.get_by_role("button", name="Sign in").click()
    site.at("/console/me")


@pytest.mark.security("A-06")
def test_what_else_is_shown_once(site: Site) -> None:
    """The secret of a rotation, a management key and the link of an invitation are shown once, and guarded as a new key is."""
    page, kw = site.page, site.kw
    key_id = make(kw, keyspace="fullwhere").key.id
    at = f"/console/@globex/fullwhere/keys/{key_id}"
    site.go(f"{at}/rotate")
    site.sign_in()
    page.get_by_label("The old secret ends").select_option("hours")
    page.get_by_label("Hours, 720 at most").fill("36")
    page.get_by_role("button", name="Rotate", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The new secret of CRM sync")
    site.looked_at("key-rotated")
    secret = page.locator("#key-secret").inner_text()
    expect(page.get_by_role("button", name="Continue")).to_be_disabled()
    page.get_by_label("I have saved it").check()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Secrets")).to_be_visible()
    assert secret not in page.content()

    site.go("/console/@globex/management-keys")
    page.get_by_label("Name").fill("CI")
    page.locator("input[name=scopes][value=verify]").check()
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("CI was created")
    site.looked_at("management-key-reveal")
    page.get_by_label("I have saved it").check()
    page.get_by_role("button", name="Continue").click()

    site.go("/console/@globex/people")
    page.get_by_label("Address of mail").fill("eve@globex.example")
    page.get_by_role("button", name="Make the link").click()
    expect(page.locator("#link")).to_be_visible()
    site.looked_at("account-invited")


@pytest.mark.security("A-06")
def test_alerts_and_what_is_done_to_several(site: Site, clock: Clock) -> None:
    """An alert on its list and over its key, several keys about to be deleted, one finding of hygiene, and a key that pauses."""
    page, kw = site.page, site.kw
    issued = make(kw, keyspace="atfinity", name="Shop front")
    made = [make(kw, keyspace="atfinity", name=name).key.id for name in ("Nightly export", "Trial")]
    place = {"keyspace": "atfinity", "environment": "production", "ip": "192.0.2.7"}
    headers = {"Authorization": f"Api-Key {issued.credential.token.reveal()}"}
    assert kw.verify(headers | {"Origin": "https://shop.example"}, **place, authenticate_only=True)
    kw.installation.meter.settle()
    kw.installation.lookout.round()
    site.go("/console/@globex/alerts")
    site.sign_in()
    expect(page.get_by_role("link", name="Shop front")).to_be_visible()
    site.looked_at("account-alerts")
    page.get_by_role("link", name="Shop front").click()
    expect(page.get_by_role("alert")).to_contain_text("is sent by a web page")
    site.looked_at("key-alert")

    site.go("/console/@globex/atfinity/keys")
    for name in ("Nightly export", "Trial"):
        page.get_by_label(f"Tick {name}").check()
    page.get_by_label("With those ticked").select_option("delete")
    page.get_by_role("button", name="Go", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Revoke 2 API Keys")
    expect(page.get_by_role("link", name="Cancel")).to_be_focused()
    site.looked_at("keys-bulk")
    site.go("/console/@globex/hygiene?finding=all_access")
    expect(page.locator("tbody tr")).to_have_count(3)
    site.looked_at("hygiene-finding")

    site.go(f"/console/@globex/atfinity/keys/{made[0]}/delete")
    page.get_by_role("button", name="Disable it for an hour").click()
    expect(page.get_by_role("status")).to_contain_text("It comes back by itself")
    expect(page.get_by_text("in 1 hour, by itself")).to_be_visible()
    site.looked_at("key-paused")
    assert kw.keys.get(made[0]).disabled_until == clock() + 3600 * 1_000_000


@pytest.mark.security("A-06")
@pytest.mark.screen("U-11")
def test_forms_and_pages_of_those_who_may_less(site: Site) -> None:
    """The longest form; what a developer may not give, by name and keyboard as by eye; a link that has ended; nobody's account."""
    page, kw = site.page, site.kw
    begin(kw, "developer", email="dev@globex.example", access="read_only")
    site.go("/console/@globex/default/keys/new")
    site.sign_in()
    page.locator("summary").click()
    page.get_by_label("Expires").select_option("90d")
    page.get_by_label("Restricted").check()
    page.get_by_label("Read contacts").check()
    site.looked_at("default-create")
    page.context.clear_cookies()

    site.go("/console/@globex/default/keys/new?access=restricted")
    site.sign_in("dev@globex.example")
    expect(page.get_by_label("All: read and change everything")).to_be_disabled()
    expect(page.get_by_label("Create and change contacts")).to_be_disabled()
    page.get_by_label("Read contacts").check()
    site.looked_at("create-barred")
    page.context.clear_cookies()

    site.go("/console/link#ended")
    expect(page.get_by_role("alert")).to_be_visible()
    site.looked_at("link-ended")
    kw.installation.people.remove(kw.installation.people.get("dev@globex.example").id, account="globex")
    site.go("/console/")
    site.sign_in("dev@globex.example")
    expect(page.get_by_role("heading", level=1)).to_have_text("You have no account yet")
    site.looked_at("no-account")


# ------------------------------------------------------------------------------------------------------- many scopes


MANY = """
name = "many"

[access]
default = "all"

[fields]
ask = ["name", "access"]

[expiry]
unused = "180d"

[presets.reporting]
title = "Reporting"
scopes = ["orders:read", "invoices:read"]

[presets.support]
title = "Support"
scopes = ["orders:read", "orders:write"]

[scopes]
""" + "\n".join(
    f'"{about}:{what}" = {{ title = "{title} {about}", reads = {str(what == "read").lower()} }}'
    for about in ("orders", "invoices", "refunds", "customers", "webhooks")
    for what, title in (("read", "Read"), ("write", "Change"))
)


@pytest.mark.screen("U-13", "U-15")
def test_scopes_are_searched_and_ticked_together(site: Site) -> None:
    """By keyboard: a preset ticks its scopes and takes them away, a search leaves what is called so, and ticks outlive it."""
    site.kw.keyspaces.apply(MANY)
    page = site.page
    site.go("/console/@globex/many/keys/new")
    site.sign_in()
    reporting, search = page.get_by_role("button", name="Reporting"), page.get_by_label("Search the scopes")
    ticked = page.locator("input[name=scopes]:checked")
    expect(search).to_be_hidden()
    page.get_by_label("Name").fill("Reports")

    reporting.focus()
    page.keyboard.press("Enter")
    expect(reporting).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Support")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#says")).to_contain_text("can read invoices, read orders.")
    site.looked_at("scopes-ticked")

    search.fill("REFUNDS change")
    expect(page.locator("input[name=scopes]:visible")).to_have_count(1)
    expect(page.get_by_text("1 found")).to_be_visible()
    site.looked_at("scopes-searched")
    search.press("Enter")
    site.at("/console/@globex/many/keys/new")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(ticked).to_have_count(3)
    search.fill("nothing at all")
    expect(page.get_by_text("Nothing is called so.")).to_be_visible()
    search.fill("")
    expect(page.locator("input[name=scopes]:visible")).to_have_count(10)

    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("#key-token")).to_be_visible()
    made = site.kw.keys.list(keyspace="many").items[0]
    assert set(made.scopes) == {"orders:read", "invoices:read", "refunds:write"}
    page.locator("#saved").check()
    site.go(f"/console/@globex/many/keys/{made.id}/edit")
    expect(reporting).to_have_attribute("aria-pressed", "true")
    reporting.click()
    expect(ticked).to_have_count(1)


@pytest.mark.screen("U-67")
def test_a_key_that_ends_unused_is_seen_to(site: Site, clock: Clock) -> None:
    """Its page and hygiene say when it ends, and one click stops it at once."""
    site.kw.keyspaces.apply(MANY)
    key = make(site.kw, keyspace="many", name="Old import").key
    clock.advance(days=170)
    site.kw.installation.unused.round()
    site.go(f"/console/@globex/many/keys/{key.id}")
    site.sign_in()
    expect(site.page.get_by_text("if nobody uses it", exact=False).first).to_be_visible()
    site.looked_at("ending-unused")
    site.go("/console/@globex/hygiene")
    site.looked_at("hygiene-ending-unused")
    site.page.get_by_role("button", name="Disable now: Old import").click()
    expect(site.page.get_by_text("Disabled. Enable one")).to_be_visible()
    assert site.kw.keys.get(key.id).state == "disabled"
