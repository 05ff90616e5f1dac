"""Reports of GitHub's and GitLab's: proven or refused, written down before the answer, seen to once."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conftest import again, bearer, make
from keywright import Invalid, Issued, Keywright, Unavailable
from keywright.credential import new_id, new_secret, spell_token
from keywright.desk.leaks import MOST_OF_SCANNERS, MOST_TOKENS
from keywright.errors import CannotStart, Forged
from keywright.profiles import MANAGEMENT_SCOPES
from keywright.scanners import rules
from keywright.server.hot import BATCH_LIMIT
from keywright.server.partner import BELIEVED, PAUSE, Partner, read_matches
from keywright.testing import Clock
from people import as_person, begin
from surfaces import Door, Reply, configured, manager, server

pytestmark = pytest.mark.stores

EVERY = {"keyspace": "every", "environment": "production", "method": "GET"}
PATH = "/v1/leaks/github"


class Publisher:
    """Where a partner publishes its keys, on a port of this machine; and the partner, who signs with them."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[Any, bool]] = {"one": (ec.generate_private_key(ec.SECP256R1()), True)}
        self.asked = 0
        self.answer: bytes | None = None
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked += 1
                body = publisher.answer if publisher.answer is not None else publisher.document()
                self.send_response(200 if body else 500)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/meta/public_keys/secret_scanning"

    def document(self) -> bytes:
        """The key set."""
        listed = [
            {
                "key_identifier": name,
                "key": key.public_key()
                .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
                .decode(),
                "is_current": current,
            }
            for name, (key, current) in self.keys.items()
        ]
        return json.dumps({"public_keys": listed}).encode()

    def sign(self, body: bytes, name: str = "one", algorithm: Any = None) -> dict[str, str]:
        """The headers of a report."""
        signature = self.keys[name][0].sign(body, ec.ECDSA(algorithm or SHA256()))
        return {
            "Github-Public-Key-Identifier": name,
            "Github-Public-Key-Signature": base64.b64encode(signature).decode(),
        }

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def github() -> Iterator[Publisher]:
    """The partner."""
    publisher = Publisher()
    yield publisher
    publisher.close()


@pytest.fixture
def door(kw: Keywright, github: Publisher) -> Iterator[Door]:
    """The server, which knows where the partner's keys are."""
    with Door(server(kw, leaks_github_keys_url=github.url)) as opened:
        yield opened


def written(*tokens: str, **more: Any) -> bytes:
    """A report."""
    found = {"type": "acme_api_key", "url": "https://github.com/x/y/blob/z/a.py", "source": "content"} | more
    return json.dumps([{"token": token} | found for token in tokens]).encode()


def send(door: Door, github: Publisher, body: bytes, **over: str) -> Reply:
    """Report as the partner does."""
    return door.send("POST", PATH, github.sign(body) | over, body)


def token(issued: Issued) -> str:
    """The token of a key that was just made."""
    return issued.credential.token.reveal()


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Now."""
        return self.now


@pytest.mark.security("S-01", "T-59")
def test_only_what_the_partner_signed_is_read(door: Door, kw: Keywright, github: Publisher) -> None:
    """A body or signature that was altered, written anew, or signed by a key or algorithm of another kind is 400."""
    github.keys |= {
        "old": (ec.generate_private_key(ec.SECP256R1()), False),
        "large": (ec.generate_private_key(ec.SECP384R1()), True),
    }
    other = Publisher()
    other.close()
    body = written(token(make(kw)))
    right = github.sign(body)
    signature = right["Github-Public-Key-Signature"]
    assert door.send("POST", PATH, right, body).status == 200
    github.keys["rsa"] = (rsa.generate_private_key(65537, 2048), True)

    wrong = {
        "altered body": (right, body.replace(b"content", b"contend")),
        "written anew": (right, json.dumps(json.loads(body), indent=1).encode()),
        "empty": (right, b""),
        "altered signature": (right | {"Github-Public-Key-Signature": signature[:-8] + "AAAAAAA="}, body),
        "no base64": (right | {"Github-Public-Key-Signature": "!" + signature}, body),
        "empty signature": (right | {"Github-Public-Key-Signature": ""}, body),
        "long": (right | {"Github-Public-Key-Signature": "A" * 4000}, body),
        "unknown key": (right | {"Github-Public-Key-Identifier": "two"}, body),
        "another's key": (other.sign(body), body),
        "not current": (github.sign(body, "old"), body),
        "P-384": (github.sign(body, "large"), body),
        "SHA-384": (github.sign(body, "one", SHA384()), body),
        "RSA by name": (right | {"Github-Public-Key-Identifier": "rsa"}, body),
    }
    for name, (headers, sent) in wrong.items():
        reply = door.send("POST", PATH, headers, sent)
        assert (reply.status, reply.code) == (400, "bad_signature"), name
    kw.installation.lookout.round()
    assert len(kw.installation.alerts.list().items) == 1


@pytest.mark.security("S-01")
def test_the_keys_are_asked_for_at_most_once_a_minute(github: Publisher) -> None:
    """An unknown key asks for the set once, and again after a minute; what is old is asked for anew, or not believed."""
    time, body = Time(), b"[]"
    partner = Partner(github.url, clock=time)
    right = tuple(github.sign(body).values())
    for _ in range(5):
        partner.prove(body, *right)
        with pytest.raises(Forged):
            partner.prove(body, "two", right[1])
    assert github.asked == 1

    github.keys["two"] = (ec.generate_private_key(ec.SECP256R1()), True)
    time.now += PAUSE - 1
    with pytest.raises(Forged):
        partner.prove(body, *github.sign(body, "two").values())
    time.now += 1
    partner.prove(body, *github.sign(body, "two").values())
    assert github.asked == 2

    github.answer = b""
    time.now += BELIEVED - 1
    partner.prove(body, *right)
    with pytest.raises(Unavailable):
        partner.prove(body, "three", right[1])
    time.now += 1
    for _ in range(5):
        with pytest.raises(Unavailable):
            partner.prove(body, *right)
    assert github.asked == 3
    github.answer = None
    time.now += PAUSE
    partner.prove(body, *right)
    partner.close()


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"public_keys": [5]}', b'{"public_keys": 5}', b"no JSON"]
)
def test_a_key_server_that_is_down_is_503(kw: Keywright, github: Publisher, answer: bytes) -> None:
    """While the keys cannot be had the answer is 503, with when to come again, and nothing is read."""
    github.answer, body = answer, written(token(make(kw)))
    with Door(server(kw, leaks_github_keys_url=github.url)) as door:
        reply = send(door, github, body)
    assert (reply.status, reply.code, reply.get("retry-after")) == (503, "unavailable", "1")
    assert kw.installation.lookout.round() is None or kw.installation.alerts.list().items == ()


@pytest.mark.parametrize(
    "url", ["http://keys.example.com/keys", "nonsense", "https://u@keys.example.com", "https://x.example/?a"]
)
def test_the_address_of_the_keys_is_https(url: str) -> None:
    """Keys that came over plain http would be anybody's: a server does not start with such an address."""
    with pytest.raises(CannotStart, match="leaks_github_keys_url"):
        configured(leaks_github_keys_url=url)
    with pytest.raises(Invalid, match="https"):
        Partner("http://keys.example.com/keys")


@pytest.mark.security("S-02")
def test_a_thousand_matches_are_written_down_before_the_answer(
    kw: Keywright, door: Door, github: Publisher
) -> None:
    """A report of a thousand is taken, whatever else stands in it, and what it names is in the store when it is answered."""
    keys = [make(kw) for _ in range(5)]
    strangers = [spell_token(new_id("acme", "live"), new_secret()) for _ in range(995)]
    body = written(*map(token, keys), *strangers)
    assert len(body) < BATCH_LIMIT
    reply = send(door, github, body)

    assert reply.status == 200
    with kw.installation.database.read("usage") as connection:
        from keywright.store import leaks

        assert {one.key_id for one in leaks.waiting(connection, 2000)} == {one.key.id for one in keys}


@pytest.mark.security("S-03")
def test_a_key_reported_a_hundred_times_is_one_leak(
    kw: Keywright, door: Door, github: Publisher, key: Issued
) -> None:
    """The same key, over and over, within a report and in many, is one entry in the trail and one alert."""
    for n in range(100):
        assert send(door, github, written(token(key), token(key))).status == 200
        if n % 30 == 0:
            kw.installation.lookout.round()
    kw.installation.lookout.round()

    (alert,) = kw.installation.alerts.list(key=key.key.id).items
    assert alert.evidence["urls"] == ["https://github.com/x/y/blob/z/a.py"]
    trail = [one["action"] for one in kw.installation.trail.list(target=key.key.id).items]
    assert trail.count("key.leaked") == 1
    assert kw.verify(bearer(key), **EVERY)


@pytest.mark.security("S-04")
def test_feedback_says_what_was_ours(kw: Keywright, door: Door, github: Publisher, key: Issued) -> None:
    """What is ours by checksum and MAC is a true positive; a right checksum around another secret is a false one."""
    whole = token(key)
    others = [
        spell_token(key.key.id, new_secret()),
        spell_token(new_id("every", "live"), new_secret()),
        whole[:-1],
        "x",
        "é",
    ]
    reply = send(door, github, written(whole, *others))

    assert [one["label"] for one in reply.json] == ["true_positive"] + ["false_positive"] * 5
    assert {one["token_type"] for one in reply.json} == {"acme_api_key"}
    assert all(
        len(one["token_hash"]) == 64 and set(one) == {"token_hash", "token_type", "label"}
        for one in reply.json
    )
    assert whole not in reply.body.decode()
    assert send(door, github, b"[]").json == []
    assert send(door, github, json.dumps([5, {}, {"token": 5}, {"token": ""}]).encode()).json == []
    for no_list in (b"{}", b"", b"nonsense", b"[" * 5000, b'"text"'):
        reply = send(door, github, no_list)
        assert (reply.status, reply.code) == (422, "invalid_request")


def test_what_is_kept_open_to_the_partner_is_closed_with_the_server(
    kw: Keywright, github: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is shut down leaves no connection to whoever publishes the keys."""
    closed: list[Partner] = []

    def close(partner: Partner) -> None:
        closed.append(partner)

    monkeypatch.setattr(Partner, "close", close)
    with again(kw) as other, Door(server(other, leaks_github_keys_url=github.url)) as door:
        assert send(door, github, b"[]").status == 200
        assert closed == []
    assert len(closed) == 1


@pytest.mark.security("S-05")
def test_nobody_learns_from_it_what_a_token_is(
    kw: Keywright, door: Door, github: Publisher, key: Issued
) -> None:
    """Without a right signature the answer is the same, whatever the token; without one, or without the setting, 404."""
    right, wrong = written(token(key)), written(token(key)[:-1])
    forged = github.sign(b"something else")

    def answers(body: bytes, headers: dict[str, str]) -> tuple[Any, ...]:
        reply = door.send("POST", PATH, headers, body)
        said = {name: value for name, value in reply.json.items() if not str(value).startswith("req_")}
        return reply.status, said

    half = {name: value for name, value in forged.items() if "Signature" in name}
    twice = [*forged.items(), ("github-public-key-signature", "x")]
    for headers, status in ((forged, 400), (half, 404), ({}, 404)):
        assert answers(right, headers) == answers(wrong, headers)
        assert answers(right, headers)[0] == status
    assert door.send("POST", PATH, twice, right).status == 404
    with Door(server(kw)) as off:
        assert off.send("POST", PATH, github.sign(right), right).status == 404
    assert door.send("POST", PATH, forged, b" " * (BATCH_LIMIT + 1)).status == 413
    assert door.send("GET", PATH, {}).status in (401, 405)


def test_a_place_that_is_no_address_is_left_out(
    kw: Keywright, door: Door, github: Publisher, key: Issued
) -> None:
    """A place that holds a credential itself, is too long, or is no address is not written down; the key is, all the same."""
    for place in (f"https://github.com/{token(key)}", "https://github.com/" + "x" * 600, "", 5, None):
        assert send(door, github, written(token(key), url=place)).status == 200
    kw.installation.lookout.round()
    (alert,) = kw.installation.alerts.list(key=key.key.id).items
    assert alert.evidence["urls"] == []
    assert read_matches(b'[{"token": "x", "type": 5}]')[0].type == ""


# -------------------------------------------------------------------------------------------------------------- GitLab

REVOKE = "/v1/revoke_tokens"


@pytest.fixture
def gitlab(kw: Keywright) -> dict[str, str]:
    """The headers of a GitLab of one's own: a management key that can do nothing else."""
    return manager(kw, "leaks:report")


def revoked(*tokens: str, **more: Any) -> list[dict[str, Any]]:
    """What it reports."""
    found = {"type": "gitleaks_rule_id_every-api-key", "location": "https://gitlab.example/x/-/blob/z/a.py"}
    return [found | {"token": token} | more for token in tokens]


@pytest.mark.security("S-06")
def test_gitlab_is_told_the_kinds_that_its_scanner_finds(
    kw: Keywright, door: Door, gitlab: dict[str, str]
) -> None:
    """The types are the ids of the rules for gitleaks; a key of one keyspace is told of that one's."""
    spaces = [one.keyspace for one in kw.keyspaces.list()]
    told = door.get("/v1/revocable_token_types", gitlab)

    assert (told.status, set(told.json)) == (200, {"types"})
    assert told.json["types"] == [f"gitleaks_rule_id_{rule.id}" for rule in rules(spaces)]
    assert "gitleaks_rule_id_every-api-key" in told.json["types"]
    bound = door.get("/v1/revocable_token_types", manager(kw, "leaks:report", keyspace="every")).json["types"]
    assert {"gitleaks_rule_id_every-api-key", "gitleaks_rule_id_every-api-secret"} <= set(bound)
    assert not [kind for kind in bound if "partna" in kind]


@pytest.mark.security("S-06", "S-03")
def test_what_gitlab_reports_is_seen_to_once(kw: Keywright, door: Door, gitlab: dict[str, str]) -> None:
    """204 says that it is written down; however often it comes, the key is stopped once, and told of once."""
    kw.keyspaces.apply(
        kw.keyspaces.get("every").source.replace(
            'title = "Every"', 'title = "Every"\nleaks = "invalidate"', 1
        )
    )
    key, other = make(kw), make(kw)
    for _ in range(3):
        reply = door.json("POST", REVOKE, revoked(token(key), token(key), type="of no kind"), gitlab)
        assert (reply.status, reply.body, reply.get("cache-control")) == (204, b"", "no-store")
        kw.installation.lookout.round()

    assert kw.verify(bearer(key), **EVERY).code == "invalidated"
    assert kw.verify(bearer(other), **EVERY)
    trail = [one["action"] for one in kw.installation.trail.list(target=key.key.id).items]
    assert trail.count("key.leaked") == trail.count("key.invalidate") == 1
    (alert,) = kw.installation.alerts.list(key=key.key.id).items
    assert alert.evidence["urls"] == ["https://gitlab.example/x/-/blob/z/a.py"]


@pytest.mark.security("S-06")
def test_gitlab_is_told_nothing_of_what_it_reports(
    kw: Keywright, door: Door, gitlab: dict[str, str], key: Issued
) -> None:
    """What is ours, what only looks so, and what is no token have one answer, to the byte."""
    strange = [spell_token(key.key.id, new_secret()), token(key)[:-1], "x", "é", token(key)]
    replies = [door.json("POST", REVOKE, revoked(one, location="no address"), gitlab) for one in strange]
    said = {(reply.status, reply.body, frozenset(name for name, _ in reply.headers)) for reply in replies}
    assert len(said) == 1
    assert door.json("POST", REVOKE, [5, {}, {"token": ""}, *revoked(token(key))], gitlab).status == 204


@pytest.mark.security("S-06")
def test_what_gitlab_must_not_send_again_is_400(door: Door, gitlab: dict[str, str]) -> None:
    """What is no list of tokens, has none, or has more than a report may have."""
    for body in ({}, [], "text", [5, {}], revoked(*["x"] * (MOST_TOKENS + 1))):
        reply = door.json("POST", REVOKE, body, gitlab)
        assert (reply.status, reply.code) == (400, "bad_json"), str(body)[:60]
    for raw in (b"", b"[", b"[" * 5000):
        reply = door.send("POST", REVOKE, gitlab | {"Content-Type": "application/json"}, raw)
        assert (reply.status, reply.code) == (400, "bad_json"), raw[:60]
    assert door.json("POST", REVOKE, revoked(*["x"] * MOST_TOKENS), gitlab).status == 204


@pytest.mark.security("S-06", "H-02")
def test_only_who_may_report_is_heard(kw: Keywright, door: Door, key: Issued) -> None:
    """Nobody, a customer's key, every other scope and every role are refused, and nothing is written down."""
    others = manager(kw, *sorted(set(MANAGEMENT_SCOPES) - {"leaks:report"}))
    told = [
        (door.json("POST", REVOKE, revoked(token(key)), headers).status)
        for headers in ({}, bearer(key), others, as_person(kw, begin(kw, "owner")))
    ]
    assert told == [401, 401, 403, 403]
    kw.installation.lookout.round()
    assert kw.installation.alerts.list(rule="leaked").items == ()


@pytest.mark.security("S-06")
def test_gitlab_comes_again_later_where_it_came_too_often(
    kw: Keywright, door: Door, gitlab: dict[str, str], key: Issued, clock: Clock
) -> None:
    """429 with when, by the scanner and not by its address; after an hour its reports are taken again."""
    other, whole = manager(kw, "leaks:report"), revoked(token(key))
    for _ in range(MOST_OF_SCANNERS):
        kw.installation.leaks.revoke([("x", None)], scanner=_id_of(gitlab))
    reply = door.json("POST", REVOKE, whole, gitlab)
    assert (reply.status, reply.code, reply.get("retry-after")) == (429, "rate_limited", "3600")
    assert door.json("POST", REVOKE, whole, other).status == 204
    clock.advance(hours=1)
    assert door.json("POST", REVOKE, whole, gitlab).status == 204


def _id_of(headers: dict[str, str]) -> str:
    return headers["Authorization"].partition(" ")[2].rpartition("_")[0]
