"""Searches the histories of orders for the effects that the order book does not show.

Histories are read at half of the published rate, and the tags in one are read once for all requests
that search for theirs.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from neo_async.base.logs import Log
from neo_async.errors import ProtocolError, TransportError
from neo_async.execution.expected_effect import ExpectedEffect
from neo_async.execution.order import Order
from neo_async.execution.resolution import (
    MAX_HISTORIES,
    Proof,
    Resolution,
    needs_history,
    proof_by_history,
    proof_by_tags,
    tags_in,
)
from neo_async.model.orders import HistoryRow, OrderRow
from neo_async.session.polling import retry_until_answered

MAX_CONCURRENT_HISTORIES = 8
"""Number of histories that are read at once, at most: so many pass the limiter before they would be
taken for slow."""
HISTORY_INTERVAL_SECONDS = 0.2
"""Time between two histories, at least: half of the published rate is left to everything else."""
READ_TIMEOUT_SECONDS = 60.0
"""Time for which one order book or history is requested again and again. After that its reader
checks whether it is still needed."""


class HistorySearch:
    """Reads histories, each until it is answered, and remembers the tags in them."""

    def __init__(
        self, read: Callable[[str], Coroutine[Any, Any, list[HistoryRow]]], log: Log
    ) -> None:
        self._read = read
        self._log = log
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_HISTORIES)
        self._newest_at = -math.inf
        """Time of the loop at which the newest history was requested, or will be."""
        self._tags: dict[str, asyncio.Task[frozenset[str]]] = {}
        """Reads of tags, by order number."""

    async def by_tags(self, expected: ExpectedEffect, possible: Sequence[OrderRow]) -> Resolution:
        """Search the histories of the orders that may have lost the tag of a placement to a
        modification; `possible` are their rows, newest first."""
        # The order entered soon after the request, so it is among the oldest.
        searched = [row.number for row in possible[-MAX_HISTORIES:]]
        tags = await asyncio.gather(*(self._tags_of(number) for number in searched))
        found = list(zip(searched, tags, strict=True))
        resolution = proof_by_tags(expected, found, candidate_count=len(possible))
        if resolution.proof is Proof.NONE:
            for number, its_tags in found:
                if "" in its_tags:
                    self._tags.pop(number, None)
        return resolution

    async def by_terms(self, expected: ExpectedEffect, order: Order | None) -> Resolution:
        """Search the history of an order for the terms of a modification."""
        history: list[HistoryRow] = []
        if needs_history(expected):
            history = await self._history_of(expected.number)
        return proof_by_history(expected, order, history)

    def clear(self) -> None:
        """Drop all tags, also those that are still being read."""
        for task in self._tags.values():
            task.cancel()
        self._tags.clear()

    async def close(self) -> None:
        tasks = [*self._tags.values()]
        self.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _history_of(self, number: str) -> list[HistoryRow]:
        """Return the history of an order that exists: one without a state is no history.

        Raises TransportError when it could not be read for `READ_TIMEOUT_SECONDS`.
        """

        async def read() -> list[HistoryRow]:
            rows = await self._read(number)
            if not rows:
                raise ProtocolError(f"the history of order {number} is empty")
            return rows

        async with self._slots:
            loop = asyncio.get_running_loop()
            self._newest_at = max(loop.time(), self._newest_at + HISTORY_INTERVAL_SECONDS)
            await asyncio.sleep(self._newest_at - loop.time())
            try:
                async with asyncio.timeout(READ_TIMEOUT_SECONDS):
                    return await retry_until_answered(read, self._log)
            except TimeoutError:
                raise TransportError(
                    f"the history of order {number} could not be read for "
                    f"{READ_TIMEOUT_SECONDS:g} s"
                ) from None

    async def _tags_of(self, number: str) -> frozenset[str]:
        """Return every tag that an order has ever had, by a history that was requested for this
        call or an earlier one."""
        reading = self._tags.get(number)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception())):
            reading = asyncio.create_task(self._read_tags(number), name=f"tags of {number}")
            self._tags[number] = reading
        # A search that is cancelled must not take the tags from the others.
        return await asyncio.shield(reading)

    async def _read_tags(self, number: str) -> frozenset[str]:
        return tags_in(await self._history_of(number))
