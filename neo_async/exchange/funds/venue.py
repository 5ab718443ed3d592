"""The fund house behind the door: moved on by the clock before anyone looks, new after a reset,
and kept in the state file where there is one."""

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
        """`build` makes the house that opens at a time in Unix seconds, or goes on from a state;
        `clock` gives Unix seconds."""
        self._build = build
        self._clock = clock
        self._store = store
        if store is None:
            self._simulator = build(int(clock()), None)
        else:
            with store.read_as_foreign():
                self._simulator = build(int(clock()), store.funds())

    def now(self) -> FundSimulator:
        """The house, as of this moment."""
        self._simulator.advance(int(self._clock()))
        return self._simulator

    def reset(self) -> None:
        """Start over with the same seed and funds."""
        self._simulator = self._build(int(self._clock()), None)
        self.keep()

    def keep(self) -> None:
        """Make durable what was asked of the house until now; what time does to it comes out the
        same again. Raises sqlite3.Error when that fails."""
        if self._store is not None:
            self._store.keep_funds(self._simulator.state)
