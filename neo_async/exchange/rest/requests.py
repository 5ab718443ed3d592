"""Reading the bodies of trading calls into what the market takes.

Refuses in the broker's words what cannot be read. Rules of the market itself (ticks, lots,
circuit limits, funds) are the core's.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TypeVar

import msgspec

from neo_async.errors import ProtocolError, UsageError
from neo_async.exchange.engine.types import Bracket, Change, NewOrder, OrderRecord, Refusal
from neo_async.model.enums import OffsetKind, OrderType, Product, Segment, Side, Validity
from neo_async.wire.forms import decode_form
from neo_async.wire.orders import ModifyForm, PlaceForm

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_QUANTITY = re.compile(r"[0-9]{1,9}", re.ASCII)
_PRICE = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,4}))?", re.ASCII)
_SIDES = {"B": Side.BUY, "BUY": Side.BUY, "S": Side.SELL, "SELL": Side.SELL}


class MarginForm(msgspec.Struct):
    """`POST /quick/user/check-margin`. The bracket's keys are not needed for the margin."""

    exSeg: str  # noqa: N815 - the wire's names
    prc: str
    prcTp: str  # noqa: N815
    prod: str
    qty: str
    tok: str
    trnsTp: str  # noqa: N815
    trgPrc: str | None = None  # noqa: N815


def read_form(body: bytes, form: type[T]) -> T:
    try:
        return decode_form(body, form)
    except ProtocolError:
        raise Refusal(1007, "body invalid", stat="bad request") from None


def read_place(body: bytes) -> NewOrder:
    form = read_form(body, PlaceForm)
    product = read_product(form.pc)
    return NewOrder(
        segment=read_segment(form.es),
        symbol=form.ts,
        side=read_side(form.tt),
        quantity=read_quantity(form.qt),
        order_type=_member(OrderType, form.pt),
        product=product,
        validity=_member(Validity, form.rt),
        price=read_price(form.pr),
        trigger=read_price(form.tp),
        disclosed_quantity=read_quantity(form.dq),
        amo=form.am == "YES",
        tag=form.ig or "",
        source=form.os or "",
        bracket=_read_bracket(form) if product is Product.BO else None,
    )


def _read_bracket(form: PlaceForm) -> Bracket:
    """Read the distances of a bracket order; `lat` and `tk` only repeat what the order has."""
    target_kind, stop_kind = _offset_kind(form.sot), _offset_kind(form.slt)
    if form.tlt not in (None, "Y", "N"):
        raise _invalid_request()
    return Bracket(
        target=_read_distance(form.sov, target_kind),
        stop=_read_distance(form.slv, stop_kind),
        trail=_read_distance(form.tsv, stop_kind) if form.tlt == "Y" else 0,
        target_kind=target_kind,
        stop_kind=stop_kind,
    )


def _offset_kind(text: str | None) -> OffsetKind:
    return _member(OffsetKind, (text or "").capitalize())


def _read_distance(text: str | None, kind: OffsetKind) -> int:
    """Return a distance from the entry price in paise, or in ticks."""
    if text is None:
        raise _invalid_request()
    return read_price(text) if kind is OffsetKind.ABSOLUTE else read_quantity(text)


def read_change(form: ModifyForm, order: OrderRecord) -> Change:
    """Read a modification of `order`. Keys that only repeat the order must not contradict it."""
    listing = order.listing
    for name, sent, known in (
        ("token", form.tk, listing.token),
        ("exchange", form.es, listing.segment),
        ("product", form.pc, order.product),
        ("symbol", form.ts, listing.symbol),
        ("transaction type", form.tt and read_side(form.tt), order.side),
    ):
        if sent is not None and sent != known:
            raise Refusal(1009, f"please provide valid {name}")
    validity = form.vd or form.rt
    return Change(
        quantity=read_quantity(form.qt),
        order_type=_member(OrderType, form.pt),
        validity=_member(Validity, validity) if validity else order.validity,
        price=read_price(form.pr),
        trigger=read_price(form.tp),
        disclosed_quantity=read_quantity(form.dq),
    )


def read_segment(text: str) -> Segment:
    try:
        return Segment(text)
    except ValueError:
        raise Refusal(1006, "invalid exchange") from None


def read_product(text: str) -> Product:
    try:
        return Product(text)
    except ValueError:
        raise Refusal(1011, "please provide valid product") from None


def read_side(text: str) -> Side:
    side = _SIDES.get(text.upper())
    if side is None:
        raise _invalid_request()
    return side


def read_order_type(text: str) -> OrderType:
    return _member(OrderType, text)


def read_quantity(text: str) -> int:
    if not _QUANTITY.fullmatch(text):
        raise Refusal(1009, "please provide valid quantity")
    return int(text)


def read_price(text: str) -> int:
    """Convert rupees as decimal text to paise. The broker refuses `0.0` where `0` is meant, so we
    do; an empty price it answers as if the quantity were wrong."""
    if not text:
        raise Refusal(1009, "please provide valid quantity")
    match = _PRICE.fullmatch(text)
    if match is None or text == "0.0":
        raise _invalid_request()
    whole, decimals = match.group(1), match.group(2) or ""
    if decimals[2:].strip("0"):
        raise _invalid_request()  # a part of a paisa
    return int(whole) * 100 + int(decimals[:2].ljust(2, "0"))


def read_rupees(price: str | float) -> int:
    """Convert a price of the exchange's owner to paise. Raises UsageError unless it is above 0 and
    has two decimals at most."""
    text = price if isinstance(price, str) else f"{price:.6f}".rstrip("0").rstrip(".")
    try:
        paise = read_price(text.strip())
    except Refusal:
        paise = 0
    if paise <= 0:
        raise UsageError(f"price={price!r}: must be rupees above 0, such as 1420 or '1420.50'")
    return paise


def _member(kind: type[E], text: str) -> E:
    try:
        return kind(text)
    except ValueError:
        raise _invalid_request() from None


def _invalid_request() -> Refusal:
    return Refusal(5202, "Error: Invalid Request")
