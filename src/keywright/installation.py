"""An installation, opened: its settings, its secret, its store, its engine and its desk; and the library's front door.

``open_installation`` is what command, server and library stand on. ``Keywright`` is what a host's program holds.
"""

import atexit
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakSet

from keywright import __version__, lasting
from keywright import keyring as keyrings
from keywright import limits as arithmetic
from keywright.answers import Answer
from keywright.blocks import Blocks
from keywright.cache import Cache
from keywright.clock import process_clock
from keywright.credential import Spelled
from keywright.desk.accounts import Accounts
from keywright.desk.alerts import Alerts
from keywright.desk.calendar import Calendar
from keywright.desk.factors import Factors
from keywright.desk.identities import Identities
from keywright.desk.keys import Keys
from keywright.desk.keyspaces import Keyspaces
from keywright.desk.leaks import Leaks
from keywright.desk.mails import Mails
from keywright.desk.management_keys import ManagementKeys
from keywright.desk.people import People
from keywright.desk.portal import Portal
from keywright.desk.quotas import Quotas
from keywright.desk.refusals import Refusals
from keywright.desk.sessions import Sessions
from keywright.desk.trail import Trail
from keywright.desk.unused import Unused
from keywright.desk.usage import Usage
from keywright.desk.webhooks import Webhooks
from keywright.engine import Engine, Given
from keywright.errors import CannotStart, Invalid, SchemaTrouble, SecretTrouble, Unavailable
from keywright.feed import Feed
from keywright.freshness import Freshness, FreshnessByLease, Policy
from keywright.keyring import Keyring
from keywright.meter import Meter
from keywright.model import Ask, Network, Verdict
from keywright.schemes import from_mapping
from keywright.slots import Slots
from keywright.store import backup, canaries, keys, migrate, moving, webhooks
from keywright.store.db import Database, WriterLock
from keywright.store.lookup import Lookup
from keywright.store.schema import HEADS
from keywright.store.sqlite_lookup import SqliteLookup
from keywright.throttle import USUAL, Allowance, Throttle
from keywright.times import SECOND, rfc3339
from keywright.upkeep import Upkeep

if TYPE_CHECKING:
    from keywright.client import Client
    from keywright.courier import Courier
    from keywright.lookout import Lookout
    from keywright.mail import Mailing
    from keywright.postman import Postman

Clock = Callable[[], int]
HeadersLike = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

_OPEN: Final[WeakSet["Installation"]] = WeakSet()


class RequestIds:
    """Draws request ids: a part of this process's own, which is random, and a number. Nothing rests on their secrecy."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Take a part of one's own."""
        self._prefix, self._numbers = f"req_{token_hex(6)}", count(1)

    def __call__(self) -> str:
        """The next id."""
        return f"{self._prefix}{next(self._numbers):08x}"


new_request_id = RequestIds()


class Installation:
    """Everything that belongs to one database. Close it when done: what was counted last is written then."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        clock: Clock,
        *,
        cache_size: int,
        on_store_loss: Policy,
        max_stale: int,
        slots: Path | None = None,
        usage_minutes_kept: int = 7,
        usage_hours_kept: int = 90,
        webhook_networks: Iterable[Network] = (),
        allowance: Allowance = USUAL,
        mailing: "Mailing | None" = None,
        base_url: str = "",
        portal_hosts: Sequence[str] = (),
    ) -> None:
        self.database = database
        self.keyring = keyring
        self.clock = clock
        self.cache = Cache(cache_size)
        self.lookup: Lookup
        self.freshness: Freshness | FreshnessByLease
        if database.is_sqlite:
            self.lookup = near = SqliteLookup(database)
            self.freshness = Freshness(
                database, near, self.cache, on_store_loss=on_store_loss, max_stale=max_stale
            )
        else:
            from keywright.store.postgres_lookup import PostgresLookup  # noqa: PLC0415  # an extra

            self.lookup = far = PostgresLookup(database)
            stale = max_stale * SECOND if on_store_loss == "serve" else 0
            feed = Feed(database.conninfo, self.cache, stale, clock)
            self.freshness = FreshnessByLease(far, self.cache, feed, on_store_loss=on_store_loss)
        self.slots = Slots(slots or database.slots_directory(), clock)
        self.upkeep = Upkeep(
            database, self.slots, clock, minutes_kept=usage_minutes_kept, hours_kept=usage_hours_kept
        )
        self.meter = Meter(database, self.slots, self.upkeep.tick)
        self.blocks = Blocks(database, self.slots)
        self.throttle = Throttle(allowance)
        self.engine = Engine(
            *(database, keyring, self.lookup, self.cache, self.freshness, self.meter, self.blocks),
            self.throttle,
        )
        self.keys = Keys(database, keyring, clock)
        self.management_keys = ManagementKeys(database, keyring, clock, self.keys)
        self.accounts = Accounts(database, keyring, clock)
        self.keyspaces = Keyspaces(database, keyring, clock)
        self.factors = Factors(database, keyring, clock)
        self.sessions = Sessions(database, keyring, clock, self.factors)
        self.identities = Identities(database, keyring, clock, self.sessions, self.factors)
        self.people = People(database, keyring, clock, self.sessions)
        self.portal = Portal(database, keyring, clock, self.sessions, base_url=base_url, hosts=portal_hosts)
        self.trail = Trail(database, keyring, clock)
        self.usage = Usage(database, keyring, clock, self.meter, self.upkeep)
        self.refusals = Refusals(database, keyring, clock, self.meter)
        self.webhooks = Webhooks(database, keyring, clock, webhook_networks)
        self.mails = Mails(database, keyring, clock, mailing)
        self.alerts = Alerts(database, keyring, clock, self.mails)
        self.quotas = Quotas(database, keyring, clock)
        self.leaks = Leaks(database, keyring, clock, self._proven, self.keys, self.alerts)
        self.unused = Unused(database, keyring, clock, self.keys, self.meter, self.slots)
        self._courier: Courier | None = None
        self._lookout: Lookout | None = None
        self._postman: Postman | None = None
        #: what is closed along with it, of whoever serves it
        self.besides = ExitStack()
        _OPEN.add(self)

    @property
    def courier(self) -> "Courier":
        """Who delivers webhooks; made when it is first asked for, since only a server does."""
        if self._courier is None:
            from keywright.courier import Courier  # noqa: PLC0415  # TLS, which a verifier never needs

            calendar = Calendar(self.database, self.keyring, self.clock)
            self._courier = Courier(self.database, self.webhooks, calendar, self.quotas, self.clock)
        return self._courier

    @property
    def lookout(self) -> "Lookout":
        """Who looks out for misuse; made when it is first asked for, since only a server does."""
        if self._lookout is None:
            from keywright.lookout import Lookout  # noqa: PLC0415  # which a verifier never needs

            self._lookout = Lookout(self.database, self.alerts, self.leaks, self.unused, self.clock)
        return self._lookout

    @property
    def postman(self) -> "Postman":
        """Who sends e-mail; made when it is first asked for, since only a server does."""
        if self._postman is None:
            from keywright.postman import Postman  # noqa: PLC0415  # TLS, which a verifier never needs

            self._postman = Postman(self.database, self.mails.mailing, self.clock)
        return self._postman

    def _proven(self, many: Iterable[Spelled | None]) -> Iterable[tuple[str, int] | None]:
        return self.engine.proven(many, self.clock())

    def close(self) -> None:
        """Finish what was begun, write what was counted, close every file."""
        _OPEN.discard(self)
        self.besides.close()
        if self._courier is not None:
            self._courier.close()
        if self._lookout is not None:
            self._lookout.close()
        if self._postman is not None:
            self._postman.close()
        self.freshness.close()
        self.engine.close()
        given_back, flushed = self.blocks.close(), self.meter.close()
        self.slots.close(empty=given_back and flushed)
        if flushed:
            self.meter.take_leave()
        self.lookup.close()
        self.database.close()

    def backup(self, target: Path, progress: backup.Progress = lambda _file, _part: None) -> dict[str, Any]:
        """Copy all of it but the secret into a new file, while it is used; its manifest.

        Raises ``Conflict`` where the file exists, ``CannotStart`` or ``Unavailable`` where it cannot be made.
        """
        self.meter.settle()
        head = self.trail.head()
        about = {
            "keywright": __version__,
            "made_at": rfc3339(self.clock()),
            "audit_head": f"{head.seq}:{head.mac}",
        }
        return backup.write(self.database, target, about, progress)

    def before_fork(self) -> None:
        """Come to rest: no writer at work, no lock held, and no idle connection for a child to inherit."""
        self.database.before_fork()
        self.lookup.before_fork()
        self.cache.before_fork()

    def after_fork(self, *, child: bool) -> None:
        """Go on. In a child: forget the threads that did not come along, and count anew."""
        self.cache.after_fork()
        self.database.after_fork()
        if child:
            self.freshness.after_fork()
            self.throttle.after_fork()
            self.engine.after_fork()
            self.slots.after_fork()
            self.blocks.after_fork()
            self.meter.after_fork()
            if self._courier is not None:
                self._courier.after_fork()
            if self._lookout is not None:
                self._lookout.after_fork()
            if self._postman is not None:
                self._postman.after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_resting: list[Installation] = []


def _before_fork() -> None:
    for installation in list(_OPEN):
        installation.before_fork()
        _resting.append(installation)


def _after_fork(*, child: bool) -> None:
    if child:
        new_request_id.after_fork()
    while _resting:
        _resting.pop().after_fork(child=child)


@atexit.register
def _leave() -> None:
    """A program that ends without closing what it opened leaves no worker behind that changes would wait for."""
    for installation in list(_OPEN):
        installation.freshness.close()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=partial(_after_fork, child=False),
    after_in_child=partial(_after_fork, child=True),
)


def open_installation(
    url: str,
    *,
    secret: str | None = None,
    clock: Clock = process_clock,
    may_migrate: bool = False,
    cache_size: int = 100_000,
    on_store_loss: Policy = "serve",
    max_stale: int = 60,
    slots: Path | None = None,
    usage_minutes_kept: int = 7,
    usage_hours_kept: int = 90,
    webhook_networks: Iterable[Network] = (),
    allowance: Allowance = USUAL,
    mailing: "Mailing | None" = None,
    base_url: str = "",
    portal_hosts: Sequence[str] = (),
) -> Installation:
    """Open a database, bringing a SQLite one up to date, or making it where there is none.

    A PostgreSQL one is brought up to date only with ``may_migrate``, which the program that serves says: many that only
    use it must not each change it.

    ``secret`` is the installation's secret as text; without it, it is read from the file beside a SQLite database, where
    it is made together with a new one. ``slots`` is the directory of the workers' slot files: beside a SQLite database,
    unless it is named, and for PostgreSQL among the temporary files. Counts are kept by the minute and by the hour for so
    many days. ``allowance`` is how often a source may fail to prove a key before its failures are made cheap, ``mailing`` by
    which server alerts are told of by e-mail; ``base_url`` is where the server is reached that links of the portal lead to,
    ``portal_hosts`` the hosts that they may lead back to, or none for any. Raises ``CannotStart`` with one line that says what to do.
    """
    database = Database(url)
    try:
        keyring = _keyring(database, secret)
        _bring_up_to_date(database, may_migrate=may_migrate)
        _prove(database, keyring, clock())
        opened = Installation(
            database,
            keyring,
            clock,
            cache_size=cache_size,
            on_store_loss=on_store_loss,
            max_stale=max_stale,
            slots=slots,
            usage_minutes_kept=usage_minutes_kept,
            usage_hours_kept=usage_hours_kept,
            webhook_networks=webhook_networks,
            allowance=allowance,
            mailing=mailing,
            base_url=base_url,
            portal_hosts=portal_hosts,
        )
        opened.keyspaces.prepare()
        opened.freshness.begin()
    except Unavailable as trouble:
        database.close()
        raise CannotStart(f"{_shown(url)} cannot be opened: {trouble}") from trouble
    except CannotStart:
        database.close()
        raise
    return opened


def restore(
    url: str, file: Path, *, secret: str | None = None, clock: Clock = process_clock
) -> dict[str, Any]:
    """Make an installation from a backup, where there is none, under the secret that it was made with; its manifest.

    On PostgreSQL the database must be empty, and all of the backup is moved into it or nothing.
    Raises ``Conflict`` where there is a database, ``CannotStart`` for a damaged file, ``SecretTrouble`` for a wrong secret.
    """
    database = Database(url)
    try:
        if not database.is_sqlite:
            moving.check_empty(database)
        with backup.opened(file, database) as (taken, manifest):
            if secret is None and database.is_sqlite and not database.secret_file.exists():
                raise SecretTrouble(
                    f"the backup does not hold the installation's secret: put it into {database.secret_file}, or set "
                    "KEYWRIGHT_SECRET, then restore"
                )
            migrate.check(taken)
            keyring = _keyring(database, secret)
            _prove(taken, keyring, clock())
            if database.is_sqlite:
                backup.place(taken, database)
            else:
                migrate.migrate(taken)
                moving.move(taken, database, keyring)
            return manifest
    finally:
        database.close()


def _shown(url: str) -> str:
    return url if url.startswith("sqlite") else "the database"


def _keyring(database: Database, secret: str | None) -> Keyring:
    if secret is not None:
        return keyrings.parse(secret)
    if not database.is_sqlite:
        raise SecretTrouble(
            "PostgreSQL needs the installation's secret in KEYWRIGHT_SECRET or KEYWRIGHT_SECRET_FILE"
        )
    path = database.secret_file
    try:
        return keyrings.parse(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as trouble:
        raise SecretTrouble(f"the installation's secret in {path} cannot be read: {trouble}") from None
    migrate.check(database)  # before anything is made beside a file that is somebody else's
    return _make_secret(database, path)


def _make_secret(database: Database, path: Path) -> Keyring:
    if not path.parent.is_dir():
        raise CannotStart(f"the directory {path.parent} does not exist")
    lock = WriterLock(database.lock_file)
    try:
        with lock.held():
            # Somebody who opens the same new database may have been faster, and it may even be in use already.
            if not path.exists():
                if database.exists() and migrate.versions(database)["keys"] is not None:
                    raise SecretTrouble(
                        f"{database.path} exists, but its secret {path} is missing; without it no key can be "
                        "verified. Put the file back, or set KEYWRIGHT_SECRET."
                    )
                lasting.write(path, keyrings.draw() + "\n")
    except (OSError, Unavailable) as trouble:
        raise CannotStart(f"the directory {path.parent} cannot be written to: {trouble}") from None
    finally:
        lock.close()
    return keyrings.parse(path.read_text(encoding="ascii"))


def _bring_up_to_date(database: Database, *, may_migrate: bool) -> None:
    if database.is_sqlite or may_migrate:
        migrate.migrate(database)
        return
    migrate.check(database)
    behind = [which for which, version in migrate.versions(database).items() if version != HEADS[which]]
    if behind:
        raise SchemaTrouble(
            "the database's schema is older than this version, or is not there yet: `keywright migrate` or "
            "`keywright serve` brings it up to date"
        )


def _prove(database: Database, keyring: Keyring, now: int) -> None:
    with database.read() as connection:
        writes = canaries.missing(connection, keyring)
        # Counting reads every secret, so it is done only where an entry that there once was is missing.
        whole = canaries.known(connection) <= set(keyring.peppers)
        hanging = {} if whole else keys.peppers(connection)
        signing = {} if whole else webhooks.roots(connection)
    if writes:
        with database.write() as tx:
            canaries.check(tx, keyring, now)
    else:
        with database.read() as connection:
            canaries.check(connection, keyring, now)
    lost = {n: many for n, many in hanging.items() if n not in keyring.peppers}
    if lost:
        n, many = next(iter(lost.items()))
        raise SecretTrouble(
            f"{many} secrets of keys hang on entry {n} of the installation's secret; keep it configured"
        )
    for n in signing.keys() - keyring.peppers.keys():
        raise SecretTrouble(
            f"{signing[n]} signing secrets of webhooks hang on entry {n} of the installation's secret; keep it "
            "configured until `keywright webhooks rotate` has replaced them"
        )


class Keywright:
    """The library: the keys of one keyspace and environment, or of several named at each call.

        kw = Keywright("sqlite:///keys.db", keyspace="acme", environment="production")
        verdict = kw.verify(request.headers, scopes=["contacts:read"], method="GET")

    Safe to use from any thread, and opened before a fork it works in every child.
    """

    def __init__(
        self,
        database: str = "sqlite:///keywright.db",
        *,
        keyspace: str | None = None,
        environment: str | None = None,
        secret: str | None = None,
        clock: Clock = process_clock,
        on_store_loss: Policy = "serve",
        max_stale: int = 60,
        slots: str | Path | None = None,
        public_url: str = "",
    ) -> None:
        """Open the database. ``public_url`` is where its server is reached, which links of the portal lead to.

        Raises ``CannotStart``.
        """
        opened = open_installation(
            database,
            secret=secret,
            clock=clock,
            on_store_loss=on_store_loss,
            max_stale=max_stale,
            slots=None if slots is None else Path(slots),
            base_url=public_url,
        )
        self.installation = opened
        self.keyspace = keyspace
        self.environment = environment
        #: The verbs on keys; a creation that names no keyspace or environment takes this object's.
        self.keys = Keys(opened.database, opened.keyring, clock, keyspace=keyspace, environment=environment)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: it is open files and threads, and Litestar copies deeply what the middleware of a router is given."""
        return self

    @staticmethod
    def connect(
        url: str,
        *,
        key: str,
        keyspace: str | None = None,
        environment: str | None = None,
        timeout: float = 10.0,
        remember: float = 0.0,
    ) -> "Client":
        """The same verbs on a server, by its ``https://`` address and a management key's token. Raises ``Invalid``."""
        from keywright.client import Client  # noqa: PLC0415  # for who has no database of their own

        return Client(
            url, key=key, keyspace=keyspace, environment=environment, timeout=timeout, remember=remember
        )

    @property
    def accounts(self) -> Accounts:
        """The verbs on accounts."""
        return self.installation.accounts

    @property
    def portal(self) -> Portal:
        """The verbs on visits of the portal."""
        return self.installation.portal

    @property
    def keyspaces(self) -> Keyspaces:
        """The verbs on keyspaces."""
        return self.installation.keyspaces

    def verify(
        self,
        headers: HeadersLike,
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
        """Say whether a request may proceed. A refusal is a value; ``answer`` turns it into a response.

        Raises ``NotFound`` or ``Invalid`` where the call itself names no keyspace or environment that exists.
        """
        ask = self._ask(scopes, method, ip, resource, cost, authenticate_only, keyspace, environment)
        return self.installation.engine.verify(
            ask,
            _given(headers),
            self.installation.clock(),
            url=url,
            request_id=request_id or new_request_id(),
        )

    async def averify(
        self,
        headers: HeadersLike,
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
        """``verify``, for an event loop."""
        ask = self._ask(scopes, method, ip, resource, cost, authenticate_only, keyspace, environment)
        return await self.installation.engine.averify(
            ask,
            _given(headers),
            self.installation.clock(),
            url=url,
            request_id=request_id or new_request_id(),
        )

    def answer(self, verdict: Verdict) -> Answer:
        """What to answer a refused request with: status, headers and body, verbatim."""
        return self.installation.engine.answer(verdict)

    def close(self) -> None:
        """Write what was counted and close the database."""
        self.installation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(
        self,
        scopes: Iterable[str],
        method: str | None,
        ip: str | None,
        resource: str | None,
        cost: int,
        authenticate_only: bool,
        keyspace: str | None,
        environment: str | None,
    ) -> Ask:
        name = keyspace or self.keyspace
        if name is None:
            raise Invalid("name one here or when Keywright is opened", path="keyspace")
        return Ask(
            name,
            environment or self.environment,
            (scopes,) if isinstance(scopes, str) else tuple(scopes),
            None if method is None else method.upper(),
            resource,
            ip,
            arithmetic.check_cost(cost),
            authenticate_only,
        )


def _given(headers: HeadersLike) -> Given:
    return from_mapping(headers)


__all__ = ["Installation", "Keywright", "new_request_id", "open_installation", "restore"]
