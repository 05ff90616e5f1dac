"""``keywright serve``: what it prints, when it refuses to start, and how it ends."""

import ctypes
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from processes import COMMAND, PATIENCE, Door, Folder, Running, Served, run, surroundings, until_refused

KEY = ("--account", "globex", "--environment", "production", "--access", "all")


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Folder:
    """A folder with every keyspace and the cast."""
    return Folder(tmp_path, copy_of=template)


def test_it_makes_a_database_and_says_what_it_is(tmp_path: Path) -> None:
    """In an empty folder it prints database, secret file, schema and keys, and how to make the first management key."""
    with Served("sqlite:///k.db", tmp_path) as served:
        served.until("--database sqlite:///k.db\n")
        assert re.search(r"^database   sqlite:///k.db$", served.said, re.MULTILINE)
        assert f"secret     {tmp_path}/k.db.secret\n" in served.said
        assert re.search(r"^schema     \d{4}$", served.said, re.MULTILINE)
        assert "keys       0 keys, 0 expiring\n" in served.said
        made = re.search(r"^  (keywright management-keys create .*)$", served.said, re.MULTILINE)
        assert Door(served.port)("GET", "/livez", {}).status == 200

    assert made is not None
    assert run(*made[1].split()[1:], cwd=tmp_path).returncode == 0


@pytest.mark.security("A-02")
def test_a_first_start_prints_the_link_that_makes_the_first_operator(tmp_path: Path) -> None:
    """Whoever follows it chooses a password and runs the installation; it works once, and no later start prints one."""
    with Served("sqlite:///k.db", tmp_path) as served:
        link = served.until(r"  (http://\S+/console/link#(\S+))\n")
        assert link[1].startswith(served.url)
        chosen = {"token": link[2], "email": "op@example.com", "password": "four words beside gravel"}
        door = Door(served.port)

        entered = door("POST", "/v1/session/follow", {}, chosen)
        again = door("POST", "/v1/session/follow", {}, chosen)

    assert (entered.status, again.status) == (201, 404)
    with Served("sqlite:///k.db", tmp_path) as served:
        served.until("--database sqlite:///k.db\n")
    assert "/console/link#" not in served.said
    assert "operator" in run("people", "list", "--database", "sqlite:///k.db", cwd=tmp_path).stdout


def test_it_counts_keys_and_those_that_expire(folder: Folder) -> None:
    """Keys are counted without management keys, and the line about the first management key is gone once there is one."""
    for expires in ("never", "90d", "13d"):
        folder("keys", "create", "CRM", "--keyspace", "every", *KEY, "--expires", expires)
    folder("management-keys", "create", "ci", "--scope", "verify")

    with Served(folder.database, folder.path) as served:
        Door(served.port)("GET", "/livez", {})

    assert "3 keys, 1 expiring" in served.said
    assert "management-keys create" not in served.said


def test_the_curl_line_of_a_first_key_works(tmp_path: Path) -> None:
    """The line that ends ``keys create`` is answered with the key's own record, as it stands."""
    with Served("sqlite:///keywright.db", tmp_path) as served:
        made = run("keys", "create", "CRM sync", cwd=tmp_path, KEYWRIGHT_PORT=str(served.port))
        line = made.stdout.splitlines()[-1]
        answered = subprocess.run(
            line.replace("curl", "curl -sS", 1), shell=True, capture_output=True, text=True, check=True
        )

    assert line.startswith("curl ")
    assert '"name":"CRM sync"' in answered.stdout.replace(": ", ":")


# --------------------------------------------------------------------------------------------------- it does not start


def unwritable() -> None:
    """Take from a process what lets root write where nobody may."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def missing_secret(folder: Path) -> None:
    """Take the installation's secret away."""
    (folder / "test.db.secret").unlink()


def another_secret(folder: Path) -> None:
    """Put another installation's secret in its place."""
    (folder / "test.db.secret").write_text("ab" * 32)


def newer_schema(folder: Path) -> None:
    """Make it a database of a version to come."""
    with sqlite3.connect(folder / "test.db") as connection:
        connection.execute("UPDATE schema_keys SET version_num = '9999'")
    connection.close()


def read_only(folder: Path) -> None:
    """Let nobody write in the folder, nor to what is in it."""
    for file in folder.iterdir():
        file.chmod(0o400)
    folder.chmod(0o500)


def no_database(folder: Path) -> None:
    """Put something else where the database was."""
    (folder / "test.db").write_text("no database at all, " * 200)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (missing_secret, "test.db.secret is missing"),
        (another_secret, "secret"),
        (newer_schema, "newer Keywright"),
        (read_only, "test.db"),
        (no_database, "not a Keywright database"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_an_installation_that_cannot_be_opened_is_one_line(
    folder: Folder, harm: Callable[[Path], None], said: str
) -> None:
    """Nothing listens, the code is 3, nothing is on standard output, and one line says what is wrong."""
    harm(folder.path)
    before = {file.name: file.read_bytes() for file in folder.path.iterdir() if file.name == "test.db"}

    ran = subprocess.run(
        [*COMMAND, "serve", "--port", "0", "--database", folder.database],
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=unwritable,
        check=False,
    )
    folder.path.chmod(0o700)

    assert (ran.returncode, ran.stdout) == (3, "")
    assert len(ran.stderr.splitlines()) == 1
    assert said in ran.stderr
    assert {name: (folder.path / name).read_bytes() for name in before} == before


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """Where no database can be made, one line says where, and nothing is left."""
    tmp_path.chmod(0o500)
    ran = subprocess.run(
        [*COMMAND, "serve", "--port", "0"],
        cwd=tmp_path,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=unwritable,
        check=False,
    )
    tmp_path.chmod(0o700)

    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (3, "", 1)
    assert f"the directory {tmp_path} cannot be written to" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    """A second server on a port is refused before it makes or migrates anything."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run("serve", "--port", str(port), cwd=tmp_path)

    assert ran.returncode == 3
    assert ran.stderr == (
        f"keywright: 127.0.0.1 port {port} cannot be listened on: address already in use; "
        "choose another with --port, or 0 for any\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_strangers_are_not_let_in_by_accident(tmp_path: Path, host: str) -> None:
    """An address that is reached from outside is refused until somebody says how clients reach it."""
    ran = run("serve", "--port", "0", "--host", host, cwd=tmp_path)

    assert (ran.returncode, len(ran.stderr.splitlines())) == (3, 1)
    assert "--public-url" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_with_a_public_url_it_listens_for_others(tmp_path: Path) -> None:
    """With a public address it binds where it is told; over plain HTTP only the health doors then answer."""
    flags = ("serve", "--port", "0", "--host", "0.0.0.0", "--public-url", "https://keys.example.com")
    with Running(*flags, cwd=tmp_path) as served:
        listening = served.until(r"listening  http://0\.0\.0\.0:(\d+), as https://keys\.example\.com\n")
        ask = Door(int(listening[1]))
        assert ask("GET", "/livez", {}).status == 200
        assert ask("GET", "/k/default.production/whoami", {}).json["code"] == "https_required"


# ---------------------------------------------------------------------------------------------------------- it ends


class Begun:
    """A verification that is begun: the server has its head, has said to go on, and waits for its body."""

    def __init__(self, folder: Folder, port: int) -> None:
        where = ("--keyspace", "every", *KEY)
        self.key = folder("keys", "create", "CRM", *where, "--json").json
        manage = folder("management-keys", "create", "ci", "--scope", "verify", "--quiet").out.strip()
        asked = {"keyspace": "every", "environment": "production", "method": "GET"}
        self._body = json.dumps(asked | {"token": self.key["credential"]["token"]}).encode()
        head = (
            "POST /v1/verify HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {manage}",
            "Expect: 100-continue",
        )
        kind = ("Content-Type: application/json", f"Content-Length: {len(self._body)}", "", "")
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.sendall("\r\n".join((*head, *kind)).encode())
        assert self._socket.recv(100).startswith(b"HTTP/1.1 100 ")

    def finish(self) -> bytes:
        """Send the body and read the answer."""
        self._socket.sendall(self._body)
        return self._socket.makefile("rb").read()

    def close(self) -> None:
        """Go away."""
        self._socket.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_what_was_begun_is_answered_at_the_end(folder: Folder, how: signal.Signals) -> None:
    """A request that was begun before the signal gets its answer; then the code is 0 and the counts are written."""
    with Served(folder.database, folder.path) as served, closing(Begun(folder, served.port)) as begun:
        served.process.send_signal(how)
        until_refused(served.port)
        answer = begun.finish()
        code = served.ended()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"valid":true' in answer
    assert (code, "".join(served.err)) == (0, "")
    assert folder("keys", "get", begun.key["key"]["id"], "--json").json["last_used_at"] is not None


def test_a_second_signal_does_not_wait(folder: Folder) -> None:
    """Whoever stops it twice does not wait for a request that never ends, and still sees no traceback."""
    with Served(folder.database, folder.path) as served, closing(Begun(folder, served.port)):
        served.process.send_signal(signal.SIGINT)
        until_refused(served.port)
        served.process.send_signal(signal.SIGINT)
        code = served.ended()

    assert (code, "".join(served.err)) == (0, "")
