"""Portfolio: positions, holdings, limits and margin of the account."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, overload

from neo_async.base import logs
from neo_async.base.logs import logger_of
from neo_async.errors import BrokerError, InvalidOrder, NeoError, ProtocolError
from neo_async.market_data.instruments import Instruments
from neo_async.market_data.market import Market
from neo_async.model.enums import OrderType, Product, Segment, Side
from neo_async.model.indices import exact_index_name
from neo_async.model.instruments import InstrumentLike
from neo_async.model.market import QuoteFilter
from neo_async.model.orders import Price
from neo_async.model.portfolio import (
    Holding,
    Limits,
    OrderMargin,
    Position,
    PositionRow,
    SquaredOff,
)
from neo_async.portfolio.live_positions import LivePositions, Report
from neo_async.portfolio.position_rows import is_finite, is_price, position_key
from neo_async.portfolio.valuation import holding_of, holdings_by_instrument, value_position
from neo_async.session.requests import SessionRequests
from neo_async.wire.endpoints import CHECK_MARGIN, HOLDINGS, LIMITS, POSITIONS, POSITIONS_OLDER
from neo_async.wire.portfolio import (
    LimitsForm,
    read_holdings,
    read_limits,
    read_margin,
    read_positions,
)
from neo_async.wire.rules import margin_form, read_segment


class Portfolio:
    """The account's positions, holdings, limits and margins, `neo.portfolio`."""

    def __init__(
        self,
        session: SessionRequests,
        market: Market,
        instruments: Instruments,
        *,
        square_off: Callable[..., Awaitable[list[SquaredOff | NeoError]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`square_off` closes positions; see the method of that name."""
        self._session = session
        self._instruments = instruments
        self._log = logger_of(logs.PORTFOLIO, session.ucc)
        self._market = market
        self._square_off = square_off
        self.live = LivePositions(self._report, clock=clock, log=self._log)
        """The positions, kept current from `await live.start()` on."""

    async def positions(self, *, quotes: bool = True) -> list[Position]:
        """Return open and closed positions of the day and those carried, valued as the broker
        documents it. An amount that is not known is None, and `unknown_reason` holds the reason.

        Last prices that the report lacks, as it does now and then, are taken from `quotes`.
        """
        rows, holdings = await self._report()
        prices = await self._quoted_prices(rows) if quotes else {}
        return [
            value_position(
                row,
                holding_of(row, holdings),
                row.last_price if is_price(row.last_price) else prices.get(row.instrument),
            )
            for row in rows
        ]

    async def net_quantity(
        self, segment: str, symbol: str, product: str, *, holding: str = ""
    ) -> int:
        """Return the net quantity of one position in units, negative when short; together with what
        can be sold of the delivery stock of the instrument `holding`, `nse_cm|19084`, if given.

        Raises ProtocolError when the broker's row of it cannot be read.
        """
        wanted = position_key(segment, symbol, product)
        net = 0
        for row in await self.position_rows():
            if position_key(row.segment, row.symbol, row.product) == wanted:
                if not row.has_quantities:
                    raise ProtocolError(f"the position in {symbol} cannot be read: {row.odd}")
                net += row.carried_quantity + row.buy_quantity - row.sell_quantity
        if holding:
            net += sum(
                one.sellable_quantity or 0
                for one in await self.holdings()
                if f"{one.segment.lower()}|{one.token}" == holding
            )
        return net

    async def square_off(
        self,
        *,
        segment: Segment | str | None = None,
        symbol: str | None = None,
        instrument: InstrumentLike | None = None,
        product: Product | str | None = None,
        holdings: bool = False,
        timeout: float = 60.0,
    ) -> list[SquaredOff | NeoError]:
        """Close positions at the market, all of the account or those of a segment, symbol,
        instrument or product; return the outcome of each: it is flat, or an error such as
        PositionOpen says what is left after `timeout` seconds.

        Orders that are open in a position are cancelled first, and exit plans on it end. Never more
        than the net quantity is closed, whatever fills meanwhile; quantities above the freeze
        quantity are sliced where the scrip master is loaded. A halt does not stop it. With
        `holdings`, the delivery stock that can be sold is sold as well, which needs the scrip
        master of its segment. Where no position is of the symbol, and the scrip masters show that
        there is no such symbol, this raises InvalidOrder with the nearest ones.
        """
        return await self._square_off(
            segment=segment,
            symbol=symbol,
            instrument=instrument,
            product=product,
            holdings=holdings,
            timeout=timeout,
        )

    async def holdings(self) -> list[Holding]:
        """Return the delivery stock."""
        return await self._session.read(HOLDINGS, read_holdings)

    async def limits(self) -> Limits:
        """Return the funds of the account over all segments, exchanges and products."""
        return await self._session.read(LIMITS, read_limits, form=LimitsForm())

    @overload
    async def margin(
        self,
        segment: Segment | str,
        symbol: str,
        side: Side | str,
        quantity: int,
        *,
        product: Product | str,
        price: Price | None = ...,
        order_type: OrderType | str = ...,
        trigger: Price | None = ...,
    ) -> OrderMargin: ...

    @overload
    async def margin(
        self,
        instrument: InstrumentLike,
        side: Side | str,
        quantity: int,
        /,
        *,
        product: Product | str,
        price: Price | None = ...,
        order_type: OrderType | str = ...,
        trigger: Price | None = ...,
    ) -> OrderMargin: ...

    async def margin(
        self,
        segment: Any,
        symbol: Any,
        side: Any,
        quantity: Any = None,
        *,
        product: Product | str,
        price: Price | None = None,
        order_type: OrderType | str = OrderType.LIMIT,
        trigger: Price | None = None,
    ) -> OrderMargin:
        """Return the margin that one order would need; the arguments are those of `orders.place`.

        The broker takes the instrument's token: a key (`nse_cm|19084`) or `(Segment.NSE_CM,
        "19084")` needs no scrip master, and a trading symbol one that is loaded.
        """
        if quantity is None:
            name, side, quantity = segment, symbol, side
        else:
            name = f"{read_segment(segment)}|{symbol}"
        segment, _, token = self._instruments.key(name).partition("|")
        if index := exact_index_name(segment, token):
            raise InvalidOrder("instrument", index, "is an index, which has no orders")
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

    async def _quoted_prices(self, rows: list[PositionRow]) -> dict[str, float | None]:
        """Return the last prices, by instrument, of the rows that have none."""
        lacking = [
            row.instrument for row in rows if not is_price(row.last_price) and row.has_instrument
        ]
        if not lacking:
            return {}
        try:
            quotes = await self._market.quotes(lacking, filter=QuoteFilter.LAST_PRICE)
        except NeoError as error:
            # The positions are known without them.
            self._log.warning(
                "no quotes for %d positions without a last price: %s", len(lacking), error
            )
            return {}
        return {name: quote.last_price for name, quote in quotes.items()}

    async def _report(self) -> Report:
        rows = await self.position_rows()
        if not any(map(_needs_holding, rows)):
            return rows, {}
        return rows, holdings_by_instrument(await self.holdings())

    async def position_rows(self) -> list[PositionRow]:
        """Return the rows of the positions report as the broker sent them: from the newer path,
        which has last prices, or from the older where the newer is missing."""
        try:
            return await self._session.read(POSITIONS, read_positions)
        except (BrokerError, ProtocolError) as error:  # the latter where a page reports it
            if error.status not in (404, 405):
                raise
        return await self._session.read(POSITIONS_OLDER, read_positions)


def _needs_holding(row: PositionRow) -> bool:
    """Return whether the cost of the row is in a holding. Where the carried quantity cannot be
    read, no holding helps: the row has no value."""
    carried = (row.carried_buy_quantity, row.carried_sell_quantity)
    return all(map(is_finite, carried)) and row.needs_holding
