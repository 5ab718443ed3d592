"""Composition of the exchange: markets, services and feeds, connected to each other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from neo_async.base.india import date_of
from neo_async.config import RateLimits
from neo_async.errors import UsageError
from neo_async.exchange.addresses import BASE_PATH, Addresses
from neo_async.exchange.bank.service import Bank
from neo_async.exchange.clock import MovedClock
from neo_async.exchange.engine.listings import default_listings, new_contracts
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Holding, Refusal
from neo_async.exchange.faults.plan import FaultPlan
from neo_async.exchange.feeds.feeds import Feeds
from neo_async.exchange.funds.listing import default_schemes
from neo_async.exchange.funds.login import KiteApplication, KiteLogins
from neo_async.exchange.funds.service import FundService
from neo_async.exchange.funds.simulator import FundSimulator
from neo_async.exchange.funds.types import FundState
from neo_async.exchange.funds.venue import FundVenue
from neo_async.exchange.persistence.persistence import Persistence, RestoredMarket
from neo_async.exchange.persistence.store import Store
from neo_async.exchange.replay.recorded import Recorded, relisted
from neo_async.exchange.replay.replay import Replay
from neo_async.exchange.rest.accounts import Account
from neo_async.exchange.rest.admin import Admin
from neo_async.exchange.rest.broker import Broker
from neo_async.exchange.rest.logins import Logins
from neo_async.exchange.rest.market_data import MarketData
from neo_async.exchange.rest.requests import read_price
from neo_async.exchange.rest.scrip_files import (
    Catalogue,
    ScripFiles,
    catalogue_of_files,
)
from neo_async.exchange.rest.services import Service
from neo_async.exchange.rest.throttle import Throttle
from neo_async.exchange.settings import Behaviour, Recording
from neo_async.exchange.switches import Switches
from neo_async.exchange.venue import NewListings, Venue
from neo_async.model.enums import Segment

_STOCK = (
    (Segment.NSE_CM, "ITBEES-EQ", 45, 3871.62),
    (Segment.NSE_CM, "TCS-EQ", 100, 201_235.5),
    (Segment.NSE_CM, "RELIANCE-EQ", 50, 128_315.5),
)
"""Holdings of the first account: segment, symbol, quantity, average price in paise."""


class Parts(NamedTuple):
    """The parts of an exchange, which live as long as its socket is open."""

    addresses: Addresses
    venue: Venue
    funds: FundVenue
    logins: Logins
    broker: Broker
    services: tuple[Service, ...]
    """Services beside the broker's, each with a path of its own."""
    switches: Switches
    """Settings, to be changed while it is open."""
    admin: Admin
    feeds: Feeds
    replay: Replay | None


class Builder(msgspec.Struct, frozen=True, kw_only=True):
    """Builds the parts of an exchange from its settings."""

    seed: int
    clock: MovedClock
    limits: RateLimits | None
    cash: int
    """Cash of each account, in paise."""
    accounts: tuple[Account, ...]
    market_makers: bool
    scripmaster: Sequence[Path]
    recording: Recording | None
    behaviour: Behaviour
    faults: FaultPlan
    bank: Bank
    application: KiteApplication

    async def load_catalogue(self, recorded: Recorded) -> Catalogue:
        """Return what is listed today, and the scrip files of it."""
        today = date_of(self.clock())
        if not self.scripmaster:
            listed = default_listings(today, self.behaviour.calendar)
            return Catalogue(tuple(relisted(listed, recorded)))
        catalogue = await asyncio.to_thread(catalogue_of_files, self.scripmaster, today)
        listings = relisted(catalogue.listings, recorded)
        return msgspec.structs.replace(catalogue, listings=listings)

    def build(
        self,
        addresses: Addresses,
        catalogue: Catalogue,
        recorded: Recorded,
        store: Store | None,
        persistence: Persistence | None,
        restored: RestoredMarket | None,
    ) -> Parts:
        """Return the parts of an open exchange."""
        replayed = recorded.listed(catalogue.listings)
        venue = Venue(
            lambda now_ns: self._build_market(catalogue, replayed, now_ns),
            self.clock,
            self._new_listings(catalogue),
            persistence,
            restored,
        )
        logins = Logins(
            self.accounts,
            base_url=addresses.base_url,
            feed_url=addresses.feed_url,
            realtime_url=addresses.realtime_url,
        )
        broker = Broker(
            venue=venue,
            logins=logins,
            throttle=Throttle(self.limits),
            settings=self.behaviour.broker,
            scrip_files=ScripFiles(catalogue, venue),
            market_data=MarketData(venue, self.seed, self.behaviour.calendar),
            root_url=addresses.root_url,
            base_path=BASE_PATH,
            feed_url=addresses.feed_url,
            realtime_url=addresses.realtime_url,
        )
        feeds = Feeds(venue, logins, self.behaviour.feeds, self.seed, self.faults, recorded)
        replay = None
        if self.recording is not None:
            replay = Replay(
                Path(self.recording.path),
                recorded,
                venue,
                feeds.market,
                feeds.notice_soon,
                self.recording.factor,
                self.clock,
            )
        funds = FundVenue(self._build_fund_simulator, self.clock, store)
        kite = FundService(
            funds,
            KiteLogins(self.application),
            Throttle(self.limits),
            root_url=addresses.root_url,
        )
        services: tuple[Service, ...] = (self.bank, kite)

        def apply(behaviour: Behaviour) -> None:
            broker.settings = behaviour.broker
            feeds.use(behaviour.feeds)
            if venue.market.rules != behaviour.rules:
                venue.market.set_rules(behaviour.rules)

        switches = Switches(self.behaviour, apply)
        admin = Admin(venue, self.clock, self.faults, services, switches, addresses.admin_path)
        return Parts(
            addresses, venue, funds, logins, broker, services, switches, admin, feeds, replay
        )

    def open_accounts(self, market: MatchingEngine) -> None:
        """Open the accounts that the market does not have yet."""
        for number, account in enumerate(self.accounts):
            holdings = () if number else _stock(market)
            with contextlib.suppress(ValueError):
                market.open_account(account.ucc, cash=self.cash, holdings=holdings)

    def _build_market(
        self, catalogue: Catalogue, replayed: Collection[tuple[Segment, str]], now_ns: int
    ) -> MatchingEngine:
        market = MatchingEngine(
            catalogue.listings,
            seed=self.seed,
            now_ns=now_ns,
            market_makers=self.market_makers,
            without_market_maker=replayed,
            rules=self.behaviour.rules,
            calendar=self.behaviour.calendar,
        )
        self.open_accounts(market)
        return market

    def _build_fund_simulator(self, now_s: int, state: FundState | None) -> FundSimulator:
        return FundSimulator(
            default_schemes(),
            seed=self.seed,
            now_s=now_s,
            cash=self.cash,
            calendar=self.behaviour.calendar,
            state=state,
        )

    def _new_listings(self, catalogue: Catalogue) -> NewListings:
        if self.scripmaster:
            return lambda market: catalogue.listings
        return lambda market: new_contracts(
            market.today, market.spots(), market.tokens, self.behaviour.calendar
        )


def paise_of(cash: str) -> int:
    """Return rupees as text in paise. Raises UsageError."""
    try:
        return read_price(cash)
    except Refusal:
        raise UsageError(f"cash={cash!r}: must be rupees as text, such as '1000000.00'") from None


def _stock(market: MatchingEngine) -> list[Holding]:
    """Return the holdings of `_STOCK` that are listed here."""
    return [
        Holding(
            listing=listing,
            quantity=quantity,
            average_price=average_price,
            sellable_quantity=quantity,
        )
        for segment, symbol, quantity, average_price in _STOCK
        if (listing := market.listing(segment, symbol)) is not None
    ]
