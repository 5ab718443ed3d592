"""The instruments in use, and the market makers that quote in them.

An instrument gets its state with its first use. Its market maker is active while the instrument is
used or watched or has client orders, and stops after a quiet time; when it becomes active again it
catches up with the newest turns, so that a pause costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from neo_async.exchange.engine.book import Resting, quote
from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.contingent_orders import ContingentOrders
from neo_async.exchange.engine.instrument_state import InstrumentSnapshot, InstrumentState
from neo_async.exchange.engine.listed_instruments import Key, ListedInstruments
from neo_async.exchange.engine.market_maker import TURN_NS, MarketMaker
from neo_async.exchange.engine.matching import Matching
from neo_async.exchange.engine.pricing import fair_value
from neo_async.exchange.engine.session_stats import first_session, next_session
from neo_async.exchange.engine.trading_hours import Phase
from neo_async.exchange.engine.types import Listing
from neo_async.model.enums import Segment, Side

CATCH_UP: Final = 40
"""Turns that market makers play at most after a pause; older ones are skipped."""

IDLE: Final = 120
"""Turns without use, watcher or client order after which a market maker stops."""

_USE_INTERVAL: Final = 30
"""Turns within which further uses of an instrument change nothing."""


_UNLIMITED: Final = 1 << 62


class MarketMakersState(msgspec.Struct, frozen=True, kw_only=True):
    """The instruments in use, as a snapshot keeps them."""

    seed: int
    enabled: bool
    without_market_maker: list[tuple[Segment, str]]
    turn: int
    instruments: list[InstrumentSnapshot]
    active: list[tuple[Segment, str]]
    spots: dict[str, tuple[int, float]]


class MarketMakers:
    def __init__(
        self,
        listed: ListedInstruments,
        clock: Clock,
        matching: Matching,
        contingent_orders: ContingentOrders,
        phases: dict[Segment, Phase],
        *,
        seed: int,
        enabled: bool,
        without_market_maker: Collection[Key],
    ) -> None:
        self._listed = listed
        self._clock = clock
        self._matching = matching
        self._contingent_orders = contingent_orders
        self._phases = phases
        self._seed = seed
        self.enabled = enabled
        self._without_market_maker = frozenset(without_market_maker)
        self.instruments: dict[Key, InstrumentState] = {}
        """Instruments in use, by segment and token."""
        self.active: dict[Key, InstrumentState] = {}
        """Instruments whose market maker quotes at present."""
        self._spots: dict[str, tuple[int, float]] = {}
        """Price of an underlying, and the turn in which it was calculated: once a turn."""
        self.turn = clock.now_ns // TURN_NS

    # --- turns --------------------------------------------------------------------------------

    def play_turn(self, turn: int) -> None:
        """Let the active market makers play a turn, and stop those that are not needed."""
        self.turn = turn
        for key, instrument in list(self.active.items()):
            is_idle = turn - instrument.last_used_turn > IDLE
            if is_idle and not (instrument.working_count or instrument.watchers):
                del self.active[key]
            else:
                self._play(instrument, turn)

    def _play(self, instrument: InstrumentState, turn: int) -> None:
        """Play one turn in one instrument: perhaps a trade, a new reference price, new quotes."""
        instrument.turn = turn
        maker = instrument.market_maker
        if maker is None or self._phases[instrument.listing.segment] is not Phase.OPEN:
            return
        taker = maker.trade()
        if taker is not None:
            side, quantity = taker
            against = instrument.book.against(side)
            best = against.best()
            if best is not None:
                executions = against.execute(best.price, quantity)
                self._matching.apply_fills(instrument, None, executions)
        if instrument.underlying is None:
            maker.walk()
        else:
            maker.move_to(self.fair_value(instrument) + instrument.basis)
        self.pull_quotes(instrument)
        self.quote(instrument)
        self._contingent_orders.process_triggers(instrument)
        self._matching.mark_changed(instrument)

    # --- instruments --------------------------------------------------------------------------

    def instrument(self, listing: Listing) -> InstrumentState:
        """Return the state of an instrument, made at its first use, with its maker active."""
        key = (listing.segment, listing.token)
        instrument = self.instruments.get(key)
        if instrument is not None and instrument.market_maker is None:
            return instrument
        if instrument is None:
            instrument = self._open(key, listing)
        if instrument.market_maker is None or not self.is_due(instrument, key):
            return instrument
        instrument.last_used_turn = self.turn
        if key not in self.active:
            self.active[key] = instrument
            first = max(instrument.turn + 1, self.turn - CATCH_UP + 1)
            for turn in range(first, self.turn + 1):
                self._play(instrument, turn)
        return instrument

    def _open(self, key: Key, listing: Listing) -> InstrumentState:
        has_maker = (
            self.enabled
            and key not in self._without_market_maker
            and not self._listed.has_expired(listing)
        )
        maker = MarketMaker(listing, self._seed) if has_maker else None
        stats = first_session(listing, self._seed)
        instrument = InstrumentState(listing, stats, maker, self.turn)
        self._link(key, instrument)
        self.instruments[key] = instrument
        if maker is not None and instrument.underlying is not None:
            maker.move_to(self.fair_value(instrument))
        self.quote(instrument)
        self._matching.mark_changed(instrument)
        return instrument

    def is_due(self, instrument: InstrumentState, key: Key) -> bool:
        """Return whether a use of the instrument would change anything."""
        return instrument.market_maker is not None and (
            self.turn - instrument.last_used_turn >= _USE_INTERVAL or key not in self.active
        )

    def link_listings(self) -> None:
        """Connect every instrument with its underlying and its indices, after new listings."""
        for key, instrument in self.instruments.items():
            self._link(key, instrument)

    def _link(self, key: Key, instrument: InstrumentState) -> None:
        instrument.underlying = self._listed.underlyings.get(instrument.listing.underlying)
        instrument.live_indices = self._listed.live_indices.of(key)
        for live_index, position in instrument.live_indices:
            live_index.prices[position] = instrument.stats.last_price

    def begin_session(self) -> None:
        """Let every instrument start its session from the terms it is listed with now."""
        self._spots.clear()
        for key, instrument in self.instruments.items():
            instrument.listing = self._listed.by_token[key]
            instrument.underlying = self._listed.underlyings.get(instrument.listing.underlying)
            instrument.stats = next_session(instrument.stats)
            if instrument.market_maker is not None:
                instrument.market_maker.relist(instrument.listing)
            self._matching.mark_changed(instrument)

    def retire(self, instrument: InstrumentState) -> None:
        """End market making in an instrument, as after its expiry."""
        self.pull_quotes(instrument)
        instrument.market_maker = None
        self.active.pop((instrument.listing.segment, instrument.listing.token), None)
        self._matching.mark_changed(instrument)

    # --- prices and quotes --------------------------------------------------------------------

    def fair_value(self, instrument: InstrumentState) -> float:
        """Return the value of a derivative at the present price of its underlying.

        Reading it counts as a use of the underlying's members. The last price of anything else.
        """
        listing, underlying = instrument.listing, instrument.underlying
        if underlying is None:
            return instrument.stats.last_price
        turn, spot = self._spots.get(listing.underlying, (-1, 0.0))
        if turn != self.turn:
            spot = underlying.spot(lambda member: self.instrument(member).stats.last_price)
            self._spots[listing.underlying] = self.turn, spot
        return fair_value(listing, spot, self._clock.now_ns)

    def quote(self, instrument: InstrumentState) -> None:
        """Place the market maker's quotes, where there is one and while the market is open."""
        maker = instrument.market_maker
        if maker is not None and self._phases[instrument.listing.segment] is Phase.OPEN:
            self._place_quotes(instrument, maker.quotes())

    def pull_quotes(self, instrument: InstrumentState) -> None:
        """Take the quotes out of the book."""
        for entry in instrument.quotes:
            if entry.quantity:
                instrument.book.side(entry.side).remove(entry)
        instrument.quotes.clear()

    def _place_quotes(
        self, instrument: InstrumentState, quotes: Iterable[tuple[Side, int, int]]
    ) -> None:
        """Add quotes to the book; they trade with the client orders they meet before they rest."""
        book = instrument.book
        for side, price, quantity in quotes:
            # Checked first, because a quote hardly ever meets an order.
            against = book.against(side)
            if against.meets(price):
                executions = against.execute(price, quantity)
                self._matching.apply_fills(instrument, None, executions)
                quantity -= sum(traded for _, traded in executions)
            if quantity:
                entry = quote(side, price, quantity)
                book.side(side).add(entry)
                instrument.quotes.append(entry)

    # --- prices from outside ------------------------------------------------------------------

    def print_price(self, instrument: InstrumentState, price: int, quantity: int) -> None:
        """Print a trade at a price from outside, which fills the resting orders that it passes."""
        self.pull_quotes(instrument)
        for side in (Side.SELL, Side.BUY):
            executions = instrument.book.against(side).execute(price, _UNLIMITED)
            self._matching.apply_fills(instrument, None, executions)
        self._matching.print_trade(instrument, price, quantity)
        if instrument.market_maker is not None:
            instrument.market_maker.move_to(price)
            if instrument.underlying is not None:
                instrument.basis = price - self.fair_value(instrument)
            self.quote(instrument)
        self._contingent_orders.process_triggers(instrument)
        self._matching.mark_changed(instrument)

    def set_quotes(
        self, instrument: InstrumentState, quotes: Iterable[tuple[Side, int, int]]
    ) -> None:
        """Replace all quotes in the book by those from outside."""
        self.pull_quotes(instrument)
        self._place_quotes(instrument, quotes)
        self._contingent_orders.process_triggers(instrument)
        self._matching.mark_changed(instrument)

    # --- snapshot -----------------------------------------------------------------------------

    def snapshot(self) -> MarketMakersState:
        """Return all instruments in use as plain values."""
        return MarketMakersState(
            seed=self._seed,
            enabled=self.enabled,
            without_market_maker=sorted(self._without_market_maker),
            turn=self.turn,
            instruments=[instrument.snapshot() for instrument in self.instruments.values()],
            active=list(self.active),
            spots=dict(self._spots),
        )

    def restore(self, state: MarketMakersState) -> None:
        """Take over the instruments of a snapshot, but for their books."""
        self.turn = state.turn
        for each in state.instruments:
            key = (each.segment, each.token)
            listing = self._listed.by_token[key]
            maker = None
            if each.market_maker is not None:
                maker = MarketMaker(listing, self._seed)
                maker.restore(each.market_maker)
            instrument = InstrumentState(listing, each.stats, maker, each.turn)
            instrument.restore(each)
            self._link(key, instrument)
            self.instruments[key] = instrument
        self._spots = state.spots
        self.active = {key: self.instruments[key] for key in state.active}

    def restore_books(self, state: MarketMakersState) -> None:
        """Fill the books, once the working orders are restored."""
        for each in state.instruments:
            instrument = self.instruments[each.segment, each.token]
            for resting in each.resting:
                if resting.number:
                    entry: Resting = self._matching.restore_resting(resting)
                else:
                    # A quote may have traded in part: its disclosed quantity is not what is left.
                    entry = quote(resting.side, resting.price, resting.disclosed)
                    entry.quantity, entry.visible = resting.quantity, resting.visible
                    instrument.quotes.append(entry)
                instrument.book.side(resting.side).add(entry)
