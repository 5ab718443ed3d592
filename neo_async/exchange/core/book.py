"""Price-time priority book of one listing: who rests at which price, and who trades next.

Knows quantities and prices, not money, accounts or states (see matching.py). What an incoming order
may trade is taken by `execute` before its remainder is added, so the book is never crossed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict

from neo_async.exchange.core.types import OrderRecord
from neo_async.model.enums import Side


class Resting:
    """What is left of an order in the book. `record` is None for a market maker's quote."""

    __slots__ = ("disclosed", "price", "quantity", "record", "side", "visible")

    def __init__(
        self,
        side: Side,
        price: int,
        quantity: int,
        *,
        disclosed: int = 0,
        record: OrderRecord | None = None,
    ) -> None:
        self.side = side
        self.price = price
        self.quantity = quantity
        self.disclosed = disclosed or quantity
        self.visible = min(self.disclosed, quantity)
        self.record = record


class PriceLevel:
    """Orders at one price, first come first."""

    __slots__ = ("price", "queue", "visible")

    def __init__(self, price: int) -> None:
        self.price = price
        # Ordered for time priority, hashed so that a cancel deep in the queue costs O(1).
        self.queue: OrderedDict[Resting, None] = OrderedDict()
        self.visible = 0


class BookSide:
    """All bids, or all asks."""

    def __init__(self, side: Side) -> None:
        self._sign = 1 if side is Side.BUY else -1
        # Prices times the sign, ascending: the best price is last, where lists are cheap to change.
        self._ranks: list[int] = []
        self._levels: dict[int, PriceLevel] = {}

    def best(self) -> PriceLevel | None:
        return self._levels[self._ranks[-1] * self._sign] if self._ranks else None

    def top(self, count: int) -> list[tuple[int, int, int]]:
        """(price, visible quantity, orders) of the best `count` levels, best first."""
        levels = [self._levels[rank * self._sign] for rank in reversed(self._ranks[-count:])]
        return [(level.price, level.visible, len(level.queue)) for level in levels]

    def visible_quantity(self) -> int:
        """Over all levels."""
        return sum(level.visible for level in self._levels.values())

    def entries(self) -> list[Resting]:
        """In order of priority."""
        return [
            entry
            for rank in reversed(self._ranks)
            for entry in self._levels[rank * self._sign].queue
        ]

    def add(self, entry: Resting) -> None:
        level = self._levels.get(entry.price)
        if level is None:
            level = self._levels[entry.price] = PriceLevel(entry.price)
            insort(self._ranks, entry.price * self._sign)
        level.queue[entry] = None
        level.visible += entry.visible

    def remove(self, entry: Resting) -> None:
        level = self._levels[entry.price]
        del level.queue[entry]
        level.visible -= entry.visible
        if not level.queue:
            self._drop(level)

    def shrink(self, entry: Resting, quantity: int) -> None:
        """Lower what is left of an entry; it keeps its place."""
        visible = min(entry.visible, quantity)
        self._levels[entry.price].visible -= entry.visible - visible
        entry.quantity = quantity
        entry.visible = visible

    def take(self, level: PriceLevel, wanted: int) -> tuple[Resting, int]:
        """Trade with the first order of a level: that order, and the quantity it gave.

        A hidden remainder shows its next slice at the end of the queue.
        """
        entry = next(iter(level.queue))
        traded = min(wanted, entry.visible)
        entry.quantity -= traded
        entry.visible -= traded
        level.visible -= traded
        if not entry.visible:
            if entry.quantity:
                entry.visible = min(entry.disclosed, entry.quantity)
                level.visible += entry.visible
                level.queue.move_to_end(entry)
            else:
                del level.queue[entry]
                if not level.queue:
                    self._drop(level)
        return entry, traded

    def _drop(self, level: PriceLevel) -> None:
        del self._levels[level.price]
        del self._ranks[bisect_left(self._ranks, level.price * self._sign)]


class Book:
    def __init__(self) -> None:
        self.bids = BookSide(Side.BUY)
        self.asks = BookSide(Side.SELL)

    def side(self, side: Side) -> BookSide:
        return self.bids if side is Side.BUY else self.asks

    def would_trade(self, side: Side, price: int) -> bool:
        """Whether somebody rests against that side at this price or a better one."""
        if side is Side.BUY:
            best = self.asks.best()
            return best is not None and best.price <= price
        best = self.bids.best()
        return best is not None and best.price >= price

    def execute(self, side: Side, limit: int, quantity: int) -> list[tuple[Resting, int]]:
        """Trade an incoming order with what rests against it, best price first, oldest first.

        Returns the resting orders and the quantity each traded, at its own price.
        """
        against = self.side(side.opposite)
        sign = 1 if side is Side.BUY else -1
        trades: list[tuple[Resting, int]] = []
        while quantity:
            level = against.best()
            if level is None or (limit - level.price) * sign < 0:
                break
            entry, traded = against.take(level, quantity)
            quantity -= traded
            trades.append((entry, traded))
        return trades
