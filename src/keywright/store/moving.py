"""From SQLite to PostgreSQL: every row of an installation, in one transaction, into a database that is empty.

Either all of it is there afterwards or nothing is. What was read is what is written, but for what a refused stranger sent:
PostgreSQL's text holds no NUL.
"""

from typing import Final

from sqlalchemy import Connection, Table, func, insert, inspect, select, text

from keywright.errors import CannotStart, Conflict
from keywright.keyring import Keyring
from keywright.store import audit, migrate
from keywright.store.db import Database
from keywright.store.schema import FILES, METADATA

_CHUNK: Final = 2_000  # rows


def check_empty(database: Database) -> None:
    """Refuse a database that holds anything. Raises ``Conflict``."""
    with database.read() as connection:
        _check_empty(connection)


def move(source: Database, target: Database, keyring: Keyring) -> dict[str, int]:
    """Copy a SQLite installation of this version's schema; how many rows of each table there are.

    Raises ``Conflict`` where the target holds anything, ``CannotStart`` where the trail that arrived does not hold, and
    ``Unavailable``; then the target is as it was.
    """
    moved: dict[str, int] = {}
    with target.migrating("keys") as into:
        _check_empty(into)
        for which in FILES:
            migrate.upgrade(into, which)
            with source.read(which) as out:
                for table in METADATA[which].sorted_tables:
                    moved[table.name] = _copy(out, into, table)
        broken = audit.verify(into, keyring)
        if broken is not None:
            raise CannotStart(f"the audit trail of the backup does not hold: entry {broken.seq} {broken.how}")
    return moved


def _check_empty(connection: Connection) -> None:
    if inspect(connection).get_table_names():
        raise Conflict("the database holds tables already and is left as it is; restore wants an empty one")


def _copy(out: Connection, into: Connection, table: Table) -> int:
    many = 0
    into.execute(table.delete())  # what a migration begins with
    for rows in out.execute(select(table)).mappings().partitions(_CHUNK):
        into.execute(insert(table), [dict(row) for row in rows])
        many += len(rows)
    _set_sequence(into, table)
    if into.execute(select(func.count()).select_from(table)).scalar_one() != many:
        raise CannotStart(f"not every row of {table.name} arrived")
    return many


def _set_sequence(into: Connection, table: Table) -> None:
    """Let the numbers that a table gives by itself go on behind those that were copied."""
    column = table.autoincrement_column
    if column is None:
        return
    newest = into.execute(select(func.max(column))).scalar()
    if newest is not None:
        sequence = text("SELECT setval(pg_get_serial_sequence(:table, :column), :newest)")
        into.execute(sequence, {"table": table.name, "column": column.name, "newest": newest})


__all__ = ["check_empty", "move"]
