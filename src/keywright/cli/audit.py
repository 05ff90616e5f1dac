"""``keywright audit``: read and prove the audit trail."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keywright.cli.opening import (
    InOrder,
    as_json,
    opened,
    print_json,
    print_line,
    print_table,
    where,
    working,
)
from keywright.errors import Invalid
from keywright.times import rfc3339

if TYPE_CHECKING:
    from keywright.store.audit import Head


@click.group("audit", cls=InOrder)
def command() -> None:
    """Who did what to which thing, when, from where."""


@command.command("list")
@click.option("--before", type=int, help="Only entries older than this number.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, help="How many.  [50]")
@as_json
@where
def list_entries(
    before: int | None, limit: int, database: str | None, config: Path | None, *, as_json: bool
) -> None:
    """List the newest entries."""
    with opened(database, config) as installation:
        entries = installation.trail.list(before=before, limit=limit)
    older = str(entries[-1]["seq"]) if len(entries) == limit and entries[-1]["seq"] > 1 else None
    if as_json:
        print_json(
            {"items": [{**entry, "at": rfc3339(entry["at"])} for entry in entries], "next_cursor": older}
        )
        return
    columns = ("NO", "TIME", "WHO", "DID", "TO")
    rows = [
        (e["seq"], rfc3339(e["at"])[:19], f"{e['actor_kind']}:{e['actor_id']}", e["action"], e["target_id"])
        for e in entries
    ]
    print_table(columns, rows, nothing="no entries")
    if older:
        click.echo(f"more: --before {older}", err=True)


@command.command("verify")
@click.option("--head", "kept", metavar="NUMBER:MAC", help="A head that was kept outside.")
@as_json
@where
def verify(kept: str | None, database: str | None, config: Path | None, *, as_json: bool) -> int:
    """Prove that no entry was changed, removed or put in. Prints the head, to be kept outside.

    An end that was cut off shows against a head that was kept. The exit code is 1 where something is wrong.
    """
    expected = _head(kept)
    with opened(database, config) as installation, working("reading the trail"):
        broken = installation.trail.verify(expected)
        head = installation.trail.head()
    if as_json:
        found = None if broken is None else {"seq": broken.seq, "how": broken.how}
        print_json({"holds": broken is None, "broken": found, "head": {"seq": head.seq, "mac": head.mac}})
    elif broken is None:
        click.echo(f"the chain of {head.seq} entries holds; head {head.seq}:{head.mac}")
    else:
        print_line(f"the trail is broken: entry {broken.seq} {broken.how}")
    return 0 if broken is None else 1


def _head(text: str | None) -> "Head | None":
    from keywright.store.audit import Head

    if text is None:
        return None
    number, _, mac = text.partition(":")
    if not number.isdigit() or len(mac) != 64:
        raise Invalid("is what `audit verify` prints: a number, a colon and 64 hex digits", path="--head")
    return Head(int(number), mac)
