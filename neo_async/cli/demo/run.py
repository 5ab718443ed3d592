"""The run of the demo: its steps in order, and the figures that the screen shows meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from neo_async.cli.connection import halt_on_sigusr1
from neo_async.cli.demo import bracket, plan
from neo_async.cli.demo.bracket import BracketReport
from neo_async.cli.demo.demo_order import DemoOrder
from neo_async.cli.demo.report import Records, Report, Results, make_report
from neo_async.client import NeoClient
from neo_async.config import RateLimits
from neo_async.errors import InvalidOrder, NeoError
from neo_async.exchange import Exchange
from neo_async.exchange.engine.types import Listing
from neo_async.exits.plan import ExitPlan
from neo_async.model.enums import OrderStatus, Segment, Side
from neo_async.model.orders import OrderRequest, Trade
from neo_async.model.portfolio import Position
from neo_async.transport.http import HttpClient
from neo_async.transport.kinds import Kind

PULSE = 0.05
"""Seconds between two updates of the figures."""
_BOOK_EVERY = 0.35
_PATIENCE = 6.0
"""Seconds in which an order has to reach the state that the demo brought it to."""


class DemoRun:
    def __init__(
        self,
        exchange: Exchange,
        *,
        seed: int,
        scripmaster: Iterable[Path],
        pause: float,
        directory: Path | None = None,
    ) -> None:
        """`pause` is the time in seconds between two steps, for people to see what the last one
        did. In `directory` the run keeps its journal and the scrip master."""
        self.exchange = exchange
        self.address = exchange.login_url
        self.seed = seed
        self.limits = RateLimits()
        self.neo = NeoClient(
            exchange.credentials,
            endpoints=exchange.endpoints,
            limits=self.limits,
            journal=None if directory is None else directory / "journal.db",
            instruments_directory=directory,
        )
        self.orders: list[DemoOrder] = []
        self.positions: list[Position] = []
        self.trades: list[Trade] = []
        self.events: list[tuple[float, str]] = []
        self.on_event: Callable[[float, str], None] = lambda elapsed, text: None
        self.problems: list[str] = []
        self.modified = 0
        self.bracket: BracketReport | None = None
        self.refusal = ""
        """Error of the order that was stopped before sending."""
        self.calls = 0
        """Calls under way, those that wait for the limiter included."""
        self._round_trips: Sequence[tuple[Kind, float]] = ()
        self._scripmaster = list(scripmaster)
        self._pause = pause
        self._began = time.perf_counter()
        self._starts: deque[tuple[float, int]] = deque([(self._began, 0)])

    # --- figures for the screen -------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._began

    @property
    def waiting(self) -> int:
        return self.neo.limiter.waiting

    @property
    def in_flight(self) -> int:
        """Requests in flight. Drawing takes milliseconds, in which none should be."""
        return self.calls - self.waiting

    def starts_within(self, oldest: float, newest: float = 0.0) -> int:
        """Return the number of requests that started between so many seconds ago, by the
        samples."""
        now = time.perf_counter()

        def until(ago: float) -> int:
            count = self._starts[0][1]
            for at, total in self._starts:
                if at > now - ago:
                    break
                count = total
            return count

        return until(newest) - until(oldest)

    @property
    def acknowledgements(self) -> list[float]:
        """Seconds that the exchange took to accept each placement."""
        return [seconds for kind, seconds in self._round_trips if kind is Kind.PLACE]

    # --- the steps -----------------------------------------------------------------------------

    async def run(self) -> Report:
        market = self.exchange.market
        listings = await asyncio.to_thread(
            plan.choose_listings, market, self._scripmaster, self.seed
        )
        self._say(f"the exchange is open at {self.address}, seed {self.seed}")
        async with contextlib.AsyncExitStack() as stack:
            begun = time.perf_counter()
            await stack.enter_async_context(self.neo)
            halt_on_sigusr1(self.neo)
            self._round_trips = self.neo.round_trips
            took = (time.perf_counter() - begun) * 1000
            self._say(f"logged in as {self.neo.session.ucc}: TOTP, then MPIN, {took:.0f} ms")
            await stack.enter_async_context(_background(self._keep_pulse()))
            await stack.enter_async_context(_background(self._keep_reading()))

            crossing, near, far = await self._burst(listings)
            await self._rest()
            await self._try_the_rules(listings)
            await self._rest()
            await self._modify(near[:3], far[:2])
            await self._rest()
            await self._fill_by_price(near[3:6])
            await self._cancel(far[2:])
            await self._wait_until_final([*crossing, *near[:6], *far[2:]])
            await self._bracket(listings)
            await self._rest()
            self._move_market(listings)
            await self._rest()
            return await self._close()

    async def _burst(
        self, listings: list[Listing]
    ) -> tuple[list[DemoOrder], list[DemoOrder], list[DemoOrder]]:
        market = self.exchange.market
        lines = self._add(plan.burst(market, listings))
        self._say(
            f"{len(lines)} orders in {len(listings)} shares at once; the limiter lets "
            f"{self.limits.orders} a second go"
        )
        pending = {asyncio.ensure_future(self._place(line)) for line in lines}
        while pending:
            done, pending = await asyncio.wait(pending, timeout=1.0)
            for task in done:
                task.result()
            accepted = sum(line.order is not None for line in lines)
            self._say(f"{accepted} accepted, {self.waiting} requests wait for the limiter")
        return lines[0::3], lines[1::3], lines[2::3]

    async def _try_the_rules(self, listings: list[Listing]) -> None:
        market = self.exchange.market
        bad, greedy = self._add([plan.MALFORMED, await self._oversell(listings)])
        await self._place(bad)
        self._say(f"stopped before sending: {self.refusal}")
        await self._place(greedy)
        await self._reach(greedy)

        # A stop that triggers, in an instrument where the burst left nothing to be hit.
        listing = listings[5]
        (stop,) = self._add([plan.stop_loss(market, listing)])
        await self._place(stop)
        await self._reach(stop, OrderStatus.TRIGGER_PENDING)
        self._say(f"a stop waits in {listing.symbol} until {stop.request.trigger} trades")

        # It is made for what the best price offers right now, so it must not wait for its turn.
        await self._until_free()
        market.advance(time.time_ns())
        (impatient,) = self._add([plan.immediate_or_cancel(market, listings[4])])
        await self._place(impatient)
        self._print_price(listing, _paise(stop.request.trigger))
        await self._reach(stop)
        self._say(f"{listing.symbol} trades at {stop.request.trigger}: the stop is {_now(stop)}")
        await self._reach(impatient)
        self._say(
            f"IOC for {impatient.request.quantity:,} {impatient.request.symbol}: "
            f"{impatient.filled:,} filled, {_now(impatient)}"
        )
        if greedy.order is not None:
            self._say(f"rejected: {greedy.order.reject_reason.partition('  ')[0]}")

    async def _modify(self, to_market: list[DemoOrder], further: list[DemoOrder]) -> None:
        market = self.exchange.market

        async def modify(line: DemoOrder, percent: float) -> None:
            if line.order is None:
                return
            listing = self._listing(line)
            price = plan.limit(market, listing, Side(line.request.side), percent)
            with self._counted():
                try:
                    await self.neo.orders.modify(line.order, price=price)
                except NeoError as error:
                    self._unexpected("modify", line, error)
                else:
                    self.modified += 1
                    line.note("modified")

        await asyncio.gather(
            *(modify(line, plan.CROSSING) for line in to_market),
            *(modify(line, plan.FAR / 2) for line in further),
        )
        self._say(
            f"{self.modified} orders modified: {len(to_market)} now cross the market, "
            f"{len(further)} wait closer to it"
        )
        await asyncio.gather(*(self._reach(line) for line in to_market))

    async def _fill_by_price(self, lines: list[DemoOrder]) -> None:
        """Print trades at the limits of waiting orders."""
        for line in lines:
            self._print_price(self._listing(line), _paise(line.request.price))
        self._say(f"trades print at the limits of {len(lines)} waiting orders")
        await asyncio.gather(*(self._reach(line) for line in lines))

    async def _cancel(self, lines: list[DemoOrder]) -> None:
        async def cancel(line: DemoOrder) -> None:
            if line.order is None:
                return
            with self._counted():
                try:
                    await self.neo.orders.cancel(line.order)
                except NeoError as error:
                    self._unexpected("cancel", line, error)
                else:
                    line.note("cancel sent")

        await asyncio.gather(*map(cancel, lines))
        self._say(f"{len(lines)} orders cancelled")

    async def _bracket(self, listings: list[Listing]) -> None:
        """Enter with a stop and a target, and run the price through both in one moment."""
        market = self.exchange.market
        listing = plan.another_listing(market, listings, self.seed)
        stop, target = bracket.levels(market, listing)
        (line,) = self._add([bracket.entry(market, listing)])
        beyond = [plan.limit(market, listing, Side.BUY, way * bracket.BEYOND) for way in (1, -1)]
        with self._counted():
            try:
                await self.neo.instruments.load(listing.segment)
                made = await self.neo.exits.bracket(
                    **_without_tag(line.request), stop=stop, target=target
                )
            except NeoError as error:
                line.error = error
                self._unexpected("bracket", line, error)
                return
        line.order = made.entry
        await self._reach(line)
        if not await self._protected(made):
            return
        self._say(
            f"bracket: {made.snapshot().entered:,} {listing.symbol} bought, its stop {stop} rests, "
            f"its target {target} is watched"
        )
        for price in beyond:
            self._print_price(listing, _paise(price))
        try:
            await made.wait(timeout=_PATIENCE)
        except TimeoutError:
            self.problems.append(f"the bracket is {made!r} after {_PATIENCE:.0f} s")
        self.orders += map(bracket.exit_line, made.exits)
        with self._counted():
            net = await self.neo.portfolio.net_quantity(
                listing.segment, listing.symbol, line.request.product
            )
        self.bracket = bracket.report(made, net)
        self._say(
            f"{listing.symbol} runs through target and stop in one moment: {made.state} by "
            f"{made.exited_by}, with {len(made.exits)} exit order; the position is {net}"
        )

    async def _protected(self, made: ExitPlan) -> bool:
        """Wait until the stop of a plan rests, and return whether it does."""
        try:
            async with asyncio.timeout(_PATIENCE):
                async for change in made.changes():
                    if change.open_quantity and not change.unprotected:
                        return True
        except TimeoutError:
            pass
        self.problems.append(f"the bracket has no stop: {made!r}")
        return False

    def _move_market(self, listings: list[Listing]) -> None:
        """Move every price a little, so that positions have a P&L."""
        rng = random.Random(self.seed)
        for listing in listings:
            side = rng.choice((Side.BUY, Side.SELL))
            price = plan.limit(self.exchange.market, listing, side, rng.uniform(0.2, 1.2))
            self._print_price(listing, _paise(price))
        self._say("every share trades somewhere else")

    async def _wait_until_final(self, lines: list[DemoOrder]) -> None:
        """Wait until all these orders are final."""
        await asyncio.gather(*(self._reach(line) for line in lines))

    async def _close(self) -> Report:
        """Read every report once more, and compare them with the exchange's own records.

        A market maker may meet a waiting order between the two: then both are read again.
        """
        for _ in range(3):
            with self._counted():
                await self.neo.orders.book()
                self.trades = await self.neo.orders.trades()
                self.positions = await self.neo.portfolio.positions()
            for line in self.orders:
                line.update()
            report = make_report(self.results(), await self._records())
            if not report.problems:
                break
        return report

    def results(self) -> Results:
        """Return what the run has done so far."""
        return Results(
            seed=self.seed,
            limits=self.limits,
            orders=self.orders,
            modified=self.modified,
            refusal=self.refusal,
            bracket=self.bracket,
            trades=self.trades,
            positions=self.positions,
            acknowledgements=self.acknowledgements,
            pauses=self.neo.limiter.pauses,
            problems=self.problems,
            seconds=self.elapsed,
        )

    # --- parts of steps ------------------------------------------------------------------------

    def _add(self, requests: list[OrderRequest]) -> list[DemoOrder]:
        lines = [DemoOrder(request) for request in requests]
        self.orders += lines
        return lines

    async def _place(self, line: DemoOrder) -> None:
        with self._counted():
            try:
                line.order = await self.neo.orders.place(**msgspec.structs.asdict(line.request))
            except InvalidOrder as error:
                line.error = error
                line.note("not sent")
                self.refusal = str(error)
            except NeoError as error:
                line.error = error
                self._unexpected("place", line, error)
            else:
                line.update()

    async def _oversell(self, listings: list[Listing]) -> OrderRequest:
        """Return an order for more than the account holds of an instrument."""
        market = self.exchange.market
        with self._counted():
            holdings = await self.neo.portfolio.holdings()
        for holding in holdings:
            held = market.listing_by_token(listings[0].segment, holding.token)
            if held is not None:
                return plan.oversell(market, held, holding.sellable_quantity or holding.quantity)
        return plan.oversell(market, listings[0], 0)

    async def _reach(self, line: DemoOrder, *statuses: OrderStatus) -> None:
        """Wait until the order is in one of these states, or final; the book is read meanwhile."""
        if line.order is None:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                while line.order.status not in statuses and not line.order.is_final:
                    await line.order.until_next_change()
        except TimeoutError:
            wanted = " or ".join(statuses) or "final"
            self.problems.append(
                f"{line.request.symbol} is {line.order.status_text!r} after {_PATIENCE:.0f} s "
                f"and should be {wanted}"
            )
        line.update()

    def _print_price(self, listing: Listing, paise: int) -> None:
        self.exchange.market.print_price(listing.segment, listing.token, paise)

    def _listing(self, line: DemoOrder) -> Listing:
        segment = Segment(line.request.segment)
        listing = self.exchange.market.listing(segment, line.request.symbol)
        assert listing is not None
        return listing

    def _unexpected(self, action: str, line: DemoOrder, error: NeoError) -> None:
        line.note("failed")
        self.problems.append(f"{action} {line.request.symbol}: {error}")

    def _say(self, text: str) -> None:
        elapsed = self.elapsed
        self.events.append((elapsed, text))
        self.on_event(elapsed, text)

    async def _until_free(self) -> None:
        """Wait until an order would be sent at once."""
        while True:
            if not self.waiting and self.starts_within(1.1) < self.limits.total:
                return
            await asyncio.sleep(PULSE)

    async def _rest(self) -> None:
        await asyncio.sleep(self._pause)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1

    # --- in the background ----------------------------------------------------------------------

    async def _keep_pulse(self) -> None:
        while True:
            now = time.perf_counter()
            self._starts.append((now, sum(self.neo.limiter.starts)))
            while self._starts[0][0] < now - 4.0:
                self._starts.popleft()
            for line in self.orders:
                line.update()
            await asyncio.sleep(PULSE)

    async def _keep_reading(self) -> None:
        """Read order book and positions repeatedly, as a screen would, between the orders."""
        while True:
            with self._counted():
                await self.neo.orders.book()
            with self._counted():
                self.positions = await self.neo.portfolio.positions()
            await asyncio.sleep(_BOOK_EVERY)

    async def _records(self) -> Records:
        http = HttpClient(connect_timeout=2.0)
        try:
            url = self.exchange.admin_url
            ledger = await http.request("GET", f"{url}/ledger", headers={}, timeout=5.0)
            requests = await http.request("GET", f"{url}/requests", headers={}, timeout=5.0)
        finally:
            await http.close()
        base = urlsplit(self.exchange.base_url).path
        return Records.read(ledger.body, requests.body, base=base)


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine while the block runs; its error is raised at the end of the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _without_tag(request: OrderRequest) -> dict[str, Any]:
    """Return the arguments of `exits.bracket`."""
    names = ("segment", "symbol", "side", "quantity", "product", "order_type")
    return {name: getattr(request, name) for name in names}


def _paise(price: object) -> int:
    return round(float(str(price)) * 100)


def _now(line: DemoOrder) -> str:
    return line.order.status_text if line.order else "lost"
