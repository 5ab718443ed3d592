"""Reads the state of a client off its services, for `neo.health()` and `neo.metrics()`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.journal import Journal
from neo_async.feeds.column_feed import COLUMNS, ColumnFeed
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
from neo_async.portfolio.live_positions import LivePositions
from neo_async.risk.engine import RiskEngine
from neo_async.risk.kill_switch import KillSwitch
from neo_async.session.manager import SessionManager
from neo_async.transport.breaker import Breaker
from neo_async.transport.kinds import Kind
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
        positions: LivePositions,
        guard: RiskEngine | None = None,
        *,
        plan_problems: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`plan_problems` returns what is wrong with exit plans. `clock` gives Unix seconds, by
        which a session has its age."""
        self._plan_problems = plan_problems
        self._session = session
        self._limiter = limiter
        self._engine = engine
        self._switch = switch
        self._journal = journal
        self._order_feed = order_feed
        self._market_feeds = market_feeds
        self._positions = positions
        self._guard = guard
        self._clock = clock

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
                *self._plan_problems(),
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
        """Return the present state, and the counts and times since the client was made."""
        meter, breakers = self._session.meter, self._session.breakers
        send = meter.send.histograms()
        health = self.health()
        since = health.logged_in_since
        losses = meter.losses
        messages_lost = losses.pop(COLUMNS, 0)
        return Metrics(
            ucc=self._session.ucc,
            is_healthy=health.ok,
            is_halted=self._switch.halted is not None,
            session_age=None if since is None else self._clock() - since,
            feeds_live=_feeds_live(health.feeds),
            feed_ages=_feed_ages(health.feeds),
            open_orders=self._engine.cache.open_count,
            unknown_orders=len(health.unknown),
            waiting={kind.name.lower(): self._limiter.waiting_of(kind) for kind in Kind},
            pause=health.limiter.paused_for,
            pnl=self._pnl(),
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
            ticks_lost=losses,
            column_messages_lost=messages_lost,
            order_updates=meter.order_updates,
            unknowns_opened=self._engine.unknowns_opened,
            unknowns_resolved=self._engine.unknowns_resolved,
            journal_writes=0 if self._journal is None else self._journal.writes,
        )

    def _pnl(self) -> Mapping[str, float | None]:
        if not self._positions.is_started:
            return {}
        total = self._positions.total()
        return {"realised": total.realised, "unrealised": total.unrealised}

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


def _feeds_live(feeds: Iterable[FeedHealth]) -> dict[str, bool]:
    """Return whether all feeds of a name are live, by name."""
    live: dict[str, bool] = {}
    for feed in feeds:
        live[feed.name] = live.get(feed.name, True) and feed.state == FeedState.LIVE
    return live


def _feed_ages(feeds: Iterable[FeedHealth]) -> dict[str, float]:
    """Return the longest time without a message of the feeds of a name, in seconds, by name."""
    ages: dict[str, float] = {}
    for feed in feeds:
        if feed.age is not None:
            ages[feed.name] = max(feed.age, ages.get(feed.name, 0.0))
    return ages


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
