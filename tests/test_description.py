"""The OpenAPI document against the server: what schemathesis makes of it is answered as it says, on both databases."""

import os
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.schemas import BaseSchema

from conftest import bearer, make
from keywright import Keywright
from surfaces import manager, server

pytestmark = [
    pytest.mark.stores,
    pytest.mark.security("H-02", "H-09", "R-21"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

#: What schemathesis calls positive is well-formed; whether a scope, a plan or a cursor means anything, the store knows.
CONFIG = {
    "checks": {
        "positive_data_acceptance": {
            "expected-statuses": [200, 201, 400, 401, 403, 404, 409, 422, 429, 503],
        }
    }
}
#: Operations that the installation of the tests has nothing for.
NEVER = {
    "GET /.well-known/security.txt",  # no contact is set
    "GET /authz/forward/{gate}",  # no proxy asks
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
    "POST /v1/management-keys": {"name": "Fuzz", "scopes": ["verify"], "expires_at": None}
    | {"account": None, "keyspace": None, "environment": None},
    "POST /v1/verify": _HERE
    | {"token": "no token", "id": None, "secret": None, "headers": None, "scopes": [], "cost": 1, "ip": None},
    "POST /v1/keys/{key_id}/rotate": {"grace_seconds": 60, "start": "now", "force": True},
    "POST /v1/management-keys/{management_key_id}/rotate": {"grace_seconds": 60, "force": True},
    "POST /v1/keys/{key_id}/invalidate": {"reason": "leaked"},
}
EXAMPLES, WALKS = (500, 100) if os.environ.get("KEYWRIGHT_PROOF") else (15, 10)
BOUNDED = partial(
    settings, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)


def described(kw: Keywright) -> tuple[BaseSchema, Callable[[Any], dict[str, str]]]:
    """The document, with half of its ids those of things that there are; and who calls an operation."""
    config = schemathesis.Config.from_dict(CONFIG)
    schema = schemathesis.openapi.from_asgi("/openapi.json", server(kw), config=config)
    managed = kw.keys.create_management(name="Managed", scopes=["verify"])
    ids = {
        "key_id": make(kw).key.id,
        "username": "globex",
        "name": "every",
        "management_key_id": managed.key.id,
        "gate": "shop",
        "place": "every.production",
        "page": "usage.md",
    }
    turn = cycle((True, False))

    @schema.hook
    def map_path_parameters(_context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        if not path_parameters or not next(turn):
            return path_parameters
        return {name: ids.get(name, value) for name, value in path_parameters.items()}

    customers, managers = bearer(make(kw)), manager(kw)

    def headers(case: Any) -> dict[str, str]:
        return customers if case.path.startswith(("/k/", "/authz/")) else managers

    return schema, headers


def fuzz(kw: Keywright, examples: int, number: int) -> set[str]:
    """Try every operation with so many examples; the operations that never accepted one."""
    schema, headers = described(kw)
    operations = [result.ok() for result in schema.get_all_operations()]
    accepted: set[str] = set()
    turn = cycle((True, False))
    for operation in sorted(operations, key=_ends):

        @seed(number)
        @BOUNDED(max_examples=examples)
        @given(case=operation.as_strategy())
        def each(case: Any) -> None:
            meant = MEANT.get(case.operation.label)
            if meant and next(turn) and case.meta.generation.mode.is_positive:
                case.body = meant
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
    schema, headers = described(kw)

    class Walk(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": headers(case)}

    # Two at a time: hypothesis would take what an earlier walk left behind for a fault of its own draws.
    for turn in range(walks):
        seed(number + turn)(Walk).run(settings=BOUNDED(max_examples=2, stateful_step_count=8))


@pytest.mark.full("five hundred examples an operation")
def test_every_operation_answers_as_described(kw: Keywright) -> None:
    """Each operation, with what fits its description and what does not, passes all of schemathesis's checks."""
    assert fuzz(kw, EXAMPLES, 1) == NEVER


@pytest.mark.full("a hundred walks")
def test_a_walk_through_the_operations(kw: Keywright) -> None:
    """Sequences of requests, in which what was made is read, changed and removed, pass all of schemathesis's checks."""
    walk(kw, WALKS, 1)
