"""An MQTT client for Trio that keeps its delivery guarantees.

::

    async with trio_mqtt.open_client("mqtt://localhost") as client:
        await client.subscribe("bedroom/#")
        await client.publish("bedroom/thermostat", "20.8℃", qos=1)
        async for message in client.messages:
            print(message.topic, message.payload)
"""

from ._channels import MessageChannel
from ._client import Client, Statistics
from ._errors import (
    BadCredentials,
    ClientClosed,
    ClosedInDoubt,
    ConnectionLost,
    ConnectionRefused,
    Denied,
    Down,
    IdentifierRejected,
    InDoubt,
    MQTTError,
    NotAuthorized,
    NotSent,
    PendingLimit,
    ProtocolViolation,
    ResponseLost,
    ServerUnavailable,
    SubmitInterrupted,
    SubscribeError,
    UnacceptableProtocolVersion,
)
from ._exchange import Exchange
from ._inbox import Buffer
from ._open_client import open_client
from ._packets import Message, Payload, QoS, Will
from ._transport import Dialer

__all__ = [
    "BadCredentials",
    "Buffer",
    "Client",
    "ClientClosed",
    "ClosedInDoubt",
    "ConnectionLost",
    "ConnectionRefused",
    "Denied",
    "Dialer",
    "Down",
    "Exchange",
    "IdentifierRejected",
    "InDoubt",
    "MQTTError",
    "Message",
    "MessageChannel",
    "NotAuthorized",
    "NotSent",
    "Payload",
    "PendingLimit",
    "ProtocolViolation",
    "QoS",
    "ResponseLost",
    "ServerUnavailable",
    "Statistics",
    "SubmitInterrupted",
    "SubscribeError",
    "UnacceptableProtocolVersion",
    "Will",
    "open_client",
]
