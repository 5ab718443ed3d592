"""Checks of an order: a malformed one is refused without a number, one that breaks a rule of risk
management is rejected. Funds are checked elsewhere."""

from __future__ import annotations

from datetime import date
from typing import Final

from neo_async.exchange.engine.accounts import DELIVERY, Account
from neo_async.exchange.engine.oco_group import COVERED_PRODUCTS, exit_prices
from neo_async.exchange.engine.types import Change, Listing, NewOrder, OrderRecord, Refusal, Rules
from neo_async.model.enums import OrderType, Product, Segment, Side, Validity

# Looking up a member of an enum, or a property of one, takes longer than the check itself.
_CO: Final = Product.CO
_BO: Final = Product.BO
_LIMIT: Final = OrderType.LIMIT
_MARKET: Final = OrderType.MARKET
_SL: Final = OrderType.SL
_SL_M: Final = OrderType.SL_M
_DAY: Final = Validity.DAY
_SELL: Final = Side.SELL
_MCX_FO: Final = Segment.MCX_FO


def check_listing(listing: Listing, product: Product, rules: Rules, today: date) -> None:
    """Refuse a product that is not traded in a listing, and an expired contract."""
    if product in DELIVERY and not listing.segment.is_cash:
        raise Refusal(1011, "please provide valid product")
    if product in COVERED_PRODUCTS and not rules.covered_orders:
        raise Refusal(1017, "BO/CO OrderType not allowed for TRADEAPI")
    if listing.expiry is not None and listing.expiry < today:
        raise Refusal(1010, "contract expired")


def check_terms(listing: Listing, terms: NewOrder | Change, *, is_cover: bool) -> None:
    """Refuse malformed terms, whatever the state of market and account."""
    quantity, order_type = terms.quantity, terms.order_type
    if quantity <= 0:
        raise Refusal(1009, "please provide valid quantity")
    if quantity % listing.lot_size:
        raise Refusal(1009, "please provide valid lotwise quantity")
    if not 0 <= terms.disclosed_quantity <= quantity:
        raise Refusal(1009, "please provide valid disclosed quantity")
    is_stop = order_type is _SL or order_type is _SL_M
    if (
        terms.price < 0
        or terms.trigger < 0
        or (not terms.price and (order_type is _LIMIT or order_type is _SL))
        or (not terms.trigger and (is_stop or is_cover))
        # A cover order's trigger is that of its contingent stop, so the entry cannot be one.
        or (is_cover and (is_stop or terms.validity is not _DAY))
        or (terms.validity is not _DAY and listing.segment is _MCX_FO)
    ):
        raise Refusal(5202, "Error: Invalid Request")


def check_bracket(order: NewOrder) -> None:
    """Refuse a bracket order without valid distances, and distances on any other order."""
    bracket = order.bracket
    if order.product is not _BO:
        valid = bracket is None
    else:
        valid = (
            bracket is not None
            and bracket.target > 0
            and bracket.stop > 0
            and bracket.trail >= 0
            and order.validity is Validity.DAY
            and order.order_type is not OrderType.SL_M
        )
    if not valid:
        raise Refusal(5202, "Error: Invalid Request")


def check_change(record: OrderRecord, change: Change, rules: Rules) -> None:
    """Refuse a modification that the order cannot take."""
    is_contingent = bool(record.parent_number)
    is_cover = record.product is Product.CO and not is_contingent
    check_terms(record.listing, change, is_cover=is_cover)
    if change.quantity <= record.filled_quantity:
        raise Refusal(1009, "please provide valid quantity")
    if change.order_type is not record.order_type and not rules.type_changes:
        raise Refusal(1009, "please provide valid order type")
    if is_contingent and change.quantity != record.quantity:
        raise Refusal(1009, "please provide valid quantity")
    if record.product in COVERED_PRODUCTS and (
        change.validity is not Validity.DAY
        or (is_contingent and change.order_type is not record.order_type)
    ):
        raise Refusal(5202, "Error: Invalid Request")


def reject_reason(record: OrderRecord, account: Account, rules: Rules) -> str:
    """Return why risk management rejects an order, funds aside; empty when it does not."""
    if record.order_type is _SL_M and not rules.stop_market_orders:
        return "Market order with Algo Id not allowed"
    broken = _broken_rule(record, account)
    return f"RMS:Rule: {broken}  {entity(record)}" if broken else ""


def _broken_rule(record: OrderRecord, account: Account) -> str:
    listing, order_type, quantity = record.listing, record.order_type, record.quantity
    if order_type is _MARKET:
        return "Check last traded price of market order, there is none"
    is_cover = record.product is _CO and not record.parent_number
    if order_type is not _SL_M and (broken := _broken_by(record.price, listing)):
        return broken
    has_trigger = order_type is not _LIMIT or is_cover
    if has_trigger and (broken := _broken_by(record.trigger, listing)):
        return broken
    if record.bracket is not None:
        for price in exit_prices(record, record.price):
            if broken := _broken_by(price, listing):
                return broken
    if has_trigger and order_type is not _SL_M and _trigger_on_wrong_side(record):
        return "Check trigger price against limit price"
    if listing.freeze_quantity and quantity > listing.freeze_quantity:
        return f"Check freeze quantity {listing.freeze_quantity} exceeds"
    if record.side is _SELL and record.product in DELIVERY:
        pending = record.pending_quantity
        sellable = max(0, account.sellable(listing, record.product))
        if pending > sellable:
            return f"Check holdings, {pending} to sell and {sellable} free"
    return ""


def _broken_by(price: int, listing: Listing) -> str:
    tick = listing.tick
    if price % tick:
        return f"Check price is a multiple of tick {tick / 100:.2f}"
    if not listing.lower_band <= price <= listing.upper_band:
        return "Check circuit limit including square off order exceeds"
    return ""


def entity(record: OrderRecord) -> str:
    """Return how the broker's rejections end, trailing blank included."""
    return f"for entity account-{record.account} across exchange across segment across product "


def _trigger_on_wrong_side(record: OrderRecord) -> bool:
    """Return whether a trigger is not before its limit, or for a cover order not behind it."""
    beyond = record.trigger - record.price
    if record.side is _SELL:
        beyond = -beyond
    is_cover = record.product is Product.CO and not record.parent_number
    return beyond >= 0 if is_cover else beyond > 0
