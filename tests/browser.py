"""A browser for the tests: the machine's Chromium, headless, driven by Playwright; and what it complains of."""

import os
import shutil
import struct
import tempfile
import zlib
from base64 import b64decode, b64encode
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
        found = chromium()
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(
                executable_path=found, headless=True, args=list(_ARGUMENTS)
            )
        except BaseException:
            # Its event loop counts as running on this thread: no test after this one could run its own.
            self._playwright.stop()
            raise
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


#: The pixels of a PNG as indices into its 256 most frequent colours, each other colour as the nearest of those.
_FEWER = """
async (png) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height), drawn = canvas.getContext("2d");
  drawn.drawImage(image, 0, 0);
  const bytes = drawn.getImageData(0, 0, image.width, image.height).data, pixels = new Uint32Array(bytes.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const palette = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 256).map(([pixel]) => pixel);
  const place = new Map(), far = (a, b) => [0, 8, 16].reduce((sum, by) => sum + (((a >> by) & 255) - ((b >> by) & 255)) ** 2, 0);
  for (const pixel of counts.keys())
    place.set(pixel, palette.reduce((best, one, n) => (far(one, pixel) < far(palette[best], pixel) ? n : best), 0));
  let text = "";
  for (const pixel of pixels) text += String.fromCharCode(place.get(pixel));
  return [image.width, image.height, palette, btoa(text)];
}
"""


def fewer_colours(page: Page, png: bytes) -> bytes:
    """A picture in 256 colours: less than half the size, and nobody sees it. ``page`` only reckons."""
    width, height, palette, text = page.evaluate(_FEWER, b64encode(png).decode())
    pixels = b64decode(text)
    rows = b"".join(b"\0" + pixels[y * width : (y + 1) * width] for y in range(height))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", b"".join(struct.pack("<I", pixel & 0xFFFFFFFF)[:3] for pixel in palette)),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def picture(page: Page, name: str) -> Path:
    """A picture of a page, for a person to look at, where ``KEYWRIGHT_TEST_PICTURES`` says, or nowhere that stays."""
    folder = Path(os.environ.get("KEYWRIGHT_TEST_PICTURES") or tempfile.gettempdir())
    file = folder / f"{name}.png"
    page.screenshot(path=file)
    return file
