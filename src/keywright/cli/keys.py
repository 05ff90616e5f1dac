"""``keywright keys``: the verbs on keys."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keywright.cli import imports
from keywright.cli.opening import (
    InOrder,
    Place,
    actor,
    anywhere,
    as_json,
    confirm,
    env_file,
    exported,
    instant,
    opened,
    print_export,
    print_json,
    print_line,
    print_record,
    print_table,
    quiet,
    reached,
    reserved,
    server,
    settings,
    warn_of_stale,
    where,
    working,
    yes,
)
from keywright.errors import Invalid
from keywright.times import parse_span, rfc3339

if TYPE_CHECKING:
    from keywright.cli.opening import EnvFile
    from keywright.client import Client
    from keywright.installation import Installation
    from keywright.model import Changed, Issued, Key, Page, Several, Verdict
    from keywright.presentations import Presentation


@click.group("keys", cls=InOrder)
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
@click.option("--preset", help="Scopes that the keyspace has under a name; --scope adds others.")
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
@quiet
@env_file
@as_json
@anywhere
def create(name: str | None, named: str | None, **given: Any) -> None:
    """Make a key. Its secret is shown once.

    On an empty database this makes a keyspace and an account called default, and takes production and access all.
    """
    if not (name or named):
        raise click.UsageError('a key needs a name: keywright keys create "CRM sync"')
    with reached(given["place"]) as installation, reserved(given["env_file"]) as file:
        issued, filled = _create(installation, named or name or "", given)
        show_issued(installation, issued, given, filled, file)


def _create(
    installation: "Installation | Client", name: str, given: dict[str, Any]
) -> "tuple[Issued, list[str]]":
    from keywright.cli import filling
    from keywright.desk.keys import UNSET

    expires, metadata = given["expires"], _metadata(given["metadata"])
    expires_at = instant(expires, installation.clock(), path="--expires") if expires else UNSET
    chosen, filled = filling.complete(installation, name, given)
    issued = installation.keys.create(
        name=name,
        **chosen,
        scopes=filling.scopes(installation, chosen["keyspace"], given) or None,
        description=given["description"],
        team=given["team"],
        application=given["application"],
        limits=list(given["limits"]) if given["limits"] else None,
        plan=given["plan"],
        allowed_ips=given["networks"] or None,
        metadata=metadata,
        expires_at=expires_at,
        actor=actor(),
    )
    return issued, filled


command.add_command(imports.command)


def _narrowing(run: Any) -> Any:
    """The options that a list of keys is narrowed by."""
    for option in (
        click.option("--keyspace", help="Of one keyspace."),
        click.option("--account", help="Of one account."),
        click.option("--environment", help="Of one environment."),
        click.option(
            "--state",
            type=click.Choice(["active", "disabled", "invalidated", "expired"]),
            help="In one state.",
        ),
        click.option("--team", help="Of one team."),
        click.option("--application", help="Of one application."),
        click.option(
            "--hygiene",
            type=click.Choice(
                [
                    "ending_unused",
                    "unused",
                    "expiring",
                    "maker_lost_rights",
                    "all_access",
                    "no_limit",
                    "no_expiry",
                    "old",
                ]
            ),
            help="Those that work and want looking after.",
        ),
        click.option("--search", "q", help="Part of a name, id, team, application or description."),
        click.option(
            "--sort",
            type=click.Choice(["-created_at", "created_at", "name", "-name"]),
            default="-created_at",
            help="Newest first, unless said.",
        ),
    )[::-1]:
        run = option(run)
    return run


@command.command("list")
@_narrowing
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many.  [50]")
@as_json
@anywhere
def list_keys(place: Place, *, as_json: bool, **narrow: Any) -> None:
    """List keys, newest first."""
    with reached(place) as installation:
        page = installation.keys.list(**narrow)
        show_page(page, narrow["q"], installation.clock(), as_json=as_json)


@command.command("export")
@_narrowing
@exported
@anywhere
def export(kind: str, place: Place, **narrow: Any) -> None:
    """Write every key of a list to standard output, and nothing of its secrets.

    In CSV a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    from keywright import shown

    with reached(place) as installation:
        _warn_of_secret(narrow["q"])
        now = installation.clock()
        found = (shown.exported(key, now) for key in installation.keys.walk(**narrow))
        print_export(found, shown.EXPORTED, kind)


@command.command("get")
@click.argument("key_id")
@as_json
@anywhere
def get(key_id: str, place: Place, *, as_json: bool) -> None:
    """Show one key."""
    with reached(place) as installation:
        show_key(installation.keys.get(key_id), installation.clock(), as_json=as_json)


@command.command("limits")
@click.argument("key_id")
@as_json
@anywhere
def limits(key_id: str, place: Place, *, as_json: bool) -> None:
    """Say how much is used of what a key is held to: its own limits, its account's and its plan's."""
    from keywright import limits as arithmetic
    from keywright import shown

    with reached(place) as installation:
        held = installation.keys.limits(key_id)
    if as_json:
        print_json({"items": [shown.standing(one) for one in held], "next_cursor": None})
        return
    rows = [
        (
            one.limit.name,
            arithmetic.spell(one.limit),
            one.whose,
            one.used,
            one.remaining,
            "never" if one.resets_at is None else rfc3339(one.resets_at)[:19].replace("T", " "),
        )
        for one in held
    ]
    print_table(("NAME", "LIMIT", "OF", "USED", "LEFT", "RESETS"), rows, nothing="no limits")


@command.command("edit")
@click.argument("key_id")
@click.option("--name", help="What people call it.")
@click.option("--description", help="What it is for.")
@click.option("--team", help="An empty text takes it away.")
@click.option("--application", help="An empty text takes it away.")
@click.option("--access", type=click.Choice(["all", "read_only", "restricted"]), help="What it may do.")
@click.option(
    "--scope", "scopes", multiple=True, help="With restricted access: all its scopes anew. Repeatable."
)
@click.option("--limit", "limits", multiple=True, help="All limits anew; --limit none takes them away.")
@click.option("--plan", help="none takes it away.")
@click.option("--expires", help="90d, a time, or never.")
@click.option(
    "--allow-ip", "networks", multiple=True, help="All networks anew; --allow-ip any takes them away."
)
@click.option("--metadata", help="A JSON object of your own.")
@as_json
@anywhere
def edit(key_id: str, place: Place, *, as_json: bool, **given: Any) -> None:
    """Change what is mentioned. The next verification obeys it, in every process."""
    with reached(place) as installation:
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
@quiet
@env_file
@as_json
@anywhere
def rotate(key_id: str, grace: str, start: str, *, force: bool, **given: Any) -> None:
    """Give a key a second secret, shown once; the id stays."""
    seconds = parse_span(grace, path="--grace")
    with reached(given["place"]) as installation, reserved(given["env_file"]) as file:
        issued = installation.keys.rotate(
            key_id, grace_seconds=seconds, start=start, force=force, actor=actor()
        )
        show_issued(installation, issued, given, [], file)


def _simple(verb: str, done: str, sentence: str) -> None:
    @command.command(verb, help=sentence)
    @click.argument("key_id")
    @as_json
    @anywhere
    def run(key_id: str, place: Place, *, as_json: bool) -> None:
        with reached(place) as installation:
            changed = getattr(installation.keys, verb)(key_id, actor=actor())
            show_changed(changed, installation.clock(), done, as_json=as_json)


for _verb, _done, _sentence in (
    ("finish", "rotation finished", "End the old secret of a rotation now."),
    ("cancel", "rotation cancelled", "End the new secret of a rotation now."),
    ("enable", "enabled", "Let a disabled key work again."),
):
    _simple(_verb, _done, _sentence)


@command.command("disable")
@click.argument("key_id")
@click.option("--for", "span", help="Only for so long: 1h. Then it works again by itself.")
@as_json
@anywhere
def disable(key_id: str, span: str | None, place: Place, *, as_json: bool) -> None:
    """Stop a key until it is enabled, or for a time."""
    seconds = None if span is None else parse_span(span, path="--for")
    with reached(place) as installation:
        changed = installation.keys.disable(key_id, for_seconds=seconds, actor=actor())
        show_changed(changed, installation.clock(), "disabled", as_json=as_json)


@command.command("invalidate")
@click.argument("key_id")
@click.option("--reason", help="Kept with the key and in the audit trail.")
@as_json
@anywhere
def invalidate(key_id: str, reason: str | None, place: Place, *, as_json: bool) -> None:
    """Stop a key for ever; it stays in the list."""
    with reached(place) as installation:
        changed = installation.keys.invalidate(key_id, reason=reason, actor=actor())
        show_changed(changed, installation.clock(), "invalidated", as_json=as_json)


@command.command("delete")
@click.argument("key_id")
@yes
@as_json
@anywhere
def delete(key_id: str, place: Place, *, yes: bool, as_json: bool) -> None:
    """Remove a key for good. Whatever uses it stops working."""
    with reached(place) as installation:
        key = installation.keys.get(key_id)
        last = f"last used {rfc3339(key.last_used_at)}" if key.last_used_at else "never used"
        last += f" from {key.last_used_ip}" if key.last_used_ip else ""
        confirm(
            f"Delete '{key.name}' ({key.id}), {last}? This cannot be undone, and whatever uses it stops.",
            yes=yes,
        )
        changed = installation.keys.delete(key_id, actor=actor())
        show_changed(changed, installation.clock(), "deleted", as_json=as_json)


@command.command("several")
@click.argument("act", type=click.Choice(["disable", "enable", "invalidate", "delete"]))
@click.argument("key_ids", nargs=-1, required=True)
@yes
@as_json
@anywhere
def several(act: str, key_ids: tuple[str, ...], place: Place, *, yes: bool, as_json: bool) -> None:
    """Disable, enable, invalidate or delete several keys, 200 at most, all at once.

    One that is not there, or cannot be changed so, is passed over and named.
    """
    if act in ("invalidate", "delete"):
        confirm(
            f"{act.capitalize()} {len(key_ids)} keys? This cannot be undone, and what uses them stops.",
            yes=yes,
        )
    with reached(place) as installation:
        _show_several(installation.keys.several(act, key_ids, actor=actor()), act, as_json=as_json)


def _show_several(changed: "Several", act: str, *, as_json: bool) -> None:
    from keywright import shown

    warn_of_stale(changed.propagation)
    if as_json:
        print_json(shown.several(changed))
        return
    done = {"disable": "disabled", "enable": "enabled", "invalidate": "invalidated", "delete": "deleted"}[act]
    print_line(f"{done}: {len(changed.done)} {'key' if len(changed.done) == 1 else 'keys'}")
    for key_id in changed.passed_over:
        print_line(f"passed over: {key_id}")


@command.command("purge")
@click.option("--older-than", default="30d", help="Only keys deleted longer ago than this.")
@yes
@as_json
@where
def purge(older_than: str, database: str | None, config: Path | None, *, yes: bool, as_json: bool) -> None:
    """Remove what deleted keys left behind.

    Until then the use of a deleted key is told from a guess, and its name stands in reports; from then on not.
    """
    seconds = parse_span(older_than, path="--older-than")
    with opened(database, config) as installation:
        confirm(f"Remove the tombstones of keys deleted more than {older_than} ago?", yes=yes)
        with working("purging"):
            count = installation.keys.purge(older_than=seconds, actor=actor())
        if as_json:
            print_json({"purged": count})
        else:
            click.echo(f"purged {count} deleted {'key' if count == 1 else 'keys'}")


@command.command("verify")
@click.option("--keyspace", required=True, help="Whose API was called.")
@click.option("--environment", help="Needed where the keyspace has several.")
@click.option("--scope", "scopes", multiple=True, help="A scope that is asked. Repeatable.")
@click.option("--method", help="The method that is asked.")
@as_json
@anywhere
def verify(
    keyspace: str,
    environment: str | None,
    scopes: tuple[str, ...],
    method: str | None,
    place: Place,
    *,
    as_json: bool,
) -> int:
    """Check a token that is given on standard input. Nothing is counted.

    Never on the command line, which other users of the machine can see. The exit code is 0 where it is valid.
    """
    token = sys.stdin.readline(1000).strip()
    asked = {
        "scopes": scopes,
        "method": method and method.upper(),
        "authenticate_only": not scopes and method is None,
    }
    with reached(place) as installation:
        verdict, said = _verified(installation, token, keyspace, environment, asked)
    if as_json:
        print_json(said)
    else:
        exactly = "" if verdict.code == verdict.reason else f" ({verdict.reason})"
        print_line(f"{verdict.code}{exactly}")
    return 0 if verdict.valid else 1


def _verified(
    installation: "Installation | Client",
    token: str,
    keyspace: str,
    environment: str | None,
    asked: dict[str, Any],
) -> "tuple[Verdict, Any]":
    """The verdict on a token, and the body of the matching HTTP answer."""
    from keywright import received
    from keywright.client import Client

    if isinstance(installation, Client):
        told = installation.verification(
            {"keyspace": keyspace, "environment": environment, "token": token, "dry_run": True, **asked}
        )
        return received.verdict(told, installation.clock(), keyspace, asked["scopes"]), told
    from keywright.installation import new_request_id
    from keywright.model import Ask
    from keywright.schemes import Presented
    from keywright.server.said import said

    ask = Ask(keyspace, environment, **asked, metered=False, recorded=False)
    presented = Presented.of_token(token.encode("utf-8", "replace"))
    verdict = installation.engine.verify(ask, presented, installation.clock(), request_id=new_request_id())
    return verdict, _plain(said(installation.engine, verdict))


def _plain(document: Any) -> Any:
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(document))


# ----------------------------------------------------------------------------------------- what is shown, for its kin too


def show_page(page: "Page", q: str | None, now: int, *, as_json: bool) -> None:
    """Print a page of keys that were searched for ``q``."""
    from keywright import shown

    _warn_of_secret(q)
    if as_json:
        print_json({"items": [shown.key(key, now) for key in page.items], "next_cursor": page.next_cursor})
        return
    managed = any(key.type == "m" for key in page.items)
    whose = ("BOUND TO", "SCOPES") if managed else ("ACCOUNT", "ENVIRONMENT", "ACCESS")
    columns = ("ID", "NAME", *whose, "STATE", "CREATED", "LAST USED")
    rows = [
        (k.id, k.name[:40], *_whose(k), k.state, _day(k.created_at), _day(k.last_used_at)) for k in page.items
    ]
    print_table(columns, rows, nothing="no keys")
    if page.next_cursor:
        click.echo(f"more: --cursor {page.next_cursor}", err=True)


def _whose(key: "Key") -> tuple[str, ...]:
    """Whose a key is and what it may do; of a management key, to what it is bound."""
    if key.type == "m":
        return _bound(key), ", ".join(key.scopes[:3]) + (" …" if len(key.scopes) > 3 else "")
    return key.account, key.environment, key.access


def _bound(key: "Key") -> str:
    bound = key.binding
    told = () if bound is None else (bound.account, bound.keyspace, bound.environment)
    return ", ".join(name for name in told if name) or "nothing"


def _warn_of_secret(q: str | None) -> None:
    from keywright.desk.listing import is_secret

    if is_secret(q):
        click.echo(
            "That was a secret. It was looked up by its id; now it stands in your shell's history.", err=True
        )


def show_key(key: "Key", now: int, *, as_json: bool) -> None:
    """Print one key."""
    from keywright import limits as arithmetic
    from keywright import shown

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
            *_place_of(key),
            ("scopes", list(key.scopes)),
            ("limits", [arithmetic.spell(limit) for limit in key.limits]),
            ("plan", key.plan),
            ("networks", list(key.allowed_ips)),
            ("state", key.state),
            ("reason", key.state_reason),
            ("until", record["disabled_until"]),
            ("ends in", ", ".join(f"{name} …{last}" for name, last in record["hint"].items())),
            ("rotating", None if rotation is None else f"the old secret ends {rotation['old_ends_at']}"),
            ("expires", record["expires_at"] or "never"),
            ("ends unused", record["ends_unused_at"] and f"{record['ends_unused_at']}, if nobody uses it"),
            ("created", f"{record['created_at']} by {key.created_by}"),
            ("last used", _last_used(record)),
        ]
    )


def _place_of(key: "Key") -> "list[tuple[str, str | None]]":
    if key.type == "m":
        return [("bound to", _bound(key))]
    return [
        ("keyspace", key.keyspace),
        ("account", key.account),
        ("environment", key.environment),
        ("team", key.team),
        ("application", key.application),
        ("access", key.access),
    ]


def show_changed(changed: "Changed", now: int, done: str, *, as_json: bool) -> None:
    """Print what a change came to."""
    from keywright import shown

    warn_of_stale(changed.propagation)
    if as_json:
        print_json(shown.changed(changed, now))
    else:
        until = f" until {rfc3339(changed.key.disabled_until)}" if changed.key.disabled_until else ""
        print_line(f"{done}: {changed.key.id} ({changed.key.name}), {changed.key.state}{until}")
        if changed.key.children and changed.key.state in ("invalidated", "deleted"):
            print_line(f"keys that it made go on working: {', '.join(changed.key.children)}")


def show_issued(
    installation: "Installation | Client",
    issued: "Issued",
    given: dict[str, Any],
    filled: list[str],
    file: "EnvFile | None",
) -> None:
    """Print a credential that is shown once, the way that was asked for."""
    from keywright import shown

    if file is not None:
        file.write(_variables(issued))
    warn_of_stale(issued.propagation)
    ways = _ways(installation, issued, given["place"])
    if given["as_json"]:
        print_json(shown.once(issued, ways, installation.clock()))
    elif given["quiet"]:
        click.echo(_told(issued, ways)[-1][1])
    else:
        for line in filled:
            print_line(line)
        _print_credential(issued, ways, given["place"], file)


def _ways(installation: "Installation | Client", issued: "Issued", place: Place) -> "Sequence[Presentation]":
    """Every way to send a credential: as the server says, or as it would be served from here."""
    from keywright.client import Client, Received
    from keywright.presentations import example_url, presentations

    if isinstance(installation, Client):
        return issued.presentations if isinstance(issued, Received) else ()
    keyspace = installation.keys.keyspace_of(issued.key)
    url = example_url(keyspace, issued.key, settings(place.database, place.config).base_url)
    return presentations(keyspace, issued.credential, issued.key.account, url)


def _print_credential(
    issued: "Issued", ways: "Sequence[Presentation]", place: Place, file: "EnvFile | None"
) -> None:
    from keywright import limits as arithmetic

    key, credential = issued.key, issued.credential
    print_record(
        [
            ("name", key.name),
            ("account", None if key.type == "m" else key.account),
            ("environment", None if key.type == "m" else key.environment),
            ("access", [key.access, *key.scopes]),
            ("limits", [arithmetic.spell(limit) for limit in key.limits]),
            ("expires", "never" if key.expires_at is None else rfc3339(key.expires_at)),
            ("old secret", _old_secret(key)),
            ("id", credential.id),
            *([] if file else _told(issued, ways)),
        ]
    )
    if file is not None:
        names = ", ".join(line.partition("=")[0] for line in _variables(issued))
        click.echo()
        print_line(f"The credential is in {file.path} ({names}), which only you can read, and nowhere else.")
        return
    click.echo(
        "\nThis is the only time that the secret is shown. Keep it where no browser and no repository gets it."
    )
    runs = "" if server(place) else ", while `keywright serve` runs"
    click.echo(f"\nTry it{runs}:\n\n{ways[0].curl}")


def _old_secret(key: "Key") -> str | None:
    """What becomes of the secret before this one."""
    new, *older = key.secrets
    if new.n == 1:
        return None
    until = max((one.ends_at or 0 for one in older), default=0)
    return f"goes on until {rfc3339(until)} at the latest" if until > new.created_at else "has ended"


def _told(issued: "Issued", ways: "Sequence[Presentation]") -> list[tuple[str, str]]:
    """The spellings of the secret that the keyspace's schemes carry; the token last, where one does."""
    from keywright.schemes import SCHEMES

    pairs = {SCHEMES[way.scheme].carries_pair for way in ways}
    told = []
    if True in pairs and issued.credential.secret is not None:
        told.append(("secret", issued.credential.secret.reveal()))
    if False in pairs:
        told.append(("token", issued.credential.token.reveal()))
    return told


def _variables(issued: "Issued") -> list[str]:
    credential = issued.credential
    lines = [f"API_KEY_ID={credential.id}", f"API_KEY_TOKEN={credential.token.reveal()}"]
    if credential.secret is not None:
        lines.append(f"API_KEY_SECRET={credential.secret.reveal()}")
    return lines


def _metadata(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("is not a JSON object such as '{\"order\": 7}'", path="--metadata") from None
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


def _last_used(record: dict[str, Any]) -> str:
    at, ip = record["last_used_at"], record["last_used_ip"]
    return "never" if at is None else f"{at} from {ip}" if ip else str(at)


def _day(at: int | None) -> str:
    return "–" if at is None else rfc3339(at)[:16].replace("T", " ")


__all__ = ["command", "show_changed", "show_issued", "show_key", "show_page"]
