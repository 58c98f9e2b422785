"""The durable work: messages of 64 bytes, each on disk before it is sent, and awaited.

A task publishes a message, which the client stores and then sends, waits for PUBACK at QoS 1 or
PUBCOMP at QoS 2, and goes on with the next. One task shows what a message costs from end to end,
100 show what is gained by storing several at once.

The contenders do not promise the same. Ours sync the disk before a message is sent; mqttium
commits without. So a ratio of 1 would be the same speed for more safety. Ours in memory, which
stores nothing, shows what is left to gain.
"""

from __future__ import annotations

from .works import Cell, Contender, Work

MQTTIUM = Contender(
    "mqttium, SQLite",
    "mqttium_adapter",
    "sqlite",
    "The store of its documentation. Its persistence/sqlite.py says `PRAGMA journal_mode=WAL` and "
    '`PRAGMA synchronous=NORMAL`, of which SQLite says: "Writers sync the WAL on every '
    "transaction commit if PRAGMA synchronous is set to FULL but omit this sync if PRAGMA "
    'synchronous is set to NORMAL." So there is no fsync in a commit, and a loss of power takes '
    'the latest messages. It also says that it "is called from the client\'s event-loop thread": '
    "one transaction for each message, and one for all answers that come together.",
)

WORK = Work(
    name="durable",
    title="Durable publishing, 64 bytes, awaited until PUBACK or PUBCOMP",
    cells=tuple(Cell(qos, tasks) for qos in (1, 2) for tasks in (1, 10, 100)),
    contenders=(
        Contender(
            "trio_mqtt, SQLite",
            "ours",
            "sqlite",
            "WAL mode with synchronous=FULL: an fsync in each commit, and one commit for all that "
            "was queued during the one before. A message survives the loss of power.",
        ),
        Contender(
            "trio_mqtt, FileSystem",
            "ours",
            "files",
            "An fsync for each file and some for the directory: a message survives the loss of "
            "power.",
        ),
        Contender("trio_mqtt, in memory", "ours", "memory", "Nothing is stored: for reference."),
        MQTTIUM,
        Contender(
            "the peer itself",
            "raw",
            "none",
            "A bare socket in the place of a client, which stores nothing and takes no step for "
            "each message: what no client can exceed here.",
        ),
    ),
    reference=MQTTIUM,
)
