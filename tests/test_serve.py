"""Servers and the example host as processes on one file: what the command changes, all of them obey at once."""

import hashlib
import os
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from keywright import credential
from keywright.installation import Keywright
from keywright.model import Issued
from processes import EXAMPLES, PATIENCE, Door, Folder, Host, Served, run

ROUNDS = 500 if os.environ.get("KEYWRIGHT_PROOF") else 30
#: Every how many rounds the change is made by a process of its own.
SHELL = 10

Ask = Callable[[Issued], bool]


class Fleet(NamedTuple):
    """Two servers and two example hosts on one file, and the library on it in this process."""

    folder: Folder
    kw: Keywright
    manage: str
    servers: tuple[Served, Served]
    hosts: tuple[Host, Host]

    def doors(self, stack: ExitStack) -> dict[str, Ask]:
        """A connection of its own to every place that verifies: whether each lets a change to partna's account through."""
        opened: dict[str, Ask] = {}

        def door(port: int) -> Door:
            return stack.enter_context(closing(Door(port)))

        for place, server in enumerate(self.servers):
            opened[f"verify{place}"] = self._verify(door(server.port))
            opened[f"forward{place}"] = _forward(door(server.port))
        for place, host in enumerate(self.hosts):
            opened[f"host{place}"] = _write(door(host.port))
        return opened

    def _verify(self, door: Door) -> Ask:
        asked = {
            "keyspace": "partna",
            "environment": "production",
            "method": "POST",
            "scopes": ["account:write"],
        }
        caller = {"Authorization": f"Bearer {self.manage}"}

        def ask(issued: Issued) -> bool:
            answer = door("POST", "/v1/verify", caller, asked | {"headers": proof(issued)})
            assert answer.status == 200, answer.body
            valid: bool = answer.json["valid"]
            return valid

        return ask


def _forward(door: Door) -> Ask:
    said = {"X-Forwarded-Method": "POST", "X-Forwarded-Uri": "/v4/account"}
    return lambda issued: door("GET", "/authz/forward/partna.production", proof(issued) | said).status == 200


def _write(door: Door) -> Ask:
    return lambda issued: door("POST", "/v4/account", proof(issued)).status == 200


def proof(issued: Issued) -> dict[str, str]:
    """The headers of partna's scheme."""
    return {"x-api-key": issued.credential.token.reveal(), "x-api-user": issued.key.account}


@pytest.fixture(scope="module")
def fleet(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The fleet, running."""
    folder = Folder(tmp_path_factory.mktemp("fleet"), copy_of=template)
    with Keywright(folder.database) as kw, ExitStack() as stack:
        manage = kw.keys.create_management(
            name="ci", scopes=["verify", "keys:read", "accounts:read", "keyspaces:read"]
        )
        servers = [stack.enter_context(Served(folder.database, folder.path)) for _ in range(2)]
        hosts = [stack.enter_context(Host(folder.database, folder.path)) for _ in range(2)]
        token = manage.credential.token.reveal()
        yield Fleet(folder, kw, token, (servers[0], servers[1]), (hosts[0], hosts[1]))


def make(kw: Keywright, account: str = "globex") -> Issued:
    """Make a key of partna's."""
    return kw.keys.create(keyspace="partna", account=account, environment="production", name="CRM")


# --------------------------------------------------------------------------------------------------------- the changes


class Change(NamedTuple):
    """A change that stops what passed before, as a line of the command and as a call of the library."""

    line: tuple[str, ...]
    call: Callable[[Keywright, Issued], object]


CHANGES = {
    "invalidate": Change(("keys", "invalidate", "{id}"), lambda kw, made: kw.keys.invalidate(made.key.id)),
    "delete": Change(("keys", "delete", "{id}", "--yes"), lambda kw, made: kw.keys.delete(made.key.id)),
    "disable": Change(("keys", "disable", "{id}"), lambda kw, made: kw.keys.disable(made.key.id)),
    "edit": Change(
        ("keys", "edit", "{id}", "--access", "read_only"),
        lambda kw, made: kw.keys.edit(made.key.id, access="read_only"),
    ),
    "finish": Change(("keys", "finish", "{id}"), lambda kw, made: kw.keys.finish(made.key.id)),
    "suspend": Change(
        ("accounts", "suspend", "{account}"), lambda kw, made: kw.accounts.suspend(made.key.account)
    ),
}


def prepared(kw: Keywright, change: str, unique: str) -> Issued:
    """A key that passes until the change: for the end of a rotation, whose secret is the old one; an account of its own."""
    kw.accounts.create(unique)
    made = make(kw, unique)
    if change == "finish":
        kw.keys.rotate(made.key.id, grace_seconds=3600)
    return made


def by_command(fleet: Fleet, change: str, made: Issued) -> None:
    """Make the change by a process of its own."""
    line = [word.format(id=made.key.id, account=made.key.account) for word in CHANGES[change].line]
    ran = run(*line, cwd=fleet.folder.path, KEYWRIGHT_DATABASE=fleet.folder.database)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.requirement("X-10")
@pytest.mark.parametrize("change", CHANGES)
def test_the_very_next_request_obeys(fleet: Fleet, change: str) -> None:
    """What every process knew by heart, none lets through once the command has returned."""
    made = prepared(fleet.kw, change, f"next-{change}")
    with ExitStack() as stack:
        doors = fleet.doors(stack)
        for _ in range(2):
            assert {name: ask(made) for name, ask in doors.items()} == dict.fromkeys(doors, True)

        by_command(fleet, change, made)

        assert {name: ask(made) for name, ask in doors.items()} == dict.fromkeys(doors, False)


def test_what_is_let_in_again_is_let_in_at_once(fleet: Fleet) -> None:
    """Enable, and an account's activation, are obeyed by the very next request as well, and so is a new key."""
    fleet.kw.accounts.create("again")
    made = make(fleet.kw, "again")
    with ExitStack() as stack:
        doors = fleet.doors(stack)
        for stop, start in (
            (("keys", "disable"), ("keys", "enable")),
            (("accounts", "suspend"), ("accounts", "activate")),
        ):
            target = made.key.id if stop[0] == "keys" else "again"
            assert all(ask(made) for ask in doors.values())
            assert fleet.folder(*stop, target).code == 0
            assert not any(ask(made) for ask in doors.values())
            assert fleet.folder(*start, target).code == 0
        assert all(ask(made) for ask in doors.values())


# ------------------------------------------------------------------------------------------------------ in tight loops


class Round:
    """One key in the loops: which loops it has passed, and which have been refused since it was changed."""

    def __init__(self, made: Issued) -> None:
        self.made = made
        self.changed = False  # the change has been answered
        self.passed: set[str] = set()
        self.refused: set[str] = set()


class Loops:
    """A thread for every door, asking without a pause. A success that began after a change was answered is kept."""

    def __init__(self, doors: dict[str, Ask], first: Round) -> None:
        self.round = first
        self.late: list[str] = []
        self.asked = 0
        self._doors, self._over, self._news = doors, False, threading.Condition()
        self._broken: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._loop, args=each, daemon=True) for each in doors.items()
        ]
        for thread in self._threads:
            thread.start()

    def until(self, what: str) -> None:
        """Wait until every loop has passed, or was refused, in this round."""
        with self._news:
            done = self._news.wait_for(
                lambda: self._broken or getattr(self.round, what) == set(self._doors), PATIENCE
            )
        assert not self._broken, self._broken
        assert done, f"{what}: only {getattr(self.round, what)}"

    def end(self) -> None:
        """Stop asking."""
        self._over = True
        for thread in self._threads:
            thread.join(PATIENCE)

    def _loop(self, name: str, ask: Ask) -> None:
        try:
            while not self._over:
                current = self.round
                changed = current.changed  # read before the request begins
                passed = ask(current.made)
                with self._news:
                    self.asked += 1
                    if changed and passed:
                        self.late.append(f"{name}: {current.made.key.id}")
                    if changed != passed:
                        (current.passed if passed else current.refused).add(name)
                        self._news.notify_all()
        except BaseException as broken:
            with self._news:
                self._broken.append(broken)
                self._news.notify_all()


@pytest.mark.full("five hundred rounds")
@pytest.mark.requirement("F-28", "X-10")
@pytest.mark.security("R-05", "T-29")
def test_no_success_begins_after_a_change_was_answered(fleet: Fleet) -> None:
    """In rounds of every change, under loops at every door of four processes, nothing late passes, and what is stopped stays so."""
    names = list(CHANGES)
    stopped: dict[str, str] = {}
    with ExitStack() as stack:
        current = Round(prepared(fleet.kw, names[0], "round-0"))
        loops = Loops(fleet.doors(stack), current)
        stack.callback(loops.end)
        for number in range(ROUNDS):
            change = names[number % len(names)]
            loops.until("passed")
            if number % SHELL == SHELL - 1:
                by_command(fleet, change, current.made)
            else:
                CHANGES[change].call(fleet.kw, current.made)
            current.changed = True
            loops.until("refused")
            stopped[current.made.key.id] = change
            upcoming = names[(number + 1) % len(names)]
            loops.round = current = Round(prepared(fleet.kw, upcoming, f"round-{number + 1}"))
        loops.until("passed")
        loops.end()

    assert loops.late == []
    assert loops.asked > 10 * ROUNDS
    states = {"invalidate": "invalidated", "disable": "disabled"}
    for key_id, change in stopped.items():
        if change in states:
            assert fleet.kw.keys.get(key_id).state == states[change]


# -------------------------------------------------------------------------------------- the command's JSON is HTTP's


def test_json_is_the_body_of_the_matching_answer(fleet: Fleet) -> None:
    """What ``--json`` prints of keys, accounts, keyspaces and a verification has the fields and values of the HTTP answer."""
    made = make(fleet.kw)
    caller = {"Authorization": f"Bearer {fleet.manage}"}
    pairs = {
        ("keys", "get", made.key.id): f"/v1/keys/{made.key.id}",
        ("keys", "list", "--account", "initech"): "/v1/keys?account=initech",
        ("accounts", "get", "globex"): "/v1/accounts/globex",
        ("accounts", "list", "--search", "initech"): "/v1/accounts?q=initech",
        ("keyspaces", "get", "partna"): "/v1/keyspaces/partna",
        ("keyspaces", "list"): "/v1/keyspaces",
    }
    with closing(Door(fleet.servers[0].port)) as door:
        for line, path in pairs.items():
            assert fleet.folder(*line, "--json").json == door("GET", path, caller).json, line
        asked = {"keyspace": "partna", "environment": "production", "method": "GET"}
        token = made.credential.token.reveal()
        said = door("POST", "/v1/verify", caller, asked | {"token": token}).json
    line = (
        "keys",
        "verify",
        "--keyspace",
        "partna",
        "--environment",
        "production",
        "--method",
        "GET",
        "--json",
    )
    printed = fleet.folder(*line, given=token).json

    assert printed | {"request_id": ""} == said | {"request_id": ""}


# ----------------------------------------------------------------------------------------- where a secret must not be


#: Everything that any library would log, drivers' statements and their rows too.
LOUD = "import logging, sys; logging.basicConfig(level=10); logging.getLogger('sqlalchemy').setLevel(10); "


class LoudServed(Served):
    """``keywright serve`` at debug level."""

    program = (sys.executable, "-X", "dev", "-c", LOUD + "from keywright.cli import main; sys.exit(main())")


class LoudHost(Host):
    """The example host at debug level."""

    program = (
        *(sys.executable, "-X", "dev", "-c", LOUD + "import uvicorn; uvicorn.main()"),
        *("--log-level", "debug", "--no-access-log", "--app-dir", str(EXAMPLES)),
    )


def traces(secrets: list[str]) -> dict[str, bytes]:
    """What to look for: each secret, its base64 at every offset, and its plain SHA-256, in hex and in bytes."""
    found = {}
    for secret in secrets:
        raw = secret.encode()
        digest = hashlib.sha256(raw)
        found |= {f"{secret} plain": raw, f"{secret} sha256": digest.digest()}
        found[f"{secret} hex"] = digest.hexdigest().encode()
        for offset in range(3):
            whole = b64encode(b"\0" * offset + raw)
            found[f"{secret} base64 {offset}"] = whole[4 if offset else 0 : -4]
    return found


def spellings(issued: Issued) -> list[str]:
    """The secret's own characters, and each spelling of it."""
    given = issued.credential
    pair = [] if given.secret is None else [given.secret.reveal()]
    token = given.token.reveal()
    bare = token[-38:-6] if "_" in token else token.partition(".")[2]
    return [bare, token, *pair]


@pytest.mark.requirement("X-08", "P-05")
@pytest.mark.security("K-05", "T-02")
def test_no_secret_is_in_any_output_or_file(template: Path, tmp_path: Path) -> None:
    """Servers at debug level, after every kind of use and misuse, have printed and stored no secret, base64 or plain digest."""
    folder = Folder(tmp_path, copy_of=template)
    printed = ""
    with Keywright(folder.database) as kw:
        manage = kw.keys.create_management(name="ci", scopes=["verify", "keys:read", "keys:write"])
        issued = [
            kw.keys.create(
                keyspace=space, account="globex", environment="production", name="CRM", access="all"
            )
            for space in ("every", "partna", "atfinity", "fullwhere")
        ]
        issued += [manage, kw.keys.rotate(issued[0].key.id, grace_seconds=60)]
        with ExitStack() as stack:
            server = stack.enter_context(LoudServed(folder.database, tmp_path))
            host = stack.enter_context(LoudHost(folder.database, tmp_path))
            doors = [stack.enter_context(closing(Door(each.port))) for each in (server, host)]
            issued += _use(*doors, manage, issued)
        printed += server.said + host.said
    for made in issued:
        token = made.credential.token.reveal()
        for ran in (
            folder("explain", given=f"Authorization: Bearer “{token}”"),
            folder("keys", "list", "--search", token),
            folder("keys", "verify", "--keyspace", "every", "--environment", "production", given=token),
            folder("doctor"),
        ):
            printed += ran.out + ran.err
    audit = folder("audit", "list", "--limit", "1000", "--json")
    looked_at = {"what was printed": printed.encode(), "the trail": audit.out.encode()}
    looked_at |= {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    assert "sqlalchemy.engine" in printed
    assert len(looked_at) >= 6
    secrets = [text for made in issued for text in spellings(made)]
    wanted = traces(secrets)
    assert [
        (where, what) for where, text in looked_at.items() for what, trace in wanted.items() if trace in text
    ] == []


def _use(door: Door, api: Door, manage: Issued, issued: list[Issued]) -> list[Issued]:
    """Use and misuse credentials in every place where one could be noted down; what was issued on the way."""
    caller = {"Authorization": f"Bearer {manage.credential.token.reveal()}"}
    for made in issued:
        token = made.credential.token.reveal()
        basic = b64encode(f"{made.key.id}:{token}".encode()).decode()
        for headers in (
            {"Authorization": f"Bearer {token}"},
            {"Authorization": f"Basic {basic}"},
            {"x-api-key": token, "x-api-user": "globex"},
            {"x-api-key": token, "x-api-user": "initech"},
            {"X-API-KEY": token, "X-API-SECRET": token},
            {"Api-Key": token},
            {"Authorization": f"Api-Key {token}x"},
            {"Cookie": token, "User-Agent": token, "X-Request-Id": token, token[:20]: token},
        ):
            said = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": f"/things?token={token}"}
            for path in (
                "/authz/forward/every.production",
                "/k/every.production/whoami",
                "/v1/keys",
                f"/{token}",
            ):
                door("GET", path, headers | said)
            door("GET", f"/v1/keys?q={token}", caller)
            door("GET", f"/k/partna.production/whoami?key={token}", headers)
            api("GET", f"/v4/account?key={token}", headers)
            api("GET", "/v4/account", headers)
            asked = {"keyspace": "every", "environment": "production"}
            door("POST", "/v1/verify", caller, asked | {"headers": headers, "url": f"/?k={token}"})
            door("POST", "/v1/verify", caller, asked | {"token": token, "unknown": token})
            door("POST", "/v1/keys", caller, {"name": "", "keyspace": "every", "access": token})
    body = {
        "keyspace": "every",
        "account": "globex",
        "environment": "production",
        "name": "CRM",
        "access": "all",
    }
    answers = [door("POST", "/v1/keys", caller, body)]
    answers.append(door("POST", f"/v1/keys/{answers[0].json['key']['id']}/rotate", caller, {}))
    return [_issued(answer.json, manage) for answer in answers]


def _issued(answer: dict[str, Any], like: Issued) -> Issued:
    """A credential that came over HTTP, in the shape of those that did not."""
    given = {name: credential.Secret(answer["credential"][name]) for name in ("secret", "token")}
    return Issued(
        like.key, type(like.credential)(answer["credential"]["id"], given["secret"], given["token"])
    )
