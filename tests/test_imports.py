"""Credentials of an earlier system go on working: found by a keyed digest, proven like any other, replaced by rotating."""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import EVERY, again, bearer, make, sql
from keywright import Keywright
from keywright.credential import spell_token
from keywright.desk.grants import Reach
from keywright.errors import Invalid, NotFound
from keywright.model import Imported
from keywright.store import keys
from keywright.testing import Clock
from keywright.throttle import Allowance
from surfaces import Door, manager, served, server
from test_installation import own_secret

pytestmark = pytest.mark.stores

TOKEN = "legacy_" + "Ab3-" * 8
OTHER = "legacy_" + "Zz9-" * 8
BEFORE = f'{EVERY}\n[imported]\nprefixes = ["legacy_"]\nshortest = 24\n'
MOST_FAILURES = Allowance().failures


@pytest.fixture
def moved(kw: Keywright) -> Keywright:
    """An installation whose keyspace ``every`` takes credentials of the system before it."""
    kw.keyspaces.apply(BEFORE)
    return kw


def sha(token: str, name: str = "sha256") -> str:
    """What the system before kept."""
    return f"{name}:{hashlib.new(name, token.encode()).hexdigest()}"


def bring(kw: Keywright, *items: dict[str, Any], **over: Any) -> Imported:
    """Import keys of globex, in ``every``, production."""
    place = {"keyspace": "every", "account": "globex", "environment": "production"} | over
    return kw.keys.import_([{"name": f"Old {n}"} | item for n, item in enumerate(items)], **place)


def told(kw: Keywright, headers: dict[str, str], **over: Any) -> str:
    """What a request is told."""
    place = {"keyspace": "every", "environment": "production", "authenticate_only": True} | over
    return kw.verify(headers, **place).code


def sent(token: str) -> dict[str, str]:
    """A token as Bearer."""
    return {"Authorization": f"Bearer {token}"}


# -------------------------------------------------------------------------------------------------------- at the door


@pytest.mark.parametrize("kept", ["token", "hexadecimal", "bare", "base64", "capitals"])
def test_a_credential_of_the_earlier_system_opens_its_key(moved: Keywright, kept: str) -> None:
    """Whether its text was imported or what was kept of it, however that is written; and no other does."""
    digest = hashlib.sha256(TOKEN.encode())
    item = {
        "token": {"token": TOKEN},
        "hexadecimal": {"hash": sha(TOKEN)},
        "bare": {"hash": digest.hexdigest()},
        "base64": {"hash": "sha256:" + b64encode(digest.digest()).decode()},
        "capitals": {"hash": digest.hexdigest().upper()},
    }[kept]
    (made,) = bring(moved, item).items
    assert made.status == "made"
    verdict = moved.verify(sent(TOKEN), keyspace="every", environment="production", authenticate_only=True)
    assert (verdict.code, verdict.key and verdict.key.id) == ("ok", made.id)
    assert (
        told(moved, sent(OTHER))
        == told(moved, sent(TOKEN[:-1]))
        == told(moved, sent(TOKEN + "x"))
        == "invalid"
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"bearer {TOKEN}"},
        {"Authorization": f"Api-Key {TOKEN}"},
        {"Api-Key": TOKEN},
        {"X-Token": TOKEN},
        {"x-api-key": TOKEN, "x-api-user": "globex"},
    ],
)
def test_it_rides_in_every_scheme_that_carries_a_token(moved: Keywright, headers: dict[str, str]) -> None:
    """As a token of ours does; of a user it says the right one or is refused."""
    bring(moved, {"token": TOKEN})
    assert told(moved, headers) == "ok"
    if "x-api-user" in headers:
        assert told(moved, headers | {"x-api-user": "initech"}) == "invalid"


@pytest.mark.parametrize(
    "url", [f"/things?q={TOKEN}", f"/things/{TOKEN}", f"/t?x={TOKEN.replace('_', '%5F')}"]
)
def test_in_an_address_it_is_refused_as_ours_are(moved: Keywright, url: str) -> None:
    """Where it can be told from other text: by how it begins."""
    bring(moved, {"token": TOKEN})
    assert told(moved, sent(TOKEN), url=url) == "ambiguous"
    assert told(moved, sent(TOKEN), url="/things/legacy_short") == "ok"


def test_what_it_may_do_is_decided_as_for_any_key(moved: Keywright) -> None:
    """Environment, scopes, limits, state: an imported credential is an ordinary key's."""
    (made,) = bring(
        moved, {"token": TOKEN, "access": "restricted", "scopes": ["things:read"], "limits": ["1/day"]}
    ).items
    asked = {"authenticate_only": False, "scopes": ["things:read"]}
    assert told(moved, sent(TOKEN), environment="staging") == "wrong_environment"
    assert told(moved, sent(TOKEN), authenticate_only=False, scopes=["things:write"]) == "insufficient_scope"
    assert [told(moved, sent(TOKEN), **asked) for _ in range(2)] == ["ok", "quota_exhausted"]
    assert made.id is not None
    moved.keys.invalidate(made.id)
    assert told(moved, sent(TOKEN), **asked) == "invalidated"
    moved.keys.delete(made.id)
    assert told(moved, sent(TOKEN), **asked) == "invalid"


def test_a_remembered_one_asks_the_store_for_nothing(moved: Keywright) -> None:
    """Nor does one whose key was rotated since, nor one that is unknown."""
    (made,) = bring(moved, {"token": TOKEN}).items
    assert (told(moved, sent(TOKEN)), told(moved, sent(OTHER))) == ("ok", "invalid")
    before = moved.installation.lookup.statements
    assert (told(moved, sent(TOKEN)), told(moved, sent(OTHER))) == ("ok", "invalid")
    assert moved.installation.lookup.statements == before
    assert made.id is not None
    moved.keys.rotate(made.id, grace_seconds=3600)
    assert told(moved, sent(TOKEN)) == "ok"
    before = moved.installation.lookup.statements
    assert told(moved, sent(TOKEN)) == "ok"
    assert moved.installation.lookup.statements == before


@pytest.mark.security("T-26")
def test_one_that_was_refused_a_moment_before_opens_once_it_is_imported(moved: Keywright) -> None:
    """In this process and in another: what is remembered of nobody ends with the import."""
    with again(moved) as other:
        assert told(moved, sent(TOKEN)) == told(other, sent(TOKEN)) == "invalid"
        bring(moved, {"hash": sha(TOKEN)})
        assert told(moved, sent(TOKEN)) == told(other, sent(TOKEN)) == "ok"


def test_an_event_loop_gets_the_same_answers(moved: Keywright) -> None:
    """Cold and warm, known and unknown, fifty at once."""
    bring(moved, {"token": TOKEN})

    async def ask() -> list[str]:
        place: dict[str, Any] = {"keyspace": "every", "environment": "production", "authenticate_only": True}
        many = [moved.averify(sent(token), **place) for token in [TOKEN, OTHER] * 25]
        return [verdict.code for verdict in await asyncio.gather(*many)]

    with again(moved):
        assert asyncio.run(ask()) == ["ok", "invalid"] * 25


def test_without_the_definition_it_is_none(moved: Keywright) -> None:
    """A host that has moved takes ``[imported]`` out, and what is left of the earlier system opens nothing more."""
    bring(moved, {"token": TOKEN})
    moved.keyspaces.apply(EVERY)
    assert told(moved, sent(TOKEN)) == "invalid"
    (refused,) = bring(moved, {"token": OTHER}).items
    assert (refused.status, refused.path) == ("refused", "token")
    assert "has no [imported]" in (refused.detail or "")


# ------------------------------------------------------------------------------------------------------------ rotating


@pytest.mark.security("K-12")
def test_rotating_replaces_it_by_one_of_ours(moved: Keywright, clock: Clock) -> None:
    """Under the same id, with the grace that was given; afterwards the earlier one is told so."""
    (made,) = bring(moved, {"token": TOKEN}).items
    assert made.id is not None
    rotated = moved.keys.rotate(made.id, grace_seconds=3600)
    assert rotated.key.id == made.id
    assert (told(moved, sent(TOKEN)), told(moved, bearer(rotated))) == ("ok", "ok")
    clock.advance(seconds=3600)
    assert (told(moved, sent(TOKEN)), told(moved, bearer(rotated))) == ("rotated", "ok")


# -------------------------------------------------------------------------------------------------------------- dotted


def test_a_key_of_djangorestframework_api_key_keeps_its_id(kw: Keywright) -> None:
    """What version 3 keeps is enough: prefix and SHA-512 of the whole key."""
    token = "n58lzyb1." + "Q" * 32
    item = {
        "id": "n58lzyb1",
        "hash": "sha512$$" + hashlib.sha512(token.encode()).hexdigest(),
        "access": "all",
    }
    (made,) = bring(kw, item, keyspace="atfinity").items
    assert (made.status, made.id) == ("made", "n58lzyb1")
    place = {"keyspace": "atfinity", "environment": kw.keys.get("n58lzyb1").environment}
    assert told(kw, {"Authorization": f"Api-Key {token}"}, **place) == "ok"
    assert told(kw, {"Authorization": f"Api-Key {token[:-1]}R"}, **place) == "invalid"
    before = kw.installation.lookup.statements
    assert told(kw, {"Authorization": f"Api-Key {token}"}, **place) == "ok"
    assert kw.installation.lookup.statements == before


def test_a_token_of_another_installation_keeps_its_id(moved: Keywright) -> None:
    """Ours need no ``[imported]``; one of another keyspace or environment, or mistyped, is refused."""
    key_id, secret = "every_live_kAAAAAAAAAAAAAAB", "s" * 32
    token = spell_token(key_id, secret)
    wrong = [
        spell_token("every_stg_kAAAAAAAAAAAAAAB", secret),
        spell_token("shop_live_kAAAAAAAAAAAAAAB", secret),
        token[:-1] + ("0" if token[-1] != "0" else "1"),
    ]
    found = bring(moved, {"token": token}, *({"token": one} for one in wrong)).items
    assert [item.status for item in found] == ["made", "refused", "refused", "refused"]
    assert (found[0].id, told(moved, sent(token))) == (key_id, "ok")


# ------------------------------------------------------------------------------------------------- what comes in


def test_an_import_that_was_cut_off_is_begun_again(moved: Keywright) -> None:
    """What was made is there, and told so; what could not be is refused by itself, with the field at fault."""
    items = [
        {"token": TOKEN},
        {"token": OTHER, "access": "some"},
        {"hash": "sha256:12"},
        {"name": "", "token": OTHER},
    ]
    first = bring(moved, *items)
    assert [(item.status, item.path) for item in first.items] == [
        ("made", None), ("refused", "access"), ("refused", "hash"), ("refused", "name"),
    ]  # fmt: skip
    again_ = bring(moved, items[0], {"token": OTHER}, {"token": OTHER})
    assert [item.status for item in again_.items] == ["exists", "made", "exists"]
    assert again_.items[0].id == first.items[0].id
    assert again_.items[1].id == again_.items[2].id


def test_a_dry_run_makes_nothing(moved: Keywright) -> None:
    """And says what would have been."""
    done = bring(moved, {"token": TOKEN}, {}, dry_run=True)
    assert [(item.status, item.id) for item in done.items] == [("made", None), ("refused", None)]
    assert told(moved, sent(TOKEN)) == "invalid"
    assert moved.keys.list(keyspace="every").items == ()


@pytest.mark.parametrize(
    ("item", "path"),
    [
        ({}, "token"),
        ({"token": TOKEN, "hash": sha(TOKEN)}, "token"),
        ({"token": 7}, "token"),
        ({"token": "legacy_short"}, "token"),
        ({"token": "pk_live_" + "A" * 40}, "token"),
        ({"token": TOKEN + " "}, "token"),
        ({"token": TOKEN + ","}, "token"),
        ({"token": TOKEN + "é"}, "token"),
        ({"token": TOKEN * 20}, "token"),
        ({"token": TOKEN, "hint": "abcd"}, "hint"),
        ({"token": TOKEN, "id": "n58lzyb1"}, "id"),
        ({"hash": sha(TOKEN), "id": "n58lzyb1"}, "id"),
        ({"hash": sha(TOKEN), "hint": "abcde"}, "hint"),
        ({"hash": sha(TOKEN, "sha512")}, "hash"),
        ({"hash": "md5:" + "0" * 32}, "hash"),
        ({"hash": "sha256:" + "0" * 63}, "hash"),
        ({"hash": "sha256:" + "g" * 64}, "hash"),
        ({"hash": ""}, "hash"),
        ({"token": TOKEN, "plan": "none"}, "plan"),
        ({"token": TOKEN, "scopes": "things:read"}, "scopes"),
        ({"token": TOKEN, "scopes": [7]}, "scopes"),
        ({"token": TOKEN, "limits": [7]}, "limits"),
        ({"token": TOKEN, "expires_at": "soon"}, "expires_at"),
        ({"token": TOKEN, "expires_at": 0}, "expires_at"),
        ({"token": TOKEN, "metadata": []}, "metadata"),
        ({"token": TOKEN, "mac": "x"}, "mac"),
        ({"token": TOKEN, "environment": "moon"}, "environment"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_its_field(
    moved: Keywright, item: dict[str, Any], path: str
) -> None:
    """And nothing of it is made."""
    (refused,) = bring(moved, item).items
    assert (refused.status, refused.code, refused.path) == ("refused", "invalid_request", path)
    assert TOKEN not in (refused.detail or "")


def test_a_credential_that_another_key_has_is_refused(moved: Keywright) -> None:
    """Whose it is, nobody is told; nor does the credential of a deleted key come back."""
    bring(moved, {"token": TOKEN}, account="initech")
    (refused,) = bring(moved, {"token": TOKEN}).items
    assert (refused.status, refused.code, refused.id) == ("refused", "conflict", None)
    (made,) = bring(moved, {"token": OTHER}).items
    assert made.id is not None
    moved.keys.delete(made.id)
    assert bring(moved, {"token": OTHER}).items[0].status == "refused"
    with moved.installation.database.write() as tx:
        sql(tx, "UPDATE keys SET deleted_at = 0 WHERE id = ?", made.id)
    assert moved.keys.purge(older_than=0) == 1
    assert bring(moved, {"token": OTHER}).items[0].status == "made"


@pytest.mark.security("T-20")
def test_whoever_imports_is_held_to_what_they_reach(moved: Keywright) -> None:
    """A bound caller's foreign account does not exist for them, and a whole that cannot be is refused as one."""
    bound = Reach(account="initech")
    (refused,) = bring(moved, {"token": TOKEN}, reach=bound).items
    assert (refused.status, refused.code) == ("refused", "not_found")
    with pytest.raises(NotFound):
        bring(moved, {"token": TOKEN}, keyspace="nowhere")
    with pytest.raises(Invalid, match="more than 200"):
        bring(moved, *[{"token": TOKEN}] * 201)


# ------------------------------------------------------------------------------------------------------------ the store


@pytest.mark.security("K-05")
@pytest.mark.sqlite_only("files are searched")
def test_neither_it_nor_its_digest_is_stored(moved: Keywright, tmp_path: Path) -> None:
    """Nothing in any file lets anybody test a guess."""
    bring(moved, {"token": TOKEN})
    assert told(moved, sent(TOKEN)) == "ok"
    moved.installation.database.checkpoint()
    digest = hashlib.sha256(TOKEN.encode())
    wanted = [TOKEN.encode(), digest.digest(), digest.hexdigest().encode()]
    held = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert [one for one in wanted if one in held] == []
    assert b"Old 0" in held


@pytest.mark.security("T-53")
def test_whoever_writes_the_database_cannot_lead_it_to_another_key(moved: Keywright) -> None:
    """The MAC is over the key's id: a tag or a MAC in another row proves nothing."""
    large, (made,) = make(moved), bring(moved, {"token": TOKEN}).items
    with moved.installation.database.write() as tx:
        sql(tx, "UPDATE imported SET key_id = ?", large.key.id)
        sql(
            tx,
            "UPDATE secrets SET mac = (SELECT mac FROM secrets WHERE key_id = ?) WHERE key_id = ?",
            made.id,
            large.key.id,
        )
    assert told(moved, sent(TOKEN)) == "invalid"


def test_a_tag_that_leads_nowhere_harms_nobody_else(moved: Keywright) -> None:
    """A damaged row is that key's alone."""
    bring(moved, {"token": TOKEN}, {"token": OTHER})
    tag = moved.installation.keyring.peppers
    assert len(tag) == 1
    with moved.installation.database.write() as tx:
        sql(tx, "UPDATE keys SET scopes = 'x' WHERE name = 'Old 0'")
    assert (told(moved, sent(TOKEN)), told(moved, sent(OTHER))) == ("unavailable", "ok")


@pytest.mark.security("T-25", "T-26")
def test_a_flood_costs_no_look_up_and_shuts_nobody_out(moved: Keywright) -> None:
    """Of a source over its limit, unknown ones are not looked up; right ones open, imported before the flood or since."""
    bring(moved, {"token": TOKEN})
    here: dict[str, Any] = {"keyspace": "every", "environment": "production", "ip": "203.0.113.9"}

    def flood(many: int) -> None:
        for n in range(many):
            moved.verify(sent(f"legacy_{n:032}"), **here)

    flood(MOST_FAILURES + 1)
    moved.installation.engine._clerks().submit(int).result()  # until the roll is called
    before = moved.installation.lookup.statements
    flood(500)
    assert moved.installation.lookup.statements - before <= 10
    bring(moved, {"token": OTHER})
    assert told(moved, sent(TOKEN), **here) == told(moved, sent(OTHER), **here) == "ok"


# ------------------------------------------------------------------------------------------------------- its surfaces


@pytest.fixture
def door(moved: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(moved)) as opened:
        yield opened


def test_over_http_items_are_answered_one_by_one(moved: Keywright, door: Door) -> None:
    """With ids and reasons, counted; wrong types are an item's own fault, and no secret is in the answer."""
    whole = {"keyspace": "every", "account": "globex", "environment": "production"}
    items = [
        {"name": "One", "token": TOKEN, "expires_at": "2028-01-01T00:00:00Z"},
        {"name": 7, "hash": sha(OTHER)},
    ]
    reply = door.json("POST", "/v1/keys/import", whole | {"items": items}, manager(moved))
    assert (reply.status, reply.get("cache-control")) == (200, "no-store")
    told_ = reply.json
    assert (told_["made"], told_["exists"], told_["refused"], told_["propagation"]["exact"]) == (
        1,
        0,
        1,
        True,
    )
    assert [(item["status"], item["code"], item["path"]) for item in told_["items"]] == [
        ("made", None, None),
        ("refused", "invalid_request", "name"),
    ]
    assert TOKEN.encode() not in reply.body
    asked = {"keyspace": "every", "environment": "production", "token": TOKEN, "authenticate_only": True}
    verdict = door.json("POST", "/v1/verify", asked, manager(moved)).json
    assert (verdict["valid"], verdict["key"]["id"]) == (True, told_["items"][0]["id"])
    assert moved.keys.get(verdict["key"]["id"]).expires_at is not None


@pytest.mark.security("T-17", "T-18")
def test_a_bound_caller_imports_into_its_own_account_only(moved: Keywright, door: Door) -> None:
    """Whatever an item says; and reading scopes import nothing."""
    whole = {"keyspace": "every", "environment": "production"}
    items = [{"name": "One", "token": TOKEN}, {"name": "Two", "token": OTHER, "account": "initech"}]
    headers = manager(moved, "keys:write", account="globex")
    told_ = door.json("POST", "/v1/keys/import", whole | {"items": items}, headers).json
    assert [(item["status"], item["code"]) for item in told_["items"]] == [
        ("made", None),
        ("refused", "not_found"),
    ]
    for refused in (
        door.json("POST", "/v1/keys/import", whole | {"items": items}, manager(moved, "keys:read")),
        door.json("POST", "/v1/keys/import", whole | {"items": items}),
    ):
        assert refused.status in (401, 403)


@pytest.mark.security("S-07")
def test_a_report_of_a_leak_ends_it(moved: Keywright, door: Door) -> None:
    """Whoever found it where it should not be need not know that it is not of our making."""
    moved.keyspaces.apply(BEFORE.replace('title = "Every"', 'title = "Every"\nleaks = "invalidate"', 1))
    bring(moved, {"token": TOKEN}, {"token": OTHER})
    reply = door.json("POST", "/v1/leaks/report", {"tokens": ["x", TOKEN, OTHER[:-1]]}, peer="192.0.2.7")
    assert reply.status == 202
    moved.installation.lookout.round()
    assert (told(moved, sent(TOKEN)), told(moved, sent(OTHER))) == ("invalidated", "ok")


def test_the_library_over_http_imports_as_well(moved: Keywright) -> None:
    """With instants as they are everywhere in the library, and the same answer."""
    with served(server(moved)) as port:
        key = manager(moved)["Authorization"].removeprefix("Bearer ")
        with Keywright.connect(
            f"http://127.0.0.1:{port}", key=key, keyspace="every", environment="production"
        ) as far:
            item = {"name": "One", "token": TOKEN, "expires_at": Clock()() + 60_000_000}
            done = far.keys.import_([item, {"token": OTHER}], account="globex")
            assert [(one.status, one.path) for one in done.items] == [("made", None), ("refused", "name")]
            assert (
                far.keyspaces.get("every").keyspace.imported == moved.keyspaces.get("every").keyspace.imported
            )
    assert told(moved, sent(TOKEN)) == "ok"


# ------------------------------------------------------------------------------------- the installation's secret rotates


def under(kw: Keywright, *entries: str) -> Keywright:
    """The same installation, opened with these entries of its secret."""
    return again(kw, secret=" ".join(entries))


@pytest.mark.security("K-06")
def test_they_move_to_a_new_secret_as_they_are_used(moved: Keywright) -> None:
    """Imported ones are found and proven under the earlier entry, moved by their use, and then need it no more."""
    own, new = own_secret(moved), "2:" + "2b" * 32
    dotted = "n58lzyb1." + "Q" * 32
    bring(moved, {"token": TOKEN})
    bring(moved, {"id": "n58lzyb1", "hash": sha(dotted, "sha512"), "access": "all"}, keyspace="atfinity")
    place = {"keyspace": "atfinity", "environment": moved.keys.get("n58lzyb1").environment}
    as_dotted = {"Authorization": f"Api-Key {dotted}"}

    with under(moved, own, new) as both:
        assert bring(both, {"token": TOKEN}).items[0].status == "exists"
        for _ in range(2):
            assert (told(both, sent(TOKEN)), told(both, as_dotted, **place)) == ("ok", "ok")
            both.installation.engine.close()  # what was begun is finished
        with both.installation.database.read() as connection:
            assert keys.peppers(connection) == {2: 2}
    with under(moved, new) as after:
        assert (told(after, sent(TOKEN)), told(after, as_dotted, **place)) == ("ok", "ok")
        assert told(after, sent(OTHER)) == "invalid"


@pytest.mark.security("K-06")
def test_a_worker_without_the_new_entry_says_unavailable(moved: Keywright) -> None:
    """Of one that was moved to an entry unknown here nobody can tell whether it is right."""
    own, new = own_secret(moved), "2:" + "2b" * 32
    bring(moved, {"token": TOKEN})
    with under(moved, own) as behind, under(moved, own, new) as both:
        assert told(both, sent(TOKEN)) == "ok"
        both.installation.engine.close()
        assert (told(behind, sent(TOKEN)), told(behind, sent(OTHER))) == ("unavailable", "invalid")
