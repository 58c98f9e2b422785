"""Tools for testing applications that use trio_mqtt."""

from __future__ import annotations

from ._broker import Broker, SessionView, open_broker
from ._broker_service import Record
from ._faults import Faults, FaultyDialer

__all__ = ["Broker", "Faults", "FaultyDialer", "Record", "SessionView", "open_broker"]
