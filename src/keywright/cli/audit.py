"""``keywright audit``: read, prove and export the audit trail."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keywright.cli.opening import (
    InOrder,
    Place,
    anywhere,
    as_json,
    exported,
    opened,
    print_export,
    print_json,
    print_line,
    print_table,
    reached,
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
@click.option("--target", help="What was done to one thing, by its id.")
@click.option("--actor", help="What one actor did: an id, or kind:id.")
@click.option("--action", help="One kind of act, such as key.create.")
@click.option("--account", help="What was done to one account and its keys.")
@click.option("--before", type=int, help="Only entries older than this number.")
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, help="How many.  [50]")
@as_json
@anywhere
def list_entries(place: Place, *, as_json: bool, **narrow: Any) -> None:
    """List the newest entries."""
    from keywright import shown

    with reached(place) as installation:
        page = installation.trail.list(**narrow)
    entries = page.items
    if as_json:
        print_json({"items": [shown.entry(entry) for entry in entries], "next_cursor": page.next_cursor})
        return
    columns = ("NO", "TIME", "WHO", "DID", "TO")
    rows = [
        (e["seq"], rfc3339(e["at"])[:19], f"{e['actor_kind']}:{e['actor_id']}", e["action"], e["target_id"])
        for e in entries
    ]
    print_table(columns, rows, nothing="no entries")
    if page.next_cursor:
        click.echo(f"more: --before {entries[-1]['seq']}", err=True)


@command.command("export")
@exported
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only entries newer than this number.")
@anywhere
def export(kind: str, after: int, place: Place) -> None:
    """Write every entry to standard output, oldest first, each with its MAC.

    In CSV a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    with reached(place) as installation:
        entries = ({**entry, "at": rfc3339(entry["at"])} for entry in installation.trail.walk(after))
        print_export(entries, _COLUMNS, kind)


_COLUMNS = (
    "seq", "at", "actor_kind", "actor_id", "source", "action", "target_kind", "target_id", "account", "detail",
    "request_id", "key_n", "mac",
)  # fmt: skip


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
