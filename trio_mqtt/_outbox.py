"""The bytes for one connection, in order, and how far each request among them got."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from ._errors import Down, InDoubt, NotSent, ResponseLost, SubmitInterrupted

APART = 32_768
"""Bytes of a payload from which on it is queued behind its packet, rather than copied into it."""


class Outbox:
    """The bytes for one connection, in order, and how far they got.

    Arguments:
        answers: gives what is to be answered, when the rest is taken: many at once cost little.
    """

    def __init__(self, answers: Callable[[], Iterable[bytes]] = tuple[bytes]) -> None:
        self._answers = answers
        self._packets: list[bytes] = []
        self.closed = False
        """Whether nothing will be appended any more."""
        self.queued = 0
        """How many bytes were ever appended."""
        self.begun = 0
        """How many of them were handed to the transport, in part at least."""
        self.written = 0
        """How many of them the transport took."""

    def append(self, packet: bytes) -> None:
        if not self.closed:
            self._packets.append(packet)
            self.queued += len(packet)

    def close(self, last: bytes) -> None:
        """Appends a last packet, behind which nothing may follow [MQTT-3.14.4-2]."""
        self._append_answers()
        self.append(last)
        self.closed = True

    def take(self) -> list[bytes]:
        """All packets that nobody took yet."""
        self._append_answers()
        packets, self._packets = self._packets, []
        return packets

    def _append_answers(self) -> None:
        for packets in self._answers():
            self.append(packets)

    def __len__(self) -> int:
        return len(self._packets)


@attrs.define(eq=False)
class Sent:
    """Something of ours that awaits an answer, and where in the outbox its latest packet is."""

    start: int = attrs.field(default=0, init=False)
    end: int = attrs.field(default=0, init=False)

    def sent_as(self, packet: bytes, outbox: Outbox, payload: bytes = b"") -> None:
        """Queues `packet`, with a payload that is not in it, and remembers where."""
        self.start = outbox.queued
        outbox.append(packet)
        if payload:
            outbox.append(payload)
        self.end = outbox.queued

    def lost(self, outbox: Outbox, reason: str) -> NotSent | InDoubt:
        """What the end of the connection means for it."""
        if self.start >= outbox.begun:
            return Down(f"not sent: {reason}")
        if self.end > outbox.written:
            return SubmitInterrupted(reason)
        return ResponseLost(reason)
