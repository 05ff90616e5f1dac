"""The OpenAPI document against the server: what schemathesis makes of it is answered as it says, on both databases."""

import os
from collections.abc import Callable
from functools import partial
from itertools import cycle
from secrets import token_hex
from typing import Any
from zlib import crc32

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis.core.parameters import ParameterLocation
from schemathesis.schemas import BaseSchema

from conftest import bearer, make
from keywright import Keywright
from keywright.model import Session
from people import PASSWORD, as_person, begin, member
from surfaces import manager, server
from test_management_api import alerted, hook

pytestmark = [
    pytest.mark.stores,
    pytest.mark.security("H-02", "H-09", "R-21"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Do not use the `random` module:"),  # schemathesis does
]

#: What schemathesis calls positive is well-formed; whether a scope, a plan or a cursor means anything, the store knows.
CONFIG = {
    "checks": {
        "positive_data_acceptance": {
            "expected-statuses": [200, 201, 202, 204, 400, 401, 403, 404, 409, 422, 429, 503],
        }
    }
}
#: Operations that the installation of the tests has nothing for, or that want what only an authenticator knows.
NEVER = {
    "POST /v1/session/factor/confirm",
    "POST /v1/session/factor/codes",
    "DELETE /v1/session/factor",
    "POST /v1/people/{person_id}/dismiss",  # an operator
    "POST /v1/people/{person_id}/unlink",  # somebody who comes by a provider
    "POST /v1/webhooks/{webhook_id}/verify",  # the challenge that the address was sent
    "POST /v1/leaks/github",  # nobody signs
    "GET /.well-known/security.txt",  # no contact is set
    "GET /authz/forward/{gate}",  # no proxy asks
    "GET /authz/nginx/{gate}",
    "GET /authz/accel/{gate}",
    "POST /v1/keys/{key_id}/rotate/finish",  # a rotation is forced, so none is under way
    "POST /v1/keys/{key_id}/rotate/cancel",
}
#: What half of the well-formed bodies say besides, so that more than their form is tried.
_HERE: dict[str, Any] = {"keyspace": "every", "environment": "production"}
MEANT: dict[str, dict[str, Any]] = {
    "POST /v1/keys": _HERE
    | {"account": "globex", "name": "Fuzz", "access": "all", "scopes": None, "plan": None, "expires_at": None}
    | {
        "limits": ["5/day"],
        "allowed_ips": ["10.0.0.0/8"],
        "team": None,
        "application": None,
        "metadata": None,
    },
    "POST /v1/keys/import": _HERE | {"account": "globex", "items": [{"name": "Fuzz"}]},
    "POST /v1/portal/sessions": {
        "account": "globex",
        "subject": "ana@globex",
        "role": "admin",
        "access": "all",
    }
    | {"keyspace": None, "environment": None, "name": None, "scopes": [], "return_url": None},
    "POST /v1/portal/sessions/end": {"account": "globex", "subject": None},
    "POST /v1/management-keys": {"name": "Fuzz", "scopes": ["verify"], "expires_at": None}
    | {"account": None, "keyspace": None, "environment": None},
    "POST /v1/verify": _HERE
    | {"token": "no token", "id": None, "secret": None, "headers": None, "scopes": [], "cost": 1, "ip": None},
    "POST /v1/keys/{key_id}/rotate": {"grace_seconds": 60, "start": "now", "force": True},
    "POST /v1/management-keys/{management_key_id}/rotate": {"grace_seconds": 60, "force": True},
    "POST /v1/keys/{key_id}/invalidate": {"reason": "leaked"},
    "POST /v1/people": {"email": "fuzz@globex.example", "account": "globex", "role": "analyst"},
    "PATCH /v1/people/{person_id}": {"account": "globex", "role": "auditor"},
    "PATCH /v1/keys/{key_id}": {"name": "Fuzz"},
    "POST /v1/session": {"email": "ana@globex.example", "password": PASSWORD, "code": ""},
    "POST /v1/session/prove": {"password": PASSWORD, "code": ""},
    "POST /v1/session/password": {"current": PASSWORD, "password": f"not {PASSWORD}"},
    "POST /v1/webhooks": {
        "url": "https://hooks.example.com/",
        "events": ["key.created"],
        "description": "Fuzz",
    }
    | {"account": "globex", "keyspace": None, "environment": None},
    "PATCH /v1/webhooks/{webhook_id}": {
        "url": "https://hooks.example.com/",
        "events": [],
        "description": None,
    },
    "POST /v1/webhooks/{webhook_id}/redeliver": {"since": "2027-01-01T00:00:00Z"},
}
EXAMPLES, WALKS = (500, 100) if os.environ.get("KEYWRIGHT_PROOF") else (15, 10)
BOUNDED = partial(
    settings, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)


def described(kw: Keywright) -> tuple[BaseSchema, Callable[[Any], dict[str, str]], dict[str, str]]:
    """The document, with half of its ids those of things that there are; and who calls an operation."""
    config = schemathesis.Config.from_dict(CONFIG)
    schema = schemathesis.openapi.from_asgi("/openapi.json", server(kw), config=config)
    managed = kw.keys.create_management(name="Managed", scopes=["verify"])
    begin(kw, "owner", email="ana@globex.example")
    ids = {
        "key_id": make(kw).key.id,
        "username": "globex",
        "name": "every",
        "management_key_id": managed.key.id,
        "person_id": member(kw, "analyst").id,
        "webhook_id": hook(kw).endpoint.id,
        "alert_id": alerted(kw),
        "visit_id": kw.portal.open(account="globex", subject="ana@globex").session.id,
        "gate": "shop",
        "place": "every.production",
        "page": "usage.md",
    }

    @schema.hook
    def map_path_parameters(_context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        if not path_parameters or crc32(repr(path_parameters).encode()) % 2:
            return path_parameters
        here = ids | {"session_id": person.begun[1].id}
        return {name: here.get(name, value) for name, value in path_parameters.items()}

    customers, managers, person = bearer(make(kw)), manager(kw), Visitor(kw)

    def headers(case: Any) -> dict[str, str]:
        if case.path.startswith("/v1/session"):
            left_out = case.meta.components.get(ParameterLocation.COOKIE)
            return {} if left_out is not None and left_out.mode.is_negative else person.headers()
        if case.path.startswith("/v1/people/{person_id}/"):
            return person.headers()
        return customers if case.path.startswith(("/k/", "/authz/")) else managers

    return schema, headers, ids


class Visitor:
    """Somebody who is signed in: another one, whenever what was tried has ended their session."""

    def __init__(self, kw: Keywright) -> None:
        self.kw = kw
        self.begun = self._begin()

    def headers(self) -> dict[str, str]:
        """What a page of theirs sends."""
        if self.kw.installation.sessions.find(self.begun[0]) is None:
            self.begun = self._begin()
        return as_person(self.kw, self.begun)

    def link(self) -> str:
        """What the link of somebody holds who is yet to come."""
        return self.kw.installation.people.appoint(f"{token_hex(6)}@fuzz.example").token

    def _begin(self) -> tuple[str, Session]:
        begun = self.kw.installation.sessions.follow(self.link(), PASSWORD)
        return begun.token, begun.session


def fuzz(kw: Keywright, examples: int, number: int) -> set[str]:
    """Try every operation with so many examples; the operations that never accepted one."""
    schema, headers, ids = described(kw)
    links = Visitor(kw)
    following = {"token": links.link(), "password": PASSWORD, "code": "", "email": None, "name": None}
    meant_here = MEANT | {
        "POST /v1/session/link": {"token": links.link()},
        "POST /v1/session/follow": following,
    }
    operations = [result.ok() for result in schema.get_all_operations()]
    accepted: set[str] = set()
    turn = cycle((True, False))
    for operation in sorted(operations, key=_ends):

        @seed(number)
        @BOUNDED(max_examples=examples)
        @given(case=operation.as_strategy())
        def each(case: Any) -> None:
            meant = meant_here.get(case.operation.label)
            if meant and next(turn) and case.meta.generation.mode.is_positive:
                case.body = meant
                case.path_parameters = {
                    name: ids.get(name, value) for name, value in case.path_parameters.items()
                }
            if case.operation.label == "DELETE /v1/people/{person_id}" and next(turn):
                case.query = {"account": "globex"}
            response = case.call_and_validate(headers=headers(case))
            if response.status_code < 300:
                accepted.add(case.operation.label)

        each()
    return {operation.label for operation in operations} - accepted


def _ends(operation: Any) -> tuple[bool, bool]:
    """What ends a thing is tried after all else."""
    return operation.method == "delete", "invalidate" in operation.path


def walk(kw: Keywright, walks: int, number: int) -> None:
    """Follow what one answer names into the next request, as its links say."""
    schema, headers, _ = described(kw)

    class Walk(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": headers(case)}

    # Hypothesis takes what an earlier walk left behind for a fault of its own draws: then the walk ends early.
    early = 0
    for turn in range(walks):
        try:
            seed(number + turn)(Walk).run(settings=BOUNDED(max_examples=2, stateful_step_count=8))
        except FlakyStrategyDefinition:
            early += 1
    assert early < walks / 2


@pytest.mark.full("five hundred examples an operation")
def test_every_operation_answers_as_described(kw: Keywright) -> None:
    """Each operation, with what fits its description and what does not, passes all of schemathesis's checks."""
    found = fuzz(kw, EXAMPLES, 1)
    assert (sorted(found - NEVER), sorted(NEVER - found)) == ([], [])


@pytest.mark.full("a hundred walks")
def test_a_walk_through_the_operations(kw: Keywright) -> None:
    """Sequences of requests, in which what was made is read, changed and removed, pass all of schemathesis's checks."""
    walk(kw, WALKS, 1)
