"""Sends messages one after the other, with a bounded number of them unconfirmed."""

from __future__ import annotations

from collections import deque

import attrs
import trio

from trio_mqtt import Client, Exchange, InDoubt, PendingLimit, QoS

MOST_MESSAGES = 1_000
"""That are unconfirmed at a time: several times as many as travel at once."""
MOST_BYTES = 16_000_000
"""Of payload, in these. A single message may be larger."""


class Sender:
    """What one command publishes to one topic, in order."""

    def __init__(self, client: Client, topic: str, qos: QoS, *, retain: bool) -> None:
        self._client = client
        self._topic = topic
        self._qos: QoS = qos
        self._retain = retain
        self._window: deque[_Sent] = deque()
        self._window_bytes = 0
        self.confirmed = 0
        """Messages, or at QoS 0 those that were handed to the connection."""
        self.confirmed_bytes = 0
        self._waits = trio.Event()

    async def send(self, payload: bytes) -> None:
        """Publishes at QoS 0; at QoS 1 and 2 has the message accepted, once there is room.

        Raises:
            Denied: it is illegal.
            Down: at QoS 0, there is no connection.
            PersistenceError: it could not be stored.
        """
        qos = self._qos
        if qos == 0:
            await self._client.publish(self._topic, payload, retain=self._retain)
            self._count(len(payload))
            return
        while self._window and self._is_full(len(payload)):
            await self._confirm_first()
        try:
            # Without waiting until it is stored, so that one commit may store many.
            exchange = self._client.enqueue_nowait(
                self._topic, payload, qos=qos, retain=self._retain
            )
        except PendingLimit:  # an earlier run of the session left that many
            self.begin_waiting()
            exchange = await self._client.enqueue(
                self._topic, payload, qos=qos, retain=self._retain
            )
        self._window.append(_Sent(exchange, len(payload)))
        self._window_bytes += len(payload)

    async def wait_accepted(self) -> None:
        """Waits until all that was sent is stored, on a session that stores."""
        for sent in self._window:
            await sent.exchange.wait_accepted()

    async def wait_confirmed(self) -> None:
        """Waits until all that was sent is confirmed."""
        while self._window:
            await self._confirm_first()

    def begin_waiting(self) -> None:
        """From now on it is confirmations that are waited for, not more to send."""
        self._waits.set()

    async def wait_down(self) -> None:
        """Once confirmations are waited for: until an attempt to connect fails, by an exception.

        Raises:
            Down: it did.
        """
        await self._waits.wait()
        while True:
            try:
                await self._client.ping()  # which waits for the attempt under way
            except InDoubt:  # the connection was lost, and there will be another attempt
                continue
            await self._client.wait_offline()

    def _is_full(self, size: int) -> bool:
        return len(self._window) >= MOST_MESSAGES or self._window_bytes + size > MOST_BYTES

    async def _confirm_first(self) -> None:
        self.begin_waiting()
        sent = self._window[0]
        await sent.exchange.wait()
        self._window.popleft()
        self._window_bytes -= sent.size
        self._count(sent.size)

    def _count(self, size: int) -> None:
        self.confirmed += 1
        self.confirmed_bytes += size


@attrs.frozen
class _Sent:
    exchange: Exchange
    size: int
