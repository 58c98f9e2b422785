"""awscrt: a client in C, in threads of its own, with futures and callbacks in Python."""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import threading
import time
from importlib.metadata import version

from awscrt import mqtt

from benchmarks.job import TOPIC, Job, Meter, Sample

VERSIONS = {"awscrt": version("awscrt")}
MOST = 1000
"""Messages at QoS 0 that may wait in it, which bounds none."""


def main(job: Job) -> Sample:
    """Publishes, or receives."""
    connection = mqtt.Connection(mqtt.Client(), "127.0.0.1", job.port, "bench")
    connection.connect().result()
    return (receive if job.work == "receive" else publish)(connection, job)


def publish(connection: mqtt.Connection, job: Job) -> Sample:
    """Each that is done is followed by another. It has no QoS 2: the future fails."""
    if job.qos == 2:
        return Sample({}, VERSIONS)
    payload, meter, qos = job.payload, Meter(), mqtt.QoS(job.qos)
    ends = threading.Event()
    free = threading.Semaphore(job.tasks if job.qos or job.tasks > 1 else MOST)

    def done(_: object) -> None:
        meter.messages += 1
        free.release()

    def run() -> None:
        while not ends.is_set():
            free.acquire()
            future, _ = connection.publish(TOPIC, payload, qos)
            future.add_done_callback(done)

    threading.Thread(target=run, daemon=True).start()
    time.sleep(job.warm_up)
    meter.start()
    time.sleep(job.seconds)
    ends.set()
    if not job.qos:
        connection.publish(TOPIC, payload, mqtt.QoS.AT_LEAST_ONCE)[0].result()
    return meter.stop(VERSIONS)


def receive(connection: mqtt.Connection, job: Job) -> Sample:
    """The work itself."""
    meter = Meter()

    def on_message(*_: object, **__: object) -> None:
        meter.messages += 1

    connection.subscribe(job.topic_filter, mqtt.QoS(job.qos), callback=on_message)
    time.sleep(job.warm_up)
    meter.start()
    time.sleep(job.seconds)
    return meter.stop(VERSIONS)


if __name__ == "__main__":
    main(Job.from_command_line()).leave()
