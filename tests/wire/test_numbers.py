from __future__ import annotations

import re
from decimal import (
    ROUND_CEILING,
    ROUND_DOWN,
    ROUND_HALF_EVEN,
    ROUND_UP,
    Context,
    Decimal,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Rounded,
    Subnormal,
    localcontext,
)

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
        ("39.350000", "39.3500"),
        (0.0025, "0.0025"),
        (1e16, "10000000000000000"),
        (Decimal("39.35"), "39.35"),
        (Decimal("1E+3"), "1000"),
        (Decimal("39.35000"), "39.3500"),
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
        (0.1 + 0.2, "more than 4 decimals, .* such as '0.30'"),
        (100.10000000000001, "more than 4 decimals, .* such as '100.10'"),
        (39.949999999999996, "such as '39.95'"),
        (Decimal("0.00123"), "such as '0.0012'"),
        ("0.00001", "more than 4 decimals"),
        (1e-7, "more than 4 decimals"),
        ("1e-999999999", "small"),
        (1e17, "range"),
        ("9" * 5000, "range"),
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
    st.integers(0, 10**12).map(lambda paise: paise / 100),
    st.integers(0, 10**12).map(lambda units: units / 10_000),
    st.decimals(min_value=0, max_value=10**12, allow_nan=False, places=4),
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


SIGNALS = [Inexact, Rounded, FloatOperation, InvalidOperation, Subnormal]
any_context = st.builds(
    Context,
    prec=st.integers(1, 12),
    rounding=st.sampled_from([ROUND_UP, ROUND_DOWN, ROUND_HALF_EVEN, ROUND_CEILING]),
    traps=st.lists(st.sampled_from(SIGNALS)),
)


@given(prices, any_context)
def test_no_decimal_context_of_the_program_changes_a_price(
    price: int | float | Decimal, context: Context
) -> None:
    plain = price_text("price", price)
    with localcontext(context):
        assert price_text("price", price) == plain


@given(
    st.floats(min_value=0, allow_nan=False)
    | st.decimals(min_value=0, allow_infinity=False, allow_nan=False)
    | st.text("0123456789.eE+-", max_size=30),
    any_context,
)
def test_a_price_of_more_than_four_decimals_never_goes_out(price: Price, context: Context) -> None:
    with localcontext(context):
        try:
            text = price_text("price", price)
        except InvalidOrder:
            return
    assert len(text.partition(".")[2]) <= 4
    assert len(text) < 30


@given(st.text(max_size=12))
def test_any_text_is_a_price_or_refused(text: str) -> None:
    try:
        written = price_text("price", text)
    except InvalidOrder:
        return
    assert PLAIN.fullmatch(written)
    assert Decimal(written) == Decimal(text)
