"""Second factors: a code works once, so does a recovery code, and nobody is in before one was given."""

import base64
import re
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pyotp
import pytest

from conftest import again
from keywright import Keywright
from keywright.desk import factors as desk
from keywright.errors import (
    Conflict,
    Invalid,
    SecondFactorNeeded,
    SignInFailed,
    Throttled,
    Unavailable,
)
from keywright.keyring import Keyring
from keywright.model import Actor, Session
from keywright.testing import Clock
from people import PASSWORD, as_person, begin
from surfaces import Door, Reply, server

pytestmark = pytest.mark.stores
EMAIL = "ana@globex.example"
BY = Actor("person", "test")


class Armed(NamedTuple):
    """A person with a second factor: their secret, recovery codes, and session."""

    secret: str
    codes: tuple[str, ...]
    token: str
    session: Session

    def code(self, clock: Clock, steps: int = 0) -> str:
        """What their authenticator shows, so many steps from now."""
        return str(pyotp.TOTP(self.secret).generate_otp(clock() // (desk.STEP * 1_000_000) + steps))


def arm(kw: Keywright, clock: Clock, role: str = "owner", email: str = EMAIL) -> Armed:
    """A person who has just set up a second factor; the code that did it lies in the past."""
    _, session = begin(kw, role, email=email)
    made = kw.installation.factors
    offered = made.begin(session, actor=BY)
    done = made.confirm(session, pyotp.TOTP(offered.secret).at(clock() // 1_000_000), actor=BY)
    clock.advance(seconds=desk.STEP)
    return Armed(offered.secret, done.codes, done.token, done.session)


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def sign_in(door: Door, code: str | None = None, password: str = PASSWORD) -> Reply:
    """Sign in as a page of ours would."""
    body = {"email": EMAIL, "password": password}
    return door.json("POST", "/v1/session", body if code is None else body | {"code": code})


def cookie(reply: Reply) -> dict[str, str]:
    """What a browser sends back of an answer, with what a page of ours adds."""
    held = str(reply.get("set-cookie")).partition(";")[0]
    return {"Cookie": held, "X-CSRF-Token": reply.json["csrf_token"], "Sec-Fetch-Site": "same-origin"}


# ------------------------------------------------------------------------------------------------------------- codes


@pytest.mark.security("A-09")
def test_a_code_works_once(kw: Keywright, clock: Clock) -> None:
    """A code that was accepted is refused within its step and in both beside it; so is every earlier one."""
    ana, enter = arm(kw, clock), kw.installation.sessions.sign_in
    used = ana.code(clock)

    assert enter(EMAIL, PASSWORD, used).session.person.email == EMAIL
    for _ in range(3):
        for replayed in (used, ana.code(clock, -1)):
            with pytest.raises((SignInFailed, Throttled)):
                enter(EMAIL, PASSWORD, replayed)
        clock.advance(seconds=desk.STEP // 2)
    clock.advance(seconds=desk.PER)

    assert enter(EMAIL, PASSWORD, ana.code(clock))


@pytest.mark.security("A-09")
def test_the_code_that_set_it_up_is_used(kw: Keywright, clock: Clock) -> None:
    """Whoever saw the first code being typed does not sign in with it."""
    _, session = begin(kw, "owner", email=EMAIL)
    offered = kw.installation.factors.begin(session, actor=BY)
    first = pyotp.TOTP(offered.secret).at(clock() // 1_000_000)
    kw.installation.factors.confirm(session, first, actor=BY)

    with pytest.raises(SignInFailed):
        kw.installation.sessions.sign_in(EMAIL, PASSWORD, first)


@pytest.mark.security("A-09")
def test_one_of_many_uses_a_code(kw: Keywright, clock: Clock) -> None:
    """The same code, and the same recovery code, at the same moment in two processes: each lets one in."""
    ana = arm(kw, clock)
    person = ana.session.person.id
    with again(kw) as other:
        for code in (ana.code(clock), ana.codes[0]):
            assert sorted(at_once((kw, other, kw, other), person, code)) == ["in", "out", "out", "out"]
            clock.advance(seconds=desk.PER)  # tries that came after the right one count against the next


def at_once(places: tuple[Keywright, ...], person: str, code: str) -> list[str]:
    """What becomes of a code that is given in several places at the same moment."""
    outcomes: list[str] = []
    barrier = threading.Barrier(len(places))

    def prove(place: Keywright) -> None:
        barrier.wait()
        try:
            place.installation.factors.prove(person, code)
            outcomes.append("in")
        except SignInFailed:
            outcomes.append("out")

    threads = [threading.Thread(target=prove, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_clock_may_be_off_by_one_step(kw: Keywright, clock: Clock) -> None:
    """The code before and the one after are accepted; two steps away is refused."""
    ana, prove = arm(kw, clock), kw.installation.factors.prove
    person = ana.session.person.id
    clock.advance(seconds=desk.STEP * 5)
    for refused in (-2, 2):
        with pytest.raises(SignInFailed):
            prove(person, ana.code(clock, refused))
    assert prove(person, ana.code(clock, -1))
    assert prove(person, ana.code(clock, 1))
    with pytest.raises(SignInFailed):
        prove(person, ana.code(clock))  # earlier than one that was accepted


@pytest.mark.security("A-09")
def test_a_recovery_code_works_once(kw: Keywright, clock: Clock) -> None:
    """Each of ten lets its person in once, however it is spelled; drawing new ones ends the old."""
    ana, enter = arm(kw, clock), kw.installation.sessions.sign_in
    made = kw.installation.factors

    assert len(set(ana.codes)) == desk.RECOVERY_CODES
    bits = [8 * len(base64.b32decode(code.replace("-", "").upper())) for code in ana.codes]
    assert min(bits) >= 112
    assert enter(EMAIL, PASSWORD, ana.codes[0].upper().replace("-", " "))
    with pytest.raises(SignInFailed):
        enter(EMAIL, PASSWORD, ana.codes[0])
    assert made.standing(ana.session.person).codes_left == desk.RECOVERY_CODES - 1
    renewed = made.renew_codes(ana.session, actor=BY)
    with pytest.raises(SignInFailed):
        enter(EMAIL, PASSWORD, ana.codes[1])
    assert enter(EMAIL, PASSWORD, renewed[1])


def test_five_tries_in_a_quarter_of_an_hour(kw: Keywright, clock: Clock) -> None:
    """The sixth is not looked at, though it be right, by any process; a quarter of an hour after the first it is."""
    ana = arm(kw, clock)
    clock.advance(seconds=desk.STEP * 5)
    for _ in range(desk.TRIES):
        with pytest.raises(SignInFailed):
            kw.installation.sessions.sign_in(EMAIL, PASSWORD, "000000")
    with again(kw) as other:
        for place in (other, kw):
            with pytest.raises(Throttled) as refused:
                place.installation.sessions.sign_in(EMAIL, PASSWORD, ana.code(clock))
    assert 0 < refused.value.retry_after <= desk.PER

    clock.advance(seconds=desk.PER)

    assert kw.installation.sessions.sign_in(EMAIL, PASSWORD, ana.code(clock))


def test_many_tries_at_once_are_no_more_than_five(kw: Keywright, clock: Clock) -> None:
    """Tries are counted before they are looked at: of twenty at the same moment five are."""
    ana = arm(kw, clock)
    outcomes: list[str] = []
    barrier = threading.Barrier(20)

    def guess() -> None:
        barrier.wait()
        try:
            kw.installation.factors.prove(ana.session.person.id, "not six digits")
        except (SignInFailed, Throttled) as refused:
            outcomes.append(type(refused).__name__)

    threads = [threading.Thread(target=guess) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes.count("SignInFailed") == desk.TRIES
    assert outcomes.count("Throttled") == 20 - desk.TRIES


# --------------------------------------------------------------------------------------------------------- what is kept


@pytest.mark.security("A-09")
def test_a_stolen_database_makes_no_code(kw: Keywright, clock: Clock) -> None:
    """The secret is sealed for its person under the installation's secret; of recovery codes there are digests."""
    ana = arm(kw, clock)
    other = begin(kw, "admin")[1].person
    with kw.installation.database.write() as tx:
        row = tx.exec_driver_sql("SELECT sealed FROM factors").one()
        sealed = bytes(row.sealed)
        kept = [bytes(one[0]) for one in tx.exec_driver_sql("SELECT digest FROM recovery_codes")]
    installation = kw.installation
    thief = desk.Factors(installation.database, Keyring({1: b"x" * 32}), clock)

    assert ana.secret.encode() not in sealed
    assert base64.b32decode(ana.secret) not in sealed
    assert {len(one) for one in kept} == {32}
    assert installation.factors._open(ana.session.person.id, sealed) == ana.secret
    for opener, person in ((thief, ana.session.person), (installation.factors, other)):
        with pytest.raises(Unavailable):
            opener._open(person.id, sealed)


def test_a_factor_outlives_the_rotation_of_the_secret(kw: Keywright, clock: Clock) -> None:
    """With a newer entry a code is accepted, and its secret sealed anew; without the old entry it then still is."""
    ana = arm(kw, clock)
    installation, person = kw.installation, ana.session.person.id
    old, new = installation.keyring._roots[1], b"n" * 32
    both = desk.Factors(installation.database, Keyring({1: old, 2: new}), clock)
    alone = desk.Factors(installation.database, Keyring({2: new}), clock)

    with pytest.raises(Unavailable, match="entry 1"):
        alone.prove(person, ana.code(clock))
    assert alone.prove(person, ana.codes[0])  # a recovery code needs no secret
    assert both.prove(person, ana.code(clock))
    clock.advance(seconds=desk.STEP)

    assert alone.prove(person, ana.code(clock))


# -------------------------------------------------------------------------------------------------------------- sign-in


def test_nobody_is_in_before_the_code(door: Door, kw: Keywright, clock: Clock) -> None:
    """The password alone begins no session; a wrong one does not tell that there is a factor; a wrong code is a failure."""
    ana = arm(kw, clock)

    def sessions() -> int:
        return len(kw.installation.sessions.list(ana.session.person))

    before = sessions()
    asked = sign_in(door)
    assert (asked.status, asked.code, asked.get("set-cookie")) == (401, "second_factor_needed", None)
    for reply in (sign_in(door, password="four words beside sand"), sign_in(door, "000000")):
        assert (reply.status, reply.code, reply.get("set-cookie")) == (401, "sign_in_failed", None)
    assert sessions() == before
    entered = sign_in(door, ana.code(clock))

    assert (entered.status, sessions()) == (201, before + 1)
    assert door.get("/v1/session", cookie(entered)).json["person"]["second_factor_since"]


def test_whoever_is_signed_in_proves_both_again(door: Door, kw: Keywright, clock: Clock) -> None:
    """A dangerous act of somebody with a factor wants password and code."""
    ana = arm(kw, clock)
    headers = as_person(kw, (ana.token, ana.session))
    clock.advance(seconds=301)

    assert door.send("POST", "/v1/session/factor", headers).code == "password_needed"
    assert (
        door.json("POST", "/v1/session/prove", {"password": PASSWORD}, headers).code == "second_factor_needed"
    )
    proof = {"password": PASSWORD, "code": ana.code(clock)}
    proven = door.json("POST", "/v1/session/prove", proof, headers)
    assert door.send("POST", "/v1/session/factor", cookie(proven)).status == 201


def test_a_factor_is_set_up_over_http(door: Door, kw: Keywright, clock: Clock) -> None:
    """Begin, confirm, recovery codes, remove: what is secret is told once, and nothing counts before it was confirmed."""
    headers = as_person(kw, begin(kw, "owner", email=EMAIL))
    assert door.json("POST", "/v1/session/factor/confirm", {"code": "000000"}, headers).status == 409
    begun = door.send("POST", "/v1/session/factor", headers)
    shown = pyotp.parse_uri(begun.json["uri"])
    assert isinstance(shown, pyotp.TOTP)
    assert (begun.status, shown.secret, shown.name) == (201, begun.json["secret"], EMAIL)
    assert sign_in(door).status == 201
    wrong = door.json("POST", "/v1/session/factor/confirm", {"code": "000000"}, headers)
    assert wrong.code == "sign_in_failed"
    code = {"code": shown.at(clock() // 1_000_000)}
    confirmed = door.json("POST", "/v1/session/factor/confirm", code, headers)
    headers = cookie(confirmed)

    assert len(confirmed.json["recovery_codes"]) == 10
    state = door.get("/v1/session/factor", headers)
    assert (state.json["recovery_codes_left"], state.json["mandatory"]) == (10, False)
    for secret in (begun.json["secret"], *confirmed.json["recovery_codes"]):
        assert secret not in state.body.decode() + door.get("/v1/session", headers).body.decode()
    renewed = door.send("POST", "/v1/session/factor/codes", headers).json["recovery_codes"]
    assert not set(renewed) & set(confirmed.json["recovery_codes"])
    assert sign_in(door).code == "second_factor_needed"
    removed = door.send("DELETE", "/v1/session/factor", headers)
    assert (removed.status, removed.json["person"]["second_factor_since"]) == (200, None)
    assert sign_in(door).status == 201
    assert door.send("DELETE", "/v1/session/factor", cookie(removed)).status == 409


@pytest.mark.security("A-04")
def test_a_session_has_another_cookie_with_the_factor(door: Door, kw: Keywright, clock: Clock) -> None:
    """Setting a factor up and taking it away each end the old cookie and every other session."""
    begin(kw, "owner", email=EMAIL)
    first, second = (cookie(sign_in(door)) for _ in range(2))
    secret = door.send("POST", "/v1/session/factor", first).json["secret"]
    code = {"code": pyotp.TOTP(secret).at(clock() // 1_000_000)}
    third = cookie(door.json("POST", "/v1/session/factor/confirm", code, first))
    assert [door.get("/v1/session", one).status for one in (first, second, third)] == [401, 401, 200]
    fourth = cookie(door.send("DELETE", "/v1/session/factor", third))
    assert [door.get("/v1/session", one).status for one in (third, fourth)] == [401, 200]


def test_a_secret_is_not_on_offer_for_long(kw: Keywright, clock: Clock) -> None:
    """A quarter of an hour later it is confirmed no more; a newer one replaces it; the one in use goes on meanwhile."""
    ana, made = arm(kw, clock), kw.installation.factors
    late = pyotp.TOTP(made.begin(ana.session, actor=BY).secret)
    clock.advance(seconds=desk.OFFERED_FOR)
    with pytest.raises(Conflict, match="begin again"):
        made.confirm(ana.session, late.at(clock() // 1_000_000), actor=BY)
    assert made.prove(ana.session.person.id, ana.code(clock))
    newer = pyotp.TOTP(made.begin(ana.session, actor=BY).secret)

    made.confirm(ana.session, newer.at(clock() // 1_000_000), actor=BY)
    clock.advance(seconds=desk.STEP)

    with pytest.raises(SignInFailed):
        made.prove(ana.session.person.id, ana.code(clock))
    assert made.prove(ana.session.person.id, newer.at(clock() // 1_000_000))


# ----------------------------------------------------------------------------------------------- passwords, and losing it


def test_a_shorter_password_stands_beside_a_factor(kw: Keywright, clock: Clock) -> None:
    """Eight characters are enough with a factor, which then stays until the password is longer; without one they are not."""
    ana, sessions = arm(kw, clock), kw.installation.sessions
    short = "kü9§wvq#"
    _, other = begin(kw, "admin")
    with pytest.raises(Invalid, match="15 or more"):
        sessions.change_password(other, PASSWORD, short, actor=BY)
    with pytest.raises(Invalid, match="8 or more"):
        sessions.change_password(ana.session, PASSWORD, short[:7], actor=BY)
    session = sessions.change_password(ana.session, PASSWORD, short, actor=BY).session

    with pytest.raises(Conflict, match="too short"):
        kw.installation.factors.remove(session, mandatory=False, actor=BY)
    session = sessions.change_password(session, short, PASSWORD, actor=BY).session
    assert kw.installation.factors.remove(session, mandatory=False, actor=BY)


def test_a_reset_keeps_the_factor(kw: Keywright, clock: Clock) -> None:
    """The link of a reset wants a code as well, and is not used up by a wrong one; with ``factor`` it takes the factor away."""
    ana, installation = arm(kw, clock), kw.installation
    person = ana.session.person.id
    link = installation.people.reset(person).token
    with pytest.raises(SecondFactorNeeded):
        installation.sessions.follow(link, "gravel besides four words")
    with pytest.raises(SignInFailed):
        installation.sessions.follow(link, "gravel besides four words", code="000000")
    begun = installation.sessions.follow(link, "kü9§wvq#", code=ana.code(clock))
    assert begun.session.person.factor_since is not None

    link = installation.people.reset(person, factor=True).token

    assert installation.sessions.find(begun.token) is None
    with pytest.raises(SignInFailed):  # it was too short to stand alone
        installation.sessions.sign_in(EMAIL, "kü9§wvq#")
    begun = installation.sessions.follow(link, "gravel besides four words")
    assert begun.session.person.factor_since is None
    assert installation.sessions.sign_in(EMAIL, "gravel besides four words")


def test_an_invitation_elsewhere_wants_the_code(kw: Keywright, clock: Clock) -> None:
    """Somebody with a factor takes another place with password and code, not with the password alone."""
    ana, installation = arm(kw, clock), kw.installation
    link = installation.people.invite(EMAIL, account="initech", role="analyst").token
    with pytest.raises(SecondFactorNeeded):
        installation.sessions.follow(link, PASSWORD)

    person = installation.sessions.follow(link, PASSWORD, code=ana.code(clock)).session.person

    assert len(person.memberships) == 2


# -------------------------------------------------------------------------------------------------------- the setting


@pytest.mark.parametrize(
    ("role", "asked"), [("owner", True), ("admin", True), ("operator", True), ("analyst", False)]
)
def test_some_must_have_one(kw: Keywright, clock: Clock, role: str, *, asked: bool) -> None:
    """With ``admins``, owners, admins and operators without one can do nothing but set one up, by API and console."""
    token, session = begin(kw, role, email=EMAIL)
    headers = as_person(kw, (token, session))
    account = {} if role == "operator" else {"Keywright-Account": "globex"}
    keyspaces = "/console/operator/keyspaces" if role == "operator" else "/console/@globex"
    with Door(server(kw, second_factor="admins")) as strict, Door(server(kw)) as lax:
        assert lax.get("/v1/keyspaces", headers | account).status == 200
        reply, page = strict.get("/v1/keyspaces", headers | account), strict.get(keyspaces, headers)
        if not asked:
            assert (reply.status, page.status) == (200, 200)
            return
        assert (reply.status, reply.code) == (403, "second_factor_missing")
        assert (page.status, page.get("location")) == (303, "/console/me/factor?said=factor_wanted")
        for path in ("/console/", "/console/@globex/people"):
            assert str(strict.get(path, headers).get("location")).startswith("/console/me/factor")
        for path in ("/console/me", "/console/me/factor", "/v1/session", "/v1/session/factor"):
            assert strict.get(path, headers).status == 200
        secret = strict.send("POST", "/v1/session/factor", headers).json["secret"]
        code = {"code": pyotp.TOTP(secret).at(clock() // 1_000_000)}
        headers = cookie(strict.json("POST", "/v1/session/factor/confirm", code, headers))

        assert strict.get("/v1/keyspaces", headers | account).status == 200


@pytest.mark.security("A-12")
def test_the_last_owner_keeps_the_factor(kw: Keywright, clock: Clock) -> None:
    """Where it is mandatory, neither the last owner nor the last operator takes their factor away; replacing it they may."""
    for role, email in (("owner", EMAIL), ("operator", "op@example.com")):
        ana = arm(kw, clock, role, email)
        headers = as_person(kw, (ana.token, ana.session))
        with Door(server(kw, second_factor="admins")) as strict:
            refused = strict.send("DELETE", "/v1/session/factor", headers)
            assert (refused.status, refused.code) == (409, "conflict")
            assert strict.send("POST", "/v1/session/factor", headers).status == 201
            assert strict.get("/v1/session", headers).json["person"]["second_factor_since"]


# -------------------------------------------------------------------------------------------------------- the console


def form(door: Door, path: str, headers: dict[str, str], **fields: str) -> Reply:
    """Send a form of the console."""
    from urllib.parse import urlencode

    sent = {"csrf": headers["X-CSRF-Token"], **fields} if headers else fields
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    return door.send("POST", path, headers | kind, urlencode(sent).encode())


def test_the_console_sets_a_factor_up(door: Door, kw: Keywright, clock: Clock) -> None:
    """Secret and picture are shown once, the recovery codes once; a wrong code says so; the sign-in page asks for a code."""
    headers = as_person(kw, begin(kw, "owner", email=EMAIL))
    assert "Set one up" in door.get("/console/me/factor", headers).body.decode()
    page = form(door, "/console/me/factor", headers)
    text = page.body.decode()
    secret = re.findall('id="secret"[^>]*>([A-Z2-7]+)<', text)[0]
    assert "<svg" in text
    assert "style=" not in text.partition("<svg")[2].partition("</svg>")[0]
    assert f"secret={secret}" in text
    assert secret not in door.get("/console/me/factor", headers).body.decode()
    assert form(door, "/console/me/factor/confirm", headers, code="000000").status == 401
    code = pyotp.TOTP(secret).at(clock() // 1_000_000)
    done = form(door, "/console/me/factor/confirm", headers, code=code)
    assert done.body.decode().count("<li><code") == 10
    headers |= {"Cookie": str(done.get("set-cookie")).partition(";")[0]}
    assert "<li><code" not in door.get("/console/me/factor", headers).body.decode()
    clock.advance(seconds=desk.STEP)

    asked = form(door, "/console/sign-in", {}, email=EMAIL, password=PASSWORD)
    assert (asked.status, 'name="code"' in asked.body.decode()) == (401, True)
    given = {"email": EMAIL, "password": PASSWORD, "code": pyotp.TOTP(secret).at(clock() // 1_000_000)}
    assert form(door, "/console/sign-in", {}, **given).status == 303
    renewed = form(door, "/console/me/factor/codes", headers)
    assert renewed.body.decode().count("<li><code") == 10
    gone = form(door, "/console/me/factor/remove", headers)
    assert gone.get("location") == "/console/me?said=factor_removed"


def test_the_console_wants_a_fresh_password(door: Door, kw: Keywright, clock: Clock) -> None:
    """Five minutes after the password was given, changing the factor asks for it, and nothing is drawn."""
    headers = as_person(kw, begin(kw, "owner", email=EMAIL))
    clock.advance(seconds=301)

    for path in ("", "/confirm", "/codes", "/remove"):
        asked = form(door, f"/console/me/factor{path}", headers, back="/console/me/factor", code="1")
        assert asked.get("location") == "/console/prove?to=%2Fconsole%2Fme%2Ffactor"
