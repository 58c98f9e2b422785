"""What the application is subscribed to, so that it can be restored when the broker forgot it."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from ._packets import FAILED, QoS


@attrs.define
class _Subscription:
    requested: QoS
    granted: int | None
    """None while the broker's session is not known to have it."""


class Subscriptions:
    """By topic filter, what was asked for and what the broker granted."""

    def __init__(self) -> None:
        self._held: dict[str, _Subscription] = {}

    def answered(
        self, requests: Iterable[tuple[str, QoS]], return_codes: Iterable[int]
    ) -> list[str]:
        """Takes in what SUBACK says. Returns the filters that were held, and are no longer."""
        failed: list[str] = []
        for (topic_filter, qos), code in zip(requests, return_codes, strict=True):
            if code != FAILED:
                self._held[topic_filter] = _Subscription(qos, code)
            elif self._held.pop(topic_filter, None) is not None:
                failed.append(topic_filter)
        return failed

    def forget(self, topic_filters: Iterable[str]) -> None:
        """The application unsubscribes from these."""
        for topic_filter in topic_filters:
            self._held.pop(topic_filter, None)

    def missing(self, *, present: bool) -> list[tuple[str, QoS]]:
        """What the broker has to be asked for on a new connection, given its session present flag.

        On a session that it kept these are the filters of a restoration that was cut off, and those
        granted at QoS 0, which RabbitMQ does not keep.
        """
        if not present:
            for subscription in self._held.values():
                subscription.granted = None
        return [
            (topic_filter, subscription.requested)
            for topic_filter, subscription in self._held.items()
            if not subscription.granted
        ]
