"""Seeded programs of orders against an exchange with every fault on, compared with its ledger.

A program places, modifies and cancels many orders at once. Some callers do not wait for the
outcome, some give up, some are cancelled at one of their awaits. Some programs halt and resume, and
in some a night passes. Then the faults end, every request is resolved, and the outcomes that the
callers received, the journal and the state of every `Order` are compared with the ledger.

Client and exchange share a virtual-time loop over real sockets: resolution timeouts of 30 s and
hangs of 60 s take milliseconds, and a seed takes the same steps every time.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
import types
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from random import Random
from typing import Any

from neo_async import (
    NeoClient,
    NeoError,
    Order,
    OrderSettings,
    OrderType,
    OutcomeUnknown,
    Product,
    RateLimits,
    Segment,
    Side,
    Validity,
)
from neo_async.base.india import day_of
from neo_async.exchange import Behaviour, Exchange, Faults, Hours, Rules, Uniform
from tests.simulation.comparison import LedgerComparison
from tests.simulation.observed_exchange import ObservedExchange
from tests.simulation.reports import Outcome, Report
from tests.simulation.virtual_time import VirtualTimeLoop, now

ALL_FAULTS = Faults(
    lose_before=0.04,
    lose_after=0.04,
    hang_before=0.02,
    hang_after=0.02,
    throttle=0.03,
    error_before=0.04,
    error_after=0.04,
    malformed=0.04,
    truncated=0.04,
    drip=0.03,
    odd_value=0.05,
    delay_before=0.1,
    delay_after=0.1,
    close_idle=0.05,
    close_crossing=0.04,
    feed_lose=0.1,
    feed_late=0.1,
    feed_repeat=0.1,
    feed_reorder=0.1,
    feed_odd_value=0.05,
    feed_stall=0.01,
    # The client waits 10 s for an answer: half of the late orders come when it has given up.
    delay_seconds=Uniform(low=0.05, high=20.0),
    drip_seconds=Uniform(low=0.5, high=15.0),
    feed_late_seconds=Uniform(low=0.0, high=40.0),
)
"""Faults for every second request and message."""

SPREAD = 10.0
"""Seconds within which all orders of a program are placed."""
RESOLUTION_TIMEOUT = 30.0
CANCEL_BOUND = 2.0
"""Seconds within which a cancel reaches the exchange, from the call of `cancel` or from a halt with
open orders in the order cache. It waits for two things only: for one window of the rate limit
(1.015 s) after a 429 of an order call, and before it is sent again on a connection that broke
before anything was sent: at most 0.1, 0.2 and 0.4 s, and 0.28 s are left of the 0.5 s before a
fourth try."""
HALT_BOUND = 10 * RESOLUTION_TIMEOUT
"""Seconds within which a halt ends."""
NIGHT = 23.5 * 3600.0
"""Seconds by which a night advances both clocks: from 10:00 on Monday to 9:30 on Tuesday."""
LATE_BOOK_BOUND = 60.0
"""Seconds allowed for an order book that could not be read before: a hanging read, and the pause
after it."""
CASH = "999999999.00"


def run_program(seed: int, orders: int, *, story: Callable[[str], None] | None = None) -> Report:
    """Run one program in a loop of its own. `story` gets one line of text for every step."""
    random.seed(seed)  # for jitter
    started, files = time.perf_counter(), _open_files()
    program = _Program(seed, orders, story)
    report = program.report
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        try:
            runner.run(program.run())
        except Exception as error:
            report.add_problem("broken", repr(error))
    if (left := _open_files() - files) > 0:
        report.add_problem("leaks", f"{left} file descriptors more than before")
    report.seconds = time.perf_counter() - started
    return report


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


class _Program:
    """One seeded program: the exchange, the client, and every call with its outcome."""

    def __init__(self, seed: int, orders: int, story: Callable[[str], None] | None) -> None:
        self._seed = seed
        self._story = story
        self._outcomes: list[Outcome] = []
        self.report = Report(seed, orders)
        self._neo: NeoClient
        self._exchange: ObservedExchange
        self._night_seconds = 0.0
        """Seconds by which a night has advanced the clocks."""
        dice = Random(f"{seed}|shape")
        self._has_night = dice.random() < 0.25

    def _now(self) -> float:
        return now() + self._night_seconds

    def _say(self, text: str) -> None:
        if self._story is not None:
            self._story(f"{asyncio.get_running_loop().time():9.3f} {text}")

    async def run(self) -> Report:
        story = self._say if self._story is not None else None
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "orders.db")
            hours = Hours.EXCHANGE if self._has_night else Hours.ALWAYS
            async with ObservedExchange(
                story,
                seed=self._seed,
                clock=self._now,
                limits=None,
                cash=CASH,
                behaviour=Behaviour(rules=Rules(hours=hours)),
            ) as exchange:
                self._exchange = exchange
                before = asyncio.all_tasks()
                self._neo = NeoClient(
                    exchange.credentials,
                    endpoints=exchange.endpoints,
                    limits=RateLimits(orders=10_000, total=10_000),
                    journal=path,
                    orders=OrderSettings(resolution_timeout=RESOLUTION_TIMEOUT),
                    clock=self._now,
                )
                self._neo.limiter._clock = loop.time
                async with self._neo:
                    exchange.faults.set(ALL_FAULTS)
                    await self._run_orders(exchange)
                    self.report.faults.update(exchange.faults.injected)
                    exchange.faults.set(Faults())
                    await self._resolve_all()
                    self._compare_with_ledger(path)
                    self.report.virtual_seconds = loop.time()
                await self._check_for_leftovers(before)
        self.report.slowest = max((one.seconds for one in self._outcomes), default=0.0)
        if not self._has_night:
            self.report.overdue = sum(one.was_unknown for one in self._outcomes)
        self.report.outcomes.update(f"{one.action}: {one.result}" for one in self._outcomes)
        return self.report

    def _compare_with_ledger(self, journal: Path) -> None:
        comparison = LedgerComparison(
            self.report,
            self._exchange.market.ledger,
            self._neo,
            has_night=self._has_night,
            today=day_of(self._now()),
        )
        comparison.check_journal(journal)
        comparison.check_callers(self._outcomes)
        comparison.check_orders()

    async def _check_for_leftovers(self, before: set[asyncio.Task[Any]]) -> None:
        """Report the tasks that a closed client has left running."""
        await asyncio.sleep(1)
        for task in asyncio.all_tasks() - before:
            # Requests that hang belong to the exchange, not to the client.
            if not getattr(task.get_coro(), "__qualname__", "").startswith("RequestH"):
                self.report.add_problem("leaks", f"still running: {task!r}")

    async def _run_orders(self, exchange: Exchange) -> None:
        """Run all orders from placement to their last change, and wait for the resolution timeout
        of the last call."""
        dice = Random(f"{self._seed}|program")
        async with asyncio.TaskGroup() as group:
            for index in range(self.report.orders):
                group.create_task(self._run_order(index), name=f"order {index}")
            if dice.random() < 0.4:
                group.create_task(self._halt(Random(f"{self._seed}|halt")), name="halt")
            if self._has_night:
                group.create_task(self._pass_night(Random(f"{self._seed}|night")), name="night")
            if dice.random() < 0.3:
                await asyncio.sleep(dice.uniform(0, 2 * SPREAD))
                self._say("all sessions end")
                exchange.end_sessions()
        await asyncio.sleep(RESOLUTION_TIMEOUT)

    async def _pass_night(self, dice: Random) -> None:
        """Let a night pass at a random moment, with requests in flight."""
        await asyncio.sleep(dice.uniform(0, 2 * SPREAD))
        self._say("a night passes")
        self.report.nights += 1
        self._night_seconds += NIGHT
        self._exchange.tick()

    async def _halt(self, dice: Random) -> None:
        """Halt at a random moment, and check that no order is open when the halt has ended."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(dice.uniform(0, 2 * SPREAD))
        began = loop.time()
        has_open_orders = bool(self._neo._engine.cache.open_orders)
        self._say(f"halt, {has_open_orders=}")
        self.report.halts += 1
        try:
            async with asyncio.timeout(HALT_BOUND):
                results = await self._neo.halt(reason="the program halts")
        except TimeoutError:
            self.report.add_problem("left_open", f"the halt has not ended within {HALT_BOUND:g} s")
            return
        self._say(f"the halt has ended: {results}")
        if not any(isinstance(result, NeoError) for result in results):
            await self._expect_nothing_open()
            await asyncio.sleep(dice.uniform(0, RESOLUTION_TIMEOUT))
            await self._expect_nothing_open()
        if has_open_orders:
            self._expect_cancel(began, "")
        self._say("resume")
        self._neo.resume_orders()

    async def _expect_nothing_open(self) -> None:
        for record in self._exchange.market.ledger:
            if not record.status.is_final:
                self.report.add_problem("left_open", f"{record.number}: {record.status} in a halt")

    def _expect_cancel(self, since: float, number: str) -> None:
        """Report a problem unless a cancel (of that order, if given) arrived soon after `since`."""
        arrivals = (at for at, of in self._exchange.cancels if at >= since and number in ("", of))
        took = next(arrivals, float("inf")) - since
        self.report.slowest_cancel = max(self.report.slowest_cancel, took)
        if took > CANCEL_BOUND:
            self.report.add_problem(
                "late_cancels", f"cancel {number or 'of a halt'} at {since:.3f} took {took:.3f} s"
            )

    async def _resolve_all(self) -> None:
        """Wait until every request has an outcome, at most `LATE_BOOK_BOUND`."""
        deadline = asyncio.get_running_loop().time() + LATE_BOOK_BOUND
        in_flight_requests = self._neo._engine.in_flight_requests
        while in_flight_requests and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        await self._neo.orders.book()

    # --- one order ------------------------------------------------------------------------------

    async def _run_order(self, index: int) -> None:
        # The texts that seed the dice stay as they are, so that a seed names the same program.
        dice = Random(f"{self._seed}|life {index}")
        await asyncio.sleep(dice.uniform(0, SPREAD))
        order = await self._call(index, "place", dice, _placing(self._neo, index, dice))
        if order is None:
            return
        async with asyncio.TaskGroup() as group:
            for turn in range(dice.randrange(4)):
                group.create_task(
                    self._change(index, order, turn + 1, Random(f"{self._seed}|{index}|{turn}"))
                )

    async def _change(self, index: int, order: Order, turn: int, dice: Random) -> None:
        await asyncio.sleep(dice.choice([0.0, dice.uniform(0, SPREAD)]))
        if dice.random() < 0.35:
            await self._call(
                index,
                "cancel",
                dice,
                lambda wait_for_outcome: self._neo.orders.cancel(
                    order, wait_for_outcome=wait_for_outcome
                ),
                order.number,
            )
            return
        # A quantity that no other change of this order has, so that its history shows this change.
        changes: dict[str, Any] = {"quantity": 1000 + turn}
        if dice.random() < 0.5 and order.order_type == OrderType.LIMIT:
            changes["price"] = f"{dice.randrange(3800, 3960) / 100:.2f}"
        await self._call(
            index,
            "modify",
            dice,
            lambda wait_for_outcome: self._neo.orders.modify(
                order, **changes, wait_for_outcome=wait_for_outcome
            ),
            order.number,
        )

    async def _call(
        self,
        index: int,
        action: str,
        dice: Random,
        start: Callable[[bool], Coroutine[Any, Any, Order]],
        number: str = "",
    ) -> Order | None:
        wait_for_outcome = dice.random() < 0.8
        patience = dice.uniform(0, 12) if dice.random() < 0.1 else None
        step = dice.randrange(1, 30) if patience is None and dice.random() < 0.1 else None
        self._say(f"order {index}: {action} {number} {wait_for_outcome=} {patience=} {step=}")
        outcome = Outcome(index, action, "ok", order=number)
        order: Order | None = None
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(patience):
                try:
                    order = await _cancelled_at(start(wait_for_outcome), step)
                except OutcomeUnknown as unknown:
                    self._say(f"order {index}: {action} {unknown.client_tag}: unknown")
                    outcome.was_unknown = wait_for_outcome
                    order = await unknown.outcome()
            outcome.order = order.number
        except TimeoutError:
            outcome.result = "gave up"
        except asyncio.CancelledError:
            if step is None:
                raise
            outcome.result = "gave up"
        except NeoError as error:
            outcome.result, outcome.detail = type(error).__name__, str(error)
            outcome.order = number or str(getattr(error, "client_tag", ""))
        outcome.seconds = asyncio.get_running_loop().time() - began
        if action == "cancel" and outcome.result == "ok":
            self._expect_cancel(began, number)
        self._outcomes.append(outcome)
        self._say(
            f"order {index}: {action} {outcome.order}: {outcome.result} {outcome.detail[:200]}"
        )
        return order


async def _cancelled_at(call: Coroutine[Any, Any, Order], step: int | None) -> Order:
    """Return the call's result. With a step, the call is cancelled at its step-th await."""
    if step is None:
        return await call
    task = asyncio.create_task(_stepped(call, step))
    await asyncio.wait([task])
    return task.result()


@types.coroutine
def _stepped(call: Coroutine[Any, Any, Order], step: int) -> Generator[Any, None, Order]:
    steps = call.__await__()
    error: BaseException | None = None
    for count in itertools.count(1):
        try:
            waits_for = next(steps) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if count == step:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            error = None
            yield waits_for
        except BaseException as thrown:
            error = thrown
    raise AssertionError("unreachable")


def _placing(
    neo: NeoClient, index: int, dice: Random
) -> Callable[[bool], Coroutine[Any, Any, Order]]:
    """Return the call that places one order: some fill, some rest, some are rejected, at once or
    later."""
    symbol, side = "ITBEES-EQ", Side.BUY
    quantity = dice.choice([1, 10, 100, 2000])
    terms: dict[str, Any] = {"product": Product.CNC, "tag": f"l{index}"}
    kind = dice.choices(
        ["limit", "market", "stop", "ioc", "poor", "unknown"], [60, 8, 10, 10, 6, 6]
    )
    match kind[0]:
        case "market":
            terms["order_type"] = OrderType.MARKET
        case "stop":
            trigger = dice.randrange(3940, 4000)
            terms |= {
                "order_type": OrderType.SL,
                "trigger": f"{trigger / 100:.2f}",
                "price": f"{trigger / 100 + 0.1:.2f}",
            }
        case "poor":
            side, terms["price"] = Side.SELL, "39.00"  # more than is held
            quantity = 30_000
        case "unknown":
            symbol, terms["price"] = "NOSUCH-EQ", "39.00"
        case _:
            low, high = dice.choice([(3800, 3930), (3800, 3930), (3930, 4000)])
            terms["price"] = f"{dice.randrange(low, high) / 100:.2f}"
            if kind[0] == "ioc":
                terms["validity"] = Validity.IOC
    return lambda wait_for_outcome: neo.orders.place(
        Segment.NSE_CM, symbol, side, quantity, **terms, wait_for_outcome=wait_for_outcome
    )
