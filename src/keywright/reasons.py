"""Why a request was refused, in a sentence, for whoever may know: ``keywright explain`` and ``why``, the refusal log. Pure."""

from typing import Final

_SAID: Final = {
    "ok": "the key is proven, and works",
    "no_carrier": "there is no header in which this keyspace looks for a credential",
    "half_pair": "one half of a pair is there, and the other is missing",
    "header_twice": "a credential's header stands there twice",
    "underscore_twin": "a header's name is spelled with underscores instead of hyphens",
    "two_credentials": "there is more than one credential",
    "both_companions": "X-API-KEY has both companions, X-API-SECRET and x-api-user: it can mean two things",
    "in_url": "there is a credential in the address",
    "malformed": "the value does not have the shape of a key",
    "checksum": "the checksum does not fit: a character is wrong, missing or too many",
    "sample": "it is the sample of published documentation, which opens nothing",
    "unknown": "the key does not exist here",
    "wrong_secret": "the key exists, but the secret is not its own",
    "wrong_user": "the key is proven, but x-api-user is not its account's username",
    "wrong_keyspace": "the key is proven, but belongs to another keyspace",
    "deleted": "the key is proven, but was deleted",
    "invalidated": "the key is proven, but was invalidated, for ever",
    "disabled": "the key is proven, but is disabled; keywright keys enable lets it work again",
    "expired": "the key is proven, but has expired",
    "rotated": "this secret of the key was replaced by a newer one, and has ended",
    "suspended": "the key is proven, but its account is suspended",
    "pending": "the key is proven, but its account is not active yet",
    "ip_not_allowed": "the key is proven, but may be used from certain addresses only, and this was none of them, or not said",
    "wrong_account": "the key is proven, but belongs to another account than the one that was asked for",
}
#: Codes whose reason is a text of its own.
_BEGUN: Final = {
    "wrong_environment": "the key is proven, but another environment was called: the {reason}",
    "insufficient_scope": "the key is proven, but does not allow this: {reason}",
    "rate_limited": "the key is proven, but used too fast: the limit {reason} gives no more for now",
    "quota_exhausted": "the key is proven, but the limit {reason} is used up",
    "unavailable": "nothing was wrong with the key; the request could not be checked: {reason}",
    "gateway_misconfigured": "the proxy did not send the method and target headers of its family, each exactly once",
    "ambiguous_path": "the path can be read in more than one way",
}


def say(code: str, reason: str) -> str:
    """The sentence for a verdict's code and reason."""
    begun = _BEGUN.get(code)
    return begun.format(reason=reason) if begun is not None else _SAID.get(reason or code, reason or code)


__all__ = ["say"]
