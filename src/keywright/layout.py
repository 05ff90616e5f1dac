"""How a slot file is laid out: what a worker has counted, and has spent of what it took, for whoever comes after it. Pure.

A page that says whose file it is, then segments of 64 KiB, each of one kind::

    header     magic | flushed | begun | boot | worker
    segment    kind | generation | filled | records ...
      counts   generation | times | last | seq | length, crc | address | identity      64-byte steps
      spent    state | spent | length, crc | identity                                  256 bytes each

A figure that moves is one aligned word, written by one store: a kill leaves the old one or the new one. Everything else
is written before the word that makes it seen, a counts segment's ``filled`` or a spent slot's ``state``, and a kill stops
a program between two of its stores, never reorders them. The one thing that changes in place and is longer than a word,
the address that a secret was last used from, lies between an odd ``seq`` and the even one after it.

A machine that loses its power may leave pages of different ages. So every record bears the generation of its counts and
a checksum of its identity, and no record's words straddle a page: what does not fit together is passed over, never
counted twice. ``boot`` tells that it happened, and then what was spent is not believed at all.
"""

import struct
import zlib
from typing import Final, NamedTuple, TypeVar

import msgspec

T = TypeVar("T")

MAGIC: Final = b"kwslots1"
HEADER: Final = 4096  # bytes
SEGMENT: Final = 65_536
WORD: Final = 8

#: Places of the header's words, and of its texts.
FLUSHED: Final = 8
_BEGUN, _BOOT, _WORKER = 16, 24, 64
_LONGEST_BOOT, _LONGEST_WORKER = 40, 64

FREE, COUNTS, SPENT = 0, 1, 2  # kinds of segments
KIND, GENERATION, FILLED = 0, 8, 16  # words of a segment
SEGMENT_HEAD: Final = 64

TIMES, LAST, SEQ = 8, 16, 24  # words of a record of counts, after its generation
ADDRESS: Final = 40
LONGEST_ADDRESS: Final = 47
_COUNTS_IDENTITY: Final = 88
_STEP: Final = 64

SPENT_SLOT: Final = 256
STATE, AMOUNT = 0, 8  # words of a spent slot
_SPENT_IDENTITY: Final = 24
LIVE: Final = 1

_sealed: Final = struct.Struct("=II")
_word: Final = struct.Struct("=Q")


class Counted(NamedTuple):
    """What a record of counts is of."""

    key_id: str
    keyspace: str
    environment: str
    account_id: str
    minute: int
    code: str
    resource: str
    secret: int  # the number of the secret that was used; 0 where the request was refused


class Counts(NamedTuple):
    """A record of counts, as it is found."""

    of: Counted
    times: int
    last: int
    address: str | None


class Found(NamedTuple):
    """What a slot file holds: what is to be flushed, by generation, and what was spent of each counter."""

    worker: str
    boot: str
    counts: dict[int, list[Counts]]
    spent: dict[tuple[str, str, int], int]


def header(worker: str, boot: str, begun: int) -> bytes:
    """The first page of a new file."""
    page = bytearray(HEADER)
    page[: len(MAGIC)] = MAGIC
    _word.pack_into(page, _BEGUN, begun)
    for at, text, most in ((_BOOT, boot, _LONGEST_BOOT), (_WORKER, worker, _LONGEST_WORKER)):
        encoded = text.encode("ascii")
        assert len(encoded) <= most
        page[at : at + len(encoded)] = encoded
    return bytes(page)


def counts_record(generation: int, of: Counted) -> bytes:
    """A new record of counts, of nothing yet, padded to its whole length."""
    identity = msgspec.json.encode(of)
    record = bytearray(-(-(_COUNTS_IDENTITY + len(identity)) // _STEP) * _STEP)
    _word.pack_into(record, 0, generation)
    _sealed.pack_into(record, 32, len(identity), zlib.crc32(identity))
    record[_COUNTS_IDENTITY : _COUNTS_IDENTITY + len(identity)] = identity
    return bytes(record)


def address(text: str | None) -> bytes:
    """An address as a record holds it; one that is too long is none."""
    encoded = (text or "").encode("utf-8", "replace")
    if len(encoded) > LONGEST_ADDRESS:
        encoded = b""
    return bytes((len(encoded),)) + encoded


def spent_slot(subject: str, name: str, period: int) -> bytes | None:
    """A new spent slot without its state, of nothing yet; ``None`` where the names are too long for one."""
    identity = msgspec.json.encode((subject, name, period))
    if len(identity) > SPENT_SLOT - _SPENT_IDENTITY:
        return None
    slot = bytearray(SPENT_SLOT)
    _sealed.pack_into(slot, 16, len(identity), zlib.crc32(identity))
    slot[_SPENT_IDENTITY : _SPENT_IDENTITY + len(identity)] = identity
    return bytes(slot)


def read(content: bytes) -> Found | None:
    """What a file holds, whatever state it was left in; ``None`` where it is none of ours."""
    if len(content) < HEADER or not content.startswith(MAGIC):
        return None
    try:
        boot, worker = (
            content[at : at + most].rstrip(b"\0").decode("ascii")
            for at, most in ((_BOOT, _LONGEST_BOOT), (_WORKER, _LONGEST_WORKER))
        )
    except UnicodeDecodeError:
        return None
    flushed = _number(content, FLUSHED)
    found = Found(worker, boot, {}, {})
    for at in range(HEADER, len(content) - SEGMENT + 1, SEGMENT):
        segment = content[at : at + SEGMENT]
        kind, generation = _number(segment, KIND), _number(segment, GENERATION)
        if kind == COUNTS and generation > flushed:
            found.counts.setdefault(generation, []).extend(_counts(segment, generation))
        elif kind == SPENT:
            found.spent.update(_spent(segment))
    return found._replace(counts={n: counts for n, counts in sorted(found.counts.items()) if counts})


def _counts(segment: bytes, generation: int) -> list[Counts]:
    found = []
    at, filled = SEGMENT_HEAD, min(_number(segment, FILLED), SEGMENT)
    while at + _COUNTS_IDENTITY < filled:
        identity = _identity(segment, at + 32, at + _COUNTS_IDENTITY)
        if identity is None:
            break  # where the next record begins is not known either
        times = _number(segment, at + TIMES)
        if _number(segment, at) == generation and times:
            of = _as(identity, Counted)
            if of is not None:
                found.append(Counts(of, times, _number(segment, at + LAST), _address(segment, at)))
        at += -(-(_COUNTS_IDENTITY + len(identity)) // _STEP) * _STEP
    return found


def _spent(segment: bytes) -> dict[tuple[str, str, int], int]:
    found = {}
    for at in range(SPENT_SLOT, SEGMENT - SPENT_SLOT + 1, SPENT_SLOT):
        if _number(segment, at + STATE) == LIVE:
            identity = _identity(segment, at + 16, at + _SPENT_IDENTITY)
            of = None if identity is None else _as(identity, tuple[str, str, int])
            if of is not None:
                found[of] = _number(segment, at + AMOUNT)
    return found


def _address(segment: bytes, at: int) -> str | None:
    length = segment[at + ADDRESS]
    if _number(segment, at + SEQ) & 1 or not 0 < length <= LONGEST_ADDRESS:
        return None
    return segment[at + ADDRESS + 1 : at + ADDRESS + 1 + length].decode("utf-8", "replace")


def _identity(segment: bytes, seal: int, at: int) -> bytes | None:
    length, checksum = _sealed.unpack_from(segment, seal)
    identity = segment[at : at + length]
    whole = 0 < length == len(identity) and zlib.crc32(identity) == checksum
    return identity if whole else None


def _as(identity: bytes, shape: type[T]) -> T | None:
    try:
        return msgspec.json.decode(identity, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _number(content: bytes, at: int) -> int:
    return int(_word.unpack_from(content, at)[0])
