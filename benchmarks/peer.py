"""The broker's end of every measurement: answers as fast as Python can, and does nothing else.

It runs in a process of its own, ``python -m benchmarks.peer``, writes its port as its first line,
and serves one connection after the other, or with ``--together`` all at once in a thread each,
until it is terminated. To CONNECT it says that there is no session; a PUBLISH at QoS 1 gets PUBACK,
one at QoS 2 PUBREC and its PUBREL PUBCOMP, a PINGREQ PINGRESP, an UNSUBSCRIBE UNSUBACK, and each
topic filter of a SUBSCRIBE what it asks for. It stores, routes and checks nothing. Three topic
filters make it do more:

- ``load/WINDOW/SIZE``, with any levels behind, has it send messages of so many bytes on that very
  topic, at QoS 0 as fast as they are taken, above that WINDOW at once, another for each that is
  confirmed.
- ``once/1/SIZE`` has it send a single one.
- ``rotate/WINDOW/SIZE/TOPICS/FILTERS`` does the same on as many topics as it says, one after the
  other: see `rotated_topic`. They match as many topic filters.

After a PUBLISH at QoS 0 on ``keep/COUNT`` it keeps back so many confirmations, the latest ones, to
PUBLISH at QoS 1 and to PUBREL. After one on ``hold/COUNT`` it confirms nothing more, and closes the
connection once it owes so many.

All that one read brought is answered by one write, and `packets.split` takes no step for each
packet, so what it costs is the system calls.

Each measurement has a row "the peer itself": a client of bare sockets, which is as simple, on this
peer. A client that comes near that row is held up by the peer; one far below it is not.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from . import packets as p
from .incoming import Incoming
from .resident import allow_files

BURST = 64 * 1024
"""Bytes of messages at QoS 0 that are written at once, or one message that is larger."""


def main() -> None:
    """Serves for ever."""
    together = "--together" in sys.argv
    allow_files()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            if together:
                threading.Thread(target=serve, args=(connection,), daemon=True).start()
            else:
                serve(connection)


def serve(connection: socket.socket) -> None:
    """Answers one client until it goes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, suppress(ConnectionResetError, BrokenPipeError):
        Service(connection).run()  # how a client ends is not what is measured


def rotated_topic(number: int, filters: int) -> str:
    """One of many topics, which ``topic/N/+`` matches for one N below the number of filters."""
    return f"topic/{number % filters:05}/{number:05}"


class Load:
    """Messages that are asked for: on one topic, or on several of the same length in rotation."""

    def __init__(self, qos: int, topics: Sequence[bytes], payload_size: int) -> None:
        templates = [p.publish_template(qos, topic, payload_size) for topic in topics]
        self._template = templates[0]
        self._is_rotated = len(templates) > 1
        self._all = b"".join(templates)
        self._sent = 0

    def burst(self) -> bytes:
        """Many, without packet identifiers."""
        return self._all * max(1, BURST // len(self._all))

    def run(self, identifiers: bytes) -> bytes:
        """One for each packet identifier, of two bytes."""
        if not self._is_rotated:
            return p.publish_run(self._template, identifiers)
        size = len(self._template)
        count = len(identifiers) // 2
        start = self._sent * size % len(self._all)
        end = start + count * size
        self._sent += count
        data = bytearray((self._all * -(-end // len(self._all)))[start:end])
        p.put_identifiers(data, size, p.identifier_offset(self._template), identifiers)
        return bytes(data)


class Service:
    """One connection, and what was asked for on it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._load: Load | None = None
        self._burst = b""
        self._hold: int | None = None
        """How many confirmations to owe."""
        self._keep = 0
        """How many confirmations to keep back,"""
        self._kept = b""
        """and those that are."""

    def run(self) -> None:
        """Answers until DISCONNECT, or until it was told to go.

        Raises:
            ConnectionResetError: the end came without.
        """
        incoming = Incoming(self._connection)
        while self._hold != 0:
            answers: list[bytes] = []
            for run in incoming.read():
                if run.data == p.DISCONNECT:
                    return
                answers.append(self._answer(run))
            # A single one may be large, and is not copied.
            self._connection.sendall(answers[0] if len(answers) == 1 else b"".join(answers))
            while self._burst:
                self._connection.sendall(self._burst)

    def _answer(self, run: p.Run) -> bytes:
        match run.first_byte:
            case p.SUBSCRIBE:
                return self._subscribe(run.data)
            case p.PUBLISH_0:
                self._obey(p.topic_of(run.data))
                return b""
            case p.PUBACK | p.PUBCOMP:
                return self._load.run(identifiers(run)) if self._load is not None else b""
            case p.PUBLISH_1 | p.PUBREL if self._hold is not None:
                self._hold = max(0, self._hold - len(run))
                return b""
            case p.PUBLISH_1 | p.PUBREL if self._keep:
                return self._keep_back(answer(run))
            case _:
                return answer(run)

    def _obey(self, topic: bytes) -> None:
        match topic.split(b"/"):
            case [b"hold", count]:
                self._hold = int(count)
            case [b"keep", count]:
                self._keep = int(count)
            case _:
                pass

    def _keep_back(self, confirmations: bytes) -> bytes:
        """Exchanges them for those that it is time for."""
        kept = self._kept + confirmations
        due = max(0, len(kept) - self._keep * p.ANSWER_SIZE)
        self._kept = kept[due:]
        return kept[:due]

    def _subscribe(self, packet: bytes) -> bytes:
        """SUBACK, and what begins behind it."""
        requests = list(p.requests(packet))
        begins = b"".join(self._begin(*request) for request in requests)
        return p.suback(packet, bytes(qos for _, qos in requests)) + begins

    def _begin(self, topic: bytes, qos: int) -> bytes:
        """What a topic filter asks for, if it is one of those above."""
        kind, *levels = topic.split(b"/")
        match kind:
            case b"load" | b"once":
                topics = [topic]
            case b"rotate":
                count, filters = map(int, levels[2:])
                topics = [rotated_topic(number, filters).encode() for number in range(count)]
            case _:
                return b""
        window, payload_size = map(int, levels[:2])
        load = Load(qos, topics, payload_size)
        numbers = b"".join(number.to_bytes(2, "big") for number in range(1, window + 1))
        if kind == b"once":
            return load.run(numbers) if qos else p.publish_template(qos, topic, payload_size)
        self._load = load
        if not qos:
            self._burst = load.burst()
            return b""
        return load.run(numbers)


def identifiers(run: p.Run) -> bytes:
    """Those of answers, behind one another."""
    found = bytearray(2 * len(run))
    found[::2], found[1::2] = run.data[2 :: run.size], run.data[3 :: run.size]
    return bytes(found)


_ANSWERS = {p.PUBLISH_1: p.PUBACK, p.PUBLISH_2: p.PUBREC, p.PUBREC: p.PUBREL, p.PUBREL: p.PUBCOMP}


def answer(run: p.Run) -> bytes:
    """To packets of one kind.

    Raises:
        ValueError: no load contains them.
    """
    match run.first_byte:
        case p.PUBLISH_0:
            return b""
        case p.PUBLISH_1 | p.PUBLISH_2:
            return run.answers(_ANSWERS[run.first_byte], p.identifier_offset(run.data))
        case p.PUBREC | p.PUBREL:
            return run.answers(_ANSWERS[run.first_byte], 2)
        case p.CONNECT:
            return p.CONNACK
        case p.UNSUBSCRIBE:
            return p.unsuback(run.data)
        case p.PINGREQ:
            return p.PINGRESP * len(run)
        case _:
            raise ValueError(f"a packet that begins with {run.first_byte:#x} is part of no load")


if __name__ == "__main__":
    main()
