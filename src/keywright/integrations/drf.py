"""Django REST framework: an authentication class, and permissions that compose.

    class Contacts(APIView):
        authentication_classes = [APIKeyAuthentication]
        permission_classes = [HasScopes("contacts:read") | IsAdminUser]

    REST_FRAMEWORK = {"EXCEPTION_HANDLER": "keywright.integrations.drf.exception_handler"}

The setting ``KEYWRIGHT`` is that of `keywright.integrations.django`; its middleware is not needed, and where it is installed it
asks first, by method alone, and what is asked here besides is not charged. ``request.auth`` is the caller, ``request.user`` the key as a user. Without the exception handler a
refusal has the verdict's status, headers and members, written by the view's own renderer; with it, the verdict's very bytes.

What the permissions of a view need is asked with the key: of ``HasScopes("a") | HasScopes("b")`` the first, and where the key
lacks it the second. Nothing is charged for what was refused. A view that names no scopes is asked for by method alone.
"""

import json
from collections.abc import Iterable
from functools import reduce
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.permissions import AND, NOT, OR, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView
from rest_framework.views import exception_handler as usual_handler

from keywright.answers import Answer
from keywright.integrations.django import Configured, kept, said
from keywright.integrations.guard import Caller
from keywright.model import Verdict

_CHALLENGE: Final = "WWW-Authenticate"
_REFUSED: Final = "keywright_refused"
_NOTHING: Final[frozenset[str]] = frozenset()


class KeyUser:
    """The key as a user: signed in, with no place among the users of Django's database and none of their permissions."""

    is_authenticated = True
    is_active = True
    is_anonymous = is_staff = is_superuser = False

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.pk = self.id = caller.key_id

    def __str__(self) -> str:
        return self.caller.account

    def get_username(self) -> str:
        """The account's name."""
        return self.caller.account

    def has_perm(self, _permission: str, _object: object = None) -> bool:
        """Never: what a key may do are its scopes."""
        return False

    def has_perms(self, _permissions: Iterable[str], _object: object = None) -> bool:
        """Never: what a key may do are its scopes."""
        return False


class Refused(APIException):  # type: ignore[misc]  # the framework has no types of its own
    """A request may not proceed, or is a preflight that is answered here."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.status_code = answer.status
        self.detail = json.loads(answer.body or b"{}")
        headers = dict(answer.headers)
        if _CHALLENGE in headers:
            self.auth_header = headers[_CHALLENGE]
        if "Retry-After" in headers:
            self.wait = int(headers["Retry-After"])


def exception_handler(exception: Exception, context: dict[str, Any]) -> Any:
    """The framework's handler, with refusals answered verbatim: for the setting ``EXCEPTION_HANDLER``."""
    if isinstance(exception, Refused):
        return said(exception.answer)
    return usual_handler(exception, context)


class APIKeyAuthentication(BaseAuthentication):  # type: ignore[misc]
    """Who calls, by their key. Raises ``Refused``, also where there is no key.

    A subclass with ``optional = True`` leaves a request without a key to the authentication classes behind it; what nobody
    signs in is then for the view's permissions to refuse.
    """

    optional = False

    def authenticate(self, request: Request) -> tuple[KeyUser, Caller] | None:
        """The key as a user, and the caller."""
        configured = Configured()
        view = request.parser_context["view"]
        answer = configured.guard.preflight(configured.told(request._request))
        if answer is not None:
            raise Refused(answer)
        verdict = _verdict(configured, request._request, alternatives(view.get_permissions()))
        if not verdict:
            if self.optional and verdict.reason == "no_carrier":
                return None
            answer = configured.guard.refusal(verdict)
            view.headers.update(answer.headers)
            raise Refused(answer)
        view.headers.update(configured.guard.limits_headers(verdict))
        caller = Caller.of(verdict)
        return KeyUser(caller), caller

    def authenticate_header(self, _request: Request) -> str:
        """The challenge of a 401 by anybody else; without one the framework would answer 403."""
        return "Bearer"


class _Scoped(BasePermission):  # type: ignore[misc]
    """A permission that needs scopes."""

    scopes: frozenset[str] = _NOTHING

    def has_permission(self, request: Request, _view: APIView) -> bool:
        """Whether the key holds these scopes: as it was let in by, or as it is asked now, which is not charged for."""
        if not isinstance(request.auth, Caller):
            return False
        if self.scopes <= request.auth.asked:
            return True
        refused: set[frozenset[str]] = getattr(request._request, _REFUSED, set())
        if self.scopes in refused:
            return False
        configured = Configured()
        return bool(configured.guard.verify(configured.told(request._request), sorted(self.scopes), cost=0))


def HasScopes(*scopes: str) -> type[_Scoped]:  # noqa: N802  # it stands where classes do
    """A permission class for keys that hold all of these; it composes with ``|`` and ``&``.

    Under ``~`` it is ``ImproperlyConfigured``: what a key does not hold opens nothing.
    """
    return type("HasScopes", (_Scoped,), {"scopes": frozenset(scopes)})


def alternatives(permissions: Iterable[Any]) -> list[frozenset[str]]:
    """The sets of scopes of which a key must hold one for a view to open, as its permissions are written."""
    sets = reduce(_both, map(_of, permissions), [_NOTHING])
    return list(dict.fromkeys(sets))


def _of(permission: Any) -> list[frozenset[str]]:
    if isinstance(permission, AND):
        return _both(_of(permission.op1), _of(permission.op2))
    if isinstance(permission, OR):
        return _of(permission.op1) + _of(permission.op2)
    if isinstance(permission, NOT):
        if any(_of(permission.op1)):
            raise ImproperlyConfigured("HasScopes cannot be negated: what a key does not hold opens nothing")
        return [_NOTHING]
    return [permission.scopes if isinstance(permission, _Scoped) else _NOTHING]


def _both(some: list[frozenset[str]], others: list[frozenset[str]]) -> list[frozenset[str]]:
    return [one | other for one in some for other in others]


def _verdict(configured: Configured, request: HttpRequest, asked: list[frozenset[str]]) -> Verdict:
    """Ask for one set of scopes after the other, until the key holds one or is refused for another reason.

    The request keeps which it does not hold. Where it holds none, the first answers.
    """
    known, refused, first = configured.told(request), set[frozenset[str]](), None
    setattr(request, _REFUSED, refused)
    for scopes in asked:
        verdict = configured.guard.verify(known, sorted(scopes), kept(request))
        if verdict.code != "insufficient_scope":
            return verdict
        refused.add(scopes)
        first = verdict if first is None else first
    assert first is not None  # there is always something to ask
    return first
