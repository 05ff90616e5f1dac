"""Forward-auth: what a proxy may say, what it is told, and that a client between the two can forge nothing."""

from collections.abc import Iterator

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.server.forward_auth import canonical_path
from keywright.testing import Clock
from surfaces import Door, Given, Reply, pairs, server, token

IDENTITY = ["key", "account", "environment", "access", "scopes"]


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def ask(
    door: Door,
    headers: Given = (),
    *,
    gate: str = "every.production",
    method: str = "GET",
    uri: str = "/things/1",
    verb: str = "GET",
) -> Reply:
    """What a proxy asks for a request that it holds back."""
    family: list[tuple[str | bytes, str | bytes]] = [("X-Forwarded-Method", method), ("X-Forwarded-Uri", uri)]
    return door.send(verb, f"/authz/forward/{gate}", [*family, *pairs(headers)])


def identity(reply: Reply) -> dict[str, list[str]]:
    """The identity headers of an answer."""
    return {name: reply.all(f"x-keywright-{name}") for name in IDENTITY}


def test_allow_is_200_with_the_whole_identity(door: Door, key: Issued) -> None:
    """An allowed request is exactly 200, empty, uncacheable, and names key, account, environment, access and scopes."""
    reply = ask(door, bearer(key))

    assert (reply.status, reply.body, reply.get("cache-control")) == (200, b"", "no-store")
    assert identity(reply) == {
        "key": [key.key.id],
        "account": ["globex"],
        "environment": ["production"],
        "access": ["all"],
        "scopes": [""],
    }


def test_scopes_are_said_in_one_line(door: Door, kw: Keywright) -> None:
    """The scopes of a restricted key come joined by commas, and the second answer is the same as the first."""
    key = make(kw, access="restricted", scopes=["things:write", "things:read"])

    first, second = (ask(door, bearer(key), gate="shop") for _ in range(2))

    assert identity(first)["scopes"] == ["things:read,things:write"]
    assert (first.status, first.headers) == (second.status, second.headers)


def test_forged_identity_does_not_survive(door: Door, key: Issued) -> None:
    """Identity headers that a client sends along change nothing: each is answered once, with the truth."""
    forged = [(f"X-Keywright-{name}", "root") for name in IDENTITY] * 2
    twins = [(f"X_Keywright_{name}", "root") for name in IDENTITY]

    reply = ask(door, [*forged, *twins, *bearer(key).items()])

    assert identity(reply) == identity(ask(door, bearer(key)))
    assert identity(reply)["account"] == ["globex"]


def test_a_refusal_names_nobody(door: Door, kw: Keywright) -> None:
    """A refused request gets no identity header, whatever was proven and whatever the client claimed."""
    disabled = make(kw)
    kw.keys.disable(disabled.key.id)

    reply = ask(door, [("X-Keywright-Account", "globex"), *bearer(disabled).items()])

    assert (reply.status, reply.code) == (401, "disabled")
    assert not any(name.startswith(b"x-keywright") for name, _ in reply.headers)


@pytest.mark.parametrize(
    "family",
    [
        [],
        [("X-Forwarded-Method", "GET")],
        [("X-Forwarded-Uri", "/things/1")],
        [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "")],
        [("X-Forwarded-Method", ""), ("X-Forwarded-Uri", "/")],
        [("X-Forwarded-Method", "GET"), ("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/")],
        [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/"), ("X-Forwarded-Uri", "/things/1")],
        [("X-Forwarded-Method", "GET POST"), ("X-Forwarded-Uri", "/")],
        [("X-Forwarded-Method", "GÉT"), ("X-Forwarded-Uri", "/")],
        [("X-Forwarded-Method", "G" * 21), ("X-Forwarded-Uri", "/")],
        [("X-Original-Method", "GET"), ("X-Original-URI", "/things/1")],
        [("X_Forwarded_Method", "GET"), ("X_Forwarded_Uri", "/things/1")],
    ],
)
@pytest.mark.parametrize("gate", ["every.production", "shop"])
def test_a_misconfigured_gateway_is_told_so(
    door: Door, key: Issued, family: list[tuple[str, str]], gate: str
) -> None:
    """Where the family's headers are missing, doubled or unreadable the answer is 400, never allow, even with a right key."""
    reply = door.send("GET", f"/authz/forward/{gate}", [*family, *bearer(key).items()])

    assert (reply.status, reply.code) == (400, "gateway_misconfigured")
    assert reply.get("content-type") == "application/problem+json"
    assert reply.get("www-authenticate") is None


@pytest.mark.parametrize(
    "gate",
    [
        "", "nothing", "every", "every.", ".production", "every.nowhere", "nothing.production", "shop.production",
        "keywright.production", "shop/", "shop/x", "every.production/", "sho%70", "every%2Eproduction", "SHOP",
        "a" * 100_000, "every.production.x", "%00", "-",
    ],
)  # fmt: skip
def test_unknown_gates_are_404(door: Door, key: Issued, gate: str) -> None:
    """A name that is no gate answers 404, and only what could be one is remembered."""
    target = f"/authz/forward/{gate}"
    family = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/things/1"), *bearer(key).items()]

    reply = door.send("GET", target, family)

    assert (reply.status, reply.code) == (404, "not_found")


def test_the_query_is_not_part_of_the_name(door: Door, key: Issued) -> None:
    """What a proxy copies of its client's query behind our address is not looked at."""
    assert ask(door, bearer(key), gate="shop?x=1&X-Forwarded-Uri=/").status == 200


def test_absent_gates_are_remembered_only_where_they_could_be(door: Door, kw: Keywright, key: Issued) -> None:
    """Names too long or too odd for a gate are not looked for, so a flood of them takes no memory and no look-up."""
    ask(door, bearer(key), gate="shop")
    before = kw.installation.lookup.statements

    for name in ("a" * 41, "b" * 100_000, "UPPER", "%41", "x_y"):
        assert ask(door, bearer(key), gate=name).status == 404

    assert kw.installation.lookup.statements == before


@pytest.mark.security("T-64")
@pytest.mark.parametrize(
    "verb",
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "TRACE", "QUERY"],
)
def test_every_method_is_a_question(door: Door, key: Issued, verb: str) -> None:
    """The method that the proxy asks with, and the one it asks about, may be any; none passes without a key."""
    assert ask(door, bearer(key), verb=verb, method=verb).status == 200
    assert ask(door, verb=verb, method=verb).status == 401


def test_head_has_no_body(door: Door) -> None:
    """A refusal to HEAD has the headers of one to GET and no body."""
    get, head = ask(door), ask(door, verb="HEAD")

    assert (head.status, head.body) == (get.status, b"")
    assert get.body
    assert head.headers == get.headers


def test_conditions_ranges_and_bodies_are_ignored(door: Door, key: Issued) -> None:
    """Headers with which a client could ask for 304, 206 or 100 change nothing of the answer."""
    odd = {
        "If-None-Match": "*",
        "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT",
        "If-Match": '"x"',
        "Range": "bytes=0-0",
        "Expect": "100-continue",
        "Accept": "text/html",
        "Upgrade": "websocket",
        "Connection": "upgrade, x-forwarded-uri",
    }

    assert ask(door, odd | bearer(key)).status == 200
    assert ask(door, odd).status == 401


@pytest.mark.parametrize(
    "shape", ["/things/{}", "/things?key={}", "/things?x-api-key=abc", "/things?a=1&X_TOKEN=1"]
)
def test_a_credential_in_the_target_is_refused(door: Door, key: Issued, shape: str) -> None:
    """A target that holds a key, or a parameter named like a carrier, is ambiguous, beside a right key too."""
    for headers in ({}, bearer(key)):
        reply = ask(door, headers, uri=shape.format(token(key)))

        assert (reply.status, reply.code) == (401, "ambiguous")
        assert token(key).encode() not in reply.body


# ------------------------------------------------------------------------------------------------- a gate with rules


@pytest.mark.parametrize(
    ("method", "uri", "scopes", "status"),
    [
        ("GET", "/things/1", ["things:read"], 200),
        ("HEAD", "/things/1", ["things:read"], 200),
        ("GET", "/things/1?page=2", ["things:read"], 200),
        ("GET", "//things///1", ["things:read"], 200),
        ("GET", "/things/%31", ["things:read"], 200),
        ("get", "/things/1", ["things:read"], 200),
        ("GET", "/things/1", ["things:write"], 403),
        ("POST", "/things", ["things:write"], 200),
        ("POST", "/things/", ["things:write"], 200),
        ("POST", "/things", ["things:read"], 403),
        ("GET", "/things/1/2", ["things:read"], 403),
        ("GET", "/Things/1", ["things:read"], 403),
        ("GET", "/things", ["things:read"], 403),
        ("DELETE", "/things/1", ["things:read", "things:write"], 403),
        ("OPTIONS", "/things/1", ["things:read", "things:write"], 403),
        ("GET", "/", ["things:read", "things:write"], 403),
    ],
)
@pytest.mark.requirement("G-13")
def test_a_restricted_key_passes_where_its_scopes_are_asked(
    door: Door, kw: Keywright, method: str, uri: str, scopes: list[str], status: int
) -> None:
    """A gate matches method and whole path; where no rule fits, no scope is asked, and a restricted key fails."""
    key = make(kw, access="restricted", scopes=scopes)

    assert ask(door, bearer(key), gate="shop", method=method, uri=uri).status == status


@pytest.mark.parametrize(
    ("method", "uri", "status"),
    [
        ("GET", "/things/1", 200),
        ("POST", "/things", 403),
        ("DELETE", "/things/1", 403),
        ("PROPFIND", "/x", 403),
        ("GET", "/x", 403),
    ],
)
@pytest.mark.requirement("G-14")
def test_a_read_only_key_reads(door: Door, kw: Keywright, method: str, uri: str, status: int) -> None:
    """A read-only key passes the reads that a gate's rules name, no write, and nothing that no rule names."""
    key = make(kw, access="read_only")

    assert ask(door, bearer(key), gate="shop", method=method, uri=uri).status == status


def test_what_no_rule_names_is_for_keys_that_may_do_all(door: Door, kw: Keywright) -> None:
    """Where no rule of a gate fits, only access `all` passes."""
    assert ask(door, bearer(make(kw)), gate="shop", method="GET", uri="/x").status == 200


def test_a_gate_belongs_to_one_environment(door: Door, kw: Keywright) -> None:
    """A named gate serves the environment of its definition."""
    key = make(kw, environment="staging")

    assert ask(door, bearer(key), gate="shop").code == "wrong_environment"
    assert ask(door, bearer(key), gate="every.staging").status == 200


def test_a_rule_charges_its_cost_and_says_what_is_left(door: Door, kw: Keywright, clock: Clock) -> None:
    """Each allowed call is charged what its rule costs; what is left stands in RateLimit, and nothing left is 429."""
    key = make(kw, limits=["5/day"])

    said = [ask(door, bearer(key), gate="shop", method="POST", uri="/things") for _ in range(3)]

    assert [reply.status for reply in said] == [200, 200, 429]
    assert [reply.get("ratelimit") for reply in said] == [
        f'"quota-day";r={left};t=43170' for left in (3, 1, 1)
    ]
    assert said[0].get("ratelimit-policy") == '"quota-day";q=5;w=86400'
    assert (said[2].code, said[2].get("retry-after")) == ("quota_exhausted", "43170")
    assert ask(door, bearer(key), gate="shop").status == 200  # a read costs one, and one is left

    clock.advance(seconds=43170)
    assert ask(door, bearer(key), gate="shop", method="POST", uri="/things").status == 200


def test_refused_requests_are_not_charged(door: Door, kw: Keywright) -> None:
    """A request that is refused for its scope or its path spends nothing."""
    key = make(kw, access="restricted", scopes=["things:read"], limits=["1/day"])
    for method, uri in (("POST", "/things"), ("GET", "/things/..%2f1"), ("GET", f"/things/1?k={token(key)}")):
        assert ask(door, bearer(key), gate="shop", method=method, uri=uri).status in (400, 401, 403)

    assert ask(door, bearer(key), gate="shop").get("ratelimit") == '"quota-day";r=0;t=43170'


TRICKS = [
    "things/1", "http://host/things/1", "/things/../admin", "/things/./1", "/things/%2e%2e/admin", "/things/%2E/1",
    "/things%2f1", "/things%2F1", "/things\\1", "/things%5c1", "/things/%00", "/things/%ff", "/things/%c0%af",
    "/things/%252e%252e", "/things/%25", "/things/1;v=2", "/things/1%3bv", "/things/%0a", "/things/%7f", "/things#x",
    "/things/1%", "*", "?", "/things/..", "/..", "/things/%09", "/things/\xff",
]  # fmt: skip


@pytest.mark.security("T-09")
@pytest.mark.parametrize("uri", TRICKS)
def test_a_path_with_two_readings_is_refused(door: Door, key: Issued, uri: str) -> None:
    """A target that upstreams read differently is 400 at a gate with rules, even with a key that may do all."""
    reply = ask(door, bearer(key), gate="shop", uri=uri)

    assert (reply.status, reply.code) == (400, "ambiguous_path")


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"//", "/"),
        (b"/a//b/", "/a/b"),
        (b"/a/b?x=/../y", "/a/b"),
        (b"/%61", "/a"),
        (b"/caf%C3%A9", "/café"),
        (b"/a.b/...", "/a.b/..."),
        (b"/a+b&c=d", "/a+b&c=d"),
    ],
)
def test_a_path_with_one_reading(raw: bytes, path: str) -> None:
    """A plain path is decoded once, and its doubled slashes are one."""
    assert canonical_path(raw) == path


def test_cookies_and_origins_change_nothing(door: Door, key: Issued) -> None:
    """A stray cookie or origin neither opens nor closes a gate, and no answer invites a browser."""
    stray = {"Cookie": "session=abc; token=" + token(key), "Origin": "https://evil.example"}

    allowed, refused = ask(door, stray | bearer(key)), ask(door, stray)

    assert (allowed.status, refused.status) == (200, 401)
    for reply in (allowed, refused):
        assert not any(name.startswith(b"access-control") for name, _ in reply.headers)
        assert reply.get("set-cookie") is None
