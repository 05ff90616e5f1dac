"""The verbs on keys and accounts: what they accept, what they refuse without a trace, and what a list shows."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from conftest import again, bearer, make, sql
from keywright import Actor, Conflict, Exceeds, Invalid, Issued, Key, Keywright, NotFound
from keywright.desk.grants import MANAGEMENT_KEYS, Reach, reach_of
from keywright.errors import Forbidden
from keywright.model import Ask, Binding, KeyRecord
from keywright.testing import Clock
from keywright.times import DAY, instant_of

pytestmark = pytest.mark.stores

EVERY = {"keyspace": "every", "environment": "production"}
LATER = 60_000_000


def contents(kw: Keywright) -> list[Any]:
    """Everything that the keys file holds."""
    with kw.installation.database.read() as connection:
        return [
            connection.exec_driver_sql(f"SELECT * FROM {table}").all()
            for table in ("keys", "secrets", "accounts", "keyspaces", "changes", "audit", "audit_head")
        ]


def record_of(kw: Keywright, issued: Issued, keyspace: str = "every") -> KeyRecord:
    """A key as the engine knows it, to act for it."""
    headers = bearer(issued)
    if keyspace == "partna":
        headers = {"x-api-key": issued.credential.token.reveal(), "x-api-user": issued.key.account}
    verdict = kw.verify(
        headers, keyspace=keyspace, environment=issued.key.environment, authenticate_only=True
    )
    assert verdict.key is not None
    return verdict.key


# -------------------------------------------------------------------------------------------------------- create


@pytest.mark.requirement("X-11", "C-03", "C-04")
@pytest.mark.parametrize(
    ("keyspace", "fields", "expected"),
    [
        ("fullwhere", {}, "all"),
        ("partna", {}, "all"),
        ("atfinity", {}, "all"),
        ("bizmagnets", {}, "all"),
        ("gallabox", {}, None),
        ("default", {}, None),
        ("gallabox", {"access": "read_only"}, "read_only"),
        ("default", {"access": "all"}, "all"),
        ("default", {"scopes": ["contacts:read"]}, "restricted"),
        ("default", {"access": "restricted", "scopes": ["contacts:read", "contacts:read"]}, "restricted"),
        ("default", {"access": "restricted"}, None),
        ("default", {"access": "restricted", "scopes": ["nonsense"]}, None),
        ("default", {"access": "all", "scopes": ["contacts:read"]}, None),
        ("default", {"access": "everything"}, None),
        ("every", {"scopes": ["keys:read"]}, None),
        ("partna", {"scopes": ["keys:read"]}, "restricted"),
    ],
)
def test_what_a_key_is_made_with(
    kw: Keywright, keyspace: str, fields: dict[str, Any], expected: str | None
) -> None:
    """A name is needed, a description is not; access has the keyspace's default or must be chosen among what it offers."""
    environments = list(kw.keyspaces.get(keyspace).keyspace.environments)
    fields = {
        "keyspace": keyspace,
        "account": "globex",
        "name": "n",
        "environment": environments[-1],
    } | fields
    before = contents(kw)
    if expected is None:
        with pytest.raises(Invalid):
            kw.keys.create(**fields)
        assert contents(kw) == before
    else:
        key = kw.keys.create(**fields).key
        assert (key.access, key.description, key.state, key.environment) == (
            expected,
            "",
            "active",
            environments[-1],
        )


def test_the_library_makes_keys_where_it_stands(kw: Keywright) -> None:
    """A library opened for a keyspace and an environment makes its keys there, unless a call names others."""
    with again(kw, **EVERY, clock=kw.installation.clock) as own:
        here = own.keys.create(account="globex", name="here")
        there = own.keys.create(account="globex", name="there", keyspace="partna", environment="staging")
        assert own.verify(bearer(here)).code == "ok"

    places = [(key.keyspace, key.environment) for key in (here.key, there.key)]
    assert places == [("every", "production"), ("partna", "staging")]


@pytest.mark.requirement("A-17")
def test_a_dotted_key_has_its_shape(kw: Keywright) -> None:
    """In atfinity's keyspace a key is eight characters, a dot and thirty-two, with no second spelling."""
    issued = make(kw, keyspace="atfinity")

    assert re.fullmatch(r"[0-9A-Za-z]{8}\.[0-9A-Za-z]{32}", issued.credential.token.reveal())
    assert issued.credential.secret is None


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"name": ""}, Invalid, "name"),
    ({"name": "  "}, Invalid, "name"),
    ({"name": None}, Invalid, "name"),
    ({"name": "n" * 201}, Invalid, "name"),
    ({"name": "a\nb"}, Invalid, "name"),
    ({"name": "a\x00b"}, Invalid, "name"),
    ({"name": "right\u202eleft"}, Invalid, "name"),
    ({"name": "\ud800"}, Invalid, "name"),
    ({"description": "d" * 2001}, Invalid, "description"),
    ({"description": "\x1b[31m"}, Invalid, "description"),
    ({"team": "t" * 101}, Invalid, "team"),
    ({"application": "\x07"}, Invalid, "application"),
    ({"keyspace": "nowhere"}, NotFound, ""),
    ({"keyspace": None}, Invalid, "keyspace"),
    ({"keyspace": "keywright"}, NotFound, ""),
    ({"account": "nobody"}, NotFound, ""),
    ({"account": None}, Invalid, "account"),
    ({"account": "keywright"}, NotFound, ""),
    ({"environment": "moon"}, Invalid, "environment"),
    ({"environment": None}, Invalid, "environment"),
    ({"limits": ["ten"]}, Invalid, "limits[0]"),
    ({"limits": ["1/day", "2/day"]}, Invalid, "limits[1]"),
    ({"limits": ["-1/day"]}, Invalid, "limits[0]"),
    ({"limits": [{"kind": "quota", "limit": 1.5, "per": "day"}]}, Invalid, "limits[0].limit"),
    ({"limits": [{"kind": "quota", "limit": 1, "per": "day", "remaining": 9}]}, Invalid, "limits[0]"),
    ({"limits": ["1/day"] * 11}, Invalid, "limits"),
    ({"plan": "golden"}, Invalid, "plan"),
    ({"expires_at": 0}, Invalid, "expires_at"),
    ({"expires_at": 2**62}, Invalid, "expires_at"),
    ({"allowed_ips": ["10.0.0.1/8"]}, Invalid, "allowed_ips[0]"),
    ({"allowed_ips": ["::1", "home"]}, Invalid, "allowed_ips[1]"),
    ({"allowed_ips": ["fe80::1%eth0"]}, Invalid, "allowed_ips[0]"),
    ({"allowed_ips": ["10.0.0.1"] * 101}, Invalid, "allowed_ips"),
    ({"metadata": {str(n): 1 for n in range(51)}}, Invalid, "metadata"),
    ({"metadata": {"a": "x" * 17_000}}, Invalid, "metadata"),
    ({"metadata": [1]}, Invalid, "metadata"),
    ({"metadata": {"a": {1, 2}, "b": object()}}, Invalid, "metadata"),
]


@pytest.mark.security("T-49")
@pytest.mark.parametrize(("fields", "error", "path"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_refused_creation_leaves_nothing(
    kw: Keywright, fields: dict[str, Any], error: type[Exception], path: str
) -> None:
    """Whatever is wrong with one field names that field, and nothing in the store has changed."""
    before = contents(kw)

    with pytest.raises(error) as refusal:
        make(kw, **fields)

    assert getattr(refusal.value, "path", "") == path
    assert contents(kw) == before


@pytest.mark.requirement("C-13")
def test_names_may_be_alike(kw: Keywright) -> None:
    """Two keys of one account may bear the same name; their ids, shown beside it, tell them apart."""
    one, two = make(kw, name="CRM sync"), make(kw, name="CRM sync")

    found = kw.keys.list(account="globex", q="crm sync").items
    assert {key.id for key in found} == {one.key.id, two.key.id}


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "Robert'); DROP TABLE keys;--",
    "=cmd|' /C calc'!A0",
    "100% _under_ \\back\\ [set] *star*",
    "\U0001f511 ключ مفتاح ḱéy",
    "\"quoted\" 'twice' `thrice`",
    "{{7*7}} ${7*7} %s %(x)s",
]


@pytest.mark.requirement("F-31")
@pytest.mark.security("T-13", "T-41")
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(kw: Keywright, text: str) -> None:
    """Markup, SQL, formulas and emoji in any field are kept as they came, found by search, and change nothing else."""
    other = make(kw, name="bystander")
    issued = make(kw, name=text, description=text, team=text, application=text, metadata={text: text})

    found = kw.keys.get(issued.key.id)
    assert (found.name, found.description, found.team, found.application) == (text,) * 4
    assert found.metadata == {text: text}
    assert [key.id for key in kw.keys.list(q=text).items] == [issued.key.id]
    assert [key.id for key in kw.keys.list(team=text).items] == [issued.key.id]
    assert kw.verify(bearer(other), **EVERY).code == "ok"


def test_a_long_text_of_several_lines_is_kept(kw: Keywright) -> None:
    """A description of two thousand characters and several lines is kept; blanks around a name are not."""
    text = "line\n" * 399 + "end"
    key = make(kw, name="  CRM  ", description=text).key

    assert (key.name, key.description) == ("CRM", text)


@pytest.mark.requirement("A-10")
def test_there_is_no_cap_on_keys(kw: Keywright) -> None:
    """A thousand keys of one account are made, listed page by page without gap or repetition, and verify."""
    ids = [make(kw, name=f"key {n}").key.id for n in range(999)]
    last = make(kw, name="the thousandth")

    assert sorted(walk(kw, limit=200, account="globex")) == sorted([*ids, last.key.id])
    assert kw.verify(bearer(last), **EVERY).code == "ok"


# ---------------------------------------------------------------------------------------------------------- list


def walk(kw: Keywright, **narrow: Any) -> list[str]:
    """The ids of a whole list, page by page."""
    page = kw.keys.list(**narrow)
    found = [key.id for key in page.items]
    while page.next_cursor is not None:
        page = kw.keys.list(**narrow, cursor=page.next_cursor)
        assert page.items
        found += [key.id for key in page.items]
    return found


@pytest.fixture
def many(kw: Keywright, clock: Clock) -> list[Key]:
    """Two hundred and fifty keys of two accounts in every state, some made at the same instant."""
    made = []
    for n in range(250):
        made.append(
            make(
                kw,
                account="initech" if n % 5 == 0 else "globex",
                environment=("development", "staging", "production")[n % 3],
                name=f"{'abc'[n % 3]} key {n % 50:02}",
                team=("payments", "growth", None)[n % 3],
                application=("crm", None)[n % 2],
                expires_at=clock() + LATER if n % 7 == 0 else None,
            ).key.id
        )
        if n % 4 == 0:
            clock.advance(seconds=1)
    for n, key_id in enumerate(made):
        if n % 11 == 0:
            kw.keys.disable(key_id)
        elif n % 13 == 0:
            kw.keys.invalidate(key_id)
        elif n % 17 == 0:
            kw.keys.delete(key_id)
    clock.advance(minutes=2)
    return [kw.keys.get(key_id) for n, key_id in enumerate(made) if n % 17 or not n % 11 or not n % 13]


@pytest.mark.requirement("B-09", "B-20", "B-21", "B-22")
def test_lists_are_filtered_sorted_and_whole(kw: Keywright, many: list[Key]) -> None:
    """Every filter, sort and page size gives exactly the keys that match, in order, each once, the deleted ones never."""
    filters: list[tuple[dict[str, Any], Callable[[Key], bool]]] = [
        ({}, lambda key: True),
        ({"account": "globex"}, lambda key: key.account == "globex"),
        ({"account": "initech", "environment": "staging"}, lambda key: (key.account, key.environment) == ("initech", "staging")),
        ({"keyspace": "every"}, lambda key: True),
        ({"keyspace": "partna"}, lambda key: False),
        ({"team": "payments"}, lambda key: key.team == "payments"),
        ({"application": "crm", "team": "growth"}, lambda key: (key.application, key.team) == ("crm", "growth")),
        *[({"state": state}, lambda key, state=state: key.state == state) for state in ("active", "disabled", "invalidated", "expired")],
        ({"q": "B KEY 1"}, lambda key: "b key 1" in key.name),
        ({"q": "payments", "account": "globex"}, lambda key: key.team == "payments" and key.account == "globex"),
    ]  # fmt: skip
    orders: dict[str, Callable[[Key], Any]] = {
        "created_at": lambda key: (key.created_at, key.id),
        "name": lambda key: (key.name, key.id),
    }
    for narrow, matches in filters:
        for order, place in orders.items():
            for sign in ("", "-"):
                expected = [k.id for k in sorted(filter(matches, many), key=place, reverse=sign == "-")]
                assert walk(kw, **narrow, sort=sign + order, limit=37) == expected, (narrow, order)
    assert walk(kw, limit=1, account="initech", state="disabled") == walk(
        kw, account="initech", state="disabled"
    )


def test_a_list_goes_on_although_keys_come_and_go(kw: Keywright, many: list[Key]) -> None:
    """A cursor holds its place when the key it came from is deleted and new ones appear: nothing old is missed or repeated."""
    page = kw.keys.list(account="globex", limit=50)
    seen = [key.id for key in page.items]
    kw.keys.delete(seen[-1])
    make(kw)
    while page.next_cursor is not None:
        page = kw.keys.list(account="globex", limit=50, cursor=page.next_cursor)
        seen += [key.id for key in page.items]

    expected = sorted(
        (k for k in many if k.account == "globex"), key=lambda k: (k.created_at, k.id), reverse=True
    )
    assert seen == [key.id for key in expected]


@pytest.mark.security("T-51")
def test_a_cursor_is_good_for_its_own_list_only(kw: Keywright, many: list[Key]) -> None:
    """A cursor from another account, filter, order or installation, one that was edited, and none at all are refused."""
    cursor = kw.keys.list(account="globex", limit=10).next_cursor
    assert cursor is not None
    assert kw.keys.list(account="globex", limit=20, cursor=cursor).items

    for narrow in (
        {"account": "initech"},
        {},
        {"account": "globex", "q": "a"},
        {"account": "globex", "sort": "name"},
    ):
        with pytest.raises(Invalid, match="cursor"):
            kw.keys.list(**narrow, cursor=cursor)  # type: ignore[arg-type]
    for edited in (cursor[:-2], cursor[:-1] + ("A" if cursor[-1] != "A" else "B"), "", "x", "ä", "A" * 3000):
        with pytest.raises(Invalid, match="cursor"):
            kw.keys.list(account="globex", cursor=edited)
    with pytest.raises(Invalid, match="cursor"):
        kw.accounts.list(cursor=cursor)


@pytest.mark.parametrize("narrow", [{"sort": "secret"}, {"state": "deleted"}, {"limit": 0}, {"limit": 201}])
def test_a_list_that_makes_no_sense_is_refused(kw: Keywright, narrow: dict[str, Any]) -> None:
    """Unknown orders and states, and pages of none or of too many, are refused with the parameter's name."""
    with pytest.raises(Invalid, match=next(iter(narrow))):
        kw.keys.list(**narrow)


def test_a_secret_that_is_searched_for_is_found_by_its_id(kw: Keywright, key: Issued) -> None:
    """A credential pasted into the search finds its key, and is looked for by the id alone."""
    from keywright.desk.listing import is_secret

    token = key.credential.token.reveal()
    make(kw)

    assert [found.id for found in kw.keys.list(q=f" {token} ").items] == [key.key.id]
    assert (is_secret(token), is_secret(f"see {token}"), is_secret(key.key.id), is_secret(None)) == (
        True,
        True,
        False,
        False,
    )


# ------------------------------------------------------------------------------------------------------- tenants

OUTSIDE = [
    Reach(account="initech"),
    Reach(keyspace="partna"),
    Reach(keyspace="every", environment="staging"),
    Reach(account="globex", keyspace="every", environment="development"),
    MANAGEMENT_KEYS,
]


@pytest.mark.requirement("F-09", "X-15")
@pytest.mark.security("T-17")
@pytest.mark.parametrize("reach", OUTSIDE, ids=repr)
def test_what_is_out_of_reach_does_not_exist(kw: Keywright, key: Issued, reach: Reach) -> None:
    """Every verb on a foreign key says the same as on one that never was, changes nothing, and lists do not show it."""
    key_id, missing = key.key.id, key.key.id[:-3] + "000"
    before = contents(kw)
    verbs: list[Callable[[str], Any]] = [
        lambda k: kw.keys.get(k, reach=reach),
        lambda k: kw.keys.edit(k, name="mine", reach=reach),
        lambda k: kw.keys.rotate(k, reach=reach),
        lambda k: kw.keys.finish(k, reach=reach),
        lambda k: kw.keys.cancel(k, reach=reach),
        lambda k: kw.keys.invalidate(k, reach=reach),
        lambda k: kw.keys.disable(k, reach=reach),
        lambda k: kw.keys.enable(k, reach=reach),
        lambda k: kw.keys.delete(k, reach=reach),
    ]
    for verb in verbs:
        said = []
        for asked in (key_id, missing):
            with pytest.raises(NotFound) as refusal:
                verb(asked)
            said.append(str(refusal.value).replace(asked, "ID"))
        assert said[0] == said[1]

    assert kw.keys.list(reach=reach).items == ()
    assert kw.keys.list(reach=reach, q=key_id).items == ()
    assert contents(kw) == before
    assert kw.keys.get(key_id, reach=Reach(account="globex")).id == key_id


@pytest.mark.security("T-17", "T-18")
def test_a_bound_caller_cannot_name_another(kw: Keywright) -> None:
    """A caller bound to an account makes and lists keys there without saying so, and naming a foreign one is ``NotFound``."""
    reach = reach_of(Binding(account="globex", keyspace="every", environment="staging"))
    key = kw.keys.create(name="n", reach=reach).key
    assert (key.account, key.keyspace, key.environment) == ("globex", "every", "staging")
    assert [found.id for found in kw.keys.list(reach=reach).items] == [key.id]
    assert [found.username for found in kw.accounts.list(reach=reach).items] == ["globex"]

    for wrong in ({"account": "initech"}, {"keyspace": "partna"}, {"environment": "production"}):
        with pytest.raises(NotFound):
            kw.keys.create(name="n", reach=reach, **wrong)
        with pytest.raises(NotFound):
            kw.keys.list(reach=reach, **wrong)
    for verb in (kw.accounts.get, kw.accounts.suspend, kw.accounts.activate):
        with pytest.raises(NotFound):
            verb("initech", reach=reach)


# ---------------------------------------------------------------------------------------------------------- edit


@pytest.mark.requirement("F-22", "F-23", "F-24", "B-08", "B-10", "C-06")
def test_an_edit_keeps_the_secret_and_holds_at_once(kw: Keywright, key: Issued, clock: Clock) -> None:
    """Each field can be edited alone, the secret works before and after, and the next call obeys the new access."""
    kw.installation.meter._stop.set()  # or else its use reaches the store between two of the readings, once in many runs
    assert kw.verify(bearer(key), **EVERY, method="POST").code == "ok"
    edits: dict[str, Any] = {
        "name": "renamed",
        "description": "described",
        "team": "payments",
        "application": "crm",
        "limits": ["100/day"],
        "plan": "small",
        "expires_at": clock() + LATER,
        "allowed_ips": ["192.0.2.0/24"],
        "metadata": {"a": [1, {"b": None}]},
        "access": "read_only",
    }
    for field, value in edits.items():
        before = kw.keys.get(key.key.id)
        after = kw.keys.edit(key.key.id, **{field: value}).key
        changed = {name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)}
        assert changed - {"updated_at"} == {field}

    assert kw.verify(bearer(key), **EVERY, method="POST", ip="192.0.2.7").code == "insufficient_scope"
    assert kw.verify(bearer(key), **EVERY, method="GET", ip="192.0.2.7").code == "ok"
    assert [found.id for found in kw.keys.list(q="described").items] == [key.key.id]
    assert kw.keys.list(q="crm sync").items == ()
    last = kw.installation.trail.list(limit=1).items[0]
    assert (last["action"], last["detail"]) == ("key.edit", {"changed": {"access": ["all", "read_only"]}})


def test_an_edit_that_changes_nothing_tells_nothing(kw: Keywright, key: Issued) -> None:
    """Editing to what is there already, or to nothing, writes neither a change nor an audit entry."""
    before = contents(kw)

    kw.keys.edit(key.key.id)
    kw.keys.edit(key.key.id, name="CRM sync", access="all", limits=[], team=None)

    assert contents(kw) == before


def test_fields_can_be_emptied(kw: Keywright) -> None:
    """``None`` empties what may be empty; a name may not."""
    key = make(
        kw, team="t", application="a", description="d", plan="small", expires_at=2**51, allowed_ips=["::1"]
    )

    after = kw.keys.edit(
        key.key.id,
        team=None,
        application=None,
        description=None,
        plan=None,
        expires_at=None,
        allowed_ips=None,
    ).key

    assert (after.team, after.application, after.description, after.plan) == (None, None, "", None)
    assert (after.expires_at, after.allowed_ips) == (None, ())
    with pytest.raises(Invalid):
        kw.keys.edit(key.key.id, name=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("fields", "error", "path"), [row for row in REFUSED if not {"keyspace", "account", "environment"} & set(row[0])], ids=lambda value: str(value)[:40])  # fmt: skip
def test_a_refused_edit_leaves_nothing(
    kw: Keywright, key: Issued, fields: dict[str, Any], error: type[Exception], path: str
) -> None:
    """An edit with one bad field changes none of the good ones beside it."""
    before = contents(kw)

    with pytest.raises(error):
        kw.keys.edit(key.key.id, **({"name": "fine", "team": "fine"} | fields))

    assert contents(kw) == before


def test_an_invalidated_key_can_be_renamed_only(kw: Keywright, key: Issued) -> None:
    """What an invalidated key is called can be edited, what it could do cannot."""
    kw.keys.invalidate(key.key.id)

    assert (
        kw.keys.edit(key.key.id, name="the leaked one", team="x", metadata={"why": "leak"}).key.state
        == "invalidated"
    )
    for fields in ({"access": "read_only"}, {"limits": ["1/day"]}, {"expires_at": None}, {"allowed_ips": []}):
        with pytest.raises(Conflict):
            kw.keys.edit(key.key.id, **fields)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------- the end


@pytest.mark.requirement("P-22", "P-23")
def test_invalidate_and_delete_are_two_things(kw: Keywright, key: Issued) -> None:
    """An invalidated key stays in the list and says so, once and for ever; a deleted one is gone, and again is ``NotFound``."""
    first = kw.keys.invalidate(key.key.id, reason="left the team").key
    after = contents(kw)
    assert kw.keys.invalidate(key.key.id, reason="another").key == first
    assert contents(kw) == after
    assert (first.state, first.state_reason) == ("invalidated", "left the team")
    assert [found.state for found in kw.keys.list(account="globex").items] == ["invalidated"]
    for verb in (kw.keys.disable, kw.keys.enable):
        with pytest.raises(Conflict):
            verb(key.key.id)

    kw.keys.delete(key.key.id)
    assert kw.keys.list(account="globex").items == ()
    with pytest.raises(NotFound):
        kw.keys.delete(key.key.id)


@pytest.mark.requirement("F-25", "F-26", "F-29")
def test_a_deleted_key_does_not_come_back(kw: Keywright, key: Issued) -> None:
    """No verb reaches a deleted key, its secret is refused like an unknown one, and a new key has other values."""
    kw.keys.delete(key.key.id)

    for verb in (
        kw.keys.get, kw.keys.enable, kw.keys.disable, kw.keys.invalidate, kw.keys.rotate, kw.keys.delete,
        kw.keys.finish, kw.keys.cancel, kw.keys.edit,
    ):  # fmt: skip
        with pytest.raises(NotFound):
            verb(key.key.id)
    verdict = kw.verify(bearer(key), **EVERY)
    assert (verdict.code, verdict.reason, verdict.key) == ("invalid", "deleted", None)
    assert walk(kw) == []
    again = make(kw)
    assert again.key.id != key.key.id
    assert (kw.verify(bearer(again), **EVERY).code, kw.verify(bearer(key), **EVERY).code) == ("ok", "invalid")


def test_a_tombstone_goes_with_the_purge(kw: Keywright, clock: Clock) -> None:
    """Deleted keys are purged once they are old enough, with their MACs; others stay, and the act is told once."""
    old, young, alive = make(kw), make(kw), make(kw)
    kw.keys.delete(old.key.id)
    clock.advance(days=20)
    kw.keys.delete(young.key.id)
    clock.advance(days=11)
    assert kw.verify(bearer(old), **EVERY).reason == "deleted"

    assert (kw.keys.purge(), kw.keys.purge()) == (1, 0)

    assert [kw.verify(bearer(key), **EVERY).reason for key in (old, young, alive)] == [
        "unknown",
        "deleted",
        "ok",
    ]
    with kw.installation.database.read() as connection:
        rows = sql(connection, "SELECT count(*) FROM secrets WHERE key_id = ?", old.key.id).scalar_one()
    assert rows == 0
    purges = [entry for entry in kw.installation.trail.list().items if entry["action"] == "key.purge"]
    assert [entry["detail"] for entry in purges] == [{"count": 1}]
    assert kw.keys.purge(older_than=DAY) == 1


@pytest.mark.requirement("X-12")
@pytest.mark.parametrize("end", ["disable", "invalidate", "expire", "delete", "suspend"])
def test_what_each_state_allows(kw: Keywright, clock: Clock, end: str) -> None:
    """One table: from each state, what a call is answered and which verbs are conflicts, misses or fine."""
    key = make(kw, expires_at=instant_of(clock.at + timedelta(hours=1)) if end == "expire" else None)
    {
        "disable": lambda: kw.keys.disable(key.key.id),
        "invalidate": lambda: kw.keys.invalidate(key.key.id),
        "expire": lambda: clock.advance(hours=1),
        "delete": lambda: kw.keys.delete(key.key.id),
        "suspend": lambda: kw.accounts.suspend("globex"),
    }[end]()
    told = {
        "disable": ("disabled", "ok ok ok ok"),
        "invalidate": ("invalidated", "conflict conflict conflict ok"),
        "expire": ("expired", "conflict ok ok ok"),
        "delete": ("invalid", "not_found not_found not_found not_found"),
        "suspend": ("account_suspended", "ok ok ok ok"),
    }

    def outcome(verb: Callable[[str], Any]) -> str:
        try:
            verb(key.key.id)
        except (Conflict, NotFound) as refusal:
            return refusal.code
        return "ok"

    code = kw.verify(bearer(key), **EVERY).code
    verbs = [kw.keys.rotate, kw.keys.disable, kw.keys.enable, kw.keys.invalidate]
    assert (code, " ".join(outcome(verb) for verb in verbs)) == told[end]


# ------------------------------------------------------------------------------------------------------ accounts


@pytest.mark.requirement("P-35")
def test_only_an_active_account_makes_and_uses_keys(kw: Keywright) -> None:
    """A pending or suspended account gets no keys and its keys are refused; once active, both work."""
    kw.accounts.create("newcomer", pending=True)
    with pytest.raises(Conflict, match="pending"):
        make(kw, account="newcomer")
    kw.accounts.activate("newcomer")
    key = make(kw, account="newcomer")
    assert kw.verify(bearer(key), **EVERY).code == "ok"

    kw.accounts.suspend("newcomer")
    with pytest.raises(Conflict, match="suspended"):
        make(kw, account="newcomer")
    refused = kw.verify(bearer(key), **EVERY)
    assert (refused.code, refused.reason, kw.answer(refused).status) == (
        "account_suspended",
        "suspended",
        403,
    )

    kw.accounts.activate("newcomer")
    assert kw.verify(bearer(key), **EVERY).code == "ok"
    make(kw, account="newcomer")


@pytest.mark.parametrize(
    "username", ["", "Globex", "a b", "-a", "a" * 65, "ü", "a\n", None, "keywright", "globex"]
)
def test_a_username_that_cannot_be_is_refused(kw: Keywright, username: Any) -> None:
    """Names of another shape are invalid, taken ones a conflict, our own too; nothing is made."""
    before = contents(kw)

    with pytest.raises(Conflict if username in ("keywright", "globex") else Invalid):
        kw.accounts.create(username)

    assert contents(kw) == before


def test_our_own_account_and_keyspace_are_out_of_sight(kw: Keywright) -> None:
    """What belongs to Keywright itself is neither listed nor got nor suspended by the ordinary verbs."""
    assert "keywright" not in [account.username for account in kw.accounts.list().items]
    assert "keywright" not in [applied.keyspace.name for applied in kw.keyspaces.list()]
    for verb in (kw.accounts.get, kw.accounts.suspend, kw.accounts.activate, kw.keyspaces.get):
        with pytest.raises(NotFound):
            verb("keywright")


def test_accounts_are_listed_page_by_page(kw: Keywright) -> None:
    """Accounts come by username, filtered by state and text, each once."""
    for n in range(25):
        kw.accounts.create(f"customer-{n:02}", name=f"Customer {n}", pending=n % 2 == 0)
    found, cursor = [], None
    while True:
        page = kw.accounts.list(q="customer", state="pending", limit=5, cursor=cursor)
        found += [account.username for account in page.items]
        if (cursor := page.next_cursor) is None:
            break

    assert found == [f"customer-{n:02}" for n in range(0, 25, 2)]


# -------------------------------------------------------------------------------------------- parents and grants


@pytest.mark.requirement("P-14", "P-25")
@pytest.mark.security("T-20")
def test_a_key_cannot_give_more_than_it_has(kw: Keywright, clock: Clock) -> None:
    """A key makes keys of at most its own access, scopes, expiry and networks, in its own account and environment."""
    expiry = clock() + LATER
    narrow = make(
        kw, access="restricted", scopes=["things:read"], expires_at=expiry, allowed_ips=["10.0.0.0/8"]
    )
    by = record_of_bound(kw, narrow)
    fits: dict[str, Any] = {
        "access": "restricted", "scopes": ["things:read"], "expires_at": expiry, "allowed_ips": ["10.1.0.0/16"],
    }  # fmt: skip
    child = make(kw, by=by, **fits)
    assert child.key.parent == narrow.key.id
    assert [key.id for key in kw.keys.list(parent=narrow.key.id).items] == [child.key.id]

    before = contents(kw)
    for wide in (
        {"access": "all", "scopes": None},
        {"access": "read_only", "scopes": None},
        {"scopes": ["things:read", "things:write"]},
        {"expires_at": expiry + 1},
        {"expires_at": None},
        {"allowed_ips": []},
        {"allowed_ips": ["10.0.0.0/8", "192.0.2.1"]},
        {"allowed_ips": ["::/0"]},
        {"account": "initech"},
        {"environment": "staging"},
    ):
        with pytest.raises(Exceeds):
            make(kw, by=by, **(fits | wide))
        editable = {field: value for field, value in wide.items() if field not in ("account", "environment")}
        if editable:
            with pytest.raises(Exceeds):
                kw.keys.edit(child.key.id, by=by, **editable)
    assert contents(kw) == before


def record_of_bound(kw: Keywright, issued: Issued) -> KeyRecord:
    """A key's record, from a call out of its network."""
    verdict = kw.verify(bearer(issued), **EVERY, authenticate_only=True, ip="10.9.9.9")
    assert verdict.key is not None
    return verdict.key


@pytest.mark.requirement("P-25")
def test_reading_and_full_keys_give_what_they_hold(kw: Keywright) -> None:
    """A full key gives anything, a reading one gives reading and what reads, of the reserved scopes only what is granted."""
    full, reader = record_of(kw, make(kw)), record_of(kw, make(kw, access="read_only"))
    for fields in (
        {"access": "all"},
        {"access": "read_only"},
        {"access": "restricted", "scopes": ["things:write"]},
    ):
        make(kw, by=full, **fields)
    for fields in ({"access": "read_only"}, {"access": "restricted", "scopes": ["things:read"]}):
        make(kw, by=reader, **fields)
    for fields in ({"access": "all"}, {"access": "restricted", "scopes": ["things:write"]}):
        with pytest.raises(Exceeds):
            make(kw, by=reader, **fields)

    partna = record_of(kw, make(kw, keyspace="partna", access="read_only"), "partna")
    make(kw, keyspace="partna", by=partna, access="restricted", scopes=["keys:read"])
    with pytest.raises(Exceeds, match="keys:write"):
        make(kw, keyspace="partna", by=partna, access="restricted", scopes=["keys:write"])


# ----------------------------------------------------------------------------------------------- management keys


@pytest.mark.security("K-11", "T-65")
def test_management_keys_are_another_kind(kw: Keywright, key: Issued) -> None:
    """A management key is invalid for customers' keyspaces and a customer's key for ours; neither verb reaches the other."""
    issued = kw.keys.create_management(name="ops", scopes=["keys:read"])
    management = {"keyspace": "keywright", "environment": "production"}
    assert re.fullmatch(r"kw_[a-z]+_m[0-9A-Za-z]{15}", issued.key.id)
    assert kw.verify(bearer(issued), **management, scopes=["keys:read"]).code == "ok"
    assert kw.verify(bearer(issued), **management, scopes=["keys:write"]).code == "insufficient_scope"

    crossed = [kw.verify(bearer(issued), **EVERY), kw.verify(bearer(key), **management)]
    assert [(verdict.code, verdict.key) for verdict in crossed] == [("invalid", None)] * 2
    unknown = kw.verify({"Authorization": "Bearer nonsense"}, **EVERY, request_id=crossed[0].request_id)
    assert kw.answer(crossed[0]) == kw.answer(unknown)

    with pytest.raises(NotFound):
        kw.keys.get(issued.key.id)
    with pytest.raises(NotFound):
        kw.keys.get(key.key.id, reach=MANAGEMENT_KEYS)
    assert issued.key.id not in walk(kw)
    with pytest.raises(NotFound):
        walk(kw, keyspace="keywright")
    assert walk(kw, reach=MANAGEMENT_KEYS) == [issued.key.id]
    new = kw.keys.rotate(issued.key.id, reach=MANAGEMENT_KEYS)
    assert kw.verify(bearer(new), **management, scopes=["keys:read"]).code == "ok"
    kw.keys.delete(issued.key.id, reach=MANAGEMENT_KEYS)
    assert kw.verify(bearer(new), **management, scopes=["keys:read"]).code == "invalid"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"scopes": []}, Invalid),
        ({"scopes": ["things:read"]}, Invalid),
        ({"binding": Binding(account="nobody")}, NotFound),
        ({"binding": Binding(keyspace="nowhere")}, NotFound),
        ({"binding": Binding(keyspace="keywright")}, NotFound),
        ({"binding": Binding(environment="production")}, Invalid),
        ({"binding": Binding(keyspace="every", environment="moon")}, Invalid),
        ({"expires_at": 1}, Invalid),
    ],
)
def test_a_management_key_that_makes_no_sense_is_refused(
    kw: Keywright, fields: dict[str, Any], error: type[Exception]
) -> None:
    """Unknown scopes, and bindings to what is not there, are refused and leave nothing."""
    before = contents(kw)

    with pytest.raises(error):
        kw.keys.create_management(**({"name": "ops", "scopes": ["keys:read"]} | fields))

    assert contents(kw) == before


def test_a_binding_is_kept(kw: Keywright) -> None:
    """A management key's binding is stored, listed, and given to the door that asks whose key it is."""
    bound = Binding(account="globex", keyspace="every", environment="staging")
    issued = kw.keys.create_management(name="ops", scopes=["keys:read"], binding=bound)

    ask = Ask("keywright", "production", ("keys:read",))
    from keywright.schemes import from_mapping

    verdict = kw.installation.engine.verify(ask, from_mapping(bearer(issued)), kw.installation.clock())
    assert verdict.key is not None
    assert verdict.key.binding == issued.key.binding == bound
    assert reach_of(verdict.key.binding) == Reach(account="globex", keyspace="every", environment="staging")


def test_who_made_a_key_is_kept(kw: Keywright) -> None:
    """A key remembers its maker, and the audit entry of its making says what it was made with and never its secret."""
    actor = Actor("management_key", "kw_live_m000000000000000", "192.0.2.3", "req_9")
    issued = make(kw, actor=actor)

    told = kw.installation.trail.list(limit=1).items[0]
    assert issued.key.created_by == "management_key:kw_live_m000000000000000"
    assert told["detail"] == {
        "name": "CRM sync", "environment": "production", "access": "all", "scopes": [], "expires_at": None, "keyspace": "every",
    }  # fmt: skip
    assert issued.credential.token.reveal()[-38:-6] not in repr(kw.installation.trail.list(limit=200).items)
    assert issued.credential.token.reveal() not in repr(issued)


@pytest.mark.parametrize(
    ("doing", "state", "action"),
    [
        ("disable", "disabled", "key.disable"),
        ("invalidate", "invalidated", "key.invalidate"),
        ("delete", None, "key.delete"),
    ],
)
def test_several_at_once(kw: Keywright, doing: str, state: str | None, action: str) -> None:
    """Those that can be are changed, each told in the trail; what is gone, ended or somebody else's is passed over."""
    mine = [make(kw, name=f"Mine {n}").key.id for n in range(3)]
    ended, gone = make(kw, name="Ended").key.id, make(kw, name="Gone").key.id
    foreign = make(kw, account="initech").key.id
    kw.keys.invalidate(ended)
    kw.keys.delete(gone)
    before = kw.installation.trail.head().seq

    done = kw.keys.several(doing, [*mine, ended, gone, foreign, "nothing"], reach=Reach(account="globex"))

    changed = {*mine} if doing == "disable" else {*mine, ended}
    assert set(done.done) == changed
    assert list(done.passed_over) == [one for one in (ended, gone, foreign, "nothing") if one not in changed]
    told = [one for one in kw.installation.trail.list(limit=50).items if one["seq"] > before]
    assert {one["action"] for one in told} == {action}
    assert {one["target_id"] for one in told} == {*mine, *([ended] if doing == "delete" else [])}
    assert {key.state for key in kw.keys.list(q="mine").items} == ({state} if state else set())
    assert kw.keys.get(foreign).state == "active"


def test_several_are_refused_together(kw: Keywright) -> None:
    """Where one of them is in a keyspace that a role closes, or the verb is none of the four, nothing is changed."""
    mine, closed = make(kw).key.id, make(kw, keyspace="fullwhere").key.id

    with pytest.raises(Forbidden):
        kw.keys.several(
            "disable", [mine, closed], reach=Reach(account="globex", closed=frozenset({"fullwhere"}))
        )
    for doing, named in (("rotate", [mine]), ("disable", [mine] * 201)):
        with pytest.raises(Invalid):
            kw.keys.several(doing, named)
    assert {kw.keys.get(one).state for one in (mine, closed)} == {"active"}
