"""The courier: carries messages from the outbox to endpoints, and goes on for days where one does not take them.

Standard Webhooks 1.0, to the letter: the same id at every attempt, the attempt's own time in ``webhook-timestamp``, a
signature for each live secret. 2xx is success, everything else is not, a redirect is not followed, 410 disables.

A message arrives once or more, never less: it is written with what it tells of, and removed from the outbox only when it
stands among the deliveries, and from those only when its receiver has it. One process at a time delivers, under a lease.
To one endpoint messages are first sent in the order in which things happened; one that has to be sent again comes later.
"""

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from secrets import SystemRandom
from typing import Any, Final

from keywright import addresses, events
from keywright.desk.calendar import Calendar
from keywright.desk.quotas import Quotas
from keywright.desk.webhooks import COURIER, Webhooks
from keywright.errors import Conflict, Invalid, NotFound, Unavailable
from keywright.model import Endpoint
from keywright.post import Closed, Outcome, Post
from keywright.shift import Shift
from keywright.store import deliveries, webhooks
from keywright.store.db import Database
from keywright.store.deliveries import Delivery, Receiver
from keywright.times import DAY, SECOND

#: How long after each attempt the next one follows, in seconds: ten attempts within some three days.
SCHEDULE: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER: Final = 0.1  # of a wait, so that what failed together does not come back together
LONGEST_WAIT: Final = 2 * DAY  # seconds; whatever ``Retry-After`` says
#: An endpoint that has taken nothing for so long is disabled, in seconds.
FAILING: Final = 3 * DAY
#: An endpoint that fails is left alone for so long at most, in seconds; what is due meanwhile waits.
LONGEST_REST: Final = 300
#: Requests to one address of the internet in one second, whoever asks for them.
MOST_A_SECOND: Final = 10
KEPT: Final = 30 * DAY  # seconds that a delivery stays in the log

EVERY: Final = 0.5  # seconds between two rounds
_DICE: Final = SystemRandom()
LEASE: Final = 10  # seconds
AT_ONCE: Final = 8  # endpoints
IN_A_ROW: Final = 20  # messages to one endpoint before another's turn

log = logging.getLogger("keywright")


class Courier:
    """Delivers. ``round`` does all that is due once; ``start`` makes a thread of it that competes for the lease."""

    def __init__(
        self,
        database: Database,
        webhooks: Webhooks,
        calendar: Calendar,
        quotas: Quotas,
        clock: Callable[[], int],
        *,
        post: Post | None = None,
        draw: Callable[[], float] = _DICE.random,
    ) -> None:
        self._database = database
        self._webhooks = webhooks
        self._calendar = calendar
        self._quotas = quotas
        self._clock = clock
        self._given = post
        self._draw = draw
        self._pace = Pace(clock)
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._trimmed = 0

    def round(self) -> int:
        """Do what is due now, one endpoint after another; how many attempts were made. Raises ``Unavailable``."""
        self._prepare()
        with self._database.read("usage") as connection:
            busy = deliveries.busy(connection, self._clock())
        return sum(self._serve(endpoint_id, self._stop) for endpoint_id in busy)

    def start(self) -> None:
        """Deliver in a thread until ``close``."""
        self._stop = threading.Event()
        run = _Run(self, self._stop)
        self._thread = threading.Thread(target=run, name="keywright-courier", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what is on its way, and stop."""
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._thread = None

    def after_fork(self) -> None:
        """Forget the parent's thread."""
        self._thread, self._stop, self._pace = None, threading.Event(), Pace(self._clock)

    # ------------------------------------------------------------------------------------------------------- inside

    @property
    def _post(self) -> Post:
        if self._given is None:  # made late: reading the certificates of this machine takes a while
            self._given = Post(self._webhooks.allowed)
        return self._given

    def _prepare(self) -> None:
        self._calendar.read()
        self._quotas.read()
        self._carry()
        now = self._clock()
        if now - self._trimmed > 3600 * SECOND:
            self._trim(now)

    def _carry(self) -> None:
        """Move messages from the outbox to the deliveries. A crash in between moves them twice, which is once."""
        while True:
            with self._database.read() as connection:
                waiting = webhooks.waiting(connection, 500)
            if not waiting:
                return
            with self._database.write("usage", lasting=True) as tx:
                deliveries.carry(tx, waiting, self._clock())
            with self._database.write() as tx:
                webhooks.carried(tx, waiting[-1].seq)

    def _trim(self, now: int) -> None:
        self._trimmed = now
        with self._database.read() as connection:
            known = webhooks.ids(connection)
        with self._database.write("usage") as tx:
            deliveries.trim(tx, known, now - KEPT * SECOND)

    def _serve(self, endpoint_id: str, stop: threading.Event) -> int:
        """Send an endpoint what is due for it, until it fails; how many attempts were made."""
        with self._database.read("usage") as connection:
            due = deliveries.due(connection, endpoint_id, self._clock(), IN_A_ROW)
        for place, delivery in enumerate(due):
            with self._database.read() as connection:
                endpoint = webhooks.get(connection, endpoint_id)
            if endpoint is None or not _wants(endpoint, delivery):
                self._drop(endpoint_id, endpoint)
                return place
            outcome = None if stop.is_set() else self._attempt(endpoint, delivery)
            if outcome is None:  # not now: it stays due
                return place
            self._settle(endpoint, delivery, outcome)
            if not outcome.taken:
                return place + 1
        return len(due)

    def _drop(self, endpoint_id: str, endpoint: Endpoint | None) -> None:
        with self._database.write("usage") as tx:
            if endpoint is None:
                deliveries.remove(tx, endpoint_id)
            else:
                deliveries.give_up(tx, endpoint_id, f"the endpoint is {endpoint.state}")

    def _attempt(self, endpoint: Endpoint, delivery: Delivery) -> Outcome | None:
        """Make one attempt; ``None`` where the receiver's address has had enough for this second."""
        try:
            target = addresses.read(endpoint.url, self._webhooks.allowed)
            numbers = self._post.numbers(target)
        except Invalid as wrong:
            return Outcome(None, f"the address {wrong.reason}"[:200])
        except Closed as closed:
            return Outcome(None, str(closed))
        if not all(self._pace.admits(number) for number in numbers[:1]):
            return None
        now, body = self._clock(), delivery.body.encode()
        try:
            signing = self._webhooks.signing(endpoint, now)
        except Unavailable as lost:
            return Outcome(None, str(lost))
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "User-Agent": "Keywright-Webhooks",
            "webhook-id": delivery.message_id,
            "webhook-timestamp": str(now // SECOND),
            "webhook-signature": " ".join(
                events.signature(secret, delivery.message_id, now, body) for secret in signing
            ),
        }
        return self._post.send(target, numbers, headers, body)

    def _settle(self, endpoint: Endpoint, delivery: Delivery, outcome: Outcome) -> None:
        if outcome.taken:
            self._arrived(endpoint, delivery, outcome)
        else:
            self._failed(endpoint, delivery, outcome)

    def _arrived(self, endpoint: Endpoint, delivery: Delivery, outcome: Outcome) -> None:
        now = self._clock()
        with self._database.write("usage") as tx:
            deliveries.note(tx, delivery.seq, "delivered", next_at=None, **_came(delivery, now, outcome))
            if deliveries.receiver(tx, endpoint.id).failures:
                deliveries.set_receiver(tx, endpoint.id, Receiver())
        if delivery.type == "webhook.verify":
            self._hear(endpoint, outcome.body)

    def _hear(self, endpoint: Endpoint, body: bytes) -> None:
        if endpoint.challenge is None or not _answered(body, endpoint.challenge):
            return
        try:
            self._webhooks.verify(endpoint.id, endpoint.challenge, actor=COURIER)
        except (Conflict, Invalid, NotFound):
            return  # changed, or gone, meanwhile

    def _failed(self, endpoint: Endpoint, delivery: Delivery, outcome: Outcome) -> None:
        now, attempts = self._clock(), delivery.attempts + 1
        over = attempts > len(SCHEDULE) or outcome.status == 410 or delivery.type == "webhook.verify"
        wait = 0 if over else self._wait(attempts, outcome)
        with self._database.write("usage") as tx:
            before = deliveries.receiver(tx, endpoint.id)
            since = before.failing_since or now
            rest = min(2**before.failures if before.failures < 20 else LONGEST_REST, LONGEST_REST)
            if outcome.status in (429, 502, 503, 504):
                rest = max(rest, min(outcome.retry_after or 0, LONGEST_WAIT))
            state = "failed" if over else "waiting"
            next_at = None if over else now + wait
            deliveries.note(tx, delivery.seq, state, next_at=next_at, **_came(delivery, now, outcome))
            deliveries.set_receiver(
                tx, endpoint.id, Receiver(since, before.failures + 1, now + rest * SECOND)
            )
        if outcome.status == 410:
            self._disable(endpoint, "gone: it answered 410")
        elif now - since >= FAILING * SECOND:
            self._disable(endpoint, f"it has taken nothing for {FAILING // DAY} days")

    def _wait(self, attempts: int, outcome: Outcome) -> int:
        """How long until the next attempt, in microseconds."""
        planned = SCHEDULE[attempts - 1] * (1 + JITTER * self._draw())
        return int(max(planned, min(outcome.retry_after or 0, LONGEST_WAIT)) * SECOND)

    def _disable(self, endpoint: Endpoint, why: str) -> None:
        log.warning("the webhook %s is disabled: %s", endpoint.id, why)
        self._webhooks.fail(endpoint.id, why)
        with self._database.write("usage") as tx:
            deliveries.give_up(tx, endpoint.id, "the endpoint is disabled")
            deliveries.set_receiver(tx, endpoint.id, Receiver())


class _Run:
    """The thread: rounds under the lease, several endpoints at once."""

    def __init__(self, courier: Courier, stop: threading.Event) -> None:
        self._courier = courier
        self._stop = stop
        self._shift = Shift(courier._database, "courier", courier._clock, lease=LEASE)
        self._served: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with ThreadPoolExecutor(AT_ONCE, "keywright-courier") as pool:
            self._shift.work(lambda: self._turn(pool), self._stop, EVERY)
        self._shift.leave()

    def _turn(self, pool: ThreadPoolExecutor) -> None:
        courier = self._courier
        database = courier._database
        with database.read() as connection:
            if not webhooks.any_at_all(connection):
                return
        if not self._shift.holds():
            return
        courier._prepare()
        with database.read("usage") as connection:
            busy = deliveries.busy(connection, courier._clock())
        for endpoint_id in busy:
            with self._lock:
                if endpoint_id in self._served:
                    continue
                self._served.add(endpoint_id)
            pool.submit(self._serve, endpoint_id)

    def _serve(self, endpoint_id: str) -> None:
        try:
            self._courier._serve(endpoint_id, self._stop)
        except Unavailable:
            return
        except Exception:
            log.exception("a webhook could not be delivered")
        finally:
            with self._lock:
                self._served.discard(endpoint_id)


class Pace:
    """How many requests an address has had in this second: so many and no more, whoever asks for them."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._second = 0
        self._had: dict[str, int] = {}

    def admits(self, number: str) -> bool:
        """Count one more, if there is room; IPv6 addresses are counted by their network of 64 bits."""
        second = self._clock() // SECOND
        counted = _counted(number)
        with self._lock:
            if second != self._second:
                self._second, self._had = second, {}
            had = self._had.get(counted, 0)
            if had >= MOST_A_SECOND:
                return False
            self._had[counted] = had + 1
            return True


def _counted(number: str) -> str:
    read = ip_address(number.partition("%")[0])
    return number if read.version == 4 else str(ip_network((read, 64), strict=False))


def _wants(endpoint: Endpoint, delivery: Delivery) -> bool:
    return endpoint.state == "active" or (endpoint.state == "pending" and delivery.type == "webhook.verify")


def _answered(body: bytes, challenge: str) -> bool:
    """Whether an answer is the challenge, as plain text or as ``{"challenge": "…"}``: more than an echo would be."""
    text = body.decode("utf-8", "replace").strip()
    if text == challenge:
        return True
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("challenge") == challenge


def _came(delivery: Delivery, now: int, outcome: Outcome) -> dict[str, Any]:
    """What is written down of an attempt, whatever came of it."""
    return {
        "attempts": delivery.attempts + 1,
        "at": now,
        "status": outcome.status,
        "error": outcome.error,
    }
