"""Promises 5 and 6: what was acknowledged survives a kill, and a store that is gone makes no right key wrong."""

import os
import random
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from child import Child
from conftest import bearer, make
from keywright import Issued, Keywright, Unavailable, Verdict
from keywright.installation import Installation, open_installation
from keywright.model import Ask
from keywright.schemes import from_mapping
from keywright.testing import Clock

KILLS = 200 if os.environ.get("KEYWRIGHT_PROOF") else 50
EVERY = {"keyspace": "every", "environment": "production"}


# ---------------------------------------------------------------------------------------------------------- kill


class Told:
    """What killed writers had acknowledged, and what they were at when they were killed."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.ended: set[str] = set()
        self.remaining: dict[str, int] = {}
        self.unsure: dict[str, str] = {}  # key -> the verb that was under way
        self.changes = 0

    def note(self, said: dict[str, Any]) -> None:
        """Take in one acknowledged change."""
        self.changes += 1
        key = said["key"]
        if "token" in said:
            self.tokens[key] = said["token"]
            self.names.setdefault(key, "new")
        if "name" in said:
            self.names[key] = said["name"]
        if "remaining" in said:
            self.remaining[key] = said["remaining"]
        if said["done"] == "invalidate":
            self.ended.add(key)


def write_until_killed(nursery: Child, draw: random.Random, told: Told) -> None:
    """Let a writer work, kill it after some acknowledged changes, and take in all that it still could say."""
    nursery.send(seed=draw.random())
    pid, enough, doing = nursery.hear()["pid"], draw.randint(1, 24), None
    while "ended" not in (said := nursery.hear()):
        if "doing" in said:
            doing = said
        else:
            told.note(said)
            doing = None
            enough -= 1
        if enough <= 0 and pid:
            os.kill(pid, signal.SIGKILL)
            pid = 0
    if doing is not None and doing["key"]:
        told.unsure[doing["key"]] = doing["doing"]


@pytest.mark.security("R-11")
@pytest.mark.full("two hundred kills")
def test_nothing_acknowledged_is_lost_to_a_kill(kw: Keywright) -> None:
    """After each of fifty ``kill -9`` amid writing the files are whole, the trail verifies and it opens; no change is lost."""
    database = kw.installation.database
    kw.close()
    draw, told = random.Random(9), Told()
    with Child("nursery", database.url) as nursery:
        for _ in range(KILLS):
            write_until_killed(nursery, draw, told)
            with Keywright(database.url) as again:
                assert again.installation.trail.verify() is None
                for which in ("keys", "spend", "usage"):
                    with again.installation.database.read(which) as connection:
                        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
                        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []

    assert told.changes >= KILLS
    assert len(told.tokens) >= KILLS / 2
    with Keywright(database.url, clock=kw.installation.clock) as after:
        with after.installation.database.read() as connection:
            half = "SELECT id FROM keys WHERE NOT EXISTS (SELECT 1 FROM secrets WHERE key_id = id)"
            assert connection.exec_driver_sql(half).all() == []
        assert [wrong for key in told.tokens if (wrong := survived(after, told, key))] == []


def survived(kw: Keywright, told: Told, key: str) -> tuple[object, ...] | None:
    """What is wrong with a key after the kills; nothing where all that was acknowledged of it is there."""
    found, under_way = kw.keys.get(key), told.unsure.get(key)
    verdict = kw.verify({"Authorization": f"Bearer {told.tokens[key]}"}, **EVERY)
    code = "invalidated" if key in told.ended else "ok"
    codes = {code} | {"rotate": {"rotated"}, "invalidate": {"invalidated"}}.get(under_way or "", set())
    if verdict.code not in codes or (found.name != told.names[key] and under_way != "edit"):
        return key, under_way, verdict.code, found
    if verdict.code == "ok" and key in told.remaining and verdict.limits[0].remaining >= told.remaining[key]:
        return key, "spent", verdict.limits, told.remaining[key]
    return None


# --------------------------------------------------------------------------------------------------- a store gone


def elsewhere(work: Callable[[], Verdict]) -> Verdict:
    """Do something on a new thread, which has no connection yet."""
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@contextmanager
def gone(installation: Installation) -> Iterator[None]:
    """The keys file is not where it was, until the block ends."""
    database = installation.database
    database.close()
    away = database.path.with_suffix(".away")
    database.path.rename(away)
    try:
        yield
    finally:
        away.rename(database.path)


@contextmanager
def locked(installation: Installation) -> Iterator[None]:
    """Somebody holds the keys file exclusively, until the block ends."""
    database = installation.database
    database.close()
    installation.lookup.close()
    connection = sqlite3.connect(database.path, isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("INSERT INTO changes (kind, ref, at) VALUES ('key', 'nobody', 0)")
    connection.execute("COMMIT")
    try:
        yield
    finally:
        connection.close()


@pytest.mark.impatient
@pytest.mark.security("R-14")
@pytest.mark.parametrize("lost", [gone, locked])
def test_without_the_store_known_keys_go_on_and_others_are_unavailable(
    kw: Keywright, clock: Clock, lost: Callable[[Installation], Any]
) -> None:
    """Known keys pass, marked stale, for a minute; unknown ones are ``unavailable``, never ``invalid``; then all recovers."""
    known, unknown, limited = make(kw), make(kw), make(kw, limits=["5/day"])
    for key in (known, limited):
        assert kw.verify(bearer(key), **EVERY).code == "ok"

    def ask(key: Issued) -> Verdict:
        return elsewhere(lambda: kw.verify(bearer(key), **EVERY))

    with lost(kw.installation):
        verdicts = [ask(key) for key in (known, unknown)]
        assert [(v.code, v.stale) for v in verdicts] == [("ok", True), ("unavailable", False)]
        answer = kw.answer(verdicts[1])
        assert (answer.status, dict(answer.headers)["Retry-After"]) == (503, "1")
        assert elsewhere(lambda: kw.verify({}, **EVERY)).code == "missing"
        wrong = known.credential.token.reveal()[:-38] + unknown.credential.token.reveal()[-38:]
        assert elsewhere(lambda: kw.verify({"X-Token": wrong}, **EVERY)).code == "invalid"
        clock.advance(seconds=60)
        assert ask(known).code == "ok"
        clock.advance(seconds=1)
        assert ask(known).code == "unavailable"

    for key in (known, unknown, limited):
        verdict = ask(key)
        assert (verdict.code, verdict.stale) == ("ok", False)
    kw.keys.disable(known.key.id)
    assert ask(known).code == "disabled"


@pytest.mark.security("R-14", "T-63")
def test_a_cautious_installation_refuses_without_the_store(kw: Keywright) -> None:
    """With ``on_store_loss`` set to refuse, known keys are ``unavailable`` too while the store is gone, and work after."""
    key = make(kw)
    ask = Ask("every", "production", authenticate_only=True)
    given, now = from_mapping(bearer(key)), kw.installation.clock()
    with open_installation(
        kw.installation.database.url, clock=kw.installation.clock, on_store_loss="refuse"
    ) as own:
        assert own.engine.verify(ask, given, now).code == "ok"
        with gone(own):
            verdict = elsewhere(lambda: own.engine.verify(ask, given, now))
            assert (verdict.code, verdict.stale) == ("unavailable", False)
        assert elsewhere(lambda: own.engine.verify(ask, given, now)).code == "ok"


@pytest.mark.security("R-14")
def test_an_installation_that_knows_nothing_yet_is_unavailable(kw: Keywright) -> None:
    """Just opened and without its store, every call is ``unavailable`` and can be answered, even one without a key."""
    key = make(kw)
    with gone(kw.installation):
        for headers in (bearer(key), {}, {"Authorization": "Bearer nonsense"}):
            verdict = elsewhere(
                lambda headers=headers: kw.verify(headers, keyspace="partna", environment="staging")
            )
            assert verdict.code == "unavailable"
            assert kw.answer(verdict).status == 503


def test_the_verbs_say_unavailable_without_the_store(kw: Keywright) -> None:
    """Without the store reading and changing raise ``Unavailable``; afterwards nothing has changed and all works."""
    key = make(kw)
    with gone(kw.installation):
        for verb in (
            lambda: kw.keys.get(key.key.id),
            kw.keys.list,
            lambda: kw.keys.delete(key.key.id),
            kw.accounts.list,
        ):
            with pytest.raises(Unavailable):
                verb()
        kw.installation.database.close()
        kw.installation.database.path.unlink(
            missing_ok=True
        )  # an attempt to write must not have made a new one

    assert kw.keys.get(key.key.id).state == "active"


def test_an_event_loop_is_told_the_same(kw: Keywright) -> None:
    """``averify`` gives the verdicts of ``verify`` with the store gone: known and stale, unknown and unavailable."""
    import asyncio

    known, unknown = make(kw), make(kw)
    kw.verify(bearer(known), **EVERY)
    with gone(kw.installation):
        found = [
            elsewhere(lambda key=key: asyncio.run(kw.averify(bearer(key), **EVERY)))
            for key in (known, unknown)
        ]

    assert [(verdict.code, verdict.stale) for verdict in found] == [("ok", True), ("unavailable", False)]


# ------------------------------------------------------------------------------------------------------ disk full


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond a size, until the block ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.security("R-17")
def test_a_full_disk_stops_writing_and_nothing_else(kw: Keywright) -> None:
    """While files cannot grow changes are ``Unavailable`` and leave nothing, verifying goes on; with space again all works."""
    key, limited = make(kw), make(kw, limits=["100000/day"])
    database = kw.installation.database
    for known in (key, limited):
        kw.verify(bearer(known), **EVERY)
    logs = [database.file(which).with_name(database.file(which).name + "-wal") for which in ("keys", "spend")]
    made = 0
    with full_disk(max(log.stat().st_size for log in logs) + 20_000):
        with suppress(Unavailable):
            while made < 100:
                make(kw, name="squeezed")
                made += 1
        assert made < 100
        assert [kw.verify(bearer(key), **EVERY).code for _ in range(5)] == ["ok"] * 5
        codes = {kw.verify(bearer(limited), **EVERY).code for _ in range(200)}
        assert codes <= {"ok", "unavailable"}
        with pytest.raises(Unavailable):
            kw.keys.edit(key.key.id, description="d" * 2000, metadata={"a": "x" * 16_000})

    assert len(kw.keys.list(q="squeezed", limit=200).items) == made
    assert (
        kw.keys.edit(key.key.id, description="there is room again").key.description == "there is room again"
    )
    assert kw.verify(bearer(limited), **EVERY).code == "ok"
    assert kw.installation.meter.flush()
    assert kw.installation.trail.verify() is None
    for which in ("keys", "spend", "usage"):
        with database.read(which) as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
