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
from tests.fake_servers import Reply, fault_proxy
from tests.simulation.virtual_time import START, in_virtual_time, now

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
async def desk(
    reports: dict[str, Any] | None = None, *, takes_orders: bool = True, **limits: Any
) -> AsyncIterator[NeoClient]:
    """A client whose reports are these, where given, by path."""
    refused = {} if takes_orders else {PLACE: Reply({})}
    reports = reports or {}

    def override(path: str, status: int, body: bytes) -> Reply | None:
        rows = reports.get(path)
        if rows is None:
            return None
        return Reply(
            rows if isinstance(rows, dict) else {"stat": "Ok", "stCode": 200, "data": rows}
        )

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override, refused=refused) as endpoints,
        client_of(
            exchange, endpoints=endpoints, risk=RiskLimits(**limits), resolution_timeout=3
        ) as neo,
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
    async with desk(max_net_position=100) as neo:
        order = await neo.orders.place(*BUY, 60, **MIS)
        hear(neo, order, ordSt=status, fldQty="N/A")
        with pytest.raises(PositionLimit):
            await neo.orders.place(*BUY, 60, **MIS)


@in_virtual_time
async def test_more_filled_than_ordered_is_not_believed() -> None:
    async with desk(max_net_position=100) as neo:
        order = await neo.orders.place(*BUY, 60, **MIS)
        hear(neo, order, fldQty=10**17)
        assert (order.quantity, order.filled_quantity) == (60, 0)
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 41, **MIS)
        await neo.orders.place(*BUY, 40, **MIS)


@pytest.mark.parametrize("odd", [{"qty": 10**12}, {"qty": None}, {"qty": 60}])
@in_virtual_time
async def test_a_fill_above_the_orders_quantity_is_unknown_and_the_book_is_asked(odd: Any) -> None:
    async with desk(max_net_position=100) as neo:
        order = await neo.orders.place(*BUY, 60, **MIS)
        await asyncio.sleep(5)
        before = neo._cache._poller.read_at
        hear(neo, order, fldQty=10**12, **odd)
        assert (order.quantity, order.filled_quantity) == (60, 0)
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 41, **MIS)
        await asyncio.sleep(5)
        assert neo._cache._poller.read_at > before
        hear(neo, order, fldQty=25)
        assert (order.quantity, order.filled_quantity) == (60, 25)


@in_virtual_time
async def test_a_fill_of_an_order_that_another_application_enlarged_is_read_in_the_book() -> None:
    reports: dict[str, Any] = {BOOK: None}
    async with desk(reports) as neo:
        order = await neo.orders.place(*BUY, 60, **MIS)
        larger = {"nOrdNo": order.number, "qty": 90, "fldQty": 75}
        reports[BOOK] = [{**OPEN, **larger, "updRecvTm": int(now() * 1e9) + 10**9}]
        hear(neo, order, **larger)
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
@in_virtual_time
async def test_a_position_that_does_not_say_what_it_is_of_may_be_of_anything(odd: Any) -> None:
    async with desk({POSITIONS: [odd]}, max_net_position=100) as neo:
        with pytest.raises(PositionLimit, match="does not say what it is of"):
            await neo.orders.place(*BUY, 60, **MIS)


@in_virtual_time
async def test_a_flat_position_may_be_of_anything() -> None:
    flat = {**POSITION, "trdSym": None, "flBuyQty": "0", "buyAmt": "0.00"}
    async with desk({POSITIONS: [flat]}, max_net_position=100) as neo:
        await neo.orders.place(*BUY, 60, **MIS)


@in_virtual_time
async def test_several_rows_of_one_position_are_added_up() -> None:
    carried = {**POSITION, "flBuyQty": "0", "buyAmt": "0", "cfBuyQty": "30", "cfBuyAmt": "1170.00"}
    async with desk({POSITIONS: [POSITION, carried, POSITION]}, max_net_position=100) as neo:
        (position,) = neo.portfolio.live.positions.values()
        assert position.net_quantity == 90
        with pytest.raises(PositionLimit, match="101 units"):
            await neo.orders.place(*BUY, 11, **MIS)
        await neo.orders.place(*BUY, 10, **MIS)


@pytest.mark.parametrize("number", [None, "", "NA", "0", [], {}])
@in_virtual_time
async def test_an_open_order_without_a_number_takes_up_room(number: Any) -> None:
    rows = [{**OPEN, "nOrdNo": number}, {**OPEN, "nOrdNo": number}]
    for limits in ({"max_net_position": 160}, {"max_open_orders": 2}):
        async with desk({BOOK: rows}, **limits) as neo:
            with pytest.raises(RiskRefused, match="an open order without a number"):
                await neo.orders.place(*BUY, 60, **MIS)


@pytest.mark.parametrize("number", ["NA", "0", "--", " ", "null"])
@in_virtual_time
async def test_an_accepted_order_whose_number_is_none_is_looked_for_by_its_tag(number: str) -> None:
    answer = {"nOrdNo": number, "stat": "Ok", "stCode": 200}
    async with desk({PLACE: answer}, max_open_orders=2) as neo:
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


@in_virtual_time
async def test_a_fill_in_a_row_without_a_number_is_not_counted_twice() -> None:
    filled = {**OPEN, "ordSt": "complete", "fldQty": 60, "updRecvTm": int(START * 1e9)}
    reports = {BOOK: [filled], POSITIONS: [POSITION]}
    async with desk(reports, max_net_position=100) as neo:
        reports[BOOK] = [{**filled, "nOrdNo": None}]
        await neo.orders.book()
        assert neo.portfolio.live.net_range("nse_cm", "ITBEES-EQ") == (60, 60)


@in_virtual_time
async def test_a_lost_order_is_known_when_a_report_shows_its_number() -> None:
    lost: dict[str, Any] = {BOOK: []}

    def row(**fields: Any) -> dict[str, Any]:
        (pending,) = neo.orders.in_flight_requests
        return {**OPEN, "qty": 10, "GuiOrdId": pending.expected.client_tag, **fields}

    async with desk(lost, takes_orders=False) as neo:
        placing = asyncio.create_task(neo.orders.place(*BUY, 10, **MIS))
        await asyncio.sleep(0.5)
        lost[BOOK] = [row(nOrdNo=None)]
        await asyncio.sleep(8)
        assert not placing.done()
        lost[BOOK] = [row()]
        assert (await placing).number == OPEN["nOrdNo"]
        assert [order.number for order in neo._cache.open_orders] == [OPEN["nOrdNo"]]


@in_virtual_time
async def test_an_open_order_without_a_number_keeps_a_halt_from_being_done() -> None:
    reports = {BOOK: [{**OPEN, "nOrdNo": None}]}
    async with desk(reports) as neo:
        halting = neo.halt(reason="test")
        await asyncio.sleep(8)
        assert not halting.done()
        reports[BOOK] = [{**OPEN, "ordSt": "cancelled"}]
        assert await asyncio.wait_for(halting, 30) == []
        assert neo._cache.open_orders == []
