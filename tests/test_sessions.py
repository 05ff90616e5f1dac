"""Signing in and out: passwords, sessions, one-time links, and what a stranger can and cannot find out."""

import threading
from collections.abc import Iterator
from statistics import median
from time import perf_counter

import pytest

from conftest import again, bearer, make
from keywright import Issued, Keywright
from keywright.desk import passwords
from keywright.desk.sessions import IDLE, LIFE_OF_LINK, LONGEST, MOST_FAILURES, PER_MINUTE
from keywright.errors import Conflict, Invalid, NotFound, SignInFailed, Throttled, Unavailable
from keywright.testing import Clock
from people import PASSWORD, as_person, begin
from surfaces import Door, Reply, configured, server
from test_management_api import documented

pytestmark = pytest.mark.stores
WRONG = "four words beside sand"


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def sign_in(door: Door, email: str, password: str = PASSWORD, **headers: str) -> Reply:
    """Sign in as a page of ours would."""
    return door.json("POST", "/v1/session", {"email": email, "password": password}, headers)


def cookie(reply: Reply) -> dict[str, str]:
    """What a browser sends back of an answer, with what a page of ours adds."""
    held = str(reply.get("set-cookie")).partition(";")[0]
    return {"Cookie": held, "X-CSRF-Token": reply.json["csrf_token"], "Sec-Fetch-Site": "same-origin"}


# ----------------------------------------------------------------------------------------------------------- passwords


def test_a_password_is_kept_as_argon2id(kw: Keywright) -> None:
    """What is stored is argon2id with OWASP's least parameters, never the password, and it alone opens."""
    computed = passwords.Passwords()

    stored = computed.hash(PASSWORD)

    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert computed.proves(stored, PASSWORD)
    assert not computed.proves(stored, WRONG)
    assert not computed.proves(None, PASSWORD)
    assert not computed.is_outdated(stored)
    assert computed.is_outdated(stored.replace("m=19456", "m=1024"))


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short of fifteen"[:14], "15 or more"),
        ("ä" * 200, "256 bytes"),
        ("passwordpassword", "guessed"),
        ("aaaaaaaaaaaaaaaaaaaa", "guessed"),
        ("123456789012345", "guessed"),
        ("ana@globex.example", "guessed"),
    ],
)
def test_a_password_that_is_quickly_guessed_is_refused(password: str, why: str) -> None:
    """Too short, too long, common, or made of what everybody knows of the person: refused with the reason."""
    with pytest.raises(Invalid, match=why):
        passwords.check(password, ["ana@globex.example", "Ana"])


def test_a_password_may_hold_anything() -> None:
    """Spaces, other scripts and signs are as good as letters; nothing is cut off."""
    for password in (PASSWORD, "пароль из четырёх слов", "🦊 jumps over 狗 twice"):
        assert passwords.check(password) == password


@pytest.mark.security("A-07")
def test_few_passwords_are_computed_at_once() -> None:
    """Two at a time and sixteen waiting; whoever comes after is told to come again, and costs no memory."""
    computed = passwords.Passwords()
    held = [computed._turn() for _ in range(passwords.AT_ONCE)]
    for turn in held:
        turn.__enter__()
    waiting = [threading.Thread(target=computed.hash, args=(PASSWORD,)) for _ in range(passwords.WAITING)]
    for thread in waiting:
        thread.start()
    while computed._admitted._value:
        pass

    with pytest.raises(Unavailable):
        computed.hash(PASSWORD)

    for turn in held:
        turn.__exit__(None, None, None)
    for thread in waiting:
        thread.join()
    assert computed.hash(PASSWORD)


# ------------------------------------------------------------------------------------------------------------ sessions


@pytest.mark.security("A-04")
def test_the_cookie_is_for_this_host_alone(door: Door, kw: Keywright) -> None:
    """HttpOnly, SameSite=Lax, whole path; over HTTPS also Secure with ``__Host-``; its value is in no table."""
    begin(kw, "owner", email="ana@globex.example")

    plain = str(sign_in(door, "Ana@Globex.example ").get("set-cookie"))
    with Door(server(kw, public_url="https://keys.example.com")) as secure:
        over = secure.json(
            "POST", "/v1/session", {"email": "ana@globex.example", "password": PASSWORD}, scheme="https"
        )

    name, _, rest = plain.partition("=")
    assert (name, rest.partition("; ")[2]) == (
        "keywright-session", f"Path=/; HttpOnly; SameSite=Lax; Max-Age={LONGEST}"
    )  # fmt: skip
    assert len(rest.partition(";")[0]) == 43
    assert str(over.get("set-cookie")).startswith("__Host-keywright=")
    assert str(over.get("set-cookie")).endswith("; Secure")
    assert over.get("cache-control") == "no-store"


def test_signing_in_and_out(door: Door, kw: Keywright) -> None:
    """Whoever signs in is told who they are; whoever signs out is nobody, also with the cookie kept."""
    begin(kw, "owner", email="ana@globex.example")
    entered = sign_in(door, "ana@globex.example")
    headers = cookie(entered)

    assert entered.status == 201
    assert entered.json["person"]["memberships"][0]["role"] == "owner"
    assert door.get("/v1/session", headers).json["person"]["email"] == "ana@globex.example"
    assert door.send("DELETE", "/v1/session", headers).status == 204
    for target in ("/v1/session", "/v1/keys"):
        assert (door.get(target, headers).status, door.get(target, headers).code) == (401, "signed_out")


def test_whoever_asks_of_a_session_and_sends_nothing_is_signed_out(door: Door) -> None:
    """No address of sessions speaks of API keys to somebody who sends none: only a session would do."""
    for method, target in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/list"),
        ("POST", "/prove"),
        ("DELETE", "/factor"),
    ):
        reply = door.send(method, f"/v1/session{target}")
        assert (reply.status, reply.code) == (401, "signed_out"), (method, target)
    assert door.get("/v1/keys").code == "missing"
    assert door.get("/v1/sessions").code == "missing"


@pytest.mark.security("A-08", "T-66")
@pytest.mark.sqlite_only("times one path, which is the same on both")
def test_who_is_unknown_looks_like_who_is_wrong(door: Door, kw: Keywright) -> None:
    """Unknown, disabled, invited or wrong: the same bytes but for the request id, and the same work is done for each."""
    begin(kw, "owner", email="ana@globex.example")
    out = begin(kw, "admin", email="out@globex.example")[1].person.id
    kw.installation.people.disable(out)
    kw.installation.people.invite("new@globex.example", account="globex", role="owner")
    took: dict[str, list[float]] = {}
    bodies = set()
    for round_ in range(4):
        for email in (
            "ana@globex.example",
            "nobody@globex.example",
            "out@globex.example",
            "new@globex.example",
        ):
            begun = perf_counter()
            reply = sign_in(door, email, WRONG)
            took.setdefault(email, []).append(perf_counter() - begun)
            said = reply.json
            bodies.add((reply.status, *(said[field] for field in ("type", "detail", "code", "title"))))
            assert round_ >= 0

    assert len(bodies) == 1
    assert next(iter(bodies))[0] == 401
    slowest, quickest = max(map(median, took.values())), min(map(median, took.values()))
    assert slowest < 3 * quickest  # a hash is 38 ms; without one it would be some hundred times quicker


def test_a_session_ends_by_itself(kw: Keywright, clock: Clock) -> None:
    """After half an hour of silence, and after twelve hours whatever is done meanwhile."""
    token, _ = begin(kw, "owner")
    find = kw.installation.sessions.find
    clock.advance(seconds=IDLE - 1)
    assert find(token) is not None
    clock.advance(seconds=IDLE)
    assert find(token) is None

    token, _ = begin(kw, "admin")
    for _ in range(LONGEST // 1200 - 1):
        clock.advance(seconds=1200)
        assert find(token) is not None
    clock.advance(seconds=1200)
    assert find(token) is None


@pytest.mark.security("A-15")
def test_who_is_disabled_is_out_everywhere(kw: Keywright) -> None:
    """In every process, at the next request: sessions and the management keys they made; enabled, the keys work again."""
    installation = kw.installation
    token, session = begin(kw, "owner")
    begin(kw, "operator")
    with again(kw) as other, Door(server(kw)) as here, Door(server(other)) as there:
        made = here.json(
            "POST",
            "/v1/management-keys",
            {"name": "CI", "scopes": ["keys:read"]},
            as_person(kw, (token, session)),
        ).json
        key = {"Authorization": f"Bearer {made['credential']['token']}"}
        for door in (here, there):
            assert (
                door.get("/v1/keys", key).status
                == door.get("/v1/keys", as_person(kw, (token, session))).status
                == 200
            )

        installation.people.disable(session.person.id)

        for door in (here, there):
            assert door.get("/v1/keys", key).code == "disabled"
            assert door.get("/v1/keys", as_person(kw, (token, session))).code == "signed_out"
        installation.people.enable(session.person.id)
        for door in (here, there):
            assert door.get("/v1/keys", key).status == 200
            assert door.get("/v1/keys", as_person(kw, (token, session))).code == "signed_out"


def test_ones_own_sessions_are_listed_and_ended(door: Door, kw: Keywright) -> None:
    """A person sees their sessions, no secret of one, ends another, and cannot end somebody else's."""
    begin(kw, "owner", email="ana@globex.example")
    stranger = begin(kw, "owner", "initech")[1].id
    first, second = (cookie(sign_in(door, "ana@globex.example")) for _ in range(2))

    listed = door.get("/v1/session/list", first).json["items"]
    other = door.get("/v1/session", second).json["session"]["id"]
    assert [len(listed), sum(one["current"] for one in listed)] == [3, 1]
    assert other in [one["id"] for one in listed if not one["current"]]
    assert door.send("DELETE", f"/v1/session/{stranger}", first).status == 404
    assert door.send("DELETE", f"/v1/session/{other}", first).status == 204
    assert door.get("/v1/session", second).status == 401
    assert door.get("/v1/session", first).status == 200


@pytest.mark.security("A-04")
def test_another_password_ends_the_other_sessions(door: Door, kw: Keywright) -> None:
    """A new password needs the old one, gives the session another cookie, and ends every other; the old opens nothing."""
    begin(kw, "owner", email="ana@globex.example")
    first, second = (cookie(sign_in(door, "ana@globex.example")) for _ in range(2))
    change = {"current": PASSWORD, "password": "gravel besides four words"}

    assert (
        door.json("POST", "/v1/session/password", change | {"current": WRONG}, first).code == "sign_in_failed"
    )
    assert door.json("POST", "/v1/session/password", change | {"password": "short"}, first).status == 422
    changed = door.json("POST", "/v1/session/password", change, first)

    assert changed.status == 200
    assert [door.get("/v1/session", one).status for one in (first, second, cookie(changed))] == [
        401,
        401,
        200,
    ]
    assert sign_in(door, "ana@globex.example").status == 401
    assert sign_in(door, "ana@globex.example", change["password"]).status == 201


def test_a_dangerous_act_wants_the_password_again(door: Door, kw: Keywright, clock: Clock) -> None:
    """Five minutes after the password was given, making a management key or a member wants it again; reading does not."""
    begin(kw, "owner", email="ana@globex.example")
    headers = cookie(sign_in(door, "ana@globex.example"))
    clock.advance(seconds=301)
    new = {"name": "CI", "scopes": ["keys:read"]}

    refused = door.json("POST", "/v1/management-keys", new, headers)
    member = {"email": "bob@globex.example", "role": "analyst"}
    assert (refused.status, refused.code) == (403, "password_needed")
    assert door.json("POST", "/v1/people", member, headers).code == "password_needed"
    assert door.get("/v1/management-keys", headers).status == 200
    assert door.json("POST", "/v1/session/prove", {"password": WRONG}, headers).status == 401
    proven = door.json("POST", "/v1/session/prove", {"password": PASSWORD}, headers)

    assert door.json("POST", "/v1/management-keys", new, cookie(proven)).status == 201
    assert door.get("/v1/session", headers).status == 401  # the old cookie


# ----------------------------------------------------------------------------------------------------------- other sites


@pytest.mark.requirement("X-16")
@pytest.mark.security("A-05", "T-50")
@pytest.mark.parametrize(
    "forged",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "", "Origin": "null"},
        {"Sec-Fetch-Site": "", "Origin": "http://sub.127.0.0.1:8700"},
        {"Sec-Fetch-Site": "", "Origin": "http://127.0.0.1:8700.evil.example"},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 64},
        {"X-CSRF-Token": "0" * 64, "Sec-Fetch-Site": ""},
    ],
    ids=str,
)
def test_another_site_changes_nothing(door: Door, kw: Keywright, key: Issued, forged: dict[str, str]) -> None:
    """With the cookie that a browser adds, but from a page that is not ours, every kind of change is refused."""
    headers = as_person(kw, begin(kw, "owner")) | forged
    headers = {name: value for name, value in headers.items() if value}
    before = kw.keys.get(key.key.id)

    for method, path in (("POST", "disable"), ("DELETE", ""), ("PATCH", "")):
        target = f"/v1/keys/{key.key.id}/{path}".rstrip("/")
        reply = (
            door.json(method, target, {"name": "x"}, headers)
            if method == "PATCH"
            else door.send(method, target, headers)
        )
        assert (reply.status, reply.code) == (403, "cross_site")

    assert kw.keys.get(key.key.id) == before


@pytest.mark.security("A-05")
def test_a_form_or_plain_text_changes_nothing(door: Door, kw: Keywright, key: Issued) -> None:
    """What a form of another site can send without asking, urlencoded, multipart or text, is no JSON: 415."""
    headers = as_person(kw, begin(kw, "owner"))
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"):
        body = b'{"name": "x", "keyspace": "every", "environment": "production"}'
        assert door.send("POST", "/v1/keys", headers | {"Content-Type": kind}, body).status == 415


@pytest.mark.security("A-05", "T-50")
def test_another_site_signs_nobody_in(door: Door, kw: Keywright) -> None:
    """A page of another site cannot sign its reader in as somebody else."""
    begin(kw, "owner", email="ana@globex.example")
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        reply = door.json(
            "POST", "/v1/session", {"email": "ana@globex.example", "password": PASSWORD}, headers
        )
        assert (reply.status, reply.get("set-cookie")) == (403, None)


@pytest.mark.requirement("X-16")
def test_a_key_never_depends_on_cookies(door: Door, kw: Keywright, key: Issued) -> None:
    """With a key a cookie changes nothing: a stray one, a session's, or a stranger's; and a cookie alone is no key."""
    token, session = begin(kw, "owner")
    here = "/k/every.production/whoami"
    plain = door.get(here, bearer(key)).json

    for value in ("a=b", f"keywright-session={token}", "keywright-session=\x7f", ";;;=", 'x="'):
        assert door.get(here, bearer(key) | {"Cookie": value}).json == plain
    assert door.get(here, {"Cookie": f"keywright-session={token}"}).code == "missing"
    assert door.get("/v1/keys", bearer(key) | {"Cookie": f"keywright-session={token}"}).code == "invalid"
    assert session.person.state == "active"


# ----------------------------------------------------------------------------------------------------------- guessing


def test_guessing_takes_longer_and_longer(kw: Keywright, clock: Clock) -> None:
    """From the fifth failure on a second, two, four …, a quarter of an hour; a right password then forgives all."""
    begin(kw, "owner", email="ana@globex.example")
    enter = kw.installation.sessions.sign_in
    waits = []
    for _ in range(9):
        with pytest.raises((SignInFailed, Throttled)) as refused:
            enter("ana@globex.example", WRONG)
        if isinstance(refused.value, Throttled):
            waits.append(refused.value.retry_after)
            with pytest.raises(Throttled):
                enter("ana@globex.example", PASSWORD)  # it is not looked at
            clock.advance(seconds=refused.value.retry_after)

    assert waits == [1, 2]
    for email in ("nobody@globex.example",):
        for _ in range(5):
            with pytest.raises(SignInFailed):
                enter(email, WRONG)
        with pytest.raises(Throttled):
            enter(email, WRONG)
    clock.advance(seconds=900)
    assert enter("ana@globex.example", PASSWORD)
    for _ in range(4):
        with pytest.raises(SignInFailed):
            enter("ana@globex.example", WRONG)
    assert enter("ana@globex.example", PASSWORD)


def test_after_a_hundred_failures_only_a_reset_helps(kw: Keywright, clock: Clock) -> None:
    """A hundred in a row shut even the right password out; the link of a reset lets its person in again."""
    person = begin(kw, "owner", email="ana@globex.example")[1].person
    installation = kw.installation
    subject = installation.sessions._subject("mail ana@globex.example")
    from keywright.store import sessions

    with installation.database.write("usage") as tx:
        sessions.fail(tx, subject, sessions.Failures(MOST_FAILURES, clock(), clock()))
    clock.advance(seconds=86_400)
    with pytest.raises(Throttled):
        installation.sessions.sign_in("ana@globex.example", PASSWORD)

    invited = installation.people.reset(person.id)
    installation.sessions.follow(invited.token, "gravel besides four words")

    assert installation.sessions.sign_in("ana@globex.example", "gravel besides four words")


@pytest.mark.security("T-36")
def test_one_address_tries_thirty_times_a_minute(kw: Keywright, clock: Clock) -> None:
    """Whomever it tries: then it waits out its minute. An IPv6 subscriber is one, whatever the last half of the address."""
    enter = kw.installation.sessions.sign_in
    for number in range(PER_MINUTE):
        with pytest.raises(SignInFailed):
            enter(f"nobody{number}@example.com", "x", source=f"2001:db8:0:1::{number:x}")

    with pytest.raises(Throttled) as refused:
        enter("nobody@example.com", "x", source="2001:0DB8::1:ffff:0:0:1")

    assert refused.value.retry_after <= 60
    with pytest.raises(SignInFailed):
        enter("nobody@example.com", "x", source="2001:db8:0:2::1")
    clock.advance(seconds=60)
    with pytest.raises(SignInFailed):
        enter("nobody@example.com", "x", source="2001:db8:0:1::1")


def test_a_failure_writes_nothing_where_the_keys_are(kw: Keywright) -> None:
    """What strangers try is counted in the usage file, under a digest that tells nobody's address."""

    def trail() -> int:
        return kw.installation.trail.head().seq

    before = trail()
    with pytest.raises(SignInFailed):
        kw.installation.sessions.sign_in("ana@globex.example", WRONG, source="203.0.113.9")

    assert trail() == before
    with kw.installation.database.read("usage") as connection:
        rows = connection.exec_driver_sql("SELECT subject, failed FROM failed_sign_ins").all()
    assert sorted(len(row[0]) for row in rows) == [64, 64]


# -------------------------------------------------------------------------------------------------------- one-time links


def test_a_link_works_once_and_not_for_long(kw: Keywright, clock: Clock) -> None:
    """Used, ended, replaced by a newer one, or never made: all the same to whoever follows it."""
    people, follow = kw.installation.people, kw.installation.sessions.follow
    first = people.invite("ana@globex.example", account="globex", role="owner").token
    second = people.invite("ana@globex.example", account="globex", role="admin").token

    with pytest.raises(NotFound):
        follow(first, PASSWORD)
    assert follow(second, PASSWORD).session.person.memberships[0].role == "admin"
    with pytest.raises(NotFound):
        follow(second, PASSWORD)
    third = people.invite("bob@globex.example", account="globex", role="owner").token
    clock.advance(seconds=LIFE_OF_LINK["invitation"])
    for token in (third, "", "x" * 5000, "é"):
        with pytest.raises(NotFound):
            follow(token, PASSWORD)


def test_an_invitation_elsewhere_wants_ones_own_password(kw: Keywright) -> None:
    """Somebody who has a password takes another place with it; whoever stole the link and not the password, does not."""
    begin(kw, "owner", email="ana@globex.example")
    token = kw.installation.people.invite("ana@globex.example", account="initech", role="analyst").token
    with pytest.raises(SignInFailed):
        kw.installation.sessions.follow(token, WRONG)

    person = kw.installation.sessions.follow(token, PASSWORD).session.person

    assert {held.account: held.role for held in person.memberships} == {
        "globex": "owner",
        "initech": "analyst",
    }


def test_who_has_several_accounts_says_which(door: Door, kw: Keywright) -> None:
    """With a place in two accounts, a call names the one it is for, and has the rights of that place."""
    begin(kw, "owner", email="ana@globex.example")
    token = kw.installation.people.invite("ana@globex.example", account="initech", role="analyst").token
    begun = kw.installation.sessions.follow(token, PASSWORD)
    make(kw)

    def asks(account: str | None) -> int:
        return door.get("/v1/people", as_person(kw, (begun.token, begun.session), account)).status

    assert [asks(None), asks("globex"), asks("initech"), asks("hooli")] == [422, 200, 403, 404]


@pytest.mark.security("A-02")
def test_one_of_many_sets_an_installation_up(kw: Keywright) -> None:
    """Fifty follow the set-up link at once: one becomes the operator, and then there is no such link."""
    invited = kw.installation.sessions.set_up()
    assert invited is not None
    outcomes: list[str] = []
    barrier = threading.Barrier(50)

    def follow(number: int) -> None:
        barrier.wait()
        try:
            kw.installation.sessions.follow(invited.token, PASSWORD, email=f"op{number}@example.com")
            outcomes.append("in")
        except (NotFound, Unavailable, Conflict) as refused:
            outcomes.append(type(refused).__name__)

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes.count("in") == 1
    assert len(kw.installation.people.list(operators=True).items) == 1
    assert kw.installation.sessions.set_up() is None
    with pytest.raises(NotFound):
        kw.installation.sessions.follow(invited.token, PASSWORD, email="late@example.com")


@pytest.mark.security("A-01", "T-66")
def test_an_installation_begins_with_nobody(door: Door, kw: Keywright) -> None:
    """No address and no password opens a new one, and nothing tells a stranger whether it has been set up."""
    for email in ("admin", "admin@example.com", "root@localhost", "admin@localhost"):
        for password in ("", "admin", "password", "keywright", "changeme", "admin123456789"):
            assert sign_in(door, email, password).status in (401, 429)
    before = door.json("POST", "/v1/session/link", {"token": "x"})
    kw.installation.sessions.set_up()
    after = door.json("POST", "/v1/session/link", {"token": "x"})

    assert (before.status, before.json["detail"]) == (after.status, after.json["detail"])


# -------------------------------------------------------------------------------------------------- the table of routes


#: How each route of a person's own is used, and with what it is refused.
ROUTES: dict[str, tuple[dict[str, str] | None, int]] = {
    "POST /v1/session": ({"email": "owner@globex.example", "password": PASSWORD}, 201),
    "POST /v1/session/link": ({"token": "x"}, 404),
    "POST /v1/session/follow": ({"token": "x", "password": PASSWORD}, 404),
    "GET /v1/session": (None, 200),
    "DELETE /v1/session": (None, 204),
    "GET /v1/session/list": (None, 200),
    "DELETE /v1/session/{session_id}": (None, 404),
    "GET /v1/session/factor": (None, 200),
    "POST /v1/session/factor": (None, 201),
    "POST /v1/session/factor/confirm": ({"code": "000000"}, 409),
    "POST /v1/session/factor/codes": (None, 409),
    "DELETE /v1/session/factor": (None, 409),
    "POST /v1/session/prove": ({"password": PASSWORD}, 200),
    "POST /v1/session/password": ({"current": PASSWORD, "password": "gravel besides four words"}, 200),
}


def test_every_session_route_has_an_entry(kw: Keywright) -> None:
    """The table covers exactly the description's routes on sessions."""
    from keywright.server.api import build

    paths = build(kw.installation, configured()).openapi()["paths"]
    found = {
        f"{method.upper()} {path}"
        for path, item in paths.items()
        if path.startswith("/v1/session")
        for method in item
    }

    assert found == set(ROUTES)
    assert not set(documented(kw)) & found


@pytest.mark.security("H-08")
@pytest.mark.parametrize("name", ROUTES)
def test_each_session_route(door: Door, kw: Keywright, name: str) -> None:
    """It works for a person, is 401 for nobody and for a key, and refuses what it does not know."""
    headers = as_person(kw, begin(kw, "owner"))
    method, _, path = name.partition(" ")
    path = path.format(session_id="0123456789abcdef")
    body, status = ROUTES[name]

    def asks(given: dict[str, str], more: dict[str, str] | None = None) -> Reply:
        if body is None:
            return door.send(method, path, given)
        return door.json(method, path, body | (more or {}), given)

    if body is not None:
        assert asks(headers, {"surprise": "x"}).status == 422
    anybody = name in ("POST /v1/session", "POST /v1/session/link", "POST /v1/session/follow")
    if not anybody:
        for given in ({}, bearer(make(kw)), {"Cookie": "keywright-session=x", "X-CSRF-Token": "x"}):
            assert asks(given).status == 401
    reply = asks(headers)
    assert (reply.status, reply.get("cache-control")) == (status, "no-store")
