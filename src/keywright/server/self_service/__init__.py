"""What a customer can do with a key of their own, under ``/k/{keyspace}.{environment}/``, as far as the profile lets them.

``whoami`` always; with ``self_service = "read"`` also the reading of the account's keys, with ``"full"`` their making and
ending. A keyspace that has letters speaks Partna's language for it, any other ours.
"""

from functools import partial
from typing import Any, Final, NamedTuple

from keywright import shown
from keywright.answers import Answers, say_headers
from keywright.cache import Compiled
from keywright.engine import AtHand, Engine
from keywright.installation import Installation
from keywright.model import MANAGEMENT, Actor, Ask, KeyRecord, Keyspace, Verdict
from keywright.policy import granted
from keywright.schemes import Reader, Unproven
from keywright.server.problems import Receive, Scope, Send, respond, respond_json, respond_problem
from keywright.server.self_service import own, partna
from keywright.server.self_service.calls import Call, Endpoint

PREFIX: Final = b"/k/"

#: Who comes to ``/v1/whoami`` says of no keyspace that they mean it: any token, as a Bearer, and one way to be refused.
_ANYWHERE: Final = Keyspace("", "Keywright", "", "dotted", ("bearer",), {})
_READER: Final = Reader(_ANYWHERE)
_ANSWERS: Final = Answers(_ANYWHERE)


class Where(NamedTuple):
    """What an address under the prefix means: a keyspace, an environment, and what follows."""

    compiled: Compiled
    environment: str | None
    verb: str


async def answer(
    opened: Installation, base_url: str, scope: Scope, receive: Receive, send: Send, ip: str | None
) -> None:
    """Answer a request under the prefix."""
    stale, where = await opened.engine.ahead(opened.clock(), partial(_find, opened.engine, scope["raw_path"]))
    if where is None:
        await _nothing(scope, send)
        return
    keyspace = where.compiled.keyspace
    scope["keywright.errors"] = keyspace.error_shape
    methods, key_id = _methods(keyspace, where.verb)
    if not methods:
        await _nothing(scope, send)
        return
    if where.environment is None:
        names = ", ".join(f"{keyspace.name}.{environment}" for environment in keyspace.environments)
        await respond_problem(scope, send, "not_found", f"Say which environment: {names}.")
        return
    endpoint = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
    if endpoint is None:
        await _refuse_method(scope, send, methods)
        return
    verdict = await _verified(opened, where, endpoint, scope, ip, stale=stale)
    if verdict.code != "ok" or verdict.key is None:
        await _refuse(scope, send, where.compiled.answers, verdict)
    elif endpoint.run is None:
        await respond_json(scope, send, 200, _whoami(verdict.key, verdict))
    else:
        actor = Actor("key", verdict.key.id, ip or "", verdict.request_id)
        call = Call(opened, base_url, verdict.key, keyspace, actor, scope, key_id)
        await call.carry_out(endpoint, receive, send)


async def answer_anywhere(opened: Installation, scope: Scope, send: Send, ip: str | None) -> None:
    """Answer ``/v1/whoami``: the keyspace is the proven key's, and nothing of either is said before proof."""
    if scope["method"] not in ("GET", "HEAD"):
        await _refuse_method(scope, send, {"GET": _WHOAMI})
        return
    now, engine, request_id = opened.clock(), opened.engine, scope["keywright.request_id"]
    url = scope["raw_path"] + b"?" + scope["query_string"] if scope["query_string"] else None
    presented = _READER.read(scope["headers"], url)
    if isinstance(presented, Unproven):
        verdict = Verdict(presented.code, presented.reason, "", now, request_id)
    else:
        stale, place = await engine.ahead(now, partial(engine.place_of, presented, now))
        # One that is nobody's is verified too, in our own keyspace, and refused like any other.
        keyspace, environment = place or (MANAGEMENT, "production")
        ask = Ask(keyspace, environment, method="GET", ip=ip, authenticate_only=True, metered=False)
        verdict = await engine.averify(ask, presented, now, request_id=request_id, stale=stale)
    if verdict.code != "ok" or verdict.key is None:
        await _refuse(scope, send, _ANSWERS, verdict)
        return
    await respond_json(scope, send, 200, _whoami(verdict.key, verdict))


#: ``whoami`` needs no scope, costs nothing, and is no use of the key.
_WHOAMI: Final = Endpoint("/whoami", None, None)


async def _verified(
    opened: Installation, where: Where, endpoint: Endpoint, scope: Scope, ip: str | None, *, stale: bool
) -> Verdict:
    """Whether the caller's key may ask for this. Who manages keys uses one; who asks who they are does not."""
    manages = endpoint.scope is not None
    ask = Ask(
        where.compiled.keyspace.name,
        where.environment,
        scopes=(endpoint.scope,) if endpoint.scope is not None else (),
        method=scope["method"],
        resource=endpoint.route,
        ip=ip,
        authenticate_only=not manages,
        metered=manages,
    )
    query = partna.without_id(scope["query_string"]) if endpoint.id_in_query else scope["query_string"]
    url = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
    request_id = scope["keywright.request_id"]
    return await opened.engine.averify(
        ask, scope["headers"], opened.clock(), url=url, request_id=request_id, stale=stale
    )


def _find(engine: Engine, path: bytes, *, stale: bool, at_hand: AtHand | None = None) -> Where | None:
    place, _, verb = path[len(PREFIX) :].decode("latin-1").partition("/")
    name, _, environment = place.partition(".")
    compiled = engine.known(name, stale=stale, at_hand=at_hand)
    if compiled is None or (environment and environment not in compiled.keyspace.environments):
        return None
    return Where(compiled, environment or compiled.only_environment, verb)


def _methods(keyspace: Keyspace, verb: str) -> tuple[dict[str, Endpoint], str]:
    """What an address takes by method, as far as the profile grants it, and the id that stands in it."""
    if verb == "whoami":
        return {"GET": _WHOAMI}, ""
    found, key_id = partna.find(verb) if keyspace.letters else own.find(verb)
    rights = granted(keyspace)
    return {method: endpoint for method, endpoint in found.items() if endpoint.scope in rights}, key_id


async def _nothing(scope: Scope, send: Send) -> None:
    await respond_problem(scope, send, "not_found", "There is nothing at this address.")


async def _refuse_method(scope: Scope, send: Send, methods: dict[str, Endpoint]) -> None:
    allowed = sorted({*methods, *(("HEAD",) if "GET" in methods else ())})
    headers = [(b"allow", ", ".join(allowed).encode())]
    detail = f"This address takes {' and '.join(sorted(methods))}."
    await respond_problem(scope, send, "method_not_allowed", detail, headers=headers)


async def _refuse(scope: Scope, send: Send, answers: Answers, verdict: Verdict) -> None:
    refusal = answers.of(verdict)
    await respond(scope, send, refusal.status, say_headers(refusal.headers), refusal.body)


def _whoami(record: KeyRecord, verdict: Verdict) -> dict[str, Any]:
    key = shown.holder(record)
    return {
        "keyspace": record.keyspace,
        "environment": record.environment,
        "account": {"id": record.account_id, "username": record.account},
        "key": {"id": record.id, "name": record.name, "expires_at": key.expires_at},
        "access": record.access,
        "scopes": key.scopes,
        "scheme": verdict.scheme,
    }
