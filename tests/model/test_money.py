"""Amounts are exact, whatever decimal context the program has set."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.model import money


@contextmanager
def odd_context() -> Iterator[None]:
    """What a program may have set: little precision, another rounding, other traps."""
    odd = decimal.Context(prec=3, rounding=decimal.ROUND_UP, traps=[decimal.FloatOperation])
    with decimal.localcontext(odd):
        yield


amounts = st.integers(-(10**15), 10**15).map(lambda paise: (paise, Decimal(paise)))


@given(amounts)
def test_paise_and_rupees_are_the_same_amount_in_any_context(amount):
    paise, number = amount
    with odd_context():
        rupees = money.from_paise(number)
        assert Fraction(rupees) == Fraction(paise, 100)
        assert money.to_paise(rupees) == paise
        assert money.rupees(rupees) == rupees


@given(st.lists(amounts, max_size=20))
def test_a_sum_is_exact_in_any_context(many):
    with odd_context():
        assert money.total(money.from_paise(paise) for paise, _ in many) == Decimal(
            f"{sum(paise for paise, _ in many)}e-2"
        )


@given(st.integers(1, 10**12), st.integers(1, 10**6))
def test_a_multiple_is_recognised_in_any_context(times, step):
    with odd_context():
        exact_step = money.exact(f"{step}e-3")
        value = money.exact(f"{times * step}e-3")
        assert money.is_multiple(value, exact_step)
        assert not money.is_multiple(money.exact(f"{times * step}5e-4"), exact_step)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1500.00", "1500.00"),
        ("1,500.00", "1500.00"),
        ("1,23,456.00", "123456.00"),
        ("12,34,56,789.5", "123456789.5"),
        ("1,234,567", "1234567"),
        ("+5", "5"),
        ("-1,500.00", "-1500.00"),
        (" 7.5 ", "7.5"),
        ("1.5e3", "1500"),
        (".5", "0.5"),
        (0.1, "0.1"),
        (150000, "150000"),
    ],
)
def test_ordinary_ways_to_write_a_number_are_read(text, number):
    with odd_context():
        assert money.exact(text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    ["", "-", "N/A", "1,50", "12,34", "1.500,00", "1,,000", ",500", "nan", "inf", "0x5", "१५",
     "1_000", "1" * 500, "1e9999", "1e-9999", "1e999999999999", True, None, [], float("nan"),
     float("inf"), Decimal("NaN"), Decimal("Infinity"), Decimal("1e5000"), 10**500],
)  # fmt: skip
def test_what_is_no_number_for_certain_is_refused(text):
    with pytest.raises(ValueError, match=r"number|range"):
        money.exact(text)


def test_an_amount_for_people_is_rounded_to_the_nearest_paisa_in_any_context():
    with odd_context():
        assert money.grouped(Decimal("-1234567.885")) == "-1,234,567.89"
        assert money.grouped(Decimal("1234567.894")) == "1,234,567.89"
        assert money.grouped(Decimal(5)) == "5.00"


def test_a_part_of_a_paisa_is_never_dropped():
    for part in ("0.001", "12.345"):
        with pytest.raises(ValueError, match="rupees and paise"):
            money.to_paise(Decimal(part))
    with pytest.raises(ValueError, match="rupees and paise"):
        money.from_paise(Decimal("150.5"))
