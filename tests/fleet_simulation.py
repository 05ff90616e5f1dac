"""A fleet in one process and in no time: workers, a store and whoever changes keys, with everything that can go wrong.

``run(seed)`` plays some seconds of it: messages are lost, late and out of order, processes crash, start again and are
stopped in the middle of anything, the store freezes, links are cut, and no two clocks run alike. What decides is the
product's own: ``leases.Lease``, ``leases.standing``, ``leases.Sweep`` and ``cache.Cache``. It returns the successes that
promise 2 forbids; a seed gives the same run every time.

``python tests/fleet_simulation.py [COUNT] [FIRST_SEED]`` plays many, and prints the seeds that fail.
"""

import heapq
import random
import sys
import time
from collections.abc import Callable, Generator
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from keywright import leases
from keywright.cache import Cache
from keywright.leases import Lease, Standing, Sweep, Worker, standing
from keywright.times import SECOND

MS: Final = 1_000
LENGTH: Final = 8 * SECOND
WORKERS: Final = 3
KEYS: Final = ("a", "b")
ASK_PATIENCE: Final = 3 * SECOND

Steps = Generator[Any, Any, None]


class Lost(Exception):
    """No answer came in time."""


class Variant(NamedTuple):
    """How the protocol is played. Each of its fields, changed, breaks it: that is how the simulation is tested."""

    waits: bool = True  # a change waits for workers at all
    from_before: bool = True  # a lease counts from before it was asked for, not from the answer
    versioned: bool = True  # a fill that was read before a change never lands after it
    acts_first: bool = True  # a worker acts upon a change before it confirms it
    clocks_agree: bool = True  # within a hundredth, as is assumed; else a tenth
    sweeps_late: bool = True  # a registration is removed only when its worker cannot be serving
    renames: bool = True  # no registration, and no sign of life, is like an earlier one
    durable: bool = True  # a renewal outlives a crash of the store
    registers_stale: bool = True  # a worker that may serve without the store says so when it registers
    tells_gaps: bool = True  # who is behind what was trimmed is told so


class Late(NamedTuple):
    """A success that began after a change was answered, on the state before it."""

    seed: int
    at: int
    worker: str
    stale: bool
    known: int
    change: int


class Process:
    """Something that runs on a machine: it has a clock of its own rate, may be stopped, and may crash."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        off = 0.01 if world.variant.clocks_agree else 0.1
        self.rate = 1 + world.draw.choice([-off, off, world.draw.uniform(-off, off)])
        self.offset = world.draw.randrange(10**9)
        self.alive = True
        self.stopped_until = 0
        self.cut_until = 0

    def clock(self) -> int:
        """Its ``CLOCK_BOOTTIME``."""
        return self.offset + int(self.world.now * self.rate)

    def start(self, steps: Steps) -> None:
        """Do something, from now on."""
        self.world.at(self.world.now, lambda: self._go(steps, None, None))

    def _go(self, steps: Steps, value: Any, trouble: Exception | None) -> None:
        if not self.alive:
            return
        if self.world.now < self.stopped_until:
            self.world.at(self.stopped_until, lambda: self._go(steps, value, trouble))
            return
        try:
            wanted = steps.throw(trouble) if trouble else steps.send(value)
        except StopIteration:
            return
        wanted(lambda got=None, lost=None: self._go(steps, got, lost))


class World:
    """Time, chance, the store, and everybody who uses it."""

    def __init__(self, seed: int, variant: Variant) -> None:
        self.seed, self.variant = seed, variant
        self.draw = random.Random(seed)
        self.now = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._n = 0
        self.frozen_until = 0
        self.changes: list[tuple[int, str, str]] = []
        self.newest = 0
        self.gaps_told = 0
        self.rows = dict.fromkeys(KEYS, 0)
        self.registered: dict[str, list[int]] = {}  # confirmed, beat, max_stale
        self.safe: dict[str, list[int]] = {}
        self.workers: list[Serving] = []
        self.answered: list[tuple[int, int, str, int]] = []  # when, seq, key, from when on nobody is excused
        self.late: list[Late] = []
        self.successes = 0
        self.served_stale = 0
        self.trouble = self.draw.choice([0.0, 0.02, 0.1])
        self.slow = self.draw.choice([1, 1, 30, 200])

    def at(self, when: int, what: Callable[[], None]) -> None:
        """Let something happen."""
        self._n += 1
        heapq.heappush(self._events, (max(when, self.now), self._n, what))

    def play(self) -> None:
        """Let everything happen, to the end."""
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            if self.now > LENGTH:
                return
            what()

    # ------------------------------------------------------------------------------------------------- what one waits for

    def sleep(self, process: Process, span: float) -> Any:
        """Wait, by one's own clock."""
        return lambda go: self.at(self.now + int(span / process.rate), go)

    def step(self) -> Any:
        """Lose one's turn for a moment: somebody else runs."""
        span = self.draw.randrange(20, 200) if self.draw.random() < 0.95 else self.draw.randrange(50 * MS)
        return lambda go: self.at(self.now + span, go)

    def call(self, process: Process, work: Callable[[], Any], patience: int) -> Any:
        """Ask the store. Question and answer travel for a while each, or get lost; what was asked may happen all the same."""

        def ask(go: Callable[..., None]) -> None:
            done: list[bool] = []

            def once(got: Any, lost: Exception | None = None) -> None:
                if not done:
                    done.append(True)
                    go(got, lost)

            self.at(self.now + int(patience / process.rate), lambda: once(None, Lost()))
            if not self._arrives(process):
                return
            self.at(self.now + self._travel(), lambda: self._arrived(process, work, once))

        return ask

    def _arrived(self, process: Process, work: Callable[[], Any], once: Callable[..., None]) -> None:
        if self.now < self.frozen_until:
            self.at(self.frozen_until, lambda: self._arrived(process, work, once))
            return
        got = work()
        if self._arrives(process):
            self.at(self.now + self._travel(), lambda: once(got))

    def _arrives(self, process: Process) -> bool:
        return self.now >= process.cut_until and self.draw.random() >= self.trouble

    def _travel(self) -> int:
        longest = 2 * MS * self.slow
        return (
            self.draw.randrange(100, longest) if self.draw.random() < 0.97 else self.draw.randrange(400 * MS)
        )

    # ---------------------------------------------------------------------------------------------------------- the store

    def commit(self, key: str) -> int:
        """Change a key: numbers are given in the order in which they can be seen. Tell whoever listens."""
        self.newest = seq = self.newest + 1
        self.changes.append((seq, "key", key))
        self.rows[key] = seq
        for worker in self.workers:
            if worker.alive and worker.pushed and self._arrives(worker):
                self.at(self.now + self._travel(), worker.wake)
        return seq

    def renew(self, worker: str, confirmed: int, beat: int) -> list[tuple[int, str, str]] | None:
        """``store.workers.RENEW``."""
        own = self.registered.get(worker)
        if own is None:
            return None
        own[0], own[1] = confirmed, beat
        return self.since(confirmed)

    def since(self, after: int) -> list[tuple[int, str, str]]:
        """``store.lookup.CHANGES``."""
        found = [change for change in self.changes if change[0] > after]
        if self.changes and self.changes[0][0] - 1 > after and self.variant.tells_gaps:
            self.gaps_told += 1
            found.append((self.newest, "all", ""))
        return found

    def trim(self) -> None:
        """``store.changes.trim``, as hard as can be: nothing is left but the newest, again and again."""
        self.changes = self.changes[-1:]
        self.at(self.now + 300 * MS, self.trim)

    def register(self, worker: str, confirmed: int, beat: int, max_stale: int) -> None:
        """``store.workers.REGISTER``."""
        self.registered[worker] = [confirmed, beat, max_stale]
        self.safe[worker] = [confirmed, beat, max_stale]

    def save(self) -> None:
        """What does not wait for the disk is safe only after a while."""
        self.safe = {worker: list(row) for worker, row in self.registered.items()}
        self.at(self.now + 400 * MS, self.save)

    def fall(self) -> None:
        """The store crashes, and comes back."""
        self.frozen_until = self.now + 100 * MS
        if not self.variant.durable:
            for worker, row in self.registered.items():
                row[:] = self.safe.get(worker, row)

    def forget(self, worker: str, beat: int) -> None:
        """``store.workers.FORGET``."""
        if worker in self.registered and self.registered[worker][1] == beat:
            del self.registered[worker]

    def registrations(self) -> list[tuple[str, int, int]]:
        """``store.workers.REGISTERED``."""
        return [(name, beat, max_stale) for name, (_, beat, max_stale) in self.registered.items()]

    def everybody(self) -> list[Worker]:
        """``store.workers.every``."""
        return [Worker(confirmed, max_stale) for confirmed, _, max_stale in self.registered.values()]

    # ------------------------------------------------------------------------------------------------------ the promise

    def succeeded(self, worker: "Serving", key: str, began: int, version: int, stale: bool) -> None:
        """A verification succeeded that began at ``began``, on the state of a change: may it have?"""
        self.successes += 1
        self.served_stale += stale
        for when, seq, changed, excused in reversed(self.answered):
            if changed == key and seq > version and when <= began and not (stale and began < excused):
                self.late.append(Late(self.seed, began, worker.name, stale, version, seq))
                return


class Serving(Process):
    """A worker: a cache, a lease, a feed that keeps it, and verifications. ``freshness`` and ``feed`` in small."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.cache = Cache(100)
        self.max_stale = world.draw.choice([0, 0, 1500 * MS, 3 * SECOND])
        self.lease = Lease(self.max_stale)
        self.cache.applied = self.confirmed = world.newest
        self.pushed = world.draw.random() < 0.8
        self.woken: Callable[[], None] | None = None
        self.registration = name
        self.beats = 0
        self.start(self.feed())
        for key in KEYS:
            self.start(self.verifications(key))

    def beat(self, sent: int) -> int:
        """What shows that it lives: never the same twice."""
        self.beats += 1
        return sent if self.world.variant.renames else self.beats

    def wake(self) -> None:
        """Something was pushed."""
        woken, self.woken = self.woken, None
        if woken is not None:
            woken()

    def feed(self) -> Steps:
        """``feed.Feed``."""
        world, sweep, sweep_at = self.world, Sweep(), 0
        while True:
            began = self.clock()
            try:
                if (yield from self.renewal(began)):
                    continue
                if self.clock() >= sweep_at:
                    sweep_at = self.clock() + SECOND
                    yield from self.look_round(sweep)
            except Lost:
                now = self.clock()
                self.lease.failed(began, now, patience=leases.PATIENCE, breather=leases.FEED_BREATHER)
                yield world.sleep(self, world.draw.randrange(50 * MS, 250 * MS))
                continue
            span = leases.RENEW_EVERY if self.pushed else leases.POLL_EVERY
            yield self.waiting(max(0, began + span - self.clock()))

    def renewal(self, sent: int) -> Any:
        """``feed.Feed._turn``; whether there is more to do at once."""
        world = self.world
        self.confirmed = max(self.confirmed, self.cache.applied)
        changes = yield self.ask(world.renew, self.registration, self.confirmed, self.beat(sent))
        if changes is None:
            yield from self.registering(sent)
            return True
        if changes and not world.variant.acts_first:
            self.confirmed = changes[-1][0]
            yield self.ask(world.renew, self.registration, self.confirmed, self.beat(sent))
        yield world.step()
        self.cache.apply(changes)
        self.lease.renewed(sent if world.variant.from_before else self.clock())
        return bool(changes)

    def registering(self, sent: int) -> Steps:
        """Get on the list of workers."""
        world = self.world
        if world.variant.renames:
            self.registration = f"{self.name} {sent}"
        else:
            self.beats = 0
        max_stale = self.max_stale if world.variant.registers_stale else 0
        yield self.ask(world.register, self.registration, self.cache.applied, self.beat(sent), max_stale)

    def ask(self, work: Callable[..., Any], *what: Any) -> Any:
        """Ask the store on the feed's line."""
        return self.world.call(self, partial(work, *what), leases.PATIENCE)

    def look_round(self, sweep: Sweep) -> Steps:
        """``feed.Feed._look_round``."""
        world = self.world
        rows = yield self.ask(world.registrations)
        if world.variant.sweeps_late:
            gone = sweep.look(rows, self.clock())
        else:
            gone = [(name, beat) for name, beat, _ in rows if name != self.registration]
        for name, beat in gone:
            yield self.ask(world.forget, name, beat)

    def waiting(self, span: int) -> Any:
        """Wait for a push, or for time to be up."""

        def wait(go: Callable[..., None]) -> None:
            done: list[bool] = []

            def once() -> None:
                if not done:
                    done.append(True)
                    go()

            self.woken = once
            self.world.at(self.world.now + int(span / self.rate), once)

        return wait

    def verifications(self, key: str) -> Steps:
        """One after the other."""
        while True:
            yield self.world.sleep(self, self.world.draw.expovariate(1 / (40 * MS)))
            yield from self.verify(key)

    def verify(self, key: str) -> Steps:
        """``freshness.FreshnessByLease.check``, then ``engine.Engine._find``."""
        world, began, now = self.world, self.world.now, self.clock()
        stale, basis = False, self.lease.basis(now)
        if basis == "ask":
            applied = self.cache.applied
            try:
                self.cache.apply((yield world.call(self, lambda: world.since(applied), ASK_PATIENCE)))
            except Lost:
                self.lease.failed(now, self.clock(), patience=ASK_PATIENCE, breather=leases.BREATHER)
                basis = self.lease.without(self.clock())
        if basis == "nothing":
            return
        stale = basis == "stale"
        yield world.step()
        entry: Any = self.cache.get(key)
        if entry is None:
            if stale:
                return
            applied = self.cache.applied
            try:
                version = yield world.call(self, lambda: world.rows[key], ASK_PATIENCE)
            except Lost:
                return
            yield world.step()
            record: Any = SimpleNamespace(id=key, version=version)
            self.cache.put(record, applied if world.variant.versioned else self.cache.applied)
        else:
            record = entry.record
        yield world.step()
        world.succeeded(self, key, began, record.version, stale)


class Changing(Process):
    """Somebody who changes keys, one change after the other. ``propagation`` in small."""

    def changes(self) -> Steps:
        """Change, wait, answer."""
        world = self.world
        while True:
            yield world.sleep(self, world.draw.expovariate(1 / (250 * MS)))
            key = world.draw.choice(KEYS)
            try:
                seq = yield world.call(self, lambda key=key: world.commit(key), ASK_PATIENCE)
            except Lost:
                continue  # never answered
            committed = self.clock()
            yield from self.follow(key, seq, committed)

    def follow(self, key: str, seq: int, committed: int) -> Steps:
        """``propagation.follow``."""
        world, pause = self.world, MS
        found = None
        while True:
            try:
                found = yield world.call(self, world.everybody, ASK_PATIENCE)
            except Lost:
                found = [Worker(-1, leases.LONGEST_STALE)]
            now = self.clock()
            stands = self.stands(found, seq, committed, now)
            if stands.settled:
                excused = 0 if stands.exact else world.now + stands.until - now
                world.answered.append((world.now, seq, key, excused))
                return
            yield world.sleep(self, pause)
            pause = min(2 * pause, 20 * MS)

    def stands(self, found: list[Worker], seq: int, committed: int, now: int) -> Standing:
        """The product's decision, or a wrong one."""
        if not self.world.variant.waits:
            return Standing(len(found), 0, committed, True, True)
        return standing(found, seq, committed, now)


def troubles(world: World) -> None:
    """Decide what goes wrong, and when."""
    draw = world.draw
    for _ in range(draw.randrange(10)):
        when, span = draw.randrange(LENGTH), int(draw.expovariate(1 / SECOND)) + 1
        world.at(when, draw.choice([freeze, stop, cut, cut, crash, fall])(world, span))


def freeze(world: World, span: int) -> Callable[[], None]:
    """The store says nothing for a while."""

    def happens() -> None:
        world.frozen_until = world.now + span

    return happens


def fall(world: World, _span: int) -> Callable[[], None]:
    """The store crashes and starts again."""
    return world.fall


def stop(world: World, span: int) -> Callable[[], None]:
    """A process is stopped in the middle of whatever it does."""

    def happens() -> None:
        world.draw.choice(world.workers).stopped_until = world.now + span

    return happens


def cut(world: World, span: int) -> Callable[[], None]:
    """A worker hears nothing of the store, and the store nothing of it."""

    def happens() -> None:
        world.draw.choice(world.workers).cut_until = world.now + span

    return happens


def crash(world: World, span: int) -> Callable[[], None]:
    """A process dies, and another takes its place."""

    def happens() -> None:
        place = world.draw.randrange(WORKERS)
        world.workers[place].alive = False
        world.at(world.now + span // 4, lambda: born(world, place))

    return happens


def born(world: World, place: int) -> None:
    """A worker starts."""
    world.workers[place] = Serving(world, f"{place}-{world.now}")


SOUND: Final = Variant()


def run(seed: int, variant: Variant = SOUND) -> World:
    """Play one fleet to its end; ``late`` is empty where the promise was kept."""
    world = World(seed, variant)
    world.workers = [Serving(world, str(place)) for place in range(WORKERS)]
    for name in ("changing", "changing too"):
        changing = Changing(world, name)
        changing.start(changing.changes())
    troubles(world)
    world.save()
    if seed % 5 == 3:
        world.trim()
    world.play()
    return world


def main(count: int, first: int) -> None:
    """Play many, and say which broke the promise."""
    began, successes, stale, late = time.monotonic(), 0, 0, []
    for seed in range(first, first + count):
        world = run(seed)
        successes, stale, late = successes + world.successes, stale + world.served_stale, late + world.late
    spent = time.monotonic() - began
    print(
        f"{count} runs in {spent:.1f} s, {count / spent * 60:.0f} a minute; seeds {first} to {first + count - 1}"
    )
    print(f"{successes} successes, {stale} of them stale, {len(late)} late")
    for one in late[:20]:
        print(one)


if __name__ == "__main__":
    main(*(int(text) for text in (sys.argv[1:] + ["1000", "0"][len(sys.argv) - 1 :])))
