"""The market feed: ticks, decoded as they arrive."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Generator

from neo_async.calendar import INDIA, Calendar
from neo_async.config import FeedTimings
from neo_async.feeds.buffers import DEFAULT_BOUND, Policy, tick_buffer
from neo_async.feeds.subscribed_feed import SubscribedFeed
from neo_async.model.enums import Level
from neo_async.model.ticks import LiteTick, MarketStatus, ScripTick, Tick
from neo_async.session.manager import SessionManager
from neo_async.wire.feed import STREAM_OF_LEVEL

BURST = 256
"""Ticks after which the rest of the event loop has a turn, however many more have arrived: less
than a millisecond of work, whatever their level."""


class _OneTurn:
    """An awaitable that gives the event loop one turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class MarketFeed(SubscribedFeed):
    """Ticks of the subscribed instruments.

        async with neo.market_feed() as feed:
            await feed.subscribe(["nse_cm|11536"], level=Level.DEPTH)
            async for tick in feed: ...

    One consumer iterates; `on_tick` takes a callback instead, which is called for every tick in
    the moment of its arrival and must not block.
    """

    def __init__(
        self,
        session: SessionManager,
        timings: FeedTimings,
        *,
        policy: Policy = Policy.CONFLATE,
        bound: int = DEFAULT_BOUND,
        on_tick: Callable[[Tick], None] | None = None,
        market_open: Callable[[], bool] | None = None,
        calendar: Calendar = INDIA,
    ) -> None:
        """`bound` is the number of ticks at which BLOCK and DROP_OLDEST set in. `market_open`
        returns whether silence is suspicious; by default the clock in IST and the status messages
        do."""
        super().__init__(session, timings, market_open, calendar)
        self._buffer = tick_buffer(Policy(policy), bound)
        session.meter.count_losses(self, Policy(policy).value, self._buffer)
        self._on_tick = on_tick
        # By level, then instrument: a pair as the key costs more to make than this whole look-up.
        self._latest: defaultdict[int, dict[str, Tick]] = defaultdict(dict)
        self._since_turn = 0
        """Ticks decoded since the rest of the event loop had its last turn."""
        self.ticks = 0
        """Number of ticks decoded so far."""

    async def __aiter__(self) -> AsyncIterator[Tick]:
        while True:
            # A consumer that leaves the loop and iterates again goes on with what is prefetched.
            for tick in self._buffer.prefetched:
                yield tick
            if not await self._buffer.refill():
                return

    async def batches(self) -> AsyncIterator[list[Tick]]:
        """Yield the ticks in the lists in which they become available: one step a burst."""
        if ticks := list(self._buffer.prefetched):
            yield ticks
        while ticks := await self._buffer.take():
            yield ticks

    def latest(self, instrument: str, *, level: Level | None = None) -> Tick | None:
        """Return the newest tick of an instrument, at one level or at any."""
        if level is not None:
            return self._latest[level].get(instrument)
        found = [tick for key in _LEVELS if (tick := self._latest[key].get(instrument)) is not None]
        return max(found, key=lambda tick: tick.received_ns, default=None)

    def last_price(self, instrument: str) -> float | None:
        """Return the price of the newest tick of a subscribed instrument; None when there was none
        yet, or the feed is not live."""
        tick = self.last_tick(instrument)
        return None if tick is None else tick.last_price

    def last_tick(self, instrument: str) -> LiteTick | ScripTick | None:
        """Return the newest tick with a price of a subscribed instrument, at whatever level; None
        when there was none yet, or the feed is not live. Its `received_ns` shows its age."""
        if not self.is_live:
            return None
        if not self._subscriptions.has_prices(instrument):
            return None
        ticks = [
            tick
            for level in STREAM_OF_LEVEL
            if (tick := self._latest[level].get(instrument)) is not None
            and isinstance(tick, LiteTick | ScripTick)
            and 0 < tick.last_price < math.inf
        ]
        return max(ticks, key=lambda tick: tick.received_ns, default=None)

    @property
    def lost(self) -> int:
        """Number of ticks that were conflated or dropped because the consumer was slower."""
        return self._buffer.lost

    @property
    def pending(self) -> int:
        """Number of ticks that wait for the consumer."""
        return self._buffer.pending

    async def close(self) -> None:
        """Disconnect; iteration ends when what is pending has been taken."""
        await super().close()
        self._buffer.close()

    def _drop_ticks(self, name: str) -> None:
        for of_level in self._latest.values():
            of_level.pop(name, None)

    def _deliver(self, message: bytes) -> Awaitable[None] | None:
        ticks = self._decoder.decode(message, time.time_ns())
        if not ticks:
            self._warn_of_unasked()
            return None
        latest = self._latest
        lite = latest[Level.LITE]
        unasked = False
        for tick in ticks:
            if tick.__class__ is LiteTick:  # the commonest kind, the shortest way
                lite[tick.instrument] = tick
                continue
            if tick.__class__ is MarketStatus:
                self._hours.apply_status(tick)  # also where the program has not subscribed it
                if not self._subscriptions.wants_status:
                    unasked = True
                    continue
            latest[tick.level][tick.instrument] = tick
        if unasked:
            before = len(ticks)
            ticks = [tick for tick in ticks if tick.__class__ is not MarketStatus]
            self._decoder.unasked += before - len(ticks)
        self.ticks += len(ticks)
        self._manager.meter.ticks += len(ticks)
        held: Awaitable[None] | None = None
        if self._on_tick is not None:
            self._call_back(ticks)
        else:
            held = self._buffer.put(ticks)
        self._since_turn += len(ticks)
        if held is None and self._since_turn >= BURST:
            held = _OneTurn()
        if held is not None:
            self._since_turn = 0
        return held

    def _call_back(self, ticks: list[Tick]) -> None:
        assert self._on_tick is not None
        for tick in ticks:
            try:
                self._on_tick(tick)
            except (Exception, asyncio.CancelledError):  # the latter from a future of its own
                self._log.exception("the callback of the market feed failed on %r", tick)


_LEVELS = (Level.LITE, 2, Level.SCRIP, Level.DEPTH, Level.FULL_DEPTH, 0, -1, -2)
"""Levels that ticks may have. Level 2 cannot be subscribed, but is sent."""
