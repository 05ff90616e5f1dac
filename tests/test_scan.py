"""``keywright scan``: credentials in files are found, what only looks like one is not, and none is printed."""

import json
from pathlib import Path

import pytest

from conftest import make
from keywright import Keywright
from keywright.cli import scan
from keywright.credential import new_id, new_secret, spell_pair_secret, spell_token
from processes import Folder


def spelled(n: int) -> str:
    """A credential, as a token or as a pair's secret."""
    key_id = new_id("acme", "live")
    return spell_token(key_id, new_secret()) if n % 2 else spell_pair_secret(key_id, new_secret())


def spoilt(text: str) -> str:
    """The same with another last character: its checksum does not fit."""
    return text[:-1] + ("A" if text[-1] != "A" else "B")


@pytest.mark.security("S-10")
def test_a_hundred_are_found_and_a_thousand_near_misses_are_not(tmp_path: Path) -> None:
    """Of 100 credentials and 1,000 that differ in one character, exactly the 100 are found, in their lines."""
    real = [spelled(n) for n in range(100)]
    lines = [f'key = "{one}"' for one in real] + [f"x={spoilt(spelled(n))}" for n in range(1000)]
    source = tmp_path / "deep" / "er" / "settings.py"
    source.parent.mkdir(parents=True)
    source.write_text("\n".join(lines))

    ran = Folder(tmp_path)("scan", str(tmp_path / "deep"), "--json")
    source.unlink()

    items = json.loads(ran.out)["items"]
    assert ran.code == 1
    assert [(one["path"], one["line"]) for one in items] == [(str(source), n + 1) for n in range(100)]
    assert [one for one in real if one in ran.out or one[-38:] in ran.out] == []


@pytest.mark.requirement("B-05")
def test_a_planted_key_is_found(kw: Keywright, tmp_path: Path) -> None:
    """A key that was just made is found in a file by its id; without it nothing is, and the exit says which."""
    issued = make(kw)
    token = issued.credential.token.reveal()
    (tmp_path / "app").mkdir()
    notes = tmp_path / "app" / "notes.txt"
    notes.write_text("nothing here\n")
    clean = Folder(tmp_path)("scan", "app")
    notes.write_text(f"curl -H 'Authorization: Bearer {token}'\n")
    found = Folder(tmp_path)("scan", "app")
    other = Folder(tmp_path)("scan", "app", "--prefix", "acme")
    notes.unlink()

    assert (clean.code, clean.out) == (0, "none found\n")
    assert found.code == 1
    assert f"notes.txt:1: a token of {issued.key.id}" in found.out
    assert token not in found.out
    assert other.code == 0


@pytest.mark.parametrize(
    ("options", "found", "passed_over"),
    [
        ([], ["app.py", ".venv/lib/deep.py", "docs/a.md"], {"files": 1, "directories": 1}),
        (["--exclude", ".venv"], ["app.py", "docs/a.md"], {"files": 1, "directories": 2}),
        (["--exclude", ".venv/", "--exclude", "docs/*.md"], ["app.py"], {"files": 2, "directories": 2}),
        (["--exclude", "*.py"], ["docs/a.md"], {"files": 3, "directories": 1}),
        (
            ["--all"],
            ["app.py", "image.png", ".git/config", ".venv/lib/deep.py", "docs/a.md"],
            {"files": 0, "directories": 0},
        ),
    ],
)
def test_what_is_passed_over_is_said(
    tmp_path: Path, options: list[str], found: list[str], passed_over: dict[str, int]
) -> None:
    """Binary files and what Git keeps for itself are passed over, besides what is excluded by name or path, and counted."""
    root = tmp_path / "app"
    planted = [
        root / name for name in ("app.py", "image.png", ".git/config", ".venv/lib/deep.py", "docs/a.md")
    ]
    for file in planted:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((b"\0" if file.suffix == ".png" else b"") + spelled(1).encode() + b"\n")
    ran = Folder(tmp_path)("scan", "app", "--json", *options)
    told = Folder(tmp_path)("scan", "app", *options)
    named = Folder(tmp_path)("scan", "app/image.png")
    for file in planted:
        file.unlink()

    assert {one["path"] for one in ran.json["items"]} == {f"app/{name}" for name in found}
    assert ran.json["passed_over"] == passed_over
    assert (f"passed over: {passed_over['files']} file" in told.out) is bool(passed_over["files"])
    assert named.code == 1


@pytest.mark.parametrize("before", [*range(scan._PART - 90, scan._PART + 2, 7), scan._PART * 2 - 40])
def test_one_on_the_seam_is_found_once(tmp_path: Path, before: int) -> None:
    """Wherever in a large file it stands, it is found once."""
    file = tmp_path / "large"
    file.write_bytes(b" " * before + spelled(1).encode() + b" " * 2000)
    found = list(scan._search(file))
    file.unlink()

    assert len(found) == 1


def test_one_at_the_very_end_is_found(tmp_path: Path) -> None:
    """A credential with which a file of exactly one part ends is found."""
    file, one = tmp_path / "large", spelled(1).encode()
    file.write_bytes(b" " * (scan._PART - len(one)) + one)
    found = list(scan._search(file))
    file.unlink()

    assert len(found) == 1
