"""What the scrip master says of orders."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, Rounded, localcontext

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async.errors import InvalidOrder
from neo_async.execution.validation import (
    MAX_SLICES,
    check_against,
    check_bracket,
    check_tradable,
    slices,
)
from neo_async.model.enums import OffsetKind, Segment
from neo_async.model.instruments import Instrument
from neo_async.model.orders import Bracket
from neo_async.wire.scripmaster_writer import write_scripmaster

OPTION = Instrument(
    segment=Segment.NSE_FO,
    token="71472",
    symbol="NIFTY26JUN22250CE",
    name="NIFTY",
    lot_size=65,
    tick_size=0.05,
    freeze_quantity=1755,
    lower_band=0.05,
    upper_band=1022.1,
)


def check(instrument: Instrument = OPTION, **given: object) -> None:
    """Check terms whose prices are given as text."""
    prices = {name: Decimal(str(given.pop(name))) for name in ("price", "trigger") if name in given}
    check_against(instrument, **given, **prices)  # type: ignore[arg-type]


def refusal(instrument: Instrument = OPTION, **given: object) -> InvalidOrder:
    with pytest.raises(InvalidOrder) as caught:
        check(instrument, **given)
    return caught.value


def like(**changes: object) -> Instrument:
    return msgspec.structs.replace(OPTION, **changes)


@given(st.integers(1, 10**9), st.sampled_from([0.01, 0.05, 0.1, 0.0025, 1.0, 0.5]))
def test_any_whole_number_of_ticks_is_a_price_and_nothing_between(ticks: int, tick: float) -> None:
    instrument = like(tick_size=tick, lower_band=None, upper_band=None)
    price = ticks * Decimal(repr(tick))
    check(instrument, price=f"{price:f}", trigger=f"{price:f}")
    between = f"{price + Decimal(repr(tick)) / 4:f}"
    assert refusal(instrument, price=between).field == "price"
    assert refusal(instrument, trigger=between).field == "trigger"


def test_ticks_are_decimals_not_binary_fractions() -> None:
    # 0.35 % 0.05 and 1022.1 % 0.05 are not 0 in binary.
    for price in ("0.35", "1022.1", "1022.10", "39.05"):
        check(OPTION, price=price)
    error = refusal(price="39.07")
    assert (error.value, error.rule) == ("39.07", "NIFTY26JUN22250CE has prices in steps of 0.05")


def test_a_price_of_any_length_is_reckoned_with() -> None:
    wide = like(lower_band=None, upper_band=None)
    check(wide, price="1" + "0" * 400)
    assert refusal(wide, price="1" + "0" * 400 + ".01")


def test_the_band_holds_both_its_ends() -> None:
    for price in ("0.05", "1022.1"):
        check(OPTION, price=price, trigger=price)
    assert "0.05 to 1022.1" in refusal(price="1022.15").rule
    assert refusal(trigger="1022.15").field == "trigger"
    check(OPTION, price="1022.15", is_banded=False)
    check(like(upper_band=None), price="1022.15")


def test_quantities_are_whole_lots_up_to_the_freeze_quantity() -> None:
    for quantity in (65, 1755):
        check(OPTION, quantity=quantity)
    assert "lots of 65" in refusal(quantity=64).rule
    assert "freeze quantity, 1755" in refusal(quantity=1820).rule
    check(OPTION, quantity=1820, is_sliced=True)
    assert "lots of 65" in refusal(quantity=1819, is_sliced=True).rule
    check(like(freeze_quantity=None), quantity=65 * 10**6)


def test_terms_that_are_not_given_or_not_known_are_not_checked() -> None:
    check(OPTION)
    check(like(tick_size=0.0, lower_band=None), price="39.0701")


def test_distances_of_a_bracket_in_rupees_are_whole_ticks() -> None:
    check_bracket(OPTION, Bracket(target="1.05", stop=0.5, trail=0))
    for field in ("target", "stop", "trail"):
        prices = {"target": "1.05", "stop": "1.00", field: "1.02"}
        with pytest.raises(InvalidOrder) as caught:
            check_bracket(OPTION, Bracket(**prices))  # type: ignore[arg-type]
        assert caught.value.field == f"bracket.{field}"
    check_bracket(OPTION, Bracket(target=7, stop=3, trail=1, kind=OffsetKind.TICKS))


def banded(low: int, high: int) -> Instrument:
    """An instrument with a band in paise, as the scrip masters write it."""
    lower, upper = (float(f"{paise:g}") / 100 for paise in (low, high))
    return like(lower_band=lower, upper_band=upper, tick_size=0.01)


@given(st.integers(1, 10**8), st.integers(0, 10**8))
def test_a_price_at_the_circuit_limit_is_taken_however_the_file_rounds_it(
    low: int, width: int
) -> None:
    instrument = banded(low, low + width)
    for paise in (low, low + width):
        check(instrument, price=f"{paise // 100}.{paise % 100:02}")


@given(st.integers(10**4, 10**8), st.integers(0, 10**8))
def test_a_price_beyond_the_sharpness_of_the_band_is_refused(low: int, width: int) -> None:
    instrument = banded(low, low + width)
    for paise in (low - low // 10**5 - 1, low + width + (low + width) // 10**5 + 1):
        with pytest.raises(InvalidOrder, match="outside the day's band"):
            check(instrument, price=f"{paise // 100}.{paise % 100:02}")


def test_no_decimal_context_of_the_program_changes_what_is_on_tick_and_in_the_band() -> None:
    instrument = banded(2_250_820, 2_751_225)
    for prec in (1, 3, 6):
        with localcontext(Context(prec=prec, traps=[Inexact, Rounded])):
            check(instrument, price="27512.25", trigger="22508.20")
            with pytest.raises(InvalidOrder):
                check(instrument, price="27512.26")
            with pytest.raises(InvalidOrder):
                check(instrument, price="25000.001")
            written = write_scripmaster([instrument])
        assert written == write_scripmaster([instrument])


@given(st.integers(1, 100), st.integers(1, 10_000), st.integers(1, 100))
def test_slices_are_as_few_whole_lots_as_the_exchange_takes(
    lot: int, freeze: int, lots: int
) -> None:
    instrument = like(lot_size=lot, freeze_quantity=max(freeze, lot))
    pieces = slices(lots * lot, instrument)
    assert sum(pieces) == lots * lot
    largest = max(freeze, lot) // lot * lot
    assert all(0 < piece <= largest and piece % lot == 0 for piece in pieces)
    assert len(pieces) == -(-lots * lot // largest)


def test_without_a_freeze_quantity_there_is_one_slice() -> None:
    assert slices(6500, like(freeze_quantity=None)) == [6500]


def test_a_quantity_that_would_be_a_flood_of_orders_is_refused() -> None:
    assert len(slices(1755 * MAX_SLICES, OPTION)) == MAX_SLICES
    with pytest.raises(InvalidOrder, match="more than 100 orders of 1755"):
        slices(1755 * MAX_SLICES + 65, OPTION)


@pytest.mark.parametrize(
    ("segment", "token", "symbol"),
    [
        (Segment.NSE_CM, "26000", "NIFTY"),
        (Segment.NSE_CM, "26013", "NIFTYNXT50"),
        (Segment.BSE_CM, "1", "SENSEX"),
    ],
)
def test_an_index_cannot_be_traded(segment: Segment, token: str, symbol: str) -> None:
    index = like(segment=segment, token=token, symbol=symbol, lot_size=1, tick_size=0.0)
    with pytest.raises(InvalidOrder) as caught:
        check_tradable(index)
    error = caught.value
    assert (error.field, error.value) == ("symbol", symbol)
    assert error.rule.startswith("is an index, which has no orders: name a contract")
    check(like(segment=segment, token=token, symbol=symbol, series="EQ"), quantity=65)
