"""Positions, holdings, funds and margins over real sockets, against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neo_async import (
    NeoClient,
    NeoError,
    OrderType,
    Position,
    Product,
    Rejected,
    Segment,
    Side,
)
from neo_async.exchange import Exchange
from tests.clients import client_of, exchange_of, paths
from tests.contracts import NIFTY_CALL, TCS_FUTURE
from tests.fake_servers import CREDENTIALS, Reply, scripted_broker

PAYLOADS = Path(__file__).parents[1] / "payloads"

NEWER = "/portfolio/v2/positions"
OLDER = "/quick/user/positions"
HOLDINGS = "/portfolio/v1/holdings"
LAST_PRICE = "/script-details/1.0/quotes/neosymbol/nse_cm|19084/ltp"


def documented(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PAYLOADS / f"{name}.json").read_text())
    return content


async def trade(
    neo: NeoClient,
    exchange: Exchange,
    symbol: str,
    side: Side,
    quantity: int,
    paise: int,
    *,
    product: Product,
    segment: Segment = Segment.NSE_CM,
) -> None:
    """Let an order rest at a price, and a trade print there."""
    await neo.orders.place(
        segment, symbol, side, quantity, product=product, price=f"{paise / 100:.2f}"
    )
    listing = exchange.market.listing(segment, symbol)
    assert listing is not None
    exchange.market.print_price(segment, listing.token, paise)


async def position_of(neo: NeoClient) -> Position:
    (position,) = await neo.portfolio.positions()
    return position


# --- positions --------------------------------------------------------------------------------


async def test_buys_and_sells_average_and_earn_as_documented() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        assert await neo.portfolio.positions() == []

        await trade(neo, exchange, "SBIN-EQ", Side.BUY, 100, 970_00, product=Product.MIS)
        await trade(neo, exchange, "SBIN-EQ", Side.BUY, 50, 964_00, product=Product.MIS)
        exchange.market.print_price(Segment.NSE_CM, "3045", 975_50)
        position = await position_of(neo)
        assert (position.symbol, position.token, position.product) == ("SBIN-EQ", "3045", "MIS")
        assert (position.net_quantity, position.average_price) == (150, 968.0)
        assert (position.last_price, position.realised) == (975.5, 0.0)
        # 150 x (975.50 - 968.00)
        assert position.pnl == position.unrealised == position.mtm_pnl == 1125.0

        await trade(neo, exchange, "SBIN-EQ", Side.SELL, 75, 980_00, product=Product.MIS)
        position = await position_of(neo)
        assert (position.net_quantity, position.average_price) == (75, 968.0)
        # 75 x (980 - 968), once earned and once not yet
        assert (position.realised, position.unrealised, position.pnl) == (900.0, 900.0, 1800.0)

        # Through zero: what is short now counts from all of its sells.
        await trade(neo, exchange, "SBIN-EQ", Side.SELL, 125, 984_00, product=Product.MIS)
        position = await position_of(neo)
        # (75 x 980 + 125 x 984) / 200
        assert (position.net_quantity, position.average_price) == (-50, 982.5)
        # 150 x (982.50 - 968), and 50 x (982.50 - 984)
        assert (position.realised, position.unrealised) == (2175.0, -75.0)

        await trade(neo, exchange, "SBIN-EQ", Side.BUY, 50, 982_00, product=Product.MIS)
        position = await position_of(neo)
        assert (position.net_quantity, position.average_price) == (0, 0.0)
        # 196,500 sold less 194,300 bought
        assert (position.realised, position.unrealised, position.pnl) == (2200.0, 0.0, 2200.0)
        assert position.unknown_reason == ""


async def test_products_of_one_share_are_positions_of_their_own() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await trade(neo, exchange, "SBIN-EQ", Side.BUY, 10, 970_00, product=Product.CNC)
        await trade(neo, exchange, "SBIN-EQ", Side.SELL, 20, 972_00, product=Product.MIS)
        found = {row.product: row for row in await neo.portfolio.positions()}
        assert (found["CNC"].net_quantity, found["CNC"].average_price) == (10, 970.0)
        assert (found["MIS"].net_quantity, found["MIS"].average_price) == (-20, 972.0)
        assert found["CNC"].pnl == 20.0
        assert found["MIS"].pnl == 0.0


async def test_a_future_counts_in_units() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await trade(
            neo,
            exchange,
            "TCS26DECFUT",
            Side.SELL,
            450,
            2130_00,
            product=Product.NRML,
            segment=Segment.NSE_FO,
        )
        exchange.market.print_price(Segment.NSE_FO, TCS_FUTURE, 2125_00)
        position = await position_of(neo)
        assert (position.net_quantity, position.average_price, position.pnl) == (
            -450,
            2130.0,
            2250.0,
        )
        assert position.row.lot_size == 225
        assert str(position.row.expiry) == "2026-12-29"


async def test_a_sale_from_the_holding_needs_nothing_carried() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await trade(neo, exchange, "ITBEES-EQ", Side.SELL, 20, 39_60, product=Product.CNC)
        position = await position_of(neo)
        assert (position.net_quantity, position.average_price, position.pnl) == (-20, 39.6, 0.0)
        assert HOLDINGS not in [path.removeprefix("/neo") for path in await paths(exchange)]


async def test_without_the_newer_path_the_older_is_asked() -> None:
    not_found = {"code": "404", "type": "Status report", "message": "Not Found"}
    for missing in (
        Reply(not_found, 404),
        Reply("<h1>404</h1>", 404, "text/html"),
        Reply("", 405),
    ):
        async with scripted_broker() as broker:
            broker.script(NEWER, missing)
            broker.script(OLDER, Reply(documented("positions_quick")))
            async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
                positions = await neo.portfolio.positions()
            assert broker.paths()[-2:] == [NEWER, OLDER]
            assert len(positions) == len(documented("positions_quick")["data"])
            for position in positions:
                assert position.net_quantity == position.row.quantity
                # The older path has no last prices, and says so.
                if position.net_quantity:
                    assert (position.pnl, position.mtm_pnl) == (None, None)
                    assert "no last price" in position.unknown_reason


async def test_another_failure_of_the_newer_path_is_raised() -> None:
    async with scripted_broker() as broker:
        broker.script(NEWER, Reply({"stat": "Not_Ok", "errMsg": "internal", "stCode": 500}, 500))
        broker.script(OLDER, Reply(documented("positions_quick")))
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            with pytest.raises(NeoError, match="internal"):
                await neo.portfolio.positions()
        assert OLDER not in broker.paths()


async def test_the_documented_sample_has_the_documented_worth() -> None:
    async with scripted_broker() as broker:
        broker.script(NEWER, Reply(documented("positions_v2")))
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            future = next(p for p in await neo.portfolio.positions() if p.symbol == "TCS26JULFUT")
        assert (future.net_quantity, future.average_price) == (225, 2112.0)
        assert future.pnl == future.mtm_pnl == 1125.0


CARRIED = {
    "exSeg": "nse_cm",
    "trdSym": "ITBEES-EQ",
    "tok": "19084",
    "prod": "CNC",
    "cfBuyQty": "45",
    "cfBuyAmt": "1771.20",
    "flBuyQty": "5",
    "buyAmt": "200.00",
    "flSellQty": "10",
    "sellAmt": "401.00",
    "ltp": "40.50",
}


async def positions_from(row: dict[str, Any], holdings: Any) -> tuple[Position, list[str]]:
    async with scripted_broker() as broker:
        broker.script(NEWER, Reply({"stat": "ok", "stCode": 200, "data": [row]}))
        broker.script(HOLDINGS, holdings)
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            position = await position_of(neo)
        return position, broker.paths()[2:]


async def test_carried_shares_count_at_the_average_price_of_the_holding() -> None:
    position, asked = await positions_from(CARRIED, Reply(documented("holdings")))
    assert asked == [NEWER, HOLDINGS]
    assert position.net_quantity == 40
    # (45 x 38.7162 + 200.00) / 50, to two decimals
    assert position.average_price == 38.84
    cost = 45 * 38.7162 + 200.00
    assert position.pnl == pytest.approx(401.00 - cost + 40 * 40.50)
    # Ten of it are sold, at 40.10.
    assert position.realised == pytest.approx(10 * (40.10 - cost / 50))
    # The day counts from the previous close.
    assert position.mtm_pnl == pytest.approx(401.00 - (200.00 + 1771.20) + 40 * 40.50)
    assert position.unknown_reason == ""


async def test_carried_shares_without_a_holding_have_no_invented_cost() -> None:
    for holdings in (Reply({"data": []}), Reply({"data": None})):
        position, _ = await positions_from(CARRIED, holdings)
        assert (position.average_price, position.pnl, position.realised) == (None, None, None)
        assert position.mtm_pnl == pytest.approx(401.00 - (200.00 + 1771.20) + 40 * 40.50)
        assert "no holding with token '19084'" in position.unknown_reason
        assert "45 units were carried" in position.unknown_reason


async def test_the_instrument_token_of_a_holding_joins_nothing() -> None:
    holding = {**documented("holdings")["data"][0], "instrumentToken": 19084}
    holding["exchangeIdentifier"] = "18974"
    position, _ = await positions_from(CARRIED, Reply({"data": [holding]}))
    assert position.average_price is None


@pytest.mark.parametrize("price", ["0", "0.00", "", "--", "NA", "n/a"])
async def test_a_last_price_that_is_none_makes_the_profit_unknown(price: str) -> None:
    row = {**CARRIED, "cfBuyQty": "0", "cfBuyAmt": "0", "flBuyQty": "20", "ltp": price}
    position, asked = await positions_from(row, Reply({"data": []}))
    assert asked == [NEWER, LAST_PRICE]  # and the quote is refused
    assert (position.net_quantity, position.average_price) == (10, 10.0)
    assert (position.last_price, position.pnl, position.mtm_pnl) == (None, None, None)
    assert position.unknown_reason == "P&L: there is no last price"


async def test_a_holding_of_another_exchange_is_not_that_of_the_position() -> None:
    holding = {**documented("holdings")["data"][0], "exchangeSegment": "bse_cm"}
    position, _ = await positions_from(CARRIED, Reply({"data": [holding]}))
    assert (position.average_price, position.pnl) == (None, None)
    assert "no holding with token '19084'" in position.unknown_reason


@pytest.mark.parametrize("ltp", ["NaN", "inf", "-Infinity"])
async def test_a_last_price_that_is_no_number_is_quoted(ltp: str) -> None:
    row = {**CARRIED, "cfBuyQty": "0", "cfBuyAmt": "0", "flBuyQty": "20", "ltp": ltp}
    position, asked = await positions_from(row, Reply({"data": []}))
    assert asked == [NEWER, LAST_PRICE]
    assert (position.last_price, position.pnl) == (None, None)
    assert position.unknown_reason == "P&L: there is no last price"


@pytest.mark.parametrize(
    ("field", "text"), [("buyAmt", "NaN"), ("multiplier", "inf"), ("sellAmt", "Infinity")]
)
async def test_an_amount_that_is_no_number_leaves_the_position_without_worth(
    field: str, text: str
) -> None:
    row = {**CARRIED, "cfBuyQty": "0", "cfBuyAmt": "0", "flBuyQty": "20", field: text}
    position, _ = await positions_from(row, Reply({"data": []}))
    assert (position.net_quantity, position.average_price) == (10, None)
    assert (position.realised, position.pnl, position.mtm_pnl) == (None, None, None)
    assert position.unknown_reason


@pytest.mark.parametrize("ltp", ["41.2500", "0.0000", "", None])
async def test_last_prices_that_the_report_lacks_are_quoted_in_one_call(ltp: str | None) -> None:
    fresh = {**CARRIED, "cfBuyQty": "0", "cfBuyAmt": "0", "flBuyQty": "20", "ltp": "0.00"}
    priced = {**fresh, "trdSym": "TCS-EQ", "tok": "11536", "ltp": "2100"}
    other = {**fresh, "trdSym": "SBIN-EQ", "tok": "3045"}
    tokenless = {**fresh, "trdSym": "ITC-EQ", "tok": "NA"}
    path = LAST_PRICE.replace("19084", "19084,nse_cm|3045")
    quotes = [{"exchange": "nse_cm", "exchange_token": "19084", "ltp": ltp}]
    async with scripted_broker() as broker:
        broker.script(NEWER, Reply({"stat": "ok", "data": [fresh, priced, other, tokenless]}))
        broker.script(path, Reply(json.dumps(quotes)))
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            quoted, own, unknown, nameless = await neo.portfolio.positions()
            assert broker.paths()[2:] == [NEWER, path]
            assert own.last_price == 2100.0
            for without in (unknown, nameless):
                assert (without.last_price, without.pnl) == (None, None)
            if ltp == "41.2500":
                assert (quoted.last_price, quoted.mtm_pnl) == (41.25, 401.0 - 200.0 + 10 * 41.25)
                assert quoted.unknown_reason == ""
            else:
                assert (quoted.last_price, quoted.pnl) == (None, None)

            await neo.portfolio.positions(quotes=False)
            assert broker.paths()[4:] == [NEWER]


# --- holdings, funds, margins -----------------------------------------------------------------


async def test_holdings_are_typed() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        fund, software, oil = await neo.portfolio.holdings()
        assert (fund.symbol, fund.quantity, fund.average_price) == ("ITBEES", 45, 38.7162)
        assert (fund.token, fund.instrument_token) == ("19084", 19085)
        assert (fund.cost, fund.market_value, fund.unrealised) == (1742.229, 1773.0, 30.771)
        assert (software.symbol, software.sellable_quantity) == ("TCS", 100)
        assert oil.segment == "nse_cm"
        await neo.orders.place(
            Segment.NSE_CM, "TCS-EQ", Side.SELL, 60, product=Product.CNC, price="2120"
        )
        assert (await neo.portfolio.holdings())[1].sellable_quantity == 40
        async with client_of(exchange, credentials=exchange.accounts[1]) as other:
            assert await other.portfolio.holdings() == []


async def test_funds_follow_orders_and_fills() -> None:
    async with exchange_of(cash="50000.00") as exchange, client_of(exchange) as neo:
        limits = await neo.portfolio.limits()
        assert (limits.available, limits.margin_used) == (50_000.0, 0.0)
        assert (limits.collateral_value, limits.category) == (50_000.0, "CLIENT_SPECIAL")

        bought = await neo.orders.place(
            Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 100, product=Product.CNC, price="39.00"
        )
        assert (await neo.portfolio.limits()).available == 46_100.0  # blocked while it rests
        await neo.orders.cancel(bought)
        assert (await neo.portfolio.limits()).available == 50_000.0

        await trade(neo, exchange, "SBIN-EQ", Side.BUY, 100, 970_00, product=Product.MIS)
        limits = await neo.portfolio.limits()
        assert (limits.margin_used, limits.available) == (19_400.0, 30_600.0)  # a fifth
        assert limits.used_percent == 38.8
        await trade(neo, exchange, "SBIN-EQ", Side.SELL, 100, 975_00, product=Product.MIS)
        limits = await neo.portfolio.limits()
        assert (limits.margin_used, limits.realised_mtm, limits.available) == (0.0, 500.0, 50_500.0)
        await trade(neo, exchange, "TCS-EQ", Side.SELL, 10, 2120_00, product=Product.CNC)
        limits = await neo.portfolio.limits()
        assert (limits.available, limits.amounts["CncSellcrdPresent"]) == (71_700.0, 21_200.0)


async def test_the_margin_of_an_order_is_what_it_would_block() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        margin = await neo.portfolio.margin(
            Segment.NSE_CM, "19084", Side.BUY, 100, product=Product.CNC, price="39.00"
        )
        assert (margin.sufficient, margin.order, margin.shortfall) == (True, 3900.0, 0.0)
        await neo.orders.place(
            Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 100, product=Product.CNC, price="39.00"
        )
        assert (await neo.portfolio.limits()).margin_used == margin.order

        margin = await neo.portfolio.margin(
            Segment.NSE_CM, "19084", Side.BUY, 100_000, product=Product.CNC, price=39
        )
        assert (margin.sufficient, margin.used, margin.order) == (False, 3900.0, 3_900_000.0)
        assert (margin.required, margin.shortfall) == (3_903_900.0, 2_903_900.0)

        stop = await neo.portfolio.margin(
            Segment.NSE_CM,
            "3045",
            Side.BUY,
            10,
            product=Product.MIS,
            order_type=OrderType.SL,
            price="980",
            trigger="978",
        )
        assert stop.order == 1960.0
        market = await neo.portfolio.margin(
            Segment.NSE_FO,
            NIFTY_CALL,
            Side.BUY,
            65,
            product=Product.NRML,
            order_type=OrderType.MARKET,
        )
        assert market.order == 65 * 429.80  # the premium at 2 % above 421.40, on the tick
        with pytest.raises(Rejected, match="invalid token '1'"):
            await neo.portfolio.margin(
                Segment.NSE_CM, "1", Side.BUY, 1, product=Product.CNC, price=39
            )
