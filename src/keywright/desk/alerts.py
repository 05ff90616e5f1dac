"""Alerts: signs of misuse. They are raised by the watch; people list, get, acknowledge and resolve them.

Of one thing that goes on there is one alert, which counts on. One that was resolved is raised anew only after its rule's
quiet time.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from keywright import credential, events, misuse
from keywright.desk import LIBRARY, Desk, cursors, messages
from keywright.desk.accounts import account_name
from keywright.desk.grants import EVERYTHING, Reach
from keywright.desk.keyspaces import keyspace_name
from keywright.desk.mails import Mails
from keywright.errors import Conflict, Invalid, NotFound
from keywright.events import Place
from keywright.keyring import Keyring
from keywright.misuse import RULES, Finding
from keywright.model import Actor, Alert, Page, Threshold
from keywright.store import alerts, deliveries, keys, webhooks
from keywright.store.alerts import Narrow, Subject
from keywright.store.db import Database
from keywright.store.keys import Named
from keywright.store.webhooks import Message
from keywright.times import SECOND

STATES: Final = ("open", "acknowledged", "resolved")
SEVERITIES: Final = ("low", "medium", "high")
LONGEST_PAGE: Final = 200
#: Alerts of one rule in one keyspace that name no key and are not resolved; further sources share one.
MOST_SOURCES: Final = 50
OTHERS: Final = "others"

log = logging.getLogger("keywright")

Bounds = Callable[[str, str], Threshold]


class Alerts(Desk):
    """The alerts of an installation. Of new ones people are told by e-mail, where it is set up."""

    def __init__(self, database: Database, keyring: Keyring, clock: Callable[[], int], mails: Mails) -> None:
        super().__init__(database, keyring, clock)
        self._mails = mails

    def list(  # the verb of every surface
        self,
        *,
        account: str | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        key: str | None = None,
        rule: str | None = None,
        severity: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        reach: Reach = EVERYTHING,
    ) -> Page:
        """Those in reach, newest first.

        Raises ``Invalid``, ``NotFound`` for an account or a keyspace that is not there or what is not in reach, or
        ``Forbidden``.
        """
        for name, value, known in (
            ("state", state, STATES),
            ("severity", severity, SEVERITIES),
            ("rule", rule, RULES),
        ):
            if value is not None and value not in known:
                raise Invalid(f"is one of {', '.join(known)}", path=name)
        if not 1 <= limit <= LONGEST_PAGE:
            raise Invalid(f"is from 1 to {LONGEST_PAGE}", path="limit")
        with self.database.read() as connection:
            keyspace = keyspace_name(connection, reach.needs("keyspace", keyspace), own=True)
            account = account_name(connection, reach.needs("account", account), own=True)
        narrow = Narrow(
            account=account,
            keyspace=keyspace,
            environment=reach.needs("environment", environment),
            key_id=key,
            rule=rule,
            severity=severity,
            state=state,
            closed=tuple(sorted(reach.closed)),
        )
        bound = ["alerts", narrow]
        before = None if cursor is None else cursors.read(cursor, bound, self.keyring.cursor)[0]
        with self.database.read("usage") as connection:
            found = alerts.page(connection, narrow, before=before, limit=limit + 1)
        more, found = len(found) > limit, found[:limit]
        return Page(
            tuple(found), cursors.write([found[-1].seq], bound, self.keyring.cursor) if more else None
        )

    def get(self, alert_id: str, *, reach: Reach = EVERYTHING) -> Alert:
        """Read one. Raises ``NotFound``."""
        with self.database.read("usage") as connection:
            return _covered(alerts.get(connection, alert_id), alert_id, reach)

    def acknowledge(self, alert_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Alert:
        """Say that it has been seen, and by whom. Raises ``NotFound``, or ``Conflict`` where it is resolved."""
        seen = self.get(alert_id, reach=reach)
        if seen.state == "open":
            self._tell(seen, actor, "alert.acknowledge")
        with self.database.write("usage", lasting=True) as tx:
            before = _covered(alerts.get(tx, alert_id), alert_id, reach)
            if before.state == "resolved":
                raise Conflict("the alert is resolved")
            if before.state == "acknowledged":
                return before
            return self._set(tx, before, actor, state="acknowledged")

    def resolve(self, alert_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Alert:
        """Say that it is dealt with: for its rule's quiet time nothing is raised of the same. Raises ``NotFound``."""
        seen = self.get(alert_id, reach=reach)
        wanted = self._wanted("alert.resolved", [seen])[seen.id]
        if seen.state != "resolved":
            self._tell(seen, actor, "alert.resolve")
        with self.database.write("usage", lasting=True) as tx:
            before = _covered(alerts.get(tx, alert_id), alert_id, reach)
            if before.state == "resolved":
                return before
            after = self._set(tx, before, actor, state="resolved")
            self._post(tx, "alert.resolved", after, wanted)
            return after

    def raise_(
        self,
        findings: Iterable[Finding],
        bounds: Bounds,
        *,
        also: Callable[[Connection], bool] = lambda _tx: True,
    ) -> Sequence[Alert]:
        """Make alerts of what the rules say, or count them on; the new ones. Each webhook, and each e-mail, is written with its
        alert.

        ``also`` is done in the same transaction; where it says no, nothing is.
        """
        merged = _merged(findings)
        with self.database.read() as connection:
            named = keys.names(connection, {one.key_id for one in merged if one.key_id}, self.clock())
        made = {one.id: one for one in (self._alert(finding, named) for finding in merged)}
        wanted = self._wanted("alert.raised", made.values())
        recipients = self._mails.recipients(made.values())
        raised = []
        with self.database.write("usage") as tx:
            if not also(tx):
                return []
            for alert in made.values():
                kept = self._keep(tx, alert, bounds)
                if kept is not None:
                    self._post(tx, "alert.raised", kept, wanted[alert.id])
                    self._mails.write(tx, kept, recipients.get(alert.id, ()))
                    raised.append(kept)
        for alert in raised:
            of = f", account {alert.account}" if alert.account else ""
            log.warning("alert %s: %s %s of %s%s", alert.id, alert.severity, alert.rule, alert.about, of)
        return raised

    # ------------------------------------------------------------------------------------------------------- inside

    def _alert(self, finding: Finding, named: Mapping[str, Named]) -> Alert:
        rule, key = RULES[finding.rule], named.get(finding.key_id)
        return Alert(
            seq=0,
            id=f"al_{credential.random_base62(15)}",
            rule=finding.rule,
            about=finding.about,
            severity=rule.severity,
            act=rule.act,
            state="open",
            account=None if key is None else key.account,
            keyspace=finding.keyspace if key is None else key.keyspace,
            environment=finding.environment if key is None else key.environment,
            key_id=finding.key_id,
            first_at=finding.since,
            last_at=finding.at,
            raised_at=self.clock(),
            count=finding.times,
            evidence=finding.evidence if key is None else finding.evidence | {"key_name": key.name},
        )

    def _keep(self, tx: Connection, alert: Alert, bounds: Bounds) -> Alert | None:
        """Write a new alert, and return it; one that counts an earlier one on is ``None``."""
        if not alert.key_id and alerts.newest(tx, _subject(alert)) is None:
            many = alerts.unresolved(tx, alert.rule, alert.keyspace)
            alert = msgspec.structs.replace(alert, about=OTHERS) if many >= MOST_SOURCES else alert
        earlier = alerts.newest(tx, _subject(alert))
        quiet = bounds(alert.keyspace, alert.rule).quiet * SECOND
        if earlier is None or (
            earlier.state == "resolved" and alert.last_at - (earlier.acted_at or 0) >= quiet
        ):
            alerts.add(tx, alert)
            return alert
        alerts.change(
            tx,
            earlier.id,
            count=earlier.count + alert.count,
            last_at=max(earlier.last_at, alert.last_at),
            evidence=misuse.joined(earlier.evidence, alert.evidence),
        )
        return None

    def _wanted(self, type_: str, found: Iterable[Alert]) -> dict[str, Sequence[str]]:
        with self.database.read() as connection:
            if not webhooks.anybody(connection):
                return {one.id: [] for one in found}
            return {one.id: webhooks.subscribed(connection, type_, _place(one)) for one in found}

    def _post(self, tx: Connection, type_: str, alert: Alert, wanted: Iterable[str]) -> None:
        now, message_id = self.clock(), messages.new_id()
        body = events.message(type_, now, {"alert": events.alert(alert)})
        deliveries.carry(tx, [Message(0, message_id, one, type_, body, now) for one in wanted], now)

    def _set(self, tx: Connection, before: Alert, actor: Actor, **values: Any) -> Alert:
        values |= {"acted_at": self.clock(), "acted_by": f"{actor.kind}:{actor.id}"}
        alerts.change(tx, before.id, **values)
        after = alerts.get(tx, before.id)
        assert after is not None
        return after

    def _tell(self, alert: Alert, actor: Actor, action: str) -> None:
        """Write the entry, which lies in another file than the alert: before the act, so that none is without."""
        with self.change() as change:
            about = {"rule": alert.rule, "key": alert.key_id or None}
            change.tell(actor, action, ("alert", alert.id), account=alert.account, **about)


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    found: dict[Subject, Finding] = {}
    for one in findings:
        subject = Subject(one.rule, one.keyspace, one.about)
        held = found.get(subject)
        found[subject] = (
            one
            if held is None
            else one._replace(
                since=held.since,
                times=held.times + one.times,
                evidence=misuse.joined(held.evidence, one.evidence),
            )
        )
    return list(found.values())


def _subject(alert: Alert) -> Subject:
    return Subject(alert.rule, alert.keyspace, alert.about)


def _place(alert: Alert) -> Place:
    return Place(alert.account, alert.keyspace, alert.environment or None)


def _covered(found: Alert | None, alert_id: str, reach: Reach) -> Alert:
    outside = found is None or (
        found.keyspace in reach.closed
        or any(
            getattr(reach, what) not in (None, getattr(found, what))
            for what in ("account", "keyspace", "environment")
        )
    )
    if found is None or outside:
        raise NotFound(f"there is no alert {alert_id[:60]!r}")
    return found


__all__ = ["SEVERITIES", "STATES", "Alerts"]
