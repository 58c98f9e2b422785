"""A message as bytes for standard output."""

from __future__ import annotations

import argparse
import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from trio_mqtt import Message

Render: TypeAlias = Callable[[Message], bytes]

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tabulator and line feed."""


def render_by(arguments: argparse.Namespace, *, is_terminal: bool) -> Render:
    """How the arguments want it."""
    if arguments.json:
        return json_line
    if arguments.raw:
        return raw
    show: Render = quoted if arguments.quote else shown if is_terminal else raw
    if not arguments.topic:
        return lambda message: show(message) + b"\n"

    def with_topic(message: Message) -> bytes:
        return message.topic.encode() + b" " + show(message) + b"\n"

    return with_topic


def raw(message: Message) -> bytes:
    """The payload as it is."""
    return message.payload


def shown(message: Message) -> bytes:
    """The payload for a terminal, which control characters of others could take over."""
    text = message.payload.decode(errors="replace")
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text).encode()


def quoted(message: Message) -> bytes:
    """The payload in quotes on one line, as a string of Python and of most other languages."""
    # A byte that is no UTF-8 is a lone surrogate here, of which the lower byte is that byte.
    text = message.payload.decode(errors="surrogateescape")
    return f'"{"".join(map(_escaped, text))}"'.encode()


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) & 0xFF:02x}"
    return char.encode("unicode_escape").decode()


def json_line(message: Message) -> bytes:
    """All there is to know, as a JSON object on one line.

    ``payload`` is the text; what is no UTF-8 is in ``payload_base64`` instead.
    """
    fields: dict[str, object] = {
        "time": datetime.now(tz=UTC).isoformat(timespec="milliseconds"),
        "topic": message.topic,
        "qos": message.qos,
        "retain": message.retain,
        "dup": message.dup,
    }
    try:
        fields["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        fields["payload_base64"] = base64.b64encode(message.payload).decode()
    return json.dumps(fields).encode() + b"\n"
