"""The command: what each verb does, what it prints, and how it ends when something is wrong."""

import errno
import io
import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import keywright.cli
from keywright import Keywright, installation, profiles
from keywright.cli.opening import print_json, print_table, working
from keywright.errors import Unavailable
from keywright.profiles import SHIPPED
from pages import DOCS, PAGES
from processes import COMMAND, PATIENCE, Folder, run, surroundings


@pytest.fixture
def command(template: Path, tmp_path: Path) -> Folder:
    """The command, on an installation with every keyspace and the cast."""
    return Folder(tmp_path, copy_of=template)


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    """The command, in an empty folder."""
    return Folder(tmp_path)


IN_EVERY = ("--keyspace", "every", "--account", "globex", "--environment", "production", "--access", "all")


def new_key(command: Folder, *more: str, name: str = "CRM sync") -> dict[str, Any]:
    """Make a key of globex in ``every`` and give its JSON."""
    made = command("keys", "create", name, *IN_EVERY, *more, "--json")
    assert made.code == 0, made.err
    issued: dict[str, Any] = made.json
    return issued


def accepted(command: Folder, issued: dict[str, Any]) -> str:
    """What ``keys verify`` says of the token that was issued."""
    token = issued["credential"]["token"]
    return command(
        "keys", "verify", "--keyspace", "every", "--environment", "production", given=token
    ).out.strip()


# -------------------------------------------------------------------------------------------------------- a first key


def test_a_first_key_by_hand(tmp_path: Path) -> None:
    """On an empty folder one line makes keyspace, account and key, says all of it, and ends with a curl line."""
    ran = run("keys", "create", "CRM sync", cwd=tmp_path)

    assert (ran.returncode, ran.stderr) == (0, "")
    for said in (
        "keyspace `default`",
        "account `default`",
        "environment `production`",
        "access `all`",
        "only time",
    ):
        assert said in ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("curl -H 'Authorization: Bearer default_live_k")
    assert stat.S_IMODE((tmp_path / "keywright.db.secret").stat().st_mode) == 0o600


def test_a_first_key_that_is_refused_makes_nothing(empty: Folder) -> None:
    """A mistake in the first line leaves the database empty, so that the corrected line is still the first."""
    for wrong in (("--limit", "5/fortnight"), ("--allow-ip", "here"), ("--access", "restricted")):
        assert empty("keys", "create", "CRM", *wrong).code == 1

    assert empty("keyspaces", "list").out == "no keyspaces\n"
    assert "Took access `all`" in empty("keys", "create", "CRM").out


def test_all_open_choices_are_told_at_once(command: Folder) -> None:
    """Where several could be meant, one message names every missing flag with its candidates and shows a whole line."""
    ran = command("keys", "create", "Second")

    assert ran.code == 2
    for flag, candidate in (
        ("--keyspace", "fullwhere"),
        ("--account", "initech"),
        ("--environment", "staging"),
        ("--access", "read_only"),
    ):
        assert re.search(rf"^  {flag} +.*{candidate}", ran.err, re.MULTILINE)
    assert "keywright keys create Second --keyspace" in ran.err
    assert command("keys", "list").out == "no keys\n"


def test_a_keyspace_that_is_not_there_is_said(command: Folder, empty: Folder) -> None:
    """A keyspace that does not exist is what is wrong, whatever else is open, on an empty database too."""
    for folder in (command, empty):
        ran = folder("keys", "create", "x", "--keyspace", "nope")
        assert (ran.code, ran.err) == (1, "keywright: there is no keyspace 'nope'\n")


@pytest.mark.parametrize("noun", ["keys", "alerts", "audit", "people", "usage", "webhooks"])
def test_an_account_that_is_not_there_is_said(command: Folder, noun: str) -> None:
    """A list of an account that does not exist says so, where an empty one would hide the slip."""
    listed = (noun,) if noun == "usage" else (noun, "list")
    ran = command(*listed, "--account", "nope")
    assert (ran.code, ran.out, ran.err) == (1, "", "keywright: there is no account 'nope'\n")
    assert command(*listed, "--account", "initech").code == 0


def test_the_example_of_that_message_works(command: Folder) -> None:
    """The line that the message shows is accepted as it stands."""
    example = command("keys", "create", "Second", "--keyspace", "gallabox").err
    shown = re.search(r"for example: keywright (.*)", example)

    assert shown is not None
    assert command(*shown[1].split()).code == 0


@pytest.mark.screen("U-13")
def test_a_preset_fills_scopes_in(empty: Folder) -> None:
    """Its scopes, and those that are named besides, each once; one that there is not is refused, and nothing is made."""
    scopes = "\n".join(f'"{name}" = {{ title = "{name}" }}' for name in ("a:read", "b:read", "c:write"))
    preset = '[presets.reporting]\ntitle = "Reporting"\nscopes = ["b:read", "a:read"]'
    (empty.path / "acme.toml").write_text(f'name = "acme"\n[scopes]\n{scopes}\n{preset}\n', encoding="utf-8")
    assert empty("keyspaces", "apply", "acme.toml").code == 0
    line = ("keys", "create", "Reports", "--environment", "production")

    wrong = empty(*line, "--preset", "all")
    assert (wrong.code, wrong.err) == (1, "keywright: --preset: 'all' is none of reporting\n")
    assert json.loads(empty("accounts", "list", "--json").out)["items"] == []
    named = ("--scope", "c:write", "--scope", "a:read")
    made = json.loads(empty(*line, "--preset", "reporting", *named, "--json").out)["key"]
    assert (made["access"], made["scopes"]) == ("restricted", ["b:read", "a:read", "c:write"])
    assert "reporting" not in json.dumps(made)


def test_what_has_one_candidate_is_filled_in_and_said(empty: Folder) -> None:
    """One keyspace and one account need not be named, and what was taken is said."""
    empty("keyspaces", "create", "--profile", "partna")
    empty("accounts", "create", "globex")

    ran = empty("keys", "create", "CRM", "--environment", "staging")

    assert ran.code == 0
    assert "Took the keyspace `partna`, the only one." in ran.out
    assert "Took the account `globex`, the only one." in ran.out


@pytest.mark.requirement("X-11")
@pytest.mark.parametrize("keyspace", SHIPPED)
def test_what_a_creation_needs(command: Folder, keyspace: str) -> None:
    """Everywhere a name is needed and a description is not; access is `all` unless said, or has to be chosen."""
    named = ("--keyspace", keyspace, "--account", "globex", "--environment", "production", "--json")
    must_choose = keyspace in ("gallabox", "default")

    assert command("keys", "create", *named, "--access", "all").code == 2
    assert command("keys", "create", "", *named, "--access", "all").code == 2
    plain = command("keys", "create", "CRM", *named)
    assert plain.code == (2 if must_choose else 0)
    if must_choose:
        assert "--access  all, read_only, restricted" in plain.err
        plain = command("keys", "create", "CRM", *named, "--access", "all")
    assert (plain.json["key"]["access"], plain.json["key"]["description"]) == ("all", "")
    described = command("keys", "create", "CRM", *named, "--access", "all", "--description", "syncs")
    assert described.json["key"]["description"] == "syncs"


@pytest.mark.requirement("P-38")
def test_an_account_is_brought_on_board(command: Folder) -> None:
    """One command makes an account, an owner who comes by its link, and a key for each environment that works there."""
    made = command(
        "accounts", "onboard", "hooli2", "--keyspace", "partna", "--admin", "gavin@hooli.example", "--json"
    )

    assert made.code == 0, made.err
    assert made.json["account"]["username"] == "hooli2"
    assert made.json["invitation"]["url"].endswith("#" + made.json["invitation"]["token"])
    assert {key["key"]["environment"] for key in made.json["keys"]} == {"staging", "production"}
    with Keywright(command.database) as kw:
        owner = kw.installation.sessions.follow(
            made.json["invitation"]["token"], "four words beside gravel"
        ).session.person
        assert [(held.account, held.role) for held in owner.memberships] == [("hooli2", "owner")]
        for issued in made.json["keys"]:
            headers = {"x-api-key": issued["credential"]["token"], "x-api-user": "hooli2"}
            for environment in ("staging", "production"):
                verdict = kw.verify(
                    headers, keyspace="partna", environment=environment, authenticate_only=True
                )
                assert verdict.valid is (environment == issued["key"]["environment"])


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (("globex", "--keyspace", "partna", "--admin", "a@b.example"), "globex"),
        (("hooli3", "--keyspace", "nothing", "--admin", "a@b.example"), "there is no keyspace 'nothing'"),
        (("hooli3", "--keyspace", "partna", "--admin", "nobody"), "email"),
        (("Hooli 3", "--keyspace", "partna", "--admin", "a@b.example"), "username"),
    ],
)
def test_who_cannot_be_brought_on_board(command: Folder, told: tuple[str, ...], says: str) -> None:
    """An account that is there, a keyspace that is not, a name or an address that is none: refused, and nothing is made."""
    refused = command("accounts", "onboard", *told)

    assert refused.code != 0
    assert says in refused.err
    assert command("keys", "list", "--account", "globex").out == "no keys\n"
    assert "hooli3" not in command("accounts", "list").out


# -------------------------------------------------------------------------------------------------- the verbs on keys


def test_the_life_of_a_key(command: Folder) -> None:
    """Every verb changes what it says, and a verification obeys each from then on."""
    issued = new_key(command)
    key_id = issued["key"]["id"]

    assert accepted(command, issued) == "ok"
    for verb, then in (("disable", "disabled"), ("enable", "ok"), ("invalidate", "invalidated")):
        assert command("keys", verb, key_id).code == 0
        assert accepted(command, issued) == then
    assert command("keys", "delete", key_id, "--yes").code == 0
    assert accepted(command, issued) == "invalid (deleted)"
    assert command("keys", "list").out == "no keys\n"
    assert command("keys", "purge", "--older-than", "0s", "--yes", "--json").json == {"purged": 1}
    assert accepted(command, issued) == "invalid (unknown)"


def test_who_ends_a_parent_is_told_of_its_children(command: Folder) -> None:
    """Invalidating or deleting a key that made keys says which of them go on working."""
    parent, childless = new_key(command), new_key(command)
    with Keywright(command.database, keyspace="every", environment="production") as kw:
        headers = {"Authorization": f"Bearer {parent['credential']['token']}"}
        by = kw.verify(headers, authenticate_only=True).key
        child = kw.keys.create(account="globex", name="Child", access="all", by=by).key.id

    for verb in (("invalidate",), ("delete", "--yes")):
        said = command("keys", verb[0], parent["key"]["id"], *verb[1:]).out
        assert said.endswith(f"\nkeys that it made go on working: {child}\n")
        assert "go on" not in command("keys", verb[0], childless["key"]["id"], *verb[1:]).out


def test_a_rotation_is_finished_or_cancelled(command: Folder) -> None:
    """With a grace both secrets work; finish ends the old one, cancel the new one, and without a rotation both are refused."""
    first = new_key(command)
    key_id = first["key"]["id"]

    second = command("keys", "rotate", key_id, "--grace", "24h", "--json").json
    assert [accepted(command, first), accepted(command, second)] == ["ok", "ok"]
    assert command("keys", "rotate", key_id).code == 1
    assert command("keys", "finish", key_id).code == 0
    assert [accepted(command, first), accepted(command, second)] == ["rotated", "ok"]
    third = command("keys", "rotate", key_id, "--grace", "1h", "--start", "first_use", "--json").json
    assert "rotating" in command("keys", "get", key_id).out
    assert command("keys", "cancel", key_id).code == 0
    assert [accepted(command, second), accepted(command, third)] == ["ok", "rotated"]
    assert command("keys", "finish", key_id).code == command("keys", "cancel", key_id).code == 1


def test_a_rotation_says_what_becomes_of_the_old_secret(command: Folder) -> None:
    """Whoever rotates reads whether the old secret has ended, or until when it goes on; whoever makes a key reads neither."""
    made = command("keys", "create", "x", *IN_EVERY)
    key_id = command("keys", "list", "--json").json["items"][0]["id"]
    graced = command("keys", "rotate", key_id, "--grace", "24h")
    ends = command("keys", "get", key_id, "--json").json["rotation"]["old_ends_at"]
    forced = command("keys", "rotate", key_id, "--force")

    assert "old secret" not in made.out
    assert f"old secret   goes on until {ends} at the latest" in graced.out
    assert "old secret   has ended" in forced.out


def test_what_a_management_key_is_bound_to_is_shown(command: Folder) -> None:
    """The list and the record of management keys say what each is bound to, and not where our own keyspace keeps them."""
    new = ("management-keys", "create", "--scope", "verify")
    bound = command(*new, "Bound", "--account", "globex", "--keyspace", "every", "--quiet").out.rpartition(
        "_"
    )[0]
    command(*new, "Free")
    listed = command("management-keys", "list").out
    shown = command("management-keys", "get", bound).out

    assert re.search(r"Bound +globex, every +verify", listed)
    assert re.search(r"Free +nothing +verify", listed)
    assert re.search(r"bound to +globex, every\n", shown)
    assert "keywright" not in listed + shown


def test_everything_can_be_said_at_creation_and_edited(command: Folder) -> None:
    """Each field of a key has a flag at creation, one that changes it, and one that takes it away."""
    said = ("--team", "crm", "--application", "sync", "--description", "nightly", "--plan", "small")
    more = ("--limit", "10/day", "--allow-ip", "192.0.2.0/24", "--expires", "90d", "--metadata", '{"a": 1}')
    made = new_key(command, *said, *more)["key"]

    assert [made[f] for f in ("team", "application", "description", "plan")] == [
        "crm",
        "sync",
        "nightly",
        "small",
    ]
    assert (made["limits"][0]["limit"], made["allowed_ips"], made["metadata"]) == (
        10,
        ["192.0.2.0/24"],
        {"a": 1},
    )
    gone = ("--team", "", "--limit", "none", "--allow-ip", "any", "--plan", "none", "--expires", "never")
    scoped = ("--access", "restricted", "--scope", "things:read")
    edited = command("keys", "edit", made["id"], "--name", "ERP", *gone, *scoped, "--json").json
    assert [edited[f] for f in ("name", "team", "plan", "expires_at")] == ["ERP", None, None, None]
    assert (edited["limits"], edited["allowed_ips"], edited["scopes"]) == ([], [], ["things:read"])
    assert edited["propagation"] == {"exact": True}
    assert command("keys", "edit", made["id"]).code == 2


def test_the_list_is_narrowed_and_goes_on(command: Folder) -> None:
    """Filters and search choose, and the cursor of a page leads to the next."""
    # A search looks through ids too, which are random: only what stands in no id finds one name alone.
    for name in ("alpha", "be-ta", "gamma"):
        new_key(command, "--team", name, name=name)

    def names(*narrow: str) -> list[str]:
        return [item["name"] for item in command("keys", "list", "--json", *narrow).json["items"]]

    assert names("--team", "be-ta") == names("--search", "be-") == ["be-ta"]
    assert names("--sort", "name") == ["alpha", "be-ta", "gamma"]
    page = command("keys", "list", "--sort", "name", "--limit", "2")
    cursor = re.search(r"more: --cursor (\S+)", page.err)
    assert cursor is not None
    assert names("--sort", "name", "--limit", "2", "--cursor", cursor[1]) == ["gamma"]


def test_a_secret_that_is_searched_for_is_found_by_its_id_and_not_repeated(command: Folder) -> None:
    """A whole token in ``--search`` finds its key, is warned about, and stands nowhere in the output."""
    issued = new_key(command)

    ran = command("keys", "list", "--search", issued["credential"]["token"])

    assert issued["key"]["id"] in ran.out
    assert "That was a secret" in ran.err
    assert issued["credential"]["token"] not in ran.out + ran.err


# ------------------------------------------------------------------------------------------------ where a secret goes


def test_quiet_prints_the_token_alone(command: Folder) -> None:
    """``--quiet`` prints the one value that a scheme of the keyspace carries: the token, or a pair's secret."""
    where = ("--account", "globex", "--environment", "production", "--quiet")
    token = command("keys", "create", "CRM", "--keyspace", "every", *where)
    pair = command("keys", "create", "CRM", "--keyspace", "fullwhere", *where)

    assert re.fullmatch(r"every_live_k\w{15}_\w{38}\n", token.out)
    assert re.fullmatch(r"fullwheresec_\w{38}\n", pair.out)


def test_an_env_file_is_private_and_new(command: Folder, tmp_path: Path) -> None:
    """``--env-file`` writes a 0600 file that a shell can read, and then the secret is not on the screen."""
    ran = command("keys", "create", "CRM", *IN_EVERY, "--env-file", ".env")
    file = tmp_path / ".env"
    names = dict(line.split("=", 1) for line in file.read_text().splitlines())

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(names) == {"API_KEY_ID", "API_KEY_TOKEN", "API_KEY_SECRET"}
    assert names["API_KEY_TOKEN"] not in ran.out
    assert names["API_KEY_SECRET"] not in ran.out


@pytest.mark.parametrize("verb", ["create", "rotate"])
def test_an_env_file_that_cannot_be_written_changes_nothing(
    command: Folder, tmp_path: Path, verb: str
) -> None:
    """A file that exists is left as it is, and no key is made or rotated whose secret would be lost."""
    issued = new_key(command)
    (tmp_path / ".env").write_text("mine")
    what = ("create", "CRM", *IN_EVERY) if verb == "create" else ("rotate", issued["key"]["id"])

    for place in (".env", "/nowhere/.env"):
        ran = command("keys", *what, "--env-file", place)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("keywright: --env-file: ")
    assert (tmp_path / ".env").read_text() == "mine"
    assert accepted(command, issued) == "ok"
    assert len(command("keys", "list", "--json").json["items"]) == 1


def test_an_env_file_is_not_left_behind(command: Folder, tmp_path: Path) -> None:
    """Where the creation itself is refused, no empty file stays."""
    assert command("keys", "create", "CRM", *IN_EVERY, "--limit", "x", "--env-file", ".env").code == 1
    assert not (tmp_path / ".env").exists()


# ------------------------------------------------------------------------------------------------- the other nouns


def test_the_verbs_on_accounts(command: Folder) -> None:
    """Accounts are made active or pending, read, limited, suspended and activated."""
    assert (
        command("accounts", "create", "hooli", "--pending", "--name", "Hooli").out
        == "created: hooli, pending\n"
    )
    refused = command("keys", "create", "X", *IN_EVERY[:2], "--account", "hooli", *IN_EVERY[4:])
    assert refused.code == 1
    for verb, state in (("activate", "active"), ("suspend", "suspended")):
        assert command("accounts", verb, "hooli", "--json").json["state"] == state
    assert command("accounts", "limit", "hooli", "--limit", "5/day", "--json").json["limits"][0]["limit"] == 5
    assert "5/day" in command("accounts", "get", "hooli").out
    assert command("accounts", "limit", "hooli", "--limit", "none", "--json").json["limits"] == []
    found = command("accounts", "list", "--state", "suspended", "--json").json
    assert [item["username"] for item in found["items"]] == ["hooli"]
    assert command("accounts", "create", "hooli").code == 1


def test_the_verbs_on_management_keys(command: Folder) -> None:
    """Management keys are made, listed, read, rotated, stopped and deleted, and are no keys of customers."""
    made = command(
        "management-keys", "create", "ci", "--scope", "verify", "--scope", "keys:read", "--json"
    ).json
    key_id = made["key"]["id"]

    assert key_id.startswith("kw_live_m")
    assert key_id in command("management-keys", "list").out
    assert command("keys", "get", key_id).code == 1
    assert command("management-keys", "rotate", key_id, "--quiet").out.startswith(f"{key_id}_")
    for verb, state in (("disable", "disabled"), ("enable", "active"), ("invalidate", "invalidated")):
        assert command("management-keys", verb, key_id, "--json").json["state"] == state
    assert "verify" in command("management-keys", "get", key_id).out
    assert command("management-keys", "delete", key_id).code == 2
    assert command("management-keys", "delete", key_id, "--yes").code == 0
    assert command("management-keys", "create", "ci", "--scope", "everything").code == 2


def test_the_verbs_on_keyspaces(empty: Folder) -> None:
    """A profile that is printed can be applied, listed and read again as it was."""
    source = empty("keyspaces", "profile", "partna").out

    assert empty("keyspaces", "apply", "-", given=source).out == (
        "created: keyspace partna (key_user; staging, production)\n"
    )
    assert empty("keyspaces", "apply", "-", "--json", given=source).json["outcome"] == "unchanged"
    assert empty("keyspaces", "get", "partna", "--toml").out == source == profiles.source("partna")
    assert empty("keyspaces", "list", "--json").json["items"][0]["schemes"] == ["key_user"]


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('name = "acme"\nschemes = bearer', "line 2"),
        ('name = "acme"\nschemes = ["carrier_pigeon"]', "schemes[0]: 'carrier_pigeon'"),
        ('name = "acme"\ncolour = "red"', "colour"),
        ('name = "acme"\n[environments]\nproduction = "LIVE"', "environments.production: "),
        ('name = "acme"\n[plans.small]\ntitle = "S"\nlimits = ["much"]', "plans.small.limits[0]: "),
        ('name = "Acme"', "name: "),
    ],
)
def test_a_bad_definition_is_refused_where_it_is_bad(
    empty: Folder, tmp_path: Path, toml: str, said: str
) -> None:
    """A definition is refused with its file and the key at fault, or the line where the TOML itself is broken."""
    (tmp_path / "acme.toml").write_text(toml)

    ran = empty("keyspaces", "apply", "acme.toml")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("keywright: acme.toml: ")
    assert said in ran.err
    assert empty("keyspaces", "list").out == "no keyspaces\n"


def test_a_definition_that_cannot_be_read(empty: Folder, tmp_path: Path) -> None:
    """A file that is missing, or no text, is refused in one line."""
    (tmp_path / "picture").write_bytes(b"\x89PNG")

    for file in ("nowhere.toml", "picture"):
        ran = empty("keyspaces", "apply", file)
        assert (ran.code, len(ran.err.splitlines())) == (1, 1)


def test_the_trail_tells_of_the_command_and_is_proven(command: Folder) -> None:
    """What was done stands in the trail under the user's name, and the chain is proven against a head that was kept."""
    issued = new_key(command)
    head = command("audit", "verify", "--json").json["head"]
    kept = f"{head['seq']}:{head['mac']}"

    newest = command("audit", "list", "--limit", "1", "--json").json["items"][0]

    assert (newest["action"], newest["target_id"]) == ("key.create", issued["key"]["id"])
    assert newest["actor_kind"] == "command"
    assert command("audit", "verify", "--head", kept).code == 0
    assert command("audit", "verify", "--head", f"{head['seq'] + 1}:{head['mac']}").code == 1
    assert command("audit", "verify", "--head", "yesterday").code == 1


# ------------------------------------------------------------------------------------------------- when it goes wrong


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("keys", "get", "nobody"), 1, "there is no key 'nobody'"),
        (("keys", "create", "X", *IN_EVERY, "--limit", "much"), 1, "--limit: 'much' is not a limit"),
        (("keys", "create", "X", *IN_EVERY, "--expires", "soon"), 1, "--expires: 'soon' is neither"),
        (("keys", "create", "X", *IN_EVERY, "--allow-ip", "here"), 1, "--allow-ip: 'here'"),
        (("keys", "create", "X", *IN_EVERY, "--metadata", "{"), 1, "--metadata: is not a JSON object"),
        (("keys", "create", "X\x1b[2J", *IN_EVERY), 1, "name: has control characters"),
        (("accounts", "get", "x\x1b[2J"), 1, r"there is no account 'x\x1b[2J'"),
        (("keys", "lst"), 2, "did you mean list?"),
        (("kesy", "list"), 2, "did you mean keys?"),
        (("keys", "list", "--colour"), 2, "--colour"),
        (("keys", "list", "--database", "mysql://there"), 3, "sqlite:///FILE or postgresql://…"),
        (("keys", "list", "--database", "sqlite:////nowhere/k.db"), 3, "/nowhere does not exist"),
        (("keys", "list", "--config", "nowhere.toml"), 3, "nowhere.toml cannot be read"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_said_in_a_line(
    command: Folder, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """Refused is 1, wrong usage 2, an installation that cannot be opened 3; the first line says what is wrong."""
    ran = command(*arguments)

    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err.splitlines()[0]
    assert len(ran.err.splitlines()) <= 2
    assert "\x1b" not in ran.err


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(RuntimeError("boom\nmore"), 4), (OSError(errno.ENOSPC, "disk full"), 4), (Unavailable("x"), 3)],
)
def test_a_fault_of_our_own_is_no_traceback(
    command: Folder, monkeypatch: pytest.MonkeyPatch, trouble: Exception, code: int
) -> None:
    """Whatever is raised ends in a line that names it and one that says how to see more."""

    def broken(*_: object, **__: object) -> None:
        raise trouble

    monkeypatch.setattr(installation, "open_installation", broken)

    ran = command("keys", "list")

    assert ran.code == code
    assert str(trouble).splitlines()[0] in ran.err
    assert ("KEYWRIGHT_DEBUG=1" in ran.err) == (code == 4)
    assert len(ran.err.splitlines()) <= 2


def test_debug_shows_where_a_fault_arose(tmp_path: Path) -> None:
    """With KEYWRIGHT_DEBUG=1 a fault of ours is the traceback that it is."""
    program = (
        "import keywright.installation as i, keywright.cli as c\n"
        "i.open_installation = lambda *a, **k: 1 / 0\n"
        "raise SystemExit(c.main(['keys', 'list']))"
    )

    def ran(**environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=surroundings(**environment),
            capture_output=True,
            text=True,
            check=False,
        )

    assert ran().stderr.startswith("keywright: ZeroDivisionError: ")
    assert "Traceback" in ran(KEYWRIGHT_DEBUG="1").stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("explain",), 1),
        (("init",), 0),
        (("keyspaces", "apply", "-"), 1),
        (("keys", "verify", "--keyspace", "x"), 1),
    ],
)
def test_a_closed_standard_input_is_an_empty_one(
    tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    """Where nothing is there to read from, as under some schedulers, nothing is read: it is no fault of ours."""
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, *arguments],
        cwd=tmp_path,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (ended.returncode, "should not happen" in ended.stderr) == (code, False), ended.stderr


def test_a_full_disk_says_that_the_answer_is_lost(tmp_path: Path) -> None:
    """Where the answer cannot be written, whoever asks is told so, and that a key may have been made all the same."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, "keys", "create", "CRM sync", "--quiet"],
            cwd=tmp_path,
            env=surroundings(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "keywright: the answer cannot be written: No space left on device; what was asked may be done all the "
        "same"
    )
    assert "CRM sync" in run("keys", "list", cwd=tmp_path).stdout


def test_a_pipe_that_is_closed_is_no_fault(tmp_path: Path) -> None:
    """A reader that goes away, as ``| head`` does, ends the command without a word."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        ran = subprocess.run(
            [*COMMAND, "keyspaces", "profile", "default"],
            cwd=tmp_path,
            env=surroundings(),
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert (ran.returncode, ran.stderr) == (1, b"")


# ---------------------------------------------------------------------------------------------------- on a terminal


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], cwd=cwd, env=surroundings(), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.said = ""

    def until(self, text: str) -> None:
        """Read until a text was printed."""
        while text not in self.said:
            ready, _, _ = select.select([self._ours], [], [], PATIENCE)
            assert ready, self.said
            self.said += os.read(self._ours, 4096).decode()

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Wait for the end, having read all."""
        try:
            while more := os.read(self._ours, 4096):
                self.said += more.decode()
        except OSError:  # a terminal whose other side is gone
            pass
        os.close(self._ours)
        return self.process.wait(PATIENCE)


@pytest.mark.parametrize(("typed", "code", "left"), [("n\n", 1, 1), ("y\n", 0, 0)])
def test_a_deletion_asks_on_a_terminal(
    command: Folder, tmp_path: Path, typed: str, code: int, left: int
) -> None:
    """Delete names the key, says that it cannot be undone, and does it only for a yes."""
    issued = new_key(command)
    terminal = Terminal(
        "keys", "delete", issued["key"]["id"], "--database", "sqlite:///test.db", cwd=tmp_path
    )

    terminal.until("[y/N]")
    terminal.type(typed)

    assert terminal.end() == code
    assert "'CRM sync'" in terminal.said
    assert "cannot be undone" in terminal.said
    assert len(command("keys", "list", "--json").json["items"]) == left


@pytest.mark.parametrize("verb", [("keys", "delete"), ("management-keys", "delete"), ("keys", "purge")])
def test_without_a_terminal_only_yes_will_do(command: Folder, verb: tuple[str, str]) -> None:
    """Where nobody can be asked, what cannot be undone is refused as wrong usage."""
    scope = ("--scope", "verify", "--json")
    key = (
        command("management-keys", "create", "x", *scope).json
        if "management" in verb[0]
        else new_key(command)
    )
    target = () if verb[1] == "purge" else (key["key"]["id"],)

    ran = command(*verb, *target)

    assert ran.code == 2
    assert "--yes" in ran.err
    assert command(*verb, *target, "--yes").code == 0


def test_ctrl_c_is_clean(tmp_path: Path) -> None:
    """Ctrl-C ends a command that waits, with 130 and without a traceback."""
    terminal = Terminal("explain", cwd=tmp_path)

    terminal.until("Ctrl-D")
    terminal.process.send_signal(signal.SIGINT)

    assert terminal.end() == 130
    assert "Traceback" not in terminal.said


class Screen(io.StringIO):
    """A standard error that is a terminal, or none, and that tells of what is written to it."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal, self.written = terminal, threading.Event()

    def isatty(self) -> bool:  # noqa: D102  # the stream's own
        return self.terminal

    def write(self, text: str) -> int:  # noqa: D102
        try:
            return super().write(text)
        finally:
            self.written.set()


@pytest.mark.parametrize("terminal", [True, False])
def test_long_work_is_told_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """Work that takes its time says so on a terminal, and wipes it away at its end; elsewhere it is silent."""
    screen = Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", screen)

    with working("purging", every=0.001):
        assert screen.written.wait(PATIENCE if terminal else 0.0) == terminal

    said = screen.getvalue()
    assert (said.startswith("\rpurging … ") and said.endswith("\r\033[K")) if terminal else said == ""


def test_what_somebody_else_wrote_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Escapes, C1 controls, returns and turned directions are printed as dots in tables, and escaped in JSON."""
    wrote = "a\x1b[2J\x9b2J\r\u202eb\x00\x7f"

    print_table(("NAME",), [(wrote,)], nothing="")
    print_json({"name": wrote})
    table, document = capsys.readouterr().out.split("{", 1)

    assert table == "NAME\na·[2J·2J··b··\n"
    assert all(character.isprintable() or character == "\n" for character in document)
    assert json.loads("{" + document) == {"name": wrote}


# ----------------------------------------------------------------------------------------------------------- its help


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_what_the_code_says(page: str) -> None:
    """The help of every command, and the table of settings, stand in the docs as they are: python tests/pages.py."""
    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page]()


@pytest.mark.parametrize(
    ("arguments", "spared"),
    [
        ((), ("sqlalchemy", "alembic", "fastapi", "uvicorn", "msgspec")),
        *(((noun,), ("sqlalchemy", "alembic", "fastapi", "uvicorn")) for noun in keywright.cli.COMMANDS),
    ],
    ids=lambda value: " ".join(value) or "keywright",
)
def test_help_imports_no_database(arguments: tuple[str, ...], spared: tuple[str, ...]) -> None:
    """Help is told without importing what only the work itself needs."""
    program = (
        "import sys, keywright.cli\n"
        f"assert keywright.cli.main([*{arguments!r}, '--help']) == 0\n"
        f"print([name for name in {spared!r} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stderr.strip()) == (0, "[]")
