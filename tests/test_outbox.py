"""The bytes for one connection."""

from __future__ import annotations

import pytest

from trio_mqtt._errors import Down, MQTTError, ResponseLost, SubmitInterrupted
from trio_mqtt._outbox import Outbox, Sent


def test_counts_what_is_queued_and_what_is_not_written() -> None:
    outbox = Outbox()
    outbox.append(b"abc")
    outbox.append(b"de")
    assert (len(outbox), outbox.queued) == (2, 5)
    assert outbox.take() == [b"abc", b"de"]
    outbox.written += 3
    assert (len(outbox), outbox.queued) == (0, 5)


def test_takes_nothing_behind_the_last_packet() -> None:
    outbox = Outbox()
    outbox.close(b"last")
    outbox.append(b"more")
    assert outbox.take() == [b"last"]
    assert outbox.queued == 4


@pytest.mark.parametrize(
    ("begun", "written", "meaning"),
    [
        (0, 0, Down),
        (3, 3, Down),  # the one before it
        (4, 3, SubmitInterrupted),
        (7, 3, SubmitInterrupted),
        (7, 6, SubmitInterrupted),
        (7, 7, ResponseLost),
    ],
)
def test_what_the_end_means_for_a_packet(
    begun: int, written: int, meaning: type[MQTTError]
) -> None:
    outbox, sent = Outbox(), Sent()
    outbox.append(b"abc")
    sent.sent_as(b"defg", outbox)
    outbox.begun, outbox.written = begun, written
    lost = sent.lost(outbox, "why")
    assert type(lost) is meaning
    assert "why" in str(lost)
