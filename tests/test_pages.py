"""The documentation as it is served, and the description of the API: whole, and true."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from keywright import Keywright
from keywright.errors import CODES, CannotStart
from keywright.server.api.description import FRONT
from surfaces import Door, configured, manager, server

DOCS = Path(__file__).resolve().parent.parent / "docs"
NAMES = sorted(file.stem for file in DOCS.glob("*.md"))
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


@pytest.mark.requirement("DP-01")
def test_the_index_lists_every_page(door: Door) -> None:
    """``/llms.txt`` has one title, a quoted summary and a link to every page; each is there, and names the index on top."""
    text = door.get("/llms.txt").body.decode()
    links = _LINK.findall(text)

    assert re.findall(r"^# .*", text, re.MULTILINE) == ["# Keywright"]
    assert text.splitlines()[2].startswith("> ")
    assert sorted(links) == [f"/docs/{name}.md" for name in NAMES]
    for link in links:
        reply = door.get(link)
        assert reply.status == 200
        assert "[llms.txt](/llms.txt)" in reply.body.decode().splitlines()[0]
    assert door.get("/docs", {"Accept": "text/markdown, text/plain"}).body.decode() == text


@pytest.mark.requirement("DP-02")
@pytest.mark.parametrize("name", NAMES)
def test_every_page_is_served_as_it_is(door: Door, name: str) -> None:
    """A page is plain text that no browser takes for HTML and, with ``.md``, Markdown: as written, without its pictures."""
    plain, markdown = door.get(f"/docs/{name}"), door.get(f"/docs/{name}.md")
    whole = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    written = re.sub(r"^!\[.*\)\n+", "", whole, flags=re.MULTILINE)

    assert (plain.get("content-type"), markdown.get("content-type")) == (
        "text/plain; charset=utf-8",
        "text/markdown; charset=utf-8",
    )
    assert plain.body == markdown.body
    assert markdown.body.decode().endswith(written)
    assert plain.get("x-content-type-options") == "nosniff"
    assert written in door.get("/llms-full.txt").body.decode()
    assert door.send("HEAD", f"/docs/{name}.md").status == 200


@pytest.mark.requirement("DP-03")
def test_a_question_is_answered_with_excerpts(door: Door) -> None:
    """``?ask=`` on a page answers in Markdown with paragraphs of the pages and where they stand; words in no page find none."""
    reply = door.get("/docs/operations.md?ask=How%20do%20I%20restore%20a%20backup%3F")
    text = reply.body.decode()
    links = [link for link in _LINK.findall(text) if link.startswith("/")]

    assert (reply.status, reply.get("content-type")) == (200, "text/markdown; charset=utf-8")
    assert text.startswith("# Search results\n")
    assert links[0] == "/docs/operations.md"
    for link in links:
        assert door.get(link).status == 200
    for part in text.split("\n\n")[3::2]:
        assert any(part.strip() in (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in NAMES), part
    assert "restore" in text.split("\n\n")[3]
    for words in ("zyxwv", "%3Cscript%3E", "the%20of", "%00", ""):
        assert (
            "Nothing was found" in door.get(f"/docs/usage.md?ask={words}").body.decode()
            or words == "%3Cscript%3E"
        )
    assert door.get("/docs/usage.md?ask=" + "a" * 201).status == 422
    assert door.get("/docs/nothing.md?ask=backup").status == 404


@pytest.mark.parametrize(
    "page",
    [
        "nothing",
        "nothing.md",
        "..%2fREADME.md",
        "%2e%2e",
        "usage.md.md",
        "usage.html",
        ".md",
        "openapi.json",
        "USAGE",
    ],
)
def test_nothing_else_is_a_page(door: Door, page: str) -> None:
    """What is no page is 404, whatever its name leads to on the disk; other methods are 405."""
    assert door.get(f"/docs/{page}").code == "not_found"
    assert door.send("POST", "/docs/usage.md").get("allow") == "GET, HEAD"


def test_the_index_names_the_public_address(kw: Keywright) -> None:
    """With a ``public_url`` the links of the index are whole addresses."""
    with Door(server(kw, public_url="http://keys.example.com/")) as door:
        links = _LINK.findall(door.get("/llms.txt").body.decode())
    assert sorted(links) == [f"http://keys.example.com/docs/{name}.md" for name in NAMES]


def test_whom_to_tell_of_a_weakness(door: Door, kw: Keywright) -> None:
    """``security.txt`` has the contact that is set and when it expires; without a contact there is none."""
    path = "/.well-known/security.txt"
    with Door(server(kw, security_contact="mailto:security@example.com")) as told:
        assert told.get(path).body == b"Contact: mailto:security@example.com\nExpires: 2028-01-15T00:00:00Z\n"
    assert door.get(path).status == 404
    for wrong in ("security@example.com", "http://example.com", "mailto:a@b\nContact: x"):
        with pytest.raises(CannotStart, match="security_contact"):
            configured(security_contact=wrong)


def test_the_wheel_serves_all_that_a_checkout_does(tmp_path: Path) -> None:
    """The wheel holds every page where the server looks for it, the console and its parts, and no picture of the docs."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=DOCS.parent, check=True, capture_output=True)
    with ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    package = DOCS.parent / "src"

    assert {f"keywright/docs/{page.name}" for page in DOCS.glob("*.md")} <= held
    for folder in ("server/console/templates", "server/console/assets", "server/swagger_ui", "profiles"):
        files = (
            file for file in (package / "keywright" / folder).rglob("*") if "__pycache__" not in file.parts
        )
        assert {str(file.relative_to(package)) for file in files if file.is_file()} <= held
    assert not any(name.endswith(".png") for name in held)


# ------------------------------------------------------------------------------------------------------ the description


def operations(door: Door) -> dict[str, dict[str, Any]]:
    """Every operation of the description."""
    paths = door.get("/openapi.json").json["paths"]
    return {f"{method.upper()} {path}": one for path, item in paths.items() for method, one in item.items()}


@pytest.mark.security("H-09")
def test_every_operation_says_what_can_go_wrong(door: Door) -> None:
    """Each management operation has 401, 403, 422 and 503, and with an id or a body 404; each error is problem+json."""
    document = door.get("/openapi.json").json
    for name, operation in operations(door).items():
        errors = {status for status in operation["responses"] if status[0] != "2"}
        if name.partition(" ")[2] not in FRONT:
            assert {"401", "403", "422", "503"} <= errors, name
            assert operation["security"] in ([{"managementKey": []}, {"session": []}], [{"session": []}], [])
            assert "404" in errors or "{" not in name
        for status in errors:
            (kind,) = operation["responses"][status]["content"].items()
            assert kind == ("application/problem+json", {"schema": {"$ref": "#/components/schemas/Problem"}})
    schemes = document["components"]["securitySchemes"]
    assert {scheme.get("scheme", scheme["type"]) for scheme in schemes.values()} == {"bearer", "apiKey"}
    codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert set(codes) == set(CODES) - {"ok"}


def test_every_reference_leads_somewhere(door: Door) -> None:
    """Every schema that the description refers to is in it, and every schema in it is referred to."""
    text = door.get("/openapi.json").body.decode()
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', text))

    assert referred == set(door.get("/openapi.json").json["components"]["schemas"])


@pytest.mark.security("H-09")
def test_the_doors_in_front_are_described(door: Door, kw: Keywright) -> None:
    """Every door in front of the framework is in the description, and every one described answers."""
    described = operations(door)
    things = {"gate": "shop", "place": "every.production", "page": "usage", "target": "things/1"}
    for path in FRONT:
        method = next(iter(FRONT[path]))
        assert f"{method.upper()} {path}" in described
        reply = door.send(method.upper(), path.format(**things), manager(kw))
        allowed = {*described[f"{method.upper()} {path}"]["responses"]}
        assert str(reply.status) in allowed, path
