"""``keywright portal``: links by which customers' admins come to their keys without a password of ours."""

from typing import TYPE_CHECKING, Any

import click

from keywright.cli.opening import (
    InOrder,
    Place,
    actor,
    anywhere,
    as_json,
    print_json,
    print_line,
    print_table,
    reached,
)

if TYPE_CHECKING:
    from keywright.model import PortalLink

_subject = click.option("--subject", metavar="NAME", help="What the host calls somebody.")


@click.group("portal", cls=InOrder)
def command() -> None:
    """Bring a customer's admin, whom the host has signed in, to their keys: by a link that works once."""


@command.command("open")
@click.argument("account")
@click.option("--subject", metavar="NAME", required=True, help="What the host calls them; told as who acts.")
@click.option("--keyspace", metavar="NAME", help="The only keyspace that they see.")
@click.option("--environment", metavar="NAME", help="The only environment of it that they see.")
@click.option("--name", help="What people call them.")
@click.option(
    "--role",
    type=click.Choice(["admin", "developer", "analyst", "auditor"]),
    default="admin",
    show_default=True,
    help="What they may do.",
)
@click.option(
    "--access", type=click.Choice(["all", "read_only", "restricted"]), help="What keys they can give."
)
@click.option("--scope", "scopes", multiple=True, help="Of restricted access. Repeatable.")
@click.option("--return-url", metavar="URL", help="Where they go from here: https://app.example.com/settings")
@click.option(
    "--preview", is_flag=True, help="Somebody of yours looks on with their eyes, and changes nothing."
)
@click.option("--quiet", is_flag=True, help="Print the link alone.")
@as_json
@anywhere
def open_portal(account: str, place: Place, *, quiet: bool, as_json: bool, **given: Any) -> None:
    """Make a link that leads to the keys of ACCOUNT, and print it this once."""
    from keywright import shown

    given["access"] = given["access"] or "all"
    with reached(place) as installation:
        link = installation.portal.open(account=account, **given, actor=actor())
    if as_json:
        print_json(shown.portal_link(link))
    elif quiet:
        click.echo(link.url)
    else:
        _show(link)


@command.command("list")
@click.option("--account", metavar="USERNAME", help="Of one account.")
@_subject
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many.  [50]")
@as_json
@anywhere
def list_visits(place: Place, *, as_json: bool, **narrow: Any) -> None:
    """List visits, newest first: those that wait, those that go on, and what ended within a day."""
    from keywright import shown
    from keywright.times import rfc3339

    with reached(place) as installation:
        page = installation.portal.list(**narrow)
    if as_json:
        items = [shown.portal_session(visit) for visit in page.items]
        print_json({"items": items, "next_cursor": page.next_cursor})
        return
    rows = [
        (one.id, one.account, one.subject, one.role, one.state, rfc3339(one.created_at)) for one in page.items
    ]
    print_table(("ID", "ACCOUNT", "SUBJECT", "ROLE", "STATE", "MADE"), rows, nothing="no visits")
    if page.next_cursor:
        click.echo(f"more: --cursor {page.next_cursor}", err=True)


@command.command("end")
@click.argument("visit", required=False)
@click.option("--account", metavar="USERNAME", help="Instead: all visits of an account.")
@_subject
@as_json
@anywhere
def end(visit: str | None, account: str | None, subject: str | None, place: Place, *, as_json: bool) -> None:
    """End one visit by its id, or those of an account, of one subject or all. They are refused at the next request."""
    from keywright import shown

    if (visit is None) == (account is None) or (subject is not None and account is None):
        raise click.UsageError("say the id of a visit, or --account and perhaps --subject")
    with reached(place) as installation:
        if account is not None:
            many = installation.portal.end_all(account=account, subject=subject, actor=actor())
            _say_ended(many, as_json=as_json)
            return
        ended = installation.portal.end(str(visit), actor=actor())
    if as_json:
        print_json(shown.portal_session(ended))
    else:
        print_line(f"ended: {ended.id}, {ended.subject} in {ended.account}")


def _say_ended(many: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"ended": many})
    else:
        click.echo(f"ended: {many}")


def _show(link: "PortalLink") -> None:
    from keywright.times import rfc3339

    visit = link.session
    looking = ", to look on" if visit.preview else ""
    print_line(f"{visit.subject}, {visit.role} of {visit.account}{looking}")
    click.echo(
        f"\n  {link.url}\n\nThis link works once, until {rfc3339(visit.link_ends_at)}; what it begins lasts until"
    )
    click.echo(f"{rfc3339(visit.ends_at)} at most. End it with: keywright portal end {visit.id}")
