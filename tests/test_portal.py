"""The portal at its desk: links that work once, visits that end, and no more than whoever let somebody in has."""

import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import again, make
from keywright import Exceeds, Invalid, Keywright, NotFound
from keywright.desk.grants import Reach
from keywright.desk.portal import IDLE, KEPT, LIFE_OF_LINK, LONGEST
from keywright.installation import open_installation
from keywright.model import Actor, Issued, PortalLink, PortalSession, Role
from keywright.roles import of_visit
from keywright.testing import Clock
from people import begin, code_of, visit
from postgres import SECRET
from test_migrations import as_first_made

pytestmark = pytest.mark.stores

#: Whatever is wrong with a link, this is said.
GONE = "the link was used, has ended, or never was"
EVERY = {"account": "globex", "keyspace": "every", "environment": "production"}


class Grantor(NamedTuple):
    """What a management key holds."""

    scopes: frozenset[str]
    id: str
    expires_at: int | None


def host(kw: Keywright, *scopes: str, **more: object) -> Issued:
    """A management key of the host's: what an admin's visit takes, or these scopes."""
    needed = scopes or ("portal:write", *sorted(of_visit("admin", preview=False)))
    return kw.keys.create_management(name="Host", scopes=needed, **more)  # type: ignore[arg-type]


def asked(kw: Keywright, key: Issued, **more: object) -> PortalLink:
    """A link that the host asks for with its key."""
    actor = Actor("management_key", key.key.id)
    by = Grantor(frozenset(key.key.scopes), key.key.id, key.key.expires_at)
    given = {"account": "globex", "subject": "ana@globex"} | more
    return kw.portal.open(**given, actor=actor, by=by)  # type: ignore[arg-type]


def state(kw: Keywright, visit_id: str) -> str:
    """How it is with a visit."""
    return kw.portal.get(visit_id).state


# ------------------------------------------------------------------------------------------------------------- the link


@pytest.mark.security("K-10")
def test_a_link_works_once_and_a_quarter_of_an_hour(kw: Keywright, clock: Clock) -> None:
    """Followed again, late, ended or invented, a link is told the same, and opens nothing."""
    used, late, ended = (kw.portal.open(account="globex", subject="ana@globex") for _ in range(3))
    kw.portal.enter(code_of(used))
    kw.portal.end(ended.session.id)
    for code in (code_of(used), code_of(ended), "invented", "", "\x00", "x" * 10_000):
        with pytest.raises(NotFound) as told:
            kw.portal.enter(code)
        assert str(told.value) == GONE

    clock.advance(seconds=LIFE_OF_LINK - 1)
    assert kw.portal.meant(code_of(late)).subject == "ana@globex"
    clock.advance(seconds=1)
    with pytest.raises(NotFound, match=GONE):
        kw.portal.enter(code_of(late))
    assert [state(kw, one.session.id) for one in (used, late, ended)] == ["open", "ended", "ended"]


def test_of_two_clicks_one_wins(kw: Keywright) -> None:
    """However many follow a link in the same moment, one comes in, and the trail tells of one."""
    link = kw.portal.open(account="globex", subject="ana@globex")
    barrier, won, lost = threading.Barrier(6), [], []

    def click() -> None:
        barrier.wait()
        try:
            won.append(kw.portal.enter(code_of(link)))
        except NotFound:
            lost.append(1)

    clicks = [threading.Thread(target=click) for _ in range(6)]
    for one in clicks:
        one.start()
    for one in clicks:
        one.join()

    assert (len(won), len(lost)) == (1, 5)
    assert kw.portal.find(won[0].token) is not None
    begun = kw.installation.trail.list(action="portal.begin", target=link.session.id).items
    assert [(one["actor_kind"], one["actor_id"], one["account"]) for one in begun] == [
        ("visitor", "ana@globex", "globex")
    ]


def test_an_invented_code_writes_nothing(kw: Keywright) -> None:
    """What a stranger tries changes no file: the trail stands where it stood, and so does every visit."""
    link = kw.portal.open(account="globex", subject="ana@globex")
    before = kw.installation.trail.head(), kw.portal.list()

    for code in ("invented", code_of(link)[:-1], code_of(link) + "A"):
        with pytest.raises(NotFound):
            kw.portal.enter(code)

    assert (kw.installation.trail.head(), kw.portal.list()) == before


@pytest.mark.sqlite_only("reads the files")
@pytest.mark.security("K-10")
def test_no_file_holds_what_opens_a_visit(kw: Keywright, tmp_path: Path) -> None:
    """Neither the code of a link nor what the cookie holds is in any file of the installation, nor in the trail."""
    link = kw.portal.open(account="globex", subject="ana@globex")
    before = code_of(link)
    cookie = kw.portal.enter(before).token
    kw.portal.find(cookie)
    waiting = code_of(kw.portal.open(account="globex", subject="bob@globex"))
    told = str(list(kw.installation.trail.walk()))

    for secret in (before, cookie, waiting):
        assert secret not in told
        assert secret not in repr(link)
        for file in tmp_path.rglob("*"):
            assert not file.is_file() or secret.encode() not in file.read_bytes(), file


# ------------------------------------------------------------------------------------------------------------ the visit


def test_a_visit_ends_by_itself(kw: Keywright, clock: Clock) -> None:
    """After an hour of silence it is over, and eight hours after it was allowed, however busy; each page view keeps it."""
    silent, _ = visit(kw)
    clock.advance(seconds=IDLE - 1)
    assert kw.portal.find(silent) is not None
    clock.advance(seconds=IDLE)
    assert kw.portal.find(silent) is None

    busy, session = visit(kw)
    for _ in range(LONGEST // 1800 - 1):
        clock.advance(seconds=1800)
        assert kw.portal.find(busy) is not None
    assert state(kw, session.id) == "open"
    clock.advance(seconds=1800)
    assert kw.portal.find(busy) is None
    assert state(kw, session.id) == "ended"
    assert kw.portal.left(busy) is not None


def test_when_it_was_seen_is_not_written_where_the_keys_are(kw: Keywright, clock: Clock) -> None:
    """A page view notes the visit in the usage file; of the keys file nothing changes, not even the trail."""
    token, session = visit(kw)
    before = kw.installation.trail.head()
    clock.advance(seconds=120)
    found = kw.portal.find(token)

    assert found is not None
    assert kw.portal.get(session.id).seen_at == clock()
    assert kw.installation.trail.head() == before
    with kw.installation.database.read("usage") as connection:
        seen = connection.exec_driver_sql("SELECT session, at FROM seen").all()
    assert [tuple(row) for row in seen] == [(session.id, clock())]


def test_what_is_over_is_forgotten_a_day_later(kw: Keywright, clock: Clock) -> None:
    """A day after its end a visit is gone from the list with the next link that is made, and one that goes on stays."""
    token, old = visit(kw)
    clock.advance(seconds=LONGEST + KEPT)
    _, kept = visit(kw)
    assert [one.id for one in kw.portal.list().items] == [kept.id, old.id]
    clock.advance(seconds=1)
    _, new = visit(kw)

    assert [one.id for one in kw.portal.list().items] == [new.id, kept.id]
    assert kw.portal.left(token) is None


def test_visits_are_ended_by_one_or_by_whose_they_are(kw: Keywright) -> None:
    """One by its id, all of a subject, or all of an account, with links that wait; in every process, and nobody else's."""
    ana, bob, other = visit(kw), visit(kw, subject="bob@globex"), visit(kw, "initech")
    waits = kw.portal.open(account="globex", subject="ana@globex")
    with again(kw) as elsewhere:
        assert kw.portal.end(bob[1].id).state == "ended"
        assert kw.portal.end(bob[1].id).state == "ended"
        assert [elsewhere.portal.find(one[0]) is None for one in (ana, bob, other)] == [False, True, False]
        assert kw.portal.end_all(account="globex", subject="ana@globex") == 2
        assert [elsewhere.portal.find(one[0]) is None for one in (ana, bob, other)] == [True, True, False]
        with pytest.raises(NotFound):
            elsewhere.portal.enter(code_of(waits))
        assert kw.portal.end_all(account="globex") == 0
        assert kw.portal.end_all(account="initech") == 1
        assert elsewhere.portal.find(other[0]) is None
    told = kw.installation.trail.list(action="portal.end").items
    assert len(told) == 4
    for name in ("nobody", "keywright"):
        with pytest.raises(NotFound):
            kw.portal.end_all(account=name)


def test_a_list_goes_on_where_it_ended(kw: Keywright, clock: Clock) -> None:
    """Newest first, each once over pages, narrowed by account and subject; the cursor of another list is refused."""
    made = []
    for n in range(5):
        made.append(kw.portal.open(account="globex", subject=f"s{n % 2}").session.id)
        clock.advance(seconds=n % 2)  # two of them in the same instant
    kw.portal.open(account="initech", subject="s0")
    found: list[PortalSession] = []
    page = kw.portal.list(account="globex", limit=2)
    first = page.next_cursor
    found += page.items
    while page.next_cursor:
        page = kw.portal.list(account="globex", limit=2, cursor=page.next_cursor)
        found += page.items

    assert sorted(one.id for one in found) == sorted(made)
    assert [one.created_at for one in found] == sorted((one.created_at for one in found), reverse=True)
    assert {one.subject for one in kw.portal.list(account="globex", subject="s1").items} == {"s1"}
    for narrow in ({"account": "initech"}, {}, {"account": "globex", "subject": "s1"}):
        with pytest.raises(Invalid, match="cursor"):
            kw.portal.list(**narrow, cursor=first)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ no more than who let them in


@pytest.mark.security("T-20", "A-15")
def test_a_visit_ends_with_the_key_that_let_it_in(kw: Keywright, clock: Clock) -> None:
    """Disabled, invalidated, deleted, expired, or its maker shut out: each is over at the next request, and its links too."""
    management = kw.installation.management_keys
    begin(kw, "operator", email="op@example.com")
    maker = begin(kw, "operator")[1].person
    person = Actor("person", maker.id)
    stops = {
        "disabled": lambda key: management.disable(key.key.id),
        "invalidated": lambda key: management.invalidate(key.key.id),
        "deleted": lambda key: management.delete(key.key.id),
        "expired": lambda _key: clock.advance(seconds=60),
        "its maker": lambda _key: kw.installation.people.disable(maker.id),
    }
    for how, stop in stops.items():
        soon = clock() + 60_000_000 if how == "expired" else None
        key = host(kw, expires_at=soon, actor=person)
        token = kw.portal.enter(code_of(asked(kw, key))).token
        waits = asked(kw, key)
        assert kw.portal.find(token) is not None, how
        assert waits.session.ends_at == (soon or clock() + LONGEST * 1_000_000), how

        stop(key)

        assert kw.portal.find(token) is None, how
        with pytest.raises(NotFound, match=GONE):
            kw.portal.enter(code_of(waits))
        assert state(kw, waits.session.id) == "ended", how
    key = host(kw)
    token = kw.portal.enter(code_of(asked(kw, key))).token
    management.disable(key.key.id)
    management.enable(key.key.id)
    assert kw.portal.find(token) is not None


@pytest.mark.security("T-20")
@pytest.mark.parametrize("role", ["admin", "developer", "analyst", "auditor"])
@pytest.mark.parametrize("preview", [False, True], ids=["visit", "preview"])
def test_a_visit_holds_no_right_that_its_grantor_lacks(kw: Keywright, role: Role, preview: bool) -> None:
    """With every right of the role a link is made; with any one of them missing it is not, and nothing is written."""
    rights = of_visit(role, preview=preview)
    link = asked(kw, host(kw, "portal:write", *sorted(rights)), role=role, preview=preview)
    session = kw.portal.enter(code_of(link)).session
    before = kw.portal.list()

    assert session.rights == rights
    assert ("keys:write" in rights) is (role in ("admin", "developer") and not preview)
    assert not rights & {
        "people:read",
        "audit:read",
        "webhooks:read",
        "management-keys:read",
        "accounts:read",
    }
    for right in sorted(rights):
        lesser = host(kw, "portal:write", *sorted(rights - {right}))
        with pytest.raises(Exceeds, match=f"lacks {right}"):
            asked(kw, lesser, role=role, preview=preview)
    assert kw.portal.list() == before


def test_nobody_becomes_an_owner_or_something_else(kw: Keywright) -> None:
    """A role that is none, or owner, is refused; so is what a role cannot give, and what is in no keyspace that is seen."""
    for wrong in (
        {"role": "owner"},
        {"role": "root"},
        {"role": "analyst", "access": "read_only"},
        {"access": "restricted"},
        {"access": "all", "scopes": ["things:read"]},
        {"access": "restricted", "scopes": ["no:such"]},
        {"keyspace": "every", "access": "restricted", "scopes": ["contacts:read"]},
        {"environment": "production"},
        {"keyspace": "every", "environment": "nowhere"},
        {"subject": " "},
        {"subject": "a\nb"},
    ):
        with pytest.raises(Invalid):
            visit(kw, **wrong)  # type: ignore[arg-type]
    for where in (
        {"account": "nobody"},
        {"account": "keywright"},
        {"keyspace": "nothing"},
        {"keyspace": "keywright"},
    ):
        with pytest.raises(NotFound):
            kw.portal.open(**{"account": "globex", "subject": "ana"} | where)
    assert kw.portal.list().items == ()


@pytest.mark.security("T-17", "T-18")
def test_a_bound_key_binds_its_visits(kw: Keywright) -> None:
    """What a bound key lets in is bound as it is, and what lies outside it does not see, make or end."""
    bound = Reach(account="globex", keyspace="every", environment="production")
    link = kw.portal.open(account="globex", subject="ana@globex", reach=bound)
    wide = kw.portal.open(account="globex", subject="ana@globex")
    foreign = kw.portal.open(account="initech", subject="ana@initech")

    assert (link.session.keyspace, link.session.environment) == ("every", "production")
    assert [one.id for one in kw.portal.list(reach=bound).items] == [link.session.id]
    for outside in (
        {"account": "initech"},
        {"keyspace": "default"},
        {"keyspace": "every", "environment": "staging"},
    ):
        with pytest.raises(NotFound):
            kw.portal.open(**{"account": "globex", "subject": "x"} | outside, reach=bound)
    for one in (wide, foreign):
        for verb in (kw.portal.get, kw.portal.end):
            with pytest.raises(NotFound):
                verb(one.session.id, reach=bound)  # type: ignore[operator]
    with pytest.raises(NotFound):
        kw.portal.end_all(account="initech", reach=bound)
    assert kw.portal.end_all(account="globex", reach=bound) == 1
    assert [state(kw, one.session.id) for one in (link, wide, foreign)] == ["ended", "waiting", "waiting"]


def test_a_person_only_looks_on(kw: Keywright) -> None:
    """An operator opens previews and nothing else, and they end when the operator is none any more."""
    begin(kw, "operator", email="op@example.com")
    operator = begin(kw, "operator")[1].person
    as_operator = Actor("person", operator.id)
    with pytest.raises(Invalid, match="preview"):
        kw.portal.open(account="globex", subject="ana@globex", actor=as_operator)
    link = kw.portal.open(account="globex", subject="ana@globex", preview=True, actor=as_operator)
    token = kw.portal.enter(code_of(link)).token
    assert kw.portal.find(token) is not None

    kw.installation.people.dismiss(operator.id)

    assert kw.portal.find(token) is None


# ------------------------------------------------------------------------------------------------- the way back, the URL


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example.com/", "https://", "https:///x", "//app.example.com", "javascript:alert(1)", "data:text/html,x",
        "https://ana@app.example.com/", "https://app.example.com:x/", "https://app.example.com/#a", "https://app.example.com/ x",
        "https://app.example.com/\\x", 'https://app.example.com/"x', "https://app.example.com/\r\nX: y", "HTTPS://app.example.com",
        "http://127.0.0.1.example.com/", "http://localhost.example.com/", "https://app.example.com/é", "https://a b.example.com",
        "https://app.example.com;script-src", "https://-.\n", "http://[::1]/", "https://app.example.com/" + "x" * 2000,
    ],
)  # fmt: skip
def test_the_way_back_is_plain_and_secure(kw: Keywright, url: str) -> None:
    """Whatever is not https, or http to this machine, in characters that need no escape, is refused when a link is made."""
    with pytest.raises(Invalid, match="return_url"):
        kw.portal.open(account="globex", subject="ana@globex", return_url=url)


def test_the_way_back_is_to_a_host_that_the_settings_name(kw: Keywright, clock: Clock) -> None:
    """Where the settings name hosts, a link leads back to them and to no other; where they name none, to any."""
    for url in (
        "https://app.example.com", "https://app.example.com:8443/settings?tab=keys", "http://127.0.0.1:3000/", "http://localhost/x",
    ):  # fmt: skip
        assert kw.portal.open(account="globex", subject="ana", return_url=url).session.return_url == url
    database = kw.installation.database
    secret = None if database.is_sqlite else SECRET
    hosts = ("app.example.com", "localhost")
    with open_installation(database.url, secret=secret, clock=clock, portal_hosts=hosts) as named:
        named.portal.open(account="globex", subject="ana", return_url="https://App.example.com/x")
        named.portal.open(account="globex", subject="ana", return_url="http://localhost:3000/")
        for url in (
            "https://evil.example/",
            "https://app.example.com.evil.example/",
            "https://example.com/",
            "http://127.0.0.1/",
        ):
            with pytest.raises(Invalid, match="portal_hosts"):
                named.portal.open(account="globex", subject="ana", return_url=url)


# ----------------------------------------------------------------------------------------------------------- migration


def test_a_database_of_before_gets_the_portal(kw: Keywright) -> None:
    """A database at the first migration, with keys in it, is brought up to date; its keys stay, and visits begin."""
    key = make(kw)
    database = kw.installation.database
    as_first_made(database)
    kw.close()

    with open_installation(
        database.url, secret=None if database.is_sqlite else SECRET, clock=Clock(), may_migrate=True
    ) as opened:
        assert opened.keys.get(key.key.id).name == key.key.name
        link = opened.portal.open(account="globex", subject="ana@globex")
        assert opened.portal.enter(code_of(link)).session.visit is not None
