"""The matching engine as a state machine: commands and a clock in, orders, fills and events out.

It reads no clock, draws from no shared generator and never waits. The same listings, seed, commands
and clock values give the same order numbers, trades and times (see commands.py, and snapshot.py for
the shortcut).

Every change passes `execute`, which journals the command and hands it to the part concerned (see
parts.py); the methods that are named after commands only check their arguments and build one.

Time stands still between calls of `advance`; to keep an order's history in sequence, each
transition is stamped at least one nanosecond after the one before.

Orders of one account may trade with each other: nothing prevents self-trades.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import date
from typing import Any, TypeAlias, overload

from neo_async.calendar import Calendar
from neo_async.errors import UsageError
from neo_async.exchange.engine import commands
from neo_async.exchange.engine.accounts import Account
from neo_async.exchange.engine.commands import Cancel, Command, JournalEntry, Modify, Place
from neo_async.exchange.engine.indices import LiveIndex
from neo_async.exchange.engine.instrument_state import InstrumentState
from neo_async.exchange.engine.listed_instruments import Key
from neo_async.exchange.engine.market_maker import TURN_NS
from neo_async.exchange.engine.market_makers import CATCH_UP
from neo_async.exchange.engine.parts import EngineParts
from neo_async.exchange.engine.protection import protected_limit
from neo_async.exchange.engine.session_stats import MarketSnapshot, SessionStats
from neo_async.exchange.engine.snapshot import EngineState
from neo_async.exchange.engine.trading_hours import CALENDAR, Phase
from neo_async.exchange.engine.types import (
    Change,
    Event,
    Fill,
    Funds,
    Holding,
    Listing,
    NewOrder,
    OrderRecord,
    Position,
    Refusal,
    Rules,
)
from neo_async.model.enums import OrderType, Segment, Side

_OnInstrument: TypeAlias = (
    commands.Use | commands.Watch | commands.Unwatch | commands.PrintPrice | commands.SetQuotes
)


class MatchingEngine:
    def __init__(
        self,
        listings: Iterable[Listing],
        *,
        seed: int,
        now_ns: int,
        market_makers: bool = True,
        without_market_maker: Collection[Key] = (),
        rules: Rules = Rules(),  # noqa: B008 - frozen
        calendar: Calendar = CALENDAR,
    ) -> None:
        """`without_market_maker` are listings, by segment and token, whose prices and quotes come
        from outside."""
        self.journal: list[JournalEntry] | None = None
        """Commands executed and not stored yet; None keeps no journal."""
        self._parts = EngineParts(
            listings,
            seed=seed,
            now_ns=now_ns,
            market_makers=market_makers,
            without_market_maker=without_market_maker,
            rules=rules,
            calendar=calendar,
        )
        self._handlers = self._make_handlers()

    # --- the one entry point ------------------------------------------------------------------

    @overload
    def execute(self, command: Place | Modify | Cancel | commands.Exit) -> OrderRecord: ...

    @overload
    def execute(self, command: Command) -> OrderRecord | None: ...

    def execute(self, command: Command) -> OrderRecord | None:
        """Journal a command and apply it; return the order of one that concerns an order.

        Raises Refusal for a request that the exchange does not take. Other arguments are not
        checked here but by the method that is named after the command.
        """
        if self.journal is not None:
            self.journal.append(JournalEntry(self._parts.clock.now_ns, command))
        return self._handlers[type(command)](command)  # type: ignore[no-any-return]

    def _make_handlers(self) -> dict[type[Command], Callable[[Any], Any]]:
        """Return what applies each command."""
        orders, schedule = self._parts.orders, self._parts.schedule
        return {
            Place: orders.place,
            Modify: orders.modify,
            Cancel: lambda command: orders.cancel(command.account, command.number),
            commands.Exit: lambda command: orders.exit(command.account, command.number),
            commands.ReleaseAmo: lambda _: orders.release(self._parts.listed.segments),
            commands.EndDay: lambda _: schedule.end_day(),
            commands.SettleExpired: lambda _: schedule.settle_expired(),
            commands.OpenAccount: self._open_account,
            commands.AddListings: self._add_listings,
            commands.PrintPrice: self._print_price,
            commands.SetQuotes: self._set_quotes,
            commands.Use: self._instrument,
            commands.Watch: self._watch,
            commands.Unwatch: self._unwatch,
            commands.SetRules: lambda command: self._parts.set_rules(command.rules),
            commands.SkipTurns: self._skip_turns,
        }

    # --- clock --------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The engine's present time in Unix nanoseconds."""
        return self._parts.clock.now_ns

    @property
    def today(self) -> date:
        """The present date in India."""
        return self._parts.clock.date

    def advance(self, now_ns: int, *, catch_up: bool = True) -> None:
        """Move the clock; a value before the present one is ignored.

        Market makers play a turn at every boundary of TURN_NS on the way, so that many small steps
        and one large one are the same, up to CATCH_UP turns; without `catch_up` they play all.
        """
        if now_ns <= self._parts.clock.now_ns:
            return
        while (next_ns := self._parts.schedule.next_ns) is not None and next_ns <= now_ns:
            self._run_to(next_ns, catch_up)
            self._parts.schedule.run_next_event()
        self._run_to(now_ns, catch_up)

    def _run_to(self, now_ns: int, catch_up: bool) -> None:
        clock, makers = self._parts.clock, self._parts.market_makers
        last = now_ns // TURN_NS
        is_open = Phase.OPEN in self._parts.phases.values()
        if makers.enabled and is_open and last > makers.turn:
            if catch_up and last - makers.turn > CATCH_UP:
                self.execute(commands.SkipTurns(last - CATCH_UP))
            for turn in range(makers.turn + 1, last + 1):
                clock.move_to(turn * TURN_NS)
                makers.play_turn(turn)
        makers.turn = last
        clock.move_to(now_ns)

    def _skip_turns(self, command: commands.SkipTurns) -> None:
        self._parts.market_makers.turn = max(self._parts.market_makers.turn, command.turn)

    @property
    def rules(self) -> Rules:
        """The rules for new orders."""
        return self._parts.rules

    def set_rules(self, rules: Rules) -> None:
        """Change the rules for orders that come from now on; the hours stay as they are."""
        self.execute(commands.SetRules(rules))

    @property
    def days_begun(self) -> int:
        """Trading days that have begun since the engine was built."""
        return self._parts.schedule.days_begun

    def end_day(self) -> None:
        """End the day in all segments at once: square off, close, settle, begin the next.

        With trading hours, the schedule does so by itself.
        """
        self.execute(commands.EndDay())

    def phase(self, segment: Segment) -> Phase:
        """Return whether a segment is open, in pre-open or closed."""
        return self._parts.phases[segment]

    # --- accounts and listings ----------------------------------------------------------------

    def open_account(self, account: str, *, cash: int, holdings: Iterable[Holding] = ()) -> None:
        """Open an account. Raises ValueError if there is one of that name."""
        if account in self._parts.accounts:
            raise ValueError(f"account {account!r} is open already")
        self.execute(commands.OpenAccount(account, cash, list(holdings)))

    def _open_account(self, command: commands.OpenAccount) -> None:
        account = Account(command.account, command.cash, command.holdings)
        self._parts.accounts[command.account] = account

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Segments in which something is listed."""
        return self._parts.listed.segments

    @property
    def listings(self) -> list[Listing]:
        """Listings, the expired ones included."""
        return list(self._parts.listed.by_token.values())

    @property
    def tokens(self) -> Collection[Key]:
        """Segments and tokens of all listings."""
        return self._parts.listed.by_token.keys()

    def tradable(self) -> list[Listing]:
        """Return the listings without expired contracts."""
        has_expired = self._parts.listed.has_expired
        return [
            listing for listing in self._parts.listed.by_token.values() if not has_expired(listing)
        ]

    def listing(self, segment: Segment, symbol: str) -> Listing | None:
        """Return the listing of a trading symbol."""
        return self._parts.listed.by_symbol.get((segment, symbol))

    def listing_by_token(self, segment: Segment, token: str) -> Listing | None:
        """Return the listing of a token."""
        return self._parts.listed.by_token.get((segment, token))

    def add_listings(self, listings: Iterable[Listing]) -> None:
        """List instruments; those that are listed already are left as they are."""
        known = self._parts.listed.by_token
        new = [listing for listing in listings if (listing.segment, listing.token) not in known]
        if new:
            self.execute(commands.AddListings(new))

    def _add_listings(self, command: commands.AddListings) -> None:
        self._parts.listed.add(command.listings)
        self._parts.market_makers.link_listings()

    def settle_expired(self) -> None:
        """Settle the positions in expired contracts at their final value, and cancel the orders.

        With trading hours, the close of the last trading day has done so.
        """
        self.execute(commands.SettleExpired())

    def contracts(self, segment: Segment, name: str) -> list[Listing]:
        """Return the derivatives of an underlying that have not expired."""
        tokens = self._parts.listed.derivatives.get((segment, name), ())
        listings = (self._parts.listed.by_token[segment, token] for token in tokens)
        return [listing for listing in listings if not self._parts.listed.has_expired(listing)]

    def first_price(self, listing: Listing) -> int:
        """Return the base price with which an instrument was listed first."""
        return self._parts.listed.first_prices[listing.segment, listing.token]

    def spots(self) -> dict[str, int]:
        """Return the previous closes of all underlyings, by `nse_cm|26000`."""
        return {name: each.close for name, each in self._parts.listed.underlyings.items()}

    # --- market data --------------------------------------------------------------------------

    def last_price(self, listing: Listing) -> int:
        """Return the price of the last trade, the previous close before the first."""
        return self._used(listing).stats.last_price

    def depth(
        self, listing: Listing, levels: int = 5
    ) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Return bids and asks as (price, visible quantity, orders), best first."""
        book = self._used(listing).book
        return book.bids.top(levels), book.asks.top(levels)

    def session_stats(self, listing: Listing) -> SessionStats:
        """Return the session's figures; the engine's own object, not to be written to."""
        return self._used(listing).stats

    def market_snapshot(self, listing: Listing, levels: int = 5) -> MarketSnapshot:
        """Return figures and depth of a listing."""
        instrument = self._used(listing)
        bids, asks = instrument.book.bids, instrument.book.asks
        return MarketSnapshot(
            listing,
            instrument.stats,
            instrument.changed_ns,
            bids.top(levels),
            asks.top(levels),
            bids.visible_quantity(),
            asks.visible_quantity(),
        )

    @property
    def live_indices(self) -> Collection[LiveIndex]:
        """The indices that have a listed member."""
        return self._parts.listed.live_indices.by_key.values()

    def _used(self, listing: Listing) -> InstrumentState:
        """Return the state of a listing for reading, with its market maker active."""
        key = (listing.segment, listing.token)
        instrument = self._parts.market_makers.instruments.get(key)
        if instrument is None or self._parts.market_makers.is_due(instrument, key):
            # Activating a market maker changes what happens next, so it has to be a command.
            self.execute(commands.Use(*key))
            return self._parts.market_makers.instruments[key]
        return instrument

    def _instrument(self, command: _OnInstrument) -> InstrumentState:
        listing = self._parts.listed.by_token.get((command.segment, command.token))
        if listing is None:
            raise Refusal(1009, f"no listing {command.segment.value}|{command.token} to look at")
        return self._parts.market_makers.instrument(listing)

    # --- watching -----------------------------------------------------------------------------

    def watch(self, listing: Listing) -> None:
        """Keep a listing active and report its changes, until as many calls of `unwatch`."""
        self.execute(commands.Watch(listing.segment, listing.token))

    def _watch(self, command: commands.Watch) -> None:
        self._instrument(command).watchers += 1

    def unwatch(self, listing: Listing) -> None:
        """End one `watch`."""
        self.execute(commands.Unwatch(listing.segment, listing.token))

    def _unwatch(self, command: commands.Unwatch) -> None:
        instrument = self._instrument(command)
        instrument.watchers -= 1
        if not instrument.watchers:
            self._parts.matching.changed.pop(instrument, None)

    def take_changes(self) -> list[Listing]:
        """Return the watched listings whose trades or book have changed since the last call."""
        if not self._parts.matching.changed:
            return []
        changed, self._parts.matching.changed = self._parts.matching.changed, {}
        return [instrument.listing for instrument in changed]

    @property
    def has_changes(self) -> bool:
        """Whether `take_changes` would return anything."""
        return bool(self._parts.matching.changed)

    # --- orders -------------------------------------------------------------------------------

    @property
    def ledger(self) -> list[OrderRecord]:
        """Orders ever accepted, in order of acceptance."""
        return self._parts.ledger.orders

    def place(self, account: str, order: NewOrder) -> OrderRecord:
        """Accept an order. Accepted is not validated: it may come back rejected.

        Raises Refusal for a request that gets no order number at all.
        """
        return self.execute(Place(account, order))

    def modify(self, account: str, number: str, change: Change) -> OrderRecord:
        """Modify an order that is not final.

        It keeps its place in the queue when only its quantity changes, and falls. A modification
        that fails validation leaves the order as it was, with the reason in its history.
        """
        return self.execute(Modify(account, number, change))

    def cancel(self, account: str, number: str) -> OrderRecord:
        """Cancel the pending quantity of an order; fills stay.

        A contingent order is not cancelled alone: see `exit`.
        """
        return self.execute(Cancel(account, number))

    def exit(self, account: str, number: str) -> OrderRecord:
        """End a cover or bracket order, named by its entry or by a contingent order.

        The rest of the entry and the target are cancelled, and the stop becomes a limit at the
        protection band, as a market order would: that may rest, and a second call brings it to
        the price of that moment. Any other order is cancelled.
        """
        return self.execute(commands.Exit(account, number))

    def release_amo(self) -> None:
        """Send the queued after-market orders to the market, in order of acceptance."""
        self.execute(commands.ReleaseAmo())

    # --- prices from outside ------------------------------------------------------------------

    def print_price(self, segment: Segment, token: str, price: int, quantity: int = 0) -> None:
        """Print a trade at a price from outside, of a quantity that counts for the day's volume.

        Resting client orders that would have traded at it are filled, at their own limits; the
        reference price of the market maker moves there, and stops that it reaches are triggered.
        Raises UsageError, and changes nothing, when there is no such instrument or price.
        """
        if (segment, token) not in self._parts.listed.by_token:
            raise UsageError(f"instrument {segment}|{token}: must be one that is listed here")
        if price <= 0:
            raise UsageError(f"{segment}|{token} at price={price}: must be above 0 paise")
        self.execute(commands.PrintPrice(segment, token, price, quantity))

    def _print_price(self, command: commands.PrintPrice) -> None:
        instrument = self._instrument(command)
        self._parts.market_makers.print_price(instrument, command.price, command.quantity)

    def set_quotes(
        self, segment: Segment, token: str, quotes: Iterable[tuple[Side, int, int]]
    ) -> None:
        """Place (side, price, quantity) in the book of a listing without a market maker, in place
        of the quotes of the call before."""
        self.execute(commands.SetQuotes(segment, token, list(quotes)))

    def _set_quotes(self, command: commands.SetQuotes) -> None:
        instrument = self._instrument(command)
        self._parts.market_makers.set_quotes(instrument, command.quotes)

    # --- reports ------------------------------------------------------------------------------

    def orders(self, account: str) -> list[OrderRecord]:
        """Return the order book, newest first."""
        return list(reversed(self._parts.accounts[account].orders.values()))

    def order(self, account: str, number: str) -> OrderRecord | None:
        """Return an order of the order book."""
        return self._parts.accounts[account].orders.get(number)

    def fills(self, account: str) -> list[Fill]:
        """Return the trade book, newest first."""
        return self._parts.accounts[account].fills[::-1]

    def queued(self) -> list[OrderRecord]:
        """Return the after-market orders that wait for the open."""
        return list(self._parts.orders.queued.values())

    def positions(self, account: str) -> list[Position]:
        """Return the day's positions."""
        return self._parts.accounts[account].positions()

    def holdings(self, account: str) -> list[Holding]:
        """Return the delivery holdings."""
        return self._parts.accounts[account].holdings()

    def funds(self, account: str) -> Funds:
        """Return the funds as of now."""
        return self._parts.accounts[account].funds()

    def order_margin(self, account: str, order: NewOrder) -> int:
        """Return by how many paise the order would lower the available funds; 0 if it closes.

        Raises Refusal for an order whose margin cannot be calculated. A stop needs no trigger here.
        """
        listing = self._parts.orders.listing_of(order)
        if order.quantity <= 0:
            raise Refusal(1009, "please provide valid quantity")
        if order.price < 0 or (order.order_type.has_limit and not order.price):
            raise Refusal(5202, "Error: Invalid Request")
        holder = self._parts.accounts[account]
        price = order.price
        if order.order_type is OrderType.SL_M:
            start = order.trigger or self.last_price(listing)
            price = protected_limit(listing, order.side, start)
        elif order.order_type is OrderType.MARKET:
            price = self._parts.orders.market_limit(listing, order.side, self.last_price(listing))
        return holder.cost(listing, order.product, order.side, order.quantity, price)

    def take_events(self) -> list[Event]:
        """Return what has happened since the last call, oldest first; kept until then."""
        events, self._parts.ledger.events = self._parts.ledger.events, []
        return events

    # --- snapshot -----------------------------------------------------------------------------

    def snapshot(self, *, orders: bool = True) -> EngineState:
        """Return everything that decides what happens next, and everything that reports show.

        Without `orders` the ledger's orders are left out, for a store that keeps them apart.
        """
        return self._parts.snapshot(orders=orders)

    @classmethod
    def restored(cls, state: EngineState, calendar: Calendar = CALENDAR) -> MatchingEngine:
        """Return the engine of a snapshot, whose objects it takes over; events are not kept."""
        market = cls(
            state.listed.listings,
            seed=state.market_makers.seed,
            now_ns=state.clock.now_ns,
            market_makers=state.market_makers.enabled,
            without_market_maker=state.market_makers.without_market_maker,
            rules=state.rules,
            calendar=calendar,
        )
        market._parts.restore(state)
        return market
