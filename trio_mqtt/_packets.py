"""Control packets, `Message` and `Will` as values, and the interface of the codecs.

The classes that travel once a message are `attrs.define`, three times as fast to make as the frozen
ones: about 0.2 µs. Nobody changes them all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias, final

import attrs

from ._errors import Denied, ProtocolViolation
from ._topics import require_topic_name

QoS: TypeAlias = Literal[0, 1, 2]
"""Quality of service: at most once, at least once, exactly once (section 4.3)."""

QOS_LEVELS: tuple[QoS, ...] = (0, 1, 2)

Payload: TypeAlias = bytes | bytearray | memoryview | str
"""What an application may hand over as a payload; a `str` travels as UTF-8."""

MAX_TOPIC_FILTERS = 8
"""How many go into one SUBSCRIBE: clouds close the connection on more."""

MAX_PACKET_BYTES = 268_435_455
"""Of variable header and payload: what four bytes of seven bits can say (section 2.2.3)."""

MAX_PAYLOAD_BYTES = MAX_PACKET_BYTES - 2 - 65_535 - 2
"""A payload that fits behind any topic."""

FAILED = 0x80
"""The return code of a topic filter that the broker failed (section 3.9.3)."""


def payload_bytes(payload: Payload) -> bytes:
    """`payload` as it travels, its own copy if the caller could still change it.

    Raises:
        Denied: a `str` has a surrogate, which UTF-8 cannot encode.
        TypeError: `payload` is of another type.
    """
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        try:
            return payload.encode()
        except UnicodeEncodeError as error:
            raise Denied(f"the payload's character {error.start} is a surrogate") from error
    if isinstance(payload, (bytearray, memoryview)):
        return bytes(payload)
    raise TypeError(f"a payload is bytes-like or a str, not {type(payload).__name__}")


def require_size(topic: str, payload: bytes) -> None:
    """Raises `Denied` unless they fit into one PUBLISH, at any QoS."""
    size = 2 + len(topic.encode()) + 2 + len(payload)
    if size > MAX_PACKET_BYTES:
        raise Denied(f"the message takes {size} bytes, of {MAX_PACKET_BYTES} at most")


def require_qos(qos: object) -> None:
    """Raises `Denied` unless `qos` is 0, 1 or 2.

    Raises:
        TypeError: `qos` is no `int`.
    """
    if not isinstance(qos, int) or isinstance(qos, bool):
        raise TypeError(f"qos is 0, 1 or 2, not {qos!r}")
    if qos not in (0, 1, 2):
        raise Denied(f"qos is 0, 1 or 2, not {qos}")


def in_packets(topic_filters: Sequence[str]) -> list[Sequence[str]]:
    """Topic filters, as many together as go into one packet."""
    return [
        topic_filters[start : start + MAX_TOPIC_FILTERS]
        for start in range(0, len(topic_filters), MAX_TOPIC_FILTERS)
    ]


def _shown(payload: bytes) -> str:
    """For logs and failed assertions."""
    return repr(payload) if len(payload) <= 100 else f"{payload[:80]!r}… ({len(payload)} bytes)"


@attrs.define(unsafe_hash=True)
class Message:
    """An application message as it arrived. A value: do not change it."""

    topic: str
    payload: bytes = attrs.field(repr=_shown)
    qos: QoS = 0
    """At which it arrived: the lower of the publisher's and the one granted to the subscription."""
    retain: bool = False
    """Whether the broker had kept it from before the subscription [MQTT-3.3.1-8]."""
    dup: bool = False
    """Whether the broker sent it before, as it says (section 3.3.1.1)."""


class Body:
    """The payload of a message that is streamed, as far as it arrived and nobody took it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.received = 0
        """How many bytes of it arrived."""
        self._unwanted = False
        self._pieces: list[bytes] = []

    @property
    def is_complete(self) -> bool:
        return self.received == self.size

    def feed(self, data: bytes) -> int:
        """Takes what it can use of `data`, and returns how much that is."""
        piece = data[: self.size - self.received]
        self.received += len(piece)
        if piece and not self._unwanted:
            self._pieces.append(piece)
        return len(piece)

    def take(self) -> list[bytes]:
        """What arrived since the last time."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def discard(self) -> None:
        """Nobody wants any of it any more."""
        self._unwanted = True
        self._pieces.clear()


@attrs.define(eq=False)
class Streamed(Message):
    """A message of which the payload is not here, but arrives by and by."""

    body: Body = attrs.field(kw_only=True)

    @property
    def size(self) -> int:
        """Bytes of payload, in the end."""
        return self.body.size


@attrs.frozen
class Will:
    """The message that the broker publishes when the connection ends without DISCONNECT.

    Raises:
        Denied: the topic, the payload (65,535 bytes at most) or the QoS is illegal.
        TypeError: one of them has another type.
    """

    topic: str
    payload: bytes = attrs.field(converter=payload_bytes)
    qos: QoS = attrs.field(default=0, kw_only=True)
    retain: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        require_topic_name(self.topic)  # [MQTT-3.1.3-10]
        require_qos(self.qos)  # [MQTT-3.1.2-14]
        if not isinstance(self.retain, bool):
            raise TypeError(f"retain is a bool, not {self.retain!r}")
        if len(self.payload) > 65_535:  # it travels behind a length of two bytes (section 3.1.3.3)
            raise Denied(f"the Will's payload takes {len(self.payload)} bytes, of 65,535 at most")


@attrs.frozen
class Connect:
    """CONNECT, section 3.1."""

    client_id: str
    clean_session: bool
    keep_alive: int
    will: Will | None = None
    username: str | None = None
    password: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen
class UnsupportedLevel:
    """CONNECT of another version of MQTT, to be answered with return code 1 [MQTT-3.1.2-2]."""

    level: int


@attrs.frozen
class ConnAck:
    """CONNACK, section 3.2."""

    session_present: bool
    return_code: int


@final
@attrs.define(eq=False)
class Delivery:
    """PUBLISH at QoS 1 or 2, section 3.3, from its arrival to its release by the application."""

    message: Message
    packet_id: int
    released: bool = False
    complete: bool = True
    """Whether all of its payload arrived: only then may it be answered."""
    repeats: Delivery | None = None
    """What this one repeats, and is answered with, if the application has that already."""
    claims: int = 1
    """How many buffers it is in, or was taken from by who is not done with it."""


def message_of(packet: Message | Delivery) -> Message:
    """The message of a PUBLISH at any QoS."""
    return packet if isinstance(packet, Message) else packet.message


@attrs.define
class Grown:
    """More has arrived of the payload of a message that is streamed."""

    packet: Message | Delivery


@final
@attrs.define
class PubAck:
    """PUBACK, section 3.4."""

    packet_id: int


@final
@attrs.define
class PubRec:
    """PUBREC, section 3.5."""

    packet_id: int


@final
@attrs.define
class PubRel:
    """PUBREL, section 3.6."""

    packet_id: int


@final
@attrs.define
class PubComp:
    """PUBCOMP, section 3.7."""

    packet_id: int


@attrs.frozen
class Subscribe:
    """SUBSCRIBE, section 3.8."""

    packet_id: int
    requests: tuple[tuple[str, QoS], ...]


@attrs.frozen
class SubAck:
    """SUBACK, section 3.9."""

    packet_id: int
    return_codes: tuple[int, ...]


@attrs.frozen
class Unsubscribe:
    """UNSUBSCRIBE, section 3.10."""

    packet_id: int
    topic_filters: tuple[str, ...]


@attrs.frozen
class UnsubAck:
    """UNSUBACK, section 3.11."""

    packet_id: int


@attrs.frozen
class PingReq:
    """PINGREQ, section 3.12."""


@attrs.frozen
class PingResp:
    """PINGRESP, section 3.13."""


@attrs.frozen
class Disconnect:
    """DISCONNECT, section 3.14."""


Ack: TypeAlias = PubAck | PubRec | PubRel | PubComp
"""The four answers of section 4.3, alike but for their type."""

Inbound: TypeAlias = (
    Message | Delivery | PubAck | PubRec | PubRel | PubComp | SubAck | UnsubAck | ConnAck | PingResp
)
"""What a client may receive. `Message` alone stands for PUBLISH at QoS 0."""

Decoded: TypeAlias = Inbound | Grown
"""What a decoder makes of it."""

Served: TypeAlias = (
    Connect
    | UnsupportedLevel
    | Message
    | Delivery
    | PubAck
    | PubRec
    | PubRel
    | PubComp
    | Subscribe
    | Unsubscribe
    | PingReq
    | Disconnect
)
"""What a broker may receive."""

Packet: TypeAlias = Inbound | Served


class Codec(Protocol):
    """One version of MQTT, from packets to bytes. It validates no topic: the caller has."""

    def encode(self, packet: Packet) -> bytes:
        """The bytes of any packet."""
        ...

    def encode_publish_header(
        self, topic: str, payload_size: int, qos: QoS, packet_id: int, *, retain: bool
    ) -> bytes:
        """The bytes of PUBLISH, with DUP 0, in front of its payload. At QoS 0 `packet_id` is out.

        Raises:
            Denied: the packet would exceed the protocol's maximum size.
        """
        ...

    def encode_ack(self, answer: type[Ack], packet_id: int) -> bytes:
        """The bytes of an acknowledgement, without making it."""
        ...

    def encode_acks(self, answer: type[Ack], packet_ids: Sequence[int]) -> bytes:
        """The bytes of several of one kind, in order."""
        ...

    def as_duplicate(self, publish: bytes) -> bytes:
        """An encoded PUBLISH, with its payload or without, with DUP set [MQTT-3.3.1-1]."""
        ...

    def with_packet_id(self, publish: bytes, packet_id: int) -> bytes:
        """An encoded PUBLISH at QoS 1 or 2, with its payload or without, by another identifier."""
        ...

    def new_decoder(self, stream_over: int | None = None) -> Decoder:
        """A decoder of what a broker sends, for one connection.

        Arguments:
            stream_over: bytes of a payload above which its message is `Streamed`; None for never.
        """
        ...


class Decoder(Protocol):
    """Bytes to packets, incrementally, for one connection."""

    @property
    def partial(self) -> bool:
        """Whether a packet has begun to arrive and is incomplete."""
        ...

    @property
    def missing(self) -> int:
        """How many more bytes a large message is known to take that is not streamed."""
        ...

    @property
    def violation(self) -> ProtocolViolation | None:
        """What was malformed behind the packets that the latest `feed` returned, if anything."""
        ...

    def feed(self, data: bytes) -> Sequence[Decoded]:
        """The packets that `data` completes, in the order of their arrival.

        Raises:
            ProtocolViolation: the bytes are malformed, and no good packet stood before. Where one
                did, it is returned, and `violation` says what came behind it.
        """
        ...
