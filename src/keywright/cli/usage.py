"""``keywright usage``: how often each verdict was given."""

from typing import TYPE_CHECKING, Any

import click

from keywright.cli.opening import Place, anywhere_beside_key, as_json, past, print_json, print_table, reached
from keywright.times import rfc3339

if TYPE_CHECKING:
    from keywright.desk.usage import Report, UsageRow

_GROUPS = ("key", "account", "keyspace", "environment", "team", "application", "code", "resource")


@click.command("usage")
@click.option("--keyspace", help="Of one keyspace.")
@click.option("--account", help="Of one account.")
@click.option("--environment", help="Of one environment.")
@click.option(
    "--key",
    "named",
    multiple=True,
    help="Of one key, by its id; a deleted one too. With --url, a management key's token as well.",
)
@click.option("--team", help="Of the keys of a team.")
@click.option("--application", help="Of the keys of an application.")
@click.option("--code", help="One code: ok, expired, rate_limited and so on.")
@click.option("--resource", help="One resource.")
@click.option("--from", "since", metavar="WHEN", help="A time, or how long ago: 7d.")
@click.option("--to", "until", metavar="WHEN", help="A time, or how long ago.  [now]")
@click.option(
    "--by",
    type=click.Choice(["minute", "hour", "day", "total"]),
    default="day",
    show_default=True,
    help="How long a line's time is.",
)
@click.option("--group", type=click.Choice(_GROUPS), help="A line for each of these.")
@click.option("--busiest", type=click.IntRange(1, 200), help="With --group key: so many keys at most.")
@as_json
@anywhere_beside_key
def command(
    since: str | None,
    until: str | None,
    named: tuple[str, ...],
    place: Place,
    *,
    as_json: bool,
    **asked: Any,
) -> None:
    """Say how often requests were let in and refused.

    Without --from: the last hour by minute, 48 hours by hour, 30 days by day, all of it in total. The lines add up.
    """
    from keywright import shown

    key, place = _told_apart(named, place)
    with reached(place) as installation:
        now = installation.clock()
        report = installation.usage.report(
            key=key, since=past(since, now, path="--from"), until=past(until, now, path="--to"), **asked
        )
    if as_json:
        print_json(shown.usage(report))
        return
    _print(report)


def _told_apart(named: tuple[str, ...], place: Place) -> tuple[str | None, Place]:
    """What ``--key`` names: a key to report on, by its id, and a management key, which is a whole token.

    Raises ``click.UsageError`` for more than one of a kind.
    """
    from keywright.desk.listing import is_secret

    tokens = [text for text in named if is_secret(text)]
    ids = [text for text in named if text not in tokens]
    if len(tokens) > 1 or len(ids) > 1:
        raise click.UsageError("--key names one key, and with --url one management key")
    managing = place._replace(managing=tokens[0]) if tokens else place
    return (ids[0] if ids else None), managing


def _print(report: "Report") -> None:
    columns = (
        ("TIME",) * (report.by != "total") + _heads(report.group) + ("COUNT", "OK", "REFUSED", "BECAUSE")
    )
    rows = [_line(report, row) for row in report.rows]
    print_table(columns, rows, nothing="nothing was counted in this time")
    if report.rows:
        click.echo(f"{report.total} in all")


def _heads(group: str | None) -> tuple[str, ...]:
    if group is None:
        return ()
    return ("KEY", "NAME") if group == "key" else (group.upper(),)


def _line(report: "Report", row: "UsageRow") -> list[Any]:
    cells: list[Any] = [] if row.at is None else [rfc3339(row.at)[:16].replace("T", " ")]
    if report.group is not None:
        cells.append(row.value)
    if report.group == "key":
        name = None if row.key is None else row.key.name
        cells.append(f"{name} (deleted)" if row.key is not None and row.key.state == "deleted" else name)
    allowed = row.codes.get("ok", 0)
    because = ", ".join(f"{code} {count}" for code, count in sorted(row.codes.items()) if code != "ok")
    return [*cells, row.times, allowed, row.times - allowed, because]
