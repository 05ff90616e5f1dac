"""The documentation as a reader uses it: every block of the quick start is run, and every link is followed as served."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from conftest import make
from keywright import Issued, Keywright
from keywright.schemes import SCHEMES
from surfaces import Door, manager, served, server
from test_docs import blocks, read, section

ACME = (
    'name = "acme"\ntitle = "Acme"\nschemes = ["header"]\nheader = "X-Acme-Key"\n[access]\ndefault = "all"\n'
)
_PLACE = re.compile(r"/k/(\w+)\.production/whoami")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture
def address(kw: Keywright) -> Iterator[str]:
    """A served installation, with the keyspace that the page has the reader make."""
    kw.keyspaces.apply(ACME)
    with served(server(kw)) as port:
        yield f"http://127.0.0.1:{port}"


def surroundings(address: str, key: Issued, *, wrong: bool = False, **more: str) -> dict[str, str]:
    """The variables that the page has the reader set; with ``wrong``, a character of the secret is another."""
    values = {"TOKEN": key.credential.token.reveal()}
    if key.credential.secret is not None:
        values["SECRET"] = key.credential.secret.reveal()
    if wrong:
        values = {name: text[:-1] + ("A" if text[-1] != "A" else "B") for name, text in values.items()}
    return {"PATH": os.environ["PATH"], "API": address, "ID": key.key.id, **values, **more}


def key_of(kw: Keywright, block: str) -> Issued:
    """A key of the keyspace that a block asks about."""
    found = _PLACE.search(block)
    assert found is not None, block
    return make(kw, keyspace=found[1])


@pytest.mark.requirement("P-11")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_line_of_a_scheme_runs(kw: Keywright, address: str, tmp_path: Path, scheme: str) -> None:
    """Each curl line that the quick start has for a scheme says who is calling; with another character it is a 401."""
    (block,) = blocks(section(read("docs/quickstart.md"), f"`{scheme}`"))
    for line in block.strip().splitlines():
        key = key_of(kw, line)
        for wrong in (False, True):
            ran = subprocess.run(
                ["bash", "-c", line.replace("curl ", "curl -s ", 1)],
                env=surroundings(address, key, wrong=wrong),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=True,
            )
            said = json.loads(ran.stdout)
            if wrong:
                assert (said.get("code") or said["data"]["code"]) == "invalid", line
            else:
                assert said["key"]["id"] == key.key.id, line


@pytest.mark.requirement("P-11")
@pytest.mark.parametrize(
    ("language", "run"), [("python", [sys.executable, "-"]), ("js", ["node", "--input-type=module"])]
)
def test_the_programs_run(kw: Keywright, address: str, tmp_path: Path, language: str, run: list[str]) -> None:
    """The programs of the quick start, in Python and Node, print who is calling."""
    (program,) = blocks(read("docs/quickstart.md"), language)
    key = key_of(kw, program)
    ran = subprocess.run(
        run,
        input=program,
        env=surroundings(address, key),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert key.key.id in ran.stdout


@pytest.mark.requirement("P-11")
def test_a_host_in_another_language_can_ask(kw: Keywright, address: str, tmp_path: Path) -> None:
    """The line that asks the server about a request, run as it stands, has a verdict, and what to answer with."""
    (line,) = [block for block in blocks(read("docs/quickstart.md")) if "/v1/verify" in block]
    token = manager(kw, "verify")["Authorization"].removeprefix("Bearer ")
    ran = subprocess.run(
        ["bash", "-c", line.replace("curl ", "curl -s ", 1)],
        env=surroundings(address, make(kw, keyspace="default"), KW=token),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"valid", "code", "status", "headers", "body"} <= set(json.loads(ran.stdout))


@pytest.mark.requirement("X-25")
def test_what_is_served_can_be_read_through(kw: Keywright) -> None:
    """Concepts, quick start, API reference, security rules and glossary are served, and every link of every page leads on."""
    with Door(server(kw)) as door:
        index = _LINK.findall(door.get("/llms.txt").body.decode())
        for name in ("concepts", "quickstart", "security", "glossary", "cli", "errors"):
            assert f"/docs/{name}.md" in index
        assert door.get("/docs").body.startswith(b"<!doctype html>")
        assert door.get("/openapi.json").json["paths"]
        for page in index:
            text = re.sub(r"^```.*?^```$", "", door.get(page).body.decode(), flags=re.MULTILINE | re.DOTALL)
            for link in _LINK.findall(text):
                if not link.startswith(("https://", "#")):
                    assert door.get(urljoin(page, link).partition("#")[0]).status == 200, (page, link)


@pytest.mark.requirement("P-39", "P-30")
def test_an_account_has_a_key_for_each_environment(kw: Keywright) -> None:
    """One account's keys for staging and production work at the same time, each in its own place and in no other."""
    keys = {name: make(kw, environment=name) for name in ("development", "staging", "production")}
    for mine, key in keys.items():
        for asked in keys:
            headers = {"Authorization": f"Bearer {key.credential.token.reveal()}"}
            code = kw.verify(headers, keyspace="every", environment=asked, method="GET").code
            assert code == ("ok" if asked == mine else "wrong_environment")
