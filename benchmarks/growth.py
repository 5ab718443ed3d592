"""Growth: an order, a lost answer and a start after a large past and after a small one.

Each case is measured in two processes, one with a large past and one with a small one, in
alternating rounds against the server of `benchmarks.orders`. The past is made by the calls that a
session makes for it, without sending orders; the measured requests are sent. README.md beside this
file describes each case.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import ExitStack

import msgspec

from benchmarks.growth_cases import CASES, Sample, Scale
from benchmarks.harness import (
    Benchmark,
    Figure,
    Report,
    Table,
    Wanted,
    alternate,
    at_most,
    number,
    summarise,
)
from benchmarks.placing import IN_FLIGHT
from benchmarks.workers import Cores, Worker
from neo_async.config import PoolLimits

RATIO = 1.2
"""Wanted at most, of large to small."""
HELD_MS = 10.0
"""Wanted at most, of the event loop in one piece."""

DEFAULT_POOL = PoolLimits().maximum


def scales(*, quick: bool) -> dict[str, dict[str, Scale]]:
    """Return the large and the small past of each case."""
    million, hundred, thousand = (2_000, 100, 200) if quick else (1_000_000, 100, 1_000)
    known = 1_000 if quick else 50_000
    return {
        "session": {"large": Scale(million), "small": Scale(hundred)},
        "starts": {"large": Scale(million, DEFAULT_POOL), "small": Scale(hundred, DEFAULT_POOL)},
        "pool": {"large": Scale(0, DEFAULT_POOL), "small": Scale(0)},
        "lost": {"large": Scale(known), "small": Scale(hundred)},
        "login": {"large": Scale(million), "small": Scale(thousand)},
    }


def title_of(name: str, sides: dict[str, Scale]) -> str:
    large, small = sides["large"], sides["small"]
    if name == "pool":
        return f"an order, {IN_FLIGHT} in flight, on {large.pool} connections and on {small.pool}"
    what = {
        "session": "an order after {} orders of the session and after {}",
        "starts": "an order that waits for a connection after {} starts and after {}",
        "lost": f"each of {IN_FLIGHT} lost answers with {{}} known orders and with {{}}",
        "login": "a start with {} rows in the journal and with {}",
    }[name]
    return what.format(f"{large.past:,}", f"{small.past:,}")


class Grown(msgspec.Struct, frozen=True):
    """The figures of one case."""

    title: str
    unit: str
    large: Figure
    small: Figure
    ratio: Figure
    """Ratio of each round with the large past to the round with the small past beside it."""
    held_ms: Figure
    """Longest time, in ms, that the loop was held with the large past."""
    held_small_ms: Figure
    """Longest time, in ms, that the loop was held with the small past."""


def measure_case(
    name: str, sides: Mapping[str, Scale], *, on: Cores, rounds: int, seconds: float
) -> Grown:
    """Measure one case with both pasts, in alternating rounds."""
    with ExitStack() as stack:
        server = stack.enter_context(Worker("server:serve", on.server))
        workers = {
            side: stack.enter_context(
                Worker(
                    "growth_cases:serve", on.client, case=name, url=server.ready["url"], scale=scale
                )
            )
            for side, scale in sides.items()
        }
        samples = alternate(
            list(sides),
            lambda side: msgspec.convert(workers[side].ask(seconds=seconds), Sample),
            rounds=rounds,
        )
    large, small = samples["large"], samples["small"]
    return Grown(
        title=title_of(name, sides),
        unit=CASES[name].unit,
        large=summarise(sample.cost for sample in large),
        small=summarise(sample.cost for sample in small),
        ratio=summarise(one.cost / other.cost for one, other in zip(large, small, strict=True)),
        held_ms=summarise(sample.held_ms for sample in large),
        held_small_ms=summarise(sample.held_ms for sample in small),
    )


def wanted_of(grown: dict[str, Grown]) -> list[Wanted]:
    return [
        at_most(one.title, RATIO, one.ratio.median)
        if name != "login"  # it reads the placements of a week, beside the loop
        else at_most(f"{one.title}: loop held", HELD_MS, one.held_ms.median, "ms")
        for name, one in grown.items()
    ]


def growth_table(grown: Mapping[str, Grown]) -> Table:
    return Table(
        "processor time after a large past and after a small one; the loop held in one piece, ms",
        ["", "unit", "large", "small", "ratio", "low – high", "wanted", "held", "held, small"],
        [
            [
                one.title,
                one.unit,
                number(one.large.median),
                number(one.small.median),
                f"{one.ratio.median:.2f}",
                f"{one.ratio.low:.2f} – {one.ratio.high:.2f}",
                f"≤ {RATIO:g}" if name != "login" else f"held ≤ {HELD_MS:g}",
                number(one.held_ms.median),
                number(one.held_small_ms.median),
            ]
            for name, one in grown.items()
        ],
    )


def measure(arguments: argparse.Namespace) -> Report:
    """Measure the chosen cases."""
    quick = arguments.quick
    rounds, seconds = (1, 0.05) if quick else (arguments.rounds, arguments.seconds)
    on = Cores.of_machine()
    sides = scales(quick=quick)
    grown = {
        name: measure_case(name, sides[name], on=on, rounds=rounds, seconds=seconds)
        for name in arguments.only
    }
    settings = {"rounds": rounds, "seconds": seconds, "quick": quick, "in_flight": IN_FLIGHT}
    return Report(
        {"settings": settings | on.settings(), "cases": grown},
        [growth_table(grown)],
        wanted_of(grown),
        on.conditions(rounds, seconds),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="small pasts, one short round")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))


BENCHMARK = Benchmark(
    "growth",
    __doc__,
    measure,
    packages=("uvloop", "httptools", "msgspec", "aiohttp"),
    rounds=5,
    seconds=1.0,
    add_options=add_options,
)

if __name__ == "__main__":
    BENCHMARK.main()
