"""Signing in by the company's identity provider: whom it means, what is believed of it, and what is not.

The provider is a real server with keys of its own, ``issuer.Issuer``; the browser is two jars of cookies.
"""

import base64
import hmac
import json
import re
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyotp
import pytest
from joserfc.jwk import RSAKey

from issuer import CLIENT, SECRET, Issuer
from keywright import Keywright
from keywright.cli.doctor import examine
from keywright.desk.identities import Asked, Rules, Vouched
from keywright.errors import CannotStart, Conflict, NotFound, SignInFailed
from keywright.model import Actor, GroupRole, Person
from keywright.server.callers import csrf_token
from keywright.server.console import words
from keywright.server.provider import PAUSE, Astray, Provider
from keywright.settings import weigh
from keywright.testing import Clock
from people import PASSWORD, begin
from processes import Folder
from surfaces import Door, Reply, configured, server
from test_partner import Time

pytestmark = pytest.mark.stores

ANA = "ana@globex.example"
START = "/console/sign-in/provider"


class Jar:
    """A browser as far as signing in goes: it keeps cookies, and goes where it is sent, here and at the provider."""

    def __init__(self, door: Door, issuer: Issuer) -> None:
        self.door, self.issuer = door, issuer
        self.cookies: dict[str, str] = {}

    def get(self, target: str, **headers: str) -> Reply:
        """Open a page."""
        return self._kept(self.door.get(target, self._headers() | headers))

    def post(self, target: str, body: str = "", **headers: str) -> Reply:
        """Send a form of a page of ours."""
        typed = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        return self._kept(self.door.send("POST", target, self._headers() | typed | headers, body.encode()))

    def away(self, target: str = START) -> str:
        """Where the provider is that somebody is sent to."""
        sent = self.get(target)
        assert sent.status == 303, sent.body
        return str(sent.get("location"))

    def come(self, target: str = START, **over: str) -> Reply:
        """To the provider and back."""
        return self.get(self.issuer.come_back(self.away(target), **over))

    @property
    def session(self) -> dict[str, Any] | None:
        """Who is signed in, by the API."""
        reply = self.door.get("/v1/session", self._headers())
        return reply.json if reply.status == 200 else None

    @property
    def person(self) -> dict[str, Any]:
        """The person who is signed in."""
        assert self.session is not None
        found: dict[str, Any] = self.session["person"]
        return found

    def _headers(self) -> dict[str, str]:
        held = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        asked = {"Accept": "text/html", "Host": "127.0.0.1:8700"}
        return asked | ({"Cookie": held} if held else {})

    def _kept(self, reply: Reply) -> Reply:
        for header in reply.all("set-cookie"):
            for name, cookie in SimpleCookie(header).items():
                self.cookies[name] = cookie.value
                if cookie["max-age"] == "0":
                    del self.cookies[name]
        return reply


@pytest.fixture
def issuer(clock: Clock) -> Iterator[Issuer]:
    """The provider."""
    with Issuer(clock) as opened:
        yield opened


@pytest.fixture
def door(kw: Keywright, issuer: Issuer) -> Iterator[Door]:
    """The server, which knows the provider."""
    with Door(server(kw, **issuer.settings())) as opened:
        yield opened


@pytest.fixture
def jar(door: Door, issuer: Issuer) -> Jar:
    """A browser."""
    return Jar(door, issuer)


def another(door: Door, issuer: Issuer) -> Jar:
    """Another browser."""
    return Jar(door, issuer)


def acts(kw: Keywright, *actions: str) -> list[dict[str, Any]]:
    """What the trail tells of some acts, oldest first."""
    found = kw.installation.trail.list(limit=200).items
    return [one for one in reversed(found) if one["action"] in actions]


def invited(kw: Keywright, email: str = ANA, role: str = "analyst") -> Person:
    """Somebody whom globex has invited."""
    person = kw.installation.people.invite(email, account="globex", role=role).person
    assert person is not None
    return person


# ----------------------------------------------------------------------------------------------------------- coming in


@pytest.mark.security("A-10")
def test_somebody_who_is_invited_comes_in(jar: Jar, kw: Keywright) -> None:
    """Whom an account invited comes in by the provider without a password, as who they are, and is known by it from then on."""
    meant = invited(kw)

    came = jar.come(f"{START}?to=/console/me")

    assert (came.status, came.get("location")) == (303, "/console/me")
    person = jar.person
    assert (person["id"], person["state"], person["has_password"]) == (meant.id, "active", False)
    assert person["name"] == "Ana"
    assert [(one["account"], one["role"], bool(one["accepted_at"])) for one in person["memberships"]] == [
        ("globex", "analyst", True)
    ]
    assert person["identities"][0]["issuer"] == jar.issuer.url
    assert jar.get("/console/@globex/every/keys").status == 200
    assert [one["action"] for one in acts(kw, "person.join", "session.begin")] == [
        "person.join",
        "session.begin",
    ]
    jar.issuer.person |= {"email": "ana.new@elsewhere.example", "email_verified": False}
    again = Jar(jar.door, jar.issuer)
    assert again.come().status == 303
    assert again.person["id"] == meant.id  # by the subject: her address is no matter any more


def test_the_way_there_says_what_it_must(jar: Jar) -> None:
    """A code is asked for with PKCE, state and nonce, each new for each sign-in, and where to come back to."""
    first, second = (dict(parse_qsl(urlsplit(jar.away()).query)) for _ in range(2))

    assert (first["response_type"], first["client_id"]) == ("code", CLIENT)
    assert first["redirect_uri"] == "http://127.0.0.1:8700/console/sign-in/back"
    assert first["code_challenge_method"] == "S256"
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) == 43
        assert first[name] != second[name]
    assert "prompt" not in first
    assert SECRET not in str(first)


def test_a_browser_carries_nothing_that_it_can_read(kw: Keywright, issuer: Issuer) -> None:
    """What it carries is sealed, for this host alone over HTTPS, and ends after ten minutes."""
    over = issuer.settings(public_url="https://keys.example.com", trusted_proxies="127.0.0.1/32")
    with Door(server(kw, **over)) as door:
        sent = door.get(START, {"X-Forwarded-Proto": "https", "Host": "keys.example.com"})
    asked = dict(parse_qsl(urlsplit(str(sent.get("location"))).query))
    cookie = str(sent.get("set-cookie"))

    assert asked["redirect_uri"] == "https://keys.example.com/console/sign-in/back"
    assert cookie.startswith("__Host-keywright-errand=")
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Max-Age=600; Secure")
    held = base64.urlsafe_b64decode(cookie.partition("=")[2].partition(";")[0])
    assert asked["state"].encode() not in held
    assert asked["nonce"].encode() not in held


def test_too_late_is_too_late(jar: Jar, kw: Keywright, clock: Clock) -> None:
    """Who comes back after ten minutes begins again."""
    invited(kw)
    target = jar.issuer.come_back(jar.away())
    clock.advance(seconds=601)
    assert jar.get(target).status == 400
    assert jar.session is None


# ------------------------------------------------------------------------------------------------------ what is believed


def _encoded(document: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def _unsigned(issuer: Issuer) -> None:
    issuer.make = lambda claims: f"{_encoded({'alg': 'none'})}.{_encoded(claims)}."


def _by_public_key(issuer: Issuer) -> None:
    public = issuer.keys["one"][0].as_pem(private=False)

    def made(claims: dict[str, Any]) -> str:
        text = f"{_encoded({'alg': 'HS256', 'kid': 'one'})}.{_encoded(claims)}"
        mac = hmac.digest(public, text.encode(), "sha256")
        return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    issuer.make = made


def _by_another(issuer: Issuer) -> None:
    known = issuer.keys["one"]

    def made(claims: dict[str, Any]) -> str:
        issuer.keys["one"] = (RSAKey.generate_key(2048), "RS256")
        try:
            return issuer.signed(claims)
        finally:
            issuer.keys["one"] = known

    issuer.make = made


def _altered(issuer: Issuer) -> None:
    def made(claims: dict[str, Any]) -> str:
        head, _, tail = issuer.signed(claims).split(".")
        return f"{head}.{_encoded(claims | {'sub': 'somebody else'})}.{tail}"

    issuer.make = made


def _says(**claims: Any) -> Callable[[Issuer], None]:
    return lambda issuer: issuer.claims.update(claims)


def _at(name: str, seconds: int) -> Callable[[Issuer], None]:
    return lambda issuer: issuer.claims.update({name: issuer.clock() // 1_000_000 + seconds})


def _becomes(token: str) -> Callable[[Issuer], None]:
    def bend(issuer: Issuer) -> None:
        issuer.make = lambda _claims: token

    return bend


WRONG: dict[str, Callable[[Issuer], None]] = {
    "iss of another": _says(iss="https://accounts.evil.example"),
    "iss with a slash": lambda issuer: issuer.claims.update(iss=f"{issuer.url}/"),
    "no iss": _says(iss=None),
    "aud of another": _says(aud="somebody-else"),
    "no aud": _says(aud=None),
    "aud of several without azp": _says(aud=[CLIENT, "somebody-else"]),
    "azp of another": _says(azp="somebody-else"),
    "azp of another among several": _says(aud=[CLIENT, "somebody-else"], azp="somebody-else"),
    "nonce of another": _says(nonce="n" * 43),
    "no nonce": _says(nonce=None),
    "expired": _at("exp", -61),
    "no exp": _says(exp=None),
    "exp that is no number": _says(exp="tomorrow"),
    "of tomorrow": _at("iat", 86_400),
    "of an hour ago": _at("iat", -3_600),
    "not before tomorrow": _at("nbf", 86_400),
    "nobody": _says(sub=""),
    "a number": _says(sub=12),
    "alg none": _unsigned,
    "HS256 with the public key": _by_public_key,
    "another key under the same name": _by_another,
    "altered": _altered,
    "no token": _becomes("x"),
    "empty parts": _becomes(".."),
    "a list": lambda issuer: setattr(issuer, "make", lambda claims: issuer.signed([claims])),  # type: ignore[arg-type]
    "more groups than it says": _says(_claim_names={"groups": "src1"}),
}


@pytest.mark.security("A-10")
@pytest.mark.sqlite_only("whom a token means is decided before any store is asked")
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_believed(jar: Jar, kw: Keywright, wrong: str) -> None:
    """A token that is not right in one thing lets nobody in: 400, in plain words, with nothing of it on the page."""
    meant = invited(kw)
    WRONG[wrong](jar.issuer)

    came = jar.come()

    assert came.status == 400
    assert words.ASTRAY in came.body.decode()
    assert jar.session is None
    assert kw.installation.people.get(meant.id).identities == ()
    assert jar.cookies == {}


@pytest.mark.security("A-10")
@pytest.mark.sqlite_only("whom a token means is decided before any store is asked")
def test_what_is_a_little_off_is_believed(jar: Jar, kw: Keywright) -> None:
    """A clock that is off by less than a minute, another algorithm of the list, an audience of several with ours as azp."""
    invited(kw)
    issuer, now = jar.issuer, jar.issuer.clock() // 1_000_000
    for said in (
        {"exp": now - 59},
        {"iat": now + 59},
        {"aud": [CLIENT, "other"], "azp": CLIENT},
        {"aud": [CLIENT]},
    ):
        issuer.claims = said
        assert jar.come().status == 303, said
    issuer.claims = {}
    issuer.make = lambda claims: issuer.signed(claims, "two")
    assert jar.come().status == 303


@pytest.mark.security("A-10")
def test_a_state_is_of_one_browser_and_works_once(jar: Jar, door: Door, kw: Keywright) -> None:
    """What one browser was sent back with is worth nothing in another, and in the same one nothing a second time."""
    invited(kw)
    issuer = jar.issuer
    issuer.lax = True  # it would answer the same code again
    victim = another(door, issuer)
    target = issuer.come_back(jar.away())
    carried = dict(jar.cookies)

    assert victim.get(target).status == 400  # who has begun nothing
    victim.away()
    assert victim.get(target).status == 400  # who has begun another
    assert victim.session is None
    assert jar.get(target).status == 303
    assert jar.session is not None
    thief = another(door, issuer)
    thief.cookies = carried  # whoever has read all that the browser was sent and sent
    assert thief.get(target).status == 400
    assert thief.session is None


@pytest.mark.security("A-10")
def test_a_code_that_was_used_is_refused(jar: Jar, kw: Keywright) -> None:
    """A code that the provider has answered before lets nobody in, under a state of one's own either."""
    invited(kw)
    first = jar.issuer.come_back(jar.away())
    used = dict(parse_qsl(urlsplit(first).query))["code"]
    assert jar.get(first).status == 303
    again = Jar(jar.door, jar.issuer)

    assert again.come(code=used).status == 400
    assert again.session is None


@pytest.mark.sqlite_only("no store is asked")
@pytest.mark.parametrize(
    "over",
    [
        {"state": ""},
        {"state": "x" * 43},
        {"iss": "https://evil.example"},
        {"iss": ""},
        {"code": ""},
        {"code": "x" * 5000},
    ],
    ids=str,
)
def test_an_answer_that_is_not_ours(jar: Jar, kw: Keywright, over: dict[str, str]) -> None:
    """Without the state, of another issuer (RFC 9207), without a code or with one that is none: 400, and nobody is in."""
    invited(kw)
    assert jar.come(**over).status == 400
    assert jar.session is None


@pytest.mark.sqlite_only("no store is asked")
def test_who_is_turned_away_there(jar: Jar) -> None:
    """What the provider says on turning somebody away is not shown: the page has words of its own."""
    came = jar.come(code="", error="access_denied", error_description="<b>call 555</b>")

    assert came.status == 403
    assert words.TURNED_AWAY in came.body.decode()
    assert "555" not in came.body.decode()


@pytest.mark.security("T-51")
@pytest.mark.sqlite_only("no store is asked")
@pytest.mark.parametrize(
    "to", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "/" + "x" * 2000]
)
def test_the_way_back_leads_nowhere_else(jar: Jar, kw: Keywright, to: str) -> None:
    """Whatever ``to`` says, one arrives on a page of ours."""
    invited(kw)
    assert jar.come(f"{START}?to={to}").get("location") == "/console/"


def test_the_keys_are_asked_for_anew_once_a_minute(issuer: Issuer, kw: Keywright, clock: Clock) -> None:
    """A token of a key that is new is believed after one look at the published keys; unknown ones ask no more often."""
    time = Time()
    provider = Provider(configured(**issuer.settings()), clock=time)
    issuer.hidden = {"two"}
    provider.look()
    issuer.hidden = set()
    token = issuer.signed({"sub": "x"}, "two")
    ghost = issuer.signed({"sub": "x"}, header={"kid": "ghost"})

    with pytest.raises(Astray):
        provider._claims(token)  # the keys were had a moment ago
    time.now += PAUSE
    assert provider._claims(token) == {"sub": "x"}
    for _ in range(5):
        with pytest.raises(Astray):
            provider._claims(ghost)
    assert issuer.asked.count("keys") == 2
    time.now += PAUSE
    with pytest.raises(Astray):
        provider._claims(ghost)
    assert issuer.asked.count("keys") == 3


# --------------------------------------------------------------------------------------------------- a provider that is odd

ODD: dict[str, Callable[[Issuer], None]] = {
    "an error": lambda issuer: issuer.answers.update({"openid-configuration": (500, {}, b"")}),
    "no JSON": lambda issuer: issuer.answers.update({"openid-configuration": (200, {}, b"<html>")}),
    "a list": lambda issuer: issuer.answers.update({"openid-configuration": (200, {}, b"[]")}),
    "deep": lambda issuer: issuer.answers.update({"openid-configuration": (200, {}, b"[" * 60_000)}),
    "another issuer": lambda issuer: issuer.document.update(issuer="https://evil.example"),
    "no token endpoint": lambda issuer: issuer.document.update(token_endpoint=None),
    "keys over plain http": lambda issuer: issuer.document.update(jwks_uri="http://keys.evil.example/"),
    "a place inside": lambda issuer: issuer.document.update(token_endpoint="https://169.254.169.254/token"),
    "no keys": lambda issuer: issuer.answers.update({"keys": (200, {}, b'{"keys": []}')}),
    "keys that are none": lambda issuer: issuer.answers.update(
        {
            "keys": (
                200,
                {},
                b'{"keys": [1, {}, {"kty": "oct", "k": "AAAA"}, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}',
            )
        }
    ),
    "a redirect": lambda issuer: issuer.answers.update(
        {"keys": (302, {"Location": f"{issuer.url}/keys"}, b"")}
    ),
    "a redirected code": lambda issuer: issuer.answers.update(
        {"token": (307, {"Location": f"{issuer.url}/t"}, b"")}
    ),
    "a huge answer": lambda issuer: issuer.answers.update(
        {"token": (200, {}, b'{"id_token": "' + b"x" * 200_000 + b'"}')}
    ),
    "a huge document": lambda issuer: issuer.answers.update(
        {"openid-configuration": (200, {}, b'{"a":"' + b"x" * 200_000 + b'"}')}
    ),
    "no token": lambda issuer: issuer.answers.update({"token": (200, {}, b"{}")}),
    "who are you?": lambda issuer: issuer.answers.update(
        {"token": (401, {}, b'{"error": "invalid_client"}')}
    ),
    "nobody there": lambda issuer: issuer.close(),
}


@pytest.mark.security("A-10", "T-38")
@pytest.mark.sqlite_only("no store is asked")
@pytest.mark.parametrize("odd", ODD)
def test_a_provider_that_is_down_or_odd(door: Door, issuer: Issuer, kw: Keywright, odd: str) -> None:
    """The page to sign in on says that it does not answer, 503, with nothing of what came; passwords go on."""
    begin(kw, "owner", email="bea@globex.example")
    invited(kw)
    ODD[odd](issuer)
    jar = another(door, issuer)

    sent = jar.get(START)
    came = jar.get(issuer.come_back(str(sent.get("location")))) if sent.status == 303 else sent

    assert came.status == 503
    text = came.body.decode()
    assert words.PROVIDER_DOWN in text
    assert "127.0.0.1" not in text
    assert "evil" not in text
    assert jar.session is None
    assert (
        jar.post("/console/sign-in", f"email=bea@globex.example&password={PASSWORD.replace(' ', '+')}").status
        == 303
    )
    if odd == "nobody there":
        issuer._server.server_close = lambda: None  # type: ignore[method-assign]
        issuer._server.shutdown = lambda: None  # type: ignore[method-assign]


@pytest.mark.security("T-38")
@pytest.mark.sqlite_only("no store is asked")
def test_no_address_inside_is_asked_unless_it_is_let_in(kw: Keywright, issuer: Issuer) -> None:
    """A provider on this machine or a private network is not asked before ``oidc_networks`` names it."""
    with Door(server(kw, **issuer.settings(oidc_networks=""))) as door:
        assert door.get(START).status == 503
    with Door(server(kw, **issuer.settings(oidc_networks="10.0.0.0/8"))) as door:
        assert door.get(START).status == 503
    assert issuer.asked == []


def test_metrics_and_the_trail_count_it(kw: Keywright, issuer: Issuer) -> None:
    """How sign-ins end is counted; who was refused stands in the trail with the reason, once a minute."""
    with Door(server(kw, **issuer.settings(metrics="open"))) as door:
        for _ in range(2):
            assert another(door, issuer).come().status == 403
        invited(kw)
        assert another(door, issuer).come().status == 303
        assert another(door, issuer).come(state="x").status == 400
        issuer.answers["token"] = (500, {}, b"")
        assert another(door, issuer).come().status == 503
        page = door.get("/metrics").body.decode()
    counted = dict(re.findall(r'keywright_provider_sign_ins_total{result="(\w+)"} (\S+)', page))

    assert counted == {"begun": "5.0", "refused": "2.0", "in": "1.0", "astray": "1.0", "unavailable": "1.0"}
    refused = acts(kw, "session.refused")
    assert [(one["detail"]["issuer"], one["detail"]["email"]) for one in refused] == [(issuer.url, ANA)]
    assert "nobody here" in refused[0]["detail"]["why"]


@pytest.mark.security("T-36")
@pytest.mark.sqlite_only("the same on both, as for passwords")
def test_one_address_fails_thirty_times_a_minute(jar: Jar, kw: Keywright, clock: Clock) -> None:
    """Whoever brings back what is not believed is not looked at any more, until the minute is over."""
    invited(kw)
    for _ in range(30):
        assert jar.get("/console/sign-in/back?state=x&code=y").status == 400
    came = jar.come()
    assert came.status == 429
    clock.advance(seconds=60)
    assert jar.come().status == 303


# ------------------------------------------------------------------------------------------------------------- who is meant


@pytest.mark.security("A-10", "T-66")
def test_who_is_refused_is_told_nothing(door: Door, issuer: Issuer, kw: Keywright) -> None:
    """Unknown, unverified, of another domain, disabled, or an address whose owner comes by another subject: the same bytes."""
    people = kw.installation.people
    invited(kw)
    assert another(door, issuer).come().status == 303
    invited(kw, "bob@globex.example")
    invited(kw, "eve@initech.example")
    people.disable(invited(kw, "out@globex.example").id)
    cases: tuple[dict[str, Any], ...] = (
        {"sub": "2", "email": "nobody@globex.example"},
        {"sub": "2", "email": "bob@globex.example", "email_verified": False},
        {"sub": "2", "email": "bob@globex.example", "email_verified": None},
        {"sub": "2", "email": "bob@globex.example", "email_verified": "true"},
        {"sub": "2", "email": "eve@initech.example"},
        {"sub": "2", "email": "out@globex.example"},
        {"sub": "2", "email": ANA},
        {"sub": "2", "email": None},
        {"sub": "2", "email": "not an address"},
    )
    seen = set()
    for case in cases:
        issuer.person = {"email_verified": True, "name": "Bob"} | case
        jar = another(door, issuer)
        came = jar.come()
        seen.add((came.status, came.body))
        assert jar.session is None, case
    assert len(seen) == 1
    assert next(iter(seen))[0] == 403
    assert people.get("bob@globex.example").state == "invited"

    issuer.person = {"sub": "2", "email": "BOB@Globex.example", "email_verified": True}
    assert another(door, issuer).come().status == 303


def test_who_is_disabled_is_out(jar: Jar, kw: Keywright) -> None:
    """Somebody who came by the provider and is disabled comes in no more, and is out at the next request."""
    meant = invited(kw)
    begin(kw, "operator")
    jar.come()
    kw.installation.people.disable(meant.id)
    assert jar.session is None
    assert jar.come().status == 403
    kw.installation.people.enable(meant.id)
    assert jar.come().status == 303


@pytest.mark.security("T-66")
def test_what_a_stranger_set_up_under_an_address_ends(door: Door, issuer: Issuer, kw: Keywright) -> None:
    """Whoever invites an address holds a link that chooses its password: when its owner comes by the provider, password,
    second factor, sessions and links are gone, and no link of an account brings a password back."""
    token, session = begin(
        kw, "owner", "initech", email=ANA
    )  # a stranger, who invited her and followed the link
    offered = kw.installation.factors.begin(session, actor=Actor("person", session.person.id))
    code = pyotp.TOTP(offered.secret).at(kw.installation.clock() // 1_000_000)
    kw.installation.factors.confirm(session, code, actor=Actor("person", session.person.id))
    older = kw.installation.people.invite(ANA, account="globex", role="analyst")
    jar = another(door, issuer)

    assert jar.come().status == 303

    person = kw.installation.people.get(ANA)
    assert (person.has_password, person.factor_since, len(person.identities)) == (False, None, 1)
    assert kw.installation.sessions.find(token) is None
    with pytest.raises(SignInFailed):
        kw.installation.sessions.sign_in(ANA, PASSWORD)
    with pytest.raises(NotFound):
        kw.installation.sessions.follow(older.token, PASSWORD)
    newer = kw.installation.people.invite(ANA, account="globex", role="admin")
    with pytest.raises(Conflict):
        kw.installation.sessions.follow(newer.token, PASSWORD)
    assert not kw.installation.people.get(ANA).has_password


def test_an_operator_keeps_the_password(jar: Jar, kw: Keywright) -> None:
    """An operator who is joined keeps the password that works when no provider answers; and their second factor is asked."""
    _, session = begin(kw, "operator", email=ANA)
    offered = kw.installation.factors.begin(session, actor=Actor("person", session.person.id))
    at = kw.installation.clock() // 1_000_000
    kw.installation.factors.confirm(
        session, pyotp.TOTP(offered.secret).at(at), actor=Actor("person", session.person.id)
    )

    asked = jar.come(f"{START}?to=/console/me")
    assert asked.status == 200
    assert "Your second factor" in asked.body.decode()
    assert jar.session is None
    assert jar.post("/console/sign-in/code", "code=000000").status == 401
    assert jar.session is None
    assert jar.post("/console/sign-in/code", "code=123456", **{"Sec-Fetch-Site": "cross-site"}).status == 403
    came = jar.post("/console/sign-in/code", f"code={pyotp.TOTP(offered.secret).at(at + 30)}")

    assert (came.status, came.get("location")) == (303, "/console/me")
    assert jar.person["operator"]
    assert jar.person["has_password"]
    assert list(jar.cookies) == ["keywright-session"]


def test_a_code_without_having_been_there(jar: Jar) -> None:
    """The page for a code is of use to nobody whom the provider has not vouched for."""
    assert jar.post("/console/sign-in/code", "code=123456").status == 400
    jar.away()
    assert jar.post("/console/sign-in/code", "code=123456").status == 400


# -------------------------------------------------------------------------------------------------------------- groups


@pytest.fixture
def grouped(kw: Keywright, issuer: Issuer) -> Iterator[Door]:
    """The server, where groups give something."""
    roles = "ops=operator,devs=globex:developer,leads=globex:admin,others=initech:analyst,gone=hooli:owner"
    with Door(server(kw, **issuer.settings(oidc_roles=roles, oidc_domains=""))) as opened:
        yield opened


def places(person: Person) -> set[tuple[str, str, bool]]:
    """Somebody's places: the account, the role, and whether groups gave it."""
    return {(one.account, one.role, one.by_groups) for one in person.memberships}


def test_groups_give_and_take(grouped: Door, issuer: Issuer, kw: Keywright) -> None:
    """Somebody new is made with exactly what their groups give; at each sign-in it is read anew; what a hand gave stays."""
    begin(kw, "operator")
    people = kw.installation.people

    def come(*groups: str) -> Person:
        issuer.claims["groups"] = list(groups)
        assert another(grouped, issuer).come().status == 303
        return people.get(ANA)

    for nothing in ([], ["strangers"], ["gone"], "devsops", None, {"devs": 1}):
        issuer.claims["groups"] = nothing
        assert another(grouped, issuer).come().status == 403
    made = come("devs", "strangers")
    assert (made.name, made.operator, places(made)) == ("Ana", False, {("globex", "developer", True)})
    assert places(come("devs", "leads")) == {("globex", "admin", True)}
    more = come("leads", "others", "ops")
    assert places(more) == {("globex", "admin", True), ("initech", "analyst", True)}
    assert more.operator

    people.change_role(made.id, account="initech", role="auditor")
    less = come()
    assert (less.operator, places(less)) == (False, {("initech", "auditor", False)})
    assert places(come("others")) == {("initech", "auditor", False)}
    told = [one["detail"] for one in acts(kw, "person.groups")]
    assert told[0]["gained"] == ["developer of globex"]
    assert told[-1]["lost"] == ["admin of globex", "operator"]


def test_what_groups_change_ends_other_sessions(grouped: Door, issuer: Issuer, kw: Keywright) -> None:
    """Where a sign-in changes what somebody is, their other sessions end; where it changes nothing, they stay."""
    issuer.claims["groups"] = ["devs"]
    first, second, third = (another(grouped, issuer) for _ in range(3))
    first.come()
    second.come()
    assert first.session is not None
    issuer.claims["groups"] = []
    third.come()
    assert (first.session, second.session) == (None, None)
    assert kw.installation.sessions.find(third.cookies["keywright-session"]) is not None
    assert kw.installation.people.get(ANA).memberships == ()


def test_the_last_operator_and_the_last_owner_stay(kw: Keywright, issuer: Issuer) -> None:
    """Whatever the provider says, the last operator and the last owner of an account are not taken away."""
    roles = "ops=operator,owners=globex:owner"
    with Door(server(kw, **issuer.settings(oidc_roles=roles))) as door:
        issuer.claims["groups"] = ["ops", "owners"]
        another(door, issuer).come()
        issuer.claims["groups"] = []
        another(door, issuer).come()
        kept = kw.installation.people.get(ANA)
        assert (kept.operator, places(kept)) == (True, {("globex", "owner", True)})
        begin(kw, "operator")
        begin(kw, "owner")
        another(door, issuer).come()
        gone = kw.installation.people.get(ANA)
        assert (gone.operator, places(gone)) == (False, set())


def test_a_hand_makes_what_a_group_gave_its_own(grouped: Door, issuer: Issuer, kw: Keywright) -> None:
    """An operator by a group who is appointed by hand stays one when the group is gone."""
    begin(kw, "operator")
    issuer.claims["groups"] = ["ops"]
    another(grouped, issuer).come()
    assert kw.installation.people.get(ANA).operator_by_groups
    kw.installation.people.appoint(ANA)
    issuer.claims["groups"] = []
    another(grouped, issuer).come()
    assert kw.installation.people.get(ANA).operator


def test_nobody_is_made_without_a_verified_address(grouped: Door, issuer: Issuer, kw: Keywright) -> None:
    """Groups alone make nobody: an address that the provider has not verified could be anybody's."""
    issuer.claims["groups"] = ["ops"]
    issuer.person["email_verified"] = False
    assert another(grouped, issuer).come().status == 403
    issuer.person |= {"email_verified": None, "xms_edov": True}  # as Entra says it
    assert another(grouped, issuer).come().status == 303
    assert kw.installation.people.get(ANA).operator


# ------------------------------------------------------------------------------------------------------- second factors


@pytest.mark.sqlite_only("what counts is decided before any store is asked")
@pytest.mark.parametrize(
    ("counts", "said", "enough"),
    [
        ("ours", {"amr": ["mfa"]}, False),
        ("theirs", {}, True),
        ("amr", {}, False),
        ("amr", {"amr": ["pwd"]}, False),
        ("amr", {"amr": ["otp"]}, False),
        ("amr", {"amr": "mfa"}, False),
        ("amr", {"amr": ["mfa"]}, True),
        ("amr", {"amr": ["pwd", "otp"]}, True),
        ("amr", {"acr": "phr"}, True),
        ("amr", {"acr": "1"}, False),
    ],
    ids=str,
)
def test_whose_second_factor_counts(
    kw: Keywright, issuer: Issuer, counts: str, said: dict[str, Any], enough: bool
) -> None:
    """An operator by the provider is led to set a second factor up, unless the provider's is said to count and was seen."""
    over = {"oidc_roles": "ops=operator", "second_factor": "admins", "oidc_second_factor": counts}
    issuer.claims = {"groups": ["ops"], **said}
    with Door(server(kw, **issuer.settings(**over))) as door:
        jar = another(door, issuer)
        assert jar.come().status == 303
        page = jar.get("/console/operator/accounts")
    assert (page.status, page.get("location")) == (
        (200, None) if enough else (303, "/console/me/factor?said=factor_wanted")
    )


# ------------------------------------------------------------------------------------------------------- proving it again


def _prove(jar: Jar, kw: Keywright) -> Reply:
    token = jar.cookies["keywright-session"]
    session = kw.installation.sessions.find(token)
    assert session is not None
    return jar.post(
        "/console/me/factor", f"csrf={csrf_token(kw.installation, session)}&back=/console/me/factor"
    )


def test_the_provider_is_asked_again_before_a_dangerous_act(jar: Jar, kw: Keywright, clock: Clock) -> None:
    """Who came without typing a password, or a while ago, is sent to the provider to type it now, and only then goes on."""
    invited(kw, role="admin")
    jar.come()
    asked = _prove(jar, kw)
    assert asked.get("location") == "/console/prove?to=%2Fconsole%2Fme%2Ffactor"
    page = jar.get(str(asked.get("location"))).body.decode()
    assert "Give it to Acme" in page
    assert 'type="password"' not in page

    way = jar.away("/console/prove/provider?to=/console/me/factor")
    assert {"prompt": "login", "max_age": "0"}.items() <= dict(parse_qsl(urlsplit(way).query)).items()
    before = jar.cookies["keywright-session"]
    came = jar.get(jar.issuer.come_back(way))

    assert came.get("location") == "/console/me/factor"
    assert jar.cookies["keywright-session"] != before
    assert _prove(jar, kw).status == 200
    clock.advance(seconds=301)
    assert _prove(jar, kw).status == 303
    assert [one["detail"]["issuer"] for one in acts(kw, "session.prove")] == [jar.issuer.url]


@pytest.mark.sqlite_only("the same on both")
@pytest.mark.parametrize("claims", [{"auth_time": None}, {"auth_time": 1}, {"auth_time": "now"}], ids=str)
def test_who_has_typed_nothing_has_proven_nothing(jar: Jar, kw: Keywright, claims: dict[str, Any]) -> None:
    """Without the instant at which somebody gave the provider their password, or with an old one, nothing is open."""
    invited(kw)
    jar.come()
    jar.issuer.claims = claims
    assert jar.come("/console/prove/provider").status == 400
    assert _prove(jar, kw).status == 303
    assert jar.session is not None


def test_another_person_proves_nothing(jar: Jar, kw: Keywright) -> None:
    """Where somebody else signs in at the provider instead, nothing is open, and whoever was here stays who they were."""
    meant = invited(kw)
    invited(kw, "bob@globex.example")
    jar.come()
    jar.issuer.person = {"sub": "2", "email": "bob@globex.example", "email_verified": True}
    came = jar.come("/console/prove/provider")
    assert (came.status, words.SOMEBODY_ELSE in came.body.decode()) == (403, True)
    assert jar.person["id"] == meant.id
    assert _prove(jar, kw).status == 303


def test_who_does_not_come_by_it_is_not_sent(jar: Jar, kw: Keywright) -> None:
    """Who has a password here and no identity there finds no way to prove themselves by the provider."""
    jar.cookies["keywright-session"] = begin(kw, "owner")[0]
    assert jar.get("/console/prove/provider").status == 404
    assert "Acme" not in jar.get("/console/prove").body.decode()


# ---------------------------------------------------------------------------------------------- sessions, links, unlinking


@pytest.mark.security("A-04")
def test_a_new_sign_in_retires_the_session_before(jar: Jar, kw: Keywright) -> None:
    """The session that a browser had ends when somebody signs in in it, by the provider or by password; others go on."""
    invited(kw)
    token, _ = begin(kw, "owner", email="bea@globex.example")
    elsewhere = begin(kw, "admin", email="cat@globex.example")[0]
    jar.cookies["keywright-session"] = token

    assert jar.come().status == 303
    assert kw.installation.sessions.find(token) is None
    mine = jar.cookies["keywright-session"]
    form = f"email=bea@globex.example&password={PASSWORD.replace(' ', '+')}"
    assert jar.post("/console/sign-in", form).status == 303
    assert kw.installation.sessions.find(mine) is None
    assert kw.installation.sessions.find(elsewhere) is not None


def test_signing_out_ends_it_here(jar: Jar, kw: Keywright) -> None:
    """Signing out ends the session here; to come in again takes the provider again."""
    invited(kw)
    jar.come()
    token = jar.cookies["keywright-session"]
    session = kw.installation.sessions.find(token)
    assert session is not None
    jar.post("/console/sign-out", f"csrf={csrf_token(kw.installation, session)}")
    assert kw.installation.sessions.find(token) is None
    assert jar.session is None


def test_an_invitation_is_taken_by_the_provider(jar: Jar, door: Door, kw: Keywright) -> None:
    """Whoever has no password takes a further invitation by signing in; the link is of no use to anybody else."""
    meant = invited(kw)
    jar.come()
    link = kw.installation.people.invite(ANA, account="initech", role="auditor")
    page = jar.post("/console/link", f"token={link.token}").body.decode()
    way = re.search(r'href="(/console/sign-in/provider\?invited=[^"]+)"', page)
    assert way is not None
    assert link.token not in way[1]
    assert 'type="password"' not in page

    invited(kw, "bob@globex.example")
    jar.issuer.person = {"sub": "2", "email": "bob@globex.example", "email_verified": True}
    stranger = another(door, jar.issuer)
    assert stranger.come(way[1]).status == 404
    assert stranger.session is None
    jar.issuer.person = {"sub": "248289761001"}
    assert jar.come(way[1]).status == 303
    taken = kw.installation.people.get(meant.id).memberships
    assert [(one.account, one.accepted_at is not None) for one in taken] == [
        ("globex", True),
        ("initech", True),
    ]
    assert jar.come(way[1]).status == 404  # it works once


def test_unlinking(grouped: Door, issuer: Issuer, kw: Keywright) -> None:
    """Who is unlinked loses what groups gave and every session, keeps what a hand gave, and is nobody's subject any more."""
    people = kw.installation.people
    begin(kw, "operator")
    issuer.claims["groups"] = ["devs", "ops"]
    jar = another(grouped, issuer)
    jar.come()
    person = people.get(ANA)
    people.invite(ANA, account="initech", role="analyst")

    left = people.unlink(ANA)

    assert (left.identities, left.state, left.operator) == ((), "invited", False)
    assert [one.account for one in left.memberships] == ["initech"]
    assert jar.session is None
    with pytest.raises(Conflict):
        people.unlink(ANA)
    assert another(grouped, issuer).come().status == 403  # no domain joins: the address is taken
    assert acts(kw, "person.unlink")[0]["target_id"] == person.id


def test_the_last_operator_is_not_unlinked(grouped: Door, issuer: Issuer, kw: Keywright) -> None:
    """Where unlinking would take the last operator away, nothing is changed."""
    issuer.claims["groups"] = ["ops"]
    another(grouped, issuer).come()
    with pytest.raises(Conflict, match="last operator"):
        kw.installation.people.unlink(ANA)
    assert len(kw.installation.people.get(ANA).identities) == 1


def test_two_at_once_are_one_person(kw: Keywright, clock: Clock) -> None:
    """Of two first sign-ins of the same somebody that come in turn the second finds who the first has made."""
    said = Vouched("https://id.example", "1", ANA, "Ana", ("ops",), clock(), factor=False)
    rules = Rules((), (GroupRole("ops"),))
    first, second = (kw.installation.identities.enter(said, rules, Asked()) for _ in range(2))
    assert first.session.person.id == second.session.person.id
    assert len(kw.installation.people.list(operators=True).items) == 1


# --------------------------------------------------------------------------------------------------- settings, and doctor


def test_settings_that_cannot_be(issuer: Issuer) -> None:
    """What groups give is spelled out, domains are domains, an issuer is https; what goes together goes together."""
    for over, said in (
        ({"oidc_roles": "devs=globex:boss"}, "oidc_roles"),
        ({"oidc_roles": "devs"}, "oidc_roles"),
        ({"oidc_roles": "=operator"}, "oidc_roles"),
        ({"oidc_roles": "devs=:admin"}, "oidc_roles"),
        ({"oidc_domains": "ana@globex.example"}, "oidc_domains"),
        ({"oidc_domains": "com"}, "oidc_domains"),
        ({"oidc_issuer": "http://id.globex.example"}, "oidc_issuer"),
        ({"oidc_issuer": "https://id.globex.example?x=y"}, "oidc_issuer"),
        ({"oidc_second_factor": "maybe"}, "oidc_second_factor"),
    ):
        with pytest.raises(CannotStart, match=said):
            configured(**over)
    for over, said in (
        ({"oidc_issuer": "https://id.globex.example"}, "oidc_client_id"),
        ({"oidc_client_id": "x"}, "oidc_issuer"),
        (issuer.settings(oidc_networks=""), "oidc_networks"),
    ):
        assert any(said in wrong for wrong in weigh(configured(**over)))
    found = configured(oidc_roles="cn=ops=operator, devs=globex:admin", oidc_domains="Globex.Example")
    assert found.oidc_roles == (GroupRole("cn=ops"), GroupRole("devs", "globex", "admin"))
    assert found.oidc_domains == ("globex.example",)


@pytest.mark.sqlite_only("doctor opens a database by its address")
def test_doctor_looks_at_signing_in(kw: Keywright, issuer: Issuer) -> None:
    """``doctor`` asks the provider, and says where nobody could come in without it, and where a group gives what is not there."""
    over = issuer.settings(database=kw.installation.database.url, oidc_roles="devs=hooli:admin")
    found = [one for one in examine(configured(**over)) if one.check == "sign-in"]
    assert [one.level for one in found] == ["ok", "warning", "warning"]
    assert "2 keys" in found[0].says
    assert "hooli" in found[1].says
    assert "password" in found[2].says
    begin(kw, "operator")
    issuer.answers["keys"] = (500, {}, b"")
    found = [one for one in examine(configured(**over)) if one.check == "sign-in"]
    assert [one.level for one in found] == ["error", "warning", "ok"]


@pytest.mark.sqlite_only("the command is the same on both")
def test_the_command_says_by_what_somebody_comes(template: Path, tmp_path: Path, clock: Clock) -> None:
    """``people list`` and ``get`` tell providers and password, and what groups gave; ``unlink`` forgets the provider."""
    command = Folder(tmp_path, copy_of=template)
    said = Vouched("https://id.example", "1", ANA, "Ana", ("devs",), None, factor=False)
    with Keywright(command.database, clock=clock) as kw:
        begin(kw, "owner", email="bea@globex.example")
        rules = Rules((), (GroupRole("devs", "globex", "developer"),))
        kw.installation.identities.enter(said, rules, Asked())

    listed = command("people", "list").out
    assert re.search(
        r"ana@globex.example +Ana +active +https://id.example +developer of globex \(by group\)", listed
    )
    assert re.search(r"bea@globex.example .* active +password +owner of globex\n", listed)
    assert re.search(r"signs in by +https://id.example\n", command("people", "get", ANA).out)
    shown = command("people", "get", ANA, "--json").json
    assert [one["issuer"] for one in shown["identities"]] == ["https://id.example"]
    assert (shown["has_password"], shown["memberships"][0]["by_groups"]) == (False, True)
    done = command("people", "unlink", ANA)
    assert (done.code, "no place anywhere" in done.out) == (0, True)
    assert re.search(r"signs in by +nothing yet\n", command("people", "get", ANA).out)
    assert command("people", "unlink", ANA).code == 1


@pytest.mark.sqlite_only("nothing is opened")
def test_serve_refuses_what_cannot_sign_anybody_in(template: Path, tmp_path: Path) -> None:
    """With settings of a provider that do not go together the server does not start, and says which in a line."""
    command = Folder(tmp_path, copy_of=template)
    ran = command("serve", "--port", "0", KEYWRIGHT_OIDC_ISSUER="https://id.example")
    assert ran.code == 3  # as whatever keeps an installation from starting
    assert "oidc_client_id is not" in ran.err
    assert "\n" not in ran.err.strip()
