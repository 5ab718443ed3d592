"""Between a feed and its lines: messages that are lost, late, repeated or out of order."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

from neo_async.exchange.faults.plan import FaultPlan, FeedName
from neo_async.exchange.faults.settings import FeedFault

T = TypeVar("T")


class FeedFaults(Generic[T]):
    def __init__(
        self,
        plan: FaultPlan,
        feed: FeedName,
        push: Callable[[T], None],
        push_stray: Callable[[T], None],
        with_odd_value: Callable[[T, int], T] | None = None,
    ) -> None:
        """`push` sends a message at its time, `push_stray` one that comes again or too late;
        `with_odd_value` makes one that holds no number where one belongs."""
        self._plan = plan
        self._feed = feed
        self._push = push
        self._push_stray = push_stray
        self._with_odd_value = with_odd_value
        self._overtaken: list[T] = []
        self._late: list[tuple[float, int, T]] = []
        self._numbers = count()

    def send(self, message: T) -> None:
        if not self._plan.hits_feeds:
            self._push(message)
            return
        fault, seconds = self._plan.for_message(self._feed)
        if fault is FeedFault.LOSE:
            return
        if fault is FeedFault.REORDER:
            self._overtaken.append(message)
            return
        if fault is FeedFault.LATE:
            due = asyncio.get_running_loop().time() + seconds
            heapq.heappush(self._late, (due, next(self._numbers), message))
            return
        if fault is FeedFault.ODD_VALUE and self._with_odd_value is not None:
            message = self._with_odd_value(message, next(self._numbers))
        self._push(message)
        if fault is FeedFault.REPEAT:
            self._push_stray(message)
        self._push_overtaken()

    def tick(self) -> None:
        """Send what is due, and what nothing has come to overtake."""
        self._push_overtaken()
        now = asyncio.get_running_loop().time()
        while self._late and self._late[0][0] <= now:
            self._push_stray(heapq.heappop(self._late)[2])

    def _push_overtaken(self) -> None:
        overtaken, self._overtaken = self._overtaken, []
        for message in overtaken:
            self._push_stray(message)
