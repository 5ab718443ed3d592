"""Seeded programs of exit plans against an exchange with every fault on, compared with its ledger.

A program starts brackets, covers and stops for positions at random moments, while prices walk, jump
over stops, and run through both prices of a bracket within a turn of the loop. Users change plans,
close and cancel them, close by hand what they hold, and square positions off. Some programs halt,
with stops kept or with every position closed; in some all sessions end; in some a feed is lost for
a minute; in some the broker refuses to change the type of an order. In some the broker squares off
what is intraday and two nights pass, over which plans of CNC go on, and the next day opens with a
gap. Then the faults end, the prices run through every stop, and each plan has to be final.

What has to be zero: positions that were turned round, units that no order protects while their plan
says that they are protected, and steps that were placed twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from neo_async import (
    Instrument,
    NeoClient,
    NeoError,
    OrderSettings,
    OrderType,
    Product,
    RateLimits,
    Segment,
    Side,
)
from neo_async.exchange import Behaviour, Faults, Hours, Rules
from neo_async.exchange.faults.plan import FeedName
from neo_async.exchange.faults.settings import FeedFault
from neo_async.exits.plan import ExitPlan
from neo_async.exits.state import PlanStatus, Unprotected
from neo_async.wire.tags import own_tag, step_of, without_suffix
from tests.simulation.observed_exchange import ObservedExchange
from tests.simulation.programs import ALL_FAULTS, CASH, RESOLUTION_TIMEOUT
from tests.simulation.virtual_time import VirtualTimeLoop, now

SPREAD = 60.0
"""Seconds within which all plans of a program are started."""
FAULTY_SECONDS = 180.0
"""Seconds for which the faults last."""
SILENCE_SECONDS = 90.0
"""Seconds for which units may lack an order at the exchange although their plan does not say so:
reports may be late by 40 s, and the order book is read after that."""
CROSSING_SECONDS = 60.0
"""Seconds after an order by hand within which an exit order of a plan may still fill: the reports
of it are on their way."""
NIGHTS = 47.5 * 3600.0
"""Seconds by which the nights advance both clocks: from 10:00 on Monday over a holiday to 9:30 on
Wednesday."""
END_SECONDS = 900.0
"""Seconds within which every plan has to be final once the faults have ended and the prices have
run through the stops."""


class PlanReport(msgspec.Struct):
    """The counts of one program. Every count but the first ones should be zero."""

    seed: int
    plans: int = 0
    ended: Counter[str] = msgspec.field(default_factory=Counter)
    """Plans by their last state and what exited them."""
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    turned: int = 0
    """Positions that were turned round."""
    silent: int = 0
    """Times at which units had no order, and no plan said so."""
    doubles: int = 0
    """Steps that were placed twice."""
    unfinished: int = 0
    """Plans that were not final at the end, or that were exited and left a position."""
    crossed: int = 0
    """Positions that a user has turned round by hand, while the report of an exit was on its
    way."""
    nights: int = 0
    """Nights of the program; 0 or 1."""
    broken: int = 0
    leaks: int = 0
    problems: list[str] = []
    seconds: float = 0.0

    def add_problem(self, count: str, text: str) -> None:
        """Count a problem, and keep its description."""
        setattr(self, count, getattr(self, count) + 1)
        self.problems.append(f"{count}: {text}")

    @property
    def is_good(self) -> bool:
        return not self.problems


def run_plans(seed: int, plans: int, *, story: Callable[[str], None] | None = None) -> PlanReport:
    """Run one program in a loop of its own. `story` gets one line of text for every step."""
    random.seed(seed)  # for jitter
    started = time.perf_counter()
    program = _Program(seed, plans, story)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        try:
            runner.run(program.run())
        except Exception as error:
            program.report.add_problem("broken", repr(error))
    program.report.seconds = time.perf_counter() - started
    return program.report


class _Program:
    def __init__(self, seed: int, plans: int, story: Callable[[str], None] | None) -> None:
        self._seed = seed
        self._count = plans
        self._story = story
        self.report = PlanReport(seed)
        self._plans: dict[str, ExitPlan] = {}
        """Plans by the symbol of their instrument, which no other plan of the program trades."""
        self._sides: dict[str, Side] = {}
        self._bare_since: dict[str, float] = {}
        self._told: set[str] = set()
        self._by_hand: dict[str, float] = {}
        """Times of the loop of the orders by hand, by symbol."""
        dice = Random(f"{seed}|kind")
        self._has_night = dice.random() < 0.3
        self._changes_type = dice.random() < 0.7
        self._lost_feed = dice.choice([None, None, None, "market", "orders"])
        self._night_seconds = 0.0
        self._exchange: ObservedExchange
        self._neo: NeoClient

    def _say(self, text: str) -> None:
        if self._story is not None:
            self._story(f"{asyncio.get_running_loop().time():9.3f} {text}")

    def _clock(self) -> float:
        return now() + self._night_seconds

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        story = self._say if self._story is not None else None
        with tempfile.TemporaryDirectory() as folder:
            async with ObservedExchange(
                story,
                seed=self._seed,
                clock=self._clock,
                limits=None,
                cash=CASH,
                behaviour=Behaviour(
                    rules=Rules(
                        hours=Hours.EXCHANGE if self._has_night else Hours.ALWAYS,
                        type_changes=self._changes_type,
                    )
                ),
            ) as exchange:
                self._exchange = exchange
                before = asyncio.all_tasks()
                self._neo = NeoClient(
                    exchange.credentials,
                    endpoints=exchange.endpoints,
                    limits=RateLimits(orders=10_000, total=10_000),
                    journal=Path(folder, "orders.db"),
                    orders=OrderSettings(resolution_timeout=RESOLUTION_TIMEOUT),
                    clock=self._clock,
                )
                self._neo.limiter._clock = loop.time
                async with self._neo:
                    await self._neo.instruments.load(Segment.NSE_CM)
                    exchange.faults.set(ALL_FAULTS)
                    watching = asyncio.create_task(self._watch())
                    await self._run_faulty()
                    self.report.faults.update(exchange.faults.injected)
                    exchange.faults.set(Faults())
                    await self._finish()
                    watching.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await watching
                    self._check_steps()
                await asyncio.sleep(1)
                for task in asyncio.all_tasks() - before:
                    if not getattr(task.get_coro(), "__qualname__", "").startswith("RequestH"):
                        self.report.add_problem("leaks", f"still running: {task!r}")

    async def _run_faulty(self) -> None:
        dice = Random(f"{self._seed}|program")
        listings = self._exchange.market.listings
        found = (
            self._neo.instruments.find(listing.segment, listing.symbol)
            for listing in listings
            if listing.segment is Segment.NSE_CM
        )
        shares = [one for one in found if one is not None and one.series == "EQ"]
        chosen = dice.sample(shares, min(self._count, len(shares)))
        async with asyncio.timeout(FAULTY_SECONDS * 4), asyncio.TaskGroup() as group:
            for index, instrument in enumerate(chosen):
                group.create_task(
                    self._run_plan(instrument, Random(f"{self._seed}|plan {index}")),
                    name=instrument.symbol,
                )
            if dice.random() < 0.25:
                group.create_task(self._halt(Random(f"{self._seed}|halt")))
            if self._lost_feed is not None:
                group.create_task(self._lose_feed(self._lost_feed, Random(f"{self._seed}|feed")))
            if dice.random() < 0.3:
                await asyncio.sleep(dice.uniform(0, FAULTY_SECONDS))
                self._say("all sessions end")
                self._exchange.end_sessions()
        if self._has_night:
            await self._pass_nights(Random(f"{self._seed}|gap"))

    async def _lose_feed(self, lost: FeedName, dice: Random) -> None:
        """Have every message of a feed lost for a minute, and its connection as well."""
        await asyncio.sleep(dice.uniform(SPREAD / 2, FAULTY_SECONDS / 2))
        self._say(f"the feed of {lost} is lost")
        faults = self._exchange.faults
        draw = faults.for_message

        def lose(feed: FeedName) -> tuple[FeedFault | None, float]:
            return (FeedFault.LOSE, 0.0) if feed == lost else draw(feed)

        faults.for_message = lose  # type: ignore[method-assign]
        if dice.random() < 0.5:
            self._exchange.feeds.drop_connections(lost)
        await asyncio.sleep(60)
        faults.for_message = draw  # type: ignore[method-assign]

    async def _pass_nights(self, dice: Random) -> None:
        """Let the broker square off what is intraday, and the nights pass. The open has a gap."""
        self._say("the nights pass")
        self.report.nights += 1
        self._night_seconds += NIGHTS
        self._exchange.tick()
        for plan in self._neo.exits.plans:
            instrument = self._neo.instruments.find(plan.segment, plan.symbol)
            assert instrument is not None
            factor = Decimal(dice.choice(["0.95", "0.99", "1.01", "1.05"]))
            tick = Decimal(repr(instrument.tick_size))
            self._print(instrument, _on_tick(self._price(instrument) * factor, tick))
        await asyncio.sleep(30)

    async def _halt(self, dice: Random) -> None:
        await asyncio.sleep(dice.uniform(SPREAD / 2, FAULTY_SECONDS))
        how = dice.choice([{}, {"keep_stops": True}, {"square_off": True}])
        self._say(f"halt, {how}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(300):
                await self._neo.halt(**how, reason="the program halts")
        self._neo.resume_orders()

    # --- one plan -----------------------------------------------------------------------------

    async def _run_plan(self, instrument: Instrument, dice: Random) -> None:
        await asyncio.sleep(dice.uniform(0, SPREAD))
        price = self._price(instrument)
        side = dice.choice(list(Side))
        symbol = instrument.symbol
        self._sides[symbol] = side
        tick = Decimal(repr(instrument.tick_size))
        terms = _exits(price, side, tick, dice)
        quantity = dice.choice([1, 10, 100])
        product = Product.MIS
        if self._has_night and side is Side.BUY and dice.random() < 0.6:
            product = Product.CNC
        entry: dict[str, Any] = {"order_type": OrderType.MARKET}
        if dice.random() < 0.5:
            entry = {"price": price}
        self._say(f"{symbol}: {side.name} {quantity} at {price}, {entry}, {terms}")
        try:
            self._plans[symbol] = await self._neo.exits.bracket(
                Segment.NSE_CM, symbol, side, quantity, product=product, **entry, **terms
            )
        except NeoError as error:
            self._say(f"{symbol}: {error!r}")
            self._plans |= {
                plan.symbol: plan for plan in self._neo.exits.plans if plan.symbol == symbol
            }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._move_price(instrument, price, dice))
            if (plan := self._plans.get(symbol)) is not None:
                group.create_task(self._use(plan, Random(f"{self._seed}|{symbol}|use")))

    async def _move_price(self, instrument: Instrument, price: Decimal, dice: Random) -> None:
        """Let the price walk, jump, and run through both prices of a plan at once."""
        tick = Decimal(repr(instrument.tick_size))
        until = asyncio.get_running_loop().time() + FAULTY_SECONDS - SPREAD
        at = price
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(dice.uniform(0.1, 8.0))
            kind = dice.random()
            if kind < 0.1:  # a whipsaw in one turn
                for factor in ("1.03", "0.97"):
                    self._print(instrument, _on_tick(price * Decimal(factor), tick))
                at = _on_tick(price * Decimal("0.99"), tick)
            elif kind < 0.15:  # a gap
                at = _on_tick(price * Decimal(dice.choice(["0.95", "1.05"])), tick)
            else:
                step = price * Decimal(dice.randrange(-6, 7)) / 1000
                at = max(tick, _on_tick(at + step, tick))
            self._print(instrument, at)

    async def _use(self, plan: ExitPlan, dice: Random) -> None:
        """Do what a user may do with a plan."""
        if dice.random() < 0.6:
            return
        await asyncio.sleep(dice.uniform(0, FAULTY_SECONDS - SPREAD))
        choice = dice.random()
        self._say(f"{plan.symbol}: the user acts, {choice:.2f}, on {plan}")
        with contextlib.suppress(NeoError, TimeoutError):
            async with asyncio.timeout(200):
                if choice < 0.4 and plan.stop is not None:
                    await plan.change(stop=None if plan.target else plan.stop)
                elif choice < 0.6:
                    await plan.exit_now()
                elif choice < 0.75:
                    await self._close_by_hand(plan)
                elif choice < 0.85:
                    await self._neo.portfolio.square_off(symbol=plan.symbol)
                else:
                    await plan.cancel(leave_stop=dice.random() < 0.5)

    async def _close_by_hand(self, plan: ExitPlan) -> None:
        """Close what the plan holds with an order that is not of it, and leave the plan alone."""
        if not plan.open_quantity:
            return
        state = plan._runner.state
        self._by_hand[plan.symbol] = math.inf
        try:
            await self._neo.orders.place(
                Segment.NSE_CM,
                plan.symbol,
                state.terms.exit_side,
                plan.open_quantity,
                product=state.terms.product,
                order_type=OrderType.MARKET,
            )
        finally:
            self._by_hand[plan.symbol] = asyncio.get_running_loop().time() + CROSSING_SECONDS

    def _price(self, instrument: Instrument) -> Decimal:
        market = self._exchange.market
        listing = market.listing(instrument.segment, instrument.symbol)
        assert listing is not None
        return Decimal(market.last_price(listing)) / 100

    def _print(self, instrument: Instrument, price: Decimal) -> None:
        self._exchange.market.print_price(instrument.segment, instrument.token, int(price * 100))

    # --- checks -------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            self._check_positions()
            await asyncio.sleep(0.25)

    def _check_positions(self) -> None:
        now_ = asyncio.get_running_loop().time()
        held: Counter[str] = Counter()
        working: Counter[str] = Counter()
        for record in self._exchange.market.ledger:
            symbol = record.listing.symbol
            side = self._sides.get(symbol)
            if side is None:
                continue
            is_entry = record.side is side
            held[symbol] += record.filled_quantity if is_entry else -record.filled_quantity
            if not is_entry and not record.status.is_final:
                working[symbol] += record.quantity - record.filled_quantity
        for symbol in self._sides:
            if held[symbol] < 0 and symbol not in self._told:
                self._told.add(symbol)
                if now_ < self._by_hand.get(symbol, 0.0):
                    self.report.crossed += 1
                else:
                    self.report.add_problem("turned", f"{symbol}: {held[symbol]} at {now_:.3f}")
            self._check_protection(symbol, held[symbol] - working[symbol], now_)

    def _check_protection(self, symbol: str, bare: int, now_: float) -> None:
        plan = self._plans.get(symbol)
        if bare <= 0 or plan is None or plan.is_final or plan.unprotected > 0:
            self._bare_since.pop(symbol, None)
            return
        since = self._bare_since.setdefault(symbol, now_)
        if now_ - since > SILENCE_SECONDS and ("silent", symbol) not in self._told:
            self._told.add(("silent", symbol))  # type: ignore[arg-type]
            self.report.add_problem("silent", f"{symbol}: {bare} since {since:.3f}: {plan}")

    def _check_steps(self) -> None:
        counts: Counter[str] = Counter()
        for record in self._exchange.market.ledger:
            tag = own_tag(without_suffix(record.client_tag))
            found = step_of(tag)
            if found is not None and found[1] > 0:
                counts[tag] += 1
        for tag, count in counts.items():
            if count > 1:
                self.report.add_problem("doubles", f"{tag}: {count} orders")

    async def _finish(self) -> None:
        """Let every price run through the stop, until every plan is final."""
        until = asyncio.get_running_loop().time() + END_SECONDS
        while any(not plan.is_final for plan in self._neo.exits.plans):
            if asyncio.get_running_loop().time() > until:
                break
            for plan in self._neo.exits.plans:
                if not plan.is_final:
                    self._push(plan)
            await asyncio.sleep(2.0)
        self.report.plans = len(self._neo.exits.plans)
        for plan in self._neo.exits.plans:
            self.report.ended[f"{plan.state} {plan.exited_by or ''}".strip()] += 1
            self._say(f"{plan}")
            if not plan.is_final:
                self.report.add_problem("unfinished", repr(plan))
            elif (
                plan.state is PlanStatus.EXITED
                and plan.symbol not in self._by_hand
                and (left := self._held(plan.symbol))
            ):
                self.report.add_problem("unfinished", f"{plan} leaves {left}")

    def _held(self, symbol: str) -> int:
        side = self._sides[symbol]
        return sum(
            record.filled_quantity if record.side is side else -record.filled_quantity
            for record in self._exchange.market.ledger
            if record.listing.symbol == symbol
        )

    def _push(self, plan: ExitPlan) -> None:
        """Move a price to where the plan exits."""
        instrument = self._neo.instruments.find(plan.segment, plan.symbol)
        assert instrument is not None
        sign = 1 if self._sides[plan.symbol] is Side.BUY else -1
        level = plan.stop if plan.stop is not None else plan.target
        assert level is not None
        tick = Decimal(repr(instrument.tick_size))
        beyond = level - sign * 2 * tick if plan.stop is not None else level + sign * 2 * tick
        self._print(instrument, max(tick, _on_tick(beyond, tick)))


def _exits(price: Decimal, side: Side, tick: Decimal, dice: Random) -> dict[str, Any]:
    """Return the exits of a random plan around a price."""
    sign = 1 if side is Side.BUY else -1
    far = [Decimal(dice.randrange(5, 25)) / 1000 * price for _ in range(2)]
    stop = _on_tick(price - sign * far[0], tick)
    nearest = price - sign * tick
    terms: dict[str, Any] = {"stop": min(stop, nearest) if sign > 0 else max(stop, nearest)}
    if dice.random() < 0.7:
        target = _on_tick(price + sign * far[1], tick)
        terms["target"] = max(target, price + tick) if sign > 0 else min(target, price - tick)
    if dice.random() < 0.3:
        terms["trail"] = max(tick, _on_tick(far[0], tick))
    if dice.random() < 0.2 and "target" in terms:
        terms["resting"] = "target"
    if dice.random() < 0.3:
        terms["on_unprotected"] = Unprotected.EXIT
    return terms


def _on_tick(price: Decimal, tick: Decimal) -> Decimal:
    return (price / tick).to_integral_value() * tick
