"""Orders over real sockets: what is sent, what comes back, and what a caller may believe."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from neo_async import (
    Bracket,
    InvalidOrder,
    NeoClient,
    NeoError,
    NotSent,
    OffsetKind,
    Order,
    OrderAlreadyFinal,
    OrderRequest,
    OrderStatus,
    OrderType,
    OutcomeUnknown,
    PoolLimits,
    Product,
    RateLimits,
    Rejected,
    Segment,
    Side,
    Timeouts,
    UsageError,
    Validity,
)
from neo_async.exchange.tls import self_signed
from neo_async.execution.engine import ExecutionEngine
from neo_async.orders import Orders
from neo_async.session.manager import SessionManager
from neo_async.session.requests import SessionRequests
from neo_async.transport.limiter import Limiter
from neo_async.wire.tags import matches, own_tag
from tests.clients import BOOK, CANCEL, MODIFY, PLACE, admin, client_of, exchange_of, logins, paths
from tests.exchange_settings import EVERY_ORDER
from tests.fake_servers import CREDENTIALS, Cut, Late, Reply, fault_proxy, scripted_broker
from tests.simulation.virtual_time import in_virtual_time, now

ITBEES = (Segment.NSE_CM, "ITBEES-EQ")
BUY = (*ITBEES, Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}
TOKEN_OF_ITBEES = {"segment": "nse_cm", "token": "19084"}

TYPES: dict[OrderType, dict[str, Any]] = {
    OrderType.LIMIT: {"price": "39.00"},
    OrderType.MARKET: {},
    OrderType.SL: {"price": Decimal("40.20"), "trigger": 40.1},
    OrderType.SL_M: {"trigger": "40.10"},
}


# --- placing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("product", [Product.CNC, Product.MIS, Product.NRML, Product.MTF])
@pytest.mark.parametrize("validity", list(Validity))
async def test_every_type_reaches_the_exchange_as_it_was_meant(
    product: Product, validity: Validity
) -> None:
    async with exchange_of(rules=EVERY_ORDER) as exchange, client_of(exchange) as neo:
        for order_type, prices in TYPES.items():
            order = await neo.orders.place(
                *BUY, product=product, order_type=order_type, validity=validity, **prices
            )
            assert order.status is OrderStatus.PUT_RECEIVED
            record = exchange.market.ledger[-1]
            assert (record.number, record.client_tag) == (order.number, order.client_tag)
            assert (record.product, record.validity, record.side) == (product, validity, Side.BUY)
            assert (record.quantity, record.listing.symbol) == (10, "ITBEES-EQ")
            assert record.trigger == (0 if order.trigger is None else 4010)
            await neo.orders.book()
            if order_type.has_trigger:
                assert order.status is OrderStatus.TRIGGER_PENDING
                assert order.order_type is order_type
            else:
                # Nobody sells: a day order rests, the other goes. The broker limits a market order.
                rests = validity is Validity.DAY
                assert order.status is (OrderStatus.OPEN if rests else OrderStatus.CANCELLED)
                assert order.order_type is OrderType.LIMIT
                assert order.price == (39 if order_type is OrderType.LIMIT else Decimal("40.18"))


@pytest.mark.parametrize(
    ("segment", "symbol", "quantity", "price"),
    [
        (Segment.BSE_CM, "TCS", 3, "2100.05"),
        (Segment.NSE_FO, "NIFTY26DEC24500CE", 130, "150.05"),
        (Segment.BSE_FO, "SENSEX26DECFUT", 20, 79_000.05),
        (Segment.MCX_FO, "CRUDEOIL26DECFUT", 100, 5600),
        (Segment.NSE_CM, "M&M-EQ", 1, "3700.05"),
    ],
)
async def test_every_segment_is_reached(
    segment: Segment, symbol: str, quantity: int, price: Any
) -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        order = await neo.orders.place(
            segment, symbol, Side.BUY, quantity, product=Product.NRML, price=price
        )
        (row,) = await neo.orders.book()
        assert (row.segment, row.symbol, row.quantity) == (segment, symbol, quantity)
        assert (row.status, row.price) == (OrderStatus.OPEN, float(price))
        assert order.status is OrderStatus.OPEN


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_an_order_lives_its_whole_life(secure: bool, tmp_path: Path) -> None:
    tls: dict[str, Any] = {}
    if secure:
        context, ca_file = self_signed(tmp_path)
        tls = {"tls": context, "ca_file": ca_file}
    async with exchange_of(**tls) as exchange, client_of(exchange) as neo:
        order = await neo.orders.place(*BUY, **CNC, disclosed_quantity=4, tag="life")
        assert (order.quantity, order.disclosed_quantity, order.tag) == (10, 4, "life")

        assert await neo.orders.modify(order, price="39.20", quantity=30) is order
        assert (order.price, order.quantity, order.disclosed_quantity) == (Decimal("39.20"), 30, 4)
        (row,) = await neo.orders.book()
        assert (row.price, row.quantity, row.disclosed_quantity) == (39.2, 30, 4)

        exchange.market.print_price(Segment.NSE_CM, "19084", 3915)
        assert await order.wait(timeout=5) is OrderStatus.COMPLETE
        assert (order.filled_quantity, order.average_price) == (30, 39.2)
        assert (order.pending_quantity, order.is_final) == (0, True)

        trades = await neo.orders.trades()
        assert {(trade.order_number, trade.price) for trade in trades} == {(order.number, 39.2)}
        assert [trade.leg for trade in trades] == list(range(len(trades), 0, -1))
        # Four of it were shown at a time.
        assert [trade.quantity for trade in trades] == [2, 4, 4, 4, 4, 4, 4, 4]
        states = [state.status for state in await neo.orders.history(order)]
        assert states[0] is OrderStatus.COMPLETE
        assert states[-1] is OrderStatus.PUT_RECEIVED
        assert OrderStatus.MODIFIED in states
        assert await neo.orders.history(order.number) == await neo.orders.history(order)
        for call in (neo.orders.cancel(order), neo.orders.modify(order, price="39.30")):
            with pytest.raises(OrderAlreadyFinal, match="order is completed") as caught:
                await call
            assert caught.value.code == 1021


async def test_an_after_market_order_is_queued_changed_and_cancelled() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        order = await neo.orders.place(*BUY, **CNC, amo=True)
        assert order.status is OrderStatus.AMO_RECEIVED
        await neo.orders.modify(order, quantity=20)
        (row,) = await neo.orders.book()
        assert (row.generated_type, row.quantity) == ("AMO", 20)
        assert order.status is OrderStatus.AMO_MODIFY_RECEIVED
        await neo.orders.cancel(order.number)
        assert await order.wait(timeout=5) is OrderStatus.AMO_CANCELLED


async def test_a_cover_order_is_placed_changed_and_exited() -> None:
    async with (
        exchange_of(rules=EVERY_ORDER) as exchange,
        client_of(exchange, live_updates=False) as neo,
    ):
        order = await neo.orders.place(*BUY, product=Product.CO, price="39.00", trigger="38.50")
        record = exchange.market.ledger[0]
        assert (record.product, record.price, record.trigger) == (Product.CO, 3900, 3850)
        await neo.orders.modify(order, price="39.10")  # keeps its stop
        assert (record.price, record.trigger) == (3910, 3850)
        await neo.orders.cancel(order)
        assert (await paths(exchange))[-1] == "/neo/quick/order/co/exit"
        assert record.status is OrderStatus.CANCELLED


async def test_a_bracket_order_sends_its_distances_and_is_exited() -> None:
    async with scripted_broker() as broker:
        accepted = Reply({"nOrdNo": "7", "stat": "Ok", "stCode": 200})
        broker.script("/quick/order/rule/ms/place", accepted)
        broker.script("/quick/order/bo/exit", accepted)
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            bracket = Bracket(target="1.50", stop=0.75, trail=2, kind=OffsetKind.TICKS)
            order = await neo.orders.place(*BUY, product=Product.BO, price="39.00", bracket=bracket)
            await neo.orders.cancel(order)
        _, _, (_, _, form), (path, _, exit_form) = broker.requests
        for field in (
            "%22sot%22%3A%22Ticks%22",
            "%22sov%22%3A%221.50%22",
            "%22slt%22%3A%22Ticks%22",
            "%22slv%22%3A%220.75%22",
            "%22tlt%22%3A%22Y%22",
            "%22tsv%22%3A%222%22",
            "%22pc%22%3A%22BO%22",
        ):
            assert field in form.decode()
        assert path == "/quick/order/bo/exit"
        assert exit_form == b"jData=%7B%22on%22%3A%227%22%2C%22am%22%3A%22NO%22%7D"


async def test_an_order_that_risk_management_rejects_says_why() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        order = await neo.orders.place(*BUY, product=Product.CNC, price="60.00")
        assert await order.wait(OrderStatus.COMPLETE, timeout=5) is OrderStatus.REJECTED
        assert "circuit limit" in order.reject_reason


async def test_many_orders_come_back_in_their_order_with_what_became_of_each() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        symbols = ["ITBEES-EQ", "NOSUCH-EQ", "SBIN-EQ"] * 4
        results = await neo.orders.place_many(
            OrderRequest(Segment.NSE_CM, symbol, Side.BUY, number, Product.MIS, price=39)
            for number, symbol in enumerate(symbols, start=1)
        )
        assert [type(result) for result in results] == [Order, Rejected, Order] * 4
        for number, (symbol, result) in enumerate(zip(symbols, results, strict=True), start=1):
            if isinstance(result, Order):
                assert (result.symbol, result.quantity) == (symbol, number)
            else:
                assert isinstance(result, Rejected)
                assert (result.code, "NOSUCH-EQ" in result.text) == (1007, True)
        assert await neo.orders.place_many([]) == []


# --- tags -------------------------------------------------------------------------------------


async def test_a_tag_can_be_read_back_through_all_that_the_broker_does_to_it() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        order, other = (
            await neo.orders.place(*BUY, **CNC, tag="grid_7"),
            await neo.orders.place(*BUY, **CNC),
        )
        assert order.client_tag.startswith("grid_7_")
        assert len(order.client_tag) <= 20
        rows = {row.number: row for row in await neo.orders.book()}
        assert rows[order.number].gui_order_id == order.client_tag
        assert own_tag(rows[order.number].gui_order_id) == "grid_7"
        assert other.tag == ""

        await neo.orders.cancel(order)
        (row, _) = sorted(await neo.orders.book(), key=lambda row: row.number)
        assert row.gui_order_id == f"{order.client_tag}-{int(now())}"
        assert matches(row.gui_order_id, order.client_tag)
        assert own_tag(row.gui_order_id) == "grid_7"

        await neo.orders.modify(other, price="39.01")
        (row,) = [row for row in await neo.orders.book() if row.number == other.number]
        assert row.gui_order_id.endswith("-ADMINAPI")  # overwritten: the number remains
        assert exchange.market.ledger[1].client_tag == other.client_tag


async def test_every_placement_has_a_tag_of_its_own() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await asyncio.gather(*(neo.orders.place(*BUY, **CNC, tag="same") for _ in range(20)))
        tags = {record.client_tag for record in exchange.market.ledger}
        assert len(tags) == 20
        assert {own_tag(tag) for tag in tags} == {"same"}


# --- orders of others -------------------------------------------------------------------------


@in_virtual_time
async def test_a_fresh_client_changes_and_cancels_by_number() -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange) as first:
            placed = await first.orders.place(
                *BUY,
                product=Product.MIS,
                price="39.00",
                trigger="38.90",
                order_type=OrderType.SL,
                disclosed_quantity=5,
                tag="first",
            )
        await asyncio.sleep(30)
        async with client_of(exchange) as second:
            order = await second.orders.modify(placed.number, price="39.10")
            assert order is not placed
            record = exchange.market.ledger[0]
            assert (record.price, record.trigger, record.quantity) == (3910, 3890, 10)
            assert (record.order_type, record.disclosed_quantity) == (OrderType.SL, 5)
            assert (order.product, order.side, order.tag) == (Product.MIS, Side.BUY, "first")
            assert await second.orders.cancel(placed.number) is order
            assert record.status is OrderStatus.CANCELLED
            # Asked for once: known since.
            assert (await paths(exchange)).count(f"{BOOK}/{placed.number}") == 1


async def test_a_number_that_nobody_knows_is_refused_without_a_guess() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        for call in (
            neo.orders.modify("261123000000099", price=39),
            neo.orders.cancel("261123000000099"),
        ):
            with pytest.raises(Rejected, match="no order 261123000000099"):
                await call
        assert not {MODIFY, CANCEL} & set(await paths(exchange))
        assert await neo.orders.history("261123000000099") == []


async def test_cancel_all_takes_what_is_working_of_a_segment_or_symbol() -> None:
    async with exchange_of(rules=EVERY_ORDER) as exchange, client_of(exchange) as neo:
        place = neo.orders.place
        fund = await place(*BUY, **CNC)
        stop = await place(*BUY, product=Product.MIS, order_type=OrderType.SL_M, trigger="40.10")
        queued = await place(*BUY, **CNC, amo=True)
        cover = await place(*BUY, product=Product.CO, price="39.00", trigger="38.50")
        bank = await place(
            Segment.NSE_CM, "SBIN-EQ", Side.BUY, 1, product=Product.MIS, price="960.00"
        )
        crude = await place(
            Segment.MCX_FO, "CRUDEOIL26DECFUT", Side.BUY, 100, product=Product.NRML, price=5600
        )
        done = await place(*BUY, product=Product.MIS, price="39.00", validity=Validity.IOC)

        by_symbol = await neo.orders.cancel_all(segment="NSE_CM", symbol="itbees-eq")
        assert {order.number for order in by_symbol if isinstance(order, Order)} == {
            order.number for order in (fund, stop, queued, cover)
        }
        assert await neo.orders.cancel_all(segment=Segment.MCX_FO) == [crude]
        assert await neo.orders.cancel_all() == [bank]
        assert await neo.orders.cancel_all() == []
        await neo.orders.book()
        states = {order.status for order in (fund, stop, cover, bank, crude, done)}
        assert states == {OrderStatus.CANCELLED}
        assert queued.status is OrderStatus.AMO_CANCELLED
        assert (await paths(exchange)).count("/neo/quick/order/co/exit") == 1


@pytest.mark.parametrize(
    "oddity",
    [{"vldt": "GTC"}, {"prod": "INTRADAY"}, {"prcTp": "2L"}, {"exSeg": "bcs_fo"}],
    ids=lambda oddity: next(iter(oddity)),
)
async def test_an_order_of_another_kind_does_not_keep_cancel_all_from_the_rest(
    oddity: dict[str, str],
) -> None:
    usual = {
        "ordSt": "open",
        "exSeg": "nse_cm",
        "trdSym": "ITBEES-EQ",
        "trnsTp": "B",
        "prcTp": "L",
        "prod": "CNC",
        "vldt": "DAY",
        "qty": 10,
        "prc": "39.00",
    }
    rows = [{**usual, "nOrdNo": "1"}, {**usual, "nOrdNo": "2", **oddity}, {**usual, "nOrdNo": "3"}]
    async with scripted_broker() as broker:
        broker.script("/quick/user/orders", Reply({"stat": "Ok", "stCode": 200, "data": rows}))
        taken = [Reply({"nOrdNo": number, "stat": "Ok", "stCode": 200}) for number in "123"]
        broker.script("/quick/order/cancel", *taken)
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            results = await neo.orders.cancel_all()
            numbers = [order.number for order in results if isinstance(order, Order)]
            assert numbers == ["1", "2", "3"]
            assert broker.paths().count("/quick/order/cancel") == 3
            (_, odd, _) = results
            assert isinstance(odd, Order)
            assert next(iter(oddity.values())) in {
                odd.validity,
                odd.product,
                odd.order_type,
                odd.segment,
            }
            if "prod" not in oddity and "exSeg" not in oddity:
                with pytest.raises(InvalidOrder):
                    await neo.orders.modify(odd, price="39.10")


# --- what never leaves ------------------------------------------------------------------------

INVALID: list[tuple[dict[str, Any], str]] = [
    ({"segment": "NSE"}, "segment"),
    ({"symbol": "itbees-eq"}, "symbol"),
    ({"symbol": ""}, "symbol"),
    ({"side": "bid"}, "side"),
    ({"quantity": 0}, "quantity"),
    ({"quantity": 1.0}, "quantity"),
    ({"quantity": True}, "quantity"),
    ({"product": "INTRADAY"}, "product"),
    ({"product": Product.CNC, "segment": Segment.NSE_FO}, "product"),
    ({"price": None}, "price"),
    ({"price": "0"}, "price"),
    ({"price": -1}, "price"),
    ({"price": "nan"}, "price"),
    ({"price": "39,00"}, "price"),
    ({"order_type": "stop"}, "order_type"),
    ({"price": "39.001"}, "price"),
    ({"order_type": OrderType.MARKET}, "price"),
    ({"order_type": OrderType.SL}, "trigger"),
    ({"order_type": OrderType.SL, "trigger": "39.10"}, "trigger"),
    ({"order_type": OrderType.SL, "trigger": "38.90", "side": Side.SELL}, "trigger"),
    ({"order_type": OrderType.SL_M, "price": None}, "trigger"),
    ({"trigger": "38.00"}, "trigger"),
    ({"validity": "GTC"}, "validity"),
    (
        {"validity": "IOC", "segment": Segment.MCX_FO, "product": Product.NRML},
        "validity",
    ),
    ({"disclosed_quantity": 11}, "disclosed_quantity"),
    ({"tag": "ten_of_them"}, "tag"),
    ({"tag": "a-b"}, "tag"),
    ({"product": Product.CO}, "trigger"),
    ({"product": Product.CO, "trigger": "39.50"}, "trigger"),
    ({"product": Product.BO}, "bracket"),
    ({"bracket": Bracket(target=1, stop=1)}, "bracket"),
    ({"product": Product.BO, "bracket": Bracket(target=0, stop=1)}, "bracket.target"),
]


async def test_bad_input_names_its_field_and_never_reaches_the_server() -> None:
    usual: dict[str, Any] = {
        "segment": Segment.NSE_CM,
        "symbol": "ITBEES-EQ",
        "side": Side.BUY,
        "quantity": 10,
        **CNC,
    }
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        order = await neo.orders.place(**usual)
        before = await paths(exchange)
        for changes, field in INVALID:
            request = usual | changes
            with pytest.raises(InvalidOrder) as caught:
                await neo.orders.place(**request)
            assert caught.value.field == field, changes
            with pytest.raises(InvalidOrder) as caught:
                await neo.orders.place_many([OrderRequest(**usual), OrderRequest(**request)])
            assert caught.value.field == f"requests[1].{field}"
        changes_: list[tuple[dict[str, Any], str]] = [
            ({"price": 0}, "price"),
            ({"quantity": 0}, "quantity"),
            ({"order_type": "stop"}, "order_type"),
            ({"price": "39.001"}, "price"),
            ({"order_type": OrderType.SL}, "trigger"),
            ({"order_type": OrderType.MARKET, "price": 39}, "price"),
            ({"validity": "GTC"}, "validity"),
            ({"disclosed_quantity": 11}, "disclosed_quantity"),
        ]
        for changes, field in changes_:
            with pytest.raises(InvalidOrder) as caught:
                await neo.orders.modify(order, **changes)
            assert caught.value.field == field, changes
        for number in ("", "12a", "1 2", "../orders"):
            for call in (neo.orders.cancel(number), neo.orders.history(number)):
                with pytest.raises(InvalidOrder, match="order number"):
                    await call
        with pytest.raises(InvalidOrder, match="symbol"):
            await neo.orders.cancel_all(symbol="itbees?")
        with pytest.raises(UsageError, match="scrip master of nse_cm is not loaded"):
            await neo.portfolio.margin(
                Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 1, product=Product.CNC, price=39
            )
        assert await paths(exchange) == before


async def test_a_quantity_below_what_is_filled_is_not_sent() -> None:
    async with exchange_of() as exchange:
        first, second = exchange.accounts
        async with (
            client_of(exchange, credentials=second) as neo,
            client_of(exchange, credentials=first) as seller,
        ):
            order = await neo.orders.place(*BUY, **CNC)
            await seller.orders.place(*ITBEES, Side.SELL, 4, **CNC)
            await neo.orders.book()
            assert (order.filled_quantity, order.pending_quantity) == (4, 6)
            with pytest.raises(InvalidOrder, match="above the 4 filled already"):
                await neo.orders.modify(order, quantity=4)
            await neo.orders.modify(order, quantity=5)
            assert (await neo.orders.book())[0].pending_quantity == 1


# --- what the broker refuses ------------------------------------------------------------------


async def test_a_refusal_at_the_door_carries_the_brokers_code() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        with pytest.raises(Rejected, match="invalid symbol 'NOSUCH-EQ'") as caught:
            await neo.orders.place(Segment.NSE_CM, "NOSUCH-EQ", Side.BUY, 1, **CNC)
        assert (caught.value.code, caught.value.status) == (1007, 400)
        with pytest.raises(Rejected, match="lotwise") as caught:
            await neo.orders.place(
                Segment.NSE_FO, "NIFTY26DECFUT", Side.BUY, 1, product=Product.NRML, price=24_000
            )
        assert caught.value.code == 1009
        assert exchange.market.ledger == []


@pytest.mark.parametrize("code", [32, 5204])
async def test_a_duplicate_tag_means_that_the_order_arrived_before(code: int) -> None:
    text = {32: "error from core", 5204: "Put Order Response : Client OrderID already exists"}

    def override(path: str, status: int, body: bytes) -> Reply | None:
        refusal = {"stCode": code, "errMsg": text[code], "stat": "Not_Ok"}
        return Reply(refusal) if path == PLACE else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints) as neo,
    ):
        order = await neo.orders.place(*BUY, **CNC, tag="again")
        (record,) = exchange.market.ledger
        assert (order.number, order.client_tag) == (record.number, record.client_tag)
        assert (order.tag, order.status) == ("again", OrderStatus.OPEN)
        await neo.orders.cancel(order)
        assert record.status is OrderStatus.CANCELLED


@pytest.mark.parametrize(
    "book",
    [
        Reply({"stCode": 5203, "errMsg": "No Data", "stat": "Not_Ok"}),
        Reply("busy", 503, "text/plain"),
        Reply({"stCode": 1002, "errMsg": "invalid input", "stat": "Not_Ok"}),
        Cut(),
    ],
)
async def test_a_duplicate_tag_that_cannot_be_looked_up_is_an_unknown_outcome(
    book: Reply | Cut,
) -> None:
    """Above all, no error that says that sending it again is safe."""
    async with scripted_broker() as broker:
        refusal = {"stCode": 32, "errMsg": "error from core", "stat": "Not_Ok"}
        broker.script("/quick/order/rule/ms/place", Reply(refusal))
        broker.script("/quick/user/orders", book)
        async with NeoClient(CREDENTIALS, endpoints=broker.endpoints, totp="123456") as neo:
            with pytest.raises(OutcomeUnknown) as caught:
                await neo.orders.place(*BUY, **CNC, tag="again", wait_for_outcome=False)
            assert caught.value.client_tag.startswith("again_")


# --- outcomes nobody knows --------------------------------------------------------------------

SPOILT: list[Reply | Cut] = [
    Reply("<html><h1>502 Bad Gateway</h1>", 502, "text/html"),
    Reply({"stat": "Not_Ok", "errMsg": "internal", "stCode": 500}, 500),
    Reply("", 504),
    Reply({"message": "dependency failed"}, 424),
    Reply({"message": "request timeout"}, 408),
    Reply({"stat": "Not_Ok", "errMsg": "internal error", "stCode": 1005}),
    Reply("<html>Scheduled maintenance", 200, "text/html"),
    Reply(""),
    Reply('{"nOrdNo":"2611'),
    Reply({"stat": "Ok", "stCode": 200}),
    Reply({"message": "Internal server error"}),
    Reply({"stat": "Success", "message": "done"}),
    Reply("[]"),
    Cut(),
    Cut(b'{"nOrdNo":"261'),
]


@pytest.mark.parametrize("overrides", SPOILT)
async def test_when_the_answer_is_useless_the_outcome_is_unknown_and_nothing_is_sent_again(
    overrides: Reply | Cut,
) -> None:
    def override(path: str, status: int, body: bytes) -> Reply | Cut | None:
        return overrides if path == target else None

    target = PLACE
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints) as neo,
    ):
        with pytest.raises(OutcomeUnknown) as caught:
            await neo.orders.place(*BUY, **CNC, tag="once", wait_for_outcome=False)
        (record,) = exchange.market.ledger
        assert (record.client_tag, record.arrivals) == (caught.value.client_tag, 1)
        assert repr(record.client_tag) in str(caught.value)
        assert caught.value.action == "place"
        # As the message says: the book knows, and the client is as good as before.
        (row,) = await neo.orders.book()
        assert matches(row.gui_order_id, caught.value.client_tag)
        assert row.number == record.number

        target = MODIFY
        with pytest.raises(OutcomeUnknown, match=record.number):
            await neo.orders.modify(record.number, price="39.10", wait_for_outcome=False)
        assert (record.price, record.request_id) == (3910, 2)
        target = CANCEL
        with pytest.raises(OutcomeUnknown, match=record.number) as caught:
            await neo.orders.cancel(record.number, wait_for_outcome=False)
        assert (caught.value.order_number, caught.value.client_tag) == (record.number, "")
        assert record.status is OrderStatus.CANCELLED
        seen = await paths(exchange)
        assert [seen.count(path) for path in (PLACE, MODIFY, CANCEL)] == [1, 1, 1]
        target = ""
        assert (await neo.orders.place(*BUY, **CNC)).number > record.number


@in_virtual_time
async def test_an_answer_slower_than_the_deadline_is_an_unknown_outcome() -> None:
    def override(path: str, status: int, body: bytes) -> Late | None:
        return Late(4.0, Reply(body, status)) if path == PLACE else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(exchange, endpoints=endpoints, timeouts=Timeouts(order=2.5)) as neo,
    ):
        before = now()
        with pytest.raises(OutcomeUnknown, match=r"within 2.5 s") as caught:
            await neo.orders.place(*BUY, **CNC, wait_for_outcome=False)
        assert now() - before == pytest.approx(2.5, abs=0.01)
        assert [record.client_tag for record in exchange.market.ledger] == [caught.value.client_tag]
        await asyncio.sleep(2)  # the late answer finds nobody
        (row,) = await neo.orders.book()
        await neo.orders.cancel(row.number)


@in_virtual_time
async def test_an_order_that_could_not_be_sent_says_so() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        await neo.login()
        ledger = exchange.market.ledger
    await asyncio.sleep(1)  # the client sees that its connections were closed
    with pytest.raises(NotSent, match="cannot connect"):
        await neo.orders.place(*BUY, **CNC)
    assert ledger == []
    await neo.logout()


# --- too fast ---------------------------------------------------------------------------------


@in_virtual_time
async def test_a_429_pauses_the_lane_and_the_order_goes_out_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    limits = RateLimits(orders=3, total=10)  # the client believes in more
    async with exchange_of(limits=limits) as exchange:
        limiter = Limiter(RateLimits(orders=10, total=10), clock=asyncio.get_running_loop().time)
        session = SessionManager(
            exchange.credentials,
            exchange.endpoints,
            limiter=limiter,
            timeouts=Timeouts(),
            pool=PoolLimits(),
            clock=now,
        )
        await session.login()
        orders = Orders(SessionRequests(session), ExecutionEngine(SessionRequests(session)))
        before = now()
        await asyncio.gather(*(orders.place(*BUY, **CNC) for _ in range(5)))

        assert now() - before >= 1.0  # Retry-After
        assert limiter.pauses >= 1
        assert len(exchange.market.ledger) == 5
        assert {record.arrivals for record in exchange.market.ledger} == {1}
        assert "rate limit hit (429): nothing starts for 1.00 s" in caplog.text
        assert await logins(exchange) == 1
        await session.logout()


@in_virtual_time
async def test_a_429_that_does_not_end_is_told_within_the_deadline() -> None:
    async with scripted_broker() as broker:
        too_fast = {"stat": "Not_Ok", "errMsg": "Too many requests", "stCode": 429}
        broker.script(
            "/quick/order/rule/ms/place", Reply(too_fast, 429, headers={"Retry-After": "4"})
        )
        limiter = Limiter(RateLimits(), clock=asyncio.get_running_loop().time)
        session = SessionManager(
            CREDENTIALS,
            broker.endpoints,
            limiter=limiter,
            timeouts=Timeouts(order=10),
            pool=PoolLimits(),
            clock=now,
        )
        await session.login("123456")
        before = now()
        requests = SessionRequests(session)
        with pytest.raises(NeoError, match="Too many requests") as caught:
            await Orders(requests, ExecutionEngine(requests)).place(*BUY, **CNC)
        assert type(caught.value).__name__ == "RateLimited"
        assert now() - before <= 10
        assert limiter.pauses == 3
        await session.logout()


async def test_the_ledger_of_the_control_surface_tells_the_same() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        order = await neo.orders.place(*BUY, **CNC, tag="seen")
        await admin(exchange, "price", **TOKEN_OF_ITBEES, price=38.9)
        (entry,) = await admin(exchange, "ledger")
        assert (entry["number"], entry["client_tag"]) == (order.number, order.client_tag)
        assert (entry["state"], entry["filled_quantity"]) == ("complete", 10)
        assert entry["arrivals"] == 1
