"""Snapshots and journals: a market that was kept goes on as if nothing had happened."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.exchange.engine.commands import JournalEntry
from neo_async.exchange.engine.market_maker import TURN_NS
from neo_async.exchange.engine.market_makers import CATCH_UP, IDLE
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.replay import replay
from neo_async.exchange.engine.snapshot import EngineState
from neo_async.exchange.engine.types import Holding, Refusal
from neo_async.model.enums import OrderType, Product
from tests.exchange.engine.test_contingent_orders import play, steps
from tests.exchange.engine.trading import (
    BRACKET,
    CASH,
    FUTURE,
    LISTINGS,
    OPTION,
    SECOND,
    SHARE,
    START,
    buy,
    change,
    quiet_market,
    sell,
)
from tests.exchange_settings import EVERY_ORDER


def live_market(*, market_makers: bool = True) -> MatchingEngine:
    market = MatchingEngine(
        LISTINGS, seed=9, now_ns=START, market_makers=market_makers, rules=EVERY_ORDER
    )
    market.journal = []
    for name in ("ann", "bob"):
        stock = Holding(listing=SHARE, quantity=60, average_price=1.5, sellable_quantity=60)
        market.open_account(name, cash=CASH, holdings=[stock])
    return market


def kept(market: MatchingEngine) -> bytes:
    return msgspec.msgpack.encode(market.snapshot())


def revived(content: bytes) -> MatchingEngine:
    return MatchingEngine.restored(msgspec.msgpack.decode(content, type=EngineState))


def replayed(market: MatchingEngine) -> MatchingEngine:
    """A market of the same beginnings to which the same was done, by way of text."""
    entries = msgspec.json.decode(msgspec.json.encode(market.journal), type=list[JournalEntry])
    again = MatchingEngine(
        LISTINGS,
        seed=9,
        now_ns=START,
        market_makers=market._parts.market_makers.enabled,
        rules=EVERY_ORDER,
    )
    replay(again, entries)
    again.advance(market.now_ns, catch_up=False)
    return again


def reports(market: MatchingEngine) -> list[object]:
    return [
        [
            market.orders(name),
            market.fills(name),
            market.positions(name),
            market.holdings(name),
            market.funds(name),
        ]
        for name in ("ann", "bob")
    ] + [market.depth(SHARE, 100), market.ledger, market.now_ns]


def busy_market() -> MatchingEngine:
    """One of everything that can be under way."""
    market = live_market()
    market.place("ann", buy(10, 200_00, product=Product.BO, bracket=BRACKET))
    market.place("bob", sell(10, 199_00, tag="b1"))
    market.place("ann", buy(40, 185_00, disclosed_quantity=10))
    market.place("bob", sell(7, 185_00))
    market.place("bob", sell(5, 181_00, trigger=182_00, order_type=OrderType.SL))
    market.place("ann", sell(20, 210_00, product=Product.CNC, amo=True))
    market.place("ann", buy(50, 201_00, segment=FUTURE.segment, symbol=FUTURE.symbol))
    market.place("bob", buy(1, 250_00))
    market.watch(OPTION)
    market.advance(START + 3 * SECOND)
    return market


def test_a_restored_market_reports_what_the_kept_one_did() -> None:
    market = busy_market()
    again = revived(kept(market))
    assert kept(again) == kept(market)
    assert reports(again) == reports(market)


def test_a_restored_market_goes_on_like_the_kept_one() -> None:
    market = busy_market()
    again = revived(kept(market))
    for each in (market, again):
        each.take_events()
        each.release_amo()
        each.advance(START + 60 * SECOND)
        each.place("bob", sell(30, 185_00))
        each.place("ann", buy(5))
        each.exit("ann", each.ledger[0].number)
        each.advance(START + 120 * SECOND)
    assert again.take_events() == market.take_events()
    assert kept(again) == kept(market)


def test_a_tag_stays_taken_after_a_restart() -> None:
    market = busy_market()
    again = revived(kept(market))
    tagged = next(record for record in again.ledger if record.client_tag)
    with pytest.raises(Refusal, match="32"):
        again.place("bob", sell(1, 200_00, tag="b1"))
    assert tagged.arrivals == 2


def test_long_pauses_and_sleeping_listings_are_replayed_too() -> None:
    market = live_market()
    market.last_price(SHARE)
    market.advance(START + 5 * SECOND)
    market.advance(START + 5 * SECOND + 4 * CATCH_UP * TURN_NS)
    market.depth(FUTURE)
    for _ in range(2 * IDLE):
        market.advance(market.now_ns + TURN_NS)
    market.depth(SHARE)
    market.watch(FUTURE)
    for _ in range(2 * IDLE):
        market.advance(market.now_ns + TURN_NS)
    market.unwatch(FUTURE)
    market.place("ann", buy(10))
    market.advance(market.now_ns + SECOND)
    assert kept(replayed(market)) == kept(market)


def test_looking_often_costs_the_journal_little() -> None:
    market = live_market()
    for _ in range(200):
        market.advance(market.now_ns + TURN_NS)
        for _ in range(10):
            market.depth(SHARE)
    assert market.journal is not None
    assert len(market.journal) < 12


def test_asking_for_a_margin_leaves_no_trace() -> None:
    market = quiet_market()
    before = kept(market)
    market.order_margin("ann", buy(10, 200_00))
    market.order_margin("ann", buy(10, 200_00, product=Product.CNC))
    market.holdings("ann")
    assert kept(market) == before


def test_a_replay_tells_nothing_of_the_past() -> None:
    market = busy_market()
    again = MatchingEngine(LISTINGS, seed=9, now_ns=START, rules=EVERY_ORDER)
    replay(again, market.journal or [])
    assert len(again.ledger) == len(market.ledger)
    assert again.take_events() == []


@given(steps, st.booleans(), st.integers(0, 40))
@settings(max_examples=120, deadline=None)
def test_a_market_restored_in_the_middle_ends_like_one_that_ran_through(
    todo, market_makers, cut
) -> None:
    market = live_market(market_makers=market_makers)
    play(market, todo[:cut])
    again = revived(kept(market))
    play(market, todo[cut:])
    play(again, todo[cut:])
    assert kept(again) == kept(market)


@given(steps, st.booleans())
@settings(max_examples=120, deadline=None)
def test_replaying_the_journal_equals_the_run(todo, market_makers) -> None:
    market = live_market(market_makers=market_makers)
    for index, step in enumerate(todo):
        play(market, [step])
        if index % 3 == 0:
            market.depth(FUTURE)
    assert kept(replayed(market)) == kept(market)


@given(steps, st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_snapshot_and_the_rest_of_the_journal_equal_the_run(todo, cut) -> None:
    market = live_market()
    play(market, todo[:cut])
    content = kept(market)
    assert market.journal is not None
    market.journal.clear()
    play(market, todo[cut:])
    again = revived(content)
    replay(again, market.journal)
    again.advance(market.now_ns, catch_up=False)
    assert kept(again) == kept(market)


def test_a_change_survives_with_its_history() -> None:
    market = quiet_market()
    record = market.place("ann", buy(10, 199_00))
    market.modify("ann", record.number, change(record, price=198_00))
    (again,) = revived(kept(market)).ledger
    assert again == record
