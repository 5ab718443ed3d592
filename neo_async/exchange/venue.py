"""The market as services and feeds see it: advanced to the present before each use, new after a
reset.

Events are taken here, and nowhere else: trades go onto the trade tape on their way to the feeds.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from datetime import date
from typing import TypeAlias

from neo_async.base.india import in_india
from neo_async.exchange.engine.index_board import IndexBoard
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.trading_hours import indian_day
from neo_async.exchange.engine.types import Event, Listing
from neo_async.exchange.history.trade_tape import TradeTape
from neo_async.exchange.persistence.persistence import Persistence, RestoredMarket

NewListings: TypeAlias = Callable[[MatchingEngine], Iterable[Listing]]
"""Function that returns what a market should list besides, on its present day."""


class Venue:
    def __init__(
        self,
        build: Callable[[int], MatchingEngine],
        clock: Callable[[], float],
        new_listings: NewListings,
        persistence: Persistence | None = None,
        restored: RestoredMarket | None = None,
    ) -> None:
        """`build` makes the market that opens at a time in Unix ns, `new_listings` returns what
        comes to it on a day in India, and `clock` gives Unix seconds.

        With a memory, nothing leaves that could still be lost; `recalled` is what came out of it.
        """
        self._build = build
        self._new_listings = new_listings
        self._persistence = persistence
        self.clock = clock
        self._events: list[Event] = []
        self._listed_day = -1
        """Day whose contracts are listed, in days since 1970; -1 for an unknown one."""
        if restored is None:
            self._open()
        else:
            self._show(*restored)
        self.now()

    def now(self) -> MatchingEngine:
        """Return the market, advanced to the present."""
        now_ns = self._clock_ns()
        self.market.advance(now_ns)
        day = indian_day(now_ns)
        if day > self._listed_day:
            self._listed_day = day
            self._change_listings()
        return self.market

    def _change_listings(self) -> None:
        """Settle expired contracts and list new ones on another day."""
        self.market.settle_expired()
        self.market.add_listings(self._new_listings(self.market))

    def reset(self) -> None:
        """Start over with the same seed, accounts and instruments."""
        self._open()
        self.now()

    def tape(self) -> TradeTape:
        """Return the candles of every trade until now."""
        self._collect()
        return self._tape

    def take_events(self) -> list[Event]:
        """Return what has happened since the last call, oldest first."""
        self._collect()
        if self._persistence is not None:
            try:
                self._persistence.flush(something_happened=bool(self._events))
            except sqlite3.Error:
                return []  # they come with the next call, if that can keep them
            self._persistence.compact_when_due()
        events, self._events = self._events, []
        return events

    async def durable(self) -> None:
        """Wait until nothing of what happened so far can be lost. Raises sqlite3.Error when it
        cannot be kept."""
        if self._persistence is None:
            return
        self._collect()
        flushed = self._persistence.flush_soon(something_happened=bool(self._events))
        if flushed is not None:
            # Shielded, because others wait for it, too.
            await asyncio.shield(flushed)

    def _open(self) -> None:
        opened_ns = self._clock_ns()
        market = self._build(opened_ns)
        self._show(market, TradeTape(), in_india(opened_ns / 1e9).date())
        if self._persistence is not None:
            self._persistence.begin(market, self._tape, opened_ns)

    def _show(self, market: MatchingEngine, tape: TradeTape, opened: date) -> None:
        self.market = market
        self._listed_day = -1
        self.board = IndexBoard(market)
        self.opened = opened
        """First day of this market in India."""
        self._tape = tape
        self._events = []

    def _collect(self) -> None:
        events = self.market.take_events()
        if events:
            self._tape.add_all(events)
            if self._persistence is not None:
                self._persistence.note(events)
            self._events += events

    def _clock_ns(self) -> int:
        return int(self.clock() * 1e9)
