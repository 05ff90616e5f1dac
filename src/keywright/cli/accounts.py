"""``keywright accounts``: the verbs on accounts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keywright.cli.opening import (
    InOrder,
    actor,
    as_json,
    opened,
    print_json,
    print_line,
    print_record,
    print_table,
    warn_of_stale,
    where,
)

if TYPE_CHECKING:
    from keywright.model import Account


@click.group("accounts", cls=InOrder)
def command() -> None:
    """Create, suspend and activate accounts. An account is a customer, whose keys they are."""


@command.command("create")
@click.argument("username")
@click.option("--name", help="What people call it.")
@click.option("--pending", is_flag=True, help="Not active yet: its keys do not work, and none can be made.")
@click.option("--limit", "shared", multiple=True, help="A limit that all its keys share. Repeatable.")
@as_json
@where
def create(
    username: str, name: str | None, shared: tuple[str, ...], *, pending: bool, as_json: bool, **given: Any
) -> None:
    """Make an account, active unless --pending is said."""
    with opened(given["database"], given["config"]) as installation:
        made = installation.accounts.create(
            username, name=name, pending=pending, limits_=shared, actor=actor()
        )
        _show(made, "created", as_json=as_json)


@command.command("list")
@click.option("--state", type=click.Choice(["pending", "active", "suspended"]), help="In one state.")
@click.option("--search", "q", help="Part of a username or name.")
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many.  [50]")
@as_json
@where
def list_accounts(database: str | None, config: Path | None, *, as_json: bool, **narrow: Any) -> None:
    """List accounts."""
    from keywright import shown

    with opened(database, config) as installation:
        page = installation.accounts.list(**narrow)
    if as_json:
        print_json(
            {"items": [shown.account(account) for account in page.items], "next_cursor": page.next_cursor}
        )
        return
    rows = [(account.username, account.name, account.state) for account in page.items]
    print_table(("USERNAME", "NAME", "STATE"), rows, nothing="no accounts")
    if page.next_cursor:
        click.echo(f"more: --cursor {page.next_cursor}", err=True)


@command.command("get")
@click.argument("username")
@as_json
@where
def get(username: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Show one account."""
    from keywright import limits, shown

    with opened(database, config) as installation:
        account = installation.accounts.get(username)
    record = shown.account(account)
    if as_json:
        print_json(record)
        return
    print_record([(field, record[field]) for field in ("id", "username", "name", "state", "created_at")])
    print_record([("limits", [limits.spell(limit) for limit in account.limits])])


@command.command("limit")
@click.argument("username")
@click.option(
    "--limit", "shared", multiple=True, required=True, help="All anew; --limit none takes them away."
)
@as_json
@where
def limit(
    username: str, shared: tuple[str, ...], database: str | None, config: Path | None, *, as_json: bool
) -> None:
    """Set the limits that all keys of an account share."""
    with opened(database, config) as installation:
        given = () if shared == ("none",) else shared
        _show(installation.accounts.limit(username, given, actor=actor()), "limited", as_json=as_json)


@command.command("suspend")
@click.argument("username")
@as_json
@where
def suspend(username: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Stop every key of an account until it is activated."""
    with opened(database, config) as installation:
        _show(installation.accounts.suspend(username, actor=actor()), "suspended", as_json=as_json)


@command.command("activate")
@click.argument("username")
@as_json
@where
def activate(username: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Let a pending or suspended account's keys work."""
    with opened(database, config) as installation:
        _show(installation.accounts.activate(username, actor=actor()), "activated", as_json=as_json)


def _show(account: "Account", done: str, *, as_json: bool) -> None:
    from keywright import shown

    warn_of_stale(account.propagation)
    if as_json:
        print_json(shown.account(account))
    else:
        print_line(f"{done}: {account.username}, {account.state}")
