"""Credentials that the broker refuses, and the secrecy of a password."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest
import trio

import trio_mqtt
from trio_mqtt import BadCredentials, ConnectionRefused, NotAuthorized

from .brokers import HOST, Broker, Mosquitto
from .clients import open_client
from .relay import open_relay

PASSWORD = "xyzzy-the-wrong-one"


@pytest.fixture(
    params=[
        pytest.param(
            ("strict_mosquitto", NotAuthorized), marks=pytest.mark.mosquitto, id="mosquitto"
        ),
        pytest.param(("rabbitmq", BadCredentials), marks=pytest.mark.rabbitmq, id="rabbitmq"),
    ]
)
def strict(request: pytest.FixtureRequest) -> tuple[Broker, type[ConnectionRefused]]:
    """A broker that asks for a password, and what it says to a wrong one."""
    fixture, refusal = request.param
    return request.getfixturevalue(fixture), refusal


def everything_said(error: BaseException, caplog: pytest.LogCaptureFixture) -> str:
    records = [f"{record.__dict__}{record.getMessage()}" for record in caplog.records]
    return "".join([*traceback.format_exception(error), repr(error), *records])


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        (f"mqtt://alice:{PASSWORD}@{HOST}", {}),
        (f"mqtt://{HOST}", {"username": "alice", "password": PASSWORD}),
        (f"mqtt://alice:s3cret@{HOST}", {"username": "mallory", "password": PASSWORD.encode()}),
    ],
    ids=["in the URL", "as arguments", "over the URL's"],
)
async def test_wrong_credentials_leave_open_client_as_the_brokers_refusal(
    strict: tuple[Broker, type[ConnectionRefused]],
    url: str,
    arguments: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, refusal = strict
    caplog.set_level(logging.DEBUG)
    with trio.fail_after(20):
        with pytest.raises(refusal) as caught:
            async with trio_mqtt.open_client(f"{url}:{broker.port}", **arguments):
                pytest.fail("entered")
    assert type(caught.value) is refusal
    said = everything_said(caught.value, caplog)
    assert PASSWORD not in said
    assert "s3cret" not in said


async def test_no_credentials_are_refused_too(
    strict: tuple[Broker, type[ConnectionRefused]],
) -> None:
    broker, _ = strict
    with trio.fail_after(20):
        with pytest.raises((NotAuthorized, BadCredentials)):
            async with trio_mqtt.open_client(f"mqtt://{HOST}:{broker.port}"):
                pytest.fail("entered")


async def test_right_credentials_stay_secret(
    strict: tuple[Broker, type[ConnectionRefused]], caplog: pytest.LogCaptureFixture
) -> None:
    broker, _ = strict
    caplog.set_level(logging.DEBUG)
    assert broker.password is not None
    with trio.fail_after(20):
        async with (
            open_relay(broker.port) as relay,
            open_client(broker.url_at(relay.port)) as client,
        ):
            with relay.refusing():  # so that it logs all that it can
                relay.cut()
                await client.wait_offline()
                with pytest.raises(trio_mqtt.Down) as caught:
                    await client.ping()
            await client.wait_online()
            said = everything_said(caught.value, caplog) + repr(client) + repr(client.messages)
    assert caplog.records
    assert broker.password not in said


@pytest.mark.mosquitto
async def test_credentials_may_be_had_anew_at_every_attempt(strict_mosquitto: Mosquitto) -> None:
    asked: list[str] = []

    async def password() -> str:
        await trio.lowlevel.checkpoint()
        asked.append("again")
        return "s3cret"

    with trio.fail_after(20):
        async with (
            open_relay(strict_mosquitto.port) as relay,
            open_client(
                f"mqtt://{HOST}:{relay.port}", username="alice", password=password
            ) as client,
        ):
            relay.cut()
            await client.wait_offline()
            await client.wait_online()
            assert len(asked) == client.statistics().connects == 2
