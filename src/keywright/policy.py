"""The mind of a verification: from a record, a proof and an ask to a verdict's code. Pure, and all on this screen.

Proof comes before state: nothing about a key is said until its secret is proven. Then 401 before 403, the key before
its account, and what is asked last. Whatever is not plainly allowed is refused.
"""

import hmac
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from keywright.credential import DUMMY_MAC, MAC_BYTES, MANAGEMENT_PREFIX
from keywright.model import (
    RESERVED_SCOPES,
    SAFE_METHODS,
    Ask,
    KeyRecord,
    Keyspace,
    Network,
    SecretRecord,
    is_back,
)


class Decision(NamedTuple):
    """A code and what exactly it rests on. ``known`` says whether the client may be told anything of the key."""

    code: str
    reason: str
    known: bool = True


ALLOW = Decision("ok", "ok")


def prove(record: KeyRecord | None, macs: dict[int, bytes]) -> SecretRecord | None:
    """Find the secret whose MAC was presented, newest first; ``macs`` holds what was presented under each pepper.

    Every comparison takes the same time, and an absent key is compared too.
    """
    proven = None
    if record is None or not record.secrets:
        for mac in macs.values():
            hmac.compare_digest(mac, DUMMY_MAC)
        return None
    for place, secret in enumerate(record.secrets):
        presented = macs.get(secret.pepper)
        stored = record.macs[place * MAC_BYTES : (place + 1) * MAC_BYTES]
        if presented is not None and hmac.compare_digest(presented, stored) and proven is None:
            proven = secret
    return proven


def decide(
    record: KeyRecord,
    secret: SecretRecord,
    username: bytes | None,
    ask: Ask,
    keyspace: Keyspace,
    environment: str,
    now: int,
) -> Decision:
    """Say what a proven secret may do, ``now``, in this keyspace and environment."""
    terms = record.terms
    state = terms.state
    if state == "deleted":
        return Decision("invalid", "deleted", known=False)
    if terms.keyspace != keyspace.name:
        return Decision("invalid", "wrong_keyspace", known=False)
    if username is not None and username != record.account.encode():
        return Decision("invalid", "wrong_user", known=False)
    if ask.account is not None and ask.account != record.account:
        return Decision("invalid", "wrong_account", known=False)
    if state != "active" and not is_back(state, record.disabled_until, now):
        return Decision(state, state)
    if record.expires_at is not None and now >= record.expires_at:
        return Decision("expired", "expired")
    if secret.ends_at is not None and now >= secret.ends_at:
        return Decision("rotated", "rotated")
    if terms.environment != environment:
        return Decision("wrong_environment", f"key is for {terms.environment}")
    if terms.account_state != "active":
        return Decision("account_suspended", terms.account_state)
    if terms.networks and not within(terms.networks, ask.ip):
        return Decision("ip_not_allowed", "ip_not_allowed")
    lacking = lacks(record, keyspace, ask)
    return Decision("insufficient_scope", lacking) if lacking else ALLOW


def lacks(record: KeyRecord, keyspace: Keyspace, ask: Ask) -> str:
    """What the key lacks for what is asked, in a few words; nothing where it suffices."""
    if ask.authenticate_only:
        return ""
    for scope in ask.scopes:
        if not holds(record, keyspace, scope):
            return f"lacks {scope}"
    access = record.terms.access
    if access == "all":
        return ""
    if access == "restricted":
        return "" if ask.scopes else "restricted, and no scope was asked"
    if ask.method is None:
        return "" if ask.scopes else "read_only, and neither scope nor method was asked"
    if (
        ask.method in SAFE_METHODS
        or ask.reads
        or (ask.scopes and all(_reads(keyspace, s) for s in ask.scopes))
    ):
        return ""
    return f"read_only, and {ask.method} may change something"


def holds(record: KeyRecord, keyspace: Keyspace, scope: str) -> bool:
    """Whether a key has a scope. Our own keyspace's keys hold their list, and the two reserved ones go by setting."""
    if scope in RESERVED_SCOPES and keyspace.prefix != MANAGEMENT_PREFIX and scope not in granted(keyspace):
        return False
    access = record.terms.access
    if access == "all":
        return True
    return scope in record.terms.scopes if access == "restricted" else _reads(keyspace, scope)


def granted(keyspace: Keyspace) -> tuple[str, ...]:
    """The reserved scopes that a customer's key can hold at all."""
    return {"off": (), "read": ("keys:read",), "full": ("keys:read", "keys:write")}[keyspace.self_service]


def within(networks: tuple[Network, ...], ip: str | None) -> bool:
    """Whether an address is in one of the networks; an address that is unknown or unreadable is not.

    An IPv4 address written as IPv6 is the IPv4 address.
    """
    try:
        address = ip_address(ip or "")
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _reads(keyspace: Keyspace, scope: str) -> bool:
    if scope in RESERVED_SCOPES:
        return scope == "keys:read"
    known = keyspace.scopes.get(scope)
    return known is not None and known.reads
