"""Strings, topic names and topic filters: what is legal, and what matches what (section 4.7)."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_mqtt._errors import Denied, NotSent
from trio_mqtt._topics import (
    MAX_STRING_BYTES,
    matches,
    require_string,
    require_topic_filter,
    require_topic_name,
    string_flaw,
    topic_filter_flaw,
    topic_name_flaw,
)

# Characters of 1 to 4 bytes, as many as just fit, and one byte or one character too many.
LARGEST = {
    "1 byte each": "a" * 65_535,
    "2 bytes each": "é" * 32_767 + "a",
    "3 bytes each": "€" * 21_845,
    "4 bytes each": "😀" * 16_383 + "€",
    "one wide character at the end": "a" * 65_533 + "é",
}
TOO_LARGE = {
    "1 byte each": ("a" * 65_536, 65_536),
    "2 bytes each": ("é" * 32_768, 65_536),
    "3 bytes each": ("€" * 21_846, 65_538),
    "4 bytes each": ("😀" * 16_384, 65_536),
    "one wide character at the end": ("a" * 65_534 + "é", 65_536),
}
FLAWS = {"string": string_flaw, "name": topic_name_flaw, "filter": topic_filter_flaw}
REQUIREMENTS = {
    "name": (require_topic_name, "topic"),
    "filter": (require_topic_filter, "topic filter"),
}


def test_the_limit_is_what_two_bytes_can_say() -> None:
    assert MAX_STRING_BYTES == 2**16 - 1


@pytest.mark.conformance("MQTT-4.7.3-3")
@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS)
@pytest.mark.parametrize("text", LARGEST.values(), ids=LARGEST)
def test_a_string_of_65535_bytes_is_legal(flaw: Callable[[str], str | None], text: str) -> None:
    assert len(text.encode()) == 65_535
    assert flaw(text) is None


@pytest.mark.conformance("MQTT-4.7.3-3")
@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS)
@pytest.mark.parametrize(("text", "size"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_larger_string_is_not(flaw: Callable[[str], str | None], text: str, size: int) -> None:
    assert flaw(text) == f"takes {size} bytes, of 65535 at most"


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            text,
            expected,
            id=ascii(text[:8]),
            marks=pytest.mark.conformance(*statements),
        )
        for text, expected, statements in [
            ("\0", "contains U+0000", ("MQTT-1.5.3-2", "MQTT-4.7.3-2")),
            ("a/\0/b", "contains U+0000", ("MQTT-1.5.3-2", "MQTT-4.7.3-2")),
            ("é\0", "contains U+0000", ("MQTT-1.5.3-2", "MQTT-4.7.3-2")),
            ("\ud800", "contains a surrogate, which UTF-8 cannot encode", ("MQTT-1.5.3-1",)),
            ("a\udfffb", "contains a surrogate, which UTF-8 cannot encode", ("MQTT-1.5.3-1",)),
            (
                "a" * 70_000 + "\udbff",
                "contains a surrogate, which UTF-8 cannot encode",
                ("MQTT-1.5.3-1",),
            ),
        ]
    ],
)
def test_what_no_string_may_contain(
    flaw: Callable[[str], str | None], text: str, expected: str
) -> None:
    assert flaw(text) == expected


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS)
@pytest.mark.parametrize("text", ["\ufeff", "\ufffe", "\x01\x7f", "\uffff", "a b", "/", "//", "$"])
def test_what_a_string_should_not_contain_is_legal_all_the_same(
    flaw: Callable[[str], str | None], text: str
) -> None:
    assert flaw(text) is None


def test_an_empty_string_is_legal() -> None:
    assert string_flaw("") is None


@pytest.mark.conformance("MQTT-4.7.3-1")
@pytest.mark.parametrize("flaw", [topic_name_flaw, topic_filter_flaw])
def test_an_empty_topic_is_not(flaw: Callable[[str], str | None]) -> None:
    assert flaw("") == "is empty"


@pytest.mark.conformance("MQTT-3.3.2-2", "MQTT-4.7.1-1")
@pytest.mark.parametrize("name", ["#", "+", "a/#", "a/+/b", "a#", "+a", "a/b+c", "$SYS/#"])
def test_a_topic_name_contains_no_wildcard(name: str) -> None:
    assert topic_name_flaw(name) == "contains a wildcard"


@pytest.mark.conformance("MQTT-4.7.1-2", "MQTT-4.7.1-3")
@pytest.mark.parametrize(
    "topic_filter",
    [
        "#", "/#", "sport/tennis/#", "+", "+/tennis/#", "sport/+/player1", "+/+", "/+", "+/",
        "+/#", "$SYS/#", "$share/group/+", "a//#",
    ],
)  # fmt: skip
def test_a_wildcard_with_a_level_of_its_own_is_legal(topic_filter: str) -> None:
    assert topic_filter_flaw(topic_filter) is None


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        pytest.param(topic_filter, expected, marks=pytest.mark.conformance(statement))
        for topic_filter, expected, statement in [
            ("sport/tennis#", "has a wildcard that shares its level", "MQTT-4.7.1-2"),
            ("#a", "has a wildcard that shares its level", "MQTT-4.7.1-2"),
            ("##", "has a wildcard that shares its level", "MQTT-4.7.1-2"),
            ("a/+#", "has a wildcard that shares its level", "MQTT-4.7.1-2"),
            ("sport/tennis/#/ranking", "has '#' before its last level", "MQTT-4.7.1-2"),
            ("#/", "has '#' before its last level", "MQTT-4.7.1-2"),
            ("#/#", "has '#' before its last level", "MQTT-4.7.1-2"),
            ("a#/b+", "has '#' before its last level", "MQTT-4.7.1-2"),
            ("sport+", "has a wildcard that shares its level", "MQTT-4.7.1-3"),
            ("+sport/a", "has a wildcard that shares its level", "MQTT-4.7.1-3"),
            ("++", "has a wildcard that shares its level", "MQTT-4.7.1-3"),
            ("a/b+c/#", "has a wildcard that shares its level", "MQTT-4.7.1-3"),
        ]
    ],
)
def test_a_malformed_topic_filter(topic_filter: str, expected: str) -> None:
    assert topic_filter_flaw(topic_filter) == expected


WELL_FORMED = re.compile(r"(?:(?:[^/+#]*|\+)/)*(?:[^/+#]*|\+|#)")


@pytest.mark.conformance("MQTT-4.7.1-2", "MQTT-4.7.1-3", "MQTT-4.7.3-1")
@settings(deadline=None)
@given(topic_filter=st.text(alphabet="aé/+#", max_size=8))
def test_topic_filters_against_a_grammar(topic_filter: str) -> None:
    well_formed = topic_filter != "" and WELL_FORMED.fullmatch(topic_filter) is not None
    assert (topic_filter_flaw(topic_filter) is None) == well_formed


# What a caller gets to see


@pytest.mark.parametrize(("require", "what"), REQUIREMENTS.values(), ids=REQUIREMENTS)
def test_what_is_legal_passes(require: Callable[[str], None], what: str) -> None:
    require("sport/tennis")


@pytest.mark.conformance("MQTT-4.7.3-1")
@pytest.mark.parametrize(("require", "what"), REQUIREMENTS.values(), ids=REQUIREMENTS)
def test_what_is_not_is_denied(require: Callable[[str], None], what: str) -> None:
    with pytest.raises(Denied, match=f"^{what} '' is empty$"):
        require("")


@pytest.mark.conformance("MQTT-3.3.2-2", "MQTT-4.7.1-1")
def test_a_wildcard_in_a_topic_is_denied() -> None:
    with pytest.raises(Denied, match=r"^topic 'a/\+' contains a wildcard$"):
        require_topic_name("a/+")


@pytest.mark.conformance("MQTT-4.7.1-2")
def test_a_malformed_topic_filter_is_denied() -> None:
    with pytest.raises(Denied, match=r"^topic filter 'a#/b\+' has '#' before its last level$"):
        require_topic_filter("a#/b+")


@pytest.mark.conformance("MQTT-1.5.3-2")
def test_a_string_is_denied_by_its_own_name() -> None:
    with pytest.raises(Denied, match=r"^client identifier 'a\\x00' contains U\+0000$") as denied:
        require_string("client identifier", "a\0")
    # Of either family, as the caller prefers.
    assert isinstance(denied.value, ValueError)
    assert isinstance(denied.value, NotSent)


def test_an_empty_string_is_not_denied() -> None:
    require_string("client identifier", "")


@pytest.mark.conformance("MQTT-4.7.3-3")
@pytest.mark.parametrize(("require", "what"), REQUIREMENTS.values(), ids=REQUIREMENTS)
def test_a_long_one_is_shown_in_part(require: Callable[[str], None], what: str) -> None:
    with pytest.raises(Denied, match=f"^{what} 'a{{100}}'… takes 70000 bytes, of 65535 at most$"):
        require("a" * 70_000)


def test_one_of_a_hundred_characters_is_shown_whole() -> None:
    with pytest.raises(Denied, match=r"^topic '#a{99}'… contains a wildcard$"):
        require_topic_name("#" + "a" * 100)
    with pytest.raises(Denied, match=r"^topic 'a{99}#' contains a wildcard$"):
        require_topic_name("a" * 99 + "#")


# The parameter claims to be a str, so that the type checkers let the wrong types through.
@pytest.mark.parametrize("wrong", [b"a", None, 7, ["a"]], ids=repr)
def test_another_type_is_an_error_of_its_own(wrong: str) -> None:
    name = type(wrong).__name__
    with pytest.raises(TypeError, match=f"^a topic is a str, not {name}$"):
        require_topic_name(wrong)
    with pytest.raises(TypeError, match=f"^a topic filter is a str, not {name}$"):
        require_topic_filter(wrong)
    with pytest.raises(TypeError, match=f"^a user name is a str, not {name}$"):
        require_string("user name", wrong)


# Matching


@pytest.mark.parametrize(
    ("topic_filter", "name", "expected"),
    [
        pytest.param(topic_filter, name, expected, marks=pytest.mark.conformance(*statements))
        for topic_filter, name, expected, *statements in [
            ("sport", "sport", True, "MQTT-3.3.2-3"),
            ("sport", "sports", False, "MQTT-3.3.2-3"),
            ("sport", "sport/tennis", False, "MQTT-3.3.2-3"),
            ("sport/tennis", "sport", False, "MQTT-3.3.2-3"),
            # Section 4.7.1.2.
            ("sport/tennis/player1/#", "sport/tennis/player1", True, "MQTT-4.7.1-2"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True, "MQTT-4.7.1-2"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/w", True, "MQTT-4.7.1-2"),
            ("sport/tennis/player1/#", "sport/tennis/player2", False, "MQTT-4.7.1-2"),
            ("sport/tennis/player1/#", "sport/tennis", False, "MQTT-4.7.1-2"),
            ("sport/tennis/player1/#", "sport/tennis/player11", False, "MQTT-4.7.1-2"),
            ("sport/#", "sport", True, "MQTT-4.7.1-2"),
            ("sport/#", "sport/", True, "MQTT-4.7.1-2"),
            ("sport/#", "sports", False, "MQTT-4.7.1-2"),
            ("#", "sport/tennis", True, "MQTT-4.7.1-2"),
            ("#", "/", True, "MQTT-4.7.1-2"),
            ("/#", "/", True, "MQTT-4.7.1-2"),
            ("/#", "/finance", True, "MQTT-4.7.1-2"),
            ("/#", "finance", False, "MQTT-4.7.1-2"),
            # Section 4.7.1.3.
            ("sport/tennis/+", "sport/tennis/player1", True, "MQTT-4.7.1-3"),
            ("sport/tennis/+", "sport/tennis/player2", True, "MQTT-4.7.1-3"),
            ("sport/tennis/+", "sport/tennis/player1/ranking", False, "MQTT-4.7.1-3"),
            ("sport/+", "sport", False, "MQTT-4.7.1-3"),
            ("sport/+", "sport/", True, "MQTT-4.7.1-3"),
            ("+/+", "/finance", True, "MQTT-4.7.1-3"),
            ("/+", "/finance", True, "MQTT-4.7.1-3"),
            ("+", "/finance", False, "MQTT-4.7.1-3"),
            ("+", "finance", True, "MQTT-4.7.1-3"),
            ("+/tennis/#", "sport/tennis", True, "MQTT-4.7.1-2", "MQTT-4.7.1-3"),
            ("+/tennis/#", "sport/tennis/player1", True, "MQTT-4.7.1-2", "MQTT-4.7.1-3"),
            ("+/tennis/#", "sport/chess/player1", False, "MQTT-4.7.1-2", "MQTT-4.7.1-3"),
            ("sport/+/player1", "sport/tennis/player1", True, "MQTT-4.7.1-3"),
            ("sport/+/player1", "sport/tennis/player2", False, "MQTT-4.7.1-3"),
            ("sport/+/player1", "sport/a/b/player1", False, "MQTT-4.7.1-3"),
            # Section 4.7.2.
            ("#", "$SYS", False, "MQTT-4.7.2-1"),
            ("#", "$SYS/x", False, "MQTT-4.7.2-1"),
            ("+", "$SYS", False, "MQTT-4.7.2-1"),
            ("+/#", "$SYS/x", False, "MQTT-4.7.2-1"),
            ("+/monitor/Clients", "$SYS/monitor/Clients", False, "MQTT-4.7.2-1"),
            ("$SYS/#", "$SYS/x", True, "MQTT-4.7.2-1"),
            ("$SYS/#", "$SYS", True, "MQTT-4.7.2-1"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", True, "MQTT-4.7.2-1"),
            ("sport/#", "sport/$SYS", True, "MQTT-4.7.2-1"),
            ("+/+", "sport/$SYS", True, "MQTT-4.7.2-1"),
            # Section 4.7.3.
            ("ACCOUNTS", "Accounts", False, "MQTT-4.7.3-4"),
            ("Accounts payable", "Accounts payable", True, "MQTT-4.7.3-4"),
            ("/finance", "finance", False, "MQTT-4.7.3-4"),
            ("finance/", "finance", False, "MQTT-4.7.3-4"),
            ("a/b", "a//b", False, "MQTT-4.7.3-4"),
            ("a/+", "a//b", False, "MQTT-4.7.3-4"),
            ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\u0301", False, "MQTT-4.7.3-4"),
            ("\ufeffa", "a", False, "MQTT-4.7.3-4", "MQTT-1.5.3-3"),
            ("a/..", "a/../b", False, "MQTT-4.7.3-4"),
            ("a/*", "a/b", False, "MQTT-4.7.3-4"),
        ]
    ],
)  # fmt: skip
def test_matches(topic_filter: str, name: str, expected: bool) -> None:
    assert topic_filter_flaw(topic_filter) is None
    assert topic_name_flaw(name) is None
    assert matches(topic_filter, name) is expected


def naively_matches(topic_filter: str, name: str) -> bool:
    """Section 4.7, a level at a time."""
    if topic_filter.startswith(("#", "+")) and name.startswith("$"):
        return False
    return levels_match(topic_filter.split("/"), name.split("/"))


def levels_match(wanted: list[str], levels: list[str]) -> bool:
    if wanted == ["#"]:
        return True  # with or without levels left: "#" stands for the parent too
    if not wanted or not levels:
        return not wanted and not levels
    return wanted[0] in ("+", levels[0]) and levels_match(wanted[1:], levels[1:])


# Few words, so that they meet often.
WORDS = st.sampled_from(["", "a", "b", "$S", "a b"])
NAMES = st.lists(WORDS, min_size=1, max_size=5).map("/".join).filter(bool)
FILTERS = (
    st.tuples(st.lists(WORDS | st.just("+"), max_size=5), st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)


@pytest.mark.conformance("MQTT-4.7.1-2", "MQTT-4.7.1-3", "MQTT-4.7.2-1", "MQTT-4.7.3-4")
@settings(deadline=None, max_examples=500)
@given(topic_filter=FILTERS, name=NAMES)
def test_matches_against_a_naive_reference(topic_filter: str, name: str) -> None:
    assert topic_filter_flaw(topic_filter) is None
    assert matches(topic_filter, name) == naively_matches(topic_filter, name)
