"""The control packets of MQTT 3.1.1: what is in `Broker.log`, and what `Broker.send` sends.

A PUBLISH is a `trio_mqtt.Message` at QoS 0, and a `Delivery` above, which is the message with its
packet identifier.
"""

from __future__ import annotations

from trio_mqtt._packets import (
    ConnAck,
    Connect,
    Delivery,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    UnsupportedLevel,
)

__all__ = [
    "ConnAck",
    "Connect",
    "Delivery",
    "Disconnect",
    "Packet",
    "PingReq",
    "PingResp",
    "PubAck",
    "PubComp",
    "PubRec",
    "PubRel",
    "SubAck",
    "Subscribe",
    "UnsubAck",
    "Unsubscribe",
    "UnsupportedLevel",
]
