"""An MQTT client for Trio that keeps its delivery guarantees.

::

    async with trio_mqtt.open_client("mqtt://localhost") as client:
        async with client.open_subscription("bedroom/#") as messages:
            await client.publish("bedroom/thermostat", "20.8℃", qos=1)
            async for message in messages:
                print(message.topic, message.payload)
"""

from ._big_message import BigMessage
from ._bounds import Buffer, Overflow
from ._channels import ChannelStatistics, MessageChannel
from ._client import Client
from ._dialers import TLS, Dialer, tcp_dialer, tls_dialer, unix_dialer, websocket_dialer
from ._errors import (
    BadCredentials,
    CertificateError,
    ClientClosed,
    ClosedInDoubt,
    ConnectionLost,
    ConnectionRefused,
    Denied,
    Down,
    IdentifierRejected,
    InDoubt,
    MessagesMissed,
    MQTTError,
    NotAuthorized,
    NotSent,
    PendingLimit,
    PersistenceError,
    ProtocolViolation,
    RequestAbandoned,
    RequestCanceled,
    ResponseLost,
    ServerUnavailable,
    SubmitInterrupted,
    SubscribeError,
    UnacceptableProtocolVersion,
)
from ._exchange import AdoptedExchange, Exchange
from ._file_system import FileSystem
from ._interface import ClientLike, MessageChannelLike
from ._open_client import open_client
from ._packets import Message, Payload, QoS, Will
from ._persistence import Persistence
from ._recovery import DamagedRecord
from ._scopes import RequestScope, fail_after, fail_at, move_on_after, move_on_at
from ._sqlite import SQLite
from ._statistics import Statistics
from ._stored_session import Session, adopt_session, init_session, volatile_session

__all__ = [
    "TLS",
    "AdoptedExchange",
    "BadCredentials",
    "BigMessage",
    "Buffer",
    "CertificateError",
    "ChannelStatistics",
    "Client",
    "ClientClosed",
    "ClientLike",
    "ClosedInDoubt",
    "ConnectionLost",
    "ConnectionRefused",
    "DamagedRecord",
    "Denied",
    "Dialer",
    "Down",
    "Exchange",
    "FileSystem",
    "IdentifierRejected",
    "InDoubt",
    "MQTTError",
    "Message",
    "MessageChannel",
    "MessageChannelLike",
    "MessagesMissed",
    "NotAuthorized",
    "NotSent",
    "Overflow",
    "Payload",
    "PendingLimit",
    "Persistence",
    "PersistenceError",
    "ProtocolViolation",
    "QoS",
    "RequestAbandoned",
    "RequestCanceled",
    "RequestScope",
    "ResponseLost",
    "SQLite",
    "ServerUnavailable",
    "Session",
    "Statistics",
    "SubmitInterrupted",
    "SubscribeError",
    "UnacceptableProtocolVersion",
    "Will",
    "adopt_session",
    "fail_after",
    "fail_at",
    "init_session",
    "move_on_after",
    "move_on_at",
    "open_client",
    "tcp_dialer",
    "tls_dialer",
    "unix_dialer",
    "volatile_session",
    "websocket_dialer",
]
