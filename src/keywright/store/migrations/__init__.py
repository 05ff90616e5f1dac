"""Migrations: one history a file, applied by Alembic. ``store.migrate`` runs them; nobody needs an ``alembic.ini``."""
