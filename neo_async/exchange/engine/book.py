"""Price-time priority book of one listing: who rests at which price, and who trades next.

It has quantities and prices, and neither funds, accounts nor order states (see matching.py).
`execute` takes what an incoming order trades before its remainder is added, so the book is never
crossed.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from neo_async.model.enums import Side

_BUY = Side.BUY


class Resting(msgspec.Struct, eq=False):
    """An entry of the book: a market maker's quote, or a working order."""

    side: Side
    price: int
    quantity: int
    """Remaining quantity, hidden parts included."""
    disclosed: int
    """Largest quantity that is visible at a time."""
    visible: int
    """Quantity that is visible at present."""
    earlier: Resting | None
    """Entry before it at the same price; kept by the book."""
    later: Resting | None
    """Entry behind it at the same price; kept by the book."""


def quote(side: Side, price: int, quantity: int, disclosed: int = 0) -> Resting:
    """Return an entry with a disclosed quantity; 0 discloses all of it."""
    disclosed = disclosed or quantity
    return Resting(side, price, quantity, disclosed, min(disclosed, quantity), None, None)


class PriceLevel(msgspec.Struct, eq=False):
    """The entries of one price, oldest first: a linked list, so that a cancel in it costs O(1)."""

    price: int
    visible: int = 0
    orders: int = 0
    first: Resting | None = None
    last: Resting | None = None

    def append(self, entry: Resting) -> None:
        """Add an entry behind all others."""
        last = self.last
        if last is None:
            self.first = entry
        else:
            last.later = entry
            entry.earlier = last
        self.last = entry
        self.orders += 1

    def unlink(self, entry: Resting) -> None:
        """Take an entry out."""
        earlier, later = entry.earlier, entry.later
        if earlier is None:
            self.first = later
        else:
            earlier.later = later
            entry.earlier = None
        if later is None:
            self.last = earlier
        else:
            later.earlier = earlier
            entry.later = None
        self.orders -= 1


class BookSide:
    """The bids or the asks of a book."""

    __slots__ = ("_ladder", "_levels", "_ranks", "_sign")

    def __init__(self, side: Side) -> None:
        self._sign = 1 if side is _BUY else -1
        # Prices times the sign, ascending: the best price is last, where lists are cheap to change.
        self._ranks: list[int] = []
        self._ladder: list[PriceLevel] = []
        """Price levels in the order of their ranks."""
        self._levels: dict[int, PriceLevel] = {}
        """Price levels by price."""

    def best(self) -> PriceLevel | None:
        """Return the best price level, or None on an empty side."""
        return self._ladder[-1] if self._ladder else None

    def meets(self, limit: int) -> bool:
        """Return whether an order of the other side with this limit would trade."""
        ranks = self._ranks
        return bool(ranks) and ranks[-1] >= limit * self._sign

    def top(self, count: int) -> list[tuple[int, int, int]]:
        """Return (price, visible quantity, orders) of the best `count` levels, best first."""
        return [
            (level.price, level.visible, level.orders) for level in reversed(self._ladder[-count:])
        ]

    def visible_quantity(self) -> int:
        """Return the visible quantity of all levels."""
        return sum(level.visible for level in self._ladder)

    def entries(self) -> list[Resting]:
        """Return all entries in order of priority."""
        entries = []
        for level in reversed(self._ladder):
            entry = level.first
            while entry is not None:
                entries.append(entry)
                entry = entry.later
        return entries

    def add(self, entry: Resting) -> None:
        """Add an entry behind all others of its price."""
        price = entry.price
        level = self._levels.get(price)
        if level is None:
            level = self._levels[price] = PriceLevel(price)
            rank = price * self._sign
            index = bisect_left(self._ranks, rank)
            self._ranks.insert(index, rank)
            self._ladder.insert(index, level)
        level.visible += entry.visible
        level.append(entry)

    def remove(self, entry: Resting) -> None:
        """Take an entry out, wherever it is in the queue."""
        level = self._levels[entry.price]
        level.visible -= entry.visible
        level.unlink(entry)
        if not level.orders:
            self._drop(level)

    def shrink(self, entry: Resting, quantity: int) -> None:
        """Lower the remaining quantity of an entry, which keeps its place."""
        visible = min(entry.visible, quantity)
        self._levels[entry.price].visible -= entry.visible - visible
        entry.quantity = quantity
        entry.visible = visible

    def execute(self, limit: int, quantity: int) -> list[tuple[Resting, int]]:
        """Trade an incoming order of the other side with what rests here, best price first, oldest
        first.

        Returns the resting orders and the quantity each traded, at its own price.
        """
        bound = limit * self._sign
        ranks, ladder = self._ranks, self._ladder
        trades = []
        while quantity and ranks and ranks[-1] >= bound:
            entry, traded = self._take(ladder[-1], quantity)
            quantity -= traded
            trades.append((entry, traded))
        return trades

    def _take(self, level: PriceLevel, wanted: int) -> tuple[Resting, int]:
        """Trade with the first entry of the best level; return it and the quantity traded.

        A hidden remainder shows its next slice at the end of the queue.
        """
        entry = level.first
        assert entry is not None
        visible = entry.visible
        if wanted < visible:
            entry.visible = visible - wanted
            entry.quantity -= wanted
            level.visible -= wanted
            return entry, wanted
        entry.quantity = left = entry.quantity - visible
        level.visible -= visible
        level.unlink(entry)
        if left:
            entry.visible = min(entry.disclosed, left)
            level.visible += entry.visible
            level.append(entry)
        else:
            entry.visible = 0
            if not level.orders:
                self._drop(level)
        return entry, visible

    def _drop(self, level: PriceLevel) -> None:
        del self._levels[level.price]
        # Mostly the best one, as that is where orders trade.
        index = (
            -1 if self._ladder[-1] is level else bisect_left(self._ranks, level.price * self._sign)
        )
        del self._ranks[index]
        del self._ladder[index]


class Book:
    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = BookSide(Side.BUY)
        self.asks = BookSide(Side.SELL)

    def side(self, side: Side) -> BookSide:
        """Return the side on which an order of that side rests."""
        return self.bids if side is _BUY else self.asks

    def against(self, side: Side) -> BookSide:
        """Return the side that an order of this side trades with."""
        return self.asks if side is _BUY else self.bids
