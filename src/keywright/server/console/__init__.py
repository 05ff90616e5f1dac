"""The console: pages for the people who make and look after keys. HTML from the server; scripts only help.

Every page is a row of ``ROUTES``: a path, who may open it, and the function that makes it. What a page does, the API does
too: both are translations of the same desk.
"""

import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from keywright.errors import CallerError, KeywrightError, Unavailable
from keywright.installation import Installation
from keywright.server.bodies import CutOff, TooLarge, read_body
from keywright.server.callers import PasswordNeeded, SecondFactorMissing, SignedOut, refuse_other_sites
from keywright.server.console import (
    accounts,
    alerts,
    assets,
    audit,
    bulk,
    entry,
    factor,
    hygiene,
    keys,
    links,
    operator,
    people,
    portal,
    provider,
    words,
)
from keywright.server.console.visits import Desk, Nobody, Page, Visit, policy
from keywright.settings import Settings

log = logging.getLogger("keywright")
_FORM: Final = 64 * 1024  # bytes
#: No script or style but our own files, nothing from elsewhere, no frame, no form to another site (``security.md`` 4.3).
POLICY: Final = policy()
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
ROUTES: Final[tuple[Page, ...]] = (
    *entry.PAGES,
    *provider.PAGES,
    *factor.PAGES,
    *keys.PAGES,
    *bulk.PAGES,
    *hygiene.PAGES,
    *people.PAGES,
    *alerts.PAGES,
    *audit.PAGES,
    *accounts.PAGES,
    *operator.PAGES,
    *portal.PAGES,
    *links.PAGES,
)


def build(installation: Installation, settings: Settings, count: Callable[..., None]) -> Starlette:
    """Make the console over an open installation. ``count`` counts for ``/metrics``: a name, and its labels."""
    desk = Desk(installation, settings, count)
    routes = [Route(page.path, partial(_answer, desk, page), methods=[page.method]) for page in ROUTES]
    return Starlette(
        routes=[Route("/console/assets/{name:path}", assets.answer), *routes],
        exception_handlers={404: partial(_lost, desk), 405: partial(_lost, desk)},
    )


async def _answer(desk: Desk, page: Page, request: Request) -> Response:
    try:
        body = await read_body(request.receive, _FORM) if page.method == "POST" else b""
    except TooLarge:
        return _headed(desk.error(Nobody(desk, request, b""), 413, words.TOO_LARGE))
    except CutOff:
        return Response(status_code=400)
    return _headed(await run_in_threadpool(_made, desk, page, request, body))


def _made(desk: Desk, page: Page, request: Request, body: bytes) -> Response:
    """The page, or what went wrong as a page: a person reads it either way."""
    visit = Nobody(desk, request, body)
    try:
        if page.anybody:
            if page.method == "POST":
                refuse_other_sites(desk.settings, request.scope)
            return page.make(visit)
        visit = Visit.of(desk, page, request, body)
        return page.make(visit)
    except SignedOut:
        return entry.ask(visit, request)
    except PasswordNeeded:
        return entry.ask_password(visit, request)
    except SecondFactorMissing:
        return factor.ask(visit)
    except Unavailable:
        return desk.error(visit, 503, words.UNAVAILABLE)
    except CallerError as error:
        return desk.error(visit, error.status, str(error))
    except KeywrightError as error:
        return desk.error(visit, error.status, str(error))
    except Exception as error:
        log.exception("request %s failed: %s", visit.request_id, type(error).__name__)
        return desk.error(visit, 500, words.BROKEN)


async def _lost(desk: Desk, request: Request, _error: Exception) -> Response:
    return _headed(desk.error(Nobody(desk, request, b""), HTTPStatus.NOT_FOUND, words.NOT_FOUND))


def _headed(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


__all__ = ["HEADERS", "POLICY", "ROUTES", "build"]
