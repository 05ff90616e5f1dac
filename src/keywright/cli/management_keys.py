"""``keywright management-keys``: keys that open the management API."""

from typing import Any

import click

from keywright.cli.keys import show_changed, show_issued, show_key, show_page
from keywright.cli.opening import (
    InOrder,
    Place,
    actor,
    anywhere,
    as_json,
    confirm,
    env_file,
    instant,
    quiet,
    reached,
    reserved,
    yes,
)
from keywright.profiles import MANAGEMENT_SCOPES
from keywright.times import parse_span


@click.group("management-keys", cls=InOrder)
def command() -> None:
    """Keys that open the management API, as far as their scopes and their binding go."""


@command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(list(MANAGEMENT_SCOPES)),
    help="What it may do. Repeatable.",
)
@click.option("--account", help="Confine it to an account.")
@click.option("--keyspace", help="Confine it to a keyspace.")
@click.option("--environment", help="Confine it to an environment of the keyspace.")
@click.option("--expires", help="90d, a time, or never.")
@quiet
@env_file
@as_json
@anywhere
def create(name: str, scopes: tuple[str, ...], **given: Any) -> None:
    """Make a management key. Its token is shown once."""
    from keywright.desk.keys import UNSET

    with reached(given["place"]) as installation, reserved(given["env_file"]) as file:
        expires = given["expires"]
        issued = installation.management_keys.create(
            name=name,
            scopes=scopes,
            account=given["account"],
            keyspace=given["keyspace"],
            environment=given["environment"],
            expires_at=instant(expires, installation.clock(), path="--expires") if expires else UNSET,
            actor=actor(),
        )
        show_issued(installation, issued, given, [], file)


@command.command("list")
@click.option("--search", "q", help="Part of a name or id.")
@click.option("--cursor", help="Where the last page ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="How many.  [50]")
@as_json
@anywhere
def list_keys(place: Place, *, as_json: bool, **narrow: Any) -> None:
    """List management keys."""
    with reached(place) as installation:
        page = installation.management_keys.list(**narrow)
        show_page(page, narrow["q"], installation.clock(), as_json=as_json)


@command.command("get")
@click.argument("key_id")
@as_json
@anywhere
def get(key_id: str, place: Place, *, as_json: bool) -> None:
    """Show one management key."""
    with reached(place) as installation:
        show_key(installation.management_keys.get(key_id), installation.clock(), as_json=as_json)


@command.command("rotate")
@click.argument("key_id")
@click.option("--grace", default="0s", help="How long the old token goes on: 24h.")
@click.option("--force", is_flag=True, help="End every earlier token now: a leak.")
@quiet
@env_file
@as_json
@anywhere
def rotate(key_id: str, grace: str, *, force: bool, **given: Any) -> None:
    """Replace a management key's token; the id stays."""
    seconds = parse_span(grace, path="--grace")
    with reached(given["place"]) as installation, reserved(given["env_file"]) as file:
        issued = installation.management_keys.rotate(
            key_id, grace_seconds=seconds, force=force, actor=actor()
        )
        show_issued(installation, issued, given, [], file)


def _simple(verb: str, done: str, sentence: str) -> None:
    @command.command(verb, help=sentence)
    @click.argument("key_id")
    @as_json
    @anywhere
    def run(key_id: str, place: Place, *, as_json: bool) -> None:
        with reached(place) as installation:
            changed = getattr(installation.management_keys, verb)(key_id, actor=actor())
            show_changed(changed, installation.clock(), done, as_json=as_json)


for _verb, _done, _sentence in (
    ("invalidate", "invalidated", "Stop a management key for ever."),
    ("disable", "disabled", "Stop a management key until it is enabled."),
    ("enable", "enabled", "Let a disabled management key work again."),
):
    _simple(_verb, _done, _sentence)


@command.command("delete")
@click.argument("key_id")
@yes
@as_json
@anywhere
def delete(key_id: str, place: Place, *, yes: bool, as_json: bool) -> None:
    """Remove a management key for good."""
    with reached(place) as installation:
        key = installation.management_keys.get(key_id)
        confirm(f"Delete the management key '{key.name}' ({key.id})? Whatever uses it stops.", yes=yes)
        changed = installation.management_keys.delete(key_id, actor=actor())
        show_changed(changed, installation.clock(), "deleted", as_json=as_json)
