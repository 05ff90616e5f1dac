"""``/docs``: Swagger UI over the OpenAPI document, with every part of it from this server, and links to the pages.

Swagger UI is vendored as it was released, see ``swagger_ui/VERSION``; ``make vendor`` brings it.
"""

from functools import cache
from html import escape
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Header, Response

from keywright.errors import NotFound
from keywright.server.api.caller import Configured
from keywright.server.api.pages import PLAIN, index, pages, title

router = APIRouter(include_in_schema=False)
_FOLDER: Final = Path(__file__).resolve().parents[1] / "swagger_ui"
_KINDS: Final = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "explorer.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "explorer.css": "text/css; charset=utf-8",
    "reading.css": "text/css; charset=utf-8",
}
#: Security.md 4.3: nothing inline, nothing from another host, nobody's frame.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; object-src 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "public, max-age=300",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Keywright: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="stylesheet" href="docs/assets/explorer.css">
<script src="docs/assets/swagger-ui-bundle.js" defer></script>
<script src="docs/assets/explorer.js" defer></script>
</head>
<body>
<nav class="pages" aria-label="Pages">{links}</nav>
<main id="explorer"></main>
<noscript><p>The list of operations needs JavaScript. The same is in <a href="openapi.json">openapi.json</a>.</p></noscript>
</body>
</html>
"""


@router.api_route("/docs", methods=["GET", "HEAD"])
def explorer(settings: Configured, accept: Annotated[str, Header()] = "") -> Response:
    """The operations, to read and to try; who asks for plain text or Markdown alone gets the list of pages."""
    if accept and not any(kind in accept for kind in ("text/html", "*/*", "text/*")):
        return Response(
            index(settings.public_url), headers=_HEADERS | {"Content-Type": PLAIN, "Vary": "Accept"}
        )
    headers = _HEADERS | {"Content-Type": "text/html; charset=utf-8", "Vary": "Accept"}
    return Response(_page(), headers=headers)


@router.api_route("/docs/assets/{name}", methods=["GET", "HEAD"])
def asset(name: str) -> Response:
    """One part of the page."""
    if name not in _KINDS:
        raise NotFound("there is no such part of /docs")
    return Response(_read(name), headers=_HEADERS | {"Content-Type": _KINDS[name]})


@cache
def _page() -> str:
    named = [(f"docs/{name}", title(text)) for name, text in pages().items()]
    links = [*named, ("llms.txt", "llms.txt"), ("openapi.json", "openapi.json")]
    return _PAGE.format(links="\n".join(f'<a href="{escape(to)}">{escape(text)}</a>' for to, text in links))


@cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


__all__ = ["router"]
