"""Where Alembic enters. The connection and the file's name come from ``store.migrate``, as attributes of its config."""

from alembic import context

from keywright.store.schema import METADATA

which = context.config.attributes["file"]
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA[which],
    version_table=f"schema_{which}",
    transactional_ddl=True,
)
context.run_migrations()
