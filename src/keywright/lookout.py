"""The lookout: reads what every worker has written of refusals and of odd uses, asks the rules, raises alerts.

It reads the store, not the workers: so that a rule sees the failures of all of them, whichever answered, and a worker
spends nothing on it but the rows that it writes anyhow. One process at a time looks out, under a lease; how far it has
read is written with the alerts that came of it, so that its successor raises none twice and misses none. It also sees to
keys that were reported as leaked and to those that nobody uses, and each hour writes the head of the audit trail into the
log.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from keywright import misuse
from keywright.desk.alerts import Alerts
from keywright.desk.leaks import Leaks
from keywright.desk.unused import Unused
from keywright.misuse import Finding, Signal, Tracker
from keywright.model import Threshold
from keywright.shift import Shift
from keywright.store import alerts, audit, keyspaces, refusals, signals, usage
from keywright.store.db import Database
from keywright.store.refusals import Refusal
from keywright.store.signals import Sign
from keywright.times import DAY, SECOND

EVERY: Final = 1.0  # seconds between two rounds
LEASE: Final = 10  # seconds
#: Refusals, and odd uses, that are read at once.
AT_ONCE: Final = 5_000
#: How far back a new lookout reads what was read already, so that it knows what has begun.
BEHIND: Final = 3600 * SECOND
VOLUME_EVERY: Final = 2 * SECOND
BASELINE: Final = 7 * DAY * SECOND
BOUNDS_EVERY: Final = 5 * SECOND
TRIM_EVERY: Final = 3600 * SECOND
HEAD_EVERY: Final = 3600 * SECOND
NETWORKS_KEPT: Final = 90 * DAY * SECOND
_MOST_JUDGED: Final = 10_000

log = logging.getLogger("keywright")
#: What a log kept elsewhere is a witness of.
witness = logging.getLogger("keywright.audit")


class Lookout:
    """Looks out. ``round`` does it once; ``start`` makes a thread of it that competes for the lease."""

    def __init__(
        self, database: Database, desk: Alerts, leaks: Leaks, unused: Unused, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._desk = desk
        self._leaks = leaks
        self._unused = unused
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._begin()

    def _begin(self) -> None:
        self._tracker = Tracker()
        self._through: int | None = None
        self._bounds: dict[str, dict[str, Threshold]] = {}
        self._bounds_at = self._volume_at = self._trimmed_at = 0
        self._told_at = self._clock()
        self._judged: dict[str, int] = {}

    def round(self) -> int:
        """Read all that is new; how many alerts were raised. Raises ``Unavailable``."""
        raised, more = 0, True
        while more and not self._stop.is_set():
            made, unread = self._look()
            leaked, waiting = self._leaks.see_to(self.bounds)
            raised, more = raised + made + leaked, unread or waiting
        now = self._clock()
        if now - self._trimmed_at >= TRIM_EVERY:
            self._trimmed_at = now
            with self._database.write("usage") as tx:
                alerts.trim(tx)
                signals.forget(tx, now - NETWORKS_KEPT)
        if now - self._told_at >= HEAD_EVERY:
            self._told_at = now
            with self._database.read() as connection:
                head = audit.head(connection)
            witness.info("the head of the audit trail is %d:%s", head.seq, head.mac)
        self._unused.round()
        return raised

    def start(self) -> None:
        """Look out in a thread until ``close``."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keywright-lookout", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the round, and stop."""
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._thread = None

    def after_fork(self) -> None:
        """Forget the parent's thread."""
        self._thread, self._stop = None, threading.Event()
        self._begin()
        self._unused.begin()

    # ------------------------------------------------------------------------------------------------------- inside

    def _look(self) -> tuple[int, bool]:
        """Read some of what is new; how many alerts were raised, and whether there is more to read."""
        self._read_bounds()
        now = self._clock()
        with self._database.read("usage") as connection:
            noted = signals.read_through(connection)
            through = refusals.before(connection, now - BEHIND) if noted is None else noted
            if through != self._through:
                self._recall(connection, through, now)
            refused = refusals.after(connection, through, AT_ONCE)
            signs = signals.waiting(connection, AT_ONCE)
            known = signals.known(connection, {sign.key_id for _, sign in signs if sign.kind == "use"})
            findings = self._volumes(connection, now)
        for _, refusal in refused:
            findings += self._tracker.take(_signal(refusal), self.bounds)
        seen: dict[tuple[str, str], int] = {}
        for _, sign in signs:
            findings += self._odd(sign, known, seen)
        reached = refused[-1][0] if refused else through
        self._through = reached
        if not (refused or signs or findings) and noted is not None:
            return 0, False

        def also(tx: Connection) -> bool:
            if signals.read_through(tx) != noted:  # somebody else looks out already
                self._through = None
                return False
            signals.set_read_through(tx, reached)
            if signs:
                signals.learn(tx, seen)
                signals.done(tx, signs[-1][0])
            return True

        raised = self._desk.raise_(findings, self.bounds, also=also)
        return len(raised), len(refused) == AT_ONCE or len(signs) == AT_ONCE

    def bounds(self, keyspace: str, rule: str) -> Threshold:
        """The bounds of a rule in a keyspace, as they were a moment ago."""
        return misuse.bounds_of(self._bounds.get(keyspace, {}), rule)

    def _read_bounds(self) -> None:
        now = self._clock()
        if self._bounds and 0 <= now - self._bounds_at < BOUNDS_EVERY:
            return
        with self._database.read() as connection:
            self._bounds = {one.keyspace.name: one.keyspace.misuse for one in keyspaces.every(connection)}
        self._bounds_at = now

    def _recall(self, connection: Connection, through: int, now: int) -> None:
        """Count again what was read by whoever looked out before; nothing is raised of it."""
        self._tracker = Tracker()
        at = refusals.before(connection, now - BEHIND)
        while at < through:
            found = refusals.after(connection, at, AT_ONCE)
            for seq, refusal in found:
                if seq <= through:
                    self._tracker.take(_signal(refusal), self.bounds)
            at = found[-1][0] if found else through

    def _odd(
        self, sign: Sign, known: dict[str, dict[str, int]], seen: dict[tuple[str, str], int]
    ) -> list[Finding]:
        signal = _of_sign(sign)
        if sign.kind != "use":
            return self._tracker.take(signal, self.bounds)
        found = []
        rested = self.bounds(sign.keyspace, "woke")
        if misuse.has_woken(sign.before, sign.at, rested):
            rest = (sign.at - (sign.before or 0)) // (DAY * SECOND)
            found.append(misuse.finding("woke", signal, rested_days=rest))
        network = misuse.network_of(sign.ip)
        if network is None:
            return found
        networks = known[sign.key_id]
        if misuse.is_new_network(networks, network, sign.at, self.bounds(sign.keyspace, "new_network")):
            found.append(misuse.finding("new_network", signal, known=sorted(networks)[-10:]))
        networks.setdefault(network, sign.at)
        seen[sign.key_id, network] = max(sign.at, seen.get((sign.key_id, network), 0))
        return found

    def _volumes(self, connection: Connection, now: int) -> list[Finding]:
        """The keys that are used far more than before, each told of once in the time that it is judged by."""
        if 0 <= now - self._volume_at < VOLUME_EVERY:
            return []
        self._volume_at = now
        least = min(
            [
                misuse.RULES["volume"].bounds.times,
                *(one["volume"].times for one in self._bounds.values() if "volume" in one),
            ]
        )
        longest = max(
            [
                misuse.RULES["volume"].bounds.within,
                *(one["volume"].within for one in self._bounds.values() if "volume" in one),
            ]
        )
        found = []
        for key_id, keyspace, environment, account_id, _ in usage.busiest(
            connection, now - longest * SECOND, least
        ):
            bounds = self.bounds(keyspace, "volume")
            since = now - bounds.within * SECOND
            if self._judged.get(key_id, 0) > since:
                continue
            times = usage.highest(connection, key_id, since, now + 60 * SECOND, BASELINE)
            if times < bounds.times:
                continue
            highest = usage.highest(connection, key_id, now - BASELINE, since, bounds.within * SECOND)
            if len(self._judged) >= _MOST_JUDGED:
                self._judged.clear()
            if misuse.is_sudden(times, highest, bounds):
                self._judged[key_id] = now
                signal = Signal(now, "volume", keyspace, environment, account_id, key_id, "")
                more = {"times_now": times, "most_before": highest, "within_seconds": bounds.within}
                found.append(misuse.finding("volume", signal, **more))
        return found

    # -------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        shift = Shift(self._database, "lookout", self._clock, lease=LEASE)
        shift.work(lambda: shift.holds() and self.round(), self._stop, EVERY)
        shift.leave()


def _signal(refusal: Refusal) -> Signal:
    return Signal(
        refusal.at,
        misuse.reason_of(refusal.code, refusal.reason),
        refusal.keyspace,
        refusal.environment,
        refusal.account_id,
        refusal.key_id,
        refusal.ip or "",
        refusal.request_id,
        refusal.fingerprint,
    )


def _of_sign(sign: Sign) -> Signal:
    return Signal(
        sign.at, sign.kind, sign.keyspace, sign.environment, sign.account_id, sign.key_id, sign.ip or ""
    )
