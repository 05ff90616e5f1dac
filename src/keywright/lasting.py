"""Files that outlive the machine: with their content, and with their names, which a sync of a file does not promise."""

import os
from pathlib import Path


def names(directory: Path) -> None:
    """Let the names in a directory outlive the machine: what was made, linked or renamed there. Raises ``OSError``."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, text: str) -> None:
    """Write a file that is there with all of its content or not at all, whoever reads and whatever is killed.

    It outlives the machine when this returns. Raises ``OSError``.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    names(path.parent)
