"""`Client`: what an application calls."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal

import trio

from . import _packets as p
from ._answers import client_closed, in_part
from ._bounds import Buffer, Overflow
from ._channels import CHECKPOINT_EVERY, MessageChannel, open_channel
from ._checks import Checks
from ._connection import SEND_BUFFER
from ._errors import ClientClosed, Down, NotSent, PendingLimit, SubscribeError
from ._exchange import Exchange
from ._outbox import Outbox
from ._remainder import Remainder
from ._requests import Holding, Ping, SubscribeRequest, Transfer, UnsubscribeRequest
from ._scopes import NOT_SENT, SENT
from ._statistics import Statistics, take_statistics
from ._subscription_scope import ScopeOptions, check_filters, subscription_scope
from ._supervisor import Supervisor

DISCONNECT_MOST = 10.0
"""Seconds that an end by DISCONNECT may take, which cannot be cancelled, if `pause_timeout` is
longer or infinite."""
LOOKS = 20
"""How often in `pause_timeout` `aclose` looks whether what it waits for gets on: that takes time in
proportion to what is left."""


class Client:
    """An MQTT client, as yielded by `open_client`. Any task may call it, at any time.

    Calls that ask something of the broker or wait for it raise `ClientClosed` once the client was
    closed; `messages` ends then, and `online`, `statistics` and `aclose` go on to work.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._session = supervisor.session
        router = supervisor.router
        self._messages = open_channel(router, router.unclaimed.inbox, supervisor.bells)
        self._scopes: set[MessageChannel] = set()
        self._pinging = trio.Lock()
        self._published = 0
        self._was_cut_short = False
        """Whether `aclose` ended it."""
        self._checks = Checks(supervisor.settings.limits)
        self._queued = supervisor.bells.writer.set
        """Tells the writer that something is in the outbox."""

    def __repr__(self) -> str:
        supervisor = self._supervisor
        state = "closed" if supervisor.closed else "online" if self.online else "offline"
        name = supervisor.connector.broker.name
        return f"<Client {supervisor.settings.client_id!r} of {name}: {state}>"

    # Publishing

    async def publish(
        self, topic: str, payload: p.Payload, *, qos: p.QoS = 0, retain: bool = False
    ) -> None:
        """Publishes a message.

        At QoS 0 it is handed to the connection, which waits for room in a buffer that is bounded,
        checks for cancellation always, and yields to other tasks every 64th time only. At QoS 1 and
        2 the message is accepted, also while offline, and then the broker's confirmation awaited.

        Cancelled while it waits for room, at any QoS, nothing happened. Cancelled while it awaits
        the confirmation, the message is still delivered.

        Raises:
            Denied: the topic, the QoS or the size is illegal, or that QoS was disabled.
            TypeError: an argument has another type.
            Down: at QoS 0, there is no connection after a failed attempt.
            PersistenceError: a durable session could not store it, and it is not accepted.
            ClientClosed: the client was closed.
            ClosedInDoubt: at QoS 1 and 2, the client ended before the confirmation.
        """
        data = self._checks.publish(topic, payload, qos, retain=retain)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled as cancelled:
            NOT_SENT.note(cancelled)
            raise
        if qos:
            exchange = self._accept_at_once(topic, data, qos, retain=retain)
            if exchange is None:
                exchange = await self._accept_later(topic, data, qos, retain=retain)
            try:
                await exchange.wait_settled()
            except trio.Cancelled as cancelled:
                SENT.note(cancelled)
                raise
            return
        supervisor = self._supervisor
        if supervisor.is_ending or not supervisor.has_space:
            with NOT_SENT:
                supervisor.check_open()
                await supervisor.wait_for_space(lambda: self._hand_over(topic, data, retain=retain))
            return
        self._session.publish_at_most_once(topic, data, retain=retain)
        self._queued()
        self._published += 1
        if self._published % CHECKPOINT_EVERY == 0:  # when it is too late for cancellation
            await trio.lowlevel.cancel_shielded_checkpoint()

    def publish_nowait(self, topic: str, payload: p.Payload, *, retain: bool = False) -> None:
        """Hands a message to the connection at QoS 0, or raises.

        Raises:
            Denied: the topic or the size is illegal.
            TypeError: an argument has another type.
            ClientClosed: the client was closed.
            Down: there is no connection.
            PendingLimit: its buffer is full.
        """
        data = self._checks.publish(topic, payload, 0, retain=retain)
        self._supervisor.check_open()
        if self._supervisor.connection is None:
            raise Down("offline")
        if not self._supervisor.has_space:
            raise PendingLimit(f"{SEND_BUFFER} bytes wait for the network")
        self._hand_over(topic, data, retain=retain)

    def _hand_over(self, topic: str, data: bytes, *, retain: bool) -> None:
        self._session.publish_at_most_once(topic, data, retain=retain)
        self._queued()

    async def enqueue(
        self, topic: str, payload: p.Payload, *, qos: Literal[1, 2] = 1, retain: bool = False
    ) -> Exchange:
        """Accepts a message at QoS 1 or 2, also while offline, for a transfer with endless retries.

        Waits for room, in the order of the calls, where as many as the client was told to accept
        are unconfirmed. It checks for cancellation always, and where there is room it yields to
        other tasks every 64th time only. Cancelled there, nothing happened.

        On a durable session it returns once the message is stored. Cancelled during that, the
        message is still delivered, if it could be stored.

        Raises:
            Denied: the topic, the QoS or the size is illegal, or that QoS was disabled.
            TypeError: an argument has another type.
            PersistenceError: a durable session could not store it, and it is not accepted.
            ClientClosed: the client was closed.
            ClosedInDoubt: the client ended while the message was being stored.
        """
        data = self._checks.enqueue(topic, payload, qos, retain=retain)
        with NOT_SENT:
            await trio.lowlevel.checkpoint_if_cancelled()
        exchange = self._accept_at_once(topic, data, qos, retain=retain)
        if exchange is None:
            exchange = await self._accept_later(topic, data, qos, retain=retain)
        if exchange.accepted:
            self._published += 1
            if self._published % CHECKPOINT_EVERY == 0:  # when it is too late for cancellation
                await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            with SENT:
                await exchange.wait_accepted()
        return exchange

    def enqueue_nowait(
        self, topic: str, payload: p.Payload, *, qos: Literal[1, 2] = 1, retain: bool = False
    ) -> Exchange:
        """As `enqueue`, without waiting for room, nor for a durable session to store the message.

        `Exchange.wait_accepted` waits for that.

        Raises:
            Denied: the topic, the QoS or the size is illegal, or that QoS was disabled.
            TypeError: an argument has another type.
            ClientClosed: the client was closed.
            PendingLimit: too many messages are unconfirmed.
        """
        data = self._checks.enqueue(topic, payload, qos, retain=retain)
        exchange = self._accept_at_once(topic, data, qos, retain=retain)
        if exchange is None:
            raise PendingLimit(f"too many messages at QoS {qos} are unconfirmed")
        return exchange

    def _accept_at_once(
        self, topic: str, data: bytes, qos: Literal[1, 2], *, retain: bool
    ) -> Exchange | None:
        """Accepts a message where there is room."""
        self._supervisor.check_open()
        if self._supervisor.answers.has_room(qos):
            return self._accept(topic, data, qos, retain=retain)
        return None

    async def _accept_later(
        self, topic: str, data: bytes, qos: Literal[1, 2], *, retain: bool
    ) -> Exchange:
        """Waits for room, and accepts a message there."""
        with NOT_SENT:
            return await self._supervisor.answers.wait_for_room(
                qos, lambda: self._accept(topic, data, qos, retain=retain)
            )

    def _accept(self, topic: str, data: bytes, qos: Literal[1, 2], *, retain: bool) -> Exchange:
        transfer = self._session.publish(topic, data, qos, retain=retain)
        return self._supervisor.answers.follow(transfer)

    async def clear_retained(self, topic: str) -> None:
        """Makes the broker forget the message it retains for `topic`, by an empty one at QoS 1.

        Raises:
            Denied, TypeError, PersistenceError, ClientClosed, ClosedInDoubt: as `publish` at QoS 1.
        """
        await self.publish(topic, b"", qos=1, retain=True)  # [MQTT-3.3.1-10]

    async def flush(self) -> None:
        """Waits until all that was accepted so far is written to the transport.

        While offline it waits for a connection. What is written may still be lost with the
        connection: at QoS 1 and 2 it is the broker's confirmation that counts. Cancelled, it leaves
        everything as it is.

        Raises:
            ClientClosed: the client was closed.
        """
        supervisor, session = self._supervisor, self._session
        unsent = deque[Transfer](session.waiting())
        outbox: Outbox | None = None
        target = 0
        await trio.lowlevel.checkpoint()
        while True:
            supervisor.check_open()
            before = len(unsent)
            while unsent and not unsent[0].is_waiting:  # so that none is looked at twice
                unsent.popleft()
            if outbox is not session.outbox or len(unsent) < before:
                outbox = session.outbox
                target = 0 if outbox is None else outbox.queued
            if supervisor.connection is None or outbox is None:
                await supervisor.wait_changed()
            elif unsent or outbox.written < target:
                await supervisor.wait_progress()
            else:
                return

    # Subscribing

    async def subscribe(self, *topic_filters: str, qos: p.QoS = 2) -> tuple[p.QoS, ...]:
        """Subscribes, and returns the QoS granted for each filter.

        What arrives is in `messages`, unless an open scope matches it. When the broker loses the
        session the client subscribes again by itself. Cancelled before the request is sent, nothing
        happened; afterwards the request is abandoned, and counts if the broker grants it.

        Raises:
            SubscribeError: the broker failed some of the filters.
            Denied: a filter is malformed, or there is none.
            TypeError: one is no `str`.
            Down: there is no connection after a failed attempt.
            PendingLimit: more than 16,384 requests await their answer.
            ClientClosed: the client was closed before it was sent.
            SubmitInterrupted, ResponseLost: the connection was lost in the middle of it.
            ClosedInDoubt: the client was closed in the middle of it.
        """
        check_filters(topic_filters)
        p.require_qos(qos)
        await self._ready_for(topic_filters)
        requests = [
            self._session.subscribe([(topic_filter, qos) for topic_filter in some])
            for some in p.in_packets(topic_filters)
        ]
        await self._answers(requests)
        return_codes = [code for request in requests for code in request.return_codes]
        failed = [
            topic_filter
            for topic_filter, code in zip(topic_filters, return_codes, strict=True)
            if code == p.FAILED
        ]
        if failed:
            raise SubscribeError(tuple(failed))
        self._supervisor.router.unclaimed.adopt(topic_filters)
        return tuple(p.QOS_LEVELS[code] for code in return_codes)

    async def unsubscribe(self, *topic_filters: str) -> None:
        """Ends what `subscribe` began. What is on its way until the broker answers is discarded.

        A filter that an open subscription scope has too stays subscribed for that one.

        Cancelled before the request is sent, nothing happened; afterwards it is abandoned.

        Raises:
            Denied: a filter is malformed, or there is none.
            TypeError: one is no `str`.
            Down: there is no connection after a failed attempt.
            PendingLimit: more than 16,384 requests await their answer.
            ClientClosed: the client was closed before it was sent.
            SubmitInterrupted, ResponseLost: the connection was lost in the middle of it.
            ClosedInDoubt: the client was closed in the middle of it.
        """
        check_filters(topic_filters)
        await self._ready_for(topic_filters)
        await self._answers(self._session.unsubscribe(topic_filters))

    async def _ready_for(self, topic_filters: Sequence[str]) -> None:
        """Waits until there is a connection for a request about these."""
        with NOT_SENT:
            await self._supervisor.ready()
        self._session.require_request_room(topic_filters)

    async def _answers(
        self, requests: Sequence[SubscribeRequest | UnsubscribeRequest | Ping]
    ) -> None:
        answers = [self._supervisor.answers.expect(request) for request in requests]
        if not answers:
            await trio.lowlevel.cancel_shielded_checkpoint()  # there is nothing to interrupt
        try:
            with SENT:
                for number, answer in enumerate(answers):
                    try:
                        await answer.wait_settled()
                    except NotSent as error:
                        if number:  # the others were answered
                            raise in_part(error) from error.__cause__
                        raise
        finally:
            for request in requests:
                self._supervisor.answers.forget(request)

    @property
    def messages(self) -> MessageChannel:
        """The messages that no open subscription scope matches: those that `subscribe` asked for.

        Also what an earlier run's subscriptions bring, and what a scope leaves behind that fails,
        until a scope is opened which matches it, and not for longer than `unclaimed_wait`.
        """
        return self._messages

    @asynccontextmanager
    async def open_subscription(
        self,
        *topic_filters: str,
        qos: p.QoS = 2,
        keep: bool = False,
        buffer: Buffer | None = None,
        overflow: Overflow = "wait",
        strict: bool = False,
    ) -> AsyncGenerator[MessageChannel, None]:
        """A subscription as a scope: what matches arrives in its channel, while its body runs.

        ::

            async with client.open_subscription("bedroom/#") as messages:
                async for message in messages:
                    ...

        The channel ends with the scope, so that a nursery whose tasks receive stands inside of it.
        Entering waits for the broker's answer, on whichever connection it comes. Several scopes may
        have the same filter, or overlap: each gets each message once. The broker is asked for the
        highest QoS that any of them wants. A shared subscription, ``$share/group/filter``, gets the
        messages of its inner filter.

        Leaving without an exception acknowledges the last message, and the broker unsubscribes
        where nobody else holds the filter: what nobody took is acknowledged too and discarded.
        While offline that is owed. It waits for the broker's answer for `pause_timeout` or 10
        seconds at most, which cannot be cancelled. Leaving by an exception leaves the message that
        was not finished, and those that were not taken, in their place: to the next scope that
        matches, or to whichever is opened within `unclaimed_wait`. The broker then goes on to
        collect, unless it keeps no session.

        When the broker loses the session, the filters are asked for again.

        Arguments:
            topic_filters: at least one.
            qos: the highest at which messages may arrive.
            keep: not to unsubscribe on leaving, so that the broker goes on to collect for the next
                run; in this one it is then as if `subscribe` had asked for these filters.
            buffer: how much may wait, instead of that of the client.
            overflow: what happens when that is full. "wait" has the client stop reading, as far as
                `MessageChannel` says. "drop_oldest" and "drop_newest" instead give up messages at
                QoS 0.
            strict: whether `receive` raises `MessagesMissed` where the broker lost the session, or
                messages at QoS 0 were given up. Otherwise they are merely counted.

        Cancelled while it enters, nothing is left behind, and where something was sent already the
        broker is told to unsubscribe.

        Raises:
            SubscribeError: the broker failed some of the filters. Nothing is left of the others,
                unless they are to be kept.
            Denied: a filter is malformed, there is none, or an argument is illegal.
            TypeError: an argument has another type.
            PendingLimit: more than 16,384 requests await their answer.
            ClientClosed, ClosedInDoubt: the client was closed, before or while it entered.
        """
        check_filters(topic_filters)
        p.require_qos(qos)
        options = ScopeOptions(keep=keep, buffer=buffer, overflow=overflow, strict=strict)
        async with subscription_scope(
            self._supervisor, Holding(tuple(dict.fromkeys(topic_filters)), qos), options
        ) as channel:
            self._scopes.add(channel)
            try:
                yield channel
            finally:
                self._scopes.discard(channel)

    # The connection

    async def ping(self) -> float:
        """Makes a round trip to the broker, and returns how long it took, in seconds.

        One at a time: others wait their turn. Cancelled before PINGREQ is sent, nothing happened.

        Raises:
            Down: there is no connection after a failed attempt.
            ClientClosed: the client was closed before it was sent.
            SubmitInterrupted, ResponseLost: the connection was lost in the middle of it.
            ClosedInDoubt: the client was closed in the middle of it.
        """
        with NOT_SENT:
            await self._pinging.acquire()
        try:
            with NOT_SENT:
                await self._supervisor.ready()
            began = trio.current_time()
            await self._answers([self._session.ping()])
            return trio.current_time() - began
        finally:
            self._pinging.release()

    @property
    def online(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._supervisor.connection is not None

    async def wait_online(self) -> None:
        """Waits until there is a connection, which may be for ever.

        Raises:
            ClientClosed: the client was closed.
        """
        await self._supervisor.wait_until(online=True)

    async def wait_offline(self) -> None:
        """Waits until there is no connection, be it that the client was closed."""
        await self._supervisor.wait_until(online=False)

    @property
    def session_present(self) -> bool:
        """Whether the broker had kept the session at the latest connect."""
        return self._supervisor.session_present

    async def disconnect(self, *, discard: bool = False) -> None:
        """Ends the client as leaving ``async with`` does: the broker discards the Will.

        First it waits for unconfirmed messages and unwritten bytes, as long as there is progress
        within `pause_timeout`; that can be cancelled, and then the client is still open. What
        follows cannot, acknowledges the message that the calling task has, and takes at most
        `pause_timeout` or 10 seconds, with `discard` twice as long.

        Arguments:
            discard: also deletes the session at the broker, over a connection of its own.

        Raises:
            ClientClosed: it was closed before, or by `aclose` meanwhile.
            Down, ConnectionRefused: with `discard`, that connection could not be made. The client
                is closed all the same.
        """
        self._supervisor.check_open()
        with NOT_SENT:
            await trio.lowlevel.checkpoint_if_cancelled()
        await self._disconnect(discard=discard)

    async def leave(self) -> None:
        """The body of ``async with`` ended. For `open_client` alone to call."""
        with suppress(ClientClosed):  # another task closes it meanwhile
            await self._disconnect()

    async def _disconnect(self, *, discard: bool = False) -> None:
        supervisor = self._supervisor
        with NOT_SENT:
            await self._drain()
        if self._was_cut_short:
            raise client_closed()
        for channel in (self.messages, *self._scopes):
            channel.acknowledge_own()
        most = min(supervisor.settings.pause_timeout, DISCONNECT_MOST)
        with trio.CancelScope(shield=True):
            supervisor.disconnect()
            with trio.move_on_after(most):
                await supervisor.wait_closed()
            await self._close()
            if discard:
                with trio.move_on_after(most) as scope:
                    await supervisor.connector.discard()
                if scope.cancelled_caught:
                    raise Down(f"the session could not be discarded within {most} s")

    async def aclose(self) -> None:
        """Ends the client at once, without DISCONNECT: the broker publishes the Will.

        Unconfirmed exchanges raise `ClosedInDoubt`. Closing a client that is closed does nothing.
        """
        self._was_cut_short |= not self._supervisor.is_ending
        await self._close()
        await trio.lowlevel.checkpoint()

    async def _close(self) -> None:
        """Takes no time, unless a dialer of the application shields itself from cancellation."""
        self._supervisor.close()
        with trio.move_on_after(DISCONNECT_MOST) as scope:
            scope.shield = True
            await self._supervisor.wait_closed()
        self._supervisor.end()

    async def _drain(self) -> None:
        """Waits for what was accepted so far, as long as it gets on."""
        supervisor, remainder = self._supervisor, Remainder(self._session)
        progress, looks = remainder.progress(), 0
        while not (remainder.is_done or supervisor.is_ending) and looks < LOOKS:
            with trio.move_on_after(supervisor.settings.pause_timeout / LOOKS):
                while not (remainder.is_done or supervisor.is_ending):
                    await supervisor.wait_progress()
            before, progress = progress, remainder.progress()
            looks = looks + 1 if progress == before else 0

    def statistics(self) -> Statistics:
        """A snapshot of the counters."""
        return take_statistics(self._supervisor)
