from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contracts import TCS_FUTURE
from tests.exchange.callers import Caller, trading

PAYLOADS = Path(__file__).parents[1] / "payloads"
EMPTY = {"stCode": 5203, "errMsg": "No Data", "desc": "data not found", "stat": "Not_Ok"}


def documented(name: str) -> Any:
    return json.loads((PAYLOADS / f"{name}.json").read_text())


def same_shape(row: dict[str, Any], sample: dict[str, Any]) -> bool:
    """The same keys, with values of the same JSON type."""
    assert set(row) == set(sample)
    kinds = {name: _kind(value) for name, value in row.items()}
    assert kinds == {name: _kind(value) for name, value in sample.items()}
    return True


def _kind(value: object) -> str:
    return "number" if isinstance(value, int | float) else type(value).__name__


async def bought(caller: Caller, quantity: int = 10, price: str = "39.40", **changes: str) -> str:
    """Buy from whoever prints at the price."""
    number = await caller.placed(qt=str(quantity), pr=price, **changes)
    token = {"ITBEES-EQ": "19084", "TCS26DECFUT": TCS_FUTURE}[changes.get("ts", "ITBEES-EQ")]
    segment = changes.get("es", "nse_cm")
    await caller.admin("POST", "price", json={"segment": segment, "token": token, "price": price})
    return number


# --- books --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/quick/user/orders",
        "/quick/user/orders/261123000000001",
        "/quick/user/trades",
        "/quick/user/positions",
        "/portfolio/v2/positions",
    ],
)
async def test_an_empty_book_says_so(path: str) -> None:
    async with trading() as caller:
        answered = await caller.get(path)
        assert (answered.status, answered.json()) == (200, EMPTY)


async def test_the_history_of_no_order_is_empty() -> None:
    async with trading() as caller:
        answered = await caller.post("/quick/order/history", {"nOrdNo": "261123000000001"})
        assert (answered.status, answered.json()) == (200, EMPTY)


async def test_a_row_of_the_order_book_is_the_brokers() -> None:
    async with trading() as caller:
        await caller.placed()
        book = (await caller.get("/quick/user/orders")).json()
        (row,) = book["data"]
        assert (book["stat"], book["stCode"]) == ("Ok", 200)
        assert same_shape(row, documented("order_book")["data"][0])
        assert row["ordSt"] == row["stat"] == "open"
        assert (row["prc"], row["qty"], row["unFldSz"], row["tckSz"]) == ("38.00", 10, 10, "0.0100")
        assert row["ordDtTm"] == row["exCfmTm"] == "23-Nov-2026 10:00:00"
        assert row["hsUpTm"] == "2026/11/23 10:00:00"
        assert row["boeSec"] == 1_795_408_200
        assert row["updRecvTm"] // 10**9 == 1_795_408_200
        assert row["ordSrc"] == "ADMINCPPAPI_NEOTRADEAPI"


async def test_the_book_is_newest_first_and_one_order_can_be_asked_for() -> None:
    async with trading() as caller:
        numbers = [await caller.placed(pr=price) for price in ("38.00", "38.05", "38.10")]
        assert [row["nOrdNo"] for row in await caller.book()] == numbers[::-1]
        answered = (await caller.get(f"/quick/user/orders/{numbers[1]}")).json()
        assert [row["prc"] for row in answered["data"]] == ["38.05"]


async def test_a_rejected_order_gives_its_reason() -> None:
    async with trading() as caller:
        await caller.placed(qt="1000", pr="47.00", ts="TCS-EQ")
        (row,) = await caller.book()
        assert row["ordSt"] == "rejected"
        assert len(row["rejRsn"]) > 10
        assert row["exOrdId"] == "NA"


async def test_a_history_walks_back_from_the_last_state() -> None:
    async with trading() as caller:
        number = await bought(caller)
        answered = (await caller.post("/quick/order/history", {"nOrdNo": number})).json()
        rows = answered["data"]
        assert (answered["stat"], answered["stCode"]) == ("Ok", 200)
        sample = documented("order_history")["data"][0]
        assert all(same_shape(row, sample) for row in rows)
        assert [row["ordSt"] for row in rows] == [
            "complete",
            "open",
            "open pending",
            "validation pending",
            "put order req received",
        ]
        newest, oldest = rows[0], rows[-1]
        assert (newest["fldQty"], newest["unFldSz"], newest["avgPrc"]) == (10, 0, "39.40")
        assert newest["exchTmstp"] == newest["flDtTm"] == "23-Nov-2026 10:00:00"
        assert (oldest["exchTmstp"], oldest["exchOrdId"]) == ("--", "NA")
        assert oldest["updRecvTm"] < newest["updRecvTm"]


async def test_a_row_of_the_trade_book_is_the_brokers() -> None:
    async with trading() as caller:
        number = await bought(caller, ig="tag_1")
        answered = (await caller.get("/quick/user/trades")).json()
        (row,) = answered["data"]
        assert (answered["stat"], answered["stCode"]) == ("ok", 200)
        assert same_shape(row, documented("trades")["data"][0])
        assert (row["nOrdNo"], row["GuiOrdId"]) == (number, "tag_1")
        assert (row["fldQty"], row["avgPrc"], row["flLeg"]) == (10, "39.40", 1)
        assert (row["flDt"], row["flTm"]) == ("23-Nov-2026", "10:00:00")
        # The broker's own gaps.
        assert (row["tok"], row["qty"], row["prc"]) == ("", 0, "")


# --- positions and holdings -----------------------------------------------------------------------


async def test_both_positions_calls_give_the_row_and_one_thing_more() -> None:
    async with trading() as caller:
        await bought(caller)
        with_price = (await caller.get("/portfolio/v2/positions")).json()
        with_quantity = (await caller.get("/quick/user/positions")).json()
        assert (with_price["stat"], with_quantity["stat"]) == ("ok", "ok")
        assert same_shape(with_price["data"][0], documented("positions_v2")["data"][0])
        assert with_price["data"][0].pop("ltp") == "39.40"
        assert with_quantity["data"][0].pop("qty") == "10"
        assert with_price["data"] == with_quantity["data"]
        row = with_price["data"][0]
        assert (row["flBuyQty"], row["buyAmt"], row["flSellQty"]) == ("10", "394.00", "0")
        assert set(documented("positions_quick")["data"][0]) <= set(row) | {"qty"}


async def test_a_derivatives_rows_tell_its_terms() -> None:
    async with trading() as caller:
        future = {"es": "nse_fo", "ts": "TCS26DECFUT", "pc": "NRML"}
        await bought(caller, quantity=225, price="2112.00", **future)
        (row,) = (await caller.get("/portfolio/v2/positions")).json()["data"]
        assert (row["type"], row["series"], row["optTp"]) == ("FUTSTK", "XX", "XX")
        assert (row["expDt"], row["exp"]) == ("29 Dec, 2026", "1798502400")
        assert (row["brdLtQty"], row["lotSz"], row["buyAmt"]) == (225, "225", "475200.00")
        assert (await caller.book())[0]["it"] == "FUTSTK"


async def test_a_holding_is_the_brokers_full_row() -> None:
    async with trading() as caller:
        answered = (await caller.get("/portfolio/v1/holdings")).json()
        assert set(answered) == {"data"}
        sample = documented("holdings")["data"][0]
        assert all(same_shape(row, sample) for row in answered["data"])
        row = answered["data"][0]
        assert (row["symbol"], row["exchangeIdentifier"], row["quantity"]) == (
            "ITBEES",
            "19084",
            45,
        )
        assert (row["averagePrice"], row["closingPrice"]) == (38.7162, 39.4)
        assert row["holdingCost"] == 1742.229
        assert row["mktValue"] == 1773
        assert row["unrealisedGainLoss"] == 30.771
        assert str(row["instrumentToken"]) != row["exchangeIdentifier"]


async def test_stock_on_sale_is_no_longer_sellable() -> None:
    async with trading() as caller:
        await caller.placed(tt="S", qt="15", pr="41.00")
        row = (await caller.get("/portfolio/v1/holdings")).json()["data"][0]
        assert (row["quantity"], row["sellableQuantity"]) == (45, 30)


# --- money ----------------------------------------------------------------------------------------


async def test_limits_stand_at_the_root_and_add_up() -> None:
    async with trading(cash="10197.48") as caller:
        await caller.placed()
        everything = {"seg": "ALL", "exch": "ALL", "prod": "ALL"}
        limits = (await caller.post("/quick/user/limits", everything)).json()
        assert same_shape(limits, documented("limits"))
        assert limits["CollateralValue"] == "10197.48"
        assert limits["MarginUsed"] == "380.00"
        assert limits["Net"] == "9817.48"
        assert limits["TimeStamp"] == "1795408200000"


def margin_of(price: str, quantity: str = "10") -> dict[str, str | None]:
    """A margin question as the official SDK asks it."""
    return {
        "brkName": "KOTAK",
        "brnchId": "ONLINE",
        "exSeg": "nse_cm",
        "prc": price,
        "prcTp": "L",
        "prod": "CNC",
        "qty": quantity,
        "tok": "19084",
        "trnsTp": "B",
        "trgPrc": None,
        "slVal": None,
    }


async def test_a_margin_that_is_there_is_ok() -> None:
    async with trading(cash="1000.00") as caller:
        await caller.placed()
        margin = (await caller.post("/quick/user/check-margin", margin_of("39.00"))).json()
        assert margin == {
            "avlCash": "1000.000000",
            "totMrgnUsd": "770.000000",
            "mrgnUsd": "380.000000",
            "ordMrgn": "390.000000",
            "rmsVldtd": "OK",
            "reqdMrgn": "0.000000",
            "avlMrgn": "0.000000",
            "insufFund": "0.000000",
            "stat": "Ok",
            "stCode": 200,
        }
        assert same_shape(margin, documented("margin_enough")["data"])


async def test_a_margin_that_is_not_there_is_short_by_so_much() -> None:
    async with trading(cash="1000.00") as caller:
        await caller.placed()
        margin = (await caller.post("/quick/user/check-margin", margin_of("39.00", "20"))).json()
        assert margin == {
            "avlCash": "1000.000000",
            "totMrgnUsd": "1160.000000",
            "mrgnUsd": "380.000000",
            "ordMrgn": "780.000000",
            "rmsVldtd": "NOT_OK",
            "reqdMrgn": "1160.000000",
            "avlMrgn": "1000.000000",
            "insufFund": "160.000000",
            "stat": "Ok",
            "stCode": 200,
        }
        assert same_shape(margin, documented("margin_short"))


async def test_a_margin_of_an_unknown_token_is_refused() -> None:
    async with trading() as caller:
        refused = await caller.post("/quick/user/check-margin", margin_of("39.00") | {"tok": "7"})
        assert (refused.status, refused.json()["stCode"]) == (400, 1007)
