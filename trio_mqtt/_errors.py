"""The exceptions of this library, grouped by what the caller may conclude.

::

    MQTTError
    ├── NotSent                                 the request did not happen
    │   ├── Denied(ValueError)                  an illegal argument: a retry is futile
    │   ├── Down                                no connection after a failed attempt
    │   │   └── CertificateError                the broker's certificate is not to be trusted
    │   ├── PendingLimit(trio.WouldBlock)       too many pending requests
    │   ├── PersistenceError                    it could not be stored
    │   ├── ClientClosed(trio.ClosedResourceError)
    │   └── RequestCanceled(trio.TooSlowError)  too late, with nothing of it sent
    ├── InDoubt                                 sent in part or whole, outcome unknown
    │   ├── SubmitInterrupted                   connection lost during submission
    │   ├── ResponseLost                        connection lost while awaiting the response
    │   ├── ClosedInDoubt(trio.ClosedResourceError)   the client ended first
    │   └── RequestAbandoned(trio.TooSlowError) too late, after it was sent
    ├── SubscribeError                          the broker's answer: it failed these topic filters
    ├── ConnectionRefused                       the broker's answer to CONNECT, one subclass a code
    ├── ConnectionLost(trio.BrokenResourceError)
    │   └── ProtocolViolation                   the broker broke the specification
    └── MessagesMissed                          strict channels only
"""

from __future__ import annotations

from typing import ClassVar

import trio


class MQTTError(Exception):
    """The root of the tree."""


class NotSent(MQTTError):
    """The request did not happen: no byte of it was sent. It is safe to issue it again."""


class Denied(NotSent, ValueError):
    """An argument is illegal, or too large. The same call will always fail."""


class Down(NotSent):
    """There is no connection, and the latest attempt to make one failed.

    The client keeps trying. `Client.wait_online` says when the request is worth another go.
    """


class CertificateError(Down):
    """There is no connection, as the broker's certificate could not be verified.

    It expired, is for another name, or by an authority that nobody here trusts: the message says
    which. Before any broker ever accepted it ends the client, as only people can mend it;
    afterwards the client keeps trying.
    """


class PendingLimit(NotSent, trio.WouldBlock):
    """There is no room: for one more unconfirmed exchange, request, or byte at QoS 0.

    Raised by the calls that end in ``_nowait``, where the others wait, and by `subscribe` and
    `unsubscribe`. It passes as the broker answers.
    """


class PersistenceError(NotSent):
    """A durable session could not store or load what it has to. The `__cause__` says how.

    Of a message it means that it was not accepted: nothing of it was sent, and it is safe to hand
    it over again. The client goes on, with what was accepted before, and tries the storage again.
    """


class ClientClosed(NotSent, trio.ClosedResourceError):
    """The client ended before the request was made. It stays closed."""


class RequestCanceled(NotSent, trio.TooSlowError):
    """The deadline of `fail_after` passed before anything of the request was sent or accepted."""


class InDoubt(MQTTError):
    """The request was sent in part or in whole, and what the broker made of it is unknown."""


class SubmitInterrupted(InDoubt):
    """The connection was lost while the request was being written. Its `__cause__` says how.

    Of an `Exchange` this is a mere interruption: the client sends the message again by itself.
    """


class ResponseLost(InDoubt):
    """The connection was lost between the request and its answer. The `__cause__` says how.

    Of an `Exchange` this is a mere interruption: the client sends the message again by itself.
    """


class ClosedInDoubt(InDoubt, trio.ClosedResourceError):
    """The client ended before the broker answered. The request may or may not have arrived.

    With a durable session a message that was accepted is still on its way: `adopt_session` goes on
    with it, and lists it in `Session.pending`.
    """


class RequestAbandoned(InDoubt, trio.TooSlowError):
    """The deadline of `fail_after` passed after the request was sent, and before its answer.

    A message at QoS 1 or 2 was accepted by then, and is still delivered. A late answer to anything
    else counts at the broker, and nobody is told.
    """


class SubscribeError(MQTTError):
    """The broker answered the subscription, and failed some of its topic filters.

    The others of the same request are in force. It is for the user's permissions at the broker, or
    for another filter, to change that.
    """

    def __init__(self, topic_filters: tuple[str, ...]) -> None:
        super().__init__(topic_filters)
        self.topic_filters = topic_filters
        """The filters that failed, in the order of the request."""

    def __str__(self) -> str:
        return "the broker failed " + ", ".join(map(repr, self.topic_filters))


class ConnectionRefused(MQTTError):
    """The broker answered CONNECT with a return code other than 0 (section 3.2.2.3)."""

    code: ClassVar[int]
    """The return code, 1 to 5."""
    _reason: ClassVar[str]

    def __str__(self) -> str:
        return f"the broker refused the connection with return code {self.code}: {self._reason}"


class UnacceptableProtocolVersion(ConnectionRefused):
    """The broker does not speak this version of MQTT."""

    code = 1
    _reason = "unacceptable protocol version"


class IdentifierRejected(ConnectionRefused):
    """The client identifier is well-formed, and the broker does not allow it."""

    code = 2
    _reason = "identifier rejected"


class ServerUnavailable(ConnectionRefused):
    """The broker is up, and its MQTT service is not. Try again later."""

    code = 3
    _reason = "server unavailable"


class BadCredentials(ConnectionRefused):
    """The user name or the password is malformed. RabbitMQ also means a wrong one."""

    code = 4
    _reason = "bad user name or password"


class NotAuthorized(ConnectionRefused):
    """The client is not authorized to connect. Mosquitto also means a wrong password."""

    code = 5
    _reason = "not authorized"


class ConnectionLost(MQTTError, trio.BrokenResourceError):
    """The network connection ended without our doing, or made no progress for too long.

    The client makes another by itself. Applications meet this as the `__cause__` of the errors of
    requests that it interrupted, and of a `Down`.
    """


class ProtocolViolation(ConnectionLost):
    """The broker broke the specification, so the connection was closed [MQTT-4.8.0-1].

    Where it happens again and again, the broker's maker wants to know.
    """


class MessagesMissed(MQTTError):
    """At this place of the stream messages may be missing. The next call goes on behind it.

    Raised by strict channels alone. It is for the application to do what it does at a start: to ask
    for the state of what it follows, for instance.
    """

    def __init__(self, given_up: int, *, session_lost: bool) -> None:
        super().__init__(given_up, session_lost)
        self.given_up = given_up
        """How many messages were given up here: at QoS 0 as the buffer was full, at QoS 1 and 2
        only where the broker keeps no session from which it could send them again."""
        self.session_lost = session_lost
        """Whether the broker lost the session here, and with it what it may have had for us."""

    def __str__(self) -> str:
        reasons = ["the broker lost the session"] if self.session_lost else []
        if self.given_up:
            reasons.append(f"{self.given_up} were given up")
        return "messages may be missing: " + ", ".join(reasons)
