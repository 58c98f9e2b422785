"""Mosquitto's clients and the in-process broker understand each other."""

from __future__ import annotations

import shutil
from urllib.parse import urlsplit

import pytest
import trio

from trio_mqtt.testing import open_broker

from .integration.processes import start_process

pytestmark = pytest.mark.mosquitto

PATIENCE = 30


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not (shutil.which("mosquitto_pub") and shutil.which("mosquitto_sub")):
        pytest.skip("needs Mosquitto's clients: apt-get install mosquitto-clients")


async def run(command: str, url: str, *arguments: str) -> list[str]:
    """The lines that the command prints."""
    port = str(urlsplit(url).port)
    with trio.fail_after(PATIENCE):
        finished = await trio.run_process([command, "-p", port, *arguments], capture_stdout=True)
    return finished.stdout.decode().splitlines()


@pytest.mark.parametrize("qos", ["0", "1", "2"])
async def test_publish_and_subscribe(qos: str) -> None:
    async with open_broker() as broker, trio.open_nursery() as nursery:
        url = await broker.listen()
        lines: list[str] = []

        async def subscribe() -> None:
            topic = ("-t", "a/#", "-q", qos)
            lines.extend(await run("mosquitto_sub", url, *topic, "-i", "sub", "-v", "-C", "3"))

        await run("mosquitto_pub", url, "-t", "a/kept", "-m", "kept", "-r", "-q", qos)
        nursery.start_soon(subscribe)
        with trio.fail_after(PATIENCE):
            await broker.wait_subscribed("sub", "a/#")
        for number in "12":
            await run("mosquitto_pub", url, "-t", f"a/{number}", "-m", "20.8℃", "-q", qos)
        with trio.fail_after(PATIENCE):
            await broker.wait_disconnected("sub")
    assert lines == ["a/kept kept", "a/1 20.8℃", "a/2 20.8℃"]
    assert not broker.violations


@pytest.mark.conformance("MQTT-3.1.2-5")
async def test_a_session_that_stays() -> None:
    async with open_broker(users={"me": "secret"}) as broker:
        url = await broker.listen()
        known = ("-i", "sub", "-c", "-q", "2", "-u", "me", "-P", "secret")
        await run("mosquitto_sub", url, *known, "-t", "a", "-E")
        await broker.wait_disconnected("sub")
        # More than one window of either side.
        for number in range(50):
            broker.publish("a", str(number), qos=2 if number % 2 else 1)
        assert broker.sessions["sub"].queued == 50
        lines = await run("mosquitto_sub", url, *known, "-t", "a", "-C", "50")
        # At QoS 2 it shows a message only when that is released.
        assert sorted(lines, key=int) == [str(number) for number in range(50)]
        assert not broker.violations


@pytest.mark.conformance("MQTT-3.1.2-8", "MQTT-3.1.2-16", "MQTT-3.1.2-17")
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
@pytest.mark.parametrize("command", ["mosquitto_sub", "mosquitto_pub"])
async def test_a_will_of_one_that_is_killed(command: str, qos: str, retain: bool) -> None:
    async with open_broker() as broker, trio.open_nursery() as nursery:
        url = await broker.listen()
        port = str(urlsplit(url).port)
        lines: list[str] = []
        shown = ("-q", "2", "-F", "%t %p %q %r", "-C", "1")

        async def watch() -> None:
            lines.extend(await run("mosquitto_sub", url, "-i", "watcher", "-t", "will", *shown))

        will = ["--will-topic", "will", "--will-payload", "gone", "--will-qos", qos]
        will += ["--will-retain"] if retain else []
        # It publishes what it reads, so that it stays.
        stays = ["-l"] if command == "mosquitto_pub" else []
        with trio.fail_after(PATIENCE):
            process = await start_process(
                nursery, [command, "-p", port, "-i", "dying", "-t", "a", *stays, *will]
            )
            nursery.start_soon(watch)
            await broker.wait_connected("dying")
            await broker.wait_subscribed("watcher", "will")
            process.kill()
            await broker.wait_disconnected("dying")
            await process.wait()
            await broker.wait_disconnected("watcher")
        if retain:
            lines += await run("mosquitto_sub", url, "-t", "will", *shown)
        assert set(broker.retained) == ({"will"} if retain else set())
    assert lines == [f"will gone {qos} 0", f"will gone {qos} 1"][: 1 + retain]
    assert not broker.violations


@pytest.mark.conformance("MQTT-3.14.4-3")
async def test_no_will_of_one_that_parts() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        will = ("--will-topic", "will", "--will-payload", "gone", "--will-retain")
        await run("mosquitto_pub", url, "-i", "parting", "-t", "a", "-m", "x", *will)
        await broker.wait_disconnected("parting")
        assert broker.retained == {}
        assert not broker.violations


async def test_wrong_password() -> None:
    async with open_broker(users={"me": "secret"}) as broker:
        url = await broker.listen()
        arguments = ["-p", str(urlsplit(url).port), "-u", "me", "-P", "guess", "-t", "a", "-n"]
        with trio.fail_after(PATIENCE):
            finished = await trio.run_process(
                ["mosquitto_pub", *arguments], capture_stderr=True, check=False
            )
        assert finished.returncode != 0
        assert b"not authori" in finished.stderr
        assert not broker.sessions
