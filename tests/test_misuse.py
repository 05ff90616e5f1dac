"""Misuse: a scenario for each rule raises one alert with its evidence, ordinary traffic none, and no flood takes memory."""

import json
import os
import re
from collections.abc import Callable
from html import escape as _escape
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import again, bearer, make
from keywright import Issued, Keywright, ProfileError, misuse, profiles
from keywright import meter as meters
from keywright.cli import doctor, keys, management_keys
from keywright.credential import new_secret, random_base62, spell_token
from keywright.misuse import RULES, Signal, Tracker
from keywright.model import Alert, Threshold
from keywright.post import Outcome
from keywright.testing import Clock
from people import as_person, begin
from surfaces import Door, manager, server
from test_webhooks import Receiver, courier_of, hooked, verified

pytestmark = pytest.mark.stores

HERE = "192.0.2.7"
ELSEWHERE = "198.51.100.9"
EVERY = {"keyspace": "every", "environment": "production", "method": "GET", "ip": HERE}


def found(kw: Keywright) -> list[Alert]:
    """The alerts, after all that was seen has been looked at."""
    kw.installation.meter.settle()
    kw.installation.lookout.round()
    return list(kw.installation.alerts.list(limit=200).items)


def wrong(issued: Issued) -> dict[str, str]:
    """The key's id with another secret, and a checksum that fits."""
    return {"Authorization": f"Bearer {spell_token(issued.key.id, new_secret())}"}


def escape(text: str) -> str:
    """As a page shows it."""
    return _escape(text).replace("&#x27;", "&#39;")


def stranger() -> dict[str, str]:
    """A credential of a key that does not exist, and a checksum that fits."""
    return {"Authorization": f"Bearer {spell_token(f'every_live_k{random_base62(15)}', new_secret())}"}


# ------------------------------------------------------------------------------------------------------- the scenarios


def _guess(kw: Keywright, key: Issued, _clock: Clock) -> None:
    for _ in range(RULES["guessed"].bounds.times):
        kw.verify(wrong(key), **EVERY)


def _many_ids(kw: Keywright, _key: Issued, _clock: Clock) -> None:
    for n in range(RULES["many_ids"].bounds.times):
        kw.verify(stranger(), **(EVERY | {"ip": f"192.0.2.{n + 1}"}))


def _after(verb: str) -> Callable[[Keywright, Issued, Clock], None]:
    def act(kw: Keywright, key: Issued, _clock: Clock) -> None:
        getattr(kw.keys, verb)(key.key.id)
        kw.verify(bearer(key), **EVERY)

    return act


def _expired(kw: Keywright, key: Issued, clock: Clock) -> None:
    kw.keys.edit(key.key.id, expires_at=clock() + 1_000_000)
    clock.advance(seconds=2)
    kw.verify(bearer(key), **EVERY)


def _elsewhere(kw: Keywright, key: Issued, _clock: Clock) -> None:
    kw.verify(bearer(key), **(EVERY | {"environment": "staging"}))


def _other_keyspace(kw: Keywright, key: Issued, _clock: Clock) -> None:
    kw.verify(bearer(key), **(EVERY | {"keyspace": "default"}))


def _wrong_user(kw: Keywright, key: Issued, _clock: Clock) -> None:
    kw.verify({"x-api-key": key.credential.token.reveal(), "x-api-user": "initech"}, **EVERY)


def _lacking(kw: Keywright, key: Issued, _clock: Clock) -> None:
    kw.keys.edit(key.key.id, access="read_only")
    for _ in range(RULES["lacking_scope"].bounds.times):
        kw.verify(bearer(key), scopes=["things:write"], **EVERY)


def _in_url(kw: Keywright, key: Issued, _clock: Clock) -> None:
    pair = f"X-API-KEY={key.key.id}&X-API-SECRET={key.credential.secret.reveal()}"  # type: ignore[union-attr]
    kw.verify({}, url=f"/things?{pair}", **EVERY)


def _browser(kw: Keywright, key: Issued, _clock: Clock) -> None:
    assert kw.verify(bearer(key) | {"Origin": "https://shop.example"}, **EVERY)


def _volume(kw: Keywright, key: Issued, clock: Clock) -> None:
    for _ in range(10):
        kw.verify(bearer(key), **EVERY)
    kw.installation.meter.settle()
    clock.advance(hours=1)
    for _ in range(RULES["volume"].bounds.times):
        kw.verify(bearer(key), **EVERY)


def _network(kw: Keywright, key: Issued, clock: Clock) -> None:
    kw.verify(bearer(key), **EVERY)
    assert found(kw) == []
    clock.advance(days=2)
    assert kw.verify(bearer(key), **(EVERY | {"ip": ELSEWHERE}))


def _woke(kw: Keywright, key: Issued, clock: Clock) -> None:
    kw.verify(bearer(key), **EVERY)
    assert found(kw) == []
    clock.advance(days=61)
    assert kw.verify(bearer(key), **EVERY)


def _sample(kw: Keywright, _key: Issued, _clock: Clock) -> None:
    sample = {"Authorization": "Api-Key n58lzybi.1M2baTIHuRgPGbzdZC3Zch0b8VC2etL0"}
    kw.verify(sample, **(EVERY | {"keyspace": "atfinity"}))


def _leaked(kw: Keywright, key: Issued, _clock: Clock) -> None:
    kw.installation.leaks.report([key.credential.token.reveal()], url="https://paste.example/x", source=HERE)


class Scenario(NamedTuple):
    """What is done, whether the alert names the key, and what its evidence holds."""

    act: Callable[[Keywright, Issued, Clock], None]
    evidence: dict[str, Any]
    names: bool = True


def _reason(name: str, times: int = 1) -> dict[str, Any]:
    return {"reasons": {name: times}, "addresses": [HERE], "networks": ["192.0.2.0/24"]}


SCENARIOS: dict[str, Scenario] = {
    "guessed": Scenario(_guess, _reason("wrong_secret", 10)),
    "many_ids": Scenario(_many_ids, {"credentials": 20, "networks": ["192.0.2.0/24"]}, names=False),
    "invalidated_key": Scenario(_after("invalidate"), _reason("invalidated")),
    "deleted_key": Scenario(_after("delete"), _reason("deleted")),
    "rotated_secret": Scenario(_after("rotate"), _reason("rotated")),
    "expired_key": Scenario(_expired, _reason("expired")),
    "wrong_environment": Scenario(_elsewhere, _reason("wrong_environment") | {"environments": ["staging"]}),
    "wrong_keyspace": Scenario(_other_keyspace, _reason("wrong_keyspace")),
    "wrong_user": Scenario(_wrong_user, _reason("wrong_user")),
    "lacking_scope": Scenario(_lacking, _reason("insufficient_scope", 5)),
    "in_url": Scenario(_in_url, _reason("in_url")),
    "browser": Scenario(_browser, _reason("browser")),
    "volume": Scenario(_volume, {"times_now": 1000, "most_before": 10}),
    "new_network": Scenario(_network, {"addresses": [ELSEWHERE], "known": ["192.0.2.0/24"]}),
    "woke": Scenario(_woke, {"rested_days": 61}),
    "leaked": Scenario(_leaked, {"policy": "notify", "urls": ["https://paste.example/x"]}),
    "sample": Scenario(_sample, _reason("sample"), names=False),
}


#: What the evidence of every rule may have.
ALWAYS = {"reasons", "addresses", "networks", "requests", "environments", "key_name"}


def documented(rule: str) -> set[str]:
    """What ``docs/misuse.md`` says that the evidence of a rule has besides."""
    page = Path(__file__).parent.parent / "docs" / "misuse.md"
    line, _advice = [line for line in page.read_text().splitlines() if line.startswith(f"| `{rule}` |")]
    return set(re.findall(r"`(\w+)`", line.split("|")[5]))


def test_every_rule_has_a_scenario() -> None:
    """The table of scenarios has every rule."""
    assert set(SCENARIOS) == set(RULES)


@pytest.mark.requirement("X-19", "B-17", "F-04", "P-04", "P-28", "A-18")
@pytest.mark.parametrize("rule", SCENARIOS)
def test_a_scenario_raises_one_alert(kw: Keywright, key: Issued, clock: Clock, rule: str) -> None:
    """What a rule is about raises exactly one alert of it: it names rule, key and evidence, and never a secret."""
    scenario = SCENARIOS[rule]

    scenario.act(kw, key, clock)

    (alert,) = found(kw)
    assert (alert.rule, alert.state, alert.severity, alert.act) == (rule, "open", *RULES[rule][2:4])
    assert (alert.key_id, alert.account) == ((key.key.id, "globex") if scenario.names else ("", None))
    assert alert.evidence | scenario.evidence == alert.evidence
    assert set(alert.evidence) - ALWAYS == documented(rule)
    assert key.credential.token.reveal()[-38:-6] not in json.dumps(alert.evidence)
    assert found(kw) == [alert]


@pytest.mark.requirement("X-19", "B-17", "B-18")
@pytest.mark.parametrize("rule", SCENARIOS)
def test_a_scenario_reaches_whom_it_concerns(kw: Keywright, key: Issued, clock: Clock, rule: str) -> None:
    """What a rule is about comes to a receiver once, as the reference package verifies, and stands in the console."""
    hook, receiver = hooked(kw, events=["alert.raised"]), Receiver(clock)
    SCENARIOS[rule].act(kw, key, clock)
    (alert,) = found(kw)
    for _ in range(2):
        courier_of(kw, clock, receiver).round()

    (sent,) = receiver.got
    assert verified(hook.secret.reveal(), sent)
    assert sent.json["type"] == "alert.raised"
    said = sent.json["data"]["alert"]
    assert (said["id"], said["rule"], said["key"]) == (alert.id, rule, alert.key_id or None)
    assert (said["says"], said["act"]) == (RULES[rule].sentence, RULES[rule].act)
    assert said["advice"] == misuse.advice(rule, alert.key_id, alert.keyspace)
    assert said["evidence"] | SCENARIOS[rule].evidence == said["evidence"]
    operator = as_person(kw, begin(kw, "operator"))
    with Door(server(kw)) as door:
        page = door.get("/console/operator/alerts", operator).body.decode()
    for text in (alert.id, said["says"], said["advice"]):
        assert escape(text) in page


@pytest.mark.sqlite_only("no database has a part in it")
def test_what_is_advised_can_be_typed() -> None:
    """Every command that an advice names is one of ours, with its options, and for management keys it is theirs."""
    typed = set()
    for nouns, keyspace in ((keys.command, "every"), (management_keys.command, "keywright")):
        for rule in RULES:
            text = misuse.advice(rule, "KEY", keyspace)
            assert "{" not in text
            for verb, option in re.findall(rf"keywright {nouns.name} ([a-z]+) KEY( --[a-z]+)?", text):
                known = {said for one in nouns.commands[verb].params for said in one.opts}
                assert option.strip() in {*known, ""}
                typed.add((nouns.name, verb))
            assert text.count("keywright ") == text.count(f"keywright {nouns.name} ")
    assert typed == {(noun, verb) for noun in ("keys", "management-keys") for verb in ("rotate", "disable")}


def test_an_alert_is_logged(
    kw: Keywright, key: Issued, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A new alert is a line of the log that says what, of which key and whose; what goes on is none."""
    _wrong_user(kw, key, clock)
    (alert,) = found(kw)
    _wrong_user(kw, key, clock)
    found(kw)
    lines = [one.message for one in caplog.records if one.message.startswith("alert ")]
    assert lines == [f"alert {alert.id}: medium wrong_user of {key.key.id}, account globex"]


@pytest.mark.requirement("X-19")
def test_what_goes_on_is_one_alert(kw: Keywright, key: Issued, clock: Clock) -> None:
    """The same again counts the alert on; resolved, it is raised anew after the quiet time and not before."""
    kw.keys.invalidate(key.key.id)
    for _ in range(3):
        kw.verify(bearer(key), **EVERY)
    (first,) = found(kw)
    kw.verify(bearer(key), **EVERY)
    (counted,) = found(kw)
    assert (first.id, first.count, counted.id, counted.count) == (first.id, 3, first.id, 4)

    kw.installation.alerts.resolve(first.id)
    kw.verify(bearer(key), **EVERY)
    assert [one.state for one in found(kw)] == ["resolved"]
    clock.advance(hours=25)
    kw.verify(bearer(key), **EVERY)
    assert [one.state for one in found(kw)] == ["open", "resolved"]


@pytest.mark.requirement("X-19", "B-17")
def test_a_day_of_ordinary_traffic_is_quiet(kw: Keywright, clock: Clock) -> None:
    """Keys at work all day, a rotation with a grace, a typing error, a quota at its end: nothing is raised."""
    keys = [make(kw, name=f"Key {n}", limits=["900/day"] if n == 0 else None) for n in range(3)]
    start = clock.at
    while (clock.at - start).total_seconds() < 86_400:
        for n, key in enumerate(keys):
            for _ in range(30):
                kw.verify(bearer(key), **(EVERY | {"ip": f"192.0.2.{n + 1}"}))
        kw.verify({}, **EVERY)
        kw.verify({"Authorization": bearer(keys[1])["Authorization"][:-1]}, **EVERY)
        if (clock.at - start).total_seconds() == 43_200:
            old, keys[2] = keys[2], kw.keys.rotate(keys[2].key.id, grace_seconds=3600)
            assert kw.verify(bearer(old), **EVERY)
        assert found(kw) == []
        clock.advance(minutes=30)


@pytest.mark.requirement("X-19")
def test_the_failures_of_all_workers_meet(kw: Keywright, key: Issued) -> None:
    """A rule sees failures that several processes answered; a lookout that takes over raises nothing twice."""
    times = RULES["guessed"].bounds.times
    with again(kw, clock=kw.installation.clock) as other:
        for n in range(times - 1):
            (kw, other)[n % 2].verify(wrong(key), **EVERY)
        other.installation.meter.settle()
        assert found(kw) == []
        other.verify(wrong(key), **EVERY)

        assert [one.rule for one in found(other)] == ["guessed"]
        kw.verify(wrong(key), **EVERY)
        (alert,) = found(kw)
        assert (alert.rule, alert.count) == ("guessed", times + 1)


@pytest.mark.requirement("X-19")
def test_a_node_program_is_no_browser(kw: Keywright, key: Issued) -> None:
    """``Sec-Fetch-Mode`` alone, which Node's own fetch sends, raises nothing; ``Sec-Fetch-Site`` does."""
    kw.verify(bearer(key) | {"Sec-Fetch-Mode": "cors"}, **EVERY)
    assert found(kw) == []

    kw.verify(bearer(key) | {"Sec-Fetch-Site": "cross-site"}, **EVERY)
    assert [one.rule for one in found(kw)] == ["browser"]


def test_strangers_cannot_push_out_what_names_a_key(kw: Keywright, key: Issued) -> None:
    """A flood of strangers within one second does not hide the use of an invalidated key."""
    kw.keys.invalidate(key.key.id)
    kw.installation.meter._stop.set()
    kw.verify(bearer(key), **EVERY)
    for _ in range(meters.MOST_REFUSALS + 10):
        kw.verify({}, **EVERY)

    assert [one.rule for one in found(kw)] == ["invalidated_key"]


def _flood(tokens: int) -> int:
    """How many things the tracker remembers of so many unknown tokens, each from a network of its own."""
    tracker, bounds = Tracker(), lambda _space, rule: RULES[rule].bounds
    for n in range(tokens):
        source = f"2001:db8:{n >> 16 & 0xFFFF:x}:{n & 0xFFFF:x}::1"
        tracker.take(Signal(n, "unknown", "every", "production", "", "", source, "", str(n)), bounds)
    return len(tracker)


@pytest.mark.full("a million unknown tokens")
def test_a_flood_takes_no_more_memory() -> None:
    """Of 50,000 unknown tokens from as many networks, the tracker remembers the latest 20,000."""
    assert _flood(1_000_000 if os.environ.get("KEYWRIGHT_PROOF") else 50_000) == misuse.MOST


@pytest.mark.sqlite_only("the files are told apart by what is written to them")
def test_strangers_write_nothing_to_the_keys_file(kw: Keywright, key: Issued) -> None:
    """Twenty thousand unknown tokens leave the keys file as it was, and end in alerts that are few."""
    database = kw.installation.database
    with database.read() as connection:
        before = connection.exec_driver_sql("PRAGMA data_version").scalar()
        for n in range(20_000):
            kw.verify(stranger(), **(EVERY | {"ip": f"198.51.{n % 100}.7"}))
        raised = found(kw)
        assert connection.exec_driver_sql("PRAGMA data_version").scalar() == before
    assert 0 < len(raised) <= 51


# -------------------------------------------------------------------------------------------------------- the profile


def test_a_profile_sets_bounds(kw: Keywright, key: Issued) -> None:
    """``[misuse.RULE]`` of the keyspace replaces a rule's bounds, and turns one off."""
    from conftest import EVERY as SOURCE

    kw.keyspaces.apply(SOURCE + "\n[misuse.guessed]\ntimes = 2\n[misuse.wrong_user]\noff = true\n")
    _wrong_user(kw, key, Clock())
    kw.verify(wrong(key), **EVERY)
    assert found(kw) == []
    kw.verify(wrong(key), **EVERY)
    assert [one.rule for one in found(kw)] == ["guessed"]


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("[misuse.nothing]\ntimes = 1", "misuse.nothing"),
        ("[misuse.guessed]\ntimes = 0", "misuse.guessed.times"),
        ("[misuse.guessed]\ntimes = 1001", "misuse.guessed.times"),
        ("[misuse.guessed]\nwithin = '2d'", "misuse.guessed.within"),
        ("[misuse.guessed]\nquiet = '1s'", "misuse.guessed.quiet"),
        ("[misuse.guessed]\nquiet = '91d'", "misuse.guessed.quiet"),
        ("[misuse.guessed]\nfactor = 3", "misuse.guessed.factor"),
        ("[misuse.volume]\nfactor = 1", "misuse.volume.factor"),
        ("[misuse.volume]\ntimes = 1000001", "misuse.volume.times"),
        ("[misuse.woke]\nafter = 'never'", "misuse.woke.after"),
        ("[misuse.woke]\nafter = '11y'", "misuse.woke.after"),
        ("[misuse.woke]\nlater = '1d'", "misuse.woke.later"),
        ("[misuse.guessed]\ntimes = 'many'", "misuse.guessed.times"),
    ],
)
def test_absurd_bounds_are_refused(table: str, path: str) -> None:
    """Bounds that would never or always hold are refused, with the path of what is wrong."""
    with pytest.raises(ProfileError) as refused:
        profiles.load(f'name = "acme"\n{table}\n')
    assert refused.value.path == path


def test_bounds_are_kept(kw: Keywright) -> None:
    """What a profile leaves out stays as the rule has it."""
    usual = RULES["woke"].bounds
    applied = profiles.load('name = "acme"\n[misuse.woke]\nafter = "30d"\n').misuse["woke"]
    assert applied == Threshold(usual.times, usual.within, usual.quiet, None, 30 * 86_400)


# ---------------------------------------------------------------------------------------------------------- surfaces


def _raised(kw: Keywright, account: str = "globex") -> Alert:
    issued = make(kw, account=account)
    kw.keys.invalidate(issued.key.id)
    kw.verify(bearer(issued), **EVERY)
    return next(one for one in found(kw) if one.key_id == issued.key.id)


@pytest.mark.requirement("B-18", "X-13")
@pytest.mark.security("T-17")
def test_an_alert_is_its_accounts(kw: Keywright) -> None:
    """A caller who is bound to an account lists, reads and resolves the alerts of its keys, and no other; acts are audited."""
    ours, theirs = _raised(kw), _raised(kw, "initech")
    caller = manager(kw, "alerts:read", "alerts:write", account="globex")
    with Door(server(kw)) as door:
        assert [one["id"] for one in door.get("/v1/alerts", caller).json["items"]] == [ours.id]
        assert door.get(f"/v1/alerts/{theirs.id}", caller).status == 404
        assert door.json("POST", f"/v1/alerts/{theirs.id}/resolve", {}, caller).status == 404
        assert door.get("/v1/alerts?account=initech", caller).status == 404
        seen = door.send("POST", f"/v1/alerts/{ours.id}/acknowledge", caller).json
        done = door.send("POST", f"/v1/alerts/{ours.id}/resolve", caller).json
        again_ = door.send("POST", f"/v1/alerts/{ours.id}/acknowledge", caller)

    assert (seen["state"], done["state"], done["key"]) == ("acknowledged", "resolved", ours.key_id)
    assert again_.status == 409
    acts = [entry["action"] for entry in kw.installation.trail.list(target=ours.id).items]
    assert acts == ["alert.resolve", "alert.acknowledge"]


def test_a_list_is_narrowed_and_paged(kw: Keywright) -> None:
    """Every filter narrows, and pages go on where the last one ended."""
    first, second = _raised(kw), _raised(kw)
    kw.installation.alerts.resolve(first.id)
    page = kw.installation.alerts.list(limit=1)
    rest = kw.installation.alerts.list(limit=1, cursor=page.next_cursor)

    assert [one.id for one in (*page.items, *rest.items)] == [second.id, first.id]
    for narrow, ids in (
        ({"state": "open"}, [second.id]),
        ({"key": first.key_id}, [first.id]),
        ({"rule": "guessed"}, []),
        ({"severity": "medium", "keyspace": "every", "environment": "production"}, [second.id, first.id]),
        ({"account": "initech"}, []),
    ):
        assert [one.id for one in kw.installation.alerts.list(**narrow).items] == ids, narrow


@pytest.mark.requirement("B-18")
def test_webhooks_are_told(kw: Keywright) -> None:
    """An alert and its end are written for endpoints that want them, with the alert's own id, rule and evidence, once."""
    installation = kw.installation
    installation.webhooks.create(url="https://hooks.example.com/", events=["alert.raised", "alert.resolved"])
    elsewhere = {"account": "initech", "keyspace": "every", "environment": "production"}
    other = installation.webhooks.create(url="https://hooks.example.org/", **elsewhere).endpoint
    alert = _raised(kw)
    installation.alerts.resolve(alert.id)
    installation.alerts.resolve(alert.id)
    (ours,) = [one for one in installation.webhooks.list().items if one.id != other.id]

    sent = [json.loads(one.body) for one in installation.webhooks.deliveries(ours.id).items]
    assert [one["type"] for one in sent] == ["alert.resolved", "alert.raised"]
    assert {one["data"]["alert"]["id"] for one in sent} == {alert.id}
    assert sent[1]["data"]["alert"]["evidence"]["reasons"] == {"invalidated": 1}
    told = [json.loads(one.body)["type"] for one in installation.webhooks.deliveries(other.id).items]
    assert "alert.raised" not in told


def test_doctor_says_what_waits_for_somebody(kw: Keywright, clock: Clock) -> None:
    """The check-up says how many alerts are open, how bad, and how many messages no endpoint has taken yet."""
    installation = kw.installation
    assert (doctor._alerts(installation), doctor._webhooks(installation)) == ("none open", "none")
    hooked(kw)
    receiver = Receiver(clock, lambda _sent: Outcome(500))
    _raised(kw)
    courier_of(kw, clock, receiver).round()
    alert = found(kw)[0]
    said = "1 active; 1 to be sent again"
    assert (doctor._alerts(installation), doctor._webhooks(installation)) == (
        "open: 1 medium (keywright alerts list --state open)",
        said,
    )
    installation.alerts.acknowledge(alert.id)
    assert doctor._alerts(installation) == "none open"
