"""The short examples, each as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import trio_mqtt
from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker, open_broker

ROOT = Path(__file__).parent.parent


async def run_example(name: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    with trio.fail_after(20):
        return await trio.run_process(
            [sys.executable, str(ROOT / "examples" / name), *arguments],
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
        ("sticky.py", ["subscribe confirmed by broker"]),
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


async def test_the_meter_loses_no_reading(tmp_path: Path) -> None:
    database = str(tmp_path / "meter.db")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        done = await run_example("meter.py", database, f"mqtt://127.0.0.1:{port}")
    assert done.stdout.decode().splitlines() == [
        "0 readings are left from before",
        "3 readings are left for the next run",
    ]
    async with (
        open_broker() as broker,
        trio_mqtt.open_client(broker.dialer) as client,
    ):
        await client.subscribe("meter/voltage")
        done = await run_example("meter.py", database, await broker.listen())
        assert done.stdout.decode().splitlines() == [
            "3 readings are left from before",
            "0 readings are left for the next run",
        ]
        payloads = [(await client.messages.receive()).payload for _ in range(6)]
        assert payloads == 2 * [b"230.1", b"229.8", b"230.4"]
    assert done.returncode == 0
    assert not broker.violations


async def test_the_download_is_streamed(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 4_000
    async with open_broker() as broker, trio.open_nursery() as nursery:

        async def publish() -> None:
            await broker.wait_subscribed("download", "firmware")
            broker.publish("firmware", payload, qos=1)

        nursery.start_soon(publish)
        path = tmp_path / "firmware"
        done = await run_example("download.py", str(path), "firmware", await broker.listen())
    assert done.stdout.decode().splitlines() == [f"{path}: {len(payload)} bytes"]
    assert done.stderr == b""
    assert path.read_bytes() == payload
    assert not broker.violations


async def test_an_application_is_tested_over_an_outage(tmp_path: Path) -> None:
    done = await run_example("../examples/test_outage.py")  # defines a test, and does not run it
    assert (done.returncode, done.stderr) == (0, b"")
    with trio.fail_after(60):
        done = await trio.run_process(
            [sys.executable, "-m", "pytest", "-q", str(ROOT / "examples" / "test_outage.py")],
            capture_stdout=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-p no:cacheprovider"},
        )
    assert b"1 passed" in done.stdout, done.stdout.decode()


async def test_the_meter_says_what_it_needs() -> None:
    done = await run_example("meter.py")
    assert done.returncode == 1
    assert b"python3 examples/meter.py DATABASE" in done.stderr
