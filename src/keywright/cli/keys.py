"""``keywright keys``: the verbs on keys."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from keywright import limits as arithmetic
from keywright import profiles, shown
from keywright.cli.opening import (
    actor,
    as_json,
    confirm,
    instant,
    opened,
    print_json,
    print_record,
    print_table,
    settings,
    where,
)
from keywright.desk.grants import EVERYTHING, Reach
from keywright.desk.keys import UNSET, Keys, is_secret
from keywright.errors import CannotStart, Invalid
from keywright.installation import Installation, new_request_id
from keywright.model import Changed, Issued, Key, Keyspace
from keywright.presentations import presentations
from keywright.schemes import Presented
from keywright.times import parse_span, rfc3339


@click.group("keys")
def command() -> None:
    """Create, list, edit, rotate, stop and delete keys."""


@command.command("create")
@click.argument("name", required=False)
@click.option("--name", "named", help="The same as the argument.")
@click.option("--keyspace", help="Whose API the key opens.")
@click.option("--account", help="Whose key it is.")
@click.option("--environment", help="Where it works, for good.")
@click.option("--access", type=click.Choice(["all", "read_only", "restricted"]), help="What it may do.")
@click.option("--scope", "scopes", multiple=True, help="With restricted access: a scope. Repeatable.")
@click.option("--description", help="What it is for.")
@click.option("--team", help="Whose integration it is.")
@click.option("--application", help="What uses it.")
@click.option("--limit", "limits", multiple=True, help="10000/day, rate:100/10s or credits:5000. Repeatable.")
@click.option("--plan", help="A named set of limits of the keyspace.")
@click.option("--expires", help="90d, a time, or never.")
@click.option(
    "--allow-ip", "networks", multiple=True, help="An address or network that may use it. Repeatable."
)
@click.option("--metadata", help="A JSON object of your own.")
@click.option("--quiet", is_flag=True, help="Print the secret alone: KEY=$(keywright keys create … --quiet).")
@click.option(
    "--env-file", type=click.Path(path_type=Path, dir_okay=False), help="Write the credential to a new file."
)
@as_json
@where
def create(name: str | None, named: str | None, **given: Any) -> None:
    """Make a key. Its secret is shown once.

    On an empty database this makes a keyspace and an account called default, and takes production and access all.
    """
    with opened(given["database"], given["config"]) as installation:
        chosen, filled = _fill_in(installation, given)
        if not (name or named):
            raise click.UsageError('a key needs a name: keywright keys create "CRM sync"')
        now = installation.clock()
        issued = installation.keys.create(
            name=named or name or "",
            **chosen,
            scopes=given["scopes"] or None,
            description=given["description"],
            team=given["team"],
            application=given["application"],
            limits=list(given["limits"]) if given["limits"] else None,
            plan=given["plan"],
            allowed_ips=given["networks"] or None,
            metadata=_metadata(given["metadata"]),
            expires_at=UNSET
            if given["expires"] is None
            else instant(given["expires"], now, path="--expires"),
            actor=actor(),
        )
        show_issued(installation, issued, given, filled)


@command.command("list")
@click.option("--keyspace")
@click.option("--account")
@click.option("--environment")
@click.option("--state", type=click.Choice(["active", "disabled", "invalidated", "expired"]))
@click.option("--team")
@click.option("--application")
@click.option("--search", "q", help="Part of a name, id, team, application or description.")
@click.option(
    "--sort", type=click.Choice(["-created_at", "created_at", "name", "-name"]), default="-created_at"
)
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50)
@as_json
@where
def list_keys(database: str | None, config: Path | None, *, as_json: bool, **narrow: Any) -> None:
    """List keys, newest first."""
    with opened(database, config) as installation:
        show_page(installation, EVERYTHING, narrow, as_json=as_json)


@command.command("get")
@click.argument("key_id")
@as_json
@where
def get(key_id: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Show one key."""
    with opened(database, config) as installation:
        show_key(installation.keys.get(key_id), installation.clock(), as_json=as_json)


@command.command("edit")
@click.argument("key_id")
@click.option("--name")
@click.option("--description")
@click.option("--team", help="An empty text takes it away.")
@click.option("--application", help="An empty text takes it away.")
@click.option("--access", type=click.Choice(["all", "read_only", "restricted"]))
@click.option("--scope", "scopes", multiple=True)
@click.option("--limit", "limits", multiple=True, help="All limits anew; --limit none takes them away.")
@click.option("--plan", help="none takes it away.")
@click.option("--expires", help="90d, a time, or never.")
@click.option(
    "--allow-ip", "networks", multiple=True, help="All networks anew; --allow-ip any takes them away."
)
@click.option("--metadata", help="A JSON object of your own.")
@as_json
@where
def edit(key_id: str, database: str | None, config: Path | None, *, as_json: bool, **given: Any) -> None:
    """Change what is mentioned. The next verification obeys it, in every process."""
    with opened(database, config) as installation:
        changes = _changes(given, installation.clock())
        if not changes:
            raise click.UsageError("say what to change; see keywright keys edit --help")
        changed = installation.keys.edit(key_id, **changes, actor=actor())
        show_changed(changed, installation.clock(), "edited", as_json=as_json)


@command.command("rotate")
@click.argument("key_id")
@click.option("--grace", default="0s", help="How long the old secret goes on: 24h. Default: it ends at once.")
@click.option(
    "--start", type=click.Choice(["now", "first_use"]), default="now", help="When the grace begins."
)
@click.option("--force", is_flag=True, help="End every earlier secret now, whatever is under way: a leak.")
@click.option("--quiet", is_flag=True, help="Print the secret alone.")
@click.option(
    "--env-file", type=click.Path(path_type=Path, dir_okay=False), help="Write the credential to a new file."
)
@as_json
@where
def rotate(key_id: str, grace: str, start: str, *, force: bool, **given: Any) -> None:
    """Give a key a second secret, shown once; the id stays."""
    with opened(given["database"], given["config"]) as installation:
        seconds = parse_span(grace, path="--grace")
        issued = installation.keys.rotate(
            key_id, grace_seconds=seconds, start=start, force=force, actor=actor()
        )
        show_issued(installation, issued, given, [])


_VERBS: dict[str, Callable[..., Changed]] = {
    "finish": Keys.finish,
    "cancel": Keys.cancel,
    "disable": Keys.disable,
    "enable": Keys.enable,
}


def _simple(verb: str, done: str, sentence: str) -> None:
    @command.command(verb, help=sentence)
    @click.argument("key_id")
    @as_json
    @where
    def run(key_id: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
        with opened(database, config) as installation:
            changed = _VERBS[verb](installation.keys, key_id, actor=actor())
            show_changed(changed, installation.clock(), done, as_json=as_json)


for _verb, _done, _sentence in (
    ("finish", "rotation finished", "End the old secret of a rotation now."),
    ("cancel", "rotation cancelled", "End the new secret of a rotation now."),
    ("disable", "disabled", "Stop a key until it is enabled."),
    ("enable", "enabled", "Let a disabled key work again."),
):
    _simple(_verb, _done, _sentence)


@command.command("invalidate")
@click.argument("key_id")
@click.option("--reason", help="Kept with the key and in the audit trail.")
@as_json
@where
def invalidate(
    key_id: str, reason: str | None, database: str | None, config: Path | None, *, as_json: bool
) -> None:
    """Stop a key for ever; it stays in the list."""
    with opened(database, config) as installation:
        changed = installation.keys.invalidate(key_id, reason=reason, actor=actor())
        show_changed(changed, installation.clock(), "invalidated", as_json=as_json)


@command.command("delete")
@click.argument("key_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@where
def delete(key_id: str, database: str | None, config: Path | None, *, yes: bool, as_json: bool) -> None:
    """Remove a key for good. Whatever uses it stops working."""
    with opened(database, config) as installation:
        key = installation.keys.get(key_id)
        last = f"last used {rfc3339(key.last_used_at)}" if key.last_used_at else "never used"
        confirm(
            f"Delete {key.name!r} ({key.id}), {last}? This cannot be undone, and whatever uses it stops.",
            yes=yes,
        )
        changed = installation.keys.delete(key_id, actor=actor())
        show_changed(changed, installation.clock(), "deleted", as_json=as_json)


@command.command("purge")
@click.option("--older-than", default="30d", help="Only keys deleted longer ago than this.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@where
def purge(older_than: str, database: str | None, config: Path | None, *, yes: bool, as_json: bool) -> None:
    """Remove what deleted keys left behind; their later use looks like any guess from then on."""
    seconds = parse_span(older_than, path="--older-than")
    with opened(database, config) as installation:
        confirm(f"Remove the tombstones of keys deleted more than {older_than} ago?", yes=yes)
        count = installation.keys.purge(older_than=seconds, actor=actor())
        if as_json:
            print_json({"purged": count})
        else:
            click.echo(f"purged {count} deleted keys")


@command.command("verify")
@click.option("--keyspace", required=True)
@click.option("--environment")
@click.option("--scope", "scopes", multiple=True)
@click.option("--method")
@where
def verify(
    keyspace: str, environment: str | None, scopes: tuple[str, ...], method: str | None, **given: Any
) -> None:
    """Check a token that is read from standard input, never from the command line, which others can see."""
    from keywright.model import Ask

    token = sys.stdin.readline().strip().encode("utf-8", "replace")
    with opened(given["database"], given["config"]) as installation:
        ask = Ask(
            keyspace,
            environment,
            scopes,
            method,
            authenticate_only=not scopes and method is None,
            metered=False,
        )
        verdict = installation.engine.verify(
            ask, Presented.of_token(token), installation.clock(), request_id=new_request_id()
        )
    click.echo(verdict.code if verdict.code == verdict.reason else f"{verdict.code} ({verdict.reason})")
    raise SystemExit(0 if verdict.valid else 1)


# ----------------------------------------------------------------------------------------- what is shown, for its kin too


def show_page(installation: Installation, reach: Reach, narrow: dict[str, Any], *, as_json: bool) -> None:
    """Print a page of keys."""
    page, now = installation.keys.list(**narrow, reach=reach), installation.clock()
    if is_secret(narrow.get("q")):
        click.echo(
            "That was a secret. It was looked up by its id; now it stands in your shell's history.", err=True
        )
    if as_json:
        print_json({"items": [shown.key(key, now) for key in page.items], "next_cursor": page.next_cursor})
        return
    columns = ("ID", "NAME", "ACCOUNT", "ENVIRONMENT", "ACCESS", "STATE", "CREATED", "LAST USED")
    rows = [
        (
            k.id,
            k.name[:40],
            k.account,
            k.environment,
            k.access,
            k.state,
            _day(k.created_at),
            _day(k.last_used_at),
        )
        for k in page.items
    ]
    print_table(columns, rows, nothing="no keys")
    if page.next_cursor:
        click.echo(f"more: --cursor {page.next_cursor}", err=True)


def show_key(key: Key, now: int, *, as_json: bool) -> None:
    """Print one key."""
    if as_json:
        print_json(shown.key(key, now))
        return
    record = shown.key(key, now)
    rotation = record["rotation"]
    print_record(
        [
            ("id", key.id),
            ("name", key.name),
            ("description", key.description),
            ("keyspace", key.keyspace),
            ("account", key.account),
            ("environment", key.environment),
            ("team", key.team),
            ("application", key.application),
            ("access", key.access),
            ("scopes", list(key.scopes)),
            ("limits", [arithmetic.spell(limit) for limit in key.limits]),
            ("plan", key.plan),
            ("networks", list(key.allowed_ips)),
            ("state", key.state),
            ("reason", key.state_reason),
            ("ends in", ", ".join(f"{name} …{last}" for name, last in record["hint"].items())),
            ("rotating", None if rotation is None else f"the old secret ends {rotation['old_ends_at']}"),
            ("expires", record["expires_at"] or "never"),
            ("created", f"{record['created_at']} by {key.created_by}"),
            ("last used", record["last_used_at"] or "never"),
        ]
    )


def show_changed(changed: Changed, now: int, done: str, *, as_json: bool) -> None:
    """Print what a change came to."""
    if as_json:
        print_json(shown.changed(changed, now))
    else:
        click.echo(f"{done}: {changed.key.id} ({changed.key.name}), {changed.key.state}")


def show_issued(installation: Installation, issued: Issued, given: dict[str, Any], filled: list[str]) -> None:
    """Print a credential that is shown once, the way that was asked for."""
    keyspace = installation.keys.keyspace_of(issued.key)
    in_force = settings(given["database"], given["config"])
    url = keyspace.url or f"{in_force.base_url}/k/{issued.key.keyspace}.{issued.key.environment}/whoami"
    if given["env_file"]:
        _write_env_file(given["env_file"], issued)
    if given["as_json"]:
        print_json(shown.issued(issued, keyspace, url, installation.clock()))
        return
    if given["quiet"]:
        click.echo(issued.credential.token.reveal())
        return
    for line in filled:
        click.echo(line)
    _print_credential(issued, keyspace, url)


def _print_credential(issued: Issued, keyspace: Keyspace, url: str) -> None:
    credential = issued.credential
    print_record(
        [
            ("name", issued.key.name),
            ("account", issued.key.account),
            ("environment", issued.key.environment),
            ("access", [issued.key.access, *issued.key.scopes]),
            ("limits", [arithmetic.spell(limit) for limit in issued.key.limits]),
            ("expires", "never" if issued.key.expires_at is None else rfc3339(issued.key.expires_at)),
            ("id", credential.id),
            ("secret", None if credential.secret is None else credential.secret.reveal()),
            ("token", credential.token.reveal()),
        ]
    )
    click.echo(
        "\nThis is the only time that the secret is shown. Keep it where no browser and no repository gets it."
    )
    shown_first = presentations(keyspace, credential, issued.key.account, url)[0]
    click.echo(f"\nTry it, while `keywright serve` runs:\n\n{shown_first.curl}")


def _write_env_file(path: Path, issued: Issued) -> None:
    credential = issued.credential
    lines = [f"API_KEY_ID={credential.id}", f"API_KEY_TOKEN={credential.token.reveal()}"]
    if credential.secret is not None:
        lines.append(f"API_KEY_SECRET={credential.secret.reveal()}")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


# --------------------------------------------------------------------------------------------- what is filled in


def _fill_in(installation: Installation, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Complete what was left out where there is one candidate, and say so; all that is still open is said at once."""
    if given["env_file"] is not None and given["env_file"].exists():
        raise CannotStart(f"{given['env_file']} exists already; nothing was made")
    filled: list[str] = []
    keyspaces = installation.keyspaces.list()
    first = not keyspaces and given["keyspace"] is None
    if first:
        installation.keyspaces.apply(profiles.source("default"), actor=actor())
        filled.append("Made the keyspace `default`, from the profile of that name.")
        keyspaces = installation.keyspaces.list()
    chosen: dict[str, Any] = {name: given[name] for name in ("keyspace", "account", "environment", "access")}
    names = [applied.keyspace.name for applied in keyspaces]
    chosen["keyspace"] = _one("--keyspace", given["keyspace"], names)
    if given["account"] is None:
        chosen["account"] = _account(installation, filled)
    space = next(
        (applied.keyspace for applied in keyspaces if applied.keyspace.name == chosen["keyspace"]), None
    )
    if first and given["environment"] is None:
        chosen["environment"] = "production"
        filled.append("Took the environment `production`.")
    elif space is not None:
        chosen["environment"] = _one("--environment", given["environment"], list(space.environments))
    if given["access"] is None and not given["scopes"]:
        if first:
            chosen["access"] = "all"
            filled.append("Took access `all`: the key may do everything.")
        elif space is not None and space.access.default is None:
            chosen["access"] = _one("--access", None, list(space.access.classes))
    return chosen, filled


def _account(installation: Installation, filled: list[str]) -> str:
    page = installation.accounts.list(limit=20)
    if not page.items:
        installation.accounts.create("default", actor=actor())
        filled.append("Made the account `default`.")
        return "default"
    return _one("--account", None, [account.username for account in page.items])


def _one(flag: str, given: str | None, candidates: list[str]) -> str:
    if given is not None:
        return given
    if len(candidates) == 1:
        return candidates[0]
    raise Invalid(f"say which: {', '.join(candidates) or 'there is none yet'}", path=flag)


def _metadata(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("is not JSON", path="--metadata") from None
    return value


def _changes(given: dict[str, Any], now: int) -> dict[str, Any]:
    changes = {
        field: given[field]
        for field in ("name", "description", "team", "application", "access")
        if given[field] is not None
    }
    if given["scopes"]:
        changes["scopes"] = list(given["scopes"])
    if given["limits"]:
        changes["limits"] = [] if given["limits"] == ("none",) else list(given["limits"])
    if given["networks"]:
        changes["allowed_ips"] = [] if given["networks"] == ("any",) else list(given["networks"])
    if given["plan"] is not None:
        changes["plan"] = None if given["plan"] == "none" else given["plan"]
    if given["expires"] is not None:
        changes["expires_at"] = instant(given["expires"], now, path="--expires")
    if given["metadata"] is not None:
        changes["metadata"] = _metadata(given["metadata"])
    return changes


def _day(at: int | None) -> str:
    return "–" if at is None else rfc3339(at)[:16].replace("T", " ")


__all__ = ["command", "show_changed", "show_issued", "show_key", "show_page"]
