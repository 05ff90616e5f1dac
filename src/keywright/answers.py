"""What a client is told: a verdict as status, headers and body, the same through every door. Pure.

Before proof there are three answers, and each is the same to the byte for everybody but for the request id: their texts
are made once per keyspace. Errors are problem+json (RFC 9457); a profile may ask for Partna's shape instead.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from keywright.errors import CODES
from keywright.model import Keyspace, LimitState, Verdict
from keywright.schemes import accepted_sets
from keywright.times import SECOND

_ERRORS: Final = {"missing": "", "ambiguous": ', error="invalid_request"'}
_DETAILS: Final = {
    "missing": "Send your API key in one of these forms: {sets}. Look for quotes and spaces around the values.",
    "ambiguous": "Send exactly one API key, once, in a header and never in the address, in one of these forms: {sets}. "
    "Look for quotes and spaces around the values.",
    "invalid": "The API key that was sent is not valid here. Send it in one of these forms: {sets}. Look for quotes and "
    "spaces around the values.",
    "invalidated": "This API key was invalidated and will not work again. Use another key.",
    "disabled": "This API key is disabled. An administrator of the account can enable it.",
    "expired": "This API key has expired. Use another key.",
    "rotated": "This secret was replaced by a newer one of the same key. Use the newer one.",
    "wrong_environment": "This API key belongs to another environment than the one that was called.",
    "account_suspended": "The account that this API key belongs to is not active.",
    "ip_not_allowed": "This API key may not be used from the address that it came from.",
    "insufficient_scope": "This API key does not allow what was asked. An administrator of the account can widen it.",
    "rate_limited": "Too many requests in a short time. Wait as long as Retry-After says.",
    "quota_exhausted": "The quota of this API key is used up.",
    "unavailable": "The service cannot check API keys right now. Nothing is wrong with the key; try again.",
    "gateway_misconfigured": "The proxy must send the method and target headers of its family, each exactly once.",
    "ambiguous_path": "The path can be read in more than one way and was refused.",
}
#: What RFC 6749 3.3 lets stand in a quoted scope.
_SCOPE: Final = re.compile(r"\A[\x21\x23-\x5B\x5D-\x7E]{1,100}\Z")
#: What cannot stand in a quoted realm as it is.
_UNQUOTABLE: Final = re.compile(r"[^\x20\x21\x23-\x5B\x5D-\x7E]")
_JSON: Final = "application/problem+json"
RETRY_WHEN_UNAVAILABLE: Final = 1  # seconds


class Answer(NamedTuple):
    """What to answer with, verbatim."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def problem(code: str, detail: str, request_id: str, **more: Any) -> dict[str, Any]:
    """The members of a problem+json body for a code."""
    status, title = CODES[code]
    return {
        "type": f"urn:keywright:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request_id,
        "code": code,
        "request_id": request_id,
        **more,
    }


def detail_of(code: str, keyspace: Keyspace) -> str:
    """The sentence that tells a client what to do about a code; constant for a keyspace."""
    return _DETAILS[code].format(sets="; ".join(accepted_sets(keyspace)))


class Answers:
    """The answers of one keyspace, their constant parts made once."""

    __slots__ = ("_bodies", "_keyspace", "_realm")

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._realm = _UNQUOTABLE.sub("?", keyspace.title)
        self._bodies: dict[str, bytes] = {}

    def of(self, verdict: Verdict) -> Answer:
        """What to answer with: for an allowed request an empty 200 with the limits' headers."""
        headers = [*rate_headers(verdict, legacy=self._keyspace.rate_headers), ("Cache-Control", "no-store")]
        if verdict.code == "ok":
            return Answer(200, headers, b"")
        status = CODES[verdict.code].status
        if verdict.retry_after is not None:
            headers.append(("Retry-After", str(verdict.retry_after)))
        if status == 401 or verdict.code == "insufficient_scope":
            headers.append(("WWW-Authenticate", self._challenge(verdict)))
        headers.append(
            ("Content-Type", _JSON if self._keyspace.error_shape == "problem" else "application/json")
        )
        return Answer(status, headers, self.body(verdict.code, verdict.request_id))

    def body(self, code: str, request_id: str) -> bytes:
        """The body for a code, in the keyspace's shape."""
        template = self._bodies.get(code)
        if template is None:
            template = self._bodies[code] = json.dumps(self._shape(code, "\0")).encode()
        return template.replace(
            rb"\u0000", json.dumps(request_id)[1:-1].encode()
        )  # it may be the client's own

    def _shape(self, code: str, request_id: str) -> dict[str, Any]:
        detail = detail_of(code, self._keyspace)
        if self._keyspace.error_shape == "message":
            return {"message": detail, "data": {"code": code, "request_id": request_id}}
        return problem(code, detail, request_id)

    def _challenge(self, verdict: Verdict) -> str:
        """One challenge, always Bearer (RFC 6750 section 3): an ``ApiKey`` scheme is registered nowhere."""
        if verdict.code == "insufficient_scope":
            quotable = verdict.asked and all(_SCOPE.match(scope) for scope in verdict.asked)
            scope = f', scope="{" ".join(verdict.asked)}"' if quotable else ""
            return f'Bearer realm="{self._realm}", error="insufficient_scope"{scope}'
        error = _ERRORS.get(verdict.code, ', error="invalid_token"')
        return f'Bearer realm="{self._realm}"{error}'


#: For trouble so deep that not even the keyspace can be read.
NOWHERE: Final = Answers(Keyspace("", "API", "", "standard", (), {}))


def rate_headers(verdict: Verdict, *, legacy: bool = False) -> list[tuple[str, str]]:
    """``RateLimit`` and ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-11), and the older three if asked."""
    if not verdict.limits:
        return []
    headers = [
        ("RateLimit-Policy", ", ".join([_policy(s.name, s.limit, s.per) for s in verdict.limits])),
        ("RateLimit", ", ".join([_remaining(state) for state in verdict.limits])),
    ]
    if legacy:
        tightest = min(verdict.limits, key=lambda limit: limit.remaining)
        headers += [
            ("X-RateLimit-Limit", str(tightest.limit)),
            ("X-RateLimit-Remaining", str(tightest.remaining)),
        ]
        if tightest.reset_seconds is not None:
            headers.append(("X-RateLimit-Reset", str(-(-verdict.at // SECOND) + tightest.reset_seconds)))
    return headers


_WINDOWS: Final = {"minute": 60, "hour": 3600, "day": 86_400, "month": 30 * 86_400}


@lru_cache(maxsize=1_000)
def _policy(name: str, limit: int, per: str | int | None) -> str:
    """What a limit is, whoever has it: said once."""
    window = per if isinstance(per, int) else _WINDOWS.get(per or "")
    return f'"{name}";q={limit}' + (f";w={window}" if window else "")


def _remaining(state: LimitState) -> str:
    reset = f";t={state.reset_seconds}" if state.reset_seconds else ""
    return f'"{state.name}";r={state.remaining}{reset}'


def say_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """An answer's headers as ASGI takes them."""
    return [(_name(name), value.encode("latin-1", "replace")) for name, value in headers]


@lru_cache(maxsize=100)
def _name(name: str) -> bytes:
    return name.lower().encode("latin-1")
