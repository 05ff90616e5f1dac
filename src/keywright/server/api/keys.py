"""``/v1/keys``: the verbs on keys."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from keywright import shown
from keywright.desk.listing import LONGEST_PAGE, is_secret
from keywright.desk.once import Replay
from keywright.installation import Installation
from keywright.model import Changed, Issued
from keywright.presentations import example_url
from keywright.server.api.caller import Configured, Opened, Repeatable, needs
from keywright.server.callers import Caller
from keywright.settings import Settings
from keywright.times import parse_instant

router = APIRouter(prefix="/v1/keys", tags=["keys"])
Reads = Annotated[Caller, needs("keys:read")]
Counts = Annotated[Caller, needs("usage:read")]
Writes = Annotated[Caller, needs("keys:write")]
Creating = Annotated[Repeatable, Depends()]
Access = Literal["all", "read_only", "restricted"]


class Body(BaseModel):
    """A request body: unknown fields are refused, and a number is not a text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class LimitBody(Body):
    """One limit, as an object. A text such as ``10000/day`` does as well."""

    name: str | None = None
    kind: Literal["quota", "rate", "credits"]
    limit: int
    per: Literal["minute", "hour", "day", "month"] | int | None = None


class NewKey(Body):
    """What a key is made from."""

    keyspace: str | None = None
    account: str | None = None
    environment: str | None = None
    name: str
    description: str | None = None
    access: Access | None = None
    scopes: list[str] | None = None
    team: str | None = None
    application: str | None = None
    limits: list[LimitBody | str] | None = None
    plan: str | None = None
    expires_at: str | None = None
    allowed_ips: list[str] | None = None
    metadata: dict[str, Any] | None = None


class EditedKey(Body):
    """What an edit may mention. What is left out stays as it is, whatever its default here; ``null`` empties."""

    name: str = Field(default_factory=str)
    description: str | None = None
    access: Access = Field(default_factory=lambda: "all")
    scopes: list[str] | None = None
    team: str | None = None
    application: str | None = None
    limits: list[LimitBody | str] | None = None
    plan: str | None = None
    expires_at: str | None = None
    allowed_ips: list[str] | None = None
    metadata: dict[str, Any] | None = None


class Rotation(Body):
    """How a secret is replaced."""

    grace_seconds: int = 0
    start: Literal["now", "first_use"] = "now"
    force: bool = False


class Invalidation(Body):
    """Why a key is stopped for ever."""

    reason: str | None = Field(default=None)


class Together(Body):
    """What is done to several keys at once."""

    act: Literal["disable", "enable", "invalidate", "delete"]
    keys: list[str] = Field(min_length=1, max_length=LONGEST_PAGE)


class Import(Body):
    """Keys of an earlier system. An item has its credential, as ``token`` or ``hash``, and what a creation takes."""

    keyspace: str | None = None
    account: str | None = None
    environment: str | None = None
    dry_run: bool = False
    items: list[dict[str, Any]] = Field(min_length=1, max_length=LONGEST_PAGE)


class Pause(Body):
    """For how long a key is stopped; without, until it is enabled."""

    for_seconds: int | None = None


@router.post("", status_code=201)
def create(
    body: NewKey,
    caller: Writes,
    opened: Opened,
    settings: Configured,
    call: Creating,
    response: Response,
) -> dict[str, Any]:
    """Make a key. Its secret is in this answer and in no other, the answer to a repeated call included."""
    once = call.once(caller, body)
    try:
        issued = opened.keys.create(**_given(body), actor=caller.actor, reach=caller.reach, once=once)
    except Replay as earlier:
        uncached(response)
        response.headers["Idempotency-Replayed"] = "true"
        return shown.reissued(opened.keys.made(earlier.made, reach=caller.reach), opened.clock())
    return issued_answer(issued, opened, settings, response)


@router.get("")
def list_keys(
    caller: Reads,
    opened: Opened,
    response: Response,
    keyspace: str | None = None,
    account: str | None = None,
    environment: str | None = None,
    state: str | None = None,
    team: str | None = None,
    application: str | None = None,
    q: str | None = None,
    parent: str | None = None,
    hygiene: str | None = None,
    sort: str = "-created_at",
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Some keys. A secret that was pasted into ``q`` is looked up by its id, and the answer is flagged."""
    page = opened.keys.list(
        keyspace=keyspace,
        account=account,
        environment=environment,
        state=state,
        team=team,
        application=application,
        q=q,
        parent=parent,
        hygiene=hygiene,
        sort=sort,
        cursor=cursor,
        limit=limit,
        reach=caller.reach,
    )
    uncached(response)
    now = opened.clock()
    found: dict[str, Any] = {
        "items": [shown.key(key, now) for key in page.items],
        "next_cursor": page.next_cursor,
    }
    return found | {"flagged": "secret_in_query"} if is_secret(q) else found


@router.post("/several")
def several(body: Together, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Change several in one transaction. One that is not there, or cannot be changed so, is passed over and named."""
    uncached(response)
    return shown.several(opened.keys.several(body.act, body.keys, actor=caller.actor, reach=caller.reach))


@router.post("/import")
def import_keys(body: Import, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Make keys of credentials that an earlier system made, which go on working. What cannot be is refused by itself."""
    uncached(response)
    return shown.imported(opened.keys.import_(**dict(body), actor=caller.actor, reach=caller.reach))


@router.get("/{key_id}")
def get(key_id: str, caller: Reads, opened: Opened, response: Response) -> dict[str, Any]:
    """Read one."""
    uncached(response)
    return shown.key(opened.keys.get(key_id, reach=caller.reach), opened.clock())


@router.get("/{key_id}/limits")
def limits(key_id: str, caller: Counts, opened: Opened, response: Response) -> dict[str, Any]:
    """What a key's use is taken from: its own limits, its account's and its plan's, and how much of each is taken."""
    uncached(response)
    held = opened.keys.limits(key_id, reach=caller.reach)
    return {"items": [shown.standing(one) for one in held], "next_cursor": None}


@router.patch("/{key_id}")
def edit(key_id: str, body: EditedKey, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Change what is mentioned. The next verification obeys it."""
    changed = opened.keys.edit(key_id, **_given(body), actor=caller.actor, reach=caller.reach)
    return changed_answer(changed, opened, response)


@router.delete("/{key_id}")
def delete(key_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Remove a key for good."""
    return changed_answer(
        opened.keys.delete(key_id, actor=caller.actor, reach=caller.reach), opened, response
    )


@router.post("/{key_id}/rotate")
def rotate(
    key_id: str,
    caller: Writes,
    opened: Opened,
    settings: Configured,
    response: Response,
    body: Rotation | None = None,
) -> dict[str, Any]:
    """Give a key a second secret, which is in this answer and in no other."""
    asked = body or Rotation()
    issued = opened.keys.rotate(
        key_id,
        grace_seconds=asked.grace_seconds,
        start=asked.start,
        force=asked.force,
        actor=caller.actor,
        reach=caller.reach,
    )
    return issued_answer(issued, opened, settings, response)


@router.post("/{key_id}/rotate/finish")
def finish(key_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """End the old secret of a rotation now."""
    return changed_answer(
        opened.keys.finish(key_id, actor=caller.actor, reach=caller.reach), opened, response
    )


@router.post("/{key_id}/rotate/cancel")
def cancel(key_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """End the new secret of a rotation now."""
    return changed_answer(
        opened.keys.cancel(key_id, actor=caller.actor, reach=caller.reach), opened, response
    )


@router.post("/{key_id}/invalidate")
def invalidate(
    key_id: str, caller: Writes, opened: Opened, response: Response, body: Invalidation | None = None
) -> dict[str, Any]:
    """Stop a key for ever; it stays in the list."""
    reason = None if body is None else body.reason
    changed = opened.keys.invalidate(key_id, reason=reason, actor=caller.actor, reach=caller.reach)
    return changed_answer(changed, opened, response)


@router.post("/{key_id}/disable")
def disable(
    key_id: str, caller: Writes, opened: Opened, response: Response, body: Pause | None = None
) -> dict[str, Any]:
    """Stop a key until it is enabled, or for so many seconds: then it works again by itself."""
    seconds = None if body is None else body.for_seconds
    changed = opened.keys.disable(key_id, for_seconds=seconds, actor=caller.actor, reach=caller.reach)
    return changed_answer(changed, opened, response)


@router.post("/{key_id}/enable")
def enable(key_id: str, caller: Writes, opened: Opened, response: Response) -> dict[str, Any]:
    """Let a disabled key work again."""
    return changed_answer(
        opened.keys.enable(key_id, actor=caller.actor, reach=caller.reach), opened, response
    )


def _given(body: NewKey | EditedKey) -> dict[str, Any]:
    given = {field: getattr(body, field) for field in body.model_fields_set}
    if given.get("expires_at") is not None:
        given["expires_at"] = parse_instant(given["expires_at"], path="expires_at")
    if given.get("limits") is not None:
        given["limits"] = plain_limits(given["limits"])
    return given


def plain_limits(given: list[LimitBody | str]) -> list[str | dict[str, Any]]:
    """Limits as the desk reads them."""
    return [item if isinstance(item, str) else item.model_dump() for item in given]


def issued_answer(
    issued: Issued, opened: Installation, settings: Settings, response: Response
) -> dict[str, Any]:
    """A key with the credential that was made for it, as it is answered once."""
    uncached(response)
    keyspace = opened.keys.keyspace_of(issued.key)
    url = example_url(keyspace, issued.key, settings.base_url)
    return shown.issued(issued, keyspace, url, opened.clock())


def changed_answer(changed: Changed, opened: Installation, response: Response) -> dict[str, Any]:
    """A key after a change."""
    uncached(response)
    return shown.changed(changed, opened.clock())


def uncached(response: Response) -> None:
    """Let nobody keep an answer, or take it for anything but what it says it is."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
