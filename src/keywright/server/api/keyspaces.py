"""``/v1/keyspaces``: to read. Their source is the TOML that was applied."""

from typing import Annotated, Any

from fastapi import APIRouter, Response

from keywright import shown
from keywright.server.api.caller import Opened, needs
from keywright.server.callers import Caller

router = APIRouter(prefix="/v1/keyspaces", tags=["keyspaces"])
Reads = Annotated[Caller, needs("keyspaces:read")]


@router.get("")
def list_keyspaces(caller: Reads, opened: Opened, response: Response) -> dict[str, Any]:
    """All that the caller can reach, by name."""
    response.headers["Cache-Control"] = "no-store"
    found = [
        applied
        for applied in opened.keyspaces.list()
        if caller.reach.keyspace in (None, applied.keyspace.name)
    ]
    items = [shown.keyspace(applied.keyspace, applied.created_at, applied.updated_at) for applied in found]
    return {"items": items, "next_cursor": None}


@router.get("/{name}")
def get(name: str, caller: Reads, opened: Opened, response: Response) -> dict[str, Any]:
    """Read one."""
    response.headers["Cache-Control"] = "no-store"
    applied = opened.keyspaces.get(caller.reach.needs("keyspace", name) or name)
    return shown.keyspace(applied.keyspace, applied.created_at, applied.updated_at)


@router.get("/{name}/source")
def source(name: str, caller: Reads, opened: Opened, response: Response) -> dict[str, Any]:
    """Read one's TOML, as it was applied."""
    response.headers["Cache-Control"] = "no-store"
    applied = opened.keyspaces.get(caller.reach.needs("keyspace", name) or name)
    return {"name": applied.keyspace.name, "source": applied.source}
