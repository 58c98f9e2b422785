"""The in-process broker and mosquitto agree, or the specification decides between them.

Each exchange is played with both, and what they answer has to be the same, but for `DIFFERENCES`,
which were found with mosquitto 2.0.11.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Literal

import attrs
import pytest
import trio

from tests.conformance import STATEMENT
from trio_mqtt import _packets as p
from trio_mqtt.testing import open_broker
from trio_mqtt.testing._raw_client import RawClient

from . import brokers
from .agreement import Dial, Stage
from .brokers import HOST, Mosquitto, or_skip
from .exchanges import EXCHANGES

pytestmark = pytest.mark.mosquitto

PATIENCE = 20
"""Seconds for one exchange. Mosquitto looks for silent clients every five seconds."""


@attrs.frozen(kw_only=True)
class Difference:
    """Where the records differ: the lines that only the one has, or only the other."""

    decided_by: str
    """The number of the statement, or the section that says it without one."""
    right: Literal["ours", "both"] = "ours"
    """Whom it decides for."""
    mosquitto: Sequence[str] = ()
    ours: Sequence[str] = ()


def ignored(decided_by: str, *mosquitto: str) -> Difference:
    """Mosquitto overlooks what is wrong; ours closes the connection, and publishes the Will."""
    ours = "4 a: closed", "4 watcher: PUBLISH #1 will gone qos=1"
    return Difference(decided_by=decided_by, mosquitto=mosquitto, ours=ours)


def released(*, early: Sequence[str], late: Sequence[str]) -> Difference:
    """A message at QoS 2 may be passed on upon PUBLISH, or upon PUBREL."""
    return Difference(decided_by="MQTT-4.3.3-2", right="both", mosquitto=late, ours=early)


NO_WILL = Difference(decided_by="MQTT-3.1.2-8", ours=["4 watcher: PUBLISH #1 will gone qos=1"])
CLOSED_OR_NOT = Difference(  # "MAY close the Network Connection"
    decided_by="section 1.5.3", right="both", mosquitto=["3 a: closed"], ours=["3 a: CONNACK 0"]
)

DIFFERENCES: Mapping[str, Difference] = {
    # Other protocols, which a server may support
    "CONNECT: level 5": Difference(
        decided_by="MQTT-3.1.2-2",
        right="both",
        mosquitto=["3 a: unreadable: CONNACK with a remaining length of 12"],
        ours=["3 a: CONNACK 1", "3 a: closed"],
    ),
    "CONNECT: MQIsdp, level 3": Difference(
        decided_by="MQTT-3.1.2-1",
        right="both",
        mosquitto=["3 a: CONNACK 0"],
        ours=["3 a: CONNACK 1", "3 a: closed"],
    ),
    # Strings
    "CONNECT: client identifier with U+0001": CLOSED_OR_NOT,
    "CONNECT: client identifier with U+FFFF": CLOSED_OR_NOT,
    **{
        f"PUBLISH to U+{name}": Difference(
            decided_by="section 1.5.3",
            right="both",
            mosquitto=["4 a: closed", "4 watcher: PUBLISH #1 will gone qos=1"],
            ours=[f"4 watcher: PUBLISH a\\{shown} x qos=0"],
        )
        for name, shown in (("0001", "x01"), ("FFFF", "uffff"))
    },
    # Wills
    "second CONNECT": NO_WILL,
    "second CONNECT of another client": NO_WILL,
    "takeover, neither clean": Difference(
        decided_by="MQTT-3.1.2-8",
        mosquitto=["7 second: PUBLISH #1 t x qos=1"],
        ours=["5 watcher: PUBLISH #1 will gone qos=1", "7 second: PUBLISH #2 t x qos=1"],
    ),
    # What clients may not send
    "SUBACK": ignored("MQTT-4.8.0-1"),
    "UNSUBACK": ignored("MQTT-4.8.0-1"),
    "PINGRESP": ignored("MQTT-4.8.0-1"),
    "PINGREQ with flags": ignored("MQTT-2.2.2-2"),
    "PUBACK with flags": ignored("MQTT-2.2.2-2"),
    "PUBREC with flags": ignored("MQTT-2.2.2-2", "4 a: PUBREL #unknown"),
    "PUBCOMP with flags": ignored("MQTT-2.2.2-2"),
    "PINGREQ with a body": ignored("MQTT-4.8.0-1"),
    "PUBACK that is too long": ignored("MQTT-4.8.0-1"),
    "PUBREL that is too long": ignored("MQTT-4.8.0-1", "4 a: PUBCOMP 7"),
    "PUBLISH at QoS 0 with DUP": ignored("MQTT-3.3.1-2", "4 watcher: PUBLISH t x qos=0"),
    "answers in another order": Difference(decided_by="MQTT-4.6.0-2", ours=["7 b: closed"]),
    # Identifiers that the client has not yet got back
    "another message under the same identifier before pubrel": Difference(
        decided_by="MQTT-2.3.1-2", mosquitto=["3 a: PUBREC 7"], ours=["3 a: closed"]
    ),
    "the same message without dup before pubrel": Difference(
        decided_by="MQTT-3.3.1-1", mosquitto=["3 a: PUBREC 7"], ours=["3 a: closed"]
    ),
    "qos 1 under the identifier of an unreleased message": Difference(
        decided_by="MQTT-2.3.1-2", mosquitto=["3 a: PUBACK 7"], ours=["3 a: closed"]
    ),
    "subscribe under the identifier of an unreleased message": Difference(
        decided_by="MQTT-2.3.1-2", mosquitto=["3 a: SUBACK 7 1"], ours=["3 a: closed"]
    ),
    "publish twice again before pubrel": Difference(
        decided_by="MQTT-4.3.3-2",
        mosquitto=["4 a: closed"],
        ours=["4 a: PUBREC 7", "5 a: PUBCOMP 7"],
    ),
    # Exactly once
    "a message at qos 2 before and after its release": released(
        early=["4 b: PUBLISH #1 t x qos=2"], late=["5 b: PUBLISH #1 t x qos=2"]
    ),
    "PUBLISH at QoS 2 with DUP": released(early=["4 watcher: PUBLISH #1 t x qos=2"], late=[]),
    "exactly once over two connections": released(
        early=["4 b: PUBLISH #1 t x qos=2"], late=["7 b: PUBLISH #1 t x qos=2"]
    ),
    "a clean session forgets what was not released": released(
        early=["4 b: PUBLISH #1 t old qos=2", "7 b: PUBLISH #2 t new qos=2"],
        late=["8 b: PUBLISH #1 t new qos=2"],
    ),
    # Limits, of which the specification says nothing
    "twenty two unreleased messages": Difference(
        decided_by="section 4.6", right="both", mosquitto=["22 a: PUBREC 21"]
    ),
    "more messages wait than the window holds": Difference(
        decided_by="section 4.6",
        right="both",
        mosquitto=[f"51 a: PUBLISH #{n} t {n - 1} qos=1" for n in range(41, 46)],
        ours=[f"52 a: PUBLISH #{n} t {n - 1} qos=1" for n in range(41, 46)],
    ),
    "the window of messages at QoS 1": Difference(
        decided_by="section 4.6",
        right="both",
        mosquitto=["28 b: PUBLISH #22 t 21 qos=1", "28 b: PUBLISH #23 t 22 qos=1"],
        ours=["29 b: PUBLISH #22 t 21 qos=1", "30 b: PUBLISH #23 t 22 qos=1"],
    ),
    # Topics
    "a topic of 300 levels": Difference(
        decided_by="MQTT-3.8.4-1",
        mosquitto=["2 b: closed", "4 a: closed"],
        ours=["2 b: SUBACK 1 1", "4 a: PUBACK 1", "4 b: PUBLISH #1 x/x/x/x/x/…(599) x qos=1"],
    ),
    "what others take for a shared subscription": Difference(
        decided_by="MQTT-3.3.2-3",
        mosquitto=["4 b: PUBLISH t x qos=0", "5 a: closed"],
        ours=["5 b: PUBLISH $share/group/t y qos=0"],
    ),
    "what belongs to the broker": Difference(
        decided_by="section 4.7.2",
        right="both",
        mosquitto=["4 a: closed"],
        ours=["4 b: PUBLISH #1 $SYS/ours x qos=1"],
    ),
}


@pytest.fixture(scope="module")
def shared_mosquitto() -> Iterator[Mosquitto]:
    """The same for all exchanges: each ends with `clear`."""
    with or_skip(), brokers.mosquitto() as broker:
        yield broker


@pytest.mark.parametrize("name", EXCHANGES)
async def test_agreement(name: str, shared_mosquitto: Mosquitto) -> None:
    records: dict[str, list[str]] = {}

    async def play(broker: str, port: int) -> None:
        dial = partial(trio.open_tcp_stream, HOST, port)
        async with aclosing(Stage(dial)) as stage:
            with trio.move_on_after(PATIENCE) as scope:
                await EXCHANGES[name](stage)
            if scope.cancelled_caught:
                stage.record.append("it takes too long")
        records[broker] = stage.record
        if broker == "mosquitto":
            with trio.fail_after(PATIENCE):
                await clear(dial, stage.client_ids)

    async with open_broker(strict=False) as broker, trio.open_nursery() as nursery:
        nursery.start_soon(play, "ours", int((await broker.listen()).rpartition(":")[2]))
        nursery.start_soon(play, "mosquitto", shared_mosquitto.port)
    compare(name, records["mosquitto"], records["ours"])


def compare(name: str, mosquitto: Sequence[str], ours: Sequence[str]) -> None:
    """Asserts that each did what `DIFFERENCES` says, else both the same."""
    difference = DIFFERENCES.get(name)
    if difference is None:
        assert ours == mosquitto
    else:
        assert only(mosquitto, ours) == list(difference.mosquitto)
        assert only(ours, mosquitto) == list(difference.ours)


def only(record: Sequence[str], other: Sequence[str]) -> list[str]:
    """The lines that the other has not got, or not as often; the last ones of the same."""
    left = Counter(other)
    lines: list[str] = []
    for line in record:
        left[line] -= 1
        if left[line] < 0:
            lines.append(line)
    return lines


async def clear(dial: Dial, client_ids: set[str]) -> None:
    """Ends the sessions of these clients, and clears all retained messages."""
    for client_id in client_ids:
        client = RawClient(await dial())
        await client.send(p.Connect(client_id, True, 0), p.Disconnect())
        await client.wait_closed()
        await client.stream.aclose()
    client = await RawClient.connect(dial, "clearing")
    await client.send(p.Subscribe(1, (("#", 0), ("$other/#", 0))), p.PingReq())
    retained: list[p.Packet] = []
    while (packet := await client.receive()) != p.PingResp():
        if isinstance(packet, p.Message):
            retained.append(p.Message(packet.topic, b"", retain=True))
    await client.send(*retained, p.PingReq())
    while await client.receive() != p.PingResp():
        pass
    await client.stream.aclose()


def test_each_difference_is_of_an_exchange() -> None:
    assert sorted(DIFFERENCES.keys() - EXCHANGES.keys()) == []


def test_a_statement_with_a_number_decides_for_one_of_them() -> None:
    for difference in DIFFERENCES.values():
        number = STATEMENT.fullmatch(difference.decided_by)
        assert number or (difference.right == "both" and "section " in difference.decided_by)


def test_a_difference_that_vanished_is_noticed() -> None:
    same = ["1 a: CONNACK 0"]
    with pytest.raises(AssertionError):
        compare("second CONNECT", same, same)
    compare("pings", same, same)
    with pytest.raises(AssertionError):
        compare("pings", same, [*same, *same])
