"""`FileSystem`: a persistence with a file for each key.

A file is written beside the one it replaces, under its name and ``.new``, and then renamed.
Of a single key that is all or nothing by itself. Several at once go by way of a plan, the file
``batch``, that lists them with their checksums:

1. Each new value is written beside.
2. The plan is written beside, and renamed. Once the directory is synced it is decided.
3. The new values are renamed, the others removed, and the directory is synced.
4. The plan is removed.

Opening a directory finds a plan there if the power failed between 2 and 4, or a little later, as
the removal of a file may be undone until the next sync. It is carried out if each of its values
is there, beside or in place: then the directory had been synced in step 2, or it does no harm,
as the commit that was under way had not returned. Otherwise step 2 was not done, or step 4 was
and newer values are in place: then it is dropped. What is left beside is removed in both cases.

What fails before the end of step 2 is undone, and until that succeeds nothing else is committed.
What fails later is decided, and is done before anything else is committed.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from struct import Struct

import attrs

from ._directory import Directory
from ._threaded import ThreadedPersistence

_PLAN = "batch"
_BESIDE = ".new"
_KEY_NAME = re.compile(r"[01][0-9a-f]{4}")
_BESIDE_NAME = re.compile(rf"({_KEY_NAME.pattern}|{_PLAN}){re.escape(_BESIDE)}")
_ENTRY = Struct(">II")
_CHECKSUM = Struct(">I")


class FileSystem(ThreadedPersistence):
    """Keeps a session in a directory, with a file for each record.

    The directory is created if need be, though not its parents, and belongs to the session: nothing
    else may be in it. While a client uses it no other one can, of this process or of another.

    A message that was accepted survives the loss of power: the file and the directory
    are synced before. So each message costs some syncs of the disk, and `SQLite`, which needs one
    for all that is stored together, is several times faster. What speaks for this one is
    that a record is a file, to be looked at, copied and deleted with any tool.

    Reading and writing happen in a thread, one at a time.

    Arguments:
        path: of the directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        super().__init__(Files(Directory(self._path)))

    def __repr__(self) -> str:
        return f"FileSystem({str(self._path)!r})"


@attrs.frozen
class Plan:
    """What a batch does: the checksums of the values that it stores, and the keys it deletes."""

    saves: Mapping[int, int]
    deletes: Collection[int]

    def encode(self) -> bytes:
        """The file."""
        body = _ENTRY.pack(len(self.saves), len(self.deletes))
        body += b"".join(_ENTRY.pack(key, checksum) for key, checksum in self.saves.items())
        body += b"".join(_ENTRY.pack(key, 0) for key in self.deletes)
        return _CHECKSUM.pack(zlib.crc32(body)) + body

    @classmethod
    def decode(cls, data: bytes) -> Plan | None:
        """The plan of a file; None when that is damaged."""
        body = data[_CHECKSUM.size :]
        if data[: _CHECKSUM.size] != _CHECKSUM.pack(zlib.crc32(body)) or len(body) < _ENTRY.size:
            return None
        (saves, _), *entries = _ENTRY.iter_unpack(body)
        return cls(dict(entries[:saves]), [key for key, _ in entries[saves:]])


class Files:
    """The same without Trio, in a directory."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._unfinished: Plan | None = None
        """A plan that is decided, and not carried out."""
        self._left_over: Collection[str] = ()
        """Files of a commit that failed, which may be there."""

    def open(self) -> None:
        """Locks the directory, and ends what a crash left in the middle."""
        self.directory.open()
        self._unfinished, self._left_over = None, ()  # since then others may have been here
        try:
            self._recover()
        except BaseException:
            self.directory.close()
            raise

    def close(self) -> None:
        """Unlocks the directory."""
        self.directory.close()

    def load(self, key: int) -> bytes | None:
        """The value of a key."""
        return self.directory.read(_name(key))

    def keys(self) -> list[int]:
        """Those that have a value."""
        return [int(name, 16) for name in self.directory.names() if _KEY_NAME.fullmatch(name)]

    def load_all(self) -> dict[int, bytes | None]:
        """All values."""
        return {key: self.load(key) for key in self.keys()}

    def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        """Stores and deletes, all or nothing."""
        self.directory.check()
        self._clean_up()
        self._finish()
        self._left_over = (_PLAN, _PLAN + _BESIDE, *map(_beside, saves))
        try:
            if len(saves) + len(deletes) > 1:
                self._unfinished = self._decide(saves, deletes)
            else:
                self._commit_one(saves, deletes)
        except BaseException:
            with suppress(OSError):  # the next commit tries again
                self._clean_up()
            raise
        self._left_over = ()
        with suppress(OSError):  # it is decided; the next commit tries again
            self._finish()

    def _commit_one(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        for key, value in saves.items():
            self.directory.write(_beside(key), value)
            self.directory.rename(_beside(key), _name(key))
        for key in deletes:
            self.directory.remove(_name(key))
        self.directory.sync()

    def _decide(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> Plan:
        plan = Plan({key: zlib.crc32(value) for key, value in saves.items()}, deletes)
        for key, value in saves.items():
            self.directory.write(_beside(key), value)
        self.directory.write(_PLAN + _BESIDE, plan.encode())
        self.directory.rename(_PLAN + _BESIDE, _PLAN)
        self.directory.sync()
        return plan

    def _clean_up(self) -> None:
        """Removes what a commit that failed left: the room on the disk, and the plan above all.

        The sync of a later commit would have decided that.
        """
        for name in self._left_over:
            self.directory.remove(name)
        self._left_over = ()

    def _finish(self) -> None:
        """Carries out what is decided."""
        plan = self._unfinished
        if plan is None:
            return
        for key in plan.saves:
            with suppress(FileNotFoundError):  # an earlier attempt got as far as this
                self.directory.rename(_beside(key), _name(key))
        for key in plan.deletes:
            self.directory.remove(_name(key))
        self.directory.sync()
        self.directory.remove(_PLAN)
        self._unfinished = None

    def _recover(self) -> None:
        directory = self.directory
        data = directory.read(_PLAN)
        plan = None if data is None else Plan.decode(data)
        if plan is not None:
            self._carry_out(plan)
        for name in directory.names():
            if _BESIDE_NAME.fullmatch(name):
                directory.remove(name)
        directory.remove(_PLAN)
        directory.sync()

    def _carry_out(self, plan: Plan) -> None:
        beside: list[int] = []
        for key, checksum in plan.saves.items():
            if self._has(_beside(key), checksum):
                beside.append(key)
            elif not self._has(_name(key), checksum):
                return
        for key in beside:
            self.directory.rename(_beside(key), _name(key))
        for key in plan.deletes:
            self.directory.remove(_name(key))
        self.directory.sync()

    def _has(self, name: str, checksum: int) -> bool:
        data = self.directory.read(name)
        return data is not None and zlib.crc32(data) == checksum


def _name(key: int) -> str:
    return f"{key:05x}"


def _beside(key: int) -> str:
    return _name(key) + _BESIDE
