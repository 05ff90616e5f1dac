"""What is to be said against a key that works: that nobody uses it, that it may more than it should, that it is old. Pure."""

from collections.abc import Callable
from typing import Final

from keywright.model import ExpiryPolicy, Key, Keyspace
from keywright.times import DAY, SECOND

#: Microseconds after which a key that nobody used is unused.
UNUSED: Final = 30 * DAY * SECOND
#: Microseconds before its end from which a key expires soon: as early as the first webhook tells it.
EXPIRING: Final = 14 * DAY * SECOND
#: Microseconds after which the newest secret of a key is old.
OLD: Final = 365 * DAY * SECOND
#: Microseconds before a key ends because nobody uses it, in which that is known: it is told when they begin, or later, and
#: no key ends sooner than so long after it was told.
NOTICE: Final = 14 * DAY * SECOND
#: The flag of a key whose maker could not make it today.
MAKER_LOST_RIGHTS: Final = "maker_lost_rights"


def bounds(keyspace: Keyspace) -> bool:
    """Whether keys of a keyspace are held to limits at all: only there it means something that one is not."""
    return bool(keyspace.limits) or any(plan.limits for plan in keyspace.plans.values())


def idle_since(key: Key) -> int:
    """Since when nobody has used a key: its last use, or what somebody did to it later."""
    return max(key.last_used_at or 0, key.touched_at)


def ends_unused_at(key: Key, policy: ExpiryPolicy, told: int | None, now: int) -> int | None:
    """When a key ends if nobody uses it; ``None`` where it does not, or has ended by then anyway.

    ``told`` is the end that was announced since it was used or touched last. Where none was, the key is not that far.
    """
    if policy.unused is None or key.state != "active":
        return None
    at = max(idle_since(key) + policy.unused * SECOND, now + NOTICE if told is None else told)
    return None if key.expires_at is not None and key.expires_at <= at else at


def _ending_unused(key: Key, now: int, _keyspace: Keyspace | None) -> bool:
    return key.ends_unused_at is not None and key.ends_unused_at - now <= NOTICE


def _unused(key: Key, now: int, _keyspace: Keyspace | None) -> bool:
    return now - max(key.last_used_at or 0, key.created_at) >= UNUSED


def _expiring(key: Key, now: int, _keyspace: Keyspace | None) -> bool:
    return key.expires_at is not None and key.expires_at - now <= EXPIRING


def _no_limit(key: Key, _now: int, keyspace: Keyspace | None) -> bool:
    return keyspace is not None and bounds(keyspace) and not key.limits and key.plan is None


def _old(key: Key, now: int, _keyspace: Keyspace | None) -> bool:
    return now - max((one.created_at for one in key.secrets), default=key.created_at) >= OLD


#: What can be found, and when it is so.
FINDINGS: Final[dict[str, Callable[[Key, int, Keyspace | None], bool]]] = {
    "ending_unused": _ending_unused,
    "unused": _unused,
    "expiring": _expiring,
    "maker_lost_rights": lambda key, _now, _keyspace: MAKER_LOST_RIGHTS in key.flags,
    "all_access": lambda key, _now, _keyspace: key.access == "all",
    "no_limit": _no_limit,
    "no_expiry": lambda key, _now, _keyspace: key.expires_at is None,
    "old": _old,
}


def findings(key: Key, now: int, keyspace: Keyspace | None = None) -> tuple[str, ...]:
    """What holds of a key at an instant, of ``FINDINGS``; nothing of one that does not work anyway.

    Without its keyspace nothing is said of limits.
    """
    if key.state != "active":
        return ()
    return tuple(name for name, holds in FINDINGS.items() if holds(key, now, keyspace))
