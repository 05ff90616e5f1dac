"""Who calls, and whether they may: what every route asks first."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from keywright.desk.once import Once, read
from keywright.installation import Installation
from keywright.settings import Settings

if TYPE_CHECKING:
    from keywright.server.hot import Caller


class Refused(Exception):  # said in the past tense, like the others
    """The caller lacks a scope."""

    def __init__(self, scope: str) -> None:
        super().__init__(scope)
        self.scope = scope


def needs(scope: str) -> Any:
    """The caller, who must hold a scope. Every route has exactly one of these."""

    def caller(request: Request) -> "Caller":
        found: Caller = request.scope["keywright.caller"]
        assert found.verdict.key is not None
        if scope not in found.verdict.key.scopes:
            raise Refused(scope)
        return found

    caller.scope = scope  # type: ignore[attr-defined]  # read by the test that every route names one
    return Depends(caller)


class Repeatable:
    """A creating call, which may come under an ``Idempotency-Key``."""

    def __init__(
        self,
        request: Request,
        idempotency_key: Annotated[
            str | None,
            Header(description="The same call under the same key, within a day, makes one thing."),
        ] = None,
    ) -> None:
        self._request = request

    def once(self, caller: "Caller", body: BaseModel) -> Once | None:
        """What identifies this call; ``None`` where no key came with it. Raises ``Invalid``."""
        route = f"{self._request.method} {self._request.scope['route'].path}"
        values = self._request.headers.getlist("idempotency-key")
        return read(values, caller.actor.id, route, body.model_dump(exclude_unset=True))


def _installation(request: Request) -> Installation:
    found: Installation = request.app.state.installation
    return found


def _settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


Opened = Annotated[Installation, Depends(_installation)]
Configured = Annotated[Settings, Depends(_settings)]
