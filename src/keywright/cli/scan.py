"""``keywright scan``: credentials in files, where they should not be. No database is asked.

Nothing is sent, unless ``--report`` says to whom.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from keywright import credential
from keywright.cli.opening import as_json, print_json, print_line, working

#: How much of a file is searched at once, and how much of it again with the next part: the longest credential and more.
_PART = 1 << 20
_OVERLAP = 256
_TOKEN = "a token of"  # noqa: S105  # words
#: Tokens of one report.
_AT_ONCE = 1000


class _Found(NamedTuple):
    path: str
    line: int
    id: str
    kind: str
    value: credential.Secret

    def shown(self) -> dict[str, Any]:
        """What may be printed."""
        return {"path": self.path, "line": self.line, "id": self.id, "kind": self.kind}


@click.command("scan")
@click.argument(
    "paths", metavar="PATH…", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)
)
@click.option("--prefix", "prefixes", multiple=True, help="Only keys of this prefix. Repeatable.  [any]")
@click.option(
    "--report",
    metavar="URL",
    help="Send the tokens that are found to this server, which does with its own what their keyspaces say.",
)
@click.option("--found-at", metavar="URL", help="With --report: the web address of where this was found.")
@as_json
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[Path, ...],
    prefixes: tuple[str, ...],
    report: str | None,
    found_at: str | None,
    *,
    as_json: bool,
) -> None:
    """Find credentials in files and directories, by their shape and their checksum.

    Exits with 1 where any is found. A secret is never printed. Dotted keys have no checksum, and are not looked for. A
    pair's secret is reported only as a token is: together with its id.
    """
    found: list[_Found] = []
    unread: list[str] = []
    with working("searching"):
        for path in _files(paths):
            try:
                found += [one for one in _search(path) if not prefixes or _prefix(one.id) in prefixes]
            except OSError as trouble:
                unread.append(f"{path} cannot be read: {trouble.strerror}")
    if not as_json:
        _tell(found, unread)
    reported = {"reported": _report(report, found, found_at)} if report else {}
    if as_json:
        print_json({"items": [one.shown() for one in found], "unread": unread} | reported)
    elif report:
        print_line(f"{reported['reported']} reported to {report}")
    if found:
        ctx.exit(1)


def _report(server: str, found: list[_Found], found_at: str | None) -> int:
    """Report the tokens, each once; how many there were. Raises what the server says."""
    from keywright.connection import Connections

    tokens = sorted({one.value.reveal() for one in found if one.kind == _TOKEN})
    connections = Connections(server, None, timeout=30)
    where = {"url": found_at} if found_at else {}
    try:
        for place in range(0, len(tokens), _AT_ONCE):
            some = {"tokens": tokens[place : place + _AT_ONCE]}
            connections.ask("POST", "/v1/leaks/report", some | where)
    finally:
        connections.close()
    return len(tokens)


def _tell(found: list[_Found], unread: list[str]) -> None:
    for one in found:
        print_line(f"{one.path}:{one.line}: {one.kind} {one.id}")
    for line in unread:
        print_line(line)
    if found:
        print_line(f"{len(found)} found. Rotate what is real: keywright keys rotate KEY_ID --force")
    else:
        print_line("none found")


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            for directory, _, names in os.walk(path):
                yield from (one for name in sorted(names) if (one := Path(directory, name)).is_file())
        else:
            yield path


def _search(path: Path) -> Iterator[_Found]:
    """The credentials of one file, each once, with the line that it stands in."""
    line, held, told = 1, b"", -1
    with path.open("rb") as file:
        begin = 0  # of ``held`` in the file
        while part := file.read(_PART):
            text = held + part
            for match in credential.INSIDE.finditer(text):
                value = match[0]
                whole = match.end() < len(text) or not file.peek(1)
                if begin + match.start() > told and whole and credential.checksum(value[:-6]) == value[-6:]:
                    told = begin + match.start()
                    at = line + text.count(b"\n", 0, match.start())
                    yield _Found(str(path), at, *_named(value), credential.Secret(value.decode()))
            held = text[-_OVERLAP:]
            line += text.count(b"\n", 0, len(text) - len(held))
            begin += len(text) - len(held)


def _named(value: bytes) -> tuple[str, str]:
    head, _, _ = value.decode("ascii").rpartition("_")
    return (head, _TOKEN) if "_" in head else (head, "a pair's secret,")


def _prefix(key_id: str) -> str:
    head, _, more = key_id.partition("_")
    return head if more else head.removesuffix("sec")
