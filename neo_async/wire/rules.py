"""The broker's rules for orders, checked before anything is sent, and the forms of valid ones.

Each rule raises InvalidOrder with the field, its value and the rule. The rules of the scrip master
(tick, lot, freeze quantity, price band) are in execution/validation.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

import msgspec

from neo_async.errors import InvalidOrder
from neo_async.model.enums import OffsetKind, OrderType, Product, Segment, Side, Validity
from neo_async.model.orders import Bracket, OrderRequest, OrderTerms, Price
from neo_async.model.spellings import member_of
from neo_async.wire.numbers import (
    MOST_DECIMALS,
    PriceReader,
    exact_price_of,
    price_reader,
    price_text,
)
from neo_async.wire.orders import ORDER_SOURCE, CancelForm, ModifyForm, PlaceForm
from neo_async.wire.portfolio import MarginForm

E = TypeVar("E", bound=StrEnum)

# Upper case, digits, and the few marks that real symbols contain: `M&M-EQ`, `NIFTY26JUN22250CE`.
# Blanks stand inside of some, at the ends of none: the broker would trim them, and the order would
# come back under another symbol than it is looked for.
_SYMBOL = re.compile(r"[A-Z0-9](?:[A-Z0-9&_.\- ]{0,48}[A-Z0-9&_.\-])?")

_DIGITS = re.compile(r"[0-9]{1,40}")

_DECIMALS: Mapping[str, int] = {
    segment: MOST_DECIMALS if segment is Segment.CDE_FO else 2 for segment in Segment
}
"""Most decimals of a price: a paisa, but of currencies a hundredth of one."""
_PRICE_READERS: Mapping[int, PriceReader] = {2: price_reader(2), MOST_DECIMALS: exact_price_of}
_PRICES: Mapping[str, PriceReader] = {
    segment: _PRICE_READERS[decimals] for segment, decimals in _DECIMALS.items()
}

MAX_QUANTITY = 10**9
"""Largest quantity of an order: above every freeze quantity."""

# Read off their classes once: on Python 3.11 that costs more than all the comparisons of an order.
_SEGMENTS = {member.value: member for member in Segment}
_SIDES = {member.value: member for member in Side}
_PRODUCTS = {member.value: member for member in Product}
_ORDER_TYPES = {member.value: member for member in OrderType}
_VALIDITIES = {member.value: member for member in Validity}
_CASH = frozenset(member for member in Segment if member.is_cash)
_WITH_LIMIT = frozenset(member for member in OrderType if member.has_limit)
_WITH_TRIGGER = frozenset(member for member in OrderType if member.has_trigger)
_CNC, _MTF, _CO, _BO = Product.CNC, Product.MTF, Product.CO, Product.BO
_BUY, _SELL, _IOC, _SL = Side.BUY, Side.SELL, Validity.IOC, OrderType.SL


def check_order(request: OrderRequest) -> OrderTerms:
    """Return the terms of an order that may be placed. Raises InvalidOrder. The bracket is checked
    by `place_form`."""
    try:
        segment = _SEGMENTS[request.segment]
        side = _SIDES[request.side]
        product = _PRODUCTS[request.product]
        order_type = _ORDER_TYPES[request.order_type]
        validity = _VALIDITIES[request.validity]
    except (KeyError, TypeError):  # not all are codes of the broker
        segment = read_member("segment", request.segment, Segment)
        side = read_member("side", request.side, Side)
        product = read_member("product", request.product, Product)
        order_type = read_member("order_type", request.order_type, OrderType)
        validity = read_member("validity", request.validity, Validity)
    check_symbol(request.symbol)
    check_quantity("quantity", request.quantity)
    _check_disclosed(request.disclosed_quantity, request.quantity)
    if type(request.amo) is not bool:
        # The official SDK takes "YES" and "NO" here, and "NO" counts as true.
        raise InvalidOrder("amo", request.amo, "must be True or False")
    _check_product(product, segment)
    _check_validity(validity, segment, product)
    exact_price = _PRICES[segment]
    price = _price(request.price, order_type, exact_price)
    trigger = _trigger(request.trigger, order_type, product, exact_price)
    _check_stop(order_type, product, side, price, trigger)
    return OrderTerms(
        segment=segment,
        symbol=request.symbol,
        side=side,
        product=product,
        order_type=order_type,
        quantity=request.quantity,
        price=price,
        trigger=trigger,
        validity=validity,
        disclosed_quantity=request.disclosed_quantity,
        amo=request.amo,
    )


def place_form(terms: OrderTerms, client_tag: str, bracket: Bracket | None = None) -> PlaceForm:
    """Return the form of a placement, of terms that were checked. Raises InvalidOrder where the
    bracket is missing or breaks a rule."""
    form = PlaceForm(
        am="YES" if terms.amo else "NO",
        dq=str(terms.disclosed_quantity),
        es=terms.segment,
        mp="0",
        pc=terms.product,
        pr=_text(terms.price),
        pt=terms.order_type,
        qt=str(terms.quantity),
        rt=terms.validity,
        tp=_text(terms.trigger),
        ts=terms.symbol,
        tt=terms.side,
        pf="N",
        ig=client_tag,
        os=ORDER_SOURCE,
    )
    if terms.product is _BO:
        _add_bracket(form, bracket, OrderType(terms.order_type))
    elif bracket is not None:
        raise InvalidOrder("bracket", bracket, f"only product BO has one, not {terms.product}")
    return form


def placed_terms(form: PlaceForm) -> OrderTerms:
    """Return the terms of a placement by its form, such as one in the journal. Raises ValueError or
    ArithmeticError where the form cannot be read."""
    return OrderTerms(
        segment=Segment.read(form.es),
        symbol=form.ts,
        side=Side.read(form.tt),
        product=Product(form.pc),
        order_type=OrderType.read(form.pt),
        quantity=int(form.qt),
        price=Decimal(form.pr) or None,
        trigger=Decimal(form.tp) or None,
        validity=Validity.read(form.rt),
        amo=form.am == "YES",
    )


def modified_terms(form: ModifyForm) -> OrderTerms:
    """Return the terms that a modification sets, by its form, such as one in the journal. Segment,
    symbol, side and product, which no modification changes, are empty. Raises ValueError or
    ArithmeticError where the form cannot be read."""
    return OrderTerms(
        segment=Segment.read(""),
        symbol="",
        side=Side.read(""),
        product=Product.read(""),
        order_type=OrderType(form.pt),
        quantity=int(form.qt),
        price=_price_of(form.pr),
        trigger=_price_of(form.tp),
        validity=Validity.read(form.vd or ""),
        disclosed_quantity=int(form.dq),
        amo=form.am == "YES",
    )


def check_change(terms: OrderTerms, *, filled_quantity: int = 0) -> OrderTerms:
    """Check the terms that an order is to have after a modification, whose prices may be as the
    caller gave them, and return them with exact prices. The quantity must be above
    `filled_quantity`. Raises InvalidOrder."""
    order_type = read_member("order_type", terms.order_type, OrderType)
    validity = read_member("validity", terms.validity, Validity)
    check_quantity("quantity", terms.quantity)
    if terms.quantity <= filled_quantity:
        raise InvalidOrder(
            "quantity",
            terms.quantity,
            f"is the new total and must be above the {filled_quantity} filled already",
        )
    _check_disclosed(terms.disclosed_quantity, terms.quantity)
    _check_validity(validity, terms.segment, terms.product)
    # Another application may have placed the order in a segment that is not in the enum.
    exact_price = _PRICES.get(terms.segment, exact_price_of)
    price = _price(terms.price, order_type, exact_price)
    trigger = _trigger(terms.trigger, order_type, terms.product, exact_price)
    _check_stop(order_type, terms.product, terms.side, price, trigger)
    return msgspec.structs.replace(
        terms, order_type=order_type, validity=validity, price=price, trigger=trigger
    )


def modify_form(number: str, terms: OrderTerms) -> ModifyForm:
    """Return the form of a modification to terms that were checked."""
    return ModifyForm(
        no=number,
        pr=_text(terms.price),
        pt=terms.order_type,
        qt=str(terms.quantity),
        tp=_text(terms.trigger),
        dq=str(terms.disclosed_quantity),
        vd=terms.validity,
        am="YES" if terms.amo else "NO",
        os=ORDER_SOURCE,
    )


def cancel_form(*, number: str, symbol: str, amo: bool) -> CancelForm:
    return CancelForm(on=number, am="YES" if amo else "NO", ts=symbol if amo else None)


def margin_form(
    *,
    segment: Segment | str,
    token: str,
    side: Side | str,
    quantity: int,
    product: Product | str,
    price: Price | None,
    order_type: OrderType | str,
    trigger: Price | None,
) -> MarginForm:
    """Check an order whose margin is requested, and return the form. Raises InvalidOrder."""
    segment = read_member("segment", segment, Segment)
    product = read_member("product", product, Product)
    order_type = read_member("order_type", order_type, OrderType)
    if not (isinstance(token, str) and _DIGITS.fullmatch(token)):
        raise InvalidOrder("token", token, "must be the digits of the instrument's exchange token")
    check_quantity("quantity", quantity)
    _check_product(product, segment)
    return MarginForm(
        exSeg=segment,
        prcTp=order_type,
        prod=product,
        trnsTp=read_member("side", side, Side),
        prc=_text(_price(price, order_type, _PRICES[segment])),
        qty=str(quantity),
        tok=token,
        trgPrc=_text(_trigger(trigger, order_type, product, _PRICES[segment])),
    )


def read_segment(segment: Segment | str) -> Segment:
    """Return a segment by any of its spellings. Raises InvalidOrder."""
    return read_member("segment", segment, Segment)


def read_side(side: Side | str) -> Side:
    """Return a side by any of its spellings. Raises InvalidOrder."""
    return read_member("side", side, Side)


def read_product(product: Product | str) -> Product:
    """Return a product by any of its spellings. Raises InvalidOrder."""
    return read_member("product", product, Product)


def read_order_type(order_type: OrderType | str) -> OrderType:
    """Return an order type by any of its spellings. Raises InvalidOrder."""
    return read_member("order_type", order_type, OrderType)


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
    if (product is _CNC or product is _MTF) and segment not in _CASH:
        raise InvalidOrder("product", product.value, f"exists in cash segments only, not {segment}")


def _check_validity(validity: Validity, segment: str, product: str) -> None:
    if validity is _IOC:
        if segment is Segment.MCX_FO:
            raise InvalidOrder("validity", validity.value, "mcx_fo takes DAY only")
        if product is _CO or product is _BO:
            raise InvalidOrder("validity", validity.value, f"product {product} takes DAY only")


def _needs_price(order_type: OrderType) -> str:
    without = "; MKT is the type without one" if order_type is OrderType.LIMIT else ""
    return f"order type {order_type} needs a limit price{without}"


def _price(price: Price | None, order_type: OrderType, exact_price: PriceReader) -> Decimal | None:
    exact = None if price is None else exact_price("price", price)
    if order_type not in _WITH_LIMIT:
        if exact is not None:
            raise InvalidOrder("price", price, f"order type {order_type} has no limit price")
    elif price is None:
        raise InvalidOrder("price", price, _needs_price(order_type))
    elif exact is None:
        # The broker has been seen to execute a limit of 0 at a price of its own.
        raise InvalidOrder("price", price, f"order type {order_type} needs a price above 0")
    return exact


def _trigger(
    trigger: Price | None, order_type: OrderType, product: str, exact_price: PriceReader
) -> Decimal | None:
    is_needed = order_type in _WITH_TRIGGER or product is _CO
    exact = None if trigger is None else exact_price("trigger", trigger)
    if is_needed and exact is None:
        what = "product CO" if product is _CO else f"order type {order_type}"
        raise InvalidOrder("trigger", trigger, f"{what} needs a trigger price above 0")
    if not is_needed and exact is not None:
        raise InvalidOrder("trigger", trigger, f"order type {order_type} has no trigger price")
    return exact


def _price_of(text: str) -> Decimal | None:
    """Return the price of a form, None for `"0"`. Raises ValueError or ArithmeticError where it is
    no finite number."""
    price = Decimal(text)
    if not price.is_finite():
        raise ValueError(f"{text!r} is no price")
    return price or None


def _text(price: Decimal | None) -> str:
    """Return a price as forms have it: plain decimal text, `"0"` for none."""
    if price is None:
        return "0"
    text = str(price)
    return format(price, "f") if "E" in text else text


def _check_stop(
    order_type: OrderType,
    product: str,
    side: str,
    price: Decimal | None,
    trigger: Decimal | None,
) -> None:
    """Check on which side of the limit the trigger lies."""
    if price is None or trigger is None:
        return
    if product is _CO:
        # The trigger is that of the exit leg: it stops a loss, so it lies behind the entry.
        if not (trigger < price if side is _BUY else trigger > price):
            rule = "below" if side is _BUY else "above"
            raise InvalidOrder("trigger", str(trigger), f"the stop of a CO must lie {rule} {price}")
    elif order_type is _SL:
        if side is _BUY and trigger > price:
            raise InvalidOrder(
                "trigger", str(trigger), f"a buy SL triggers at or below its price {price}"
            )
        if side is _SELL and trigger < price:
            raise InvalidOrder(
                "trigger", str(trigger), f"a sell SL triggers at or above its price {price}"
            )


def _add_bracket(form: PlaceForm, bracket: Bracket | None, order_type: OrderType) -> None:
    if bracket is None:
        raise InvalidOrder("bracket", bracket, "product BO needs a Bracket(target=…, stop=…)")
    if order_type not in _WITH_LIMIT:
        raise InvalidOrder("order_type", order_type.value, "the entry of a BO needs a limit price")
    kind = read_member("bracket.kind", bracket.kind, OffsetKind)
    decimals = _DECIMALS.get(form.es, MOST_DECIMALS)
    target = price_text("bracket.target", bracket.target, decimals)
    stop = price_text("bracket.stop", bracket.stop, decimals)
    trail = price_text("bracket.trail", bracket.trail, decimals)
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


def read_member(field: str, value: E | str, vocabulary: type[E]) -> E:
    """Return a member of a vocabulary by its value or any spelling of it. Raises InvalidOrder."""
    try:
        return member_of(vocabulary, value)
    except ValueError as error:
        raise InvalidOrder(field, value, str(error)) from None
