"""What an application wants to publish is checked, and topics in use are remembered."""

from __future__ import annotations

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
