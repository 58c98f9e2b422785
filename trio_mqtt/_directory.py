"""A directory of files, locked for one process, with the operations that a crash cannot tear.

Each method is one step, after which the power may fail; `FileSystem` puts them in an order in which
that does no harm. What was written survives from `write` on, what was renamed or removed from
`sync` on.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ._errors import PersistenceError

_LOCK = "lock"


class Directory:
    """The files of one directory, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BinaryIO | None = None

    def open(self) -> None:
        """Creates the directory if need be, and locks it against other processes.

        Raises:
            PersistenceError: another one has it.
            OSError: it cannot be used.
        """
        if not self.path.exists():
            self.path.mkdir(mode=0o700)  # messages are nobody else's business
        with suppress(PermissionError):  # the process that made it may have been killed before this
            _sync_directory(self.path.parent)
        lock = (self.path / _LOCK).open("ab")
        try:
            lock_file(lock)
        except OSError as error:
            lock.close()
            raise PersistenceError(f"{self.path} is in use by another client") from error
        self._lock = lock

    def close(self) -> None:
        """Unlocks it. The operating system does when the process is killed."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def check(self) -> None:
        """Raises `OSError` unless the directory of that name is the one that was locked."""
        assert self._lock is not None
        if not os.path.samestat(os.fstat(self._lock.fileno()), (self.path / _LOCK).stat()):
            raise FileNotFoundError(f"{self.path} is not the directory that was opened")

    def names(self) -> list[str]:
        """Of the files in it."""
        return os.listdir(self.path)

    def read(self, name: str) -> bytes | None:
        """The whole file; None when there is none."""
        with suppress(FileNotFoundError):
            return (self.path / name).read_bytes()
        return None

    def write(self, name: str, data: bytes) -> None:
        """Creates the file, or replaces what is in it, and has it safe."""
        with (self.path / name).open("wb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())

    def rename(self, name: str, other: str) -> None:
        """In the place of the other, if that exists. Safe after `sync`."""
        (self.path / name).replace(self.path / other)

    def remove(self, name: str) -> None:
        """The file, if it exists. Safe after `sync`."""
        (self.path / name).unlink(missing_ok=True)

    def sync(self) -> None:
        """Has the names safe."""
        _sync_directory(self.path)


def sync_file(descriptor: int) -> None:
    """Waits until the file is on the medium, and not merely in some cache."""
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415, there is none on Windows

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # where fsync leaves it to the drive's cache
    else:
        os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    if sys.platform == "win32":
        return  # directories cannot be synced, and NTFS has a journal for names
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def lock_file(file: BinaryIO) -> None:
    """Locks the file until it is closed. Raises `OSError` when somebody else has it."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415, there is one on Windows only

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # noqa: PLC0415, there is none on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
