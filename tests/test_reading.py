"""The documentation in a browser: pages that can be read, call-outs, code in language tabs, and no script."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from browser import Browser
from keywright import Keywright
from keywright.server.api import reading
from keywright.server.api.pages import pages
from surfaces import Door, served, server

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
NAMES = [("here", "Here & now"), ("there", "There")]


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, for one test."""
    with Browser() as opened:
        yield opened


def shown(text: str) -> str:
    """The main part of a page with a text."""
    return reading.page("here", text, NAMES).split('<main id="page">')[1]


def test_what_is_written_is_text() -> None:
    """HTML in a page is shown as text, in prose, code, headings and titles; a link cannot run anything."""
    said = shown(
        "# <script>x</script>\n\n<b>bold</b> `<i>`\n\n```\n<u>\n```\n\n[x](javascript:alert(1)) <img onerror=x>"
    )

    assert re.findall(r"<(script|b|i|u|img)\b", said) == []
    assert 'href="javascript' not in said
    assert "Here &amp; now" in reading.page("here", "", NAMES)


@pytest.mark.parametrize("kind", ["NOTE", "TIP", "WARNING"])
def test_a_call_out_says_what_it_is(kind: str) -> None:
    """A marked quotation is a call-out that begins with its kind, on the marker's line or the next; any other stays one."""
    for text in (f"> [!{kind}]\n> Take care.", f"> [!{kind}] Take care."):
        said = shown(text)
        assert f'<blockquote class="call-out {kind.lower()}" role="note">' in said
        assert f"{kind.capitalize()}: Take care." in said
    assert "call-out" not in shown("> [!DANGER]\n> Said by somebody.")


def test_code_in_several_languages_is_tabs() -> None:
    """Blocks that follow each other in different languages are tabs, the first one open; others are blocks."""
    said = shown(
        "```bash\ncurl\n```\n\n```python\nimport x\n```\n\n```js\nfetch()\n```\n\nProse.\n\n```python\nalone\n```"
    )

    assert re.findall(r"<label[^>]*>(\w+)</label>", said) == ["curl", "Python", "Node"]
    assert said.count(" checked>") == 1
    assert said.count('class="tab"') == 3
    assert "tabs" not in shown("```python\na\n```\n\n```python\nb\n```")


def test_links_lead_to_pages_and_headings() -> None:
    """A link to a page's file leads to the page, one to a heading to where that is; others stay."""
    said = shown(
        "## What `it` is, now\n\n[a](there.md#x) [b](there.md) [c](#what-it-is-now) [d](https://x.example/y.md)"
    )

    assert re.findall(r'href="([^"]+)"', said) == [
        "there#x",
        "there",
        "#what-it-is-now",
        "https://x.example/y.md",
    ]
    assert 'id="what-it-is-now"' in said


@pytest.mark.parametrize("name", sorted(pages()))
def test_every_link_of_every_page_leads_somewhere(kw: Keywright, name: str) -> None:
    """Every page is HTML to a browser, without script or style inline; what it links to is there, headings included."""
    with Door(server(kw)) as door:
        reply = door.get(f"/docs/{name}", HTML)
        said = reply.body.decode()
        assert reply.get("content-type") == "text/html; charset=utf-8"
        assert "script" not in str(reply.get("content-security-policy"))
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", said)
        for link in re.findall(r'href="([^"]+)"', said.split('<main id="page">')[1]):
            target, _, heading = link.partition("#")
            if "://" in target or target.startswith(("mailto:", "../", "/")):
                continue
            there = said if not target else door.get(f"/docs/{target}", HTML).body.decode()
            assert f'id="{heading}"' in there if heading else "<main" in there or "openapi" in there, link


@pytest.mark.requirement("DP-04")
@pytest.mark.parametrize("width", [1280, 360])
def test_call_outs_and_tabs_in_a_browser(kw: Keywright, browser: Browser, width: int) -> None:
    """The quick start shows its notes in boxes and one language at a time, by mouse and by keyboard; nothing is cut."""
    with served(server(kw)) as port, browser.page(width=width) as page:
        page.goto(f"http://127.0.0.1:{port}/docs/quickstart")
        expect(page.get_by_role("note")).to_have_count(2)
        python, node = page.get_by_text("import requests"), page.get_by_text("await fetch")
        expect(python).to_be_visible()
        expect(node).to_be_hidden()
        page.locator("label", has_text="Node").click()
        expect(node).to_be_visible()
        expect(python).to_be_hidden()
        page.keyboard.press("ArrowLeft")
        expect(python).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert browser.complaints == []
