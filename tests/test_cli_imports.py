"""``keywright keys import``: the files that other systems export to, and what is told of them."""

import hashlib
import json
from pathlib import Path

import pytest

from conftest import EVERY
from processes import Folder

TOKENS = [f"legacy_{n:032}" for n in range(250)]
PLACE = ("--keyspace", "every", "--account", "globex", "--environment", "production", "--access", "all")
BEFORE = f'{EVERY}\n[imported]\nprefixes = ["legacy_"]\n'


@pytest.fixture
def command(template: Path, tmp_path: Path) -> Folder:
    """The command, on an installation whose keyspace ``every`` takes credentials of the system before it."""
    folder = Folder(tmp_path, copy_of=template)
    assert folder("keyspaces", "apply", "-", given=BEFORE).code == 0
    return folder


def accepted(command: Folder, token: str, keyspace: str = "every", environment: str = "production") -> str:
    """What ``keys verify`` says of a token."""
    return command(
        "keys", "verify", "--keyspace", keyspace, "--environment", environment, given=token
    ).out.strip()


def test_a_table_is_read(command: Folder) -> None:
    """With lists and JSON in its fields; what is empty is left out."""
    rows = (
        "token,name,access,scopes,limits,expires_at,metadata\r\n"
        f'{TOKENS[0]},"Sync, old",restricted,things:read things:write,10/day rate:5/1s,2030-01-01T00:00:00Z,"{{""was"": 7}}"\r\n'
        f"{TOKENS[1]},Other,,,,never,\r\n"
    )
    ran = command("keys", "import", "-", *PLACE, given="\ufeff" + rows)
    assert (ran.code, ran.out, ran.err) == (0, "made: 2\n", "")
    other, first = command("keys", "list", "--sort", "name", "--json").json["items"]
    assert (first["name"], first["scopes"], first["metadata"]) == (
        "Sync, old", ["things:read", "things:write"], {"was": 7},
    )  # fmt: skip
    assert (len(first["limits"]), first["expires_at"]) == (2, "2030-01-01T00:00:00Z")
    assert (other["access"], other["expires_at"]) == ("all", None)
    assert accepted(command, TOKENS[0]) == accepted(command, TOKENS[1]) == "ok"


@pytest.mark.parametrize("form", ["list", "lines", "export"])
def test_json_is_read(command: Folder, form: str) -> None:
    """As one list, as an object on each line, or as what was exported under ``items``."""
    items = [{"name": f"Key {n}", "token": token} for n, token in enumerate(TOKENS[:3])]
    text = {
        "list": json.dumps(items, indent=1),
        "lines": "\n\n".join(map(json.dumps, items)),
        "export": json.dumps({"items": items}),
    }[form]
    (command.path / "keys.json").write_text(text)
    ran = command("keys", "import", "keys.json", *PLACE)
    assert (ran.code, ran.out) == (0, "made: 3\n")


def test_what_django_dumps_is_read(command: Folder) -> None:
    """Of ``djangorestframework-api-key``: ids are kept, and what was revoked is left out and counted."""
    tokens = {prefix: f"{prefix}.{'Q' * 32}" for prefix in ("n58lzyb1", "AAAAAAA1")}
    rows = [
        {
            "model": "rest_framework_api_key.apikey",
            "pk": f"{prefix}.x",
            "fields": {
                "prefix": prefix,
                "hashed_key": "sha512$$" + hashlib.sha512(token.encode()).hexdigest(),
                "created": "2024-01-01T00:00:00Z",
                "name": f"Key {prefix}",
                "revoked": prefix == "AAAAAAA1",
                "expiry_date": None,
            },
        }
        for prefix, token in tokens.items()
    ]
    place = ("--keyspace", "atfinity", "--account", "globex", "--environment", "production")
    ran = command("keys", "import", "-", *place, given=json.dumps(rows))
    assert (ran.code, ran.out.splitlines()[0]) == (0, "made: 1"), ran.out + ran.err
    assert "revoked where they come from: 1" in ran.out
    assert [accepted(command, token, "atfinity") for token in tokens.values()] == ["ok", "invalid (unknown)"]


def test_many_go_in_portions_and_again(command: Folder) -> None:
    """However many there are; a second time nothing is made, and a dry run makes nothing at all."""
    text = "\n".join(json.dumps({"name": f"Key {n}", "token": token}) for n, token in enumerate(TOKENS))
    assert command("keys", "import", "-", *PLACE, "--dry-run", given=text).out == "would be made: 250\n"
    assert command("keys", "import", "-", *PLACE, given=text).out == "made: 250\n"
    again = command("keys", "import", "-", *PLACE, "--json", given=text).json
    assert (again["made"], again["exists"], len({item["id"] for item in again["items"]})) == (0, 250, 250)


def test_what_is_refused_is_told_with_its_number_and_fails_the_command(command: Folder) -> None:
    """The others are made all the same, and no token is repeated."""
    items = [
        {"name": "Good", "token": TOKENS[0]},
        {"name": "Short", "token": "legacy_1"},
        {"token": TOKENS[1]},
    ]
    ran = command("keys", "import", "-", *PLACE, given=json.dumps(items))
    assert ran.code == 1
    assert ran.out.splitlines()[:2] == ["made: 1", "refused: 2"]
    assert "2    Short  token: is none that the keyspace takes" in ran.out
    assert "name: is needed" in ran.out
    assert "legacy_1" not in ran.out


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[]", "has no keys in it"),
        ("token\n", "has no keys in it"),
        ("[1]", "is no list of objects"),
        ("[{]", "line 1 is no JSON"),
        ('{"token": "x"}\n{"token"\n', "line 2 is no JSON"),
        ("key,name\nx,y\n", "neither a column token nor a column hash"),
        ("token,name\nx,y,z\n", "row 2 has more fields than the first line names"),
        ('token,name\n"x,y\n', "is no CSV"),
        ("token,metadata\nx,{\n", "line 2 is no JSON"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused(command: Folder, given: str, why: str) -> None:
    """In words, with the line where there is one."""
    ran = command("keys", "import", "-", *PLACE, given=given)
    assert ran.code == 2
    assert why in ran.err
    assert "Traceback" not in ran.err


def test_a_keyspace_must_be_meant(command: Folder) -> None:
    """Where there are several, they are named."""
    ran = command("keys", "import", "-", given=json.dumps([{"token": TOKENS[0]}]))
    assert ran.code == 2
    assert "say which is meant: --keyspace" in ran.err


def test_explain_knows_an_imported_credential(command: Folder) -> None:
    """Its key, its state and its environment; of another one, that nobody knows it."""
    items = [{"name": "Old one", "token": TOKENS[0]}]
    command("keys", "import", "-", *PLACE, given=json.dumps(items))
    for pasted in (f"Authorization: Bearer {TOKENS[0]}", TOKENS[0]):
        found = command("explain", "--keyspace", "every", "--json", given=pasted).json["items"][0]
        assert (found["code"], found["key"]["name"], found["key"]["environment"]) == (
            "ok",
            "Old one",
            "production",
        )
    stranger = f"Authorization: Bearer {TOKENS[1]}"
    found = command("explain", "--keyspace", "every", "--json", given=stranger).json["items"][0]
    assert (found["code"], found["key"]) == ("invalid", None)
