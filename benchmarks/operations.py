"""Where the cost of a message is: what the package executes for it, function by function.

``python -m benchmarks.operations receive 1`` counts the bytecodes and the calls, per message of 64
bytes, of one of the works `ACTS` at one QoS, on a `Loopback`. No other load of the machine changes
these numbers, so that a change which saves a few of them is seen at once, where a clock shows
noise. They are no time, though: about 5 ns for a bytecode and 50 ns for a call is a first guess,
and what is worth it in the end the other works say.

`Calls` is what `tests/test_operations.py` and `tests/test_growth.py` count with.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import trio

import trio_mqtt
from trio_mqtt import Client, QoS

from .loopback import Loopback

PACKAGE = str(Path(trio_mqtt.__file__).parent)
TASKS = 100
MESSAGES = 800
"""As many as one read takes in: so what is counted does not depend on turns."""
LEAST = 0.5
"""Bytecodes or calls per message of a function that is shown."""

Act = Callable[[Client, Loopback, QoS, int], Awaitable[None]]


async def receive(client: Client, loopback: Loopback, qos: QoS, count: int) -> None:
    """As many messages, all there at once."""
    loopback.deliver(count, qos)
    for _ in range(count):
        await client.messages.receive()


async def publish(client: Client, _: Loopback, qos: QoS, count: int) -> None:
    """One after the other."""
    for __ in range(count):
        await client.publish("topic", bytes(64), qos=qos)


async def publish_in_tasks(client: Client, loopback: Loopback, qos: QoS, count: int) -> None:
    """In a hundred tasks, each one after the other."""
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(publish, client, loopback, qos, count // TASKS)


ACTS = {"receive": receive, "publish": publish, "tasks": publish_in_tasks}


async def perform(act: Act, qos: QoS, count: int, counted: AbstractContextManager[object]) -> None:
    """Acts twice, and is `counted` the second time."""
    loopback = Loopback()

    async def dial() -> trio.abc.Stream:
        return loopback

    async with trio_mqtt.open_client(dial, client_id="a", exactly_once_window=TASKS) as client:
        await client.subscribe("topic")
        await act(client, loopback, qos, count)
        with counted:
            await act(client, loopback, qos, count)


class Calls(AbstractContextManager[None]):
    """Counts the calls into the package, and those that it makes, while it is entered."""

    def __init__(self) -> None:
        self.by_function: Counter[str] = Counter()
        """Those within it under its own name, those of others behind that of the caller."""

    @property
    def count(self) -> int:
        """All of them."""
        return self.by_function.total()

    def __enter__(self) -> None:
        sys.setprofile(self._note)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            if _is_ours(frame):
                self.by_function[f"{_name(frame)} > {called.__qualname__}"] += 1
        elif event == "call":
            caller = frame.f_back
            if _is_ours(frame):
                self.by_function[_name(frame)] += 1
            elif caller is not None and _is_ours(caller):
                self.by_function[f"{_name(caller)} > {frame.f_code.co_qualname}"] += 1


class Bytecodes(AbstractContextManager[None]):
    """Counts what the interpreter executes while it is entered, by function, also those of Trio."""

    def __init__(self) -> None:
        self.by_function: Counter[str] = Counter()

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.by_function[_name(frame)] += 1
        return self._trace


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE)


def _name(frame: FrameType) -> str:
    code = frame.f_code
    return f"{Path(code.co_filename).name}:{code.co_qualname}"


def main() -> None:
    """Counts what the command line says, and prints it."""
    parser = argparse.ArgumentParser("python -m benchmarks.operations", description=__doc__)
    parser.add_argument("act", choices=ACTS)
    parser.add_argument("qos", type=int, choices=(0, 1, 2))
    arguments = parser.parse_args()
    for counted in (Bytecodes(), Calls()):
        trio.run(perform, ACTS[arguments.act], arguments.qos, MESSAGES, counted)
        found = counted.by_function
        print(f"\n{found.total() / MESSAGES:8.1f} {type(counted).__name__.lower()} per message")
        for name, count in found.most_common():
            if count / MESSAGES >= LEAST:
                print(f"{count / MESSAGES:8.1f} {name}")


if __name__ == "__main__":
    main()
