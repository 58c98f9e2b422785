"""Several brokers, of which one is killed; and a Unix socket."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio

import trio_mqtt
from trio_mqtt import Down

from .brokers import HOST, Mosquitto
from .clients import open_client

MESSAGES = 2_000


async def test_nothing_is_lost_when_a_broker_is_killed(
    persistent_mosquitto: Mosquitto, mosquitto: Mosquitto
) -> None:
    """A consumer at each: what the publisher was told is confirmed is at one of them.

    The one that is killed comes back in the end, for its consumer to get the rest.
    """
    first, second = persistent_mosquitto, mosquitto
    got: set[int] = set()

    async def consume(
        broker: Mosquitto, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with (
            open_client(broker.url, client_id="to") as client,
            client.open_subscription("a", qos=1) as messages,
        ):
            task_status.started()
            async for message in messages:
                got.add(int(message.payload))

    async def publish(client: trio_mqtt.Client) -> None:
        for number in range(MESSAGES):
            await client.enqueue("a", f"{number}", qos=1)

    async def wait_for(count: int) -> None:
        while len(got) < count:  # noqa: ASYNC110, the consumers count
            await trio.sleep(0.001)

    with trio.fail_after(60):
        async with trio.open_nursery() as consumers:
            await consumers.start(consume, first)
            await consumers.start(consume, second)
            urls = [first.url, second.url]
            async with open_client(urls, client_id="from", at_least_once_max=100) as client:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(publish, client)
                    await wait_for(MESSAGES // 4)
                    await trio.to_thread.run_sync(first.stop)
                await client.flush()
                assert repr(client).endswith(f"of {second.url}: online>")
            assert client.statistics().unconfirmed == 0
            await trio.to_thread.run_sync(first.start)
            await wait_for(MESSAGES)
            consumers.cancel_scope.cancel()


async def test_a_unix_socket(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = trio.SocketListener(await _bound(path))

    async def relay(stream: trio.SocketStream) -> None:
        tcp = await trio.open_tcp_stream(HOST, mosquitto.port)
        async with stream, tcp, trio.open_nursery() as nursery:
            nursery.start_soon(_forward, stream, tcp, nursery.cancel_scope)
            nursery.start_soon(_forward, tcp, stream, nursery.cancel_scope)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, relay, [listener])
            async with (
                open_client(f"mqtt+unix://{path}") as client,
                client.open_subscription("a") as messages,
            ):
                await client.publish("a", "over a Unix socket", qos=2)
                assert (await messages.receive()).payload == b"over a Unix socket"
            nursery.cancel_scope.cancel()
    with pytest.raises(Down, match=rf"cannot connect to mqtt\+unix://{path}"):
        async with open_client(f"mqtt+unix://{path}"):
            pytest.fail("it was entered")


async def _bound(path: Path) -> trio.socket.SocketType:
    bound = trio.socket.socket(trio.socket.AF_UNIX)
    await bound.bind(str(path))
    bound.listen()
    return bound


async def _forward(one: trio.abc.Stream, other: trio.abc.Stream, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in one:
            await other.send_all(data)
    scope.cancel()
