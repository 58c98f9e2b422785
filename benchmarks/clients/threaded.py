"""The works by clients with threads of their own, whose adapters say how theirs is used."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from queue import SimpleQueue
from typing import Generic, TypeVar

from benchmarks.job import SETTLE, TOPIC, Job, Meter, Sample
from benchmarks.resident import Growth, allow_files
from benchmarks.trips import Trips

ClientT = TypeVar("ClientT")
OnMessage = Callable[..., None]


class Adapter(ABC, Generic[ClientT]):
    """A client with callbacks. Each work is the function of its name."""

    versions: dict[str, str]

    @abstractmethod
    def open(self, job: Job, name: str = "bench") -> AbstractContextManager[ClientT]:
        """Has been accepted when it is entered, and says DISCONNECT when it is left."""

    @abstractmethod
    def start_sending(self, client: ClientT, payload: bytes, qos: int) -> Callable[[], object]:
        """Publishes. What it returns waits for the confirmation."""

    @abstractmethod
    def subscribe(self, client: ClientT, topic: str, qos: int, on_message: OnMessage) -> None:
        """Has `on_message` called for each message, with whichever arguments."""

    @abstractmethod
    def publish(self, job: Job) -> Sample:
        """As many under way as there are tasks."""

    def run(self, job: Job) -> None:
        """The process."""
        work: Callable[[Job], Sample] = getattr(self, job.work)
        work(job).leave()

    def receive(self, job: Job) -> Sample:
        """A callback that counts."""
        meter = Meter()

        def on_message(*_: object, **__: object) -> None:
            meter.messages += 1

        with self.open(job) as client:
            self.subscribe(client, job.topic_filter, job.qos, on_message)
            time.sleep(job.warm_up)
            meter.start()
            time.sleep(job.seconds)
            meter.stop(self.versions).leave()

    def connect(self, job: Job) -> Sample:
        """One connection after the other."""
        meter = Meter()

        def run(seconds: float) -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                with self.open(job):
                    meter.messages += 1

        run(job.warm_up)
        meter.start()
        run(job.seconds)
        return meter.stop(self.versions)

    def latency(self, job: Job) -> Sample:
        """A callback that publishes the next one."""
        payload, trips = job.payload, Trips()

        with self.open(job) as client:

            def publish() -> None:
                trips.begin()
                self.start_sending(client, payload, job.qos)

            def on_message(*_: object, **__: object) -> None:
                trips.end()
                publish()

            self.subscribe(client, TOPIC, job.qos, on_message)
            publish()
            time.sleep(job.warm_up)
            trips.start()
            time.sleep(job.seconds)
            trips.stop(self.versions).leave()

    def idle(self, job: Job) -> Sample:
        """As many clients as there are tasks."""
        allow_files()
        growth = Growth()
        with ExitStack() as stack:
            for number in range(job.tasks):
                stack.enter_context(self.open(job, f"bench{number}"))
            time.sleep(SETTLE)
            growth.now(job.tasks, self.versions).leave()

    def receive_one(self, job: Job) -> Sample:
        """One message, which is held."""
        held: SimpleQueue[tuple[object, object]] = SimpleQueue()

        def on_message(*arguments: object, **more: object) -> None:
            held.put((arguments, more))

        with self.open(job) as client:
            growth = Growth()
            self.subscribe(client, job.once, job.qos, on_message)
            _message = held.get()
            growth.peak(job.payload_size, self.versions).leave()

    def publish_one(self, job: Job) -> Sample:
        """One message, until it is confirmed."""
        payload = job.payload
        with self.open(job) as client:
            growth = Growth()
            self.start_sending(client, payload, job.qos)()
            growth.peak(job.payload_size, self.versions).leave()
