"""One odd value in a report or a message costs what it stands for, and no limit its hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from neo_async import (
    NeoClient,
    Order,
    PositionLimit,
    Product,
    Rejected,
    RiskLimits,
    RiskRefused,
    Segment,
    Side,
)
from neo_async.errors import ProtocolError
from neo_async.model.answer import Answer
from neo_async.wire.orders import read_accepted
from tests.clients import BOOK, PLACE, client_of, exchange_of
from tests.far_ends import Reply, meddler
from tests.virtual_time import in_virtual_time, now

BUY: Any = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY)
MIS: dict[str, Any] = {"price": "39.00", "product": Product.MIS}
POSITIONS = "/neo/portfolio/v2/positions"

POSITION = {
    "exSeg": "nse_cm",
    "trdSym": "ITBEES-EQ",
    "tok": "19084",
    "prod": "MIS",
    "flBuyQty": "60",
    "flSellQty": "0",
    "buyAmt": "2340.00",
    "sellAmt": "0.00",
    "ltp": "39.00",
}
OPEN = {
    "nOrdNo": "261123000000099",
    "ordSt": "open",
    "exSeg": "nse_cm",
    "trdSym": "ITBEES-EQ",
    "trnsTp": "B",
    "prcTp": "L",
    "prod": "MIS",
    "qty": 60,
    "fldQty": 0,
    "prc": "39.00",
}


@contextlib.asynccontextmanager
async def desk(reports: dict[str, Any] | None = None, **limits: Any) -> AsyncIterator[NeoClient]:
    """A client whose reports are these, where given, by path."""
    reports = reports or {}

    def spoil(path: str, status: int, body: bytes) -> Reply | None:
        rows = reports.get(path)
        if rows is None:
            return None
        return Reply(
            rows if isinstance(rows, dict) else {"stat": "Ok", "stCode": 200, "data": rows}
        )

    async with (
        exchange_of() as exchange,
        meddler(exchange, spoil) as endpoints,
        client_of(exchange, endpoints=endpoints, risk=RiskLimits(**limits), horizon=3) as neo,
    ):
        await neo.order_feed.until_live()
        await asyncio.sleep(0.5)
        yield neo


def hear(neo: NeoClient, order: Order, **fields: Any) -> None:
    """A message of the order feed about that order."""
    data = {**OPEN, "nOrdNo": order.number, "updRecvTm": int(now() * 1e9), **fields}
    neo.order_feed._handle(msgspec.json.encode({"type": "order", "data": data}))


@pytest.mark.parametrize("status", ["complete", "cancelled"])
@in_virtual_time
async def test_a_fill_that_cannot_be_read_counts_until_the_positions_are_read(status: str) -> None:
    async with desk(net_position=100) as neo:
        order = await neo.orders.place(*BUY, 60, **MIS)
        hear(neo, order, ordSt=status, fldQty="N/A")
        with pytest.raises(PositionLimit):
            await neo.orders.place(*BUY, 60, **MIS)


@in_virtual_time
async def test_more_filled_than_ordered_is_not_believed() -> None:
    async with desk(net_position=100) as neo:
        order = await neo.orders.place(*BUY, 60, **MIS)
        hear(neo, order, fldQty=10**17)
        assert (order.quantity, order.filled_quantity) == (60, 0)
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 41, **MIS)
        await neo.orders.place(*BUY, 40, **MIS)


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
@in_virtual_time
async def test_a_position_that_does_not_say_what_it_is_of_may_be_of_anything(odd: Any) -> None:
    async with desk({POSITIONS: [odd]}, net_position=100) as neo:
        with pytest.raises(PositionLimit, match="does not say what it is of"):
            await neo.orders.place(*BUY, 60, **MIS)


@in_virtual_time
async def test_a_flat_position_may_be_of_anything() -> None:
    flat = {**POSITION, "trdSym": None, "flBuyQty": "0", "buyAmt": "0.00"}
    async with desk({POSITIONS: [flat]}, net_position=100) as neo:
        await neo.orders.place(*BUY, 60, **MIS)


@in_virtual_time
async def test_several_rows_of_one_position_are_added_up() -> None:
    carried = {**POSITION, "flBuyQty": "0", "buyAmt": "0", "cfBuyQty": "30", "cfBuyAmt": "1170.00"}
    async with desk({POSITIONS: [POSITION, carried, POSITION]}, net_position=100) as neo:
        (position,) = neo.portfolio.live.positions.values()
        assert position.net_quantity == 90
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 11, **MIS)
        await neo.orders.place(*BUY, 10, **MIS)


@pytest.mark.parametrize("number", [None, "", "NA", "0", [], {}])
@in_virtual_time
async def test_an_open_order_without_a_number_takes_up_room(number: Any) -> None:
    rows = [{**OPEN, "nOrdNo": number}, {**OPEN, "nOrdNo": number}]
    for limits in ({"net_position": 160}, {"open_orders": 2}):
        async with desk({BOOK: rows}, **limits) as neo:
            with pytest.raises(RiskRefused, match=r"(180 units|3 orders would be open)"):
                await neo.orders.place(*BUY, 60, **MIS)


@pytest.mark.parametrize("number", ["NA", "0", "--", " ", "null"])
@in_virtual_time
async def test_an_accepted_order_whose_number_is_none_is_looked_for_by_its_tag(number: str) -> None:
    answer = {"nOrdNo": number, "stat": "Ok", "stCode": 200}
    async with desk({PLACE: answer}, open_orders=2) as neo:
        orders = [await neo.orders.place(*BUY, 10, **MIS) for _ in range(2)]
        assert all(order.number.startswith("261123") for order in orders)
        with pytest.raises(RiskRefused, match="3 orders would be open"):
            await neo.orders.place(*BUY, 10, **MIS)


def test_an_answer_that_names_an_order_and_no_error_refuses_nothing() -> None:
    def read(**fields: Any) -> None:
        content = {"nOrdNo": "261123000000001", "stCode": 200, **fields}
        read_accepted(Answer(200, {}, msgspec.json.encode(content)))

    with pytest.raises(ProtocolError, match="names order 261123000000001, with stat='Success'"):
        read(stat="Success")
    with pytest.raises(Rejected, match="margin"):
        read(stat="Not_Ok", emsg="no margin", stCode=1041)
