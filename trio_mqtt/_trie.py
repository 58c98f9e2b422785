"""Finds the topic filters that match a topic name, at a cost that no other filter adds to.

The levels of the filters make a tree. A topic name is followed through it level by level, along at
most three branches from each node: the level itself, ``+``, and ``#``, which ends there.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from ._topics import routed_filter

_T = TypeVar("_T")


class _Node(Generic[_T]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[_T]] = {}
        self.values: dict[_T, set[str]] = {}
        """Of the filters that end here, each with those by which it was added: shared subscriptions
        of several groups come to the same."""


class Trie(Generic[_T]):
    """Values by topic filter; a shared subscription counts as the filter that is in it."""

    def __init__(self) -> None:
        self._root: _Node[_T] = _Node()

    def add(self, topic_filter: str, value: _T) -> None:
        """Has `value` found by what matches `topic_filter`."""
        node = self._root
        for level in routed_filter(topic_filter).split("/"):
            node = node.children.setdefault(level, _Node())
        node.values.setdefault(value, set()).add(topic_filter)

    def discard(self, topic_filter: str, value: _T) -> None:
        """The reverse of `add`, which may be no longer needed."""
        node, path = self._root, list[tuple[_Node[_T], str]]()
        for level in routed_filter(topic_filter).split("/"):
            child = node.children.get(level)
            if child is None:
                return
            path.append((node, level))
            node = child
        added_by = node.values.get(value, set())
        added_by.discard(topic_filter)
        if not added_by:
            node.values.pop(value, None)
        while path and not (node.values or node.children):
            node, level = path.pop()
            del node.children[level]

    def match(self, name: str) -> list[_T]:
        """The values whose filters match a topic name, each once (section 4.7)."""
        found: dict[_T, set[str]] = {}
        nodes = [self._root]
        wild = name[0] != "$"  # on the first level [MQTT-4.7.2-1]
        for level in name.split("/"):
            following: list[_Node[_T]] = []
            for node in nodes:
                children = node.children
                if wild:
                    if "#" in children:
                        found.update(children["#"].values)
                    if "+" in children:
                        following.append(children["+"])
                if level in children:
                    following.append(children[level])
            nodes, wild = following, True
            if not nodes:
                break
        for node in nodes:
            found.update(node.values)
            if "#" in node.children:  # "sport/#" matches "sport", as section 4.7.1.2 says
                found.update(node.children["#"].values)
        return list(found)
