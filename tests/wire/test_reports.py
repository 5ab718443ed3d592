from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from neo_async.errors import SessionEnded
from neo_async.model.answer import Answer
from neo_async.model.enums import OrderStatus
from neo_async.model.orders import HistoryRow, OrderRow, Trade
from neo_async.wire import rows
from neo_async.wire.portfolio import read_holdings, read_positions
from neo_async.wire.reports import read_history, read_order_book, read_trades

Documented = Callable[[str], Answer]
Reader = Callable[[Answer], list[OrderRow] | list[HistoryRow] | list[Trade]]
READERS: list[Reader] = [read_order_book, read_history, read_trades]


def test_the_documented_order_book(documented: Documented) -> None:
    assert read_order_book(documented("order_book")) == [
        OrderRow(
            number="250122000612876",
            exchange_number="1100000059569867",
            status_text="open",
            reject_text="--",
            segment="nse_cm",
            symbol="IDEA-EQ",
            name="IDEA",
            token="14366",
            side="B",
            order_type="L",
            product="NRML",
            validity="DAY",
            quantity=1,
            filled_quantity=0,
            pending_quantity=1,
            cancelled_quantity=0,
            disclosed_quantity=0,
            price=9.39,
            trigger=0.0,
            average_price=0.0,
            generated_type="NA",
            time_text="22-Jan-2025 14:28:01",
            updated_ns=1737536281933015920,
            gui_order_id="",
            parent_number="NA",
        )
    ]


def test_an_order_row_reads_its_state_and_reason(documented: Documented) -> None:
    (row,) = read_order_book(documented("order_book"))
    assert row.status is OrderStatus.OPEN
    assert row.reject_reason == ""


def test_the_documented_history(documented: Documented) -> None:
    assert read_history(documented("order_history")) == [
        HistoryRow(
            number="250122000624384",
            exchange_number="1100000060414692",
            status_text="complete",
            reject_text="--",
            segment="nse_cm",
            symbol="IDEA-EQ",
            token="14366",
            side="B",
            order_type="L",
            product="NRML",
            validity="DAY",
            quantity=1,
            filled_quantity=1,
            pending_quantity=0,
            price=9.39,
            trigger=0.0,
            average_price=9.39,
            time_text="22-Jan-2025 14: 33: 01",
            updated_ns=1737536606366027474,
            gui_order_id="",
        )
    ]


def test_the_documented_trades(documented: Documented) -> None:
    assert read_trades(documented("trades")) == [
        Trade(
            order_number="250122000612876",
            exchange_number="1100000059569867",
            trade_number="207983744",
            leg=1,
            segment="nse_cm",
            symbol="IDEA-EQ",
            name="IDEA",
            side="B",
            product="NRML",
            order_type="L",
            quantity=1,
            price=9.39,
            date_text="22-Jan-2025",
            time_text="14:28:16",
            updated_ns=1737536296355319176,
            gui_order_id="",
        )
    ]


def test_a_history_wrapped_once_more_reads_the_same(documented: Documented) -> None:
    plain = documented("order_history")
    wrapped = Answer(200, {}, b'{"data":' + plain.body + b"}")
    assert read_history(wrapped) == read_history(plain)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (read_order_book, "order_book"),
        (read_history, "order_history"),
        (read_trades, "trades"),
        (read_positions, "positions_v2"),
        (read_positions, "positions_quick"),
        (read_holdings, "holdings"),
    ],
)
def test_a_documented_report_is_read_in_one_pass(
    read: Callable[[Answer], list[object]],
    name: str,
    documented: Documented,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(rows, "_unwrap")  # the slow reading begins with it
    assert read(documented(name))


@pytest.mark.parametrize("read", READERS)
def test_no_data_is_an_empty_report(read: Reader, documented: Documented) -> None:
    assert read(documented("order_book_empty")) == []


@pytest.mark.parametrize("read", READERS)
def test_an_ended_session_is_no_empty_report(read: Reader, documented: Documented) -> None:
    with pytest.raises(SessionEnded):
        read(documented("session_invalid"))


@pytest.mark.parametrize("value", [9.39, "9.39", " 9.39 "])
def test_an_order_number_and_price_are_read_from_text_and_number(value: object) -> None:
    row = {"nOrdNo": 250122000612876, "prc": value, "qty": "1", "unFldSz": "--"}
    body = msgspec.json.encode({"stat": "Ok", "data": [row]})
    (order,) = read_order_book(Answer(200, {}, body))
    assert (order.number, order.price, order.quantity) == ("250122000612876", 9.39, 1)
    assert order.pending_quantity == 0
