"""Valuation: the value, P&L and average price of a position."""

from __future__ import annotations

import math

from neo_async.model.portfolio import QUANTITIES, Holding, Position, PositionRow


def value_position(row: PositionRow, holding: Holding | None, last_price: float | None) -> Position:
    """Value a position by the broker's documented arithmetic.

    `holding` is the one whose `token` equals the row's (None when there is none): equity carried
    from earlier days is valued at its average price, which the row does not know. A `last_price`
    of 0 is the broker's way of not knowing it; an average price of 0 counts as what was paid, as
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
"""Fields without which neither cost nor P&L of a position can be worked out."""

_QUANTITY_OF = {
    "buy_value": "buy_quantity",
    "sell_value": "sell_quantity",
    "carried_buy_value": "carried_buy_quantity",
    "carried_sell_value": "carried_sell_quantity",
}


def _lacking(row: PositionRow) -> frozenset[str]:
    """The fields of a row that say nothing. The value of no units is 0, whatever stands there."""
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
    """Cost of the carried quantity as (buy side, sell side); None when it is not known."""
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
    """Of a price; the usual two where the row has none that any price has."""
    return row.precision if 0 < row.precision <= _MOST_DECIMALS else 2


_MOST_DECIMALS = 8


def _is_finite(amount: float | None) -> bool:
    return amount is None or math.isfinite(amount)
