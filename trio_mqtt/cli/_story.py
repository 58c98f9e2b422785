"""The demo's story: what is said in it, what breaks, and what has to arrive all the same."""

from __future__ import annotations

from typing import Literal

import attrs

from trio_mqtt import QoS
from trio_mqtt import _packets as p
from trio_mqtt._packets import QOS_LEVELS

from ._member import Member
from ._screen import Screen
from ._wire import Cut

CHAT = (
    "Alice and Bob connect to a broker, and subscribe: both to the chat room, Bob to letters too. "
    "What is published in the room, the broker copies to both, so each hears oneself too. A chat "
    "may lose a line now and then, and QoS 0 will do: one packet, and no answer."
)
AT_LEAST_ONCE = (
    "At least once: whoever sends a message keeps it until the other side answers PUBACK. First "
    "Alice does, towards the broker, then the broker, towards Bob."
)
EXACTLY_ONCE = (
    "Exactly once takes four packets: until PUBREL the receiver remembers the message's number, "
    "to recognise a copy, and from PUBREC on the sender sends none."
)
CUT_ONCE = (
    "The broker gets the message, but its PUBACK is lost with the connection. Alice cannot know "
    "that. Her client connects again by itself, and sends the message again, marked DUP."
)
CUT_TWICE = (
    "Worse, at QoS 2: first PUBREC is lost, later PUBCOMP too. Alice's client goes on each time "
    "where it was. By its number the broker recognises the copy, and Bob hears the message once."
)
CUT_DOWNGRADED = (
    "At QoS 2 this broker's PUBACK is lost in the same way. It does not remember the packet's "
    "number, and so takes the copy for another message."
)
GOOD_BYE = (
    "A last letter. Then each says DISCONNECT, and with one more connection makes the broker "
    "forget the session, so that nothing is left behind."
)
REPEATED: dict[QoS, str] = {
    1: "Bob heard it twice, which at least once allows. Exactly once is what QoS 2 is for.",
    2: "Bob heard it twice, as this broker does not do QoS 2.",
}
DOWNGRADED = (
    "This broker answers QoS 2 with PUBACK, as RabbitMQ does. The message is confirmed, but the "
    "promise is that of QoS 1: at least once."
)
GRANTED = "This broker delivers at QoS {} at most, whatever a subscription asks for."
PROMISES: dict[QoS, str] = {0: "at most once", 1: "at least once", 2: "exactly once"}


@attrs.frozen
class Said:
    """A message, and who has to hear it."""

    text: str
    qos: QoS
    listeners: tuple[Member, ...]

    @property
    def missed_by(self) -> list[Member]:
        """Who did not hear it."""
        return [member for member in self.listeners if not member.heard[self.text]]

    @property
    def repetitions(self) -> int:
        """How often it was heard beyond the first time."""
        return sum(max(member.heard[self.text] - 1, 0) for member in self.listeners)


def begin(screen: Screen) -> None:
    """Opens the first section, as the members connect in it."""
    screen.section("A chat at QoS 0", CHAT)


class Story:
    """What happens between two members."""

    def __init__(self, screen: Screen, alice: Member, bob: Member, prefix: str) -> None:
        """Uses topics that begin with `prefix`."""
        self._screen = screen
        self._alice = alice
        self._bob = bob
        self._room = f"{prefix}chat/room"
        self._letters = f"{prefix}letters"
        self._said: list[Said] = []
        self._interruptions = 0
        self._granted: QoS = 2
        self._downgrades = 0

    async def tell(self) -> None:
        """Everything that is said."""
        await self._chat()
        await self._letter("A letter at QoS 1", AT_LEAST_ONCE, "It is 20.8 degrees here.", 1)
        await self._letter("A letter at QoS 2", EXACTLY_ONCE, "I paid you 10 coins.", 2)
        cut = Cut((p.PubAck,))
        await self._letter("The connection breaks at QoS 1", CUT_ONCE, "Now it is 21.", 1, cut)
        if self._downgrades:
            cuts, explanation = [cut], CUT_DOWNGRADED
        else:
            cuts, explanation = [Cut((p.PubRec,)), Cut((p.PubComp,))], CUT_TWICE
        await self._letter(
            "The connection breaks at QoS 2", explanation, "I paid you 5 more.", 2, *cuts
        )
        await self._letter("Good-bye", GOOD_BYE, "See you!", 1)

    async def _chat(self) -> None:
        await self._alice.client.subscribe(self._room)
        self._granted = min(await self._bob.client.subscribe(self._room, self._letters))
        if self._granted < 2:
            self._screen.line()
            self._screen.paragraph(GRANTED.format(self._granted))
            self._screen.line()
        for member, text in (
            (self._alice, "Hi Bob!"),
            (self._bob, "Hi Alice! Any news?"),
            (self._alice, "Look out for a letter."),
        ):
            said = self._expect(f"{member.name}: {text}", 0, self._alice, self._bob)
            member.tell(f"says: {text}")
            await member.client.publish(self._room, said.text)
            for listener in said.listeners:
                await listener.wait_heard(said.text)

    async def _letter(
        self, headline: str, explanation: str, text: str, qos: Literal[1, 2], *cuts: Cut
    ) -> None:
        """A letter from Alice to Bob, and where her connection is cut meanwhile."""
        self._screen.section(headline, explanation)
        said = self._expect(text, qos, self._bob)
        self._alice.wire.cut_at(*cuts)
        self._interruptions += await self._alice.write(self._letters, text, qos)
        self._alice.wire.cut_at()
        await self._bob.wait_heard(text)
        for member in (self._alice, self._bob):
            await member.settle()
        self._comment(said)

    def _comment(self, said: Said) -> None:
        downgrades = self._alice.client.statistics().downgrades
        if downgrades and not self._downgrades:
            self._screen.line()
            self._screen.paragraph(DOWNGRADED)
        elif said.repetitions:
            self._screen.line()
            self._screen.paragraph(REPEATED[said.qos])
        self._downgrades = downgrades

    def _expect(self, text: str, qos: QoS, *listeners: Member) -> Said:
        said = Said(text, qos, listeners)
        self._said.append(said)
        return said

    # The end of it

    def verify(self) -> bool:
        """Tells what arrived. Returns whether that is all, and as often as it should be."""
        self._screen.section("What arrived")
        for qos in QOS_LEVELS:
            self._count(qos)
        missed = [(said, member) for said in self._said for member in said.missed_by]
        for said, member in missed:
            self._screen.verdict(f"{member.name} never heard: {said.text}", right=False)
        strict = self._granted == 2 and not self._downgrades
        doubled = [said for said in self._said if said.qos == 2 and said.repetitions and strict]
        for said in doubled:
            self._screen.verdict(f"heard more than once: {said.text}", right=False)
        if missed or doubled:
            return False
        self._screen.line()
        twice = "nothing came twice at QoS 2" if strict else "this broker does not do QoS 2"
        self._screen.verdict(
            f"Nothing was lost, over {self._interruptions} broken connections; {twice}.", right=True
        )
        return True

    def _count(self, qos: QoS) -> None:
        said = [said for said in self._said if said.qos == qos]
        expected = sum(len(each.listeners) for each in said)
        missed = sum(len(each.missed_by) for each in said)
        repetitions = sum(each.repetitions for each in said)
        line = f"QoS {qos}, {PROMISES[qos] + ':':15} {len(said)} sent, "
        line += f"{expected - missed} of {expected} heard"
        if repetitions:
            line += f", {repetitions} of them once more"
        self._screen.item(line)
