"""Valuation: average price, value and P&L of positions, by the broker's documented arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from neo_async.model.portfolio import (
    QUANTITIES,
    Holding,
    Position,
    PositionKey,
    PositionRow,
    TotalPnl,
)
from neo_async.portfolio.position_rows import SEGMENTS, instrument_of


def value_position(row: PositionRow, holding: Holding | None, last_price: float | None) -> Position:
    """Return the position of a row, valued by the broker's documented arithmetic.

    `holding` is the one whose `token` equals the row's (None when there is none): equity carried
    from earlier days is valued at its average price, which the row does not have. A `last_price` of
    0 means that the broker has none; an average price of 0 counts as the price paid, as
    with the broker itself.
    Only the average price is rounded, to the row's precision: amounts are to be rounded where they
    are shown.

    An amount that needs a number which the row lacks, or that is no finite number, is None.
    """
    lacking = _lacking(row)
    net = average = realised = unrealised = pnl = mtm_pnl = None
    reasons = []
    bought = row.carried_buy_quantity + row.buy_quantity
    sold = row.carried_sell_quantity + row.sell_quantity
    if row.has_quantities:
        net = bought - sold
    price = last_price if last_price and math.isfinite(last_price) else None

    if not lacking.isdisjoint(_NEEDED):
        reasons.append(f"quantity, average price and P&L: {_problem(row, lacking & _NEEDED)}")
    elif net is not None:
        factor = row.factor
        cost = _carried_cost(row, holding, lacking)
        if cost is None:
            reasons.append(f"average price and P&L: {_lack_of_cost(row, holding, lacking)}")
        else:
            total_buy = row.buy_value + cost[0]
            total_sell = row.sell_value + cost[1]
            buy_average = _average(total_buy, bought * factor)
            sell_average = _average(total_sell, sold * factor)
            average = buy_average if net > 0 else sell_average if net < 0 else 0.0
            average = round(average, _decimals(row))
            closed = min(bought, sold)
            realised = closed * (sell_average - buy_average) * factor if closed else 0.0
        if net and price is None:
            reasons.append("P&L: there is no last price")
        else:
            open_value = net * price * factor if price else 0.0
            if not lacking.isdisjoint(_CARRIED_VALUES):
                reasons.append(f"P&L of the day: {_problem(row, lacking & _CARRIED_VALUES)}")
            else:
                mtm_pnl = (
                    (row.sell_value + row.carried_sell_value)
                    - (row.buy_value + row.carried_buy_value)
                    + open_value
                )
            if realised is not None:
                pnl = (total_sell - total_buy) + open_value
                unrealised = pnl - realised
        if not all(map(_is_finite, (average, realised, unrealised, pnl, mtm_pnl))):
            average = realised = unrealised = pnl = mtm_pnl = None
            reasons.append("average price and P&L: a number of the row is not finite")
        realised, unrealised, pnl, mtm_pnl = map(_settled, (realised, unrealised, pnl, mtm_pnl))
    return Position(
        segment=row.segment,
        symbol=row.symbol,
        token=row.token,
        product=row.product,
        net_quantity=net,
        average_price=average,
        last_price=price,
        realised=realised,
        unrealised=unrealised,
        pnl=pnl,
        mtm_pnl=mtm_pnl,
        unknown_reason="; ".join(reasons),
        row=row,
    )


def total_pnl(positions: Mapping[PositionKey, Position]) -> TotalPnl:
    """Return the P&L over all positions."""
    return TotalPnl(
        realised=_sum(position.realised for position in positions.values()),
        unrealised=_sum(position.unrealised for position in positions.values()),
        pnl=_sum(position.pnl for position in positions.values()),
        mtm_pnl=_sum(position.mtm_pnl for position in positions.values()),
        unknown_reasons={
            key: position.unknown_reason
            for key, position in positions.items()
            if position.unknown_reason
        },
    )


def holdings_by_instrument(holdings: Iterable[Holding]) -> dict[str, Holding]:
    """Return the holdings by instrument (`nse_cm|11536`), or by token alone where a holding does
    not name its exchange. Several rows of one instrument are one holding, whose average price is
    that of all units."""
    joined: dict[str, Holding] = {}
    for holding in holdings:
        token, segment = holding.token.strip(), holding.segment.strip().lower()
        key = f"{segment}|{token}" if segment in SEGMENTS else token
        known = joined.get(key)
        joined[key] = holding if known is None else _joined(known, holding)
    return joined


def holding_of(row: PositionRow, holdings: Mapping[str, Holding]) -> Holding | None:
    """Return the holding of a position's row: the one of its exchange and token, or of its token
    where the holding does not name an exchange."""
    return holdings.get(instrument_of(row)) or holdings.get(row.token.strip())


def _joined(one: Holding, other: Holding) -> Holding:
    quantity = one.quantity + other.quantity
    average = None
    if one.average_price is not None and other.average_price is not None and quantity:
        cost = one.average_price * one.quantity + other.average_price * other.quantity
        average = cost / quantity
    return msgspec.structs.replace(one, quantity=quantity, average_price=average, cost=None)


def _sum(amounts: Iterable[float | None]) -> float | None:
    known = []
    for amount in amounts:
        if amount is None:
            return None
        known.append(amount)
    try:
        total = math.fsum(known)
    except (OverflowError, ValueError):  # infinite amounts
        return None
    return _settled(total) if math.isfinite(total) else None


def _settled(amount: float | None) -> float | None:
    """Return an amount without the noise of binary fractions around 0, which prints as -0.00."""
    return 0.0 if amount is not None and -_NOISE < amount < _NOISE else amount


_CARRIED_VALUES = frozenset({"carried_buy_value", "carried_sell_value"})
_NEEDED = QUANTITIES | {
    "segment",
    "buy_value",
    "sell_value",
    "multiplier",
    "price_numerator",
    "price_denominator",
    "general_numerator",
    "general_denominator",
}
"""Fields without which neither cost nor P&L of a position can be calculated."""

_QUANTITY_OF = {
    "buy_value": "buy_quantity",
    "sell_value": "sell_quantity",
    "carried_buy_value": "carried_buy_quantity",
    "carried_sell_value": "carried_sell_quantity",
}


def _lacking(row: PositionRow) -> frozenset[str]:
    """Return the fields of a row that could not be read and are needed. The value of no units is 0,
    whatever the broker sent."""
    if not row.missing:
        return row.missing
    return frozenset(
        name
        for name in row.missing
        if (quantity := _QUANTITY_OF.get(name)) is None
        or quantity in row.missing
        or getattr(row, quantity)
    )


def _problem(row: PositionRow, lacking: frozenset[str]) -> str:
    return "; ".join(row.odd) or f"the broker's row has no {', '.join(sorted(lacking))}"


def _carried_cost(
    row: PositionRow, holding: Holding | None, lacking: frozenset[str]
) -> tuple[float, float] | None:
    """Return the cost of the carried quantity as (buy side, sell side); None when it is not
    known."""
    carried = row.carried_quantity
    if carried == 0:
        return 0.0, 0.0
    if row.is_derivative:
        if not lacking.isdisjoint(_CARRIED_VALUES):
            return None
        return (row.carried_buy_value, 0.0) if carried > 0 else (0.0, row.carried_sell_value)
    if holding is None or holding.average_price is None:
        return None
    cost = holding.average_price * abs(carried)
    return (cost, 0.0) if carried > 0 else (0.0, cost)


def _lack_of_cost(row: PositionRow, holding: Holding | None, lacking: frozenset[str]) -> str:
    if row.is_derivative:
        return _problem(row, lacking & _CARRIED_VALUES)
    lack = "no holding" if holding is None else "no average price in the holding"
    return (
        f"{row.carried_quantity} units were carried from earlier days, and there is {lack} with "
        f"token {row.token!r}"
    )


def _average(total: float, quantity: float) -> float:
    return total / quantity if quantity else 0.0


def _decimals(row: PositionRow) -> int:
    """Return the decimals of a price; the usual two where the row's number of them is
    impossible."""
    return row.precision if 0 < row.precision <= _MOST_DECIMALS else 2


_MOST_DECIMALS = 8
_NOISE = 0.005
"""Rupees, half a paisa, below which an amount is 0."""


def _is_finite(amount: float | None) -> bool:
    return amount is None or math.isfinite(amount)
