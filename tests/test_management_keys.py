"""Promise 7 among management keys: none makes, rotates or enables one that is larger than itself; and the trail by HTTP."""

import csv
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import make
from keywright import Keywright
from keywright.model import Binding
from keywright.profiles import MANAGEMENT_SCOPES
from keywright.store.audit import Head
from keywright.testing import Clock
from processes import Folder
from surfaces import Door, manager, server


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


PATH = "/v1/management-keys"
NEW = {"name": "Made by one", "scopes": ["management-keys:write"]}


def make_one(kw: Keywright, *scopes: str, expires_at: int | None = None, **bound: str) -> str:
    """A management key made by whoever runs the installation; its id."""
    binding = Binding(**bound)
    issued = kw.keys.create_management(
        name="Large", scopes=scopes or ("verify",), binding=binding, expires_at=expires_at
    )
    return issued.key.id


@pytest.mark.security("T-20")
@pytest.mark.parametrize("scope", MANAGEMENT_SCOPES)
def test_only_scopes_that_are_held_can_be_given(door: Door, kw: Keywright, scope: str) -> None:
    """A caller gives each scope that it holds; with any other beside it nothing is made. The new one works and has a parent."""
    held = {"management-keys:write", scope}
    caller = manager(kw, *held)

    made = door.json("POST", PATH, NEW | {"scopes": sorted(held)}, caller)
    assert (made.status, made.json["key"]["scopes"]) == (201, sorted(held))
    assert made.json["key"]["parent"] == made.json["key"]["created_by"].partition(":")[2]
    token = {"Authorization": f"Bearer {made.json['credential']['token']}"}
    assert door.json("POST", PATH, NEW, token).status == 201

    before = len(kw.installation.management_keys.list(limit=200).items)
    for other in set(MANAGEMENT_SCOPES) - held:
        reply = door.json("POST", PATH, NEW | {"scopes": [*held, other]}, caller)
        assert (reply.status, reply.code) == (403, "exceeds_grantor"), other
    for wrong in ("*", "root", scope.upper(), scope + " "):
        assert door.json("POST", PATH, NEW | {"scopes": [wrong]}, caller).status == 422
    assert len(kw.installation.management_keys.list(limit=200).items) == before


@pytest.mark.security("T-20", "T-17")
def test_a_binding_can_only_be_narrowed(door: Door, kw: Keywright) -> None:
    """What a bound caller makes is bound as it is, or to less; outside of that there is nothing to bind to."""
    caller = manager(kw, "management-keys:write", account="globex")
    for asked, bound in (
        ({}, ("globex", None, None)),
        ({"account": "globex", "keyspace": "every"}, ("globex", "every", None)),
        ({"account": None, "keyspace": "every", "environment": "staging"}, ("globex", "every", "staging")),
    ):
        reply = door.json("POST", PATH, NEW | asked, caller)
        assert tuple(reply.json["key"]["bound_to"].values()) == bound
    assert door.json("POST", PATH, NEW | {"account": "initech"}, caller).status == 404
    placed = manager(kw, "management-keys:write", keyspace="every", environment="staging")
    assert door.json("POST", PATH, NEW | {"keyspace": "default"}, placed).status == 404
    assert door.json("POST", PATH, NEW | {"environment": "production"}, placed).status == 404


@pytest.mark.security("T-20")
def test_an_expiry_is_inherited_and_not_outlived(door: Door, kw: Keywright, clock: Clock) -> None:
    """What a caller that expires makes expires with it or sooner; never, or later, is refused."""
    ends = clock() + 3600 * 1_000_000
    issued = kw.keys.create_management(name="Ends", scopes=["management-keys:write"], expires_at=ends)
    caller = {"Authorization": f"Bearer {issued.credential.token.reveal()}"}

    assert door.json("POST", PATH, NEW, caller).json["key"]["expires_at"] == "2027-01-15T13:00:30Z"
    sooner = NEW | {"expires_at": "2027-01-15T12:30:00Z"}
    assert door.json("POST", PATH, sooner, caller).json["key"]["expires_at"] == "2027-01-15T12:30:00Z"
    for later in (None, "2027-01-15T13:00:31Z"):
        assert door.json("POST", PATH, NEW | {"expires_at": later}, caller).code == "exceeds_grantor"


@pytest.mark.security("T-20")
def test_a_larger_one_is_neither_rotated_nor_enabled(door: Door, kw: Keywright, clock: Clock) -> None:
    """A larger key can be stopped, but not rotated, which would hand it over, nor enabled; an equal one can."""
    caller = manager(kw, "management-keys:write")
    for large in (make_one(kw, "verify", "keys:write"), make_one(kw, *MANAGEMENT_SCOPES)):
        assert door.send("POST", f"{PATH}/{large}/rotate", caller).code == "exceeds_grantor"
        assert door.send("POST", f"{PATH}/{large}/disable", caller).status == 200
        assert door.send("POST", f"{PATH}/{large}/enable", caller).code == "exceeds_grantor"
        assert len(kw.installation.management_keys.get(large).secrets) == 1
        assert kw.installation.management_keys.get(large).state == "disabled"
    equal = make_one(kw, "management-keys:write")
    for verb in ("rotate", "disable", "enable"):
        assert door.send("POST", f"{PATH}/{equal}/{verb}", caller).status == 200


@pytest.mark.requirement("X-15")
@pytest.mark.security("T-17")
def test_lists_hold_what_is_bound_within(door: Door, kw: Keywright) -> None:
    """A bound caller lists and finds the management keys that are bound to the same or to less, and no other."""
    ids = {
        "all": make_one(kw),
        "globex": make_one(kw, account="globex"),
        "less": make_one(kw, account="globex", keyspace="every"),
        "initech": make_one(kw, account="initech"),
        "every": make_one(kw, keyspace="every"),
    }
    for bound, expected in (
        ({}, set(ids)),
        ({"account": "globex"}, {"globex", "less"}),
        ({"keyspace": "every"}, {"less", "every"}),
        ({"account": "globex", "keyspace": "every"}, {"less"}),
        ({"keyspace": "every", "environment": "production"}, set()),
    ):
        caller = manager(kw, "management-keys:read", "management-keys:write", **bound)
        items = {item["id"] for item in door.get(PATH, caller).json["items"]}
        assert {name for name, key_id in ids.items() if key_id in items} == expected
        for name, key_id in ids.items():
            found = door.get(f"{PATH}/{key_id}", caller).status
            assert found == (200 if name in expected else 404)


def test_it_can_be_paged(door: Door, kw: Keywright) -> None:
    """Cursors lead through the management keys, and are good for the caller's own bounds only."""
    for _ in range(3):
        make_one(kw, account="globex")
    globex = manager(kw, "management-keys:read", account="globex")
    first = door.get(f"{PATH}?limit=2", globex).json
    second = door.get(f"{PATH}?limit=2&cursor={first['next_cursor']}", globex).json

    assert (len(first["items"]), len(second["items"]), second["next_cursor"]) == (2, 2, None)
    initech = manager(kw, "management-keys:read", account="initech")
    assert door.get(f"{PATH}?limit=2&cursor={first['next_cursor']}", initech).status == 422


# ------------------------------------------------------------------------------------------------------------ the trail


@pytest.mark.requirement("X-13")
def test_the_trail_says_who_did_what_from_where(door: Door, kw: Keywright) -> None:
    """After each act its entry is there: actor, act, target, account, address and request; never a secret."""
    caller = manager(kw, "keys:write", "audit:read")
    asked = {"keyspace": "every", "account": "globex", "environment": "production", "name": "CRM"}
    made = door.json("POST", "/v1/keys", asked, caller, peer="203.0.113.9").json
    path = f"/v1/keys/{made['key']['id']}"
    for verb in ("rotate", "disable", "enable", "invalidate"):
        assert door.send("POST", f"{path}/{verb}", caller).status == 200
    door.send("DELETE", path, caller)

    items = door.get(f"/v1/audit?target={made['key']['id']}", caller).json["items"]

    acts = ["create", "rotate", "disable", "enable", "invalidate", "delete"]
    assert [item["action"] for item in items] == [f"key.{act}" for act in reversed(acts)]
    first = items[-1]
    assert (first["actor_kind"], first["source"], first["account"]) == (
        "management_key",
        "203.0.113.9",
        "globex",
    )
    assert first["at"] == "2027-01-15T12:00:30Z"
    assert first["request_id"].startswith("req_")
    assert made["credential"]["token"][-38:-6] not in json.dumps(items)


def test_the_trail_is_narrowed_and_paged(door: Door, kw: Keywright) -> None:
    """Target, actor, action, account and number narrow the trail, and cursors lead through it."""
    one, two = make(kw), make(kw, account="initech")
    kw.keys.disable(one.key.id)
    caller = manager(kw, "audit:read")

    def found(query: str) -> list[tuple[str, str]]:
        items = door.get(f"/v1/audit?{query}", caller).json["items"]
        return [(item["action"], item["target_id"]) for item in items]

    assert found(f"target={one.key.id}") == [("key.disable", one.key.id), ("key.create", one.key.id)]
    assert found("action=key.disable") == [("key.disable", one.key.id)]
    assert found("account=initech&action=key.create") == [("key.create", two.key.id)]
    assert (
        found("actor=library:library&action=key.disable") == found("actor=library&action=key.disable") != []
    )
    assert found("actor=person:library") == found("actor=nobody") == []
    whole = door.get("/v1/audit?limit=200", caller).json["items"]
    assert door.get(f"/v1/audit?limit=200&before={whole[1]['seq']}", caller).json["items"] == whole[2:]
    seen: list[Any] = []
    cursor = ""
    while cursor is not None:
        page = door.get(f"/v1/audit?limit=5&cursor={cursor}".removesuffix("&cursor="), caller).json
        seen += page["items"]
        last, cursor = cursor, page["next_cursor"]
    assert seen == whole
    assert door.get(f"/v1/audit?limit=5&action=key.create&cursor={last}", caller).status == 422


@pytest.mark.requirement("X-15")
@pytest.mark.security("T-17")
def test_the_trail_ends_at_the_bounds(door: Door, kw: Keywright) -> None:
    """A bound caller reads what was done to its own account, keyspace and environment, and nothing else."""
    mine = make(kw)
    other = make(kw, account="initech", keyspace="default", environment="staging")
    for bound in (
        {"account": "globex"},
        {"keyspace": "every"},
        {"keyspace": "every", "environment": "production"},
    ):
        caller = manager(kw, "audit:read", **bound)
        targets = {item["target_id"] for item in door.get("/v1/audit?limit=200", caller).json["items"]}
        assert mine.key.id in targets
        assert not targets & {other.key.id, "keywright", "default"}
        assert door.get(f"/v1/audit?target={other.key.id}", caller).json["items"] == []
    globex = manager(kw, "audit:read", account="globex")
    assert door.get("/v1/audit?account=initech", globex).status == 404


@pytest.mark.security("T-40")
@pytest.mark.parametrize("begin", ["=", "+", "-", "@"])
def test_an_export_computes_nothing(template: Path, tmp_path: Path, begin: str) -> None:
    """In the CSV export no cell begins as a formula does, and every entry is one row; JSON lines hold the same as it is."""
    command = Folder(tmp_path, copy_of=template)
    with Keywright(command.database) as kw:
        kw.accounts.create("hooli")
        from keywright.model import Actor

        make(kw, actor=Actor("person", f"{begin}cmd|' /C calc'!A0"))
    rows = list(csv.reader(io.StringIO(command("audit", "export", "--format", "csv").out, newline="")))
    lines = [json.loads(line) for line in command("audit", "export").out.splitlines()]

    assert [cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\0")] == []
    assert (rows[0][0], len(rows) - 1) == ("seq", len(lines))
    assert rows[-1][3] == f"'{lines[-1]['actor_id']}"
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(command("audit", "export", "--after", str(len(lines) - 2)).out.splitlines()) == 2


def test_scopes_plans_and_gates_are_the_profiles(
    door: Door, kw: Keywright, template: Path, tmp_path: Path
) -> None:
    """Scopes, plans and gates are read as applied, of one keyspace or all in reach; the command's JSON is the same body."""
    folder = tmp_path / "other"
    folder.mkdir()
    command = Folder(folder, copy_of=template)
    every = kw.keyspaces.get("every").keyspace
    bound = manager(kw, "keyspaces:read", keyspace="every", environment="staging")
    for noun, names in (("scopes", every.scopes), ("plans", every.plans), ("gates", every.gates)):
        body = door.get(f"/v1/{noun}?keyspace=every", manager(kw)).json
        assert [item["name"] for item in body["items"]] == list(names)
        assert command(noun, "list", "--keyspace", "every", "--json").json == body
        assert command(noun, "list", "--json").json == door.get(f"/v1/{noun}", manager(kw)).json
        assert next(iter(names)) in command(noun, "list").out
        assert {item["keyspace"] for item in door.get(f"/v1/{noun}", bound).json["items"]} <= {"every"}
        assert door.get(f"/v1/{noun}?keyspace=default", bound).status == 404
        assert door.get(f"/v1/{noun}?keyspace=keywright", manager(kw)).status == 404
        assert command(noun, "list", "--keyspace", "nothing").code == 1
    assert door.get("/v1/gates", bound).json["items"] == []  # the one gate is production's


@pytest.mark.stores
@pytest.mark.security("A-13")
def test_the_log_is_a_witness_each_hour(
    kw: Keywright, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each hour the trail's head is written into the log, and what it names proves the trail, or that its end was cut off."""
    lookout = kw.installation.lookout
    with caplog.at_level(logging.INFO, "keywright.audit"):
        for _ in range(5):
            lookout.round()
            clock.advance(minutes=30)
    heads = [
        record.getMessage().rpartition(" ")[2]
        for record in caplog.records
        if record.name == "keywright.audit"
    ]

    assert len(heads) == 2
    number, _, mac = heads[-1].partition(":")
    assert kw.installation.trail.verify(Head(int(number), mac)) is None
    later = kw.installation.trail.verify(Head(int(number) + 1, mac))
    assert later is not None
    assert later.seq == int(number) + 1
