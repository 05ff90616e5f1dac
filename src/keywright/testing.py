"""For tests, ours and our users': a clock that stands still, and a throw-away installation.

clock = Clock()
with fresh(tmp_path, clock=clock) as kw:
    ...
    clock.advance(hours=1)
"""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from keywright import profiles
from keywright.installation import Keywright
from keywright.times import instant_of


class Clock:
    """A clock that moves when it is told to. Calling it gives microseconds, like the one that Keywright reads."""

    def __init__(self, at: datetime = datetime(2027, 1, 15, 12, 0, 30, tzinfo=UTC)) -> None:
        self.at = at

    def __call__(self) -> int:  # noqa: D102  # the class says it
        return instant_of(self.at)

    def advance(self, **by: float) -> None:
        """Move on, by what ``timedelta`` takes: ``seconds=1``, ``hours=-2``."""
        self.at += timedelta(**by)


def fresh(directory: Path, *, clock: Clock | None = None, sources: tuple[str, ...] = ()) -> Keywright:
    """Make a new installation in a directory, with the given keyspaces' TOML applied, or else the default one."""
    kw = Keywright(f"sqlite:///{directory / 'test.db'}", clock=clock or Clock())
    for source in sources or (profiles.source("default"),):
        kw.keyspaces.apply(source)
    return kw


def copied(template: Path, directory: Path, *, clock: Clock | None = None) -> Keywright:
    """Open a copy of an installation that ``fresh`` made in ``template`` and that was closed: faster than a new one."""
    for file in template.glob("test*"):
        if file.is_file():
            shutil.copy2(file, directory / file.name)
    return Keywright(f"sqlite:///{directory / 'test.db'}", clock=clock or Clock())
