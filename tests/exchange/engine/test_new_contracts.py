"""Contracts come and go on a market that runs."""

from __future__ import annotations

from datetime import date, datetime

import msgspec
import pytest

from neo_async.exchange.engine.commands import JournalEntry
from neo_async.exchange.engine.index_board import IndexBoard
from neo_async.exchange.engine.listings import default_listings, new_contracts
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.replay import replay
from neo_async.exchange.engine.types import Hours, Listing, Refusal, Rules
from neo_async.model.enums import OrderStatus, Product, Segment
from tests.exchange.engine.test_snapshot import kept, revived
from tests.exchange.engine.trading import buy, sell

MONDAY = date(2026, 11, 23)
LISTED = default_listings(MONDAY)
CASH = 10**12
ENDING = next(x for x in LISTED if x.symbol == "NIFTY26NOV24400CE")
EXPIRED = {"segment": ENDING.segment, "symbol": ENDING.symbol, "product": Product.NRML}


def at(day: int, clock: str = "10:00") -> int:
    moment = datetime.fromisoformat(f"2026-11-{day:02d}T{clock}+05:30")
    return int(moment.timestamp()) * 1_000_000_000


def market_of(rules: Rules = Rules(), *, market_makers: bool = True) -> MatchingEngine:  # noqa: B008
    market = MatchingEngine(LISTED, seed=4, now_ns=at(23), market_makers=market_makers, rules=rules)
    for name in ("ann", "bob"):
        market.open_account(name, cash=CASH)
    return market


def coming(market: MatchingEngine) -> list[Listing]:
    return list(new_contracts(market.today, market.spots(), market.tokens))


def test_nothing_is_new_on_the_day_of_the_opening() -> None:
    assert coming(market_of()) == []


def test_the_next_expiry_comes_when_one_has_passed() -> None:
    market = market_of()
    market.advance(at(25))
    new = coming(market)
    assert {(x.name, x.expiry) for x in new} >= {("NIFTY", date(2026, 12, 15))}
    market.add_listings(new)
    assert coming(market) == []
    expiries = {x.expiry for x in market.contracts(Segment.NSE_FO, "NIFTY")}
    assert date(2026, 12, 15) in expiries
    assert date(2026, 11, 23) not in expiries
    assert {x.token for x in market.tradable()}.isdisjoint(
        x.token for x in LISTED if x.expiry == date(2026, 11, 23)
    )


def test_new_contracts_are_priced_and_struck_by_what_the_underlying_costs_by_then() -> None:
    market = market_of(market_makers=False)
    hdfc = market.listing(Segment.NSE_CM, "HDFCBANK-EQ")
    assert hdfc is not None
    market.print_price(hdfc.segment, hdfc.token, hdfc.base_price * 109 // 100)
    market.end_day()
    market.advance(at(25))
    strikes = {x.strike // 100 for x in coming(market) if x.name == "HDFCBANK" and x.strike}
    # The expiries that were there get strikes on the upper side, the next one all around.
    assert max(strikes) == round(hdfc.base_price * 1.09 / 500) * 5 + 50
    future = next(x for x in coming(market) if x.name == "HDFCBANK" and not x.strike)
    assert future.base_price > hdfc.base_price * 109 // 100


def test_listings_that_are_added_are_journaled_and_kept() -> None:
    market = market_of()
    market.journal = []
    market.watch(ENDING)
    market.advance(at(23, "10:01"))
    index = IndexBoard(market)
    nifty = index.find("nse_cm", "Nifty 50")
    assert nifty is not None
    day = msgspec.structs.replace(index.snapshot(nifty).stats)
    market.settle_expired()
    market.add_listings(default_listings(date(2026, 12, 28)))
    assert index.snapshot(nifty).stats == day
    new = market.listing(Segment.NSE_FO, "NIFTY27MARFUT") or market.listing(
        Segment.NSE_FO, "NIFTY27FEBFUT"
    )
    assert new is not None
    market.place("ann", buy(new.lot_size, 0, segment=new.segment, symbol=new.symbol))
    market.advance(at(23, "10:03"))

    entries = msgspec.json.decode(msgspec.json.encode(market.journal), type=list[JournalEntry])
    again = market_of()
    replay(again, entries)
    again.advance(market.now_ns, catch_up=False)
    assert kept(again) == kept(market)
    resumed = revived(kept(market))
    for each in (market, resumed):
        each.end_day()
        each.advance(at(24))
    assert kept(resumed) == kept(market)
    assert resumed.first_price(new) == new.base_price


def test_what_is_listed_already_stays_as_it_is() -> None:
    market = market_of()
    market.journal = []
    market.add_listings([msgspec.structs.replace(ENDING, base_price=1)])
    assert market.listing_by_token(ENDING.segment, ENDING.token) == ENDING
    assert market.journal == []


@pytest.mark.parametrize("hours", list(Hours))
def test_an_expired_contract_is_settled_and_trades_no_more(hours: Hours) -> None:
    market = market_of(Rules(hours=hours))
    lot = ENDING.lot_size
    market.place("ann", buy(lot, 0, **EXPIRED))
    resting = market.place("bob", buy(lot, ENDING.tick, **EXPIRED))
    market.advance(at(25))
    market.settle_expired()
    assert resting.status is OrderStatus.CANCELLED
    with pytest.raises(Refusal, match="expired"):
        market.place("ann", buy(lot, 0, **EXPIRED))
    assert all(position.bought == position.sold for position in market.positions("ann"))
    quoted = market.market_snapshot(ENDING)
    assert (quoted.bids, quoted.asks) == ([], [])
    before = msgspec.structs.replace(market.session_stats(ENDING))
    market.watch(ENDING)
    market.advance(at(25, "10:01"))
    assert market.session_stats(ENDING) == before
    assert market.market_snapshot(ENDING).bids == []
    settled = market.ledger[-1] if hours is Hours.ALWAYS else None
    if settled is not None:
        assert (settled.account, settled.status) == ("ann", OrderStatus.COMPLETE)


def test_an_after_market_order_in_a_contract_that_has_expired_is_rejected() -> None:
    market = market_of(Rules(hours=Hours.EXCHANGE), market_makers=False)
    market.advance(at(23, "16:00"))
    late = market.place("ann", sell(ENDING.lot_size, 50_00, amo=True, **EXPIRED))
    market.advance(at(25))
    assert late.status is OrderStatus.REJECTED
    assert "expired" in late.reject_reason
