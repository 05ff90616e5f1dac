"""``/v1/scopes``, ``/v1/plans``, ``/v1/gates``: to read. Their source is the TOML that was applied."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from keywright import shown
from keywright.model import Keyspace
from keywright.server.api.caller import Opened, needs
from keywright.server.callers import Caller

router = APIRouter(prefix="/v1", tags=["definitions"])
Reads = Annotated[Caller, needs("keyspaces:read")]
Name = Annotated[str | None, Query(max_length=200)]


@router.get("/scopes")
def list_scopes(caller: Reads, opened: Opened, response: Response, keyspace: Name = None) -> dict[str, Any]:
    """The scopes of a keyspace, or of all that the caller can reach."""
    return _listed(caller, opened, response, keyspace, shown.scopes)


@router.get("/plans")
def list_plans(caller: Reads, opened: Opened, response: Response, keyspace: Name = None) -> dict[str, Any]:
    """The plans of a keyspace, or of all that the caller can reach."""
    return _listed(caller, opened, response, keyspace, shown.plans)


@router.get("/gates")
def list_gates(caller: Reads, opened: Opened, response: Response, keyspace: Name = None) -> dict[str, Any]:
    """The named gates of a keyspace, or of all that the caller can reach."""
    return _listed(
        caller, opened, response, keyspace, lambda space: shown.gates(space, caller.reach.environment)
    )


def _listed(
    caller: Caller,
    opened: Opened,
    response: Response,
    keyspace: str | None,
    show: Callable[[Keyspace], list[dict[str, Any]]],
) -> dict[str, Any]:
    response.headers["Cache-Control"] = "no-store"
    name = caller.reach.needs("keyspace", keyspace)
    found = opened.keyspaces.list() if name is None else [opened.keyspaces.get(name)]
    items = [item for applied in found for item in show(applied.keyspace)]
    return {"items": items, "next_cursor": None}
