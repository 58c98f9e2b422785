"""From the options of a command to its client."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import trio

from trio_mqtt import Client, Dialer, Session, Will, open_client
from trio_mqtt._transport import Address, resolve_broker

from ._failures import Failure, Misuse
from ._options import BROKER_VARIABLE, DEFAULT_BROKER, PASSWORD_VARIABLE
from ._output import say
from ._tls import require_tls, tls_context
from ._trace import tracer
from ._wire import Wire


def client_from(
    arguments: argparse.Namespace, *, session: Session | None = None, wait_online: bool = True
) -> AbstractAsyncContextManager[Client]:
    """The client that the options describe, to be opened.

    Raises:
        Denied, Misuse: an option is wrong.
        Failure: a file cannot be read.
    """
    url = broker_url(arguments)
    context = tls_context(arguments)
    require_tls(arguments, url)
    address = resolve_broker(url, context, server_hostname=arguments.server_name)
    username, password = credentials(arguments, address)
    broker: str | Dialer = url
    if arguments.trace:
        broker = Wire(address.dial, address.name, tracer()).dialer
    elif arguments.server_name is not None:
        broker = _named(address)
    return open_client(
        broker,
        session=session,
        client_id=None if session is not None else arguments.client_id,
        clean_session=arguments.clean_session,
        username=username,
        password=password,
        tls=context if broker is url else None,
        will=_will(arguments),
        keep_alive=arguments.keep_alive,
        pause_timeout=arguments.timeout,
        wait_online=wait_online,
    )


def _named(address: Address) -> Dialer:
    async def dial() -> trio.abc.Stream:
        return await address.dial()

    # By this name the client calls its broker in messages.
    dial.__qualname__ = address.name
    return dial


def broker_url(arguments: argparse.Namespace) -> str:
    """That of the option, else of the environment, else of this machine.

    Raises:
        Misuse: the option has a password in it.
    """
    given: str | None = arguments.broker
    if given is None:
        return os.environ.get(BROKER_VARIABLE) or DEFAULT_BROKER
    require_no_password(given)
    return given


def require_no_password(url: str) -> None:
    """Looks at a URL that was an argument.

    Raises:
        Misuse: it has a password in it.
    """
    try:
        has_one = urlsplit(url).password is not None
    except ValueError:  # a malformed one is `resolve_broker`'s to tell
        return
    if has_one:
        raise Misuse(
            "everybody on this machine can see a password in an argument: instead of in --broker, "
            f"have it in the environment's {PASSWORD_VARIABLE}, or in a file, by --password-file"
        )


def credentials(
    arguments: argparse.Namespace, address: Address
) -> tuple[str | None, str | bytes | None]:
    """User name and password: of the options, else of the environment, else of the URL.

    Raises:
        Failure: the password's file cannot be read.
    """
    username: str | None = arguments.username or address.username
    password: str | bytes | None = _read_password(arguments.password_file)
    if password is None and username is not None:
        # For nobody in particular it may be that of another broker.
        password = os.environ.get(PASSWORD_VARIABLE)
    return username, address.password if password is None else password


def _read_password(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        # At once, before anything else runs: it may be a pipe, of a password manager.
        content = Path(path).read_bytes()
    except OSError as error:
        raise Failure(f"cannot read the password from {path}: {error.strerror}") from error
    return content.split(b"\n", 1)[0].removesuffix(b"\r")


def _will(arguments: argparse.Namespace) -> Will | None:
    topic: str | None = arguments.will_topic
    if topic is not None:
        return Will(
            topic,
            arguments.will_message or "",
            qos=arguments.will_qos or 0,
            retain=arguments.will_retain,
        )
    if arguments.will_message is not None or arguments.will_qos or arguments.will_retain:
        raise Misuse("a will needs a topic: give --will-topic")
    return None


@contextmanager
def log_on_stderr(
    arguments: argparse.Namespace, *, least: int = logging.WARNING
) -> Generator[None]:
    """Shows what the client logs, from `least` on, as far as the options have it."""
    logger = logging.getLogger("trio_mqtt")
    handler: logging.Handler = logging.NullHandler() if arguments.quiet else _Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if arguments.verbose else least)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())
