"""The same as in `tests/test_nothing_is_left.py` over TCP, on real storage and a real clock."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.persistences import NewPersistence
from tests.soak import Soak
from trio_mqtt import FileSystem, SQLite, adopt_session
from trio_mqtt.testing import open_broker

pytestmark = pytest.mark.alone

EPISODES = 300
UNIT = 0.05
"""Seconds."""


def open_files() -> int | None:
    """How many files and sockets the process has; None where the system does not say."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else None


async def is_true(condition: Callable[[], bool]) -> bool:
    """Within seconds, which the broker and the system have for their side of it."""
    with trio.move_on_after(10):
        while not condition():  # noqa: ASYNC110, nobody tells
            await trio.sleep(0.01)
    return condition()


@pytest.mark.parametrize("new", [FileSystem, SQLite])
async def test_nothing_is_left(
    tmp_path: Path,
    new: NewPersistence,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("CRITICAL", logger="trio_mqtt")
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    path = tmp_path / "session"
    async with open_broker() as broker:
        host, port = (await broker.listen()).removeprefix("mqtt://").split(":")
        dial = partial(trio.open_tcp_stream, host, int(port))
        soak = Soak(broker, dial, lambda: new(path), unit=UNIT, seed=random.randrange(10**6))
        async with soak.client(client_id="stays") as client:
            await soak.run(client, EPISODES // 10)  # what is begun once is begun
            files, threads = open_files(), threading.active_count()
            await soak.run(client, EPISODES)
            assert await is_true(lambda: soak.open_streams == 1)
            assert await is_true(lambda: open_files() == files)
            # Trio keeps its threads for the next one who needs some.
            assert threading.active_count() <= threads + 5
        assert soak.open_streams == 0
    session = await adopt_session(new(path))
    await session.aclose()
    assert list(temporary.iterdir()) == []
    assert soak.happened["durable"] > EPISODES / 50
