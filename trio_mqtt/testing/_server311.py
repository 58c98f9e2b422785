"""The server's side of the MQTT 3.1.1 codec: reads the packets that only clients send."""

from __future__ import annotations

from collections.abc import Mapping

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import (
    ACK_READERS,
    CLEAN,
    CONNECT,
    DISCONNECT,
    MAX_REMAINING_LENGTH,
    PASSWORD,
    PINGREQ,
    PROTOCOL_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    USERNAME,
    WILL,
    WILL_RETAIN,
    decode_string,
    publish_header,
    publish_readers,
    read_packet_id,
)
from trio_mqtt._errors import ProtocolViolation
from trio_mqtt._framing import Decoder, Reader
from trio_mqtt._topics import string_flaw, topic_filter_flaw, topic_name_flaw


def server_decoder() -> Decoder[p.Served]:
    """A decoder of what a client sends."""
    return Decoder({**_SERVER_READERS, **publish_readers()}, publish_header)


class _Fields:
    """The fields of a packet, one after the other, none of them beyond its end."""

    def __init__(self, data: bytes, start: int, stop: int) -> None:
        self._data = data
        self._position = start
        self._stop = stop

    def take(self, size: int) -> bytes:
        start = self._position
        if start + size > self._stop:
            raise ProtocolViolation("a packet ends in the middle of a field")
        self._position = start + size
        return self._data[start : start + size]

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def binary(self) -> bytes:
        return self.take(self.integer(2))

    def string(self) -> str:
        text = decode_string(self.binary())
        flaw = string_flaw(text)
        if flaw is not None:  # [MQTT-1.5.3-2]
            raise ProtocolViolation(f"a string {flaw}")
        return text

    def topic_filter(self) -> str:
        text = self.string()
        flaw = topic_filter_flaw(text)
        if flaw is not None:
            raise ProtocolViolation(f"topic filter {text[:100]!r} {flaw}")
        return text

    @property
    def more(self) -> bool:
        return self._position < self._stop


def _read_connect(data: bytes, start: int, stop: int) -> p.Connect | p.UnsupportedLevel:
    fields = _Fields(data, start, stop)
    name, level = fields.binary(), fields.integer(1)
    if name not in (b"MQTT", b"MQIsdp"):
        raise ProtocolViolation(f"CONNECT of protocol {name[:20]!r}")  # [MQTT-3.1.2-1]
    if name != b"MQTT" or level != PROTOCOL_LEVEL:
        return p.UnsupportedLevel(level)
    flags, keep_alive = fields.integer(1), fields.integer(2)
    _check_connect_flags(flags)
    client_id = fields.string()
    will = _read_will(fields, flags) if flags & WILL else None
    username = fields.string() if flags & USERNAME else None
    password = fields.binary() if flags & PASSWORD else None
    if fields.more:
        raise ProtocolViolation("CONNECT goes on after its last field")
    return p.Connect(client_id, bool(flags & CLEAN), keep_alive, will, username, password)


def _check_connect_flags(flags: int) -> None:
    if flags & 1:
        raise ProtocolViolation("CONNECT with its reserved flag set")  # [MQTT-3.1.2-3]
    if flags & PASSWORD and not flags & USERNAME:
        raise ProtocolViolation("CONNECT has a password without user name")  # [MQTT-3.1.2-22]
    if not flags & WILL and flags & 0x38:  # [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15]
        raise ProtocolViolation("CONNECT qualifies a Will that it lacks")


def _read_will(fields: _Fields, flags: int) -> p.Will:
    topic, payload = fields.string(), fields.binary()
    flaw = topic_name_flaw(topic)
    if flaw is not None:
        raise ProtocolViolation(f"the Will's topic {topic[:100]!r} {flaw}")
    return p.Will(topic, payload, qos=_qos(flags >> 3 & 3), retain=bool(flags & WILL_RETAIN))


def _qos(value: int) -> p.QoS:
    if value > 2:
        raise ProtocolViolation(f"QoS {value}")  # [MQTT-3.1.2-14]
    return p.QOS_LEVELS[value]


def _read_subscribe(data: bytes, start: int, stop: int) -> p.Subscribe:
    fields = _Fields(data, start + 2, stop)
    requests: list[tuple[str, p.QoS]] = []
    while fields.more:
        requests.append((fields.topic_filter(), _qos(fields.integer(1))))
    if not requests:
        raise ProtocolViolation("SUBSCRIBE without a topic filter")  # [MQTT-3.8.3-3]
    return p.Subscribe(read_packet_id(data, start), tuple(requests))


def _read_unsubscribe(data: bytes, start: int, stop: int) -> p.Unsubscribe:
    fields = _Fields(data, start + 2, stop)
    topic_filters: list[str] = []
    while fields.more:
        topic_filters.append(fields.topic_filter())
    if not topic_filters:
        raise ProtocolViolation("UNSUBSCRIBE without a topic filter")  # [MQTT-3.10.3-2]
    return p.Unsubscribe(read_packet_id(data, start), tuple(topic_filters))


def _read_pingreq(_data: bytes, _start: int, _stop: int) -> p.PingReq:
    return p.PingReq()


def _read_disconnect(_data: bytes, _start: int, _stop: int) -> p.Disconnect:
    return p.Disconnect()


_MOST_CONNECT = 10 + 5 * (2 + 65_535)
"""Its variable header, and five fields of the largest size."""

_SERVER_READERS: Mapping[int, Reader[p.Served]] = {
    **ACK_READERS,
    CONNECT: Reader(7, _MOST_CONNECT, _read_connect),
    SUBSCRIBE: Reader(2, MAX_REMAINING_LENGTH, _read_subscribe),  # [MQTT-3.8.1-1]
    UNSUBSCRIBE: Reader(2, MAX_REMAINING_LENGTH, _read_unsubscribe),  # [MQTT-3.10.1-1]
    PINGREQ: Reader(0, 0, _read_pingreq),
    DISCONNECT: Reader(0, 0, _read_disconnect),  # [MQTT-3.14.1-1]
}
