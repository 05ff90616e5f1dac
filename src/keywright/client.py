"""The same verbs over HTTP: what a program holds that has no database of its own, but a server's address and a key.

    kw = Keywright.connect("https://keys.example.com", key=token, keyspace="acme", environment="production")
    verdict = kw.verify(request.headers, scopes=["contacts:read"], method="GET")

The verbs take what they take on a database, answer with the same records and raise the same errors. Who acts is whose
management key it is: an ``actor`` that is given is not sent.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from keywright import answers, received
from keywright.answers import Answer
from keywright.clock import wall
from keywright.connection import Connections, place
from keywright.desk.keys import UNSET
from keywright.desk.listing import LONGEST_PAGE, walk
from keywright.desk.refusals import Refused
from keywright.desk.usage import Report, UsageRow
from keywright.errors import CallerError, Denied, Invalid, NotFound, Unavailable
from keywright.limits import Standing, check_cost
from keywright.model import (
    Account,
    Actor,
    Alert,
    Changed,
    Endpoint,
    Imported,
    Issued,
    IssuedEndpoint,
    Key,
    Page,
    Person,
    PortalLink,
    PortalSession,
    Several,
    Verdict,
)
from keywright.received import InvitedThere, Received, Verified
from keywright.schemes import from_mapping
from keywright.store.deliveries import Delivery
from keywright.store.keys import Named
from keywright.store.keyspaces import Applied
from keywright.store.refusals import Refusal
from keywright.times import parse_instant, rfc3339

TIMEOUT: Final = 10.0  # seconds
#: The longest that a verdict may be remembered, in seconds: for so long a key that was ended goes on (T-62).
LONGEST_MEMORY: Final = 5.0
_MOST_REMEMBERED: Final = 10_000
#: How many verifications of event loops are asked at the same time; more of them wait for their turn.
WAITING_AT_ONCE: Final = 32

log = logging.getLogger("keywright")


class Client:
    """A Keywright server, as its management key may use it. Safe to use from any thread, and after a fork."""

    def __init__(
        self,
        url: str,
        *,
        key: str,
        keyspace: str | None = None,
        environment: str | None = None,
        timeout: float = TIMEOUT,
        remember: float = 0.0,
    ) -> None:
        """Nothing is asked yet. ``https://`` only, but for addresses of this machine itself.

        ``remember`` is for how many seconds, five at most, the verdict on a key that has no limits is given again without
        asking: that long a key that was ended goes on, and its use is not counted. Raises ``Invalid``.
        """
        if not 0 <= remember <= LONGEST_MEMORY:
            raise Invalid(f"is from 0 to {LONGEST_MEMORY:g} seconds", path="remember")
        self._connections = Connections(url, key, timeout)
        self._memory = _Memory(remember)
        self._waiters = _Waiters()
        self.url = self._connections.url
        self.keyspace = keyspace
        self.environment = environment
        self.keys = Keys(self._connections, keyspace, environment)
        self.management_keys = ManagementKeys(self._connections)
        self.accounts = Accounts(self._connections)
        self.people = People(self._connections)
        self.portal = Portal(self._connections)
        self.keyspaces = Keyspaces(self._connections)
        self.trail = Trail(self._connections)
        self.usage = Usage(self._connections)
        self.refusals = Refusals(self._connections)
        self.alerts = Alerts(self._connections)
        self.webhooks = Webhooks(self._connections)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself, as the library does: its connections and what it remembers are one."""
        return self

    def clock(self) -> int:
        """Now, in microseconds since 1970 in UTC."""
        return wall()

    def definitions(self, what: str, keyspace: str | None = None) -> list[dict[str, Any]]:
        """The ``scopes``, ``plans`` or ``gates`` of a keyspace, or of all. Raises ``NotFound``."""
        found: list[dict[str, Any]] = self._connections.ask("GET", f"/v1/{what}", keyspace=keyspace)["items"]
        return found

    def verify(
        self,
        headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
        *,
        scopes: Iterable[str] = (),
        method: str | None = None,
        ip: str | None = None,
        url: str | bytes | None = None,
        resource: str | None = None,
        cost: int = 1,
        authenticate_only: bool = False,
        keyspace: str | None = None,
        environment: str | None = None,
        request_id: str | None = None,
    ) -> Verdict:
        """Say whether a request may proceed. A server that does not answer, or refuses our own key, is ``unavailable``.

        Raises ``NotFound`` or ``Invalid`` where the call itself names no keyspace or environment that exists.
        """
        given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in from_mapping(headers)]
        asked = (scopes,) if isinstance(scopes, str) else tuple(scopes)
        body = {
            "headers": given,
            "url": url.decode("latin-1") if isinstance(url, bytes) else url,
            "scopes": asked,
            "method": method,
            "ip": ip,
            "resource": resource,
            "cost": check_cost(cost),
            "authenticate_only": authenticate_only,
        }
        return self.ask(body, keyspace=keyspace, environment=environment, request_id=request_id)

    async def averify(
        self,
        headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
        **asked: Any,
    ) -> Verdict:
        """``verify``, for an event loop: the waiting is done by a thread of this client's, never by one of the loop's own."""
        ask = partial(copy_context().run, self.verify, headers, **asked)
        return await asyncio.get_running_loop().run_in_executor(self._waiters.get(), ask)

    def ask(
        self,
        body: dict[str, Any],
        *,
        keyspace: str | None = None,
        environment: str | None = None,
        request_id: str | None = None,
    ) -> Verified:
        """``verify`` in the words of ``POST /v1/verify``."""
        name = keyspace or self.keyspace
        if name is None:
            raise Invalid("name one here or when the server is connected to", path="keyspace")
        whole = body | {"keyspace": name, "environment": environment or self.environment}
        remembered = self._memory.get(whole)
        if remembered is not None:
            return remembered
        now = self.clock()
        try:
            said = self.verification(whole)
        except (Unavailable, Denied) as trouble:
            log.warning("a key could not be verified: %s", trouble)
            return Verified(
                "unavailable", str(trouble), name, now, request_id=request_id or "", retry_after=1
            )
        verdict = received.verdict(said, now, name, tuple(body.get("scopes") or ()))
        self._memory.put(whole, verdict)
        return verdict

    def verification(self, body: dict[str, Any]) -> dict[str, Any]:
        """What ``POST /v1/verify`` answers. Raises ``Unavailable``, ``Denied``, ``NotFound`` or ``Invalid``."""
        said: dict[str, Any] = self._connections.ask("POST", "/v1/verify", body)
        return said

    def answer(self, verdict: Verdict) -> Answer:
        """What to answer a refused request with: status, headers and body, verbatim."""
        told = getattr(verdict, "answered", None)
        return told if told is not None else answers.NOWHERE.of(verdict)

    def forget(self) -> None:
        """Forget every verdict that is remembered."""
        self._memory.clear()

    def close(self) -> None:
        """Close every connection, and let threads go when they have their answers."""
        self._waiters.close()
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Waiters:
    """The threads that wait for a server on behalf of event loops: a bounded number, made when they are first wanted."""

    def __init__(self) -> None:
        self._made: ThreadPoolExecutor | None = None
        self._pid = 0
        self._lock = Lock()

    def get(self) -> ThreadPoolExecutor:
        """Those of this process: threads do not come along in a fork."""
        with self._lock:
            if self._made is None or self._pid != os.getpid():
                self._made, self._pid = ThreadPoolExecutor(WAITING_AT_ONCE, "keywright-client"), os.getpid()
            return self._made

    def close(self) -> None:
        """Begin nothing more."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None and self._pid == os.getpid():
            made.shutdown(wait=False)


class _Memory:
    """Verdicts that let a request in and were charged to no limit, for a short while; no secret is kept of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._salt = os.urandom(16)
        self._known: OrderedDict[bytes, tuple[float, Verified]] = OrderedDict()
        self._lock = Lock()

    def get(self, body: dict[str, Any]) -> Verified | None:
        if not self._seconds:
            return None
        with self._lock:
            since, verdict = self._known.get(self._name(body), (0.0, None))
        return verdict if verdict is not None and time.monotonic() - since < self._seconds else None

    def put(self, body: dict[str, Any], verdict: Verified) -> None:
        if not self._seconds or not verdict.valid or verdict.limits or verdict.stale:
            return
        with self._lock:
            self._known[self._name(body)] = (time.monotonic(), verdict)
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._known.clear()

    def _name(self, body: dict[str, Any]) -> bytes:
        return hashlib.blake2b(msgspec.json.encode(body, order="sorted"), key=self._salt).digest()


class Noun:
    """What every noun stands on."""

    def __init__(self, connections: Connections) -> None:
        self._ask = connections.ask


class Keys(Noun):
    """The verbs on keys."""

    def __init__(self, connections: Connections, keyspace: str | None, environment: str | None) -> None:
        super().__init__(connections)
        self._keyspace = keyspace
        self._environment = environment

    def create(self, *, name: str, actor: Actor | None = None, **given: Any) -> Issued:
        """Make a key and its first secret, which is shown in the answer and never again.

        Takes what ``Keywright.keys.create`` takes. Raises ``NotFound``, ``Invalid``, ``Conflict`` or ``Exceeds``.
        """
        keyspace = given.get("keyspace") or self._keyspace
        if given.get("environment") is None and keyspace == self._keyspace:
            given["environment"] = self._environment
        said = {field: value for field, value in given.items() if value is not None or field == "expires_at"}
        return received.issued(
            self._ask("POST", "/v1/keys", _timed(said | {"name": name, "keyspace": keyspace}))
        )

    def get(self, key_id: str) -> Key:
        """Read one. Raises ``NotFound``."""
        return received.key(self._ask("GET", f"/v1/keys/{place(key_id)}"))

    def limits(self, key_id: str) -> Sequence[Standing]:
        """What a key's use is taken from, and how much of each limit is taken. Raises ``NotFound``."""
        found = self._ask("GET", f"/v1/keys/{place(key_id)}/limits")["items"]
        return tuple(received.standing(one) for one in found)

    def list(self, **narrow: Any) -> Page:  # the verb of every surface
        """Some keys, newest first unless ``sort`` says otherwise. Raises ``Invalid`` or ``NotFound``."""
        return _page(self._ask("GET", "/v1/keys", **narrow), received.key)

    def walk(self, **narrow: Any) -> Iterator[Key]:
        """Every key of a list, however many there are. Raises ``Invalid`` or ``NotFound``, at once."""
        return walk(partial(self.list, **narrow, limit=LONGEST_PAGE))

    def edit(self, key_id: str, *, actor: Actor | None = None, **changes: Any) -> Changed:
        """Change what is mentioned, and nothing else. Raises ``NotFound``, ``Invalid``, ``Conflict`` or ``Exceeds``."""
        return received.changed(self._ask("PATCH", f"/v1/keys/{place(key_id)}", _timed(changes)))

    def rotate(
        self,
        key_id: str,
        *,
        grace_seconds: int = 0,
        start: str = "now",
        force: bool = False,
        actor: Actor | None = None,
    ) -> Issued:
        """Give a key a second secret. Raises ``NotFound``, ``Invalid`` or ``Conflict``."""
        asked = {"grace_seconds": grace_seconds, "start": start, "force": force}
        return received.issued(self._ask("POST", f"/v1/keys/{place(key_id)}/rotate", asked))

    def finish(self, key_id: str, *, actor: Actor | None = None) -> Changed:
        """End the old secret of a rotation now. Raises ``NotFound`` or ``Conflict``."""
        return self._do(key_id, "rotate/finish")

    def cancel(self, key_id: str, *, actor: Actor | None = None) -> Changed:
        """End the new secret of a rotation now. Raises ``NotFound`` or ``Conflict``."""
        return self._do(key_id, "rotate/cancel")

    def invalidate(self, key_id: str, *, reason: str | None = None, actor: Actor | None = None) -> Changed:
        """Stop a key for ever; it stays in the list. Raises ``NotFound``."""
        return self._do(key_id, "invalidate", {"reason": reason})

    def disable(self, key_id: str, *, for_seconds: int | None = None, actor: Actor | None = None) -> Changed:
        """Stop a key until it is enabled, or for so many seconds. Raises ``NotFound``, ``Invalid`` or ``Conflict``."""
        return self._do(key_id, "disable", None if for_seconds is None else {"for_seconds": for_seconds})

    def enable(self, key_id: str, *, actor: Actor | None = None) -> Changed:
        """Let a disabled key work again. Raises ``NotFound`` or ``Conflict``."""
        return self._do(key_id, "enable")

    def delete(self, key_id: str, *, actor: Actor | None = None) -> Changed:
        """Remove a key for good. Raises ``NotFound``."""
        return received.changed(self._ask("DELETE", f"/v1/keys/{place(key_id)}"))

    def several(self, doing: str, key_ids: Sequence[str], *, actor: Actor | None = None) -> Several:
        """Disable, enable, invalidate or delete several, 200 at most, in one transaction. Raises ``Invalid``."""
        return received.several(self._ask("POST", "/v1/keys/several", {"act": doing, "keys": list(key_ids)}))

    def import_(
        self,
        items: Sequence[object],
        *,
        account: str | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        dry_run: bool = False,
        actor: Actor | None = None,
    ) -> Imported:
        """Make keys of credentials that an earlier system made, 200 at most, as ``Keywright.keys.import_`` does.

        Raises ``NotFound``, ``Invalid`` or ``Conflict`` where the whole cannot be.
        """
        keyspace = keyspace or self._keyspace
        if environment is None and keyspace == self._keyspace:
            environment = self._environment
        whole = {"keyspace": keyspace, "account": account, "environment": environment, "dry_run": dry_run}
        timed = [_timed(dict(item)) if isinstance(item, Mapping) else item for item in items]
        return received.imported(self._ask("POST", "/v1/keys/import", whole | {"items": timed}))

    def _do(self, key_id: str, verb: str, body: dict[str, Any] | None = None) -> Changed:
        return received.changed(self._ask("POST", f"/v1/keys/{place(key_id)}/{verb}", body))


class ManagementKeys(Noun):
    """The verbs on management keys."""

    def create(
        self,
        *,
        name: str,
        scopes: Sequence[str],
        account: str | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        expires_at: int | None = UNSET,
        actor: Actor | None = None,
    ) -> Issued:
        """Make one, no larger than the key that asks. Raises ``NotFound``, ``Invalid`` or ``Exceeds``."""
        bound = {"account": account, "keyspace": keyspace, "environment": environment}
        said: dict[str, Any] = {"name": name, "scopes": list(scopes)}
        said |= {field: value for field, value in bound.items() if value is not None}
        said |= {} if expires_at is UNSET else {"expires_at": expires_at}
        return received.issued(self._ask("POST", "/v1/management-keys", _timed(said)))

    def list(self, *, q: str | None = None, cursor: str | None = None, limit: int = 50) -> Page:
        """Some of those in reach, newest first. Raises ``Invalid``."""
        return _page(self._ask("GET", "/v1/management-keys", q=q, cursor=cursor, limit=limit), received.key)

    def get(self, key_id: str) -> Key:
        """Read one. Raises ``NotFound``."""
        return received.key(self._ask("GET", f"/v1/management-keys/{place(key_id)}"))

    def rotate(
        self, key_id: str, *, grace_seconds: int = 0, force: bool = False, actor: Actor | None = None
    ) -> Issued:
        """Give one a new secret. Raises ``NotFound``, ``Invalid``, ``Conflict`` or ``Exceeds``."""
        asked = {"grace_seconds": grace_seconds, "force": force}
        return received.issued(self._ask("POST", f"/v1/management-keys/{place(key_id)}/rotate", asked))

    def invalidate(self, key_id: str, *, reason: str | None = None, actor: Actor | None = None) -> Changed:
        """Stop one for ever. Raises ``NotFound``."""
        return self._do(key_id, "invalidate", {"reason": reason})

    def disable(self, key_id: str, *, actor: Actor | None = None) -> Changed:
        """Stop one until it is enabled. Raises ``NotFound`` or ``Conflict``."""
        return self._do(key_id, "disable")

    def enable(self, key_id: str, *, actor: Actor | None = None) -> Changed:
        """Let a disabled one work again. Raises ``NotFound``, ``Conflict`` or ``Exceeds``."""
        return self._do(key_id, "enable")

    def delete(self, key_id: str, *, actor: Actor | None = None) -> Changed:
        """Remove one for good. Raises ``NotFound``."""
        return received.changed(self._ask("DELETE", f"/v1/management-keys/{place(key_id)}"))

    def _do(self, key_id: str, verb: str, body: dict[str, Any] | None = None) -> Changed:
        return received.changed(self._ask("POST", f"/v1/management-keys/{place(key_id)}/{verb}", body))


class Accounts(Noun):
    """The verbs on accounts."""

    def create(
        self,
        username: str,
        *,
        name: str | None = None,
        pending: bool = False,
        limits_: Sequence[Any] = (),
        actor: Actor | None = None,
    ) -> Account:
        """Make an account. Raises ``Invalid``, or ``Conflict`` for a taken name."""
        body = {"username": username, "name": name, "pending": pending, "limits": list(limits_)}
        return received.account(self._ask("POST", "/v1/accounts", body))

    def get(self, username: str) -> Account:
        """Read one. Raises ``NotFound``."""
        return received.account(self._ask("GET", f"/v1/accounts/{place(username)}"))

    def list(self, **narrow: Any) -> Page:  # the verb of every surface
        """Some accounts, by username. Raises ``Invalid``."""
        return _page(self._ask("GET", "/v1/accounts", **narrow), received.account)

    def suspend(self, username: str, *, actor: Actor | None = None) -> Account:
        """Stop every key of an account until it is activated. Raises ``NotFound``."""
        return received.account(self._ask("POST", f"/v1/accounts/{place(username)}/suspend"))

    def activate(self, username: str, *, actor: Actor | None = None) -> Account:
        """Let a pending or suspended account's keys work. Raises ``NotFound``."""
        return received.account(self._ask("POST", f"/v1/accounts/{place(username)}/activate"))

    def limit(self, username: str, given: Sequence[Any], *, actor: Actor | None = None) -> Account:
        """Set the limits that all keys of an account share. Raises ``NotFound``, ``Invalid`` or ``Exceeds``."""
        return received.account(
            self._ask("PATCH", f"/v1/accounts/{place(username)}", {"limits": list(given)})
        )


class People(Noun):
    """The verbs on members of accounts. Operators are made, and people shut out, where the installation is."""

    def invite(
        self,
        email: str,
        *,
        account: str | None,
        role: str | None,
        name: str | None = None,
        access: str = "all",
        scopes: Sequence[str] = (),
        actor: Actor | None = None,
    ) -> InvitedThere:
        """Give somebody a place in an account. Raises ``NotFound``, ``Invalid``, ``Conflict`` or ``Exceeds``."""
        said = {"email": email, "account": account, "role": role, "name": name, "access": access}
        body = {field: value for field, value in said.items() if value is not None}
        return received.invited(self._ask("POST", "/v1/people", body | {"scopes": list(scopes)}))

    def list(  # the verb of every surface
        self,
        *,
        account: str | None = None,
        operators: bool = False,
        q: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Some people, by address. Raises ``Invalid`` or ``NotFound``."""
        narrow = {"account": account, "q": q, "cursor": cursor, "limit": limit}
        only = {"operators": "true"} if operators else {}
        return _page(self._ask("GET", "/v1/people", **narrow, **only), received.person)

    def get(self, person_id: str) -> Person:
        """Read one by id or by address. Raises ``NotFound``."""
        return received.person(self._ask("GET", f"/v1/people/{place(person_id)}"))

    def change_role(
        self,
        person_id: str,
        *,
        account: str | None,
        role: str | None = None,
        access: str | None = None,
        scopes: Sequence[str] | None = None,
        actor: Actor | None = None,
    ) -> Person:
        """Change somebody's place in an account. Raises ``NotFound``, ``Invalid``, ``Exceeds`` or ``Conflict``."""
        said = {"account": account, "role": role, "access": access}
        body: dict[str, Any] = {field: value for field, value in said.items() if value is not None}
        body |= {} if scopes is None else {"scopes": list(scopes)}
        return received.person(self._ask("PATCH", f"/v1/people/{place(person_id)}", body))

    def remove(self, person_id: str, *, account: str | None, actor: Actor | None = None) -> Person:
        """Take somebody's place in an account away. Raises ``NotFound``, ``Exceeds`` or ``Conflict``."""
        return received.person(self._ask("DELETE", f"/v1/people/{place(person_id)}", account=account))


class Portal(Noun):
    """The verbs on visits of the portal."""

    def open(
        self,
        *,
        account: str,
        subject: str,
        actor: Actor | None = None,
        base_url: str | None = None,
        **given: Any,
    ) -> PortalLink:
        """Make the link by which somebody, whom the host has signed in, comes to the keys of an account.

        Takes what the library's own verb takes; where the link leads is the server's to say. Raises ``NotFound``,
        ``Invalid`` or ``Exceeds``.
        """
        said = {name: value for name, value in given.items() if value is not None}
        if "scopes" in said:
            said["scopes"] = list(said["scopes"])
        body = said | {"account": account, "subject": subject}
        return received.portal_link(self._ask("POST", "/v1/portal/sessions", body))

    def get(self, visit_id: str) -> PortalSession:
        """Read one. Raises ``NotFound``."""
        return received.portal_session(self._ask("GET", f"/v1/portal/sessions/{place(visit_id)}"))

    def list(self, **narrow: Any) -> Page:  # the verb of every surface
        """Some visits, newest first, up to a day after their end. Raises ``NotFound`` or ``Invalid``."""
        return _page(self._ask("GET", "/v1/portal/sessions", **narrow), received.portal_session)

    def end(self, visit_id: str, *, actor: Actor | None = None) -> PortalSession:
        """End one. Raises ``NotFound``."""
        return received.portal_session(self._ask("DELETE", f"/v1/portal/sessions/{place(visit_id)}"))

    def end_all(self, *, account: str, subject: str | None = None, actor: Actor | None = None) -> int:
        """End all of an account, or those of one subject; how many that were. Raises ``NotFound``."""
        body = {"account": account} | ({} if subject is None else {"subject": subject})
        many: int = self._ask("POST", "/v1/portal/sessions/end", body)["ended"]
        return many


class Keyspaces(Noun):
    """Keyspaces, to read: their source is the TOML that is applied where the database is."""

    def list(self) -> Sequence[Applied]:  # the verb of every surface
        """All that are in reach, by name. Their TOML is not told."""
        return [_applied(said, "") for said in self._ask("GET", "/v1/keyspaces")["items"]]

    def get(self, name: str) -> Applied:
        """Read one. Raises ``NotFound``."""
        at = f"/v1/keyspaces/{place(name)}"
        return _applied(self._ask("GET", at), self._ask("GET", f"{at}/source")["source"])


class Trail(Noun):
    """The audit trail, to read: it is proven where its key is."""

    def list(self, **narrow: Any) -> Page:  # the verb of every surface
        """Entries, newest first. Raises ``Invalid`` or ``NotFound``."""
        return _page(self._ask("GET", "/v1/audit", **narrow), received.entry)

    def walk(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Every entry behind a number, oldest first, with its MAC: for an export."""
        next_: str | int | None = after
        while next_ is not None:
            page = _page(self._ask("GET", "/v1/audit/export", after=next_), received.entry)
            yield from page.items
            next_ = page.next_cursor


class Usage(Noun):
    """What was counted."""

    def report(self, *, since: int | None = None, until: int | None = None, **asked: Any) -> Report:
        """How often each verdict was given. Raises ``Invalid`` or ``NotFound``."""
        times = {name: None if at is None else rfc3339(at) for name, at in (("from", since), ("to", until))}
        said = self._ask("GET", "/v1/usage", **asked, **times)
        rows = tuple(
            UsageRow(received.instant(row["at"]), row["value"], _named(row["key"]), row["codes"])
            for row in said["items"]
        )
        return Report(
            received.instant(said["from"]), parse_instant(said["to"]), said["by"], said["group"], rows
        )


class Refusals(Noun):
    """The refusal log."""

    def list(self, **narrow: Any) -> Page:  # the verb of every surface
        """Refusals, newest first. Raises ``Invalid`` or ``NotFound``."""
        return _page(self._ask("GET", "/v1/refusals", **narrow), _refused)

    def get(self, request_id: str) -> Refused:
        """The newest refusal of a request. Raises ``NotFound``."""
        found = self.list(request_id=request_id, limit=1).items
        if not found:
            raise NotFound(f"no refused request {request_id[:60]!r} is in the log")
        refused: Refused = found[0]
        return refused


class Alerts(Noun):
    """Signs of misuse."""

    def list(self, **narrow: Any) -> Page:  # the verb of every surface
        """Alerts, newest first. Raises ``Invalid`` or ``NotFound``."""
        return _page(self._ask("GET", "/v1/alerts", **narrow), received.alert)

    def get(self, alert_id: str) -> Alert:
        """Read one. Raises ``NotFound``."""
        return received.alert(self._ask("GET", f"/v1/alerts/{place(alert_id)}"))

    def acknowledge(self, alert_id: str, *, actor: Actor | None = None) -> Alert:
        """Say that it has been seen. Raises ``NotFound`` or ``Conflict``."""
        return received.alert(self._ask("POST", f"/v1/alerts/{place(alert_id)}/acknowledge"))

    def resolve(self, alert_id: str, *, actor: Actor | None = None) -> Alert:
        """Say that it is dealt with. Raises ``NotFound``."""
        return received.alert(self._ask("POST", f"/v1/alerts/{place(alert_id)}/resolve"))


class Webhooks(Noun):
    """Endpoints that are told what happens."""

    def create(
        self, *, url: str, events: Sequence[str] = (), actor: Actor | None = None, **given: Any
    ) -> IssuedEndpoint:
        """Make an endpoint and its signing secret, which is shown in the answer and never again.

        Takes what the library's own verb takes. Raises ``NotFound``, ``Invalid`` or ``Conflict``.
        """
        said = {name: value for name, value in given.items() if value is not None}
        return received.issued_webhook(
            self._ask("POST", "/v1/webhooks", said | {"url": url, "events": list(events)})
        )

    def list(self, **narrow: Any) -> Page:  # the verb of every surface
        """Some of those in reach, oldest first. Raises ``Invalid`` or ``NotFound``."""
        return _page(self._ask("GET", "/v1/webhooks", **narrow), received.webhook)

    def get(self, endpoint_id: str) -> Endpoint:
        """Read one. Raises ``NotFound``."""
        return received.webhook(self._ask("GET", self._at(endpoint_id)))

    def edit(self, endpoint_id: str, *, actor: Actor | None = None, **changed: Any) -> Endpoint:
        """Change what is mentioned. Raises ``NotFound`` or ``Invalid``."""
        if "events" in changed:
            changed["events"] = list(changed["events"])
        return received.webhook(self._ask("PATCH", self._at(endpoint_id), changed))

    def rotate(self, endpoint_id: str, *, overlap_seconds: int, actor: Actor | None = None) -> IssuedEndpoint:
        """Give an endpoint a new signing secret. Raises ``NotFound``, ``Invalid`` or ``Conflict``."""
        body = {"overlap_seconds": overlap_seconds}
        return received.issued_webhook(self._ask("POST", f"{self._at(endpoint_id)}/rotate", body))

    def verify(self, endpoint_id: str, challenge: str, *, actor: Actor | None = None) -> Endpoint:
        """Say the challenge that an endpoint was sent. Raises ``NotFound``, ``Invalid`` or ``Conflict``."""
        return received.webhook(
            self._ask("POST", f"{self._at(endpoint_id)}/verify", {"challenge": challenge})
        )

    def disable(self, endpoint_id: str, *, actor: Actor | None = None) -> Endpoint:
        """Tell an endpoint nothing until it is enabled. Raises ``NotFound``."""
        return received.webhook(self._ask("POST", f"{self._at(endpoint_id)}/disable"))

    def enable(self, endpoint_id: str, *, actor: Actor | None = None) -> Endpoint:
        """Tell a disabled endpoint again. Raises ``NotFound``."""
        return received.webhook(self._ask("POST", f"{self._at(endpoint_id)}/enable"))

    def delete(self, endpoint_id: str, *, actor: Actor | None = None) -> Endpoint:
        """Remove an endpoint for good. Raises ``NotFound``."""
        return received.webhook(self._ask("DELETE", self._at(endpoint_id)))

    def test(self, endpoint_id: str, *, actor: Actor | None = None) -> str:
        """Send an endpoint a test, or its challenge once more; the message's id. Raises ``NotFound`` or ``Conflict``."""
        message_id: str = self._ask("POST", f"{self._at(endpoint_id)}/test")["message_id"]
        return message_id

    def deliveries(self, endpoint_id: str, **narrow: Any) -> Page:
        """What was sent to an endpoint and what came of it, newest first. Raises ``NotFound`` or ``Invalid``."""
        return _page(
            self._ask("GET", f"{self._at(endpoint_id)}/deliveries", **narrow), partial(_delivery, endpoint_id)
        )

    def redeliver(self, endpoint_id: str, *, since: int, actor: Actor | None = None) -> int:
        """Try anew what was given up since an instant; how many messages. Raises ``NotFound`` or ``Conflict``."""
        body = {"since": rfc3339(since)}
        many: int = self._ask("POST", f"{self._at(endpoint_id)}/redeliver", body)["messages"]
        return many

    def _at(self, endpoint_id: str) -> str:
        return f"/v1/webhooks/{place(endpoint_id)}"


def _delivery(endpoint_id: str, said: dict[str, Any]) -> Delivery:
    return Delivery(
        seq=0,
        message_id=said["message_id"],
        endpoint_id=endpoint_id,
        type=said["type"],
        body=said["body"] or "",
        at=parse_instant(said["at"]),
        state=said["state"],
        attempts=said["attempts"],
        next_at=received.instant(said["next_attempt_at"]),
        last_at=received.instant(said["last_attempt_at"]),
        status=said["status"],
        error=said["error"] or "",
    )


def _page(said: dict[str, Any], read: Any) -> Page:
    return Page(tuple(read(item) for item in said["items"]), said["next_cursor"])


def _timed(said: dict[str, Any]) -> dict[str, Any]:
    """A body, with its expiry as HTTP writes it; left out where it is not given."""
    if said.get("expires_at") is UNSET:
        said = {field: value for field, value in said.items() if field != "expires_at"}
    if isinstance(said.get("expires_at"), int):
        said = said | {"expires_at": rfc3339(said["expires_at"])}
    return said


def _applied(said: dict[str, Any], source: str) -> Applied:
    times = (parse_instant(said["created_at"]), parse_instant(said["updated_at"]))
    return Applied(received.keyspace(said), source, *times)


def _named(said: dict[str, Any] | None) -> Named | None:
    return None if said is None or "keyspace" not in said else Named(**said, binding=None)


def _refused(said: dict[str, Any]) -> Refused:
    same = ("request_id", "code", "reason", "keyspace", "scheme", "ip", "method", "resource")
    refusal = Refusal(
        **{name: said[name] for name in same},
        at=parse_instant(said["at"]),
        environment=said["environment"] or "",
        account_id="",
        key_id=(said["key"] or {}).get("id") or "",
        dropped=said["dropped_before"],
    )
    return Refused(refusal, _named(said["key"]))


__all__ = ["CallerError", "Client", "Received"]
