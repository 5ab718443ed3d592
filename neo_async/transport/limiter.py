"""How fast requests may start.

A leaky bucket of 10 a second lets 19 requests into its first second, which a server that counts a
sliding window answers with 429. This limiter never lets more than N starts into any window of one
second, and reaches N a second (less the margin) when kept busy.

Priority alone does not help a cancel: a window that was filled at once stays full for a second.
Therefore the last free start is taken by something other than a cancel only when another one
becomes free within `CANCEL_WAIT`. An idle limiter of 10 a second admits nine placements at once,
and ten cancels.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from aiolimiter import AsyncLimiter

from neo_async import logs
from neo_async.config import RateLimits
from neo_async.errors import RateLimited
from neo_async.model.india import DAY_SECONDS, IST_SECONDS
from neo_async.transport.backoff import backoff
from neo_async.transport.kinds import Kind
from neo_async.transport.trading_state import TradingState

log = logging.getLogger(logs.TRANSPORT)

# Starts are counted here, arrivals at the server: a request that travelled faster than one before
# it comes closer to it by the difference. The margin absorbs that, at a cost of 1.5 % of the rate.
WINDOW = 1.015

CANCEL_WAIT = 0.15
"""Seconds after which a start is free for a cancel at the latest, whatever else is sent. Limits of
less than seven a second are spread evenly instead: there, nothing shorter can be kept without
starts that stay unused."""

READ_PATIENCE = 2.0
"""Seconds in which no read starts although some wait, after which the next one goes before changes
and placements: what became of lost orders is read, too, and must not wait for a flood to end."""

LONGEST_PAUSE = 60.0
"""Seconds for which a 429 stops anything, whatever the server asked for: limits count seconds, and
one answer of a gateway must not end a trading day."""


_CANCEL: Final = Kind.CANCEL
_READ: Final = Kind.READ
"""Bound once: on Python 3.11 reading a member off its class takes a tenth of a microsecond."""

_QUEUES: Final = (Kind.CANCEL, Kind.MODIFY, Kind.PLACE, Kind.READ)
_QUEUES_READ_FIRST: Final = (Kind.CANCEL, Kind.READ, Kind.MODIFY, Kind.PLACE)


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
        day, second = divmod(self._clock() + IST_SECONDS, DAY_SECONDS)
        if day != self._day:
            self._day, self.used = int(day), 0
        if self.used >= self.limit:
            raise RateLimited(
                f"the plan's {self.limit:,} requests of today are used up: nothing was sent",
                retry_after=DAY_SECONDS - second,
                was_sent=False,
            )
        self.used += 1

    def give_back(self) -> None:
        self.used = max(0, self.used - 1)


class _Window:
    """The last starts under one limit."""

    __slots__ = ("_gap", "_length", "limit", "starts")

    def __init__(self, limit: int, length: float) -> None:
        self.limit = limit
        self.starts: deque[float] = deque(maxlen=limit)
        self._length = length
        self._gap = length - max(CANCEL_WAIT, length / limit)
        """Seconds between a start and the moment from which on the window counts as one that has
        another start for a cancel soon."""

    def free_at(self, kind: Kind, ahead: int = 0) -> float:
        """When one more start is possible, the past when it is possible now, after `ahead` others
        that begin now; to be asked when there is no room for two more. Infinity while that depends
        on when those begin."""
        starts = self.starts
        first = ahead + len(starts) - self.limit
        """Index of the start that has to leave the window for this one."""
        if first >= len(starts) and first >= 0:
            return math.inf
        at = starts[first] + self._length if first >= 0 else 0.0
        if kind and self._gap > 0:  # not a cancel: the one after this has to be free soon
            if first + 1 >= len(starts):
                return math.inf
            at = max(at, starts[first + 1] + self._gap)
        return at

    def add(self, started: float) -> None:
        starts = self.starts
        starts.append(started)
        # Two for each that comes: what has left the window is forgotten without ever going through
        # all of it.
        if starts[0] + self._length <= started:
            starts.popleft()
            if starts[0] + self._length <= started:
                starts.popleft()

    def remove(self, started: float) -> None:
        """Forget a start, unless it has left the memory already. Its cost is that of going through
        the starts since."""
        starts = self.starts
        for back, start in enumerate(reversed(starts), 1):
            if start <= started:
                if start == started:
                    del starts[-back]
                return

    def count(self, now: float) -> int:
        """Starts in the window that ends now."""
        recent = 0
        for start in reversed(self.starts):
            if start + self._length <= now:
                break
            recent += 1
        return recent


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
        self._orders = _Window(limits.orders, window)
        self._total = _Window(limits.total, window)
        self._queues: tuple[OrderedDict[asyncio.Future[None], None], ...] = tuple(
            OrderedDict() for _ in Kind
        )
        """Requests without a turn, by kind and arrival."""
        self._promised = [0] * len(Kind)
        """Turns that were given and not taken yet."""
        self._queued = 0
        """Requests of both sorts."""
        self._held_ahead = [0] * len(Kind)
        """Starts that were put off (see `hold`), of this kind and those before it."""
        self._timer: asyncio.TimerHandle | None = None
        self._paused_until = 0.0
        """Of changes and placements."""
        self._reads_paused_until = 0.0
        self._cancels_paused_until = 0.0
        self.patience: tuple[float, ...] = (math.inf,) * len(Kind)
        """Seconds, by kind, of the longest pause that a request waits for."""
        self._refusals_in_a_row = 0
        # Reads fill at most half of the window at once, so that a sudden order does not find it
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
        if kind is _READ and not self._queues[kind]:
            self._reads_wait_since = self._clock()
        self._queued += 1
        turn = self._queue_up(kind, first=first)
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
                self._promised[kind] -= 1
                turn = self._queue_up(kind, first=True)
        finally:
            if turn in self._queues[kind]:
                del self._queues[kind][turn]
            else:
                self._promised[kind] -= 1
            self._queued -= 1
            self._wake()

    def start_now(self, kind: Kind) -> float | None:
        """The time of a start in this very moment; None when there is no room or others wait for
        it, and `acquire` has to be called. Raises as that does."""
        if self.state.is_checked:
            self.state.check(kind)
        if self._queued and self._is_somebody_before(kind):
            return None
        return self._start(kind, self._held_ahead[kind])

    def restart(self, kind: Kind, started: float) -> float | None:
        """Move a start to now: something had to be awaited after all before the request went out.

        None when that cannot be: a pause has begun meanwhile, or the start is older than the window
        and its room given away. `acquire` must be called again then. Raises Halted.
        """
        if self.state.is_checked:
            self.state.check(kind)
        now = self._clock()
        # Written as in _Window: the difference, rounded, may disagree with it.
        if now < self._pause_end(kind) or started + self._window <= now:
            return None
        self._forget(kind, started)
        self._remember(kind, now)
        return now

    def answered_late(self, kind: Kind, started: float) -> None:
        """Count a start from now on: the answer is there, and the first request on a connection may
        have arrived at any time until now, since proxies may have been connecting still. An
        answer that took longer than the window tells of a slow server, and counts where it was."""
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
        """Put a start off that cannot be made yet: nothing was sent. Others of this kind and the
        kinds behind it leave room for it, so that no more than may start come to wait for the same
        thing; cancels and reads do not. `start_held` or `release` has to follow."""
        for behind in range(kind, _READ):
            self._held_ahead[behind] += 1
        self.give_back(kind, started)

    def hold_now(self, kind: Kind) -> bool:
        """Put a start off that would be possible in this very moment; False when it would not, and
        `acquire` has to be called. Raises as that does."""
        if self.state.is_checked:
            self.state.check(kind)
        if self._queued and self._is_somebody_before(kind):
            return False
        ahead = self._held_ahead[kind]
        if self._free_at(kind, ahead, ahead) > self._clock():
            return False
        for behind in range(kind, _READ):
            self._held_ahead[behind] += 1
        return True

    def start_held(self, kind: Kind) -> float | None:
        """The time of a start that was put off and is made now; None when others have taken its
        room, or a pause began: `acquire` has to be called again. Raises Halted."""
        try:
            if self.state.is_checked:
                self.state.check(kind)
            return self._start(kind)
        finally:
            self.release(kind)

    def release(self, kind: Kind) -> None:
        """A start that was put off is not made."""
        for behind in range(kind, _READ):
            self._held_ahead[behind] -= 1
        self._wake()

    def _wake_refused(self) -> None:
        """Wake the requests that a halt refuses: each finds that out by itself."""
        for kind, queue in zip(Kind, self._queues, strict=True):
            if queue and self.state.refusal(kind) is not None:
                while queue:
                    self._give_turn(kind)

    def pause(self, retry_after: float | None, kind: Kind | None = None) -> float:
        """Let nothing start for as long as the server asked (or a growing, jittered while when it
        did not say), `LONGEST_PAUSE` at most. Returns the seconds until a request of this kind may
        be made again.

        `kind` is what the server refused. Where it is known, the others do not pay for it: after an
        order, cancels wait for one window at most, and after a read not at all, while changes and
        placements wait for one window.
        """
        self.pauses += 1
        now = self._clock()
        begins = now >= self._pause_end(kind)  # else it is one more answer to the same burst
        if begins:
            self._refusals_in_a_row += 1
        # A server that says 0 would be asked again at once, for ever; NaN is no time at all.
        if retry_after is None or not retry_after > 0:
            retry_after = backoff(self._refusals_in_a_row, base=0.5, cap=30.0)
        longest = min(retry_after, LONGEST_PAUSE)
        window = min(longest, self._window)
        self._reads_paused_until = max(self._reads_paused_until, now + longest)
        if kind is _READ:
            self._paused_until = max(self._paused_until, now + window)
        else:
            self._paused_until = max(self._paused_until, now + longest)
            # One more answer to requests from before the pause begins none anew for cancels.
            if kind is None or now >= self._cancels_paused_until:
                of_cancels = longest if kind is None else window
                self._cancels_paused_until = max(self._cancels_paused_until, now + of_cancels)
        level = logging.WARNING if begins else logging.DEBUG
        if kind is not None and (kind is _READ or longest > self._window):
            log.log(
                level,
                "rate limit hit (429): cancels, other orders and reads start again in "
                "%.2f, %.2f and %.2f s",
                *(max(0.0, self._pause_end(one) - now) for one in (_CANCEL, Kind.PLACE, _READ)),
            )
        else:
            rest = self._paused_until - now
            log.log(level, "rate limit hit (429): nothing starts for %.2f s", rest)
        self._end_impatient(now)
        self._wake()
        return self._pause_end(kind) - now

    def succeeded(self) -> None:
        """The server took a request: the next 429 is the first in a row again."""
        self._refusals_in_a_row = 0

    @property
    def paused_for(self) -> float:
        """Seconds until everything may start; 0 unless the server has said 429. Cancels start
        sooner."""
        until = max(self._paused_until, self._reads_paused_until, self._cancels_paused_until)
        return max(0.0, until - self._clock())

    @property
    def waiting(self) -> int:
        return self._queued

    def __repr__(self) -> str:
        recent = self._total.count(self._clock())
        paused = f", paused {self.paused_for:.1f} s" if self.paused_for else ""
        return (
            f"<Limiter {recent}/{self.limits.total} in the window, {self.waiting} waiting{paused}>"
        )

    # --- pauses and refusals ------------------------------------------------------------------

    def _check_pause(self, kind: Kind) -> None:
        rest = self._pause_end(kind) - self._clock()
        if rest > self.patience[kind]:
            raise self._impatient(kind, rest)

    def _impatient(self, kind: Kind, rest: float) -> RateLimited:
        return RateLimited(
            f"the server has said 429, and no {kind.name.lower()} starts for another {rest:.1f} s: "
            f"longer than the {self.patience[kind]:g} s for which this one may wait; nothing was "
            "sent",
            retry_after=rest,
            was_sent=False,
        )

    def _end_impatient(self, now: float) -> None:
        """Fail what waits and cannot start in its time because of a pause."""
        for kind, queue in zip(Kind, self._queues, strict=True):
            rest = self._pause_end(kind) - now
            if rest > self.patience[kind]:
                while queue:
                    turn, _ = queue.popitem(last=False)
                    self._promised[kind] += 1
                    if not turn.done():
                        turn.set_exception(self._impatient(kind, rest))

    def _pause_end(self, kind: Kind | None) -> float:
        if kind is _READ:
            return self._reads_paused_until
        if kind is _CANCEL:
            return self._cancels_paused_until
        return self._paused_until

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
            self._reads_wait_since = started
        else:
            self._orders.add(started)
        self.starts[kind] += 1

    def _forget(self, kind: Kind, started: float) -> None:
        self._total.remove(started)
        if kind is not _READ:
            self._orders.remove(started)
        self.starts[kind] -= 1

    def _free_at(self, kind: Kind, ahead: int, orders_ahead: int) -> float:
        """When the next start of this kind is possible; the past when it is possible now. Of those
        that come before it, so many are starts in all, and so many are orders."""
        at = self._pause_end(kind)
        # A window with room for two asks nothing of a start; that is looked at here, since a call
        # costs more than the look.
        window = self._total
        if ahead + len(window.starts) > window.limit - 2:
            at = max(at, window.free_at(kind, ahead))
        if kind is not _READ:
            window = self._orders
            if orders_ahead + len(window.starts) > window.limit - 2:
                at = max(at, window.free_at(kind, orders_ahead))
        return at

    # --- the queue ----------------------------------------------------------------------------

    def _is_somebody_before(self, kind: Kind) -> bool:
        if any(self._queues[before] or self._promised[before] for before in range(kind + 1)):
            return True
        return kind is not _CANCEL and self._is_read_overdue()

    def _is_read_overdue(self) -> bool:
        is_waiting = self._queues[_READ] or self._promised[_READ]
        return bool(is_waiting) and self._reads_wait_since + READ_PATIENCE <= self._clock()

    def _queue_up(self, kind: Kind, *, first: bool) -> asyncio.Future[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._queues[kind]
        queue[turn] = None
        if first:
            queue.move_to_end(turn, last=False)
        return turn

    def _give_turn(self, kind: Kind) -> None:
        turn, _ = self._queues[kind].popitem(last=False)
        self._promised[kind] += 1
        if not turn.done():  # else its caller has given up, and is about to pass it on
            turn.set_result(None)

    def _wake(self) -> None:
        """Give as many turns as there is room for, highest kind first; time the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._queued:
            return
        now = self._clock()
        due = math.inf
        is_read_next = not self._promised[_READ] and self._is_read_overdue()
        for kind in _QUEUES_READ_FIRST if is_read_next else _QUEUES:
            queue = self._queues[kind]
            while queue:
                # A turn given before and not taken yet still needs its room.
                promised = sum(self._promised)
                held = self._held_ahead[kind]
                orders_promised = promised - self._promised[_READ]
                at = self._free_at(kind, held + promised, held + orders_promised)
                if at > now:
                    due = min(due, at)
                    break
                self._give_turn(kind)
                if is_read_next and kind is _READ:
                    break
        # Room that is there but promised to a turn not yet taken needs no timer: taking it wakes.
        if due < math.inf and not any(self._promised):
            self._timer = asyncio.get_running_loop().call_later(due - now, self._wake)


class Start:
    """The start of one request whose connection may have to be opened first.

    It is taken before that, so that no more connections are opened than requests may start, and is
    moved to the moment in which the connection is there: time spent on a handshake would let two
    requests arrive closer together than the limit allows.
    """

    def __init__(self, limiter: Limiter, kind: Kind, *, first: bool = False) -> None:
        self._limiter = limiter
        self._kind = kind
        self._first = first
        self._started = 0.0
        self._is_fresh = False
        """Whether it was taken and no connection used it yet."""
        self.queued = 0.0
        """Seconds that it waited for its turn."""

    async def take(self) -> Start:
        """Wait for it; raises as `Limiter.acquire` does."""
        began = time.perf_counter()
        self._started = await self._limiter.acquire(self._kind, first=self._first)
        self._is_fresh = True
        self.queued = time.perf_counter() - began
        return self

    async def at_connection(self) -> None:
        """Move it to now, or wait for another one where that cannot be. A request that is sent once
        more, on another connection, takes another one. Raises as `Limiter.acquire` does."""
        limiter, kind = self._limiter, self._kind
        if self._is_fresh:
            self._is_fresh = False
            try:
                moved = limiter.restart(kind, self._started)
            except BaseException:
                limiter.give_back(kind, self._started)
                raise
            if moved is not None:
                self._started = moved
                return
            limiter.give_back(kind, self._started)
        self._started = await limiter.acquire(kind, first=True)

    def answered_late(self) -> None:
        """See Limiter.answered_late."""
        self._limiter.answered_late(self._kind, self._started)
