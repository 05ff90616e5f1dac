"""``keywright explain``: what is wrong with a request's headers, said to whoever runs the installation."""

import re
import shlex
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from keywright import reasons
from keywright.cli.opening import as_json, opened, print_json, print_record, where
from keywright.errors import NotFound

if TYPE_CHECKING:
    from keywright.credential import Spelled
    from keywright.installation import Installation
    from keywright.model import KeyRecord, Keyspace, Verdict

_TYPOGRAPHIC = "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u00b4"
_QUOTES = "\"'`" + _TYPOGRAPHIC
_UNQUOTED = str.maketrans("", "", _QUOTES)
_STRAIGHT = str.maketrans(_TYPOGRAPHIC, "'" * len(_TYPOGRAPHIC))
_CURL = re.compile(r"\A\s*(\$ )?curl\s")
_LINE = re.compile(
    r"""\A[<>*\s]*["']?(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+?)["']?\s*:\s*(?P<value>.*?)\s*\Z"""
)
_BLANKS = re.compile(r"\$\{?[A-Za-z_]+\}?|<[A-Za-z_ -]+>|\bYOUR_[A-Z_]+\b|\{\{?[A-Za-z_ ]+\}?\}")


class Pasted(NamedTuple):
    """A request as it was pasted: its headers, its address where there is one, and what is odd about the text."""

    headers: list[tuple[str, str]]
    url: str | None
    hints: list[str]

    @property
    def unquoted(self) -> "Pasted":
        """The same without any quotes around or in it."""
        return self._replace(
            headers=[(n.translate(_UNQUOTED), v.translate(_UNQUOTED)) for n, v in self.headers]
        )


@click.command("explain")
@click.option("--keyspace", help="Whose API was called. Default: the one that the credential shows, or each.")
@click.option("--environment", help="Which environment was called. Default: the key's own.")
@as_json
@where
def command(keyspace: str | None, environment: str | None, *, as_json: bool, **given: Any) -> int:
    """Say what is wrong with request headers that are pasted into standard input.

    Lines of the form Name: value are read, or a whole curl command, or a key by itself. Nothing is counted, and
    nothing is repeated that could be a secret. The exit code is 0 where the request would be let in.
    """
    if sys.stdin.isatty():
        click.echo("Paste headers or a curl command, then press Ctrl-D on a line of its own.", err=True)
    text = sys.stdin.read()
    pasted, meant = read(text), read(text.translate(_STRAIGHT)).unquoted
    with opened(given["database"], given["config"]) as installation:
        found = [
            explain(installation, space, environment, pasted, meant)
            for space in _keyspaces(installation, keyspace, meant)
        ]
    if as_json:
        print_json({"items": found})
    else:
        if not found:
            click.echo('there is no keyspace yet, so no key either: keywright keys create "CRM sync"')
        for item in found:
            _print(item)
    return 0 if any(item["code"] == "ok" for item in found) else 1


# ----------------------------------------------------------------------------------------------------- what was pasted


def read(text: str) -> Pasted:
    """Take headers, and a curl command's address, out of what was pasted."""
    if _CURL.match(text):
        return _read_curl(text)
    headers = []
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is not None:
            value = found["value"].rstrip(",") if line.lstrip().startswith(('"', "'")) else found["value"]
            quoted = line.lstrip()[:1] in ("'", '"') and len(value) > 1 and value[0] == value[-1] in "'\""
            headers.append((found["name"], value[1:-1] if quoted else value))
    alone = text.strip()
    if not headers and alone and not re.search(r"\s", alone):
        bare = "this is a value without a header; it was read as if it came as a Bearer token, or its like"
        return Pasted([("", alone)], None, [bare])
    return Pasted(
        headers, None, [] if headers else ["no header was found: a header is a line of the form Name: value"]
    )


def _read_curl(text: str) -> Pasted:
    hints = []
    if set(text) & set(_TYPOGRAPHIC):
        hints.append("there are typographic quotes, which a shell takes for letters: write ' or \" instead")
    try:
        words = shlex.split(re.sub(r"\\\r?\n", " ", text.strip().removeprefix("$ ")))
    except ValueError:
        words = text.split()
        hints.append("a quote is opened and never closed")
    headers: list[tuple[str, str]] = []
    url = None
    for option, value in _options(words[1:]):
        if option == "header":
            name, colon, content = value.partition(":")
            headers.append((name.strip(), content.strip()))
            if not colon:
                hints.append("a header has no colon, so curl does not send it")
        elif option == "user":
            headers.append(("Authorization", "Basic " + b64encode(value.encode()).decode()))
        elif option == "url" or "://" in value:
            url = value
    return Pasted(headers, url, hints)


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """The options of a curl command that matter here, with their values; what belongs to no option under no name."""
    names = {"-H": "header", "--header": "header", "-u": "user", "--user": "user", "--url": "url"}
    waiting = iter(words)
    for word in waiting:
        if word in names:
            yield names[word], next(waiting, "")
        elif word.startswith(("--header=", "--user=", "--url=")):
            option, _, value = word.partition("=")
            yield names[option], value
        elif word[:2] in ("-H", "-u"):
            yield names[word[:2]], word[2:]
        elif not word.startswith("-"):
            yield "", word


# -------------------------------------------------------------------------------------------------- what it comes to


def explain(
    installation: "Installation", keyspace: "Keyspace", environment: str | None, pasted: Pasted, meant: Pasted
) -> dict[str, Any]:
    """What a request with these headers comes to in one keyspace, and why. ``meant`` is it without any quotes."""
    from keywright.schemes import accepted_sets

    found = _judge(installation, keyspace, environment, pasted)
    hints = [*pasted.hints, *_hints(keyspace, pasted)]
    if found["code"] in ("missing", "invalid") and meant.headers != pasted.headers:
        other = _judge(installation, keyspace, environment, meant)
        hints.append(f"without the quotes it would be {other['code']}: {other['says']}")
        found["key"] = found["key"] or other["key"]
    return {"keyspace": keyspace.name, **found, "hints": hints, "accepts": accepted_sets(keyspace)}


def _judge(
    installation: "Installation", keyspace: "Keyspace", environment: str | None, pasted: Pasted
) -> dict[str, Any]:
    from keywright.installation import new_request_id
    from keywright.model import Ask
    from keywright.schemes import Presented, Reader, Unproven

    if [name for name, _ in pasted.headers] == [""]:
        presented = Reader(keyspace).beside(Presented.of_token(_bytes(pasted.headers[0][1])), None)
    else:
        raw = [(_bytes(name.lower()), _bytes(value)) for name, value in pasted.headers]
        presented = Reader(keyspace).read(raw, pasted.url)
    if isinstance(presented, Unproven):
        return _told(presented.code, presented.reason, None, None)
    record = _record(installation, presented.spelled)
    asked = environment or (None if record is None else record.environment)
    if asked not in keyspace.environments:
        asked = environment or next(iter(keyspace.environments))
    ask = Ask(keyspace.name, asked, authenticate_only=True, metered=False, recorded=False)
    verdict = installation.engine.verify(ask, presented, installation.clock(), request_id=new_request_id())
    return _told(
        verdict.code, verdict.reason, presented.scheme, _state(installation, verdict, presented.spelled)
    )


def _told(code: str, reason: str, scheme: str | None, key: dict[str, Any] | None) -> dict[str, Any]:
    return {"code": code, "reason": reason, "says": reasons.say(code, reason), "scheme": scheme, "key": key}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _hints(keyspace: "Keyspace", pasted: Pasted) -> Iterator[str]:
    """What catches the eye in the headers. A name is repeated only where it is one that we know."""
    from keywright.schemes import SCHEMES

    known = {
        name.format(header=keyspace.header).lower(): name.format(header=keyspace.header)
        for scheme in SCHEMES.values()
        for name, _ in scheme.shown
    } | {"api-key": "Api-Key"}
    present = {name.lower() for name, value in pasted.headers if value}
    for name, value in pasted.headers:
        called = known.get(name.lower().translate(_UNQUOTED), "a header")
        if set(value) & set(_QUOTES):
            kind = "typographic quotes" if set(value) & set(_TYPOGRAPHIC) else "quotes"
            yield f"the value of {called} has {kind} around it or in it"
        if _BLANKS.search(value):
            yield f"the value of {called} has a placeholder in it that was never filled in"
        if called != "a header" and not value:
            yield f"{called} is empty"
        if called != "a header" and not value.isascii() and not set(value) & set(_TYPOGRAPHIC):
            yield f"the value of {called} has characters that no key has"
    for scheme in keyspace.schemes:
        names = [name.format(header=keyspace.header) for name, _ in SCHEMES[scheme].shown]
        lacking = [name for name in names if name.lower() not in present]
        if len(names) > 1 and lacking and len(lacking) < len(names):
            yield f"{', '.join(sorted(set(names) - set(lacking)))} is there, {', '.join(lacking)} is missing"


def _record(installation: "Installation", spelled: "Spelled") -> "KeyRecord | None":
    """The key that a credential names or, where it was imported, leads to."""
    if spelled.spelling == "imported":
        return installation.engine.led_to(spelled, installation.clock())
    return installation.lookup.find(spelled.id)


def _state(installation: "Installation", verdict: "Verdict", spelled: "Spelled") -> dict[str, Any] | None:
    """The true state of the key, once its secret was proven; only its id and that it exists before."""
    from keywright.times import rfc3339

    record = _record(installation, spelled)
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
        "disabled_until": None if record.disabled_until is None else rfc3339(record.disabled_until),
        "access": record.access,
        "scopes": sorted(record.scopes),
        "expires_at": None if record.expires_at is None else rfc3339(record.expires_at),
    }


def _keyspaces(installation: "Installation", name: str | None, pasted: Pasted) -> "list[Keyspace]":
    every = [applied.keyspace for applied in installation.keyspaces.list()]
    if name is not None:
        found = [space for space in every if space.name == name]
        if not found:
            raise NotFound(
                f"there is no keyspace {name!r}; there are {', '.join(s.name for s in every) or 'none'}"
            )
        return found
    values = " ".join(f"{name} {value} {_decoded(value)}" for name, value in pasted.headers)
    shown = [space for space in every if f"{space.prefix}_" in values or f"{space.prefix}sec_" in values]
    return shown or every


def _decoded(value: str) -> str:
    """What Basic carries, where this is it."""
    word, _, encoded = value.partition(" ")
    if word.lower() != "basic":
        return ""
    try:
        return b64decode(encoded, validate=True).decode("ascii", "replace")
    except ValueError:
        return ""


def _print(found: dict[str, Any]) -> None:
    click.echo(f"in keyspace {found['keyspace']}: {found['code']} – {found['says']}")
    pairs: list[tuple[str, Any]] = [("scheme seen", found["scheme"])]
    pairs += [("look", hint) for hint in found["hints"]]
    pairs += [(f"key's {name.replace('_', ' ')}", value) for name, value in (found["key"] or {}).items()]
    if found["code"] in ("missing", "ambiguous", "invalid"):
        pairs += [("accepted", accepted) for accepted in found["accepts"]]
    print_record(pairs)


__all__ = ["command", "explain", "read"]
