"""Decoding of answers: long ones in a thread, and one error for whatever cannot be decoded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

from neo_async.errors import NeoError, ProtocolError
from neo_async.model.answer import Answer
from neo_async.transport.hidden import without_frames
from neo_async.transport.meter import Meter
from neo_async.transport.redaction import Secrets
from neo_async.wire.lenient import UNREADABLE

T = TypeVar("T")

AT_ONCE: Final = 64 << 10
"""Bytes of an answer that are decoded on the event loop; longer ones are decoded in a thread."""


class AnswerReader:
    """Decodes answers, times that, and takes what was sent out of the errors.

    A decoder's error keeps the broker's words, and a broker that refuses a request may repeat it.
    """

    def __init__(self, meter: Meter, secrets: Callable[[], Secrets]) -> None:
        """`secrets` returns what no error may repeat; it is called when there is an error."""
        self._meter = meter
        self._secrets = secrets

    async def read(self, kind: int, answer: Answer, decode: Callable[[Answer], T]) -> T:
        """Return what `decode` returns for an answer, or raise what it raises, redacted."""
        if len(answer.body) <= AT_ONCE:
            return self.read_now(kind, answer, decode)
        began = time.perf_counter()
        try:
            result = await read_answer(answer, decode)
        except NeoError as error:
            self._secrets().scrub_error(error)
            raise
        self._meter.answered(kind, answer.first_byte, time.perf_counter() - began)
        return result

    def read_now(self, kind: int, answer: Answer, decode: Callable[[Answer], T]) -> T:
        """Decode an answer of at most `AT_ONCE` bytes, as `read` does. It is not a coroutine, since
        the answer to every order passes through it."""
        began = time.perf_counter()
        try:
            result = read_now(answer, decode)
        except NeoError as error:
            self._secrets().scrub_error(error)
            raise
        self._meter.answered(kind, answer.first_byte, time.perf_counter() - began)
        return result


async def read_answer(answer: Answer, read: Callable[[Answer], T]) -> T:
    """Return what `read` returns for an answer.

    Raises what it raises, and ProtocolError where it meets what no decoder can read, such as JSON
    that is nested too deeply.
    """
    if len(answer.body) <= AT_ONCE:
        return read_now(answer, read)
    return await asyncio.to_thread(read_now, answer, read)


def read_now(answer: Answer, read: Callable[[Answer], T]) -> T:
    """Decode an answer of at most `AT_ONCE` bytes on the event loop, as `read_answer` does."""
    try:
        return read(answer)
    except NeoError as error:
        # The decoder's frames hold what the server sent, which may repeat secrets.
        raise without_frames(error)  # noqa: B904 - it is the error itself
    except UNREADABLE as error:
        raise ProtocolError(
            f"the answer cannot be read: {type(error).__name__}", status=answer.status
        ) from None
