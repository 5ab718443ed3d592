"""The exchange as a state machine: commands and a clock in, orders, fills and events out.

Nothing here reads a clock, draws from a shared generator or waits. The same listings, seed,
commands and clock values give the same order numbers, trades and times (see journal.py, and
state.py for the shortcut).

Time stands still between calls of `advance`; to keep an order's history in sequence, each
transition is stamped at least one nanosecond after the one before.

Orders of one account may trade with each other: nothing prevents self-trades.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable
from datetime import date, timedelta
from typing import Any, Final

import msgspec

from neo_async.exchange.core import journal as commands
from neo_async.exchange.core.accounts import DELIVERY, Account, Exposure
from neo_async.exchange.core.book import Book, Resting
from neo_async.exchange.core.day import Day, Picture, following, new_day
from neo_async.exchange.core.indices import Index
from neo_async.exchange.core.legs import COVERED, Legs, inside, target_and_trigger
from neo_async.exchange.core.listings import relisted
from neo_async.exchange.core.makers import QUANTUM_NS, MarketMaker
from neo_async.exchange.core.pricing import fair_value
from neo_async.exchange.core.protection import protected_limit, protection_percent
from neo_async.exchange.core.sessions import (
    SECOND_NS,
    Moment,
    Phase,
    Turn,
    indian_day,
    next_moment,
    phase,
)
from neo_async.exchange.core.state import (
    DeskState,
    RestingState,
    State,
    WorkingState,
)
from neo_async.exchange.core.types import (
    Change,
    Event,
    Fill,
    Funds,
    Holding,
    Hours,
    Listing,
    NewOrder,
    OrderChanged,
    OrderRecord,
    Position,
    PositionChanged,
    Printed,
    Refusal,
    Rules,
    Transition,
)
from neo_async.exchange.core.underlyings import Underlying, underlyings
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment, Side, Validity

CATCH_UP: Final = 40
"""Turns the makers play at most after a pause; what is older is skipped."""

IDLE: Final = 120
"""Turns after which a listing that nobody touches, and where no client order works, goes quiet."""

_TOUCH: Final = 30
"""Turns for which one touch is as good as many."""

_EVERYTHING: Final = 1 << 62
_INTRADAY: Final = (Product.MIS, *COVERED)
_SQUARED_OFF: Final = "SQUAREOFF"
"""Source of the orders that close what must not outlive a day."""
_SETTLED: Final = "SETTLEMENT"
_FIRST_EXCHANGE_NUMBER: Final = 1_100_000_000_000_001
_FIRST_TRADE_NUMBER: Final = 200_000_001


class _Desk:
    """Everything that belongs to one listing once somebody has touched it."""

    def __init__(
        self,
        listing: Listing,
        day: Day,
        maker: MarketMaker | None,
        turn: int,
        underlying: Underlying | None,
    ) -> None:
        self.listing = listing
        self.book = Book()
        self.day = day
        self.maker = maker
        self.quotes: list[Resting] = []
        self.underlying = underlying
        """What the maker's reference follows; None: it walks by itself."""
        self.basis = 0.0
        """Paise by which a price from outside lay beside the value, kept since."""
        self.turn = turn
        """Last turn the maker has played."""
        self.touched = turn
        self.working = 0
        """Client orders that rest here or wait for their trigger."""
        self.watchers = 0
        self.changed_ns = 0
        # Heaps of (trigger, sequence, order), the next to fire first: the sell triggers negated.
        # A changed or cancelled order leaves its entry behind, told by an outdated sequence.
        self.buy_stops: list[tuple[int, int, _Working]] = []
        self.sell_stops: list[tuple[int, int, _Working]] = []
        self.fired: deque[tuple[int, _Working]] = deque()
        self.trailing: dict[str, Legs] = {}
        """Legs whose stop follows the price, by the number of their entry."""


class _Working:
    """What the market keeps of an order until it is final."""

    __slots__ = (
        "account",
        "blocked_price",
        "blocks",
        "desk",
        "exposure",
        "record",
        "resting",
        "stop",
    )

    def __init__(
        self, record: OrderRecord, account: Account, exposure: Exposure, desk: _Desk
    ) -> None:
        self.record = record
        self.account = account
        self.exposure = exposure
        self.desk = desk
        self.blocked_price = 0
        """Price at which the pending quantity is blocked."""
        self.blocks = True
        """False for a stop beside its target: only one of them can trade."""
        self.resting: Resting | None = None
        self.stop = 0
        """Sequence of its entry among the stops; 0 once triggered, or if it is none."""


class Market:
    def __init__(
        self,
        listings: Iterable[Listing],
        *,
        seed: int,
        now_ns: int,
        makers: bool = True,
        unmade: Collection[tuple[Segment, str]] = (),
        rules: Rules = Rules(),  # noqa: B008 - frozen
    ) -> None:
        """`unmade` are listings without a maker, by segment and token: prices and quotes come from
        outside there."""
        self.now_ns = now_ns
        self.ledger: list[OrderRecord] = []
        """Every order ever accepted, in order of acceptance."""
        self.journal: list[commands.Entry] | None = None
        """Where commands are noted; whoever keeps them elsewhere takes them out. None: nowhere."""
        self._seed = seed
        self._makers = makers
        self._unmade = frozenset(unmade)
        self._rules = rules
        self._by_symbol: dict[tuple[Segment, str], Listing] = {}
        self._by_token: dict[tuple[Segment, str], Listing] = {}
        for listing in listings:
            self._by_symbol[listing.segment, listing.symbol] = listing
            self._by_token[listing.segment, listing.token] = listing
        self.days_begun = 0
        """Trading days since the market was made."""
        self._closes: dict[str, int] = {}
        self._underlyings = underlyings(self._by_token.values(), self._closes)
        self._spots: dict[str, tuple[int, float]] = {}
        """Turn and price at which an underlying was last looked at: once a turn."""
        self.segments = tuple(dict.fromkeys(segment for segment, _ in self._by_token))
        """In which something is listed."""
        self._phases = dict.fromkeys(Segment, Phase.OPEN)
        self._moments: deque[Moment] = deque()
        """What the clock will bring next."""
        if rules.hours is Hours.EXCHANGE:
            self._phases = {segment: phase(segment, now_ns) for segment in Segment}
            self._moments.extend(next_moment(now_ns))
        self._accounts: dict[str, Account] = {}
        self._desks: dict[tuple[Segment, str], _Desk] = {}
        self._awake: dict[tuple[Segment, str], _Desk] = {}
        self._changed: dict[_Desk, None] = {}
        self._turn = now_ns // QUANTUM_NS
        self._working: dict[str, _Working] = {}
        self._amo_queue: dict[str, OrderRecord] = {}
        self._legs: dict[str, Legs] = {}
        """Exits that are still wanted, by the numbers of their entry and of both legs."""
        self._unbalanced: dict[str, OrderRecord] = {}
        """Entries whose legs no longer fit what has been filled, by number."""
        self._tags: dict[tuple[str, int, str], OrderRecord] = {}
        self._events: list[Event] = []
        self._last_stamp = 0
        self._orders_accepted = 0
        self._exchange_numbers = _FIRST_EXCHANGE_NUMBER
        self._trade_numbers = _FIRST_TRADE_NUMBER
        self._gui_numbers = 0
        self._stops = 0
        self._coded_day = -1
        self._coded_date = ""

    # --- clock --------------------------------------------------------------------------------

    def advance(self, now_ns: int, *, catch_up: bool = True) -> None:
        """Move the clock; a value before the present one is ignored.

        Makers take a turn at every boundary of QUANTUM_NS on the way, so that many small steps
        and one large one are the same, up to CATCH_UP turns; without `catch_up` they take all.
        """
        if now_ns <= self.now_ns:
            return
        while self._moments and self._moments[0].time_ns <= now_ns:
            self._run_to(self._moments[0].time_ns, catch_up)
            self._turn_over(self._moments.popleft())
            if not self._moments:
                self._moments.extend(next_moment(self.now_ns))
        self._run_to(now_ns, catch_up)

    def _run_to(self, now_ns: int, catch_up: bool) -> None:
        last = now_ns // QUANTUM_NS
        is_open = Phase.OPEN in self._phases.values()
        if self._makers and is_open and last > self._turn:
            if catch_up and last - self._turn > CATCH_UP:
                self.skip_turns(last - CATCH_UP)
            for turn in range(self._turn + 1, last + 1):
                self.now_ns = max(self.now_ns, turn * QUANTUM_NS)
                self._turn = turn
                for key, desk in list(self._awake.items()):
                    if turn - desk.touched > IDLE and not (desk.working or desk.watchers):
                        del self._awake[key]
                    else:
                        self._play(desk, turn)
        self._turn = last
        self.now_ns = max(self.now_ns, now_ns)

    def skip_turns(self, turn: int) -> None:
        """Let the makers pass over all turns up to this one."""
        self._log(commands.Skip(turn))
        self._turn = max(self._turn, turn)

    # --- accounts and listings ----------------------------------------------------------------

    def open_account(self, account: str, *, cash: int, holdings: Iterable[Holding] = ()) -> None:
        if account in self._accounts:
            raise ValueError(f"account {account!r} is open already")
        holdings = list(holdings)
        self._log(commands.OpenAccount(account, cash, holdings))
        self._accounts[account] = Account(account, cash, holdings)

    @property
    def listings(self) -> list[Listing]:
        return list(self._by_token.values())

    def listing(self, segment: Segment, symbol: str) -> Listing | None:
        return self._by_symbol.get((segment, symbol))

    def listing_by_token(self, segment: Segment, token: str) -> Listing | None:
        return self._by_token.get((segment, token))

    def last_price(self, listing: Listing) -> int:
        """Price of the last trade; the previous close before the first."""
        return self._look(listing).day.last_price

    def depth(
        self, listing: Listing, levels: int = 5
    ) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Bids and asks as (price, visible quantity, orders), best first."""
        book = self._look(listing).book
        return book.bids.top(levels), book.asks.top(levels)

    def day(self, listing: Listing) -> Day:
        """The day's figures, live: not to be written to."""
        return self._look(listing).day

    def picture(self, listing: Listing, levels: int = 5) -> Picture:
        desk = self._look(listing)
        bids, asks = desk.book.bids, desk.book.asks
        return Picture(
            listing,
            desk.day,
            desk.changed_ns,
            bids.top(levels),
            asks.top(levels),
            bids.visible_quantity(),
            asks.visible_quantity(),
        )

    # --- watching -----------------------------------------------------------------------------

    def watch(self, listing: Listing) -> None:
        """Keep a listing awake and tell of its changes, until as many calls of `unwatch`."""
        self._log(commands.Watch(listing.segment, listing.token))
        self._desk(listing).watchers += 1

    def unwatch(self, listing: Listing) -> None:
        self._log(commands.Unwatch(listing.segment, listing.token))
        desk = self._desk(listing)
        desk.watchers -= 1
        if not desk.watchers:
            self._changed.pop(desk, None)

    def take_changes(self) -> list[Listing]:
        """Watched listings that a trade or their book has changed since the last call."""
        if not self._changed:
            return []
        changed, self._changed = self._changed, {}
        return [desk.listing for desk in changed]

    @property
    def has_changes(self) -> bool:
        return bool(self._changed)

    # --- orders -------------------------------------------------------------------------------

    def place(self, account: str, order: NewOrder) -> OrderRecord:
        """Accept an order. Accepted is not validated: it may come back rejected.

        Raises Refusal for what gets no order number at all.
        """
        holder = self._accounts[account]
        if self.journal is not None:
            self._log(commands.Place(account, order))
        tag_key = (account, self._day(), order.tag)
        if order.tag and (earlier := self._tags.get(tag_key)):
            earlier.arrivals += 1
            raise Refusal(32, "error from core", http_status=200)
        listing = self._known(order)
        waits = self._waits(order)
        _check_terms(listing, order, is_cover=order.product is Product.CO)
        _check_bracket(order)
        record = self._accept(holder, listing, order)
        if order.tag:
            self._tags[tag_key] = record
        if waits:
            self._amo_queue[record.number] = record
            self._move(record, OrderStatus.AMO_RECEIVED)
        else:
            self._enter(record)
        return record

    def modify(self, account: str, number: str, change: Change) -> OrderRecord:
        """Change an order that is not final.

        It keeps its place in the queue when nothing but the quantity changes, and that falls.
        A change that fails validation leaves the order as it was, with the reason in its history.
        """
        self._log(commands.Modify(account, number, change))
        record = self._changeable(account, number)
        is_leg = bool(record.parent_number)
        is_cover = record.product is Product.CO and not is_leg
        _check_terms(record.listing, change, is_cover=is_cover)
        if change.quantity <= record.filled_quantity:
            raise Refusal(1009, "please provide valid quantity")
        if is_leg and change.quantity != record.quantity:
            raise Refusal(1009, "please provide valid quantity")
        if record.product in COVERED and (
            change.validity is not Validity.DAY
            or (is_leg and change.order_type is not record.order_type)
        ):
            raise Refusal(5202, "Error: Invalid Request")
        if number in self._amo_queue:
            self._take_over(record, msgspec.structs.replace(record, **_terms(change)))
            self._move(record, OrderStatus.AMO_MODIFY_RECEIVED)
        else:
            self._modify_working(self._working[number], change)
        return record

    def cancel(self, account: str, number: str) -> OrderRecord:
        """Cancel what is pending; what is filled stays. A leg does not go alone: see `exit`."""
        self._log(commands.Cancel(account, number))
        return self._cancel(account, number)

    def _cancel(self, account: str, number: str) -> OrderRecord:
        record = self._changeable(account, number)
        if record.parent_number:
            return self._exit(account, number)
        if self._amo_queue.pop(number, None):
            record.cancelled_quantity = record.pending_quantity
            record.gui_order_id = self._cancelled_gui_id(record)
            self._move(record, OrderStatus.AMO_CANCELLED)
            return record
        self._cancel_working(self._working[number])
        return record

    def exit(self, account: str, number: str) -> OrderRecord:
        """End a cover or bracket order, named by its entry or by a leg.

        The rest of the entry and the target are cancelled, and the stop becomes a limit at the
        protection band, as a market order would: that may rest, and a second call brings it to
        the price of that moment. Any other order is cancelled.
        """
        self._log(commands.Exit(account, number))
        return self._exit(account, number)

    def _exit(self, account: str, number: str) -> OrderRecord:
        legs = self._legs.get(number)
        record = self._accounts[account].orders.get(number)
        if legs is None or record is None:
            return self._cancel(account, number)
        entry = self._working.get(legs.entry)
        if entry is not None:
            self._cancel_working(entry)
        self._square_off(self._working[legs.stop])
        return record

    def release_amo(self) -> None:
        """Send the queued after-market orders to the market, in order of acceptance."""
        self._log(commands.ReleaseAmo())
        queue, self._amo_queue = self._amo_queue, {}
        for record in queue.values():
            self._enter(record)

    def end_day(self) -> None:
        """End the day in all segments at once: square off, close, settle, begin the next.

        Happens by itself where the exchange's hours are kept.
        """
        self._log(commands.EndDay())
        self._square_off_intraday(self.segments)
        self._close(self.segments)
        self._begin_day()
        if self._rules.hours is Hours.ALWAYS:
            self._open(self.segments)

    def phase(self, segment: Segment) -> Phase:
        return self._phases[segment]

    def previous_close(self, index: Index) -> int:
        """Hundredths of a point."""
        return self._closes.get(f"{index.segment.value}|{index.token}", index.close)

    def print_price(self, segment: Segment, token: str, price: int) -> None:
        """Let a trade print at a price from outside.

        Resting client orders that would have traded at it are filled, at their own limits; the
        reference of the market maker moves there, and stops that it reaches are triggered.
        """
        listing = self._by_token.get((segment, token))
        if listing is None:
            raise Refusal(1009, "Invalid instrument/code")
        if price <= 0:
            raise Refusal(5202, f"price {price}: must be above 0 paise")
        self._log(commands.PrintPrice(segment, token, price))
        desk = self._desk(listing)
        self._pull_quotes(desk)
        for side in (Side.SELL, Side.BUY):
            self._settle(desk, None, desk.book.execute(side, price, _EVERYTHING))
        self._print(desk, price, 0)
        if desk.maker is not None:
            desk.maker.move_to(price)
            if desk.underlying is not None:
                desk.basis = price - self._value(desk)
            self._quote(desk)
        self._follow_up(desk)
        self._mark(desk)

    def set_quotes(
        self, segment: Segment, token: str, quotes: Iterable[tuple[Side, int, int]]
    ) -> None:
        """Let (side, price, quantity) stand in the book of a listing without a maker, in place of
        what stood there by the call before."""
        quotes = list(quotes)
        self._log(commands.SetQuotes(segment, token, quotes))
        desk = self._desk(self._by_token[segment, token])
        self._pull_quotes(desk)
        self._place_quotes(desk, quotes)
        self._follow_up(desk)
        self._mark(desk)

    # --- reports ------------------------------------------------------------------------------

    def orders(self, account: str) -> list[OrderRecord]:
        """Newest first."""
        return list(reversed(self._accounts[account].orders.values()))

    def order(self, account: str, number: str) -> OrderRecord | None:
        return self._accounts[account].orders.get(number)

    def fills(self, account: str) -> list[Fill]:
        """Newest first."""
        return self._accounts[account].fills[::-1]

    def positions(self, account: str) -> list[Position]:
        return self._accounts[account].positions()

    def holdings(self, account: str) -> list[Holding]:
        return self._accounts[account].holdings()

    def funds(self, account: str) -> Funds:
        return self._accounts[account].funds()

    def order_margin(self, account: str, order: NewOrder) -> int:
        """Paise by which the order would lower what is available; 0 if it only closes.

        Raises Refusal for an order that cannot be reckoned. A stop needs no trigger here.
        """
        listing = self._known(order)
        if order.quantity <= 0:
            raise Refusal(1009, "please provide valid quantity")
        if order.price < 0 or (order.order_type.has_limit and not order.price):
            raise Refusal(5202, "Error: Invalid Request")
        holder = self._accounts[account]
        price = order.price
        if order.order_type is OrderType.SL_M:
            start = order.trigger or self._look(listing).day.last_price
            price = protected_limit(listing, order.side, start)
        elif order.order_type is OrderType.MARKET:
            price = self._market_limit(listing, order.side, self._look(listing).day.last_price)
        return holder.cost(listing, order.product, order.side, order.quantity, price)

    def take_events(self) -> list[Event]:
        """What happened since the last call, oldest first. Kept until somebody takes them."""
        events, self._events = self._events, []
        return events

    # --- memory -------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything that decides what happens next, and everything that reports show."""
        return State(
            now_ns=self.now_ns,
            seed=self._seed,
            makers=self._makers,
            unmade=sorted(self._unmade),
            rules=self._rules,
            listings=list(self._by_token.values()),
            turn=self._turn,
            last_stamp=self._last_stamp,
            orders_accepted=self._orders_accepted,
            exchange_numbers=self._exchange_numbers,
            trade_numbers=self._trade_numbers,
            gui_numbers=self._gui_numbers,
            stops=self._stops,
            accounts=[account.snapshot() for account in self._accounts.values()],
            ledger=list(self.ledger),
            working=[
                WorkingState(number, working.blocked_price, working.blocks, working.stop)
                for number, working in self._working.items()
            ],
            queued=list(self._amo_queue),
            legs=[legs for number, legs in self._legs.items() if number == legs.entry],
            desks=[_desk_state(desk) for desk in self._desks.values()],
            awake=list(self._awake),
            spots=dict(self._spots),
            closes=dict(self._closes),
            days_begun=self.days_begun,
            phases=self._phases if self._rules.hours is Hours.EXCHANGE else {},
        )

    @classmethod
    def restored(cls, state: State) -> Market:
        """The market of a snapshot. Takes the state's objects over; events are not remembered."""
        market = cls(
            state.listings,
            seed=state.seed,
            now_ns=state.now_ns,
            makers=state.makers,
            unmade=state.unmade,
            rules=state.rules,
        )
        market.days_begun = state.days_begun
        if state.rules.hours is Hours.EXCHANGE:
            market._phases.update(state.phases)
        market._closes = state.closes
        market._underlyings = underlyings(state.listings, state.closes)
        market._turn = state.turn
        market._last_stamp = state.last_stamp
        market._orders_accepted = state.orders_accepted
        market._exchange_numbers = state.exchange_numbers
        market._trade_numbers = state.trade_numbers
        market._gui_numbers = state.gui_numbers
        market._stops = state.stops
        market.ledger = state.ledger
        records = {record.number: record for record in state.ledger}
        market._restore_orders(records)
        for kept in state.accounts:
            orders = [records[number] for number in kept.orders]
            market._accounts[kept.name] = Account.restored(kept, orders)
        resting: dict[str, Resting] = {}
        for each in state.desks:
            market._restore_desk(each, records, resting)
        for waiting in state.working:
            market._restore_working(waiting, records[waiting.number], resting)
        market._amo_queue = {number: records[number] for number in state.queued}
        for legs in state.legs:
            market._restore_legs(legs, records[legs.entry])
        market._spots = state.spots
        market._awake = {key: market._desks[key] for key in state.awake}
        return market

    def _restore_orders(self, records: dict[str, OrderRecord]) -> None:
        """One listing object for all its orders, and the tags of all days."""
        for record in records.values():
            key = (record.listing.segment, record.listing.token)
            listing = self._by_token.get(key)
            if listing == record.listing:
                record.listing = listing
            if record.client_tag:
                day = indian_day(record.accepted_ns)
                self._tags[record.account, day, record.client_tag] = record

    def _restore_desk(
        self, state: DeskState, records: dict[str, OrderRecord], resting: dict[str, Resting]
    ) -> None:
        listing = self._by_token[state.segment, state.token]
        maker = None
        if state.maker is not None:
            maker = MarketMaker(listing, self._seed)
            maker.restore(state.maker)
        desk = _Desk(
            listing, state.day, maker, state.turn, self._underlyings.get(listing.underlying)
        )
        desk.basis = state.basis
        desk.touched = state.touched
        desk.changed_ns = state.changed_ns
        desk.watchers = state.watchers
        for each in state.resting:
            entry = Resting(each.side, each.price, each.quantity, disclosed=each.disclosed)
            entry.visible = each.visible
            if each.number:
                entry.record = records[each.number]
                resting[each.number] = entry
            else:
                desk.quotes.append(entry)
            desk.book.side(each.side).add(entry)
        self._desks[state.segment, state.token] = desk

    def _restore_working(
        self, state: WorkingState, record: OrderRecord, resting: dict[str, Resting]
    ) -> None:
        account = self._accounts[record.account]
        desk = self._desks[record.listing.segment, record.listing.token]
        exposure = account.exposure(record.listing, record.product)
        working = _Working(record, account, exposure, desk)
        working.blocked_price = state.blocked_price
        working.blocks = state.blocks
        working.stop = state.stop
        working.resting = resting.get(state.number)
        self._working[state.number] = working
        desk.working += 1
        self._block(working, record.pending_quantity)
        if working.stop:
            self._await_trigger(working)

    def _restore_legs(self, legs: Legs, entry: OrderRecord) -> None:
        for number in (legs.entry, legs.stop, legs.target):
            if number:
                self._legs[number] = legs
        if legs.step:
            listing = entry.listing
            self._desks[listing.segment, listing.token].trailing[legs.entry] = legs

    def _log(self, command: commands.Command) -> None:
        if self.journal is not None:
            self.journal.append(commands.Entry(self.now_ns, command))

    # --- acceptance ---------------------------------------------------------------------------

    def _known(self, order: NewOrder) -> Listing:
        """The listing of an order, if its product is one of those traded there."""
        listing = self._by_symbol.get((order.segment, order.symbol))
        if listing is None:
            raise Refusal(1007, f"invalid symbol {order.symbol!r} in {order.segment.value}")
        if order.product in DELIVERY and not listing.segment.is_cash:
            raise Refusal(1011, "please provide valid product")
        if order.product in COVERED and not self._rules.covered_orders:
            raise Refusal(1017, "BO/CO OrderType not allowed for TRADEAPI")
        if listing.expiry is not None and listing.expiry < self._date():
            raise Refusal(1010, "contract expired")
        return listing

    def _waits(self, order: NewOrder) -> bool:
        """Whether an order waits for the open. Raises Refusal if its hour has not come."""
        if self._rules.hours is Hours.ALWAYS:
            return order.amo
        phase = self._phases[order.segment]
        if order.amo and phase is Phase.OPEN:
            raise Refusal(1008, "after market order not allowed while the market is open")
        if not order.amo and phase is Phase.CLOSED:
            raise Refusal(1008, "market closed")
        return phase is not Phase.OPEN

    def _accept(self, holder: Account, listing: Listing, order: NewOrder) -> OrderRecord:
        now = self._stamp()
        record = OrderRecord(
            number=self._next_number(),
            account=holder.name,
            listing=listing,
            side=order.side,
            product=order.product,
            order_type=order.order_type,
            validity=order.validity,
            quantity=order.quantity,
            price=order.price if order.order_type.has_limit else 0,
            trigger=order.trigger,
            disclosed_quantity=order.disclosed_quantity,
            amo=order.amo,
            client_tag=order.tag,
            gui_order_id=order.tag or self._broker_gui_id(holder.name),
            source=order.source,
            status=OrderStatus.PUT_RECEIVED,
            accepted_ns=now,
            updated_ns=now,
            bracket=order.bracket,
        )
        self._enlist(holder, record)
        return record

    def _next_number(self) -> str:
        self._orders_accepted += 1
        return f"{self._date_code()}{self._orders_accepted:09d}"

    def _enlist(self, holder: Account, record: OrderRecord) -> None:
        holder.orders[record.number] = record
        self.ledger.append(record)

    def _enter(self, record: OrderRecord) -> None:
        """Walk an accepted order through validation into the market."""
        self._move(record, OrderStatus.PUT_RECEIVED)
        self._move(record, OrderStatus.VALIDATION_PENDING)
        desk = self._desk(record.listing)
        holder = self._accounts[record.account]
        if record.order_type is OrderType.MARKET:
            self._price_market_order(record, desk)
        exposure = holder.exposure(record.listing, record.product)
        working = _Working(record, holder, exposure, desk)
        reason = self._objection(record, working) or self._reserve(record, working)
        if reason:
            self._move(record, OrderStatus.REJECTED, reason)
            return
        self._take_on(working)
        self._put_to_work(working)
        self._follow_up(desk)
        self._mark(desk)

    def _take_on(self, working: _Working) -> None:
        """Let a validated order into the exchange."""
        record = working.record
        self._move(record, OrderStatus.OPEN_PENDING)
        record.exchange_number = str(self._exchange_numbers)
        self._exchange_numbers += 1
        self._working[record.number] = working
        working.desk.working += 1

    def _price_market_order(self, record: OrderRecord, desk: _Desk) -> None:
        """Turn a market order into the limit that the books then show; without a last price it
        stays one, and is rejected."""
        last_price = desk.day.last_price
        if not last_price:
            return
        record.order_type = OrderType.LIMIT
        record.price = self._market_limit(record.listing, record.side, last_price)
        if self._rules.protected_market_orders:
            record.protection_percent = protection_percent(record.listing, last_price)
        else:
            record.validity = Validity.IOC

    def _market_limit(self, listing: Listing, side: Side, last_price: int) -> int:
        if self._rules.protected_market_orders:
            return protected_limit(listing, side, last_price)
        return listing.upper_band if side is Side.BUY else listing.lower_band

    def _price_to_block(self, record: OrderRecord) -> int:
        """Its limit; for a stop-loss market order, the limit it would get at its trigger."""
        return record.price or protected_limit(record.listing, record.side, record.trigger)

    def _objection(self, record: OrderRecord, working: _Working) -> str:
        """Why risk management rejects an order, money aside; empty when it does not."""
        if record.order_type is OrderType.SL_M and not self._rules.stop_market_orders:
            return "Market order with Algo Id not allowed"
        broken = self._broken_rule(record, working)
        return f"RMS:Rule: {broken}  {_entity(record)}" if broken else ""

    def _broken_rule(self, record: OrderRecord, working: _Working) -> str:
        listing, order_type = record.listing, record.order_type
        if order_type is OrderType.MARKET:
            return "Check last traded price of market order, there is none"
        prices = [record.price] if order_type.has_limit else []
        if order_type.has_trigger:
            prices.append(record.trigger)
        is_cover = record.product is Product.CO and not record.parent_number
        if is_cover:
            prices.append(record.trigger)
        elif record.bracket is not None:
            prices += target_and_trigger(record, record.price)
        tick, lower, upper = listing.tick, listing.lower_band, listing.upper_band
        for price in prices:
            if price % tick:
                return f"Check price is a multiple of tick {tick / 100:.2f}"
            if not lower <= price <= upper:
                return "Check circuit limit including square off order exceeds"
        if (is_cover or order_type is OrderType.SL) and _trigger_on_wrong_side(record):
            return "Check trigger price against limit price"
        if listing.freeze_quantity and record.quantity > listing.freeze_quantity:
            return f"Check freeze quantity {listing.freeze_quantity} exceeds"
        if record.side is Side.SELL and record.product in DELIVERY:
            sellable = max(0, working.account.sellable(listing, record.product))
            if record.pending_quantity > sellable:
                return f"Check holdings, {record.pending_quantity} to sell and {sellable} free"
        return ""

    def _reserve(self, record: OrderRecord, working: _Working, allowance: int = 0) -> str:
        """Block funds and stock for an order; the reason, and nothing blocked, if they fall short.

        `allowance` is a margin that it may use however little is available.
        """
        holder = working.account
        available = holder.available
        working.blocked_price = self._price_to_block(record)
        self._block(working, record.pending_quantity)
        cost = available - holder.available
        if cost <= max(available, allowance):
            return ""
        self._block(working, -record.pending_quantity)
        return (
            f"RMS:Margin Exceeds,Cash Available:{available / 100:.2f},Additional margin "
            f"required:{(cost - available) / 100:.2f} {_entity(record)}"
        )

    # --- at work ------------------------------------------------------------------------------

    def _put_to_work(self, working: _Working) -> None:
        """Arm a stop, or match an order and let its remainder rest."""
        record = working.record
        if record.order_type.has_trigger:
            self._arm(working)
        else:
            self._move(record, OrderStatus.OPEN)
            self._match(working)

    def _match(self, working: _Working) -> None:
        record, desk = working.record, working.desk
        executions = desk.book.execute(record.side, record.price, record.pending_quantity)
        self._settle(desk, working, executions)
        if not record.pending_quantity:
            return
        if record.validity is Validity.IOC:
            self._drop_remainder(working)
            return
        self._rest(working)

    def _rest(self, working: _Working) -> None:
        """Let what is pending of an order stand in the book."""
        record = working.record
        working.resting = Resting(
            record.side,
            record.price,
            record.pending_quantity,
            disclosed=record.disclosed_quantity,
            record=record,
        )
        working.desk.book.side(record.side).add(working.resting)

    def _settle(
        self, desk: _Desk, incoming: _Working | None, executions: list[tuple[Resting, int]]
    ) -> None:
        """Book what an incoming order of a client (or of a maker: None) has traded."""
        for resting, quantity in executions:
            if incoming is not None or resting.record is not None:
                trade_number = str(self._trade_numbers)
                self._trade_numbers += 1
                if resting.record is not None:
                    met = self._working[resting.record.number]
                    self._fill(met, trade_number, quantity, resting.price)
                if incoming is not None:
                    self._fill(incoming, trade_number, quantity, resting.price)
            self._print(desk, resting.price, quantity)

    def _fill(self, working: _Working, trade_number: str, quantity: int, price: int) -> None:
        record = working.record
        fill = Fill(
            trade_number=trade_number,
            order_number=record.number,
            account=record.account,
            segment=record.listing.segment,
            token=record.listing.token,
            side=record.side,
            product=record.product,
            quantity=quantity,
            price=price,
            leg=len(record.fills) + 1,
            time_ns=self._stamp(),
        )
        record.fills.append(fill)
        record.filled_quantity += quantity
        record.filled_value += quantity * price
        working.account.fill(working.exposure, fill, working.blocked_price)
        if record.product in COVERED:
            entry = working.account.orders[record.parent_number or record.number]
            self._unbalanced[entry.number] = entry
        if record.pending_quantity:
            self._move(record, OrderStatus.OPEN)
        else:
            self._move(record, OrderStatus.COMPLETE)
            self._forget(working)
        self._events.append(
            PositionChanged(record.account, msgspec.structs.replace(working.exposure.position))
        )

    def _print(self, desk: _Desk, price: int, quantity: int) -> None:
        desk.day.trade(price, quantity, self.now_ns)
        self._events.append(Printed(desk.listing, price, quantity, self.now_ns))
        for legs in desk.trailing.values():
            self._trail(legs, price)
        for heap, sign in ((desk.buy_stops, 1), (desk.sell_stops, -1)):
            while heap and heap[0][0] <= price * sign:
                _, sequence, working = heapq.heappop(heap)
                desk.fired.append((sequence, working))

    def _arm(self, working: _Working) -> None:
        """Let a stop wait for its trigger; one that has been reached already fires next."""
        record = working.record
        self._stops += 1
        working.stop = self._stops
        self._move(record, OrderStatus.TRIGGER_PENDING)
        self._await_trigger(working)

    def _await_trigger(self, working: _Working) -> None:
        record, desk = working.record, working.desk
        heap, sign = (desk.buy_stops, 1) if record.side is Side.BUY else (desk.sell_stops, -1)
        if (desk.day.last_price - record.trigger) * sign >= 0:
            desk.fired.append((working.stop, working))
        else:
            heapq.heappush(heap, (record.trigger * sign, working.stop, working))

    def _follow_up(self, desk: _Desk) -> None:
        """Bring legs in line with what has traded and work off the stops that have fired, and
        those that their own trades fire in turn."""
        while desk.fired or self._unbalanced:
            if self._unbalanced:
                self._balance(self._unbalanced.pop(next(iter(self._unbalanced))), desk)
                continue
            sequence, working = desk.fired.popleft()
            if working.stop != sequence:
                continue
            working.stop = 0
            record = working.record
            if record.parent_number:
                self._leave_to_stop(working)
            if record.order_type is OrderType.SL_M:
                record.price = protected_limit(record.listing, record.side, desk.day.last_price)
                self._block(working, -record.pending_quantity)
                working.blocked_price = record.price
                self._block(working, record.pending_quantity)
            self._move(record, OrderStatus.OPEN)
            self._match(working)

    def _cancel_working(self, working: _Working) -> None:
        record = working.record
        self._move(record, OrderStatus.CANCEL_PENDING)
        self._withdraw(working)
        record.gui_order_id = self._cancelled_gui_id(record)
        self._drop_remainder(working)
        self._mark(working.desk)

    def _drop_remainder(self, working: _Working) -> None:
        """Cancel what is pending of an order that no longer rests anywhere."""
        record = working.record
        pending = record.pending_quantity
        self._block(working, -pending)
        record.cancelled_quantity = pending
        self._move(record, OrderStatus.CANCELLED)
        self._forget(working)

    def _withdraw(self, working: _Working) -> None:
        """Take an order out of the book, or disarm it."""
        if working.resting is not None:
            working.desk.book.side(working.record.side).remove(working.resting)
            working.resting = None
        working.stop = 0

    def _forget(self, working: _Working) -> None:
        del self._working[working.record.number]
        working.desk.working -= 1

    def _block(self, working: _Working, quantity: int) -> None:
        """Block funds and stock for that much of an order, or release with a negative quantity."""
        if not working.blocks:
            return
        side = working.record.side
        working.account.block(working.exposure, side, quantity, working.blocked_price)

    # --- changes ------------------------------------------------------------------------------

    def _changeable(self, account: str, number: str) -> OrderRecord:
        record = self._accounts[account].orders.get(number)
        if record is None or record.status.is_final:
            raise Refusal(
                1021,
                "order is completed",
                http_status=200,
                stat="please provide valid order number",
            )
        return record

    def _modify_working(self, working: _Working, change: Change) -> None:
        record, holder = working.record, working.account
        before = record.status
        self._move(record, OrderStatus.MODIFY_VALIDATION_PENDING)
        was_triggered = record.order_type.has_trigger and not working.stop
        wanted = msgspec.structs.replace(record, **_terms(change))
        if wanted.order_type is OrderType.MARKET:
            self._price_market_order(wanted, working.desk)
        elif was_triggered and wanted.order_type is OrderType.SL_M:
            wanted.price = record.price

        available, blocked_price = holder.available, working.blocked_price
        self._block(working, -record.pending_quantity)
        released = holder.available - available
        reason = self._objection(wanted, working) or self._reserve(wanted, working, released)
        if reason:
            working.blocked_price = blocked_price
            self._block(working, record.pending_quantity)
            self._move(record, before, reason)
            return
        self._move(record, OrderStatus.MODIFY_PENDING)
        keeps_place = working.resting is not None and _only_shrinks(record, wanted)
        self._take_over(record, wanted)
        self._move(record, OrderStatus.MODIFIED)

        if keeps_place and working.resting is not None:
            working.desk.book.side(record.side).shrink(working.resting, record.pending_quantity)
        else:
            self._withdraw(working)
            if record.order_type.has_trigger and not was_triggered:
                self._arm(working)
            else:
                self._match(working)
        if record.status is OrderStatus.MODIFIED:
            self._move(record, OrderStatus.OPEN)
        self._follow_up(working.desk)
        self._mark(working.desk)

    def _take_over(self, record: OrderRecord, wanted: OrderRecord) -> None:
        record.quantity = wanted.quantity
        record.order_type = wanted.order_type
        record.validity = wanted.validity
        record.price = wanted.price
        record.trigger = wanted.trigger
        record.disclosed_quantity = wanted.disclosed_quantity
        record.protection_percent = wanted.protection_percent
        record.request_id += 1
        record.gui_order_id = self._broker_gui_id(record.account)

    # --- legs of cover and bracket orders -------------------------------------------------------

    def _balance(self, entry: OrderRecord, desk: _Desk) -> None:
        """Bring the legs of an entry to what they have to close, and end what has no use left."""
        legs = self._legs.get(entry.number)
        if legs is None:
            self._make_legs(entry, desk)
            return
        orders = self._accounts[entry.account].orders
        exits = [orders[number] for number in (legs.target, legs.stop) if number]
        closed = sum(record.filled_quantity for record in exits)
        working_entry = self._working.get(entry.number)
        if closed and working_entry is not None:
            self._cancel_working(working_entry)
        for record in exits:
            working = self._working.get(record.number)
            if working is not None:
                self._resize(working, entry.filled_quantity - closed)
        stop, target = self._working.get(legs.stop), self._working.get(legs.target)
        if stop is not None and target is None:
            self._let_block(stop)
        if stop is None and target is None:
            for number in (legs.entry, legs.target, legs.stop):
                self._legs.pop(number, None)
            desk.trailing.pop(entry.number, None)

    def _make_legs(self, entry: OrderRecord, desk: _Desk) -> None:
        listing, base = entry.listing, entry.fills[0].price
        side = entry.side.opposite
        target_price, trigger = target_and_trigger(entry, base)
        trigger = inside(listing, trigger)
        stop = self._new_leg(entry, desk, OrderType.SL, protected_limit(listing, side, trigger))
        stop.record.trigger = trigger
        legs = Legs(
            entry=entry.number,
            stop=stop.record.number,
            base=base,
            first_trigger=trigger,
            step=entry.bracket.trail_step(listing.tick) if entry.bracket else 0,
        )
        self._legs[legs.entry] = self._legs[legs.stop] = legs
        if legs.step:
            desk.trailing[entry.number] = legs
        if entry.product is Product.BO:
            stop.blocks = False
            target = self._new_leg(entry, desk, OrderType.LIMIT, inside(listing, target_price))
            legs.target = target.record.number
            self._legs[legs.target] = legs
            self._start_leg(target)
        self._start_leg(stop)

    def _new_leg(
        self, entry: OrderRecord, desk: _Desk, order_type: OrderType, price: int
    ) -> _Working:
        holder = self._accounts[entry.account]
        now = self._stamp()
        record = OrderRecord(
            number=self._next_number(),
            account=entry.account,
            listing=entry.listing,
            side=entry.side.opposite,
            product=entry.product,
            order_type=order_type,
            validity=Validity.DAY,
            quantity=entry.filled_quantity,
            price=price,
            trigger=0,
            disclosed_quantity=0,
            amo=False,
            client_tag="",
            gui_order_id=self._broker_gui_id(entry.account),
            source=entry.source,
            status=OrderStatus.PUT_RECEIVED,
            accepted_ns=now,
            updated_ns=now,
            arrivals=0,
            parent_number=entry.number,
        )
        self._enlist(holder, record)
        working = _Working(record, holder, holder.exposure(entry.listing, entry.product), desk)
        working.blocked_price = price
        return working

    def _start_leg(self, working: _Working) -> None:
        record = working.record
        self._move(record, OrderStatus.PUT_RECEIVED)
        self._move(record, OrderStatus.VALIDATION_PENDING)
        self._block(working, record.pending_quantity)
        self._take_on(working)
        self._put_to_work(working)

    def _resize(self, working: _Working, pending: int) -> None:
        """Let a leg close that much from now on; it loses its place in the queue when it grows."""
        record, book = working.record, working.desk.book.side(working.record.side)
        if pending == record.pending_quantity:
            return
        if not pending:
            self._cancel_working(working)
            return
        self._block(working, pending - record.pending_quantity)
        grows = pending > record.pending_quantity
        record.quantity = record.filled_quantity + pending
        if working.resting is not None and grows:
            book.remove(working.resting)
            self._rest(working)
        elif working.resting is not None:
            book.shrink(working.resting, pending)
        self._move(record, record.status)

    def _trail(self, legs: Legs, price: int) -> None:
        """Let a stop that waits for its trigger follow a favourable price."""
        working = self._working.get(legs.stop)
        if working is None or not working.stop:
            return
        record = working.record
        sign = 1 if record.side is Side.SELL else -1
        trigger = legs.trigger_at(price, sign)
        if (trigger - record.trigger) * sign <= 0:
            return
        record.trigger = inside(record.listing, trigger)
        record.price = protected_limit(record.listing, record.side, record.trigger)
        self._arm(working)

    def _leave_to_stop(self, stop: _Working) -> None:
        """Once the stop works, nothing else of its bracket does."""
        legs = self._legs[stop.record.number]
        for number in (legs.entry, legs.target):
            other = self._working.get(number)
            if other is not None:
                self._cancel_working(other)
        self._let_block(stop)

    def _let_block(self, stop: _Working) -> None:
        if not stop.blocks:
            stop.blocks = True
            self._block(stop, stop.record.pending_quantity)

    def _square_off(self, stop: _Working) -> None:
        """Turn a stop into what a market order would be at this moment."""
        record, desk = stop.record, stop.desk
        self._leave_to_stop(stop)
        self._withdraw(stop)
        self._block(stop, -record.pending_quantity)
        record.order_type = OrderType.LIMIT
        record.trigger = 0
        record.protection_percent = protection_percent(record.listing, desk.day.last_price)
        record.price = stop.blocked_price = protected_limit(
            record.listing, record.side, desk.day.last_price
        )
        self._block(stop, record.pending_quantity)
        self._move(record, OrderStatus.MODIFIED)
        self._move(record, OrderStatus.OPEN)
        self._match(stop)
        self._follow_up(desk)
        self._mark(desk)

    # --- the course of the day ------------------------------------------------------------------

    def _turn_over(self, moment: Moment) -> None:
        """Do what a moment of the timetable brings."""
        match moment.turn:
            case Turn.NEW_DAY:
                self._expire(self.segments)
                self._begin_day()
            case Turn.PRE_OPEN:
                self._phases.update(dict.fromkeys(moment.segments, Phase.PRE_OPEN))
            case Turn.OPEN:
                self._open(moment.segments)
            case Turn.SQUARE_OFF:
                self._square_off_intraday(moment.segments)
            case Turn.CLOSE:
                self._close(moment.segments)

    def _open(self, segments: Collection[Segment]) -> None:
        """Let trading begin, with what has been waiting for it."""
        self._phases.update(dict.fromkeys(segments, Phase.OPEN))
        for desk in self._awake.values():
            if desk.listing.segment in segments:
                self._pull_quotes(desk)
                self._quote(desk)
                self._mark(desk)
        queue = self._amo_queue
        self._amo_queue = {
            number: record
            for number, record in queue.items()
            if record.listing.segment not in segments
        }
        for record in queue.values():
            if record.listing.segment in segments:
                self._enter(record)

    def _square_off_intraday(self, segments: Collection[Segment]) -> None:
        """Cancel intraday orders and close intraday positions, at market."""
        for legs in {id(legs): legs for legs in self._legs.values()}.values():
            entry = self._record(legs.entry)
            # The exit of one may have ended another, by trading with it.
            if entry.listing.segment in segments and entry.number in self._legs:
                self._exit(entry.account, entry.number)
        for working in list(self._working.values()):
            record = working.record
            if (
                record.listing.segment in segments
                and record.product in _INTRADAY
                and not record.parent_number
                and record.number in self._working
            ):
                self._cancel_working(working)
        for account, exposure, net in self._open_positions(segments):
            position = exposure.position
            if position.product is Product.MIS:
                order = self._closing_order(position, net, OrderType.MARKET, 0, _SQUARED_OFF)
                self._enter(self._accept(account, position.listing, order))

    def _close(self, segments: Collection[Segment]) -> None:
        """End trading: orders expire, and what must not outlive the day is settled at the last
        price, contracts on their last day at what they are worth."""
        self._expire(segments)
        for account, exposure, net in self._open_positions(segments):
            listing, product = exposure.position.listing, exposure.position.product
            desk = self._desk(listing)
            if listing.expiry is not None and listing.expiry <= self._date():
                self._settle_position(account, exposure, net, max(0, round(self._value(desk))))
            elif product in _INTRADAY:
                self._settle_position(account, exposure, net, desk.day.last_price)
        for desk in self._desks.values():
            if desk.listing.segment in segments:
                desk.trailing.clear()
                self._pull_quotes(desk)
                self._mark(desk)
        self._phases.update(dict.fromkeys(segments, Phase.CLOSED))

    def _expire(self, segments: Collection[Segment]) -> None:
        for working in list(self._working.values()):
            if working.record.listing.segment in segments:
                self._withdraw(working)
                self._drop_remainder(working)
        self._legs = {
            number: legs
            for number, legs in self._legs.items()
            if self._record(number).listing.segment not in segments
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
        record = self._accept(account, position.listing, order)
        self._move(record, OrderStatus.PUT_RECEIVED)
        self._move(record, OrderStatus.VALIDATION_PENDING)
        working = _Working(record, account, exposure, self._desk(position.listing))
        working.blocked_price = price
        self._block(working, record.quantity)
        self._take_on(working)
        self._move(record, OrderStatus.OPEN)
        trade_number = str(self._trade_numbers)
        self._trade_numbers += 1
        self._fill(working, trade_number, record.quantity, price)
        self._unbalanced.pop(record.number, None)

    def _begin_day(self) -> None:
        """Settle the accounts at the closing prices, and start from those."""
        self.days_begun += 1
        for name, underlying in self._underlyings.items():
            self._closes[name] = round(underlying.spot(self._closing_price))
        relisting = {
            key: relisted(listing, self._closing_price(listing))
            for key, listing in self._by_token.items()
        }
        for key, listing in relisting.items():
            self._by_token[key] = listing
            self._by_symbol[listing.segment, listing.symbol] = listing
        self._underlyings = underlyings(relisting.values(), self._closes)
        self._spots.clear()
        for key, desk in self._desks.items():
            desk.listing = relisting[key]
            desk.underlying = self._underlyings.get(desk.listing.underlying)
            desk.day = following(desk.day)
            if desk.maker is not None:
                desk.maker.relist(desk.listing)
            self._mark(desk)
        for account in self._accounts.values():
            account.end_day(lambda listing: relisting[listing.segment, listing.token])
        for number, record in self._amo_queue.items():
            record.listing = relisting[record.listing.segment, record.listing.token]
            self._accounts[record.account].orders[number] = record

    def _closing_price(self, listing: Listing) -> int:
        desk = self._desks.get((listing.segment, listing.token))
        return desk.day.last_price if desk is not None else listing.base_price

    def _record(self, number: str) -> OrderRecord:
        return next(
            account.orders[number]
            for account in self._accounts.values()
            if number in account.orders
        )

    # --- makers -------------------------------------------------------------------------------

    def _look(self, listing: Listing) -> _Desk:
        """The desk of a listing, for somebody who only asks."""
        key = (listing.segment, listing.token)
        desk = self._desks.get(key)
        if desk is None or self._is_due(desk, key):
            self._log(commands.Look(listing.segment, listing.token))
            return self._desk(listing)
        return desk

    def _is_due(self, desk: _Desk, key: tuple[Segment, str]) -> bool:
        """Whether a touch would change anything."""
        return desk.maker is not None and (
            self._turn - desk.touched >= _TOUCH or key not in self._awake
        )

    def _desk(self, listing: Listing) -> _Desk:
        """The desk of a listing, opened at the first touch and woken at any other."""
        key = (listing.segment, listing.token)
        desk = self._desks.get(key)
        if desk is None:
            is_made = self._makers and key not in self._unmade
            maker = MarketMaker(listing, self._seed) if is_made else None
            underlying = self._underlyings.get(listing.underlying)
            day = new_day(listing, self._seed)
            desk = _Desk(listing, day, maker, self._turn, underlying)
            self._desks[key] = desk
            if maker is not None and underlying is not None:
                maker.move_to(self._value(desk))
            self._quote(desk)
            self._mark(desk)
        if desk.maker is None or not self._is_due(desk, key):
            return desk
        desk.touched = self._turn
        if desk.maker is not None and key not in self._awake:
            self._awake[key] = desk
            for turn in range(max(desk.turn + 1, self._turn - CATCH_UP + 1), self._turn + 1):
                self._play(desk, turn)
        return desk

    def _play(self, desk: _Desk, turn: int) -> None:
        """One turn of a market maker: somebody may trade, the reference walks, new quotes."""
        desk.turn = turn
        maker = desk.maker
        if maker is None or self._phases[desk.listing.segment] is not Phase.OPEN:
            return
        taker = maker.trade()
        if taker is not None:
            side, quantity = taker
            best = desk.book.side(side.opposite).best()
            if best is not None:
                executions = desk.book.execute(side, best.price, quantity)
                self._settle(desk, None, executions)
        if desk.underlying is None:
            maker.walk()
        else:
            maker.move_to(self._value(desk) + desk.basis)
        self._pull_quotes(desk)
        self._quote(desk)
        self._follow_up(desk)
        self._mark(desk)

    def _quote(self, desk: _Desk) -> None:
        """Let the maker's quotes stand, where there is one and while the market is open."""
        if desk.maker is not None and self._phases[desk.listing.segment] is Phase.OPEN:
            self._place_quotes(desk, desk.maker.quotes())

    def _value(self, desk: _Desk) -> float:
        """What a derivative is worth by the present price of its underlying, whose makers are kept
        awake by the question."""
        listing, underlying = desk.listing, desk.underlying
        if underlying is None:
            return desk.day.last_price
        turn, spot = self._spots.get(listing.underlying, (-1, 0.0))
        if turn != self._turn:
            spot = underlying.spot(lambda member: self._desk(member).day.last_price)
            self._spots[listing.underlying] = self._turn, spot
        return fair_value(listing, spot, self.now_ns)

    def _pull_quotes(self, desk: _Desk) -> None:
        for quote in desk.quotes:
            if quote.quantity:
                desk.book.side(quote.side).remove(quote)
        desk.quotes.clear()

    def _place_quotes(self, desk: _Desk, quotes: Iterable[tuple[Side, int, int]]) -> None:
        """Quotes trade with the client orders they meet before they rest."""
        book = desk.book
        for side, price, quantity in quotes:
            # Asked first, because hardly ever does a quote meet anyone.
            if book.would_trade(side, price):
                executions = book.execute(side, price, quantity)
                self._settle(desk, None, executions)
                quantity -= sum(traded for _, traded in executions)
            if quantity:
                quote = Resting(side, price, quantity)
                book.side(side).add(quote)
                desk.quotes.append(quote)

    # --- marks --------------------------------------------------------------------------------

    def _mark(self, desk: _Desk) -> None:
        """Note that the desk's picture is another one now."""
        desk.changed_ns = self.now_ns
        if desk.watchers:
            self._changed[desk] = None

    def _move(self, record: OrderRecord, status: OrderStatus, reject_reason: str = "") -> None:
        """Bring an order into a state: one row of its history, one event."""
        now = self._last_stamp + 1
        if now < self.now_ns:
            now = self.now_ns
        self._last_stamp = now
        record.status = status
        record.reject_reason = reject_reason
        record.updated_ns = now
        if not record.exchange_ns and status in _CONFIRMED:
            record.exchange_ns = now
        filled = record.filled_quantity
        transition = Transition(
            status,
            now,
            record.quantity,
            filled,
            record.price,
            record.trigger,
            record.filled_value / filled if filled else 0.0,
            record.order_type,
            record.validity,
            reject_reason,
            record.gui_order_id,
            record.request_id,
            record.exchange_number,
        )
        record.history.append(transition)
        self._events.append(OrderChanged(record, transition))

    def _stamp(self) -> int:
        self._last_stamp = max(self.now_ns, self._last_stamp + 1)
        return self._last_stamp

    def _day(self) -> int:
        return indian_day(self.now_ns)

    def _date(self) -> date:
        return date(1970, 1, 1) + timedelta(days=self._day())

    def _date_code(self) -> str:
        day = self._day()
        if day != self._coded_day:
            self._coded_day = day
            self._coded_date = f"{self._date():%y%m%d}"
        return self._coded_date

    def _broker_gui_id(self, account: str) -> str:
        self._gui_numbers += 1
        return f"{self.now_ns // SECOND_NS}-{self._gui_numbers:06d}-{account}-ADMINAPI"

    def _cancelled_gui_id(self, record: OrderRecord) -> str:
        if not record.client_tag:
            return record.gui_order_id
        return f"{record.client_tag}-{self.now_ns // SECOND_NS}"


_CONFIRMED: Final = frozenset({OrderStatus.OPEN, OrderStatus.TRIGGER_PENDING})


def _desk_state(desk: _Desk) -> DeskState:
    book = desk.book
    return DeskState(
        desk.listing.segment,
        desk.listing.token,
        desk.day,
        desk.turn,
        desk.touched,
        desk.changed_ns,
        desk.watchers,
        [
            RestingState(
                entry.side,
                entry.price,
                entry.quantity,
                entry.visible,
                entry.disclosed,
                entry.record.number if entry.record else "",
            )
            for entry in (*book.bids.entries(), *book.asks.entries())
        ],
        desk.maker.snapshot() if desk.maker else None,
        desk.basis,
    )


def _entity(record: OrderRecord) -> str:
    """How the broker's rejections end, trailing blank included."""
    return f"for entity account-{record.account} across exchange across segment across product "


def _check_terms(listing: Listing, terms: NewOrder | Change, *, is_cover: bool) -> None:
    """Refuse what is malformed, whatever the state of the market and of the account."""
    if terms.quantity <= 0:
        raise Refusal(1009, "please provide valid quantity")
    if terms.quantity % listing.lot_size:
        raise Refusal(1009, "please provide valid lotwise quantity")
    if not 0 <= terms.disclosed_quantity <= terms.quantity:
        raise Refusal(1009, "please provide valid disclosed quantity")
    if (
        terms.price < 0
        or terms.trigger < 0
        or (terms.order_type.has_limit and not terms.price)
        or ((terms.order_type.has_trigger or is_cover) and not terms.trigger)
        # A cover order's trigger belongs to its second leg, so the entry cannot be a stop.
        or (is_cover and (terms.order_type.has_trigger or terms.validity is not Validity.DAY))
        or (listing.segment is Segment.MCX_FO and terms.validity is not Validity.DAY)
    ):
        raise Refusal(5202, "Error: Invalid Request")


def _check_bracket(order: NewOrder) -> None:
    """Refuse a bracket order whose exits are not told, and exits of any other order."""
    bracket = order.bracket
    if order.product is not Product.BO:
        valid = bracket is None
    else:
        valid = (
            bracket is not None
            and bracket.target > 0
            and bracket.stop > 0
            and bracket.trail >= 0
            and order.validity is Validity.DAY
            and order.order_type is not OrderType.SL_M
        )
    if not valid:
        raise Refusal(5202, "Error: Invalid Request")


def _terms(change: Change) -> dict[str, Any]:
    """The fields of an order that a change replaces."""
    return {
        "quantity": change.quantity,
        "order_type": change.order_type,
        "validity": change.validity,
        "price": change.price if change.order_type.has_limit else 0,
        "trigger": change.trigger,
        "disclosed_quantity": change.disclosed_quantity,
        "protection_percent": 0.0,
    }


def _only_shrinks(record: OrderRecord, wanted: OrderRecord) -> bool:
    """Whether a change leaves the order its place in the queue."""
    return (
        wanted.quantity <= record.quantity
        and wanted.price == record.price
        and wanted.order_type is record.order_type
        and wanted.validity is record.validity
        and wanted.disclosed_quantity == record.disclosed_quantity
    )


def _trigger_on_wrong_side(record: OrderRecord) -> bool:
    """A stop's trigger comes before its limit; a cover order's lies behind its entry."""
    beyond = record.trigger - record.price
    if record.side is Side.SELL:
        beyond = -beyond
    is_cover = record.product is Product.CO and not record.parent_number
    return beyond >= 0 if is_cover else beyond > 0
