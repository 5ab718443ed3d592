"""Circuit breakers: a server that is gone is not asked in vain, and its return is noticed soon.

There is one for the orders and one for everything else of every host. Reports that hang must not
keep orders and cancels from a gateway that takes them; what else is wrong with a host, each of the
two finds out in a few calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from enum import StrEnum

from neo_async import logs
from neo_async.config import BreakerConfig
from neo_async.errors import BreakerOpen
from neo_async.transport.backoff import backoff

log = logging.getLogger(logs.TRANSPORT)

GATEWAY_FAILURES = frozenset({502, 503, 504})
"""Statuses by which a gateway says that there is nobody behind it."""

PROBE_PATIENCE = 1.0
"""Seconds for which a probe that is not answered keeps others back. A server that hangs costs no
more than one call a second, and one that is back is noticed although an old probe still hangs."""

SHARE_OF_OUTAGE = 1 / 120
LONGEST_WAIT = 10.0
"""Long outages are probed less often: after that share of the time they have lasted, and at least
every so many seconds."""


class BreakerState(StrEnum):
    """What becomes of a call to a host."""

    CLOSED = "closed"
    """It is made."""
    OPEN = "open"
    """It fails at once, and nothing is sent."""
    HALF_OPEN = "half-open"
    """The same, while one that was let through as a probe is on its way."""


def loop_time() -> float:
    return asyncio.get_running_loop().time()


class Breaker:
    """Opens after a number of failures of the network in a row; a state machine without a timer.

    While it is open, one call is let through as a probe after a short, growing, jittered while.
    What the failures were decides what closes it: any connection where none could be made, a
    whole answer where answers were lost. Refusals are answers, 429 among them.
    """

    def __init__(
        self,
        name: str,
        limits: BreakerConfig,
        *,
        clock: Callable[[], float] = loop_time,
    ) -> None:
        """`name` is what errors and the log call it."""
        self.name = name
        self._limits = limits
        self._clock = clock
        self.is_closed = True
        self.failures = 0
        """In a row."""
        self.last_failure = ""
        """In words; kept until the next one."""
        self.openings = 0
        """Times it opened."""
        self.refusals = 0
        """Calls that failed at once because it was open."""
        self._opened_at = 0.0
        self._probe_at = 0.0
        """From when on a call is let through."""
        self._probes = 0
        """Since it opened."""
        self._probes_out = 0
        self._can_connect = True

    @property
    def state(self) -> BreakerState:
        if self.is_closed:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._probes_out else BreakerState.OPEN

    @property
    def open_for(self) -> float:
        """Seconds; 0 while it is closed."""
        return 0.0 if self.is_closed else self._clock() - self._opened_at

    def check(self) -> None:
        """Raises BreakerOpen when no call may be made now."""
        if self.is_closed:
            return
        probe_in = self._probe_at - self._clock()
        if probe_in > 0:
            self.refusals += 1
            raise BreakerOpen(
                self.name,
                open_for=self.open_for,
                last_failure=self.last_failure,
                probe_in=probe_in,
            )

    def admit(self, *, is_urgent: bool = False) -> bool:
        """Whether the call that is made now is a probe; `probed` has to be called after it then.

        Urgent calls are always let through. Raises BreakerOpen for others when none may be made.
        """
        if self.is_closed:
            return False
        if not is_urgent:
            self.check()
        self._probes += 1
        self._probes_out += 1
        self._probe_at = self._clock() + PROBE_PATIENCE
        return True

    def probed(self) -> None:
        """A probe is over, whatever came of it."""
        self._probes_out -= 1
        self._probe_at = min(self._probe_at, self._clock() + self.wait(self._probes))

    def wait(self, attempt: int) -> float:
        """Seconds to wait before the next try, after so many in vain."""
        longest = max(self._limits.longest_wait, min(LONGEST_WAIT, SHARE_OF_OUTAGE * self.open_for))
        return backoff(attempt, base=self._limits.first_wait, cap=longest)

    def connected(self) -> None:
        """A connection stands."""
        if not self._can_connect:
            self._can_connect = True
            self._recover()

    def answered(self) -> None:
        """A whole answer came; to be called when there were failures."""
        self._can_connect = True
        self._recover()

    def failed(self, reason: str, *, connected: bool) -> None:
        """No connection could be made, or the answer was lost on one that stood."""
        self.failures += 1
        self.last_failure = reason
        self._can_connect = connected
        if self.is_closed and self.failures >= self._limits.failures:
            self.is_closed = False
            self.openings += 1
            self._opened_at = self._clock()
            self._probes = 1
            self._probe_at = self._opened_at + self.wait(1)
            log.warning(
                "%s: %d failures in a row, calls fail at once from now on: %s",
                self.name,
                self.failures,
                reason,
            )

    def _recover(self) -> None:
        self.failures = 0
        if not self.is_closed:
            log.warning("%s: back after %.1f s", self.name, self.open_for)
            self.is_closed = True

    def __repr__(self) -> str:
        return f"<Breaker {self.name}: {self.state}, {self.failures} failures in a row>"


class Breakers:
    """The breakers of every host that was called so far."""

    def __init__(self, limits: BreakerConfig | None = None) -> None:
        self._limits = limits or BreakerConfig()
        self._breakers: dict[str, Breaker] = {}

    def orders(self, server: str) -> Breaker:
        """`server` is host and port."""
        return self._of(f"orders at {server}")

    def reads(self, server: str) -> Breaker:
        return self._of(f"reads at {server}")

    def __iter__(self) -> Iterator[Breaker]:
        return iter(self._breakers.values())

    def _of(self, name: str) -> Breaker:
        breaker = self._breakers.get(name)
        if breaker is None:
            breaker = self._breakers[name] = Breaker(name, self._limits)
        return breaker
