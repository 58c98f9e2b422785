"""What a broker does with each packet: pure, synchronous, without I/O.

A transition is one call. It changes the sessions, and appends to the `outbound` queues and to the
`state` of the links that it concerns, which need not be the one that the packet came from. Whoever
calls looks at all links afterwards, and at the sessions that were `left`.
"""

from __future__ import annotations

import hmac
import itertools
from collections.abc import Callable, Container, Mapping
from typing import TypeAlias, assert_never

import attrs

from trio_mqtt import _packets as p
from trio_mqtt._errors import ProtocolViolation
from trio_mqtt._topics import matches

from ._broker_link import Link, LinkState
from ._broker_session import Session

Grant: TypeAlias = Callable[[str, p.QoS], int]
"""From a topic filter and the QoS requested to SUBACK's return code."""

ACCEPTED, BAD_LEVEL, BAD_IDENTIFIER, NOT_AUTHORIZED = 0, 1, 2, 5
"""CONNACK's return codes, as far as a broker finds reasons for them by itself."""


@attrs.frozen(kw_only=True)
class Habits:
    """Where a known broker departs from the specification, or from the others."""

    most_granted: p.QoS = 2
    puback_for_qos_2: bool = False
    """PUBLISH at QoS 2 is confirmed at once, and not protected against a second delivery."""
    ignores_unknown_pubrel: bool = False
    forgets_qos_0: bool = False
    """A session that returns has lost its subscriptions at QoS 0; one without others is gone."""
    retained_for_exact_topics: bool = False
    dot_is_slash: bool = False


STANDARD = Habits()
RABBITMQ = Habits(
    most_granted=1,
    puback_for_qos_2=True,
    ignores_unknown_pubrel=True,
    forgets_qos_0=True,
    retained_for_exact_topics=True,
    dot_is_slash=True,
)
"""RabbitMQ 3.10, as probed."""


@attrs.frozen(kw_only=True)
class Options:
    """What a broker was told to do: the arguments of `open_broker`."""

    users: Mapping[str, str] | None = attrs.field(repr=False)
    max_in_flight: int
    max_unreleased: int
    grant: Grant
    fail_filters: Container[str]
    habits: Habits


@attrs.define(eq=False)
class Core:
    """Sessions, retained messages, and the links that there are."""

    options: Options
    links: dict[Link, None] = attrs.field(init=False, factory=dict[Link, None])
    sessions: dict[str, Session] = attrs.field(init=False, factory=dict[str, Session])
    retained: dict[str, p.Message] = attrs.field(init=False, factory=dict[str, p.Message])
    violations: list[tuple[str, ProtocolViolation]] = attrs.field(
        init=False, factory=list[tuple[str, ProtocolViolation]]
    )
    left: list[Session] = attrs.field(init=False, factory=list[Session])
    """Those that stay although their network connection ended, until whoever calls empties it."""
    refusal: int | None = attrs.field(init=False, default=None)
    """The return code for every CONNECT, if it is not to be accepted."""
    _serial: itertools.count[int] = attrs.field(init=False, factory=lambda: itertools.count(1))

    # Links

    def open_link(self) -> Link:
        """A network connection came in."""
        link = Link()
        self.links[link] = None
        return link

    def close_link(self, link: Link) -> None:
        """The network connection ended, whoever ended it."""
        self._detach(link, publish_will=True)
        link.state = LinkState.CUT
        self.links.pop(link, None)

    def cut(self, link: Link, *, publish_will: bool = True) -> None:
        """Ends the network connection as if the network had failed."""
        link.state = LinkState.CUT
        self._detach(link, publish_will=publish_will)
        link.outbound.clear()

    def link_of(self, client_id: str) -> Link | None:
        """The connection that serves this client, if any does."""
        session = self.sessions.get(client_id)
        served = (link for link in self.links if link.session is session)
        return None if session is None else next(served, None)

    def violated(self, link: Link, violation: ProtocolViolation) -> None:
        """The client broke the specification: its connection closes [MQTT-4.8.0-1]."""
        self.violations.append((link.client_id, violation))
        link.state = LinkState.CLOSING
        self._detach(link, publish_will=True)

    def _detach(self, link: Link, *, publish_will: bool) -> None:
        session, link.session = link.session, None
        will, link.will = link.will, None  # [MQTT-3.1.2-10]
        if session is None:
            return
        session.detach()
        if session.clean:
            self.end_session(session)  # [MQTT-3.1.2-6]
        else:
            self.left.append(session)  # [MQTT-3.1.2-4]
        if will is not None and publish_will:  # [MQTT-3.1.2-8] [MQTT-3.1.2-16] [MQTT-3.1.2-17]
            self.route(p.Message(will.topic, will.payload, will.qos, will.retain))

    def end_session(self, session: Session) -> None:
        """Forgets it, unless a network connection serves it, or it is not there any more."""
        if not session.connected and self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]

    def forget(self) -> None:
        """Loses all sessions and retained messages."""
        self.sessions.clear()
        self.retained.clear()

    # Messages

    def route(self, message: p.Message) -> None:
        """Keeps `message` if it is to be retained, and gives it to every session that wants it."""
        topic = self._own(message.topic)
        if message.retain:
            self._retain(attrs.evolve(message, topic=topic, dup=False))
        for session in self.sessions.values():
            granted = session.granted(topic)
            if granted is not None:  # [MQTT-3.3.1-3] [MQTT-3.3.1-9] [MQTT-3.8.4-6]
                session.deliver(p.Message(topic, message.payload, min(message.qos, granted)))

    def _retain(self, message: p.Message) -> None:
        if message.payload:
            self.retained[message.topic] = message  # [MQTT-3.3.1-5] [MQTT-3.3.1-7]
        else:
            self.retained.pop(message.topic, None)  # [MQTT-3.3.1-10] [MQTT-3.3.1-11]

    def _own(self, topic: str) -> str:
        return topic.replace(".", "/") if self.options.habits.dot_is_slash else topic

    # Packets

    def receive(self, link: Link, packet: p.Served) -> None:
        """Acts upon a packet of the client's.

        Raises:
            ProtocolViolation: it should not have come. To be followed by `violated`.
        """
        if link.state is LinkState.PARTED:
            raise ProtocolViolation("a packet after DISCONNECT")  # [MQTT-3.14.4-2]
        if link.state is not LinkState.OPEN:
            return  # [MQTT-3.1.4-5]
        if link.session is not None:
            self._serve(link, link.session, packet)
        elif isinstance(packet, (p.Connect, p.UnsupportedLevel)):
            self._connect(link, packet)
        else:
            name = type(packet).__name__
            raise ProtocolViolation(f"{name} comes before CONNECT")  # [MQTT-3.1.0-1]

    def _connect(self, link: Link, packet: p.Connect | p.UnsupportedLevel) -> None:
        if isinstance(packet, p.Connect):
            link.client_id = packet.client_id or self._generated_id()  # [MQTT-3.1.3-6]
        code = self._refusal(packet)
        if code or isinstance(packet, p.UnsupportedLevel):
            link.outbound.append(p.ConnAck(session_present=False, return_code=code))
            link.state = LinkState.CLOSING  # [MQTT-3.2.2-4] [MQTT-3.2.2-5]
            return
        existing = self.link_of(link.client_id)
        if existing is not None:
            self.cut(existing)  # [MQTT-3.1.4-2]
        session, present = self._session(link.client_id, clean=packet.clean_session)
        link.session, link.will, link.keep_alive = session, packet.will, packet.keep_alive
        link.outbound.append(p.ConnAck(present, ACCEPTED))  # [MQTT-3.1.4-4] [MQTT-3.2.0-1]
        session.attach(link.outbound)

    def _generated_id(self) -> str:
        candidates = (f"generated-{number}" for number in self._serial)
        return next(client_id for client_id in candidates if client_id not in self.sessions)

    def _refusal(self, packet: p.Connect | p.UnsupportedLevel) -> int:
        if isinstance(packet, p.UnsupportedLevel):
            return BAD_LEVEL  # [MQTT-3.1.2-2]
        if not packet.client_id and not packet.clean_session:
            return BAD_IDENTIFIER  # [MQTT-3.1.3-8]
        if not self._authorized(packet):
            return NOT_AUTHORIZED
        return self.refusal or ACCEPTED

    def _authorized(self, packet: p.Connect) -> bool:
        if self.options.users is None:
            return True
        # An unknown user takes as long as a known one.
        known = self.options.users.get(packet.username or "")
        right = hmac.compare_digest((known or "").encode(), packet.password or b"")
        return right and known is not None and packet.username is not None

    def _session(self, client_id: str, *, clean: bool) -> tuple[Session, bool]:
        """The session for a client that connects, and whether it was there before."""
        session = self.sessions.get(client_id)
        if session is not None and self.options.habits.forgets_qos_0:
            for topic_filter in [name for name, qos in session.subscriptions.items() if not qos]:
                del session.subscriptions[topic_filter]
            session = session if session.subscriptions else None
        if session is not None and not clean:
            return session, True  # [MQTT-3.1.2-4] [MQTT-3.2.2-2]
        session = Session(client_id, clean, self.options.max_in_flight)
        self.sessions[client_id] = session  # [MQTT-3.2.2-1] [MQTT-3.2.2-3]
        return session, False

    def _serve(self, link: Link, session: Session, packet: p.Served) -> None:
        match packet:
            case p.Message():
                self.route(packet)
            case p.Delivery():
                self._publish(link, session, packet)
            case p.PubAck() | p.PubRec() | p.PubComp():
                link.check_order(packet)
                session.acknowledged(packet)
            case p.PubRel():
                link.check_order(packet)
                self._release(link, session, packet)
            case p.Subscribe():
                self._subscribe(link, session, packet)
            case p.Unsubscribe():
                self._unsubscribe(link, session, packet)
            case p.PingReq():
                link.outbound.append(p.PingResp())  # [MQTT-3.12.4-1]
            case p.Disconnect():
                link.state = LinkState.PARTED
                self._detach(link, publish_will=False)  # [MQTT-3.14.4-3]
            case p.Connect() | p.UnsupportedLevel():
                raise ProtocolViolation("a second CONNECT")  # [MQTT-3.1.0-2]
            case _:
                assert_never(packet)

    def _publish(self, link: Link, session: Session, packet: p.Delivery) -> None:
        message, packet_id = packet.message, packet.packet_id
        if message.qos == 1 or self.options.habits.puback_for_qos_2:
            self._take(link, session, packet_id, dup=message.dup)
            self.route(message)
            link.outbound.append(p.PubAck(packet_id))  # [MQTT-4.3.2-2]
            return
        if packet_id not in session.unreleased:
            link.check_free(packet_id)
        if session.accept(packet, self.options.max_unreleased):
            self.route(message)
        link.outbound.append(p.PubRec(packet_id))  # [MQTT-4.3.3-2]

    def _take(self, link: Link, session: Session, packet_id: int, *, dup: bool = False) -> None:
        """The client asks for something under an identifier that has to be unused."""
        if packet_id in session.unreleased:  # [MQTT-2.3.1-2]
            raise ProtocolViolation(
                f"packet identifier {packet_id} is that of an unreleased PUBLISH"
            )
        if not dup:
            link.check_free(packet_id)
        link.take(packet_id)

    def _release(self, link: Link, session: Session, packet: p.PubRel) -> None:
        known = session.unreleased.pop(packet.packet_id, None) is not None
        if known or not self.options.habits.ignores_unknown_pubrel:
            link.take(packet.packet_id)
            link.outbound.append(p.PubComp(packet.packet_id))  # [MQTT-4.3.3-2]

    def _subscribe(self, link: Link, session: Session, packet: p.Subscribe) -> None:
        self._take(link, session, packet.packet_id)
        codes: list[int] = []
        established: list[tuple[str, p.QoS]] = []
        for requested, qos in packet.requests:  # [MQTT-3.8.4-4]
            topic_filter = self._own(requested)
            code = self._granted(requested, qos)
            codes.append(code)
            for granted in (0, 1, 2):
                if code == granted:
                    session.subscriptions[topic_filter] = granted  # [MQTT-3.8.4-3]
                    established.append((topic_filter, granted))
        # [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.9.3-1]
        link.outbound.append(p.SubAck(packet.packet_id, tuple(codes)))
        for topic_filter, qos in established:
            self._send_retained(session, topic_filter, qos)

    def _granted(self, topic_filter: str, qos: p.QoS) -> int:
        if topic_filter in self.options.fail_filters:
            return p.FAILED
        code = self.options.grant(topic_filter, qos)
        return code if code > 2 else min(code, self.options.habits.most_granted)

    def _send_retained(self, session: Session, topic_filter: str, qos: p.QoS) -> None:
        exact = self.options.habits.retained_for_exact_topics
        for topic, message in self.retained.items():  # [MQTT-3.3.1-6] [MQTT-3.3.1-8]
            if topic == topic_filter or (not exact and matches(topic_filter, topic)):
                least = min(message.qos, qos)
                session.deliver(attrs.evolve(message, qos=least, retain=True))

    def _unsubscribe(self, link: Link, session: Session, packet: p.Unsubscribe) -> None:
        self._take(link, session, packet.packet_id)
        for topic_filter in packet.topic_filters:  # [MQTT-3.10.4-1] [MQTT-3.10.4-6]
            session.subscriptions.pop(self._own(topic_filter), None)
        link.outbound.append(p.UnsubAck(packet.packet_id))  # [MQTT-3.10.4-4] [MQTT-3.10.4-5]
