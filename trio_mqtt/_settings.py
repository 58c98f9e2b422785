"""What `open_client` was told, checked."""

from __future__ import annotations

import math
import secrets
import string
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import attrs

from ._bounds import Buffer
from ._errors import Denied
from ._packets import Will
from ._topics import MAX_STRING_BYTES, require_string
from ._transfers import Limits
from ._transport import Address

Credential: TypeAlias = Callable[[], Awaitable[str]]
"""Awaited at every attempt to connect, so that it may be one that expires. An `OSError` fails that
attempt; any other exception ends the client."""

UserName: TypeAlias = str | Credential | None
Password: TypeAlias = str | bytes | Callable[[], Awaitable[str | bytes]] | None


@attrs.frozen
class Settings:
    """All of it."""

    brokers: Sequence[Address]
    """At least one, in the order in which they are tried."""
    client_id: str
    keep_session: bool
    """CleanSession 0 on the wire."""
    discard_first: bool
    """Whether the broker is to forget the session before the first connect."""
    username: UserName
    password: Password = attrs.field(repr=False)
    will: Will | None
    keep_alive: int
    pause_timeout: float
    limits: Limits
    reconnect_wait_min: float
    reconnect_wait_max: float
    wait_online: bool
    buffer: Buffer
    unclaimed_wait: float
    stream_over: int | None

    def credentials(self, broker: Address) -> tuple[UserName, Password]:
        """Those for this broker: what `open_client` was told overrides the URL."""
        username = broker.username if self.username is None else self.username
        if self.username is None and self.password is None:
            return username, broker.password
        return username, self.password


def check_credentials(username: str | None, password: str | bytes | None) -> None:
    """Raises `Denied` unless they can travel.

    Raises:
        TypeError: one of them has another type.
    """
    if username is not None:
        require_string("user name", username)  # [MQTT-3.1.3-11]
    if password is None:
        return
    if username is None:
        raise Denied("a password without user name")  # [MQTT-3.1.2-22]
    if not isinstance(password, (str, bytes)):
        raise TypeError(f"a password is a str or bytes, not {type(password).__name__}")
    if isinstance(password, str) and not _is_encodable(password):
        raise Denied("the password contains a surrogate")
    size = len(password if isinstance(password, bytes) else password.encode())
    if size > MAX_STRING_BYTES:
        raise Denied(f"the password takes {size} bytes, of {MAX_STRING_BYTES} at most")


def _is_encodable(password: str) -> bool:
    """A question and no exception, as that would carry the password."""
    try:
        password.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_client_id(client_id: str | None) -> str:
    """The identifier, or one generated.

    Raises:
        Denied: it is empty, or cannot travel.
        TypeError: it is no `str`.
    """
    if client_id is None:
        # 23 letters and digits, which every broker must allow [MQTT-3.1.3-5].
        alphabet = string.ascii_letters + string.digits
        return "triomqtt" + "".join(secrets.choice(alphabet) for _ in range(15))
    require_string("client identifier", client_id)  # [MQTT-3.1.3-4]
    if not client_id:  # [MQTT-3.1.3-7]
        raise Denied("the client identifier is empty; leave it out to have one generated")
    return client_id


def check_count(what: str, value: int, *, least: int = 0, most: int) -> int:
    """The number, if it is an `int` within these bounds: else `TypeError` or `Denied`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} is an int, not {value!r}")
    if not least <= value <= most:
        raise Denied(f"{what} is {least} to {most}, not {value}")
    return value


def check_seconds(
    what: str, value: float, *, endless: bool = False, instant: bool = False
) -> float:
    """The number, if it is one and more than 0, or what is allowed: else `TypeError` or `Denied`.

    Arguments:
        endless: whether it may be infinite.
        instant: whether it may be 0.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{what} is a number of seconds, not {value!r}")
    if instant and value == 0:
        return value
    if math.isnan(value) or value <= 0 or (value == math.inf and not endless):
        raise Denied(f"{what} is a number of seconds above 0, not {value}")
    return value
