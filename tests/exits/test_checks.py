"""What a plan may ask for, without a broker."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import InvalidOrder, Product, Segment, Side
from neo_async.exits.checks import ExitSettings, changed_terms, known_price, plan_terms
from neo_async.exits.rules import exit_terms
from neo_async.exits.state import PlanState, PlanTerms, Resting
from neo_async.model.instruments import Instrument

D = Decimal
TODAY = date(2026, 11, 23)


def instrument(**changes: Any) -> Instrument:
    defaults: dict[str, Any] = {
        "segment": Segment.NSE_CM,
        "token": "19084",
        "symbol": "ITBEES-EQ",
        "name": "ITBEES",
        "tick_size": 0.01,
        "lot_size": 1,
        "freeze_quantity": 100,
    }
    return Instrument(**{**defaults, **changes})


def terms_of(
    settings: dict[str, Any],
    *,
    side: Side = Side.BUY,
    price: str | None = "39.00",
    product: Product = Product.CNC,
) -> PlanTerms:
    return plan_terms(
        instrument(),
        Segment.NSE_CM,
        "ITBEES-EQ",
        side,
        product,
        ExitSettings(**settings),
        price=None if price is None else D(price),
        today=TODAY,
    )


@pytest.mark.parametrize(
    ("settings", "product", "message"),
    [
        ({"trail": "40"}, Product.CNC, r"trail='40': must be less than the price 39\.00"),
        ({"trail": "39"}, Product.CNC, r"trail='39': must be less than the price"),
        ({"stop": "38", "until": date(2026, 11, 22)}, Product.CNC, "until='2026-11-22': is over"),
        ({"stop": "38", "until": "2026-12-31"}, Product.CNC, "must be a date"),
        ({"stop": "38", "until": TODAY}, Product.MIS, "a position of MIS is closed on its day"),
        ({"stop": "38", "stop_limit": "-1"}, Product.CNC, "stop_limit='-1'"),
        ({"stop": "38", "chase": float("nan")}, Product.CNC, "chase=nan: must be seconds"),
        ({"stop": "0"}, Product.CNC, "stop='0': must be above 0"),
        ({"target": "40", "trail_step": "0.1"}, Product.CNC, "needs trail"),
    ],
)
def test_what_cannot_be_is_refused_with_its_value(
    settings: dict[str, Any], product: Product, message: str
) -> None:
    with pytest.raises(InvalidOrder, match=message):
        terms_of(settings, product=product)


def test_a_choice_may_be_spelled_in_any_case() -> None:
    assert terms_of({"target": "40", "resting": "Target"}).resting is Resting.TARGET


@pytest.mark.parametrize("price", [None, 0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_price_that_cannot_be_is_none(price: float | None) -> None:
    assert known_price(price) is None


def test_a_stop_that_is_added_later_gets_the_distance_of_its_limit() -> None:
    terms = terms_of({"target": "40"})
    state = PlanState(id="abc", terms=terms, day=date(2026, 11, 23), stop=None)
    unset = msgspec.UNSET
    changed = changed_terms(state, D("39"), instrument(), stop="38.50", target=unset, trail=unset)
    assert changed.stop_limit == terms_of({"stop": "38.50"}).stop_limit > 0


@given(
    stop=st.decimals("0.02", "38.99", places=2),
    later=st.decimals("0.02", "38.99", places=2),
    limit=st.none() | st.decimals("0.01", "60.00", places=2),
)
def test_the_limit_of_a_long_stop_is_always_a_price(
    stop: Decimal, later: Decimal, limit: Decimal | None
) -> None:
    terms = terms_of({"stop": stop, "stop_limit": limit})
    state = PlanState(id="abc", terms=terms, day=date(2026, 11, 23), stop=terms.stop)
    assert 0 < exit_terms(state).price <= stop
    state.terms = changed_terms(
        state, D("39"), instrument(), stop=later, target=msgspec.UNSET, trail=msgspec.UNSET
    )
    state.stop = state.terms.stop
    assert 0 < exit_terms(state).price <= later
