"""Positions, holdings, funds, margins and instruments, as the official SDK reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from neo_async import NeoClient, Product, Segment, Side
from neo_async.exchange import Exchange
from tests.contracts import NIFTY_FUTURE, TCS_FUTURE

Sdk = Any
PrintPrice = Callable[[str, str, float], None]


@pytest.fixture(scope="module")
def metrics() -> Callable[..., dict[str, Any]]:
    """The SDK's own reckoning of a position."""
    module = pytest.importorskip("neo_api_client.utils.positions_pnl")
    compute: Callable[..., dict[str, Any]] = module.compute_position_metrics
    return compute


def trade(
    sdk: Sdk,
    symbol: str,
    side: str,
    quantity: int,
    price: str,
    *,
    product: str,
    segment: str = "nse_cm",
) -> None:
    """Place an order that rests, for a price that comes."""
    answer = sdk.place_order(
        segment, product, price, "L", str(quantity), "DAY", symbol, side, trigger_price=None
    )
    assert answer["stat"] == "Ok", answer


def test_before_any_trade_books_are_empty_and_funds_whole(sdk: Sdk) -> None:
    for report in (sdk.positions(), sdk.order_report(), sdk.trade_report()):
        assert (report["stCode"], report["desc"]) == (5203, "data not found")
    limits = sdk.limits()
    assert (limits["Net"], limits["CollateralValue"]) == ("1000000.00", "1000000.00")
    assert (limits["MarginUsed"], limits["stat"], limits["stCode"]) == ("0.00", "Ok", 200)


def test_holdings_are_read_and_kept_by_the_sdk(
    sdk: Sdk, neo: NeoClient, ours: Callable[..., Any]
) -> None:
    theirs = sdk.holdings()["data"]
    assert [(row["symbol"], row["quantity"], row["averagePrice"]) for row in theirs] == [
        ("ITBEES", 45, 38.7162),
        ("TCS", 100, 2012.355),
        ("RELIANCE", 50, 1283.155),
    ]
    fund = theirs[0]
    assert (fund["exchangeIdentifier"], fund["instrumentToken"]) == ("19084", 19085)
    assert (fund["holdingCost"], fund["mktValue"]) == (1742.229, 1773)
    assert fund["unrealisedGainLoss"] == 30.771
    # Its cache, by the identifier that positions join on.
    assert set(sdk._get_cached_holdings_by_identifier()) == {"19084", "11536", "2885"}
    assert os.listdir(os.environ["NEO_HOLDINGS_CACHE_DIR"])

    for holding, raw in zip(ours(neo.portfolio.holdings()), theirs, strict=True):
        assert (holding.symbol, holding.quantity) == (raw["symbol"], raw["quantity"])
        assert (holding.average_price, holding.cost) == (raw["averagePrice"], raw["holdingCost"])
        assert (holding.token, holding.unrealised) == (
            raw["exchangeIdentifier"],
            raw["unrealisedGainLoss"],
        )


def test_a_margin_is_asked_for(sdk: Sdk, neo: NeoClient, ours: Callable[..., Any]) -> None:
    enough = sdk.margin_required("nse_cm", "39.00", "L", "CNC", "100", "19084", "B")["data"]
    assert enough == {
        "avlCash": "1000000.000000",
        "totMrgnUsd": "3900.000000",
        "mrgnUsd": "0.000000",
        "ordMrgn": "3900.000000",
        "rmsVldtd": "OK",
        "reqdMrgn": "0.000000",
        "avlMrgn": "0.000000",
        "insufFund": "0.000000",
        "stat": "Ok",
        "stCode": 200,
    }
    short = sdk.margin_required("nse_cm", "39.00", "L", "CNC", "100000", "19084", "B")["data"]
    assert (short["rmsVldtd"], short["insufFund"]) == ("NOT_OK", "2900000.000000")
    mine = ours(
        neo.portfolio.margin(
            Segment.NSE_CM, "19084", Side.BUY, 100_000, product=Product.CNC, price="39.00"
        )
    )
    assert not mine.sufficient
    assert (mine.order, mine.shortfall) == (float(short["ordMrgn"]), float(short["insufFund"]))
    market = sdk.margin_required("nse_fo", "0", "MKT", "NRML", "65", NIFTY_FUTURE, "S")["data"]
    assert float(market["ordMrgn"]) > 200_000
    unknown = sdk.margin_required("nse_cm", "39.00", "L", "CNC", "100", "1", "B")["data"]
    assert (unknown["stCode"], unknown["stat"]) == (1007, "Not_Ok")


def test_positions_funds_and_holdings_after_trades_are_the_same_to_both(
    sdk: Sdk,
    neo: NeoClient,
    ours: Callable[..., Any],
    print_price: PrintPrice,
    metrics: Callable[..., dict[str, Any]],
) -> None:
    # Bought in two parts and half of it sold again; delivery sold from the holding; a future
    # sold short; and one position that was closed.
    trade(sdk, "SBIN-EQ", "B", 100, "970.00", product="MIS")
    print_price("nse_cm", "3045", 969.0)
    trade(sdk, "SBIN-EQ", "B", 50, "964.00", product="MIS")
    print_price("nse_cm", "3045", 963.0)
    trade(sdk, "SBIN-EQ", "S", 75, "980.00", product="MIS")
    print_price("nse_cm", "3045", 981.0)
    trade(sdk, "ITBEES-EQ", "S", 20, "39.60", product="CNC")
    print_price("nse_cm", "19084", 39.7)
    trade(sdk, "TCS26DECFUT", "S", 225, "2140.00", product="NRML", segment="nse_fo")
    print_price("nse_fo", TCS_FUTURE, 2141.0)
    trade(sdk, "WIPRO-EQ", "B", 40, "243.00", product="MIS")
    print_price("nse_cm", "3787", 242.0)
    trade(sdk, "WIPRO-EQ", "S", 40, "246.00", product="MIS")
    print_price("nse_cm", "3787", 247.0)

    report = sdk.positions()
    assert (report["stat"], report["stCode"]) == ("ok", 200)
    rows = {row["trdSym"]: row for row in report["data"]}
    holdings = sdk._get_cached_holdings_by_identifier()
    theirs = {
        symbol: metrics(row, holdings.get(row["tok"]), float(row["ltp"]))
        for symbol, row in rows.items()
    }
    assert {symbol: row["netQty"] for symbol, row in theirs.items()} == {
        "SBIN-EQ": 75,
        "ITBEES-EQ": -20,
        "TCS26DECFUT": -225,
        "WIPRO-EQ": 0,
    }
    bank = rows["SBIN-EQ"]
    assert (bank["flBuyQty"], bank["buyAmt"]) == ("150", "145200.00")
    assert (bank["flSellQty"], bank["sellAmt"]) == ("75", "73500.00")
    assert (bank["prod"], bank["ltp"], "qty" in bank) == ("MIS", "981.00", False)
    assert theirs["SBIN-EQ"]["averagePrice"] == 968.0
    assert theirs["SBIN-EQ"]["positionPnl"] == 73_500 - 145_200 + 75 * 981.0
    assert theirs["TCS26DECFUT"]["positionPnl"] == 225 * (2140.0 - 2141.0)
    assert theirs["WIPRO-EQ"]["mtmPnl"] == 120.0

    positions = ours(neo.portfolio.positions())
    assert {position.symbol for position in positions} == set(theirs)
    for position in positions:
        their = theirs[position.symbol]
        assert position.net_quantity == their["netQty"]
        assert position.average_price == their["averagePrice"]
        assert position.last_price == float(rows[position.symbol]["ltp"])
        assert round(position.pnl, 2) == their["positionPnl"]
        assert round(position.mtm_pnl, 2) == their["mtmPnl"]
        assert position.unknown_reason == ""

    sdk._enrich_positions_with_pnl(report, holdings)
    assert [row["positionPnl"] for row in report["data"]] == [
        round(position.pnl, 2) for position in positions
    ]
    _check_funds_after_trades(sdk, neo, ours)
    fund = sdk.holdings()["data"][0]
    assert (fund["quantity"], fund["sellableQuantity"]) == (45, 25), "what was sold is not sellable"


def _check_funds_after_trades(sdk: Sdk, neo: NeoClient, ours: Callable[..., Any]) -> None:
    theirs = sdk.limits()
    mine = ours(neo.portfolio.limits())
    # 20 % of what the open MIS shares cost, 15 % of the future.
    used = 0.20 * 75 * 968.0 + 0.15 * 225 * 2140.0
    realised = 75 * (980.0 - 968.0) + 40 * 3.0
    assert float(theirs["MarginUsed"]) == mine.margin_used == pytest.approx(used)
    assert float(theirs["RealizedMtomPrsnt"]) == mine.realised_mtm == pytest.approx(realised)
    assert float(theirs["CncSellcrdPresent"]) == 20 * 39.60
    net = 1_000_000 - used + realised + 20 * 39.60
    assert float(theirs["Net"]) == mine.available == pytest.approx(net)
    assert mine.amounts["Net"] == float(theirs["Net"])


# --- instruments ------------------------------------------------------------------------------


@pytest.mark.parametrize("segment", ["nse_cm", "bse_cm", "nse_fo", "bse_fo", "mcx_fo"])
def test_every_segment_has_its_file(sdk: Sdk, exchange: Exchange, segment: str) -> None:
    address = sdk.scrip_master(segment)
    assert address.startswith(exchange.login_url)
    assert "/2026-11-23/" in address
    header, first, *_ = httpx.get(address).text.splitlines()
    assert header.startswith("pSymbol,pGroup,pExchSeg,")
    assert len(header.split(",")) == len(first.split(","))
    assert len(header.split(",")) == (78 if segment.endswith("_cm") else 79)
    assert first.split(",")[2] == segment


def test_all_files_are_listed(sdk: Sdk) -> None:
    listed = sdk.scrip_master()
    assert len(listed["filesPaths"]) == 7
    assert all(path.startswith(listed["baseFolder"]) for path in listed["filesPaths"])


def test_a_share_is_found(sdk: Sdk) -> None:
    (row,) = sdk.search_scrip("nse_cm", "itbees")
    assert (row["pSymbol"], row["pTrdSymbol"], row["pGroup"]) == (19084, "ITBEES-EQ", "EQ")
    assert (row["dTickSize"], row["lLotSize"], row["pISIN"]) == (1, 1, "INF204KB15V2")
    (cached,) = Path(os.environ["NEO_SCRIP_CACHE_DIR"]).glob("nse_cm_*.csv")
    assert b"ITBEES-EQ" in cached.read_bytes()


@pytest.mark.parametrize(
    ("search", "symbols"),
    [
        ({"symbol": "nifty", "option_type": "CE", "strike_price": "24500"}, {"NIFTY26DEC24500CE"}),
        (
            {"symbol": "nifty", "option_type": "CE,PE", "strike_price": "24500"},
            {"NIFTY26DEC24500CE", "NIFTY26DEC24500PE"},
        ),
        ({"symbol": "nifty", "option_type": "FUT"}, {"NIFTY26DECFUT", "BANKNIFTY26DECFUT"}),
        (
            {"symbol": "tcs", "option_type": "PE", "strike_price": "2120"},
            {"TCS26DEC2120PE"},
        ),
    ],
)
def test_a_derivative_is_found_by_expiry_strike_and_type(
    sdk: Sdk, search: dict[str, str], symbols: set[str]
) -> None:
    rows = sdk.search_scrip("nse_fo", expiry="29DEC2026", **search)
    assert {row["pTrdSymbol"] for row in rows} == symbols
    assert {row["pExpiryDate"] for row in rows} == {"29Dec2026"}


@pytest.mark.parametrize(("segment", "expiry"), [("bse_fo", "31DEC2026"), ("mcx_fo", "18DEC2026")])
def test_expiries_on_the_other_time_scale_are_found(sdk: Sdk, segment: str, expiry: str) -> None:
    rows = sdk.search_scrip(segment, expiry=expiry, option_type="FUT")
    assert [row["pExchSeg"] for row in rows] == [segment]


def test_what_does_not_exist_is_not_found(sdk: Sdk) -> None:
    assert "No data found" in sdk.search_scrip("nse_cm", "nosuchshare")["message"]
