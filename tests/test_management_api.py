"""The management API: every route, for whoever may, whoever may not, whoever is foreign, and whoever writes nonsense.

The routes come from the OpenAPI document: one without an entry in ``ROUTES`` fails.
"""

import json
import re
from collections.abc import Callable, Iterator
from secrets import token_hex
from typing import Any, NamedTuple

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.credential import spell_token
from keywright.model import Alert, Binding, IssuedEndpoint
from keywright.profiles import MANAGEMENT_SCOPES
from keywright.roles import RIGHTS
from keywright.server.api import build
from keywright.server.api.description import FRONT
from keywright.store import alerts, webhooks
from keywright.testing import Clock
from people import member
from surfaces import Door, Reply, configured, manager, server, token


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    bound = Binding("globex", "every", "production")
    managed = kw.keys.create_management(name="Managed", scopes=["management-keys:write"], binding=bound)
    with Door(server(kw)) as opened:
        MANAGED[id(opened)] = managed.key.id
        MEMBERS[id(opened)] = member(kw, "analyst").id
        HOOKED[id(opened)] = hook(kw).endpoint.id
        ALERTED[id(opened)] = alerted(kw)
        VISITED[id(opened)] = visited(kw)
        yield opened


#: A management key for each server, that the routes on management keys are used on.
MANAGED: dict[int, str] = {}
#: And a member of globex.
MEMBERS: dict[int, str] = {}
#: And a webhook, for the routes on webhooks.
HOOKED: dict[int, str] = {}
#: And an alert, for the routes on alerts.
ALERTED: dict[int, str] = {}
#: And a visit of the portal, for the routes on those.
VISITED: dict[int, str] = {}


@pytest.fixture
def caller(kw: Keywright) -> dict[str, str]:
    """A management key that may do all."""
    return manager(kw)


ANALYST = tuple(sorted(RIGHTS["analyst"]))
NEW_KEY = {"keyspace": "every", "account": "globex", "environment": "production", "name": "Made over HTTP"}
#: What no field takes: other types, and for texts also hidden characters and excess.
WRONG_TEXTS: list[Any] = [5, ["x"], {"x": 1}, "\x1b[31m", "x" * 5000]


class Route(NamedTuple):
    """A route's entry: the scope that it asks, how it is used, and what it refuses."""

    scope: str
    body: dict[str, Any] | None = None
    status: int = 200
    before: Callable[[Keywright, str], object] = lambda _kw, _id: None
    bad: tuple[dict[str, Any], ...] = ()  # bodies that are 422
    bad_queries: tuple[str, ...] = ()
    query: str = ""
    also: tuple[str, ...] = ()  # what the caller must hold besides, since it is given on
    operator: bool = False  # only a person does it who runs the installation
    foreign: bool = True  # names a thing in its path or body that another account's key must not find


def hook(kw: Keywright) -> IssuedEndpoint:
    """A webhook of globex in ``every``, production."""
    where = {"account": "globex", "keyspace": "every", "environment": "production"}
    return kw.installation.webhooks.create(url="https://hooks.example.com/", **where)


def alerted(kw: Keywright) -> str:
    """An alert about a key of globex in ``every``, production."""
    place = {"account": "globex", "keyspace": "every", "environment": "production"}
    now, key_id = kw.installation.clock(), "every_live_k00000000000000A"
    times = {"first_at": now, "last_at": now, "raised_at": now}
    what = {"rule": "guessed", "about": key_id, "severity": "high", "act": "look", "state": "open"}
    one = Alert(
        seq=0, id=f"al_{token_hex(8)}", key_id=key_id, count=10, evidence={}, **what, **place, **times
    )
    with kw.installation.database.write("usage") as tx:
        alerts.add(tx, one)
    return one.id


def visited(kw: Keywright) -> str:
    """A visit of globex's portal, in ``every``, production."""
    where = {"account": "globex", "keyspace": "every", "environment": "production"}
    return kw.portal.open(subject="ana@globex", **where).session.id


def _unproven(kw: Keywright, _id: str) -> object:
    (endpoint,) = kw.installation.webhooks.list().items
    with kw.installation.database.write() as tx:
        webhooks.change(tx, endpoint.id, state="pending", challenge="answer")
    return endpoint


def _disable_webhook(kw: Keywright, _id: str) -> object:
    (endpoint,) = kw.installation.webhooks.list().items
    return kw.installation.webhooks.disable(endpoint.id)


_BAD_WEBHOOKS: tuple[dict[str, Any], ...] = (
    {"url": ""},
    {"url": 5},
    {"url": None},
    {"url": "https://127.0.0.1/"},
    {"url": "http://example.com/"},
    {"url": "https://example.com:22/"},
    {"events": "key.created"},
    {"events": ["key.nothing"]},
    {"events": ["webhook.test"]},
    {"events": ["*"]},
    {"events": [5]},
    *({"description": wrong} for wrong in (5, ["x"], "\x1b[31m", "x" * 5000)),
    {"state": "active"},
    {"secret": "whsec_x"},
)


def _disable(kw: Keywright, key_id: str) -> object:
    return kw.keys.disable(key_id)


def _rotate(kw: Keywright, key_id: str) -> object:
    return kw.keys.rotate(key_id, grace_seconds=3600)


_BAD_FIELDS: tuple[dict[str, Any], ...] = (
    *({field: wrong} for field in ("name", "team", "application") for wrong in WRONG_TEXTS),
    {"name": ""},
    {"description": 5},
    {"access": "root"},
    {"access": "ALL"},
    {"access": "restricted"},
    {"access": "restricted", "scopes": []},
    {"access": "restricted", "scopes": ["nothing:read"]},
    {"access": "restricted", "scopes": ["keys:write"]},
    {"access": "restricted", "scopes": ["*"]},
    {"access": "all", "scopes": ["things:read"]},
    {"scopes": "things:read"},
    {"scopes": [5]},
    {"limits": "10/day"},
    {"limits": ["10/fortnight"]},
    {"limits": ["-1/day"]},
    {"limits": [f"{10**16}/day"]},
    {"limits": ["1/day", "2/day"]},
    {"limits": ["1/day"] * 11},
    {"limits": [{"kind": "quota", "limit": 10**40, "per": "day"}]},
    {"limits": [{"kind": "quota", "limit": -1, "per": "day"}]},
    {"limits": [{"kind": "quota", "limit": 1.5, "per": "day"}]},
    {"limits": [{"kind": "quota", "limit": True, "per": "day"}]},
    {"limits": [{"kind": "quota", "limit": 1, "per": "week"}]},
    {"limits": [{"kind": "rate", "limit": 1, "per": 0}]},
    {"limits": [{"kind": "rate", "limit": 1, "per": 10**9}]},
    {"limits": [{"kind": "credits", "limit": 1, "per": "day"}]},
    {"limits": [{"kind": "quota", "limit": 1, "per": "day", "used": 0}]},
    {"limits": [5]},
    {"plan": "nothing"},
    {"plan": 5},
    {"expires_at": "2027-06-01T00:00:00"},
    {"expires_at": "2027-06-01"},
    {"expires_at": "tomorrow"},
    {"expires_at": "2026-01-01T00:00:00Z"},
    {"expires_at": "2027-01-15T12:00:30Z"},
    {"expires_at": "9999-12-31T23:59:59.999999Z"},
    {"expires_at": "9999-12-31T23:59:59-14:00"},
    {"expires_at": "0001-01-01T00:00:00+14:00"},
    {"expires_at": 1900000000},
    {"allowed_ips": "203.0.113.0/24"},
    {"allowed_ips": ["203.0.113.1/24"]},
    {"allowed_ips": ["fe80::1%eth0"]},
    {"allowed_ips": ["nowhere"]},
    {"allowed_ips": [5]},
    {"allowed_ips": ["203.0.113.1"] * 101},
    {"metadata": []},
    {"metadata": {str(n): n for n in range(51)}},
    {"metadata": {"x": "y" * 20_000}},
    {"metadata": json.loads('{"x":' * 25 + "1" + "}" * 25)},
    {"metadata": json.loads('{"x":' * 400 + "1" + "}" * 400)},
    {"metadata": {"x": json.loads("[" * 400 + "]" * 400)}},
    {"surprise": 1},
)
_BAD_PAGES = (
    "limit=0",
    "limit=201",
    "limit=x",
    "limit=" + "9" * 5000,
    "cursor=x",
    "cursor=%00",
    "cursor=%F0%9F%98%80",
    "cursor=" + "A" * 5000,
    "state=sleeping",
    "q=" + "a" * 201,
    "q=" + "a" * 60_000,
    "q=%00",
)

#: A token that another installation made.
_OLD = spell_token("every_live_kAAAAAAAAAAAAAAC", "s" * 32)
ROUTES: dict[str, Route] = {
    "POST /v1/keys": Route(
        "keys:write",
        NEW_KEY,
        201,
        bad=(
            *_BAD_FIELDS,
            {"name": None},
            {"keyspace": None},
            {"environment": None},
            {"environment": "nowhere"},
            {"keyspace": 5},
        ),
    ),
    "GET /v1/keys": Route(
        "keys:read", bad_queries=(*_BAD_PAGES, "sort=secret", "sort=name;x", "hygiene=dirty"), foreign=False
    ),
    "GET /v1/keys/{key_id}": Route("keys:read"),
    "GET /v1/keys/{key_id}/limits": Route("usage:read"),
    "PATCH /v1/keys/{key_id}": Route(
        "keys:write",
        {"name": "New name"},
        bad=(*_BAD_FIELDS, {"name": None}, {"access": None}, {"environment": "staging"}, {"state": "active"}),
    ),
    "DELETE /v1/keys/{key_id}": Route("keys:write"),
    "POST /v1/keys/{key_id}/rotate": Route(
        "keys:write",
        {"grace_seconds": 60},
        bad=(
            {"grace_seconds": -1},
            {"grace_seconds": 30 * 86_400 + 1},
            {"grace_seconds": 10**40},
            {"grace_seconds": "60"},
            {"grace_seconds": True},
            {"grace_seconds": 1.5},
            {"start": "never"},
            {"force": "yes"},
            {"secret": "mine"},
        ),
    ),
    "POST /v1/keys/{key_id}/rotate/finish": Route("keys:write", before=_rotate),
    "POST /v1/keys/{key_id}/rotate/cancel": Route("keys:write", before=_rotate),
    "POST /v1/keys/{key_id}/invalidate": Route(
        "keys:write",
        {"reason": "leaked"},
        bad=({"reason": 5}, {"reason": "\0"}, {"reason": "x" * 300}, {"x": 1}),
    ),
    "POST /v1/keys/{key_id}/disable": Route(
        "keys:write",
        {"for_seconds": 60},
        bad=(
            {"for_seconds": 0},
            {"for_seconds": "60"},
            {"for_seconds": True},
            {"for_seconds": 10**40},
            {"x": 1},
        ),
    ),
    "POST /v1/keys/several": Route(
        "keys:write",
        {"act": "disable", "keys": ["{key_id}"]},
        bad=(
            {"act": "rotate"},
            {"act": None},
            {"keys": []},
            {"keys": ["x"] * 201},
            {"keys": "x"},
            {"keys": [5]},
            {"x": 1},
        ),
        foreign=False,  # whoever's it is not passes over it: test_keys_desk
    ),
    "POST /v1/keys/import": Route(
        "keys:write",
        {
            "keyspace": "every",
            "account": "globex",
            "environment": "production",
            "items": [{"name": "Old", "access": "all", "token": _OLD}],
        },
        bad=(
            {"items": []},
            {"items": [{}] * 201},
            {"items": {}},
            {"items": ["x"]},
            {"dry_run": "no"},
            {"keyspace": 5},
            {"x": 1},
        ),
        foreign=False,  # whoever's account it is not is refused item by item: test_imports
    ),
    "POST /v1/keys/{key_id}/enable": Route("keys:write", before=_disable),
    "POST /v1/accounts": Route(
        "accounts:write",
        {"username": "hooli"},
        201,
        bad=(
            {"username": ""},
            {"username": "Hooli"},
            {"username": "a b"},
            {"username": "x" * 65},
            {"username": "../x"},
            {"username": 5},
            {"username": None},
            {"name": "\x00"},
            {"pending": "yes"},
            {"limits": ["x"]},
            {"state": "active"},
        ),
    ),
    "GET /v1/accounts": Route("accounts:read", bad_queries=_BAD_PAGES, foreign=False),
    "GET /v1/accounts/{username}": Route("accounts:read"),
    "PATCH /v1/accounts/{username}": Route(
        "accounts:write",
        {"limits": ["10000/day"]},
        bad=({"limits": None}, {"limits": "5/day"}, {"limits": ["5/fortnight"]}, {"state": "active"}),
    ),
    "POST /v1/accounts/{username}/suspend": Route("accounts:write"),
    "POST /v1/accounts/{username}/activate": Route("accounts:write"),
    "GET /v1/keyspaces": Route("keyspaces:read", foreign=False),
    "GET /v1/keyspaces/{name}": Route("keyspaces:read"),
    "GET /v1/keyspaces/{name}/source": Route("keyspaces:read"),
    "GET /v1/scopes": Route("keyspaces:read", foreign=False),
    "GET /v1/plans": Route("keyspaces:read", foreign=False),
    "GET /v1/gates": Route("keyspaces:read", foreign=False),
    "POST /v1/management-keys": Route(
        "management-keys:write",
        {
            "name": "Made over HTTP",
            "scopes": ["management-keys:write"],
            "account": "globex",
            "keyspace": "every",
            "environment": "production",
        },
        201,
        bad=(
            *({"name": wrong} for wrong in ("", *WRONG_TEXTS)),
            {"scopes": []},
            {"scopes": ["root"]},
            {"scopes": ["*"]},
            {"scopes": ["Management-Keys:write"]},
            {"scopes": "verify"},
            {"scopes": [5]},
            {"account": 5},
            {"environment": "nowhere"},
            {"expires_at": "tomorrow"},
            {"expires_at": "2026-01-01T00:00:00Z"},
            {"access": "all"},
            {"surprise": 1},
        ),
    ),
    "GET /v1/management-keys": Route(
        "management-keys:read", foreign=False, bad_queries=tuple(q for q in _BAD_PAGES if q[:2] != "st")
    ),
    "GET /v1/management-keys/{management_key_id}": Route("management-keys:read"),
    "POST /v1/management-keys/{management_key_id}/rotate": Route(
        "management-keys:write",
        {"grace_seconds": 60},
        bad=({"grace_seconds": -1}, {"grace_seconds": "60"}, {"force": "yes"}, {"start": "first_use"}),
    ),
    "POST /v1/management-keys/{management_key_id}/invalidate": Route(
        "management-keys:write", {"reason": "leaked"}, bad=({"reason": 5}, {"reason": "\0"}, {"x": 1})
    ),
    "POST /v1/management-keys/{management_key_id}/disable": Route("management-keys:write"),
    "POST /v1/management-keys/{management_key_id}/enable": Route("management-keys:write"),
    "DELETE /v1/management-keys/{management_key_id}": Route("management-keys:write"),
    "POST /v1/people": Route(
        "people:write",
        {"email": "new@example.com", "account": "globex", "role": "analyst"},
        201,
        also=ANALYST,
        bad=(
            *(
                {"email": wrong}
                for wrong in (*WRONG_TEXTS, "", "ana", "ana@", "@example.com", "a b@example.com")
            ),
            *({"name": wrong} for wrong in WRONG_TEXTS),
            {"role": "root"},
            {"role": "Owner"},
            {"role": ""},
            {"role": None},
            {"account": 5},
            {"access": "read_only"},
            {"access": "root"},
            {"scopes": ["things:read"]},
            {"scopes": [5]},
            {"operator": "yes"},
            {"state": "active"},
        ),
    ),
    "GET /v1/people": Route(
        "people:read",
        foreign=False,
        bad_queries=(*(q for q in _BAD_PAGES if q[:2] != "st"), "operators=maybe"),
    ),
    "GET /v1/people/{person_id}": Route("people:read"),
    "PATCH /v1/people/{person_id}": Route(
        "people:write",
        {"account": "globex", "role": "analyst"},
        also=ANALYST,
        bad=({"role": "root"}, {"role": 5}, {"access": "restricted"}, {"scopes": ["x"]}, {"email": "a@b.c"}),
    ),
    "DELETE /v1/people/{person_id}": Route("people:write", also=ANALYST, query="account=globex"),
    "POST /v1/people/{person_id}/disable": Route("people:write", operator=True),
    "POST /v1/people/{person_id}/enable": Route("people:write", operator=True),
    "POST /v1/people/{person_id}/dismiss": Route("people:write", operator=True, status=409),
    "POST /v1/people/{person_id}/unlink": Route("people:write", operator=True, status=409),
    "POST /v1/people/{person_id}/reset": Route("people:write", status=201, operator=True),
    "POST /v1/portal/sessions": Route(
        "portal:write",
        {
            "account": "globex",
            "subject": "ana@globex",
            "role": "analyst",
            "keyspace": "every",
            "environment": "production",
            "preview": True,
        },
        201,
        also=ANALYST,
        bad=(
            *({"subject": wrong} for wrong in ("", *WRONG_TEXTS)),
            *({"name": wrong} for wrong in WRONG_TEXTS),
            {"role": "owner"},
            {"role": "root"},
            {"access": "root"},
            {"access": "read_only"},
            {"scopes": ["things:read"]},
            {"environment": "nowhere"},
            {"environment": 5},
            {"preview": "yes"},
            *(
                {"return_url": wrong}
                for wrong in (
                    "http://app.example.com/",
                    "javascript:alert(1)",
                    "//app.example.com/",
                    "https://",
                    "https://ana@app.example.com/",
                    "https://app.example.com/#keys",
                    "https://app.example.com/\\evil.example",
                    "https://app.example.com/\r\nSet-Cookie: a=b",
                    "https://app.example.com;script-src *",
                    "https://app.example.com/" + "x" * 2_000,
                    5,
                )
            ),
            {"ends_at": "2030-01-01T00:00:00Z"},
        ),
    ),
    "GET /v1/portal/sessions": Route(
        "portal:read",
        foreign=False,
        bad_queries=(*(q for q in _BAD_PAGES if q[:2] not in ("q=", "st")), "subject=" + "x" * 201),
    ),
    "GET /v1/portal/sessions/{visit_id}": Route("portal:read"),
    "DELETE /v1/portal/sessions/{visit_id}": Route("portal:write"),
    "POST /v1/portal/sessions/end": Route(
        "portal:write",
        {"account": "globex", "subject": "ana@globex"},
        bad=({"account": 5}, {"subject": ["x"]}, {"x": 1}),
    ),
    "GET /v1/audit": Route(
        "audit:read",
        foreign=False,
        bad_queries=(
            *(q for q in _BAD_PAGES if q[:2] not in ("q=", "st") and q != "limit=201"),
            "limit=1001",
            "before=0",
            "before=x",
            f"before={2**70}",
        ),
    ),
    "GET /v1/audit/export": Route(
        "audit:read", foreign=False, bad_queries=("limit=0", "limit=1001", "after=-1", "after=x")
    ),
    "POST /v1/webhooks": Route(
        "webhooks:write",
        {
            "url": "https://hooks.example.com/in",
            "events": ["key.created"],
            "account": "globex",
            "keyspace": "every",
            "environment": "production",
        },
        201,
        bad=(
            *(bad for bad in _BAD_WEBHOOKS if bad != {"url": None}),
            {"account": 5},
            {"environment": "nowhere"},
        ),
    ),
    "GET /v1/webhooks": Route(
        "webhooks:read", foreign=False, bad_queries=tuple(q for q in _BAD_PAGES if q[:2] != "q=")
    ),
    "GET /v1/webhooks/{webhook_id}": Route("webhooks:read"),
    "PATCH /v1/webhooks/{webhook_id}": Route("webhooks:write", {"description": "New"}, bad=_BAD_WEBHOOKS),
    "POST /v1/webhooks/{webhook_id}/rotate": Route(
        "webhooks:write",
        {"overlap_seconds": 60},
        bad=(
            {"overlap_seconds": -1},
            {"overlap_seconds": 30 * 86_400 + 1},
            {"overlap_seconds": "60"},
            {"overlap_seconds": True},
            {"secret": "mine"},
        ),
    ),
    "POST /v1/webhooks/{webhook_id}/verify": Route(
        "webhooks:write", {"challenge": "answer"}, before=_unproven, bad=({"challenge": 5}, {"x": 1})
    ),
    "POST /v1/webhooks/{webhook_id}/test": Route("webhooks:write", status=202),
    "GET /v1/webhooks/{webhook_id}/deliveries": Route(
        "webhooks:read", bad_queries=tuple(q for q in _BAD_PAGES if q[:2] != "q=")
    ),
    "POST /v1/webhooks/{webhook_id}/redeliver": Route(
        "webhooks:write",
        {"since": "2027-01-15T00:00:00Z"},
        bad=({"since": "yesterday"}, {"since": 5}, {"since": "2027-01-15T00:00:00"}, {"x": 1}),
    ),
    "POST /v1/webhooks/{webhook_id}/disable": Route("webhooks:write"),
    "POST /v1/webhooks/{webhook_id}/enable": Route("webhooks:write", before=_disable_webhook),
    "DELETE /v1/webhooks/{webhook_id}": Route("webhooks:write"),
    "GET /v1/alerts": Route(
        "alerts:read",
        foreign=False,
        bad_queries=(*(q for q in _BAD_PAGES if q[:2] != "q="), "rule=none", "severity=worst", "state=gone"),
    ),
    "GET /v1/alerts/{alert_id}": Route("alerts:read"),
    "POST /v1/alerts/{alert_id}/acknowledge": Route("alerts:write"),
    "POST /v1/alerts/{alert_id}/resolve": Route("alerts:write"),
    "GET /v1/revocable_token_types": Route("leaks:report", foreign=False, bad_queries=("type=x",)),
    "GET /v1/usage": Route(
        "usage:read",
        query="keyspace=every",
        foreign=False,
        bad_queries=(
            "by=week",
            "group=owner",
            "from=yesterday",
            "from=2027-01-15",
            "to=2027-01-15T00:00:00",
            "from=2027-01-15T00:00:00Z&to=2027-01-15T00:00:00Z",
            "from=2030-01-01T00:00:00Z",
            "key=" + "x" * 201,
        ),
    ),
    "GET /v1/refusals": Route(
        "usage:read",
        query="keyspace=every",
        foreign=False,
        bad_queries=tuple(q for q in _BAD_PAGES if q[:2] not in ("q=", "st")),
    ),
}


def documented(kw: Keywright) -> dict[str, Any]:
    """The operations of the OpenAPI document."""
    whole = build(kw.installation, configured()).openapi()["paths"]
    paths = {path: item for path, item in whole.items() if path not in FRONT}
    return {
        f"{method.upper()} {path}": operation
        for path, item in paths.items()
        for method, operation in item.items()
        if not path.startswith(
            ("/v1/session", "/v1/leaks", "/v1/revoke_tokens")
        )  # a person's own business, anybody's, and GitLab's, which has its own words: test_sessions, test_leaks, test_partner
    }


def send(
    door: Door, name: str, headers: dict[str, str], key: Issued | str, *, body: Any = ..., query: str = ""
) -> Reply:
    """Use a route on a key, on globex, on ``every``."""
    method, _, path = name.partition(" ")
    key_id = key if isinstance(key, str) else key.key.id
    path = filled(door, path, key_id)
    query = query or ROUTES[name].query
    target = f"{path}?{query}" if query else path
    document = ROUTES[name].body if body is ... else body
    if document is not None and document.get("keys") == ["{key_id}"]:
        document = document | {"keys": [key_id]}
    return (
        door.send(method, target, headers)
        if document is None
        else door.json(method, target, document, headers)
    )


def filled(door: Door, path: str, key_id: str) -> str:
    """A route's path, with the things that it is used on."""
    things = {
        "key_id": key_id,
        "username": "globex",
        "name": "every",
        "management_key_id": MANAGED[id(door)],
        "person_id": MEMBERS[id(door)],
        "webhook_id": HOOKED[id(door)],
        "alert_id": ALERTED[id(door)],
        "visit_id": VISITED[id(door)],
    }
    return path.format(**things)


def is_problem(reply: Reply, status: int, code: str) -> None:
    """Every error is problem+json with code and request id, uncacheable; a 401 has one challenge, always Bearer."""
    assert (reply.status, reply.code) == (status, code), reply.body[:500]
    assert reply.get("content-type") == "application/problem+json"
    assert reply.get("cache-control") == "no-store"
    said = reply.json
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(said)
    assert (said["status"], said["request_id"][:4]) == (status, "req_")
    if status == 401:
        assert str(reply.get("www-authenticate")).startswith('Bearer realm="')


@pytest.mark.parametrize("name", [name for name in ROUTES if name.startswith("GET")])
def test_a_misspelt_filter_is_refused(door: Door, caller: dict[str, str], key: Issued, name: str) -> None:
    """A parameter that a call does not take is 422 and named: a list is not answered as if nothing narrowed it."""
    reply = send(door, name, caller, key, query=f"{ROUTES[name].query}&acount=globex".lstrip("&"))
    is_problem(reply, 422, "invalid_request")
    assert reply.json["errors"] == [{"path": "acount", "reason": "is not a parameter of this call"}]


@pytest.mark.parametrize(
    "query", ["state=active&state=disabled", "account=globex&limit=1&account=initech", "limit=1&limit=1"]
)
def test_a_filter_that_stands_twice_is_refused(
    door: Door, caller: dict[str, str], key: Issued, query: str
) -> None:
    """Of two values of a filter none is left out in silence: the call is 422 and names it. What may be repeated may."""
    reply = door.get(f"/v1/keys?{query}", caller)
    is_problem(reply, 422, "invalid_request")
    assert reply.json["errors"] == [{"path": query.partition("=")[0], "reason": "stands more than once"}]

    assert door.get(f"/v1/usage?keys={key.key.id}&keys={key.key.id}", caller).status == 200


# ------------------------------------------------------------------------------------------------- the table of routes


def test_every_route_has_an_entry(kw: Keywright) -> None:
    """The table below covers exactly the routes of the OpenAPI document."""
    assert set(documented(kw)) == set(ROUTES)


@pytest.mark.security("H-08")
@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if not route.operator])
def test_it_works_with_the_scope(door: Door, kw: Keywright, key: Issued, name: str) -> None:
    """With the one scope that a route asks it works, and its answer is not to be kept."""
    ROUTES[name].before(kw, key.key.id)

    reply = send(door, name, manager(kw, ROUTES[name].scope, *ROUTES[name].also), key)

    assert reply.status == ROUTES[name].status, reply.body
    assert reply.get("cache-control") == "no-store"
    assert reply.get("content-type") == "application/json"
    assert reply.json


@pytest.mark.security("H-01", "H-02")
@pytest.mark.parametrize("name", ROUTES)
def test_nobody_is_refused(door: Door, kw: Keywright, key: Issued, name: str) -> None:
    """Without a management key, with a customer's, or with a spoilt one, each route is 401 and changes nothing."""
    right = manager(kw)["Authorization"]
    spoilt = right[:-1] + ("A" if right[-1] != "A" else "B")
    before = key_and_account(kw, key)

    for headers, code in (
        ({}, "missing"),
        (bearer(key), "invalid"),
        ({"Authorization": spoilt}, "invalid"),
        ({"Authorization": right.replace("Bearer", "Basic")}, "missing"),
        ({"X-Token": right.partition(" ")[2]}, "missing"),
        ({"Cookie": f"Authorization={right}"}, "missing"),
    ):
        is_problem(send(door, name, headers, key), 401, code)

    assert key_and_account(kw, key) == before


@pytest.mark.security("H-02")
@pytest.mark.parametrize("name", ROUTES)
def test_every_other_scope_is_refused(door: Door, kw: Keywright, key: Issued, name: str) -> None:
    """With every scope but its own a route is 403, says which is lacking, and changes nothing."""
    scope = ROUTES[name].scope
    others = set(MANAGEMENT_SCOPES) - {scope}
    before = key_and_account(kw, key)

    reply = send(door, name, manager(kw, *sorted(others)), key)

    if ROUTES[name].operator:
        is_problem(reply, 403, "insufficient_role")
        return
    is_problem(reply, 403, "insufficient_scope")
    assert (
        reply.get("www-authenticate")
        == f'Bearer realm="Keywright", error="insufficient_scope", scope="{scope}"'
    )
    assert key_and_account(kw, key) == before


@pytest.mark.requirement("F-09", "X-15")
@pytest.mark.security("T-17")
@pytest.mark.parametrize(
    "name", [name for name, route in ROUTES.items() if route.foreign and not route.operator]
)
def test_the_foreign_do_not_find_it(door: Door, kw: Keywright, key: Issued, name: str) -> None:
    """To a key that is bound elsewhere another's things do not exist: 404, the same as for what nobody has."""
    ROUTES[name].before(kw, key.key.id)
    before = key_and_account(kw, key)
    if "/v1/keyspaces" in name:
        bounds = [{"keyspace": "default"}]
    elif "/v1/accounts" in name or "/v1/people" in name or name.endswith("/sessions/end"):
        bounds = [{"account": "initech"}]
    else:
        bounds = [
            {"account": "initech"},
            {"keyspace": "default"},
            {"keyspace": "every", "environment": "staging"},
        ]

    for bound in bounds:
        reply = send(door, name, manager(kw, **bound), key)

        is_problem(reply, 404, "not_found")
    assert key_and_account(kw, key) == before


@pytest.mark.parametrize(
    "name", [name for name, route in ROUTES.items() if "{" in name and not route.operator]
)
def test_what_nobody_has_is_404(
    door: Door, kw: Keywright, caller: dict[str, str], key: Issued, name: str
) -> None:
    """An id that does not exist is 404 whatever it is made of, and so are our own keyspace, account and keys."""
    own = kw.keys.create_management(name="Own", scopes=["verify"]).key.id
    method, _, path = name.partition(" ")
    kind = path[path.index("{") : path.index("}") + 1]
    own = key.key.id if "management" in kind else own
    for thing in (
        "nothing", own, "keywright", key.key.id.upper(), own + "%00", "%00", "%ff", "%27%20OR%201=1--",
        "x" * 20_000, "..", "%2e%2e", "%F0%9F%98%80", "*", "%25",
    ):  # fmt: skip
        target = path.replace(kind, thing)
        body = ROUTES[name].body
        reply = door.send(method, target, caller) if body is None else door.json(method, target, body, caller)

        is_problem(reply, 404, "not_found")


@pytest.mark.security("H-02", "T-45", "T-49")
@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if route.bad and not route.operator])
def test_bad_fields_are_refused(
    door: Door, kw: Keywright, caller: dict[str, str], key: Issued, name: str
) -> None:
    """Each senseless field makes 422 with the field's path, and changes nothing."""
    before = key_and_account(kw, key)
    for bad in ROUTES[name].bad:
        body = (ROUTES[name].body or {}) | bad
        if name.startswith("POST"):
            body = {field: value for field, value in body.items() if field == "name" or value is not None}

        reply = send(door, name, caller, key, body=body)

        is_problem(reply, 422, "invalid_request")
        field = next(iter(bad))
        paths = [str(error["path"]) for error in reply.json["errors"]]
        related = {"access": "scopes", "scopes": "access"}
        assert any(p.startswith((field, related.get(field, field))) for p in paths), (bad, paths)
    assert key_and_account(kw, key) == before


@pytest.mark.security("H-02", "T-48")
@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if route.body])
def test_bad_bodies_are_refused(
    door: Door, kw: Keywright, caller: dict[str, str], key: Issued, name: str
) -> None:
    """What is no JSON object, has a name twice, is of another media type, or too large, is refused and changes nothing."""
    before = key_and_account(kw, key)
    method, _, path = name.partition(" ")
    path = filled(door, path, key.key.id)
    for body, status in (
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 60_000, 400),
        (b'{"name": NaN}', 400),
        (b"[]", 422),
        (b'"x"', 422),
        (b"[" * 500 + b"]" * 500, 422),
        (b'{"name": "a", "name": "b"}', 422),
        (b'{"metadata": {"a": 1, "\\u0061": 2}}', 422),
        (b'{"x": ' + b"9" * 60_000 + b"}", 422),
        (b" " * 65_537, 413),
    ):
        code = {400: "bad_json", 413: "too_large"}.get(status, "invalid_request")
        is_problem(door.json(method, path, body, caller), status, code)
    form = caller | {"Content-Type": "application/x-www-form-urlencoded"}
    is_problem(door.send(method, path, form, b"name=x"), 415, "unsupported_media_type")
    is_problem(door.send(method, path, caller, b"{}"), 415, "unsupported_media_type")
    assert key_and_account(kw, key) == before


@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if route.bad_queries])
def test_bad_queries_are_refused(
    door: Door, kw: Keywright, caller: dict[str, str], key: Issued, name: str
) -> None:
    """A filter, an order, a size or a cursor that makes no sense is 422."""
    for query in ROUTES[name].bad_queries:
        is_problem(send(door, name, caller, key, query=query), 422, "invalid_request")


@pytest.mark.security("T-43")
@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if route.body])
def test_no_field_of_an_answer_can_be_set(
    door: Door, kw: Keywright, caller: dict[str, str], key: Issued, name: str
) -> None:
    """Each field of an answer that is none of the request is refused in the request."""
    ROUTES[name].before(kw, key.key.id)
    schema = documented(kw)[name]["requestBody"]["content"]["application/json"]["schema"]
    known = _fields_of(kw, schema)
    answer = send(door, name, caller, key).json
    answered = (
        set(answer) | set(answer.get("key", {})) | {"mac", "pepper", "account_id", "type", "binding", "id"}
    )
    before = key_and_account(kw, key)

    assert answered - known
    for field in sorted(answered - known):
        body = (ROUTES[name].body or {}) | {"name": "x"} | {field: answer.get(field)}
        reply = send(door, name, caller, key, body=body)

        is_problem(reply, 422, "invalid_request")
        assert field in [error["path"] for error in reply.json["errors"]]
    assert key_and_account(kw, key) == before


def _fields_of(kw: Keywright, schema: dict[str, Any]) -> set[str]:
    reference = next(part["$ref"] for part in schema.get("anyOf", [schema]) if "$ref" in part)
    schemas = build(kw.installation, configured()).openapi()["components"]["schemas"]
    found = schemas[reference.rpartition("/")[2]]
    assert found["additionalProperties"] is False
    return set(found["properties"])


def key_and_account(kw: Keywright, key: Issued) -> tuple[object, ...]:
    """What must not change where something is refused."""
    return (
        kw.keys.get(key.key.id),
        kw.accounts.get("globex"),
        len(kw.keys.list(limit=200).items),
        len(kw.accounts.list().items),
        kw.installation.webhooks.list(limit=200).items,
    )


# ------------------------------------------------------------------------------------------------------ around routes


@pytest.mark.security("H-02")
def test_unknown_addresses_are_problems(door: Door, caller: dict[str, str]) -> None:
    """An address that does not exist is 404 to a caller, and under ``/v1/`` 401 to anybody else; none redirects."""
    for path in (
        "/v1/nothing",
        "/v1/",
        "/v1/keys/",
        "/v1/keys/x/",
        "/v1//keys",
        "/v1/keys/x/y",
        "/v1/verify/",
    ):
        is_problem(door.get(path, caller), 404, "not_found")
        is_problem(door.get(path), 401, "missing")
    assert door.get("/").get("location") == "/console/sign-in?to=%2F"  # a person's first page
    for path in (
        "/v1",
        "//v1/keys",
        "/V1/keys",
        "/v2/keys",
        "/k/",
        "/k/every.production/",
        "/authz/",
        "/docs/",
        "/docs/nothing",
    ):
        is_problem(door.get(path, caller), 404, "not_found")
        is_problem(door.get(path), 404, "not_found")


@pytest.mark.security("T-09")
def test_a_path_in_another_spelling_is_guarded_as_well(door: Door, caller: dict[str, str]) -> None:
    """However a path is percent-encoded, what the router takes it for is answered to callers only."""
    for path in (
        "/%76%31/keys",
        "/%761/keys",
        "/v%31/%6beys",
        "/v1%2fkeys",
        "/%2e/v1/keys",
        "/v1/%6b%65%79s",
    ):
        assert door.get(path).status in (401, 404)
        assert door.get(path, caller).status in (200, 404)
    is_problem(door.get("/%761/keys"), 401, "missing")
    is_problem(door.get("/%761/nothing"), 401, "missing")


def test_a_server_may_leave_the_raw_path_out(door: Door, caller: dict[str, str], key: Issued) -> None:
    """ASGI's ``raw_path`` is optional: without it every door answers as with it."""
    assert door.get("/livez", raw_path=False).status == 200
    assert door.get("/v1/keys?limit=1", caller, raw_path=False).status == 200
    assert door.get("/v1/keys", raw_path=False).status == 401
    family = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/things/1"}
    assert door.get("/authz/forward/shop", family | bearer(key), raw_path=False).status == 200
    assert door.get("/k/every.production/whoami", bearer(key), raw_path=False).status == 200


@pytest.mark.security("H-07")
def test_other_methods_are_405_with_all_that_is_allowed(
    door: Door, caller: dict[str, str], key: Issued
) -> None:
    """A method that an address does not take is 405, and Allow names all that it takes."""
    allowed: dict[str, set[str]] = {}
    for name in ROUTES:
        method, _, path = name.partition(" ")
        allowed.setdefault(path, set()).add(method)
    for path in allowed:
        target = filled(door, path, key.key.id)
        alike = [other for other in allowed if re.fullmatch(re.sub("{[a-z_]+}", "[^/]+", other), path)]
        methods = set.union(*(allowed[other] for other in alike))
        for method in {
            "GET",
            "HEAD",
            "POST",
            "PUT",
            "PATCH",
            "DELETE",
            "OPTIONS",
            "TRACE",
            "PROPFIND",
        } - methods:
            reply = door.send(method, target, caller)
            assert (reply.status, reply.get("allow")) == (405, ", ".join(sorted(methods))), (method, path)
            assert reply.get("content-type") == "application/problem+json"


def test_the_description_is_open(door: Door, kw: Keywright) -> None:
    """``/openapi.json`` is 3.1, readable without a key, and describes every route."""
    reply = door.get("/openapi.json")

    assert (reply.status, reply.json["openapi"][:3]) == (200, "3.1")
    assert reply.json == build(kw.installation, configured()).openapi()
    assert door.send("POST", "/openapi.json").get("allow") is not None


def test_whoami_takes_get_and_head(door: Door, key: Issued) -> None:
    """HEAD to ``whoami`` has the headers of GET and no body; other methods are 405."""
    path = "/k/every.production/whoami"
    get, head = door.get(path, bearer(key)), door.send("HEAD", path, bearer(key))

    assert (head.status, head.headers, head.body) == (200, get.headers, b"")
    assert door.send("HEAD", path).status == 401
    assert door.send("POST", path, bearer(key)).get("allow") == "GET, HEAD"


def test_whoami_costs_nothing(door: Door, kw: Keywright) -> None:
    """Asking who one is spends no quota and is no use of the key; a key that may not be used is told so."""
    key = make(kw, limits=["1/day"], access="restricted", scopes=["things:read"])
    for _ in range(5):
        assert door.get("/k/every.production/whoami", bearer(key)).status == 200
    kw.installation.meter.flush()

    assert kw.keys.get(key.key.id).last_used_at is None
    family = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/things/1"}
    assert door.get("/authz/forward/shop", family | bearer(key)).get("ratelimit") == '"quota-day";r=0;t=43170'
    kw.keys.invalidate(key.key.id)
    assert door.get("/k/every.production/whoami", bearer(key)).code == "invalidated"


# ------------------------------------------------------------------------------------------------------------ secrets


@pytest.mark.security("K-10", "H-08")
@pytest.mark.requirement("G-03", "G-21")
def test_a_secret_is_in_two_answers_only(door: Door, kw: Keywright, caller: dict[str, str]) -> None:
    """Of all answers only those of create and rotate hold a secret, each its own, uncacheable."""
    created = door.json("POST", "/v1/keys", NEW_KEY, caller)
    key_id = created.json["key"]["id"]
    rotated = door.json("POST", f"/v1/keys/{key_id}/rotate", {"grace_seconds": 60}, caller)
    cores = [reply.json["credential"]["token"].split("_")[-1][:32] for reply in (created, rotated)]

    assert [reply.get("cache-control") for reply in (created, rotated)] == ["no-store"] * 2
    assert cores[0].encode() in created.body
    assert cores[0].encode() not in rotated.body
    answers = [
        send(door, name, caller, key_id)
        for name in sorted(ROUTES, key=lambda name: ("DELETE" in name, "invalidate" in name))
        if name not in ("POST /v1/keys", "POST /v1/keys/{key_id}/rotate")
    ]
    assert sum(reply.status == 200 for reply in answers) >= 10
    for reply in answers:
        for core in cores:
            assert core.encode() not in reply.body


def test_every_presentation_opens(door: Door, kw: Keywright, caller: dict[str, str]) -> None:
    """Each header set that ``create`` shows for a key, of each keyspace, is accepted as it stands."""
    for applied in kw.keyspaces.list():
        keyspace = applied.keyspace.name
        if keyspace == "keywright":
            continue
        asked = NEW_KEY | {"keyspace": keyspace, "access": "all"}
        shown = door.json("POST", "/v1/keys", asked, caller).json["presentations"]

        assert shown
        for presentation in shown:
            reply = door.get(f"/k/{keyspace}.production/whoami", presentation["headers"])
            assert (reply.status, reply.json["scheme"]) == (200, presentation["scheme"])


@pytest.mark.security("T-67")
def test_hints_hold_the_last_four(door: Door, caller: dict[str, str]) -> None:
    """The hint of a key is the last four characters of each of its spellings, which belong to the checksum."""
    issued = door.json("POST", "/v1/keys", NEW_KEY, caller).json
    hint = issued["key"]["hint"]

    assert hint == {
        "token": issued["credential"]["token"][-4:],
        "secret": issued["credential"]["secret"][-4:],
    }
    listed = door.get("/v1/keys", caller).json["items"][0]
    assert (listed["hint"], listed["secrets"][0]["hint"]) == (hint, hint)


def test_nobody_chooses_a_secret(door: Door, caller: dict[str, str]) -> None:
    """A caller's own secret, id or token is refused."""
    for field in ("secret", "token", "id", "credential"):
        is_problem(door.json("POST", "/v1/keys", NEW_KEY | {field: "mine"}, caller), 422, "invalid_request")


# ------------------------------------------------------------------------------------------------------ lists, cursors


def test_a_keyspace_that_is_not_there_has_no_list(
    door: Door, kw: Keywright, caller: dict[str, str], key: Issued
) -> None:
    """Every call that is narrowed by keyspace answers 404 for one that is not there: an empty list would hide the slip."""
    asked = narrowed_by("keyspace", kw)
    assert len(asked) == 7
    for name in asked:
        query = re.sub("(^|&)keyspace=[^&]*", "", ROUTES[name].query).lstrip("&")
        reply = send(door, name, caller, key, query=f"{query}&keyspace=nope".lstrip("&"))
        is_problem(reply, 404, "not_found")
        assert reply.json["detail"].capitalize() == "There is no keyspace 'nope'", name


def test_an_account_that_is_not_there_has_no_list(
    door: Door, kw: Keywright, caller: dict[str, str], key: Issued
) -> None:
    """Every call that is narrowed by account answers 404 for one that is not there, and 200 for one that is."""
    asked = [name for name in narrowed_by("account", kw) if name.startswith("GET ")]
    assert len(asked) == 8
    for name in asked:
        query = re.sub("(^|&)account=[^&]*", "", ROUTES[name].query).lstrip("&")
        reply = send(door, name, caller, key, query=f"{query}&account=nope".lstrip("&"))
        is_problem(reply, 404, "not_found")
        assert reply.json["detail"].capitalize() == "There is no account 'nope'", name
        assert send(door, name, caller, key, query=f"{query}&account=initech".lstrip("&")).status == 200, name


def narrowed_by(field: str, kw: Keywright) -> list[str]:
    """The documented calls that take a field in their query."""
    return [
        name
        for name, operation in documented(kw).items()
        if (field, "query") in {(one["name"], one["in"]) for one in operation.get("parameters", ())}
    ]


@pytest.mark.requirement("B-09")
def test_lists_are_narrowed(door: Door, kw: Keywright, caller: dict[str, str]) -> None:
    """A list is narrowed by each field and by a search in name, id, team, application and description."""
    ids = {
        "plain": make(kw, name="Plain").key.id,
        "sales": make(kw, name="Sales sync", team="sales", application="crm", environment="staging").key.id,
        "other": make(
            kw, name="Other", account="initech", keyspace="default", description="100% _odd_"
        ).key.id,
        "ended": make(kw, name="Ended").key.id,
    }
    kw.keys.invalidate(ids["ended"])

    def found(query: str) -> set[str]:
        items = door.get(f"/v1/keys?{query}", caller).json["items"]
        return {name for name, key_id in ids.items() for item in items if item["id"] == key_id}

    assert found("") == set(ids)
    assert found("keyspace=default") == {"other"}
    assert found("account=globex") == {"plain", "sales", "ended"}
    assert found("environment=staging") == {"sales"}
    assert found("team=sales") == found("application=crm") == found("q=SALES") == {"sales"}
    assert found("state=invalidated") == {"ended"}
    assert found("state=active&keyspace=every") == {"plain", "sales"}
    assert found("state=expired") == set()
    assert found("q=" + ids["plain"][-6:].lower()) == {"plain"}
    assert found("q=100%25") == found("q=_odd_") == {"other"}
    assert found("q=%25") == {"other"}
    assert found("q=nothing") == set()
    assert door.get("/v1/keys?keyspace=keywright", caller).status == 404
    assert door.get("/v1/keys?account=keywright", caller).status == 404
    assert found("q=%20%20") == set(ids)


def test_pages_follow_each_other(door: Door, kw: Keywright, caller: dict[str, str], clock: Clock) -> None:
    """Following cursors shows each key once, in each order, while keys are being made."""
    made = []
    for n in range(7):
        made.append(make(kw, name=f"Key {n}", team="pages").key.id)
        clock.advance(seconds=n % 2)  # some are of the same instant
    orders = {
        sort: [i["id"] for i in door.get(f"/v1/keys?team=pages&sort={sort}", caller).json["items"]]
        for sort in ("created_at", "-created_at", "name", "-name")
    }
    assert orders["name"] == made
    assert orders["-name"] == made[::-1]
    assert orders["created_at"] == orders["-created_at"][::-1]

    for sort, whole in orders.items():
        seen, cursor = [], ""
        while cursor is not None:
            page = door.get(
                f"/v1/keys?team=pages&sort={sort}&limit=2&cursor={cursor}".removesuffix("&cursor="), caller
            )
            seen += [item["id"] for item in page.json["items"]]
            cursor = page.json["next_cursor"]
        assert seen == whole


@pytest.mark.security("T-51")
def test_a_cursor_is_good_for_its_own_list_only(door: Door, kw: Keywright, caller: dict[str, str]) -> None:
    """A cursor altered, or used with another filter, order, caller's reach or noun, is refused."""
    for account in ("globex", "initech"):
        for _ in range(3):
            make(kw, account=account)
    cursor = door.get("/v1/keys?account=globex&limit=1", caller).json["next_cursor"]
    globex, initech = manager(kw, account="globex"), manager(kw, account="initech")
    other = door.get("/v1/accounts?limit=1", caller).json["next_cursor"]

    assert door.get(f"/v1/keys?account=globex&limit=2&cursor={cursor}", caller).status == 200
    assert door.get(f"/v1/keys?limit=1&cursor={cursor}", globex).status == 200  # the same list, by its bound
    altered = cursor[:-4] + ("AAAA" if cursor[-4:] != "AAAA" else "BBBB")
    for path, headers in (
        (f"/v1/keys?account=initech&limit=1&cursor={cursor}", caller),
        (f"/v1/keys?limit=1&cursor={cursor}", caller),
        (f"/v1/keys?limit=1&cursor={cursor}", initech),
        (f"/v1/keys?account=globex&sort=name&limit=1&cursor={cursor}", caller),
        (f"/v1/keys?account=globex&state=active&limit=1&cursor={cursor}", caller),
        (f"/v1/keys?account=globex&limit=1&cursor={altered}", caller),
        (f"/v1/keys?account=globex&limit=1&cursor={cursor[:-1]}", caller),
        (f"/v1/keys?account=globex&limit=1&cursor={other}", caller),
        (f"/v1/accounts?limit=1&cursor={cursor}", caller),
    ):
        is_problem(door.get(path, headers), 422, "invalid_request")


@pytest.mark.requirement("X-15")
@pytest.mark.security("T-17")
def test_lists_end_at_the_bounds(door: Door, kw: Keywright) -> None:
    """A bound key lists what it is bound to, and asking for another's is 404."""
    mine, other = make(kw), make(kw, account="initech", environment="staging")
    for bound, foreign in (
        ({"account": "globex"}, "account=initech"),
        ({"keyspace": "every", "environment": "production"}, "environment=staging"),
    ):
        headers = manager(kw, **bound)
        ids = [item["id"] for item in door.get("/v1/keys", headers).json["items"]]

        assert (mine.key.id in ids, other.key.id in ids) == (True, False)
        is_problem(door.get(f"/v1/keys?{foreign}", headers), 404, "not_found")
    accounts = door.get("/v1/accounts", manager(kw, account="globex")).json["items"]
    assert [account["username"] for account in accounts] == ["globex"]
    keyspaces = door.get("/v1/keyspaces", manager(kw, keyspace="every")).json["items"]
    assert [keyspace["name"] for keyspace in keyspaces] == ["every"]


def test_a_secret_in_a_search_is_answered_and_flagged(
    door: Door, kw: Keywright, caller: dict[str, str]
) -> None:
    """A credential pasted into the search finds its key by its id, is flagged, and is nowhere in the answer."""
    for keyspace in ("every", "atfinity"):
        key = make(kw, keyspace=keyspace)
        make(kw, keyspace=keyspace)

        reply = door.get(f"/v1/keys?limit=5&q={token(key)}", caller)

        assert [item["id"] for item in reply.json["items"]] == [key.key.id]
        assert reply.json["flagged"] == "secret_in_query"
        assert token(key)[-36:].encode() not in reply.body
    assert "flagged" not in door.get("/v1/keys?q=every", caller).json


def test_a_secret_elsewhere_in_the_url_is_refused(door: Door, caller: dict[str, str], key: Issued) -> None:
    """A credential in any other place of an address is refused, beside a right management key, and not echoed."""
    secret = token(key)
    own = caller["Authorization"].removeprefix("Bearer ")
    for target in (
        f"/v1/keys/{secret}",
        f"/v1/keys/{own}",
        f"/v1/keys?account={secret}",
        f"/v1/keys?limit=1&q=x&cursor={secret}",
        f"/v1/accounts?q={secret}",
        f"/v1/keyspaces/{secret}",
        f"/v1/keys?authorization={own}",
        "/v1/keys?Authorization=Bearer",
    ):
        reply = door.get(target, caller)

        is_problem(reply, 401, "ambiguous")
        assert secret[-36:].encode() not in reply.body
        assert own[-36:].encode() not in reply.body


# ----------------------------------------------------------------------------------------------------------- the verbs


@pytest.mark.requirement("P-15", "P-16", "P-31", "P-32", "F-29")
def test_the_rotation_of_the_seeds(door: Door, caller: dict[str, str]) -> None:
    """Make a new key, use both, invalidate the old: no call fails in between, and only the new one works at the end."""
    old = door.json("POST", "/v1/keys", NEW_KEY, caller).json
    new = door.json("POST", "/v1/keys", NEW_KEY, caller).json

    def works(issued: dict[str, Any]) -> str:
        headers = {"x-api-key": issued["credential"]["token"], "x-api-user": "globex"}
        return door.get("/k/every.production/whoami", headers).code

    assert (works(old), works(new)) == ("ok", "ok")
    assert door.send("POST", f"/v1/keys/{old['key']['id']}/invalidate", caller).status == 200
    assert (works(old), works(new)) == ("invalidated", "ok")


@pytest.mark.security("K-12")
def test_a_rotation_over_http(door: Door, caller: dict[str, str], clock: Clock) -> None:
    """Rotate keeps the id; both secrets work for the grace; cancel ends the new, finish the old, and twice is 409."""
    first = door.json("POST", "/v1/keys", NEW_KEY, caller).json
    path = f"/v1/keys/{first['key']['id']}/rotate"

    def works(issued: dict[str, Any]) -> str:
        return door.get("/k/every.production/whoami", {"X-Token": issued["credential"]["token"]}).code

    second = door.json("POST", path, {"grace_seconds": 60}, caller).json
    assert second["key"]["id"] == first["key"]["id"]
    assert (works(first), works(second)) == ("ok", "ok")
    is_problem(door.json("POST", path, {}, caller), 409, "conflict")
    assert door.send("POST", f"{path}/cancel", caller).json["propagation"] == {"exact": True}
    assert (works(first), works(second)) == ("ok", "rotated")
    is_problem(door.send("POST", f"{path}/cancel", caller), 409, "conflict")
    third = door.json("POST", path, {"grace_seconds": 60}, caller).json
    clock.advance(seconds=59)
    assert works(first) == "ok"
    clock.advance(seconds=1)
    assert (works(first), works(third)) == ("rotated", "ok")
    fourth = door.json("POST", path, {"grace_seconds": 3600}, caller).json
    assert door.send("POST", f"{path}/finish", caller).status == 200
    assert (works(third), works(fourth)) == ("rotated", "ok")
    is_problem(door.send("POST", f"{path}/finish", caller), 409, "conflict")
    fifth = door.json("POST", path, {"grace_seconds": 3600}, caller).json
    sixth = door.json("POST", path, {"force": True, "grace_seconds": 3600}, caller).json
    assert (works(fourth), works(fifth), works(sixth)) == ("rotated", "rotated", "ok")


def test_a_rotation_that_is_cut_off_did_not_happen(door: Door, caller: dict[str, str]) -> None:
    """Where the client goes away before its body has come, nothing is rotated, stopped or made."""
    issued = door.json("POST", "/v1/keys", NEW_KEY, caller).json
    key_id = issued["key"]["id"]
    for verb in ("rotate", "invalidate"):
        for part in (b"", b'{"grace_sec'):
            assert door.json("POST", f"/v1/keys/{key_id}/{verb}", part, caller, cut=True).status == 0
    assert door.json("POST", "/v1/keys", NEW_KEY, caller, cut=True).status == 0

    shown = door.get(f"/v1/keys/{key_id}", caller).json
    assert (shown["state"], len(shown["secrets"]), shown["rotation"]) == ("active", 1, None)
    assert len(door.get("/v1/keys?account=globex&keyspace=every", caller).json["items"]) == 1


@pytest.mark.requirement("P-22", "P-23", "F-26")
def test_ends_are_final_and_repeatable(door: Door, caller: dict[str, str]) -> None:
    """Invalidate keeps a key listed and can be repeated; nothing brings it back; delete removes it, and again is 404."""
    key_id = door.json("POST", "/v1/keys", NEW_KEY, caller).json["key"]["id"]
    path = f"/v1/keys/{key_id}"
    for _ in range(2):
        reply = door.json("POST", f"{path}/invalidate", {"reason": "leaked"}, caller)
        assert (reply.status, reply.json["state"], reply.json["state_reason"]) == (
            200,
            "invalidated",
            "leaked",
        )
    for verb in ("enable", "disable", "rotate", "rotate/finish", "rotate/cancel"):
        is_problem(door.send("POST", f"{path}/{verb}", caller), 409, "conflict")
    is_problem(door.json("PATCH", path, {"access": "all", "expires_at": None}, caller), 409, "conflict")
    assert door.json("PATCH", path, {"name": "Was leaked"}, caller).json["name"] == "Was leaked"
    assert key_id in [item["id"] for item in door.get("/v1/keys", caller).json["items"]]

    assert door.send("DELETE", path, caller).status == 200

    for method, target in (("DELETE", path), ("GET", path), ("POST", f"{path}/enable")):
        is_problem(door.send(method, target, caller), 404, "not_found")
    assert key_id not in [item["id"] for item in door.get("/v1/keys", caller).json["items"]]


@pytest.mark.requirement("F-24", "X-20")
def test_an_edit_obeys_at_once_and_keeps_the_secret(
    door: Door, kw: Keywright, caller: dict[str, str], clock: Clock
) -> None:
    """Name, description, access and expiry are changed and shown; the next call obeys, with the same secret."""
    key = make(kw)
    path = f"/v1/keys/{key.key.id}"
    family = {"X-Forwarded-Method": "POST", "X-Forwarded-Uri": "/things"} | bearer(key)

    def code() -> str:
        return door.get("/authz/forward/shop", family).code

    edited = door.json("PATCH", path, {"name": "New", "description": "<b>Two\nlines</b>"}, caller).json
    assert (edited["name"], edited["description"], code()) == ("New", "<b>Two\nlines</b>", "ok")
    door.json("PATCH", path, {"access": "read_only"}, caller)
    assert code() == "insufficient_scope"
    door.json("PATCH", path, {"access": "all", "expires_at": "2027-01-15T12:01:30Z"}, caller)
    assert code() == "ok"
    clock.advance(seconds=60)
    assert (code(), door.get(path, caller).json["state"]) == ("expired", "expired")
    assert door.json("PATCH", path, {"expires_at": None}, caller).json["expires_at"] is None
    assert code() == "ok"


@pytest.mark.requirement("P-35")
def test_an_account_that_is_not_active(door: Door, caller: dict[str, str]) -> None:
    """A pending or suspended account's keys do not work, and no key can be made for it until it is activated."""
    door.json("POST", "/v1/accounts", {"username": "hooli", "pending": True}, caller)
    asked = NEW_KEY | {"account": "hooli"}
    is_problem(door.json("POST", "/v1/keys", asked, caller), 409, "conflict")
    door.send("POST", "/v1/accounts/hooli/activate", caller)
    issued = door.json("POST", "/v1/keys", asked, caller).json

    def code() -> str:
        return door.get("/k/every.production/whoami", {"X-Token": issued["credential"]["token"]}).code

    assert code() == "ok"
    assert door.send("POST", "/v1/accounts/hooli/suspend", caller).json["state"] == "suspended"
    assert code() == "account_suspended"
    is_problem(door.json("POST", "/v1/keys", asked, caller), 409, "conflict")
    door.send("POST", "/v1/accounts/hooli/activate", caller)
    assert code() == "ok"
    is_problem(door.json("POST", "/v1/accounts", {"username": "hooli"}, caller), 409, "conflict")


@pytest.mark.requirement("X-11")
def test_what_must_be_given(door: Door, caller: dict[str, str]) -> None:
    """A name is needed everywhere, a description nowhere, and access where the keyspace has no default."""
    for keyspace, needs_access in (
        ("every", False),
        ("atfinity", False),
        ("default", True),
        ("gallabox", True),
    ):
        asked = NEW_KEY | {"keyspace": keyspace}
        reply = door.json("POST", "/v1/keys", asked, caller)
        if needs_access:
            is_problem(reply, 422, "invalid_request")
            reply = door.json("POST", "/v1/keys", asked | {"access": "all"}, caller)
        assert (reply.status, reply.json["key"]["access"], reply.json["key"]["description"]) == (
            201,
            "all",
            "",
        )
        del asked["name"]
        is_problem(door.json("POST", "/v1/keys", asked, caller), 422, "invalid_request")


def test_text_is_kept_as_text(door: Door, caller: dict[str, str]) -> None:
    """Markup, quotes and emoji in a name come back as they went in; controls and turned directions are refused."""
    for name in ("<img src=x onerror=alert(1)>", 'O\'Brien "&" 🦀', "=cmd|' /C calc'!A0", "x" * 200):
        made = door.json("POST", "/v1/keys", NEW_KEY | {"name": name}, caller)
        assert made.json["key"]["name"] == name
    for name in ("a\u202eb", "a\x00b", "a\nb", "\x1b[2J", "x" * 5000, "   "):
        is_problem(door.json("POST", "/v1/keys", NEW_KEY | {"name": name}, caller), 422, "invalid_request")


def test_a_large_number_survives(door: Door, caller: dict[str, str]) -> None:
    """Metadata comes back as it went in, numbers beyond 64 bits and depth up to the limit too."""
    metadata = {"n": 2**53 + 1, "big": 10**60, "f": 0.1, "deep": json.loads("[" * 19 + "]" * 19), "é": None}

    made = door.json("POST", "/v1/keys", NEW_KEY | {"metadata": metadata}, caller)

    assert made.status == 201
    assert door.get(f"/v1/keys/{made.json['key']['id']}", caller).json["metadata"] == metadata
