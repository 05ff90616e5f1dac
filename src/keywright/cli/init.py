"""``keywright init``: an installation to begin with: a database, a keyspace from a profile, a first account."""

import sys
from pathlib import Path

import click

from keywright import profiles
from keywright.cli.opening import actor, as_json, opened, print_json, print_line, settings, where
from keywright.errors import NotFound


@click.command("init")
@click.option(
    "--profile", type=click.Choice(profiles.SHIPPED), help="The profile of the keyspace.  [default]"
)
@click.option("--account", metavar="USERNAME", help="The first customer.  [default]")
@as_json
@where
def command(
    profile: str | None, account: str | None, database: str | None, config: Path | None, *, as_json: bool
) -> None:
    """Make the database, a keyspace from a profile, and a first account.

    On a terminal it asks for what is not said; elsewhere it takes the defaults. What is there already stays as it is.
    """
    asks = sys.stdin.isatty() and not as_json
    profile = profile or (
        click.prompt("Profile", type=click.Choice(profiles.SHIPPED), default="default", err=True)
        if asks
        else "default"
    )
    username = account or (click.prompt("First account", default="default", err=True) if asks else "default")
    with opened(database, config, may_migrate=True) as installation:
        outcome = installation.keyspaces.apply(profiles.source(profile), actor=actor())
        try:
            installation.accounts.get(username)
            made = "unchanged"
        except NotFound:
            installation.accounts.create(username, actor=actor())
            made = "created"
    found = settings(database, config)
    if as_json:
        print_json(
            {
                "keyspace": {"name": outcome.keyspace.name, "outcome": outcome.outcome},
                "account": {"username": username, "outcome": made},
            }
        )
        return
    print_line(f"database  {found.shown('database')}")
    print_line(f"keyspace  {outcome.keyspace.name}: {outcome.outcome}")
    print_line(f"account   {username}: {made}")
    environment = next(
        name
        for name in ("production", *outcome.keyspace.environments)
        if name in outcome.keyspace.environments
    )
    where_ = f"--keyspace {outcome.keyspace.name} --account {username} --environment {environment}"
    print_line(f"\nA first key: keywright keys create 'CRM sync' {where_} --access all".strip())
