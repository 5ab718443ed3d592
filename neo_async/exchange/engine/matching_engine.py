"""The exchange as a state machine: commands and a clock in, orders, fills and events out.

Nothing here reads a clock, draws from a shared generator or waits. The same listings, seed,
commands and clock values give the same order numbers, trades and times (see journal.py, and
state.py for the shortcut).

A market is what callers see of its rooms: a clock, the ledger of orders, the floor with its desks
and makers, matching with the exits of covered orders, the orders' way in, and the trading day.

Time stands still between calls of `advance`; to keep an order's history in sequence, each
transition is stamped at least one nanosecond after the one before.

Orders of one account may trade with each other: nothing prevents self-trades.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date
from typing import Final

from neo_async.errors import UsageError
from neo_async.exchange.engine import commands
from neo_async.exchange.engine.accounts import Account
from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.indices import Meter
from neo_async.exchange.engine.instrument_state import Desk
from neo_async.exchange.engine.ledger import Ledger
from neo_async.exchange.engine.listed_instruments import CATCH_UP, Floor
from neo_async.exchange.engine.market_maker import QUANTUM_NS
from neo_async.exchange.engine.matching import Matching
from neo_async.exchange.engine.orders import Orders
from neo_async.exchange.engine.protection import protected_limit
from neo_async.exchange.engine.session_schedule import TradingDay
from neo_async.exchange.engine.session_stats import Day, Picture
from neo_async.exchange.engine.snapshot import State, WorkingState
from neo_async.exchange.engine.trading_hours import Phase, phase
from neo_async.exchange.engine.types import (
    Change,
    Event,
    Fill,
    Funds,
    Holding,
    Hours,
    Listing,
    NewOrder,
    OrderRecord,
    Position,
    Refusal,
    Rules,
)
from neo_async.model.enums import OrderType, Segment, Side

_EVERYTHING: Final = 1 << 62


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
        self.journal: list[commands.Entry] | None = None
        """Where commands are noted; whoever keeps them elsewhere takes them out. None: nowhere."""
        self._rules = rules
        self._accounts: dict[str, Account] = {}
        self._phases = dict.fromkeys(Segment, Phase.OPEN)
        if rules.hours is Hours.EXCHANGE:
            self._phases = {segment: phase(segment, now_ns) for segment in Segment}
        self._clock = clock = Clock(now_ns)
        self._ledger = ledger = Ledger(clock)
        self._matching = matching = Matching(clock, ledger, self._accounts)
        self._floor = floor = Floor(
            listings, clock, matching, self._phases, seed=seed, makers=makers, unmade=unmade
        )
        self._orders = Orders(clock, ledger, matching, floor, self._accounts, self._phases, rules)
        self._day = TradingDay(
            clock, ledger, matching, floor, self._orders, self._accounts, self._phases, rules
        )

    # --- clock --------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        return self._clock.now_ns

    @property
    def today(self) -> date:
        """In India."""
        return self._clock.date

    def advance(self, now_ns: int, *, catch_up: bool = True) -> None:
        """Move the clock; a value before the present one is ignored.

        Makers take a turn at every boundary of QUANTUM_NS on the way, so that many small steps
        and one large one are the same, up to CATCH_UP turns; without `catch_up` they take all.
        """
        if now_ns <= self._clock.now_ns:
            return
        while (next_ns := self._day.next_ns) is not None and next_ns <= now_ns:
            self._run_to(next_ns, catch_up)
            self._day.turn_over()
        self._run_to(now_ns, catch_up)

    def _run_to(self, now_ns: int, catch_up: bool) -> None:
        clock, floor = self._clock, self._floor
        last = now_ns // QUANTUM_NS
        is_open = Phase.OPEN in self._phases.values()
        if floor.makers and is_open and last > floor.turn:
            if catch_up and last - floor.turn > CATCH_UP:
                self.skip_turns(last - CATCH_UP)
            for turn in range(floor.turn + 1, last + 1):
                clock.move_to(turn * QUANTUM_NS)
                floor.play_turn(turn)
        floor.turn = last
        clock.move_to(now_ns)

    def skip_turns(self, turn: int) -> None:
        """Let the makers pass over all turns up to this one."""
        self._log(commands.Skip(turn))
        self._floor.turn = max(self._floor.turn, turn)

    @property
    def days_begun(self) -> int:
        """Trading days since the market was made."""
        return self._day.days_begun

    # --- accounts and listings ----------------------------------------------------------------

    def open_account(self, account: str, *, cash: int, holdings: Iterable[Holding] = ()) -> None:
        if account in self._accounts:
            raise ValueError(f"account {account!r} is open already")
        holdings = list(holdings)
        self._log(commands.OpenAccount(account, cash, holdings))
        self._accounts[account] = Account(account, cash, holdings)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """In which something is listed."""
        return self._floor.segments

    @property
    def listings(self) -> list[Listing]:
        return list(self._floor.by_token.values())

    @property
    def tokens(self) -> Collection[tuple[Segment, str]]:
        """Of all listings, with their segments."""
        return self._floor.by_token.keys()

    def tradable(self) -> list[Listing]:
        """Without the contracts whose last day is over."""
        has_expired = self._floor.has_expired
        return [listing for listing in self._floor.by_token.values() if not has_expired(listing)]

    def listing(self, segment: Segment, symbol: str) -> Listing | None:
        return self._floor.by_symbol.get((segment, symbol))

    def listing_by_token(self, segment: Segment, token: str) -> Listing | None:
        return self._floor.by_token.get((segment, token))

    def add_listings(self, listings: Iterable[Listing]) -> None:
        """List what is not listed yet, by segment and token."""
        new = [each for each in listings if (each.segment, each.token) not in self._floor.by_token]
        if new:
            self._log(commands.AddListings(new))
            self._floor.add(new)

    def settle_expired(self) -> None:
        """Settle positions in contracts whose last day is over, at what these are worth, and cancel
        the orders. By the exchanges' hours the close of that day has done so."""
        self._log(commands.SettleExpired())
        self._day.settle_expired()

    def contracts(self, segment: Segment, name: str) -> list[Listing]:
        """The derivatives of an underlying that have not expired."""
        tokens = self._floor.contracts.get((segment, name), ())
        listings = (self._floor.by_token[segment, token] for token in tokens)
        return [listing for listing in listings if not self._floor.has_expired(listing)]

    def first_price(self, listing: Listing) -> int:
        """The base price with which it was listed first."""
        return self._floor.first_prices[listing.segment, listing.token]

    def spots(self) -> dict[str, int]:
        """Previous closes of what derivatives are derived from, by `nse_cm|26000`."""
        return {name: each.close for name, each in self._floor.underlyings.items()}

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

    def _look(self, listing: Listing) -> Desk:
        """The desk of a listing, for somebody who only asks."""
        key = (listing.segment, listing.token)
        desk = self._floor.desks.get(key)
        if desk is None or self._floor.is_due(desk, key):
            self._log(commands.Look(listing.segment, listing.token))
            return self._floor.desk(listing)
        return desk

    # --- watching -----------------------------------------------------------------------------

    def watch(self, listing: Listing) -> None:
        """Keep a listing awake and tell of its changes, until as many calls of `unwatch`."""
        self._log(commands.Watch(listing.segment, listing.token))
        self._floor.desk(listing).watchers += 1

    def unwatch(self, listing: Listing) -> None:
        self._log(commands.Unwatch(listing.segment, listing.token))
        desk = self._floor.desk(listing)
        desk.watchers -= 1
        if not desk.watchers:
            self._matching.changed.pop(desk, None)

    def take_changes(self) -> list[Listing]:
        """Watched listings that a trade or their book has changed since the last call."""
        if not self._matching.changed:
            return []
        changed, self._matching.changed = self._matching.changed, {}
        return [desk.listing for desk in changed]

    @property
    def has_changes(self) -> bool:
        return bool(self._matching.changed)

    # --- orders -------------------------------------------------------------------------------

    @property
    def ledger(self) -> list[OrderRecord]:
        """Every order ever accepted, in order of acceptance."""
        return self._ledger.orders

    def place(self, account: str, order: NewOrder) -> OrderRecord:
        """Accept an order. Accepted is not validated: it may come back rejected.

        Raises Refusal for what gets no order number at all.
        """
        if self.journal is not None:
            self._log(commands.Place(account, order))
        return self._orders.place(account, order)

    def modify(self, account: str, number: str, change: Change) -> OrderRecord:
        """Change an order that is not final.

        It keeps its place in the queue when nothing but the quantity changes, and that falls.
        A change that fails validation leaves the order as it was, with the reason in its history.
        """
        self._log(commands.Modify(account, number, change))
        return self._orders.modify(account, number, change)

    def cancel(self, account: str, number: str) -> OrderRecord:
        """Cancel what is pending; what is filled stays. A leg does not go alone: see `exit`."""
        self._log(commands.Cancel(account, number))
        return self._orders.cancel(account, number)

    def exit(self, account: str, number: str) -> OrderRecord:
        """End a cover or bracket order, named by its entry or by a leg.

        The rest of the entry and the target are cancelled, and the stop becomes a limit at the
        protection band, as a market order would: that may rest, and a second call brings it to
        the price of that moment. Any other order is cancelled.
        """
        self._log(commands.Exit(account, number))
        return self._orders.exit(account, number)

    def release_amo(self) -> None:
        """Send the queued after-market orders to the market, in order of acceptance."""
        self._log(commands.ReleaseAmo())
        self._orders.release(self.segments)

    def end_day(self) -> None:
        """End the day in all segments at once: square off, close, settle, begin the next.

        Happens by itself where the exchange's hours are kept.
        """
        self._log(commands.EndDay())
        self._day.end()

    def phase(self, segment: Segment) -> Phase:
        return self._phases[segment]

    @property
    def meters(self) -> Collection[Meter]:
        """Of the indices that can be reckoned here."""
        return self._floor.meters.by_key.values()

    def print_price(self, segment: Segment, token: str, price: int) -> None:
        """Let a trade print at a price from outside.

        Resting client orders that would have traded at it are filled, at their own limits; the
        reference of the market maker moves there, and stops that it reaches are triggered. Raises
        UsageError, and nothing happens, when there is no such instrument or price.
        """
        listing = self._floor.by_token.get((segment, token))
        if listing is None:
            raise UsageError(f"instrument {segment}|{token}: must be one that is listed here")
        if price <= 0:
            raise UsageError(f"{segment}|{token} at price={price}: must be above 0 paise")
        self._log(commands.PrintPrice(segment, token, price))
        desk = self._floor.desk(listing)
        self._floor.pull_quotes(desk)
        for side in (Side.SELL, Side.BUY):
            executions = desk.book.against(side).execute(price, _EVERYTHING)
            self._matching.apply_fill(desk, None, executions)
        self._matching.print_trade(desk, price, 0)
        if desk.maker is not None:
            desk.maker.move_to(price)
            if desk.underlying is not None:
                desk.basis = price - self._floor.value(desk)
            self._floor.quote(desk)
        self._matching.follow_up(desk)
        self._matching.mark(desk)

    def set_quotes(
        self, segment: Segment, token: str, quotes: Iterable[tuple[Side, int, int]]
    ) -> None:
        """Let (side, price, quantity) stand in the book of a listing without a maker, in place of
        what stood there by the call before."""
        quotes = list(quotes)
        self._log(commands.SetQuotes(segment, token, quotes))
        desk = self._floor.desk(self._floor.by_token[segment, token])
        self._floor.pull_quotes(desk)
        self._floor.place_quotes(desk, quotes)
        self._matching.follow_up(desk)
        self._matching.mark(desk)

    # --- reports ------------------------------------------------------------------------------

    def orders(self, account: str) -> list[OrderRecord]:
        """Newest first."""
        return list(reversed(self._accounts[account].orders.values()))

    def order(self, account: str, number: str) -> OrderRecord | None:
        return self._accounts[account].orders.get(number)

    def fills(self, account: str) -> list[Fill]:
        """Newest first."""
        return self._accounts[account].fills[::-1]

    def queued(self) -> list[OrderRecord]:
        """After-market orders that wait for the open."""
        return list(self._orders.queued.values())

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
        listing = self._orders.known(order)
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
            price = self._orders.market_limit(
                listing, order.side, self._look(listing).day.last_price
            )
        return holder.cost(listing, order.product, order.side, order.quantity, price)

    def take_events(self) -> list[Event]:
        """What happened since the last call, oldest first. Kept until somebody takes them."""
        events, self._ledger.events = self._ledger.events, []
        return events

    # --- memory -------------------------------------------------------------------------------

    def snapshot(self, *, ledger: bool = True) -> State:
        """Everything that decides what happens next, and everything that reports show; without the
        `ledger` for whoever keeps the orders elsewhere."""
        return State(
            now_ns=self._clock.now_ns,
            seed=self._floor.seed,
            makers=self._floor.makers,
            unmade=sorted(self._floor.unmade),
            rules=self._rules,
            listings=list(self._floor.by_token.values()),
            first_prices=list(self._floor.first_prices.values()),
            turn=self._floor.turn,
            last_stamp=self._clock.last_stamp,
            orders_accepted=self._ledger.orders_accepted,
            exchange_numbers=self._ledger.exchange_numbers,
            trade_numbers=self._ledger.trade_numbers,
            gui_numbers=self._ledger.gui_numbers,
            stops=self._matching.stops,
            accounts=[account.snapshot(self._day.day_began) for account in self._accounts.values()],
            ledger=list(self._ledger.orders) if ledger else [],
            working=[
                WorkingState(number, working.blocked_price, working.blocks, working.stop)
                for number, working in self._matching.working.items()
            ],
            queued=list(self._orders.queued),
            legs=[
                legs for number, legs in self._matching.exits.legs.items() if number == legs.entry
            ],
            desks=[desk.snapshot() for desk in self._floor.desks.values()],
            awake=list(self._floor.awake),
            spots=dict(self._floor.spots),
            closes=dict(self._floor.closes),
            indices={key: meter.day for key, meter in self._floor.meters.by_key.items()},
            days_begun=self._day.days_begun,
            day_began=self._day.day_began,
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
        market._clock.last_stamp = state.last_stamp
        if state.rules.hours is Hours.EXCHANGE:
            market._phases.update(state.phases)
        market._day.days_begun = state.days_begun
        market._day.day_began = state.day_began
        market._ledger.restore(state)
        records = {record.number: record for record in state.ledger}
        market._orders.restore(records, state.queued)
        for kept in state.accounts:
            orders = [records[number] for number in kept.older_orders]
            today = state.ledger[state.day_began :]
            orders += (record for record in today if record.account == kept.name)
            market._accounts[kept.name] = Account.restored(kept, orders)
        market._floor.restore(state)
        market._matching.stops = state.stops
        for each in state.working:
            record = records[each.number]
            desk = market._floor.desks[record.listing.segment, record.listing.token]
            market._matching.restore(each, record, desk)
        market._floor.restore_books(state.desks)
        for legs in state.legs:
            listing = records[legs.entry].listing
            market._matching.exits.restore(
                legs, market._floor.desks[listing.segment, listing.token]
            )
        return market

    def _log(self, command: commands.Command) -> None:
        if self.journal is not None:
            self.journal.append(commands.Entry(self._clock.now_ns, command))
