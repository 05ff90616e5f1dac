"""A grant never exceeds its grantor."""

from ipaddress import ip_network

import msgspec
import pytest

from conftest import EVERY, altered, make
from keywright import Keywright, profiles
from keywright.desk.grants import EVERYTHING, MANAGEMENT_KEYS, Reach, check, reach_of
from keywright.errors import Exceeds, Invalid, NotFound
from keywright.model import MANAGEMENT, Binding, KeyRecord, Limit, Terms

READ, WRITE = "things:read", "things:write"
KEYSPACE = msgspec.structs.replace(profiles.load(EVERY), self_service="read")
GRANTOR = KeyRecord(
    Terms("active", "every", "production", "active", "all"), id="every_live_k00000000000000A", account_id="acct_1",
    account="globex", name="CRM sync", expires_at=None, limits=(), secrets=(),
)  # fmt: skip
GRANT = {"keyspace": "every", "account": "globex", "environment": "production", "access": "all", "scopes": (),
         "expires_at": None, "allowed_ips": (), "limits": (), "plan": None}  # fmt: skip


def grantor(access: str = "all", *scopes: str, **over: object) -> KeyRecord:
    """A key of globex that makes keys."""
    return altered(GRANTOR, access=access, scopes=frozenset(scopes), **over)


def exceeds(maker: KeyRecord, **grant: object) -> bool:
    """Whether a grant is more than its maker has."""
    try:
        check(maker, KEYSPACE, GRANT | grant)
    except Exceeds:
        return True
    return False


@pytest.mark.requirement("P-25")
@pytest.mark.security("T-20")
@pytest.mark.parametrize(
    ("maker", "allowed"),
    [
        # may it give:                all, read_only, [read], [write], [read, write], [keys:read], [keys:write], [unknown]
        (grantor("all"), (True, True, True, True, True, True, False, True)),
        (grantor("read_only"), (False, True, True, False, False, True, False, False)),
        (grantor("restricted", READ, WRITE), (False, False, True, True, True, False, False, False)),
        (grantor("restricted", READ), (False, False, True, False, False, False, False, False)),
        (
            grantor("restricted", "keys:read", "keys:write"),
            (False, False, False, False, False, True, False, False),
        ),
        (grantor("restricted"), (False, False, False, False, False, False, False, False)),
    ],
    ids=["all", "read_only", "both scopes", "one scope", "reserved scopes", "no scope"],
)
def test_access_and_scopes_are_at_most_the_makers(maker: KeyRecord, allowed: tuple[bool, ...]) -> None:
    """A key gives the access and scopes that it holds, no more, and reserved ones only where the keyspace grants them."""
    lists = [(READ,), (WRITE,), (READ, WRITE), ("keys:read",), ("keys:write",), ("things:new",)]
    grants = [("all", ()), ("read_only", ()), *(("restricted", scopes) for scopes in lists)]

    assert tuple(not exceeds(maker, access=access, scopes=scopes) for access, scopes in grants) == allowed


@pytest.mark.security("T-20")
@pytest.mark.parametrize("scope", ["*", "things:*", "THINGS:READ", "things:read ", "things", ""])
def test_no_spelling_of_a_scope_widens_it(scope: str) -> None:
    """Wildcards, capitals and fragments of a scope are not the scope that a restricted key holds."""
    assert exceeds(grantor("restricted", READ), access="restricted", scopes=(scope,))


@pytest.mark.requirement("P-25")
@pytest.mark.security("T-18")
@pytest.mark.parametrize(
    "elsewhere",
    [{"account": "initech"}, {"keyspace": "partna"}, {"environment": "staging"}, {"account": "Globex"}],
)
def test_a_key_makes_keys_of_its_own_place_only(elsewhere: dict[str, str]) -> None:
    """Another account, keyspace or environment is out of a key's hands, even one that may do all."""
    assert exceeds(grantor(), **elsewhere)
    assert not exceeds(grantor())


@pytest.mark.requirement("P-25")
@pytest.mark.parametrize(
    ("own", "given", "too_much"),
    [(None, None, False), (None, 5, False), (5, 5, False), (5, 4, False), (5, 6, True), (5, None, True)],
)
def test_a_key_gives_no_longer_life_than_its_own(own: int | None, given: int | None, too_much: bool) -> None:
    """A made key expires with its maker at the latest; as late is allowed, never is not."""
    assert exceeds(grantor(expires_at=own), expires_at=given) == too_much


@pytest.mark.requirement("P-25")
@pytest.mark.parametrize(
    ("own", "given", "too_much"),
    [
        ([], [], False),
        ([], ["0.0.0.0/0"], False),
        (["203.0.113.0/24"], [], True),
        (["203.0.113.0/24"], ["203.0.113.0/24"], False),
        (["203.0.113.0/24"], ["203.0.113.7/32"], False),
        (["203.0.113.0/24"], ["203.0.112.0/23"], True),
        (["203.0.113.0/24"], ["203.0.113.7/32", "198.51.100.1/32"], True),
        (["203.0.113.0/24", "198.51.100.0/24"], ["203.0.113.7/32", "198.51.100.1/32"], False),
        (["203.0.113.0/24"], ["2001:db8::/64"], True),
        (["0.0.0.0/0"], ["::/0"], True),
        (["2001:db8::/32"], ["2001:db8:1::/48"], False),
    ],
)
def test_a_key_gives_no_wider_network_than_its_own(own: list[str], given: list[str], too_much: bool) -> None:
    """A made key may be used from no address that its maker may not be used from."""
    assert exceeds(grantor(networks=tuple(map(ip_network, own))), allowed_ips=given) == too_much


@pytest.mark.requirement("P-25")
@pytest.mark.security("T-20")
def test_a_key_cannot_make_or_become_more_than_itself(kw: Keywright) -> None:
    """Through the desk a restricted key can make its equal, and can neither make more nor widen one that it made."""
    maker = make(kw, access="restricted", scopes=[READ])
    by = kw.verify(
        {"Authorization": f"Bearer {maker.credential.token.reveal()}"},
        keyspace="every",
        environment="production",
        scopes=[READ],
    ).key
    child = make(kw, access="restricted", scopes=[READ], by=by)

    assert child.key.parent == maker.key.id
    for more in (
        {"access": "all"},
        {"access": "read_only"},
        {"access": "restricted", "scopes": [READ, WRITE]},
    ):
        with pytest.raises(Exceeds):
            make(kw, by=by, **more)
        with pytest.raises(Exceeds):
            kw.keys.edit(child.key.id, by=by, **more)  # type: ignore[arg-type]


@pytest.mark.security("T-20")
@pytest.mark.parametrize("scope", ["*", "things:*", "Things:Read", "things:new", "keys:write", ""])
def test_an_unknown_scope_is_given_to_nobody(kw: Keywright, scope: str) -> None:
    """A scope that the keyspace does not have, wildcards and other spellings included, is refused from anybody."""
    with pytest.raises(Invalid, match=r"^scopes\[1\]: .* is not a scope of this keyspace"):
        make(kw, access="restricted", scopes=[READ, scope])


# ------------------------------------------------------------------------------------------------------ management keys


@pytest.mark.security("T-17", "T-18")
@pytest.mark.parametrize(
    ("binding", "own", "foreign"),
    [
        (Binding(account="globex"), "globex", "initech"),
        (Binding(keyspace="every"), "every", "partna"),
        (Binding("globex", "every", "production"), "production", "staging"),
    ],
)
def test_a_bound_caller_stays_in_its_place(binding: Binding, own: str, foreign: str) -> None:
    """What is outside a management key's binding does not exist for it, and what is left out is its own."""
    reach, what = (
        reach_of(binding),
        {"globex": "account", "every": "keyspace", "production": "environment"}[own],
    )

    assert reach.needs(what, own) == own
    assert reach.needs(what, None) == own
    with pytest.raises(NotFound, match=f"^there is no {what} '{foreign}'$"):
        reach.needs(what, foreign)


def test_an_unbound_caller_says_where() -> None:
    """A caller that is not confined works where it says, and nothing is guessed for it."""
    assert reach_of(None) is EVERYTHING
    assert (EVERYTHING.needs("account", "initech"), EVERYTHING.needs("account", None)) == ("initech", None)


@pytest.mark.security("T-17")
@pytest.mark.parametrize(
    ("reach", "covered"),
    [
        (EVERYTHING, True),
        (Reach(account="globex"), True),
        (Reach(account="globex", keyspace="every", environment="production"), True),
        (Reach(account="initech"), False),
        (Reach(keyspace="partna"), False),
        (Reach(environment="staging"), False),
        (Reach(account="globex", environment="staging"), False),
        (MANAGEMENT_KEYS, False),
    ],
)
def test_which_keys_exist_for_a_caller(kw: Keywright, reach: Reach, covered: bool) -> None:
    """A key outside a caller's reach is neither listed nor found, and cannot be told from none at all."""
    key = make(kw).key

    assert reach.covers(key) == covered
    assert [found.id for found in kw.keys.list(reach=reach).items] == ([key.id] if covered else [])
    if not covered:
        with pytest.raises(NotFound):
            kw.keys.get(key.id, reach=reach)


def test_management_keys_are_a_world_of_their_own(kw: Keywright) -> None:
    """A management key is covered only by those who manage management keys, and they cover nothing else."""
    own = kw.keys.create_management(name="CI", scopes=["verify"]).key

    assert own.keyspace == MANAGEMENT
    assert (MANAGEMENT_KEYS.covers(own), EVERYTHING.covers(own)) == (True, False)
    assert not MANAGEMENT_KEYS.covers(make(kw).key)


@pytest.mark.requirement("P-25")
@pytest.mark.security("T-20")
def test_a_child_cannot_shake_off_its_makers_limits() -> None:
    """A key that is limited gives only keys that are limited as tightly, and stays on its plan."""
    ten, five, twenty = (Limit("quota-day", "quota", many, "day") for many in (10, 5, 20))
    maker = grantor(limits=((f"key:{GRANTOR.id}", ten),))

    assert exceeds(maker)
    assert exceeds(maker, limits=(twenty,))
    assert not exceeds(maker, limits=(ten,))
    assert not exceeds(maker, limits=(five,))
    assert exceeds(grantor(plan="small"), plan=None)
    assert not exceeds(grantor(plan="small"), plan="small")


@pytest.mark.requirement("P-25")
def test_a_child_that_names_no_limits_inherits_them(kw: Keywright) -> None:
    """A key made by a limited key has its maker's limits and plan where it names none."""
    maker = make(kw, limits=["credits:1"], plan="small")
    held = kw.verify(
        {"X-Token": maker.credential.token.reveal()}, keyspace="every", environment="production", method="GET"
    ).key

    child = make(kw, by=held).key

    assert (child.limits, child.plan, child.parent) == (maker.key.limits, "small", maker.key.id)
