"""Plays a recording of the market feed back as the market.

Packets are sent as they were recorded, byte for byte, in messages of the recorded grouping; the
prices and quotes in them become those that orders here trade against.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from neo_async.base import logs
from neo_async.exchange.clock import MovedClock
from neo_async.exchange.engine.types import Listing
from neo_async.exchange.feeds.market_feed import MarketFeed
from neo_async.exchange.replay.recorded import Recorded, control_of, exchanges_of
from neo_async.exchange.venue import Venue
from neo_async.model.enums import Segment, Side
from neo_async.model.ticks import LiteTick, MarketState, PriceTick, ScripTick
from neo_async.wire.feed import FeedDecoder
from neo_async.wire.recording import Frame, read_recording

log = logging.getLogger(logs.EXCHANGE)

GRACE: Final = 0.5
"""Seconds from the first subscription to the first frame: a client subscribes in several steps."""

_SLICE: Final = 32
"""Frames in a row before others get their turn on the loop."""
_LOTS: Final = 1000
"""Quantity on both sides of a price of which no quotes were recorded."""


class Replay:
    """A recording on its way; begins with the first subscription to the market feed."""

    def __init__(
        self,
        path: Path,
        recorded: Recorded,
        venue: Venue,
        feed: MarketFeed,
        notice: Callable[[], None],
        speed: float,
        clock: MovedClock,
    ) -> None:
        """`clock` is the exchange's, which runs with the recording. `notice` is called when orders
        may have traded. `speed` is 1 for the times of the recording, 2 for half of them, infinite
        for no waiting but for those who read slowly."""
        self.path = path
        self.frames = 0
        """Played so far."""
        self.damage = ""
        """Reason for which the recording ended before its file; empty if it did not."""
        self.ended = asyncio.Event()
        self._recorded = recorded
        self._venue = venue
        self._feed = feed
        self._notice = notice
        self._speed = speed
        self._clock = clock
        self._decoder = FeedDecoder()
        self._exchanges = recorded.exchanges
        self._quotes: dict[str, list[tuple[Side, int, int]]] = {}
        self._trades: dict[str, tuple[float, int, int]] = {}
        self._volumes: dict[str, int] = {}

    @property
    def instruments(self) -> dict[str, str]:
        """Trading symbols of what was recorded, by `segment|token`."""
        return {
            f"{instrument.segment}|{instrument.token}": instrument.symbol
            for instrument in self._recorded.instruments.values()
        }

    async def run(self) -> None:
        await self._feed.subscribed_once.wait()
        await asyncio.sleep(GRACE)
        log.info("replay of %s begins: %d instruments", self.path, len(self.instruments))
        reader = read_recording(self.path)
        loop = asyncio.get_running_loop()
        began, first_ns = loop.time(), 0
        for frame in reader:
            first_ns = first_ns or frame.received_ns
            due = began + (frame.received_ns - first_ns) / 1e9 / self._speed
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            elif self.frames % _SLICE == 0:
                if math.isinf(self._speed):
                    await self._feed.until_sent()
                await asyncio.sleep(0)
            self._clock.play_at(frame.received_ns / 1e9, self._speed)
            self._play(frame)
            self.frames += 1
        self.damage = reader.damage
        self._clock.end_playing()
        # Subscribers learn that silence is no loss from now on.
        for segment in self._recorded.segments:
            self._feed.set_status(MarketState.CLOSED, segment)
        log.info("replay of %s ends after %d frames: the feed is quiet now", self.path, self.frames)
        self.ended.set()

    def _play(self, frame: Frame) -> None:
        if isinstance(frame.content, bytes):
            self._feed.play(frame.content)
            self._move_market(frame.content)
        elif frame.content is not None:
            self._read_control(frame.content)

    def _read_control(self, text: str) -> None:
        """Read the dividers of a control message; they may differ after a reconnect."""
        control = control_of(text)
        if control is None or not control.exchanges:
            return
        self._decoder.set_exchanges(control)
        exchanges = {**self._exchanges, **exchanges_of(control)}
        if exchanges != self._exchanges:
            log.warning("replay of %s: other dividers, clients have to connect anew", self.path)
            self._exchanges = exchanges
            self._feed.set_exchanges(exchanges)

    # --- the market ---------------------------------------------------------------------------

    def _move_market(self, message: bytes) -> None:
        market = self._venue.now()
        for tick in self._decoder.decode(message, 0):
            if not isinstance(tick, LiteTick | ScripTick):
                continue
            segment, _, token = tick.instrument.partition("|")
            if segment not in market.segments or self._recorded.find(tick.instrument) is None:
                continue
            listing = market.listing_by_token(Segment(segment), token)
            price = round(tick.last_price * 100)
            if listing is None or price <= 0:
                continue
            quantity = self._traded(tick)
            if quantity is not None:
                market.print_price(listing.segment, token, price, quantity)
            market.set_quotes(listing.segment, token, self._quotes_of(tick, listing))
        self._notice()

    def _traded(self, tick: PriceTick) -> int | None:
        """Return the units traded since the tick before, 0 where only the price shows a trade; None
        when the tick reports no trade that no tick before has reported."""
        # A mini touch line has no volume: that of the other levels stays.
        volume = self._volumes.get(tick.instrument, 0)
        before = volume
        if isinstance(tick, ScripTick):
            before = self._volumes.get(tick.instrument, tick.volume)
            volume = self._volumes[tick.instrument] = max(volume, tick.volume)
        trade = (tick.last_price, tick.last_trade_time, volume)
        if self._trades.get(tick.instrument) == trade:
            return None
        self._trades[tick.instrument] = trade
        return max(volume - before, 0)

    def _quotes_of(self, tick: PriceTick, listing: Listing) -> list[tuple[Side, int, int]]:
        """Return the recorded quotes; one tick around the price where none were recorded."""
        if isinstance(tick, ScripTick):
            self._quotes[tick.instrument] = [
                (side, round(row.price * 100), row.quantity)
                for side, rows in ((Side.BUY, tick.bids), (Side.SELL, tick.asks))
                for row in rows
                if row.quantity > 0 and row.price > 0
            ]
        quotes = self._quotes.get(tick.instrument)
        if quotes is not None:
            return quotes
        price, quantity = round(tick.last_price * 100), _LOTS * listing.lot_size
        return [
            (Side.BUY, max(price - listing.tick, 1), quantity),
            (Side.SELL, price + listing.tick, quantity),
        ]
