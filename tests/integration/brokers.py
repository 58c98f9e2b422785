"""Starts mosquitto and RabbitMQ on loopback, without root services or systemd.

Each is a synchronous context manager that yields a `Broker`. It begins when the broker accepts an
MQTT connection, and at its end the broker's processes are gone, each ended by its own process id,
and so are its files. A broker that is not installed is a `Missing`.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import attrs
import pytest

HOST = "127.0.0.1"
USERS = {"alice": "s3cret", "bob": "hunter2"}
"""Whom a broker with credentials knows."""
FORBIDDEN = "forbidden"
"""How the topics begin that bob may not read at RabbitMQ."""

_FIRST_PORT, _LAST_PORT = 10_000, 32_000
"""Below those that the system hands out by itself: a client that tries again and again to reach
one of its own range, while the broker is down, may get connected to itself."""
_RUN = random.Random(os.getpid())
_POLL = 0.05
_LOG_TAIL = 4_000
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_CONNACK_SIZE = 4


class Missing(Exception):
    """A program is not installed. The message says how to install it."""


@contextmanager
def or_skip() -> Generator[None]:
    """Skips the test for what is `Missing`, or fails it where that has to be there."""
    try:
        yield
    except Missing as missing:
        if os.environ.get("TRIO_MQTT_REQUIRE_BROKERS") == "1":
            pytest.fail(f"{missing} (TRIO_MQTT_REQUIRE_BROKERS=1)")
        pytest.skip(str(missing))


class BrokerFailed(Exception):
    """A broker did not start, or did not end. The message has the tail of its log."""


@attrs.define(eq=False)
class Broker:
    """A broker that runs, and how it differs."""

    name: Literal["mosquitto", "rabbitmq"]
    port: int
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    best_qos: Literal[1, 2] = 2
    """What it grants to a subscription, and what a message at QoS 2 comes to."""
    websocket_port: int = 0
    """0 where there is none."""

    @property
    def url(self) -> str:
        """For `open_client`."""
        return self.url_at(self.port)

    @property
    def websocket_url(self) -> str:
        """The same over WebSocket."""
        return self.url_at(self.websocket_port).replace("mqtt://", "ws://") + "/ws"

    def url_at(self, port: int) -> str:
        """The same with the port of a relay."""
        user = (
            "" if self.username is None else f"{quote(self.username)}:{quote(self.password or '')}@"
        )
        return f"mqtt://{user}{HOST}:{port}"


# mosquitto


class Mosquitto(Broker):
    """A mosquitto that can be stopped, and started again on the same port with the same data."""

    def __init__(
        self,
        folder: Path,
        *,
        persistent: bool,
        users: Mapping[str, str],
        max_inflight_messages: int,
        more: Sequence[str],
    ) -> None:
        username, password = next(iter(users.items()), (None, None))
        super().__init__("mosquitto", free_port(), username, password, 2, free_port())
        self._folder = folder
        self._executable = find_program("mosquitto", "mosquitto")
        self._process: _Process | None = None
        (folder / "mosquitto.conf").write_text(
            "\n".join(
                [
                    f"listener {self.port} {HOST}",
                    f"user {_user()}",  # root would become another one
                    "log_dest stderr",
                    "max_queued_messages 0",  # no limit
                    "set_tcp_nodelay true",  # else two packets in a row take 40 ms
                    f"max_inflight_messages {max_inflight_messages}",
                    f"persistence {'true' if persistent else 'false'}",
                    f"persistence_location {folder}/",
                    *self._authentication(users),
                    f"listener {self.websocket_port} {HOST}",
                    "protocol websockets",
                    *more,
                ]
            )
            + "\n"
        )

    def _authentication(self, users: Mapping[str, str]) -> list[str]:
        if not users:
            return ["allow_anonymous true"]
        passwords = self._folder / "passwords"
        passwords.touch()
        for user, password in users.items():
            tool = find_program("mosquitto_passwd", "mosquitto")
            subprocess.run([tool, "-b", passwords, user, password], check=True, capture_output=True)
        return ["allow_anonymous false", f"password_file {passwords}"]

    def forbid(self, topic_filter: str) -> None:
        """Has it fail subscriptions to this from the next start on, by SUBACK with 0x80.

        Raises:
            Missing: the plugin for that is not installed.
        """
        plugin = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), None)
        if plugin is None:
            raise Missing(
                "mosquitto_dynamic_security.so is not installed: apt-get install mosquitto"
            )
        pattern = {"acltype": "subscribePattern", "topic": topic_filter, "allow": False}
        rules = {
            "defaultACLAccess": {
                "publishClientSend": True,
                "publishClientReceive": True,
                "subscribe": True,
                "unsubscribe": True,
            },
            "roles": [{"rolename": "limited", "acls": [pattern]}],
            "groups": [{"groupname": "all", "roles": [{"rolename": "limited"}]}],
            "anonymousGroup": "all",
        }
        file = self._folder / "rules.json"
        if not file.exists():
            with (self._folder / "mosquitto.conf").open("a") as configuration:
                configuration.write(f"plugin {plugin}\nplugin_opt_config_file {file}\n")
        file.write_text(json.dumps(rules))

    def start(self) -> None:
        """Starts it, and waits until it accepts connections."""
        assert self._process is None
        command = [self._executable, "-c", str(self._folder / "mosquitto.conf")]
        self._process = process = _Process(command, self._folder)
        try:
            process.wait_for(self, timeout=10)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops it by SIGTERM, upon which it saves what is persistent. No-op when it is down."""
        if self._process is not None:
            self._process.stop(timeout=10)
            self._process = None


@contextmanager
def mosquitto(
    *,
    persistent: bool = False,
    users: Mapping[str, str] | None = None,
    max_inflight_messages: int = 20,
    more: Sequence[str] = (),
) -> Generator[Mosquitto]:
    """Runs a mosquitto. Its own default is 20 messages unacknowledged at once, too.

    `more` are further lines of its configuration, such as those of another listener.

    Raises:
        Missing: it is not installed.
        BrokerFailed: it does not start.
    """
    with _folder("mosquitto") as folder:
        broker = Mosquitto(
            folder,
            persistent=persistent,
            users=users or {},
            max_inflight_messages=max_inflight_messages,
            more=more,
        )
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()


# RabbitMQ


@contextmanager
def rabbitmq() -> Generator[Broker]:
    """Runs a RabbitMQ with its MQTT plugin and `USERS`. It takes some ten seconds to start.

    Raises:
        Missing: it is not installed.
        BrokerFailed: it does not start.
    """
    # Debian's wrapper in /usr/sbin insists on becoming the user rabbitmq.
    server = find_program("rabbitmq-server", "rabbitmq-server", first="/usr/lib/rabbitmq/bin")
    epmd = find_program("epmd", "erlang-base")
    username, password = next(iter(USERS.items()))
    with _folder("rabbitmq") as folder:
        broker = Broker("rabbitmq", free_port(), username, password, 1, free_port())
        environment = _configure_rabbitmq(folder, broker)
        # The server would start one by itself, which outlives it.
        mapper = _Process([epmd, "-address", HOST], folder, environment)
        try:
            node = _Process([server], folder, environment)
            try:
                node.wait_for(broker, timeout=120)
                yield broker
            finally:
                node.stop(timeout=30)
        finally:
            mapper.stop(timeout=10)


def _configure_rabbitmq(folder: Path, broker: Broker) -> dict[str, str]:
    """Writes its configuration, and returns the environment that points there."""
    (folder / "rabbitmq.conf").write_text(
        "listeners.tcp = none\n"
        f"mqtt.listeners.tcp.1 = {HOST}:{broker.port}\n"
        f"web_mqtt.tcp.ip = {HOST}\n"
        f"web_mqtt.tcp.port = {broker.websocket_port}\n"
        "mqtt.allow_anonymous = false\n"
        f"load_definitions = {folder / 'definitions.json'}\n"
        "log.console = true\n"
        "log.console.level = info\n"
        "log.file = false\n"
    )
    everything = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    definitions = {
        "vhosts": [{"name": "/"}],
        "users": [{"name": user, "password": word, "tags": ""} for user, word in USERS.items()],
        "permissions": [{"user": user, **everything} for user in USERS],
        "topic_permissions": [
            {
                "user": "bob",
                "vhost": "/",
                "exchange": "amq.topic",
                "read": f"^(?!{FORBIDDEN})",
                "write": ".*",
            }
        ],
    }
    (folder / "definitions.json").write_text(json.dumps(definitions))
    (folder / "enabled_plugins").write_text("[rabbitmq_mqtt,rabbitmq_web_mqtt].\n")
    return {
        "HOME": str(folder),  # of .erlang.cookie
        "RABBITMQ_NODENAME": f"mqtt{broker.port}@localhost",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_EPMD_ADDRESS": HOST,
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RUNNING_UNDER_SYSTEMD": "true",  # no shell between its process and us
    }


# Processes


class _Process:
    """A program with its output in a log."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = Path(command[0]).name
        self._log = folder / f"{self._name}.log"
        setpriv = shutil.which("setpriv")
        if setpriv is not None:  # so that it does not outlive a pytest that was killed
            command = [setpriv, "--pdeathsig", "TERM", *command]
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # no Ctrl-C before its clients are done
            )

    def wait_for(self, broker: Broker, timeout: float) -> None:
        """Waits until each user is accepted."""
        users = {} if broker.username is None else USERS
        deadline = time.monotonic() + timeout
        while not all(_is_accepted(broker.port, *user) for user in users.items() or [(None, None)]):
            if self._popen.poll() is not None:
                raise self._failed(f"ended with {self._popen.returncode} instead of starting")
            if time.monotonic() >= deadline:
                raise self._failed(f"accepts no connection after {timeout} s")
            time.sleep(_POLL)

    def stop(self, timeout: float) -> None:
        """Ends it by SIGTERM, by SIGKILL if need be."""
        self._popen.terminate()
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            raise self._failed(f"did not end within {timeout} s") from None

    def _failed(self, what: str) -> BrokerFailed:
        tail = _COLOURS.sub("", self._log.read_text(errors="replace"))[-_LOG_TAIL:]
        return BrokerFailed(f"{self._name} {what}. Its log ends with:\n{tail}")


def _is_accepted(port: int, username: str | None, password: str | None) -> bool:
    """Whether the broker answers CONNECT with CONNACK 0.

    RabbitMQ listens before it knows its users.
    """
    client_id = "probe"
    fields = [client_id] if username is None else [client_id, username, password or ""]
    flags = 0x02 if username is None else 0xC2
    body = b"\0\4MQTT\4" + bytes([flags]) + b"\0\x0a"
    body += b"".join(len(field).to_bytes(2, "big") + field.encode() for field in fields)
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1) as connection:
        connection.sendall(b"\x10" + bytes([len(body)]) + body)
        answer = connection.recv(_CONNACK_SIZE, socket.MSG_WAITALL)
        connection.sendall(b"\xe0\0")
        return answer == b"\x20\2\0\0"
    return False


@contextmanager
def _folder(name: str) -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"trio-mqtt-{name}-") as folder:
        yield Path(folder)


def find_program(name: str, package: str, *, first: str = "") -> str:
    """Where a program is, `first` or elsewhere. Daemons are often in a place that is not in PATH.

    Raises:
        Missing: nowhere.
    """
    places = [first, os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
    found = shutil.which(name, path=os.pathsep.join(place for place in places if place))
    if found is None:
        raise Missing(f"{name} is not installed: apt-get install {package}")
    return found


def _user() -> str:
    """Who runs the tests, as the system knows them."""
    import pwd  # noqa: PLC0415, not on Windows, where this module has to be imported to skip

    return pwd.getpwuid(os.getuid()).pw_name


def free_port() -> int:
    """A port that nobody listens on, and that the system hands to nobody by itself."""
    while True:
        port = _RUN.randint(_FIRST_PORT, _LAST_PORT)
        with suppress(OSError), socket.socket() as candidate:
            candidate.bind((HOST, port))
            return port
