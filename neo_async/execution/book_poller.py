"""Reads the order book for as long as something waits for it: soon at first, then less often."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from neo_async.base.logs import Log
from neo_async.errors import TransportError
from neo_async.execution.history_search import READ_TIMEOUT_SECONDS
from neo_async.model.orders import OrderRow
from neo_async.session.polling import Poller, retry_until_answered

FIRST_READ_DELAY_SECONDS = 0.25
"""Time after the loss of an answer at which the order book is read. Every further read waits twice
as long, up to `MAX_READ_INTERVAL_SECONDS`."""
MAX_READ_INTERVAL_SECONDS = 5.0
MAX_READ_INTERVAL_AFTER_TIMEOUT_SECONDS = 30.0
"""Longest time between two reads when the resolution timeout of every request is over: only an
order book that can be read, or that has what the broker claims to have, is waited for then."""


class BookPoller:
    """Reads the order book by `read_book`, which applies it to the requests in flight."""

    def __init__(
        self,
        read_book: Callable[[], Coroutine[Any, Any, list[OrderRow]]],
        awaited_until: Callable[[], float | None],
        log: Log,
    ) -> None:
        """`awaited_until` returns the time of the loop at which the last resolution timeout of all
        requests ends; None while nothing is in flight."""
        self._read_book = read_book
        self._awaited_until = awaited_until
        self._log = log
        self._poller = Poller("order book", self._read_if_needed, self._due_in, log)
        self._reads = 0
        """Number of reads since the last loss of an answer."""
        self._read_at = -math.inf
        """Time of the loop of the next read."""
        self._needed_until = -math.inf
        """Time of the loop up to which a book is read although nothing is in flight."""

    def read_now(self, *, needed_for_seconds: float = 0.0) -> None:
        """Have the book read now, and even while nothing is in flight, for so long."""
        if needed_for_seconds:
            self._needed_until = asyncio.get_running_loop().time() + needed_for_seconds
        self._poller.ask()

    def read_soon(self) -> None:
        """Have the book read after the loss of an answer."""
        self._reads = 0
        self._schedule(FIRST_READ_DELAY_SECONDS)

    def read_again(self, failures: int) -> None:
        """Have the book read again after so many reports in a row that proved nothing; the more of
        them, the later."""
        self._schedule(_backoff(failures, MAX_READ_INTERVAL_SECONDS))

    async def close(self) -> None:
        await self._poller.close()

    def _schedule(self, delay: float) -> None:
        self._read_at = asyncio.get_running_loop().time() + delay
        self._poller.look()

    async def _read_if_needed(self) -> None:
        is_needed = asyncio.get_running_loop().time() < self._needed_until
        if not is_needed and self._awaited_until() is None:
            return
        try:
            async with asyncio.timeout(READ_TIMEOUT_SECONDS):
                await retry_until_answered(self._read_book, self._log)
        except TimeoutError:
            raise TransportError(
                f"no answer that is a book for {READ_TIMEOUT_SECONDS:g} s"
            ) from None

    def _due_in(self) -> float | None:
        """Return the seconds until the book has to be read; None while nothing is in flight."""
        awaited_until = self._awaited_until()
        if awaited_until is None:
            return None
        now = asyncio.get_running_loop().time()
        if self._poller.read_at >= self._read_at:
            self._reads += 1
            longest = MAX_READ_INTERVAL_SECONDS
            if awaited_until <= now:
                longest = MAX_READ_INTERVAL_AFTER_TIMEOUT_SECONDS
            self._read_at = self._poller.read_at + _backoff(self._reads, longest)
        return self._read_at - now


def _backoff(count: int, longest: float) -> float:
    return min(longest, FIRST_READ_DELAY_SECONDS * 2.0 ** min(count, 10))
