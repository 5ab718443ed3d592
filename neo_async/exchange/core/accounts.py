"""Money and stock of one account: what is its own, what is blocked, what it may still do.

Delivery (CNC, MTF) pays the full value and gets the proceeds of a sale at once. Every other
product blocks a share of the value:

    cash segments   MIS, CO, BO 20 %, NRML 100 %
    futures         15 %
    options         the premium when buying, 15 % of the strike's value when selling

An order blocks only for what it would add to a position, not for what it would close. Profits and
losses of closed positions count at once. Real margins depend on volatility and offsets between
positions; these are simple on purpose, and the same for everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import msgspec

from neo_async.exchange.core.state import AccountState
from neo_async.exchange.core.types import Fill, Funds, Holding, Listing, OrderRecord, Position
from neo_async.model.enums import Product, Segment, Side

DELIVERY: Final = (Product.CNC, Product.MTF)

_CASH_NRML_PERCENT: Final = 100
_INTRADAY_PERCENT: Final = 20
_DERIVATIVE_PERCENT: Final = 15

ExposureKey: TypeAlias = tuple[Segment, str, Product]


def _share(value: int, percent: int) -> int:
    """Rounded up: a margin is never a fraction of a paisa short."""
    return -(-value * percent // 100)


def _margin(listing: Listing, product: Product, side: Side, quantity: int, value: int) -> int:
    """What opening a position of this quantity and value takes."""
    if listing.is_option:
        if side is Side.BUY:
            return value
        return _share(listing.strike * quantity, _DERIVATIVE_PERCENT)
    if not listing.segment.is_cash:
        return _share(value, _DERIVATIVE_PERCENT)
    return _share(value, _CASH_NRML_PERCENT if product is Product.NRML else _INTRADAY_PERCENT)


class Exposure:
    """A position and the working orders beside it, in one instrument and product."""

    def __init__(self, listing: Listing, product: Product) -> None:
        self.position = Position(listing=listing, product=product)
        self.delivery = product in DELIVERY
        self.working_quantity = {Side.BUY: 0, Side.SELL: 0}
        self.working_value = {Side.BUY: 0, Side.SELL: 0}
        self.margin_used = 0
        self.delivery_credit = 0
        self.realised = 0

    def add_working(self, side: Side, quantity: int, price: int) -> None:
        """Block for an order, or release with a negative quantity."""
        self.working_quantity[side] += quantity
        self.working_value[side] += quantity * price

    def add_fill(self, side: Side, quantity: int, price: int) -> None:
        position = self.position
        if side is Side.BUY:
            position.buy_quantity += quantity
            position.buy_value += quantity * price
        else:
            position.sell_quantity += quantity
            position.sell_value += quantity * price

    def reckon(self) -> None:
        """Bring the three amounts up to date with quantities and values."""
        if self.delivery:
            paid = self.position.bought_value - self.position.sold_value
            self.margin_used = max(paid, 0) + self.working_value[Side.BUY]
            self.delivery_credit = max(-paid, 0)
            return
        position = self.position
        bought, sold = position.bought, position.sold
        closed = min(bought, sold)
        closed_buys = position.bought_value * closed // bought if bought else 0
        closed_sells = position.sold_value * closed // sold if sold else 0
        self.realised = closed_sells - closed_buys
        margin = self._opening_margin(Side.BUY, sold - bought)
        margin += self._opening_margin(Side.SELL, bought - sold)
        if bought > sold:
            margin += _margin(
                position.listing,
                position.product,
                Side.BUY,
                bought - sold,
                position.bought_value - closed_buys,
            )
        elif sold > bought:
            margin += _margin(
                position.listing,
                position.product,
                Side.SELL,
                sold - bought,
                position.sold_value - closed_sells,
            )
        self.margin_used = margin

    def _opening_margin(self, side: Side, closable: int) -> int:
        """Of the working orders of a side, for what exceeds the position they would close."""
        working = self.working_quantity[side]
        opening = working - max(closable, 0)
        if opening <= 0:
            return 0
        value = -(-self.working_value[side] * opening // working)
        listing, product = self.position.listing, self.position.product
        return _margin(listing, product, side, opening, value)


class Account:
    def __init__(self, name: str, cash: int, holdings: Iterable[Holding]) -> None:
        self.name = name
        self.cash = cash
        self.orders: dict[str, OrderRecord] = {}
        """In order of acceptance."""
        self.fills: list[Fill] = []
        """Oldest first."""
        self._holdings = {
            (holding.listing.segment, holding.listing.token): holding for holding in holdings
        }
        self._exposures: dict[ExposureKey, Exposure] = {}
        self._margin_used = 0
        self._delivery_credit = 0
        self._realised = 0

    def funds(self) -> Funds:
        return Funds(
            cash=self.cash,
            margin_used=self._margin_used,
            delivery_credit=self._delivery_credit,
            realised=self._realised,
        )

    @property
    def available(self) -> int:
        return self.cash + self._delivery_credit + self._realised - self._margin_used

    def exposure(self, listing: Listing, product: Product) -> Exposure:
        key = (listing.segment, listing.token, product)
        exposure = self._exposures.get(key)
        if exposure is None:
            exposure = self._exposures[key] = Exposure(listing, product)
        return exposure

    def _exposure_as_it_is(self, listing: Listing, product: Product) -> Exposure:
        """Without opening one: a question leaves no trace."""
        key = (listing.segment, listing.token, product)
        return self._exposures.get(key) or Exposure(listing, product)

    def exposures(self) -> list[Exposure]:
        return list(self._exposures.values())

    def end_day(self, relisted: Callable[[Listing], Listing]) -> None:
        """Settle the day at the closing prices, which are the base prices of `relisted`.

        Delivery is paid and becomes holdings. What is still open elsewhere is carried at the close,
        and what that gained or lost against its cost is paid, in shares as in futures; so what is
        available stays what it was, but for the margin of another price. No order may be working.
        """
        for key, exposure in list(self._exposures.items()):
            position = exposure.position
            listing = relisted(position.listing)
            net = position.bought - position.sold
            paid = position.bought_value - position.sold_value
            del self._exposures[key]
            if position.product is Product.CNC:
                self.cash -= paid
                self._deliver(listing, position)
            else:
                self.cash += net * listing.base_price - paid
                if net:
                    self._carry(listing, position.product, net)
        self._holdings = {
            key: msgspec.structs.replace(
                holding, listing=relisted(holding.listing), sellable_quantity=holding.quantity
            )
            for key, holding in self._holdings.items()
            if holding.quantity
        }
        self.orders = {}
        self.fills = []
        self._margin_used = self._delivery_credit = self._realised = 0
        for exposure in self._exposures.values():
            exposure.margin_used = exposure.delivery_credit = exposure.realised = 0
            self._reckon(exposure)

    def _deliver(self, listing: Listing, position: Position) -> None:
        """Merge a day's delivery business: bought stock counts at its average price."""
        key = (listing.segment, listing.token)
        held = self._holdings.get(key) or Holding(
            listing=listing, quantity=0, average_price=0.0, sellable_quantity=0
        )
        before = held.quantity + position.buy_quantity
        cost = held.quantity * held.average_price + position.buy_value
        quantity = before - position.sell_quantity
        average = round(cost / before, 2) if before else 0.0
        self._holdings[key] = msgspec.structs.replace(
            held, quantity=quantity, average_price=average, sellable_quantity=quantity
        )

    def _carry(self, listing: Listing, product: Product, net: int) -> None:
        carried = self.exposure(listing, product).position
        if net > 0:
            carried.carried_buy_quantity = net
            carried.carried_buy_value = net * listing.base_price
        else:
            carried.carried_sell_quantity = -net
            carried.carried_sell_value = -net * listing.base_price

    def positions(self) -> list[Position]:
        """Copies; closed ones stay for the day."""
        return [
            msgspec.structs.replace(exposure.position)
            for exposure in self._exposures.values()
            if exposure.position.bought or exposure.position.sold
        ]

    def holdings(self) -> list[Holding]:
        """Quantities as the day began (delivery settles later); what is sellable, as of now."""
        return [
            msgspec.structs.replace(
                holding,
                sellable_quantity=max(
                    0, min(holding.sellable_quantity, self.sellable(holding.listing, Product.CNC))
                ),
            )
            for holding in self._holdings.values()
        ]

    def sellable(self, listing: Listing, product: Product) -> int:
        """Delivery stock that may still be put on sale.

        For CNC the holding and what was bought today; for MTF only what was bought today.
        """
        exposure = self._exposure_as_it_is(listing, product)
        own = exposure.position.bought - exposure.position.sold
        if product is Product.CNC:
            holding = self._holdings.get((listing.segment, listing.token))
            own += holding.sellable_quantity if holding else 0
        return own - exposure.working_quantity[Side.SELL]

    def block(self, exposure: Exposure, side: Side, quantity: int, price: int) -> None:
        """Block for a working order, or release with a negative quantity."""
        exposure.add_working(side, quantity, price)
        self._reckon(exposure)

    def cost(
        self, listing: Listing, product: Product, side: Side, quantity: int, price: int
    ) -> int:
        """By how much a working order of this size would lower what is available."""
        exposure = self._exposure_as_it_is(listing, product)
        before = self.available
        self.block(exposure, side, quantity, price)
        after = self.available
        self.block(exposure, side, -quantity, price)
        return before - after

    def fill(self, exposure: Exposure, fill: Fill, blocked_price: int) -> None:
        exposure.add_working(fill.side, -fill.quantity, blocked_price)
        exposure.add_fill(fill.side, fill.quantity, fill.price)
        exposure.position.updated_ns = fill.time_ns
        self._reckon(exposure)
        self.fills.append(fill)

    def snapshot(self) -> AccountState:
        return AccountState(
            name=self.name,
            cash=self.cash,
            holdings=list(self._holdings.values()),
            positions=[exposure.position for exposure in self._exposures.values()],
            orders=list(self.orders),
        )

    @classmethod
    def restored(cls, state: AccountState, orders: Iterable[OrderRecord]) -> Account:
        """As it was, but for what working orders block: the market blocks that again."""
        account = cls(state.name, state.cash, state.holdings)
        account.orders = {record.number: record for record in orders}
        fills = (fill for record in account.orders.values() for fill in record.fills)
        account.fills = sorted(fills, key=lambda fill: fill.time_ns)
        for position in state.positions:
            exposure = account.exposure(position.listing, position.product)
            exposure.position = position
            account._reckon(exposure)
        return account

    def _reckon(self, exposure: Exposure) -> None:
        self._margin_used -= exposure.margin_used
        self._delivery_credit -= exposure.delivery_credit
        self._realised -= exposure.realised
        exposure.reckon()
        self._margin_used += exposure.margin_used
        self._delivery_credit += exposure.delivery_credit
        self._realised += exposure.realised
