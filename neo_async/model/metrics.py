"""Gauges, counters and latency histograms of a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

BUCKETS: Final = tuple(
    float(f"{digit}e{exponent}") for exponent in range(-6, 2) for digit in (1, 2, 5)
)
"""Upper bounds of the buckets of every histogram, in seconds: 1, 2, 5, 10 µs … 10, 20, 50 s."""


class Histogram(msgspec.Struct, frozen=True):
    """Durations by bucket. A quantile is interpolated between the bounds of its bucket."""

    counts: tuple[int, ...]
    """Number of durations in each of BUCKETS (above the previous bound, up to its own); the last
    entry counts those above all bounds."""
    total: float
    """Sum of all durations, in seconds."""

    @property
    def count(self) -> int:
        """Number of durations."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Mean duration in seconds; None when there is none."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Return about the duration, in seconds, that a `share` (0 to 1) of all do not exceed; None
        when there is none."""
        if not self.count:
            return None
        rank = share * self.count
        below = 0
        for position, count in enumerate(self.counts[:-1]):
            if count and below + count >= rank:
                lowest = BUCKETS[position - 1] if position else 0.0
                return lowest + (BUCKETS[position] - lowest) * max(0.0, rank - below) / count
            below += count
        return BUCKETS[-1]

    def __repr__(self) -> str:
        if not self.count:
            return "<Histogram of nothing>"
        shown = ", ".join(
            f"p{share * 100:g} {_readable(self.quantile(share))}" for share in (0.5, 0.99)
        )
        return f"<Histogram of {self.count}: mean {_readable(self.mean)}, {shown}>"


def _readable(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a client at present, and its counts and durations since it was made, over all
    its logins.

    Kinds of requests are `cancel`, `modify`, `place`, `read` and `login`.
    """

    ucc: str
    """Client code of the account: the label of every sample in the Prometheus text."""
    is_healthy: bool
    """Whether `health()` shows no problem."""
    is_halted: bool
    """Whether trading is halted."""
    session_age: float | None
    """Seconds since the last login, renewals included; None when logged out."""
    feeds_live: Mapping[str, bool]
    """Whether a feed is live, by name, of the feeds that were started and not closed. Market feeds
    have one name: it is False unless all of them are live."""
    feed_ages: Mapping[str, float]
    """Seconds since the last message of a feed, by name; the longest of the market feeds. A feed
    without a message yet is left out."""
    open_orders: int
    """Number of orders that are known and not final, external ones included."""
    unknown_orders: int
    """Number of order requests whose outcome is unknown at present."""
    waiting: Mapping[str, int]
    """Number of requests in the limiter's queue, by kind."""
    pause: float
    """Seconds until requests start again after a 429; 0 without one."""
    pnl: Mapping[str, float | None]
    """Profit and loss over all positions in rupees, `realised` and `unrealised`; None where an
    amount is not known, and empty unless `neo.portfolio.live` was started."""
    requests: Mapping[str, int]
    """Number of requests handed to a socket, by kind."""
    outcomes: Mapping[str, Mapping[str, int]]
    """Number of order requests by kind and by outcome of their call: accepted, rejected, not sent,
    unknown. The later outcomes of unknown ones are in `unknowns_resolved`."""
    queue: Mapping[str, Histogram]
    """Time in the limiter's queue, by kind."""
    send: Mapping[str, Histogram]
    """Time from the limiter to the hand-over to the socket, by kind: waiting for a connection, or
    opening one."""
    first_byte: Mapping[str, Histogram]
    """Time from the hand-over to the first byte of the answer, by kind."""
    decode: Mapping[str, Histogram]
    """Time to decode the answer, by kind."""
    retries: int
    """Number of repeated requests: nothing had been sent, the session had ended, or a 429 came."""
    rate_limited: int
    """Number of answers with HTTP 429."""
    server_errors: int
    """Number of answers with HTTP 5xx."""
    timeouts: int
    """Number of requests without an answer by their deadline."""
    duplicate_reads: int
    """Number of reads sent once more because the first hung."""
    breaker_openings: Mapping[str, int]
    """Number of times each circuit breaker opened."""
    breaker_refusals: Mapping[str, int]
    """Number of calls that each circuit breaker refused."""
    reconnects: Mapping[str, int]
    """Number of times each feed was live again after a loss."""
    ticks: int
    """Number of ticks of the market feeds; a column feed counts rows."""
    ticks_lost: Mapping[str, int]
    """Number of ticks that were conflated or dropped because the consumer was slower, by the policy
    of the market feed: `conflate`, `block` or `drop_oldest`."""
    column_messages_lost: int
    """Number of messages that column feeds dropped because the consumer was slower."""
    order_updates: int
    """Number of updates of the order feed, position updates included."""
    unknowns_opened: int
    """Number of order requests whose outcome was unknown."""
    unknowns_resolved: Mapping[str, int]
    """Number of order requests whose unknown outcome was resolved, by outcome."""
    journal_writes: int
    """Number of intents and outcomes written to the journal."""

    def to_prometheus(self) -> str:
        """Return everything in the text format of Prometheus, version 0.0.4. For several clients
        in one text see `prometheus_text`."""
        from neo_async.model.prometheus import prometheus_text

        return prometheus_text(self)
