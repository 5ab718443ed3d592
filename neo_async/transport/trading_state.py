"""The trading state: whether placements and changes may be sent.

There is one for each client. The kill switch sets it; the limiter checks it at the moment of every
start, so that a request that has waited for its turn is refused as well.
"""

from __future__ import annotations

from collections.abc import Callable

from neo_async.errors import Halted
from neo_async.transport.kinds import Kind

_RESTRICTED = (Kind.PLACE, Kind.MODIFY)


class TradingState:
    """ACTIVE, or HALTED for a reason. Cancels and reads are sent in both states."""

    def __init__(self) -> None:
        self.halted: Halted | None = None
        """Why and since when the state is HALTED; None while it is ACTIVE."""
        self.is_checked = False
        """Whether starts have to call `check`: the state is HALTED, or a watchdog has to look."""
        self._watchdog: Callable[[], None] | None = None
        self._on_halt: list[Callable[[], None]] = []

    def halt(self, halted: Halted) -> None:
        """Set the state to HALTED, and wake every request that waits to be sent."""
        self.halted = halted
        self.is_checked = True
        for wake in self._on_halt:
            wake()

    def activate(self) -> None:
        """Set the state to ACTIVE."""
        self.halted = None
        self.is_checked = self._watchdog is not None

    def set_watchdog(self, watchdog: Callable[[], None] | None) -> None:
        """Call `watchdog` before every placement and change: it may halt. None removes it."""
        self._watchdog = watchdog
        self.is_checked = watchdog is not None or self.halted is not None

    def on_halt(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever the state becomes HALTED. It wakes the requests that wait to be
        sent, and each calls `check`. It must not raise."""
        self._on_halt.append(wake)

    def refusal(self, kind: Kind) -> Halted | None:
        """Return the error for a request of this kind that would start now, or None."""
        if kind not in _RESTRICTED:
            return None
        if self._watchdog is not None:
            self._watchdog()
        # Each caller raises a copy, with a traceback of its own.
        return None if self.halted is None else self.halted.copy()

    def check(self, kind: Kind) -> None:
        """Raise Halted when a request of this kind may not start now."""
        error = self.refusal(kind)
        if error is not None:
            raise error
