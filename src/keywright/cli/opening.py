"""What every verb of the command shares: which installation, who acts, and how an answer is printed.

Imports of whatever knows a database stand inside the functions that need it, so that ``--help`` is quick.
"""

import getpass
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from keywright import lasting
from keywright.errors import CannotStart, Conflict, Invalid
from keywright.times import SECOND, parse_instant, parse_span

if TYPE_CHECKING:
    from keywright.client import Client
    from keywright.installation import Installation
    from keywright.mail import Mailing
    from keywright.model import Actor, Propagation
    from keywright.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

_database = click.option(
    "--database",
    metavar="URL",
    is_eager=True,  # read before a server is refused
    help="sqlite:///FILE or postgresql://…  [KEYWRIGHT_DATABASE]",
)
_config = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="KEYWRIGHT_CONFIG",
    metavar="FILE",
    help="A TOML file of settings.  [KEYWRIGHT_CONFIG]",
)
_url = click.option(
    "--url", metavar="URL", help="A server, instead of a database: https://keys.example.com  [KEYWRIGHT_URL]"
)
_elsewhere = click.option(
    "--url", hidden=True, is_eager=True, expose_value=False, callback=lambda ctx, _, url: _here(ctx, url)
)
_key_elsewhere = click.option("--key", hidden=True, expose_value=False)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the body of the matching HTTP answer.")
exported = click.option(
    "--format", "kind", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True, help="How."
)
quiet = click.option(
    "--quiet",
    is_flag=True,
    help="Print the token alone, or the secret where a pair is sent: KEY=$(keywright … --quiet).",
)
env_file = click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the credential to a new file that only you can read, instead of showing it.",
)
yes = click.option("--yes", is_flag=True, help="Do not ask.")


class InOrder(click.Group):
    """A group whose help tells its verbs in the order in which they are written."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a verb; where there is none of the name, ask whether a similar one was meant."""
        names = self.list_commands(ctx)
        near = get_close_matches(args[0], names, 1) if args and args[0] not in names else []
        if near:
            raise click.UsageError(f"there is no {args[0]!r}; did you mean {near[0]}?", ctx)
        return super().resolve_command(ctx, args)


class Place(NamedTuple):
    """Where a verb works, as it was said: on a database, or with a key on a server."""

    database: str | None
    config: Path | None
    url: str | None
    managing: str | None


def where(function: F) -> F:
    """The options of a verb that works on a database alone: which one. A server that is named is refused."""
    return _database(_config(_elsewhere(_key_elsewhere(function))))


def anywhere(function: F) -> F:
    """The options of a verb that works on a database or on a server; it takes them as ``place``."""
    return _placed(function, "--key", "--management-key")


def anywhere_beside_key(function: F) -> F:
    """``anywhere``, for a verb whose ``--key`` means something else."""
    return _placed(function, "--management-key")


def _placed(function: F, *spelled: str) -> F:
    @wraps(function)
    def run(
        *args: Any,
        database: str | None,
        config: Path | None,
        url: str | None,
        managing: str | None,
        **given: Any,
    ) -> Any:
        return function(*args, **given, place=Place(database, config, url, managing))

    sentence = (
        "With --url: a management key. Better KEYWRIGHT_KEY or KEYWRIGHT_KEY_FILE: nobody else sees those."
    )
    key = click.option(*spelled, "managing", metavar="TOKEN", help=sentence)
    return cast("F", _database(_config(_url(key(run)))))


class OnlyHere(click.ClickException):
    """A verb that works on a database alone was told of a server."""

    exit_code = 2


def _here(ctx: click.Context, url: str | None) -> None:
    """Refuse a server for a verb that knows databases only. Raises ``OnlyHere``."""
    said = "--url" if url else "KEYWRIGHT_URL" if os.environ.get("KEYWRIGHT_URL") else None
    if said and (url or ctx.params.get("database") is None):
        verb = ctx.command_path.partition(" ")[2] or ctx.info_name
        other = "" if url else "; --database says that it is meant"
        raise OnlyHere(f"{verb} works on the database itself, not through a server ({said}){other}")


def server(place: Place) -> str | None:
    """The address of the server that is meant, if one is. Raises ``click.UsageError`` where both could be."""
    if place.url and place.database:
        raise click.UsageError("say --url or --database: a verb works on a server or on a database")
    if place.url or place.database:
        return place.url
    named = os.environ.get("KEYWRIGHT_URL")
    if named and (os.environ.get("KEYWRIGHT_DATABASE") or os.environ.get("KEYWRIGHT_DATABASE_FILE")):
        raise click.UsageError("KEYWRIGHT_URL and KEYWRIGHT_DATABASE are both set: say --url or --database")
    return named or None


@contextmanager
def reached(place: Place) -> Iterator["Installation | Client"]:
    """Open the database, or connect to the server, that is meant. Raises ``CannotStart`` or ``click.UsageError``."""
    url = server(place)
    if url is None:
        with opened(place.database, place.config) as installation:
            yield installation
        return
    from keywright.client import Client

    try:
        client = Client(url, key=_token(place))
    except Invalid as wrong:
        raise click.UsageError(f"--{wrong}") from None
    with client:
        yield client


def _token(place: Place) -> str:
    given = place.managing or os.environ.get("KEYWRIGHT_KEY")
    file = os.environ.get("KEYWRIGHT_KEY_FILE")
    if given:
        return given.strip()
    if not file:
        raise click.UsageError("a server wants a management key: KEYWRIGHT_KEY, KEYWRIGHT_KEY_FILE or --key")
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as trouble:
        said = getattr(trouble, "strerror", None) or "it is not text"
        raise click.UsageError(f"KEYWRIGHT_KEY_FILE: {file} cannot be read: {said}") from None


def settings(database: str | None = None, config: Path | None = None, **flags: Any) -> "Settings":
    """The settings in force for this call. Raises ``CannotStart``."""
    from keywright import settings as tables

    return tables.load({"database": database, **flags}, os.environ, config)


@contextmanager
def opened(
    database: str | None, config: Path | None, *, may_migrate: bool = False
) -> Iterator["Installation"]:
    """Open the installation that flags, environment and file name. Raises ``CannotStart``.

    A PostgreSQL database is brought up to date only with ``may_migrate``, which few commands say.
    """
    from keywright.installation import open_installation

    found = settings(database, config)
    with open_installation(
        found.database,
        secret=found.secret or None,
        may_migrate=may_migrate,
        slots=Path(found.slots) if found.slots else None,
        usage_minutes_kept=found.usage_minutes_kept,
        usage_hours_kept=found.usage_hours_kept,
        webhook_networks=found.webhook_networks,
        base_url=found.base_url,
        portal_hosts=found.portal_hosts,
    ) as installation:
        yield installation


def mailing(found: "Settings") -> "Mailing | None":
    """By which server e-mail goes out, where it is set up. Raises ``CannotStart`` where that makes no sense."""
    from keywright.credential import Secret
    from keywright.mail import Mailing
    from keywright.settings import weigh_mail

    if not found.smtp_host:
        return None
    for wrong in weigh_mail(found):
        raise CannotStart(wrong)
    return Mailing(
        host=found.smtp_host,
        port=found.smtp_port,
        security=found.smtp_security,  # type: ignore[arg-type]
        user=found.smtp_user,
        password=Secret(found.smtp_password),
        sender=found.mail_from[0],
        to=found.mail_to,
        members=found.mail_members == "admins",
        least=found.mail_severity,
        base_url=found.base_url,
    )


def actor() -> "Actor":
    """Who types: the operating system's user."""
    from keywright.model import Actor

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


def past(text: str | None, now: int, *, path: str) -> int | None:
    """Read a time, or a span as how long ago. Raises ``Invalid``."""
    if text is None or (text[:4].isdigit() and "-" in text):
        return None if text is None else parse_instant(text, path=path)
    try:
        return now - parse_span(text) * SECOND
    except Invalid:
        reason = f"{text[:40]!r} is neither how long ago, such as 7d, nor a time such as 2027-01-31T00:00:00Z"
        raise Invalid(reason, path=path) from None


# ------------------------------------------------------------------------------------------------------- what is printed


def print_json(value: Any) -> None:
    """Print a JSON document; what could move a terminal's cursor is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def print_line(text: str) -> None:
    """Print a line that may hold what somebody else wrote."""
    click.echo(printable(text))


def warn_of_stale(travelled: "Propagation | None") -> None:
    """Say on standard error who may still answer from the state before a change."""
    from keywright import shown

    warning = None if travelled is None else shown.still_stale(travelled)
    if warning:
        click.echo(f"not everywhere yet: {warning}", err=True)


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


def print_export(records: Iterable[dict[str, Any]], columns: Sequence[str], kind: str) -> None:
    """Write records to standard output, as JSON lines or as CSV that no spreadsheet computes."""
    from keywright import sheet

    out = sys.stdout
    if kind == "csv":
        out.writelines(sheet.lines(records, columns))
    else:
        out.writelines(json.dumps(record, ensure_ascii=True) + "\n" for record in records)
    out.flush()


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
    click.confirm(printable(question), abort=True, err=True)


@contextmanager
def working(doing: str, every: float = 1) -> Iterator[None]:
    """Say on a terminal that something long goes on, and for how many seconds; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def tick() -> None:
        since, said = time.monotonic(), False
        while not done.wait(every):
            said = True
            click.echo(f"\r{doing} … {time.monotonic() - since:.0f} s", err=True, nl=False)
        if said:
            click.echo("\r\033[K", err=True, nl=False)

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield
    finally:
        done.set()
        ticking.join()


# ---------------------------------------------------------------------------------------------- a file for a credential


class EnvFile:
    """A new file that a credential will be written to. It is made before anything is, so that no secret is ever lost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = False
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise Conflict(
                f"--env-file: {path} exists already and is left as it is; nothing was made"
            ) from None
        except OSError as trouble:
            raise Conflict(
                f"--env-file: {path} cannot be written, so nothing was made: {trouble.strerror}"
            ) from None

    def write(self, lines: Sequence[str]) -> None:
        """Write the lines, so that they outlive the machine."""
        with os.fdopen(self._descriptor, "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        lasting.names(self.path.absolute().parent)
        self.written = True


@contextmanager
def reserved(path: Path | None) -> Iterator[EnvFile | None]:
    """Take the place of a file that will be written, and give it back where it was not. Raises ``Conflict``."""
    if path is None:
        yield None
        return
    file = EnvFile(path)
    try:
        yield file
    finally:
        if not file.written:
            path.unlink(missing_ok=True)
