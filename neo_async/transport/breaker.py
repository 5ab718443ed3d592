"""Circuit breakers: calls to a server that is unreachable fail at once, and its return is noticed
soon.

Every host has one for order requests and one for everything else. Reports that hang must not keep
orders and cancels from a gateway that takes them; any other failure of the host opens both within
a few calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from enum import StrEnum

from neo_async.base import logs
from neo_async.base.logs import Log, logger_of
from neo_async.config import BreakerConfig
from neo_async.errors import BreakerOpen
from neo_async.transport.backoff import backoff

GATEWAY_FAILURES = frozenset({502, 503, 504})
"""HTTP statuses by which a gateway reports that the server behind it is unreachable."""

PROBE_PATIENCE = 1.0
"""Seconds for which an unanswered probe keeps others back. A server that hangs costs no more than
one call a second, and one that is back is noticed although an old probe still hangs."""

SHARE_OF_OUTAGE = 1 / 120
"""Longest wait between two probes, as a share of the time for which the outage has lasted: long
outages are probed less often."""
LONGEST_WAIT = 10.0
"""Seconds between two probes at most, however long the outage has lasted."""


class BreakerState(StrEnum):
    """Whether calls to a host are made."""

    CLOSED = "closed"
    """Calls are made."""
    OPEN = "open"
    """Calls fail at once, and nothing is sent."""
    HALF_OPEN = "half-open"
    """Calls fail at once, while one that was let through as a probe is on its way."""


def loop_time() -> float:
    return asyncio.get_running_loop().time()


class Breaker:
    """The state of one host: opens after a number of network failures in a row.

    It has no timer. While it is open, one call is let through as a probe after a short, growing,
    jittered pause. The kind of the last failure decides what closes it: any connection where none
    could be made, a whole answer where an answer was lost. Refusals are answers, 429 among them.
    """

    def __init__(
        self,
        name: str,
        limits: BreakerConfig,
        *,
        clock: Callable[[], float] = loop_time,
        log: Log | None = None,
    ) -> None:
        """`name` is shown in errors and log lines; `clock` gives seconds."""
        self.name = name
        self._limits = limits
        self._clock = clock
        self._log = log or logger_of(logs.TRANSPORT)
        self.is_closed = True
        self.failures = 0
        """Network failures in a row."""
        self.last_failure = ""
        """Text of the last failure; kept until the next one."""
        self.openings = 0
        """Number of times that it opened."""
        self.refusals = 0
        """Calls that failed at once because it was open."""
        self._opened_at = 0.0
        self._probe_at = 0.0
        """Clock time from which on a call is let through."""
        self._probes = 0
        """Number of probes since it opened."""
        self._probes_out = 0
        """Number of probes that are on their way."""
        self._can_connect = True
        """Whether the last failure was on a connection that stood."""

    @property
    def state(self) -> BreakerState:
        if self.is_closed:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._probes_out else BreakerState.OPEN

    @property
    def open_for(self) -> float:
        """Seconds since it opened; 0 while it is closed."""
        return 0.0 if self.is_closed else self._clock() - self._opened_at

    def check(self) -> None:
        """Raise BreakerOpen when no call may be made now."""
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
        """Return whether the call that is made now is a probe; `probed` has to be called after a
        probe.

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
        """Note that a probe has ended, with or without an answer."""
        self._probes_out -= 1
        self._probe_at = min(self._probe_at, self._clock() + self.wait(self._probes))

    def wait(self, attempt: int) -> float:
        """Return the seconds to wait before the next try, after `attempt` failed ones."""
        longest = max(self._limits.longest_wait, min(LONGEST_WAIT, SHARE_OF_OUTAGE * self.open_for))
        return backoff(attempt, base=self._limits.first_wait, cap=longest)

    def connected(self) -> None:
        """Note that a connection was made."""
        if not self._can_connect:
            self._can_connect = True
            self._recover()

    def answered(self) -> None:
        """Note that a whole answer came; to be called when there were failures."""
        self._can_connect = True
        self._recover()

    def failed(self, reason: str, *, connected: bool) -> None:
        """Note that no connection could be made, or that an answer was lost on one that stood."""
        self.failures += 1
        self.last_failure = reason
        self._can_connect = connected
        if self.is_closed and self.failures >= self._limits.failures:
            self.is_closed = False
            self.openings += 1
            self._opened_at = self._clock()
            self._probes = 1
            self._probe_at = self._opened_at + self.wait(1)
            self._log.warning(
                "%s: %d failures in a row, calls fail at once from now on: %s",
                self.name,
                self.failures,
                reason,
            )

    def _recover(self) -> None:
        self.failures = 0
        if not self.is_closed:
            self._log.warning("%s: back after %.1f s", self.name, self.open_for)
            self.is_closed = True

    def __repr__(self) -> str:
        return f"<Breaker {self.name}: {self.state}, {self.failures} failures in a row>"


class Breakers:
    """The breakers of the hosts that were called so far."""

    def __init__(self, limits: BreakerConfig | None = None, log: Log | None = None) -> None:
        self._log = log
        self._limits = limits or BreakerConfig()
        self._breakers: dict[str, Breaker] = {}

    def orders(self, server: str) -> Breaker:
        """Return the breaker of the order requests to `server`, which is host and port."""
        return self._of(f"orders at {server}")

    def reads(self, server: str) -> Breaker:
        """Return the breaker of everything else that is sent to `server`."""
        return self._of(f"reads at {server}")

    def __iter__(self) -> Iterator[Breaker]:
        return iter(self._breakers.values())

    def _of(self, name: str) -> Breaker:
        breaker = self._breakers.get(name)
        if breaker is None:
            breaker = self._breakers[name] = Breaker(name, self._limits, log=self._log)
        return breaker
