"""The refusal log: the real reason of each refused request, for whoever may know it, and for nobody else."""

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright import meter as meters
from keywright.store import refusals
from keywright.testing import Clock
from processes import Folder
from surfaces import Door, manager, server, token

EVERY = {"keyspace": "every", "environment": "production"}


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def listed(door: Door, kw: Keywright, query: str = "", **bound: str) -> list[dict[str, Any]]:
    """The items of ``GET /v1/refusals``."""
    reply = door.get(f"/v1/refusals?{query}", manager(kw, "usage:read", **bound))
    assert reply.status == 200, reply.body
    items: list[dict[str, Any]] = reply.json["items"]
    return items


def spoilt(issued: Issued) -> str:
    """The key's token with another key's secret, and a checksum that fits."""
    from keywright.credential import new_secret, spell_token

    return spell_token(issued.key.id, new_secret())


def refuse(kw: Keywright, issued: Issued, how: str) -> str:
    """Make a request of which the key is refused for a reason; its request id."""
    headers, more = bearer(issued), {"method": "GET"}
    match how:
        case "unknown":
            kw.keys.delete(issued.key.id)
            kw.keys.purge(older_than=-1)
        case "wrong_secret":
            headers = {"Authorization": f"Bearer {spoilt(issued)}"}
        case "checksum":
            headers = {
                "Authorization": f"Bearer {token(issued)[:-1]}{'A' if token(issued)[-1] != 'A' else 'B'}"
            }
        case "no_carrier":
            headers = {}
        case "in_url":
            more["url"] = f"/things?key={token(issued)}"
        case "invalidated" | "deleted" | "disabled":
            verb = {"invalidated": "invalidate", "deleted": "delete", "disabled": "disable"}[how]
            getattr(kw.keys, verb)(issued.key.id)
        case "suspended":
            kw.accounts.suspend("globex")
        case "lacks things:write":
            kw.keys.edit(issued.key.id, access="read_only")
            more["scopes"] = ["things:write"]
        case "key is for production":
            more["environment"] = "staging"
        case "quota-day":
            kw.keys.edit(issued.key.id, limits=["0/day"])
        case "ip_not_allowed":
            kw.keys.edit(issued.key.id, allowed_ips=["203.0.113.7"])
            more["ip"] = "198.51.100.9"
    verdict = kw.verify(headers, **(EVERY | more))
    assert not verdict
    return verdict.request_id


REASONS = {
    "unknown": ("invalid", "does not exist", False),
    "wrong_secret": ("invalid", "not its own", True),
    "checksum": ("invalid", "checksum", False),
    "no_carrier": ("missing", "no header", False),
    "in_url": ("ambiguous", "in the address", True),
    "deleted": ("invalid", "was deleted", True),
    "invalidated": ("invalidated", "for ever", True),
    "disabled": ("disabled", "is disabled", True),
    "suspended": ("account_suspended", "account is suspended", True),
    "lacks things:write": ("insufficient_scope", "lacks things:write", True),
    "key is for production": ("wrong_environment", "key is for production", True),
    "quota-day": ("quota_exhausted", "quota-day is used up", True),
    "ip_not_allowed": ("ip_not_allowed", "certain addresses", True),
}


@pytest.mark.parametrize("how", REASONS)
def test_the_log_has_the_real_reason(door: Door, kw: Keywright, key: Issued, how: str) -> None:
    """Each refusal is one row: code, true reason in a sentence, and the key where one that exists was named."""
    code, says, knows = REASONS[how]

    request_id = refuse(kw, key, how)

    (row,) = listed(door, kw, f"request_id={request_id}")
    assert (row["code"], row["reason"], row["keyspace"], row["at"]) == (
        code,
        how,
        "every",
        "2027-01-15T12:00:30Z",
    )
    assert says in row["says"]
    assert (row["key"] or {}).get("id") == (key.key.id if knows else None)
    assert token(key)[-38:-6] not in str(row)


def test_what_is_let_in_is_not_logged(door: Door, kw: Keywright, key: Issued) -> None:
    """A request that proceeds leaves no row; one that is refused beside it does."""
    assert kw.verify(bearer(key), **EVERY)
    assert not kw.verify({}, **EVERY)

    assert [row["code"] for row in listed(door, kw, "keyspace=every")] == ["missing"]


def test_every_door_is_logged(door: Door, kw: Keywright) -> None:
    """Refusals by ``/v1/verify``, forward-auth, whoami and the management API are found by the id in their answers."""
    gate = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/things/1"}
    narrow = manager(kw, "accounts:read")
    replies = [
        (door.get("/authz/forward/shop", gate), "missing"),
        (door.get("/authz/forward/shop"), "gateway_misconfigured"),
        (door.get("/authz/forward/shop", gate | {"X-Forwarded-Uri": "/a%2fb"}), "ambiguous_path"),
        (door.get("/k/every.production/whoami", {"X-Token": "x"}), "invalid"),
        (door.get("/v1/keys"), "missing"),
        (door.get("/v1/keys", narrow), "insufficient_scope"),
    ]
    asked = {**EVERY, "token": "x"}
    verified = door.json("POST", "/v1/verify", asked, manager(kw, "verify")).json

    for request_id, code in [(reply.json["request_id"], code) for reply, code in replies] + [
        (verified["request_id"], "invalid")
    ]:
        assert [row["code"] for row in listed(door, kw, f"request_id={request_id}")] == [code]


def test_the_log_is_narrowed_and_paged(door: Door, kw: Keywright, clock: Clock) -> None:
    """Filters leave their own rows, newest first, and cursors lead through all of them, for their own list only."""
    keys = [make(kw), make(kw, account="initech"), make(kw, environment="staging")]
    for key in keys * 3:
        kw.verify({"X-Token": spoilt(key)}, keyspace="every", environment=key.key.environment)
        clock.advance(seconds=1)

    assert len(listed(door, kw, f"key={keys[0].key.id}")) == 3
    assert len(listed(door, kw, "account=initech&code=invalid")) == 3
    assert len(listed(door, kw, "environment=staging")) == 3
    assert listed(door, kw, "code=expired") == []
    whole = [row["request_id"] for row in listed(door, kw)]
    seen: list[str] = []
    cursor, caller = "", manager(kw, "usage:read")
    while cursor is not None:
        page = door.get(f"/v1/refusals?limit=4&cursor={cursor}".removesuffix("&cursor="), caller).json
        seen += [row["request_id"] for row in page["items"]]
        last, cursor = cursor, page["next_cursor"]
    assert seen == whole
    assert len(whole) == 9
    assert door.get(f"/v1/refusals?limit=4&code=invalid&cursor={last}", caller).status == 422


@pytest.mark.requirement("X-15")
@pytest.mark.security("T-17")
def test_a_bound_caller_sees_its_own_keys_refusals(door: Door, kw: Keywright) -> None:
    """A bound caller sees refusals in which its own keys were named, no stranger's, and another's account is 404."""
    mine, other = make(kw), make(kw, account="initech", keyspace="default")
    kw.verify({"X-Token": spoilt(mine)}, **EVERY)
    kw.verify({"X-Token": token(other)}, **EVERY)  # proven, but of another keyspace
    kw.verify({}, **EVERY)

    for bound, keys in (
        ({"account": "globex"}, [mine.key.id]),
        ({"account": "initech"}, [other.key.id]),
        ({"keyspace": "every"}, [None, mine.key.id]),
        ({"keyspace": "default"}, []),
    ):
        rows = listed(door, kw, **bound)
        assert [(row["key"] or {}).get("id") for row in rows] == keys, bound
    assert len(listed(door, kw, "keyspace=every")) == 3
    globex = manager(kw, "usage:read", account="globex")
    assert door.get("/v1/refusals?account=initech", globex).status == 404
    assert door.get(f"/v1/refusals?key={other.key.id}", globex).json["items"] == []


def test_a_flood_is_bounded_and_said(door: Door, kw: Keywright) -> None:
    """Of more refusals than wait for a flush the newest are kept, how many were dropped is written down, counts are exact."""
    flood = meters.MOST_REFUSALS + 7
    meter = kw.installation.meter
    meter._stop.set()  # nothing is flushed meanwhile
    for n in range(flood):
        kw.verify({}, **EVERY, request_id=f"req_{n}")
    meter.settle()

    with kw.installation.database.read("usage") as connection:
        kept, dropped = connection.exec_driver_sql(
            "SELECT count(*), sum(dropped) FROM refusals WHERE keyspace = 'every'"
        ).one()
    assert (kept, dropped) == (meters.MOST_REFUSALS, 7)
    assert listed(door, kw, "keyspace=every")[0]["request_id"] == f"req_{flood - 1}"
    assert kw.installation.usage.report(by="total", keyspace="every").total == flood


def test_the_oldest_make_room(kw: Keywright, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log keeps its newest rows only."""
    monkeypatch.setattr(refusals, "KEPT", 10)
    for n in range(25):
        kw.verify({}, **EVERY, request_id=f"req_{n}")
        if n % 5 == 4:
            kw.installation.meter.settle()

    found = kw.installation.refusals.list(limit=50).items
    assert [one.refusal.request_id for one in found] == [f"req_{n}" for n in range(24, 14, -1)]


def test_a_text_that_is_none_is_kept_as_one(door: Door, kw: Keywright) -> None:
    """Whatever a host passes on as method, resource or address is cut and cleaned, and the row is written."""
    kw.verify({}, **EVERY, method="\ud800" + "X" * 500, resource="a\x00b", ip="\udcff", request_id="odd")

    (row,) = listed(door, kw, "request_id=odd")
    assert (len(row["method"]), row["resource"], row["ip"]) == (200, "ab", "?")


def test_explaining_is_not_refusing(template: Any, tmp_path: Any) -> None:
    """What an operator pastes into ``explain`` or ``keys verify`` leaves nothing in the log."""
    command = Folder(tmp_path, copy_of=template)
    command("explain", given="X-Token: nothing")
    command("keys", "verify", "--keyspace", "every", "--environment", "production", given="nothing")

    with Keywright(command.database) as kw:
        assert kw.installation.refusals.list().items == ()


def test_why(template: Any, tmp_path: Any) -> None:
    """``keywright why`` says the real reason of a refusal in a sentence; an id that is none of ours is an error."""
    command = Folder(tmp_path, copy_of=template)
    with Keywright(command.database) as kw:
        key = make(kw)
        kw.keys.delete(key.key.id)
        answer = kw.answer(kw.verify(bearer(key), **EVERY, request_id="req_1"))
    assert b"deleted" not in answer.body

    said = command("why", "req_1")

    assert said.out.splitlines()[0] == "invalid: the key is proven, but was deleted"
    assert f"{key.key.id} (CRM sync)" in said.out
    assert command("why", "req_1", "--json").json["reason"] == "deleted"
    assert command("why", "req_2").code == 1
