"""The work of latency: a message through a real broker, mosquitto, and back to who published it.

The client publishes to a topic that it has subscribed to, at the same QoS. A trip begins with the
call that publishes, and ends when the application has the message: its loop got it, or its callback
was called. The next one begins after that; where a client's `publish` waits for the confirmation,
after that too. Those with callbacks publish the next one in the callback, which saves a thread's
turn.
"""

from __future__ import annotations

import attrs

from .other_ends import mosquitto
from .volatile import AIOMQTT, AWSCRT, GMQTT, MQTTIUM, OURS, PAHO, PEER, ZMQTT
from .works import Cell, Figure, Work

FIGURES = (
    Figure("median_us", "µs", "9,.0f"),
    Figure("p99_us", "99 %", "9,.0f"),
    Figure("p999_us", "99.9 %", "9,.0f"),
)

WORK = Work(
    name="latency",
    title="Round trips through mosquitto, 64 bytes, one at a time: median, and percentiles",
    cells=tuple(Cell(qos, 1, "message") for qos in (0, 1, 2)),
    contenders=(
        OURS,
        MQTTIUM,
        attrs.evolve(
            PAHO,
            note="The callback publishes the next one, in the thread of the loop. Its socket is "
            "told TCP_NODELAY.",
        ),
        attrs.evolve(AIOMQTT, note="On top of paho-mqtt. Its socket is told TCP_NODELAY."),
        attrs.evolve(GMQTT, note="The callback publishes the next one."),
        ZMQTT,
        attrs.evolve(
            AWSCRT,
            note="The callback publishes the next one, in a thread of its own. At QoS 2 it cannot "
            "publish. It has no option for TCP_NODELAY: a PUBLISH that follows a PUBACK waits for "
            "the system to acknowledge that.",
        ),
        attrs.evolve(
            PEER,
            name="bare socket",
            note="A blocking socket in the place of a client, at QoS 0: none can be faster.",
        ),
    ),
    reference=MQTTIUM,
    figures=FIGURES,
    other_end=mosquitto,
)
