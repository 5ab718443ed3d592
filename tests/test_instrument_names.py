"""Every call takes an instrument by any of its names, and a wrong name sends nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest

from neo_async import (
    InvalidField,
    InvalidOrder,
    Level,
    NeoClient,
    Order,
    OrderRequest,
    OrderType,
    Product,
    Segment,
    Side,
    UsageError,
)
from neo_async.exchange import Exchange
from neo_async.model.instruments import Instrument
from tests.clients import client_of, exchange_of, paths
from tests.feed_servers import until

KEY = "nse_cm|19084"
NAMES = [KEY, "nse_cm:19084", "nse_cm:ITBEES-EQ", "ITBEES-EQ", "ITBEES"]
TERMS: dict[str, Any] = {"product": Product.CNC, "price": "39.00"}


@contextlib.asynccontextmanager
async def trading(*segments: Segment, **settings: Any) -> AsyncIterator[tuple[Exchange, NeoClient]]:
    async with exchange_of(**settings) as exchange, client_of(exchange) as neo:
        if segments:
            await neo.instruments.load(*segments)
        yield exchange, neo


async def itbees(neo: NeoClient) -> Instrument:
    return neo.instruments[Segment.NSE_CM, "ITBEES-EQ"]


# --- orders -------------------------------------------------------------------------------------


async def test_orders_are_placed_by_any_name() -> None:
    async with trading(Segment.NSE_CM) as (exchange, neo):
        for name in (*NAMES, await itbees(neo)):
            order = await neo.orders.place(name, Side.BUY, 10, **TERMS)
            assert (order.segment, order.symbol, order.quantity) == ("nse_cm", "ITBEES-EQ", 10)
        order = await neo.orders.place("nse_cm", "ITBEES-EQ", "buy", 10, **TERMS)
        assert order.symbol == "ITBEES-EQ"
        assert len(exchange.market.ledger) == len(NAMES) + 2


async def test_place_downloads_nothing_and_says_what_to_load() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        before = await paths(exchange)
        for name in ("ITBEES-EQ", KEY):
            with pytest.raises(InvalidOrder, match=r"neo.instruments.load\(Segment.NSE_CM\) first"):
                await neo.orders.place(name, Side.BUY, 10, **TERMS)
        with pytest.raises(UsageError, match=r"needs \(segment, symbol, side, quantity\) or "):
            await neo.orders.place(Segment.NSE_CM, "ITBEES-EQ", Side.BUY, **TERMS)  # type: ignore[call-overload]
        assert await paths(exchange) == before


async def test_a_wrong_symbol_is_answered_with_the_right_one_and_not_sent() -> None:
    async with trading(Segment.NSE_CM) as (exchange, neo):
        calls = [
            lambda: neo.orders.place(Segment.NSE_CM, "ITBEES", Side.BUY, 10, **TERMS),
            lambda: neo.orders.place_many(
                [OrderRequest(Segment.NSE_CM, "ITBEES", Side.BUY, 10, Product.CNC, "39")]
            ),
            lambda: neo.orders.place_sliced(
                {"segment": "nse_cm", "symbol": "ITBEES", "side": "buy", "quantity": 10, **TERMS}
            ),
            lambda: neo.orders.place("ITBEEX", Side.BUY, 10, **TERMS),
            lambda: neo.orders.cancel_all(symbol="ITBEES"),
            lambda: neo.orders.cancel_all(instrument="ITBEEX"),
            lambda: neo.portfolio.margin(Segment.NSE_CM, "ITBEEX", "buy", 10, **TERMS),
            lambda: neo.market.quotes(["nse_cm:ITBEEX"]),
            lambda: neo.market.candles("nse_cm:ITBEEX", "D", start="2026-11-01"),
        ]
        for call in calls:
            with pytest.raises(InvalidField, match=r"did you mean ITBEES-EQ \(token 19084\)\?"):
                await call()
        with pytest.raises(InvalidField, match="nse_cm has no token 999 today"):
            await neo.market.candles("nse_cm|999", "D", start=date(2026, 11, 1))
        quotes = await neo.market.quotes(["nse_cm|999", KEY])
        assert dict(quotes.missing) == {"nse_cm|999": "nse_cm has no token 999 today"}
        assert exchange.market.ledger == []


async def test_orders_as_dicts_are_those_of_place() -> None:
    async with trading(Segment.NSE_CM) as (_, neo):
        usual = {"instrument": KEY, "side": "buy", "quantity": 10, "product": "cnc", "price": 39}
        pair = {"segment": "NSE_CM", "symbol": "ITBEES-EQ", "order_type": "limit"}
        results = await neo.orders.place_many(
            [usual, {**usual, "instrument": await itbees(neo)}, pair | without(usual, "instrument")]
        )
        assert [isinstance(one, Order) and one.symbol for one in results] == ["ITBEES-EQ"] * 3
        (order,) = await neo.orders.place_sliced(usual)
        assert isinstance(order, Order)


BAD_DICTS: list[tuple[Any, str]] = [
    (
        {"qty": 10},
        r"requests\[1\].qty=10: is no argument of an order: did you mean quantity\? There are ",
    ),
    ({"quantitiy": 10}, r"requests\[1\].quantitiy=10: .* did you mean quantity\?"),
    ({"segment": "nse_cm"}, r"requests\[1\].segment='nse_cm': must not stand beside an instrument"),
    ({"side": "bid"}, r"requests\[1\].side='bid': must be one of B \(buy\), S \(sell\)"),
    ({"instrument": "ITBEEX"}, r"requests\[1\].instrument='ITBEEX': no such symbol"),
]


@pytest.mark.parametrize(("change", "message"), BAD_DICTS)
async def test_a_dict_that_is_no_order_names_its_place_and_key(change: Any, message: str) -> None:
    async with trading(Segment.NSE_CM) as (exchange, neo):
        usual = {"instrument": KEY, "side": "buy", "quantity": 10, **TERMS}
        with pytest.raises(InvalidOrder, match=message):
            await neo.orders.place_many([usual, usual | change])
        for lacking in usual.keys() - {"price"}:
            with pytest.raises(InvalidOrder, match=r"requests\[0\]\.\w+=None: is missing"):
                await neo.orders.place_many([without(usual, lacking)])
        with pytest.raises(InvalidOrder, match="must be an OrderRequest, or a dict"):
            await neo.orders.place_many(["ITBEES-EQ"])  # type: ignore[list-item]
        assert exchange.market.ledger == []


async def test_words_of_orders_are_read_in_any_case() -> None:
    async with trading() as (exchange, neo):
        for order_type, terms in (
            ("limit", {"price": 39}),
            ("L", {"price": 39}),
            ("sl", {"price": "40.20", "trigger": "40.10"}),
            ("Market", {}),
        ):
            order = await neo.orders.place(
                "nse_cm", "ITBEES-EQ", "Buy", 10, product="mis", order_type=order_type, **terms
            )
            assert (order.side, order.product) == (Side.BUY, Product.MIS)
        limit = await neo.orders.place(
            Segment.NSE_CM, "ITBEES-EQ", "b", 10, product="CNC", price=39, validity="day"
        )
        await neo.orders.modify(limit, order_type="LIMIT", price="39.10", validity="Day")
        assert limit.order_type is OrderType.LIMIT
        assert exchange.market.ledger[-1].price == 3910


async def test_cancel_all_takes_an_instrument() -> None:
    async with trading(Segment.NSE_CM) as (_, neo):
        mine = await neo.orders.place(KEY, "buy", 10, **TERMS)
        other = await neo.orders.place("TCS-EQ", "buy", 1, product="CNC", price=2100)
        assert await neo.orders.cancel_all(instrument="nse_cm:ITBEES-EQ") == [mine]
        assert not other.is_final
        assert await neo.orders.cancel_all(symbol="SBIN-EQ") == []
        with pytest.raises(InvalidOrder, match="stands alone"):
            await neo.orders.cancel_all(instrument=KEY, symbol="ITBEES-EQ")
        assert await neo.orders.cancel_all(segment="NSE_CM") == [other]


# --- reads --------------------------------------------------------------------------------------


async def test_margin_quotes_and_candles_take_any_name() -> None:
    async with trading(Segment.NSE_CM) as (_, neo):
        one = await itbees(neo)
        for name in (*NAMES, one):
            margin = await neo.portfolio.margin(name, "buy", 10, **TERMS)
            assert margin.order == 390.0
            quotes = await neo.market.quotes([name])
            assert quotes[name].symbol == "ITBEES-EQ"
            candles = await neo.market.candles(name, "d", start="2026-11-23")
            assert candles.instrument == KEY
        margin = await neo.portfolio.margin("nse_cm", "ITBEES-EQ", "buy", 10, **TERMS)
        assert margin.order == 390.0
        for index in ("nse_cm|Nifty 50", "nse_cm:nifty 50", "Nifty 50", "NIFTY"):
            assert (await neo.market.quotes([index]))[index].last_price


async def test_a_key_needs_no_scrip_master() -> None:
    async with trading() as (_, neo):
        assert (await neo.market.quotes(["nse_cm:19084"]))["nse_cm:19084"].symbol == "ITBEES-EQ"
        margin = await neo.portfolio.margin(KEY, "buy", 10, **TERMS)
        assert margin.order == 390.0
        with pytest.raises(InvalidField, match="no scrip master is loaded"):
            await neo.market.quotes(["ITBEES-EQ"])


async def test_chains_take_an_underlying_by_any_name() -> None:
    async with trading(Segment.NSE_CM, Segment.NSE_FO) as (_, neo):
        wanted = await neo.market.option_chain(Segment.NSE_FO, "NIFTY")
        contract = neo.instruments.search("NIFTY DEC FUT")[0]
        for name in ("NIFTY", "nifty", "nse_cm|Nifty 50", "Nifty 50", contract, "nse_cm|26000"):
            chain = await neo.market.option_chain(name, expiry=str(wanted.expiry))
            assert (chain.underlying, chain.expiry) == ("NIFTY", wanted.expiry)
            assert await neo.market.expiries(name, kind="fut")
            assert (await neo.market.futures_chain(name)).underlying == "NIFTY"
        assert (await neo.market.option_chain("RELIANCE-EQ")).underlying == "RELIANCE"
        with pytest.raises(
            InvalidField, match=r"nse_fo has no contracts of it: did you mean NIFTY"
        ):
            await neo.market.option_chain(Segment.NSE_FO, "NIFTI")


async def test_an_option_is_chosen_by_its_distance_from_the_money() -> None:
    async with trading(Segment.NSE_FO, Segment.BSE_FO, Segment.MCX_FO) as (_, neo):
        option = neo.instruments.option("NIFTY", "CE", spot=24_412.35, strikes_out=2)
        assert (option.strike, option.option_type) == (24_500.0, "CE")
        assert option.expiry == neo.instruments.nearest_expiry("NIFTY", kind="OPT")
        put = neo.instruments.option("NIFTY", "pe", spot=24_412.35, strikes_out=2, expiry=1)
        assert (put.strike, put.option_type) == (24_300.0, "PE")
        # A week apart, unless a holiday moves one of them.
        assert [option.expiry, put.expiry] == (await neo.market.expiries("NIFTY", kind="option"))[
            :2
        ]
        inside = neo.instruments.option("nse_cm|Nifty 50", "CE", spot=24_412, strikes_out=-1)
        assert inside.strike == 24_350.0
        live = await neo.market.option("NIFTY", "CE", strikes_out=2)
        assert live == option
        assert (await neo.market.option("BANKNIFTY", "PE")).name == "BANKNIFTY"
        for wrong in (
            {"strikes_out": 99},
            {"spot": 0},
            {"strikes_out": 1.5},
            {"expiry": "2020-01-01"},
        ):
            with pytest.raises(UsageError, match=next(iter(wrong))):
                neo.instruments.option("NIFTY", "CE", **({"spot": 24_412} | wrong))


# --- feeds --------------------------------------------------------------------------------------


async def test_feeds_take_any_name_and_indices_have_their_own_stream() -> None:
    async with trading(Segment.NSE_CM, market_makers=True) as (_, neo):
        one = await itbees(neo)
        index = "nse_cm|26009"
        async with neo.market_feed() as feed:
            await feed.subscribe(["ITBEES-EQ", one, "nse_cm:19084", "nse_cm:nifty 50", index])
            assert feed.subscriptions == 3
            await until(
                lambda: (
                    feed.latest(one) and feed.latest_index("Nifty 50") and feed.latest_index(index)
                )
            )
            for wrong in ("Nifty 50", "NIFTY", index):
                with pytest.raises(UsageError, match=r"is an index: .*latest_index"):
                    feed.latest(wrong)
            assert feed.last_price("ITBEES") == feed.last_price(KEY) is not None
            await feed.unsubscribe(["ITBEES", "NIFTY", index])
            assert feed.subscriptions == 0
            with pytest.raises(InvalidField, match=r"did you mean ITBEES-EQ"):
                await feed.subscribe([KEY, "ITBEEX"])
            with pytest.raises(UsageError, match="more subscriptions"):
                await feed.subscribe(["Nifty 50", *(f"nse_cm|{n}" for n in range(1, 3001))])
            assert feed.subscriptions == 0
        async with neo.column_feed() as columns:
            await columns.subscribe([one, "TCS-EQ"], level=Level.LITE)
            assert columns.subscriptions == 2


async def test_a_feed_without_scrip_masters_says_what_to_load() -> None:
    async with trading() as (_, neo), neo.market_feed() as feed:
        await feed.subscribe([KEY, "nse_cm:1333"])
        with pytest.raises(InvalidField, match=r"neo.instruments.load\(Segment.NSE_CM\) first"):
            await feed.subscribe(["ITBEES-EQ"])


def without(order: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in order.items() if name != key}


# --- indices, numbers and lower case ---------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["NIFTY", "nifty", "Nifty 50", "NIFTY50", "nse_cm:nifty50", "nse_cm|26000", "Bank Nifty"],
)
async def test_an_index_is_the_same_for_every_call_and_has_no_orders(name: str) -> None:
    async with trading(Segment.NSE_CM) as (exchange, neo):
        index = neo.instruments.resolve(name)
        assert index.symbol == ("BANKNIFTY" if "Bank" in name else "NIFTY")
        assert (await neo.market.quotes([name]))[name].last_price
        assert len(await neo.market.candles(name, "D", start="2026-11-02"))
        async with neo.market_feed() as feed:
            await feed.subscribe([name])
            await until(lambda: feed.latest_index(name))
        before = len(await paths(exchange))
        for arguments in ((name,), (index,), (Segment.NSE_CM, index.symbol)):
            with pytest.raises(InvalidOrder, match="is an index, which has no orders"):
                await neo.orders.place(*arguments, "buy", 10, **TERMS)
        for arguments in ((name,), (index,)):
            with pytest.raises(InvalidOrder, match="is an index, which has no orders"):
                await neo.portfolio.margin(*arguments, "buy", 10, **TERMS)
        assert len(await paths(exchange)) == before, "nothing was sent"


async def test_an_index_that_is_not_in_the_scrip_master_says_so() -> None:
    async with trading(Segment.NSE_CM) as (_, neo):
        with pytest.raises(InvalidField, match=r"an index that .* take it as 'nse_cm.INDIA VIX'"):
            neo.instruments.resolve("IndiaVix")
        with pytest.raises(InvalidOrder, match="is an index"):
            await neo.orders.place("India VIX", "buy", 10, **TERMS)


@pytest.mark.parametrize("name", ["nse_cm:itbees-eq", "nse_cm|Itbees-Eq", "nse_cm:itbees"])
async def test_a_symbol_in_lower_case_means_the_same_to_every_call(name: str) -> None:
    async with trading(Segment.NSE_CM) as (_, neo):
        assert neo.instruments.resolve(name).key == KEY
        assert (await neo.market.quotes([name]))[name].symbol == "ITBEES-EQ"
        assert (await neo.market.candles(name, "D", start="2026-11-23")).instrument == KEY
        async with neo.market_feed() as feed:
            await feed.subscribe([name])
            await until(lambda: feed.symbols)
            assert feed.symbols == {KEY: "ITBEES-EQ"}
        for call in (lambda: neo.market.quotes([name + "x"]), lambda: feed.subscribe([name + "x"])):
            with pytest.raises(InvalidField, match="did you mean ITBEES-EQ"):
                await call()


@pytest.mark.parametrize("name", ["nse_cm|019084", "nse_cm:00"])
async def test_a_token_with_leading_zeros_is_refused_by_every_call(name: str) -> None:
    async with trading(Segment.NSE_CM) as (exchange, neo), neo.market_feed() as feed:
        before = len(await paths(exchange))
        for call in (
            lambda: neo.market.quotes([name]),
            lambda: neo.market.candles(name, "D", start="2026-11-23"),
            lambda: neo.portfolio.margin(name, "buy", 10, **TERMS),
            lambda: neo.orders.place(name, "buy", 10, **TERMS),
            lambda: neo.orders.cancel_all(instrument=name),
            lambda: feed.subscribe([name]),
        ):
            with pytest.raises(UsageError, match=r"leading zero|must be written as"):
                await call()
        assert len(await paths(exchange)) == before, "nothing was sent"


async def test_a_token_alone_is_answered_with_its_key() -> None:
    async with trading(Segment.NSE_CM) as (_, neo):
        with pytest.raises(InvalidField, match=r"a token needs its segment: 'nse_cm.19084'"):
            neo.instruments.resolve("19084")


@pytest.mark.parametrize("what", [["ITBEES"], {}, None, 5])
async def test_what_is_no_name_is_refused_in_a_list_of_names(what: Any) -> None:
    async with trading(Segment.NSE_CM) as (_, neo):
        with pytest.raises(InvalidField, match="must be an Instrument"):
            await neo.market.quotes([what])


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (
            {"trigger_price": "38"},
            r"place\(\): trigger_price is no argument .*did you mean trigger\?",
        ),
        ({"prise": "38"}, r"place\(\): prise is no argument of an order: did you mean price\?"),
    ],
)
async def test_a_keyword_that_place_does_not_have_is_answered_with_the_right_one(
    terms: dict[str, Any], message: str
) -> None:
    async with trading(Segment.NSE_CM) as (exchange, neo):
        with pytest.raises(TypeError, match=message):
            await neo.orders.place(KEY, "buy", 10, **TERMS, **terms)
        with pytest.raises(TypeError, match=r"place\(\) needs product"):
            await neo.orders.place(KEY, "buy", 10)  # type: ignore[call-overload]
        assert exchange.market.ledger == []


@pytest.mark.parametrize("name", ["NIFTY", "nse_cm|26000", "nse_cm:Nifty 50", "BANKNIFTY"])
async def test_an_order_for_an_index_is_refused_before_it_is_sent(name: str) -> None:
    async with trading(Segment.NSE_CM) as (exchange, neo):
        with pytest.raises(InvalidOrder, match="is an index, which has no orders"):
            await neo.orders.place(name, "buy", 1, product="MIS", price="24000")
        assert exchange.market.ledger == []
