"""The list of keys as a file: whole, by the command and by the console, with nothing in it that a spreadsheet computes."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import make
from keywright import Invalid, Keywright
from people import begin
from processes import Folder
from surfaces import Door, server
from test_console import signed_in


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


@pytest.mark.security("T-40")
@pytest.mark.parametrize("first", ["=", "+", "-", "@"])
def test_an_export_of_keys_computes_nothing(
    door: Door, kw: Keywright, template: Path, tmp_path: Path, first: str
) -> None:
    """The list is exported whole, by the command and by the console, however many pages it takes; no cell is a formula."""
    (there := tmp_path / "there").mkdir()
    command = Folder(there, copy_of=template)
    formula = f"{first}cmd|' /C calc'!A0"
    with Keywright(command.database) as local:
        for n in range(5):
            make(
                local, name=f"{formula} {n}", team=formula, limits=["5/day", "rate:2/1m"], metadata={"a": [n]}
            )
        make(local, account="initech")
    every = ("keys", "export", "--account", "globex", "--sort", "name")
    rows = list(csv.DictReader(io.StringIO(command(*every, "--format", "csv").out, newline="")))
    lines = [json.loads(line) for line in command(*every).out.splitlines()]
    make(kw, name=formula, description="two\nlines")
    owner = signed_in(begin(kw, "owner"))
    sheet = door.get("/console/@globex/every/keys.csv?team=&state=active", owner)

    (ours,) = csv.DictReader(io.StringIO(sheet.body.decode(), newline=""))
    cells = [cell for row in (*rows, ours) for cell in row.values()]
    assert [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\n", "\0")] == []
    assert [row["name"] for row in rows] == [f"'{formula} {n}" for n in range(5)]
    assert {row["limits"] for row in rows} == {"5/day rate:2/1m"}
    assert [json.loads(row["metadata"]) for row in rows] == [{"a": [n]} for n in range(5)]
    assert [line["name"] for line in lines] == [f"{formula} {n}" for n in range(5)]
    assert all("secrets" not in line and "hint" not in line for line in lines)
    assert (ours["name"], ours["description"]) == (f"'{formula}", "two\nlines")
    listed = door.get("/console/@globex/every/keys?state=active&q=CRM%26x", owner).body.decode()
    assert "Nothing matches" in listed
    listed = door.get("/console/@globex/every/keys?state=active&sort=name", owner).body.decode()
    assert 'href="/console/@globex/every/keys.csv?state=active&amp;sort=name" download' in listed
    assert sheet.get("content-disposition") == 'attachment; filename="every-keys.csv"'
    assert door.get("/console/@globex/every/keys.csv?state=x", owner).status == 422


def test_every_page_of_a_list_is_walked(kw: Keywright, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk goes through all pages of a list, each key once, and refuses a filter that makes no sense at once."""
    monkeypatch.setattr("keywright.desk.listing.LONGEST_PAGE", 2)
    made = [make(kw).key.id for _ in range(5)]

    assert sorted(key.id for key in kw.keys.walk(account="globex")) == sorted(made)
    with pytest.raises(Invalid):
        kw.keys.walk(state="sleeping")
