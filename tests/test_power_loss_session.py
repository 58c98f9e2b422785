"""A durable session, adopted after a loss of power at every moment of its life.

A session and a broker live through a script, the records of the session are committed to a
`FileSystem` on a model of a disk, and each image of that disk is adopted. What it must hold follows
from what was committed, received and queued to be sent, and from nothing else.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Collection
from typing import TypeAlias

import attrs
import pytest

from trio_mqtt import _packets as p
from trio_mqtt._codec311 import Codec
from trio_mqtt._file_system import Files
from trio_mqtt._journal import Journal
from trio_mqtt._recovery import new_session, recover
from trio_mqtt._session import SessionState
from trio_mqtt._transfers import Limits
from trio_mqtt.testing._server311 import server_decoder

from .power_loss import Image, ModelDirectory, State, recovered
from .session_driver import delivery, ids, write

Sent: TypeAlias = tuple[str, int]
"""The kind of a packet, and its identifier."""


@attrs.frozen
class Adopted:
    """What a session does that was adopted after a loss of power."""

    published: list[int]
    """What it sends again, in order."""
    released: list[int]
    payloads: dict[int, bytes]
    received: frozenset[int]


@functools.cache
def adopt(state: State) -> Adopted:
    """Adopts the session, and connects to a broker that has it still."""
    recovery = recover(dict(state), Codec())
    assert not recovery.warnings
    assert not recovery.saves
    assert not recovery.deletes
    assert recovery.stored.identity.client_id == "client"
    waiting = [it.packet_id for it in recovery.stored.transfers if it.is_waiting]
    session = SessionState(Codec(), Limits(), recovery.stored)
    outbox = session.attach(clean=False, present=True, restart_at=1)
    sent = server_decoder().feed(write(outbox))
    again = [packet for packet in sent if isinstance(packet, p.Delivery)]
    assert all(packet.message.dup for packet in again)
    releases = [packet.packet_id for packet in sent if isinstance(packet, p.PubRel)]
    assert len(again) + len(releases) == len(sent)
    assert [packet.packet_id for packet in again] == waiting
    return Adopted(
        waiting,
        releases,
        {packet.packet_id: bytes(packet.message.payload) for packet in again},
        recovery.stored.received,
    )


class Life:
    """A session, the disk below it, its broker, and what is known of each message."""

    def __init__(self) -> None:
        self.directory = ModelDirectory()
        self.files = Files(self.directory)
        self.files.open()
        begun = new_session("client")
        self.files.commit(begun.saves, begun.deletes)
        self.session = SessionState(Codec(), Limits(), begun.stored)
        self.sent: list[Sent] = []
        self.checked = 0
        # Ours, by packet identifier
        self.published: list[int] = []
        self.accepted: set[int] = set()
        self.releases: list[int] = []
        self.pubrel_queued: set[int] = set()
        self.confirmed: set[int] = set()
        self.forgotten: set[int] = set()
        # The broker's
        self.given: set[int] = set()
        self.kept: set[int] = set()
        self.ended: set[int] = set()
        self.completed: set[int] = set()
        self.attach(present=False)
        self.session.discarded()

    @property
    def journal(self) -> Journal:
        assert self.session.journal is not None
        return self.session.journal

    # What is checked

    def look(self) -> None:
        """Notes what was queued to be sent, and what was accepted."""
        self.accepted.update(transfer.packet_id for transfer in self.session.accepted)
        self.session.accepted.clear()
        if self.session.outbox is None:
            return
        sent = ids(self._decoder.feed(write(self.session.outbox)))
        self.sent += sent
        self.pubrel_queued.update(packet_id for kind, packet_id in sent if kind == "PUBREL")
        self.completed.update(packet_id for kind, packet_id in sent if kind == "PUBCOMP")

    def check(self, images: Collection[Image]) -> None:
        for image in images:
            for state in recovered(image):
                self.check_ours(adopt(state))
                self.check_the_brokers(adopt(state))
        self.checked += len(images)

    def check_ours(self, found: Adopted) -> None:
        there = {*found.published, *found.released}
        assert self.accepted - self.confirmed <= there, "an accepted message is lost"
        assert not self.pubrel_queued & set(found.published), "PUBLISH comes after PUBREL"
        assert not self.forgotten & there, "what was confirmed is back"
        assert found.published == in_order(self.published, found.published)
        assert found.released == in_order(self.releases, found.released)
        assert found.payloads == {packet_id: payload(packet_id) for packet_id in found.published}

    def check_the_brokers(self, found: Adopted) -> None:
        assert self.kept <= found.received, "a message at QoS 2 may come twice"
        assert not self.completed & found.received, "a new message may be taken for an old one"

    # What the session does

    def commit(self) -> None:
        """Stores what is queued."""
        self.look()
        if not self.journal.has_queued:
            return
        batch = self.journal.take()
        given, self.given = self.given, set()
        confirmed = set(self.confirmed)
        self.completed -= given  # from now on either is right
        self.kept -= self.ended
        self.ended.clear()
        self.directory.take_images()
        self.files.commit(batch.saves(), batch.deletes())
        self.check(self.directory.take_images())
        self.session.stored(batch)
        self.kept |= given
        self.forgotten |= confirmed
        self.look()
        self.check(self.directory.images())

    def attach(self, *, present: bool) -> None:
        self._decoder = server_decoder()
        self.session.attach(clean=False, present=present, restart_at=1)

    def lose(self, *, present: bool = True) -> None:
        """The connection, and the broker its session, unless that is present."""
        self.look()
        self.session.detach("cut")
        if not present:
            self.sent.clear()
            self.ended |= self.kept
        self.attach(present=present)

    def publish(self, qos: int) -> None:
        packet_id = len(self.published) + 1
        self.published.append(packet_id)
        transfer = self.session.publish("t", payload(packet_id), 2 if qos == 2 else 1, retain=False)
        assert transfer.packet_id == packet_id

    # What the broker does, once it has got what it answers

    def puback(self, packet_id: int) -> None:
        self._answer("PUBLISH", p.PubAck(packet_id))
        self.confirmed.add(packet_id)

    def pubrec(self, packet_id: int) -> None:
        self._answer("PUBLISH", p.PubRec(packet_id))
        self.releases.append(packet_id)

    def pubcomp(self, packet_id: int) -> None:
        self._answer("PUBREL", p.PubComp(packet_id))
        self.confirmed.add(packet_id)

    def deliver(self, packet_id: int) -> None:
        """A message at QoS 2, which the application is done with at once."""
        if packet_id in self.kept:
            self._wait_for(("PUBCOMP", packet_id))
        answers = [("PUBREC", packet_id), ("PUBCOMP", packet_id)]  # to the one before
        self.sent = [packet for packet in self.sent if packet not in answers]
        self._receive(delivery(packet_id, 2))
        (arrived,) = self.session.arrived
        self.session.arrived.clear()
        assert isinstance(arrived, p.Delivery)
        self.session.release(arrived)
        self.given.add(packet_id)

    def pubrel(self, packet_id: int) -> None:
        self._answer("PUBREC", p.PubRel(packet_id))
        self.ended.add(packet_id)

    def _answer(self, kind: str, answer: p.Ack) -> None:
        self._wait_for((kind, answer.packet_id), (kind + "!", answer.packet_id))
        self._receive(answer)

    def _wait_for(self, *any_of: Sent) -> None:
        self.look()
        if not set(any_of) & set(self.sent):
            self.commit()
        assert set(any_of) & set(self.sent)

    def _receive(self, packet: p.Inbound) -> None:
        self.session.receive([packet])


def in_order(order: list[int], some: Collection[int]) -> list[int]:
    return [packet_id for packet_id in order if packet_id in some]


def payload(packet_id: int) -> bytes:
    return b"payload %d" % packet_id


SCRIPT: list[Callable[[Life], None]] = [
    lambda life: life.publish(1),  # 1
    lambda life: life.publish(2),  # 2
    lambda life: life.deliver(1),
    lambda life: life.publish(2),  # 3
    lambda life: life.publish(1),  # 4
    lambda life: life.puback(1),
    lambda life: life.pubrec(3),  # before 2, so that the orders differ
    lambda life: life.pubrec(2),
    lambda life: life.deliver(2),
    lambda life: life.pubrel(1),
    lambda life: life.deliver(1),  # its identifier again
    lambda life: life.publish(2),  # 5
    lambda life: life.pubcomp(3),
    lambda life: life.pubrec(5),
    lambda life: life.lose(),
    lambda life: life.pubcomp(2),
    lambda life: life.publish(1),  # 6
    lambda life: life.deliver(3),
    lambda life: life.puback(4),
    lambda life: life.pubrel(1),
    lambda life: life.lose(present=False),  # and the broker its session
    lambda life: life.commit(),  # of that, before anything else is received
    lambda life: life.deliver(2),
    lambda life: life.puback(6),
    lambda life: life.pubrel(2),
]


def live(commits: int) -> Life:
    """Lives through the script, with a commit after each step that `commits` has a bit for.

    And after each third, since the images of a large batch are too many.
    """
    life = Life()
    for position, step in enumerate(SCRIPT):
        step(life)
        life.look()
        life.check(life.directory.images())
        if commits >> position & 1 or position % 3 == 2:
            life.commit()
    life.commit()
    return life


EVERY_STEP = (1 << len(SCRIPT)) - 1


@pytest.mark.parametrize("commits", [EVERY_STEP, EVERY_STEP // 3, 0])
def test_the_guarantees_outlive_the_power(commits: int) -> None:
    life = live(commits)
    assert life.checked > 200
    assert life.confirmed == life.forgotten == {1, 2, 3, 4, 6}
    assert life.accepted - life.confirmed == {5}
    assert 2 in life.completed
    assert not life.kept


def test_they_do_whatever_is_stored_together() -> None:
    chosen = random.Random(1)
    for _ in range(20):
        live(chosen.getrandbits(len(SCRIPT)))
