"""Backup, restore, purge, migrate and init: what whoever runs an installation does now and then."""

import json
import shutil
import stat
import tarfile
import threading
from pathlib import Path

import pytest

from conftest import bearer, make
from keywright import Conflict, Keywright, SecretTrouble
from keywright.errors import CannotStart
from keywright.installation import restore
from keywright.store.audit import Head
from keywright.store.schema import FILES
from keywright.testing import Clock
from processes import Folder

EVERY = {"keyspace": "every", "environment": "production"}


def backed_up(kw: Keywright, tmp_path: Path) -> tuple[Path, str]:
    """A backup of an installation, and the URL of an empty place with the secret in it."""
    file, new = tmp_path / "copy.tar", tmp_path / "new"
    kw.installation.backup(file)
    new.mkdir()
    shutil.copy(kw.installation.database.secret_file, new / "there.db.secret")
    return file, f"sqlite:///{new / 'there.db'}"


@pytest.mark.security("R-29")
def test_a_backup_under_writes_restores_whole(kw: Keywright, tmp_path: Path, clock: Clock) -> None:
    """Keys made before a backup, while others are being made, all verify after a restore, and the trail holds to its head."""
    before = [make(kw, name=f"Key {n}", limits=["100/day"]) for n in range(20)]
    for key in before:
        assert kw.verify(bearer(key), **EVERY, method="GET")
    stop, during = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            during.append(make(kw))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        file, url = backed_up(kw, tmp_path)
    finally:
        stop.set()
        writer.join()

    manifest = restore(url, file, clock=clock)

    number, _, mac = manifest["audit_head"].partition(":")
    with Keywright(url, clock=clock) as again:
        assert again.installation.trail.verify(Head(int(number), mac)) is None
        for key in before:
            assert again.verify(bearer(key), **EVERY, method="GET").limits[0].remaining == 98
        copied = [bool(again.verify(bearer(key), **EVERY, method="GET")) for key in during]
        assert copied == sorted(copied, reverse=True)  # up to a moment all, and none after it
        assert again.installation.usage.report(by="total").total >= 20


@pytest.mark.security("T-52")
def test_a_backup_holds_no_secret(kw: Keywright, tmp_path: Path) -> None:
    """Neither the installation's secret nor any key's is in the file, which only its owner can read, and it says so."""
    key = make(kw)
    file, _ = backed_up(kw, tmp_path)
    content = file.read_bytes()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert kw.installation.database.secret_file.read_bytes().strip() not in content
    assert bytes.fromhex(kw.installation.database.secret_file.read_text().strip()) not in content
    assert key.credential.token.reveal()[-38:-6].encode() not in content
    with tarfile.open(file) as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        assert json.load(member)["secret"].startswith("not inside")


def test_a_restore_replaces_nothing(kw: Keywright, tmp_path: Path) -> None:
    """Where any of the files is there already nothing is restored, and a backup never replaces a file."""
    file, url = backed_up(kw, tmp_path)
    new = tmp_path / "new"
    for name in ("there.db", "there.spend.db", "there.usage.db"):
        (new / name).write_text("mine")
        with pytest.raises(Conflict, match="exists already"):
            restore(url, file)
        assert (new / name).read_text() == "mine"
        (new / name).unlink()
    assert [path.name for path in new.iterdir()] == ["there.db.secret"]
    whole = file.read_bytes()
    with pytest.raises(Conflict, match="exists already"):
        kw.installation.backup(file)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("secret", ["wrong", "missing", "nonsense"])
def test_a_wrong_secret_is_refused(kw: Keywright, tmp_path: Path, secret: str) -> None:
    """With another installation's secret, none, or what is none, nothing is restored; with the right one it is."""
    file, url = backed_up(kw, tmp_path)
    place = tmp_path / "new" / "there.db.secret"
    right = place.read_text()
    place.unlink()
    if secret != "missing":
        place.write_text("ab" * 32 if secret == "wrong" else "x")

    with pytest.raises(SecretTrouble) as refusal:
        restore(url, file)

    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "new").glob("*.db"))
    assert not list((tmp_path / "new").glob(".keywright*"))
    restore(url, file, secret=right.strip())


@pytest.mark.parametrize("damage", ["bit", "cut", "text", "empty", "foreign", "missing", "gone"])
def test_a_damaged_backup_is_refused(kw: Keywright, tmp_path: Path, damage: str) -> None:
    """A file with a bit turned, an end cut off, or that is no backup at all, restores nothing and is said in one line."""
    file, url = backed_up(kw, tmp_path)
    content = bytearray(file.read_bytes())
    match damage:
        case "bit":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "text" | "empty":
            file.write_bytes(b"hello" * (damage == "text"))
        case "foreign" | "missing":
            with tarfile.open(file, "w") as tar:
                name = "keys.db" if damage == "foreign" else "manifest.json"
                thing = tmp_path / name
                thing.write_text(json.dumps({"format": 1, "files": {}}))
                tar.add(thing, name)
        case "gone":
            file.unlink()

    with pytest.raises(CannotStart) as refusal:
        restore(url, file)

    assert "\n" not in str(refusal.value)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["there.db.secret"]


# ---------------------------------------------------------------------------------------------------------- the command


def test_backup_and_restore_by_command(template: Path, tmp_path: Path) -> None:
    """The two verbs work together, say that the secret is not inside, and end with 1 or 3 where they refuse."""
    command = Folder(tmp_path, copy_of=template)
    said = command("backup", "copy.tar")
    assert (said.code, "The secret is not inside" in said.out) == (0, True)
    assert command("backup", "copy.tar").code == 1
    there = ("--database", f"sqlite:///{tmp_path / 'new.db'}")

    assert command("restore", "copy.tar").code == 1
    refused = command("restore", "copy.tar", *there)
    assert (refused.code, "put it into" in refused.err) == (3, True)
    shutil.copy(tmp_path / "test.db.secret", tmp_path / "new.db.secret")
    assert command("restore", "copy.tar", *there).code == 0
    assert command("accounts", "list", "--json", *there).json == command("accounts", "list", "--json").json
    assert command("restore", "copy.tar", *there).code == 1
    assert command("backup", "copy.tar", "--database", "postgresql://localhost/x").code == 3


def test_migrate(template: Path, tmp_path: Path) -> None:
    """``--check`` changes nothing and ends with 1 where there is something to do; without it that is done."""
    command = Folder(tmp_path)

    assert command("migrate", "--check").code == 1
    assert list(tmp_path.iterdir()) == []
    assert command("migrate", "--json").json["behind"] == sorted(FILES)
    assert command("migrate", "--check", "--json").json["behind"] == []
    assert command("migrate", "--check").code == 0
    assert command("migrate", "--database", "sqlite:////nowhere/x.db").code == 3


def test_init(tmp_path: Path) -> None:
    """One line makes database, keyspace and account, and its last line is a command that works; again it changes nothing."""
    command = Folder(tmp_path)
    said = command("init", "--profile", "gallabox", "--account", "globex")

    assert (said.code, said.out.splitlines()[1]) == (0, "keyspace  gallabox: created")
    arguments = said.out.splitlines()[-1].partition("--keyspace")[2].split()
    assert command("keys", "create", "CRM sync", "--keyspace", *arguments).code == 0
    again = command("init", "--profile", "gallabox", "--account", "globex", "--json").json
    assert [again[noun]["outcome"] for noun in ("keyspace", "account")] == ["unchanged", "unchanged"]
    assert command("init", "--account", "Not A Name").code == 1
    assert command("init", "--profile", "nothing").code == 2


def test_purge(template: Path, tmp_path: Path) -> None:
    """Only what is older goes, of the chosen kinds, after a question; the trail says what was purged and holds."""
    command, clock = Folder(tmp_path, copy_of=template), Clock()
    with Keywright(
        command.database, clock=clock
    ) as kw:  # in 2027, which this machine's clock may not have reached
        key = make(kw)
        kw.verify(bearer(key), **EVERY, method="GET")
        kw.verify({}, **EVERY)
        kw.keys.delete(key.key.id)
        kw.installation.meter.settle()
        clock.advance(days=10)
        kw.verify({}, **EVERY)
        kw.installation.meter.settle()
        assert kw.installation.usage.purge(older_than=86_400 * 11) == 0
        assert kw.installation.usage.purge(older_than=86_400 * 5) == 2
        assert kw.installation.refusals.purge(older_than=86_400 * 5) == 1
        assert kw.installation.usage.report(by="total").total == 1
        assert len(kw.installation.refusals.list().items) == 1
        told = [entry["action"] for entry in kw.installation.trail.list(limit=2).items]
        assert told == ["refusal.purge", "usage.purge"]

    assert command("purge", "--older-than", "1d").code == 2  # there is no terminal to ask on
    assert command("purge", "--yes").code == 2
    assert command("purge", "--older-than", "x", "--yes").code == 1
    removed = command("purge", "--older-than", "0s", "--only", "refusals", "--yes", "--json").json
    assert set(removed) == {"refusals"}
    assert command("purge", "--older-than", "1d", "--yes").code == 0
    assert command("audit", "verify").code == 0
