"""What every framework asks about a request, and what it does with the verdict. Knows no framework.

A framework's file tells a request as ``Told``, has a ``Guard`` ask, and either answers with ``Guard.refusal``, verbatim, or
hands the handler a ``Caller``. There is a ``Caller`` only of a request that may proceed: no file can let in another.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Final, Generic, NamedTuple, Protocol, TypedDict, TypeVar, Unpack

import msgspec

from keywright.answers import Answer
from keywright.model import Access, LimitState, Verdict

View = TypeVar("View", bound=Callable[..., Any])
App = TypeVar("App")
Request = TypeVar("Request")
#: What all requests are asked, or a function that says it of each.
Scopes = Iterable[str] | Callable[[Request], Iterable[str]]
Headers = Sequence[tuple[bytes, bytes]]

_MARK: Final = "__keywright_scopes__"
_EXEMPT: Final = "__keywright_exempt__"
_FOUND: Final = "keywright.found"
_PREFLIGHT: Final = {b"origin", b"access-control-request-method"}


class Verifier(Protocol):
    """Whoever can verify: a ``Keywright`` on a database, or a ``Client`` of a server."""

    def verify(self, *request: Any, **asked: Any) -> Verdict:
        """Say whether a request may proceed."""

    async def averify(self, *request: Any, **asked: Any) -> Verdict:
        """``verify``, without holding up an event loop."""

    def answer(self, verdict: Verdict) -> Answer:
        """What to answer with, verbatim."""


class Told(NamedTuple):
    """A request, as far as a framework tells of it. ``headers`` has each as often as it is known to have been sent."""

    headers: Headers
    url: bytes  # the path and the query: looked through for credentials, never to authorise by
    method: str | None  # None where what is done with the connection is not known yet: a websocket
    ip: str | None
    resource: str | None = None  # the template of the route that was matched


class Options(TypedDict, total=False):
    """What every framework's way in takes, and means alike."""

    keyspace: str | None  # as the installation was opened with, unless it is named here
    environment: str | None
    #: Where no scope is asked, ask who calls and not what they may do.
    authenticate_only: bool
    #: The headers with which a browser's CORS preflight, which never carries a key, is answered before anything is asked or
    #: run. Without them a preflight is a request like any other.
    preflight: Mapping[str, str] | None


class Caller(msgspec.Struct, frozen=True):
    """Whose request it is: what a handler is given. There is none of a request that was refused."""

    key_id: str
    key_name: str
    account: str
    keyspace: str
    environment: str
    access: Access
    scopes: frozenset[str]  # those of a restricted key
    asked: frozenset[str]  # those that this request was found to hold
    team: str | None
    application: str | None
    metadata: dict[str, Any]
    limits: tuple[LimitState, ...]
    request_id: str

    @classmethod
    def of(cls, verdict: Verdict) -> "Caller":
        """The caller whom a verdict lets in. Raises ``ValueError`` of any other."""
        key = verdict.key
        if not verdict.valid or key is None:
            raise ValueError(f"a request that is {verdict.code} has no caller")
        return cls(
            key.id,
            key.name,
            key.account,
            key.keyspace,
            key.environment,
            key.access,
            key.scopes,
            frozenset(verdict.asked),
            key.team,
            key.application,
            msgspec.json.decode(key.metadata),
            verdict.limits,
            verdict.request_id,
        )


class Found(NamedTuple):
    """What a guard was told about a request that it let in. The request keeps it, for the guards further in."""

    guard: "Guard"
    told: Told
    verdict: Verdict


class Guard:
    """Asks about requests, in one keyspace and environment, and words what is said to those that are refused.

    A request may pass several: of an application, and of a part of it. ``kept`` is where one keeps what guards found. What one
    found that asks the same Keywright, in the same keyspace and environment, is not asked again; what another asks besides,
    a scope or by another address, is asked beside it and not charged.
    """

    def __init__(self, keywright: Verifier, **options: Unpack[Options]) -> None:
        self._keywright = keywright
        self._named = {"keyspace": options.get("keyspace"), "environment": options.get("environment")}
        self._authenticate_only = options.get("authenticate_only", False)
        self._preflight = options.get("preflight")

    def verify(
        self,
        told: Told,
        scopes: Iterable[str] = (),
        kept: MutableMapping[str, Any] | None = None,
        *,
        cost: int = 1,
    ) -> Verdict:
        """Say whether a request may proceed. Raises what ``Keywright.verify`` does where the keyspace is misnamed."""
        asked, before = tuple(scopes), self._found(told, kept)
        if before is not None and self._says(before, told, asked):
            return before.verdict
        verdict = self._keywright.verify(told.headers, **self._said(told, asked, before, cost))
        return self._keep(told, kept, verdict)

    async def averify(
        self,
        told: Told,
        scopes: Iterable[str] = (),
        kept: MutableMapping[str, Any] | None = None,
        *,
        cost: int = 1,
    ) -> Verdict:
        """``verify``, for an event loop."""
        asked, before = tuple(scopes), self._found(told, kept)
        if before is not None and self._says(before, told, asked):
            return before.verdict
        verdict = await self._keywright.averify(told.headers, **self._said(told, asked, before, cost))
        return self._keep(told, kept, verdict)

    def asks_as(self, other: "Guard") -> bool:
        """Whether another asks the same Keywright, in the same keyspace and environment."""
        return self._keywright is other._keywright and self._named == other._named

    def refusal(self, verdict: Verdict) -> Answer:
        """What to answer a refused request with. Raises ``ValueError`` for one that was not refused."""
        if verdict.valid:
            raise ValueError("there is no refusal of a request that may proceed")
        return self._keywright.answer(verdict)

    def limits_headers(self, verdict: Verdict) -> list[tuple[str, str]]:
        """What the answer to an allowed request says besides: its limits, and that nobody stores it."""
        return self._keywright.answer(verdict).headers

    def preflight(self, told: Told) -> Answer | None:
        """The answer to a browser's preflight, where they are answered here."""
        if self._preflight is None or told.method != "OPTIONS":
            return None
        if not {name.lower() for name, _ in told.headers} >= _PREFLIGHT:
            return None
        return Answer(204, list(self._preflight.items()), b"")

    def _found(self, told: Told, kept: MutableMapping[str, Any] | None) -> Found | None:
        """What was found of this very request by a guard that asks as this one does."""
        found: Sequence[Found] = () if kept is None else kept.get(_FOUND, ())
        same = (one for one in reversed(found) if self.asks_as(one.guard) and one.told[:3] == told[:3])
        return next(same, None)

    def _says(self, before: Found, told: Told, scopes: Sequence[str]) -> bool:
        """Whether what was found answers what would be asked now."""
        asked = before.verdict.asked
        laxer = not asked and before.guard._authenticate_only and not self._authenticate_only
        return set(scopes) <= set(asked) and not laxer and before.told.ip == told.ip

    def _keep(self, told: Told, kept: MutableMapping[str, Any] | None, verdict: Verdict) -> Verdict:
        if verdict and kept is not None:
            kept[_FOUND] = (*kept.get(_FOUND, ()), Found(self, told, verdict))
        return verdict

    def _said(self, told: Told, scopes: Sequence[str], before: Found | None, cost: int) -> dict[str, Any]:
        asked = tuple(scopes if before is None else dict.fromkeys([*before.verdict.asked, *scopes]))
        return {
            "scopes": asked,
            "method": told.method,
            "ip": told.ip,
            "url": told.url,
            "resource": told.resource,
            "cost": cost if before is None else 0,
            "authenticate_only": self._authenticate_only and not asked,
            **self._named,
        }


class Doorway(ABC, Generic[App, Request]):
    """What a middleware in front of a whole application is told.

    ``scopes`` are asked of every request, or by a function of it; ``exempt`` are whole paths that are open to everybody;
    ``resource`` says of a request under which name it is counted; ``client`` whose address it is.
    """

    def __init__(
        self,
        app: App,
        keywright: Verifier,
        *,
        scopes: Scopes[Request] = (),
        exempt: Iterable[str] = (),
        resource: Callable[[Request], str | None] | None = None,
        client: Callable[[Request], str | None] | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.app = app
        self.guard = Guard(keywright, **options)
        self.exempt = frozenset(each(exempt))
        self._scopes = scopes if callable(scopes) else each(scopes)
        self._resource = resource
        self.client = client or self.peer

    @abstractmethod
    def peer(self, request: Request, /) -> str | None:
        """The address that a request came from, where nothing else says whose it is."""

    def asked(self, request: Request) -> tuple[str, ...]:
        """The scopes that are asked of a request."""
        return asked_of(self._scopes, request)

    def resource(self, request: Request) -> str | None:
        """Under which name a request is counted."""
        return None if self._resource is None else self._resource(request)


# ------------------------------------------------------------------------------------------------ what a handler needs


def asked_of(scopes: Scopes[Request], request: Request) -> tuple[str, ...]:
    """The scopes that a request needs, by what a middleware was given."""
    return each(scopes(request) if callable(scopes) else scopes)


def each(names: Iterable[str]) -> tuple[str, ...]:
    """Some names, to be gone through more than once; a text by itself is one name, not its letters."""
    return (names,) if isinstance(names, str) else tuple(names)


def require(caller: Caller | None, scopes: Iterable[str]) -> Caller:
    """The caller, if the request was let in with these scopes asked.

    Raises ``RuntimeError`` otherwise: the application is put together wrongly, and its handler must not run.
    """
    if caller is None:
        raise RuntimeError(
            "nobody asked Keywright about this request: install the middleware, and exempt no such route"
        )
    unasked = frozenset(scopes) - caller.asked
    if unasked:
        raise RuntimeError(
            f"{', '.join(sorted(unasked))} was not asked for: put what requires it outermost, where it is seen"
        )
    return caller


def requiring(scopes: tuple[str, ...], caller: Callable[..., Caller | None]) -> Callable[[View], View]:
    """A decorator for handlers that need scopes. ``caller`` finds the caller in what the handler is called with.

    It marks the handler, so that the middleware asks for the scopes, and holds that they were asked for. What it wraps is
    marked as well: a framework that was given that, by decorators in the wrong order, asks for them too.
    """

    def decorate(view: View) -> View:
        needed = (*scopes, *declared(view))

        if iscoroutinefunction(view):

            @wraps(view)
            async def inner(*args: Any, **kwargs: Any) -> Any:
                require(caller(*args, **kwargs), needed)
                return await view(*args, **kwargs)
        else:

            @wraps(view)
            def inner(*args: Any, **kwargs: Any) -> Any:
                require(caller(*args, **kwargs), needed)
                return view(*args, **kwargs)

        setattr(view, _MARK, needed)
        setattr(inner, _MARK, needed)
        return inner  # type: ignore[return-value]

    return decorate


def exempting(view: View) -> View:
    """Mark a handler as one that is open to everybody."""
    setattr(view, _EXEMPT, True)
    return view


def declared(*handlers: object) -> tuple[str, ...]:
    """The scopes that handlers were marked with."""
    return tuple(scope for handler in handlers for scope in getattr(handler, _MARK, ()))


def serving(kind: object, method: str) -> object:
    """What a class of handlers serves a method with, where it has something: HEAD as GET, unless there is one of its own."""
    own = getattr(kind, method.lower(), None)
    return own if own is not None or method != "HEAD" else getattr(kind, "get", None)


def is_exempt(handler: object) -> bool:
    """Whether a handler was marked as open to everybody."""
    return getattr(handler, _EXEMPT, False) is True
