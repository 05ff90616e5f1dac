"""``/metrics``: what it says, of which workers, and to whom."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import bearer, make
from keywright import Issued, Keywright, credential
from keywright.model import Binding
from keywright.server import watch
from keywright.server.board import LONGEST, Board
from keywright.server.metrics import METRICS, Said, merged, written_name
from keywright.testing import Clock
from processes import PATIENCE, Folder, Served
from processes import Door as Connection
from surfaces import Door, lost, manager, server

GATE = "/authz/forward/every.production"
FAMILY = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/x"}


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """A server whose metrics are open."""
    with Door(server(kw, metrics="open")) as opened:
        yield opened


def figures(text: str) -> dict[tuple[str, ...], float]:
    """The samples of a page: name and the labels' values in the order of the labels' names."""
    return {
        (sample.name.removeprefix("keywright_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def read(door: Door) -> dict[tuple[str, ...], float]:
    """The samples that a server shows."""
    return figures(door.get("/metrics").body.decode())


# ------------------------------------------------------------------------------------------------------- who may read


def test_a_key_opens_it(kw: Keywright, key: Issued) -> None:
    """Unless set otherwise it takes a management key with ``metrics:read`` that is bound to nothing."""
    bound = kw.keys.create_management(name="B", scopes=["metrics:read"], binding=Binding(account="globex"))
    for headers, status, code in (
        ({}, 401, "missing"),
        (bearer(key), 401, "invalid"),
        (manager(kw, "usage:read", "keys:read"), 403, "insufficient_scope"),
        (bearer(bound), 403, "insufficient_scope"),
        (manager(kw, "metrics:read"), 200, "ok"),
    ):
        with Door(server(kw)) as door:
            reply = door.get("/metrics", headers)
        assert (reply.status, reply.code) == (status, code)
        assert (b"keywright_" in reply.body) == (status == 200)


def test_it_can_be_open_or_absent(kw: Keywright) -> None:
    """``open`` asks nobody who they are; ``off`` is 404 with a right key too."""
    right = manager(kw, "metrics:read")
    with Door(server(kw, metrics="open")) as door:
        reply = door.get("/metrics")
        assert (reply.status, reply.get("cache-control")) == (200, "no-store")
        assert str(reply.get("content-type")).startswith("text/plain; version=")
        assert door.send("HEAD", "/metrics").body == b""
        refused = door.send("POST", "/metrics")
        assert (refused.status, refused.get("allow")) == (405, "GET, HEAD")
    with Door(server(kw, metrics="off")) as door:
        assert door.get("/metrics", right).status == 404


# --------------------------------------------------------------------------------------------------------- what it says


@pytest.mark.stores
def test_it_has_what_the_table_has(door: Door, key: Issued) -> None:
    """The page parses, and holds the metrics of the table with their kinds and labels, each, and no other."""
    kinds = {metric.name: metric.kind for metric in METRICS}
    names = {metric.name: set(metric.labels) for metric in METRICS}
    for _ in range(watch.MEASURE_EVERY):
        door.get(GATE, bearer(key) | FAMILY)

    found = {family.name.removeprefix("keywright_"): family for family in text_string_to_metric_families(
        door.get("/metrics").body.decode()
    )}  # fmt: skip

    assert {name: family.type for name, family in found.items()} == kinds
    for name, family in found.items():
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == names[name]
    assert all(written_name(metric).startswith("keywright_") for metric in METRICS)


@pytest.mark.stores
def test_verdicts_are_counted_by_keyspace_and_code(kw: Keywright, door: Door) -> None:
    """Each verdict counts under its keyspace and code at once, whether it was written to the store yet or not."""
    key, other = make(kw, limits=["2/day"]), make(kw, keyspace="default")
    for headers in (bearer(key), bearer(key), bearer(key), {}, {"X-Token": "x"}):
        door.get(GATE, headers | FAMILY)
    kw.installation.meter.flush()
    door.get("/authz/forward/default.production", bearer(other) | FAMILY)
    door.get(GATE, bearer(key))  # without the gateway's headers

    found = read(door)

    counted = {name[1:]: value for name, value in found.items() if name[0] == "verifications_total"}
    assert counted == {
        ("ok", "every"): 2,
        ("quota_exhausted", "every"): 1,
        ("missing", "every"): 1,
        ("invalid", "every"): 1,
        ("ok", "default"): 1,
    }
    assert found["quota_denied_total", "every"] == 1
    assert found["turned_away_total", "gateway_misconfigured", "every"] == 1


def test_no_label_can_be_made_up(kw: Keywright, door: Door) -> None:
    """Many keys, accounts, addresses, paths and guesses add no sample, and none of them is on the page."""
    keys = [make(kw, name=f"key {n}") for n in range(20)]
    door.get(GATE, bearer(keys[0]) | FAMILY)
    door.get(GATE, {"X-Token": "x"} | FAMILY)
    before = set(read(door))

    for n, key in enumerate(keys):
        for headers in (bearer(key), {"X-Token": f"guess{n}"}):
            uri = {"X-Forwarded-Uri": f"/path{n}"}
            door.get(GATE, headers | FAMILY | uri, peer=f"192.0.2.{n}")
        door.get(f"/authz/forward/gate{n}", FAMILY)
        door.get(f"/nowhere/{n}")
    text = door.get("/metrics").body.decode()
    samples = "".join(line for line in text.splitlines() if line[0] != "#")

    assert {sample for sample in figures(text) if "bucket" not in sample[0]} - before <= {
        ("verification_duration_seconds_count", "forward_auth"),
        ("verification_duration_seconds_sum", "forward_auth"),
        ("management_requests_total", "4xx"),
    }
    for word in ("globex", "192.0.2", "path", "guess", "gate1", *(key.key.id for key in keys)):
        assert word not in samples


@pytest.mark.stores
def test_memory_is_counted_by_hit_and_miss(kw: Keywright, door: Door, key: Issued) -> None:
    """A key's first verification is a miss, what follows a hit; a guess is neither, an unknown id a miss."""
    for _ in range(5):
        door.get(GATE, bearer(key) | FAMILY)
    door.get(GATE, {"X-Token": "x"} | FAMILY)
    unknown = credential.spell_token(credential.new_id("every", "live"), credential.new_secret())
    door.get(GATE, {"X-Token": unknown} | FAMILY)

    found = read(door)

    assert found["cache_requests_total", "hit"] == 4
    assert found["cache_requests_total", "miss"] == 2
    assert found["cache_entries",] == 1


def test_a_lost_store_shows_first(kw: Keywright, clock: Clock, door: Door, key: Issued) -> None:
    """A store that is gone is seen in availability, errors, stale answers and 503s, while nothing can be written down."""
    other = make(kw)
    door.get(GATE, bearer(key) | FAMILY)
    assert read(door)["store_available", "keys"] == 1

    with lost(kw):
        clock.advance(seconds=1)
        for issued in (key, key, other):
            door.get(GATE, bearer(issued) | FAMILY)
        found = read(door)

    assert found["store_available", "keys"] == 0
    assert found["store_errors_total", "keys"] > 0
    assert found["stale_served_total",] >= 2
    assert found["verifications_total", "unavailable", "every"] == 1
    after = read(door)
    assert (after["store_available", "keys"], after["audit_chain_head",] > 0) == (1, True)


def test_counts_that_cannot_be_written_queue_up(kw: Keywright, door: Door, key: Issued) -> None:
    """While the usage file is gone its store is not available and the queue grows; afterwards it is empty."""
    file = kw.installation.database.file("usage")
    for engine in kw.installation.database._engines.values():
        engine.dispose()
    away = file.rename(file.with_suffix(".away"))
    for _ in range(3):
        door.get(GATE, bearer(key) | FAMILY)
        assert kw.installation.meter.flush() is False
    found = read(door)
    away.rename(file)

    assert found["usage_queue_events",] == 3
    assert (found["store_available", "usage"], found["store_errors_total", "usage"]) == (0, 3)
    kw.installation.meter.settle()
    assert read(door)["usage_queue_events",] == 0
    assert read(door)["store_available", "usage"] == 1


def test_writers_that_queue_are_seen(kw: Keywright, door: Door) -> None:
    """A writer that waits for another is in the queue, and its wait is in the sum."""
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with kw.installation.database.write():
            held.set()
            free.wait(PATIENCE)

    threads = [threading.Thread(target=hold), threading.Thread(target=lambda: kw.accounts.create("hooli"))]
    before = read(door)
    threads[0].start()
    held.wait(PATIENCE)
    threads[1].start()
    until(lambda: read(door)["store_writers_waiting",] == 1)
    free.set()
    for thread in threads:
        thread.join(PATIENCE)
    after = read(door)

    assert after["store_writers_waiting",] == 0
    assert after["store_writes_total",] - before["store_writes_total",] == 2
    assert after["store_write_wait_seconds_total",] > before["store_write_wait_seconds_total",]


def test_dropped_refusals_are_counted(kw: Keywright, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a flood leaves out of the refusal log is counted, and stays counted when the rest is written."""
    monkeypatch.setattr("keywright.meter.MOST_REFUSALS", 3)
    kw.installation.meter.after_fork()
    monkeypatch.setattr(kw.installation.meter, "_start", lambda: None)
    for _ in range(5):
        door.get(GATE, {"X-Token": "x"} | FAMILY)
    assert read(door)["refusals_dropped_total",] == 2
    kw.installation.meter.flush()
    assert read(door)["refusals_dropped_total",] == 2


def test_management_calls_are_counted(kw: Keywright, door: Door) -> None:
    """Calls that reach the management API count by the class of their status."""
    right = manager(kw, "keys:read")
    for path in ("/v1/keys", "/v1/keys", "/v1/accounts", "/v1/nothing"):
        door.get(path, right)

    found = read(door)

    assert (found["management_requests_total", "2xx"], found["management_requests_total", "4xx"]) == (2, 2)


def test_one_request_in_sixteen_is_measured(kw: Keywright, key: Issued) -> None:
    """Of 16 verifications 15 touch no metric; the durations add up to a histogram for each kind of door."""
    added: list[str] = []
    app = server(kw, metrics="open")
    app.watch.add = lambda name, *_labels, **_by: added.append(name)  # type: ignore[method-assign]
    with Door(watch.Measured(app, app.watch)) as door:
        for _ in range(watch.MEASURE_EVERY * 2):
            assert door.get(GATE, bearer(key) | FAMILY).status == 200
    assert len(added) == 4  # a bucket and a sum, twice

    again = server(kw, metrics="open")
    with Door(watch.Measured(again, again.watch)) as door:
        for _ in range(watch.MEASURE_EVERY * 2):
            door.get(GATE, bearer(key) | FAMILY)
        found = read(door)
    assert found["verification_duration_seconds_count", "forward_auth"] == 2
    assert found["verification_duration_seconds_bucket", "forward_auth", "+Inf"] == 2
    assert found["verification_duration_seconds_sum", "forward_auth"] > 0


# ----------------------------------------------------------------------------------------------------------- the board


def test_half_a_word_is_not_read() -> None:
    """A place that was being written when its worker was killed still says what stood there before."""
    board = Board(2)
    place = board.place(1)
    assert list(board.all()) == []
    for text in (b"one", b"two", b"three"):
        place.write(text)
        assert list(board.all()) == [text]

    broken = b"four"
    at = place._begin + (4 % 2) * (len(place._map) // 4)
    place._map[at + 16 : at + 16 + len(broken)] = broken  # the text is there, its head not yet

    assert place.read() == b"three"
    place.write(b"five")
    assert place.read() == b"five"


def test_what_does_not_fit_is_refused() -> None:
    """A text that is too long is refused, and what stood there stays."""
    place = Board(1).place(0)
    place.write(b"x" * LONGEST)
    with pytest.raises(ValueError, match="do not fit"):
        place.write(b"y" * (LONGEST + 1))
    assert place.read() == b"x" * LONGEST


def test_the_dead_count_but_are_not_alive() -> None:
    """What grows is summed over all workers, what is so now over those heard of lately; each by its own rule."""
    said = [
        Said(100.0, [("verifications", ("every", "ok"), 5), ("workers", (), 1), ("store_available", ("keys",), 1)]),
        Said(99.0, [("verifications", ("every", "ok"), 7), ("workers", (), 1), ("store_available", ("keys",), 0)]),
        Said(10.0, [("verifications", ("every", "ok"), 11), ("workers", (), 1), ("freshness_age_seconds", (), 9)]),
    ]  # fmt: skip

    assert merged(said, 101.0) == {
        "verifications": {("every", "ok"): 23},
        "workers": {(): 2},
        "store_available": {("keys",): 0},
    }


@pytest.mark.stores
def test_a_successor_goes_on(kw: Keywright, key: Issued) -> None:
    """Where a worker takes a dead one's place, what grows goes on from there, and the start is counted."""
    board = Board(1)
    first = watch.Watch(kw.installation, board.place(0))
    kw.verify(bearer(key), keyspace="every", environment="production", method="GET")
    first.tell()

    second = watch.Watch(kw.installation, board.place(0))  # of the same process: its own verdict counts again
    found = figures(second.page()[1].decode())

    assert found["verifications_total", "ok", "every"] == 2
    assert (found["worker_starts_total",], found["workers",]) == (2, 1)


# --------------------------------------------------------------------------------------------------- several processes


def until(holds: Callable[[], Any]) -> None:
    """Ask again and again until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came about"


def test_any_worker_answers_for_all(template: Path, tmp_path: Path) -> None:
    """Each of several workers shows the same sums, which do not fall when one is killed and another takes its place."""
    folder = Folder(tmp_path, copy_of=template)
    place = ("--keyspace", "every", "--account", "globex", "--environment", "production", "--access", "all")
    token = folder("keys", "create", "CRM", *place, "--quiet").out.strip()
    around = {"KEYWRIGHT_WORKERS": "3", "KEYWRIGHT_METRICS": "open"}

    with Served(folder.database, folder.path, **around) as served:

        def ask(path: str, **headers: str) -> Any:
            connection = Connection(served.port)
            try:
                return connection("GET", path, headers)
            finally:
                connection.close()

        def shown(*name: str) -> set[float]:
            return {figures(ask("/metrics").body.decode()).get(name, 0) for _ in range(12)}

        for _ in range(60):
            assert ask(GATE, Authorization=f"Bearer {token}", **FAMILY).status == 200
        until(lambda: shown("verifications_total", "ok", "every") == {60})
        until(lambda: shown("workers") == {3})
        assert shown("workers_wanted") == shown("worker_starts_total") == {3}

        psutil.Process(served.process.pid).children()[0].kill()
        until(lambda: shown("worker_starts_total") == {4})
        until(lambda: shown("workers") == {3})
        assert shown("verifications_total", "ok", "every") == {60}
        assert served.stop() == 0
