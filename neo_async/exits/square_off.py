"""Closes positions at the market: by position, not by order, and never more than the net."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from neo_async.base import logs
from neo_async.errors import NeoError, NotLoggedIn, OutcomeUnknown, PositionOpen, Rejected
from neo_async.execution.order import Order
from neo_async.exits.requests import ExitRequests
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment, Side
from neo_async.model.orders import OrderRequest
from neo_async.model.portfolio import PositionKey, SquaredOff
from neo_async.portfolio.position_rows import position_key

log = logging.getLogger(logs.EXITS)

CHASE_SECONDS = 2.0
"""Time after which a closing order that has not filled gets a new market price."""
READ_SECONDS = 1.0
"""Time between two readings of a position that does not show the fills yet."""
TIMEOUT_SECONDS = 60.0
"""Time after which a position that is still open is reported as an error."""


class OpenPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position that is to be closed."""

    segment: Segment
    symbol: str
    product: Product
    instrument: str
    """The instrument as market feeds name it, `nse_cm|19084`."""
    net: int
    """Net quantity in units; negative when short."""

    @property
    def key(self) -> PositionKey:
        """Segment, symbol and product."""
        return position_key(self.segment, self.symbol, self.product)


class SquareOff:
    """Closes one position.

    Orders that are open in it are cancelled first, and their ends waited for. Then the net quantity
    is closed in slices at market prices, which are renewed every two seconds, until the positions
    report shows that the position is flat.
    """

    def __init__(
        self,
        position: OpenPosition,
        *,
        requests: ExitRequests,
        open_orders: Callable[[PositionKey], Iterable[Order]],
        read_net: Callable[[PositionKey], Awaitable[int]],
        slices: Callable[[OpenPosition, int], Sequence[int]],
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._position = position
        self._requests = requests
        self._open_orders = open_orders
        self._read_net = read_net
        self._slices = slices
        self._timeout = timeout
        self._orders: list[Order] = []
        self._refusal: NeoError | None = None

    async def run(self) -> SquaredOff:
        """Close the position. Raises PositionOpen when it is not flat in time, and NotLoggedIn."""
        position = self._position
        net = position.net
        try:
            async with asyncio.timeout(self._timeout):
                await self._cancel_open_orders()
                net = await self._read_net(position.key)
                while net:
                    before = self._filled()
                    await self._close(net)
                    net = await self._read_until_shown(net, self._filled() - before)
        except TimeoutError:
            raise PositionOpen(
                position.segment,
                position.symbol,
                position.product,
                net,
                reason=str(self._refusal or "the orders did not fill in time"),
            ) from self._refusal
        return SquaredOff(
            segment=position.segment,
            symbol=position.symbol,
            product=position.product,
            quantity=self._filled(),
            orders=tuple(order.number for order in self._orders),
        )

    def _filled(self) -> int:
        return sum(order.filled_quantity for order in self._orders)

    async def _cancel_open_orders(self) -> None:
        """Cancel what is open in the position, and wait until it is final."""
        while orders := [*self._open_orders(self._position.key)]:
            await asyncio.gather(*(self._cancel(order) for order in orders))

    async def _cancel(self, order: Order) -> None:
        try:
            await self._requests.cancel(order)
        except NotLoggedIn:
            raise
        except NeoError as error:
            log.warning("square-off of %s: %s", self._position.symbol, error)
        try:
            await order.wait(timeout=CHASE_SECONDS)
        except TimeoutError:
            log.info("square-off of %s waits for %r", self._position.symbol, order)

    async def _close(self, net: int) -> None:
        """Place orders for the net quantity, and wait until all of them are final."""
        slices = self._slices(self._position, abs(net))
        side = Side.SELL if net > 0 else Side.BUY
        results = await asyncio.gather(
            *(self._place(side, quantity) for quantity in slices), return_exceptions=True
        )
        placed: list[Order] = []
        for result in results:
            if isinstance(result, Order):
                placed.append(result)
            elif isinstance(result, NotLoggedIn | OutcomeUnknown):
                raise result  # what may have been placed must not be placed again
            elif not isinstance(result, NeoError):
                raise result
            else:
                self._refusal = result
        self._orders += placed
        if not placed:
            await asyncio.sleep(READ_SECONDS)
        await asyncio.gather(*(self._until_final(order) for order in placed))

    async def _place(self, side: Side, quantity: int) -> Order:
        position = self._position
        return await self._requests.place(
            OrderRequest(
                segment=position.segment,
                symbol=position.symbol,
                side=side,
                quantity=quantity,
                product=position.product,
                order_type=OrderType.MARKET,
            )
        )

    async def _until_final(self, order: Order) -> None:
        """Wait until an order is final. One that does not fill is cancelled, so that the next one
        has the price of that moment."""
        try:
            await order.wait(timeout=CHASE_SECONDS)
        except TimeoutError:
            while not order.is_final:
                await self._cancel(order)
        if order.status is OrderStatus.REJECTED:
            self._refusal = Rejected(f"order {order.number} was rejected: {order.reject_reason}")

    async def _read_until_shown(self, net: int, filled: int) -> int:
        """Return the net quantity once the report shows the fills. A report may lag behind: more
        than what is left is never closed."""
        left = net - filled if net > 0 else net + filled
        while True:
            shown = await self._read_net(self._position.key)
            if abs(shown) <= abs(left) and shown * left >= 0:
                return shown
            await asyncio.sleep(READ_SECONDS)
