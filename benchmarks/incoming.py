"""What comes on a blocking socket, in runs of packets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from . import packets as p

READ_SIZE = 256 * 1024
BEGINNING = 16
"""Bytes that contain the header of a packet, and the length of the topic."""
PUBLISH = p.PUBLISH_0 >> 4


class Incoming:
    """Reads, and keeps what is not complete.

    A large PUBLISH is a run of its first bytes alone, which have all that an answer needs: copying
    it would take more time than receiving it does. So would a new buffer for each read.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._rest: bytes = b""
        self._missing = 0
        """Bytes of a large packet, of which `_rest` is the beginning."""

    def read(self) -> Iterator[p.Run]:
        """The packets that are complete with one read. All of them have to be taken.

        Raises:
            ConnectionResetError: the connection came to its end, in whichever way.
        """
        size = self._connection.recv_into(self._buffer)
        if not size:
            raise ConnectionResetError("the other end closed the connection")
        skipped = min(self._missing, size)
        self._missing -= skipped
        if self._missing:
            return
        if skipped:
            yield p.Run(self._rest[0] & ~p.DUP, len(self._rest), self._rest)
            self._rest = b""
        yield from self._take(self._rest + self._buffer[skipped:size])

    def _take(self, data: bytes) -> Iterator[p.Run]:
        used = 0
        for run in p.split(data):
            used += len(run.data)
            yield run
        self._rest = data[used:]
        size = p.packet_size(self._rest[:5])
        if size >= p.LARGE and len(self._rest) >= BEGINNING and self._rest[0] >> 4 == PUBLISH:
            needed = p.identifier_offset(self._rest) + 2
            if len(self._rest) >= needed:
                self._missing = size - len(self._rest)
                self._rest = self._rest[:needed]
