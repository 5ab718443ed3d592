"""The queue of requests that wait for their start, by kind, then by arrival."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from neo_async.transport.kinds import Kind

READ_PATIENCE: Final = 2.0
"""Seconds in which no read starts although some wait, after which the next one goes before changes
and placements: reads resolve lost orders, too, and must not wait for a flood to
end."""

_CANCEL: Final = Kind.CANCEL
_READ: Final = Kind.READ

_BY_PRIORITY: Final = tuple(Kind)
_OVERDUE_READ_FIRST: Final = tuple(
    sorted(Kind, key=lambda kind: (kind is not _CANCEL, kind is not _READ))
)


class TurnQueue:
    """Gives turns: a request whose turn was given has still to take its start."""

    def __init__(self) -> None:
        self.queues: tuple[OrderedDict[asyncio.Future[None], None], ...] = tuple(
            OrderedDict() for _ in Kind
        )
        """Requests without a turn, by kind and arrival."""
        self.promised = [0] * len(Kind)
        """Turns that were given and not taken yet, by kind."""
        self.waiting = 0
        """Requests that have not started: those without a turn, and those with one not taken."""
        self.reads_wait_since = 0.0
        """Clock time at which the last read started, or the first one that waits came."""

    def join(self, kind: Kind, now: float, *, first: bool) -> asyncio.Future[None]:
        """Queue a request, before others of its kind where it is `first`. Return its turn; `leave`
        has to follow."""
        if kind is _READ and not self.queues[kind]:
            self.reads_wait_since = now
        self.waiting += 1
        return self._queue_up(kind, first=first)

    def rejoin(self, kind: Kind) -> asyncio.Future[None]:
        """Queue a request whose turn came too early again, before all others of its kind."""
        self.promised[kind] -= 1
        return self._queue_up(kind, first=True)

    def leave(self, kind: Kind, turn: asyncio.Future[None]) -> None:
        """Forget a request that has started, or gave up."""
        if turn in self.queues[kind]:
            del self.queues[kind][turn]
        else:
            self.promised[kind] -= 1
        self.waiting -= 1

    def give(self, kind: Kind) -> None:
        """Give the next request of a kind its turn."""
        turn, _ = self.queues[kind].popitem(last=False)
        self.promised[kind] += 1
        if not turn.done():  # else its caller has given up, and is about to pass it on
            turn.set_result(None)

    def fail(self, kind: Kind, error: Callable[[], Exception]) -> None:
        """Fail every request of a kind that has no turn, each with an error of its own."""
        queue = self.queues[kind]
        while queue:
            turn, _ = queue.popitem(last=False)
            self.promised[kind] += 1
            if not turn.done():
                turn.set_exception(error())

    def is_any_before(self, kind: Kind, now: float) -> bool:
        """Return whether a request that comes now has to wait for others."""
        if any(self.queues[before] or self.promised[before] for before in range(kind + 1)):
            return True
        return kind is not _CANCEL and self._is_read_overdue(now)

    def is_read_next(self, now: float) -> bool:
        """Return whether the next read goes before changes and placements: one, not all of them."""
        return not self.promised[_READ] and self._is_read_overdue(now)

    def by_priority(self, *, is_read_next: bool) -> tuple[Kind, ...]:
        """Return the kinds in the order in which they are given turns."""
        return _OVERDUE_READ_FIRST if is_read_next else _BY_PRIORITY

    def _is_read_overdue(self, now: float) -> bool:
        is_waiting = self.queues[_READ] or self.promised[_READ]
        return bool(is_waiting) and self.reads_wait_since + READ_PATIENCE <= now

    def _queue_up(self, kind: Kind, *, first: bool) -> asyncio.Future[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self.queues[kind]
        queue[turn] = None
        if first:
            queue.move_to_end(turn, last=False)
        return turn
