"""Webhooks: endpoints that are told what happens. Create, get, list, edit, rotate, verify, test, disable, enable, delete.

An endpoint is bound like a management key, to an account, a keyspace and an environment or to less, and hears what
happens there. One that a confined caller makes, a customer for example, hears nothing until it has answered a challenge:
nobody points our messages at a third party. Who runs the installation is believed.
"""

import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from keywright import addresses, credential, events
from keywright.desk import LIBRARY, Change, Desk, cursors, fields, messages
from keywright.desk.accounts import account_name
from keywright.desk.grants import EVERYTHING, Reach
from keywright.desk.keys import UNSET
from keywright.desk.once import Once
from keywright.errors import Conflict, Invalid, NotFound, Unavailable
from keywright.events import EVENTS, UNASKED
from keywright.keyring import Keyring
from keywright.model import (
    MANAGEMENT,
    Actor,
    Binding,
    Endpoint,
    EndpointSecret,
    IssuedEndpoint,
    Network,
    Page,
)
from keywright.store import accounts, deliveries, keyspaces, webhooks
from keywright.store.db import Database
from keywright.store.webhooks import Filter, Message
from keywright.times import DAY, SECOND, rfc3339

#: Endpoints of one account, and of the installation.
MOST: Final = 20
#: Signing secrets of one endpoint that live at the same time.
MOST_SECRETS: Final = 5
OVERLAP: Final = DAY  # seconds
LONGEST_OVERLAP: Final = 30 * DAY
LONGEST_PAGE: Final = 200
#: How often an endpoint that has not answered may be asked, in seconds.
ASKED_EVERY: Final = 60
STATES: Final = ("pending", "active", "disabled")
FATES: Final = ("waiting", "delivered", "failed")
COURIER: Final = Actor("system", "courier")


class Webhooks(Desk):
    """The endpoints of an installation. ``allowed`` are its own networks, which endpoints may lie in all the same."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        clock: Callable[[], int],
        allowed: Iterable[Network] = (),
    ) -> None:
        super().__init__(database, keyring, clock)
        self.allowed = tuple(allowed)

    def create(
        self,
        *,
        url: str,
        events: Sequence[str] = (),
        description: str | None = None,
        account: str | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
        once: Once | None = None,
    ) -> IssuedEndpoint:
        """Make an endpoint and its signing secret, which is shown in the answer and never again.

        Without ``events`` it is told of everything. Raises ``NotFound``, ``Invalid`` or ``Conflict``.
        """
        bound = Binding(
            reach.needs("account", account),
            reach.needs("keyspace", keyspace),
            reach.needs("environment", environment),
        )
        addresses.read(url, self.allowed)
        with self.change(once) as change:
            _exists(change.tx, bound)
            if webhooks.count(change.tx, bound) >= MOST:
                raise Conflict(f"there are {MOST} endpoints already; delete one first")
            if not webhooks.page(change.tx, Filter(), after=None, limit=1):
                webhooks.set_read_until(change.tx, change.now - 1)  # what lies before is nobody's news
            known = reach == EVERYTHING
            endpoint = Endpoint(
                id=f"we_{credential.random_base62(15)}",
                url=url,
                description=fields.description(description),
                events=_events(events),
                binding=bound,
                state="active" if known else "pending",
                state_reason=None,
                challenge=None if known else _draw_challenge(),
                created_at=change.now,
                created_by=f"{actor.kind}:{actor.id}",
                updated_at=change.now,
                secrets=(self._draw(1, change.now),),
            )
            webhooks.add(change.tx, endpoint)
            self._ask(change, endpoint)
            change.made(endpoint.id)
            self._tell(change, actor, "webhook.create", endpoint, url=url, events=list(endpoint.events))
            return IssuedEndpoint(endpoint, self._secret(endpoint))

    def get(self, endpoint_id: str, *, reach: Reach = EVERYTHING) -> Endpoint:
        """Read one. Raises ``NotFound``."""
        with self.database.read() as connection:
            return _covered(webhooks.get(connection, endpoint_id), endpoint_id, reach)

    def list(  # the verb of every surface
        self,
        *,
        account: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        reach: Reach = EVERYTHING,
    ) -> Page:
        """Some of those in reach, oldest first.

        Raises ``Invalid``, or ``NotFound`` for an account that is not there or not in reach.
        """
        if state not in (None, *STATES):
            raise Invalid(f"is one of {', '.join(STATES)}", path="state")
        _check_limit(limit)
        narrow = Filter(
            account=reach.needs("account", account),
            keyspace=reach.keyspace,
            environment=reach.environment,
            state=state,
        )
        bound, key = ["webhooks", narrow], self.keyring.cursor
        after = None if cursor is None else cursors.read(cursor, bound, key)
        with self.database.read() as connection:
            account_name(connection, narrow.account)
            found = webhooks.page(connection, narrow, after=after, limit=limit + 1)
        more, found = len(found) > limit, found[:limit]
        following = cursors.write([found[-1].created_at, found[-1].id], bound, key) if more else None
        return Page(tuple(found), following)

    def edit(
        self,
        endpoint_id: str,
        *,
        url: str = UNSET,
        events: Sequence[str] = UNSET,
        description: str | None = UNSET,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
    ) -> Endpoint:
        """Change what is mentioned. A new address that a confined caller writes has to answer a challenge first.

        Raises ``NotFound`` or ``Invalid``.
        """
        with self.change() as change:
            before = _covered(webhooks.get(change.tx, endpoint_id), endpoint_id, reach)
            values: dict[str, Any] = {}
            if url is not UNSET and url != before.url:
                addresses.read(url, self.allowed)
                values["url"] = url
                if reach != EVERYTHING:
                    values["challenge"] = _draw_challenge()
                    values["state"] = "disabled" if before.state == "disabled" else "pending"
            if events is not UNSET and _events(events) != before.events:
                values["events"] = _events(events)
            if description is not UNSET and fields.description(description) != before.description:
                values["description"] = fields.description(description)
            if not values:
                return before
            told = {name: values[name] for name in ("url", "events", "description") if name in values}
            return self._set(change, before, actor, "webhook.edit", values, changed=told)

    def rotate(
        self,
        endpoint_id: str,
        *,
        overlap_seconds: int = OVERLAP,
        actor: Actor = LIBRARY,
        reach: Reach = EVERYTHING,
    ) -> IssuedEndpoint:
        """Give an endpoint a new signing secret. For so long messages are signed with the earlier one as well.

        Raises ``NotFound``, ``Invalid``, or ``Conflict`` where too many live already.
        """
        if isinstance(overlap_seconds, bool) or not 0 <= overlap_seconds <= LONGEST_OVERLAP:
            raise Invalid(f"is from 0 to {LONGEST_OVERLAP}", path="overlap_seconds")
        with self.change() as change:
            before = _covered(webhooks.get(change.tx, endpoint_id), endpoint_id, reach)
            if overlap_seconds and len(live(before, change.now)) >= MOST_SECRETS:
                raise Conflict(f"{MOST_SECRETS} signing secrets live already; wait, or say overlap_seconds 0")
            webhooks.end_secrets(change.tx, endpoint_id, change.now + overlap_seconds * SECOND, change.now)
            new = self._draw(before.secrets[0].n + 1, change.now)
            webhooks.add_secret(change.tx, endpoint_id, new)
            detail = {"secret": new.n, "overlap_seconds": overlap_seconds}
            after = self._set(change, before, actor, "webhook.rotate", {}, **detail)
            return IssuedEndpoint(after, self._secret(after))

    def verify(
        self, endpoint_id: str, challenge: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING
    ) -> Endpoint:
        """Say the challenge that an endpoint was sent; from then on it is told of events.

        Raises ``NotFound``, ``Invalid`` for a wrong one, or ``Conflict`` where none was sent.
        """
        with self.change() as change:
            before = _covered(webhooks.get(change.tx, endpoint_id), endpoint_id, reach)
            if before.challenge is None:
                raise Conflict("the endpoint has no challenge to answer")
            if not hmac.compare_digest(before.challenge.encode(), challenge.encode("utf-8", "replace")):
                raise Invalid("is not what the endpoint was sent", path="challenge")
            state = "active" if before.state == "pending" else before.state
            return self._set(change, before, actor, "webhook.verify", {"state": state, "challenge": None})

    def disable(self, endpoint_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Endpoint:
        """Tell an endpoint nothing until it is enabled; what waits for it is given up. Raises ``NotFound``."""
        with self.change() as change:
            before = _covered(webhooks.get(change.tx, endpoint_id), endpoint_id, reach)
            if before.state == "disabled":
                return before
            values = {"state": "disabled", "state_reason": None}
            return self._set(change, before, actor, "webhook.disable", values)

    def enable(self, endpoint_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Endpoint:
        """Tell a disabled endpoint again; one that has never answered its challenge is asked anew, unless whoever runs the
        installation enables it. Raises ``NotFound``.
        """
        with self.change() as change:
            before = _covered(webhooks.get(change.tx, endpoint_id), endpoint_id, reach)
            believed = reach == EVERYTHING
            state = "active" if believed or before.challenge is None else "pending"
            if before.state == state:
                return before
            values: dict[str, Any] = {"state": state, "state_reason": None}
            if believed:
                values["challenge"] = None
            return self._set(change, before, actor, "webhook.enable", values)

    def fail(self, endpoint_id: str, reason: str) -> None:
        """Disable an endpoint because it does not take its messages. One that is gone, or disabled already, stays so."""
        with self.change() as change:
            before = webhooks.get(change.tx, endpoint_id)
            if before is not None and before.state != "disabled":
                values = {"state": "disabled", "state_reason": reason}
                self._set(change, before, COURIER, "webhook.fail", values, reason=reason)

    def delete(self, endpoint_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> Endpoint:
        """Remove an endpoint for good; what waits for it is given up. Raises ``NotFound``."""
        with self.change() as change:
            before = _covered(webhooks.get(change.tx, endpoint_id), endpoint_id, reach)
            webhooks.remove(change.tx, endpoint_id)
            self._tell(change, actor, "webhook.delete", before, url=before.url)
            return before

    def test(self, endpoint_id: str, *, actor: Actor = LIBRARY, reach: Reach = EVERYTHING) -> str:
        """Send an endpoint a test, or its challenge once more; the id of the message, to look for in its deliveries.

        Raises ``NotFound``, or ``Conflict`` where it is disabled or was asked a moment ago.
        """
        endpoint = self.get(endpoint_id, reach=reach)
        if endpoint.state == "disabled":
            raise Conflict("the endpoint is disabled; enable it first")
        message = (
            _challenge(endpoint, self.clock())
            if endpoint.state == "pending"
            else _test(endpoint, self.clock())
        )
        with self.database.read("usage") as connection:
            _check_asked(connection, endpoint, message.at)
        self._tell_first(endpoint, actor, "webhook.test", message=message.message_id)
        with self.database.write("usage", lasting=True) as tx:
            _check_asked(tx, endpoint, message.at)
            deliveries.carry(tx, [message], message.at)
        return message.message_id

    def deliveries(
        self,
        endpoint_id: str,
        *,
        state: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        reach: Reach = EVERYTHING,
    ) -> Page:
        """What was sent to an endpoint and what came of it, newest first. Raises ``NotFound`` or ``Invalid``."""
        if state not in (None, *FATES):
            raise Invalid(f"is one of {', '.join(FATES)}", path="state")
        _check_limit(limit)
        self.get(endpoint_id, reach=reach)
        bound, key = ["deliveries", endpoint_id, state], self.keyring.cursor
        before = None if cursor is None else cursors.read(cursor, bound, key)[0]
        with self.database.read("usage") as connection:
            found = deliveries.page(connection, endpoint_id, state=state, before=before, limit=limit + 1)
        more, found = len(found) > limit, found[:limit]
        return Page(tuple(found), cursors.write([found[-1].seq], bound, key) if more else None)

    def redeliver(
        self, endpoint_id: str, *, since: int, actor: Actor = LIBRARY, reach: Reach = EVERYTHING
    ) -> int:
        """Try anew what was given up since an instant, as far as the log still has it; how many messages there are.

        Raises ``NotFound``, or ``Conflict`` where the endpoint is not active.
        """
        endpoint = self.get(endpoint_id, reach=reach)
        if endpoint.state != "active":
            raise Conflict(f"the endpoint is {endpoint.state}")
        self._tell_first(endpoint, actor, "webhook.redeliver", since=rfc3339(since))
        with self.database.write("usage", lasting=True) as tx:
            return deliveries.again(tx, endpoint_id, since, self.clock())

    def signing(self, endpoint: Endpoint, now: int) -> Sequence[bytes]:
        """The secrets that a message is signed with now, newest first. Raises ``Unavailable`` where none can be made."""
        found = [
            self.keyring.signing(secret.root, endpoint.id, secret.salt) for secret in live(endpoint, now)
        ]
        made = [secret for secret in found if secret is not None]
        if not made:
            raise Unavailable(
                "the entry of the installation's secret that it is signed with is not configured"
            )
        return made

    # ------------------------------------------------------------------------------------------------------- inside

    def _draw(self, n: int, now: int) -> EndpointSecret:
        return EndpointSecret(n, self.keyring.current, secrets.token_bytes(32), now)

    def _secret(self, endpoint: Endpoint) -> credential.Secret:
        newest = endpoint.secrets[0]
        made = self.keyring.signing(newest.root, endpoint.id, newest.salt)
        assert made is not None
        return credential.Secret(events.spell_secret(made))

    def _set(
        self,
        change: Change,
        before: Endpoint,
        actor: Actor,
        action: str,
        values: dict[str, Any],
        **detail: Any,
    ) -> Endpoint:
        webhooks.change(change.tx, before.id, **values, updated_at=change.now)
        after = webhooks.get(change.tx, before.id)
        assert after is not None
        if after.challenge is not None and after.challenge != before.challenge:
            self._ask(change, after)
        self._tell(change, actor, action, after, **detail)
        return after

    def _ask(self, change: Change, endpoint: Endpoint) -> None:
        if endpoint.state == "pending":
            one = _challenge(endpoint, change.now)
            webhooks.post(change.tx, [endpoint.id], one.message_id, one.type, one.body, one.at)

    def _tell(self, change: Change, actor: Actor, action: str, endpoint: Endpoint, **detail: Any) -> None:
        change.tell(actor, action, ("webhook", endpoint.id), account=endpoint.binding.account, **detail)

    def _tell_first(self, endpoint: Endpoint, actor: Actor, action: str, **detail: Any) -> None:
        """Write the entry, which lies in another file than the messages: before they are sent, so that none is without."""
        with self.change() as change:
            self._tell(change, actor, action, endpoint, **detail)


def live(endpoint: Endpoint, now: int) -> Sequence[EndpointSecret]:
    """The signing secrets that have not ended, newest first."""
    return [secret for secret in endpoint.secrets if secret.ends_at is None or secret.ends_at > now]


def _check_asked(connection: Connection, endpoint: Endpoint, now: int) -> None:
    if endpoint.state != "pending":
        return
    asked = deliveries.newest(connection, endpoint.id, "webhook.verify")
    if asked is not None and asked > now - ASKED_EVERY * SECOND:
        raise Conflict(f"the endpoint was sent its challenge within the last {ASKED_EVERY} seconds")


def _exists(tx: Connection, bound: Binding) -> None:
    if bound.account is not None and (bound.account == MANAGEMENT or accounts.get(tx, bound.account) is None):
        raise NotFound(f"there is no account {bound.account[:60]!r}")
    if bound.keyspace is None:
        if bound.environment is not None:
            raise Invalid("needs a keyspace beside it", path="environment")
        return
    applied = keyspaces.get(tx, bound.keyspace)
    if applied is None or bound.keyspace == MANAGEMENT:
        raise NotFound(f"there is no keyspace {bound.keyspace[:60]!r}")
    if bound.environment is not None and bound.environment not in applied.keyspace.environments:
        names = ", ".join(applied.keyspace.environments)
        raise Invalid(f"{bound.environment[:40]!r} is none of {names}", path="environment")


def _covered(found: Endpoint | None, endpoint_id: str, reach: Reach) -> Endpoint:
    if found is None or not all(
        getattr(reach, what) in (None, getattr(found.binding, what))
        for what in ("account", "keyspace", "environment")
    ):
        raise NotFound(f"there is no webhook {endpoint_id[:60]!r}")
    return found


def _events(given: Sequence[str]) -> tuple[str, ...]:
    wanted = [name for name in EVENTS if name in given]
    for name in given:
        if name not in EVENTS or name in UNASKED:
            raise Invalid(f"{str(name)[:40]!r} is no event that can be subscribed to", path="events")
    return tuple(wanted)


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= LONGEST_PAGE:
        raise Invalid(f"is from 1 to {LONGEST_PAGE}", path="limit")


def _draw_challenge() -> str:
    return credential.random_base62(32)


def _challenge(endpoint: Endpoint, now: int) -> Message:
    return _message(
        endpoint, "webhook.verify", now, {"webhook": endpoint.id, "challenge": endpoint.challenge}
    )


def _test(endpoint: Endpoint, now: int) -> Message:
    return _message(endpoint, "webhook.test", now, {"webhook": endpoint.id})


def _message(endpoint: Endpoint, type_: str, now: int, data: dict[str, Any]) -> Message:
    return Message(0, messages.new_id(), endpoint.id, type_, events.message(type_, now, data), now)
