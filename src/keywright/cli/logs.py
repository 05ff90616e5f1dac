"""How the command writes its log: on standard error, a record a line, whatever strangers have put into it."""

import logging
import re
from typing import Any, Final

_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_IN_A_TRACE: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def begin(level: int) -> None:
    """Write what is at least this grave, unless a log is written already."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("keywright.audit").setLevel(logging.INFO)  # a witness outside, whatever else is said


class OneLine(logging.Formatter):
    """Escapes control characters, and indents the lines of a traceback: none that begins a record is anybody else's."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The record's own line."""
        record.message = _CONTROLS.sub(_escaped, record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The lines under it."""
        return _IN_A_TRACE.sub(_escaped, "    " + super().formatException(ei).replace("\n", "\n    "))


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"
