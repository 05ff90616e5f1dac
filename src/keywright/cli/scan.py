"""``keywright scan``: credentials in files, where they should not be. No database is asked.

What a version control system keeps for itself and files that are no text are passed over, and counted. Nothing is sent,
unless ``--report`` says to whom.
"""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
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
#: What version control systems keep for themselves: most of it is compressed, so that nothing would be found there.
_INTERNAL = (".git", ".hg", ".svn", ".bzr", ".jj", "CVS")
#: A file with a zero byte in so many of its first ones is no text, as Git has it.
_BEGINNING = 8000


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
@click.option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    help="Pass over files and directories of this name, or path below PATH. Repeatable.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Search binary files too, and what is kept in .git and its like.",
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
    exclude: tuple[str, ...],
    prefixes: tuple[str, ...],
    report: str | None,
    found_at: str | None,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    """Find credentials in files and directories, by their shape and their checksum.

    Exits with 1 where any is found. A secret is never printed. Dotted keys have no checksum, and are not looked for. A
    pair's secret is reported only as a token is: together with its id. A file that is named is searched, whatever it is.
    """
    walk = _Walk(exclude, everything=everything)
    found: list[_Found] = []
    unread: list[str] = []
    with working("searching"):
        for path in walk.files_of(paths):
            try:
                found += [one for one in _search(path) if not prefixes or _prefix(one.id) in prefixes]
            except OSError as trouble:
                unread.append(f"{path} cannot be read: {trouble.strerror}")
    if not as_json:
        _tell(found, unread, walk)
    reported = {"reported": _report(report, found, found_at)} if report else {}
    if as_json:
        items = [one.shown() for one in found]
        print_json({"items": items, "unread": unread, "passed_over": walk.passed_over} | reported)
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


def _tell(found: list[_Found], unread: list[str], walk: "_Walk") -> None:
    for one in found:
        print_line(f"{one.path}:{one.line}: {one.kind} {one.id}")
    for line in unread:
        print_line(line)
    if any(walk.passed_over.values()):
        print_line(f"passed over: {walk}")
    if found:
        print_line(f"{len(found)} found. Rotate what is real: keywright keys rotate KEY_ID --force")
    else:
        print_line("none found")


class _Walk:
    """The files to search, and how many were passed over."""

    def __init__(self, exclude: tuple[str, ...], *, everything: bool) -> None:
        self._exclude = tuple(pattern.rstrip("/") for pattern in exclude)
        self._everything = everything
        self.passed_over = {"files": 0, "directories": 0}

    def __str__(self) -> str:
        names = {"files": "file", "directories": "directory"}
        return " and ".join(
            f"{many} {names[kind] if many == 1 else kind}" for kind, many in self.passed_over.items() if many
        )

    def files_of(self, paths: tuple[Path, ...]) -> Iterator[Path]:
        """Each file that is named, whatever it is, and of each directory what is not passed over."""
        for path in paths:
            if path.is_dir():
                yield from self._below(path)
            else:
                yield path

    def _below(self, root: Path) -> Iterator[Path]:
        for directory, within, names in os.walk(root):
            at = Path(directory)
            kept = [
                name for name in within if not self._excludes(at / name, root) and not self._internal(name)
            ]
            self.passed_over["directories"] += len(within) - len(kept)
            within[:] = sorted(kept)
            for one in (at / name for name in sorted(names)):
                if not one.is_file():
                    continue
                if self._excludes(one, root) or (not self._everything and _is_binary(one)):
                    self.passed_over["files"] += 1
                else:
                    yield one

    def _excludes(self, path: Path, root: Path) -> bool:
        spelled = path.name, path.relative_to(root).as_posix()
        return any(fnmatchcase(name, pattern) for name in spelled for pattern in self._exclude)

    def _internal(self, name: str) -> bool:
        return not self._everything and name in _INTERNAL


def _is_binary(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(_BEGINNING)
    except OSError:  # whoever searches it says so
        return False


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
