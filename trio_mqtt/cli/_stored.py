"""``--session DIRECTORY``: what was accepted is delivered by this call, or by the next one."""

from __future__ import annotations

from trio_mqtt import Denied, FileSystem, Session, adopt_session, init_session
from trio_mqtt._settings import check_client_id

from ._failures import Misuse
from ._output import say


async def open_session(directory: str, client_id: str | None) -> Session:
    """The session of a directory, a new one if there is none.

    Raises:
        Misuse: it belongs to another client identifier.
        PersistenceError: the directory is in use, cannot be used, or has something else in it.
    """
    storage = FileSystem(directory)
    try:
        session = await adopt_session(storage)
    except Denied:  # it is empty
        return await init_session(check_client_id(client_id), storage)
    if client_id not in (None, session.client_id):
        await session.aclose()
        raise Misuse(
            f"the session in {directory} is that of --client-id {session.client_id}, which may be "
            "left out"
        )
    return session


def tell_about(session: Session) -> None:
    """Says what an earlier run left behind."""
    for warning in session.warnings:
        say(f"the session was damaged: {warning}")
    if session.pending:
        say(f"{_messages(len(session.pending))} of earlier calls to be delivered first")


def undelivered(directory: str, count: int, reason: object) -> str:
    """What to say when the end comes too early."""
    return (
        f"{_messages(count)} in {directory} not confirmed yet ({reason}): the next call with this "
        "--session delivers what is there, also one that has nothing to send: --lines </dev/null"
    )


def _messages(count: int) -> str:
    return "1 message is" if count == 1 else f"{count:,} messages are"
