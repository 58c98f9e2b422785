"""What the clients connect to, in a process of its own for each measurement."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
START_MOST = 10.0
"""Seconds that mosquitto may take until it accepts connections."""
DAEMONS = "/usr/sbin:/usr/local/sbin"
"""Where daemons are, often without being in PATH."""


def peer(_: Path) -> AbstractContextManager[int]:
    """The benchmark's own, which serves one connection after the other."""
    return running_peer()


def peer_for_many(_: Path) -> AbstractContextManager[int]:
    """The same, which serves all connections at once."""
    return running_peer("--together")


@contextmanager
def running_peer(*arguments: str) -> Generator[int, None, None]:
    """Yields its port."""
    command = [sys.executable, "-m", "benchmarks.peer", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@contextmanager
def mosquitto(directory: Path) -> Generator[int, None, None]:
    """A mosquitto, with its files in the directory. Yields its port.

    Raises:
        SystemExit: it is not installed, or does not start.
    """
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), DAEMONS))
    program = shutil.which("mosquitto", path=places)
    if program is None:
        raise SystemExit("mosquitto is not installed: apt-get install mosquitto")
    port, log = free_port(), directory / "mosquitto.log"
    configuration = directory / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        "set_tcp_nodelay true\n"  # else two packets in a row take 40 ms
        f"log_dest stderr\nuser {user()}\n",  # root would become another one
        "utf-8",
    )
    with (
        log.open("wb") as output,
        subprocess.Popen([program, "-c", configuration], stderr=output) as process,  # noqa: S603
    ):
        try:
            wait_for(port, process, log)
            yield port
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until it accepts connections.

    Raises:
        SystemExit: it does not.
    """
    end = time.monotonic() + START_MOST
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise SystemExit(f"mosquitto does not start: {log.read_text('utf-8', 'replace')}")


def user() -> str:
    """Who runs this, as the system knows them."""
    import pwd  # noqa: PLC0415, not on Windows, where this module is imported too

    return pwd.getpwuid(os.getuid()).pw_name


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
