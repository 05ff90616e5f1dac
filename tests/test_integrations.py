"""Inside hosts of every framework: what may not proceed reaches no handler, and is told the verdict's answer, verbatim."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from conftest import bearer, make
from hosts import HOSTS, IN, PEER, Ran, Send, Watched
from keywright import Issued, Keywright
from surfaces import Reply, manager, served, server

Headers = list[tuple[str, str]]


class Host(NamedTuple):
    """A framework's host over an installation."""

    kw: Keywright
    watched: Watched
    ran: Ran
    send: Send

    def get(self, target: str, headers: Headers) -> Reply:
        """Send a GET."""
        return self.send("GET", target, headers)


@pytest.fixture(params=HOSTS)
def framework(request: pytest.FixtureRequest) -> str:
    """Each of them."""
    return str(request.param)


@pytest.fixture
def host(framework: str, kw: Keywright) -> Iterator[Host]:
    """The host in a framework."""
    watched, ran = Watched(kw), []
    with HOSTS[framework](watched, ran) as send:
        yield Host(kw, watched, ran, send)


def sent(issued: Issued) -> Headers:
    """A key by the bearer scheme."""
    return list(bearer(issued).items())


def verbatim(host: Host, reply: Reply) -> bool:
    """Whether a reply is what the last verdict says, to the byte."""
    status, headers, body = host.kw.answer(host.watched.verdicts[-1])
    told = all(reply.all(name) == [value] for name, value in headers)
    return told and (reply.status, reply.body) == (status, body)


# ------------------------------------------------------------------------------------------------------- the refused


Prepare = Callable[[Keywright], tuple[str, Headers]]


def of(
    target: str, act: Callable[[Keywright, Issued], object] = lambda _kw, _made: None, **over: object
) -> Prepare:
    """A request with a key that is made so, after something has become of it."""

    def prepare(kw: Keywright) -> tuple[str, Headers]:
        made = make(kw, **over)
        act(kw, made)
        return target.format(made.credential.token.reveal()), sent(made)

    return prepare


def _forged(kw: Keywright) -> tuple[str, Headers]:
    given = make(kw).credential.token.reveal()
    return "/things", [("Authorization", f"Bearer {given[:-8]}{given[-8:][::-1]}")]


def _two(kw: Keywright) -> tuple[str, Headers]:
    return "/things", [*sent(make(kw)), ("Api-Key", make(kw).credential.token.reveal())]


def _doubled(kw: Keywright) -> tuple[str, Headers]:
    return "/things", [*sent(made := make(kw)), *sent(made)]


REFUSED: dict[str, tuple[Prepare, int, str]] = {
    "no key": (lambda _: ("/things", []), 401, "missing"),
    "no key, to a stream": (lambda _: ("/stream", []), 401, "missing"),
    "a key that is not": (_forged, 401, "invalid"),
    "without the scope": (
        of("/things", access="restricted", scopes=["things:write"]),
        403,
        "insufficient_scope",
    ),
    "restricted, where no scope is named": (
        of("/plain", access="restricted", scopes=["things:read"]),
        403,
        "insufficient_scope",
    ),
    "two credentials": (_two, 401, "ambiguous"),
    "a header twice": (_doubled, 401, "ambiguous"),
    "a key in the address beside it": (of("/things?q={}"), 401, "ambiguous"),
    "a key in the address": (lambda kw: (of("/things?api_key={}")(kw)[0], []), 401, "ambiguous"),
    "an account that is suspended": (
        of("/things", lambda kw, _: kw.accounts.suspend("globex")),
        403,
        "account_suspended",
    ),
    "a key that has ended": (
        of("/things", lambda kw, made: kw.keys.invalidate(made.key.id)),
        401,
        "invalidated",
    ),
    "a key of another environment": (of("/things", environment="staging"), 401, "wrong_environment"),
    "from another network": (of("/things", allowed_ips=["198.51.100.0/24"]), 403, "ip_not_allowed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_not_proceed_reaches_no_handler(host: Host, case: str) -> None:
    """It is answered with the verdict's status, headers and body, and nothing of the host has run."""
    prepare, status, code = REFUSED[case]

    reply = host.get(*prepare(host.kw))

    assert (reply.status, reply.code) == (status, code)
    assert verbatim(host, reply)
    assert host.ran == []


METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "QUERY")
PREFLIGHT = [("Origin", "https://app.example.com"), ("Access-Control-Request-Method", "GET")]


@pytest.mark.security("T-64")
def test_no_method_gets_by(host: Host) -> None:
    """Whatever the method, a preflight too, a request without a key runs no handler, and is not answered with success."""
    for method in METHODS:
        for target in ("/things", "/plain", "/stream", "/things/", "//things"):
            reply = host.send(method, target, PREFLIGHT if method == "OPTIONS" else [])
            assert reply.status >= 300, (method, target, reply)

    assert host.ran == []


@pytest.mark.security("T-08")
def test_no_host_header_opens_a_route(host: Host) -> None:
    """What a request names as its host changes nothing about which path is guarded."""
    for name in ("x/open", "x/open?", "x#/open", "x@open", "x:0/open", "open", "\\open", "x\t/open"):
        assert host.get("/things", [("Host", name)]).status in (400, 401)

    assert host.ran == []


# ------------------------------------------------------------------------------------------------------- the let in


@pytest.mark.requirement("X-22")
@pytest.mark.parametrize("path", ["/things", "/plain", "/stream"])
def test_a_key_that_may_proceeds(host: Host, path: str) -> None:
    """The handler knows whose key it is, the answer says what is left of its limits, and it is asked about once."""
    made = make(host.kw, limits=["5/day"])

    reply = host.get(path, sent(made))

    assert reply.status == 200
    assert reply.json == {
        "account": "globex",
        "key": made.key.id,
        "environment": "production",
        "access": "all",
    }
    assert host.ran == [path]
    assert len(host.watched.verdicts) == 1
    assert host.watched.verdicts[0].limits[0].remaining == 4


def test_a_success_says_its_limits(host: Host, framework: str) -> None:
    """``RateLimit`` stands on what handlers answer, streams too; and by default nobody stores what a key has opened."""
    if framework == "starlette backend":
        return  # Starlette's own middleware has no place for them
    made = make(host.kw, limits=["5/day"])

    for path in ("/things", "/stream"):
        reply = host.get(path, sent(made))
        told = host.kw.answer(host.watched.verdicts[-1]).headers
        assert [reply.all(name) for name, _ in told] == [[value] for _, value in told]
    assert '"quota-day";r=3' in str(reply.get("RateLimit"))


def test_a_quota_that_is_used_up(host: Host) -> None:
    """The request after the last is a 429 that says when to come back, and is not charged for."""
    made = make(host.kw, limits=["1/day"])

    first, second = (host.get("/things", sent(made)) for _ in range(2))

    assert (first.status, second.status) == (200, 429)
    assert int(second.get("Retry-After") or 0) > 0
    assert verbatim(host, second)
    assert host.ran == ["/things"]


def test_what_is_exempt_is_open(host: Host) -> None:
    """A route that is named as exempt runs for everybody, and nobody is asked about."""
    assert host.get("/open", []).status == 200
    assert host.get("/open", [("Authorization", "Bearer nonsense")]).status == 200
    assert host.watched.verdicts == []


#: Where a route is not spelled as it is here.
RESOURCES = {"asgi": "", "wsgi": "", "django": "things", "django async": "things", "drf": "things"}
CARRIERS: dict[str, Callable[[str, str, str], Headers]] = {
    "bearer": lambda token, *_: [("Authorization", f"Bearer {token}")],
    "api_key_auth": lambda token, *_: [("Authorization", f"Api-Key {token}")],
    "api_key": lambda token, *_: [("Api-Key", token)],
    "header": lambda token, *_: [("X-Token", token)],
    "key_user": lambda token, *_: [("X-API-KEY", token), ("x-api-user", "globex")],
    "key_secret": lambda _, key_id, secret: [("X-API-KEY", key_id), ("X-API-SECRET", secret)],
    "camel_pair": lambda _, key_id, secret: [("apiKey", key_id), ("apiSecret", secret)],
}


@pytest.mark.security("T-05")
def test_scopes_are_asked_whatever_carries_the_key(host: Host) -> None:
    """Through every carrier a key opens what it holds the scope for, and nothing else."""
    for scope, status in (("things:read", 200), ("things:write", 403)):
        made = make(host.kw, access="restricted", scopes=[scope])
        secret = made.credential.secret
        assert secret is not None
        for carrier in CARRIERS.values():
            headers = carrier(made.credential.token.reveal(), made.key.id, secret.reveal())
            assert host.get("/things", headers).status == status

    assert host.ran == ["/things"] * len(CARRIERS)


def test_read_only_reads(host: Host) -> None:
    """Where no scope is named, the method decides for a key that only reads."""
    made = make(host.kw, access="read_only")

    assert host.get("/plain", sent(made)).status == 200
    refused = host.send("POST", "/plain", sent(made))
    assert (refused.status, refused.code) == (403, "insufficient_scope")
    assert host.ran == ["/plain"]


def test_whose_address_it_is(host: Host, framework: str) -> None:
    """The address of the connection is what allowed networks are held against."""
    peer = "127.0.0.1" if framework == "aiohttp" else PEER

    assert host.get("/things", sent(make(host.kw, allowed_ips=[f"{peer}/32"]))).status == 200


def test_resources_are_counted_by_route(host: Host, framework: str) -> None:
    """What a request is counted under is the template of its route, where the framework knows it before its handler."""
    host.get("/things", sent(make(host.kw)))

    rows = host.kw.installation.usage.report(group="resource").rows
    assert [row.value or "" for row in rows] == [RESOURCES.get(framework, "/things")]


def test_event_loops_are_not_held_up(host: Host, framework: str) -> None:
    """What runs in an event loop awaits the verdict; what has a thread of its own asks in it."""
    host.get("/things", sent(make(host.kw)))

    assert host.watched.colours == {"sync" if framework in ("wsgi", "flask", "django", "drf") else "async"}


# ------------------------------------------------------------------------------------------------------- on a server


@pytest.mark.security("T-63")
def test_a_server_is_asked_as_well(framework: str, kw: Keywright) -> None:
    """Over ``Keywright.connect`` the answers are the same; and where the server is gone, nothing is let in."""
    made, lacking = make(kw, limits=["5/day"]), make(kw, access="restricted", scopes=["things:write"])
    token = manager(kw)["Authorization"].removeprefix("Bearer ")
    ran: Ran = []
    with served(server(kw)) as port:
        client = Keywright.connect(f"http://127.0.0.1:{port}", key=token, **IN)
        opening = HOSTS[framework](client, ran)
        send = opening.__enter__()
        assert send("GET", "/things", sent(made)).json["account"] == "globex"
        refused = send("GET", "/things", sent(lacking))
        assert (refused.status, refused.code) == (403, "insufficient_scope")
        assert send("GET", "/things", []).code == "missing"
    gone = send("GET", "/things", sent(made))
    opening.__exit__(None, None, None)
    client.close()

    assert (gone.status, gone.code) == (503, "unavailable")
    assert ran == ["/things"]
