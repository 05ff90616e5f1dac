"""A board that all workers write on and each can read: memory that was mapped before they were forked.

Each place on it belongs to one worker at a time, and keeps what was written there last when that worker is killed, for its
successor to go on from. A place has two halves, written in turn and each with its check sum, so that whoever reads while
somebody writes, or after somebody was killed at it, reads what was written before.
"""

import mmap
import struct
from collections.abc import Iterator
from typing import Final
from zlib import crc32

#: What one half holds, in bytes. Memory that is never written is never taken from the machine.
LONGEST: Final = 256 * 1024
_HEAD: Final = struct.Struct("<QII")  # how many were written here, length, check sum
_HALF: Final = _HEAD.size + LONGEST


class Board:
    """``count`` places, empty at first. Make it before the workers are forked."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._map = mmap.mmap(-1, count * 2 * _HALF)

    def place(self, number: int) -> "Place":
        """One of the places, from 0."""
        return Place(self, self._map, number * 2 * _HALF)

    def all(self) -> Iterator[bytes]:
        """What stands on the board now, of each place that was ever written on."""
        found = (self.place(number).read() for number in range(self.count))
        return (text for text in found if text)


class Place:
    """Where one worker writes."""

    def __init__(self, board: Board, memory: mmap.mmap, begin: int) -> None:
        self.board = board
        self._map = memory
        self._begin = begin

    def write(self, text: bytes) -> None:
        """Put this in place of what stood there. Raises ``ValueError`` where it is longer than ``LONGEST``."""
        if len(text) > LONGEST:
            raise ValueError(f"{len(text)} bytes do not fit")
        number = max((number for number, _ in self._halves()), default=0) + 1
        at = self._begin + (number % 2) * _HALF
        self._map[at + _HEAD.size : at + _HEAD.size + len(text)] = text
        self._map[at : at + _HEAD.size] = _HEAD.pack(number, len(text), crc32(text))

    def read(self) -> bytes:
        """What was written last; nothing where nothing ever was."""
        return max(self._halves(), default=(0, b""))[1]

    def _halves(self) -> Iterator[tuple[int, bytes]]:
        for at in (self._begin, self._begin + _HALF):
            number, length, check = _HEAD.unpack_from(self._map, at)
            text = self._map[at + _HEAD.size : at + _HEAD.size + min(length, LONGEST)]
            if number and crc32(text) == check:
                yield number, text
