"""``keywright keyspaces``: apply and read keyspaces."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keywright import profiles
from keywright.cli.opening import (
    InOrder,
    Place,
    actor,
    anywhere,
    as_json,
    opened,
    print_json,
    print_line,
    print_table,
    reached,
    warn_of_stale,
    where,
)
from keywright.errors import ProfileError

if TYPE_CHECKING:
    from keywright.desk.keyspaces import Outcome
    from keywright.installation import Installation


@click.group("keyspaces", cls=InOrder)
def command() -> None:
    """Apply and read keyspaces. A keyspace is the keys of one protected API."""


@command.command("create")
@click.option(
    "--profile",
    type=click.Choice(profiles.SHIPPED),
    default="default",
    show_default=True,
    help="Which one.",
)
@as_json
@where
def create(profile: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Make a keyspace from a profile that ships with Keywright."""
    with opened(database, config) as installation:
        outcome = installation.keyspaces.apply(profiles.source(profile), actor=actor())
        _show(installation, outcome, as_json=as_json)


@command.command("apply")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@as_json
@where
def apply(file: Path, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Make or change a keyspace from a TOML file; - reads standard input."""
    source = _read(file)
    with opened(database, config) as installation:
        try:
            outcome = installation.keyspaces.apply(source, actor=actor())
        except ProfileError as wrong:
            raise ProfileError(f"{file}: {wrong}") from None
        _show(installation, outcome, as_json=as_json)


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as trouble:
        raise ProfileError(f"{file} cannot be read: {trouble.strerror}") from None
    except UnicodeDecodeError as broken:
        raise ProfileError(f"{file} is not text in UTF-8: byte {broken.start} is not") from None


@command.command("list")
@as_json
@anywhere
def list_keyspaces(place: Place, *, as_json: bool) -> None:
    """List keyspaces."""
    from keywright import shown

    with reached(place) as installation:
        found = installation.keyspaces.list()
    if as_json:
        items = [shown.keyspace(a.keyspace, a.created_at, a.updated_at) for a in found]
        print_json({"items": items, "next_cursor": None})
        return
    columns = ("NAME", "PREFIX", "FORMAT", "SCHEMES", "ENVIRONMENTS")
    rows = [
        (
            a.keyspace.name,
            a.keyspace.prefix,
            a.keyspace.format,
            a.keyspace.schemes,
            list(a.keyspace.environments),
        )
        for a in found
    ]
    print_table(columns, rows, nothing="no keyspaces")


@command.command("get")
@click.argument("name")
@click.option("--toml", is_flag=True, help="The definition as it was applied.")
@as_json
@anywhere
def get(name: str, place: Place, *, toml: bool, as_json: bool) -> None:
    """Show one keyspace, as checked or as applied."""
    from keywright import shown

    with reached(place) as installation:
        applied = installation.keyspaces.get(name)
    if as_json or not toml:
        print_json(shown.keyspace(applied.keyspace, applied.created_at, applied.updated_at))
    else:
        click.echo(applied.source, nl=False)


@command.command("rules")
@click.argument("scanner", type=click.Choice(["gitleaks", "trufflehog"]))
@click.argument("names", metavar="[KEYSPACE…]", nargs=-1)
@as_json
@anywhere
def rules(scanner: str, names: tuple[str, ...], place: Place, *, as_json: bool) -> None:
    """Print rules by which a secret scanner finds keys: keywright keyspaces rules gitleaks > .gitleaks.toml

    They are made of the prefixes and environments of the keyspaces, all unless some are named, and find management keys too.
    Dotted keys have no prefix, and no rule.
    """
    from keywright import scanners

    with reached(place) as installation:
        found = [installation.keyspaces.get(name) for name in names] or installation.keyspaces.list()
    spaces = [applied.keyspace for applied in found]
    if as_json:
        print_json({"items": [rule._asdict() for rule in scanners.rules(spaces)]})
    else:
        click.echo(scanners.WRITERS[scanner](spaces), nl=False)


@command.command("profile")
@click.argument("name", type=click.Choice(profiles.SHIPPED))
def profile(name: str) -> None:
    """Print the TOML of a profile that ships, to start one of your own from."""
    click.echo(profiles.source(name), nl=False)


def _show(installation: "Installation", outcome: "Outcome", *, as_json: bool) -> None:
    from keywright import shown

    applied = installation.keyspaces.get(outcome.keyspace.name)
    warn_of_stale(outcome.propagation)
    if as_json:
        record = shown.keyspace(applied.keyspace, applied.created_at, applied.updated_at)
        print_json(
            record | {"outcome": outcome.outcome, "propagation": shown.propagation(outcome.propagation)}
        )
        return
    schemes, environments = ", ".join(outcome.keyspace.schemes), ", ".join(outcome.keyspace.environments)
    print_line(f"{outcome.outcome}: keyspace {outcome.keyspace.name} ({schemes}; {environments})")
