"""``keywright explain``: what is wrong with a request's headers, said to whoever runs the installation."""

import re
import shlex
import sys
from typing import Any

import click

from keywright import credential
from keywright.cli.opening import as_json, opened, print_json, printable, where
from keywright.errors import NotFound
from keywright.installation import Installation, new_request_id
from keywright.model import Ask, Keyspace, Verdict
from keywright.schemes import Reader, Unproven, accepted_sets

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
_CURL = re.compile(r"\A\s*curl\s")
_SAID = {
    "no_carrier": "there is no header in which this keyspace looks for a credential",
    "half_pair": "one half of a pair is there, and the other is missing",
    "header_twice": "a credential's header stands there twice",
    "underscore_twin": "a header's name is spelled with underscores instead of hyphens",
    "two_credentials": "there is more than one credential",
    "both_companions": "X-API-KEY has both companions, X-API-SECRET and x-api-user: it can mean two things",
    "in_url": "there is a credential in the address",
    "malformed": "the value does not have the shape of a key",
    "checksum": "the checksum does not fit: a character is wrong, missing or too many",
    "unknown": "the key does not exist here",
    "wrong_secret": "the key exists, but the secret is not its own",
    "wrong_user": "the key is proven, but x-api-user is not its account's username",
    "wrong_keyspace": "the key is proven, but belongs to another keyspace",
    "deleted": "the key is proven, but was deleted",
}


@click.command("explain")
@click.option("--keyspace", help="Whose API was called. Default: the one that the credential shows, or each.")
@click.option("--environment", help="Which environment was called.")
@as_json
@where
def command(keyspace: str | None, environment: str | None, *, as_json: bool, **given: Any) -> None:
    """Say what is wrong with request headers that are pasted into standard input.

    Lines of the form Name: value are read, or a whole curl command. Nothing is counted, and nothing is repeated that
    could be a secret.
    """
    text = sys.stdin.read()
    headers, url = read(text)
    with opened(given["database"], given["config"]) as installation:
        found = [
            explain(installation, space, environment, headers, url)
            for space in _keyspaces(installation, keyspace, headers)
        ]
    if as_json:
        print_json({"items": found})
    else:
        for item in found:
            _print(item)
    raise SystemExit(0 if any(item["code"] == "ok" for item in found) else 1)


def read(text: str) -> tuple[list[tuple[str, str]], str | None]:
    """Take headers, and a curl command's address, out of what was pasted."""
    if _CURL.match(text):
        return _read_curl(text)
    headers = []
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() and " " not in name.strip():
            headers.append((name.strip(), value.strip()))
    return headers, None


def _read_curl(text: str) -> tuple[list[tuple[str, str]], str | None]:
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError:
        words = text.split()
    headers, url = [], None
    for place, word in enumerate(words):
        if word in ("-H", "--header") and place + 1 < len(words):
            name, _, value = words[place + 1].partition(":")
            headers.append((name.strip(), value.strip()))
        elif "://" in word:
            url = word
    return headers, url


def explain(
    installation: Installation,
    keyspace: Keyspace,
    environment: str | None,
    headers: list[tuple[str, str]],
    url: str | None,
) -> dict[str, Any]:
    """What a request with these headers comes to in one keyspace, and why."""
    raw = [
        (name.lower().encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in headers
    ]
    presented = Reader(keyspace).read(raw, url)
    hints = [
        f"the value of {name} has quotes around it or in it"
        for name, value in headers
        if set(value) & set(_QUOTES)
    ]
    found: dict[str, Any] = {"keyspace": keyspace.name, "accepts": accepted_sets(keyspace), "hints": hints}
    if isinstance(presented, Unproven):
        found |= {"code": presented.code, "reason": presented.reason, "scheme": None, "key": None}
    else:
        stored = _environment_of(installation, presented.spelled)
        where = environment or stored or next(iter(keyspace.environments))
        ask = Ask(keyspace.name, where, authenticate_only=True, metered=False)
        verdict = installation.engine.verify(
            ask, presented, installation.clock(), request_id=new_request_id()
        )
        found |= {"code": verdict.code, "reason": verdict.reason, "scheme": presented.scheme}
        found["key"] = _state(installation, verdict, presented.spelled)
    found["says"] = _SAID.get(found["reason"], found["reason"])
    return found


def _environment_of(installation: Installation, spelled: credential.Spelled) -> str | None:
    record = installation.lookup.find(spelled.id)
    return None if record is None else record.environment


def _state(
    installation: Installation, verdict: Verdict, spelled: credential.Spelled
) -> dict[str, Any] | None:
    """The true state of the key, once its secret was proven; only its id and that it exists before."""
    record = installation.lookup.find(spelled.id)
    if record is None:
        return None
    proven = verdict.key is not None or verdict.reason in ("deleted", "wrong_keyspace", "wrong_user")
    if not proven:
        return {"id": record.id}
    return {
        "id": record.id,
        "name": record.name,
        "keyspace": record.keyspace,
        "environment": record.environment,
        "account": record.account,
        "account_state": record.account_state,
        "state": record.state,
        "access": record.access,
        "scopes": sorted(record.scopes),
    }


def _keyspaces(
    installation: Installation, name: str | None, headers: list[tuple[str, str]]
) -> list[Keyspace]:
    every = [applied.keyspace for applied in installation.keyspaces.list()]
    if name is not None:
        found = [space for space in every if space.name == name]
        if not found:
            raise NotFound(f"there is no keyspace {name!r}")
        return found
    values = " ".join(value for _, value in headers)
    shown = [space for space in every if f"{space.prefix}_" in values or f"{space.prefix}sec_" in values]
    return shown or every


def _print(found: dict[str, Any]) -> None:
    click.echo(f"in keyspace {found['keyspace']}: {found['code']} – {found['says']}")
    if found["scheme"]:
        click.echo(f"  scheme seen   {found['scheme']}")
    for hint in found["hints"]:
        click.echo(f"  look          {printable(hint)}")
    for name, value in (found["key"] or {}).items():
        click.echo(f"  {'key ' + name:<14}{printable(value)}")
    if found["code"] in ("missing", "ambiguous", "invalid"):
        for accepted in found["accepts"]:
            click.echo(f"  accepted      {accepted}")


__all__ = ["command", "explain", "read"]
