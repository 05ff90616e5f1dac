"""Opening an installation: its secret, its canary, and what a stolen database is worth."""

import base64
import hashlib
import stat
from pathlib import Path

import pytest
from sqlalchemy import inspect

from conftest import SECRET, again, bearer, make, sql
from keywright import CannotStart, Issued, Keywright, SecretTrouble
from keywright.store import keys
from keywright.testing import Clock

pytestmark = pytest.mark.stores

ONE, TWO = "1:" + "1a" * 32, "2:" + "2b" * 32
EVERY = {"keyspace": "every", "environment": "production"}


def reopened(kw: Keywright, *secrets: str, clock: Clock | None = None) -> Keywright:
    """The same database, opened with another secret."""
    kw.close()
    return again(kw, **({"secret": " ".join(secrets)} if secrets else {}), clock=clock or Clock())


def own_secret(kw: Keywright) -> str:
    """The entry in the file beside the database."""
    if not kw.installation.database.is_sqlite:
        return SECRET
    return "1:" + kw.installation.database.secret_file.read_text().strip()


def hanging(kw: Keywright) -> dict[int, int]:
    """How many secrets of keys hang on each entry."""
    with kw.installation.database.read() as connection:
        return keys.peppers(connection)


# -------------------------------------------------------------------------------------------------------- the secret


def test_the_secret_is_made_with_the_database_and_is_private(tmp_path: Path) -> None:
    """A new database comes with a secret of 64 hex digits that only its owner may read, and that is used again."""
    url = f"sqlite:///{tmp_path / 'k.db'}"
    with Keywright(url) as kw:
        file = kw.installation.database.secret_file
        text = file.read_text()

    with Keywright(url):
        assert file.read_text() == text
    assert (len(text), stat.S_IMODE(file.stat().st_mode)) == (65, 0o600)
    assert sorted(other.name for other in tmp_path.iterdir() if "secret" in other.name) == ["k.db.secret"]


@pytest.mark.sqlite_only("the file of the secret")
@pytest.mark.security("R-18")
def test_an_old_database_without_its_secret_is_refused(kw: Keywright) -> None:
    """Where the secret's file is gone, no new one is made that could verify nothing: one line says what to do."""
    file = kw.installation.database.secret_file
    kw.close()
    file.unlink()

    with pytest.raises(SecretTrouble, match="is missing") as refusal:
        Keywright(kw.installation.database.url)

    assert "\n" not in str(refusal.value)
    assert not file.exists()


@pytest.mark.security("K-07")
@pytest.mark.parametrize("secrets", [["1:" + "3c" * 32], [TWO], ["1:" + "3c" * 32, TWO]])
def test_another_databases_secret_is_refused(kw: Keywright, secrets: list[str]) -> None:
    """A secret that the database was not made with is refused at the start, and leaves no mark: the right one still opens."""
    own = own_secret(kw)

    with pytest.raises(SecretTrouble, match="made with"):
        reopened(kw, *secrets)

    with again(kw, secret=f"{own} {TWO}") as both:
        assert both.installation.keyring.current == 2


@pytest.mark.parametrize(
    "secret", ["0" * 64, "f" * 64, "deadbeef" * 8, "", "1a" * 31, "1a" * 33, "x", f"{ONE} 1:{'2b' * 32}"]
)
def test_a_secret_that_nobody_drew_is_refused(tmp_path: Path, secret: str) -> None:
    """Examples, stumps and entries of the same number are refused, and no database is made with them."""
    with pytest.raises(SecretTrouble):
        Keywright(f"sqlite:///{tmp_path / 'k.db'}", secret=secret)

    assert not (tmp_path / "k.db").exists()


@pytest.mark.sqlite_only("the file of the secret")
@pytest.mark.security("R-18")
def test_a_secret_that_cannot_be_read_is_refused(kw: Keywright) -> None:
    """A directory, or bytes that are no text, where the secret should be: one line, and no new secret."""
    file = kw.installation.database.secret_file
    kw.close()
    file.write_bytes(b"\xff" * 64)
    with pytest.raises(SecretTrouble, match="cannot be read"):
        Keywright(kw.installation.database.url)
    file.unlink()
    file.mkdir()
    with pytest.raises(SecretTrouble, match="cannot be read"):
        Keywright(kw.installation.database.url)


@pytest.mark.security("R-18")
@pytest.mark.parametrize("place", ["missing/k.db", "file/k.db", "directory.db"])
def test_a_place_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, place: str) -> None:
    """A directory that is missing or is a file, or a directory in the database's place, is told in one line."""
    (tmp_path / "file").write_text("")
    (tmp_path / "directory.db").mkdir()

    for secret in (None, ONE):
        with pytest.raises(CannotStart) as refusal:
            Keywright(f"sqlite:///{tmp_path / place}", secret=secret)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://localhost/k"])
def test_what_cannot_hold_an_installation_is_refused(url: str) -> None:
    """Memory, and databases that Keywright does not know, are refused in words."""
    with pytest.raises(CannotStart):
        Keywright(url)


# ------------------------------------------------------------------------------------------------- its rotation


@pytest.mark.security("K-06")
def test_keys_move_to_a_new_secret_as_they_are_used(kw: Keywright) -> None:
    """Under a second entry old keys verify, new ones use it, and after one use of each none hangs on the first."""
    own = own_secret(kw)
    old = [make(kw) for _ in range(5)]

    with reopened(kw, own, TWO) as both:
        new = make(both)
        assert hanging(both) == {1: 5, 2: 1}
        assert [both.verify(bearer(key), **EVERY).code for key in [*old, new]] == ["ok"] * 6
        both.installation.engine.close()  # what was begun is finished
        assert hanging(both) == {2: 6}
        assert [both.verify(bearer(key), **EVERY).code for key in [*old, new]] == ["ok"] * 6

    with reopened(both, TWO) as second:
        assert [second.verify(bearer(key), **EVERY).code for key in [*old, new]] == ["ok"] * 6


@pytest.mark.security("K-06")
def test_a_moved_secret_is_announced_once_and_now(kw: Keywright, clock: Clock) -> None:
    """Many verifications of one old key move it once, and the announcement bears the time at which it happened."""
    own, old = own_secret(kw), make(kw)

    with reopened(kw, own, TWO, clock=clock) as both:
        before = both.installation.lookup.newest()
        for _ in range(20):
            assert both.verify(bearer(old), **EVERY).code == "ok"
        both.installation.engine.close()
        with both.installation.database.read() as connection:
            rows = sql(connection, "SELECT ref, at FROM changes WHERE seq > ?", before).all()

    assert rows == [(old.key.id, clock())]


@pytest.mark.security("K-06", "K-07")
def test_an_entry_that_keys_hang_on_cannot_be_removed(kw: Keywright) -> None:
    """Removing an entry, old or new, that secrets of keys still hang on is refused at the start, with their number."""
    own = own_secret(kw)
    make(kw)
    with reopened(kw, own, TWO) as both:
        make(both)

    with pytest.raises(SecretTrouble, match="1 secrets of keys hang on entry 1"):
        reopened(both, TWO)
    with pytest.raises(SecretTrouble, match="1 secrets of keys hang on entry 2"):
        reopened(both, own)


@pytest.mark.security("K-06")
def test_a_worker_that_does_not_know_the_new_entry_yet_says_unavailable(kw: Keywright) -> None:
    """A right key that another process has moved to an entry unknown here is a trouble of ours, never ``invalid``."""
    own, old = own_secret(kw), make(kw)
    assert kw.verify(bearer(old), **EVERY).code == "ok"

    with again(kw, secret=own) as behind, again(kw, secret=f"{own} {TWO}") as both:
        both.verify(bearer(old), **EVERY)
        both.installation.engine.close()
        verdict = behind.verify(bearer(old), **EVERY)

    assert verdict.code == "unavailable"


# --------------------------------------------------------------------------------------------- a stolen database


def busy(kw: Keywright) -> list[Issued]:
    """Make, rotate, use, edit, invalidate and delete keys of several kinds."""
    issued = [make(kw), make(kw, name="limited", limits=["5/day"])]
    issued += [make(kw, keyspace="atfinity", name="dotted"), make(kw, keyspace="partna", access="all")]
    issued += [kw.keys.rotate(key.key.id, grace_seconds=60) for key in issued]
    issued.append(kw.keys.create_management(name="ops", scopes=["keys:read"]))
    for key in issued:
        for keyspace in ("every", "atfinity"):
            kw.verify(
                bearer(key), keyspace=keyspace, environment="production", resource="/things", ip="192.0.2.1"
            )
    kw.keys.list(q=issued[0].credential.token.reveal())
    kw.keys.edit(issued[0].key.id, description="edited")
    kw.keys.invalidate(issued[1].key.id, reason="leaked")
    kw.keys.delete(issued[2].key.id)
    kw.installation.meter.flush()
    return issued


def parts(issued: Issued) -> list[str]:
    """What is confidential of a credential, in each of its spellings."""
    token = issued.credential.token.reveal()
    pair = [] if issued.credential.secret is None else [issued.credential.secret.reveal()]
    bare = token.split(".")[1] if "." in token else token[-38:-6]
    return [token, bare, *pair]


@pytest.mark.sqlite_only("its files are searched")
@pytest.mark.security("K-05", "T-52")
@pytest.mark.requirement("F-17", "B-04")
def test_no_file_holds_a_secret_or_an_unkeyed_digest_of_one(kw: Keywright, tmp_path: Path) -> None:
    """After a busy day no file, log or lock holds any secret, its base64, its SHA-256 or SHA-512, or the pepper."""
    issued = busy(kw)
    searched = {
        file.name: file.read_bytes()
        for file in tmp_path.rglob("*")
        if file.is_file() and not file.name.endswith(".secret")
    }
    kw.close()
    searched |= {
        f"closed {f.name}": f.read_bytes()
        for f in tmp_path.rglob("*")
        if f.is_file() and not f.name.endswith(".secret")
    }
    pepper = kw.installation.database.secret_file.read_text().strip()

    needles = {pepper.encode(), bytes.fromhex(pepper)}
    for part in [part for key in issued for part in parts(key)]:
        text = part.encode()
        needles |= {text, base64.b64encode(text).rstrip(b"="), base64.urlsafe_b64encode(text).rstrip(b"=")}
        for digest in (hashlib.sha256(text), hashlib.sha512(text)):
            needles |= {digest.digest(), digest.hexdigest().encode()}

    assert any(name.endswith("-wal") and content for name, content in searched.items())
    assert any(issued[0].key.id.encode() in content for content in searched.values())
    assert [name for name, content in searched.items() for needle in needles if needle in content] == []


@pytest.mark.requirement("X-07")
@pytest.mark.security("K-05")
def test_nothing_in_a_stolen_database_authenticates(kw: Keywright) -> None:
    """Every value of every column, put in the place of a key's secret or sent as the whole credential, is refused."""
    issued = busy(kw)
    values: set[str] = set()
    for which in ("keys", "spend", "usage"):
        with kw.installation.database.read(which) as connection:
            tables = inspect(connection).get_table_names()
            for table in tables:
                for row in connection.exec_driver_sql(f'SELECT * FROM "{table}"'):
                    values |= {v.hex() if isinstance(v, bytes) else str(v) for v in row}

    live = issued[4]
    key_id = live.key.id
    assert len(values) > 100
    assert kw.verify(bearer(live), **EVERY).code == "ok"
    for value in values:
        text = value.encode("ascii", "replace").decode().replace("\n", " ").strip()
        for headers in (
            {"Authorization": f"Bearer {text}"},
            {"X-API-KEY": key_id, "X-API-SECRET": text},
            {"Authorization": f"Bearer {key_id}_{text[:32]}{text[:6]}"},
        ):
            assert kw.verify(headers, **EVERY).code in ("invalid", "missing", "ambiguous")


@pytest.mark.security("T-53")
@pytest.mark.parametrize(
    "made", ["sha256(token)", "sha256(secret)", "sha256(v1 id secret)", "hmac of another id"]
)
def test_a_row_planted_without_the_pepper_proves_nothing(kw: Keywright, made: str) -> None:
    """Whoever can write the database but does not know the pepper cannot make a stored MAC that a key of theirs meets."""
    key, other = make(kw), make(kw)
    token = key.credential.token.reveal()
    secret = token[-38:-6]
    with kw.installation.database.write() as tx:
        moved = sql(tx, "SELECT mac FROM secrets WHERE key_id = ?", other.key.id).scalar_one()
        mac = {
            "sha256(token)": hashlib.sha256(token.encode()).digest(),
            "sha256(secret)": hashlib.sha256(secret.encode()).digest(),
            "sha256(v1 id secret)": hashlib.sha256(f"v1\0{key.key.id}\0{secret}".encode()).digest(),
            "hmac of another id": moved,
        }[made]
        sql(tx, "UPDATE secrets SET mac = ? WHERE key_id = ?", mac, key.key.id)

    verdict = kw.verify(bearer(key), **EVERY)

    assert (verdict.code, verdict.reason) == ("invalid", "wrong_secret")
    assert kw.verify(bearer(other), **EVERY).code == "ok"
