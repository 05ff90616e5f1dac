"""The wire: what is answered on the spot is answered as it is the ordinary way, and every request in its turn."""

import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conftest import again, bearer, make
from keywright import Keywright
from keywright.clock import boottime
from keywright.freshness import FreshnessByLease
from keywright.server import app as server_app
from keywright.server.api.description import Described
from keywright.server.problems import Reply
from keywright.server.wire import Wire
from keywright.testing import Clock
from keywright.times import SECOND
from surfaces import (
    FAMILIES,
    Given,
    exchange,
    held_back,
    manager,
    pairs,
    request,
    served,
    server,
    statuses,
    token,
)

pytestmark = pytest.mark.stores

GET = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/things/1?page=2")]
#: A request that ends its connection.
LAST = request("GET", "/livez")
#: What differs between two answers to one request, and the word that a connection ends.
VARIES = re.compile(rb"date: [^\r]*\r\n|connection: close\r\n|req_[0-9a-f]{20}|content-length: [0-9]+\r\n")


def as_chunks(whole: bytes) -> bytes:
    """A request with its body in one chunk."""
    head, end, body = whole.partition(b"\r\n\r\n")
    return head + end + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def conversation(port: int, parts: list[bytes]) -> bytes:
    """Send the head of a request, and when the server has read it the rest; all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
            exchange(port, LAST)  # a turn of the loop goes by
        found = b""
        while more := connection.recv(65536):
            found += more
        return found


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each request that could be answered on the spot was."""
    found: list[bool] = []
    spell = Wire._spell

    def noted(wire: Wire, reply: Reply | None) -> bytes:
        found.append(reply is not None)
        return spell(wire, reply)

    monkeypatch.setattr(Wire, "_spell", noted)
    return found


def trusted(kw: Keywright) -> None:
    """Wait until the server has acted upon every change, and may answer from memory for half a second: under a lease."""
    freshness, cache, deadline = (
        kw.installation.engine._freshness,
        kw.installation.cache,
        time.monotonic() + 20,
    )
    if not isinstance(freshness, FreshnessByLease):
        return
    newest = freshness.lookup.newest()
    while cache.applied < newest or freshness._lease.until - boottime() < SECOND // 2:
        assert time.monotonic() < deadline, "there is no lease"
        kw.installation.engine.fresh(kw.installation.clock())


def responses(answer: bytes) -> list[bytes]:
    """The responses in what a server sent, without what varies."""
    return [VARIES.sub(b"", part) for part in re.split(rb"(?=HTTP/1\.1 )", answer) if part]


def asked(kw: Keywright) -> list[tuple[str, str, Given, bytes, bool]]:
    """Requests to the hot doors, and whether each is answered on the spot."""
    right, narrow, ended = make(kw), make(kw, access="restricted", scopes=["things:read"]), make(kw)
    kw.keys.invalidate(ended.key.id)
    spent = make(kw, limits=["1/day"])
    kw.verify(bearer(spent), keyspace="every", environment="production")
    caller = [("Content-Type", "application/json"), *manager(kw).items()]
    shop, every, verify = "/authz/forward/shop", "/authz/forward/every.production", "/v1/verify"
    question = {"keyspace": "every", "environment": "production", "scopes": ["things:read"]}

    def body(**more: object) -> bytes:
        return json.dumps(question | more).encode()

    return [
        ("GET", shop, [*GET, *pairs(bearer(right))], b"", True),
        ("HEAD", shop, [*GET, *pairs(bearer(right))], b"", True),
        ("POST", shop, [*GET, *pairs(bearer(narrow))], b"ignored", True),
        ("GET", shop, GET, b"", True),
        ("HEAD", shop, GET, b"", True),
        ("GET", shop, [*GET, *pairs(bearer(ended))], b"", True),
        ("GET", every, [*GET, *pairs(bearer(narrow))], b"", True),
        ("GET", every, [*GET, *GET, *pairs(bearer(right))], b"", False),
        ("GET", shop, [GET[0], ("X-Forwarded-Uri", "/things/..%2f1"), *pairs(bearer(right))], b"", False),
        ("GET", shop, [*GET, *pairs(bearer(right)), *[(f"X-{n}", "a") for n in range(100)]], b"", False),
        *[
            (*held_back(family, "shop", method, target, pairs(bearer(one)) if one else ()), b"", spot)
            for family in FAMILIES[1:]
            for method, target, one, spot in (
                ("GET", "/things/1?page=2", right, True),
                ("HEAD", "/things/1", None, True),
                ("POST", "/things", narrow, True),
                ("GET", "/things/1", spent, True),
                ("GET", "/things/..%2f1", right, False),
            )
        ],
        ("HEAD", "/authz/nginx/shop", [("X-Original-Method", "GET"), ("X-Original-URI", "/a")], b"", True),
        ("GET", "/authz/nginx/shop", [*GET, *pairs(bearer(right))], b"", False),
        ("POST", verify, caller, body(token=token(right)), True),
        ("POST", verify, caller, body(token=token(narrow), method="GET"), True),
        ("POST", verify, caller, body(token=token(ended)), True),
        ("POST", verify, caller, body(headers=bearer(right)), True),
        ("POST", verify, caller, body(), False),
        ("POST", verify, caller, b'{"keyspace": "every", "keyspace": "every"}', False),
        ("POST", verify, caller[:1], body(token=token(right)), False),
        ("POST", verify, caller[1:], body(token=token(right)), False),
        ("GET", verify, caller, b"", False),
    ]


def test_both_ways_answer_the_same(kw: Keywright, at_once: list[bool]) -> None:
    """Every answer given on the spot is, but for time and request id, the answer of the ordinary way, to the byte."""
    questions = asked(kw)
    with served(server(kw)) as port:
        trusted(kw)
        for method, target, headers, body, expected in questions:
            kept = request(method, target, headers, body, close=False)
            closing = request(method, target, headers, body)
            exchange(port, closing)  # a gate is remembered from its first question on
            trusted(kw)
            at_once.clear()

            first, second = responses(exchange(port, kept + closing))

            assert at_once == [expected], (method, target, body)
            assert first == second


def test_every_request_has_its_turn(kw: Keywright, at_once: list[bool]) -> None:
    """Many requests in one piece, of both kinds mixed, are answered one by one in their order."""
    right, wrong = [*GET, *pairs(bearer(make(kw)))], [*GET, ("X-Token", "x")]
    turns = [("/authz/forward/shop", right), ("/livez", []), ("/authz/forward/shop", wrong), ("/nothing", [])]
    mixed = b"".join(request("GET", *turn, close=False) for turn in turns * 5)
    alike = request("GET", *turns[0], close=False) * 40
    with served(server(kw)) as port:
        trusted(kw)
        exchange(port, request("GET", *turns[0]))
        trusted(kw)

        found = statuses(exchange(port, mixed + alike + request("GET", *turns[0])))

    assert found == [200, 200, 401, 404] * 5 + [200] * 41
    assert any(at_once)


def test_what_cannot_be_read_is_refused_behind_the_answers(kw: Keywright, at_once: list[bool]) -> None:
    """A request that is whole has its answer, whatever bytes come behind it in the same piece."""
    asking = request("GET", "/authz/forward/shop", [*GET, *pairs(bearer(make(kw)))], close=False)
    with served(server(kw)) as port:
        trusted(kw)
        exchange(port, asking + LAST)
        trusted(kw)

        assert statuses(exchange(port, asking + b"\0\0\0\r\n\r\n")) == [200, 400]
        assert statuses(exchange(port, asking + b"GET / HTTP/1.1\r\n\r\n")) == [200, 400]
    assert at_once[-2:] == [True, True]


def test_everybody_has_their_own_answer(kw: Keywright, at_once: list[bool]) -> None:
    """Requests that one turn of the loop brings on many connections are each answered on their own."""
    keys = [make(kw) for _ in range(20)]
    shop = "/authz/forward/shop"
    asking = [request("GET", shop, [*GET, *pairs(bearer(key))], close=False) for key in keys]
    with served(server(kw)) as port:
        trusted(kw)
        exchange(port, b"".join(asking) + LAST)
        trusted(kw)
        lines = [socket.create_connection(("127.0.0.1", port)) for _ in asking]
        for line, sent in zip(lines, asking, strict=True):
            line.sendall(sent)
        answers = [line.recv(65536) for line in lines]
        for line in lines:
            line.close()

    assert all(key.key.id.encode() in answer for key, answer in zip(keys, answers, strict=True))
    assert at_once.count(True) >= len(keys)


def test_a_request_in_pieces_goes_the_ordinary_way(kw: Keywright, at_once: list[bool]) -> None:
    """A body that is longer than one read is waited for, and answered."""
    caller = [("Content-Type", "application/json"), *manager(kw).items()]
    body = json.dumps({"keyspace": "every", "environment": "production", "token": token(make(kw))}).encode()
    with served(server(kw)) as port:
        whole = request("POST", "/v1/verify", [*caller, ("Expect", "100-continue")], body + b" " * 60_000)

        assert statuses(exchange(port, whole)) == [100, 200]
    assert at_once == []


@pytest.mark.parametrize(("said", "status"), [("https", 200), ("http", 403)])
def test_behind_https(kw: Keywright, at_once: list[bool], said: str, status: int) -> None:
    """Under an https address plain HTTP is refused, and what is answered on the spot says HSTS too."""
    app = server(kw, public_url="https://keys.example", trusted_proxies="127.0.0.1")
    headers = [*GET, *pairs(bearer(make(kw))), ("X-Forwarded-Proto", said)]
    with served(app) as port:
        trusted(kw)
        exchange(port, request("GET", "/authz/forward/shop", [*headers[:-1], ("X-Forwarded-Proto", "https")]))
        trusted(kw)
        kept = request("GET", "/authz/forward/shop", headers, close=False)

        first, second = responses(exchange(port, kept + request("GET", "/authz/forward/shop", headers)))

    assert statuses(first) == [status]
    assert (first == second, b"strict-transport-security" in first) == (True, status == 200)
    assert at_once == [status == 200]


def test_what_was_answered_on_the_spot_is_counted_once(
    kw: Keywright, clock: Clock, at_once: list[bool]
) -> None:
    """Each verification on the spot is in the usage once."""
    caller = [("Content-Type", "application/json"), *manager(kw).items()]
    key = make(kw)
    body = json.dumps({"keyspace": "every", "environment": "production", "token": token(key)}).encode()
    question = request("POST", "/v1/verify", caller, body, close=False)
    with served(server(kw)) as port:
        trusted(kw)
        exchange(port, question + LAST)
        trusted(kw)
        at_once.clear()
        exchange(port, question * 9 + LAST)

    assert at_once == [True] * 9
    with again(kw, clock=clock) as other:
        assert other.installation.usage.report(key=key.key.id, by="total").total == 10


def test_the_first_use_of_a_new_secret_is_waited_for(kw: Keywright, at_once: list[bool]) -> None:
    """Where its first use ends the secret before it, that is done before the answer, on the spot or not."""
    first = make(kw)
    second = kw.keys.rotate(first.key.id, start="first_use")
    old, new = (
        request("GET", "/authz/forward/shop", [*GET, *pairs(bearer(one))], close=False)
        for one in (first, second)
    )
    with served(server(kw)) as port:
        trusted(kw)
        exchange(port, old + LAST)
        trusted(kw)
        at_once.clear()

        assert statuses(exchange(port, old + new + old + LAST)) == [200, 200, 401, 200]
    assert at_once[0]


def test_a_connection_that_was_answered_on_the_spot_is_closed_when_it_is_idle(
    kw: Keywright, at_once: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is answered on the spot and then says nothing is let go, not before its time."""
    rung: list[float] = []
    ring = Wire._ring

    def noted(wire: Wire) -> None:
        rung.append(wire._heard + wire.timeout_keep_alive - wire.loop.time())
        ring(wire)

    monkeypatch.setattr(Wire, "_ring", noted)
    monkeypatch.setattr(server_app, "IDLE_FOR", 1)
    asking = request("GET", "/authz/forward/shop", [*GET, *pairs(bearer(make(kw)))], close=False)
    with served(server(kw)) as port:
        trusted(kw)
        exchange(port, asking + LAST)
        trusted(kw)

        found = statuses(exchange(port, asking))  # which returns when the server closes

    assert (found, at_once[-1]) == ([200], True)
    assert rung[-1] <= 0  # it was due


WISH = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_the_body_behind_a_wish_for_another_protocol_is_a_body(
    kw: Keywright, *, chunked: bool, apart: bool
) -> None:
    """A request that wishes for HTTP/2, as Java's client does of each, is answered as one; its body is never another."""
    body = json.dumps({"keyspace": "every", "environment": "production", "token": token(make(kw))}).encode()
    other = request("GET", "/livez", close=False)
    said = [*manager(kw).items(), ("Content-Type", "application/json"), *WISH]
    sent = [request("POST", "/v1/verify", said, body, close=False)]
    sent += [request("POST", "/v1/verify", said, other, close=False)]
    if chunked:
        sent = [one.replace(b"Content-Length", b"X-Length") for one in sent]
        sent = [one.replace(b"HTTP/1.1", b"HTTP/1.1\r\nTransfer-Encoding: chunked", 1) for one in sent]
        sent = [as_chunks(one) for one in sent]
    with served(server(kw)) as port:
        found = b""
        for one in sent:
            head, end, rest = one.partition(b"\r\n\r\n")
            found += conversation(port, [head + end, rest + LAST] if apart else [one + LAST])

    assert statuses(found) == [200, 200, 400, 200]
    assert found.count(b'"valid":true,"code":"ok"') == 1


def test_wishes_for_another_protocol_are_passed_over(kw: Keywright) -> None:
    """Without a body too: what stands behind such a request is read, however many there are. There is no CONNECT."""
    wishing = request("GET", "/livez", WISH, close=False)
    socketed = request("GET", "/livez", [("Connection", "upgrade"), ("Upgrade", "websocket")], close=False)
    with served(server(kw)) as port:
        assert statuses(exchange(port, wishing * 40 + socketed * 40 + LAST)) == [200] * 81
        assert statuses(exchange(port, b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + LAST)) == [400]


@pytest.mark.parametrize("part", ["_api", "_console"])
def test_requests_are_answered_while_what_is_behind_is_made(
    kw: Keywright, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """The first call of the management API, or of the console, has it made: once, and nobody else waits for that."""
    begun, answered = threading.Event(), threading.Event()
    making, made = getattr(server_app, part), []

    def make(*given: object) -> object:
        made.append(part)
        begun.set()
        assert answered.wait(30)
        return making(*given)

    monkeypatch.setattr(server_app, part, make)
    first = request("GET", "/docs" if part == "_api" else "/console/sign-in")
    with served(server(kw)) as port, ThreadPoolExecutor() as callers:
        waiting = [callers.submit(exchange, port, first)]
        begun.wait(30)
        waiting.append(callers.submit(exchange, port, first))
        alive = exchange(port, LAST)
        answered.set()

        assert statuses(alive) == [200]
        assert [statuses(call.result()) for call in waiting] == [[200], [200]]
    assert made == [part]


def test_the_description_is_made_where_nobody_waits_for_it(
    kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``/openapi.json`` is written in a thread: requests of others are answered meanwhile."""
    begun, answered = threading.Event(), threading.Event()
    describe = Described.openapi

    def slowly(self: Described) -> dict[str, Any]:
        begun.set()
        assert answered.wait(30)
        return describe(self)

    monkeypatch.setattr(Described, "openapi", slowly)
    with served(server(kw)) as port, ThreadPoolExecutor() as callers:
        waiting = callers.submit(exchange, port, request("GET", "/openapi.json"))
        begun.wait(30)
        alive = exchange(port, LAST)
        answered.set()

        assert (statuses(alive), statuses(waiting.result())) == ([200], [200])
