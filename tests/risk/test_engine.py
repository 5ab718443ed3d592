"""Guard rails: what breaks one is refused before anything is sent, and the exchange never sees more
than the limits allow."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import time
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neo_async.risk.engine
from neo_async import (
    Instrument,
    Level,
    LossLimit,
    MarketFeed,
    NeoClient,
    NeoError,
    OpenOrdersLimit,
    Order,
    OrderRateLimit,
    OrderRequest,
    OrderStatus,
    OrderType,
    OutcomeUnknown,
    PositionLimit,
    PriceLimit,
    Product,
    ProductNotAllowed,
    QuantityLimit,
    Rejected,
    RiskLimits,
    RiskRefused,
    Segment,
    SegmentNotAllowed,
    Side,
    UsageError,
    ValueLimit,
)
from neo_async.exchange import Exchange, Faults
from neo_async.risk.engine import OLDEST_FACTS, READ_EVERY, Asked
from neo_async.wire.rules import modify_form
from tests.clients import BOOK, MODIFY, PLACE, client_of, exchange_of, paths
from tests.fake_servers import Cut, Reply, fault_proxy
from tests.simulation.virtual_time import VirtualTimeLoop, in_virtual_time

SYMBOL, TOKEN = "ITBEES-EQ", "19084"
ITBEES = (Segment.NSE_CM, SYMBOL)
BUY = (*ITBEES, Side.BUY)
SELL = (*ITBEES, Side.SELL)
MIS: dict[str, Any] = {"price": "39.00", "product": Product.MIS}


@contextlib.asynccontextmanager
async def desk(**limits: Any) -> AsyncIterator[tuple[Exchange, NeoClient]]:
    async with exchange_of() as exchange, client_of(exchange, risk=RiskLimits(**limits)) as neo:
        yield exchange, neo


@contextlib.asynccontextmanager
async def ticking(exchange: Exchange, neo: NeoClient, price: int = 3900) -> AsyncIterator[Any]:
    """With a tick of the instrument, at so many paise."""
    exchange.market.print_price(Segment.NSE_CM, TOKEN, price)
    async with neo.market_feed() as feed:
        await feed.subscribe([f"nse_cm|{TOKEN}"], level=Level.LITE)
        await until(lambda: feed.last_price(f"nse_cm|{TOKEN}") == price / 100)
        yield feed


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it may be anything
            await asyncio.sleep(0.01)


async def sent(exchange: Exchange) -> int:
    seen = await paths(exchange)
    return seen.count(PLACE) + seen.count(MODIFY)


async def current(neo: NeoClient) -> None:
    await neo.portfolio.live.wait(lambda live: live.is_current, timeout=30)


async def trade(exchange: Exchange, price: int) -> None:
    exchange.market.print_price(Segment.NSE_CM, TOKEN, price)
    await asyncio.sleep(0)


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_order_quantity", 0, "max_order_quantity=0: must be a whole number, 1 or more"),
        ("max_orders_per_minute", 1.5, "max_orders_per_minute=1.5: must be a whole number"),
        ("max_open_orders", True, "max_open_orders=True: must be a whole number"),
        ("max_net_position", -1, "max_net_position=-1: must be a whole number"),
        (
            "max_order_notional",
            "much",
            "max_order_notional='much': must be an amount of rupees above 0",
        ),
        ("max_order_notional", Decimal("NaN"), "must be an amount of rupees"),
        ("max_daily_loss", 0, "max_daily_loss=0: must be an amount of rupees above 0"),
        (
            "max_price_deviation_pct",
            float("nan"),
            "max_price_deviation_pct=nan: must be a number above 0",
        ),
        ("loop_stall", -1.0, "loop_stall=-1.0: must be a number above 0"),
        ("feed_outage", "1", "feed_outage='1': must be a number above 0"),
        ("segments", "nse_cm", "segments='nse_cm': must be a set of some of nse_cm, bse_cm"),
        ("segments", {"NSE"}, "must be a set of some of nse_cm"),
        ("products", set(), "must be a set of some of CNC"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        RiskLimits(**{field: value})


# --- rules of one order -----------------------------------------------------------------------

RULES: list[tuple[dict[str, Any], dict[str, Any], type[RiskRefused], object, str]] = [
    (
        {"max_order_quantity": 99},
        {},
        QuantityLimit,
        100,
        "max_order_quantity=99: an order of 100 units of ITBEES-EQ",
    ),
    (
        {"max_order_notional": "3899.99"},
        {},
        ValueLimit,
        Decimal(3900),
        "max_order_notional=3899.99: an order of 100 units of ITBEES-EQ is worth 3900.00 rupees",
    ),
    (
        {"max_order_notional": 3900},
        {"order_type": OrderType.SL, "trigger": "39", "price": "39.05"},
        ValueLimit,
        Decimal(3905),
        "is worth 3905.00 rupees",
    ),
    (
        {"max_order_notional": 3900},
        {"order_type": OrderType.MARKET, "price": None},
        ValueLimit,
        None,
        "the value of a market order is not known without the last price of ITBEES-EQ: subscribe",
    ),
    (
        {"max_price_deviation_pct": 5},
        {},
        PriceLimit,
        None,
        "the distance is not known without the last price of ITBEES-EQ: subscribe it",
    ),
    (
        {"segments": {Segment.NSE_FO, Segment.BSE_CM}},
        {},
        SegmentNotAllowed,
        Segment.NSE_CM,
        "segments=bse_cm, nse_fo: nse_cm is not among them",
    ),
    (
        {"products": {Product.CNC}},
        {},
        ProductNotAllowed,
        Product.MIS,
        "products=CNC: MIS is not among them",
    ),
]


@pytest.mark.parametrize(("limits", "order", "kind", "value", "message"), RULES)
@in_virtual_time
async def test_an_order_that_breaks_a_limit_is_refused_and_not_sent(
    limits: dict[str, Any],
    order: dict[str, Any],
    kind: type[RiskRefused],
    value: object,
    message: str,
) -> None:
    async with desk(**limits) as (exchange, neo):
        with pytest.raises(kind, match=message) as caught:
            await neo.orders.place(*BUY, 100, **{**MIS, **order})
        assert caught.value.value == value
        assert caught.value.limit == next(iter(limits.values()))
        assert await sent(exchange) == 0


@in_virtual_time
async def test_an_order_at_its_limits_passes() -> None:
    limits = {
        "max_order_quantity": 100,
        "max_order_notional": 3900,
        "max_price_deviation_pct": 2.5,
        "segments": {Segment.NSE_CM},
        "products": {Product.MIS},
        "max_orders_per_minute": 1,
        "max_open_orders": 1,
        "max_net_position": 100,
        "max_daily_loss": 1,
    }
    async with desk(**limits) as (exchange, neo), ticking(exchange, neo, 4000):
        await neo.orders.place(*BUY, 100, **MIS)
        assert len(exchange.market.ledger) == 1


@in_virtual_time
async def test_prices_are_held_against_the_last_tick() -> None:
    async with (
        desk(max_price_deviation_pct=2, max_order_notional=4000) as (exchange, neo),
        ticking(exchange, neo) as feed,
    ):
        place = neo.orders.place
        with pytest.raises(PriceLimit, match=r"price 38.00 of ITBEES-EQ is 2.56 % from .* 39.0"):
            await place(*BUY, 10, product=Product.MIS, price="38.00")
        stop = {"order_type": OrderType.SL, "price": "39.70", "trigger": "39.90"}
        with pytest.raises(PriceLimit, match=r"trigger 39.90 of ITBEES-EQ is 2.31 %"):
            await place(*SELL, 10, product=Product.MIS, **stop)
        market = {"order_type": OrderType.MARKET, "product": Product.MIS}
        with pytest.raises(ValueLimit, match=r"worth 4017.00 rupees"):
            await place(*BUY, 103, **market)
        with pytest.raises(ValueLimit, match=r"worth 4017.00 rupees"):  # what the market pays
            await place(*SELL, 103, product=Product.MIS, price="38.50")
        await place(*BUY, 102, **market)
        # What a feed does not tell any more is not known.
        await feed.unsubscribe([f"nse_cm|{TOKEN}"], level=Level.LITE)
        with pytest.raises(PriceLimit, match="subscribe it on a market feed"):
            await place(*BUY, 10, **MIS)


@in_virtual_time
async def test_a_price_is_found_by_the_scrip_master_too_and_not_while_the_feed_is_down() -> None:
    async with desk(max_price_deviation_pct=2) as (exchange, neo), ticking(exchange, neo) as feed:
        await neo.instruments.load(Segment.NSE_CM)
        feed.symbols.clear()
        await neo.orders.place(*BUY, 10, **MIS)
        await feed.close()
        with pytest.raises(PriceLimit, match="subscribe it on a market feed"):
            await neo.orders.place(*BUY, 10, **MIS)


@in_virtual_time
async def test_what_a_unit_stands_for_has_to_be_known() -> None:
    async with desk(max_order_notional=1_000_000) as (exchange, neo):
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
        assert await sent(exchange) == 0


# --- rules of all orders together -------------------------------------------------------------


@in_virtual_time
async def test_orders_of_a_minute_are_counted_while_they_may_arrive() -> None:
    async with desk(max_orders_per_minute=2) as (_, neo):
        first = await neo.orders.place(*BUY, 1, **MIS)
        await asyncio.sleep(30)
        with pytest.raises(Rejected):  # refused by the broker counts as well
            await neo.orders.place(Segment.NSE_CM, "NOSUCH-EQ", Side.BUY, 1, **MIS)
        with pytest.raises(OrderRateLimit, match="3 orders within a minute"):
            await neo.orders.place(*BUY, 1, **MIS)
        await neo.orders.modify(first, price="38.90")
        await neo.orders.cancel(first)
        await asyncio.sleep(30)
        await neo.orders.place(*BUY, 1, **MIS)
        with pytest.raises(OrderRateLimit):
            await neo.orders.place(*BUY, 1, **MIS)


@in_virtual_time
async def test_open_orders_are_those_of_the_account() -> None:
    async with exchange_of() as exchange, client_of(exchange) as other:
        theirs = await other.orders.place(*BUY, 1, **MIS)
        await asyncio.sleep(30)
        async with client_of(exchange, risk=RiskLimits(max_open_orders=2)) as neo:
            mine = await neo.orders.place(*BUY, 1, **MIS)
            with pytest.raises(OpenOrdersLimit, match="max_open_orders=2: 3 orders would be open"):
                await neo.orders.place(*BUY, 1, **MIS)
            await neo.orders.cancel(mine)
            await mine.wait(timeout=5)
            await neo.orders.place(*BUY, 1, **MIS)
            await neo.orders.cancel(theirs.number)
            await until(lambda: len(neo._cache.open_orders) == 1)
            await neo.orders.place(*BUY, 1, **MIS)


@in_virtual_time
async def test_a_net_position_counts_what_is_held_open_and_on_its_way() -> None:
    async with desk(max_net_position=100) as (exchange, neo):
        place = neo.orders.place
        order = await place(*BUY, 60, **MIS)
        results = await asyncio.gather(
            *(place(*BUY, 30, **MIS) for _ in range(2)), return_exceptions=True
        )
        assert [type(result) for result in results] == [Order, PositionLimit]
        assert "120 units of ITBEES-EQ bought net" in str(results[1])
        await trade(exchange, 3900)
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        with pytest.raises(PositionLimit):
            await place(*BUY, 11, **MIS)
        # The other side has room for what is held, and its own limit.
        sale = await place(*SELL, 190, price="39.10", product=Product.MIS)
        with pytest.raises(PositionLimit, match="101 units of ITBEES-EQ sold net"):
            await place(*SELL, 1 + 0, price="39.10", product=Product.MIS)
        await trade(exchange, 3910)
        await sale.wait(OrderStatus.COMPLETE, timeout=5)
        await place(*BUY, 200, **MIS)


@in_virtual_time
async def test_what_was_sold_has_made_room_in_the_moment_in_which_the_order_is_complete() -> None:
    async with desk(max_net_position=10) as (exchange, neo):
        await current(neo)
        for _ in range(3):
            order = await neo.orders.place(*BUY, 10, **MIS)
            await trade(exchange, 3900)
            await order.wait(OrderStatus.COMPLETE, timeout=5)
            order = await neo.orders.place(*SELL, 10, **MIS)
            await trade(exchange, 3900)
            await order.wait(OrderStatus.COMPLETE, timeout=5)


@in_virtual_time
async def test_a_fill_that_only_the_book_tells_counts_at_once() -> None:
    async with desk(max_net_position=10) as (exchange, neo):
        await current(neo)
        exchange.set_faults(Faults(feed_lose=1.0))
        order = await neo.orders.place(*BUY, 10, **MIS)
        await trade(exchange, 3900)
        await neo.orders.book()
        assert order.status is OrderStatus.COMPLETE
        with pytest.raises(PositionLimit, match="11 units"):
            await neo.orders.place(*BUY, 1, **MIS)


@in_virtual_time
async def test_a_day_of_losses_ends_new_business_and_not_the_old() -> None:
    async with desk(max_daily_loss="50") as (exchange, neo), ticking(exchange, neo):
        order = await neo.orders.place(*BUY, 100, **MIS)
        await trade(exchange, 3900)
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        await current(neo)
        await trade(exchange, 3850)
        await until(lambda: neo._guard and neo._guard._prices.of(f"nse_cm|{TOKEN}") == 38.5)
        with pytest.raises(
            LossLimit, match=r"max_daily_loss=50: a loss of 50.00 rupees today"
        ) as caught:
            await neo.orders.place(*BUY, 1, **MIS)
        assert caught.value.value == 50.0
        with pytest.raises(LossLimit):
            await neo.orders.place(*SELL, 101, **MIS)
        closing = await neo.orders.place(*SELL, 90, price="38.60", product=Product.MIS)
        with pytest.raises(LossLimit):
            await neo.orders.modify(closing, quantity=101)
        await neo.orders.modify(closing, quantity=100)


@in_virtual_time
async def test_positions_that_no_feed_prices_are_valued_anew_now_and_then() -> None:
    async with desk(max_daily_loss=50) as (exchange, neo):
        order = await neo.orders.place(*BUY, 100, **MIS)
        await trade(exchange, 3900)
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        await asyncio.sleep(5)
        await trade(exchange, 3849)
        await asyncio.sleep(20)
        with pytest.raises(LossLimit, match=r"a loss of 51.00 rupees"):
            await neo.orders.place(*BUY, 1, **MIS)


@in_virtual_time
async def test_a_loss_that_cannot_be_known_refuses() -> None:
    overrides: dict[str, Any] = {}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, status, body: overrides.get(path)) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(max_daily_loss=50)) as neo,
    ):
        order = await neo.orders.place(*BUY, 100, **MIS)
        await trade(exchange, 3900)
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        await asyncio.sleep(5)
        overrides["/neo/portfolio/v2/positions"] = Reply("busy", 503)
        await asyncio.sleep(90)
        with pytest.raises(LossLimit, match=r"not known without the last price of nse_cm\|19084"):
            await neo.orders.place(*BUY, 1, **MIS)
        await neo.orders.place(*SELL, 1, **MIS)
        await neo.portfolio.live.close()
        with pytest.raises(LossLimit, match="the positions are not being kept"):
            await neo.orders.place(*BUY, 1, **MIS)


# --- programs of orders -----------------------------------------------------------------------


def requests(count: int, quantity: int = 10, **changes: Any) -> list[OrderRequest]:
    fields = {"product": Product.MIS, "price": "39.00", **changes}
    return [OrderRequest(*BUY, quantity, **fields) for _ in range(count)]


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        ({"max_open_orders": 9}, OpenOrdersLimit),
        ({"max_orders_per_minute": 9}, OrderRateLimit),
        ({"max_net_position": 99}, PositionLimit),
    ],
)
@in_virtual_time
async def test_a_program_that_breaks_a_limit_together_is_refused_as_a_whole(
    limits: dict[str, Any], kind: type[RiskRefused]
) -> None:
    async with desk(**limits) as (exchange, neo):
        with pytest.raises(kind):
            await neo.orders.place_many(requests(10))
        assert await sent(exchange) == 0
        results = await neo.orders.place_many(requests(9))
        assert [type(result) for result in results] == [Order] * 9


@in_virtual_time
async def test_slices_count_as_what_they_are() -> None:
    async with desk(max_open_orders=2, max_order_quantity=1000) as (exchange, neo):
        await neo.instruments.load(Segment.NSE_CM)
        freeze = neo.instruments[ITBEES].freeze_quantity or 0
        with pytest.raises(QuantityLimit):
            await neo.orders.place(*BUY, freeze + 1, **MIS, slice=True)
        assert await sent(exchange) == 0


@in_virtual_time
async def test_room_is_given_back_when_orders_fail() -> None:
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
        with pytest.raises(OpenOrdersLimit):  # nobody knows whether they are open
            await neo.orders.place(*BUY, 1, **MIS)
        assert all(isinstance(result, NeoError) for result in await lost)
        dropped.clear()
        overrides.clear()
        # One that is given up before it has begun, and while it is on its way.
        given_up = asyncio.create_task(neo.orders.place_many(requests(2)))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        await asyncio.sleep(6)
        for order in await neo.orders.read_open():
            await neo.orders.cancel(order)
        await until(lambda: not neo._cache.open_orders)
        await neo.orders.place_many(requests(2))
        assert neo._guard is not None
        assert not neo._guard._reserved
        assert not neo._guard._placing


# --- changes ----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_change_is_checked_for_what_it_makes_larger_dearer_or_moves() -> None:
    limits: dict[str, Any] = {
        "max_order_quantity": 100,
        "max_order_notional": 4000,
        "max_net_position": 150,
    }
    async with desk(max_price_deviation_pct=3, **limits) as (exchange, neo):
        async with ticking(exchange, neo, 3920):
            modify = neo.orders.modify
            order = await neo.orders.place(*BUY, 90, **MIS)
            other = await neo.orders.place(*BUY, 50, **MIS)
            with pytest.raises(QuantityLimit):
                await modify(order, quantity=101)
            with pytest.raises(ValueLimit):
                await modify(order, quantity=100, price="40.05")
            with pytest.raises(PriceLimit):
                await modify(order, price="38.00")
            with pytest.raises(PositionLimit, match="151 units"):
                await modify(other, quantity=61)
            await modify(other, quantity=60)
            await modify(order, price="39.10", quantity=80)
        # Without a tick, what moves no price is not held against it.
        await modify(order, quantity=70)
        assert order.quantity == 70


@in_virtual_time
async def test_a_change_that_the_exchange_refuses_later_gives_no_room() -> None:
    async with desk(max_net_position=100) as (_, neo):
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


# --- whatever happens -------------------------------------------------------------------------

FEED_FAULTS = ("feed_lose", "feed_late", "feed_repeat")

ACTIONS = st.one_of(
    st.tuples(st.just("place"), st.sampled_from(Side), st.integers(1, 60), st.integers(3880, 3920)),
    st.tuples(st.just("many"), st.sampled_from(Side), st.integers(1, 30), st.integers(1, 4)),
    st.tuples(st.just("modify"), st.integers(0, 9), st.integers(1, 60), st.integers(3880, 3920)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("print"), st.integers(3880, 3920)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 2.0, 70.0])),
    st.tuples(st.just("disturb"), st.sampled_from([0.0, 0.5, 1.0])),
    st.tuples(st.just("drop")),
)


class Auditor:
    """The exchange's own records, looked at whenever anything may have moved."""

    def __init__(self, exchange: Exchange, limits: RiskLimits) -> None:
        self.exchange = exchange
        self.limits = limits

    def look(self) -> None:
        net: Counter[Side] = Counter()
        most_open = 0
        for record in self.exchange.market.ledger:
            net[record.side] += record.filled_quantity
            most_open += not record.status.is_final
        assert self.limits.max_net_position is not None
        assert self.limits.max_open_orders is not None
        assert abs(net[Side.BUY] - net[Side.SELL]) <= self.limits.max_net_position
        assert most_open <= self.limits.max_open_orders


@given(
    programme=st.lists(ACTIONS, min_size=5, max_size=30),
    max_net_position=st.integers(20, 100),
    open_orders=st.integers(1, 5),
    per_minute=st.integers(1, 12),
)
@settings(max_examples=25, deadline=None)
def test_the_exchange_never_sees_more_than_the_limits_allow(
    programme: list[tuple[Any, ...]], max_net_position: int, open_orders: int, per_minute: int
) -> None:
    limits = RiskLimits(
        max_net_position=max_net_position,
        max_open_orders=open_orders,
        max_orders_per_minute=per_minute,
    )

    async def act(
        exchange: Exchange, neo: NeoClient, orders: list[Order], action: tuple[Any, ...]
    ) -> None:
        match action:
            case ("place", side, quantity, price):
                order = await neo.orders.place(
                    *ITBEES, side, quantity, price=price / 100, product=Product.MIS
                )
                orders.append(order)
            case ("many", side, quantity, count):
                request = OrderRequest(*ITBEES, side, quantity, product=Product.MIS, price="39.00")
                results = await neo.orders.place_many([request] * count)
                orders += [result for result in results if isinstance(result, Order)]
            case ("modify", which, quantity, price) if which < len(orders):
                await neo.orders.modify(orders[which], quantity=quantity, price=price / 100)
            case ("cancel", which) if which < len(orders):
                await neo.orders.cancel(orders[which])
            case ("print", price):
                exchange.market.print_price(Segment.NSE_CM, TOKEN, price)
            case ("wait", seconds):
                await asyncio.sleep(seconds)
            case ("disturb", share):
                exchange.set_faults(Faults(**dict.fromkeys(FEED_FAULTS, share / 3)))
            case ("drop",):
                exchange.drop_connections("orders")

    async def run() -> None:
        async with exchange_of() as exchange, client_of(exchange, risk=limits) as neo:
            auditor, orders = Auditor(exchange, limits), list[Order]()
            for action in programme:
                with contextlib.suppress(NeoError):
                    await act(exchange, neo, orders, action)
                auditor.look()
            requests = await paths(exchange)
            assert requests.count(PLACE) >= len(exchange.market.ledger)
            assert neo._guard is not None
            assert not neo._guard._placing
            assert not +neo._guard._reserved

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


@in_virtual_time
async def test_without_limits_there_is_no_guard() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_orders=False) as neo:
        assert neo._guard is None
        await neo.orders.place(*BUY, 10, **MIS)
        assert isinstance(neo.market_feed(), MarketFeed)
        assert not neo.portfolio.live.is_started


# --- what is not known ------------------------------------------------------------------------

POSITIONS = "/neo/portfolio/v2/positions"
NOWHERE = "ws://127.0.0.1:9/realtime"


@contextlib.asynccontextmanager
async def blind(**limits: Any) -> AsyncIterator[tuple[Exchange, NeoClient, NeoClient, set[str]]]:
    """A client whose order feed finds nobody, another application of the same account, and the
    paths whose answers are lost on the way to the first."""
    lost: set[str] = set()
    async with (
        exchange_of() as exchange,
        fault_proxy(
            exchange, lambda path, *_: Reply("busy", 503) if path in lost else None
        ) as endpoints,
        client_of(
            exchange,
            endpoints=msgspec.structs.replace(endpoints, realtime=NOWHERE),
            risk=RiskLimits(**limits),
        ) as neo,
    ):
        await asyncio.sleep(31)  # until the next code
        async with client_of(exchange) as app:
            yield exchange, neo, app, lost


@pytest.mark.parametrize(
    ("limits", "kind"),
    [({"max_net_position": 10}, PositionLimit), ({"max_open_orders": 1}, OpenOrdersLimit)],
)
@in_virtual_time
async def test_without_the_order_feed_orders_of_others_are_read_and_counted(
    limits: dict[str, Any], kind: type[RiskRefused]
) -> None:
    async with blind(**limits) as (_, neo, app, _):
        theirs = await app.orders.place(*BUY, 10, **MIS)
        await asyncio.sleep(7)
        with pytest.raises(kind) as caught:
            await neo.orders.place(*BUY, 1, **MIS)
        assert caught.value.value is not None
        await app.orders.cancel(theirs)
        await asyncio.sleep(7)
        await neo.orders.place(*BUY, 1, **MIS)


@in_virtual_time
async def test_without_the_order_feed_positions_of_others_are_read_and_counted() -> None:
    async with blind(max_net_position=10) as (exchange, neo, app, _):
        order = await app.orders.place(*BUY, 10, **MIS)
        await trade(exchange, 3900)
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        await asyncio.sleep(7)
        with pytest.raises(PositionLimit, match="11 units"):
            await neo.orders.place(*BUY, 1, **MIS)


@pytest.mark.parametrize(
    ("limits", "path", "kind", "message"),
    [
        ({"max_open_orders": 9}, BOOK, OpenOrdersLimit, "the open orders of the account were last"),
        ({"max_net_position": 99}, BOOK, PositionLimit, "the open orders of the account were last"),
        (
            {"max_net_position": 99},
            POSITIONS,
            PositionLimit,
            "the positions of the account were last",
        ),
    ],
)
@in_virtual_time
async def test_without_the_order_feed_and_the_report_a_limit_refuses_until_it_is_read_again(
    limits: dict[str, Any], path: str, kind: type[RiskRefused], message: str
) -> None:
    async with blind(**limits) as (exchange, neo, _, lost):
        await neo.orders.place(*BUY, 1, **MIS)
        lost.add(path)
        await asyncio.sleep(OLDEST_FACTS / 2)
        await neo.orders.place(*BUY, 1, **MIS)  # a report of just now is good
        await asyncio.sleep(OLDEST_FACTS)
        before = await sent(exchange)
        with pytest.raises(kind, match=message) as caught:
            await neo.orders.place(*BUY, 1, **MIS)
        assert caught.value.value is None
        assert await sent(exchange) == before
        assert any(message in problem for problem in neo.health().problems)
        lost.clear()
        await asyncio.sleep(30)
        await neo.orders.place(*BUY, 1, **MIS)
        assert not any(message in problem for problem in neo.health().problems)


@in_virtual_time
async def test_an_ordinary_reconnect_refuses_nothing() -> None:
    async with desk(max_net_position=1000, max_open_orders=1000, max_daily_loss=1000) as (
        exchange,
        neo,
    ):
        await neo.order_feed.until_live()
        await asyncio.sleep(1000)  # in which nothing happens
        for _ in range(10):
            exchange.drop_connections("orders")
            for _ in range(10):
                await neo.orders.place(*BUY, 1, **MIS)
                await asyncio.sleep(0.1)


@in_virtual_time
async def test_an_order_whose_messages_are_lost_is_counted_within_a_minute() -> None:
    async with desk(max_open_orders=1) as (exchange, neo):
        await neo.order_feed.until_live()
        await asyncio.sleep(31)
        exchange.set_faults(Faults(feed_lose=1.0))
        async with client_of(exchange) as app:
            await app.orders.place(*BUY, 1, **MIS)
        await asyncio.sleep(READ_EVERY + 6)
        assert neo.order_feed.reconnects == 0
        with pytest.raises(OpenOrdersLimit):
            await neo.orders.place(*BUY, 1, **MIS)


def spoilt_positions(**fields: Any) -> Reply:
    row = {
        "exSeg": "nse_cm", "trdSym": SYMBOL, "tok": TOKEN, "prod": "MIS", "flBuyQty": "10",
        "flSellQty": "0", "buyAmt": "390.00", "sellAmt": "0.00", "ltp": "39.00",
        "cfBuyQty": "0", "cfSellQty": "0", "cfBuyAmt": "0.00", "cfSellAmt": "0.00",
    }  # fmt: skip
    return Reply({"stat": "ok", "stCode": 200, "data": [{**row, **fields}]})


@contextlib.asynccontextmanager
async def reporting(reply: Reply, **limits: Any) -> AsyncIterator[NeoClient]:
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: reply if path == POSITIONS else None) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(**limits)) as neo,
    ):
        yield neo


@pytest.mark.parametrize("text", ["NaN", "inf", "-Infinity"])
@pytest.mark.parametrize("field", ["buyAmt", "sellAmt", "multiplier", "prcNum", "cfBuyAmt"])
@in_virtual_time
async def test_a_number_of_a_position_that_is_none_makes_the_loss_unknown(
    field: str, text: str
) -> None:
    traded = {"flSellQty": "4", "sellAmt": "160.00", "cfBuyQty": "5", "cfBuyAmt": "190.00"}
    async with reporting(spoilt_positions(**{**traded, field: text}), max_daily_loss=10_000) as neo:
        with pytest.raises(LossLimit, match="the loss of the day is not known") as caught:
            await neo.orders.place(*BUY, 1, **MIS)
        assert caught.value.value is None
        (position,) = await neo.portfolio.positions()
        assert position.mtm_pnl is None
        assert position.unknown_reason


@in_virtual_time
async def test_a_position_is_counted_whatever_blanks_and_case_its_report_has() -> None:
    odd = spoilt_positions(trdSym=f" {SYMBOL.lower()} ", exSeg="NSE_CM", prod="mis")
    async with reporting(odd, max_net_position=10) as neo:
        with pytest.raises(PositionLimit, match="11 units"):
            await neo.orders.place(*BUY, 1, **MIS)
        await neo.orders.place(*SELL, 20, **MIS)


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
@in_virtual_time
async def test_an_open_order_that_is_not_described_in_full_counts_as_the_worst(
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flBuyQty": "1,0"}, "a quantity of the positions in ITBEES-EQ cannot be read"),
        ({"cfSellQty": "NaN"}, "a quantity of the positions in ITBEES-EQ cannot be read"),
        ({"exSeg": None}, "or the instrument of a position that may be in it"),
        ({"trdSym": {}}, "or the instrument of a position that may be in it"),
    ],
)
@in_virtual_time
async def test_a_position_that_cannot_be_read_in_full_refuses_orders_that_may_add_to_it(
    fields: dict[str, Any], message: str
) -> None:
    async with reporting(spoilt_positions(**fields), max_net_position=10) as neo:
        with pytest.raises(PositionLimit, match=message) as caught:
            await neo.orders.place(*BUY, 1, **MIS)
        assert caught.value.value is None


@pytest.mark.parametrize("limit", ["max_net_position", "max_open_orders"])
@in_virtual_time
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


@in_virtual_time
async def test_an_old_tick_is_no_last_price_while_the_market_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_open = True
    monkeypatch.setattr(neo_async.risk.engine, "is_in_session", lambda segment: is_open)
    limits: dict[str, Any] = {"max_price_deviation_pct": 5, "max_order_notional": 1_000_000}
    async with desk(**limits) as (exchange, neo), ticking(exchange, neo) as feed:
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


@pytest.mark.parametrize("is_trapping", [True, False])
@in_virtual_time
async def test_limits_count_in_whatever_decimal_context_the_program_has(is_trapping: bool) -> None:
    async with (
        desk(max_order_notional="389999.99", max_price_deviation_pct=2, max_daily_loss=1000) as (
            exchange,
            neo,
        ),
        ticking(exchange, neo),
    ):
        with decimal.localcontext() as context:
            context.prec = 3
            context.rounding = decimal.ROUND_UP
            for signal in context.traps:
                context.traps[signal] = is_trapping
            with pytest.raises(PriceLimit) as away:
                await neo.orders.place(*BUY, 1, price="39.79", product=Product.MIS)
            assert away.value.value == Decimal("2.0256")
            order = await neo.orders.place(*BUY, 1, price="38.30", product=Product.MIS)
            with pytest.raises(PriceLimit):
                await neo.orders.modify(order, price="39.79")
            with pytest.raises(ValueLimit) as caught:
                await neo.orders.place(*BUY, 10_000, **MIS)
            assert caught.value.value == 390_000
            await neo.orders.place(*BUY, 9_999, **MIS)


@in_virtual_time
async def test_a_larger_quantity_counts_until_the_book_shows_what_became_of_it() -> None:
    async with desk(max_net_position=100) as (exchange, neo):
        await neo.order_feed.until_live()
        order = await neo.orders.place(*BUY, 10, **MIS)
        exchange.set_faults(Faults(feed_lose=1.0))
        await neo.orders.modify(order, quantity=90)
        order.quantity = 10  # as a message from before the change would have it
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 11, **MIS)
        await asyncio.sleep(1)
        assert neo._guard is not None
        assert not neo._guard._changing
        await neo.orders.place(*BUY, 10, **MIS)


@in_virtual_time
async def test_a_change_that_was_not_sent_takes_no_room() -> None:
    async with desk(max_net_position=100) as (_, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        assert neo._guard is not None
        for quantity in (90, 100):
            form = modify_form_of(order, quantity)
            reservation = neo._guard.admit_change(order, form)
            with pytest.raises(PositionLimit):
                await neo.orders.place(*BUY, 91, **MIS)
            reservation.was_sent = False
            reservation.end()
        assert not neo._guard._changing
        await neo.orders.place(*BUY, 90, **MIS)


def modify_form_of(order: Order, quantity: int) -> Any:
    return modify_form(
        number=order.number,
        side=order.side,
        product=order.product,
        segment=order.segment,
        order_type=order.order_type,
        quantity=quantity,
        filled_quantity=0,
        price="39.00",
        trigger=None,
        validity=order.validity,
        disclosed_quantity=0,
        amo=False,
    )


@in_virtual_time
async def test_two_changes_of_one_order_count_with_the_largest_until_both_are_answered() -> None:
    async with desk(max_net_position=100) as (_, neo):
        order = await neo.orders.place(*BUY, 10, **MIS)
        guard = neo._guard
        assert guard is not None
        larger = guard.admit_change(order, modify_form_of(order, 80))
        smaller = guard.admit_change(order, modify_form_of(order, 5))
        smaller.end()
        await asyncio.sleep(15)  # the book is read, and the larger one is still on its way
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 21, **MIS)
        larger.end()
        await asyncio.sleep(20)  # it has had no effect
        await neo.orders.place(*BUY, 90, **MIS)


@in_virtual_time
async def test_an_unknown_outcome_keeps_its_room_until_it_is_known_or_the_client_logs_out() -> None:
    dropped: set[str] = set()
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda *_: None, dropped=dropped) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(max_net_position=10)) as neo,
    ):
        guard = neo._guard
        assert guard is not None
        dropped.add(PLACE)
        with pytest.raises(OutcomeUnknown):
            await neo.orders.place(*BUY, 10, **MIS, wait_for_outcome=False)
        await asyncio.sleep(20)
        with pytest.raises(PositionLimit):
            await neo.orders.place(*BUY, 1, **MIS)
        await asyncio.sleep(20)
        assert not guard._reserved
        with pytest.raises(OutcomeUnknown):
            await neo.orders.place(*BUY, 10, **MIS, wait_for_outcome=False)
        assert guard._placing == 1
        await neo.logout()
        await asyncio.sleep(0)
        assert not guard._reserved
        assert not guard._placing


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@in_virtual_time
async def test_a_factor_that_is_no_number_makes_the_value_unknown(value: float) -> None:
    async with desk(max_order_notional=1_000_000) as (_, neo):
        odd = Instrument(Segment.MCX_FO, "4711", "CRUDEOIL", "CRUDEOIL", price_numerator=value)
        neo.instruments.find = lambda *_: odd  # type: ignore[method-assign]
        with pytest.raises(RiskRefused, match="how many rupees a unit"):
            neo._guard._check_value(  # type: ignore[union-attr]
                Asked("mcx_fo", "CRUDEOIL", "B", "NRML", "L", 1, Decimal(5000), Decimal(0))
            )


@in_virtual_time
async def test_a_fill_counts_that_only_the_book_tells_of_an_order_whose_answer_was_lost() -> None:
    cut: dict[str, Any] = {}
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda path, *_: cut.get(path)) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(max_net_position=10)) as neo,
    ):
        await neo.order_feed.until_live()
        await current(neo)
        exchange.set_faults(Faults(feed_lose=1.0))
        exchange.market.print_price(Segment.NSE_CM, TOKEN, 3900)
        cut[PLACE] = Cut()
        await trade_soon(exchange, neo)
        with pytest.raises(PositionLimit, match="11 units"):
            await neo.orders.place(*BUY, 1, **MIS)


async def trade_soon(exchange: Exchange, neo: NeoClient) -> None:
    """An order whose answer is lost and that is filled before anything of it is known here."""
    placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
    await until(lambda: exchange.market.ledger)
    await trade(exchange, 3890)
    order = await placing
    assert order.status is OrderStatus.COMPLETE
