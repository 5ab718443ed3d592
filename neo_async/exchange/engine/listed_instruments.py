"""The trading floor: what is listed, the desks that somebody has touched, and their makers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from neo_async.exchange.engine.book import Resting, quote
from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.indices import Meters
from neo_async.exchange.engine.instrument_state import Desk
from neo_async.exchange.engine.market_maker import QUANTUM_NS, MarketMaker
from neo_async.exchange.engine.matching import Matching
from neo_async.exchange.engine.pricing import fair_value
from neo_async.exchange.engine.session_stats import Day, new_day
from neo_async.exchange.engine.snapshot import DeskState, State
from neo_async.exchange.engine.trading_hours import Phase
from neo_async.exchange.engine.types import Listing
from neo_async.exchange.engine.underlyings import underlyings
from neo_async.model.enums import Segment, Side

CATCH_UP: Final = 40
"""Turns the makers play at most after a pause; what is older is skipped."""

IDLE: Final = 120
"""Turns after which a listing that nobody touches, and where no client order works, goes quiet."""

_TOUCH: Final = 30
"""Turns for which one touch is as good as many."""


class Floor:
    def __init__(
        self,
        listings: Iterable[Listing],
        clock: Clock,
        matching: Matching,
        phases: dict[Segment, Phase],
        *,
        seed: int,
        makers: bool,
        unmade: Collection[tuple[Segment, str]],
    ) -> None:
        self._clock = clock
        self._matching = matching
        self._phases = phases
        self.seed = seed
        self.makers = makers
        self.unmade = frozenset(unmade)
        self.by_symbol: dict[tuple[Segment, str], Listing] = {}
        self.by_token: dict[tuple[Segment, str], Listing] = {}
        self.first_prices: dict[tuple[Segment, str], int] = {}
        """Base prices with which they were listed first."""
        self.contracts: dict[tuple[Segment, str], list[str]] = {}
        """Tokens of the derivatives, by segment and name of the underlying."""
        self.closes: dict[str, int] = {}
        """Previous closes of the indices, once a day has ended."""
        self.desks: dict[tuple[Segment, str], Desk] = {}
        self.awake: dict[tuple[Segment, str], Desk] = {}
        self.meters = Meters({}, {})
        self.add(listings)
        self.spots: dict[str, tuple[int, float]] = {}
        """Turn and price at which an underlying was last looked at: once a turn."""
        self.turn = clock.now_ns // QUANTUM_NS

    def add(self, listings: Iterable[Listing]) -> None:
        """List what is not listed yet."""
        for listing in listings:
            key = (listing.segment, listing.token)
            self.by_symbol[listing.segment, listing.symbol] = listing
            self.by_token[key] = listing
            self.first_prices[key] = listing.base_price
            if listing.expiry is not None:
                of_name = self.contracts.setdefault((listing.segment, listing.name), [])
                of_name.append(listing.token)
        self.segments = tuple(dict.fromkeys(segment for segment, _ in self.by_token))
        """In which something is listed."""
        self._set_values({key: meter.day for key, meter in self.meters.by_key.items()})

    def _set_values(self, index_days: Mapping[str, Day]) -> None:
        """What is reckoned from other prices: the indices, and what derivatives are worth."""
        self.meters = Meters(self.by_symbol, self.closes, index_days)
        self.underlyings = underlyings(self.by_token.values(), self.closes)
        for key, desk in self.desks.items():
            self._follow_price(key, desk)

    def _follow_price(self, key: tuple[Segment, str], desk: Desk) -> None:
        desk.underlying = self.underlyings.get(desk.listing.underlying)
        desk.meters = self.meters.of(key)
        for meter, place in desk.meters:
            meter.prices[place] = desk.day.last_price

    def play_turn(self, turn: int) -> None:
        """Let the makers take a turn, and send to sleep who is no longer needed."""
        self.turn = turn
        for key, desk in list(self.awake.items()):
            if turn - desk.touched > IDLE and not (desk.working or desk.watchers):
                del self.awake[key]
            else:
                self.play(desk, turn)

    def desk(self, listing: Listing) -> Desk:
        """The desk of a listing, opened at the first touch and woken at any other."""
        key = (listing.segment, listing.token)
        desk = self.desks.get(key)
        if desk is not None and desk.maker is None:
            return desk
        if desk is None:
            is_made = self.makers and key not in self.unmade and not self.has_expired(listing)
            maker = MarketMaker(listing, self.seed) if is_made else None
            desk = Desk(listing, new_day(listing, self.seed), maker, self.turn)
            self._follow_price(key, desk)
            self.desks[key] = desk
            if maker is not None and desk.underlying is not None:
                maker.move_to(self.value(desk))
            self.quote(desk)
            self._matching.mark(desk)
        if desk.maker is None or not self.is_due(desk, key):
            return desk
        desk.touched = self.turn
        if desk.maker is not None and key not in self.awake:
            self.awake[key] = desk
            for turn in range(max(desk.turn + 1, self.turn - CATCH_UP + 1), self.turn + 1):
                self.play(desk, turn)
        return desk

    def has_expired(self, listing: Listing) -> bool:
        """Whether its last day is over."""
        return listing.expiry is not None and listing.expiry < self._clock.date

    def retire(self, desk: Desk) -> None:
        """Nobody makes a market here any more."""
        self.pull_quotes(desk)
        desk.maker = None
        self.awake.pop((desk.listing.segment, desk.listing.token), None)
        self._matching.mark(desk)

    def is_due(self, desk: Desk, key: tuple[Segment, str]) -> bool:
        """Whether a touch would change anything."""
        return desk.maker is not None and (
            self.turn - desk.touched >= _TOUCH or key not in self.awake
        )

    def play(self, desk: Desk, turn: int) -> None:
        """One turn of a market maker: somebody may trade, the reference walks, new quotes."""
        desk.turn = turn
        maker = desk.maker
        if maker is None or self._phases[desk.listing.segment] is not Phase.OPEN:
            return
        taker = maker.trade()
        if taker is not None:
            side, quantity = taker
            against = desk.book.against(side)
            best = against.best()
            if best is not None:
                executions = against.execute(best.price, quantity)
                self._matching.apply_fill(desk, None, executions)
        if desk.underlying is None:
            maker.walk()
        else:
            maker.move_to(self.value(desk) + desk.basis)
        self.pull_quotes(desk)
        self.quote(desk)
        self._matching.follow_up(desk)
        self._matching.mark(desk)

    def quote(self, desk: Desk) -> None:
        """Let the maker's quotes stand, where there is one and while the market is open."""
        if desk.maker is not None and self._phases[desk.listing.segment] is Phase.OPEN:
            self.place_quotes(desk, desk.maker.quotes())

    def value(self, desk: Desk) -> float:
        """What a derivative is worth by the present price of its underlying, whose makers are kept
        awake by the question."""
        listing, underlying = desk.listing, desk.underlying
        if underlying is None:
            return desk.day.last_price
        turn, spot = self.spots.get(listing.underlying, (-1, 0.0))
        if turn != self.turn:
            spot = underlying.spot(lambda member: self.desk(member).day.last_price)
            self.spots[listing.underlying] = self.turn, spot
        return fair_value(listing, spot, self._clock.now_ns)

    def pull_quotes(self, desk: Desk) -> None:
        for entry in desk.quotes:
            if entry.quantity:
                desk.book.side(entry.side).remove(entry)
        desk.quotes.clear()

    def place_quotes(self, desk: Desk, quotes: Iterable[tuple[Side, int, int]]) -> None:
        """Quotes trade with the client orders they meet before they rest."""
        book = desk.book
        for side, price, quantity in quotes:
            # Asked first, because hardly ever does a quote meet anyone.
            against = book.against(side)
            if against.meets(price):
                executions = against.execute(price, quantity)
                self._matching.apply_fill(desk, None, executions)
                quantity -= sum(traded for _, traded in executions)
            if quantity:
                entry = quote(side, price, quantity)
                book.side(side).add(entry)
                desk.quotes.append(entry)

    def restore(self, state: State) -> None:
        """All but the books, for which the orders at work are needed."""
        self.closes = state.closes
        self.first_prices = dict(zip(self.by_token, state.first_prices, strict=True))
        self._set_values(state.indices)
        self.turn = state.turn
        for each in state.desks:
            self._restore_desk(each)
        self.spots = state.spots
        self.awake = {key: self.desks[key] for key in state.awake}

    def _restore_desk(self, state: DeskState) -> None:
        key = (state.segment, state.token)
        listing = self.by_token[key]
        maker = None
        if state.maker is not None:
            maker = MarketMaker(listing, self.seed)
            maker.restore(state.maker)
        desk = Desk(listing, state.day, maker, state.turn)
        self._follow_price(key, desk)
        desk.basis = state.basis
        desk.touched = state.touched
        desk.changed_ns = state.changed_ns
        desk.watchers = state.watchers
        self.desks[key] = desk

    def restore_books(self, desks: Iterable[DeskState]) -> None:
        for state in desks:
            desk = self.desks[state.segment, state.token]
            for each in state.resting:
                if each.number:
                    entry: Resting = self._matching.restore_rest(each)
                else:
                    # A quote may have traded in part, so what it disclosed is not what is left.
                    entry = quote(each.side, each.price, each.disclosed)
                    entry.quantity, entry.visible = each.quantity, each.visible
                    desk.quotes.append(entry)
                desk.book.side(each.side).add(entry)
