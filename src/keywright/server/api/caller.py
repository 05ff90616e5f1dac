"""Who calls, and whether they may: what every route asks first."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

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


def _installation(request: Request) -> Installation:
    found: Installation = request.app.state.installation
    return found


def _settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


Opened = Annotated[Installation, Depends(_installation)]
Configured = Annotated[Settings, Depends(_settings)]
