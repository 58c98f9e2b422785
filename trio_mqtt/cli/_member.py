"""One of those who talk in the demo: a client, its wire, and what it has heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal

import attrs
import trio

from trio_mqtt import Client, MQTTError, open_client
from trio_mqtt import _packets as p
from trio_mqtt._transport import Address
from trio_mqtt.testing._nursery import open_background_nursery

from ._screen import BOLD, DIM, RED, YELLOW, Screen
from ._wire import Sight, Wire
from ._words import describe, explain

NETWORK_PATIENCE = 5
"""Seconds in which a byte has to move."""
RECONNECT_WAIT = (0.2, 1)
"""Seconds. Short, as somebody is looking on."""
_PACKET_COLUMN = 26
_MEANING_COLUMN = 14


@attrs.frozen
class Lane:
    """Where on the screen a member's packets are."""

    name: str
    colour: int
    mirrored: bool = False
    """Whether it is on the broker's right."""

    def show(self, screen: Screen, sight: Sight) -> None:
        """Writes a line for a packet. The keep-alive is left out: it is of no interest here."""
        if isinstance(sight.packet, (p.PingReq, p.PingResp)):
            return
        where = f"{self._route(screen, sight):{_PACKET_COLUMN}}"
        what = describe(sight.packet)
        if sight.cut:
            lost = "" if sight.sent else "is lost: "
            screen.item(f"{where}{what} {lost}the connection is cut here", RED)
            return
        meaning = explain(sight.packet)
        if meaning:
            what = f"{what:{_MEANING_COLUMN}}" + screen.painted(f'"{meaning}"', DIM)
        screen.item(screen.painted(where, self.colour) + what)

    def _route(self, screen: Screen, sight: Sight) -> str:
        symbols = screen.symbols
        if sight.sent is not self.mirrored:
            arrow = symbols.cut_right if sight.cut else symbols.right
        else:
            arrow = symbols.cut_left if sight.cut else symbols.left
        if self.mirrored:
            return f"          broker {arrow} {self.name}"
        return f"{self.name:5} {arrow} broker"


class Member:
    """Somebody who talks and listens."""

    def __init__(self, screen: Screen, lane: Lane, wire: Wire, client: Client) -> None:
        self.name = lane.name
        self.wire = wire
        self.client = client
        self.heard: Counter[str] = Counter()
        """How often each text came."""
        self._screen = screen
        self._lane = lane
        self._heard_more = trio.lowlevel.ParkingLot()

    async def listen(self) -> None:
        """Reads every message out loud, until the client ends."""
        async for message in self.client.messages:
            text = message.payload.decode(errors="replace")
            self.heard[text] += 1
            again = ", once more" if self.heard[text] > 1 else ""
            self.tell(f"hears{again}: {text}")
            self._heard_more.unpark_all()

    async def wait_heard(self, text: str) -> None:
        """Waits until `text` has come."""
        await trio.lowlevel.checkpoint()
        while not self.heard[text]:
            await self._heard_more.park()

    async def write(self, topic: str, text: str, qos: Literal[1, 2]) -> int:
        """Publishes at QoS 1 or 2 until that is confirmed. Returns how often it was interrupted."""
        self.tell(f"sends at QoS {qos}: {text}")
        interruptions = 0
        exchange = await self.client.enqueue(topic, text, qos=qos)
        async for interruption in exchange:
            interruptions += 1
            name = type(interruption).__name__
            self.tell(f"is told {name}: {interruption}", self._screen.symbols.warning, YELLOW)
        self.tell("knows: it has arrived")
        return interruptions

    async def settle(self) -> None:
        """Waits until the broker has nothing more to say, as far as one can know."""
        await self.client.ping()
        await self.wire.wait_settled()

    def tell(self, what: str, symbol: str = "*", colour: int = BOLD) -> None:
        """Writes what this member does."""
        self._screen.item(f"{symbol} {self.name} {what}", colour)


@asynccontextmanager
async def open_member(
    screen: Screen, broker: Address, lane: Lane, client_id: str
) -> AsyncGenerator[Member, None]:
    """Connects, and listens. In the end nothing of the session is left at the broker.

    Raises:
        Down, ConnectionRefused: the broker cannot be reached, or refuses.
    """
    wire = Wire(broker.dial, broker.name, partial(lane.show, screen))
    least, most = RECONNECT_WAIT
    async with (
        open_client(
            wire.dialer,
            client_id=client_id,
            username=broker.username,
            password=broker.password,
            pause_timeout=NETWORK_PATIENCE,
            reconnect_wait_min=least,
            reconnect_wait_max=most,
        ) as client,
        open_background_nursery() as nursery,
    ):
        member = Member(screen, lane, wire, client)
        nursery.start_soon(member.listen)
        try:
            yield member
        except BaseException:
            # Also then nothing is to be left. A failure in it is the lesser one.
            with trio.move_on_after(NETWORK_PATIENCE, shield=True), suppress(MQTTError):
                await client.disconnect(discard=True)
            raise
        await client.disconnect(discard=True)
