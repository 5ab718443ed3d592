"""How a client is doing, in one look."""

from __future__ import annotations

import msgspec


class LaneHealth(msgspec.Struct, frozen=True):
    """Connections for orders."""

    idle: int
    busy: int
    connecting: int
    waiting: int
    """Requests that wait for a connection."""
    opened: int
    """Since the login."""


class BreakerHealth(msgspec.Struct, frozen=True):
    """What is known of the orders, or of the reads, at one host."""

    name: str
    state: str
    """`closed` when calls are made, `open` or `half-open` when they fail at once."""
    failures: int
    """In a row."""
    last_failure: str
    """Kept when it is over; empty before the first."""
    open_for: float
    """Seconds; 0 while it is closed."""


class LimiterHealth(msgspec.Struct, frozen=True):
    """How fast requests may start."""

    waiting: int
    """Requests that wait for their start."""
    paused_for: float
    """Seconds for which nothing starts, because the broker has said 429."""


class FeedHealth(msgspec.Struct, frozen=True):
    """One live stream."""

    name: str
    state: str
    """`connecting`, `live`, `waiting` or `closed`."""
    reason: str
    """Why the connection was lost last; empty before that."""
    age: float | None
    """Seconds since the last message; None before the first."""
    reconnects: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot; `repr` is made to be read."""

    problems: tuple[str, ...]
    """What is wrong, in words."""
    logged_in_since: float | None
    """Unix seconds of the last login, renewals included; None without one."""
    renewals: int
    """Times the broker had ended the session."""
    lane: LaneHealth | None
    """None without a login."""
    breakers: tuple[BreakerHealth, ...]
    limiter: LimiterHealth
    feeds: tuple[FeedHealth, ...]
    """Those that were started and not closed."""
    unknown: tuple[str, ...]
    """Order requests of which it is being found out whether they took effect."""
    halted: str
    """Why no order is placed or changed; empty while they are."""
    journal: str
    """Its file; empty when there is none."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __repr__(self) -> str:
        if self.problems:
            return f"<Health: {'; '.join(self.problems)}>"
        feeds = ", ".join(f"{feed.name} {feed.state}" for feed in self.feeds)
        return f"<Health ok: logged in, {feeds or 'no feeds'}>"
