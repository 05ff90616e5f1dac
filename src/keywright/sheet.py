"""Records as CSV that no spreadsheet computes. Pure."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

#: What a spreadsheet would take for the beginning of a formula.
_COMPUTED: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")


def lines(records: Iterable[dict[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    """The names of the columns, then a line for each record; a cell may hold line ends, within quotation marks.

    A list of texts is written with spaces between them, whatever else has parts as JSON.
    """
    yield _line(columns)
    for record in records:
        yield _line([_cell(record[name]) for name in columns])


def _line(cells: Sequence[str]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerow(cells)
    return written.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        text = " ".join(value)
    else:
        text = json.dumps(value) if isinstance(value, dict | list) else "" if value is None else str(value)
    return f"'{text}" if text[:1] in _COMPUTED else text
