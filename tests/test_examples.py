"""The short examples, each as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker, open_broker

ROOT = Path(__file__).parent.parent


async def run_example(name: str, url: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    with trio.fail_after(20):
        return await trio.run_process(
            [sys.executable, str(ROOT / "examples" / name), url],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment,
        )


def disconnects(broker: Broker) -> int:
    return sum(isinstance(record.packet, p.Disconnect) for record in broker.log)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("thermostat.py", ["bedroom/thermostat 20.8"]),
        ("critical.py", ["alert submitted...", "alert acknowledged"]),
    ],
)
async def test_example(name: str, output: list[str]) -> None:
    async with open_broker() as broker:
        done = await run_example(name, await broker.listen())
    assert done.stderr == b""
    assert done.stdout.decode().splitlines() == output
    assert done.returncode == 0
    assert disconnects(broker) == 1
    assert not broker.violations


async def test_critical_is_interrupted() -> None:
    def lose_the_first(client_id: str, packet: p.Packet) -> tuple[p.Packet, ...] | None:
        if isinstance(packet, p.PubAck) and broker.sessions[client_id].connected:
            lost.append(packet)
            if len(lost) == 1:
                broker.disconnect(client_id)
                return ()
        return None

    lost: list[p.Packet] = []
    async with open_broker(answer=lose_the_first) as broker:
        done = await run_example("critical.py", await broker.listen())
    submitted, interrupted, acknowledged = done.stdout.decode().splitlines()
    assert submitted == "alert submitted..."
    assert interrupted.startswith("alert transfer interrupted: ")
    assert acknowledged == "alert acknowledged"
    assert done.returncode == 0
