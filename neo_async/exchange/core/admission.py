"""What an order must be: refused without a number when it is malformed, rejected by risk management
when it breaks a rule. Money is not looked at here."""

from __future__ import annotations

from datetime import date

from neo_async.exchange.core.accounts import DELIVERY, Account
from neo_async.exchange.core.legs import COVERED, target_and_trigger
from neo_async.exchange.core.types import Change, Listing, NewOrder, OrderRecord, Refusal, Rules
from neo_async.model.enums import OrderType, Product, Segment, Side, Validity


def check_listing(listing: Listing, product: Product, rules: Rules, today: date) -> None:
    """Refuse what is not traded in a listing, or no longer."""
    if product in DELIVERY and not listing.segment.is_cash:
        raise Refusal(1011, "please provide valid product")
    if product in COVERED and not rules.covered_orders:
        raise Refusal(1017, "BO/CO OrderType not allowed for TRADEAPI")
    if listing.expiry is not None and listing.expiry < today:
        raise Refusal(1010, "contract expired")


def check_terms(listing: Listing, terms: NewOrder | Change, *, is_cover: bool) -> None:
    """Refuse what is malformed, whatever the state of the market and of the account."""
    if terms.quantity <= 0:
        raise Refusal(1009, "please provide valid quantity")
    if terms.quantity % listing.lot_size:
        raise Refusal(1009, "please provide valid lotwise quantity")
    if not 0 <= terms.disclosed_quantity <= terms.quantity:
        raise Refusal(1009, "please provide valid disclosed quantity")
    if (
        terms.price < 0
        or terms.trigger < 0
        or (terms.order_type.has_limit and not terms.price)
        or ((terms.order_type.has_trigger or is_cover) and not terms.trigger)
        # A cover order's trigger belongs to its second leg, so the entry cannot be a stop.
        or (is_cover and (terms.order_type.has_trigger or terms.validity is not Validity.DAY))
        or (listing.segment is Segment.MCX_FO and terms.validity is not Validity.DAY)
    ):
        raise Refusal(5202, "Error: Invalid Request")


def check_bracket(order: NewOrder) -> None:
    """Refuse a bracket order whose exits are not told, and exits of any other order."""
    bracket = order.bracket
    if order.product is not Product.BO:
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


def check_change(record: OrderRecord, change: Change) -> None:
    """Refuse a change that an order cannot take."""
    is_leg = bool(record.parent_number)
    is_cover = record.product is Product.CO and not is_leg
    check_terms(record.listing, change, is_cover=is_cover)
    if change.quantity <= record.filled_quantity:
        raise Refusal(1009, "please provide valid quantity")
    if is_leg and change.quantity != record.quantity:
        raise Refusal(1009, "please provide valid quantity")
    if record.product in COVERED and (
        change.validity is not Validity.DAY
        or (is_leg and change.order_type is not record.order_type)
    ):
        raise Refusal(5202, "Error: Invalid Request")


def objection(record: OrderRecord, account: Account, rules: Rules) -> str:
    """Why risk management rejects an order, money aside; empty when it does not."""
    if record.order_type is OrderType.SL_M and not rules.stop_market_orders:
        return "Market order with Algo Id not allowed"
    broken = _broken_rule(record, account)
    return f"RMS:Rule: {broken}  {entity(record)}" if broken else ""


def _broken_rule(record: OrderRecord, account: Account) -> str:
    listing, order_type = record.listing, record.order_type
    if order_type is OrderType.MARKET:
        return "Check last traded price of market order, there is none"
    prices = [record.price] if order_type.has_limit else []
    if order_type.has_trigger:
        prices.append(record.trigger)
    is_cover = record.product is Product.CO and not record.parent_number
    if is_cover:
        prices.append(record.trigger)
    elif record.bracket is not None:
        prices += target_and_trigger(record, record.price)
    tick, lower, upper = listing.tick, listing.lower_band, listing.upper_band
    for price in prices:
        if price % tick:
            return f"Check price is a multiple of tick {tick / 100:.2f}"
        if not lower <= price <= upper:
            return "Check circuit limit including square off order exceeds"
    if (is_cover or order_type is OrderType.SL) and _trigger_on_wrong_side(record):
        return "Check trigger price against limit price"
    if listing.freeze_quantity and record.quantity > listing.freeze_quantity:
        return f"Check freeze quantity {listing.freeze_quantity} exceeds"
    if record.side is Side.SELL and record.product in DELIVERY:
        sellable = max(0, account.sellable(listing, record.product))
        if record.pending_quantity > sellable:
            return f"Check holdings, {record.pending_quantity} to sell and {sellable} free"
    return ""


def entity(record: OrderRecord) -> str:
    """How the broker's rejections end, trailing blank included."""
    return f"for entity account-{record.account} across exchange across segment across product "


def _trigger_on_wrong_side(record: OrderRecord) -> bool:
    """A stop's trigger comes before its limit; a cover order's lies behind its entry."""
    beyond = record.trigger - record.price
    if record.side is Side.SELL:
        beyond = -beyond
    is_cover = record.product is Product.CO and not record.parent_number
    return beyond >= 0 if is_cover else beyond > 0
