"""``keywright doctor``: is this installation well?"""

import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from keywright import __version__, profiles
from keywright.cli.opening import as_json, print_json, settings, where
from keywright.errors import CannotStart, KeywrightError
from keywright.installation import Installation, open_installation
from keywright.settings import SETTINGS, Settings
from keywright.store import keys, migrate
from keywright.store.db import SQLITE_VERSION
from keywright.store.schema import HEADS

#: SQLite's WAL-reset fault is mended from here on; before, the writers' lock keeps it away.
MENDED = (3, 51, 3)
LEAST_SPACE = 256 * 1024 * 1024  # bytes


class Finding(NamedTuple):
    """One thing that was looked at: ``ok``, ``warning`` or ``error``, and a sentence."""

    check: str
    level: str
    says: str


@click.command("doctor")
@as_json
@where
def command(database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Check this installation. Changes nothing; the exit code is 1 where something is wrong."""
    found = settings(database, config)
    findings = list(examine(found))
    if as_json:
        print_json({"items": [finding._asdict() for finding in findings]})
    else:
        colours = {"ok": "green", "warning": "yellow", "error": "red"}
        for finding in findings:
            click.echo(
                f"{click.style(f'{finding.level:<8}', fg=colours[finding.level])}{finding.check:<10} {finding.says}"
            )
    raise SystemExit(1 if any(finding.level == "error" for finding in findings) else 0)


def examine(found: Settings) -> Iterator[Finding]:
    """Look at everything, in the order in which it can go wrong."""
    yield Finding("version", "ok", f"keywright {__version__}")
    for setting in SETTINGS:
        value = "set" if setting.confidential and found.secret else getattr(found, setting.name)
        if found.origins[setting.name] != "default":
            yield Finding("settings", "ok", f"{setting.name} = {value} (from {found.origins[setting.name]})")
    if found.database.startswith("sqlite"):
        yield from _sqlite(found)
    if _is_new(found):
        yield Finding("database", "error", f"{found.database} does not exist; any other command makes it")
        return
    try:
        with open_installation(
            found.database, secret=found.secret or None, may_migrate=False
        ) as installation:
            yield from _installation(installation)
    except CannotStart as trouble:
        yield Finding("database", "error", str(trouble))


def _is_new(found: Settings) -> bool:
    return (
        found.database.startswith("sqlite:///")
        and not Path(found.database.removeprefix("sqlite:///")).exists()
    )


def _sqlite(found: Settings) -> Iterator[Finding]:
    version = ".".join(str(part) for part in SQLITE_VERSION)
    if SQLITE_VERSION < MENDED:
        says = f"SQLite {version} has the WAL-reset fault; the writers' lock keeps it away from what Keywright writes"
        yield Finding("sqlite", "ok", says)
    else:
        yield Finding("sqlite", "ok", f"SQLite {version}")
    path = Path(found.database.removeprefix("sqlite:///")).absolute()
    secret = path.with_name(path.name + ".secret")
    if not found.secret and secret.exists():
        mode = stat.S_IMODE(secret.stat().st_mode)
        level = "ok" if mode & 0o077 == 0 else "error"
        yield Finding(
            "secret",
            level,
            f"{secret} has mode {mode:04o}" + ("" if level == "ok" else "; others can read it"),
        )
    if path.parent.is_dir():
        free = shutil.disk_usage(path.parent).free
        yield Finding(
            "space",
            "ok" if free > LEAST_SPACE else "warning",
            f"{free // 2**20} MiB free beside the database",
        )


def _installation(installation: Installation) -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[Installation], str]], ...] = (
        ("schema", _schema),
        ("audit", _audit),
        ("keyspaces", _keyspaces),
        ("peppers", _peppers),
        ("verifying", _verifying),
    )
    for name, check in checks:
        try:
            yield Finding(name, "ok", check(installation))
        except KeywrightError as trouble:
            yield Finding(name, "error", str(trouble))


def _schema(installation: Installation) -> str:
    versions = migrate.versions(installation.database)
    if versions != HEADS:
        raise CannotStart(f"at {versions}, this version wants {HEADS}")
    return f"at {HEADS['keys']}, which is this version's"


def _audit(installation: Installation) -> str:
    broken = installation.trail.verify()
    if broken is not None:
        raise CannotStart(f"entry {broken.seq} of the audit trail {broken.how}")
    return f"the chain of {installation.trail.head().seq} entries holds"


def _keyspaces(installation: Installation) -> str:
    names = [applied.keyspace.name for applied in installation.keyspaces.list()]
    return ", ".join(names) or f"none yet; {len(profiles.SHIPPED)} profiles ship"


def _peppers(installation: Installation) -> str:
    with installation.database.read() as connection:
        hanging = keys.peppers(connection)
    shown = ", ".join(f"{many} on entry {n}" for n, many in sorted(hanging.items()))
    return f"secrets of keys: {shown or 'none'}; entry {installation.keyring.current} is current"


def _verifying(installation: Installation) -> str:
    from keywright.credential import Spelled
    from keywright.model import Ask
    from keywright.schemes import Presented

    before = installation.clock()
    nobody = Presented("token", Spelled("dotted", b"doctor00", b"0" * 32, b""))
    ask = Ask("keywright", "production", authenticate_only=True, metered=False)
    verdict: Any = installation.engine.verify(ask, nobody, before)
    if verdict.code != "invalid":
        raise CannotStart(f"an unknown key was answered {verdict.code}: {verdict.reason}")
    return f"an unknown key is refused, in {installation.clock() - before} µs"
