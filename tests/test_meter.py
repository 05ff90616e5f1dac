"""Promise 4: what is counted adds up, once, and stays when the key is gone."""

import threading
from collections import Counter
from typing import Any

import pytest

from conftest import again, bearer, make, sql
from keywright import Keywright, Unavailable
from keywright.meter import MOST_RESOURCES, Meter
from keywright.model import Ask, Issued
from keywright.schemes import from_mapping
from keywright.store import usage
from keywright.testing import Clock

pytestmark = pytest.mark.stores

EVERY = {"keyspace": "every", "environment": "production"}


def counted(kw: Keywright, *columns: str) -> dict[Any, int]:
    """The stored counts, summed by some columns."""
    names = ", ".join(columns)
    with kw.installation.database.read("usage") as connection:
        rows = connection.exec_driver_sql(
            f"SELECT {names}, sum(count) FROM usage_minutes GROUP BY {names}"
        ).all()
    return {row[0] if len(columns) == 1 else tuple(row[:-1]): row[-1] for row in rows}


def reopened(kw: Keywright, clock: Clock) -> Keywright:
    """Close, which writes what was counted, and open again to read it."""
    kw.close()
    return again(kw, clock=clock)


@pytest.mark.requirement("B-13", "B-14")
def test_resources_of_keys_that_came_once_are_not_kept_for_ever(
    kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tells a key's fifty resources apart is begun anew where too many keys were used: memory does not grow with them."""
    monkeypatch.setattr("keywright.meter._MOST_KNOWN", 3)
    for key in [make(kw) for _ in range(7)]:
        assert kw.verify(bearer(key), **EVERY, resource="/things").code == "ok"
    assert len(kw.installation.meter._resources) <= 3


@pytest.mark.security("R-32")
def test_counts_add_up_by_key_minute_code_and_resource(kw: Keywright, clock: Clock) -> None:
    """After ``close`` the store holds each verdict once: by key, minute, code and resource, in several threads."""
    one, two = make(kw, limits=["90/day"]), make(kw, access="read_only")
    told: Counter[tuple[str, int, str, str]] = Counter()
    lock = threading.Lock()

    def calls(seed: int) -> None:
        for n in range(40):
            key, resource = (one, two)[(n + seed) % 2], ("/things", "/things/{id}")[n % 2]
            verdict = kw.verify(
                bearer(key), **EVERY, method="POST", resource=resource, scopes=["things:write"]
            )
            with lock:
                told[key.key.id, minute, verdict.code, resource] += 1

    for _ in range(3):
        minute = clock() - clock() % 60_000_000
        threads = [threading.Thread(target=calls, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.advance(minutes=1)

    with reopened(kw, clock) as again:
        assert counted(again, "key_id", "minute", "code", "resource") == dict(told)
        assert {code for _, _, code, _ in told} == {"ok", "quota_exhausted", "insufficient_scope"}
        with again.installation.database.read("usage") as connection:
            assert usage.totals(connection, one.key.id) == {"ok": 90, "quota_exhausted": 150}


def test_refusals_of_nobody_are_counted_for_nobody(kw: Keywright, clock: Clock) -> None:
    """What proves no key is counted by keyspace and code with an empty key id; a deleted key's use too."""
    key, gone = make(kw), make(kw)
    kw.keys.delete(gone.key.id)
    kw.verify({}, **EVERY)
    kw.verify({"Authorization": "Bearer nonsense"}, **EVERY)
    kw.verify(bearer(gone), **EVERY)
    kw.verify(bearer(key), keyspace="partna", environment="production")
    kw.verify({"x-api-key": key.credential.token.reveal(), "x-api-user": "initech"}, **EVERY)

    with reopened(kw, clock) as again:
        assert counted(again, "key_id", "keyspace", "code") == {
            ("", "every", "missing"): 1,
            ("", "every", "invalid"): 3,
            ("", "partna", "missing"): 1,
        }


@pytest.mark.requirement("P-33")
def test_the_last_use_is_the_newest_that_succeeded(kw: Keywright, clock: Clock) -> None:
    """Last used moves with successes only, never backwards, is there for both secrets and in the list."""
    key, unused = make(kw), make(kw)
    kw.verify(bearer(key), **EVERY, ip="192.0.2.1")
    used = clock()
    kw.installation.meter.flush()
    clock.advance(hours=1)
    kw.verify(bearer(key), keyspace="every", environment="staging")
    kw.keys.disable(unused.key.id)
    kw.verify(bearer(unused), **EVERY)
    clock.advance(hours=-5)
    kw.verify(bearer(key), **EVERY, ip="192.0.2.9")
    kw.installation.meter.flush()
    clock.advance(hours=5)

    listed = {found.id: found.last_used_at for found in kw.keys.list(account="globex").items}
    assert listed == {key.key.id: used, unused.key.id: None}
    assert kw.keys.get(key.key.id).last_used_at == used


@pytest.mark.parametrize("verb", ["edit", "rotate", "disable", "enable", "invalidate", "delete"])
def test_a_change_tells_the_last_use_as_a_reading_does(kw: Keywright, key: Issued, verb: str) -> None:
    """What answers a change has the key's last use, and that of its secret."""
    kw.verify(bearer(key), **EVERY, ip="192.0.2.1")
    kw.installation.meter.flush()
    used = kw.keys.get(key.key.id)
    changed = getattr(kw.keys, verb)(key.key.id, **({"name": "Till"} if verb == "edit" else {})).key
    assert (changed.last_used_at, changed.last_used_ip) == (used.last_used_at, "192.0.2.1")
    assert changed.secrets[-1].last_used_at == used.last_used_at


def test_a_change_is_made_while_counts_cannot_be_read(
    kw: Keywright, key: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the counts a change is made, and its answer says nothing of a use."""

    def gone(*_: object) -> None:
        raise Unavailable("the disk is gone")

    kw.verify(bearer(key), **EVERY)
    kw.installation.meter.flush()
    with monkeypatch.context() as patch:
        patch.setattr(usage, "last", gone)
        assert kw.keys.disable(key.key.id).key.last_used_at is None
    assert kw.keys.get(key.key.id).state == "disabled"


@pytest.mark.security("S-08")
def test_an_ask_that_is_not_metered_leaves_no_trace(kw: Keywright, clock: Clock) -> None:
    """A whoami-like ask counts nothing, is no use, and spends nothing, whatever it is answered."""
    key = make(kw, limits=["5/day"])
    ask = Ask("every", "production", authenticate_only=True, metered=False)
    for headers in (bearer(key), {}, {"Authorization": "Bearer nonsense"}):
        kw.installation.engine.verify(ask, from_mapping(headers), clock())

    with reopened(kw, clock) as again:
        assert counted(again, "key_id") == {}
        assert again.keys.get(key.key.id).last_used_at is None
        assert again.verify(bearer(key), **EVERY).limits[0].remaining == 4


def test_resources_beyond_fifty_are_other(kw: Keywright, clock: Clock) -> None:
    """Fifty resources of a key are told apart, further ones are ``other``; known ones go on, another key has its own fifty."""
    key, second = make(kw), make(kw)
    for n in range(MOST_RESOURCES + 20):
        kw.verify(bearer(key), **EVERY, resource=f"/r{n}")
    kw.verify(bearer(key), **EVERY, resource="/r0")
    kw.verify(bearer(second), **EVERY, resource="/late")

    with reopened(kw, clock) as again:
        found = counted(again, "key_id", "resource")
    own = {resource: count for (key_id, resource), count in found.items() if key_id == key.key.id}
    assert len(own) == MOST_RESOURCES + 1
    assert (own["other"], own["/r0"], own["/r1"]) == (20, 2, 1)
    assert found[second.key.id, "/late"] == 1


@pytest.mark.security("R-32")
def test_a_batch_that_arrives_twice_counts_once(kw: Keywright) -> None:
    """A batch that is sent again after its answer was lost changes nothing; the next one counts."""
    database = kw.installation.database
    counts = [usage.Count("k1", "every", "production", "a1", 0, "ok", "", 5)]
    seen = [usage.Seen("k1", 1, 10, None)]

    def send(worker: str, batch: int) -> bool:
        with database.write("usage") as tx:
            return usage.add(tx, worker, batch, counts, seen, (), 0)

    sent = [send("w", 1), send("w", 1), send("w", 2), send("w", 1), send("v", 1)]

    assert sent == [True, False, True, False, True]
    assert counted(kw, "key_id") == {"k1": 15}


@pytest.mark.sqlite_only("a file is moved away")
def test_a_store_that_was_away_gets_every_count_once(kw: Keywright, clock: Clock) -> None:
    """Counts wait while the usage file cannot be written, and arrive once it can."""
    key = make(kw)
    database = kw.installation.database
    kw.installation.meter.flush()
    database.close()
    file = database.file("usage")
    file.rename(file.with_suffix(".away"))
    file.mkdir()
    for _ in range(3):
        kw.verify(bearer(key), **EVERY)
        assert not kw.installation.meter.flush()
    file.rmdir()
    file.with_suffix(".away").rename(file)
    kw.verify(bearer(key), **EVERY)

    with reopened(kw, clock) as again:
        assert counted(again, "code") == {"ok": 4}
        assert again.keys.get(key.key.id).last_used_at == clock()


def test_counting_amid_flushing_loses_nothing(kw: Keywright, clock: Clock) -> None:
    """Threads that count while another flushes without pause lose no count and no last use."""
    keys = [make(kw) for _ in range(4)]
    stop = threading.Event()

    def flush() -> None:
        while not stop.is_set():
            kw.installation.meter.flush()

    def use(n: int) -> None:
        for _ in range(200):
            kw.verify(bearer(keys[n]), **EVERY)

    flusher = threading.Thread(target=flush)
    flusher.start()
    users = [threading.Thread(target=use, args=(n,)) for n in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    stop.set()
    flusher.join()

    with reopened(kw, clock) as again:
        assert counted(again, "key_id", "code") == {(key.key.id, "ok"): 200 for key in keys}
        assert {found.last_used_at for found in again.keys.list(account="globex").items} == {clock()}


def test_a_worker_that_closes_leaves_no_mark(kw: Keywright, clock: Clock) -> None:
    """The mark of a worker's last batch goes with the worker: marks do not pile up with restarts."""
    key = make(kw)
    for _ in range(3):
        kw.verify(bearer(key), **EVERY)
        kw = reopened(kw, clock)
    with kw.installation.database.read("usage") as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM flushed").scalar_one() == 0
    assert counted(kw, "code") == {"ok": 3}
    kw.close()


@pytest.mark.requirement("X-14")
def test_a_deleted_keys_usage_stays_its_own(kw: Keywright, clock: Clock) -> None:
    """Deleting a key keeps what it was used for under its id, beside the tombstone that knows its name."""
    key = make(kw, name="CRM sync")
    for _ in range(3):
        kw.verify(bearer(key), **EVERY)
    kw.keys.delete(key.key.id)

    with reopened(kw, clock) as again:
        with again.installation.database.read("usage") as connection:
            assert usage.totals(connection, key.key.id) == {"ok": 3}
        told = [entry for entry in again.installation.trail.list().items if entry["target_id"] == key.key.id]
        assert told[0]["detail"] == {"name": "CRM sync"}
        with again.installation.database.read() as connection:
            row = sql(connection, "SELECT name, state FROM keys WHERE id = ?", key.key.id).one()
        assert tuple(row) == ("CRM sync", "deleted")


@pytest.mark.sqlite_only("a file is moved away")
def test_a_list_works_while_the_usage_file_is_away(kw: Keywright) -> None:
    """Where usage cannot be read, keys are listed and got without their last use: it is no reason to hide a key."""
    key = make(kw)
    database = kw.installation.database
    database.close()
    file = database.file("usage")
    file.rename(file.with_suffix(".away"))
    file.mkdir()

    assert [found.id for found in kw.keys.list(account="globex").items] == [key.key.id]
    assert kw.keys.get(key.key.id).last_used_at is None
    file.rmdir()
    file.with_suffix(".away").rename(file)


@pytest.mark.requirement("B-13", "B-23")
def test_old_counts_are_summed_up_and_add_up(kw: Keywright, clock: Clock) -> None:
    """Past seven days minutes become hours, past ninety days these; every report's total stays, and late counts join in."""
    one, two = make(kw, team="sales"), make(kw)
    report, tidy = kw.installation.usage.report, kw.installation.upkeep.tidy
    for hours in range(30):
        for key in (one, one, two):
            kw.verify(bearer(key), **EVERY, resource=f"/{hours % 3}")
            clock.advance(minutes=7)
        clock.advance(minutes=39)
    since = clock() - 40 * 3600 * 1_000_000

    def cuts() -> list[Any]:
        days = report(by="day", since=since, group="key").rows
        grouped = [report(by="total", group=group).rows for group in ("key", "team", "resource", "code")]
        return [[(row.at, row.value, row.codes) for row in rows] for rows in [days, *grouped]]

    before, tables = cuts(), ("usage_minutes", "usage_hours", "usage_days")
    for days, filled in ((5, {0}), (4, {1}), (84, {2})):
        clock.advance(days=days)
        for _ in range(3):
            tidy()
        assert cuts() == before
        with kw.installation.database.read("usage") as connection:
            found = [sql(connection, f"SELECT count(*) FROM {table}").scalar_one() for table in tables]
        assert {place for place, many in enumerate(found) if many} == filled
    late = [usage.Count(one.key.id, "every", "production", "a", clock() - 95 * 86_400_000_000, "ok", "/0", 5)]
    with kw.installation.database.write("usage") as tx:
        usage.add(tx, "late", 1, late, (), (), clock())
    tidy()
    assert report(by="total", group="key").total == 95
    assert report(by="total", key=one.key.id).total == 65
    assert kw.installation.usage.purge(older_than=86_400) > 0
    assert report(by="total").total == 0


def test_a_long_resource_and_a_long_address_are_cut(kw: Keywright, clock: Clock) -> None:
    """What a host passes is counted whatever its length, and known again."""
    key = make(kw)
    for _ in range(2):
        kw.verify(bearer(key), **EVERY, resource="/é\0" * 5000, ip="f" * 500)

    with reopened(kw, clock) as again:
        ((resource, count),) = counted(again, "resource").items()
    assert (len(resource) <= 200, count) == (True, 2)


@pytest.mark.parametrize("address", ["\udcff, 192.0.2.1", "192.0.2.1\0", "\ud800"])
def test_an_address_that_no_database_takes_stops_no_count(kw: Keywright, clock: Clock, address: str) -> None:
    """Whatever a host takes for a client's address, that request is counted, and so are those behind it."""
    key = make(kw)
    for ip in (address, "192.0.2.7", address):
        assert kw.verify(bearer(key), **EVERY, ip=ip)
        assert kw.installation.meter.flush()

    with reopened(kw, clock) as again:
        assert counted(again, "code") == {"ok": 3}
        assert (again.keys.get(key.key.id).last_used_ip or "?").startswith(("192.0.2.1", "?"))


def test_what_is_asked_of_a_store_that_is_away_is_counted_by_any_database(kw: Keywright) -> None:
    """A name that nobody could look up reaches the store when it is back, and stops no other count."""
    meter, now = kw.installation.meter, kw.installation.clock()
    meter.count(None, "no\0such", "\udcff", "unavailable", None, now)
    meter.count(None, "every", "production", "invalid", None, now)

    assert meter.flush()
    assert counted(kw, "code") == {"unavailable": 1, "invalid": 1}


def test_the_thread_outlives_whatever_becomes_of_a_batch(
    kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that fails in a way that nobody thought of is tried again: the thread that carries counts over goes on."""
    rounds: list[bool] = []

    def aside() -> None:
        rounds.append(meter.behind)
        if len(rounds) == 4:
            meter._stop.set()

    def fail(*_batch: object) -> None:
        if len(rounds) < 3:
            raise ValueError("nobody thought of this")

    monkeypatch.setattr("keywright.meter.FLUSH_EVERY", 0)
    monkeypatch.setattr("keywright.store.usage.add", fail)
    meter = Meter(kw.installation.database, kw.installation.slots, aside)
    meter._thread = threading.current_thread()
    meter.count(None, "every", "production", "invalid", None, kw.installation.clock())
    meter._run()

    assert rounds == [False, True, True, False]


def test_counts_beyond_the_slots_are_counted_all_the_same(
    kw: Keywright, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the slot file is full what is counted stays in memory, and arrives."""
    monkeypatch.setattr("keywright.slots.MOST", 4)
    monkeypatch.setattr(kw.installation.meter, "flush", lambda: True)
    for n in range(3000):
        kw.installation.meter.count(None, f"k{n}", "production", "ok", None, clock())
    monkeypatch.undo()

    with reopened(kw, clock) as again:
        assert sum(counted(again, "keyspace").values()) == 3000
