"""Rows of the positions report: their keys, and how rows and position messages of one position
combine. Pure functions."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeGuard

import msgspec

from neo_async.model.enums import Segment, Side
from neo_async.model.portfolio import QUANTITIES, PositionKey, PositionRow
from neo_async.model.updates import PositionUpdate

SEGMENTS = frozenset(Segment)

_KEY = frozenset({"segment", "symbol", "product"})
_REPLACED = {
    "buy_quantity": "flBuyQty",
    "sell_quantity": "flSellQty",
    "buy_value": "buyAmt",
    "sell_value": "sellAmt",
}
"""Fields of a row that a position message replaces, with their names on the wire."""

_TRADED = frozenset({"buy_quantity", "sell_quantity"})
_SUMMED = (
    "carried_buy_quantity",
    "carried_sell_quantity",
    "buy_quantity",
    "sell_quantity",
    "carried_buy_value",
    "carried_sell_value",
    "buy_value",
    "sell_value",
)
_SIDES = {"B": Side.BUY, "BUY": Side.BUY, "S": Side.SELL, "SELL": Side.SELL}


def position_key(segment: str, symbol: str, product: str) -> PositionKey:
    """Return a position's key in its one spelling: reports may differ in case and in blanks
    around."""
    return segment.strip().lower(), symbol.strip().upper(), product.strip().upper()


def instrument_of(row: PositionRow) -> str:
    """Return the instrument of a row as market feeds name it, `nse_cm|11536`."""
    return f"{row.segment.strip().lower()}|{row.token.strip()}"


def side_of(code: str) -> Side | None:
    """Return the side that a report names, `B`, `s` or `BUY`; None when it names none."""
    return _SIDES.get(code.strip().upper())


def is_finite(value: object) -> bool:
    """Return whether the value is a number, and neither NaN nor infinite."""
    return type(value) is int or (isinstance(value, (int, float, Decimal)) and math.isfinite(value))


def is_price(value: float | None) -> TypeGuard[float]:
    """Return whether the value is a finite number above 0."""
    return value is not None and 0 < value < math.inf


def is_flat(row: PositionRow) -> bool:
    """Return whether it is certain that nothing is held, nor was traded today."""
    return row.has_quantities and not any(getattr(row, name) for name in QUANTITIES)


def traded(report: PositionRow | PositionUpdate) -> tuple[int, int]:
    """Return the units bought and sold today; 0 for a quantity that cannot be read."""
    return _units(report.buy_quantity), _units(report.sell_quantity)


def _units(quantity: int | None) -> int:
    return quantity if quantity is not None and is_finite(quantity) else 0


def by_key(rows: Iterable[PositionRow]) -> dict[PositionKey, PositionRow]:
    """Return the rows of a report by position. Several rows of one position are added up, except
    for mere repetitions; a row that does not name its position has a key of its own."""
    several: dict[PositionKey, list[PositionRow]] = {}
    for count, row in enumerate(rows):
        key = position_key(row.segment, row.symbol, row.product)
        if not row.missing.isdisjoint(_KEY):
            key = (*key[:2], f"{key[2]}?{count}")
        same = several.setdefault(key, [])
        if all(_sums(row) != _sums(other) for other in same):
            same.append(row)
    return {key: functools.reduce(_added, same) for key, same in several.items()}


def _sums(row: PositionRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in _SUMMED)


def _added(one: PositionRow, other: PositionRow) -> PositionRow:
    sums = {name: getattr(one, name) + getattr(other, name) for name in _SUMMED}
    return msgspec.structs.replace(
        one,
        **sums,
        quantity=None,
        time_text=max(one.time_text, other.time_text),
        updated_ns=max(one.updated_ns, other.updated_ns),
        last_price=one.last_price or other.last_price,
        missing=one.missing | other.missing,
        odd=one.odd + other.odd,
    )


def is_complete(update: PositionUpdate) -> bool:
    """Return whether a position message has all four quantities and values of the day."""
    amounts = (update.buy_quantity, update.sell_quantity, update.buy_value, update.sell_value)
    return all(map(is_finite, amounts))


def continues(update: PositionUpdate, row: PositionRow) -> bool:
    """Return whether a complete message is later than the row on the same day, or merely late.
    Otherwise only a report can show how the position stands."""
    assert update.buy_quantity is not None
    assert update.sell_quantity is not None
    if _day(update) != _day(row) and _day(update) and _day(row):
        return _is_of_earlier_day(update, row)
    for name in ("carried_buy_quantity", "carried_sell_quantity"):
        if name not in row.missing and getattr(update, name) not in (None, getattr(row, name)):
            return False
    if not row.missing.isdisjoint(_TRADED):
        return "" != row.time_text <= update.time_text
    # The day's totals only grow. One that has grown while the other has shrunk is of another day,
    # or of a position with another history.
    before = traded(row)
    bought = update.buy_quantity - before[0]
    sold = update.sell_quantity - before[1]
    return min(bought, sold) >= 0 or max(bought, sold) <= 0


def updated(row: PositionRow, update: PositionUpdate) -> PositionRow | None:
    """Return the row after a complete message; None when the message is late, or changes
    nothing."""
    assert update.buy_quantity is not None
    assert update.sell_quantity is not None
    assert update.buy_value is not None
    assert update.sell_value is not None
    if _is_of_earlier_day(update, row):
        return None
    total = update.buy_quantity + update.sell_quantity
    if total <= sum(traded(row)) and row.missing.isdisjoint(_TRADED):
        return None
    return msgspec.structs.replace(
        row,
        buy_quantity=update.buy_quantity,
        sell_quantity=update.sell_quantity,
        # As the report's own text would have been read: the float nearest to the decimal.
        buy_value=float(update.buy_value),
        sell_value=float(update.sell_value),
        quantity=None,
        time_text=update.time_text or row.time_text,
        updated_ns=max(update.updated_ns, row.updated_ns),
        missing=row.missing.difference(_REPLACED),
        odd=tuple(odd for odd in row.odd if odd.partition("=")[0] not in _REPLACED.values()),
    )


def is_ahead(known: PositionRow, reported: PositionRow) -> bool:
    """Return whether the known row has trades of the same day that the reported one lacks. Rows
    whose quantities cannot be read are not compared."""
    if not (known.has_quantities and reported.has_quantities):
        return False
    return (
        _day(known) == _day(reported) != ""
        # What was carried changes over night only: a row that differs in it is of another day,
        # even where nothing has moved the time of its last change.
        and known.carried_buy_quantity == reported.carried_buy_quantity
        and known.carried_sell_quantity == reported.carried_sell_quantity
        and all(map(operator.ge, traded(known), traded(reported)))
        and traded(known) != traded(reported)
    )


def _day(report: PositionRow | PositionUpdate) -> str:
    """Return the day of a report, `2026/02/16`; empty when it is not known."""
    return report.time_text[:10]


def _is_of_earlier_day(update: PositionUpdate, row: PositionRow) -> bool:
    return "" != _day(update) < _day(row)
