"""The mind of a verification: proof first, then state, then what is asked; and everything else is refused."""

from ipaddress import ip_network

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import EVERY, altered
from keywright import policy, profiles
from keywright.credential import DUMMY_MAC
from keywright.model import Ask, KeyRecord, Keyspace, Scope, SecretRecord, Terms
from keywright.policy import ALLOW, Decision, decide, holds, lacks, prove, within

NOW = 1_800_000_000_000_000
KEYSPACE = profiles.load(EVERY)
SECRET = SecretRecord(1, 1)
RECORD = KeyRecord(
    Terms("active", "every", "production", "active", "all"), id="every_live_k00000000000000A", account_id="acct_1",
    account="globex", name="CRM sync", expires_at=None, limits=(), secrets=(SECRET,), macs=b"m" * 32,
)  # fmt: skip
ASK = Ask("every", "production", method="GET")


def key(**over: object) -> KeyRecord:
    """A key of globex that may do all, but for what is said."""
    return altered(RECORD, **over)


def ask(**over: object) -> Ask:
    """A GET in production, but for what is said."""
    return msgspec.structs.replace(ASK, **over)


def keyspace(**over: object) -> Keyspace:
    """The keyspace of every scheme, but for what is said."""
    return msgspec.structs.replace(KEYSPACE, **over)


def restricted(*scopes: str) -> KeyRecord:
    """A key that holds these scopes and nothing else."""
    return key(access="restricted", scopes=frozenset(scopes))


def decided(record: KeyRecord, asked: Ask = ASK, **over: object) -> Decision:
    """What is decided of a proven key."""
    fields: dict[str, object] = {
        "secret": SECRET,
        "username": None,
        "keyspace": KEYSPACE,
        "environment": "production",
        "now": NOW,
    }
    return decide(record, ask=asked, **(fields | over))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ the order

#: What is wrong with a key, in the order in which it is told: each row hides all that follow.
WRONG: list[tuple[dict[str, object], Decision]] = [
    ({"state": "deleted"}, Decision("invalid", "deleted", known=False)),
    ({"keyspace": "partna"}, Decision("invalid", "wrong_keyspace", known=False)),
    ({"account": "initech"}, Decision("invalid", "wrong_user", known=False)),
    ({"state": "invalidated"}, Decision("invalidated", "invalidated")),
    ({"expires_at": NOW}, Decision("expired", "expired")),
    ({"secret": SecretRecord(1, 1, ends_at=NOW)}, Decision("rotated", "rotated")),
    ({"environment": "staging"}, Decision("wrong_environment", "key is for staging")),
    ({"account_state": "suspended"}, Decision("account_suspended", "suspended")),
    ({"networks": (ip_network("192.0.2.0/24"),)}, Decision("ip_not_allowed", "ip_not_allowed")),
    ({"access": "restricted"}, Decision("insufficient_scope", "restricted, and no scope was asked")),
]


def with_all(wrongs: list[dict[str, object]]) -> Decision:
    """What is told of a key with all of these wrong; of two states, the first counts."""
    merged: dict[str, object] = {}
    for wrong in wrongs:
        merged = wrong | merged
    secret = merged.pop("secret", SECRET)
    return decided(key(**merged), secret=secret, username=b"globex")


@pytest.mark.requirement("X-12")
@pytest.mark.parametrize(("wrong", "told"), WRONG, ids=[told.reason for _, told in WRONG])
def test_each_thing_that_can_be_wrong_is_told(wrong: dict[str, object], told: Decision) -> None:
    """A key with one thing wrong is refused for exactly that; with nothing wrong it passes."""
    assert with_all([wrong]) == told
    assert with_all([]) == ALLOW


@pytest.mark.security("T-22")
@pytest.mark.parametrize("first", range(len(WRONG)))
def test_what_comes_first_hides_what_follows(first: int) -> None:
    """A key with many things wrong is told the first in the order: the key before its account, what is asked last."""
    assert with_all([wrong for wrong, _ in WRONG[first:]]) == WRONG[first][1]


@pytest.mark.security("T-17")
def test_a_call_for_one_account_knows_no_others_key() -> None:
    """Where the caller speaks for an account, another's key is like an unknown one, whatever its state; its own passes."""
    for state in ("active", "invalidated", "disabled"):
        told = decided(key(state=state, account_state="suspended"), ask(account="initech"))
        assert told == Decision("invalid", "wrong_account", known=False)
    assert decided(key(), ask(account="globex")) == decided(key()) == Decision("ok", "ok", known=True)


@given(st.sets(st.integers(0, len(WRONG) - 1), min_size=1))
@settings(max_examples=200, deadline=None)
def test_any_two_or_more_wrongs_keep_the_order(which: set[int]) -> None:
    """Whatever is wrong together, the first of the table is told."""
    assert with_all([WRONG[place][0] for place in sorted(which)]) == WRONG[min(which)][1]


@pytest.mark.requirement("X-12", "P-35")
@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"state": "disabled"}, "disabled"),
        ({"state": "invalidated"}, "invalidated"),
        ({"state": "disabled", "expires_at": NOW - 1}, "disabled"),
        ({"account_state": "pending"}, "account_suspended"),
        ({"account_state": "suspended"}, "account_suspended"),
        ({"account_state": "active"}, "ok"),
    ],
)
def test_states_of_key_and_account(over: dict[str, object], code: str) -> None:
    """Only an active key of an active account passes; any other state of either says which."""
    assert decided(key(**over)).code == code


@pytest.mark.security("T-45")
@pytest.mark.requirement("X-20")
@pytest.mark.parametrize(("away", "code"), [(-1, "expired"), (0, "expired"), (1, "ok")])
def test_a_key_expires_at_the_instant(away: int, code: str) -> None:
    """A key is expired from the instant of its expiry on, to the microsecond."""
    assert decided(key(expires_at=NOW + away)).code == code


@pytest.mark.parametrize("state", ["disabled", "invalidated", "deleted"])
@pytest.mark.parametrize("away", [-1, 0, 1])
def test_a_disabled_key_comes_back_at_the_instant(state: str, away: int) -> None:
    """A key that is disabled for a time works from its end on, to the microsecond; one that ended otherwise never does."""
    back = state == "disabled" and away <= 0
    assert (decided(key(state=state, disabled_until=NOW + away)) == ALLOW) is back


@pytest.mark.security("K-12")
@pytest.mark.parametrize(("away", "code"), [(-1, "rotated"), (0, "rotated"), (1, "ok")])
def test_a_replaced_secret_ends_at_the_instant(away: int, code: str) -> None:
    """A replaced secret works until its end and not at it, while the key's other secret goes on."""
    ending = SecretRecord(1, 1, ends_at=NOW + away)

    assert decided(RECORD, secret=ending).code == code
    assert decided(RECORD, secret=SecretRecord(2, 1)).code == "ok"


@pytest.mark.security("T-34")
@pytest.mark.requirement("P-30", "B-22")
@pytest.mark.parametrize("own", ["development", "staging", "production"])
@pytest.mark.parametrize("called", ["development", "staging", "production"])
def test_a_key_works_in_its_own_environment_only(own: str, called: str) -> None:
    """Of all pairs of environments, only a key's own lets it in."""
    assert decided(key(environment=own), environment=called).code == (
        "ok" if own == called else "wrong_environment"
    )


@pytest.mark.requirement("P-03", "P-04")
@pytest.mark.parametrize(
    "username", [b"initech", b"Globex", b"globex ", b"", b"\xff", "gl\u043ebex".encode()]
)
def test_the_user_name_is_part_of_the_proof(username: bytes) -> None:
    """A key with another name than its account's, to the byte, is like an unknown key, and nothing of it is known."""
    assert decided(RECORD, username=username) == Decision("invalid", "wrong_user", known=False)
    assert decided(RECORD, username=b"globex") == ALLOW


# ----------------------------------------------------------------------------------------------------------- the proof


def test_the_secret_whose_mac_fits_is_found() -> None:
    """Of several secrets, the one whose MAC was presented is found, under the pepper that made it."""
    new, old = SecretRecord(2, 2), SecretRecord(1, 1)
    record = key(secrets=(new, old), macs=b"n" * 32 + b"o" * 32)

    assert prove(record, {1: b"x" * 32, 2: b"n" * 32}) is new
    assert prove(record, {1: b"o" * 32, 2: b"x" * 32}) is old
    assert prove(record, {1: b"n" * 32, 2: b"o" * 32}) is None
    assert prove(record, {1: b"x" * 32}) is None
    assert prove(record, {}) is None


def test_the_newest_of_two_that_fit_is_chosen() -> None:
    """Where two secrets would fit, the newest counts, so that an older one's end takes nothing away."""
    new, old = SecretRecord(2, 1), SecretRecord(1, 1, ends_at=NOW)

    assert prove(key(secrets=(new, old), macs=b"m" * 64), {1: b"m" * 32}) is new


@pytest.mark.parametrize("record", [None, key(secrets=())])
def test_an_absent_key_proves_nothing(record: KeyRecord | None) -> None:
    """No key, or one without secrets, is never proven, not even by the dummy that it is compared with."""
    assert prove(record, {1: DUMMY_MAC}) is None


@pytest.mark.security("K-04")
def test_every_mac_is_compared_whatever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many comparisons are made whether the first secret fits, the last, or none; and one for an absent key."""
    made: list[bytes] = []
    monkeypatch.setattr(policy.hmac, "compare_digest", lambda a, b: made.append(b) or a == b)
    record = key(secrets=(SecretRecord(2, 1), SecretRecord(1, 1)), macs=b"n" * 32 + b"o" * 32)
    counted = []
    for whose, mac in ((record, b"n"), (record, b"o"), (record, b"x"), (None, b"n")):
        made.clear()
        prove(whose, {1: mac * 32})
        counted.append(len(made))

    assert counted == [2, 2, 2, 1]


# ----------------------------------------------------------------------------------------------- what access allows

READ, WRITE = "things:read", "things:write"
#: access -> what is asked -> whether it passes
ASKED: list[tuple[str, dict[str, object], tuple[bool, bool, bool]]] = [
    # what is asked                                          all    read_only  restricted to things:read
    ("nothing", {"method": None}, (True, False, False)),
    ("GET", {"method": "GET"}, (True, True, False)),
    ("HEAD", {"method": "HEAD"}, (True, True, False)),
    ("OPTIONS", {"method": "OPTIONS"}, (True, True, False)),
    ("POST", {"method": "POST"}, (True, False, False)),
    ("PUT", {"method": "PUT"}, (True, False, False)),
    ("PATCH", {"method": "PATCH"}, (True, False, False)),
    ("DELETE", {"method": "DELETE"}, (True, False, False)),
    ("get in small letters", {"method": "get"}, (True, False, False)),
    ("an unknown method", {"method": "FETCH"}, (True, False, False)),
    ("reading scope", {"method": None, "scopes": (READ,)}, (True, True, True)),
    ("reading scope, GET", {"method": "GET", "scopes": (READ,)}, (True, True, True)),
    ("reading scope, POST", {"method": "POST", "scopes": (READ,)}, (True, True, True)),
    ("writing scope", {"method": None, "scopes": (WRITE,)}, (True, False, False)),
    ("writing scope, GET", {"method": "GET", "scopes": (WRITE,)}, (True, False, False)),
    ("both scopes", {"method": "GET", "scopes": (READ, WRITE)}, (True, False, False)),
    ("unknown scope", {"method": "GET", "scopes": ("things:new",)}, (True, False, False)),
    ("known and unknown scope", {"method": "GET", "scopes": (READ, "things:new")}, (True, False, False)),
    ("scope in capitals", {"method": "GET", "scopes": ("Things:Read",)}, (True, False, False)),
    ("empty scope", {"method": "GET", "scopes": ("",)}, (True, False, False)),
    ("POST that a gate says reads", {"method": "POST", "reads": True}, (True, True, False)),
    ("no method at a gate that reads", {"method": None, "reads": True}, (True, False, False)),
    ("writing scope at a gate that reads", {"method": "POST", "scopes": (WRITE,), "reads": True}, (True, False, False)),
    ("authentication only", {"method": "DELETE", "scopes": (WRITE,), "authenticate_only": True}, (True, True, True)),
    ("authentication only, nothing else", {"method": None, "authenticate_only": True}, (True, True, True)),
]  # fmt: skip


@pytest.mark.requirement("G-02", "G-12", "G-13", "G-14", "B-02")
@pytest.mark.parametrize(("asked", "passes"), [row[1:] for row in ASKED], ids=[row[0] for row in ASKED])
def test_what_each_access_allows(asked: dict[str, object], passes: tuple[bool, bool, bool]) -> None:
    """``all`` passes always, ``read_only`` where nothing can change, ``restricted`` only with each scope ticked."""
    keys = (RECORD, key(access="read_only"), restricted(READ))

    assert tuple(decided(record, ask(**asked)).code == "ok" for record in keys) == passes


@pytest.mark.requirement("G-13", "G-15")
def test_restricted_needs_every_scope_asked() -> None:
    """A restricted key passes with all of several scopes and not with one of them; holding none, it can do nothing."""
    both = ask(scopes=(READ, WRITE))

    assert decided(restricted(READ, WRITE), both) == ALLOW
    assert decided(restricted(READ), both) == Decision("insufficient_scope", f"lacks {WRITE}")
    assert decided(restricted(), ask(scopes=(READ,))) == Decision("insufficient_scope", f"lacks {READ}")


@pytest.mark.requirement("G-13")
def test_an_operation_added_later_is_not_allowed_before() -> None:
    """A scope that the host adds later is held by ``all``, by ``read_only`` if it reads, and by no restricted key."""
    wider = keyspace(scopes=KEYSPACE.scopes | {"things:export": Scope("Export", reads=True)})
    exporting = ask(scopes=("things:export",))
    keys = (RECORD, key(access="read_only"), restricted(READ, WRITE))

    assert [decided(record, exporting, keyspace=wider).code == "ok" for record in keys] == [True, True, False]


@pytest.mark.requirement("G-09", "G-11")
def test_what_is_lacking_is_said() -> None:
    """The reason names what a proven key lacks."""
    assert (
        decided(key(access="read_only"), ask(method="POST")).reason
        == "read_only, and POST may change something"
    )
    assert (
        lacks(key(access="read_only"), KEYSPACE, ask(method=None))
        == "read_only, and neither scope nor method was asked"
    )
    assert lacks(restricted(READ), KEYSPACE, ASK) == "restricted, and no scope was asked"


@pytest.mark.requirement("P-24")
@pytest.mark.parametrize(
    ("self_service", "expected"),
    [
        ("off", [(False, False), (False, False), (False, False)]),
        ("read", [(True, False), (True, False), (True, False)]),
        ("full", [(True, True), (True, False), (True, True)]),
    ],
)
def test_reserved_scopes_go_by_self_service(self_service: str, expected: list[tuple[bool, bool]]) -> None:
    """``keys:read`` and ``keys:write`` are held only as far as the keyspace grants them, whatever the access."""
    space = keyspace(self_service=self_service)
    keys = (RECORD, key(access="read_only"), restricted("keys:read", "keys:write"))

    assert [
        (holds(record, space, "keys:read"), holds(record, space, "keys:write")) for record in keys
    ] == expected


def test_management_keys_hold_their_list() -> None:
    """In our own keyspace ``keys:read`` is a scope like any other, held by the keys that list it."""
    management = profiles.management()

    assert holds(restricted("keys:read"), management, "keys:read")
    assert not holds(restricted("keys:read"), management, "keys:write")
    assert not holds(restricted(), management, "keys:read")


# ----------------------------------------------------------------------------------------------------------- networks


@pytest.mark.security("T-36")
@pytest.mark.parametrize(
    ("network", "ip", "inside"),
    [
        ("203.0.113.0/24", "203.0.113.9", True),
        ("203.0.113.0/24", "203.0.114.9", False),
        ("203.0.113.9/32", "203.0.113.9", True),
        ("203.0.113.0/24", "::ffff:203.0.113.9", True),
        ("203.0.113.0/24", "::FFFF:CB00:7109", True),
        ("203.0.113.0/24", "::ffff:203.0.114.9", False),
        ("203.0.113.0/24", "::203.0.113.9", False),
        ("0.0.0.0/0", "203.0.113.9", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "203.0.113.9", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "2001:0DB8:0000:0000:0000:0000:0000:0001", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("fe80::/10", "fe80::1%eth0", True),
    ],
)
def test_which_addresses_are_in_a_network(network: str, ip: str, inside: bool) -> None:
    """Addresses are compared by what they are and not how they are written; IPv4 inside IPv6 is IPv4."""
    assert within((ip_network(network),), ip) == inside


@pytest.mark.security("T-35")
@pytest.mark.parametrize(
    "ip",
    [
        None,
        "",
        "unknown",
        "203.0.113.9, 198.51.100.1",
        "203.0.113.9:443",
        "203.0.113.009",
        " 203.0.113.9",
        "203.0.113.9\n",
        "0xcb.0.113.9",
        "3405803785",
        "[2001:db8::1]",
    ],
)
def test_an_unreadable_address_is_nowhere(ip: str | None) -> None:
    """An address that is missing or cannot be read fails every allow-list, and only where there is one."""
    anywhere = (ip_network("0.0.0.0/0"), ip_network("::/0"))

    assert decided(key(networks=anywhere), ask(ip=ip)).code == "ip_not_allowed"
    assert decided(RECORD, ask(ip=ip)) == ALLOW


def test_any_of_several_networks_will_do() -> None:
    """A key with several networks passes from each of them and from nowhere else."""
    record = key(networks=(ip_network("198.51.100.7/32"), ip_network("2001:db8::/32")))

    assert [decided(record, ask(ip=ip)).code for ip in ("198.51.100.7", "2001:db8::9", "198.51.100.8")] == [
        "ok",
        "ok",
        "ip_not_allowed",
    ]


@given(st.ip_addresses(v=4), st.integers(0, 32))
@settings(max_examples=100, deadline=None)
def test_an_address_is_in_every_network_around_it(address: object, length: int) -> None:
    """An address is inside the network of any length around it, also when it is written as IPv6."""
    network = ip_network(f"{address}/{length}", strict=False)

    assert within((network,), str(address))
    assert within((network,), f"::ffff:{address}")
