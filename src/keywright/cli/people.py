"""``keywright people``: who signs in, and what they may do where."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from keywright.cli.opening import (
    InOrder,
    Place,
    actor,
    anywhere,
    as_json,
    confirm,
    opened,
    print_json,
    print_line,
    print_record,
    print_table,
    reached,
    server,
    settings,
    where,
    yes,
)
from keywright.errors import Invalid

if TYPE_CHECKING:
    from keywright.client import Client
    from keywright.desk.sessions import Invited
    from keywright.installation import Installation
    from keywright.model import Person
    from keywright.received import InvitedThere

_ROLES = click.Choice(["owner", "admin", "developer", "analyst", "auditor"])
_account = click.option("--account", metavar="USERNAME", required=True, help="In which account.")
_access = click.option(
    "--access", type=click.Choice(["all", "read_only", "restricted"]), help="What keys a developer can give."
)
_scopes = click.option("--scope", "scopes", multiple=True, help="Of restricted access. Repeatable.")


@click.group("people", cls=InOrder)
def command() -> None:
    """Who signs in: members of accounts by their role, and operators, who run the installation."""


@command.command("create")
@click.argument("email")
@click.option("--name", help="What people call them.")
@click.option("--account", metavar="USERNAME", help="The account they are to be a member of.")
@click.option("--role", type=_ROLES, help="What they are in it.")
@_access
@_scopes
@click.option("--operator", is_flag=True, help="They run the installation.")
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Take their password from standard input, instead of making a link.",
)
@as_json
@anywhere
def create(
    email: str,
    name: str | None,
    account: str | None,
    role: str | None,
    access: str | None,
    scopes: tuple[str, ...],
    *,
    operator: bool,
    password_stdin: bool,
    as_json: bool,
    place: Place,
) -> None:
    """Invite somebody, with a one-time link by which they choose a password."""
    if operator == (account is not None):
        raise Invalid("say --operator, or --account and --role")
    if server(place) and (operator or password_stdin):
        raise click.UsageError("--operator and --password-stdin work where the database is: without --url")
    password = _password(email, name) if password_stdin else None
    with reached(place) as installation:
        if operator:
            invited: Any = _here(installation).people.appoint(email, name=name, actor=actor())
        else:
            invited = installation.people.invite(
                email,
                account=account,
                role=role,
                name=name,
                access=access or "all",
                scopes=scopes,
                actor=actor(),
            )
        if password is None:
            _show_link(invited, "invitation", place, as_json=as_json)
            return
        person = _arrive(_here(installation), invited, password)
    _show(person, "created", as_json=as_json)


@command.command("list")
@click.option("--account", metavar="USERNAME", help="Members of one account.")
@click.option("--operators", is_flag=True, help="Operators only.")
@click.option("--search", "q", help="Part of an address or a name.")
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many.  [50]")
@as_json
@anywhere
def list_people(place: Place, *, as_json: bool, **narrow: Any) -> None:
    """List people, by address."""
    from keywright import shown

    with reached(place) as installation:
        page = installation.people.list(**narrow)
    if as_json:
        items = [shown.person(person) for person in page.items]
        print_json({"items": items, "next_cursor": page.next_cursor})
        return
    rows = [(one.email, one.name, one.state, _ways(one), _places(one)) for one in page.items]
    print_table(("ADDRESS", "NAME", "STATE", "SIGNS IN BY", "PLACES"), rows, nothing="nobody")
    if page.next_cursor:
        click.echo(f"more: --cursor {page.next_cursor}", err=True)


@command.command("get")
@click.argument("person")
@as_json
@anywhere
def get(person: str, place: Place, *, as_json: bool) -> None:
    """Show one, by address or id."""
    from keywright import shown

    with reached(place) as installation:
        found = installation.people.get(person)
    if as_json:
        print_json(shown.person(found))
        return
    record = shown.person(found)
    print_record([(field, record[field]) for field in ("id", "email", "name", "state", "created_at")])
    print_record([("signs in by", _ways(found)), ("places", _places(found))])


@command.command("role")
@click.argument("person")
@click.argument("role", type=_ROLES)
@_account
@_access
@_scopes
@as_json
@anywhere
def role(
    person: str,
    role: str,
    account: str,
    access: str | None,
    scopes: tuple[str, ...],
    place: Place,
    *,
    as_json: bool,
) -> None:
    """Give a member another role. They sign in anew."""
    with reached(place) as installation:
        changed = installation.people.change_role(
            person, account=account, role=role, access=access, scopes=scopes or None, actor=actor()
        )
    _show(changed, "changed", as_json=as_json)


@command.command("remove")
@click.argument("person")
@_account
@yes
@as_json
@anywhere
def remove(person: str, account: str, place: Place, *, yes: bool, as_json: bool) -> None:
    """Take somebody's place in an account away."""
    confirm(f"Remove {person} from {account}?", yes=yes)
    with reached(place) as installation:
        removed = installation.people.remove(person, account=account, actor=actor())
    _show(removed, "removed", as_json=as_json)


@command.command("disable")
@click.argument("person")
@as_json
@where
def disable(person: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Shut somebody out: sessions and the management keys they made are refused at once."""
    with opened(database, config) as installation:
        _show(installation.people.disable(person, actor=actor()), "disabled", as_json=as_json)


@command.command("enable")
@click.argument("person")
@as_json
@where
def enable(person: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Let somebody in again, and the management keys that stopped with them."""
    with opened(database, config) as installation:
        _show(installation.people.enable(person, actor=actor()), "enabled", as_json=as_json)


@command.command("dismiss")
@click.argument("person")
@as_json
@where
def dismiss(person: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Make an operator none."""
    with opened(database, config) as installation:
        _show(installation.people.dismiss(person, actor=actor()), "dismissed", as_json=as_json)


@command.command("unlink")
@click.argument("person")
@as_json
@where
def unlink(person: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Forget by which identity provider somebody comes, and take away what its groups gave. They are signed out."""
    with opened(database, config) as installation:
        _show(installation.people.unlink(person, actor=actor()), "unlinked", as_json=as_json)


@command.command("reset")
@click.argument("person")
@click.option("--factor", is_flag=True, help="Take their second factor away as well.")
@as_json
@where
def reset(person: str, *, factor: bool, as_json: bool, **given: Any) -> None:
    """Make the one-time link by which somebody chooses a new password. A second factor stays, unless --factor is given."""
    with opened(given["database"], given["config"]) as installation:
        invited = installation.people.reset(person, factor=factor, actor=actor())
    _show_link(invited, "reset", Place(given["database"], given["config"], None, None), as_json=as_json)


def _here(installation: "Installation | Client") -> "Installation":
    """The installation itself, where no server was named."""
    return cast("Installation", installation)


def _password(email: str, name: str | None) -> str:
    from keywright.desk import passwords

    return passwords.check(sys.stdin.readline().rstrip("\r\n"), [email, name or ""])


def _arrive(installation: "Installation", invited: "Invited", password: str) -> "Person":
    begun = installation.sessions.follow(invited.token, password)
    installation.sessions.end(begun.session, actor=actor())
    return begun.session.person


def _show_link(invited: "Invited | InvitedThere", kind: str, place: Place, *, as_json: bool) -> None:
    from keywright import shown
    from keywright.times import rfc3339

    assert invited.person is not None
    told = getattr(invited, "url", None)  # by the server
    url = told or settings(place.database, place.config).link(invited.token)
    ends_at = rfc3339(invited.ends_at)
    if as_json:
        link = {"url": url, "token": invited.token, "ends_at": ends_at}
        print_json({"person": shown.person(invited.person), kind: link})
        return
    print_line(f"{invited.person.email}, {_places(invited.person)}")
    click.echo(f"\n  {url}\n\nThis link works once, until {ends_at}; whoever has it chooses the password.")


def _show(person: "Person", done: str, *, as_json: bool) -> None:
    from keywright import shown

    if as_json:
        print_json(shown.person(person))
    else:
        print_line(f"{done}: {person.email}, {person.state}, {_places(person)}")


def _ways(person: "Person") -> str:
    """By what somebody signs in: the providers, and the password."""
    ways = [one.issuer for one in person.identities] + (["password"] if person.has_password else [])
    return ", ".join(ways) or "nothing yet"


def _places(person: "Person") -> str:
    by_group = {True: " (by group)", False: ""}
    places = [f"operator{by_group[person.operator_by_groups]}"] if person.operator else []
    for held in person.memberships:
        waits = by_group[held.by_groups] if held.accepted_at is not None else " (invited)"
        places.append(f"{held.role} of {held.account}{waits}")
    return ", ".join(places) or "no place anywhere"
