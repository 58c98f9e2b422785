"""awscrt: a client in C, in threads of its own, with futures and callbacks in Python."""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version

from awscrt import mqtt

from benchmarks.job import TOPIC, Job, Meter, Sample

from .threaded import Adapter, OnMessage

MOST = 1000
"""Messages at QoS 0 that may wait in it, which bounds none."""


class Awscrt(Adapter[mqtt.Connection]):
    """Publishing at QoS 2 it has not: the future fails."""

    versions = {"awscrt": version("awscrt")}  # noqa: RUF012

    @cached_property
    def _client(self) -> mqtt.Client:
        """With the threads, which all connections share."""
        return mqtt.Client()

    @contextmanager
    def open(self, job: Job, name: str = "bench") -> Generator[mqtt.Connection, None, None]:
        """It has no window that could be chosen."""
        connection = mqtt.Connection(self._client, "127.0.0.1", job.port, name)
        connection.connect().result()
        yield connection
        connection.disconnect().result()

    def start_sending(
        self, client: mqtt.Connection, payload: bytes, qos: int
    ) -> Callable[[], object]:
        """A future."""
        future, _ = client.publish(TOPIC, payload, mqtt.QoS(qos))
        return future.result  # type: ignore[no-any-return]  # where types are checked it has none

    def subscribe(
        self, client: mqtt.Connection, topic: str, qos: int, on_message: OnMessage
    ) -> None:
        """Each subscription has its callback."""
        client.subscribe(topic, mqtt.QoS(qos), callback=on_message)

    def publish(self, job: Job) -> Sample:
        """Nothing where it cannot."""
        return Sample({}, self.versions) if job.qos == 2 else self._publish(job)

    def _publish(self, job: Job) -> Sample:
        """Each that is done is followed by another."""
        payload, meter, qos = job.payload, Meter(), mqtt.QoS(job.qos)
        ends = threading.Event()
        free = threading.Semaphore(job.tasks if job.qos or job.tasks > 1 else MOST)

        def done(_: object) -> None:
            meter.messages += 1
            free.release()

        def run(connection: mqtt.Connection) -> None:
            while not ends.is_set():
                free.acquire()
                future, _ = connection.publish(TOPIC, payload, qos)
                future.add_done_callback(done)

        with self.open(job) as connection:
            threading.Thread(target=run, args=(connection,), daemon=True).start()
            time.sleep(job.warm_up)
            meter.start()
            time.sleep(job.seconds)
            ends.set()
            if not job.qos:
                self.start_sending(connection, payload, 1)()
            meter.stop(self.versions).leave()

    def latency(self, job: Job) -> Sample:
        """Nothing where it cannot publish."""
        return Sample({}, self.versions) if job.qos == 2 else super().latency(job)


if __name__ == "__main__":
    Awscrt().run(Job.from_command_line())
