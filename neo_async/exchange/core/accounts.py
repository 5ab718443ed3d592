"""Money and stock of one account: what is its own, what is blocked, what it may still do.

Delivery (CNC) pays the full value and gets the proceeds of a sale at once. Every other product
blocks a share of the value:

    cash segments   MIS, CO, BO 20 %, MTF 50 %, NRML 100 %
    futures         15 %: 12 in the place of SPAN, 3 for exposure
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
"""Products that sell only what is there."""

_CASH_PERCENT: Final = {
    Product.MIS: 20,
    Product.CO: 20,
    Product.BO: 20,
    Product.MTF: 50,
    Product.NRML: 100,
    Product.CNC: 100,
}
_DERIVATIVE_PERCENT: Final = 15

ExposureKey: TypeAlias = tuple[Segment, str, Product]


class Exposure:
    """A position and the working orders beside it, in one instrument and product."""

    __slots__ = (
        "_percent",
        "_strike",
        "buying_quantity",
        "buying_value",
        "delivery_credit",
        "is_delivery",
        "margin_used",
        "position",
        "realised",
        "selling_quantity",
        "selling_value",
    )

    def __init__(self, listing: Listing, product: Product) -> None:
        self.position = Position(listing=listing, product=product)
        self.is_delivery = product is Product.CNC
        is_cash = listing.segment.is_cash
        self._percent = _CASH_PERCENT[product] if is_cash else _DERIVATIVE_PERCENT
        self._strike = listing.strike if listing.is_option else 0
        """0: no option."""
        self.buying_quantity = 0
        """Of the working orders to buy."""
        self.buying_value = 0
        self.selling_quantity = 0
        self.selling_value = 0
        self.margin_used = 0
        self.delivery_credit = 0
        self.realised = 0

    def add_working(self, side: Side, quantity: int, price: int) -> None:
        """Block for an order, or release with a negative quantity."""
        if side is Side.BUY:
            self.buying_quantity += quantity
            self.buying_value += quantity * price
        else:
            self.selling_quantity += quantity
            self.selling_value += quantity * price

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
        position = self.position
        bought = position.carried_buy_quantity + position.buy_quantity
        sold = position.carried_sell_quantity + position.sell_quantity
        bought_value = position.carried_buy_value + position.buy_value
        sold_value = position.carried_sell_value + position.sell_value
        if self.is_delivery:
            paid = bought_value - sold_value
            self.margin_used = (paid if paid > 0 else 0) + self.buying_value
            self.delivery_credit = -paid if paid < 0 else 0
            return
        # What is open, and what working orders would open beyond what they close.
        net = bought - sold
        buying, selling = self.buying_quantity, self.selling_quantity
        margin = 0
        if net > 0:
            closed_value = bought_value * sold // bought
            self.realised = sold_value - closed_value
            margin = self._margin_bought(bought_value - closed_value)
            selling -= net
        elif net < 0:
            closed_value = sold_value * bought // sold
            self.realised = closed_value - bought_value
            margin = self._margin_sold(-net, sold_value - closed_value)
            buying += net
        else:
            self.realised = sold_value - bought_value
        if buying > 0:
            margin += self._margin_bought(-(-self.buying_value * buying // self.buying_quantity))
        if selling > 0:
            value = -(-self.selling_value * selling // self.selling_quantity)
            margin += self._margin_sold(selling, value)
        self.margin_used = margin

    def _margin_bought(self, value: int) -> int:
        """What it takes to open a position of that value. Rounded up, as below: a margin is never
        a fraction of a paisa short."""
        return value if self._strike else -(-value * self._percent // 100)

    def _margin_sold(self, quantity: int, value: int) -> int:
        return -(-(self._strike * quantity or value) * self._percent // 100)


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
        return own - exposure.selling_quantity

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
