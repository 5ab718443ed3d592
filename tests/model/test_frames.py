"""Reports as frames."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from neo_async import NeoClient, Product, Segment, Side, UsageError, to_pandas, to_polars
from tests.clients import client_of, exchange_of

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")


async def reports(neo: NeoClient) -> dict[str, list[Any]]:
    """Return rows of every report that a notebook reads."""
    await neo.instruments.load(Segment.NSE_CM, Segment.NSE_FO)
    order = await neo.orders.place("ITBEES-EQ", "buy", 10, product="CNC", price="41.00")
    await order.wait(timeout=5)
    resting = await neo.orders.place(
        Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="37.00", product=Product.CNC
    )
    async with neo.market_feed(level="depth") as feed:
        await feed.subscribe(["ITBEES-EQ"])
        ticks = [await anext(aiter(feed))]
    return {
        "holdings": await neo.portfolio.holdings(),
        "positions": await neo.portfolio.positions(),
        "book": await neo.orders.book(),
        "trades": await neo.orders.trades(),
        "orders": [order, resting],
        "instruments": neo.instruments.search("NIFTY"),
        "ticks": ticks,
    }


async def test_every_report_is_a_frame_of_plain_columns() -> None:
    async with exchange_of(market_makers=True) as exchange, client_of(exchange) as neo:
        for name, rows in (await reports(neo)).items():
            assert rows, name
            for frame in (to_pandas(rows), to_polars(rows)):
                assert len(frame) == len(rows), name
                assert not [column for column in frame.columns if column.startswith("_")]
                first = {column: frame[column][0] for column in frame.columns}
                assert all(type(value) is str for value in first.values() if isinstance(value, str))
                assert (first["segment"] if name != "ticks" else "nse_cm") in list(Segment), name
        orders = to_polars((await reports(neo))["orders"])
        assert orders["symbol"].to_list() == ["ITBEES-EQ"] * 2
        assert orders["price"].to_list() == [41.0, 37.0]
        assert orders["product"].to_list() == ["CNC"] * 2


def test_no_rows_are_an_empty_frame() -> None:
    assert len(to_pandas([])) == len(to_polars(())) == 0


@pytest.mark.parametrize("rows", [[1], ["a"], [{"a": 1}], [None]])
def test_what_is_no_record_is_refused(rows: Any) -> None:
    for call in (to_pandas, to_polars):
        with pytest.raises(UsageError, match="rows="):
            call(rows)


@pytest.mark.parametrize(("call", "module"), [(to_pandas, "pandas"), (to_polars, "polars")])
def test_a_missing_library_is_named(
    call: Any, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"neo-async\[{module}\]"):
        call([])
