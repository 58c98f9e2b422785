"""What the broker knows of one network connection.

Brokers differ in the order of their answers, and a test may have one withheld. So what a client
owes is counted from what was *written*, not from what the broker meant to say: `Link.wrote` is
called at that instant. From it the broker tells a client that answers out of order, or that uses a
packet identifier whose last exchange cannot have ended for it.
"""

from __future__ import annotations

import enum
from collections import deque

import attrs

from trio_mqtt import _packets as p
from trio_mqtt._errors import ProtocolViolation

from ._broker_session import Outgoing, Session


class LinkState(enum.Enum):
    """How far the connection has come to its end."""

    OPEN = enum.auto()
    PARTED = enum.auto()
    """DISCONNECT came, so that nothing else may [MQTT-3.14.4-2]."""
    CLOSING = enum.auto()
    """What is queued goes out, nothing more is listened to, then the connection closes."""
    CUT = enum.auto()
    """It closes at once."""


@attrs.define(eq=False)
class Link:
    """One network connection, from its first byte to its last."""

    client_id: str = ""
    """As CONNECT says, or generated; empty before CONNECT."""
    session: Session | None = None
    """The session that this connection serves, from CONNECT to its end."""
    will: p.Will | None = None
    keep_alive: int = 0
    state: LinkState = LinkState.OPEN
    outbound: deque[Outgoing] = attrs.field(factory=deque[Outgoing])
    """What is to be written. The session appends to this very queue."""

    # The identifiers of the answers that the client owes, in the order in which it owes them. There
    # is no such order of PUBCOMP.
    _due: dict[type[p.Ack], dict[int, None]] = attrs.field(
        init=False, factory=lambda: {p.PubAck: {}, p.PubRec: {}, p.PubRel: {}}
    )
    # The client's identifiers, for which no final answer has been written.
    _taken: set[int] = attrs.field(init=False, factory=set[int])

    def wrote(self, packet: p.Packet) -> None:
        """`packet` is on its way to the client."""
        match packet:
            case p.Delivery(message, packet_id):
                self._due[p.PubAck if message.qos == 1 else p.PubRec].setdefault(packet_id)
            case p.PubRec(packet_id):
                self._due[p.PubRel].setdefault(packet_id)
            case p.PubAck() | p.PubComp() | p.SubAck() | p.UnsubAck():
                self._taken.discard(packet.packet_id)
            case _:
                pass

    def check_order(self, answer: p.Ack) -> None:
        """Raises `ProtocolViolation` when the client owes another answer of this kind first."""
        due = self._due.get(type(answer))
        if due is None or answer.packet_id not in due:
            return
        first = next(iter(due))
        if first != answer.packet_id:  # [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4]
            name = type(answer).__name__.upper()
            raise ProtocolViolation(f"{name} {answer.packet_id} before {name} {first}")
        del due[answer.packet_id]

    def check_free(self, packet_id: int) -> None:
        """Raises `ProtocolViolation` when an earlier use of the identifier has no final answer."""
        if packet_id in self._taken:  # [MQTT-2.3.1-2] [MQTT-2.3.1-3]
            raise ProtocolViolation(f"packet identifier {packet_id} is in use")

    def take(self, packet_id: int) -> None:
        """The identifier is in use, until the final answer is written."""
        self._taken.add(packet_id)
