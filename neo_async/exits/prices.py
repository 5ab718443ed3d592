"""The prices that exit plans watch: ticks of a market feed of their own, and quotes where it is
silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal

from neo_async.base import logs
from neo_async.errors import NeoError
from neo_async.exits.checks import known_price
from neo_async.feeds.market_feed import MarketFeed
from neo_async.model.market import Quotes
from neo_async.model.ticks import LiteTick

log = logging.getLogger(logs.EXITS)

STALE_SECONDS = 5.0
"""Age of a price from which on quotes are read, and `health().problems` says so."""
QUOTE_SECONDS = 1.0
"""Time between two readings of quotes while the market is open."""
CLOSED_QUOTE_SECONDS = 60.0
"""The same while it is closed: then only an exchange for tests trades."""

Listener = Callable[[Decimal], None]


class PlanPrices:
    """Calls listeners with the last prices of instruments, from the first `watch` to the last
    `ignore`."""

    def __init__(
        self,
        new_feed: Callable[[Callable[[LiteTick], None]], MarketFeed[LiteTick]],
        read_quotes: Callable[[Sequence[str]], Awaitable[Quotes]],
        is_open: Callable[[str], bool],
    ) -> None:
        """`new_feed` returns a market feed that calls its argument with every tick, `is_open`
        whether the market of a segment is open."""
        self._is_open = is_open
        self._new_feed = new_feed
        self._read_quotes = read_quotes
        self._feed: MarketFeed[LiteTick] | None = None
        self._listeners: dict[str, list[Listener]] = {}
        self._priced_at: dict[str, float] = {}
        """Times of the loop of the newest prices; of an instrument without one, of `watch`."""
        self._task: asyncio.Task[None] | None = None
        self._subscriptions: set[asyncio.Task[None]] = set()

    def watch(self, instrument: str, listener: Listener) -> None:
        """Call `listener` with every price of an instrument from now on."""
        listeners = self._listeners.setdefault(instrument, [])
        if listener in listeners:
            return
        listeners.append(listener)
        if len(listeners) > 1:
            return
        self._priced_at[instrument] = asyncio.get_running_loop().time()
        if self._feed is None:
            self._feed = self._new_feed(self._on_tick)
            self._feed.start()
        self._start(self._subscribe(instrument))
        if self._task is None:
            self._task = asyncio.create_task(self._poll(), name="prices of exit plans")

    def ignore(self, instrument: str, listener: Listener) -> None:
        """Undo a `watch`."""
        listeners = self._listeners.get(instrument, [])
        if listener not in listeners:
            return
        listeners.remove(listener)
        if listeners:
            return
        del self._listeners[instrument], self._priced_at[instrument]
        if self._feed is not None:
            self._start(self._unsubscribe(instrument))

    def age(self, instrument: str) -> float:
        """Return the age of an instrument's price in seconds; 0 for one that is not watched."""
        now = asyncio.get_running_loop().time()
        return now - self._priced_at.get(instrument, now)

    async def close(self) -> None:
        """Stop, and forget all listeners."""
        self._listeners.clear()
        self._priced_at.clear()
        task, self._task = self._task, None
        tasks = [*self._subscriptions, *([task] if task is not None else [])]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        feed, self._feed = self._feed, None
        if feed is not None:
            await feed.close()

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._subscriptions.add(task)
        task.add_done_callback(self._subscriptions.discard)

    async def _subscribe(self, instrument: str) -> None:
        assert self._feed is not None
        try:
            await self._feed.subscribe([instrument])
        except NeoError as error:
            log.warning("no ticks of %s for exit plans: %s; its quotes are read", instrument, error)

    async def _unsubscribe(self, instrument: str) -> None:
        assert self._feed is not None
        if instrument in self._listeners:
            return
        try:
            await self._feed.unsubscribe([instrument])
        except NeoError as error:
            log.info("%s stays subscribed: %s", instrument, error)

    def _on_tick(self, tick: LiteTick) -> None:
        self._publish(tick.instrument, tick.last_price)

    def _publish(self, instrument: str, last_price: float | None) -> None:
        listeners = self._listeners.get(instrument)
        price = known_price(last_price)
        if not listeners or price is None:
            return
        self._priced_at[instrument] = asyncio.get_running_loop().time()
        for listener in [*listeners]:
            listener(price)

    async def _poll(self) -> None:
        """Read the quotes of instruments whose price is old."""
        pause = QUOTE_SECONDS
        while True:
            await asyncio.sleep(pause)
            stale = [one for one in self._listeners if self.age(one) >= STALE_SECONDS]
            is_open = any(self._is_open(one.partition("|")[0]) for one in self._listeners)
            pause = QUOTE_SECONDS if is_open or not stale else CLOSED_QUOTE_SECONDS
            if not stale:
                continue
            try:
                quotes = await self._read_quotes(stale)
            except NeoError as error:
                log.warning("no quotes of %s for exit plans: %s", ", ".join(stale), error)
                continue
            for instrument, quote in quotes.items():
                self._publish(instrument, quote.last_price)
