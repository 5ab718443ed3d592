"""Funds and stock of one account: what it owns, what is reserved, what is still available.

Delivery (CNC) pays the full value and gets the proceeds of a sale at once. For every
other product a share of the value is reserved as margin:

    cash segments   MIS, CO, BO 20 %, MTF 50 %, NRML 100 %
    futures         15 %: 12 in the place of SPAN, 3 for exposure
    options         the premium when buying, 15 % of the strike's value when selling

An order reserves margin for what it would add to a position, not for what it would close. Profits
and losses of closed positions count at once. Real margins depend on volatility and offsets between
positions; these are simple on purpose, and the same for everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Final, TypeAlias

import msgspec

from neo_async.exchange.engine.types import Fill, Funds, Holding, Listing, OrderRecord, Position
from neo_async.model.enums import Product, Segment, Side

DELIVERY: Final = (Product.CNC, Product.MTF)
"""Products in which only stock that is held can be sold."""

_CASH_PERCENT: Final = {
    Product.MIS: 20,
    Product.CO: 20,
    Product.BO: 20,
    Product.MTF: 50,
    Product.NRML: 100,
    Product.CNC: 100,
}
_DERIVATIVE_PERCENT: Final = 15
_BUY: Final = Side.BUY

ExposureKey: TypeAlias = tuple[Segment, str, Product]


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """An account, as a snapshot keeps it."""

    name: str
    cash: int
    holdings: list[Holding]
    positions: list[Position]
    """Positions of every exposure, the empty ones too."""
    older_orders: list[str]
    """Numbers of orders in the order book from before today, which have waited for the open."""


class Exposure:
    """A position and the working orders beside it, in one instrument and product.

    Its margin is that of the position, plus what the working orders of either side would add. All
    of that is rounded up, by -(-a // b): a margin is never a fraction of a paisa short.
    """

    __slots__ = (
        "_account",
        "_bought",
        "_bought_value",
        "_buying_margin",
        "_buying_percent",
        "_is_delivery",
        "_is_outdated",
        "_net",
        "_open_margin",
        "_selling_margin",
        "_selling_percent",
        "_sold",
        "_sold_value",
        "_strike",
        "buying_quantity",
        "buying_value",
        "position",
        "realised",
        "selling_quantity",
        "selling_value",
    )

    def __init__(self, account: Account, listing: Listing, product: Product) -> None:
        self._account = account
        self.position = Position(listing=listing, product=product)
        self._is_delivery = product is Product.CNC
        is_cash = listing.segment.is_cash
        percent = _CASH_PERCENT[product] if is_cash else _DERIVATIVE_PERCENT
        self._buying_percent = 100 if listing.is_option else percent
        self._selling_percent = 0 if self._is_delivery else percent
        self._strike = listing.strike if listing.is_option else 0
        """Strike in paise; 0 for what is no option."""
        self.buying_quantity = 0
        """Pending quantity of the working orders to buy."""
        self.buying_value = 0
        self.selling_quantity = 0
        self.selling_value = 0
        # Both sides of the position, carried quantities included.
        self._bought = self._bought_value = self._sold = self._sold_value = 0
        self._net = 0
        """Units bought minus units sold; 0 for delivery, where no sale closes a position."""
        self._open_margin = 0
        """Margin of the position; for delivery its cost, below 0 if more was sold."""
        self._buying_margin = 0
        self._selling_margin = 0
        self._is_outdated = False
        """Whether something has been filled since the margin was calculated."""
        self.realised = 0

    @property
    def margin_used(self) -> int:
        """Margin of the position and of the working orders, in paise."""
        return max(0, self._open_margin) + self._buying_margin + self._selling_margin

    @property
    def delivery_credit(self) -> int:
        """Proceeds of delivery stock sold, over the cost of what was bought, in paise."""
        return max(0, -self._open_margin)

    def reserve(self, side: Side, quantity: int, price: int) -> int:
        """Reserve margin for a quantity of a working order; a negative quantity releases it.

        Returns by how much that lowers what is available.
        """
        if side is _BUY:
            self.buying_quantity += quantity
            self.buying_value += quantity * price
            before = self._buying_margin
            self._buying_margin = margin = self._margin_to_buy()
        else:
            self.selling_quantity += quantity
            self.selling_value += quantity * price
            before = self._selling_margin
            self._selling_margin = margin = self._margin_to_sell()
        grown = margin - before
        self._account.locked += grown
        return grown

    def fill(self, side: Side, quantity: int, price: int, margin_price: int) -> None:
        """Book an execution, and release the margin that the order had reserved for it."""
        position = self.position
        if side is _BUY:
            self.buying_quantity -= quantity
            self.buying_value -= quantity * margin_price
            position.buy_quantity += quantity
            position.buy_value += quantity * price
            self._bought += quantity
            self._bought_value += quantity * price
        else:
            self.selling_quantity -= quantity
            self.selling_value -= quantity * margin_price
            position.sell_quantity += quantity
            position.sell_value += quantity * price
            self._sold += quantity
            self._sold_value += quantity * price
        if not self._is_outdated:
            self._is_outdated = True
            self._account.outdated.append(self)

    def carry_over(self, position: Position) -> None:
        """Start from a position that exists already."""
        self.position = position
        self._bought, self._bought_value = position.bought, position.bought_value
        self._sold, self._sold_value = position.sold, position.sold_value
        self.recalculate()

    def recalculate(self) -> None:
        """Calculate the margin anew after fills."""
        self._is_outdated = False
        before = self._open_margin - self.realised + self._buying_margin + self._selling_margin
        bought_value, sold_value = self._bought_value, self._sold_value
        if self._is_delivery:
            margin, realised = bought_value - sold_value, 0
        else:
            bought, sold = self._bought, self._sold
            self._net = net = bought - sold
            if net > 0:
                closed_value = bought_value * sold // bought
                realised = sold_value - closed_value
                margin = -(-(bought_value - closed_value) * self._buying_percent // 100)
            elif net < 0:
                closed_value = sold_value * bought // sold
                realised = closed_value - bought_value
                value = -self._strike * net or sold_value - closed_value
                margin = -(-value * self._selling_percent // 100)
            else:
                realised = sold_value - bought_value
                margin = 0
        buying = self._margin_to_buy() if self.buying_quantity else 0
        selling = self._margin_to_sell() if self.selling_quantity else 0
        self._open_margin = margin
        self.realised = realised
        self._buying_margin = buying
        self._selling_margin = selling
        self._account.locked += margin - realised + buying + selling - before

    def _margin_to_buy(self) -> int:
        """Return the margin of what the working orders would buy beyond closing a short
        position."""
        value, net = self.buying_value, self._net
        if net < 0:
            beyond = self.buying_quantity + net
            if beyond <= 0:
                return 0
            value = -(-value * beyond // self.buying_quantity)
        return -(-value * self._buying_percent // 100)

    def _margin_to_sell(self) -> int:
        """Return the margin of what they would sell beyond closing a long position."""
        beyond, value, net = self.selling_quantity, self.selling_value, self._net
        if net > 0:
            beyond -= net
            if beyond <= 0:
                return 0
            value = -(-value * beyond // self.selling_quantity)
        value = self._strike * beyond or value
        return -(-value * self._selling_percent // 100)


class Account:
    def __init__(self, name: str, cash: int, holdings: Iterable[Holding]) -> None:
        self.name = name
        self.cash = cash
        self.orders: dict[str, OrderRecord] = {}
        """Orders of the order book by number, in order of acceptance."""
        self.fills: list[Fill] = []
        """Fills of the trade book, oldest first."""
        self._holdings = {
            (holding.listing.segment, holding.listing.token): holding for holding in holdings
        }
        self._exposures: dict[ExposureKey, Exposure] = {}
        self.locked = 0
        """Margin of all exposures minus what they have realised, which they keep current."""
        self.outdated: list[Exposure] = []
        """Exposures to recalculate before `locked` is read: once a read, not once a fill."""

    def funds(self) -> Funds:
        """Return the account's funds as of now."""
        self._recalculate()
        exposures = self._exposures.values()
        return Funds(
            cash=self.cash,
            margin_used=sum(exposure.margin_used for exposure in exposures),
            delivery_credit=sum(exposure.delivery_credit for exposure in exposures),
            realised=sum(exposure.realised for exposure in exposures),
        )

    @property
    def available(self) -> int:
        """Funds available for new orders, in paise."""
        if self.outdated:
            self._recalculate()
        return self.cash - self.locked

    def _recalculate(self) -> None:
        for exposure in self.outdated:
            exposure.recalculate()
        self.outdated.clear()

    def exposure(self, listing: Listing, product: Product) -> Exposure:
        """Return the exposure of an instrument and product, opened at its first use."""
        key = (listing.segment, listing.token, product)
        exposure = self._exposures.get(key)
        if exposure is None:
            exposure = self._exposures[key] = Exposure(self, listing, product)
        return exposure

    def _peek_exposure(self, listing: Listing, product: Product) -> Exposure:
        """Return the exposure without opening one: a read must leave no trace in snapshots."""
        key = (listing.segment, listing.token, product)
        return self._exposures.get(key) or Exposure(self, listing, product)

    def exposures(self) -> list[Exposure]:
        """Return every exposure opened so far, the empty ones too."""
        return list(self._exposures.values())

    def end_session(self, relisted: Callable[[Listing], Listing]) -> None:
        """Settle the day at its closing prices, which are the base prices that `relisted` returns.

        Delivery is paid and becomes holdings. What is still open elsewhere is carried at the close,
        and what that gained or lost against its cost is paid, in shares as in futures; so what is
        available stays what it was, but for the margin of another price. No order may be working.
        """
        exposures, self._exposures, self.locked = self._exposures, {}, 0
        self.outdated.clear()
        for exposure in exposures.values():
            position = exposure.position
            listing = relisted(position.listing)
            net = position.bought - position.sold
            paid = position.bought_value - position.sold_value
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

    def _deliver(self, listing: Listing, position: Position) -> None:
        """Merge a day's delivery trades into the holding, at average prices."""
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
        """Carry an open position into the next session at its closing price."""
        carried = Position(listing=listing, product=product)
        if net > 0:
            carried.carried_buy_quantity = net
            carried.carried_buy_value = net * listing.base_price
        else:
            carried.carried_sell_quantity = -net
            carried.carried_sell_value = -net * listing.base_price
        self.exposure(listing, product).carry_over(carried)

    def positions(self) -> list[Position]:
        """Return copies of the positions; closed ones stay in the list until the end of the day."""
        return [
            msgspec.structs.replace(exposure.position)
            for exposure in self._exposures.values()
            if exposure.position.bought or exposure.position.sold
        ]

    def holdings(self) -> list[Holding]:
        """Return the holdings: quantities as the day began, sellable quantities as of now."""
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
        """Return how much delivery stock may still be offered for sale.

        For CNC the holding and what was bought today; for MTF only what was bought today.
        """
        exposure = self._peek_exposure(listing, product)
        own = exposure.position.bought - exposure.position.sold
        if product is Product.CNC:
            holding = self._holdings.get((listing.segment, listing.token))
            own += holding.sellable_quantity if holding else 0
        return own - exposure.selling_quantity

    def cost(
        self, listing: Listing, product: Product, side: Side, quantity: int, price: int
    ) -> int:
        """Return by how much a working order of this size would lower the available funds."""
        self._recalculate()
        exposure = self._peek_exposure(listing, product)
        cost = exposure.reserve(side, quantity, price)
        exposure.reserve(side, -quantity, price)
        return cost

    def snapshot(self, day_began: int) -> AccountState:
        """Return the account as plain values; `day_began` counts the orders before today."""
        return AccountState(
            name=self.name,
            cash=self.cash,
            holdings=list(self._holdings.values()),
            positions=[exposure.position for exposure in self._exposures.values()],
            older_orders=list(
                takewhile(
                    lambda number: self.orders[number].place <= day_began,
                    self.orders,
                )
            ),
        )

    @classmethod
    def restored(cls, state: AccountState, orders: Iterable[OrderRecord]) -> Account:
        """Return the account of a snapshot, without the margin of working orders.

        Their restoring reserves it again.
        """
        account = cls(state.name, state.cash, state.holdings)
        account.orders = {record.number: record for record in orders}
        fills = (fill for record in account.orders.values() for fill in record.fills)
        account.fills = sorted(fills, key=lambda fill: fill.time_ns)
        for position in state.positions:
            exposure = account.exposure(position.listing, position.product)
            exposure.carry_over(position)
        return account
