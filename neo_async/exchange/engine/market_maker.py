"""A seeded market maker: a reference price that walks, and quotes on both sides of it.

There is one for each listing, with a random generator of its own, so that what happens in one
listing never changes another. It decides; market_makers.py puts its quotes and trades into the
book.
"""

from __future__ import annotations

import array
import random
import sys
from typing import Final

import msgspec

from neo_async.exchange.engine.types import Listing
from neo_async.model.enums import Side

TURN_NS: Final = 250_000_000
"""Time between two turns of a market maker."""

_LEVELS: Final = 5
_STEP_SHARE: Final = 10_000
"""A turn moves the reference by one part in this many of the price at most, or by a tick."""
_TRADE_CHANCE: Final = 0.4
"""Probability that a turn trades with the best quote of one side."""
_ORDER_VALUE: Final = 2_500_000
"""Approximate value of one unit of quoted size, in paise."""


class MarketMakerState(msgspec.Struct, frozen=True, array_like=True):
    """A market maker, as a snapshot keeps it."""

    reference: int
    """Reference price in ticks."""
    generator: bytes
    """State of the random generator: 625 words of 32 bits, little-endian."""


class MarketMaker:
    def __init__(self, listing: Listing, seed: int) -> None:
        # A string seeds through SHA-512: the same on every machine and in every process.
        self._random = random.Random(f"{seed}|{listing.segment.value}|{listing.token}")
        self._reference = 0
        self.relist(listing)
        self.move_to(listing.base_price)

    def relist(self, listing: Listing) -> None:
        """Use the terms of a new session; the reference stays where the new bands allow it."""
        self._tick = listing.tick
        self._lower = max(1, -(-listing.lower_band // self._tick))
        self._upper = listing.upper_band // self._tick
        self._step = max(1, listing.base_price // _STEP_SHARE // self._tick)
        lots = _ORDER_VALUE // (max(listing.base_price, 1) * listing.lot_size)
        self._unit = max(1, lots) * listing.lot_size
        self.move_to(self.reference)

    @property
    def reference(self) -> int:
        """Reference price in paise."""
        return self._reference * self._tick

    def move_to(self, price: float) -> None:
        """Set the reference price, as near as the bands allow with a quote on either side."""
        ticks = round(price / self._tick)
        self._reference = max(self._lower + 1, min(self._upper - 1, ticks))

    def walk(self) -> None:
        """Move the reference price at random."""
        moved = self._reference - self._step + self._upto(2 * self._step + 1)
        self._reference = max(self._lower + 1, min(self._upper - 1, moved))

    def quotes(self) -> list[tuple[Side, int, int]]:
        """Return quotes as (side, price, quantity), best first, inside the bands and never crossed.

        Empty when the bands leave no room for two sides.
        """
        if self._upper - self._lower < 2:
            return []
        quotes = []
        for depth in range(1, _LEVELS + 1):
            for side, ticks in (
                (Side.BUY, self._reference - depth),
                (Side.SELL, self._reference + depth),
            ):
                quantity = self._unit * (1 + self._upto(8)) * depth
                if self._lower <= ticks <= self._upper:
                    quotes.append((side, ticks * self._tick, quantity))
        return quotes

    def trade(self) -> tuple[Side, int] | None:
        """Return side and quantity of an order that takes the best price; None for no trade."""
        if self._random.random() >= _TRADE_CHANCE:
            return None
        side = Side.BUY if self._random.random() < 0.5 else Side.SELL
        return side, self._unit * (1 + self._upto(4))

    def snapshot(self) -> MarketMakerState:
        """Return reference price and random generator as plain values."""
        _, words, _ = self._random.getstate()
        return MarketMakerState(self._reference, _words(words).tobytes())

    def restore(self, state: MarketMakerState) -> None:
        """Go on from a snapshot."""
        words = _words()
        words.frombytes(state.generator)
        if sys.byteorder == "big":
            words.byteswap()
        self._random.setstate((3, tuple(words), None))
        self._reference = state.reference

    def _upto(self, bound: int) -> int:
        """Return 0 … bound − 1; several times faster than randrange, and even enough here."""
        return int(self._random.random() * bound)


def _words(values: tuple[int, ...] = ()) -> array.array[int]:
    """Return unsigned 32-bit numbers, little-endian on every machine."""
    words = array.array("I", values)
    if sys.byteorder == "big":
        words.byteswap()
    return words
