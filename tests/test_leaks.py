"""Reports of leaks: anonymous, answered alike whatever was reported, and acted upon once, as the keyspace says."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import EVERY as SOURCE
from conftest import bearer, make
from keywright import Issued, Keywright, ProfileError, profiles
from keywright.credential import new_secret, spell_token
from keywright.desk.leaks import MOST_REPORTS, MOST_TOKENS
from keywright.server.hot import BATCH_LIMIT
from keywright.testing import Clock
from surfaces import Door, Reply, lost, server

pytestmark = pytest.mark.stores

EVERY = {"keyspace": "every", "environment": "production", "method": "GET"}
POLICIES = {"notify": "ok", "disable": "disabled", "invalidate": "invalidated"}


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def report(door: Door, *tokens: str, peer: str = "192.0.2.7", **more: Any) -> Reply:
    """Report some, from an address."""
    return door.json("POST", "/v1/leaks/report", {"tokens": list(tokens)} | more, peer=peer)


def token(issued: Issued) -> str:
    """The token of a key that was just made."""
    return issued.credential.token.reveal()


def alike(reply: Reply) -> tuple[Any, ...]:
    """All of an answer that could tell one report from another."""
    return reply.status, sorted(reply.headers), reply.body


def told(kw: Keywright, issued: Issued) -> list[str]:
    """What the trail tells of a key after it was made, oldest first."""
    return [entry["action"] for entry in kw.installation.trail.list(target=issued.key.id).items][-2::-1]


def apply(kw: Keywright, policy: str) -> None:
    """Give ``every`` a policy."""
    kw.keyspaces.apply(SOURCE.replace('title = "Every"', f'title = "Every"\nleaks = "{policy}"', 1))


def near_misses(issued: Issued) -> Iterator[str]:
    """Endless texts that hold much of a token, its id for one, and never all of it."""
    whole, other = token(issued), spell_token(issued.key.id, new_secret())
    yield from (
        whole[:-1],
        whole + "0",
        whole[:-6],
        issued.key.id,
        whole.swapcase(),
        whole[::-1],
        other,
        "",
        "x" * 600,
    )
    yield from (
        f"{issued.key.id}:{whole}",
        f"{issued.key.id}:",
        ":",
        whole[:-2] + "é0",
        whole.replace("_", "-"),
    )
    secret = whole[-38:-6]
    for place in range(32):
        changed = secret[:place] + ("A" if secret[place] != "A" else "B") + secret[place + 1 :]
        yield spell_token(issued.key.id, changed)
        yield whole[:-6].replace(secret, changed) + whole[-6:]
    while True:
        yield spell_token(issued.key.id, new_secret())


@pytest.mark.requirement("X-19")
@pytest.mark.security("S-07")
@pytest.mark.screen("U-68", "U-69")
@pytest.mark.parametrize("policy", POLICIES)
def test_the_policy_is_carried_out_once(kw: Keywright, key: Issued, door: Door, policy: str) -> None:
    """A key that is reported a hundred times is stopped or not as its keyspace says, by one act, with one alert."""
    apply(kw, policy)
    kw.installation.webhooks.create(url="https://hooks.example.com/", events=["key.leaked", "alert.raised"])
    for n in range(100):
        where = {"url": "https://paste.example/1"} if n == 0 else {}
        assert report(door, token(key), token(key), peer=f"192.0.2.{n}", **where).status == 202
        if n % 30 == 0:
            kw.installation.lookout.round()
    kw.installation.lookout.round()
    kw.installation.courier._carry()

    assert kw.verify(bearer(key), **EVERY).code == POLICIES[policy]
    stopped = {"notify": [], "disable": ["key.disable"], "invalidate": ["key.invalidate"]}[policy]
    assert told(kw, key) == ["key.leaked", *stopped]
    (alert,) = [one for one in kw.installation.alerts.list().items if one.rule == "leaked"]
    assert (alert.key_id, alert.account, alert.severity) == (key.key.id, "globex", "high")
    assert alert.evidence | {"policy": policy, "urls": ["https://paste.example/1"]} == alert.evidence
    (endpoint,) = kw.installation.webhooks.list().items
    sent = [json.loads(one.body) for one in kw.installation.webhooks.deliveries(endpoint.id).items]
    leak = next(one["data"] for one in sent if one["type"] == "key.leaked")
    assert sorted(one["type"] for one in sent) == ["alert.raised", "key.leaked"]
    where = {"secret": 1, "secrets": [1], "url": "https://paste.example/1"}
    assert leak["leak"] == {"policy": policy} | where
    assert leak["key"]["state"] == {"notify": "active"}.get(policy, POLICIES[policy])
    assert token(key)[-38:-6] not in json.dumps(sent) + json.dumps(alert.evidence)


@pytest.mark.security("S-07")
def test_every_report_is_answered_alike(kw: Keywright, clock: Clock, door: Door) -> None:
    """Tokens that are right, of any state, near misses and nonsense have the same answer, to the byte."""
    apply(kw, "invalidate")
    keys = [make(kw) for _ in range(4)]
    kw.keys.invalidate(keys[1].key.id)
    kw.keys.delete(keys[2].key.id)
    kw.keys.disable(keys[3].key.id)
    misses = near_misses(keys[0])
    reports = [[token(key)] for key in keys] + [[next(misses)] for _ in range(40)]
    reports += [[token(keys[0])] * MOST_TOKENS, ["x"] * MOST_TOKENS]

    answers = {json.dumps(alike(report(door, *some)), default=bytes.decode) for some in reports}

    assert len(answers) == 1
    reply = report(door, "x")
    assert (reply.status, reply.json, reply.get("cache-control")) == (202, {"status": "accepted"}, "no-store")


@pytest.mark.security("T-58")
def test_a_hundred_thousand_near_misses_stop_nothing(
    kw: Keywright, key: Issued, clock: Clock, door: Door
) -> None:
    """Whoever knows the id and much of a token, and not all, cannot have the key stopped; with all of it they can."""
    apply(kw, "invalidate")
    misses = near_misses(key)
    for n in range(100):
        assert report(door, *(next(misses) for _ in range(1000)), peer=f"192.0.2.{n}").status == 202
    kw.installation.lookout.round()

    assert kw.verify(bearer(key), **EVERY).code == "ok"
    assert [one for one in kw.installation.alerts.list().items if one.rule == "leaked"] == []
    report(door, token(key))
    kw.installation.lookout.round()
    assert kw.verify(bearer(key), **EVERY).code == "invalidated"


@pytest.mark.security("S-07", "T-36")
def test_one_address_may_report_so_often(kw: Keywright, key: Issued, clock: Clock, door: Door) -> None:
    """Sixty reports an hour are taken from an address, or a network of 64 bits; the next is 429, right or not."""
    for n in range(MOST_REPORTS):
        assert report(door, "x", peer=f"2001:db8::{n:x}").status == 202
    refused = [report(door, text, peer="2001:db8::ffff") for text in ("x", token(key))]
    assert [(one.status, one.code, one.get("retry-after")) for one in refused] == [
        (429, "rate_limited", "3600")
    ] * 2
    assert refused[0].json["detail"] == refused[1].json["detail"]
    assert report(door, "x", peer="2001:db8:0:1::1").status == 202
    kw.installation.lookout.round()
    assert told(kw, key) == []
    clock.advance(hours=1)
    assert report(door, "x", peer="2001:db8::ffff").status == 202


@pytest.mark.security("S-07")
@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "tokens"),
        ({"tokens": []}, "tokens"),
        ({"tokens": "x"}, "tokens"),
        ({"tokens": [1]}, "tokens.0"),
        ({"tokens": ["x"] * (MOST_TOKENS + 1)}, "tokens"),
        ({"tokens": ["x"], "url": "javascript:alert(1)"}, "url"),
        ({"tokens": ["x"], "url": "https://x.example/\n"}, "url"),
        ({"tokens": ["x"], "url": "https://x.example/" + "x" * 500}, "url"),
        (
            {
                "tokens": ["x"],
                "url": f"https://x.example/?k={spell_token('acme_live_k' + '0' * 15, 'A' * 32)}",
            },
            "url",
        ),
        ({"tokens": ["x"], "account": "globex"}, "account"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused(door: Door, body: Any, path: str) -> None:
    """A report that is none is 422 and says which field; what was sent is not repeated."""
    reply = door.json("POST", "/v1/leaks/report", body, peer="192.0.2.7")
    assert (reply.status, reply.json["errors"][0]["path"]) == (422, path)
    assert b"AAAA" not in reply.body


def test_a_report_may_be_large_and_not_too_large(door: Door) -> None:
    """A thousand tokens fit, a body beyond that is 413."""
    assert (
        report(door, *(spell_token(f"acme_live_k{n:015}", "A" * 32) for n in range(MOST_TOKENS))).status
        == 202
    )
    assert report(door, "x" * (BATCH_LIMIT + 1)).status == 413


@pytest.mark.parametrize("spelling", ["pair", "dotted", "spaced", "mid-rotation"])
def test_every_spelling_is_known(kw: Keywright, door: Door, spelling: str) -> None:
    """A pair with a colon between, a dotted key, one with spaces around it, the old secret of a rotation: each is the key."""
    issued = make(kw, keyspace="atfinity") if spelling == "dotted" else make(kw)
    text = token(issued)
    if spelling == "pair":
        text = f"{issued.key.id}:{issued.credential.secret.reveal()}"  # type: ignore[union-attr]
    if spelling == "spaced":
        text = f" {text}\n"
    if spelling == "mid-rotation":
        kw.keys.rotate(issued.key.id, grace_seconds=3600)
    report(door, text)
    kw.installation.lookout.round()

    assert told(kw, issued)[-1] == "key.leaked"


def test_what_no_longer_opens_anything_is_no_news(kw: Keywright, clock: Clock, door: Door) -> None:
    """A secret that was replaced, and a key that was invalidated or deleted, raise nothing and change nothing."""
    rotated, gone, dead = make(kw), make(kw), make(kw)
    kw.keys.rotate(rotated.key.id)
    kw.keys.delete(gone.key.id)
    kw.keys.invalidate(dead.key.id)
    clock.advance(seconds=1)
    report(door, token(rotated), token(gone), token(dead))
    kw.installation.lookout.round()

    assert kw.installation.alerts.list().items == ()
    assert kw.keys.get(rotated.key.id).state == "active"


def test_the_secret_that_came_after_is_news(kw: Keywright, clock: Clock, door: Door) -> None:
    """After a rotation the new secret is another one: its leak is told of again, though the first alert is resolved."""
    issued = make(kw)
    report(door, token(issued))
    kw.installation.lookout.round()
    (first,) = kw.installation.alerts.list().items
    kw.installation.alerts.resolve(first.id)
    clock.advance(minutes=5)
    renewed = kw.keys.rotate(issued.key.id, force=True)
    report(door, token(renewed))
    kw.installation.lookout.round()

    (second, _) = kw.installation.alerts.list().items
    assert (second.state, second.key_id, second.evidence["secret"]) == ("open", issued.key.id, 2)


@pytest.mark.requirement("X-19")
@pytest.mark.parametrize("policy", POLICIES)
def test_two_secrets_of_one_key_are_one_leak(kw: Keywright, key: Issued, door: Door, policy: str) -> None:
    """Mid-rotation both secrets in one report are one act, one entry, one webhook and one alert, which name both."""
    apply(kw, policy)
    kw.installation.webhooks.create(url="https://hooks.example.com/", events=["key.leaked", "alert.raised"])
    renewed = kw.keys.rotate(key.key.id, grace_seconds=3600)
    report(door, token(key), token(renewed), url="https://paste.example/x")
    kw.installation.lookout.round()
    kw.installation.lookout.round()
    kw.installation.courier._carry()

    stopped = {"notify": [], "disable": ["key.disable"], "invalidate": ["key.invalidate"]}[policy]
    assert told(kw, key) == ["key.rotate", "key.leaked", *stopped]
    (alert,) = kw.installation.alerts.list().items
    shown = {"secret": 2, "secrets": [1, 2], "policy": policy, "urls": ["https://paste.example/x"]}
    assert alert.evidence | shown == alert.evidence
    (endpoint,) = kw.installation.webhooks.list().items
    sent = [json.loads(one.body) for one in kw.installation.webhooks.deliveries(endpoint.id).items]
    assert sorted(one["type"] for one in sent) == ["alert.raised", "key.leaked"]
    assert next(one["data"]["leak"]["secrets"] for one in sent if "leak" in one["data"]) == [1, 2]


@pytest.mark.parametrize("policy", ["notify", "disable"])
def test_a_second_secret_that_is_reported_meanwhile_is_told_of(
    kw: Keywright, key: Issued, clock: Clock, door: Door, policy: str
) -> None:
    """A secret that is reported before the other's report was seen to, and after, is in an entry and an alert of its own."""
    apply(kw, policy)
    renewed = kw.keys.rotate(key.key.id, grace_seconds=3600)
    seen_to = kw.installation.leaks._keys.leaked

    def slow(*given: Any, **more: Any) -> Any:
        kw.installation.leaks._keys.leaked = seen_to
        report(door, token(renewed))
        clock.advance(seconds=1)
        return seen_to(*given, **more)

    kw.installation.leaks._keys.leaked = slow
    report(door, token(key))
    kw.installation.lookout.round()
    kw.installation.lookout.round()

    entries = kw.installation.trail.list(target=key.key.id, action="key.leaked").items
    assert [one["detail"]["secrets"] for one in entries] == [[2], [1]]
    assert [one.evidence["secrets"] for one in kw.installation.alerts.list().items] == [[2], [1]]


def test_a_leaked_management_key_is_told_of(kw: Keywright, door: Door) -> None:
    """A management key that is reported raises an alert, and goes on: no stranger stops a program of the host."""
    issued = kw.keys.create_management(name="Billing", scopes=["verify"])
    report(door, token(issued))
    kw.installation.lookout.round()

    (alert,) = kw.installation.alerts.list().items
    assert (alert.rule, alert.key_id, alert.keyspace) == ("leaked", issued.key.id, "keywright")
    assert kw.verify(bearer(issued), keyspace="keywright", environment="production", scopes=["verify"])


def test_a_rule_that_is_off_leaves_the_policy(kw: Keywright, key: Issued, door: Door) -> None:
    """With the rule turned off nothing is raised; the key is stopped all the same."""
    kw.keyspaces.apply(
        SOURCE.replace('title = "Every"', 'title = "Every"\nleaks = "disable"', 1)
        + "\n[misuse.leaked]\noff = true\n"
    )
    report(door, token(key))
    kw.installation.lookout.round()

    assert kw.installation.alerts.list().items == ()
    assert kw.verify(bearer(key), **EVERY).code == "disabled"


@pytest.mark.sqlite_only("the store is taken away as a file")
def test_without_the_store_a_report_is_not_taken(kw: Keywright, key: Issued) -> None:
    """Without the store a report is 503, whatever is reported, and nothing is forgotten that was taken."""
    with lost(kw), Door(server(kw)) as door:
        assert {report(door, text).status for text in ("x", token(key))} == {503}


def test_a_kill_between_the_act_and_its_note_does_it_once(
    kw: Keywright, key: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was carried out, and not noted as done, is not carried out again: one entry, one alert."""
    apply(kw, "disable")
    kw.installation.lookout.round()
    kw.installation.leaks.report([token(key)])

    def killed(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(kw.installation.alerts, "raise_", killed)
        with pytest.raises(KeyboardInterrupt):
            kw.installation.lookout.round()
    kw.keys.enable(key.key.id)
    kw.installation.lookout.round()
    kw.installation.lookout.round()

    assert told(kw, key) == ["key.leaked", "key.disable", "key.enable"]
    assert [one.rule for one in kw.installation.alerts.list().items] == ["leaked"]


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_a_round_goes_on_until_no_leak_waits(
    kw: Keywright, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """However many keys were reported since the last round, the next sees to all of them."""
    monkeypatch.setattr("keywright.desk.leaks._AT_ONCE", at_once)
    apply(kw, "invalidate")
    leaked = [make(kw) for _ in range(4)]
    kw.installation.leaks.report([token(one) for one in leaked])

    assert kw.installation.lookout.round() == 4

    assert {kw.keys.get(one.key.id).state for one in leaked} == {"invalidated"}


def test_a_policy_is_one_of_three() -> None:
    """Anything else in a profile is refused, with the path."""
    assert profiles.load('name = "acme"').leaks == "notify"
    with pytest.raises(ProfileError) as refused:
        profiles.load('name = "acme"\nleaks = "delete"\n')
    assert refused.value.path == "leaks"
