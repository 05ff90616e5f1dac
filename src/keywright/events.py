"""What happens that somebody may want to be told of: the one table of events, and what a message looks like. Pure.

A message is what Standard Webhooks 1.0 asks for: ``type``, ``timestamp`` (of the event, not of its delivery) and ``data``.
"""

import hmac
from base64 import b64encode
from typing import Any, Final

import msgspec

from keywright.misuse import RULES, advice
from keywright.model import Alert, Binding, Key
from keywright.times import rfc3339

#: Every event, and when it is sent.
EVENTS: Final[dict[str, str]] = {
    "key.created": "A key was made.",
    "key.edited": "Something of a key was changed; `changed` names the fields.",
    "key.rotated": "A key has a new secret; `rotation` says when the old one ends.",
    "key.rotation_ended": "The old secret of a rotation has ended; only the new one works.",
    "key.rotation_cancelled": "The new secret of a rotation was ended; the old one goes on.",
    "key.invalidated": "A key was stopped for ever.",
    "key.disabled": "A key was stopped until it is enabled, or for a time.",
    "key.enabled": "A disabled key works again: it was enabled, or its time was over.",
    "key.deleted": "A key was removed.",
    "key.leaked": "A key was reported as found where it should not be; `leak` says where, and what was done: the policy.",
    "key.expiring": "A key expires in 14, 3 or 1 days; `days` says which.",
    "key.expired": "A key has expired.",
    "key.ending_unused": "Nobody uses a key, and it ends within 14 days if that stays so; `unused` says since when, and its end.",
    "quota.warning": "80 % of a quota, or of credits, is used.",
    "quota.exhausted": "A quota is used up until its next period, or credits are for good.",
    "account.created": "An account was made.",
    "account.suspended": "An account was suspended: none of its keys works.",
    "account.activated": "An account was activated: its keys work.",
    "account.limited": "The limits that all keys of an account share were set.",
    "alert.raised": "A rule of misuse holds of a key, or of a source; `alert` has the evidence and what to do.",
    "alert.resolved": "Somebody resolved an alert.",
    "webhook.disabled": "Another endpoint was disabled because it did not take its messages.",
    "webhook.test": "Somebody asked for a test; sent to the one endpoint, whatever it subscribes to.",
    "webhook.verify": "A new endpoint is asked whether it wants messages; sent to it alone.",
}
#: Events that are sent to whom they concern, and cannot be subscribed to.
UNASKED: Final = frozenset({"webhook.test", "webhook.verify"})
#: What an audited change is called as an event.
OF_ACTION: Final[dict[str, str]] = {
    "key.create": "key.created",
    "key.edit": "key.edited",
    "key.rotate": "key.rotated",
    "key.rotate_cancel": "key.rotation_cancelled",
    "key.invalidate": "key.invalidated",
    "key.disable": "key.disabled",
    "key.enable": "key.enabled",
    "key.delete": "key.deleted",
    "key.leaked": "key.leaked",
    "account.create": "account.created",
    "account.suspend": "account.suspended",
    "account.activate": "account.activated",
    "account.limit": "account.limited",
    "webhook.fail": "webhook.disabled",
}
#: What is told of a key that ends soon because nobody uses it.
ENDING_UNUSED: Final = "key.ending_unused"
#: How long before a key expires it is told of, in days.
EXPIRING: Final = (14, 3, 1)
#: How much of a quota is used when it is told of, in percent.
QUOTA: Final = {"quota.warning": 80, "quota.exhausted": 100}
#: How long a message may be, in bytes.
LONGEST: Final = 20_000


class Place(msgspec.Struct, frozen=True):
    """Where something happened: whoever watches this account, keyspace and environment, or more, is told."""

    account: str | None = None
    keyspace: str | None = None
    environment: str | None = None


def concerns(place: Place, bound: Binding) -> bool:
    """Whether what happened there concerns an endpoint that is bound so."""
    return (
        bound.account in (None, place.account)
        and bound.keyspace in (None, place.keyspace)
        and bound.environment in (None, place.environment)
    )


def message(type_: str, at: int, data: dict[str, Any]) -> str:
    """A message's body. What makes it too long is left out, longest text first; ids and times never are."""
    body: dict[str, Any] = {"type": type_, "timestamp": rfc3339(at), "data": data}
    text = msgspec.json.encode(body)
    if len(text) > LONGEST and "key" in data:
        text = msgspec.json.encode(body | {"data": data | {"key": {**data["key"], "scopes": None}}})
    return text.decode()


def key(record: Key) -> dict[str, Any]:
    """What a message says of a key: what it is and what became of it, and nothing of its secret."""
    return {
        "id": record.id,
        "name": record.name,
        "keyspace": record.keyspace,
        "account": record.account,
        "environment": record.environment,
        "team": record.team,
        "application": record.application,
        "access": record.access,
        "scopes": list(record.scopes),
        "state": record.state,
        "state_reason": record.state_reason,
        "expires_at": None if record.expires_at is None else rfc3339(record.expires_at),
        "created_at": rfc3339(record.created_at),
    }


def alert(record: Alert) -> dict[str, Any]:
    """What a message, and every other surface, says of an alert."""
    rule = RULES[record.rule]
    return {
        "id": record.id,
        "rule": record.rule,
        "says": rule.sentence,
        "severity": record.severity,
        "act": record.act,
        "advice": advice(record.rule, record.key_id, record.keyspace),
        "state": record.state,
        "about": record.about,
        "key": record.key_id or None,
        "key_name": record.evidence.get("key_name"),
        "account": record.account,
        "keyspace": record.keyspace,
        "environment": record.environment or None,
        "count": record.count,
        "first_at": rfc3339(record.first_at),
        "last_at": rfc3339(record.last_at),
        "raised_at": rfc3339(record.raised_at),
        "evidence": {name: value for name, value in record.evidence.items() if name != "key_name"},
        "acted_at": None if record.acted_at is None else rfc3339(record.acted_at),
        "acted_by": record.acted_by,
    }


def rotation(record: Key, *, forced: bool) -> dict[str, Any]:
    """What a message says of a rotation: when the old secret ends, which a first use of the new one may bring forward."""
    old = record.secrets[1].ends_at if len(record.secrets) > 1 else None
    return {
        "start": "first_use" if record.secrets[0].starts_rotation else "now",
        "old_ends_at": None if old is None else rfc3339(old),
        "forced": forced,
    }


def signature(secret: bytes, message_id: str, at: int, body: bytes) -> str:
    """Sign a message as Standard Webhooks 1.0 does: HMAC-SHA-256 over id, seconds and body, with full stops between."""
    signed = b".".join((message_id.encode(), str(at // 1_000_000).encode(), body))
    return f"v1,{b64encode(hmac.digest(secret, signed, 'sha256')).decode()}"


def spell_secret(secret: bytes) -> str:
    """A signing secret as it is shown."""
    return f"whsec_{b64encode(secret).decode()}"
