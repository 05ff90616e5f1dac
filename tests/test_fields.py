"""What may stand in the fields of a key or an account."""

import json
from ipaddress import ip_network

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import EVERY, make
from keywright import Keywright, profiles
from keywright.desk import fields
from keywright.errors import Invalid
from keywright.model import ExpiryPolicy, Keyspace
from keywright.policy import within
from keywright.testing import Clock
from keywright.times import DAY, LATEST, SECOND, rfc3339

NOW = 1_800_000_000 * SECOND
KEYSPACE = profiles.load(EVERY)
READ, WRITE = "things:read", "things:write"


def keyspace(**over: object) -> Keyspace:
    """The keyspace of every scheme, but for what is said."""
    return msgspec.structs.replace(KEYSPACE, **over)


def refusal(check: object, *args: object, **more: object) -> str:
    """The path that a refusal names."""
    with pytest.raises(Invalid) as refused:
        check(*args, **more)  # type: ignore[operator]
    return refused.value.path


# --------------------------------------------------------------------------------------------------------------- names


@pytest.mark.requirement("F-31")
@pytest.mark.security("T-41")
@pytest.mark.parametrize(
    "text",
    ["<img src=x onerror=alert(1)>", "'; DROP TABLE keys; --", "Übergröße", "📦 Versand", "اسم", "=cmd|' /C calc'!A0",
     "{{7*7}}", "a\u200db", "e\u0301", "x" * 200, "0", "\\", "%s", "${jndi:ldap://x}", "&lt;"],
)  # fmt: skip
def test_a_name_is_kept_as_text(text: str) -> None:
    """Markup, formulas, other scripts and emoji are text like any other, and are kept to the letter."""
    assert fields.name(text) == text
    assert fields.description(text) == text


@pytest.mark.requirement("F-31")
@pytest.mark.security("T-41", "T-42")
@pytest.mark.parametrize(
    "character",
    ["\0", "\x08", "\t", "\x1b[31m", "\r", "\x7f", "\x85", "\x9b", "\u2029", "\u202e", "\u2066", "\ud800"],
)
def test_hidden_characters_are_refused(character: str) -> None:
    """Control characters, lone surrogates and those that turn the direction of text are refused, not dropped."""
    assert refusal(fields.name, f"a{character}b") == "name"
    assert refusal(fields.label, f"a{character}b", path="team") == "team"
    if character not in ("\r", "\u2029"):
        assert refusal(fields.description, f"a{character}b") == "description"


def test_lines_are_for_descriptions() -> None:
    """A description may have several lines, a name only one."""
    assert fields.description("one\r\ntwo\n") == "one\r\ntwo"
    assert refusal(fields.name, "one\ntwo") == "name"


@pytest.mark.requirement("F-31")
@pytest.mark.parametrize(
    ("longest", "check"),
    [
        (200, fields.name),
        (100, lambda text: fields.label(text, path="name")),
        (2000, fields.description),
        (64, fields.username),
    ],
)
def test_texts_have_a_length(longest: int, check: object) -> None:
    """A text may be as long as its field says, and not one character longer."""
    assert check("x" * longest) == "x" * longest  # type: ignore[operator]
    assert refusal(check, "x" * (longest + 1)) in ("name", "description", "username")
    assert refusal(check, "x" * 5000) in ("name", "description", "username")


@pytest.mark.requirement("X-11", "C-03")
@pytest.mark.parametrize("nothing", ["", "   ", "\n", None, 5, b"x", ["x"]])
def test_a_name_is_needed(nothing: object) -> None:
    """A name cannot be left out, be blank, or be anything but text."""
    assert refusal(fields.name, nothing) == "name"


@pytest.mark.requirement("X-11", "C-03")
def test_the_other_texts_may_be_left_out() -> None:
    """Description, team and application are optional, and blanks around a text are not part of it."""
    assert (fields.description(None), fields.description("")) == ("", "")
    assert (fields.label(None, path="team"), fields.label("", path="team")) == (None, None)
    assert (fields.name("  CRM sync "), fields.label(" Sales ", path="team")) == ("CRM sync", "Sales")
    assert refusal(fields.description, 5) == "description"
    assert refusal(fields.label, 5, path="team") == "team"


@given(st.text(max_size=250))
@settings(max_examples=200, deadline=None)
def test_a_name_that_is_taken_is_one_visible_line(text: str) -> None:
    """Whatever the text, a name that is accepted is one line, neither blank nor too long, and can be stored."""
    try:
        name = fields.name(text)
    except Invalid:
        return

    assert 0 < len(name) <= 200
    assert name == text.strip()
    assert len(name.splitlines()) == 1
    assert name.encode()


@pytest.mark.parametrize("username", ["a", "globex", "0", "globex.eu-1_x@y+z", "x" * 64])
def test_usernames(username: str) -> None:
    """A user name is small letters, digits and a few marks."""
    assert fields.username(username) == username


@pytest.mark.parametrize(
    "username",
    ["", "Globex", ".globex", "-x", "glo bex", "globex\n", "gl\u00f6bex", "a/b", "a,b", 'a"', None, 5],
)
def test_a_username_of_another_shape_is_refused(username: object) -> None:
    """Capitals, blanks, commas and other scripts have no place in what rides in a header."""
    assert refusal(fields.username, username) == "username"


@pytest.mark.requirement("F-31")
def test_a_hostile_name_comes_back_as_it_was(kw: Keywright) -> None:
    """A name that is markup goes through the store unchanged, and is found by searching for it."""
    made = make(kw, name="<img src=x onerror=alert(1)>", description="' OR 1=1\n%_")

    assert kw.keys.get(made.key.id).name == "<img src=x onerror=alert(1)>"
    assert kw.keys.get(made.key.id).description == "' OR 1=1\n%_"
    assert [key.id for key in kw.keys.list(q="<IMG src").items] == [made.key.id]


# -------------------------------------------------------------------------------------------------------------- access


@pytest.mark.requirement("X-11", "G-15", "G-17")
@pytest.mark.parametrize(
    ("default", "given_access", "scopes", "expected"),
    [
        ("all", None, None, ("all", ())),
        ("all", "read_only", None, ("read_only", ())),
        ("all", "all", [], ("all", ())),
        ("all", None, [READ], ("restricted", (READ,))),
        (None, "all", None, ("all", ())),
        (None, "restricted", [WRITE, READ, WRITE], ("restricted", (WRITE, READ))),
    ],
)
def test_access_and_scopes_that_go_together(
    default: str | None,
    given_access: str | None,
    scopes: list[str] | None,
    expected: tuple[str, tuple[str, ...]],
) -> None:
    """What is left out is the profile's default, and naming scopes means restricted access to each of them once."""
    space = keyspace(access=msgspec.structs.replace(KEYSPACE.access, default=default))

    assert fields.access(given_access, scopes, space) == expected


@pytest.mark.requirement("X-11", "G-15", "G-17")
@pytest.mark.parametrize(
    ("given_access", "scopes", "path"),
    [
        (None, None, "access"),
        ("some", None, "access"),
        ("ALL", None, "access"),
        ("all", [READ], "scopes"),
        ("read_only", [READ], "scopes"),
        ("restricted", None, "scopes"),
        ("restricted", [], "scopes"),
        ("restricted", [READ, "things:new"], "scopes[1]"),
        ("restricted", [READ, "things:*"], "scopes[1]"),
        ("restricted", [READ, 5], "scopes[1]"),
        ("restricted", READ, "scopes[0]"),
        ("restricted", ["keys:read"], "scopes[0]"),
        ("restricted", [READ] * 201, "scopes"),
    ],
)
def test_access_and_scopes_that_do_not(given_access: str | None, scopes: list[str] | None, path: str) -> None:
    """No access where one must be chosen, scopes without restriction, restriction without scopes: each names its field."""
    space = keyspace(access=msgspec.structs.replace(KEYSPACE.access, default=None))

    assert refusal(fields.access, given_access, scopes, space) == path


@pytest.mark.parametrize(
    ("self_service", "known"), [("off", []), ("read", ["keys:read"]), ("full", ["keys:read", "keys:write"])]
)
def test_reserved_scopes_can_be_given_where_they_are_granted(self_service: str, known: list[str]) -> None:
    """A key can be given the reserved scopes only as far as its keyspace has self-service."""
    space = keyspace(self_service=self_service)
    for scope in ("keys:read", "keys:write"):
        if scope in known:
            assert fields.access("restricted", [scope], space) == ("restricted", (scope,))
        else:
            assert refusal(fields.access, "restricted", [scope], space) == "scopes[0]"


def test_a_class_that_is_not_offered_is_refused() -> None:
    """A keyspace that offers only some classes of access gives no other."""
    space = keyspace(
        access=msgspec.structs.replace(KEYSPACE.access, classes=("read_only",), default="read_only")
    )

    assert fields.access(None, None, space) == ("read_only", ())
    assert refusal(fields.access, "all", None, space) == "access"
    assert refusal(fields.access, None, [READ], space) == "access"


# ------------------------------------------------------------------------------------------------------------- networks


@pytest.mark.security("T-36")
@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("203.0.113.9", "203.0.113.9/32"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.0/255.255.255.0", "203.0.113.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1/128"),
        ("2001:0db8::/32", "2001:db8::/32"),
        ("::ffff:203.0.113.9", "203.0.113.9/32"),
        ("::FFFF:CB00:7100/120", "203.0.113.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_networks_are_kept_in_one_form(text: str, canonical: str) -> None:
    """However an address is written it is kept in one form, and IPv4 inside IPv6 is kept as the IPv4 it matches."""
    assert fields.networks([text]) == (canonical,)
    assert fields.networks([text, canonical]) == (canonical,)


@pytest.mark.security("T-36")
@pytest.mark.parametrize(
    "text",
    ["", "localhost", "203.0.113", "203.0.113.256", "203.0.113.009", "203.0.113.9/24", "203.0.113.0/33", "203.0.113.0/-1",
     "203.0.113.9:80", " 203.0.113.9", "203.0.113.9\n", "0xcb.0.113.9", "3405803785", "2001:db8::1/32", "2001:db8:::1",
     "fe80::1%eth0", "[2001:db8::1]", "*", "\uff12\uff10\uff13.0.113.9", None, 5, b"1234", ["203.0.113.9"]],
)  # fmt: skip
def test_what_is_no_network_is_refused(text: object) -> None:
    """Names, ports, zones, other notations and networks with host bits are refused, with the place in the list."""
    assert refusal(fields.networks, ["198.51.100.1", text]) == "allowed_ips[1]"


def test_how_many_networks() -> None:
    """A key has at most a hundred networks, and none means from anywhere."""
    hundred = [f"203.0.113.{n}" for n in range(100)]

    assert len(fields.networks(hundred)) == 100
    assert (fields.networks(None), fields.networks([])) == ((), ())
    assert refusal(fields.networks, [*hundred, "198.51.100.1"]) == "allowed_ips"
    assert refusal(fields.networks, "203.0.113.9") == "allowed_ips"


@given(st.ip_addresses())
@settings(max_examples=100, deadline=None)
def test_every_address_that_can_be_given_lets_itself_in(address: object) -> None:
    """A key that may be used from one address, however odd, can be used from that address."""
    (kept,) = fields.networks([str(address)])

    assert within((ip_network(kept),), str(address))


# ------------------------------------------------------------------------------------------------------------- metadata


@pytest.mark.security("T-49")
def test_metadata_entries_are_bounded() -> None:
    """Fifty entries are taken, and fifty-one are not."""
    fifty = {f"k{n}": n for n in range(50)}

    assert fields.metadata(fifty) == fifty
    assert refusal(fields.metadata, fifty | {"more": 1}) == "metadata"


@pytest.mark.security("T-49")
def test_metadata_bytes_are_bounded() -> None:
    """Sixteen kibibytes of JSON are taken, as bytes and not as characters, and one more is not."""
    room = 16 * 1024 - len('{"k":""}')

    assert fields.metadata({"k": "x" * room})
    assert refusal(fields.metadata, {"k": "x" * (room + 1)}) == "metadata"
    assert refusal(fields.metadata, {"k": "\u00e4" * (room // 2 + 1)}) == "metadata"


@pytest.mark.security("T-49")
def test_deep_metadata_is_refused_not_crashed_on() -> None:
    """Metadata that is nested without end, or in itself, is refused."""
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"k": deep}
    ring: dict[str, object] = {}
    ring["ring"] = ring

    assert refusal(fields.metadata, deep) == "metadata"
    assert refusal(fields.metadata, ring) == "metadata"


@pytest.mark.parametrize(
    "text",
    [[], "x", 5, True, {"k": object()}, {(1, 2): 3}, {"k": "\ud800"}],
)
def test_metadata_that_is_no_json_object_is_refused(text: object) -> None:
    """Metadata is a JSON object; lists, bare values and what cannot be written as JSON are refused."""
    assert refusal(fields.metadata, text) == "metadata"


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5))
@settings(max_examples=100, deadline=None)
def test_metadata_is_kept_as_given(given_metadata: dict[str, object]) -> None:
    """A JSON object of the host's own comes back equal."""
    assert fields.metadata(given_metadata) == json.loads(json.dumps(given_metadata))
    assert fields.metadata(None) == {}


# --------------------------------------------------------------------------------------------------------------- expiry


@pytest.mark.security("T-45")
@pytest.mark.requirement("X-20")
@pytest.mark.parametrize(("given_instant", "taken"), [(NOW - 1, False), (NOW, False), (NOW + 1, True), (LATEST, True), (LATEST + 1, False), (0, False), (-1, False), (2**63, False)])  # fmt: skip
def test_an_expiry_lies_ahead_and_before_the_year_10000(given_instant: int, taken: bool) -> None:
    """An expiry is later than now, and not so late that it could not be written."""
    if taken:
        assert fields.expires_at(given_instant, KEYSPACE, NOW, given_at_all=True) == given_instant
    else:
        assert refusal(fields.expires_at, given_instant, KEYSPACE, NOW, given_at_all=True) == "expires_at"


@pytest.mark.security("K-13")
@pytest.mark.parametrize(
    ("policy", "given_days", "given_at_all", "expected"),
    [
        (ExpiryPolicy(), None, False, None),
        (ExpiryPolicy(), None, True, None),
        (ExpiryPolicy(default=30 * DAY), None, False, 30),
        (ExpiryPolicy(default=30 * DAY), None, True, None),
        (ExpiryPolicy(30 * DAY, 90 * DAY), None, False, 30),
        (ExpiryPolicy(30 * DAY, 90 * DAY), 90, True, 90),
    ],
)
def test_the_keyspaces_expiry(
    policy: ExpiryPolicy, given_days: int | None, given_at_all: bool, expected: int | None
) -> None:
    """What is left out is the keyspace's default, never is said explicitly, and the longest life is allowed."""
    instant = None if given_days is None else NOW + given_days * DAY * SECOND
    found = fields.expires_at(instant, keyspace(expiry=policy), NOW, given_at_all=given_at_all)

    assert found == (None if expected is None else NOW + expected * DAY * SECOND)


@pytest.mark.security("K-13")
@pytest.mark.parametrize("given_instant", [None, NOW + 90 * DAY * SECOND + 1])
def test_no_longer_than_the_keyspace_allows(given_instant: int | None) -> None:
    """Where a keyspace has a longest life, neither never nor a microsecond more can be had."""
    space = keyspace(expiry=ExpiryPolicy(30 * DAY, 90 * DAY))

    assert refusal(fields.expires_at, given_instant, space, NOW, given_at_all=True) == "expires_at"


@pytest.mark.security("T-45")
def test_the_last_expiry_of_all_can_be_shown(kw: Keywright, clock: Clock) -> None:
    """A key that expires in the last second of the year 9999 is made, shown and verified like any other."""
    made = make(kw, expires_at=LATEST)
    token = {"Authorization": f"Bearer {made.credential.token.reveal()}"}

    assert rfc3339(kw.keys.get(made.key.id).expires_at or 0) == "9999-12-31T23:59:59Z"
    assert kw.verify(token, keyspace="every", environment="production", method="GET").code == "ok"


# ------------------------------------------------------------------------------------------------------------- required


@pytest.mark.requirement("X-11")
@pytest.mark.parametrize("empty", [None, "", (), {}])
def test_what_the_profile_requires_must_be_filled(empty: object) -> None:
    """A field that a profile wants filled is asked for by name, and an empty one is not filled."""
    space = keyspace(fields=msgspec.structs.replace(KEYSPACE.fields, required=("name", "team")))

    assert refusal(fields.required, {"team": empty}, space) == "team"
    assert refusal(fields.required, {}, space) == "team"
    assert fields.required({"team": "Sales"}, space) is None


def test_a_search_looks_through_the_texts() -> None:
    """A search goes through id, name, team, application and description, in lower case, and skips what is not there."""
    values = {"id": "K1", "name": "CRM", "team": None, "application": "App", "description": ""}

    assert fields.search_text(values) == "k1\ncrm\napp"
