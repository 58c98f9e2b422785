"""`FileSystem` and the session in it, after a loss of power at every moment.

Each test lives through some commits on a `ModelDirectory`. Every image that a loss of power may
leave on the way is recovered, also by recoveries that are interrupted in turn, and must give
what was there before the commit that was under way, or after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_mqtt._file_system import Files

from .power_loss import Image, ModelDirectory, State, contents, recovered


@attrs.frozen
class Commit:
    saves: Mapping[int, bytes]
    deletes: Collection[int] = ()

    def apply(self, state: State) -> State:
        values = {key: value for key, value in state if key not in self.deletes}
        return frozenset({**values, **self.saves}.items())


def check_images(images: Collection[Image], *allowed: State) -> None:
    for image in images:
        assert recovered(image) <= set(allowed), f"a mix is recovered from {image}"


def survive(commits: Sequence[Commit], directory: ModelDirectory | None = None) -> int:
    """Checks every image of these commits. Returns how many there were."""
    directory = ModelDirectory() if directory is None else directory
    files = Files(directory)
    files.open()
    state = contents(files)
    checked = 0
    for commit in commits:
        before, state = state, commit.apply(state)
        directory.take_images()
        files.commit(commit.saves, commit.deletes)
        assert contents(files) == state
        during, then = directory.take_images(), directory.images()
        check_images(during, before, state)
        check_images(then, state)
        checked += len(during)
    return checked


# Commits

A, B, C, D = b"a" * 12, b"b" * 13, b"c" * 14, b"d" * 30
FULL = Commit({1: A, 2: B, 3: C})

LIVES: dict[str, list[Commit]] = {
    "save": [Commit({1: A})],
    "replace": [Commit({1: A}), Commit({1: B}), Commit({1: B})],
    "replace by the same": [Commit({1: A}), Commit({1: A})],
    "delete": [Commit({1: A}), Commit({}, [1])],
    "delete nothing": [Commit({1: A}), Commit({}, [2]), Commit({}, [2, 3]), Commit({})],
    "delete and save again": [Commit({1: A}), Commit({}, [1]), Commit({1: A}), Commit({1: B})],
    "save two": [Commit({1: A, 2: B})],
    "save four": [Commit({1: A, 2: B, 3: C, 4: D})],
    "replace all": [FULL, Commit({1: D, 2: D, 3: D})],
    "delete all": [FULL, Commit({}, [1, 2, 3])],
    "everything at once": [FULL, Commit({1: D, 4: A}, [2, 3])],
    "one of a batch replaced": [FULL, Commit({1: D, 2: A}, [3]), Commit({1: C})],
    "one of a batch deleted": [FULL, Commit({1: D, 2: A}, [3]), Commit({}, [1])],
    "one that a batch deleted saved": [FULL, Commit({1: D}, [2, 3]), Commit({2: A})],
    "a batch that saves what one deleted": [FULL, Commit({1: D}, [2, 3]), Commit({2: A, 3: A})],
    "a batch that deletes what one saved": [
        FULL,
        Commit({1: D, 4: D}, [2]),
        Commit({3: A}, [1, 4]),
    ],
    "a batch reverted": [FULL, Commit({1: D, 4: D}, [2]), Commit({1: A, 2: B}, [4])],
    "a batch repeated": [FULL, Commit({1: D, 4: D}, [2]), Commit({1: D, 4: D}, [2])],
    "deletions only, then saved again": [FULL, Commit({}, [1, 2]), Commit({1: A}), Commit({2: B})],
    "batches in a row": [Commit({1: A, 2: x, 3: x}, [4]) for x in (A, B, C, D)],
}


@pytest.mark.parametrize("commits", LIVES.values(), ids=LIVES)
def test_a_commit_is_there_as_a_whole_or_not_at_all(commits: list[Commit]) -> None:
    assert survive(commits) > 0


def test_as_many_images_are_checked_as_there_are() -> None:
    # Before, and after; and beside, with seven kinds of content while it is written.
    assert survive([Commit({1: A})]) == 2 + 7 + 1
    assert survive(LIVES["save four"]) > 100


def possible_commits(stamp: int) -> list[Commit]:
    """All of two keys: each is saved, deleted, or left alone."""
    commits: list[Commit] = []
    for saved, deleted in itertools.product(range(4), repeat=2):
        if not saved & deleted and saved | deleted:
            saves = {key: bytes([stamp, key] * 6) for key in (1, 2) if saved & key}
            commits.append(Commit(saves, [key for key in (1, 2) if deleted & key]))
    return commits


def test_all_lives_of_three_commits_and_two_keys() -> None:
    lives = list(itertools.product(*map(possible_commits, range(3))))
    assert len(lives) == 8**3
    for commits in lives:
        survive([Commit({1: A, 2: B}), *commits])


@pytest.mark.parametrize("batch", [Commit({1: D, 3: D}, [2]), Commit({}, [1, 2])])
def test_life_goes_on_after_a_recovery(batch: Commit) -> None:
    directory = ModelDirectory(frozenset([("00001", A), ("00002", B)]))
    files = Files(directory)
    files.open()
    directory.take_images()
    files.commit(batch.saves, batch.deletes)
    images = directory.take_images()
    assert len(images) > 10
    for image in images:
        for then in (Commit({2: C}), Commit({1: C, 2: C}), Commit({2: C}, [1])):
            survive([then], ModelDirectory(image))


@st.composite
def some_commits(draw: st.DrawFn) -> Commit:
    """Of few keys and values, so that they meet."""
    values = draw(
        st.dictionaries(st.integers(1, 5), st.sampled_from([A, B, None]), min_size=1, max_size=4)
    )
    saves = {key: value for key, value in values.items() if value is not None}
    return Commit(saves, [key for key in values if key not in saves])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(some_commits(), min_size=2, max_size=4))
def test_lives_that_nobody_thought_of(commits: list[Commit]) -> None:
    survive(commits)


# The check is real


class WithoutSync(ModelDirectory):
    """Whose names are never safe."""

    def sync(self) -> None:
        pass


class WithoutContentSync(ModelDirectory):
    """Whose files are never safe."""

    def sync_content(self, file: object) -> None:
        pass


class FirstSyncOnly(ModelDirectory):
    """Whose names are safe once in each commit."""

    synced = False

    def write(self, name: str, data: bytes) -> None:
        self.synced = False
        super().write(name, data)

    def sync(self) -> None:
        if not self.synced:
            super().sync()
        self.synced = True


@pytest.mark.parametrize(
    ("directory", "commits"),
    [
        (WithoutSync, LIVES["save"]),
        (WithoutSync, LIVES["save two"]),
        (WithoutContentSync, LIVES["save"]),
        (WithoutContentSync, LIVES["save two"]),
        (FirstSyncOnly, LIVES["one of a batch replaced"]),
    ],
)
def test_a_disk_that_does_not_sync_is_found_out(
    directory: Callable[[], ModelDirectory], commits: list[Commit]
) -> None:
    with pytest.raises(AssertionError, match="a mix is recovered"):
        survive(commits, directory())


class InPlace(Files):
    """Writes single values where they belong."""

    def commit(self, saves: Mapping[int, bytes], deletes: Collection[int]) -> None:
        for key, value in saves.items():
            self.directory.write(f"{key:05x}", value)
        self.directory.sync()


def test_writing_in_place_is_found_out() -> None:
    directory = ModelDirectory(frozenset([("00001", A)]))
    InPlace(directory).commit({1: B}, ())
    found: set[State] = set()
    for image in directory.take_images():
        found |= recovered(image)
    assert found > {frozenset([(1, A)]), frozenset([(1, B)]), frozenset([(1, b"")])}


# The disk fails first


@attrs.define
class FailingLife:
    """A life in which a commit fails, or what follows on it, and the next ones do not."""

    directory: ModelDirectory
    files: Files
    states: set[State]
    """What may be there: whether a commit that failed has happened is not known."""
    reached: bool = True
    """Whether the first failure came."""

    @classmethod
    def begin(cls) -> FailingLife:
        directory = ModelDirectory()
        files = Files(directory)
        files.open()
        files.commit(FULL.saves, FULL.deletes)
        return cls(directory, files, {contents(files)})

    def fail(self, commit: Commit, failing: Sequence[int]) -> bool:
        """Whether the commit told that it failed."""
        self.directory.take_images()
        self.directory.fail(*failing)
        after = {commit.apply(state) for state in self.states}
        failed = False
        try:
            self.files.commit(commit.saves, commit.deletes)
        except OSError:
            failed = True
        self.reached = self.directory.steps > failing[0]
        self.directory.fail()
        check_images(self.directory.take_images(), *self.states, *after)
        self.states = self.states | after if failed else after
        check_images(self.directory.images(), *self.states)
        return failed

    def go_on(self, commit: Commit) -> None:
        self.directory.take_images()
        self.files.commit(commit.saves, commit.deletes)
        after = {commit.apply(state) for state in self.states}
        check_images(self.directory.take_images(), *self.states, *after)
        self.states = {contents(self.files)}
        assert self.states <= after
        check_images(self.directory.images(), *self.states)


FAILING = {
    "a save": Commit({1: D}),
    "a new one": Commit({4: D}),
    "a deletion": Commit({}, [1]),
    "a batch": Commit({1: D, 4: D}, [2]),
    "deletions": Commit({}, [1, 2]),
}
NEXT = {
    "something else": Commit({5: D}),
    "the same key": Commit({1: B}),
    "its deletion": Commit({}, [1]),
    "a batch": Commit({1: B, 2: D}, [3, 4]),
}


@pytest.mark.parametrize("then", NEXT.values(), ids=NEXT)
@pytest.mark.parametrize("commit", FAILING.values(), ids=FAILING)
@pytest.mark.parametrize("duration", [1, 2, 3, 100])
def test_a_full_disk_leaves_nothing_in_the_middle(
    commit: Commit, then: Commit, duration: int
) -> None:
    failures = 0
    for start in itertools.count():
        life = FailingLife.begin()
        failures += life.fail(commit, range(start, start + duration))
        life.go_on(then)
        life.go_on(Commit({6: A}))
        if not life.reached:
            break
    assert failures >= 2


def test_what_could_not_be_stored_takes_no_room_on_the_full_disk() -> None:
    for commit in FAILING.values():
        life = FailingLife.begin()
        before = set(life.directory.names())
        assert life.fail(commit, [0])
        assert set(life.directory.names()) == before


def test_what_one_life_left_undone_is_not_done_in_a_later_one() -> None:
    directory = ModelDirectory()
    files = Files(directory)
    files.open()
    directory.fail(*range(5, 100))  # two values, the plan, its name and the sync went well
    files.commit({1: A, 2: B}, [3])
    directory.fail()
    assert contents(files) == frozenset()
    other = Files(directory)  # a process in between
    other.open()
    other.commit({3: C}, [])
    files.open()
    files.commit({4: D}, [])
    assert contents(files) == frozenset([(1, A), (2, B), (3, C), (4, D)])


def test_a_recovery_that_fails_may_be_repeated() -> None:
    directory = ModelDirectory()
    files = Files(directory)
    files.open()
    files.commit(FULL.saves, FULL.deletes)
    directory.fail(*range(5, 100))  # two values, the plan, its name and the sync go well
    files.commit({1: D, 4: D}, [2])
    directory.fail()
    (image,) = directory.images()
    for failing in itertools.count():
        directory = ModelDirectory(image)
        files = Files(directory)
        directory.fail(failing)
        try:
            files.open()
        except OSError:
            files.open()
        else:
            break
        assert contents(files) == frozenset([(1, D), (3, C), (4, D)])
    assert failing == 6
