"""The works without a disk: publishing, and receiving, of 64 bytes, 1 KiB and 1 MiB.

Publishing: each task hands over a message, at QoS 1 and 2 waits for its confirmation, and goes on
with the next. At QoS 0 there is nothing to wait for. As some clients queue without end, the time
counts there until a last message at QoS 1 is confirmed: whatever was handed over has left by then.
Of 1 MiB such a client would fill the memory, so it is held to as many as there are tasks.

Receiving: the peer publishes. At QoS 1 and 2 it has a number of messages under way, and sends
another for each that is confirmed.
"""

from __future__ import annotations

from .works import KIB, MIB, Cell, Contender, Work

OURS = Contender("trio_mqtt", "ours", "memory")
MQTTIUM = Contender("mqttium", "mqttium_adapter", "memory")
PAHO = Contender(
    "paho-mqtt",
    "paho_adapter",
    "none",
    "Callbacks in the thread of `loop_start`, as its README shows.",
)
AIOMQTT = Contender(
    "aiomqtt", "aiomqtt_adapter", "none", "On top of paho-mqtt. 0: it did not come to an end."
)
GMQTT = Contender(
    "gmqtt",
    "gmqtt_adapter",
    "none",
    "Its `publish` cannot be awaited: a burst of messages is handed over, and once its storage is "
    "empty the next one; where 10 tasks publish at QoS 0, the last of a burst is at QoS 1, as only "
    "that tells when it has left. Messages come to a callback.",
)
ZMQTT = Contender("zmqtt", "zmqtt_adapter", "none")
AWSCRT = Contender(
    "awscrt",
    "awscrt_adapter",
    "none",
    "In C, in threads of its own; futures and callbacks in Python. 0: a message that is published "
    "at QoS 2 fails there.",
)
PEER = Contender(
    "the peer itself",
    "raw",
    "none",
    "A bare socket in the place of a client, which takes no step for each message: what no client "
    "can exceed here.",
)
CONTENDERS = (OURS, MQTTIUM, PAHO, AIOMQTT, GMQTT, ZMQTT, AWSCRT, PEER)

PUBLISH = Work(
    name="publish",
    title="Publishing, awaited at QoS 1 and 2; 64 bytes where nothing else is said",
    cells=(
        Cell(0, 1),
        *(Cell(qos, tasks) for qos in (1, 2) for tasks in (1, 100)),
        Cell(0, 1, payload_size=KIB),
        Cell(1, 100, payload_size=KIB),
        Cell(0, 10, payload_size=MIB),
        Cell(1, 10, payload_size=MIB),
    ),
    contenders=CONTENDERS,
    reference=MQTTIUM,
)

RECEIVE = Work(
    name="receive",
    title="Receiving; 64 bytes where nothing else is said",
    cells=(
        Cell(0, 0),
        Cell(1, 100, "message"),
        Cell(2, 100, "message"),
        Cell(0, 0, payload_size=KIB),
        Cell(1, 100, "message", KIB),
        Cell(0, 0, payload_size=MIB),
        Cell(1, 10, "message", MIB),
    ),
    contenders=CONTENDERS,
    reference=MQTTIUM,
)
