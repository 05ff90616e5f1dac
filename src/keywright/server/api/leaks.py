"""``/v1/leaks``: whoever finds keys where they should not be says so. Anonymous."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from keywright.desk.leaks import LONGEST_URL, MOST_TOKENS
from keywright.errors import NotFound
from keywright.server.api.caller import Opened
from keywright.server.api.keys import uncached
from keywright.server.partner import Partner, feedback, read_matches

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


#: The headers of a report by GitHub: by which key it is signed, and the signature.
_SIGNED: Final = ("github-public-key-identifier", "github-public-key-signature")


def matches_of(*fields: str) -> dict[str, Any]:
    """How the document describes a list of matches, each with these fields, texts all of them."""
    one = {"type": "object", "properties": {name: {"type": "string"} for name in fields}}
    return {"required": True, "content": {"application/json": {"schema": {"type": "array", "items": one}}}}


async def raw(request: Request) -> bytes:
    """The body as it came."""
    return await request.body()


@router.post("/github", openapi_extra={"requestBody": matches_of("token", "type", "url", "source")})
def github(
    body: Annotated[bytes, Depends(raw)], request: Request, opened: Opened, response: Response
) -> list[dict[str, Any]]:
    """Take what GitHub's secret scanning has found, as to one of its partners. It is signed by GitHub.

    What is done with a key that is ours, its keyspace says. The answer labels each match by its SHA-256: `true_positive`
    where it is, or was, a key of this installation. 404 unless `leaks_github_keys_url` is set, and without a signature.
    """
    uncached(response)
    partner: Partner | None = request.app.state.partner
    given = [request.headers.getlist(name) for name in _SIGNED]
    if partner is None or any(len(values) != 1 for values in given):
        raise NotFound("there is nothing here")
    partner.prove(body, given[0][0], given[1][0])
    matches = read_matches(body)
    return feedback(matches, opened.leaks.matched([(match.token, match.url) for match in matches]))
