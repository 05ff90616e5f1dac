"""The command: one file a noun, imported only when it is used.

Exit codes: 0 done, 1 refused (not found, invalid, in conflict), 2 wrong usage, 3 the installation cannot be opened or
does not answer, 4 a fault of Keywright's own, 130 stopped with Ctrl-C.
"""

import errno
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from traceback import walk_tb

import click

from keywright import __version__
from keywright.cli import logs
from keywright.cli.opening import InOrder, printable
from keywright.errors import CannotStart, KeywrightError, Unavailable

#: A disk or a quota that is full, where what is said goes to a file.
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Every command and where it lives. The help is said here, so that listing them imports nothing.
COMMANDS = {
    "serve": ("serve", "Serve the verification and management API."),
    "demo": ("demo", "Five key systems and an example API, thrown away when stopped."),
    "init": ("init", "Make a database, a keyspace and a first account."),
    "keys": ("keys", "Create, list, edit, rotate, stop and delete keys."),
    "accounts": ("accounts", "Create, suspend and activate accounts."),
    "people": ("people", "Who signs in: members of accounts, and operators."),
    "portal": ("portal", "Bring customers' admins to their keys, without a password here."),
    "keyspaces": ("keyspaces", "Apply and read keyspaces."),
    "scopes": ("definitions:scopes", "List the scopes of keyspaces."),
    "plans": ("definitions:plans", "List the plans of keyspaces."),
    "gates": ("definitions:gates", "List the gates of keyspaces."),
    "management-keys": ("management_keys", "Keys that open the management API."),
    "usage": ("usage", "Say how often requests were let in and refused."),
    "audit": ("audit", "Read, prove and export the audit trail."),
    "alerts": ("alerts", "List, acknowledge and resolve signs of misuse."),
    "webhooks": ("webhooks", "Endpoints that are told what happens."),
    "gateway": ("gateway", "Configurations of proxies, and whether a proxy lets through what it should."),
    "scan": ("scan", "Find credentials in files, where they should not be."),
    "explain": ("explain", "Say what is wrong with pasted request headers."),
    "why": ("why", "Say why a request was really refused."),
    "migrate": ("migrate", "Bring the database to this version's schema."),
    "backup": ("backup:backup", "Copy the installation into a file, while it is used."),
    "restore": ("backup:restore", "Make an installation from a backup."),
    "purge": ("purge", "Remove for good what is only history."),
    "doctor": ("doctor", "Check this installation."),
    "config": ("config", "Settings: their values, where each comes from, what each means."),
}


class Lazy(InOrder):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which they are told."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command's module and take the command out of it."""
        if name not in COMMANDS:
            return None
        file, _, called = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(import_module(f"keywright.cli.{file}"), called or "command")
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and say how it ended. An error is one line on standard error, never a traceback."""
    debugging = os.environ.get("KEYWRIGHT_DEBUG", "0") not in ("", "0")
    if debugging:
        logs.begin(logging.DEBUG)
    if sys.stdin is None:  # closed by whoever began this: nothing comes from there
        sys.stdin = open(os.devnull, encoding="ascii")  # noqa: SIM115, PTH123  # for as long as the process lives
    try:
        ended = keywright.main(
            None if arguments is None else list(arguments), prog_name="keywright", standalone_mode=False
        )
    except click.ClickException as wrong:
        _say_wrong(wrong)
        return wrong.exit_code
    except click.Abort as stopped:
        _say("stopped" if isinstance(stopped.__cause__, KeyboardInterrupt) else "nothing was changed")
        return 130 if isinstance(stopped.__cause__, KeyboardInterrupt) else 1
    except (CannotStart, Unavailable) as trouble:
        _say(str(trouble))
        return 3
    except KeywrightError as refused:
        _say(_in_flags(refused))
        return 1
    except Exception as fault:
        if debugging:
            raise
        if isinstance(fault, OSError) and fault.errno == errno.EPIPE:
            return 1
        if isinstance(fault, OSError) and fault.errno in _FULL and _cannot_say(fault):
            _say(f"the answer cannot be written: {fault.strerror}; what was asked may be done all the same")
            return 1
        _say(f"{type(fault).__name__}: {fault}".splitlines()[0][:300])
        _say("this should not happen; with KEYWRIGHT_DEBUG=1 it says where it did")
        return 4
    return ended if isinstance(ended, int) else 0


def _cannot_say(fault: Exception) -> bool:
    """Whether it arose where something is said."""
    where = [frame for frame, _ in walk_tb(fault.__traceback__)]
    return where[-1].f_code is click.echo.__code__


#: Fields of a request, and the flags that fill them.
_FLAGS = {
    "limits": "--limit",
    "scopes": "--scope",
    "allowed_ips": "--allow-ip",
    "expires_at": "--expires",
    "grace_seconds": "--grace",
    "username": "username",
    "url": "URL",
    "name": "name",
}


def _in_flags(refused: Exception) -> str:
    """A refusal in the words of the command line: the field at fault by its flag."""
    path = getattr(refused, "path", "")
    if not path or path.startswith("--") or type(refused).__name__ == "ProfileError":
        return str(refused)
    field = path.partition("[")[0]
    return f"{_FLAGS.get(field, f'--{field}')}: {getattr(refused, 'reason', refused)}"


def _say_wrong(wrong: click.ClickException) -> None:
    if isinstance(wrong, click.exceptions.NoArgsIsHelpError):
        wrong.show()
        return
    _say(wrong.format_message())
    if isinstance(wrong, click.UsageError) and wrong.ctx is not None:
        click.echo(f"More: {wrong.ctx.command_path} --help", err=True)


def _say(text: str) -> None:
    for place, line in enumerate(text.splitlines()):
        click.echo(f"{'' if place else 'keywright: '}{printable(line)}", err=True)
