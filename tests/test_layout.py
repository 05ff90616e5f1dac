"""The slot file as bytes: what is written is read, and whatever state it is in is read without harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keywright import layout, limits
from keywright.layout import COUNTS, HEADER, SEGMENT, SEGMENT_HEAD, SPENT, SPENT_SLOT, WORD, Counted, Counts

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
numbers = st.integers(0, 2**63 - 1)
counted = st.builds(Counted, texts, texts, texts, texts, numbers, texts, texts, st.integers(0, 9))
addresses = st.none() | st.ip_addresses().map(str)
counters = st.tuples(st.text("abc:é", max_size=40), st.text("abc-", max_size=40), st.integers(-1, 2**60))


def word(content: bytearray, at: int, value: int) -> None:
    """Put a word where it belongs."""
    content[at : at + WORD] = value.to_bytes(
        WORD, "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"
    )


def file_of(
    generation: int,
    records: list[tuple[Counted, int, int, str | None]],
    spent: dict[tuple[str, str, int], int],
) -> bytearray:
    """A file as ``slots`` writes it."""
    content = bytearray(layout.header("4711-ab", "boot", 7)) + bytearray(2 * SEGMENT)
    at = SEGMENT_HEAD
    for of, times, last, address in records:
        record = bytearray(layout.counts_record(generation, of))
        for place, value in ((layout.TIMES, times), (layout.LAST, last)):
            word(record, place, value)
        encoded = layout.address(address)
        record[layout.ADDRESS : layout.ADDRESS + len(encoded)] = encoded
        content[HEADER + at : HEADER + at + len(record)] = record
        at += len(record)
    for place, value in ((layout.FILLED, at), (layout.GENERATION, generation), (layout.KIND, COUNTS)):
        word(content, HEADER + place, value)
    second = HEADER + SEGMENT
    word(content, second + layout.KIND, SPENT)
    for n, (counter, amount) in enumerate(spent.items(), 1):
        slot = layout.spent_slot(*counter)
        assert slot is not None
        content[second + n * SPENT_SLOT : second + (n + 1) * SPENT_SLOT] = slot
        word(content, second + n * SPENT_SLOT + layout.AMOUNT, amount)
        word(content, second + n * SPENT_SLOT + layout.STATE, layout.LIVE)
    return content


@given(
    st.integers(1, 2**40),
    st.lists(st.tuples(counted, st.integers(1, 2**40), numbers, addresses), max_size=20),
    st.dictionaries(counters, numbers, max_size=20),
)
def test_what_is_written_is_read(
    generation: int,
    records: list[tuple[Counted, int, int, str | None]],
    spent: dict[tuple[str, str, int], int],
) -> None:
    """Counts come back under their generation with their last use, and what was spent under its counter."""
    found = layout.read(bytes(file_of(generation, records, spent)))

    assert found is not None
    assert (found.worker, found.boot) == ("4711-ab", "boot")
    assert found.counts == ({generation: [Counts(*record) for record in records]} if records else {})
    assert found.spent == spent


@given(st.binary(max_size=3 * SEGMENT), st.integers(0, 2**64 - 1), st.data())
def test_any_bytes_are_read_without_harm(noise: bytes, filled: int, data: st.DataObject) -> None:
    """Nothing that stands in a file makes reading it fail, or makes it say what nobody has written."""
    content = file_of(3, [(Counted("k", "s", "e", "a", 1, "ok", "", 1), 5, 6, None)], {("k", "n", 0): 9})
    word(content, HEADER + layout.FILLED, filled)
    at = data.draw(st.integers(0, len(content)))
    found = layout.read(bytes(content[:at] + noise + content[at:])[: data.draw(st.integers(0, len(content)))])

    for counts in [] if found is None else found.counts.values():
        assert {counts.of.key_id for counts in counts} <= {"k"}
    assert layout.read(noise) is None or noise.startswith(layout.MAGIC)


def test_what_was_flushed_is_not_read_again() -> None:
    """A generation that the header calls flushed is not there, nor a record of an older generation in a newer segment."""
    content = file_of(3, [(Counted("k", "s", "e", "a", 1, "ok", "", 1), 5, 6, None)] * 2, {})
    word(content, HEADER + SEGMENT_HEAD, 2)  # as if this page were older than the segment's head
    found = layout.read(bytes(content))
    assert found is not None
    assert [len(counts) for counts in found.counts.values()] == [1]

    word(content, layout.FLUSHED, 3)
    found = layout.read(bytes(content))
    assert found is not None
    assert found.counts == {}


def test_an_address_that_was_being_written_is_none() -> None:
    """Between the odd number and the even one an address is not believed; the count beside it is."""
    content = file_of(3, [(Counted("k", "s", "e", "a", 1, "ok", "", 1), 5, 6, "192.0.2.1")], {})
    word(content, HEADER + SEGMENT_HEAD + layout.SEQ, 1)
    found = layout.read(bytes(content))

    assert found is not None
    assert found.counts[3] == [Counts(Counted("k", "s", "e", "a", 1, "ok", "", 1), 5, 6, None)]


def test_what_is_too_long_has_no_place() -> None:
    """Names too long for a slot get none, and an address that is too long is none."""
    assert layout.spent_slot("s" * 300, "n", 0) is None
    assert layout.address("f" * 48) == b"\0"


# ------------------------------------------------------------------------------------------------------- how large


@pytest.mark.security("R-09")
@given(
    limit=st.integers(0, limits.LARGEST),
    part=st.floats(0, 1),
    workers=st.integers(1, 64),
    others=st.integers(0, 10**13),
    own=st.integers(0, 10**13),
)
def test_blocks_stay_within_a_hundredth(limit: int, part: float, workers: int, others: int, own: int) -> None:
    """All that is held is at most a hundredth of the limit, never more than is left, and none near the end."""
    rest = int(limit * part)
    size = limits.block(limit, rest, workers=workers, others=others, own=own)

    assert 0 <= size <= rest
    if size:
        assert rest > 100 * workers
        assert own + others + size <= limit // 100
        assert own + size <= limit // 100 // workers
    assert 0 <= limits.refill_below(size) <= size / 4


@pytest.mark.parametrize(
    ("limit", "rest", "workers", "size"),
    [(10, 10, 1, 0), (100, 100, 1, 0), (10_000, 10_000, 1, 100), (10_000, 10_000, 4, 25), (10_000, 400, 4, 0),
     (10_000, 401, 4, 25), (10**15 - 1, 10**14, 1, 1_000_000), (150, 150, 1, 0), (250, 250, 1, 2)],
)  # fmt: skip
def test_how_large_a_block_is(limit: int, rest: int, workers: int, size: int) -> None:
    """A hundredth of the limit by the workers, where more than a hundred calls for each are left."""
    assert limits.block(limit, rest, workers=workers, others=0, own=0) == size
