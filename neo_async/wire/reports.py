"""Order book, order history and trade book, from bytes to rows."""

from __future__ import annotations

from neo_async.model.answer import Answer
from neo_async.model.orders import HistoryRow, OrderRow, Trade
from neo_async.wire.rows import RowReader

_ORDERS = RowReader(OrderRow, expected=frozenset({"quantity", "filled_quantity"}))
_HISTORY = RowReader(HistoryRow, expected=frozenset({"quantity", "filled_quantity"}))
_TRADES = RowReader(Trade, expected=frozenset({"quantity", "price"}))


def read_order_book(answer: Answer) -> list[OrderRow]:
    """`GET /quick/user/orders`, or one order's page below it. Newest first."""
    return _ORDERS.read(answer)


def read_history(answer: Answer) -> list[HistoryRow]:
    """`POST /quick/order/history`: the states of one order, newest first."""
    return _HISTORY.read(answer)


def read_trades(answer: Answer) -> list[Trade]:
    """`GET /quick/user/trades`: one row a fill."""
    return _TRADES.read(answer)
