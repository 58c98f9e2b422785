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
    payload: bytes = attrs.field(default=b"", repr=False)
    """What belongs behind `packet`, if it is large: a copy would take as much memory again."""

    @property
    def is_waiting(self) -> bool:
        """Whether it was not on the wire in this life."""
        return self.stage is Stage.WAITING

    @property
    def is_open(self) -> bool:
        """Whether it is on its way."""
        return self.stage is not Stage.CONFIRMED and self.stage is not Stage.REFUSED


@attrs.define(eq=False)
class Holding:
    """Who wants the messages of some topic filters: a scope, or the application as a whole."""

    topic_filters: tuple[str, ...]
    qos: p.QoS = 0
    is_scope: bool = attrs.field(default=True, kw_only=True)
    since: int = attrs.field(default=0, init=False)
    """How many SUBSCRIBE packets were sent before. Their answers are others'."""
    unanswered: set[str] = attrs.field(init=False)
    """The filters that the broker has not answered yet."""
    failed: list[str] = attrs.field(factory=list[str], init=False)
    """Those that it failed."""

    def __attrs_post_init__(self) -> None:
        self.unanswered = set(self.topic_filters)


@attrs.define(eq=False)
class SubscribeRequest(Sent):
    """A SUBSCRIBE of ours. Answered, it has return codes."""

    packet: p.Subscribe
    number: int = 0
    """How many there were, up to this one."""
    holding: Holding | None = None
    """What holds its filters until it is answered, where the application asked for it."""
    return_codes: tuple[int, ...] = ()


@attrs.define(eq=False)
class UnsubscribeRequest(Sent):
    """An UNSUBSCRIBE of ours."""

    packet: p.Unsubscribe
    owed: bool = False
    """Whether it has to be sent again if its answer is lost."""


@attrs.define(eq=False)
class Ping(Sent):
    """A PINGREQ of ours: of the connection rather than of the session, and treated alike."""


Request: TypeAlias = SubscribeRequest | UnsubscribeRequest
Pending: TypeAlias = Transfer | Request | Ping | Holding
