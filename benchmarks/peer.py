"""The broker's end of every measurement: answers as fast as Python can, and does nothing else.

It runs in a process of its own, ``python -m benchmarks.peer``, writes its port as its first line,
and serves one connection after the other, or with ``--together`` all at once in a thread each,
until it is terminated. To CONNECT it says that there is no session; a PUBLISH at QoS 1 gets PUBACK,
one at QoS 2 PUBREC and its PUBREL PUBCOMP, a PINGREQ PINGRESP. To SUBSCRIBE with the topic
``load/WINDOW/SIZE`` it sends messages of so many bytes, at QoS 0 as fast as they are taken, above
that WINDOW at once, another for each that is confirmed; with ``once/1/SIZE`` a single one. It
stores, routes and checks nothing. All that one read brought is answered by one write, and
`packets.split` takes no step for each packet, so what it costs is the system calls.

Each measurement has a row "the peer itself": a client of bare sockets, which is as simple, on this
peer. A client that comes near that row is held up by the peer; one far below it is not.
"""

from __future__ import annotations

import socket
import sys
import threading
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


class Service:
    """One connection, and the load that was asked for on it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._load = b""
        """A PUBLISH of those that are asked for; nothing where there are no more."""

    def run(self) -> None:
        """Answers until DISCONNECT.

        Raises:
            ConnectionResetError: the end came without.
        """
        incoming = Incoming(self._connection)
        while True:
            answers: list[bytes] = []
            for run in incoming.read():
                if run.data == p.DISCONNECT:
                    return
                answers.append(self._answer(run))
            self._connection.sendall(b"".join(answers))
            while self._load[:1] == bytes((p.PUBLISH_0,)):
                self._connection.sendall(self._load)

    def _answer(self, run: p.Run) -> bytes:
        match run.first_byte:
            case p.SUBSCRIBE:
                return self._subscribe(run.data)
            case p.PUBACK | p.PUBCOMP:
                return p.publish_run(self._load, identifiers(run)) if self._load else b""
            case _:
                return answer(run)

    def _subscribe(self, packet: bytes) -> bytes:
        """SUBACK, and what begins behind it."""
        size = int.from_bytes(packet[4:6], "big")
        topic, qos = packet[6 : 6 + size], packet[6 + size]
        kind, window, payload_size = topic.split(b"/")
        suback = p.SUBACK + packet[2:4] + bytes((qos,))
        template = p.publish_template(qos, topic, int(payload_size))
        if not qos:
            self._load = template * burst(template) if kind == b"load" else b""
            return suback if self._load else suback + template
        self._load = template if kind == b"load" else b""
        numbers = b"".join(number.to_bytes(2, "big") for number in range(1, int(window) + 1))
        return suback + p.publish_run(template, numbers)


def burst(packet: bytes) -> int:
    """How many packets like that one are written at once."""
    return max(BURST // len(packet), 1)


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
        case p.PINGREQ:
            return p.PINGRESP * len(run)
        case _:
            raise ValueError(f"a packet that begins with {run.first_byte:#x} is part of no load")


if __name__ == "__main__":
    main()
