"""Tools for testing applications that use trio_mqtt."""

from __future__ import annotations

from ._broker import Broker, SessionView, open_broker
from ._broker_service import Record
from ._calls import Call, PublishCall, SubscribeCall, UnsubscribeCall
from ._doubles import ClientMock, ClientStub
from ._faults import Faults, FaultyDialer
from ._fixed_messages import FixedChannel

__all__ = [
    "Broker",
    "Call",
    "ClientMock",
    "ClientStub",
    "Faults",
    "FaultyDialer",
    "FixedChannel",
    "PublishCall",
    "Record",
    "SessionView",
    "SubscribeCall",
    "UnsubscribeCall",
    "open_broker",
]
