"""No client at all: packets by the dozen on a blocking socket, to see what the peer can take.

It keeps as many messages under way as the job has tasks, like any client, but a confirmation is
a count to it: what comes in one read is answered by one write, without a step for each message.
"""

from __future__ import annotations

import platform
import socket
import time
from collections import deque

from benchmarks import packets as p
from benchmarks.job import TOPIC, Job, Meter, Sample
from benchmarks.peer import BURST, READ_SIZE, answer, identifiers

CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04raw!"


class Load:
    """Messages under way on one connection."""

    def __init__(self, connection: socket.socket, job: Job) -> None:
        self._connection = connection
        self._template = p.publish_template(job.qos, TOPIC.encode(), job.payload_size)
        self._free = deque(range(1, job.tasks + 1))
        self._rest = b""
        self.meter = Meter()

    def step(self) -> None:
        """Publishes all that is free, and takes in one read."""
        packets = [self._publish()] if self._free else []
        packets += self._advance()
        self._connection.sendall(b"".join(packets))
        self._rest += self._connection.recv(READ_SIZE)

    def _publish(self) -> bytes:
        numbers = b"".join(number.to_bytes(2, "big") for number in self._free)
        self._free.clear()
        return p.publish_run(self._template, numbers)

    def _advance(self) -> list[bytes]:
        """What answers the packets that came."""
        packets: list[bytes] = []
        used = 0
        for run in p.split(self._rest):
            used += len(run.data)
            if run.first_byte == p.PUBREC:
                packets.append(run.answers(p.PUBREL, 2))
            elif run.first_byte in {p.PUBACK, p.PUBCOMP}:
                packets.append(self._confirm(run))
        self._rest = self._rest[used:]
        return packets

    def _confirm(self, run: p.Run) -> bytes:
        """The next message of each that is confirmed, under the same packet identifier."""
        self.meter.messages += len(run)
        return p.publish_run(self._template, identifiers(run))


class Reception:
    """Messages that come on one connection."""

    def __init__(self, connection: socket.socket, job: Job) -> None:
        self._connection = connection
        self._rest = b""
        self.meter = Meter()
        topic = job.topic_filter.encode()
        body = b"\0\1" + len(topic).to_bytes(2, "big") + topic + bytes((job.qos,))
        connection.sendall(bytes((p.SUBSCRIBE, len(body))) + body)
        suback = p.ANSWER_SIZE + 1
        while len(self._rest) < suback:
            self._rest += connection.recv(READ_SIZE)
        self._rest = self._rest[suback:]

    def step(self) -> None:
        """Answers what came, and takes in one read."""
        answers: list[bytes] = []
        used = 0
        for run in p.split(self._rest):
            used += len(run.data)
            answers.append(answer(run))
            if run.first_byte < p.PUBACK:
                self.meter.messages += len(run)
        self._connection.sendall(b"".join(answers))
        self._rest = self._rest[used:] + self._connection.recv(READ_SIZE)


class Flood:
    """Messages at QoS 0, as fast as they are taken."""

    def __init__(self, connection: socket.socket, job: Job) -> None:
        self._connection = connection
        self._burst = p.publish_template(0, TOPIC.encode(), job.payload_size) * BURST
        self.meter = Meter()

    def step(self) -> None:
        """One write."""
        self._connection.sendall(self._burst)
        self.meter.messages += BURST


def run_for(work: Load | Reception | Flood, seconds: float) -> None:
    """Goes on for as long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        work.step()


def main(job: Job) -> Sample:
    """The load, for as long as the job says."""
    with socket.create_connection(("127.0.0.1", job.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(CONNECT)
        if connection.recv(len(p.CONNACK)) != p.CONNACK:
            raise ConnectionRefusedError("no CONNACK")
        kind = Reception if job.work == "receive" else Load if job.qos else Flood
        load = kind(connection, job)
        run_for(load, job.warm_up)
        load.meter.start()
        run_for(load, job.seconds)
        return load.meter.stop({"Python": platform.python_version()})


if __name__ == "__main__":
    main(Job.from_command_line()).leave()
