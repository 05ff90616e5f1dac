"""What a stranger can learn from an answer: nothing. Before proof there are three answers, each the same to the byte."""

import itertools
import re
from base64 import b64encode
from collections.abc import Callable, Iterator

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright, credential, policy
from keywright.testing import Clock
from surfaces import Door, Given, Reply, manager, server, token

_REQUEST_ID = re.compile(rb"req_[0-9a-f]{20}")


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def seen(reply: Reply) -> tuple[int, tuple[tuple[bytes, bytes], ...], bytes]:
    """Everything of an answer but its request id, whose length never varies."""
    return reply.status, tuple(reply.headers), _REQUEST_ID.sub(b"req", reply.body)


def wrong(issued: Issued) -> str:
    """A token with this key's id, another secret and a right checksum."""
    return credential.spell_token(issued.key.id, credential.new_secret())


def states(kw: Keywright, clock: Clock) -> dict[str, Issued]:
    """A key in every state there is."""
    found = {name: make(kw) for name in ("active", "disabled", "invalidated", "deleted", "rotated")}
    found["expired"] = make(kw, expires_at=clock() + 1_000_000)
    found["staging"] = make(kw, environment="staging")
    found["suspended"] = make(kw, account="initech")
    found["restricted"] = make(kw, access="restricted", scopes=["things:read"])
    found["away"] = make(kw, allowed_ips=["203.0.113.0/24"])
    found["exhausted"] = make(kw, limits=["0/day"])
    kw.keys.disable(found["disabled"].key.id)
    kw.keys.invalidate(found["invalidated"].key.id)
    kw.keys.delete(found["deleted"].key.id)
    kw.keys.rotate(found["rotated"].key.id)
    kw.accounts.suspend("initech")
    clock.advance(seconds=2)
    return found


def ways(door: Door, caller: dict[str, str]) -> dict[str, Callable[[Given], Reply]]:
    """The doors at which a stranger can knock with headers."""
    family = [("X-Forwarded-Method", "DELETE"), ("X-Forwarded-Uri", "/things/1")]
    return {
        "whoami": lambda headers: door.get("/k/every.production/whoami", headers),
        "gate": lambda headers: door.get("/authz/forward/shop", [*family, *headers]),
        "plain gate": lambda headers: door.get("/authz/forward/every.production", [*family, *headers]),
        "management": lambda headers: door.get("/v1/keys", headers),
        "verify": lambda headers: door.json("POST", "/v1/verify", {"keyspace": "every"}, headers),
    }


@pytest.mark.requirement("X-06", "G-11")
@pytest.mark.security("K-03", "T-22")
def test_whatever_is_not_proven_reads_the_same(door: Door, kw: Keywright, clock: Clock) -> None:
    """A wrong secret for a key in any state, an unknown id, a broken one: one answer, though the action is forbidden too."""
    keys, caller = states(kw, clock), manager(kw)
    unknown = credential.spell_token(credential.new_id("every", "live"), credential.new_secret())
    right = token(keys["active"])
    tried = {name: wrong(key) for name, key in keys.items()}
    tried |= {
        "unknown": unknown,
        "unknown again": unknown,
        "other prefix": credential.spell_token(credential.new_id("nothing", "live"), credential.new_secret()),
        "a management key": caller["Authorization"][7:],
        "an unknown management key": credential.spell_token(
            credential.new_id("kw", "live", "m"), credential.new_secret()
        ),
        "bad checksum": right[:-1] + ("A" if right[-1] != "A" else "B"),
        "too short": right[:-1],
        "too long": right * 10,
        "another case": right.swapcase(),
        "quoted": f"“{right}”".encode().decode("latin-1"),
        "noise": "x",
        "dotted": "n58lzybi.1M2baTIHuRgPGbzdZC3Zch0b8VC2etL0",
        "another keyspace's": token(make(kw, keyspace="default")),
        "proven, deleted": token(keys["deleted"]),
    }
    for door_name, knock in ways(door, caller).items():
        if door_name in ("management", "verify"):
            tried.pop("a management key", None)  # the one that opens there
        for carrier in ("X-Token", "Authorization"):
            if carrier == "X-Token" and door_name in ("management", "verify"):
                continue
            form = "{}" if carrier == "X-Token" else "Bearer {}"
            for _ in range(2):  # from the store, then from memory
                found = {name: seen(knock([(carrier, form.format(value))])) for name, value in tried.items()}

                assert len(set(found.values())) == 1, door_name
                assert found["unknown"][0] == 401


@pytest.mark.requirement("X-06")
@pytest.mark.security("K-03", "T-22")
def test_wrong_pairs_read_the_same(door: Door, kw: Keywright, clock: Clock) -> None:
    """The pairs, Basic, and key with username: unknown, wrong, crossed, foreign are one answer."""
    keys = states(kw, clock)
    active = keys["active"].credential
    assert active.secret is not None
    sent: list[list[tuple[str, str]]] = []
    for issued in keys.values():
        secret = credential.spell_pair_secret(issued.key.id, credential.new_secret())
        sent += [
            [("X-API-KEY", issued.key.id), ("X-API-SECRET", secret)],
            [("apiKey", issued.key.id), ("apiSecret", secret)],
            [("Authorization", "Basic " + b64encode(f"{issued.key.id}:{secret}".encode()).decode())],
            [("x-api-key", wrong(issued)), ("x-api-user", "globex")],
        ]
    sent += [
        [("X-API-KEY", keys["expired"].key.id), ("X-API-SECRET", active.secret.reveal())],
        [("X-API-KEY", "x"), ("X-API-SECRET", active.secret.reveal())],
        [("X-API-KEY", active.id), ("X-API-SECRET", active.token.reveal())],
        [("X-API-KEY", active.token.reveal()), ("X-API-SECRET", active.secret.reveal())],
        [("Authorization", "Basic ?")],
        [("x-api-key", active.token.reveal()), ("x-api-user", "nobody")],
        [("x-api-key", active.token.reveal()), ("x-api-user", "initech")],
        [("x-api-key", active.token.reveal()), ("x-api-user", "é")],
        [("x-api-key", token(keys["disabled"])), ("x-api-user", "initech")],
    ]
    for knock in itertools.islice(ways(door, {}).values(), 3):
        assert len({seen(knock(headers)) for headers in sent}) == 1


@pytest.mark.security("K-03")
def test_the_other_two_answers_are_constant_too(door: Door, kw: Keywright, key: Issued) -> None:
    """``missing`` and ``ambiguous`` are each one answer, whether what was sent is right, wrong or nothing."""
    right = token(key)
    none: list[list[tuple[str, str]]] = [
        [],
        [("X-Token", "")],
        [("X-API-KEY", key.key.id)],
        [("X-API-KEY", right)],
        [("X-API-SECRET", "x")],
        [("x-api-user", "globex")],
        [("x-api-user", "nobody")],
        [("Authorization", "Bearer")],
        [("Authorization", "Digest x")],
    ]
    two = [
        [("X-Token", right), ("X-Token", right)],
        [("X-Token", "x"), ("X-Token", "y")],
        [("X-Token", right), ("Authorization", f"Bearer {right}")],
        [("X_Token", "x")],
        [("X_Token", right), ("X-Token", right)],
        [("X-API-KEY", right), ("X-API-SECRET", "x"), ("x-api-user", "globex")],
        [("X-Token", f"{right},{right}")],
    ]
    for knock in itertools.islice(ways(door, {}).values(), 3):
        for headers, code in ((none, "missing"), (two, "ambiguous")):
            found = {seen(knock(sent)) for sent in headers}

            assert len(found) == 1
            assert knock(headers[0]).code == code


@pytest.mark.requirement("X-06")
def test_the_three_answers_say_how_to_ask(door: Door, kw: Keywright, key: Issued) -> None:
    """Each lists every header set that the keyspace accepts, names no state, and has one challenge, never Basic."""
    sets = [
        "`Authorization: Bearer <token>`", "`X-API-KEY: <id>` and `X-API-SECRET: <secret>`", "`X-Token: <token>`",
        "`x-api-key: <token>` and `x-api-user: <account username>`", "`Api-Key: <token>`", "quotes and spaces",
    ]  # fmt: skip
    for headers, code in (
        ([], "missing"),
        ([("X-Token", "x")], "invalid"),
        ([("X-Token", "x")] * 2, "ambiguous"),
    ):
        reply = door.get("/k/every.production/whoami", headers)

        assert reply.code == code
        assert all(part in reply.json["detail"] for part in sets)
        assert str(reply.get("www-authenticate")).startswith('Bearer realm="Every"')
        assert "basic" not in str(reply.headers).lower()
        assert re.search("revoked|deleted|disabled|expired|unknown|checksum", reply.body.decode()) is None


@pytest.mark.security("T-16")
def test_one_id_with_another_secret_is_another_answer(door: Door, kw: Keywright, key: Issued) -> None:
    """A right answer that is remembered helps nobody with the same id, whichever comes first."""
    for value, status in ((token(key), 200), (wrong(key), 401), (token(key), 200), (wrong(key), 401)):
        assert door.get("/k/every.production/whoami", {"X-Token": value}).status == status


@pytest.mark.security("T-26")
def test_an_unknown_id_asked_before_it_was_made(
    door: Door, kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that was asked for in vain works at once when it is then made."""
    from keywright.desk import keys as desk

    key_id = credential.new_id("every", "live")
    early = credential.spell_token(key_id, credential.new_secret())
    assert door.get("/k/every.production/whoami", {"X-Token": early}).status == 401
    monkeypatch.setattr(desk.credential, "new_id", lambda *_: key_id)

    made = make(kw)

    assert made.key.id == key_id
    assert door.get("/k/every.production/whoami", bearer(made)).status == 200


def test_the_published_sample_is_refused(door: Door, kw: Keywright) -> None:
    """The key in atfinity's public documentation, as printed there and in its quotes, opens nothing."""
    sample = "n58lzybi.1M2baTIHuRgPGbzdZC3Zch0b8VC2etL0"
    for value in (sample, f"’{sample}’".encode().decode("latin-1"), f"'{sample}'"):
        for headers in ({"Authorization": f"Api-Key {value}"}, {"Api-Key": value}):
            reply = door.get("/k/atfinity.production/whoami", headers)

            assert (reply.status, reply.code) == (401, "invalid")
            assert "quotes" in reply.json["detail"]


@pytest.mark.requirement("P-12")
def test_partnas_errors_are_a_message(door: Door, kw: Keywright) -> None:
    """In a keyspace whose profile says so a refusal is JSON with ``message``, code and request id."""
    reply = door.get("/k/partna.production/whoami")

    assert (reply.status, reply.get("content-type"), reply.code) == (401, "application/json", "missing")
    assert set(reply.json) == {"message", "data"}
    assert reply.json["data"]["request_id"].startswith("req_")


@pytest.mark.security("T-21")
def test_an_unknown_id_takes_the_same_steps_as_a_known_one(
    kw: Keywright, key: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a wrong secret and of an unknown id the MAC comes first, then one comparison, and the check characters: no step
    is missing in either, at the first and at every later try. The difference in time is a row of the benchmarks.
    """
    steps: list[str] = []

    def noted(name: str, of: object, step: str) -> None:
        whole = getattr(of, name)

        def note(*given: object, **named: object) -> object:
            steps.append(step)
            return whole(*given, **named)

        monkeypatch.setattr(of, name, note)

    noted("_mac", kw.installation.engine, "mac")
    noted("compare_digest", policy.hmac, "compare")
    noted("expected_check", credential, "check")
    known, unknown = key.key.id, key.key.id[:-4] + "0000"
    seen: dict[str, list[list[str]]] = {known: [], unknown: []}
    for key_id in [known, unknown] * 3:
        given = credential.spell_token(key_id, credential.new_secret())
        steps.clear()
        verdict = kw.verify({"Authorization": f"Bearer {given}"}, keyspace="every", environment="production")
        assert verdict.code == "invalid"
        seen[key_id].append(sorted(steps))

    assert seen[known] == seen[unknown]
    assert seen[known][-1] == ["check", "compare", "mac"]
