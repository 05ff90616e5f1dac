"""The command, in this process or as one of its own: run to its end, or kept running and read while it runs."""

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, Self
from unittest import mock

from keywright import cli

COMMAND = (str(Path(sys.executable).with_name("keywright")),)
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
#: Longer than anything takes on a busy machine; reached only where something hangs.
PATIENCE = 60.0


def surroundings(**over: str) -> dict[str, str]:
    """This process's environment, without what it sets for a Keywright of its own; a server that is stopped stops at once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYWRIGHT_")}
    return kept | {"PYTHONUNBUFFERED": "1", "KEYWRIGHT_DRAIN_SECONDS": "0"} | over


class Ran(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


class Folder:
    """A folder with an installation, or with none yet, and the command in it, in this process."""

    def __init__(self, path: Path, *, copy_of: Path | None = None) -> None:
        self.path = path
        for file in copy_of.glob("test*") if copy_of else ():
            (path / file.name).write_bytes(file.read_bytes())
        self.database = f"sqlite:///{path / ('test.db' if copy_of else 'keywright.db')}"

    def __call__(self, *arguments: str, given: str = "", **environment: str) -> Ran:
        """Run the command to its end."""
        around = surroundings(KEYWRIGHT_DATABASE=self.database) | environment
        out, err = io.StringIO(), io.StringIO()
        stdin = mock.patch("sys.stdin", io.StringIO(given))
        environ = mock.patch.dict(os.environ, around, clear=True)
        with chdir(self.path), stdin, environ, redirect_stdout(out), redirect_stderr(err):
            code = cli.main(arguments)
        return Ran(code, out.getvalue(), err.getvalue())


def run(*arguments: str, cwd: Path, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        input=given,
        env=surroundings(**environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Running:
    """A process that runs, the command unless another is named: what it has printed, and how it ends.

    It is ended when the block is.
    """

    program: tuple[str, ...] = COMMAND
    handed: tuple[int, ...] = ()

    def __init__(self, *arguments: str, cwd: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*self.program, *arguments],
            cwd=cwd,
            env=surroundings(**environment),
            pass_fds=self.handed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._more = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for a line of standard output that the pattern is found in."""
        with self._more:
            found = self._more.wait_for(lambda: self._search(pattern), PATIENCE)
        assert found, f"{pattern!r} was never printed\n{self.said}"
        return found

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, where it still runs, and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end, having read all."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    @property
    def said(self) -> str:
        """Everything that was printed."""
        return "".join(self.out) + "".join(self.err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read(self, stream: Iterable[str], lines: list[str]) -> None:
        for line in stream:
            with self._more:
                lines.append(line)
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def _search(self, pattern: str) -> re.Match[str] | None:
        found = re.search(pattern, "".join(self.out))
        if found is None and self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode}\n{self.said}")
        return found


class Served(Running):
    """``keywright serve`` on a free port unless one is named, from the moment on which it listens."""

    def __init__(self, database: str, cwd: Path, *, port: int = 0, **environment: str) -> None:
        super().__init__("serve", "--port", str(port), "--database", database, cwd=cwd, **environment)
        self.url = self.until(r"listening\s+(http://[^\s,]+).*\n")[1]
        self.port = int(self.url.rpartition(":")[2])


class Host(Running):
    """The example host as a process, on a port that is listened on before it starts: a request waits for it."""

    program = (
        sys.executable,
        "-m",
        "uvicorn",
        "--no-access-log",
        "--timeout-keep-alive",
        "75",
        "--app-dir",
        str(EXAMPLES),
    )

    def __init__(self, database: str, cwd: Path, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=512) as taken:
            taken.set_inheritable(True)
            self.port: int = taken.getsockname()[1]
            self.handed = (taken.fileno(),)
            arguments = ("--factory", "host:from_environment", "--fd", str(taken.fileno()))
            super().__init__(*arguments, cwd=cwd, KEYWRIGHT_DATABASE=database, **environment)


class Door:
    """A connection that is kept to one server, and one kind of request over it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def __call__(self, method: str, path: str, headers: dict[str, str], body: object = None) -> "Answered":
        """Ask, and read the whole answer."""
        sent = None if body is None else json.dumps(body).encode()
        typed = {} if sent is None else {"Content-Type": "application/json"}
        self._connection.request(method, path, sent, headers | typed)
        answer = self._connection.getresponse()
        return Answered(answer.status, dict(answer.getheaders()), answer.read())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Answered(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body, as JSON."""
        return json.loads(self.body)


def until_refused(port: int) -> None:
    """Wait until nobody listens on a port of this machine any more."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        except OSError:
            return
        assert time.monotonic() < deadline, f"port {port} still answers"


def answers(port: int) -> bool:
    """Whether anything listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
