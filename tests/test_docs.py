"""The README and the docs: what they show runs, what they name exists, and what exists is in them."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

import keywright
from conftest import make
from keywright import Keywright, courier, credential, events, misuse, profiles, schemes
from keywright.errors import CODES
from keywright.gateways.probes import PROBES
from keywright.schemes import SCHEMES
from keywright.server.metrics import METRICS, written_name
from keywright.server.self_service import partna
from keywright.times import say_span
from surfaces import served, server

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "keywright"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
#: Rooms that stand in the map as a whole; of every other room each file has a line.
WHOLE = ("profiles/", "store/migrations/")
#: Pages whose Python is not run by itself, and why.
NOT_RUN = {"CONTRIBUTING.md": "a test without a body", "quickstart.md": "needs a running server"}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_TYPOGRAPHIC = re.compile("[\u2018\u2019\u201c\u201d]")


def read(name: str | Path) -> str:
    """A page's text."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str | None = None) -> list[str]:
    """The code blocks of a page, of one language or of all."""
    return [code for marked, code in _FENCE.findall(text) if language in (None, marked)]


def rows(text: str, width: int) -> dict[str, list[str]]:
    """The rows of a page's tables of one width whose first cell is one piece of code: that piece, and the others."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == width and re.fullmatch(r"`[^`]+`", cells[0]):
            found[cells[0].strip("`")] = cells[1:]
    return found


def section(text: str, heading: str) -> str:
    """What stands under a second-level heading."""
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ------------------------------------------------------------------------------------------------------------ the code


def test_the_map_names_every_file() -> None:
    """Each entry of the README's map exists, and each file of the package is in the map."""
    mapped = re.findall(r"^(\S+) {2,}\S", blocks(section(read("README.md"), "The map"))[0], re.MULTILINE)
    files = {file.relative_to(SOURCE).as_posix() for file in SOURCE.rglob("*.py")}
    rooms = {entry for entry in mapped if entry.endswith("/")}
    covered = {
        file
        for file in files
        if file.startswith(WHOLE) or file.removesuffix("__init__.py") in {*rooms, *mapped}
    }

    assert len(mapped) == len(set(mapped))
    assert [entry for entry in mapped if not (SOURCE / entry).exists()] == []
    assert sorted(files - covered - set(mapped)) == []


def test_the_life_of_one_request_names_what_exists() -> None:
    """Every function that the README follows a request through can be imported under that name."""
    names = re.findall(r"`((?:\w+\.)+\w+)`", section(read("README.md"), "The life of one request"))

    assert len(names) > 12
    for name in names:
        assert resolve(name) is not None, name


def resolve(name: str) -> object:
    """What a dotted name under the package stands for: as much of it a module as there is, the rest attributes."""
    parts = name.split(".")
    for many in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(["keywright", *parts[:many]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[many:]:
            found = getattr(found, attribute)
        return found
    return None


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in NOT_RUN and blocks(read(page), "python")],
    ids=lambda p: p.name,
)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """A page's Python blocks, one after the other, are a program that works in an empty directory."""
    program = "\n".join(blocks(read(page), "python"))

    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr


def test_the_changelog_begins_with_this_version() -> None:
    """The newest section of the changelog is that of the package's version."""
    newest = re.search(r"^## \[([^\]]+)\]", read("CHANGELOG.md"), re.MULTILINE)

    assert newest is not None
    assert newest[1] == keywright.__version__


# ---------------------------------------------------------------------------------------------------------- the tables


def test_every_code_is_explained() -> None:
    """``docs/errors.md`` has every code with its status, who sees it and what to do, and no other."""
    explained = rows(read("docs/errors.md"), 4)

    assert {code: cells[0] for code, cells in explained.items()} == {
        code: str(meaning.status) for code, meaning in CODES.items()
    }
    assert all(who and what for _, who, what in explained.values())


def test_every_reason_before_proof_is_explained() -> None:
    """``docs/errors.md`` names every reason that a request's shape can have, beside its code."""
    explained = rows(read("docs/errors.md"), 2)
    shapes = [value for value in vars(schemes).values() if isinstance(value, schemes.Unproven)]

    assert len(shapes) >= 8
    for shape in shapes:
        assert f"`{shape.reason}`" in explained[shape.code][0]


def test_every_key_of_a_profile_is_explained() -> None:
    """``docs/profiles.md`` has every key of the TOML, every label and field, and the profiles that ship, as they are."""
    text = read("docs/profiles.md")
    explained = rows(text, 4)
    definition = {field.name for field in msgspec.structs.fields(profiles._Definition)}
    nested = {
        field.name
        for struct in (
            profiles._Access,
            profiles._Expiry,
            profiles._Roles,
            profiles._Fields,
            profiles.Scope,
            profiles.Letter,
        )
        for field in msgspec.structs.fields(struct)
    }
    rule = {field.name for field in msgspec.structs.fields(profiles.GateRule)}

    assert sorted((definition | rule) - set(explained)) == []
    assert [word for word in (*nested, *profiles.LABELS, *profiles.FIELDS) if f"`{word}`" not in text] == []
    for name in profiles.SHIPPED:
        keyspace = profiles.load(profiles.source(name))
        accepted, format_, environments, access, *_ = rows(section(text, "The six that ship"), 7)[name]
        assert accepted == ", ".join(f"`{scheme}`" for scheme in keyspace.schemes)
        assert format_ == keyspace.format
        assert environments == (
            "three" if len(keyspace.environments) == 3 else ", ".join(keyspace.environments)
        )
        assert access == ("`all` unless said" if keyspace.access.default == "all" else "must be chosen")


def test_the_profiles_in_the_docs_are_good() -> None:
    """Every TOML block of ``docs/profiles.md`` is a definition that can be applied."""
    written = blocks(read("docs/profiles.md"), "toml")

    assert [profiles.load(text).name for text in written] == [
        "acme",
        "tidy",
        "shop",
        "desk",
        "bank",
        "warehouse",
    ]


def test_the_readme_shows_each_system_with_its_schemes() -> None:
    """The table of systems has every profile that ships, with its schemes and the headers that they read."""
    shown = rows(section(read("README.md"), "Five systems, one installation"), 3)

    assert set(shown) == set(profiles.SHIPPED)
    for name, (accepted, _headers) in shown.items():
        keyspace = profiles.load(profiles.source(name))
        assert accepted == ", ".join(f"`{scheme}`" for scheme in keyspace.schemes)


def test_every_management_scope_is_explained() -> None:
    """``docs/security.md`` has every scope of a management key, and no other."""
    explained = rows(section(read("docs/security.md"), "What a key looks like"), 2)

    assert set(explained) == set(profiles.MANAGEMENT_SCOPES)


def test_every_metric_is_explained() -> None:
    """``docs/operations.md`` has every metric with its kind and labels, and its alerts name only what there is."""
    text = section(read("docs/operations.md"), "Metrics")
    explained = rows(text, 4)
    names = {written_name(metric) for metric in METRICS}

    assert explained == {
        written_name(metric): [metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.says]
        for metric in METRICS
    }
    alerts = set(re.findall(r"keywright_\w+", text.split("### Alerts", 1)[1]))
    assert alerts - names == {"keywright_verification_duration_seconds_bucket"}
    assert len(alerts) > 10


def test_every_probe_of_a_gateway_is_explained() -> None:
    """``docs/gateways.md`` has every row of ``keywright gateway check``, as it is said there, and each proxy a section."""
    text = read("docs/gateways.md")
    explained = rows(section(text, "What check sends"), 2)

    assert {name: cells[0] for name, cells in explained.items()} == {
        name: sentence for name, (sentence, _) in PROBES.items()
    }
    assert all(
        section(text, heading) for heading in ("nginx", "nginx-accel", "Traefik", "Caddy", "Envoy", "HAProxy")
    )


def test_every_event_is_explained() -> None:
    """``docs/webhooks.md`` has every event, with the sentence of the table, and no other; and the attempts, as many as are."""
    text = read("docs/webhooks.md")
    explained = rows(section(text, "What is sent"), 3)

    assert {name: cells[0] for name, cells in explained.items()} == events.EVENTS
    assert f"| attempts | {len(courier.SCHEDULE) + 1}: " in text


def test_every_rule_of_misuse_is_explained() -> None:
    """``docs/misuse.md`` has every rule with its severity, sentence, bounds, act and advice; evidence is test_misuse's to hold."""
    explained = rows(section(read("docs/misuse.md"), "The rules"), 6)

    assert {name: [*cells[:3], cells[4]] for name, cells in explained.items()} == {
        name: [rule.severity, rule.sentence, _bounds(name), rule.act] for name, rule in misuse.RULES.items()
    }
    assert {rule.bounds.quiet for rule in misuse.RULES.values()} == {86_400}
    advised = rows(section(read("docs/misuse.md"), "Alerts"), 2)
    assert {name: cells[0] for name, cells in advised.items()} == {
        name: misuse.advice(name, "KEY_ID", "acme") for name in misuse.RULES
    }


def _bounds(name: str) -> str:
    bounds, span = misuse.RULES[name].bounds, say_span(misuse.RULES[name].bounds.within)
    if bounds.factor:
        many = f"{bounds.times} requests within {span}"
        return f"{many}, and {bounds.factor} times the most in {span} of the last 7 days"
    if bounds.after:
        rest = say_span(bounds.after)
        return f"a rest of {rest}" if name == "woke" else f"{rest} after its first use"
    what = "different credentials" if misuse.RULES[name].distinct else "requests"
    return "the first" if bounds.times == 1 else f"{bounds.times} {what} within {span}"


# -------------------------------------------------------------------------------------------------------- the examples


def test_every_scheme_has_a_section_with_curl() -> None:
    """The quick start has a section for each scheme, with a curl line that sends the scheme's headers."""
    text = read("docs/quickstart.md")
    for name, scheme in SCHEMES.items():
        (lines,) = blocks(section(text, f"`{name}`"))
        assert lines.startswith("curl ")
        for header, value in scheme.shown:
            sent = "X-Acme-Key" if name == "header" else header
            begun = value.partition("<")[0]
            assert name == "basic" or f'-H "{sent}: {begun}' in lines


@pytest.mark.requirement("G-24")
def test_pictures_are_those_of_the_screens() -> None:
    """README and console page show screens; each picture is one that ``make screenshots`` writes, in three forms."""
    taken = {file.name for file in (ROOT / "docs" / "screenshots").glob("*.png")}
    shown = {
        Path(link).name
        for page in (ROOT / "README.md", ROOT / "docs" / "console.md")
        for link in re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", page.read_text(encoding="utf-8"))
    }

    assert len(shown) >= 2
    assert shown <= taken
    screens = {re.sub(r"-(light|dark|narrow)\.png$", "", name) for name in taken}
    assert taken == {f"{screen}-{form}.png" for screen in screens for form in ("light", "dark", "narrow")}


@pytest.mark.requirement("G-23")
def test_the_docs_explain_key_and_secret_before_the_steps() -> None:
    """What key and secret are, and how they work together, has a section, and the quick start begins with it."""
    link = "concepts.md#key-and-secret-and-how-they-work-together"
    before_the_steps = read("docs/quickstart.md").partition("\n## ")[0]

    assert link in before_the_steps
    assert link.partition("#")[2] in slugs(read("docs/concepts.md"))


@pytest.mark.requirement("P-26")
def test_partnas_page_has_a_section_for_each_endpoint(kw: Keywright, tmp_path: Path) -> None:
    """Each endpoint has a section with address, request, answer and errors; its curl lines are run and answer so."""
    text = read("docs/partna.md")
    headings = (
        "Create a key",
        "Rotate a key",
        "List the keys",
        "View the scopes",
        "Invalidate a key",
        "Delete a key",
    )
    place = {"keyspace": "partna", "environment": "staging"}
    caller = make(kw, **place)
    with served(server(kw)) as port:
        for heading in headings:
            part = section(text, heading)
            (shown,) = blocks(part, "json")
            assert blocks(part, "sh")
            assert heading == "Rotate a key" or re.search(
                r"\| `\w+`.* \| [45]\d\d|no errors of its own", part
            )
            for block in blocks(part, "sh"):
                surroundings = {
                    "PATH": os.environ["PATH"],
                    "API": f"http://127.0.0.1:{port}",
                    "TOKEN": caller.credential.token.reveal(),
                    "ACCOUNT": "globex",
                    "ID": make(kw, **place).key.id,
                }
                ran = subprocess.run(
                    ["sh", "-c", block],
                    env=surroundings,
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                assert outline(json.loads(ran.stdout)) == outline(json.loads(shown)), block

    named = set(re.findall(r"`/?((?:v4/)?user/[a-z/-]+)`", text)) | set(
        re.findall(r"`\w+ /(v4/user/[a-z/-]+)`", text)
    )
    assert {f"v4/{path}" for path in partna._ROUTES} == named


def outline(value: object) -> object:
    """The shape of a JSON document: its names, and of a list its first item; a time may be absent."""
    if isinstance(value, dict):
        return {
            name: outline(item) for name, item in value.items() if name not in ("DeletedAt", "Expiration")
        }
    return [outline(item) for item in value[:1]] if isinstance(value, list) else type(value).__name__


@pytest.mark.requirement("A-13")
def test_the_glossary_maps_the_words_for_removal() -> None:
    """atfinity's "Revoke" is documented as delete, which is the verb that its profile puts the label on."""
    line = next(line for line in read("docs/glossary.md").splitlines() if line.startswith("| atfinity"))

    assert line == '| atfinity | "Revoke" | delete |'
    assert profiles.load(profiles.source("atfinity")).labels["delete"] == "Revoke"


@pytest.mark.requirement("A-20")
def test_no_example_takes_notation_for_a_header() -> None:
    """The literal ``Api-Key`` header is shown plain, and nowhere between angle brackets."""
    assert '-H "Api-Key: $TOKEN"' in read("docs/quickstart.md")
    assert [page.name for page in PAGES if re.search("<api-key>", read(page), re.IGNORECASE)] == []


@pytest.mark.requirement("A-19")
def test_no_example_has_typographic_quotes(kw: Keywright) -> None:
    """No code in the docs has a typographic quote, and a header pasted with one gets a 401 that says to look."""
    for page in PAGES:
        inline = re.findall(r"`[^`\n]+`", _FENCE.sub("", read(page)))
        assert [code for code in (*blocks(read(page)), *inline) if _TYPOGRAPHIC.search(code)] == [], page.name

    token = make(kw, keyspace="atfinity").credential.token.reveal()
    pasted = {"Authorization": f"\u2018Api-Key {token}\u2019"}, {"Api-Key": f"\u201c{token}\u201d"}
    for headers in pasted:
        answer = kw.answer(kw.verify(headers, keyspace="atfinity", environment="production"))
        assert answer.status == 401
        assert b"Look for quotes" in answer.body


def test_samples_are_dead_and_no_path_is_ours() -> None:
    """Nothing in the docs that looks like a key has a right checksum, and no page names a machine's own folders."""
    for page in PAGES:
        text = read(page)
        for sample in credential.INSIDE.findall(text.encode()):
            assert credential.checksum(sample[:-6]) != sample[-6:], sample
        assert credential.INSIDE_DOTTED.search(text.encode()) is None, page.name
        assert re.search(r"(?<![\w.{}])/(work|home|root|tmp|usr)/", text) is None, page.name


def test_links_resolve() -> None:
    """Every link to a page or a heading of ours leads somewhere."""
    for page in PAGES:
        for target in _LINK.findall(_FENCE.sub("", read(page))):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            there = page if not path else page.parent / path
            assert there.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in slugs(read(there)), f"{page.name}: {target}"


def test_the_requirements_are_complete() -> None:
    """The 171 rows are there, each once: 98 stated, 45 implied, 28 derived."""
    written = tomllib.loads(read("docs/requirements.toml"))["row"]
    kinds = [row["kind"] for row in written]

    assert len({row["id"] for row in written}) == len(written) == 171
    assert [kinds.count(kind) for kind in "SID"] == [98, 45, 28]
    assert all(row["text"] for row in written)


def test_every_screen_is_marked() -> None:
    """Each thing that a console must have is borne by a test, and no test bears another."""
    written = {row["id"] for row in tomllib.loads(read("docs/requirements.toml"))["screen"]}
    marked = re.findall(
        r"@pytest\.mark\.screen\(([^)]*)\)", "".join(read(file) for file in ROOT.glob("tests/test_*.py"))
    )

    assert {row for marks in marked for row in re.findall(r'"([^"]+)"', marks)} == written
