"""``keywright config``: the settings in force, where each comes from, and what each means."""

import os
from pathlib import Path

import click

from keywright.cli.opening import InOrder, as_json, print_json, print_line, print_table, settings, where


@click.group("config", cls=InOrder)
def command() -> None:
    """Settings: their values, where each comes from, what each means."""


@command.command("show")
@as_json
@where
def show(database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Print every setting, its value and where that comes from. Secrets are not shown."""
    from keywright.settings import SETTINGS

    found = settings(database, config)
    if as_json:
        print_json(
            {
                "items": [
                    {"name": s.name, "value": found.shown(s.name) or None, "from": found.origins[s.name]}
                    for s in SETTINGS
                ]
            }
        )
        return
    rows = [(s.name, found.shown(s.name) or None, found.origins[s.name]) for s in SETTINGS]
    print_table(("SETTING", "VALUE", "FROM"), rows, nothing="no settings")


@command.command("check")
@as_json
@where
def check(database: str | None, config: Path | None, *, as_json: bool) -> int:
    """Say what is wrong with the settings. Opens nothing; the exit code is 1 where something is wrong, 3 where nothing
    could start with them.
    """
    from keywright.settings import unknown, weigh

    found = settings(database, config)
    wrong = [f"{name} is no setting" for name in unknown(os.environ)] + weigh(found)
    if as_json:
        print_json({"ok": not wrong, "items": wrong})
    else:
        for line in wrong or ["the settings are good"]:
            print_line(line)
    return 1 if wrong else 0


@command.command("reference")
def reference() -> None:
    """Print the page that explains every setting, in Markdown."""
    from keywright import settings as tables

    click.echo(tables.reference(), nl=False)
