"""A TCP relay in front of a broker, which loses connections on demand.

A cut is abrupt. What was forwarded up to that byte has left, what comes behind it is gone, and both
sides see the connection broken (RST), or closed in the middle of a packet (FIN).
"""

from __future__ import annotations

import math
import random
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import attrs
import trio

from .brokers import HOST

_READ_SIZE = 65_536
_HALF = 0.5
_NO_LINGER = struct.pack("ii", 1, 0)


@attrs.frozen
class Cut:
    """When to cut a connection, and how."""

    after: float = math.inf
    """Bytes."""
    upstream: bool = True
    """Whether the client's bytes count, or those of the broker."""
    reset: bool = True


class Relay:
    """Forwards connections to a broker, until it is told not to."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = 0
        self.cuts = 0
        """How many connections were cut."""
        self.bandwidth = math.inf
        """Bytes per second, in either direction of each connection to come."""
        self._links: set[_Link] = set()
        self._next_cut: Callable[[], Cut] = Cut
        self._refusing = False

    def cut(self, *, reset: bool = True) -> None:
        """Cuts the connections of the moment."""
        for link in list(self._links):
            link.cut(reset=reset)

    def cut_after(self, size: int, *, upstream: bool, reset: bool = True) -> None:
        """Cuts each connection of the moment after `size` more bytes in that direction."""
        for link in self._links:
            link.due = Cut(size, upstream, reset)

    def cut_at_random(self, source: random.Random, *, upstream: int, downstream: int) -> None:
        """Cuts each connection, those to come too, after a random number of bytes.

        A coin decides upon the direction that counts. In one alone nothing might ever get on: a
        broker that begins with more bytes than `downstream` would never get an acknowledgement.
        """
        most = {True: upstream, False: downstream}

        def next_cut() -> Cut:
            up = source.random() < _HALF
            return Cut(source.randint(1, most[up]), up, source.random() < _HALF)

        self._next_cut = next_cut
        for link in self._links:
            link.due = next_cut()

    def spare(self) -> None:
        """Cuts none any more."""
        self._next_cut = Cut
        for link in self._links:
            link.due = Cut()

    @contextmanager
    def refusing(self) -> Generator[None]:
        """Closes new connections at once."""
        self._refusing = True
        try:
            yield
        finally:
            self._refusing = False

    def swallow(self) -> None:
        """Forwards no more bytes on the connections of the moment, and does not close them."""
        for link in self._links:
            link.swallowing = True

    async def serve(self, stream: trio.SocketStream) -> None:
        """Forwards one connection, to its end."""
        if self._refusing:
            _close(stream, reset=True)
            await trio.lowlevel.checkpoint()
            return
        try:
            target = await trio.open_tcp_stream(HOST, self._target_port)
        except OSError:  # the broker is down
            _close(stream, reset=True)
            await trio.lowlevel.checkpoint()
            return
        link = _Link(stream, target, self._next_cut(), self.bandwidth)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.remove(link)
            self.cuts += link.was_cut


class _Link:
    """One connection of the client's, and one of the broker's."""

    def __init__(
        self, client: trio.SocketStream, broker: trio.SocketStream, due: Cut, bandwidth: float
    ) -> None:
        self._client = client
        self._broker = broker
        self._bandwidth = bandwidth
        self._scope = trio.CancelScope()
        self._reset = False
        self.due = due
        self.was_cut = False
        self.swallowing = False

    def cut(self, *, reset: bool) -> None:
        self.was_cut = True
        self._reset = reset
        self._scope.cancel()

    async def run(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(self._forward, upstream=True))
                    nursery.start_soon(partial(self._forward, upstream=False))
        finally:
            _close(self._client, reset=self._reset)
            _close(self._broker, reset=self._reset)

    async def _forward(self, *, upstream: bool) -> None:
        """Until one side is closed: MQTT has no use for half a connection."""
        ends = (self._client, self._broker)
        source, sink = ends if upstream else ends[::-1]
        await trio.lowlevel.checkpoint()
        try:
            while data := await source.receive_some(_READ_SIZE):
                if self.swallowing:
                    continue
                if self._bandwidth < math.inf:
                    await trio.sleep(len(data) / self._bandwidth)
                due = self.due
                if due.upstream is not upstream:
                    await sink.send_all(data)
                elif due.after > len(data):
                    self.due = attrs.evolve(due, after=due.after - len(data))
                    await sink.send_all(data)
                else:
                    await sink.send_all(data[: int(due.after)])
                    self.cut(reset=due.reset)
        except trio.BrokenResourceError:  # one side's reset is passed on as such
            self._reset = True
        self._scope.cancel()


def _close(stream: trio.SocketStream, *, reset: bool) -> None:
    if reset:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    stream.socket.close()


class _Kept:
    """What the body raises, to be raised again outside of the nursery, which would wrap it."""

    error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        self.error = error
        return True

    def raise_it(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # a frame that holds its own exception is a cycle


@asynccontextmanager
async def open_relay(target_port: int) -> AsyncGenerator[Relay]:
    """Runs a relay to a port on loopback. What the body raises leaves it bare."""
    relay = Relay(target_port)
    kept = _Kept()
    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, relay.serve, 0, host=HOST)
        )
        relay.port = listeners[0].socket.getsockname()[1]
        with kept:
            yield relay
        nursery.cancel_scope.cancel()
    kept.raise_it()
