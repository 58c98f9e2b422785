"""What a client that ends still waits for."""

from __future__ import annotations

from collections import deque

from ._requests import Stage, Transfer
from ._session import SessionState


class Remainder:
    """What a session had accepted at one instant, and how far that got since.

    On a volatile session a message counts until it is confirmed, on a durable one until it is
    stored: the next life of the session does the rest. What is accepted later does not count, nor
    do the packets that keep the connection alive: else leaving might never end.
    """

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._durable = session.journal is not None
        transfers = session.storing() if self._durable else session.unconfirmed_transfers()
        self._transfers = deque(transfers)
        self._outbox = session.outbox
        self._target = 0 if self._outbox is None else self._outbox.queued

    @property
    def is_done(self) -> bool:
        """Whether all is confirmed or stored, or at QoS 0 written or lost with its connection."""
        transfers = self._transfers
        while transfers and not self._counts(transfers[0]):  # so that none is looked at twice
            transfers.popleft()
        return not transfers and self._written() >= self._target

    def _counts(self, transfer: Transfer) -> bool:
        return transfer.is_open and not (self._durable and transfer.stored)

    def progress(self) -> tuple[int, int, int]:
        """Something that changes as it gets on. It takes time in proportion to what is left."""
        self._transfers = deque(filter(self._counts, self._transfers))
        released = sum(transfer.stage is Stage.RELEASED for transfer in self._transfers)
        return len(self._transfers), released, self._written()

    def _written(self) -> int:
        """How many bytes of all this are written on the connection of the moment."""
        outbox = self._session.outbox
        if outbox is not self._outbox:  # what was to be written there died with it
            self._outbox, self._target = outbox, 0
        if outbox is None:
            return 0
        last = max((transfer.end for transfer in self._transfers), default=0)
        return min(outbox.written, max(self._target, last))
