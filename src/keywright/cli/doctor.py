"""``keywright doctor``: is this installation well?"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from keywright import __version__
from keywright.cli.opening import as_json, print_json, printable, settings, where
from keywright.errors import CannotStart, KeywrightError
from keywright.times import SECOND, rfc3339

if TYPE_CHECKING:
    from keywright.installation import Installation
    from keywright.settings import Settings

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
def command(database: str | None, config: Path | None, *, as_json: bool) -> int:
    """Check this installation. Changes nothing; the exit code is 1 where something is wrong."""
    findings = list(_from_the_beginning(database, config))
    well = all(finding.level != "error" for finding in findings)
    if as_json:
        print_json({"ok": well, "items": [finding._asdict() for finding in findings]})
    else:
        colours = {"ok": "green", "warning": "yellow", "error": "red"}
        for finding in findings:
            level = click.style(f"{finding.level:<8}", fg=colours[finding.level])
            click.echo(f"{level}{finding.check:<10} {printable(finding.says)}")
    return 0 if well else 1


def _from_the_beginning(database: str | None, config: Path | None) -> Iterator[Finding]:
    yield Finding("version", "ok", f"keywright {__version__}")
    try:
        found = settings(database, config)
    except CannotStart as wrong:
        yield Finding("settings", "error", str(wrong))
        return
    yield from examine(found)


def examine(found: "Settings") -> Iterator[Finding]:
    """Look at everything, in the order in which it can go wrong."""
    yield from _settings(found)
    if found.database.startswith("sqlite"):
        yield from _sqlite(found)
        if not _path(found).exists():
            yield Finding("database", "error", f"{_path(found)} does not exist; any other command makes it")
            return
        if not _path(found).stat().st_size:
            yield Finding(
                "database", "error", f"{_path(found)} is empty; any other command makes a database of it"
            )
            return
    try:
        yield from _database(found)
    except KeywrightError as trouble:
        yield Finding("database", "error", str(trouble))


def _settings(found: "Settings") -> Iterator[Finding]:
    from keywright.settings import SETTINGS, unknown, weigh

    for setting in SETTINGS:
        origin = found.origins[setting.name]
        if origin != "default":
            yield Finding("settings", "ok", f"{setting.name} = {found.shown(setting.name)} (from {origin})")
    for name in unknown(os.environ):
        yield Finding("settings", "warning", f"{name} is no setting; is it spelled wrong?")
    for wrong in weigh(found):
        yield Finding("settings", "warning", wrong)


def _path(found: "Settings") -> Path:
    return Path(found.database.removeprefix("sqlite:///")).absolute()


def _sqlite(found: "Settings") -> Iterator[Finding]:
    from keywright.store.db import SQLITE_VERSION

    version = ".".join(str(part) for part in SQLITE_VERSION)
    fault = " has the WAL-reset fault; the writers' lock keeps it away from what Keywright writes"
    yield Finding("sqlite", "ok", f"SQLite {version}{fault if SQLITE_VERSION < MENDED else ''}")
    path = _path(found)
    secret = path.with_name(path.name + ".secret")
    if not found.secret and secret.exists():
        mode = stat.S_IMODE(secret.stat().st_mode)
        open_ = "" if mode & 0o077 == 0 else f": others can read it; chmod 600 {secret}"
        yield Finding("secret", "error" if open_ else "ok", f"{secret} has mode {mode:04o}{open_}")
    if path.parent.is_dir():
        free = shutil.disk_usage(path.parent).free
        yield Finding(
            "space",
            "ok" if free > LEAST_SPACE else "warning",
            f"{free // 2**20} MiB free beside the database",
        )
        if not os.access(path.parent, os.W_OK):
            yield Finding("space", "error", f"{path.parent} cannot be written to by this user")


def _database(found: "Settings") -> Iterator[Finding]:
    """What is in the database, once it is plain that opening it will not change its schema. Raises ``KeywrightError``."""
    from keywright.installation import open_installation
    from keywright.store import migrate
    from keywright.store.db import Database
    from keywright.store.schema import HEADS

    database = Database(found.database)
    try:
        migrate.check(database)
        versions = migrate.versions(database)
    finally:
        database.close()
    if versions != HEADS:
        older = ", ".join(f"{which} at {version or 'nothing'}" for which, version in versions.items())
        yield Finding(
            "schema", "error", f"{older}; this version wants {HEADS['keys']}, and serve brings it there"
        )
        return
    yield Finding("schema", "ok", f"at {HEADS['keys']}, which is this version's")
    with open_installation(found.database, secret=found.secret or None) as installation:
        yield from _installation(installation)
        if found.oidc_issuer and found.oidc_client_id:
            yield from _sign_in(installation, found)


def _installation(installation: "Installation") -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[Installation], str]], ...] = (
        ("clock", _clock),
        ("audit", _audit),
        ("keyspaces", _keyspaces),
        ("peppers", _peppers),
        ("workers", _workers),
        ("slots", _slots),
        ("e-mail", _mail),
        ("webhooks", _webhooks),
        ("alerts", _alerts),
        ("verifying", _verifying),
    )
    for name, check in checks:
        try:
            yield Finding(name, "ok", check(installation))
        except KeywrightError as trouble:
            yield Finding(name, "error", str(trouble))


def _sign_in(installation: "Installation", found: "Settings") -> Iterator[Finding]:
    """Whether the identity provider answers, what its groups give, and who comes in when it does not."""
    from keywright.store import accounts, people

    try:
        from keywright.server.provider import Provider

        yield Finding("sign-in", "ok", Provider(found).look())
    except ModuleNotFoundError as missing:
        yield Finding("sign-in", "error", f"{missing.name} is not installed: pip install 'keywright[server]'")
    except KeywrightError as trouble:
        yield Finding("sign-in", "error", str(trouble))
    with installation.database.read() as connection:
        named = {rule.account for rule in found.oidc_roles if rule.account is not None}
        lacking = sorted(name for name in named if accounts.get(connection, name) is None)
        left = people.password_operators(connection)
    if lacking:
        yield Finding(
            "sign-in", "warning", f"oidc_roles gives roles in {', '.join(lacking)}: no such account"
        )
    if not left:
        says = "no operator has a password: nobody comes in when the provider does not answer"
        yield Finding("sign-in", "warning", says)
    else:
        yield Finding("sign-in", "ok", f"operators with a password of their own: {left}")


def _clock(installation: "Installation") -> str:
    newest, now = installation.trail.list(limit=1).items, installation.clock()
    if newest and newest[0]["at"] > now + SECOND:
        written = rfc3339(newest[0]["at"])
        raise CannotStart(f"it is {rfc3339(now)} here, but something was written at {written}: it is slow")
    return f"{rfc3339(now)}; nothing was written later"


def _audit(installation: "Installation") -> str:
    broken = installation.trail.verify()
    if broken is not None:
        raise CannotStart(f"entry {broken.seq} of the audit trail {broken.how}")
    return f"the chain of {installation.trail.head().seq} entries holds"


def _keyspaces(installation: "Installation") -> str:
    from keywright import profiles

    names = [applied.keyspace.name for applied in installation.keyspaces.list()]
    return ", ".join(names) or f"none yet; {len(profiles.SHIPPED)} profiles ship"


def _peppers(installation: "Installation") -> str:
    from keywright.store import keys

    with installation.database.read() as connection:
        hanging = keys.peppers(connection)
    shown = ", ".join(f"{many} on entry {n}" for n, many in sorted(hanging.items()))
    return f"secrets of keys: {shown or 'none'}; entry {installation.keyring.current} is current"


def _verifying(installation: "Installation") -> str:
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


def _slots(installation: "Installation") -> str:
    waiting = len(installation.slots.counting())  # one that cannot be read is said, by its path
    return f"{len(installation.slots.names())} files, each readable; uses of {waiting} keys wait there for the store"


def _mail(installation: "Installation") -> str:
    from keywright.store import mails

    with installation.database.read("usage") as connection:
        standing, trouble = mails.standing(connection), mails.trouble(connection)
    told = ", ".join(f"{many} {state}" for state, many in sorted(standing.items())) or "none yet"
    return f"{told}; the last trouble: {trouble}" if trouble else told


def _webhooks(installation: "Installation") -> str:
    from keywright.store import deliveries, webhooks

    with installation.database.read() as connection:
        states = webhooks.states(connection)
    with installation.database.read("usage") as connection:
        waiting = deliveries.unsent(connection)
    told = ", ".join(f"{many} {state}" for state, many in sorted(states.items())) or "none"
    return f"{told}; {waiting} to be sent again" if waiting else told


def _alerts(installation: "Installation") -> str:
    from keywright.store import alerts

    with installation.database.read("usage") as connection:
        standing = alerts.standing(connection)
    told = ", ".join(f"{standing[one]} {one}" for one in ("high", "medium", "low") if standing.get(one))
    return f"open: {told} (keywright alerts list --state open)" if told else "none open"


def _workers(installation: "Installation") -> str:
    from keywright.store import changes, workers

    if installation.database.is_sqlite:
        return "all processes on this database share its memory"
    with installation.database.read() as connection:
        many, silent = workers.count(connection), workers.behind(connection, changes.newest(connection))
    if silent:
        return f"{many}, of which {', '.join(silent)} have not confirmed the newest change: cut off, or dead and soon removed"
    return f"{many} answer from memory, and all have confirmed the newest change"
