"""``keywright doctor`` and ``keywright config``: what is found, and that looking changes nothing."""

import fcntl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keywright.installation import Keywright
from keywright.settings import SETTINGS
from keywright.testing import Clock
from processes import Folder


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    """The command, in an empty folder."""
    return Folder(tmp_path)


@pytest.fixture
def one_key(empty: Folder) -> Folder:
    """The command, in a folder with a first key."""
    assert empty("keys", "create", "CRM").code == 0
    return empty


def levels(folder: Folder, **environment: str) -> dict[str, str]:
    """The worst level of each check, and how the command ended as ``code``."""
    ran = folder("doctor", "--json", **environment)
    order = ("ok", "warning", "error")
    found = {"code": str(ran.code)}
    for item in ran.json["items"]:
        found[item["check"]] = max(found.get(item["check"], "ok"), item["level"], key=order.index)
    assert ran.json["ok"] == (ran.code == 0)
    return found


def test_a_well_installation_is_well(one_key: Folder) -> None:
    """Every check is ok, for people in lines and for programs in JSON, and the code is 0."""
    found = levels(one_key)

    assert found.pop("code") == "0"
    assert set(found.values()) == {"ok"}
    assert {
        "settings",
        "sqlite",
        "secret",
        "space",
        "schema",
        "clock",
        "audit",
        "keyspaces",
        "slots",
        "verifying",
    } <= set(found)
    assert one_key("doctor").out.count("\n") == len(one_key("doctor", "--json").json["items"])


def test_a_slot_file_that_cannot_be_read_is_named(one_key: Folder) -> None:
    """No key ends that nobody uses while it is there: whoever wonders why is told which file it is."""
    directory = one_key.path / "keywright.slots"
    directory.mkdir(exist_ok=True)
    damaged = directory / "1-0.slots"
    with damaged.open("wb", buffering=0) as file:
        file.write(b"x" * 9_000)
        fcntl.flock(file, fcntl.LOCK_EX)  # its worker lives
        found = {item["check"]: item for item in one_key("doctor", "--json").json["items"]}["slots"]
    assert (found["level"], str(damaged) in found["says"]) == ("error", True)


def test_a_database_that_is_missing_stays_missing(empty: Folder) -> None:
    """Where there is nothing, doctor says so and makes nothing."""
    assert levels(empty)["database"] == "error"
    assert list(empty.path.iterdir()) == []


def test_a_database_that_is_empty_is_not_made_into_one(empty: Folder) -> None:
    """A file without a schema is an error, and is left as it is."""
    file = empty.path / "keywright.db"
    file.touch()

    assert levels(empty)["database"] == "error"
    assert file.read_bytes() == b""
    assert not (empty.path / "keywright.db.secret").exists()


def test_looking_changes_nothing(one_key: Folder) -> None:
    """The trail is as long after doctor as before."""
    before = one_key("audit", "verify").out
    one_key("doctor")

    assert one_key("audit", "verify").out == before


@pytest.mark.parametrize(
    ("harm", "check"),
    [
        (lambda folder: (folder / "keywright.db.secret").chmod(0o644), "secret"),
        (lambda folder: (folder / "keywright.db.secret").unlink(), "database"),
        (lambda folder: (folder / "keywright.db.secret").write_text("ab" * 32), "database"),
        (lambda folder: (folder / "keywright.db").write_text("not a database " * 99), "database"),
    ],
    ids=["others can read the secret", "the secret is missing", "the secret is another's", "no database"],
)
def test_harm_is_found(one_key: Folder, harm: object, check: str) -> None:
    """What would keep the installation from starting, or its secret from being one, is an error."""
    harm(one_key.path)  # type: ignore[operator]

    found = levels(one_key)

    assert (found["code"], found[check]) == ("1", "error")


def test_a_clock_that_is_slow_is_found(empty: Folder) -> None:
    """Where something was written at a time that has not come yet, the clock is wrong."""
    with Keywright(empty.database, clock=Clock(datetime(2090, 1, 1, tzinfo=UTC))) as kw:
        kw.accounts.create("globex")

    assert levels(empty)["clock"] == "error"


def test_settings_that_do_not_go_together_are_found(one_key: Folder) -> None:
    """Doctor warns of what serve would refuse, and of a variable that is spelled wrong."""
    assert levels(one_key, KEYWRIGHT_HOST="0.0.0.0")["settings"] == "warning"
    assert levels(one_key, KEYWRIGHT_PUBLIC_URL="https://keys.example")["settings"] == "warning"
    assert levels(one_key, KEYWRIGHT_PROT="1")["settings"] == "warning"
    assert levels(one_key, KEYWRIGHT_PORT="many")["settings"] == "error"


# ------------------------------------------------------------------------------------------------------------ config


def test_each_value_says_where_it_comes_from(empty: Folder) -> None:
    """A flag wins over the environment, that over the file, that over the default; an empty variable is none."""
    (empty.path / "k.toml").write_text(
        'port = 1\nhost = "::1"\ncache_size = 7\ntrusted_proxies = ["10.0.0.0/8"]'
    )
    flags = ("--config", "k.toml", "--database", "sqlite:///x.db")

    ran = empty("config", "show", "--json", *flags, KEYWRIGHT_PORT="2", KEYWRIGHT_HOST="")

    found = {item["name"]: (item["value"], item["from"]) for item in ran.json["items"]}
    assert list(found) == [setting.name for setting in SETTINGS]
    assert found["database"] == ("sqlite:///x.db", "--database")
    assert found["port"] == ("2", "KEYWRIGHT_PORT")
    assert (found["host"], found["cache_size"]) == (("::1", "k.toml"), ("7", "k.toml"))
    assert found["trusted_proxies"] == ("10.0.0.0/8", "k.toml")
    assert found["max_stale"] == ("60", "default")
    assert not (empty.path / "x.db").exists()


def test_confidential_values_are_not_shown(empty: Folder) -> None:
    """The installation's secret and a database's password stand in no output."""
    (empty.path / "s").write_text("ab" * 32)
    hidden = {"KEYWRIGHT_SECRET_FILE": "s", "KEYWRIGHT_DATABASE": "postgresql://u:hunter2@db/k"}

    for arguments in (("config", "show"), ("config", "show", "--json"), ("config", "check"), ("doctor",)):
        ran = empty(*arguments, **hidden)
        assert "abab" not in ran.out + ran.err
        assert "hunter2" not in ran.out + ran.err
    assert "(set, not shown)" in empty("config", "show", **hidden).out
    assert "KEYWRIGHT_SECRET_FILE" in empty("config", "show", **hidden).out


@pytest.mark.parametrize(
    ("toml", "environment", "said"),
    [
        ("port = 'many'", {}, "setting port"),
        ("prot = 1", {}, "did you mean port?"),
        ("port = [", {}, "is not TOML"),
        ("", {"KEYWRIGHT_PORT": "99999"}, "from KEYWRIGHT_PORT): '99999' is not a number from 0 to 65535"),
        ("", {"KEYWRIGHT_ON_STORE_LOSS": "hope"}, "'hope' is none of serve, refuse"),
        ("", {"KEYWRIGHT_PUBLIC_URL": "keys.example"}, "is not an address"),
        ("", {"KEYWRIGHT_TRUSTED_PROXIES": "10.0.0.1/8"}, "setting trusted_proxies"),
        ("", {"KEYWRIGHT_SECRET_FILE": "nowhere"}, "KEYWRIGHT_SECRET_FILE: nowhere cannot be read"),
        ("", {"KEYWRIGHT_DATABASE": "keys.db"}, "is not sqlite:///FILE"),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    empty: Folder, toml: str, environment: dict[str, str], said: str
) -> None:
    """Nothing starts with a setting that cannot be read, and one line says which, from where, and why."""
    (empty.path / "k.toml").write_text(toml)

    for arguments in (("config", "check"), ("keys", "list")):
        ran = empty(*arguments, "--config", "k.toml", **environment)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (3, "", 1)
        assert said in ran.err


def test_config_check_weighs_settings_together(empty: Folder) -> None:
    """Good settings are called good; those that serve would refuse, and misspelt variables, are told."""
    assert empty("config", "check").out == "the settings are good\n"
    ran = empty("config", "check", "--json", KEYWRIGHT_HOST="0.0.0.0", KEYWRIGHT_PROT="1")
    assert (ran.code, ran.json["ok"], len(ran.json["items"])) == (1, False, 2)
    assert empty("config", "reference").out.startswith("# Settings")
