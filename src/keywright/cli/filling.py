"""What ``keys create`` fills in: whatever has one candidate, and on an empty database all of it.

It says what it took. Where several could be meant it takes none, and says all that is still open at once.
"""

import shlex
from typing import Any

import click

from keywright import limits, profiles
from keywright.cli.opening import actor
from keywright.client import Client
from keywright.desk import fields
from keywright.errors import Invalid, NotFound
from keywright.installation import Installation
from keywright.model import Keyspace

_CHOICES = ("keyspace", "account", "environment", "access")
_MOST_NAMED = 12


def complete(
    installation: Installation | Client, name: str, given: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Keyspace, account, environment and access, and sentences about what nobody chose.

    Raises ``NotFound`` for a keyspace that is not there, or ``click.UsageError`` with every choice that is still open; then
    nothing was made.
    """
    if isinstance(installation, Client) and all(given[field] is not None for field in _CHOICES[:3]):
        return {
            field: given[field] for field in _CHOICES
        }, []  # its key may be able to make keys and nothing else
    every = {applied.keyspace.name: applied.keyspace for applied in installation.keyspaces.list()}
    if given["keyspace"] is not None and given["keyspace"] not in every:
        raise NotFound(f"there is no keyspace {given['keyspace'][:60]!r}")
    first = not every and given["keyspace"] is None and isinstance(installation, Installation)
    if first:
        every = {"default": profiles.load(profiles.source("default"))}
    chosen: dict[str, Any] = {field: given[field] for field in _CHOICES}
    open_, filled = _choose(
        chosen, every, _usernames(installation), first=first, scoped=bool(given["scopes"] or given["preset"])
    )
    if open_:
        raise click.UsageError(_say_open(name, given, open_))
    _scopes(every[chosen["keyspace"]], given)  # a preset that there is not is refused before anything is made
    if isinstance(installation, Installation) and first:
        _would_pass(name, given, chosen, every["default"])
        installation.keyspaces.apply(profiles.source("default"), actor=actor())
    if chosen["account"] is None:
        chosen["account"] = "default"
        installation.accounts.create("default", actor=actor())
        filled.insert(int(first), "Made the account `default`.")
    return chosen, filled


def scopes(installation: Installation | Client, keyspace: str, given: dict[str, Any]) -> list[str]:
    """The scopes that were named, behind those of the preset. Raises ``Invalid`` for a preset that there is not."""
    if given["preset"] is None:
        return list(given["scopes"])
    return _scopes(installation.keyspaces.get(keyspace).keyspace, given)


def _scopes(keyspace: Keyspace, given: dict[str, Any]) -> list[str]:
    name = given["preset"]
    if name is None:
        return list(given["scopes"])
    if name not in keyspace.presets:
        known = ", ".join(keyspace.presets) or "no presets at all"
        raise Invalid(f"{name[:40]!r} is none of {known}", path="--preset")
    return list(dict.fromkeys((*keyspace.presets[name].scopes, *given["scopes"])))


def _choose(
    chosen: dict[str, Any], every: dict[str, Keyspace], usernames: list[str], *, first: bool, scoped: bool
) -> tuple[dict[str, list[str]], list[str]]:
    """Take what can be taken; what is open, and what was taken. An account that must be made stays ``None``."""
    open_: dict[str, list[str]] = {}
    filled = []

    def take(field: str, candidates: list[str], why: str = ", the only one") -> None:
        if chosen[field] is not None:
            return
        if len(candidates) == 1:
            chosen[field] = candidates[0]
            filled.append(f"Took {'' if field == 'access' else 'the '}{field} `{candidates[0]}`{why}.")
        else:
            open_[field] = candidates

    if first:
        chosen["keyspace"] = "default"
        filled.append("Made the keyspace `default`, from the profile of that name.")
    take("keyspace", list(every))
    meant = [space for space in every.values() if chosen["keyspace"] in (None, space.name)]
    if usernames:
        take("account", usernames)
    if first:
        take("environment", ["production"], "")
    take("environment", list(dict.fromkeys(e for space in meant for e in space.environments)))
    if not scoped and any(space.access.default is None for space in meant):
        if first:
            take("access", ["all"], ": the key may do everything")
        take("access", list(dict.fromkeys(a for space in meant for a in space.access.classes)))
    return open_, filled


def _usernames(installation: Installation | Client) -> list[str]:
    page = installation.accounts.list(limit=_MOST_NAMED)
    return [account.username for account in page.items] + (["…"] if page.next_cursor else [])


def _would_pass(name: str, given: dict[str, Any], chosen: dict[str, Any], keyspace: Keyspace) -> None:
    """Refuse what ``create`` would refuse, before keyspace and account are made for it. Raises ``Invalid``."""
    fields.name(name)
    fields.access(chosen["access"], _scopes(keyspace, given) or None, keyspace)
    limits.read(given["limits"])
    fields.networks(list(given["networks"]))


def _say_open(name: str, given: dict[str, Any], open_: dict[str, list[str]]) -> str:
    width = max(len(field) for field in open_)
    lines = [
        f"  --{field:<{width}}  {', '.join(candidates) or 'there is none yet'}"
        for field, candidates in open_.items()
    ]
    said = [f"--{field} {shlex.quote(given[field])}" for field in _CHOICES if given[field] is not None]
    missing = [f"--{field} {_example(candidates)}" for field, candidates in open_.items()]
    example = " ".join(["keywright keys create", shlex.quote(name), *said, *missing])
    return "\n".join(["say which is meant:", *lines, f"for example: {example}"])


def _example(candidates: list[str]) -> str:
    return next((name for name in ("production", "read_only", *candidates) if name in candidates), "…")
