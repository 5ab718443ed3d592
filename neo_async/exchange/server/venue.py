"""The market behind the door: moved on by the clock before anyone looks, new after a reset.

Events are taken here, and nowhere else: trades go onto the tape of candles on their way to the
feeds.
"""

from __future__ import annotations

from collections.abc import Callable

from neo_async.exchange.core.indices import IndexBoard
from neo_async.exchange.core.market import Market
from neo_async.exchange.core.types import Event, Printed
from neo_async.exchange.server.tape import Tape, in_india


class Venue:
    def __init__(self, build: Callable[[int], Market], clock: Callable[[], float]) -> None:
        """`build` makes the market that opens at a time in Unix ns; `clock` gives Unix seconds."""
        self._build = build
        self.clock = clock
        self._events: list[Event] = []
        self._open()

    def now(self) -> Market:
        """The market, as of this moment."""
        self.market.advance(self._clock_ns())
        return self.market

    def reset(self) -> None:
        """Start over with the same seed, accounts and instruments."""
        self._open()

    def tape(self) -> Tape:
        """Candles of every trade until now."""
        self._collect()
        return self._tape

    def take_events(self) -> list[Event]:
        """What happened since the last call, oldest first."""
        self._collect()
        events, self._events = self._events, []
        return events

    def _open(self) -> None:
        self.market = self._build(self._clock_ns())
        self.board = IndexBoard(self.market)
        self.opened = in_india(self.clock()).date()
        """First day of this market, in India."""
        self._tape = Tape()
        self._events = []

    def _collect(self) -> None:
        events = self.market.take_events()
        for event in events:
            if isinstance(event, Printed):
                self._tape.add(event)
        self._events += events

    def _clock_ns(self) -> int:
        return int(self.clock() * 1e9)
