"""`FileSystem` on a real directory: its files, its syncs, and what it finds when it is opened."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from trio_mqtt import FileSystem, PersistenceError, adopt_session
from trio_mqtt._directory import Directory
from trio_mqtt._file_system import Files, Plan
from trio_mqtt._records import MAX_KEY

from .persistences import store, stored
from .power_loss import ModelDirectory

A, B, C = b"a" * 12, b"b" * 13, b"c" * 5000


def open_files(path: Path) -> Files:
    files = Files(Directory(path))
    files.open()
    return files


# Files


async def test_a_record_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "session"
    await store(FileSystem(path), {1: A, 0x1ABCD: B})
    found = {file.name: file.read_bytes() for file in path.iterdir()}
    assert found == {"00001": A, "1abcd": B, "lock": b""}


def test_all_keys_have_a_name_of_their_own() -> None:
    image = frozenset((f"{key:05x}", b"%d" % key) for key in range(MAX_KEY + 1))
    files = Files(ModelDirectory(image))
    assert files.keys() == [int(name, 16) for name in files.directory.names()]
    assert sorted(files.keys()) == list(range(2**17))
    assert all(files.load(key) == b"%d" % key for key in range(0, 2**17, 97))


async def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "session"
    await store(FileSystem(path), {1: A})
    names = ["notes", "notes.new", "2abcd", "0001", "000011", "0ABCD", "00001.newer", "batch.old"]
    for name in names:
        (path / name).write_bytes(b"mine")
    (path / "directory").mkdir()
    assert await stored(FileSystem(path)) == {1: A}
    await store(FileSystem(path), {1: B, 2: C})
    assert all((path / name).read_bytes() == b"mine" for name in names)
    assert (path / "directory").is_dir()


async def test_what_a_crash_left_beside_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "session"
    await store(FileSystem(path), {1: A})
    for name in ("00001.new", "1ffff.new", "batch.new"):
        (path / name).write_bytes(B)
    assert await stored(FileSystem(path)) == {1: A}
    assert {file.name for file in path.iterdir()} == {"00001", "lock"}


async def test_a_batch_leaves_nothing_but_the_records(tmp_path: Path) -> None:
    path = tmp_path / "session"
    await store(FileSystem(path), {1: A, 2: B, 3: C})
    files = open_files(path)
    files.commit({1: C, 4: A}, [2, 3])
    files.directory.close()
    assert {file.name for file in path.iterdir()} == {"00001", "00004", "lock"}


@pytest.mark.parametrize("plan", [b"", b"\0" * 4, b"\0" * 12, Plan({2: 7}, [1]).encode()[:-1]])
async def test_a_damaged_plan_is_dropped(plan: bytes, tmp_path: Path) -> None:
    path = tmp_path / "session"
    await store(FileSystem(path), {1: A})
    (path / "batch").write_bytes(plan)
    (path / "00002.new").write_bytes(B)
    assert await stored(FileSystem(path)) == {1: A}
    assert not (path / "batch").exists()


@pytest.mark.parametrize(
    "plan",
    [Plan({}, []), Plan({1: 2}, []), Plan({}, [3]), Plan({1: 2**32 - 1, 0x1FFFF: 0}, [0, 7])],
)
def test_a_plan_is_read_as_it_was_written(plan: Plan) -> None:
    data = plan.encode()
    assert Plan.decode(data) == plan
    for position, byte in enumerate(data):
        for bit in range(8):
            changed = data[:position] + bytes([byte ^ 1 << bit]) + data[position + 1 :]
            assert Plan.decode(changed) is None
        assert Plan.decode(data[:position]) is None
    assert Plan.decode(data + bytes(8)) is None


async def test_a_directory_that_cannot_be_recovered_is_unlocked(tmp_path: Path) -> None:
    path = tmp_path / "session"
    await store(FileSystem(path), {1: A})
    (path / "batch").mkdir()
    with pytest.raises(PersistenceError, match="cannot open"):
        await adopt_session(FileSystem(path))
    (path / "batch").rmdir()
    assert await stored(FileSystem(path)) == {1: A}


# Syncs


class Syncs:
    """What `os.fsync` was called for: names of files with their sizes, directories."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._record)
        replace = Path.replace

        def recorded(path: Path, other: Path) -> Path:
            self.seen.append(f"{path.name} to {other.name}")
            return replace(path, other)

        monkeypatch.setattr(Path, "replace", recorded)

    def _record(self, descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        status = os.fstat(descriptor)
        is_file = stat.S_ISREG(status.st_mode)
        self.seen.append(f"{name} of {status.st_size}" if is_file else f"{name}/")
        self._fsync(descriptor)

    def take(self) -> list[str]:
        seen, self.seen = self.seen, []
        return seen


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    if sys.platform != "linux":
        pytest.skip("it looks into /proc")
    return Syncs(monkeypatch)


def test_each_operation_syncs_what_it_says(tmp_path: Path, syncs: Syncs) -> None:
    directory = Directory(tmp_path / "session")
    directory.open()
    assert syncs.take() == [f"{tmp_path.name}/"]  # where it was created
    for data in (C, A, b""):
        directory.write("file", data)
        assert syncs.take() == [f"file of {len(data)}"]
    directory.rename("file", "other")
    directory.remove("other")
    assert syncs.take() == ["file to other"]
    directory.sync()
    assert syncs.take() == ["session/"]
    directory.close()
    directory.open()
    # Who created it may have been killed before that was safe.
    assert syncs.take() == [f"{tmp_path.name}/"]
    directory.close()


def test_a_single_value_is_safe_when_its_commit_returns(tmp_path: Path, syncs: Syncs) -> None:
    files = open_files(tmp_path / "session")
    syncs.take()
    files.commit({1: C}, ())
    assert syncs.take() == ["00001.new of 5000", "00001.new to 00001", "session/"]
    files.commit({}, [1])
    assert syncs.take() == ["session/"]
    files.directory.close()


def test_a_batch_is_decided_before_it_is_carried_out(tmp_path: Path, syncs: Syncs) -> None:
    files = open_files(tmp_path / "session")
    syncs.take()
    files.commit({1: A, 2: C}, [3])
    size = len(Plan({1: 0, 2: 0}, [3]).encode())
    assert syncs.take() == [
        "00001.new of 12",
        "00002.new of 5000",
        f"batch.new of {size}",
        "batch.new to batch",
        "session/",
        "00001.new to 00001",
        "00002.new to 00002",
        "session/",
    ]
    files.directory.close()
