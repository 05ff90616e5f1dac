"""``keywright explain``: what is wrong with a request, said without repeating a secret."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from keywright import credential
from processes import Folder, Ran


@pytest.fixture
def command(template: Path, tmp_path: Path) -> Folder:
    """The command, on an installation with every keyspace and the cast."""
    return Folder(tmp_path, copy_of=template)


def new_key(command: Folder, keyspace: str = "default") -> dict[str, Any]:
    """Make a key of globex and give its JSON."""
    where = ("--keyspace", keyspace, "--account", "globex", "--environment", "production", "--access", "all")
    issued: dict[str, Any] = command("keys", "create", "CRM sync", *where, "--json").json
    return issued


def explained(command: Folder, text: str, *flags: str) -> dict[str, Any]:
    """What is said of a text in the one keyspace that its credential shows."""
    (item,) = command("explain", "--json", *flags, given=text).json["items"]
    found: dict[str, Any] = item
    return found


def no_secret(ran: Ran, issued: dict[str, Any]) -> bool:
    """Whether neither spelling of the secret, nor its characters, stand in what was printed."""
    secret = issued["credential"]["token"][-38:-6]
    return secret not in ran.out + ran.err


@pytest.mark.parametrize(
    ("keyspace", "scheme"),
    [
        ("default", "bearer"),
        ("default", "basic"),
        ("fullwhere", "key_secret"),
        ("gallabox", "camel_pair"),
        ("partna", "key_user"),
        ("atfinity", "api_key_auth"),
        ("every", "header"),
    ],
)
def test_the_headers_of_every_scheme_are_read(command: Folder, keyspace: str, scheme: str) -> None:
    """The headers and the curl line of a key that was just made are read alike: valid, the scheme, the true state."""
    issued = new_key(command, keyspace)
    shown = next(p for p in issued["presentations"] if p["scheme"] == scheme)
    headers = "\n".join(f"{name}: {value}" for name, value in shown["headers"].items())

    for text in (headers, shown["curl"]):
        item = explained(command, text, "--keyspace", keyspace)
        assert (item["code"], item["scheme"], item["hints"]) == ("ok", scheme, [])
        assert item["key"]["name"] == "CRM sync"
    assert command("explain", "--keyspace", keyspace, given=headers).code == 0


@pytest.mark.parametrize(
    "form",
    [
        "curl -H'Authorization: Bearer {token}' https://api.example/",
        '$ curl --header="Authorization: Bearer {token}" \\\n  --url https://api.example/',
        "curl -u {id}:{secret} https://api.example/",
        "> GET /v4/account HTTP/1.1\n> Host: api.example\n> Authorization: Bearer {token}",
        'headers = {{\n  "Authorization": "Bearer {token}",\n}}',
        "{token}",
    ],
)
def test_it_is_read_as_it_is_pasted(command: Folder, form: str) -> None:
    """Options of curl, a verbose log, a piece of a program and a bare key are read."""
    issued = new_key(command)

    assert explained(command, form.format(**issued["credential"]))["code"] == "ok"


def test_a_half_that_is_missing_is_named(command: Folder) -> None:
    """Of a pair, the header that is there and the one that is missing are named."""
    issued = new_key(command, "fullwhere")

    item = explained(command, f"X-API-KEY: {issued['credential']['id']}")

    assert (item["code"], item["reason"]) == ("missing", "half_pair")
    assert "X-API-KEY is there, X-API-SECRET is missing" in item["hints"]


@pytest.mark.requirement("A-19")
@pytest.mark.parametrize(
    ("form", "typographic"),
    [
        ("Authorization: Bearer \u201c{token}\u201d", True),
        ("Authorization: \u2018Bearer {token}\u2019", True),
        ("Authorization: Bearer '{token}'", False),
        ("curl -H \u2018Authorization: Bearer {token}\u2019 https://api.example", True),
    ],
)
def test_quotes_are_seen_and_seen_through(command: Folder, form: str, typographic: bool) -> None:
    """Straight and typographic quotes are pointed out, with what the request would be without them."""
    issued = new_key(command)

    ran = command("explain", "--keyspace", "default", given=form.format(**issued["credential"]))

    assert ran.code == 1
    assert ("typographic quotes" in ran.out) == typographic
    assert "quotes" in ran.out
    assert "without the quotes it would be ok" in ran.out
    assert no_secret(ran, issued)


def test_a_broken_checksum_is_told_from_a_wrong_secret(command: Folder) -> None:
    """A typing error is a broken checksum; a secret that is well spelled and not the key's own is a wrong secret."""
    issued = new_key(command)
    token, key_id = issued["credential"]["token"], issued["credential"]["id"]

    typo = explained(command, f"Authorization: Bearer {token[:-1]}{'0' if token[-1] != '0' else '1'}")
    guess = explained(command, f"Authorization: Bearer {credential.spell_token(key_id, 'A' * 32)}")

    assert (typo["reason"], guess["reason"]) == ("checksum", "wrong_secret")
    assert typo["key"] == guess["key"] == {"id": key_id}


def test_the_true_state_is_said_once_proven(command: Folder) -> None:
    """Of a key that is proven, everything that could stop it is said; of one that is not, no more than its id."""
    issued = new_key(command)
    text = f"Authorization: Bearer {issued['credential']['token']}"
    key_id = issued["key"]["id"]

    assert "is for production" in explained(command, text, "--environment", "staging")["says"]
    for verb, reason in (
        ("disable", "disabled"),
        ("enable", "ok"),
        ("invalidate", "invalidated"),
        ("delete", "deleted"),
    ):
        command("keys", verb, key_id, *(["--yes"] if verb == "delete" else []))
        item = explained(command, text)
        assert (item["reason"], item["key"]["account"]) == (reason, "globex")


def test_a_suspended_account_is_said(command: Folder) -> None:
    """A key that is well, of an account that is not, is told so."""
    issued = new_key(command)
    command("accounts", "suspend", "globex")

    item = explained(command, f"Authorization: Bearer {issued['credential']['token']}")

    assert (item["code"], item["key"]["account_state"]) == ("account_suspended", "suspended")


def test_a_wrong_username_is_said(command: Folder) -> None:
    """In the scheme whose username is part of the proof, the wrong one is told from a wrong key."""
    issued = new_key(command, "partna")

    item = explained(command, f"x-api-key: {issued['credential']['token']}\nx-api-user: initech")

    assert (item["code"], item["reason"], item["key"]["account"]) == ("invalid", "wrong_user", "globex")


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("Authorization: Bearer {token}\nAuthorization: Bearer {token}", "header_twice"),
        ("Authorization: Bearer {token}\napiKey: {id}\napiSecret: {secret}", "two_credentials"),
        ("x_api_key: {id}\nX-API-SECRET: {secret}", "underscore_twin"),
        ("curl -H 'Authorization: Bearer {token}' 'https://api.example/?key={token}'", "in_url"),
        ("Authorization: Bearer {token}x", "malformed"),
        ("X-Token: {token}", "no_carrier"),
    ],
)
def test_every_shape_that_is_refused_is_named(command: Folder, form: str, reason: str) -> None:
    """What the client is told in three words is told here exactly, and the secret is repeated in none of them."""
    issued = new_key(command)
    text = form.format(**issued["credential"])

    assert explained(command, text)["reason"] == reason
    assert no_secret(command("explain", given=text), issued)


def test_placeholders_are_pointed_out(command: Folder) -> None:
    """A value that nobody filled in is called that."""
    for value in ("YOUR_API_KEY", "$API_KEY", "<token>", "{{token}}"):
        item = explained(command, f"Authorization: Bearer {value}", "--keyspace", "default")
        assert "the value of Authorization has a placeholder in it that was never filled in" in item["hints"]


@pytest.mark.security("K-05")
def test_nothing_that_could_be_a_secret_is_repeated(command: Folder) -> None:
    """Whatever stands where in the paste, no part of a secret comes back, in text or in JSON."""
    issued = new_key(command)
    token = issued["credential"]["token"]
    basic = b64encode(f"{issued['credential']['id']}:{issued['credential']['secret']}".encode()).decode()
    pastes = (
        f"{token}: x",
        f"“{token}”: x",
        f"Authorization: Basic {basic}x",
        f"X-Custom: {token}",
        f"hello {token}\n{token}",
        f"curl -H {token} -H 'Authorization: Bearer “{token}",
    )
    for text in pastes:
        for flags in ((), ("--json",)):
            ran = command("explain", *flags, given=text)
            assert no_secret(ran, issued), text
            assert basic not in ran.out


@pytest.mark.parametrize(
    "text", ["", "\n\n", "hello there", "curl", "curl -H", "\x00\xff\x1b[2J: \x1b[2J", ":::"]
)
def test_any_paste_is_answered(command: Folder, text: str) -> None:
    """Text without a header is answered with what the keyspaces accept, whatever it is."""
    ran = command("explain", given=text)

    assert (ran.code, ran.err) == (1, "")
    assert "Authorization: Bearer <token>" in ran.out
    assert "\x1b" not in ran.out


def test_where_there_is_no_keyspace_it_says_so(tmp_path: Path) -> None:
    """On an empty database there is nothing to hold a header against, and the way to a first key is shown."""
    ran = Folder(tmp_path)("explain", given="Authorization: Bearer x")

    assert ran.code == 1
    assert "keywright keys create" in ran.out
    assert Folder(tmp_path)("explain", "--keyspace", "acme", given="x").code == 1
