"""What a customer can ask with a key of their own: who am I? Never metered, and no use of the key."""

from functools import partial
from typing import Final

from keywright import shown
from keywright.answers import say_headers
from keywright.engine import Engine
from keywright.model import Ask
from keywright.server.problems import Scope, Send, respond, respond_json, respond_problem

PREFIX: Final = b"/k/"


async def answer(engine: Engine, scope: Scope, send: Send, ip: str | None, now: int) -> None:
    """Answer a request under ``/k/{keyspace}.{environment}/``."""
    where, _, verb = scope["raw_path"][len(PREFIX) :].decode("latin-1").partition("/")
    name, _, environment = where.partition(".")
    stale, compiled = await engine.ahead(now, partial(engine.known, name))
    if (
        compiled is None
        or verb != "whoami"
        or (environment and environment not in compiled.keyspace.environments)
    ):
        await respond_problem(scope, send, "not_found", "There is nothing at this address.")
        return
    if not environment and compiled.only_environment is None:
        names = ", ".join(f"{name}.{env}" for env in compiled.keyspace.environments)
        await respond_problem(scope, send, "not_found", f"Say which environment: {names}.")
        return
    if scope["method"] not in ("GET", "HEAD"):
        detail = "This address takes GET."
        await respond_problem(scope, send, "method_not_allowed", detail, headers=[(b"allow", b"GET, HEAD")])
        return
    ask = Ask(name, environment or None, method="GET", ip=ip, authenticate_only=True, metered=False)
    url = scope["raw_path"] + b"?" + scope["query_string"] if scope["query_string"] else None
    request_id = scope["keywright.request_id"]
    verdict = await engine.averify(ask, scope["headers"], now, url=url, request_id=request_id, stale=stale)
    if verdict.code != "ok" or verdict.key is None:
        refusal = compiled.answers.of(verdict)
        await respond(scope, send, refusal.status, say_headers(refusal.headers), refusal.body)
        return
    record = verdict.key
    key = shown.holder(record)
    found = {
        "keyspace": record.keyspace,
        "environment": record.environment,
        "account": {"id": record.account_id, "username": record.account},
        "key": {"id": record.id, "name": record.name, "expires_at": key["expires_at"]},
        "access": record.access,
        "scopes": key["scopes"],
        "scheme": verdict.scheme,
    }
    await respond_json(scope, send, 200, found)
