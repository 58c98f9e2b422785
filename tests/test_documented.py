"""What calls raise: `docs/errors.md` against the docstrings, and how those are held."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_mqtt
from trio_mqtt import Client, MessageChannel

from .documented import CLASSES, SPECIAL, documented, exception, held

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
FUNCTIONS = (
    "open_client",
    "volatile_session",
    "init_session",
    "adopt_session",
    "move_on_after",
    "move_on_at",
    "fail_after",
    "fail_at",
)


def calls() -> dict[str, Callable[..., Any]]:
    """All of which an application may ask what it raises."""
    found = {name: getattr(trio_mqtt, name) for name in FUNCTIONS}
    for cls in CLASSES:
        for name, function in vars(cls).items():
            if callable(function) and (not name.startswith("_") or name in SPECIAL):
                found[f"{cls.__name__}.{name}"] = function
    return found


def table(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([\w.]+)`", cell))


RAISES = {call: cells[1] for cells in table("Each call") for call in names(cells[0])}
OF_NO_REQUEST = {"Session.use"}
"""For the client alone to call."""


@pytest.mark.parametrize("call", calls())
def test_the_page_says_what_the_docstring_says(call: str) -> None:
    told = set(documented(calls()[call])) - {Exception}
    if call in RAISES:
        assert {error for name in names(RAISES[call]) if (error := exception(name))} == told
    else:
        assert not told or call in OF_NO_REQUEST


def test_the_page_tells_of_nothing_else() -> None:
    assert set(RAISES) <= set(calls())


def test_the_page_explains_each_error() -> None:
    explained = {exception(name) for cells in table("Each error") for name in names(cells[0])}
    raised = {error for function in calls().values() for error in documented(function)}
    ours = {error for error in raised if error.__module__.split(".")[0] != "trio"}
    assert ours - {Exception} <= explained
    assert None not in explained


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_the_python_of_the_pages_is_python(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        compile(block, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_what_a_docstring_says_is_read() -> None:
    assert documented(Client.flush) == (trio_mqtt.ClientClosed,)
    assert trio.BusyResourceError in documented(MessageChannel.receive_nowait)
    assert documented(Client.statistics) == ()


async def test_what_a_docstring_hides_fails_the_test() -> None:
    def lie(error: Exception) -> None:
        """Does nothing.

        Raises:
            LookupError: sometimes.
        """
        raise error

    with pytest.raises(KeyError):
        held(lie)(KeyError())
    with pytest.raises(AssertionError, match=r"lie does not say that it raises OSError"):
        held(lie)(OSError())
