"""paho-mqtt, with the thread of `loop_start`, and callbacks."""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.job import TOPIC, Job, Meter, Sample
from benchmarks.resident import Growth, allow_files

from .threaded import Adapter, OnMessage

SELECT_MOST = 1000
"""Files that a process may have open for select to wait for them, some kept for others."""
FILES_EACH = 3
"""A socket, and a pair that wakes its thread."""


class Paho(Adapter[Client]):
    """A client with callbacks, in a thread."""

    versions = {"paho-mqtt": version("paho-mqtt")}  # noqa: RUF012

    @contextmanager
    def open(self, job: Job, name: str = "bench") -> Generator[Client, None, None]:
        """With a window as wide as the job's."""
        client = Client(CallbackAPIVersion.VERSION2, name)
        client.max_inflight_messages_set(max(job.tasks, 1))
        accepted = threading.Event()

        def on_connect(*_: object) -> None:
            accepted.set()

        client.on_connect = on_connect
        client.connect("127.0.0.1", job.port)
        if job.work == "latency":  # else PUBACK and the next PUBLISH take 40 ms
            connection: Any = client.socket()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.loop_start()
        accepted.wait()
        yield client
        client.disconnect()
        client.loop_stop()

    def start_sending(self, client: Client, payload: bytes, qos: int) -> Callable[[], object]:
        """Its information can be waited for."""
        return client.publish(TOPIC, payload, qos=qos).wait_for_publish

    def subscribe(self, client: Client, topic: str, qos: int, on_message: OnMessage) -> None:
        """All messages come to one callback."""
        client.on_message = on_message
        client.subscribe(topic, qos=qos)

    def idle(self, job: Job) -> Sample:
        """In an external loop, where the threads could not wait for so many."""
        if job.tasks * FILES_EACH < SELECT_MOST:
            return super().idle(job)
        allow_files()
        growth = Growth()
        clients = [open_externally(job.port, f"bench{number}") for number in range(job.tasks)]
        return growth.now(len(clients), self.versions)

    def publish(self, job: Job) -> Sample:
        """One after the other, or as many as there are tasks, each followed by another."""
        meter, ends = Meter(), threading.Event()
        with self.open(job) as client:
            publish = one_by_one if job.tasks == 1 else side_by_side
            publish(client, job, meter, ends)
            time.sleep(job.warm_up)
            meter.start()
            time.sleep(job.seconds)
            ends.set()
            if not job.qos:
                self.start_sending(client, job.payload, 1)()
            meter.stop(self.versions).leave()


def open_externally(port: int, name: str) -> Client:
    """Connected, without a thread: what waits for its socket is the application's."""
    client = Client(CallbackAPIVersion.VERSION2, name)
    client.connect("127.0.0.1", port)
    poll = select.poll()
    poll.register(client.socket(), select.POLLIN)  # type: ignore[arg-type]  # any that has a fileno
    while not client.is_connected():
        if client.want_write():
            client.loop_write()
        poll.poll(10)
        client.loop_read()
    return client


def one_by_one(client: Client, job: Job, meter: Meter, ends: threading.Event) -> None:
    """In a thread that waits for each."""
    payload = job.payload

    def run() -> None:
        while not ends.is_set():
            info = client.publish(TOPIC, payload, qos=job.qos)
            if job.qos:
                info.wait_for_publish()
            meter.messages += 1

    threading.Thread(target=run, daemon=True).start()


def side_by_side(client: Client, job: Job, meter: Meter, _: threading.Event) -> None:
    """In the callback that says that one is done."""
    payload = job.payload

    def on_publish(*_: object) -> None:
        meter.messages += 1
        client.publish(TOPIC, payload, qos=job.qos)

    client.on_publish = on_publish
    for _number in range(job.tasks):
        client.publish(TOPIC, payload, qos=job.qos)


if __name__ == "__main__":
    Paho().run(Job.from_command_line())
