"""The command and the library over HTTP: the same verbs, the same output, and a key that goes nowhere else."""

import asyncio
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from secrets import token_hex
from typing import Any, ClassVar, NamedTuple

import click
import pytest

from conftest import bearer, make
from keywright import Client, Conflict, Denied, Exceeds, Invalid, Keywright, NotFound, Unavailable
from keywright.cli import keywright as top
from keywright.client import WAITING_AT_ONCE
from keywright.clock import process_clock
from keywright.credential import spell_token
from keywright.desk.grants import Reach
from keywright.times import rfc3339
from people import member
from processes import Folder, Ran
from surfaces import manager, served, server

NEW = ("--keyspace", "every", "--account", "globex", "--environment", "production", "--access", "all")


class Remote(NamedTuple):
    """An installation, the command on it, and the same command over HTTP."""

    kw: Keywright
    local: Folder
    url: str
    token: str

    def remote(self, *arguments: str, given: str = "", **environment: str) -> Ran:
        """Run the command against the server."""
        around = {"KEYWRIGHT_DATABASE": "", "KEYWRIGHT_KEY": self.token} | environment
        return self.local(*arguments, "--url", self.url, given=given, **around)

    def client(self, **over: Any) -> Client:
        """The library, connected to the server."""
        return Keywright.connect(
            self.url, **({"key": self.token, "keyspace": "every", "environment": "production"} | over)
        )


@contextmanager
def opened(template: Path, folder: Path) -> Iterator[Remote]:
    """An installation with the cast, served on a port of this machine."""
    local = Folder(folder, copy_of=template)
    with Keywright(local.database, clock=process_clock) as kw:
        token = manager(kw)["Authorization"].removeprefix("Bearer ")
        with served(server(kw)) as port:
            yield Remote(kw, local, f"http://127.0.0.1:{port}", token)


@pytest.fixture
def on(template: Path, tmp_path: Path) -> Iterator[Remote]:
    """A server, and what reaches it."""
    with opened(template, tmp_path) as remote:
        yield remote


# ----------------------------------------------------------------------------------------- every verb, here and there


def _key(on: Remote) -> str:
    return make(on.kw, limits=["5/day"], team="sales", expires_at=process_clock() + 10**12).key.id


def _rotating(on: Remote) -> str:
    key_id = _key(on)
    on.kw.keys.rotate(key_id, grace_seconds=3600, start="first_use")
    return key_id


def _disabled(on: Remote) -> str:
    key_id = _key(on)
    on.kw.keys.disable(key_id)
    return key_id


def _invalidated(on: Remote) -> str:
    key_id = _key(on)
    on.kw.keys.invalidate(key_id, reason="leaked")
    return key_id


def _managed(on: Remote) -> str:
    return on.kw.keys.create_management(name="Managed", scopes=["verify"]).key.id


def _stopped(on: Remote) -> str:
    key_id = _managed(on)
    on.kw.installation.management_keys.disable(key_id)
    return key_id


def _account(on: Remote) -> str:
    return on.kw.accounts.create(f"hooli{len(on.kw.accounts.list().items)}", limits_=["5/day"]).username


def _refused(on: Remote) -> str:
    request_id = on.kw.verify({}, keyspace="every", environment="production").request_id
    on.kw.installation.meter.settle()
    return request_id


def _alerted_key(on: Remote) -> str:
    key = make(on.kw)
    on.kw.keys.invalidate(key.key.id)
    on.kw.verify(bearer(key), keyspace="every", environment="production")
    on.kw.installation.meter.settle()
    on.kw.installation.lookout.round()
    return key.key.id


def _alerted(on: Remote) -> str:
    (alert,) = on.kw.installation.alerts.list(key=_alerted_key(on)).items
    alert_id: str = alert.id
    return alert_id


def _hooked(on: Remote) -> str:
    return on.kw.installation.webhooks.create(url=HOOK, events=["key.created"], account="globex").endpoint.id


def _silenced(on: Remote) -> str:
    endpoint_id = _hooked(on)
    on.kw.installation.webhooks.disable(endpoint_id)
    return endpoint_id


def _unproven(on: Remote) -> str:
    bound = Reach(account="globex")
    endpoint = on.kw.installation.webhooks.create(url=HOOK, account="globex", reach=bound).endpoint
    return f"{endpoint.id} {endpoint.challenge}"


def _tested(on: Remote) -> str:
    endpoint_id = _hooked(on)
    desk, deadline = on.kw.installation.webhooks, time.monotonic() + 20
    desk.test(endpoint_id)
    while not desk.deliveries(endpoint_id, limit=1).items[0].attempts:  # the next is made much later
        assert time.monotonic() < deadline, "nobody carried it"
    return endpoint_id


def _used(on: Remote) -> str:
    key = make(on.kw, team="sales")
    on.kw.verify(bearer(key), keyspace="every", environment="production", resource="/things")
    on.kw.installation.meter.settle()
    return key.key.id


def _charged(on: Remote) -> str:
    on.kw.accounts.limit("globex", ["9/month"])
    key = make(on.kw, limits=["5/day", "credits:7"])
    assert on.kw.verify(bearer(key), keyspace="every", environment="production", method="GET")
    return key.key.id


def _address(_on: Remote) -> str:
    return f"a{token_hex(4)}@globex.example"


def _member(on: Remote) -> str:
    return member(on.kw, "analyst").email


def _visited(on: Remote) -> str:
    return on.kw.portal.open(account="globex", subject="ana@globex").session.id


class Verb(NamedTuple):
    """How a verb is run in both places; ``made`` makes what it is run on, whose name takes the place of ``{}``."""

    arguments: str = ""
    made: Callable[[Remote], str] = lambda _on: ""
    once: bool = False  # it reads: both are run on the same thing
    given: str = ""


#: A verb that makes sense only where the database is.
LOCAL = "local"
#: A verb that opens no installation.
NOWHERE = "nowhere"
HOOK = "https://hooks.example.com/ours"
#: Every command. One without an entry has no remote decision, and fails.
COMMANDS: dict[str, Verb | str] = {
    "serve": LOCAL,
    "demo": NOWHERE,
    "init": LOCAL,
    "migrate": LOCAL,
    "backup": LOCAL,
    "restore": LOCAL,
    "purge": LOCAL,
    "alerts test-mail": LOCAL,
    "webhooks events": NOWHERE,
    "gateway config": NOWHERE,
    "gateway echo": NOWHERE,
    "gateway check": NOWHERE,
    "accounts onboard": LOCAL,
    "people create": Verb("{} --account globex --role analyst --name Ana", _address),
    "people list": Verb("--account globex", _member, once=True),
    "people get": Verb("{}", _member, once=True),
    "people role": Verb("{} auditor --account globex", _member),
    "people remove": Verb("{} --account globex --yes", _member),
    "people disable": LOCAL,
    "people enable": LOCAL,
    "people dismiss": LOCAL,
    "people unlink": LOCAL,
    "people reset": LOCAL,
    "portal open": Verb(
        "globex --subject ana@globex --name Ana --keyspace every --return-url https://app.example.com/ --access read_only"
    ),
    "portal list": Verb("--account globex --subject ana@globex", _visited, once=True),
    "portal end": Verb("{}", _visited),
    "scan": NOWHERE,
    "doctor": LOCAL,
    "explain": LOCAL,
    "config show": LOCAL,
    "config check": LOCAL,
    "config reference": NOWHERE,
    "keyspaces create": LOCAL,
    "keyspaces apply": LOCAL,
    "keyspaces profile": NOWHERE,
    "keys purge": LOCAL,
    "audit verify": LOCAL,
    "keys create": Verb(
        f"CRM {' '.join(NEW)} --limit 5/day --limit rate:3/10s --team sales --expires 90d --description x "
        '--allow-ip 10.0.0.0/8 --metadata {{"a":1}}'
    ),
    "keys list": Verb("--keyspace every --team sales --limit 1", _key, once=True),
    "keys export": Verb("--format csv --keyspace every --team sales", _key, once=True),
    "keys get": Verb("{}", _rotating, once=True),
    "keys limits": Verb("{}", _charged, once=True),
    "keys edit": Verb("{} --name New --access read_only --limit none --expires never --allow-ip any", _key),
    "keys rotate": Verb("{} --grace 1h --start first_use", _key),
    "keys finish": Verb("{}", _rotating),
    "keys cancel": Verb("{}", _rotating),
    "keys invalidate": Verb("{} --reason leaked", _key),
    "keys disable": Verb("{}", _key),
    "keys enable": Verb("{}", _disabled),
    "keys several": Verb("disable {}", _key),
    "keys import": Verb(
        "- --keyspace every --account globex --environment production --access all --dry-run",
        given=json.dumps({"name": "Old", "token": spell_token("every_live_kAAAAAAAAAAAAAAB", "s" * 32)}),
        once=True,
    ),
    "keys delete": Verb("{} --yes", _key),
    "keys verify": Verb("--keyspace every --environment production --method GET", given="every_live_k"),
    "accounts create": Verb("{} --name Somebody --limit 5/day", lambda on: _account(on) + "x"),
    "accounts list": Verb("--state active --search glo", once=True),
    "accounts get": Verb("{}", _account, once=True),
    "accounts limit": Verb("{} --limit 9/day --limit credits:5", _account),
    "accounts suspend": Verb("{}", _account),
    "accounts activate": Verb("{}", _account),
    "keyspaces list": Verb(once=True),
    "keyspaces get": Verb("partna", once=True),
    "keyspaces rules": Verb("gitleaks every", once=True),
    "scopes list": Verb("--keyspace every", once=True),
    "plans list": Verb(once=True),
    "gates list": Verb(once=True),
    "management-keys create": Verb("CI --scope verify --account globex --expires 90d"),
    "management-keys list": Verb("--search Managed", _managed, once=True),
    "management-keys get": Verb("{}", _managed, once=True),
    "management-keys rotate": Verb("{} --grace 1h", _managed),
    "management-keys invalidate": Verb("{}", _managed),
    "management-keys disable": Verb("{}", _managed),
    "management-keys enable": Verb("{}", _stopped),
    "management-keys delete": Verb("{} --yes", _managed),
    "usage": Verb("--by total --group key --team sales", _used, once=True),
    "audit list": Verb("--target {} --action key.create", _key, once=True),
    "audit export": Verb("--format csv", _key, once=True),
    "alerts list": Verb("--key {} --rule invalidated_key", _alerted_key, once=True),
    "alerts get": Verb("{}", _alerted, once=True),
    "alerts acknowledge": Verb("{}", _alerted),
    "alerts resolve": Verb("{}", _alerted),
    "webhooks create": Verb(f"{HOOK} --event key.created --description Ours --account globex"),
    "webhooks list": Verb("--account globex --limit 1", _hooked, once=True),
    "webhooks get": Verb("{}", _hooked, once=True),
    "webhooks edit": Verb(f"{{}} --to {HOOK}/new --event key.created --event key.deleted", _hooked),
    "webhooks rotate": Verb("{} --overlap 1h", _hooked),
    "webhooks verify": Verb("{}", _unproven),
    "webhooks test": Verb("{}", _hooked),
    "webhooks deliveries": Verb("{} --limit 1", _tested, once=True),
    "webhooks redeliver": Verb("{} --since 1d", _hooked),
    "webhooks disable": Verb("{}", _hooked),
    "webhooks enable": Verb("{}", _silenced),
    "webhooks delete": Verb("{} --yes", _hooked),
    "why": Verb("{}", _refused, once=True),
}
REMOTE = [name for name, verb in COMMANDS.items() if isinstance(verb, Verb)]
WITHOUT_JSON = ("audit export", "keys export")


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Every verb of the command, by what is typed."""
    for name in top.list_commands(click.Context(top)):
        command = top.get_command(click.Context(top), name)
        if isinstance(command, click.Group):
            yield from ((f"{name} {verb}", found) for verb, found in command.commands.items())
        else:
            assert command is not None
            yield name, command


def test_every_command_has_a_remote_decision() -> None:
    """The table names each command there is, and those that it takes to a server offer to be taken there."""
    offered = {
        name
        for name, command in every_command()
        if any("--url" in parameter.opts and not parameter.hidden for parameter in command.params)  # type: ignore[attr-defined]
    }
    assert {name for name, _ in every_command()} == set(COMMANDS)
    assert offered == set(REMOTE)


def plain(text: str, made: str) -> str:
    """Output without what differs from call to call: ids, secrets, times, and who it was."""
    for pattern, instead in (
        (r"whsec_[0-9A-Za-z+/=]+", "SIGNED"),
        (r"\b\w+_live_[km][0-9A-Za-z]{15}(_[0-9A-Za-z]{38})?", "KEY"),
        (r"\b\w+sec_[0-9A-Za-z]{38}", "SECRET"),
        (r"Basic [0-9A-Za-z+/=]+", "Basic B"),
        (r"\b(req|acct)_[0-9a-zA-Z.]+", r"\1"),
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+Z?", "TIME"),
        (r"(command|management_key):(KEY|\w+)", "WHO"),
        (r'"(?:token|pair|secret)": "[0-9A-Za-z]{4}"', "HINT"),
        (r"(token|pair|secret) …\w{4}", "HINT"),
        (r"http://127\.0\.0\.1:[0-9]+", "URL"),
        (r"prsn_[0-9a-f]+", "PERSON"),
        (r"portal/[\w-]{43}", "LINK"),
        (r"ptl_[0-9a-f]{20}", "VISIT"),
        (r"we_[0-9A-Za-z]{15}", "WEBHOOK"),
        (r"msg_[0-9A-Za-z]{24}", "MESSAGE"),
        (r"link#[\w-]{43}", "LINK"),
        (r'"token": "[\w-]{43}"', "LINK"),
        (r", while `keywright serve` runs", ""),
        (r'"parent": "KEY"', '"parent": null'),  # a management key's maker
    ):
        text = re.sub(pattern, instead, text)
    return text.replace(made, "MADE") if made else text


@pytest.mark.parametrize("json_", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("name", REMOTE)
def test_it_says_the_same_here_and_there(on: Remote, name: str, json_: bool) -> None:
    """A verb prints the same, and ends the same, on the database and over HTTP, as text and as JSON."""
    verb = COMMANDS[name]
    assert isinstance(verb, Verb)
    more = ["--json"] if json_ and name not in WITHOUT_JSON else []

    def run(how: Callable[..., Ran], made: str) -> Ran:
        return how(*name.split(), *verb.arguments.format(made).split(), *more, given=verb.given)

    first = verb.made(on)
    second = first if verb.once else verb.made(on)
    here, there = run(on.local, first), run(on.remote, second)

    assert (there.code, there.err) == (here.code, here.err), there
    assert plain(there.out, second) == plain(here.out, first)
    if verb.once and name != "usage":  # its JSON says until when it counted
        assert there.out == here.out
    if json_ and more:
        assert there.json is not None


@pytest.mark.parametrize("name", [name for name, verb in COMMANDS.items() if verb is LOCAL])
def test_what_is_local_says_so(on: Remote, name: str) -> None:
    """A verb that works on a database alone refuses a server, named or in the environment, in one line and with 2."""
    for ran in (on.local(*name.split(), "--url", on.url), on.local(*name.split(), KEYWRIGHT_URL=on.url)):
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert f"{name} works on the database itself" in ran.err


def test_a_key_of_a_server_does_not_change_that(on: Remote) -> None:
    """``--key`` beside the ``--url`` that is refused changes nothing about the one line, and is not repeated."""
    ran = on.local("accounts", "onboard", "hooli", "--url", on.url, "--key", on.token)

    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "accounts onboard works on the database itself" in ran.err
    assert on.token not in ran.err


def test_where_is_told_once(on: Remote) -> None:
    """A flag wins over the environment; two flags, or two variables, are refused; a server without a key too."""
    both = {"KEYWRIGHT_URL": on.url, "KEYWRIGHT_KEY": on.token}
    assert on.local("keys", "list", **both).code == 2
    assert on.local("keys", "list", "--url", on.url, **both).code == 0
    assert on.local("keys", "list", "--database", on.local.database, **both).code == 0
    assert on.local("keys", "list", "--url", on.url, "--database", on.local.database, **both).code == 2
    assert on.local("keys", "list", KEYWRIGHT_DATABASE="", **both).code == 0
    assert on.local("purge", "--older-than", "1d", "--yes", "--database", on.local.database, **both).code == 0
    without = on.local("keys", "list", "--url", on.url)
    assert (without.code, "KEYWRIGHT_KEY_FILE" in without.err) == (2, True)


def test_the_key_comes_from_three_places(on: Remote, tmp_path: Path) -> None:
    """A flag, a variable or a file that a variable names; a file that cannot be read is one line and 2."""
    file = tmp_path / "key.env"
    file.write_text(on.token + "\n")

    assert on.local("keys", "list", "--url", on.url, "--key", on.token).code == 0
    assert on.local("usage", "--url", on.url, "--key", on.token, "--by", "total").code == 0
    assert on.local("keys", "list", "--url", on.url, KEYWRIGHT_KEY_FILE=str(file)).code == 0
    gone = on.local("keys", "list", "--url", on.url, KEYWRIGHT_KEY_FILE="/nowhere")
    assert (gone.code, "cannot be read" in gone.err) == (2, True)


def test_a_toml_is_the_same_there(on: Remote) -> None:
    """``keyspaces get --toml`` prints what was applied, over HTTP too."""
    assert (
        on.remote("keyspaces", "get", "every", "--toml").out
        == on.local("keyspaces", "get", "every", "--toml").out
    )


def test_an_export_over_several_pages(on: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export over HTTP is the whole trail, however many answers it takes, and a bound key gets what is in its reach."""
    from keywright.desk import trail

    for _ in range(5):
        make(on.kw)
    export = trail.Trail.export
    monkeypatch.setattr(trail.Trail, "export", lambda self, **asked: export(self, **(asked | {"limit": 3})))
    with on.client() as client:
        entries = list(client.trail.walk())
    assert entries == list(on.kw.installation.trail.walk())
    with on.client(key=manager(on.kw, account="initech")["Authorization"].removeprefix("Bearer ")) as bound:
        assert {entry["account"] for entry in bound.trail.walk()} == {"initech"}


def test_one_page_follows_another(on: Remote) -> None:
    """A list goes on over HTTP where it ended."""
    made = [make(on.kw).key.id for _ in range(3)]
    with on.client() as client:
        first = client.keys.list(limit=2)
        second = client.keys.list(limit=2, cursor=first.next_cursor)
    assert [key.id for key in (*first.items, *second.items)] == made[::-1]


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("fails", "kind"),
    [
        (lambda kw, _: kw.keys.get("nothing"), NotFound),
        (lambda kw, _: kw.accounts.create("globex"), Conflict),
        (lambda kw, _: kw.accounts.create("Not A Name"), Invalid),
        (lambda kw, key: kw.keys.finish(key), Conflict),
        (lambda kw, key: kw.keys.edit(key, access="restricted", scopes=["nothing:read"]), Invalid),
        (lambda kw, _: kw.keys.create(name="x", account="nobody", access="all"), NotFound),
        (lambda kw, _: kw.keys.create(name="x" * 5000, account="globex", access="all"), Invalid),
        (lambda kw, _: kw.accounts.limit("globex", ["5/fortnight"]), Invalid),
        (lambda kw, _: kw.verify({}, keyspace="nothing"), NotFound),
        (lambda kw, _: kw.verify({}, cost=-1), Invalid),
    ],
)
def test_errors_are_the_same(on: Remote, fails: Callable[[Any, str], object], kind: type[Exception]) -> None:
    """What goes wrong is raised over HTTP as on the database: the same class, the same sentence, the same field."""
    key_id = make(on.kw).key.id
    said = []
    with (
        on.client() as client,
        Keywright(on.local.database, keyspace="every", environment="production") as near,
    ):
        for kw in (near, client):
            with pytest.raises(kind) as refusal:
                fails(kw, key_id)
            said.append((type(refusal.value), str(refusal.value), getattr(refusal.value, "path", None)))
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["", "a/b?c", "../keys", "%2e%2e", "a b", "ä"])
def test_no_name_is_another_address(on: Remote, name: str) -> None:
    """A name with anything in it is one segment of a path: it is not found, whatever it says."""
    with on.client() as client:
        for get in (client.keys.get, client.accounts.get, client.keyspaces.get, client.management_keys.get):
            with pytest.raises(NotFound):
                get(name)


def test_what_the_key_may_not_do_is_said(on: Remote) -> None:
    """A key that lacks a scope, grants too much, or is none, is told so: another class, a code, one line, and 1."""
    weak = manager(on.kw, "management-keys:write", "keys:read")["Authorization"].removeprefix("Bearer ")
    with on.client(key=weak) as client:
        with pytest.raises(Denied, match="lacks the scope keys:write") as refusal:
            client.keys.create(name="x", account="globex", access="all")
        assert refusal.value.code == "insufficient_scope"
        with pytest.raises(Exceeds, match="the grantor lacks verify"):
            client.management_keys.create(name="x", scopes=["verify"])
    ran = on.remote("keys", "list", KEYWRIGHT_KEY=on.token[:-1] + ("A" if on.token[-1] != "A" else "B"))
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "The API key that was sent is not valid here" in ran.err


def test_keys_create_needs_no_more_than_its_scope(on: Remote) -> None:
    """A key that may make keys and nothing else makes one when all is said; what is open is said as on a database."""
    writes = manager(on.kw, "keys:write")["Authorization"].removeprefix("Bearer ")
    assert on.remote("keys", "create", "CRM", *NEW, KEYWRIGHT_KEY=writes).code == 0
    open_ = on.remote("keys", "create", "CRM", "--keyspace", "gallabox")
    here = on.local("keys", "create", "CRM", "--keyspace", "gallabox")
    assert (open_.code, open_.err) == (2, here.err)


# ------------------------------------------------------------------------------------------------------- the network


class Answering(BaseHTTPRequestHandler):
    """A server that answers every request alike, and keeps what it was sent."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[dict[str, str]]] = []
    status, headers_, body = 200, {"Content-Type": "text/html"}, b"<h1>Hello</h1>"

    def _answer(self) -> None:
        self.seen.append(dict(self.headers))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        for name, value in self.headers_.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = _answer  # noqa: N815  # the library's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(**how: Any) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that answers as told; its address, and the headers of what came."""
    kind = type("Kind", (Answering,), how | {"seen": []})
    with HTTPServer(("127.0.0.1", 0), kind) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http_server.server_port}", kind.seen
        finally:
            http_server.shutdown()
            thread.join()


@pytest.mark.security("T-61")
def test_no_redirect_is_followed(tmp_path: Path) -> None:
    """A redirect to another host, or to the same, is refused in one line with 3, and the key is sent nowhere else."""
    folder = Folder(tmp_path)
    with answering() as (elsewhere, seen):
        for status in (301, 302, 303, 307, 308):
            moved = {"Location": f"{elsewhere}/v1/keys", "Content-Type": "application/json"}
            with answering(status=status, headers_=moved) as (url, asked):
                ran = folder("keys", "list", "--url", url, "--key", "kw_live_x", KEYWRIGHT_DATABASE="")
            assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)
            assert "redirect" in ran.err
            assert asked[0]["Authorization"] == "Bearer kw_live_x"
        assert seen == []


@pytest.mark.security("T-61")
@pytest.mark.parametrize(
    "url",
    [
        "http://keys.example.com",
        "http://10.0.0.1:8700",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "ftp://localhost",
        "keys.example.com",
        "https://",
        "https://user:word@localhost",
        "https://localhost:99999",
        "http://127.0.0.1@keys.example.com",
        "https://localhost/?x=1",
    ],
)
def test_a_key_is_sent_over_https_only(tmp_path: Path, url: str) -> None:
    """An address without HTTPS that is not this machine's, or that is none, is refused before anything is sent."""
    ran = Folder(tmp_path)("keys", "list", "--url", url, "--key", "kw_live_x", KEYWRIGHT_DATABASE="")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("keywright: --url: is")
    with pytest.raises(Invalid):
        Keywright.connect(url, key="kw_live_x")


@pytest.mark.parametrize("key", ["", "two words", "a\nb", "é", "x\r\nHost: y"])
def test_what_is_no_key_is_not_sent(key: str) -> None:
    """A key that would not fit into a header is refused, without repeating it."""
    with pytest.raises(Invalid, match="is not a management key's token"):
        Keywright.connect("http://127.0.0.1:1", key=key)


def _silent(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_trouble_is_one_line(tmp_path: Path) -> None:
    """Nobody there, no name, no answer, an answer of something else, a plain port behind https: one line each, and 3."""
    folder = Folder(tmp_path)

    def said(url: str) -> str:
        ran = folder("keys", "list", "--url", url, "--key", "kw_live_x", KEYWRIGHT_DATABASE="")
        assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1), ran
        assert "kw_live_x" not in ran.err
        return ran.err

    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    assert "connection refused" in said(f"http://127.0.0.1:{free}")
    assert "cannot be reached" in said("https://nowhere.invalid")
    with answering() as (url, _):
        assert "does not answer as Keywright does (status 200)" in said(url)
        assert "cannot be reached over HTTPS" in said(url.replace("http://", "https://"))
    with answering(headers_={"Content-Type": "application/json"}, body=b"[[") as (url, _):
        assert "does not answer as Keywright does" in said(url)
    with answering(status=502) as (url, _):
        assert "(status 502)" in said(url)
    with answering(status=500, headers_={"Content-Type": "application/json"}, body=b"{}") as (url, _):
        assert "the server failed with status 500" in said(url)


@pytest.mark.security("T-63")
def test_a_server_that_is_silent_is_waited_for_so_long() -> None:
    """A server that takes the request and says nothing is given up after the time-out; a verification is ``unavailable``."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Keywright.connect(_silent(silent), key="kw_live_x", keyspace="every", timeout=0.2) as client,
    ):
        with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s$"):
            client.keys.list()
        with pytest.raises(Unavailable, match="whether it was carried out is not known"):
            client.keys.invalidate("x")
        verdict = client.verify({"Authorization": "Bearer x"})
        assert (verdict.code, bool(verdict), client.answer(verdict).status) == ("unavailable", False, 503)


def test_a_certificate_of_nobody_is_refused(tmp_path: Path) -> None:
    """A server whose certificate nobody vouches for gets no request."""
    made = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
    import subprocess

    paths = ("-keyout", tmp_path / "own.pem", "-out", tmp_path / "cert.pem", "-subj", "/CN=localhost")
    subprocess.run(["openssl", *made, *paths], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "own.pem")
    kind = type("Kind", (Answering,), {"seen": []})
    with HTTPServer(("127.0.0.1", 0), kind) as http_server:
        http_server.socket = context.wrap_socket(http_server.socket, server_side=True)
        thread = threading.Thread(target=http_server.handle_request)
        thread.start()
        url = f"https://localhost:{http_server.server_port}"
        with pytest.raises(Unavailable, match=f"the certificate of {url} is not trusted here"):
            Keywright.connect(url, key="kw_live_x").keys.list()
        thread.join()
    assert kind.seen == []


def test_a_connection_is_kept_and_a_dead_one_is_not_used(on: Remote) -> None:
    """Requests share a connection; one that the server closed meanwhile is replaced, and nothing is asked twice for it."""
    with answering(
        headers_={"Content-Type": "application/json"}, body=b'{"items": [], "next_cursor": null}'
    ) as (url, seen):
        client = Keywright.connect(url, key="kw_live_x")
        client.keys.list()
        client.keys.list()
        connections = client._connections._idle
        assert len(connections) == 1
        connections[0][0].sock.shutdown(socket.SHUT_RDWR)
        client.keys.list()
        assert len(seen) == 3
        client.close()


# ------------------------------------------------------------------------------------------------------ verification


def test_it_verifies_as_on_the_database(on: Remote) -> None:
    """A verdict over HTTP has the code, the reason, the key and the answer that it has on the database, awaited too."""
    key = make(on.kw, access="read_only", metadata={"a": [1]}, limits=["5/day"])
    ask = {"keyspace": "every", "environment": "production", "method": "GET"}
    with on.client() as client:
        far, near = client.verify(bearer(key), method="GET"), on.kw.verify(bearer(key), **ask)
        assert (far.code, far.valid, far.limits[0].remaining) == ("ok", True, 4)
        assert far.key is not None
        assert near.key is not None
        for field in ("id", "account", "account_id", "environment", "access", "name", "metadata", "scopes"):
            assert getattr(far.key, field) == getattr(near.key, field), field
        assert asyncio.run(client.averify(bearer(key), method="GET")).limits[0].remaining == 2
        far, near = (
            client.verify(bearer(key), method="POST"),
            on.kw.verify(bearer(key), **ask | {"method": "POST"}),
        )
        assert (far.code, far.reason, client.answer(far).status) == (near.code, near.reason, 403)
        mine, theirs = client.answer(far), on.kw.answer(near)
        assert sorted(mine.headers) == sorted(theirs.headers)
        assert json.loads(mine.body)["detail"] == json.loads(theirs.body)["detail"]
        assert client.verify([(b"authorization", b"Bearer \xff")]).code == "invalid"
        assert client.verify({}).code == "missing"
        assert client.verify({}, url="/x?token=" + key.credential.token.reveal()).code == "ambiguous"


def test_a_server_that_is_slow_holds_up_nothing_else_of_an_event_loop(on: Remote) -> None:
    """However many wait for a server, the threads of the loop itself are free, and in the end all are answered."""
    released = threading.Event()

    async def crowd(client: Client) -> tuple[list[Any], set[str]]:
        waiting = [asyncio.create_task(client.averify({})) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.to_thread(released.set)
        return await asyncio.gather(*waiting), {one.name for one in threading.enumerate()}

    with on.client() as client:
        client.verify = lambda _headers: released.wait(5)  # type: ignore[method-assign,assignment]
        answered, names = asyncio.run(crowd(client))
    assert answered == [True] * 100
    assert 0 < sum(name.startswith("keywright-client") for name in names) <= WAITING_AT_ONCE


@pytest.mark.security("T-63")
def test_without_a_server_nothing_is_let_in(on: Remote) -> None:
    """Where the server is gone, or refuses our own key, a right key is ``unavailable``: a 503 with Retry-After, never a 401."""
    key = make(on.kw)
    verify_only = manager(on.kw, "keys:read")["Authorization"].removeprefix("Bearer ")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for over in ({"url": gone}, {"key": verify_only}, {"key": on.token[:-1] + "!"}):
        asked = {"url": on.url, "key": on.token, "keyspace": "every", "environment": "production"} | over
        with Keywright.connect(asked.pop("url"), **asked) as client:
            verdict = client.verify(bearer(key), method="GET")
            answer = client.answer(verdict)
        assert (verdict.code, bool(verdict), verdict.key) == ("unavailable", False, None)
        assert (answer.status, dict(answer.headers)["Retry-After"]) == (503, "1")


def test_a_key_is_disabled_for_a_time(on: Remote) -> None:
    """By the command and by the library on a server, a key is disabled until an instant; several are changed, listed, counted."""
    key = make(on.kw)
    said = on.remote("keys", "disable", key.key.id, "--for", "1h")
    until = on.kw.keys.get(key.key.id).disabled_until
    assert until is not None
    assert said.out == f"disabled: {key.key.id} (CRM sync), disabled until {rfc3339(until)}\n"
    with on.client() as client:
        longer = client.keys.disable(key.key.id, for_seconds=7200).key
        assert longer.disabled_until == on.kw.keys.get(key.key.id).disabled_until
        others = [make(on.kw).key.id for _ in range(2)]
        done = client.keys.several("invalidate", [*others, "nothing"])
        assert (set(done.done), done.passed_over) == (set(others), ("nothing",))
        listed = client.keys.list(hygiene="all_access", account="globex").items
        assert not {one.id for one in listed} & set(others)
        report = client.usage.report(keys=others, by="total", group="key")
        assert (report.rows, report.total) == ((), 0)
        assert (longer.disabled_until or 0) >= until + 3599 * 1_000_000
    wrong = on.remote("keys", "disable", key.key.id, "--for", "soon")
    assert (wrong.code, "--for" in wrong.err) == (1, True)


def test_keys_verify_counts_nothing(on: Remote) -> None:
    """``keys verify`` over HTTP lets the right token in, and is neither charged, counted nor recorded."""
    key = make(on.kw, limits=["1/day"])
    asked = ("keys", "verify", "--keyspace", "every", "--environment", "production", "--method", "GET")
    for _ in range(3):
        assert on.remote(*asked, given=key.credential.token.reveal()).out == "ok\n"
    assert on.remote(*asked, given="nonsense").out == on.local(*asked, given="nonsense").out
    assert on.kw.keys.get(key.key.id).last_used_at is None
    assert on.kw.installation.usage.report(by="total", keyspace="every").total == 0
    assert on.kw.installation.refusals.list(keyspace="every").items == ()


@pytest.mark.security("T-62", "R-08")
def test_a_memory_is_short_and_off_unless_asked_for(on: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``remember`` a key that was ended is refused at once; with it, when it has run out or was told to forget."""
    now = [1000.0]
    monkeypatch.setattr("keywright.client.time.monotonic", lambda: now[0])
    key, limited = make(on.kw), make(on.kw, limits=["5/day"])
    with on.client() as plain_, on.client(remember=5) as remembering, on.client(remember=5) as told:
        clients = (plain_, remembering, told)
        assert [client.verify(bearer(key), method="GET").code for client in clients] == ["ok"] * 3
        assert [client.verify(bearer(limited), method="GET").limits[0].remaining for client in clients] == [
            4,
            3,
            2,
        ]
        assert remembering.verify(bearer(limited), method="GET").limits[0].remaining == 1
        on.kw.keys.invalidate(key.key.id)
        told.forget()
        codes = [client.verify(bearer(key), method="GET").code for client in clients]
        assert codes == ["invalidated", "ok", "invalidated"]
        assert remembering.verify(bearer(key), method="DELETE").code == "invalidated"
        now[0] += 5
        assert remembering.verify(bearer(key), method="GET").code == "invalidated"
    for seconds in (-1, 5.1, 60):
        with pytest.raises(Invalid, match="remember"):
            on.client(remember=seconds)
    assert on.token not in repr(remembering) + repr(remembering._connections)
