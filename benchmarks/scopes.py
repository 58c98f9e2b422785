"""What a message costs to receive, by the number of subscription scopes that are open.

``python -m benchmarks.scopes``. One scope gets the messages, of 64 bytes; the others have
filters of their own and wait. The other end sends bytes prepared in advance, from a process of its
own, and reads what it gets in a thread. Each number is of a client in a new process; they take
turns.
"""

from __future__ import annotations

import multiprocessing
import socket
import statistics
import threading
import time
from multiprocessing.connection import Connection

import trio

import trio_mqtt
from trio_mqtt import _packets as p
from trio_mqtt._codec311 import encode
from trio_mqtt.testing._server311 import server_decoder

SCOPES = (1, 10, 1_000, 10_000)
REFERENCE = 10
ROUNDS = 5
COUNT = 100_000
BLOCK = 1_000
TOPIC = "bench/topic"
LEVELS: tuple[p.QoS, ...] = (0, 1)


def serve(pipe: Connection, qos: p.QoS, scopes: int) -> None:
    """Waits for the subscriptions, and then sends all messages."""
    message = p.Message(TOPIC, b"x" * 64, qos)
    if qos == 0:
        blocks = [encode(message) * BLOCK]
    else:
        starts = range(1, 60_000, BLOCK)  # no identifier is used again before its answer
        blocks = [
            b"".join(encode(p.Delivery(message, start + i)) for i in range(BLOCK))
            for start in starts
        ]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        connection, _ = listener.accept()
    decoder = server_decoder()
    connection.recv(1_000)
    connection.sendall(encode(p.ConnAck(session_present=False, return_code=0)))
    subscribed = 0
    while subscribed < scopes:
        for packet in decoder.feed(connection.recv(65_536)):
            if isinstance(packet, p.Subscribe):
                subscribed += len(packet.requests)
                codes = (qos,) * len(packet.requests)
                connection.sendall(encode(p.SubAck(packet.packet_id, codes)))
    threading.Thread(target=drain, args=(connection,), daemon=True).start()
    for number in range(COUNT // BLOCK):
        connection.sendall(blocks[number % len(blocks)])
    pipe.recv()  # the client is done


def drain(connection: socket.socket) -> None:
    """Reads what is sent, for ever."""
    while connection.recv(1 << 20):
        pass


async def receive(port: int, scopes: int) -> float:
    """Receives all messages. Returns how many microseconds one took."""
    async with (
        trio_mqtt.open_client(f"mqtt://127.0.0.1:{port}") as client,
        trio.open_nursery() as nursery,
    ):
        for number in range(scopes - 1):
            nursery.start_soon(wait_in_scope, client, f"other/{number}/+")
        async with client.open_subscription(TOPIC) as messages:
            await messages.receive()
            began = time.perf_counter()
            for _ in range(COUNT - 1):
                await messages.receive()
            seconds = time.perf_counter() - began
            await client.aclose()
        nursery.cancel_scope.cancel()
    return seconds / COUNT * 1e6


async def wait_in_scope(client: trio_mqtt.Client, topic_filter: str) -> None:
    """One of the others."""
    async with client.open_subscription(topic_filter):
        await trio.sleep_forever()


def run_client(pipe: Connection, port: int, scopes: int) -> None:
    """One measurement, in this process."""
    pipe.send(trio.run(receive, port, scopes))


def measure(qos: p.QoS, scopes: int) -> float:
    """Microseconds for each message."""
    context = multiprocessing.get_context("spawn")
    ours, peers = context.Pipe()
    result, clients = context.Pipe()
    peer = context.Process(target=serve, args=(peers, qos, scopes), daemon=True)
    peer.start()
    client = context.Process(target=run_client, args=(clients, ours.recv(), scopes), daemon=True)
    client.start()
    microseconds: float = result.recv()
    ours.send(None)
    for process in (client, peer):
        process.join(10)
        process.kill()
    return microseconds


def main() -> None:
    """Measures, and prints a table."""
    found: dict[tuple[p.QoS, int], list[float]] = {
        (qos, scopes): [] for qos in LEVELS for scopes in SCOPES
    }
    for _ in range(ROUNDS):
        for (qos, scopes), samples in found.items():
            samples.append(measure(qos, scopes))
    print(f"microseconds for each message of 64 bytes, medians of {ROUNDS} (least to most)")
    for qos in LEVELS:
        reference = statistics.median(found[qos, REFERENCE])
        for scopes in SCOPES:
            samples = found[qos, scopes]
            median = statistics.median(samples)
            spread = f"({min(samples):.2f} to {max(samples):.2f})"
            print(
                f"QoS {qos}, {scopes:6,} scopes: {median:5.2f} {spread}, {median / reference:.2f}"
            )


if __name__ == "__main__":
    main()
