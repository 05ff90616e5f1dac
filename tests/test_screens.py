"""What a console of keys must have, row by row (the screens of ``docs/requirements.toml``), as far as no script is involved."""

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest

from conftest import EVERY, bearer, make
from keywright import Keywright
from keywright.cli.keys import command, show_key
from keywright.model import Issued
from keywright.testing import Clock
from people import PASSWORD, as_person, begin
from surfaces import Door, server
from test_console import KEYS, ONCE, Begun, new_key, post, signed_in, text

AT = "/console/@globex/default/keys"
FROM = "198.51.100.7"
DAY = 86_400 * 1_000_000
FILLED = {
    "name": "CRM sync", "description": "Nightly", "environment": "production", "access": "restricted", "scopes": "contacts:read",
    "expires": "30d", "team": "Sales", "application": "Importer", "limits": "rate:100/10s\n10000/day\ncredits:500",
    "allowed_ips": "198.51.100.0/24", "metadata": '{"order": 7}', "once": ONCE,
}  # fmt: skip


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def read(door: Door, path: str, begun: Begun) -> str:
    """A page as its reader sees it, without markup."""
    reply = door.get(path, signed_in(begun))
    assert reply.status == 200, path
    return plain(text(reply))


def plain(markup: str) -> str:
    """Markup without its tags."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def use(kw: Keywright, key: Issued, times: int = 1, **asked: Any) -> list[str]:
    """Requests with a key, from one address; what each was told."""
    where = {"keyspace": key.key.keyspace, "environment": key.key.environment, "ip": FROM}
    codes = [
        kw.verify(bearer(key), **({"authenticate_only": True} | where | asked)).code for _ in range(times)
    ]
    kw.installation.meter.flush()
    return codes


def row(page: str, key: Issued) -> str:
    """The row of a key in the list, as markup."""
    found = re.search(rf'<tr id="{key.key.id}">(.*?)</tr>', page, re.DOTALL)
    assert found is not None
    return found[1]


# ---------------------------------------------------------------------------------------------------------------- create


@pytest.mark.screen("U-01", "U-02", "U-03", "U-05", "U-06", "U-09", "U-10", "U-18", "U-19", "U-20", "U-21")
def test_the_form_takes_all_that_a_key_has(door: Door, kw: Keywright, clock: Clock) -> None:
    """Name with its limit, description, access with its scopes, expiry, team, limits, networks and metadata become the key's."""
    begun = begin(kw, "admin")
    form = text(door.get(f"{AT}/new", signed_in(begun)))

    assert "up to 200 characters" in form
    assert 'maxlength="200" required' in form
    for field in FILLED:
        assert f'name="{field}"' in form, field
    assert all(f'value="{choice}"' in form for choice in ("never", "7d", "30d", "90d", "365d", "on"))
    assert all(f'name="access" value="{kind}"' in form for kind in ("all", "read_only", "restricted"))
    cells = re.search(r'<th scope="row">contacts</th>(.*?)</tr>', form, re.DOTALL)
    assert cells is not None
    assert [plain(cell) for cell in cells[1].split("</td>")[:2]] == [
        "Read contacts", "Create and change contacts"
    ]  # fmt: skip

    assert post(door, kw, AT, begun, FILLED).status == 200
    key = kw.keys.list(account="globex").items[0]
    assert (key.name, key.description, key.team, key.application) == (
        "CRM sync", "Nightly", "Sales", "Importer"
    )  # fmt: skip
    assert key.allowed_ips == ("198.51.100.0/24",)
    assert (key.access, key.scopes, key.metadata) == ("restricted", ("contacts:read",), {"order": 7})
    assert key.expires_at == clock() - clock() % 1_000_000 + 30 * DAY
    assert [(one.kind, one.limit) for one in key.limits] == [
        ("rate", 100), ("quota", 10_000), ("credits", 500)
    ]  # fmt: skip
    assert post(door, kw, AT, begun, FILLED | {"name": "x" * 201, "once": "1" * 32}).status == 422


@pytest.mark.screen("U-04")
def test_whose_a_key_is_is_chosen(door: Door, kw: Keywright) -> None:
    """A member of two accounts is told for which one a key is made, led to the other, and makes one there."""
    begin(kw, "admin", email="ana@globex.example")
    again = kw.installation.people.invite("ana@globex.example", account="initech", role="admin")
    followed = kw.installation.sessions.follow(again.token, PASSWORD)
    begun = followed.token, followed.session

    assert "It belongs to the account globex ; make it for initech instead" in read(door, f"{AT}/new", begun)
    assert f'href="{AT.replace("globex", "initech")}/new"' in text(door.get(f"{AT}/new", signed_in(begun)))
    assert post(door, kw, AT.replace("globex", "initech"), begun, FILLED).status == 200
    assert [key.account for key in kw.keys.list().items] == ["initech"]


@pytest.mark.screen("U-11")
@pytest.mark.parametrize(
    ("access", "scopes", "barred"),
    [
        ("all", (), set()),
        ("read_only", (), {"all", "contacts:write", "messages:write"}),
        ("restricted", ("messages:write",), {"all", "read_only", "contacts:read", "contacts:write", "messages:read"}),
    ],
    ids=["all", "read only", "restricted"],
)  # fmt: skip
def test_what_one_may_not_give_is_disabled(
    door: Door, kw: Keywright, access: str, scopes: tuple[str, ...], barred: set[str]
) -> None:
    """Whatever a member may not give cannot be chosen, and says why; sent all the same, it is refused."""
    begun = begin(kw, "developer", access=access, scopes=scopes)
    key_id = make(kw, keyspace="default").key.id

    for path in (f"{AT}/new", f"{AT}/{key_id}/edit"):
        form = text(door.get(path, signed_in(begun)))
        shut = re.findall(r'name="(?:access|scopes)" value="([^"]+)"[^>]* disabled', form)
        assert set(shut) == barred
        assert form.count("not yours to give") == len(barred)
    for scope in barred & {"contacts:read", "contacts:write"}:
        assert post(door, kw, AT, begun, FILLED | {"scopes": scope}).status == 403
    assert len(kw.keys.list(account="globex").items) == 1


@pytest.mark.screen("U-11")
def test_a_form_that_asks_no_access_asks_whom_it_must(door: Door, kw: Keywright) -> None:
    """Where a keyspace gives everything unasked, a member who may not is asked what to give, and can make a key."""
    kw.keyspaces.apply(EVERY + '[fields]\nask = ["name"]\n')
    begun = begin(kw, "developer", access="read_only")

    assert 'name="access" value="read_only"' in text(door.get(f"{KEYS}/new", signed_in(begun)))
    assert post(door, kw, KEYS, begun, new_key(access="read_only")).status == 200
    assert kw.keys.list(account="globex").items[0].access == "read_only"


# ------------------------------------------------------------------------------------------------------------------ list


@pytest.mark.screen("U-34", "U-35", "U-36", "U-37", "U-38", "U-40", "U-41", "U-43")
def test_the_row_of_a_key(door: Door, kw: Keywright, clock: Clock) -> None:
    """A row has id, masked end, what it may, when and by whom it was made, its last use and from where, its end, its hours."""
    begun = begin(kw, "admin", email="ana@globex.example")
    person = begun[1].person
    scopes = {"access": "restricted", "scopes": "contacts:read", "expires": "90d"}
    post(door, kw, AT, begun, FILLED | scopes | {"allowed_ips": "", "limits": ""})
    key = kw.keys.list(account="globex").items[0]
    idle = make(kw, keyspace="default")
    rotated = kw.keys.rotate(key.id)
    use(kw, rotated, 3)
    clock.advance(minutes=5)

    page = text(door.get(AT, signed_in(begun)))
    mine, other = row(page, rotated), row(page, idle)
    hint = rotated.key.secrets[0].hint
    assert rotated.credential.token.reveal() not in page
    told = plain(mine)
    for part in (
        key.id, f"token ends with …{hint['token']}", f"secret ends with …{hint['secret']}", "contacts:read",
        f"5 minutes ago by {person.name}", "expires in 2 months", f"5 minutes ago from {FROM}",
    ):  # fmt: skip
        assert part in told, part
    assert "Requests of the last 36 hours" in mine
    assert ("never" in plain(other), "quiet" in plain(other), "the library" in plain(other)) == (True,) * 3
    assert "never expires" in plain(other)
    assert "All access" in plain(other)


@pytest.mark.screen("U-42", "U-65")
def test_a_badge_says_the_worst(door: Door, kw: Keywright, clock: Clock) -> None:
    """Each state and each trouble of a key has a badge of its own, in the list and on its page."""
    old = make(kw, name="Unused")
    clock.advance(days=40)
    made = {
        "Invalidated": make(kw), "Expired": make(kw, expires_at=clock() + 60_000_000), "Disabled": make(kw), "Rotating": make(kw),
        "Quota used up": make(kw, limits=["2/day"]), "Rate limited": make(kw, limits=["rate:2/10s"]), "Many refusals": make(kw),
        "Expires soon": make(kw, expires_at=clock() + 3 * DAY), "Never used": make(kw), "Active": make(kw), "Unused": old,
    }  # fmt: skip
    kw.keys.invalidate(made["Invalidated"].key.id)
    kw.keys.disable(made["Disabled"].key.id)
    kw.keys.rotate(made["Rotating"].key.id, grace_seconds=3600)
    assert use(kw, made["Quota used up"], 3)[-1] == "quota_exhausted"
    assert use(kw, made["Rate limited"], 3)[-1] == "rate_limited"
    use(kw, made["Many refusals"], 2)
    assert use(kw, made["Many refusals"], environment="staging") == ["wrong_environment"]
    use(kw, made["Active"])
    clock.advance(minutes=2)

    begun = begin(kw, "admin")
    page = text(door.get(KEYS, signed_in(begun)))
    for badge, key in made.items():
        assert re.findall(r'class="mark mark-(?:good|bad|off|warn)">([^<]+)<', row(page, key))[-1] == badge
        own = text(door.get(f"{KEYS}/{key.key.id}", signed_in(begun)))
        assert f">{badge}</span></h1>" in own


@pytest.mark.screen("U-46")
def test_columns_are_sorted_by_their_heads(door: Door, kw: Keywright, clock: Clock) -> None:
    """The heads of name and creation sort by them, once more the other way, and tell how the list stands."""
    begun = begin(kw, "admin")
    for name in ("Beta", "Alpha", "Gamma"):
        make(kw, name=name)
        clock.advance(seconds=1)

    def order(query: str) -> tuple[list[str], list[str]]:
        page = text(door.get(f"{KEYS}{query}", signed_in(begun)))
        return re.findall(r"<bdi>(Alpha|Beta|Gamma)</bdi></a>", page), re.findall(r'aria-sort="(\w+)"', page)

    assert order("") == (["Gamma", "Alpha", "Beta"], ["descending"])
    links = re.findall(
        r'href="[^"]*/keys\?(sort=[^"]+)"', text(door.get(f"{KEYS}?sort=name", signed_in(begun)))
    )
    assert links == ["sort=-name", "sort=-created_at"]
    assert order("?sort=name") == (["Alpha", "Beta", "Gamma"], ["ascending"])
    assert order("?sort=-name") == (["Gamma", "Beta", "Alpha"], ["descending"])
    assert order("?sort=created_at") == (["Beta", "Alpha", "Gamma"], ["ascending"])


@pytest.mark.screen("U-45")
def test_a_view_is_a_link(door: Door, kw: Keywright, clock: Clock) -> None:
    """Every filter stands in the address, what wants looking after too, and bulk acts meet what it leaves."""
    old = make(kw, name="Old one", team="Sales")
    clock.advance(days=31)
    new, begun = make(kw, name="New one"), begin(kw, "admin")

    for query, there in (
        ("hygiene=unused", old),
        ("team=Sales", old),
        ("q=new", new),
        ("hygiene=expiring", None),
    ):
        page = text(door.get(f"{KEYS}?{query}", signed_in(begun)))
        for key in (old, new):
            assert (f'id="{key.key.id}"' in page) is (key is there), query
    form = {"act": "disable", "every": "yes", "hygiene": "unused", "sure": "yes", "name": "globex"}
    assert post(door, kw, f"{KEYS}/bulk", begun, form).status == 303
    assert [kw.keys.get(key.key.id).state for key in (old, new)] == ["disabled", "active"]


@pytest.mark.screen("U-49", "U-50")
def test_three_blank_pages(door: Door, kw: Keywright) -> None:
    """No key yet says how to make and send one, nothing found how to see all, not allowed whom to ask: three pages."""
    begun = begin(kw, "admin", email="ana@globex.example")
    at = "/console/@globex/gallabox/keys"
    empty = read(door, at, begun)
    make(kw, keyspace="gallabox")
    nothing = text(door.get(f"{at}?q=nobody", signed_in(begun)))
    refused = door.get(at, signed_in(begin(kw, "analyst")))

    assert "No API key yet." in empty
    assert "-H 'apiKey: YOUR_KEY_ID' -H 'apiSecret: YOUR_SECRET'" in empty
    assert "+ Add new" in empty
    assert "Nothing matches." in nothing
    assert f'href="{at}">Show every API key' in nothing
    assert refused.status == 403
    assert "Ask ana@globex.example." in text(refused)


@pytest.mark.screen("U-60", "U-61")
def test_what_was_ended_stays_in_sight(door: Door, kw: Keywright) -> None:
    """An invalidated key stays in the list and under its filter; its page says why it ended."""
    begun, key = begin(kw, "admin"), make(kw)
    form = {"reason": "It stood in a repository."}
    assert post(door, kw, f"{KEYS}/{key.key.id}/invalidate", begun, form).status == 303

    for path in (KEYS, f"{KEYS}?state=invalidated"):
        assert "Invalidated" in row(text(door.get(path, signed_in(begun))), key)
    assert f'id="{key.key.id}"' not in text(door.get(f"{KEYS}?state=active", signed_in(begun)))
    assert "It stood in a repository." in read(door, f"{KEYS}/{key.key.id}", begun)


# ---------------------------------------------------------------------------------------------------------------- change


@pytest.mark.screen("U-52", "U-53")
def test_a_live_key_is_renamed_and_given_less(door: Door, kw: Keywright, key: Issued) -> None:
    """Edited, a key keeps its secret and obeys its new access at the next request; its metadata is what was typed."""
    begun = begin(kw, "admin")
    asked = {"authenticate_only": False, "scopes": ["things:write"], "method": "POST"}
    assert use(kw, key, **asked) == ["ok"]
    form = {"name": "Renamed", "access": "read_only", "expires": "keep", "metadata": '{"a": [1]}'}

    assert post(door, kw, f"{KEYS}/{key.key.id}/edit", begun, form).status == 303

    assert use(kw, key, **asked) == ["insufficient_scope"]
    assert use(kw, key) == ["ok"]
    page = read(door, f"{KEYS}/{key.key.id}", begun)
    assert "Renamed" in page
    assert '"a": [ 1 ]' in page
    assert post(door, kw, f"{KEYS}/{key.key.id}/edit", begun, form | {"metadata": "{"}).status == 422
    assert post(door, kw, f"{KEYS}/{key.key.id}/edit", begun, form | {"metadata": ""}).status == 303
    assert kw.keys.get(key.key.id).metadata == {}


@pytest.mark.screen("U-54", "U-55", "U-56")
@pytest.mark.parametrize(
    ("form", "hours"),
    [({"grace": "3600"}, 1), ({"grace": "hours", "hours": "5"}, 5), ({"grace": "0"}, 0)],
    ids=["to choose", "typed", "at once"],
)
def test_a_rotation_keeps_the_id_and_the_grace_that_was_chosen(
    door: Door, kw: Keywright, key: Issued, clock: Clock, form: dict[str, str], hours: int
) -> None:
    """Under the same id both secrets work for the time that was chosen, and then the new one alone."""
    begun = begin(kw, "admin")
    shown = post(door, kw, f"{KEYS}/{key.key.id}/rotate", begun, form)
    token = re.search(r'id="key-token"[^>]*>([^<]+)<', text(shown))
    assert token is not None
    new = {"Authorization": f"Bearer {token[1]}"}

    def both() -> list[str]:
        asked = {"authenticate_only": True, "keyspace": "every", "environment": "production"}
        return [kw.verify(headers, **asked).code for headers in (new, bearer(key))]

    assert key.key.id in token[1]
    if hours:
        clock.advance(hours=hours, seconds=-1)
        assert both() == ["ok", "ok"]
        clock.advance(seconds=1)
    assert both() == ["ok", "rotated"]


@pytest.mark.parametrize("hours", ["", "721", "-1", "1.5", "x" * 50])
def test_hours_that_are_none_rotate_nothing(door: Door, kw: Keywright, key: Issued, hours: str) -> None:
    """A grace that is no number of hours, or too many, is refused on the form, and the secret stays alone."""
    form = {"grace": "hours", "hours": hours}
    assert post(door, kw, f"{KEYS}/{key.key.id}/rotate", begin(kw, "admin"), form).status == 422
    assert len(kw.keys.get(key.key.id).secrets) == 1


@pytest.mark.screen("U-17")
def test_another_like_it(door: Door, kw: Keywright) -> None:
    """A key's page leads to the form filled with what the key has, and not with its name: sent, it makes its like."""
    begun = begin(kw, "admin")
    post(door, kw, AT, begun, FILLED)
    key = kw.keys.list(account="globex").items[0]
    link = re.search(r'href="([^"]+/keys/new[?][^"]+)"', text(door.get(f"{AT}/{key.id}", signed_in(begun))))
    assert link is not None

    form = text(door.get(unescape(link[1]), signed_in(begun)))
    assert re.search(r'id="name" name="name" value=""', form)
    for filled in (
        'value="contacts:read" data-title="read contacts" checked', 'value="Sales"', 'value="Importer"',
        'value="production" selected', "rate:100/10s\n10000/day\ncredits:500</textarea>", "198.51.100.0/24</textarea>",
        "Nightly</textarea>",
    ):  # fmt: skip
        assert filled in form, filled


@pytest.mark.screen("U-57")
def test_disabling_is_undone(door: Door, kw: Keywright, key: Issued) -> None:
    """One click stops a key, and another lets it work again."""
    begun = begin(kw, "admin")
    assert post(door, kw, f"{KEYS}/{key.key.id}/disable", begun, {}).status == 303
    assert use(kw, key) == ["disabled"]
    assert "Enable" in read(door, f"{KEYS}/{key.key.id}", begun)
    assert post(door, kw, f"{KEYS}/{key.key.id}/enable", begun, {}).status == 303
    assert use(kw, key) == ["ok"]


@pytest.mark.screen("U-58", "U-59", "U-39")
def test_what_stops_a_key_for_ever_says_who_uses_it(
    door: Door, kw: Keywright, key: Issued, clock: Clock
) -> None:
    """The dialogs say when, how often and from where a key was used, and what follows; in use, both want its name."""
    begun = begin(kw, "admin")
    at = f"{KEYS}/{key.key.id}"
    assert "It was never used." in read(door, f"{at}/delete", begun)
    assert 'name="name"' not in text(door.get(f"{at}/invalidate", signed_in(begun)))
    use(kw, key, 3)
    clock.advance(minutes=10)

    for act in ("delete", "invalidate"):
        page = read(door, f"{at}/{act}", begun)
        assert f"It was last used 10 minutes ago from {FROM}, 3 times in the last 24 hours" in page
        assert "This cannot be undone" in page
        assert "answered 401" in page
        assert "Type its name" in page
        for name in ("", "CRM"):
            assert post(door, kw, f"{at}/{act}", begun, {"name": name}).status == 422
    assert kw.keys.get(key.key.id).state == "active"
    assert post(door, kw, f"{at}/invalidate", begun, {"name": "CRM sync"}).status == 303
    assert kw.keys.get(key.key.id).state == "invalidated"


# --------------------------------------------------------------------------------------------------------------- insight


@pytest.mark.screen("U-62", "U-63", "U-64", "U-66")
def test_the_page_of_a_key(door: Door, kw: Keywright, key: Issued, clock: Clock) -> None:
    """It has the key's counts by day, outcome and resource, its refusals with their reasons, and one that is asked for by id."""
    begun = begin(kw, "admin")
    at = f"{KEYS}/{key.key.id}"
    use(kw, key, 2, resource="contacts")
    use(kw, key, environment="staging")
    refused = kw.installation.refusals.list(key=key.key.id).items[0].refusal
    stranger = make(kw, account="initech")
    use(kw, stranger, environment="staging")
    other = kw.installation.refusals.list(key=stranger.key.id).items[0].refusal

    page = read(door, at, begun)
    days = json.loads(
        re.findall(r"<usage-chart><script[^>]*>([^<]+)<", text(door.get(at, signed_in(begun))))[0]
    )
    assert days[1][-1] == {"ok": 2, "wrong_environment": 1}
    assert "Let in ok 2" in page
    assert "The API key belongs to another environment wrong_environment 1" in page
    assert "contacts 2 0" in page
    assert refused.request_id in page
    assert refused.request_id in read(door, f"{at}?request={refused.request_id}", begun)
    for none in (other.request_id, "none"):
        found = read(door, f"{at}?request={none}", begun)
        assert "No request with that id was refused with this key" in found
        assert refused.request_id not in found
    assert "Nobody has used it" not in page
    clock.advance(days=31)
    assert "Nobody has used it for thirty days" in read(door, at, begin(kw, "owner"))


@pytest.mark.screen("U-67")
def test_a_key_says_when_it_ends_unused(
    door: Door, kw: Keywright, key: Issued, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its page and ``keys get`` say on which day it ends; near it list, page and hygiene say so, and behind it why it has."""
    kw.keyspaces.apply(EVERY + '[expiry]\nunused = "180d"\n')
    at, begun = f"{KEYS}/{key.key.id}", begin(kw, "admin")
    assert "Ends unused on 14 July 2027 (" in read(door, at, begun)
    show_key(kw.keys.get(key.key.id), clock(), as_json=False)
    assert "2027-07-14T12:00:30Z, if nobody uses it" in capsys.readouterr().out

    clock.advance(days=170)
    kw.installation.lookout.round()
    begun = begin(kw, "developer")
    assert "Ends unused" in row(text(door.get(KEYS, signed_in(begun))), key)
    assert "it ends within fourteen days if that stays so" in read(door, at, begun)
    assert "Ending unused" in read(door, "/console/@globex/hygiene", begun)
    for days in (14, 1):
        clock.advance(days=days)
        kw.installation.lookout.round()
    assert "Nobody had used it for as long as the keyspace lets" in read(door, at, begin(kw, "owner"))


@pytest.mark.requirement("X-21")
def test_what_else_a_keys_page_shows_the_api_tells(door: Door, kw: Keywright, key: Issued) -> None:
    """Its counts, refusals, history, alerts and what is used of its limits are those of the API."""
    begun = begin(kw, "admin")
    caller = as_person(kw, begun)
    kw.keys.edit(key.key.id, limits=["50/day", "rate:9/1h"])
    use(kw, key, 2, resource="contacts")
    use(kw, key, environment="staging")
    place = {"keyspace": "every", "environment": "production", "ip": FROM}
    assert kw.verify(bearer(key) | {"Origin": "https://shop.example"}, authenticate_only=True, **place)
    kw.installation.meter.settle()
    kw.installation.lookout.round()
    kw.keys.edit(key.key.id, name="Renamed")

    def told(path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = door.get(f"{path}={key.key.id}&account=globex", caller).json["items"]
        return found

    page = read(door, f"{KEYS}/{key.key.id}", begun)
    for row in told("/v1/usage?by=total&group=code&key"):
        assert f"{row['value']} {row['count']}" in page
    resources = [row for row in told("/v1/usage?by=total&group=resource&key") if row["value"]]
    assert [f"{row['value']} {row['codes']['ok']} 0" in page for row in resources] == [True]
    assert [one["request_id"] in page for one in told("/v1/refusals?key")] == [True]
    assert [ACTS[one["action"]] in page for one in told("/v1/audit?target")] == [True] * 3
    held = door.get(f"/v1/keys/{key.key.id}/limits", caller).json["items"]
    assert [(one["kind"], one["used"], one["remaining"]) for one in held] == [
        ("quota", 3, 47),
        ("rate", 3, 6),
    ]
    assert "3 of 50/day" in page
    assert "3 of rate:9/1h" in page
    alerts = told("/v1/alerts?key")
    assert "browser" in {one["rule"] for one in alerts}
    assert all(one["says"] in page for one in alerts)


ACTS = {"key.create": "made the key", "key.edit": "changed the key"}


def test_usage_adds_up_whatever_is_shown(door: Door, kw: Keywright, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of usage has the busiest keys and the rest in one row: let in and refused, they add up to all."""
    monkeypatch.setattr("keywright.server.console.audit.MOST", 2)
    begun = begin(kw, "admin")
    made = [make(kw, name=f"Key {n}") for n in range(4)]
    for n, key in enumerate(made):
        use(kw, key, n + 1)
        use(kw, key, environment="staging")

    page = text(door.get("/console/@globex/usage", signed_in(begun)))
    rows = [plain(row) for row in re.findall(r"<tr>(<td><bdi>Key.*?|<td class=\"faint\">all.*?)</tr>", page)]
    assert rows == [f"Key 3 {made[3].key.id} 4 1", f"Key 2 {made[2].key.id} 3 1", "all others 3 2"]
    assert "14 requests in thirty days" in plain(page)


@pytest.mark.screen("U-70")
def test_every_act_has_a_command() -> None:
    """What the pages do with a key has a command; that each does the same by the API is the table of ``docs/console.md``."""
    acts = {
        "create",
        "list",
        "get",
        "edit",
        "rotate",
        "finish",
        "cancel",
        "disable",
        "enable",
        "invalidate",
        "delete",
        "verify",
    }
    assert acts <= set(command.commands)
