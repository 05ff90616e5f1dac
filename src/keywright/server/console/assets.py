"""The console's own files: style, scripts, what was vendored. Each address holds a digest, so that it may be kept for ever."""

import gzip
import hashlib
import mimetypes
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

NAMES: Final = (
    "console.css",
    "console.js",
    "theme.js",
    "charts.js",
    "icon.svg",
    "vendor/basecoat.css",
    "vendor/htmx.js",
    "vendor/uplot.js",
    "vendor/uplot.css",
)


class Asset(NamedTuple):
    """A file, as it is sent."""

    body: bytes
    small: bytes  # gzipped
    kind: str
    digest: str


@cache
def _asset(name: str) -> Asset:
    body = resources.files(__package__).joinpath("assets", *name.split("/")).read_bytes()
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Asset(body, gzip.compress(body, 9, mtime=0), kind, hashlib.sha256(body).hexdigest()[:16])


def address(name: str) -> str:
    """Where a file is found."""
    return f"/console/assets/{_asset(name).digest}/{name}"


async def answer(request: Request) -> Response:
    """Send a file, gzipped where the client takes that."""
    digest, _, name = str(request.path_params["name"]).partition("/")
    if name not in NAMES or _asset(name).digest != digest:
        return Response(status_code=404)
    asset = _asset(name)
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Vary": "Accept-Encoding",
    }
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.small, headers=headers | {"Content-Encoding": "gzip"}, media_type=asset.kind)
    return Response(asset.body, headers=headers, media_type=asset.kind)
