"""TLS on mosquitto: each mistake is told apart, within `pause_timeout`."""

from __future__ import annotations

import math
import ssl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_mqtt
from tests import certificates
from trio_mqtt import CertificateError, Down, tcp_dialer, tls_dialer

from . import brokers
from .brokers import HOST, or_skip

PAUSE = 5
"""Seconds."""


@contextmanager
def secure_mosquitto(folder: Path, *more: str, **certificate: Any) -> Generator[tuple[int, int]]:
    """Its ports, the one with TLS first."""
    issued = certificates.issue(**certificate)
    key, chain, authority = folder / "key.pem", folder / "chain.pem", folder / "authority.pem"
    issued.private_key_pem.write_to_path(key)
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    certificates.authority("ours").cert_pem.write_to_path(authority)
    port = brokers.free_port()
    listener = [f"listener {port} {HOST}", f"certfile {chain}", f"keyfile {key}"]
    with or_skip(), brokers.mosquitto(more=[*listener, *more]) as broker:
        yield port, broker.port


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[int, int]]:
    with secure_mosquitto(tmp_path, host=HOST) as ports:
        yield ports


async def enter(broker: Any, **settings: Any) -> None:
    """Opens a client, sends itself a message, and leaves."""
    with trio.fail_after(PAUSE + 10):
        async with (
            trio_mqtt.open_client(broker, pause_timeout=PAUSE, **settings) as client,
            client.open_subscription("a") as messages,
        ):
            await client.publish("a", bytes(100_000), qos=2)
            assert len((await messages.receive()).payload) == 100_000


async def fails(
    error: type[Down], match: str, broker: Any, *, within: float = PAUSE + 1, **settings: Any
) -> None:
    began = trio.current_time()
    with pytest.raises(error, match=match):
        await enter(broker, **settings)
    assert trio.current_time() - began < within


async def test_messages_travel_over_tls(secure: tuple[int, int]) -> None:
    await enter(f"mqtts://{HOST}:{secure[0]}", tls=certificates.client())


async def test_the_context_may_be_asked_for(secure: tuple[int, int]) -> None:
    async def context() -> ssl.SSLContext:
        return certificates.client()

    await enter(f"mqtts://{HOST}:{secure[0]}", tls=context)


async def test_an_authority_that_nobody_trusts(secure: tuple[int, int]) -> None:
    url = f"mqtts://{HOST}:{secure[0]}"
    untrusted = "is not to be trusted: .*unable to get local issuer certificate"
    await fails(CertificateError, untrusted, url)
    await fails(CertificateError, untrusted, url, tls=certificates.client(trusting="theirs"))
    await fails(CertificateError, untrusted, url, wait_online=False)


async def test_another_name(secure: tuple[int, int]) -> None:
    dialer = tls_dialer(tcp_dialer(HOST, secure[0]), "other.test", tls=certificates.client())
    await fails(CertificateError, "mqtts://other.test .*not valid for 'other.test'", dialer)


async def test_an_expired_certificate(tmp_path: Path) -> None:
    with secure_mosquitto(tmp_path, host=HOST, expired=True) as (port, _):
        url = f"mqtts://{HOST}:{port}"
        expired = "is not to be trusted: certificate has expired"
        await fails(CertificateError, expired, url, tls=certificates.client())


async def test_a_certificate_of_the_client(tmp_path: Path) -> None:
    wanted = ["require_certificate true", f"cafile {tmp_path / 'authority.pem'}"]
    with secure_mosquitto(tmp_path, *wanted, host=HOST) as (port, _):
        url = f"mqtts://{HOST}:{port}"
        await enter(url, tls=certificates.client(known_by="ours"))
        # Its alert is mostly lost, as it closes the connection with our CONNECT unread.
        hint = "did not accept the connection: .*it may want another client certificate"
        await fails(Down, hint, url, tls=certificates.client())
        await fails(Down, hint, url, tls=certificates.client(known_by="theirs"))


async def test_without_tls_to_a_port_with_tls(secure: tuple[int, int]) -> None:
    hint = "if it speaks TLS there, the URL is mqtts://"
    await fails(Down, hint, f"mqtt://{HOST}:{secure[0]}")


async def test_tls_to_a_port_without(secure: tuple[int, int]) -> None:
    url = f"mqtts://{HOST}:{secure[1]}"
    await fails(Down, "no TLS there, it seems", url, tls=certificates.client())


async def test_a_proxy_below_tls(secure: tuple[int, int]) -> None:
    asked: list[str] = []

    async def through_a_proxy() -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(HOST, secure[0])
        asked.append("to the broker, please")
        return stream

    await enter(tls_dialer(through_a_proxy, HOST, tls=certificates.client()))
    assert len(asked) == 1


async def test_an_endless_pause_is_fine(secure: tuple[int, int]) -> None:
    url = f"mqtts://{HOST}:{secure[0]}"
    async with trio_mqtt.open_client(
        url, tls=certificates.client(), pause_timeout=math.inf
    ) as client:
        await client.ping()
