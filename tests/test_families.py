"""The other families of forward-auth: every proxy hears the same decision, in its own words, and believes no client."""

from collections.abc import Iterator

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.presentations import presentations
from surfaces import (
    FAMILIES,
    Door,
    Given,
    Reply,
    as_shown,
    exchange,
    held_back,
    pairs,
    request,
    served,
    server,
    statuses,
)

OTHERS = FAMILIES[1:]
IDENTITY = [f"x-keywright-{name}" for name in ("key", "account", "environment", "access", "scopes")]
#: What each family says besides, to an allowed request.
ADDED = {
    "forward": {"cache-control": "no-store"},
    "nginx": {"cache-control": "no-store"},
    "accel": {"x-accel-redirect": "@upstream", "x-accel-expires": "0"},
    "envoy": {"cache-control": "no-store", "x-envoy-auth-headers-to-remove": "authorization"},
}


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def ask(
    door: Door,
    family: str,
    headers: Given = (),
    *,
    gate: str = "shop",
    method: str = "GET",
    target: str = "/things/1",
) -> Reply:
    """What a proxy of a family is told of a request that it holds back."""
    return door.send(*held_back(family, gate, method, target, headers))


@pytest.mark.parametrize("family", FAMILIES)
def test_allow_is_200_with_the_whole_identity(door: Door, kw: Keywright, family: str) -> None:
    """In every family an allowed request is exactly 200, empty, with the whole identity and what the family adds."""
    key = make(kw, access="restricted", scopes=["things:read"])

    reply = ask(door, family, bearer(key))

    assert (reply.status, reply.body) == (200, b"")
    values = dict(
        zip(IDENTITY, [key.key.id, "globex", "production", "restricted", "things:read"], strict=True)
    )
    assert {name.decode(): value.decode() for name, value in reply.headers} == {
        **values,
        **ADDED[family],
        "content-length": "0",
    }


@pytest.mark.parametrize(
    ("method", "target", "status", "shown"),
    [
        ("GET", "/things/1", 401, 401),
        ("POST", "/things", 403, 403),
        ("GET", "/things/..%2f1", 400, 403),
        ("GET", "/things/2", 429, 403),
    ],
)
def test_nginx_hears_what_it_can_carry(
    door: Door, kw: Keywright, method: str, target: str, status: int, shown: int
) -> None:
    """``auth_request`` knows 401 and 403 alone: other refusals are 403, and each comes whole in two headers."""
    key = make(kw, access="restricted", scopes=["things:read"], limits=["1/day"])
    if status == 429:
        ask(door, "forward", bearer(key))
    headers = {} if status == 401 else bearer(key)

    reply = ask(door, "nginx", headers, method=method, target=target)
    whole, plain = as_shown(reply), ask(door, "forward", headers, method=method, target=target)

    assert (reply.status, whole.status) == (shown, plain.status) == (shown, status)
    assert (whole.code, whole.json["detail"]) == (plain.code, plain.json["detail"])
    assert whole.body == reply.body
    assert b"\n" not in whole.body
    for name in ("retry-after", "www-authenticate", "ratelimit", "content-type", "cache-control"):
        assert reply.get(name) == plain.get(name)


@pytest.mark.parametrize("family", ["accel", "envoy"])
def test_the_others_answer_in_full(door: Door, kw: Keywright, family: str) -> None:
    """In ``accel`` and ``envoy`` a refusal is the same answer as in the first family, and leads nowhere."""
    spent = make(kw, limits=["1/day"])
    ask(door, family, bearer(spent))
    for headers, target, status in (
        ({}, "/things/1", 401),
        (bearer(spent), "/things/1", 429),
        (bearer(spent), "/things/..%2f1", 400),
    ):
        reply, plain = (ask(door, one, headers, target=target) for one in (family, "forward"))

        assert reply.status == plain.status == status
        assert [name for name, _ in reply.headers] == [name for name, _ in plain.headers]
        assert reply.code == plain.code


@pytest.mark.parametrize("family", FAMILIES)
def test_only_accel_leads_anywhere(door: Door, key: Issued, family: str) -> None:
    """No client can have an answer lead nginx, and no other family's answer does."""
    said = [("X-Accel-Redirect", "/admin"), ("X-Accel-Location", "@admin"), *bearer(key).items()]

    reply = ask(door, family, said)

    assert reply.all("x-accel-redirect") == (["@upstream"] if family == "accel" else [])


METHOD, URI, URL = "X-Original-Method", "X-Original-URI", "X-Original-URL"


@pytest.mark.parametrize(
    "said",
    [
        [],
        [(METHOD, "GET")],
        [(URI, "/things/1")],
        [(METHOD, "GET"), (URI, "")],
        [(METHOD, ""), (URI, "/things/1")],
        [(METHOD, "GET"), (METHOD, "GET"), (URI, "/things/1")],
        [(METHOD, "GET"), (URI, "/things/1"), (URI, "/things/1")],
        [(METHOD, "GET"), (URI, "/things/1"), (URL, "https://api.example/things/2")],
        [(METHOD, "GET"), (URL, "https://api.example/things/1"), (URL, "https://api.example/things/2")],
        [(METHOD, "GET"), (URL, "https://api.example")],
        [(METHOD, "GET"), (URL, "https://api.example?/things/1")],
        [(METHOD, "GET"), (URL, "https://evil#/things/1")],
        [(METHOD, "GET"), (URL, "https://a@evil/things/1")],
        [(METHOD, "GET"), (URL, "/things/1")],
        [(METHOD, "GET POST"), (URI, "/things/1")],
        [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/things/1")],
        [("X_Original_Method", "GET"), ("X_Original_URI", "/things/1")],
    ],
)
@pytest.mark.parametrize("family", ["nginx", "accel"])
def test_a_misconfigured_gateway_is_told_so(
    door: Door, key: Issued, family: str, said: list[tuple[str, str]]
) -> None:
    """Where the family's headers are missing, doubled, unreadable or at odds it is never allow, even with a right key."""
    reply = as_shown(door.get(f"/authz/{family}/shop", [*said, *bearer(key).items()]))

    assert (reply.status, reply.code) == (400, "gateway_misconfigured")


@pytest.mark.parametrize(
    "url", ["https://api.example/things/1?a=b", "http://[::1]:8080/things/1", "http://a_b/things/1"]
)
def test_the_address_may_be_said_whole(door: Door, kw: Keywright, url: str) -> None:
    """``X-Original-URL`` says the target behind scheme and host, by itself or beside the same in ``X-Original-URI``."""
    key = make(kw, access="restricted", scopes=["things:read"])
    target = "/" + url.split("/", 3)[3]
    whole = [(METHOD, "GET"), (URL, url), *bearer(key).items()]

    assert door.get("/authz/nginx/shop", whole).status == 200
    assert door.get("/authz/nginx/shop", [*whole, (URI, target)]).status == 200
    elsewhere = [(METHOD, "GET"), (URL, url.replace("things", "people")), *bearer(key).items()]
    assert as_shown(door.get("/authz/nginx/shop", elsewhere)).code == "insufficient_scope"


@pytest.mark.parametrize("family", FAMILIES)
def test_another_familys_headers_change_nothing(door: Door, kw: Keywright, family: str) -> None:
    """What a client sends in the names of another family is not believed: the path says which one is."""
    narrow = make(kw, access="restricted", scopes=["things:read"])
    forged = [
        *([] if family == "forward" else [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/things/1")]),
        *(
            []
            if family in ("nginx", "accel")
            else [(METHOD, "GET"), (URI, "/things/1"), (URL, "http://a/things/1")]
        ),
        ("X-Envoy-Original-Path", "/things/1"),
        ("X-HTTP-Method-Override", "GET"),
        *bearer(narrow).items(),
    ]

    assert as_shown(ask(door, family, forged, method="POST", target="/things")).code == "insufficient_scope"
    assert as_shown(ask(door, family, forged)).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/things/../admin", "/things/./1", "/things/%2e%2e/admin", "/things%2f1", "/things\\1", "/things/%00",
        "/things/%ff", "/things/%252e", "/things/1;v=2", "/../forward/shop", "/%2e%2e/%2e%2e/v1/keys", "/..",
    ],
)  # fmt: skip
@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.security("T-09")
def test_a_path_with_two_readings_is_refused(door: Door, key: Issued, family: str, target: str) -> None:
    """The target is read raw in every family: what upstreams read differently is refused, whatever it would lead to."""
    assert as_shown(ask(door, family, bearer(key), target=target)).code == "ambiguous_path"


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("gate", ["nothing", "every.nowhere", "SHOP", "sho%70", "shop%2Fx", ""])
def test_unknown_gates_are_404(door: Door, key: Issued, family: str, gate: str) -> None:
    """A name that is no gate answers 404 in every family."""
    reply = ask(door, family, bearer(key), gate=gate)

    assert (reply.status, reply.code) == (404, "not_found")


@pytest.mark.parametrize(
    "path", ["/authz/", "/authz/nginx", "/authz/other/shop", "/authz//shop", "/authz/Nginx/shop"]
)
def test_what_is_no_family_is_no_door(door: Door, key: Issued, path: str) -> None:
    """A family that there is not answers 404."""
    assert door.get(path, [(METHOD, "GET"), (URI, "/things/1"), *bearer(key).items()]).status == 404


@pytest.mark.security("T-64")
def test_envoy_asks_as_it_was_asked(door: Door, key: Issued) -> None:
    """Method and target are those of the question itself, whatever the method; without a target it is misconfigured."""
    for method in ("GET", "HEAD", "POST", "PROPFIND", "QUERY", "OPTIONS"):
        assert ask(door, "envoy", bearer(key), method=method, target="/things/1?x=/../y").status == 200
        assert ask(door, "envoy", method=method).status == 401
    assert ask(door, "envoy", bearer(key), target="").code == "gateway_misconfigured"
    assert ask(door, "envoy", bearer(key), target="/things/1?authorization=x").code == "ambiguous"


def test_a_decoded_path_is_not_decided_on(door: Door, key: Issued) -> None:
    """Behind a server that hands on no raw path Envoy's target cannot be known, and is refused."""
    reply = door.get("/authz/envoy/shop/things%2f1", bearer(key), raw_path=False)

    assert (reply.status, reply.code) == (400, "gateway_misconfigured")


def test_envoy_is_told_to_hide_what_the_key_came_in(door: Door, kw: Keywright, key: Issued) -> None:
    """For each scheme the headers of the credential are named, and no other that the request has."""
    keyspace = kw.installation.keys.keyspace_of(key.key)
    hidden = {}
    for way in presentations(keyspace, key.credential, "globex", "http://localhost"):
        reply = ask(door, "envoy", [*way.headers.items(), ("X-Other", "stays"), ("Cookie", "a=b")])
        assert reply.status == 200
        hidden[frozenset(name.lower() for name in way.headers)] = reply.get("x-envoy-auth-headers-to-remove")

    assert len(hidden) == 6
    assert all(names == frozenset(str(said).split(",")) for names, said in hidden.items())


def test_a_hosts_own_authorization_is_not_hidden(door: Door, kw: Keywright) -> None:
    """Beside an ``Api-Key`` an ``Authorization`` of a kind that the keyspace does not read goes on to the upstream."""
    key = make(kw, keyspace="atfinity")
    headers = {"Authorization": "Digest x", "Api-Key": key.credential.token.reveal()}

    reply = ask(door, "envoy", headers, gate="atfinity.production")

    assert (reply.status, reply.get("x-envoy-auth-headers-to-remove")) == (200, "api-key")


@pytest.mark.parametrize("family", FAMILIES)
def test_head_has_no_body(door: Door, family: str) -> None:
    """A refusal to HEAD has the headers of one to GET and no body; nginx's whole answer too."""
    asking = held_back(family, "every.production", "GET", "/things/1")
    get, head = door.send(*asking), door.send("HEAD", *asking[1:])

    assert (head.status, head.body) == (get.status, b"")
    assert get.body
    assert [name for name, _ in head.headers] == [name for name, _ in get.headers]
    assert as_shown(head).status == 401


@pytest.mark.parametrize("family", OTHERS)
def test_a_refusal_names_nobody(door: Door, kw: Keywright, family: str) -> None:
    """A refused request gets no identity, in no family."""
    disabled = make(kw)
    kw.keys.disable(disabled.key.id)

    reply = ask(door, family, [("X-Keywright-Account", "globex"), *bearer(disabled).items()])

    assert as_shown(reply).code == "disabled"
    assert not any(name.startswith(b"x-keywright") for name, _ in reply.headers)


def test_nginx_is_told_of_trouble(kw: Keywright, key: Issued) -> None:
    """What is refused before any door, plain HTTP where https is meant, reaches nginx's client whole as well."""
    with Door(server(kw, public_url="https://keys.example")) as door:
        reply = ask(door, "nginx", bearer(key))

    assert (reply.status, as_shown(reply).status, as_shown(reply).code) == (403, 403, "https_required")


def test_a_target_with_a_fragment_is_refused(kw: Keywright, key: Issued) -> None:
    """What the server's URL parser would cut off is refused: the path that is decided on is the one that was sent."""
    with served(server(kw)) as port:
        for target in (
            "/authz/envoy/shop/things/1#/../../admin",
            "/authz/envoy/shop/things?a#b",
            "/v1/verify?a#b",
            "/livez#x",
        ):
            found = exchange(port, request("GET", target, pairs(bearer(key)), close=False))
            assert statuses(found) == [400]
