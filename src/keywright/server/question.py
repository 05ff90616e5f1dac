"""What ``/v1/verify`` is asked: read, held to what the caller can get at, and made an ask and a credential."""

from typing import Final

import msgspec

from keywright.credential import LONGEST
from keywright.desk.grants import Reach
from keywright.engine import Given
from keywright.errors import Invalid, NotFound
from keywright.limits import check_cost
from keywright.model import MANAGEMENT, Ask
from keywright.schemes import MALFORMED, Presented, Unproven, from_mapping
from keywright.server.proxies import canonical

#: Header fields of a request that are read, whether it is asked about or asks.
MOST_HEADERS: Final = 100
BATCH_ITEMS: Final = 100


class VerifyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``POST /v1/verify`` is asked. The credential comes in exactly one of three forms."""

    keyspace: str | None = None
    environment: str | None = None
    token: str | None = None
    id: str | None = None
    secret: str | None = None
    headers: dict[str, str] | list[tuple[str, str]] | None = None
    url: str | None = None
    scopes: tuple[str, ...] = ()
    method: str | None = None
    resource: str | None = None
    ip: str | None = None
    cost: int = 1
    authenticate_only: bool = False
    dry_run: bool = False  # nothing is charged, counted or recorded


class BatchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``POST /v1/verify/batch`` is asked."""

    items: list[VerifyBody]


decode = msgspec.json.Decoder(VerifyBody).decode
decode_batch = msgspec.json.Decoder(BatchBody).decode


def checked(asked: VerifyBody, reach: Reach, at: str = "") -> tuple[Ask, Given]:
    """What is asked by somebody with this reach, and the credential. ``at`` is where it stands in a batch.

    Raises ``Invalid``, ``Exceeds`` or ``NotFound``.
    """
    keyspace = reach.needs("keyspace", asked.keyspace)
    if keyspace is None:
        raise Invalid("is needed", path=f"{at}keyspace")
    if keyspace == MANAGEMENT:
        raise NotFound(f"there is no keyspace {MANAGEMENT!r}")
    for scope in asked.scopes:
        if not scope or len(scope) > 200:
            raise Invalid("has an empty or over-long name", path=f"{at}scopes")
    ask = Ask(
        keyspace,
        reach.needs("environment", asked.environment),
        asked.scopes,
        None if asked.method is None else asked.method.upper()[:20],
        None if asked.resource is None else asked.resource[:200],
        canonical(asked.ip) if asked.ip else None,
        check_cost(asked.cost, path=f"{at}cost"),
        asked.authenticate_only,
        metered=not asked.dry_run,
        account=reach.account,
        recorded=not asked.dry_run,
    )
    return ask, _given(asked, at)


def _given(asked: VerifyBody, at: str) -> Given:
    pair = asked.id is not None or asked.secret is not None
    if (asked.token is not None) + pair + (asked.headers is not None) != 1:
        raise Invalid("comes in exactly one form: token, id and secret, or headers", path=f"{at}token")
    if asked.headers is not None:
        if len(asked.headers) > MOST_HEADERS:
            raise Invalid(f"are more than {MOST_HEADERS}", path=f"{at}headers")
        return from_mapping(asked.headers)
    if asked.token is not None:
        return _plain(asked.token, None)
    return _plain(asked.id or "", asked.secret or "")


def _plain(first: str, second: str | None) -> Presented | Unproven:
    try:
        left, right = first.encode("ascii"), None if second is None else second.encode("ascii")
    except UnicodeEncodeError:
        return MALFORMED
    if len(left) > LONGEST or len(right or b"") > LONGEST:
        return MALFORMED
    return Presented.of_token(left) if right is None else Presented.of_pair(left, right)


__all__ = ["BATCH_ITEMS", "MOST_HEADERS", "BatchBody", "VerifyBody", "checked", "decode", "decode_batch"]
