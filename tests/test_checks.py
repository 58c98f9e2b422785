"""What an application wants to publish is checked, and topics in use are remembered."""

from __future__ import annotations

import enum

import pytest

from trio_mqtt import Denied
from trio_mqtt._checks import Checks
from trio_mqtt._transfers import Limits


def test_more_topics_than_are_remembered_are_fine() -> None:
    checks = Checks(Limits())
    for _ in range(2):
        for number in range(1_001):
            assert checks.publish(f"topic/{number}", "x", 0, retain=False) == b"x"
        assert checks.publish("long" * 1_000, b"", 1, retain=True) == b""
    with pytest.raises(Denied):
        checks.publish("topic/#", b"", 0, retain=False)


def test_a_disabled_qos_is_denied() -> None:
    checks = Checks(Limits(at_least_once_max=0))
    with pytest.raises(Denied, match="QoS 1 was disabled"):
        checks.enqueue("t", b"", 1, retain=False)
    assert checks.enqueue("t", b"", 2, retain=False) == b""
    with pytest.raises(Denied, match="nothing is to be confirmed at QoS 0"):
        checks.enqueue("t", b"", 0, retain=False)


class Level(enum.IntEnum):
    AT_MOST_ONCE = 0
    EXACTLY_ONCE = 2


@pytest.mark.parametrize("qos", Level)
def test_a_number_of_another_class_is_a_qos_too(qos: Level) -> None:
    assert Checks(Limits()).publish("t", b"", qos, retain=False) == b""
    with pytest.raises(Denied, match="QoS 2 was disabled"):
        Checks(Limits(exactly_once_max=0)).publish("t", b"", Level.EXACTLY_ONCE, retain=False)
