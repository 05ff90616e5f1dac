"""Rules for secret scanners: they are what the scanners read, find every key that is made, and nothing that is none."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import re2
import yaml

from conftest import again, make
from keywright import Issued, Keywright, profiles
from keywright.credential import new_id, new_secret, spell_pair_secret, spell_token
from keywright.model import Keyspace
from keywright.profiles import SHIPPED
from keywright.scanners import gitleaks, rules, trufflehog
from processes import Folder
from surfaces import served, server

STANDARD = [name for name in SHIPPED if name != "atfinity"]
AROUND = (
    "{}",
    'key = "{}"',
    "KEY={}\n",
    "Authorization: Bearer {}\r\n",
    '{{"k":"{}"}}',
    "https://x.example/?k={}&y",
    "({})",
)


def spaces() -> list[Keyspace]:
    """The keyspaces that ship."""
    return [profiles.load(profiles.source(name)) for name in SHIPPED]


def of_gitleaks() -> dict[str, dict[str, Any]]:
    """The rules as gitleaks reads them."""
    found = tomllib.loads(gitleaks(spaces()))
    assert found["extend"] == {"useDefault": True}
    return {rule["id"]: rule for rule in found["rules"]}


def found_by(rule: dict[str, Any], text: str) -> list[str]:
    """What a scanner with RE2's syntax finds: nothing where no keyword stands, nothing that is let pass."""
    if not any(keyword in text for keyword in rule["keywords"]):
        return []
    groups = [match.group(rule["secretGroup"]) for match in re2.finditer(rule["regex"], text)]
    allowed = [pattern for one in rule["allowlists"] for pattern in one["regexes"]]
    return [one for one in groups if not any(re2.search(pattern, one) for pattern in allowed)]


def secrets_of(issued: Issued) -> list[str]:
    """What of a key must not lie about: its token, and its pair's secret."""
    return [issued.credential.token.reveal(), issued.credential.secret.reveal()]  # type: ignore[union-attr]


@pytest.mark.requirement("B-05")
@pytest.mark.parametrize("name", STANDARD)
def test_every_key_that_is_made_is_found(kw: Keywright, name: str) -> None:
    """Tokens and pairs' secrets of every environment are found, whole, wherever they stand, by their own rule alone."""
    found, space = of_gitleaks(), profiles.load(profiles.source(name))
    for environment in space.environments:
        for n, secret in enumerate(secrets_of(make(kw, keyspace=name, environment=environment))):
            own = f"{space.prefix}-api-{('key', 'secret')[n]}"
            for around in AROUND:
                text = around.format(secret)
                assert {rule: got for rule in found if (got := found_by(found[rule], text))} == {
                    own: [secret]
                }, around


def test_two_beside_each_other_are_both_found() -> None:
    """Of two with one character between them both are found."""
    rule = of_gitleaks()["fullwhere-api-key"]
    two = [spell_token(new_id("fullwhere", "live"), new_secret()) for _ in range(2)]
    assert found_by(rule, ",".join(two)) == two


def test_a_management_key_is_found(kw: Keywright) -> None:
    """A management key is found by the rule for those."""
    token = kw.keys.create_management(name="Billing", scopes=["verify"]).credential.token.reveal()
    assert found_by(of_gitleaks()["keywright-management-key"], f"X={token}") == [token]


def near_misses() -> Iterator[str]:
    """Texts that are nearly a key of ``fullwhere``."""
    key_id, secret = new_id("fullwhere", "live"), new_secret()
    token, pair = spell_token(key_id, secret), spell_pair_secret(key_id, secret)
    yield from (key_id, token[:-1], token + "A", "x" + token, pair[:-1], pair + "A", "x" + pair, secret)
    yield from (
        spell_token(new_id(prefix, "live"), secret)
        for prefix in ("acme", "fullwher", "fullwheres", "bizmagnets")
    )
    yield from (spell_token(new_id("fullwhere", code), secret) for code in ("test", "lives", "prod"))
    yield from (
        token.replace("_k", "_x"),
        token.upper(),
        token[:-6] + "9" + token[-5:],
        token.replace("_", "-"),
    )
    yield spell_token(new_id("fullwhere", "live", "m"), secret)
    yield f"fullwhere_live_k{'0' * 14}A_{'A' * 32}0NoKey"  # a sample


def test_what_is_no_key_is_not_found() -> None:
    """Ids, shortened, lengthened and altered tokens, other prefixes and environments, and samples are not found."""
    found = of_gitleaks()
    for text in near_misses():
        assert [
            got for name in ("key", "secret") for got in found_by(found[f"fullwhere-api-{name}"], text)
        ] == [], text


def test_trufflehog_reads_the_same_rules() -> None:
    """The YAML has the same regular expressions and keywords, one detector each, which asks nobody."""
    detectors = yaml.safe_load(trufflehog(spaces()))["detectors"]
    same = {rule.id: (rule.regex, list(rule.keywords)) for rule in rules(spaces())}

    assert {one["name"]: (one["regex"]["credential"], one["keywords"]) for one in detectors} == same
    assert all(set(one) == {"name", "description", "keywords", "regex"} for one in detectors)
    assert {name for name, _ in same.items()} == set(of_gitleaks())


def test_titles_are_written_so_that_both_read_them() -> None:
    """Quotes, a backslash and letters of any script in a title break neither file."""
    title = 'He said "no" \\ 日本 \U0001f511: - #'
    space = profiles.load(f'name = "acme"\ntitle = {title!r}'.replace("\\\\", "\\"))
    assert space.title == title
    assert tomllib.loads(gitleaks([space]))["rules"][1]["description"] == f"API key ({title})"
    assert yaml.safe_load(trufflehog([space]))["detectors"][1]["description"] == f"API key ({title})"


def test_the_command_prints_them(tmp_path: Path) -> None:
    """``keywright keyspaces rules`` prints the file for all keyspaces, or for those that are named; dotted ones have none."""
    folder = Folder(tmp_path)
    for name in ("fullwhere", "atfinity", "gallabox"):
        folder("keyspaces", "create", "--profile", name)
    everything = tomllib.loads(folder("keyspaces", "rules", "gitleaks").out)
    one = yaml.safe_load(folder("keyspaces", "rules", "trufflehog", "gallabox").out)
    unknown = folder("keyspaces", "rules", "gitleaks", "nothing")

    assert [rule["id"] for rule in everything["rules"]] == [
        "keywright-management-key",
        *("fullwhere-api-key", "fullwhere-api-secret", "gallabox-api-key", "gallabox-api-secret"),
    ]
    assert [found["name"] for found in one["detectors"]][1:] == ["gallabox-api-key", "gallabox-api-secret"]
    assert (unknown.code, unknown.out) == (1, "")


@pytest.mark.security("S-10")
def test_what_a_scan_finds_it_reports(kw: Keywright, tmp_path: Path) -> None:
    """``scan --report`` sends each token once and prints none; the server does as the keyspace says."""
    issued = make(kw)
    token = issued.credential.token.reveal()
    source = tmp_path / "app" / "settings.py"
    source.parent.mkdir()
    source.write_text(f"A = '{token}'\nB = '{token}'\nC = '{secrets_of(issued)[1]}'\n")
    with served(server(kw)) as port:
        url = f"http://127.0.0.1:{port}"
        ran = Folder(tmp_path)("scan", "app", "--report", url, "--found-at", "https://git.example/app")
        silent = Folder(tmp_path)("scan", "app", "--report", "http://127.0.0.1:1")
    source.unlink()
    with again(kw) as after:
        after.installation.lookout.round()
        (alert,) = after.installation.alerts.list().items

    assert ran.code == 1
    assert f"1 reported to {url}" in ran.out
    assert token not in ran.out + ran.err
    assert (alert.rule, alert.evidence["urls"]) == ("leaked", ["https://git.example/app"])
    assert "1 reported" not in silent.out
    assert silent.code != 0
