"""Usage as it is reported: what was counted, by whom, adding up whichever way it is cut."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.errors import Invalid
from keywright.model import Ask
from keywright.schemes import from_mapping
from keywright.testing import Clock
from people import as_person, begin
from processes import Folder
from surfaces import Door, manager, server

GROUPS = ("key", "account", "keyspace", "environment", "team", "application", "code", "resource")
ONE_ENVIRONMENT = """
name = "single"
title = "Single"
schemes = ["bearer"]
[environments]
production = "live"
[access]
classes = ["all"]
default = "all"
"""
EVERY = {"keyspace": "every", "environment": "production"}


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


@pytest.fixture
def told(kw: Keywright, clock: Clock) -> Counter[tuple[str | None, ...]]:
    """Calls over three days with keys of two teams, applications, accounts and environments, and by strangers."""
    keys = {
        "crm": make(kw, team="sales", application="crm"),
        "erp": make(kw, team="sales", application="erp", environment="staging"),
        "bot": make(kw, team="support", account="initech"),
        "old": make(kw, keyspace="default"),
    }
    happened: Counter[tuple[str | None, ...]] = Counter()
    for day in range(3):
        for n, issued in enumerate(keys.values()):
            for _ in range(n + day + 1):
                happened[use(kw, issued, "/things" if n % 2 else "/things/{id}")] += 1
        verdict = kw.verify({"X-Token": "nothing"}, **EVERY)
        happened[None, None, "every", "production", None, None, verdict.code, None] += 1
        clock.advance(days=1)
    kw.keys.delete(keys["old"].key.id)
    happened[use(kw, keys["old"], "/things")] += 1
    return happened


def test_some_keys_and_the_busiest(kw: Keywright, door: Door) -> None:
    """A report is of the keys that are named, or of so many that were told most; more than 200, or both, is refused."""
    made = [make(kw, name=f"Key {n}") for n in range(3)]
    for n, key in enumerate(made):
        for _ in range(n + 1):
            use(kw, key, "things")
    ids = [key.key.id for key in made]

    def told(query: str) -> dict[str, int]:
        reply = door.get(f"/v1/usage?by=total&group=key&account=globex&{query}", manager(kw))
        assert reply.status == 200, reply.body
        return {row["value"]: row["count"] for row in reply.json["items"]}

    assert told(f"keys={ids[0]}&keys={ids[2]}") == {ids[0]: 1, ids[2]: 3}
    assert told("busiest=2") == {ids[2]: 3, ids[1]: 2}
    assert told("busiest=200") == {ids[0]: 1, ids[1]: 2, ids[2]: 3}
    for wrong in ("busiest=0", "busiest=201", f"busiest=2&keys={ids[0]}", "busiest=2&group=code"):
        query = f"/v1/usage?by=total&account=globex&{'' if 'group' in wrong else 'group=key&'}{wrong}"
        assert door.get(query, manager(kw)).status == 422, wrong
    with pytest.raises(Invalid, match="keys: names more than 200"):
        kw.installation.usage.report(keys=["x"] * 201)


def use(kw: Keywright, issued: Issued, resource: str) -> tuple[str | None, ...]:
    """Call once with a key; what a report has to say of it, in the order of ``GROUPS``."""
    key = issued.key
    verdict = kw.verify(
        bearer(issued), keyspace=key.keyspace, environment=key.environment, resource=resource, method="GET"
    )
    if verdict.key is None:
        return None, None, key.keyspace, key.environment, None, None, verdict.code, resource
    place = key.account, key.keyspace, key.environment, key.team, key.application
    return key.id, *place, verdict.code, resource


def report(door: Door, kw: Keywright, query: str, **bound: str) -> Any:
    """The body of ``GET /v1/usage``."""
    reply = door.get(f"/v1/usage?{query}", manager(kw, "usage:read", **bound))
    assert reply.status == 200, reply.body
    found = reply.json
    assert sum(item["count"] for item in found["items"]) == found["total"]
    assert all(sum(item["codes"].values()) == item["count"] for item in found["items"])
    return found


@pytest.mark.requirement("B-13", "B-14", "B-20", "B-21", "B-22", "B-23")
@pytest.mark.parametrize("group", GROUPS)
def test_every_cut_adds_up(door: Door, kw: Keywright, told: Counter[Any], group: str) -> None:
    """By key, account, team, application, environment, code and resource the counts are those of the calls that were made."""
    expected: Counter[str | None] = Counter()
    for what, times in told.items():
        expected[what[GROUPS.index(group)]] += times

    found = report(door, kw, f"by=total&group={group}")

    assert {item["value"]: item["count"] for item in found["items"]} == dict(expected)
    assert found["total"] == told.total()


@pytest.mark.requirement("B-13", "B-23")
@pytest.mark.parametrize("place", range(len(GROUPS)))
def test_every_filter_takes_its_own(door: Door, kw: Keywright, told: Counter[Any], place: int) -> None:
    """Narrowed to each value of each field, a report has that value's calls and no other."""
    for value in {what[place] for what in told if what[place] is not None}:
        expected = sum(times for what, times in told.items() if what[place] == value)

        assert report(door, kw, f"by=total&{GROUPS[place]}={value}")["total"] == expected


@pytest.mark.requirement("B-13")
def test_days_hours_and_minutes_add_up(door: Door, kw: Keywright, told: Counter[Any], clock: Clock) -> None:
    """A day's counts stand at its midnight in UTC; hours and minutes of the whole time add up to the same."""
    days = report(door, kw, "by=day")
    window = "from=2027-01-15T00:00:00Z&to=2027-01-19T00:00:00Z"

    assert [item["at"] for item in days["items"]] == [f"2027-01-{day}T00:00:00Z" for day in (15, 16, 17, 18)]
    assert days["total"] == told.total()
    for by, at in (("hour", "2027-01-15T12:00:00Z"), ("minute", "2027-01-15T12:00:00Z")):
        found = report(door, kw, f"by={by}&{window}")
        assert (found["total"], found["items"][0]["at"]) == (told.total(), at)


def test_a_time_is_from_its_begin_to_before_its_end(door: Door, kw: Keywright, key: Issued) -> None:
    """The minute that a report begins in is in it, the one that it ends with is not."""
    use(kw, key, "/things")
    for window, count in (
        ("from=2027-01-15T12:00:59Z&to=2027-01-15T12:01:00Z", 1),
        ("from=2027-01-15T12:01:00Z&to=2027-01-15T13:00:00Z", 0),
        ("from=2027-01-15T11:00:00Z&to=2027-01-15T12:00:00Z", 0),
    ):
        assert report(door, kw, f"by=minute&{window}")["total"] == count


@pytest.mark.requirement("X-14")
def test_a_deleted_key_keeps_its_usage_and_name(door: Door, kw: Keywright, clock: Clock) -> None:
    """A deleted key's usage is still told under its id, name and team; once it is purged, under its id."""
    key = make(kw, name="Was here", team="sales")
    use(kw, key, "/things")
    kw.keys.delete(key.key.id)

    (found,) = report(door, kw, "by=total&group=key")["items"]
    assert (found["value"], found["count"]) == (key.key.id, 1)
    assert (found["key"]["name"], found["key"]["state"]) == ("Was here", "deleted")
    assert report(door, kw, "by=total&team=sales")["total"] == 1

    clock.advance(days=31)
    kw.keys.purge()
    (found,) = report(door, kw, "by=total&group=key")["items"]
    assert (found["value"], found["count"], found["key"]) == (key.key.id, 1, None)
    assert report(door, kw, f"by=total&key={key.key.id}")["total"] == 1


@pytest.mark.requirement("X-15")
@pytest.mark.security("T-17")
def test_a_bound_caller_sees_its_own(door: Door, kw: Keywright, told: Counter[Any]) -> None:
    """A bound caller's report holds what it is bound to, nothing of strangers, and another's things are 404."""
    for bound, places in (
        ({"account": "globex"}, {1: "globex"}),
        ({"keyspace": "every"}, {2: "every"}),
        ({"keyspace": "every", "environment": "staging"}, {2: "every", 3: "staging"}),
    ):
        expected = sum(
            times
            for what, times in told.items()
            if what[0] is not None and all(what[place] == value for place, value in places.items())
        )
        assert report(door, kw, "by=total&group=key", **bound)["total"] == expected > 0
    bot = next(what[0] for what in told if what[1] == "initech")
    for query in ("account=initech", "account=nobody", f"key={bot}", "key=nothing", "key="):
        reply = door.get(f"/v1/usage?{query}", manager(kw, "usage:read", account="globex"))
        assert (reply.status, reply.code) == (404, "not_found")


@pytest.mark.parametrize(
    "query", ["account=nobody", "account=keywright", "keyspace=nothing", "keyspace=keywright", "key=x"]
)
def test_what_nobody_has_is_404(door: Door, kw: Keywright, query: str) -> None:
    """A key, an account or a keyspace that does not exist is 404, and so are our own."""
    assert door.get(f"/v1/usage?{query}", manager(kw)).status == 404


def test_our_own_calls_are_not_counted_among_theirs(door: Door, kw: Keywright) -> None:
    """Calls of the management API, let in or refused, are in no customer's usage."""
    door.get("/v1/keys", manager(kw))
    door.get("/v1/keys")

    assert report(door, kw, "by=total")["total"] == 0


def test_the_only_environment_is_named(kw: Keywright, door: Door) -> None:
    """Where a keyspace has one environment and the call names none, its usage is that environment's."""
    kw.keyspaces.apply(ONE_ENVIRONMENT)
    key = make(kw, keyspace="single", environment=None)
    ask = Ask("single", authenticate_only=True)
    for given in (bearer(key), {}):
        kw.installation.engine.verify(ask, from_mapping(given), kw.installation.clock())

    found = report(door, kw, "by=total&group=environment&keyspace=single")["items"]
    assert [(item["value"], item["count"]) for item in found] == [("production", 2)]


def cells(page: str, heading: str) -> dict[str, tuple[int, int]]:
    """The rows of a page's table: let in and refused."""
    table = page.split(f">{heading}<", 1)[1].split("</table>", 1)[0]
    found = re.findall(
        r"<tr><td>(.*?)</td><td class=\"right\">(.*?)</td><td class=\"right\">(.*?)</td></tr>", table
    )
    return {re.sub(r"<[^>]+>", "", name).strip(): (int(ok), int(no)) for name, ok, no in found}


@pytest.mark.requirement("B-13", "B-14", "B-15")
def test_the_console_shows_exactly_that(door: Door, kw: Keywright, clock: Clock) -> None:
    """Seven calls with one key and three with another are shown by day, key, resource and answer, and against their quota."""
    admin = as_person(kw, begin(kw, "admin"))
    one, other = make(kw, name="One", limits=["5/day", "credits:100"]), make(kw, name="Other")
    for n in range(7):
        use(kw, one, "/things" if n % 2 else "/things/{id}")
    for _ in range(3):
        use(kw, other, "/things")
    kw.installation.meter.settle()

    page = door.get("/console/@globex/usage?keyspace=every", admin).body.decode()
    assert "10 requests in thirty days" in page
    days = {day: counts for day, counts in cells(page, "By day, in UTC").items() if counts != (0, 0)}
    assert days == {"15 January 2027": (8, 2)}
    assert cells(page, "By key") == {f"One {one.key.id}": (5, 2), f"Other {other.key.id}": (3, 0)}
    assert cells(page, "By resource") == {"/things": (5, 1), "/things/{id}": (3, 1)}
    assert cells(page, "By answer") == {"ok": (8, 0), "quota_exhausted": (0, 2)}
    shown = door.get(f"/console/@globex/every/keys/{one.key.id}", admin).body.decode()
    assert re.findall(r'"mark">([^<]+ of [^<]+)<', shown) == ["5 of 5/day", "5 of 100 credits"]
    assert "Used of them" not in door.get(f"/console/@globex/every/keys/{other.key.id}", admin).body.decode()


@pytest.mark.requirement("B-13")
def test_the_command_reports_the_same(template: Any, tmp_path: Any) -> None:
    """``keywright usage`` prints a table that adds up; ``--json`` is the body of the HTTP answer."""
    command = Folder(tmp_path, copy_of=template)
    with Keywright(command.database) as kw:
        key = make(kw, name="CRM sync", team="sales")
        for _ in range(3):
            use(kw, key, "/things")
        kw.keys.delete(key.key.id)
        use(kw, key, "/things")
        with Door(server(kw)) as door:
            body = report(door, kw, "by=total&group=key")

    printed = command("usage", "--by", "total", "--group", "key")
    said = command("usage", "--by", "total", "--group", "key", "--json").json

    assert "CRM sync (deleted)" in printed.out
    assert printed.out.splitlines()[-1] == "4 in all"
    assert said["items"] == body["items"]
    assert command("usage", "--team", "sales", "--from", "7d", "--json").json["total"] == 3
    assert command("usage", "--from", "x").code == 1
    assert command("usage", "--key", "nothing").code == 1
    assert command("usage", "--to", "7d").out == "nothing was counted in this time\n"
