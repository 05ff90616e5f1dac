"""Copies of a SQLite installation, taken while it is used: its three files in one tar, with a manifest.

Each file is copied by SQLite's backup API from one snapshot: writers go on meanwhile, and what had been committed when
the copy began is in it. The installation's secret is not.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from keywright import lasting
from keywright.errors import CannotStart, Conflict
from keywright.store.db import Database, translated
from keywright.store.schema import FILES, HEADS

FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
_STEP: Final = 1024  # pages, between two reports of progress
_MOST_MANIFEST: Final = 64 * 1024  # bytes
_READ: Final = 1024 * 1024

Progress = Callable[[str, float], None]


def write(database: Database, target: Path, about: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Copy an installation into a new file; its manifest. Raises ``Conflict``, ``CannotStart`` or ``Unavailable``."""
    if not database.is_sqlite:
        raise CannotStart("backup copies SQLite; for PostgreSQL use pg_dump")
    if target.exists():
        raise Conflict(f"{target} exists already and is left as it is")
    try:
        with tempfile.TemporaryDirectory(prefix=".keywright-", dir=target.absolute().parent) as directory:
            copies = {which: Path(directory) / f"{which}.db" for which in FILES}
            for which, copy in copies.items():
                _copy(database, which, copy, progress)
            manifest = about | {
                "format": FORMAT,
                "schema": dict(HEADS),
                "files": {
                    copy.name: {"bytes": copy.stat().st_size, "sha256": _hash(copy)}
                    for copy in copies.values()
                },
                "secret": "not inside: keep it apart, without it no key can be verified",
            }
            listed = Path(directory) / _MANIFEST
            listed.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            unfinished = Path(directory) / "whole.tar"
            descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                with tarfile.open(fileobj=file, mode="w") as tar:
                    for one in (listed, *copies.values()):
                        tar.add(one, one.name)
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, target)  # not a rename, which would replace what somebody else has put there
            lasting.names(target.absolute().parent)
    except FileExistsError:
        raise Conflict(f"{target} exists already and is left as it is") from None
    except OSError as trouble:
        raise CannotStart(f"{target} cannot be written: {trouble.strerror}") from None
    return manifest


def _copy(database: Database, which: str, copy: Path, progress: Progress) -> None:
    reader = database.reader(which)
    try:
        with translated():
            reader.connection.execute("BEGIN")  # one snapshot, however long it takes and whoever writes
            reader.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            into = sqlite3.connect(copy)
            try:
                reader.connection.backup(
                    into,
                    pages=_STEP,
                    progress=lambda _status, left, whole: progress(which, 1 - left / max(whole, 1)),
                )
            finally:
                into.close()
    finally:
        reader.close()


@contextmanager
def opened(file: Path, database: Database) -> Iterator[tuple[Database, dict[str, Any]]]:
    """A backup, taken out and checked, in a place of its own, on SQLite beside where ``place`` will put it; its manifest.

    Raises ``Conflict`` where there is a database already, ``CannotStart`` where the file is no whole backup of ours.
    """
    for which in FILES if database.is_sqlite else ():
        if database.file(which).exists():
            raise Conflict(f"{database.file(which)} exists already and is left as it is")
    beside = database.path.parent if database.is_sqlite else None
    try:
        with tempfile.TemporaryDirectory(prefix=".keywright-", dir=beside) as directory:
            taken = Database(f"sqlite:///{Path(directory) / 'k.db'}")
            try:
                yield taken, _take_out(file, taken)
            finally:
                taken.close()
    except (OSError, tarfile.TarError) as trouble:
        raise CannotStart(f"{file} cannot be restored: {trouble}") from None


def place(taken: Database, database: Database) -> None:
    """Put what was taken out where the installation is to be; the keys last, without which there is none.

    It outlives the machine when this returns; keys that do are never without what was taken from their limits.
    """
    taken.checkpoint()
    taken.close()
    placed: list[Path] = []
    try:
        for which in reversed(FILES):
            os.link(taken.file(which), database.file(which))
            placed.append(database.file(which))
            lasting.names(database.path.parent)
    except OSError:
        for file in placed:
            file.unlink()
        raise


def _take_out(file: Path, taken: Database) -> dict[str, Any]:
    with tarfile.open(file, mode="r:") as tar:
        manifest = _manifest(tar, file)
        for which in FILES:
            name, target = f"{which}.db", taken.file(which)
            try:
                source = tar.extractfile(name)
            except KeyError:
                source = None
            if source is None or name not in manifest["files"]:
                raise CannotStart(f"{file} is not a whole backup: {name} is missing")
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as copy:
                shutil.copyfileobj(source, copy, _READ)
                copy.flush()
                os.fsync(copy.fileno())
            if _hash(target) != manifest["files"][name].get("sha256"):
                raise CannotStart(f"{file} was damaged: {name} is not what the manifest says")
    return manifest


def _manifest(tar: tarfile.TarFile, file: Path) -> dict[str, Any]:
    try:
        found = tar.extractfile(_MANIFEST)
        manifest = json.loads(found.read(_MOST_MANIFEST) if found else b"")
        known = manifest["format"] == FORMAT and isinstance(manifest["files"], dict)
    except (KeyError, ValueError, TypeError):
        known = False
    if not known:
        raise CannotStart(f"{file} is not a backup that this version of Keywright can read")
    return dict(manifest)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
