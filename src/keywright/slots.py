"""The slot file of a worker: what it has counted and spent, in memory that outlives it.

Every process that verifies has a file of its own in a directory that all of them share, mapped, and locked for as long as
the process lives. A figure is moved by a store to memory; the kernel keeps it whatever becomes of the process. Whoever
gets the lock of a file that is not its own knows that its worker has died, and not only stopped: a stopped process keeps
its locks, and no clock is asked. ``layout`` says what is in a file and why a kill at any instruction leaves it readable.

Where no file can be made, on a full disk for example, nothing here is remembered for a successor, and says so: then no
block is taken, and what was counted in the last second is lost with the process.
"""

import fcntl
import logging
import mmap
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from keywright import lasting, layout
from keywright.errors import Unavailable
from keywright.layout import COUNTS, HEADER, SEGMENT, SEGMENT_HEAD, SPENT, SPENT_SLOT, WORD, Counted, Found

SUFFIX: Final = ".slots"
_UNFINISHED: Final = ".new"
_FIRST: Final = 4  # segments of a new file
MOST: Final = 1024  # segments, 64 MiB
_ABANDONED: Final = 60.0  # seconds after which a file that was never finished is nobody's
#: How long a directory that no file could be made in is left alone, in seconds.
_BREATHER: Final = 10.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger("keywright")


def boot() -> str:
    """What tells this run of the machine from every other; empty where the system does not say."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()[:36]
    except (OSError, UnicodeDecodeError):
        return ""


class Place(NamedTuple):
    """Where a record lies: the file as words and as bytes, and the number of the record's first word."""

    words: memoryview
    content: mmap.mmap
    at: int


class Dead:
    """The file of a worker that has died, locked, so that one successor alone sees to it."""

    def __init__(self, path: Path, found: Found | None) -> None:
        self._path = path
        self.worker = path.name.removesuffix(SUFFIX)
        self.found = found if found is None or found.worker == self.worker else None
        #: Whether what it says was spent can be believed: a machine that stopped may have lost its newest pages.
        self.believed = self.found is not None and self.found.boot != "" and self.found.boot == boot()

    def bury(self) -> None:
        """Remove the file: all that it held has been seen to. With the machine's power lost it does not come back."""
        self._path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # whoever was the last to go has removed the directory as well
            lasting.names(self._path.parent)


class Slots:
    """This process's slot file, made when the first slot is asked for. Safe to use from any thread."""

    def __init__(self, directory: Path, clock: Callable[[], int]) -> None:
        self.directory = directory
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self.worker = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._maps: list[mmap.mmap] = []
        self._views: list[memoryview] = []
        self._segments = 0
        self._free: list[int] = []  # segments, by where they begin
        self._counting: dict[
            int, list[int]
        ] = {}  # generation -> its segments, the last of which is being filled
        self._free_spent: list[int] = []
        self._try_again = 0.0

    @property
    def path(self) -> Path:
        """Where the file is, or would be."""
        return self.directory / f"{self.worker}{SUFFIX}"

    def counts(self, generation: int, of: Counted) -> Place | None:
        """A new record of counts; ``None`` where there is no room for it."""
        record = layout.counts_record(generation, of)
        with self._lock:
            segment = self._segment_for(generation, len(record))
            if segment is None:
                return None
            words, content = self._views[-1], self._maps[-1]
            filled = words[(segment + layout.FILLED) // WORD]
            at = segment + filled
            content[at : at + len(record)] = record
            words[(segment + layout.FILLED) // WORD] = filled + len(record)  # from here on it is seen
            return Place(words, content, at // WORD)

    def flushed(self, generation: int) -> None:
        """Say that the store has a generation of counts and all before it, and use their room again."""
        with self._lock:
            if self._descriptor is None:
                return
            self._views[-1][layout.FLUSHED // WORD] = generation
            for old in [old for old in self._counting if old <= generation]:
                self._free += self._counting.pop(old)

    def spent(self, subject: str, name: str, period: int) -> Place | None:
        """A new slot for what is spent of a counter; ``None`` where there is no room for it."""
        slot = layout.spent_slot(subject, name, period)
        if slot is None:
            return None
        with self._lock:
            if not self._free_spent and not self._add_spent():
                return None
            at = self._free_spent.pop()
            words, content = self._views[-1], self._maps[-1]
            content[at + WORD : at + SPENT_SLOT] = slot[WORD:]
            words[(at + layout.STATE) // WORD] = layout.LIVE  # from here on it is seen
            return Place(words, content, at // WORD)

    def release(self, place: Place) -> None:
        """Give a spent slot back, once nothing is held of its counter."""
        with self._lock:
            if self._descriptor is None:
                return
            self._views[-1][place.at + layout.STATE // WORD] = layout.FREE
            self._free_spent.append(place.at * WORD)

    def living(self) -> int:
        """How many workers have a file here, the dead that nobody has seen to among them; 1 at least."""
        try:
            return max(sum(name.endswith(SUFFIX) for name in os.listdir(self.directory)), 1)  # noqa: PTH208  # hot
        except OSError:
            return 1

    def names(self) -> set[str]:
        """The workers that have a file here."""
        return {path.name.removesuffix(SUFFIX) for path in self.directory.glob(f"*{SUFFIX}")}

    def counting(self) -> set[str]:
        """The ids of keys of which any worker here, living or dead, has counted what the store may not have yet.

        Whoever reads the store after this knows of every use that was counted before. Raises ``Unavailable``.
        """
        found: set[str] = set()
        for path in self.directory.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):  # sent, and removed meanwhile
                found |= _counted(path)
        return found

    def dead(self) -> Iterator[Dead]:
        """The files of workers that have died, one after the other; each is let go of when the next is asked for."""
        with suppress(OSError):
            for path in sorted(self.directory.iterdir()):
                if path.suffix not in (SUFFIX, _UNFINISHED) or path == self.path:
                    continue
                descriptor = _locked(path)
                if descriptor is None:
                    continue
                try:
                    if path.suffix == _UNFINISHED:
                        _sweep(path, descriptor)
                        continue
                    yield Dead(path, layout.read(_content(descriptor)))
                finally:
                    os.close(descriptor)

    def close(self, *, empty: bool) -> None:
        """Let go of the file. ``empty`` says that nothing is left in it for a successor."""
        with self._lock:
            if self._descriptor is not None and empty:
                self.path.unlink(missing_ok=True)
                with suppress(OSError):
                    # A file that came back would be counted, its mark being gone.
                    lasting.names(self.directory)
                    self.directory.rmdir()  # which fails while anybody else is there
            self._let_go()

    def after_fork(self) -> None:
        """Let go, in a child, of the parent's file: its lock must end with the parent."""
        self._let_go()
        self._begin()

    def _let_go(self) -> None:
        for view in self._views:
            view.release()
        for mapped in self._maps:
            with suppress(BufferError):
                mapped.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._views, self._maps, self._descriptor = [], [], None
        self._segments, self._free, self._counting, self._free_spent = 0, [], {}, []

    def _segment_for(self, generation: int, size: int) -> int | None:
        own = self._counting.get(generation)
        if own and self._views[-1][(own[-1] + layout.FILLED) // WORD] + size <= SEGMENT:
            return own[-1]
        segment = self._take_segment() if size <= SEGMENT - SEGMENT_HEAD else None
        if segment is None:
            return None
        words = self._views[-1]
        # Until the last of these it is a segment of counts that were flushed, or none: nobody reads it.
        words[(segment + layout.FILLED) // WORD] = SEGMENT_HEAD
        words[(segment + layout.GENERATION) // WORD] = generation
        words[(segment + layout.KIND) // WORD] = COUNTS
        self._counting.setdefault(generation, []).append(segment)
        return segment

    def _add_spent(self) -> bool:
        segment = self._take_segment()
        if segment is None:
            return False
        self._maps[-1][segment : segment + SEGMENT] = bytes(SEGMENT)
        self._views[-1][(segment + layout.KIND) // WORD] = SPENT
        slots = range(segment + SEGMENT - SPENT_SLOT, segment, -SPENT_SLOT)
        self._free_spent += slots
        return True

    def _take_segment(self) -> int | None:
        if not self._free and not (self._make() if self._descriptor is None else self._grow(self._segments)):
            return None
        return self._free.pop()

    def _make(self) -> bool:
        if time.monotonic() < self._try_again:
            return False
        unfinished = self.path.with_suffix(_UNFINISHED)
        try:
            self._descriptor = _new(unfinished)
            # Locked before it has its name: nobody may take it for a dead worker's.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            os.pwrite(self._descriptor, layout.header(self.worker, boot(), self._clock()), 0)
            if not self._grow(_FIRST):
                raise OSError("there is no room for it")
            unfinished.rename(self.path)
        except OSError as trouble:
            log.warning("no slot file can be made in %s: %s", self.directory, trouble)
            if self._descriptor is not None:
                unfinished.unlink(missing_ok=True)
            self._let_go()
            self._try_again = time.monotonic() + _BREATHER
            return False
        return True

    def _grow(self, more: int) -> bool:
        assert self._descriptor is not None
        more = min(more, MOST - self._segments)
        begin = HEADER + self._segments * SEGMENT
        try:
            # Written and not only lengthened: a store to a page that the disk has no room for would kill the process.
            done = 0
            while done < more * SEGMENT:
                done += os.pwrite(self._descriptor, bytes(more * SEGMENT - done), begin + done)
            mapped = mmap.mmap(self._descriptor, begin + more * SEGMENT)
        except OSError:
            return False
        if more <= 0:
            return False
        self._maps.append(mapped)
        self._views.append(memoryview(mapped).cast("Q"))
        self._segments += more
        self._free += range(begin + (more - 1) * SEGMENT, begin - 1, -SEGMENT)
        return True


def _new(path: Path) -> int:
    """Make a file that was not there, and its directory; a descriptor. Raises ``OSError``."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        _prepare(path.parent)
        with suppress(
            FileNotFoundError
        ):  # somebody who was the last to go has removed the directory meanwhile
            return os.open(path, flags, 0o600)


def _prepare(directory: Path) -> None:
    """Make the directory, or be sure of it. Raises ``OSError`` where a stranger could write to it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found, own = directory.lstat(), os.geteuid()
    if not stat.S_ISDIR(found.st_mode) or (own and found.st_uid not in (own, 0)) or found.st_mode & 0o022:
        raise PermissionError("others than this user could write there")


def _locked(path: Path) -> int | None:
    """A descriptor of a file that nobody has the lock of, with the lock; ``None`` where its worker lives."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (
            os.fstat(descriptor).st_ino == path.stat().st_ino
        ):  # and not of a file that somebody has just buried
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _sweep(path: Path, descriptor: int) -> None:
    if time.time() - os.fstat(descriptor).st_mtime > _ABANDONED:
        path.unlink(missing_ok=True)


def _counted(path: Path) -> set[str]:
    try:
        held = layout.read(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as trouble:
        raise Unavailable(f"the slot file {path} cannot be read: {trouble.strerror}") from None
    if held is None:
        raise Unavailable(f"the slot file {path} is damaged")
    return {counted.of.key_id for counts in held.counts.values() for counted in counts}


def _content(descriptor: int) -> bytes:
    parts = []
    os.lseek(descriptor, 0, os.SEEK_SET)
    while part := os.read(descriptor, 1024 * 1024):
        parts.append(part)
    return b"".join(parts)
