"""Webhooks: what is told, to whom, signed how, and how long the courier goes on."""

import base64
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from conftest import again, bearer, make
from keywright import Conflict, Invalid, Keywright, NotFound, events
from keywright.addresses import Target
from keywright.courier import MOST_A_SECOND, SCHEDULE, Courier, Pace
from keywright.desk.calendar import Calendar
from keywright.desk.grants import Reach
from keywright.desk.quotas import Quotas
from keywright.model import Actor, Endpoint, IssuedEndpoint
from keywright.post import Closed, Outcome, Post
from keywright.store import deliveries, webhooks
from keywright.testing import Clock
from keywright.times import DAY, SECOND, rfc3339
from processes import Folder, Served, run
from surfaces import Door, manager, server

pytestmark = pytest.mark.stores

CONFINED = Reach(account="globex")


class Sent(msgspec.Struct):
    """One request that a receiver got."""

    url: str
    headers: dict[str, str]
    body: bytes
    at: int

    @property
    def json(self) -> Any:
        """The message."""
        return msgspec.json.decode(self.body)


class Receiver(Post):
    """Receivers of the whole internet: what they got, and what they answer."""

    def __init__(self, clock: Clock, answer: Callable[[Sent], Outcome] = lambda _sent: Outcome(204)) -> None:
        super().__init__()
        self.got: list[Sent] = []
        self.answer = answer
        self._clock = clock

    def numbers(self, _target: Target) -> list[str]:
        """One, outside."""
        return ["93.184.216.34"]

    def send(self, target: Target, _numbers: Sequence[str], headers: Any, body: bytes) -> Outcome:
        """Take it."""
        self.got.append(Sent(f"{target.authority}{target.path}", dict(headers), body, self._clock()))
        return self.answer(self.got[-1])

    @property
    def types(self) -> list[str]:
        """The events that came, in order."""
        return [one.json["type"] for one in self.got]


@pytest.fixture
def receiver(clock: Clock) -> Receiver:
    """Takes everything, unless a test says otherwise."""
    return Receiver(clock)


@pytest.fixture
def courier(kw: Keywright, clock: Clock, receiver: Receiver) -> Courier:
    """The courier, whose rounds the test calls, and whose jitter is none."""
    return courier_of(kw, clock, receiver)


def courier_of(kw: Keywright, clock: Clock, post: Post) -> Courier:
    """One that sends by this post."""
    opened = kw.installation
    stands_on = opened.database, opened.keyring, clock
    calendar, quotas = Calendar(*stands_on), Quotas(*stands_on)
    return Courier(opened.database, opened.webhooks, calendar, quotas, clock, post=post, draw=lambda: 0.0)


def hooked(kw: Keywright, **over: Any) -> IssuedEndpoint:
    """An endpoint that is told of everything."""
    return kw.installation.webhooks.create(**({"url": "https://hooks.example.com/in"} | over))


def now(kw: Keywright, endpoint: IssuedEndpoint) -> Endpoint:
    """The endpoint as it is now."""
    return kw.installation.webhooks.get(endpoint.endpoint.id)


def log(kw: Keywright, endpoint: IssuedEndpoint) -> Sequence[Any]:
    """Its deliveries, newest first."""
    return kw.installation.webhooks.deliveries(endpoint.endpoint.id).items


def waiting(kw: Keywright) -> list[str]:
    """The events in the outbox."""
    with kw.installation.database.read() as connection:
        return [one.type for one in webhooks.waiting(connection, 100)]


def verified(secret: str, sent: Sent) -> bool:
    """Whether the reference package makes one of the signatures that a message came with."""
    at = datetime.fromtimestamp(int(sent.headers["webhook-timestamp"]), UTC)
    made = Webhook(secret).sign(sent.headers["webhook-id"], at, sent.body.decode())
    return made in sent.headers["webhook-signature"].split(" ")


# --------------------------------------------------------------------------------------------------------- what is told

CHANGES: dict[str, Callable[[Keywright, str], object]] = {
    "key.created": lambda kw, _id: make(kw),
    "key.edited": lambda kw, id_: kw.keys.edit(id_, name="New", team="Sales"),
    "key.rotated": lambda kw, id_: kw.keys.rotate(id_, grace_seconds=3600),
    "key.rotation_cancelled": lambda kw, id_: (kw.keys.rotate(id_, grace_seconds=60), kw.keys.cancel(id_)),
    "key.invalidated": lambda kw, id_: kw.keys.invalidate(id_, reason="leaked"),
    "key.disabled": lambda kw, id_: kw.keys.disable(id_),
    "key.enabled": lambda kw, id_: (kw.keys.disable(id_), kw.keys.enable(id_)),
    "key.deleted": lambda kw, id_: kw.keys.delete(id_),
    "account.created": lambda kw, _id: kw.accounts.create("hooli"),
    "account.suspended": lambda kw, _id: kw.accounts.suspend("globex"),
    "account.activated": lambda kw, _id: (kw.accounts.suspend("globex"), kw.accounts.activate("globex")),
    "account.limited": lambda kw, _id: kw.accounts.limit("globex", ["10/day"]),
}


@pytest.mark.parametrize("type_", CHANGES)
def test_a_change_is_told_of(kw: Keywright, courier: Courier, receiver: Receiver, type_: str) -> None:
    """Each change sends its event once, with what it is about, who did it and when; never a secret."""
    issued = make(kw)
    endpoint = hooked(kw, events=[type_])

    CHANGES[type_](kw, issued.key.id)
    courier.round()

    (sent,) = receiver.got
    body = sent.json
    assert (body["type"], body["timestamp"]) == (type_, rfc3339(sent.at))
    assert body["data"]["by"] == {"kind": "library", "id": "library"}
    assert body["data"].get("key", {}).get("account", "globex") == "globex"
    assert issued.credential.token.reveal()[-38:].encode() not in sent.body
    assert sent.headers["Content-Type"] == "application/json"
    assert "." not in sent.headers["webhook-id"]
    assert verified(endpoint.secret.reveal(), sent)
    assert [one.state for one in log(kw, endpoint)] == ["delivered"]


def test_every_event_has_a_test() -> None:
    """The table of changes above, the calendar's, the quotas', the courier's own and misuse's (test_misuse, test_leaks, test_unused) are all that there are."""
    clock_and_courier = {
        "key.expiring", "key.expired", "key.rotation_ended", "quota.warning", "quota.exhausted", "webhook.disabled", "webhook.test", "webhook.verify",
        "alert.raised", "alert.resolved", "key.leaked", "key.ending_unused",
    }  # fmt: skip

    assert set(CHANGES) | clock_and_courier == set(events.EVENTS)
    assert set(events.OF_ACTION.values()) < set(events.EVENTS)


def test_an_edit_names_its_fields(kw: Keywright, courier: Courier, receiver: Receiver) -> None:
    """What was edited is named, and what it was and is now is for the API and the trail to say."""
    issued = make(kw)
    hooked(kw)
    kw.keys.edit(issued.key.id, name="New", team="Sales")
    courier.round()

    data = receiver.got[0].json["data"]
    assert (data["changed"], data["key"]["name"], data["key"]["id"]) == (
        ["name", "team"],
        "New",
        issued.key.id,
    )


def test_what_did_not_happen_is_not_told(kw: Keywright) -> None:
    """A change that fails, after its message was written, leaves no message; a change that changes nothing has none."""
    issued = make(kw)
    hooked(kw)
    with suppress(RuntimeError), kw.keys.change() as change:
        CHANGES["key.disabled"]  # the same change, by hand
        change.tell(kw_actor(), "key.disable", ("key", issued.key.id), account="globex")
        assert webhooks.waiting(change.tx, 9)
        raise RuntimeError

    kw.keys.enable(issued.key.id)

    assert waiting(kw) == []


def kw_actor() -> Any:
    """Who acts where nobody is named."""
    from keywright.desk import LIBRARY

    return LIBRARY


@pytest.mark.requirement("X-15")
@pytest.mark.security("T-17")
def test_only_whom_it_concerns_is_told(kw: Keywright, courier: Courier, receiver: Receiver) -> None:
    """An endpoint hears of its account, keyspace and environment, of what it subscribes to, and of nothing else."""
    for name, over in {
        "all": {},
        "globex": {"account": "globex"},
        "initech": {"account": "initech"},
        "staging": {"keyspace": "every", "environment": "staging"},
        "production": {"account": "globex", "keyspace": "every", "environment": "production"},
        "deleted": {"events": ["key.deleted"]},
    }.items():
        hooked(kw, url=f"https://{name}.example.com/", **over)

    make(kw)
    kw.keys.create_management(name="Ours", scopes=["verify"])
    courier.round()

    heard = sorted(
        (sent.url.partition(".")[0], sent.json["data"]["key"]["keyspace"]) for sent in receiver.got
    )
    assert heard == [("all", "every"), ("all", "keywright"), ("globex", "every"), ("production", "every")]


def test_a_foreign_endpoint_does_not_exist(kw: Keywright) -> None:
    """A confined caller finds, makes and changes endpoints of its own only."""
    theirs, ours = hooked(kw, account="initech"), hooked(kw)
    desk = kw.installation.webhooks

    for one in (theirs, ours):
        for verb in (
            desk.get,
            desk.rotate,
            desk.delete,
            desk.disable,
            desk.enable,
            desk.test,
            desk.deliveries,
        ):
            with pytest.raises(NotFound):
                verb(one.endpoint.id, reach=CONFINED)
    with pytest.raises(NotFound):
        hooked(kw, account="initech", reach=CONFINED)
    assert hooked(kw, reach=CONFINED).endpoint.binding.account == "globex"


# ----------------------------------------------------------------------------------------------------------- signatures


def test_a_signing_secret_is_rotated_with_an_overlap(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """Both secrets sign until the overlap ends, then the new one alone; the trail tells of it and holds neither."""
    first = hooked(kw)
    second = kw.installation.webhooks.rotate(first.endpoint.id, overlap_seconds=3600)
    make(kw)
    courier.round()
    clock.advance(hours=2)
    make(kw)
    courier.round()

    old, new = first.secret.reveal(), second.secret.reveal()
    assert [(verified(old, sent), verified(new, sent)) for sent in receiver.got] == [
        (True, True),
        (False, True),
    ]
    told = [entry["action"] for entry in kw.installation.trail.list(target=first.endpoint.id).items]
    assert told == ["webhook.rotate", "webhook.create"]


def test_secrets_do_not_pile_up(kw: Keywright, clock: Clock) -> None:
    """Five live at once; a sixth rotation waits, or ends them all."""
    desk, endpoint = kw.installation.webhooks, hooked(kw)
    for _ in range(4):
        desk.rotate(endpoint.endpoint.id)
    with pytest.raises(Conflict, match="live already"):
        desk.rotate(endpoint.endpoint.id)

    assert len(desk.signing(desk.rotate(endpoint.endpoint.id, overlap_seconds=0).endpoint, clock())) == 1


@pytest.mark.sqlite_only("looks into the files")
def test_a_stolen_database_signs_nothing(kw: Keywright, tmp_path: Path) -> None:
    """The signing secret stands in no file, in no spelling; it comes of the salt and the installation's secret together."""
    endpoint = hooked(kw)
    make(kw)
    kw.installation.database.checkpoint()
    spelled = endpoint.secret.reveal().removeprefix("whsec_")
    raw = base64.b64decode(spelled)

    assert len(raw) == 32
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        for spelling in (spelled.encode(), raw, raw.hex().encode()):
            assert spelling not in content, file.name
    with again(kw) as other:
        assert other.installation.webhooks.signing(endpoint.endpoint, kw.installation.clock()) == [raw]


@pytest.mark.security("T-37", "H-06")
def test_a_replayed_or_altered_message_is_refused(kw: Keywright) -> None:
    """The reference receiver takes what we sign now, and refuses it six minutes later, altered, or under another id."""
    endpoint = hooked(kw)
    (secret,) = kw.installation.webhooks.signing(endpoint.endpoint, kw.installation.clock())
    theirs, body = Webhook(endpoint.secret.reveal()), b'{"type":"key.created"}'
    at = datetime.now(UTC)

    def headers(moment: datetime, message_id: str = "msg_1") -> dict[str, str]:
        micros = int(moment.timestamp()) * SECOND
        signed = events.signature(secret, "msg_1", micros, body)
        stamp = str(micros // SECOND)
        return {"webhook-id": message_id, "webhook-timestamp": stamp, "webhook-signature": signed}

    assert theirs.verify(body, headers(at)) == {"type": "key.created"}
    for wrong, sent in (
        (headers(at - timedelta(minutes=6)), body),
        (headers(at), body + b" "),
        (headers(at, "msg_2"), body),
    ):
        with pytest.raises(WebhookVerificationError):
            theirs.verify(sent, wrong)


# ---------------------------------------------------------------------------------------------------------- the courier


@pytest.mark.security("R-31")
def test_a_receiver_that_is_down_is_tried_for_days(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """Ten attempts within some three days, at the planned times, with one id; then it is given up, and said."""
    receiver.answer = lambda _sent: Outcome(500)
    endpoint = hooked(kw)
    make(kw)
    courier.round()
    for made, wait in enumerate(SCHEDULE, 1):
        clock.advance(seconds=wait - 1)
        courier.round()
        assert len(receiver.got) == made
        clock.advance(seconds=1)
        courier.round()
        assert len(receiver.got) == made + 1

    clock.advance(days=9)
    courier.round()
    assert len({sent.headers["webhook-id"] for sent in receiver.got}) == 1
    assert len({sent.headers["webhook-timestamp"] for sent in receiver.got}) == 10
    (fate,) = log(kw, endpoint)
    assert (fate.state, fate.attempts, fate.status) == ("failed", 10, 500)


@pytest.mark.security("R-31")
def test_a_receiver_that_was_down_for_six_hours_gets_everything(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """What happened while it was down arrives, each message at least once, and nothing is left."""
    receiver.answer = lambda _sent: Outcome(None, "no connection could be made, or it broke")
    endpoint = hooked(kw)
    for _ in range(6):
        make(kw)
        courier.round()
        clock.advance(hours=1)
    receiver.answer = lambda _sent: Outcome(200)
    tried = {sent.headers["webhook-id"] for sent in receiver.got}
    receiver.got.clear()
    for _ in range(15):
        courier.round()
        clock.advance(hours=1)

    arrived = [sent.headers["webhook-id"] for sent in receiver.got]
    assert len(arrived) == len(set(arrived)) == 6
    assert tried <= set(arrived)
    assert {one.state for one in log(kw, endpoint)} == {"delivered"}


def test_first_attempts_keep_the_order_of_things(kw: Keywright, courier: Courier, receiver: Receiver) -> None:
    """To one endpoint messages are sent in the order in which things happened."""
    hooked(kw)
    made = [make(kw, name=f"Key {n}").key.id for n in range(9)]
    courier.round()

    assert [sent.json["data"]["key"]["id"] for sent in receiver.got] == made


@pytest.mark.security("R-31")
def test_410_disables_at_once(kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver) -> None:
    """An endpoint that is gone is disabled with an audit entry, others hear of it, and nothing more is sent to it."""
    gone = hooked(kw, url="https://gone.example.com/")
    hooked(kw, events=["webhook.disabled"])
    receiver.answer = lambda sent: Outcome(410 if "gone" in sent.url else 200)
    make(kw)
    make(kw)
    courier.round()
    clock.advance(days=1)
    make(kw)
    courier.round()

    assert (now(kw, gone).state, now(kw, gone).state_reason) == ("disabled", "gone: it answered 410")
    assert [sent.url for sent in receiver.got] == ["gone.example.com/", "hooks.example.com/in"]
    assert receiver.got[1].json["data"]["webhook"]["id"] == gone.endpoint.id
    assert {one.state for one in log(kw, gone)} == {"failed"}
    entry = kw.installation.trail.list(target=gone.endpoint.id).items[0]
    assert (entry["action"], entry["actor_kind"], entry["actor_id"]) == ("webhook.fail", "system", "courier")


@pytest.mark.security("T-39", "R-31")
def test_an_endpoint_that_fails_for_days_is_disabled(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """After three days without one success it is disabled; enabled again, it can have what the log still has."""
    receiver.answer = lambda _sent: Outcome(302)
    endpoint = hooked(kw)
    for _ in range(25):
        make(kw)
        courier.round()
        clock.advance(hours=3)

    assert now(kw, endpoint).state == "disabled"
    assert now(kw, endpoint).state_reason == "it has taken nothing for 3 days"
    receiver.answer = lambda _sent: Outcome(200)
    receiver.got.clear()
    desk = kw.installation.webhooks
    desk.enable(endpoint.endpoint.id)
    many = desk.redeliver(endpoint.endpoint.id, since=clock() - 3 * DAY * SECOND)
    for _ in range(20):
        courier.round()
        clock.advance(seconds=1)
    assert len(receiver.got) == many > 20


def test_one_success_clears_the_record(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """An endpoint that takes a message now and then is never disabled."""
    answers = [Outcome(500)] * 8 + [Outcome(200)]
    receiver.answer = lambda _sent: answers[len(receiver.got) % len(answers)]
    endpoint = hooked(kw)
    for _ in range(4 * 8):
        make(kw)
        courier.round()
        clock.advance(hours=6)

    assert now(kw, endpoint).state == "active"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_heeded(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver, status: int
) -> None:
    """A receiver that says when to come again is left alone until then, other messages included."""
    receiver.answer = lambda _sent: Outcome(status, retry_after=600)
    hooked(kw)
    make(kw)
    courier.round()
    for _ in range(9):
        make(kw)
        clock.advance(minutes=1)
        courier.round()
    assert len(receiver.got) == 1

    clock.advance(minutes=1)
    courier.round()
    assert len(receiver.got) == 2


def test_an_endpoint_that_is_closed_is_not_connected_to(kw: Keywright, clock: Clock) -> None:
    """An address that turns out to lie inside is never sent anything; the log says why."""

    class Inside(Receiver):
        def numbers(self, _target: Target) -> list[str]:
            raise Closed("the address leads inside: it is private")

    post = Inside(clock)
    endpoint = hooked(kw)
    make(kw)
    courier_of(kw, clock, post).round()

    assert post.got == []
    assert log(kw, endpoint)[0].error == "the address leads inside: it is private"


def test_what_waits_is_given_up_with_its_endpoint(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """A disabled endpoint is sent nothing and what waited for it is marked; a deleted one leaves nothing behind."""
    receiver.answer = lambda _sent: Outcome(500)
    disabled, deleted = hooked(kw), hooked(kw)
    make(kw)
    courier.round()
    kw.installation.webhooks.disable(disabled.endpoint.id)
    kw.installation.webhooks.delete(deleted.endpoint.id)
    receiver.got.clear()
    clock.advance(days=1)
    courier.round()

    assert receiver.got == []
    assert [(one.state, one.error) for one in log(kw, disabled)] == [("failed", "the endpoint is disabled")]
    with kw.installation.database.read("usage") as connection:
        assert deliveries.page(connection, deleted.endpoint.id, state=None, before=None, limit=9) == []


def test_the_log_is_bounded(
    kw: Keywright, clock: Clock, courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each endpoint the newest that are done are kept, and nothing that is older than a month."""
    monkeypatch.setattr(deliveries, "KEPT", 5)
    endpoint = hooked(kw)
    for _ in range(9):
        make(kw)
    courier.round()
    clock.advance(hours=2)
    courier.round()
    assert len(log(kw, endpoint)) == 5

    clock.advance(days=31)
    courier.round()
    assert log(kw, endpoint) == ()


def test_a_crash_after_carrying_delivers_once(kw: Keywright, clock: Clock, receiver: Receiver) -> None:
    """A courier that dies between taking messages in and removing them from the outbox leaves them to be taken in twice."""
    hooked(kw)
    make(kw)
    with kw.installation.database.read() as connection:
        left = webhooks.waiting(connection, 9)
    with kw.installation.database.write("usage") as tx:
        deliveries.carry(tx, left, clock())

    courier_of(kw, clock, receiver).round()

    assert waiting(kw) == []
    assert receiver.types == ["key.created"]


def test_one_process_delivers(kw: Keywright, clock: Clock) -> None:
    """A lease is one process's until it is let go of, or has run out."""
    with kw.installation.database.write("usage") as tx:
        assert deliveries.lease(tx, "courier", "a", clock(), clock() + 10)
        assert deliveries.lease(tx, "courier", "a", clock(), clock() + 20)
        assert not deliveries.lease(tx, "courier", "b", clock() + 19, clock() + 40)
        assert deliveries.lease(tx, "courier", "b", clock() + 20, clock() + 40)
        deliveries.release(tx, "courier", "b")
        assert deliveries.lease(tx, "courier", "c", clock(), clock() + 40)


# ------------------------------------------------------------------------------------------------------- third parties


@pytest.mark.security("T-39")
def test_a_confined_callers_endpoint_hears_nothing_but_its_challenge(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """However much happens, an endpoint that has not answered is asked once, and again only when somebody says so."""
    endpoint = hooked(kw, reach=CONFINED)
    desk = kw.installation.webhooks
    for _ in range(20):
        make(kw)
        courier.round()
        clock.advance(minutes=10)
    assert receiver.types == ["webhook.verify"]

    desk.test(endpoint.endpoint.id, reach=CONFINED)
    with pytest.raises(Conflict, match="within the last 60 seconds"):
        desk.test(endpoint.endpoint.id, reach=CONFINED)
    courier.round()
    assert receiver.types == ["webhook.verify"] * 2
    assert now(kw, endpoint).state == "pending"


@pytest.mark.security("T-39")
def test_a_challenge_is_read_at_the_receiver_alone(
    kw: Keywright, courier: Courier, receiver: Receiver
) -> None:
    """No answer of the management API, the delivery log's included, says what an endpoint was sent to prove itself."""
    caller = manager(kw, account="globex")
    with Door(server(kw)) as door:
        made = door.json("POST", "/v1/webhooks", {"url": "https://hooks.example.com/"}, caller)
        assert made.json["webhook"]["state"] == "pending"
        at = f"/v1/webhooks/{made.json['webhook']['id']}"
        courier.round()
        challenge = receiver.got[0].json["data"]["challenge"].encode()
        answers = [
            made,
            door.get(at, caller),
            door.get(f"{at}/deliveries", caller),
            door.json("POST", f"{at}/verify", {"challenge": "guess"}, caller),
            door.json("PATCH", at, {"description": "New"}, caller),
            door.send("POST", f"{at}/enable", caller),
            door.get(f"/v1/audit?target={made.json['webhook']['id']}", caller),
        ]

    assert len(answers[2].json["items"]) == 1
    assert [answer.body for answer in answers if challenge in answer.body] == []


def test_the_command_does_what_the_api_does(tmp_path: Path) -> None:
    """Made, listed, edited, rotated, tested, disabled, enabled and deleted by hand; a secret is said where it is made only."""
    keywright = Folder(tmp_path)
    assert keywright("init").code == 0
    made = keywright(
        "webhooks", "create", "https://hooks.example.com/", "--event", "key.deleted", "--json"
    ).json
    id_ = made["webhook"]["id"]
    rotated = keywright("webhooks", "rotate", id_, "--quiet").out.strip()
    secrets = {made["secret"], rotated}
    said = [
        keywright("webhooks", *line, "--json")
        for line in (
            ["get", id_],
            ["list"],
            ["edit", id_, "--all-events", "--description", "All"],
            ["test", id_],
            ["deliveries", id_],
            ["redeliver", id_, "--since", "1d"],
            ["disable", id_],
            ["enable", id_],
            ["events"],
            ["delete", id_, "--yes"],
        )
    ]

    assert [one.code for one in said] == [0] * len(said), [one.err for one in said]
    assert all(secret.startswith("whsec_") for secret in secrets)
    assert [one for one in said if any(secret in one.out for secret in secrets)] == []
    assert said[2].json["events"] == []
    assert said[4].json["items"][0]["type"] == "webhook.test"
    assert keywright("webhooks", "get", id_).code == 1
    inside = keywright("webhooks", "create", "https://10.0.0.1/")
    assert (inside.code, "URL: leads inside: 10.0.0.1 is private" in inside.err) == (1, True)


@pytest.mark.security("T-39")
@pytest.mark.parametrize("shape", ["{challenge}", ' {{"challenge": "{challenge}"}}\n'])
def test_an_endpoint_that_answers_its_challenge_is_told(
    kw: Keywright, courier: Courier, receiver: Receiver, shape: str
) -> None:
    """The challenge, as text or as JSON, makes it active; from then on it hears of events."""

    def answer(sent: Sent) -> Outcome:
        data = sent.json["data"]
        said = shape.format(challenge=data["challenge"]) if "challenge" in data else ""
        return Outcome(200, body=said.encode())

    receiver.answer = answer
    endpoint = hooked(kw, reach=CONFINED)
    courier.round()
    make(kw)
    courier.round()

    assert now(kw, endpoint).state == "active"
    assert receiver.types == ["webhook.verify", "key.created"]


@pytest.mark.security("T-39")
def test_an_echo_is_no_answer(kw: Keywright, courier: Courier, receiver: Receiver) -> None:
    """A third party that sends back whatever it gets, or says yes to everything, has not answered."""
    bodies = iter([lambda sent: sent.body, lambda _sent: b"OK", lambda _sent: b'["challenge"]'])
    receiver.answer = lambda sent: Outcome(200, body=next(bodies)(sent))
    made = [hooked(kw, reach=CONFINED) for _ in range(3)]
    courier.round()

    assert [now(kw, one).state for one in made] == ["pending"] * 3


@pytest.mark.security("T-39")
def test_a_challenge_can_be_said_by_hand(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """Whoever reads it at the receiver may say it; a wrong one is refused, and a new address is asked anew."""
    desk, endpoint = kw.installation.webhooks, hooked(kw, reach=CONFINED)
    courier.round()
    with pytest.raises(Invalid, match="challenge"):
        desk.verify(endpoint.endpoint.id, "guess", reach=CONFINED)
    said = receiver.got[0].json["data"]["challenge"]
    assert desk.verify(endpoint.endpoint.id, said, reach=CONFINED).state == "active"

    moved = desk.edit(endpoint.endpoint.id, url="https://victim.example.com/", reach=CONFINED)
    make(kw)
    clock.advance(minutes=1)
    courier.round()

    assert moved.state == "pending"
    assert receiver.types == ["webhook.verify", "webhook.verify"]
    with pytest.raises(Invalid):
        desk.verify(endpoint.endpoint.id, said, reach=CONFINED)
    assert desk.enable(endpoint.endpoint.id, reach=CONFINED).state == "pending"
    assert desk.enable(endpoint.endpoint.id).state == "active"


@pytest.mark.security("T-39")
def test_one_host_is_not_flooded(kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver) -> None:
    """However many endpoints lead to one address, it gets so many requests a second and no more, and all in the end."""
    for n in range(20):
        hooked(kw, url=f"https://h{n}.example.com/")
    make(kw)
    make(kw)
    for _ in range(10):
        before = len(receiver.got)
        courier.round()
        courier.round()
        assert len(receiver.got) - before <= MOST_A_SECOND
        clock.advance(seconds=1)

    assert len(receiver.got) == 40


@pytest.mark.security("T-39")
@pytest.mark.sqlite_only("asks no store")
def test_a_network_of_ipv6_is_one_address(clock: Clock) -> None:
    """Addresses of one network of 64 bits share what a second has room for; those of IPv4 have each their own."""
    pace = Pace(clock)

    assert [pace.admits(f"2606:2800::{n:x}") for n in range(11)] == [True] * 10 + [False]
    assert pace.admits("2606:2800:0:1::1")
    assert all(pace.admits(f"93.184.216.{n}") for n in range(11))
    clock.advance(seconds=1)
    assert pace.admits("2606:2800::1")


def test_endpoints_are_bounded(kw: Keywright) -> None:
    """An account has twenty endpoints at most, and another's do not count."""
    for n in range(20):
        hooked(kw, url=f"https://h{n}.example.com/", account="globex")
    with pytest.raises(Conflict, match="20 endpoints"):
        hooked(kw, reach=CONFINED)

    assert hooked(kw, account="initech")


def test_a_test_is_sent(kw: Keywright, courier: Courier, receiver: Receiver) -> None:
    """A test goes to the one endpoint, whatever it subscribes to, and not to one that is disabled."""
    desk, endpoint = kw.installation.webhooks, hooked(kw, events=["key.deleted"])
    hooked(kw)
    message = desk.test(endpoint.endpoint.id)
    courier.round()
    assert [sent.headers["webhook-id"] for sent in receiver.got] == [message]
    assert receiver.types == ["webhook.test"]

    desk.disable(endpoint.endpoint.id)
    with pytest.raises(Conflict, match="disabled"):
        desk.test(endpoint.endpoint.id)


@pytest.mark.requirement("X-13")
def test_what_is_sent_on_somebodys_word_is_in_the_trail(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """A test, a challenge that is repeated and a redelivery are told of, by whom; one that is refused is not."""
    desk, who = kw.installation.webhooks, Actor("person", "pe_ana")
    ours, pending = hooked(kw).endpoint.id, hooked(kw, reach=CONFINED).endpoint.id
    clock.advance(minutes=2)
    sent = [desk.test(ours, actor=who), desk.test(pending, actor=who, reach=CONFINED)]
    with pytest.raises(Conflict):
        desk.test(pending, actor=who, reach=CONFINED)
    desk.redeliver(ours, since=clock(), actor=who)
    with pytest.raises(Conflict):
        desk.redeliver(pending, since=clock(), actor=who, reach=CONFINED)

    entries = [one for one in kw.installation.trail.list().items if one["actor_id"] == "pe_ana"]
    assert [(one["action"], one["target_id"], one["detail"]) for one in reversed(entries)] == [
        ("webhook.test", ours, {"message": sent[0]}),
        ("webhook.test", pending, {"message": sent[1]}),
        ("webhook.redeliver", ours, {"since": rfc3339(clock())}),
    ]


# --------------------------------------------------------------------------------------------------------- the calendar


def days_and_types(receiver: Receiver) -> list[tuple[str, int | None]]:
    """The events that came, with the days that they name."""
    return [(sent.json["type"], sent.json["data"].get("days")) for sent in receiver.got]


EXPIRY = ["key.expiring", "key.expired"]


def test_an_expiry_is_told_of_in_time(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """14, 3 and 1 days before and when it has come, once each, with the instant at which it was so."""
    hooked(kw, events=EXPIRY)
    expires = clock() + 20 * DAY * SECOND
    make(kw, expires_at=expires)
    make(kw)
    for _ in range(21 * 4):
        courier.round()
        clock.advance(hours=6)

    assert days_and_types(receiver) == [
        ("key.expiring", 14), ("key.expiring", 3), ("key.expiring", 1), ("key.expired", None),
    ]  # fmt: skip
    assert [sent.json["timestamp"] for sent in receiver.got] == [
        rfc3339(expires - days * DAY * SECOND) for days in (14, 3, 1, 0)
    ]
    assert receiver.got[-1].json["data"]["key"]["state"] == "expired"


def test_an_expiry_is_told_of_after_a_pause(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """Where nothing ran for a while, what is still true is told once: the nearest warning, or that it has expired."""
    hooked(kw, events=EXPIRY)
    make(kw, expires_at=clock() + 16 * DAY * SECOND)
    make(kw, expires_at=clock() + 8 * DAY * SECOND)
    courier.round()
    clock.advance(days=14)
    courier.round()
    courier.round()

    assert sorted(days_and_types(receiver), key=str) == [("key.expired", None), ("key.expiring", 3)]


def test_who_comes_later_is_not_told_of_the_past(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """The first endpoint hears of what the clock brings from then on; so does a key that is made close to its expiry."""
    make(kw, expires_at=clock() + DAY * SECOND)
    clock.advance(days=30)
    courier.round()
    hooked(kw, events=EXPIRY)
    make(kw, expires_at=clock() + 10 * DAY * SECOND)
    courier.round()
    clock.advance(minutes=1)
    courier.round()
    assert receiver.got == []

    clock.advance(days=8)
    courier.round()
    assert days_and_types(receiver) == [("key.expiring", 3)]


@pytest.mark.parametrize("how", ["grace", "finish", "at once", "first use", "cancel", "invalidate"])
def test_the_end_of_a_rotation_is_told_of(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver, how: str
) -> None:
    """However the old secret comes to its end, it is told of once; where the rotation comes to nothing, it is not."""
    issued = make(kw)
    hooked(kw, events=["key.rotation_ended"])
    start = "first_use" if how == "first use" else "now"
    new = kw.keys.rotate(issued.key.id, grace_seconds=0 if how == "at once" else 3600, start=start)
    clock.advance(minutes=1)
    courier.round()
    if how in ("finish", "cancel", "invalidate"):
        getattr(kw.keys, how)(issued.key.id)
    if how == "first use":
        headers = {"Authorization": f"Bearer {new.credential.token.reveal()}"}
        assert kw.verify(headers, keyspace="every", environment="production")
    for _ in range(4):
        clock.advance(minutes=40)
        courier.round()

    assert receiver.types == ([] if how in ("cancel", "invalidate") else ["key.rotation_ended"])


@pytest.mark.parametrize("early", [False, True], ids=["by itself", "by somebody"])
def test_the_return_of_a_key_is_told_of(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver, early: bool
) -> None:
    """That a key disabled for a time works again is told of once: when the time is over, or when somebody enables it before."""
    issued = make(kw)
    hooked(kw, events=["key.enabled"])
    clock.advance(minutes=1)
    courier.round()
    kw.keys.disable(issued.key.id, for_seconds=3600)
    if early:
        kw.keys.enable(issued.key.id)
    for _ in range(4):
        clock.advance(minutes=40)
        courier.round()

    assert receiver.types == ["key.enabled"]
    assert receiver.got[0].json["data"]["key"]["state"] == "active"


# ----------------------------------------------------------------------------------------------------------- the quotas


def spend(kw: Keywright, issued: Any, times: int) -> None:
    """Use a key so often, and let the counts be written."""
    for _ in range(times):
        kw.verify(bearer(issued), keyspace="every", environment="production")
    kw.installation.meter.settle()


@pytest.mark.parametrize("of", ["key", "account", "plan", "credits"])
def test_a_quota_that_runs_out_is_told_of(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver, of: str
) -> None:
    """80 % and the end are told once a period each, with what is left of what until when; whoever's quota it is."""
    hooked(kw, events=["quota.warning", "quota.exhausted"])
    if of == "account":
        kw.accounts.limit("globex", ["5/day"])
    limits = {"key": ["5/day"], "credits": ["credits:5"]}.get(of, [])
    issued = make(kw, limits=limits, plan="small" if of == "plan" else None)
    for times in (3, 1, 0, 1, 3):
        spend(kw, issued, times)
        clock.advance(minutes=1)
        courier.round()

    told = [(sent.json["type"], sent.json["data"]["quota"]["used"]) for sent in receiver.got]
    assert told == [("quota.warning", 4), ("quota.exhausted", 5)]
    data = receiver.got[0].json["data"]
    assert data["quota"]["resets_at"] == (None if of == "credits" else "2027-01-16T00:00:00Z")
    assert ("account" if of == "account" else "key") in data
    clock.advance(days=1)
    spend(kw, issued, 5)
    clock.advance(minutes=1)
    courier.round()
    assert receiver.types[2:] == ([] if of == "credits" else ["quota.exhausted"])


def test_a_rate_and_an_unlimited_key_are_not_told_of(
    kw: Keywright, clock: Clock, courier: Courier, receiver: Receiver
) -> None:
    """A rate comes back by itself within seconds, and what has no limit does not run out."""
    hooked(kw, events=["quota.warning", "quota.exhausted"])
    spend(kw, make(kw, limits=["rate:5/10s"]), 9)
    spend(kw, make(kw), 9)
    spend(kw, make(kw, limits=["100/day"]), 79)
    clock.advance(minutes=1)
    courier.round()

    assert receiver.got == []


# --------------------------------------------------------------------------------------------------------- for real


class Taking(BaseHTTPRequestHandler):
    """A receiver on this machine that keeps what it gets, as the reference package reads it."""

    got: list[tuple[dict[str, str], bytes]]
    came: threading.Event

    def do_POST(self) -> None:
        """Take it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((dict(self.headers.items()), body))
        self.send_response(204)
        self.end_headers()
        self.came.set()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.sqlite_only("kills the process, which PostgreSQL is none of")
@pytest.mark.security("H-06")
def test_a_kill_between_a_change_and_its_webhook_loses_nothing(tmp_path: Path) -> None:
    """A server that is killed before it delivers delivers once it is back, and the reference package takes the message."""
    database = f"sqlite:///{tmp_path / 'k.db'}"
    around = {"KEYWRIGHT_DATABASE": database, "KEYWRIGHT_WEBHOOK_NETWORKS": "127.0.0.0/8"}
    handler = type("Taker", (Taking,), {"got": [], "came": threading.Event()})
    receiving = HTTPServer(("127.0.0.1", 0), handler)
    place = receiving.server_address
    url = f"http://127.0.0.1:{receiving.server_port}/in"
    assert run("init", cwd=tmp_path, **around).returncode == 0
    made = run("webhooks", "create", url, "--event", "key.created", "--quiet", cwd=tmp_path, **around)
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()

    with Served(database, tmp_path, **around) as served:
        # The receiver takes connections and says nothing yet: whatever is sent now is not taken.
        created = run(
            "keys",
            "create",
            "CRM",
            "--access",
            "all",
            "--environment",
            "production",
            "--json",
            cwd=tmp_path,
            **around,
        )
        key_id = msgspec.json.decode(created.stdout)["key"]["id"]
        served.process.kill()
        served.ended()
    receiving.server_close()  # with what the dead server had sent
    receiving = HTTPServer(place, handler)
    thread = threading.Thread(target=receiving.serve_forever)
    thread.start()
    try:
        with Served(database, tmp_path, **around):
            assert handler.came.wait(60)
    finally:
        receiving.shutdown()
        thread.join()
        receiving.server_close()

    taken = [Webhook(secret).verify(body, headers) for headers, body in handler.got]
    assert {one["type"] for one in taken} == {"key.created"}
    assert key_id in {one["data"]["key"]["id"] for one in taken}
    with sqlite3.connect(tmp_path / "k.db") as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
    connection.close()
