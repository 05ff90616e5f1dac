"""The pages that are made from the code: ``python tests/pages.py`` writes them, and tests hold them to it."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from keywright import settings
from keywright.cli import keywright
from keywright.server.api import build
from keywright.testing import fresh

DOCS = Path(__file__).resolve().parent.parent / "docs"

CLI = """# The command

Every command and what it takes. `keywright COMMAND --help` prints the same.

| exit code | |
| --- | --- |
| 0 | done |
| 1 | refused: not found, not valid, in conflict |
| 2 | wrong usage |
| 3 | the installation cannot be opened, or does not answer |
| 4 | a fault of Keywright's own; `KEYWRIGHT_DEBUG=1` shows where |
| 130 | stopped with Ctrl-C |

A command with `--url` works on a server as well, with a management key in `KEYWRIGHT_KEY` or in the file that
`KEYWRIGHT_KEY_FILE` names, and prints the same; what its key may not do is refused. The others need the database itself.

Errors are one line on standard error. `--json` prints the body of the matching HTTP answer. What cannot be undone asks
first, and wants `--yes` where there is no terminal.
"""


def cli() -> str:
    """``docs/cli.md``."""
    top = click.Context(keywright, info_name="keywright", help_option_names=["-h", "--help"], **_WIDTH)
    sections = [CLI, *_sections(keywright, top)]
    return "\n".join(sections)


_WIDTH = {"max_content_width": 100, "terminal_width": 100}


def _sections(command: click.Command, ctx: click.Context) -> list[str]:
    found = [f"## `{ctx.command_path}`\n\n```text\n{command.get_help(ctx)}\n```\n"]
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            verb = command.get_command(ctx, name)
            assert verb is not None
            found += _sections(verb, click.Context(verb, info_name=name, parent=ctx, **_WIDTH))
    return found


def openapi() -> str:
    """``docs/openapi.json``."""
    with TemporaryDirectory() as folder, fresh(Path(folder)) as kw:
        document = build(kw.installation, settings.load({}, {})).openapi()
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


PAGES = {"cli.md": cli, "settings.md": settings.reference, "openapi.json": openapi}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
