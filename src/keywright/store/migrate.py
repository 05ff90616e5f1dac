"""Bringing a database to this version's schema. Alembic is imported only where there is something to do."""

from sqlalchemy import Connection, exc, inspect, text

from keywright.errors import SchemaTrouble, Unavailable
from keywright.store.db import Database
from keywright.store.schema import FILES, HEADS


def versions(database: Database) -> dict[str, str | None]:
    """The migration that each file is at; ``None`` where it has none. Raises ``SchemaTrouble`` for a foreign one."""
    found: dict[str, str | None] = {}
    for which in FILES:
        if database.is_sqlite and not database.file(which).exists():
            found[which] = None
            continue
        try:
            with database.read(which) as connection:
                found[which] = _version(connection, which)
        except Unavailable as trouble:
            if type(trouble.__cause__) is not exc.DatabaseError:
                raise
            said = trouble.__cause__.orig
            raise SchemaTrouble(f"{_where(database, which)} is not a Keywright database: {said}") from None
    return found


def check(database: Database) -> None:
    """Refuse a schema that is newer than this version. Raises ``SchemaTrouble``."""
    for which, version in versions(database).items():
        if version is not None and version > HEADS[which]:
            raise SchemaTrouble(
                f"{_where(database, which)} has schema {version}, made by a newer Keywright; "
                f"this one knows up to {HEADS[which]}. Install the newer version again."
            )


def migrate(database: Database) -> bool:
    """Apply every migration that is missing; whether there was any. Two at once wait for each other.

    Raises ``SchemaTrouble`` or ``Unavailable``.
    """
    check(database)
    behind = [which for which, version in versions(database).items() if version != HEADS[which]]
    for which in behind:
        database.create(which)
        with database.migrating(which) as connection:
            if _version(connection, which) != HEADS[which]:
                upgrade(connection, which)
    return bool(behind)


def _version(connection: Connection, which: str) -> str | None:
    inspector = inspect(connection)
    if not inspector.has_table(f"schema_{which}"):
        if which == "keys" and inspector.get_table_names() and connection.dialect.name == "sqlite":
            raise SchemaTrouble(
                "the database holds tables of something else; Keywright will not mix with them"
            )
        return None
    row = connection.execute(text(f"SELECT version_num FROM schema_{which}")).first()  # noqa: S608  # ours, of three
    return None if row is None else str(row[0])


def upgrade(connection: Connection, which: str) -> None:
    """Apply the migrations of one file that are missing, in a transaction that is open."""
    from alembic import command  # noqa: PLC0415  # 300 ms, and needed once in a database's life
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "keywright.store:migrations")
    config.set_main_option("version_locations", f"keywright.store:migrations/{which}")
    config.set_main_option("path_separator", "newline")
    config.attributes.update(connection=connection, file=which)
    command.upgrade(config, "head")


def _where(database: Database, which: str) -> str:
    return str(database.file(which)) if database.is_sqlite else "the database"
