"""``keywright purge``: remove for good what is only history."""

from pathlib import Path

import click

from keywright.cli.opening import actor, as_json, confirm, opened, print_json, print_line, where, yes
from keywright.times import parse_span

_KINDS = ("tombstones", "refusals", "usage", "limits")


@click.command("purge")
@click.option("--older-than", required=True, metavar="SPAN", help="How old: 90d, 2y.")
@click.option(
    "--only", "kinds", multiple=True, type=click.Choice(_KINDS), help="One kind. Repeatable.  [all four]"
)
@yes
@as_json
@where
def command(
    older_than: str,
    kinds: tuple[str, ...],
    database: str | None,
    config: Path | None,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove tombstones of deleted keys, refusals and usage counts that are older than a span.

    A purged key's use cannot be told from a guess any more, and its usage loses its name. The audit trail stays. What
    limits have counted goes once its period is a month over, whatever the span; a server does that by itself.
    """
    seconds = parse_span(older_than, path="--older-than")
    chosen = [kind for kind in _KINDS if not kinds or kind in kinds]
    with opened(database, config) as installation:
        confirm(f"Remove {', '.join(chosen)} older than {older_than}, for good?", yes=yes)
        verbs = {
            "tombstones": installation.keys.purge,
            "refusals": installation.refusals.purge,
            "usage": installation.usage.purge,
            "limits": lambda **_: installation.upkeep.forget(),
        }
        removed = {kind: verbs[kind](older_than=seconds, actor=actor()) for kind in chosen}
    if as_json:
        print_json(removed)
        return
    for kind, many in removed.items():
        print_line(f"{kind:<10} {many} removed")
