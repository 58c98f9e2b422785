"""What SIGINT and SIGTERM do to a command, at any moment."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Sequence
from functools import partial

import pytest
import trio

from tests.commands import PATIENCE, environment, posix_only, running
from trio_mqtt import _packets as p
from trio_mqtt.testing import Broker, open_broker

pytestmark = posix_only

ME = ("--client-id", "me")
WILL = ("--will-topic", "will", "--will-message", "gone", "--will-retain")


def disconnects(broker: Broker) -> int:
    return sum(isinstance(record.packet, p.Disconnect) for record in broker.log)


@pytest.mark.parametrize("command", ["subscribe", "chat"])
async def test_sigint_closes(command: str) -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        async with running(command, "a", "--broker", url, *ME, *WILL) as it:
            await broker.wait_subscribed("me", "a")
            it.process.send_signal(signal.SIGINT)
            assert await it.process.wait() == 130
            assert "Traceback" not in await it.errors.rest()
            await broker.wait_disconnected("me")
        assert disconnects(broker) == 0
        assert set(broker.retained) == {"will"}


@pytest.mark.parametrize("command", ["subscribe", "chat"])
async def test_sigterm_disconnects(command: str) -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        async with running(command, "a", "--broker", url, *ME, *WILL) as it:
            await broker.wait_subscribed("me", "a")
            it.process.send_signal(signal.SIGTERM)
            assert await it.process.wait() == 143
            assert "Traceback" not in await it.errors.rest()
            await broker.wait_disconnected("me")
        assert disconnects(broker) == 1
        assert not broker.retained


async def test_sigterm_waits_for_what_was_accepted() -> None:
    withheld: list[p.Packet] = []
    came = trio.Event()

    def withhold(_: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        if not isinstance(packet, p.PubAck) or came.is_set():
            return None
        withheld.append(packet)
        came.set()
        return ()

    async with open_broker(answer=withhold) as broker:
        url = await broker.listen()
        async with running("publish", "a", "--lines", "--broker", url, *ME) as it:
            await it.stdin.send_all(b"one\n")
            await came.wait()
            it.process.send_signal(signal.SIGTERM)  # its input is still open
            broker.send("me", withheld[0])
            assert await it.process.wait() == 143
            assert await it.errors.rest() == ""
        assert disconnects(broker) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [["publish", "a", "-m", "x"], ["subscribe", "a"], ["ping"]])
async def test_while_connecting(command: list[str], number: signal.Signals) -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        broker.pause()
        async with running(*command, "--trace", "--broker", url) as it:
            await it.errors.wait_for("CONNECT")
            it.process.send_signal(number)
            assert await it.process.wait() == 128 + number
            assert await it.errors.rest() == ""


async def test_sigint_ends_what_sigterm_began() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        options = ("--timeout", "inf", "--verbose", "--trace")
        async with running("publish", "a", "--lines", "--broker", url, *options) as it:
            await it.errors.wait_for("connected")
            broker.pause()
            await it.stdin.send_all(b"one\n")
            await it.errors.wait_for("PUBLISH")
            it.process.send_signal(signal.SIGTERM)
            it.process.send_signal(signal.SIGINT)
            assert await it.process.wait() == 130
            assert "Traceback" not in await it.errors.rest()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_broker(number: signal.Signals) -> None:
    async with running("broker", "--port", "0") as it:
        assert (await it.output.next()).startswith("mqtt://127.0.0.1:")
        it.process.send_signal(number)
        assert await it.process.wait() == 128 + number
        assert await it.errors.rest() == ""


async def test_sigint_ignored_stays_ignored() -> None:
    """A script that starts a job in the background has it so."""
    script = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "os.execv(sys.executable, [sys.executable, '-m', 'trio_mqtt', *sys.argv[1:]])"
    )
    async with open_broker() as broker:
        broker.publish("a", "x", retain=True)
        url = await broker.listen()
        command = [sys.executable, "-c", script, "subscribe", "a", "--broker", url, *ME]
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(trio.run_process, command, check=False, env=environment())
            )
            with trio.fail_after(PATIENCE):
                await broker.wait_subscribed("me", "a")
                process.send_signal(signal.SIGINT)
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 143


# At any moment

INTERRUPTING = """
import os, signal, sys
import _trio_mqtt_command

left = int(sys.argv.pop(1))
begun = False

def profile(frame, event, argument):
    global begun, left
    begun = begun or "trio_mqtt" in sys.modules
    if begun and event == "call":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)

sys.setprofile(profile)
try:
    sys.exit(_trio_mqtt_command.main())
finally:
    sys.setprofile(None)
    if left < 0:
        print(left)
"""
"""Runs a command, and sends SIGINT to itself at a certain call of a function, counted from the
moment at which the import of the package begins. Where there is none it prints how many."""

MOMENTS = int(os.environ.get("TRIO_MQTT_INTERRUPTS", "24"))
SEED = int(os.environ.get("TRIO_MQTT_SEED", "1"))


async def interrupted(moment: int, *arguments: str) -> tuple[int, bytes, bytes]:
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [sys.executable, "-c", INTERRUPTING, str(moment), *arguments],
            stdin=b"line\n" * 100,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(),
        )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "command",
    [["publish", "b", "--lines"], ["subscribe", "a", "--count", "1"], ["ping"]],
    ids=lambda command: command[0],
)
async def test_sigint_at_any_moment(command: list[str]) -> None:
    draw = random.Random(f"{SEED} {command}")
    async with open_broker() as broker:
        broker.publish("a", "x", retain=True)
        arguments = (*command, "--broker", await broker.listen())
        code, output, _ = await interrupted(0, *arguments)
        assert code == 0
        calls = -int(output.split()[-1])
        codes: list[int] = []
        for _ in range(MOMENTS // 3):
            moment = draw.randint(1, calls)
            code, _, errors = await interrupted(moment, *arguments)
            assert b"Traceback" not in errors, moment
            assert b"KeyboardInterrupt" not in errors, moment
            # A run that took fewer calls was over before.
            assert code in (130, 0), (moment, errors)
            codes.append(code)
    assert 130 in codes
