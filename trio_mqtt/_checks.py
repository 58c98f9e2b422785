"""Checks what an application wants to publish, before anything is done with it."""

from __future__ import annotations

from . import _packets as p
from ._errors import Denied
from ._topics import require_topic_name
from ._transfers import Limits

_CACHED_TOPICS = 1_000
_CACHED_TOPIC_LENGTH = 256


class Checks:
    """Those of one client, which remember the topics that are in use."""

    def __init__(self, limits: Limits) -> None:
        self._allowed = {
            0,
            *([1] if limits.at_least_once_max else []),
            *([2] if limits.exactly_once_max else []),
        }
        """The levels that are not disabled."""
        self._valid_topics: set[str] = set()

    def publish(self, topic: str, payload: p.Payload, qos: int, *, retain: bool) -> bytes:
        """The payload as it travels, after a look at everything."""
        if retain is not False and retain is not True:
            raise TypeError(f"retain is a bool, not {retain!r}")
        if topic not in self._valid_topics:
            require_topic_name(topic)  # [MQTT-3.3.2-2]
            if len(self._valid_topics) >= _CACHED_TOPICS:
                self._valid_topics.clear()
            if len(topic) <= _CACHED_TOPIC_LENGTH:
                self._valid_topics.add(topic)
        if type(qos) is not int or qos not in self._allowed:
            p.require_qos(qos)
            if qos not in self._allowed:
                raise Denied(f"QoS {qos} was disabled, by a maximum of 0")
        data = payload if type(payload) is bytes else p.payload_bytes(payload)
        if len(data) > p.MAX_PAYLOAD_BYTES:
            p.require_size(topic, data)
        return data

    def enqueue(self, topic: str, payload: p.Payload, qos: int, *, retain: bool) -> bytes:
        """The same, where QoS 0 makes no sense."""
        if qos == 0:
            raise Denied("nothing is to be confirmed at QoS 0: publish it")
        return self.publish(topic, payload, qos, retain=retain)
