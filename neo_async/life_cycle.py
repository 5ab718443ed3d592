"""Starts the services of a client around its logins, and ends them at its logout.

Before a login, new orders are held back, and the journal is opened. After it, the feeds are
connected, journal and order book are reconciled, and the risk limits read the state of the account:
then new orders are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

import msgspec

from neo_async.config import RiskLimits
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.journal import Journal
from neo_async.execution.reconciliation import Reconciliation
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.order_feed import OrderFeed
from neo_async.model.ticks import PriceTick
from neo_async.portfolio.live_positions import LivePositions
from neo_async.risk.engine import RiskEngine
from neo_async.risk.kill_switch import KillSwitch
from neo_async.risk.watchdog import DeadMansSwitch
from neo_async.session.manager import SessionManager


class LifeCycle(msgspec.Struct, kw_only=True):
    """The services of a client that live from login to logout."""

    session: SessionManager
    engine: ExecutionEngine
    order_feed: OrderFeed
    market_feeds: Collection[MarketFeed[PriceTick] | ColumnFeed]
    live_positions: LivePositions
    limits: RiskLimits
    guard: RiskEngine | None
    """The guard of the limits; None when no limit is set."""
    switch: KillSwitch
    watchdog: DeadMansSwitch
    journal: Journal | None
    live_updates: bool
    """Whether the order feed is connected from login to logout."""
    reconciliation: Reconciliation = msgspec.field(default_factory=Reconciliation)
    """The orders and requests of the process before, as the last login found them."""
    ending: asyncio.Task[None] | None = None
    """The logout under way."""

    @contextlib.asynccontextmanager
    async def login(self) -> AsyncIterator[None]:
        """Do around a login what has to be done before new orders are sent. When it fails, the
        login is given up, unless it was to replace one that is still there. It waits for a logout
        under way: that would close what the login opens."""
        while self.ending is not None:
            await asyncio.wait([self.ending])
        was_open = self.session.is_open
        is_new = False
        # New orders are held back until a login that fails is given up, too.
        with self.engine.held(), self.switch.login():
            try:
                if self.journal is not None:
                    is_new = await self.journal.start()
                    if is_new:
                        self.switch.restore()
                        self.switch.set_earlier_placements(await self.engine.uncancelled())
                yield
                self.switch.logged_in()
                if self.live_updates:
                    self.order_feed.start()
                if is_new:
                    self.reconciliation = await self.engine.reconcile()
                if self.guard is not None:
                    await self._start_limits(self.guard)
            except BaseException:
                if not (was_open and self.session.is_open):
                    await self.end()
                raise

    async def _start_limits(self, guard: RiskEngine) -> None:
        """Read the state of the account that the limits need, and keep it current."""
        if guard.needs_orders or self.limits.feed_outage is not None:
            self.order_feed.start()
        if guard.needs_orders:
            await self.engine.read_order_book()
        if guard.needs_positions:
            await self.live_positions.start()
        guard.start()
        self.watchdog.start()

    async def end(self) -> None:
        """Forget the login, and close every connection and the journal."""
        if self.ending is not None:
            await asyncio.wait([self.ending])
            return
        self.ending = asyncio.create_task(self._end(), name="logout")
        self.ending.add_done_callback(self._ended)
        await self.ending

    def _ended(self, _: asyncio.Task[None]) -> None:
        self.ending = None

    async def _end(self) -> None:
        self.switch.stop()
        await self.watchdog.close()
        if self.guard is not None:
            await self.guard.close()
        await self.order_feed.close()
        for feed in [*self.market_feeds]:
            await feed.close()
        await self.engine.close()
        await self.live_positions.close()
        await self.session.logout()
        # What was being cancelled has an outcome, or has failed, once the session is closed.
        await self.switch.close()
        if self.journal is not None:
            await self.journal.close()
