"""The work of connecting: from nothing until CONNACK, and to the end, one after the other.

A connection is opened, accepted, told DISCONNECT, and closed, the way the client's documentation
shows, before the next one is. So it shows what a client sets up and takes down for each: tasks,
threads, timers.
"""

from __future__ import annotations

import attrs

from .volatile import AIOMQTT, CONTENDERS, MQTTIUM, PAHO, PEER
from .works import CPU_SHARE, CPU_TIME, Cell, Figure, Work

RATE = Figure("rate", "conn/s", "11,.0f", more_is_better=True)

NOTES = {
    PAHO.name: "A thread is started and ended for each.",
    AIOMQTT.name: "On top of paho-mqtt. It connects in a thread of the loop's.",
    PEER.name: "A bare socket in the place of a client: what no client can exceed here.",
}

WORK = Work(
    name="connect",
    title="Connecting until CONNACK, and disconnecting, one after the other",
    cells=(Cell(None, 1, "connection"),),
    contenders=tuple(attrs.evolve(who, note=NOTES.get(who.name, "")) for who in CONTENDERS),
    reference=MQTTIUM,
    figures=(RATE, CPU_TIME, CPU_SHARE),
)
