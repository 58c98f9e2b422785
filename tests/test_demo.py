"""The demo: its command line, its story over several brokers, and its screen."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from trio_mqtt import Message
from trio_mqtt import _packets as p
from trio_mqtt._transport import resolve_broker
from trio_mqtt.cli import main
from trio_mqtt.cli._demo import demo
from trio_mqtt.cli._screen import RED, Screen, wants_colour
from trio_mqtt.testing import open_broker

ROOT = Path(__file__).parent.parent
PATIENCE = 30
"""Seconds. Nothing takes as long, unless it hangs."""

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "trio_mqtt", *arguments]


def environment(encoding: str = "utf-8") -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}


async def run_demo(*arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            command("demo", *arguments),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(encoding),
        )


def assert_in_order(lines: Sequence[str], expected: Sequence[str]) -> None:
    """Each of `expected` is in one of `lines`, behind the one before."""
    rest = iter(lines)
    for text in expected:
        assert any(text in line for line in rest), text


# The command line


def test_no_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert "usage: trio-mqtt" in errors
    assert "watch two clients talk" in errors


def test_unknown_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["dance"])
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert "watch two clients talk" in errors
    assert "'dance'" in errors.splitlines()[-1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("trio-mqtt ")


# The story


async def test_demo() -> None:
    done = await run_demo()
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout
    lines = done.stdout.decode().splitlines()
    assert_in_order(
        lines,
        [
            "1. A chat at QoS 0",
            "alice ──▶ broker          CONNECT I am alice, keep my session",
            "bob hears: alice: Hi Bob!",
            "alice hears: bob: Hi Alice!",
            "2. A letter at QoS 1",
            'alice ──▶ broker          PUBLISH 2 letters "It is 20.8 degrees here." QoS 1',
            "alice ◀── broker          PUBACK 2",
            "3. A letter at QoS 2",
            'alice ──▶ broker          PUBLISH 3 letters "I paid you 10 coins." QoS 2',
            "alice ◀── broker          PUBREC 3",
            "alice ──▶ broker          PUBREL 3",
            "alice ◀── broker          PUBCOMP 3",
            "4. The connection breaks at QoS 1",
            "alice ✂── broker          PUBACK 4 is lost",
            "alice is told ResponseLost",
            "CONNACK session resumed",
            'PUBLISH 4 letters "Now it is 21." QoS 1 DUP',
            "5. The connection breaks at QoS 2",
            "alice ✂── broker          PUBREC 5 is lost",
            'PUBLISH 5 letters "I paid you 5 more." QoS 2 DUP',
            "alice ✂── broker          PUBCOMP 5 is lost",
            "alice ──▶ broker          PUBREL 5",
            "alice ◀── broker          PUBCOMP 5",
            "7. What arrived",
            "QoS 0, at most once:   3 sent, 6 of 6 heard",
            "QoS 1, at least once:  3 sent, 3 of 3 heard, 1 of them once more",
            "QoS 2, exactly once:   2 sent, 2 of 2 heard",
            "✓ Nothing was lost, over 3 broken connections; nothing came twice at QoS 2.",
        ],
    )
    assert done.returncode == 0


async def test_ascii() -> None:
    done = await run_demo("--no-color", encoding="ascii")
    assert done.stderr == b""
    lines = done.stdout.decode("ascii").splitlines()
    assert_in_order(lines, ["alice --> broker", "alice x-- broker", "ok: Nothing was lost"])
    assert done.returncode == 0


async def test_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_broker(users={"alice": "s3cret"}) as broker:
        url = (await broker.listen()).replace("//", "//alice@")
        monkeypatch.setenv("MQTT_PASSWORD", "s3cret")
        first, second = [await run_demo("--broker", url) for _ in range(2)]
        assert not broker.sessions
        assert not broker.violations
    assert first.returncode == second.returncode == 0
    assert b"Nothing was lost" in first.stdout
    assert b"s3cret" not in first.stdout
    assert b"user alice, password ****" in first.stdout
    # Neither identifiers nor topics are the same in the next run.
    packets = [record.packet for record in broker.log if record.direction == "in"]
    identifiers = {packet.client_id for packet in packets if isinstance(packet, p.Connect)}
    topics = {packet.topic for packet in packets if isinstance(packet, Message)}
    assert len(identifiers) == 4
    assert len(topics) == 2


async def test_broker_without_qos_2() -> None:
    async with open_broker(rabbitmq=True) as broker:
        done = await run_demo("--broker", await broker.listen())
    lines = done.stdout.decode().splitlines()
    assert_in_order(
        lines,
        [
            "This broker delivers at QoS 1 at most",
            "This broker answers QoS 2 with PUBACK",
            "Bob heard it twice, as this broker does not do QoS 2",
            "✓ Nothing was lost, over 2 broken connections; this broker does not do QoS 2.",
        ],
    )
    assert done.stderr == b""
    assert done.returncode == 0


async def test_unreachable() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
    done = await run_demo("--broker", url)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert f"cannot connect to {url}" in line


async def test_refused() -> None:
    async with open_broker(users={"alice": "s3cret"}) as broker:
        done = await run_demo("--broker", await broker.listen())
    assert done.returncode == 9
    (line,) = done.stderr.decode().splitlines()
    assert "return code 5: not authorized" in line


async def test_bad_url() -> None:
    done = await run_demo("--broker", "mqtt://")
    assert done.returncode == 2
    assert len(done.stderr.decode().splitlines()) == 1


@posix_only
async def test_interrupted() -> None:
    async with open_broker() as broker:
        url = await broker.listen()
        broker.pause()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                process: trio.Process = await nursery.start(
                    partial(
                        trio.run_process,
                        command("demo", "--broker", url),
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        check=False,
                        env=environment(),
                    )
                )
                assert process.stdout is not None
                assert process.stderr is not None
                output = b""
                while b"CONNECT" not in output:
                    output += await process.stdout.receive_some()
                process.send_signal(signal.SIGINT)
                assert await process.wait() == 130
                assert await process.stderr.receive_some() == b""


async def test_reader_leaves() -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    command("demo"),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    check=False,
                    env=environment(),
                )
            )
            assert process.stdout is not None
            assert process.stderr is not None
            await process.stdout.aclose()
            assert await process.stderr.receive_some() == b""


def is_letter(packet: p.Packet, text: bytes) -> bool:
    return isinstance(packet, p.Delivery) and packet.message.payload == text


async def test_loss_is_noticed() -> None:
    def lose(_: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        return () if is_letter(packet, b"I paid you 10 coins.") else None

    out = io.StringIO()
    async with open_broker(answer=lose) as broker:
        screen = Screen(out, colour=False)
        address = resolve_broker(await broker.listen())
        assert not await demo(screen, address, patience=0.5)
    lines = out.getvalue().splitlines()
    assert "it took more than 0.5 s" in lines[-1]
    assert_in_order(lines, ["FAILED: bob never heard: I paid you 10 coins."])


async def test_repetition_is_noticed() -> None:
    def repeat(_: str, packet: p.Packet) -> Sequence[p.Packet] | None:
        if isinstance(packet, p.Delivery) and is_letter(packet, b"I paid you 10 coins."):
            return packet, attrs.evolve(packet, packet_id=1000)
        return None

    out = io.StringIO()
    async with open_broker(answer=repeat) as broker:
        screen = Screen(out, colour=False)
        with trio.fail_after(PATIENCE):
            address = resolve_broker(await broker.listen())
            assert not await demo(screen, address, patience=1)
    assert_in_order(
        out.getvalue().splitlines(), ["FAILED: heard more than once: I paid you 10 coins."]
    )


# The screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "environ", "wanted"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_wants_colour(out: io.StringIO, environ: dict[str, str], wanted: bool) -> None:
    assert wants_colour(out, environ) is wanted


def test_colour() -> None:
    out = io.StringIO()
    Screen(out, colour=True).line("text", RED)
    Screen(out, colour=False).line("text", RED)
    assert out.getvalue() == "\x1b[31mtext\x1b[0m\ntext\n"


def test_what_cannot_be_encoded_is_escaped() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="")
    Screen(out, colour=False).line("20.8℃")
    out.seek(0)
    assert out.read() == "'20.8\\u2103'\n"
