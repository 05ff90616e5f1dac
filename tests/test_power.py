"""Promise 5 at a loss of power: what was acknowledged is on the disk, and whoever opens it afterwards needs no help.

``power`` says what a disk may hold after one. A failure names the seed, the round and the instant.
"""

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.installation import restore
from keywright.layout import Counted
from keywright.slots import Slots
from keywright.store import db, leaks
from keywright.testing import copied
from power import Disk, Event, compiled, recorded
from test_faults import EVERY, Told, survived

PROOF = bool(os.environ.get("KEYWRIGHT_PROOF"))
HISTORIES, ROUNDS, CUTS = (10, 5, 40) if PROOF else (1, 2, 12)
COMMAND_CUTS = 200 if PROOF else 24
SEED = int(os.environ.get("KEYWRIGHT_SEED", "12"))
CREDITS, BLOCK = 40, 10_000


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is preloaded to record."""
    return compiled(tmp_path_factory.mktemp("power"))


@pytest.fixture
def another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine runs anew: disks are opened under another boot, and need not be synced themselves."""
    monkeypatch.setattr("keywright.slots.boot", lambda: "the run after the power came back")
    for which in ("keys", "spend", "usage"):
        monkeypatch.setitem(db._SYNCHRONOUS, which, "OFF")


class Acknowledged(Told):
    """What a child was told is done, of keys and of everything else."""

    def __init__(self) -> None:
        super().__init__()
        self.replaced: list[str] = []  # tokens
        self.purse = ""  # its token
        self.granted = self.counted = self.asked = 0
        self.leaked: set[str] = set()
        self.doing: dict[str, Any] = {}
        self.before: dict[str, str] = {}  # what was under way when the power failed earlier

    @classmethod
    def after(cls, told: "Acknowledged") -> "Acknowledged":
        """What was told so far, for another process to go on from; what was under way then may have happened, or not."""
        went_on = copy.deepcopy(told)
        went_on.before, went_on.doing = dict(told.unsure), {}
        went_on.asked += "doing" in told.doing
        return went_on

    def mark(self, said: dict[str, Any]) -> None:
        """Take in what the child says, about to do something or done with it."""
        self.doing = said if "doing" in said else {}
        under_way = {said["key"]: said["doing"]} if said.get("doing") and said["key"] else {}
        self.unsure = self.before | under_way
        self.asked += said.get("done") in ("grant", "spend")
        match said.get("done"):
            case None:
                pass
            case "purse":
                self.purse, self.granted = said["token"], 0
            case "grant":
                self.granted += said["granted"]
            case "settle":
                self.counted = said["times"]
            case "leak":
                self.leaked.add(said["key"])
            case _:
                if said["done"] == "rotate":
                    self.replaced.append(self.tokens[said["key"]])
                self.note(said)


def drawn_instants(events: Sequence[Event], draw: random.Random, many: int) -> list[int]:
    """Some instants at which the power fails: after so many events. Half of them just after something was acknowledged."""
    marks = [n + 1 for n, event in enumerate(events) if event.what == "A" and b'"done"' in event.one]
    near = draw.choices(marks, k=many // 2)
    return sorted([*near, *(draw.randint(1, len(events)) for _ in range(many - len(near)))])


def cuts(
    disk: Disk, events: Sequence[Event], into: Path, draw: random.Random, many: int, mark: Callable[..., None]
) -> Iterator[tuple[int, Path]]:
    """Each instant with a disk that the machine may find after it; what was marked up to it has been said by then."""
    done = 0
    for n, instant in enumerate(drawn_instants(events, draw, many)):
        for event in events[done:instant]:
            disk.play(event)
            if event.what == "A":
                mark(json.loads(event.one))
        done = instant
        found = disk.cut(draw, into / f"cut-{n}")
        yield instant, found
        shutil.rmtree(found)


def what_is_lost(found: Path, told: Acknowledged) -> list[object]:
    """Open what a machine found after the power came back; what of it is not as it was acknowledged."""
    try:
        with Keywright(f"sqlite:///{found / 'test.db'}") as kw:
            return [*_broken(kw), *_miscounted(kw, told), *_lost_of_keys(kw, told), *_lost_beside(kw, told)]
    except Exception as trouble:  # it does not even open
        return [repr(trouble)]


def _broken(kw: Keywright) -> Iterator[object]:
    database = kw.installation.database
    for which in ("keys", "spend", "usage"):
        with database.read(which) as connection:
            said = connection.exec_driver_sql("PRAGMA integrity_check").scalar_one()
            if said != "ok" or connection.exec_driver_sql("PRAGMA foreign_key_check").all():
                yield which, said
    broken = kw.installation.trail.verify()
    if broken is not None:
        yield "trail", broken


def _miscounted(kw: Keywright, told: Acknowledged) -> Iterator[object]:
    counted = kw.installation.usage.report(by="total").total
    if not told.counted <= counted <= told.asked + ("doing" in told.doing):
        yield "counted", told.counted, counted, told.asked


def _lost_of_keys(kw: Keywright, told: Acknowledged) -> Iterator[object]:
    for key in told.tokens:
        wrong = survived(kw, told, key)
        if wrong:
            yield wrong
        elif key in told.remaining and key not in told.ended:
            verdict = kw.verify({"Authorization": f"Bearer {told.tokens[key]}"}, **EVERY)
            if verdict and verdict.limits[0].remaining < told.remaining[key] - BLOCK - 3:
                yield "forfeited", told.remaining[key], verdict.limits
    for token in told.replaced:
        code = kw.verify({"Authorization": f"Bearer {token}"}, **EVERY).code
        if code not in ("rotated", "invalidated"):
            yield "replaced", code


def _lost_beside(kw: Keywright, told: Acknowledged) -> Iterator[object]:
    with kw.installation.database.read("usage") as connection:
        waiting = {leak.key_id for leak in leaks.waiting(connection, 100)}
        sent = connection.exec_driver_sql("SELECT body FROM deliveries").scalars().all()
    with kw.installation.database.read() as connection:
        sent = " ".join([*sent, *connection.exec_driver_sql("SELECT body FROM outbox").scalars().all()])
    if told.leaked - waiting:
        yield "leaks", told.leaked - waiting
    unsent = [key for key in told.tokens if key not in sent]
    if unsent:
        yield "messages", unsent
    if told.purse:
        more = 0
        while kw.verify({"Authorization": f"Bearer {told.purse}"}, **EVERY).code == "ok":
            more += 1
        if not CREDITS - 1 <= told.granted + more <= CREDITS:
            yield "granted", told.granted, more


def losses(
    template: Path, library: Path, at: Path, seed: int, *, rounds: int, times: int, **job: Any
) -> Iterator[tuple[int, int, list[object]]]:
    """The seed and the instant of each loss of power, and what was lost to it.

    Each round but the first goes on with a disk that the one before has left, and with what was acknowledged by then.
    """
    draw, told, under = random.Random(seed), Acknowledged(), at / "round-0"
    under.mkdir()
    with copied(template, under) as kw:
        kw.installation.webhooks.create(url="https://example.com/events")
        kw.installation.database.checkpoint()
    for n in range(rounds):
        disk, chosen = Disk(under), draw.randrange(CUTS)
        events = recorded(
            library, under, "powered", boot=f"run {n} of the machine", seed=draw.random(), times=times, **job
        )
        then = Acknowledged.after(told)
        for place, (instant, found) in enumerate(cuts(disk, events, at, draw, CUTS, then.mark)):
            if place == chosen:
                told, under_next = Acknowledged.after(then), at / f"round-{n + 1}"
                shutil.copytree(found, under_next)
            yield n, instant, what_is_lost(found, then)
        shutil.rmtree(under)
        under = under_next


@pytest.mark.security("R-12", "R-29")
@pytest.mark.full("fifty rounds of forty losses of power")
@pytest.mark.usefixtures("another_boot")
def test_nothing_acknowledged_is_lost_with_the_power(template: Path, library: Path, tmp_path: Path) -> None:
    """Whatever of what was not synced a disk has lost, it opens by itself, is whole, and all that was acknowledged is there."""
    many, wrong = 0, []
    for seed in range(SEED, SEED + HISTORIES):
        at = tmp_path / str(seed)
        at.mkdir()
        for found in losses(template, library, at, seed, rounds=ROUNDS, times=60):
            many += 1
            if found[-1]:
                wrong.append((seed, *found))

    assert wrong == []
    assert many == HISTORIES * ROUNDS * CUTS


@pytest.mark.usefixtures("another_boot")
@pytest.mark.parametrize(
    "levels", [{"keys": "OFF"}, {"keys": "NORMAL"}, {"spend": "NORMAL"}], ids=["off", "normal", "spend"]
)
def test_a_commit_that_is_not_synced_is_found(
    template: Path, library: Path, tmp_path: Path, levels: dict[str, str]
) -> None:
    """The test above would fail for keys, or figures of limits, that SQLite commits less durably."""
    found = losses(template, library, tmp_path, SEED, rounds=1, times=60, levels=levels)

    assert any(lost for _, _, lost in found)


@pytest.mark.security("R-12", "R-32")
def test_a_slot_file_that_was_seen_to_does_not_come_back(
    template: Path, library: Path, tmp_path: Path
) -> None:
    """Whoever ends in order, or sees to a dead worker, forgets its batches: its file is gone for good before that."""
    draw, under = random.Random(SEED), tmp_path / "used"
    under.mkdir()
    with copied(template, under) as kw:
        dead = Slots(kw.installation.slots.directory, kw.installation.clock)
        assert dead.counts(1, Counted("", "every", "production", "", 0, "invalid", "", 0))
        dead.close(empty=False)
    disk = Disk(under)
    for event in recorded(library, under, "powered", boot="any run", seed=SEED, times=20):
        disk.play(event)

    for n in range(40):
        found = disk.cut(draw, tmp_path / f"found {n}")
        assert list(found.rglob("*.slots/*.slots")) == []


def done_and_cut(
    library: Path, under: Path, at: Path, seed: int, *, commands: Sequence[Sequence[str]]
) -> Iterator[tuple[int, Path, list[list[str]]]]:
    """Run commands, and let the power fail at instants of them: each with a disk found then, and the commands done by then."""
    draw, disk, done = random.Random(seed), Disk(under), list[list[str]]()
    events = recorded(library, under, "commands", commands=commands)
    assert sum(event.what == "A" for event in events) == len(commands)
    for instant, found in cuts(disk, events, at, draw, COMMAND_CUTS, lambda said: done.append(said["done"])):
        yield instant, found, done


@pytest.mark.security("R-12")
@pytest.mark.full("two hundred losses of power")
@pytest.mark.usefixtures("another_boot")
def test_a_first_start_outlives_the_power(library: Path, tmp_path: Path) -> None:
    """At whatever instant of its making the power fails, an installation opens by itself, and the key that was shown works."""
    under = tmp_path / "new"
    (under / "out").mkdir(parents=True)
    env = str(under / "out" / "key.env")
    commands = [
        ["keys", "create", "First", "--env-file", env, "--database", f"sqlite:///{under / 'test.db'}"]
    ]
    wrong, shown = [], 0
    for instant, found, done in done_and_cut(library, under, tmp_path, SEED, commands=commands):
        with Keywright(f"sqlite:///{found / 'test.db'}", keyspace="default", environment="production") as kw:
            if kw.installation.trail.verify() is not None:
                wrong.append((SEED, instant, "trail"))
            if done:
                shown += 1
                kept = found / "out" / "key.env"
                text = kept.read_text() if kept.exists() else ""
                if not any(_opens(kw, line.partition("=")[2]) for line in text.splitlines()):
                    wrong.append((SEED, instant, text))

    assert wrong == []
    assert shown > 0


def _opens(kw: Keywright, token: str) -> bool:
    return bool(token) and bool(
        kw.verify({"Authorization": f"Bearer {token}"}, method="GET", scopes=["contacts:read"])
    )


@pytest.mark.security("R-12", "R-29")
@pytest.mark.full("two hundred losses of power")
@pytest.mark.usefixtures("another_boot")
def test_a_backup_and_a_restore_outlive_the_power(template: Path, library: Path, tmp_path: Path) -> None:
    """A backup that was written is there and whole, and so is what was restored; what was not is absent, never without its limits."""
    under, wrong, backups, restored = tmp_path / "used", [], 0, 0
    (under / "new").mkdir(parents=True)
    with copied(template, under) as kw:
        key = make(kw, limits=["credits:40"])
        assert kw.verify(bearer(key), **EVERY, method="GET")
        shutil.copy(kw.installation.database.secret_file, under / "new" / "test.db.secret")
    tar, new = under / "copy.tar", f"sqlite:///{under / 'new' / 'test.db'}"
    old = f"sqlite:///{under / 'test.db'}"
    commands = [["backup", str(tar), "--database", old], ["restore", str(tar), "--database", new]]
    for instant, found, done in done_and_cut(library, under, tmp_path, SEED, commands=commands):
        if done:
            backups += 1
            if not _restores(found, key):
                wrong.append((SEED, instant, "backup"))
        place = found / "new"
        if len(done) == 2 or (place / "test.db").exists():
            restored += 1
            if not (place / "test.db").exists() or not _limited(place, key):
                wrong.append((SEED, instant, "restore", sorted(path.name for path in place.iterdir())))

    assert wrong == []
    assert backups > restored > 0


def _restores(found: Path, key: Issued) -> bool:
    """Whether a backup that was found restores, in a place of its own."""
    place = found / "anew"
    place.mkdir()
    shutil.copy(found / "test.db.secret", place)
    if not (found / "copy.tar").exists():
        return False
    restore(f"sqlite:///{place / 'test.db'}", found / "copy.tar")
    return _limited(place, key)


def _limited(place: Path, key: Issued) -> bool:
    """Whether an installation has a key, and what was taken of its credits."""
    with Keywright(f"sqlite:///{place / 'test.db'}") as kw:
        verdict = kw.verify(bearer(key), **EVERY, method="GET")
        return bool(verdict) and verdict.limits[0].remaining == 38
