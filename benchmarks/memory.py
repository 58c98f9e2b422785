"""The work of memory: what clients that wait take, and what one large message does.

Idle: how much more is resident once the clients are connected than before the first of them was
made, divided by their number. The package was imported by then, and the event loop ran.

Receive one, and publish one: how far the peak of the resident memory rises over what was resident
before the client subscribed, or published. So a message that is received counts at least once, and
of one that is published only what is beside the application's own.
"""

from __future__ import annotations

import attrs

from .other_ends import peer_for_many
from .volatile import AIOMQTT, AWSCRT, GMQTT, MQTTIUM, OURS, PAHO, ZMQTT
from .works import MIB, Cell, Contender, Figure, Work

IDLE = tuple(Cell(None, count, "client", does="idle") for count in (1, 1000))
LARGE = 64 * MIB
REFERENCE = attrs.evolve(
    MQTTIUM, note="Its bound of 64 MiB for messages that wait is lifted: no such message fits in."
)

WORK = Work(
    name="memory",
    title="Resident memory in MiB: of an idle client, and at its peak while 64 MiB pass",
    cells=(
        *IDLE,
        *(Cell(qos, 1, "message", LARGE, does="receive_one") for qos in (0, 1)),
        Cell(1, 1, "message", LARGE, does="publish_one"),
    ),
    contenders=(
        OURS,
        Contender(
            "trio_mqtt, streamed",
            "ours",
            "stream",
            "With `stream_over`, and the message read in pieces, which nothing keeps. It matters "
            "to receiving alone.",
        ),
        REFERENCE,
        attrs.evolve(
            PAHO,
            note="A thread for each client. For 1,000 in an external loop, as its README shows: "
            "select in its threads takes no file beyond 1,024.",
        ),
        attrs.evolve(AIOMQTT, note="On top of paho-mqtt."),
        attrs.evolve(
            GMQTT,
            note="To receive 64 MiB takes it a minute, as it copies all it has at each read: left "
            "out. At its peak it had 4 payloads.",
        ),
        ZMQTT,
        attrs.evolve(AWSCRT, note="In C, all clients in the same threads."),
    ),
    reference=REFERENCE,
    figures=(Figure("mib", "MiB", "9,.3f"), Figure("payloads", "payloads", "10.2f")),
    other_end=peer_for_many,
)
