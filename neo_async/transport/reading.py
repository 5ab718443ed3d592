"""How an answer is handed to what reads it: bounded in the time that it holds the event loop, and
with one error for whatever cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from neo_async.errors import NeoError, ProtocolError
from neo_async.model.answer import Answer
from neo_async.transport.hidden import without_frames
from neo_async.wire.lenient import UNREADABLE

T = TypeVar("T")

AT_ONCE: Final = 64 << 10
"""Bytes of an answer that are read on the event loop; longer ones are read in a thread."""


async def read_answer(answer: Answer, read: Callable[[Answer], T]) -> T:
    """What `read` makes of an answer. Raises what it raises, and ProtocolError where it meets what
    no reader can read, such as JSON that is nested too deeply."""
    if len(answer.body) <= AT_ONCE:
        return read_now(answer, read)
    return await asyncio.to_thread(read_now, answer, read)


def read_now(answer: Answer, read: Callable[[Answer], T]) -> T:
    """As `read_answer`, in this very moment: for an answer of `AT_ONCE` bytes at most."""
    try:
        return read(answer)
    except NeoError as error:
        # The reader's frames hold what the server said, which may repeat secrets.
        raise without_frames(error)  # noqa: B904 - it is the error itself
    except UNREADABLE as error:
        raise ProtocolError(
            f"the answer cannot be read: {type(error).__name__}", status=answer.status
        ) from None
