"""How many operations a message costs: calls, which no other load of the machine changes.

Counted are the calls that the package's own code makes and gets, per message of 64 bytes, with as
many in flight as the benchmarks have. A bound that is exceeded is no defect, but somebody is to
know of it: run ``python3 -m nox -s bench``, and raise the bound if it was worth it. One that is no
longer near is to be lowered. ``python -m benchmarks.operations`` says which calls they are.
"""

from __future__ import annotations

import pytest
import trio

from benchmarks.operations import (
    MESSAGES,
    Act,
    Calls,
    perform,
    publish,
    publish_in_tasks,
    receive,
)
from trio_mqtt import QoS

from .disturbed import repeatable

BOUNDS: dict[tuple[Act, QoS], int] = {
    (receive, 0): 20,
    (receive, 1): 37,
    (receive, 2): 52,
    (publish, 0): 18,
    (publish, 1): 134,
    (publish, 2): 235,
    (publish_in_tasks, 1): 54,
    (publish_in_tasks, 2): 70,
}
"""Per message: what it is today, the same from Python 3.11 to 3.13, and some 3 % more."""


@pytest.mark.parametrize(("act", "qos"), BOUNDS, ids=lambda it: getattr(it, "__name__", it))
def test_a_message_costs_no_more_operations_than_it_did(act: Act, qos: QoS) -> None:
    few, many = Calls(), Calls()
    with repeatable():
        trio.run(perform, act, qos, MESSAGES // 2, few)
        trio.run(perform, act, qos, MESSAGES, many)
    found = (many.count - few.count) / (MESSAGES / 2)
    assert 0.9 * BOUNDS[act, qos] < found <= BOUNDS[act, qos]
