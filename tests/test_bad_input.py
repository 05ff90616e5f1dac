"""Bad input, byte for byte over a real socket and by the thousand in process: never a 5xx, a way in, or a traceback."""

import json
import random
import re
import socket
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from conftest import make
from keywright import Issued, Keywright
from keywright.testing import copied
from surfaces import Door, exchange, host, manager, records, request, served, server, statuses, token


class Ports(NamedTuple):
    """Two servers that run, and what opens them."""

    kw: Keywright
    port: int
    host: int
    key: Issued
    caller: dict[str, str]

    def ask(self, raw: bytes, *, port: int | None = None, half_close: bool = False) -> list[int]:
        """The statuses of the answers to some bytes. None is a 5xx, and the server still serves afterwards."""
        found = statuses(exchange(port or self.port, raw, half_close=half_close))
        assert all(status < 500 for status in found), found
        assert statuses(exchange(self.port, request("GET", "/livez"))) == [200]
        return found


@pytest.fixture(scope="module")
def ports(template: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """The server and a host over one installation; at the end their logs hold no traceback."""
    with copied(template, tmp_path_factory.mktemp("sockets")) as kw:
        key, caller = make(kw), manager(kw)
        app = host(kw, {("GET", "/things"): ("every", ("things:read",))})
        # The server closes its installation when it stops; the host closes nothing.
        again = Keywright(kw.installation.database.url, clock=kw.installation.clock)
        with records() as said, served(server(again)) as port, served(app) as second:
            yield Ports(kw, port, second, key, caller)
        assert [record for record in said if record.exc_info or record.levelname == "ERROR"] == []


def whoami(*headers: tuple[str | bytes, str | bytes], target: str = "/k/every.production/whoami") -> bytes:
    """The bytes of a question that a right key answers with 200."""
    return request("GET", target, list(headers))


def test_a_right_key_passes(ports: Ports) -> None:
    """The sockets of this module do let a right key in, by every server."""
    assert ports.ask(whoami(("X-Token", token(ports.key)))) == [200]
    assert ports.ask(request("GET", "/things", {"X-Token": token(ports.key)}), port=ports.host) == [200]
    assert ports.ask(request("GET", "/v1/keys", ports.caller)) == [200]


VALUES = [
    b"", b" ", b"\t", b",", b'""', b"Bearer", b"Bearer ", b"Bearer  x", b"Basic", b"Basic =", b"Basic OnM=", b"Basic " + b"A" * 5000,
    b"\xff\xfe", b"\xc3\xa9" * 20, "ｅvery_live".encode(), b"a" * 511, b"a" * 513, b"a" * 60_000, b"\x80",
    b"{}", b"%00", b"' OR 1=1 --", b"../../etc/passwd", b"${jndi:ldap://x}", b"every_live_k", b"n58lzybi.", b".", b"_" * 60,
]  # fmt: skip


@pytest.mark.requirement("X-05")
@pytest.mark.security("T-11", "T-14")
@pytest.mark.parametrize(
    "name",
    [
        b"X-Token",
        b"Authorization",
        b"X-API-KEY",
        b"X-API-SECRET",
        b"x-api-user",
        b"apiKey",
        b"apiSecret",
        b"Api-Key",
    ],
)
def test_odd_values_are_401(ports: Ports, name: bytes) -> None:
    """Empty, endless, non-ASCII and clever values of every carrier are 401 at each kind of door."""
    for value in VALUES:
        for raw in (
            whoami((name, value)),
            request("GET", "/v1/keys", [(name, value)]),
            request(
                "GET",
                "/authz/forward/shop",
                [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/things/1"), (name, value)],
            ),
        ):
            assert statuses(exchange(ports.port, raw)) == [401], (name, value[:40])
        assert statuses(exchange(ports.host, request("GET", "/things", [(name, value)]))) == [401]
    assert ports.ask(whoami(("X-Token", token(ports.key)))) == [200]


@pytest.mark.requirement("X-05")
@pytest.mark.security("T-03", "T-06")
def test_doubled_headers_never_pass(ports: Ports) -> None:
    """A right key beside itself, beside rubbish, beside nothing, or under an underscore, in either order, is 401."""
    right = token(ports.key)
    for name, value in (("X-Token", right), ("Authorization", f"Bearer {right}")):
        for other in (value, "", "x", value[:-1]):
            for twin in (name, name.lower(), name.replace("-", "_")):
                for pair in ([(name, value), (twin, other)], [(twin, other), (name, value)]):
                    assert ports.ask(whoami(*pair)) == [401], pair


@pytest.mark.requirement("X-05")
@pytest.mark.security("T-12")
@pytest.mark.parametrize(
    "middle", [b"\0", b"\r", b"\n", b"\r\n", b"\r\n ", b"\n\n", b"\x0b", b"\x1b[31m", b"\x7f"]
)
def test_controls_in_a_credential_never_pass(ports: Ports, middle: bytes) -> None:
    """NUL, CR, LF and other controls inside or behind a right key are 400 from the parser or 401, never a pass."""
    right = token(ports.key).encode()
    for value in (right[:9] + middle + right[9:], right + middle + b"x", middle + right):
        found = ports.ask(whoami(("X-Token", value)), half_close=True)
        # A broken line may make two broken requests of one; a fold around a right key must not make it right.
        assert not any(status < 300 for status in found), (value, found)
    if middle.strip():
        assert not any(s < 300 for s in ports.ask(whoami(("X-Token", right + middle)), half_close=True))


@pytest.mark.security("T-10")
def test_too_many_headers_are_431(ports: Ports) -> None:
    """More than a hundred header fields are 431, with a right key too; a hundred pass."""
    right = [("X-Token", token(ports.key))]
    for many, status in ((150, 431), (1_000, 431), (95, 200)):
        assert ports.ask(whoami(*right, *[(f"X-{n}", "a") for n in range(many)])) == [status]


@pytest.mark.security("T-10")
def test_an_endless_head_is_cut(ports: Ports) -> None:
    """A head that is a megabyte long, or never ends, is refused and the connection closed."""
    right = ("X-Token", token(ports.key))
    for raw in (
        whoami(right, ("X-Big", "a" * (1 << 20))),
        whoami(right, ("X" * (1 << 20), "a")),
        whoami(right, target="/k/every.production/whoami?" + "a" * (1 << 20)),
        b"GET /livez HTTP/1.1\r\nX-Endless: " + b"a" * (1 << 20),
        b"GET /" + b"a" * (1 << 20),
        b"GET /livez HTTP/1.1\r\n" + b"X-A: b\r\n" * 200_000,
    ):
        assert [status for status in ports.ask(raw) if status not in (400, 431)] == []


def test_a_long_head_is_not_an_endless_one(ports: Ports) -> None:
    """Heads of some 60 KiB pass, one after another on one connection, also behind bodies."""
    right = [("X-Token", token(ports.key)), ("X-Big", "a" * 60_000)]
    asked = [("Content-Type", "application/json"), *ports.caller.items()]
    body = json.dumps({"keyspace": "every", "environment": "production", "token": token(ports.key)}).encode()
    one = request("GET", "/k/every.production/whoami", right, close=False)
    two = request("POST", "/v1/verify", asked, body + b" " * 60_000, close=False)

    assert ports.ask((one + two) * 4 + whoami(*right)) == [200] * 9


SMUGGLED = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
#: Requests that some server somewhere reads differently than another: the head behind the first line and ``Host``, the body.
DOUBTFUL = [
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    (b"Content-Length: 0\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    (b"Content-Length: 5\r\nContent-Length: 6", b"0\r\n\r\n"),
    (b"Content-Length: 5\r\nContent-Length: 5", b"0\r\n\r\n"),
    (b"Content-Length: 5, 5", b"0\r\n\r\n"), (b"Content-Length: 5, 6", b"0\r\n\r\n"),
    (b"Content-Length: -5", b""), (b"Content-Length: +5", b"0\r\n\r\n"), (b"Content-Length: 0x5", b"0\r\n\r\n"),
    (b"Content-Length: 5 5", b"0\r\n\r\n"), (b"Content-Length: ", b""), (b"Content-Length: 99999999999999999999", b""),
    (b"Content-Length : 5", b"0\r\n\r\n"), (b"Content-Length\x0b: 5", b"0\r\n\r\n"),
    (b"Transfer-Encoding: xchunked", b"0\r\n\r\n"), (b"Transfer-Encoding: identity", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n"), (b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    (b"Transfer-Encoding: xchunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"0\r\n\r\n"),
    (b"Transfer-Encoding : chunked", b"0\r\n\r\n"), (b"Transfer-Encoding: \x0bchunked", b"0\r\n\r\n"),
    (b'Transfer-Encoding: "chunked"', b"0\r\n\r\n"), (b"Transfer-Encoding: chunked\r\n folded", b"0\r\n\r\n"),
    (b"X-A: b\r\n Transfer-Encoding: chunked", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"0x0\r\n\r\n"), (b"Transfer-Encoding: chunked", b"-1\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"ffffffffffffffffff\r\n\r\n"), (b"Transfer-Encoding: chunked", b"5\nabcde\n0\n\n"),
    (b"Transfer-Encoding: chunked", b"0;x\n"), (b"Transfer-Encoding: chunked", b"5\r\nabcdef\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"0\r\nContent-Length: 5\r\n\r\n"), (b"Transfer-Encoding: chunked", b"5 \r\nabcde\r\n0\r\n\r\n"),
    (b"X-A: b\n\nGET /livez HTTP/1.1", b""), (b"X-A: b\nX-C: d", b""), (b"X-A: b\rX-C: d", b""), (b"X-A: b\r\r\nX-C: d", b""),
    (b"X-A: b\r\n folded: yes", b""), (b"X-A: b\r\n\tfolded: yes", b""), (b"X-A\x00: b", b""), (b"X-A: b\x00", b""),
    (b": b", b""), (b"X A: b", b""), (b"Host: localhost", b""), (b"Host: other", b""), (b"hOST: other", b""),
]  # fmt: skip


@pytest.mark.security("T-07")
@pytest.mark.parametrize(("head", "body"), DOUBTFUL)
def test_smuggling_is_refused(ports: Ports, head: bytes, body: bytes) -> None:
    """What two servers could read differently is one 400, and what stands behind it is no second request."""
    first = b"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    first += f"Authorization: {ports.caller['Authorization']}\r\n".encode()
    found = ports.ask(first + head + b"\r\n\r\n" + body + SMUGGLED, half_close=True)
    assert found == [400]
    last = first + b"X-B: c\r\n" + head + b"\r\nX-D: e\r\n\r\n" + body + SMUGGLED
    assert ports.ask(last, half_close=True) == [400]


@pytest.mark.security("T-07")
def test_what_is_plain_has_one_answer_each(ports: Ports) -> None:
    """Of requests with a length, with chunks and without a body, in one go, each has its own answer, in order."""
    asked = json.dumps({"keyspace": "every", "environment": "production", "token": token(ports.key)}).encode()
    head = [("Content-Type", "application/json"), *ports.caller.items()]
    chunked = request("POST", "/v1/verify", [*head, ("Transfer-Encoding", "chunked")], close=False)
    chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(asked), asked)
    plain = request("POST", "/v1/verify", head, asked, close=False)
    nothing = request("GET", "/v1/nothing", ports.caller, close=False)

    assert ports.ask(plain + nothing + chunked + nothing + chunked + SMUGGLED) == [
        200,
        404,
        200,
        404,
        200,
        200,
    ]


@pytest.mark.security("T-07", "T-08")
@pytest.mark.parametrize(
    "hosts",
    [
        [], [b"a", b"a"], [b"a", b"b"], [b""], [b"a/b"], [b"a/"], [b"a?b"], [b"a#b"], [b"u@a"], [b"u:p@a"], [b"a\\b"], [b"a\tb"],
        [b"a b"], [b"a,b"], [b"a, a"], [b"http://a"], [b"//a"], [b"[::1"], [b"::1"], [b"[::1]x"], [b"a:x"], [b"a:999999"], [b"a:-1"],
        [b"a%2fb"], [b"\xff"], [b"\xc3\xa9.example"], [b"a;b"], [b"a:80:80"], [b"a" * 300],
    ],
)  # fmt: skip
def test_a_host_that_is_none_never_authorises(ports: Ports, hosts: list[bytes]) -> None:
    """With no ``Host``, two, or one that is no name with a port, a right key is one 400 at every door."""
    for path, key in (
        (b"/v1/keys", ports.caller["Authorization"]),
        (b"/k/every.production/whoami", f"Bearer {token(ports.key)}"),
    ):
        lines = [
            b"GET " + path + b" HTTP/1.1",
            *(b"Host: " + host for host in hosts),
            b"Authorization: " + key.encode(),
        ]
        assert ports.ask(b"\r\n".join([*lines, b"", b""]) + SMUGGLED) == [400]


@pytest.mark.security("T-08")
@pytest.mark.parametrize(
    "host",
    [
        b"a",
        b"a:80",
        b"A.b_c-d.example:8700",
        b"127.0.0.1",
        b"[::1]:8700",
        b"xn--e1aybc.example",
        b"a.",
        b"a:",
    ],
)
def test_any_host_that_is_one_will_do(ports: Ports, host: bytes) -> None:
    """Nothing is decided by the name that a proxy or a container calls the server by, and no answer repeats it."""
    raw = b"GET /k/every.production/whoami HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\nX-Token: "
    answer = exchange(ports.port, raw + token(ports.key).encode() + b"\r\n\r\n")
    assert statuses(answer) == [200]
    assert b"example" not in answer
    assert ports.ask(b"GET /livez HTTP/1.0\r\n\r\n") == [200]


@pytest.mark.security("T-08")
@pytest.mark.parametrize(
    "line",
    [
        b"Host: localhost/v1/keys?x#y@z\\w", b"Host: \ta\tb", b"Host: [::1", b"Host: a:99999", b"Host: \xff\xfe", b"Host:",
        b"Host: a\r\nHost: b", b"Host: localhost:8700/k/every.production/whoami", b"Host: user:pass@host", b"X-No-Host: 1",
        b"Host: localhost\r\nX-Forwarded-Host: evil\r\nForwarded: host=evil;proto=https\r\nX-Original-URL: /livez",
        b"Host: localhost\r\nX-HTTP-Method-Override: GET\r\nX-Rewrite-URL: /livez",
    ],
)  # fmt: skip
def test_an_odd_host_opens_nothing(ports: Ports, line: bytes) -> None:
    """Whatever stands in Host and its like, a protected address stays shut, and no answer repeats it."""
    for path in (b"/v1/keys", b"/v1/keys/", b"/k/every.production/whoami", b"/v1/keys/x/"):
        raw = b"GET " + path + b" HTTP/1.1\r\n" + line + b"\r\nConnection: close\r\n\r\n"
        answer = exchange(ports.port, raw)

        assert statuses(answer)[0] in (400, 401)
        assert b"evil" not in answer
        assert b"ocation:" not in answer
    assert ports.ask(request("GET", "/livez")) == [200]


@pytest.mark.parametrize(
    "target",
    [
        "{path}?X-Token={token}",
        "{path}?token={token}",
        "{path}?X-API-KEY={id}&X-API-SECRET={secret}",
        "{path}?x_api_key={token}&x_api_user=globex",
        "{path}?Authorization=Bearer%20{token}",
        "{path}?a={token}",
        "{path}?{token}",
        "{path}?a=%7B%22x%22%3A%22{token}%22%7D",
        "{path}/{token}",
        "{path};key={token}",
        "/{token}{path}",
        "http://u:{token}@localhost{path}",
        "{path}#{token}",
    ],
)
def test_a_credential_in_the_address_opens_nothing(ports: Ports, target: str) -> None:
    """In none of the places of an address does a right credential count, and none is repeated in the answer."""
    held = ports.key.credential
    assert held.secret is not None
    filled = {"id": held.id, "token": token(ports.key), "secret": held.secret.reveal()}
    for port, path in (
        (ports.port, "/k/every.production/whoami"),
        (ports.port, "/v1/keys"),
        (ports.host, "/things"),
    ):
        if port == ports.host and "?" not in target:
            continue  # the host knows one path
        answer = exchange(port, request("GET", target.format(path=path, **filled)))

        assert statuses(answer)[0] in (400, 401, 404)
        assert filled["token"][-36:].encode() not in answer
    own = ports.caller["Authorization"].removeprefix("Bearer ")
    filled |= {"token": own}
    assert ports.ask(request("GET", target.format(path="/v1/keys", **filled)))[0] in (400, 401, 404)


@pytest.mark.requirement("F-04")
def test_a_credential_in_the_body_opens_nothing(ports: Ports) -> None:
    """A right credential as form fields, as JSON or as a cookie is not looked at."""
    right = token(ports.key)
    for media, body in (
        ("application/x-www-form-urlencoded", f"X-Token={right}&api_key={right}"),
        (
            "application/json",
            json.dumps({"X-Token": right, "token": right, "Authorization": f"Bearer {right}"}),
        ),
    ):
        headers = [("Content-Type", media), ("Cookie", f"X-Token={right}; Authorization=Bearer {right}")]
        for target in ("/v1/keys", "/v1/verify"):
            assert ports.ask(request("POST", target, headers, body.encode()))[0] in (401, 415)
        assert ports.ask(request("GET", "/things", headers, body.encode()), port=ports.host) == [401]


SPELLINGS = [
    "{}/", "/{}", "//{}", "/.{}", "/..{}", "/%2e{}", "/./{}", "{};", "{};x=y", "{}%20", "{}%00", "{}%2f", "{}.json",
    "{}?", "{}??", "{}#", "/x/..{}", "/livez/..{}", "/livez/%2e%2e{}", "/openapi.json/..{}", "{}\\", "{}/..", "{}/.",
    "{}/%2e", "%2f{}", "{}%0a", "{}%09", "{}%ff", "{}//", "/livez?x={}", "/livez;{}", "/livez%2f..{}",
]  # fmt: skip


@pytest.mark.security("T-09")
def test_no_spelling_of_a_path_opens_it(ports: Ports) -> None:
    """No spelling of a protected path, encoded or not, gives without a key what it gives with one."""
    inside = [b'"items"', b'"credential"', b'"account":', b'"created_at"']
    paths = [
        "/v1/keys",
        f"/v1/keys/{ports.key.key.id}",
        "/v1/accounts",
        "/v1/keyspaces/every",
        "/k/every.production/whoami",
    ]
    encoded = [
        "/%761/keys",
        "/v%31/keys",
        "/v1%2Fkeys",
        "/%2fv1/keys",
        "/V1/KEYS",
        "/v1/%6beys",
        "/%6b/every.production/whoami",
    ]
    asked = {spelling.format(path) for spelling in SPELLINGS for path in paths} | set(encoded)
    for target in sorted(asked):
        for method in ("GET", "HEAD", "OPTIONS", "TRACE"):
            answer = exchange(ports.port, request(method, target))
            found = statuses(answer)

            if found[0] == 200:
                assert target.startswith("/livez"), target
            assert found[0] < 500
            assert not any(mark in answer for mark in inside), target
    assert ports.ask(request("GET", "/livez")) == [200]


@pytest.mark.security("H-07", "T-64")
@pytest.mark.parametrize(
    "raw",
    [
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"TRACE /v1/keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"OPTIONS /v1/keys HTTP/1.1\r\nHost: x\r\nOrigin: https://x\r\nAccess-Control-Request-Method: GET\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/keys HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n",
        b"GET /v1/keys HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"GET /v1/keys\r\n\r\n",
        b"GET /v1/keys HTTP/9.9\r\nHost: x\r\n\r\n",
        b"get /v1/keys HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  /v1/keys HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/keys /x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET v1/keys HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/k\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n" * 1000,
        b"\0" * 1000,
        b"",
    ],
)
def test_other_protocols_open_nothing(ports: Ports, raw: bytes) -> None:
    """Odd methods, upgrades, other versions and plain noise get a refusal or nothing, and the server goes on."""
    assert all(400 <= status < 500 for status in ports.ask(raw, half_close=b"close" not in raw))


def test_a_rotation_that_is_cut_off_on_the_wire(ports: Ports) -> None:
    """A client that announces a body and goes away before it is sent changes nothing."""
    key = make(ports.kw)
    headers = [*ports.caller.items(), ("Content-Type", "application/json"), ("Content-Length", "25")]
    for part in (b"", b'{"grace_seco'):
        with socket.create_connection(("127.0.0.1", ports.port)) as connection:
            connection.sendall(request("POST", f"/v1/keys/{key.key.id}/rotate", headers) + part)
    assert ports.ask(request("GET", f"/v1/keys/{key.key.id}", ports.caller)) == [200]

    assert len(ports.kw.keys.get(key.key.id).secrets) == 1


# --------------------------------------------------------------------------------------------------------- by thousands


class Mill:
    """Makes requests of right pieces, spoilt pieces and noise, the same ones for the same seed."""

    def __init__(self, seed: int, key: Issued, caller: dict[str, str]) -> None:
        self._random = random.Random(seed)
        held = key.credential
        assert held.secret is not None
        self._right = [
            held.token.reveal(),
            held.id,
            held.secret.reveal(),
            caller["Authorization"][7:],
            "globex",
        ]
        self._names = [
            "X-Token", "Authorization", "X-API-KEY", "X-API-SECRET", "x-api-user", "apiKey", "apiSecret", "Api-Key",
            "X_API_KEY", "Content-Type", "Cookie", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Method",
            "X-Forwarded-Uri", "Host", "Content-Length", "Range", "Accept", "",
        ]  # fmt: skip
        self._paths = [
            "/v1/verify", "/v1/verify/batch", "/authz/forward/shop", "/authz/forward/every.production", "/authz/forward/",
            "/k/every.production/whoami", "/k/every", "/k/", "/livez", "/readyz", "/v1/keys", "/v1/accounts", "/nothing",
        ]  # fmt: skip

    def noise(self, longest: int = 60) -> bytes:
        """Some random bytes."""
        return self._random.randbytes(self._random.choice((0, 1, 8, self._random.randrange(longest + 1))))

    def value(self) -> bytes:
        """A credential, or something near one."""
        text = self._random.choice(self._right).encode()
        at = self._random.randrange(len(text) + 1)
        spoil = self._random.randrange(9)
        if spoil == 0:
            return self.noise()
        if spoil == 1:
            return text[:at] + self.noise(4) + text[at:]
        if spoil == 2:
            return text[:at]
        if spoil == 3:
            return text + text
        if spoil == 4:
            return text[:at] + bytes([self._random.randrange(256)]) + text[at + 1 :]
        word = self._random.choice((b"", b"Bearer ", b"Api-Key ", b"Basic ", b"bearer\t", b"Digest "))
        if word == b"Basic ":
            text = b64encode(self._random.choice(self._right).encode() + b":" + text)
        return word + text

    def document(self, depth: int = 0) -> Any:
        """A JSON value, often of the shape that is asked for."""
        kind = self._random.randrange(10)
        if kind < 4 or depth > 3:
            return self._random.choice(
                [None, True, 0, -1, 10**40, 1.5, "", "every", "production", "GET", "\0", "é", *self._right]
            )
        if kind < 6:
            return [self.document(depth + 1) for _ in range(self._random.randrange(4))]
        names = [
            "keyspace", "environment", "token", "id", "secret", "headers", "url", "scopes", "method", "cost", "ip", "items",
            "resource", "authenticate_only", "x", "",
        ]  # fmt: skip
        return {
            name: self.document(depth + 1) for name in self._random.sample(names, self._random.randrange(8))
        }

    def question(self) -> Any:
        """Something near a right question."""
        asked = {"keyspace": "every", "environment": "production", "token": self._right[0]}
        for name in self._random.sample([*asked, "scopes", "headers", "cost", "ip", "url", "method"], 2):
            asked[name] = self.document()
        return asked

    def made(self) -> tuple[str, bytes, list[tuple[bytes, bytes]], bytes]:
        """One request."""
        method = self._random.choice(["GET", "POST", "POST", "HEAD", "PUT", "OPTIONS", "PROPFIND"])
        target = self._random.choice(self._paths).encode()
        if self._random.random() < 0.3:
            target += self._random.choice((b"?", b"/", b"%", b";", b".", b"?q=")) + self.value().replace(
                b" ", b"+"
            )
        headers = [
            (self._random.choice(self._names).lower().encode(), self.value())
            for _ in range(self._random.randrange(5))
        ]
        if self._random.random() < 0.5:
            headers += [(b"x-forwarded-method", b"GET"), (b"x-forwarded-uri", b"/" + self.noise())]
        if self._random.random() < 0.5:
            headers += [(b"authorization", b"Bearer " + self._right[3].encode())]
        body = b""
        if method == "POST":
            headers += [(b"content-type", b"application/json")] * (self._random.random() < 0.9)
            document = self.question() if self._random.random() < 0.7 else self.document()
            if target.startswith(b"/v1/verify/batch"):
                document = {"items": [document, self.question()]}
            body = json.dumps(document).encode()
            if self._random.random() < 0.2:
                at = self._random.randrange(len(body) + 1)
                body = body[:at] + self.noise(5) + body[at:]
        return method, target, headers, body


def _proves(headers: list[tuple[bytes, bytes]], right: set[bytes]) -> bool:
    """Whether a right credential stands whole in some header."""
    decoded = b"\n".join(value for _, value in headers)
    return any(secret in decoded for secret in right) or b"basic" in decoded.lower()


@pytest.mark.requirement("X-05")
@pytest.mark.security("R-19", "T-11", "T-14")
@pytest.mark.parametrize("seed", range(5))
def test_no_noise_breaks_a_door(kw: Keywright, seed: int) -> None:
    """Of thousands of requests made of right pieces and noise none is a 5xx, logs a trace, or passes without a right key."""
    key, caller = make(kw), manager(kw, "verify", "keys:read", "accounts:read")
    right = {token(key).encode(), caller["Authorization"][7:].encode()}
    mill = Mill(seed, key, caller)
    found: dict[int, int] = {}
    with records() as said, Door(server(kw)) as door:
        for _ in range(600):
            method, target, headers, body = mill.made()
            reply = door.send(method, target, headers, body)
            found[reply.status] = found.get(reply.status, 0) + 1

            assert 200 <= reply.status < 500, (method, target, headers, body, reply)
            if reply.status >= 400 and method != "HEAD":
                assert re.fullmatch("[a-z_]+", reply.code)
            if reply.status == 200 and not target.startswith((b"/livez", b"/readyz")):
                assert _proves(headers, right), (method, target, headers)
    assert [one for one in said if one.msg != "alert %s: %s %s of %s%s"] == []  # the watch may notice
    assert {200, 401, 404, 405, 422} <= set(found), found
