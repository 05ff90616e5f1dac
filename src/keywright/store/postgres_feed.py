"""The change feed on PostgreSQL: one connection of a worker's own, on which it is registered, told of changes, and confirms.

Changes are pushed by ``NOTIFY``, and asked for anyway at every turn. Behind a pooler that hands connections round there
is no pushing: nobody knows whose the notification would be.
"""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from socket import gethostname
from typing import Any, Final

import psycopg

from keywright.store import lookup, postgres, workers
from keywright.store.postgres import Patient

#: What the driver raises when the store does not answer; the server's own refusals begin with ``FATAL``.
Trouble: Final = psycopg.Error

Changes = list[tuple[int, str, str]]


class Line:
    """An open connection to the feed. Everything may raise ``Trouble``, within its patience in seconds."""

    def __init__(self, conninfo: str, patience: float, connecting: int) -> None:
        self._connection: Patient = postgres.connect(conninfo, patience, connecting=connecting)
        self._patience = patience
        self.pushed = not self._connection.pooled
        try:
            if self.pushed:
                self._connection.execute(workers.LISTEN)
            #: The newest change's number when this was opened; 0 where there is none.
            self.newest = int(self._rows(lookup.NEWEST)[0][0])
        except Trouble:
            self.close()
            raise

    def register(self, worker: str, max_stale: int, confirmed: int, beat: int, now: int) -> None:
        """Register this worker, for whoever changes something must know of it."""
        name = f"{gethostname()} {os.getpid()}"
        with self._durably():
            self._connection.execute(workers.REGISTER, (worker, name, max_stale, confirmed, beat, now))

    def renew(self, worker: str, confirmed: int, beat: int) -> Changes | None:
        """Confirm what has been acted upon; the changes after it, or ``None`` where this worker is not registered.

        ``beat`` is a number that it has never sent before: whoever watches sees that it lives. It is written durably, for
        a server that came back with an older one would make a living worker look dead.
        """
        with self._durably():
            rows = self._rows(workers.RENEW, (confirmed, beat, worker, confirmed, confirmed))
        return [row for row in rows if row[0] is not None] if rows else None

    def registered(self) -> list[tuple[str, int, int]]:
        """Every registration: id, beat and for how long it may serve without the store, in microseconds."""
        return self._rows(workers.REGISTERED)

    def forget(self, worker: str, beat: int) -> None:
        """Remove a registration that has not moved from a beat."""
        self._connection.execute(workers.FORGET, (worker, beat))

    def leave(self, worker: str) -> None:
        """Remove one's own."""
        self._connection.execute(workers.LEAVE, (worker,))

    def wait(self, waker: int, seconds: float) -> None:
        """Wait until something is pushed, the descriptor ``waker`` can be read, or time is up."""
        looking = (
            select.poll()
        )  # select() knows no descriptor above 1023, and a server with many clients has only such
        for descriptor in (self._connection.fileno(), waker):
            looking.register(descriptor, select.POLLIN)
        if self._connection.fileno() in dict(looking.poll(seconds * 1000)):
            self._connection.pgconn.consume_input()
            while self._connection.pgconn.notifies():
                pass

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    @contextmanager
    def _durably(self) -> Iterator[None]:
        """Written to the disk before it is answered, as this connection's session says, or where it is none, here."""
        if self.pushed:
            yield
            return
        with self._connection.transaction():
            self._connection.execute(postgres.for_this_transaction(self._patience).encode())
            yield

    def _rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        return self._connection.execute(statement, parameters, prepare=self.pushed).fetchall()
