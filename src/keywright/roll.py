"""The roll of all ids: says of one that it does not exist, for certain and in little memory. Pure.

A Bloom filter (Bloom, 1970) with 16 bits an id or more and 7 hashes: of ids that do not exist one in a thousand, at most,
looks as if it might. Ids are entered and never struck off: one that is gone only costs the look-up that it always cost.
"""

from typing import Final

#: Ids that there is room for at least.
LEAST: Final = 20_000
_BITS: Final = 16  # an id
_HASHES: Final = 7


class Roll:
    """Ids of keys. ``in`` is never wrong about one that was entered."""

    __slots__ = ("_bits", "_size", "room")

    def __init__(self, expected: int) -> None:
        """Make room for twice as many as there are now."""
        self.room = max(2 * expected, LEAST)
        self._size = self.room * _BITS
        self._bits = bytearray(self._size // 8)

    def add(self, key_id: bytes) -> None:
        """Enter one. Where ``room`` is used up it serves less and less: make a new one."""
        bits, size = self._bits, self._size
        bit, step = _two(key_id)
        for _ in range(_HASHES):
            place = bit % size
            bits[place >> 3] |= 1 << (place & 7)
            bit += step
        self.room -= 1

    def __contains__(self, key_id: bytes) -> bool:
        bits, size = self._bits, self._size
        bit, step = _two(key_id)
        for _ in range(_HASHES):
            place = bit % size
            if not bits[place >> 3] & (1 << (place & 7)):
                return False  # as nearly all that were not entered show at the first bit or the second
            bit += step
        return True


def _two(key_id: bytes) -> tuple[int, int]:
    """What the bits of an id are reckoned from: two halves of Python's keyed hash, as Kirsch and Mitzenmacher (2006) do."""
    number = hash(key_id) & 0xFFFF_FFFF_FFFF_FFFF
    return number & 0xFFFF_FFFF, number >> 32 | 1


__all__ = ["Roll"]
