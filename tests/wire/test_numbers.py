from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import InvalidOrder
from neo_async.model.orders import Price
from neo_async.wire.numbers import price_text

PLAIN = re.compile(r"[0-9]+(\.[0-9]+)?")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("39.35", "39.35"),
        ("39.350", "39.350"),
        ("39.0", "39"),
        (".5", "0.5"),
        ("5.", "5"),
        ("+5", "5"),
        ("007.50", "7.50"),
        ("1e3", "1000"),
        (39, "39"),
        (39.35, "39.35"),
        (39.0, "39"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-7, "0.0000001"),
        (1e16, "10000000000000000"),
        (Decimal("39.35"), "39.35"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-7"), "0.0000001"),
    ],
)
def test_a_price_goes_out_as_exact_decimal_text(value: Price, text: str) -> None:
    assert price_text("price", value) == text


@pytest.mark.parametrize(
    "zero", ["0", "0.0", "0.00", "00", "-0", "0e5", 0, 0.0, -0.0, Decimal("0.00"), Decimal("-0E+9")]
)
def test_zero_is_always_a_bare_zero(zero: Price) -> None:
    assert price_text("price", zero) == "0"


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("", "decimal text"),
        (" 39.35", "decimal text"),
        ("39,35", "decimal text"),
        ("1_000", "decimal text"),
        ("३९", "decimal text"),
        (".", "decimal text"),
        ("nan", "decimal text"),
        ("-1", "negative"),
        (-1, "negative"),
        (-0.05, "negative"),
        (Decimal("-0.05"), "negative"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (Decimal("sNaN"), "finite"),
        (Decimal("-Infinity"), "finite"),
        ("1e401", "range"),
        ("1e999999999", "range"),
        ("1e99999999999999999999", "range"),
        (True, "must be a number"),
        (None, "must be a number"),
        ([39.35], "must be a number"),
    ],
)
def test_what_is_no_price_is_refused_by_field_value_and_rule(value: Price, rule: str) -> None:
    with pytest.raises(InvalidOrder, match=rule) as caught:
        price_text("trigger", value)
    assert caught.value.field == "trigger"
    assert caught.value.value is value


def test_a_subclass_of_float_is_read_by_its_value() -> None:
    class Price64(float):
        def __repr__(self) -> str:
            return f"np.float64({float(self)!r})"

    assert price_text("price", Price64(39.35)) == "39.35"


prices = st.one_of(
    st.integers(min_value=0, max_value=10**12),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    st.decimals(min_value=0, max_value=10**12, allow_nan=False, places=4),
    st.decimals(min_value=0, allow_nan=False, allow_infinity=False).filter(
        lambda price: abs(price.adjusted()) < 300
    ),
)


@given(prices)
def test_the_text_is_plain_and_loses_nothing(price: int | float | Decimal) -> None:
    text = price_text("price", price)
    assert PLAIN.fullmatch(text)
    exact = Decimal(repr(price)) if isinstance(price, float) else Decimal(price)
    assert Decimal(text) == exact


@given(prices)
def test_text_is_read_like_the_number_it_spells(price: int | float | Decimal) -> None:
    text = price_text("price", price)
    assert price_text("price", text) == text


@given(st.text(max_size=12))
def test_any_text_is_a_price_or_refused(text: str) -> None:
    try:
        written = price_text("price", text)
    except InvalidOrder:
        return
    assert PLAIN.fullmatch(written)
    assert Decimal(written) == Decimal(text)
