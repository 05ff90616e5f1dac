"""The verdict table: each scheme against each state of a credential, through every surface, to the same answer.

A cell is a carrier (a scheme in one of its written forms) and a row. It is run through the library in both colours,
through ``/v1/verify`` in each form that can say it, through forward-auth, and through two hosts. A cell that makes no
sense is left out with a reason, and a test counts that nothing is left out without one.
"""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from conftest import make
from keywright import Issued, Keywright, credential, profiles
from keywright.errors import CODES
from keywright.testing import Clock, copied
from surfaces import FAMILIES, Door, Reply, as_shown, example, held_back, host, manager, server


class System(NamedTuple):
    """What a keyspace's host asks: of a read, of a write; and the gate that asks the same."""

    reads: tuple[str, str, str]  # scope, method, path
    writes: tuple[str, str, str]
    gate: str


SYSTEMS = {
    "every": System(("things:read", "GET", "/things/1"), ("things:write", "POST", "/things"), "shop"),
    "atfinity": System(("cases:read", "GET", "/cases"), ("cases:write", "POST", "/cases"), "atfinity-door"),
    "partna": System(
        ("account:read", "GET", "/v4/account"), ("account:write", "POST", "/v4/account"), "partna-door"
    ),
    "fullwhere": System(
        ("customers:read", "GET", "/partners/customer"),
        ("customers:write", "PATCH", "/partners/customer"),
        "fullwhere-door",
    ),
    "gallabox": System(
        ("profile:read", "GET", "/devapi/me"),
        ("messages:write", "POST", "/devapi/messages/whatsapp"),
        "gallabox-door",
    ),
    "bizmagnets": System(
        ("messages:read", "GET", "/messages"), ("messages:write", "POST", "/messages"), "bizmagnets-door"
    ),
}


class Held(NamedTuple):
    """What a client holds of a key."""

    id: str
    secret: str | None
    token: str
    username: str


Headers = list[tuple[str, str]]


class Carrier(NamedTuple):
    """A scheme in one of its forms, in a keyspace that accepts it."""

    name: str
    keyspace: str
    write: Callable[[Held], Headers]
    half: Callable[[Held], list[Headers]] | None = None  # each half of a pair alone
    kind: str = "token"  # pair, token, or user


def _basic(held: Held) -> Headers:
    return [("Authorization", "Basic " + b64encode(f"{held.id}:{held.secret}".encode()).decode())]


def _half_basic(held: Held) -> list[Headers]:
    return [
        [("Authorization", "Basic " + b64encode(text.encode()).decode())]
        for text in (f"{held.id}:", f":{held.secret}")
    ]


def _key_secret(h: Held) -> Headers:
    return [("X-API-KEY", h.id), ("X-API-SECRET", str(h.secret))]


def _camel(h: Held) -> Headers:
    return [("apiKey", h.id), ("apiSecret", str(h.secret))]


def _key_user(h: Held) -> Headers:
    return [("x-api-key", h.token), ("x-api-user", h.username)]


def _halves(write: Callable[[Held], Headers]) -> Callable[[Held], list[Headers]]:
    return lambda held: [[header] for header in write(held)]


CARRIERS = [
    Carrier("key_secret", "every", _key_secret, _halves(_key_secret), "pair"),
    Carrier("camel_pair", "every", _camel, _halves(_camel), "pair"),
    Carrier("key_user", "every", _key_user, _halves(_key_user), "user"),
    Carrier("api_key_auth", "every", lambda h: [("Authorization", f"Api-Key {h.token}")]),
    Carrier("api_key_auth, literal", "every", lambda h: [("Api-Key", h.token)]),
    Carrier("bearer", "every", lambda h: [("Authorization", f"Bearer {h.token}")]),
    Carrier("basic", "every", _basic, _half_basic, "pair"),
    Carrier("header", "every", lambda h: [("X-Token", h.token)]),
    Carrier("dotted", "atfinity", lambda h: [("Authorization", f"Api-Key {h.token}")]),
    Carrier("dotted, literal", "atfinity", lambda h: [("Api-Key", h.token)]),
    Carrier("partna", "partna", _key_user, _halves(_key_user), "user"),
    Carrier("fullwhere", "fullwhere", _key_secret, _halves(_key_secret), "pair"),
    Carrier("gallabox", "gallabox", _camel, _halves(_camel), "pair"),
    Carrier("bizmagnets", "bizmagnets", _key_secret, _halves(_key_secret), "pair"),
    Carrier("bizmagnets, camel", "bizmagnets", _camel, _halves(_camel), "pair"),
]
#: The keys that each keyspace has, by what became of them.
STATES = (
    "good", "other", "rotated", "invalidated", "disabled", "deleted", "expired", "staging", "suspended",
    "restricted", "reader", "exhausted", "away",
)  # fmt: skip


class Case(NamedTuple):
    """A cell, ready to be sent."""

    headers: Headers
    code: str
    ask: str = "reads"  # reads, writes, or nothing: no scope is asked
    held: Held | None = None  # where the credential can be given by itself, without headers
    query: str = ""


Row = Callable[[Carrier, dict[str, Held]], list[Case]]
ROWS: dict[str, Row] = {}
MARKS: dict[str, tuple[pytest.MarkDecorator, ...]] = {}


def row(name: str, *requirements: str, security: tuple[str, ...] = ()) -> Callable[[Row], Row]:
    """Enter a row, with what it proves."""

    def enter(made: Row) -> Row:
        ROWS[name] = made
        MARKS[name] = (pytest.mark.requirement(*requirements), pytest.mark.security(*security))
        return made

    return enter


def plain(state: str, code: str, ask: str = "reads") -> Row:
    """The credential of a key in some state, sent as it should be."""
    return lambda carrier, held: [Case(carrier.write(held[state]), code, ask, held[state])]


def respelled(key_id: str, secret: str, username: str, *, dotted: bool) -> Held:
    """A credential with right checksums around any secret."""
    pair = None if dotted else credential.spell_pair_secret(key_id, secret)
    return Held(key_id, pair, credential.spell_token(key_id, secret), username)


def core(held: Held) -> str:
    """The 32 characters themselves."""
    spelled = credential.parse_token(held.token.encode())
    assert spelled is not None
    return spelled.secret.decode()


def is_dotted(carrier: Carrier) -> bool:
    """Whether keys of the carrier's keyspace are one value with a dot."""
    return carrier.keyspace == "atfinity"


row("valid, reading", "G-10", "B-01", "B-11", "B-19", "P-12", "X-01")(plain("good", "ok"))
row("valid, writing", "G-12")(plain("good", "ok", "writes"))
row("valid, nothing asked")(plain("good", "ok", "nothing"))
row("rotated", "X-01")(plain("rotated", "rotated"))
row("invalidated", "X-01", "G-06")(plain("invalidated", "invalidated"))
row("disabled", "X-01")(plain("disabled", "disabled"))
row("deleted", "X-01", "G-06")(plain("deleted", "invalid"))
row("expired", "X-01", "G-06")(plain("expired", "expired"))
row("wrong environment", "X-01", "P-30", security=("T-34",))(plain("staging", "wrong_environment"))
row("suspended account")(plain("suspended", "account_suspended"))
row("address not allowed")(plain("away", "ip_not_allowed"))
row("used up")(plain("exhausted", "quota_exhausted"))
row("restricted, what it holds", "G-13", "B-02", "B-12", security=("T-05",))(plain("restricted", "ok"))
row("insufficient scope", "X-01", "G-02", "G-09", "G-13", "B-12", security=("T-05",))(
    plain("restricted", "insufficient_scope", "writes")
)
row("restricted, nothing asked", "G-13")(plain("restricted", "insufficient_scope", "nothing"))
row("read-only, reading", "G-14", security=("T-05",))(plain("reader", "ok"))
row("read-only, writing", "G-09", "G-14", security=("T-05",))(plain("reader", "insufficient_scope", "writes"))


@row("missing", "F-01", "B-01", "X-01")
def _missing(_carrier: Carrier, _held: dict[str, Held]) -> list[Case]:
    return [Case([], "missing", ask) for ask in ("reads", "writes", "nothing")]


@row("half missing", "F-03", "P-02", "X-01")
def _half_missing(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    assert carrier.half is not None
    return [Case(headers, "missing") for headers in carrier.half(held["good"])]


@row("half empty", "F-03", "P-02")
def _half_empty(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    whole = carrier.write(held["good"])
    return [
        Case([(name, "" if n == place else value) for n, (name, value) in enumerate(whole)], "missing")
        for place in range(len(whole))
    ]


@row("malformed", "X-01", security=("T-12",))
def _malformed(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    good, cases = held["good"], []
    for spoil in (
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: t + "\n",
        lambda t: t + "\0",
        lambda t: f'"{t}"',
    ):
        broken = good._replace(token=spoil(good.token), secret=good.secret and spoil(good.secret))
        cases.append(Case(carrier.write(broken), "invalid", held=broken))
    return cases


@row("broken checksum")
def _checksum(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    def spoil(text: str) -> str:
        return text[:-1] + ("A" if text[-1] != "A" else "B")

    good = held["good"]
    broken = good._replace(token=spoil(good.token), secret=good.secret and spoil(good.secret))
    return [Case(carrier.write(broken), "invalid", held=broken)]


@row("wrong secret, right checksum", "G-07", "G-11", "B-03", "X-01")
def _wrong_secret(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    good = held["good"]
    wrong = respelled(good.id, credential.new_secret(), good.username, dotted=is_dotted(carrier))
    return [Case(carrier.write(wrong), "invalid", ask, wrong) for ask in ("reads", "writes", "nothing")]


@row("crossed pair", "F-06")
def _crossed(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    good = held["good"]
    crossed = respelled(good.id, core(held["other"]), good.username, dotted=is_dotted(carrier))
    return [Case(carrier.write(crossed), "invalid", held=crossed)]


@row("unknown", "G-05", "X-01")
def _unknown(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    good = held["good"]
    key_id = (
        credential.new_dotted_id()
        if is_dotted(carrier)
        else credential.new_id(good.id.partition("_")[0], good.id.split("_")[1])
    )
    unknown = respelled(key_id, core(good), good.username, dotted=is_dotted(carrier))
    return [Case(carrier.write(unknown), "invalid", held=unknown)]


@row("environment edited by hand", security=("T-34",))
def _edited(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    staging = held["staging"]
    edited = respelled(staging.id.replace("_stg_", "_live_"), core(staging), staging.username, dotted=False)
    return [Case(carrier.write(edited), "invalid", held=edited)]


@row("foreign username", "P-03")
def _foreign(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    good = held["good"]
    names = ("initech", "nobody", "GLOBEX", "globex'--", good.id)
    return [Case(carrier.write(good._replace(username=name)), "invalid") for name in names]


@row("header names in other cases", "P-06")
def _cases(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    whole = carrier.write(held["good"])
    return [
        Case([(spell(name), value) for name, value in whole], "ok")
        for spell in (str.upper, str.lower, str.title, str.swapcase)
    ]


@row("scheme word in other cases", "A-16")
def _words(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    ((name, value),) = carrier.write(held["good"])
    word, _, rest = value.partition(" ")
    return [
        Case([(name, f"{spelled} {rest}")], "ok") for spelled in (word.lower(), word.upper(), word.swapcase())
    ]


@row("two credentials", "X-04", security=("T-04",))
def _two(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    first, second = held["good"], held["other"]
    others = [c for c in CARRIERS if c.keyspace == carrier.keyspace and c.name != carrier.name]
    cases = []
    for other in others:
        if {name.lower() for name, _ in carrier.write(first)} & {n.lower() for n, _ in other.write(second)}:
            continue  # the same header name: that is the row of headers sent twice
        cases += [Case([*carrier.write(first), *other.write(held)], "ambiguous") for held in (first, second)]
    return cases


@row("a header twice", "X-05", security=("T-03",))
def _twice(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    whole, other = carrier.write(held["good"]), carrier.write(held["other"])
    return [Case([*whole, again], "ambiguous") for again in (*whole, *other)]


@row("two values in one header", security=("T-04",))
def _joined(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    whole, other = carrier.write(held["good"]), carrier.write(held["other"])
    joined = [(name, f"{value}, {again}") for (name, value), (_, again) in zip(whole, other, strict=True)]
    return [Case(joined, "ambiguous")]


@row("an underscore twin", security=("T-06",))
def _twin(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    whole = carrier.write(held["good"])
    twins = [(name.replace("-", "_"), value) for name, value in whole]
    return [
        Case(twins, "ambiguous"),
        Case([*whole, twins[0]], "ambiguous"),
        Case([twins[0], *whole], "ambiguous"),
    ]


@row("in the URL")
def _in_url(carrier: Carrier, held: dict[str, Held]) -> list[Case]:
    good = held["good"]
    name = carrier.write(good)[0][0]
    queries = (f"a=1&{name}=x", f"a=1;{name.replace('-', '_')}=x", f"t={good.token}", f"t=%22{good.token}%22")
    return [Case(sent, "ambiguous", query=q) for q in queries for sent in (carrier.write(good), [])]


def pointless(name: str, carrier: Carrier) -> str:
    """Why a row says nothing about a carrier; nothing where it does."""
    written = carrier.write(Held("id", "secret", "token", "user"))
    if name == "half missing" and carrier.half is None:
        return "one value has no halves"
    if name == "crossed pair" and carrier.kind == "user":
        return "the pair is key and username: crossing those is the row of foreign usernames"
    if name == "foreign username" and carrier.kind != "user":
        return "no username is sent"
    if name == "broken checksum" and is_dotted(carrier):
        return "a dotted key has no checksum"
    if name == "environment edited by hand" and is_dotted(carrier):
        return "a dotted id does not show its environment"
    if name == "scheme word in other cases" and " " not in written[0][1]:
        return "no word stands before the value"
    if name == "an underscore twin" and "-" not in written[0][0]:
        return "the name has no hyphen"
    if name == "two credentials" and not _two(carrier, dict.fromkeys(STATES, Held("id", "s", "t", "u"))):
        return "the keyspace looks at no other carrier"
    if name == "two values in one header" and carrier.name == "basic":
        return "base64 holds no comma; a joined pair of them is no base64"
    return ""


CELLS = [
    pytest.param(
        name,
        carrier,
        id=f"{carrier.name} / {name}",
        marks=[mark for mark in MARKS[name] if mark.args],
    )
    for name in ROWS
    for carrier in CARRIERS
    if not pointless(name, carrier)
]


# --------------------------------------------------------------------------------------------------------- the stage


class Stage:
    """An installation with a key in every state in every keyspace, and all surfaces in front of it."""

    def __init__(self, kw: Keywright) -> None:
        self.kw = kw
        self.keys = {keyspace: _furnish(kw, keyspace) for keyspace in SYSTEMS}
        kw.accounts.suspend("hooli")
        for key in self.keys.values():
            _finish(kw, key)
        self.held = {
            keyspace: {state: _held(issued) for state, issued in keys.items()}
            for keyspace, keys in self.keys.items()
        }
        routes: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
        for keyspace, system in SYSTEMS.items():
            for scope, method, path in (system.reads, system.writes):
                routes[method, path] = (keyspace, (scope,))
            routes["GET", f"/nothing/{keyspace}"] = (keyspace, ())
        self.server = Door(server(kw))
        self.host = Door(host(kw, routes))
        self.example = Door(example().build(kw))
        self.caller = manager(kw, "verify")

    def close(self) -> None:
        """Close what was opened."""
        for door in (self.server, self.host, self.example):
            door.close()


def _furnish(kw: Keywright, keyspace: str) -> dict[str, Issued]:
    read = SYSTEMS[keyspace].reads[0]
    over: dict[str, dict[str, object]] = {state: {} for state in STATES}
    over["expired"] = {"expires_at": kw.installation.clock() + 60_000_000}
    over["staging"] = {"environment": "staging"}
    over["suspended"] = {"account": "hooli"}
    over["restricted"] = {"access": "restricted", "scopes": [read]}
    over["reader"] = {"access": "read_only"}
    over["exhausted"] = {"limits": ["0/day"]}
    over["away"] = {"allowed_ips": ["203.0.113.0/24"]}
    return {state: make(kw, keyspace=keyspace, **more) for state, more in over.items()}


def _finish(kw: Keywright, keys: dict[str, Issued]) -> None:
    kw.keys.rotate(keys["rotated"].key.id)
    kw.keys.invalidate(keys["invalidated"].key.id)
    kw.keys.disable(keys["disabled"].key.id)
    kw.keys.delete(keys["deleted"].key.id)


def _held(issued: Issued) -> Held:
    made = issued.credential
    secret = None if made.secret is None else made.secret.reveal()
    return Held(made.id, secret, made.token.reveal(), issued.key.account)


@pytest.fixture(scope="module")
def stage(template: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stage, made once, two minutes before the table is run."""
    clock = Clock()
    with copied(template, tmp_path_factory.mktemp("table"), clock=clock) as kw:
        kw.accounts.create("hooli")
        for name, system in SYSTEMS.items():
            if name != "every":
                kw.keyspaces.apply(profiles.source(name) + _gate(system))
        made = Stage(kw)
        clock.advance(minutes=2)
        yield made
        made.close()


def _gate(system: System) -> str:
    rules = "".join(
        f'[[gates.{system.gate}.rules]]\npath = "{path}"\nmethods = ["{method}"]\nscopes = ["{scope}"]\n'
        for scope, method, path in (system.reads, system.writes)
    )
    return f'\n[gates.{system.gate}]\nenvironment = "production"\n{rules}'


# ------------------------------------------------------------------------------------------------------ the surfaces


class Said(NamedTuple):
    """What a client can tell from an answer, without the request id."""

    code: str
    status: int
    headers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    body: str = ""


_TOLD = ("content-type", "www-authenticate", "retry-after", "ratelimit", "ratelimit-policy", "cache-control")
_REQUEST_ID = re.compile(r"req_[0-9a-f]{20}")


def heard(reply: Reply) -> Said:
    """What an answer says. Of an allowed request only that."""
    if reply.status == 200:
        return Said("ok", 200)
    told = tuple((name, tuple(reply.all(name))) for name in _TOLD)
    return Said(reply.code, reply.status, told, _REQUEST_ID.sub("", reply.body.decode()))


def through_all(stage: Stage, carrier: Carrier, case: Case) -> dict[str, Said]:
    """Send a case through every surface that can carry it."""
    system = SYSTEMS[carrier.keyspace]
    if case.ask == "nothing":
        scope, method, path = "", "GET", f"/nothing/{carrier.keyspace}"
    else:
        scope, method, path = system.reads if case.ask == "reads" else system.writes
    target = f"{path}?{case.query}" if case.query else path
    scopes = [scope] if scope else []
    raw = [(name.encode(), value.encode()) for name, value in case.headers]
    found = {"host": heard(stage.host.send(method, target, raw))}
    if carrier.keyspace != "every" and case.ask != "nothing":
        found["example"] = heard(stage.example.send(method, target, raw))
    found |= _library(stage, carrier, raw, scopes, method, target)
    found |= _verify(stage, carrier, case, scopes, method, target)
    gate = system.gate if scopes else f"{carrier.keyspace}.production"
    for family in FAMILIES:
        asking = held_back(family, gate, method, target, raw)
        found[f"forward-auth, {family}"] = heard(as_shown(stage.server.send(*asking)))
    return found


def _library(
    stage: Stage,
    carrier: Carrier,
    raw: list[tuple[bytes, bytes]],
    scopes: list[str],
    method: str,
    target: str,
) -> dict[str, Said]:
    import asyncio

    asked: dict[str, Any] = {
        "keyspace": carrier.keyspace,
        "environment": "production",
        "scopes": scopes,
        "method": method,
        "url": target,
        "ip": "127.0.0.1",
    }
    found = {}
    for colour, verdict in (
        ("verify", stage.kw.verify(raw, **asked)),
        ("averify", asyncio.run(stage.kw.averify(raw, **asked))),
    ):
        status, headers, body = stage.kw.answer(verdict)
        assert bool(verdict) == verdict.valid == (verdict.code == "ok")
        found[colour] = heard(Reply(status, [(n.encode(), v.encode()) for n, v in headers], body))
    return found


def _verify(
    stage: Stage, carrier: Carrier, case: Case, scopes: list[str], method: str, target: str
) -> dict[str, Said]:
    forms: dict[str, dict[str, Any]] = {"/v1/verify, a list": {"headers": case.headers}}
    if len({name for name, _ in case.headers}) == len(case.headers):
        forms["/v1/verify, an object"] = {"headers": dict(case.headers)}
    if case.held is not None:
        forms["/v1/verify, token"] = {"token": case.held.token}
        if case.held.secret is not None:
            forms["/v1/verify, id and secret"] = {"id": case.held.id, "secret": case.held.secret}
    asked = {"keyspace": carrier.keyspace, "environment": "production", "scopes": scopes, "method": method}
    asked |= {"url": target, "ip": "127.0.0.1"}
    items = [asked | form for form in forms.values()]
    reply = stage.server.json("POST", "/v1/verify/batch", {"items": items}, stage.caller)
    assert reply.status == 200, reply.body
    found = {}
    for name, item in zip(forms, reply.json["items"], strict=True):
        assert (item["valid"], item["status"]) == (item["code"] == "ok", CODES[item["code"]].status)
        said = [(key.encode(), value.encode()) for key, value in item["headers"].items()]
        body = re.sub(r"(req_[0-9a-f]{20})\.[0-9]+", r"\1", item["body"])
        found[name] = heard(Reply(item["status"], said, body.encode()))
    return found


# --------------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize(("name", "carrier"), CELLS)
def test_cell(stage: Stage, name: str, carrier: Carrier) -> None:
    """Every surface gives the code that the table names, and a refusal reads the same to the byte on all of them."""
    for case in ROWS[name](carrier, stage.held[carrier.keyspace]):
        found = through_all(stage, carrier, case)

        expected = dict.fromkeys(found, (case.code, CODES[case.code].status))
        assert {surface: (said.code, said.status) for surface, said in found.items()} == expected, case
        assert len(set(found.values())) == 1, found


SCHEMES = [
    pytest.param(0, id="key_secret", marks=pytest.mark.requirement("F-02")),
    pytest.param(1, id="camel_pair"),
    pytest.param(2, id="key_user", marks=pytest.mark.requirement("P-01")),
    pytest.param(3, id="api_key_auth", marks=pytest.mark.requirement("A-14", "A-09")),
    pytest.param(4, id="api_key_auth, literal", marks=pytest.mark.requirement("A-15", "A-09")),
    pytest.param(5, id="bearer"),
    pytest.param(6, id="basic"),
    pytest.param(7, id="header"),
    pytest.param(8, id="dotted", marks=pytest.mark.requirement("A-09", "A-14", "A-17")),
    pytest.param(9, id="dotted, literal", marks=pytest.mark.requirement("A-09", "A-15", "A-17")),
]


@pytest.mark.requirement("A-21")
@pytest.mark.parametrize("place", SCHEMES)
def test_each_scheme_says_who_calls(stage: Stage, place: int) -> None:
    """In each scheme a right credential opens ``whoami``, which names account, key, environment and access."""
    carrier = CARRIERS[place]
    held, key = stage.held[carrier.keyspace]["good"], stage.keys[carrier.keyspace]["good"].key

    reply = stage.server.get(f"/k/{carrier.keyspace}.production/whoami", carrier.write(held))

    assert reply.status == 200
    said = reply.json
    assert (said["account"]["username"], said["environment"], said["access"]) == (
        "globex",
        "production",
        "all",
    )
    assert said["key"] == {"id": key.id, "name": key.name, "expires_at": None}
    assert carrier.name.startswith(said["scheme"]) or carrier.name.startswith("dotted")


@pytest.mark.requirement("A-17")
def test_the_dotted_shape(stage: Stage) -> None:
    """A key of atfinity's is eight characters, a dot and 32 characters."""
    for held in stage.held["atfinity"].values():
        assert re.fullmatch(r"[A-Za-z0-9]{8}\.[A-Za-z0-9]{32}", held.token)


@pytest.mark.requirement("X-03")
@pytest.mark.parametrize(
    ("companions", "code"),
    [
        ((), "missing"),
        (("secret",), "ok"),
        (("user",), "invalid"),
        (("secret", "user"), "ambiguous"),
    ],
)
def test_a_public_id_is_read_by_its_companion(stage: Stage, companions: tuple[str, ...], code: str) -> None:
    """``X-API-KEY`` with a public id passes beside its secret only; beside a username it is no key."""
    held = stage.held["every"]["good"]
    beside = {"secret": ("X-API-SECRET", str(held.secret)), "user": ("x-api-user", "globex")}
    headers = [("X-API-KEY", held.id), *(beside[name] for name in companions)]

    assert {s.code for s in through_all(stage, CARRIERS[0], Case(headers, code)).values()} == {code}


@pytest.mark.requirement("X-03")
@pytest.mark.parametrize(
    ("companions", "code"),
    [((), "missing"), (("secret",), "invalid"), (("user",), "ok"), (("secret", "user"), "ambiguous")],
)
def test_a_whole_key_is_read_by_its_companion(stage: Stage, companions: tuple[str, ...], code: str) -> None:
    """``x-api-key`` with a whole key passes beside its username only; beside a secret it is no id."""
    held = stage.held["every"]["good"]
    beside = {"secret": ("X-API-SECRET", str(held.secret)), "user": ("x-api-user", "globex")}
    headers = [("x-api-key", held.token), *(beside[name] for name in companions)]

    assert {s.code for s in through_all(stage, CARRIERS[0], Case(headers, code)).values()} == {code}


@pytest.mark.requirement("P-30")
@pytest.mark.security("T-34")
def test_production_keys_do_not_open_staging(stage: Stage) -> None:
    """A production key in staging, and a staging key in production, are refused; each works at home."""
    for keyspace, held in stage.held.items():
        carrier = next(c for c in CARRIERS if c.keyspace == keyspace)
        found = {
            (state, environment): stage.server.get(
                f"/k/{keyspace}.{environment}/whoami", carrier.write(held[state])
            ).code
            for state in ("good", "staging")
            for environment in ("production", "staging")
        }

        assert found == {
            ("good", "production"): "ok",
            ("good", "staging"): "wrong_environment",
            ("staging", "production"): "wrong_environment",
            ("staging", "staging"): "ok",
        }


@pytest.mark.requirement("F-05", "G-14")
@pytest.mark.parametrize("keyspace", [name for name in SYSTEMS if name != "every"])
def test_a_refused_write_changes_nothing(stage: Stage, keyspace: str) -> None:
    """A write that was refused, to a stranger or to a key that only reads, leaves the host's record as it was."""
    system, held = SYSTEMS[keyspace], stage.held[keyspace]
    carrier = next(c for c in CARRIERS if c.keyspace == keyspace)

    def changes() -> int:
        return int(stage.example.send("GET", system.reads[2], carrier.write(held["good"])).json["changes"])

    before = changes()
    refused = [
        stage.example.send(system.writes[1], system.writes[2], headers).status
        for headers in ([], carrier.write(held["reader"]), carrier.write(held["invalidated"]))
    ]
    assert (refused, changes()) == ([401, 403, 401], before)

    assert stage.example.send(system.writes[1], system.writes[2], carrier.write(held["good"])).status == 200
    assert changes() == before + 1


def test_the_table_is_whole() -> None:
    """Every carrier meets every row, or there is a reason; no row and no carrier is reasoned away altogether."""
    left_out = {(name, carrier.name) for name in ROWS for carrier in CARRIERS if pointless(name, carrier)}

    assert len(CELLS) + len(left_out) == len(ROWS) * len(CARRIERS)
    assert all(any((name, c.name) not in left_out for c in CARRIERS) for name in ROWS)
    assert len(left_out) < len(CELLS) / 2
    assert json.dumps(sorted(left_out))
