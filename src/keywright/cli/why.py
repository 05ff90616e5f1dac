"""``keywright why``: the real reason of a refusal."""

import click

from keywright.cli.opening import Place, anywhere, as_json, print_json, print_line, print_record, reached


@click.command("why")
@click.argument("request_id")
@as_json
@anywhere
def command(request_id: str, place: Place, *, as_json: bool) -> None:
    """Say why a request was really refused, by the request id in its answer.

    Whoever sent it was told no more than is safe. The newest 100,000 refusals are kept.
    """
    from keywright import shown

    with reached(place) as installation:
        found = shown.refusal(installation.refusals.get(request_id))
    if as_json:
        print_json(found)
        return
    print_line(f"{found['code']}: {found['says']}")
    key = found["key"] or {}
    named = f"{key['id']} ({key['name']})" if key.get("name") else key.get("id")
    print_record(
        [
            ("at", found["at"]),
            ("key", named),
            ("its state", key.get("state")),
            ("its account", key.get("account")),
        ]
        + [(name, found[name]) for name in ("keyspace", "environment", "scheme", "ip", "method", "resource")]
    )
