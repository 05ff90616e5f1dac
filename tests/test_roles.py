"""Roles: every route, for every role, in its own account and in a foreign one. The routes are those of the description."""

from collections.abc import Iterator

import pytest

from conftest import make
from keywright import Keywright
from keywright.desk.grants import Ceiling, Giver
from keywright.errors import Exceeds
from keywright.model import Binding, Keyspace, Role
from keywright.profiles import SHIPPED, load, source
from keywright.roles import RIGHTS, ROLES, closed, may_give
from people import as_person, begin, member
from surfaces import Door, server
from test_management_api import (
    ALERTED,
    HOOKED,
    MANAGED,
    MEMBERS,
    ROUTES,
    VISITED,
    alerted,
    hook,
    send,
    visited,
)


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def _fresh_things(kw: Keywright, door: Door) -> str:
    """New things of globex to use a route on; the key's id."""
    kw.accounts.activate("globex")
    bound = Binding("globex", "every", "production")
    MANAGED[id(door)] = kw.keys.create_management(
        name="Managed", scopes=["management-keys:write"], binding=bound
    ).key.id
    MEMBERS[id(door)] = member(kw, "analyst").id
    for endpoint in kw.installation.webhooks.list(account="globex").items:
        kw.installation.webhooks.delete(endpoint.id)  # an account may have so many only
    HOOKED[id(door)] = hook(kw).endpoint.id
    ALERTED[id(door)] = alerted(kw)
    VISITED[id(door)] = visited(kw)
    return make(kw).key.id


@pytest.mark.requirement("F-07", "F-08", "A-01")
@pytest.mark.security("A-11", "T-17", "T-20")
@pytest.mark.parametrize("role", [*ROLES, "operator"])
def test_each_route_asks_the_role(door: Door, kw: Keywright, role: str) -> None:
    """A role that has a route's right uses it and is told of bad input; one that has not is 403, whatever it sends."""
    headers = as_person(kw, begin(kw, role))
    rights = RIGHTS.get(role)  # type: ignore[call-overload]  # of an operator there are none: they have all
    wrong = {}
    for name, route in ROUTES.items():
        may = rights is None or (route.scope in rights and not route.operator)
        key_id = _fresh_things(kw, door)
        route.before(kw, key_id)

        reply = send(door, name, headers, key_id)

        expected = (route.status, None) if may else (403, "insufficient_role")
        found = (reply.status, None if may else reply.code)
        if found != expected:
            wrong[name] = (found, expected, reply.body[:200])
        bad = (route.body or {}) | route.bad[0] if route.bad else None
        if bad is not None and (status := send(door, name, headers, key_id, body=bad).status) != (
            422 if may else 403
        ):
            wrong[f"{name}, badly"] = status
    assert wrong == {}


@pytest.mark.requirement("F-09", "X-15")
@pytest.mark.security("A-11", "T-17", "T-18")
@pytest.mark.parametrize("role", ROLES)
def test_what_is_another_accounts_is_not_there(door: Door, kw: Keywright, role: str) -> None:
    """For a member of another account a thing does not exist: 404 where their role has the right at all, else 403."""
    begun = begin(kw, role, "initech")
    wrong = {}
    for name, route in ROUTES.items():
        if not route.foreign or "/v1/keyspaces" in name:
            continue
        may = route.scope in RIGHTS[role] and not route.operator  # type: ignore[index]
        key_id = _fresh_things(kw, door)
        route.before(kw, key_id)
        for headers in (as_person(kw, begun), as_person(kw, begun, "initech")):
            status = send(door, name, headers, key_id).status
            if status != (404 if may else 403):
                wrong[name] = status
        if send(door, name, as_person(kw, begun, "globex"), key_id).status != 404:
            wrong[f"{name}, asking for it"] = "not 404"
    assert wrong == {}


def test_a_list_shows_ones_own_account(door: Door, kw: Keywright) -> None:
    """What is listed is the account's, and naming another in the query is 404."""
    make(kw, account="initech", name="Theirs")
    mine = make(kw, name="Mine").key.id
    headers = as_person(kw, begin(kw, "admin"))

    listed = door.get("/v1/keys", headers).json["items"]

    assert [key["id"] for key in listed] == [mine]
    for path in ("/v1/keys", "/v1/people", "/v1/audit", "/v1/usage", "/v1/refusals"):
        assert door.get(f"{path}?account=initech", headers).status == 404, path
    assert {one["memberships"][0]["account"] for one in door.get("/v1/people", headers).json["items"]} == {
        "globex"
    }


@pytest.mark.requirement("F-07", "F-08", "A-01")
@pytest.mark.parametrize("keyspace", [name for name in SHIPPED if name != "default"])
@pytest.mark.parametrize("role", ROLES)
def test_the_five_systems_keep_keys_to_admins(door: Door, kw: Keywright, keyspace: str, role: str) -> None:
    """In each of the five systems owners and admins list, make, edit and delete keys; everybody else is 403 each time."""
    headers = as_person(kw, begin(kw, role))
    key_id = make(kw, keyspace=keyspace, environment="production", access="all").key.id
    new = {"keyspace": keyspace, "environment": "production", "name": "Another", "access": "all"}

    statuses = [
        door.get(f"/v1/keys?keyspace={keyspace}", headers).status,
        door.json("POST", "/v1/keys", new, headers).status,
        door.get(f"/v1/keys/{key_id}", headers).status,
        door.json("PATCH", f"/v1/keys/{key_id}", {"name": "Renamed"}, headers).status,
        door.send("POST", f"/v1/keys/{key_id}/rotate", headers).status,
        door.send("DELETE", f"/v1/keys/{key_id}", headers).status,
    ]

    assert statuses == ([200, 201, 200, 200, 200, 200] if role in ("owner", "admin") else [403] * 6)
    assert key_id not in [key["id"] for key in door.get("/v1/keys", headers).json["items"]]


def test_a_keyspace_says_who_sees_and_who_manages() -> None:
    """Of a profile, ``roles.see`` closes reading and ``roles.manage`` changing; whoever manages must see, an owner both."""
    spaces = [load(source("fullwhere")), load(source("default"))]

    assert (
        closed("developer", "keys:write", spaces) == closed("auditor", "keys:read", spaces) == {"fullwhere"}
    )
    assert closed("analyst", "keys:write", spaces) == {"fullwhere", "default"}
    assert closed("owner", "keys:write", spaces) == closed("analyst", "audit:read", spaces) == frozenset()
    text = source("default")
    for roles in ('manage = ["owner", "root"]', 'manage = ["admin"]', 'see = ["admin"]\nmanage = ["owner"]'):
        with pytest.raises(ValueError, match=r"roles|Invalid"):
            _load(text, roles)


def _load(text: str, roles: str) -> Keyspace:
    from keywright.errors import ProfileError

    start, end = text.index("[roles]"), text.index("[fields]")
    try:
        return load(f"{text[:start]}[roles]\n{roles}\n\n{text[end:]}")
    except ProfileError as wrong:
        raise ValueError(str(wrong)) from None


@pytest.mark.security("T-20")
@pytest.mark.parametrize("giver", ROLES)
@pytest.mark.parametrize("role", ROLES)
def test_nobody_gives_a_role_above_their_own(giver: Role, role: Role) -> None:
    """An owner gives every role, an admin every one but owner, others none; a key one whose rights it holds."""
    may = giver == "owner" or (giver == "admin" and role != "owner")

    assert may_give(giver, role) is may
    if not may:
        with pytest.raises(Exceeds):
            Giver(giver, RIGHTS[giver]).check(role)
    Giver(None, RIGHTS[role]).check(role)
    with pytest.raises(Exceeds, match="lacks"):
        Giver(None, RIGHTS[role] - {"keys:read"}).check(role)


@pytest.mark.security("T-20")
def test_a_developer_gives_what_their_membership_holds(door: Door, kw: Keywright) -> None:
    """Bound to a scope, a developer makes, edits and rotates keys within it, and nothing above, in any spelling."""
    begun = begin(kw, "developer", access="restricted", scopes=["things:read"])
    headers = as_person(kw, begun)
    new = {"keyspace": "every", "environment": "production", "name": "Mine"}
    above = make(kw, access="all").key.id

    made = door.json("POST", "/v1/keys", new | {"access": "restricted", "scopes": ["things:read"]}, headers)

    assert made.status == 201
    for grant, status in (
        ({"access": "all"}, 403),
        ({"access": "read_only"}, 403),
        ({}, 403),
        ({"access": "restricted", "scopes": ["things:write"]}, 403),
        ({"access": "restricted", "scopes": ["things:read", "things:write"]}, 403),
        ({"access": "restricted", "scopes": ["*"]}, 422),
        ({"access": "restricted", "scopes": ["Things:Read"]}, 422),
        ({"access": "restricted", "scopes": ["keys:write"]}, 422),
    ):
        assert door.json("POST", "/v1/keys", new | grant, headers).status == status, grant
        if grant:
            path = f"/v1/keys/{made.json['key']['id']}"
            assert door.json("PATCH", path, grant, headers).status == status, grant
    assert door.send("POST", f"/v1/keys/{above}/rotate", headers).status == 403
    assert door.json("POST", f"/v1/keys/{above}/invalidate", {}, headers).status == 200


def test_a_ceiling_of_reading_gives_what_reads() -> None:
    """Read-only may be given on, and a list of scopes that all read; not one that changes something."""
    space, ceiling = load(source("default")), Ceiling("read_only")

    ceiling.check(space, "read_only", ())
    ceiling.check(space, "restricted", ["contacts:read"])
    for access, scopes in (("all", []), ("restricted", ["contacts:write"])):
        with pytest.raises(Exceeds):
            ceiling.check(space, access, scopes)


def test_a_developer_sees_their_own_acts(door: Door, kw: Keywright) -> None:
    """The audit trail shows a developer what they did, and nothing of others, whatever they ask for."""
    begun = begin(kw, "developer")
    headers = as_person(kw, begun)
    make(kw)
    door.json("POST", "/v1/keys", {"keyspace": "every", "environment": "production", "name": "Mine"}, headers)

    items = door.get("/v1/audit", headers).json["items"]

    assert {(one["actor_kind"], one["actor_id"]) for one in items} == {("person", begun[1].person.id)}
    assert door.get("/v1/audit?actor=library", headers).status == 403


@pytest.mark.security("T-20")
def test_a_persons_management_key_holds_no_more_than_they(door: Door, kw: Keywright) -> None:
    """An owner makes management keys of their own account, without scopes that only an operator has."""
    headers = as_person(kw, begin(kw, "owner"))

    made = door.json(
        "POST", "/v1/management-keys", {"name": "CI", "scopes": ["keys:write", "verify"]}, headers
    )

    assert (made.status, made.json["key"]["bound_to"]["account"]) == (201, "globex")
    wider = {"name": "CI", "scopes": ["accounts:write"]}
    assert door.json("POST", "/v1/management-keys", wider, headers).code == "exceeds_grantor"
    foreign = {"name": "CI", "scopes": ["verify"], "account": "initech"}
    assert door.json("POST", "/v1/management-keys", foreign, headers).status == 404


def test_a_key_is_flagged_when_its_maker_could_not_make_it_today(door: Door, kw: Keywright) -> None:
    """Demoted, removed or disabled, a maker leaves keys that are flagged, in answers to changes too; back in place, keys that are not."""
    people = kw.installation.people
    begun = begin(kw, "developer")
    new = {"keyspace": "every", "environment": "production", "name": "Mine"}
    key_id = door.json("POST", "/v1/keys", new, as_person(kw, begun)).json["key"]["id"]
    person = begun[1].person.id

    def flags() -> tuple[str, ...]:
        read = kw.keys.get(key_id).flags
        assert kw.keys.list(account="globex").items[0].flags == read
        changed = (kw.keys.edit(key_id, name="Mine"), kw.keys.disable(key_id), kw.keys.enable(key_id))
        assert {one.key.flags for one in changed} == {read}
        return read

    assert flags() == ()
    people.change_role(person, account="globex", role="analyst")
    assert flags() == ("maker_lost_rights",)
    people.change_role(person, account="globex", role="developer", access="read_only")
    assert flags() == ("maker_lost_rights",)
    people.change_role(person, account="globex", role="developer", access="all")
    assert flags() == ()
    people.remove(person, account="globex")
    assert flags() == ("maker_lost_rights",)
