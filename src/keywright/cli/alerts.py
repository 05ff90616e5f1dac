"""``keywright alerts``: signs of misuse."""

from pathlib import Path
from typing import Any

import click

from keywright.cli.opening import (
    InOrder,
    Place,
    actor,
    anywhere,
    anywhere_beside_key,
    as_json,
    opened,
    print_json,
    print_line,
    print_record,
    print_table,
    reached,
    settings,
    where,
)
from keywright.errors import CannotStart


@click.group("alerts", cls=InOrder)
def command() -> None:
    """Signs of misuse. They are found while `keywright serve` runs."""


@command.command("list")
@click.option("--account", help="About keys of one account.")
@click.option("--keyspace", help="In one keyspace.")
@click.option("--environment", help="In one environment.")
@click.option("--key", help="About one key.")
@click.option("--rule", help="Of one rule.")
@click.option("--severity", type=click.Choice(["low", "medium", "high"]), help="Of one severity.")
@click.option("--state", type=click.Choice(["open", "acknowledged", "resolved"]), help="In one state.")
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many.  [50]")
@as_json
@anywhere_beside_key
def list_alerts(place: Place, *, as_json: bool, **narrow: Any) -> None:
    """List the newest alerts."""
    from keywright import shown

    with reached(place) as installation:
        page = installation.alerts.list(**narrow)
    found = [shown.alert(one) for one in page.items]
    if as_json:
        print_json({"items": found, "next_cursor": page.next_cursor})
        return
    rows = [
        (
            one["id"],
            one["severity"],
            one["state"],
            one["rule"],
            one["about"],
            one["count"],
            one["last_at"][:19],
        )
        for one in found
    ]
    columns = ("ID", "SEVERITY", "STATE", "RULE", "ABOUT", "COUNT", "LAST SEEN")
    print_table(columns, rows, nothing="no alerts")
    if page.next_cursor:
        click.echo(f"more: --cursor {page.next_cursor}", err=True)


@command.command("get")
@click.argument("alert_id")
@as_json
@anywhere
def get(alert_id: str, place: Place, *, as_json: bool) -> None:
    """Show one alert: what happened, what shows it, what to do."""
    with reached(place) as installation:
        _show(installation.alerts.get(alert_id), as_json=as_json)


@command.command("acknowledge")
@click.argument("alert_id")
@as_json
@anywhere
def acknowledge(alert_id: str, place: Place, *, as_json: bool) -> None:
    """Say that you have seen it."""
    with reached(place) as installation:
        _show(installation.alerts.acknowledge(alert_id, actor=actor()), as_json=as_json)


@command.command("resolve")
@click.argument("alert_id")
@as_json
@anywhere
def resolve(alert_id: str, place: Place, *, as_json: bool) -> None:
    """Say that it is dealt with; the same raises no other for a while."""
    with reached(place) as installation:
        _show(installation.alerts.resolve(alert_id, actor=actor()), as_json=as_json)


@command.command("test-mail")
@click.argument("address")
@as_json
@where
def test_mail(address: str, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Send an e-mail to an address now, by the settings of this installation, and say what came of it."""
    from keywright.cli.opening import mailing
    from keywright.desk.fields import email

    found = mailing(settings(database, config))
    if found is None:
        raise CannotStart("no e-mail is set up: KEYWRIGHT_SMTP_HOST names the server that it goes out by")
    with opened(database, config) as installation:
        installation.postman.test(found, email(address))
    if as_json:
        print_json({"taken_by": found.host, "to": address})
    else:
        print_line(f"{found.host} has taken an e-mail to {address}")


def _show(alert: Any, *, as_json: bool) -> None:
    from keywright import shown

    found = shown.alert(alert)
    if as_json:
        print_json(found)
        return
    print_line(found["says"])
    named = ("id", "severity", "state", "rule", "about", "key_name", "account", "keyspace", "environment")
    times = ("count", "first_at", "last_at", "acted_at", "acted_by")
    evidence = [(f"evidence: {name}", _told(value)) for name, value in found["evidence"].items()]
    print_record([(name, found[name]) for name in (*named, *times)] + evidence)
    print_line(f"To do: {found['advice']}")
    if found["evidence"].get("requests"):
        print_line(f"What was wrong with one of them: keywright why {found['evidence']['requests'][-1]}")


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return [f"{name} {times}" for name, times in value.items()]
    return value
