"""The bracket of the demo: an entry with stop and target, through a whipsaw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from neo_async.cli.demo import plan
from neo_async.cli.demo.demo_order import DemoOrder
from neo_async.model.enums import OrderType, Product, Segment, Side
from neo_async.model.orders import OrderRequest

if TYPE_CHECKING:
    from neo_async.exchange.engine.matching_engine import MatchingEngine
    from neo_async.exchange.engine.types import Listing
    from neo_async.execution.order import Order
    from neo_async.exits.plan import ExitPlan

AWAY = 1.0
"""Percent of the price at which stop and target lie from it."""
BEYOND = 1.2
"""Percent of the price to which the whipsaw runs on both sides."""


class BracketReport(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of the demo's bracket."""

    symbol: str
    quantity: int
    stop: str
    target: str
    state: str
    exited_by: str | None
    exit_orders: list[str]
    """Numbers of the orders that exited it."""
    net: int
    """Net quantity of the position at the end."""


def entry(market: MatchingEngine, listing: Listing) -> OrderRequest:
    """Return the entry: a market order."""
    return msgspec.structs.replace(
        plan.order(market, listing, Side.BUY, 0.0, tag="bracket"),
        order_type=OrderType.MARKET,
        price=None,
    )


def levels(market: MatchingEngine, listing: Listing) -> tuple[str, str]:
    """Return stop and target in rupees."""
    stop = plan.limit(market, listing, Side.BUY, -AWAY)
    return stop, plan.limit(market, listing, Side.BUY, AWAY)


def exit_line(order: Order) -> DemoOrder:
    """Return an exit order of the plan as a line of the demo."""
    line = DemoOrder(
        OrderRequest(
            Segment(order.segment),
            order.symbol,
            Side(order.side),
            order.quantity,
            Product(order.product),
            order.price,
            OrderType(order.order_type),
            order.trigger,
            tag="exit",
        )
    )
    line.order = order
    line.update()
    return line


def report(exit_plan: ExitPlan, net: int) -> BracketReport:
    """Return the outcome of a bracket, whose position has this net quantity."""
    change = exit_plan.snapshot()
    return BracketReport(
        symbol=change.symbol,
        quantity=change.entered,
        stop=str(change.stop),
        target=str(change.target),
        state=change.status.value,
        exited_by=change.exited_by,
        exit_orders=[order.number for order in exit_plan.exits],
        net=net,
    )
