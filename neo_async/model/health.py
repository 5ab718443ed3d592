"""The present state of a client, for `neo.health()`."""

from __future__ import annotations

import msgspec


class LaneHealth(msgspec.Struct, frozen=True):
    """State of the pool of connections for orders."""

    idle: int
    busy: int
    connecting: int
    waiting: int
    """Number of requests that wait for a connection."""
    opened: int
    """Number of connections opened since the login."""


class BreakerHealth(msgspec.Struct, frozen=True):
    """State of the circuit breaker for orders, or for reads, at one host."""

    name: str
    state: str
    """`closed` when calls are made, `open` or `half-open` when they fail at once."""
    failures: int
    """Number of failures in a row."""
    last_failure: str
    """Text of the newest failure, kept after a success; empty before the first."""
    open_for: float
    """Seconds since the breaker opened; 0 while it is closed."""


class LimiterHealth(msgspec.Struct, frozen=True):
    """State of the rate limiter."""

    waiting: int
    """Number of requests in its queue."""
    paused_for: float
    """Seconds until requests may start again after a 429; 0 without one."""


class FeedHealth(msgspec.Struct, frozen=True):
    """State of one live feed."""

    name: str
    state: str
    """`connecting`, `live`, `waiting` or `closed`."""
    reason: str
    """Reason of the last loss of the connection; empty before the first."""
    age: float | None
    """Seconds since the last message; None before the first."""
    reconnects: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a client's state, with a readable `repr`."""

    problems: tuple[str, ...]
    """Descriptions of everything that is wrong."""
    logged_in_since: float | None
    """Unix seconds of the last login, renewals included; None when logged out."""
    renewals: int
    """Number of logins made because the broker had ended the session."""
    lane: LaneHealth | None
    """State of the order connections; None when logged out."""
    breakers: tuple[BreakerHealth, ...]
    limiter: LimiterHealth
    feeds: tuple[FeedHealth, ...]
    """States of the feeds that were started and not closed."""
    unknown: tuple[str, ...]
    """Order requests whose outcome is unknown and being resolved."""
    halted: str
    """Reason of the halt; empty when orders are not halted."""
    journal: str
    """Path of the journal; empty without one."""

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def __repr__(self) -> str:
        if self.problems:
            return f"<Health: {'; '.join(self.problems)}>"
        feeds = ", ".join(f"{feed.name} {feed.state}" for feed in self.feeds)
        return f"<Health ok: logged in, {feeds or 'no feeds'}>"
