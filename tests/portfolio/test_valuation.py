from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from neo_async.model.portfolio import Holding, Position, PositionRow
from neo_async.portfolio.valuation import value_position


def cash(**fields: Any) -> PositionRow:
    return PositionRow(segment="nse_cm", symbol="ITBEES-EQ", token="19084", **fields)


def future(**fields: Any) -> PositionRow:
    return PositionRow(segment="nse_fo", symbol="TCS26JULFUT", token="61304", **fields)


def held(average_price: float | None = 100.0) -> Holding:
    return Holding(symbol="ITBEES", token="19084", quantity=1, average_price=average_price)


def amounts(position: Position) -> tuple[float | None, ...]:
    return (
        position.average_price,
        position.realised,
        position.unrealised,
        position.pnl,
        position.mtm_pnl,
    )


# --- the documents' own figures ---------------------------------------------------------------


def test_the_documented_future() -> None:
    row = future(buy_quantity=225, buy_value=475200.0, last_price=2117.0, lot_size=225)
    position = value_position(row, None, row.last_price)
    assert position == Position(
        segment="nse_fo",
        symbol="TCS26JULFUT",
        token="61304",
        product="",
        net_quantity=225,
        average_price=2112.0,
        last_price=2117.0,
        realised=0.0,
        unrealised=1125.0,
        pnl=1125.0,
        mtm_pnl=1125.0,
        unknown_reason="",
        row=row,
    )


# --- the arithmetic, case by case -------------------------------------------------------------


def test_carried_equity_costs_what_the_holding_says_and_the_day_counts_from_the_close() -> None:
    row = cash(carried_buy_quantity=10, carried_buy_value=1100.0)
    position = value_position(row, held(100.0), 120.0)
    assert amounts(position) == (100.0, 0.0, 200.0, 200.0, 100.0)


def test_equity_carried_and_bought_today_is_averaged() -> None:
    row = cash(carried_buy_quantity=10, carried_buy_value=1100.0, buy_quantity=30, buy_value=3600.0)
    position = value_position(row, held(100.0), 130.0)
    assert position.net_quantity == 40
    assert position.average_price == 115.0
    assert position.pnl == 600.0
    assert position.mtm_pnl == 500.0


def test_carried_equity_sold_today_is_realised_against_its_cost() -> None:
    row = cash(carried_buy_quantity=10, carried_buy_value=1100.0, sell_quantity=4, sell_value=480.0)
    position = value_position(row, held(100.0), 130.0)
    assert position.net_quantity == 6
    assert amounts(position) == (100.0, 80.0, 180.0, 260.0, 160.0)


def test_short_carried_equity_is_valued_at_the_holding_s_average() -> None:
    row = cash(carried_sell_quantity=10, carried_sell_value=900.0)
    position = value_position(row, held(100.0), 80.0)
    assert position.net_quantity == -10
    assert amounts(position) == (100.0, 0.0, 200.0, 200.0, 100.0)


def test_a_carried_derivative_costs_its_previous_settlement() -> None:
    row = future(carried_buy_quantity=75, carried_buy_value=75 * 24000.0)
    position = value_position(row, None, 24100.0)
    assert amounts(position) == (24000.0, 0.0, 7500.0, 7500.0, 7500.0)


def test_a_short_derivative_averages_its_sells() -> None:
    row = future(sell_quantity=75, sell_value=75 * 100.0, buy_quantity=25, buy_value=25 * 80.0)
    position = value_position(row, None, 90.0)
    assert position.net_quantity == -50
    assert amounts(position) == (100.0, 500.0, 500.0, 1000.0, 1000.0)


def test_the_factor_scales_price_to_value() -> None:
    row = future(
        buy_quantity=10,
        buy_value=50_000.0,
        multiplier=100.0,
        general_numerator=1.0,
        general_denominator=2.0,
    )
    position = value_position(row, None, 110.0)
    assert row.factor == 50.0
    assert amounts(position) == (100.0, 0.0, 5000.0, 5000.0, 5000.0)


def test_a_zero_factor_counts_as_one() -> None:
    row = future(multiplier=0.0, general_denominator=0.0, price_numerator=0.0)
    assert row.factor == 1.0


@pytest.mark.parametrize(("precision", "average"), [(2, 33.33), (4, 33.3333), (0, 33.33)])
def test_only_the_average_is_rounded(precision: int, average: float) -> None:
    row = cash(buy_quantity=3, buy_value=100.0, precision=precision)
    position = value_position(row, None, 33.123456)
    assert position.average_price == average
    assert position.pnl == pytest.approx(-0.629632)


# --- what cannot be known ---------------------------------------------------------------------


def test_carried_equity_without_a_holding_has_no_cost() -> None:
    row = cash(carried_buy_quantity=10, carried_buy_value=1100.0)
    position = value_position(row, None, 120.0)
    assert position.net_quantity == 10
    assert amounts(position) == (None, None, None, None, 100.0)
    assert position.unknown_reason == (
        "average price and P&L: 10 units were carried from earlier days, "
        "and there is no holding with token '19084'"
    )


def test_a_holding_without_an_average_price_does_not_help() -> None:
    position = value_position(cash(carried_buy_quantity=10), held(None), 120.0)
    assert position.average_price is None
    assert "no average price in the holding" in position.unknown_reason


@pytest.mark.parametrize("price", [None, 0.0, math.nan, math.inf])
def test_without_a_last_price_only_what_is_open_is_unknown(price: float | None) -> None:
    row = cash(buy_quantity=10, buy_value=1000.0, sell_quantity=4, sell_value=480.0)
    position = value_position(row, None, price)
    assert amounts(position) == (100.0, 80.0, None, None, None)
    assert position.last_price is None
    assert position.unknown_reason == "P&L: there is no last price"


def test_both_reasons_are_given() -> None:
    position = value_position(cash(carried_buy_quantity=10), None, None)
    assert amounts(position) == (None, None, None, None, None)
    assert "no holding" in position.unknown_reason
    assert "no last price" in position.unknown_reason


def test_a_closed_position_needs_no_last_price() -> None:
    row = cash(buy_quantity=10, buy_value=1000.0, sell_quantity=10, sell_value=1080.0)
    position = value_position(row, None, None)
    assert position.net_quantity == 0
    assert amounts(position) == (0.0, 80.0, 0.0, 80.0, 80.0)
    assert position.unknown_reason == ""


def test_intraday_equity_needs_no_holding() -> None:
    assert not cash(buy_quantity=10, buy_value=1000.0).needs_holding
    assert cash(carried_buy_quantity=10).needs_holding
    assert not future(carried_buy_quantity=75).needs_holding


# --- properties -------------------------------------------------------------------------------

quantities = st.integers(0, 10_000)
prices = st.integers(5, 2_000_000).map(lambda paise: paise / 100)


@st.composite
def position_rows(draw: st.DrawFn) -> PositionRow:
    buy, sell = draw(quantities), draw(quantities)
    # Carried on one side, as an account is at the start of a day.
    carried, long = draw(quantities), draw(st.booleans())
    carried_value = carried * draw(prices)
    listed: Callable[..., PositionRow] = draw(st.sampled_from([cash, future]))
    return listed(
        buy_quantity=buy,
        sell_quantity=sell,
        buy_value=buy * draw(prices),
        sell_value=sell * draw(prices),
        carried_buy_quantity=carried if long else 0,
        carried_buy_value=carried_value if long else 0.0,
        carried_sell_quantity=0 if long else carried,
        carried_sell_value=0.0 if long else carried_value,
    )


def close(left: float | None, right: float | None, row: PositionRow) -> bool:
    """Equal up to the noise of adding amounts of this size."""
    assert left is not None
    assert right is not None
    turnover = row.buy_value + row.sell_value + row.carried_buy_value + row.carried_sell_value
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9 * (1 + turnover))


@given(position_rows(), prices, prices)
def test_realised_and_unrealised_make_up_the_pnl(
    row: PositionRow, cost: float, price: float
) -> None:
    position = value_position(row, held(cost), price)
    assert position.realised is not None
    assert position.unrealised is not None
    assert close(position.realised + position.unrealised, position.pnl, row)


@given(position_rows(), prices, prices)
def test_what_is_open_earns_its_distance_from_the_average(
    row: PositionRow, cost: float, price: float
) -> None:
    position = value_position(row, held(cost), price)
    total_buy = row.buy_value + (row.carried_buy_value if row.is_derivative else 0.0)
    assume(position.net_quantity > 0 and row.carried_quantity >= 0)
    if not row.is_derivative:
        total_buy += cost * row.carried_quantity
    average = total_buy / (row.buy_quantity + row.carried_buy_quantity)
    open_gain = position.net_quantity * (price - average)
    assert position.unrealised == pytest.approx(open_gain, rel=1e-6, abs=1.0)


@given(position_rows(), prices, prices)
def test_a_derivative_s_pnl_is_its_pnl_of_the_day(
    row: PositionRow, cost: float, price: float
) -> None:
    assume(row.is_derivative)
    position = value_position(row, held(cost), price)
    assert close(position.pnl, position.mtm_pnl, row)


@given(position_rows(), prices, st.none() | prices, prices)
def test_a_closed_position_is_worth_the_same_at_any_price(
    row: PositionRow, cost: float, price: float | None, other: float
) -> None:
    net = row.carried_quantity + row.buy_quantity - row.sell_quantity
    closed = msgspec.structs.replace(
        row,
        buy_quantity=row.buy_quantity + max(0, -net),
        sell_quantity=row.sell_quantity + max(0, net),
    )
    position = value_position(closed, held(cost), price)
    assert position.net_quantity == 0
    assert position.average_price == 0.0
    assert close(position.unrealised, 0.0, closed)
    assert amounts(position) == amounts(value_position(closed, held(cost), other))
    assert position.unknown_reason == ""


@given(position_rows(), prices)
def test_what_is_none_is_explained_and_nothing_else(row: PositionRow, price: float) -> None:
    for position in (value_position(row, None, price), value_position(row, None, None)):
        assert (None in amounts(position)) is bool(position.unknown_reason)


# --- numbers that are not known ---------------------------------------------------------------


def lacking(row: PositionRow, *names: str) -> PositionRow:
    return msgspec.structs.replace(row, missing=frozenset(names), odd=("x='?' is not a number",))


@pytest.mark.parametrize(
    "name", ["buy_value", "multiplier", "price_denominator", "general_numerator", "segment"]
)
def test_amounts_that_need_an_unknown_number_are_none_with_its_reason(name: str) -> None:
    row = lacking(future(buy_quantity=65, buy_value=6500.0), name)
    position = value_position(row, None, 1.0)
    assert amounts(position) == (None,) * 5
    assert position.net_quantity == 65
    assert "x='?' is not a number" in position.unknown_reason


@pytest.mark.parametrize(
    "name", ["buy_quantity", "sell_quantity", "carried_buy_quantity", "carried_sell_quantity"]
)
def test_an_unknown_quantity_makes_the_net_quantity_unknown(name: str) -> None:
    row = lacking(future(buy_quantity=65, buy_value=6500.0), name)
    position = value_position(row, None, 1.0)
    assert (position.net_quantity, amounts(position)) == (None, (None,) * 5)
    assert not row.has_quantities


def test_an_unknown_value_of_no_units_is_nothing() -> None:
    row = lacking(future(buy_quantity=65, buy_value=6500.0), "sell_value", "carried_buy_value")
    position = value_position(row, None, 101.0)
    assert (position.pnl, position.unknown_reason) == (65.0, "")


def test_an_unknown_previous_close_leaves_the_profit_against_cost() -> None:
    row = lacking(cash(carried_buy_quantity=10, carried_buy_value=1.0), "carried_buy_value")
    position = value_position(row, held(100.0), 101.0)
    assert (position.pnl, position.mtm_pnl) == (10.0, None)
    assert position.unknown_reason == "P&L of the day: x='?' is not a number"


any_number = st.floats() | st.sampled_from([0.0, 1.0, -1.0, 1e308, math.nan, math.inf])


@given(any_number, any_number, any_number, any_number, st.integers(-(2**63), 2**63 - 1))
def test_no_amount_is_ever_other_than_finite(
    value: float, carried: float, factor: float, price: float, precision: int
) -> None:
    row = future(
        buy_quantity=10,
        sell_quantity=3,
        buy_value=value,
        carried_buy_quantity=5,
        carried_buy_value=carried,
        multiplier=factor,
        price_denominator=value,
        precision=precision,
    )
    position = value_position(row, None, price)
    assert all(amount is None or math.isfinite(amount) for amount in amounts(position))
    assert None not in amounts(position) or position.unknown_reason


@given(
    quantity=st.integers(1, 1000),
    paise=st.integers(1, 10**7),
    is_sold=st.booleans(),
)
def test_no_amount_is_a_negative_zero_or_the_noise_of_binary_fractions(
    quantity: int, paise: int, is_sold: bool
) -> None:
    price = paise / 100
    value = sum([price] * quantity)  # as a broker that adds fills up
    fields = {"buy_quantity": quantity, "buy_value": value}
    if is_sold:
        fields |= {"sell_quantity": quantity, "sell_value": quantity * price}
    position = value_position(cash(**fields), None, price)
    for amount in amounts(position)[1:]:
        assert amount is not None
        assert f"{amount:.2f}" != "-0.00"
        assert amount == 0.0 or abs(amount) >= 0.005
