"""Closes positions at the market: by position, not by order, and never more than the net."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import msgspec

from neo_async.base import logs
from neo_async.errors import (
    NeoError,
    NotLoggedIn,
    OrderAlreadyFinal,
    OutcomeUnknown,
    PositionOpen,
    ProtocolError,
    Rejected,
    UsageError,
)
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.order import Order
from neo_async.execution.reports import in_slices
from neo_async.execution.validation import slices
from neo_async.exits.requests import ExitRequests
from neo_async.market_data.instruments import Instruments
from neo_async.model.enums import OrderStatus, OrderType, Product, Segment, Side
from neo_async.model.instruments import Instrument
from neo_async.model.orders import OrderRequest, OrderRow
from neo_async.model.portfolio import Holding, PositionKey, PositionRow, SquaredOff
from neo_async.portfolio.portfolio import Portfolio
from neo_async.portfolio.position_rows import position_key, side_of
from neo_async.session.polling import retry_until_answered
from neo_async.wire.rules import read_member
from neo_async.wire.tags import is_exit

T = TypeVar("T")

log = logging.getLogger(logs.EXITS)

CHASE_SECONDS = 2.0
"""Time after which a closing order that has not filled gets a new market price."""
SETTLE_SECONDS = 0.05
"""Time between two looks whether the requests of plans that have ended are answered."""
READ_SECONDS = 1.0
"""Time between two readings of a position that does not show the fills yet."""
LAG_SECONDS = 5.0
"""Time for which the positions report may not show the newest fills yet."""
TIMEOUT_SECONDS = 60.0
"""Time after which a position that is still open is reported as an error."""


async def until_answered(read: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the result of a read, which is repeated until the broker answers it: a position stays
    open for as long as it cannot be read. Raises NotLoggedIn."""
    while True:
        try:
            return await retry_until_answered(read, log)
        except NotLoggedIn:
            raise
        except NeoError as error:
            log.warning("a square-off waits for its report: %s", error)
            await asyncio.sleep(READ_SECONDS)


class OpenPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position that is to be closed."""

    segment: Segment
    symbol: str
    product: Product
    instrument: str
    """The instrument as market feeds name it, `nse_cm|19084`."""
    net: int
    """Net quantity in units; negative when short."""
    carried: int | None = None
    """Units of it that are of earlier days; None where that is not known."""

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
        read_net: Callable[[PositionKey], Coroutine[Any, Any, int]],
        slices: Callable[[OpenPosition, int], Sequence[int]],
        settle: Callable[[PositionKey], Awaitable[Sequence[OrderRow]]],
        filled: Callable[[Sequence[OrderRow]], int],
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """`settle` waits until no order for the position is under way, has the open ones
        registered, and returns the position's rows of the order book; `filled` returns the units
        bought less those sold of these orders by now."""
        self._position = position
        self._requests = requests
        self._open_orders = open_orders
        self._read_net = read_net
        self._slices = slices
        self._settle = settle
        self._filled_of = filled
        self._timeout = timeout
        self._orders: list[Order] = []
        self._refusal: NeoError | None = None

    async def run(self) -> SquaredOff:
        """Close the position. Raises PositionOpen when it is not flat in time, and NotLoggedIn."""
        position = self._position
        net = position.net
        try:
            async with asyncio.timeout(self._timeout):
                waiting_for = "the outcome of an order is not known, which may close it"
                rows = await self._settle(position.key)
                waiting_for = "the orders did not fill in time"
                await self._cancel_open_orders()
                net = await self._read_first_net(rows)
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
                reason=str(self._refusal or waiting_for),
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

    async def _net(self) -> int:
        return await until_answered(lambda: self._read_net(self._position.key))

    async def _read_first_net(self, rows: Sequence[OrderRow]) -> int:
        """Return the net quantity once report and order book agree on it: an order that was just
        cancelled may have filled before. Where they keep disagreeing, the report counts."""
        now = asyncio.get_running_loop().time
        until = now() + LAG_SECONDS
        while True:
            net = await self._net()
            carried = self._position.carried
            if carried is None or net == carried + self._filled_of(rows) or now() >= until:
                return net
            await asyncio.sleep(READ_SECONDS)

    async def _read_until_shown(self, net: int, filled: int) -> int:
        """Return the net quantity once the report shows the fills. A report may lag behind: more
        than what is left is never closed."""
        left = net - filled if net > 0 else net + filled
        while True:
            shown = await self._net()
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
        self._locks: WeakValueDictionary[PositionKey, asyncio.Lock] = WeakValueDictionary()
        """Locks of the positions that are being closed: two would close one of them twice."""

    async def find(
        self, which: Selection, *, holdings: bool
    ) -> tuple[list[OpenPosition], list[NeoError]]:
        """Return the positions that are not flat, and errors of those that cannot be read. The
        report is read until the broker answers."""
        found: list[OpenPosition] = []
        problems: list[NeoError] = []
        for row in await until_answered(self._portfolio.position_rows):
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
        for holding in await until_answered(self._portfolio.holdings):
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
        self,
        positions: Sequence[OpenPosition],
        holdings: bool,
        timeout: float,
        is_answering: Callable[[PositionKey], bool],
    ) -> list[SquaredOff | NeoError]:
        """Close positions at once, and return the outcome of each. `is_answering` is whether a plan
        that has ended with it has requests under way."""

        if not positions:
            return []
        book = asyncio.ensure_future(self._read_book())

        async def settle(key: PositionKey) -> Sequence[OrderRow]:
            is_settled = not is_answering(key) and not self._is_placing(key)
            while is_answering(key) or self._is_placing(key):  # noqa: ASYNC110 - of many requests
                await asyncio.sleep(SETTLE_SECONDS)
            rows = await (asyncio.shield(book) if is_settled else self._read_book())
            return rows.get(key, ())

        closing = [
            self._close_alone(
                SquareOff(
                    position,
                    requests=self._requests,
                    open_orders=self._open_orders,
                    read_net=self._net_of(position, holdings=holdings),
                    slices=self._slices,
                    settle=settle,
                    filled=self._filled_of,
                    timeout=timeout,
                ),
                position.key,
            )
            for position in positions
        ]
        results: list[SquaredOff | NeoError] = []
        try:
            outcomes = await asyncio.gather(*closing, return_exceptions=True)
        finally:
            book.cancel()
        for result in outcomes:
            if isinstance(result, BaseException) and not isinstance(result, NeoError):
                raise result
            results.append(result)
        return results

    async def _read_book(self) -> dict[PositionKey, list[OrderRow]]:
        """Register every open order, also those placed elsewhere: they are cancelled as well.
        Return the rows of the order book by their position."""
        rows = await until_answered(self._engine.read_order_book)
        async for _ in self._engine.register_open(rows):
            pass
        by_key: dict[PositionKey, list[OrderRow]] = {}
        async for part in in_slices(rows):
            for row in part:
                key = position_key(row.segment, row.symbol, row.product)
                by_key.setdefault(key, []).append(row)
        return by_key

    def _filled_of(self, rows: Iterable[OrderRow]) -> int:
        """Return the units bought less those sold of these orders, by the newest report of each."""
        net = 0
        for row in rows:
            order = self._engine.cache.get(row.number)
            filled = max(row.filled_quantity, 0 if order is None else order.filled_quantity)
            net += filled if side_of(row.side) is Side.BUY else -filled
        return net

    async def _close_alone(self, closing: SquareOff, key: PositionKey) -> SquaredOff:
        """Close a position once no other call closes it."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        async with lock:
            return await closing.run()

    async def closing_orders(self, key: PositionKey, side: Side) -> list[Order]:
        """Return the open orders of one side in a position, also those placed elsewhere."""
        await self._read_book()
        return [order for order in self._open_orders(key) if side_of(str(order.side)) is side]

    async def cancel_exits_of_flat_positions(
        self, which: Selection, held: Collection[PositionKey]
    ) -> list[NeoError]:
        """Cancel the exit orders of plans that are open although their position is flat: they would
        open one the other way round. Return the errors."""
        await self._read_book()
        orders = []
        for order in self._engine.cache.open_orders:
            key = position_key(order.segment, order.symbol, order.product)
            if is_exit(order.client_tag) and which.includes(key) and key not in held:
                orders.append(order)
        results = await asyncio.gather(
            *(self._requests.cancel(order) for order in orders), return_exceptions=True
        )
        problems = []
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, NeoError):
                raise result
            if isinstance(result, NeoError) and not isinstance(result, OrderAlreadyFinal):
                problems.append(result)
        return problems

    def _is_placing(self, key: PositionKey) -> bool:
        """Return whether an order in a position may exist that no report has shown yet."""
        return any(
            one.expected.action == "place" and one.expected.kind[0:2] + one.expected.kind[3:] == key
            for one in self._engine.in_flight_requests
        )

    def _instrument_named(self, name: str) -> Instrument | None:
        segment, _, token = name.partition("|")
        try:
            return self._instruments.by_token(Segment(segment), token)
        except (UsageError, ValueError):  # the segment is not loaded, or none of ours
            return None

    def _open_orders(self, key: PositionKey) -> list[Order]:
        return [
            order
            for order in self._engine.cache.open_in(key[1])
            if position_key(order.segment, order.symbol, order.product) == key
        ]

    def _net_of(
        self, position: OpenPosition, *, holdings: bool
    ) -> Callable[[PositionKey], Coroutine[Any, Any, int]]:
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
        segment=read_member("segment", row.segment, Segment),
        symbol=row.symbol.strip(),
        product=read_member("product", row.product, Product),
        instrument=row.instrument,
        net=net,
        carried=row.carried_quantity,
    )
