"""The command: one file a noun, imported only when it is used.

Exit codes: 0 done, 1 refused (not found, invalid, in conflict), 2 wrong usage, 3 the installation cannot be opened.
"""

import sys
from importlib import import_module

import click

from keywright import __version__

#: Every command and where it lives. The help is said here, so that listing them imports nothing.
COMMANDS = {
    "serve": ("serve", "Serve the verification and management API."),
    "demo": ("demo", "Five key systems and an example API, thrown away when stopped."),
    "keys": ("keys", "Create, list, edit, rotate, stop and delete keys."),
    "accounts": ("accounts", "Create, suspend and activate accounts."),
    "keyspaces": ("keyspaces", "Apply and read keyspaces."),
    "management-keys": ("management_keys", "Keys that open the management API."),
    "audit": ("audit", "Read and prove the audit trail."),
    "explain": ("explain", "Say what is wrong with pasted request headers."),
    "doctor": ("doctor", "Check this installation."),
}


class Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which they are told."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command's module and take the command out of it."""
        if name not in COMMANDS:
            return None
        module = import_module(f"keywright.cli.{COMMANDS[name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Tell the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keywright")
def keywright() -> None:
    """Make, check and look after the API keys of a product.

    A first key: keywright keys create "CRM sync"
    """


def main() -> None:
    """Run the command, and say an error in one line."""
    from keywright.errors import CannotStart, KeywrightError

    try:
        keywright.main(prog_name="keywright", standalone_mode=True)
    except CannotStart as trouble:
        click.echo(f"keywright: {trouble}", err=True)
        sys.exit(3)
    except KeywrightError as trouble:
        click.echo(f"keywright: {trouble}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
