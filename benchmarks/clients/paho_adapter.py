"""paho-mqtt, with the thread of `loop_start`, and callbacks."""

# It is installed for the session `bench` alone, so that where types are checked it has none.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import threading
import time
from importlib.metadata import version

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.job import TOPIC, Job, Meter, Sample

VERSIONS = {"paho-mqtt": version("paho-mqtt")}


def main(job: Job) -> Sample:
    """Publishes, or receives."""
    client = Client(CallbackAPIVersion.VERSION2, "bench")
    client.max_inflight_messages_set(max(job.tasks, 1))
    client.connect("127.0.0.1", job.port)
    client.loop_start()
    while not client.is_connected():
        time.sleep(0.001)
    return (receive if job.work == "receive" else publish)(client, job)


def publish(client: Client, job: Job) -> Sample:
    """One after the other, or as many as there are tasks, each followed by another."""
    payload, meter = job.payload, Meter()
    ends = threading.Event()
    if job.tasks == 1:

        def run() -> None:
            while not ends.is_set():
                info = client.publish(TOPIC, payload, qos=job.qos)
                if job.qos:
                    info.wait_for_publish()
                meter.messages += 1

        threading.Thread(target=run, daemon=True).start()
    else:

        def on_publish(*_: object) -> None:
            meter.messages += 1
            client.publish(TOPIC, payload, qos=job.qos)

        client.on_publish = on_publish
        for _ in range(job.tasks):
            client.publish(TOPIC, payload, qos=job.qos)
    time.sleep(job.warm_up)
    meter.start()
    time.sleep(job.seconds)
    ends.set()
    if not job.qos:
        client.publish(TOPIC, payload, qos=1).wait_for_publish()
    return meter.stop(VERSIONS)


def receive(client: Client, job: Job) -> Sample:
    """The work itself."""
    meter = Meter()

    def on_message(*_: object) -> None:
        meter.messages += 1

    client.on_message = on_message
    client.subscribe(job.topic_filter, qos=job.qos)
    time.sleep(job.warm_up)
    meter.start()
    time.sleep(job.seconds)
    return meter.stop(VERSIONS)


if __name__ == "__main__":
    main(Job.from_command_line()).leave()
