"""What was asked of a double, as values that compare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import attrs

from trio_mqtt import _packets as p
from trio_mqtt._errors import MQTTError


def _filters(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


@attrs.frozen
class PublishCall:
    """A message to publish, by `publish`, `enqueue`, their `_nowait` kin or `clear_retained`."""

    topic: str
    payload: bytes = attrs.field(converter=p.payload_bytes)
    qos: p.QoS = attrs.field(default=0, kw_only=True)
    retain: bool = attrs.field(default=False, kw_only=True)
    raises: MQTTError | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    """What the call raises, if a `ClientMock` expects it."""


@attrs.frozen
class SubscribeCall:
    """One topic filter or several, by `subscribe` or by entering a scope."""

    topic_filters: tuple[str, ...] = attrs.field(converter=_filters)
    qos: p.QoS = attrs.field(default=2, kw_only=True)
    raises: MQTTError | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    """What the call raises, if a `ClientMock` expects it."""


@attrs.frozen
class UnsubscribeCall:
    """One topic filter or several, by `unsubscribe`. Leaving a scope is none."""

    topic_filters: tuple[str, ...] = attrs.field(converter=_filters)
    raises: MQTTError | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    """What the call raises, if a `ClientMock` expects it."""


Call: TypeAlias = PublishCall | SubscribeCall | UnsubscribeCall
"""What was asked of the client."""
