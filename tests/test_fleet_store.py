"""What a worker on PostgreSQL does while its server is stopped, frozen, starts again, or is replaced by its replica."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import SOURCES, bearer, make
from keywright import Keywright, Unavailable
from keywright.clock import process_clock
from keywright.installation import open_installation
from postgres import SECRET, OwnServer, Proxy, own
from processes import Served
from test_fleet import EVERY, FULL, eventually, leased, tell

pytestmark = pytest.mark.impatient
OUTAGE = 30.0 if FULL else 1.5  # seconds


@pytest.fixture(scope="module")
def machine() -> Iterator[OwnServer]:
    """A server that is these tests' own, to do with as they like."""
    with own() as server:
        yield server


@pytest.fixture
def url(machine: OwnServer) -> str:
    """A database of that server, with the cast in it."""
    url = machine.make()
    open_installation(url, secret=SECRET, may_migrate=True).close()
    with Keywright(url, secret=SECRET) as kw:
        kw.keyspaces.apply(SOURCES[-1])
        kw.accounts.create("globex")
    return url


def stop(machine: OwnServer) -> Callable[[], None]:
    """Stop the server; what starts it again."""
    machine.stop()
    return machine.start


def freeze(machine: OwnServer) -> Callable[[], None]:
    """Freeze the server; what thaws it."""
    machine.freeze()
    return machine.thaw


@pytest.mark.security("R-14")
@pytest.mark.full("an outage of thirty seconds")
@pytest.mark.parametrize("how", [stop, freeze])
def test_known_keys_go_on_while_the_store_is_gone_and_all_recovers(
    machine: OwnServer, url: str, how: Callable[[OwnServer], Callable[[], None]]
) -> None:
    """Every request with a known key succeeds, marked stale; other keys and changes are ``unavailable``; then all is as before."""
    with Keywright(url, secret=SECRET, clock=process_clock) as kw:
        known, unknown = make(kw), make(kw)
        assert leased(kw).verify(bearer(known), **EVERY).code == "ok"
        mend = how(machine)
        spent, codes = [], set()
        try:
            eventually(lambda: kw.verify(bearer(known), **EVERY).stale)
            until = time.monotonic() + OUTAGE
            while time.monotonic() < until:
                began = time.monotonic()
                verdict = kw.verify(bearer(known), **EVERY)
                spent.append(time.monotonic() - began)
                codes.add((verdict.code, verdict.stale))
                if not len(spent) % 50:
                    codes.add((kw.verify(bearer(unknown), **EVERY).code, False))
                    codes.add((asyncio.run(both(kw, known))[0], True))
            if how is stop:
                with pytest.raises(Unavailable):
                    kw.keys.invalidate(known.key.id)
        finally:
            mend()
        began = time.monotonic()
        eventually(lambda: not kw.verify(bearer(known), **EVERY).stale)
        recovered = time.monotonic() - began

        assert codes == {("ok", True), ("unavailable", False)}
        assert kw.verify(bearer(unknown), **EVERY).code == "ok"
        assert kw.keys.invalidate(known.key.id).propagation.exact
        assert kw.verify(bearer(known), **EVERY).code == "invalidated"
        if FULL:
            tell(f"verifications, store lost by {how.__name__}, recovered in {recovered:.2f} s", spent)
            assert recovered <= 2


async def both(kw: Keywright, key: Any) -> list[str]:
    """A key's codes on an event loop, twice."""
    return [(await kw.averify(bearer(key), **EVERY)).code for _ in range(2)]


@pytest.mark.security("R-14")
def test_a_server_without_its_store_says_so_at_once(machine: OwnServer, url: str, tmp_path: Path) -> None:
    """With a frozen store, changes and unknown keys are 503 problems with Retry-After over HTTP; known keys are let in; never 401."""
    with Keywright(url, secret=SECRET) as kw:
        known, unknown = make(kw), make(kw)
        manager = bearer(kw.keys.create_management(name="ops", scopes=["keys:write", "keys:read"]))
        with (
            Served(url, tmp_path, KEYWRIGHT_SECRET=SECRET) as served,
            httpx.Client(base_url=served.url) as door,
        ):
            whoami = "/k/every.production/whoami"
            assert door.get(whoami, headers=bearer(known)).status_code == 200
            assert door.get("/v1/keys", headers=manager).status_code == 200
            machine.freeze()
            try:
                eventually(lambda: door.get("/readyz").json().get("status") == "stale")
                answers = [
                    door.get(whoami, headers=bearer(unknown)),
                    door.post(f"/v1/keys/{known.key.id}/invalidate", headers=manager),
                    door.get("/v1/keys", headers=manager),
                ]
                assert door.get(whoami, headers=bearer(known)).status_code == 200
            finally:
                machine.thaw()
            for answer in answers:
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert answer.headers["retry-after"]
                assert answer.headers["content-type"] == "application/problem+json"
            eventually(lambda: door.get("/readyz").json().get("status") == "ok")
            assert door.post(f"/v1/keys/{known.key.id}/invalidate", headers=manager).status_code == 200
            assert door.get(whoami, headers=bearer(known)).status_code == 401


def test_a_flood_of_unknown_keys_asks_the_store_a_bounded_number_of_times_at_once(
    url: str, machine: OwnServer
) -> None:
    """Hundreds that need the store at the same moment share at most 32 calls; whoever waits too long is ``unavailable``."""
    with Keywright(url, secret=SECRET) as kw:
        keys = [make(kw, name=f"key {n}") for n in range(40)]
        machine.freeze()
        codes: list[str] = []
        threads = [
            threading.Thread(target=lambda key=key: codes.append(kw.verify(bearer(key), **EVERY).code))
            for key in keys
        ]
        try:
            for thread in threads:
                thread.start()
            lookup: Any = kw.installation.lookup
            eventually(lambda: lookup._places._value == 0)
            for thread in threads:
                thread.join()
        finally:
            machine.thaw()

        assert codes == ["unavailable"] * len(keys)
        eventually(lambda: kw.verify(bearer(keys[0]), **EVERY).code == "ok")


# ------------------------------------------------------------------------------------------------------- a replica


@pytest.mark.security("R-34")
@pytest.mark.full("changes all along")
def test_nothing_acknowledged_is_lost_when_a_replica_takes_over(tmp_path: Path) -> None:
    """The server dies amid changes and its synchronous replica is promoted: every answered change is there, and holds."""
    with own() as primary:
        replica = primary.replicate()
        try:
            url = primary.make()
            open_installation(url, secret=SECRET, may_migrate=True).close()
            with Proxy(url) as proxy, Keywright(proxy.url, secret=SECRET, clock=process_clock) as kw:
                kw.keyspaces.apply(SOURCES[-1])
                kw.accounts.create("globex")
                keys = [make(kw, name=f"key {n}") for n in range(60 if FULL else 12)]
                for key in keys:
                    assert leased(kw).verify(bearer(key), **EVERY).code == "ok"
                ended = changes_until_it_fails(kw, [key.key.id for key in keys], primary)
                began = time.monotonic()
                replica.promote()
                proxy.lead_to(replica.url)
                eventually(lambda: not kw.verify(bearer(keys[-1]), **EVERY).stale)
                eventually(lambda: can_change(kw, keys[-1].key.id))
                if FULL:
                    tell("time without changes", [time.monotonic() - began])
                    assert time.monotonic() - began <= 15

                assert len(ended) >= 3
                for key in keys:
                    if key.key.id in ended:
                        assert kw.keys.get(key.key.id).state == "invalidated"
                        assert kw.verify(bearer(key), **EVERY).code == "invalidated"
                assert kw.installation.trail.verify() is None
        finally:
            replica.stop()


def changes_until_it_fails(kw: Keywright, keys: list[str], primary: OwnServer) -> set[str]:
    """Invalidate keys while the server is killed; those whose invalidation was answered."""
    ended: set[str] = set()
    for n, key in enumerate(keys):
        if n == len(keys) // 2:
            threading.Thread(target=primary.stop).start()
        try:
            kw.keys.invalidate(key)
        except Unavailable:
            break
        ended.add(key)
    return ended


def can_change(kw: Keywright, key: str) -> bool:
    """Whether changes are possible again."""
    try:
        kw.keys.edit(key, description="after all")
    except Unavailable:
        return False
    return True


# -------------------------------------------------------------------------------------------------------- a pooler

if shutil.which("pgbouncer"):

    @pytest.fixture
    def pooled(url: str, tmp_path: Path) -> Iterator[str]:
        """The database behind PgBouncer, which hands connections round between transactions."""
        from postgres import pooler

        with pooler(url, tmp_path) as found:
            yield found

    def test_behind_a_transaction_pooler_changes_are_asked_for_and_hold_at_once(
        pooled: str, url: str
    ) -> None:
        """A worker behind PgBouncer in transaction mode finds that out, asks instead of listening, and obeys every change."""
        with Keywright(url, secret=SECRET) as near, Keywright(pooled, secret=SECRET) as far:
            limited = make(near, limits=["50/day"])
            leased(far)
            for n in range(10):
                key = make(far, name=f"key {n}")
                for _ in range(3):
                    assert far.verify(bearer(key), **EVERY).code == "ok"
                    assert far.verify(bearer(limited), **EVERY).code == "ok"
                    assert asyncio.run(both(far, key)) == ["ok", "ok"]
                travelled = (far if n % 2 else near).keys.invalidate(key.key.id).propagation
                assert (travelled.exact, travelled.confirmed) == (True, travelled.workers)
                assert far.verify(bearer(key), **EVERY).code == "invalidated"
            line: Any = far.installation.freshness._feed._line  # type: ignore[union-attr]
            assert not line.pushed
            assert far.installation.trail.verify() is None
