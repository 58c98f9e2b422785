"""Holds public calls to their docstrings: what they raise in any test is in `Raises:` there."""

from __future__ import annotations

import builtins
import functools
import inspect
import re
from collections.abc import Callable
from types import TracebackType
from typing import Any

import trio

import trio_mqtt
from trio_mqtt import BigMessage, Client, Exchange, MessageChannel, Session

CLASSES = (Client, Exchange, MessageChannel, BigMessage, Session)
SPECIAL = {"__anext__", "__enter__", "__aenter__"}
_COMMA = re.compile(r",\s*")
_ENTRY = re.compile(r"^ {4}(\S[^:]*?):(?: |$)", re.MULTILINE)


def documented(function: Callable[..., Any]) -> tuple[type[BaseException], ...]:
    """The exceptions under `Raises:`."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Raises:\n((?: .*\n?|\n)*)", text, re.MULTILINE)
    if section is None:
        return ()
    joined = re.sub(r"\n {5,}", " ", section[1])
    found = [exception(name) for entry in _ENTRY.findall(joined) for name in _COMMA.split(entry)]
    assert None not in found, found
    return tuple(error for error in found if error is not None)


def exception(name: str) -> type[BaseException] | None:
    """What has this name; None for what is none."""
    module, _, last = name.rpartition(".")
    places = (trio,) if module == "trio" else (trio_mqtt, builtins)
    found = next((getattr(place, last) for place in places if hasattr(place, last)), None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def hold() -> None:
    """Has each call of the public classes raise AssertionError in the place of what it hides."""
    for cls in CLASSES:
        for name, function in vars(cls).items():
            if inspect.isfunction(function) and (not name.startswith("_") or name in SPECIAL):
                setattr(cls, name, held(function))


def held(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, which raises AssertionError in the place of what its docstring does not say."""
    watch = _Watch(function)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            with watch:
                return await function(*args, **kwargs)

        return call

    @functools.wraps(function)
    def call_now(*args: Any, **kwargs: Any) -> Any:
        with watch:
            result = function(*args, **kwargs)
        return _Entering(result, watch) if function.__name__ == "open_subscription" else result

    return call_now


class _Watch:
    """Surrounds a call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = function.__qualname__
        self._documented = documented(function)

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        told = (*self._documented, AssertionError, StopAsyncIteration)
        if isinstance(error, Exception) and not isinstance(error, told):
            raise AssertionError(f"{self._name} does not say that it raises {error!r}") from error


class _Entering:
    """A subscription scope. What its body raises is the body's affair."""

    def __init__(self, scope: Any, watch: _Watch) -> None:
        self._scope = scope
        self._watch = watch

    async def __aenter__(self) -> Any:
        with self._watch:
            return await self._scope.__aenter__()

    async def __aexit__(self, *error: object) -> Any:
        return await self._scope.__aexit__(*error)  # noqa: ASYNC102, it is the scope's
