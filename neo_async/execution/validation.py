"""The rules of the scrip master for orders: tick, lot, freeze quantity and price band.

Each rule raises InvalidOrder with the field, its value and the rule.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

from neo_async.errors import InvalidOrder
from neo_async.model.enums import OffsetKind
from neo_async.model.instruments import Instrument
from neo_async.model.numbers import EXACT
from neo_async.model.orders import Bracket
from neo_async.wire.numbers import price_text

MAX_SLICES = 100
"""Orders that one call may turn into: ten seconds at the published rate."""

_BAND_DIGITS = 6
"""Significant digits of a price band in the scrip master."""


def check_against(
    instrument: Instrument,
    *,
    quantity: int | None = None,
    price: Decimal | None = None,
    trigger: Decimal | None = None,
    is_banded: bool = True,
    is_sliced: bool = False,
) -> None:
    """Check the given terms against the scrip master: prices on tick and, with `is_banded`, inside
    the circuit limits; the quantity in lots and, unless `is_sliced`, not above the freeze quantity.
    Raises InvalidOrder."""
    if quantity is not None:
        lot, freeze = instrument.lot_size, instrument.freeze_quantity
        if quantity % lot:
            raise InvalidOrder(
                "quantity", quantity, f"{instrument.symbol} trades in lots of {lot} units"
            )
        if freeze is not None and quantity > freeze and not is_sliced:
            raise InvalidOrder(
                "quantity",
                quantity,
                f"is above {instrument.symbol}'s freeze quantity, {freeze}: "
                "place_sliced() sends several orders",
            )
    for field, given in (("price", price), ("trigger", trigger)):
        if given is None:
            continue
        check_tick(field, given, instrument)
        if is_banded:
            check_band(field, given, instrument)


def check_tradable(instrument: Instrument) -> Instrument:
    """Return the instrument. Raises InvalidOrder for an index."""
    if not instrument.tick_size:
        raise InvalidOrder(
            "symbol",
            instrument.symbol,
            "is an index, which has no orders: name a contract, such as "
            f"'{instrument.name} JAN FUT'",
        )
    return instrument


def check_bracket(instrument: Instrument, bracket: Bracket) -> None:
    """Check that distances in rupees are whole ticks. Raises InvalidOrder."""
    if bracket.kind == OffsetKind.ABSOLUTE:
        for field in ("target", "stop", "trail"):
            name = f"bracket.{field}"
            check_tick(name, Decimal(price_text(name, getattr(bracket, field))), instrument)


def slices(quantity: int, instrument: Instrument) -> list[int]:
    """Return a quantity in pieces that the exchange takes: as few as possible, in whole lots.

    Raises InvalidOrder when there would be too many.
    """
    if instrument.freeze_quantity is None:
        return [quantity]
    lot = instrument.lot_size
    largest = max(instrument.freeze_quantity // lot, 1) * lot
    full, rest = divmod(quantity, largest)
    if full + bool(rest) > MAX_SLICES:
        raise InvalidOrder(
            "quantity",
            quantity,
            f"is more than {MAX_SLICES} orders of {largest}, the most that {instrument.symbol} "
            "takes in one",
        )
    return [largest] * full + [rest] * bool(rest)


def check_tick(field: str, price: Decimal, instrument: Instrument) -> None:
    """Check that a price is on tick. Raises InvalidOrder."""
    tick = instrument.tick_size
    # An index has no tick, and no rule for its prices.
    if tick and EXACT.remainder(price, _exactly(tick)):
        raise InvalidOrder(
            field, str(price), f"{instrument.symbol} has prices in steps of {_exactly(tick)}"
        )


def check_band(field: str, price: Decimal, instrument: Instrument) -> None:
    """Check that a price is inside the day's band. Raises InvalidOrder."""
    low, high = instrument.lower_band, instrument.upper_band
    if low is None or high is None:
        return
    if not _edge(low, -1) <= price <= _edge(high, 1):
        raise InvalidOrder(
            field,
            str(price),
            f"is outside the day's band of {instrument.symbol}, {low} to {high}; where the "
            "exchange has widened it since, instruments.load(…, refresh=True) may help",
        )


@lru_cache(maxsize=4096)
def _exactly(number: float) -> Decimal:
    """Return the decimal that a float prints as."""
    return Decimal(repr(number))


@lru_cache(maxsize=4096)
def _edge(price: float, side: int) -> Decimal:
    """Return the end of a price band that a price may touch.

    The scrip masters write most bands in paise with six significant digits: above 9,999.99 rupees
    the last one is rounded, and the true end may be half a unit of it further out.
    """
    exact = _exactly(price)
    if exact.adjusted() < 4 or float(f"{price:.{_BAND_DIGITS}g}") != price:
        return exact
    half = Decimal((0, (5,), exact.adjusted() - _BAND_DIGITS))
    return EXACT.add(exact, EXACT.multiply(Decimal(side), half))
