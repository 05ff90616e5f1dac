"""Who calls, and whether they may: what every route asks first."""

from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from keywright.desk.once import Once, read
from keywright.errors import Invalid
from keywright.installation import Installation
from keywright.roles import OVER_KEYS
from keywright.server.callers import Caller, PasswordNeeded, SecondFactorMissing, lacks_factor
from keywright.settings import Settings


def _installation(request: Request) -> Installation:
    found: Installation = request.app.state.installation
    return found


def _settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


Opened = Annotated[Installation, Depends(_installation)]
Configured = Annotated[Settings, Depends(_settings)]


class Refused(Exception):  # said in the past tense, like the others
    """The caller lacks a scope, or is not an operator."""

    def __init__(self, scope: str, *, operator: bool = False) -> None:
        super().__init__(scope)
        self.scope = scope
        self.operator = operator


def needs(scope: str, *, fresh: bool = False, operator: bool = False) -> Any:
    """The caller, who must hold a scope. Every route has exactly one of these.

    With ``fresh`` a person must have given their password a short while ago; with ``operator`` it takes a person who runs
    the installation.
    """

    def caller(request: Request, opened: Opened, settings: Configured) -> Caller:
        found: Caller = request.scope["keywright.caller"]
        if found.session is not None and lacks_factor(settings, found.session):
            raise SecondFactorMissing
        if scope not in found.scopes or (operator and not found.is_operator):
            raise Refused(scope, operator=operator)
        within = found
        if found.role is not None and scope in OVER_KEYS:
            keyspaces = [one.keyspace for one in opened.keyspaces.list()]
            within = found.within(scope, keyspaces)
            if keyspaces and len(within.reach.closed) == len(keyspaces):
                raise Refused(scope)
        if fresh and found.session is not None and not opened.sessions.is_fresh(found.session):
            raise PasswordNeeded
        _refuse_unknown(request)
        return within

    caller.scope = scope  # type: ignore[attr-defined]  # read by the test that every route names one
    return Depends(caller)


def _refuse_unknown(request: Request) -> None:
    """A filter that is misspelt must not give a list that is not narrowed. Raises ``Invalid``."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise Invalid("is not a parameter of this call", path=name[:60])


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

    def once(self, caller: Caller, body: BaseModel) -> Once | None:
        """What identifies this call; ``None`` where no key came with it. Raises ``Invalid``."""
        route = f"{self._request.method} {self._request.scope['route'].path}"
        values = self._request.headers.getlist("idempotency-key")
        return read(values, caller.actor.id, route, body.model_dump(exclude_unset=True))
