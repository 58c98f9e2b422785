"""Packets in words, for people who read along."""

from __future__ import annotations

from typing import assert_never

from trio_mqtt import _packets as p

_LONGEST = 60
"""How many characters of a payload are shown."""


def describe(packet: p.Packet) -> str:
    """A packet in one line. It never shows a password."""
    is_publish = isinstance(packet, (p.Message, p.Delivery))
    name = "PUBLISH" if is_publish else type(packet).__name__.upper()
    return f"{name} {_content(packet)}".rstrip()


def _content(packet: p.Packet) -> str:
    match packet:
        case p.Message() | p.Delivery():
            text = _publish(packet)
        case p.PubAck() | p.PubRec() | p.PubRel() | p.PubComp() | p.UnsubAck():
            text = str(packet.packet_id)
        case p.Connect() | p.UnsupportedLevel() | p.ConnAck():
            text = _connecting(packet)
        case p.Subscribe(packet_id, requests):
            wanted = ", ".join(f"{topic_filter} (QoS {qos})" for topic_filter, qos in requests)
            text = f"{packet_id} {wanted}"
        case p.SubAck(packet_id, codes):
            answers = ("failed" if code == p.FAILED else f"QoS {code}" for code in codes)
            text = f"{packet_id} granted: {', '.join(answers)}"
        case p.Unsubscribe(packet_id, topic_filters):
            text = f"{packet_id} {', '.join(topic_filters)}"
        case p.PingReq() | p.PingResp() | p.Disconnect():
            text = ""
        case _:
            assert_never(packet)
    return text


def explain(packet: p.Packet) -> str:
    """What the sender of a packet means by it, for those that do not speak for themselves."""
    return _MEANINGS.get(type(packet), "")


_MEANINGS: dict[type[p.Packet], str] = {
    p.PubAck: "I have it. You may forget it",
    p.PubRec: "I have it. Never send it again",
    p.PubRel: "I never will. Forget its number",
    p.PubComp: "Forgotten. We are done",
}


def _publish(packet: p.Message | p.Delivery) -> str:
    message = packet if isinstance(packet, p.Message) else packet.message
    text = message.payload.decode(errors="replace")
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 3] + "..."
    words = [str(packet.packet_id)] if isinstance(packet, p.Delivery) else []
    words += [message.topic, f'"{text}"', f"QoS {message.qos}"]
    if message.retain:
        words.append("RETAIN")
    if message.dup:
        words.append("DUP")
    return " ".join(words)


def _connecting(packet: p.Connect | p.UnsupportedLevel | p.ConnAck) -> str:
    match packet:
        case p.Connect():
            session = "without a session" if packet.clean_session else "keep my session"
            user = "" if packet.username is None else f", user {packet.username}"
            password = "" if packet.password is None else ", password ****"
            return f"I am {packet.client_id}{user}{password}, {session}"
        case p.UnsupportedLevel():
            return f"of protocol level {packet.level}"
        case p.ConnAck(return_code=0):
            return "session resumed" if packet.session_present else "welcome, a new session"
        case p.ConnAck():
            return f"refused, return code {packet.return_code}"
        case _:
            assert_never(packet)
