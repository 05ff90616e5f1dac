"""An API that is protected by Keywright: one read and one write of each of five systems, in the keyspace of each.

Everything that Keywright needs of a host stands between the two lines. Run it with

    KEYWRIGHT_DATABASE=sqlite:///keywright.db uvicorn --no-access-log --factory host:from_environment

A key that somebody puts into the address is refused, but a server's access log would keep it: so none is kept.
"""

import os
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Security

from keywright import Keywright
from keywright.integrations.fastapi import APIKeyAuth
from keywright.integrations.guard import Caller


def build(kw: Keywright, environment: str = "production") -> FastAPI:
    """Make the API over an open Keywright, which has the keyspaces."""
    app = FastAPI(title="Example host", docs_url=None, redoc_url=None, openapi_url=None)

    # ------------------------------------------------------------------------------------------------------ the guard

    def guard(keyspace: str, *scopes: str) -> Any:
        return Security(APIKeyAuth(kw, keyspace=keyspace, environment=environment), scopes=scopes)

    # -------------------------------------------------------------------------------------------------------- the API

    def shown(caller: Caller) -> dict[str, Any]:
        return {
            "account": caller.account,
            "key": caller.key_id,
            "environment": caller.environment,
            "access": caller.access,
        }

    changed: dict[str, int] = {}

    def write(caller: Caller) -> dict[str, Any]:
        who = shown(caller)
        changed[who["account"]] = changed.get(who["account"], 0) + 1
        return who | {"changes": changed[who["account"]]}

    def read(caller: Caller) -> dict[str, Any]:
        who = shown(caller)
        return who | {"changes": changed.get(who["account"], 0)}

    def listed(caller: Caller) -> list[dict[str, Any]]:
        return [read(caller) | {"template": name} for name in ("order_confirmed", "order_shipped")]

    routes: list[tuple[str, str, str, str, Callable[[Caller], Any]]] = [
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


def _endpoint(answer: Callable[[Caller], Any], guard: Any) -> Callable[[Caller], Any]:
    async def endpoint(caller: Caller = guard) -> Any:
        return answer(caller)

    return endpoint


def from_environment() -> FastAPI:
    """Make the API over the database that ``KEYWRIGHT_DATABASE`` names."""
    return build(Keywright(os.environ.get("KEYWRIGHT_DATABASE", "sqlite:///keywright.db")))
