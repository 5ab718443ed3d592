"""A small market to test with: three instruments, no makers, rich accounts."""

from __future__ import annotations

from typing import Any

from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import (
    Bracket,
    Change,
    Holding,
    Listing,
    NewOrder,
    OrderRecord,
)
from neo_async.model.enums import OrderType, Product, Segment, Side, Validity
from tests.exchange_settings import EVERY_ORDER

START = 1_795_408_200_000_000_000
"""2026-11-23 10:00:00 IST, a Monday."""
SECOND = 1_000_000_000

SHARE = Listing(
    segment=Segment.NSE_CM,
    token="1",
    symbol="ACME-EQ",
    name="ACME",
    base_price=200_00,
    lower_band=180_00,
    upper_band=220_00,
    freeze_quantity=5_000,
)
FUTURE = Listing(
    segment=Segment.NSE_FO,
    token="2",
    symbol="ACME26DECFUT",
    name="ACME",
    kind="FUTSTK",
    lot_size=50,
    base_price=201_00,
    lower_band=181_00,
    upper_band=221_00,
)
OPTION = Listing(
    segment=Segment.NSE_FO,
    token="3",
    symbol="ACME26DEC200CE",
    name="ACME",
    kind="OPTSTK",
    lot_size=50,
    base_price=8_00,
    lower_band=5,
    upper_band=40_00,
    strike=200_00,
    option_type="CE",
)
UNTRADED_OPTION = Listing(
    segment=Segment.NSE_FO,
    token="4",
    symbol="ACME26DEC400CE",
    name="ACME",
    kind="OPTSTK",
    lot_size=50,
    base_price=0,
    lower_band=5,
    upper_band=1_00,
    strike=400_00,
    option_type="CE",
)
LISTINGS = (SHARE, FUTURE, OPTION, UNTRADED_OPTION)
CASH = 10_000_000_00


def quiet_market(*accounts: str, cash: int = CASH, stock: int = 0) -> MatchingEngine:
    """No makers: nothing trades but what the test places."""
    market = MatchingEngine(LISTINGS, seed=1, now_ns=START, market_makers=False, rules=EVERY_ORDER)
    for account in accounts or ("ann", "bob"):
        held = [Holding(listing=SHARE, quantity=stock, average_price=1.0, sellable_quantity=stock)]
        market.open_account(account, cash=cash, holdings=held if stock else [])
    return market


def new(side: Side, quantity: int, price: int = 0, **fields: Any) -> NewOrder:
    """A limit order at a price, or a market order without one; MIS, DAY, ACME-EQ."""
    return NewOrder(
        **{
            "segment": Segment.NSE_CM,
            "symbol": SHARE.symbol,
            "side": side,
            "quantity": quantity,
            "price": price,
            "order_type": OrderType.LIMIT if price else OrderType.MARKET,
            "product": Product.MIS,
            **fields,
        }
    )


def buy(quantity: int, price: int = 0, **fields: Any) -> NewOrder:
    return new(Side.BUY, quantity, price, **fields)


def sell(quantity: int, price: int = 0, **fields: Any) -> NewOrder:
    return new(Side.SELL, quantity, price, **fields)


def change(record: OrderRecord, **fields: Any) -> Change:
    """The order's present terms, but for the fields given."""
    return Change(
        **{
            "quantity": record.quantity,
            "order_type": record.order_type,
            "validity": record.validity,
            "price": record.price,
            "trigger": record.trigger,
            "disclosed_quantity": record.disclosed_quantity,
            **fields,
        }
    )


def states(record: OrderRecord) -> list[str]:
    return [transition.status.value for transition in record.history]


IOC = Validity.IOC
BRACKET = Bracket(target=5_00, stop=3_00)
