"""``/v1/leaks``: whoever finds keys where they should not be says so. Anonymous."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from keywright.desk.leaks import LONGEST_URL, MOST_TOKENS
from keywright.server.api.caller import Opened
from keywright.server.api.keys import uncached

router = APIRouter(prefix="/v1/leaks", tags=["leaks"])


class Report(BaseModel):
    """What was found: whole tokens, or pairs as ``id:secret``; and where."""

    model_config = ConfigDict(extra="forbid")
    tokens: Annotated[list[str], Field(min_length=1, max_length=MOST_TOKENS)]
    url: Annotated[str | None, Field(max_length=LONGEST_URL)] = None


class Accepted(BaseModel):
    """The one answer: it says nothing of the tokens."""

    status: Literal["accepted"] = "accepted"


@router.post("/report", status_code=202)
def report(body: Report, request: Request, opened: Opened, response: Response) -> Accepted:
    """Report keys that were found where they should not be. Nobody needs to say who they are.

    The answer is the same whatever the tokens are. What is done with a key that is ours, its keyspace says; that the whole
    token is known is authority enough. One address may report 60 times an hour.
    """
    uncached(response)
    opened.leaks.report(body.tokens, url=body.url, source=request.scope["keywright.client"] or "")
    return Accepted()
