"""``keywright scopes``, ``plans`` and ``gates``: to read. Their source is the TOML that was applied."""

from collections.abc import Sequence
from typing import Any

import click

from keywright.cli.opening import InOrder, Place, anywhere, as_json, print_json, print_table, reached

_of_one = click.option("--keyspace", help="Of one keyspace.")


@click.group("scopes", cls=InOrder)
def scopes() -> None:
    """List scopes. They are defined by the keyspace's profile."""


@click.group("plans", cls=InOrder)
def plans() -> None:
    """List plans. They are defined by the keyspace's profile."""


@click.group("gates", cls=InOrder)
def gates() -> None:
    """List gates. They are defined by the keyspace's profile."""


@scopes.command("list")
@_of_one
@as_json
@anywhere
def list_scopes(keyspace: str | None, place: Place, *, as_json: bool) -> None:
    """List the permissions that keys can be given."""
    items = _items("scopes", keyspace, place)
    rows = [(i["keyspace"], i["name"], "reads" if i["reads"] else "writes", i["title"]) for i in items]
    _print(items, ("KEYSPACE", "SCOPE", "KIND", "TITLE"), rows, as_json=as_json)


@plans.command("list")
@_of_one
@as_json
@anywhere
def list_plans(keyspace: str | None, place: Place, *, as_json: bool) -> None:
    """List the named sets of limits."""
    from keywright import limits
    from keywright.model import Limit

    items = _items("plans", keyspace, place)
    rows = [
        (i["keyspace"], i["name"], i["title"], [limits.spell(Limit(**limit)) for limit in i["limits"]])
        for i in items
    ]
    _print(items, ("KEYSPACE", "PLAN", "TITLE", "LIMITS"), rows, as_json=as_json)


@gates.command("list")
@_of_one
@as_json
@anywhere
def list_gates(keyspace: str | None, place: Place, *, as_json: bool) -> None:
    """List the named gates, a line a rule."""
    items = _items("gates", keyspace, place)
    rows = [
        (i["keyspace"], i["name"], i["environment"], rule["methods"] or "any", rule["path"], rule["scopes"])
        for i in items
        for rule in i["rules"]
    ]
    _print(items, ("KEYSPACE", "GATE", "ENVIRONMENT", "METHODS", "PATH", "SCOPES"), rows, as_json=as_json)


def _items(what: str, keyspace: str | None, place: Place) -> list[dict[str, Any]]:
    from keywright import shown
    from keywright.installation import Installation

    with reached(place) as installation:
        if not isinstance(installation, Installation):
            return installation.definitions(what, keyspace)
        every = installation.keyspaces
        found = every.list() if keyspace is None else [every.get(keyspace)]
        return [item for applied in found for item in getattr(shown, what)(applied.keyspace)]


def _print(
    items: list[dict[str, Any]], columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool
) -> None:
    if as_json:
        print_json({"items": items, "next_cursor": None})
    else:
        print_table(columns, rows, nothing="there are none")
