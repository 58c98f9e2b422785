"""Faults on the wire: a dialer whose connections are slow, break, go dead, or garble bytes.

All of it comes from a seed and from Trio's clock, so that a run repeats.
"""

from __future__ import annotations

import math
import random
from typing import Any

import attrs
import trio

from trio_mqtt import Dialer
from trio_mqtt._errors import Denied


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value >= 0:
        raise Denied(f"{attribute.name} is not negative, and so not {value}")


def _positive(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise Denied(f"{attribute.name} is above 0, and so not {value}")


@attrs.frozen(kw_only=True)
class Faults:
    """What a connection suffers. Bytes count in both directions together, times from its begin.

    Raises:
        Denied: a number is negative, a rate or a size is 0, or a share is above 1.
    """

    latency: float = attrs.field(default=0, validator=_not_negative)
    """Seconds that each write and each read takes longer."""
    bytes_per_second: float = attrs.field(default=math.inf, validator=_positive)
    """In each direction."""
    read_size: int | None = attrs.field(default=None, validator=_positive)
    """How many bytes are read at once at most."""
    cut_after_bytes: int | None = attrs.field(default=None, validator=_not_negative)
    """How many get through before the connection breaks."""
    cut_after_seconds: float = attrs.field(default=math.inf, validator=_not_negative)
    """When the connection breaks."""
    black_hole_after_bytes: int | None = attrs.field(default=None, validator=_not_negative)
    """How many get through before the connection is half-open: it takes what is written, and
    nothing arrives on either side, until it is closed or cut."""
    black_hole_after_seconds: float = attrs.field(default=math.inf, validator=_not_negative)
    """When it is."""
    corruption: float = attrs.field(default=0, validator=_not_negative)
    """Which share of the bytes is changed, 0 to 1."""

    def __attrs_post_init__(self) -> None:
        if self.corruption > 1:
            raise Denied(f"corruption is a share, and so not {self.corruption}")


class FaultyDialer:
    """A `Dialer` whose connections have faults: for `open_client` in the place of the one it wraps.

    ::

        dialer = FaultyDialer(broker.dialer, Faults(cut_after_bytes=100))
        async with trio_mqtt.open_client(dialer) as client:
            ...
            dialer.faults = Faults()  # from the next connection on

    Arguments:
        dialer: what makes the connections.
        faults: of the connections, from the next one on. May be set at any time.
        seed: of what is corrupted.
    """

    def __init__(self, dialer: Dialer, faults: Faults | None = None, *, seed: int = 0) -> None:
        self.faults = Faults() if faults is None else faults
        self.connections = 0
        """How many were made."""
        self._dialer = dialer
        self._random = random.Random(seed)  # noqa: S311, not for secrets

    async def __call__(self) -> trio.abc.Stream:
        """A new connection.

        Raises:
            Exception: as the dialer.
        """
        stream = await self._dialer()
        self.connections += 1
        return _FaultyStream(stream, self.faults, self._random)


class _FaultyStream(trio.abc.Stream):
    def __init__(self, inner: trio.abc.Stream, faults: Faults, source: random.Random) -> None:
        self._inner = inner
        self._faults = faults
        self._random = source
        now = trio.current_time()
        self._cut_at = now + faults.cut_after_seconds
        self._hole_at = now + faults.black_hole_after_seconds
        self._bytes = 0
        self._arrived = b""
        """What was read, while it takes its time."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._take_time(len(data))
        passing = self._passing(len(data))
        await self._inner.send_all(self._garbled(bytes(data[:passing])))
        await self._check_cut()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._arrived:
            most = min(max_bytes or 65_536, self._faults.read_size or 65_536)
            with trio.CancelScope(deadline=min(self._cut_at, self._hole_at)):
                self._arrived = bytes(await self._inner.receive_some(most))
                if not self._arrived and not self._is_hole:
                    return b""
        await self._take_time(len(self._arrived))
        arrived, self._arrived = self._arrived, b""
        data = self._garbled(arrived[: self._passing(len(arrived))])
        if not data:
            await self._check_cut()
            with trio.CancelScope(deadline=self._cut_at):
                await trio.sleep_forever()
            await self._check_cut()
        return data

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _take_time(self, size: int) -> None:
        seconds = self._faults.latency + size / self._faults.bytes_per_second
        if seconds:
            await trio.sleep(seconds)

    @property
    def _is_hole(self) -> bool:
        return trio.current_time() >= self._hole_at

    def _passing(self, size: int) -> int:
        """How many of the next bytes get through."""
        faults, before = self._faults, self._bytes
        self._bytes += size
        passing = 0 if self._is_hole else size
        if (
            faults.black_hole_after_bytes is not None
            and faults.black_hole_after_bytes < self._bytes
        ):
            passing = min(passing, max(faults.black_hole_after_bytes - before, 0))
            self._hole_at = -math.inf
        if faults.cut_after_bytes is not None and faults.cut_after_bytes < self._bytes:
            passing = min(passing, max(faults.cut_after_bytes - before, 0))
            self._cut_at = -math.inf
        return passing

    async def _check_cut(self) -> None:
        if trio.current_time() >= self._cut_at:
            await trio.aclose_forcefully(self._inner)
            raise trio.BrokenResourceError("cut, says the test")

    def _garbled(self, data: bytes) -> bytes:
        share = self._faults.corruption
        if not share:
            return data
        garbled = bytearray(data)
        for index in range(len(garbled)):
            if self._random.random() < share:
                garbled[index] ^= self._random.randrange(1, 256)
        return bytes(garbled)
