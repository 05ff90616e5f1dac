"""Alerts in the console: who sees them, and what one click does."""

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from conftest import bearer, make
from keywright import Keywright
from keywright.model import Alert
from people import as_person, begin
from surfaces import Door, Reply, server


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


def raised(kw: Keywright, account: str = "globex") -> Alert:
    """An alert about a key of an account that still works: a web page sends it."""
    issued = make(kw, account=account)
    place = {"keyspace": "every", "environment": "production", "ip": "192.0.2.7"}
    assert kw.verify(bearer(issued) | {"Origin": "https://shop.example"}, **place)
    kw.installation.meter.settle()
    kw.installation.lookout.round()
    (alert,) = kw.installation.alerts.list(key=issued.key.id).items
    found: Alert = alert
    return found


def click(door: Door, person: dict[str, str], alert: Alert, act: str, home: str = "@globex") -> Reply:
    """Send an alert's form."""
    form = urlencode({"csrf": person["X-CSRF-Token"], "act": act}).encode()
    headers = person | {"Content-Type": "application/x-www-form-urlencoded"}
    return door.send("POST", f"/console/{home}/alerts/{alert.id}", headers, form)


@pytest.mark.requirement("B-18")
def test_an_alert_is_shown_where_its_key_is(door: Door, kw: Keywright) -> None:
    """The page of alerts and the key's own say what is wrong; another account's are not there."""
    ours, theirs = raised(kw), raised(kw, "initech")
    admin = as_person(kw, begin(kw, "admin"))

    page = door.get("/console/@globex/alerts", admin).body.decode()
    banner = door.get(f"/console/@globex/every/keys/{ours.key_id}", admin).body.decode()

    assert ours.id in page
    assert "192.0.2.0/24" in page
    assert theirs.id not in page
    assert "is sent by a web page" in banner
    assert f"alerts?key={ours.key_id}" in banner
    assert door.get("/console/@initech/alerts", admin).status == 404


@pytest.mark.requirement("B-18")
@pytest.mark.parametrize(
    ("act", "alert", "key"),
    [
        ("acknowledge", "acknowledged", "active"),
        ("resolve", "resolved", "active"),
        ("disable", "acknowledged", "disabled"),
        ("invalidate", "acknowledged", "invalidated"),
    ],
)
def test_one_click_deals_with_it(door: Door, kw: Keywright, act: str, alert: str, key: str) -> None:
    """An admin acknowledges or resolves it, or stops the key, with one form."""
    ours = raised(kw)

    assert click(door, as_person(kw, begin(kw, "admin")), ours, act).status == 303

    assert kw.installation.alerts.get(ours.id).state == alert
    assert kw.keys.get(ours.key_id).state == key


@pytest.mark.security("T-17")
def test_who_may_not_is_refused(door: Door, kw: Keywright) -> None:
    """A developer sees and may not act, an analyst does not see, an admin reaches no other account's; an operator all."""
    ours, theirs = raised(kw), raised(kw, "initech")
    developer, analyst = (as_person(kw, begin(kw, role)) for role in ("developer", "analyst"))

    assert ours.id in door.get("/console/@globex/alerts", developer).body.decode()
    assert click(door, developer, ours, "disable").status == 403
    assert door.get("/console/@globex/alerts", analyst).status == 403
    assert click(door, as_person(kw, begin(kw, "admin")), theirs, "disable").status == 404
    assert kw.keys.get(theirs.key_id).state == kw.keys.get(ours.key_id).state == "active"
    operator = as_person(kw, begin(kw, "operator", email="op@example.org"))
    assert click(door, operator, theirs, "resolve", "operator").status == 303
