"""The hot look-ups on PostgreSQL: prepared statements on a few autocommit connections, for threads and for event loops.

On an event loop, whoever asks for the same at the same time is answered by one statement, and so are those who ask for
different keys: see ``_Loop``.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import groupby
from operator import itemgetter
from time import monotonic
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from keywright.errors import Unavailable
from keywright.model import KeyRecord
from keywright.store import lookup, postgres
from keywright.store.db import Database
from keywright.store.lookup import Found, defining, imported_of, keyspace_of, record_of
from keywright.store.postgres import AsyncPatient, Patient

T = TypeVar("T")
Changes = list[tuple[int, str, str]]
Waiting = tuple[str, asyncio.Future[list[Any]]]

#: How long a look-up waits, for its turn and then for its answer, in seconds: whoever asked is told soon.
PATIENCE: Final = 1.0
CONNECTING: Final = 2  # seconds; libpq knows no less
#: How many connections the threads of a process share, and how many each event loop has.
AT_MOST: Final = 16

IDLE: Final = TransactionStatus.IDLE
_BUSY: Final = "the store does not answer: every connection to it is waiting"
_INHERITED: Final[list[object]] = []

#: How many keys one statement is asked for.
TOGETHER: Final = 64

FIND: Final = lookup.FIND.replace("?", "%s")
FIND_IMPORTED: Final = lookup.FIND_IMPORTED.replace("?", "%s")
FIND_SEVERAL: Final = lookup.FIND_SEVERAL.replace("?", "%s")
CHANGES: Final = lookup.CHANGES.replace("?", "%s")
KEYSPACE: Final = lookup.KEYSPACE.replace("?", "%s")


class PostgresLookup:
    """Reads what a verification needs. Every method may raise ``Unavailable``, within a second or two."""

    def __init__(self, database: Database) -> None:
        self.conninfo = database.conninfo
        self.statements = 0  # asked so far, besides those for changes; for those who count
        self._begin()

    def _begin(self) -> None:
        self._idle: list[Patient] = []
        self._places = threading.BoundedSemaphore(AT_MOST)
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}

    # ------------------------------------------------------------------------------------------------------- threads

    def changes(self, after: int) -> Changes:
        """``(seq, kind, ref)`` of every change after one; of kind ``all`` where some of them are no longer told."""
        return self._rows(CHANGES, (after, after))

    def newest(self) -> int:
        """The newest change's number; 0 where there is none."""
        return int(self._all(lookup.NEWEST)[0][0])

    def find(self, key_id: bytes) -> KeyRecord | None:
        """Read a key by its id. A row that cannot be read makes that key ``Unavailable``, and only that one."""
        return record_of(key_id, self._all(FIND, key_id.decode("ascii")))

    def find_imported(self, tag: bytes) -> KeyRecord | None:
        """Read the key that the tag of an imported credential leads to."""
        return imported_of(self._all(FIND_IMPORTED, tag))

    def keyspace(self, name: str) -> Found | None:
        """Read a keyspace's definition, and the newest change that the read had seen."""
        return keyspace_of(self._all(KEYSPACE, name))

    def keyspace_with_gate(self, gate: str) -> str | None:
        """The name of the keyspace that defines a gate."""
        return defining(gate, self._all(lookup.KEYSPACES))

    def _all(self, statement: str, *parameters: Any) -> list[Any]:
        self.statements += 1
        return self._rows(statement, parameters)

    def _rows(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        if not self._places.acquire(timeout=PATIENCE):
            raise Unavailable(_BUSY)
        try:
            return self._asked(statement, parameters)
        except psycopg.Error as trouble:
            raise _unavailable(trouble) from trouble
        finally:
            self._places.release()

    def _asked(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        begun = monotonic()
        kept = self._kept()
        if kept is not None:
            try:
                return self._on(kept, statement, parameters)
            except psycopg.OperationalError:
                self._drop()  # the others have lain as long
                if not kept.closed or monotonic() - begun > PATIENCE / 2:
                    raise
        fresh = postgres.connect(self.conninfo, PATIENCE, connecting=CONNECTING, reading=True)
        return self._on(fresh, statement, parameters)

    def _on(self, connection: Patient, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        try:
            return connection.execute(statement, parameters, prepare=not connection.pooled).fetchall()
        finally:
            if connection.pgconn.transaction_status == IDLE:
                self._idle.append(connection)
            else:
                connection.close()

    def _kept(self) -> Patient | None:
        with suppress(IndexError):
            return self._idle.pop()
        return None

    def _drop(self) -> None:
        while (connection := self._kept()) is not None:
            connection.close()

    # --------------------------------------------------------------------------------------------------- event loops

    async def achanges(self, after: int) -> Changes:
        """``changes``, for an event loop: all that wait share the next statement."""
        return await self._loop().changes(after)

    async def afind(self, key_id: bytes, seen: int) -> KeyRecord | None:
        """``find``, for an event loop. ``seen`` is the newest change acted upon: those who have seen the same share."""
        return record_of(key_id, await self._loop().key(key_id.decode("ascii"), seen))

    async def afind_imported(self, tag: bytes, seen: int) -> KeyRecord | None:
        """``find_imported``, for an event loop."""
        return imported_of(await self._loop().all(FIND_IMPORTED, tag, seen=seen))

    async def akeyspace(self, name: str, seen: int) -> Found | None:
        """``keyspace``, for an event loop."""
        return keyspace_of(await self._loop().all(KEYSPACE, name, seen=seen))

    async def akeyspace_with_gate(self, gate: str, seen: int) -> str | None:
        """``keyspace_with_gate``, for an event loop."""
        return defining(gate, await self._loop().all(lookup.KEYSPACES, seen=seen))

    def _loop(self) -> "_Loop":
        running = asyncio.get_running_loop()
        found = self._loops.get(running)
        if found is None:
            for ended in [loop for loop in list(self._loops) if loop.is_closed()]:
                gone = self._loops.pop(ended, None)  # other threads come and go as well
                if gone is not None:
                    gone.close()
            found = self._loops[running] = _Loop(self)
        return found

    # ----------------------------------------------------------------------------------------------------------- end

    def close(self) -> None:
        """Close every connection."""
        self._drop()
        while self._loops:
            self._loops.popitem()[1].close()

    def before_fork(self) -> None:
        """Close what lies idle, so that no child inherits it."""
        self._drop()
        for loop in self._loops.values():
            loop.drop()

    def after_fork(self) -> None:
        """Begin anew in a child; what the parent's threads were at is the parent's."""
        _INHERITED.append((self._idle, self._loops))
        self._begin()


class _Loop:
    """An event loop's connections, and what is being asked on it.

    Statements run in tasks of their own: whoever stops waiting does not take the answer from those who wait beside it.
    """

    def __init__(self, owner: PostgresLookup) -> None:
        self._owner = owner
        self._idle: list[AsyncPatient] = []
        self._places = asyncio.Semaphore(AT_MOST)
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[Changes] | None = None
        self._asked: dict[tuple[Any, ...], asyncio.Task[list[Any]]] = {}
        self._keys: dict[tuple[str, int], asyncio.Future[list[Any]]] = {}
        self._waiting: list[Waiting] = []  # keys that no statement was begun for
        self._closed = False

    async def changes(self, after: int) -> Changes:
        """The changes after one, by a statement that begins no sooner than this call."""
        if self._next is None or self._next.done():  # it may have been called off before it began
            self._next = self._task(self._changes(after))
        return await asyncio.shield(self._next)

    async def _changes(self, after: int) -> Changes:
        async with self._one_at_a_time:
            self._next = None  # whoever comes from here on may have begun later than this statement
            return await self._run(CHANGES, (after, after))

    async def all(self, statement: str, *parameters: Any, seen: int) -> list[Any]:
        """The rows of a statement. Where nothing has changed between two who ask for the same, one answer does."""
        wanted = (statement, parameters, seen)
        task = self._asked.get(wanted)
        if task is None:
            self._owner.statements += 1
            task = self._asked[wanted] = self._task(self._run(statement, parameters))
            task.add_done_callback(lambda _: self._asked.pop(wanted, None))
        return await asyncio.shield(task)

    async def key(self, key_id: str, seen: int) -> list[Any]:
        """The rows of a key. Those who have seen the same share them; keys that are wanted together, a statement."""
        wanted = key_id, seen
        rows = self._keys.get(wanted)
        if rows is None:
            rows = self._keys[wanted] = asyncio.get_running_loop().create_future()
            rows.add_done_callback(partial(self._heard, wanted))
            self._waiting.append((key_id, rows))
            if len(self._waiting) == 1:
                self._begin()
        return await asyncio.shield(rows)

    def _heard(self, wanted: tuple[str, int], done: asyncio.Future[list[Any]]) -> None:
        del self._keys[wanted]
        if not done.cancelled():
            done.exception()  # heard, even if nobody waits

    def _begin(self) -> None:
        taken: list[Waiting] = []
        self._task(self._find(taken)).add_done_callback(partial(self._tell, taken))

    async def _find(self, taken: list[Waiting]) -> dict[str, list[Any]]:
        """The rows of all keys that are waited for once there is a connection, which are ``taken`` then."""
        async with self._place():
            taken += self._waiting[:TOGETHER]
            del self._waiting[:TOGETHER]
            if self._waiting:
                self._begin()
            return await self._rows_of([key_id for key_id, _ in taken])

    def _tell(self, taken: list[Waiting], asked: asyncio.Task[dict[str, list[Any]]]) -> None:
        """Tell those who wait what came of it, whatever that was, and whoever has called it off."""
        if not taken:
            taken, self._waiting = self._waiting, []
        trouble = Unavailable("the look-up was called off") if asked.cancelled() else asked.exception()
        for key_id, rows in taken:
            if trouble is None:
                rows.set_result(asked.result().get(key_id, []))
            else:
                rows.set_exception(trouble)

    async def _rows_of(self, key_ids: list[str]) -> dict[str, list[Any]]:
        self._owner.statements += 1
        one = len(key_ids) == 1
        rows = await self._ask(FIND, (key_ids[0],)) if one else await self._ask(FIND_SEVERAL, (key_ids,))
        return {key_id: list(own) for key_id, own in groupby(rows, key=itemgetter(-1))}

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # heard, even if nobody waits
        return task

    async def _run(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        async with self._place():
            return await self._ask(statement, parameters)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the places, of which there are as many as connections. Raises ``Unavailable``, of what is done there too."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable(_BUSY) from None
        try:
            yield
        except psycopg.Error as trouble:
            raise _unavailable(trouble) from trouble
        except TimeoutError:
            raise Unavailable("the store does not answer: no connection within a second") from None
        finally:
            self._places.release()

    async def _ask(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        if self._idle:
            begun, kept = monotonic(), self._idle.pop()
            try:
                return await self._on(kept, statement, parameters)
            except psycopg.OperationalError:
                self.drop()
                if not kept.closed or monotonic() - begun > PATIENCE / 2:
                    raise
        async with asyncio.timeout(PATIENCE):
            fresh = await postgres.aconnect(self._owner.conninfo, PATIENCE, reading=True)
        return await self._on(fresh, statement, parameters)

    async def _on(self, connection: AsyncPatient, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        try:
            prepare = not connection.pooled
            return await (await connection.execute(statement, parameters, prepare=prepare)).fetchall()
        finally:
            if self._closed or connection.pgconn.transaction_status != IDLE:
                connection.pgconn.finish()
            else:
                self._idle.append(connection)

    def drop(self) -> None:
        """Close what lies idle."""
        while self._idle:
            self._idle.pop().pgconn.finish()

    def close(self) -> None:
        """Close what lies idle, and what is in use when it is done."""
        self._closed = True
        self.drop()


def _unavailable(trouble: psycopg.Error) -> Unavailable:
    return Unavailable(f"the store does not answer: {' '.join(str(trouble).split())[:300]}")
