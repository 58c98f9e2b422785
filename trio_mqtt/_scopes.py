"""Cancel scopes that say what they interrupted: `move_on_after`, `fail_after` and their kin.

How it works. A request of the client that is cancelled notes on the `Cancelled`, as it passes,
whether anything had been sent. The scope reads these notes from all that reaches its end: the
exception, what is in its groups, and what it replaced (`__context__`), as a clean-up in the body
may have been cancelled in its turn. `trio.CancelScope` is final, so these wrap one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, cast

import trio

from ._errors import RequestAbandoned, RequestCanceled

_NOTE = "_trio_mqtt_request_was_sent"


class Noting:
    """Surrounds a part of a request. Whether anything is sent by then is noted if it is cancelled.

    Without state, so that two are enough: see `NOT_SENT` and `SENT`.
    """

    def __init__(self, *, sent: bool) -> None:
        self._sent = sent

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None and isinstance(error, trio.Cancelled):
            self.note(error)

    def note(self, error: trio.Cancelled) -> None:
        """Notes it, unless what is within has: for where even a `with` would cost too much."""
        if _noted(error) is None:
            setattr(error, _NOTE, self._sent)


NOT_SENT = Noting(sent=False)
SENT = Noting(sent=True)


def _noted(error: BaseException) -> bool | None:
    """Whether the request was sent that this interrupted; None where it was none."""
    note: Any = getattr(error, _NOTE, None)
    return note if isinstance(note, bool) else None


def _all(error: BaseException | None, before: BaseException | None) -> Iterator[BaseException]:
    """The exception, those in its groups, and those that it replaced, but for what was before."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or one is before or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting.append(one.__context__)
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(cast("BaseExceptionGroup[BaseException]", one).exceptions)


class RequestScope:
    """A `trio.CancelScope` that knows what became of the request that it interrupted.

    It has all that a `trio.CancelScope` has. It also tells of a request that an outer scope
    interrupted, once it is left.
    """

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        self._before: BaseException | None = None
        self._sent: bool | None = None

    def __repr__(self) -> str:
        verdict = "abandoned" if self.abandoned else "canceled" if self.canceled else "no request"
        return f"<RequestScope: {verdict} interrupted, {self._scope!r}>"

    @property
    def canceled(self) -> bool:
        """Whether a request was interrupted before anything of it was sent or accepted.

        It is safe to issue it again.
        """
        return self._sent is False

    @property
    def abandoned(self) -> bool:
        """Whether a request was interrupted after it was sent, so that its outcome is unknown.

        A message at QoS 1 or 2 that was accepted is still delivered. With several requests in the
        scope, one that was abandoned decides.
        """
        return self._sent is True

    def __enter__(self) -> Self:
        self._before = sys.exception()
        self._scope.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        notes = {_noted(one) for one in _all(error, self._before)} - {None}
        self._before = None
        if notes:
            self._sent = True in notes
        return self._scope.__exit__(exc_type, error, traceback)

    # As a trio.CancelScope

    def cancel(self, reason: str | None = None) -> None:
        """Cancels the scope at once.

        Arguments:
            reason: what the `trio.Cancelled` says, where Trio knows reasons: from 0.31 on.
        """
        if reason is None:
            self._scope.cancel()
        else:
            self._scope.cancel(reason)

    @property
    def cancel_called(self) -> bool:
        """Whether it was cancelled, or its deadline passed."""
        return self._scope.cancel_called

    @property
    def cancelled_caught(self) -> bool:
        """Whether it caught a `Cancelled` of its own."""
        return self._scope.cancelled_caught

    @property
    def deadline(self) -> float:
        """When it is cancelled, in Trio's time. May be set."""
        return self._scope.deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._scope.deadline = deadline

    @property
    def relative_deadline(self) -> float:
        """Seconds from entering to the deadline, before it is entered. May be set."""
        return self._scope.relative_deadline

    @relative_deadline.setter
    def relative_deadline(self, seconds: float) -> None:
        self._scope.relative_deadline = seconds

    @property
    def is_relative(self) -> bool | None:
        """Whether the deadline is one from entering on; None once that was."""
        return self._scope.is_relative

    @property
    def shield(self) -> bool:
        """Whether it keeps off the cancellation of outer scopes. May be set."""
        return self._scope.shield

    @shield.setter
    def shield(self, shield: bool) -> None:
        self._scope.shield = shield


class FailingScope(RequestScope):
    """A `RequestScope` that raises once it has caught its own cancellation."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        caught = super().__exit__(exc_type, error, traceback)
        if self.cancelled_caught:
            if self.abandoned:
                raise RequestAbandoned("the request was sent, and its answer did not come in time")
            if self.canceled:
                raise RequestCanceled("the request could not be sent in time")
            raise trio.TooSlowError
        return caught


def move_on_after(seconds: float, *, shield: bool = False) -> RequestScope:
    """As `trio.move_on_after`, with a verdict on the request that it interrupts::

        with trio_mqtt.move_on_after(5) as scope:
            await client.subscribe("demo/+")
        scope.canceled    # not sent
        scope.abandoned   # sent, and the broker's answer is unknown

    Waits, as `MessageChannel.receive`, `Client.wait_online` and `Client.flush`, are no requests.

    Raises:
        ValueError: `seconds` is negative or not a number.
    """
    return RequestScope(trio.move_on_after(seconds, shield=shield))


def move_on_at(deadline: float, *, shield: bool = False) -> RequestScope:
    """As `trio.move_on_at`, with a verdict: see `move_on_after`.

    Raises:
        ValueError: `deadline` is not a number.
    """
    return RequestScope(trio.move_on_at(deadline, shield=shield))


def fail_after(seconds: float, *, shield: bool = False) -> FailingScope:
    """As `trio.fail_after`, with a verdict on the request that it interrupts.

    Raises:
        ValueError: `seconds` is negative or not a number.
        RequestCanceled: on leaving, too late: nothing of the request was sent.
        RequestAbandoned: on leaving, too late: it was sent, and its outcome is unknown.
        trio.TooSlowError: on leaving, too late: no request was interrupted. The other two are
            also `trio.TooSlowError`.
    """
    return FailingScope(trio.move_on_after(seconds, shield=shield))


def fail_at(deadline: float, *, shield: bool = False) -> FailingScope:
    """As `trio.fail_at`, with a verdict: see `fail_after`.

    Raises:
        ValueError: `deadline` is not a number.
        RequestCanceled, RequestAbandoned, trio.TooSlowError: as `fail_after`.
    """
    return FailingScope(trio.move_on_at(deadline, shield=shield))
