"""Attacks of the threat model that need more than one door: spellings, SQL, logs, floods, slow clients, restarts."""

import logging
import os
import re
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPException
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine, event

from conftest import bearer, make
from keywright import Issued, Keywright, NotFound
from keywright.cli.logs import OneLine
from keywright.errors import Invalid
from keywright.server import app as server_app
from processes import PATIENCE, Folder, Served
from processes import Door as Connection
from surfaces import Door, exchange, manager, request, served, server, statuses, token
from test_cli_serve import KEY
from test_management_api import ROUTES, filled
from test_management_api import door as on_things  # noqa: F401  # a fixture

FULL = bool(os.environ.get("KEYWRIGHT_PROOF"))
FAMILY = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/x"}
GATE = "/authz/forward/every.production"


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Folder:
    """A folder with every keyspace and the cast."""
    return Folder(tmp_path, copy_of=template)


def drawn(folder: Folder) -> str:
    """The token of a new key."""
    return folder("keys", "create", "CRM", "--keyspace", "every", *KEY, "--quiet").out.strip()


# ---------------------------------------------------------------------------------------------------------- spellings

_BEFORE = ("", "/", "//", "/.", "/..", "/%2e", "/./", "/x/..", "/x/%2e%2e", "/livez/..", "/openapi.json/..", "/docs/..", "/%2f", "\\", "/;")  # fmt: skip
_INSIDE = (("", ""), ("/v1", "/V1"), ("/v1", "/%761"), ("/v1", "/v%31"), ("/v1/", "/v1//"), ("/v1/", "/v1/./"), ("/v1/", "/v1%2f"),
           ("/v1/", "/v1/x/../"), ("/v1/", "/v1;/"), ("/v1/", "/v1\\"), ("v1", "v1%00"), ("v1", "ｖ１"))  # fmt: skip
_BEHIND = (
    "",
    "/",
    "//",
    "/.",
    "/..",
    "/%2e",
    ";",
    ";x=y",
    "%20",
    "%00",
    "%2f",
    ".json",
    "?",
    "#",
    "%0a",
    "%09",
    "%ff",
    "/livez",
)


def spellings(path: str) -> Iterator[str]:
    """More than five hundred ways to write a path that might reach what it names past a guard that compares texts."""
    for before, (part, twisted), behind in product(_BEFORE, _INSIDE, _BEHIND):
        yield before + path.replace(part, twisted, 1) + behind


#: Every route begins its walk through the spellings elsewhere, so that few for each are all of them together.
STEP = 1 if FULL else 20


@pytest.mark.security("T-09")
@pytest.mark.parametrize("name", ROUTES)
def test_no_spelling_opens_a_route(on_things: Door, kw: Keywright, key: Issued, name: str) -> None:  # noqa: F811
    """Of 500 spellings of every route none is answered, to nobody or to a customer's key, as it is to who may."""
    method, _, path = name.partition(" ")
    asked = list(dict.fromkeys(spellings(filled(on_things, path, key.key.id))))
    assert len(asked) >= 500
    for place, target in enumerate(asked[list(ROUTES).index(name) % STEP :: STEP]):
        headers = bearer(key) if place % 2 else {}
        reply = on_things.send(method, target.encode(), headers)
        assert reply.status in (401, 403, 404, 405) or reply.body == b'{"status":"ok"}', (target, reply)
        assert b'"items"' not in reply.body
        assert b'"credential"' not in reply.body
    assert kw.keys.get(key.key.id).state == "active"


@pytest.mark.security("T-64")
def test_a_websocket_is_closed(kw: Keywright, key: Issued) -> None:
    """A WebSocket, with a right key too, is closed before it is accepted, at whatever door."""
    import asyncio

    for path in ("/v1/keys", "/k/every.production/whoami", GATE, "/docs", "/"):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        headers = [(b"authorization", bearer(key)["Authorization"].encode())]
        scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "headers": headers}
        asyncio.run(server(kw)(scope, receive, send))
        assert sent == [{"type": "websocket.close", "code": 1008}]


# ---------------------------------------------------------------------------------------------------------------- SQL

SQL = [
    "'", "''", '"', "`", "\\", "';--", "' OR '1'='1", "' OR 1=1 --", '" OR ""="', "1; DROP TABLE keys", "'; DROP TABLE keys; --",
    "' UNION SELECT mac FROM secrets --", "') OR ('1'='1", "%", "_", "%' ESCAPE '%", "x' AND sleep(5) --", "'||pg_sleep(5)||'",
    ":id", "?", "%s", "%(id)s", "$1", "{0}", "/**/", "0x27", "\u02bc OR 1=1", "keys.name", "NULL", "\\'; --", "\x00",
]  # fmt: skip


NOUNS = ("keys", "accounts", "keyspaces", "management-keys", "people", "webhooks", "alerts")


@pytest.mark.stores
@pytest.mark.security("T-13")
def test_no_text_becomes_a_statement(kw: Keywright, key: Issued) -> None:
    """SQL in a header, an id, a name, a scope, a search, an order or a cursor changes no statement that is sent."""
    statements: set[str] = set()
    caller = manager(kw)
    lookup: Any = kw.installation.lookup
    ask = lookup._all

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread().name.startswith("keywright-"):
            return  # what was counted is carried away now and then, as many at once as there are
        constant = re.sub(r"%\(\w+\)s(::\w+)?( COLLATE \"C\")?", "?", re.sub(r"\s+", " ", statement))
        statements.add(re.sub(r"IN \(\?(, \?)*\)", "IN", constant))  # how many ids are asked for is no text

    def noted(statement: str, *parameters: Any) -> Any:
        statements.add(statement)
        return ask(statement, *parameters)

    def everywhere(text: str) -> list[int]:
        from urllib.parse import quote

        ours = {"Sec-Fetch-Site": "same-origin"}
        bare, gate = quote(text, safe=""), text.encode().decode("latin-1")
        new = {
            "keyspace": "every",
            "account": "globex",
            "environment": "production",
            "name": f"x{text}",
            "team": f"x{text}",
        }
        asked = {
            "keyspace": "every",
            "environment": "production",
            "token": text,
            "scopes": [f"x{text}"],
            "method": "GET",
        }
        with Door(server(kw)) as door:
            return [
                *(door.get(GATE, FAMILY | {name: gate}).status for name in ("X-Token", "Authorization", "X-API-KEY")),
                door.get(f"/authz/forward/{bare}", FAMILY).status,
                door.get(f"/k/{bare}.production/whoami", bearer(key)).status,
                *(door.get(f"/v1/{noun}/{bare}", caller).status for noun in NOUNS),
                *(
                    door.get(f"/v1/keys?{name}={bare}", caller).status
                    for name in ("q", "sort", "cursor", "account", "keyspace", "environment", "state", "team", "application")
                ),
                *(door.get(f"/v1/usage?{name}={bare}", caller).status for name in ("key", "keyspace", "group", "by", "code")),
                *(door.get(f"/v1/audit?{name}={bare}", caller).status for name in ("cursor", "action", "account")),
                door.json("POST", "/v1/verify", asked, caller).status,
                door.json("POST", "/v1/keys", new, caller).status,
                door.json("POST", "/v1/keys", new | {"access": "restricted", "scopes": [text]}, caller).status,
                door.json("POST", f"/v1/keys/{bare}/rotate", {}, caller).status,
                door.json("POST", "/v1/accounts", {"username": text}, caller).status,
                door.get(f"/v1/people/{bare}%40x.example", caller).status,
                door.json("POST", "/v1/people", {"email": text, "account": text, "role": text}, caller).status,
                door.json("POST", "/v1/session", {"email": text, "password": text}, ours).status,
                door.json("POST", "/v1/session/follow", {"token": text, "password": text}, ours).status,
            ]  # fmt: skip

    event.listen(Engine, "before_cursor_execute", note)
    if hasattr(lookup, "_all"):
        lookup._all = noted
    try:
        for plain in ("plain", "every", "globex", "name", make(kw).key.id):
            everywhere(plain)
        known = set(statements)
        for text in SQL:
            found = everywhere(text)
            assert max(found) < 500, (text, found)
            assert statements <= known, (text, statements - known)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
        del lookup._all
    assert len(known) > 10
    assert kw.verify(bearer(key), keyspace="every", environment="production", method="GET").code == "ok"


# ------------------------------------------------------------------------------------------------------- who is meant


@pytest.mark.security("T-19")
def test_nobody_is_meant_by_default(kw: Keywright, key: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where keyspace, environment, gate or caller is not said, nothing of the operator's stands in for it."""
    caller = manager(kw)
    monkeypatch.setenv("KEYWRIGHT_KEY", caller["Authorization"][7:])
    for left_out in ({"keyspace": None}, {"environment": None}):
        place: dict[str, Any] = {"keyspace": "every", "environment": "production"} | left_out
        with pytest.raises((Invalid, NotFound)):
            kw.verify(bearer(key), method="GET", **place)
    with Door(server(kw)) as door:
        right = {"keyspace": "every", "environment": "production", "token": token(key), "method": "GET"}
        assert door.json("POST", "/v1/verify", right, caller).json["valid"] is True
        for lacking in ("keyspace", "environment", "token"):
            asked = {name: value for name, value in right.items() if name != lacking}
            assert door.json("POST", "/v1/verify", asked, caller).code == "invalid_request"
        assert door.json("POST", "/v1/verify", right).code == "missing"
        for path in (
            "/authz/forward/",
            "/authz/forward/every",
            "/authz/forward/.production",
            "/authz/forward/every.",
        ):
            assert door.get(path, bearer(key) | FAMILY).status == 404
        for path in ("/k/every/whoami", "/k/.production/whoami", "/k/whoami"):
            assert door.get(path, bearer(key)).status in (404, 422)
        assert door.get("/v1/keys").code == "missing"


# --------------------------------------------------------------------------------------------------------------- logs

#: The beginning of a record, and what its lines may hold.
_RECORD = re.compile(r"\A(DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: [^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")
FORGED = [
    "\nERROR keywright: forged",
    "\r\nERROR forged",
    "\x1b[31mred",
    "\u2028ERROR keywright: forged",
    "\x9b31m",
    "\b\b",
]


@pytest.mark.security("T-42")
@pytest.mark.parametrize("text", FORGED)
def test_a_record_is_one_line(text: str) -> None:
    """Whatever stands in a message, an argument or an exception, one record begins one line, and no control is written."""
    formatter = OneLine("%(levelname)s %(name)s: %(message)s")
    try:
        raise ValueError(text)
    except ValueError:
        trouble = sys.exc_info()
    record = logging.LogRecord("keywright", logging.ERROR, "", 0, f"said {text} %s", (text,), trouble)

    first, *trace = formatter.format(record).split("\n")

    assert _RECORD.match(first)
    assert "Traceback" in trace[0]
    assert all(line.startswith("    ") for line in trace)
    assert not any(re.search(r"[\x00-\x1f\x7f-\x9f\u2028]", line) for line in trace)


@pytest.mark.security("T-01", "T-02", "T-42")
def test_a_log_in_full_holds_no_credential_and_no_forged_line(folder: Folder) -> None:
    """With all that can be logged, a right key in six places of an address is refused and in no line; each line is ours."""
    right = drawn(folder)
    manage = folder("management-keys", "create", "ci", "--scope", "keys:read", "--quiet").out.strip()
    with Served(folder.database, folder.path, KEYWRIGHT_DEBUG="1") as running:
        for held in (right, manage):
            for form in ("?token={}", "?{}", "?a=1&X-Token={}", "/{}", ";key={}", "#{}", "?a=%22{}%22"):
                for path in ("/k/every.production/whoami", "/v1/keys", GATE):
                    answer = exchange(running.port, request("GET", path + form.format(held), FAMILY))
                    assert statuses(answer)[0] in (400, 401, 404)
                    assert held[-38:].encode() not in answer
            target = [
                ("X-Forwarded-Method", "GET"),
                ("X-Forwarded-Uri", f"/things?x={held}"),
                ("X-Token", right),
            ]
            assert statuses(exchange(running.port, request("GET", GATE, target))) == [401]
        for forged in FORGED:
            raw = forged.encode()
            for line in (
                ("X-Token", raw),
                ("User-Agent", raw),
                ("X-Forwarded-For", raw),
                (b"X-" + raw, b"x"),
            ):
                exchange(running.port, request("GET", "/v1/keys", [line]), half_close=True)
            exchange(running.port, request("GET", b"/v1/" + raw), half_close=True)
            folder("keys", "create", f"x{forged}", "--keyspace", "every", *KEY)
        assert running.stop() == 0

    lines = "".join(running.err).split("\n")
    assert len(lines) > 10
    assert [line for line in lines if line and not line.startswith("    ") and not _RECORD.match(line)] == []
    assert not any(line.startswith("ERROR") for line in lines)
    for held in (right, manage):
        assert held[-38:] not in running.said
        assert held[-38:-6] not in running.said


# -------------------------------------------------------------------------------------------------- floods and snails


@pytest.mark.security("T-10")
def test_memory_stays_flat(folder: Folder) -> None:
    """A hundred heads of a megabyte, and as many endless bodies, are refused, and the process is hardly larger than before."""
    manage = folder("management-keys", "create", "ci", "--scope", "verify", "--quiet").out.strip()
    kind = [("Authorization", f"Bearer {manage}"), ("Content-Type", "application/json")]
    head = request("GET", "/livez", [("X-Big", "a" * (1 << 20))])
    body = request("POST", "/v1/verify", kind, b" " * (2 << 20))
    with Served(folder.database, folder.path) as running:
        process = psutil.Process(running.process.pid)

        def flood(times: int) -> None:
            for _ in range(times):
                assert set(statuses(exchange(running.port, head))) <= {400, 431}
                assert set(statuses(exchange(running.port, body))) <= {413}

        flood(10)
        before = process.memory_info().rss
        flood(100)
        assert process.memory_info().rss - before < 20 << 20


@pytest.mark.security("R-26")
def test_snails_are_not_waited_for(kw: Keywright, key: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that send a byte now and then are closed, in a first or later head or in a body; others are served."""
    monkeypatch.setattr(server_app, "LOOK_EVERY", 1)
    monkeypatch.setattr("keywright.server.strict.MOST_LOOKS", 3)
    again = Keywright(kw.installation.database.url, clock=kw.installation.clock)
    whole = request("GET", "/livez", close=False)
    body = b"POST /v1/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
    begun = [b"", b"G", b"GET /livez HTTP/1.1\r\nX-A: ", whole + b"GET /li", body + b"{", whole + body]
    with served(server(again)) as port, ExitStack() as stack:
        patient = stack.enter_context(closing(Connection(port)))
        assert patient("GET", "/livez", {}).status == 200
        watched = stack.enter_context(selectors.DefaultSelector())
        for place in range(500 if FULL else 60):
            snail = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            snail.sendall(begun[place % len(begun)])
            snail.setblocking(False)
            watched.register(snail, selectors.EVENT_READ)
        deadline = time.monotonic() + PATIENCE
        while watched.get_map():
            assert time.monotonic() < deadline, f"{len(watched.get_map())} are still open"
            for found, _ in watched.select(0.1):
                if _is_closed(found.fileobj):
                    watched.unregister(found.fileobj)
            for waiting in list(watched.get_map().values()):
                _crawl(waiting.fileobj)
            with closing(Connection(port)) as other:
                assert other("GET", "/k/every.production/whoami", bearer(key)).status == 200
        assert patient("GET", "/livez", {}).status == 200  # nothing was owed on it: it is still open


def _is_closed(snail: Any) -> bool:
    try:
        return snail.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _crawl(snail: Any) -> None:
    try:
        snail.send(b"x")
    except OSError:
        return


@pytest.mark.security("R-16", "T-46")
def test_a_restart_in_the_middle_of_traffic(folder: Folder) -> None:
    """A server that is started again, remembering nothing, answers every key rightly from its first request on."""
    many = 2_000 if FULL else 100
    with Keywright(folder.database) as kw:
        keys = [bearer(make(kw)) for _ in range(many)]
    found: list[int] = []
    over = threading.Event()

    def client(port: int, first: int) -> None:
        place = first
        while not over.is_set():
            with closing(Connection(port)) as door:
                try:
                    while not over.is_set():
                        found.append(door("GET", GATE, keys[place % many] | FAMILY).status)
                        place += 1
                except (OSError, HTTPException):
                    over.wait(0.01)  # nobody listens in between

    def until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline

    with Served(folder.database, folder.path) as first:
        clients = [threading.Thread(target=client, args=(first.port, place * 7)) for place in range(8)]
        for each in clients:
            each.start()
        try:
            until(lambda: len(found) > many * 3)
            assert first.stop() == 0
            before = len(found)
            with Served(folder.database, folder.path, port=first.port) as second:
                until(lambda: len(found) > before + many * 3)
                over.set()
                for each in clients:
                    each.join(PATIENCE)
                assert second.stop() == 0
        finally:
            over.set()

    assert set(found) == {200}
