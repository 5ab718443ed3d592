"""Closes positions at the market: by position, not by order, and never more than the net."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from neo_async.base import logs
from neo_async.errors import (
    NeoError,
    NotLoggedIn,
    OutcomeUnknown,
    PositionOpen,
    ProtocolError,
    Rejected,
    UsageError,
)
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.order import Order
from neo_async.execution.validation import slices
from neo_async.exits.checks import member
from neo_async.exits.requests import ExitRequests
from neo_async.market_data.instruments import Instruments
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment, Side
from neo_async.model.instruments import Instrument
from neo_async.model.orders import OrderRequest
from neo_async.model.portfolio import Holding, PositionKey, PositionRow, SquaredOff
from neo_async.portfolio.portfolio import Portfolio
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


class Selection(NamedTuple):
    """The positions that are to be closed; None is any."""

    segment: Segment | None
    symbol: str | None
    product: Product | None

    def includes(self, key: PositionKey) -> bool:
        """Return whether the position of this key is among them."""
        wanted = (self.segment, self.symbol and self.symbol.upper(), self.product)
        return all(want in (None, has) for want, has in zip(wanted, key, strict=True))

    def may_include(self, holding: Holding) -> bool:
        """Return whether delivery stock may be among them: its report has the name, `ITBEES`, and
        not the trading symbol, `ITBEES-EQ`."""
        wanted, name = (
            (text or "").strip().upper().removesuffix("-EQ")
            for text in (self.symbol, holding.symbol)
        )
        return (
            self.segment in (None, holding.segment.strip().lower())
            and self.product in (None, Product.CNC)
            and wanted in ("", name)
        )


class PositionCloser:
    """Finds the open positions of the account, and closes them."""

    def __init__(
        self,
        engine: ExecutionEngine,
        requests: ExitRequests,
        portfolio: Portfolio,
        instruments: Instruments,
    ) -> None:
        self._engine = engine
        self._requests = requests
        self._portfolio = portfolio
        self._instruments = instruments

    async def find(
        self, which: Selection, *, holdings: bool
    ) -> tuple[list[OpenPosition], list[NeoError]]:
        """Return the positions that are not flat, and errors of those that cannot be read."""
        found: list[OpenPosition] = []
        problems: list[NeoError] = []
        for row in await self._portfolio.position_rows():
            if not which.includes(position_key(row.segment, row.symbol, row.product)):
                continue
            try:
                if position := _open_position(row):
                    found.append(position)
            except NeoError as error:
                problems.append(error)
        if holdings and which.product in (None, Product.CNC):
            sellable, unknown = await self._sellable_holdings(found, which)
            found += sellable
            problems += unknown
        return found, problems

    async def _sellable_holdings(
        self, positions: Iterable[OpenPosition], which: Selection
    ) -> tuple[list[OpenPosition], list[NeoError]]:
        """Return the delivery stock that can be sold, and that is in no position of the day; and an
        error for each whose trading symbol is not known."""
        known = {position.instrument for position in positions}
        found: list[OpenPosition] = []
        problems: list[NeoError] = []
        for holding in await self._portfolio.holdings():
            name = f"{holding.segment.lower()}|{holding.token}"
            instrument = self._instrument_named(name)
            if not holding.sellable_quantity or name in known:
                continue
            if instrument is None:
                if which.may_include(holding):
                    problems.append(_unlisted(holding, name))
                continue
            position = OpenPosition(
                segment=instrument.segment,
                symbol=instrument.symbol,
                product=Product.CNC,
                instrument=name,
                net=holding.sellable_quantity,
            )
            if which.includes(position.key):
                found.append(position)
        return found, problems

    async def close(
        self, positions: Sequence[OpenPosition], holdings: bool, timeout: float
    ) -> list[SquaredOff | NeoError]:
        """Close positions at once, and return the outcome of each."""
        rows = await self._engine.read_order_book()
        async for _ in self._engine.register_open(rows):
            pass  # orders that were placed elsewhere are cancelled as well
        closing = [
            SquareOff(
                position,
                requests=self._requests,
                open_orders=self._open_orders,
                read_net=self._net_of(position, holdings=holdings),
                slices=self._slices,
                timeout=timeout,
            ).run()
            for position in positions
        ]
        results: list[SquaredOff | NeoError] = []
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, NeoError):
                raise result
            results.append(result)
        return results

    def _instrument_named(self, name: str) -> Instrument | None:
        segment, _, token = name.partition("|")
        try:
            return self._instruments.by_token(Segment(segment), token)
        except (UsageError, ValueError):  # the segment is not loaded, or none of ours
            return None

    def _open_orders(self, key: PositionKey) -> list[Order]:
        return [
            order
            for order in self._engine.cache.open_orders
            if position_key(order.segment, order.symbol, order.product) == key
        ]

    def _net_of(
        self, position: OpenPosition, *, holdings: bool
    ) -> Callable[[PositionKey], Awaitable[int]]:
        holding = position.instrument if holdings and position.product is Product.CNC else ""

        async def read(key: PositionKey) -> int:
            return await self._portfolio.net_quantity(*key, holding=holding)

        return read

    def _slices(self, position: OpenPosition, quantity: int) -> list[int]:
        instrument = self._instruments.find(position.segment, position.symbol)
        return [quantity] if instrument is None else slices(quantity, instrument)


def _unlisted(holding: Holding, name: str) -> UsageError:
    return UsageError(
        f"{holding.sellable_quantity} {holding.symbol} of the delivery stock are not sold: {name} "
        f"is in no loaded scrip master: await neo.instruments.load({holding.segment.lower()!r}) "
        "first"
    )


def _open_position(row: PositionRow) -> OpenPosition | None:
    """Return the position of a row; None where it is flat. Raises NeoError for one that cannot be
    closed because it cannot be read."""
    if not row.has_quantities:
        raise ProtocolError(f"the position in {row.symbol} cannot be read: {', '.join(row.odd)}")
    net = row.carried_quantity + row.buy_quantity - row.sell_quantity
    if not net:
        return None
    return OpenPosition(
        segment=member("segment", row.segment.strip().lower(), Segment),
        symbol=row.symbol.strip(),
        product=member("product", row.product.strip().upper(), Product),
        instrument=row.instrument,
        net=net,
    )
