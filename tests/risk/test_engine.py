"""Pre-trade checks: an order that exceeds a limit is refused before anything is sent, and the
exchange never holds more than the limits allow."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async import (
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
from neo_async.model.answer import Answer
from neo_async.risk.engine import MAX_REPORT_AGE_SECONDS, REPORT_INTERVAL_SECONDS
from neo_async.transport.http import HttpClient
from tests.clients import BOOK, PLACE, client_of, exchange_of, paths
from tests.fake_servers import Reply, fault_proxy
from tests.risk.trading import (
    BUY,
    ITBEES,
    MIS,
    POSITIONS,
    SELL,
    TOKEN,
    current,
    limited,
    requests,
    requests_sent,
    ticking,
    trade,
    until,
)
from tests.simulation.virtual_time import VirtualTimeLoop

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
def test_invalid_limits_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        RiskLimits(**{field: value})


# --- limits of one order ----------------------------------------------------------------------


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
        "the price deviation is not known without the last price of ITBEES-EQ: subscribe it",
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
async def test_an_order_that_exceeds_a_limit_is_refused_and_not_sent(
    limits: dict[str, Any],
    order: dict[str, Any],
    kind: type[RiskRefused],
    value: object,
    message: str,
) -> None:
    async with limited(**limits) as (exchange, neo):
        with pytest.raises(kind, match=message) as caught:
            await neo.orders.place(*BUY, 100, **{**MIS, **order})
        assert caught.value.value == value
        assert caught.value.limit == next(iter(limits.values()))
        assert await requests_sent(exchange) == 0


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
    async with limited(**limits) as (exchange, neo), ticking(exchange, neo, 4000):
        await neo.orders.place(*BUY, 100, **MIS)
        assert len(exchange.market.ledger) == 1


async def test_prices_are_compared_with_the_last_tick() -> None:
    async with (
        limited(max_price_deviation_pct=2, max_order_notional=4000) as (exchange, neo),
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
        # A sale counts at the market's price, however low its limit is.
        with pytest.raises(ValueLimit, match=r"worth 4017.00 rupees"):
            await place(*SELL, 103, product=Product.MIS, price="38.50")
        await place(*BUY, 102, **market)
        # Without a subscription there is no last price.
        await feed.unsubscribe([f"nse_cm|{TOKEN}"], level=Level.LITE)
        with pytest.raises(PriceLimit, match="subscribe it on a market feed"):
            await place(*BUY, 10, **MIS)


@pytest.mark.parametrize("is_trapping", [True, False])
async def test_the_decimal_context_of_the_program_does_not_matter(is_trapping: bool) -> None:
    async with (
        limited(max_order_notional="389999.99", max_price_deviation_pct=2, max_daily_loss=1000) as (
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


async def test_without_limits_there_is_no_risk_engine() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        assert neo._guard is None
        await neo.orders.place(*BUY, 10, **MIS)
        assert isinstance(neo.market_feed(), MarketFeed)
        assert not neo.portfolio.live.is_started


# --- limits of the account --------------------------------------------------------------------


async def test_placements_count_for_a_minute_after_they_may_have_arrived() -> None:
    async with limited(max_orders_per_minute=2) as (_, neo):
        first = await neo.orders.place(*BUY, 1, **MIS)
        await asyncio.sleep(30)
        with pytest.raises(Rejected):  # an order that the broker refuses counts as well
            await neo.orders.place(Segment.NSE_CM, "NOSUCH-EQ", Side.BUY, 1, **MIS)
        with pytest.raises(OrderRateLimit, match="3 orders within a minute"):
            await neo.orders.place(*BUY, 1, **MIS)
        await neo.orders.modify(first, price="38.90")
        await neo.orders.cancel(first)
        await asyncio.sleep(30)
        await neo.orders.place(*BUY, 1, **MIS)
        with pytest.raises(OrderRateLimit):
            await neo.orders.place(*BUY, 1, **MIS)


async def test_open_orders_of_other_applications_count() -> None:
    async with exchange_of() as exchange, client_of(exchange) as other:
        external = await other.orders.place(*BUY, 1, **MIS)
        await asyncio.sleep(30)
        async with client_of(exchange, risk=RiskLimits(max_open_orders=2)) as neo:
            mine = await neo.orders.place(*BUY, 1, **MIS)
            with pytest.raises(OpenOrdersLimit, match="max_open_orders=2: 3 orders would be open"):
                await neo.orders.place(*BUY, 1, **MIS)
            await neo.orders.cancel(mine)
            await mine.wait(timeout=5)
            await neo.orders.place(*BUY, 1, **MIS)
            await neo.orders.cancel(external.number)
            await until(lambda: len(neo._engine.cache.open_orders) == 1)
            await neo.orders.place(*BUY, 1, **MIS)


async def test_a_net_position_counts_held_units_and_those_open_and_under_way() -> None:
    async with limited(max_net_position=100) as (exchange, neo):
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
        # A sale may close the position first, and then go as far short as the limit.
        sale = await place(*SELL, 190, price="39.10", product=Product.MIS)
        with pytest.raises(PositionLimit, match="101 units of ITBEES-EQ sold net"):
            await place(*SELL, 1 + 0, price="39.10", product=Product.MIS)
        await trade(exchange, 3910)
        await sale.wait(OrderStatus.COMPLETE, timeout=5)
        await place(*BUY, 200, **MIS)


async def test_the_daily_loss_refuses_new_positions_and_not_closing_ones() -> None:
    async with limited(max_daily_loss="50") as (exchange, neo), ticking(exchange, neo):
        order = await neo.orders.place(*BUY, 100, **MIS)
        await trade(exchange, 3900)
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        await current(neo)
        await trade(exchange, 3850)
        await until(
            lambda: neo._guard and neo._guard._prices.last_tick_price(f"nse_cm|{TOKEN}") == 38.5
        )
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


async def test_positions_without_a_tick_are_valued_by_the_positions_report() -> None:
    async with limited(max_daily_loss=50) as (exchange, neo):
        order = await neo.orders.place(*BUY, 100, **MIS)
        await trade(exchange, 3900)
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        await asyncio.sleep(5)
        await trade(exchange, 3849)
        await asyncio.sleep(20)
        with pytest.raises(LossLimit, match=r"a loss of 51.00 rupees"):
            await neo.orders.place(*BUY, 1, **MIS)


async def test_an_unknown_daily_loss_refuses_orders() -> None:
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
        with pytest.raises(LossLimit, match="live positions are not started"):
            await neo.orders.place(*BUY, 1, **MIS)


# --- orders that are placed together ----------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        ({"max_open_orders": 9}, OpenOrdersLimit),
        ({"max_orders_per_minute": 9}, OrderRateLimit),
        ({"max_net_position": 99}, PositionLimit),
    ],
)
async def test_orders_that_exceed_a_limit_together_are_refused_as_a_whole(
    limits: dict[str, Any], kind: type[RiskRefused]
) -> None:
    async with limited(**limits) as (exchange, neo):
        with pytest.raises(kind):
            await neo.orders.place_many(requests(10))
        assert await requests_sent(exchange) == 0
        results = await neo.orders.place_many(requests(9))
        assert [type(result) for result in results] == [Order] * 9


async def test_slices_are_checked_one_by_one() -> None:
    async with limited(max_open_orders=2, max_order_quantity=1000) as (exchange, neo):
        await neo.instruments.load(Segment.NSE_CM)
        freeze = neo.instruments[ITBEES].freeze_quantity or 0
        with pytest.raises(QuantityLimit):
            await neo.orders.place_sliced(OrderRequest(*BUY, freeze + 1, **MIS))
        assert await requests_sent(exchange) == 0


# --- changes ----------------------------------------------------------------------------------


async def test_a_change_is_checked_for_what_it_increases_and_for_its_prices() -> None:
    limits: dict[str, Any] = {
        "max_order_quantity": 100,
        "max_order_notional": 4000,
        "max_net_position": 150,
    }
    async with limited(max_price_deviation_pct=3, **limits) as (exchange, neo):
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
        # Without a tick, a change of the quantity alone passes the price check.
        await modify(order, quantity=70)
        assert order.quantity == 70


# --- every sequence of events -----------------------------------------------------------------


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
    """Checks the exchange's own records against the limits."""

    def __init__(self, exchange: Exchange, limits: RiskLimits) -> None:
        self.exchange = exchange
        self.limits = limits

    def check(self) -> None:
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
def test_the_exchange_never_holds_more_than_the_limits_allow(
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
                exchange.faults.set(Faults(**dict.fromkeys(FEED_FAULTS, share / 3)))
            case ("drop",):
                exchange.feeds.drop_connections("orders")

    async def run() -> None:
        async with exchange_of() as exchange, client_of(exchange, risk=limits) as neo:
            auditor, orders = Auditor(exchange, limits), list[Order]()
            for action in programme:
                with contextlib.suppress(NeoError):
                    await act(exchange, neo, orders, action)
                auditor.check()
            requests = await paths(exchange)
            assert requests.count(PLACE) >= len(exchange.market.ledger)
            assert neo._guard is not None
            assert not neo._guard._reservations.placing
            assert not +neo._guard._reservations.units

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


# --- reports that are out of date -------------------------------------------------------------


NOWHERE = "ws://127.0.0.1:9/realtime"


@contextlib.asynccontextmanager
async def without_order_feed(
    **limits: Any,
) -> AsyncIterator[tuple[Exchange, NeoClient, NeoClient, set[str]]]:
    """An exchange, a client whose order feed cannot connect, a client of another application on the
    same account, and the paths that are answered with 503 to the first client."""
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
        await asyncio.sleep(31)  # until the next TOTP code
        async with client_of(exchange) as app:
            yield exchange, neo, app, lost


@pytest.mark.parametrize(
    ("limits", "kind"),
    [({"max_net_position": 10}, PositionLimit), ({"max_open_orders": 1}, OpenOrdersLimit)],
)
async def test_without_the_order_feed_orders_of_other_applications_count(
    limits: dict[str, Any], kind: type[RiskRefused]
) -> None:
    async with without_order_feed(**limits) as (_, neo, app, _):
        external = await app.orders.place(*BUY, 10, **MIS)
        await asyncio.sleep(7)
        with pytest.raises(kind) as caught:
            await neo.orders.place(*BUY, 1, **MIS)
        assert caught.value.value is not None
        await app.orders.cancel(external)
        await asyncio.sleep(7)
        await neo.orders.place(*BUY, 1, **MIS)


async def test_without_the_order_feed_reports_are_read_every_five_seconds_though_answers_take_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = HttpClient.request

    async def slow_request(*arguments: Any, **options: Any) -> Answer:
        await asyncio.sleep(0.1)
        return await request(*arguments, **options)

    async with without_order_feed(max_net_position=10) as (exchange, _, _, _):
        monkeypatch.setattr(HttpClient, "request", slow_request)
        before = await paths(exchange)
        await asyncio.sleep(100)
        read = (await paths(exchange))[len(before) :]
        assert read.count(BOOK) >= 18
        assert read.count(POSITIONS) >= 18


async def test_without_the_order_feed_positions_of_other_applications_count() -> None:
    async with without_order_feed(max_net_position=10) as (exchange, neo, app, _):
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
async def test_without_the_order_feed_and_the_report_a_limit_refuses_until_the_report_is_read(
    limits: dict[str, Any], path: str, kind: type[RiskRefused], message: str
) -> None:
    async with without_order_feed(**limits) as (exchange, neo, _, lost):
        await neo.orders.place(*BUY, 1, **MIS)
        lost.add(path)
        await asyncio.sleep(MAX_REPORT_AGE_SECONDS / 2)
        await neo.orders.place(*BUY, 1, **MIS)  # the report is young enough
        await asyncio.sleep(MAX_REPORT_AGE_SECONDS)
        before = await requests_sent(exchange)
        with pytest.raises(kind, match=message) as caught:
            await neo.orders.place(*BUY, 1, **MIS)
        assert caught.value.value is None
        assert await requests_sent(exchange) == before
        assert any(message in problem for problem in neo.health().problems)
        lost.clear()
        await asyncio.sleep(30)
        await neo.orders.place(*BUY, 1, **MIS)
        assert not any(message in problem for problem in neo.health().problems)


async def test_an_ordinary_reconnect_refuses_nothing() -> None:
    async with limited(max_net_position=1000, max_open_orders=1000, max_daily_loss=1000) as (
        exchange,
        neo,
    ):
        await neo.order_feed.until_live()
        await asyncio.sleep(1000)  # in which nothing happens
        for _ in range(10):
            exchange.feeds.drop_connections("orders")
            for _ in range(10):
                await neo.orders.place(*BUY, 1, **MIS)
                await asyncio.sleep(0.1)


async def test_an_order_whose_messages_are_lost_is_counted_within_a_minute() -> None:
    async with limited(max_open_orders=1) as (exchange, neo):
        await neo.order_feed.until_live()
        await asyncio.sleep(31)
        exchange.faults.set(Faults(feed_lose=1.0))
        async with client_of(exchange) as app:
            await app.orders.place(*BUY, 1, **MIS)
        await asyncio.sleep(REPORT_INTERVAL_SECONDS + 6)
        assert neo.order_feed.reconnects == 0
        with pytest.raises(OpenOrdersLimit):
            await neo.orders.place(*BUY, 1, **MIS)
