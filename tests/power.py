"""The loss of power: what a disk may hold after it, by what a process did to its files.

``recorded`` runs a child of the tests with ``power.c`` preloaded, which logs what it does to the files of one directory, in
order, together with its marks: what it is about to do, and what was acknowledged. ``Disk`` plays such a log back, up to an
instant at which the power fails, and draws one of the directories that a machine may find when it has power again.

What is assumed, and it is less than ext4, XFS or Btrfs promise, and what SQLite asks for, no more:

* A file has what was written to it before it was synced. Of what was written since, each sector of 512 bytes is of an age
  of its own: as it was synced, or after any one of the writes to it. A sector is never half of two.
* So is its length: after any one of the changes to it. What is within it and was never written is zeros, and what was cut
  off does not come back when it grows again.
* A name is there, or is not, as when its directory was synced. Of what was done to names since, either what was done up to
  some instant holds, as where a journal keeps the order, or any of it: but a rename holds whole or not at all, and
  nothing holds that was done to a name before which something done to it does not. That a file was synced says nothing of
  its name.
* What is stored into a mapping is written at any time or never, like everything else. Pages are compared at each sync and
  mark, so they are of some such instant.

Nothing is exempt. SQLite's ``-shm`` files and the lock file, which nobody ever syncs, may come back in any state: the first
who opens the database makes the one anew, and the other only orders commits within one run of the machine. Slot files
may too, and bear the boot of the machine for that reason: whoever opens a ``Disk`` says that it is another.
"""

import json
import os
import random
import struct
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from child import PATIENCE

HERE = Path(__file__).parent
SECTOR = 512
_HEAD = struct.Struct("=IIIIQ")


class Event(NamedTuple):
    """One record of a log."""

    what: str
    id: int
    at: int
    one: bytes
    other: bytes


def compiled(directory: Path) -> Path:
    """The library to preload, made in a directory. Every machine that tests run on has gcc."""
    made = directory / "power.so"
    command = ["gcc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-o", made, HERE / "power.c", "-lpthread"]
    subprocess.run(command, check=True, timeout=PATIENCE)
    return made


def recorded(library: Path, under: Path, role: str, **job: Any) -> list[Event]:
    """What a child did to the files of a directory while it did a job; the log is removed, for it has credentials in it."""
    log = under.with_name(f"{under.name}.log")
    surroundings = os.environ | {
        "LD_PRELOAD": str(library),
        "KEYWRIGHT_POWER_UNDER": str(under),
        "KEYWRIGHT_POWER_LOG": str(log),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, HERE / "child.py", role, f"sqlite:///{under / 'test.db'}"]
    try:
        ran = subprocess.run(
            command,
            input=json.dumps(job) + "\n",
            env=surroundings,
            text=True,
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return list(_events(log.read_bytes()))
    finally:
        log.unlink(missing_ok=True)


def _events(log: bytes) -> Iterator[Event]:
    at = 0
    while at < len(log):
        what, number, one, other, where = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        yield Event(chr(what), number, where, log[at : at + one], log[at + one : at + one + other])
        at += one + other


class Content:
    """What a file holds for good, and what was done to it since."""

    def __init__(self, lasting: bytes = b"") -> None:
        self.lasting = lasting
        self._since: list[tuple[int, bytes | None]] = []  # a write, or a new length

    def write(self, at: int, content: bytes) -> None:
        """Write it, without a sync."""
        self._since.append((at, content))

    def cut(self, size: int) -> None:
        """Give the file this length, without a sync."""
        self._since.append((size, None))

    def sync(self) -> None:
        """Let all hold that was done so far."""
        if self._since:
            self.lasting, self._since = self._after(len(self._since)), []

    def _after(self, many: int) -> bytes:
        """What is there if of what was done so much holds, and nothing more."""
        found = bytearray(self.lasting)
        for at, content in self._since[:many]:
            size = at if content is None else at + len(content)
            found.extend(bytes(max(0, size - len(found))))
            if content is None:
                del found[size:]
            else:
                found[at:size] = content
        return bytes(found)

    def drawn(self, draw: random.Random, share: float) -> bytes:
        """What is found after a loss of power, where about such a share of what was not synced holds."""
        if not self._since or share == 0:
            return self.lasting
        if share == 1:
            return self._after(len(self._since))
        ages = {age: self._after(age) for age in self._ages(draw)}
        length_of = draw.choice(list(ages))
        cuts = [n + 1 for n, (_, content) in enumerate(self._since) if content is None]
        # A sector is of no age before the last cut that holds, or after the next, which does not.
        after = bisect_right(cuts, length_of)
        oldest, newest = ([0, *cuts][after], [*cuts, len(self._since) + 1][after])
        fit = [age for age in ages if oldest <= age < newest]
        size = len(ages[length_of])
        found = bytearray()
        for at in range(0, size, SECTOR):
            age = min(fit) if draw.random() >= share else draw.choice(fit)
            found += ages[age][at : at + SECTOR].ljust(SECTOR, b"\0")
        return bytes(found[:size])

    def _ages(self, draw: random.Random) -> set[int]:
        """Some instants that sectors may be of; not all, of thousands."""
        last = len(self._since)
        return {0, last, max(0, last - 1), *(draw.randint(0, last) for _ in range(8))}


class Step(NamedTuple):
    """Something that was done to names at once: what each is from then on, the number of a file, -1 a directory."""

    names: dict[str, int | None]


class Disk:
    """The files of one directory, as far as they would outlive a loss of power."""

    def __init__(self, under: Path) -> None:
        self.under = under
        self._files: dict[int, Content] = {}
        self._names: dict[str, int | None] = {}  # as they are synced
        self._now: dict[str, int | None] = {}  # as the process sees them
        self._steps: list[Step] = []
        self._next = -2
        for path in sorted(under.rglob("*")):
            name = str(path.relative_to(under))
            self._names[name] = -1 if path.is_dir() else self._add(path.read_bytes())
        self._now |= self._names

    def _add(self, lasting: bytes) -> int:
        self._next -= 1
        self._files[self._next] = Content(lasting)
        return self._next

    def play(self, event: Event) -> None:
        """Let one more thing happen."""
        match event.what:
            case "K":
                name = self._name(event.one)
                old = self._now[name]
                assert old is not None
                self._files[event.id] = self._files[old]
                self._renumber(old, event.id)
            case "N":
                self._files[event.id] = Content()
                self._step({self._name(event.one): event.id})
            case "W" | "P":
                self._files[event.id].write(event.at, event.one)
            case "T":
                self._files[event.id].cut(event.at)
            case "S":
                self._files[event.id].sync()
            case "D":
                self._sync(self._name(event.one))
            case "R":
                old_name, new_name = self._name(event.one), self._name(event.other)
                self._step({new_name: self._now[old_name], old_name: None})
            case "L":
                self._step({self._name(event.other): self._now[self._name(event.one)]})
            case "U" | "X":
                self._step({self._name(event.one): None})
            case "M":
                self._step({self._name(event.one): -1})

    def _renumber(self, old: int, new: int) -> None:
        for names in (self._names, self._now, *(step.names for step in self._steps)):
            names.update({name: new for name, number in names.items() if number == old})

    def _name(self, path: bytes) -> str:
        return os.path.relpath(path.decode(), self.under)

    def _step(self, names: dict[str, int | None]) -> None:
        self._steps.append(Step(names))
        self._now |= names

    def _sync(self, directory: str) -> None:
        """A directory is synced: what was done to names of it holds, with all that was done to those names before."""
        kept = []
        for step in self._steps:
            if any(os.path.dirname(name) == ("" if directory == "." else directory) for name in step.names):  # noqa: PTH120
                self._names |= step.names
            else:
                kept.append(step)
        self._steps = kept

    def cut(self, draw: random.Random, into: Path) -> Path:
        """Let the power fail: write one of the directories that may be found afterwards."""
        share = draw.choice([0, 0, 0.1, 0.5, 0.9, 1])
        names = self._names | {}
        for step in self._held(draw, share):
            names |= step.names
        into.mkdir()
        for name, number in sorted(names.items()):
            path = into / name
            if number is None or not path.parent.is_dir():
                continue
            if number == -1:
                path.mkdir(mode=0o700)
            else:
                path.write_bytes(self._files[number].drawn(draw, share))
                path.chmod(0o600)
        return into

    def _held(self, draw: random.Random, share: float) -> Sequence[Step]:
        if draw.random() < 0.5:
            return self._steps[: round(share * len(self._steps))]
        held, lost = [], set[str]()
        for step in self._steps:
            if draw.random() < share and not lost & set(step.names):
                held.append(step)
            else:
                lost |= set(step.names)
        return held
