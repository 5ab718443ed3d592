"""Decode the order book, order histories and the trade book."""

from __future__ import annotations

from neo_async.model.answer import Answer
from neo_async.model.orders import HistoryRow, OrderRow, Trade
from neo_async.wire.rows import RowReader

_ORDERS = RowReader(OrderRow, expected=frozenset({"quantity", "filled_quantity"}))
_HISTORY = RowReader(HistoryRow, expected=frozenset({"quantity", "filled_quantity"}))
_TRADES = RowReader(Trade, expected=frozenset({"quantity", "price"}))


def read_order_book(answer: Answer) -> list[OrderRow]:
    """Return the rows of `GET /quick/user/orders`, or of one order's page below it, newest
    first."""
    return _ORDERS.read(answer)


def read_history(answer: Answer) -> list[HistoryRow]:
    """Return the states of one order from `POST /quick/order/history`, newest first."""
    return _HISTORY.read(answer)


def read_trades(answer: Answer) -> list[Trade]:
    """Return the fills of `GET /quick/user/trades`."""
    return _TRADES.read(answer)
