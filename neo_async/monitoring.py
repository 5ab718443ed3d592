"""Reads the state of a client off its services, for `neo.health()` and `neo.metrics()`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.journal import Journal
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.order_feed import OrderFeed
from neo_async.feeds.subscriptions import named
from neo_async.model.feed_state import FeedState
from neo_async.model.health import (
    BreakerHealth,
    FeedHealth,
    Health,
    LaneHealth,
    LimiterHealth,
)
from neo_async.model.metrics import Metrics
from neo_async.model.ticks import PriceTick
from neo_async.risk.engine import RiskEngine
from neo_async.risk.kill_switch import KillSwitch
from neo_async.session.manager import SessionManager
from neo_async.transport.breaker import Breaker
from neo_async.transport.lane import Lane
from neo_async.transport.limiter import Limiter

Feed = OrderFeed | MarketFeed[PriceTick] | ColumnFeed


class Monitor:
    """Collects health and metrics. It only reads, and no service depends on it."""

    def __init__(
        self,
        session: SessionManager,
        limiter: Limiter,
        engine: ExecutionEngine,
        switch: KillSwitch,
        journal: Journal | None,
        order_feed: OrderFeed,
        market_feeds: Iterable[MarketFeed[PriceTick] | ColumnFeed],
        guard: RiskEngine | None = None,
    ) -> None:
        self._session = session
        self._limiter = limiter
        self._engine = engine
        self._switch = switch
        self._journal = journal
        self._order_feed = order_feed
        self._market_feeds = market_feeds
        self._guard = guard

    def health(self) -> Health:
        """Return the present state of the session, the orders and the feeds."""
        session = self._session
        lane = _lane(session.lane) if session.is_open else None
        breakers = tuple(_breaker_health(breaker) for breaker in session.breakers)
        limiter = LimiterHealth(self._limiter.waiting, self._limiter.paused_for)
        feeds = tuple(
            _feed(feed)
            for feed in (self._order_feed, *self._market_feeds)
            if feed.state is not FeedState.CLOSED
        )
        unknown = tuple(
            f"{each.expected.action} of {each.expected.identity}"
            for each in self._engine.in_flight_requests
        )
        halted = "" if self._switch.halted is None else self._switch.halted.reason
        journal = "" if self._journal is None else str(self._journal.path)
        return Health(
            problems=(
                *self._session_problems(lane),
                *([f"halted: {halted}"] if halted else []),
                *_breaker_problems(breakers),
                *_limiter_problems(limiter),
                *_feed_problems(feeds),
                *_unacknowledged(self._market_feeds),
                *(() if self._guard is None else self._guard.problems),
                *(f"{each} may have taken effect, or not" for each in unknown),
                *(
                    f"order {each.number} is open, and was reported not to exist or exists twice"
                    for each in self._engine.late_orders
                    if not each.is_final
                ),
            ),
            logged_in_since=session.logged_in_at if session.is_open else None,
            renewals=session.renewals,
            lane=lane,
            breakers=breakers,
            limiter=limiter,
            feeds=feeds,
            unknown=unknown,
            halted=halted,
            journal=journal,
        )

    def metrics(self) -> Metrics:
        """Return the counters and histograms since the client was made."""
        meter, breakers = self._session.meter, self._session.breakers
        send = meter.send.histograms()
        return Metrics(
            requests={kind: histogram.count for kind, histogram in send.items()},
            outcomes=meter.outcomes,
            queue=meter.queue.histograms(),
            send=send,
            first_byte=meter.first_byte.histograms(),
            decode=meter.decode.histograms(),
            retries=meter.retries,
            rate_limited=self._limiter.pauses,
            server_errors=meter.server_errors,
            timeouts=meter.timeouts,
            duplicate_reads=meter.duplicate_reads,
            breaker_openings={each.name: each.openings for each in breakers},
            breaker_refusals={each.name: each.refusals for each in breakers},
            reconnects=dict(meter.reconnects),
            ticks=meter.ticks,
            order_updates=meter.order_updates,
            unknowns_opened=self._engine.unknowns_opened,
            unknowns_resolved=self._engine.unknowns_resolved,
            journal_writes=0 if self._journal is None else self._journal.writes,
        )

    def _session_problems(self, lane: LaneHealth | None) -> Iterator[str]:
        if lane is None:
            yield "not logged in"
            return
        if self._session.is_renewing:
            yield "the broker has ended the session: logging in again"
        if not lane.idle + lane.busy:
            yield "no connection for orders"
        journal = self._journal
        if journal is not None and not journal.is_open:
            yield f"the journal {journal.path} is not open"
        elif journal is not None and journal.is_lost:
            yield f"the journal {journal.path} was moved, deleted or replaced while it is open"


def _lane(lane: Lane) -> LaneHealth:
    return LaneHealth(lane.idle, lane.busy, lane.connecting, lane.waiting, lane.opened)


def _breaker_health(breaker: Breaker) -> BreakerHealth:
    return BreakerHealth(
        breaker.name,
        breaker.state.value,
        breaker.failures,
        breaker.last_failure,
        breaker.open_for,
    )


def _feed(feed: Feed) -> FeedHealth:
    at = feed.last_message_at
    age = asyncio.get_running_loop().time() - at if at else None
    return FeedHealth(feed.name, feed.state.value, feed.reason, age, feed.reconnects)


def _breaker_problems(breakers: Iterable[BreakerHealth]) -> Iterator[str]:
    for breaker in breakers:
        if breaker.open_for:
            yield f"{breaker.name}: down for {breaker.open_for:.1f} s ({breaker.last_failure})"


def _limiter_problems(limiter: LimiterHealth) -> Iterator[str]:
    if limiter.paused_for:
        yield f"no request starts for {limiter.paused_for:.1f} s: the broker answered 429"


def _unacknowledged(feeds: Iterable[MarketFeed[PriceTick] | ColumnFeed]) -> Iterator[str]:
    for feed in feeds:
        if feed.state is not FeedState.CLOSED and (names := feed.unacknowledged):
            yield f"the {feed.name} has no acknowledgement of {named(names)}"


def _feed_problems(feeds: Iterable[FeedHealth]) -> Iterator[str]:
    for feed in feeds:
        if feed.state != FeedState.LIVE:
            reason = f" ({feed.reason})" if feed.reason else ""
            yield f"the {feed.name} is {feed.state}{reason}"
