"""Both feeds of the exchange: their sockets, what they publish, and their faults."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final, get_args

from aiohttp import web

from neo_async.errors import UsageError
from neo_async.exchange.addresses import BASE_PATH, MARKET_PATH, ORDER_PATH
from neo_async.exchange.faults.plan import FaultPlan, FeedName
from neo_async.exchange.feeds.connections import (
    CLOSE_TIMEOUT,
    GOING_AWAY,
    POLICY,
    ClientConnection,
    PauseSwitch,
)
from neo_async.exchange.feeds.market_feed import MarketFeed
from neo_async.exchange.feeds.order_feed import OrderFeed
from neo_async.exchange.feeds.settings import FeedSettings
from neo_async.exchange.replay.recorded import NOTHING, Recorded
from neo_async.exchange.rest.logins import Login, Logins
from neo_async.exchange.venue import Venue
from neo_async.model.enums import Segment
from neo_async.model.ticks import MarketState

_MARKET_PATHS: Final = frozenset({MARKET_PATH, f"{BASE_PATH}{MARKET_PATH}"})
_ORDER_PATHS: Final = frozenset({ORDER_PATH, f"{BASE_PATH}{ORDER_PATH}"})


class Feeds:
    def __init__(
        self,
        venue: Venue,
        logins: Logins,
        settings: FeedSettings,
        seed: int,
        plan: FaultPlan,
        recorded: Recorded = NOTHING,
    ) -> None:
        self._venue = venue
        self._pause_switch = PauseSwitch()
        self._plan = plan
        self._closing = False
        self._noticing = False
        self.market = MarketFeed(venue, logins, settings, self._pause_switch, seed, plan, recorded)
        self.orders = OrderFeed(venue, logins, settings, self._pause_switch, seed, plan)
        logins.on_end = self._end

    def use(self, settings: FeedSettings) -> None:
        """Behave by other settings from now on."""
        self.market.settings = self.orders.settings = settings

    # --- sockets --------------------------------------------------------------------------------

    def takes(self, path: str) -> bool:
        return path in _MARKET_PATHS or path in _ORDER_PATHS

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        websocket = web.WebSocketResponse(timeout=CLOSE_TIMEOUT, compress=False)
        if self._closing or not websocket.can_prepare(request) or request.transport is None:
            return web.Response(status=426, text="a websocket is expected here")
        transport = request.transport
        try:
            await websocket.prepare(request)
        except ConnectionResetError:
            return web.Response()  # the client left while its stream was being opened
        feed = self.market if request.path in _MARKET_PATHS else self.orders
        await feed.serve(websocket, transport)
        return websocket

    async def close(self) -> None:
        """Close all connections, in good order with the clients that take part soon."""
        self._closing = True
        self._pause_switch.resume()
        connections = list(self._connections())
        for connection in connections:
            connection.close_soon(GOING_AWAY, "the exchange closes")
        if connections:
            waiting = [asyncio.create_task(connection.closed.wait()) for connection in connections]
            _, late = await asyncio.wait(waiting, timeout=3 * CLOSE_TIMEOUT)
            for task in late:
                task.cancel()

    # --- publishing
    # -----------------------------------------------------------------------------------

    def notice_soon(self) -> None:
        """Publish what a command has led to, once its answer is on the way."""
        if not self._noticing and (self.orders.connections or self.market.connections):
            self._noticing = True
            asyncio.get_running_loop().call_soon(self.notice)

    def notice(self) -> None:
        """Publish what has happened until now."""
        self._noticing = False
        self.orders.publish(self._venue.take_events())
        self.market.notice()

    def tick(self) -> None:
        """Publish what the passing of time has led to."""
        self.notice()
        if self._plan.hits_feeds and not self._pause_switch.is_paused:
            self._stall_by_chance()
        self.orders.faults.tick()
        self.market.faults.tick()

    # --- faults ---------------------------------------------------------------------------------

    def stall(self, seconds: float | None = None) -> None:
        """Send nothing on both feeds, sockets open; None: until `resume`.

        Order updates wait meanwhile; of prices, only the newest.
        """
        self._pause_switch.pause(seconds)

    def resume(self) -> None:
        """End a stall."""
        self._pause_switch.resume()

    def _stall_by_chance(self) -> None:
        seconds = self._plan.stall_seconds()
        if seconds:
            self.stall(seconds)

    def drop_connections(self, feed: FeedName | None = None) -> None:
        """Break every feed connection without a close frame, or those of one feed.

        Raises UsageError for an unknown feed.
        """
        _check_name(feed)
        for connection in list(self._connections(feed)):
            connection.abort()

    def send_garbage(self, feed: FeedName | None = None) -> None:
        """Send all clients of both feeds, or of one, what is neither packet nor frame.

        Raises UsageError for an unknown feed.
        """
        _check_name(feed)
        if feed != "orders":
            self.market.send_garbage()
        if feed != "market":
            self.orders.send_garbage()

    def truncate_batches(self, count: int = 1) -> None:
        """Cut each of the market feed's next binary messages somewhere."""
        self.market.truncate(count)

    # --- what a market announces ----------------------------------------------------------------

    @property
    def subscribed(self) -> set[str]:
        """Instruments that are subscribed on the market feed: `{"nse_cm|11536"}`; indices by their
        number."""
        return self.market.subscribed

    def set_market_status(self, state: MarketState, segment: Segment | None = None) -> None:
        """Announce a state of one market, or of all. Orders go on being matched."""
        self.market.set_status(state, segment)

    def send_auction(
        self,
        instrument: str,
        *,
        reference_price: float,
        imbalance_quantity: int = 0,
        imbalance_at_market: int = 0,
    ) -> None:
        """Announce the state of an instrument's closing call auction. Price in rupees."""
        self.market.send_auction(
            instrument,
            reference_price=reference_price,
            imbalance_quantity=imbalance_quantity,
            imbalance_at_market=imbalance_at_market,
        )

    # --- connections ----------------------------------------------------------------------------

    def _connections(self, feed: FeedName | None = None) -> Iterator[ClientConnection]:
        if feed != "orders":
            yield from self.market.connections
        if feed != "market":
            yield from self.orders.connections

    def _end(self, login: Login) -> None:
        """Close the connections of a login that has ended."""
        for connection in list(self._connections()):
            if connection.login is login:
                connection.close_soon(POLICY, "the session has ended")


def _check_name(feed: str | None) -> None:
    if feed not in (None, *get_args(FeedName)):
        names = ", ".join(map(repr, get_args(FeedName)))
        raise UsageError(f"feed={feed!r}: must be {names}, or None for both")
