"""Orders a second that the exchange's matching engine takes: no sockets, no market makers.

    python -m benchmarks.exchange_core [--orders N] [--rounds R] [--json]

Every order passes through all its states, blocks margin, meets or joins a price-time book, fills,
and gives events. The mix, drawn by a fixed seed over four shares and eight accounts: of a hundred
orders 70 are limits on either side of a narrow band, 10 market orders, 5 stops, and 15 times one
that was placed lately is cancelled or changed instead, which counts as an order. The events are
taken away after every thousand, as the feeds do.

Beside it: `resting` places limits that match nothing, and `journaled` is the mix with every command
journaled (see exchange/engine/commands.py).
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Callable

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Figure, alternate, cores, pin, summarise
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Change, Listing, NewOrder, Refusal
from neo_async.model.enums import OrderType, Product, Segment, Side, Validity

WANTED = 100_000
"""Orders a second of the mix."""

_START_NS = 1_795_408_200_000_000_000
_ACCOUNTS = tuple(f"A{number}" for number in range(8))
_LISTINGS = tuple(
    Listing(
        segment=Segment.NSE_CM,
        token=str(number),
        symbol=f"S{number}-EQ",
        name=f"S{number}",
        base_price=200_00,
        lower_band=180_00,
        upper_band=220_00,
    )
    for number in range(4)
)

Step = Callable[[MatchingEngine], None]


def _market() -> MatchingEngine:
    market = MatchingEngine(_LISTINGS, seed=1, now_ns=_START_NS, market_makers=False)
    for name in _ACCOUNTS:
        market.open_account(name, cash=10**15)
    return market


def _limit(rng: random.Random, low: int, high: int, side: Side | None = None) -> NewOrder:
    return NewOrder(
        segment=Segment.NSE_CM,
        symbol=rng.choice(_LISTINGS).symbol,
        side=side or rng.choice((Side.BUY, Side.SELL)),
        quantity=rng.randint(1, 50),
        order_type=OrderType.LIMIT,
        product=Product.MIS,
        price=rng.randint(low // 5, high // 5) * 5,
    )


def _mix(count: int) -> list[tuple[str, str, NewOrder | int]]:
    """Return the steps of the mix (action, account, order), made before the clock starts."""
    rng = random.Random(7)
    steps: list[tuple[str, str, NewOrder | int]] = []
    for _ in range(count):
        account, draw = rng.choice(_ACCOUNTS), rng.random()
        order = _limit(rng, 199_00, 201_00)
        if draw < 0.70:
            steps.append(("place", account, order))
        elif draw < 0.80:
            market = msgspec.structs.replace(order, price=0, order_type=OrderType.MARKET)
            steps.append(("place", account, market))
        elif draw < 0.85:
            away = 2_00 if order.side is Side.BUY else -2_00
            trigger = 200_00 + away
            stop = msgspec.structs.replace(
                order, order_type=OrderType.SL, trigger=trigger, price=trigger + away
            )
            steps.append(("place", account, stop))
        else:
            steps.append(("cancel" if draw < 0.95 else "modify", account, rng.randrange(200)))
    return steps


def _run_mix(market: MatchingEngine, steps: list[tuple[str, str, NewOrder | int]]) -> None:
    ledger = market.ledger
    for number, (verb, account, what) in enumerate(steps):
        if isinstance(what, NewOrder):
            market.place(account, what)
        elif ledger:
            record = ledger[-1 - what % len(ledger)]
            try:
                if verb == "cancel":
                    market.cancel(record.account, record.number)
                else:
                    market.modify(
                        record.account,
                        record.number,
                        Change(
                            quantity=record.quantity,
                            order_type=record.order_type,
                            validity=Validity.DAY,
                            price=record.price,
                            trigger=record.trigger,
                            disclosed_quantity=0,
                        ),
                    )
            except Refusal:
                pass  # it has been filled since
        if number % 1000 == 999:
            market.take_events()


def _run_resting(market: MatchingEngine, orders: list[tuple[str, NewOrder]]) -> None:
    for number, (account, order) in enumerate(orders):
        market.place(account, order)
        if number % 1000 == 999:
            market.take_events()


def _resting(count: int) -> list[tuple[str, NewOrder]]:
    rng = random.Random(8)
    orders = []
    for _ in range(count):
        side = rng.choice((Side.BUY, Side.SELL))
        band = (181_00, 199_00) if side is Side.BUY else (201_00, 219_00)
        orders.append((rng.choice(_ACCOUNTS), _limit(rng, *band, side)))
    return orders


def measure(name: str, count: int) -> float:
    """Return the orders a second of a scene, in a market of its own."""
    market = _market()
    mix, resting = _mix(count), _resting(count)
    if name == "journaled":
        market.journal = []
    gc.collect()
    started = time.perf_counter()
    if name == "resting":
        _run_resting(market, resting)
    else:
        _run_mix(market, mix)
    return count / (time.perf_counter() - started)


def run(count: int, rounds: int) -> dict[str, Figure]:
    results = alternate(
        ["mix", "resting", "journaled"], lambda name: measure(name, count), rounds=rounds
    )
    return {name: summarise(values) for name, values in results.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=50_000, help="of each scene and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pin(cores()[1])
    figures = run(options.orders, options.rounds)
    if options.json:
        sys.stdout.write(
            msgspec.json.encode({"orders_per_second": figures, "wanted": WANTED}).decode() + "\n"
        )
        return
    table = Table(title=f"Orders a second into the matching core (wanted: {WANTED:,})")
    for heading in ("scene", "median", "lowest", "highest"):
        table.add_column(heading, justify="left" if heading == "scene" else "right")
    for name, figure in figures.items():
        table.add_row(
            name, *(f"{value:,.0f}" for value in (figure.median, figure.low, figure.high))
        )
    Console().print(table)


if __name__ == "__main__":
    main()
