"""The market feed: ticks, decoded as they arrive."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from operator import attrgetter
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from neo_async.calendar import INDIA, Calendar
from neo_async.config import FeedTimings
from neo_async.errors import UsageError
from neo_async.feeds.buffers import DEFAULT_BOUND, Policy, TickBuffer, TickT, tick_buffer
from neo_async.feeds.subscribed_feed import KeyOf, SubscribedFeed
from neo_async.feeds.subscriptions import read_level, stream_of
from neo_async.feeds.tick_stream import TickStream
from neo_async.model.enums import Level
from neo_async.model.instrument_names import is_index_key, known_key
from neo_async.model.instruments import InstrumentLike
from neo_async.model.ticks import (
    AuctionTick,
    IndexTick,
    LiteTick,
    MarketStatus,
    PriceTick,
    ScripTick,
    Tick,
)
from neo_async.session.manager import SessionManager
from neo_async.wire.feed import LEVEL_OF_STREAM, STREAM_OF_LEVEL, Stream

BURST = 256
"""Ticks after which the rest of the event loop has a turn, however many more have arrived: less
than a millisecond of work, whatever their level."""

PriceT_co = TypeVar("PriceT_co", bound=PriceTick, covariant=True)


class _OneTurn:
    """An awaitable that gives the event loop one turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class MarketFeed(SubscribedFeed, Generic[PriceT_co]):
    """Prices of the subscribed instruments.

        async with neo.market_feed(level=Level.DEPTH) as feed:
            await feed.subscribe(["nse_cm|11536"])
            async for tick in feed: ...

    Iterating yields prices only: LiteTick from a feed of `Level.LITE`, ScripTick from one of any
    other level. Indices, market statuses and auctions have iterators of their own: `indices()`,
    `statuses()`, `auctions()`.

    One consumer iterates; `on_tick` takes a callback instead, which is called for every price in
    the moment of its arrival and must not block.
    """

    def __init__(
        self,
        session: SessionManager,
        timings: FeedTimings,
        *,
        level: Level | str | None = Level.SCRIP,
        policy: Policy | str = Policy.CONFLATE,
        bound: int = DEFAULT_BOUND,
        on_tick: Callable[[PriceT_co], None] | None = None,
        market_open: Callable[[], bool] | None = None,
        calendar: Calendar = INDIA,
        time_ns: Callable[[], int] | None = None,
        key_of: KeyOf = known_key,
    ) -> None:
        """`level` is the one at which instruments are subscribed unless the call gives another;
        None takes both LITE and the other levels, and the calls' default is SCRIP. `bound` is the
        number of ticks at which BLOCK and DROP_OLDEST set in. `market_open` returns whether silence
        is suspicious; by default the clock in IST and the status messages do. `time_ns`
        gives the Unix nanoseconds of `received_ns`: with an exchange that replays a recording,
        `exchange.time_ns` gives recorded times. (RiskLimits that need a last price count such
        ticks as old.)"""
        super().__init__(session, timings, market_open, calendar, key_of)
        self.level = None if level is None else LEVEL_OF_STREAM[stream_of(level)]
        """The level at which instruments are subscribed by default; None on a feed of all."""
        self._lite_kind = LiteTick if self.level in (None, Level.LITE) else None
        self._scrip_kind = None if self.level is Level.LITE else ScripTick
        self._policy = _read_policy(policy)
        self._bound = bound
        self._buffer: TickBuffer[PriceT_co] = tick_buffer(self._policy, bound)
        session.meter.count_losses(self, self._policy.value, self._buffer)
        self._on_tick = on_tick
        self._time_ns = time_ns
        # By level, then instrument: a pair as the key costs more to make than this whole look-up.
        self._latest: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        # Weak: an iterator that is no longer referenced collects nothing.
        self._streams: dict[type[Any], WeakSet[TickStream[Any]]] = {
            kind: WeakSet() for kind in (IndexTick, MarketStatus, AuctionTick)
        }
        self._since_turn = 0
        """Ticks decoded since the rest of the event loop had its last turn."""
        self.ticks = 0
        """Number of ticks decoded so far, of every kind."""

    # --- subscriptions ------------------------------------------------------------------------

    async def subscribe_indices(self, instruments: Iterable[InstrumentLike]) -> None:
        """Subscribe indices by name (`nse_cm|Nifty 50`) or number (`nse_cm|26000`). Their
        ticks come from `indices()`."""
        await self._subscribe(Stream.INDEX, self._names(Stream.INDEX, instruments))

    async def unsubscribe_indices(self, instruments: Iterable[InstrumentLike]) -> None:
        """Unsubscribe indices: by name or by number, as they were subscribed."""
        await self._unsubscribe(Stream.INDEX, self._names(Stream.INDEX, instruments))

    async def subscribe_status(self) -> None:
        """Subscribe the market status of every segment, which comes from `statuses()`."""
        await self._subscribe(Stream.EXCHANGE, [""])

    async def unsubscribe_status(self) -> None:
        """Unsubscribe the market status."""
        await self._unsubscribe(Stream.EXCHANGE, [""])

    async def snapshot_indices(self, instruments: Iterable[InstrumentLike]) -> None:
        """Request one tick of each index, as `snapshot` does of instruments."""
        await self._snapshot(Stream.INDEX, self._names(Stream.INDEX, instruments))

    def _checked_level(self, level: Level | str | None) -> Level:
        if level is None:
            return self.level or Level.SCRIP
        level = LEVEL_OF_STREAM[stream_of(level)]
        if self.level is not None and (level is Level.LITE) is not (self.level is Level.LITE):
            raise UsageError(
                f"level={level.name}: this feed has level {self.level.name}, and ticks of another "
                f"type; open market_feed(level=Level.{level.name}), or market_feed(level=None) for "
                "both"
            )
        return level

    # --- what arrives -------------------------------------------------------------------------

    async def __aiter__(self) -> AsyncIterator[PriceT_co]:
        self._check_iterable()
        while True:
            # A consumer that leaves the loop and iterates again goes on with what is prefetched.
            for tick in self._buffer.prefetched:
                yield tick
            if not await self._buffer.refill():
                return

    async def batches(self) -> AsyncIterator[list[PriceT_co]]:
        """Yield the prices in the lists in which they become available: one step a burst."""
        self._check_iterable()
        if ticks := list(self._buffer.prefetched):
            yield ticks
        while ticks := await self._buffer.take():
            yield ticks

    def indices(self) -> AsyncIterator[IndexTick]:
        """Return an iterator over the values of the subscribed indices: the newest of each, then
        every one from now on, by the feed's policy."""
        return self._stream(IndexTick, IndexTick.level, tick_buffer(self._policy, self._bound))

    def statuses(self) -> AsyncIterator[MarketStatus]:
        """Return an iterator over the market statuses, after `subscribe_status()`: the newest of
        each segment, then every one from now on."""
        return self._stream(MarketStatus, MarketStatus.level, _all_pending())

    def auctions(self) -> AsyncIterator[AuctionTick]:
        """Return an iterator over the closing call auctions of subscribed instruments: the newest
        of each, then every one from now on."""
        return self._stream(AuctionTick, AuctionTick.level, _all_pending())

    def latest(
        self, instrument: InstrumentLike, *, level: Level | str | None = None
    ) -> PriceT_co | None:
        """Return the newest price of an instrument, at one level or at any; None before the first.
        Raises UsageError for an index, whose ticks have another type: see `latest_index`."""
        instrument = self._key(instrument)
        if is_index_key(instrument):
            raise UsageError(f"{instrument} is an index: its value is in feed.latest_index(...)")
        levels = _PRICE_LEVELS if level is None else (read_level(level),)
        found: list[PriceT_co] = [
            tick for key in levels if (tick := self._latest[key].get(instrument)) is not None
        ]
        return max(found, key=_arrival, default=None)

    def latest_index(self, instrument: InstrumentLike) -> IndexTick | None:
        """Return the newest value of an index."""
        (name,) = self._names(Stream.INDEX, [instrument])
        return self._latest[IndexTick.level].get(name)

    def latest_status(self, segment: str) -> MarketStatus | None:
        """Return the newest status of a segment."""
        return self._latest[MarketStatus.level].get(segment)

    def latest_auction(self, instrument: InstrumentLike) -> AuctionTick | None:
        """Return the newest state of an instrument's closing call auction."""
        return self._latest[AuctionTick.level].get(self._key(instrument))

    def last_price(self, instrument: InstrumentLike) -> float | None:
        """Return the price of the newest tick of a subscribed instrument; None when there was none
        yet, or the feed is not live."""
        tick = self.last_tick(self._key(instrument))
        return None if tick is None else tick.last_price

    def last_tick(self, instrument: str) -> PriceT_co | None:
        """Return the newest tick with a price of a subscribed instrument by its key; None
        when there was none yet, or the feed is not live. Its `received_ns` shows its age."""
        if not self.is_live:
            return None
        if not self._subscriptions.has_prices(instrument):
            return None
        ticks: list[PriceT_co] = [
            tick
            for level in STREAM_OF_LEVEL
            if (tick := self._latest[level].get(instrument)) is not None
            and 0 < tick.last_price < math.inf
        ]
        return max(ticks, key=_arrival, default=None)

    @property
    def lost(self) -> int:
        """Number of prices that were conflated or dropped because the consumer was slower."""
        return self._buffer.lost

    @property
    def pending(self) -> int:
        """Number of prices that wait for the consumer."""
        return self._buffer.pending

    async def close(self) -> None:
        """Disconnect; iteration ends when what is pending has been taken."""
        await super().close()
        self._buffer.close()
        for streams in self._streams.values():
            for stream in streams:
                stream.close()

    # --- delivery -----------------------------------------------------------------------------

    def _check_iterable(self) -> None:
        if self._on_tick is not None:
            raise UsageError("this feed calls on_tick with its prices: it cannot be iterated, too")
        super()._check_iterable()

    def _stream(
        self, kind: type[TickT], level: int, buffer: TickBuffer[TickT]
    ) -> TickStream[TickT]:
        newest: Iterable[TickT] = self._latest[level].values()
        stream = TickStream(buffer, newest)
        if self._is_over:
            stream.close()
        self._streams[kind].add(stream)
        return stream

    def _has_tick(self, stream: Stream, name: str) -> bool:
        level = LEVEL_OF_STREAM.get(stream, IndexTick.level)
        return name in self._latest[level] or name in self._latest[IndexTick.level]

    def _drop_ticks(self, name: str) -> None:
        for of_level in self._latest.values():
            of_level.pop(name, None)

    def _deliver(self, message: bytes) -> Awaitable[None] | None:
        received_ns = time.time_ns() if self._time_ns is None else self._time_ns()
        ticks: list[Any] = self._decoder.decode(message, received_ns)
        if not ticks:
            self._warn_of_unasked()
            return None
        latest = self._latest
        lite = latest[Level.LITE]
        lite_kind, scrip_kind = self._lite_kind, self._scrip_kind
        are_prices = True
        for tick in ticks:
            kind = tick.__class__
            if kind is lite_kind:  # the commonest kind, the shortest way
                lite[tick.instrument] = tick
            elif kind is scrip_kind:
                latest[tick.level][tick.instrument] = tick
            else:
                are_prices = False
        held: Awaitable[None] | None = None
        of_others: list[Awaitable[None]] = []
        if not are_prices:
            of_others = self._deliver_others(ticks)
            ticks = [tick for tick in ticks if tick.__class__ in (lite_kind, scrip_kind)]
        self.ticks += len(ticks)
        self._manager.meter.ticks += len(ticks)
        if self._on_tick is not None:
            self._call_back(ticks)
        elif ticks:
            held = self._buffer.put(ticks)
        if of_others:
            held = _until_all(of_others if held is None else [*of_others, held])
        self._since_turn += len(ticks)
        if held is None and self._since_turn >= BURST:
            held = _OneTurn()
        if held is not None:
            self._since_turn = 0
        return held

    def _deliver_others(self, ticks: list[Any]) -> list[Awaitable[None]]:
        """Deliver what is no price of the feed's level, each kind to its own iterators. Return what
        must be awaited before the next message."""
        held: list[Awaitable[None]] = []
        wanted: defaultdict[type[Tick], list[Any]] = defaultdict(list)
        for tick in ticks:
            kind = tick.__class__
            if kind is MarketStatus:
                self._hours.apply_status(tick)  # also where the program has not subscribed it
                if not self._subscriptions.wants_status:
                    self._decoder.unasked += 1
                    continue
            elif kind is LiteTick or kind is ScripTick:
                if kind is not self._lite_kind and kind is not self._scrip_kind:
                    self._decoder.unasked += 1
                continue
            self._latest[tick.level][tick.instrument] = tick
            wanted[kind].append(tick)
        for kind, of_kind in wanted.items():
            self.ticks += len(of_kind)
            self._manager.meter.ticks += len(of_kind)
            waits = [stream.put(of_kind) for stream in self._streams[kind]]
            held += [wait for wait in waits if wait is not None]
        return held

    def _call_back(self, ticks: list[PriceT_co]) -> None:
        assert self._on_tick is not None
        for tick in ticks:
            try:
                self._on_tick(tick)
            except (Exception, asyncio.CancelledError):  # the latter from a future of its own
                self._log.exception("the callback of the market feed failed on %r", tick)


def _all_pending() -> TickBuffer[TickT]:
    """Return a buffer for rare ticks, of which none may be conflated."""
    return tick_buffer(Policy.DROP_OLDEST, DEFAULT_BOUND)


async def _until_all(held: list[Awaitable[None]]) -> None:
    for each in held:
        await each


_arrival = attrgetter("received_ns")

_PRICE_LEVELS = (Level.LITE, 2, Level.SCRIP, Level.DEPTH, Level.FULL_DEPTH)
"""Levels that prices may have. Level 2 cannot be subscribed, but is sent."""


def _read_policy(policy: Policy | str) -> Policy:
    try:
        return Policy(policy)
    except ValueError:
        known = ", ".join(Policy)
        raise UsageError(f"policy={policy!r}: must be one of {known}") from None
