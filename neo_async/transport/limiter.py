"""Rate limiter of the starts of requests.

A start is counted under the rate limits (StartWindow) and the quota of the day (DailyQuota).
Requests that cannot start now wait in a queue by kind (TurnQueue), and a 429 keeps all or some of
them from starting for a while (RatePause). This module applies them in their order.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from aiolimiter import AsyncLimiter

from neo_async.base.logs import Log
from neo_async.config import RateLimits
from neo_async.errors import RateLimited
from neo_async.transport.daily_quota import DailyQuota
from neo_async.transport.kinds import Kind
from neo_async.transport.rate_pause import RatePause
from neo_async.transport.start_window import WINDOW, StartWindow
from neo_async.transport.trading_state import TradingState
from neo_async.transport.turn_queue import TurnQueue

_READ: Final = Kind.READ
"""Bound once: on Python 3.11 reading a member off its class takes a tenth of a microsecond."""


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
        state: TradingState | None = None,
    ) -> None:
        self.limits = limits
        self.state = state or TradingState()
        """Checked at the moment of every start."""
        self.state.on_halt(self._wake_refused)
        self._quota = quota
        self._clock = clock
        self._window = window
        self._orders = StartWindow(limits.orders, window)
        self._total = StartWindow(limits.total, window)
        self._turns = TurnQueue()
        self._held_ahead = [0] * len(Kind)
        """Starts that were put off (see `hold`), of this kind and those before it."""
        self._timer: asyncio.TimerHandle | None = None
        """Calls `_wake` when the next start is possible."""
        self._pause = RatePause(window)
        self._paused_until = self._pause.until
        self.patience: tuple[float, ...] = (math.inf,) * len(Kind)
        """Seconds, by kind, of the longest pause that a request waits for."""
        # Reads fill at most half of the window at once, so that a sudden order does not find it
        # full for a whole second. For that a leaky bucket is just right.
        burst = max(1.0, limits.total / 2)
        self._reads = AsyncLimiter(burst, burst / limits.total)
        self.starts = [0] * len(Kind)
        """Starts so far, by kind."""
        self.waits = 0
        """Requests so far that had to queue."""
        self.pauses = 0
        """Number of times that the server answered 429."""

    def log_to(self, log: Log) -> None:
        """Write lines about the rate limit to this log."""
        self._pause.log = log

    async def acquire(self, kind: Kind, *, first: bool = False) -> float:
        """Wait for the right to start one request, before others of its kind where it is `first`.
        Cancelling the wait frees its place.

        Returns the time of the start on the limiter's clock, which `restart`, `hold` and
        `give_back` take. Raises Halted, and RateLimited when the quota of the day is
        used up or a pause lasts longer than the `patience` for this kind.
        """
        if self.state.is_checked:
            self.state.check(kind)
        if kind is _READ:
            await self._reads.acquire()
        started = self.start_now(kind)
        if started is not None:
            return started
        self._check_pause(kind)
        self.waits += 1
        turns = self._turns
        turn = turns.join(kind, self._clock(), first=first)
        try:
            while True:
                self._wake()
                if turn.done():
                    # Those before it got theirs in this same moment, and have yet to wake up.
                    await asyncio.sleep(0)
                await turn
                if self.state.is_checked:
                    self.state.check(kind)
                # The start counts from now, not from when the turn was given: a loop that was held
                # up in between must not make two starts come closer than they were planned.
                started = self._start(kind, self._held_ahead[kind])
                if started is not None:
                    return started
                turn = turns.rejoin(kind)
        finally:
            turns.leave(kind, turn)
            self._wake()

    def start_now(self, kind: Kind) -> float | None:
        """Make a start in this very moment, and return its time; None when there is no room or
        others wait for it: `acquire` has to be called. Raises as that does."""
        if self.state.is_checked:
            self.state.check(kind)
        turns = self._turns
        if turns.waiting and turns.is_any_before(kind, self._clock()):
            return None
        return self._start(kind, self._held_ahead[kind])

    def restart(self, kind: Kind, started: float) -> float | None:
        """Move a start to now, and return its new time: something had to be awaited after all
        before the request was sent.

        None when that cannot be: a pause has begun meanwhile, or the start is older than the window
        and its room given away. `acquire` must be called again then. Raises Halted.
        """
        if self.state.is_checked:
            self.state.check(kind)
        now = self._clock()
        # Written as in StartWindow: the difference, rounded, may disagree with it.
        if now < self._paused_until[kind] or started + self._window <= now:
            return None
        self._forget(kind, started)
        self._remember(kind, now)
        return now

    def answered_late(self, kind: Kind, started: float) -> None:
        """Count a start as one of now: the first request on a connection may have arrived at any
        time until its answer, since proxies may have been connecting still. After an answer that
        took longer than the window, which is a slow server's, it counts where it was."""
        now = self._clock()
        if started + self._window > now:
            self._forget(kind, started)
            self._remember(kind, now)

    def give_back(self, kind: Kind, started: float) -> None:
        """Undo a start: nothing was sent."""
        self._forget(kind, started)
        if self._quota is not None:
            self._quota.give_back()
        self._wake()

    def hold(self, kind: Kind, started: float) -> None:
        """Put a start off that cannot be made yet, for want of a connection: nothing was sent.

        Others of this kind and the kinds behind it leave room for it, so that no more requests come
        to wait for a connection than may start; cancels and reads do not. `start_held` or `release`
        has to follow.
        """
        for behind in range(kind, _READ):
            self._held_ahead[behind] += 1
        self.give_back(kind, started)

    def hold_now(self, kind: Kind) -> bool:
        """Put a start off that would be possible in this very moment; return False when it would
        not: `acquire` has to be called. Raises as that does."""
        if self.state.is_checked:
            self.state.check(kind)
        turns = self._turns
        if turns.waiting and turns.is_any_before(kind, self._clock()):
            return False
        ahead = self._held_ahead[kind]
        if self._free_at(kind, ahead, ahead) > self._clock():
            return False
        for behind in range(kind, _READ):
            self._held_ahead[behind] += 1
        return True

    def start_held(self, kind: Kind) -> float | None:
        """Make a start now that was put off, and return its time; None when others have taken its
        room, or a pause began: `acquire` has to be called again. Raises Halted."""
        try:
            if self.state.is_checked:
                self.state.check(kind)
            return self._start(kind)
        finally:
            self.release(kind)

    def release(self, kind: Kind) -> None:
        """Give up a start that was put off."""
        for behind in range(kind, _READ):
            self._held_ahead[behind] -= 1
        self._wake()

    def _wake_refused(self) -> None:
        """Wake the requests that a halt refuses: each finds that out by itself."""
        for kind, queue in zip(Kind, self._turns.queues, strict=True):
            if queue and self.state.refusal(kind) is not None:
                while queue:
                    self._turns.give(kind)

    def pause(self, retry_after: float | None, kind: Kind | None = None) -> float:
        """Let nothing start for as long as the server requested with a 429; see RatePause.begin.
        Return the seconds until a request of this kind may be made again."""
        self.pauses += 1
        now = self._clock()
        self._pause.begin(retry_after, kind, now)
        self._fail_impatient(now)
        self._wake()
        return self._paused_until[Kind.PLACE if kind is None else kind] - now

    def succeeded(self) -> None:
        """Note that the server took a request: the next 429 is the first in a row again."""
        self._pause.refusals_in_a_row = 0

    @property
    def paused_for(self) -> float:
        """Seconds until every kind may start; 0 unless the server has answered 429. Cancels start
        sooner."""
        return max(0.0, max(self._paused_until) - self._clock())

    @property
    def waiting(self) -> int:
        """Requests that wait for their start."""
        return self._turns.waiting

    def waiting_of(self, kind: Kind) -> int:
        """Return the number of requests of a kind that wait for their start."""
        return len(self._turns.queues[kind]) + self._turns.promised[kind]

    def __repr__(self) -> str:
        recent = self._total.count(self._clock())
        paused = f", paused {self.paused_for:.1f} s" if self.paused_for else ""
        return (
            f"<Limiter {recent}/{self.limits.total} in the window, {self.waiting} waiting{paused}>"
        )

    # --- pauses -------------------------------------------------------------------------------

    def _check_pause(self, kind: Kind) -> None:
        """Raise RateLimited when a pause lasts longer than the patience of a kind."""
        rest = self._paused_until[kind] - self._clock()
        if rest > self.patience[kind]:
            raise self._impatience(kind, rest)

    def _impatience(self, kind: Kind, rest: float) -> RateLimited:
        return RateLimited(
            f"the server has answered 429, and no {kind.name.lower()} starts for another "
            f"{rest:.1f} s: longer than the {self.patience[kind]:g} s for which this one may wait; "
            "nothing was sent",
            retry_after=rest,
            was_sent=False,
        )

    def _fail_impatient(self, now: float) -> None:
        """Fail the waiting requests that a pause keeps for longer than their patience."""
        for kind in Kind:
            rest = self._paused_until[kind] - now
            if rest > self.patience[kind]:
                self._turns.fail(kind, partial(self._impatience, kind, rest))

    # --- starts -------------------------------------------------------------------------------

    def _start(self, kind: Kind, ahead: int = 0) -> float | None:
        now = self._clock()
        if self._free_at(kind, ahead, ahead) > now:
            return None
        if self._quota is not None:
            self._quota.take()
        self._remember(kind, now)
        return now

    def _remember(self, kind: Kind, started: float) -> None:
        self._total.add(started)
        if kind is _READ:
            self._turns.reads_wait_since = started
        else:
            self._orders.add(started)
        self.starts[kind] += 1

    def _forget(self, kind: Kind, started: float) -> None:
        self._total.remove(started)
        if kind is not _READ:
            self._orders.remove(started)
        self.starts[kind] -= 1

    def _free_at(self, kind: Kind, ahead: int, orders_ahead: int) -> float:
        """Return when the next start of this kind is possible, a time in the past when it is
        possible now, after `ahead` others, of which `orders_ahead` are orders."""
        at = self._paused_until[kind]
        # A window with room for two delays no start; that is checked here, since a call
        # costs more than the check.
        window = self._total
        if ahead + len(window.starts) > window.limit - 2:
            at = max(at, window.free_at(kind, ahead))
        if kind is not _READ:
            window = self._orders
            if orders_ahead + len(window.starts) > window.limit - 2:
                at = max(at, window.free_at(kind, orders_ahead))
        return at

    # --- turns --------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Give as many turns as there is room for, highest kind first; time the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        turns = self._turns
        if not turns.waiting:
            return
        now = self._clock()
        due = math.inf
        is_read_next = turns.is_read_next(now)
        for kind in turns.by_priority(is_read_next=is_read_next):
            queue = turns.queues[kind]
            while queue:
                # A turn given before and not taken yet still needs its room.
                promised = sum(turns.promised)
                held = self._held_ahead[kind]
                orders_promised = promised - turns.promised[_READ]
                at = self._free_at(kind, held + promised, held + orders_promised)
                if at > now:
                    due = min(due, at)
                    break
                turns.give(kind)
                if is_read_next and kind is _READ:
                    break
        # Room that is there but promised to a turn not yet taken needs no timer: taking it wakes.
        if due < math.inf and not any(turns.promised):
            self._timer = asyncio.get_running_loop().call_later(due - now, self._wake)
