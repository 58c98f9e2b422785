"""A directory on a model of a disk, and every image that a loss of power may leave of it.

What a file holds is safe once it was synced. Until then anything may be found: what it held before,
nothing, a part, zeros. What became of the names since the directory was last synced is done or
undone, each change by itself, since POSIX promises no order among them; of a rename it may also be
that the new name is there and the old one is not gone. So `ModelDirectory.images` are all subsets
of the changes, times all that may be found in each file.

An image is what the next process finds after the reboot, and a directory begins with one.
"""

from __future__ import annotations

import errno
import functools
import itertools
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import attrs

from trio_mqtt._directory import Directory
from trio_mqtt._file_system import Files

Image: TypeAlias = frozenset[tuple[str, bytes]]
"""Names, and what is in the files."""
NOTHING: Image = frozenset()
State: TypeAlias = frozenset[tuple[int, bytes]]
"""Keys and their values."""


@attrs.define(eq=False)
class ModelFile:
    """One file, whatever its name."""

    data: bytes
    """As the process sees it."""
    survivors: frozenset[bytes]
    """What a loss of power may leave of it."""


@attrs.frozen
class Change:
    """One way in which a change of names may come out."""

    removed: str | None = None
    added: tuple[str, ModelFile] | None = None

    def apply(self, names: Mapping[str, ModelFile]) -> dict[str, ModelFile]:
        changed = {name: file for name, file in names.items() if name != self.removed}
        changed.update([] if self.added is None else [self.added])
        return changed


class ModelDirectory(Directory):
    """A directory in memory, which notes all images that a loss of power may leave."""

    def __init__(self, image: Image = NOTHING) -> None:
        super().__init__(Path("model"))
        self._safe = {name: ModelFile(data, frozenset([data])) for name, data in image}
        self._seen = dict(self._safe)
        self._unsynced: list[tuple[Change, ...]] = []
        self._left: set[Image] = set()
        self.steps = 0
        """How many changes were attempted, since `fail` was called."""
        self._failing: Container[int] = ()

    def fail(self, *steps: int) -> None:
        """Of the changes from now on these fail, counted from 0."""
        self.steps, self._failing = 0, steps

    # What may be left

    def images(self) -> set[Image]:
        """What a loss of power leaves now."""
        images: set[Image] = set()
        for names in self._surviving_names():
            found = [[(name, data) for data in file.survivors] for name, file in names.items()]
            images.update(map(frozenset, itertools.product(*found)))
        return images

    def take_images(self) -> set[Image]:
        """What a loss of power may have left at any time since this was last called."""
        self._note()
        left, self._left = self._left, set()
        return left

    def _surviving_names(self) -> Iterable[dict[str, ModelFile]]:
        states = {frozenset(self._safe.items()): self._safe}
        for outcomes in self._unsynced:
            for names, outcome in itertools.product(list(states.values()), outcomes):
                changed = outcome.apply(names)
                states[frozenset(changed.items())] = changed
        return states.values()

    def _note(self) -> None:
        self._left |= self.images()

    def _step(self) -> bool:
        """Whether the next change fails."""
        self._note()
        self.steps += 1
        return self.steps - 1 in self._failing

    def _change(self, *outcomes: Change) -> None:
        self._unsynced.append(outcomes)
        self._seen = outcomes[0].apply(self._seen)

    # What a directory does

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def check(self) -> None:
        pass

    def names(self) -> list[str]:
        return list(self._seen)

    def read(self, name: str) -> bytes | None:
        file = self._seen.get(name)
        return None if file is None else file.data

    def write(self, name: str, data: bytes) -> None:
        fails = self._step()
        file = self._begin_to_write(name, data)
        self._note()
        if fails:
            file.data = data[: len(data) // 2]
            raise _disk_full()
        self.sync_content(file)

    def sync_content(self, file: ModelFile) -> None:
        """For a test to leave out."""
        file.survivors = frozenset([file.data])

    def rename(self, name: str, other: str) -> None:
        if self._step():
            raise _disk_full()
        if name not in self._seen:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        added = other, self._seen[name]
        self._change(Change(removed=name, added=added), Change(added=added))

    def remove(self, name: str) -> None:
        if self._step():
            raise _disk_full()
        if name in self._seen:
            self._change(Change(removed=name))

    def sync(self) -> None:
        if self._step():
            raise _disk_full()
        self._unsynced.clear()
        self._safe = dict(self._seen)

    def _begin_to_write(self, name: str, data: bytes) -> ModelFile:
        if name not in self._seen:
            self._change(Change(added=(name, ModelFile(b"", frozenset([b""])))))
        file = self._seen[name]
        file.survivors |= torn(data)
        file.data = data
        return file


def torn(data: bytes) -> frozenset[bytes]:
    """What may be found of a file to which this was written, and which was not synced."""
    half = len(data) // 2
    parts = [b"", data[:1], data[:half], data[:-1], data]
    return frozenset([*parts, bytes(len(data)), data[:half] + bytes(len(data) - half)])


def _disk_full() -> OSError:
    return OSError(errno.ENOSPC, "no space left on the model")


# What is recovered


def contents(files: Files) -> State:
    found = ((key, files.load(key)) for key in sorted(files.keys()))
    return frozenset((key, value) for key, value in found if value is not None)


@functools.cache
def recovery(image: Image) -> tuple[State, frozenset[Image]]:
    """What is recovered from an image, and the images that a power loss leaves meanwhile."""
    directory = ModelDirectory(image)
    files = Files(directory)
    files.open()
    state, meanwhile = contents(files), directory.take_images()
    for later in directory.images() - {image}:
        assert recovery(later)[0] == state, "what recovery found is gone after the next power loss"
    return state, frozenset(meanwhile)


@functools.cache
def recovered(image: Image) -> frozenset[State]:
    """What may be recovered from an image, however often recovery is interrupted."""
    states: set[State] = set()
    seen, todo = {image}, [image]
    while todo:
        state, meanwhile = recovery(todo.pop())
        states.add(state)
        todo += meanwhile - seen
        seen |= meanwhile
    return frozenset(states)
