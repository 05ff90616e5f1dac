"""Connections, transactions and the writers' lock; driver errors become ours here and nowhere else.

Whatever the database, writers of keys queue: a verb that has read something in its transaction can rest on it, and the
numbers of changes are given in the order in which they become visible, so that nobody who reads them misses one.

On SQLite an installation is three files beside each other, ``k.db``, ``k.spend.db`` and ``k.usage.db``, in WAL mode.
Every writer of any of them, in any process, first takes the advisory lock on ``k.lock``. That makes writers queue instead
of spinning on ``SQLITE_BUSY``, and because checkpoints run under it too (automatic ones are off), it keeps away the
WAL-reset fault of SQLite before 3.51.3, in which a checkpoint that races a writer could lose a page.

On PostgreSQL it is one database. Writers of keys queue on an advisory lock that ends with their transaction; those of
counts and of spent figures do not, and take the locks of their own rows in a fixed order.
"""

import fcntl
import hashlib
import os
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import get_ident
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.pool import QueuePool

from keywright.errors import CannotStart, Unavailable
from keywright.store.counter import ChangeCounter

#: A write-ahead log above this is folded back into its file after a commit, in bytes; the commit after that cuts it.
CHECKPOINT_AT: Final = 4 * 1024 * 1024
BUSY_TIMEOUT: Final = 5_000  # milliseconds
SQLITE_VERSION: Final = sqlite3.sqlite_version_info

#: PostgreSQL's advisory lock that writers of keys, and migrations, queue on: ``kywr``, and which.
_WRITERS: Final = "SELECT pg_advisory_xact_lock(1803122546, 1)"
#: How long a statement may take on PostgreSQL, or wait for a lock, in seconds. Somebody waits for what is spent.
_PATIENCE: Final = {"keys": 30.0, "spend": 1.0, "usage": 30.0}
_POOLED: Final = {"keys": (5, 15), "spend": (1, 2), "usage": (1, 4)}
_PATIENCE_FOR_POOL: Final = 5.0  # seconds

#: What tells a database from one of the same name that was there before.
_OWN_OID: Final = "SELECT oid FROM pg_database WHERE datname = current_database()"

_INHERITED: Final[list[object]] = []

_SYNCHRONOUS: Final = {"keys": "FULL", "spend": "FULL", "usage": "NORMAL"}


class Reader:
    """A bare read-only connection to a SQLite file, which is closed when its holder goes, a thread for example.

    One that a fork brought along is neither closed nor collected: SQLite's locks are its parent's.
    """

    __slots__ = ("__weakref__", "_pid", "connection")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._pid = os.getpid()

    def close(self) -> None:
        """Close it, if it is this process's own."""
        if self._pid == os.getpid():
            self.connection.close()
        else:
            _INHERITED.append(self.connection)

    def __del__(self) -> None:
        self.close()


class WriterLock:
    """The advisory lock that all writers of an installation queue on, across threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread_lock = threading.Lock()
        self._descriptor: int | None = None
        self._pid = 0
        self._waiting: set[int] = set()
        #: how often it was taken by this process, and how long was waited for it, in seconds
        self.taken, self.waited = 0, 0.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. Raises ``Unavailable`` where the lock file cannot be opened."""
        began = monotonic()
        self._waiting.add(get_ident())
        with self._thread_lock:
            try:
                descriptor = self._open()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            finally:
                self._waiting.discard(get_ident())
            self.taken, self.waited = self.taken + 1, self.waited + monotonic() - began
            try:
                yield
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _open(self) -> int:
        # A descriptor inherited over fork shares its lock with the parent's: each process opens its own.
        if self._descriptor is None or self._pid != os.getpid():
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as trouble:
                raise Unavailable(
                    f"the lock file {self._path} cannot be opened: {trouble.strerror}"
                ) from None
            self._pid = os.getpid()
        return self._descriptor

    @property
    def waiting(self) -> int:
        """How many threads of this process wait for it."""
        return len(self._waiting)

    def pause(self) -> None:
        """Wait until no thread of this process writes, and let none begin until ``resume``."""
        self._thread_lock.acquire()

    def resume(self) -> None:
        """Let writers go on; in a forked child too, whose copy of the lock is held like the parent's."""
        self._thread_lock.release()

    def close(self) -> None:
        """Let go of the lock file."""
        if self._descriptor is not None and self._pid == os.getpid():
            os.close(self._descriptor)
        self._descriptor = None


class Database:
    """Where an installation's tables are. ``read`` and ``write`` are the only ways to a connection."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            parsed = make_url(url)
        except (exc.ArgumentError, ValueError):
            raise CannotStart(
                "a database is sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
            ) from None
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._engines: dict[str, Engine] = {}
        self._pid = os.getpid()
        self._opening = threading.Lock()
        self._counter: ChangeCounter | None = None
        #: how often each of the three did not answer
        self.errors: Counter[str] = Counter()
        if self.is_sqlite:
            if not parsed.database or parsed.database == ":memory:":
                raise CannotStart(
                    "an installation needs a file: sqlite:///keywright.db, not a database in memory"
                )
            self.path = Path(parsed.database).absolute()
            self._lock = WriterLock(self.path.with_name(f"{self._stem}.lock"))
        elif parsed.get_backend_name() == "postgresql":
            #: For psycopg, which understands all that libpq does.
            self.conninfo = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        else:
            raise CannotStart("a database is sqlite:///FILE or postgresql://…")

    @property
    def _stem(self) -> str:
        return self.path.name.removesuffix(".db")

    @property
    def lock_file(self) -> Path:
        """The file that SQLite's writers queue on."""
        return self.path.with_name(f"{self._stem}.lock")

    @property
    def secret_file(self) -> Path:
        """Where the installation's secret lies beside a SQLite database."""
        return self.path.with_name(f"{self.path.name}.secret")

    def slots_directory(self) -> Path:
        """Where the workers of this machine that use this database keep their slot files, unless it is set."""
        if self.is_sqlite:
            return self.path.with_name(f"{self._stem}.slots")
        with self.read() as connection:
            oid = connection.exec_driver_sql(_OWN_OID).scalar_one()
        parsed = make_url(self.url)
        which = f"{parsed.host}:{parsed.port}/{parsed.database}/{parsed.query}/{oid}"
        named = hashlib.sha256(which.encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"keywright-{os.geteuid()}" / named

    def file(self, which: str) -> Path:
        """The SQLite file of ``keys``, ``spend`` or ``usage``."""
        return self.path if which == "keys" else self.path.with_name(f"{self._stem}.{which}.db")

    def _uri(self, which: str, mode: str) -> str:
        return f"file:{quote(str(self.file(which)))}?mode={mode}"

    def create(self, which: str) -> None:
        """Make an empty file to be migrated, where there is none. Raises ``Unavailable``."""
        if self.is_sqlite:
            try:
                self.file(which).touch()
            except OSError as trouble:
                raise Unavailable(f"{self.file(which)} cannot be made: {trouble.strerror}") from None

    def exists(self) -> bool:
        """Whether there is a database already. PostgreSQL's always is: it was named."""
        return not self.is_sqlite or self.path.exists()

    @contextmanager
    def read(self, which: str = "keys") -> Iterator[Connection]:
        """A connection to read on, in one snapshot."""
        with self._translated(which), self._engine(which).connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")  # what closes the connection ends it
            else:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection

    @contextmanager
    def write(self, which: str = "keys", *, lasting: bool = False) -> Iterator[Connection]:
        """A transaction. It commits when the block ends, and is as if it never was when the block raises.

        On SQLite a commit to the usage file may be lost with the machine's power, unless it is to be ``lasting``: where
        somebody is told that it is done, or what it was made from is removed.
        """
        with self._writing(which) as connection:
            yield connection
        if lasting:
            self._settle(which)

    @contextmanager
    def _writing(self, which: str) -> Iterator[Connection]:
        if not self.is_sqlite:
            with self._translated(which), self._engine(which).begin() as connection:
                self._bound(which, connection)
                if which == "keys":
                    connection.exec_driver_sql(_WRITERS)
                yield connection
            return
        with self._translated(which), self._lock.held(), self._engine(which).connect() as connection:
            if "wal" not in connection.info:
                # Here and not on connecting: a file that was opened only to find that it is not ours stays as it is.
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                connection.info["wal"] = True
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            self._commit(which, connection)
            self._checkpoint(which, connection)

    @staticmethod
    def _bound(which: str, connection: Connection) -> None:
        """Bound the transaction itself, where a pooler stands between and a session cannot be."""
        driver: Any = connection.connection.driver_connection
        if driver.pooled:
            from keywright.store import postgres  # noqa: PLC0415  # an extra

            connection.exec_driver_sql(postgres.for_this_transaction(_PATIENCE[which]))

    @contextmanager
    def watch(self) -> Iterator[Connection]:
        """A connection on which each statement sees what has been committed by then. On PostgreSQL."""
        with translated(), self._engine("keys").connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def _translated(self, which: str) -> Iterator[None]:
        try:
            with translated():
                yield
        except Unavailable:
            self.errors[which] += 1
            raise

    @property
    def writers_waiting(self) -> int:
        """How many threads of this process queue for SQLite's one lock."""
        return self._lock.waiting if self.is_sqlite else 0

    @property
    def writes(self) -> int:
        """How often this process has taken that lock."""
        return self._lock.taken if self.is_sqlite else 0

    @property
    def waited(self) -> float:
        """How long it has queued for it, in seconds."""
        return self._lock.waited if self.is_sqlite else 0.0

    @contextmanager
    def migrating(self, which: str) -> Iterator[Connection]:
        """A transaction to change a schema in: one at a time, and it may take as long as it takes."""
        if self.is_sqlite:
            with self.write(which) as connection:
                yield connection
            return
        with translated(), self._engine("keys").begin() as connection:
            bounded: Any = connection.connection.driver_connection
            patience, bounded.patience = bounded.patience, None
            try:
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                connection.exec_driver_sql(_WRITERS)
                yield connection
            finally:
                bounded.patience = patience

    def _commit(self, which: str, connection: Connection) -> None:
        if which != "keys":
            connection.exec_driver_sql("COMMIT")
            return
        self.counter.begin()
        try:
            connection.exec_driver_sql("COMMIT")
        finally:
            self.counter.end()

    @property
    def counter(self) -> ChangeCounter:
        """The number that moves with every commit to the keys file."""
        if self._counter is None:
            self._counter = ChangeCounter(self.lock_file)
        return self._counter

    def checkpoint(self) -> None:
        """Fold every write-ahead log back into its file."""
        if not self.is_sqlite:
            return
        with translated(), self._lock.held():
            for which in _SYNCHRONOUS:
                with self._engine(which).connect() as connection:
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def _settle(self, which: str) -> None:
        """Let what was committed outlive the machine. The lock is free meanwhile: no other writer waits for the disk."""
        if not self.is_sqlite:
            return
        try:
            with self._log(which).open("rb") as file:
                os.fdatasync(file.fileno())
        except FileNotFoundError:
            return  # folded back, which is durable
        except OSError as trouble:
            self.errors[which] += 1
            raise Unavailable(f"the store does not answer: {trouble.strerror}") from trouble

    def _log(self, which: str) -> Path:
        return self.file(which).with_name(f"{self.file(which).name}-wal")

    def _checkpoint(self, which: str, connection: Connection) -> None:
        try:
            if self._log(which).stat().st_size > CHECKPOINT_AT:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
        except (OSError, exc.DBAPIError):
            # The commit stands; a log that could not be folded now is folded after another commit.
            return

    def reader(self, which: str, timeout: float = BUSY_TIMEOUT / 1000) -> Reader:
        """A bare read-only connection to a SQLite file, for look-ups that cannot afford more."""
        uri = self._uri(which, "ro")
        return Reader(
            sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout, check_same_thread=False)
        )

    def before_fork(self) -> None:
        """Wait for this process's writers and close idle connections, so that a child inherits neither lock nor file.

        SQLite's own locks belong to a process: a child that went on with the parent's files would hold none.
        """
        if self.is_sqlite:
            self._lock.pause()
        for engine in self._engines.values():
            engine.dispose()

    def after_fork(self) -> None:
        """Go on, in the parent and in the child."""
        if self.is_sqlite:
            self._lock.resume()

    def close(self) -> None:
        """Close every connection."""
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()
        if self._counter is not None:
            self._counter.close()
            self._counter = None
        if self.is_sqlite:
            self._lock.close()

    def _engine(self, which: str) -> Engine:
        if self._pid != os.getpid():
            # After a fork the parent's connections are not ours to use or to close, nor to let be collected.
            _INHERITED.append(self._engines)
            self._engines, self._pid = {}, os.getpid()
        engine = self._engines.get(which)
        if engine is None:
            with self._opening:
                engine = self._engines.get(which) or self._open(which)
                self._engines[which] = engine
        return engine

    def _open(self, which: str) -> Engine:
        if not self.is_sqlite:
            return self._open_postgres(which)
        uri = self._uri(
            which, "rw"
        )  # a file that has gone is not made anew: beside its log that would destroy both
        engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(
                uri, uri=True, timeout=BUSY_TIMEOUT / 1000, check_same_thread=False, isolation_level=None
            ),
            poolclass=QueuePool,
            pool_size=4,
            max_overflow=20,
        )
        level = _SYNCHRONOUS[which]

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, _record: object) -> None:
            for pragma in (
                f"synchronous={level}",
                "wal_autocheckpoint=0",
                f"journal_size_limit={CHECKPOINT_AT // 4}",
                "foreign_keys=ON",
            ):
                connection.execute(f"PRAGMA {pragma}")

        return engine

    def _open_postgres(self, which: str) -> Engine:
        try:
            from keywright.store import postgres  # noqa: PLC0415  # an extra
        except ImportError:
            raise CannotStart("PostgreSQL needs psycopg: pip install 'keywright[postgres]'") from None
        wrong = postgres.what_is_wrong(self.conninfo)
        if wrong:
            raise CannotStart(f"the address of the database cannot be read: {wrong}")
        size, more = _POOLED[which]
        return create_engine(
            "postgresql+psycopg://",
            creator=partial(postgres.for_transactions, self.conninfo, _PATIENCE[which]),
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=more,
            pool_timeout=_PATIENCE_FOR_POOL,
            pool_pre_ping=True,
            use_native_hstore=False,
        )


@contextmanager
def translated() -> Iterator[None]:
    """Turn a driver's trouble into ``Unavailable``. Broken constraints pass: they are answers, not trouble."""
    try:
        yield
    except (exc.IntegrityError, exc.DataError, exc.ProgrammingError):
        raise
    except (exc.DBAPIError, exc.TimeoutError, sqlite3.OperationalError) as trouble:
        said = " ".join(str(getattr(trouble, "orig", None) or trouble).split())
        raise Unavailable(f"the store does not answer: {said[:300]}") from trouble
