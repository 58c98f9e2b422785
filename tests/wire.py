"""Whole packets, as a codec's parts make them."""

from __future__ import annotations

from trio_mqtt import _packets as p


def encode_publish(
    codec: p.Codec, topic: str, payload: bytes, qos: p.QoS, packet_id: int, *, retain: bool = False
) -> bytes:
    header = codec.encode_publish_header(topic, len(payload), qos, packet_id, retain=retain)
    return header + payload
