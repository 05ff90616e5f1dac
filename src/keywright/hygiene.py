"""What is to be said against a key that works: that it is unused, expires soon, may do everything, never ends, is old. Pure."""

from collections.abc import Callable
from typing import Final

from keywright.model import Key
from keywright.times import DAY, SECOND

#: Microseconds after which a key that nobody used is unused.
UNUSED: Final = 30 * DAY * SECOND
#: Microseconds before its end from which a key expires soon: as early as the first webhook tells it.
EXPIRING: Final = 14 * DAY * SECOND
#: Microseconds after which the newest secret of a key is old.
OLD: Final = 365 * DAY * SECOND


def _unused(key: Key, now: int) -> bool:
    return now - max(key.last_used_at or 0, key.created_at) >= UNUSED


def _expiring(key: Key, now: int) -> bool:
    return key.expires_at is not None and key.expires_at - now <= EXPIRING


def _old(key: Key, now: int) -> bool:
    return now - max((one.created_at for one in key.secrets), default=key.created_at) >= OLD


#: What can be found, and when it is so.
FINDINGS: Final[dict[str, Callable[[Key, int], bool]]] = {
    "unused": _unused,
    "expiring": _expiring,
    "all_access": lambda key, _now: key.access == "all",
    "no_expiry": lambda key, _now: key.expires_at is None,
    "old": _old,
}


def findings(key: Key, now: int) -> tuple[str, ...]:
    """What holds of a key at an instant, of ``FINDINGS``; nothing of one that does not work anyway."""
    return tuple(name for name, holds in FINDINGS.items() if holds(key, now)) if key.state == "active" else ()
