"""People: invitations, places in accounts, and whom nobody can do without."""

import threading

import pytest

from conftest import again, make
from keywright import Keywright
from keywright.desk.grants import Giver, Reach
from keywright.errors import Conflict, Exceeds, Invalid, NotFound
from keywright.roles import RIGHTS
from people import PASSWORD, begin, member

pytestmark = pytest.mark.stores


@pytest.mark.security("A-12")
def test_the_last_owner_stays(kw: Keywright) -> None:
    """The last owner of an account is neither removed nor demoted, by whomever; one who has not come yet is none."""
    people = kw.installation.people
    last = begin(kw, "owner")[1].person.id
    people.invite("new@globex.example", account="globex", role="owner")

    for attempt in (
        lambda: people.remove(last, account="globex"),
        lambda: people.change_role(last, account="globex", role="admin"),
        lambda: people.change_role(last, account="globex", role="admin", by=Giver("owner", RIGHTS["owner"])),
    ):
        with pytest.raises(Conflict, match="last owner"):
            attempt()
    begin(kw, "owner", email="second@globex.example")

    assert people.change_role(last, account="globex", role="admin").memberships[0].role == "admin"


@pytest.mark.security("A-12")
def test_two_owners_cannot_remove_each_other(kw: Keywright) -> None:
    """At the same moment one of them may, and the other is then the last."""
    both = [begin(kw, "owner", email=f"o{n}@globex.example")[1].person.id for n in (1, 2)]
    outcomes: list[str] = []
    barrier = threading.Barrier(2)

    def remove(person: str) -> None:
        barrier.wait()
        try:
            kw.installation.people.remove(person, account="globex")
            outcomes.append("removed")
        except Conflict:
            outcomes.append("kept")

    threads = [threading.Thread(target=remove, args=(person,)) for person in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["kept", "removed"]


def test_the_last_operator_stays(kw: Keywright) -> None:
    """The last operator is neither disabled nor dismissed."""
    people = kw.installation.people
    first = begin(kw, "operator")[1].person.id
    for attempt in (people.disable, people.dismiss):
        with pytest.raises(Conflict, match="last operator"):
            attempt(first)
    people.appoint("second@example.com")

    assert people.dismiss(first).operator is False


@pytest.mark.security("T-20")
def test_an_admin_does_not_touch_owners(kw: Keywright) -> None:
    """An admin invites, changes and removes members up to admin, never to owner and never an owner."""
    people, admin = kw.installation.people, Giver("admin", RIGHTS["admin"])
    owner = begin(kw, "owner")[1].person.id
    begin(kw, "owner", email="second@globex.example")
    other = member(kw, "developer").id

    assert people.change_role(other, account="globex", role="admin", by=admin).memberships[0].role == "admin"
    for attempt in (
        lambda: people.change_role(other, account="globex", role="owner", by=admin),
        lambda: people.change_role(owner, account="globex", role="analyst", by=admin),
        lambda: people.remove(owner, account="globex", by=admin),
        lambda: people.invite("x@globex.example", account="globex", role="owner", by=admin),
    ):
        with pytest.raises(Exceeds):
            attempt()


def test_a_place_is_had_once(kw: Keywright) -> None:
    """Inviting again whoever has come is a conflict; whoever has not gets the newer place, and one link works."""
    people = kw.installation.people
    begin(kw, "analyst", email="ana@globex.example")
    with pytest.raises(Conflict, match="member already"):
        people.invite("ANA@globex.example", account="globex", role="admin")
    people.invite("bob@globex.example", account="globex", role="admin")
    people.invite("bob@globex.example", account="globex", role="analyst")

    assert [held.role for held in people.get("bob@globex.example").memberships] == ["analyst"]


@pytest.mark.security("T-66")
def test_an_invitation_does_not_tell_who_is_known(kw: Keywright) -> None:
    """Inviting somebody another account knows looks, to whoever invites, like inviting a stranger; nor are they named."""
    reach = Reach(account="globex")
    begin(kw, "owner", "initech", email="known@example.com")
    people = kw.installation.people

    known, new = (
        people.invite(email, account="globex", role="analyst", reach=reach).person
        for email in ("known@example.com", "new@example.com")
    )

    def seen(email: str) -> tuple[object, ...]:
        person = people.get(email, reach=reach)
        return (person.name == email, person.state, person.created_at, person.operator, person.memberships)

    assert known is not None
    assert new is not None
    assert seen("known@example.com") == seen("new@example.com")
    assert [held.account for held in known.memberships] == ["globex"]
    with pytest.raises(NotFound):
        people.get(begin(kw, "owner", "initech", email="o@initech.example")[1].person.id, reach=reach)


def test_what_bounds_a_developer_bounds_nobody_else(kw: Keywright) -> None:
    """Access and scopes are for developers; unknown scopes, a missing account or a wrong role are refused."""
    people = kw.installation.people
    for more in (
        {"role": "admin", "access": "read_only"},
        {"role": "developer", "access": "restricted"},
        {"role": "developer", "access": "all", "scopes": ["things:read"]},
        {"role": "developer", "access": "restricted", "scopes": ["nothing:read"]},
        {"role": "king"},
        {"role": None},
    ):
        with pytest.raises(Invalid):
            people.invite("x@globex.example", account="globex", **more)  # type: ignore[arg-type]
    for account in ("hooli", "keywright"):
        with pytest.raises(NotFound):
            people.invite("x@globex.example", account=account, role="owner")
    with pytest.raises(Invalid):
        people.invite("x@globex.example", account=None, role="owner")


def test_who_is_removed_is_out(kw: Keywright) -> None:
    """With the place the session ends, in every process, and a link that is still about is of no use."""
    token, session = begin(kw, "analyst")
    waiting = kw.installation.people.invite("new@globex.example", account="globex", role="owner")
    assert waiting.person is not None
    with again(kw) as other:
        assert other.installation.sessions.find(token) is not None

        kw.installation.people.remove(session.person.id, account="globex")
        kw.installation.people.remove(waiting.person.id, account="globex")

        assert other.installation.sessions.find(token) is None
        with pytest.raises(NotFound):
            other.installation.sessions.follow(waiting.token, PASSWORD)


def test_a_suspended_account_keeps_its_people(kw: Keywright) -> None:
    """Whoever is a member can still sign in and see what is stopped; no key is made for them meanwhile."""
    begin(kw, "owner", email="ana@globex.example")
    make(kw)
    kw.accounts.suspend("globex")

    begun = kw.installation.sessions.sign_in("ana@globex.example", PASSWORD)

    assert begun.session.person.memberships[0].account == "globex"
    with pytest.raises(Conflict, match="suspended"):
        make(kw)


def test_who_did_what_is_told(kw: Keywright) -> None:
    """Inviting, coming in, changing, signing in and out stand in the audit trail, without a password or a link."""
    people = kw.installation.people
    invited = people.invite("ana@globex.example", account="globex", role="developer")
    begun = kw.installation.sessions.follow(invited.token, PASSWORD)
    people.change_role(begun.session.person.id, account="globex", role="analyst")

    items = kw.installation.trail.list().items

    actions = [entry["action"] for entry in items]
    assert actions[:3] == ["person.change", "link.invitation", "person.invite"]
    assert PASSWORD not in str(items)
    assert invited.token not in str(items)
    assert kw.installation.trail.verify() is None


def test_refusals_of_people_are_told_once_a_minute(kw: Keywright) -> None:
    """Of each caller and act one entry a minute, whichever process saw it."""
    from keywright.model import Actor

    trail = kw.installation.trail
    with again(kw) as other:
        for one in (trail, other.installation.trail, trail):
            one.refused(Actor("person", "prsn_1"), "POST /v1/keys", "keys:write", "globex")
    trail.refused(Actor("person", "prsn_2"), "POST /v1/keys", "keys:write", "globex")

    told = [entry["actor_id"] for entry in trail.list(action="refused").items]

    assert sorted(told) == ["prsn_1", "prsn_2"]
