"""A large message takes its own size in memory, and a streamed one next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt.testing._server311 import server_decoder

ROOT = Path(__file__).parent.parent
MIB = 1024 * 1024
MOST = p.MAX_PACKET_BYTES - 2 - len("t")


def header(size: int) -> bytes:
    """PUBLISH on "t" with a payload of this size, up to where the payload begins."""
    remaining = 2 + len("t") + size
    length = bytearray()
    while remaining > 0x7F:
        length.append(remaining & 0x7F | 0x80)
        remaining >>= 7
    return bytes((0x30, *length, remaining)) + b"\0\1t"


async def serve_one(stream: trio.SocketStream, size: int) -> None:
    """A broker that sends a small message and then a large one to who subscribes."""
    decoder = server_decoder()
    subscribed = False
    await stream.send_all(encode(p.ConnAck(False, 0)))
    while not subscribed:
        for packet in decoder.feed(await stream.receive_some()):
            if isinstance(packet, p.Subscribe):
                await stream.send_all(encode(p.SubAck(packet.packet_id, (0,))))
                subscribed = True
    await stream.send_all(encode(p.Message("t", b"small")) + header(size))
    piece = bytes(MIB)
    for start in range(0, size, MIB):
        await stream.send_all(piece[: size - start])
    while await stream.receive_some():
        pass


async def measure(size: int, *arguments: str) -> int:
    """The growth of the peak, in bytes."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def serve(stream: trio.SocketStream) -> None:
                with suppress(trio.BrokenResourceError):  # the client closed it
                    await serve_one(stream, size)

            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            port = listener.socket.getsockname()[1]
            command = [sys.executable, "-m", "tests.memory_peak", f"mqtt://127.0.0.1:{port}"]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            environment.pop("COVERAGE_PROCESS_START", None)
            done: subprocess.CompletedProcess[bytes] = await trio.run_process(
                [*command, *arguments], capture_stdout=True, cwd=ROOT, env=environment
            )
            nursery.cancel_scope.cancel()
    received, growth = map(int, done.stdout.split())
    assert received == size
    return growth


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no module resource to measure by")
async def test_64_mib_at_once_take_a_tenth_more_at_most() -> None:
    assert await measure(64 * MIB) <= 1.1 * 64 * MIB


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no module resource to measure by")
async def test_256_mib_streamed_take_1_mib_at_most() -> None:
    assert await measure(MOST, "65536") <= MIB
