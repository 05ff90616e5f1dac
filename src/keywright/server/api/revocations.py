"""``/v1/revocable_token_types`` and ``/v1/revoke_tokens``: what GitLab's secret detection asks a service of one's own.

They are two of GitLab's words, whose contract they keep: 204 says that all was taken, 400 that the same must not come
again, 429 and 503 that it must, later. What comes twice is done once.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from keywright import scanners
from keywright.errors import CallerError, Invalid
from keywright.server.api.caller import Opened, needs
from keywright.server.api.keys import uncached
from keywright.server.api.leaks import matches_of, raw
from keywright.server.callers import Caller
from keywright.server.partner import read_matches

router = APIRouter(prefix="/v1", tags=["leaks"])
Reports = Annotated[Caller, needs("leaks:report")]
_TOKENS: Final = matches_of("type", "token", "location")


class Unreadable(CallerError):
    """What was reported cannot be read, and would not be if it came again."""

    code = "bad_json"


class Types(BaseModel):
    """Kinds of credentials."""

    types: list[str]


@router.get("/revocable_token_types")
def types(caller: Reports, opened: Opened, response: Response) -> Types:
    """Which kinds of credentials may be reported: those that gitleaks finds by the rules of `keywright keyspaces rules`.

    A management key that is bound to a keyspace is told of that one's.
    """
    uncached(response)
    spaces = [one.keyspace for one in opened.keyspaces.list()]
    return Types(
        types=scanners.gitlab_types(space for space in spaces if caller.reach.keyspace in (None, space.name))
    )


@router.post("/revoke_tokens", status_code=204, openapi_extra={"requestBody": _TOKENS})
def revoke(body: Annotated[bytes, Depends(raw)], caller: Reports, opened: Opened) -> Response:
    """Take tokens that were found where they should not be, 1,000 at most, and where they were found.

    204 is the answer whatever they are: what is done with a key that is ours, its keyspace says, within seconds and once. That
    the whole token is known is authority enough, whatever the caller is bound to and whatever its type is said to be.
    """
    try:
        found = read_matches(body, "location")
        opened.leaks.revoke([(match.token, match.url) for match in found], scanner=caller.actor.id)
    except Invalid as wrong:
        raise Unreadable(
            f"Send a list of tokens, 1,000 at most, each with its type and location: it {wrong.reason}."
        ) from None
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


__all__ = ["router"]
