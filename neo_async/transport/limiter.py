"""How fast requests may start.

A leaky bucket of 10 a second lets 19 requests into its first second, which a server that counts a
sliding window answers with 429. This limiter never lets more than N starts into any window of one
second, admits a burst of N when idle, and reaches N a second (less the margin) when kept busy.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum
from itertools import islice
from typing import Final, TypeAlias

from aiolimiter import AsyncLimiter

from neo_async.config import RateLimits
from neo_async.errors import RateLimited
from neo_async.transport.backoff import backoff

log = logging.getLogger(__name__)

# Starts are counted here, arrivals at the server: a request that travelled faster than one before
# it comes closer to it by the difference. The margin absorbs that, at a cost of 1.5 % of the rate.
WINDOW = 1.015


READ_PATIENCE = 2.0
"""Seconds in which no read starts although some wait, after which the next one goes before changes
and placements: what became of lost orders is read, too, and must not wait for a flood to end."""


class Kind(IntEnum):
    """What a request is for; the lower value is served first, but a read that no other has
    started before for `READ_PATIENCE` comes right after the cancels."""

    CANCEL = 0
    MODIFY = 1
    PLACE = 2
    READ = 3


_READ: Final = Kind.READ
"""Bound once: on Python 3.11 reading a member off its class takes a tenth of a microsecond."""

Refusal: TypeAlias = Callable[[Kind], Exception | None]
"""What to raise instead of starting a request of some kind; None lets it start."""

_IST = 19_800
_DAY = 86_400


class DailyQuota:
    """Starts allowed on one calendar day in India.

    It counts those of this process only: what was used before, or by others, the server knows, and
    answers with 429.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives Unix seconds."""
        self.limit = limit
        self._clock = clock
        self._day = 0
        self.used = 0
        """Starts of the day of the last one."""

    def take(self) -> None:
        """Raises RateLimited, with the seconds until midnight, when nothing is left."""
        day, second = divmod(self._clock() + _IST, _DAY)
        if day != self._day:
            self._day, self.used = int(day), 0
        if self.used >= self.limit:
            raise RateLimited(
                f"the plan's {self.limit:,} requests of today are used up: nothing was sent",
                retry_after=_DAY - second,
            )
        self.used += 1

    def give_back(self) -> None:
        self.used = max(0, self.used - 1)


class Limiter:
    """Admits starts in order of kind, then of arrival.

    Two windows: `orders` counts cancels, modifies and places, `total` counts everything. A start is
    counted at the moment in which `acquire` returns, so nothing may be awaited between that and
    the writing of the request.
    """

    def __init__(
        self,
        limits: RateLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        window: float = WINDOW,
        quota: DailyQuota | None = None,
    ) -> None:
        self.limits = limits
        self._quota = quota
        self._clock = clock
        self._window = window
        self._orders: deque[float] = deque(maxlen=limits.orders)
        self._total: deque[float] = deque(maxlen=limits.total)
        self._queues: tuple[deque[asyncio.Future[None]], ...] = tuple(deque() for _ in Kind)
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None
        self._paused_until = 0.0
        self._refusals_in_a_row = 0
        self._refusal: Refusal | None = None
        # Reads fill at most half of the window at once, so that a sudden cancel does not find it
        # full for a whole second. For that a leaky bucket is just right.
        burst = max(1.0, limits.total / 2)
        self._reads = AsyncLimiter(burst, burst / limits.total)
        self._reads_wait_since = 0.0
        """When the last read started, or when the first one that waits came."""
        self.starts = [0] * len(Kind)
        """Starts so far, by kind."""
        self.waits = 0
        """Orders and reads that had to queue."""
        self.pauses = 0
        """Times the server said 429."""

    async def acquire(self, kind: Kind) -> float:
        """Wait for the right to start one request. Cancelling the wait frees its place.

        Returns the time of the start on the limiter's clock, which `restart` and `give_back` take.
        Raises what `refuse_by` says, and RateLimited when the quota of the day is used up.
        """
        if self._refusal is not None:
            self._check(kind)
        if kind is _READ:
            await self._reads.acquire()
        if not self._queued or not self._somebody_before(kind):
            started = self._start(kind)
            if started is not None:
                return started
        self.waits += 1
        queue = self._queues[kind]
        if kind is Kind.READ and not queue:
            self._reads_wait_since = self._clock()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._queued += 1
        try:
            while True:
                self._wake()
                if turn.done():
                    # Those before it got theirs in this same moment, and have yet to wake up.
                    await asyncio.sleep(0)
                await turn
                if self._refusal is not None:
                    self._check(kind)
                # The start counts from now, not from when the turn was given: a loop that was held
                # up in between must not make two starts come closer than they were planned.
                started = self._start(kind)
                if started is not None:
                    return started
                position = queue.index(turn)
                turn = asyncio.get_running_loop().create_future()
                queue[position] = turn
        finally:
            queue.remove(turn)
            self._queued -= 1
            self._wake()

    def restart(self, kind: Kind, started: float) -> float | None:
        """Move a start to now: something had to be awaited after all before the request went out.

        None when that cannot be: a pause has begun meanwhile, or the start is older than the window
        and its room given away. `acquire` must be called again then. Raises what `refuse_by` says.
        """
        if self._refusal is not None:
            self._check(kind)
        now = self._clock()
        # Written as in _free_at: the difference, rounded, may disagree with it.
        if now < self._paused_until or started + self._window <= now:
            return None
        self._forget(kind, started)
        self._remember(kind, now)
        return now

    def give_back(self, kind: Kind, started: float) -> None:
        """Undo a start: nothing was sent."""
        self._forget(kind, started)
        if self._quota is not None:
            self._quota.give_back()
        self._wake()

    def refuse_by(self, refusal: Refusal | None) -> None:
        """Ask `refusal` before every start from now on, and at once for those that wait; None asks
        nobody any more."""
        self._refusal = refusal
        if refusal is None:
            return
        for kind in Kind:
            if refusal(kind) is not None:
                for turn in self._queues[kind]:
                    if not turn.done():
                        turn.set_result(None)  # it wakes up to find itself refused

    def refusal(self, kind: Kind) -> Exception | None:
        """What a start of this kind would raise now."""
        return None if self._refusal is None else self._refusal(kind)

    def pause(self, retry_after: float | None) -> float:
        """Let nothing start for as long as the server asked (or a growing, jittered while when it
        did not say). Returns that time in seconds."""
        self.pauses += 1
        now = self._clock()
        begins = now >= self._paused_until  # else it is one more answer to the same burst
        if begins:
            self._refusals_in_a_row += 1
        if not retry_after:  # a server that says 0 would be asked again at once, for ever
            retry_after = backoff(self._refusals_in_a_row, base=0.5, cap=30.0)
        self._paused_until = max(self._paused_until, now + retry_after)
        level = logging.WARNING if begins else logging.DEBUG
        log.log(level, "rate limit hit (429): nothing starts for %.2f s", self._paused_until - now)
        self._wake()
        return self._paused_until - now

    def succeeded(self) -> None:
        """The server took a request: the next 429 is the first in a row again."""
        self._refusals_in_a_row = 0

    @property
    def paused_for(self) -> float:
        """Seconds for which nothing starts; 0 unless the server has said 429."""
        return max(0.0, self._paused_until - self._clock())

    @property
    def waiting(self) -> int:
        return self._queued

    def __repr__(self) -> str:
        now = self._clock()
        recent = sum(1 for start in self._total if now - start < self._window)
        paused = f", paused {self.paused_for:.1f} s" if self.paused_for else ""
        return (
            f"<Limiter {recent}/{self.limits.total} in the window, {self.waiting} waiting{paused}>"
        )

    def _check(self, kind: Kind) -> None:
        error = self.refusal(kind)
        if error is not None:
            raise error

    def _somebody_before(self, kind: Kind) -> bool:
        if any(self._queues[before] for before in range(kind + 1)):
            return True
        return kind is not Kind.CANCEL and self._is_read_overdue()

    def _is_read_overdue(self) -> bool:
        is_waiting = bool(self._queues[Kind.READ])
        return is_waiting and self._reads_wait_since + READ_PATIENCE <= self._clock()

    def _start(self, kind: Kind) -> float | None:
        now = self._clock()
        if self._free_at(kind) > now:
            return None
        if self._quota is not None:
            self._quota.take()
        self._remember(kind, now)
        return now

    def _remember(self, kind: Kind, started: float) -> None:
        self._total.append(started)
        if kind is not _READ:
            self._orders.append(started)
        self.starts[kind] += 1

    def _forget(self, kind: Kind, started: float) -> None:
        # Absent when so many started since that it has left the window's memory.
        if started in self._total:
            self._total.remove(started)
        if kind is not _READ and started in self._orders:
            self._orders.remove(started)
        self.starts[kind] -= 1

    def _free_at(self, kind: Kind) -> float:
        """When the next start of this kind is possible; the past when it is possible now."""
        at = self._paused_until
        total, orders = self._total, self._orders
        if len(total) == total.maxlen:
            at = max(at, total[0] + self._window)
        if kind is not _READ and len(orders) == orders.maxlen:
            at = max(at, orders[0] + self._window)
        return at

    def _room(self, starts: deque[float], now: float) -> int:
        """Starts that fit into the window that ends now."""
        assert starts.maxlen is not None
        room = starts.maxlen - len(starts)
        for start in starts:
            if start + self._window > now:
                break
            room += 1
        return room

    def _wake(self) -> None:
        """Give as many turns as there is room for, highest kind first; time the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._queued:
            return
        now = self._clock()
        if now >= self._paused_until:
            self._give_turns(self._room(self._total, now), self._room(self._orders, now))
        due = [
            self._free_at(kind)
            for kind in Kind
            if any(not turn.done() for turn in self._queues[kind])
        ]
        # Room that is there but promised to a turn not yet taken needs no timer: taking it wakes.
        if due and (wait := min(due) - now) > 0:
            self._timer = asyncio.get_running_loop().call_later(wait, self._wake)

    def _give_turns(self, total: int, orders: int) -> None:
        for kind, turns in self._in_order():
            for turn in turns:
                if total <= 0 or (kind is not Kind.READ and orders <= 0):
                    break
                # A turn given before and not taken yet still needs its room.
                if not turn.done():
                    turn.set_result(None)
                total -= 1
                if kind is not Kind.READ:
                    orders -= 1

    def _in_order(self) -> Iterable[tuple[Kind, Iterable[asyncio.Future[None]]]]:
        """Those who wait, in the order in which they are to start."""
        if not self._is_read_overdue():
            return zip(Kind, self._queues, strict=True)
        cancels, modifies, places, reads = self._queues
        return (
            (Kind.CANCEL, cancels),
            (Kind.READ, islice(reads, 1)),
            (Kind.MODIFY, modifies),
            (Kind.PLACE, places),
            (Kind.READ, islice(reads, 1, None)),
        )
