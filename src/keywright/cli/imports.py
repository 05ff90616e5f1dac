"""``keywright keys import``: credentials of an earlier system, out of the file that it was exported to."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, Final

import click

from keywright.cli.opening import (
    Place,
    actor,
    anywhere,
    as_json,
    print_json,
    print_table,
    reached,
    warn_of_stale,
)

if TYPE_CHECKING:
    from keywright.client import Client
    from keywright.installation import Installation
    from keywright.model import Imported

#: What is sent at once: so many keys, and of a request's body, so many bytes.
_MOST: Final = 100
_BYTES: Final = 48 * 1024
#: Columns of a table that hold several, with spaces between them.
_LISTS: Final = ("scopes", "limits", "allowed_ips")

Item = dict[str, Any]


class _Unread(click.BadParameter):
    """A file that holds no keys, or none that can be read."""

    def __init__(self, why: str) -> None:
        super().__init__(why, param_hint="FILE")


@click.command("import")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--keyspace", help="Whose API the keys open.")
@click.option("--account", help="Whose keys they are, where the file does not say.")
@click.option("--environment", help="Where they work, where the file does not say.")
@click.option(
    "--access",
    type=click.Choice(["all", "read_only", "restricted"]),
    help="What they may do, where the file does not say.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@as_json
@anywhere
def command(
    file: IO[str],
    place: Place,
    *,
    keyspace: str | None,
    account: str | None,
    environment: str | None,
    access: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make keys of credentials that an earlier system made; they go on working.

    FILE is a table with a heading (CSV), JSON, a JSON object on each line, or what Django's dumpdata makes of
    rest_framework_api_key; - is standard input. Each has a token, or the hash that was kept of it, and what a key is made
    from. What was imported before is passed over, so an import that was cut off is begun again.
    """
    items, left_out = _without_ended(read(file))
    if access is not None:
        items = [{"access": access} | item for item in items]
    where = {"keyspace": keyspace, "account": account, "environment": environment, "dry_run": dry_run}
    with reached(place) as installation:
        where["keyspace"] = keyspace or _only(installation)
        done = _all(installation, items, where)
    if as_json:
        print_json(done)
    else:
        _print(done, items, left_out, dry_run=dry_run)
    if done["refused"]:
        click.get_current_context().exit(1)


def read(file: IO[str]) -> list[Item]:
    """The items of a file, whichever form it has. Raises ``click.BadParameter``."""
    try:
        text = file.read().removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise _Unread("is not text in UTF-8") from None
    begins = text.lstrip()[:1]
    if not begins:
        raise _Unread("is empty")
    found = _of_table(text) if begins not in "[{" else _of_json(text)
    if not found:
        raise _Unread("has no keys in it")
    return found


def _of_json(text: str) -> list[Item]:
    try:
        whole = json.loads(text)
    except ValueError:
        whole = [_line(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if isinstance(whole, dict):
        whole = whole.get("items", [whole])
    if not isinstance(whole, list) or not all(isinstance(item, dict) for item in whole):
        raise _Unread("is no list of objects")
    return [_of_django(item) if str(item.get("model", "")).endswith(".apikey") else item for item in whole]


def _line(n: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as wrong:
        raise _Unread(f"line {n} is no JSON: {wrong}") from None


def _of_django(row: Item) -> Item:
    """A row of ``djangorestframework-api-key`` 3, as ``dumpdata`` writes it."""
    own = row.get("fields") or {}
    return {
        "id": own.get("prefix"),
        "hash": own.get("hashed_key"),
        "name": own.get("name"),
        "expires_at": own.get("expiry_date"),
        "_ended": bool(own.get("revoked")),
    }


def _of_table(text: str) -> list[Item]:
    table = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        rows = list(table)
    except csv.Error as wrong:
        raise _Unread(f"line {table.line_num} is no CSV: {wrong}") from None
    if not {"token", "hash"} & set(table.fieldnames or ()):
        raise _Unread("has neither a column token nor a column hash in its first line")
    return [_row(n, row) for n, row in enumerate(rows, 2)]


def _row(n: int, row: dict[str | Any, Any]) -> Item:
    if None in row:
        raise _Unread(f"row {n} has more fields than the first line names")
    item: Item = {name: value for name, value in row.items() if value}
    for name in _LISTS:
        if name in item:
            item[name] = item[name].split()
    if item.get("expires_at") == "never":
        item["expires_at"] = None
    if "metadata" in item:
        item["metadata"] = _line(n, item["metadata"])
    return item


def _without_ended(items: Iterable[Item]) -> tuple[list[Item], int]:
    """The items but for those that had ended where they come from, and how many those are."""
    every = list(items)
    left = [{k: v for k, v in item.items() if k != "_ended"} for item in every if not item.get("_ended")]
    return left, len(every) - len(left)


def _only(installation: "Installation | Client") -> str:
    """The keyspace that is meant where there is only one."""
    names = [applied.keyspace.name for applied in installation.keyspaces.list()]
    if len(names) != 1:
        raise click.UsageError(
            f"say which is meant: --keyspace {' or '.join(names) or '…, of which there is none yet'}"
        )
    return names[0]


def _all(
    installation: "Installation | Client", items: Sequence[Item], where: dict[str, Any]
) -> dict[str, Any]:
    """Import them, some at a time, and say how far it is; the body of the answer to all of them."""
    from keywright import shown

    whole: dict[str, Any] = {"items": [], "made": 0, "exists": 0, "refused": 0}
    shows = sys.stderr.isatty() and len(items) > _MOST
    for some in _portions(items):
        done: Imported = installation.keys.import_(some, **where, actor=actor())
        warn_of_stale(done.propagation)
        answer = shown.imported(done)
        whole["items"] += answer["items"]
        for status in ("made", "exists", "refused"):
            whole[status] += answer[status]
        if shows:
            click.echo(f"\r{len(whole['items'])} of {len(items)}", nl=False, err=True)
    if shows:
        click.echo("\r", nl=False, err=True)
    return whole


def _portions(items: Sequence[Item]) -> Iterator[list[Item]]:
    some: list[Item] = []
    size = 0
    for item in items:
        own = len(json.dumps(item))
        if some and (len(some) == _MOST or size + own > _BYTES):
            yield some
            some, size = [], 0
        some.append(item)
        size += own
    if some:
        yield some


def _print(done: dict[str, Any], items: Sequence[Item], left_out: int, *, dry_run: bool) -> None:
    click.echo(f"{'would be made' if dry_run else 'made'}: {done['made']}")
    for count, what in (
        (done["exists"], "there already"),
        (left_out, "left out, because they were revoked where they come from"),
    ):
        if count:
            click.echo(f"{what}: {count}")
    refused = [(n, item) for n, item in enumerate(done["items"], 1) if item["status"] == "refused"]
    if refused:
        click.echo(f"refused: {len(refused)}")
        rows = [(str(n), _called(items[n - 1]), item["detail"]) for n, item in refused[:50]]
        print_table(("NO.", "NAME", "WHY"), rows, nothing="")
        if len(refused) > 50:
            click.echo(f"and {len(refused) - 50} more: --json says them all", err=True)


def _called(item: Item) -> str:
    return str(item.get("name") or "")[:40]


__all__ = ["command", "read"]
