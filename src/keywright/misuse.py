"""Misuse: rules over signals. Pure.

A signal is a refused request, or something odd about one that was let in. A rule says how many of them, within how long,
are a sign of misuse, and what to do about it. ``Tracker`` counts, in memory that does not grow: of sources it knows
the latest only, and keys have a part of their own that no flood of strangers can take.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final, Literal, NamedTuple

from keywright.model import MANAGEMENT, Threshold
from keywright.times import DAY, SECOND

Severity = Literal["low", "medium", "high"]
Act = Literal["disable", "rotate", "look"]

_MINUTES: Final = 60
#: Examples of each kind that evidence holds.
_EXAMPLES: Final = 10
#: Sources, and keys, that are counted at the same time; of more, those that were quiet longest are forgotten.
MOST: Final = 20_000
#: Of a key's own fields: it roams, and one network more says nothing.
ROAMS: Final = 20


class Rule(NamedTuple):
    """One rule: what it means in a sentence, what to do, what it counts by, and its bounds unless a profile has its own."""

    sentence: str
    advice: str  # with ``{keys}`` and ``{key}``: the command, and the id
    severity: Severity
    act: Act
    by: Literal["key", "source"]
    bounds: Threshold
    reasons: frozenset[str] = frozenset()
    distinct: bool = False  # different credentials are counted, not requests


def _rule(
    sentence: str,
    advice: str,
    severity: Severity,
    act: Act,
    *reasons: str,
    times: int = 1,
    minutes: int = 10,
    by: Literal["key", "source"] = "key",
    distinct: bool = False,
    factor: int | None = None,
    after: int | None = None,
) -> Rule:
    bounds = Threshold(times, minutes * _MINUTES, DAY, factor, after)
    return Rule(sentence, advice, severity, act, by, bounds, frozenset(reasons), distinct)


#: Every rule. Reasons are those of the refusal log; rules without any have their own function below.
RULES: Final[dict[str, Rule]] = {
    "guessed": _rule(
        "Somebody tries secrets for this key that are not its own.",
        "The key is in no danger, its secret cannot be guessed. If the addresses are the account's, a wrong secret is set up "
        "there: tell them. If not, block them at your edge.",
        *("high", "look", "wrong_secret"),
        times=10,
    ),
    "many_ids": _rule(
        "One source presents many credentials that do not exist or are not right.",
        "No key is in danger, and this one source cannot slow the others. Block the network at your edge, unless it is a "
        "customer's: then something is set up wrong there.",
        *("medium", "look", "unknown", "checksum", "wrong_secret"),
        times=20,
        by="source",
        distinct=True,
    ),
    "invalidated_key": _rule(
        "An invalidated key is still presented.",
        "It is refused. If the addresses are the account's, something there still uses it: tell them to put a new key in place. "
        "If not, somebody else has the secret, and invalidating it was right.",
        *("medium", "look", "invalidated"),
    ),
    "deleted_key": _rule(
        "A deleted key is still presented.",
        "It is refused. If the addresses are the account's, something there still uses it: tell them to put a new key in place. "
        "If not, somebody else has the secret, and deleting it was right.",
        *("medium", "look", "deleted"),
    ),
    "expired_key": _rule(
        "An expired key is still presented.",
        "It is refused, so an integration of the account has stopped. If it shall go on, put its expiry off or make a new key.",
        *("low", "look", "expired"),
    ),
    "rotated_secret": _rule(
        "A secret that was replaced by a rotation is still presented.",
        "It is refused, so whatever sends it has stopped. If the addresses are the account's, put the new secret in place there. If "
        "not, somebody else had the old one, and rotating was right.",
        *("low", "look", "rotated"),
    ),
    "wrong_environment": _rule(
        "The key is used in another environment than its own.",
        "It is refused. Tell the account to use a key of the environment that it calls.",
        *("low", "look", "wrong_environment"),
    ),
    "wrong_keyspace": _rule(
        "The key is used in another keyspace than its own: at another product's API.",
        "It is refused. Tell the account to use a key of the API that it calls.",
        *("low", "look", "wrong_keyspace"),
    ),
    "wrong_user": _rule(
        "The key is presented with a username that is not its account's.",
        "It is refused. If the addresses are the account's, the username is set up wrong there. If not, somebody else has the key: "
        "{keys} rotate {key} --force.",
        *("medium", "look", "wrong_user"),
    ),
    "lacking_scope": _rule(
        "The key keeps asking for what it may not do.",
        "It is refused. If the account needs it, give the key the scope. If nobody there knows of it, somebody tries "
        "what the key is good for: {keys} rotate {key} --force.",
        *("medium", "look", "insufficient_scope"),
        times=5,
    ),
    "in_url": _rule(
        "The key's credential stood in an address, where logs and histories keep it.",
        "Whoever reads those logs has it. Have it sent in a header, then end the secret: {keys} rotate {key} --force.",
        *("high", "rotate", "in_url"),
    ),
    "browser": _rule(
        "The key is sent by a web page: whoever opens that page can read it.",
        "Have the page ask the account's own server instead, then end the secret: {keys} rotate {key} --force.",
        *("high", "rotate", "browser"),
    ),
    "volume": _rule(
        "The key is used far more than it ever was in the seven days before.",
        "If nobody at the account expects it, stop it: {keys} disable {key}. Otherwise give it a limit.",
        *("medium", "disable"),
        times=1000,
        factor=5,
    ),
    "new_network": _rule(
        "The key is used from a network that it was never used from.",
        "Ask the account whether that is theirs. If not, somebody else has the key: {keys} rotate {key} --force.",
        *("medium", "look"),
        after=DAY,
    ),
    "woke": _rule(
        "The key is used again after a long rest.",
        "Ask the account whether they mean it. If not, stop it: {keys} disable {key}.",
        *("low", "look"),
        after=60 * DAY,
    ),
    "leaked": _rule(
        "The key was found where it should not be, and somebody reported it.",
        "Whoever saw it can use it, unless the policy has stopped it. End the secret: {keys} rotate {key} --force, and have it taken "
        "away from where it stands.",
        *("high", "rotate"),
    ),
    "sample": _rule(
        "Somebody presents the sample credential of published documentation.",
        "No key is in danger, the sample opens nothing. Whoever it is needs a key of their own.",
        *("low", "look", "sample"),
        by="source",
    ),
}
#: What a profile may set of a rule, with the least and the most that make sense.
BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "times": (1, 1_000_000),
    "within": (1, DAY),
    "quiet": (_MINUTES, 90 * DAY),
    "factor": (2, 1000),
    "after": (_MINUTES, 3650 * DAY),
}
#: Times that ``Tracker`` can remember one by one; above it, a rule that counts requests could not.
MOST_TIMES: Final = 1000


class Signal(NamedTuple):
    """One thing that was seen. ``fingerprint`` tells credentials that nobody holds apart; it is keyed."""

    at: int
    reason: str
    keyspace: str
    environment: str
    account_id: str
    key_id: str
    source: str
    request_id: str = ""
    fingerprint: str = ""


class Finding(NamedTuple):
    """A rule that holds: about what, how often since when, and what shows it."""

    rule: str
    about: str
    keyspace: str
    environment: str
    account_id: str
    key_id: str
    since: int
    at: int
    times: int
    evidence: dict[str, Any]


class _Window:
    __slots__ = ("fired", "hits")

    def __init__(self, most: int) -> None:
        self.hits: deque[Signal] = deque(maxlen=most)
        self.fired = False


class Tracker:
    """Counts signals by key and by source, and says what a rule has to say of them."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._windows: dict[str, OrderedDict[tuple[str, str, str], _Window]] = {
            "key": OrderedDict(),
            "source": OrderedDict(),
        }

    def take(self, signal: Signal, bounds: Callable[[str, str], Threshold]) -> list[Finding]:
        """What the rules say now that this was seen too. ``bounds`` is asked for a keyspace's bounds of a rule."""
        found = []
        for name in _OF_REASON.get(signal.reason, ()):
            limit = bounds(signal.keyspace, name)
            finding = None if limit.off else self._count(name, signal, limit)
            if finding is not None:
                found.append(finding)
        return found

    def _count(self, name: str, signal: Signal, limit: Threshold) -> Finding | None:
        rule = RULES[name]
        about = about_of(rule, signal)
        if about is None:
            return None
        window = self._window(rule.by, (name, signal.keyspace, about), limit.times)
        if rule.distinct and any(hit.fingerprint == signal.fingerprint for hit in window.hits):
            return None
        window.hits.append(signal)
        if len(window.hits) < limit.times or signal.at - window.hits[0].at > limit.within * SECOND:
            window.fired = False
            return None
        told = (signal,) if window.fired else tuple(window.hits)
        window.fired = True
        return _finding(name, about, told)

    def _window(self, by: str, place: tuple[str, str, str], most: int) -> _Window:
        windows = self._windows[by]
        window = windows.get(place)
        if window is None or window.hits.maxlen != most:
            if len(windows) >= self._most:
                windows.popitem(last=False)
            window = windows[place] = _Window(most)
        windows.move_to_end(place)
        return window

    def __len__(self) -> int:
        return sum(map(len, self._windows.values()))


def advice(rule: str, key_id: str, keyspace: str) -> str:
    """What to do about it, with the commands as they are typed."""
    noun = "management-keys" if keyspace == MANAGEMENT else "keys"
    return RULES[rule].advice.format(keys=f"keywright {noun}", key=key_id or "KEY_ID")


def about_of(rule: Rule, signal: Signal) -> str | None:
    """What a rule counts a signal by: the key, or where it came from; ``None`` where neither is known."""
    if rule.by == "key" and signal.key_id:
        return signal.key_id
    network = network_of(signal.source)
    if rule.by == "key" and signal.reason != "in_url":
        return None
    return network or ("unknown" if signal.reason in ("in_url", "sample") else None)


def finding(name: str, signal: Signal, **more: Any) -> Finding:
    """A finding of a rule that one signal suffices for; ``more`` is further evidence."""
    found = _finding(name, signal.key_id, (signal,))
    return found._replace(evidence=found.evidence | more)


def _finding(name: str, about: str, told: tuple[Signal, ...]) -> Finding:
    last = told[-1]
    evidence: dict[str, Any] = {}
    for signal in told:
        evidence = joined(evidence, _shown(signal))
    if RULES[name].distinct:
        evidence["credentials"] = len(told)
    place = last.keyspace, last.environment, last.account_id, last.key_id if about == last.key_id else ""
    return Finding(name, about, *place, told[0].at, last.at, len(told), evidence)


def _shown(signal: Signal) -> dict[str, Any]:
    network = network_of(signal.source)
    return {
        "reasons": {signal.reason: 1},
        "addresses": [signal.source] if network else [],
        "networks": [network] if network else [],
        "requests": [signal.request_id] if signal.request_id else [],
        "environments": [signal.environment] if signal.environment else [],
    }


def joined(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """Two pieces of evidence as one: numbers are added, of examples the latest are kept."""
    both: dict[str, Any] = dict(one)
    for name, value in two.items():
        held = both.get(name)
        if isinstance(value, dict):
            both[name] = {
                what: value.get(what, 0) + (held or {}).get(what, 0) for what in {**(held or {}), **value}
            }
        elif isinstance(value, list):
            both[name] = [*(item for item in held or () if item not in value), *value][-_EXAMPLES:]
        else:
            both[name] = value + held if name == "credentials" and held else value
    return both


@lru_cache(maxsize=10_000)
def network_of(address: str | None) -> str | None:
    """The network that an address is counted by: 24 bits of IPv4, 64 of IPv6; ``None`` for what is no address."""
    try:
        read = ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(read, "ipv4_mapped", None)
    read = mapped or read
    return str(ip_network((read, 24 if read.version == 4 else 64), strict=False))


def is_new_network(known: Mapping[str, int], network: str, at: int, bounds: Threshold) -> bool:
    """Whether a key's use from a network is news. ``known`` is when each of its networks was seen first.

    A key is got to know for ``after`` seconds from its first use; one that was seen in many networks roams.
    """
    if bounds.off or network in known or not known or len(known) >= ROAMS:
        return False
    return at - min(known.values()) >= (bounds.after or 0) * SECOND


def has_woken(before: int | None, at: int, bounds: Threshold) -> bool:
    """Whether a use at ``at`` ends a long rest since ``before``."""
    return not bounds.off and before is not None and at - before >= (bounds.after or 0) * SECOND


def is_sudden(now: int, highest: int, bounds: Threshold) -> bool:
    """Whether ``now`` requests within ``bounds.within`` are far more than the ``highest`` number before.

    A key without a past is not judged: ``highest`` is nothing then.
    """
    return not bounds.off and highest > 0 and now >= max(bounds.times, highest * (bounds.factor or 1))


def bounds_of(overrides: Mapping[str, Threshold], rule: str) -> Threshold:
    """The bounds of a rule in a keyspace."""
    return overrides.get(rule) or RULES[rule].bounds


_OF_REASON: Final[dict[str, tuple[str, ...]]] = {
    reason: tuple(name for name, rule in RULES.items() if reason in rule.reasons)
    for reason in {reason for rule in RULES.values() for reason in rule.reasons}
}


def reason_of(code: str, reason: str) -> str:
    """What a refusal is counted as: its reason, or its code where the reason is a text of its own."""
    return code if code in ("wrong_environment", "insufficient_scope") else reason


__all__ = [
    "BOUNDS",
    "RULES",
    "Finding",
    "Rule",
    "Signal",
    "Tracker",
    "advice",
    "bounds_of",
    "finding",
    "joined",
    "network_of",
]
