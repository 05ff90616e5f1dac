"""Leaks: whoever finds a key where it should not be reports it, and the keyspace's policy is carried out.

Holding the whole token is authority enough, and nothing less is. A report is answered before anything is done, always
alike, so that it tells nobody what was right: the tokens are proven in memory and forgotten, what was proven is written
down by its key's id, and the lookout sees to it within seconds, once.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Final

from sqlalchemy import Connection

from keywright import credential, misuse
from keywright.credential import Spelled
from keywright.desk import Desk
from keywright.desk.alerts import Alerts, Bounds
from keywright.desk.keys import Keys
from keywright.errors import Invalid, Throttled
from keywright.keyring import Keyring
from keywright.misuse import Finding, Signal
from keywright.model import Actor, Alert, ImportPolicy, Key
from keywright.schemes import read_imported
from keywright.store import keyspaces, leaks
from keywright.store.db import Database
from keywright.store.leaks import Leak
from keywright.throttle import source_of
from keywright.times import SECOND

#: Tokens of one report, and reports of one source in an hour: of an address, and of a scanner with a management key.
MOST_TOKENS: Final = 1000
MOST_REPORTS: Final = 60
MOST_OF_SCANNERS: Final = 600
_HOUR: Final = 3600 * SECOND
LONGEST_URL: Final = 500
REPORTS: Final = Actor("system", "leaks")
_AT_ONCE: Final = 100
_URL: Final = re.compile(r"\Ahttps?://[!-~]+\Z")

#: Whose a credential is, and the number of its secret, where it is proven.
Prove = Callable[[Iterable[Spelled | None]], Iterable[tuple[str, int] | None]]


class Leaks(Desk):
    """The reports of an installation."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        clock: Callable[[], int],
        prove: Prove,
        keys: Keys,
        alerts: Alerts,
    ) -> None:
        super().__init__(database, keyring, clock)
        self._prove = prove
        self._keys = keys
        self._alerts = alerts

    def report(self, tokens: Sequence[str], *, url: str | None = None, source: str = "") -> None:
        """Take a report. A pair is written with a colon between its halves. Says nothing of what it was about.

        Raises ``Invalid``, ``Throttled`` or ``Unavailable``, none of them for what the tokens are.
        """
        if not 1 <= len(tokens) <= MOST_TOKENS:
            raise Invalid(f"are from 1 to {MOST_TOKENS}", path="tokens")
        found = _place(url)
        now = self.clock()
        self._admit(source_of(source), MOST_REPORTS, "address", now)
        self._take([(token, found) for token in dict.fromkeys(tokens)], now)

    def revoke(self, found: Sequence[tuple[str, str | None]], *, scanner: str) -> None:
        """Take what a scanner of one's own has found: tokens, and where. ``scanner`` is whose management key reports.

        It is written down before this returns, and says nothing of what it was about; what is done then, the keyspaces say.
        Raises ``Invalid``, ``Throttled`` or ``Unavailable``, none of them for what the tokens are.
        """
        if not 1 <= len(found) <= MOST_TOKENS:
            raise Invalid(f"are from 1 to {MOST_TOKENS}", path="tokens")
        now = self.clock()
        self._admit(f"scanner:{scanner}", MOST_OF_SCANNERS, "scanner", now)
        self._take([(token, _place_or_none(url)) for token, url in found], now)

    def _admit(self, source: str, most: int, kind: str, now: int) -> None:
        """Count a report of a source. Raises ``Throttled`` where there were as many as an hour may have."""
        with self.database.write("usage") as tx:
            many, since = leaks.report(tx, source, now, _HOUR)
        if many > most:
            wait = max(1, -(-(since + _HOUR - now) // SECOND))
            raise Throttled(wait, f"One {kind} may report {most} times an hour; wait {wait} seconds.")

    def matched(self, found: Sequence[tuple[str, str | None]]) -> Sequence[bool]:
        """Take what a partner has found, whose signature was proven: tokens, and where; which of them are ours.

        It is written down before this returns. A place that is no address is left out. Raises ``Unavailable``.
        """
        return self._take([(token, _place_or_none(url)) for token, url in found], self.clock())

    def _take(self, found: Sequence[tuple[str, str | None]], now: int) -> Sequence[bool]:
        proven = self._whose([token for token, _ in found])
        rows = [Leak(*one, now, url) for one, (_, url) in zip(proven, found, strict=True) if one is not None]
        with self.database.write("usage", lasting=True) as tx:
            leaks.add(tx, rows)
        return [one is not None for one in proven]

    def _whose(self, tokens: Sequence[str]) -> list[tuple[str, int] | None]:
        """Whose each is, where it is right: one of ours, or one that a keyspace has imported."""
        read = [_spelled(token) for token in tokens]
        found = list(self._prove(read))
        for policy in self._policies() if None in read else ():
            left = [n for n, one in enumerate(found) if one is None and read[n] is None]
            foreign = [read_imported(policy, tokens[n].strip().encode()) for n in left]
            for n, one in zip(left, self._prove(foreign), strict=True):
                found[n] = one
        return found

    def _policies(self) -> list[ImportPolicy]:
        with self.database.read() as connection:
            every = [applied.keyspace.imported for applied in keyspaces.every(connection)]
        return [policy for policy in every if policy is not None]

    def see_to(self, bounds: Bounds) -> tuple[int, bool]:
        """Do with some of what was reported as its keyspaces say; how many alerts were raised, and whether more may wait.

        Raises ``Unavailable``.
        """
        with self.database.read("usage") as connection:
            waiting = sorted(leaks.waiting(connection, _AT_ONCE))
        of_keys = groupby(waiting, lambda leak: leak.key_id)
        raised = sum(len(self._see_to(list(found), bounds)) for _, found in of_keys)
        return raised, len(waiting) == _AT_ONCE

    def _see_to(self, found: Sequence[Leak], bounds: Bounds) -> Sequence[Alert]:
        """See to what was reported of one key: one act and one alert, whichever of its secrets it were."""
        since, urls = min(leak.at for leak in found), [leak.url for leak in found if leak.url]
        done = self._keys.leaked(
            found[0].key_id,
            [leak.secret for leak in found],
            since=since,
            url=urls[0] if urls else None,
            actor=REPORTS,
        )
        findings = []
        if done is not None and not bounds(done[0].keyspace, "leaked").off:
            findings = [_finding(since, list(dict.fromkeys(urls)), *done)]

        def also(tx: Connection) -> bool:
            ours = [leaks.handled(tx, leak, self.clock()) for leak in found]
            return any(ours)

        return self._alerts.raise_(findings, bounds, also=also)


def _spelled(token: str) -> Spelled | None:
    try:
        text = token.strip().encode("ascii")
    except UnicodeEncodeError:
        return None
    if len(text) > credential.LONGEST:
        return None
    key_id, colon, secret = text.partition(b":")
    return credential.parse_pair(key_id, secret) if colon else credential.parse_token(text)


def _place(url: str | None) -> str | None:
    if url is None:
        return None
    if len(url) > LONGEST_URL or not _URL.match(url):
        raise Invalid(f"is an http or https address of at most {LONGEST_URL} characters", path="url")
    text = url.encode()
    if credential.INSIDE.search(text) or credential.INSIDE_DOTTED.search(text):
        raise Invalid("holds a credential itself", path="url")
    return url


def _place_or_none(url: str | None) -> str | None:
    try:
        return _place(url)
    except Invalid:
        return None


def _finding(at: int, urls: Sequence[str], key: Key, policy: str, found: Sequence[int]) -> Finding:
    signal = Signal(at, "leaked", key.keyspace, key.environment, "", key.id, "")
    more = {"secret": found[-1], "secrets": list(found), "policy": policy, "urls": list(urls)}
    raised = misuse.finding("leaked", signal, **more)
    # A secret that came after the one that leaked is a leak of its own.
    return raised if found[-1] == 1 else raised._replace(about=f"{key.id}, secret {found[-1]}")


__all__ = ["MOST_OF_SCANNERS", "MOST_REPORTS", "MOST_TOKENS", "Leaks"]
