"""The works without a disk: publishing, and receiving, 64 bytes.

Publishing: each task hands over a message, at QoS 1 and 2 waits for its confirmation, and goes on
with the next. At QoS 0 there is nothing to wait for. As some clients queue without end, the time
counts there until a last message at QoS 1 is confirmed: whatever was handed over has left by then.

Receiving: the peer publishes. At QoS 1 and 2 it has a number of messages under way, and sends
another for each that is confirmed.
"""

from __future__ import annotations

from .works import Cell, Contender, Work

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
    "empty the next one. Messages come to a callback.",
)
ZMQTT = Contender("zmqtt", "zmqtt_adapter", "none")
AWSCRT = Contender(
    "awscrt",
    "awscrt_adapter",
    "none",
    "In C, in threads of its own; futures and callbacks in Python.",
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
    title="Publishing, 64 bytes, awaited at QoS 1 and 2",
    cells=(Cell(0, 1), *(Cell(qos, tasks) for qos in (1, 2) for tasks in (1, 100))),
    contenders=CONTENDERS,
    reference=MQTTIUM,
    payload_size=64,
)

RECEIVE = Work(
    name="receive",
    title="Receiving, 64 bytes",
    cells=(Cell(0, 0), Cell(1, 100, "message"), Cell(2, 100, "message")),
    contenders=CONTENDERS,
    reference=MQTTIUM,
    payload_size=64,
)
