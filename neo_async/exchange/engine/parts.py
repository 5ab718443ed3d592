"""The parts of a matching engine: how they are connected, and their common snapshot."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from neo_async.calendar import Calendar
from neo_async.exchange.engine.accounts import Account
from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.contingent_orders import ContingentOrders
from neo_async.exchange.engine.ledger import Ledger
from neo_async.exchange.engine.listed_instruments import Key, ListedInstruments
from neo_async.exchange.engine.market_makers import MarketMakers
from neo_async.exchange.engine.matching import Matching
from neo_async.exchange.engine.orders import Orders
from neo_async.exchange.engine.session_schedule import SessionSchedule
from neo_async.exchange.engine.snapshot import EngineState
from neo_async.exchange.engine.trading_hours import Phase, phase
from neo_async.exchange.engine.types import Hours, Listing, Rules
from neo_async.model.enums import Segment


class EngineParts:
    """The parts of the engine, from the bottom up: each uses those above it in the constructor,
    never those below."""

    def __init__(
        self,
        listings: Iterable[Listing],
        *,
        seed: int,
        now_ns: int,
        market_makers: bool,
        without_market_maker: Collection[Key],
        rules: Rules,
        calendar: Calendar,
    ) -> None:
        self.rules = rules
        self.accounts: dict[str, Account] = {}
        self.phases = dict.fromkeys(Segment, Phase.OPEN)
        if rules.hours is Hours.EXCHANGE:
            self.phases = {segment: phase(calendar, segment, now_ns) for segment in Segment}
        self.clock = clock = Clock(now_ns)
        self.ledger = ledger = Ledger(clock)
        self.matching = matching = Matching(clock, ledger, self.accounts)
        self.contingent_orders = contingent = ContingentOrders(ledger, self.accounts, matching)
        self.listed = listed = ListedInstruments(listings, clock)
        self.market_makers = makers = MarketMakers(
            listed,
            clock,
            matching,
            contingent,
            self.phases,
            seed=seed,
            enabled=market_makers,
            without_market_maker=without_market_maker,
        )
        self.orders = orders = Orders(
            clock,
            ledger,
            matching,
            contingent,
            listed,
            makers,
            self.accounts,
            self.phases,
            rules,
        )
        self.schedule = SessionSchedule(
            clock,
            ledger,
            matching,
            contingent,
            listed,
            makers,
            orders,
            self.accounts,
            self.phases,
            rules,
            calendar,
        )

    def set_rules(self, rules: Rules) -> None:
        """Use other rules for orders that come from now on; the hours stay."""
        self.rules = msgspec.structs.replace(rules, hours=self.rules.hours)
        self.orders.set_rules(self.rules)

    def snapshot(self, *, orders: bool) -> EngineState:
        """Return the snapshots of all parts; without `orders`, the ledger's orders are left out."""
        orders_before_today = self.schedule.orders_before_today
        return EngineState(
            rules=self.rules,
            clock=self.clock.snapshot(),
            ledger=self.ledger.snapshot(),
            orders=list(self.ledger.orders) if orders else [],
            queued=list(self.orders.queued),
            accounts=[each.snapshot(orders_before_today) for each in self.accounts.values()],
            listed=self.listed.snapshot(),
            market_makers=self.market_makers.snapshot(),
            matching=self.matching.snapshot(),
            contingent_orders=self.contingent_orders.snapshot(),
            schedule=self.schedule.snapshot(),
        )

    def restore(self, state: EngineState) -> None:
        """Restore all parts, in an order in which each finds what it refers to."""
        records = {record.number: record for record in state.orders}
        instruments = self.market_makers.instruments
        self.clock.restore(state.clock)
        self.schedule.restore(state.schedule)
        self.ledger.restore(state.ledger, state.orders)
        self.orders.restore(records, state.queued)
        today = state.orders[state.schedule.orders_before_today :]
        for each in state.accounts:
            orders = [records[number] for number in each.older_orders]
            orders += (record for record in today if record.account == each.name)
            self.accounts[each.name] = Account.restored(each, orders)
        self.listed.restore(state.listed)
        self.market_makers.restore(state.market_makers)
        # Working orders need the instruments, and the books the working orders.
        self.matching.restore(state.matching, records, instruments)
        self.market_makers.restore_books(state.market_makers)
        self.contingent_orders.restore(state.contingent_orders, records, instruments)
