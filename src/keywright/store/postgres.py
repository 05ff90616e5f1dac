"""Connections to PostgreSQL on which nothing waits for ever, in both colours.

The server's own time-outs are of no use where the network is cut: so the client's end waits no longer than the
connection's patience either, and gives the connection up. Imported only where there is a PostgreSQL: psycopg is an extra.
"""

from typing import Any, Final, TypeVar

from psycopg import AsyncConnection, Connection, OperationalError, ProgrammingError
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumperUnknown

T = TypeVar("T")

CONNECT: Final = 5  # seconds
_INTERVAL: Final = 0.1  # seconds between looks at whether somebody wants to interrupt


class Patient(Connection[Any]):
    """A connection that is given up when an answer takes longer than its patience, in seconds; ``None`` waits."""

    patience: float | None = None
    #: Whether a pooler stands between: then nothing may be left in the session, which is another's at the next turn.
    pooled = False

    def wait(self, gen: PQGen[T], interval: float = _INTERVAL, timeout: float | None = None) -> T:  # noqa: D102
        try:
            return super().wait(gen, interval, timeout or self.patience)
        except OperationalError:
            _give_up(self)
            raise


class AsyncPatient(AsyncConnection[Any]):
    """``Patient``, for an event loop."""

    patience: float | None = None
    pooled = False

    async def wait(  # noqa: D102
        self,
        gen: PQGen[T],
        interval: float = _INTERVAL,
        timeout: float | None = None,  # noqa: ASYNC109  # psycopg's
    ) -> T:
        try:
            return await super().wait(gen, interval, timeout or self.patience)
        except OperationalError:
            _give_up(self)
            raise


class _Text(StrDumperUnknown):
    """PostgreSQL keeps no NUL, and no text of ours holds one: what is asked for with one is not found, as on SQLite."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)


def what_is_wrong(conninfo: str) -> str:
    """Why libpq cannot read an address, without the address; nothing where it can."""
    try:
        conninfo_to_dict(conninfo)
    except ProgrammingError as wrong:
        return str(wrong).partition(" in URI:")[0].partition(": ")[0]
    return ""


def for_transactions(conninfo: str, patience: float) -> Patient:
    """A connection that begins a transaction with its first statement, as SQLAlchemy wants it."""
    made = connect(conninfo, patience)
    made.autocommit = False
    made.adapters.register_dumper(str, _Text)
    made.adapters.register_dumper(
        int, Int8Dumper
    )  # by itself as small as it fits: 20,000 + 20,000 was out of range
    return made


def connect(conninfo: str, patience: float, *, connecting: int = CONNECT, reading: bool = False) -> Patient:
    """Open a connection whose statements, and waits for locks, are bounded by both ends. Raises ``psycopg.Error``."""
    made = Patient.connect(
        conninfo, autocommit=True, connect_timeout=connecting, application_name="keywright"
    )
    made.patience = patience
    _found(made, made.execute(_session(made, patience, reading)).fetchone())
    return made


async def aconnect(
    conninfo: str, patience: float, *, connecting: int = CONNECT, reading: bool = False
) -> AsyncPatient:
    """``connect``, for an event loop."""
    made = await AsyncPatient.connect(
        conninfo, autocommit=True, connect_timeout=connecting, application_name="keywright"
    )
    made.patience = patience
    _found(made, await (await made.execute(_session(made, patience, reading))).fetchone())
    return made


def for_this_transaction(patience: float) -> str:
    """The statement that bounds a transaction on a connection that is ``pooled``."""
    return f"SELECT {_set(patience, reading=False, local=True)}"


def _session(made: Patient | AsyncPatient, patience: float, reading: bool) -> bytes:
    """Set a session up, unless it is a pooler's: it told the number of another process than the one that answers."""
    own = f"pg_backend_pid() = {made.pgconn.backend_pid}"
    return f"SELECT {own}, CASE WHEN {own} THEN {_set(patience, reading=reading, local=False)} END".encode()


def _found(made: Patient | AsyncPatient, said: Any) -> None:
    if not said[0]:
        made.pooled, made.prepare_threshold = True, None


def _set(patience: float, *, reading: bool, local: bool) -> str:
    milliseconds = str(int(patience * 900))  # the server gives up first, and says what it was waiting for
    values = {
        "synchronous_commit": "on",
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds,
        "idle_in_transaction_session_timeout": "60000",
        "default_transaction_read_only": "on" if reading else "off",
    }
    if reading:
        # A plan is kept, and the tables grow: what was made while they were small must not read the whole of large ones.
        values |= dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin"), "off")
    return " || ".join(f"set_config('{name}', '{value}', {local})" for name, value in values.items())


def _give_up(connection: Patient | AsyncPatient) -> None:
    """Close a connection that still owes an answer: whoever used it next would read that instead of their own."""
    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        connection.pgconn.finish()
