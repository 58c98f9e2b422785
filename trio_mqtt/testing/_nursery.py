"""A nursery for background tasks, out of which exceptions come bare."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import trio


@asynccontextmanager
async def open_background_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """A nursery whose tasks end when the body does.

    A plain nursery wraps the body's exception in a group, which is no business of the caller's. So
    the exception is kept until the nursery has closed. When a task failed, that leaves instead,
    bare if it is alone; both together leave as one group, without the `trio.Cancelled` that the
    failure caused in the body.
    """
    background, body = _Keep(), _Keep()
    with background:
        async with trio.open_nursery() as nursery:
            with body:
                yield nursery
            nursery.cancel_scope.cancel()
    error = _combined(background.error, body.error)
    background.error = body.error = None
    if error is not None:
        try:
            raise error
        finally:
            del error  # a frame that holds its own exception is a cycle


class _Keep:
    """Keeps whatever exception leaves the block."""

    error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        self.error = error
        return True


def _combined(background: BaseException | None, body: BaseException | None) -> BaseException | None:
    failures = _failures(background)
    if not failures:
        # Of the background, it is the cancellation of a scope further out.
        return background if body is None else body
    failures = [*_failures(body), *failures]
    return failures[0] if len(failures) == 1 else BaseExceptionGroup("several failed", failures)


def _failures(error: BaseException | None) -> Sequence[BaseException]:
    """What is no `trio.Cancelled` in `error`, out of its groups."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)  # narrowed to one of Unknown
        return [failure for inner in group.exceptions for failure in _failures(inner)]
    return [] if error is None or isinstance(error, trio.Cancelled) else [error]
