"""Rules for secret scanners, made of keyspaces: for gitleaks a configuration in TOML, for TruffleHog one in YAML. Pure.

Both look for regular expressions of RE2's syntax (Go's ``regexp``), which has no look-around and runs in linear time. A
scanner cannot compute our checksum, so of what it finds some may only look like a key; ``keywright scan`` tells. Dotted
keys have neither prefix nor checksum: there is no rule for them that would not cry wolf.
"""

import json
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from keywright.credential import MANAGEMENT_PREFIX
from keywright.model import Keyspace

_SECRET: Final = "[0-9A-Za-z]{32}[0-4][0-9A-Za-z]{5}"  # noqa: S105  # the shape of one


#: What GitLab calls a kind of credential that a rule of gitleaks finds.
_GITLAB: Final = "gitleaks_rule_id_"


class Rule(NamedTuple):
    """What to look for, and texts of which one stands wherever it does."""

    id: str
    title: str
    regex: str
    keywords: tuple[str, ...]


def rules(spaces: Iterable[Keyspace]) -> list[Rule]:
    """Two rules for each keyspace with standard keys, the token's and the pair's secret's, and one for management keys."""
    found = [_token("keywright-management-key", "Keywright management key", MANAGEMENT_PREFIX, ["live"], "m")]
    for space in spaces:
        if space.format == "standard":
            title, codes = space.title, list(space.environments.values())
            found.append(_token(f"{space.prefix}-api-key", f"API key ({title})", space.prefix, codes, "k"))
            head = f"{space.prefix}sec_"
            secret = Rule(
                f"{space.prefix}-api-secret", f"API secret ({title})", rf"\b({head}{_SECRET})\b", (head,)
            )
            found.append(secret)
    return found


def gitlab_types(spaces: Iterable[Keyspace]) -> list[str]:
    """The kinds of credentials that GitLab may report: those that its scanner finds by the rules of ``gitleaks``."""
    return [f"{_GITLAB}{rule.id}" for rule in rules(spaces)]


def _token(name: str, title: str, prefix: str, codes: list[str], letter: str) -> Rule:
    heads = tuple(f"{prefix}_{code}_{letter}" for code in codes)
    regex = rf"\b({prefix}_(?:{'|'.join(codes)})_{letter}[0-9A-Za-z]{{15}}_{_SECRET})\b"
    return Rule(name, title, regex, heads)


def gitleaks(spaces: Iterable[Keyspace]) -> str:
    """A configuration for gitleaks (``--config``), beside its own rules; samples of documentation are let pass."""
    lines = ['title = "Keywright"', "", "[extend]", "useDefault = true"]
    for rule in rules(spaces):
        lines += [
            "",
            "[[rules]]",
            f"id = {_quoted(rule.id)}",
            f"description = {_quoted(rule.title)}",
            f"regex = '''{rule.regex}'''",
            "secretGroup = 1",
            f"keywords = [{', '.join(map(_quoted, rule.keywords))}]",
            "[[rules.allowlists]]",
            'description = "samples of documentation, whose checksum is wrong"',
            "regexes = ['''0NoKey$''']",
        ]
    return "\n".join(lines) + "\n"


def trufflehog(spaces: Iterable[Keyspace]) -> str:
    """A configuration for TruffleHog (``--config``): a custom detector for each rule.

    None of them asks a server: TruffleHog would send it what it found by ``POST``, in a shape of its own.
    """
    lines = ["detectors:"]
    for rule in rules(spaces):
        lines += [
            f"  - name: {_quoted(rule.id)}",
            f"    description: {_quoted(rule.title)}",
            "    keywords:",
            *(f"      - {_quoted(keyword)}" for keyword in rule.keywords),
            "    regex:",
            f"      credential: '{rule.regex}'",
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A text as both TOML and YAML write it: JSON's strings are strings of either."""
    return json.dumps(text, ensure_ascii=False)


WRITERS: Final[dict[str, Callable[[Iterable[Keyspace]], str]]] = {
    "gitleaks": gitleaks,
    "trufflehog": trufflehog,
}

__all__ = ["WRITERS", "Rule", "gitlab_types", "gitleaks", "rules", "trufflehog"]
