"""An API that is protected by Keywright: one read and one write of each of five systems, in the keyspace of each.

Everything that Keywright needs of a host stands between the two lines. Run it with

    KEYWRIGHT_DATABASE=sqlite:///keywright.db uvicorn --no-access-log --factory host:from_environment

A key that somebody puts into the address is refused, but a server's access log would keep it: so none is kept.
"""

import os
from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI, Request, Response

from keywright import Keywright, Verdict


class Refusal(Exception):
    """A request that may not proceed."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


def build(kw: Keywright, environment: str = "production") -> FastAPI:
    """Make the API over an open Keywright."""
    app = FastAPI(title="Example host", docs_url=None, redoc_url=None, openapi_url=None)

    # ------------------------------------------------------------------------------------------------------ the guard

    def guard(keyspace: str, *scopes: str) -> Any:
        async def check(request: Request) -> Verdict:
            verdict = await kw.averify(
                request.scope["headers"],
                keyspace=keyspace,
                environment=environment,
                scopes=scopes,
                method=request.method,
                ip=request.client.host if request.client else None,
                url=request.scope["raw_path"] + b"?" + request.scope["query_string"],
                resource=request.scope["route"].path,
            )
            if not verdict:
                raise Refusal(verdict)
            return verdict

        return Depends(check)

    @app.exception_handler(Refusal)
    async def refuse(_request: Request, refusal: Refusal) -> Response:
        status, headers, body = kw.answer(refusal.verdict)
        return Response(body, status, dict(headers))

    # -------------------------------------------------------------------------------------------------------- the API

    def caller(verdict: Verdict) -> dict[str, Any]:
        key = verdict.key
        assert key is not None
        return {"account": key.account, "key": key.id, "environment": key.environment, "access": key.access}

    changed: dict[str, int] = {}

    def write(verdict: Verdict) -> dict[str, Any]:
        who = caller(verdict)
        changed[who["account"]] = changed.get(who["account"], 0) + 1
        return who | {"changes": changed[who["account"]]}

    def read(verdict: Verdict) -> dict[str, Any]:
        who = caller(verdict)
        return who | {"changes": changed.get(who["account"], 0)}

    def listed(verdict: Verdict) -> list[dict[str, Any]]:
        return [read(verdict) | {"template": name} for name in ("order_confirmed", "order_shipped")]

    routes: list[tuple[str, str, str, str, Callable[[Verdict], Any]]] = [
        ("GET", "/v4/account", "partna", "account:read", read),
        ("POST", "/v4/account", "partna", "account:write", write),
        ("GET", "/partners/customer", "fullwhere", "customers:read", read),
        ("PATCH", "/partners/customer", "fullwhere", "customers:write", write),
        ("GET", "/devapi/me", "gallabox", "profile:read", read),
        ("GET", "/devapi/accounts/{account_id}/whatsappTemplates", "gallabox", "templates:read", listed),
        ("POST", "/devapi/messages/whatsapp", "gallabox", "messages:write", write),
        ("GET", "/cases", "atfinity", "cases:read", read),
        ("POST", "/cases", "atfinity", "cases:write", write),
        ("GET", "/indexes", "atfinity", "indexes:read", read),
        ("GET", "/messages", "bizmagnets", "messages:read", read),
        ("POST", "/messages", "bizmagnets", "messages:write", write),
    ]
    for method, path, keyspace, scope, answer in routes:
        app.add_api_route(path, _endpoint(answer, guard(keyspace, scope)), methods=[method])
    return app


def _endpoint(answer: Callable[[Verdict], Any], guard: Any) -> Callable[[Verdict], Any]:
    async def endpoint(verdict: Verdict = guard) -> Any:
        return answer(verdict)

    return endpoint


def from_environment() -> FastAPI:
    """Make the API over the database that ``KEYWRIGHT_DATABASE`` names."""
    return build(Keywright(os.environ.get("KEYWRIGHT_DATABASE", "sqlite:///keywright.db")))
