"""Our valuation of positions beside the official SDK's, on the same rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.model.answer import Answer
from neo_async.portfolio.valuation import value_position
from neo_async.wire.portfolio import read_holdings, read_positions

sdk = pytest.importorskip("neo_api_client.utils.positions_pnl")

quantities = st.integers(0, 100_000).map(str) | st.just("")
values = st.decimals(0, 10**9, places=2).map(str) | st.just("")
factors = st.sampled_from(["1", "0", "", "10", "100", "0.5"])

position_rows = st.fixed_dictionaries(
    {
        "exSeg": st.sampled_from(["nse_cm", "bse_cm", "nse_fo", "bse_fo", "mcx_fo"]),
        "trdSym": st.just("ITBEES-EQ"),
        "tok": st.just("19084"),
    },
    optional={
        **dict.fromkeys(("flBuyQty", "flSellQty", "cfBuyQty", "cfSellQty"), quantities),
        **dict.fromkeys(("buyAmt", "sellAmt", "cfBuyAmt", "cfSellAmt"), values),
        **dict.fromkeys(("multiplier", "genNum", "genDen", "prcNum", "prcDen"), factors),
        "precision": st.sampled_from(["", "0", "2", "4"]),
    },
)
holding_rows = st.fixed_dictionaries(
    {
        "symbol": st.just("ITBEES"),
        "exchangeIdentifier": st.just("19084"),
        "quantity": st.integers(0, 10**6),
        "averagePrice": st.decimals(0, 10**5, places=4).map(float),
    }
)
last_prices = st.decimals("0.05", 10**5, places=2).map(float)


def answer(row: dict[str, Any]) -> Answer:
    return Answer(200, {}, json.dumps({"stat": "ok", "data": [row]}).encode())


@given(position_rows, st.none() | holding_rows, st.none() | last_prices)
def test_a_position_is_worth_what_the_official_sdk_says(
    written: dict[str, Any], held: dict[str, Any] | None, last_price: float | None
) -> None:
    theirs = sdk.compute_position_metrics(written, held, last_price)

    (row,) = read_positions(answer(written))
    holding = read_holdings(answer(held))[0] if held else None
    ours = value_position(row, holding, last_price)

    assert ours.net_quantity == theirs["netQty"]
    assert ours.average_price == theirs["averagePrice"]
    for mine, other in ((ours.pnl, theirs["positionPnl"]), (ours.mtm_pnl, theirs["mtmPnl"])):
        # Theirs is rounded. Ours also knows what theirs leaves out: the P&L of a closed position
        # without a last price, and the P&L of the day without a holding.
        if other is not None:
            assert mine is not None
            assert round(mine, row.precision or 2) == other
        elif mine is not None:
            assert ours.net_quantity == 0 or (held is None and row.needs_holding)
