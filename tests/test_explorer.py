"""``/docs`` in a real browser: every operation is there, and not one thing is asked that its policy forbids."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from browser import Browser
from conftest import make
from keywright import Keywright
from keywright.server.api import explorer
from surfaces import Door, manager, served, server

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"
PATIENCE = 30_000  # milliseconds that nobody should ever need


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, for one test: its driver keeps an event loop running, which no other test could bear."""
    with Browser() as opened:
        yield opened


@pytest.mark.security("A-06")
@pytest.mark.parametrize("width", [1280, 360])
def test_every_operation_is_listed_and_nothing_is_violated(
    kw: Keywright, browser: Browser, width: int
) -> None:
    """Wide and narrow, all operations of the document are listed, no policy is violated, nobody else is asked."""
    browser.complaints.clear()
    browser.asked.clear()
    operations = sum(len(item) for item in json.loads(DOCUMENT.read_text())["paths"].values())
    with served(server(kw)) as port, browser.page(width=width) as page:
        page.goto(f"http://127.0.0.1:{port}/docs")
        expect(page.locator(".opblock")).to_have_count(operations, timeout=PATIENCE)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert {link.get_attribute("href") for link in page.locator("nav a").all()} >= {
            "docs/usage",
            "llms.txt",
        }
        assert (
            page.locator("nav a").first.evaluate("a => a.href") == f"http://127.0.0.1:{port}/docs/benchmarks"
        )
    assert browser.complaints == []
    assert {urlsplit(url).netloc for url in browser.asked if not url.startswith("data:")} == {
        f"127.0.0.1:{port}"
    }


def test_an_operation_can_be_tried(kw: Keywright, browser: Browser) -> None:
    """With a management key given to *Authorize*, an operation tried on the page is answered; the key is gone afterwards."""
    browser.complaints.clear()
    key, token = make(kw), manager(kw)["Authorization"].removeprefix("Bearer ")
    with served(server(kw)) as port, browser.page() as page:
        page.goto(f"http://127.0.0.1:{port}/docs")
        page.get_by_role("button", name="Authorize").click()
        page.locator(".modal-ux input").first.fill(token)
        page.locator(".modal-ux").get_by_role("button", name="Apply credentials").first.click()
        page.locator(".modal-ux").get_by_role("button", name="Close").last.click()
        block = page.locator(".opblock", has_text="/v1/keys/{key_id}").first
        block.click()
        block.get_by_role("button", name="Try it out").click()
        block.locator("input[placeholder=key_id]").fill(key.key.id)
        block.get_by_role("button", name="Execute").click()
        expect(block.locator(".live-responses-table .response .response-col_status").first).to_have_text(
            "200", timeout=PATIENCE
        )
        assert (
            page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)").find(token) == -1
        )
    assert browser.complaints == []


@pytest.mark.security("A-06")
def test_the_policy_is_strict(kw: Keywright) -> None:
    """The page and its parts allow nothing inline, nothing of another host, and no frame; the page holds no script."""
    with Door(server(kw)) as door:
        page = door.get("/docs", {"Accept": "text/html"})
        parts = [door.get(f"/docs/assets/{name}") for name in explorer._KINDS]
        assert door.get("/docs/assets/VERSION").status == 404
        assert door.get("/docs/assets/..%2f..%2fapp.py").status == 404
    for reply in (page, *parts):
        policy = str(reply.get("content-security-policy"))
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert reply.get("x-content-type-options") == "nosniff"
        assert (reply.status, reply.get("referrer-policy")) == (200, "no-referrer")
    assert str(page.get("content-type")).startswith("text/html")
    assert b"<script>" not in page.body
    assert b"style=" not in page.body
    assert b"//" not in page.body.replace(b"<!doctype html>", b"")


def test_what_is_vendored_is_what_was_released() -> None:
    """Swagger UI's files are those of ``SHA256SUMS``, its licence among them, and the version is written down."""
    folder = Path(explorer.__file__).resolve().parents[1] / "swagger_ui"
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert (folder / "VERSION").read_text().strip().count(".") == 2
