"""``keywright backup`` and ``restore``: copies of a SQLite installation, taken while it is used."""

import sys
from pathlib import Path
from typing import Any

import click

from keywright.cli.opening import as_json, opened, print_json, print_line, settings, where

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command("backup")
@_file
@as_json
@where
def backup(file: Path, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Copy the installation into a new tar FILE, while it is used.

    The installation's secret is not inside. Keep it apart: without it no key can be verified.
    """
    with opened(database, config) as installation:
        manifest = installation.backup(file, _progress if sys.stderr.isatty() else lambda _file, _part: None)
        secret = installation.database.secret_file
    if as_json:
        print_json(manifest)
        return
    print_line(f"written: {file}, {_size(manifest)} bytes, audit head {manifest['audit_head']}")
    print_line(
        f"The secret is not inside. Keep a copy of it apart: {secret}, or what KEYWRIGHT_SECRET holds."
    )


@click.command("restore")
@_file
@as_json
@where
def restore(file: Path, database: str | None, config: Path | None, *, as_json: bool) -> None:
    """Make an installation from a backup, where there is none; with a postgresql:// database, move it there.

    The secret has to be there first, as <database>.secret or KEYWRIGHT_SECRET; a wrong one is refused.
    """
    from keywright.installation import restore as bring_back

    found = settings(database, config)
    manifest = bring_back(found.database, file, secret=found.secret or None)
    if as_json:
        print_json(manifest)
        return
    print_line(f"restored: {found.shown('database')}, as it was at {manifest.get('made_at')}")
    print_line(f"Prove the trail: keywright audit verify --head {manifest.get('audit_head')}")


def _progress(which: str, part: float) -> None:
    end = "\n" if part >= 1 else ""
    click.echo(f"\r{which:<6} {part:4.0%}{end}", err=True, nl=False)


def _size(manifest: dict[str, Any]) -> int:
    return sum(int(file["bytes"]) for file in manifest["files"].values())
