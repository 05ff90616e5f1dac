"""``POST /v1/verify`` and its batch: what may be asked, by whom, and what a host is told."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from surfaces import Door, Reply, manager, server, token


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


@pytest.fixture
def caller(kw: Keywright) -> dict[str, str]:
    """A host that may verify anywhere."""
    return manager(kw, "verify")


def question(issued: Issued, **over: Any) -> dict[str, Any]:
    """What a host asks about a key of ``every``."""
    return {"keyspace": "every", "environment": "production", "token": token(issued), "method": "POST"} | over


def verify(door: Door, caller: dict[str, str], document: Any) -> Reply:
    """Ask."""
    return door.json("POST", "/v1/verify", document, caller)


def refused(reply: Reply, status: int, code: str) -> None:
    """An error of the API is problem+json, uncacheable, with code and request id."""
    assert (reply.status, reply.code) == (status, code), reply.body
    assert reply.get("content-type") == "application/problem+json"
    assert reply.get("cache-control") == "no-store"
    assert reply.json["status"] == status
    assert reply.json["request_id"].startswith("req_")


# ------------------------------------------------------------------------------------------------------- the contract


@pytest.mark.security("H-08")
def test_a_valid_key(door: Door, kw: Keywright, caller: dict[str, str]) -> None:
    """The answer about a valid key has exactly the members of the contract, with key, account and limits."""
    key = make(kw, limits=["10/day"], team="sales", metadata={"crm": {"id": 7}})

    reply = verify(door, caller, question(key, cost=3))

    assert (reply.status, reply.get("cache-control")) == (200, "no-store")
    said = reply.json
    assert list(said) == [
        "valid", "code", "reason", "status", "headers", "body", "key", "account", "limits", "stale", "request_id",
    ]  # fmt: skip
    assert (said["valid"], said["code"], said["status"], said["body"], said["stale"]) == (
        True,
        "ok",
        200,
        "",
        False,
    )
    assert said["key"] == {
        "id": key.key.id,
        "name": "CRM sync",
        "environment": "production",
        "access": "all",
        "scopes": [],
        "team": "sales",
        "application": None,
        "expires_at": None,
        "metadata": {"crm": {"id": 7}},
    }
    assert (said["account"]["username"], said["account"]["state"]) == ("globex", "active")
    assert said["limits"] == [
        {
            "name": "quota-day",
            "kind": "quota",
            "limit": 10,
            "per": "day",
            "remaining": 7,
            "reset_seconds": 43170,
        }
    ]
    assert said["headers"]["RateLimit"] == '"quota-day";r=7;t=43170'


def test_a_refusal_can_be_passed_on_verbatim(door: Door, kw: Keywright, caller: dict[str, str]) -> None:
    """``status``, ``headers`` and ``body`` are a whole answer: forward-auth gives the client the same."""
    key = make(kw)
    kw.keys.disable(key.key.id)

    said = verify(door, caller, question(key)).json
    proxied = door.get(
        "/authz/forward/every.production",
        bearer(key) | {"X-Forwarded-Method": "POST", "X-Forwarded-Uri": "/"},
    )

    assert (said["valid"], said["code"], said["reason"]) == (False, "disabled", "disabled")
    assert said["status"] == proxied.status
    assert {name.lower(): value for name, value in said["headers"].items()} == {
        name.decode(): value.decode() for name, value in proxied.headers if name != b"content-length"
    }
    body, other = json.loads(said["body"]), proxied.json
    assert body["request_id"] == said["request_id"]
    assert {**body, "request_id": "", "instance": ""} == {**other, "request_id": "", "instance": ""}
    assert said["key"]["id"] == key.key.id  # it was proven, so the host may know


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"), "checksum"),
        (lambda t: t[:-1], "malformed"),
        (lambda _: "", "no_carrier"),
        (lambda t: f"{t},{t}", "two_credentials"),
        (lambda _: "ключ", "malformed"),
        (lambda t: t * 20, "malformed"),
    ],
)
def test_the_host_learns_the_reason_and_nothing_of_the_key(
    door: Door, key: Issued, caller: dict[str, str], spoil: Any, reason: str
) -> None:
    """What is not proven names no key and no account; what exactly was wrong is told to the host only."""
    said = verify(door, caller, question(key, token=spoil(token(key)))).json

    assert (said["valid"], said["reason"], said["key"], said["account"]) == (False, reason, None, None)
    assert said["status"] == 401
    assert reason not in said["body"]


@pytest.mark.parametrize("reason", ["deleted", "wrong_keyspace", "wrong_user"])
def test_proven_but_not_told_to_the_client(
    door: Door, kw: Keywright, caller: dict[str, str], reason: str
) -> None:
    """A deleted key, one of another keyspace, and one beside a foreign username are ``invalid``, with the reason apart."""
    key = make(kw, **({"keyspace": "default"} if reason == "wrong_keyspace" else {}))
    asked = question(key)
    if reason == "deleted":
        kw.keys.delete(key.key.id)
    if reason == "wrong_user":
        del asked["token"]
        asked["headers"] = {"x-api-key": token(key), "x-api-user": "initech"}

    said = verify(door, caller, asked).json

    assert (said["code"], said["reason"], said["key"], said["account"]) == ("invalid", reason, None, None)


@pytest.mark.parametrize("shape", ["list", "object", "two cases", "twice", "unknown names"])
def test_headers_as_a_list_or_an_object(door: Door, key: Issued, caller: dict[str, str], shape: str) -> None:
    """Headers are pairs or an object; a carrier that stands twice, in any case, is ambiguous and never first wins."""
    value = bearer(key)["Authorization"]
    headers: Any = {
        "list": [["Authorization", value]],
        "object": {"AUTHORIZATION": value},
        "two cases": {"Authorization": value, "authorization": value},
        "twice": [["Authorization", value], ["Authorization", value]],
        "unknown names": [
            ["Authorization", value],
            ["", ""],
            ["Ключ", "значение"],
            ["x y", "\r\n"],
            ["method", "a"],
        ],
    }[shape]
    asked = question(key, headers=headers)
    del asked["token"]

    said = verify(door, caller, asked).json

    assert said["code"] == ("ambiguous" if shape in ("two cases", "twice") else "ok")


@pytest.mark.parametrize(
    "url", ["/a?x-token=1", "https://h/a?apikey=1", "/{}", "/a?b={}", "/a#{}", "//u:{}@h/"]
)
def test_a_credential_in_the_url(door: Door, key: Issued, caller: dict[str, str], url: str) -> None:
    """A ``url`` that holds a credential, in any place, makes the request ambiguous beside a right key, in each form."""
    held = key.credential
    assert held.secret is not None
    asked = question(key, url=url.format(token(key)))
    del asked["token"]
    for form in (
        {"token": token(key)},
        {"id": held.id, "secret": held.secret.reveal()},
        {"headers": bearer(key)},
        {"headers": {}},
    ):
        said = verify(door, caller, asked | form).json

        assert (said["code"], said["reason"], said["key"]) == ("ambiguous", "in_url", None)


@pytest.mark.parametrize(
    ("ip", "code"),
    [
        ("203.0.113.9", "ok"),
        ("::ffff:203.0.113.9", "ok"),
        ("203.0.113.9:443", "ok"),
        ("2001:db8::1", "ok"),
        ("2001:DB8:0:0::1", "ok"),
        ("[2001:db8::1]:443", "ok"),
        ("203.0.114.9", "ip_not_allowed"),
        ("2001:db9::1", "ip_not_allowed"),
        ("203.0.113.009", "ip_not_allowed"),
        ("0xcb.0.113.9", "ip_not_allowed"),
        ("203.0.113.9, 10.0.0.1", "ip_not_allowed"),
        ("localhost", "ip_not_allowed"),
        ("", "ip_not_allowed"),
        (None, "ip_not_allowed"),
    ],
)
@pytest.mark.security("T-36")
def test_allowed_addresses(
    door: Door, kw: Keywright, caller: dict[str, str], ip: str | None, code: str
) -> None:
    """An allow-list compares addresses, not texts; an unknown or unreadable address is refused."""
    key = make(kw, allowed_ips=["203.0.113.0/24", "2001:db8::/32"])

    assert verify(door, caller, question(key, ip=ip)).json["code"] == code


def test_authenticate_only_asks_for_no_permission(door: Door, kw: Keywright, caller: dict[str, str]) -> None:
    """With ``authenticate_only`` a restricted key passes without a scope; without it, it does not."""
    key = make(kw, access="restricted", scopes=["things:read"])

    assert verify(door, caller, question(key, authenticate_only=True)).json["code"] == "ok"
    assert verify(door, caller, question(key)).json["code"] == "insufficient_scope"


def test_an_unknown_scope_is_held_by_nobody_restricted(
    door: Door, kw: Keywright, caller: dict[str, str]
) -> None:
    """A scope added to the host later, unknown to the keyspace, is refused to restricted and read-only keys."""
    for access, scopes in (("restricted", ["things:read"]), ("read_only", None)):
        key = make(kw, access=access, scopes=scopes)
        asked = question(key, method="GET", scopes=["reports:read"])

        assert verify(door, caller, asked).json["code"] == "insufficient_scope"
    assert verify(door, caller, question(make(kw), scopes=["reports:read"])).json["code"] == "ok"


# --------------------------------------------------------------------------------------------------------- who may ask


@pytest.mark.security("H-01", "K-11", "T-65")
def test_only_management_keys_with_the_scope_may_ask(door: Door, kw: Keywright, key: Issued) -> None:
    """Without a management key it is 401, with one that lacks ``verify`` 403; a customer's key is like an unknown one."""
    for path, document in (("/v1/verify", question(key)), ("/v1/verify/batch", {"items": [question(key)]})):
        missing, customers, unknown, unscoped = (
            door.json("POST", path, document, headers)
            for headers in (
                {},
                bearer(key),
                {"Authorization": "Bearer " + token(key).replace("every_live_k", "every_live_m")},
                manager(kw, "keys:read", "keys:write"),
            )
        )
        assert (missing.code, customers.code, unknown.code) == ("missing", "invalid", "invalid")
        for reply in (missing, customers, unknown):
            refused(reply, 401, reply.code)
            assert len(reply.all("www-authenticate")) == 1
            assert str(reply.get("www-authenticate")).startswith("Bearer realm=")
        assert blind(customers) == blind(unknown)
        refused(unscoped, 403, "insufficient_scope")


@pytest.mark.security("K-11", "T-65")
def test_a_management_key_is_no_customers_key(door: Door, caller: dict[str, str], key: Issued) -> None:
    """At every customer door a management key answers exactly what an unknown key answers."""
    own = caller["Authorization"].removeprefix("Bearer ")
    unknown = "every_live_k00000000000000A_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    for given in (own, unknown):
        assert verify(door, caller, question(key, token=given)).json["code"] == "invalid"
    family = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/things/1"}
    for path in ("/authz/forward/shop", "/authz/forward/every.production", "/k/every.production/whoami"):
        first, second = (door.get(path, family | {"X-Token": given}) for given in (own, unknown))

        assert (first.status, first.code) == (401, "invalid")
        assert blind(first) == blind(second)


def blind(reply: Reply) -> tuple[int, list[tuple[bytes, bytes]], dict[str, Any]]:
    """An answer without its request id."""
    return reply.status, reply.headers, {**reply.json, "request_id": "", "instance": ""}


def test_our_own_keyspace_cannot_be_asked_about(door: Door, caller: dict[str, str], key: Issued) -> None:
    """The reserved keyspace does not exist for whoever verifies."""
    own = caller["Authorization"].removeprefix("Bearer ")

    refused(verify(door, caller, question(key, keyspace="keywright", token=own)), 404, "not_found")


@pytest.mark.requirement("X-15")
@pytest.mark.security("T-17", "T-18")
@pytest.mark.parametrize(
    ("bound", "over", "expected"),
    [
        ({"account": "globex"}, {}, "ok"),
        ({"account": "initech"}, {}, "invalid"),
        ({"keyspace": "every"}, {}, "ok"),
        ({"keyspace": "default"}, {}, 404),
        ({"keyspace": "default"}, {"keyspace": None}, "invalid"),
        ({"keyspace": "every"}, {"keyspace": None}, "ok"),
        ({"keyspace": "every", "environment": "production"}, {"keyspace": None, "environment": None}, "ok"),
        ({"keyspace": "every", "environment": "staging"}, {}, 404),
        ({"keyspace": "every", "environment": "staging"}, {"environment": None}, "wrong_environment"),
    ],
)
def test_a_bound_key_asks_within_its_bounds(
    door: Door, kw: Keywright, key: Issued, bound: dict[str, str], over: dict[str, Any], expected: str | int
) -> None:
    """A management key sees its own account, keyspace and environment; the others do not exist for it."""
    asked = question(key) | over
    reply = verify(door, manager(kw, "verify", **bound), {k: v for k, v in asked.items() if v is not None})

    if isinstance(expected, int):
        refused(reply, expected, "not_found")
    else:
        assert (reply.json["code"], reply.json["key"] is None) == (expected, expected == "invalid")


@pytest.mark.security("T-17")
def test_a_foreign_batch_item_refuses_the_batch(door: Door, kw: Keywright, key: Issued) -> None:
    """One item outside the caller's bounds makes the whole batch 404, and nothing of it is charged."""
    metered = make(kw, limits=["1/day"])
    items = [question(metered), question(key, keyspace="default")]
    bound = manager(kw, "verify", keyspace="every")

    refused(door.json("POST", "/v1/verify/batch", {"items": items}, bound), 404, "not_found")

    assert verify(door, bound, question(metered)).json["limits"][0]["remaining"] == 0


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.security("T-31", "T-48", "T-14")
@pytest.mark.parametrize(
    ("over", "path"),
    [
        ({"surprise": 1}, "surprise"),
        ({"account": "globex"}, "account"),
        ({"cost": -1}, "cost"),
        ({"cost": 10**9 + 1}, "cost"),
        ({"cost": 10**40}, "cost"),
        ({"cost": "1"}, "cost"),
        ({"cost": 1.5}, "cost"),
        ({"cost": True}, "cost"),
        ({"cost": None}, "cost"),
        ({"scopes": "things:read"}, "scopes"),
        ({"scopes": [1]}, "scopes"),
        ({"scopes": [""]}, "scopes"),
        ({"scopes": ["x" * 201]}, "scopes"),
        ({"token": 5}, "token"),
        ({"token": ["a"]}, "token"),
        ({"token": None}, "token"),
        ({"id": "x"}, "token"),
        ({"secret": "x"}, "token"),
        ({"headers": {}}, "token"),
        ({"headers": "Authorization: x"}, "headers"),
        ({"headers": {"a": 1}, "token": None}, "headers"),
        ({"headers": [["a"]], "token": None}, "headers"),
        ({"headers": [["a", "b", "c"]], "token": None}, "headers"),
        ({"headers": [["a", "b"]] * 101, "token": None}, "headers"),
        ({"keyspace": None}, "keyspace"),
        ({"keyspace": 5}, "keyspace"),
        ({"environment": None}, "environment"),
        ({"environment": "nowhere"}, "environment"),
        ({"environment": ""}, "environment"),
        ({"method": 5}, "method"),
        ({"authenticate_only": "yes"}, "authenticate_only"),
        ({"ip": 5}, "ip"),
        ({"url": []}, "url"),
    ],
)
def test_a_question_that_makes_no_sense(
    door: Door, key: Issued, caller: dict[str, str], over: dict[str, Any], path: str
) -> None:
    """Unknown fields, other types and absurd values are 422 with the path of the field at fault."""
    reply = verify(door, caller, question(key) | over)

    refused(reply, 422, "invalid_request")
    named = reply.json["errors"][0]
    assert named["path"].partition("[")[0] == path or f"`{path}`" in named["reason"], reply.body
    assert token(key).encode() not in reply.body


def test_an_unknown_keyspace_is_404(door: Door, key: Issued, caller: dict[str, str]) -> None:
    """A keyspace that does not exist is not found."""
    for name in ("nothing", "EVERY", "every\0", "x" * 10_000):
        refused(verify(door, caller, question(key, keyspace=name)), 404, "not_found")


@pytest.mark.security("T-48")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"nul", 400),
        (b"{}x", 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"keyspace": "\xff"}', 400),
        (b'{"keyspace": "\\ud800"}', 400),
        ('{"keyspace": "x"}'.encode("utf-16"), 400),
        (b'{"cost": NaN}', 400),
        (b"{'keyspace': 1}", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b"[" * 60_000, 422),
        (b'{"headers": ' + b"[" * 60_000, 422),
        (b'{"x": ' + b'{"x": ' * 9_000, 422),
        (b'{"x": ' + b"[" * 1_000 + b"]" * 1_000 + b"}", 422),
        (b'{"cost": ' + b"9" * 60_000 + b"}", 422),
        (b'{"cost": 1e999}', 422),
        (b'{"cost": 1, "cost": 2}', 422),
        (b'{"cost": 1, "c\\u006fst": 2}', 422),
        (b'{"headers": {"a": "1", "a": "2"}}', 422),
    ],
)
def test_a_body_that_is_no_question(door: Door, caller: dict[str, str], body: bytes, status: int) -> None:
    """Broken JSON, bombs of depth or digits, and names that stand twice are refused."""
    refused(verify(door, caller, body), status, "bad_json" if status == 400 else "invalid_request")


@pytest.mark.security("T-48")
def test_a_name_twice_is_refused_and_not_settled(door: Door, key: Issued, caller: dict[str, str]) -> None:
    """Of two tokens under one name neither is looked at; the same text as a value of two fields is no twin."""
    body = json.dumps(question(key))

    refused(verify(door, caller, f'{{"token": "x", {body[1:]}'.encode()), 422, "invalid_request")
    refused(
        door.json("POST", "/v1/verify/batch", f'{{"items": [{{"token": "x", {body[1:]}]}}'.encode(), caller),
        422,
        "invalid_request",
    )
    asked = question(key, url='/"token":"token"', method="method")
    asked["headers"] = {"token": '"a":', "method": "x", "Authorization": f"Bearer {asked.pop('token')}"}
    assert verify(door, caller, asked).json["code"] == "ok"


@pytest.mark.security("H-07", "T-10")
def test_form_comes_first(door: Door, key: Issued, caller: dict[str, str]) -> None:
    """Other methods are 405 with Allow, other media types 415, bodies over 64 KiB 413; a megabyte for a batch."""
    body = json.dumps(question(key)).encode()
    for path in ("/v1/verify", "/v1/verify/batch"):
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
            reply = door.send(method, path, caller)
            assert (reply.status, reply.get("allow")) == (405, "POST")
        for types in (
            [],
            [("Content-Type", "text/plain")],
            [("Content-Type", "application/x-www-form-urlencoded")],
            [("Content-Type", "application/jsonp")],
            [("Content-Type", "application/json"), ("Content-Type", "application/json")],
            [("Content-Type", "")],
        ):
            refused(door.send("POST", path, [*caller.items(), *types], body), 415, "unsupported_media_type")
        for limit in ((64 * 1024) if path == "/v1/verify" else 1024 * 1024,):
            refused(door.json("POST", path, b" " * (limit + 1), caller), 413, "too_large")
            refused(door.json("POST", path, b" " * limit, caller), 400, "bad_json")
    charset = [("Content-Type", "Application/JSON; charset=utf-8"), *caller.items()]
    assert door.send("POST", "/v1/verify", charset, body).json["valid"] is True


def test_a_body_that_is_cut_off_is_not_a_question(door: Door, kw: Keywright, caller: dict[str, str]) -> None:
    """Where the client goes away before its body has ended, nothing is verified and nothing charged."""
    key = make(kw, limits=["1/day"])

    assert verify_cut(door, caller, json.dumps(question(key)).encode()).status == 0

    assert verify(door, caller, question(key)).json["limits"][0]["remaining"] == 0


def verify_cut(door: Door, caller: dict[str, str], body: bytes) -> Reply:
    """Ask, and go away where more of the body should come."""
    return door.json("POST", "/v1/verify", body, caller, cut=True)


# ---------------------------------------------------------------------------------------------------------- the batch


def test_a_batch_answers_in_order(door: Door, kw: Keywright, caller: dict[str, str]) -> None:
    """A batch gives each item the answer that it would get by itself, in order, up to a hundred."""
    keys = [make(kw) for _ in range(3)]
    kw.keys.invalidate(keys[1].key.id)
    items = [question(keys[n % 3]) for n in range(99)] + [question(keys[0], token="x")]

    reply = door.json("POST", "/v1/verify/batch", {"items": items}, caller)

    found = reply.json["items"]
    assert [item["code"] for item in found] == ["ok", "invalidated", "ok"] * 33 + ["invalid"]
    assert [item["key"] and item["key"]["id"] for item in found][:3] == [key.key.id for key in keys]
    assert len({item["request_id"] for item in found}) == 100


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"items": {}},
        {"items": [1]},
        {"items": [None]},
        {"items": [], "more": 1},
        {"items": [{"x": 1}]},
        [],
    ],
)
def test_a_batch_of_the_wrong_shape(door: Door, caller: dict[str, str], document: Any) -> None:
    """A batch is an object with a list of questions, and nothing else."""
    refused(door.json("POST", "/v1/verify/batch", document, caller), 422, "invalid_request")


def test_a_batch_is_checked_before_it_is_answered(door: Door, kw: Keywright, caller: dict[str, str]) -> None:
    """Too many items, or one that makes no sense, refuse the whole, naming the item; nothing is charged."""
    key = make(kw, limits=["1/day"])
    many = door.json("POST", "/v1/verify/batch", {"items": [question(key)] * 101}, caller)
    wrong = door.json("POST", "/v1/verify/batch", {"items": [question(key), question(key, cost=-1)]}, caller)

    refused(many, 422, "invalid_request")
    refused(wrong, 422, "invalid_request")
    assert wrong.json["errors"][0]["path"] == "items[1].cost"
    assert door.json("POST", "/v1/verify/batch", {"items": []}, caller).json == {"items": []}
    assert verify(door, caller, question(key)).json["limits"][0]["remaining"] == 0


@pytest.mark.parametrize(
    ("named", "status", "path"),
    [
        ({"keyspace": "nope"}, 404, None),
        ({"environment": "nope"}, 422, "items[2].environment"),
        ({"environment": None}, 422, "items[2].environment"),
    ],
)
def test_a_batch_that_names_what_is_not_there_charges_nothing(
    door: Door, kw: Keywright, caller: dict[str, str], named: dict[str, Any], status: int, path: str | None
) -> None:
    """One item that names no keyspace, or none of its environments, refuses the batch before a unit of it is taken."""
    key = make(kw, limits=["credits:2"])
    items = [question(key), question(key), question(key, **named), question(key, **named)]
    for _ in range(2):
        reply = door.json("POST", "/v1/verify/batch", {"items": items}, caller)

        assert reply.status == status
        assert [wrong["path"] for wrong in reply.json.get("errors", [])] == ([path] if path else [])
    assert verify(door, caller, question(key)).json["limits"][0]["remaining"] == 1


# ------------------------------------------------------------------------------------------------------------ browsers


def test_a_cookie_changes_nothing(door: Door, key: Issued, caller: dict[str, str]) -> None:
    """A request with any cookie gets the answer that it gets without, and a cookie opens nothing."""
    cookie = {"Cookie": f"session=1; Authorization={caller['Authorization']}; csrf=x"}

    assert verify(door, caller | cookie, question(key)).json["code"] == "ok"
    refused(verify(door, cookie, question(key)), 401, "missing")


@pytest.mark.requirement("P-28")
def test_browsers_are_not_invited(door: Door, key: Issued, caller: dict[str, str]) -> None:
    """No answer of any door has a CORS header, to a preflight neither."""
    origin = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "x-token",
    }
    for method in ("OPTIONS", "GET", "POST"):
        for path in (
            "/v1/verify", "/v1/keys", "/authz/forward/shop", "/k/every.production/whoami", "/v1/whoami",
            "/k/partna.staging/v4/user/api-keys", "/livez", "/readyz",
            "/openapi.json", "/nothing",
        ):  # fmt: skip
            for headers in (origin, origin | caller, origin | {"X-Token": token(key)}):
                reply = door.send(method, path, headers)
                assert not any(name.lower().startswith(b"access-control") for name, _ in reply.headers)
