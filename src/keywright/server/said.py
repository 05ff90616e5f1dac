"""What is said of a verdict: to the client, to whoever asked ``/v1/verify``, and of the limits in headers.

What does not change until the key does is written once and kept with it; of a limit the words are, with places for the two
numbers that change.
"""

from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from keywright import shown
from keywright.answers import Answer, rate_headers, say_headers
from keywright.cache import Compiled, Entry
from keywright.engine import Engine
from keywright.model import LimitKind, LimitState, Verdict
from keywright.server.problems import lines_of

#: For what is left of a limit, and for its reset: greater than any (``limits.LARGEST``).
_PLACES: Final = (10**17 + 1, 10**17 + 2)
_encode = msgspec.json.Encoder().encode
_UNCACHED: Final = b'{"Cache-Control":"no-store"}'
#: ``Said`` of an allowed request, its request id one of our own.
_ALLOWED: Final = (
    b'{"valid":true,"code":"ok","reason":"ok","status":200,"headers":%b,"body":"",%b,"limits":%b,"stale":%b,'
    b'"request_id":"%b"}'
)


class Holding(msgspec.Struct, frozen=True, gc=False):
    """Whose a verified key is."""

    id: str
    username: str
    state: str


class Said(msgspec.Struct, frozen=True):
    """What ``POST /v1/verify`` answers."""

    valid: bool
    code: str
    reason: str
    status: int
    headers: dict[str, str]
    body: str
    key: shown.Holder | None
    account: Holding | None
    limits: tuple[LimitState, ...]
    stale: bool
    request_id: str


def said(engine: Engine, verdict: Verdict) -> Said:
    """A verdict as ``/v1/verify`` says it to an authorised caller."""
    return _said(engine.answer(verdict), verdict)


def _said(answer: Answer, verdict: Verdict) -> Said:
    record = verdict.key
    return Said(
        verdict.code == "ok",
        verdict.code,
        verdict.reason,
        answer.status,
        dict(answer.headers),
        answer.body.decode(),
        None if record is None else shown.holder(record),
        None if record is None else Holding(record.account_id, record.account, record.account_state),
        verdict.limits,
        verdict.stale,
        verdict.request_id,
    )


def say(entry: Entry | None, compiled: Compiled, verdict: Verdict) -> bytes:
    """``said`` as JSON. ``entry`` is what is remembered of the key that is let in."""
    if entry is None or verdict.code != "ok":
        return _encode(_said(compiled.answers.of(verdict), verdict))
    if entry.said is None:
        record = entry.record
        holding = Holding(record.account_id, record.account, record.account_state)
        entry.said = b'"key":%b,"account":%b' % (_encode(shown.holder(record)), _encode(holding))
    headers, limits = _say_limits(compiled, verdict) if verdict.limits else (_UNCACHED, b"[]")
    stale = b"true" if verdict.stale else b"false"
    return _ALLOWED % (headers, entry.said, limits, stale, verdict.request_id.encode())


def _say_limits(compiled: Compiled, verdict: Verdict) -> tuple[bytes, bytes]:
    """The headers of an allowed request and how its limits stand, as JSON."""
    worded = _worded(compiled, verdict)
    if worded is None:
        return _encode(dict(compiled.answers.of(verdict).headers)), _encode(verdict.limits)
    state = verdict.limits[0]
    stands = state.remaining, state.reset_seconds
    return worded.headers % stands, worded.state % stands


def limits_as_lines(compiled: Compiled, verdict: Verdict) -> bytes:
    """How the limits of an allowed request stand, as the headers that they are on the wire."""
    worded = _worded(compiled, verdict)
    if worded is None:
        return lines_of(say_headers(rate_headers(verdict, legacy=compiled.keyspace.rate_headers)))
    state = verdict.limits[0]
    return worded.lines % (state.remaining, state.reset_seconds)


class _Worded(NamedTuple):
    """What answers say of one limit, with places for what is left of it and in how many seconds it starts anew."""

    lines: bytes  # headers, as they stand on the wire
    headers: bytes  # all headers of an allowed request, as JSON
    state: bytes  # ``limits``, as JSON


def _worded(compiled: Compiled, verdict: Verdict) -> _Worded | None:
    """How to say a verdict's limits, where that is simple: in the new headers alone, of one limit, that starts anew."""
    if compiled.keyspace.rate_headers or len(verdict.limits) != 1:
        return None
    state = verdict.limits[0]
    return _wording(state.name, state.kind, state.limit, state.per) if state.reset_seconds else None


@lru_cache(maxsize=1_000)
def _wording(name: str, kind: LimitKind, limit: int, per: str | int | None) -> _Worded:
    """Said as everything is said, of numbers that no limit can have; where they stand are the places."""
    state = LimitState(name, kind, limit, per, *_PLACES)
    headers = rate_headers(Verdict("ok", "ok", "", 0, limits=(state,)))
    said = lines_of(say_headers(headers)), _encode(dict([*headers, ("Cache-Control", "no-store")]))
    return _Worded(*map(_with_places, (*said, _encode((state,)))))


def _with_places(text: bytes) -> bytes:
    text = text.replace(b"%", b"%%")
    for number in _PLACES:
        text = text.replace(b"%d" % number, b"%d")
    return text


__all__ = ["Said", "limits_as_lines", "said", "say"]
