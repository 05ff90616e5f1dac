"""``keywright webhooks``: endpoints that are told what happens."""

from typing import TYPE_CHECKING, Any

import click

from keywright.cli.opening import (
    InOrder,
    Place,
    actor,
    anywhere,
    as_json,
    confirm,
    past,
    print_json,
    print_line,
    print_record,
    print_table,
    reached,
    yes,
)
from keywright.events import EVENTS, UNASKED
from keywright.times import parse_span

if TYPE_CHECKING:
    from keywright.model import Endpoint, IssuedEndpoint

_SUBSCRIBABLE = [name for name in EVENTS if name not in UNASKED]
_events = click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice(_SUBSCRIBABLE),
    help="Tell it of this. Repeatable.  [all]",
)


@click.group("webhooks", cls=InOrder)
def command() -> None:
    """Endpoints that are told what happens. Messages are delivered while `keywright serve` runs."""


@command.command("create")
@click.argument("address", metavar="URL")
@_events
@click.option("--description", help="What it is for.")
@click.option("--account", help="Only what happens to an account and its keys.")
@click.option("--keyspace", help="Only what happens to keys of a keyspace.")
@click.option("--environment", help="Only what happens to keys of an environment of the keyspace.")
@click.option("--quiet", is_flag=True, help="Print the signing secret alone.")
@as_json
@anywhere
def create(address: str, place: Place, *, quiet: bool, as_json: bool, **given: Any) -> None:
    """Make an endpoint. Its signing secret is shown once."""
    with reached(place) as installation:
        issued = installation.webhooks.create(url=address, actor=actor(), **given)
        _show_issued(issued, installation.clock(), quiet=quiet, as_json=as_json)


@command.command("list")
@click.option("--account", help="Of one account.")
@click.option("--state", type=click.Choice(["pending", "active", "disabled"]), help="In one state.")
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many.  [50]")
@as_json
@anywhere
def list_webhooks(place: Place, *, as_json: bool, **narrow: Any) -> None:
    """List endpoints."""
    from keywright import shown

    with reached(place) as installation:
        page, now = installation.webhooks.list(**narrow), installation.clock()
    if as_json:
        print_json(
            {"items": [shown.webhook(one, now) for one in page.items], "next_cursor": page.next_cursor}
        )
        return
    rows = [(one.id, one.state, one.binding.account or "all", one.url) for one in page.items]
    print_table(("ID", "STATE", "ACCOUNT", "URL"), rows, nothing="no webhooks")
    if page.next_cursor:
        click.echo(f"more: --cursor {page.next_cursor}", err=True)


@command.command("get")
@click.argument("webhook_id")
@as_json
@anywhere
def get(webhook_id: str, place: Place, *, as_json: bool) -> None:
    """Show one endpoint."""
    with reached(place) as installation:
        _show(installation.webhooks.get(webhook_id), installation.clock(), as_json=as_json)


@command.command("edit")
@click.argument("webhook_id")
@click.option("--to", "address", metavar="URL", help="Another address.")
@_events
@click.option("--all-events", is_flag=True, help="Tell it of everything.")
@click.option("--description", help="What it is for.")
@as_json
@anywhere
def edit(
    webhook_id: str,
    place: Place,
    *,
    all_events: bool,
    as_json: bool,
    events: tuple[str, ...],
    address: str | None,
    **given: Any,
) -> None:
    """Change what is mentioned."""
    changed = {name: value for name, value in (("url", address), *given.items()) if value is not None}
    if events and all_events:
        raise click.UsageError("--event and --all-events do not go together")
    if events or all_events:
        changed["events"] = events
    with reached(place) as installation:
        edited = installation.webhooks.edit(webhook_id, actor=actor(), **changed)
        _show(edited, installation.clock(), as_json=as_json)


@command.command("rotate")
@click.argument("webhook_id")
@click.option(
    "--overlap", default="24h", help="How long messages are signed with the old secret as well.  [24h]"
)
@click.option("--quiet", is_flag=True, help="Print the signing secret alone.")
@as_json
@anywhere
def rotate(webhook_id: str, overlap: str, place: Place, *, quiet: bool, as_json: bool) -> None:
    """Replace an endpoint's signing secret; the new one is shown once."""
    seconds = parse_span(overlap, path="--overlap")
    with reached(place) as installation:
        issued = installation.webhooks.rotate(webhook_id, overlap_seconds=seconds, actor=actor())
        _show_issued(issued, installation.clock(), quiet=quiet, as_json=as_json)


@command.command("verify")
@click.argument("webhook_id")
@click.argument("challenge")
@as_json
@anywhere
def verify(webhook_id: str, challenge: str, place: Place, *, as_json: bool) -> None:
    """Say the challenge that a pending endpoint was sent."""
    with reached(place) as installation:
        verified = installation.webhooks.verify(webhook_id, challenge, actor=actor())
        _show(verified, installation.clock(), as_json=as_json)


@command.command("test")
@click.argument("webhook_id")
@as_json
@anywhere
def test(webhook_id: str, place: Place, *, as_json: bool) -> None:
    """Send an endpoint a test, or a pending one its challenge once more."""
    with reached(place) as installation:
        message_id = installation.webhooks.test(webhook_id, actor=actor())
    if as_json:
        print_json({"message_id": message_id})
        return
    print_line(f"{message_id} is on its way, if the server runs: keywright webhooks deliveries {webhook_id}")


@command.command("deliveries")
@click.argument("webhook_id")
@click.option("--state", type=click.Choice(["waiting", "delivered", "failed"]), help="In one state.")
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many.  [50]")
@as_json
@anywhere
def deliveries(webhook_id: str, place: Place, *, as_json: bool, **narrow: Any) -> None:
    """List what was sent to an endpoint, and what came of it."""
    from keywright import shown

    with reached(place) as installation:
        page = installation.webhooks.deliveries(webhook_id, **narrow)
    found = [shown.delivery(one) for one in page.items]
    if as_json:
        print_json({"items": found, "next_cursor": page.next_cursor})
        return
    rows = [
        (
            one["at"],
            one["type"],
            one["state"],
            one["attempts"],
            one["status"] or one["error"],
            one["next_attempt_at"],
        )
        for one in found
    ]
    print_table(
        ("AT", "EVENT", "STATE", "ATTEMPTS", "ANSWER", "NEXT ATTEMPT"), rows, nothing="nothing was sent"
    )
    if page.next_cursor:
        click.echo(f"more: --cursor {page.next_cursor}", err=True)


@command.command("redeliver")
@click.argument("webhook_id")
@click.option("--since", required=True, help="How long ago, or a time: 2d.")
@as_json
@anywhere
def redeliver(webhook_id: str, since: str, place: Place, *, as_json: bool) -> None:
    """Send again what was given up."""
    with reached(place) as installation:
        start = past(since, installation.clock(), path="--since")
        assert start is not None
        many = installation.webhooks.redeliver(webhook_id, since=start, actor=actor())
    if as_json:
        print_json({"messages": many})
    else:
        print_line(f"{many} {'message is' if many == 1 else 'messages are'} sent again")


def _simple(verb: str, sentence: str) -> None:
    @command.command(verb, help=sentence)
    @click.argument("webhook_id")
    @as_json
    @anywhere
    def run(webhook_id: str, place: Place, *, as_json: bool) -> None:
        with reached(place) as installation:
            changed = getattr(installation.webhooks, verb)(webhook_id, actor=actor())
            _show(changed, installation.clock(), as_json=as_json)


for _verb, _sentence in (
    ("disable", "Tell an endpoint nothing until it is enabled; what waits for it is given up."),
    ("enable", "Tell a disabled endpoint again of what happens from now on."),
):
    _simple(_verb, _sentence)


@command.command("delete")
@click.argument("webhook_id")
@yes
@as_json
@anywhere
def delete(webhook_id: str, place: Place, *, yes: bool, as_json: bool) -> None:
    """Remove an endpoint for good."""
    from keywright import shown

    with reached(place) as installation:
        endpoint = installation.webhooks.get(webhook_id)
        confirm(f"Delete the webhook to {endpoint.url}? What waits for it is given up.", yes=yes)
        deleted = installation.webhooks.delete(webhook_id, actor=actor())
        if as_json:
            print_json(shown.webhook(deleted, installation.clock()))
        else:
            print_line(f"deleted: {deleted.id}, {deleted.url}")


@command.command("events")
@as_json
def events(*, as_json: bool) -> None:
    """List the events, and when each is sent."""
    if as_json:
        print_json({"items": [{"type": name, "sent": sentence} for name, sentence in EVENTS.items()]})
        return
    print_table(("EVENT", "SENT WHEN"), list(EVENTS.items()), nothing="")


def _show_issued(issued: "IssuedEndpoint", now: int, *, quiet: bool, as_json: bool) -> None:
    from keywright import shown

    if as_json:
        print_json(shown.issued_webhook(issued, now))
        return
    if quiet:
        click.echo(issued.secret.reveal())
        return
    print_record([*_fields(shown.webhook(issued.endpoint, now)), ("secret", issued.secret.reveal())])
    click.echo("The secret is shown this once: it is what the receiver verifies messages with.")


def _show(endpoint: "Endpoint", now: int, *, as_json: bool) -> None:
    from keywright import shown

    record = shown.webhook(endpoint, now)
    if as_json:
        print_json(record)
        return
    print_record(_fields(record))


def _fields(record: dict[str, Any]) -> list[tuple[str, Any]]:
    named = ("id", "url", "description", "state", "state_reason", "account", "keyspace", "environment")
    told = [(name, record[name]) for name in named]
    return [
        *told,
        ("events", record["events"] or "all"),
        ("secrets", [_secret(one) for one in record["secrets"]]),
    ]


def _secret(secret: dict[str, Any]) -> str:
    return f"{secret['n']} until {secret['ends_at']}" if secret["ends_at"] else str(secret["n"])
