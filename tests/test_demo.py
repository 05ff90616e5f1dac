"""``keywright demo``: everything that it prints is true, and any client can use what it shows."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import httpx
import pytest
import requests

from keywright import credential
from processes import PATIENCE, Folder, Ran, Running, run, surroundings

#: Each system with its account, a read and a write of the example API.
SYSTEMS = {
    "fullwhere": ("northwind", "/partners/customer", ("PATCH", "/partners/customer")),
    "partna": ("globex", "/v4/account", ("POST", "/v4/account")),
    "atfinity": ("initech", "/cases", ("POST", "/cases")),
    "gallabox": ("umbrella", "/devapi/me", ("POST", "/devapi/messages/whatsapp")),
    "bizmagnets": ("hooli", "/messages", ("POST", "/messages")),
}
#: What another shell sets for an installation of its own, and what must not reach into the demo.
STRAY = {
    "KEYWRIGHT_PUBLIC_URL": "https://keys.example.com",
    "KEYWRIGHT_SECRET": "ab" * 32,
    "KEYWRIGHT_PORT": "1",
}


class Shown(NamedTuple):
    """A curl line that was printed, and the status that was printed over it."""

    status: int
    line: str


class Demo:
    """A demo that runs in a folder of the test's own."""

    def __init__(self, folder: Path, running: Running, port: int) -> None:
        self.folder, self.running, self.asked_for = folder, running, port
        self.text = "".join(running.out)
        self.server, self.host = (
            re.findall(rf"^{name} +(http://\S+)", self.text, re.MULTILINE)[0]
            for name in ("Keywright", "Example API")
        )
        self.database = re.findall(r"^Database +(\S+)$", self.text, re.MULTILINE)[0]
        self.lines = [
            Shown(int(status), line)
            for status, line in re.findall(r"^  (?:.*, )?(\d{3}):\n(curl .*)$", self.text, re.MULTILINE)
        ]

    def command(self, *arguments: str) -> Ran:
        """The command on the demo's own database."""
        folder = Folder(self.folder)
        folder.database = self.database
        return folder(*arguments, KEYWRIGHT_PORT=self.server.rpartition(":")[2])

    def key(self, system: str, *more: str, environment: str = "production") -> dict[str, Any]:
        """Make a key of a system's account by the command."""
        where = ("--keyspace", system, "--account", SYSTEMS[system][0], "--environment", environment)
        access = () if "--access" in more else ("--access", "all")
        made = self.command("keys", "create", "CRM sync", *where, *access, *more, "--json")
        assert made.code == 0, made.err
        issued: dict[str, Any] = made.json
        return issued


def started(folder: Path, port: int, **environment: str) -> Running:
    """Start a demo that keeps what it makes in a folder."""
    running = Running("demo", "--port", str(port), cwd=folder, TMPDIR=str(folder), **environment)
    running.until("Stop with Ctrl-C")
    return running


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo, started where the port that it would take first is taken, by a shell that has settings of its own."""
    folder = tmp_path_factory.mktemp("demo")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started(folder, port, **STRAY) as running:
            yield Demo(folder, running, port)


def curl(line: str) -> tuple[int, str]:
    """Run a printed line as it stands, but for curl's own words about the status: status and body."""
    ran = subprocess.run(
        line + " -sS -w '\\n%{http_code}'",
        shell=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    body, _, status = ran.stdout.rpartition("\n")
    return int(status), body


def mangled(headers: dict[str, str], issued: dict[str, Any]) -> dict[str, str]:
    """The same headers with the secret of a guess whose checksum is right."""
    guess, key_id = "A" * 32, issued["credential"]["id"]
    wrong = {issued["credential"]["token"]: credential.spell_token(key_id, guess)}
    if issued["credential"]["secret"]:
        wrong[issued["credential"]["secret"]] = credential.spell_pair_secret(key_id, guess)
    found = {
        name: re.sub("|".join(map(re.escape, wrong)), lambda m: wrong[m[0]], value)
        for name, value in headers.items()
    }
    assert found != headers
    return found


def ask(demo: Demo, method: str, path: str, headers: dict[str, str]) -> requests.Response:
    """Ask the example API, with requests."""
    return requests.request(method, demo.host + path, headers=headers, timeout=PATIENCE)


# ----------------------------------------------------------------------------------------------------- what it prints


@pytest.mark.requirement("P-07", "P-12", "P-13", "A-14", "A-15", "B-19", "X-22")
def test_every_printed_line_is_true(demo: Demo) -> None:
    """Pasted as printed, each line is answered as it says: the account's data, or 401 after one character was changed."""
    reads = [shown for shown in demo.lines if demo.host in shown.line]
    accounts = []
    for shown in demo.lines:
        status, body = curl(shown.line)
        assert status == shown.status, shown
        if shown in reads and status == 200:
            answer = json.loads(body)
            assert (answer["environment"], answer["access"]) == ("production", "all")
            accounts.append(answer["account"])

    assert [shown.status for shown in reads] == [200, 401] * 7
    assert set(accounts) == {account for account, *_ in SYSTEMS.values()}
    assert demo.text.count("one character changed, 401:\n") == 7


def test_the_portal_opens_without_a_password(demo: Demo) -> None:
    """The line that asks for a link of the portal is answered with one that leads to the account's keys."""
    (line,) = [shown.line for shown in demo.lines if "/v1/portal/sessions" in shown.line]
    _, body = curl(line)
    url = json.loads(body)["url"]
    with requests.Session() as browser:
        came = browser.get(url, timeout=PATIENCE)

    assert url.startswith(f"{demo.server}/portal/")
    assert came.url == f"{demo.server}/console/@northwind/fullwhere/keys"
    assert "admin@northwind.example" in came.text


def test_a_taken_port_is_passed_over(demo: Demo) -> None:
    """Where the port is taken, the next that is free is used, and what is printed names it."""
    ports = [int(url.rpartition(":")[2]) for url in (demo.server, demo.host)]

    assert demo.asked_for < ports[0] < ports[1] < demo.asked_for + 200


def test_it_is_printed_again(demo: Demo) -> None:
    """``demo --print`` prints what the demo that runs has printed, to the letter."""
    assert run("demo", "--print", cwd=demo.folder, TMPDIR=str(demo.folder)).stdout == demo.text


# ------------------------------------------------------------------------------------------------------ what it shows


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_refused_in_each_system(demo: Demo, system: str) -> None:
    """Read-only on the write 403, staging on production 401, a guess with a right checksum 401, another's username 401."""
    _, read, write = SYSTEMS[system]
    full, reading = demo.key(system), demo.key(system, "--access", "read_only")
    for shown in full["presentations"]:
        assert ask(demo, "GET", read, shown["headers"]).status_code == 200
        assert ask(demo, *write, shown["headers"]).status_code == 200
        assert ask(demo, "GET", read, mangled(shown["headers"], full)).status_code == 401
        if "x-api-user" in shown["headers"]:
            stranger = shown["headers"] | {"x-api-user": "initech"}
            assert ask(demo, "GET", read, stranger).status_code == 401
    for shown in reading["presentations"]:
        assert ask(demo, "GET", read, shown["headers"]).status_code == 200
        assert ask(demo, *write, shown["headers"]).status_code == 403
    for shown in demo.key(system, environment="staging")["presentations"]:
        assert ask(demo, "GET", read, shown["headers"]).status_code == 401
    assert ask(demo, "GET", read, {}).status_code == 401


def test_the_systems_do_not_open_each_other(demo: Demo) -> None:
    """A key of one system opens no other, in whatever headers."""
    issued = {system: demo.key(system) for system in SYSTEMS}
    for system, made in issued.items():
        for shown in made["presentations"]:
            opened = [other for other in SYSTEMS if ask(demo, "GET", SYSTEMS[other][1], shown["headers"]).ok]
            assert opened == [system]


# ------------------------------------------------------------------------------------------------------- any client


@pytest.mark.requirement("P-07", "P-08", "P-09", "A-14", "A-15", "A-21", "X-02")
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_snippets_run_as_they_are_shown(demo: Demo, tmp_path: Path, system: str) -> None:
    """Each scheme's curl, Python and Node.js, run verbatim, print who is calling; with the API's address, its data."""
    account, read, _ = SYSTEMS[system]
    issued = demo.key(system)
    whoami = f"{demo.server}/k/{system}.production/whoami"
    programs: list[tuple[str, list[str]]] = []
    for place, shown in enumerate(issued["presentations"]):
        for url, what in ((whoami, "whoami"), (demo.host + read, "read")):
            file = tmp_path / f"{place}-{what}"
            texts = [shown[language].replace(whoami, url) for language in ("curl", "python", "node")]
            assert what == "read" or texts == [shown["curl"], shown["python"], shown["node"]]
            file.with_suffix(".py").write_text(texts[1])
            file.with_suffix(".mjs").write_text(texts[2])
            programs += [
                (what, ["sh", "-c", texts[0]]),
                (what, [sys.executable, f"{file}.py"]),
                (what, ["node", f"{file}.mjs"]),
            ]
    running = [
        (
            what,
            subprocess.Popen(
                program, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ),
        )
        for what, program in programs
    ]
    for what, process in running:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert issued["key"]["id"] in out
        assert account in out
        if what == "whoami":
            assert "CRM sync" in out
            assert "production" in out


@pytest.mark.requirement("A-21")
def test_a_key_says_who_it_is(demo: Demo) -> None:
    """A who-am-I read with nothing but the key returns account, id, name, environment and access."""
    made = demo.key("atfinity")
    for shown in made["presentations"]:
        answer = requests.get(
            f"{demo.server}/k/atfinity.production/whoami", headers=shown["headers"], timeout=9
        ).json()
        flat = json.dumps(answer)
        for value in ("initech", made["key"]["id"], "CRM sync", "production", '"all"'):
            assert value in flat


@pytest.mark.requirement("B-19")
@pytest.mark.parametrize("client", ["httpx", "aiohttp", "requests"])
def test_any_client_passes_with_static_headers(demo: Demo, client: str) -> None:
    """The first request of a client that knows nothing of Keywright passes, in every scheme of every system."""

    async def with_aiohttp(url: str, headers: dict[str, str]) -> Any:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            assert answer.status == 200
            return await answer.json()

    for system, (account, read, _) in SYSTEMS.items():
        for shown in demo.key(system)["presentations"]:
            url, headers = demo.host + read, shown["headers"]
            if client == "aiohttp":
                body = asyncio.run(with_aiohttp(url, headers))
            else:
                answer = (httpx if client == "httpx" else requests).get(
                    url, headers=headers, timeout=PATIENCE
                )
                assert answer.status_code == 200
                body = answer.json()
            assert body["account"] == account


# --------------------------------------------------------------------------------------------------------- it is gone


@pytest.mark.security("K-05")
def test_its_files_hold_no_secret_but_what_it_printed(demo: Demo) -> None:
    """Of what was issued, nothing stands in the demo's databases; what it printed once is kept for its own user alone."""
    directory = Path(demo.database.removeprefix("sqlite:///")).parent
    made = demo.key("partna")
    secrets = [made["credential"]["token"][-38:-6], *re.findall(r"(?:_|sec_)(\w{32})\w{6}(?=')", demo.text)]

    assert len(secrets) > 5
    assert directory.stat().st_mode & 0o077 == 0
    for file in (file for file in directory.rglob("*") if file.is_file()):
        held = file.read_bytes()
        found = [secret for secret in secrets if secret.encode() in held]
        assert not found or file.name == "printed.txt"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_throws_everything_away(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end it with 0, without a word on standard error, and its directory is gone."""
    with started(tmp_path, 20_000) as running:
        assert len(list(tmp_path.glob("keywright-demo-*"))) == 1
        assert running.stop(how) == 0

    assert "".join(running.err) == ""
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_demo_left_is_thrown_away_by_the_next(tmp_path: Path) -> None:
    """``kill -9`` leaves a directory; it is not printed again, and the next demo removes it."""
    with started(tmp_path, 20_000) as running:
        running.stop(signal.SIGKILL)
    (left,) = tmp_path.iterdir()

    again = run("demo", "--print", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert (again.returncode, again.stderr) == (
        3,
        "keywright: no demo is running; start one with keywright demo\n",
    )
    with started(tmp_path, 20_000):
        assert not left.exists()
