"""A browser for the tests: the machine's Chromium, headless, driven by Playwright; and what it complains of."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from playwright.sync_api import Page, sync_playwright

#: Without these Chromium looks for hosts of its makers at every start; as root it cannot have its sandbox.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: What a page does when its policy is violated: it says so where nobody hears it, unless somebody listens.
_LISTEN = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


def chromium() -> str:
    """Where Chromium is. There is no skipping what needs it."""
    given = os.environ.get("KEYWRIGHT_TEST_BROWSER")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = given or next(filter(None, map(shutil.which, names)), None)
    assert found, "the tests need Chromium: apt-get install chromium, or name one in KEYWRIGHT_TEST_BROWSER"
    return found


class Browser:
    """Pages of one browser; everything that goes wrong on any of them is kept in ``complaints``."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.asked: list[str] = []

    def __enter__(self) -> Self:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=chromium(), headless=True, args=list(_ARGUMENTS)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    @contextmanager
    def page(self, width: int = 1280, height: int = 900, **more: Any) -> Iterator[Page]:
        """An empty page of its own, with nothing remembered."""
        context = self._browser.new_context(viewport={"width": width, "height": height}, **more)
        context.add_init_script(_LISTEN)
        page = context.new_page()
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))
        try:
            yield page
            self.complaints += [f"policy: {found}" for found in page.evaluate("window.violations")]
        finally:
            context.close()

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")


def picture(page: Page, name: str) -> Path:
    """A picture of a page, for a person to look at, where ``KEYWRIGHT_TEST_PICTURES`` says, or nowhere that stays."""
    folder = Path(os.environ.get("KEYWRIGHT_TEST_PICTURES") or tempfile.gettempdir())
    file = folder / f"{name}.png"
    page.screenshot(path=file)
    return file
