"""The broker's end of every measurement: answers as fast as Python can, and does nothing else.

It runs in a process of its own, ``python -m benchmarks.peer``, writes its port as its first line,
and serves one connection after the other until it is terminated. To CONNECT it says that there is
no session; a PUBLISH at QoS 1 gets PUBACK, one at QoS 2 PUBREC and its PUBREL PUBCOMP, a PINGREQ
PINGRESP. It stores, routes and checks nothing. All that one read brought is answered by one
write, and `packets.split` takes no step for each packet, so what it costs is the system calls.

Each measurement has a row "the peer itself": a client of bare sockets, which is as simple, on this
peer. A client that comes near that row is held up by the peer; one far below it is not.
"""

from __future__ import annotations

import socket

from . import packets as p

READ_SIZE = 256 * 1024


def main() -> None:
    """Serves for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                serve(connection)


def serve(connection: socket.socket) -> None:
    """Answers one client until it goes."""
    rest = b""
    try:
        while data := connection.recv(READ_SIZE):
            data = rest + data
            answers: list[bytes] = []
            used = 0
            for run in p.split(data):
                if run.data == p.DISCONNECT:
                    return
                answers.append(answer(run))
                used += len(run.data)
            rest = data[used:]
            connection.sendall(b"".join(answers))
    except (ConnectionResetError, BrokenPipeError):
        return  # how a client ends is not what is measured


def answer(run: p.Run) -> bytes:
    """To packets of one kind.

    Raises:
        ValueError: no load contains them.
    """
    match run.first_byte:
        case p.PUBLISH_1:
            return run.answers(p.PUBACK, p.identifier_offset(run.data))
        case p.PUBLISH_2:
            return run.answers(p.PUBREC, p.identifier_offset(run.data))
        case p.PUBREL:
            return run.answers(p.PUBCOMP, 2)
        case p.CONNECT:
            return p.CONNACK
        case p.PINGREQ:
            return p.PINGRESP * len(run)
        case _:
            raise ValueError(f"a packet that begins with {run.first_byte:#x} is part of no load")


if __name__ == "__main__":
    main()
