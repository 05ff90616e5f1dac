"""``keywright serve``: the server, from a database that may not exist yet to a port that answers."""

import logging
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keywright.cli import logs
from keywright.cli.opening import mailing, print_line, settings, where
from keywright.errors import CannotStart
from keywright.times import DAY, SECOND

if TYPE_CHECKING:
    from keywright.installation import Installation
    from keywright.settings import Settings

SOON = 14 * DAY  # seconds


@click.command("serve")
@click.option("--host", help="The address to listen on.  [127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="The port to listen on; 0 takes any that is free.  [8700]"
)
@click.option(
    "--workers", type=click.IntRange(1, 64), help="How many processes answer, behind the one port.  [1]"
)
@click.option(
    "--public-url", metavar="URL", help="How clients reach it. Needed where --host is reached from outside."
)
@where
def command(database: str | None, config: Path | None, **flags: Any) -> None:
    """Serve the verification and management API until it is told to stop.

    Brings the database up to date first, and makes a SQLite one that does not exist.
    """
    try:
        from keywright.server import app
    except ModuleNotFoundError as missing:
        raise CannotStart(f"{missing.name} is not installed: pip install 'keywright[server]'") from None
    logs.begin(logging.WARNING)
    found = settings(database, config, **flags)
    taken = app.listen(found)
    try:
        installation = _open(found)
    except CannotStart:
        taken.close()
        raise
    with installation:
        app.hear(taken, found)
        lines = _told(installation, found, taken)
        if found.workers == 1:
            app.run(app.build(installation, found), taken, lambda: _print(lines), notice=found.drain_seconds)
            return
    # Closed again: what a worker opens, it opens for itself.
    raise SystemExit(_several(found, taken, lines))


def _several(found: "Settings", taken: socket.socket, lines: list[str]) -> int:
    from keywright.server import app
    from keywright.server.board import Board
    from keywright.server.workers import CANNOT_START, Workers

    board = Board(found.workers)

    def work(number: int, ready: Callable[[], None]) -> None:
        try:
            installation = _open(found)
        except CannotStart as trouble:
            click.echo(f"keywright: {trouble}", err=True)
            raise SystemExit(CANNOT_START) from None
        with installation:
            served = app.build(installation, found, board.place(number))
            app.run(served, taken, ready, notice=found.drain_seconds, looked_after=True)

    return Workers(found.workers, work, taken.close).run(lambda: _print(lines))


def _open(found: "Settings") -> "Installation":
    from keywright.installation import open_installation
    from keywright.settings import weigh_provider
    from keywright.throttle import Allowance

    for wrong in weigh_provider(found):
        raise CannotStart(wrong)
    return open_installation(
        found.database,
        secret=found.secret or None,
        may_migrate=True,
        cache_size=found.cache_size,
        on_store_loss="serve" if found.on_store_loss == "serve" else "refuse",
        max_stale=found.max_stale,
        slots=Path(found.slots) if found.slots else None,
        usage_minutes_kept=found.usage_minutes_kept,
        usage_hours_kept=found.usage_hours_kept,
        webhook_networks=found.webhook_networks,
        mailing=mailing(found),
        base_url=found.base_url,
        portal_hosts=found.portal_hosts,
        allowance=Allowance(found.throttle_failures, found.throttle_seconds),
    )


def _told(installation: "Installation", found: "Settings", taken: socket.socket) -> list[str]:
    """What is printed once requests are answered."""
    from keywright.store import keys
    from keywright.store.keys import Filter
    from keywright.store.schema import HEADS

    with installation.database.read() as connection:
        now = installation.clock()
        count = keys.count(connection, Filter(not_keyspaces=("keywright",)), now)
        managing = keys.count(connection, Filter(keyspace="keywright"), now)
        expiring = keys.expiring(connection, now, now + SOON * SECOND)
    here = found.address(taken.getsockname()[1])
    several = f", by {found.workers} workers" if found.workers > 1 else ""
    lines = [
        f"database   {found.shown('database')}",
        f"secret     {_origin(installation, found)}",
        f"schema     {HEADS['keys']}",
        f"keys       {count} {'key' if count == 1 else 'keys'}, {expiring} expiring",
        f"listening  {here}" + (f", as {found.public_url}" if found.public_url else "") + several,
    ]
    invited = (
        installation.sessions.set_up() if len(installation.people.list(operators=True).items) == 0 else None
    )
    if invited is not None:
        lines += [
            "",
            "Nobody runs this installation yet. Whoever opens this link first, within half an hour, does:",
            "",
            f"  {found.link(invited.token, here)}",
        ]
    if not managing:
        scopes = "--scope verify --scope keys:read --scope keys:write"
        command = f"keywright management-keys create first {scopes} --database {shlex.quote(found.database)}"
        lines += [
            "",
            "Nobody can call the management API yet. Make the first management key:",
            "",
            f"  {command}",
            "",
        ]
    return lines


def _print(lines: list[str]) -> None:
    for line in lines:
        print_line(line)


def _origin(installation: "Installation", found: "Settings") -> str:
    return found.origins["secret"] if found.secret else str(installation.database.secret_file)
