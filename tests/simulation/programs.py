"""Seeded programs of orders against an exchange on its worst day, and what the two say afterwards.

A program places orders, changes and cancels them, many at once; some callers do not wait for the
outcome, some give up, some are cancelled at one of their awaits. Some programs halt and resume, and
in some a night passes. All faults of the exchange are on. Then everything is left to settle, and
what the client told its callers, what its journal holds and what its orders look like is compared
with the exchange's ledger.

Client and exchange share a loop whose time passes only when nothing is left to do, over real
sockets: horizons of 30 s and hangs of 60 s take milliseconds, and a seed takes the same course
every time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import sqlite3
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from neo_async import (
    NeoClient,
    NeoError,
    Order,
    OrderStatus,
    OrderType,
    OutcomeUnknown,
    Product,
    RateLimits,
    Segment,
    Side,
    Validity,
)
from neo_async.exchange import Exchange, Faults, Hours, Rules, Uniform
from neo_async.exchange.engine.types import OrderRecord
from neo_async.execution.order_cache import day_of
from neo_async.wire.tags import matches
from tests.simulation.virtual_time import VirtualTimeLoop, now

WORST_DAY = Faults(
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
"""Every second request and message meets with something."""

SPREAD = 10.0
"""Seconds in which all orders of a program are placed."""
RESOLUTION_TIMEOUT = 30.0
CANCEL_BOUND = 2.0
"""Seconds from the call of `cancel`, or from a halt that knows of open orders, in which a cancel
reaches the exchange. It waits for two things only: for one window of the rate limit (1.015 s) after
a 429 of an order call, and before it is sent again on a connection that broke before anything was
sent: at most 0.1, 0.2 and 0.4 s, and 0.28 s are left of the 0.5 s before a fourth try."""
HALT_BOUND = 10 * RESOLUTION_TIMEOUT
"""Seconds in which a halt ends."""
NIGHT = 23.5 * 3600.0
"""Seconds by which a night moves both clocks: from 10:00 on Monday to 9:30 on Tuesday."""
AFTERMATH = 60.0
"""Seconds that are left to a book that could not be read before: a hanging read, and the pause
after it."""
CASH = "999999999.00"


class Told(msgspec.Struct):
    """What became of one call, as its caller learned it."""

    life: int
    action: str
    outcome: str
    """`ok`, `gave up` or the name of the error."""
    detail: str = ""
    order: str = ""
    """Its number, or its client tag where the call has none."""
    seconds: float = 0.0
    """Until its caller learned it."""
    was_unknown: bool = False
    """Whether a caller who waited was told at the end of the resolution timeout that no book could
    be read."""


class Report(msgspec.Struct):
    """Of one program."""

    seed: int
    orders: int
    """Placements that were asked for."""
    accepted: int = 0
    doubles: int = 0
    """Placements that arrived more than once, or became more than one order."""
    lost: int = 0
    """Orders in the ledger that the client does not know as accepted."""
    wrong: int = 0
    """Outcomes that the ledger contradicts, and orders whose state it does."""
    unknown: int = 0
    """Requests without an outcome after the resolution timeout."""
    left_open: int = 0
    """Halts that ended with an order open, or after which one arrived."""
    late_cancels: int = 0
    """Cancels that reached the exchange later than `CANCEL_BOUND`, or never."""
    halts: int = 0
    nights: int = 0
    slowest_cancel: float = 0.0
    """Seconds until the first cancel of a call or a halt reached the exchange, at most."""
    broken: int = 0
    """Whether the program ended with an error, so that nothing could be compared."""
    leaks: int = 0
    """Tasks, connections and files that are left."""
    overdue: int = 0
    """Callers who waited, and were told OutcomeUnknown: no book could be read within a minute
    after the end of the resolution timeout."""
    slowest: float = 0.0
    """Seconds until the last caller to learn an outcome had it."""
    told: Counter[str] = msgspec.field(default_factory=Counter)
    """What callers learned: outcome to count."""
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    """Faults that happened: name to count."""
    problems: list[str] = []
    virtual_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.problems

    def complain(self, kind: str, text: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.problems.append(f"{kind}: {text}")


def run_program(seed: int, orders: int, *, story: Callable[[str], None] | None = None) -> Report:
    """Run one program in a loop of its own. `story` is told every step."""
    random.seed(seed)  # for jitter
    started, files = time.perf_counter(), _open_files()
    program = _Program(seed, orders, story)
    report = program.report
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        try:
            runner.run(program.run())
        except Exception as error:
            report.complain("broken", repr(error))
    if (left := _open_files() - files) > 0:
        report.complain("leaks", f"{left} file descriptors more than before")
    report.seconds = time.perf_counter() - started
    return report


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


_request: ContextVar[int] = ContextVar("request")


class _Witnessed(Exchange):
    """Tells of every request, with what the plan had for it."""

    def __init__(self, story: Callable[[str], None] | None, **settings: Any) -> None:
        super().__init__(**settings)
        self._story = story
        self.cancels: list[tuple[float, str]] = []
        """Time of the loop and order number of every cancel that has arrived."""
        self._count = itertools.count(1)
        if story is not None:
            draw = self._faults.for_request

            def drawing(calls: Any) -> Any:
                decision = draw(calls)
                story(f"  #{_request.get()} meets {_decided(decision)}")
                return decision

            self._faults.for_request = drawing  # type: ignore[method-assign]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/cancel"):
            arrived = asyncio.get_running_loop().time()
            self.cancels.append((arrived, _form(await request.read()).get("on", "")))
        if self._story is None:
            return await super()._handle(request)
        number = next(self._count)
        _request.set(number)
        path = request.path.removeprefix("/neo")
        self._story(f"  #{number} {path}")
        ending = "nothing"
        try:
            answer = await super()._handle(request)
            # Even made-up tokens are shown nowhere.
            body = b"" if path.startswith("/login") else getattr(answer, "body", None) or b""
            ending = f"{answer.status} {bytes(body[:90])!r}"
        finally:
            self._story(f"  #{number} {path} {_form(await request.read())} is answered {ending}")
        return answer


def _form(body: bytes) -> dict[str, str]:
    """What of a form identifies the order and tells the change."""
    content = parse_qs(body.decode()).get("jData", ["{}"])[0]
    form = json.loads(content)
    return {name: form[name] for name in ("ig", "no", "on", "nOrdNo", "qt", "pr") if name in form}


def _decided(decision: Any) -> str:
    parts = [
        f"{name}={value:.2f}" if isinstance(value, float) else f"{name}={value}"
        for name, value in decision._asdict().items()
        if value and name != "form"
    ]
    return ", ".join(parts) or "nothing"


class _Program:
    def __init__(self, seed: int, orders: int, story: Callable[[str], None] | None) -> None:
        self._seed = seed
        self._story = story
        self._told: list[Told] = []
        self._placed: dict[int, Order] = {}
        self.report = Report(seed, orders)
        self._neo: NeoClient
        self._exchange: _Witnessed
        self._slept = 0.0
        """Seconds that nights have moved the clocks by."""
        dice = Random(f"{seed}|shape")
        self._has_night = dice.random() < 0.25

    def _now(self) -> float:
        return now() + self._slept

    def _say(self, text: str) -> None:
        if self._story is not None:
            self._story(f"{asyncio.get_running_loop().time():9.3f} {text}")

    async def run(self) -> Report:
        story = self._say if self._story is not None else None
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "orders.db")
            hours = Hours.EXCHANGE if self._has_night else Hours.ALWAYS
            async with _Witnessed(
                story,
                seed=self._seed,
                clock=self._now,
                limits=None,
                cash=CASH,
                rules=Rules(hours=hours),
            ) as exchange:
                self._exchange = exchange
                before = asyncio.all_tasks()
                self._neo = NeoClient(
                    exchange.credentials,
                    endpoints=exchange.endpoints,
                    limits=RateLimits(orders=10_000, total=10_000),
                    journal=path,
                    resolution_timeout=RESOLUTION_TIMEOUT,
                    clock=self._now,
                )
                self._neo.limiter._clock = loop.time
                async with self._neo:
                    exchange.set_faults(WORST_DAY)
                    await self._live(exchange)
                    self.report.faults.update(exchange.injected)
                    exchange.set_faults(Faults())
                    await self._settle()
                    apply_order_book = _Judge(
                        self.report,
                        exchange.market.ledger,
                        self._neo,
                        has_night=self._has_night,
                        today=day_of(self._now()),
                    )
                    apply_order_book.outcomes(path)
                    apply_order_book.callers(self._told, self._placed)
                    apply_order_book.states()
                    self.report.virtual_seconds = loop.time()
                await asyncio.sleep(1)
                for task in asyncio.all_tasks() - before:
                    # Requests that hang in the exchange are its own matter.
                    if not getattr(task.get_coro(), "__qualname__", "").startswith("RequestH"):
                        self.report.complain("leaks", f"still running: {task!r}")
        self.report.slowest = max((one.seconds for one in self._told), default=0.0)
        if not self._has_night:
            self.report.overdue = sum(one.was_unknown for one in self._told)
        self.report.told.update(f"{one.action}: {one.outcome}" for one in self._told)
        return self.report

    async def _live(self, exchange: Exchange) -> None:
        """All orders from placement to their last change, and then the resolution timeout of the
        last call."""
        dice = Random(f"{self._seed}|program")
        async with asyncio.TaskGroup() as group:
            for life in range(self.report.orders):
                group.create_task(self._live_one(life), name=f"life {life}")
            if dice.random() < 0.4:
                group.create_task(self._halt(Random(f"{self._seed}|halt")), name="halt")
            if self._has_night:
                group.create_task(self._sleep(Random(f"{self._seed}|night")), name="night")
            if dice.random() < 0.3:
                await asyncio.sleep(dice.uniform(0, 2 * SPREAD))
                self._say("all sessions end")
                exchange.end_sessions()
        await asyncio.sleep(RESOLUTION_TIMEOUT)

    async def _sleep(self, dice: Random) -> None:
        """Let a night pass at some moment, whatever is on its way."""
        await asyncio.sleep(dice.uniform(0, 2 * SPREAD))
        self._say("a night passes")
        self.report.nights += 1
        self._slept += NIGHT
        self._exchange.tick()

    async def _halt(self, dice: Random) -> None:
        """Halt at some moment, and look at what is open when it says that nothing is."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(dice.uniform(0, 2 * SPREAD))
        began = loop.time()
        knows_of_open = bool(self._neo.orders._cache.open_orders)
        self._say(f"halt, {knows_of_open=}")
        self.report.halts += 1
        try:
            async with asyncio.timeout(HALT_BOUND):
                results = await self._neo.halt(reason="the program halts")
        except TimeoutError:
            self.report.complain("left_open", f"the halt has not ended within {HALT_BOUND:g} s")
            return
        self._say(f"the halt has ended: {results}")
        if not any(isinstance(result, NeoError) for result in results):
            await self._expect_nothing_open()
            await asyncio.sleep(dice.uniform(0, RESOLUTION_TIMEOUT))
            await self._expect_nothing_open()
        if knows_of_open:
            self._expect_cancel(began, "")
        self._say("resume")
        self._neo.resume_orders()

    async def _expect_nothing_open(self) -> None:
        for record in self._exchange.market.ledger:
            if not record.status.is_final:
                self.report.complain("left_open", f"{record.number}: {record.status} in a halt")

    def _expect_cancel(self, since: float, number: str) -> None:
        """Complain unless a cancel (of that order, where it is given) came soon after `since`."""
        arrivals = (at for at, of in self._exchange.cancels if at >= since and number in ("", of))
        took = next(arrivals, float("inf")) - since
        self.report.slowest_cancel = max(self.report.slowest_cancel, took)
        if took > CANCEL_BOUND:
            self.report.complain(
                "late_cancels", f"cancel {number or 'of a halt'} at {since:.3f} took {took:.3f} s"
            )

    async def _settle(self) -> None:
        """Until no request is without an outcome, as long as it may take."""
        deadline = asyncio.get_running_loop().time() + AFTERMATH
        in_flight_requests = self._neo.orders._in_flight.in_flight_requests
        while in_flight_requests and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        await self._neo.orders.book()

    # --- one order ------------------------------------------------------------------------------

    async def _live_one(self, life: int) -> None:
        dice = Random(f"{self._seed}|life {life}")
        await asyncio.sleep(dice.uniform(0, SPREAD))
        order = await self._call(life, "place", dice, _placing(self._neo, life, dice))
        if order is None:
            return
        self._placed[life] = order
        async with asyncio.TaskGroup() as group:
            for turn in range(dice.randrange(4)):
                group.create_task(
                    self._change(life, order, turn + 1, Random(f"{self._seed}|{life}|{turn}"))
                )

    async def _change(self, life: int, order: Order, turn: int, dice: Random) -> None:
        await asyncio.sleep(dice.choice([0.0, dice.uniform(0, SPREAD)]))
        if dice.random() < 0.35:
            await self._call(
                life,
                "cancel",
                dice,
                lambda wait_for_outcome: self._neo.orders.cancel(
                    order, wait_for_outcome=wait_for_outcome
                ),
                order.number,
            )
            return
        # A quantity that no other change of this order has: so it can be told in its history.
        changes: dict[str, Any] = {"quantity": 1000 + turn}
        if dice.random() < 0.5 and order.order_type == OrderType.LIMIT:
            changes["price"] = f"{dice.randrange(3800, 3960) / 100:.2f}"
        await self._call(
            life,
            "modify",
            dice,
            lambda wait_for_outcome: self._neo.orders.modify(
                order, **changes, wait_for_outcome=wait_for_outcome
            ),
            order.number,
        )

    async def _call(
        self,
        life: int,
        action: str,
        dice: Random,
        start: Callable[[bool], Coroutine[Any, Any, Order]],
        number: str = "",
    ) -> Order | None:
        wait_for_outcome = dice.random() < 0.8
        patience = dice.uniform(0, 12) if dice.random() < 0.1 else None
        step = dice.randrange(1, 30) if patience is None and dice.random() < 0.1 else None
        self._say(f"life {life}: {action} {number} {wait_for_outcome=} {patience=} {step=}")
        told = Told(life, action, "ok", order=number)
        order: Order | None = None
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(patience):
                try:
                    order = await _cancelled_at(start(wait_for_outcome), step)
                except OutcomeUnknown as unknown:
                    self._say(f"life {life}: {action} {unknown.client_tag}: unknown")
                    told.was_unknown = wait_for_outcome
                    order = await unknown.outcome()
            told.order = order.number
        except TimeoutError:
            told.outcome = "gave up"
        except asyncio.CancelledError:
            if step is None:
                raise
            told.outcome = "gave up"
        except NeoError as error:
            told.outcome, told.detail = type(error).__name__, str(error)
            told.order = number or str(getattr(error, "client_tag", ""))
        told.seconds = asyncio.get_running_loop().time() - began
        if action == "cancel" and told.outcome == "ok":
            self._expect_cancel(began, number)
        self._told.append(told)
        self._say(f"life {life}: {action} {told.order}: {told.outcome} {told.detail[:200]}")
        return order


async def _cancelled_at(call: Coroutine[Any, Any, Order], step: int | None) -> Order:
    """The call's result; with a step, it is cancelled when it waits for the step-th time."""
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
    neo: NeoClient, life: int, dice: Random
) -> Callable[[bool], Coroutine[Any, Any, Order]]:
    """Some fill, some rest, some are refused at once and some later."""
    symbol, side = "ITBEES-EQ", Side.BUY
    quantity = dice.choice([1, 10, 100, 2000])
    terms: dict[str, Any] = {"product": Product.CNC, "tag": f"l{life}"}
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


# --- afterwards -----------------------------------------------------------------------------------


class _Judge:
    """Compares what the client holds for true with the exchange's ledger."""

    def __init__(
        self,
        report: Report,
        ledger: list[OrderRecord],
        neo: NeoClient,
        *,
        has_night: bool,
        today: str,
    ) -> None:
        self._report = report
        self._has_night = has_night
        """Whether orders have ended with their day, and requests with nobody to tell of them."""
        self._today = today
        """As order numbers begin."""
        self._ledger = ledger
        self._by_tag = Counter(record.client_tag for record in ledger)
        self._by_number = {record.number: record for record in ledger}
        self._neo = neo

    @property
    def _unknowable(self) -> str:
        """What callers rightly learn of a request whose day is over: no book tells of it."""
        return OutcomeUnknown.__name__ if self._has_night else ""

    def outcomes(self, journal: Path) -> None:
        """The journal's, of every request that was ever made, also for callers who gave up."""
        report = self._report
        report.accepted = len(self._ledger)
        accepted: dict[str, Counter[str]] = {}
        refused: dict[str, Counter[str]] = {}
        lapsed: dict[str, Counter[str]] = {}
        known = set()
        with contextlib.closing(sqlite3.connect(journal)) as file:
            file.row_factory = sqlite3.Row
            rows = file.execute("SELECT * FROM intents").fetchall()
        for row in rows:
            what = f"{row['action']} {row['client_tag'] or row['order_number']}"
            outcome = row["outcome"]
            if outcome in (None, "unknown"):
                report.complain("unknown", f"{what}: {row['reason']}")
            elif row["action"] == "place":
                known |= self._placement(what, row)
            else:
                book = {"accepted": accepted, "lapsed": lapsed}.get(outcome, refused)
                book.setdefault(row["order_number"], Counter())[row["action"]] += 1
        for record in self._ledger:
            if record.client_tag not in known:
                report.complain("lost", f"{record.number} {record.client_tag} {record.status}")
            if record.arrivals != 1 or self._by_tag[record.client_tag] != 1:
                report.complain("doubles", f"{record.client_tag} arrived {record.arrivals} times")
            number = record.number
            self._changes(record, accepted.get(number, Counter()), lapsed.get(number, Counter()))

    def _placement(self, what: str, row: sqlite3.Row) -> Iterator[str] | set[str]:
        """Its tag, if it was accepted."""
        tag, outcome = row["client_tag"], row["outcome"]
        numbers = [record.number for record in self._ledger if record.client_tag == tag]
        if outcome == "accepted":
            if numbers != [row["order_number"]]:
                told = row["order_number"]
                self._report.complain("wrong", f"{what} is {told}, in the ledger {numbers}")
            return {tag}
        if numbers and not (self._has_night and outcome == "lapsed"):
            self._report.complain("wrong", f"{what}: {outcome}, in the ledger {numbers}")
        return {tag} if numbers else set()

    def _changes(self, record: OrderRecord, accepted: Counter[str], lapsed: Counter[str]) -> None:
        report = self._report
        modifications = record.request_id - 1
        # What was on its way when its day ended may have taken effect: no book tells any more.
        unproved = lapsed["modify"] if self._has_night else 0
        if not accepted["modify"] <= modifications <= accepted["modify"] + unproved:
            report.complain(
                "wrong",
                f"{record.number}: {accepted['modify']} modifications were told to be accepted, "
                f"the ledger has {modifications}",
            )
        is_cancelled = record.status is OrderStatus.CANCELLED
        if accepted["cancel"] and not is_cancelled:
            report.complain("wrong", f"{record.number} was told to be cancelled: {record.status}")
        ends_by_itself = self._has_night or record.validity is Validity.IOC
        if is_cancelled and not accepted["cancel"] and not ends_by_itself:
            report.complain("wrong", f"{record.number} is cancelled, and no cancel took effect")

    def callers(self, told: list[Told], placed: dict[int, Order]) -> None:
        """What callers learned, where they waited for it."""
        for one in told:
            if one.action == "place" and one.outcome == "ok":
                record = self._by_number.get(one.order)
                if record is None or not record.client_tag.startswith(f"l{one.life}_"):
                    self._report.complain("wrong", f"life {one.life} was told {one.order}")
            elif one.action == "place" and one.outcome not in ("gave up", self._unknowable):
                tags = [each for each in self._by_tag if each.startswith(f"l{one.life}_")]
                if tags:
                    self._report.complain(
                        "wrong", f"life {one.life} was told {one.outcome}: {tags}"
                    )
            elif one.outcome == "OrderAlreadyFinal" and not self._is_final(one.order):
                self._report.complain("wrong", f"{one.order} was told to be final")

    def _is_final(self, number: str) -> bool:
        return self._by_number[number].status.is_final

    def states(self) -> None:
        """Every order's, as the client sees it."""
        for record in self._ledger:
            order = self._neo.orders._cache.get(record.number)
            if self._has_night and record.number[:6] < self._today:
                # No book tells any more how it ended; but that it is over has to be known.
                if order is not None and not order.is_final:
                    self._report.complain("wrong", f"{record.number} is over, seen as {order!r}")
                continue
            if order is None:
                self._report.complain("lost", f"{record.number} is followed by nobody")
                continue
            theirs = {
                "status": record.status,
                "filled": record.filled_quantity,
                "average": round(record.average_price / 100, 4),
                "quantity": record.quantity,
                "price": record.price / 100,
                "tag": True,
            }
            ours = {
                "status": order.status,
                "filled": order.filled_quantity,
                "average": round(order.average_price, 4),
                "quantity": order.quantity,
                "price": float(order.price or 0),
                "tag": matches(order.client_tag, record.client_tag),
            }
            if self._has_night and order.is_presumed_over and record.status.is_final:
                # It is known to be over, and not how: no report of a later day tells of it.
                theirs |= {name: ours[name] for name in ("status", "average", "quantity", "price")}
                theirs["filled"] = min(order.filled_quantity, record.filled_quantity)
            if (off := abs(theirs["average"] - ours["average"])) <= 0.005 and off:
                ours["average"] = theirs["average"]  # the wire has two decimals
            for name, value in theirs.items():
                if ours[name] != value:
                    self._report.complain(
                        "wrong", f"{record.number}: {name} is {value}, seen as {ours[name]}"
                    )
