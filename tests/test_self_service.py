"""Self-service: what a customer's key may ask about the keys of its account, in Partna's words and in ours."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conftest import EVERY, bearer, make
from keywright import Issued, Keywright, profiles
from keywright.desk.once import read as read_once
from keywright.errors import ProfileError
from keywright.testing import Clock
from surfaces import Door, Reply, manager, server, token

STAGING = "/k/partna.staging"
LETTERS = {"GetOnly": "G", "Master": "M", "NoWithdrawal": "N", "Withdrawal": "W"}
CREATE = "POST /v4/user/api-key"
ADDRESSES = {
    CREATE: ("POST /user/api-key", "POST /v4/user/apikey", "POST /user/apikey"),
    "GET /v4/user/api-keys": ("GET /user/api-keys", "GET /v4/user/apikeys", "GET /user/apikeys"),
    "GET /v4/user/api-key/scopes": (
        "GET /user/api-key/scopes", "GET /v4/user/apikey-scope", "GET /user/apikey-scope",
    ),
    "POST /v4/user/api-key/invalidate": ("POST /user/api-key/invalidate",),
    "DELETE /v4/user/api-key": ("DELETE /user/api-key", "DELETE /v4/user/apikey", "DELETE /user/apikey"),
}  # fmt: skip


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


@pytest.fixture
def master(kw: Keywright) -> Issued:
    """A key of globex in partna, staging, that may do all."""
    return partna(kw)


def partna(kw: Keywright, **over: object) -> Issued:
    """Make a key of globex in partna, staging."""
    return make(kw, **({"keyspace": "partna", "environment": "staging"} | over))


def pair(issued: Issued | str, username: str = "globex") -> dict[str, str]:
    """The two headers of Partna's scheme."""
    return {"x-api-key": issued if isinstance(issued, str) else token(issued), "x-api-user": username}


def alone(name: str, self_service: str, *, letters: str = "") -> str:
    """A definition like that of ``every``, under another name and without its gates, with this much self-service."""
    own = f'title = "Own"\nself_service = "{self_service}"'
    source = EVERY.partition("[gates.shop]")[0].replace('name = "every"', f'name = "{name}"')
    return source.replace('title = "Every"', own) + (f"\n[letters]\n{letters}\n" if letters else "")


def ask(door: Door, route: str, headers: dict[str, str], document: Any = None, *, at: str = STAGING) -> Reply:
    """Send a request under a keyspace's address."""
    method, _, path = route.partition(" ")
    if document is None:
        return door.send(method, at + path, headers)
    return door.json(method, at + path, document, headers)


def created(reply: Reply) -> str:
    """The token in the answer to a creation."""
    assert reply.status == 200, reply.body
    assert set(reply.json) == {"data", "message"}
    assert list(reply.json["data"]) == ["apikey"]
    return str(reply.json["data"]["apikey"])


def id_of(value: str) -> str:
    """The public id in a token."""
    return value.rpartition("_")[0]


def named(item: dict[str, Any]) -> str:
    """The id of an item of the list."""
    return str(item["Apikey"])


def listed(door: Door, headers: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The list, by id."""
    reply = ask(door, "GET /v4/user/api-keys", headers)
    assert reply.status == 200, reply.body
    return {item["Apikey"]: item for item in reply.json["data"]["Apikeys"]}


def whoami(door: Door, value: str, *, at: str = STAGING) -> Reply:
    """Ask who a token is."""
    return door.get(f"{at}/whoami", pair(value))


# ------------------------------------------------------------------------------------------------------------ creating


@pytest.mark.requirement("P-14", "P-17", "P-29")
def test_a_key_makes_a_key(door: Door, kw: Keywright, master: Issued) -> None:
    """With only a key, another is made; its value is in that answer, works, and is never seen again."""
    reply = ask(door, CREATE, pair(master), {"keyname": "Second", "scope": "M"})
    value = created(reply)

    assert reply.json["message"] == "success"
    assert reply.get("cache-control") == "no-store"
    assert whoami(door, value).json["key"]["name"] == "Second"
    made = kw.keys.get(id_of(value))
    assert (made.account, made.environment, made.access, made.parent) == (
        "globex", "staging", "all", master.key.id,
    )  # fmt: skip
    assert made.created_by == f"key:{master.key.id}"
    for route in ("GET /v4/user/api-keys", "GET /v4/user/api-key/scopes"):
        assert value.rpartition("_")[2].encode() not in ask(door, route, pair(master)).body


@pytest.mark.requirement("B-12")
@pytest.mark.parametrize(
    ("letter", "access", "scopes"),
    [
        ("G", "read_only", []),
        ("M", "all", []),
        ("N", "restricted", ["account:read", "account:write", "keys:read", "keys:write"]),
        ("W", "restricted", ["withdrawals:write"]),
    ],
)
def test_a_letter_is_fixed_when_the_key_is_made(
    door: Door, kw: Keywright, master: Issued, letter: str, access: str, scopes: list[str]
) -> None:
    """Each letter gives its access and scopes, and a scope that the keyspace gets later is in no list."""
    made = kw.keys.get(id_of(created(ask(door, CREATE, pair(master), {"keyname": "Made", "scope": letter}))))
    assert (made.access, sorted(made.scopes)) == (access, scopes)

    later = '"account:close" = { title = "Close the account" }\n"withdrawals:write"'
    kw.keyspaces.apply(profiles.source("partna").replace('"withdrawals:write"', later))
    assert sorted(kw.keys.get(made.id).scopes) == scopes


@pytest.mark.requirement("B-12", "P-29")
def test_what_each_letter_may_do(door: Door, kw: Keywright, master: Issued) -> None:
    """Four keys of one account, one for each letter, pass exactly what their letter says."""
    values = {
        letter: created(ask(door, CREATE, pair(master), {"keyname": letter, "scope": letter}))
        for letter in "GMNW"
    }
    place = {"keyspace": "partna", "environment": "staging"}
    may = {
        scope: "".join(
            letter
            for letter, value in values.items()
            if kw.verify(pair(value), **place, scopes=[scope]).code == "ok"
        )
        for scope in ("account:read", "account:write", "withdrawals:write", "keys:read", "keys:write")
    }

    assert may == {
        "account:read": "GMN",
        "account:write": "MN",
        "withdrawals:write": "MW",
        "keys:read": "GMN",
        "keys:write": "MN",
    }


@pytest.mark.requirement("X-20")
@pytest.mark.parametrize(
    ("more", "end"),
    [
        ({}, None),
        ({"expirationInDays": 0, "expirationInMonths": 0, "otp": "123456"}, None),
        ({"expirationInDays": 30}, "2027-02-14T12:00:30Z"),
        ({"expirationInMonths": 1}, "2027-02-15T12:00:30Z"),
        ({"expirationInMonths": 14, "expirationInDays": 1}, "2028-03-16T12:00:30Z"),
    ],
)
def test_an_expiry_in_days_and_months(
    door: Door, master: Issued, more: dict[str, Any], end: str | None
) -> None:
    """Calendar months, then days, from now; the list says the end in seconds."""
    value = created(ask(door, CREATE, pair(master), {"keyname": "Ends", "scope": "G"} | more))
    item = listed(door, pair(master))[id_of(value)]

    assert whoami(door, value).json["key"]["expires_at"] == end
    assert item["Expirable"] is (end is not None)
    assert (item["Expiration"] is None) is (end is None)


@pytest.mark.requirement("X-20")
def test_a_month_ends_with_its_last_day(door: Door, master: Issued, clock: Clock) -> None:
    """A month after the 31st of January is the 28th of February, and the key ends then."""
    clock.advance(days=16)
    value = created(ask(door, CREATE, pair(master), {"keyname": "E", "scope": "G", "expirationInMonths": 1}))

    assert whoami(door, value).json["key"]["expires_at"] == "2027-02-28T12:00:30Z"
    clock.advance(days=28)
    assert whoami(door, value).code == "expired"
    item = listed(door, pair(master))[id_of(value)]
    assert (item["DeletedAt"], item["Expiration"]) == ("2027-02-28T12:00:30Z", 1_803_816_030)


@pytest.mark.requirement("G-18", "X-11")
@pytest.mark.security("T-43", "H-07")
@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"scope": "M"}, "keyname"),
        ({"keyname": "x"}, "scope"),
        ({"keyname": "", "scope": "M"}, "keyname"),
        ({"keyname": "x\u0000", "scope": "M"}, "keyname"),
        ({"keyname": "x", "scope": "Z"}, "scope"),
        ({"keyname": "x", "scope": "m"}, "scope"),
        ({"keyname": "x", "scope": "MG"}, "scope"),
        ({"keyname": "x", "scope": ["M"]}, "scope"),
        ({"keyname": "x", "scope": "M", "expirationInDays": -1}, "expirationInDays"),
        ({"keyname": "x", "scope": "M", "expirationInDays": "30"}, "expirationInDays"),
        ({"keyname": "x", "scope": "M", "expirationInDays": 10**9}, "expirationInDays"),
        ({"keyname": "x", "scope": "M", "expirationInMonths": 1201}, "expirationInMonths"),
        ({"keyname": "x", "scope": "M", "otp": 123456}, "otp"),
        ({"keyname": "x", "scope": "M", "apikey": ""}, "apikey"),
        *(
            ({"keyname": "x", "scope": "M", field: "x"}, field)
            for field in (
                "secret",
                "account",
                "Username",
                "id",
                "mac",
                "created_at",
                "role",
                "access",
                "parent",
            )
        ),
    ],
)
def test_a_bad_creation_is_refused(
    door: Door, kw: Keywright, master: Issued, document: dict[str, Any], path: str
) -> None:
    """What no field takes, and every field that is none, a secret of one's own choice too, is 422; nothing is made."""
    reply = ask(door, CREATE, pair(master), document)

    assert (reply.status, reply.code) == (422, "invalid_request")
    assert reply.get("content-type") == "application/json"
    assert set(reply.json) == {"message", "data"}
    said = reply.json["data"]["errors"][0]
    assert path in (said["path"] or said["reason"]) or f"`{path}`" in said["reason"]
    assert len(kw.keys.list(keyspace="partna").items) == 1


@pytest.mark.security("H-07", "T-48")
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"keyname":"a","keyname":"b","scope":"M"}', "application/json", 422),
        (b'{"keyname":"a","scope":"M"}', "text/plain", 415),
        (b'{"keyname":"' + b"a" * 70_000 + b'"}', "application/json", 413),
        (b'{"keyname":' + b"[" * 60_000, "application/json", 422),
    ],
)
def test_a_bad_body_is_refused(
    door: Door, kw: Keywright, master: Issued, body: bytes, kind: str, status: int
) -> None:
    """What is not one JSON object, once and small, makes nothing."""
    headers = {**pair(master), "content-type": kind}

    assert door.send("POST", f"{STAGING}/v4/user/api-key", headers, body).status == status
    assert door.send("POST", f"{STAGING}/v4/user/api-key", headers, body, cut=True).status in (0, 413)
    assert len(kw.keys.list(keyspace="partna").items) == 1


# ------------------------------------------------------------------------------------------------- who may do what


@pytest.mark.requirement("P-24", "F-01")
@pytest.mark.security("H-01")
@pytest.mark.parametrize("route", ADDRESSES)
def test_nobody_and_the_wrong_ones_are_refused(door: Door, kw: Keywright, master: Issued, route: str) -> None:
    """Without both headers, with another's username, in another environment: 401, and nothing changes."""
    production = partna(kw, environment="production")
    body = _body(route, master)
    for headers, code in (
        ({}, "missing"),
        ({"x-api-key": token(master)}, "missing"),
        ({"x-api-user": "globex"}, "missing"),
        (pair(master, "initech"), "invalid"),
        (pair(token(master)[:-1] + "!"), "invalid"),
        ({"Authorization": f"Bearer {token(master)}"}, "missing"),
        (manager(kw), "missing"),
        (pair(production), "wrong_environment"),
    ):
        reply = ask(door, route, headers, body)
        assert (reply.status, reply.code) == (401, code), headers
        assert set(reply.json) == {"message", "data"}
    assert kw.keys.get(master.key.id).state == "active"
    assert len(kw.keys.list(keyspace="partna").items) == 2


@pytest.mark.requirement("P-24")
@pytest.mark.parametrize("route", ADDRESSES)
def test_a_key_that_only_reads_reads(door: Door, kw: Keywright, route: str) -> None:
    """A read-only key lists and sees scopes; creating, invalidating and deleting are 403 and change nothing."""
    reader = partna(kw, access="read_only")

    reply = ask(door, route, pair(reader), _body(route, reader))

    if route.startswith("GET"):
        assert reply.status == 200
    else:
        assert (reply.status, reply.code) == (403, "insufficient_scope")
        assert 'scope="keys:write"' in str(reply.get("www-authenticate"))
    assert [key.state for key in kw.keys.list(keyspace="partna").items] == ["active"]


@pytest.mark.requirement("P-25")
@pytest.mark.security("T-20")
@pytest.mark.parametrize(
    ("held", "granted"),
    [
        ({"access": "all"}, "GMNW"),
        (
            {"access": "restricted", "scopes": ["account:read", "account:write", "keys:read", "keys:write"]},
            "N",
        ),
        ({"access": "restricted", "scopes": ["withdrawals:write", "keys:write"]}, "W"),
        ({"access": "restricted", "scopes": ["keys:write"]}, ""),
    ],
)
def test_a_key_gives_no_more_than_it_has(
    door: Door, kw: Keywright, held: dict[str, Any], granted: str
) -> None:
    """Each letter that exceeds the maker is 403, with and without a key to replace, and nothing is made or deleted."""
    maker, other = partna(kw, **held), partna(kw)
    for letter in "GMNW":
        document = {"keyname": "More", "scope": letter}
        if letter in granted:
            created(ask(door, CREATE, pair(maker), document))
            continue
        for more in ({}, {"apikey": other.key.id}):
            before = len(kw.keys.list(keyspace="partna").items)
            reply = ask(door, CREATE, pair(maker), document | more)
            assert (reply.status, reply.code) == (403, "exceeds_grantor")
            assert len(kw.keys.list(keyspace="partna").items) == before


@pytest.mark.security("T-20")
def test_a_child_keeps_its_makers_bounds(door: Door, kw: Keywright, clock: Clock) -> None:
    """Limits, networks and expiry of the maker hold for what it makes, and a longer life is refused."""
    end = clock() + 10 * 86_400_000_000
    maker = partna(kw, limits=["100/day"], allowed_ips=["127.0.0.0/8"], expires_at=end)
    document = {"keyname": "Child", "scope": "M"}

    made = kw.keys.get(id_of(created(ask(door, CREATE, pair(maker), document))))

    assert (made.limits, made.allowed_ips, made.expires_at) == (maker.key.limits, ("127.0.0.0/8",), end)
    longer = ask(door, CREATE, pair(maker), document | {"expirationInDays": 11})
    assert (longer.status, longer.code) == (403, "exceeds_grantor")
    created(ask(door, CREATE, pair(maker), document | {"expirationInDays": 9}))


@pytest.mark.requirement("X-15", "F-09")
@pytest.mark.security("T-17")
def test_what_is_anothers_does_not_exist(door: Door, kw: Keywright, master: Issued) -> None:
    """Keys of another account, environment or keyspace are not listed, and are 404 to every verb."""
    strangers = [
        partna(kw, account="initech"),
        partna(kw, environment="production"),
        make(kw),
    ]

    assert set(listed(door, pair(master))) == {master.key.id}
    for stranger in strangers:
        named = {"apikey": stranger.key.id}
        for route, document in (
            ("POST /v4/user/api-key/invalidate", named),
            ("DELETE /v4/user/api-key", named),
            (CREATE, {"keyname": "x", "scope": "M"} | named),
        ):
            reply = ask(door, route, pair(master), document)
            assert (reply.status, reply.code) == (404, "not_found")
        assert ask(door, f"DELETE /v4/user/api-key?apikey={stranger.key.id}", pair(master)).status == 404
        assert kw.keys.get(stranger.key.id).state == "active"
    assert len(kw.keys.list(keyspace="partna").items) == 3


@pytest.mark.requirement("P-35")
def test_an_account_that_is_not_active_manages_nothing(door: Door, kw: Keywright, master: Issued) -> None:
    """While the account is suspended its keys make no keys; afterwards they do."""
    document = {"keyname": "Later", "scope": "M"}
    kw.accounts.suspend("globex")
    assert ask(door, CREATE, pair(master), document).code == "account_suspended"
    kw.accounts.activate("globex")
    created(ask(door, CREATE, pair(master), document))


# ----------------------------------------------------------------------------------------------- lists, scopes, ends


@pytest.mark.requirement("P-05", "P-18", "P-22")
def test_the_list_has_every_key_and_no_secret(door: Door, kw: Keywright, clock: Clock) -> None:
    """The list has exactly six fields of each key, ended ones too, and nothing of a secret."""
    issued = [partna(kw, name=name) for name in ("First", "Second", "Third")]
    clock.advance(seconds=60)
    kw.keys.invalidate(issued[1].key.id)
    kw.keys.delete(issued[2].key.id)

    reply = ask(door, "GET /v4/user/api-keys", pair(issued[0]))

    blank = {"DeletedAt": None, "Expirable": False, "Expiration": None, "Username": "globex"}
    rows = [
        {"Apikey": issued[1].key.id, "Keyname": "Second"} | blank | {"DeletedAt": "2027-01-15T12:01:30Z"},
        {"Apikey": issued[0].key.id, "Keyname": "First"} | blank,
    ]
    assert sorted(reply.json["data"]["Apikeys"], key=named) == sorted(rows, key=named)
    assert set(reply.json["data"]) == {"Apikeys"}
    for one in issued:
        assert token(one)[-38:-6].encode() not in reply.body


@pytest.mark.requirement("P-18", "A-10")
def test_a_long_list_goes_on(door: Door, kw: Keywright, master: Issued) -> None:
    """A list that is too long for one answer says where it goes on, and nothing is lost or twice."""
    made = {partna(kw).key.id for _ in range(4)} | {master.key.id}

    found: list[str] = []
    after = ""
    while True:
        data = ask(door, f"GET /v4/user/api-keys?limit=2{after}", pair(master)).json["data"]
        assert len(data["Apikeys"]) <= 2
        found += [item["Apikey"] for item in data["Apikeys"]]
        if "NextCursor" not in data:
            break
        after = f"&cursor={data['NextCursor']}"

    assert (sorted(found), len(found)) == (sorted(made), 5)
    for wrong in ("cursor=x", "limit=0", "limit=1001", "limit=x", "limit=1&limit=1", "limit=" + "9" * 5000):
        assert ask(door, f"GET /v4/user/api-keys?{wrong}", pair(master)).code == "invalid_request"


@pytest.mark.requirement("P-19")
@pytest.mark.parametrize(
    ("access", "scopes", "letter", "held"),
    [
        ("all", None, "M", ["account:read", "account:write", "withdrawals:write", "keys:read", "keys:write"]),
        ("read_only", None, "G", ["account:read", "keys:read"]),
        ("restricted", ["keys:read", "account:read"], None, ["account:read", "keys:read"]),
    ],
)
def test_scopes_are_those_to_give_and_those_held(
    door: Door, kw: Keywright, access: str, scopes: list[str] | None, letter: str | None, held: list[str]
) -> None:
    """The four letters stand in ``data`` as published, and what the caller's own key holds beside them."""
    reply = ask(door, "GET /v4/user/api-key/scopes", pair(partna(kw, access=access, scopes=scopes)))

    own = {"scope": letter, "access": access, "scopes": held}
    assert reply.json == {"data": LETTERS, "own": own, "message": "success"}


@pytest.mark.requirement("P-16", "P-20", "P-21", "P-22", "P-23")
def test_invalidate_then_delete(door: Door, kw: Keywright, master: Issued) -> None:
    """Invalidated a key is refused and still listed, deleted it is not listed; doing either again is answered."""
    value = created(ask(door, CREATE, pair(master), {"keyname": "Short", "scope": "M"}))
    named = {"apikey": id_of(value)}
    done = {"data": named | {"children": []}, "message": "success"}

    for _ in range(2):
        assert ask(door, "POST /v4/user/api-key/invalidate", pair(master), named).json == done
    assert whoami(door, value).code == "invalidated"
    assert listed(door, pair(master))[id_of(value)]["DeletedAt"] == "2027-01-15T12:00:30Z"

    assert ask(door, "DELETE /v4/user/api-key", pair(master), named).json == done
    assert whoami(door, value).code == "invalid"
    assert id_of(value) not in listed(door, pair(master))
    for route in ("DELETE /v4/user/api-key", "POST /v4/user/api-key/invalidate"):
        assert ask(door, route, pair(master), named).code == "not_found"


@pytest.mark.requirement("P-21")
@pytest.mark.security("T-01")
def test_delete_takes_the_id_from_the_address(door: Door, kw: Keywright, master: Issued) -> None:
    """The id may stand in the query, alone or beside the same in the body; a secret there is refused, unused."""
    first, second, third = (partna(kw) for _ in range(3))
    route = "DELETE /v4/user/api-key"

    refused = ask(door, f"{route}?apikey={token(first)}", pair(master))
    assert (refused.status, refused.code) == (401, "ambiguous")
    for wrong in ("x-api-key=x", f"apikey={first.key.id}&x-api-key=x", "apikey="):
        assert ask(door, f"{route}?{wrong}", pair(master)).status in (401, 422)
    assert ask(door, route, pair(master)).code == "invalid_request"
    assert ask(door, f"{route}?apikey={first.key.id}&apikey={first.key.id}", pair(master)).status == 422
    both = ask(door, f"{route}?apikey={first.key.id}", pair(master), {"apikey": second.key.id})
    assert both.code == "invalid_request"
    assert len(listed(door, pair(master))) == 4

    assert ask(door, f"{route}?apikey={first.key.id}", pair(master)).status == 200
    same = ask(door, f"{route}?apikey={second.key.id}", pair(master), {"apikey": second.key.id})
    assert same.status == 200
    assert set(listed(door, pair(master))) == {master.key.id, third.key.id}


def test_the_id_in_the_address_is_no_carrier(door: Door, kw: Keywright) -> None:
    """Where the parameter has the name of a header of the keyspace's own, an id in it is still an id."""
    kw.keyspaces.apply(alone("lettered", "full", letters='M = { title = "Master", gives = "all" }'))
    caller, old = (make(kw, keyspace="lettered") for _ in range(2))
    at = "/k/lettered.production"

    secret = ask(door, f"DELETE /user/api-key?apikey={token(old)}", bearer(caller), at=at)
    assert secret.code == "ambiguous"
    assert ask(door, f"GET /user/api-keys?apikey={old.key.id}", bearer(caller), at=at).code == "ambiguous"
    assert ask(door, f"DELETE /user/api-key?apikey={old.key.id}", bearer(caller), at=at).status == 200


@pytest.mark.security("T-01")
@pytest.mark.parametrize("route", [CREATE, "POST /v4/user/api-key/invalidate", "DELETE /v4/user/api-key"])
def test_a_secret_in_the_place_of_an_id_is_refused(
    door: Door, kw: Keywright, master: Issued, route: str
) -> None:
    """A whole key where an id belongs is 422, is not repeated in the answer, and nothing is done."""
    other = partna(kw)
    document = {"keyname": "x", "scope": "M"} if route == CREATE else {}

    reply = ask(door, route, pair(master), document | {"apikey": token(other)})

    assert (reply.status, reply.code) == (422, "invalid_request")
    assert token(other)[-38:].encode() not in reply.body
    assert set(listed(door, pair(master))) == {master.key.id, other.key.id}
    assert kw.keys.get(other.key.id).state == "active"


# ------------------------------------------------------------------------------------------------------------ rotating


@pytest.mark.requirement("P-15", "P-31", "P-32")
def test_the_rotation_of_the_page(door: Door, master: Issued) -> None:
    """Create, switch over, invalidate the old one with the new: both work meanwhile, and not one call fails."""
    value = created(ask(door, CREATE, pair(master), {"keyname": "New", "scope": "M"}))
    assert whoami(door, token(master)).status == whoami(door, value).status == 200

    old = {"apikey": master.key.id}
    assert ask(door, "POST /v4/user/api-key/invalidate", pair(value), old).status == 200

    assert whoami(door, token(master)).code == "invalidated"
    assert whoami(door, value).status == 200


@pytest.mark.requirement("P-15")
def test_a_rotation_in_one_call(door: Door, kw: Keywright, master: Issued) -> None:
    """``apikey`` names the key that the new one replaces: one is there and the other is not, or neither happened."""
    old = partna(kw)
    document = {"keyname": "New", "scope": "M", "apikey": old.key.id}

    wrong = ask(door, CREATE, pair(master), document | {"keyname": ""})
    assert (wrong.status, set(listed(door, pair(master)))) == (422, {master.key.id, old.key.id})

    value = created(ask(door, CREATE, pair(master), document))
    assert set(listed(door, pair(master))) == {master.key.id, id_of(value)}
    assert whoami(door, token(old)).code == "invalid"
    assert ask(door, CREATE, pair(master), document).code == "not_found"
    assert len(listed(door, pair(master))) == 2


@pytest.mark.requirement("P-15")
def test_a_key_replaces_itself(door: Door, kw: Keywright, master: Issued) -> None:
    """A key may name itself: the new one has it for its parent, and it is gone."""
    document = {"keyname": "Heir", "scope": "M", "apikey": master.key.id}

    value = created(ask(door, CREATE, pair(master), document))

    assert kw.keys.get(id_of(value)).parent == master.key.id
    assert ask(door, CREATE, pair(master), document).code == "invalid"
    assert whoami(door, value).status == 200


@pytest.mark.requirement("P-15")
def test_of_many_rotations_of_a_key_one_happens(kw: Keywright, master: Issued) -> None:
    """However many replace the same key at once, there is one new key in its place."""
    old = partna(kw)
    document = {"keyname": "New", "scope": "M", "apikey": old.key.id}

    def rotate(_n: int) -> int:
        with Door(server(kw)) as door:
            return ask(door, CREATE, pair(master), document).status

    with ThreadPoolExecutor(8) as pool:
        found = sorted(pool.map(rotate, range(8)))

    assert found == [200] + [404] * 7
    assert len(kw.keys.list(keyspace="partna").items) == 2


# ------------------------------------------------------------------------------------------------ parents and children


def test_a_parents_end_names_its_children(door: Door, kw: Keywright, master: Issued) -> None:
    """Reading, invalidating or deleting a key answers the live keys that it made, on both surfaces, and ends none."""
    made = [
        id_of(created(ask(door, CREATE, pair(master), {"keyname": name, "scope": "G"})))
        for name in ("One", "Two", "Three")
    ]
    kw.keys.invalidate(made[0])
    live = sorted(made[1:])
    caller, path = manager(kw), f"/v1/keys/{master.key.id}"
    other = partna(kw)

    assert sorted(door.get(path, caller).json["children"]) == live
    reply = ask(door, "POST /v4/user/api-key/invalidate", pair(other), {"apikey": master.key.id})
    assert sorted(reply.json["data"]["children"]) == live
    assert sorted(door.send("POST", f"{path}/invalidate", caller).json["children"]) == live
    assert sorted(door.send("DELETE", path, caller).json["children"]) == live
    assert [kw.keys.get(key_id).state for key_id in live] == ["active", "active"]
    assert door.get(f"/v1/keys/{live[0]}", caller).json["children"] == []


def test_a_key_that_was_stopped_meanwhile_makes_nothing(kw: Keywright, master: Issued) -> None:
    """A creation that was allowed, and begins only after its key was stopped or narrowed, is refused."""
    verdict = kw.verify(pair(master), keyspace="partna", environment="staging", authenticate_only=True)
    assert verdict.key is not None
    kw.keys.edit(master.key.id, access="read_only")
    for code in ("conflict", "exceeds_grantor"):
        with pytest.raises(Exception, match="grantor") as refused:
            partna(kw, by=verdict.key)
        assert getattr(refused.value, "code", "") == code
        kw.keys.invalidate(master.key.id)


# -------------------------------------------------------------------------------------------- addresses, use, the rest


def _body(route: str, key: Issued) -> dict[str, Any] | None:
    if route == CREATE:
        return {"keyname": "Made", "scope": "G"}
    return None if route.startswith("GET") else {"apikey": key.key.id}


@pytest.mark.requirement("P-17", "P-18", "P-19", "P-20", "P-21")
@pytest.mark.parametrize("route", ADDRESSES)
def test_every_alias_does_the_same(door: Door, kw: Keywright, master: Issued, route: str) -> None:
    """The published table's addresses and those of the reference pages answer alike, with and without ``/v4``."""
    for alias in (route, *ADDRESSES[route]):
        reply = ask(door, alias, pair(master), _body(route, partna(kw)))
        assert (reply.status, reply.json["message"]) == (200, "success"), alias


def test_other_methods_and_addresses(door: Door, master: Issued) -> None:
    """Another method is 405 with Allow, another address 404, both in the shape of the keyspace."""
    for path, allowed in (
        ("/v4/user/api-key", "DELETE, POST"),
        ("/user/api-keys", "GET, HEAD"),
        ("/v4/user/api-key/invalidate", "POST"),
    ):
        reply = door.send("PUT", STAGING + path, pair(master))
        assert (reply.status, reply.get("allow"), reply.code) == (405, allowed, "method_not_allowed")
        assert set(reply.json) == {"message", "data"}
    for path in (
        "/v4",
        "/v4/user",
        "/v4/user/api-key/",
        "/v4/v4/user/api-keys",
        "/keys",
        "/v3/user/api-keys",
    ):
        assert door.get(STAGING + path, pair(master)).code == "not_found", path
    assert door.send("HEAD", f"{STAGING}/user/api-keys", pair(master)).status == 200


@pytest.mark.requirement("X-13")
def test_management_counts_as_use_and_is_audited(door: Door, kw: Keywright) -> None:
    """Managing keys spends the key's quota and moves its last use; the trail names the key that did it."""
    maker = partna(kw, limits=["2/day"])
    value = created(ask(door, CREATE, pair(maker), {"keyname": "Made", "scope": "M"}))
    assert ask(door, "GET /v4/user/api-keys", pair(maker)).status == 200
    refused = ask(door, "GET /v4/user/api-keys", pair(maker))
    assert (refused.status, refused.code) == (429, "quota_exhausted")
    assert refused.get("retry-after") is not None
    kw.installation.meter.flush()

    assert kw.keys.get(maker.key.id).last_used_at is not None
    assert kw.keys.get(id_of(value)).last_used_at is None
    entry = kw.installation.trail.list(limit=1).items[0]
    assert (entry["action"], entry["actor_kind"], entry["actor_id"]) == ("key.create", "key", maker.key.id)


# ----------------------------------------------------------------------------------------------------- in our own shape


@pytest.fixture
def ours(kw: Keywright) -> str:
    """The address of a keyspace with full self-service in our own shape."""
    kw.keyspaces.apply(alone("ours", "full"))
    return "/k/ours.production"


def test_our_own_shape(door: Door, kw: Keywright, ours: str) -> None:
    """A keyspace without letters offers list, get, create, rotate, invalidate and delete as ``/v1/keys`` has them."""
    key = make(kw, keyspace="ours")
    made = ask(door, "POST /keys", bearer(key), {"name": "Second", "access": "read_only"}, at=ours)
    assert made.status == 201
    new = made.json["key"]
    opened = {"Authorization": f"Bearer {made.json['credential']['token']}"}
    assert (new["parent"], new["account"], new["environment"]) == (key.key.id, "globex", "production")
    assert made.json["presentations"][0]["headers"]

    assert [i["id"] for i in ask(door, "GET /keys?state=active", opened, at=ours).json["items"]] != []
    assert ask(door, f"GET /keys/{new['id']}", opened, at=ours).json["name"] == "Second"
    assert ask(door, f"GET /keys/{key.key.id}", opened, at=ours).json["children"] == [new["id"]]
    for route in ("POST /keys/{}/rotate", "POST /keys/{}/invalidate", "DELETE /keys/{}"):
        refused = ask(door, route.format(new["id"]), opened, at=ours)
        assert (refused.status, refused.code) == (403, "insufficient_scope")
        assert refused.get("content-type") == "application/problem+json"
    rotated = ask(door, f"POST /keys/{new['id']}/rotate", bearer(key), {"grace_seconds": 60}, at=ours)
    assert rotated.json["credential"]["token"] != made.json["credential"]["token"]
    assert (
        ask(door, f"POST /keys/{new['id']}/invalidate", bearer(key), at=ours).json["state"] == "invalidated"
    )
    assert ask(door, f"DELETE /keys/{new['id']}", bearer(key), at=ours).json["state"] == "deleted"
    assert ask(door, f"GET /keys/{new['id']}", bearer(key), at=ours).code == "not_found"
    assert ask(door, "GET /keys?limit=x", bearer(key), at=ours).code == "invalid_request"
    assert ask(door, "GET /user/api-keys", bearer(key), at=ours).code == "not_found"


@pytest.mark.security("T-20", "T-43")
def test_our_own_shape_gives_no_more_either(door: Door, kw: Keywright, ours: str) -> None:
    """Creating or rotating through a key cannot reach beyond it, nor set what only the host decides."""
    held = ["things:read", "keys:read", "keys:write"]
    key = make(kw, keyspace="ours", access="restricted", scopes=held)
    larger = make(kw, keyspace="ours")
    name = {"name": "More"}
    for document in (
        {"access": "all"},
        {"access": "read_only"},
        {"access": "restricted", "scopes": ["things:read", "things:write"]},
    ):
        assert ask(door, "POST /keys", bearer(key), name | document, at=ours).code == "exceeds_grantor"
    for field in ("plan", "metadata", "account", "keyspace", "environment", "parent", "id", "secret"):
        refused = ask(door, "POST /keys", bearer(key), name | {"access": "all", field: "x"}, at=ours)
        assert refused.code == "invalid_request"

    assert ask(door, f"POST /keys/{larger.key.id}/rotate", bearer(key), at=ours).code == "exceeds_grantor"
    assert ask(door, f"POST /keys/{key.key.id}/rotate", bearer(key), at=ours).status == 200
    allowed = {"access": "restricted", "scopes": ["things:read"], "expires_at": "2027-02-01T00:00:00Z"}
    assert ask(door, "POST /keys", bearer(larger), name | allowed, at=ours).status == 201


@pytest.mark.parametrize(("setting", "reads"), [("read", 200), ("off", 404)])
def test_the_profile_says_how_much_there_is(door: Door, kw: Keywright, setting: str, reads: int) -> None:
    """With ``read`` the keys can be read and nothing changed; with ``off`` there is ``whoami`` and nothing else."""
    kw.keyspaces.apply(alone("some", setting))
    key = make(kw, keyspace="some")
    at = "/k/some.production"

    assert ask(door, "GET /keys", bearer(key), at=at).status == reads
    assert ask(door, f"GET /keys/{key.key.id}", bearer(key), at=at).status == reads
    assert ask(door, "POST /keys", bearer(key), {"name": "x"}, at=at).status == (405 if reads == 200 else 404)
    assert ask(door, f"POST /keys/{key.key.id}/invalidate", bearer(key), at=at).status == 404
    assert ask(door, "GET /whoami", bearer(key), at=at).status == 200


@pytest.mark.parametrize(
    ("letters", "path"),
    [
        ('m = { title = "Master", gives = "all" }', "letters.m"),
        ('M = { title = "Master Key", gives = "all" }', "letters.M.title"),
        ('M = { title = "Master", gives = "everything" }', "letters.M.gives"),
        ('W = { title = "W", gives = "withdrawals" }', "letters.W.gives"),
        ('A = { title = "One", gives = "all" }\nB = { title = "One", gives = "reads" }', "letters"),
    ],
)
def test_letters_that_cannot_be(kw: Keywright, letters: str, path: str) -> None:
    """A profile whose letters make no sense is refused with the place; without self-service it has none."""
    with pytest.raises(ProfileError) as wrong:
        kw.keyspaces.apply(alone("lettered", "full", letters=letters))
    assert wrong.value.path == path
    fine = alone("lettered", "off", letters='M = { title = "Master", gives = "all" }')
    with pytest.raises(ProfileError, match="self_service"):
        kw.keyspaces.apply(fine)


# -------------------------------------------------------------------------------------------------- whoami, anywhere


@pytest.mark.requirement("A-21")
def test_whoami_finds_the_keyspace(door: Door, kw: Keywright, key: Issued) -> None:
    """A Bearer of any keyspace is told who it is, at no cost and without a use."""
    for issued in (key, make(kw, keyspace="atfinity"), partna(kw), make(kw, keyspace="gallabox")):
        reply = door.get("/v1/whoami", bearer(issued))
        assert (reply.status, reply.json["key"]["id"]) == (200, issued.key.id)
        assert (reply.json["keyspace"], reply.json["scheme"]) == (issued.key.keyspace, "bearer")
    assert door.get("/v1/whoami", manager(kw)).json["keyspace"] == "keywright"
    kw.installation.meter.flush()
    assert kw.keys.get(key.key.id).last_used_at is None
    assert door.send("POST", "/v1/whoami", bearer(key)).get("allow") == "GET, HEAD"


@pytest.mark.security("T-01")
def test_whoami_tells_nobody_anything(door: Door, kw: Keywright, key: Issued) -> None:
    """Unproven, unknown and deleted keys of every keyspace get one answer, alike to the byte but for the id."""
    other, gone = partna(kw), make(kw)
    kw.keys.delete(gone.key.id)
    spoilt = [_spoilt(kw, issued) for issued in (key, other)]
    never = token(make(kw))
    kw.keys.delete(id_of(never))
    kw.keys.purge(older_than=0)

    answers = {
        _without_id(door.get("/v1/whoami", headers))
        for headers in (
            *spoilt,
            bearer(gone),
            {"Authorization": f"Bearer {never}"},
            {"Authorization": "Bearer x"},
        )
    }

    assert len(answers) == 1
    assert door.get("/v1/whoami").code == "missing"
    assert door.get(f"/v1/whoami?x={token(key)}", bearer(key)).code == "ambiguous"
    kw.keys.invalidate(key.key.id)
    assert door.get("/v1/whoami", bearer(key)).code == "invalidated"


def _spoilt(kw: Keywright, issued: Issued) -> dict[str, str]:
    """The id of a key with the secret of another, its checksum right."""
    from keywright.credential import spell_token

    return {"Authorization": f"Bearer {spell_token(issued.key.id, token(make(kw))[-38:-6])}"}


def _without_id(reply: Reply) -> bytes:
    assert reply.code == "invalid"
    return reply.body.replace(reply.json["request_id"].encode(), b"")


# --------------------------------------------------------------------------------------------------------- idempotency


NEW = {"keyspace": "every", "account": "globex", "environment": "production", "name": "Once", "access": "all"}


def once(value: str) -> dict[str, str]:
    """The header."""
    return {"Idempotency-Key": value}


@pytest.mark.security("H-05")
def test_the_matrix_of_creating_once(door: Door, kw: Keywright, clock: Clock) -> None:
    """First, replay without a secret, conflict, another caller's, another route's, and expired after a day."""
    caller, other = manager(kw), manager(kw)

    def create(headers: dict[str, str], value: str = "abc-1", **over: str) -> Reply:
        return door.json("POST", "/v1/keys", NEW | over, headers | once(value))

    first, again = create(caller), create(caller)
    assert (first.status, again.status) == (201, 201)
    assert (first.get("idempotency-replayed"), again.get("idempotency-replayed")) == (None, "true")
    assert again.json["key"]["id"] == first.json["key"]["id"]
    assert (again.json["credential"], again.json["presentations"]) == (None, [])
    assert set(again.json) == set(first.json)
    quoted = door.json("POST", "/v1/keys", dict(reversed(NEW.items())), caller | once('"abc-1"'))
    assert quoted.json["key"]["id"] == first.json["key"]["id"]

    assert (create(caller, name="Another").status, create(caller, name="Another").code) == (
        422,
        "invalid_request",
    )
    assert create(caller, "abc-2").get("idempotency-replayed") is None
    assert create(other).json["key"]["id"] != first.json["key"]["id"]
    assert door.json("POST", "/v1/accounts", {"username": "hooli"}, caller | once("abc-1")).status == 201

    clock.advance(seconds=86_399)
    assert create(caller).get("idempotency-replayed") == "true"
    clock.advance(seconds=1)
    assert create(caller).json["key"]["id"] != first.json["key"]["id"]
    assert len(kw.keys.list(keyspace="every").items) == 4


@pytest.mark.security("H-05")
def test_an_account_is_made_once(door: Door, kw: Keywright) -> None:
    """A repeated creation of an account answers the account; without the header the name is taken."""
    caller = manager(kw)
    first, again = (
        door.json("POST", "/v1/accounts", {"username": "hooli"}, caller | once("x")) for _ in range(2)
    )

    assert (first.status, again.status) == (201, 201)
    assert first.json == again.json
    assert door.json("POST", "/v1/accounts", {"username": "hooli"}, caller).code == "conflict"


@pytest.mark.security("H-05")
def test_partnas_creation_happens_once(door: Door, kw: Keywright, master: Issued) -> None:
    """A repeat, with another one-time password too, answers the id and no secret; the replaced key goes once."""
    old = partna(kw)
    document = {"keyname": "Once", "scope": "M", "apikey": old.key.id, "otp": "111111"}
    headers = pair(master) | once("r-1")

    value = created(ask(door, CREATE, headers, document))
    again = ask(door, "POST /user/apikey", headers, document | {"otp": "222222"})

    assert again.json == {"data": {"apikey": None, "id": id_of(value)}, "message": "success"}
    assert ask(door, CREATE, headers, document | {"scope": "G"}).code == "invalid_request"
    assert len(listed(door, pair(master))) == 2
    kw.keys.delete(id_of(value))
    assert ask(door, CREATE, headers, document).code == "conflict"


@pytest.mark.security("H-05")
def test_what_failed_can_be_sent_again(door: Door, kw: Keywright) -> None:
    """A refused creation leaves nothing behind: under the same key it may be carried out, mended."""
    caller = manager(kw)
    assert door.json("POST", "/v1/keys", NEW | {"account": "nobody"}, caller | once("f")).status == 404
    assert door.json("POST", "/v1/keys", NEW, caller | once("f")).status == 201


@pytest.mark.security("H-05", "T-57")
def test_a_replay_shows_no_secret_to_anybody(door: Door, kw: Keywright) -> None:
    """Another caller with the same key makes a key of its own; nothing of a secret or of the header is stored."""
    caller, other = manager(kw), manager(kw)
    value = "the-clients-own-value"
    secret = door.json("POST", "/v1/keys", NEW, caller | once(value)).json["credential"]["token"]

    theirs = door.json("POST", "/v1/keys", NEW, other | once(value))
    mine = door.json("POST", "/v1/keys", NEW, caller | once(value))

    assert theirs.json["key"]["id"] != mine.json["key"]["id"]
    assert secret[-38:-6].encode() not in theirs.body + mine.body
    kw.installation.database.checkpoint()
    for file in kw.installation.database.path.parent.rglob("*"):
        stored = b"" if file.is_dir() else file.read_bytes()
        assert secret[-38:-6].encode() not in stored
        assert value.encode() not in stored


@pytest.mark.security("H-05")
@pytest.mark.parametrize("good", ["a", "A-_9" * 50, '"a b"', '"\\"\\\\"', '"' + "x" * 255 + '"'])
def test_the_header_is_bare_or_quoted(door: Door, kw: Keywright, good: str) -> None:
    """Both spellings of the header are taken."""
    caller = manager(kw)
    replies = [door.json("POST", "/v1/keys", NEW, caller | once(good)) for _ in range(2)]
    assert [reply.get("idempotency-replayed") for reply in replies] == [None, "true"]


@pytest.mark.security("H-05")
@pytest.mark.parametrize(
    "bad", ["", "a b", "a" * 256, '"', '""', '"a', 'a"', '"a"b', "\xe9", '"\\x"', "a, b"]
)
def test_another_header_is_refused(door: Door, kw: Keywright, bad: str) -> None:
    """Anything else, or two of them, is 422 and makes nothing."""
    caller = manager(kw)
    twice = [*caller.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    for headers in (caller | once(bad), twice):
        reply = door.json("POST", "/v1/keys", NEW, headers)
        assert (reply.status, reply.json["errors"][0]["path"]) == (422, "Idempotency-Key")
    assert kw.keys.list(keyspace="every").items == ()


@pytest.mark.security("H-05")
def test_a_call_that_still_runs_is_a_conflict(door: Door, kw: Keywright) -> None:
    """While the same call is being carried out a second one is 409; afterwards it is answered."""
    caller = manager(kw)
    key_id = door.get("/v1/whoami", caller).json["key"]["id"]
    call = read_once(["busy"], key_id, "POST /v1/keys", NEW)

    with kw.installation.keys.running.holding(call):
        assert door.json("POST", "/v1/keys", NEW, caller | once("busy")).code == "conflict"
        assert door.json("POST", "/v1/keys", NEW, caller | once("free")).status == 201
    assert door.json("POST", "/v1/keys", NEW, caller | once("busy")).status == 201


@pytest.mark.security("H-05")
def test_32_at_once_make_one_key(kw: Keywright) -> None:
    """Of 32 identical creations at once one shows a secret, the rest are replays or told to wait; there is one key."""
    app, caller = server(kw), manager(kw) | once("storm")
    start = threading.Barrier(32)
    with Door(app) as door:
        assert door.get("/v1/keys", caller).status == 200

    def create(_n: int) -> Reply:
        with Door(app) as door:
            start.wait()
            return door.json("POST", "/v1/keys", NEW, caller)

    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(create, range(32)))

    made = [reply for reply in replies if reply.status == 201]
    assert {reply.status for reply in replies} <= {201, 409}
    assert sum(reply.json["credential"] is not None for reply in made) == 1
    assert len({reply.json["key"]["id"] for reply in made}) == 1
    assert len(kw.keys.list(keyspace="every").items) == 1


@pytest.mark.security("H-05")
def test_two_servers_make_one_key(kw: Keywright) -> None:
    """Two installations open on one database, as two processes are, carry the same call out once between them."""
    caller = manager(kw) | once("both")
    start = threading.Barrier(2)

    with Keywright(kw.installation.database.url, clock=kw.installation.clock) as second:
        apps = [server(kw), server(second)]
        for app in apps:
            with Door(app) as door:
                assert door.get("/v1/keys", caller).status == 200

        def create(n: int) -> Reply:
            with Door(apps[n]) as door:
                start.wait()
                return door.json("POST", "/v1/keys", NEW, caller)

        with ThreadPoolExecutor(2) as pool:
            replies = list(pool.map(create, range(2)))

    assert [reply.status for reply in replies] == [201, 201]
    assert sorted(reply.json["credential"] is None for reply in replies) == [False, True]
    assert len({reply.json["key"]["id"] for reply in replies}) == 1
