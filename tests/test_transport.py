"""What lies under a request: HTTPS, the proxies that are believed, the client's address, and a store that is gone."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.errors import CannotStart
from keywright.server import app
from keywright.server.proxies import canonical, client_address
from keywright.testing import Clock
from surfaces import Door, configured, lost, manager, server

PUBLIC = "https://keys.example"
PROXY = "10.0.0.7"


@pytest.fixture
def alone(kw: Keywright) -> Iterator[Door]:
    """A server with an https address and no proxy that it believes."""
    with Door(server(kw, public_url=PUBLIC)) as opened:
        yield opened


@pytest.fixture
def behind(kw: Keywright) -> Iterator[Door]:
    """A server with an https address that believes the proxies in 10.0.0.0/8 and fd00::/8."""
    with Door(server(kw, public_url=PUBLIC, trusted_proxies="10.0.0.0/8,fd00::/8")) as opened:
        yield opened


# --------------------------------------------------------------------------------------------------------------- https


@pytest.mark.requirement("P-40", "G-08")
@pytest.mark.security("H-10")
@pytest.mark.parametrize(
    "path", ["/k/every.production/whoami", "/v1/keys", "/v1/verify", "/nothing", "/openapi.json", "/metrics"]
)
def test_plain_http_is_refused_unread(alone: Door, behind: Door, key: Issued, path: str) -> None:
    """With an https address plain HTTP is 403, alike for a right key and for none, no redirect, nothing looked up."""
    for door, extra in (
        (alone, []),
        (alone, [("X-Forwarded-Proto", "https")]),
        (alone, [("Forwarded", "proto=https")]),
        (behind, [("X-Forwarded-Proto", "https")]),  # from a peer that is no proxy
    ):
        for headers in ({}, bearer(key)):
            reply = door.get(path, [*headers.items(), *extra], peer="192.0.2.1")

            assert (reply.status, reply.code) == (403, "https_required")
            assert reply.get("location") is None
            assert reply.get("www-authenticate") is None


@pytest.mark.requirement("P-40")
@pytest.mark.parametrize(
    ("said", "peer", "status"),
    [
        (["https"], PROXY, 200),
        (["https"], "fd00::1", 200),
        (["https"], "::ffff:10.0.0.7", 200),
        (["http"], PROXY, 403),
        ([], PROXY, 403),
        (["https", "https"], PROXY, 403),
        (["http", "https"], PROXY, 403),
        (["https, http"], PROXY, 403),
        (["https"], "192.0.2.1", 403),
        (["https"], "11.0.0.7", 403),
    ],
)
def test_a_proxy_may_say_https(behind: Door, key: Issued, said: list[str], peer: str, status: int) -> None:
    """The scheme is believed from named proxies only, said once; then HSTS is set, on refusals too."""
    extra = [("X-Forwarded-Proto", value) for value in said]

    reply = behind.get("/k/every.production/whoami", [*bearer(key).items(), *extra], peer=peer)

    assert reply.status == status
    if status == 200:
        assert reply.get("strict-transport-security") == "max-age=31536000; includeSubDomains"
        refused = behind.get("/v1/keys", extra, peer=peer)
        assert (refused.status, refused.get("strict-transport-security") is None) == (401, False)


def test_https_of_our_own(alone: Door, key: Issued) -> None:
    """Where the server itself ends TLS there is no question."""
    assert alone.get("/k/every.production/whoami", bearer(key), scheme="https").status == 200


@pytest.mark.security("R-38")
def test_health_is_exempt(alone: Door) -> None:
    """``/livez`` and ``/readyz`` answer plain HTTP; spelled otherwise they do not."""
    for path in ("/livez", "/readyz"):
        reply = alone.get(path)
        assert (reply.status, reply.json) == (200, {"status": "ok"})
    for path in ("/livez/", "/%6civez", "/livez/x", "//livez"):
        assert alone.get(path).status == 403


def test_without_https_nothing_is_said_of_it(kw: Keywright, key: Issued) -> None:
    """A server without an https address takes plain HTTP and sets no HSTS."""
    with Door(server(kw)) as door:
        reply = door.get("/k/every.production/whoami", bearer(key))

    assert (reply.status, reply.get("strict-transport-security")) == (200, None)


@pytest.mark.requirement("P-40")
@pytest.mark.parametrize(
    ("host", "open_"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False)]
)
def test_a_reachable_server_needs_a_name(host: str, open_: bool) -> None:
    """Without a public address only loopback is listened on."""
    settings = configured(host=host, port=0)
    if open_:
        app.listen(settings).close()
    else:
        with pytest.raises(CannotStart, match="can be reached from outside"):
            app.listen(settings)


# ------------------------------------------------------------------------------------------------ the client's address

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
CLIENT = "203.0.113.9"


@pytest.mark.security("T-35")
@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        # the peer is the client: whatever it says of others
        (CLIENT, [], CLIENT),
        (CLIENT, ["198.51.100.1"], CLIENT),
        (CLIENT, ["10.0.0.1"], CLIENT),
        (CLIENT, ["127.0.0.1", "::1"], CLIENT),
        ("2001:db8::1", ["198.51.100.1"], "2001:db8::1"),
        # one proxy
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f" {CLIENT} "], CLIENT),
        (PROXY, [f"198.51.100.1, {CLIENT}"], CLIENT),
        (PROXY, ["198.51.100.1", CLIENT], CLIENT),
        (PROXY, [f"127.0.0.1, ::1, {CLIENT}"], CLIENT),
        (PROXY, [f"unknown, {CLIENT}"], CLIENT),
        (PROXY, [f", {CLIENT}"], CLIENT),
        (PROXY, [f"{CLIENT}:51234"], CLIENT),
        (PROXY, ["[2001:db8::1]:443"], "2001:db8::1"),
        (PROXY, ["2001:DB8:0::1"], "2001:db8::1"),
        (PROXY, [f"::ffff:{CLIENT}"], CLIENT),
        (f"::ffff:{PROXY}", [CLIENT], CLIENT),
        # a chain of them
        (PROXY, [f"{CLIENT}, 10.1.1.1"], CLIENT),
        (PROXY, [f"198.51.100.1, {CLIENT}, 10.1.1.1, fd00::5"], CLIENT),
        (PROXY, [CLIENT, "10.1.1.1", "10.1.1.2"], CLIENT),
        (PROXY, [f"10.9.9.9, {CLIENT}, 10.1.1.1"], CLIENT),
        # nobody knows
        (PROXY, ["unknown"], None),
        (PROXY, [f"{CLIENT}, unknown"], None),
        (PROXY, [f"{CLIENT},"], None),
        (PROXY, [""], None),
        (PROXY, ["localhost"], None),
        (PROXY, ["0x7f.1"], None),
        (PROXY, ["203.0.113.009"], None),
        (PROXY, [f"{CLIENT} 198.51.100.1"], None),
        (PROXY, [f"{CLIENT};198.51.100.1"], None),
        (PROXY, ["\xe9"], None),
        (None, [CLIENT], None),
        ("unix", [CLIENT], None),
        # our own
        (PROXY, [], PROXY),
        (PROXY, ["10.1.1.1"], "10.1.1.1"),
    ],
)
def test_the_address_of_a_client(peer: str | None, forwarded: list[str], address: str | None) -> None:
    """The address is the nearest hop that is no named proxy's, never the leftmost that anybody wrote."""
    assert client_address(peer, [value.encode("latin-1") for value in forwarded], TRUSTED) == address


@pytest.mark.security("T-36")
@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("::ffff:203.0.113.9", CLIENT),
        ("::FFFF:cb00:7109", CLIENT),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:0db8::0001", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[::1]", "::1"),
        ("203.0.113.9:80", CLIENT),
        ("0203.0.113.9", None),
        ("203.0.113", None),
        ("3405803785", None),
        ("0xcb007109", None),
        ("203.0.113.9/32", None),
        ("::1::", None),
        ("²03.0.113.9", None),
        ("٢٠٣.٠.١١٣.٩", None),
        ("", None),
    ],
)
def test_one_spelling_of_an_address(text: str, address: str | None) -> None:
    """Equal addresses get one spelling, an IPv4 address in IPv6 its own, and what is doubtful none."""
    assert canonical(text) == address


@pytest.mark.security("T-35")
def test_an_allow_list_believes_named_proxies_only(kw: Keywright) -> None:
    """A forged X-Forwarded-For opens no allow-list; the word of a named proxy does."""
    key = make(kw, allowed_ips=[f"{CLIENT}/32"])
    family = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/things/1"), *bearer(key).items()]

    def codes(door: Door, peer: str, *forwarded: str) -> set[str]:
        headers = [*family, *(("X-Forwarded-For", value) for value in forwarded)]
        doors = ("/authz/forward/shop", "/k/every.production/whoami")
        return {door.get(path, headers, peer=peer).code for path in doors}

    with Door(server(kw)) as bare, Door(server(kw, trusted_proxies="10.0.0.0/8")) as proxied:
        for door in (bare, proxied):
            assert codes(door, CLIENT) == {"ok"}
            assert codes(door, f"::ffff:{CLIENT}") == {"ok"}
            assert codes(door, "192.0.2.1", CLIENT) == {"ip_not_allowed"}
            assert codes(door, PROXY, CLIENT, "192.0.2.1") == {"ip_not_allowed"}
        assert codes(bare, PROXY, CLIENT) == {"ip_not_allowed"}
        assert codes(proxied, PROXY, CLIENT) == {"ok"}
        assert codes(proxied, PROXY, f"{CLIENT}, unknown") == {"ip_not_allowed"}
        assert codes(proxied, PROXY) == {"ip_not_allowed"}


# ------------------------------------------------------------------------------------------------- a store that is gone


@pytest.mark.security("R-38")
def test_without_a_store(kw: Keywright, clock: Clock) -> None:
    """A lost store is 503 for what is not known by heart, stale answers for what is, and never a 401; alive all the while."""
    known, unknown, caller = make(kw), make(kw), manager(kw)
    with Door(server(kw)) as door:
        whoami = "/k/every.production/whoami"
        family = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/x"}
        gate = "/authz/forward/every.production"
        assert door.get(gate, family | bearer(known)).status == 200
        asked = {
            "keyspace": "every",
            "environment": "production",
            "token": bearer(known)["Authorization"][7:],
        }
        asked |= {"method": "GET"}
        assert door.json("POST", "/v1/verify", asked, caller).json["stale"] is False

        with lost(kw):
            clock.advance(seconds=1)  # longer than the last word of the store is taken for
            assert door.get(gate, family | bearer(known)).status == 200
            assert door.json("POST", "/v1/verify", asked, caller).json["stale"] is True
            assert door.get("/readyz").json == {"status": "stale"}
            for reply in (door.get(gate, family | bearer(unknown)), door.get(whoami, bearer(unknown))):
                assert (reply.status, reply.code, reply.get("retry-after")) == (503, "unavailable", "1")

            clock.advance(seconds=61)  # longer than what is known by heart may be served

            for reply in (
                door.get(gate, family | bearer(known)),
                door.get(whoami, bearer(known)),
                door.get("/v1/keys", caller),
                door.json("POST", "/v1/verify", asked, caller),
                door.get("/readyz"),
            ):
                assert (reply.status, reply.code, reply.get("retry-after")) == (503, "unavailable", "1")
            assert door.get("/livez").status == 200

        assert door.get("/readyz").json == {"status": "ok"}
        assert door.get(gate, family | bearer(unknown)).status == 200


@pytest.mark.security("R-38")
def test_a_cold_server_without_a_store_is_not_ready(kw: Keywright) -> None:
    """With nothing known by heart and no store ``/readyz`` is 503; ``/livez`` never asks the store."""
    with Door(server(kw)) as door, lost(kw):
        assert (door.get("/readyz").status, door.get("/readyz").code) == (503, "unavailable")
        assert door.get("/livez").status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_leaks_nothing(kw: Keywright, key: Issued, path: str) -> None:
    """Health answers are the same with and without a credential, and hold nothing but a word."""
    with Door(server(kw)) as door:
        assert door.get(path).body == door.get(path, bearer(key)).body == b'{"status":"ok"}'
