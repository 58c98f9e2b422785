"""Topic filters in a tree: it finds what `matches` says, whatever else is in it."""

from __future__ import annotations

from typing import SupportsIndex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_mqtt._topics import MAX_STRING_BYTES, matches, routed_filter, topic_filter_flaw
from trio_mqtt._trie import Trie

LEVELS = ("", "a", "b", "$x")


def trie_of(*topic_filters: str) -> Trie[str]:
    """Each filter is found as itself."""
    trie: Trie[str] = Trie()
    for topic_filter in topic_filters:
        trie.add(topic_filter, topic_filter)
    return trie


class _Level(str):
    """A level of a `CountingName`. Each node that it is looked up in asks for its hash."""

    __slots__ = ("counter",)

    counter: list[str]

    def __hash__(self) -> int:
        self.counter.append(self)
        return super().__hash__()

    __eq__ = str.__eq__


class CountingName(str):
    """A topic name that counts how often one of its levels is looked up."""

    __slots__ = ("counter",)

    counter: list[str]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        self.counter = []
        levels = [_Level(level) for level in super().split(sep, maxsplit)]
        for level in levels:
            level.counter = self.counter
        return [*levels]


def lookups(trie: Trie[str], name: str) -> int:
    """How often `trie` looks a level up to find what matches `name`."""
    counting = CountingName(name)
    trie.match(counting)
    return len(counting.counter)


# What is found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sport", {"sport", "sport/#", "#", "+"}),
        ("sport/", {"sport/#", "sport/+", "+/+", "#"}),
        ("sport/tennis", {"sport/tennis", "sport/#", "sport/+", "+/+", "#"}),
        ("sport/tennis/player1", {"sport/#", "+/+/player1", "#"}),
        ("/finance", {"/finance", "+/+", "#"}),
        ("/", {"+/+", "#"}),
        ("Sport", {"+", "#"}),
    ],
)
def test_all_filters_that_match_are_found(name: str, expected: set[str]) -> None:
    trie = trie_of(
        "sport", "sport/#", "sport/+", "sport/tennis", "+/+", "+/+/player1", "+", "#", "/finance"
    )  # fmt: skip
    assert sorted(trie.match(name)) == sorted(expected)


@pytest.mark.conformance("MQTT-4.7.2-1")
def test_a_wildcard_on_the_first_level_finds_no_topic_that_begins_with_a_dollar_sign() -> None:
    trie = trie_of("#", "+", "+/#", "+/x", "$SYS/#", "$SYS/+", "sport/#", "+/+")
    assert sorted(trie.match("$SYS/x")) == ["$SYS/#", "$SYS/+"]
    assert trie.match("$SYS") == ["$SYS/#"]
    assert sorted(trie.match("sport/$SYS")) == ["#", "+/#", "+/+", "sport/#"]


@pytest.mark.conformance("MQTT-4.7.3-4")
def test_levels_are_compared_character_by_character() -> None:
    trie = trie_of("é", "e\u0301", "A", "a ")
    assert trie.match("é") == ["é"]
    assert trie.match("e\u0301") == ["e\u0301"]
    assert trie.match("a") == []


def test_a_shared_subscription_is_found_by_the_filter_in_it() -> None:
    trie = trie_of("$share/g/a/+", "$share/g/$SYS/#", "$share/g/#", "$share/g//a")
    assert sorted(trie.match("a/b")) == ["$share/g/#", "$share/g/a/+"]
    assert trie.match("$SYS/x") == ["$share/g/$SYS/#"]
    assert sorted(trie.match("/a")) == ["$share/g/#", "$share/g//a"]
    assert trie.match("$share/g/a/b") == []


@pytest.mark.parametrize("topic_filter", ["$share", "$share/g", "$share/g/", "$share//a"])
def test_what_only_looks_like_a_shared_subscription_is_a_filter_like_others(
    topic_filter: str,
) -> None:
    assert trie_of(topic_filter).match(topic_filter) == [topic_filter]


def test_a_value_is_found_once_by_however_many_filters() -> None:
    trie: Trie[int] = Trie()
    for topic_filter in ("a/b", "a/+", "a/#", "+/b", "#", "a/b/#"):
        trie.add(topic_filter, 1)
    assert trie.match("a/b") == [1]


def test_the_values_of_a_filter_are_found_in_the_order_in_which_they_were_added() -> None:
    trie: Trie[int] = Trie()
    for value in (3, 1, 2, 1):
        trie.add("a", value)
    assert trie.match("a") == [3, 1, 2]


# Discarding


def test_what_was_discarded_is_no_longer_found_and_the_rest_is() -> None:
    trie: Trie[int] = Trie()
    trie.add("a/b", 1)
    trie.add("a/b", 2)
    trie.add("a/b/c", 3)
    trie.add("a", 4)
    trie.discard("a/b", 1)
    assert trie.match("a/b") == [2]
    trie.discard("a/b", 2)
    assert trie.match("a/b") == []
    assert trie.match("a/b/c") == [3]
    trie.discard("a/b/c", 3)
    assert trie.match("a") == [4]


@pytest.mark.parametrize("topic_filter", ["b", "a/b/c", "a", "a/+", "a/b/#"])
def test_discarding_what_was_not_added_changes_nothing(topic_filter: str) -> None:
    trie = trie_of("a/b")
    trie.discard(topic_filter, "a/b")
    trie.discard("a/b", topic_filter)
    assert trie.match("a/b") == ["a/b"]


def test_two_filters_that_share_what_they_match_are_discarded_one_by_one() -> None:
    trie: Trie[int] = Trie()
    trie.add("a", 1)
    trie.add("$share/g/a", 1)
    trie.add("$share/h/a", 1)
    trie.discard("$share/g/a", 1)
    trie.discard("a", 1)
    assert trie.match("a") == [1]
    trie.discard("$share/h/a", 1)
    assert trie.match("a") == []


def test_nothing_is_left_of_a_filter_that_was_discarded() -> None:
    trie = trie_of("a/b/c/d", "+/b/#", "a/b")
    assert lookups(trie, "a/b/c/d") > 1
    trie.discard("a/b/c/d", "a/b/c/d")
    trie.discard("a/b", "a/b")
    trie.discard("+/b/#", "+/b/#")
    assert lookups(trie, "a/b/c/d") == lookups(Trie(), "a/b/c/d")


# All of it together


names = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4).map("/".join).filter(bool)


def joined(shared: str, levels: list[str], end: list[str]) -> str:
    return shared + "/".join(levels + end)


filters = st.builds(
    joined,
    st.sampled_from(["", "", "", "$share/g/", "$share/h/", "$share/"]),
    st.lists(st.sampled_from([*LEVELS, "+"]), max_size=4),
    st.sampled_from([list[str](), list[str](), ["#"]]),
).filter(lambda topic_filter: topic_filter_flaw(topic_filter) is None)
changes = st.lists(st.tuples(st.booleans(), filters, st.integers(0, 2)), max_size=20)


@settings(deadline=None)
@given(changes=changes, topics=st.lists(names, min_size=1, max_size=5))
def test_it_finds_what_matches_however_it_came_about(
    changes: list[tuple[bool, str, int]], topics: list[str]
) -> None:
    trie: Trie[int] = Trie()
    there: set[tuple[str, int]] = set()
    for is_added, topic_filter, value in changes:
        if is_added:
            trie.add(topic_filter, value)
            there.add((topic_filter, value))
        else:
            trie.discard(topic_filter, value)
            there.discard((topic_filter, value))
    for name in topics:
        expected = {value for filter_, value in there if matches(routed_filter(filter_), name)}
        assert sorted(trie.match(name)) == sorted(expected)


@settings(deadline=None)
@given(there=st.sets(filters, max_size=10), topics=st.lists(names, min_size=1, max_size=5))
def test_nothing_is_left_once_everything_was_discarded(there: set[str], topics: list[str]) -> None:
    trie = trie_of(*there)
    for topic_filter in there:
        trie.discard(topic_filter, topic_filter)
    for name in topics:
        assert trie.match(name) == []
        assert lookups(trie, name) == lookups(Trie(), name)


# Size


@pytest.mark.parametrize("name", ["a/b/c", "a/b", "d", "$SYS/a"])
def test_filters_that_do_not_match_add_nothing_to_the_cost(name: str) -> None:
    trie = trie_of("a/b/c", "a/+/c", "+/b/#", "a/#", "#", "$SYS/+")
    before = lookups(trie, name)
    found = trie.match(name)
    for i in range(2_500):
        trie.add(f"other/{i}/#", "other")
        trie.add(f"{i}/b/c", "other")
        trie.add(f"a/{i}/+", "other")
        trie.add(f"a/b/c/{i}", "other")
    assert lookups(trie, name) == before
    assert trie.match(name) == found


def test_a_long_topic_of_which_nothing_is_wanted_is_given_up_at_once() -> None:
    name = "/" * MAX_STRING_BYTES
    assert lookups(trie_of("a", "a/#"), name) == lookups(Trie(), name) == 1


@pytest.mark.parametrize("end", ["", "+", "#"])
def test_topics_are_as_deep_as_they_may_be(end: str) -> None:
    name = "/" * MAX_STRING_BYTES
    topic_filter = name[len(end) :] + end
    trie = trie_of(topic_filter, "#", "/+")
    assert sorted(trie.match(name if end != "+" else name[1:])) == sorted(["#", topic_filter])
    trie.discard(topic_filter, topic_filter)
    assert trie.match(name) == ["#"]


def test_a_deep_tree_is_let_go_as_a_whole() -> None:
    trie = trie_of("+/" * 32_767 + "+", "/" * MAX_STRING_BYTES)
    assert len(trie.match("/" * 32_767)) == 1
    del trie
