"""Validates topic names and topic filters, and matches the one against the other (section 4.7)."""

from __future__ import annotations

from ._errors import Denied

MAX_STRING_BYTES = 65_535
"""A string travels behind a length of two bytes (section 1.5.3) [MQTT-4.7.3-3]."""


def string_flaw(text: str) -> str | None:
    """What keeps `text` from being an MQTT string (section 1.5.3), if anything."""
    if "\0" in text:
        return "contains U+0000"  # [MQTT-1.5.3-2] [MQTT-4.7.3-2]
    if len(text) > MAX_STRING_BYTES or not text.isascii():  # else it takes a byte a character
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            return "contains a surrogate, which UTF-8 cannot encode"  # [MQTT-1.5.3-1]
        if size > MAX_STRING_BYTES:
            return f"takes {size} bytes, of {MAX_STRING_BYTES} at most"
    return None


def topic_name_flaw(name: str) -> str | None:
    """What keeps `name` from being a topic name, if anything."""
    if not name:
        return "is empty"  # [MQTT-4.7.3-1]
    if "#" in name or "+" in name:
        return "contains a wildcard"  # [MQTT-3.3.2-2] [MQTT-4.7.1-1]
    return string_flaw(name)


def topic_filter_flaw(topic_filter: str) -> str | None:
    """What keeps `topic_filter` from being a topic filter, if anything."""
    if not topic_filter:
        return "is empty"  # [MQTT-4.7.3-1]
    levels = topic_filter.split("/")
    if any("#" in level for level in levels[:-1]):
        return "has '#' before its last level"  # [MQTT-4.7.1-2]
    if any(len(level) > 1 and ("#" in level or "+" in level) for level in levels):
        return "has a wildcard that shares its level"  # [MQTT-4.7.1-2] [MQTT-4.7.1-3]
    return string_flaw(topic_filter)


def require_string(what: str, text: str) -> None:
    """Raises `Denied` unless `text` can travel as an MQTT string.

    Raises:
        TypeError: `text` is no `str`.
    """
    _require(what, text, string_flaw(_text(what, text)))


def require_topic_name(name: str) -> None:
    """Raises `Denied` unless `name` is a topic name.

    Raises:
        TypeError: `name` is no `str`.
    """
    _require("topic", name, topic_name_flaw(_text("topic", name)))


def require_topic_filter(topic_filter: str) -> None:
    """Raises `Denied` unless `topic_filter` is a topic filter.

    Raises:
        TypeError: `topic_filter` is no `str`.
    """
    _require("topic filter", topic_filter, topic_filter_flaw(_text("topic filter", topic_filter)))


def _text(what: str, text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"a {what} is a str, not {type(text).__name__}")
    return text


def _require(what: str, text: str, flaw: str | None) -> None:
    if flaw is not None:
        shown = repr(text) if len(text) <= 100 else repr(text[:100]) + "…"
        raise Denied(f"{what} {shown} {flaw}")


def routed_filter(topic_filter: str) -> str:
    """What the messages of a subscription to `topic_filter` match.

    That of a shared one, ``$share/group/filter``, which brokers have beyond MQTT 3.1.1, match the
    filter that is in it.
    """
    if topic_filter.startswith("$share/"):
        _, group, inner = (*topic_filter.split("/", 2), "")[:3]
        if group and inner:
            return inner
    return topic_filter


def matches(topic_filter: str, name: str) -> bool:
    """Whether a subscription to `topic_filter` covers `name`, both of them valid.

    Levels are compared character by character, without any normalization [MQTT-4.7.3-4].
    """
    if topic_filter == name:
        return True
    if name[0] == "$" and topic_filter[0] in "#+":
        return False  # [MQTT-4.7.2-1]
    filter_levels = topic_filter.split("/")
    name_levels = name.split("/")
    if filter_levels[-1] == "#":
        filter_levels.pop()  # which also makes "sport/#" match "sport", as section 4.7.1.2 says
        del name_levels[len(filter_levels) :]
    if len(filter_levels) != len(name_levels):
        return False
    return all(
        wanted in ("+", level) for wanted, level in zip(filter_levels, name_levels, strict=True)
    )
