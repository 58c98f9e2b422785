"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import random


class Backoff:
    """Waits at random, up to a time that doubles.

    Only a connection that lasted starts it anew. Two clients with one identifier, each evicting the
    other as soon as it is accepted, would not stop otherwise.
    """

    def __init__(self, least: float, most: float, source: random.Random) -> None:
        self._least = least
        self._most = most
        self._random = source
        self._ceiling = least

    def lasted(self, seconds: float) -> bool:
        """A connection was up for this long. Returns whether that is long enough."""
        stable = seconds >= self._most
        if stable:
            self._ceiling = self._least
        return stable

    def again(self) -> float:
        """Seconds to wait now, if the connection was of use though it did not last."""
        return self._random.uniform(0, self._least)

    def next(self) -> float:
        """Seconds to wait now."""
        ceiling = self._ceiling
        self._ceiling = min(ceiling * 2, self._most)
        return self._random.uniform(0, ceiling)
