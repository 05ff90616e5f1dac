"""``keywright serve``: the server, from a database that may not exist yet to a port that answers."""

from pathlib import Path
from typing import Any

import click

from keywright.cli.opening import settings, where
from keywright.errors import CannotStart
from keywright.installation import Installation, open_installation
from keywright.settings import Settings
from keywright.store import keys
from keywright.store.keys import Filter
from keywright.store.schema import HEADS
from keywright.times import DAY, SECOND

SOON = 14 * DAY  # seconds


@click.command("serve")
@click.option("--host", help="The address to listen on.  [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="The port to listen on.  [8700]")
@where
def command(database: str | None, config: Path | None, **flags: Any) -> None:
    """Serve the verification and management API until it is told to stop.

    Brings the database up to date first, and makes a SQLite one that does not exist.
    """
    try:
        from keywright.server import app
    except ModuleNotFoundError as missing:
        raise CannotStart(f"{missing.name} is not installed: pip install 'keywright[server]'") from None
    found = settings(database, config, **flags)
    taken = app.listen(found)
    try:
        installation = open_installation(
            found.database,
            secret=found.secret or None,
            cache_size=found.cache_size,
            on_store_loss="serve" if found.on_store_loss == "serve" else "refuse",
            max_stale=found.max_stale,
        )
    except CannotStart:
        taken.close()
        raise
    taken.listen(2048)  # from here on a connection waits for the server instead of being refused
    _announce(installation, found, taken.getsockname()[1])
    app.run(app.build(installation, found), taken)


def _announce(installation: Installation, found: Settings, port: int) -> None:
    database = installation.database
    with database.read() as connection:
        now = installation.clock()
        everything = Filter(not_keyspace="keywright")
        count = keys.count(connection, everything, now)
        managing = keys.count(connection, Filter(keyspace="keywright"), now)
        expiring = keys.expiring(connection, now, now + SOON * SECOND)
    click.echo(f"database  {found.database}")
    click.echo(f"secret    {_origin(installation, found)}")
    click.echo(f"schema    {HEADS['keys']}")
    click.echo(f"keys      {count} keys, {expiring} expiring")
    click.echo(f"listening {found.public_url or f'http://{found.host}:{port}'}")
    if not managing:
        click.echo("\nNobody can call the management API yet. Make the first management key:\n")
        scopes = "--scope verify --scope keys:read --scope keys:write"
        click.echo(f"  keywright management-keys create first {scopes} --database {found.database}\n")


def _origin(installation: Installation, found: Settings) -> str:
    return found.origins["secret"] if found.secret else str(installation.database.secret_file)
