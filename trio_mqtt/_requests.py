"""What we asked of the broker, until it is answered."""

from __future__ import annotations

import enum
from typing import Literal, TypeAlias

import attrs

from . import _packets as p
from ._outbox import Sent


class Stage(enum.Enum):
    """How far a `Transfer` got."""

    WAITING = enum.auto()
    PUBLISHED = enum.auto()
    RELEASED = enum.auto()
    CONFIRMED = enum.auto()
    REFUSED = enum.auto()
    """It could not be stored, and so was not accepted after all."""


@attrs.define(eq=False)
class Transfer(Sent):
    """A message of ours at QoS 1 or 2, from acceptance to confirmation."""

    packet_id: int
    qos: Literal[1, 2]
    packet: bytes = attrs.field(repr=False)
    """PUBLISH with DUP 0. Empty from RELEASED on, as it must not be sent again [MQTT-4.3.3-1]."""
    stage: Stage = Stage.WAITING
    attempted: bool = False
    """Whether a transport was given it before, so that sending it again is a duplicate."""
    stored: bool = True
    """Whether the record of its stage is safe, where the session is durable."""

    @property
    def is_waiting(self) -> bool:
        """Whether it was not on the wire in this life."""
        return self.stage is Stage.WAITING

    @property
    def is_open(self) -> bool:
        """Whether it is on its way."""
        return self.stage is not Stage.CONFIRMED and self.stage is not Stage.REFUSED


@attrs.define(eq=False)
class SubscribeRequest(Sent):
    """A SUBSCRIBE of ours. Answered, it has return codes."""

    packet: p.Subscribe
    restores: bool = False
    """Whether nobody asked for it but the loss of a session."""
    return_codes: tuple[int, ...] = ()


@attrs.define(eq=False)
class UnsubscribeRequest(Sent):
    """An UNSUBSCRIBE of ours."""

    packet: p.Unsubscribe


@attrs.define(eq=False)
class Ping(Sent):
    """A PINGREQ of ours: of the connection rather than of the session, and treated alike."""


Request: TypeAlias = SubscribeRequest | UnsubscribeRequest
Pending: TypeAlias = Transfer | Request | Ping
