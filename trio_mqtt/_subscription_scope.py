"""A subscription as a scope: entering, and what leaving does with the messages and the broker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from ._bounds import OVERFLOWS, Buffer, Overflow
from ._channels import MessageChannel, open_channel
from ._errors import Denied, InDoubt, NotSent, SubscribeError
from ._requests import Holding, UnsubscribeRequest
from ._scopes import NOT_SENT, SENT
from ._supervisor import Supervisor
from ._topics import require_topic_filter

LEAVE_MOST = 10.0
"""Seconds that leaving may wait for the broker, which cannot be cancelled, if `pause_timeout` is
longer or infinite."""


def check_filters(topic_filters: Sequence[str]) -> None:
    """Raises `Denied` unless there is one at least, and all are topic filters.

    Raises:
        TypeError: one is no `str`.
    """
    if not topic_filters:
        raise Denied("no topic filter")  # [MQTT-3.8.3-3] [MQTT-3.10.3-2]
    for topic_filter in topic_filters:
        require_topic_filter(topic_filter)


@attrs.frozen(kw_only=True)
class ScopeOptions:
    """What `Client.open_subscription` was told, checked.

    Raises:
        Denied: `overflow` is unknown.
        TypeError: an argument has another type.
    """

    keep: bool
    buffer: Buffer | None
    overflow: Overflow
    strict: bool

    def __attrs_post_init__(self) -> None:
        for what, value in (("keep", self.keep), ("strict", self.strict)):
            if not isinstance(value, bool):
                raise TypeError(f"{what} is a bool, not {value!r}")
        if self.buffer is not None and not isinstance(self.buffer, Buffer):
            raise TypeError(f"a buffer is a Buffer, not {type(self.buffer).__name__}")
        if self.overflow not in OVERFLOWS:
            raise Denied(f"overflow is one of {', '.join(OVERFLOWS)}, not {self.overflow!r}")


@asynccontextmanager
async def subscription_scope(
    supervisor: Supervisor, holding: Holding, options: ScopeOptions
) -> AsyncGenerator[MessageChannel, None]:
    """See `Client.open_subscription`."""
    with NOT_SENT:
        await trio.lowlevel.checkpoint_if_cancelled()
    supervisor.check_open()
    supervisor.session.require_request_room(holding.topic_filters)
    router = supervisor.router
    inbox = router.open(holding, options.buffer, options.overflow, strict=options.strict)
    channel = open_channel(router, inbox, supervisor.bells)
    try:
        await _enter(supervisor, holding)
    except BaseException:
        channel.end_scope(failed=True)
        router.close(holding, failed=True, unsubscribe=not options.keep)
        raise
    try:
        yield channel
    except BaseException:
        channel.end_scope(failed=True)
        keeps_session = supervisor.settings.keep_session
        _close(supervisor, holding, options, failed=True, unsubscribe=not keeps_session)
        raise
    channel.end_scope(failed=False)
    await _wait_left(
        supervisor, _close(supervisor, holding, options, failed=False, unsubscribe=True)
    )


async def _enter(supervisor: Supervisor, holding: Holding) -> None:
    """Waits for the broker to answer for each filter.

    Raises:
        SubscribeError: it failed some of them.
        ClosedInDoubt: the client was closed.
    """
    answer = supervisor.answers.expect(holding)
    try:
        await answer.wait_settled()
    except trio.Cancelled:
        with SENT if supervisor.session.subscriptions.was_asked(holding) else NOT_SENT:
            raise
    finally:
        supervisor.answers.forget(holding)
    if holding.failed:
        in_order = [name for name in holding.topic_filters if name in holding.failed]
        raise SubscribeError(tuple(in_order))


def _close(
    supervisor: Supervisor,
    holding: Holding,
    options: ScopeOptions,
    *,
    failed: bool,
    unsubscribe: bool,
) -> list[UnsubscribeRequest]:
    """Ends the scope, and returns what is sent for it."""
    if options.keep or supervisor.is_ending:
        supervisor.session.subscriptions.keep(holding)
    return supervisor.router.close(holding, failed=failed, unsubscribe=unsubscribe)


async def _wait_left(supervisor: Supervisor, requests: Sequence[UnsubscribeRequest]) -> None:
    """Waits for the broker's answers, as long as the connection lasts, and not for long."""
    answers = [supervisor.answers.expect(request) for request in requests]
    try:
        with trio.move_on_after(min(supervisor.settings.pause_timeout, LEAVE_MOST)) as scope:
            scope.shield = True
            for answer in answers:
                try:
                    await answer.wait_settled()
                except (InDoubt, NotSent):
                    break  # it is owed on the next connection
    finally:
        for request in requests:
            supervisor.answers.forget(request)
