"""``keywright gateway``: a proxy's configuration, and whether a proxy that runs lets through what it should. No database."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import click

from keywright.cli.opening import InOrder, as_json, print_json, printable, working
from keywright.gateways import RECIPES

_COLOURS = {"ok": "green", "note": "yellow", "failed": "red"}


@click.group("gateway", cls=InOrder)
def command() -> None:
    """Have nginx, Traefik, Caddy, Envoy or HAProxy ask Keywright, and see that they do."""


@command.command("config")
@click.argument("recipe", metavar="PROXY", type=click.Choice(list(RECIPES)))
@click.option(
    "--gate",
    default="default.production",
    show_default=True,
    help="The gate: a name, or KEYSPACE.ENVIRONMENT.",
)
@click.option(
    "--upstream",
    metavar="URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="The application that is protected.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    help="Where the proxy listens.",
)
@click.option(
    "--keywright",
    metavar="URL",
    default="http://127.0.0.1:8700",
    show_default=True,
    help="Keywright, as the proxy reaches it.",
)
@click.option("--header", metavar="NAME", help="The profile's own header for keys, where it has one.")
def config(recipe: str, gate: str, upstream: str, listen: str, keywright: str, header: str | None) -> None:
    """Print a whole configuration that works as it stands, with the reason of each line that protects.

    PROXY is nginx, nginx-accel, traefik, caddy, envoy, haproxy, or haproxy-lua: the second file of haproxy.
    """
    from keywright import gateways

    wanted = gateways.Wanted(
        gateways.gate(gate),
        gateways.served(keywright, "--keywright"),
        gateways.served(upstream, "--upstream"),
        gateways.listening(listen),
        header and gateways.header(header),
    )
    click.echo(gateways.render(recipe, wanted), nl=False)


@command.command("echo")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 takes any."
)
@click.option("--quiet", is_flag=True, help="Do not print what arrives.")
def echo(*, port: int, quiet: bool) -> None:
    """Stand in for the application, on this machine alone: answer every request with what arrived of it.

    Credentials are masked. Ends with Ctrl-C.
    """
    from keywright.errors import CannotStart
    from keywright.gateways.echo import Echo

    try:
        server = Echo("127.0.0.1", port, None if quiet else _told)
    except OSError as trouble:
        raise CannotStart(f"port {port} cannot be listened on: {trouble.strerror}") from None
    with server:
        click.echo(f"http://127.0.0.1:{server.server_address[1]} answers with what arrives")
        sys.stdout.flush()
        server.serve_forever()


def _told(arrived: dict[str, Any]) -> None:
    click.echo(printable(f"{arrived['method']} {arrived['target']}"))
    for name, value in arrived["headers"]:
        click.echo(f"  {printable(name)}: {printable(value)}")


@command.command("check")
@click.argument("url", metavar="URL")
@click.option("--path", default="/", show_default=True, help="What the key may read there.")
@click.option(
    "--gate", default="", help="The gate that is asked: a named one must refuse paths with two readings."
)
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="The key: a file as `keys create --env-file` writes it.",
)
@as_json
def check(url: str, path: str, gate: str, env_file: Path | None, *, as_json: bool) -> int:
    """See what the proxy at URL lets through, with `keywright gateway echo` behind it.

    A right key is needed, and is never in the list of processes: from --env-file, from KEYWRIGHT_GATEWAY_KEY, or from
    standard input. It is a token, which is sent as Bearer, or whole headers, a line each: X-API-KEY: …

    Each request is verified, and counts. The exit code is 1 where the proxy fails.
    """
    from keywright.gateways.probes import PROBES, Through, probe

    through = Through(url, path, _key(env_file), gate)
    with working(f"sending {len(PROBES)} kinds of requests through the proxy"):
        findings = list(probe(through))
    well = all(finding.level != "failed" for finding in findings)
    if as_json:
        print_json({"ok": well, "items": [finding._asdict() for finding in findings]})
        return 0 if well else 1
    for finding in findings:
        level = click.style(f"{finding.level:<8}", fg=_COLOURS[finding.level])
        click.echo(f"{level}{finding.check:<17}{printable(finding.says)}")
        if finding.level == "failed":
            click.echo(f"{'':<25}{PROBES[finding.check][0]}")
    return 0 if well else 1


def _key(env_file: Path | None) -> list[tuple[str, str]]:
    """The headers of the key. Raises ``click.UsageError`` where there is none."""
    text = os.environ.get("KEYWRIGHT_GATEWAY_KEY", "")
    if env_file is not None:
        found = re.search(r"^API_KEY_TOKEN=(\S+)$", env_file.read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            raise click.UsageError(f"--env-file: {env_file} has no API_KEY_TOKEN")
        text = found[1]
    elif not text:
        if sys.stdin.isatty():
            click.echo("The key: a token, or its headers, a line each; then Ctrl-D.", err=True)
        text = sys.stdin.read()
    return _headers(text.strip())


def _headers(text: str) -> list[tuple[str, str]]:
    if re.fullmatch(r"[!-~]+", text) and ": " not in text:
        return [("Authorization", f"Bearer {text}")]
    found = re.findall(r"^\s*([A-Za-z0-9-]+):[ \t]*([ -~]+?)\s*$", text, re.MULTILINE)
    if not found:
        raise click.UsageError("a key is needed: a token, or its headers, a line each (Name: value)")
    return found
