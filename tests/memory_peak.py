"""How much memory one large message takes, measured in a process of its own.

    python -m tests.memory_peak URL [STREAM_OVER]

Receives a small message, and then a large one, and prints the size of the large one and the growth
of the process's peak of resident memory meanwhile, in bytes.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import trio

import trio_mqtt


def peak() -> int:
    """Of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # as Linux's rusage begins with what the parent process had
        [line] = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def main(url: str, stream_over: int | None) -> None:
    async with trio_mqtt.open_client(url, stream_over=stream_over) as client:
        await client.subscribe("t")
        await client.messages.receive()
        before = peak()
        message = await client.messages.receive()
        if isinstance(message, trio_mqtt.BigMessage):
            size = 0
            async for piece in message:
                size += len(piece)
        else:
            size = len(message.payload)
        print(size, peak() - before)  # noqa: T201, to the test
        await client.aclose()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
