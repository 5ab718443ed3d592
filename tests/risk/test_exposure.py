"""Exposure counts what is held, open and reserved, and a value that cannot be read counts as the
worst case; reference prices are the last prices of this client's feeds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

import neo_async.risk.exposure
from neo_async import (
    Instrument,
    LossLimit,
    NeoClient,
    NeoError,
    OpenOrdersLimit,
    Order,
    OrderStatus,
    OrderType,
    OutcomeUnknown,
    PositionLimit,
    PriceLimit,
    Product,
    RiskLimits,
    RiskRefused,
    Segment,
    Side,
    ValueLimit,
)
from neo_async.exchange import Exchange, Faults
from neo_async.model.orders import OrderTerms
from tests.clients import BOOK, PLACE, client_of, exchange_of
from tests.fake_servers import Cut, Reply, fault_proxy
from tests.risk.trading import (
    BUY,
    MIS,
    OPEN,
    POSITION,
    POSITIONS,
    SELL,
    SYMBOL,
    TOKEN,
    current,
    limited,
    requests,
    requests_sent,
    ticking,
    trade,
    until,
    with_reports,
)
from tests.simulation.virtual_time import START, now

# --- reservations -----------------------------------------------------------------------------


async def test_reservations_are_released_when_orders_fail() -> None:
    overrides: dict[str, Any] = {PLACE: Cut()}
    dropped = {PLACE}
    async with (
        exchange_of() as exchange,
        fault_proxy(
            exchange, lambda path, status, body: overrides.get(path), dropped=dropped
        ) as endpoints,
        client_of(
            exchange,
            endpoints=endpoints,
            risk=RiskLimits(max_open_orders=2, max_net_position=20, max_orders_per_minute=10),
            resolution_timeout=5.0,
        ) as neo,
    ):
        lost = asyncio.create_task(neo.orders.place_many(requests(2)))
        await asyncio.sleep(1)
        with pytest.raises(OpenOrdersLimit):  # both may be open
            await neo.orders.place(*BUY, 1, **MIS)
        assert all(isinstance(result, NeoError) for result in await lost)
        dropped.clear()
        overrides.clear()
        # Cancelled before the first request starts, or while it is under way.
        given_up = asyncio.create_task(neo.orders.place_many(requests(2)))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        await asyncio.sleep(6)
        for row in await neo.orders.book():
            if not row.status.is_final:
                await neo.orders.cancel(row.number)
        await until(lambda: not neo._engine.cache.open_orders)
        await neo.orders.place_many(requests(2))
        assert neo._guard is not None
        assert not neo._guard._reservations.units
        assert not neo._guard._reservations.placing


async def test_an_unknown_outcome_keeps_its_reservation_until_resolved_or_logged_out() -> None:
    dropped: set[str] = set()
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda *_: None, dropped=dropped) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(max_net_position=10)) as neo,
    ):
        engine = neo._guard
        assert engine is not None
        dropped.add(PLACE)
        with pytest.raises(OutcomeUnknown):
            await neo.orders.place(*BUY, 10, **MIS, wait_for_outcome=False)
        await asyncio.sleep(20)
        with pytest.raises(PositionLimit):
            await neo.orders.place(*BUY, 1, **MIS)
        await asyncio.sleep(20)
        assert not engine._reservations.units
        with pytest.raises(OutcomeUnknown):
            await neo.orders.place(*BUY, 10, **MIS, wait_for_outcome=False)
        assert engine._reservations.placing == 1
        await neo.logout()
        await asyncio.sleep(0)
        assert not engine._reservations.units
        assert not engine._reservations.placing


async def test_a_change_that_the_exchange_refuses_later_releases_nothing() -> None:
    async with limited(max_net_position=100) as (_, neo):
        await neo.order_feed.until_live()
        order = await neo.orders.place(*BUY, 100, **MIS)
        await neo.orders.modify(order, quantity=50, price="99.00")  # beyond the circuit limit
        for _ in range(10):
            with pytest.raises(PositionLimit):
                await neo.orders.place(*BUY, 50, **MIS)
            await asyncio.sleep(0.05)
        await neo.orders.modify(order, quantity=50)
        await asyncio.sleep(1)
        await neo.orders.place(*BUY, 50, **MIS)


async def test_a_larger_quantity_counts_until_the_book_shows_its_outcome() -> None:
    async with limited(max_net_position=100) as (exchange, neo):
        await neo.order_feed.until_live()
        order = await neo.orders.place(*BUY, 10, **MIS)
        exchange.faults.set(Faults(feed_lose=1.0))
        await neo.orders.modify(order, quantity=90)
        # As a message from before the change shows it.
        order.terms = msgspec.structs.replace(order.terms, quantity=10)
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 11, **MIS)
        await asyncio.sleep(1)
        assert neo._guard is not None
        assert not neo._guard._reservations.changes
        await neo.orders.place(*BUY, 10, **MIS)


async def test_a_change_that_was_not_sent_reserves_nothing() -> None:
    async with limited(max_net_position=100) as (_, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        assert neo._guard is not None
        for quantity in (90, 100):
            reservation = neo._guard.admit_change(order, changed_terms(order, quantity))
            with pytest.raises(PositionLimit):
                await neo.orders.place(*BUY, 91, **MIS)
            reservation.was_sent = False
            reservation.end()
        assert not neo._guard._reservations.changes
        await neo.orders.place(*BUY, 90, **MIS)


def changed_terms(order: Order, quantity: int) -> OrderTerms:
    return msgspec.structs.replace(order.terms, quantity=quantity, price=Decimal("39.00"))


async def test_two_changes_of_one_order_count_by_the_larger_one_until_both_are_resolved() -> None:
    async with limited(max_net_position=100) as (_, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        engine = neo._guard
        assert engine is not None
        larger = engine.admit_change(order, changed_terms(order, 80))
        smaller = engine.admit_change(order, changed_terms(order, 5))
        smaller.end()
        await asyncio.sleep(15)  # the book is read while the larger change is under way
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 21, **MIS)
        larger.end()
        await asyncio.sleep(20)  # the book shows that it had no effect
        await neo.orders.place(*BUY, 90, **MIS)


# --- positions and fills ----------------------------------------------------------------------


async def test_a_sale_lowers_the_exposure_as_soon_as_its_order_is_complete() -> None:
    async with limited(max_net_position=10) as (exchange, neo):
        await current(neo)
        for _ in range(3):
            order = await neo.orders.place(*BUY, 10, **MIS)
            await trade(exchange, 3900)
            await order.wait(OrderStatus.COMPLETE, timeout=5)
            order = await neo.orders.place(*SELL, 10, **MIS)
            await trade(exchange, 3900)
            await order.wait(OrderStatus.COMPLETE, timeout=5)


async def test_a_fill_that_only_the_book_shows_counts_at_once() -> None:
    async with limited(max_net_position=10) as (exchange, neo):
        await current(neo)
        exchange.faults.set(Faults(feed_lose=1.0))
        order = await neo.orders.place(*BUY, 10, **MIS)
        await trade(exchange, 3900)
        await neo.orders.book()
        assert order.status is OrderStatus.COMPLETE
        with pytest.raises(PositionLimit, match="11 units"):
            await neo.orders.place(*BUY, 1, **MIS)


async def test_a_fill_that_only_the_book_shows_counts_for_an_order_whose_answer_was_lost() -> None:
    cut: dict[str, Any] = {}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: cut.get(path)) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(max_net_position=10)) as neo,
    ):
        await neo.order_feed.until_live()
        await current(neo)
        exchange.faults.set(Faults(feed_lose=1.0))
        exchange.market.print_price(Segment.NSE_CM, TOKEN, 3900)
        cut[PLACE] = Cut()
        await place_and_fill(exchange, neo)
        with pytest.raises(PositionLimit, match="11 units"):
            await neo.orders.place(*BUY, 1, **MIS)


async def place_and_fill(exchange: Exchange, neo: NeoClient) -> None:
    """Place an order whose answer is lost and which is filled before any report of it arrives."""
    placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
    await until(lambda: exchange.market.ledger)
    await trade(exchange, 3890)
    order = await placing
    assert order.status is OrderStatus.COMPLETE


def positions_report(**fields: Any) -> Reply:
    row = {
        "exSeg": "nse_cm", "trdSym": SYMBOL, "tok": TOKEN, "prod": "MIS", "flBuyQty": "10",
        "flSellQty": "0", "buyAmt": "390.00", "sellAmt": "0.00", "ltp": "39.00",
        "cfBuyQty": "0", "cfSellQty": "0", "cfBuyAmt": "0.00", "cfSellAmt": "0.00",
    }  # fmt: skip
    return Reply({"stat": "ok", "stCode": 200, "data": [{**row, **fields}]})


@contextlib.asynccontextmanager
async def with_positions(reply: Reply, **limits: Any) -> AsyncIterator[NeoClient]:
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: reply if path == POSITIONS else None) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(**limits)) as neo,
    ):
        yield neo


@pytest.mark.parametrize("text", ["NaN", "inf", "-Infinity"])
@pytest.mark.parametrize("field", ["buyAmt", "sellAmt", "multiplier", "prcNum", "cfBuyAmt"])
async def test_an_invalid_number_in_a_position_makes_the_loss_unknown(
    field: str, text: str
) -> None:
    traded = {"flSellQty": "4", "sellAmt": "160.00", "cfBuyQty": "5", "cfBuyAmt": "190.00"}
    async with with_positions(
        positions_report(**{**traded, field: text}), max_daily_loss=10_000
    ) as neo:
        with pytest.raises(LossLimit, match="the loss of the day is not known") as caught:
            await neo.orders.place(*BUY, 1, **MIS)
        assert caught.value.value is None
        (position,) = await neo.portfolio.positions()
        assert position.mtm_pnl is None
        assert position.unknown_reason


async def test_blanks_and_case_in_the_positions_report_do_not_matter() -> None:
    odd = positions_report(trdSym=f" {SYMBOL.lower()} ", exSeg="NSE_CM", prod="mis")
    async with with_positions(odd, max_net_position=10) as neo:
        with pytest.raises(PositionLimit, match="11 units"):
            await neo.orders.place(*BUY, 1, **MIS)
        await neo.orders.place(*SELL, 20, **MIS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flBuyQty": "1,0"}, "a quantity of the positions in ITBEES-EQ cannot be read"),
        ({"cfSellQty": "NaN"}, "a quantity of the positions in ITBEES-EQ cannot be read"),
        ({"exSeg": None}, "or the instrument of a position that may be in it"),
        ({"trdSym": {}}, "or the instrument of a position that may be in it"),
    ],
)
async def test_a_position_that_cannot_be_read_refuses_orders_that_may_add_to_it(
    fields: dict[str, Any], message: str
) -> None:
    async with with_positions(positions_report(**fields), max_net_position=10) as neo:
        with pytest.raises(PositionLimit, match=message) as caught:
            await neo.orders.place(*BUY, 1, **MIS)
        assert caught.value.value is None


def receive_update(neo: NeoClient, order: Order, **fields: Any) -> None:
    """Let the client receive a message of the order feed about an order."""
    data = {**OPEN, "nOrdNo": order.number, "updRecvTm": int(now() * 1e9), **fields}
    neo.order_feed._handle(msgspec.json.encode({"type": "order", "data": data}))


@pytest.mark.parametrize("status", ["complete", "cancelled"])
async def test_a_fill_that_cannot_be_read_counts_until_the_positions_are_read(status: str) -> None:
    async with with_reports(max_net_position=100) as neo:
        order = await neo.orders.place(*BUY, 60, **MIS)
        receive_update(neo, order, ordSt=status, fldQty="N/A")
        with pytest.raises(PositionLimit):
            await neo.orders.place(*BUY, 60, **MIS)


async def test_more_filled_than_ordered_is_ignored() -> None:
    async with with_reports(max_net_position=100) as neo:
        order = await neo.orders.place(*BUY, 60, **MIS)
        receive_update(neo, order, fldQty=10**17)
        assert (order.quantity, order.filled_quantity) == (60, 0)
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 41, **MIS)
        await neo.orders.place(*BUY, 40, **MIS)


@pytest.mark.parametrize("odd", [{"qty": 10**12}, {"qty": None}, {"qty": 60}])
async def test_a_fill_above_the_order_quantity_is_unknown_until_the_book_is_read(odd: Any) -> None:
    async with with_reports(max_net_position=100) as neo:
        order = await neo.orders.place(*BUY, 60, **MIS)
        await asyncio.sleep(5)
        before = neo._engine._poller.read_at
        receive_update(neo, order, fldQty=10**12, **odd)
        assert (order.quantity, order.filled_quantity) == (60, 0)
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 41, **MIS)
        await asyncio.sleep(5)
        assert neo._engine._poller.read_at > before
        receive_update(neo, order, fldQty=25)
        assert (order.quantity, order.filled_quantity) == (60, 25)


async def test_a_fill_of_an_order_that_another_application_enlarged_comes_from_the_book() -> None:
    reports: dict[str, Any] = {BOOK: None}
    async with with_reports(reports) as neo:
        order = await neo.orders.place(*BUY, 60, **MIS)
        larger = {"nOrdNo": order.number, "qty": 90, "fldQty": 75}
        reports[BOOK] = [{**OPEN, **larger, "updRecvTm": int(now() * 1e9) + 10**9}]
        receive_update(neo, order, **larger)
        assert order.filled_quantity == 0
        await asyncio.sleep(5)
        assert (order.quantity, order.filled_quantity) == (90, 75)


@pytest.mark.parametrize(
    "odd",
    [
        {**POSITION, "trdSym": None},
        {**POSITION, "trdSym": ["ITBEES-EQ"]},
        {**POSITION, "exSeg": None},
        {**POSITION, "exSeg": 5},
        None,
        "a row",
    ],
)
async def test_a_position_without_an_instrument_may_be_in_any(odd: Any) -> None:
    async with with_reports({POSITIONS: [odd]}, max_net_position=100) as neo:
        with pytest.raises(PositionLimit, match="the instrument of a position that may be in it"):
            await neo.orders.place(*BUY, 60, **MIS)


async def test_a_flat_position_without_an_instrument_counts_nothing() -> None:
    flat = {**POSITION, "trdSym": None, "flBuyQty": "0", "buyAmt": "0.00"}
    async with with_reports({POSITIONS: [flat]}, max_net_position=100) as neo:
        await neo.orders.place(*BUY, 60, **MIS)


async def test_several_rows_of_one_position_are_added_up() -> None:
    carried = {**POSITION, "flBuyQty": "0", "buyAmt": "0", "cfBuyQty": "30", "cfBuyAmt": "1170.00"}
    async with with_reports(
        {POSITIONS: [POSITION, carried, POSITION]}, max_net_position=100
    ) as neo:
        (position,) = neo.portfolio.live.positions.values()
        assert position.net_quantity == 90
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 11, **MIS)
        await neo.orders.place(*BUY, 10, **MIS)


async def test_a_fill_in_a_row_without_an_order_number_is_not_counted_twice() -> None:
    filled = {**OPEN, "ordSt": "complete", "fldQty": 60, "updRecvTm": int(START * 1e9)}
    reports = {BOOK: [filled], POSITIONS: [POSITION]}
    async with with_reports(reports, max_net_position=100) as neo:
        reports[BOOK] = [{**filled, "nOrdNo": None}]
        await neo.orders.book()
        assert neo.portfolio.live.net_range("nse_cm", "ITBEES-EQ") == (60, 60)


# --- open orders ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"qty": "NA"}, "the quantity of the open order 261123000000009 is 0"),
        ({"trnsTp": "b"}, "11 units of ITBEES-EQ bought net"),
        ({"trnsTp": ""}, "11 units of ITBEES-EQ bought net"),
        ({"trdSym": ""}, "11 units of ITBEES-EQ bought net"),
        ({"trdSym": "itbees-eq "}, "11 units of ITBEES-EQ bought net"),
        ({"fldQty": "NA"}, "11 units of ITBEES-EQ bought net"),
    ],
)
async def test_an_open_order_that_is_not_described_in_full_counts_as_the_worst_case(
    fields: dict[str, Any], message: str
) -> None:
    row = {
        "nOrdNo": "261123000000009", "ordSt": "open", "exSeg": "nse_cm", "trdSym": SYMBOL,
        "trnsTp": "B", "prcTp": "L", "prod": "MIS", "vldt": "DAY", "qty": 10, "fldQty": 0,
        "prc": "39.00", "updRecvTm": 1,
    }  # fmt: skip
    book = Reply({"stat": "Ok", "stCode": 200, "data": [{**row, **fields}]})
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: book if path == BOOK else None) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(max_net_position=10)) as neo,
    ):
        with pytest.raises(PositionLimit, match=message):
            await neo.orders.place(*BUY, 1, **MIS)


@pytest.mark.parametrize("fields", [{"trnsTp": "b"}, {"trdSym": "itbees-eq "}, {"exSeg": "NSE_CM"}])
async def test_a_change_of_an_order_in_another_spelling_counts_for_its_instrument(
    fields: dict[str, Any],
) -> None:
    row = {
        "nOrdNo": "261123000000009", "ordSt": "open", "exSeg": "nse_cm", "trdSym": SYMBOL,
        "trnsTp": "B", "prcTp": "L", "prod": "MIS", "vldt": "DAY", "qty": 10, "fldQty": 0,
        "prc": "39.00", "updRecvTm": 1,
    }  # fmt: skip
    book = Reply({"stat": "Ok", "stCode": 200, "data": [{**row, **fields}]})
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: book if path == BOOK else None) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(max_net_position=20)) as neo,
    ):
        await neo.orders.place(*BUY, 5, **MIS)
        order = neo._engine.cache.get("261123000000009")
        assert order is not None
        assert neo._guard is not None
        with pytest.raises(PositionLimit, match="21 units of ITBEES-EQ bought net"):
            neo._guard.admit_change(order, changed_terms(order, 16))
        neo._guard.admit_change(order, changed_terms(order, 15))
        with pytest.raises(PositionLimit, match="21 units of ITBEES-EQ bought net"):
            await neo.orders.place(*BUY, 1, **MIS)


@pytest.mark.parametrize("limit", ["max_net_position", "max_open_orders"])
async def test_an_open_order_without_a_number_refuses_until_the_book_can_be_read(
    limit: str,
) -> None:
    row = {"nOrdNo": None, "ordSt": "open", "exSeg": "nse_cm", "trdSym": SYMBOL, "trnsTp": "B"}
    books = iter([Reply({"stat": "Ok", "stCode": 200, "data": [row]})])
    async with (
        exchange_of() as exchange,
        fault_proxy(
            exchange, lambda path, *_: next(books, None) if path == BOOK else None
        ) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(**{limit: 100})) as neo,
    ):
        with pytest.raises(RiskRefused, match="an open order without a number") as caught:
            await neo.orders.place(*BUY, 1, **MIS)
        assert caught.value.value is None
        await neo.orders.book()
        await neo.orders.place(*BUY, 1, **MIS)


@pytest.mark.parametrize("number", [None, "", "NA", "0", [], {}])
async def test_an_open_order_without_a_number_refuses_orders(number: Any) -> None:
    rows = [{**OPEN, "nOrdNo": number}, {**OPEN, "nOrdNo": number}]
    for limits in ({"max_net_position": 160}, {"max_open_orders": 2}):
        async with with_reports({BOOK: rows}, **limits) as neo:
            with pytest.raises(RiskRefused, match="an open order without a number"):
                await neo.orders.place(*BUY, 60, **MIS)


@pytest.mark.parametrize("number", ["NA", "0", "--", " ", "null"])
async def test_an_accepted_order_without_a_number_is_found_by_its_tag(number: str) -> None:
    answer = {"nOrdNo": number, "stat": "Ok", "stCode": 200}
    async with with_reports({PLACE: answer}, max_open_orders=2) as neo:
        orders = [await neo.orders.place(*BUY, 10, **MIS) for _ in range(2)]
        assert all(order.number.startswith("261123") for order in orders)
        with pytest.raises(RiskRefused, match="3 orders would be open"):
            await neo.orders.place(*BUY, 10, **MIS)


async def test_a_lost_order_is_found_when_a_report_shows_its_number() -> None:
    lost: dict[str, Any] = {BOOK: []}

    def row(**fields: Any) -> dict[str, Any]:
        (pending,) = neo._engine.in_flight_requests
        return {**OPEN, "qty": 10, "GuiOrdId": pending.expected.client_tag, **fields}

    async with with_reports(lost, takes_orders=False) as neo:
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await asyncio.sleep(0.5)
        lost[BOOK] = [row(nOrdNo=None)]
        await asyncio.sleep(8)
        assert not placing.done()
        lost[BOOK] = [row()]
        assert (await placing).number == OPEN["nOrdNo"]
        assert [order.number for order in neo._engine.cache.open_orders] == [OPEN["nOrdNo"]]


# --- reference prices -------------------------------------------------------------------------


async def test_the_scrip_master_finds_the_last_price_and_a_closed_feed_has_none() -> None:
    async with (
        limited(max_price_deviation_pct=2) as (exchange, neo),
        ticking(exchange, neo) as feed,
    ):
        await neo.instruments.load(Segment.NSE_CM)
        feed.symbols.clear()
        await neo.orders.place(*BUY, 10, **MIS)
        await feed.close()
        with pytest.raises(PriceLimit, match="subscribe it on a market feed"):
            await neo.orders.place(*BUY, 10, **MIS)


async def test_the_contract_multiplier_has_to_be_known() -> None:
    async with limited(max_order_notional=1_000_000) as (exchange, neo):
        order = (Segment.MCX_FO, "CRUDEOIL26DECFUT", Side.BUY, 200)
        price = {"price": "5000", "product": Product.NRML}
        with pytest.raises(ValueLimit, match=r"await instruments.load\('mcx_fo'\) first"):
            await neo.orders.place(*order, **price)
        crude = Instrument(
            Segment.MCX_FO, "4711", order[1], "CRUDEOIL", multiplier=100, general_denominator=50.0
        )
        neo.instruments.find = lambda *_: crude  # type: ignore[method-assign]
        with pytest.raises(ValueLimit, match=r"worth 2000000.00 rupees"):
            await neo.orders.place(*order, **price)
        assert await requests_sent(exchange) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
async def test_an_invalid_factor_makes_the_contract_multiplier_unknown(value: float) -> None:
    async with limited(max_order_notional=1_000_000) as (_, neo):
        odd = Instrument(Segment.MCX_FO, "4711", "CRUDEOIL", "CRUDEOIL", price_numerator=value)
        neo.instruments.find = lambda *_: odd  # type: ignore[method-assign]
        with pytest.raises(RiskRefused, match="the contract multiplier of CRUDEOIL is not known"):
            neo._guard._check_max_order_notional(  # type: ignore[union-attr]
                OrderTerms(
                    segment="mcx_fo",
                    symbol="CRUDEOIL",
                    side="B",
                    product="NRML",
                    order_type="L",
                    quantity=1,
                    price=Decimal(5000),
                )
            )


async def test_an_old_tick_gives_no_last_price_while_the_market_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_open = True
    monkeypatch.setattr(neo_async.risk.exposure, "is_trading_time", lambda *_: is_open)
    limits: dict[str, Any] = {"max_price_deviation_pct": 5, "max_order_notional": 1_000_000}
    async with limited(**limits) as (exchange, neo), ticking(exchange, neo) as feed:
        market = {"order_type": OrderType.MARKET, "product": Product.MIS}
        time_ns = time.time_ns
        await neo.orders.place(*BUY, 1, **MIS)
        monkeypatch.setattr(time, "time_ns", lambda: time_ns() + 119 * 10**9)
        await neo.orders.place(*BUY, 1, **MIS)
        monkeypatch.setattr(time, "time_ns", lambda: time_ns() + 300 * 10**9)
        with pytest.raises(PriceLimit, match=r"its last tick is \d+ s old, and 120 s are the most"):
            await neo.orders.place(*BUY, 1, **MIS)
        with pytest.raises(ValueLimit, match=r"its last tick is \d+ s old") as caught:
            await neo.orders.place(*BUY, 1, **market)
        assert f"feed.snapshot(['nse_cm|{TOKEN}'])" in str(caught.value)
        is_open = False  # then there is no newer price
        await neo.orders.place(*BUY, 1, **market)
        is_open = True
        await feed.snapshot([f"nse_cm|{TOKEN}"])
        await asyncio.sleep(1)
        await neo.orders.place(*BUY, 1, **market)
