"""``keywright accounts``: the verbs on accounts."""

from typing import TYPE_CHECKING, Any

import click

from keywright.cli.opening import (
    InOrder,
    Place,
    actor,
    anywhere,
    as_json,
    opened,
    print_json,
    print_line,
    print_record,
    print_table,
    reached,
    settings,
    warn_of_stale,
    where,
)
from keywright.times import rfc3339

if TYPE_CHECKING:
    from keywright.desk.sessions import Invited
    from keywright.model import Account, Issued, Keyspace


@click.group("accounts", cls=InOrder)
def command() -> None:
    """Create, suspend and activate accounts. An account is a customer, whose keys they are."""


@command.command("create")
@click.argument("username")
@click.option("--name", help="What people call it.")
@click.option("--pending", is_flag=True, help="Not active yet: its keys do not work, and none can be made.")
@click.option("--limit", "shared", multiple=True, help="A limit that all its keys share. Repeatable.")
@as_json
@anywhere
def create(
    username: str, name: str | None, shared: tuple[str, ...], place: Place, *, pending: bool, as_json: bool
) -> None:
    """Make an account, active unless --pending is said."""
    with reached(place) as installation:
        made = installation.accounts.create(
            username, name=name, pending=pending, limits_=shared, actor=actor()
        )
        _show(made, "created", as_json=as_json)


@command.command("onboard")
@click.argument("username")
@click.option("--keyspace", required=True, help="The keyspace that their keys are of.")
@click.option("--admin", "email", metavar="EMAIL", required=True, help="Who is to be the account's owner.")
@click.option("--name", help="What people call the account.")
@click.option("--access", type=click.Choice(["all", "read_only"]), help="What the first keys may do.")
@as_json
@where
def onboard(
    username: str,
    keyspace: str,
    email: str,
    name: str | None,
    access: str | None,
    *,
    as_json: bool,
    **given: Any,
) -> None:
    """Make an account with all it needs to begin: an invitation for its owner, and a key for each environment."""
    from keywright.desk import fields

    fields.email(email)
    with opened(given["database"], given["config"]) as installation:
        space = installation.keyspaces.get(keyspace).keyspace
        chosen = access or space.access.default or "all"
        made = installation.accounts.create(username, name=name, actor=actor())
        invited = installation.people.invite(email, account=username, role="owner", actor=actor())
        issued = [
            installation.keys.create(
                keyspace=keyspace,
                account=username,
                environment=environment,
                name=f"First {environment} key",
                access=chosen,
                actor=actor(),
            )
            for environment in space.environments
        ]
        now = installation.clock()
    _show_onboarded(made, space, invited, issued, now, given, as_json=as_json)


@command.command("list")
@click.option("--state", type=click.Choice(["pending", "active", "suspended"]), help="In one state.")
@click.option("--search", "q", help="Part of a username or name.")
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many.  [50]")
@as_json
@anywhere
def list_accounts(place: Place, *, as_json: bool, **narrow: Any) -> None:
    """List accounts."""
    from keywright import shown

    with reached(place) as installation:
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
@anywhere
def get(username: str, place: Place, *, as_json: bool) -> None:
    """Show one account."""
    from keywright import limits, shown

    with reached(place) as installation:
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
@anywhere
def limit(username: str, shared: tuple[str, ...], place: Place, *, as_json: bool) -> None:
    """Set the limits that all keys of an account share."""
    with reached(place) as installation:
        given = () if shared == ("none",) else shared
        _show(installation.accounts.limit(username, given, actor=actor()), "limited", as_json=as_json)


@command.command("suspend")
@click.argument("username")
@as_json
@anywhere
def suspend(username: str, place: Place, *, as_json: bool) -> None:
    """Stop every key of an account until it is activated."""
    with reached(place) as installation:
        _show(installation.accounts.suspend(username, actor=actor()), "suspended", as_json=as_json)


@command.command("activate")
@click.argument("username")
@as_json
@anywhere
def activate(username: str, place: Place, *, as_json: bool) -> None:
    """Let a pending or suspended account's keys work."""
    with reached(place) as installation:
        _show(installation.accounts.activate(username, actor=actor()), "activated", as_json=as_json)


def _show_onboarded(
    account: "Account",
    space: "Keyspace",
    invited: "Invited",
    issued: "list[Issued]",
    now: int,
    given: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    from keywright import shown
    from keywright.presentations import example_url

    found = settings(given["database"], given["config"])
    ends_at, url = rfc3339(invited.ends_at), found.link(invited.token)
    email = "" if invited.person is None else invited.person.email
    if as_json:
        keys = [shown.issued(one, space, example_url(space, one.key, found.base_url), now) for one in issued]
        assert invited.person is not None
        link = {"url": url, "token": invited.token, "ends_at": ends_at}
        print_json(
            {
                "account": shown.account(account),
                "person": shown.person(invited.person),
                "invitation": link,
                "keys": keys,
            }
        )
        return
    print_line(f"account      {account.username}, {account.state}")
    print_line(f"owner        {email}")
    print_line(f"             {url}")
    print_line(f"             works once, until {ends_at}; send it to them and to nobody else")
    for one in issued:
        print_line(f"{one.key.environment:<12} {one.key.id}")
        for spelled in _spelled(space, one):
            print_line(f"             {spelled}")
    click.echo("\nThe secrets above are shown this once.")


def _spelled(space: "Keyspace", issued: "Issued") -> list[str]:
    """What is sent, as far as the keyspace's schemes send it: a token, a pair, or both."""
    from keywright.schemes import SCHEMES

    pairs = {SCHEMES[scheme].carries_pair for scheme in space.schemes}
    found = [f"token   {issued.credential.token.reveal()}"] if False in pairs else []
    if True in pairs and issued.credential.secret is not None:
        found.append(f"secret  {issued.credential.secret.reveal()}")
    return found


def _show(account: "Account", done: str, *, as_json: bool) -> None:
    from keywright import shown

    warn_of_stale(account.propagation)
    if as_json:
        print_json(shown.account(account))
    else:
        print_line(f"{done}: {account.username}, {account.state}")
