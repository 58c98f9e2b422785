"""What `FileSystem` and `SQLite` have in common: values, locks, failures of the storage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, ItemsView, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_mqtt import (
    Denied,
    FileSystem,
    PersistenceError,
    adopt_session,
    init_session,
)
from trio_mqtt._records import MAX_KEY

from .persistences import (
    Attempt,
    NewPersistence,
    both,
    both_attempts,
    contents,
    run_python,
    small_session,
    start_python,
    store,
    stored,
)

SIZES = [12, 13, 4095, 4096, 1024 * 1024]
FAILED = (OSError, PersistenceError)
unix_only = pytest.mark.skipif(sys.platform == "win32", reason="it is of Unix")


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a database that is locked."""
    monkeypatch.setattr("trio_mqtt._sqlite.BUSY_TIMEOUT", 0.0)


# Values


@both
async def test_values_come_back_also_from_another_instance(
    new: NewPersistence, tmp_path: Path
) -> None:
    values = {key: os.urandom(size) for key, size in enumerate(SIZES)}
    values |= {0x10000: bytes(12), MAX_KEY: b"\xff" * 12, 0x00ABC: b"\r\n\0\x1a" * 5}
    persistence = new(tmp_path / "session")
    await persistence.open()
    for key, value in values.items():
        await persistence.commit({key: value}, ())
    assert await contents(persistence) == values
    await persistence.close()
    assert await stored(persistence) == values
    assert await stored(new(tmp_path / "session")) == values


@both
async def test_a_batch_saves_replaces_and_deletes(new: NewPersistence, tmp_path: Path) -> None:
    persistence = new(tmp_path / "session")
    await store(persistence, {1: b"a" * 12, 2: b"b" * 12, 3: b"c" * 12})
    await persistence.open()
    await persistence.commit({1: b"d" * 5000, 4: b"e" * 12}, [2, 5])
    assert await contents(persistence) == {1: b"d" * 5000, 3: b"c" * 12, 4: b"e" * 12}
    await persistence.commit({1: b"f" * 12}, [])
    await persistence.commit({}, [3])
    await persistence.commit({}, [3])
    await persistence.commit({}, [])
    assert await contents(persistence) == {1: b"f" * 12, 4: b"e" * 12}
    assert await persistence.load(3) is None
    assert await persistence.load(MAX_KEY) is None
    await persistence.close()
    assert await stored(persistence) == {1: b"f" * 12, 4: b"e" * 12}


@both
async def test_a_new_one_is_empty(new: NewPersistence, tmp_path: Path) -> None:
    assert await stored(new(tmp_path / "session")) == {}
    assert await stored(new(tmp_path / "session")) == {}


@both
@unix_only
async def test_nobody_else_may_read_it(new: NewPersistence, tmp_path: Path) -> None:
    await store(new(tmp_path / "session"), small_session())
    assert mode(tmp_path / "session") & 0o077 == 0


def mode(path: Path) -> int:
    return path.stat().st_mode


class Saves(dict[int, bytes]):
    """Which call something back when the commit begins with them, in its thread."""

    def __init__(self, begun: Callable[[], None], values: dict[int, bytes]) -> None:
        super().__init__(values)
        self._begun = begun

    def items(self) -> ItemsView[int, bytes]:  # type: ignore[override]  # a view, if not dict's
        trio.from_thread.run_sync(self._begun)
        return ItemsView(self)


@both
async def test_a_commit_that_is_cancelled_in_the_middle_is_waited_for(
    new: NewPersistence, tmp_path: Path
) -> None:
    persistence = new(tmp_path / "session")
    values = {1: b"a" * 12, 2: b"b" * 12}
    await persistence.open()
    with trio.CancelScope() as scope:
        await persistence.commit(Saves(scope.cancel, values), ())
        assert scope.cancel_called
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert await contents(persistence) == values
    await persistence.close()


# Locks

HOLDER = """
    import sys, trio, trio_mqtt

    async def hold() -> None:
        persistence = getattr(trio_mqtt, sys.argv[1])(sys.argv[2])
        try:
            await trio_mqtt.adopt_session(persistence)
        except trio_mqtt.PersistenceError as error:
            print("refused:", error)
        else:
            print("adopted", flush=True)
            sys.stdin.read()

    trio.run(hold)
"""


@contextmanager
def held(new: NewPersistence, path: Path) -> Generator[subprocess.Popen[str]]:
    """By another process, until it is killed."""
    with start_python(HOLDER, kind(new), path) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "adopted\n"
            yield process
        finally:
            process.kill()


def kind(new: NewPersistence) -> str:
    return new.__name__


@both
async def test_it_serves_one_instance_at_a_time(new: NewPersistence, tmp_path: Path) -> None:
    path = tmp_path / "session"
    session = await init_session("client", new(path))
    for attempt in (adopt_session, partial(init_session, "other")):
        with pytest.raises(PersistenceError, match="is in use by another client"):
            await attempt(new(path))
    await session.aclose()
    again = await adopt_session(new(path))
    assert again.client_id == "client"
    await again.aclose()


@both
async def test_it_serves_one_process_at_a_time(new: NewPersistence, tmp_path: Path) -> None:
    path = tmp_path / "session"
    session = await init_session("client", new(path))
    printed = run_python(HOLDER, kind(new), path)
    assert printed.startswith("refused:")
    assert "is in use by another client" in printed
    await session.aclose()
    with held(new, path), pytest.raises(PersistenceError, match="is in use by another client"):
        await adopt_session(new(path))


@both
async def test_a_process_that_is_killed_lets_go(new: NewPersistence, tmp_path: Path) -> None:
    path = tmp_path / "session"
    await store(new(path), small_session())
    with held(new, path) as process:
        process.kill()
        process.wait()
        session = await adopt_session(new(path))
    if sys.platform != "win32":
        assert process.returncode == -signal.SIGKILL
    assert not session.warnings
    await session.aclose()
    assert await stored(new(path)) == small_session()


@both
async def test_an_instance_serves_one_session_at_a_time(
    new: NewPersistence, tmp_path: Path
) -> None:
    persistence = new(tmp_path / "session")
    session = await init_session("client", persistence)
    for attempt in (adopt_session, partial(init_session, "other")):
        with pytest.raises(PersistenceError, match="serves another session already"):
            await attempt(persistence)
    await session.aclose()
    await (await adopt_session(persistence)).aclose()


@both
async def test_what_was_refused_can_be_had_later(new: NewPersistence, tmp_path: Path) -> None:
    first, second = new(tmp_path / "session"), new(tmp_path / "session")
    session = await init_session("client", first)
    with pytest.raises(PersistenceError):
        await adopt_session(second)
    await session.aclose()
    with pytest.raises(Denied, match="has a session"):
        await init_session("client", second)
    await (await adopt_session(second)).aclose()
    await (await adopt_session(first)).aclose()


# Failures


@both
@unix_only
async def test_a_path_that_vanishes_and_comes_back(new: NewPersistence, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "session", tmp_path / "elsewhere"
    values = {1: b"a" * 12, 2: b"b" * 12}
    persistence = new(path)
    await persistence.open()
    await persistence.commit(values, ())
    path.rename(elsewhere)
    for saves, deletes in (({1: b"c" * 12}, []), ({}, [1]), ({1: b"c" * 12}, [2]), ({}, [])):
        with pytest.raises(FAILED):
            await persistence.commit(saves, deletes)
    assert not path.exists()
    elsewhere.rename(path)
    assert await contents(persistence) == values
    await persistence.commit({1: b"c" * 12}, [2])
    await persistence.close()
    assert await stored(new(path)) == {1: b"c" * 12}


@both
@unix_only
async def test_another_one_in_its_place_is_left_alone(new: NewPersistence, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "session", tmp_path / "elsewhere"
    persistence, other = new(path), new(path)
    await store(persistence, {1: b"a" * 12})
    await persistence.open()
    path.rename(elsewhere)
    await store(other, {1: b"b" * 12})
    for saves in ({1: b"c" * 12}, {1: b"c" * 12, 2: b"d" * 12}):
        with pytest.raises(FAILED, match="that was opened"):
            await persistence.commit(saves, ())
    await persistence.close()
    assert await stored(other) == {1: b"b" * 12}
    assert await stored(new(elsewhere)) == {1: b"a" * 12}


FULL_DISK = """
    import resource, sys, trio, trio_mqtt

    LARGE = bytes(1024 * 1024)

    async def main() -> None:
        persistence = getattr(trio_mqtt, sys.argv[1])(sys.argv[2])
        await persistence.open()
        await persistence.commit({1: b"a" * 12}, ())
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (128 * 1024, hard))
        for saves, deletes in (({1: LARGE}, ()), ({2: b"b" * 12, 3: LARGE}, (1,))):
            try:
                await persistence.commit(saves, deletes)
            except (OSError, trio_mqtt.PersistenceError):
                print("refused", end=" ")
            assert await persistence.load(1) == b"a" * 12
            assert list(await persistence.keys()) == [1]
        await persistence.commit({4: b"c" * 12}, ())
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await persistence.commit({2: b"b" * 12, 3: LARGE}, (1,))
        assert sorted(await persistence.keys()) == [2, 3, 4]
        assert await persistence.load(3) == LARGE
        await persistence.close()

    trio.run(main)
"""


@both
@unix_only
async def test_what_is_too_large_for_the_disk_is_refused_and_the_rest_goes_on(
    new: NewPersistence, tmp_path: Path
) -> None:
    assert run_python(FULL_DISK, kind(new), tmp_path / "session") == "refused refused "
    found = await stored(new(tmp_path / "session"))
    assert found == {2: b"b" * 12, 3: bytes(1024 * 1024), 4: b"c" * 12}


@both
@both_attempts
async def test_it_makes_no_parent_directories(
    attempt: Attempt, new: NewPersistence, tmp_path: Path
) -> None:
    with pytest.raises(PersistenceError) as caught:
        await attempt(new(tmp_path / "absent" / "session"))
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert not os.listdir(tmp_path)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """As root may everything."""
    if sys.platform == "win32":
        pytest.skip("it is of Unix")
    was = os.geteuid()
    os.seteuid(65_534 if was == 0 else was)
    yield
    os.seteuid(was)


@both
@both_attempts
async def test_permission_is_denied(
    attempt: Attempt,
    new: NewPersistence,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    path = tmp_path / "closed"
    path.mkdir(mode=0)
    request.getfixturevalue("unprivileged")
    persistence = new(path / "session")
    for _ in range(2):
        with pytest.raises(PersistenceError) as caught:
            await attempt(persistence)
        assert isinstance(caught.value.__cause__, PermissionError)


@both
@both_attempts
async def test_storage_of_the_wrong_type(
    attempt: Attempt, new: NewPersistence, tmp_path: Path
) -> None:
    """A file for a directory, a directory for a file."""
    path = tmp_path / "session"
    if new is FileSystem:
        path.write_bytes(b"")
    else:
        path.mkdir()
    with pytest.raises(PersistenceError) as caught:
        await attempt(new(path))
    assert caught.value.__cause__ is not None
