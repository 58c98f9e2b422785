"""What the tests of the two persistences share."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest

from trio_mqtt import FileSystem, Persistence, Session, SQLite, adopt_session, init_session
from trio_mqtt._codec311 import Codec
from trio_mqtt._records import (
    BROKERS,
    SESSION_COPY_KEY,
    SESSION_KEY,
    Identity,
    Kind,
    Record,
    encode_record,
)

from .wire import encode_publish

NewPersistence: TypeAlias = Callable[[Path], Persistence]
Attempt: TypeAlias = Callable[[Persistence], Awaitable[Session]]
both = pytest.mark.parametrize("new", [FileSystem, SQLite])
both_attempts = pytest.mark.parametrize(
    "attempt", [adopt_session, partial(init_session, "client")], ids=["adopt", "init"]
)

OURS_AT_LEAST_ONCE, OURS_EXACTLY_ONCE, OURS_RELEASED, THE_BROKERS = 1, 2, 3, BROKERS | 9
SESSION_KEYS = (SESSION_KEY, SESSION_COPY_KEY)


def small_session(reserved: frozenset[int] = frozenset()) -> dict[int, bytes]:
    """The records of a session: one of each kind, and two messages."""
    identity = Identity("client", reserved=reserved).encode()
    publish = partial(encode_publish, Codec(), "topic", b"payload", retain=False)
    records = {
        SESSION_KEY: Record(Kind.SESSION, 1, identity),
        SESSION_COPY_KEY: Record(Kind.SESSION, 2, identity),
        OURS_AT_LEAST_ONCE: Record(Kind.PUBLISH, 3, publish(1, OURS_AT_LEAST_ONCE)),
        OURS_EXACTLY_ONCE: Record(Kind.PUBLISH, 4, publish(2, OURS_EXACTLY_ONCE)),
        OURS_RELEASED: Record(Kind.RELEASED, 5),
        THE_BROKERS: Record(Kind.RECEIVED, 6),
    }
    return {key: encode_record(key, record) for key, record in records.items()}


async def store(persistence: Persistence, values: Mapping[int, bytes]) -> None:
    """Puts these in, and closes it."""
    await persistence.open()
    await persistence.commit(values, ())
    await persistence.close()


async def contents(persistence: Persistence) -> dict[int, bytes]:
    """All that is in an open one."""
    found = {key: await persistence.load(key) for key in await persistence.keys()}
    assert await persistence.load_all() == found
    return {key: value for key, value in found.items() if value is not None}


async def stored(persistence: Persistence) -> dict[int, bytes]:
    """All that is in a closed one."""
    await persistence.open()
    found = await contents(persistence)
    await persistence.close()
    return found


def start_python(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process, with pipes."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )


def run_python(script: str, *arguments: object) -> str:
    """What another process printed."""
    with start_python(script, *arguments) as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return printed
