"""What every verb of the command shares: which installation, who acts, and how an answer is printed."""

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from keywright import settings as tables
from keywright.errors import Invalid
from keywright.installation import Installation, open_installation
from keywright.model import Actor
from keywright.settings import Settings
from keywright.times import SECOND, parse_instant, parse_span

F = TypeVar("F", bound=Callable[..., Any])

_database = click.option(
    "--database", metavar="URL", help="sqlite:///FILE or postgresql://…  [KEYWRIGHT_DATABASE]"
)
_config = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A TOML file of settings.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the body of the matching HTTP answer.")


def where(function: F) -> F:
    """The options that say which installation a verb works on."""
    return _database(_config(function))


def settings(database: str | None = None, config: Path | None = None, **flags: Any) -> Settings:
    """The settings in force for this call. Raises ``CannotStart``."""
    return tables.load({"database": database, **flags}, os.environ, config)


@contextmanager
def opened(database: str | None, config: Path | None) -> Iterator[Installation]:
    """Open the installation that flags, environment and file name. Raises ``CannotStart``."""
    found = settings(database, config)
    with open_installation(found.database, secret=found.secret or None) as installation:
        yield installation


def actor() -> Actor:
    """Who types: the operating system's user."""
    try:
        return Actor("command", getpass.getuser())
    except (KeyError, OSError):
        return Actor("command", str(os.getuid()))


def instant(text: str | None, now: int, *, path: str) -> int | None:
    """Read ``90d``, a time, or ``never``. Raises ``Invalid``."""
    if text is None or text == "never":
        return None
    if text[:4].isdigit() and "-" in text:
        return parse_instant(text, path=path)
    try:
        return now + parse_span(text) * SECOND
    except Invalid:
        raise Invalid(
            f"{text[:40]!r} is neither a span such as 90d, nor a time such as 2027-01-31T00:00:00Z, nor never",
            path=path,
        ) from None


def print_json(value: Any) -> None:
    """Print a JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_record(pairs: Sequence[tuple[str, Any]]) -> None:
    """Print a record, a line a field; what is empty is left out."""
    shown = [(name, value) for name, value in pairs if value not in (None, "", [], {}, ())]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"  {name:<{width}}  {printable(value)}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, nothing: str) -> None:
    """Print rows under their columns, as wide as they need to be; ``nothing`` where there are none."""
    if not rows:
        click.echo(nothing)
        return
    cells = [[printable(value) for value in row] for row in rows]
    widths = [
        max(len(name), *(len(row[place]) for row in cells)) if cells else len(name)
        for place, name in enumerate(columns)
    ]
    click.echo(
        click.style(
            "  ".join(f"{name:<{widths[place]}}" for place, name in enumerate(columns)).rstrip(), bold=True
        )
    )
    for row in cells:
        click.echo("  ".join(f"{cell:<{widths[place]}}" for place, cell in enumerate(row)).rstrip())


def printable(value: Any) -> str:
    """A value on one line of a terminal: nothing in it can move the cursor."""
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(printable(item) for item in value)
    return "".join(character if character.isprintable() else "·" for character in str(value))


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what cannot be undone; without a terminal, only ``--yes`` will do."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this cannot be undone: say --yes where there is no terminal to ask on")
    click.confirm(question, abort=True)
