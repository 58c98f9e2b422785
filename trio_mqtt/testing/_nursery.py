"""A nursery for background tasks, out of which exceptions come bare."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_background_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """A nursery whose tasks end when the body does.

    A plain nursery wraps the body's exception in a group, which is no business of the caller's. So
    the exception is kept until the nursery has closed. When a task failed, that leaves instead,
    bare if it is alone; both together leave as one group, without the `trio.Cancelled` that the
    failure caused in the body.
    """
    body: BaseException | None = None
    background: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:  # noqa: BLE001  # raised below
                body = error
            nursery.cancel_scope.cancel()
    except BaseException as error:  # noqa: BLE001  # raised below
        background = error
    failures = [] if background is None else list(_failures(background))
    if failures:
        if body is not None:
            failures = [*_failures(body), *failures]
        raise failures[0] if len(failures) == 1 else BaseExceptionGroup("several failed", failures)
    if body is not None:
        raise body
    if background is not None:
        raise background  # the cancellation of a scope further out


def _failures(
    error: BaseException | BaseExceptionGroup[BaseException],
) -> Sequence[BaseException]:
    """What is no `trio.Cancelled` in `error`, out of its groups."""
    if isinstance(error, BaseExceptionGroup):
        return [failure for inner in error.exceptions for failure in _failures(inner)]
    return [] if isinstance(error, trio.Cancelled) else [error]
