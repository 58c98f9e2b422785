"""Packets that are wrong, or may be, as bytes, by name."""

from __future__ import annotations

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode


def string(text: str | bytes) -> bytes:
    """It behind its length."""
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(2) + data


def packet(first: int, *body: bytes) -> bytes:
    """A packet of less than 128 bytes."""
    joined = b"".join(body)
    return bytes((first, len(joined))) + joined


# The first one


def connect(
    *payload: str | bytes, flags: int = 2, level: int = 4, name: str = "MQTT", first: int = 0x10
) -> bytes:
    header = string(name) + bytes((level, flags, 0, 0))
    return packet(first, header, *map(string, payload or ("a",)))


CONNECTS = {
    "level 0": connect(level=0),
    "level 3": connect(level=3),
    "level 5": packet(0x10, string("MQTT"), bytes((5, 2, 0, 0, 0)), string("a")),
    "level 6": connect(level=6),
    "MQIsdp, level 3": connect(name="MQIsdp", level=3),
    "MQIsdp, level 4": connect(name="MQIsdp"),
    "mqtt": connect(name="mqtt"),
    "MQTX": connect(name="MQTX"),
    "no protocol name": connect(name=""),
    "reserved flag": connect(flags=3),
    "flags of the fixed header": connect(first=0x11),
    "Will QoS without Will": connect(flags=2 | 0x08),
    "Will retain without Will": connect(flags=2 | 0x20),
    "Will QoS 3": connect("a", "will", "gone", flags=2 | 4 | 0x18),
    "Will without its fields": connect("a", flags=2 | 4),
    "Will without its message": connect("a", "will", flags=2 | 4),
    "Will with a wildcard": connect("a", "will/#", "gone", flags=2 | 4),
    "Will with a single-level wildcard": connect("a", "will/+", "gone", flags=2 | 4),
    "Will without topic": connect("a", "", "gone", flags=2 | 4),
    "Will with U+0000": connect("a", "wi\0ll", "gone", flags=2 | 4),
    "Will with ill-formed UTF-8": connect("a", b"wi\xffll", "gone", flags=2 | 4),
    "Will with an empty message": connect("a", "will", "", flags=2 | 4),
    "password without user name": connect("a", "secret", flags=2 | 0x40),
    "user name without its field": connect("a", flags=2 | 0x80),
    "password without its field": connect("a", "me", flags=2 | 0xC0),
    "user name": connect("a", "me", flags=2 | 0x80),
    "empty user name": connect("a", "", flags=2 | 0x80),
    "empty password": connect("a", "me", "", flags=2 | 0xC0),
    "user name and password": connect("a", "me", b"\0\xff", flags=2 | 0xC0),
    "user name with U+0000": connect("a", "m\0e", flags=2 | 0x80),
    "user name with ill-formed UTF-8": connect("a", b"m\xe9", flags=2 | 0x80),
    "without client identifier": packet(0x10, string("MQTT"), bytes((4, 2, 0, 0))),
    "a client identifier that is cut off": packet(0x10, string("MQTT"), b"\4\2\0\0\0\5ab"),
    "a field too much": connect("a", "b"),
    "without body": packet(0x10),
    "client identifier with U+0000": connect("a\0"),
    "client identifier with a surrogate": connect(b"a\xed\xa0\x80"),
    "client identifier with ill-formed UTF-8": connect(b"a\xc3"),
    "client identifier with an overlong form": connect(b"a\xc0\xaf"),
    "client identifier with U+FEFF": connect("\ufeffa"),
    "client identifier with U+0001": connect("a\x01"),
    "client identifier with U+FFFF": connect("a\uffff"),
    "client identifier of 23 bytes": connect("0123456789abcdefghiXYZA"),
    "client identifier of 100 bytes": connect(100 * "a"),
    "client identifier with punctuation": connect("a/+#$ é"),
    "empty client identifier, clean": connect(""),
    "empty client identifier, not clean": connect("", flags=0),
    "PINGREQ instead": encode(p.PingReq()),
    "PUBLISH instead": encode(p.Message("t", b"x")),
    "SUBSCRIBE instead": encode(p.Subscribe(1, (("t", 0),))),
    "DISCONNECT instead": encode(p.Disconnect()),
    "CONNACK instead": encode(p.ConnAck(False, 0)),
    "type 0 instead": b"\0\0",
    "type 15 instead": b"\xf0\0",
}
"""The first packet on a connection."""


# Later ones


def publish(topic: str | bytes, payload: bytes = b"x", *, first: int = 0x30) -> bytes:
    identifier = b"" if first < 0x32 or first in (0x38, 0x39) else b"\0\7"
    return packet(first, string(topic), identifier, payload)


def request(first: int, *filters: str | bytes, qos: bytes = b"\0") -> bytes:
    return packet(first, b"\0\7", *(string(name) + qos for name in filters))


FILTERS = {
    "no filter": (),
    "an empty filter": ("",),
    "a/#/b": ("a/#/b",),
    "a#": ("a#",),
    "a/#b": ("a/#b",),
    "##": ("##",),
    "a+": ("a+",),
    "a/+b": ("a/+b",),
    "++": ("++",),
    "a good one and a bad one": ("good", "a#"),
    "U+0000": ("a\0b",),
    "ill-formed UTF-8": (b"a\xff",),
    "a surrogate": (b"a\xed\xbf\xbf",),
    "a space": ("a b",),
    "an empty level": ("/a//b/",),
    "the wildcards": ("#", "+/#", "+", "+/+/#", "/#", "a/+/#"),
}

PACKETS = {
    "second CONNECT": connect(),
    "second CONNECT of another client": connect("other"),
    "CONNACK": encode(p.ConnAck(False, 0)),
    "SUBACK": encode(p.SubAck(7, (0,))),
    "UNSUBACK": encode(p.UnsubAck(7)),
    "PINGRESP": encode(p.PingResp()),
    "type 0": b"\0\0",
    "type 15": b"\xf0\0",
    "a remaining length of five bytes": b"\x30\x80\x80\x80\x80\x01",
    "a remaining length in more bytes than needed": b"\xc0\x80\x00",
    "PINGREQ with flags": b"\xc1\0",
    "PINGREQ with a body": b"\xc0\1x",
    "DISCONNECT with flags": b"\xe1\0",
    "DISCONNECT with a body": b"\xe0\1x",
    "PUBACK with flags": b"\x42\2\0\7",
    "PUBREC with flags": b"\x51\2\0\7",
    "PUBREL without its flag": b"\x60\2\0\7",
    "PUBREL with other flags": b"\x63\2\0\7",
    "PUBCOMP with flags": b"\x78\2\0\7",
    "SUBSCRIBE without its flag": request(0x80, "good"),
    "UNSUBSCRIBE without its flag": packet(0xA0, b"\0\7", string("good")),
    "PUBACK that is too long": b"\x40\3\0\7x",
    "PUBACK that is too short": b"\x40\1\0",
    "PUBREL that is too long": b"\x62\3\0\7x",
    "PUBACK 0": b"\x40\2\0\0",
    "PUBREC 0": b"\x50\2\0\0",
    "PUBREL 0": b"\x62\2\0\0",
    "PUBCOMP 0": b"\x70\2\0\0",
    "PUBACK of nothing": b"\x40\2\0\7",
    "PUBREC of nothing": b"\x50\2\0\7",
    "PUBREL of nothing": b"\x62\2\0\7",
    "PUBCOMP of nothing": b"\x70\2\0\7",
    "PUBLISH 0 at QoS 1": packet(0x32, string("t"), b"\0\0x"),
    "PUBLISH 0 at QoS 2": packet(0x34, string("t"), b"\0\0x"),
    "PUBLISH at QoS 3": publish("t", first=0x36),
    "PUBLISH at QoS 0 with DUP": publish("t", first=0x38),
    "PUBLISH at QoS 1 with DUP": publish("t", first=0x3A),
    "PUBLISH at QoS 2 with DUP": publish("t", first=0x3C),
    "PUBLISH without identifier": packet(0x32, string("t")),
    "PUBLISH with half an identifier": packet(0x32, string("t"), b"\0"),
    "PUBLISH of a topic that is cut off": packet(0x30, b"\0\5ab"),
    "PUBLISH with half a length of its topic": packet(0x30, b"\0"),
    "PUBLISH without body": packet(0x30),
    "PUBLISH without topic": publish(""),
    "PUBLISH to #": publish("#"),
    "PUBLISH to a/+": publish("a/+"),
    "PUBLISH to a+": publish("a+"),
    "PUBLISH to U+0000": publish("a\0b"),
    "PUBLISH to ill-formed UTF-8": publish(b"a\xff"),
    "PUBLISH to a surrogate": publish(b"a\xed\xa0\x80"),
    "PUBLISH to an overlong form": publish(b"a\xc0\x80"),
    "PUBLISH to U+0001": publish("a\x01"),
    "PUBLISH to U+FFFF": publish("a\uffff"),
    "PUBLISH to U+FEFF": publish("\ufeffa"),
    "PUBLISH to U+10FFFD": publish("a\U0010fffd"),
    "PUBLISH to empty levels": publish("/a//"),
    "PUBLISH to a space": publish(" "),
    "SUBSCRIBE 0": packet(0x82, b"\0\0", string("good"), b"\0"),
    "SUBSCRIBE at QoS 3": request(0x82, "good", qos=b"\3"),
    "SUBSCRIBE with reserved bits": request(0x82, "good", qos=b"\4"),
    "SUBSCRIBE without QoS": request(0x82, "good", qos=b""),
    "SUBSCRIBE that is cut off": packet(0x82, b"\0\7\0\5ab"),
    "UNSUBSCRIBE 0": packet(0xA2, b"\0\0", string("good")),
    "UNSUBSCRIBE that is cut off": packet(0xA2, b"\0\7\0\5ab"),
    **{f"SUBSCRIBE to {name}": request(0x82, *filters) for name, filters in FILTERS.items()},
    **{
        f"UNSUBSCRIBE from {name}": request(0xA2, *filters, qos=b"")
        for name, filters in FILTERS.items()
    },
}
"""What is said on a connection that the broker has accepted."""
