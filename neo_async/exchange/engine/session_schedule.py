"""The course of a day: what opens, closes, expires and is settled, and when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from neo_async.exchange.engine.accounts import Account, Exposure
from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.instrument_state import at_work
from neo_async.exchange.engine.ledger import OPENED, Ledger
from neo_async.exchange.engine.listed_instruments import Floor
from neo_async.exchange.engine.listings import relisted
from neo_async.exchange.engine.matching import Matching
from neo_async.exchange.engine.oco_group import COVERED
from neo_async.exchange.engine.orders import Orders
from neo_async.exchange.engine.session_stats import following
from neo_async.exchange.engine.trading_hours import Moment, Phase, Turn, next_moment
from neo_async.exchange.engine.types import Hours, Listing, NewOrder, OrderRecord, Position, Rules
from neo_async.exchange.engine.underlyings import underlyings
from neo_async.model.enums import OrderType, Product, Segment, Side

_INTRADAY: Final = (Product.MIS, *COVERED)
_SQUARED_OFF: Final = "SQUAREOFF"
"""Source of the orders that close what must not outlive a day."""
_SETTLED: Final = "SETTLEMENT"


class TradingDay:
    def __init__(
        self,
        clock: Clock,
        ledger: Ledger,
        matching: Matching,
        floor: Floor,
        orders: Orders,
        accounts: dict[str, Account],
        phases: dict[Segment, Phase],
        rules: Rules,
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._matching = matching
        self._floor = floor
        self._orders = orders
        self._accounts = accounts
        self._phases = phases
        self._rules = rules
        self.days_begun = 0
        self.day_began = 0
        """How many orders the ledger had by then."""
        self._moments: deque[Moment] = deque()
        if rules.hours is Hours.EXCHANGE:
            self._moments.extend(next_moment(clock.now_ns))

    @property
    def next_ns(self) -> int | None:
        """When the timetable brings something; None where it never does."""
        return self._moments[0].time_ns if self._moments else None

    def turn_over(self) -> None:
        """Do what the next moment of the timetable brings."""
        self._turn_over(self._moments.popleft())
        if not self._moments:
            self._moments.extend(next_moment(self._clock.now_ns))

    def end(self) -> None:
        segments = self._floor.segments
        self.square_off_intraday(segments)
        self.close(segments)
        self.begin()
        if self._rules.hours is Hours.ALWAYS:
            self.open(segments)

    def _turn_over(self, moment: Moment) -> None:
        """Do what a moment of the timetable brings."""
        match moment.turn:
            case Turn.NEW_DAY:
                self._expire(lambda _: True)
                self.settle_expired()
                self.begin()
            case Turn.PRE_OPEN:
                self._phases.update(dict.fromkeys(moment.segments, Phase.PRE_OPEN))
            case Turn.OPEN:
                self.open(moment.segments)
            case Turn.SQUARE_OFF:
                self.square_off_intraday(moment.segments)
            case Turn.CLOSE:
                self.close(moment.segments)

    def open(self, segments: Collection[Segment]) -> None:
        """Let trading begin, with what has been waiting for it."""
        self._phases.update(dict.fromkeys(segments, Phase.OPEN))
        for desk in self._floor.awake.values():
            if desk.listing.segment in segments:
                self._floor.pull_quotes(desk)
                self._floor.quote(desk)
                self._matching.mark(desk)
        self._orders.release(segments)

    def square_off_intraday(self, segments: Collection[Segment]) -> None:
        """Cancel intraday orders and close intraday positions, at market."""
        for legs in {id(legs): legs for legs in self._matching.exits.legs.values()}.values():
            entry = self._record(legs.entry)
            # The exit of one may have ended another, by trading with it.
            if entry.listing.segment in segments and entry.number in self._matching.exits.legs:
                self._orders.exit(entry.account, entry.number)
        for working in list(self._matching.working.values()):
            record = working.record
            if (
                record.listing.segment in segments
                and record.product in _INTRADAY
                and not record.parent_number
                and record.number in self._matching.working
            ):
                self._matching.cancel(working)
        for account, exposure, net in self._open_positions(segments):
            position = exposure.position
            if position.product is Product.MIS:
                order = self._closing_order(position, net, OrderType.MARKET, 0, _SQUARED_OFF)
                self._orders.enter(self._ledger.accept(account, position.listing, order))

    def close(self, segments: Collection[Segment]) -> None:
        """End trading: orders expire, and what must not outlive the day is settled at the last
        price, contracts on their last day at what they are worth."""
        self._expire(lambda listing: listing.segment in segments)
        for account, exposure, net in self._open_positions(segments):
            listing, product = exposure.position.listing, exposure.position.product
            if listing.expiry is not None and listing.expiry <= self._clock.date:
                self._settle_at_value(account, exposure, net)
            elif product in _INTRADAY:
                last_price = self._floor.desk(listing).day.last_price
                self._settle_position(account, exposure, net, last_price)
        for desk in self._floor.desks.values():
            if desk.listing.segment in segments:
                desk.trailing.clear()
                self._floor.pull_quotes(desk)
                self._matching.mark(desk)
        self._phases.update(dict.fromkeys(segments, Phase.CLOSED))

    def settle_expired(self) -> None:
        """End what goes on in contracts whose last day is over, for it may have passed without a
        close."""
        has_expired = self._floor.has_expired
        self._expire(has_expired)
        for account, exposure, net in self._open_positions(self._floor.segments):
            if has_expired(exposure.position.listing):
                self._settle_at_value(account, exposure, net)
        for desk in self._floor.desks.values():
            if has_expired(desk.listing) and desk.maker is not None:
                self._floor.retire(desk)

    def _settle_at_value(self, account: Account, exposure: Exposure, net: int) -> None:
        """At what a contract is worth in the end."""
        value = self._floor.value(self._floor.desk(exposure.position.listing))
        self._settle_position(account, exposure, net, max(0, round(value)))

    def _expire(self, concerns: Callable[[Listing], bool]) -> None:
        """Cancel all orders at work in certain listings."""
        for working in list(self._matching.working.values()):
            if concerns(working.record.listing):
                self._matching.withdraw(working)
                self._matching.drop_remainder(working)
        self._matching.exits.legs = {
            number: legs
            for number, legs in self._matching.exits.legs.items()
            if not concerns(self._record(number).listing)
        }

    def _open_positions(self, segments: Collection[Segment]) -> list[tuple[Account, Exposure, int]]:
        """With their net quantity."""
        return [
            (account, exposure, net)
            for account in self._accounts.values()
            for exposure in account.exposures()
            if exposure.position.listing.segment in segments
            and (net := exposure.position.bought - exposure.position.sold)
            and exposure.position.product is not Product.CNC
        ]

    def _closing_order(
        self, position: Position, net: int, order_type: OrderType, price: int, source: str
    ) -> NewOrder:
        return NewOrder(
            segment=position.listing.segment,
            symbol=position.listing.symbol,
            side=Side.SELL if net > 0 else Side.BUY,
            quantity=abs(net),
            order_type=order_type,
            product=position.product,
            price=price,
            source=source,
        )

    def _settle_position(self, account: Account, exposure: Exposure, net: int, price: int) -> None:
        """Close a position against nobody."""
        position = exposure.position
        order = self._closing_order(position, net, OrderType.LIMIT, price, _SETTLED)
        record = self._ledger.accept(account, position.listing, order)
        working = at_work(record, account, exposure, self._floor.desk(position.listing))
        self._matching.block(working, record.quantity)
        self._matching.take_on(working)
        self._ledger.move(record, OPENED)
        trade_number = self._ledger.next_trade_number()
        self._matching.fill(working, trade_number, record.quantity, price)
        self._matching.exits.unbalanced.pop(record.number, None)

    def begin(self) -> None:
        """Settle the accounts at the closing prices, and start from those."""
        self.days_begun += 1
        self.day_began = len(self._ledger.orders)
        for name, meter in self._floor.meters.by_key.items():
            self._floor.closes[name] = meter.day.last_price
        relisting = {
            key: relisted(listing, self._closing_price(listing))
            for key, listing in self._floor.by_token.items()
        }
        for key, listing in relisting.items():
            self._floor.by_token[key] = listing
            self._floor.by_symbol[listing.segment, listing.symbol] = listing
        for meter in self._floor.meters.by_key.values():
            meter.begin_day(relisting)
        self._floor.underlyings = underlyings(relisting.values(), self._floor.closes)
        self._floor.spots.clear()
        for key, desk in self._floor.desks.items():
            desk.listing = relisting[key]
            desk.underlying = self._floor.underlyings.get(desk.listing.underlying)
            desk.day = following(desk.day)
            if desk.maker is not None:
                desk.maker.relist(desk.listing)
            self._matching.mark(desk)
        for account in self._accounts.values():
            account.end_day(lambda listing: relisting[listing.segment, listing.token])
        for number, record in self._orders.queued.items():
            record.listing = relisting[record.listing.segment, record.listing.token]
            self._accounts[record.account].orders[number] = record

    def _closing_price(self, listing: Listing) -> int:
        desk = self._floor.desks.get((listing.segment, listing.token))
        return desk.day.last_price if desk is not None else listing.base_price

    def _record(self, number: str) -> OrderRecord:
        return next(
            account.orders[number]
            for account in self._accounts.values()
            if number in account.orders
        )
