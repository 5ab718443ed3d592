"""What the account holds and can afford."""

from __future__ import annotations

from neo_async.errors import BrokerError, ProtocolError
from neo_async.live import LivePositions, Report
from neo_async.model.enums import OrderType, Product, Segment, Side
from neo_async.model.orders import Price
from neo_async.model.portfolio import (
    Holding,
    Limits,
    OrderMargin,
    Position,
    PositionRow,
    value_position,
)
from neo_async.session import SessionManager
from neo_async.wire.endpoints import CHECK_MARGIN, HOLDINGS, LIMITS, POSITIONS, POSITIONS_OLDER
from neo_async.wire.portfolio import (
    LimitsForm,
    read_holdings,
    read_limits,
    read_margin,
    read_positions,
)
from neo_async.wire.rules import margin_form


class Portfolio:
    def __init__(self, session: SessionManager) -> None:
        self._session = session
        self.live = LivePositions(self._report)
        """The positions, kept current from `await live.start()` on."""

    async def positions(self) -> list[Position]:
        """Open and closed positions of the day and those carried, valued as the broker documents
        it. An amount that cannot be known is None, and `unknown_reason` says why."""
        rows, holdings = await self._report()
        return [value_position(row, holdings.get(row.token), row.last_price) for row in rows]

    async def holdings(self) -> list[Holding]:
        """Delivery stock."""
        return await self._session.read(HOLDINGS, read_holdings)

    async def limits(self) -> Limits:
        """Funds of the account over all segments, exchanges and products."""
        return await self._session.read(LIMITS, read_limits, form=LimitsForm())

    async def margin(
        self,
        segment: Segment,
        token: str,
        side: Side,
        quantity: int,
        *,
        product: Product,
        price: Price | None = None,
        order_type: OrderType = OrderType.LIMIT,
        trigger: Price | None = None,
    ) -> OrderMargin:
        """What one order would need. `token` is the instrument's, not its trading symbol: this
        call of the broker knows nothing else."""
        form = margin_form(
            segment=segment,
            token=token,
            side=side,
            quantity=quantity,
            product=product,
            price=price,
            order_type=order_type,
            trigger=trigger,
        )
        return await self._session.read(CHECK_MARGIN, read_margin, form=form)

    async def _report(self) -> Report:
        rows = await self._position_rows()
        holdings = {}
        if any(row.needs_holding for row in rows):
            holdings = {holding.token: holding for holding in await self.holdings()}
        return rows, holdings

    async def _position_rows(self) -> list[PositionRow]:
        """From the newer path, which knows last prices, or from the older where that is missing."""
        try:
            return await self._session.read(POSITIONS, read_positions)
        except (BrokerError, ProtocolError) as error:  # the latter where a page says it
            if error.status not in (404, 405):
                raise
        return await self._session.read(POSITIONS_OLDER, read_positions)
