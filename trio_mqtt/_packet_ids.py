"""Our packet identifiers: which are in use, and what an answer under one of them belongs to.

They are one space over all kinds of request. An identifier is in use from the moment of acceptance
until the final answer [MQTT-2.3.1-3]. They count up, wrap, and skip those in use.
"""

from __future__ import annotations

from . import _packets as p
from ._errors import ProtocolViolation
from ._requests import Request, Transfer

MAX_PACKET_ID = 65_535


class PacketIds:
    """What is outstanding, by packet identifier."""

    def __init__(self) -> None:
        self.outstanding: dict[int, Transfer | Request] = {}
        self.reserved: frozenset[int] = frozenset()
        """Those in use by something unknown: its record was damaged."""
        self._next = 1

    def take(self) -> int:
        """An identifier that is not in use [MQTT-2.3.1-1] [MQTT-2.3.1-2]."""
        packet_id = self._next
        while packet_id in self.outstanding or packet_id in self.reserved:
            packet_id = packet_id % MAX_PACKET_ID + 1
        self._next = packet_id % MAX_PACKET_ID + 1
        return packet_id

    def restart(self, at: int) -> None:
        """The next one is `at`, or behind it."""
        self._next = at


def impossible(
    answer: p.Ack | p.SubAck | p.UnsubAck, pending: Transfer | Request
) -> ProtocolViolation:
    """What is wrong with an answer of this kind to that."""
    kind = type(answer).__name__.upper()
    asked = "PUBLISH" if isinstance(pending, Transfer) else type(pending.packet).__name__.upper()
    return ProtocolViolation(f"{kind} {answer.packet_id} does not answer {asked}, sent with it")
