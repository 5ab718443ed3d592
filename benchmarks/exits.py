"""Exit plans: from the message of a fill to the stop's bytes, and what plans cost everyone else.

Exchange and clients share one process and one loop, so that what the exchange does meanwhile counts
as well. Clients alternate, as those of `benchmarks.orders` do.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from decimal import Decimal
from typing import Any

from benchmarks.harness import (
    Benchmark,
    Report,
    Table,
    Wanted,
    at_most,
    microseconds,
    number,
    percentile,
    summarise,
)
from neo_async import NeoClient, OrderType, Product, RateLimits, Segment, Side
from neo_async.exchange import Exchange
from neo_async.exits.plan import ExitPlan
from neo_async.exits.state import PlanStatus
from neo_async.model.orders import OrderRow

SYMBOL = "ITBEES-EQ"
TOKEN = "19084"
ORDERED = "NIFTYBEES-EQ"
PLANS = 200
ORDERS = 100
"""Orders of a round."""
BOOK_ROWS = 10_000
BOOK_PLANS = 100
WIDE = RateLimits(orders=100_000, total=100_000)

_PLACE = b"POST /neo/quick/order/rule/ms/place"


class _Writes:
    """Notes when the first placement is written to a socket from a moment on."""

    def __init__(self) -> None:
        self.at = 0.0
        transport = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
        write = transport.write

        def noting(this: Any, data: Any) -> None:
            if not self.at and bytes(data[: len(_PLACE)]) == _PLACE:
                self.at = time.perf_counter()
            write(this, data)

        transport.write = noting


def _client(exchange: Exchange, account: int) -> NeoClient:
    credentials = exchange.accounts[account]
    return NeoClient(credentials, endpoints=exchange.endpoints, limits=WIDE)


def _print(exchange: Exchange, paise: int) -> None:
    exchange.market.print_price(Segment.NSE_CM, TOKEN, paise)


async def _rest_plan(exchange: Exchange, neo: NeoClient) -> ExitPlan:
    """Return a plan whose entry waits below the price."""
    _print(exchange, 3920)
    return await neo.exits.bracket(
        Segment.NSE_CM,
        SYMBOL,
        Side.BUY,
        10,
        product=Product.MIS,
        price="39.00",
        stop="38.00",
        target="41.00",
    )


async def measure_reaction(plans: int) -> list[float]:
    """Return the seconds from the message of each entry's fill to the bytes of its stop."""
    seconds = []
    writes = _Writes()
    async with Exchange(limits=None, market_makers=False) as exchange, _client(exchange, 0) as neo:
        await neo.instruments.load(Segment.NSE_CM)
        came = 0.0

        def note(update: object) -> None:
            nonlocal came
            if isinstance(update, OrderRow) and update.filled_quantity and not came:
                came, writes.at = time.perf_counter(), 0.0

        neo.order_feed.subscribe(note)
        for _ in range(plans):
            plan = await _rest_plan(exchange, neo)
            came, writes.at = 0.0, -1.0
            _print(exchange, 3899)
            await plan.wait(PlanStatus.OPEN, timeout=10)
            while plan.unprotected:  # noqa: ASYNC110 - the answer, not the bytes
                await asyncio.sleep(0.001)
            seconds.append(writes.at - came)
            await plan.cancel()
    return sorted(seconds)


async def measure_orders(rounds: int) -> dict[str, list[float]]:
    """Return the processor time of an order, in µs, of each round: of a client that has not touched
    `exits`, and of one with a plan that rests in another instrument."""
    costs: dict[str, list[float]] = {"no plan": [], "a plan rests": []}
    async with (
        Exchange(limits=None, market_makers=False, accounts=2) as exchange,
        _client(exchange, 0) as bare,
        _client(exchange, 1) as planning,
    ):
        for neo in (bare, planning):
            await neo.instruments.load(Segment.NSE_CM)
        bare.order_feed.start()
        await _rest_plan(exchange, planning)
        for index in range(rounds + 1):
            for name, neo in zip(costs, (bare, planning), strict=True):
                spent = await _place(neo)
                if index:  # the first round is not counted
                    costs[name].append(spent)
    return costs


async def _place(neo: NeoClient) -> float:
    before = time.process_time()
    for _ in range(ORDERS):
        await neo.orders.place(
            Segment.NSE_CM,
            ORDERED,
            Side.BUY,
            1,
            product=Product.MIS,
            order_type=OrderType.LIMIT,
            price=Decimal("260.00"),
        )
    return (time.process_time() - before) / ORDERS * 1e6


async def measure_reports() -> tuple[float, float]:
    """Return the milliseconds for which an order book of 10,000 rows of other orders holds the loop
    on its way through 100 plans, and the microseconds that one message of such an order takes."""
    async with Exchange(limits=None, market_makers=False) as exchange, _client(exchange, 0) as neo:
        await neo.instruments.load(Segment.NSE_CM)
        for _ in range(BOOK_PLANS):
            await _rest_plan(exchange, neo)
        order = await neo.orders.place(
            Segment.NSE_CM, ORDERED, Side.BUY, 1, product=Product.MIS, price="260.00"
        )
        (row,) = [one for one in await neo.orders.book() if one.number == order.number]
        rows = [row] * BOOK_ROWS
        times = []
        for _ in range(20):
            before = time.perf_counter()
            neo.exits._book._on_book(rows, asyncio.get_running_loop().time())
            times.append(time.perf_counter() - before)
            await asyncio.sleep(0.05)
        message = microseconds(lambda: neo.exits._book._on_update(row), 20_000)
        return sorted(times)[len(times) // 2] * 1e3, message


def modules_imported() -> int:
    """Return how many modules of `neo_async.exits` a client without plans imports."""
    code = (
        "import sys, neo_async; neo_async.NeoClient; "
        "print(sum(name.startswith('neo_async.exits') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return int(done.stdout)


def wanted_of(p99_ms: float, message_us: float, modules: int, book_ms: float) -> list[Wanted]:
    return [
        at_most("from a fill's message to the stop's bytes, p99", 5, p99_ms, "ms"),
        at_most("modules of plans that a client without them imports", 0, modules, ""),
        at_most(f"a message of another order, beside {BOOK_PLANS} plans", 1, message_us, "µs"),
        at_most(f"a book of {BOOK_ROWS:,} rows through {BOOK_PLANS} plans", 1, book_ms, "ms"),
    ]


def measure(arguments: argparse.Namespace) -> Report:
    """Measure the reaction to fills, and the costs."""
    reaction = asyncio.run(measure_reaction(arguments.plans))
    costs = asyncio.run(measure_orders(arguments.rounds))
    book, message = asyncio.run(measure_reports())
    modules = modules_imported()
    ms = {f"p{share * 100:g}": percentile(reaction, share) * 1e3 for share in (0.5, 0.99)}
    more = summarise(
        resting - bare
        for bare, resting in zip(costs["no plan"], costs["a plan rests"], strict=True)
    )
    order = {name: summarise(values) for name, values in costs.items()}
    return Report(
        {
            "settings": {"plans": arguments.plans, "rounds": arguments.rounds},
            "reaction_ms": ms,
            "order_us": order,
            "resting_plan_us": more,
            "book_ms": book,
            "message_us": message,
            "modules": modules,
        },
        [
            Table(
                "from the message of a fill to the stop's bytes on the socket",
                ["", "ms"],
                [[name, number(value)] for name, value in ms.items()],
            ),
            Table(
                "processor time of an order, client and exchange together, µs",
                ["", "median", "low – high"],
                [
                    *([name, *figure.cells()] for name, figure in order.items()),
                    ["the difference", *more.cells()],
                ],
            ),
        ],
        wanted_of(ms["p99"], message, modules, book),
    )


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plans", type=int, default=PLANS, metavar="N", help="fills to react to")


BENCHMARK = Benchmark(
    "exits", __doc__, measure, packages=("msgspec",), rounds=15, add_options=_options
)

if __name__ == "__main__":
    BENCHMARK.main()
