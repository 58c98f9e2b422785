"""Tools for testing applications that use trio_mqtt."""

from __future__ import annotations

from . import packets
from ._broker import Broker, SessionView, open_broker
from ._broker_service import Record
from ._calls import Call, PublishCall, SubscribeCall, UnsubscribeCall
from ._doubles import ClientMock, ClientStub
from ._faults import Faults, FaultyDialer
from ._fixed_messages import FixedChannel
from ._scripted_broker import ScriptedBroker, ScriptedLink

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
    "ScriptedBroker",
    "ScriptedLink",
    "SessionView",
    "SubscribeCall",
    "UnsubscribeCall",
    "open_broker",
    "packets",
]
