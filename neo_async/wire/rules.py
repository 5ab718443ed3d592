"""The broker's rules for orders, checked before anything is sent.

Each rule raises InvalidOrder with the field, its value and the rule. The rules that need the scrip
master (tick, lot, freeze quantity, price band) are in `check_against` and `slices`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from neo_async.errors import InvalidOrder
from neo_async.model.enums import OffsetKind, OrderType, Product, Segment, Side, Validity
from neo_async.model.instruments import Instrument
from neo_async.model.numbers import EXACT
from neo_async.model.orders import Bracket, OrderRequest, Price
from neo_async.wire.numbers import price_text
from neo_async.wire.orders import ORDER_SOURCE, CancelForm, ModifyForm, PlaceForm
from neo_async.wire.portfolio import MarginForm

E = TypeVar("E", bound=StrEnum)

# Upper case, digits, and the few marks that real symbols contain: `M&M-EQ`, `NIFTY26JUN22250CE`.
# Blanks stand inside of some, at the ends of none: the broker would trim them, and the order would
# come back under another symbol than it is looked for.
_SYMBOL = re.compile(r"[A-Z0-9](?:[A-Z0-9&_.\- ]{0,48}[A-Z0-9&_.\-])?")

_DIGITS = re.compile(r"[0-9]{1,40}")

MAX_QUANTITY = 10**9
"""Largest quantity of an order: above every freeze quantity."""

MAX_SLICES = 100
"""Most orders that one sliced order may become: ten seconds at the published rate."""


def place_form(request: OrderRequest, client_tag: str) -> PlaceForm:
    """Check an order and return its form. Raises InvalidOrder."""
    segment = _member("segment", request.segment, Segment)
    side = _member("side", request.side, Side)
    product = _member("product", request.product, Product)
    order_type = _member("order_type", request.order_type, OrderType)
    validity = _member("validity", request.validity, Validity)
    check_symbol(request.symbol)
    check_quantity("quantity", request.quantity)
    _check_disclosed(request.disclosed_quantity, request.quantity)
    if type(request.amo) is not bool:
        # The official SDK takes "YES" and "NO" here, and "NO" counts as true.
        raise InvalidOrder("amo", request.amo, "must be True or False")
    _check_product(product, segment)
    _check_validity(validity, segment, product)
    price = _price(request.price, order_type)
    trigger = _trigger(request.trigger, order_type, product)
    _check_stop(order_type, product, side, price, trigger)
    form = PlaceForm(
        am="YES" if request.amo else "NO",
        dq=str(request.disclosed_quantity),
        es=segment,
        mp="0",
        pc=product,
        pr=price,
        pt=order_type,
        qt=str(request.quantity),
        rt=validity,
        tp=trigger,
        ts=request.symbol,
        tt=side,
        pf="N",
        ig=client_tag,
        os=ORDER_SOURCE,
    )
    if product is Product.BO:
        _add_bracket(form, request.bracket, order_type)
    elif request.bracket is not None:
        raise InvalidOrder("bracket", request.bracket, f"only product BO has one, not {product}")
    return form


def modify_form(
    *,
    number: str,
    side: str,
    product: str,
    segment: str,
    order_type: str,
    quantity: int,
    filled_quantity: int,
    price: Price | None,
    trigger: Price | None,
    validity: str,
    disclosed_quantity: int,
    amo: bool,
) -> ModifyForm:
    """Check the order as changed, and return the form of the change. Raises InvalidOrder."""
    new_type = _member("order_type", order_type, OrderType)
    new_validity = _member("validity", validity, Validity)
    check_quantity("quantity", quantity)
    if quantity <= filled_quantity:
        raise InvalidOrder(
            "quantity",
            quantity,
            f"is the new total and must be above the {filled_quantity} filled already",
        )
    _check_disclosed(disclosed_quantity, quantity)
    _check_validity(new_validity, segment, product)
    price_out = _price(price, new_type)
    trigger_out = _trigger(trigger, new_type, product)
    _check_stop(new_type, product, side, price_out, trigger_out)
    return ModifyForm(
        no=number,
        pr=price_out,
        pt=new_type,
        qt=str(quantity),
        tp=trigger_out,
        dq=str(disclosed_quantity),
        vd=new_validity,
        am="YES" if amo else "NO",
        os=ORDER_SOURCE,
    )


def cancel_form(*, number: str, symbol: str, amo: bool) -> CancelForm:
    return CancelForm(on=number, am="YES" if amo else "NO", ts=symbol if amo else None)


def margin_form(
    *,
    segment: Segment,
    token: str,
    side: Side,
    quantity: int,
    product: Product,
    price: Price | None,
    order_type: OrderType,
    trigger: Price | None,
) -> MarginForm:
    """Check an order whose margin is requested, and return the form. Raises InvalidOrder."""
    segment = _member("segment", segment, Segment)
    product = _member("product", product, Product)
    order_type = _member("order_type", order_type, OrderType)
    if not (isinstance(token, str) and _DIGITS.fullmatch(token)):
        raise InvalidOrder("token", token, "must be the digits of the instrument's exchange token")
    check_quantity("quantity", quantity)
    _check_product(product, segment)
    return MarginForm(
        exSeg=segment,
        prcTp=order_type,
        prod=product,
        trnsTp=_member("side", side, Side),
        prc=_price(price, order_type),
        qty=str(quantity),
        tok=token,
        trgPrc=_trigger(trigger, order_type, product),
    )


def check_against(
    instrument: Instrument,
    *,
    quantity: int | None = None,
    price: str = "0",
    trigger: str = "0",
    is_banded: bool = True,
    is_sliced: bool = False,
) -> None:
    """Check the given values against the scrip master: prices on tick and, with `is_banded`, inside
    the circuit limits; the quantity in lots and, unless `is_sliced`, within the freeze quantity. A
    price of `"0"` is none. Raises InvalidOrder."""
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
                "place() with slice=True sends several orders",
            )
    for field, text in (("price", price), ("trigger", trigger)):
        if text == "0":
            continue
        _check_tick(field, text, instrument)
        if is_banded:
            _check_band(field, text, instrument)


def check_bracket(instrument: Instrument, bracket: Bracket) -> None:
    """Check that distances in rupees are whole ticks. Raises InvalidOrder."""
    if bracket.kind == OffsetKind.ABSOLUTE:
        for field in ("target", "stop", "trail"):
            name = f"bracket.{field}"
            _check_tick(name, price_text(name, getattr(bracket, field)), instrument)


def slices(quantity: int, instrument: Instrument) -> list[int]:
    """Return a quantity in slices within the freeze quantity: as few as possible, in whole lots.

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


def _check_tick(field: str, text: str, instrument: Instrument) -> None:
    tick = instrument.tick_size
    # An index has no tick size, so its prices have no rule.
    if tick and EXACT.remainder(Decimal(text), _exactly(tick)):
        raise InvalidOrder(
            field, text, f"{instrument.symbol} has prices in steps of {_exactly(tick)}"
        )


def _check_band(field: str, text: str, instrument: Instrument) -> None:
    low, high = instrument.lower_band, instrument.upper_band
    if low is None or high is None:
        return
    if not _edge(low, -1) <= Decimal(text) <= _edge(high, 1):
        raise InvalidOrder(
            field,
            text,
            f"is outside the day's band of {instrument.symbol}, {low} to {high}; where the "
            "exchange has widened it since, instruments.load(…, refresh=True) may have the new one",
        )


@lru_cache(maxsize=4096)
def _exactly(number: float) -> Decimal:
    """Return the decimal that a float prints as."""
    return Decimal(repr(number))


@lru_cache(maxsize=4096)
def _edge(price: float, side: int) -> Decimal:
    """Return the outermost price that is still inside a price band.

    Scrip masters write most bands in paise with six significant digits: above 9,999.99 rupees the
    last one is rounded, and the true end may be half a unit of it further out.
    """
    exact = _exactly(price)
    if exact.adjusted() < 4 or float(f"{price:.{_BAND_DIGITS}g}") != price:
        return exact
    half = Decimal((0, (5,), exact.adjusted() - _BAND_DIGITS))
    return EXACT.add(exact, EXACT.multiply(Decimal(side), half))


_BAND_DIGITS = 6


def check_number(number: str) -> None:
    if not (isinstance(number, str) and _DIGITS.fullmatch(number)):
        raise InvalidOrder("order", number, "must be an Order or the digits of an order number")


def check_symbol(symbol: str) -> None:
    if not (isinstance(symbol, str) and _SYMBOL.fullmatch(symbol)):
        raise InvalidOrder(
            "symbol", symbol, "must be a trading symbol of the scrip master, such as 'ITBEES-EQ'"
        )


def check_quantity(field: str, quantity: int) -> None:
    if type(quantity) is not int or not 0 < quantity <= MAX_QUANTITY:
        raise InvalidOrder(field, quantity, f"must be a whole number of units, 1 to {MAX_QUANTITY}")


def _check_disclosed(disclosed: int, quantity: int) -> None:
    if type(disclosed) is not int or not 0 <= disclosed <= quantity:
        raise InvalidOrder(
            "disclosed_quantity", disclosed, f"must be 0 (show all) to the quantity, {quantity}"
        )


def _check_product(product: Product, segment: Segment) -> None:
    if product in (Product.CNC, Product.MTF) and not segment.is_cash:
        raise InvalidOrder("product", product.value, f"exists in cash segments only, not {segment}")


def _check_validity(validity: Validity, segment: str, product: str) -> None:
    if validity is Validity.IOC:
        if segment is Segment.MCX_FO:
            raise InvalidOrder("validity", validity.value, "mcx_fo takes DAY only")
        if product is Product.CO or product is Product.BO:
            raise InvalidOrder("validity", validity.value, f"product {product} takes DAY only")


def _price(price: Price | None, order_type: OrderType) -> str:
    if not order_type.has_limit:
        if price is not None and price_text("price", price) != "0":
            raise InvalidOrder("price", price, f"order type {order_type} has no limit price")
        return "0"
    if price is None:
        raise InvalidOrder("price", price, f"order type {order_type} needs a limit price")
    text = price_text("price", price)
    if text == "0":
        # The broker has been seen to execute a limit of 0 at a price of its own.
        raise InvalidOrder("price", price, f"order type {order_type} needs a price above 0")
    return text


def _trigger(trigger: Price | None, order_type: OrderType, product: str) -> str:
    needed = order_type.has_trigger or product is Product.CO
    text = "0" if trigger is None else price_text("trigger", trigger)
    if needed and text == "0":
        what = "product CO" if product is Product.CO else f"order type {order_type}"
        raise InvalidOrder("trigger", trigger, f"{what} needs a trigger price above 0")
    if not needed and text != "0":
        raise InvalidOrder("trigger", trigger, f"order type {order_type} has no trigger price")
    return text


def _check_stop(order_type: OrderType, product: str, side: str, price: str, trigger: str) -> None:
    """Check that the trigger is on the right side of the limit. Raises InvalidOrder."""
    if product is Product.CO:
        # The trigger is that of the exit leg: it stops a loss, so it lies behind the entry.
        if price != "0" and not _is_behind(trigger, price, side):
            rule = "below" if side is Side.BUY else "above"
            raise InvalidOrder("trigger", trigger, f"the stop of a CO must lie {rule} {price}")
    elif order_type is OrderType.SL:
        if side is Side.BUY and Decimal(trigger) > Decimal(price):
            raise InvalidOrder(
                "trigger", trigger, f"a buy SL triggers at or below its price {price}"
            )
        if side is Side.SELL and Decimal(trigger) < Decimal(price):
            raise InvalidOrder(
                "trigger", trigger, f"a sell SL triggers at or above its price {price}"
            )


def _is_behind(trigger: str, price: str, side: str) -> bool:
    if side is Side.BUY:
        return Decimal(trigger) < Decimal(price)
    return Decimal(trigger) > Decimal(price)


def _add_bracket(form: PlaceForm, bracket: Bracket | None, order_type: OrderType) -> None:
    if bracket is None:
        raise InvalidOrder("bracket", bracket, "product BO needs a Bracket(target=…, stop=…)")
    if not order_type.has_limit:
        raise InvalidOrder("order_type", order_type.value, "the entry of a BO needs a limit price")
    kind = _member("bracket.kind", bracket.kind, OffsetKind)
    target = price_text("bracket.target", bracket.target)
    stop = price_text("bracket.stop", bracket.stop)
    trail = price_text("bracket.trail", bracket.trail)
    for field, given, text in (
        ("bracket.target", bracket.target, target),
        ("bracket.stop", bracket.stop, stop),
    ):
        if text == "0":
            raise InvalidOrder(field, given, "is a distance from the entry and must be above 0")
    form.sot = form.slt = kind
    form.sov = target
    form.slv = stop
    form.tlt = "N" if trail == "0" else "Y"
    form.tsv = trail


def _member(field: str, value: E | str, vocabulary: type[E]) -> E:
    if type(value) is vocabulary:
        return value
    try:
        return vocabulary(value)
    except ValueError:
        codes = ", ".join(member.value for member in vocabulary)
        raise InvalidOrder(field, value, f"must be one of {codes}") from None
