"""The fund simulator as its service sees it: advanced to the present before each use, new after a
reset, and kept in the state file where there is one."""

from __future__ import annotations

from collections.abc import Callable

from neo_async.exchange.funds.simulator import FundSimulator
from neo_async.exchange.funds.types import FundState
from neo_async.exchange.persistence.store import Store


class FundVenue:
    def __init__(
        self,
        build: Callable[[int, FundState | None], FundSimulator],
        clock: Callable[[], float],
        store: Store | None = None,
    ) -> None:
        """`build` makes the simulator that opens at a time in Unix seconds, or goes on from a
        state; `clock` gives Unix seconds."""
        self._build = build
        self._clock = clock
        self._store = store
        if store is None:
            self._simulator = build(int(clock()), None)
        else:
            with store.read_as_foreign():
                self._simulator = build(int(clock()), store.funds())

    def now(self) -> FundSimulator:
        """Return the simulator, advanced to the present."""
        self._simulator.advance(int(self._clock()))
        return self._simulator

    def reset(self) -> None:
        """Start over with the same seed and funds."""
        self._simulator = self._build(int(self._clock()), None)
        self.keep()

    def keep(self) -> None:
        """Store the simulator's state; what time does to it is calculated again.

        Raises sqlite3.Error.
        """
        if self._store is not None:
            self._store.keep_funds(self._simulator.state)
