"""The market behind the door: moved on by the clock before anyone looks, new after a reset."""

from __future__ import annotations

from collections.abc import Callable

from neo_async.exchange.core.market import Market


class Venue:
    def __init__(self, build: Callable[[int], Market], clock: Callable[[], float]) -> None:
        """`build` makes the market that opens at a time in Unix ns; `clock` gives Unix seconds."""
        self._build = build
        self.clock = clock
        self.market = build(self._clock_ns())

    def now(self) -> Market:
        """The market, as of this moment."""
        self.market.advance(self._clock_ns())
        return self.market

    def reset(self) -> None:
        """Start over with the same seed, accounts and instruments."""
        self.market = self._build(self._clock_ns())

    def _clock_ns(self) -> int:
        return int(self.clock() * 1e9)
