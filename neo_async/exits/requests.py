"""The order requests of exit plans: checked, journaled and sent as every other, but ahead of new
orders, and not stopped by limits that forbid opening positions."""

from __future__ import annotations

from decimal import Decimal

from neo_async.errors import OutcomeUnknown
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.order import Order
from neo_async.exits.state import Aim, ExitTerms, PlanTerms
from neo_async.model.enums import OrderType
from neo_async.model.orders import OrderRequest
from neo_async.orders import Orders
from neo_async.transport.kinds import Kind


class ExitRequests:
    """Sends the exit orders of plans."""

    def __init__(self, engine: ExecutionEngine, orders: Orders) -> None:
        self._engine = engine
        self._orders = orders

    async def place(self, order: OrderRequest) -> Order:
        """Place an order that closes a position. Raises as Orders.place does."""
        request = self._orders.placement(order, kind=Kind.EXIT)
        return await self._engine.place(request, wait_for_outcome=True)

    async def change(
        self, order: Order, quantity: int, terms: ExitTerms, *, is_trailing: bool
    ) -> None:
        """Change an exit order. Raises as Orders.modify does."""
        given: dict[str, object] = {"quantity": quantity, "order_type": terms.order_type}
        prices: dict[str, Decimal | None] = {"price": terms.price, "trigger": terms.trigger}
        given |= {name: price for name, price in prices.items() if price is not None}
        async with self._engine.modification_lock(order):
            await self._engine.until_terms_known(order, given.keys())
            kind = Kind.TRAIL if is_trailing else Kind.EXIT
            request = self._orders.modification(order, given, kind=kind)
            try:
                await self._engine.modify(request)
                return
            except OutcomeUnknown as error:
                unknown = error
        await self._engine.resolved_order(unknown, wait_for_outcome=True)

    async def cancel(self, order: Order) -> None:
        """Cancel an order. Raises as Orders.cancel does."""
        await self._engine.cancel(order)


def exit_request(plan: PlanTerms, quantity: int, terms: ExitTerms, tag: str) -> OrderRequest:
    """Return the placement of an exit order of a plan."""
    return OrderRequest(
        segment=plan.segment,
        symbol=plan.symbol,
        side=plan.exit_side,
        quantity=quantity,
        product=plan.product,
        order_type=terms.order_type,
        price=terms.price,
        trigger=terms.trigger,
        tag=tag,
    )


def terms_of(order: Order) -> ExitTerms:
    """Return the terms of an exit order as the order shows them."""
    if order.order_type == OrderType.SL:
        return ExitTerms(Aim.STOP, OrderType.SL, price=order.price, trigger=order.trigger)
    if order.order_type == OrderType.LIMIT and order.trigger is None:
        return ExitTerms(Aim.TARGET, OrderType.LIMIT, price=order.price)
    return ExitTerms(Aim.CLOSE, OrderType.MARKET)
