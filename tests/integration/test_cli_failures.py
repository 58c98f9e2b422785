"""What a newcomer sees on every wrong input: one line that says what, and what next."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import trio

from tests.commands import environment, one_line, run_command
from trio_mqtt import (
    BadCredentials,
    ClientClosed,
    ConnectionLost,
    ConnectionRefused,
    Denied,
    Down,
    IdentifierRejected,
    MQTTError,
    NotAuthorized,
    ServerUnavailable,
    SubscribeError,
    UnacceptableProtocolVersion,
)
from trio_mqtt import _packets as p
from trio_mqtt.cli import main
from trio_mqtt.cli._failures import exit_code, line
from trio_mqtt.testing import open_broker

CLIENTS = (["publish", "a", "-m", "x"], ["subscribe", "a"], ["ping"], ["chat", "a"])


def unused_port() -> int:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Exit codes


@pytest.mark.parametrize("command", CLIENTS, ids=lambda command: command[0])
@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
async def test_refused(code: int, command: list[str]) -> None:
    async with open_broker() as broker:
        broker.refuse(code)
        done = await run_command(*command, "--broker", await broker.listen())
    assert done.returncode == 4 + code
    assert done.stdout == b""
    assert f"refused the connection with return code {code}: " in one_line(done)


@pytest.mark.parametrize("command", CLIENTS, ids=lambda command: command[0])
async def test_no_broker(command: list[str]) -> None:
    done = await run_command(*command, "--broker", f"mqtt://127.0.0.1:{unused_port()}")
    assert done.returncode == 1
    said = one_line(done)
    assert said.startswith(f"python3 -m trio_mqtt {command[0]}: cannot connect to mqtt://127")
    assert said.endswith(": does a broker run there, at this port? --broker URL names another")


async def test_unknown_host() -> None:
    done = await run_command("ping", "--broker", "mqtt://nowhere.invalid")
    assert done.returncode == 1
    assert one_line(done).endswith(": check the host's name in --broker")


async def test_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        done = await run_command("ping", "--broker", url, "--timeout", "0.1")
    assert done.returncode == 1
    assert "did not accept the connection" in one_line(done)


async def test_wrong_port() -> None:
    """At which something else listens, which answers otherwise."""

    async def greet(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")
        await stream.receive_some(1)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, greet, 0)
        url = f"mqtt://localhost:{listeners[0].socket.getsockname()[1]}"
        done = await run_command("ping", "--broker", url)
        nursery.cancel_scope.cancel()
    assert done.returncode == 1
    assert one_line(done).endswith(
        "is it a broker for MQTT, and is TLS asked for where it has to be?"
    )


async def test_wrong_password() -> None:
    async with open_broker(users={"alice": "s3cret"}) as broker:
        url = await broker.listen()
        variables = {"MQTT_PASSWORD": "guess"}
        options = ("--username", "alice", "--broker", url)
        done = await run_command("ping", *options, variables=variables)
        assert done.returncode == 9
        assert one_line(done).endswith(
            "not authorized: give --username, and the password in MQTT_PASSWORD or with "
            "--password-file"
        )
        done = await run_command("ping", *options, variables={"MQTT_PASSWORD": "s3cret"})
        assert done.returncode == 0


async def test_quiet() -> None:
    async with open_broker() as broker:
        broker.refuse(5)
        done = await run_command("ping", "--quiet", "--broker", await broker.listen())
    assert (done.returncode, done.stdout, done.stderr) == (9, b"", b"")


async def test_subscription_fails() -> None:
    async with open_broker(fail_filters={"a"}) as broker:
        done = await run_command("subscribe", "a", "--broker", await broker.listen())
    assert done.returncode == 1
    assert one_line(done).endswith(
        "the broker failed 'a': the user may not read there, by the broker's configuration"
    )


async def test_the_connection_is_lost_in_the_middle() -> None:
    """Of a round trip: whether the broker can be used is then in doubt."""

    def cut(client_id: str, packet: p.Packet) -> tuple[p.Packet, ...] | None:
        if isinstance(packet, p.PingResp):
            broker.disconnect(client_id)
            return ()
        return None

    async with open_broker(answer=cut) as broker:
        done = await run_command("ping", "--broker", await broker.listen())
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].startswith("python3 -m trio_mqtt ping: ")


async def test_busy_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = await run_command("broker", "--port", port)
    assert done.returncode == 1
    assert f"cannot listen on port {port} of 127.0.0.1: " in one_line(done)


# Misuse


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["publish", "a/#", "-m", "x"], "topic 'a/#' contains a wildcard"),
        (["publish", "", "-m", "x"], "topic '' is empty"),
        (["chat", "a/+"], "topic 'a/+' contains a wildcard"),
        (["subscribe", "a/#/b"], "topic filter 'a/#/b' has '#' before its last level"),
        (["subscribe"], "the following arguments are required: FILTER"),
        (["publish", "a", "--qos", "3"], "argument --qos: invalid choice: "),
        (["subscribe", "a", "--count", "0"], "argument --count/-n: 0 is less than 1"),
        (["subscribe", "a", "--colour"], "unrecognized arguments: --colour"),
        (["publish", "a", "-m", "x", "--lines"], "not allowed with argument"),
        (["ping", "--broker", "localhost"], "begins with mqtt://"),
        (["ping", "--broker", "mqtt://"], "the broker's URL names no host"),
        (["ping", "--broker", "mqtt://[::1"], "the broker's URL is malformed"),
        (["ping", "--timeout", "-1"], "argument --timeout: -1 is not above 0"),
        (["ping", "--keep-alive", "70000"], "argument --keep-alive: 70000 is not in 0 to"),
        (["ping", "--timeout", "nan"], "argument --timeout: nan is not above 0"),
        (["broker", "--port", "65536"], "argument --port: 65536 is not in 0 to"),
        (["ping", "--client-id", ""], "the client identifier is empty"),
        (["ping", "--will-message", "x"], "a will needs a topic: give --will-topic"),
        (["ping", "--will-topic", "#"], "topic '#' contains a wildcard"),
        (["ping", "--key", "key.pem"], "--key is the key of a certificate: give --cert too"),
        (["publish", "a", "-m", "x", "--session", "s", "--qos", "0"], "not at 0"),
    ],
)
async def test_misuse(arguments: list[str], said: str) -> None:
    done = await run_command(*arguments)
    assert done.returncode == 2
    assert said in one_line(done)
    assert one_line(done).startswith(f"python3 -m trio_mqtt {arguments[0]}: ")


async def test_a_password_in_an_argument() -> None:
    done = await run_command("ping", "--broker", "mqtt://alice:s3cret@localhost")
    assert done.returncode == 2
    assert "have it in the environment's MQTT_PASSWORD" in one_line(done)
    assert "s3cret" not in one_line(done)


# Files


async def test_unreadable_password() -> None:
    done = await run_command("ping", "--password-file", "/nowhere")
    assert done.returncode == 1
    assert one_line(done).endswith(
        "ping: cannot read the password from /nowhere: No such file or directory"
    )


@pytest.mark.parametrize("option", ["--ca", "--cert"])
async def test_certificates(option: str, tmp_path: Path) -> None:
    done = await run_command("ping", option, "/nowhere")
    assert done.returncode == 1
    assert one_line(done).endswith(f"cannot use {option} /nowhere: No such file or directory")
    path = tmp_path / "file.pem"
    path.write_text("none")
    done = await run_command("ping", option, str(path))
    assert done.returncode == 1
    assert f"cannot use {option} {path}: it is not in PEM" in one_line(done)


# Standard streams that are closed


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
@pytest.mark.parametrize(
    ("closing", "what"), [("<&-", "standard input"), (">&-", "standard output")]
)
async def test_closed(closing: str, what: str) -> None:
    with trio.fail_after(30):
        script = f'exec "$@" {closing}'
        done = await trio.run_process(
            ["sh", "-c", script, "sh", sys.executable, "-m", "trio_mqtt", "chat", "a"],
            capture_stderr=True,
            check=False,
            env=environment(),
        )
    assert done.returncode == 1
    assert one_line(done).endswith(f"{what} is closed")


# Which hint belongs to which error


def because(error: MQTTError, cause: BaseException) -> MQTTError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (UnacceptableProtocolVersion(), 5, "the broker has to allow MQTT 3.1.1"),
        (IdentifierRejected(), 6, "--client-id"),
        (ServerUnavailable(), 7, "try again later"),
        (BadCredentials(), 8, "--username"),
        (NotAuthorized(), 9, "--username"),
        (Denied("the topic is empty"), 2, "the topic is empty"),
        (SubscribeError(("a",)), 1, "may not read"),
        (Down("within 10 s"), 1, "--timeout"),
        (because(Down("x"), ConnectionRefusedError()), 1, "does a broker run there"),
        (because(Down("x"), socket.gaierror()), 1, "check the host's name"),
        (because(Down("x"), ConnectionLost("y")), 1, "is it a broker for MQTT"),
        (because(Down("x"), OSError("unreachable")), 1, "the network"),
        (
            because(Down("x"), ExceptionGroup("", [ConnectionRefusedError()])),
            1,
            "does a broker run there",
        ),
        (because(ClientClosed("closed"), OSError()), 1, "closed"),
    ],
)
def test_hints(error: MQTTError, code: int, hint: str) -> None:
    assert exit_code(error) == code
    assert hint in line(error)


def test_every_refusal_has_a_hint() -> None:
    for refusal in ConnectionRefused.__subclasses__():
        assert line(refusal()) != str(refusal())


# The help


@pytest.mark.parametrize(
    "command", ["publish", "subscribe", "ping", "chat", "broker", "demo", "completion"]
)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: trio-mqtt {command} " in shown
    assert command == "demo" or f"trio-mqtt {command}" in shown.partition("\n\n")[2]


def test_exit_codes_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "130  ended by SIGINT" in capsys.readouterr().out
