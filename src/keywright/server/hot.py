"""The hot doors: verification, forward-auth, whoami and health, answered before any framework sees the request.

A hand-written ASGI dispatcher costs what the bare server costs (``ux.md`` 5.2). Whatever it does not know goes to the
application behind it, once its caller is known: under ``/v1/`` nothing is answered to nobody.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from keywright.answers import Answer, rate_headers, say_headers
from keywright.desk.grants import Reach, reach_of
from keywright.engine import Engine, Given
from keywright.errors import Invalid, KeywrightError, Unavailable
from keywright.installation import Installation, new_request_id
from keywright.model import MANAGEMENT, Actor, Ask, KeyRecord, Verdict
from keywright.server import callers, families, forward_auth, self_service
from keywright.server.bodies import BODY_LIMIT, CutOff, TooLarge, accept_json, read_body, refuse_twins
from keywright.server.callers import Caller
from keywright.server.problems import (
    JSON,
    NO_STORE,
    NOSNIFF,
    App,
    AtOnce,
    Pairs,
    Receive,
    Reply,
    Scope,
    Send,
    Steps,
    lines_of,
    refuse_body,
    respond,
    respond_error,
    respond_json,
    respond_problem,
)
from keywright.server.proxies import canonical, client_address, is_trusted
from keywright.server.question import BATCH_ITEMS, MOST_HEADERS, checked, decode, decode_batch
from keywright.server.said import Said, limits_as_lines, said, say
from keywright.server.watch import Watch
from keywright.settings import Settings

Asked = TypeVar("Asked")
BATCH_LIMIT: Final = 1024 * 1024
#: What is answered to nobody in particular: the ways in, and reports of leaks.
ANYBODY: Final = frozenset(
    [
        ("POST", "/v1/session"),
        ("POST", "/v1/session/link"),
        ("POST", "/v1/session/follow"),
        ("POST", "/v1/leaks/report"),
        ("POST", "/v1/leaks/github"),
    ]
)
#: Where a signature is proven over a body before anything of it is read.
SIGNED: Final = "/v1/leaks/github"
#: Where up to a thousand credentials come at once.
REPORTED: Final = frozenset(["/v1/leaks/report", "/v1/revoke_tokens", SIGNED])
HSTS: Final = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
_VERIFY: Final = ("verify",)
_HSTS_LINE: Final = lines_of([HSTS])
_SAID_LINES: Final = lines_of([JSON, NO_STORE, NOSNIFF, (b"content-length", b"%d")])

log = logging.getLogger("keywright")


class Hot:
    """The dispatcher. ``behind`` answers what it does not; ``watch`` knows the figures of ``/metrics``."""

    def __init__(self, installation: Installation, settings: Settings, behind: App, watch: Watch) -> None:
        self._installation = installation
        self.watch = watch
        #: whether it is about to stop: then it is not ready, and answers all the same
        self.leaving = False
        self._engine: Engine = installation.engine
        self._clock = installation.clock
        self._settings = settings
        self._behind = behind
        self._https = settings.public_url.startswith("https://")
        self._gates: dict[bytes, forward_auth.Gate] = {}
        self._exact: dict[bytes, App] = {
            b"/v1/verify": self._verify,
            b"/v1/verify/batch": self._verify_batch,
            b"/v1/whoami": self._whoami,
            b"/livez": self._live,
            b"/readyz": self._ready,
            b"/metrics": self._metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        scope["keywright.request_id"] = new_request_id()
        path: bytes | None = scope.get("raw_path")
        if path is None:  # ASGI lets a server leave it out
            path = scope["raw_path"] = quote(scope["path"]).encode()
            scope["keywright.guessed"] = True
        door = self._exact.get(path)
        if door is None:
            if path.startswith(forward_auth.PREFIX):
                door = self._forward
            elif (family := families.of(path)) is not None:
                door = self._forward
                scope, send = families.wording(family, scope, send, self._gates)
            else:
                door = self._slow
        if self._https and path not in (b"/livez", b"/readyz"):
            if not self._came_by_https(scope):
                detail = "This address is served over HTTPS only; nothing of the request was read."
                await respond_problem(scope, send, "https_required", detail)
                return
            send = _with_hsts(send)
        if len(scope["headers"]) > MOST_HEADERS:
            await respond_problem(
                scope, send, "too_many_headers", f"At most {MOST_HEADERS} header fields are read."
            )
            return
        try:
            await door(scope, receive, send)
        except KeywrightError as error:
            await respond_error(scope, send, error)

    # ----------------------------------------------------------------------------------------------------- on the spot

    def at_once(self, path: bytes) -> AtOnce | None:
        """What may answer a request for a path without a wait: the doors of verification.

        Once something was spent or counted nothing is looked up any more: it could fail, and the request be done again.
        """
        if path in self._gates:
            return self._forward_at_once
        if path == b"/v1/verify":
            return self._verify_at_once
        family = families.of(path)
        return None if family is None else families.at_once(family, self._forward_at_once, self._gates)

    def _forward_at_once(self, scope: Scope, _body: bytes) -> Steps:
        headers, now = scope["headers"], self._clock()
        if len(headers) > MOST_HEADERS or (self._https and not self._came_by_https(scope)):
            return None
        stale, gate = self._engine.fresh_at_once(now), self._gates.get(scope["raw_path"])
        asked = forward_auth.read(headers)
        if stale is None or gate is None or asked is None or not self._engine.is_current(gate.compiled):
            return None
        method, target = asked
        ask = gate.ask(method, target, self._client(scope))
        if ask is None:
            return None
        yield
        verdict = self._engine.at_once(ask, headers, now, target, new_request_id(), stale)
        if verdict is None:
            return None
        yield
        if verdict.code == "ok" and verdict.key is not None:
            return self._secured(200, self._allowing(gate, verdict, verdict.key), b"")
        answer = gate.compiled.answers.of(verdict)
        return self._secured(answer.status, lines_of(_headers_of(answer)), answer.body)

    def _verify_at_once(self, scope: Scope, body: bytes) -> Steps:
        headers, now = scope["headers"], self._clock()
        if len(headers) > MOST_HEADERS or (self._https and not self._came_by_https(scope)):
            return None
        if scope["method"] != "POST" or len(body) > BODY_LIMIT or not accept_json(headers):
            return None
        engine, request_id = self._engine, new_request_id()
        stale = engine.fresh_at_once(now)
        if stale is None:
            return None
        own = Ask(MANAGEMENT, "production", _VERIFY, ip=self._client(scope))
        url = _target(scope) if scope["query_string"] else None
        caller = engine.decide_at_once(own, headers, now, url, request_id, stale)
        if caller is None or caller.code != "ok" or caller.key is None or caller.key.limits:
            return None
        yield
        asked = decode(body)
        refuse_twins(body)
        ask, given = checked(asked, reach_of(caller.key.binding))
        compiled = engine.remembered(ask.keyspace)
        if compiled is None:
            return None
        yield
        verdict = engine.at_once(ask, given, now, asked.url, request_id, stale)
        if verdict is None:
            return None
        engine.count(own, caller, now)
        yield
        entry = None if verdict.key is None else engine.entry(verdict.key)
        document = say(entry, compiled, verdict)
        return self._secured(200, _SAID_LINES % len(document), document)

    def _secured(self, status: int, lines: bytes, body: bytes) -> Reply:
        return status, lines + _HSTS_LINE if self._https else lines, body

    # -------------------------------------------------------------------------------------------------- verification

    async def _verify(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = await self._question(scope, receive, send, decode, BODY_LIMIT)
        if found is None:
            return
        caller, asked = found
        ask, given = checked(asked, caller.reach)
        answer = await self._answer(ask, given, asked.url, scope["keywright.request_id"])
        await respond_json(scope, send, 200, answer)

    async def _verify_batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = await self._question(scope, receive, send, decode_batch, BATCH_LIMIT)
        if found is None:
            return
        caller, batch = found
        if len(batch.items) > BATCH_ITEMS:
            raise Invalid(f"holds more than {BATCH_ITEMS}", path="items")
        asked = [checked(item, caller.reach, f"items[{place}].") for place, item in enumerate(batch.items)]
        await self._all_named([ask for ask, _ in asked])
        request_id = scope["keywright.request_id"]
        answers = [
            await self._answer(ask, given, item.url, f"{request_id}.{place}")
            for place, (item, (ask, given)) in enumerate(zip(batch.items, asked, strict=True))
        ]
        await respond_json(scope, send, 200, {"items": answers})

    async def _all_named(self, asks: Sequence[Ask]) -> None:
        """See that a batch can be answered to its end, before anything of it is charged. Raises what ``_answer`` would."""
        places: dict[tuple[str, str | None], int] = {}
        for place, ask in enumerate(asks):
            places.setdefault((ask.keyspace, ask.environment), place)
        for place in places.values():
            try:
                await self._engine.acheck(asks[place], self._clock())
            except Invalid as wrong:
                raise Invalid(wrong.reason, path=f"items[{place}].{wrong.path}") from None

    async def _question(
        self, scope: Scope, receive: Receive, send: Send, decode: Callable[[bytes], Asked], limit: int
    ) -> tuple[Caller, Asked] | None:
        """Who asks, and what; ``None`` where the request was refused and answered. Its form comes first."""
        body = await self._asked(scope, receive, send, limit)
        if body is None:
            return None
        caller = await self.caller(scope, send, "verify")
        if caller is None:
            return None
        try:
            asked = decode(body)
            refuse_twins(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as wrong:
            await refuse_body(scope, send, wrong)
            return None
        return caller, asked

    async def _answer(self, ask: Ask, given: Given, url: str | None, request_id: str) -> Said:
        verdict = await self._engine.averify(ask, given, self._clock(), url=url, request_id=request_id)
        return said(self._engine, verdict)

    async def _asked(self, scope: Scope, receive: Receive, send: Send, limit: int) -> bytes | None:
        """The body of a POST with JSON, or ``None`` where the request was refused for its form."""
        if scope["method"] != "POST":
            await respond_problem(
                scope, send, "method_not_allowed", "This address takes POST.", headers=[(b"allow", b"POST")]
            )
            return None
        if not accept_json(scope["headers"]):
            await respond_problem(
                scope, send, "unsupported_media_type", "Send Content-Type: application/json."
            )
            return None
        try:
            return await read_body(receive, limit)
        except TooLarge:
            await respond_problem(scope, send, "too_large", f"The body may have {limit} bytes.")
            return None
        except CutOff:
            return None

    async def caller(self, scope: Scope, send: Send, *scopes: str) -> Caller | None:
        """The management key that calls, with the scopes asked; ``None`` where it was refused and answered."""
        ip = self._client(scope)
        ask = Ask(MANAGEMENT, "production", scopes, ip=ip, authenticate_only=not scopes)
        request_id = scope["keywright.request_id"]
        verdict = await self._engine.averify(
            ask, scope["headers"], self._clock(), url=_target(scope), request_id=request_id
        )
        if verdict.code != "ok" or verdict.key is None:
            await self._refuse(scope, send, verdict)
            return None
        actor = Actor("management_key", verdict.key.id, ip or "", request_id)
        return Caller(reach_of(verdict.key.binding), actor, verdict.key.scopes, verdict)

    async def _caller_behind(self, scope: Scope, send: Send) -> Caller | None:
        """The management key or, where there is none, the person who calls; ``None`` where they were refused."""
        bare = not any(name == b"authorization" for name, _ in scope["headers"])
        if bare and (_is_of_sessions(scope) or callers.token_of(self._settings, scope) is not None):
            ip = scope["keywright.client"]
            return await asyncio.to_thread(callers.of_person, self._installation, self._settings, scope, ip)
        return await self.caller(scope, send)

    async def _refuse(self, scope: Scope, send: Send, verdict: Verdict) -> None:
        answer = self._engine.answer(verdict)
        await respond(scope, send, answer.status, say_headers(answer.headers), answer.body)

    # -------------------------------------------------------------------------------------------------- forward-auth

    async def _forward(self, scope: Scope, _receive: Receive, send: Send) -> None:
        now, request_id = self._clock(), scope["keywright.request_id"]
        stale, gate = await self._gate(scope, now)
        if gate is None:
            await respond_problem(scope, send, "not_found", "There is no gate of this name.")
            return
        headers = scope["headers"]
        asked = forward_auth.read(headers)
        if asked is None:
            await self._turn_away(scope, send, "gateway_misconfigured", gate)
            return
        method, target = asked
        ask = gate.ask(method, target, self._client(scope))
        if ask is None:
            await self._turn_away(scope, send, "ambiguous_path", gate)
            return
        if self._engine.far:
            verdict = await self._engine.adecide(ask, headers, now, target, request_id, stale)
        else:
            verdict = self._engine.decide(ask, headers, now, target, request_id, stale)
        if verdict.code == "ok" and verdict.key is not None and verdict.key.limits:
            verdict = await self._engine.acharge(ask, verdict, now)
        self._engine.count(ask, verdict, now)
        status, answered, body = self._answer_of(gate, verdict)
        await send({"type": "http.response.start", "status": status, "headers": answered})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer_of(
        self, gate: forward_auth.Gate, verdict: Verdict
    ) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes]:
        """What a proxy is told: who it is, or what to tell the client."""
        if verdict.code != "ok" or verdict.key is None:
            answer = gate.compiled.answers.of(verdict)
            return answer.status, _headers_of(answer), answer.body
        headers = forward_auth.identity(verdict.key)
        if verdict.limits:
            legacy = gate.compiled.keyspace.rate_headers
            return 200, (*headers, *say_headers(rate_headers(verdict, legacy=legacy))), b""
        return 200, headers, b""

    def _allowing(self, gate: forward_auth.Gate, verdict: Verdict, key: KeyRecord) -> bytes:
        """The headers of an allowed request as lines; those of a key are written once and kept with it."""
        entry = self._engine.entry(key)
        if entry is None:
            lines = lines_of(forward_auth.identity(key))
        elif entry.lines is None:
            lines = entry.lines = lines_of(forward_auth.identity(key))
        else:
            lines = entry.lines
        return lines + limits_as_lines(gate.compiled, verdict) if verdict.limits else lines

    async def _gate(self, scope: Scope, now: int) -> tuple[bool, forward_auth.Gate | None]:
        """What ``fresh`` says, and the gate of a path: remembered for as long as its keyspace is."""
        stale, gate = await self._engine.afresh(now), self._gates.get(scope["raw_path"])
        if gate is None or not self._engine.is_current(gate.compiled):
            gate = await self._engine.seek(
                partial(forward_auth.find, self._engine, _gate_name(scope)), stale=stale
            )
            if gate is not None:
                self._gates[scope["raw_path"]] = gate
        return stale, gate

    async def _turn_away(self, scope: Scope, send: Send, code: str, gate: forward_auth.Gate) -> None:
        """Refuse what never came as far as a verification."""
        keyspace, request_id = gate.compiled.keyspace.name, scope["keywright.request_id"]
        verdict = Verdict(code, code, keyspace, self._clock(), request_id)
        self._installation.meter.refuse(verdict, gate.environment, self._client(scope), None, None)
        self.watch.add("turned_away", keyspace, code)
        await self._refuse(scope, send, verdict)

    # ---------------------------------------------------------------------------------------------------- the others

    async def _slow(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: bytes = scope["raw_path"]
        if path.startswith(self_service.PREFIX):
            ip, url = self._client(scope), self._settings.base_url
            await self_service.answer(self._installation, url, scope, receive, send, ip)
            return
        scope["keywright.client"] = self._client(scope)
        if scope["path"].startswith("/v1/"):  # as the router behind reads it: %76 is a v
            if (scope["method"], scope["path"]) not in ANYBODY:
                caller = await self._caller_behind(scope, send)
                if caller is None:
                    return
                if caller.verdict is not None and caller.verdict.stale:
                    # whatever stands behind needs the store, and would wait for it
                    detail = "The store does not answer; try again."
                    await respond_problem(
                        scope, send, "unavailable", detail, headers=[(b"retry-after", b"1")]
                    )
                    return
                scope["keywright.caller"] = caller
            await read_and_pass(scope, receive, send, self._behind)
            return
        await self._behind(scope, receive, send)

    async def _whoami(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await self_service.answer_anywhere(self._installation, scope, send, self._client(scope))

    async def _live(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await respond_json(scope, send, 200, {"status": "ok"})

    async def _ready(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if self.leaving:
            detail = "The server is being stopped: send what is new elsewhere."
            await respond_problem(scope, send, "unavailable", detail, headers=[(b"retry-after", b"1")])
            return
        try:
            stale = await self._engine.afresh(self._clock())
            serves = not stale or len(self._installation.cache) > 0
        except Unavailable:  # nor may what is known by heart be served
            stale, serves = True, False
        if not serves:
            detail = "The store does not answer, and nothing known by heart may be served."
            await respond_problem(scope, send, "unavailable", detail, headers=[(b"retry-after", b"1")])
            return
        await respond_json(scope, send, 200, {"status": "stale" if stale else "ok"})

    async def _metrics(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if self._settings.metrics == "off":
            await respond_problem(scope, send, "not_found", "There is nothing here.")
            return
        if scope["method"] not in ("GET", "HEAD"):
            allow = [(b"allow", b"GET, HEAD")]
            await respond_problem(scope, send, "method_not_allowed", "This address takes GET.", headers=allow)
            return
        if self._settings.metrics == "key":
            caller = await self.caller(scope, send, "metrics:read")
            if caller is None:
                return
            if caller.reach != Reach():
                detail = "The metrics are of the whole installation: a key that is bound cannot read them."
                await respond_problem(scope, send, "insufficient_scope", detail)
                return
        kind, text = await asyncio.to_thread(self.watch.page)
        await respond(scope, send, 200, [(b"content-type", kind), NO_STORE, NOSNIFF], text)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    self.watch.start()
                    self._installation.courier.start()
                    self._installation.lookout.start()
                    self._installation.postman.start()
                    await send({"type": "lifespan.startup.complete"})
                else:
                    await asyncio.to_thread(self.watch.stop)
                    self._installation.close()
                    await send({"type": "lifespan.shutdown.complete"})
                    return
        await send({"type": "websocket.close", "code": 1008})

    def _client(self, scope: Scope) -> str | None:
        peer = scope["client"][0] if scope.get("client") else None
        if not self._settings.trusted_proxies:
            return canonical(peer or "") if peer and ":" in peer else peer
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return client_address(peer, forwarded, self._settings.trusted_proxies)

    def _came_by_https(self, scope: Scope) -> bool:
        if scope["scheme"] == "https":
            return True
        peer = canonical(scope["client"][0]) if scope.get("client") else None
        if not is_trusted(peer, self._settings.trusted_proxies):
            return False
        said = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        return said == [b"https"]


def _gate_name(scope: Scope) -> str:
    name: bytes = scope["raw_path"][len(forward_auth.PREFIX) :]
    return name.decode("latin-1")


def _is_of_sessions(scope: Scope) -> bool:
    """Whether only a person has business there, so that nobody is told to send an API key."""
    return f"{scope['path']}/".startswith("/v1/session/")


async def read_and_pass(scope: Scope, receive: Receive, send: Send, app: App) -> None:
    """Read a body within its limit, refuse what is not acceptable JSON, and hand the request on with it."""
    try:
        limit = BATCH_LIMIT if scope["path"] in REPORTED else BODY_LIMIT
        body = await read_body(receive, limit)
    except TooLarge:
        await respond_problem(scope, send, "too_large", f"The body may have {limit} bytes.")
        return
    except CutOff:
        return
    if body and scope["path"] != SIGNED:
        if not accept_json(scope["headers"]):
            await respond_problem(
                scope, send, "unsupported_media_type", "Send Content-Type: application/json."
            )
            return
        try:
            msgspec.json.decode(body)
            refuse_twins(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as wrong:
            await refuse_body(scope, send, wrong)
            return
    sent = False

    async def replay() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return dict(await receive())
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    await app(scope, replay, send)


def _target(scope: Scope) -> bytes:
    """The target of a call, in which a credential is refused, save in the one place where one is looked up by its id."""
    path, query = scope["raw_path"], scope["query_string"]
    if query and path == b"/v1/keys" and scope["method"] == "GET":
        query = b"&".join(part for part in query.split(b"&") if not part.startswith(b"q="))
    target: bytes = path + b"?" + query if query else path
    return target


def _headers_of(answer: Answer) -> Pairs:
    return [*say_headers(answer.headers), (b"content-length", b"%d" % len(answer.body))]


def _with_hsts(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers: Pairs = list(message["headers"])
            headers.append(HSTS)
            message = {**message, "headers": headers}
        await send(message)

    return sending


__all__ = ["Hot"]
