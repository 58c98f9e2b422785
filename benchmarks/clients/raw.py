"""No client at all: packets by the dozen on a blocking socket, to see what the peer can take.

It keeps as many messages under way as the job has tasks, like any client, but a confirmation is
a count to it: what comes in one read is answered by one write, without a step for each message.
"""

from __future__ import annotations

import platform
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from benchmarks import packets as p
from benchmarks.incoming import Incoming
from benchmarks.job import TOPIC, Job, Meter, Sample
from benchmarks.peer import BURST, answer, identifiers
from benchmarks.trips import Trips

VERSIONS = {"Python": platform.python_version()}
SUBACK_SIZE = 5
CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04raw!"


class Load:
    """Messages under way on one connection."""

    def __init__(self, connection: socket.socket, job: Job) -> None:
        self._connection = connection
        self._template = p.publish_template(job.qos, TOPIC.encode(), job.payload_size)
        self._free = deque(range(1, job.tasks + 1))
        self._incoming = Incoming(connection)
        self._answers: list[bytes] = []
        self.meter = Meter()

    def step(self) -> None:
        """Publishes all that is free, and takes in one read."""
        packets = [self._publish()] if self._free else []
        self._connection.sendall(b"".join(packets + self._answers))
        self._answers = list(self._advance())

    def _publish(self) -> bytes:
        numbers = b"".join(number.to_bytes(2, "big") for number in self._free)
        self._free.clear()
        return p.publish_run(self._template, numbers)

    def _advance(self) -> Iterator[bytes]:
        """What answers the packets that came."""
        for run in self._incoming.read():
            if run.first_byte == p.PUBREC:
                yield run.answers(p.PUBREL, 2)
            elif run.first_byte in {p.PUBACK, p.PUBCOMP}:
                yield self._confirm(run)

    def _confirm(self, run: p.Run) -> bytes:
        """The next message of each that is confirmed, under the same packet identifier."""
        self.meter.messages += len(run)
        return p.publish_run(self._template, identifiers(run))


class Reception:
    """Messages that come on one connection."""

    def __init__(self, connection: socket.socket, job: Job) -> None:
        self._connection = connection
        self._incoming = Incoming(connection)
        self.meter = Meter()
        connection.sendall(p.subscribe(job.topic_filter.encode(), job.qos))
        connection.recv(SUBACK_SIZE, socket.MSG_WAITALL)

    def step(self) -> None:
        """Takes in one read, and answers what it brought."""
        answers: list[bytes] = []
        for run in self._incoming.read():
            answers.append(answer(run))
            if run.first_byte < p.PUBACK:
                self.meter.messages += len(run)
        self._connection.sendall(b"".join(answers))


class Flood:
    """Messages at QoS 0, as fast as they are taken."""

    def __init__(self, connection: socket.socket, job: Job) -> None:
        self._connection = connection
        message = p.publish_template(0, TOPIC.encode(), job.payload_size)
        self._count = max(1, BURST // len(message))
        self._burst = message * self._count
        self.meter = Meter()

    def step(self) -> None:
        """One write."""
        self._connection.sendall(self._burst)
        self.meter.messages += self._count


@contextmanager
def connected(job: Job) -> Generator[socket.socket, None, None]:
    """Has been accepted when it is entered, and says DISCONNECT when it is left."""
    with socket.create_connection(("127.0.0.1", job.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(CONNECT)
        if connection.recv(len(p.CONNACK)) != p.CONNACK:
            raise ConnectionRefusedError("no CONNACK")
        yield connection
        connection.sendall(p.DISCONNECT)


def run_for(step: Callable[[], None], seconds: float) -> None:
    """Goes on for as long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        step()


def move(job: Job) -> Sample:
    """The load, for as long as the job says."""
    with connected(job) as connection:
        kind = Reception if job.work == "receive" else Load if job.qos else Flood
        load = kind(connection, job)
        run_for(load.step, job.warm_up)
        load.meter.start()
        run_for(load.step, job.seconds)
        load.meter.stop(VERSIONS).leave()


def connect(job: Job) -> Sample:
    """One connection after the other."""
    meter = Meter()

    def step() -> None:
        with connected(job):
            meter.messages += 1

    run_for(step, job.warm_up)
    meter.start()
    run_for(step, job.seconds)
    return meter.stop(VERSIONS)


def latency(job: Job) -> Sample:
    """One PUBLISH at QoS 0, and the same number of bytes back."""
    if job.qos:
        return Sample({}, VERSIONS)
    trips = Trips()
    message = p.publish_template(0, TOPIC.encode(), job.payload_size)
    with connected(job) as connection:

        def step() -> None:
            trips.begin()
            connection.sendall(message)
            connection.recv(len(message), socket.MSG_WAITALL)
            trips.end()

        connection.sendall(p.subscribe(TOPIC.encode(), 0))
        connection.recv(SUBACK_SIZE, socket.MSG_WAITALL)
        run_for(step, job.warm_up)
        trips.start()
        run_for(step, job.seconds)
    return trips.stop(VERSIONS)


WORKS = {
    "receive": move,
    "publish": move,
    "durable": move,
    "connect": connect,
    "latency": latency,
}


if __name__ == "__main__":
    job = Job.from_command_line()
    WORKS[job.work](job).leave()
